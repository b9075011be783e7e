/* SPDX-License-Identifier: MIT */
/* Carriers: one that is dialled, kept, and dialled again when it is lost; and those that come.
 * Streams are opened on the current one, and taken from all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "open_meta.h"
#include "relay.h"
#include "remote.h"
#include "target.h"

#define RETRY_FIRST  (100 * SPOKE_MS)
#define RETRY_MOST   (5 * SPOKE_SECOND)
#define WAITING_LOOK (20 * SPOKE_MS) /* for a place on the carrier, and for whose time is over */
#define BUDGET       ((size_t)64 << 20)
#define STREAM_LEAST ((size_t)16 << 10) /* of that, for each stream */

static void
say(const struct carrier *c, const char *what, const char *why)
{
    if (c->r->verbosity > 0)
        fprintf(stderr, "%s: carrier %llu %s%s%s\n", tool_name, (unsigned long long)c->number, what,
                why != NULL ? ": " : "", why != NULL ? why : "");
}

static void keep(struct relay *r);

/* ---- life ---- */

static struct carrier *
new_carrier(struct relay *r, bool dialed)
{
    struct carrier *c = malloc(sizeof *c);

    if (c == NULL)
        return NULL;
    *c = (struct carrier){.r = r, .dialed = dialed};
    LIST_INIT(&c->requests);
    LIST_INSERT_HEAD(&r->carriers, c, of_all);
    return c;
}

/* The last that has come and takes streams. */
static struct carrier *
another(const struct carrier *than)
{
    struct carrier *c;

    for (c = LIST_FIRST(&than->r->carriers); c != NULL; c = LIST_NEXT(c, of_all)) {
        if (c != than && c->mux != NULL && !c->retired)
            return c;
    }
    return NULL;
}

/* Those who are on it learn of it from their streams. */
static void
remove_carrier(struct carrier *c)
{
    struct relay *r = c->r;

    if (r->current == c)
        r->current = another(c);
    remote_forget(c);
    remote_close(c);
    if (c->stream != NULL)
        (void)spoke_stream_close(c->stream);
    if (c->mux != NULL) {
        (void)spoke_mux_close(c->mux, 0);
        r->carriers_live--;
    }
    LIST_REMOVE(c, of_all);
    free(c);
    if (r->full)
        relay_take_waiting(r);
    relay_check_end(r);
}

/* Has the other side ever said that it is one? */
static bool
was_up(const struct carrier *c)
{
    struct spoke_mux_info info;

    return spoke_mux_get_info(c->mux, &info) == 0 && info.peer_max_streams != UINT32_MAX;
}

/* It takes no more streams; those that it has go on. */
static void
retire(struct carrier *c)
{
    c->retired = true;
    if (c->r->current == c)
        c->r->current = another(c);
    say(c, "takes no more", NULL);
    remote_forget(c);
    if (was_up(c))
        c->r->retry_ns = 0;
    if (c->dialed)
        keep(c->r);
}

static void
tell_lost(const struct carrier *c, bool up, const struct spoke_mux_end *why)
{
    struct relay *r = c->r;

    if (why->code == 0) {
        say(c, "has ended", NULL);
    } else if (!c->dialed) {
        say(c, "is lost", why->text);
    } else if (up) {
        tool_error("the carrier to %s is lost: %s", r->carrier_url, why->text);
        r->carrier_told[0] = '\0';
    } else {
        relay_tell(r, r->carrier_told,
                   "%s is no carrier: %s: look whether it is told to be one there (--mux, or spoke "
                   "mux)",
                   r->carrier_url, why->text);
    }
}

static void
on_closed(spoke_mux *m, const struct spoke_mux_end *why, void *ctx)
{
    struct carrier *c = ctx;
    struct relay *r = c->r;
    bool up = was_up(c), dialed = c->dialed;

    (void)m;
    tell_lost(c, up, why);
    r->carriers_lost += why->code != 0 && (up || !dialed);
    r->carriers_failed += why->code != 0 && !up && dialed;
    if (up)
        r->retry_ns = 0;
    remove_carrier(c);
    if (dialed)
        keep(r);
}

/* ---- streams that come ---- */

