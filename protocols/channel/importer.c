/* SPDX-License-Identifier: MIT */
/* Importers: names that are bound. */
#include <stdio.h>
#include <string.h>

#include "protocols/channel/importer.h"

#define ERRORS 10

/* ---- life ---- */

void
spoke_importer_config_init(spoke_importer_config *config)
{
    *config = (spoke_importer_config){.errors = ERRORS};
    spoke_session_config_init(&config->session);
}

static struct spk_importer *
importer_of(struct spk_ports *ps)
{
    return SPK_OWNER(ps, struct spk_importer, ports);
}

static void
free_importer(struct spk_importer *im)
{
    spk_free(im->errors);
    spk_free(im->url);
    spk_stream_config_drop(&im->config.session.stream);
    spk_free(im);
}

static void
free_if_done(struct spk_ports *ps)
{
    struct spk_importer *im = importer_of(ps);

    if (!spk_ports_are_done(ps) || im->ss != NULL)
        return;
    spk_task_cancel(&im->task);
    spk_timer_cancel(ps->e, &im->timer);
    spk_ports_fini(ps);
    free_importer(im);
}

void
spk_importer_let_go(struct spk_importer *im)
{
    struct spk_ports *ps = &im->ports;

    ps->callers++;
    if (!ps->closed)
        spk_handle_free(ps->handle);
    ps->closed = true;
    if (im->reason == 0)
        im->reason = SPOKE_EMUXCLOSED;
    spk_timer_cancel(ps->e, &im->timer);
    while (!spk_list_empty(&ps->ports))
        spk_port_end(SPK_OWNER(ps->ports.next, struct spk_port, link), SPOKE_EMUXCLOSED,
                     SPOKE_MUX_CANCELED, "the importer was closed");
    spk_importer_disconnect(im);
    spk_engine_wake_all(ps->e, &ps->waiters);
    ps->callers--;
}

static void
on_engine_closing(struct spk_layer *layer)
{
    struct spk_importer *im = SPK_OWNER(layer, struct spk_importer, ports.layer);

    im->dialing = NULL; /* closes with the engine, too */
    spk_importer_let_go(im);
    free_if_done(&im->ports);
}

int
spk_importer_enter(const void *handle, struct spk_importer **im)
{
    struct spk_ports *ps;
    int rc = spk_ports_enter(handle, SPK_HANDLE_IMPORTER, &ps);

    if (rc == 0)
        *im = importer_of(ps);
    return rc;
}

/* ---- making one ---- */

static int
read_config(spoke_importer_config *out, const spoke_importer_config *config)
{
    spoke_session_config session;
    int rc;

    if (config == NULL)
        spoke_importer_config_init(out);
    else
        *out = *config;
    if (out->reconnect_ns < 0 || out->reconnect_max_ns < 0 || out->errors < 0 ||
        out->errors > UINT16_MAX)
        return SPOKE_ERANGE;
    if (out->reconnect_max_ns < out->reconnect_ns)
        out->reconnect_max_ns = out->reconnect_ns;
    if ((rc = spk_session_read_config(&session, &out->session)) == 0)
        out->session = session;
    out->session.mux.even = false;
    return rc;
}

static int
new_importer(struct spk_importer **out, const spoke_importer_config *config, const char *url)
{
    struct spk_importer *im = spk_zalloc(sizeof *im);
    int rc;

    if (im == NULL)
        return SPOKE_ENOMEM;
    im->config = *config;
    if ((rc = spk_stream_config_keep(&im->config.session.stream)) != 0) {
        spk_free(im);
        return rc;
    }
    im->errors = spk_zalloc((size_t)config->errors * sizeof *im->errors + 1);
    if (url != NULL && (im->url = spk_zalloc(strlen(url) + 1)) != NULL)
        memcpy(im->url, url, strlen(url));
    if (im->errors == NULL || (url != NULL && im->url == NULL)) {
        free_importer(im);
        return SPOKE_ENOMEM;
    }
    *out = im;
    return 0;
}

/* Of a stream, which it takes on success.  With its engine entered. */
static int
make(struct spk_importer **out, struct spk_conn *c, const char *url, const char *address,
     const spoke_importer_config *config)
{
    struct spk_importer *im;
    int rc;

    if ((rc = spk_conn_check_take(c)) != 0)
        return rc;
    if ((rc = new_importer(&im, config, url)) != 0)
        return rc;
    snprintf(im->address, sizeof im->address, "%s", address);
    if ((rc = spk_handle_new(SPK_HANDLE_IMPORTER, &im->ports, c->e, &im->ports.handle)) != 0) {
        free_importer(im);
        return rc;
    }
    im->ports.free_if_done = free_if_done;
    im->ports.layer.closing = on_engine_closing;
    im->ports.on_event = config->on_event;
    im->ports.ctx = config->ctx;
    spk_importer_init(im, c->e);
    if ((rc = spk_importer_connect(im, c)) != 0) {
        spk_importer_let_go(im);
        free_if_done(&im->ports);
        return rc;
    }
    *out = im;
    return 0;
}

