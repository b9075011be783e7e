/* SPDX-License-Identifier: MIT */
/* Life and the calls of multiplexers. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/stream/mux/mux.h"

#define WINDOW         ((size_t)256 * 1024)
#define WINDOW_MOST    ((size_t)16 * 1024 * 1024)
#define SESSION_BUDGET ((size_t)65 * 1024 * 1024) /* for all streams of both ends */
#define SEND_QUEUE     ((size_t)5 * 65548)        /* the Go program's five messages */
#define BACKLOG        10
#define MAX_STREAMS    256
#define HEARTBEAT      (5 * SPOKE_SECOND)
#define PEER_TIMEOUT   (15 * SPOKE_SECOND)
#define HANDSHAKE      (5 * SPOKE_SECOND)

/* ---- configuration ---- */

void
spoke_mux_config_init(spoke_mux_config *config)
{
    *config = (spoke_mux_config){
        .heartbeat_ns = HEARTBEAT, .peer_timeout_ns = PEER_TIMEOUT, .handshake_ns = HANDSHAKE};
}

static bool
is_in_range(const spoke_mux_config *c)
{
    return c->wire >= SPOKE_MUX_NATIVE && c->wire <= SPOKE_MUX_DETECT && c->backlog >= 0 &&
           c->max_streams >= 0 && c->heartbeat_ns >= 0 && c->peer_timeout_ns >= 0 &&
           c->handshake_ns > 0 &&
           (c->peer_timeout_ns == 0 || c->heartbeat_ns <= c->peer_timeout_ns / 3);
}

static size_t
or_default(size_t given, size_t usual)
{
    return given > 0 ? given : usual;
}

/* What was given, with the defaults where it says 0. */
static int
read_config(spoke_mux_config *out, const spoke_mux_config *config)
{
    size_t share, usual;

    if (config == NULL)
        spoke_mux_config_init(out);
    else
        *out = *config;
    if (!is_in_range(out))
        return SPOKE_ERANGE;
    out->backlog = (int)or_default((size_t)out->backlog, BACKLOG);
    out->max_streams = (int)or_default((size_t)out->max_streams, MAX_STREAMS);
    out->session_budget = or_default(out->session_budget, SESSION_BUDGET);
    out->send_queue_bytes = or_default(out->send_queue_bytes, SEND_QUEUE);
    out->max_window = or_default(out->max_window, WINDOW_MOST);
    if (out->session_budget / 2 / SPK_MUX_LEAST_WINDOW < (size_t)out->max_streams)
        return SPOKE_ERANGE;
    if (out->window == SPOKE_MUX_NO_INPUT) {
        out->window = 0;
        return 0;
    }
    usual = out->wire == SPOKE_MUX_COMPATIBLE ? SPK_MUX_COMPATIBLE_WINDOW : WINDOW;
    out->window = or_default(out->window, usual);
    /* As many of ours can have a small one besides: see kept_back(). */
    share = out->session_budget / (size_t)out->max_streams - SPK_MUX_LEAST_WINDOW;
    if (out->window > share)
        out->window = share;
    return 0;
}

/* ---- the end ---- */

void
spk_mux_free_if_done(struct spk_mux *m)
{
    if (!m->closed || !m->ended || m->callers > 0)
        return;
    spk_task_cancel(&m->task);
    spk_task_cancel(&m->callback);
    spk_timer_cancel(m->e, &m->timer);
    spk_list_remove(&m->layer.link);
    if (m->fd >= 0)
        close(m->fd);
    spk_free(m);
}

static bool
streams_wait(const struct spk_mux *m)
{
    return !spk_list_empty(&m->pending);
}

/* Callbacks and the descriptor follow what has changed. */
void
spk_mux_tell_ready(struct spk_mux *m)
{
    if (streams_wait(m))
        spk_engine_wake_one(m->e, &m->accept_waiters);
    spk_select_tell(&m->selects);
    spk_set_ready_fd(m->fd, &m->fd_on, streams_wait(m) || m->ended);
    if (!m->closed && ((m->on_ready != NULL && m->ready_awaited && (streams_wait(m) || m->ended)) ||
                       !spk_list_empty(&m->undecided) || (m->ended && m->on_closed != NULL)))
        spk_task_queue_callback(m->e, &m->callback);
}

static void
end_streams(struct spk_mux *m, int reason)
{
    while (!spk_list_empty(&m->streams)) {
        struct spk_mux_stream *st = SPK_OWNER(m->streams.next, struct spk_mux_stream, of_all);

        if (st->conn != NULL && st->out_size > 0)
            st->conn->lost = true;
        m->cut |= (m->closed || (m->user != NULL && m->leaves)) && !spk_mux_stream_is_finished(st);
        spk_mux_drop_out(st);
        spk_mux_unregister(st);
        st->due = 0;
        spk_mux_detach(st, reason);
        spk_mux_stream_free_if_done(st);
    }
}

