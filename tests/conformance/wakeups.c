/* SPDX-License-Identifier: MIT */
/* No wake-up is lost: whoever sleeps, in the kernel, on a futex or in a loop of somebody else's,
 * hears of what comes.  A lost one shows as a wait that runs out, so every wait here is bounded. */
#include "tests/support/world.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/engine/backend.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/handle.h"
#include "tests/support/random.h"
#include "tests/support/raw_peer.h"

#define PAIR_NUMBER 16
#define LIMIT_MS    (10000 * SPOKE_TEST_SLOWDOWN)

static bool
is_readable(int fd, int limit_ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    return poll(&wait, 1, limit_ms) == 1;
}

/* ---- receives that a spinning caller looks after ---- */

static void *
receive_one(void *argument)
{
    spoke_msg *m;
    int rc = spoke_recv(argument, &m, 0);

    if (rc == 0)
        spoke_msg_free(m);
    return rc == 0 ? NULL : argument;
}

/* A pair on the shared engine, over inproc, where nothing is ever in the kernel. */
static void
open_inproc_pair(spoke_socket *ends[2])
{
    char url[ENDPOINT_MAX];

    endpoint_fresh(url, INPROC);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_socket_open(&ends[i], SPOKE_PAIR, NULL), 0);
    cr_assert_eq(spoke_listen(ends[0], url, NULL, 0), 0);
    cr_assert_eq(spoke_dial(ends[1], url, NULL, SPOKE_WAIT_FIRST), 0);
}

/* A caller that spins takes over receives which are begun meanwhile.  When it has got what it
 * wanted and never comes back, somebody else must look after them: here the engine's thread, which
 * went to sleep before there were any. */
Test(wakeups, a_receive_outlives_the_caller_that_spun_for_it)
{
    spoke_socket *ends[2], *s;
    struct raw_peer peer;
    char url[ENDPOINT_MAX];
    pthread_t thread;
    void *failed;
    spoke_msg *m;
    int fd, taken = 0;

    scratch_dir();
    open_inproc_pair(ends);
    endpoint_fresh(url, IPC);
    cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, NULL), 0);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, 1), 0);
    cr_assert_eq(spoke_listen(s, url, NULL, 0), 0);
    cr_assert_eq(raw_dial_sp(&peer, url, PAIR_NUMBER, PAIR_NUMBER), RAW_OK);
    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_RECV_FD, &fd), 0);
    for (int i = 0; i < 3; i++) /* more than fit: no receive is under way any more */
        cr_assert_eq(raw_send(&peer, "full", 4), RAW_OK);
    cr_assert(is_readable(fd, LIMIT_MS));
    usleep(50000);
    cr_assert_eq(spoke_socket_set_duration(ends[0], SPOKE_OPT_BUSY_POLL, SPOKE_WAIT_POLL), 0);
    cr_assert_eq(pthread_create(&thread, NULL, receive_one, ends[0]), 0);
    usleep(50000);               /* it spins, the engine's thread sleeps without end */
    for (; taken < 3; taken++) { /* slow machines have not read them all yet */
        cr_assert(is_readable(fd, LIMIT_MS));
        cr_assert_eq(spoke_recv(s, &m, SPOKE_DONTWAIT), 0);
        spoke_msg_free(m);
    }
    cr_assert_eq(spoke_send_bytes(ends[1], "go", 2, 0), 0);
    pthread_join(thread, &failed);
    cr_assert_null(failed);
    usleep(20000);
    cr_assert_eq(raw_send(&peer, "heard?", 6), RAW_OK);
    cr_assert(is_readable(fd, LIMIT_MS), "nobody looks after the receive");
    raw_close(&peer);
    cr_assert_eq(spoke_socket_close(s), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_socket_close(ends[i]), 0);
}

/* ---- timers that are set while the engine is about to sleep ---- */

struct late {
    struct spk_engine *e;
    struct spk_op op;
    struct spk_timer timer;
    int fired;
};

static void
on_late_timer(struct spk_timer *timer)
{
    SPK_OWNER(timer, struct late, timer)->fired++;
}

static void
on_late_op(struct spk_op *op, int result)
{
    struct late *late = SPK_OWNER(op, struct late, op);

    (void)result;
    spk_timer_set(late->e, &late->timer, spk_engine_now(late->e) + SPOKE_MS);
}

