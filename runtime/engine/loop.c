/* SPDX-License-Identifier: MIT */
/* The loop: what an engine does in one turn, how long it looks for work itself before it sleeps,
 * and how threads that share an engine wait for it.  The order within a turn: posted work, tasks,
 * timers, callbacks, held-back writes, hot receives, then the backend (which submits everything and
 * waits, in one system call).  docs/architecture.md, "Waiting". */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/engine/backend.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/probe.h"
#include "runtime/memory/pool.h"

#define SCRATCH_SIZE  ((size_t)256 * 1024) /* bytes that one plain receive may bring */
#define SCRATCH_LEAST ((size_t)16 * 1024)
#define HOT_MOST      8u /* receives that are worth trying one by one; more are armed */

/* Adaptive waiting, nanoseconds.  A sleep and a wake-up cost about 30 us each on a virtual machine,
 * some 3 us on bare metal; a wait that ended by itself within SPIN_BUDGET would have been cheaper
 * without sleeping.  What a sleeping wait measured has the wake-up in it. */
#define SPIN_BUDGET (60 * SPOKE_US)
#define SLEPT_SHORT (150 * SPOKE_US)
#define CREDIT_MOST 16
#define DEBT_LEAST  64
#define DEBT_MOST   16384
#define LEASE       (2 * SPOKE_MS)

/* A caller that waits alone sleeps on the sockets itself: one wake-up for a message instead of two.
 * Once two callers have slept at a time that many waits go through the library's thread. */
#define POLLER_DEBT 64
#define POLLS_IDLE  64 /* without anything from a socket, and another one may take its place */

/* Callers that send on and on, so that STREAM_LEAST bytes were written in each of some
 * STREAM_TURNS turns, need no wake-up for each few of their messages: the shared engine's thread
 * looks after them every TICK, unless they have written themselves what has become enough. */
#define STREAM_LEAST      1024
#define STREAM_TURNS      3u
#define STREAM_TURNS_MOST 8u
#define TICK              (50 * SPOKE_US)

/* Tries of a spin between two looks at the clock; and between two yields, which begin often and
 * become seldom while they show that nobody else wants the CPU. */
#define TRIES_PER_LOOK  4u
#define TRIES_PER_YIELD 4u
#define YIELD_SELDOM    64u
#define YIELD_SHORT     (2 * SPOKE_US)
#define YIELD_LONG      (200 * SPOKE_US)

/* Whoever wants the lock of the engine's thread usually has it within PAUSES; else the thread
 * sleeps until then, at most GIVE_WAY_MOST. */
#define PAUSES        100
#define GIVE_WAY_MOST (500 * SPOKE_US)

/* ---- operations ---- */

void
spk_op_init(struct spk_op *op, spk_op_f *fn)
{
    memset(op, 0, sizeof *op);
    spk_list_init(&op->link);
    op->fn = fn;
}

static void
queue_op(struct spk_engine *e, struct spk_op *op, enum spk_op_kind kind, int handle)
{
    op->kind = (uint8_t)kind;
    op->state = SPK_OP_QUEUED;
    op->handle = handle;
    op->cancelled = false;
    op->more = false;
    spk_list_append(&e->queued, &op->link);
    SPK_PROBE(submit, kind, handle);
}

void
spk_op_accept(struct spk_engine *e, struct spk_op *op, int handle)
{
    queue_op(e, op, SPK_OP_ACCEPT, handle);
}

void
spk_op_connect(struct spk_engine *e, struct spk_op *op, int handle, const struct sockaddr *address,
               socklen_t size)
{
    op->u.connect.address = address;
    op->u.connect.size = size;
    queue_op(e, op, SPK_OP_CONNECT, handle);
}

/* Is it worth looking for work by ourselves? */
static bool
spinning_pays(const struct spk_engine *e)
{
    if (e->backend->is_virtual) /* its time would stand still */
        return false;
    return e->wait_ns == SPOKE_WAIT_ADAPTIVE ? e->spin_credit > 0 : e->wait_ns > 0;
}

static bool
can_be_hot(const struct spk_engine *e)
{
    return e->hot_count < HOT_MOST && e->poller == NULL && (e->spinning || spinning_pays(e));
}

/* Callers that wait themselves for what it brings need not be woken for it. */
static bool
is_left_to_caller(const struct spk_engine *e, const struct spk_op *op)
{
    bool is_late = e->poller != NULL && !e->poller->chosen; /* it does not know of this one */

    return op->awaited && e->poller_fd >= 0 && !is_late && e->sleepers == 0 && e->poller_debt == 0;
}

static void
make_cold(struct spk_engine *e, struct spk_op *op)
{
    spk_list_remove(&op->link);
    op->hot = false;
    e->hot_count--;
    e->hot_changes++;
    e->poller_kicked = true; /* it holds the socket open */
}

static void
arm_op(struct spk_engine *e, struct spk_op *op)
{
    make_cold(e, op);
    spk_list_append(&e->queued, &op->link);
}

/* From now on hot receives are left to callers for a while. */
static void
lease(struct spk_engine *e, spoke_ns now)
{
    if (e->lease_until_ns < now + LEASE)
        e->lease_until_ns = now + LEASE;
}

/* The engine's thread has to know of hot receives that nobody looks after, unless it wakes by
 * itself when the lease is over. */
static bool
needs_thread(const struct spk_engine *e)
{
    return e->hot_count > 0 && e->poller == NULL && e->sleep_until_ns > e->lease_until_ns;
}

