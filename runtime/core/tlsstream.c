/* SPDX-License-Identifier: MIT */
/* A stream with TLS around another stream's bytes.
 *
 *                        recv, recv_now                 send, send_now
 *      user  ◀── SSL_read ◀── in ◀── below      user ──▶ SSL_write ──▶ out ──▶ below
 *
 * OpenSSL does no I/O: what it reads is what came from below last (`in`), what it writes goes to
 * `out`, or straight on if that is empty.  What was encrypted cannot be taken back, so a send takes
 * no more than `out` has room for, and nothing while anything is left there: that is what unsent()
 * tells, and what the user's next operation writes first.
 *
 * The operations below are in flight only while one of the user's waits for them, so that whoever
 * has none may close.  Which of the user's are, and what each waits for, is all the state there is;
 * on_task() and the answers from below go on from there. */
#include <assert.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/tls.h"
#include "runtime/engine/log.h"

#define RECORD       ((size_t)SSL3_RT_MAX_PLAIN_LENGTH)
#define RECORD_FRAME ((size_t)128) /* what may be around it, and beside it: a change of keys */
#define OUT_SIZE     ((size_t)7 * (RECORD + RECORD_FRAME))
#define STRANGE_MOST 32 /* messages of TLS's own, tickets and keys, between two with data */

struct tls {
    struct spk_stream stream;
    struct spk_stream *below;
    struct spk_endpoint *ep;
    struct spk_tls_setup *setup;
    SSL *ssl;
    bool begun;      /* the handshake is done */
    bool peer_ended; /* close_notify has come */
    bool ended;      /* … has been sent */
    bool end_below;  /* and the stream below is to end behind it */
    bool dry;        /* OpenSSL wants more than there is in `in` */
    bool gives_ticket;
    bool fills, sends_along; /* may take from below, write there, just now */
    int read_end;            /* why no more can be read, 0: it can */
    int write_end;
    unsigned strange;
    struct spk_tls_verdict verdict;

    struct spk_chunk *in; /* what came from below, the part that is left; NULL: nothing */
    uint8_t *in_data;
    size_t in_size;
    bool in_end;
    struct spk_chunk *out; /* what goes there */
    size_t out_from, out_to;

    struct spk_op recv_op, send_op;   /* below */
    struct spk_op *beginner, *reader; /* the user's; NULL: not busy.  The first uses both below */
    struct spk_op *writer;
    struct msghdr *msg; /* the writer's; NULL: it waits for room */
    struct msghdr out_msg;
    struct iovec out_iov;
    struct spk_task task;
};

static struct tls *
tls_of(struct spk_stream *st)
{
    return SPK_OWNER(st, struct tls, stream);
}

/* ---- below ---- */

static size_t
unsent(const struct tls *t)
{
    return t->out_to - t->out_from;
}

static void
drop_out(struct tls *t)
{
    if (t->out != NULL)
        spk_chunk_unref(t->out);
    t->out = NULL;
    t->out_from = t->out_to = 0;
}

static void
drop_in(struct tls *t)
{
    if (t->in != NULL)
        spk_chunk_unref(t->in);
    t->in = NULL;
    t->in_size = 0;
}

/* Nobody reads there any more; what the peer has sent can be read still. */
static void
cannot_send(struct tls *t, int reason)
{
    if (t->write_end == 0)
        t->write_end = reason;
    drop_out(t);
}

static void
after_out(struct tls *t)
{
    drop_out(t);
    if (t->end_below) {
        t->end_below = false;
        (void)t->below->ops->shutdown(t->below, false);
    }
}

/* Write what is there as far as it goes.  No write below is busy. */
static void
flush(struct tls *t)
{
    while (unsent(t) > 0) {
        struct iovec iov = {t->out->data + t->out_from, unsent(t)};
        int64_t n = t->below->ops->send_now(t->below, &iov, 1);

        if (n == SPOKE_EAGAIN || n == SPOKE_ENOBUFS)
            return;
        if (n <= 0) {
            cannot_send(t, n == 0 ? SPOKE_ECONNRESET : (int)n);
            return;
        }
        t->out_from += (size_t)n;
    }
    after_out(t);
}

