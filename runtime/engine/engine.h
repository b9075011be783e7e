/* SPDX-License-Identifier: MIT */
/* The engine's inside: operations, timers, tasks, the loop, and the lock that makes a shared engine
 * out of an owned one.
 *
 * Everything that is attached to an engine is touched by one thread at a time: the owner (owned),
 * or whoever is between spk_engine_enter() and spk_engine_leave() (shared).  The core above has no
 * other lock.
 *
 * An operation (struct spk_op) is embedded in its owner.  It is idle, queued, or in flight; each
 * submission ends in exactly one final completion, cancelled or not.  Completions run in the loop,
 * never inside the call that submitted.  Never free memory under an operation that is not idle. */
#ifndef SPK_ENGINE_ENGINE_H
#define SPK_ENGINE_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <spoke/engine.h>
#include <spoke/timer.h>

#include "runtime/memory/chunk.h"
#include "runtime/memory/idmap.h"
#include "runtime/memory/list.h"
#include "runtime/memory/pool.h"

struct spk_engine;
struct spk_backend;
struct spk_fds_in;

/* ---- operations ---- */

enum spk_op_kind {
    SPK_OP_ACCEPT, /* result: a handle.  May complete many times (op->more) before it is final */
    SPK_OP_CONNECT,
    SPK_OP_RECV,     /* result: bytes, 0 at the end of the stream.  buffer NULL: into the engine's
                        memory, see `chunk` */
    SPK_OP_SEND,     /* result: bytes, at least 1; without a message: 0 or more, there is room */
    SPK_OP_READABLE, /* of a descriptor; result: 0 or more, also when the other end has closed it */
    SPK_OP_WATCH,    /* of memory that other threads write: see spk_op_watch() */
    SPK_OP_OTHER     /* see spk_op_by_other() */
};
enum spk_op_state { SPK_OP_IDLE, SPK_OP_QUEUED, SPK_OP_IN_FLIGHT };

struct spk_op;
typedef void spk_op_f(struct spk_op *op, int result); /* result ≥ 0, or SPOKE_E… */

struct spk_op {
    struct spk_link
        link; /* where it waits: the engine's queues while queued, the backend's while in flight */
    spk_op_f *fn;
    uint8_t kind, state;
    bool cancelled; /* a cancel was asked for; the final completion may still be a success */
    bool more;      /* accept: this completion was not the final one */
    bool hot;       /* in engine->hot */
    bool awaited;   /* receive: callers wait for what it brings, and may look after it themselves */
    uint32_t hot_at; /* engine->polls when it was last made hot */
    int handle;
    union {
        struct {
            const struct sockaddr *address; /* lives until completion */
            socklen_t size;
        } connect;
        struct {
            void *buffer; /* lives until completion; NULL: any memory of the engine's */
            size_t size;
            struct spk_fds_in *fds; /* spk_op_recv_fds() */
        } recv;
        struct {
            struct msghdr *msg; /* lives until completion, with its iovec; NULL: nothing is sent */
        } send;
        struct {
            bool (*changed)(struct spk_op *op);
            bool (*arm)(struct spk_op *op);
        } watch;
        struct { /* the first two as `recv` has them */
            void *buffer;
            size_t size;
            void (*cancel)(struct spk_op *op);
            void *by;
        } other;
    } u;
    /* After a receive without a buffer: the bytes, in a chunk of the engine's.  Borrowed for the
     * callback: whoever keeps a slice adds a reference. */
    struct spk_chunk *chunk;
    uint8_t *data;
    uint64_t backend[2]; /* the backend's own */
};

/* Prepare an idle operation. */
void spk_op_init(struct spk_op *op, spk_op_f *fn);

/* Submit.  The answer comes from the loop. */
void spk_op_accept(struct spk_engine *e, struct spk_op *op, int handle);
void spk_op_connect(struct spk_engine *e, struct spk_op *op, int handle,
                    const struct sockaddr *address, socklen_t size);
