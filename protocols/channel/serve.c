/* SPDX-License-Identifier: MIT */
/* Those who come to bind what an exporter offers: their connections, and what each may. */
#include <stdio.h>
#include <string.h>

#include "protocols/channel/exporter.h"

#define ORPHANS_MAX 1024 /* bindings of a port that have gone and left messages */

/* ---- peers ---- */

void
spk_exporter_name_peer(struct spk_ports *ps, const struct spk_binding *b, char *text, size_t size)
{
    (void)ps;
    snprintf(text, size, "%s", b->peer != NULL ? b->peer->address : "");
}

static void
tell(struct spk_peer *peer, enum spoke_port_event_type type, int code, uint64_t wire_code,
     const char *name, size_t name_size, const char *text)
{
    struct spoke_port_event event = {.type = type, .code = code, .wire_code = wire_code};

    memcpy(event.name, name, name_size);
    snprintf(event.text, sizeof event.text, "%s", text);
    memcpy(event.peer, peer->address, sizeof event.peer);
    spk_ports_event(&peer->ex->ports, &event);
}

static void
drop_undecided(struct spk_peer *peer)
{
    struct spk_link *link;

    while ((link = spk_list_take(&peer->undecided)) != NULL)
        spk_arrival_free(SPK_OWNER(link, struct spk_arrival, link), SPOKE_MUX_GOING_AWAY);
}

static void
free_peer_if_done(struct spk_peer *peer)
{
    struct spk_ports *ps = &peer->ex->ports;

    if (peer->ss != NULL || peer->callers > 0)
        return;
    spk_task_cancel(&peer->task);
    spk_list_remove(&peer->link);
    spk_engine_wake_all(ps->e, &ps->waiters);
    spk_free(peer);
}

void
spk_peer_let_go(struct spk_peer *peer)
{
    struct spk_session *ss = peer->ss;
    const struct spoke_mux_end *end = &ss->mux->end;
    bool has_ended = ss->ended;

    peer->callers++;
    peer->ss = NULL;
    ss->watcher = NULL;
    spk_session_on_role(ss, SPK_ROLE_PORT, NULL, NULL);
    drop_undecided(peer);
    if (peer->is_known)
        tell(peer, SPOKE_PORT_DISCONNECTED, has_ended ? end->code : 0,
             has_ended ? end->wire_code : 0, "", 0, has_ended ? end->text : "");
    spk_session_let_go(ss);
    spk_list_remove(&peer->link);
    peer->ex->connections--;
    peer->callers--;
    free_peer_if_done(peer);
}

static void
on_task(struct spk_task *task)
{
    struct spk_peer *peer = SPK_OWNER(task, struct spk_peer, task);
    struct spk_ports *ps = &peer->ex->ports;
    struct spk_session *ss = peer->ss;

    if (ss == NULL)
        return;
    ps->callers++;
    if (ss->heard && !peer->is_known) {
        peer->is_known = true;
        tell(peer, SPOKE_PORT_CONNECTED, 0, 0, "", 0, "");
    }
    if (!ss->ended && peer->failures > peer->ex->config.failures_per_peer)
        spk_mux_end_peer(ss->mux, SPOKE_ELIMIT, SPOKE_MUX_LIMIT, "too many imports were refused");
    if (ss->ended && ss->wire_count == 0) /* what has arrived has been read */
        spk_peer_let_go(peer);
    ps->callers--;
    ps->free_if_done(ps);
}

/* ---- what may be bound ---- */

struct verdict {
    uint64_t code;
    const char *text;
};
static const struct verdict fine = {SPOKE_MUX_NONE, ""};

static bool
evolves(const struct spk_port *p)
{
    return p->type != NULL && (p->config.flags & SPOKE_PORT_EVOLVING) != 0;
}

static struct verdict
check_descriptor(const struct spk_port *p, const struct spk_meta *meta)
{
    char own[SPOKE_DESCRIPTOR_MAX + 1];
    uint8_t fingerprint[SPOKE_FINGERPRINT];
    int rc;

    if (spoke_descriptor_fingerprint(meta->descriptor, meta->descriptor_size, fingerprint) != 0 ||
        (meta->has_type && memcmp(fingerprint, meta->type, sizeof fingerprint) != 0))
        return (struct verdict){SPOKE_MUX_PROTOCOL, "its type's descriptor is none"};
    if (spoke_type_descriptor(p->type, own, sizeof own) != 0)
        return (struct verdict){SPOKE_MUX_INTERNAL, "the type's descriptor is too long"};
    rc = p->direction == SPOKE_SEND
             ? spoke_descriptor_readable(own, strlen(own), meta->descriptor, meta->descriptor_size)
             : spoke_descriptor_readable(meta->descriptor, meta->descriptor_size, own, strlen(own));
    if (rc != 0)
        return (struct verdict){SPOKE_MUX_TYPE,
                                "the sender's type is not readable as the receiver's"};
    return fine;
}

