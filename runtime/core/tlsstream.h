/* SPDX-License-Identifier: MIT */
/* A stream with TLS around another stream's bytes, inside:
 *
 *                        recv, recv_now                 send, send_now
 *      user  ◀── SSL_read ◀── in ◀── below      user ──▶ SSL_write ──▶ out ──▶ below
 *
 *   tlsstream.c     the user's operations, and the life of it     tlshandshake.c  how it begins
 *   tlsrecords.c    SSL_read, SSL_write                           tlsbelow.c      in, out
 *   tlsproperty.c   what is known of it
 *
 * OpenSSL does no I/O: what it reads is what came from below last (`in`), what it writes goes to
 * `out`, or straight on if that is empty.  What was encrypted cannot be taken back, so a send takes
 * no more than `out` has room for, and nothing while anything is left there: that is what unsent()
 * tells, and what the user's next operation writes first.
 *
 * The operations below are in flight only while one of the user's waits for them, so that whoever
 * has none may close.  Which of the user's are, and what each waits for, is all the state there is;
 * the task and the answers from below go on from there. */
#ifndef SPK_CORE_TLSSTREAM_H
#define SPK_CORE_TLSSTREAM_H

#include "runtime/core/tls.h"

#define SPK_TLS_RECORD ((size_t)SSL3_RT_MAX_PLAIN_LENGTH)
#define SPK_TLS_RECORD_FRAME                                                                       \
    ((size_t)128) /* what may be around it, and beside: a change of keys                           \
                   */
#define SPK_TLS_OUT_SIZE ((size_t)7 * (SPK_TLS_RECORD + SPK_TLS_RECORD_FRAME))

struct spk_tls {
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
    bool lacks_cert;         /* the peer has asked for one */
    bool fills, sends_along; /* may take from below, write there, just now */
    int read_end;            /* why no more can be read, 0: it can */
    int write_end;
    unsigned strange;   /* messages of TLS's own since the last data */
    bool wants_another; /* handshake: the peer */
    struct spk_tls_verdict verdict;

    struct spk_chunk *in; /* what came from below, the part that is left; NULL: nothing */
    uint8_t *in_data;
    size_t in_size;
    bool in_end;
    struct spk_unsent out; /* what goes there */

    struct spk_op recv_op, send_op;   /* below */
    struct spk_op *beginner, *reader; /* the user's; NULL: not busy.  The first uses both below */
    struct spk_op *writer;
    struct msghdr *msg; /* the writer's; NULL: it waits for room */
    struct spk_task task;
};

static inline struct spk_tls *
spk_tls_of(struct spk_stream *st)
{
    return SPK_OWNER(st, struct spk_tls, stream);
}

static inline size_t
spk_tls_unsent(const struct spk_tls *t)
{
    return spk_unsent_size(&t->out);
}

static inline bool
spk_tls_out_has_room(const struct spk_tls *t, size_t size)
{
    return t->out.chunk == NULL ? size <= SPK_TLS_OUT_SIZE : t->out.chunk->size - t->out.to >= size;
}

/* ---- tlsbelow.c ---- */

BIO *spk_tls_bio(struct spk_tls *t); /* NULL: no memory */
/* What has come, in place of what is left; and that nothing more does, 0 if that is all. */
void spk_tls_keep_in(struct spk_tls *t, struct spk_chunk *chunk, uint8_t *data, size_t size);
void spk_tls_drop_in(struct spk_tls *t);
void spk_tls_ends_below(struct spk_tls *t, int reason);
/* Nobody reads there any more; what the peer has sent can be read still. */
void spk_tls_cannot_send(struct spk_tls *t, int reason);
/* Write `out` as far as it goes.  No write below is busy; the second sees to that itself. */
void spk_tls_flush(struct spk_tls *t);
void spk_tls_try_flush(struct spk_tls *t);
/* Start the operations below, unless they are busy. */
void spk_tls_arm_send(struct spk_tls *t);
void spk_tls_arm_recv(struct spk_tls *t, const struct spk_op *for_op);

/* ---- tlsrecords.c ---- */

/* Bytes, 0 the end, SPOKE_EAGAIN, or why there is no more.  `fills`: from below, too. */
int64_t spk_tls_read(struct spk_tls *t, void *buffer, size_t size, bool fills);
bool spk_tls_has_input(const struct spk_tls *t);
/* As send_now; nothing is unsent. */
int64_t spk_tls_write(struct spk_tls *t, const struct iovec *iov, int count);
/* Have OpenSSL tell of what the peer says besides. */
void spk_tls_watch_strange(struct spk_tls *t);

/* ---- tlshandshake.c ---- */

bool spk_tls_prepare(struct spk_tls *t); /* make t->ssl */
/* A step for the beginner, as far as it goes with what there is.  Ends it at most. */
void spk_tls_shake_hands(struct spk_tls *t);

/* ---- tlsproperty.c ---- */

int spk_tls_property(struct spk_stream *st, const char *name, enum spoke_type type, void *value,
                     size_t *size);

#endif
