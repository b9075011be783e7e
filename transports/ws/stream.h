/* SPDX-License-Identifier: MIT */
/* The handshake of HTTP, as what a stream has to do before its first byte, and then the stream's
 * bytes in frames, whose borders mean nothing.  A pipe takes what is inside once the hands are
 * shaken (ws_stream_take()) and never uses the rest.
 *
 *   upgrade.c      the handshake, and a dialer's side of it     answer.c      a listener's
 *   stream_in.c    what a peer sends then                       stream_out.c  what it is sent
 *   stream.c       the life of it
 *
 * What the connection does not take of a frame that has begun waits in `out`, at most one frame,
 * and is written before anything else.  Words of control wait likewise. */
#ifndef SPK_WS_STREAM_H
#define SPK_WS_STREAM_H

#include "transports/ws/handshake.h"
#include "transports/ws/ws.h"

struct ws_stream {
    struct spk_stream stream;
    struct spk_stream *st; /* what carries it; NULL: others have it */
    struct spk_endpoint *ep;
    struct ws_terms terms;
    struct ws_in in;
    struct spk_op in_op, out_op; /* of `st` */

    /* the handshake */
    struct spk_op *begin_op; /* the caller's, while it goes on */
    bool began;              /* `st` has */
    int begin_failed;
    size_t head_used, head_size; /* handed over by another listener; the latter 0: it was not */
    struct ws_http *http;
    char key[WS_KEY_SIZE + 1], protocol[64];

    /* reading */
    struct spk_op *recv_op;
    struct spk_task recv_task;
    struct spk_chunk *left; /* came behind the handshake */
    uint8_t *left_data;
    size_t left_size;
    unsigned empty;
    int end; /* SPOKE_EOF: nothing more comes, or why not */

    /* writing */
    struct spk_op *writable_op;
    struct spk_unsent out;
    size_t frame_most; /* bytes of payload that are sent together */
    bool open;         /* hands have been shaken */
    bool finished;     /* this end sends no more */
    bool closed;       /* … nor anything else, behind its close frame */
    bool is_reset;
    bool closing; /* nobody has it any more */
    bool pong_due, end_due, close_due;
    unsigned code; /* of the close frame; 0: none */
    uint8_t pong[WS_CONTROL_MOST], pong_size;
    spoke_ns patience_ns; /* at the end */
};

static inline struct ws_stream *
ws_of(struct spk_stream *st)
{
    return SPK_OWNER(st, struct ws_stream, stream);
}

/* ---- upgrade.c ---- */

void ws_begin(struct spk_stream *st, struct spk_op *op);
/* Goes on, once the connection has brought something, or taken it. */
void ws_begin_read(struct ws_stream *w, int result);
void ws_begin_wrote(struct ws_stream *w, int rc);
/* The end of it; the second if it fails, once nothing goes on any more. */
void ws_end_begin(struct ws_stream *w, int result);
void ws_stop_begin(struct ws_stream *w, int reason);
bool ws_put_text(struct ws_stream *w, const char *text, size_t size);
/* Keep what the peer said, and what came behind its head. */
bool ws_keep_head(struct ws_stream *w, size_t used, size_t size);

/* ---- answer.c: in w->in_op, `size` bytes, the first `used` of which end a request ---- */

void ws_on_request(struct ws_stream *w, size_t used, size_t size);
/* An answer for who will not be a peer.  Ends the handshake. */
void ws_refuse(struct ws_stream *w, unsigned status, int reason);

/* ---- stream_in.c ---- */

int64_t ws_recv_now(struct spk_stream *st, void *buffer, size_t size);
void ws_recv(struct spk_stream *st, struct spk_op *op, void *buffer, size_t size);
void ws_recv_went_on(struct ws_stream *w, int result);
void ws_on_recv_task(struct spk_task *task);
void ws_forget_left(struct ws_stream *w);

/* ---- stream_out.c ---- */

int64_t ws_send_now(struct spk_stream *st, struct iovec *iov, int count);
void ws_writable(struct spk_stream *st, struct spk_op *op);
/* Words that are due go behind what waits, while nobody reads there. */
void ws_put_due(struct ws_stream *w);
/* Write what waits: 0: it is written; SPOKE_EAGAIN; or an error. */
int ws_write_out(struct ws_stream *w);
/* Let the ring write it. */
void ws_start_writing(struct ws_stream *w);
/* Somebody waits for the peer, not for room here: what is not written goes by itself. */
void ws_write_soon(struct ws_stream *w);
/* The connection has taken something, and hands have been shaken. */
void ws_went_out(struct ws_stream *w, int rc);

#endif
