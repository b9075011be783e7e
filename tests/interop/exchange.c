/* SPDX-License-Identifier: MIT */
/* Ours and theirs, beyond what matrix.c has of every pattern: many messages, contexts, devices,
 * and strangers that come and go. */
#include "tests/interop/host.h"
#include "tests/support/process.h"

#define ROUNDS 50
#define MANY   TEST_REPEATS(100000)

static struct criterion_test_params
all_meetings(void)
{
    static struct meeting meetings[16];

    for (unsigned i = 0; i < 16; i++)
        meetings[i] = (struct meeting){.library = i & 1 ? NNG : NANOMSG,
                                       .transport = i & 2 ? TCP : IPC,
                                       .they_listen = (i & 4) != 0,
                                       .owned = (i & 8) != 0};
    return (struct criterion_test_params){
        .size = sizeof meetings[0], .params = meetings, .length = 16};
}

/* One meeting for each library, for what takes longer. */
static struct criterion_test_params
long_meetings(void)
{
    static struct meeting meetings[] = {{NANOMSG, IPC, false, true},
                                        {NNG, IPC, false, true},
                                        {NANOMSG, TCP, true, false},
                                        {NNG, TCP, true, false}};

    return (struct criterion_test_params){
        .size = sizeof meetings[0], .params = meetings, .length = 4};
}

#define MEETING_TEST(Name, List)                                                                   \
    ParameterizedTestParameters(exchange, Name)                                                    \
    {                                                                                              \
        return List();                                                                             \
    }                                                                                              \
    ParameterizedTest(struct meeting *meeting, exchange, Name)

static void
we_ask(struct host *h, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        host_send(h, i);
        host_expect(h, i);
    }
    child_kill(h->stranger);
}

static void
they_ask(struct host *h, uint32_t count)
{
    spoke_msg *m;

    for (uint32_t i = 0; i < count; i++) {
        int rc = spoke_recv(h->s, &m, 0);
        cr_assert_eq(rc, 0, "request %u: %s", i, spoke_error_name(rc));
        cr_assert_eq(spoke_send(h->s, m, 0), 0);
    }
    host_await(h);
}

/* Conversations that go on at the same time, each with its own. */
static void
we_ask_in_contexts(const struct meeting *meeting, int pattern, enum deed deed)
{
    spoke_context *c[4];
    struct host h;

    host_open(&h, meeting, pattern, false);
    host_meet(&h, deed, 0, false);
    host_await_pipes(&h, 1, 0);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_eq(spoke_context_open(&c[i], h.s), 0);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < 4; i++)
            cr_assert_eq(spoke_context_send(c[i], pattern_message(round + i, i), 0), 0);
        for (uint32_t i = 4; i-- > 0;) {
            spoke_msg *m;
            int rc = spoke_context_recv(c[i], &m, 0);
            cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
            cr_assert_eq(spoke_msg_size(m), round + i);
            cr_assert(pattern_holds(spoke_msg_body(m), round + i, i));
            spoke_msg_free(m);
        }
    }
    child_kill(h.stranger);
    host_close(&h);
}

MEETING_TEST(their_replier_answers_our_contexts, all_meetings)
{
    we_ask_in_contexts(meeting, SPOKE_REQ, ECHO_REP);
}

MEETING_TEST(their_respondent_answers_our_contexts, all_meetings)
{
    we_ask_in_contexts(meeting, SPOKE_SURVEYOR, ECHO_RESPONDENT);
}

/* Goal: a device on one raw BUS of ours is a hub for theirs.  Method: a member of ours sends
 * through it to theirs, which answers the same way. */
MEETING_TEST(a_hub_of_ours_connects_their_bus, all_meetings)
{
    struct host h, member;
    char url[ENDPOINT_MAX];
    spoke_device *d;

    host_open(&h, meeting, SPOKE_BUS, true);
    cr_assert_eq(spoke_device_start(&d, h.s, NULL), 0);
    host_meet(&h, ECHO_BUS, 0, false);
    member = h;
    cr_assert_eq(spoke_socket_open(&member.s, SPOKE_BUS, h.e), 0);
    cr_assert_eq(spoke_socket_set_duration(member.s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    endpoint_fresh(url, INPROC);
    cr_assert_eq(spoke_listen(h.s, url, NULL, 0), 0);
    cr_assert_eq(spoke_dial(member.s, url, NULL, 0), 0);
    host_await_pipes(&h, 2, 0);
    host_await_pipes(&member, 1, 0);
    we_ask(&member, ROUNDS);
    cr_assert_eq(spoke_socket_close(member.s), 0);
    host_close(&h);
}

/* A hundred thousand messages, half of them requests. */
MEETING_TEST(they_answer_fifty_thousand_requests, long_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_REQ, false);
    host_meet(&h, ECHO_REP, 0, true);
    we_ask(&h, MANY / 2);
    host_close(&h);
}

MEETING_TEST(we_answer_fifty_thousand_requests, long_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_REP, false);
    host_meet(&h, ASK_REQ, MANY / 2, true);
    they_ask(&h, MANY / 2);
    host_close(&h);
}

MEETING_TEST(a_hundred_thousand_messages_come_from_them_in_order, long_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_PAIR, false);
    host_meet(&h, SOURCE, MANY, true);
    for (uint32_t i = 0; i < MANY; i++)
        host_expect(&h, i);
    cr_assert_eq(spoke_send_bytes(h.s, "thanks", 6, 0), 0);
    host_await(&h);
    host_close(&h);
}

MEETING_TEST(a_hundred_thousand_messages_reach_them_in_order, long_meetings)
{
    struct host h;
    char verdict[8] = "";
    size_t size = sizeof verdict;

    host_open(&h, meeting, SPOKE_PAIR, false);
    host_meet(&h, SINK, MANY, true);
    for (uint32_t i = 0; i < MANY; i++)
        host_send(&h, i);
    /* All of them may wait in the kernel, and not everybody reads as fast as we write. */
    cr_assert_eq(spoke_socket_set_duration(h.s, SPOKE_OPT_RECV_TIMEOUT, 6 * PATIENCE), 0);
    int rc = spoke_recv_bytes(h.s, verdict, &size, 0);
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_str_eq(verdict, "good");
    child_kill(h.stranger);
    host_close(&h);
}

/* A stranger that dies and comes back: requests go on, and the messages of both lives are right. */
MEETING_TEST(a_stranger_that_is_replaced_is_found_again, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_REQ, false);
    host_meet(&h, ECHO_REP, 0, false);
    for (uint32_t life = 0; life < 3; life++) {
        for (uint32_t i = 0; i < 5; i++) {
            host_send(&h, i);
            host_expect(&h, i);
        }
        child_kill(h.stranger);
        h.stranger = stranger_send_on(&h.errand);
    }
    child_kill(h.stranger);
    host_close(&h);
}
