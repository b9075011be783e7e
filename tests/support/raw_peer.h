/* SPDX-License-Identifier: MIT */
/* A peer made of a plain socket: speaks the bytes of docs/wire.md, or whatever bytes a test wants,
 * over ipc and tcp.  It shares no code with the library, so that both cannot be wrong in the same
 * way.
 *
 * Every call is bounded in time and returns one of the results below; none of them asserts, so that
 * any thread may use them.  One thread at a time per peer. */
#ifndef TESTS_SUPPORT_RAW_PEER_H
#define TESTS_SUPPORT_RAW_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum raw_result {
    RAW_OK = 0,
    RAW_EOF = -1,     /* the other side ended or reset the connection */
    RAW_TIMEOUT = -2, /* the time was up */
    RAW_FAILED = -3,  /* the system said no: errno says why */
    RAW_BAD = -4      /* other bytes than SP's arrived, or a frame too large for the buffer */
};

#define RAW_LIMIT_MS 10000 /* for what must happen: so long that only a failure takes it */
#define RAW_QUIET_MS 100   /* for what must not happen */

#define RAW_HANDSHAKE_BYTES  8u
#define RAW_TCP_PREFIX_BYTES 8u /* the length */
#define RAW_IPC_PREFIX_BYTES 9u /* 01 and the length */

struct raw_listener {
    int fd;
    bool ipc;
    char url[160]; /* can be dialed: the port is the real one */
};

struct raw_peer {
    int fd; /* -1: closed */
    bool ipc;
};

/* URLs: ipc://PATH, ipc://@ABSTRACT, the same with shm, tcp://ADDRESS:PORT with a numeric IPv4
 * address; port 0 lets the system choose.  An ipc path must be free; raw_listener_close() removes
 * it. */
int raw_listen(struct raw_listener *l, const char *url);
int raw_accept(struct raw_listener *l, struct raw_peer *p, int limit_ms);
void raw_listener_close(struct raw_listener *l);

int raw_connect(struct raw_peer *p, const char *url, int limit_ms);
void raw_close(struct raw_peer *p);
/* Close so that a tcp peer gets a reset instead of an end; on ipc the same as raw_close(). */
void raw_reset(struct raw_peer *p);
/* End our direction only. */
int raw_end(struct raw_peer *p);

/* The 8 bytes of a handshake with this protocol number. */
void raw_header(uint8_t header[RAW_HANDSHAKE_BYTES], uint16_t protocol);
/* Send ours, receive theirs; RAW_BAD unless it is exactly the header of `theirs`. */
int raw_handshake(struct raw_peer *p, uint16_t ours, uint16_t theirs, int limit_ms);
/* Connect or accept, and shake hands. */
int raw_dial_sp(struct raw_peer *p, const char *url, uint16_t ours, uint16_t theirs);
int raw_accept_sp(struct raw_listener *l, struct raw_peer *p, uint16_t ours, uint16_t theirs);

/* Any bytes, exactly this many. */
int raw_send_bytes(struct raw_peer *p, const void *data, size_t size, int limit_ms);
int raw_recv_bytes(struct raw_peer *p, void *data, size_t size, int limit_ms);

/* The bytes before a message of this length; returns how many they are (9 on ipc, 8 on tcp). */
size_t raw_prefix(const struct raw_peer *p, uint8_t prefix[RAW_IPC_PREFIX_BYTES], uint64_t length);

/* One message. */
int raw_send(struct raw_peer *p, const void *data, size_t size);
/* One message: `count` big-endian words, then a text without its NUL. */
int raw_send_words(struct raw_peer *p, const uint32_t *words, size_t count, const char *text);
/* Receive one message of at most `capacity` bytes.  Returns its size, or a raw_result. */
long raw_recv(struct raw_peer *p, void *data, size_t capacity, int limit_ms);

/* RAW_OK if the other side closes within the limit; whatever it sent before is thrown away. */
int raw_wait_eof(struct raw_peer *p, int limit_ms);
/* True if for so long nothing arrives and the connection stays open. */
bool raw_is_quiet(struct raw_peer *p, int limit_ms);

/* Called about once a millisecond while any of these calls waits, for tests whose engine runs on
 * the same thread; NULL (the default): nobody. */
void raw_set_idle(void (*fn)(void *ctx), void *ctx);

/* Words as on the wire. */
uint32_t raw_get32(const uint8_t *bytes);
void raw_put32(uint8_t *bytes, uint32_t word);

#endif
