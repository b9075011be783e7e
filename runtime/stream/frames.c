/* SPDX-License-Identifier: MIT */
/* Streams over pipes, which carry messages (inproc, shm).  The bytes go in messages as they are
 * written; where these begin and end is forgotten on arrival.  What TCP has in its headers goes in
 * messages of its own, told apart by the first byte, the message's header:
 *
 *   DATA     the bytes                  RESET    u64 code: both halves have ended
 *   CREDIT   u64: so many bytes may be sent, all in all
 *   FIN      no more bytes follow       STOP     the sender of this reads no more
 *   DATA_FDS u8 n, the bytes: n descriptors come with the first one, beside the pipe (shm), or in
 *            the message's memory (inproc)
 *
 * Credit is why messages never wait in a pipe for a reader: whatever comes has room, so that FIN,
 * STOP and RESET are not stuck behind bytes that nobody reads.  docs/wire.md */
#include <unistd.h>

#include "runtime/stream/conn.h"

enum kind { DATA, CREDIT, FIN, STOP, RESET, DATA_FDS, KINDS };

#define LINGER_LOOK SPOKE_MS

struct frames {
    struct spk_conn *conn;
    struct spk_pipe *pipe;
    uint64_t sent, may_send;     /* bytes, ever */
    uint64_t window;             /* the peer's: the most that it has let us send at once */
    uint64_t received, consumed; /* … by the reader */
    uint64_t granted;            /* … that the peer may send */
    uint64_t code;               /* of RESET */
    unsigned due;                /* a bit for each kind that is still to be sent */
    bool peer_ended, finishing;
    bool fds_full;          /* there was no room for descriptors: the timer looks again */
    struct spk_timer timer; /* while what was taken is handed over, or memory was short */
    spoke_ns deadline;
};

static struct frames *
frames_of(const struct spk_conn *c)
{
    return c->state;
}

static struct spk_pipe *
pipe_of(const struct spk_conn *c)
{
    return frames_of(c)->pipe;
}

/* ---- out ---- */

static spoke_msg *
frames_loan(struct spk_conn *c, size_t size)
{
    struct spk_pipe *p = pipe_of(c);

    return p->ops->loan != NULL ? p->ops->loan(p, size) : NULL;
}

static int
new_frame(struct spk_conn *c, spoke_msg **m, enum kind kind, size_t size)
{
    uint8_t byte = (uint8_t)kind;
    int rc;

    if ((*m = frames_loan(c, size)) == NULL && (rc = spoke_msg_new(m, size)) != 0)
        return rc;
    if ((rc = spoke_msg_header_append(*m, &byte, 1)) != 0)
        spoke_msg_free(*m);
    return rc;
}

/* There was no memory: nobody else would come back to what is due. */
static void
send_due_later(struct spk_conn *c)
{
    struct frames *f = frames_of(c);

    if (spk_timer_is_set(&f->timer) ||
        spk_timer_set(c->e, &f->timer, spk_engine_now(c->e) + LINGER_LOOK) == 0)
        return;
    f->pipe->want_writable = true; /* nor for the timer */
    spk_task_queue(c->e, &f->pipe->writable_task);
}

/* One that is due.  False: not now. */
static bool
send_word(struct spk_conn *c, enum kind kind)
{
    struct frames *f = frames_of(c);
    bool has_number = kind == CREDIT || kind == RESET;
    spoke_msg *m;

    if (!spk_pipe_can_send(pipe_of(c))) {
        pipe_of(c)->want_writable = true;
        return false;
    }
    if (new_frame(c, &m, kind, has_number ? sizeof(uint64_t) : 0) != 0) {
        send_due_later(c);
        return false;
    }
    if (has_number)
        spk_put64(m->body, kind == CREDIT ? f->granted : f->code);
    if (spk_pipe_send(pipe_of(c), m) != 0) {
        spoke_msg_free(m);
        send_due_later(c);
        return false;
    }
    f->due &= ~(1u << kind);
    return true;
}

static void
send_due(struct spk_conn *c)
{
    struct frames *f = frames_of(c);

    for (int kind = CREDIT; kind < DATA_FDS; kind++) {
        if ((f->due & 1u << kind) != 0 && !send_word(c, (enum kind)kind))
            return;
    }
}

static void
say(struct spk_conn *c, enum kind kind)
{
    frames_of(c)->due |= 1u << kind;
    send_due(c);
}

