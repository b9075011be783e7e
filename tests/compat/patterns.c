/* SPDX-License-Identifier: MIT */
/* What each pattern does to its users. */
#include "tests/compat/fixture.h"

#include <spoke/socket.h>

/* ---- REQ and REP ---- */

Test(reqrep, says_what_its_state_does_not_allow)
{
    char url[ENDPOINT_MAX], byte;
    int req, rep;

    endpoint_fresh(url, INPROC);
    rep = bound(NN_REP, url);
    req = connected(NN_REQ, url);
    FAILS(EFSM, nn_recv(req, &byte, 1, 0));
    FAILS(EFSM, nn_send(rep, "A", 1, 0));
    send_text(req, "A");
    expect_text(rep, "A");
    send_text(rep, "B");
    FAILS(EFSM, nn_send(rep, "C", 1, 0));
    expect_text(req, "B");
    FAILS(EFSM, nn_recv(req, &byte, 1, 0));
    OK(nn_close(req));
    OK(nn_close(rep));
}

Test(reqrep, requests_go_round_in_the_order_of_connection)
{
    char url[ENDPOINT_MAX];
    int req, rep[2];

    endpoint_fresh(url, INPROC);
    req = bound(NN_REQ, url);
    rep[0] = connected(NN_REP, url);
    rep[1] = connected(NN_REP, url);
    for (int i = 0; i < 4; i++) {
        send_text(req, "A");
        expect_text(rep[i % 2], "A");
        send_text(rep[i % 2], "B");
        expect_text(req, "B");
    }
    OK(nn_close(req));
    OK(nn_close(rep[0]));
    OK(nn_close(rep[1]));
}

static void
send_again(enum transport t)
{
    char url[ENDPOINT_MAX];
    int req, rep;

    fresh(url, t);
    rep = bound(NN_REP, url);
    req = sock(AF_SP, NN_REQ);
    set_int(req, NN_REQ, NN_REQ_RESEND_IVL, 100);
    OK(nn_connect(req, url));
    send_text(req, "A");
    expect_text(rep, "A");
    expect_text(rep, "A");
    send_text(rep, "B");
    expect_text(req, "B");
    OK(nn_close(req));
    OK(nn_close(rep));
}

Test(reqrep, a_request_is_sent_again_when_time_has_passed)
{
    EACH_TRANSPORT(send_again);
}

Test(reqrep, a_request_waits_for_a_peer_and_the_last_one_counts)
{
    char url[ENDPOINT_MAX];
    int req, rep;

    endpoint_fresh(url, INPROC);
    req = connected(NN_REQ, url);
    send_text(req, "first");
    send_text(req, "second");
    rep = bound(NN_REP, url);
    expect_text(rep, "second");
    expect_nothing(rep);
    OK(nn_close(req));
    OK(nn_close(rep));
}

/* By time it would take a minute; switched off, never. */
static void
lose_the_replier_after(int interval, enum transport t)
{
    char first_url[ENDPOINT_MAX], second_url[ENDPOINT_MAX];
    int req = sock(AF_SP, NN_REQ), first, second;

    fresh(first_url, t);
    fresh(second_url, t);
    set_int(req, NN_REQ, NN_REQ_RESEND_IVL, interval);
    first = bound(NN_REP, first_url);
    OK(nn_connect(req, first_url));
    OK(nn_connect(req, second_url));
    send_text(req, "A");
    expect_text(first, "A");
    second = bound(NN_REP, second_url);
    OK(nn_close(first));
    expect_text(second, "A");
    send_text(second, "B");
    expect_text(req, "B");
    OK(nn_close(req));
    OK(nn_close(second));
}

static void
lose_the_replier(enum transport t)
{
    lose_the_replier_after(60000, t);
    lose_the_replier_after(0, t);
    lose_the_replier_after(-1, t);
}

Test(reqrep, a_request_whose_replier_goes_is_given_to_another)
{
    EACH_TRANSPORT(lose_the_replier);
}

#ifdef SPOKE_PUSH
/* ---- PUSH and PULL ---- */