void
spk_mux_end(struct spk_mux *m, int code, enum spoke_mux_origin origin, uint64_t wire_code,
            const char *text)
{
    struct spk_conn *carrier = m->carrier;

    if (m->ended)
        return;
    m->ended = true;
    m->end.code = code;
    m->end.origin = origin;
    m->end.wire_code = wire_code;
    if (m->end.text[0] == '\0' || origin != SPOKE_MUX_PEER || code == SPOKE_EPROTO)
        snprintf(m->end.text, sizeof m->end.text, "%s", text);
    spk_task_cancel(&m->task);
    spk_task_cancel(&m->again);
    spk_list_remove(&m->flush.link);
    spk_timer_cancel(m->e, &m->timer);
    end_streams(m, code != 0 ? code : SPOKE_EMUXCLOSED);
    spk_mux_batch_drop(&m->batch);
    spk_mux_ids_fini(&m->ids);
    m->carrier = NULL;
    spk_conn_give_up(carrier);
    spk_engine_wake_all(m->e, &m->accept_waiters);
    spk_engine_wake_all(m->e, &m->ping_waiters);
    spk_engine_wake_all(m->e, &m->end_waiters);
    spk_mux_tell_ready(m);
    if (m->user != NULL && !m->closed)
        m->user->ended(m->user);
}

/* Say why, if a write takes it now. */
static void
say_last(struct spk_mux *m, uint64_t code, const char *text)
{
    uint8_t words[SPK_MUX_PREFACE_BYTES + SPK_MUX_HEAD_MOST + 255];
    size_t size = strlen(text) < 255 ? strlen(text) : 255, n;
    struct iovec piece = {.iov_base = words};

    if (!m->known || !m->native || m->preface_due || m->shut || m->write_failed)
        return;
    /* Not in the middle of something, nor before what was held back. */
    if (!spk_mux_batch_empty(&m->batch) || !spk_list_empty(&m->flush.link))
        spk_mux_write(m);
    if (!spk_mux_batch_empty(&m->batch) || m->write_failed)
        return;
    n = spk_mux_encode(words, SPK_MUX_GO_AWAY, m->accepted_id, code, (uint32_t)size);
    memcpy(words + n, text, size);
    piece.iov_len = n + size;
    (void)spk_conn_try_write(m->carrier, &piece, 1);
}

void
spk_mux_end_peer(struct spk_mux *m, int code, uint64_t wire_code, const char *text)
{
    say_last(m, wire_code, text);
    spk_mux_end(m, code, SPOKE_MUX_PEER, wire_code, text);
}

/* ---- the task ---- */

static bool
is_drained(const struct spk_mux *m)
{
    SPK_LIST_EACH(link, &m->streams)
    {
        if (!spk_mux_stream_is_finished(SPK_OWNER(link, struct spk_mux_stream, of_all)))
            return false;
    }
    return spk_mux_batch_empty(&m->batch) && !m->go_away_due;
}

/* Every stream is over: this end ends the carrier's half, and waits for the peer to end its. */
static void
leave(struct spk_mux *m)
{
    if (!m->leaves || m->shut || !is_drained(m))
        return;
    m->shut = true;
    spk_conn_shut_write(m->carrier);
}

static void
write_now(struct spk_mux *m)
{
    spk_mux_write(m);
    leave(m);
}

void
spk_mux_work(struct spk_mux *m)
{
    m->callers++;
    spk_mux_read(m);
    if (!m->ended && spk_mux_may_hold_back(m))
        spk_mux_hold_back(m);
    else if (!m->ended)
        write_now(m);
    m->callers--;
    spk_mux_free_if_done(m);
}

static void
on_task(struct spk_task *task)
{
    spk_mux_work(SPK_OWNER(task, struct spk_mux, task));
}

static void
on_again(struct spk_task *task)
{
    struct spk_mux *m = SPK_OWNER(task, struct spk_mux, again);

    m->granted = 0; /* those that were told have been called */
    spk_mux_work(m);
}

static void
on_flush(struct spk_flush *flush)
{
    struct spk_mux *m = SPK_OWNER(flush, struct spk_mux, flush);

    if (spk_mux_others_follow(m))
        spk_mux_hold_back(m);
    else
        write_now(m);
}

/* ---- calls of the user's functions ---- */

