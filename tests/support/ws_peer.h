/* SPDX-License-Identifier: MIT */
/* A peer that speaks WebSocket (RFC 6455) byte by byte, or whatever a test wants instead.  It
 * shares no code with the library.  As raw_peer.h: bounded in time, nothing asserts. */
#ifndef TESTS_SUPPORT_WS_PEER_H
#define TESTS_SUPPORT_WS_PEER_H

#include "tests/support/raw_peer.h"

/* The key of the RFC's example, and what its answer is. */
#define WS_SAMPLE_KEY    "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_SAMPLE_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* "ws://A.B.C.D:PORT/PATH" as "tcp://A.B.C.D:PORT"; may be the same. */
void ws_place(char tcp[160], const char *url);

/* A whole request for `path` that offers `protocol` (NULL: none), with more lines, each with its
 * CR LF.  Returns its size. */
size_t ws_request(char *text, size_t room, const char *path, const char *protocol,
                  const char *more);

/* Read a head of HTTP, up to its empty line: its size, without the bytes behind it, or a
 * raw_result. Ends with NUL. */
long ws_read_head(struct raw_peer *p, char *text, size_t room, int limit_ms);
/* The status of its first line; 0: it has none. */
int ws_status(const char *head);

/* What the answer to a key is: base64(SHA-1(its 24 characters, the constant of the RFC)). */
void ws_accept_of(const char *key, char accept[29]);

/* Connect and shake hands as a client that asks for `protocol`. */
int ws_open(struct raw_peer *p, const char *url, const char *protocol);
/* The other role: read the request, answer with this protocol (NULL: as was asked for). */
int ws_accept(struct raw_listener *l, struct raw_peer *p, const char *protocol);

/* The bytes in front of a payload, and over it: `first` is the first byte, `masked` by 01 02 03 04.
 * Returns the size of the whole frame. */
size_t ws_frame(uint8_t *to, unsigned first, const void *payload, size_t size, bool masked);
int ws_send_frame(struct raw_peer *p, unsigned first, const void *payload, size_t size,
                  bool masked);
/* The next frame, uncovered: its size, *first its first byte; or a raw_result. */
long ws_recv_frame(struct raw_peer *p, unsigned *first, void *payload, size_t room, int limit_ms);
/* Everything up to a close frame: its code, 1005: it has none; or a raw_result. */
int ws_wait_close(struct raw_peer *p, int limit_ms);

#endif
