/* SPDX-License-Identifier: MIT */
/* Streams over transports that carry bytes.  What can be read or written now is, by plain calls
 * between the user's memory and the kernel; only who finds nothing has a receive started, into
 * memory of the engine's. */
#include <unistd.h>

#include "runtime/stream/conn.h"

#define DROP_MOST ((size_t)4 * 1024 * 1024) /* of what a closed stream has not read */

struct bytes {
    struct spk_pipe pipe;
    struct spk_stream *st;
    struct spk_conn *conn; /* NULL: it is gone */
    struct spk_op recv_op, send_op;
    struct spk_timer timer; /* until it has begun, and for what is unsent in the end */
    bool beginning, closing;
    bool finishing;         /* nobody uses it any more; what was taken is handed over still */
    struct spk_fds_in *fds; /* where receives put descriptors; NULL: nobody wants any */
    int unix_fd;            /* if not NULL */
};

static struct bytes *
bytes_of(struct spk_pipe *p)
{
    return SPK_OWNER(p, struct bytes, pipe);
}

static struct bytes *
carrier_of(const struct spk_conn *c)
{
    return c->state;
}

/* ---- the stream's side ---- */

/* What came with a receive.  False: they are lost. */
static bool
take_fds(struct bytes *b)
{
    struct spk_fds *set;

    if (b->fds == NULL || b->fds->count == 0)
        return true;
    set = b->conn != NULL && !b->closing ? spk_fds_new(b->fds->numbers, b->fds->count) : NULL;
    if (set == NULL) {
        spk_fds_in_close(b->fds);
        return false;
    }
    b->fds->count = 0;
    spk_conn_input_fds(b->conn, set);
    return true;
}

static int64_t
bytes_read(struct spk_conn *c, void *buffer, size_t size)
{
    struct bytes *b = carrier_of(c);
    int64_t n;

    if (spk_op_busy(&b->recv_op)) /* the next bytes are its */
        return SPOKE_EAGAIN;
    if (b->fds == NULL)
        n = b->st->ops->recv_now(b->st, buffer, size);
    else if ((n = spk_fds_recv(b->unix_fd, buffer, size, b->fds)) > 0 && !take_fds(b))
        return SPOKE_ENOMEM;
    return n == 0 ? SPOKE_EOF : n == SPOKE_ENOBUFS ? SPOKE_EAGAIN : n;
}

static void
bytes_want_input(struct spk_conn *c, bool awaited)
{
    struct bytes *b = carrier_of(c);

    b->recv_op.awaited = awaited;
    if (spk_op_busy(&b->recv_op))
        return;
    b->st->ops->recv(b->st, &b->recv_op, NULL, 0);
    if (b->fds != NULL)
        spk_op_recv_fds(&b->recv_op, b->fds);
}

/* The receive that would have lost them is over. */
static void
begin_fds(struct spk_conn *c)
{
    c->fds_due = false;
    spk_conn_writable(c);
}

/* It is a stream, or will be none. */
static void
on_begun(struct bytes *b, int result)
{
    b->beginning = false;
    spk_timer_cancel(b->st->e, &b->timer);
    if (b->closing) {
        spk_pipe_closed(&b->pipe);
    } else if (b->pipe.state == SPK_PIPE_STARTING && result == 0) {
        spk_pipe_shook_hands(&b->pipe);
    } else if (b->pipe.state == SPK_PIPE_STARTING) {
        if (result != SPOKE_ECLOSED) /* it never was to be a peer */
            spk_endpoint_count_bad_handshake(b->pipe.endpoint);
        spk_pipe_shut(&b->pipe, result);
    }
}

static void
on_time(struct spk_timer *timer)
{
    struct bytes *b = SPK_OWNER(timer, struct bytes, timer);

    if (b->conn != NULL)
        b->conn->lost |= b->finishing;
    spk_pipe_shut(&b->pipe, b->finishing ? SPOKE_ECLOSED : SPOKE_ETIMEDOUT);
}

/* Have the stream hand over what it has taken. */
static void
await_unsent(struct bytes *b)
{
    if (spk_stream_unsent(b->st) > 0 && !spk_op_busy(&b->send_op))
        b->st->ops->writable(b->st, &b->send_op);
}

static void
on_received(struct spk_op *op, int result)
{
    struct bytes *b = SPK_OWNER(op, struct bytes, recv_op);

    if (b->beginning) {
        on_begun(b, result);
        return;
    }
    bool complete = take_fds(b);
    spoke_msg *m;

    if (b->closing) {
        if (!spk_op_busy(&b->send_op))
            spk_pipe_closed(&b->pipe);
        return;
    }
    if (b->conn != NULL && b->conn->fds_due)
        begin_fds(b->conn);
    if (b->conn == NULL || result == SPOKE_ECANCELED)
        return;
    if (!complete) {
        spk_conn_ends(b->conn, SPOKE_ENOMEM);
    } else if (result == 0) {
        spk_conn_ends(b->conn, SPOKE_EOF);
    } else if (result == SPOKE_ENOBUFS || result == SPOKE_EAGAIN) {
        bytes_want_input(b->conn, op->awaited);
    } else if (result < 0) {
        spk_conn_ends(b->conn, result);
    } else {
        spk_chunk_ref(op->chunk);
        if (spk_msg_slice(&m, op->chunk, op->data, (size_t)result) == 0) {
            spk_conn_input(b->conn, m);
            if (b->conn->read.shut) /* what comes is thrown away */
                bytes_want_input(b->conn, false);
        } else { /* they are lost, and so is the stream */
            spk_chunk_unref(op->chunk);
            spk_conn_ends(b->conn, SPOKE_ENOMEM);
        }
    }
}