static struct verdict
check_type(const struct spk_port *p, const struct spk_meta *meta)
{
    if (evolves(p) && meta->descriptor != NULL)
        return check_descriptor(p, meta);
    if ((p->type != NULL && meta->has_type) && (evolves(p) || meta->descriptor != NULL))
        return (struct verdict){SPOKE_MUX_TYPE, "only one side lets the type evolve"};
    if (p->type != NULL && meta->has_type &&
        memcmp(p->type->fingerprint, meta->type, SPOKE_FINGERPRINT) != 0)
        return (struct verdict){SPOKE_MUX_TYPE, "it has another type"};
    return fine;
}

static struct verdict
check_limits(const struct spk_peer *peer, const struct spk_port *p, const struct spk_meta *meta)
{
    int orphans = 0;

    if (peer->imports >= peer->ex->config.imports_per_peer)
        return (struct verdict){SPOKE_MUX_LIMIT, "the connection has too many imports"};
    if (p->direction == SPOKE_SEND && meta->max_message < p->config.max_message)
        return (struct verdict){SPOKE_MUX_TOO_LARGE,
                                "messages may be larger than the importer takes"};
    SPK_LIST_EACH(link, &p->lost)
    {
        orphans++;
    }
    if (p->direction == SPOKE_RECEIVE && orphans >= ORPHANS_MAX)
        return (struct verdict){SPOKE_MUX_LIMIT, "too much waits of importers that have gone"};
    return fine;
}

static struct verdict
check(const struct spk_peer *peer, const struct spk_meta *meta, struct spk_port **out)
{
    enum spoke_direction direction = meta->direction == SPK_META_OPENER_SENDS ? SPOKE_RECEIVE
                                                                              : SPOKE_SEND;
    struct verdict v;
    struct spk_port *p;

    *out = NULL;
    if (spk_port_check_name(meta->name, meta->name_size) != 0)
        return (struct verdict){SPOKE_MUX_PROTOCOL, "that cannot be a name"};
    if ((p = spk_ports_find(&peer->ex->ports, meta->name, meta->name_size)) == NULL)
        return (struct verdict){SPOKE_MUX_NO_SUCH_NAME, "no such channel is exported"};
    if (p->direction != direction)
        return (struct verdict){SPOKE_MUX_WRONG_DIRECTION, direction == SPOKE_SEND
                                                               ? "it is exported to receive"
                                                               : "it is exported to send"};
    v = check_type(p, meta);
    if (v.code == SPOKE_MUX_NONE)
        v = check_limits(peer, p, meta);
    *out = p;
    return v;
}

/* ---- the answer ---- */

static int
error_of(uint64_t code)
{
    return spk_port_error(code);
}

static void
refuse(struct spk_peer *peer, struct spk_arrival *a, struct verdict v)
{
    struct spk_frame f = {.kind = SPK_FRAME_REFUSE, .code = (uint32_t)v.code};
    uint8_t out[SPK_FRAME_MOST];
    struct iovec bytes = {.iov_base = out};
    struct spk_conn *c = a->conn;

    tell(peer, SPOKE_PORT_REFUSED, error_of(v.code), v.code, a->meta.name, a->meta.name_size,
         v.text);
    peer->failures++;
    spk_task_queue(peer->ex->ports.e, &peer->task);
    snprintf(f.text, sizeof f.text, "%s", v.text);
    bytes.iov_len = spk_frame_encode(out, &f);
    if (spk_conn_try_write(c, &bytes, 1) == (int64_t)bytes.iov_len) {
        a->conn = NULL;
        spk_conn_give_up(c);
    }
    spk_arrival_free(a, v.code);
}

static void
accept_import(struct spk_peer *peer, struct spk_arrival *a, struct spk_port *p)
{
    struct spk_wire_config config;
    struct spk_binding *b;
    struct spk_wire *w;

    if (spk_binding_new(&b, p, a->meta.count) != 0) {
        refuse(peer, a, (struct verdict){SPOKE_MUX_INTERNAL, "there is no memory for it"});
        return;
    }
    config = spk_binding_wire_config(b);
    config.meta = &a->meta;
    if (spk_wire_new(&w, peer->ss, a->conn, a->id, &config) != 0) {
        spk_binding_free(b);
        refuse(peer, a, (struct verdict){SPOKE_MUX_INTERNAL, "there is no memory for it"});
        return;
    }
    a->conn = NULL;
    spk_arrival_free(a, SPOKE_MUX_NONE);
    b->peer = peer;
    peer->imports++;
    peer->callers++;
    spk_binding_set_wire(b, w);
}