static void
try_flush(struct tls *t)
{
    if (!spk_op_busy(&t->send_op) && t->write_end == 0)
        flush(t);
}

static void
arm_send(struct tls *t)
{
    if (spk_op_busy(&t->send_op) || t->out == NULL)
        return;
    t->out_iov = (struct iovec){t->out->data + t->out_from, unsent(t)};
    t->out_msg = (struct msghdr){.msg_iov = &t->out_iov, .msg_iovlen = 1};
    t->below->ops->send(t->below, &t->send_op, &t->out_msg);
}

static void
arm_recv(struct tls *t, const struct spk_op *for_op)
{
    if (spk_op_busy(&t->recv_op))
        return;
    t->recv_op.awaited = for_op->awaited;
    t->below->ops->recv(t->below, &t->recv_op, NULL, 0);
}

static void
keep_in(struct tls *t, struct spk_chunk *chunk, uint8_t *data, size_t size)
{
    drop_in(t);
    t->in = chunk;
    t->in_data = data;
    t->in_size = size;
    t->dry = false;
}

static void
ends_below(struct tls *t, int reason)
{
    t->in_end = true;
    t->dry = false;
    if (reason != 0 && t->read_end == 0)
        t->read_end = reason;
}

/* Take what is there below.  False: nothing. */
static bool
fill(struct tls *t)
{
    struct spk_engine *e = t->stream.e;
    uint8_t *room;
    size_t size;
    int64_t n;

    if (!t->fills || t->in_end || (room = spk_scratch_room(e, &size)) == NULL)
        return false;
    n = t->below->ops->recv_now(t->below, room, size);
    if (n > 0)
        keep_in(t, spk_scratch_take(e, (size_t)n), room, (size_t)n);
    else if (n != SPOKE_EAGAIN && n != SPOKE_ENOBUFS)
        ends_below(t, (int)n);
    return n > 0;
}

/* ---- what OpenSSL reads from and writes to ---- */

static struct tls *
tls_of_bio(BIO *bio)
{
    return BIO_get_data(bio);
}

static int
bio_read(BIO *bio, char *to, int size)
{
    struct tls *t = tls_of_bio(bio);
    size_t n = (size_t)size;

    BIO_clear_retry_flags(bio);
    if (t->in_size == 0 && !fill(t)) {
        if (!t->in_end)
            BIO_set_retry_read(bio);
        return t->in_end ? 0 : -1;
    }
    if (n > t->in_size)
        n = t->in_size;
    memcpy(to, t->in_data, n);
    t->in_data += n;
    t->in_size -= n;
    if (t->in_size == 0)
        drop_in(t);
    return (int)n;
}

static bool
out_has_room(const struct tls *t, size_t size)
{
    return t->out == NULL ? size <= OUT_SIZE : t->out->size - t->out_to >= size;
}

static int
put_out(struct tls *t, const char *from, size_t size)
{
    if (t->out == NULL && (t->out = spk_chunk_new(OUT_SIZE)) == NULL)
        return -1;
    memcpy(t->out->data + t->out_to, from, size);
    t->out_to += size;
    return 0;
}

/* What a stream that is lost writes goes nowhere: there may be something to read still. */
static int
bio_write(BIO *bio, const char *from, int size)
{
    struct tls *t = tls_of_bio(bio);
    struct iovec iov = {(void *)(uintptr_t)from, (size_t)size};
    int64_t n = 0;

    BIO_clear_retry_flags(bio);
    if (t->write_end != 0)
        return size;
    if (t->sends_along && unsent(t) == 0)
        n = t->below->ops->send_now(t->below, &iov, 1);
    if (n == SPOKE_EAGAIN || n == SPOKE_ENOBUFS)
        n = 0;
    if (n < 0) {
        cannot_send(t, (int)n);
        return size;
    }
    if (n == size)
        return size;
    if (!out_has_room(t, (size_t)(size - n))) {
        BIO_set_retry_write(bio);
        return n > 0 ? (int)n : -1;
    }
    if (put_out(t, from + n, (size_t)(size - n)) != 0)
        cannot_send(t, SPOKE_ENOMEM);
    return size;
}

