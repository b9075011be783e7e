/* SPDX-License-Identifier: MIT */
/* Exporters: names that are offered. */
#include <string.h>

#include "protocols/channel/exporter.h"

#define PER_PEER    1024
#define CONNECTIONS 1024

/* ---- life ---- */

void
spoke_exporter_config_init(spoke_exporter_config *config)
{
    *config = (spoke_exporter_config){
        .connections = CONNECTIONS, .imports_per_peer = PER_PEER, .failures_per_peer = PER_PEER};
    spoke_session_config_init(&config->session);
}

static struct spk_exporter *
exporter_of(struct spk_ports *ps)
{
    return SPK_OWNER(ps, struct spk_exporter, ports);
}

static void
free_if_done(struct spk_ports *ps)
{
    struct spk_exporter *ex = exporter_of(ps);

    if (!spk_ports_are_done(ps) || !spk_list_empty(&ex->peers))
        return;
    spk_ports_fini(ps);
    spk_stream_config_drop(&ex->config.session.stream);
    spk_free(ex);
}

/* Everything ends now. */
static void
let_go(struct spk_exporter *ex)
{
    struct spk_ports *ps = &ex->ports;

    ps->callers++;
    if (!ps->closed)
        spk_handle_free(ps->handle);
    ps->closed = true;
    spk_exporter_forget_listeners(ex);
    while (!spk_list_empty(&ps->ports))
        spk_port_end(SPK_OWNER(ps->ports.next, struct spk_port, link), SPOKE_EMUXCLOSED,
                     SPOKE_MUX_GOING_AWAY, "the exporter was closed");
    while (!spk_list_empty(&ex->peers))
        spk_peer_let_go(SPK_OWNER(ex->peers.next, struct spk_peer, link));
    spk_engine_wake_all(ps->e, &ps->waiters);
    ps->callers--;
}

static void
on_engine_closing(struct spk_layer *layer)
{
    struct spk_exporter *ex = SPK_OWNER(layer, struct spk_exporter, ports.layer);

    let_go(ex);
    free_if_done(&ex->ports);
}

/* Those who send to a name may decide when it ends. */
static void
unbound(struct spk_port *p, struct spk_binding *b, int reason, uint64_t code, const char *text)
{
    bool others = false;

    (void)code;
    (void)text;
    if (p->direction != SPOKE_RECEIVE || p->over || !b->bound)
        return;
    SPK_LIST_EACH(link, &p->bindings)
    {
        const struct spk_binding *other = SPK_OWNER(link, struct spk_binding, link);

        others |= other != b && !other->ended;
    }
    if ((reason == 0 && (p->config.flags & SPOKE_PORT_END_WITH_FIRST) != 0) ||
        (!others && (p->config.flags & SPOKE_PORT_END_WITH_LAST) != 0))
        spk_port_end(p, SPOKE_EOF, 0, "");
}

int
spoke_exporter_open(spoke_exporter **out, const spoke_exporter_config *config, spoke_engine *engine)
{
    spoke_exporter_config defaults;
    struct spk_exporter *ex;
    struct spk_engine *e;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (config == NULL) {
        spoke_exporter_config_init(&defaults);
        config = &defaults;
    }
    if (config->connections < 1 || config->imports_per_peer < 1 || config->failures_per_peer < 0)
        return SPOKE_ERANGE;
    if ((rc = spk_streams_enter(engine, &e)) != 0)
        return rc;
    if ((ex = spk_zalloc(sizeof *ex)) == NULL) {
        rc = SPOKE_ENOMEM;
        goto leave;
    }
    ex->config = *config;
    if ((rc = spk_session_read_config(&ex->config.session, &config->session)) != 0 ||
        (rc = spk_stream_config_keep(&ex->config.session.stream)) != 0) {
        spk_free(ex);
        goto leave;
    }
    if ((rc = spk_handle_new(SPK_HANDLE_EXPORTER, &ex->ports, e, &ex->ports.handle)) != 0) {
        spk_stream_config_drop(&ex->config.session.stream);
        spk_free(ex);
        goto leave;
    }
    ex->config.session.mux.even = true;
    ex->ports.unbound = unbound;
    ex->ports.released = spk_exporter_released;
    ex->ports.is_exporter = true;
    ex->ports.name_peer = spk_exporter_name_peer;
    ex->ports.call = spk_exporter_ask_user;
    ex->ports.free_if_done = free_if_done;
    ex->ports.on_event = config->on_event;
    ex->ports.ctx = config->ctx;
    ex->ports.layer.closing = on_engine_closing;
    spk_list_init(&ex->peers);
    spk_list_init(&ex->listeners);
    spk_ports_init(&ex->ports, e);
    *out = ex->ports.handle;
leave:
    spk_engine_leave(e);
    return rc;
}

