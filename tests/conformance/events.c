/* SPDX-License-Identifier: MIT */
/* What a socket says of its connections, and what it counts. */
#include "tests/support/world.h"
#include "tests/support/ws_peer.h"

#define NOTED_MAX 256

/* Written on the engine's thread, read on the test's: `count` publishes what stands before it. */
struct diary {
    struct spoke_event noted[NOTED_MAX];
    atomic_int count;
    atomic_int refuse;                    /* so many to turn away */
    atomic_int of[SPOKE_EVENT_MOVED + 1]; /* by type */
};

static int
note(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    struct diary *diary = ctx;
    int place = atomic_load(&diary->count);

    (void)s;
    /* Moves are counted only: not every pipe does it, and each at its own time. */
    if (place < NOTED_MAX && event->type != SPOKE_EVENT_MOVED) {
        diary->noted[place] = *event;
        atomic_store(&diary->count, place + 1);
    }
    atomic_fetch_add(&diary->of[event->type], 1);
    if (event->type == SPOKE_EVENT_ATTACHING && atomic_load(&diary->refuse) > 0) {
        atomic_fetch_sub(&diary->refuse, 1);
        return SPOKE_EREFUSED;
    }
    return 0;
}

static int
noted_of(struct diary *diary, enum spoke_event_type type)
{
    return atomic_load(&diary->of[type]);
}

struct noted_wanted {
    struct diary *diary;
    enum spoke_event_type type;
    int count;
};

static bool
is_noted(void *ctx)
{
    struct noted_wanted *wanted = ctx;

    return noted_of(wanted->diary, wanted->type) >= wanted->count;
}

static void
wait_noted(struct world *w, struct diary *diary, enum spoke_event_type type, int count)
{
    struct noted_wanted wanted = {diary, type, count};

    cr_assert(world_until(w, is_noted, &wanted, WORLD_PATIENCE), "type %d: %d of %d", (int)type,
              noted_of(diary, type), count);
}

/* Every pipe: ATTACHING, ATTACHED, DETACHED, in this order, each once. */
static void
check_balance(struct diary *diary)
{
    int count = atomic_load(&diary->count);

    cr_assert_lt(count, NOTED_MAX);
    for (int i = 0; i < count; i++) {
        const struct spoke_event *event = &diary->noted[i];
        int last = 0;
        if (event->pipe == 0)
            continue;
        for (int k = 0; k < i; k++) {
            if (diary->noted[k].pipe == event->pipe)
                last = (int)diary->noted[k].type;
        }
        cr_assert_eq((int)event->type, last == 0 ? (int)SPOKE_EVENT_ATTACHING : last + 1,
                     "pipe %u: %d after %d", event->pipe, (int)event->type, last);
        cr_assert_neq(event->dialer == NULL, event->listener == NULL, "exactly one of them");
    }
    cr_assert_eq(noted_of(diary, SPOKE_EVENT_ATTACHING), noted_of(diary, SPOKE_EVENT_ATTACHED));
    cr_assert_eq(noted_of(diary, SPOKE_EVENT_ATTACHED), noted_of(diary, SPOKE_EVENT_DETACHED));
    cr_assert_leq(noted_of(diary, SPOKE_EVENT_MOVED), noted_of(diary, SPOKE_EVENT_ATTACHED));
}

WORLD_TEST(events, every_pipe_attaches_and_detaches_once, world_cases)
{
    static struct diary here, there;
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *req = world_add(w, SPOKE_REQ);

    cr_assert_eq(node_on_event(rep, note, &here), 0);
    cr_assert_eq(node_on_event(req, note, &there), 0);
    world_connect(w, rep, req);
    for (int i = 0; i < 5; i++) {
        spoke_pipe_id id = here.noted[atomic_load(&here.count) - 1].pipe;
        cr_assert_eq(node_pipe_close(rep, id), 0);
        wait_noted(w, &here, SPOKE_EVENT_ATTACHED, i + 2);
        wait_noted(w, &there, SPOKE_EVENT_ATTACHED, i + 2);
    }
    cr_assert_eq(here.noted[0].type, SPOKE_EVENT_ATTACHING);
    cr_assert_not_null(here.noted[0].listener);
    cr_assert_not_null(there.noted[0].dialer);
    cr_assert_eq(node_close(req, NULL), 0);
    req->s = NULL;
    wait_noted(w, &there, SPOKE_EVENT_DETACHED, 6);
    wait_noted(w, &here, SPOKE_EVENT_DETACHED, 6);
    check_balance(&here);
    check_balance(&there);
    world_close(w);
}

