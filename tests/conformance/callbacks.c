/* SPDX-License-Identifier: MIT */
/* Callbacks: on the engine's thread, one at a time; they may do everything but wait. */
#include "tests/support/world.h"

static int
echo(spoke_socket *s, spoke_msg *m)
{
    int rc = spoke_send(s, m, SPOKE_DONTWAIT);

    if (rc != 0)
        spoke_msg_free(m);
    return rc;
}

struct tally {
    atomic_int count, wanted, errors, inside;
    atomic_int rc[4];
    uint32_t next;
};

static bool
is_counted(void *ctx)
{
    struct tally *tally = ctx;

    return atomic_load(&tally->count) >= atomic_load(&tally->wanted);
}

static void
wait_count(struct world *w, struct tally *tally, int wanted)
{
    atomic_store(&tally->wanted, wanted);
    cr_assert(world_until(w, is_counted, tally, WORLD_PATIENCE), "%d of %d",
              atomic_load(&tally->count), wanted);
}

static void
answer(spoke_socket *s, spoke_msg *m, void *ctx)
{
    struct tally *tally = ctx;

    if (atomic_fetch_add(&tally->inside, 1) != 0)
        atomic_fetch_add(&tally->errors, 1);
    if (echo(s, m) != 0)
        atomic_fetch_add(&tally->errors, 1);
    atomic_fetch_sub(&tally->inside, 1);
    atomic_fetch_add(&tally->count, 1);
}

WORLD_TEST(callbacks, a_server_can_live_in_its_callback, world_cases)
{
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *req = world_add(w, SPOKE_REQ);
    struct tally tally = {0};
    spoke_msg *m;

    cr_assert_eq(node_on_message(rep, answer, &tally), 0);
    world_connect(w, rep, req);
    for (uint32_t i = 0; i < 200; i++) {
        cr_assert_eq(node_send_pattern(req, i * 20, i, 0), 0);
        cr_assert_eq(node_expect(req, i * 20, i), 0);
    }
    wait_count(w, &tally, 200); /* the last answer comes before its callback is over */
    cr_assert_eq(atomic_load(&tally.errors), 0);
    cr_assert_eq(atomic_load(&tally.count), 200);
    cr_assert_eq(node_recv(rep, &m, 0), SPOKE_ESTATE, "the callback has the messages");
    cr_assert_eq(node_recv(rep, &m, SPOKE_DONTWAIT), SPOKE_ESTATE);

    cr_assert_eq(node_on_message(rep, NULL, NULL), 0);
    cr_assert_eq(node_send_pattern(req, 10, 5, 0), 0);
    cr_assert_eq(node_expect(rep, 10, 5), 0, "and now the receive has them again");
    world_close(w);
}

static void
check_order(spoke_socket *s, spoke_msg *m, void *ctx)
{
    struct tally *tally = ctx;

    (void)s;
    if (!pattern_holds(spoke_msg_body(m), spoke_msg_size(m), tally->next++))
        atomic_fetch_add(&tally->errors, 1);
    spoke_msg_free(m);
    atomic_fetch_add(&tally->count, 1);
}

WORLD_TEST(callbacks, messages_that_came_before_the_callback_come_first, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct tally tally = {0};

    world_connect(w, a, b);
    for (uint32_t i = 0; i < 20; i++)
        cr_assert_eq(node_send_pattern(b, 30, i, 0), 0);
    world_pass(w, 5 * SPOKE_MS);
    cr_assert_eq(node_on_message(a, check_order, &tally), 0);
    for (uint32_t i = 20; i < 40; i++)
        cr_assert_eq(node_send_pattern(b, 30, i, 0), 0);
    wait_count(w, &tally, 40);
    cr_assert_eq(atomic_load(&tally.errors), 0);
    world_close(w);
}

struct refill {
    atomic_int sent, errors;
    int total;
};

static void
send_more(spoke_socket *s, void *ctx)
{
    struct refill *refill = ctx;
    spoke_msg *m;

    while (atomic_load(&refill->sent) < refill->total) {
        uint32_t seed = (uint32_t)atomic_load(&refill->sent);
        if (spoke_msg_new(&m, 3000) != 0) {
            atomic_fetch_add(&refill->errors, 1);
            return;
        }
        pattern_fill(spoke_msg_body(m), 3000, seed);
        int rc = spoke_send(s, m, SPOKE_DONTWAIT);
        if (rc != 0) {
            spoke_msg_free(m);
            if (rc != SPOKE_EAGAIN)
                atomic_fetch_add(&refill->errors, 1);
            return;
        }
        atomic_fetch_add(&refill->sent, 1);
    }
}

static int
start_sending(struct node *n, void *ctx)
{
    send_more(n->s, ctx);
    return 0;
}