static long
bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)number, (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH: return 1;
    case BIO_CTRL_EOF: return tls_of_bio(bio)->in_end;
    default: return 0;
    }
}

static int
bio_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

static pthread_once_t bio_once = PTHREAD_ONCE_INIT;
static BIO_METHOD *bio_method; /* kept */

static void
make_bio_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "spoke");

    if (m == NULL)
        return;
    BIO_meth_set_read(m, bio_read);
    BIO_meth_set_write(m, bio_write);
    BIO_meth_set_ctrl(m, bio_control);
    BIO_meth_set_create(m, bio_create);
    bio_method = m;
}

/* ---- reading ---- */

/* Why OpenSSL gave no more: SPOKE_EAGAIN, 0 for the peer's end, or an error that stays. */
static int
no_more(struct tls *t, int result)
{
    int why = SSL_get_error(t->ssl, result);
    char text[256];

    if (why == SSL_ERROR_WANT_READ && t->read_end == 0 && !t->in_end) {
        t->dry = t->in_size == 0;
        return SPOKE_EAGAIN;
    }
    if (why == SSL_ERROR_WANT_WRITE) /* an answer of TLS's own has no room */
        return SPOKE_EAGAIN;
    if (why == SSL_ERROR_ZERO_RETURN) {
        t->peer_ended = true;
        return 0;
    }
    if (t->read_end == 0 && t->in_end && t->in_size == 0) /* without TLS's own word for it */
        t->read_end = SPOKE_ETRUNCATED;
    if (t->read_end == 0) {
        t->read_end = spk_tls_reason(&t->verdict, text, sizeof text);
        spk_log(SPOKE_LOG_WARNING, "%s: TLS broke off: %s", t->ep->url.text, text);
        spk_endpoint_explain(t->ep, t->read_end, text);
    }
    ERR_clear_error();
    return t->read_end;
}

static int
decrypt(struct tls *t, uint8_t *to, size_t size, size_t *done)
{
    size_t n;
    int rc = 1;

    while (*done < size && rc == 1) {
        ERR_clear_error();
        rc = SSL_read_ex(t->ssl, to + *done, size - *done, &n);
        if (rc == 1) {
            *done += n;
            t->strange = 0;
            t->fills = false; /* there is something: no more than what has come */
        }
    }
    return rc == 1 ? 0 : no_more(t, rc);
}

/* Bytes, 0 the end, SPOKE_EAGAIN, or why there is no more. */
static int64_t
read_some(struct tls *t, void *buffer, size_t size, bool fills)
{
    size_t done = 0;
    int rc;

    if (t->peer_ended)
        return 0;
    if (t->read_end != 0 && !t->in_end)
        return t->read_end;
    t->fills = fills;
    rc = decrypt(t, buffer, size, &done);
    t->fills = false;
    if (t->strange > STRANGE_MOST && t->read_end == 0)
        t->read_end = rc = SPOKE_EPROTO;
    try_flush(t);
    return done > 0 ? (int64_t)done : rc;
}

static bool
has_input(const struct tls *t)
{
    return !t->dry || t->in_end || t->peer_ended || t->read_end != 0;
}

/* ---- writing ---- */

/* Of some buffers, behind `skip` bytes, the next ones that are in one place, or are put together
 * there if they are few: as many as fit into a record. */
