/* SPDX-License-Identifier: MIT */
/* Things to select on, each with a peer on the same engine, in every way to drive the library.
 * Main thread of a test. */
#ifndef TESTS_SELECT_FIXTURE_H
#define TESTS_SELECT_FIXTURE_H

#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/resources.h"
#include "tests/support/test.h"

#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

enum way { OWNED, SHARED, SIM };

struct scene {
    enum way way;
    spoke_sim *w;
    spoke_engine *e; /* NULL: shared */
    struct resources before;
};
void scene_open(struct scene *sc, enum way way);
void scene_close(struct scene *sc);
spoke_ns scene_in(const struct scene *sc, spoke_ns duration);
/* Call fn(ctx) in a moment, while a call of the test waits; returns what scene_joined() waits for.
 */
struct later;
struct later *scene_later(struct scene *sc, void (*fn)(void *ctx), void *ctx);
void scene_joined(struct later *later);

/* A kind of thing, and what is at its other end. */
struct thing;
struct kind {
    const char *name;
    void (*open)(struct thing *t);  /* it is not ready, and stays so */
    void (*make)(struct thing *t);  /* ready, soon; does not wait; any thread */
    int (*use)(struct thing *t);    /* the call that it is ready for, without waiting */
    int (*close)(struct thing *t);  /* its handle; may be NULL; does not wait but in SHARED */
    void (*clean)(struct thing *t); /* the rest */
    const char *url; /* where, of a new name; or the transport_name() of one that is real */
    bool real;       /* not in a simulated world */
};
struct thing {
    const struct kind *kind;
    struct scene *sc;
    spoke_select_case c;
    spoke_socket *s[2];
    spoke_context *context;
    spoke_stream *stream[2];
    spoke_stream_listener *listener;
    spoke_mux *mux[2];
    spoke_session *session[2];
    spoke_session_listener *session_listener;
    spoke_receiver *rx;
    spoke_sender *tx;
    int fd[2];
    char url[ENDPOINT_MAX];
};
extern const struct kind kinds[];
extern const size_t kinds_count;
const struct kind *kind_of(const char *name);
/* The transport that a kind's `url` names; -1: it is an URL, or there is none. */
int transport_of(const struct kind *kind);
void thing_open(struct thing *t, struct scene *sc, const struct kind *kind);
void thing_close(struct thing *t);

/* Every kind in every way. */
struct play {
    enum way way;
    size_t kind; /* in kinds[]: a test is another process */
};
struct criterion_test_params plays(void);
struct criterion_test_params ways(void);

#define expect_rc(Call, Wanted)                                                                    \
    do {                                                                                           \
        int got_rc_ = (Call), wanted_rc_ = (Wanted);                                               \
        cr_assert_eq(got_rc_, wanted_rc_, "%s gives %s, not %s", #Call, spoke_error_name(got_rc_), \
                     spoke_error_name(wanted_rc_));                                                \
    } while (0)

#endif
