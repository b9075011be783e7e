/* SPDX-License-Identifier: MIT */
/* The simulated world: an in-memory network, virtual time, seeded scheduling and injected faults,
 * under the same core, transports and protocols that run on the kernel.  For tests: of this
 * library, and of programs that use it.
 *
 * A world belongs to the thread that opened it.  Its engines behave as owned engines of that
 * thread; ipc and tcp addresses mean the world's own network and touch neither files nor ports.  A
 * blocking call on any of its sockets runs the whole world until it can return; when nothing is
 * left that could ever happen, it returns SPOKE_EDEADLK.  The same seed, configuration and calls
 * give the same run, event by event. Time passes only when nothing else can happen. */
#ifndef SPOKE_SIM_H
#define SPOKE_SIM_H

#include <spoke/engine.h>
#include <spoke/error.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct spoke_sim spoke_sim;

/* Chances are in parts per 1 000 of the events that they apply to. */
typedef struct spoke_sim_config {
    uint64_t seed;
    spoke_ns latency_min_ns, latency_max_ns; /* of each transfer on a connection; order within a
                                                connection is kept, between them it is not */
    uint32_t buffer_bytes;                   /* per direction of a connection; 0: 64 KiB */
    uint32_t short_read, short_write;        /* moves fewer bytes than it could, at least one */
    uint32_t reset;   /* a connection dies, both ways, unread bytes are lost */
    uint32_t refuse;  /* a connect fails */
    uint32_t delay;   /* a transfer takes up to 100 times latency_max_ns */
    uint32_t enobufs; /* a receive or send gives SPOKE_ENOBUFS once */
    uint32_t emfile;  /* an accept or socket() gives SPOKE_EMFILE once */
    uint32_t enomem;  /* an allocation of the library fails */
    uint32_t
        overflow; /* the completion queue overflows: completions arrive late and multishots end */
    uint32_t cancel_race; /* a cancelled operation completes with its result instead */
} spoke_sim_config;

/* Seed 1, latency 1–50 µs, no faults. */
SPOKE_API void spoke_sim_config_init(spoke_sim_config *config);

/* Open a world; `config` NULL: the defaults.  Errors: SPOKE_ENOMEM, SPOKE_EINVAL. */
SPOKE_API int spoke_sim_open(spoke_sim **out, const spoke_sim_config *config);

/* Every call on a world may give SPOKE_EINVAL for none or nonsense and SPOKE_EWRONGTHREAD. */

/* Add an engine ("a machine") to the world.  Sockets opened on it live in the world, and so does
 * the engine, unless it is closed before.  Errors: SPOKE_ENOMEM, SPOKE_ELIMIT. */
SPOKE_API int spoke_sim_engine(spoke_sim *w, spoke_engine **out);

/* Let the next thing happen.  Returns 1, or 0 if nothing is left to happen. */
SPOKE_API int spoke_sim_step(spoke_sim *w);

/* Let things happen until `done(ctx)` is true (returns 1), `limit_ns` of virtual time passed or
 * nothing is left (returns 0).
 * `done` NULL: never true.  When nothing is left, the rest of a limit passes at once. */
typedef bool spoke_sim_done_f(void *ctx);
SPOKE_API int spoke_sim_run(spoke_sim *w, spoke_sim_done_f *done, void *ctx, spoke_ns limit_ns);

/* Virtual nanoseconds since the world began. */
SPOKE_API spoke_ns spoke_sim_now(const spoke_sim *w);

/* Replace the faults from now on (the seed is ignored). */
SPOKE_API void spoke_sim_set_faults(spoke_sim *w, const spoke_sim_config *config);

/* The process of this engine dies: its connections reset, its listeners vanish, its sockets are
 * gone without a goodbye.  Errors: SPOKE_ECLOSED not an engine of this world; SPOKE_EDEADLK from a
 * callback of its own. */
SPOKE_API int spoke_sim_kill(spoke_sim *w, spoke_engine *e);

/* Cut or mend the network between two engines: while cut, nothing passes and nothing is lost.
 * Errors: SPOKE_ECLOSED as above, SPOKE_EINVAL twice the same, SPOKE_ENOMEM. */
SPOKE_API int spoke_sim_cut(spoke_sim *w, spoke_engine *a, spoke_engine *b, bool cut);

/* A number that depends on everything that has happened: equal for equal runs. */
SPOKE_API uint64_t spoke_sim_digest(const spoke_sim *w);

/* How often each fault has happened, by the names of their chances. */
struct spoke_sim_faults {
    uint64_t short_read, short_write, reset, refuse, delay, enobufs, emfile, enomem, overflow;
    uint64_t cancel_race;
    uint64_t reordered; /* a transfer was overtaken by a later one on another connection */
    uint64_t killed, cut;
};

/* What has happened, and what must never be: filled by spoke_sim_close(). */
struct spoke_sim_report {
    uint64_t events;
    uint64_t ops_left;     /* operations that never completed */
    uint64_t handles_left; /* descriptors that were never closed */
    uint64_t double_completions;
    struct spoke_sim_faults faults;
};

/* Close all engines of the world and the world.  Returns 0, or SPOKE_EBUSY if something was left
 * (see `report`, may be NULL; the world is closed all the same), or SPOKE_EDEADLK from a callback.
 */
SPOKE_API int spoke_sim_close(spoke_sim *w, struct spoke_sim_report *report);

#ifdef __cplusplus
}
#endif

#endif