WORLD_TEST(events, closing_the_socket_detaches_its_pipes, world_cases)
{
    enum { PEERS = 4 };
    static struct diary diary;
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP);

    cr_assert_eq(node_on_event(rep, note, &diary), 0);
    for (int i = 0; i < PEERS; i++)
        world_connect(w, rep, world_add(w, SPOKE_REQ));
    wait_noted(w, &diary, SPOKE_EVENT_ATTACHED, PEERS);
    cr_assert_eq(node_close(rep, NULL), 0);
    rep->s = NULL;
    cr_assert_eq(noted_of(&diary, SPOKE_EVENT_DETACHED), PEERS, "all was said when close returned");
    check_balance(&diary);
    world_close(w);
}

WORLD_TEST(events, a_refused_peer_is_not_mentioned_again_and_may_come_back, world_cases)
{
    static struct diary diary;
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *req = world_add(w, SPOKE_REQ);
    char url[ENDPOINT_MAX];

    atomic_store(&diary.refuse, 3);
    cr_assert_eq(node_on_event(rep, note, &diary), 0);
    world_url(w, url);
    cr_assert_eq(node_listen(rep, url, NULL, 0), 0);
    cr_assert_eq(node_dial(req, url, NULL, 0), 0);
    wait_noted(w, &diary, SPOKE_EVENT_ATTACHED, 1);
    cr_assert_eq(noted_of(&diary, SPOKE_EVENT_ATTACHING), 4);
    cr_assert_eq(noted_of(&diary, SPOKE_EVENT_DETACHED), 0);
    cr_assert_eq(node_stats(rep).refused, 3);
    cr_assert_eq(node_stats(rep).pipes_attached, 1);
    cr_assert_eq(node_send_pattern(req, 10, 1, 0), 0);
    cr_assert_eq(node_expect(rep, 10, 1), 0);
    world_close(w);
}

WORLD_TEST(events, failed_attempts_are_told_with_their_reason, world_cases_streams)
{
    static struct diary diary;
    struct world *w = world_open(c);
    struct node *req = world_add(w, SPOKE_REQ);
    char url[ENDPOINT_MAX];
    spoke_dialer *d;

    cr_assert_eq(node_on_event(req, note, &diary), 0);
    world_url(w, url);
    cr_assert_eq(node_dial(req, url, &d, 0), 0);
    wait_noted(w, &diary, SPOKE_EVENT_DIAL_FAILED, 3);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(diary.noted[i].type, SPOKE_EVENT_DIAL_FAILED);
        cr_assert_eq(diary.noted[i].reason, SPOKE_ECONNREFUSED, "%s",
                     spoke_error_name(diary.noted[i].reason));
        cr_assert_eq(diary.noted[i].dialer, d);
        cr_assert_eq(diary.noted[i].pipe, 0);
    }
    struct spoke_stats stats = node_stats(req);
    cr_assert_geq(stats.dials_failed, 3);
    cr_assert_geq(stats.dials, stats.dials_failed);
    world_close(w);
}

WORLD_TEST(events, a_peer_of_another_pattern_is_a_failed_handshake, world_cases_streams)
{
    static struct diary diary;
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *pair = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];

    cr_assert_eq(node_on_event(rep, note, &diary), 0);
    world_url(w, url);
    cr_assert_eq(node_listen(rep, url, NULL, 0), 0);
    cr_assert_eq(node_dial(pair, url, NULL, 0), 0);
    wait_noted(w, &diary, SPOKE_EVENT_ACCEPT_FAILED, 1);
    cr_assert_eq(diary.noted[0].reason, SPOKE_EPEER, "%s", spoke_error_name(diary.noted[0].reason));
    cr_assert_not_null(diary.noted[0].listener);
    cr_assert_geq(node_stats(rep).handshakes_failed, 1);
    cr_assert_eq(node_stats(rep).pipes_attached, 0);
    world_close(w);
}

/* A callback may ask and act: it looks at its own socket, and closes the very pipe that it hears
 * of. */