Test(pipeline, spreads_and_collects)
{
    char url[ENDPOINT_MAX], other[ENDPOINT_MAX];
    int push, pull[2], pushes[2];

    endpoint_fresh(url, INPROC);
    push = bound(NN_PUSH, url);
    pull[0] = connected(NN_PULL, url);
    pull[1] = connected(NN_PULL, url);
    send_text(push, "ABC");
    send_text(push, "DEF");
    expect_text(pull[0], "ABC");
    expect_text(pull[1], "DEF");
    OK(nn_close(push));
    OK(nn_close(pull[0]));
    OK(nn_close(pull[1]));
    endpoint_fresh(other, INPROC);
    pull[0] = bound(NN_PULL, other);
    pushes[0] = connected(NN_PUSH, other);
    pushes[1] = connected(NN_PUSH, other);
    send_text(pushes[0], "ABC");
    send_text(pushes[1], "DEF");
    expect_text(pull[0], "ABC");
    expect_text(pull[0], "DEF");
    OK(nn_close(pull[0]));
    OK(nn_close(pushes[0]));
    OK(nn_close(pushes[1]));
}

Test(pipeline, knows_one_direction)
{
    int push = sock(AF_SP, NN_PUSH), pull = sock(AF_SP, NN_PULL), value;
    struct nn_pollfd in = {.fd = push, .events = NN_POLLIN},
                     out = {.fd = pull, .events = NN_POLLOUT};
    size_t size = sizeof value;
    char byte;

    FAILS(ENOTSUP, nn_recv(push, &byte, 1, 0));
    FAILS(ENOTSUP, nn_send(pull, "A", 1, 0));
    FAILS(ENOPROTOOPT, nn_getsockopt(push, NN_SOL_SOCKET, NN_RCVFD, &value, &size));
    FAILS(ENOPROTOOPT, nn_getsockopt(pull, NN_SOL_SOCKET, NN_SNDFD, &value, &size));
    FAILS(ENOPROTOOPT, nn_poll(&in, 1, 0));
    FAILS(ENOPROTOOPT, nn_poll(&out, 1, 0));
    OK(nn_close(push));
    OK(nn_close(pull));
}

Test(pipeline, keeps_nothing_for_whoever_may_come)
{
    char url[ENDPOINT_MAX];
    int push, pull;

    endpoint_fresh(url, INPROC);
    push = bound(NN_PUSH, url);
    FAILS(EAGAIN, nn_send(push, "A", 1, NN_DONTWAIT));
    pull = connected(NN_PULL, url);
    send_text(push, "B");
    expect_text(pull, "B");
    OK(nn_close(pull));
    FAILS(EAGAIN, nn_send(push, "C", 1, NN_DONTWAIT));
    pull = connected(NN_PULL, url);
    send_text(push, "D");
    expect_text(pull, "D");
    OK(nn_close(push));
    OK(nn_close(pull));
}

Test(pipeline, sends_to_the_first_class_that_is_there)
{
    char url[2][ENDPOINT_MAX];
    int push = sock(AF_SP, NN_PUSH), pull[2];

    for (int i = 0; i < 2; i++) {
        endpoint_fresh(url[i], INPROC);
        pull[i] = bound(NN_PULL, url[i]);
        set_int(push, NN_SOL_SOCKET, NN_SNDPRIO, i + 1);
        OK(nn_connect(push, url[i]));
    }
    cr_assert_eq(nn_get_statistic(push, NN_STAT_CURRENT_SND_PRIORITY), 1);
    send_text(push, "ABC");
    send_text(push, "DEF");
    expect_text(pull[0], "ABC");
    expect_text(pull[0], "DEF");
    OK(nn_close(pull[0]));
    send_text(push, "GHI");
    expect_text(pull[1], "GHI");
    OK(nn_close(push));
    OK(nn_close(pull[1]));
}

Test(pipeline, receives_from_the_first_class_first)
{
    char url[2][ENDPOINT_MAX];
    int pull = sock(AF_SP, NN_PULL), push[2];

    for (int i = 0; i < 2; i++) {
        endpoint_fresh(url[i], INPROC);
        push[i] = bound(NN_PUSH, url[i]);
        set_int(pull, NN_SOL_SOCKET, NN_RCVPRIO, 2 - i);
        OK(nn_connect(pull, url[i]));
    }
    send_text(push[0], "second class");
    send_text(push[1], "first class");
    expect_text(pull, "first class");
    expect_text(pull, "second class");
    OK(nn_close(pull));
    OK(nn_close(push[0]));
    OK(nn_close(push[1]));
}

