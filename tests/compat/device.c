/* SPDX-License-Identifier: MIT */
/* nn_device(). */
#include "tests/compat/fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include <spoke/socket.h>

#include "tests/support/waiters.h"

struct device {
    pthread_t thread;
    atomic_int tid; /* 0: it does not run yet */
    int a, b, result, error;
};

static void *
run_device(void *argument)
{
    struct device *d = argument;

    atomic_store(&d->tid, gettid());
    d->result = nn_device(d->a, d->b);
    d->error = nn_errno();
    return NULL;
}

/* Between two addresses that it binds; -1: one socket alone. */
static void
start(struct device *d, int first, const char *first_url, int second, const char *second_url)
{
    atomic_store(&d->tid, 0);
    d->a = sock(AF_SP_RAW, first);
    OK(nn_bind(d->a, first_url));
    d->b = second < 0 ? -1 : sock(AF_SP_RAW, second);
    if (second >= 0)
        OK(nn_bind(d->b, second_url));
    cr_assert_eq(pthread_create(&d->thread, NULL, run_device, d), 0);
}

static void
expect_end(struct device *d)
{
    pthread_join(d->thread, NULL);
    cr_assert_eq(d->result, -1);
    cr_assert_eq(d->error, EBADF, "%s", nn_strerror(d->error));
}

/* The first message has gone through, and arrived: the receiver does not take it. */
static void
expect_dropped(const struct device *d, int receiver)
{
    wait_statistic(d->b, NN_STAT_MESSAGES_SENT, 1);
    await_engine();
    expect_nothing(receiver);
}

Test(device, needs_two_raw_sockets_that_fit)
{
    int cooked = sock(AF_SP, NN_PAIR), pair = sock(AF_SP_RAW, NN_PAIR),
        req = sock(AF_SP_RAW, NN_REQ), other = sock(AF_SP_RAW, NN_REQ), rep = sock(AF_SP, NN_REP);

    FAILS(EBADF, nn_device(-1, -1));
    FAILS(EBADF, nn_device(pair, 400));
    FAILS(EINVAL, nn_device(cooked, -1));
    FAILS(EINVAL, nn_device(-1, cooked));
    FAILS(EINVAL, nn_device(pair, cooked));
    FAILS(EINVAL, nn_device(req, other));
    FAILS(EINVAL, nn_device(req, rep));
    FAILS(EINVAL, nn_device(req, pair));
    nn_term();
}

Test(device, passes_both_ways_and_ends_when_a_socket_is_closed)
{
    char url[2][ENDPOINT_MAX];
    struct device d;
    int a, b;

    endpoint_fresh(url[0], INPROC);
    endpoint_fresh(url[1], TCP);
    start(&d, NN_PAIR, url[0], NN_PAIR, url[1]);
    a = connected(NN_PAIR, url[0]);
    b = connected(NN_PAIR, url[1]);
    for (int i = 0; i < 50; i++) {
        send_text(a, "there");
        expect_text(b, "there");
        send_text(b, "back");
        expect_text(a, "back");
    }
    OK(nn_close(d.b));
    expect_end(&d);
    OK(nn_close(d.a));
    OK(nn_close(a));
    OK(nn_close(b));
}

Test(device, a_request_finds_its_way_back_through_two_of_them)
{
    char url[3][ENDPOINT_MAX];
    struct device first, second;
    int req, rep;

    for (int i = 0; i < 3; i++)
        endpoint_fresh(url[i], i == 1 ? INPROC : TCP);
    start(&first, NN_REP, url[0], NN_REQ, url[1]);
    second.a = sock(AF_SP_RAW, NN_REP);
    OK(nn_connect(second.a, url[1])); /* it dials the other's bound REQ */
    second.b = sock(AF_SP_RAW, NN_REQ);
    OK(nn_bind(second.b, url[2]));
    cr_assert_eq(pthread_create(&second.thread, NULL, run_device, &second), 0);
    rep = connected(NN_REP, url[2]);
    req = connected(NN_REQ, url[0]);
    for (int i = 0; i < 20; i++) {
        send_text(req, "question");
        expect_text(rep, "question");
        send_text(rep, "answer");
        expect_text(req, "answer");
    }
    nn_term();
    expect_end(&first);
    expect_end(&second);
}

