/* SPDX-License-Identifier: MIT */
/* A stream with TLS around another stream's bytes: the operations of its user, which go on with the
 * answers from below, and its life.  tlsstream.h has the picture. */
#include <assert.h>
#include <openssl/err.h>

#include "runtime/core/tlsstream.h"

/* ---- to go on ---- */

/* Both end an operation, whose owner may close the stream: nothing comes after them. */

static void
end_read(struct spk_tls *t, int64_t result)
{
    struct spk_op *op = t->reader;

    t->reader = NULL;
    if (op->u.other.buffer == NULL && result > 0)
        spk_scratch_complete(t->stream.e, op, result);
    else
        spk_op_complete(t->stream.e, op, (int)result);
}

static void
end_write(struct spk_tls *t, int64_t result)
{
    struct spk_op *op = t->writer;

    t->writer = NULL;
    spk_op_complete(t->stream.e, op, (int)result);
}

/* Go on with the one who reads. */
static void
serve_reader(struct spk_tls *t)
{
    struct spk_op *op = t->reader;
    uint8_t *to = op->u.other.buffer;
    size_t size = op->u.other.size;
    int64_t n = SPOKE_ENOMEM;

    if (spk_op_busy(&t->send_op) && t->writer == NULL) /* on_sent() goes on */
        return;
    if (op->cancelled) {
        end_read(t, SPOKE_ECANCELED);
        return;
    }
    if (to != NULL || (to = spk_scratch_room(t->stream.e, &size)) != NULL)
        n = spk_tls_read(t, to, size, false);
    if (n != SPOKE_EAGAIN)
        end_read(t, n);
    else if (spk_tls_unsent(t) > 0 && !t->dry) /* TLS has to say something first */
        spk_tls_arm_send(t);
    else
        spk_tls_arm_recv(t, op);
}

static void
serve_writer(struct spk_tls *t)
{
    int64_t n = 0;

    if (t->write_end != 0)
        n = t->write_end;
    else if (t->writer->cancelled)
        n = SPOKE_ECANCELED;
    else if (spk_tls_unsent(t) > 0)
        n = SPOKE_EAGAIN;
    else if (t->msg != NULL)
        n = spk_tls_write(t, t->msg->msg_iov, (int)t->msg->msg_iovlen);
    if (n == SPOKE_EAGAIN)
        spk_tls_arm_send(t);
    else
        end_write(t, n);
}

/* Ends one operation at most: what is left to do then is done in a turn of its own. */
static void
go_on(struct spk_tls *t)
{
    bool reads = t->reader != NULL && !spk_op_busy(&t->recv_op),
         writes = t->writer != NULL && !spk_op_busy(&t->send_op);

    if (t->beginner != NULL) {
        spk_tls_shake_hands(t);
        return;
    }
    if (reads && writes)
        spk_task_queue(t->stream.e, &t->task);
    if (writes)
        serve_writer(t);
    else if (reads)
        serve_reader(t);
}

/* ---- answers ---- */

static void
on_task(struct spk_task *task)
{
    go_on(SPK_OWNER(task, struct spk_tls, task));
}

static void
on_received(struct spk_op *op, int result)
{
    struct spk_tls *t = SPK_OWNER(op, struct spk_tls, recv_op);

    if (result > 0)
        spk_tls_keep_in(t, spk_chunk_ref(op->chunk), op->data, (size_t)result);
    else if (result != SPOKE_EAGAIN && result != SPOKE_ENOBUFS && result != SPOKE_ECANCELED)
        spk_tls_ends_below(t, result);
    if (t->beginner != NULL)
        spk_tls_shake_hands(t);
    else if (t->reader != NULL)
        serve_reader(t);
}

static void
on_sent(struct spk_op *op, int result)
{
    struct spk_tls *t = SPK_OWNER(op, struct spk_tls, send_op);

    if (result > 0) {
        spk_unsent_wrote(&t->out, (size_t)result);
        spk_tls_flush(t);
    } else if (result != SPOKE_EAGAIN && result != SPOKE_ENOBUFS && result != SPOKE_ECANCELED) {
        spk_tls_cannot_send(t, result == 0 ? SPOKE_ECONNRESET : result);
    }
    go_on(t);
}

/* ---- the user's operations ---- */

static void
cancel(struct spk_op *op)
{
    struct spk_tls *t = op->u.other.by;

    if (op != t->writer)
        spk_op_cancel(t->stream.e, &t->recv_op);
    if (op != t->reader || t->writer == NULL)
        spk_op_cancel(t->stream.e, &t->send_op);
    spk_task_queue(t->stream.e, &t->task);
}

static void
tls_begin(struct spk_stream *st, struct spk_op *op)
{
    struct spk_tls *t = spk_tls_of(st);

    spk_op_by_other(op, t, cancel);
    t->beginner = op;
    spk_task_queue(st->e, &t->task);
}

static void
tls_recv(struct spk_stream *st, struct spk_op *op, void *buffer, size_t size)
{
    struct spk_tls *t = spk_tls_of(st);

    spk_op_by_other(op, t, cancel);
    op->u.other.buffer = buffer;
    op->u.other.size = size;
    t->reader = op;
    if (spk_tls_has_input(t))
        spk_task_queue(st->e, &t->task);
    else
        spk_tls_arm_recv(t, op);
}

