/* SPDX-License-Identifier: MIT */
/* The calls on a stream: reading and writing with deadlines, the end, and the ways not to wait. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/stream/conn.h"

#define CHUNK_BYTES ((size_t)64 * 1024) /* that spoke_stream_read_chunk() reads at a time */

#define GATHER_BYTES ((size_t)4096) /* of small pieces that arrive, in one */

enum { READ, WRITE }; /* in fds */

/* ---- life ---- */

static void on_ready_task(struct spk_task *task);

static void
init_half(struct spk_half *h)
{
    spk_list_init(&h->waiters);
    spk_list_init(&h->selects);
    h->deadline = SPOKE_FOREVER;
}

struct spk_conn *
spk_conn_new(struct spk_engine *e, struct spk_link *all, const spoke_stream_config *config,
             size_t window)
{
    struct spk_conn *c = spk_zalloc(sizeof *c);

    if (c == NULL)
        return NULL;
    c->e = e;
    c->window = config->window > 0 ? config->window : window;
    c->linger_ns = config->linger_ns;
    c->busy_poll_ns = config->busy_poll_ns;
    c->input_end = &c->input;
    c->sets_end = &c->sets;
    c->fds[READ] = c->fds[WRITE] = -1;
    c->info.pid = c->info.uid = c->info.gid = -1;
    init_half(&c->read);
    init_half(&c->write);
    spk_list_init(&c->link);
    spk_list_append(all, &c->of_all);
    spk_list_init(&c->dial_waiters);
    spk_list_init(&c->close_waiters);
    spk_task_init(&c->ready_task, on_ready_task);
    return c;
}

int
spk_conn_give_handle(struct spk_conn *c)
{
    void *handle;
    int rc = spk_handle_new(SPK_HANDLE_STREAM, c, c->e, &handle);

    if (rc == 0)
        c->handle = handle;
    return rc;
}

/* The position of the byte that comes next. */
static uint64_t
arrived(const struct spk_conn *c)
{
    return c->info.bytes_read + (c->input_size - c->given_back);
}

static struct spk_fds *
take_set(struct spk_conn *c)
{
    struct spk_fds *set = c->sets;

    if ((c->sets = set->next) == NULL)
        c->sets_end = &c->sets;
    if (c->open && c->carrier->consumed_fds != NULL)
        c->carrier->consumed_fds(c, set->count);
    return set;
}

/* Those that came before a position. */
static void
drop_sets(struct spk_conn *c, uint64_t end)
{
    while (c->sets != NULL && c->sets->at < end)
        spk_fds_close(take_set(c));
}

static void
drop_input(struct spk_conn *c)
{
    size_t size = c->input_size - c->given_back;

    drop_sets(c, UINT64_MAX);

    while (c->input != NULL) {
        spoke_msg *m = c->input;

        c->input = m->next;
        spoke_msg_free(m);
    }
    c->input_end = &c->input;
    c->input_size = c->given_back = 0;
    if (size > 0 && c->open && c->carrier->consumed != NULL)
        c->carrier->consumed(c, size);
}

void
spk_conn_free_if_done(struct spk_conn *c)
{
    if (!c->closed || c->callers > 0 || c->holds > 0 || c->open || c->dialer != NULL ||
        c->undial != NULL)
        return;
    spk_task_cancel(&c->ready_task);
    spk_list_remove(&c->link);
    spk_list_remove(&c->of_all);
    drop_input(c);
    for (int i = 0; i < 2; i++) {
        if (c->fds[i] >= 0)
            close(c->fds[i]);
    }
    spk_free(c);
}

/* ---- who is to be told ---- */

static unsigned
ready(const struct spk_conn *c)
{
    unsigned what = 0;

    if (c->input != NULL || c->read.end != 0 || c->read.shut)
        what |= SPOKE_STREAM_READABLE;
    if (c->write.end != 0 || c->write.shut || (c->carrier != NULL && !c->write_full))
        what |= SPOKE_STREAM_WRITABLE;
    return what;
}

void
spk_set_ready_fd(int fd, bool *on, bool want)
{
    uint64_t value = 1;

    if (fd < 0 || *on == want)
        return;
    *on = want;
    /* Neither can fail on a non-blocking eventfd whose state we know. */
    if ((want ? write(fd, &value, sizeof value) : read(fd, &value, sizeof value)) < 0)
        *on = !want;
}