/* A request to listen somewhere. */
static uint64_t
judge_listen(const struct relay *r, const struct open_meta *meta, char url[OPEN_META_TEXT_MOST + 1])
{
    char own[OPEN_META_TEXT_MOST + 64];

    if (r->listens == NULL)
        return SPOKE_MUX_UNSUPPORTED;
    snprintf(url, OPEN_META_TEXT_MOST + 1, "%.*s", (int)meta->listen_size, meta->listen);
    return target_may_listen(r->listens, url, own, sizeof own) ? SPOKE_MUX_NONE
                                                               : SPOKE_MUX_NOT_PERMITTED;
}

/* Why one may not wait to be taken; `url` gets what it asks for. */
static uint64_t
judge(const struct relay *r, const void *bytes, size_t size, char url[OPEN_META_TEXT_MOST + 1])
{
    struct open_meta meta;
    uint64_t code = open_meta_read(&meta, bytes, size);

    *url = '\0';
    if (code != SPOKE_MUX_NONE)
        return code;
    if (meta.role != OPEN_META_GATEWAY)
        return judge_listen(r, &meta, url);
    snprintf(url, OPEN_META_TEXT_MOST + 1, "%.*s", (int)meta.target_size,
             meta.target != NULL ? meta.target : "");
    if (r->targets != NULL) {
        if (meta.target == NULL)
            return SPOKE_MUX_NO_SUCH_NAME;
        return target_is_listed(r->targets, url) ? SPOKE_MUX_NONE : SPOKE_MUX_NOT_PERMITTED;
    }
    if (r->target == NULL)
        return SPOKE_MUX_WRONG_DIRECTION;
    return meta.target == NULL || strcmp(url, r->target) == 0 ? SPOKE_MUX_NONE
                                                              : SPOKE_MUX_NOT_PERMITTED;
}

static uint64_t
on_open(spoke_mux *m, const void *bytes, size_t size, void *ctx)
{
    struct carrier *c = ctx;
    char url[OPEN_META_TEXT_MOST + 1];
    uint64_t code = judge(c->r, bytes, size, url);

    (void)m;
    if (code != SPOKE_MUX_NONE) {
        c->r->ever++;
        c->r->refused++;
        say(c, "asked for what it cannot have",
            code == SPOKE_MUX_NOT_PERMITTED ? url : "that is not understood here");
    }
    return code;
}

/* Above the limit the rest waits in the mux. */
static void
on_stream(spoke_mux *m, void *ctx)
{
    struct carrier *c = ctx;
    struct relay *r = c->r;
    struct open_meta meta;
    spoke_stream *s;
    spoke_msg *bytes;

    while (r->signal == 0) {
        if (relay_is_full(r)) {
            r->full = true;
            return;
        }
        if (spoke_mux_take(m, &s, &bytes, SPOKE_NOW) != 0)
            return;
        (void)open_meta_read(&meta, bytes != NULL ? spoke_msg_body(bytes) : NULL,
                             bytes != NULL ? spoke_msg_size(bytes) : 0);
        if (meta.role == OPEN_META_GATEWAY)
            relay_carry_stream(r, s, meta.target, meta.target_size);
        else
            remote_listen(c, s, &meta);
        spoke_msg_free(bytes);
    }
}

void
carrier_take_streams(struct relay *r)
{
    struct carrier *c;

    for (c = LIST_FIRST(&r->carriers); c != NULL; c = LIST_NEXT(c, of_all)) {
        if (c->mux != NULL)
            (void)spoke_mux_on_ready(c->mux, on_stream, c);
    }
}

/* ---- how they come about ---- */

static void
configure(const struct relay *r, bool even, spoke_mux_config *config)
{
    spoke_mux_config_init(config);
    config->even = even;
    config->max_streams = (int)r->rules.streams;
    config->backlog = config->max_streams; /* they are taken as soon as there is room */
    config->session_budget = r->rules.streams * STREAM_LEAST;
    if (config->session_budget < BUDGET)
        config->session_budget = BUDGET;
}

/* Takes the stream on success. */
static int
open_mux(struct carrier *c, spoke_stream *s)
{
    struct relay *r = c->r;
    spoke_mux_config config;
    int rc;

    configure(r, !c->dialed, &config);
    if ((rc = spoke_mux_open(&c->mux, s, &config)) != 0) {
        c->mux = NULL;
        return rc;
    }
    c->number = ++r->carriers_ever;
    r->carriers_live++;
    (void)spoke_mux_on_open(c->mux, on_open, c);
    (void)spoke_mux_on_closed(c->mux, on_closed, c);
    (void)spoke_mux_on_ready(c->mux, on_stream, c);
    r->current = c;
    say(c, c->dialed ? "is connected" : "has come", NULL);
    carrier_serve_waiting(r);
    remote_ask(c);
    return 0;
}

