/* SPDX-License-Identifier: MIT */
/* Listening on the other side of a carrier. */
#include "remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "target.h"

#define FRONTS_MOST 64 /* in all */
#define RETRY       SPOKE_SECOND

/* What is asked for, on one carrier. */
struct request {
    LIST_ENTRY(request) of_all;
    const struct remote *remote;
    struct carrier *c;
    spoke_stream *control; /* NULL: it is asked for again soon */
    uint64_t timer;
};

bool
remote_add(struct relay *r, const char *listen, const char *target)
{
    struct remote *m = malloc(sizeof *m);

    if (m == NULL) {
        (void)tool_api_error("start", NULL, SPOKE_ENOMEM);
        return false;
    }
    *m = (struct remote){.next = r->remotes, .listen = listen, .target = target};
    r->remotes = m;
    return true;
}

/* ---- asking ---- */

static void ask(void *ctx);

static void
ask_later(struct request *q)
{
    if (q->control != NULL)
        (void)spoke_stream_close(q->control);
    q->control = NULL;
    (void)spoke_engine_after(q->c->r->e, RETRY, ask, q, &q->timer);
}

static void
tell_refused(const struct request *q, const struct spoke_stream_info *info)
{
    struct relay *r = q->c->r;
    const char *why = spoke_strerror(info->write_end);

    if (info->write_end == SPOKE_EREJECTED)
        why = info->abort_code == SPOKE_MUX_CONNECT_FAILED ? "it cannot"
              : info->abort_code == SPOKE_MUX_NOT_PERMITTED
                  ? "it may not: that needs --allow-listen "
                    "there"
                  : carrier_refusal(info->abort_code);
    relay_tell(r, r->remote_told, "the other side does not listen on %s: %s", q->remote->listen,
               why);
}

/* The URL that it has come to. */
static void
tell_listening(const struct request *q, const char *text, size_t size)
{
    const struct relay *r = q->c->r;

    while (size > 0 && text[size - 1] == '\n')
        size--;
    if (r->verbosity > 0)
        fprintf(stderr, "%s: the other side listens on %.*s for %s\n", tool_name, (int)size, text,
                q->remote->target);
}

static void
on_answer(spoke_stream *s, unsigned what, void *ctx)
{
    struct request *q = ctx;
    struct spoke_stream_info info;
    char text[512];
    size_t size;
    int rc;

    (void)what;
    if (spoke_stream_get_info(s, &info) != 0)
        return;
    if (info.write_end != 0 && info.bytes_read == 0 && info.unread == 0) {
        tell_refused(q, &info);
        ask_later(q);
        return;
    }
    while ((rc = spoke_stream_read(s, text, sizeof text, &size)) == 0)
        tell_listening(q, text, size);
    if (rc != SPOKE_EAGAIN) /* it has ended */
        ask_later(q);
}

static void
ask(void *ctx)
{
    struct request *q = ctx;
    uint8_t meta[OPEN_META_MOST];
    size_t size = open_meta_write(meta, q->remote->target, q->remote->listen);

    if (q->c->retired)
        return;
    if (spoke_mux_dial(q->c->mux, &q->control, meta, size, NULL, SPOKE_NOW) != 0) {
        q->control = NULL;
        ask_later(q);
        return;
    }
    (void)spoke_stream_set_deadline(q->control, SPOKE_NOW);
    (void)spoke_stream_on_ready(q->control, on_answer, q);
}

void
remote_ask(struct carrier *c)
{
    for (const struct remote *m = c->r->remotes; m != NULL; m = m->next) {
        struct request *q = calloc(1, sizeof *q);

        if (q == NULL)
            continue;
        q->remote = m;
        q->c = c;
        LIST_INSERT_HEAD(&c->requests, q, of_all);
        ask(q);
    }
}

void
remote_forget(struct carrier *c)
{
    struct request *q, *next;

    for (q = LIST_FIRST(&c->requests); q != NULL; q = next) {
        next = LIST_NEXT(q, of_all);
        LIST_REMOVE(q, of_all);
        if (q->control != NULL)
            (void)spoke_stream_close(q->control);
        else
            (void)spoke_engine_cancel(c->r->e, q->timer);
        free(q);
    }
}

/* ---- being asked ---- */

/* Nobody wants it any more.  Nothing is said on it but that. */
static void
on_unwanted(spoke_stream *s, unsigned what, void *ctx)
{
    struct front *f = ctx;
    char bytes[256];
    size_t done;
    int rc;

    if ((what & SPOKE_STREAM_READABLE) == 0)
        return;
    while ((rc = spoke_stream_read(s, bytes, sizeof bytes, &done)) == 0) {
    }
    if (rc != SPOKE_EAGAIN)
        front_close(f);
}

static struct front *
new_front(struct carrier *c, const char *url, const struct open_meta *meta)
{
    size_t size = strlen(url) + 1;
    struct front *f = calloc(1, sizeof *f);

    if (f == NULL || (f->texts = malloc(size + meta->target_size + 1)) == NULL) {
        free(f);
        return NULL;
    }
    memcpy(f->texts, url, size);
    memcpy(f->texts + size, meta->target, meta->target_size);
    f->texts[size + meta->target_size] = '\0';
    f->r = c->r;
    f->fd = -1;
    f->url = f->texts;
    f->target = f->texts + size;
    f->kind = FRONT_OVER;
    f->over = c;
    LIST_INSERT_HEAD(&c->r->fronts, f, of_all);
    c->r->front_count++;
    return f;
}

static void
confirm(struct front *f)
{
    char url[512];
    size_t done;

    if (spoke_mux_confirm(f->control) != 0 ||
        spoke_stream_listener_address(f->listener, url, sizeof url - 1) != 0) {
        front_close(f);
        return;
    }
    strcat(url, "\n");
    (void)spoke_stream_set_deadline(f->control, SPOKE_NOW);
    (void)spoke_stream_write(f->control, url, strlen(url), &done);
    (void)spoke_stream_on_ready(f->control, on_unwanted, f);
}

static void
refuse(spoke_stream *control, uint64_t code)
{
    (void)spoke_stream_abort(control, code);
    (void)spoke_stream_close(control);
}

void
remote_listen(struct carrier *c, spoke_stream *control, const struct open_meta *meta)
{
    char asked[OPEN_META_TEXT_MOST + 1], url[OPEN_META_TEXT_MOST + 64];
    struct front *f;
    int rc;

    snprintf(asked, sizeof asked, "%.*s", (int)meta->listen_size, meta->listen);
    if (!target_may_listen(c->r->listens, asked, url, sizeof url)) {
        refuse(control, SPOKE_MUX_NOT_PERMITTED);
    } else if (c->r->front_count >= FRONTS_MOST || (f = new_front(c, url, meta)) == NULL) {
        refuse(control, SPOKE_MUX_LIMIT);
    } else if ((rc = front_open(f)) != 0) {
        if (c->r->verbosity > 0)
            (void)tool_api_error("listen on", url, rc);
        refuse(control, SPOKE_MUX_CONNECT_FAILED);
        front_close(f);
    } else {
        f->control = control;
        confirm(f);
    }
}

void
remote_close(struct carrier *c)
{
    struct front *f, *next;

    for (f = LIST_FIRST(&c->r->fronts); f != NULL; f = next) {
        next = LIST_NEXT(f, of_all);
        if (f->over == c)
            front_close(f);
    }
}