/* May anything be sent now?  So many bytes; 0: spk_conn_writable() will be called. */
static uint64_t
room(struct spk_conn *c)
{
    struct frames *f = frames_of(c);

    if (spk_pipe_can_send(pipe_of(c)))
        return f->may_send - f->sent;
    pipe_of(c)->want_writable = true;
    return 0;
}

static int
send_data(struct spk_conn *c, spoke_msg *m, size_t size)
{
    int rc = spk_pipe_send(pipe_of(c), m);

    frames_of(c)->sent += rc == 0 ? size : 0;
    return rc;
}

static int64_t
frames_write(struct spk_conn *c, const struct iovec *buffers, int count)
{
    size_t size = spk_piece(buffers, count, room(c));
    spoke_msg *m;
    int rc;

    if (size == 0)
        return SPOKE_EAGAIN;
    if ((rc = new_frame(c, &m, DATA, size)) != 0)
        return rc;
    spk_gather(m->body, size, buffers);
    if ((rc = send_data(c, m, size)) == 0)
        return (int64_t)size;
    spoke_msg_free(m);
    return rc;
}

/* As it is, if there will be room for it: the peer gives new credit at half of its window. */
static int
frames_write_message(struct spk_conn *c, spoke_msg *m)
{
    struct frames *f = frames_of(c);
    uint8_t byte = DATA;
    spoke_msg *mine;
    int rc;

    if (m->size == 0 || m->size > room(c))
        return m->size == 0 || m->size > f->window / 2 ? SPOKE_ENOTSUP : SPOKE_EAGAIN;
    if ((rc = spk_own_message(&mine, m)) != 0)
        return rc;
    if ((rc = spoke_msg_header_append(mine, &byte, 1)) != 0 ||
        (rc = send_data(c, mine, m->size)) != 0) {
        spoke_msg_free(mine);
        return rc;
    }
    spoke_msg_free(m);
    return 0;
}

/* ---- descriptors ---- */

/* What a message through inproc is, then: whoever frees it closes them, unless they were taken. */
struct parcel {
    struct spk_fds *set;
    uint8_t body[]; /* of the frame */
};

/* Pipes without a way for descriptors pass the messages themselves. */
static bool
stays_in_process(const struct spk_conn *c)
{
    return pipe_of(c)->ops->send_fds == NULL;
}

static void
on_parcel_gone(void *data, size_t size, void *ctx)
{
    struct parcel *parcel = data;

    (void)size, (void)ctx;
    spk_fds_close(parcel->set);
    spk_pool_free_other(parcel);
}

/* One without a set yet. */
static int
new_parcel(spoke_msg **m, size_t size)
{
    struct parcel *parcel = spk_pool_alloc_other(sizeof *parcel + size);
    uint8_t byte = DATA_FDS;
    struct spk_chunk *chunk;

    if (parcel == NULL)
        return SPOKE_ENOMEM;
    parcel->set = NULL;
    if ((chunk = spk_chunk_wrap(parcel, sizeof *parcel + size, on_parcel_gone, NULL)) == NULL) {
        spk_pool_free_other(parcel);
        return SPOKE_ENOMEM;
    }
    if (spk_msg_slice(m, chunk, parcel->body, size) != 0) {
        spk_chunk_unref(chunk);
        return SPOKE_ENOMEM;
    }
    if (spoke_msg_header_append(*m, &byte, 1) == 0)
        return 0;
    spoke_msg_free(*m);
    return SPOKE_ENOMEM;
}

static struct parcel *
parcel_of(const spoke_msg *m)
{
    return (struct parcel *)(void *)m->chunk->data;
}

/* Hand them to the peer, or to the message. */
static int
pass_fds(struct spk_conn *c, spoke_msg *m, const int *fds, int n)
{
    int rc;

    if (stays_in_process(c))
        return (parcel_of(m)->set = spk_fds_new(fds, n)) != NULL ? 0 : SPOKE_ENOMEM;
    if ((rc = pipe_of(c)->ops->send_fds(pipe_of(c), fds, n)) == 0) {
        for (int i = 0; i < n; i++)
            close(fds[i]);
    } else if (rc == SPOKE_EAGAIN) { /* nobody tells when it has room again */
        frames_of(c)->fds_full = true;
        send_due_later(c);
    }
    return rc;
}

