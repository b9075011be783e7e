/* SPDX-License-Identifier: MIT */
/* The side of a TLS stream that is turned to the stream below: what has come from there and what is
 * to go there, and the BIO by which OpenSSL reads the one and writes the other. */
#include <string.h>

#include "runtime/core/tlsstream.h"

void
spk_tls_drop_in(struct spk_tls *t)
{
    if (t->in != NULL)
        spk_chunk_unref(t->in);
    t->in = NULL;
    t->in_size = 0;
}

void
spk_tls_cannot_send(struct spk_tls *t, int reason)
{
    if (t->write_end == 0)
        t->write_end = reason;
    spk_unsent_drop(&t->out);
}

void
spk_tls_flush(struct spk_tls *t)
{
    int rc = spk_unsent_write(&t->out, t->below);

    if (rc == SPOKE_EAGAIN)
        return;
    if (rc != 0) {
        spk_tls_cannot_send(t, rc);
    } else if (t->end_below) {
        t->end_below = false;
        (void)t->below->ops->shutdown(t->below, false);
    }
}

void
spk_tls_try_flush(struct spk_tls *t)
{
    if (!spk_op_busy(&t->send_op) && t->write_end == 0)
        spk_tls_flush(t);
}

void
spk_tls_arm_send(struct spk_tls *t)
{
    if (!spk_op_busy(&t->send_op) && spk_tls_unsent(t) > 0)
        spk_unsent_send(&t->out, t->below, &t->send_op);
}

void
spk_tls_arm_recv(struct spk_tls *t, const struct spk_op *for_op)
{
    if (spk_op_busy(&t->recv_op))
        return;
    t->recv_op.awaited = for_op->awaited;
    t->below->ops->recv(t->below, &t->recv_op, NULL, 0);
}

void
spk_tls_keep_in(struct spk_tls *t, struct spk_chunk *chunk, uint8_t *data, size_t size)
{
    spk_tls_drop_in(t);
    t->in = chunk;
    t->in_data = data;
    t->in_size = size;
    t->dry = false;
}

void
spk_tls_ends_below(struct spk_tls *t, int reason)
{
    t->in_end = true;
    t->dry = false;
    if (reason != 0 && t->read_end == 0)
        t->read_end = reason;
}

/* Take what is there below.  False: nothing. */
static bool
fill(struct spk_tls *t)
{
    struct spk_engine *e = t->stream.e;
    uint8_t *room;
    size_t size;
    int64_t n;

    if (!t->fills || t->in_end || (room = spk_scratch_room(e, &size)) == NULL)
        return false;
    n = t->below->ops->recv_now(t->below, room, size);
    if (n > 0)
        spk_tls_keep_in(t, spk_scratch_take(e, (size_t)n), room, (size_t)n);
    else if (n != SPOKE_EAGAIN && n != SPOKE_ENOBUFS)
        spk_tls_ends_below(t, (int)n);
    return n > 0;
}

/* ---- what OpenSSL reads from and writes to ---- */

static struct spk_tls *
tls_of_bio(BIO *bio)
{
    return BIO_get_data(bio);
}

static int
bio_read(BIO *bio, char *to, int size)
{
    struct spk_tls *t = tls_of_bio(bio);
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
        spk_tls_drop_in(t);
    return (int)n;
}

static int
put_out(struct spk_tls *t, const char *from, size_t size)
{
    uint8_t *room = spk_unsent_room(&t->out, t->out.chunk == NULL ? SPK_TLS_OUT_SIZE : size);

    if (room == NULL)
        return -1;
    memcpy(room, from, size);
    t->out.to += size;
    return 0;
}

/* What a stream that is lost writes goes nowhere: there may be something to read still. */
static int
bio_write(BIO *bio, const char *from, int size)
{
    struct spk_tls *t = tls_of_bio(bio);
    struct iovec iov = {(void *)(uintptr_t)from, (size_t)size};
    int64_t n = 0;

    BIO_clear_retry_flags(bio);
    if (t->write_end != 0)
        return size;
    if (t->sends_along && spk_tls_unsent(t) == 0)
        n = t->below->ops->send_now(t->below, &iov, 1);
    if (n == SPOKE_EAGAIN || n == SPOKE_ENOBUFS)
        n = 0;
    if (n < 0) {
        spk_tls_cannot_send(t, (int)n);
        return size;
    }
    if (n == size)
        return size;
    if (!spk_tls_out_has_room(t, (size_t)(size - n))) {
        BIO_set_retry_write(bio);
        return n > 0 ? (int)n : -1;
    }
    if (put_out(t, from + n, (size_t)(size - n)) != 0)
        spk_tls_cannot_send(t, SPOKE_ENOMEM);
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

BIO *
spk_tls_bio(struct spk_tls *t)
{
    BIO *bio;

    pthread_once(&bio_once, make_bio_method);
    if (bio_method == NULL || (bio = BIO_new(bio_method)) == NULL)
        return NULL;
    BIO_set_data(bio, t);
    return bio;
}