/* One stream that the peer has opened: may it wait? */
static void
decide(struct spk_mux *m)
{
    struct spk_mux_stream *st = SPK_OWNER(m->undecided.next, struct spk_mux_stream, pending);
    spoke_mux_open_f *fn = m->on_open;
    void *ctx = m->on_open_ctx; /* another may be set once the lock is left */
    spoke_mux *handle = m->handle;
    spoke_msg *meta = st->meta != NULL ? spoke_msg_dup(st->meta) : NULL;
    uint64_t id = st->id, code = SPOKE_MUX_NONE;

    if (fn != NULL) {
        spk_list_remove(&st->pending);
        spk_engine_call_begin(m->e, &m->on_open);
        code = fn(handle, meta != NULL ? meta->body : NULL, meta != NULL ? meta->size : 0, ctx);
        spk_engine_call_end(m->e);
        st = m->ended ? NULL : spk_mux_find(m, id); /* it may be gone */
    }
    if (meta != NULL)
        spoke_msg_free(meta);
    if (st == NULL)
        return;
    spk_list_remove(&st->pending);
    if (code == SPOKE_MUX_NONE) {
        spk_list_append(&m->pending, &st->pending);
        return;
    }
    spk_mux_reset(st, code);
    (void)spk_mux_count_refused(m);
}

static void
on_callback(struct spk_task *task)
{
    struct spk_mux *m = SPK_OWNER(task, struct spk_mux, callback);
    spoke_mux *handle = m->handle;

    m->callers++;
    while (!m->closed && !m->ended && !spk_list_empty(&m->undecided)) {
        decide(m);
        if (streams_wait(m))
            spk_engine_wake_one(m->e, &m->accept_waiters);
    }
    spk_select_tell(&m->selects);
    spk_set_ready_fd(m->fd, &m->fd_on, streams_wait(m) || m->ended);
    if (!m->closed && m->on_ready != NULL && m->ready_awaited && (streams_wait(m) || m->ended)) {
        spoke_mux_ready_f *fn = m->on_ready;
        void *ctx = m->on_ready_ctx;

        m->ready_awaited = false;
        spk_engine_call_begin(m->e, &m->on_ready);
        fn(handle, ctx);
        spk_engine_call_end(m->e);
    }
    if (!m->closed && m->on_closed != NULL && m->ended) {
        spoke_mux_closed_f *fn = m->on_closed;
        void *ctx = m->on_closed_ctx;
        struct spoke_mux_end why = m->end;

        m->on_closed = NULL;
        spk_engine_call_begin(m->e, &m->on_closed);
        fn(handle, &why, ctx);
        spk_engine_call_end(m->e);
    }
    m->callers--;
    spk_mux_free_if_done(m);
}

/* ---- opening and closing ---- */

static void
free_handle(struct spk_mux *m)
{
    spk_handle_free(m->handle);
    m->closed = true;
    spk_select_wake(&m->selects);
}

static void
on_engine_closing(struct spk_layer *layer)
{
    struct spk_mux *m = SPK_OWNER(layer, struct spk_mux, layer);

    if (!m->closed)
        free_handle(m);
    spk_mux_end(m, SPOKE_EMUXCLOSED, SPOKE_MUX_LOCAL, 0, "its engine was closed");
    spk_mux_free_if_done(m);
}

static void
init(struct spk_mux *m, struct spk_conn *carrier, const spoke_mux_config *config)
{
    const struct spk_mux_stream *outer = spk_mux_stream_of(carrier);

    m->e = carrier->e;
    m->carrier = carrier;
    m->config = *config;
    m->depth = outer != NULL ? outer->mux->depth + 1 : 1;
    m->known = config->wire != SPOKE_MUX_DETECT;
    m->native = config->wire == SPOKE_MUX_NATIVE;
    m->preface_due = m->native;
    m->preface_heard = config->wire == SPOKE_MUX_COMPATIBLE;
    m->peer.data_most = SPK_MUX_DATA_MOST;
    m->peer.max_streams = UINT32_MAX;
    m->next_id = config->even ? 2 : 1;
    m->linger_until = m->retry_ns = m->stuck_ns = m->doubt_ns = SPOKE_FOREVER;
    m->fd = -1;
    m->opened_ns = m->heard_ns = m->sent_ns = m->heartbeat_ns = m->counted_since = spk_engine_now(
        m->e);
    spk_mux_decoder_init(&m->decoder, m->native);
    spk_task_init(&m->task, on_task);
    spk_task_init(&m->callback, on_callback);
    spk_task_init(&m->again, on_again);
    spk_list_init(&m->flush.link);
    m->flush.fn = on_flush;
    spk_timer_init(&m->timer, spk_mux_on_time);
    spk_list_init(&m->streams);
    spk_list_init(&m->undecided);
    spk_list_init(&m->pending);
    spk_list_init(&m->control);
    spk_list_init(&m->room);
    spk_list_init(&m->fd_room);
    for (int i = 0; i < SPK_MUX_PRIORITIES; i++)
        spk_list_init(&m->turns[i]);
    spk_list_init(&m->accept_waiters);
    spk_list_init(&m->end_waiters);
    spk_list_init(&m->ping_waiters);
    spk_list_init(&m->selects);
    m->layer.closing = on_engine_closing;
}