static size_t
next_piece(struct spk_engine *e, const struct iovec *iov, int count, size_t skip,
           const uint8_t **piece)
{
    uint8_t *room = NULL;
    size_t n = 0, size;

    for (int i = 0; i < count && n < RECORD; i++) {
        const uint8_t *from = iov[i].iov_base;
        size_t here = iov[i].iov_len;

        if (skip >= here) {
            skip -= here;
            continue;
        }
        from += skip;
        here -= skip;
        skip = 0;
        if (n == 0 && (here >= RECORD || i == count - 1 ||
                       (room = spk_scratch_room(e, &size)) == NULL || size < RECORD)) {
            *piece = from;
            return here < RECORD ? here : RECORD;
        }
        if (here > RECORD - n)
            here = RECORD - n;
        memcpy(room + n, from, here);
        n += here;
    }
    *piece = room;
    return n;
}

/* Something to come back with, before the first of what we send.  Not sooner: a peer that only
 * sends, and closes, has read all that there is, or its kernel would throw away what it sent. */
static void
give_ticket(struct tls *t)
{
    if (!t->gives_ticket)
        return;
    t->gives_ticket = false;
    (void)SSL_new_session_ticket(t->ssl);
}

/* Encrypt as much as `out` takes.  Bytes, or why not one. */
static int64_t
encrypt(struct tls *t, const struct iovec *iov, int count, size_t skip)
{
    size_t done = 0, size, n;
    const uint8_t *piece;

    give_ticket(t);
    while (out_has_room(t, RECORD + RECORD_FRAME) &&
           (size = next_piece(t->stream.e, iov, count, skip + done, &piece)) > 0) {
        ERR_clear_error();
        if (SSL_write_ex(t->ssl, piece, size, &n) != 1) {
            ERR_clear_error();
            cannot_send(t, t->read_end != 0 ? t->read_end : SPOKE_EPROTO);
            break;
        }
        done += n;
        if (t->sends_along)
            break;
    }
    if (t->write_end != 0)
        return t->write_end;
    return done > 0 ? (int64_t)done : SPOKE_EAGAIN;
}

static size_t
size_of(const struct iovec *iov, int count)
{
    size_t size = 0;

    for (int i = 0; i < count; i++)
        size += iov[i].iov_len;
    return size;
}

/* As send_now; nothing is unsent. */
static int64_t
send_some(struct tls *t, const struct iovec *iov, int count)
{
    size_t all = size_of(iov, count), done = 0;
    int64_t n = 0;

    while (done < all && unsent(t) == 0) {
        t->sends_along = all - done <= RECORD; /* one record needs no place to gather in */
        n = encrypt(t, iov, count, done);
        t->sends_along = false;
        if (n < 0)
            break;
        done += (size_t)n;
        flush(t);
        if (t->write_end != 0)
            return t->write_end;
    }
    return done > 0 ? (int64_t)done : n;
}

static int64_t
tls_send_now(struct spk_stream *st, struct iovec *iov, int count)
{
    struct tls *t = tls_of(st);

    try_flush(t);
    if (t->write_end != 0)
        return t->write_end;
    return unsent(t) > 0 ? SPOKE_EAGAIN : send_some(t, iov, count);
}

/* ---- the user's operations ---- */

/* Each of these ends an operation, whose owner may close the stream: nothing comes after it. */

static void
end_begin(struct tls *t, int result)
{
    struct spk_op *op = t->beginner;

    t->beginner = NULL;
    spk_op_complete(t->stream.e, op, result);
}

static void
end_read(struct tls *t, int64_t result)
{
    struct spk_op *op = t->reader;

    t->reader = NULL;
    if (op->u.other.buffer == NULL && result > 0)
        spk_scratch_complete(t->stream.e, op, result);
    else
        spk_op_complete(t->stream.e, op, (int)result);
}

static void
end_write(struct tls *t, int64_t result)
{
    struct spk_op *op = t->writer;

    t->writer = NULL;
    spk_op_complete(t->stream.e, op, (int)result);
}

