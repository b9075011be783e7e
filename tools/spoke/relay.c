/* SPDX-License-Identifier: MIT */
/* Connections: how they begin, go through and end. */
#include "relay.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "target.h"

#define LINGER_LOOK SPOKE_MS

void
relay_init(struct relay *r)
{
    *r = (struct relay){.mode = -1,
                        .drain_ns = 10 * SPOKE_SECOND,
                        .hold_ns = 5 * SPOKE_SECOND,
                        .given = GATEWAY_RULES_DEFAULT};
    LIST_INIT(&r->fronts);
    LIST_INIT(&r->links);
    LIST_INIT(&r->carriers);
    TAILQ_INIT(&r->waiting);
}

/* ---- what is said ---- */

static void
print_links(const struct relay *r)
{
    uint64_t there = r->there, back = r->back;
    struct spoke_stream_info info;
    const struct link *k;

    for (k = LIST_FIRST(&r->links); k != NULL; k = LIST_NEXT(k, of_all)) {
        if (k->state == LINK_ENDING) /* they are counted */
            continue;
        if (k->out != NULL && spoke_stream_get_info(k->out, &info) == 0)
            there += info.bytes_written;
        if (spoke_stream_get_info(k->in, &info) == 0)
            back += info.bytes_written;
    }
    printf("%llu connections, %llu ever", (unsigned long long)r->live, (unsigned long long)r->ever);
    if (r->target != NULL || r->carrier_url != NULL)
        printf(", to %s", r->target != NULL ? r->target : r->carrier_url);
    printf(": %llu bytes there, %llu back; refused %llu, could not connect %llu, broken %llu, idle "
           "%llu, cut %llu\n",
           (unsigned long long)there, (unsigned long long)back, (unsigned long long)r->refused,
           (unsigned long long)r->failed, (unsigned long long)r->broken,
           (unsigned long long)r->idle, (unsigned long long)r->cut);
}

static void
print_carriers(const struct relay *r)
{
    uint64_t waiting = 0;
    const struct link *k;

    for (k = TAILQ_FIRST(&r->waiting); k != NULL; k = TAILQ_NEXT(k, of_waiting))
        waiting++;
    printf("%llu carriers, %llu ever: lost %llu, could not connect %llu, refused %llu; %llu "
           "connections wait for one\n",
           (unsigned long long)r->carriers_live, (unsigned long long)r->carriers_ever,
           (unsigned long long)r->carriers_lost, (unsigned long long)r->carriers_failed,
           (unsigned long long)r->carriers_refused, (unsigned long long)waiting);
}

static bool
has_carriers(const struct relay *r)
{
    const struct front *f;

    for (f = LIST_FIRST(&r->fronts); f != NULL; f = LIST_NEXT(f, of_all)) {
        if (f->kind == FRONT_CARRIER)
            return true;
    }
    return r->carrier_url != NULL || r->carriers_ever > 0;
}

void
relay_print_counters(const struct relay *r)
{
    print_links(r);
    if (has_carriers(r))
        print_carriers(r);
    fflush(stdout);
}

static void
say(const struct relay *r, uint64_t number, const char *what, const char *why)
{
    if (r->verbosity > 0)
        fprintf(stderr, "%s: connection %llu %s%s%s\n", tool_name, (unsigned long long)number, what,
                why != NULL ? ": " : "", why != NULL ? why : "");
}

void
link_say(const struct link *k, const char *what, const char *why)
{
    say(k->r, k->number, what, why);
}

void
relay_tell(const struct relay *r, char told[512], const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (r->verbosity > 0 || strcmp(text, told) != 0)
        tool_error("%s", text);
    memcpy(told, text, sizeof text);
}

/* ---- the end of one ---- */

bool
relay_is_full(const struct relay *r)
{
    return r->rules.most > 0 && r->live >= r->rules.most;
}

void
link_remove(struct link *k)
{
    struct relay *r = k->r;

    if (k->state == LINK_WAITS)
        TAILQ_REMOVE(&r->waiting, k, of_waiting);
    if (k->lookup != NULL)
        target_lookup_drop(k->lookup);
    LIST_REMOVE(k, of_all);
    (void)spoke_stream_close(k->in);
    if (k->out != NULL)
        (void)spoke_stream_close(k->out);
    free(k->target);
    free(k);
    r->live--;
    if (r->full)
        relay_take_waiting(r);
    carrier_serve_waiting(r);
    relay_check_end(r);
}

static bool
has_unsent(spoke_stream *s)
{
    struct spoke_stream_info info;

    return spoke_stream_get_info(s, &info) == 0 && info.unsent > 0;
}

/* Once what was written has left: the engine's end would lose it. */
static void
end_link(void *ctx)
{
    struct link *k = ctx;
    struct relay *r = k->r;

    if ((!has_unsent(k->in) && !has_unsent(k->out)) || spoke_engine_now(r->e) >= k->since ||
        spoke_engine_after(r->e, LINGER_LOOK, end_link, k, NULL) != 0)
        link_remove(k);
}

