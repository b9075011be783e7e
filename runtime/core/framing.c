/* SPDX-License-Identifier: MIT */
/* A pipe over a byte stream: the SP handshake, then messages behind their lengths.  docs/wire.md
 * has the bytes.  Where both ends can the messages move into shared memory (shm.c) at some point of
 * the stream, each direction by itself: a byte 02 where a message could begin says that what
 * follows is there, and is the last one.  This file is the life of a pipe: the handshake, that
 * move, the end.  framing_out.c and framing_in.c are its messages. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/core/framing.h"
#include "runtime/core/stop.h"

/* ---- handshake ---- */

static bool
hello_is_fine(struct spk_framing *f)
{
    static const uint8_t magic[4] = {0, 'S', 'P', 0};
    const struct spoke_protocol *protocol = f->pipe.socket->protocol;
    int peer = f->hello[4] << 8 | f->hello[5];

    for (unsigned i = 0; i < 4 && i < f->hello_have; i++)
        if (f->hello[i] != magic[i])
            goto bad;
    if (f->hello_have < SPK_HANDSHAKE_SIZE)
        return true;
    if (f->hello[6] != 0 || f->hello[7] != 0)
        goto bad;
    if (peer == protocol->peer)
        return true;
    spk_log(SPOKE_LOG_WARNING, "%s: a peer speaks protocol %d, a %s socket talks to %d only",
            f->pipe.endpoint->url.text, peer, protocol->name, protocol->peer);
    spk_pipe_shut(&f->pipe, SPOKE_EPEER);
    return false;
bad:
    spk_pipe_shut(&f->pipe, SPOKE_EHANDSHAKE);
    return false;
}

/* One that was offered a side channel is to take it along with the greeting. */
static void
await_hello(struct spk_framing *f)
{
    if (f->unix_fd >= 0 && f->upgrade.offers_first)
        spk_op_readable(spk_framing_engine(f), &f->recv_op, f->unix_fd);
    else
        f->st->ops->recv(f->st, &f->recv_op, NULL, 0);
}

/* Our eight bytes go out at once, without waiting for the peer's.  A socket that has just connected
 * has room for them. */
static void
say_hello(struct spk_framing *f)
{
    uint16_t number = f->pipe.socket->protocol->number;
    uint8_t hello[SPK_HANDSHAKE_SIZE] = {0, 'S', 'P', 0, (uint8_t)(number >> 8), (uint8_t)number,
                                         0, 0};
    struct iovec iov = {hello, sizeof hello};
    int64_t n;

    if (f->unix_fd >= 0 && !f->upgrade.offers_first)
        n = spk_upgrade_say_hello(&f->upgrade, f->unix_fd, hello, sizeof hello);
    else
        n = f->st->ops->send_now(f->st, &iov, 1);
    if (n == SPOKE_EAGAIN || n == SPOKE_ENOBUFS)
        n = 0;
    if (n == sizeof hello)
        return;
    if (n < 0)
        spk_pipe_shut(&f->pipe, (int)n);
    else if (!spk_framing_put(f, hello + n, sizeof hello - (size_t)n))
        spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
    else /* the rest goes out as if it were a message */
        spk_framing_write_more(f);
}

static void
greet(struct spk_framing *f)
{
    say_hello(f);
    if (f->pipe.state == SPK_PIPE_STARTING)
        await_hello(f);
}

void
spk_framing_greeted(struct spk_framing *f)
{
    f->greeted = true;
    spk_timer_cancel(spk_framing_engine(f), &f->timer);
    spk_pipe_shook_hands(&f->pipe);
}