int
spk_new_ready_fd(struct spk_engine *e, int *fd)
{
    if (e->backend->is_virtual)
        return SPOKE_ENOTSUP;
    if (*fd < 0 && (*fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0)
        return spk_error_from_errno(errno);
    return 0;
}

static bool
is_watched(const struct spk_conn *c)
{
    return c->on_ready != NULL || c->fds[READ] >= 0 || !spk_list_empty(&c->read.selects);
}

/* Callbacks and descriptors follow what has changed, and so does who selects. */
static void
tell(struct spk_conn *c)
{
    unsigned what;

    if (c->taker != NULL) {
        spk_task_queue(c->e, c->taker);
        return;
    }
    if (!is_watched(c) && c->fds[WRITE] < 0 && spk_list_empty(&c->write.selects))
        return;
    if (is_watched(c) && c->input == NULL && c->read.end == 0 && !c->read.shut && c->open &&
        c->carrier->want_input != NULL)
        c->carrier->want_input(c, !spk_list_empty(&c->read.selects));
    spk_select_tell(&c->read.selects);
    spk_select_tell(&c->write.selects);
    what = ready(c);
    spk_set_ready_fd(c->fds[READ], &c->fds_on[READ], (what & SPOKE_STREAM_READABLE) != 0);
    spk_set_ready_fd(c->fds[WRITE], &c->fds_on[WRITE], (what & SPOKE_STREAM_WRITABLE) != 0);
    if (c->on_ready != NULL && (what & c->awaited) != 0)
        spk_task_queue_callback(c->e, &c->ready_task);
}

static void
on_ready_task(struct spk_task *task)
{
    struct spk_conn *c = SPK_OWNER(task, struct spk_conn, ready_task);
    unsigned what = ready(c) & c->awaited;
    spoke_stream_ready_f *fn = c->on_ready;
    spoke_stream *handle = c->handle;
    void *ctx = c->on_ready_ctx; /* another may be set once the lock is left */

    if (c->closed || fn == NULL || what == 0)
        return;
    c->awaited &= ~what;
    c->callers++;
    c->telling = true;
    spk_engine_call_begin(c->e, c);
    fn(handle, what, ctx);
    spk_engine_call_end(c->e);
    c->telling = false;
    c->callers--;
    spk_conn_free_if_done(c);
}

static void
wake(struct spk_conn *c, struct spk_half *h)
{
    spk_engine_wake_all(c->e, &h->waiters);
    tell(c);
}

/* ---- what carriers say ---- */

void
spk_conn_opened(struct spk_conn *c, const struct spk_carrier *carrier, void *state)
{
    c->open = true;
    c->carrier = carrier;
    c->state = state;
    /* What was closed while it was dialing. */
    if (c->read.shut)
        carrier->close_read(c);
    if (c->write.shut)
        (void)carrier->close_write(c);
    spk_engine_wake_all(c->e, &c->dial_waiters);
    spk_engine_wake_all(c->e, &c->read.waiters);
    wake(c, &c->write);
}

void
spk_conn_input_fds(struct spk_conn *c, struct spk_fds *set)
{
    set->next = NULL;
    set->at = arrived(c);
    *c->sets_end = set;
    c->sets_end = &set->next;
    if (!c->lets_fds || c->read.shut)
        drop_sets(c, UINT64_MAX);
}

/* Descriptors came with the next byte. */
static bool
begins_piece(const struct spk_conn *c)
{
    return c->sets != NULL && SPK_OWNER(c->sets_end, struct spk_fds, next)->at == arrived(c);
}

/* Small pieces become one: else a window of single bytes would take as many messages. */
static bool
joins_last(struct spk_conn *c, const spoke_msg *m)
{
    spoke_msg *last;

    if (c->input == NULL || m->chunk != NULL || begins_piece(c))
        return false;
    last = SPK_OWNER(c->input_end, spoke_msg, next);
    return last->chunk == NULL && last->size + m->size <= SPK_BODY_INLINE &&
           spoke_msg_append(last, m->body, m->size) == 0;
}

void
spk_conn_input(struct spk_conn *c, spoke_msg *m)
{
    size_t size = m->size;

    if (c->read.shut || size == 0) {
        spoke_msg_free(m);
        if (size > 0 && c->carrier->consumed != NULL)
            c->carrier->consumed(c, size);
        return;
    }
    if (joins_last(c, m)) {
        spoke_msg_free(m);
    } else {
        m->next = NULL;
        *c->input_end = m;
        c->input_end = &m->next;
    }
    c->input_size += size;
    wake(c, &c->read);
}

uint8_t *
spk_room_behind(const spoke_msg *m, size_t size)
{
    if (m == NULL || m->chunk == NULL || m->chunk->outside != NULL || !spoke_msg_is_unique(m) ||
        !spk_chunk_is_ours(m->chunk) ||
        size > (size_t)(m->chunk->data + m->chunk->size - (m->body + m->size)))
        return NULL;
    return m->body + m->size;
}

static bool
append_input(struct spk_conn *c, const uint8_t *data, size_t size)
{
    spoke_msg *m = c->input == NULL ? NULL : SPK_OWNER(c->input_end, spoke_msg, next);
    uint8_t *to = spk_room_behind(m, size);

    if (to == NULL || begins_piece(c))
        return false;
    memcpy(to, data, size);
    m->size += size;
    c->input_size += size;
    wake(c, &c->read);
    return true;
}

int
spk_conn_input_bytes(struct spk_conn *c, const uint8_t *data, size_t size)
{
    spoke_msg *m;
    int rc;

    if (append_input(c, data, size))
        return 0;
    if ((c->input == NULL && size <= SPK_BODY_INLINE) || size >= GATHER_BYTES) {
        rc = spoke_msg_from(&m, data, size);
    } else if ((rc = spoke_msg_new(&m, 0)) == 0) { /* others will follow */
        if ((rc = spk_msg_reserve(m, GATHER_BYTES)) != 0 ||
            (rc = spoke_msg_append(m, data, size)) != 0)
            spoke_msg_free(m);
    }
    if (rc == 0)
        spk_conn_input(c, m);
    return rc;
}

void
spk_conn_ends(struct spk_conn *c, int reason)
{
    if (c->read.end != 0)
        return;
    c->read.end = reason;
    wake(c, &c->read);
}

void
spk_conn_stopped(struct spk_conn *c, int reason)
{
    if (c->write.end != 0)
        return;
    c->write.end = reason;
    wake(c, &c->write);
}

void
spk_conn_writable(struct spk_conn *c)
{
    c->write_full = false;
    wake(c, &c->write);
}

void
spk_conn_gone(struct spk_conn *c, int reason)
{
    c->open = false;
    spk_conn_ends(c, reason);
    spk_conn_stopped(c, reason);
    spk_engine_wake_all(c->e, &c->dial_waiters);
    spk_engine_wake_all(c->e, &c->close_waiters);
    spk_conn_free_if_done(c);
}

/* ---- calls ---- */

int
spk_conn_enter(spoke_stream *handle, struct spk_conn **c)
{
    struct spk_engine *e;
    void *object;
    int rc = spk_handle_enter(handle, SPK_HANDLE_STREAM, &object, &e);

    if (rc == 0)
        *c = object;
    return rc;
}

static void
leave(struct spk_conn *c)
{
    struct spk_engine *e = c->e;

    spk_conn_free_if_done(c);
    spk_engine_leave(e);
}

static bool
has_expired(struct spk_conn *c, const struct spk_half *h)
{
    return h->deadline != SPOKE_FOREVER && h->deadline != SPOKE_NOW &&
           spk_engine_now(c->e) >= h->deadline;
}

/* What comes before anything that the carrier could say. */
static int
check(struct spk_conn *c, const struct spk_half *h)
{
    if (c->closed)
        return SPOKE_ECLOSED;
    if (h->shut)
        return h == &c->read ? SPOKE_ERDCLOSED : SPOKE_EWRCLOSED;
    return has_expired(c, h) ? SPOKE_ETIMEDOUT : 0;
}

/* 0: look again. */
static int
wait_for(struct spk_conn *c, struct spk_half *h)
{
    int rc;

    if (h->deadline == SPOKE_NOW)
        return SPOKE_EAGAIN;
    rc = spk_engine_wait(c->e, &h->waiters, h->deadline, c->busy_poll_ns);
    return rc == SPOKE_ETIMEDOUT ? 0 : rc;
}

/* Have one half to oneself, until end_io(). */
static int
begin_io(spoke_stream *handle, struct spk_conn **out, bool reads, struct spk_half **half)
{
    struct spk_conn *c;
    struct spk_half *h;
    int rc;

    if ((rc = spk_conn_enter(handle, &c)) != 0)
        return rc;
    *out = c;
    *half = h = reads ? &c->read : &c->write;
    c->callers++;
    while ((rc = check(c, h)) == 0 && h->busy && (rc = wait_for(c, h)) == 0) {
    }
    if (rc == 0) {
        h->busy = true;
        return 0;
    }
    if (rc == SPOKE_EAGAIN)
        c->awaited |= reads ? SPOKE_STREAM_READABLE : SPOKE_STREAM_WRITABLE;
    c->callers--;
    leave(c);
    return rc;
}

static void
end_io(struct spk_conn *c, struct spk_half *h, int rc)
{
    h->busy = false;
    spk_engine_wake_all(c->e, &h->waiters);
    if (rc == SPOKE_EAGAIN)
        c->awaited |= h == &c->read ? SPOKE_STREAM_READABLE : SPOKE_STREAM_WRITABLE;
    if (!c->closed)
        tell(c);
    c->callers--;
    leave(c);
}

/* ---- reading ---- */

static spoke_msg *
take_first(struct spk_conn *c)
{
    spoke_msg *m = c->input;

    if ((c->input = m->next) == NULL)
        c->input_end = &c->input;
    c->input_size -= m->size;
    return m;
}

static size_t
copy_input(struct spk_conn *c, uint8_t *to, size_t size)
{
    size_t done = 0;

    while (done < size && c->input != NULL) {
        spoke_msg *m = c->input;
        size_t n = m->size < size - done ? m->size : size - done;

        memcpy(to + done, m->body, n);
        done += n;
        if (n == m->size) {
            spoke_msg_free(take_first(c));
        } else {
            m->body += n;
            m->size -= n;
            c->input_size -= n;
        }
    }
    return done;
}

static void
count_read(struct spk_conn *c, size_t size, bool from_input)
{
    size_t again = from_input && c->given_back < size ? c->given_back : from_input ? size : 0;

    c->info.bytes_read += size - again;
    c->given_back -= again;
    if (from_input && size > again && c->open && c->carrier->consumed != NULL)
        c->carrier->consumed(c, size - again);
}

/* The user's calls do not know of descriptors. */
static void
has_read(struct spk_conn *c, size_t size, bool from_input)
{
    count_read(c, size, from_input);
    if (c->sets != NULL && c->taker == NULL)
        drop_sets(c, c->info.bytes_read);
}

/* Without waiting: bytes, or an error. */
static int64_t
try_read(struct spk_conn *c, void *buffer, size_t size)
{
    int64_t n;

    if ((n = check(c, &c->read)) != 0)
        return n;
    if (c->input != NULL) {
        n = (int64_t)copy_input(c, buffer, size);
        has_read(c, (size_t)n, true);
        return n;
    }
    if (c->read.end != 0)
        return c->read.end;
    if (!c->open || c->carrier->read == NULL)
        return SPOKE_EAGAIN;
    if ((n = c->carrier->read(c, buffer, size)) > 0)
        has_read(c, (size_t)n, false);
    else if (n != SPOKE_EAGAIN)
        spk_conn_ends(c, (int)n);
    return n;
}

/* There was nothing to read. */
static int
await_input(struct spk_conn *c)
{
    bool waits = c->read.deadline != SPOKE_NOW;

    if (waits && c->open && c->carrier->want_input != NULL)
        c->carrier->want_input(c, true);
    if (c->input != NULL || c->read.end != 0) /* it was brought at once */
        return 0;
    return wait_for(c, &c->read);
}

static int
read_some(struct spk_conn *c, uint8_t *buffer, size_t size, size_t *done)
{
    int64_t n;
    int rc;

    while ((n = try_read(c, buffer, size)) == SPOKE_EAGAIN) {
        if ((rc = await_input(c)) != 0)
            return rc;
    }
    if (n < 0)
        return (int)n;
    *done += (size_t)n;
    return 0;
}

int
spoke_stream_readv(spoke_stream *s, const struct iovec *buffers, int count, size_t *done)
{
    struct spk_conn *c;
    struct spk_half *h;
    int rc, i;

    if (done == NULL)
        return SPOKE_EINVAL;
    *done = 0;
    if (buffers == NULL || count < 0)
        return SPOKE_EINVAL;
    for (i = 0; i < count && buffers[i].iov_len == 0; i++) {
    }
    if (i == count) /* nothing to do, whatever the stream can do */
        return 0;
    if ((rc = begin_io(s, &c, true, &h)) != 0)
        return rc;
    if ((rc = read_some(c, buffers[i].iov_base, buffers[i].iov_len, done)) == 0) {
        /* What else is there. */
        for (size_t got = *done; got == buffers[i].iov_len && ++i < count;) {
            int64_t n = buffers[i].iov_len > 0
                            ? try_read(c, buffers[i].iov_base, buffers[i].iov_len)
                            : 0;

            if (n < 0)
                break;
            got = (size_t)n;
            *done += got;
        }
    }
    end_io(c, h, rc);
    return rc;
}

int
spoke_stream_read(spoke_stream *s, void *buffer, size_t size, size_t *done)
{
    const struct iovec whole = {.iov_base = buffer, .iov_len = size};

    return spoke_stream_readv(s, &whole, buffer != NULL || size == 0 ? 1 : -1, done);
}

int
spoke_stream_read_full(spoke_stream *s, void *buffer, size_t size, size_t *done)
{
    struct spk_conn *c;
    struct spk_half *h;
    int rc;

    if (done == NULL)
        return SPOKE_EINVAL;
    *done = 0;
    if (size == 0)
        return 0;
    if (buffer == NULL)
        return SPOKE_EINVAL;
    if ((rc = begin_io(s, &c, true, &h)) != 0)
        return rc;
    while (rc == 0 && *done < size)
        rc = read_some(c, (uint8_t *)buffer + *done, size - *done, done);
    end_io(c, h, rc);
    return rc;
}

/* The first piece that has arrived, in its own memory. */
static int
take_chunk(struct spk_conn *c, spoke_msg **out)
{
    int64_t n;

    if (c->input == NULL) { /* only what a plain read says is the end, or brings */
        spoke_msg *m;
        int rc = spoke_msg_new(&m, CHUNK_BYTES);

        if (rc != 0)
            return rc;
        if ((n = try_read(c, m->body, m->size)) <= 0) {
            spoke_msg_free(m);
            return (int)n;
        }
        m->size = (size_t)n;
        *out = m;
        return 0;
    }
    if ((n = check(c, &c->read)) != 0)
        return (int)n;
    *out = take_first(c);
    (*out)->expires = (*out)->returns = false;
    has_read(c, (*out)->size, true);
    return 0;
}

int
spoke_stream_read_chunk(spoke_stream *s, spoke_msg **out)
{
    struct spk_conn *c;
    struct spk_half *h;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if ((rc = begin_io(s, &c, true, &h)) != 0)
        return rc;
    while ((rc = take_chunk(c, out)) == SPOKE_EAGAIN && (rc = await_input(c)) == 0) {
    }
    end_io(c, h, rc);
    return rc;
}

int
spoke_stream_unread(spoke_stream *s, spoke_msg *m)
{
    struct spk_conn *c;
    spoke_msg *mine;
    int rc;

    if (m == NULL)
        return SPOKE_EINVAL;
    if (m->carries)
        return SPOKE_ENOTSUP;
    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    if (c->read.shut) {
        rc = SPOKE_ERDCLOSED;
    } else if ((rc = spk_msg_clone(&mine, m)) ==
               0) { /* others may hold a reference, and see its body move */
        spoke_msg_free(m);
        spk_msg_clear_header(mine);
        c->given_back += mine->size;
        if (mine->size == 0) {
            spoke_msg_free(mine);
        } else {
            if ((mine->next = c->input) == NULL)
                c->input_end = &mine->next;
            c->input = mine;
            c->input_size += mine->size;
            wake(c, &c->read);
        }
    }
    leave(c);
    return rc;
}

/* ---- writing ---- */

size_t
spk_piece(const struct iovec *buffers, int count, uint64_t most)
{
    uint64_t size = 0;

    if (most > SPK_PIECE)
        most = SPK_PIECE;
    for (int i = 0; i < count && size < most; i++)
        size += buffers[i].iov_len;
    return (size_t)(size < most ? size : most);
}

int
spk_own_message(spoke_msg **mine, const spoke_msg *m)
{
    int rc = spk_msg_clone(mine, m);

    if (rc != 0)
        return rc;
    spk_msg_clear_header(*mine);
    (*mine)->expires = (*mine)->returns = false;
    return 0;
}

void
spk_gather(uint8_t *to, size_t size, const struct iovec *buffers)
{
    for (size_t done = 0; done < size; buffers++) {
        size_t n = buffers->iov_len < size - done ? buffers->iov_len : size - done;

        memcpy(to + done, buffers->iov_base, n);
        done += n;
    }
}

/* What `n` says of the carrier: bytes, or an error. */
static int64_t
has_written(struct spk_conn *c, int64_t n)
{
    if (n >= 0) {
        c->info.bytes_written += (uint64_t)n;
    } else if (n == SPOKE_EAGAIN) {
        c->write_full = true;
    } else if (n != SPOKE_ENOTSUP && n != SPOKE_ENOMEM) {
        spk_conn_stopped(c, (int)n);
        return c->write.end;
    }
    return n;
}

/* Can anything be written now?  0, or why not. */
static int
check_write(struct spk_conn *c)
{
    int rc = check(c, &c->write);

    if (rc == 0 && (rc = c->write.end) == 0 && (!c->open || c->write_full))
        rc = SPOKE_EAGAIN;
    return rc;
}

/* Without waiting: bytes, or an error. */
static int64_t
try_write(struct spk_conn *c, const struct iovec *buffers, int count)
{
    int rc = check_write(c);

    return rc != 0 ? rc : has_written(c, c->carrier->write(c, buffers, count));
}

/* What is left of some buffers. */
struct rest {
    const struct iovec *buffers;
    int count, at;
    size_t offset;
};

#define BATCH 16

static int
rest_of(struct rest *r, struct iovec *out)
{
    int n = 0;
    size_t offset = r->offset;

    for (int i = r->at; i < r->count && n < BATCH; i++, offset = 0) {
        if (r->buffers[i].iov_len > offset)
            out[n++] = (struct iovec){(uint8_t *)r->buffers[i].iov_base + offset,
                                      r->buffers[i].iov_len - offset};
    }
    return n;
}

static void
advance(struct rest *r, size_t size)
{
    while (r->at < r->count && size >= r->buffers[r->at].iov_len - r->offset) {
        size -= r->buffers[r->at++].iov_len - r->offset;
        r->offset = 0;
    }
    r->offset += size;
}

static int
write_all(struct spk_conn *c, struct rest *r, size_t *done)
{
    struct iovec batch[BATCH];
    int n, rc;

    while ((n = rest_of(r, batch)) > 0) {
        int64_t got = try_write(c, batch, n);

        if (got >= 0) {
            *done += (size_t)got;
            advance(r, (size_t)got);
        } else if (got != SPOKE_EAGAIN) {
            return (int)got;
        } else if ((rc = wait_for(c, &c->write)) != 0) {
            return rc == SPOKE_EAGAIN && *done > 0 ? 0 : rc;
        }
    }
    return 0;
}

int
spoke_stream_writev(spoke_stream *s, const struct iovec *buffers, int count, size_t *done)
{
    struct rest rest = {.buffers = buffers, .count = count};
    struct iovec first[BATCH];
    struct spk_conn *c;
    struct spk_half *h;
    int rc;

    if (done == NULL)
        return SPOKE_EINVAL;
    *done = 0;
    if (buffers == NULL || count < 0)
        return SPOKE_EINVAL;
    if (rest_of(&rest, first) == 0)
        return 0;
    if ((rc = begin_io(s, &c, false, &h)) != 0)
        return rc;
    rc = write_all(c, &rest, done);
    end_io(c, h, rc);
    return rc;
}

int
spoke_stream_write(spoke_stream *s, const void *data, size_t size, size_t *done)
{
    const struct iovec whole = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};

    return spoke_stream_writev(s, &whole, data != NULL || size == 0 ? 1 : -1, done);
}