static int
close_what_comes(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    struct diary *diary = ctx;
    struct spoke_stats stats;
    int protocol = 0;

    if (event->type == SPOKE_EVENT_ATTACHED && noted_of(diary, SPOKE_EVENT_ATTACHED) < 2 &&
        spoke_socket_stats(s, &stats) == 0 &&
        spoke_socket_get_int(s, SPOKE_OPT_PROTOCOL, &protocol) == 0 && protocol == SPOKE_REP)
        (void)spoke_pipe_close(s, event->pipe);
    return note(s, event, ctx);
}

WORLD_TEST(events, a_callback_may_close_the_pipe_that_it_hears_of, world_cases)
{
    static struct diary diary;
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *req = world_add(w, SPOKE_REQ);
    char url[ENDPOINT_MAX];

    cr_assert_eq(node_on_event(rep, close_what_comes, &diary), 0);
    world_url(w, url);
    cr_assert_eq(node_listen(rep, url, NULL, 0), 0);
    cr_assert_eq(node_dial(req, url, NULL, 0), 0);
    wait_noted(w, &diary, SPOKE_EVENT_ATTACHED, 3);
    wait_noted(w, &diary, SPOKE_EVENT_DETACHED, 2);
    cr_assert_eq(node_send_pattern(req, 10, 1, 0), 0);
    cr_assert_eq(node_expect(rep, 10, 1), 0);
    cr_assert_eq(node_close(rep, NULL), 0);
    rep->s = NULL;
    check_balance(&diary);
    world_close(w);
}

WORLD_TEST(events, counters_count_what_happened, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    uint64_t bytes = 0;

    world_connect(w, a, b);
    for (uint32_t i = 0; i < 10; i++) {
        cr_assert_eq(node_send_pattern(b, i * 100, i, 0), 0);
        bytes += i * 100;
    }
    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(node_expect(a, i * 100, i), 0);
    struct spoke_stats here = node_stats(a), there = node_stats(b);
    cr_assert_eq(there.messages_sent, 10);
    cr_assert_eq(there.bytes_sent, bytes);
    cr_assert_eq(there.messages_received, 0);
    cr_assert_eq(here.messages_received, 10);
    cr_assert_eq(here.bytes_received, bytes);
    cr_assert_eq(here.messages_sent, 0);
    cr_assert_eq(here.accepts, 1);
    cr_assert_eq(here.dials, 0);
    cr_assert_geq(there.dials, 1);
    cr_assert_eq(here.pipes_attached, 1);
    cr_assert_eq(here.pipes_current, 1);
    cr_assert_eq(here.garbled + here.oversized + here.handshakes_failed + here.refused, 0);
    world_close(w);
}

/* Who asks to be told when a pipe is there already hears of its end, once. */
WORLD_TEST(events, a_callback_set_after_the_attach_hears_of_the_detach, world_cases)
{
    static struct diary diary;
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);

    world_connect(w, a, b);
    cr_assert_eq(node_on_event(a, note, &diary), 0);
    cr_assert_eq(node_close(b, NULL), 0);
    b->s = NULL;
    wait_noted(w, &diary, SPOKE_EVENT_DETACHED, 1);
    world_pass(w, 5 * SPOKE_MS);
    cr_assert_eq(atomic_load(&diary.count), 1, "nothing else");
    cr_assert_not_null(diary.noted[0].listener);
    world_close(w);
}

/* A second peer of a pair: announced, then refused by the pattern, so it ends as well. */
WORLD_TEST(events, a_peer_that_the_pattern_refuses_ends_as_well, world_cases)
{
    static struct diary diary;
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR),
                *late = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    cr_assert_eq(node_dial(b, url, NULL, SPOKE_WAIT_FIRST), 0);
    world_wait_pipes(w, a, 1);
    cr_assert_eq(node_on_event(a, note, &diary), 0);
    cr_assert_eq(node_set_duration(late, SPOKE_OPT_RECONNECT, 10 * SPOKE_SECOND), 0);
    cr_assert_eq(node_dial(late, url, NULL, 0), 0);
    wait_noted(w, &diary, SPOKE_EVENT_ACCEPT_FAILED, 1);
    cr_assert_eq(atomic_load(&diary.count), 3);
    cr_assert_eq(diary.noted[0].type, SPOKE_EVENT_ATTACHING);
    cr_assert_eq(diary.noted[1].type, SPOKE_EVENT_DETACHED);
    cr_assert_eq(diary.noted[1].pipe, diary.noted[0].pipe);
    cr_assert_eq(diary.noted[1].reason, SPOKE_EREFUSED);
    cr_assert_eq(node_stats(a).pipes_current, 1);
    world_close(w);
}