void
spk_framing_on_hello(struct spk_framing *f, int result)
{
    uint8_t *to = f->hello + f->hello_have;
    size_t room = SPK_HANDSHAKE_SIZE - f->hello_have, n;
    const struct spk_op *op = &f->recv_op;
    bool is_there = op->kind == SPK_OP_READABLE;

    if (f->beginning) {
        f->beginning = false;
        if (result == 0 && f->wire != NULL)
            f->wire->greet(f);
        else if (result == 0)
            greet(f);
        else
            spk_pipe_shut(&f->pipe, result);
        return;
    }
    if (is_there && result >= 0)
        result = (int)spk_upgrade_hear_hello(&f->upgrade, f->unix_fd, to, room);
    if (result == SPOKE_ENOBUFS || result == SPOKE_EAGAIN) {
        await_hello(f);
        return;
    }
    if (result <= 0) {
        spk_pipe_shut(&f->pipe, result == 0 ? SPOKE_ECONNRESET : result);
        return;
    }
    n = (size_t)result < room ? (size_t)result : room;
    if (!is_there)
        memcpy(to, op->data, n);
    f->hello_have = (uint8_t)(f->hello_have + n);
    if (!hello_is_fine(f))
        return;
    if (f->hello_have < SPK_HANDSHAKE_SIZE) {
        await_hello(f);
        return;
    }
    if ((size_t)result > n)
        spk_framing_keep_left(f, op->chunk, op->data + n, (size_t)result - n);
    spk_framing_greeted(f);
}

/* ---- into shared memory ---- */

static bool
may_upgrade(const struct spk_endpoint *ep)
{
    return ep->transport->shared_memory == SPK_SHM_ALWAYS ||
           (ep->transport->shared_memory == SPK_SHM_MAYBE && ep->options.upgrade);
}

static bool
must_upgrade(const struct spk_framing *f)
{
    return f->pipe.endpoint->transport->shared_memory == SPK_SHM_ALWAYS;
}