/* A mux that has not begun. */
static int
prepare(struct spk_mux **out, struct spk_conn *carrier, const spoke_mux_config *config)
{
    struct spk_mux *m;
    int rc;

    if ((rc = spk_conn_check_take(carrier)) != 0)
        return rc;
    if ((m = spk_zalloc(sizeof *m)) == NULL)
        return SPOKE_ENOMEM;
    init(m, carrier, config);
    if (m->depth > SPOKE_MUX_DEPTH) {
        spk_free(m);
        return SPOKE_ELIMIT;
    }
    *out = m;
    return 0;
}

static void
begin(struct spk_mux *m)
{
    spk_conn_take(m->carrier, &m->task);
    m->lets_fds = m->config.pass_fds && m->config.wire != SPOKE_MUX_COMPATIBLE &&
                  spk_conn_passes_fds(m->carrier);
    spk_mux_kick(m);
    spk_mux_set_timer(m);
}

int
spoke_mux_open(spoke_mux **out, spoke_stream *stream, const spoke_mux_config *config)
{
    spoke_mux_config own;
    struct spk_engine *e;
    struct spk_conn *carrier;
    struct spk_mux *m;
    void *handle;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if ((rc = read_config(&own, config)) != 0 || (rc = spk_conn_enter(stream, &carrier)) != 0)
        return rc;
    e = carrier->e;
    if ((rc = prepare(&m, carrier, &own)) != 0)
        goto leave;
    if ((rc = spk_handle_new(SPK_HANDLE_MUX, m, e, &handle)) != 0) {
        spk_free(m);
        goto leave;
    }
    m->handle = handle;
    spk_layer_add(e, &m->layer);
    begin(m);
    *out = m->handle;
leave:
    spk_engine_leave(e);
    return rc;
}

int
spk_mux_new(struct spk_mux **out, struct spk_conn *carrier, const spoke_mux_config *config,
            struct spk_mux_user *user)
{
    spoke_mux_config own;
    int rc;

    if ((rc = read_config(&own, config)) != 0 || (rc = prepare(out, carrier, &own)) != 0)
        return rc;
    (*out)->user = user;
    spk_list_init(&(*out)->layer.link);
    begin(*out);
    return 0;
}

static int
enter(spoke_mux *handle, struct spk_mux **m)
{
    struct spk_engine *e;
    void *object;
    int rc = spk_handle_enter(handle, SPK_HANDLE_MUX, &object, &e);

    if (rc == 0)
        *m = object;
    return rc;
}

static void
leave_mux(struct spk_mux *m)
{
    struct spk_engine *e = m->e;

    spk_mux_free_if_done(m);
    spk_engine_leave(e);
}

/* Of one of the user's functions, by where it is kept. */
static void
await_call(struct spk_mux *m, const void *function)
{
    m->callers++;
    spk_engine_await_call(m->e, function);
    m->callers--;
}

void
spk_mux_await(struct spk_mux *m)
{
    if (m->ended)
        return;
    m->awaited = true;
    spk_conn_want_input(m->carrier, true);
}

/* Wait for something on `list`, or not: 0, look again. */
static int
wait_on(struct spk_mux *m, struct spk_link *list, spoke_ns deadline)
{
    int rc;

    if (deadline == SPOKE_NOW)
        return SPOKE_EAGAIN;
    if (deadline != SPOKE_FOREVER && spk_engine_now(m->e) >= deadline)
        return SPOKE_ETIMEDOUT;
    spk_mux_await(m);
    rc = spk_engine_wait(m->e, list, deadline, m->e->busy_poll_ns);
    return rc == SPOKE_ETIMEDOUT ? 0 : rc;
}

/* Say goodbye, and refuse whoever waits. */
static void
go_away(struct spk_mux *m, uint64_t code, const char *text)
{
    m->leaves = true;
    m->leave_code = code;
    snprintf(m->leave_text, sizeof m->leave_text, "%s", text);
    m->go_away_due = m->native;
    spk_list_splice(&m->pending, &m->undecided);
    while (streams_wait(m))
        spk_mux_reset(SPK_OWNER(m->pending.next, struct spk_mux_stream, pending),
                      SPOKE_MUX_GOING_AWAY);
    spk_mux_kick(m);
}

