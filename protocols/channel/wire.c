/* SPDX-License-Identifier: MIT */
/* The life of a wire, and how it ends. */
#include <string.h>

#include "protocols/channel/session.h"

/* ---- life ---- */

static void
free_wire(struct spk_wire *w)
{
    spk_task_cancel(&w->task);
    spk_free(w->sizes);
    spk_free(w->carried);
    spk_free(w);
}

/* From now on it is nobody's but the task's that may be running. */
static void
leave_session(struct spk_wire *w)
{
    struct spk_session *ss = w->ss;

    w->over = true;
    w->conn = NULL;
    spk_list_remove(&w->link);
    spk_list_remove(&w->stalled);
    ss->wire_count--;
    spk_wire_drop_input(w);
    if (w->body != NULL)
        spoke_msg_free(w->body);
    w->body = NULL;
    spk_session_drop_unclaimed(ss, w->id);
    w->ops->released(w);
    if (!w->running)
        free_wire(w);
}

static void
on_task(struct spk_task *task)
{
    struct spk_wire *w = SPK_OWNER(task, struct spk_wire, task);
    struct spk_session *ss = w->ss;

    w->running = true;
    ss->callers++;
    spk_wire_read(w);
    if (!w->over)
        spk_wire_write(w);
    ss->callers--;
    w->running = false;
    if (w->over)
        free_wire(w);
    spk_session_free_if_done(ss);
}

static int
allocate(struct spk_wire *w)
{
    size_t count = 1;

    if (w->sends)
        return 0;
    while (count < w->depth)
        count *= 2;
    w->mask = (uint32_t)(count - 1);
    w->sizes = spk_zalloc(count * sizeof *w->sizes);
    return w->sizes != NULL ? 0 : SPOKE_ENOMEM;
}

static void
set_layouts(struct spk_wire *w, const spoke_value_type *type, const struct spk_meta *meta)
{
    w->has_layout = type != NULL && type->has_layout;
    if (w->has_layout)
        memcpy(w->layout, type->layout, sizeof w->layout);
    if (meta == NULL || !meta->has_layout)
        return;
    memcpy(w->peer_layout, meta->layout, sizeof w->peer_layout);
    w->same_layout = w->has_layout && memcmp(w->layout, w->peer_layout, sizeof w->layout) == 0;
}

int
spk_wire_new(struct spk_wire **out, struct spk_session *ss, struct spk_conn *conn, uint64_t id,
             const struct spk_wire_config *config)
{
    struct spk_wire *w = spk_zalloc(sizeof *w);

    *out = NULL;
    if (w == NULL)
        return SPOKE_ENOMEM;
    w->ss = ss;
    w->conn = conn;
    w->id = id;
    w->ops = config->ops;
    w->owner = config->owner;
    w->sends = config->sends;
    w->is_ours = config->is_ours;
    w->is_carried = config->is_carried;
    w->max_message = UINT32_MAX; /* nothing is known */
    w->depth = config->depth > 0 ? config->depth : 1;
    if (allocate(w) != 0) {
        spk_free(w);
        return SPOKE_ENOMEM;
    }
    set_layouts(w, config->type, config->meta);
    spk_frame_decoder_init(&w->in, (uint32_t)config->max_message);
    spk_task_init(&w->task, on_task);
    spk_list_init(&w->stalled);
    spk_list_init(&w->claimed);
    if (!w->sends)
        w->granted = config->granted; /* says the opening, or the Accept */
    if (!w->is_ours) {
        w->due = SPK_WIRE_DUE_ACCEPT;
        if (w->sends) {
            w->first_limit = w->limit = config->meta->limit;
            if (config->meta->max_message > 0)
                w->max_message = config->meta->max_message;
        }
    }
    spk_list_append(&ss->wires, &w->link);
    ss->wire_count++;
    spk_conn_take(conn, &w->task);
    spk_wire_kick(w);
    *out = w;
    return 0;
}

void
spk_wire_kick(struct spk_wire *w)
{
    if (!w->over)
        spk_task_queue(w->ss->e, &w->task);
}

void
spk_wire_sync(struct spk_wire *w, uint64_t count)
{
    if (w->over || count <= w->sync_at || count <= w->acked)
        return;
    w->sync_at = count;
    w->due |= SPK_WIRE_DUE_SYNC;
    spk_wire_kick(w);
}

/* ---- the end ---- */

void
spk_wire_await(struct spk_wire *w, struct spk_opening *o)
{
    w->opening = o;
}

void
spk_wire_opened(struct spk_wire *w, int rc, uint64_t code)
{
    struct spk_opening *o = w->opening;

    if (o == NULL)
        return;
    w->opening = NULL;
    o->done = true;
    o->rc = rc;
    o->code = code;
    spk_engine_wake_all(w->ss->e, &o->waiters);
}

int
spk_wire_reason(const struct spk_wire *w, uint64_t code)
{
    if (!w->accepted && w->is_ours && !w->is_carried)
        return code == SPOKE_MUX_TYPE ? SPOKE_ETYPE : SPOKE_EREJECTED;
    if (w->sends && (code == SPOKE_MUX_CANCELED || code == SPOKE_MUX_DATA_LOST))
        return SPOKE_EPEERCLOSED;
    return code == SPOKE_MUX_PEER_GONE ? SPOKE_ECONNRESET : SPOKE_EABORTED;
}

void
spk_wire_tell_end(struct spk_wire *w, int reason, uint64_t code, const char *text)
{
    if (w->told)
        return;
    w->told = true;
    spk_wire_opened(w, reason, code);
    w->ops->ended(w, reason, code, text);
}

void
spk_wire_end(struct spk_wire *w, int reason, uint64_t code, const char *text)
{
    struct spk_conn *conn = w->conn;

    if (w->over)
        return;
    spk_wire_tell_end(w, reason, code, text);
    leave_session(w);
    spk_conn_give_up(conn);
}

void
spk_wire_break(struct spk_wire *w, int reason, uint64_t code, const char *text)
{
    if (!spk_wire_say_last(w, code, text))
        spk_mux_reset_conn(w->conn, code);
    spk_wire_end(w, reason, code, text);
}

int
spk_wire_violation(struct spk_wire *w, uint64_t code, const char *text)
{
    (void)spk_wire_say_last(w, code, text);
    spk_mux_reset_last(w->conn, code);
    spk_wire_end(w, SPOKE_EPROTO, code, text);
    return SPOKE_EPROTO;
}

void
spk_wire_close(struct spk_wire *w)
{
    w->running = true;
    spk_wire_read(w);
    spk_wire_end(w, SPOKE_EMUXCLOSED, SPOKE_MUX_GOING_AWAY, "");
    free_wire(w);
}

struct spk_wire *
spk_wire_of(const struct spk_conn *c)
{
    bool is_one = c->taker != NULL && c->taker->fn == on_task;

    return is_one ? SPK_OWNER(c->taker, struct spk_wire, task) : NULL;
}