Test(device, counts_as_a_hop)
{
    char url[2][ENDPOINT_MAX];
    struct device d;
    int req, rep;

    endpoint_fresh(url[0], INPROC);
    endpoint_fresh(url[1], INPROC);
    start(&d, NN_REP, url[0], NN_REQ, url[1]);
    req = connected(NN_REQ, url[0]);
    rep = sock(AF_SP, NN_REP);
    cr_assert_eq(get_int(rep, NN_SOL_SOCKET, NN_MAXTTL), 8);
    set_int(rep, NN_SOL_SOCKET, NN_MAXTTL, 1);
    OK(nn_connect(rep, url[1]));
    send_text(req, "A");
    expect_dropped(&d, rep);
    set_int(rep, NN_SOL_SOCKET, NN_MAXTTL, 2);
    send_text(req, "B");
    expect_text(rep, "B");
    send_text(rep, "C");
    expect_text(req, "C");
    nn_term();
    expect_end(&d);
}

/* Both ways wait for the other socket then. */
Test(device, that_has_a_message_for_nobody_ends_when_its_sender_is_closed)
{
    char url[2][ENDPOINT_MAX];
    struct device d;
    int a;

    endpoint_fresh(url[0], INPROC);
    endpoint_fresh(url[1], INPROC);
    start(&d, NN_PAIR, url[0], NN_PAIR, url[1]);
    a = connected(NN_PAIR, url[0]);
    send_text(a, "A");
    wait_statistic(d.a, NN_STAT_MESSAGES_RECEIVED, 1);
    sleep_ms(20);
    OK(nn_close(d.a));
    expect_end(&d);
    OK(nn_close(d.b));
    OK(nn_close(a));
}

Test(device, of_one_socket_sends_back)
{
    char url[ENDPOINT_MAX];
    struct device d;
    int a;

    endpoint_fresh(url, INPROC);
    start(&d, NN_PAIR, url, -1, NULL);
    a = connected(NN_PAIR, url);
    send_text(a, "echo");
    expect_text(a, "echo");
    nn_term();
    expect_end(&d);
}

#ifdef SPOKE_PUSH
Test(device, passes_one_way)
{
    char url[2][ENDPOINT_MAX];
    struct device d;
    int push, pull;

    endpoint_fresh(url[0], INPROC);
    endpoint_fresh(url[1], INPROC);
    start(&d, NN_PULL, url[0], NN_PUSH, url[1]);
    push = connected(NN_PUSH, url[0]);
    pull = connected(NN_PULL, url[1]);
    send_text(push, "A");
    expect_text(pull, "A");
    nn_term();
    expect_end(&d);
}

/* Which of the two is closed does not matter, nor who gets its number then. */
Test(device, of_one_way_ends_when_either_socket_is_closed)
{
    char url[2][ENDPOINT_MAX];
    struct device d;

    for (int i = 0; i < 2; i++) {
        endpoint_fresh(url[0], INPROC);
        endpoint_fresh(url[1], INPROC);
        start(&d, NN_PULL, url[0], NN_PUSH, url[1]);
        while (atomic_load(&d.tid) == 0)
            sleep_ms(1);
        cr_assert(await_sleep(atomic_load(&d.tid)));
        OK(nn_close(i == 0 ? d.a : d.b));
        OK(nn_close(sock(AF_SP_RAW, NN_PAIR)));
        expect_end(&d);
        OK(nn_close(i == 0 ? d.b : d.a));
    }
}

#endif

#ifdef SPOKE_BUS
Test(device, of_one_bus_is_a_hub_without_an_echo)
{
    char url[ENDPOINT_MAX];
    struct device d;
    int a, b;

    endpoint_fresh(url, INPROC);
    start(&d, NN_BUS, url, -1, NULL);
    a = connected(NN_BUS, url);
    b = connected(NN_BUS, url);
    send_text(a, "A");
    expect_text(b, "A");
    expect_nothing(a);
    nn_term();
    expect_end(&d);
}

#endif

#ifdef SPOKE_SURVEYOR
Test(device, a_survey_finds_its_way_back)
{
    char url[2][ENDPOINT_MAX];
    struct device d;
    int asks, answers;

    endpoint_fresh(url[0], INPROC);
    endpoint_fresh(url[1], INPROC);
    start(&d, NN_RESPONDENT, url[0], NN_SURVEYOR, url[1]);
    asks = connected(NN_SURVEYOR, url[0]);
    set_int(asks, NN_SURVEYOR, NN_SURVEYOR_DEADLINE, PATIENCE_MS);
    answers = sock(AF_SP, NN_RESPONDENT);
    set_int(answers, NN_SOL_SOCKET, NN_MAXTTL, 1);
    OK(nn_connect(answers, url[1]));
    send_text(asks, "A");
    expect_dropped(&d, answers);
    set_int(answers, NN_SOL_SOCKET, NN_MAXTTL, 2);
    send_text(asks, "B");
    expect_text(answers, "B");
    send_text(answers, "C");
    expect_text(asks, "C");
    nn_term();
    expect_end(&d);
}

#endif
