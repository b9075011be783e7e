/* SPDX-License-Identifier: MIT */
/* What a peer sends after the handshake, frame by frame: the same for pipes, whose messages have
 * limits, and for streams, which forget where frames end.  Control frames are put together here;
 * the payload of the others is the caller's to take.  Pure. */
#ifndef SPK_WS_IN_H
#define SPK_WS_IN_H

#include "transports/ws/frame.h"

struct ws_in {
    bool masked;     /* the peer masks */
    bool takes_text; /* else it is unwanted data */
    bool in_message; /* its first frame has come, the last one has not ended */
    bool in_control;
    uint8_t have; /* bytes of a head */
    uint8_t bytes[WS_HEAD_MOST];
    struct ws_head head; /* of the data frame */
    uint64_t left;       /* of its payload */
    uint64_t at;
    bool is_text;
    struct ws_utf8 utf8;
    unsigned empty; /* frames without a payload, since one that had one */
    struct ws_head control_head;
    uint8_t control[WS_CONTROL_MOST];
    uint8_t control_size;
    unsigned code; /* after WS_IN_BAD */
};

enum ws_in_event {
    WS_IN_MORE,  /* nothing is left, there is more to come */
    WS_IN_FRAME, /* in->left bytes of a message follow, the last ones if in->head.fin; perhaps 0 */
    WS_IN_PING,  /* in->control */
    WS_IN_PONG,
    WS_IN_CLOSE,
    WS_IN_BAD /* close with in->code */
};

/* The next thing from data[*at] on, while in->left is 0. */
enum ws_in_event ws_in_next(struct ws_in *in, uint8_t *data, size_t size, size_t *at);
/* The next bytes of a payload, at most in->left: uncovered, moved to `to` as by ws_mask().  False:
 * they are no text; close with in->code. */
bool ws_in_take(struct ws_in *in, uint8_t *to, const uint8_t *from, size_t size);

/* Nothing has begun. */
static inline bool
ws_in_is_between(const struct ws_in *in)
{
    return !in->in_message && in->left == 0 && in->have == 0 && !in->in_control;
}

#endif