WORLD_TEST(callbacks, on_writable_keeps_a_sender_going, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct refill refill = {.total = 2000};

    cr_assert_eq(node_set_int(a, SPOKE_OPT_SEND_QUEUE, 3), 0);
    world_connect(w, a, b);
    cr_assert_eq(node_on_writable(a, send_more, &refill), 0);
    if (world_mode(w) != SHARED) /* one at a time with the callback */
        cr_assert_eq(node_run(a, start_sending, &refill), 0);
    else
        while (node_send_pattern(a, 3000, (uint32_t)atomic_load(&refill.sent), SPOKE_DONTWAIT) == 0)
            atomic_fetch_add(&refill.sent, 1);
    for (uint32_t i = 0; i < 2000; i++) {
        int rc = node_expect(b, 3000, i);
        cr_assert_eq(rc, 0, "message %u: %s", i, spoke_error_name(rc));
    }
    cr_assert_eq(atomic_load(&refill.errors), 0);
    world_close(w);
}

/* Everything that would have to wait is refused, everything else works. */
static void
try_everything(spoke_socket *s, spoke_msg *m, void *ctx)
{
    struct tally *tally = ctx;
    spoke_msg *other = NULL;
    struct spoke_stats stats;
    spoke_dialer *d;

    atomic_store(&tally->rc[0], spoke_socket_stats(s, &stats));
    atomic_store(&tally->rc[1], spoke_dial(s, "tcp://127.0.0.1:1", &d, SPOKE_WAIT_FIRST));
    atomic_store(&tally->rc[2], spoke_socket_on_message(s, NULL, NULL));
    atomic_store(&tally->rc[3], spoke_recv(s, &other, 0));
    spoke_msg_free(m);
    atomic_fetch_add(&tally->count, 1);
}

WORLD_TEST(callbacks, a_callback_may_not_wait, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct tally tally = {0};

    world_connect(w, a, b);
    cr_assert_eq(node_on_message(a, try_everything, &tally), 0);
    cr_assert_eq(node_send_pattern(b, 10, 0, 0), 0);
    wait_count(w, &tally, 1);
    static const int wanted[] = {0, SPOKE_EDEADLK, 0, SPOKE_EDEADLK};
    for (int i = 0; i < 4; i++)
        cr_assert_eq(atomic_load(&tally.rc[i]), wanted[i], "%d: %s", i,
                     spoke_error_name(atomic_load(&tally.rc[i])));
    cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
    cr_assert_eq(node_expect(a, 10, 1), 0);
    world_close(w);
}

static void
close_on_message(spoke_socket *s, spoke_msg *m, void *ctx)
{
    struct tally *tally = ctx;

    spoke_msg_free(m);
    atomic_store(&tally->rc[0], spoke_socket_close(s));
    atomic_store(&tally->rc[1], spoke_send_bytes(s, "x", 1, SPOKE_DONTWAIT));
    atomic_store(&tally->rc[2], spoke_socket_close(s));
    atomic_fetch_add(&tally->count, 1);
}

WORLD_TEST(callbacks, a_socket_may_be_closed_from_inside_its_own_callback, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct tally tally = {0};

    world_connect(w, a, b);
    cr_assert_eq(node_on_message(a, close_on_message, &tally), 0);
    for (uint32_t i = 0; i < 5; i++)
        cr_assert_eq(node_send_pattern(b, 10, i, 0), 0);
    wait_count(w, &tally, 1);
    world_wait_pipes(w, b, 0);
    cr_assert_eq(atomic_load(&tally.count), 1, "no message after the close");
    cr_assert_eq(atomic_load(&tally.rc[0]), 0);
    cr_assert_eq(atomic_load(&tally.rc[1]), SPOKE_ECLOSED);
    cr_assert_eq(atomic_load(&tally.rc[2]), SPOKE_ECLOSED);
    cr_assert_eq(node_close(a, NULL), SPOKE_ECLOSED);
    a->s = NULL;
    world_close(w);
}

static int
close_on_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    struct tally *tally = ctx;

    if ((int)event->type == atomic_load(&tally->rc[3])) {
        int rc = spoke_socket_close(s);
        if (atomic_fetch_add(&tally->count, 1) == 0)
            atomic_store(&tally->rc[0], rc);
    }
    return 0;
}