static int64_t
cannot_write(struct bytes *b, int64_t reason)
{
    if (reason == SPOKE_EAGAIN || reason == SPOKE_ENOBUFS) {
        if (!spk_op_busy(&b->send_op))
            b->st->ops->writable(b->st, &b->send_op);
        return SPOKE_EAGAIN;
    }
    return reason == SPOKE_ECONNRESET ? SPOKE_EPEERCLOSED : reason;
}

static int64_t
bytes_write(struct spk_conn *c, const struct iovec *buffers, int count)
{
    struct bytes *b = carrier_of(c);
    int64_t n = b->st->ops->send_now(b->st, (struct iovec *)(uintptr_t)buffers, count);

    if (n <= 0)
        return cannot_write(b, n);
    if (b->st->ops->unsent != NULL)
        await_unsent(b);
    return n;
}

static size_t
bytes_unsent(const struct spk_conn *c)
{
    return spk_stream_unsent(carrier_of(c)->st);
}

static bool
bytes_passes_fds(struct spk_conn *c)
{
    struct bytes *b = carrier_of(c);

    if ((b->unix_fd = spk_stream_unix_fd(b->st)) < 0 ||
        (b->fds = spk_zalloc(sizeof *b->fds)) == NULL)
        return false;
    if (!spk_op_busy(&b->recv_op))
        return true;
    spk_op_recv_fds(&b->recv_op, b->fds);
    c->fds_due = b->recv_op.state == SPK_OP_IN_FLIGHT;
    if (c->fds_due)
        spk_op_cancel(b->st->e, &b->recv_op);
    return true;
}

/* The kernel has copies of them then. */
static int64_t
bytes_write_fds(struct spk_conn *c, const struct iovec *buffers, int count, const int *fds, int n)
{
    struct bytes *b = carrier_of(c);
    int64_t sent = spk_fds_send(b->unix_fd, buffers, count, fds, n);

    for (int i = 0; sent > 0 && i < n; i++)
        close(fds[i]);
    return sent > 0 ? sent : cannot_write(b, sent);
}

static void
on_writable(struct spk_op *op, int result)
{
    struct bytes *b = SPK_OWNER(op, struct bytes, send_op);

    if (b->closing) {
        if (!spk_op_busy(&b->recv_op))
            spk_pipe_closed(&b->pipe);
        return;
    }
    if (b->finishing && (result < 0 || spk_stream_unsent(b->st) == 0)) {
        if (b->conn != NULL)
            b->conn->lost |= result < 0;
        spk_pipe_shut(&b->pipe, SPOKE_ECLOSED);
        return;
    }
    /* The next write will say what it was. */
    if (b->conn != NULL)
        spk_conn_writable(b->conn);
}

static int
bytes_close_write(struct spk_conn *c)
{
    struct bytes *b = carrier_of(c);
    int rc = b->st->ops->shutdown(b->st, false);

    await_unsent(b);
    return rc == SPOKE_ECONNRESET ? 0 : rc; /* it is as closed as can be */
}

/* What is left unread would keep a writer waiting that could be told, and make the kernel reset
 * the connection when it is closed, so that what was written is lost. */
static void
drop_unread(struct bytes *b)
{
    uint8_t scrap[8192];

    if (b->recv_op.state == SPK_OP_IN_FLIGHT) /* it has taken what there was */
        return;
    for (size_t left = DROP_MOST; left > 0; left -= sizeof scrap) {
        if (b->st->ops->recv_now(b->st, scrap, sizeof scrap) <= 0)
            return;
    }
}

static void
bytes_close_read(struct spk_conn *c)
{
    struct bytes *b = carrier_of(c);

    /* A unix socket tells its peer.  Others do not: what comes has to go somewhere. */
    if (b->pipe.endpoint->transport->shared_memory == SPK_SHM_NEVER) {
        bytes_want_input(c, false);
    } else {
        (void)b->st->ops->shutdown(b->st, true);
        drop_unread(b);
    }
}

static void
bytes_abort(struct spk_conn *c, uint64_t code)
{
    struct bytes *b = carrier_of(c);

    (void)code;
    b->st->ops->reset(b->st);
    spk_pipe_shut(&carrier_of(c)->pipe, SPOKE_EABORTED);
}

