/* SPDX-License-Identifier: MIT */
/* Ours and theirs: every pattern that we share, over ipc and tcp, whoever listens, owned and
 * shared. */
#include <unistd.h>

#include "tests/interop/stranger.h"

#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/process.h"
#include "tests/support/resources.h"
#include "tests/support/world.h"

#define PATIENCE (15 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)
#define ROUNDS   50
#define MANY     TEST_REPEATS(100000)

struct meeting {
    enum library library;
    enum transport transport;
    bool they_listen, owned;
};

/* Our side of a meeting. */
struct host {
    spoke_engine *e;
    spoke_socket *s;
    pid_t stranger;
    struct errand errand;
};

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

static void
host_open(struct host *h, const struct meeting *meeting, int pattern, bool raw)
{
    if (!stranger_is_here(meeting->library))
        cr_skip("%s is not installed", stranger_name(meeting->library));
    *h = (struct host){.errand = {.library = meeting->library, .listens = meeting->they_listen}};
    endpoint_fresh(h->errand.url, meeting->transport);
    if (meeting->owned)
        cr_assert_eq(spoke_engine_open(&h->e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&h->s, pattern, h->e), 0);
    cr_assert_eq(spoke_socket_set_duration(h->s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(spoke_socket_set_duration(h->s, SPOKE_OPT_SEND_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(spoke_socket_set_duration(h->s, SPOKE_OPT_RECONNECT, 5 * SPOKE_MS), 0);
    if (raw)
        cr_assert_eq(spoke_socket_set_bool(h->s, SPOKE_OPT_RAW, true), 0);
}

static void
host_meet(struct host *h, enum deed deed, uint32_t count, bool many)
{
    int rc;

    h->errand.deed = deed;
    h->errand.count = count;
    h->errand.many = many;
    if (!h->errand.listens) {
        rc = spoke_listen(h->s, h->errand.url, NULL, 0);
        cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    }
    h->stranger = stranger_send_on(&h->errand);
    if (h->errand.listens) {
        rc = spoke_dial(h->s, h->errand.url, NULL, 0);
        cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    }
}

/* Drive an owned engine until the stranger has ended by itself; its exit code. */
static int
host_await(struct host *h)
{
    siginfo_t end = {.si_pid = 0};

    for (int i = 0; h->e != NULL && i < 15000 * SPOKE_TEST_SLOWDOWN && end.si_pid == 0; i++) {
        cr_assert_geq(spoke_engine_poll(h->e, SPOKE_MS), 0);
        cr_assert_eq(waitid(P_PID, (id_t)h->stranger, &end, WEXITED | WNOHANG | WNOWAIT), 0);
    }
    return child_wait(h->stranger, 15);
}

static void
host_wait_for_stranger(struct host *h)
{
    struct spoke_stats stats;

    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN; i++) {
        cr_assert_eq(spoke_socket_stats(h->s, &stats), 0);
        if (stats.pipes_current == 1)
            return;
        if (h->e != NULL)
            cr_assert_geq(spoke_engine_poll(h->e, SPOKE_MS), 0);
        else
            usleep(1000);
    }
    cr_assert_fail("nobody came");
}

static void
host_close(struct host *h)
{
    struct spoke_stats stats;

    cr_assert_eq(spoke_socket_stats(h->s, &stats), 0);
    cr_expect_eq(stats.garbled + stats.oversized + stats.dropped_stale, 0);
    cr_expect_eq(spoke_socket_close(h->s), 0);
    if (h->e != NULL)
        cr_expect_eq(spoke_engine_close(h->e), 0);
}

static void
send_pattern(struct host *h, uint32_t i)
{
    spoke_msg *m = pattern_message(stranger_size(h->errand.many, i), i);
    int rc = spoke_send(h->s, m, 0);

    cr_assert_eq(rc, 0, "message %u: %s", i, spoke_error_name(rc));
}

static void
expect_pattern(struct host *h, uint32_t i)
{
    size_t size = stranger_size(h->errand.many, i);
    spoke_msg *m;
    int rc = spoke_recv(h->s, &m, 0);

    cr_assert_eq(rc, 0, "message %u: %s", i, spoke_error_name(rc));
    cr_assert_eq(spoke_msg_size(m), size, "message %u: %zu bytes of %zu", i, spoke_msg_size(m),
                 size);
    cr_assert(pattern_holds(spoke_msg_body(m), size, i), "message %u", i);
    spoke_msg_free(m);
}

#define MEETING_TEST(Name, List)                                                                   \
    ParameterizedTestParameters(exchange, Name)                                                    \
    {                                                                                              \
        return List();                                                                             \
    }                                                                                              \
    ParameterizedTest(struct meeting *meeting, exchange, Name, .timeout = 120)

static void
we_ask(struct host *h, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        send_pattern(h, i);
        expect_pattern(h, i);
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
    cr_assert_eq(host_await(h), 0, "the stranger is not content");
}

MEETING_TEST(their_replier_answers_us, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_REQ, false);
    host_meet(&h, ECHO_REP, 0, false);
    we_ask(&h, ROUNDS);
    host_close(&h);
}

MEETING_TEST(their_raw_replier_answers_us, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_REQ, false);
    host_meet(&h, ECHO_RAW_REP, 0, false);
    we_ask(&h, ROUNDS);
    host_close(&h);
}

MEETING_TEST(we_answer_their_requester, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_REP, false);
    host_meet(&h, ASK, ROUNDS, false);
    they_ask(&h, ROUNDS);
    host_close(&h);
}

