/* SPDX-License-Identifier: MIT */
/* Every pattern that we share with nanomsg and NNG, in both roles, over ipc, tcp, ws and (NNG
 * alone) tls+tcp and wss, whoever listens, each side cooked and, over ipc and tcp, raw: messages of
 * all sizes, and then, between others, one over the limit of either.  Whose limit that is closes
 * the connection, and on the next one everything goes on.
 *
 * The cells are generated from the table of roles and the kinds of meeting; each says what became
 * of it in a line of its own, from which scripts/interop-table makes the table.
 *
 * What is sent while a connection ends may be lost, and neither side can know when the other has
 * seen the end: who asks pings until there is an answer, who publishes or pushes goes on for ever.
 */
#include "tests/interop/host.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/process.h"

struct cell {
    unsigned role; /* where in the table below */
    bool we_raw, they_raw;
    struct meeting meeting;
};

typedef void play_f(struct host *h, const struct cell *c);

struct role {
    const char *name; /* of ours */
    int pattern;      /* of ours */
    enum deed deed;   /* theirs */
    play_f *play;
    const char *absent[2]; /* by library: why it does not have it */
};
static const struct role *role_of(const struct cell *c);

/* Can what is over our limit be tried?  NNG 1.5's PUSH counts a connection that ends just as a
 * message has been written as one that waits for work, and the next message crashes it.  Inside of
 * TLS it writes each message in two parts at least, and hangs for ever if the connection ends
 * between them.  Over ws a dialer of nanomsg never comes back after a close frame, whoever sends
 * it. */
static bool
survives_our_limit(const struct cell *c)
{
    enum deed deed = role_of(c)->deed;

    if (deed == PULLS || deed == SUBSCRIBES) /* which send nothing */
        return true;
    if (c->meeting.library == NANOMSG)
        return c->meeting.they_listen || !is_over_ws(c->meeting.transport);
    return deed != PUSHES && c->meeting.transport != TLS;
}

/* And what is over theirs?  nanomsg's dialer takes what is left of such a message for the greetings
 * of the next connections, eight bytes for each (also where nanomsg itself is at the other end).
 * NNG's has no limit over ws but one for each frame. */
static bool
survives_its_limit(const struct cell *c)
{
    enum deed deed = role_of(c)->deed;

    if (c->meeting.they_listen || deed == PUSHES || deed == PUBLISHES) /* which receive nothing */
        return true;
    return c->meeting.library == NNG && !is_over_ws(c->meeting.transport);
}

/* ---- what our side does ---- */

static void
meet(struct host *h, const struct cell *c)
{
    host_meet(h, role_of(c)->deed, errand_exceeds(&h->errand) ? SMALL_SIZES : ALL_SIZES, false);
}

/* What a raw socket of ours is to put in front, if anything. */
static bool
header_word(const struct cell *c, uint32_t i, uint8_t word[4])
{
    int pattern = role_of(c)->pattern;
    const uint8_t id[4] = {0x80, 0, 7, (uint8_t)i}, no_hops[4] = {0};

    memcpy(word, pattern == SPOKE_PAIR1 ? no_hops : id, 4);
    return c->we_raw &&
           (pattern == SPOKE_REQ || pattern == SPOKE_SURVEYOR || pattern == SPOKE_PAIR1);
}

static void
send_sized(struct host *h, const struct cell *c, size_t size, uint32_t i)
{
    spoke_msg *m = pattern_message(size, i);
    uint8_t word[4];

    if (header_word(c, i, word))
        cr_assert_eq(spoke_msg_header_append(m, word, sizeof word), 0);
    int rc = spoke_send(h->s, m, 0);
    cr_assert_eq(rc, 0, "%zu bytes: %s", size, spoke_error_name(rc));
}

/* Receive the next one that is no answer to a ping. */
static int
receive(struct host *h, spoke_msg **m)
{
    int rc;

    while ((rc = spoke_recv(h->s, m, 0)) == 0 && spoke_msg_size(*m) == PING)
        spoke_msg_free(*m);
    return rc;
}