/* The hot receives are in the order in which they last brought something. */
static void
drop_idle(struct spk_engine *e)
{
    struct spk_op *op = SPK_OWNER(e->hot.next, struct spk_op, link);

    if (op->kind == SPK_OP_RECV && e->polls - op->hot_at >= POLLS_IDLE)
        arm_op(e, op);
}

/* A queued operation that is tried by the loop instead. */
static void
make_hot(struct spk_engine *e, struct spk_op *op)
{
    spk_list_remove(&op->link);
    spk_list_append(&e->hot, &op->link);
    op->hot = true;
    op->hot_at = e->polls;
    e->hot_count++;
    e->hot_changes++;
    e->poller_kicked = true;
}

void
spk_op_recv(struct spk_engine *e, struct spk_op *op, int handle, void *buffer, size_t size)
{
    op->u.recv.buffer = buffer;
    op->u.recv.size = size;
    queue_op(e, op, SPK_OP_RECV, handle);
    if (can_be_hot(e)) {
        make_hot(e, op);
    } else if (is_left_to_caller(e, op)) {
        if (e->hot_count == HOT_MOST)
            drop_idle(e);
        if (e->hot_count == HOT_MOST)
            return;
        lease(e, spk_engine_now(e));
        make_hot(e, op);
    }
}

bool
spk_op_watch(struct spk_engine *e, struct spk_op *op, bool (*changed)(struct spk_op *op),
             bool (*arm)(struct spk_op *op))
{
    if (!can_be_hot(e))
        return false;
    op->u.watch.changed = changed;
    op->u.watch.arm = arm;
    queue_op(e, op, SPK_OP_WATCH, -1);
    make_hot(e, op);
    return true;
}

void
spk_op_unwatch(struct spk_engine *e, struct spk_op *op)
{
    if (op->state == SPK_OP_IDLE)
        return;
    if (op->hot)
        make_cold(e, op);
    spk_list_remove(&op->link);
    op->state = SPK_OP_IDLE;
}

void
spk_op_send(struct spk_engine *e, struct spk_op *op, int handle, struct msghdr *msg)
{
    op->u.send.msg = msg;
    queue_op(e, op, SPK_OP_SEND, handle);
}

void
spk_op_cancel(struct spk_engine *e, struct spk_op *op)
{
    if (op->state == SPK_OP_IDLE || op->cancelled)
        return;
    op->cancelled = true;
    e->poke |= e->asleep;
    if (op->state == SPK_OP_IN_FLIGHT)
        e->backend->cancel(e, op);
    /* One that is only queued is answered by the next turn, see submit_queued(). */
}

void
spk_op_complete(struct spk_engine *e, struct spk_op *op, int result)
{
    if (!op->more) {
        if (op->state == SPK_OP_IN_FLIGHT)
            e->ops_in_flight--;
        op->state = SPK_OP_IDLE;
        spk_list_remove(&op->link);
    }
    SPK_PROBE(complete, op->kind, result);
    op->fn(op, result);
}

/* ---- tasks, timers, posts ---- */

void
spk_task_init(struct spk_task *task, void (*fn)(struct spk_task *task))
{
    spk_list_init(&task->link);
    task->fn = fn;
}

void
spk_task_queue(struct spk_engine *e, struct spk_task *task)
{
    if (spk_list_empty(&task->link))
        spk_list_append(&e->tasks, &task->link);
}

void
spk_task_cancel(struct spk_task *task)
{
    spk_list_remove(&task->link);
}

void
spk_task_queue_callback(struct spk_engine *e, struct spk_task *task)
{
    if (spk_list_empty(&task->link))
        spk_list_append(&e->callbacks, &task->link);
}

/* The engine's thread takes the lock again as soon as it has left it; who waits says so, and it
 * gives way. */
static void
lock(struct spk_engine *e)
{
    if (pthread_mutex_trylock(&e->lock) == 0)
        return;
    atomic_fetch_add(&e->wanted, 1);
    pthread_mutex_lock(&e->lock);
    atomic_fetch_sub(&e->wanted, 1);
}

static void leave_shared(struct spk_engine *e);

void
spk_engine_call_begin(struct spk_engine *e)
{
    e->in_callback++;
    if (e->shared)
        leave_shared(e);
}

void
spk_engine_call_end(struct spk_engine *e)
{
    if (e->shared)
        lock(e);
    e->in_callback--;
}

void
spk_timer_init(struct spk_timer *timer, void (*fn)(struct spk_timer *timer))
{
    timer->fn = fn;
    timer->when = 0;
    timer->index = UINT32_MAX;
}

int
spk_timer_set(struct spk_engine *e, struct spk_timer *timer, spoke_ns when)
{
    int rc = spk_timers_set(&e->timers, timer, when);

    if (rc == 0 && e->asleep && when < e->sleep_until_ns)
        e->poke = true;
    return rc;
}

void
spk_timer_cancel(struct spk_engine *e, struct spk_timer *timer)
{
    spk_timers_cancel(&e->timers, timer);
}

spoke_ns
spk_engine_now(struct spk_engine *e)
{
    return e->backend->now(e);
}

/* `number` 0: whichever engine it is. */
static int
post_it(struct spk_engine *e, uint64_t number, struct spk_post *post)
{
    pthread_mutex_lock(&e->post_lock);
    if (e->closed || (number != 0 && e->number != number)) {
        pthread_mutex_unlock(&e->post_lock);
        return SPOKE_ECLOSED;
    }
    spk_list_append(&e->posted, &post->link);
    /* Both sides are sequentially consistent: either we see the sleeper, or it sees the post
     * (about_to_sleep()). */
    atomic_store(&e->has_posted, true);
    if (atomic_exchange(&e->sleeping, false))
        e->backend->poke(e);
    pthread_mutex_unlock(&e->post_lock);
    return 0;
}