static int
make_of_stream(struct spk_importer **out, spoke_stream *s, const char *url,
               const spoke_importer_config *config)
{
    char address[256] = "";
    struct spk_engine *e;
    struct spk_conn *c;
    int rc;

    (void)spoke_stream_address(s, SPOKE_REMOTE, address, sizeof address);
    if ((rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    e = c->e;
    if ((rc = make(out, c, url, address, config)) == 0)
        (*out)->ports.callers++; /* the call that goes on */
    spk_engine_leave(e);
    return rc;
}

int
spoke_importer_open(spoke_importer **out, spoke_stream *s, const spoke_importer_config *config)
{
    spoke_importer_config own;
    struct spk_importer *im;
    void *handle;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (s == NULL)
        return SPOKE_EINVAL;
    if ((rc = read_config(&own, config)) != 0)
        return rc;
    if (own.reconnect_ns > 0)
        return SPOKE_ERANGE; /* to where? */
    if ((rc = make_of_stream(&im, s, NULL, &own)) != 0)
        return rc;
    handle = im->ports.handle;
    if (spk_engine_enter(im->ports.e) == 0)
        spk_ports_leave(&im->ports);
    *out = handle;
    return 0;
}

/* Until the exporter has shown that it speaks this, or the first connection is lost. */
static int
wait_known(struct spk_importer *im, spoke_ns deadline)
{
    int rc = 0;

    while (rc == 0 && !im->is_known && im->reason == 0 && im->ss != NULL) {
        spk_mux_await(im->ss->mux);
        rc = spk_ports_wait(&im->ports, deadline);
    }
    if (rc == 0 && !im->is_known)
        rc = im->reason != 0 ? im->reason : im->dial_error;
    return rc;
}

int
spoke_importer_dial(spoke_importer **out, const char *url, const spoke_importer_config *config,
                    spoke_engine *engine, spoke_ns deadline)
{
    spoke_importer_config own;
    struct spk_importer *im;
    spoke_stream *s;
    void *handle;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (url == NULL || deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = read_config(&own, config)) != 0)
        return rc;
    if (deadline == SPOKE_NOW)
        return SPOKE_EAGAIN;
    if ((rc = spoke_stream_dial(&s, url, &own.session.stream, engine, deadline)) != 0)
        return rc;
    if ((rc = make_of_stream(&im, s, url, &own)) != 0) {
        (void)spoke_stream_close(s);
        return rc;
    }
    handle = im->ports.handle;
    if ((rc = spk_engine_enter(im->ports.e)) != 0)
        return rc;
    if ((rc = wait_known(im, deadline)) != 0 && !im->ports.closed)
        spk_importer_let_go(im);
    else if (rc == 0)
        *out = handle;
    spk_ports_leave(&im->ports);
    return rc;
}

/* ---- names ---- */

/* Until the exporter has answered. */
static int
wait_bound(struct spk_importer *im, struct spk_port *p, spoke_ns deadline)
{
    int rc = 0;

    p->pins++;
    while (rc == 0 && !p->was_bound && !p->over) {
        if (im->ss != NULL)
            spk_mux_await(im->ss->mux);
        rc = spk_ports_wait(&im->ports, deadline);
    }
    p->pins--;
    if (p->was_bound && p->ch != NULL)
        return 0;
    return rc == 0 ? p->reason : rc;
}

static int
import(struct spk_importer *im, const char *name, enum spoke_direction direction,
       const spoke_value_type *type, const spoke_port_config *config, void **end, spoke_ns deadline)
{
    struct spk_port *p;
    int rc;

    if (im->ports.closing)
        return SPOKE_ECLOSED;
    if (im->reason != 0)
        return im->reason;
    if (spk_ports_find(&im->ports, name, strlen(name)) != NULL)
        return SPOKE_EEXIST;
    if ((rc = spk_port_new(&p, &im->ports, name, direction, type, config)) != 0)
        return rc;
    if (im->ss != NULL && !im->ss->ended)
        rc = spk_importer_bind(im, p);
    else if (im->ss != NULL && im->config.reconnect_ns == 0)
        rc = SPOKE_EMUXCLOSED;
    if (rc == 0)
        rc = wait_bound(im, p, deadline);
    if (rc == 0)
        rc = spk_port_give_end(p, end);
    if (rc != 0)
        spk_port_abandon(p);
    return rc;
}

static int
import_name(spoke_importer *handle, const char *name, enum spoke_direction direction,
            const spoke_value_type *type, const spoke_port_config *config, void **end,
            spoke_ns deadline)
{
    spoke_port_config own;
    struct spk_importer *im;
    int rc;

    *end = NULL;
    if (name == NULL || deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = spk_port_check_name(name, strlen(name))) != 0 ||
        (rc = spk_port_read_config(&own, config, true)) != 0 ||
        (rc = spk_importer_enter(handle, &im)) != 0)
        return rc;
    rc = import(im, name, direction, type, &own, end, deadline);
    spk_ports_leave(&im->ports);
    return rc;
}