static void
expect(struct host *h, const struct cell *c, uint32_t i)
{
    size_t size = stranger_size(false, i);
    uint8_t word[4];
    spoke_msg *m;
    int rc = receive(h, &m);

    cr_assert_eq(rc, 0, "%zu bytes: %s, %s", size, spoke_error_name(rc), host_stranger_state(h));
    cr_assert_eq(spoke_msg_size(m), size, "%zu bytes of %zu", spoke_msg_size(m), size);
    cr_assert(pattern_holds(spoke_msg_body(m), size, i), "%zu bytes", size);
    if (header_word(c, i, word)) {
        cr_assert_eq(spoke_msg_header_size(m), sizeof word);
        if (role_of(c)->pattern != SPOKE_PAIR1) /* hops are counted */
            cr_assert_arr_eq(spoke_msg_header(m), word, sizeof word);
    }
    spoke_msg_free(m);
}

static void
ask_all(struct host *h, const struct cell *c)
{
    for (uint32_t i = 0; i < h->errand.count; i++) {
        send_sized(h, c, stranger_size(false, i), i);
        expect(h, c, i);
    }
}

/* Send what costs the connection, here or there, and wait for the next one. */
static void
exceed(struct host *h, const struct cell *c, size_t size)
{
    uint64_t before = host_pass(h).pipes_attached;

    send_sized(h, c, size, 0);
    host_await_pipes(h, 1, before);
}

/* Ask until there is an answer, each time with more patience.  A request or survey ends the one
 * before; answers that come late are known by their size. */