static bool
has_fired(struct late *late, int count)
{
    bool fired;

    for (int tries = 0; tries < LIMIT_MS; tries++) {
        cr_assert_eq(spk_engine_enter(late->e), 0);
        fired = late->fired == count;
        pthread_mutex_unlock(&late->e->lock); /* not spk_engine_leave(), which may wake it */
        if (fired)
            return true;
        usleep(1000);
    }
    return false;
}

/* Goal: what is cancelled while the engine's thread lets others in may set a timer when it ends,
 * and the sleep that follows is not longer than that.  Method: a spin so short that the thread
 * often lets us in for the last time, at different moments. */
Test(wakeups, a_timer_set_by_what_was_cancelled_at_the_last_moment_fires)
{
    struct late late = {.fired = 0};
    int ends[2];

    setenv("SPOKE_WAIT", "1", 1);
    cr_assert_eq(spk_engine_default(&late.e), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    spk_op_init(&late.op, on_late_op);
    spk_timer_init(&late.timer, on_late_timer);
    for (int round = 1; round <= 2000; round++) {
        cr_assert_eq(spk_engine_enter(late.e), 0);
        spk_op_recv(late.e, &late.op, ends[0], NULL, 0);
        late.e->poke |= late.e->asleep;
        spk_engine_leave(late.e);
        for (spoke_ns until = spk_engine_now(late.e) + round * 7919 % 150000;
             spk_engine_now(late.e) < until;)
            ;
        cr_assert_eq(spk_engine_enter(late.e), 0);
        spk_op_cancel(late.e, &late.op);
        spk_engine_leave(late.e);
        cr_assert(has_fired(&late, round), "the timer of round %d is late", round);
    }
    close(ends[0]);
    close(ends[1]);
}

/* ---- loops of somebody else's ---- */

/* What a call finishes while it leaves the engine may set a timer. */
Test(wakeups, a_foreign_loop_hears_of_a_timer_that_leaving_sets)
{
    struct sockaddr_un nobody = {.sun_family = AF_UNIX, .sun_path = "/nonexistent/nobody"};
    struct late late = {.fired = 0};
    spoke_engine *e;
    int fd, handle;

    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_geq(fd = spoke_engine_fd(e), 0);
    late.e = spk_handle_peek(e, SPK_HANDLE_ENGINE);
    spk_op_init(&late.op, on_late_op);
    spk_timer_init(&late.timer, on_late_timer);
    cr_assert_eq(late.e->backend->socket(late.e, AF_UNIX, &handle), 0);
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < 10; i++)
            cr_assert_geq(spoke_engine_poll(e, 0), 0);
        cr_assert_eq(spk_engine_enter(late.e), 0);
        spk_op_connect(late.e, &late.op, handle, (struct sockaddr *)&nobody, sizeof nobody);
        spk_engine_leave(late.e);
        while (late.fired < round) {
            cr_assert(is_readable(fd, LIMIT_MS), "a timer, and nothing to see");
            cr_assert_geq(spoke_engine_poll(e, 0), 0);
        }
    }
    late.e->backend->close_handle(late.e, handle);
    cr_assert_eq(spoke_engine_close(e), 0);
}

static void
count_message(spoke_socket *s, spoke_msg *m, void *ctx)
{
    (void)s;
    spoke_msg_free(m);
    (*(int *)ctx)++;
}

struct sender {
    char url[ENDPOINT_MAX];
    int messages;
};

static void *
send_large_ones(void *argument)
{
    static char body[500000];
    struct sender *sender = argument;
    struct raw_peer peer;
    void *failed = argument;

    if (raw_dial_sp(&peer, sender->url, PAIR_NUMBER, PAIR_NUMBER) != RAW_OK)
        return failed;
    for (int i = 0; i < sender->messages; i++) {
        if (raw_send(&peer, body, 60000 + (size_t)i * 7919 % 400000) != RAW_OK)
            goto close_peer;
        usleep(500);
    }
    failed = raw_wait_eof(&peer, LIMIT_MS) == RAW_OK ? NULL : argument;
close_peer:
    raw_close(&peer);
    return failed;
}

/* An engine that would spin, if it were asked to wait, leaves nothing to be looked after when the
 * waiting is done elsewhere.  Messages that come in several pieces: a receive follows a receive. */