void
carrier_accept(struct relay *r, spoke_stream *s)
{
    struct spoke_stream_info info;
    struct carrier *c;
    int rc = SPOKE_ENOMEM;

    if (spoke_stream_get_info(s, &info) != 0 ||
        !gateway_rules_allow(&r->rules, info.uid, info.gid)) {
        r->carriers_refused++;
        if (r->verbosity > 0)
            tool_error("a carrier is turned away: its user may not");
    } else if ((c = new_carrier(r, false)) != NULL) {
        if ((rc = open_mux(c, s)) == 0)
            return;
        remove_carrier(c);
        r->carriers_failed++;
        if (r->verbosity > 0)
            tool_error("a carrier is turned away: %s", spoke_strerror(rc));
    }
    (void)spoke_stream_abort(s, 0);
    (void)spoke_stream_close(s);
}

/* ---- the one that is kept ---- */

static bool
is_dialing(const struct relay *r)
{
    const struct carrier *c;

    for (c = LIST_FIRST(&r->carriers); c != NULL; c = LIST_NEXT(c, of_all)) {
        if (c->stream != NULL)
            return true;
    }
    return false;
}

static void
dial_failed(struct relay *r, int error)
{
    const char *advice = tool_advice(error, r->carrier_url);

    r->carriers_failed++;
    relay_tell(r, r->carrier_told, "cannot connect to %s, the carrier: %s%s%s", r->carrier_url,
               spoke_strerror(error), advice != NULL ? ": " : "", advice != NULL ? advice : "");
    keep(r);
}

static void
on_dialed(spoke_stream *s, unsigned what, void *ctx)
{
    struct carrier *c = ctx;
    struct relay *r = c->r;
    struct spoke_stream_info info;
    int rc;

    if ((what & SPOKE_STREAM_WRITABLE) == 0 || spoke_stream_get_info(s, &info) != 0)
        return;
    if ((rc = info.write_end) == 0 && (rc = open_mux(c, s)) == 0) {
        c->stream = NULL; /* it is the mux's */
        return;
    }
    remove_carrier(c);
    dial_failed(r, rc);
}

static void
dial(void *ctx)
{
    struct relay *r = ctx;
    struct carrier *c;
    int rc = SPOKE_ENOMEM;

    r->retry_set = false;
    if (r->signal != 0 || r->current != NULL || is_dialing(r))
        return;
    if ((c = new_carrier(r, true)) != NULL &&
        (rc = spoke_stream_dial(&c->stream, r->carrier_url, &r->config, r->e, SPOKE_NOW)) == 0) {
        (void)spoke_stream_on_ready(c->stream, on_dialed, c);
        return;
    }
    if (c != NULL) {
        c->stream = NULL;
        remove_carrier(c);
    }
    dial_failed(r, rc);
}

/* Again, after a time that doubles until there was one; it is not the same for all who lost theirs.
 */
static void
keep(struct relay *r)
{
    spoke_ns wait = r->retry_ns == 0 ? RETRY_FIRST : r->retry_ns;

    if (r->carrier_url == NULL || r->signal != 0 || r->current != NULL || r->retry_set)
        return;
    r->retry_ns = 2 * wait < RETRY_MOST ? 2 * wait : RETRY_MOST;
    wait += spoke_engine_now(r->e) % (wait / 4);
    r->retry_set = spoke_engine_after(r->e, wait, dial, r, NULL) == 0;
}

void
carrier_keep(struct relay *r)
{
    dial(r);
}

/* ---- those who are to be carried ---- */

/* True: it waits no more. */
static bool
dial_link(struct link *k)
{
    struct relay *r = k->r;
    struct carrier *c = k->front->over != NULL ? k->front->over : r->current;
    uint8_t meta[OPEN_META_MOST];
    size_t size = open_meta_write(meta, k->front->target, NULL);
    spoke_stream *out;
    int rc;

    if (c == NULL)
        return false;
    rc = spoke_mux_dial(c->mux, &out, meta, size, NULL, SPOKE_NOW);
    if (rc == SPOKE_EMUXCLOSED || rc == SPOKE_EEXHAUSTED)
        retire(c);
    if (rc != 0) /* also SPOKE_ELIMIT: until there is a place */
        return false;
    TAILQ_REMOVE(&r->waiting, k, of_waiting);
    link_dials(k, out);
    return true;
}