static void
bytes_finish(struct spk_conn *c, spoke_ns deadline)
{
    struct bytes *b = carrier_of(c);

    drop_unread(b);
    if (spk_stream_unsent(b->st) > 0 && spk_timer_set(b->st->e, &b->timer, deadline) == 0) {
        b->finishing = true;
        await_unsent(b);
        return;
    }
    spk_pipe_shut(&b->pipe, SPOKE_ECLOSED); /* what was taken is the kernel's */
}

static int
bytes_address(struct spk_conn *c, bool local, char *text, size_t size)
{
    struct bytes *b = carrier_of(c);

    return b->st->ops->address(b->st, local, text, size);
}

static int
property(struct spk_pipe *p, const char *name, enum spoke_type type, void *value, size_t *size)
{
    struct spk_stream *st = bytes_of(p)->st;

    return st->ops->property == NULL ? SPOKE_EOPTION
                                     : st->ops->property(st, name, type, value, size);
}

static int
bytes_property(struct spk_conn *c, const char *name, enum spoke_type type, void *value,
               size_t *size)
{
    return property(&carrier_of(c)->pipe, name, type, value, size);
}

static const struct spk_carrier bytes_carrier = {
    .read = bytes_read,
    .want_input = bytes_want_input,
    .write = bytes_write,
    .close_write = bytes_close_write,
    .close_read = bytes_close_read,
    .abort = bytes_abort,
    .finish = bytes_finish,
    .address = bytes_address,
    .unsent = bytes_unsent,
    .property = bytes_property,
    .passes_fds = bytes_passes_fds,
    .write_fds = bytes_write_fds,
};

void
spk_bytes_open(struct spk_conn *c, struct spk_pipe *p)
{
    bytes_of(p)->conn = c;
    spk_conn_opened(c, &bytes_carrier, bytes_of(p));
}

void
spk_bytes_close(struct spk_pipe *p)
{
    bytes_of(p)->conn = NULL;
}

/* ---- the pipe's side ---- */

static int
send_nothing(struct spk_pipe *p, spoke_msg *m)
{
    (void)p, (void)m;
    return SPOKE_ENOTSUP; /* nobody sends messages here */
}

static void
start(struct spk_pipe *p)
{
    (void)p;
}

static void
resume(struct spk_pipe *p, int most)
{
    (void)p, (void)most;
}

static void
close_pipe(struct spk_pipe *p)
{
    struct bytes *b = bytes_of(p);

    b->closing = true;
    spk_timer_cancel(b->st->e, &b->timer);
    spk_op_cancel(b->st->e, &b->recv_op);
    spk_op_cancel(b->st->e, &b->send_op);
    if (!spk_op_busy(&b->recv_op) && !spk_op_busy(&b->send_op))
        spk_pipe_closed(p);
}

static void
free_pipe(struct spk_pipe *p)
{
    struct bytes *b = bytes_of(p);

    b->st->ops->close(b->st);
    spk_free(b->fds);
    spk_free(b);
}

static uint64_t
pending(struct spk_pipe *p, uint64_t *bytes)
{
    (void)p;
    *bytes = 0;
    return 0;
}

static int
address(struct spk_pipe *p, bool local, char *text, size_t size)
{
    return bytes_of(p)->st->ops->address(bytes_of(p)->st, local, text, size);
}

static int
credentials(struct spk_pipe *p, struct spk_credentials *out)
{
    return bytes_of(p)->st->ops->credentials(bytes_of(p)->st, out);
}

const struct spk_pipe_ops spk_bytes_pipe_ops = {
    .send = send_nothing,
    .start = start,
    .resume = resume,
    .close = close_pipe,
    .free = free_pipe,
    .pending = pending,
    .address = address,
    .credentials = credentials,
    .property = property,
};

int
spk_bytes_start(struct spk_endpoint *ep, struct spk_stream *st)
{
    struct bytes *b = spk_zalloc(sizeof *b);
    int rc = SPOKE_ENOMEM;

    if (b == NULL)
        goto close_stream;
    b->st = st;
    spk_op_init(&b->recv_op, on_received);
    spk_op_init(&b->send_op, on_writable);
    if ((rc = spk_pipe_init(&b->pipe, ep, &spk_bytes_pipe_ops)) != 0)
        goto free_bytes;
    if (ep->is_dialer)
        ep->pipe = &b->pipe;
    spk_timer_init(&b->timer, on_time);
    if (st->ops->begin == NULL) {
        spk_pipe_shook_hands(&b->pipe);
        return 0;
    }
    b->beginning = true;
    if (spk_timer_set(st->e, &b->timer,
                      spk_later(spk_engine_now(st->e), ep->options.handshake_ns)) != 0)
        spk_pipe_shut(&b->pipe, SPOKE_ENOMEM);
    else
        st->ops->begin(st, &b->recv_op);
    return 0;
free_bytes:
    spk_free(b);
close_stream:
    st->ops->close(st);
    return rc;
}