void spk_op_recv(struct spk_engine *e, struct spk_op *op, int handle, void *buffer, size_t size);
/* A receive without a buffer, from a unix socket of the kernel's, that has been submitted, is to
 * bring descriptors as well (engine/fds.h).  If it was in flight already it may miss some until it
 * has completed or been cancelled. */
static inline void
spk_op_recv_fds(struct spk_op *op, struct spk_fds_in *in)
{
    op->u.recv.fds = in;
}
void spk_op_send(struct spk_engine *e, struct spk_op *op, int handle, struct msghdr *msg);
/* Wait until there is room to send. */
void spk_op_writable(struct spk_engine *e, struct spk_op *op, int handle);
void spk_op_readable(struct spk_engine *e, struct spk_op *op,
                     int fd); /* not where backend->is_virtual */

/* Look at memory for as long as the loop looks for work by itself: completes, with 0, when
 * changed() is true.  Before the loop sleeps it calls arm() instead, from which on somebody else
 * has to wake it and complete what is to be done; arm() gives false if there was a change, which
 * then completes after all.  False: the loop does not look by itself, nothing was done.
 * spk_op_unwatch() ends it at once, without a completion. */
bool spk_op_watch(struct spk_engine *e, struct spk_op *op, bool (*changed)(struct spk_op *op),
                  bool (*arm)(struct spk_op *op));
void spk_op_unwatch(struct spk_engine *e, struct spk_op *op);

/* An operation that `by` does, which is no backend: it calls spk_op_complete(), or
 * spk_scratch_complete(), from the loop or a task.  cancel() may ask for that soon, once. */
void spk_op_by_other(struct spk_op *op, void *by, void (*cancel)(struct spk_op *op));

/* Ask for an early end: the final completion follows, usually with SPOKE_ECANCELED.  Harmless on an
 * idle operation. */
void spk_op_cancel(struct spk_engine *e, struct spk_op *op);

static inline bool
spk_op_busy(const struct spk_op *op)
{
    return op->state != SPK_OP_IDLE;
}

/* For backends: the operation is over (or, with `more`, goes on). */
void spk_op_complete(struct spk_engine *e, struct spk_op *op, int result);

/* ---- tasks, timers, callbacks ---- */

/* Something to do soon, not nested in what goes on now. */
struct spk_task {
    struct spk_link link;
    void (*fn)(struct spk_task *task);
};
void spk_task_init(struct spk_task *task, void (*fn)(struct spk_task *task));
void spk_task_queue(struct spk_engine *e,
                    struct spk_task *task); /* harmless if it is queued already */
void spk_task_cancel(struct spk_task *task);
/* The same for what calls the user: runs in the loop on the engine's thread only.  fn unlocks
 * around the user's function with spk_engine_call_begin() and spk_engine_call_end(); `which` tells
 * functions apart: an address, where it is kept or of what it was set on; NULL, nobody waits for
 * it. */
void spk_task_queue_callback(struct spk_engine *e, struct spk_task *task);
void spk_engine_call_begin(struct spk_engine *e, const void *which);
void spk_engine_call_end(struct spk_engine *e);
/* Wait until that function, if it runs now, has returned, but not on the engine's thread.  For who
 * sets another on another thread, or closes what it is set on: what it uses may be freed then.
 * Others may have had the lock meanwhile. */
void spk_engine_await_call(struct spk_engine *e, const void *which);

/* Set or move: `fn` runs in the loop at `when` (spk_engine_now() + …).  SPOKE_ENOMEM: not set. */
int spk_timer_set(struct spk_engine *e, struct spk_timer *timer, spoke_ns when);
void spk_timer_cancel(struct spk_engine *e, struct spk_timer *timer);
struct spk_timers { /* a heap of four children a node: O(log n) */
    struct spk_timer **heap;
    uint32_t count, room;
};
void spk_timers_fini(struct spk_timers *t);
spoke_ns spk_timers_next(const struct spk_timers *t); /* SPOKE_FOREVER if none */
int spk_timers_set(struct spk_timers *t, struct spk_timer *timer, spoke_ns when);
void spk_timers_cancel(struct spk_timers *t, struct spk_timer *timer);
struct spk_timer *spk_timers_due(struct spk_timers *t,
                                 spoke_ns now); /* takes one out, NULL if none is due */