void
spk_mux_leave(struct spk_mux *m, spoke_ns until)
{
    if (m->ended)
        return;
    m->linger_until = until;
    go_away(m, SPOKE_MUX_NONE, "");
    spk_mux_set_timer(m);
}

void
spk_mux_close_now(struct spk_mux *m)
{
    m->callers++;
    if (!m->ended)
        say_last(m, SPOKE_MUX_NONE, "");
    spk_mux_end(m, SPOKE_EMUXCLOSED, SPOKE_MUX_LOCAL, 0, "it was closed here");
    m->callers--;
}

void
spk_mux_let_go(struct spk_mux *m)
{
    spk_mux_close_now(m);
    m->closed = true;
    spk_mux_free_if_done(m);
}

int
spoke_mux_close(spoke_mux *handle, spoke_ns linger_ns)
{
    struct spk_mux *m;
    int rc = 0;

    if (linger_ns < 0)
        return SPOKE_EINVAL;
    if ((rc = enter(handle, &m)) != 0)
        return rc == SPOKE_ECLOSED && handle != NULL ? 0 : rc;
    free_handle(m);
    m->callers++;
    if (linger_ns == 0) {
        if (!m->ended)
            say_last(m, SPOKE_MUX_NONE, "");
        spk_mux_end(m, SPOKE_EMUXCLOSED, SPOKE_MUX_LOCAL, 0, "it was closed here");
        m->cut = false;
    } else if (!m->ended) {
        m->linger_until = spk_later(spk_engine_now(m->e), linger_ns);
        go_away(m, SPOKE_MUX_NONE, "");
        spk_mux_set_timer(m);
        while (!m->ended && rc == 0)
            rc = wait_on(m, &m->end_waiters, SPOKE_FOREVER);
    }
    /* In a callback it goes on by itself. */
    rc = rc == SPOKE_EDEADLK ? 0 : m->cut ? SPOKE_ETIMEDOUT : rc;
    await_call(m, &m->on_open);
    await_call(m, &m->on_ready);
    await_call(m, &m->on_closed);
    m->callers--;
    leave_mux(m);
    return rc;
}

int
spoke_mux_go_away(spoke_mux *handle, uint64_t code, const char *text)
{
    struct spk_mux *m;
    int rc;

    if (text != NULL && strlen(text) >= sizeof m->leave_text)
        return SPOKE_EINVAL;
    if ((rc = enter(handle, &m)) != 0)
        return rc;
    if (m->ended)
        rc = SPOKE_EMUXCLOSED;
    else if (m->known && !m->native)
        rc = SPOKE_ENOTSUP;
    else
        go_away(m, code, text != NULL ? text : "");
    leave_mux(m);
    return rc;
}

int
spoke_mux_wait(spoke_mux *handle, spoke_ns deadline)
{
    struct spk_mux *m;
    int rc;

    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = enter(handle, &m)) != 0)
        return rc;
    m->callers++;
    while (!m->ended && (rc = wait_on(m, &m->end_waiters, deadline)) == 0) {
    }
    if (m->closed)
        rc = SPOKE_ECLOSED;
    m->callers--;
    leave_mux(m);
    return rc;
}

int
spoke_mux_status(spoke_mux *handle, struct spoke_mux_end *out)
{
    struct spk_mux *m;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = enter(handle, &m)) != 0)
        return rc;
    if (m->ended)
        *out = m->end;
    else
        rc = SPOKE_EAGAIN;
    leave_mux(m);
    return rc;
}

/* ---- streams ---- */

/* May one be opened now? */
static int
check_dial(const struct spk_mux *m, size_t meta_size)
{
    if (m->ended || m->leaves || m->peer_leaves)
        return SPOKE_EMUXCLOSED;
    if (m->exhausted)
        return SPOKE_EEXHAUSTED;
    if (meta_size > SPOKE_MUX_META_MAX)
        return SPOKE_EMSGSIZE;
    if (meta_size > 0 && m->known && !m->native)
        return SPOKE_ENOTSUP;
    return m->ours >= m->peer.max_streams ? SPOKE_ELIMIT : 0;
}

static uint64_t
take_id(struct spk_mux *m)
{
    uint64_t id = m->next_id;

    m->exhausted = id > UINT64_MAX - 2;
    m->next_id += 2;
    return id;
}