static void
waited_too_long(struct link *k)
{
    const struct relay *r = k->r;
    const char *where = k->front->target != NULL ? k->front->target : "the other side";

    if (k->front->over == NULL && r->current == NULL)
        link_fails(k, SPOKE_MUX_TIMEOUT, where, "there is no carrier", NULL);
    else
        link_fails(k, SPOKE_MUX_TIMEOUT, where, "there is no room on the carrier", NULL);
}

static void serve_later(struct relay *r);

static void
serve_waiting(void *ctx)
{
    struct relay *r = ctx;
    struct link *next;
    spoke_ns now = spoke_engine_now(r->e);

    for (struct link *k = TAILQ_FIRST(&r->waiting); k != NULL; k = next) {
        next = TAILQ_NEXT(k, of_waiting);
        if (now >= k->held_until)
            waited_too_long(k);
        else
            (void)dial_link(k);
    }
    serve_later(r);
}

static void
on_serve_time(void *ctx)
{
    struct relay *r = ctx;

    r->serve_set = false;
    serve_waiting(r);
}

/* For those that still wait then. */
static void
serve_later(struct relay *r)
{
    if (!TAILQ_EMPTY(&r->waiting) && !r->serve_set)
        r->serve_set = spoke_engine_after(r->e, WAITING_LOOK, on_serve_time, r, NULL) == 0;
}

/* Not at once: whoever calls this is in the middle of something. */
void
carrier_serve_waiting(struct relay *r)
{
    if (!TAILQ_EMPTY(&r->waiting))
        (void)spoke_engine_post(r->e, serve_waiting, r);
}

void
carrier_carry(struct link *k)
{
    struct relay *r = k->r;
    bool first = TAILQ_EMPTY(&r->waiting);

    k->is_over = true;
    k->state = LINK_WAITS;
    TAILQ_INSERT_TAIL(&r->waiting, k, of_waiting);
    if (!first || !dial_link(k)) /* others were here before */
        serve_later(r);
}

bool
carrier_tries_again(struct link *k, const struct spoke_stream_info *info)
{
    struct relay *r = k->r;

    if (info->write_end == SPOKE_EREJECTED && info->abort_code != SPOKE_MUX_GOING_AWAY &&
        info->abort_code != SPOKE_MUX_LIMIT && info->abort_code != SPOKE_MUX_BACKLOG)
        return false;
    if (r->signal != 0)
        return false;
    (void)spoke_stream_close(k->out);
    k->out = NULL;
    k->state = LINK_WAITS;
    TAILQ_INSERT_HEAD(&r->waiting, k, of_waiting); /* where it was */
    serve_later(r);
    return true;
}

const char *
carrier_refusal(uint64_t code)
{
    switch (code) {
    case SPOKE_MUX_CONNECT_FAILED: return "the other side cannot reach it";
    case SPOKE_MUX_NOT_PERMITTED: return "the other side does not allow it";
    case SPOKE_MUX_NO_SUCH_NAME: return "the other side has to be told where to connect to";
    case SPOKE_MUX_WRONG_DIRECTION: return "the other side takes no connections";
    case SPOKE_MUX_GOING_AWAY: return "the other side ends";
    case SPOKE_MUX_TIMEOUT: return "the other side took too long";
    case SPOKE_MUX_LIMIT:
    case SPOKE_MUX_BACKLOG: return "the other side has no room for more";
    case SPOKE_MUX_PROTOCOL:
    case SPOKE_MUX_UNSUPPORTED: return "the other side does not understand what is asked for";
    default: return "the other side refused";
    }
}

/* ---- the end ---- */

/* Streams go on, and then a carrier ends by itself. */
void
carriers_go_away(struct relay *r)
{
    struct carrier *c, *next;

    for (c = LIST_FIRST(&r->carriers); c != NULL; c = next) {
        next = LIST_NEXT(c, of_all);
        if (c->mux == NULL) {
            remove_carrier(c);
            continue;
        }
        remote_forget(c);
        remote_close(c);
        (void)spoke_mux_go_away(c->mux, SPOKE_MUX_NONE, NULL);
    }
}

void
carriers_close(struct relay *r)
{
    struct carrier *c, *next;

    for (c = LIST_FIRST(&r->carriers); c != NULL; c = next) {
        next = LIST_NEXT(c, of_all);
        remove_carrier(c);
    }
}
