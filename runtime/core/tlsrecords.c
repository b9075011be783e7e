/* SPDX-License-Identifier: MIT */
/* The user's bytes in and out of TLS's records, and what else a peer may say between them. */
#include <openssl/err.h>
#include <string.h>

#include "runtime/core/tlsstream.h"
#include "runtime/engine/log.h"

#define STRANGE_MOST 32 /* messages of TLS's own, tickets and keys, between two with data */

/* ---- reading ---- */

/* Why OpenSSL gave no more: SPOKE_EAGAIN, 0 for the peer's end, or an error that stays. */
static int
no_more(struct spk_tls *t, int result)
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

/* Errors that somebody left on this thread are not ours.  Mostly there are none, and clearing takes
 * time. */
static void
forget_errors(void)
{
    if (ERR_peek_error() != 0)
        ERR_clear_error();
}

/* All that has come has been read: OpenSSL need not be asked. */
static bool
is_spent(const struct spk_tls *t)
{
    return t->in_size == 0 && !t->in_end && SSL_has_pending(t->ssl) == 0;
}

static int
decrypt(struct spk_tls *t, uint8_t *to, size_t size, size_t *done)
{
    size_t n;
    int rc = 1;

    while (*done < size && rc == 1) {
        forget_errors();
        rc = SSL_read_ex(t->ssl, to + *done, size - *done, &n);
        if (rc == 1) {
            *done += n;
            t->strange = 0;
            t->fills = false; /* there is something: no more than what has come */
            t->dry = is_spent(t);
            if (t->dry)
                return SPOKE_EAGAIN;
        }
    }
    return rc == 1 ? 0 : no_more(t, rc);
}

int64_t
spk_tls_read(struct spk_tls *t, void *buffer, size_t size, bool fills)
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
    if ((t->wants_another || t->strange > STRANGE_MOST) && t->read_end == 0)
        t->read_end = rc = SPOKE_EPROTO;
    spk_tls_try_flush(t);
    return done > 0 ? (int64_t)done : rc;
}

bool
spk_tls_has_input(const struct spk_tls *t)
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

    for (int i = 0; i < count && n < SPK_TLS_RECORD; i++) {
        const uint8_t *from = iov[i].iov_base;
        size_t here = iov[i].iov_len;

        if (skip >= here) {
            skip -= here;
            continue;
        }
        from += skip;
        here -= skip;
        skip = 0;
        if (n == 0 && (here >= SPK_TLS_RECORD || i == count - 1 ||
                       (room = spk_scratch_room(e, &size)) == NULL || size < SPK_TLS_RECORD)) {
            *piece = from;
            return here < SPK_TLS_RECORD ? here : SPK_TLS_RECORD;
        }
        if (here > SPK_TLS_RECORD - n)
            here = SPK_TLS_RECORD - n;
        memcpy(room + n, from, here);
        n += here;
    }
    *piece = room;
    return n;
}

/* Something to come back with, before the first of what we send.  Not sooner: a peer that only
 * sends, and closes, has read all that there is, or its kernel would throw away what it sent. */
static void
give_ticket(struct spk_tls *t)
{
    if (!t->gives_ticket)
        return;
    t->gives_ticket = false;
    (void)SSL_new_session_ticket(t->ssl);
}

/* Encrypt as much as `out` takes.  Bytes, or why not one. */
static int64_t
encrypt(struct spk_tls *t, const struct iovec *iov, int count, size_t skip)
{
    size_t done = 0, size, n;
    const uint8_t *piece;

    give_ticket(t);
    while (spk_tls_out_has_room(t, SPK_TLS_RECORD + SPK_TLS_RECORD_FRAME) &&
           (size = next_piece(t->stream.e, iov, count, skip + done, &piece)) > 0) {
        forget_errors();
        if (SSL_write_ex(t->ssl, piece, size, &n) != 1) {
            ERR_clear_error();
            spk_tls_cannot_send(t, t->read_end != 0 ? t->read_end : SPOKE_EPROTO);
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

int64_t
spk_tls_write(struct spk_tls *t, const struct iovec *iov, int count)
{
    size_t all = size_of(iov, count), done = 0;
    int64_t n = 0;

    while (done < all && spk_tls_unsent(t) == 0) {
        /* One record needs no place to gather in, unless there is a ticket before it. */
        t->sends_along = all - done <= SPK_TLS_RECORD && !t->gives_ticket;
        n = encrypt(t, iov, count, done);
        t->sends_along = false;
        if (n < 0)
            break;
        done += (size_t)n;
        spk_tls_flush(t);
        if (t->write_end != 0)
            return t->write_end;
    }
    return done > 0 ? (int64_t)done : n;
}

/* ---- what is neither ---- */

/* A peer may not keep us busy with TLS itself: new keys, tickets, or another handshake. */
static void
on_tls_message(int is_written, int version, int type, const void *bytes, size_t size, SSL *ssl,
               void *arg)
{
    struct spk_tls *t = arg;

    (void)version, (void)bytes, (void)size, (void)ssl;
    if (is_written == 0 && type == SSL3_RT_HANDSHAKE && t->begun)
        t->strange++;
}

/* OpenSSL answers who asks for another handshake with a warning; here that is the end. */
static void
on_tls_info(const SSL *ssl, int where, int value)
{
    struct spk_tls *t = SSL_get_app_data(ssl);

    if ((where & SSL_CB_WRITE_ALERT) == SSL_CB_WRITE_ALERT && t->begun &&
        (value & 0xff) == SSL_AD_NO_RENEGOTIATION)
        t->wants_another = true; /* which no data makes good */
}

void
spk_tls_watch_strange(struct spk_tls *t)
{
    SSL_set_msg_callback(t->ssl, on_tls_message);
    SSL_set_msg_callback_arg(t->ssl, t);
    SSL_set_info_callback(t->ssl, on_tls_info);
}
