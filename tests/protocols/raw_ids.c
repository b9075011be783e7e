/* SPDX-License-Identifier: MIT */
/* Raw sockets route by the number of a pipe that the user gives them.  Ten thousand that are none
 * of theirs: what happens is what the pattern says, it is counted, and nothing else has changed. */
#include "tests/protocols/fixture.h"

#include "runtime/memory/message.h"

#define IDS   10000
#define BATCH 50 /* fits in every queue */
#define ID    UINT32_C(0x80000001)

/* Two pipes, and a stranger's on the same engine. */
struct hub {
    spoke_socket *s, *peers[2];
    spoke_pipe_id pipes[2], foreign;
};

static void
open_hub(struct hub *hub, int pattern, int peer, enum transport t)
{
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];

    connect_sockets(a, b, t);
    send_text(b, "a pipe of another socket");
    spoke_msg *m = recv_message(a);
    hub->foreign = spoke_msg_pipe(m);
    spoke_msg_free(m);
    hub->s = open_raw(pattern);
    watch_pipes(hub->s);
    listen_on(hub->s, t, url);
    for (uint64_t i = 0; i < 2; i++) {
        hub->peers[i] = peer == pattern ? open_socket(peer) : open_raw(peer);
        dial(hub->peers[i], url);
        wait_pipes(hub->s, i + 1);
        wait_pipes(hub->peers[i], 1);
        hub->pipes[i] = watched_pipe(i);
    }
}

/* Neighbours of the true ones, numbers with one bit, the stranger's, and from all over the range.
 */
static uint32_t
no_id(const struct hub *hub, uint32_t i)
{
    uint32_t id = i * UINT32_C(2654435761); /* odd: each once */

    if (i < 32)
        id = UINT32_C(1) << i;
    else if (i < 64)
        id = hub->pipes[0] ^ UINT32_C(1) << (i - 32);
    else if (i < 66)
        id = i == 64 ? UINT32_MAX : hub->foreign;
    return id == hub->pipes[0] || id == hub->pipes[1] ? 0 : id;
}

/* All counters are as they were, but for those of the sends, that of moves, and this one. */
static void
expect_counted(struct hub *hub, struct spoke_stats before, size_t counter)
{
    struct spoke_stats after = stats_of(hub->s);

    before.messages_sent += IDS;
    before.bytes_sent += IDS * sizeof(uint32_t);
    before.send_queue_high = after.send_queue_high;
    before.pipes_shared = after.pipes_shared;
    if (counter != 0)
        *(uint64_t *)((char *)&before + counter) += IDS;
    for (size_t at = 0; at < sizeof after; at += sizeof(uint64_t))
        cr_assert_eq(memcmp((char *)&before + at, (char *)&after + at, sizeof(uint64_t)), 0,
                     "counter %zu", at / sizeof(uint64_t));
}

static spoke_msg *
numbered(uint32_t number)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_from(&m, &number, sizeof number), 0);
    return m;
}

static void
add_word(spoke_msg *m, uint32_t word)
{
    uint8_t bytes[] = {(uint8_t)(word >> 24), (uint8_t)(word >> 16), (uint8_t)(word >> 8),
                       (uint8_t)word};

    cr_assert_eq(spoke_msg_header_append(m, bytes, sizeof bytes), 0);
}

/* ---- REP and RESPONDENT: nobody gets it ---- */

static void
answers(int pattern, int peer, enum transport t)
{
    struct hub hub;

    open_hub(&hub, pattern, peer, t);
    cr_assert_eq(spoke_send(hub.peers[0], new_with_words(&(uint32_t){ID}, 1, "question"), 0), 0);
    spoke_msg *question = recv_message(hub.s);
    struct spoke_stats before = stats_of(hub.s);
    for (uint32_t i = 0; i < IDS; i++) {
        spoke_msg *m = numbered(i);
        add_word(m, no_id(&hub, i));
        add_word(m, ID);
        cr_assert_eq(spoke_send(hub.s, m, 0), 0);
    }
    expect_counted(&hub, before, offsetof(struct spoke_stats, dropped_no_peer));
    cr_assert_eq(spoke_send(hub.s, question, 0), 0);
    spoke_msg *answer = recv_message(hub.peers[0]);
    cr_assert(text_is(answer, "question"), "and nothing before it");
    spoke_msg_free(answer);
    settle();
    expect_recv_error(hub.peers[0], SPOKE_EAGAIN);
    expect_recv_error(hub.peers[1], SPOKE_EAGAIN);
    finish();
}

ON_EVERY_TRANSPORT(raw_ids, a_reply_to_none_of_its_pipes_is_dropped)
{
    answers(SPOKE_REP, SPOKE_REQ, *t);
}

ON_EVERY_TRANSPORT(raw_ids, an_answer_to_none_of_its_pipes_is_dropped)
{
    answers(SPOKE_RESPONDENT, SPOKE_SURVEYOR, *t);
}

/* ---- BUS and STAR: everybody gets it ---- */

static void
expect_number(spoke_socket *s, uint32_t number)
{
    spoke_msg *m = recv_message(s);

    cr_assert_eq(spoke_msg_size(m), sizeof number);
    cr_assert_eq(memcmp(spoke_msg_body(m), &number, sizeof number), 0, "number %u", number);
    spoke_msg_free(m);
}

static void
send_from(struct hub *hub, int pattern, uint32_t id, uint32_t number)
{
    spoke_msg *m = numbered(number);

    if (pattern == SPOKE_STAR)
        m->pipe = id; /* as if it had come that way */
    add_word(m, pattern == SPOKE_STAR ? 0 : id);
    cr_assert_eq(spoke_send(hub->s, m, 0), 0);
}

static void
copies(int pattern, enum transport t)
{
    struct hub hub;

    open_hub(&hub, pattern, pattern, t);
    struct spoke_stats before = stats_of(hub.s);
    for (uint32_t first = 0; first < IDS; first += BATCH) {
        for (uint32_t i = first; i < first + BATCH; i++)
            send_from(&hub, pattern, no_id(&hub, i), i);
        for (uint32_t i = first; i < first + BATCH; i++) {
            expect_number(hub.peers[0], i);
            expect_number(hub.peers[1], i);
        }
    }
    expect_counted(&hub, before, 0);
    send_from(&hub, pattern, hub.pipes[0], IDS); /* one of its own: that one is left out */
    expect_number(hub.peers[1], IDS);
    settle();
    expect_recv_error(hub.peers[0], SPOKE_EAGAIN);
    finish();
}

ON_EVERY_TRANSPORT(raw_ids, a_bus_message_from_none_of_its_pipes_goes_to_all)
{
    copies(SPOKE_BUS, *t);
}

ON_EVERY_TRANSPORT(raw_ids, a_star_message_from_none_of_its_pipes_goes_to_all)
{
    copies(SPOKE_STAR, *t);
}
