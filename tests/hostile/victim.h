/* SPDX-License-Identifier: MIT */
/* Who is attacked: a REP server that answers from its callback, on the library's shared engine,
 * with a healthy client beside the attackers.  After each attack the client must still get its
 * answers, and in the end nothing may be left.  Main thread of a test. */
#ifndef TESTS_HOSTILE_VICTIM_H
#define TESTS_HOSTILE_VICTIM_H

#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/raw_peer.h"
#include "tests/support/resources.h"
#include "tests/support/test.h"

struct victim {
    spoke_socket *rep;
    spoke_listener *l;
    spoke_socket *client;
    char url[ENDPOINT_MAX];
    struct resources before;
};

/* `transport`: IPC or TCP. */
void victim_open(struct victim *v, enum transport transport);
/* The healthy client asks and is answered. */
void victim_check(struct victim *v);
/* Fails if anything is left; before that, waits until the healthy client is the only peer. */
void victim_close(struct victim *v);

/* Wait until a counter of the server has at least this value. */
#define victim_await(v, counter, value)                                                            \
    victim_await_at((v), offsetof(struct spoke_stats, counter), (value), #counter)
void victim_await_at(struct victim *v, size_t offset, uint64_t value, const char *name);
struct spoke_stats victim_stats(struct victim *v);

/* A peer that shook hands as REQ. */
void victim_meet(struct victim *v, struct raw_peer *p);
/* A request of a well-behaved peer: id and text, and its answer. */
void victim_ask(struct raw_peer *p, uint32_t id);

/* The ways in which any peer can leave: with a reset, with its end, or with its end in one
 * direction first, which ends the other one too. */
enum { WAYS_TO_LEAVE = 3 };
void peer_leaves(struct raw_peer *p, int way);

/* ParameterizedTest over ipc and tcp; the body finds its transport in `*t`. */
struct criterion_test_params victim_transports(void);
#define HOSTILE_TEST(Suite, Name)                                                                  \
    ParameterizedTestParameters(Suite, Name)                                                       \
    {                                                                                              \
        return victim_transports();                                                                \
    }                                                                                              \
    ParameterizedTest(enum transport *t, Suite, Name)

#endif
