/* SPDX-License-Identifier: MIT */
/* The users' calls on sessions: making one, its end, and what is known of it. */
#include <string.h>

#include "protocols/channel/session.h"

/* ---- making one ---- */

/* Of a stream, which it takes on success.  With its engine entered. */
static int
make(struct spk_session **out, struct spk_conn *carrier, const spoke_session_config *config)
{
    int rc = spk_session_new(out, carrier, config);

    if (rc == 0 &&
        (rc = spk_handle_new(SPK_HANDLE_SESSION, *out, carrier->e, &(*out)->handle)) != 0)
        spk_session_let_go(*out);
    return rc;
}

int
spoke_session_open(spoke_session **out, spoke_stream *carrier, const spoke_session_config *config)
{
    spoke_session_config own;
    struct spk_session *ss;
    struct spk_conn *c;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if ((rc = spk_session_read_config(&own, config)) != 0 ||
        (rc = spk_conn_enter(carrier, &c)) != 0)
        return rc;
    struct spk_engine *e = c->e;
    if ((rc = spk_conn_check_take(c)) == 0 && (rc = make(&ss, c, &own)) == 0)
        *out = ss->handle;
    spk_engine_leave(e);
    return rc;
}

/* Until the peer has shown that it speaks this. */
static int
wait_heard(struct spk_session *ss, spoke_ns deadline)
{
    int rc = 0;

    ss->callers++;
    while (rc == 0 && !ss->heard && !ss->ended)
        rc = spk_session_wait_on(ss, &ss->end_waiters, deadline);
    if (ss->closed)
        rc = SPOKE_ECLOSED;
    else if (rc == 0 && ss->ended)
        rc = ss->mux->end.code != 0 ? ss->mux->end.code : SPOKE_ECONNRESET;
    ss->callers--;
    return rc;
}

int
spoke_session_dial(spoke_session **out, const char *url, const spoke_session_config *config,
                   spoke_engine *engine, spoke_ns deadline)
{
    spoke_session_config own;
    struct spk_session *ss;
    struct spk_conn *c;
    spoke_stream *carrier;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if ((rc = spk_session_read_config(&own, config)) != 0)
        return rc;
    if (deadline == SPOKE_NOW)
        return SPOKE_EAGAIN;
    own.mux.even = false;
    if ((rc = spoke_stream_dial(&carrier, url, &own.stream, engine, deadline)) != 0)
        return rc;
    if ((rc = spk_conn_enter(carrier, &c)) != 0)
        return rc;
    struct spk_engine *e = c->e;
    if ((rc = spk_conn_check_take(c)) != 0 || (rc = make(&ss, c, &own)) != 0) {
        spk_engine_leave(e);
        (void)spoke_stream_close(carrier);
        return rc;
    }
    if ((rc = wait_heard(ss, deadline)) == 0)
        *out = ss->handle;
    else if (!ss->closed)
        spk_session_let_go(ss);
    else
        spk_session_free_if_done(ss);
    spk_engine_leave(e);
    return rc;
}

/* ---- the end ---- */

static void
linger(struct spk_session *ss, spoke_ns linger_ns)
{
    int rc = 0;

    spk_session_free_handle(ss);
    spk_session_drop_waiting(ss, SPOKE_MUX_GOING_AWAY);
    spk_session_tell(ss);
    spk_mux_leave(ss->mux, spk_later(spk_engine_now(ss->e), linger_ns));
    while (rc == 0 && !ss->ended)
        rc = spk_session_wait_on(ss, &ss->end_waiters, SPOKE_FOREVER);
}

int
spoke_session_close(spoke_session *handle, spoke_ns linger_ns)
{
    struct spk_session *ss;
    int rc;

    if (linger_ns < 0)
        return SPOKE_EINVAL;
    if ((rc = spk_session_enter(handle, &ss)) != 0)
        return rc == SPOKE_ECLOSED && handle != NULL ? 0 : rc;
    ss->callers++;
    if (linger_ns > 0 && !ss->ended)
        linger(ss, linger_ns);
    rc = linger_ns > 0 && ss->ended && ss->mux->cut ? SPOKE_ETIMEDOUT : 0;
    if (linger_ns == 0 || ss->ended)
        spk_session_let_go(ss);
    spk_engine_await_call(ss->e, ss);
    ss->callers--;
    spk_session_leave(ss);
    return rc;
}

int
spoke_session_wait(spoke_session *handle, spoke_ns deadline)
{
    struct spk_session *ss;
    int rc;

    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = spk_session_enter(handle, &ss)) != 0)
        return rc;
    ss->callers++;
    while (!ss->ended && !ss->closed &&
           (rc = spk_session_wait_on(ss, &ss->end_waiters, deadline)) == 0) {
    }
    if (ss->closed)
        rc = SPOKE_ECLOSED;
    ss->callers--;
    spk_session_leave(ss);
    return rc;
}

int
spoke_session_status(spoke_session *handle, struct spoke_mux_end *out)
{
    struct spk_session *ss;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = spk_session_enter(handle, &ss)) != 0)
        return rc;
    if (ss->ended)
        *out = ss->mux->end;
    else
        rc = SPOKE_EAGAIN;
    spk_session_leave(ss);
    return rc;
}

/* ---- who is told, and what is known ---- */

int
spoke_session_fd(spoke_session *handle)
{
    struct spk_session *ss;
    int rc;

    if ((rc = spk_session_enter(handle, &ss)) != 0)
        return rc;
    if ((rc = spk_new_ready_fd(ss->e, &ss->fd)) == 0) {
        spk_session_tell(ss);
        rc = ss->fd;
    }
    spk_session_leave(ss);
    return rc;
}

int
spoke_session_on_ready(spoke_session *handle, spoke_session_ready_f *fn, void *ctx)
{
    struct spk_session *ss;
    int rc;

    if ((rc = spk_session_enter(handle, &ss)) != 0)
        return rc;
    ss->on_ready = fn;
    ss->on_ready_ctx = ctx;
    ss->ready_awaited = true;
    spk_session_tell(ss);
    ss->callers++;
    spk_engine_await_call(ss->e, ss);
    ss->callers--;
    spk_session_leave(ss);
    return 0;
}

void
spk_session_info(const struct spk_session *ss, struct spoke_session_info *out)
{
    memset(out, 0, sizeof *out);
    spk_mux_fill_info(ss->mux, &out->mux);
    out->channels = ss->wire_count;
    out->streams = out->mux.streams > ss->wire_count ? out->mux.streams - ss->wire_count : 0;
    out->waiting = ss->waiting_count + out->mux.waiting;
    out->unclaimed = ss->unclaimed_count;
    out->memory = ss->memory;
    out->refused = ss->refused;
    out->messages_in = ss->messages_in;
    out->messages_out = ss->messages_out;
    out->fds_in = ss->fds_in;
    out->fds_out = ss->fds_out;
    out->pid = ss->pid;
    out->uid = ss->uid;
    out->gid = ss->gid;
}

int
spoke_session_get_info(spoke_session *handle, struct spoke_session_info *out)
{
    struct spk_session *ss;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = spk_session_enter(handle, &ss)) != 0)
        return rc;
    spk_session_info(ss, out);
    spk_session_leave(ss);
    return 0;
}