#endif

#ifdef SPOKE_SUB
/* ---- PUB and SUB ---- */

Test(pubsub, gives_what_was_subscribed)
{
    char url[ENDPOINT_MAX], byte;
    int pub, sub[2], value;
    size_t size = sizeof value;

    endpoint_fresh(url, INPROC);
    pub = bound(NN_PUB, url);
    for (int i = 0; i < 2; i++) {
        sub[i] = sock(AF_SP, NN_SUB);
        OK(nn_setsockopt(sub[i], NN_SUB, NN_SUB_SUBSCRIBE, i == 0 ? "" : "wea", i == 0 ? 0 : 3));
        FAILS(ENOPROTOOPT, nn_getsockopt(sub[i], NN_SUB, NN_SUB_SUBSCRIBE, &value, &size));
        OK(nn_connect(sub[i], url));
    }
    FAILS(ENOTSUP, nn_recv(pub, &byte, 1, 0));
    FAILS(ENOTSUP, nn_send(sub[0], "A", 1, 0));
    send_text(pub, "sport");
    send_text(pub, "weather");
    expect_text(sub[0], "sport");
    expect_text(sub[0], "weather");
    expect_text(sub[1], "weather");
    OK(nn_close(pub));
    OK(nn_close(sub[0]));
    OK(nn_close(sub[1]));
}

Test(pubsub, counts_subscriptions)
{
    char url[ENDPOINT_MAX], byte;
    int pub, sub = sock(AF_SP, NN_SUB);

    endpoint_fresh(url, INPROC);
    pub = bound(NN_PUB, url);
    OK(nn_setsockopt(sub, NN_SUB, NN_SUB_UNSUBSCRIBE, "a", 1)); /* nanomsg would crash */
    OK(nn_setsockopt(sub, NN_SUB, NN_SUB_SUBSCRIBE, "a", 1));
    OK(nn_setsockopt(sub, NN_SUB, NN_SUB_SUBSCRIBE, "a", 1));
    OK(nn_connect(sub, url));
    OK(nn_setsockopt(sub, NN_SUB, NN_SUB_UNSUBSCRIBE, "a", 1));
    send_text(pub, "a1");
    expect_text(sub, "a1");
    OK(nn_setsockopt(sub, NN_SUB, NN_SUB_UNSUBSCRIBE, "a", 1));
    OK(nn_setsockopt(sub, NN_SUB, NN_SUB_UNSUBSCRIBE, "a", 1));
    send_text(pub, "a2");
    FAILS(EAGAIN, nn_recv(sub, &byte, 1, NN_DONTWAIT));
    OK(nn_close(pub));
    OK(nn_close(sub));
}

static void
two_publishers(enum transport t)
{
    char url[ENDPOINT_MAX];
    int sub = sock(AF_SP, NN_SUB), pub[2];

    fresh(url, t);
    OK(nn_setsockopt(sub, NN_SUB, NN_SUB_SUBSCRIBE, "", 0));
    OK(nn_bind(sub, url));
    for (int i = 0; i < 2; i++) {
        pub[i] = connected(NN_PUB, url);
        wait_statistic(pub[i], NN_STAT_CURRENT_CONNECTIONS, 1);
    }
    wait_statistic(sub, NN_STAT_CURRENT_CONNECTIONS, 2);
    for (int i = 0; i < 10; i++) {
        send_text(pub[i % 2], i % 2 == 0 ? "from one" : "from the other");
        expect_text(sub, i % 2 == 0 ? "from one" : "from the other");
    }
    expect_nothing(sub);
    OK(nn_close(pub[0]));
    OK(nn_close(pub[1]));
    OK(nn_close(sub));
}

Test(pubsub, hears_two_publishers)
{
    EACH_TRANSPORT(two_publishers);
}

#endif

#ifdef SPOKE_SURVEYOR
/* ---- SURVEYOR and RESPONDENT ---- */

