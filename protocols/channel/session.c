/* SPDX-License-Identifier: MIT */
/* The life of a session, what its channels may hold, and its end. */
#include <string.h>
#include <unistd.h>

#include "protocols/channel/session.h"

#define BACKLOG       64
#define STREAMS       4096
#define MEMORY        ((size_t)64 * 1024 * 1024)
#define UNCLAIMED     256
#define UNCLAIMED_FOR (30 * SPOKE_SECOND)

/* ---- configuration ---- */

void
spoke_session_config_init(spoke_session_config *config)
{
    *config = (spoke_session_config){.backlog = BACKLOG,
                                     .memory = MEMORY,
                                     .unclaimed_max = UNCLAIMED,
                                     .unclaimed_ns = UNCLAIMED_FOR,
                                     .take_fds = true,
                                     .proxy_fds = true};
    spoke_mux_config_init(&config->mux);
    config->mux.backlog = BACKLOG;
    config->mux.max_streams = STREAMS;
    spoke_stream_config_init(&config->stream);
    spoke_channel_config_init(&config->channel);
}

int
spk_session_read_config(spoke_session_config *out, const spoke_session_config *config)
{
    int rc;

    if (config == NULL)
        spoke_session_config_init(out);
    else
        *out = *config;
    if (out->backlog <= 0 || out->unclaimed_max < 0 || out->unclaimed_ns <= 0)
        return SPOKE_ERANGE;
    if ((rc = spk_channel_check_config(&out->channel)) != 0)
        return rc;
    if (out->memory / 2 < out->channel.max_message)
        return SPOKE_ERANGE;
    if (out->mux.backlog == 0)
        out->mux.backlog = BACKLOG;
    if (out->mux.max_streams == 0)
        out->mux.max_streams = STREAMS;
    out->mux.wire = SPOKE_MUX_NATIVE;
    out->mux.pass_fds = out->take_fds;
    out->channel.type = NULL; /* a type is one channel's */
    return 0;
}

/* ---- life ---- */

void
spk_session_free_if_done(struct spk_session *ss)
{
    if (!ss->closed || !ss->ended || ss->callers > 0)
        return;
    spk_timer_cancel(ss->e, &ss->timer);
    spk_task_cancel(&ss->ready_task);
    spk_task_cancel(&ss->end_task);
    spk_list_remove(&ss->layer.link);
    spk_list_remove(&ss->of_listener);
    if (ss->fd >= 0)
        close(ss->fd);
    spk_mux_let_go(ss->mux);
    spk_free(ss);
}

static bool
has_waiting(const struct spk_session *ss)
{
    return spk_session_has_waiting(ss, SPK_SENDS) || spk_session_has_waiting(ss, SPK_RECEIVES) ||
           spk_session_next_stream(ss) != NULL;
}

void
spk_session_tell(struct spk_session *ss)
{
    bool ready = has_waiting(ss) || ss->ended;

    spk_engine_wake_all(ss->e, &ss->accept_waiters);
    spk_select_tell(&ss->selects);
    spk_set_ready_fd(ss->fd, &ss->fd_on, ready);
    if (!ss->closed && ss->on_ready != NULL && ss->ready_awaited && ready)
        spk_task_queue_callback(ss->e, &ss->ready_task);
}

static void
on_ready_task(struct spk_task *task)
{
    struct spk_session *ss = SPK_OWNER(task, struct spk_session, ready_task);
    spoke_session_ready_f *fn = ss->on_ready;
    spoke_session *handle = ss->handle;
    void *ctx = ss->on_ready_ctx; /* another may be set once the lock is left */

    if (ss->closed || fn == NULL || !ss->ready_awaited || !(has_waiting(ss) || ss->ended))
        return;
    ss->ready_awaited = false;
    ss->callers++;
    spk_engine_call_begin(ss->e, ss);
    fn(handle, ctx);
    spk_engine_call_end(ss->e);
    ss->callers--;
    spk_session_free_if_done(ss);
}

/* ---- the end ---- */

int
spk_session_reason(const struct spk_session *ss, int reason)
{
    /* It was closed at the other side, which has said goodbye. */
    return reason == SPOKE_ECONNRESET && ss->mux->peer_leaves ? SPOKE_EMUXCLOSED : reason;
}

static struct spk_session *
session_of(struct spk_mux_user *u)
{
    return SPK_OWNER(u, struct spk_session, user);
}

/* Its streams have been told: what has arrived on them is still read, by their tasks. */
static void
on_ended(struct spk_mux_user *u)
{
    struct spk_session *ss = session_of(u);

    ss->ended = true;
    spk_session_drop_waiting(ss, SPOKE_MUX_GOING_AWAY);
    spk_carry_end(ss);
    spk_timer_cancel(ss->e, &ss->timer);
    spk_task_queue(ss->e, &ss->end_task);
    if (ss->watcher != NULL)
        spk_task_queue(ss->e, ss->watcher);
    spk_engine_wake_all(ss->e, &ss->end_waiters);
    spk_session_tell(ss);
    if (ss->listener != NULL)
        spk_listener_heard(ss);
}

static void
on_heard(struct spk_mux_user *u)
{
    struct spk_session *ss = session_of(u);

    ss->heard = true;
    if (ss->watcher != NULL)
        spk_task_queue(ss->e, ss->watcher);
    spk_engine_wake_all(ss->e, &ss->end_waiters);
    if (ss->listener != NULL)
        spk_listener_heard(ss);
}

