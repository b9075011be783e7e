/* SPDX-License-Identifier: MIT */
/* ws and wss, from the inside:
 *
 *   frame.c   frames as bytes             in.c    what a peer sends, frame by frame
 *   http.c    the heads in front of them
 *   stream.h  the handshake, and streams of bytes in frames: a struct spk_stream around another one
 *   pipe.c    messages in frames: a wire for the core's pipes (runtime/core/framing.h)
 *   place.c   listeners that share an address     files.c   what is served beside them
 *   ws.c      addresses, listeners, dialers
 */
#ifndef SPK_WS_WS_H
#define SPK_WS_WS_H

#include "runtime/core/framing.h"
#include "transports/ws/in.h"

/* What the two ends have agreed on. */
struct ws_terms {
    bool masks;      /* this end does: it has dialed */
    bool half_close; /* a stream: an empty frame ends a direction */
    char *target;    /* of the request; at both ends */
    char *fields;    /* of the head that the peer sent, as lines */
};
void ws_terms_fini(struct ws_terms *t);
/* The property of this name, NULL if it is none of ours. */
const char *ws_terms_text(const struct ws_terms *t, const char *name);

/* ---- stream.c ---- */

/* A stream that shakes hands when it begins.  Takes st, also if it fails. */
int ws_stream_new(struct spk_stream **out, struct spk_endpoint *ep, struct spk_stream *st);
/* It has begun: take what it is made of, and what has come behind the handshake, if anything. */
struct spk_stream *ws_stream_take(struct spk_stream *st, struct ws_terms *terms,
                                  struct spk_chunk **left, uint8_t **data, size_t *size);

/* ---- pipe.c ---- */
int ws_pipe_start(struct spk_endpoint *ep, struct spk_stream *st); /* takes st */

/* ---- place.c ---- */

/* In place of `listen`, listen_close and listen_pause. */
int ws_place_listen(struct spk_endpoint *l, int (*listen)(struct spk_endpoint *l));
void ws_place_close(struct spk_endpoint *l);
void ws_place_pause(struct spk_endpoint *l, bool pause);
/* Who of this address has this path; NULL: nobody. */
struct spk_endpoint *ws_place_find(struct spk_endpoint *l, const char *path);
/* Whose files are served there; "": none are. */
const char *ws_place_directory(struct spk_endpoint *l);

/* ---- files.c ---- */

/* The whole answer to a request for a file of this directory; NULL: there is none. */
struct ws_http;
struct spk_chunk *ws_file_answer(const struct ws_http *h, const char *directory, size_t *size);

/* ---- ws.c ---- */
int ws_start(struct spk_endpoint *ep, struct spk_stream *st);
/* The same of a stream that ws_stream_new() has made. */
int ws_start_pipe(struct spk_endpoint *ep, struct spk_stream *mine);

#endif