/* A pipe that is closed while its user is asked about it counts as refused, and ends once. */
static int
close_while_asked(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    if (event->type == SPOKE_EVENT_ATTACHING)
        (void)spoke_pipe_close(s, event->pipe);
    return note(s, event, ctx);
}

WORLD_TEST(events, a_pipe_may_be_closed_while_its_user_is_asked, world_cases)
{
    static struct diary diary;
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_on_event(a, close_while_asked, &diary), 0);
    cr_assert_eq(node_set_duration(b, SPOKE_OPT_RECONNECT, 10 * SPOKE_SECOND), 0);
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    cr_assert_eq(node_dial(b, url, NULL, 0), 0);
    wait_noted(w, &diary, SPOKE_EVENT_DETACHED, 1);
    world_pass(w, 5 * SPOKE_MS);
    cr_assert_eq(noted_of(&diary, SPOKE_EVENT_ATTACHING), 1);
    cr_assert_eq(noted_of(&diary, SPOKE_EVENT_ATTACHED), 0);
    cr_assert_eq(noted_of(&diary, SPOKE_EVENT_DETACHED), 1);
    cr_assert_eq(node_stats(a).pipes_attached, 0);
    world_close(w);
}

/* The world goes on while this thread plays the stranger. */
WORLD_TEST(events, a_stranger_is_told_as_one, world_cases_streams_real)
{
    static struct diary diary;
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);
    struct raw_peer stranger;
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_on_event(a, note, &diary), 0);
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    if (transport_is_ws(c->transport))
        ws_place(url, url);
    cr_assert_eq(raw_connect(&stranger, url, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&stranger, "GET/ HTTP/1.1\r\n\r\n", 17, RAW_LIMIT_MS), RAW_OK);
    wait_noted(w, &diary, SPOKE_EVENT_ACCEPT_FAILED, 1);
    cr_assert_eq(diary.noted[0].reason,
                 transport_has_tls(c->transport) ? SPOKE_ETLS : SPOKE_EHANDSHAKE, "%s",
                 spoke_error_name(diary.noted[0].reason));
    cr_assert_eq(atomic_load(&diary.count), 1, "there never was a pipe");
    raw_close(&stranger);
    world_close(w);
}

/* What the kernel had not taken when the peer left is counted.  (A simulated one takes the bytes
 * and loses them itself.) */
WORLD_TEST(events, messages_lost_with_a_connection_are_counted, world_cases_streams_real)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    uint64_t sent = 0;

    cr_assert_eq(node_set_int(a, SPOKE_OPT_RECV_QUEUE, 1), 0);
    cr_assert_eq(node_set_int(b, SPOKE_OPT_SEND_QUEUE, 0), 0);
    world_connect(w, a, b);
    for (int quiet = 0; quiet < 50; quiet++) { /* until the kernel takes no more either */
        for (; sent < 1000 && node_send_pattern(b, 300000, (uint32_t)sent, SPOKE_DONTWAIT) == 0;
             quiet = 0)
            sent++;
        world_settle(w);
    }
    cr_assert_lt(sent, 1000);
    cr_assert_eq(node_stats(b).dropped_lost, 0);
    cr_assert_eq(node_close(a, NULL), 0);
    a->s = NULL;
    world_wait_pipes(w, b, 0);
    for (int i = 0; i < 1000 && node_stats(b).dropped_lost == 0; i++)
        world_pass(w, SPOKE_MS); /* until the write that was under way has ended */
    uint64_t lost = node_stats(b).dropped_lost;
    /* Over ws who leaves reads on, for a second, until the other one has ended, too. */
    cr_assert((lost > 0 || transport_is_ws(c->transport)) && lost <= sent, "%llu of %llu",
              (unsigned long long)lost, (unsigned long long)sent);
    world_close(w);
}