void
spk_exporter_released(struct spk_binding *b)
{
    struct spk_peer *peer = b->peer;

    if (peer == NULL)
        return;
    b->peer = NULL;
    peer->imports--;
    peer->callers--;
    if (peer->ss != NULL)
        spk_task_queue(peer->ex->ports.e, &peer->task);
    else
        free_peer_if_done(peer);
}

static void
decide(struct spk_peer *peer, struct spk_arrival *a)
{
    struct spk_port *p;
    struct verdict v = check(peer, &a->meta, &p);

    if (v.code == SPOKE_MUX_NONE)
        accept_import(peer, a, p);
    else
        refuse(peer, a, v);
}

static uint64_t
on_import(struct spk_session *ss, struct spk_mux_stream *st, const struct spk_meta *meta, void *ctx)
{
    struct spk_peer *peer = ctx;
    struct spk_exporter *ex = peer->ex;
    struct spk_arrival *a;
    struct spk_port *p;

    if (ex->ports.closing)
        return SPOKE_MUX_GOING_AWAY;
    if (peer->undecided_count >= ex->config.imports_per_peer)
        return SPOKE_MUX_LIMIT;
    if (spk_arrival_new(&a, ss, st, meta) != 0)
        return SPOKE_MUX_INTERNAL;
    if (ex->config.allow == NULL || check(peer, &a->meta, &p).code != SPOKE_MUX_NONE) {
        decide(peer, a);
        return SPOKE_MUX_NONE;
    }
    spk_list_append(&peer->undecided, &a->link);
    peer->undecided_count++;
    spk_task_queue_callback(ex->ports.e, &ex->ports.callback);
    return SPOKE_MUX_NONE;
}

static void
ask(struct spk_peer *peer)
{
    struct spk_exporter *ex = peer->ex;
    struct spk_arrival *a = SPK_OWNER(spk_list_take(&peer->undecided), struct spk_arrival, link);
    enum spoke_direction direction = a->meta.direction == SPK_META_OPENER_SENDS ? SPOKE_RECEIVE
                                                                                : SPOKE_SEND;
    char name[SPOKE_PORT_NAME_MAX + 1] = "";
    struct spoke_session_info info;
    bool may;

    peer->undecided_count--;
    memcpy(name, a->meta.name, a->meta.name_size);
    spk_session_info(peer->ss, &info);
    peer->callers++;
    spk_engine_call_begin(ex->ports.e, &ex->ports);
    may = ex->config.allow(ex->config.ctx, name, direction, &info);
    spk_engine_call_end(ex->ports.e);
    peer->callers--;
    if (peer->ss == NULL || ex->ports.closed)
        spk_arrival_free(a, SPOKE_MUX_GOING_AWAY);
    else if (may)
        decide(peer, a);
    else
        refuse(peer, a, (struct verdict){SPOKE_MUX_NOT_PERMITTED, "it is not permitted"});
    free_peer_if_done(peer);
}

void
spk_exporter_ask_user(struct spk_ports *ps)
{
    struct spk_exporter *ex = SPK_OWNER(ps, struct spk_exporter, ports);
    bool any;

    do {
        any = false;
        SPK_LIST_EACH(link, &ex->peers)
        {
            struct spk_peer *peer = SPK_OWNER(link, struct spk_peer, link);

            if (!spk_list_empty(&peer->undecided)) {
                any = true;
                ask(peer);
                break; /* the list may be another now */
            }
        }
    } while (any);
}

/* ---- connections ---- */

static void
turn_away(struct spk_exporter *ex, const char *address)
{
    struct spoke_port_event event = {
        .type = SPOKE_PORT_REFUSED, .code = SPOKE_ELIMIT, .text = "there are too many connections"};

    snprintf(event.peer, sizeof event.peer, "%s", address);
    spk_ports_event(&ex->ports, &event);
}

static int
new_peer(struct spk_exporter *ex, struct spk_conn *c, const char *address)
{
    struct spk_peer *peer;
    int rc;

    if (ex->connections >= ex->config.connections) {
        turn_away(ex, address);
        return SPOKE_ELIMIT;
    }
    peer = spk_zalloc(sizeof *peer);
    if (peer == NULL)
        return SPOKE_ENOMEM;
    if ((rc = spk_session_new(&peer->ss, c, &ex->config.session)) != 0) {
        spk_free(peer);
        return rc;
    }
    peer->ex = ex;
    snprintf(peer->address, sizeof peer->address, "%s", address);
    spk_task_init(&peer->task, on_task);
    spk_list_init(&peer->undecided);
    spk_list_append(&ex->peers, &peer->link);
    ex->connections++;
    peer->ss->watcher = &peer->task;
    spk_session_on_role(peer->ss, SPK_ROLE_PORT, on_import, peer);
    return 0;
}