int
spoke_importer_import_receiver(spoke_importer *im, const char *name, const spoke_value_type *type,
                               const spoke_port_config *config, spoke_receiver **rx,
                               spoke_ns deadline)
{
    void *end;
    int rc;

    if (rx == NULL)
        return SPOKE_EINVAL;
    rc = import_name(im, name, SPOKE_RECEIVE, type, config, &end, deadline);
    *rx = end;
    return rc;
}

int
spoke_importer_import_sender(spoke_importer *im, const char *name, const spoke_value_type *type,
                             const spoke_port_config *config, spoke_sender **tx, spoke_ns deadline)
{
    void *end;
    int rc;

    if (tx == NULL)
        return SPOKE_EINVAL;
    rc = import_name(im, name, SPOKE_SEND, type, config, &end, deadline);
    *tx = end;
    return rc;
}

int
spoke_importer_hangup(spoke_importer *handle, const char *name)
{
    struct spk_importer *im;
    int rc;

    if (name == NULL)
        return SPOKE_EINVAL;
    if ((rc = spk_importer_enter(handle, &im)) != 0)
        return rc;
    rc = spk_ports_hang_up(&im->ports, name);
    spk_ports_leave(&im->ports);
    return rc;
}

/* ---- waiting ---- */

int
spoke_importer_next_error(spoke_importer *handle, struct spoke_port_event *out, uint64_t *lost,
                          spoke_ns deadline)
{
    struct spk_importer *im;
    int rc;

    if (out == NULL || deadline < 0)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = spk_importer_enter(handle, &im)) != 0)
        return rc;
    while (im->error_count == 0 && rc == 0) {
        rc = spk_ports_wait(&im->ports, deadline);
        if (im->ports.closed)
            rc = SPOKE_ECLOSED;
    }
    if (lost != NULL)
        *lost = im->errors_lost;
    if (rc == 0) {
        *out = im->errors[im->error_first];
        im->error_first = (im->error_first + 1) % (uint32_t)im->config.errors;
        im->error_count--;
    }
    spk_ports_leave(&im->ports);
    return rc;
}

static int
sync_all(spoke_importer *handle, bool all, spoke_ns deadline)
{
    struct spk_importer *im;
    int rc;

    if ((rc = spk_importer_enter(handle, &im)) != 0)
        return rc;
    rc = spk_ports_sync(&im->ports, all, deadline);
    spk_ports_leave(&im->ports);
    return rc;
}

int
spoke_importer_sync(spoke_importer *im, spoke_ns deadline)
{
    return sync_all(im, false, deadline);
}

int
spoke_importer_drain(spoke_importer *im, spoke_ns deadline)
{
    return sync_all(im, true, deadline);
}

int
spoke_importer_close(spoke_importer *handle, spoke_ns linger_ns)
{
    struct spk_importer *im;
    spoke_stream *dialing;
    int rc;

    if (handle == NULL || linger_ns < 0)
        return SPOKE_EINVAL;
    if ((rc = spk_importer_enter(handle, &im)) != 0)
        return rc == SPOKE_ECLOSED ? 0 : rc;
    if (im->ports.closing) {
        spk_ports_leave(&im->ports);
        return 0;
    }
    im->ports.closing = true;
    if (linger_ns > 0) {
        spoke_ns until = spk_later(spk_engine_now(im->ports.e), linger_ns);

        rc = spk_ports_finish(&im->ports, until);
        while (rc == 0 && im->ss != NULL) {
            spk_mux_leave(im->ss->mux, until);
            rc = spk_ports_wait(&im->ports, until);
        }
        rc = rc == SPOKE_EDEADLK ? 0 : rc;
    }
    dialing = im->dialing;
    im->dialing = NULL;
    spk_importer_let_go(im);
    spk_ports_await_call(&im->ports);
    spk_ports_leave(&im->ports);
    if (dialing != NULL)
        (void)spoke_stream_close(dialing);
    return rc;
}