/* Something that a caller could not do, as another thread had the lock of a shared engine: whoever
 * has it does it before leaving.  Its memory lives as long as the engine.  Any thread, without the
 * lock. */
struct spk_errand {
    struct spk_errand *next;
    atomic_bool given; /* and not yet begun */
    void (*fn)(struct spk_errand *errand);
};
void spk_errand_init(struct spk_errand *errand, void (*fn)(struct spk_errand *errand));
void spk_errand_give(struct spk_engine *e, struct spk_errand *errand); /* harmless if it is given */

/* Called at the start of every turn and before every sleep, to write out what was held back. */
struct spk_flush {
    struct spk_link link; /* in engine->flushes while there is something to write */
    void (*fn)(struct spk_flush *flush);
};

/* ---- the engine ---- */

struct spk_engine {
    const struct spk_backend *backend;
    void *backend_state;
    spoke_engine *handle; /* NULL: the library's own shared engine */
    bool shared;          /* the lock is real and a thread of the library's drives */
    bool closing;
    int turning;        /* depth of turns: above 1 only where a simulated world turns other engines
                           meanwhile */
    int in_callback;    /* depth of user callbacks on the engine's thread */
    const void *called; /* which the outermost is */
    uint64_t calls;     /* outermost ones so far */
    struct spk_link call_waiters;
    unsigned fork_generation;
    pthread_t owner;       /* owned: its thread; shared: the library's thread */
    pthread_mutex_t lock;  /* shared only */
    atomic_uint wanted;    /* threads that wait for it */
    atomic_uint gives_way; /* 1: the library's thread sleeps until one of them has had it */

    _Atomic(struct spk_errand *) errands; /* the last one given first */

    struct spk_link queued; /* operations to hand to the backend at the next turn */
    struct spk_link hot;    /* receives that are tried by plain calls before they are armed, and
                               watches */
    struct spk_link tasks, callbacks, flushes;
    struct spk_link afters; /* spoke_engine_after() */
    struct spk_idmap afters_by_id;
    uint32_t after_ids;
    struct spk_link partings; /* of the core: connections that end by themselves */
    struct spk_link sockets;  /* of the core: everything to close with the engine */
    void *streams;            /* … and the one among them that streams belong to */
    struct spk_timers timers;
    uint32_t hot_count, hot_changes;
    uint32_t looks; /* at descriptors that are readable seldom */
    uint64_t ops_in_flight;

    struct spk_chunk *scratch; /* where plain receives go */
    size_t scratch_used;