int
spoke_stream_loan(spoke_stream *s, size_t size, spoke_msg **out)
{
    struct spk_conn *c;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    if (c->open && c->carrier->loan != NULL)
        *out = c->carrier->loan(c, size);
    leave(c);
    return *out != NULL ? 0 : spoke_msg_new(out, size);
}

/* As it is, if the carrier takes it whole now. */
static int
try_write_message(struct spk_conn *c, spoke_msg *m)
{
    size_t size = m->size;
    int rc;

    if (c->carrier == NULL || c->carrier->write_message == NULL)
        return SPOKE_ENOTSUP;
    if ((rc = check_write(c)) != 0)
        return rc;
    if ((rc = c->carrier->write_message(c, m)) != 0)
        return (int)has_written(c, rc);
    has_written(c, (int64_t)size);
    return 0;
}

int
spoke_stream_write_chunk(spoke_stream *s, spoke_msg *m, size_t *done)
{
    struct spk_conn *c;
    struct spk_half *h;
    struct iovec whole;
    int rc;

    if (done == NULL)
        return SPOKE_EINVAL;
    *done = 0;
    if (m == NULL)
        return SPOKE_EINVAL;
    if (m->carries) /* a stream has no way for what is attached */
        return SPOKE_ENOTSUP;
    if ((rc = begin_io(s, &c, false, &h)) != 0)
        return rc;
    whole = (struct iovec){.iov_base = m->body, .iov_len = m->size};
    while ((rc = try_write_message(c, m)) == SPOKE_EAGAIN && (rc = wait_for(c, h)) == 0) {
    }
    if (rc == 0) {
        *done = whole.iov_len;
    } else if (rc == SPOKE_ENOTSUP) {
        struct rest rest = {.buffers = &whole, .count = 1};

        rc = whole.iov_len == 0 ? 0 : write_all(c, &rest, done);
        if (rc == 0 && *done < whole.iov_len)
            rc = SPOKE_EAGAIN;
        if (rc == 0)
            spoke_msg_free(m);
    }
    end_io(c, h, rc);
    return rc;
}

