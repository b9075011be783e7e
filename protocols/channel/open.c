/* SPDX-License-Identifier: MIT */
/* The users' calls on sessions: opening and accepting channels and streams. */
#include <string.h>

#include "protocols/channel/session.h"

/* ---- opening channels ---- */

static int
channel_config(spoke_channel_config *out, const spoke_channel_config *config)
{
    if (config == NULL)
        spoke_channel_config_init(out);
    else
        *out = *config;
    return spk_channel_check_config(out);
}

static void
close_both(struct spk_channel *ch)
{
    for (int side = SPK_SENDS; side <= SPK_RECEIVES; side++)
        spk_channel_close(ch, (enum spk_channel_side)side, SPOKE_ECLOSED, true, 0, NULL);
    spk_channel_free_if_done(ch);
}

static int
start_channel(struct spk_session *ss, bool sends, const spoke_channel_config *config,
              struct spk_channel **ch, struct spk_wire **w)
{
    uint8_t bytes[SPOKE_MUX_META_MAX];
    struct spk_wire_config own = {.sends = sends, .is_ours = true};
    struct spk_conn *conn;
    struct spk_meta meta;
    uint64_t id;
    int rc;

    if ((rc = spk_session_check(ss)) != 0 || (rc = spk_channel_new(ch, ss->e, config)) != 0)
        return rc;
    if ((*ch)->depth == 0) /* from process to process */
        (*ch)->depth = 1;
    meta = spk_end_meta(*ch, SPK_ROLE_CHANNEL, sends, 0);
    own.granted = meta.limit;
    if (sends)
        spk_end_hold(*ch);
    if ((rc = spk_mux_open_stream(ss->mux, bytes, spk_meta_encode(bytes, sizeof bytes, &meta),
                                  &conn, &id)) == 0) {
        if ((rc = spk_end_open(w, ss, conn, id, *ch, &own)) == 0)
            return 0;
        spk_conn_give_up(conn);
    }
    close_both(*ch);
    return rc;
}

/* Until the peer has accepted it. */
static int
wait_opened(struct spk_session *ss, struct spk_wire *w, uint64_t *code, spoke_ns deadline)
{
    struct spk_opening opening = {.done = false};
    int rc = 0;

    spk_list_init(&opening.waiters);
    spk_wire_await(w, &opening);
    while (rc == 0 && !opening.done)
        rc = spk_session_wait_on(ss, &opening.waiters, deadline);
    if (!opening.done) {
        spk_wire_await(w, NULL);
        spk_wire_break(w, SPOKE_ECANCELED, SPOKE_MUX_CANCELED, "");
        return rc;
    }
    if (code != NULL)
        *code = opening.code;
    return opening.rc != 0 && ss->ended ? (ss->closed ? SPOKE_ECLOSED : SPOKE_EMUXCLOSED)
                                        : opening.rc;
}

static int
open_channel(spoke_session *handle, bool sends, const spoke_channel_config *config, void **out,
             uint64_t *code, spoke_ns deadline)
{
    enum spk_channel_side side = sends ? SPK_SENDS : SPK_RECEIVES;
    spoke_channel_config own;
    struct spk_session *ss;
    struct spk_channel *ch;
    struct spk_wire *w;
    int rc;

    if (code != NULL)
        *code = SPOKE_MUX_NONE;
    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = channel_config(&own, config)) != 0 || (rc = spk_session_enter(handle, &ss)) != 0)
        return rc;
    ss->callers++;
    if ((rc = start_channel(ss, sends, &own, &ch, &w)) == 0) {
        ch->ends[side].callers++;
        if (deadline != SPOKE_NOW)
            rc = wait_opened(ss, w, code, deadline);
        ch->ends[side].callers--;
        if (rc == 0)
            rc = spk_channel_give(ch, side, out);
        if (rc != 0) {
            spk_channel_close(ch, side, sends ? SPOKE_EABORTED : SPOKE_EPEERCLOSED, true,
                              SPOKE_MUX_CANCELED, NULL);
            spk_channel_free_if_done(ch);
        }
    }
    ss->callers--;
    spk_session_leave(ss);
    return rc;
}