MEETING_TEST(our_raw_replier_answers_their_requester, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_REP, true);
    host_meet(&h, ASK, ROUNDS, false);
    they_ask(&h, ROUNDS);
    host_close(&h);
}

MEETING_TEST(we_answer_their_raw_requester, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_REP, false);
    host_meet(&h, ASK_RAW, ROUNDS, false);
    they_ask(&h, ROUNDS);
    host_close(&h);
}

/* Our raw sockets make their own ids, and find them in the header of the answer. */
static void
raw_exchange(struct host *h)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        const uint8_t id[4] = {0x80, 0, 7, (uint8_t)i};
        size_t size = stranger_size(false, i);
        spoke_msg *m = pattern_message(size, i);
        cr_assert_eq(spoke_msg_header_append(m, id, sizeof id), 0);
        cr_assert_eq(spoke_send(h->s, m, 0), 0);
        int rc = spoke_recv(h->s, &m, 0);
        cr_assert_eq(rc, 0, "reply %u: %s", i, spoke_error_name(rc));
        cr_assert_eq(spoke_msg_header_size(m), sizeof id);
        cr_assert_arr_eq(spoke_msg_header(m), id, sizeof id);
        cr_assert_eq(spoke_msg_size(m), size);
        cr_assert(pattern_holds(spoke_msg_body(m), size, i));
        spoke_msg_free(m);
    }
}

MEETING_TEST(their_replier_answers_our_raw_requester, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_REQ, true);
    host_meet(&h, ECHO_REP, 0, false);
    raw_exchange(&h);
    child_kill(h.stranger);
    host_close(&h);
}

/* ---- surveys ---- */

/* A survey is for those who are there. */
static void
wait_for_somebody(struct host *h)
{
    struct spoke_stats stats = {0};

    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN && stats.pipes_current == 0; i++) {
        if (h->e != NULL)
            cr_assert_geq(spoke_engine_poll(h->e, SPOKE_MS), 0);
        else
            usleep(1000);
        cr_assert_eq(spoke_socket_stats(h->s, &stats), 0);
    }
    cr_assert_eq(stats.pipes_current, 1);
}