void
link_cut(struct link *k)
{
    k->cut = true;
    (void)spoke_stream_abort(k->in, k->is_stream ? SPOKE_MUX_TIMEOUT : 0);
    if (k->out != NULL)
        (void)spoke_stream_abort(k->out, 0);
    if (k->state < LINK_JOINED)
        link_remove(k);
}

/* The error that there was.  Another end's wish to hear no more is a way to end. */
static int
worst_of(const struct spoke_stream_report *report)
{
    for (int i = 0; i < 2; i++) {
        if (report->result[i] != 0 && report->result[i] != SPOKE_EPEERCLOSED)
            return report->result[i];
    }
    return 0;
}

static void
on_done(void *ctx, const struct spoke_stream_report *report)
{
    struct link *k = ctx;
    struct relay *r = k->r;
    int error = worst_of(report);

    r->there += report->bytes[0];
    r->back += report->bytes[1];
    k->state = LINK_ENDING;
    k->since = spoke_engine_now(r->e) + (error == 0 ? RELAY_LINGER : 0);
    if (error == 0) {
        link_say(k, "has ended", NULL);
    } else if (!k->cut) {
        r->broken++;
        link_say(k, "broke", spoke_strerror(error));
    }
    end_link(k);
}

/* ---- connecting ---- */

void
link_fails(struct link *k, uint64_t code, const char *where, const char *why, const char *advice)
{
    struct relay *r = k->r;

    r->failed++;
    if (why != NULL)
        relay_tell(r, r->told, "cannot connect to %s: %s%s%s", where, why,
                   advice != NULL ? ": " : "", advice != NULL ? advice : "");
    link_say(k, "is turned away", why);
    (void)spoke_stream_abort(k->in, k->is_stream ? code : 0);
    link_remove(k);
}

static void
break_link(struct link *k, int error)
{
    k->r->broken++;
    link_say(k, "broke", spoke_strerror(error));
    (void)spoke_stream_abort(k->in, k->is_stream ? SPOKE_MUX_INTERNAL : 0);
    link_remove(k);
}

/* These are a peer's doing, or ours, after it was there. */
static bool
is_failed_dial(int error)
{
    return error != 0 && error != SPOKE_EPEERCLOSED && error != SPOKE_EABORTED;
}

static void dial(struct link *k);

/* Another address of it, if it has any. */
static void
has_failed(struct link *k, const struct spoke_stream_info *info)
{
    const char *url = k->target != NULL ? k->target : k->r->target;

    if (k->is_over) {
        if (!carrier_tries_again(k, info))
            link_fails(k, SPOKE_MUX_CONNECT_FAILED,
                       k->front->target != NULL ? k->front->target : k->r->carrier_url,
                       info->write_end == SPOKE_EREJECTED ? carrier_refusal(info->abort_code)
                                                          : spoke_strerror(info->write_end),
                       NULL);
        return;
    }
    if (k->lookup != NULL && target_lookup_next(k->lookup)) {
        (void)spoke_stream_close(k->out);
        k->out = NULL;
        dial(k);
        return;
    }
    link_fails(k, SPOKE_MUX_CONNECT_FAILED, url, spoke_strerror(info->write_end),
               tool_advice(info->write_end, url));
}

static int
join(struct link *k)
{
    int rc = k->is_stream ? spoke_mux_confirm(k->in) : 0;

    if (rc == 0 && (rc = spoke_stream_join(k->in, k->out, on_done, k)) == 0)
        k->state = LINK_JOINED;
    return rc;
}

static void
on_dialed(spoke_stream *out, unsigned what, void *ctx)
{
    struct link *k = ctx;
    struct spoke_stream_info info;
    int rc;

    if ((what & SPOKE_STREAM_WRITABLE) == 0 || spoke_stream_get_info(out, &info) != 0)
        return;
    if (is_failed_dial(info.write_end)) {
        has_failed(k, &info);
        return;
    }
    k->r->told[0] = '\0';
    if ((rc = join(k)) != 0)
        break_link(k, rc);
}

void
link_dials(struct link *k, spoke_stream *out)
{
    k->state = LINK_DIALS;
    k->out = out;
    (void)spoke_stream_on_ready(out, on_dialed, k);
}

/* Its target, or the next of that one's addresses. */
static void
dial(struct link *k)
{
    struct relay *r = k->r;
    const char *url = k->lookup != NULL ? target_lookup_url(k->lookup) : r->target;
    struct spoke_stream_info info = {0};
    spoke_stream *out;
    int rc = spoke_stream_dial(&out, url, &r->config, r->e, SPOKE_NOW);

    if (rc == 0) {
        link_dials(k, out);
        return;
    }
    info.write_end = rc;
    has_failed(k, &info);
}

