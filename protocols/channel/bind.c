/* SPDX-License-Identifier: MIT */
/* How an importer binds its names, and what it does when the connection is lost. */
#include <stdio.h>
#include <string.h>

#include "protocols/channel/importer.h"

static struct spk_importer *
importer_of(struct spk_ports *ps)
{
    return SPK_OWNER(ps, struct spk_importer, ports);
}

static bool
reconnects(const struct spk_importer *im)
{
    return im->url != NULL && im->config.reconnect_ns > 0 && im->reason == 0;
}

/* ---- asking ---- */

static int
encode_meta(const struct spk_port *p, uint8_t *to, size_t *size)
{
    char descriptor[SPOKE_DESCRIPTOR_MAX + 1];
    struct spk_meta meta = {.role = SPK_ROLE_PORT,
                            .direction = p->direction == SPOKE_SEND ? SPK_META_OPENER_SENDS
                                                                    : SPK_META_OPENER_RECEIVES,
                            .name = p->name,
                            .name_size = strlen(p->name),
                            .count = p->left,
                            .limit = p->config.size,
                            .max_message = p->config.max_message};

    if (p->type != NULL) {
        meta.has_type = true;
        memcpy(meta.type, p->type->fingerprint, sizeof meta.type);
    }
    if (p->type != NULL && p->uses_layout) {
        meta.has_layout = true;
        memcpy(meta.layout, p->type->layout, sizeof meta.layout);
    }
    if (p->type != NULL && (p->config.flags & SPOKE_PORT_EVOLVING) != 0) {
        if (spoke_type_descriptor(p->type, descriptor, sizeof descriptor) != 0)
            return SPOKE_ELIMIT;
        meta.descriptor = descriptor;
        meta.descriptor_size = strlen(descriptor);
    }
    *size = spk_meta_encode(to, SPOKE_MUX_META_MAX, &meta);
    return *size > 0 ? 0 : SPOKE_ELIMIT;
}

int
spk_importer_bind(struct spk_importer *im, struct spk_port *p)
{
    uint8_t meta[SPOKE_MUX_META_MAX];
    struct spk_wire_config config;
    struct spk_binding *b;
    struct spk_conn *conn;
    struct spk_wire *w;
    size_t size;
    uint64_t id;
    int rc;

    if ((rc = encode_meta(p, meta, &size)) != 0 ||
        (rc = spk_mux_open_stream(im->ss->mux, meta, size, &conn, &id)) != 0)
        return rc;
    if ((rc = spk_binding_new(&b, p, p->left)) == 0) {
        config = spk_binding_wire_config(b);
        config.is_ours = true;
        if ((rc = spk_wire_new(&w, im->ss, conn, id, &config)) == 0) {
            spk_binding_set_wire(b, w);
            return 0;
        }
        spk_binding_free(b);
    }
    spk_mux_reset_conn(conn, SPOKE_MUX_CANCELED);
    spk_conn_give_up(conn);
    return rc;
}

/* All that has a name and no wire. */
static void
bind_all(struct spk_importer *im)
{
    struct spk_link *link, *next;
    int rc;

    for (link = im->ports.ports.next; link != &im->ports.ports; link = next) {
        struct spk_port *p = SPK_OWNER(link, struct spk_port, link);

        next = link->next;
        if (p->wires > 0)
            continue;
        if (p->left == 0)
            spk_port_end(p, SPOKE_EOF, 0, "");
        else if ((rc = spk_importer_bind(im, p)) != 0 && !im->ss->ended)
            spk_port_end(p, rc, 0, "");
    }
}

/* ---- the answer, and the end of a binding ---- */

static void
bound(struct spk_port *p, struct spk_binding *b)
{
    const struct spk_wire *w = b->w;

    p->was_bound = true;
    if (p->direction == SPOKE_SEND && p->ch != NULL) {
        spk_channel_limit_size(p->ch, w->max_message);
        /* Whoever is connected to next time may have another layout. */
        if (p->uses_layout && w->same_layout && !reconnects(importer_of(p->owner)))
            p->ch->form = SPOKE_FORM_LAYOUT;
    }
    spk_engine_wake_all(p->owner->e, &p->owner->waiters);
}

