/* SPDX-License-Identifier: MIT */
/* Engines: one io_uring (or epoll, or simulated network) and everything that is attached to it.
 *
 * Shared (the default): sockets opened with engine NULL live on one engine of the process, which
 * the library runs on a thread of its own.  Every call is thread-safe.
 *
 * Owned: the thread that opens an engine is its thread.  Its sockets' blocking calls drive the
 * engine inline, without a thread in between; between such calls it runs in spoke_engine_run() or
 * spoke_engine_poll().  A call from another thread is refused with SPOKE_EWRONGTHREAD, except where
 * a call says otherwise.
 *
 * Callbacks run on the engine's thread, one at a time, with no lock held.  A call that sets
 * another, or closes or takes over what it was set on, returns when the old one does not run and
 * never will again: so it waits for one that runs on the shared engine's thread, and must not be
 * made with a lock held that the callback takes.  In a callback of the same engine it does not
 * wait: nothing but that callback runs there.  A close that finds it closed already, or being
 * closed, does not wait either.  What goes on after its close, a socket that was closed in a
 * callback, or joined streams, calls until it is over: to tell of connections and messages, and
 * done().
 *
 * Every call may give SPOKE_ECLOSED for a handle that is closed, SPOKE_EFORKED in a child of the
 * process that opened it, and SPOKE_EINVAL for a NULL or number that is not allowed; they are not
 * repeated below.  Only spoke_engine_run(), spoke_engine_poll() and spoke_engine_close() wait. */
#ifndef SPOKE_ENGINE_H
#define SPOKE_ENGINE_H

#include <spoke/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How long a wait looks for work itself before it sleeps in the kernel. */
#define SPOKE_WAIT_ADAPTIVE                                                                        \
    ((spoke_ns)-1) /* spin only while arrivals are close together; never on one CPU */
#define SPOKE_WAIT_BLOCK ((spoke_ns)0) /* never spin */
#define SPOKE_WAIT_POLL  SPOKE_FOREVER /* never sleep */

typedef struct spoke_engine_config {
    const char *backend; /* "uring", "poll"; NULL: $SPOKE_BACKEND, else the best that works here */
    spoke_ns busy_poll_ns;   /* SPOKE_WAIT_…, or nanoseconds of spinning before sleep */
    uint32_t entries;        /* submission queue entries, a power of two; 0: 256 */
    uint32_t receive_chunks; /* 64 KiB receive buffers that the ring holds ready, a power of two; 0:
                                16 */
    uint32_t mask_features;  /* SPOKE_FEATURE_… not to use although they are there: for tests */
} spoke_engine_config;

/* Defaults: adaptive waiting ($SPOKE_WAIT = block | poll | adaptive | nanoseconds overrides), no
 * feature masked ($SPOKE_MASK_FEATURES = a number overrides), everything else 0. */
SPOKE_API void spoke_engine_config_init(spoke_engine_config *config);

/* Open an owned engine for the calling thread, which closes it.  `config` NULL: defaults.
 * Errors: SPOKE_EINVAL entries or chunks that are no power of two or above 32 768; SPOKE_ENOTSUP no
 * such backend, or the kernel has no io_uring; SPOKE_EPERM "uring" was asked for and is denied here
 * (without a request the library falls back to "poll" and says so once in the log); SPOKE_EMFILE;
 * SPOKE_ENOMEM, also for too little lockable memory; SPOKE_ELIMIT no handles left.  *out is NULL
 * then. */
SPOKE_API int spoke_engine_open(spoke_engine **out, const spoke_engine_config *config);

/* Close an owned engine and every socket on it, without linger.  What was posted runs before it
 * returns, timers that are set do not.  Waits for what cancelling takes.
 * Errors: SPOKE_EWRONGTHREAD; SPOKE_EDEADLK from inside a callback. */
SPOKE_API int spoke_engine_close(spoke_engine *e);

/* Run callbacks until spoke_engine_stop().  Returns 0.  Owner's thread, not from a callback
 * (SPOKE_EDEADLK; under sim also when nothing is left that could ever happen). */
SPOKE_API int spoke_engine_run(spoke_engine *e);