/* ---- deadlines ---- */

static int
set_deadlines(spoke_stream *s, bool reads, bool writes, spoke_ns deadline)
{
    struct spk_conn *c;
    int rc;

    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    if (reads) {
        c->read.deadline = deadline;
        spk_engine_wake_all(c->e, &c->read.waiters);
        spk_select_wake(&c->read.selects);
    }
    if (writes) {
        c->write.deadline = deadline;
        spk_engine_wake_all(c->e, &c->write.waiters);
        spk_select_wake(&c->write.selects);
    }
    leave(c);
    return 0;
}

int
spoke_stream_set_deadline(spoke_stream *s, spoke_ns deadline)
{
    return set_deadlines(s, true, true, deadline);
}

int
spoke_stream_set_read_deadline(spoke_stream *s, spoke_ns deadline)
{
    return set_deadlines(s, true, false, deadline);
}

int
spoke_stream_set_write_deadline(spoke_stream *s, spoke_ns deadline)
{
    return set_deadlines(s, false, true, deadline);
}

/* ---- the end ---- */

static void
shut_read(struct spk_conn *c)
{
    if (c->read.shut)
        return;
    c->read.shut = true;
    drop_input(c);
    if (c->open && c->read.end == 0)
        c->carrier->close_read(c);
    wake(c, &c->read);
}