/* A stream's conn, with a handle if a user gets it. */
static int
new_conn(struct spk_mux *m, struct spk_mux_stream *st)
{
    spoke_stream_config config;
    struct spk_conn *c;
    int rc;

    spoke_stream_config_init(&config);
    config.busy_poll_ns = m->carrier->busy_poll_ns;
    config.linger_ns = m->carrier->linger_ns;
    if ((c = spk_conn_new(m->e, spk_streams_of(m->e), &config, SPK_MUX_LEAST_WINDOW)) == NULL)
        return SPOKE_ENOMEM;
    if (m->user == NULL && (rc = spk_conn_give_handle(c)) != 0) {
        c->closed = true;
        spk_conn_free_if_done(c);
        return rc;
    }
    c->info.pid = m->carrier->info.pid;
    c->info.uid = m->carrier->info.uid;
    c->info.gid = m->carrier->info.gid;
    st->conn = c;
    c->state = st;
    return 0;
}

static int
start_dial(struct spk_mux *m, const void *meta, size_t meta_size, struct spk_conn **out)
{
    struct spk_mux_stream *st;
    int rc;

    if ((st = spk_mux_stream_new(m, m->next_id, true)) == NULL)
        return SPOKE_ENOMEM;
    if ((meta_size > 0 && (rc = spoke_msg_from(&st->meta, meta, meta_size)) != 0) ||
        (rc = spk_mux_window_open(st)) != 0 || (rc = new_conn(m, st)) != 0) {
        spk_mux_unregister(st);
        spk_mux_stream_free_if_done(st);
        return rc;
    }
    (void)take_id(m);
    st->conn->undial = spk_mux_undial;
    st->due = SPK_MUX_DUE_OPEN; /* in the order of the numbers */
    m->info.opened++;
    spk_mux_schedule(st);
    *out = st->conn;
    return 0;
}

int
spk_mux_open_stream(struct spk_mux *m, const void *meta, size_t meta_size, struct spk_conn **out,
                    uint64_t *id)
{
    int rc;

    *id = m->next_id;
    if ((rc = check_dial(m, meta_size)) != 0)
        return rc;
    return start_dial(m, meta, meta_size, out);
}

int
spk_mux_wait_opened(struct spk_mux *m, struct spk_conn *c, spoke_stream **out, uint64_t *code,
                    spoke_ns deadline)
{
    int rc = 0;

    if (deadline != SPOKE_NOW) {
        spk_mux_await(m);
        c->callers++; /* its reason is still to be read */
        rc = spk_conn_wait_dialed(c, deadline);
        c->callers--;
        if (code != NULL && rc == SPOKE_EREJECTED)
            *code = c->info.abort_code;
    }
    if (rc == 0) {
        *out = c->handle;
        return 0;
    }
    if (!c->closed)
        (void)spk_conn_let_go(c);
    spk_conn_free_if_done(c);
    return rc;
}

int
spoke_mux_dial(spoke_mux *handle, spoke_stream **out, const void *meta, size_t meta_size,
               uint64_t *code, spoke_ns deadline)
{
    struct spk_mux *m;
    struct spk_conn *c;
    int rc;

    if (code != NULL)
        *code = SPOKE_MUX_NONE;
    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if ((meta == NULL && meta_size > 0) || deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = enter(handle, &m)) != 0)
        return rc;
    m->callers++;
    if ((rc = check_dial(m, meta_size)) != 0 || (rc = start_dial(m, meta, meta_size, &c)) != 0)
        goto leave;
    rc = spk_mux_wait_opened(m, c, out, code, deadline);
    if (m->ended && rc != 0 && rc != SPOKE_EREJECTED)
        rc = m->closed ? SPOKE_ECLOSED : SPOKE_EMUXCLOSED;
leave:
    m->callers--;
    leave_mux(m);
    return rc;
}

/* The stream that has waited longest, if it can be had. */
static int
take_pending(struct spk_mux *m, struct spk_mux_stream **out)
{
    while (streams_wait(m)) {
        struct spk_mux_stream *st = SPK_OWNER(m->pending.next, struct spk_mux_stream, pending);
        int rc;

        if (spk_mux_window_open(st) != 0) {
            spk_mux_reset(st, SPOKE_MUX_LIMIT);
            continue;
        }
        if ((rc = new_conn(m, st)) == 0)
            *out = st;
        else /* it stays where it is */
            spk_mux_window_close(st);
        return rc;
    }
    return SPOKE_EAGAIN;
}

/* It is its user's, and looks like one that is dialing. */
static spoke_stream *
take_it(struct spk_mux_stream *st, spoke_msg **meta)
{
    struct spk_mux *m = st->mux;

    spk_list_remove(&st->pending);
    m->waiting--;
    st->taken = true;
    if (st->id > m->accepted_id)
        m->accepted_id = st->id;
    if (meta != NULL) {
        *meta = st->meta;
        st->meta = NULL;
    }
    st->conn->undial = spk_mux_undial;
    spk_mux_tell_ready(m);
    return st->conn->handle;
}