/* Go on with the one who reads. */
static void
serve_reader(struct tls *t)
{
    struct spk_op *op = t->reader;
    uint8_t *to = op->u.other.buffer;
    size_t size = op->u.other.size;
    int64_t n = SPOKE_ENOMEM;

    if (spk_op_busy(&t->send_op) && t->writer == NULL) /* see below */
        return;
    if (op->cancelled) {
        end_read(t, SPOKE_ECANCELED);
        return;
    }
    if (to != NULL || (to = spk_scratch_room(t->stream.e, &size)) != NULL)
        n = read_some(t, to, size, false);
    if (n != SPOKE_EAGAIN)
        end_read(t, n);
    else if (unsent(t) > 0 && !t->dry) /* TLS has to say something first */
        arm_send(t);
    else
        arm_recv(t, op);
}

static void
serve_writer(struct tls *t)
{
    int64_t n = 0;

    if (t->write_end != 0)
        n = t->write_end;
    else if (t->writer->cancelled)
        n = SPOKE_ECANCELED;
    else if (unsent(t) > 0)
        n = SPOKE_EAGAIN;
    else if (t->msg != NULL)
        n = send_some(t, t->msg->msg_iov, (int)t->msg->msg_iovlen);
    if (n == SPOKE_EAGAIN)
        arm_send(t);
    else
        end_write(t, n);
}

/* ---- the handshake ---- */

static void
failed_to_begin(struct tls *t)
{
    char text[256];
    int rc;

    if (t->in_end && t->in_size == 0) {
        rc = t->read_end != 0 ? t->read_end : SPOKE_ECONNRESET;
        snprintf(text, sizeof text, "%s in the middle of the TLS handshake", spoke_strerror(rc));
        ERR_clear_error();
    } else {
        rc = spk_tls_reason(&t->verdict, text, sizeof text);
    }
    spk_log(SPOKE_LOG_WARNING, "%s: %s", t->ep->url.text, text);
    spk_endpoint_explain(t->ep, rc, text);
    t->read_end = t->write_end = rc;
    end_begin(t, rc);
}

static void
has_begun(struct tls *t)
{
    t->begun = true;
    t->gives_ticket = !t->ep->is_dialer && t->setup->resumption &&
                      SSL_version(t->ssl) == TLS1_3_VERSION;
}

