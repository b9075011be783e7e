/* SPDX-License-Identifier: MIT */
/* What a listener answers to a request: that it is a peer from now on, or why not, or a file, or it
 * hands the connection to another listener at the same address. */
#include <stdio.h>
#include <string.h>

#include "transports/ws/stream.h"

#define REFUSAL_MOST 512u

void
ws_refuse(struct ws_stream *w, unsigned status, int reason)
{
    char text[REFUSAL_MOST];
    size_t size = ws_put_refusal(text, sizeof text, status,
                                 reason == SPOKE_EPEER ? w->protocol : NULL);

    spk_stream_part_with(w->st, text, size);
    w->st = NULL;
    ws_end_begin(w, reason);
}

/* The other end of the same. */
static bool
agree(struct ws_stream *w, const char *key)
{
    char text[512], accept[WS_ACCEPT_SIZE + 1];
    int size;

    ws_accept_key(key, accept);
    size = snprintf(text, sizeof text,
                    "HTTP/1.1 101 Switching Protocols\r\n"
                    "Upgrade: websocket\r\n"
                    "Connection: Upgrade\r\n"
                    "Sec-WebSocket-Accept: %s\r\n"
                    "%s%s%s\r\n",
                    accept, w->terms.half_close ? "Sec-WebSocket-Protocol: " : "",
                    w->terms.half_close ? w->protocol : "", w->terms.half_close ? "\r\n" : "");
    return size > 0 && (size_t)size < sizeof text && ws_put_text(w, text, (size_t)size);
}

/* Of another listener at the same address: it has the connection from now on. */
static void
hand_over(struct ws_stream *w, struct spk_endpoint *to, size_t used, size_t size)
{
    struct spk_stream *stream;
    struct ws_stream *theirs;
    int rc = ws_stream_new(&stream, to, w->st);

    w->st = NULL;
    if (rc == 0) {
        theirs = ws_of(stream);
        theirs->http = w->http;
        theirs->in_op.chunk = w->in_op.chunk; /* while we are in its callback */
        theirs->in_op.data = w->in_op.data;
        theirs->head_used = used;
        theirs->head_size = size;
        w->http = NULL;
        spk_endpoint_count(to);
        rc = ws_start_pipe(to, stream);
    }
    if (rc != 0)
        spk_listener_failed(to, rc);
    ws_end_begin(w, SPOKE_ECLOSED);
}

static bool
answer_with_file(struct ws_stream *w)
{
    const char *directory = ws_place_directory(w->ep);
    struct spk_chunk *answer;
    size_t size;

    if (directory[0] == '\0' || !ws_http_asks_for_file(w->http))
        return false;
    if ((answer = ws_file_answer(w->http, directory, &size)) == NULL) {
        ws_refuse(w, 404, SPOKE_ECLOSED);
    } else {
        spk_stream_part(w->st, (struct spk_unsent){.chunk = answer, .to = size}, w->patience_ns);
        w->st = NULL;
        ws_end_begin(w, SPOKE_ECLOSED);
    }
    return true;
}

/* The listener at the path that is asked for; NULL: there is none. */
static struct spk_endpoint *
whom_it_is_for(struct ws_stream *w)
{
    char path[SPK_URL_MAX];
    int size = snprintf(path, sizeof path, "%s", ws_http_target(w->http));
    struct spk_endpoint *to = NULL;

    if (size < (int)sizeof path && ws_http_path(path))
        to = ws_place_find(w->ep, path);
    return to == w->ep || (to != NULL && spk_listener_is_open(to)) ? to : NULL;
}

void
ws_on_request(struct ws_stream *w, size_t used, size_t size)
{
    bool is_handed_over = w->head_size > 0;
    struct spk_endpoint *to;
    struct ws_wanted wanted = {.protocol = w->protocol,
                               .protocol_may_lack = w->ep->owner != NULL,
                               .check_origin = w->ep->options.ws_check_origin,
                               .origins = spk_text_of(w->ep->options.ws_origins)};
    bool wrong_protocol;
    unsigned status, count;
    int rc = SPOKE_ENOMEM;

    if (!is_handed_over && answer_with_file(w))
        return;
    to = is_handed_over ? w->ep : whom_it_is_for(w);
    if (to != NULL && to != w->ep) {
        hand_over(w, to, used, size);
        return;
    }
    if (!ws_keep_head(w, used, size)) {
        ws_stop_begin(w, rc);
        return;
    }
    wanted.is_there = to != NULL;
    status = ws_check_request(w->http, &wanted, &w->terms.half_close, &wrong_protocol);
    if (status != 101) {
        ws_refuse(w, status, wrong_protocol ? SPOKE_EPEER : SPOKE_EHANDSHAKE);
        return;
    }
    if (agree(w, ws_http_field(w->http, "Sec-WebSocket-Key", &count)))
        rc = ws_write_out(w);
    if (rc == SPOKE_EAGAIN)
        ws_start_writing(w); /* on_written() goes on */
    else if (rc == 0)
        ws_end_begin(w, 0);
    else
        ws_stop_begin(w, rc);
}