static int64_t
frames_write_fds(struct spk_conn *c, const struct iovec *buffers, int count, const int *fds, int n)
{
    size_t size = spk_piece(buffers, count, room(c));
    spoke_msg *m;
    int rc;

    if (size == 0)
        return SPOKE_EAGAIN;
    rc = stays_in_process(c) ? new_parcel(&m, 1 + size) : new_frame(c, &m, DATA_FDS, 1 + size);
    if (rc != 0)
        return rc;
    m->body[0] = (uint8_t)n;
    spk_gather(m->body + 1, size, buffers);
    if ((rc = pass_fds(c, m, fds, n)) != 0) {
        spoke_msg_free(m);
        return rc;
    }
    if ((rc = send_data(c, m, size)) != 0) { /* they have gone already */
        spoke_msg_free(m);
        spk_pipe_shut(pipe_of(c), rc);
    }
    return (int64_t)size;
}

static void
look_for_fds(struct spk_conn *c)
{
    struct spk_pipe *p = pipe_of(c);

    if (p->ops->lets_fds(p) == SPOKE_EAGAIN) {
        send_due_later(c);
        return;
    }
    c->fds_due = false;
    spk_conn_writable(c);
}

static bool
frames_passes_fds(struct spk_conn *c)
{
    struct spk_pipe *p = pipe_of(c);
    int rc = stays_in_process(c) ? 0 : p->ops->lets_fds(p);

    c->fds_due = rc == SPOKE_EAGAIN;
    if (c->fds_due)
        send_due_later(c);
    return rc == 0 || rc == SPOKE_EAGAIN;
}

static int
take_fds(struct spk_conn *c, spoke_msg *m, struct spk_fds **set)
{
    int rc;

    if (stays_in_process(c)) {
        if (m->chunk == NULL || !spk_chunk_wraps(m->chunk, on_parcel_gone))
            return SPOKE_EPROTO;
        *set = parcel_of(m)->set;
        parcel_of(m)->set = NULL;
        return *set != NULL ? 0 : SPOKE_EPROTO;
    }
    if ((rc = pipe_of(c)->ops->take_fds(pipe_of(c), set)) == 0 && (*set)->count != m->body[0]) {
        spk_fds_close(*set);
        rc = SPOKE_EPROTO;
    }
    return rc;
}

static int on_data(struct spk_conn *c, spoke_msg *m);

static int
on_data_fds(struct spk_conn *c, spoke_msg *m)
{
    struct spk_fds *set = NULL;
    int rc = m->size > 1 ? take_fds(c, m, &set) : SPOKE_EPROTO;

    if (rc != 0) {
        spoke_msg_free(m);
        return rc;
    }
    m->body++;
    m->size--;
    spk_conn_input_fds(c, set);
    return on_data(c, m);
}

void
spk_frames_writable(struct spk_conn *c)
{
    send_due(c);
    if (c->write_full && room(c) > 0)
        spk_conn_writable(c);
}

/* ---- in ---- */

static void
frames_consumed(struct spk_conn *c, size_t size)
{
    struct frames *f = frames_of(c);

    f->consumed += size;
    if (c->read.shut || f->peer_ended || f->granted - f->consumed > c->window / 2)
        return;
    f->granted = f->consumed + c->window;
    say(c, CREDIT);
}

static int
on_data(struct spk_conn *c, spoke_msg *m)
{
    struct frames *f = frames_of(c);

    if (f->peer_ended || m->size == 0 || m->size > f->granted - f->received) {
        spoke_msg_free(m);
        return SPOKE_EPROTO;
    }
    f->received += m->size;
    spk_conn_input(c, m);
    return 0;
}

static int
on_credit(struct spk_conn *c, uint64_t limit)
{
    struct frames *f = frames_of(c);

    if (limit < f->may_send)
        return SPOKE_EPROTO;
    f->may_send = limit;
    if (f->window < limit - f->sent)
        f->window = limit - f->sent;
    if (room(c) > 0)
        spk_conn_writable(c);
    return 0;
}

static int
on_reset(struct spk_conn *c, uint64_t code)
{
    c->info.abort_code = code;
    frames_of(c)->peer_ended = true;
    spk_conn_ends(c, SPOKE_EABORTED);
    spk_conn_stopped(c, SPOKE_EABORTED);
    return 0;
}