/* What has arrived is in its channel before that ends. */
static void
end_wires(struct spk_session *ss)
{
    while (!spk_list_empty(&ss->wires))
        spk_wire_close(SPK_OWNER(ss->wires.next, struct spk_wire, link));
}

static void
on_end_task(struct spk_task *task)
{
    struct spk_session *ss = SPK_OWNER(task, struct spk_session, end_task);

    spk_session_drop_unclaimed(ss, 0);
    if (ss->closed)
        end_wires(ss);
    spk_session_free_if_done(ss);
}

void
spk_session_free_handle(struct spk_session *ss)
{
    if (ss->handle != NULL)
        spk_handle_free(ss->handle);
    ss->handle = NULL;
    ss->closed = true;
    spk_select_wake(&ss->selects);
}

void
spk_session_let_go(struct spk_session *ss)
{
    ss->callers++;
    spk_session_free_handle(ss);
    spk_session_drop_waiting(ss, SPOKE_MUX_GOING_AWAY);
    spk_mux_close_now(ss->mux);
    end_wires(ss);
    spk_session_drop_unclaimed(ss, 0);
    ss->callers--;
    spk_session_free_if_done(ss);
}

static void
on_engine_closing(struct spk_layer *layer)
{
    struct spk_session *ss = SPK_OWNER(layer, struct spk_session, layer);

    spk_session_let_go(ss);
}

/* ---- beginning ---- */

int
spk_session_new(struct spk_session **out, struct spk_conn *carrier,
                const spoke_session_config *config)
{
    struct spk_session *ss = spk_zalloc(sizeof *ss);
    int rc;

    *out = NULL;
    if (ss == NULL)
        return SPOKE_ENOMEM;
    ss->e = carrier->e;
    ss->config = *config;
    ss->fd = -1;
    ss->pid = carrier->info.pid;
    ss->uid = carrier->info.uid;
    ss->gid = carrier->info.gid;
    ss->user = (struct spk_mux_user){
        .heard = on_heard, .opened = spk_session_opened, .ended = on_ended};
    ss->layer.closing = on_engine_closing;
    spk_list_init(&ss->of_listener);
    spk_list_init(&ss->wires);
    spk_list_init(&ss->stalled);
    spk_list_init(&ss->waiting[SPK_SENDS]);
    spk_list_init(&ss->waiting[SPK_RECEIVES]);
    spk_list_init(&ss->unclaimed);
    spk_list_init(&ss->carried);
    spk_list_init(&ss->accept_waiters);
    spk_list_init(&ss->end_waiters);
    spk_list_init(&ss->selects);
    spk_timer_init(&ss->timer, spk_session_on_time);
    spk_task_init(&ss->ready_task, on_ready_task);
    spk_task_init(&ss->end_task, on_end_task);
    if ((rc = spk_mux_new(&ss->mux, carrier, &config->mux, &ss->user)) != 0) {
        spk_free(ss);
        return rc;
    }
    spk_layer_add(ss->e, &ss->layer);
    *out = ss;
    return 0;
}

int
spk_session_enter(const void *handle, struct spk_session **ss)
{
    struct spk_engine *e;
    void *object;
    int rc = spk_handle_enter(handle, SPK_HANDLE_SESSION, &object, &e);

    if (rc == 0)
        *ss = object;
    return rc;
}

void
spk_session_leave(struct spk_session *ss)
{
    struct spk_engine *e = ss->e;

    spk_session_free_if_done(ss);
    spk_engine_leave(e);
}

int
spk_session_check(const struct spk_session *ss)
{
    if (ss->closed)
        return SPOKE_ECLOSED;
    return ss->ended ? SPOKE_EMUXCLOSED : 0;
}

int
spk_session_wait_on(struct spk_session *ss, struct spk_link *list, spoke_ns deadline)
{
    int rc;

    if (deadline == SPOKE_NOW)
        return SPOKE_EAGAIN;
    if (deadline != SPOKE_FOREVER && spk_engine_now(ss->e) >= deadline)
        return SPOKE_ETIMEDOUT;
    spk_mux_await(ss->mux);
    rc = spk_engine_wait(ss->e, list, deadline, ss->e->busy_poll_ns);
    return rc == SPOKE_ETIMEDOUT ? 0 : rc;
}

/* ---- memory ---- */

/* Does it have something that waits to be taken? */
static bool
has_some(const struct spk_wire *w)
{
    return w->released < w->received;
}

/* A message is counted whole before its first byte, so one that was let in comes to its end.  Those
 * of channels that have some already leave half of the room to others. */
bool
spk_session_reserve(struct spk_session *ss, struct spk_wire *w, size_t size)
{
    size_t most = has_some(w) ? ss->config.memory / 2 : ss->config.memory;

    if (size > most || ss->memory > most - size) {
        bool is_first = spk_list_empty(&ss->stalled);

        if (spk_list_empty(&w->stalled))
            spk_list_append(&ss->stalled, &w->stalled);
        if (is_first) { /* from now on each message that is taken is to be told of */
            SPK_LIST_EACH(link, &ss->wires)
            {
                spk_wire_kick(SPK_OWNER(link, struct spk_wire, link));
            }
        }
        return false;
    }
    spk_list_remove(&w->stalled);
    ss->memory += size;
    return true;
}

void
spk_session_give_back(struct spk_session *ss, size_t size)
{
    ss->memory -= size;
    SPK_LIST_EACH(link, &ss->stalled)
    {
        spk_wire_kick(SPK_OWNER(link, struct spk_wire, stalled));
    }
}