static void
we_survey(struct host *h, enum deed deed)
{
    cr_assert_eq(spoke_socket_set_duration(h->s, SPOKE_OPT_SURVEY_TIME, PATIENCE), 0);
    host_meet(h, deed, 0, false);
    wait_for_somebody(h);
    we_ask(h, ROUNDS);
    host_close(h);
}

MEETING_TEST(their_respondent_answers_our_survey, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_SURVEYOR, false);
    we_survey(&h, ECHO_RESPONDENT);
}

MEETING_TEST(their_raw_respondent_answers_our_survey, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_SURVEYOR, false);
    we_survey(&h, ECHO_RAW_RESPONDENT);
}

static void
they_survey(const struct meeting *meeting, bool raw, enum deed deed)
{
    struct host h;

    host_open(&h, meeting, SPOKE_RESPONDENT, raw);
    host_meet(&h, deed, ROUNDS, false);
    they_ask(&h, ROUNDS);
    host_close(&h);
}

MEETING_TEST(we_answer_their_survey, all_meetings)
{
    they_survey(meeting, false, SURVEY);
}

MEETING_TEST(our_raw_respondent_answers_their_survey, all_meetings)
{
    they_survey(meeting, true, SURVEY);
}

MEETING_TEST(we_answer_their_raw_survey, all_meetings)
{
    they_survey(meeting, false, SURVEY_RAW);
}

MEETING_TEST(their_respondent_answers_our_raw_survey, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_SURVEYOR, true);
    host_meet(&h, ECHO_RESPONDENT, 0, false);
    wait_for_somebody(&h);
    raw_exchange(&h);
    child_kill(h.stranger);
    host_close(&h);
}

/* Conversations that go on at the same time, each with its own. */
static void
we_ask_in_contexts(const struct meeting *meeting, int pattern, enum deed deed)
{
    spoke_context *c[4];
    struct host h;

    host_open(&h, meeting, pattern, false);
    host_meet(&h, deed, 0, false);
    wait_for_somebody(&h);
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

MEETING_TEST(a_pair_of_ours_and_theirs_echoes, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_PAIR, false);
    host_meet(&h, ECHO_PAIR, 0, false);
    we_ask(&h, ROUNDS);
    host_close(&h);
}

MEETING_TEST(a_pair1_of_ours_and_theirs_echoes, all_meetings)
{
    struct host h;

    if (meeting->library == NANOMSG)
        cr_skip("nanomsg has no version 1 of it");
    host_open(&h, meeting, SPOKE_PAIR1, false);
    host_meet(&h, ECHO_PAIR1, 0, false);
    we_ask(&h, ROUNDS);
    host_close(&h);
}

/* What a BUS sends before it is connected goes nowhere. */
static void
host_await_pipes(struct host *h, spoke_socket *s, uint64_t count)
{
    struct spoke_stats stats = {.pipes_current = 0};

    for (int i = 0; i < 15000 * SPOKE_TEST_SLOWDOWN && stats.pipes_current < count; i++) {
        if (h->e != NULL)
            cr_assert_geq(spoke_engine_poll(h->e, SPOKE_MS), 0);
        else
            usleep(1000);
        cr_assert_eq(spoke_socket_stats(s, &stats), 0);
    }
    cr_assert_geq(stats.pipes_current, count);
}

MEETING_TEST(a_bus_of_theirs_echoes_ours, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_BUS, false);
    host_meet(&h, ECHO_BUS, 0, false);
    host_await_pipes(&h, h.s, 1);
    we_ask(&h, ROUNDS);
    host_close(&h);
}

MEETING_TEST(a_bus_of_ours_echoes_theirs, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_BUS, false);
    host_meet(&h, ASK_BUS, ROUNDS, false);
    host_await_pipes(&h, h.s, 1);
    cr_assert_eq(spoke_send_bytes(h.s, "go", 2, 0), 0);
    they_ask(&h, ROUNDS);
    host_close(&h);
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
    host_await_pipes(&h, h.s, 2);
    host_await_pipes(&h, member.s, 1);
    we_ask(&member, ROUNDS);
    cr_assert_eq(spoke_socket_close(member.s), 0);
    host_close(&h);
}