static int
on_word(struct spk_conn *c, unsigned kind, const spoke_msg *m)
{
    bool has_number = kind == CREDIT || kind == RESET;

    if (m->size != (has_number ? sizeof(uint64_t) : 0))
        return SPOKE_EPROTO;
    switch (kind) {
    case CREDIT: return on_credit(c, spk_get64(m->body));
    case RESET: return on_reset(c, spk_get64(m->body));
    case FIN:
        frames_of(c)->peer_ended = true;
        spk_conn_ends(c, SPOKE_EOF);
        return 0;
    case STOP: spk_conn_stopped(c, SPOKE_EPEERCLOSED); return 0;
    default: return SPOKE_EPROTO;
    }
}

int
spk_frames_received(struct spk_conn *c, spoke_msg *m)
{
    int rc = spk_msg_pull(m, 1);
    unsigned kind;

    if (rc != 0 || m->header_size != 1) {
        spoke_msg_free(m);
        return rc != 0 ? rc : SPOKE_EPROTO;
    }
    kind = m->header[0];
    spk_msg_clear_header(m);
    if (kind == DATA)
        return on_data(c, m);
    if (kind == DATA_FDS)
        return on_data_fds(c, m);
    rc = on_word(c, kind, m);
    spoke_msg_free(m);
    return rc;
}

/* ---- the end ---- */

static int
frames_close_write(struct spk_conn *c)
{
    say(c, FIN);
    return 0;
}

static void
frames_close_read(struct spk_conn *c)
{
    say(c, STOP);
}

static void
frames_abort(struct spk_conn *c, uint64_t code)
{
    frames_of(c)->code = code;
    say(c, RESET);
}

static size_t
frames_unsent(const struct spk_conn *c)
{
    uint64_t bytes = 0;

    (void)pipe_of(c)->ops->pending(pipe_of(c), &bytes);
    return (size_t)bytes + ((frames_of(c)->due & ~(1u << CREDIT)) != 0);
}

/* Everything is the peer's, or the time is up. */
static void
advance(struct spk_conn *c)
{
    struct frames *f = frames_of(c);
    bool is_late = spk_engine_now(c->e) >= f->deadline;

    c->lost |= is_late && frames_unsent(c) > 0;
    if (is_late || frames_unsent(c) == 0 ||
        spk_timer_set(c->e, &f->timer, spk_engine_now(c->e) + LINGER_LOOK) != 0)
        spk_pipe_shut(pipe_of(c), SPOKE_ECLOSED);
}

static void
on_time(struct spk_timer *timer)
{
    struct spk_conn *c = SPK_OWNER(timer, struct frames, timer)->conn;

    send_due(c);
    if (frames_of(c)->fds_full) {
        frames_of(c)->fds_full = false;
        spk_conn_writable(c);
    }
    if (c->fds_due)
        look_for_fds(c);
    if (frames_of(c)->finishing)
        advance(c);
}

static void
frames_finish(struct spk_conn *c, spoke_ns deadline)
{
    frames_of(c)->finishing = true;
    frames_of(c)->deadline = deadline;
    advance(c);
}

static int
frames_address(struct spk_conn *c, bool local, char *text, size_t size)
{
    return pipe_of(c)->ops->address(pipe_of(c), local, text, size);
}

static const struct spk_carrier frames_carrier = {
    .consumed = frames_consumed,
    .loan = frames_loan,
    .write = frames_write,
    .write_message = frames_write_message,
    .close_write = frames_close_write,
    .close_read = frames_close_read,
    .abort = frames_abort,
    .finish = frames_finish,
    .unsent = frames_unsent,
    .address = frames_address,
    .passes_fds = frames_passes_fds,
    .write_fds = frames_write_fds,
};

int
spk_frames_open(struct spk_conn *c, struct spk_pipe *p)
{
    struct frames *f = spk_zalloc(sizeof *f);

    if (f == NULL)
        return SPOKE_ENOMEM;
    f->conn = c;
    f->pipe = p;
    spk_timer_init(&f->timer, on_time);
    f->granted = c->window;
    f->due = 1u << CREDIT;
    p->want_writable = true;
    spk_conn_opened(c, &frames_carrier, f);
    return 0;
}

int
spk_frames_close(struct spk_conn *c, int reason)
{
    struct frames *f = frames_of(c);
    bool peer_ended = f->peer_ended;

    spk_timer_cancel(c->e, &f->timer);
    c->state = NULL;
    spk_free(f);
    if (reason != SPOKE_EOF)
        return reason;
    return peer_ended ? SPOKE_EPEERCLOSED : SPOKE_ECONNRESET;
}