static int
shut_write(struct spk_conn *c)
{
    int rc = 0;

    if (c->write.shut)
        return 0;
    c->write.shut = true;
    if (c->open && c->write.end == 0)
        rc = c->carrier->close_write(c);
    wake(c, &c->write);
    return rc;
}

int
spoke_stream_close_read(spoke_stream *s)
{
    struct spk_conn *c;
    int rc;

    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    shut_read(c);
    leave(c);
    return 0;
}

int
spoke_stream_close_write(spoke_stream *s)
{
    struct spk_conn *c;
    int rc;

    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    rc = shut_write(c);
    leave(c);
    return rc;
}

static void
stop_dialing(struct spk_conn *c, uint64_t code)
{
    void (*undial)(struct spk_conn * conn, uint64_t reason) = c->undial;

    spk_conn_stop_dialing(c);
    c->undial = NULL;
    if (undial != NULL)
        undial(c, code);
}

/* Its handle is closed: who selects on it is to find that out. */
static void
wake_selects(struct spk_conn *c)
{
    spk_select_wake(&c->read.selects);
    spk_select_wake(&c->write.selects);
}

spoke_ns
spk_conn_let_go(struct spk_conn *c)
{
    spoke_ns deadline = spk_later(spk_engine_now(c->e), c->linger_ns);

    if (c->handle != NULL)
        spk_handle_free(c->handle);
    wake_selects(c);
    c->closed = true;
    c->on_ready = NULL;
    if (c->join != NULL)
        spk_join_closed(c->join, c);
    spk_list_remove(&c->link);
    stop_dialing(c, 0);
    if (c->open) {
        c->callers++;
        (void)shut_write(c);
        shut_read(c);
        c->carrier->finish(c, deadline);
        c->callers--;
    }
    spk_engine_wake_all(c->e, &c->read.waiters);
    spk_engine_wake_all(c->e, &c->write.waiters);
    spk_engine_wake_all(c->e, &c->dial_waiters);
    return deadline;
}