    spoke_ns busy_poll_ns; /* as configured */
    spoke_ns wait_ns;      /* … or as the socket wants it that waits now */
    bool asleep;           /* shared: the thread is in the kernel, a poke is needed to move it */
    bool poke;             /* … and is wanted when the lock is left */
    bool stoppable;        /* in spoke_engine_run() or spoke_engine_poll(): `stop` means us */
    atomic_bool stop;      /* spoke_engine_run() is to return */
    bool interruptible;    /* an owner waits who wants to know of signals */
    bool interrupted;      /* a signal handler ended the last sleep of an owner */
    bool stuck;            /* sim: nothing can ever happen again */
    bool spinning;         /* some thread waits actively: the only one that may */
    struct spk_waiter *poller; /* the caller that sleeps on the hot receives' sockets itself */
    bool poller_kicked;        /* … is to look at them anew, or has been woken */
    int poller_fd;             /* an eventfd, to wake it with; -1: callers never do that */
    uint32_t polls;            /* of callers that did */
    uint32_t sleepers;         /* callers that sleep otherwise and have not been woken */
    uint32_t poller_debt;      /* waits until callers may again, since two waited at a time */
    uint64_t random;           /* state of spk_engine_random(); sim's open() sets it */
    uint64_t burst; /* changes whenever somebody waits or the loop turns: sends in between are one
                       burst */
    uint64_t written, written_before; /* bytes of messages that had waited for each other: ever, and
                                         at the end of the last turn */
    uint32_t stream_turns;            /* of the last turns, those in which these were many */
    bool ticking;         /* asleep for a moment: what is to be flushed has time until then */
    uint32_t selects;     /* owned: spoke_select() calls since one of them has turned it */
    int cork;             /* above 0: sends are gathered until it is 0 again */
    atomic_bool sleeping; /* in the kernel: who posts must poke */
    int spin_credit;      /* above 0: recent waits were short, spinning pays */
    int spin_debt;        /* how many such waits it takes again, since others wanted the CPU */
    unsigned tries, tries_per_yield; /* of spins, since the last yield */
    spoke_ns lease_until_ns;         /* until then hot receives are left to callers */
    spoke_ns sleep_until_ns;         /* while asleep: when the thread wakes by itself */
    int foreign_fd, timer_fd;        /* for spoke_engine_fd(); -1: nobody asked */
    uint64_t number;                 /* of this engine among all ever opened; under post_lock */
    pthread_mutex_t post_lock;       /* guards posted and closed */
    struct spk_link posted;          /* from any thread */
    atomic_uint pokers;              /* that have posted, and wake it: it closes after them */
    atomic_bool has_posted;          /* a hint that spares the lock */
    bool closed;
    struct spk_link waiters; /* to wake when the lock is left */
    spoke_engine_config config;
    struct spoke_engine_info info;
    void (*on_close)(struct spk_engine *e); /* the core's: close all sockets */
};

/* Open an engine of the calling thread on a given backend, whose state is `argument` until its
 * open() says otherwise. */
int spk_engine_open_with(struct spk_engine **out, const struct spk_backend *backend, void *argument,
                         const spoke_engine_config *config);
/* Close it with all its sockets. */
void spk_engine_close(struct spk_engine *e);

/* The library's shared engine, started at the first call. */
int spk_engine_default(struct spk_engine **out);

/* Every public call on something that lives on `e` stands between these two.
 * Errors: SPOKE_EFORKED, SPOKE_EWRONGTHREAD. */
int spk_engine_enter(struct spk_engine *e);
int spk_engine_try_enter(struct spk_engine *e); /* SPOKE_EAGAIN: others have or want the lock */
void spk_engine_leave(struct spk_engine *e);

/* Let those in who wait for the lock of a shared engine; by its thread, between turns. */
void spk_engine_give_way(struct spk_engine *e);

/* One turn of the loop by the engine's thread or an owner: returns true if anything was done. Waits
 * at most until `deadline`. */
bool spk_engine_turn(struct spk_engine *e, spoke_ns deadline);

/* Write what was held back. */
void spk_engine_flush(struct spk_engine *e);

/* Arm everything, as before a sleep, without sleeping: for a foreign loop that will poll instead.
 */
void spk_engine_rest(struct spk_engine *e);

/* Bring the descriptors for a foreign loop up to date. */
void spk_engine_arm_foreign(struct spk_engine *e);

/* Cancel what spoke_engine_after() started. */
void spk_afters_close(struct spk_engine *e);

/* Wait, between enter and leave, until somebody wakes `waiter` or `deadline` passes.  Owned: drives
 * the loop. Returns 0 after any event that may have changed something (look again),
 * SPOKE_ETIMEDOUT, SPOKE_EDEADLK; if it may be interrupted also SPOKE_EINTR, after a signal handler
 * ran in this thread while it slept. */