/* One step, as far as it goes with what there is. */
static void
shake_hands(struct tls *t)
{
    int rc = 1, why = SSL_ERROR_NONE;

    if (t->beginner->cancelled) {
        if (!spk_op_busy(&t->recv_op) && !spk_op_busy(&t->send_op))
            end_begin(t, SPOKE_ECANCELED);
        return;
    }
    ERR_clear_error();
    if (!t->begun && (rc = SSL_do_handshake(t->ssl)) == 1)
        has_begun(t);
    else if (!t->begun)
        why = SSL_get_error(t->ssl, rc);
    try_flush(t);
    assert(!spk_op_busy(&t->recv_op));
    if (!t->begun && why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
        failed_to_begin(t);
    else if (unsent(t) > 0)
        arm_send(t);
    else if (!t->begun)
        arm_recv(t, t->beginner);
    else
        end_begin(t, 0);
}

/* ---- answers ---- */

/* Ends one operation at most: what is left to do then is done in a turn of its own. */
static void
go_on(struct tls *t)
{
    bool reads = t->reader != NULL && !spk_op_busy(&t->recv_op),
         writes = t->writer != NULL && !spk_op_busy(&t->send_op);

    if (t->beginner != NULL) {
        shake_hands(t);
        return;
    }
    if (reads && writes)
        spk_task_queue(t->stream.e, &t->task);
    if (writes)
        serve_writer(t);
    else if (reads)
        serve_reader(t);
}

static void
on_task(struct spk_task *task)
{
    go_on(SPK_OWNER(task, struct tls, task));
}

static void
on_received(struct spk_op *op, int result)
{
    struct tls *t = SPK_OWNER(op, struct tls, recv_op);

    if (result > 0)
        keep_in(t, spk_chunk_ref(op->chunk), op->data, (size_t)result);
    else if (result != SPOKE_EAGAIN && result != SPOKE_ENOBUFS && result != SPOKE_ECANCELED)
        ends_below(t, result);
    if (t->beginner != NULL)
        shake_hands(t);
    else if (t->reader != NULL)
        serve_reader(t);
}

static void
on_sent(struct spk_op *op, int result)
{
    struct tls *t = SPK_OWNER(op, struct tls, send_op);

    if (result > 0) {
        t->out_from += (size_t)result;
        flush(t);
    } else if (result != SPOKE_EAGAIN && result != SPOKE_ENOBUFS && result != SPOKE_ECANCELED) {
        cannot_send(t, result == 0 ? SPOKE_ECONNRESET : result);
    }
    go_on(t);
}

static void
cancel(struct spk_op *op)
{
    struct tls *t = op->u.other.by;

    if (op != t->writer)
        spk_op_cancel(t->stream.e, &t->recv_op);
    if (op != t->reader || t->writer == NULL)
        spk_op_cancel(t->stream.e, &t->send_op);
    spk_task_queue(t->stream.e, &t->task);
}

static void
tls_begin(struct spk_stream *st, struct spk_op *op)
{
    struct tls *t = tls_of(st);

    spk_op_by_other(op, t, cancel);
    t->beginner = op;
    spk_task_queue(st->e, &t->task);
}

static void
tls_recv(struct spk_stream *st, struct spk_op *op, void *buffer, size_t size)
{
    struct tls *t = tls_of(st);

    spk_op_by_other(op, t, cancel);
    op->u.other.buffer = buffer;
    op->u.other.size = size;
    t->reader = op;
    if (has_input(t))
        spk_task_queue(st->e, &t->task);
    else
        arm_recv(t, op);
}

static int64_t
tls_recv_now(struct spk_stream *st, void *buffer, size_t size)
{
    struct tls *t = tls_of(st);

    /* One that is not with the kernel yet has taken nothing. */
    return read_some(t, buffer, size, t->recv_op.state != SPK_OP_IN_FLIGHT);
}

static void
tls_send(struct spk_stream *st, struct spk_op *op, struct msghdr *msg)
{
    struct tls *t = tls_of(st);

    spk_op_by_other(op, t, cancel);
    t->writer = op;
    t->msg = msg;
    if (unsent(t) > 0 && t->write_end == 0)
        arm_send(t);
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
say_end(struct tls *t)
{
    if (t->ended || !t->begun || t->write_end != 0 || SSL_in_init(t->ssl))
        return;
    t->ended = true;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl);
    ERR_clear_error();
    try_flush(t);
}

static int
tls_shutdown(struct spk_stream *st, bool reading)
{
    struct tls *t = tls_of(st);

    if (reading)
        return t->below->ops->shutdown(t->below, true);
    say_end(t);
    if (unsent(t) == 0)
        return t->below->ops->shutdown(t->below, false);
    t->end_below = true;
    return 0;
}

static void
tls_reset(struct spk_stream *st)
{
    struct tls *t = tls_of(st);

    t->ended = true; /* there is no word for that */
    t->below->ops->reset(t->below);
}

static void
free_tls(struct tls *t)
{
    SSL_free(t->ssl);
    spk_tls_setup_free(t->setup);
    drop_in(t);
    drop_out(t);
    spk_free(t);
}

static void
tls_close(struct spk_stream *st)
{
    struct tls *t = tls_of(st);

    assert(t->beginner == NULL && t->reader == NULL && t->writer == NULL);
    assert(!spk_op_busy(&t->recv_op) && !spk_op_busy(&t->send_op));
    spk_task_cancel(&t->task);
    say_end(t);
    t->below->ops->close(t->below);
    free_tls(t);
}

/* ---- what is known of it ---- */

static int
tls_address(struct spk_stream *st, bool local, char *text, size_t size)
{
    return tls_of(st)->below->ops->address(tls_of(st)->below, local, text, size);
}

static int
tls_credentials(struct spk_stream *st, struct spk_credentials *out)
{
    return tls_of(st)->below->ops->credentials(tls_of(st)->below, out);
}

static size_t
tls_unsent(const struct spk_stream *st)
{
    return unsent(SPK_OWNER(st, const struct tls, stream));
}

/* SHA-256 of the certificate, in hexadecimal digits. */
static void
fingerprint(const X509 *x, char *text, size_t size)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;

    *text = '\0';
    if (X509_digest(x, EVP_sha256(), digest, &length) != 1)
        return;
    for (unsigned i = 0; i < length && 2 * i + 3 <= size; i++)
        snprintf(text + (size_t)2 * i, size - (size_t)2 * i, "%02x", digest[i]);
}