int
spoke_stream_close(spoke_stream *s)
{
    struct spk_conn *c;
    int rc;

    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc == SPOKE_ECLOSED && s != NULL ? 0 : rc;
    c->callers++;
    spoke_ns deadline = spk_conn_let_go(c);
    while (c->open && c->carrier->unsent != NULL && c->carrier->unsent(c) > 0 &&
           (rc = spk_engine_wait(c->e, &c->close_waiters, deadline, c->busy_poll_ns)) == 0) {
    }
    rc = c->lost || rc == SPOKE_ETIMEDOUT ? SPOKE_ETIMEDOUT : 0;
    spk_engine_await_call(c->e, c);
    c->callers--;
    leave(c);
    return rc;
}

static void
abort_conn(struct spk_conn *c, uint64_t code)
{
    drop_input(c);
    if (c->open && (c->read.end == 0 || c->write.end == 0))
        c->carrier->abort(c, code);
    stop_dialing(c, code);
    spk_conn_ends(c, SPOKE_EABORTED);
    spk_conn_stopped(c, SPOKE_EABORTED);
}

int
spoke_stream_abort(spoke_stream *s, uint64_t code)
{
    struct spk_conn *c;
    int rc;

    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    abort_conn(c, code);
    leave(c);
    return 0;
}