static int64_t
tls_recv_now(struct spk_stream *st, void *buffer, size_t size)
{
    struct spk_tls *t = spk_tls_of(st);

    /* One that is not with the kernel yet has taken nothing. */
    return spk_tls_read(t, buffer, size, t->recv_op.state != SPK_OP_IN_FLIGHT);
}

static int64_t
tls_send_now(struct spk_stream *st, struct iovec *iov, int count)
{
    struct spk_tls *t = spk_tls_of(st);

    spk_tls_try_flush(t);
    if (t->write_end != 0)
        return t->write_end;
    return spk_tls_unsent(t) > 0 ? SPOKE_EAGAIN : spk_tls_write(t, iov, count);
}

static void
tls_send(struct spk_stream *st, struct spk_op *op, struct msghdr *msg)
{
    struct spk_tls *t = spk_tls_of(st);

    spk_op_by_other(op, t, cancel);
    t->writer = op;
    t->msg = msg;
    if (spk_tls_unsent(t) > 0 && t->write_end == 0)
        spk_tls_arm_send(t);
    else
        spk_task_queue(st->e, &t->task);
}

static void
tls_writable(struct spk_stream *st, struct spk_op *op)
{
    tls_send(st, op, NULL);
}

/* ---- the end ---- */

/* Say that nothing more comes. */
static void
say_end(struct spk_tls *t)
{
    if (t->ended || !t->begun || t->write_end != 0 || SSL_in_init(t->ssl))
        return;
    t->ended = true;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl);
    ERR_clear_error();
    spk_tls_try_flush(t);
}

static int
tls_shutdown(struct spk_stream *st, bool reading)
{
    struct spk_tls *t = spk_tls_of(st);

    if (reading)
        return t->below->ops->shutdown(t->below, true);
    say_end(t);
    if (spk_tls_unsent(t) == 0)
        return t->below->ops->shutdown(t->below, false);
    t->end_below = true;
    return 0;
}

static void
tls_reset(struct spk_stream *st)
{
    struct spk_tls *t = spk_tls_of(st);

    t->ended = true; /* there is no word for that */
    t->below->ops->reset(t->below);
}

static void
free_tls(struct spk_tls *t)
{
    SSL_free(t->ssl);
    spk_tls_setup_free(t->setup);
    spk_tls_drop_in(t);
    spk_unsent_drop(&t->out);
    spk_free(t);
}

static void
tls_close(struct spk_stream *st)
{
    struct spk_tls *t = spk_tls_of(st);

    assert(t->beginner == NULL && t->reader == NULL && t->writer == NULL);
    assert(!spk_op_busy(&t->recv_op) && !spk_op_busy(&t->send_op));
    spk_task_cancel(&t->task);
    say_end(t);
    t->below->ops->close(t->below);
    free_tls(t);
}

/* ---- what is below ---- */

static int
tls_address(struct spk_stream *st, bool local, char *text, size_t size)
{
    return spk_tls_of(st)->below->ops->address(spk_tls_of(st)->below, local, text, size);
}

static int
tls_credentials(struct spk_stream *st, struct spk_credentials *out)
{
    return spk_tls_of(st)->below->ops->credentials(spk_tls_of(st)->below, out);
}

static size_t
tls_unsent(const struct spk_stream *st)
{
    return spk_tls_unsent(SPK_OWNER(st, const struct spk_tls, stream));
}

static const struct spk_stream_ops tls_ops = {
    .begin = tls_begin,
    .send_now = tls_send_now,
    .send = tls_send,
    .recv_now = tls_recv_now,
    .recv = tls_recv,
    .writable = tls_writable,
    .unsent = tls_unsent,
    .shutdown = tls_shutdown,
    .reset = tls_reset,
    .close = tls_close,
    .address = tls_address,
    .credentials = tls_credentials,
    .property = spk_tls_property,
};

/* ---- making one ---- */

int
spk_tls_wrap(struct spk_endpoint *ep, struct spk_stream **st)
{
    struct spk_stream *below = *st;
    struct spk_tls *t = spk_zalloc(sizeof *t);
    int rc = SPOKE_ENOMEM;

    *st = NULL;
    if (t == NULL)
        goto close_below;
    if ((rc = spk_tls_config_setup(ep->options.tls, &t->setup)) != 0)
        goto free_stream;
    t->stream.ops = &tls_ops;
    t->stream.e = below->e;
    t->below = below;
    t->ep = ep;
    t->dry = true;
    spk_op_init(&t->recv_op, on_received);
    spk_op_init(&t->send_op, on_sent);
    spk_task_init(&t->task, on_task);
    if (!spk_tls_prepare(t)) {
        ERR_clear_error();
        rc = SPOKE_ENOMEM;
        goto free_stream;
    }
    *st = &t->stream;
    return 0;
free_stream:
    free_tls(t);
close_below:
    below->ops->close(below);
    return rc;
}

int
spk_tls_check_listener(const struct spk_endpoint *l)
{
    struct spk_tls_setup *setup;
    int rc;

    if (l->options.tls == NULL)
        return SPOKE_ENOTLSCONFIG;
    if ((rc = spk_tls_config_setup(l->options.tls, &setup)) != 0)
        return rc;
    rc = setup->has_cert ? 0 : SPOKE_ENOCERT;
    spk_tls_setup_free(setup);
    return rc;
}