Test(wakeups, a_foreign_loop_hears_of_every_piece_on_an_engine_that_spins)
{
    struct sender sender = {.messages = 300};
    spoke_engine_config config;
    spoke_engine *e;
    spoke_socket *s;
    pthread_t thread;
    void *failed;
    int fd, received = 0;

    scratch_dir();
    endpoint_fresh(sender.url, IPC);
    spoke_engine_config_init(&config);
    config.busy_poll_ns = 50 * SPOKE_US;
    cr_assert_eq(spoke_engine_open(&e, &config), 0);
    cr_assert_geq(fd = spoke_engine_fd(e), 0);
    cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, e), 0);
    cr_assert_eq(spoke_socket_on_message(s, count_message, &received), 0);
    cr_assert_eq(spoke_listen(s, sender.url, NULL, 0), 0);
    cr_assert_eq(pthread_create(&thread, NULL, send_large_ones, &sender), 0);
    while (received < sender.messages) {
        cr_assert(is_readable(fd, LIMIT_MS), "message %d is there, and nothing to see", received);
        cr_assert_geq(spoke_engine_poll(e, 0), 0);
    }
    cr_assert_eq(spoke_engine_close(e), 0);
    pthread_join(thread, &failed);
    cr_assert_null(failed);
}

/* ---- everybody at once ---- */

/* Each thread draws its own pauses: from none to about as long as a wake-up takes, so that the
 * others are met awake, asleep and on the way between. */
static void
pause_a_little(uint64_t *state)
{
    uint64_t random = random_next(state);

    switch (random >> 33 & 7) {
    case 0: usleep((useconds_t)(random >> 40 & 127)); break;
    case 1: sched_yield(); break;
    case 2:
        for (volatile unsigned spins = random >> 40 & 4095; spins > 0; spins--)
            ;
        break;
    default: break;
    }
}

struct player {
    pthread_t thread;
    spoke_socket *s;
    uint64_t random;
    uint32_t rounds;
    bool serves, by_descriptor;
    int rc;
};

/* Receive; or wait for the descriptor and take what must be there then. */
static int
receive_number(struct player *p, uint32_t wanted)
{
    spoke_msg *m;
    uint32_t number = 0;
    int rc, fd;

    if (p->by_descriptor) {
        if ((rc = spoke_socket_get_int(p->s, SPOKE_OPT_RECV_FD, &fd)) != 0)
            return rc;
        if (!is_readable(fd, LIMIT_MS))
            return SPOKE_ETIMEDOUT;
    }
    if ((rc = spoke_recv(p->s, &m, p->by_descriptor ? SPOKE_DONTWAIT : 0)) != 0)
        return rc;
    memcpy(&number, spoke_msg_body(m), sizeof number);
    spoke_msg_free(m);
    return number == wanted ? 0 : SPOKE_EPROTO;
}

static void *
play(void *argument)
{
    struct player *p = argument;

    for (uint32_t i = 0; i < p->rounds && p->rc == 0; i++) {
        if (p->serves)
            p->rc = spoke_send_bytes(p->s, &i, sizeof i, 0);
        if (p->rc == 0)
            p->rc = receive_number(p, i);
        pause_a_little(&p->random);
        if (p->rc == 0 && !p->serves)
            p->rc = spoke_send_bytes(p->s, &i, sizeof i, 0);
    }
    return NULL;
}

static atomic_int posts_run;

static void
count_post(void *ctx)
{
    (void)ctx;
    atomic_fetch_add(&posts_run, 1);
}

static bool
reaches(atomic_int *counter, int wanted)
{
    for (int tries = 0; atomic_load(counter) < wanted; tries++) {
        if (tries == LIMIT_MS * 20)
            return false;
        if (tries > 100)
            usleep(50);
        else
            sched_yield();
    }
    return true;
}

#define POSTS 3000

/* Post, wait until it has run, post again: a lost one is never followed by another. */
static void *
post_often(void *argument)
{
    struct spk_engine *e = argument;
    uint64_t random = 99;

    for (int i = 1; i <= POSTS; i++) {
        if (spk_engine_post(e, count_post, NULL, false) != 0 || !reaches(&posts_run, i))
            return argument;
        pause_a_little(&random);
    }
    return NULL;
}

/* Goal: on the shared engine nobody sleeps through what is meant for him.  Method: pairs of threads
 * that serve each other one ball, over every transport and with every way to wait, beside one that
 * posts. Each waits for the others, so a lost wake-up stops them all. */