/* ---- for what takes a stream over ---- */

bool
spk_conn_await_calls(struct spk_conn *const *conns, int count)
{
    bool same = true;

    for (int i = 0; i < count; i++)
        conns[i]->holds++;
    for (int i = 0; i < count; i++) {
        const void *handle = conns[i]->handle;

        spk_engine_await_call(conns[i]->e, conns[i]);
        same = same && !conns[i]->closed && conns[i]->handle == handle;
    }
    for (int i = 0; i < count; i++) {
        conns[i]->holds--;
        spk_conn_free_if_done(conns[i]);
    }
    return same;
}

int
spk_conn_check_take(struct spk_conn *c)
{
    if (!spk_conn_await_calls(&c, 1))
        return SPOKE_ECLOSED;
    if (c->callers > (c->telling ? 1u : 0u) || c->read.busy || c->write.busy || c->join != NULL)
        return SPOKE_EBUSY;
    if (c->read.shut || c->write.shut)
        return SPOKE_ESTATE;
    if (c->read.end != 0 && c->input == NULL)
        return c->read.end == SPOKE_EOF ? SPOKE_EPEERCLOSED : c->read.end;
    if (c->write.end != 0)
        return c->write.end;
    return c->open ? 0 : SPOKE_ESTATE;
}

void
spk_conn_take(struct spk_conn *c, struct spk_task *taker)
{
    if (c->handle != NULL)
        spk_handle_free(c->handle);
    wake_selects(c);
    c->handle = NULL;
    c->on_ready = NULL;
    c->read.deadline = c->write.deadline = SPOKE_FOREVER;
    c->taker = taker;
    tell(c);
}

void
spk_conn_want_input(struct spk_conn *c, bool awaited)
{
    if (c->open && c->input == NULL && c->read.end == 0 && c->carrier->want_input != NULL)
        c->carrier->want_input(c, awaited);
}

spoke_msg *
spk_conn_take_input(struct spk_conn *c, bool awaited)
{
    spoke_msg *m;

    if (c->input == NULL) {
        spk_conn_want_input(c, awaited);
        return NULL;
    }
    m = take_first(c);
    count_read(c, m->size, true);
    return m;
}

spoke_msg *
spk_conn_read_now(struct spk_conn *c)
{
    spoke_msg *m = NULL;

    if (c->input != NULL || !c->open || c->carrier->read == NULL || take_chunk(c, &m) != 0)
        return NULL;
    return m;
}

int64_t
spk_conn_try_write(struct spk_conn *c, const struct iovec *buffers, int count)
{
    return try_write(c, buffers, count);
}

bool
spk_conn_passes_fds(struct spk_conn *c)
{
    if (!c->lets_fds && c->open && c->carrier->passes_fds != NULL && !c->e->backend->is_virtual)
        c->lets_fds = c->carrier->passes_fds(c);
    return c->lets_fds;
}

int64_t
spk_conn_try_write_fds(struct spk_conn *c, const struct iovec *buffers, int count, const int *fds,
                       int n)
{
    int64_t rc = check_write(c);

    if (rc != 0)
        return rc;
    if (!spk_conn_passes_fds(c))
        return SPOKE_ENOTSUP;
    rc = c->carrier->write_fds(c, buffers, count, fds, n);
    return rc == SPOKE_ELIMIT || rc == SPOKE_EINVAL ? rc : has_written(c, rc);
}

int
spk_conn_count_fds(const struct spk_conn *c)
{
    int count = 0;

    for (const struct spk_fds *set = c->sets; set != NULL && set->at < c->info.bytes_read;
         set = set->next)
        count++;
    return count;
}

struct spk_fds *
spk_conn_take_fds(struct spk_conn *c)
{
    return c->sets != NULL && c->sets->at < c->info.bytes_read ? take_set(c) : NULL;
}

void
spk_conn_shut_write(struct spk_conn *c)
{
    (void)shut_write(c);
}

void
spk_conn_shut_read(struct spk_conn *c)
{
    shut_read(c);
}

void
spk_conn_give_up(struct spk_conn *c)
{
    c->taker = NULL;
    (void)spk_conn_let_go(c);
    spk_conn_free_if_done(c);
}

bool
spk_conn_is_idle(const struct spk_conn *c)
{
    return c->callers == 0 && c->join == NULL && c->on_ready == NULL && c->fds[READ] < 0 &&
           c->fds[WRITE] < 0;
}

spoke_stream *
spk_conn_renew(struct spk_conn *c)
{
    c->handle = spk_handle_renew(c->handle);
    wake_selects(c);
    return c->handle;
}