/* Not only the side channel, but the whole peer is gone. */
static bool
stream_has_ended(struct spk_framing *f)
{
    char byte;

    return f->unix_fd >= 0 && recv(f->unix_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void
not_upgraded(struct spk_framing *f, int reason)
{
    f->not_shm = reason;
    if (f->shm != NULL && !f->moved_in) {
        spk_shm_free(f->shm);
        f->shm = NULL;
    }
    if (!must_upgrade(f))
        return;
    if (reason == SPOKE_ENOTSUP && stream_has_ended(f))
        reason = SPOKE_ECONNRESET;
    else
        spk_log(SPOKE_LOG_WARNING,
                "%s: no shared memory with this peer (%s), its connection is closed; ipc:// does "
                "without",
                f->pipe.endpoint->url.text, spoke_strerror(reason));
    spk_pipe_shut(&f->pipe, reason);
}

/* Who reads the same memory of ours is of the same user; others get copies, and only where shared
 * memory was asked for. */
static bool
is_same_user(struct spk_framing *f)
{
    struct spk_credentials c;

    return f->st->ops->credentials(f->st, &c) == 0 && c.uid == (int)geteuid();
}

void
spk_framing_start_upgrade(struct spk_framing *f)
{
    f->may_move = false;
    spk_upgrade_start(&f->upgrade, f->same_user, f->pipe.endpoint->options.handshake_ns);
}

/* The handshake is done, and nobody has turned the peer away. */
static void
begin_upgrade(struct spk_framing *f)
{
    bool same;

    if (!may_upgrade(f->pipe.endpoint)) {
        f->not_shm = SPOKE_ECANCELED;
        return;
    }
    same = f->unix_fd >= 0 && is_same_user(f);
    if (f->upgrade.side < 0) {
        not_upgraded(f, SPOKE_ENOTSUP);
    } else if (!same && !must_upgrade(f)) {
        spk_upgrade_stop(&f->upgrade);
        not_upgraded(f, SPOKE_EACCES);
    } else {
        f->same_user = same;
        f->may_move = f->upgrade.offers_first;
        if (must_upgrade(f) || !f->upgrade.offers_first)
            spk_framing_start_upgrade(f);
        else
            spk_framing_consider_moving(f);
    }
}

/* Tell the peer, in the stream, behind what it has got already.  A peer that is gone is none of our
 * business here: what it has sent before is yet to be read, and its end comes behind that. */
static void
say_moved(struct spk_framing *f)
{
    uint8_t moved = SPK_TYPE_MOVED;
    struct iovec iov = {&moved, 1};
    bool idle = f->out == NULL && !spk_op_busy(&f->send_op);
    int64_t n = idle ? f->st->ops->send_now(f->st, &iov, 1) : SPOKE_EAGAIN;

    if (n == 1)
        return;
    if (n != SPOKE_EAGAIN && n != SPOKE_ENOBUFS)
        (void)shutdown(f->unix_fd, SHUT_RDWR); /* whatever it was: now it is the end */
    else if (!spk_framing_put(f, &moved, 1))
        spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
    else
        spk_framing_flush(&f->pipe);
}

/* The messages that come from now on go there. */
static void
move_out(struct spk_framing *f)
{
    f->moved_out = true;
    f->pipe.socket->stats.pipes_shared++;
    spk_event(f->pipe.socket, SPOKE_EVENT_MOVED, 0, &f->pipe, f->pipe.endpoint);
    SPK_STOP_POINT(MOVED);
    say_moved(f);
    SPK_STOP_POINT(MOVED_OUT);
    if (f->pipe.state != SPK_PIPE_ATTACHED)
        return;
    spk_shm_start_sending(f->shm);
    spk_pipe_set_writable(&f->pipe, true); /* the stream may have been full */
}

static void
on_upgraded(struct spk_upgrade *u, int result)
{
    struct spk_framing *f = SPK_OWNER(u, struct spk_framing, upgrade);

    if (f->closing) {
        spk_framing_maybe_closed(f);
        return;
    }
    if (f->pipe.state == SPK_PIPE_CLOSING)
        return;
    if (result != 0)
        not_upgraded(f, result);
    else if (must_upgrade(f))
        spk_pipe_attach(&f->pipe, 0);
    else
        move_out(f);
}

static void
await_end(struct spk_framing *f)
{
    f->recv_op.awaited = false;
    spk_op_readable(spk_framing_engine(f), &f->recv_op, f->unix_fd);
}

void
spk_framing_move_in(struct spk_framing *f, size_t rest)
{
    if (rest > 0 || !spk_shm_is_connected(f->shm)) {
        spk_pipe_shut(&f->pipe, SPOKE_EPROTO);
        return;
    }
    f->moved_in = true;
    SPK_STOP_POINT(MOVED_IN);
    await_end(f);
    spk_shm_start_receiving(f->shm);
}

/* ---- descriptors, through the socket of a pipe whose messages go elsewhere ---- */

/* A set, if one has come: 1; SPOKE_EAGAIN, SPOKE_EOF or another error, SPOKE_EPROTO: a byte without
 * one, or nobody lets them in, or there are too many. */
static int
receive_fds(struct spk_framing *f)
{
    struct spk_fds_in in;
    struct spk_fds *set;
    uint8_t byte;
    int64_t n;

    if (!f->lets_fds) { /* not even for a moment */
        n = recv(f->unix_fd, &byte, 1, MSG_DONTWAIT);
        return n > 0 ? SPOKE_EPROTO : n == 0 ? SPOKE_EOF : spk_error_from_errno(errno);
    }
    if ((n = spk_fds_recv(f->unix_fd, &byte, 1, &in)) <= 0)
        return n == 0 ? SPOKE_EOF : (int)n;
    if (in.count == 0)
        return SPOKE_EPROTO;
    if ((set = spk_fds_new(in.numbers, in.count)) == NULL) {
        spk_fds_in_close(&in);
        return SPOKE_ENOMEM;
    }
    set->next = NULL;
    *f->fds_end = set;
    f->fds_end = &set->next;
    f->fds_count += set->count;
    return f->fds_count <= SPK_FDS_WAITING ? 1 : SPOKE_EPROTO;
}

static int
framing_lets_fds(struct spk_pipe *p)
{
    struct spk_framing *f = spk_framing_of(p);

    if (f->shm == NULL)
        return SPOKE_ENOTSUP;
    if (!f->moved_in) /* the last byte that is none of them may be on its way */
        return SPOKE_EAGAIN;
    f->lets_fds = true;
    return 0;
}

static int
framing_send_fds(struct spk_pipe *p, const int *fds, int n)
{
    struct spk_framing *f = spk_framing_of(p);
    uint8_t byte = 0;
    const struct iovec iov = {&byte, 1};
    int64_t sent = f->out != NULL ? SPOKE_EAGAIN : spk_fds_send(f->unix_fd, &iov, 1, fds, n);

    return sent == 1 ? 0 : (int)sent;
}

static int
framing_take_fds(struct spk_pipe *p, struct spk_fds **out)
{
    struct spk_framing *f = spk_framing_of(p);
    struct spk_fds *set;
    int rc;

    *out = NULL;
    if (f->fds == NULL && (rc = receive_fds(f)) <= 0)
        return rc == SPOKE_EOF || rc == SPOKE_EAGAIN ? SPOKE_EPROTO : rc;
    set = f->fds;
    assert(set != NULL);
    if ((f->fds = set->next) == NULL)
        f->fds_end = &f->fds;
    f->fds_count -= set->count;
    *out = set;
    return 0;
}

/* Whatever bells a peer has passed, and to whom: the end of its stream is its end. */
void
spk_framing_on_end(struct spk_framing *f)
{
    int rc;

    while ((rc = receive_fds(f)) > 0) {
    }
    if (rc == SPOKE_EAGAIN)
        await_end(f);
    else if (rc == SPOKE_EPROTO || rc == SPOKE_ELIMIT || rc == SPOKE_ENOMEM)
        spk_pipe_shut(&f->pipe, rc);
    else
        spk_shm_peer_gone(f->shm);
}

/* Where there are no messages without shared memory, there is no pipe before it. */
static bool
framing_prepare(struct spk_pipe *p)
{
    struct spk_framing *f = spk_framing_of(p);

    if (!must_upgrade(f) || (f->shm != NULL && spk_shm_is_connected(f->shm)))
        return false;
    begin_upgrade(f);
    return true;
}

static void
framing_start(struct spk_pipe *p)
{
    struct spk_framing *f = spk_framing_of(p);

    if (must_upgrade(f))
        move_out(f);
    else
        begin_upgrade(f);
    spk_framing_resume(p, INT32_MAX);
}

/* ---- the end ---- */

static void
on_shm_closed(struct spk_pipe *p)
{
    struct spk_framing *f = spk_framing_of(p);

    f->shm_closed = true;
    spk_framing_maybe_closed(f);
}

void
spk_framing_maybe_closed(struct spk_framing *f)
{
    if (spk_op_busy(&f->recv_op) || spk_op_busy(&f->send_op) || spk_op_busy(&f->upgrade.op))
        return;
    if (f->shm != NULL && !f->shm_closed) {
        spk_shm_close(f->shm, on_shm_closed);
        return;
    }
    f->left_behind = spk_stream_unsent(f->st);
    if (f->wire != NULL)
        f->wire->part(f);
    else
        f->st->ops->close(f->st);
    f->st = NULL;
    spk_pipe_closed(&f->pipe);
}

static void
framing_close(struct spk_pipe *p)
{
    struct spk_framing *f = spk_framing_of(p);
    struct spk_engine *e = spk_framing_engine(f);

    if (p->added)
        spk_framing_deliver_left(f);
    if (p->reason != SPOKE_ECLOSED &&
        (!f->greeted || p->reason == SPOKE_EHANDSHAKE || p->reason == SPOKE_EPEER))
        spk_endpoint_count_bad_handshake(p->endpoint);
    f->closing = true;
    spk_timer_cancel(e, &f->timer);
    spk_list_remove(&f->flush.link);
    spk_op_cancel(e, &f->recv_op);
    spk_op_cancel(e, &f->send_op);
    if (f->unix_fd >= 0 && must_upgrade(f) && !f->moved_out)
        (void)shutdown(f->unix_fd, SHUT_RDWR); /* before the side channel: stream_has_ended() */
    spk_upgrade_stop(&f->upgrade);
    spk_framing_maybe_closed(f);
}

static void
framing_free(struct spk_pipe *p)
{
    struct spk_framing *f = spk_framing_of(p);

    spk_framing_drop_out(f);
    spk_framing_drop_in(f);
    if (f->shm != NULL)
        spk_shm_free(f->shm);
    spk_fds_close_queue(&f->fds);
    if (f->wire != NULL)
        f->wire->free(f);
    spk_free(f);
}

/* ---- the pipe ---- */

static int
framing_address(struct spk_pipe *p, bool local, char *text, size_t size)
{
    struct spk_framing *f = spk_framing_of(p);

    return f->st->ops->address(f->st, local, text, size);
}

static int
framing_credentials(struct spk_pipe *p, struct spk_credentials *out)
{
    struct spk_framing *f = spk_framing_of(p);

    return f->st->ops->credentials(f->st, out);
}

static int
framing_property(struct spk_pipe *p, const char *name, enum spoke_type type, void *value,
                 size_t *size)
{
    struct spk_framing *f = spk_framing_of(p);
    const char *text = f->wire != NULL ? f->wire->text(f, name) : NULL;

    if (text != NULL)
        return type != SPOKE_STRING ? SPOKE_ETYPE : spk_give_text(value, size, text);
    return f->st == NULL || f->st->ops->property == NULL
               ? SPOKE_EOPTION
               : f->st->ops->property(f->st, name, type, value, size);
}

static int
framing_shared_memory(struct spk_pipe *p)
{
    const struct spk_framing *f = spk_framing_of(p);

    if (p->endpoint->transport->shared_memory == SPK_SHM_NEVER)
        return SPOKE_EOPTION;
    return f->moved_out ? 0 : f->not_shm != 0 ? f->not_shm : SPOKE_EAGAIN;
}

static spoke_msg *
framing_loan(struct spk_pipe *p, size_t size)
{
    struct spk_framing *f = spk_framing_of(p);

    return f->moved_out ? spk_shm_loan(f->shm, size) : NULL;
}

static const struct spk_pipe_ops framing_ops = {
    .send = spk_framing_send,
    .send_many = spk_framing_send_many,
    .loan = framing_loan,
    .flush = spk_framing_flush,
    .prepare = framing_prepare,
    .start = framing_start,
    .resume = spk_framing_resume,
    .close = framing_close,
    .free = framing_free,
    .pending = spk_framing_pending,
    .give_back = spk_framing_give_back,
    .address = framing_address,
    .credentials = framing_credentials,
    .property = framing_property,
    .shared_memory = framing_shared_memory,
    .lets_fds = framing_lets_fds,
    .send_fds = framing_send_fds,
    .take_fds = framing_take_fds,
};

int
spk_framing_start(struct spk_endpoint *endpoint, struct spk_stream *st)
{
    return spk_framing_start_with(endpoint, st, NULL, NULL);
}

int
spk_framing_start_with(struct spk_endpoint *endpoint, struct spk_stream *st,
                       const struct spk_wire *wire, void *wire_state)
{
    struct spk_socket *s = endpoint->socket;
    struct spk_framing *f = spk_zalloc(sizeof *f);
    int rc = SPOKE_ENOMEM;

    if (f == NULL)
        goto close_stream;
    f->st = st;
    f->wire = wire;
    f->wire_state = wire_state;
    f->fds_end = &f->fds;
    f->type_byte = endpoint->transport->message_type_byte;
    f->unix_fd = may_upgrade(endpoint) ? spk_stream_unix_fd(st) : -1;
    spk_upgrade_init(&f->upgrade, &f->pipe, &f->shm, !endpoint->is_dialer, on_upgraded);
    if ((rc = spk_pipe_init(&f->pipe, endpoint, &framing_ops)) != 0)
        goto free_framing;
    spk_framing_out_init(f);
    spk_framing_in_init(f);
    if (endpoint->is_dialer)
        endpoint->pipe = &f->pipe;
    if (spk_timer_set(s->e, &f->timer,
                      spk_later(spk_engine_now(s->e), endpoint->options.handshake_ns)) != 0) {
        spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
        return 0;
    }
    f->beginning = st->ops->begin != NULL;
    assert(f->beginning || wire == NULL);
    if (f->beginning)
        st->ops->begin(st, &f->recv_op);
    else
        greet(f);
    return 0;
free_framing:
    spk_free(f);
close_stream:
    st->ops->close(st);
    return rc;
}