static void
play_on_shared(uint32_t rounds)
{
    static const spoke_ns policies[] = {SPOKE_WAIT_BLOCK, SPOKE_WAIT_ADAPTIVE, 3 * SPOKE_US,
                                        SPOKE_WAIT_BLOCK};
    enum { TABLES = 4 };
    static struct player players[TABLES][2];
    struct spk_engine *e;
    pthread_t poster;
    void *failed;

    scratch_dir();
    cr_assert_eq(spk_engine_default(&e), 0);
    for (int t = 0; t < TABLES; t++) {
        char url[ENDPOINT_MAX];

        endpoint_fresh(url, (enum transport)(t % 4));
        for (int i = 0; i < 2; i++) {
            struct player *p = &players[t][i];

            *p = (struct player){.random = (uint64_t)(t * 2 + i + 1),
                                 .rounds = rounds,
                                 .serves = i == 1,
                                 .by_descriptor = t == 3 && i == 0};
            cr_assert_eq(spoke_socket_open(&p->s, SPOKE_PAIR, NULL), 0);
            cr_assert_eq(
                spoke_socket_set_duration(p->s, SPOKE_OPT_BUSY_POLL, policies[(t + i) % 4]), 0);
            cr_assert_eq(
                spoke_socket_set_duration(p->s, SPOKE_OPT_RECV_TIMEOUT, LIMIT_MS * SPOKE_MS), 0);
        }
        cr_assert_eq(spoke_listen(players[t][0].s, url, NULL, 0), 0);
        cr_assert_eq(spoke_dial(players[t][1].s, url, NULL, SPOKE_WAIT_FIRST), 0);
    }
    cr_assert_eq(pthread_create(&poster, NULL, post_often, e), 0);
    for (int i = 0; i < TABLES * 2; i++)
        cr_assert_eq(
            pthread_create(&players[i / 2][i % 2].thread, NULL, play, &players[i / 2][i % 2]), 0);
    for (int i = 0; i < TABLES * 2; i++) {
        struct player *p = &players[i / 2][i % 2];

        pthread_join(p->thread, NULL);
        cr_expect_eq(p->rc, 0, "table %d, player %d: %s", i / 2, i % 2, spoke_error_name(p->rc));
    }
    pthread_join(poster, &failed);
    cr_expect_null(failed, "post %d was lost", atomic_load(&posts_run));
    for (int i = 0; i < TABLES * 2; i++)
        cr_assert_eq(spoke_socket_close(players[i / 2][i % 2].s), 0);
}

#define ROUNDS (5000u / SPOKE_TEST_SLOWDOWN)

Test(wakeups, none_is_lost_on_a_shared_engine)
{
    play_on_shared(ROUNDS);
}

Test(wakeups, none_is_lost_on_a_shared_engine_that_does_not_spin)
{
    setenv("SPOKE_WAIT", "block", 1);
    play_on_shared(ROUNDS);
}

Test(wakeups, none_is_lost_on_a_shared_engine_that_spins_a_little)
{
    setenv("SPOKE_WAIT", "2000", 1);
    play_on_shared(ROUNDS);
}

/* ---- an owner and those who call it ---- */

struct owner {
    spoke_engine *e;
    spoke_socket *s;
    spoke_ns busy_poll_ns;
    atomic_int opened, returns, quit, rc;
    int fd; /* of a foreign loop, else -1 */
    bool foreign;
};

/* Each way to wait in turn; whoever stops it hears of its return. */
static void *
own(void *argument)
{
    struct owner *o = argument;
    spoke_engine_config config;
    int rc;

    spoke_engine_config_init(&config);
    config.busy_poll_ns = o->busy_poll_ns;
    rc = spoke_engine_open(&o->e, &config);
    if (rc == 0 && o->foreign)
        o->fd = spoke_engine_fd(o->e);
    atomic_store(&o->opened, rc == 0 ? 1 : rc);
    for (unsigned i = 0; rc >= 0 && atomic_load(&o->quit) == 0; i++) {
        if (o->foreign) {
            rc = is_readable(o->fd, LIMIT_MS) ? spoke_engine_poll(o->e, 0) : SPOKE_ETIMEDOUT;
        } else if (i % 2 == 0) {
            rc = spoke_engine_run(o->e);
        } else {
            rc = spoke_engine_poll(o->e, LIMIT_MS * SPOKE_MS);
            rc = rc == 0 ? SPOKE_ETIMEDOUT : rc;
        }
        atomic_fetch_add(&o->returns, 1);
    }
    atomic_store(&o->rc, rc);
    if (atomic_load(&o->opened) == 1)
        spoke_engine_close(o->e);
    return NULL;
}