static void
confirm_it(struct spk_mux_stream *st)
{
    st->mux->info.accepted++;
    st->due |= SPK_MUX_DUE_ACCEPT;
    spk_mux_stream_opened(st);
    spk_mux_schedule(st);
}

int
spk_mux_accept_stream(struct spk_mux_stream *st, struct spk_conn **out)
{
    int rc;

    if ((rc = spk_mux_window_open(st)) != 0)
        return rc;
    if ((rc = new_conn(st->mux, st)) != 0) {
        spk_mux_window_close(st);
        return rc;
    }
    *out = st->conn;
    (void)take_it(st, NULL);
    confirm_it(st);
    return 0;
}

static int
take(spoke_mux *handle, spoke_stream **out, spoke_msg **meta, bool confirms, spoke_ns deadline)
{
    struct spk_mux_stream *st;
    struct spk_mux *m;
    int rc;

    if (meta != NULL)
        *meta = NULL;
    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = enter(handle, &m)) != 0)
        return rc;
    m->callers++;
    for (;;) {
        if (m->closed || m->ended)
            rc = m->closed ? SPOKE_ECLOSED : SPOKE_EMUXCLOSED;
        else if ((rc = take_pending(m, &st)) == 0)
            *out = take_it(st, meta);
        else if (rc == SPOKE_EAGAIN && (rc = wait_on(m, &m->accept_waiters, deadline)) == 0)
            continue;
        break;
    }
    if (rc == 0 && confirms)
        confirm_it(st);
    m->ready_awaited |= rc == SPOKE_EAGAIN;
    m->callers--;
    leave_mux(m);
    return rc;
}

static bool
can_accept(void *object, spoke_ns *until)
{
    const struct spk_mux *m = object;

    (void)until;
    return streams_wait(m) || m->ended;
}

static struct spk_link *
accepts_of(void *object)
{
    return &((struct spk_mux *)object)->selects;
}

static void
arm_accept(void *object)
{
    spk_mux_await(object);
}

const struct spk_selectable spk_select_mux_accept = {
    .ready = can_accept,
    .selects = accepts_of,
    .arm = arm_accept,
};

int
spoke_mux_accept(spoke_mux *m, spoke_stream **out, spoke_msg **meta, spoke_ns deadline)
{
    return take(m, out, meta, true, deadline);
}

int
spoke_mux_take(spoke_mux *m, spoke_stream **out, spoke_msg **meta, spoke_ns deadline)
{
    return take(m, out, meta, false, deadline);
}

int
spoke_mux_confirm(spoke_stream *s)
{
    struct spk_mux_stream *st;
    struct spk_conn *c;
    int rc;

    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    st = spk_mux_stream_of(c);
    if (st != NULL && st->taken && !st->established)
        confirm_it(st);
    else if (st != NULL)
        rc = SPOKE_ESTATE;
    else
        rc = !c->open && c->write.end != 0 ? c->write.end : SPOKE_ENOTSUP;
    spk_engine_leave(c->e);
    return rc;
}

int
spoke_mux_set_priority(spoke_stream *s, int priority)
{
    struct spk_mux_stream *st;
    struct spk_conn *c;
    int rc;

    if (priority < 0 || priority >= SPK_MUX_PRIORITIES)
        return SPOKE_ERANGE;
    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    if ((st = spk_mux_stream_of(c)) == NULL) {
        rc = SPOKE_ENOTSUP;
    } else {
        st->priority = (uint8_t)priority;
        spk_list_remove(&st->turn);
        spk_mux_schedule(st);
    }
    spk_engine_leave(c->e);
    return rc;
}

/* ---- who is told ---- */

int
spoke_mux_on_open(spoke_mux *handle, spoke_mux_open_f *fn, void *ctx)
{
    struct spk_mux *m;
    int rc;

    if ((rc = enter(handle, &m)) != 0)
        return rc;
    m->on_open = fn;
    m->on_open_ctx = ctx;
    await_call(m, &m->on_open);
    leave_mux(m);
    return 0;
}

int
spoke_mux_on_ready(spoke_mux *handle, spoke_mux_ready_f *fn, void *ctx)
{
    struct spk_mux *m;
    int rc;

    if ((rc = enter(handle, &m)) != 0)
        return rc;
    m->on_ready = fn;
    m->on_ready_ctx = ctx;
    m->ready_awaited = true;
    spk_mux_tell_ready(m);
    await_call(m, &m->on_ready);
    leave_mux(m);
    return 0;
}