Test(survey, takes_answers_until_its_time_is_up)
{
    char url[ENDPOINT_MAX], byte;
    int asks, answers[3];

    endpoint_fresh(url, INPROC);
    asks = sock(AF_SP, NN_SURVEYOR);
    OK(nn_bind(asks, url));
    set_int(asks, NN_SURVEYOR, NN_SURVEYOR_DEADLINE, 2000 + 250 * SPOKE_TEST_SLOWDOWN);
    for (int i = 0; i < 3; i++)
        answers[i] = connected(NN_RESPONDENT, url);
    FAILS(EFSM, nn_recv(asks, &byte, 1, 0));
    FAILS(EFSM, nn_send(answers[0], "A", 1, 0));
    send_text(asks, "ABC");
    for (int i = 0; i < 2; i++) {
        expect_text(answers[i], "ABC");
        send_text(answers[i], "DEF");
    }
    expect_text(asks, "DEF");
    expect_text(asks, "DEF");
    FAILS(ETIMEDOUT, nn_recv(asks, &byte, 1, 0));
    FAILS(EFSM, nn_recv(asks, &byte, 1, 0));
    expect_text(answers[2], "ABC");
    send_text(answers[2], "too late");
    send_text(asks, "next");
    expect_text(answers[0], "next");
    send_text(answers[0], "in time");
    expect_text(asks, "in time");
    FAILS(ETIMEDOUT, nn_recv(asks, &byte, 1, 0));
    OK(nn_close(asks));
    for (int i = 0; i < 3; i++)
        OK(nn_close(answers[i]));
}

#endif

#ifdef SPOKE_BUS
/* ---- BUS ---- */

Test(bus, reaches_all_direct_peers)
{
    static const char *const names[] = {"A", "AB", "ABC"};
    char url[2][ENDPOINT_MAX], body[8];
    int node[3];

    endpoint_fresh(url[0], INPROC);
    endpoint_fresh(url[1], INPROC);
    node[0] = bound(NN_BUS, url[0]);
    node[1] = bound(NN_BUS, url[1]);
    OK(nn_connect(node[1], url[0]));
    node[2] = connected(NN_BUS, url[0]);
    OK(nn_connect(node[2], url[1]));
    for (int i = 0; i < 3; i++)
        send_text(node[i], names[i]);
    for (int i = 0; i < 3; i++) {
        int first = nn_recv(node[i], body, sizeof body, 0);
        int second = nn_recv(node[i], body, sizeof body, 0);
        cr_assert_eq(first + second, 6 - (i + 1), "one of each of the others");
        cr_assert(first != i + 1 && second != i + 1, "none of its own");
        FAILS(EAGAIN, nn_recv(node[i], body, sizeof body, NN_DONTWAIT));
    }
    for (int i = 0; i < 3; i++)
        OK(nn_close(node[i]));
}

Test(bus, raw_names_a_peer_in_eight_bytes)
{
    char url[ENDPOINT_MAX], body[8];
    void *control = NULL;
    struct nn_iovec part = {body, sizeof body};
    struct nn_msghdr hdr = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = NN_MSG};
    int hub = sock(AF_SP_RAW, NN_BUS), a, b;
    size_t words, wrong = 5;

    endpoint_fresh(url, INPROC);
    OK(nn_bind(hub, url));
    a = connected(NN_BUS, url);
    b = connected(NN_BUS, url);
    send_text(a, "A");
    cr_assert_eq(nn_recvmsg(hub, &hdr, 0), 1);
    memcpy(&words, NN_CMSG_DATA(NN_CMSG_FIRSTHDR(&hdr)), sizeof words);
    cr_assert_eq(words, 8);
    memcpy(NN_CMSG_DATA(NN_CMSG_FIRSTHDR(&hdr)), &wrong, sizeof wrong);
    part.iov_len = 1;
    FAILS(EINVAL, nn_sendmsg(hub, &hdr, 0));
    memcpy(NN_CMSG_DATA(NN_CMSG_FIRSTHDR(&hdr)), &words, sizeof words);
    cr_assert_eq(nn_sendmsg(hub, &hdr, 0), 1);
    expect_text(b, "A");
    FAILS(EAGAIN, nn_recv(a, body, sizeof body, NN_DONTWAIT));
    send_text(hub, "to all");
    expect_text(a, "to all");
    expect_text(b, "to all");
    OK(nn_close(hub));
    OK(nn_close(a));
    OK(nn_close(b));
}

#endif