struct caller {
    struct owner *owner;
    int calls;
    bool alone; /* nobody else calls: pauses as long as it takes the owner to fall asleep */
    uint64_t random;
    atomic_int answered;
    pthread_t thread;
};

static void
pause_between_calls(struct caller *c)
{
    if (!c->alone) {
        pause_a_little(&c->random);
        return;
    }
    for (volatile unsigned spins = random_below(&c->random, 2048); spins > 0; spins--)
        ;
}

/* As reaches(), and never asleep. */
static bool
soon_reaches(const struct caller *c, atomic_int *counter, int wanted)
{
    for (unsigned tries = 0; c->alone && tries < 100000; tries++)
        if (atomic_load(counter) >= wanted)
            return true;
    return reaches(counter, wanted);
}

static void
answer(void *ctx)
{
    atomic_fetch_add((atomic_int *)ctx, 1);
}

static void *
call_often(void *argument)
{
    struct caller *c = argument;

    for (int i = 1; i <= c->calls; i++) {
        if (spoke_engine_post(c->owner->e, answer, &c->answered) != 0 ||
            !soon_reaches(c, &c->answered, i))
            return argument;
        pause_between_calls(c);
    }
    return NULL;
}

static void *
stop_often(void *argument)
{
    struct caller *c = argument;

    for (int i = 0; i < c->calls; i++) {
        int before = atomic_load(&c->owner->returns);

        if (spoke_engine_stop(c->owner->e) != 0 || !soon_reaches(c, &c->owner->returns, before + 1))
            return argument;
        pause_between_calls(c);
    }
    return NULL;
}

#define CALLS (20000 / SPOKE_TEST_SLOWDOWN)

/* The first of the callers posts, the next one stops, and so on. */
static void
call_an_owner(spoke_ns busy_poll_ns, bool foreign, int count, bool stops)
{
    struct owner o = {.busy_poll_ns = busy_poll_ns, .foreign = foreign, .fd = -1};
    struct caller callers[3];
    pthread_t thread;
    void *failed;

    cr_assert_eq(pthread_create(&thread, NULL, own, &o), 0);
    cr_assert(reaches(&o.opened, 1));
    for (int i = 0; i < count; i++) {
        bool posts = i % 2 == (stops ? 1 : 0);

        callers[i] = (struct caller){.owner = &o,
                                     .random = (uint64_t)i + 1,
                                     .calls = count == 1 ? CALLS : POSTS,
                                     .alone = count == 1};
        cr_assert_eq(
            pthread_create(&callers[i].thread, NULL, posts ? call_often : stop_often, &callers[i]),
            0);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(callers[i].thread, &failed);
        cr_expect_null(failed, "caller %d: a call was lost after %d", i,
                       atomic_load(&callers[i].answered));
    }
    atomic_store(&o.quit, 1);
    spoke_engine_stop(o.e);
    pthread_join(thread, NULL);
    cr_assert_geq(atomic_load(&o.rc), 0, "%s", spoke_error_name(atomic_load(&o.rc)));
}

Test(wakeups, no_post_is_lost_on_the_way_to_sleep)
{
    call_an_owner(SPOKE_WAIT_BLOCK, false, 1, false);
    call_an_owner(SPOKE_US, false, 1, false);
}

Test(wakeups, no_stop_is_lost_on_the_way_to_sleep)
{
    call_an_owner(SPOKE_WAIT_BLOCK, false, 1, true);
    call_an_owner(SPOKE_US, false, 1, true);
}

Test(wakeups, nothing_is_lost_on_the_way_to_a_foreign_loop)
{
    call_an_owner(SPOKE_WAIT_BLOCK, true, 1, false);
    call_an_owner(SPOKE_WAIT_BLOCK, true, 1, true);
    call_an_owner(2 * SPOKE_US, true, 3, false);
}

Test(wakeups, none_is_lost_of_many_who_call_an_owner)
{
    call_an_owner(SPOKE_WAIT_BLOCK, false, 3, false);
    call_an_owner(2 * SPOKE_US, false, 3, false);
    call_an_owner(SPOKE_WAIT_ADAPTIVE, false, 3, true);
}
