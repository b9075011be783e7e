/* SPDX-License-Identifier: MIT */
/* Frames of RFC 6455: heads, masks, the payload of close frames, UTF-8.  Pure: bytes in, bytes and
 * verdicts out.  Any thread. */
#ifndef SPK_WS_FRAME_H
#define SPK_WS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ws_opcode { WS_CONTINUATION, WS_TEXT, WS_BINARY, WS_CLOSE = 8, WS_PING, WS_PONG };

/* Why a connection ends. */
enum ws_code {
    WS_NORMAL = 1000,
    WS_GOING_AWAY = 1001,
    WS_PROTOCOL_ERROR = 1002,
    WS_UNWANTED_DATA = 1003,
    WS_BAD_TEXT = 1007,
    WS_POLICY = 1008,
    WS_TOO_BIG = 1009,
    WS_FAILED = 1011,
    WS_TRY_LATER = 1013
};

/* The first two bytes of a head: */
#define WS_FIN        0x80u /* and an opcode */
#define WS_MASKED     0x80u /* and a length, */
#define WS_SHORT_MOST 125u  /* if it is at most so many bytes */

#define WS_HEAD_MOST    14u  /* bytes */
#define WS_CONTROL_MOST 125u /* bytes of payload */

struct ws_head {
    uint8_t opcode;
    bool fin;
    uint8_t key[4]; /* zero: the payload is as it is */
    uint64_t length;
};

/* Read a head, from a peer that masks or from one that does not.  Returns how many bytes it has, 0:
 * they are not all there yet, or -1: no peer may send that. */
int ws_get_head(struct ws_head *head, const uint8_t *data, size_t size, bool masked);

/* Its size, and write it; returns how many bytes it has.  `key`: NULL for none. */
size_t ws_head_size(uint64_t length, bool masked);
size_t ws_put_head(uint8_t *to, unsigned opcode, bool fin, uint64_t length, const uint8_t key[4]);

/* Cover, or uncover, bytes of a payload from its `at`-th on.  `to` is `from`, or lies in front of
 * it, or apart. */
void ws_mask(uint8_t *to, const uint8_t *from, size_t size, const uint8_t key[4], uint64_t at);
/* One that nobody can foresee. */
void ws_new_key(uint8_t key[4]);

/* A whole control frame; returns its size, at most WS_CONTROL_MOST + 6. */
size_t ws_put_control(uint8_t *to, unsigned opcode, const uint8_t *payload, size_t size,
                      bool masked);
/* A close frame that says so. */
size_t ws_put_close(uint8_t *to, unsigned code, bool masked);
/* May a peer close so? */
bool ws_close_is_fine(const uint8_t *payload, size_t size);

/* Text that arrives in pieces: all zero at its start. */
struct ws_utf8 {
    uint8_t missing, least, most; /* bytes of a character, what the next one may be */
};
bool ws_utf8_goes_on(struct ws_utf8 *u, const uint8_t *text, size_t size);
static inline bool
ws_utf8_is_whole(const struct ws_utf8 *u)
{
    return u->missing == 0;
}

#endif