int
spk_exporter_enter(const void *handle, struct spk_exporter **ex)
{
    struct spk_ports *ps;
    int rc = spk_ports_enter(handle, SPK_HANDLE_EXPORTER, &ps);

    if (rc == 0)
        *ex = exporter_of(ps);
    return rc;
}

/* ---- names ---- */

static int
export_name(spoke_exporter *handle, const char *name, enum spoke_direction direction,
            const spoke_value_type *type, const spoke_port_config *config, void **end)
{
    spoke_port_config own;
    struct spk_exporter *ex;
    struct spk_port *p;
    int rc;

    if (end == NULL)
        return SPOKE_EINVAL;
    *end = NULL;
    if (name == NULL)
        return SPOKE_EINVAL;
    if ((rc = spk_port_check_name(name, strlen(name))) != 0 ||
        (rc = spk_port_read_config(&own, config, false)) != 0 ||
        (rc = spk_exporter_enter(handle, &ex)) != 0)
        return rc;
    if (ex->ports.closing)
        rc = SPOKE_ECLOSED;
    else if (spk_ports_find(&ex->ports, name, strlen(name)) != NULL)
        rc = SPOKE_EEXIST;
    else if ((rc = spk_port_new(&p, &ex->ports, name, direction, type, &own)) == 0 &&
             (rc = spk_port_give_end(p, end)) != 0)
        spk_port_abandon(p);
    spk_ports_leave(&ex->ports);
    return rc;
}

int
spoke_exporter_export_sender(spoke_exporter *ex, const char *name, const spoke_value_type *type,
                             const spoke_port_config *config, spoke_sender **tx)
{
    void *end;
    int rc;

    if (tx == NULL)
        return SPOKE_EINVAL;
    rc = export_name(ex, name, SPOKE_SEND, type, config, &end);
    *tx = end;
    return rc;
}

int
spoke_exporter_export_receiver(spoke_exporter *ex, const char *name, const spoke_value_type *type,
                               const spoke_port_config *config, spoke_receiver **rx)
{
    void *end;
    int rc;

    if (rx == NULL)
        return SPOKE_EINVAL;
    rc = export_name(ex, name, SPOKE_RECEIVE, type, config, &end);
    *rx = end;
    return rc;
}

/* ---- waiting, and the end ---- */

static int
sync_all(spoke_exporter *handle, bool all, spoke_ns deadline)
{
    struct spk_exporter *ex;
    int rc;

    if ((rc = spk_exporter_enter(handle, &ex)) != 0)
        return rc;
    rc = spk_ports_sync(&ex->ports, all, deadline);
    spk_ports_leave(&ex->ports);
    /* Those who went have not to be waited for, and what they had goes to others or is counted. */
    return rc;
}

int
spoke_exporter_sync(spoke_exporter *ex, spoke_ns deadline)
{
    return sync_all(ex, false, deadline);
}

int
spoke_exporter_drain(spoke_exporter *ex, spoke_ns deadline)
{
    return sync_all(ex, true, deadline);
}

int
spoke_exporter_hangup(spoke_exporter *handle, const char *name)
{
    struct spk_exporter *ex;
    int rc;

    if (name == NULL)
        return SPOKE_EINVAL;
    if ((rc = spk_exporter_enter(handle, &ex)) != 0)
        return rc;
    rc = spk_ports_hang_up(&ex->ports, name);
    spk_ports_leave(&ex->ports);
    return rc;
}

/* New ones are not taken from now on. */
static int
begin_to_close(spoke_exporter *handle, struct spk_link *listeners)
{
    struct spk_exporter *ex;
    int rc;

    spk_list_init(listeners);
    if ((rc = spk_exporter_enter(handle, &ex)) != 0)
        return rc;
    if (ex->ports.closing)
        rc = SPOKE_ECLOSED;
    ex->ports.closing = true;
    spk_list_splice(listeners, &ex->listeners);
    spk_ports_leave(&ex->ports);
    return rc;
}

int
spoke_exporter_close(spoke_exporter *handle, spoke_ns linger_ns)
{
    struct spk_link listeners;
    struct spk_exporter *ex;
    int rc;

    if (handle == NULL || linger_ns < 0)
        return SPOKE_EINVAL;
    if ((rc = begin_to_close(handle, &listeners)) != 0)
        return rc == SPOKE_ECLOSED ? 0 : rc;
    spk_exporter_close_listeners(&listeners);
    if (spk_exporter_enter(handle, &ex) != 0)
        return 0; /* with its engine */
    if (linger_ns > 0)
        rc = spk_ports_finish(&ex->ports, spk_later(spk_engine_now(ex->ports.e), linger_ns));
    let_go(ex);
    spk_ports_await_call(&ex->ports);
    spk_ports_leave(&ex->ports);
    return rc;
}
