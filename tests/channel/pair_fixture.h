/* SPDX-License-Identifier: MIT */
/* Channels inside the process: the same test in every way to drive the library.  Main thread of a
 * test, but for what is said to be for any. */
#ifndef TESTS_CHANNEL_PAIR_FIXTURE_H
#define TESTS_CHANNEL_PAIR_FIXTURE_H

#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/support/resources.h"
#include "tests/support/test.h"

enum way { OWNED, SHARED, SIM };

/* Lists for ParameterizedTestParameters.  What needs descriptors of the kernel is not for SIM. */
struct criterion_test_params ways(void);
struct criterion_test_params ways_real(void); /* OWNED, SHARED */

/* The body follows and finds the way in `*way`. */
#define WAY_TEST(Suite, Name, List)                                                                \
    ParameterizedTestParameters(Suite, Name)                                                       \
    {                                                                                              \
        return List();                                                                             \
    }                                                                                              \
    ParameterizedTest(enum way *way, Suite, Name)

/* What must happen happens within this. */
#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

/* Where channels live. */
struct yard {
    enum way way;
    spoke_sim *sim;
    spoke_engine *e; /* NULL: shared */
    struct resources before;
};
void yard_open(struct yard *y, enum way way);
/* Fails the test if anything is left. */
void yard_close(struct yard *y);
/* A deadline; any thread if shared. */
spoke_ns yard_in(const struct yard *y, spoke_ns duration);
#define SOON(Yard) yard_in((Yard), PATIENCE)
/* Let it go on until done(ctx); fails the test if that takes too long. */
void yard_until(struct yard *y, bool (*done)(void *ctx), void *ctx);
/* Let everything happen that is to happen now. */
void yard_settle(struct yard *y);
/* Call fn(ctx) while a call of the test waits: from a timer, or another thread as soon as
 * `awaited` has a call that waits (NULL: at once).  Returns what yard_joined() waits for. */
struct later;
struct later *yard_later(struct yard *y, const void *awaited, void (*fn)(void *ctx), void *ctx);
void yard_joined(struct later *later);

/* Wait until so many calls wait on that handle of the shared engine.  Any thread; false: it takes
 * too long. */
bool await_calls(const void *handle, uint32_t count);

/* A channel of that depth. */
void pair(struct yard *y, size_t depth, spoke_sender **tx, spoke_receiver **rx);
void close_pair(spoke_sender *tx, spoke_receiver *rx);

spoke_msg *message(const char *text);
bool is_text(const spoke_msg *m, const char *text);
/* Sends a text; what the send gives.  Any thread. */
int send_text(spoke_sender *tx, const char *text, spoke_ns deadline);
int send_number(spoke_sender *tx, uint64_t number, spoke_ns deadline);
int recv_number(spoke_receiver *rx, uint64_t *number, spoke_ns deadline);
/* Receive this text. */
void expect_text(spoke_receiver *rx, const char *text);
/* What a receive gives that has nothing to take. */
int recv_nothing(spoke_receiver *rx, spoke_ns deadline);

int open_descriptors(void);

#define expect_rc(Call, Wanted)                                                                    \
    do {                                                                                           \
        int got_rc_ = (Call);                                                                      \
        cr_assert_eq(got_rc_, (Wanted), "%s gives %s, not %s", #Call, rc_name(got_rc_),            \
                     rc_name(Wanted));                                                             \
    } while (0)
const char *rc_name(int rc);

#endif