int
spk_engine_post(struct spk_engine *e, spoke_post_f *fn, void *ctx, bool user)
{
    struct spk_post *post = spk_zalloc(sizeof *post);
    int rc;

    if (post == NULL)
        return SPOKE_ENOMEM;
    post->fn = fn;
    post->ctx = ctx;
    post->user = user;
    if ((rc = post_it(e, 0, post)) != 0)
        spk_free(post);
    return rc;
}

int
spk_engine_post_embedded(struct spk_engine *e, uint64_t number, struct spk_post *post,
                         spoke_post_f *fn, void *ctx)
{
    *post = (struct spk_post){.fn = fn, .ctx = ctx, .embedded = true};
    return post_it(e, number, post);
}

static bool
run_posted(struct spk_engine *e)
{
    struct spk_link mine, *link;
    bool any = false;

    if (!atomic_load_explicit(&e->has_posted, memory_order_acquire))
        return false;
    spk_list_init(&mine);
    pthread_mutex_lock(&e->post_lock);
    atomic_store_explicit(&e->has_posted, false, memory_order_relaxed);
    spk_list_splice(&mine, &e->posted);
    pthread_mutex_unlock(&e->post_lock);
    while ((link = spk_list_take(&mine)) != NULL) {
        struct spk_post *memory = SPK_OWNER(link, struct spk_post, link);
        struct spk_post post = *memory; /* its owner may use it again from here on */

        if (!post.embedded)
            spk_free(memory);
        if (post.user)
            spk_engine_call_begin(e);
        post.fn(post.ctx);
        if (post.user)
            spk_engine_call_end(e);
        any = true;
    }
    return any;
}