static void
unbound(struct spk_port *p, struct spk_binding *b, int reason, uint64_t code, const char *text)
{
    struct spk_importer *im = importer_of(p->owner);
    bool has_session = im->ss != NULL && !im->ss->ended;

    if (p->over || (!has_session && reconnects(im)))
        return;
    if (!b->bound && has_session && code != SPOKE_MUX_NONE)
        reason = spk_port_error(code);
    spk_port_end(p, reason == 0 ? SPOKE_EOF : reason, code, text);
}

/* ---- events ---- */

static void
name_peer(struct spk_ports *ps, const struct spk_binding *b, char *text, size_t size)
{
    (void)b;
    snprintf(text, size, "%s", importer_of(ps)->address);
}

static void
tell(struct spk_importer *im, enum spoke_port_event_type type, int code, uint64_t wire_code,
     const char *text)
{
    struct spoke_port_event event = {.type = type, .code = code, .wire_code = wire_code};

    snprintf(event.text, sizeof event.text, "%s", text);
    memcpy(event.peer, im->address, sizeof event.peer);
    spk_ports_event(&im->ports, &event);
}

/* What no call gives as its answer waits to be asked for. */
static void
note(struct spk_ports *ps, const struct spoke_port_event *event)
{
    struct spk_importer *im = importer_of(ps);
    const struct spk_port *p = spk_ports_find(ps, event->name, strlen(event->name));
    uint32_t room = (uint32_t)im->config.errors;

    if (event->code == 0 || (event->type == SPOKE_PORT_REFUSED && (p == NULL || !p->was_bound)))
        return;
    if (im->error_count == room) {
        im->errors_lost++;
        return;
    }
    im->errors[(im->error_first + im->error_count++) % room] = *event;
    spk_engine_wake_all(ps->e, &ps->waiters);
}

/* ---- the connection ---- */

static void
dial_later(struct spk_importer *im, int why)
{
    spoke_ns most = im->config.reconnect_max_ns;

    im->dial_error = why;
    (void)spk_timer_set(im->ports.e, &im->timer,
                        spk_later(spk_engine_now(im->ports.e), im->pause_ns));
    if (im->pause_ns < most)
        im->pause_ns = im->pause_ns > most / 2 ? most : im->pause_ns * 2;
}

void
spk_importer_disconnect(struct spk_importer *im)
{
    struct spk_session *ss = im->ss;

    if (ss == NULL)
        return;
    im->ss = NULL;
    ss->watcher = NULL;
    spk_session_let_go(ss);
}

static void
has_ended(struct spk_importer *im)
{
    const struct spoke_mux_end end = im->ss->mux->end;
    int reason = end.code != 0 ? end.code : SPOKE_EMUXCLOSED;

    if (im->is_known || !reconnects(im))
        tell(im, SPOKE_PORT_DISCONNECTED, reason, end.wire_code, end.text);
    spk_importer_disconnect(im);
    if (reconnects(im)) {
        dial_later(im, reason);
    } else {
        im->reason = reason;
        while (!spk_list_empty(&im->ports.ports))
            spk_port_end(SPK_OWNER(im->ports.ports.next, struct spk_port, link), reason,
                         end.wire_code, end.text);
    }
    spk_engine_wake_all(im->ports.e, &im->ports.waiters);
}

static void
on_task(struct spk_task *task)
{
    struct spk_importer *im = SPK_OWNER(task, struct spk_importer, task);
    struct spk_ports *ps = &im->ports;

    ps->callers++;
    if (im->ss != NULL && im->ss->heard && !im->is_known) {
        im->is_known = true;
        im->pause_ns = im->config.reconnect_ns;
        tell(im, SPOKE_PORT_CONNECTED, 0, 0, "");
        spk_engine_wake_all(ps->e, &ps->waiters);
    }
    if (im->ss != NULL && im->ss->ended && im->ss->wire_count == 0)
        has_ended(im);
    ps->callers--;
    ps->free_if_done(ps);
}