static void
reach(struct host *h, const struct cell *c)
{
    int rc = SPOKE_ETIMEDOUT;

    for (spoke_ns patience = 20 * SPOKE_MS; rc == SPOKE_ETIMEDOUT && patience < PATIENCE;
         patience *= 2) {
        spoke_msg *m;
        cr_assert_eq(spoke_socket_set_duration(h->s, SPOKE_OPT_RECV_TIMEOUT, patience), 0);
        send_sized(h, c, PING, 0);
        rc = spoke_recv(h->s, &m, 0);
        spoke_msg_free(m);
    }
    cr_assert_eq(rc, 0, "%s, %s", spoke_error_name(rc), host_stranger_state(h));
    cr_assert_eq(spoke_socket_set_duration(h->s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
}

/* Their echo of what they may receive and we may not comes back. */
static void
ask(struct host *h, const struct cell *c)
{
    if (role_of(c)->pattern == SPOKE_SURVEYOR && !c->we_raw)
        cr_assert_eq(spoke_socket_set_duration(h->s, SPOKE_OPT_SURVEY_TIME, PATIENCE), 0);
    meet(h, c);
    host_await_pipes(h, 1, 0);
    ask_all(h, c);
    if (h->errand.over_ours) {
        exceed(h, c, OVER_OURS);
        reach(h, c);
        ask_all(h, c);
        cr_expect_geq(host_pass(h).oversized, 1);
    }
    if (h->errand.over_theirs) {
        exceed(h, c, OVER_THEIRS);
        reach(h, c);
        ask_all(h, c);
    }
    child_kill(h->stranger);
}

static void
answer(struct host *h, const struct cell *c)
{
    static const uint8_t more[OVER_THEIRS - PROVOCATION];
    bool provoked = false;
    spoke_msg *m;

    meet(h, c);
    cr_assert_eq(spoke_socket_set_duration(h->s, SPOKE_OPT_RECV_TIMEOUT, 5 * SPOKE_MS), 0);
    for (int idle = 0; idle < 3000 * SPOKE_TEST_SLOWDOWN && !host_is_alone(h);) {
        int rc = spoke_recv(h->s, &m, 0);
        idle = rc == 0 ? 0 : idle + 1;
        if (rc == SPOKE_ETIMEDOUT)
            continue;
        cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
        if (spoke_msg_size(m) == PROVOCATION && !provoked) {
            cr_assert_eq(spoke_msg_append(m, more, sizeof more), 0);
            provoked = true;
        }
        if (role_of(c)->pattern == SPOKE_BUS && c->we_raw) /* or all but them would get it */
            cr_assert_eq(spoke_msg_header_trim_front(m, spoke_msg_header_size(m)), 0);
        cr_assert_eq(spoke_send(h->s, m, 0), 0);
    }
    host_await(h);
    cr_expect_eq(provoked, h->errand.over_theirs);
    cr_expect_eq(host_pass(h).oversized > 0, h->errand.over_ours);
}

/* Who comes late, or loses the connection, may miss some: all sizes, in their time. */
static void
hear_all(struct host *h)
{
    for (unsigned missing = (1u << h->errand.count) - 1; missing != 0;) {
        spoke_msg *m;
        uint32_t i = 0;
        int rc = spoke_recv(h->s, &m, 0);
        cr_assert_eq(rc, 0, "%s, %s", spoke_error_name(rc), host_stranger_state(h));
        while (i < h->errand.count && spoke_msg_size(m) != stranger_size(false, i))
            i++;
        cr_assert_lt(i, h->errand.count, "%zu bytes", spoke_msg_size(m));
        cr_assert(pattern_holds(spoke_msg_body(m), spoke_msg_size(m), i));
        missing &= ~(1u << i);
        spoke_msg_free(m);
    }
}

/* Hear everything, lose the connection, hear everything again. */
static void
hear_on(struct host *h)
{
    hear_all(h);
    if (h->errand.over_ours) {
        while (host_pass(h).oversized == 0)
            hear_all(h);
        hear_all(h);
    }
    child_kill(h->stranger);
}

static void
pull(struct host *h, const struct cell *c)
{
    meet(h, c);
    for (uint32_t i = 0; i < h->errand.count; i++)
        expect(h, c, i);
    hear_on(h);
}

static void
hear(struct host *h, const struct cell *c)
{
    cr_assert_eq(spoke_socket_set_string(h->s, SPOKE_OPT_SUBSCRIBE, ""), 0);
    meet(h, c);
    hear_on(h);
}

/* They take everything, and go. */
static void
give(struct host *h, const struct cell *c)
{
    if (role_of(c)->pattern == SPOKE_PUB)
        cr_assert_eq(spoke_socket_set_int(h->s, SPOKE_OPT_LOSS, SPOKE_LOSS_BLOCK), 0);
    meet(h, c);
    host_await_pipes(h, 1, 0);
    if (h->errand.over_theirs)
        exceed(h, c, OVER_THEIRS);
    for (uint32_t i = 0; i < h->errand.count; i++)
        send_sized(h, c, stranger_size(false, i), i);
    host_await(h);
}

/* ---- the cells ---- */

#define NO_PAIR1 "no version 1 of PAIR"
#define NO_STAR  "no STAR; tests/protocols/star.c has its bytes"

static const struct role roles[] = {
    {"pair asks", SPOKE_PAIR, ECHO_PAIR, ask, {NULL}},
    {"pair answers", SPOKE_PAIR, ASK_PAIR, answer, {NULL}},
    {"pair1 asks", SPOKE_PAIR1, ECHO_PAIR1, ask, {[NANOMSG] = NO_PAIR1}},
    {"pair1 answers", SPOKE_PAIR1, ASK_PAIR1, answer, {[NANOMSG] = NO_PAIR1}},
    {"req", SPOKE_REQ, ECHO_REP, ask, {NULL}},
    {"rep", SPOKE_REP, ASK_REQ, answer, {NULL}},
    {"pub", SPOKE_PUB, SUBSCRIBES, give, {NULL}},
    {"sub", SPOKE_SUB, PUBLISHES, hear, {NULL}},
    {"push", SPOKE_PUSH, PULLS, give, {NULL}},
    {"pull", SPOKE_PULL, PUSHES, pull, {NULL}},
    {"surveyor", SPOKE_SURVEYOR, ECHO_RESPONDENT, ask, {NULL}},
    {"respondent", SPOKE_RESPONDENT, ASK_SURVEYOR, answer, {NULL}},
    {"bus asks", SPOKE_BUS, ECHO_BUS, ask, {NULL}},
    {"bus answers", SPOKE_BUS, ASK_BUS, answer, {NULL}},
    {"star", SPOKE_STAR, 0, NULL, {[NANOMSG] = NO_STAR, [NNG] = NO_STAR}},
};
#define ROLES    (sizeof roles / sizeof roles[0])
#define MODES    4u /* we cooked or raw, they cooked or raw */
#define MEETINGS 20u
#define CELLS    (ROLES * MODES * MEETINGS)

static const struct role *
role_of(const struct cell *c)
{
    return &roles[c->role];
}

static struct cell
cell_at(unsigned i)
{
    static const enum transport transports[] = {IPC, TCP, WS, TLS, WSS};
    unsigned meeting = i % MEETINGS, mode = i / MEETINGS % MODES;

    return (struct cell){.role = i / MEETINGS / MODES,
                         .we_raw = (mode & 1) != 0,
                         .they_raw = (mode & 2) != 0,
                         .meeting = {.library = meeting & 1 ? NNG : NANOMSG,
                                     .they_listen = (meeting & 2) != 0,
                                     .transport = transports[meeting / 4]}};
}

/* Why there is no such cell; NULL: there is. */
static const char *
reason_against(const struct cell *c)
{
    if (!stranger_is_here(c->meeting.library))
        return "not installed";
    if (c->meeting.library == NANOMSG && is_over_tls(c->meeting.transport))
        return "no TLS";
    if (c->meeting.transport != IPC && c->meeting.transport != TCP && (c->we_raw || c->they_raw))
        return "cooked only, but for ipc and tcp: what is raw is none of a transport's";
    return role_of(c)->absent[c->meeting.library];
}

static void
print_cell(const struct cell *c, const char *result)
{
    printf("[CELL] %02u%u|%s|%s|%s|%s, %s, %s|%s\n", c->role, c->we_raw + 2u * c->they_raw,
           role_of(c)->name, c->we_raw ? "raw" : "cooked", c->they_raw ? "raw" : "cooked",
           transport_name(c->meeting.transport),
           c->meeting.they_listen ? "they listen" : "we listen", stranger_name(c->meeting.library),
           result);
    fflush(stdout);
}

Test(matrix, lists_what_is_not_there)
{
    for (unsigned i = 0; i < CELLS; i++) {
        struct cell c = cell_at(i);
        const char *reason = reason_against(&c);
        if (reason != NULL)
            print_cell(&c, reason);
    }
}

ParameterizedTestParameters(matrix, cell)
{
    static struct cell cells[CELLS];
    size_t count = 0;

    for (unsigned i = 0; i < CELLS; i++) {
        cells[count] = cell_at(i);
        if (reason_against(&cells[count]) == NULL &&
            transport_is_wanted(cells[count].meeting.transport))
            count++;
    }
    return (struct criterion_test_params){
        .size = sizeof cells[0], .params = cells, .length = count};
}

static void
play(struct cell *c, bool owned, bool over_ours, bool over_theirs)
{
    struct host h;

    c->meeting.owned = owned;
    host_open(&h, &c->meeting, role_of(c)->pattern, c->we_raw);
    h.errand.raw = c->they_raw;
    h.errand.over_ours = over_ours;
    h.errand.over_theirs = over_theirs;
    if (over_ours)
        cr_assert_eq(spoke_socket_set_size(h.s, SPOKE_OPT_MAX_RECV_SIZE, OUR_LIMIT), 0);
    role_of(c)->play(&h, c);
    host_close(&h);
}

/* All sizes on both kinds of engine, the limits on one of them: each role and way to meet comes to
 * either. */
ParameterizedTest(struct cell *c, matrix, cell)
{
    bool ours = survives_our_limit(c), theirs = survives_its_limit(c);
    char result[8];

    print_cell(c, "FAILED"); /* holds if it is the last word */
    play(c, false, false, false);
    play(c, true, false, false);
    if (ours || theirs)
        play(c, (c->we_raw + c->they_raw) % 2 != 0, ours, theirs);
    snprintf(result, sizeof result, "ok%s%s", ours ? "" : "+", theirs ? "" : "*");
    print_cell(c, result);
}