struct spk_waiter {
    struct spk_link link; /* in the list of what it waits for */
    struct spk_link wake; /* in engine->waiters once chosen, until the lock is left */
    bool chosen, asleep;
    atomic_uint woken; /* the futex */
};
bool spk_engine_may_wait(const struct spk_engine *e); /* else SPOKE_EDEADLK */
int spk_engine_wait(struct spk_engine *e, struct spk_link *list, spoke_ns deadline,
                    spoke_ns busy_poll_ns);
int spk_engine_wait_interruptibly(struct spk_engine *e, struct spk_link *list, spoke_ns deadline,
                                  spoke_ns busy_poll_ns);
/* Look at what is left to callers, for one that does not wait, and leave it to none any more.  True
 * if something had come. */
bool spk_engine_look(struct spk_engine *e);
void spk_engine_wake_one(struct spk_engine *e, struct spk_link *list);
void spk_engine_wake_all(struct spk_engine *e, struct spk_link *list);

spoke_ns spk_engine_now(struct spk_engine *e);

/* A time that is `duration` after `now`, SPOKE_FOREVER if that is further than time goes. */
static inline spoke_ns
spk_later(spoke_ns now, spoke_ns duration)
{
    return duration > SPOKE_FOREVER - now ? SPOKE_FOREVER : now + duration;
}

/* Plain calls, at once: bytes, 0 (receive: end of stream), or SPOKE_E… (SPOKE_EAGAIN). */
int64_t spk_send_now(struct spk_engine *e, int handle, struct iovec *iov, int count);

/* Run `fn(ctx)` in the loop of `e`.  Any thread, no lock needed.  `user`: fn is the user's and runs
 * with the lock left. */
int spk_engine_post(struct spk_engine *e, spoke_post_f *fn, void *ctx, bool user);
/* The same with memory of the caller's, which must not be posted already; it is free again when
 * `fn` runs.  `number` is the engine's when it was last known to be open: its memory may have
 * become another engine since.  Fails with SPOKE_ECLOSED only. */
struct spk_post {
    struct spk_link link;
    spoke_post_f *fn;
    void *ctx;
    bool user, embedded;
};
int spk_engine_post_embedded(struct spk_engine *e, uint64_t number, struct spk_post *post,
                             spoke_post_f *fn, void *ctx);

/* Pseudo-random numbers, seeded from the kernel, or by the simulated world. */
uint64_t spk_engine_random(struct spk_engine *e);

/* SPOKE_E… for an errno. */
int spk_error_from_errno(int error);

/* ---- threads ---- */

/* Start a thread of the library's, which nobody joins and no signal reaches.  SPOKE_ELIMIT: there
 * can be no more. */
int spk_thread_start(void *(*fn)(void *argument), void *argument);

/* What would block is done aside: fn(work) runs on one of a few threads, after what was started
 * earlier.  `work` lives until then.  Any thread.  SPOKE_ELIMIT: there is no thread for it. */
#define SPK_ASIDE_THREADS 8u /* at most, in a process */
struct spk_aside {
    struct spk_link link;
    void (*fn)(struct spk_aside *work);
};
int spk_aside_start(struct spk_aside *work, void (*fn)(struct spk_aside *work));
/* True: it had not begun, and will not.  False: fn runs, or has run. */
bool spk_aside_withdraw(struct spk_aside *work);

/* ---- forks ---- */

/* A child of fork() finds this static lock free, although another thread may have had it. */
void spk_fork_add_lock(pthread_mutex_t *lock);
#define SPK_FREE_AFTER_FORK(Lock)                                                                  \
    __attribute__((constructor)) static void add_##Lock(void)                                      \
    {                                                                                              \
        spk_fork_add_lock(&(Lock));                                                                \
    }

/* Whether the engine is of this process, and not of its parent. */
static inline bool
spk_engine_is_ours(const struct spk_engine *e)
{
    return e->fork_generation == atomic_load_explicit(&spk_fork_generation, memory_order_relaxed);
}

#endif