int
spoke_exporter_serve_stream(spoke_exporter *handle, spoke_stream *s)
{
    char address[256] = "";
    struct spk_exporter *ex;
    void *object;
    int rc;

    if (s == NULL)
        return SPOKE_EINVAL;
    (void)spoke_stream_address(s, SPOKE_REMOTE, address, sizeof address);
    if ((rc = spk_exporter_enter(handle, &ex)) != 0)
        return rc;
    if (ex->ports.closing)
        rc = SPOKE_ECLOSED;
    else if ((rc = spk_handle_join(s, SPK_HANDLE_STREAM, ex->ports.e, &object)) == 0 &&
             (rc = spk_conn_check_take(object)) == 0)
        rc = new_peer(ex, object, address);
    spk_ports_leave(&ex->ports);
    return rc;
}

struct listening {
    struct spk_link link;
    spoke_stream_listener *handle;
};

static bool
may_come_in(spoke_exporter *handle, spoke_stream *s)
{
    const spoke_session_config *config;
    struct spk_exporter *ex;
    bool may = true;

    if (spk_exporter_enter(handle, &ex) != 0)
        return false;
    config = &ex->config.session;
    if (config->authenticate != NULL) {
        spk_engine_call_begin(ex->ports.e, &ex->ports);
        may = config->authenticate(config->ctx, s) == 0;
        spk_engine_call_end(ex->ports.e);
    }
    spk_ports_leave(&ex->ports);
    return may;
}

/* The next connection.  False: there is none. */
static bool
serve_next(spoke_exporter *handle, spoke_stream_listener *l)
{
    spoke_stream *s;

    if (spoke_stream_accept(l, &s, SPOKE_NOW) != 0)
        return false;
    if (!may_come_in(handle, s) || spoke_exporter_serve_stream(handle, s) != 0)
        (void)spoke_stream_close(s);
    return true;
}

static void
on_connections(spoke_stream_listener *l, void *ctx)
{
    while (serve_next(ctx, l)) {
    }
}

int
spoke_exporter_serve(spoke_exporter *handle, spoke_stream_listener *l)
{
    struct listening *item;
    struct spk_exporter *ex;
    void *object;
    int rc;

    if (l == NULL)
        return SPOKE_EINVAL;
    if ((rc = spk_exporter_enter(handle, &ex)) != 0)
        return rc;
    if (ex->ports.closing)
        rc = SPOKE_ECLOSED;
    else if ((rc = spk_handle_join(l, SPK_HANDLE_STREAM_LISTENER, ex->ports.e, &object)) == 0 &&
             (item = spk_zalloc(sizeof *item)) == NULL)
        rc = SPOKE_ENOMEM;
    if (rc == 0) {
        item->handle = l;
        spk_list_append(&ex->listeners, &item->link);
    }
    spk_ports_leave(&ex->ports);
    return rc != 0 ? rc : spoke_stream_listener_on_ready(l, on_connections, handle);
}

int
spoke_exporter_listen(spoke_exporter *handle, const char *url, char *address)
{
    spoke_stream_config config;
    spoke_stream_listener *l;
    struct spk_exporter *ex;
    struct spk_engine *e;
    int rc;

    if (address != NULL)
        *address = '\0';
    if (url == NULL)
        return SPOKE_EINVAL;
    if ((rc = spk_exporter_enter(handle, &ex)) != 0)
        return rc;
    e = ex->ports.e;
    config = ex->config.session.stream;
    rc = spk_stream_config_keep(&config); /* others may close the exporter meanwhile */
    spk_ports_leave(&ex->ports);
    if (rc != 0)
        return rc;
    rc = spoke_stream_listen(&l, url, &config, e->handle);
    spk_stream_config_drop(&config);
    if (rc != 0)
        return rc;
    if (address != NULL)
        (void)spoke_stream_listener_address(l, address, 256);
    if ((rc = spoke_exporter_serve(handle, l)) != 0)
        (void)spoke_stream_listener_close(l);
    return rc;
}

/* Without the engine, as it waits until addresses are free again. */
void
spk_exporter_close_listeners(struct spk_link *listeners)
{
    struct spk_link *link;

    while ((link = spk_list_take(listeners)) != NULL) {
        struct listening *item = SPK_OWNER(link, struct listening, link);

        (void)spoke_stream_listener_close(item->handle);
        spk_free(item);
    }
}

void
spk_exporter_forget_listeners(struct spk_exporter *ex)
{
    struct spk_link *link;

    while ((link = spk_list_take(&ex->listeners)) != NULL)
        spk_free(SPK_OWNER(link, struct listening, link));
}