static void
released(struct spk_binding *b)
{
    struct spk_importer *im = importer_of(b->port->owner);

    if (im->ss != NULL)
        spk_task_queue(im->ports.e, &im->task);
}

int
spk_importer_connect(struct spk_importer *im, struct spk_conn *c)
{
    int rc;

    if ((rc = spk_session_new(&im->ss, c, &im->config.session)) != 0)
        return rc;
    im->is_known = false;
    im->ss->watcher = &im->task;
    bind_all(im);
    return 0;
}

/* ---- once more ---- */

static void
on_timer(struct spk_timer *timer)
{
    struct spk_importer *im = SPK_OWNER(timer, struct spk_importer, timer);

    im->dial_due = true;
    spk_task_queue_callback(im->ports.e, &im->ports.callback);
}

/* The outcome: a connection, or not.  It can be taken when this callback is over. */
static void
on_dialed(spoke_stream *s, unsigned what, void *ctx)
{
    struct spk_importer *im;

    if ((what & SPOKE_STREAM_WRITABLE) == 0 || spk_importer_enter(ctx, &im) != 0)
        return; /* who closed it closes the stream */
    if (im->dialing == s) {
        im->dialed = true;
        spk_task_queue_callback(im->ports.e, &im->ports.callback);
    }
    spk_ports_leave(&im->ports);
}

static void
close_stream(struct spk_engine *e, spoke_stream *s)
{
    spk_engine_call_begin(e, NULL);
    (void)spoke_stream_close(s);
    spk_engine_call_end(e);
}

static void
take_dialed(struct spk_importer *im)
{
    spoke_stream *s = im->dialing;
    void *object;
    int rc;

    im->dialing = NULL;
    im->dialed = false;
    if ((rc = spk_handle_join(s, SPK_HANDLE_STREAM, im->ports.e, &object)) == 0 &&
        (rc = spk_conn_check_take(object)) == 0)
        rc = spk_importer_connect(im, object);
    if (rc == 0)
        return;
    dial_later(im, rc);
    close_stream(im->ports.e, s);
}

static void
start_dialing(struct spk_importer *im)
{
    struct spk_ports *ps = &im->ports;
    void *handle = ps->handle;
    spoke_stream *s = NULL;
    int rc;

    im->dial_due = false;
    spk_engine_call_begin(ps->e, NULL);
    rc = spoke_stream_dial(&s, im->url, &im->config.session.stream, ps->e->handle, SPOKE_NOW);
    spk_engine_call_end(ps->e);
    if (rc == 0 && ps->closed) {
        close_stream(ps->e, s);
        return;
    }
    im->dialing = s;
    if (rc == 0) {
        spk_engine_call_begin(ps->e, NULL);
        rc = spoke_stream_on_ready(s, on_dialed, handle);
        spk_engine_call_end(ps->e);
    }
    if (rc == 0 || ps->closed)
        return;
    im->dialing = NULL;
    dial_later(im, rc);
    if (s != NULL)
        close_stream(ps->e, s);
}

/* In the callbacks' task, as some of these calls enter the engine by themselves. */
static void
dial(struct spk_ports *ps)
{
    struct spk_importer *im = importer_of(ps);

    if (im->dialed && im->dialing != NULL && !ps->closed)
        take_dialed(im);
    if (im->dial_due && !ps->closed)
        start_dialing(im);
}

void
spk_importer_init(struct spk_importer *im, struct spk_engine *e)
{
    im->ports.bound = bound;
    im->ports.unbound = unbound;
    im->ports.released = released;
    im->ports.name_peer = name_peer;
    im->ports.note = note;
    im->ports.call = dial;
    im->pause_ns = im->config.reconnect_ns;
    spk_task_init(&im->task, on_task);
    spk_timer_init(&im->timer, on_timer);
    spk_ports_init(&im->ports, e);
}