/* The peer has a certificate, and it is one that we would have asked for. */
static bool
is_verified(const struct tls *t)
{
    return SSL_get0_peer_certificate(t->ssl) != NULL && SSL_get_verify_result(t->ssl) == X509_V_OK;
}

static bool
text_of(const struct tls *t, const char *name, char *text, size_t size)
{
    const X509 *peer = SSL_get0_peer_certificate(t->ssl);
    const unsigned char *protocol;
    const char *found = "";
    unsigned length;

    *text = '\0';
    if (strcmp(name, SPOKE_OPT_TLS_VERSION) == 0) {
        found = SSL_get_version(t->ssl);
    } else if (strcmp(name, SPOKE_OPT_TLS_CIPHER) == 0) {
        found = SSL_get_cipher_name(t->ssl);
    } else if (strcmp(name, SPOKE_OPT_TLS_SERVER_NAME) == 0) {
        found = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);
    } else if (strcmp(name, SPOKE_OPT_TLS_ALPN) == 0) {
        SSL_get0_alpn_selected(t->ssl, &protocol, &length);
        snprintf(text, size, "%.*s", (int)length, (const char *)protocol);
        return true;
    } else if (strcmp(name, SPOKE_OPT_TLS_PEER_SUBJECT) == 0) {
        if (peer != NULL)
            spk_tls_name_text(X509_get_subject_name(peer), text, size);
        return true;
    } else if (strcmp(name, SPOKE_OPT_TLS_PEER_FINGERPRINT) == 0) {
        if (peer != NULL)
            fingerprint(peer, text, size);
        return true;
    } else {
        return false;
    }
    snprintf(text, size, "%s", found != NULL ? found : "");
    return true;
}

static int
tls_property(struct spk_stream *st, const char *name, enum spoke_type type, void *value,
             size_t *size)
{
    const struct tls *t = tls_of(st);
    char text[512];
    bool yes;

    if (strcmp(name, SPOKE_OPT_TLS_VERIFIED) == 0)
        yes = is_verified(t);
    else if (strcmp(name, SPOKE_OPT_TLS_RESUMED) == 0)
        yes = SSL_session_reused(t->ssl) == 1;
    else if (text_of(t, name, text, sizeof text))
        return type != SPOKE_STRING ? SPOKE_ETYPE : spk_give_text(value, size, text);
    else
        return SPOKE_EOPTION;
    return type != SPOKE_BOOL || *size < sizeof yes ? SPOKE_ETYPE
                                                    : spk_give(value, size, &yes, sizeof yes);
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
    .property = tls_property,
};

/* ---- making one ---- */

