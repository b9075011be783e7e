/* SPDX-License-Identifier: MIT */
/* From one channel to another. */
#include "tests/channel/pair_fixture.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

struct two {
    struct yard y;
    spoke_sender *tx, *out; /* of the first, of the second */
    spoke_receiver *in, *rx;
};

static void
two_open(struct two *t, enum way way, size_t depth, size_t depth_behind)
{
    yard_open(&t->y, way);
    pair(&t->y, depth, &t->tx, &t->in);
    pair(&t->y, depth_behind, &t->out, &t->rx);
}

static void
two_close(struct two *t)
{
    close_pair(t->tx, t->in);
    close_pair(t->out, t->rx);
    yard_close(&t->y);
}

WAY_TEST(channel_copy, until_the_end, ways)
{
    struct two t;
    uint64_t count, number;

    two_open(&t, *way, 200, 200);
    for (uint64_t i = 0; i < 150; i++)
        expect_rc(send_number(t.tx, i, SPOKE_NOW), 0);
    expect_rc(spoke_channel_copy(t.out, t.in, &count, SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_eq(count, 150);
    expect_rc(send_number(t.tx, 150, SPOKE_NOW), 0);
    expect_rc(spoke_sender_close(t.tx), 0);
    expect_rc(spoke_channel_copy(t.out, t.in, &count, SPOKE_FOREVER), 0);
    cr_assert_eq(count, 1);
    for (uint64_t i = 0; i <= 150; i++) {
        expect_rc(recv_number(t.rx, &number, SPOKE_NOW), 0);
        cr_assert_eq(number, i);
    }
    expect_rc(recv_nothing(t.rx, SPOKE_NOW), SPOKE_EAGAIN); /* neither is closed */
    two_close(&t);
}

WAY_TEST(channel_copy, why_it_ends, ways)
{
    struct two t;
    uint64_t count;

    two_open(&t, *way, 8, 1);
    expect_rc(spoke_channel_copy(t.out, t.in, NULL, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_channel_copy(t.out, t.in, &count, -1), SPOKE_EINVAL);
    expect_rc(spoke_channel_copy(t.tx, t.in, &count, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_channel_copy(t.out, t.in, &count, 1), SPOKE_ETIMEDOUT);
    for (int i = 0; i < 4; i++)
        expect_rc(send_text(t.tx, "x", SPOKE_NOW), 0);
    expect_rc(spoke_channel_copy(t.out, t.in, &count, yard_in(&t.y, SPOKE_MS)), SPOKE_ETIMEDOUT);
    cr_assert_eq(count, 1, "there is no more room");
    expect_rc(spoke_receiver_close(t.rx), 0);
    expect_rc(spoke_channel_copy(t.out, t.in, &count, SPOKE_FOREVER), SPOKE_EPEERCLOSED);
    cr_assert_eq(count, 0);
    for (int i = 0; i < 3; i++)
        expect_text(t.in, "x"); /* none is lost in between */
    expect_rc(spoke_sender_abort(t.tx, 1, NULL), 0);
    expect_rc(spoke_channel_copy(t.out, t.in, &count, SPOKE_FOREVER), SPOKE_EABORTED);
    two_close(&t);
}

WAY_TEST(channel_copy, what_is_too_large_stays, ways)
{
    spoke_channel_config config;
    struct two t;
    uint64_t count;

    two_open(&t, *way, 8, 8);
    close_pair(t.out, t.rx);
    spoke_channel_config_init(&config);
    config.max_message = 3;
    expect_rc(spoke_channel_pair(&t.rx, &t.out, &config, t.y.e), 0);
    expect_rc(send_text(t.tx, "abc", SPOKE_NOW), 0);
    expect_rc(send_text(t.tx, "abcd", SPOKE_NOW), 0);
    expect_rc(spoke_channel_copy(t.out, t.in, &count, SPOKE_FOREVER), SPOKE_EMSGSIZE);
    cr_assert_eq(count, 1);
    expect_text(t.in, "abcd");
    expect_text(t.rx, "abc");
    two_close(&t);
}

static void
close_last(void *ctx)
{
    (void)spoke_receiver_close(((struct two *)ctx)->rx);
}

static void
close_first(void *ctx)
{
    (void)spoke_sender_close(((struct two *)ctx)->tx);
}

static void
close_in(void *ctx)
{
    (void)spoke_receiver_close(((struct two *)ctx)->in);
}

static void
close_out(void *ctx)
{
    (void)spoke_sender_close(((struct two *)ctx)->out);
}

/* Whichever of the four handles is closed, an idle copy is told. */
WAY_TEST(channel_copy, every_end_wakes_it, ways)
{
    static const struct {
        void (*fn)(void *ctx);
        int wanted;
    } ends[] = {{close_first, 0},
                {close_last, SPOKE_EPEERCLOSED},
                {close_in, SPOKE_ECLOSED},
                {close_out, SPOKE_ECLOSED}};
    struct later *later;
    struct two t;
    uint64_t count;

    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        two_open(&t, *way, 8, 8);
        expect_rc(send_text(t.tx, "x", SPOKE_NOW), 0);
        later = yard_later(&t.y, t.out, ends[i].fn, &t);
        expect_rc(spoke_channel_copy(t.out, t.in, &count, SOON(&t.y)), ends[i].wanted);
        yard_joined(later);
        cr_assert_eq(count, 1);
        two_close(&t);
    }
}

WAY_TEST(channel_copy, attachments_move, ways)
{
    struct two t;
    spoke_sender *answer;
    spoke_receiver *answers;
    spoke_msg *m;
    uint64_t count;

    two_open(&t, *way, 8, 8);
    expect_rc(spoke_request(t.tx, message("ask"), &answers, NULL, SPOKE_NOW), 0);
    expect_rc(spoke_sender_close(t.tx), 0);
    expect_rc(spoke_channel_copy(t.out, t.in, &count, SPOKE_FOREVER), 0);
    cr_assert_eq(count, 1);
    expect_rc(spoke_receiver_recv(t.rx, &m, SPOKE_NOW), 0);
    expect_rc(spoke_msg_take_sender(m, 0, &answer), 0);
    spoke_msg_free(m);
    expect_rc(send_text(answer, "told", SPOKE_NOW), 0);
    expect_text(answers, "told");
    close_pair(answer, answers);
    two_close(&t);
}

/* Its descriptor knows that a copy has taken what was there. */
WAY_TEST(channel_copy, levels_follow, ways_real)
{
    struct pollfd p = {.events = POLLIN};
    struct two t;
    uint64_t count;

    two_open(&t, *way, 8, 8);
    p.fd = spoke_receiver_fd(t.in);
    cr_assert_geq(p.fd, 0);
    expect_rc(send_text(t.tx, "x", SPOKE_NOW), 0);
    yard_settle(&t.y);
    cr_assert_eq(poll(&p, 1, 0), 1);
    expect_rc(spoke_channel_copy(t.out, t.in, &count, SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_eq(poll(&p, 1, 0), 0);
    two_close(&t);
}

/* A proxy of callbacks: it is called when there is something to copy, or room for it again, and not
 * all the time while there is none. */
struct proxy {
    struct two t;
    atomic_int calls;
    atomic_ullong count;
};

static void
copy_now(struct proxy *p)
{
    uint64_t count;

    atomic_fetch_add(&p->calls, 1);
    (void)spoke_channel_copy(p->t.out, p->t.in, &count, SPOKE_NOW);
    atomic_fetch_add(&p->count, count);
}

static void
on_message(spoke_receiver *rx, void *ctx)
{
    (void)rx;
    copy_now(ctx);
}

static void
on_room(spoke_sender *tx, void *ctx)
{
    (void)tx;
    copy_now(ctx);
}

WAY_TEST(channel_copy, on_callbacks, ways)
{
    static struct proxy p;
    uint64_t number;

    atomic_store(&p.calls, 0);
    atomic_store(&p.count, 0);
    two_open(&p.t, *way, 20, 2);
    expect_rc(spoke_receiver_on_ready(p.t.in, on_message, &p), 0);
    expect_rc(spoke_sender_on_ready(p.t.out, on_room, &p), 0);
    for (uint64_t i = 0; i < 10; i++)
        expect_rc(send_number(p.t.tx, i, SPOKE_NOW), 0);
    for (int i = 0; i < 3; i++)
        yard_settle(&p.t.y);
    cr_assert_eq(atomic_load(&p.count), 2);
    cr_assert_leq(atomic_load(&p.calls), 12);
    for (uint64_t i = 0; i < 10; i++) {
        expect_rc(recv_number(p.t.rx, &number, SOON(&p.t.y)), 0);
        cr_assert_eq(number, i);
    }
    yard_settle(&p.t.y);
    cr_assert_eq(atomic_load(&p.count), 10);
    expect_rc(spoke_receiver_on_ready(p.t.in, NULL, NULL), 0);
    expect_rc(spoke_sender_on_ready(p.t.out, NULL, NULL), 0);
    two_close(&p.t);
}

/* ---- threads ---- */

struct job {
    pthread_t thread;
    spoke_sender *tx;
    spoke_receiver *rx;
    uint64_t count, sum;
    int rc;
};

static void *
copies(void *argument)
{
    struct job *j = argument;

    j->rc = spoke_channel_copy(j->tx, j->rx, &j->count, SPOKE_FOREVER);
    return NULL;
}

#define NUMBERS ((uint64_t)TEST_REPEATS(20000))

static void *
sends(void *argument)
{
    struct job *j = argument;

    for (uint64_t i = 1; i <= NUMBERS && j->rc == 0; i++)
        j->rc = send_number(j->tx, i, SPOKE_FOREVER);
    return NULL;
}

static void *
receives(void *argument)
{
    struct job *j = argument;
    uint64_t number;

    while ((j->rc = recv_number(j->rx, &number, SPOKE_FOREVER)) == 0) {
        j->sum += number;
        j->count++;
    }
    return NULL;
}

/* Two channels into one, on whose sender a thread sends besides, and one copy per receiver. */
Test(channel_copy, several_into_one)
{
    struct job first, second, direct, into[2], last;
    struct yard y;
    spoke_sender *tx[2], *out;
    spoke_receiver *in[2], *rx;
    uint64_t count;

    yard_open(&y, SHARED);
    for (int i = 0; i < 2; i++)
        pair(&y, 5, &tx[i], &in[i]);
    pair(&y, 3, &out, &rx);
    first = (struct job){.tx = out, .rx = in[0]};
    second = (struct job){.tx = out, .rx = in[1]};
    direct = (struct job){.tx = out};
    last = (struct job){.rx = rx};
    cr_assert_eq(pthread_create(&first.thread, NULL, copies, &first), 0);
    cr_assert(await_calls(out, 1));
    expect_rc(spoke_channel_copy(out, in[0], &count, SPOKE_NOW), SPOKE_EBUSY);
    cr_assert_eq(pthread_create(&second.thread, NULL, copies, &second), 0);
    cr_assert_eq(pthread_create(&last.thread, NULL, receives, &last), 0);
    cr_assert_eq(pthread_create(&direct.thread, NULL, sends, &direct), 0);
    for (int i = 0; i < 2; i++) {
        into[i] = (struct job){.tx = tx[i]};
        cr_assert_eq(pthread_create(&into[i].thread, NULL, sends, &into[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(into[i].thread, NULL);
        expect_rc(into[i].rc, 0);
        expect_rc(spoke_sender_close(tx[i]), 0);
    }
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    pthread_join(direct.thread, NULL);
    expect_rc(first.rc, 0);
    expect_rc(second.rc, 0);
    expect_rc(direct.rc, 0);
    cr_assert_eq(first.count, NUMBERS);
    cr_assert_eq(second.count, NUMBERS);
    expect_rc(spoke_sender_close(out), 0);
    pthread_join(last.thread, NULL);
    expect_rc(last.rc, SPOKE_EOF);
    cr_assert_eq(last.count, 3 * NUMBERS);
    cr_assert_eq(last.sum, 3 * (NUMBERS * (NUMBERS + 1) / 2));
    for (int i = 0; i < 2; i++)
        expect_rc(spoke_receiver_close(in[i]), 0);
    expect_rc(spoke_receiver_close(rx), 0);
    yard_close(&y);
}