WORLD_TEST(callbacks, a_socket_may_be_closed_from_inside_any_event, world_cases)
{
    static const enum spoke_event_type types[] = {SPOKE_EVENT_ATTACHING, SPOKE_EVENT_ATTACHED,
                                                  SPOKE_EVENT_DETACHED};

    /* One for each: a closed socket's last events may come while the next is at work. */
    static struct tally tallies[3];
    struct world *w = world_open(c);
    for (int i = 0; i < 3; i++) {
        struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
        struct tally *tally = &tallies[i];
        char url[ENDPOINT_MAX];
        atomic_store(&tally->rc[3], (int)types[i]);
        cr_assert_eq(node_on_event(a, close_on_event, tally), 0);
        world_url(w, url);
        cr_assert_eq(node_listen(a, url, NULL, 0), 0);
        cr_assert_eq(node_dial(b, url, NULL, 0), 0);
        if (types[i] == SPOKE_EVENT_DETACHED) {
            world_wait_attached(w, a, 1);
            world_wait_attached(w, b, 1);
            cr_assert_eq(node_close(b, NULL), 0);
            b->s = NULL;
        }
        wait_count(w, tally, 1);
        cr_assert_eq(atomic_load(&tally->rc[0]), 0, "%s",
                     spoke_error_name(atomic_load(&tally->rc[0])));
        cr_assert_eq(node_close(a, NULL), SPOKE_ECLOSED);
        a->s = NULL;
        if (b->s != NULL)
            world_wait_pipes(w, b, 0);
    }
    world_close(w);
}

/* A listener of another pattern: the attempt fails on every transport. */
WORLD_TEST(callbacks, a_socket_may_be_closed_from_inside_a_failed_dial, world_cases)
{
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *pair = world_add(w, SPOKE_PAIR),
                *req = world_add(w, SPOKE_REQ);
    struct tally tally = {0};
    char url[ENDPOINT_MAX];
    int told;

    atomic_store(&tally.rc[3], (int)SPOKE_EVENT_DIAL_FAILED);
    cr_assert_eq(node_on_event(pair, close_on_event, &tally), 0);
    world_url(w, url);
    cr_assert_eq(node_listen(rep, url, NULL, 0), 0);
    cr_assert_eq(node_dial(pair, url, NULL, 0), 0);
    wait_count(w, &tally, 1);
    cr_assert_eq(atomic_load(&tally.rc[0]), 0, "%s", spoke_error_name(atomic_load(&tally.rc[0])));
    cr_assert_eq(node_close(pair, NULL), SPOKE_ECLOSED);
    pair->s = NULL;
    cr_assert_eq(node_dial(req, url, NULL, SPOKE_WAIT_FIRST), 0);
    cr_assert_eq(node_send_pattern(req, 10, 1, 0), 0);
    cr_assert_eq(node_expect(rep, 10, 1), 0, "the other end is as it was");
    told = atomic_load(&tally.count); /* an attempt may have failed before the callback closed */
    world_pass(w, 20 * SPOKE_MS);     /* several waits of its dialer */
    cr_assert_eq(atomic_load(&tally.count), told, "it dials no more");
    world_close(w);
}

/* A second peer, which the pattern refuses, while the first has messages under way. */
WORLD_TEST(callbacks, a_socket_may_be_closed_from_inside_a_failed_accept, world_cases)
{
    struct world *w = world_open(c);
    struct node *pair = world_add(w, SPOKE_PAIR), *first = world_add(w, SPOKE_PAIR),
                *second = world_add(w, SPOKE_PAIR);
    struct tally tally = {0};
    char url[ENDPOINT_MAX];

    atomic_store(&tally.rc[3], (int)SPOKE_EVENT_ACCEPT_FAILED);
    cr_assert_eq(node_on_event(pair, close_on_event, &tally), 0);
    world_url(w, url);
    cr_assert_eq(node_listen(pair, url, NULL, 0), 0);
    cr_assert_eq(node_dial(first, url, NULL, 0), 0);
    world_wait_attached(w, pair, 1);
    for (uint32_t i = 0; i < 5; i++)
        cr_assert_eq(node_send_pattern(first, 10, i, 0), 0);
    cr_assert_eq(node_dial(second, url, NULL, 0), 0);
    wait_count(w, &tally, 1);
    cr_assert_eq(atomic_load(&tally.rc[0]), 0, "%s", spoke_error_name(atomic_load(&tally.rc[0])));
    cr_assert_eq(node_close(pair, NULL), SPOKE_ECLOSED);
    pair->s = NULL;
    world_wait_pipes(w, first, 0);
    world_wait_pipes(w, second, 0);
    cr_assert_eq(node_listen(second, url, NULL, 0), 0, "the address is free");
    world_close(w);
}

static void
close_on_writable(spoke_socket *s, void *ctx)
{
    struct tally *tally = ctx;

    atomic_store(&tally->rc[0], spoke_socket_close(s));
    atomic_fetch_add(&tally->count, 1);
}