int
spoke_session_open_sender(spoke_session *ss, spoke_sender **out, const spoke_channel_config *config,
                          uint64_t *code, spoke_ns deadline)
{
    void *handle = NULL;
    int rc = out == NULL ? SPOKE_EINVAL : open_channel(ss, true, config, &handle, code, deadline);

    if (out != NULL)
        *out = handle;
    return rc;
}

int
spoke_session_open_receiver(spoke_session *ss, spoke_receiver **out,
                            const spoke_channel_config *config, uint64_t *code, spoke_ns deadline)
{
    void *handle = NULL;
    int rc = out == NULL ? SPOKE_EINVAL : open_channel(ss, false, config, &handle, code, deadline);

    if (out != NULL)
        *out = handle;
    return rc;
}

/* ---- accepting channels ---- */

static bool
has_our_type(const struct spk_arrival *a, const spoke_value_type *type)
{
    return type == NULL || !a->meta.has_type ||
           memcmp(a->meta.type, type->fingerprint, sizeof a->meta.type) == 0;
}

/* The peer's type, where this end says none. */
static void
note_type(struct spk_channel *ch, const struct spk_meta *meta)
{
    if (spk_channel_type(ch) != NULL)
        return;
    ch->has_fingerprint = meta->has_type;
    ch->has_layout = meta->has_layout;
    memcpy(ch->fingerprint, meta->type, sizeof ch->fingerprint);
    memcpy(ch->layout, meta->layout, sizeof ch->layout);
}

/* Takes a. */
static int
take_channel(struct spk_session *ss, enum spk_channel_side side, struct spk_arrival *a,
             const spoke_channel_config *config, void **out)
{
    const struct spk_wire_config own = {.sends = side == SPK_SENDS, .meta = &a->meta};
    struct spk_channel *ch;
    struct spk_wire *w;
    int rc;

    if ((rc = spk_channel_new(&ch, ss->e, config)) == 0) {
        if (ch->depth == 0)
            ch->depth = 1;
        note_type(ch, &a->meta);
        if (side == SPK_SENDS)
            spk_end_hold(ch);
        if ((rc = spk_channel_give(ch, side, out)) == 0 &&
            (rc = spk_end_open(&w, ss, a->conn, a->id, ch, &own)) == 0)
            a->conn = NULL;
        else
            close_both(ch);
    }
    spk_arrival_free(a, SPOKE_MUX_INTERNAL);
    return rc;
}

/* The one that has waited longest, but those of another type. */
static int
accept_now(struct spk_session *ss, enum spk_channel_side side, const spoke_channel_config *config,
           void **out)
{
    struct spk_arrival *a;

    while ((a = spk_session_next_waiting(ss, side)) != NULL) {
        if (has_our_type(a, config->type))
            return take_channel(ss, side, a, config, out);
        spk_arrival_refuse(ss, a, SPOKE_MUX_TYPE, "its messages are of another type");
    }
    return SPOKE_EAGAIN;
}

static int
accept_channel(spoke_session *handle, enum spk_channel_side side,
               const spoke_channel_config *config, void **out, spoke_ns deadline)
{
    spoke_channel_config own;
    struct spk_session *ss;
    int rc;

    if (deadline < 0)
        return SPOKE_EINVAL;
    if (config != NULL && (rc = channel_config(&own, config)) != 0)
        return rc;
    if ((rc = spk_session_enter(handle, &ss)) != 0)
        return rc;
    if (config == NULL)
        own = ss->config.channel;
    ss->callers++;
    while ((rc = spk_session_check(ss)) == 0 &&
           (rc = accept_now(ss, side, &own, out)) == SPOKE_EAGAIN &&
           (rc = spk_session_wait_on(ss, &ss->accept_waiters, deadline)) == 0) {
    }
    ss->ready_awaited |= rc == SPOKE_EAGAIN;
    spk_session_tell(ss);
    ss->callers--;
    spk_session_leave(ss);
    return rc;
}

int
spoke_session_accept_receiver(spoke_session *ss, spoke_receiver **out,
                              const spoke_channel_config *config, spoke_ns deadline)
{
    void *handle = NULL;
    int rc = out == NULL ? SPOKE_EINVAL
                         : accept_channel(ss, SPK_RECEIVES, config, &handle, deadline);

    if (out != NULL)
        *out = handle;
    return rc;
}