void
spk_conn_cancel(struct spk_conn *c, uint64_t code)
{
    abort_conn(c, code);
    (void)spk_conn_let_go(c);
    spk_conn_free_if_done(c);
}

/* ---- what is known ---- */

int
spoke_stream_get_info(spoke_stream *s, struct spoke_stream_info *out)
{
    struct spk_conn *c;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    *out = c->info;
    out->unread = c->input_size;
    if (c->open && c->carrier->unsent != NULL)
        out->unsent = c->carrier->unsent(c);
    out->read_end = c->read.shut ? SPOKE_ERDCLOSED : c->read.end;
    out->write_end = c->write.shut ? SPOKE_EWRCLOSED : c->write.end;
    leave(c);
    return 0;
}

int
spoke_stream_address(spoke_stream *s, enum spoke_stream_end end, char *url, size_t size)
{
    char text[SPK_URL_MAX + 1];
    struct spk_conn *c;
    int rc;

    if (url == NULL || size == 0 || (end != SPOKE_LOCAL && end != SPOKE_REMOTE))
        return SPOKE_EINVAL;
    *url = '\0';
    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    if (!c->open)
        rc = c->read.end != 0 ? c->read.end : SPOKE_EAGAIN;
    else if ((rc = c->carrier->address(c, end == SPOKE_LOCAL, text, sizeof text)) == 0)
        rc = snprintf(url, size, "%s", text) < (int)size ? 0 : SPOKE_ERANGE;
    leave(c);
    return rc;
}

int
spoke_stream_get(spoke_stream *s, const char *name, enum spoke_type type, void *value, size_t *size)
{
    struct spk_conn *c;
    int rc;

    if (name == NULL || size == NULL || (value == NULL && *size > 0))
        return SPOKE_EINVAL;
    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    if (!c->open)
        rc = c->read.end != 0 ? c->read.end : SPOKE_EAGAIN;
    else
        rc = spk_conn_property(c, name, type, value, size);
    leave(c);
    return rc;
}

/* ---- without waiting ---- */

int
spoke_stream_fd(spoke_stream *s, unsigned what)
{
    struct spk_conn *c;
    int half = what == SPOKE_STREAM_READABLE ? READ : WRITE, rc;

    if (what != SPOKE_STREAM_READABLE && what != SPOKE_STREAM_WRITABLE)
        return SPOKE_EINVAL;
    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    if ((rc = spk_new_ready_fd(c->e, &c->fds[half])) == 0) {
        tell(c);
        rc = c->fds[half];
    }
    leave(c);
    return rc;
}

void
spk_conn_watch(struct spk_conn *c, spoke_stream_ready_f *fn, void *ctx)
{
    c->on_ready = fn;
    c->on_ready_ctx = ctx;
    c->awaited = SPOKE_STREAM_READABLE | SPOKE_STREAM_WRITABLE;
    tell(c);
}

int
spoke_stream_on_ready(spoke_stream *s, spoke_stream_ready_f *fn, void *ctx)
{
    struct spk_conn *c;
    int rc;

    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    struct spk_engine *e = c->e;
    spk_conn_watch(c, fn, ctx);
    (void)spk_conn_await_calls(&c, 1);
    spk_engine_leave(e);
    return 0;
}

/* ---- select ---- */

/* Would a call in this half say something at once, whatever the carrier could do? */
static bool
half_can(struct spk_conn *c, const struct spk_half *h, spoke_ns *until, bool could)
{
    if (check(c, h) != 0)
        return true;
    if (h->deadline != SPOKE_NOW && h->deadline < *until)
        *until = h->deadline;
    return could && !h->busy;
}

static bool
can_read(void *object, spoke_ns *until)
{
    struct spk_conn *c = object;

    return half_can(c, &c->read, until, c->input != NULL || c->read.end != 0);
}

static bool
can_write(void *object, spoke_ns *until)
{
    struct spk_conn *c = object;

    return half_can(c, &c->write, until, c->write.end != 0 || (c->open && !c->write_full));
}

static struct spk_link *
reads_of(void *object)
{
    return &((struct spk_conn *)object)->read.selects;
}

static struct spk_link *
writes_of(void *object)
{
    return &((struct spk_conn *)object)->write.selects;
}

/* What the kernel has, as a read would find it.  Without memory, who waits gets to know of it. */
static void
look_for_input(void *object)
{
    struct spk_conn *c = object;
    spoke_msg *m;
    int64_t n;

    if (c->input != NULL || c->read.busy || !c->open || c->carrier->read == NULL ||
        spoke_msg_new(&m, CHUNK_BYTES) != 0)
        return;
    if ((n = c->carrier->read(c, m->body, m->size)) > 0) {
        m->size = (size_t)n;
        spk_conn_input(c, m);
        return;
    }
    spoke_msg_free(m);
    if (n != SPOKE_EAGAIN)
        spk_conn_ends(c, (int)n);
}

static void
arm_read(void *object)
{
    spk_conn_want_input(object, true);
}

const struct spk_selectable spk_select_stream_read = {
    .ready = can_read,
    .selects = reads_of,
    .look = look_for_input,
    .arm = arm_read,
};
const struct spk_selectable spk_select_stream_write = {
    .ready = can_write,
    .selects = writes_of,
};