WORLD_TEST(callbacks, a_socket_may_be_closed_from_inside_on_writable, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct tally tally = {0};

    cr_assert_eq(node_set_int(a, SPOKE_OPT_SEND_QUEUE, 1), 0);
    cr_assert_eq(node_on_writable(a, close_on_writable, &tally), 0);
    cr_assert_eq(node_send_pattern(a, 10, 0, SPOKE_DONTWAIT), 0);
    cr_assert_eq(node_send_pattern(a, 10, 0, SPOKE_DONTWAIT), SPOKE_EAGAIN);
    char url[ENDPOINT_MAX];
    world_url(w, url);
    cr_assert_eq(node_listen(b, url, NULL, 0), 0);
    cr_assert_eq(node_dial(a, url, NULL, 0), 0);
    wait_count(w, &tally, 1);
    cr_assert_eq(node_close(a, NULL), SPOKE_ECLOSED);
    a->s = NULL;
    world_close(w);
}

/* ---- what else can be closed from inside ---- */

struct closer {
    struct tally tally;
    spoke_listener *l;
    spoke_dialer *d;
};

static void
close_endpoints(spoke_socket *s, spoke_msg *m, void *ctx)
{
    struct closer *closer = ctx;
    spoke_pipe_id pipe = spoke_msg_pipe(m);

    spoke_msg_free(m);
    atomic_store(&closer->tally.rc[0], spoke_listener_close(closer->l));
    atomic_store(&closer->tally.rc[1], spoke_listener_close(closer->l));
    atomic_store(&closer->tally.rc[2], spoke_dialer_close(closer->d));
    atomic_store(&closer->tally.rc[3], spoke_pipe_close(s, pipe));
    atomic_fetch_add(&closer->tally.count, 1);
}

WORLD_TEST(callbacks, dialers_listeners_and_pipes_may_be_closed_from_inside, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_REP), *b = world_add(w, SPOKE_REQ),
                *other = world_add(w, SPOKE_REQ);
    struct closer closer = {.l = NULL};
    char url[ENDPOINT_MAX], elsewhere[ENDPOINT_MAX];

    world_url(w, url);
    world_url(w, elsewhere);
    cr_assert_eq(node_listen(a, url, &closer.l, 0), 0);
    cr_assert_eq(node_listen(other, elsewhere, NULL, 0), 0);
    cr_assert_eq(node_dial(a, elsewhere, &closer.d, SPOKE_WAIT_FIRST), 0);
    cr_assert_eq(node_on_message(a, close_endpoints, &closer), 0);
    cr_assert_eq(node_dial(b, url, NULL, SPOKE_WAIT_FIRST), 0);
    cr_assert_eq(node_send_pattern(b, 10, 0, 0), 0);
    wait_count(w, &closer.tally, 1);
    cr_assert_eq(atomic_load(&closer.tally.rc[0]), 0);
    cr_assert_eq(atomic_load(&closer.tally.rc[1]), SPOKE_ECLOSED, "twice");
    cr_assert_eq(atomic_load(&closer.tally.rc[2]), 0);
    cr_assert_eq(atomic_load(&closer.tally.rc[3]), 0);
    world_wait_pipes(w, other, 0);
    world_wait_pipes(w, a, 0);
    cr_assert_eq(node_listener_close(a, closer.l), SPOKE_ECLOSED);
    cr_assert_eq(node_dialer_close(a, closer.d), SPOKE_ECLOSED);
    world_close(w);
}

/* From inside one socket's callback another one is closed, opened, and used. */
struct helper {
    struct tally tally;
    spoke_engine *e;
    spoke_socket *victim;
};

static void
work_on_others(spoke_socket *s, spoke_msg *m, void *ctx)
{
    struct helper *helper = ctx;
    spoke_socket *fresh = NULL;

    (void)s;
    spoke_msg_free(m);
    atomic_store(&helper->tally.rc[0], spoke_socket_close(helper->victim));
    atomic_store(&helper->tally.rc[1], spoke_socket_open(&fresh, SPOKE_PAIR, helper->e));
    atomic_store(&helper->tally.rc[2], spoke_listen(fresh, "inproc://opened-inside", NULL, 0));
    atomic_store(&helper->tally.rc[3], spoke_socket_close(fresh));
    atomic_fetch_add(&helper->tally.count, 1);
}

WORLD_TEST(callbacks, a_callback_may_open_and_close_other_sockets, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR),
                *victim = world_add(w, SPOKE_PAIR);
    struct helper helper = {.e = a->e, .victim = victim->s};

    cr_assert_eq(a->e, victim->e);
    world_connect(w, a, b);
    cr_assert_eq(node_on_message(a, work_on_others, &helper), 0);
    cr_assert_eq(node_send_pattern(b, 10, 0, 0), 0);
    wait_count(w, &helper.tally, 1);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(atomic_load(&helper.tally.rc[i]), 0, "%d: %s", i,
                     spoke_error_name(atomic_load(&helper.tally.rc[i])));
    cr_assert_eq(node_close(victim, NULL), SPOKE_ECLOSED);
    victim->s = NULL;
    world_close(w);
}