int
spoke_session_accept_sender(spoke_session *ss, spoke_sender **out,
                            const spoke_channel_config *config, spoke_ns deadline)
{
    void *handle = NULL;
    int rc = out == NULL ? SPOKE_EINVAL : accept_channel(ss, SPK_SENDS, config, &handle, deadline);

    if (out != NULL)
        *out = handle;
    return rc;
}

/* ---- streams ---- */

static int
open_stream(struct spk_session *ss, struct spk_conn **c)
{
    const struct spk_meta meta = {.role = SPK_ROLE_STREAM};
    uint8_t bytes[64];
    uint64_t id;
    int rc;

    if ((rc = spk_session_check(ss)) != 0 ||
        (rc = spk_mux_open_stream(ss->mux, bytes, spk_meta_encode(bytes, sizeof bytes, &meta), c,
                                  &id)) != 0)
        return rc;
    if ((rc = spk_conn_give_handle(*c)) != 0)
        spk_conn_give_up(*c);
    return rc;
}

int
spoke_session_open_stream(spoke_session *handle, spoke_stream **out, uint64_t *code,
                          spoke_ns deadline)
{
    struct spk_session *ss;
    struct spk_conn *c;
    int rc;

    if (code != NULL)
        *code = SPOKE_MUX_NONE;
    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = spk_session_enter(handle, &ss)) != 0)
        return rc;
    ss->callers++;
    if ((rc = open_stream(ss, &c)) != 0)
        goto leave;
    rc = spk_mux_wait_opened(ss->mux, c, out, code, deadline);
    if (ss->ended && rc != 0 && rc != SPOKE_EREJECTED)
        rc = ss->closed ? SPOKE_ECLOSED : SPOKE_EMUXCLOSED;
leave:
    ss->callers--;
    spk_session_leave(ss);
    return rc;
}

static int
accept_stream_now(struct spk_session *ss, spoke_stream **out)
{
    struct spk_mux_stream *st;
    struct spk_conn *c;
    int rc;

    while ((st = spk_session_next_stream(ss)) != NULL) {
        if ((rc = spk_mux_accept_stream(st, &c)) == SPOKE_ELIMIT) {
            spk_mux_reset(st, SPOKE_MUX_LIMIT);
            continue;
        }
        if (rc == 0 && (rc = spk_conn_give_handle(c)) == 0)
            *out = c->handle;
        else if (rc != 0 && st->conn != NULL)
            spk_conn_give_up(c);
        return rc;
    }
    return SPOKE_EAGAIN;
}

int
spoke_session_accept_stream(spoke_session *handle, spoke_stream **out, spoke_ns deadline)
{
    struct spk_session *ss;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = spk_session_enter(handle, &ss)) != 0)
        return rc;
    ss->callers++;
    while ((rc = spk_session_check(ss)) == 0 && (rc = accept_stream_now(ss, out)) == SPOKE_EAGAIN &&
           (rc = spk_session_wait_on(ss, &ss->accept_waiters, deadline)) == 0) {
    }
    ss->ready_awaited |= rc == SPOKE_EAGAIN;
    spk_session_tell(ss);
    ss->callers--;
    spk_session_leave(ss);
    return rc;
}

/* ---- selecting ---- */

static bool
can_accept_receiver(void *object, spoke_ns *until)
{
    const struct spk_session *ss = object;

    (void)until;
    return ss->ended || spk_session_has_waiting(ss, SPK_RECEIVES);
}

static bool
can_accept_sender(void *object, spoke_ns *until)
{
    const struct spk_session *ss = object;

    (void)until;
    return ss->ended || spk_session_has_waiting(ss, SPK_SENDS);
}

static bool
can_accept_stream(void *object, spoke_ns *until)
{
    const struct spk_session *ss = object;

    (void)until;
    return ss->ended || spk_session_next_stream(ss) != NULL;
}

static struct spk_link *
accepts_of(void *object)
{
    return &((struct spk_session *)object)->selects;
}

static void
arm_accept(void *object)
{
    spk_mux_await(((struct spk_session *)object)->mux);
}

#define ACCEPT(name)                                                                               \
    const struct spk_selectable spk_select_session_accept_##name = {                               \
        .ready = can_accept_##name, .selects = accepts_of, .arm = arm_accept}
ACCEPT(receiver);
ACCEPT(sender);
ACCEPT(stream);
#undef ACCEPT
