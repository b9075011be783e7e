/* SPDX-License-Identifier: MIT */
/* The end of connections that nobody holds any more, but whose peer is to be told something: the
 * bytes are written, the write half is closed, what still comes is thrown away until the peer ends,
 * too.  Closing at once would make the kernel send a reset if anything was unread, which overtakes
 * the bytes.  All of it takes a second, or so long as the caller allows for the writing. */
#include <string.h>
#include <sys/socket.h>

#include "runtime/core/core.h"

#define WAIT_NS   SPOKE_SECOND
#define DROP_MOST ((size_t)16 * 1024 * 1024) /* of what still comes */

struct parting {
    struct spk_link link; /* in engine->partings */
    struct spk_stream *st;
    struct spk_op send_op, recv_op;
    struct spk_timer timer;
    struct spk_unsent words;
    size_t dropped;
    bool closing;
};

static void
close_if_idle(struct parting *p)
{
    if (spk_op_busy(&p->send_op) || spk_op_busy(&p->recv_op))
        return;
    spk_list_remove(&p->link);
    p->st->ops->close(p->st);
    spk_unsent_drop(&p->words);
    spk_free(p);
}

static void
give_up(struct parting *p)
{
    if (!p->closing) {
        p->closing = true;
        spk_timer_cancel(p->st->e, &p->timer);
        spk_op_cancel(p->st->e, &p->send_op);
        spk_op_cancel(p->st->e, &p->recv_op);
    }
    close_if_idle(p);
}

static void
drop_more(struct parting *p)
{
    p->st->ops->recv(p->st, &p->recv_op, NULL, 0);
}

/* What the stream has taken and not passed on. */
static void
write_unsent(struct parting *p)
{
    if (spk_stream_unsent(p->st) > 0)
        p->st->ops->writable(p->st, &p->send_op);
}

static void
write_more(struct parting *p)
{
    struct spk_engine *e = p->st->e;
    int rc = spk_unsent_write(&p->words, p->st);

    if (rc == 0) {
        (void)p->st->ops->shutdown(p->st, false);
        write_unsent(p);
        if (spk_timer_set(e, &p->timer, spk_engine_now(e) + WAIT_NS) != 0)
            give_up(p);
    } else if (rc == SPOKE_EAGAIN) {
        spk_unsent_send(&p->words, p->st, &p->send_op);
    } else {
        give_up(p);
    }
}

static void
on_sent(struct spk_op *op, int result)
{
    struct parting *p = SPK_OWNER(op, struct parting, send_op);

    if (p->closing) {
        close_if_idle(p);
        return;
    }
    if (spk_unsent_size(&p->words) == 0) {
        if (result >= 0)
            write_unsent(p);
        return;
    }
    if (result > 0)
        spk_unsent_wrote(&p->words, (size_t)result);
    if (result > 0 || result == SPOKE_ENOBUFS || result == SPOKE_EAGAIN)
        write_more(p);
    else
        give_up(p);
}

static void
on_received(struct spk_op *op, int result)
{
    struct parting *p = SPK_OWNER(op, struct parting, recv_op);

    if (p->closing) {
        close_if_idle(p);
        return;
    }
    p->dropped += result > 0 ? (size_t)result : 0;
    if ((result > 0 && p->dropped < DROP_MOST) || result == SPOKE_ENOBUFS || result == SPOKE_EAGAIN)
        drop_more(p);
    else
        give_up(p);
}

static void
on_time(struct spk_timer *timer)
{
    give_up(SPK_OWNER(timer, struct parting, timer));
}

void
spk_stream_part(struct spk_stream *st, struct spk_unsent words, spoke_ns most)
{
    struct parting *p = spk_zalloc(sizeof *p);

    if (p == NULL)
        goto close;
    p->st = st;
    p->words = words;
    spk_op_init(&p->send_op, on_sent);
    spk_op_init(&p->recv_op, on_received);
    spk_timer_init(&p->timer, on_time);
    if (spk_timer_set(st->e, &p->timer, spk_later(spk_engine_now(st->e), most)) != 0)
        goto close;
    spk_list_append(&st->e->partings, &p->link);
    drop_more(p);
    write_more(p);
    return;
close:
    spk_free(p);
    spk_unsent_drop(&words);
    st->ops->close(st);
}

void
spk_stream_part_with(struct spk_stream *st, const void *bytes, size_t size)
{
    struct spk_unsent words = {.chunk = spk_chunk_new(size), .to = size};

    if (words.chunk == NULL) {
        st->ops->close(st);
        return;
    }
    memcpy(words.chunk->data, bytes, size);
    spk_stream_part(st, words, WAIT_NS);
}

void
spk_partings_close(struct spk_engine *e)
{
    struct spk_link *link, *next;

    for (link = e->partings.next; link != &e->partings; link = next) {
        next = link->next;
        give_up(SPK_OWNER(link, struct parting, link));
    }
    while (!spk_list_empty(&e->partings))
        spk_engine_turn(e, spk_engine_now(e) + SPOKE_MS);
}