#define ONE_WAY 100 /* messages, of all sizes in turn */

MEETING_TEST(we_pull_what_they_push, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_PULL, false);
    host_meet(&h, PUSHES, ONE_WAY, false);
    for (uint32_t i = 0; i < ONE_WAY; i++)
        expect_pattern(&h, i);
    child_kill(h.stranger);
    host_close(&h);
}

MEETING_TEST(they_pull_what_we_push, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_PUSH, false);
    host_meet(&h, PULLS, ONE_WAY, false);
    for (uint32_t i = 0; i < ONE_WAY; i++)
        send_pattern(&h, i);
    cr_assert_eq(host_await(&h), 0, "the stranger is not content");
    host_close(&h);
}

MEETING_TEST(they_hear_what_we_publish, all_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_PUB, false);
    cr_assert_eq(spoke_socket_set_int(h.s, SPOKE_OPT_LOSS, SPOKE_LOSS_BLOCK), 0);
    host_meet(&h, SUBSCRIBES, ONE_WAY, false);
    host_wait_for_stranger(&h);
    for (uint32_t i = 0; i < ONE_WAY; i++)
        send_pattern(&h, i);
    cr_assert_eq(host_await(&h), 0, "the stranger is not content");
    host_close(&h);
}

/* Which of their messages this is; ONE_WAY: none of them. */
static uint32_t
which(const spoke_msg *m, uint32_t from)
{
    for (uint32_t n = 0; n < ONE_WAY; n++) {
        uint32_t i = (from + n) % ONE_WAY;
        if (spoke_msg_size(m) == stranger_size(true, i) &&
            pattern_holds(spoke_msg_body(m), spoke_msg_size(m), i))
            return i;
    }
    return ONE_WAY;
}

/* They begin before we are there, and they may drop when they have to: what we get is theirs, and
 * each comes some way behind the one before. */
MEETING_TEST(we_hear_what_they_publish, all_meetings)
{
    struct host h;
    uint32_t next = 0, skipped = 0;

    host_open(&h, meeting, SPOKE_SUB, false);
    cr_assert_eq(spoke_socket_set_string(h.s, SPOKE_OPT_SUBSCRIBE, ""), 0);
    host_meet(&h, PUBLISHES, ONE_WAY, true);
    for (uint32_t i = 0; i < ONE_WAY; i++) {
        spoke_msg *m;
        cr_assert_eq(spoke_recv(h.s, &m, 0), 0);
        uint32_t number = which(m, next);
        cr_assert_lt(number, ONE_WAY, "not one of theirs");
        skipped += i > 0 ? (number + ONE_WAY - next) % ONE_WAY : 0;
        next = (number + 1) % ONE_WAY;
        spoke_msg_free(m);
    }
    cr_assert_lt(skipped, ONE_WAY * ONE_WAY / 2, "that is no order");
    child_kill(h.stranger);
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
    host_meet(&h, ASK, MANY / 2, true);
    they_ask(&h, MANY / 2);
    host_close(&h);
}

MEETING_TEST(a_hundred_thousand_messages_come_from_them_in_order, long_meetings)
{
    struct host h;

    host_open(&h, meeting, SPOKE_PAIR, false);
    host_meet(&h, SOURCE, MANY, true);
    for (uint32_t i = 0; i < MANY; i++)
        expect_pattern(&h, i);
    cr_assert_eq(spoke_send_bytes(h.s, "thanks", 6, 0), 0);
    cr_assert_eq(host_await(&h), 0);
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
        send_pattern(&h, i);
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
            send_pattern(&h, i);
            expect_pattern(&h, i);
        }
        child_kill(h.stranger);
        h.stranger = stranger_send_on(&h.errand);
    }
    child_kill(h.stranger);
    host_close(&h);
}
