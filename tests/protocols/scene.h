/* SPDX-License-Identifier: MIT */
/* What the tests of patterns with questions and answers share: a socket and plain peers around it,
 * questions from near and far, devices by hand. */
#ifndef TESTS_PROTOCOLS_SCENE_H
#define TESTS_PROTOCOLS_SCENE_H

#include "tests/protocols/fixture.h"

#define ID_BIT 0x80000000
#define ID     (ID_BIT | 1)

/* Tests of two patterns with one body, which gets the suite's own: REP and RESPONDENT, …  Their
 * names differ where the words of the patterns do. */
enum {
    as_req = SPOKE_REQ,
    as_rep = SPOKE_REP,
    as_survey = SPOKE_SURVEYOR,
    as_respondent = SPOKE_RESPONDENT
};
#define SAME_ON_EVERY_STREAM(Suite, Name, Body)                                                    \
    ON_EVERY_STREAM(Suite, Name)                                                                   \
    {                                                                                              \
        Body(as_##Suite, *t);                                                                      \
    }
#define SAME_ON_EVERY_TRANSPORT(Suite, Name, Body)                                                 \
    ON_EVERY_TRANSPORT(Suite, Name)                                                                \
    {                                                                                              \
        Body(as_##Suite, *t);                                                                      \
    }

/* A socket that listens, and so many plain peers, attached in order. */
struct scene {
    spoke_socket *s;
    char url[ENDPOINT_MAX];
    struct raw_peer peers[4];
};
void set_scene(struct scene *scene, spoke_socket *s, enum transport t, int peers);
void clear_scene(struct scene *scene, int peers); /* and finish() */

/* A socket of this pattern whose surveys, if it has any, have no end. */
spoke_socket *open_asker(int pattern);

void set_ttl(spoke_socket *s, int ttl);
/* `hops` words, counting the id; each hop has a number of its own. */
void raw_ask_from_afar(struct raw_peer *p, size_t hops, const char *text);
/* The scene's socket still answers this peer. */
void expect_service(struct scene *scene, struct raw_peer *p);

/* A device by hand: raw sockets back to back, and a message passed on from one to the other. */
struct device {
    spoke_socket *front, *back; /* who answers, who asks */
};
void pass(spoke_socket *from, spoke_socket *to);

#endif