uint64_t
spk_engine_random(struct spk_engine *e)
{
    uint64_t z = e->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* ---- one turn ---- */

static bool
run_tasks(struct spk_engine *e)
{
    struct spk_link *link;
    bool any = false;

    while ((link = spk_list_take(&e->tasks)) != NULL) {
        struct spk_task *task = SPK_OWNER(link, struct spk_task, link);

        task->fn(task);
        any = true;
    }
    return any;
}

static bool
run_timers(struct spk_engine *e)
{
    struct spk_timer *timer;
    spoke_ns now;
    bool any = false;

    if (e->timers.count == 0)
        return false;
    now = spk_engine_now(e);
    while ((timer = spk_timers_due(&e->timers, now)) != NULL) {
        timer->fn(timer);
        any = true;
    }
    return any;
}

/* Each that is there now, once: a callback may bring itself back. */
static bool
run_callbacks(struct spk_engine *e)
{
    struct spk_link mine, *link;
    bool any = false;

    if (spk_list_empty(&e->callbacks))
        return false;
    spk_list_init(&mine);
    spk_list_splice(&mine, &e->callbacks);
    while ((link = spk_list_take(&mine)) != NULL) {
        struct spk_task *task = SPK_OWNER(link, struct spk_task, link);

        task->fn(task);
        any = true;
    }
    return any;
}

void
spk_engine_flush(struct spk_engine *e)
{
    struct spk_link mine, *link;

    if (spk_list_empty(&e->flushes))
        return;
    spk_list_init(&mine);
    spk_list_splice(&mine, &e->flushes);
    while ((link = spk_list_take(&mine)) != NULL) {
        struct spk_flush *flush = SPK_OWNER(link, struct spk_flush, link);

        flush->fn(flush);
    }
}

uint8_t *
spk_scratch_room(struct spk_engine *e, size_t *size)
{
    if (e->scratch != NULL && spk_chunk_alone(e->scratch)) /* what was kept of it is gone */
        e->scratch_used = 0;
    if (e->scratch != NULL && e->scratch->size - e->scratch_used < SCRATCH_LEAST) {
        spk_chunk_unref(e->scratch);
        e->scratch = NULL;
    }
    if (e->scratch == NULL) {
        e->scratch = spk_chunk_new(SCRATCH_SIZE);
        e->scratch_used = 0;
        if (e->scratch == NULL)
            return NULL;
    }
    *size = e->scratch->size - e->scratch_used;
    return e->scratch->data + e->scratch_used;
}

void
spk_scratch_complete(struct spk_engine *e, struct spk_op *op, int64_t result)
{
    struct spk_chunk *chunk = e->scratch;
    size_t used = e->scratch_used;

    if (result > 0) {
        spk_chunk_ref(chunk); /* ours while the callback runs, which may receive again */
        op->chunk = chunk;
        op->data = chunk->data + used;
        e->scratch_used = used + (((size_t)result + 15) & ~(size_t)15);
        spk_op_complete(e, op, (int)result);
        spk_chunk_unref(chunk);
        return;
    }
    spk_op_complete(e, op, (int)result);
}

/* Try one receive by a plain call.  Returns true if it completed. */
static bool
try_recv(struct spk_engine *e, struct spk_op *op)
{
    size_t size = op->u.recv.size;
    uint8_t *room = op->u.recv.buffer;
    int64_t n;

    if (room == NULL && (room = spk_scratch_room(e, &size)) == NULL) {
        if (op->hot) /* the backend has other memory, or waits for some */
            arm_op(e, op);
        return false;
    }
    n = e->backend->recv_now(e, op->handle, room, size);
    if (n == SPOKE_EAGAIN)
        return false;
    e->info.direct++;
    if (op->hot)
        make_cold(e, op);
    if (op->u.recv.buffer == NULL)
        spk_scratch_complete(e, op, n);
    else
        spk_op_complete(e, op, (int)n);
    return true;
}

static bool
try_watch(struct spk_engine *e, struct spk_op *op)
{
    if (!op->u.watch.changed(op))
        return false;
    make_cold(e, op);
    spk_op_complete(e, op, 0);
    return true;
}

static bool
try_hot(struct spk_engine *e)
{
    bool any = false;

    for (uint32_t left = e->hot_count; left > 0 && e->hot_count > 0; left--) {
        struct spk_op *op = SPK_OWNER(e->hot.next, struct spk_op, link);

        spk_list_remove(&op->link);
        spk_list_append(&e->hot, &op->link);
        if (op->cancelled) {
            make_cold(e, op);
            spk_op_complete(e, op, SPOKE_ECANCELED);
            any = true;
        } else if (op->kind == SPK_OP_WATCH ? try_watch(e, op) : try_recv(e, op)) {
            any = true;
        }
    }
    return any;
}

/* Receives that are not armed yet may be able to complete already: who streams to us has written
 * more meanwhile, and then nobody needs to be woken. */
static void
try_queued(struct spk_engine *e)
{
    struct spk_link *link = e->queued.next, *next;

    for (unsigned tries = 0; link != &e->queued && tries < HOT_MOST; link = next, tries++) {
        struct spk_op *op = SPK_OWNER(link, struct spk_op, link);

        next = link->next;
        if (op->kind == SPK_OP_RECV && !op->cancelled && try_recv(e, op))
            break; /* what it brought may have changed the list */
    }
    run_tasks(e);
}

/* From here on somebody else wakes the engine for a watch, unless there is a change already. */
static bool
arm_watch(struct spk_engine *e, struct spk_op *op)
{
    op->state = SPK_OP_IDLE;
    if (op->u.watch.arm(op))
        return true;
    spk_op_complete(e, op, 0);
    return false;
}

static bool
submit_queued(struct spk_engine *e)
{
    struct spk_link *link;
    bool any = false;

    while ((link = spk_list_take(&e->queued)) != NULL) {
        struct spk_op *op = SPK_OWNER(link, struct spk_op, link);

        if (op->cancelled) {
            spk_op_complete(e, op, SPOKE_ECANCELED);
            any = true;
            continue;
        }
        if (op->kind == SPK_OP_WATCH) {
            any |= !arm_watch(e, op);
            continue;
        }
        op->state = SPK_OP_IN_FLIGHT;
        e->ops_in_flight++;
        e->backend->submit(e, op);
    }
    return any;
}

/* A caller that looked for its message by itself stops; it may have looked for others' too. */
static void
arm_watches(struct spk_engine *e)
{
    for (uint32_t left = e->hot_count; left > 0 && e->hot_count > 0; left--) {
        struct spk_op *op = SPK_OWNER(e->hot.next, struct spk_op, link);

        spk_list_remove(&op->link);
        spk_list_append(&e->hot, &op->link);
        if (op->kind == SPK_OP_WATCH) {
            make_cold(e, op);
            arm_watch(e, op);
        }
    }
    run_tasks(e);
}

static void
arm_hot(struct spk_engine *e)
{
    while (e->hot_count > 0)
        arm_op(e, SPK_OWNER(e->hot.next, struct spk_op, link));
}

/* What callers wait for is theirs; the rest is so only while one of them looks. */
static bool
arm_unawaited(struct spk_engine *e)
{
    struct spk_link *link = e->hot.next, *next;
    bool any = false;

    for (uint32_t left = e->hot_count; left > 0; left--, link = next) {
        struct spk_op *op = SPK_OWNER(link, struct spk_op, link);

        next = link->next;
        if (!op->awaited) {
            arm_op(e, op);
            any = true;
        }
    }
    return any;
}

static bool
work_waits(struct spk_engine *e)
{
    return !spk_list_empty(&e->tasks) || !spk_list_empty(&e->callbacks) ||
           !spk_list_empty(&e->queued) || !spk_list_empty(&e->flushes) ||
           (e->stoppable && atomic_load_explicit(&e->stop, memory_order_relaxed)) ||
           atomic_load_explicit(&e->has_posted, memory_order_relaxed);
}

/* Everything but the backend.  Returns true if anything was done. */
static bool
run_ready(struct spk_engine *e)
{
    bool any = run_posted(e);

    any |= run_tasks(e);
    any |= run_timers(e);
    any |= run_tasks(e);
    any |= run_callbacks(e);
    any |= run_tasks(e);
    spk_engine_flush(e);
    return any;
}

static bool
poll_backend(struct spk_engine *e)
{
    bool any = submit_queued(e);

    return e->backend->turn(e, 0) > 0 || any;
}

static void
credit(struct spk_engine *e, spoke_ns waited, bool slept)
{
    if (waited < (slept ? SLEPT_SHORT : SPIN_BUDGET))
        e->spin_credit += e->spin_credit < CREDIT_MOST ? 1 : 0;
    else if (e->spin_credit > 0)
        e->spin_credit = e->spin_credit > 4 ? e->spin_credit - 4 : 0;
    if (e->spin_credit == CREDIT_MOST)
        e->spin_debt = 0;
}

static void
relax(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

/* Whoever has our message may wait for this very CPU.  Returns how long that took; others may be
 * inside meanwhile. */
static spoke_ns
yield(struct spk_engine *e)
{
    spoke_ns start = spk_engine_now(e);

    sched_yield();
    return spk_engine_now(e) - start;
}

/* What a yield has shown: how many tries to make before the next, and whether to spin at all.  On
 * CPUs that others want too whoever yields waits for all of them, and whoever sleeps is let in
 * front: so waits sleep, for longer each time that trying again has shown the same. */
static void
yielded(struct spk_engine *e, spoke_ns took, bool adaptive)
{
    e->tries = 0;
    if (took <= YIELD_SHORT) {
        if (e->tries_per_yield < YIELD_SELDOM)
            e->tries_per_yield *= 2;
        return;
    }
    e->tries_per_yield = TRIES_PER_YIELD;
    if (took > YIELD_LONG && adaptive) {
        e->spin_debt = e->spin_debt == 0          ? DEBT_LEAST
                       : e->spin_debt < DEBT_MOST ? e->spin_debt * 4
                                                  : DEBT_MOST;
        e->spin_credit = -e->spin_debt;
    }
}

static spoke_ns
spin_budget(const struct spk_engine *e)
{
    return e->wait_ns == SPOKE_WAIT_ADAPTIVE ? SPIN_BUDGET : e->wait_ns;
}

/* Look for work for a while without sleeping.  Returns true if some was found. */
static bool
spin(struct spk_engine *e, spoke_ns start, spoke_ns limit)
{
    spoke_ns until = spk_later(start, spin_budget(e));

    e->info.spins++;
    if (until > limit)
        until = limit;
    for (unsigned tries = 1;; tries++) {
        bool any = try_hot(e);

        any |= run_tasks(e);
        any |= poll_backend(e);
        if (any || work_waits(e)) {
            e->info.spin_hits++;
            return true;
        }
        if (e->shared)
            spk_engine_give_way(e);
        if (e->spinning || e->poller != NULL) /* a caller looks for itself */
            return false;
        if (++e->tries >= e->tries_per_yield) {
            yielded(e, yield(e), e->wait_ns == SPOKE_WAIT_ADAPTIVE);
            if (!spinning_pays(e))
                return false;
        }
        if (tries % TRIES_PER_LOOK == 0 && (until != SPOKE_FOREVER || e->timers.count > 0)) {
            spoke_ns now = spk_engine_now(e);

            if (now >= until || now >= spk_timers_next(&e->timers)) /* set by others meanwhile */
                return false;
        }
    }
}

/* Whoever keeps a slice of it keeps it alive. */
static void
let_go_of_scratch(struct spk_engine *e)
{
    if (e->scratch != NULL)
        spk_chunk_unref(e->scratch);
    e->scratch = NULL;
}

/* Gives back what is not needed asleep, says so to those who post, then looks once more. */
static bool
about_to_sleep(struct spk_engine *e)
{
    let_go_of_scratch(e);
    spk_pool_flush();
    atomic_store(&e->sleeping, true);
    return !atomic_load(&e->has_posted) && !(e->stoppable && atomic_load(&e->stop));
}

/* Is the engine to look after senders in a moment, instead of being woken by them? */
static bool
ticks(struct spk_engine *e)
{
    bool streaming = e->written - e->written_before >= STREAM_LEAST;

    e->written_before = e->written;
    if (!streaming)
        e->stream_turns /= 2;
    else if (e->stream_turns < STREAM_TURNS_MOST)
        e->stream_turns++;
    return e->shared && e->wait_ns <= 0 && e->stream_turns >= STREAM_TURNS;
}

/* Do callers look after the hot receives? */
static bool
is_leased(const struct spk_engine *e, spoke_ns now)
{
    return e->shared && (e->poller != NULL || e->lease_until_ns > now);
}

static bool
turn(struct spk_engine *e, spoke_ns deadline)
{
    spoke_ns start, limit, end;
    bool any, slept = false;
    int n = 0;

    e->info.turns++;
    e->burst++;
    any = run_ready(e);
    any |= try_hot(e);
    any |= run_tasks(e);
    any |= submit_queued(e);
    if (any || work_waits(e) || deadline == 0) {
        any |= e->backend->turn(e, 0) > 0;
        any |= run_tasks(e);
        spk_engine_flush(e);
        return any;
    }
    limit = spk_timers_next(&e->timers);
    if (deadline < limit)
        limit = deadline;
    start = spk_engine_now(e);
    e->ticking = ticks(e);
    if (e->ticking && start + TICK < limit)
        limit = start + TICK;
    if (start < limit && !e->ticking && spinning_pays(e) && !e->spinning && !is_leased(e, start)) {
        if (spin(e, start, limit)) {
            credit(e, spk_engine_now(e) - start, false);
            return true;
        }
        if (work_waits(e) || is_leased(e, start)) /* others were inside meanwhile */
            return true;
        limit = spk_timers_next(&e->timers);
        if (deadline < limit)
            limit = deadline;
    }
    if (e->hot_count > 0) {
        if (is_leased(e, start)) { /* callers have them; look again when they may have gone */
            if (e->poller == NULL && !e->spinning && arm_unawaited(e) && submit_queued(e))
                return true;
            if (e->poller == NULL && e->lease_until_ns < limit)
                limit = e->lease_until_ns;
        } else {
            arm_hot(e);
            if (submit_queued(e)) /* answered what was cancelled: that may bring work or a timer */
                return true;
        }
    }
    start = spk_engine_now(e);
    e->sleep_until_ns = limit;
    if (!about_to_sleep(e))
        limit = start;
    n = e->backend->turn(e, limit == SPOKE_FOREVER ? SPOKE_FOREVER
                            : limit > start        ? limit - start
                                                   : 0);
    atomic_store_explicit(&e->sleeping, false, memory_order_relaxed);
    e->ticking = false;
    slept = limit > start;
    any = run_tasks(e);
    spk_engine_flush(e);
    end = spk_engine_now(e);
    if (slept && (n > 0 || work_waits(e))) /* another thread's post counts as an arrival too */
        credit(e, end - start, true);
    if (n == SPOKE_EDEADLK)
        e->stuck = true;
    return any || n > 0;
}

bool
spk_engine_turn(struct spk_engine *e, spoke_ns deadline)
{
    bool any;

    e->turning++;
    any = turn(e, deadline);
    e->turning--;
    return any;
}

void
spk_engine_rest(struct spk_engine *e)
{
    spk_engine_flush(e);
    arm_hot(e);
    poll_backend(e);
    atomic_store(&e->sleeping, true); /* somebody sleeps for us: who posts must poke */
    if (atomic_load(&e->has_posted) || atomic_load(&e->stop) || work_waits(e) ||
        e->hot_count > 0) /* what came of that, or meanwhile */
        e->backend->poke(e);
}

void
spk_engine_sleep_begin(struct spk_engine *e)
{
    e->info.sleeps++;
    if (e->shared) {
        e->asleep = true;
        leave_shared(e);
    }
}

void
spk_engine_sleep_end(struct spk_engine *e)
{
    if (e->shared) {
        lock(e);
        e->asleep = false;
    }
}

int64_t
spk_send_now(struct spk_engine *e, int handle, struct iovec *iov, int count)
{
    e->info.direct++;
    return e->backend->send_now(e, handle, iov, count);
}

/* ---- entering, leaving, waiting ---- */

void
spk_errand_init(struct spk_errand *errand, void (*fn)(struct spk_errand *errand))
{
    errand->fn = fn;
    errand->next = NULL;
    atomic_init(&errand->given, false);
}

void
spk_errand_give(struct spk_engine *e, struct spk_errand *errand)
{
    struct spk_errand *first;

    if (!atomic_exchange(&errand->given, true)) {
        first = atomic_load_explicit(&e->errands, memory_order_relaxed);
        do
            errand->next = first;
        while (!atomic_compare_exchange_weak(&e->errands, &first, errand));
    }
    /* Give, then try the lock; who leaves it unlocks, then looks: one of the two does it.  Or
     * somebody who still waits for the lock, and is not kept from it. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&e->wanted) == 0 && pthread_mutex_trylock(&e->lock) == 0)
        spk_engine_leave(e);
}

static void
run_errands(struct spk_engine *e)
{
    struct spk_errand *errand, *next;

    if (atomic_load_explicit(&e->errands, memory_order_relaxed) == NULL)
        return;
    for (errand = atomic_exchange(&e->errands, NULL); errand != NULL; errand = next) {
        next = errand->next;
        atomic_store(&errand->given, false); /* first: what comes now is given again */
        errand->fn(errand);
    }
    run_tasks(e);
}

int
spk_engine_enter(struct spk_engine *e)
{
    if (!spk_engine_is_ours(e))
        return SPOKE_EFORKED;
    if (e->shared) {
        lock(e);
        run_errands(e); /* the caller's own may be among them */
    } else if (!pthread_equal(e->owner, pthread_self())) {
        return SPOKE_EWRONGTHREAD;
    }
    return 0;
}

int
spk_engine_try_enter(struct spk_engine *e)
{
    if (e->shared && spk_engine_is_ours(e)) {
        if (atomic_load_explicit(&e->wanted, memory_order_relaxed) > 0 ||
            pthread_mutex_trylock(&e->lock) != 0)
            return SPOKE_EAGAIN;
        run_errands(e);
        return 0;
    }
    return spk_engine_enter(e);
}

static void
futex_wake(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

/* True if a signal handler ended it.  The kernel goes back to sleep by itself after some handlers
 * (SA_RESTART), but never if there is a time limit: so who wants to be interrupted always has one.
 */
static bool
futex_wait(atomic_uint *word, unsigned value, spoke_ns deadline, bool interruptible)
{
    struct timespec time = {.tv_sec = deadline / SPOKE_SECOND, .tv_nsec = deadline % SPOKE_SECOND};
    bool limited = deadline != SPOKE_FOREVER || interruptible;

    return syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value,
                   limited ? &time : NULL, NULL, FUTEX_BITSET_MATCH_ANY) < 0 &&
           errno == EINTR;
}

/* The waiter lives on a stack that may be gone by the time of the wake-up; a wake on such an
 * address does nothing. */
#define WAKES_MOST   16
#define ERRANDS_MOST 4 /* times that one caller looks after others' errands */

static void
leave_shared(struct spk_engine *e)
{
    atomic_uint *words[WAKES_MOST];
    struct spk_waiter *waiter;
    struct spk_link *link;
    bool poke, kick, more, for_callback = e->in_callback > 0;
    int rounds = 0;

    do {
        int count = 0;

        run_errands(e);
        if (e->in_callback > 0) { /* it may take long, or wait for the answer to what was sent */
            spk_engine_flush(e);
            run_tasks(e);
        }
        while (count < WAKES_MOST && (link = spk_list_take(&e->waiters)) != NULL) {
            waiter = SPK_OWNER(link, struct spk_waiter, wake);
            if (waiter == e->poller)
                e->poller_kicked = true;
            else
                words[count++] = &waiter->woken;
            /* Pairs with the acquire in wait_shared(). */
            atomic_store_explicit(&waiter->woken, 1, memory_order_release);
        }
        kick = e->poller_kicked && e->poller != NULL;
        e->poller_kicked = false;
        more = !spk_list_empty(&e->waiters);
        poke = e->asleep &&
               (e->poke || needs_thread(e) || !spk_list_empty(&e->queued) ||
                !spk_list_empty(&e->callbacks) || (!spk_list_empty(&e->flushes) && !e->ticking));
        if (poke) {
            e->asleep = false; /* one poke is enough */
            e->info.pokes++;
        }
        e->poke = false;
        pthread_mutex_unlock(&e->lock);
        if (atomic_load(&e->gives_way) != 0 && atomic_exchange(&e->gives_way, 0) != 0)
            futex_wake(&e->gives_way);
        if (poke)
            e->backend->poke(e);
        if (kick)
            eventfd_write(e->poller_fd, 1);
        for (int i = 0; i < count; i++)
            futex_wake(words[i]);
        atomic_thread_fence(memory_order_seq_cst); /* unlock, then look: see spk_errand_give() */
        if (more)
            lock(e);
        else if (atomic_load(&e->errands) != NULL && (for_callback || ++rounds < ERRANDS_MOST))
            more = pthread_mutex_trylock(&e->lock) == 0;
        else if (rounds == ERRANDS_MOST) /* the library's thread takes over */
            e->backend->poke(e);
    } while (more);
}

void
spk_engine_leave(struct spk_engine *e)
{
    run_tasks(e);
    if (e->shared)
        leave_shared(e);
    else if (e->foreign_fd >= 0 && e->in_callback == 0)
        spk_engine_arm_foreign(e); /* the foreign loop may sleep before it polls us again */
}

void
spk_engine_give_way(struct spk_engine *e)
{
    if (atomic_load_explicit(&e->wanted, memory_order_relaxed) == 0 &&
        spk_list_empty(&e->waiters) &&
        atomic_load_explicit(&e->errands, memory_order_relaxed) == NULL)
        return;
    spk_engine_leave(e);
    for (int i = 0; i < PAUSES && atomic_load_explicit(&e->wanted, memory_order_relaxed) > 0; i++)
        relax();
    if (atomic_load_explicit(&e->wanted, memory_order_relaxed) > 0) {
        /* First this, then look again: who gets in is no longer counted and then looks at this. */
        atomic_store(&e->gives_way, 1);
        if (atomic_load(&e->wanted) > 0)
            futex_wait(&e->gives_way, 1, spk_engine_now(e) + GIVE_WAY_MOST, false);
        atomic_store(&e->gives_way, 0);
    }
    pthread_mutex_lock(&e->lock);
}

bool
spk_engine_look(struct spk_engine *e)
{
    bool any;

    if (!e->shared || e->poller != NULL || e->spinning || e->hot_count == 0)
        return false;
    any = try_hot(e);
    run_tasks(e);
    e->lease_until_ns = 0;
    return any;
}

static void
woken(struct spk_engine *e, struct spk_waiter *waiter)
{
    e->sleepers -= waiter->asleep;
    waiter->asleep = false;
}

void
spk_engine_wake_one(struct spk_engine *e, struct spk_link *list)
{
    struct spk_link *link = spk_list_take(list);

    if (link != NULL) {
        struct spk_waiter *waiter = SPK_OWNER(link, struct spk_waiter, link);

        waiter->chosen = true;
        woken(e, waiter);
        spk_list_append(&e->waiters, &waiter->wake);
    }
}

void
spk_engine_wake_all(struct spk_engine *e, struct spk_link *list)
{
    while (!spk_list_empty(list))
        spk_engine_wake_one(e, list);
}

/* For as long as this wait the loop waits as its socket wants it. */
static int
wait_owned(struct spk_engine *e, struct spk_waiter *w, spoke_ns deadline, spoke_ns busy_poll_ns,
           bool interruptible)
{
    int rc = 0;

    e->wait_ns = busy_poll_ns;
    e->interruptible = interruptible;
    e->interrupted = false;
    while (!w->chosen) {
        if (interruptible && e->interrupted) {
            rc = SPOKE_EINTR;
            break;
        }
        if (e->stuck) {
            e->stuck = false;
            rc = SPOKE_EDEADLK;
            break;
        }
        if (deadline != SPOKE_FOREVER && spk_engine_now(e) >= deadline) {
            rc = SPOKE_ETIMEDOUT;
            break;
        }
        spk_engine_turn(e, deadline);
    }
    e->wait_ns = e->busy_poll_ns;
    e->interruptible = false;
    return w->chosen ? 0 : rc;
}

/* The caller looks for its message itself; the engine's thread sleeps meanwhile and leaves the hot
 * receives alone. */
static void
spin_shared(struct spk_engine *e, struct spk_waiter *w, spoke_ns start, spoke_ns deadline,
            spoke_ns busy_poll_ns)
{
    bool adaptive = busy_poll_ns == SPOKE_WAIT_ADAPTIVE;
    spoke_ns budget = adaptive ? SPIN_BUDGET : busy_poll_ns;
    spoke_ns until = spk_later(start, budget), now = start;

    if (until > deadline)
        until = deadline;
    e->spinning = true;
    e->info.spins++;
    for (unsigned tries = 1; !w->chosen && now < until; tries++) {
        lease(e, now);
        spk_engine_flush(e);
        try_hot(e);
        run_tasks(e);
        if (w->chosen)
            break;
        if (++e->tries >= e->tries_per_yield) {
            spk_engine_leave(e);
            spoke_ns took = yield(e);
            lock(e);
            yielded(e, took, adaptive);
            if (took > YIELD_LONG && adaptive)
                now = until;
        } else {
            spk_engine_leave(e);
            relax();
            lock(e);
        }
        if (tries % TRIES_PER_LOOK == 0)
            now = spk_engine_now(e);
    }
    e->spinning = false;
    arm_watches(e);
    let_go_of_scratch(e);
    if (w->chosen)
        e->info.spin_hits++;
}

/* Sleep until a socket of a hot receive has something for us, or others have woken us.  True if a
 * signal handler ended it. */
static bool
sleep_on_sockets(struct spk_engine *e, struct spk_waiter *w, spoke_ns deadline)
{
    struct pollfd fds[HOT_MOST + 1] = {{.fd = e->poller_fd, .events = POLLIN}};
    struct spk_op *ops[HOT_MOST + 1];
    struct timespec left = {0};
    bool interrupted = false;
    nfds_t count = 1;
    uint32_t changes = e->hot_changes;
    eventfd_t ignored;

    SPK_LIST_EACH(link, &e->hot)
    {
        ops[count] = SPK_OWNER(link, struct spk_op, link);
        if (!ops[count]->cancelled) { /* else the library's thread has been told */
            fds[count] = (struct pollfd){.fd = ops[count]->handle, .events = POLLIN};
            count++;
        }
    }
    if (deadline != SPOKE_FOREVER) {
        spoke_ns now = spk_engine_now(e), duration = deadline > now ? deadline - now : 0;

        left = (struct timespec){.tv_sec = duration / SPOKE_SECOND,
                                 .tv_nsec = duration % SPOKE_SECOND};
    }
    let_go_of_scratch(e);
    e->poller = w;
    e->poller_kicked = false;
    e->polls++;
    spk_engine_leave(e);
    if (atomic_load_explicit(&w->woken, memory_order_acquire) == 0)
        interrupted = ppoll(fds, count, deadline != SPOKE_FOREVER ? &left : NULL, NULL) < 0 &&
                      errno == EINTR;
    lock(e);
    e->poller = NULL;
    if (fds[0].revents != 0)
        eventfd_read(e->poller_fd, &ignored);
    e->lease_until_ns = e->sleepers == 0 ? spk_engine_now(e) + LEASE : 0;
    if (e->hot_changes == changes)
        for (nfds_t i = 1; i < count; i++) {
            if (fds[i].revents != 0 && ops[i]->hot && !ops[i]->cancelled)
                try_recv(e, ops[i]);
        }
    else if (!w->chosen)
        try_hot(e);
    run_tasks(e);
    return interrupted;
}

/* Only one at a time, and nobody who sleeps otherwise is to wait for what it would find. */
static bool
may_sleep_on_sockets(struct spk_engine *e)
{
    if (e->hot_count == 0 || e->poller_fd < 0 || e->poller != NULL || e->spinning)
        return false;
    if (e->sleepers > 0)
        e->poller_debt = POLLER_DEBT;
    SPK_LIST_EACH(link, &e->hot)
    {
        if (SPK_OWNER(link, struct spk_op, link)->kind != SPK_OP_RECV)
            return false;
    }
    return e->poller_debt == 0;
}

static int
wait_shared(struct spk_engine *e, struct spk_waiter *w, spoke_ns deadline, spoke_ns busy_poll_ns,
            bool interruptible)
{
    spoke_ns start = spk_engine_now(e);
    bool spins = busy_poll_ns == SPOKE_WAIT_ADAPTIVE ? e->spin_credit > 0 : busy_poll_ns > 0;
    bool slept = false, interrupted = false;
    int rc = 0;

    if (e->poller_debt > 0)
        e->poller_debt--;
    if (spins && !e->spinning && e->poller == NULL)
        spin_shared(e, w, start, deadline, busy_poll_ns);
    if (!w->chosen)
        try_queued(e);
    while (!w->chosen) {
        if (deadline != SPOKE_FOREVER && spk_engine_now(e) >= deadline) {
            rc = SPOKE_ETIMEDOUT;
            break;
        }
        if (interruptible && interrupted) {
            rc = SPOKE_EINTR;
            break;
        }
        slept = true;
        spk_engine_flush(e); /* what we wait for may be the answer */
        if (may_sleep_on_sockets(e)) {
            interrupted = sleep_on_sockets(e, w, deadline);
            continue;
        }
        if (e->poller != NULL)
            e->poller_debt = POLLER_DEBT;
        e->lease_until_ns = 0; /* the engine's thread arms them */
        w->asleep = true;
        e->sleepers++;
        spk_engine_leave(e);
        if (atomic_load_explicit(&w->woken, memory_order_acquire) == 0)
            interrupted = futex_wait(&w->woken, 0, deadline, interruptible);
        lock(e);
        woken(e, w);
    }
    if (w->chosen)
        credit(e, spk_engine_now(e) - start, slept);
    return w->chosen ? 0 : rc;
}

static int
wait_in(struct spk_engine *e, struct spk_link *list, spoke_ns deadline, spoke_ns busy_poll_ns,
        bool interruptible)
{
    struct spk_waiter w = {.chosen = false, .asleep = false};
    int rc;

    if (e->in_callback > 0 && pthread_equal(e->owner, pthread_self()))
        return SPOKE_EDEADLK;
    if (e->shared && pthread_equal(e->owner, pthread_self()))
        return SPOKE_EDEADLK;
    e->burst++;
    spk_list_init(&w.wake);
    spk_list_append(list, &w.link);
    atomic_init(&w.woken, 0);
    rc = e->shared ? wait_shared(e, &w, deadline, busy_poll_ns, interruptible)
                   : wait_owned(e, &w, deadline, busy_poll_ns, interruptible);
    spk_list_remove(&w.link);
    spk_list_remove(&w.wake);
    return rc;
}

int
spk_engine_wait(struct spk_engine *e, struct spk_link *list, spoke_ns deadline,
                spoke_ns busy_poll_ns)
{
    return wait_in(e, list, deadline, busy_poll_ns, false);
}

int
spk_engine_wait_interruptibly(struct spk_engine *e, struct spk_link *list, spoke_ns deadline,
                              spoke_ns busy_poll_ns)
{
    return wait_in(e, list, deadline, busy_poll_ns, true);
}