int
spoke_mux_on_closed(spoke_mux *handle, spoke_mux_closed_f *fn, void *ctx)
{
    struct spk_mux *m;
    int rc;

    if ((rc = enter(handle, &m)) != 0)
        return rc;
    m->on_closed = fn;
    m->on_closed_ctx = ctx;
    spk_mux_tell_ready(m);
    await_call(m, &m->on_closed);
    leave_mux(m);
    return 0;
}

int
spoke_mux_fd(spoke_mux *handle)
{
    struct spk_mux *m;
    int rc;

    if ((rc = enter(handle, &m)) != 0)
        return rc;
    if ((rc = spk_new_ready_fd(m->e, &m->fd)) == 0) {
        spk_set_ready_fd(m->fd, &m->fd_on, streams_wait(m) || m->ended);
        rc = m->fd;
    }
    leave_mux(m);
    return rc;
}

/* ---- what is known ---- */

int
spoke_mux_ping(spoke_mux *handle, spoke_ns *rtt_ns, spoke_ns deadline)
{
    struct spk_mux *m;
    uint64_t number;
    int rc;

    if (rtt_ns == NULL)
        return SPOKE_EINVAL;
    *rtt_ns = 0;
    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = enter(handle, &m)) != 0)
        return rc;
    m->callers++;
    if (m->known && !m->native) {
        rc = SPOKE_ENOTSUP;
        goto leave;
    }
    number = m->pings + 1; /* the first that is not out yet */
    if (m->ping_out)
        m->ping_again = true;
    else
        m->ping_due = true;
    spk_mux_kick(m);
    while (!m->ended && m->ponged < number && (rc = wait_on(m, &m->ping_waiters, deadline)) == 0) {
    }
    if (m->ponged >= number)
        *rtt_ns = m->last_rtt_ns;
    else if (m->ended)
        rc = m->closed ? SPOKE_ECLOSED : SPOKE_EMUXCLOSED;
leave:
    m->callers--;
    leave_mux(m);
    return rc;
}

int
spoke_mux_address(spoke_mux *handle, char *url, size_t size)
{
    char text[1024];
    struct spk_mux *m;
    int rc;

    if (url == NULL || size == 0)
        return SPOKE_EINVAL;
    *url = '\0';
    if ((rc = enter(handle, &m)) != 0)
        return rc;
    if (m->ended)
        rc = SPOKE_EMUXCLOSED;
    else if (!m->carrier->open)
        rc = m->carrier->read.end;
    else if ((rc = m->carrier->carrier->address(m->carrier, true, text, sizeof text)) == 0)
        rc = snprintf(url, size, "mux+%s#%s", text, m->config.even ? "even" : "odd") < (int)size
                 ? 0
                 : SPOKE_ERANGE;
    leave_mux(m);
    return rc;
}

void
spk_mux_fill_info(const struct spk_mux *m, struct spoke_mux_info *out)
{
    *out = m->info;
    out->wire = !m->known ? SPOKE_MUX_DETECT : m->native ? SPOKE_MUX_NATIVE : SPOKE_MUX_COMPATIBLE;
    out->is_open = !m->ended;
    out->leaves = m->leaves;
    out->peer_leaves = m->peer_leaves;
    out->streams = m->ours + m->theirs;
    out->waiting = m->waiting;
    out->peer_max_streams = m->peer.max_streams;
    out->passes_fds = m->passes_fds;
    out->windows = m->windows;
    out->unsent = m->unsent;
    out->rtt_ns = m->rtt_ns;
    out->heard_ns = m->heard_ns;
}

int
spoke_mux_get_info(spoke_mux *handle, struct spoke_mux_info *out)
{
    struct spk_mux *m;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = enter(handle, &m)) != 0)
        return rc;
    spk_mux_fill_info(m, out);
    leave_mux(m);
    return 0;
}

int
spoke_mux_get_stream_info(spoke_stream *s, struct spoke_mux_stream_info *out)
{
    struct spk_mux_stream *st;
    struct spk_conn *c;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    if ((st = spk_mux_stream_of(c)) == NULL)
        rc = SPOKE_ENOTSUP;
    else
        *out = (struct spoke_mux_stream_info){.id = st->id,
                                              .opened_here = st->is_ours,
                                              .priority = st->priority,
                                              .window = st->window,
                                              .credit = st->credit,
                                              .unread = c->input_size,
                                              .unsent = st->out_size,
                                              .data_in = st->data_in,
                                              .data_out = st->data_out,
                                              .turns = st->turns};
    spk_engine_leave(c->e);
    return rc;
}
