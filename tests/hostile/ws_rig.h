/* SPDX-License-Identifier: MIT */
/* What RFC 6455 says of frames, tried on every part that has to know: a socket that listens, one
 * that dials, and a stream.  Its peer is ws_peer.h's; what comes is sent back.  Main thread of a
 * test. */
#ifndef TESTS_HOSTILE_WS_RIG_H
#define TESTS_HOSTILE_WS_RIG_H

#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/resources.h"
#include "tests/support/test.h"
#include "tests/support/ws_peer.h"

enum { CONT = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10, FIN = 0x80 };
enum { RSV1 = 0x40, RSV2 = 0x20, RSV3 = 0x10 };

/* What is tried: a PAIR that listens, one that dials, a stream that was accepted. */
enum ws_role { ROLE_LISTENS, ROLE_DIALS, ROLE_STREAM, ROLES };
const char *ws_role_name(enum ws_role role);

struct ws_rig {
    enum ws_role role;
    bool text;          /* it takes text and, where it has messages, sends it */
    spoke_socket *pair; /* of the first two */
    spoke_stream_listener *listener;
    spoke_stream *stream; /* of the third */
    struct raw_listener raw;
    struct raw_peer p; /* the peer, once they have met */
    char url[ENDPOINT_MAX];
    struct resources before;
};

void ws_rig_open(struct ws_rig *r, enum ws_role role, bool text);
/* Nothing may be left. */
void ws_rig_close(struct ws_rig *r);

/* A new connection, in place of the last one, which is over. */
void ws_rig_meet(struct ws_rig *r);
/* Leave without a word. */
void ws_rig_leave(struct ws_rig *r);

/* The bytes of a frame as this peer has to mask it; its size. */
size_t ws_rig_frame(const struct ws_rig *r, uint8_t *to, unsigned first, const void *payload,
                    size_t size);
/* The peer says it. */
void ws_rig_say(struct ws_rig *r, unsigned first, const void *payload, size_t size);
/* … any bytes, so many at a time. */
void ws_rig_chop(struct ws_rig *r, const uint8_t *bytes, size_t size, size_t step);

/* A message like this has come and goes back (a stream: its bytes). */
void ws_rig_echo(struct ws_rig *r, const void *message, size_t size);
/* A part of one has come: of a stream it is read, of which nothing goes back. */
void ws_rig_take(struct ws_rig *r, const void *part, size_t size);
/* The next frame that the peer gets is this pong. */
void ws_rig_pong(struct ws_rig *r, const void *payload, size_t size);
/* The next that it gets is a close frame with this code (1005: none), then the end of the
 * connection: as the answer to its own, or because of what it said, which the reader of a stream is
 * told.  `what` is said if it is not so. */
void ws_rig_ends(struct ws_rig *r, int code, const char *what);
void ws_rig_fails(struct ws_rig *r, int code, const char *what);

/* The body follows and finds `enum ws_role *role`. */
struct criterion_test_params ws_roles(void);
#define ROLE_TEST(Suite, Name)                                                                     \
    ParameterizedTestParameters(Suite, Name)                                                       \
    {                                                                                              \
        return ws_roles();                                                                         \
    }                                                                                              \
    ParameterizedTest(enum ws_role *role, Suite, Name)

#endif
