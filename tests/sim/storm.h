/* SPDX-License-Identifier: MIT */
/* Random schedules with random faults, from one seed: what the tests of protocols in a simulated
 * world share.  A storm rages for a while: every fault that the seed chose may happen, machines may
 * die, networks may be cut.  Then it is calm, and whatever was asked for has to get through.  While
 * everything closes it storms again.
 *
 * $SPOKE_SIM_SEED runs that one seed, $SPOKE_SIM_SEEDS so many from 1 on.  A failure, or a crash,
 * says which seed it was and the command that runs it again.  Main thread of a test. */
#ifndef TESTS_SIM_STORM_H
#define TESTS_SIM_STORM_H

#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/support/test.h"

#define STORM_SEEDS    TEST_REPEATS(1000)
#define STORM_MACHINES 16
#define STORM_CALM     60 * SPOKE_SECOND /* virtual time until everything must be through */

struct storm {
    uint64_t seed, random;
    const char *test;
    spoke_sim *w;
    spoke_sim_config config;
    bool lossless; /* no fault that loses a message that was taken */
    bool kills, cuts;
    bool calm;
    spoke_ns calm_since;
    uint64_t steps, storm_steps;
    spoke_engine *machines[STORM_MACHINES]; /* NULL: killed */
    int machine_count;
    bool cut[STORM_MACHINES][STORM_MACHINES];
    char url[64];
    struct spoke_memory_stats before;
};

/* Like cr_assert(), and says how to run the seed again. */
#define storm_holds(storm, condition, ...)                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            storm_failed(storm, __FILE__, __LINE__, #condition, __VA_ARGS__);                      \
    } while (0)
void storm_failed(const struct storm *storm, const char *file, int line, const char *condition,
                  const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Run `body` for every seed; `test` is the name of the test, for the replay.  The test fails if
 * there was a kind of fault that never happened in STORM_SEEDS seeds or more. */
void storm_for_each_seed(const char *test, uint64_t (*body)(const char *test, uint64_t seed));
/* … for worlds that connect before the storm begins: nobody is refused then. */
void storm_for_each_seed_connected(const char *test,
                                   uint64_t (*body)(const char *test, uint64_t seed));

/* The same for worlds with a weather of their own: gives how many seeds there were.  The command
 * that runs the present one again is storm_replay(). */
uint64_t storm_each_seed(const char *test, uint64_t (*body)(const char *test, uint64_t seed));
const char *storm_replay(void);

void storm_open(struct storm *storm, const char *test, uint64_t seed);

/* A number below `bound`, or true `per_1000` times in 1 000: the test's own choices. */
uint64_t storm_below(struct storm *storm, uint64_t bound);
bool storm_chance(struct storm *storm, uint32_t per_1000);

/* Add a machine; gives its number.  Out of memory: again until it works. */
int storm_machine(struct storm *storm);
/* Kill it: its engine and sockets are gone. */
void storm_kill(struct storm *storm, int machine);

/* Open a socket that waits a little, lingers a little and dials again soon. */
spoke_socket *storm_socket(struct storm *storm, int machine, int pattern);

/* Let the next thing happen: in the world, or to its weather.  Fails the test if that goes on for
 * ever. */
void storm_step(struct storm *storm);

/* The same for `time`, which nothing makes longer, and without an end of the storm. */
void storm_pass(struct storm *storm, spoke_ns time);

/* All faults end and all networks are mended. */
void storm_end(struct storm *storm);

/* Faults come back, for the end; nobody is killed or cut off any more. */
void storm_again(struct storm *storm);

/* Close the world and check that nothing is left of it.  Gives the digest. */
uint64_t storm_close(struct storm *storm);

/* Bodies that tell who made them: four words, then `size` bytes that depend on them. */
struct storm_label {
    uint32_t kind, from, number, size;
};
spoke_msg *storm_message(struct storm_label label);                      /* NULL: no memory */
struct storm_label storm_check(struct storm *storm, const spoke_msg *m); /* fails if damaged */
uint32_t storm_size(struct storm *storm); /* of a body: mostly small */

#endif