/* Do what there is to do, wait for it at most `timeout_ns` (0: do not wait).  Returns 1 if
 * something was done or spoke_engine_stop() was called, 0 if the time passed, or an error as
 * spoke_engine_run().  Owner's thread, not from a callback. */
SPOKE_API int spoke_engine_poll(spoke_engine *e, spoke_ns timeout_ns);

/* Make spoke_engine_run() or spoke_engine_poll() return soon, or the next one of them at once.  Any
 * thread. */
SPOKE_API int spoke_engine_stop(spoke_engine *e);

/* Run `fn(ctx)` on the engine's thread, in its loop, in order of posting.  Any thread.
 * If the engine closes first, `fn` runs during the close.  Errors: SPOKE_ENOMEM, SPOKE_ECLOSED,
 * SPOKE_EFORKED. */
typedef void spoke_post_f(void *ctx);
SPOKE_API int spoke_engine_post(spoke_engine *e, spoke_post_f *fn, void *ctx);

/* A descriptor that a foreign event loop can poll for reading: readable when spoke_engine_poll(e,
 * 0) has work. After a spoke_engine_poll() that returns 0 it is quiet until there is work, but for
 * a rare readiness that turns out to be nothing.  The engine's; do not read or close it.  Returns
 * the descriptor or SPOKE_ENOTSUP (sim). */
SPOKE_API int spoke_engine_fd(spoke_engine *e);

/* "uring", "poll" or "sim", constant; NULL for a closed engine.  Any thread. */
SPOKE_API const char *spoke_engine_backend(spoke_engine *e);

/* What of io_uring is used.  Each has a fallback that works without it. */
#define SPOKE_FEATURE_DEFER_TASKRUN                                                                \
    (1u << 0) /* SINGLE_ISSUER | DEFER_TASKRUN; else a plain ring                                  \
               */
#define SPOKE_FEATURE_PROVIDED_BUFFERS (1u << 1) /* buffer rings; else poll, then a plain recv */
#define SPOKE_FEATURE_MULTISHOT_ACCEPT (1u << 2) /* else one accept at a time */
#define SPOKE_FEATURE_REGISTERED_RING                                                              \
    (1u << 3) /* else the ring's descriptor is looked up by each enter */

struct spoke_engine_info {
    const char *backend;       /* as spoke_engine_backend() */
    uint32_t features;         /* SPOKE_FEATURE_… in use */
    const char *why_not_uring; /* NULL on uring, else one sentence */
    uint64_t turns;            /* times round the loop */
    uint64_t enters;           /* system calls that submit or wait */
    uint64_t completions;      /* operations completed by the kernel */
    uint64_t direct;           /* receives and sends done by a plain call instead */
    uint64_t spins;            /* waits that spun */
    uint64_t spin_hits;        /* … and found something before they had to sleep */
    uint64_t sleeps;           /* waits that slept in the kernel */
    uint64_t pokes;            /* times that a thread woke the engine */
};
/* A snapshot for `e`, or for the library's shared engine if `e` is NULL (which starts it).  Any
 * thread. */
SPOKE_API int spoke_engine_get_info(spoke_engine *e, struct spoke_engine_info *out);

/* Timers for callers' own protocols on an owned engine (under sim, in virtual time): `fn(ctx)` runs
 * once on the engine's thread, `after_ns` from now, unless it is cancelled by its *id (may be NULL)
 * or the engine closes first.  Owner's thread, also from callbacks.  Errors: SPOKE_ENOMEM,
 * SPOKE_EWRONGTHREAD; cancel of one that has run: SPOKE_ENOENT. */
SPOKE_API int spoke_engine_after(spoke_engine *e, spoke_ns after_ns, spoke_post_f *fn, void *ctx,
                                 uint64_t *id);
SPOKE_API int spoke_engine_cancel(spoke_engine *e, uint64_t id);

/* The engine's clock, nanoseconds: CLOCK_MONOTONIC (of a closed engine too), or virtual time under
 * sim.  Any thread. */
SPOKE_API spoke_ns spoke_engine_now(spoke_engine *e);

#ifdef __cplusplus
}
#endif

#endif