/* Remember which certificate it was, and what is wrong with it: the last of several says it. */
static int
on_verify(int fine, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls *t = SSL_get_app_data(ssl);
    X509 *x = X509_STORE_CTX_get_current_cert(store);

    if (fine == 1)
        return fine;
    t->verdict.error = X509_STORE_CTX_get_error(store);
    t->verdict.subject[0] = '\0';
    if (x != NULL)
        spk_tls_name_text(X509_get_subject_name(x), t->verdict.subject, sizeof t->verdict.subject);
    return fine;
}

/* A peer may not keep us busy with TLS itself: new keys, tickets, or another handshake. */
static void
on_tls_message(int is_written, int version, int type, const void *bytes, size_t size, SSL *ssl,
               void *arg)
{
    struct tls *t = arg;

    (void)version, (void)bytes, (void)size, (void)ssl;
    if (is_written == 0 && type == SSL3_RT_HANDSHAKE && t->begun)
        t->strange++;
}

/* OpenSSL answers who asks for another handshake with a warning; here that is the end. */
static void
on_tls_info(const SSL *ssl, int where, int value)
{
    struct tls *t = SSL_get_app_data(ssl);

    if ((where & SSL_CB_WRITE_ALERT) == SSL_CB_WRITE_ALERT && t->begun &&
        (value & 0xff) == SSL_AD_NO_RENEGOTIATION)
        t->strange = STRANGE_MOST + 1;
}

int
spk_tls_on_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls *t = SSL_get_app_data(ssl);

    if (!t->ep->is_dialer || !t->setup->resumption)
        return 0;
    spk_tls_keep_session(t->setup, t->ep->url.text, session);
    return 1;
}

static int
verify_mode(const struct tls *t)
{
    switch (t->setup->verify) {
    case SPOKE_TLS_VERIFY_NONE: return SSL_VERIFY_NONE;
    case SPOKE_TLS_VERIFY_OPTIONAL: return SSL_VERIFY_PEER;
    case SPOKE_TLS_VERIFY_REQUIRED: return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    default: return t->ep->is_dialer ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
    }
}

/* Whom the dialer wants: a host by its name, which it also asks for, or by its address. */
static bool
set_name(SSL *ssl, const char *name)
{
    char address[64];

    snprintf(address, sizeof address, "%.*s", (int)strcspn(name, "%"), name);
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), address) == 1)
        return true;
    ERR_clear_error();
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

static bool
prepare_dialer(struct tls *t)
{
    const char *name = t->setup->server_name != NULL ? t->setup->server_name : t->ep->url.host;
    SSL_SESSION *session;

    SSL_set_connect_state(t->ssl);
    if (name != NULL && !set_name(t->ssl, name))
        return false;
    if (t->setup->alpn != NULL &&
        SSL_set_alpn_protos(t->ssl, t->setup->alpn, t->setup->alpn_size) != 0)
        return false;
    if (t->setup->resumption &&
        (session = spk_tls_take_session(t->setup, t->ep->url.text)) != NULL) {
        (void)SSL_set_session(t->ssl, session);
        SSL_SESSION_free(session);
    }
    return true;
}

static bool
prepare(struct tls *t)
{
    BIO *bio;

    pthread_once(&bio_once, make_bio_method);
    if (bio_method == NULL || (t->ssl = SSL_new(t->setup->context)) == NULL ||
        (bio = BIO_new(bio_method)) == NULL)
        return false;
    BIO_set_data(bio, t);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_app_data(t->ssl, t);
    SSL_set_verify(t->ssl, verify_mode(t), on_verify);
    SSL_set_msg_callback(t->ssl, on_tls_message);
    SSL_set_msg_callback_arg(t->ssl, t);
    SSL_set_info_callback(t->ssl, on_tls_info);
    if (t->ep->is_dialer)
        return prepare_dialer(t);
    SSL_set_accept_state(t->ssl);
    return true;
}

int
spk_tls_wrap(struct spk_endpoint *ep, struct spk_stream **st)
{
    struct spk_stream *below = *st;
    struct tls *t = spk_zalloc(sizeof *t);
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
    if (!prepare(t)) {
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