static void
on_looked_up(void *ctx, int error, uint64_t code)
{
    struct link *k = ctx;

    if (error == 0 && code == SPOKE_MUX_NONE)
        dial(k);
    else if (code != SPOKE_MUX_NONE)
        link_fails(k, code, k->target,
                   "that is not allowed: allow it, and the address that it has, with --allow",
                   NULL);
    else
        link_fails(k, SPOKE_MUX_CONNECT_FAILED, k->target, spoke_strerror(error),
                   tool_advice(error, k->target));
}

/* ---- how it begins ---- */

static void
turn_away(struct relay *r, spoke_stream *s, uint64_t code, const char *why)
{
    say(r, r->ever, "is turned away", why);
    (void)spoke_stream_abort(s, code);
    (void)spoke_stream_close(s);
}

static struct link *
new_link(struct relay *r, struct front *f, spoke_stream *in)
{
    struct link *k = malloc(sizeof *k);

    if (k == NULL)
        return NULL;
    *k = (struct link){.r = r,
                       .number = r->ever,
                       .state = LINK_LOOKS,
                       .front = f,
                       .is_stream = f == NULL,
                       .in = in,
                       .since = spoke_engine_now(r->e)};
    k->held_until = k->since + r->hold_ns;
    LIST_INSERT_HEAD(&r->links, k, of_all);
    r->live++;
    return k;
}

void
relay_carry(struct front *f, spoke_stream *in)
{
    struct relay *r = f->r;
    struct spoke_stream_info info;
    struct link *k;

    r->ever++;
    if (spoke_stream_get_info(in, &info) != 0 ||
        !gateway_rules_allow(&r->rules, info.uid, info.gid)) {
        r->refused++;
        turn_away(r, in, 0, "its user may not");
    } else if ((k = new_link(r, f, in)) == NULL) {
        r->broken++;
        turn_away(r, in, 0, "out of memory");
    } else {
        link_say(k, "has come", NULL);
        if (f->kind == FRONT_OVER)
            carrier_carry(k);
        else
            dial(k);
    }
}

/* Its opener wants it no more, before it has its answer: nobody would look at it otherwise. */
static void
on_given_up(spoke_stream *in, unsigned what, void *ctx)
{
    struct link *k = ctx;
    struct spoke_stream_info info;

    if ((what & SPOKE_STREAM_WRITABLE) == 0 || spoke_stream_get_info(in, &info) != 0 ||
        info.write_end == 0 || info.write_end == SPOKE_EPEERCLOSED)
        return;
    break_link(k, info.write_end);
}

void
relay_carry_stream(struct relay *r, spoke_stream *in, const char *target, size_t size)
{
    struct link *k;

    r->ever++;
    if ((k = new_link(r, NULL, in)) == NULL ||
        (target != NULL && (k->target = strndup(target, size)) == NULL)) {
        r->broken++;
        if (k != NULL)
            link_remove(k);
        else
            turn_away(r, in, SPOKE_MUX_INTERNAL, "out of memory");
        return;
    }
    link_say(k, "has come", k->target);
    (void)spoke_stream_on_ready(in, on_given_up, k);
    if (r->targets == NULL) {
        dial(k);
    } else if ((k->lookup = target_look_up(r->targets, k->target, r->e, on_looked_up, k)) == NULL) {
        r->broken++;
        link_remove(k);
    }
}

/* ---- time ---- */

static void
cut_if_idle(struct link *k, spoke_ns now)
{
    struct spoke_stream_info in, out;

    if (k->cut || k->state == LINK_ENDING || k->out == NULL ||
        spoke_stream_get_info(k->in, &in) != 0 || spoke_stream_get_info(k->out, &out) != 0)
        return;
    if (in.bytes_read + out.bytes_read != k->bytes_seen) {
        k->bytes_seen = in.bytes_read + out.bytes_read;
        k->since = now;
    } else if (now - k->since >= k->r->rules.idle_ns) {
        k->r->idle++;
        link_say(k, "was idle", NULL);
        link_cut(k);
    }
}

static void
on_idle_time(void *ctx)
{
    struct relay *r = ctx;
    spoke_ns now = spoke_engine_now(r->e);
    struct link *next;

    r->looks_at_idle = false;
    for (struct link *k = LIST_FIRST(&r->links); k != NULL && r->rules.idle_ns > 0; k = next) {
        next = LIST_NEXT(k, of_all);
        cut_if_idle(k, now);
    }
    relay_look_for_idle(r);
}

/* Four times in as long as one may be. */
void
relay_look_for_idle(struct relay *r)
{
    spoke_ns again = r->rules.idle_ns / 4;

    if (r->rules.idle_ns == 0 || r->looks_at_idle)
        return;
    if (again > SPOKE_SECOND)
        again = SPOKE_SECOND;
    r->looks_at_idle = spoke_engine_after(r->e, again > SPOKE_MS ? again : SPOKE_MS, on_idle_time,
                                          r, NULL) == 0;
}
