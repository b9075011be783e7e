/* SPDX-License-Identifier: MIT */
/* Messages arrive: all of them, whole, once, in order; on every transport, in every mode. */
#include "tests/support/world.h"

#define MANY 10000

static void
connected_pair(struct world *w, struct node **a, struct node **b)
{
    *a = world_add(w, SPOKE_PAIR);
    *b = world_add(w, SPOKE_PAIR);
    world_connect(w, *a, *b);
}

WORLD_TEST(transfer, carries_messages_of_every_size_both_ways, world_cases)
{
    static const size_t sizes[] = {0,    1,     63,    64,    65,          127,    128,
                                   129,  4096,  65535, 65536, 65537,       131072, 1000000,
                                   4095, 16384, 32768, 3,     1024 * 1024, 0};
    struct world *w = world_open(c);
    struct node *a, *b;

    connected_pair(w, &a, &b);
    for (uint32_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        cr_assert_eq(node_send_pattern(a, sizes[i], i, 0), 0, "%zu bytes", sizes[i]);
        int rc = node_expect(b, sizes[i], i);
        cr_assert_eq(rc, 0, "%zu bytes: %s", sizes[i], spoke_error_name(rc));
        cr_assert_eq(node_send_pattern(b, sizes[i], ~i, 0), 0, "%zu bytes back", sizes[i]);
        rc = node_expect(a, sizes[i], ~i);
        cr_assert_eq(rc, 0, "%zu bytes back: %s", sizes[i], spoke_error_name(rc));
    }
    world_close(w);
}

/* Several large messages are under way at once, among small ones. */
WORLD_TEST(transfer, carries_5_mib_where_the_limit_allows_it, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    const size_t large = 5 * 1024 * 1024;

    cr_assert_eq(node_set_size(a, SPOKE_OPT_MAX_RECV_SIZE, large), 0);
    cr_assert_eq(node_set_size(b, SPOKE_OPT_MAX_RECV_SIZE, 0), 0);
    cr_assert_eq(node_set_size(a, SPOKE_OPT_SEND_QUEUE_BYTES, 64 * 1024 * 1024), 0);
    world_connect(w, a, b);
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_eq(node_send_pattern(a, large - i, i, 0), 0);
        cr_assert_eq(node_send_pattern(a, i, i, 0), 0);
    }
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_eq(node_expect(b, large - i, i), 0, "large message %u", i);
        cr_assert_eq(node_expect(b, i, i), 0, "small message %u", i);
    }
    cr_assert_eq(node_send_pattern(b, large, 7, 0), 0);
    cr_assert_eq(node_expect(a, large, 7), 0);
    world_close(w);
}

WORLD_TEST(transfer, closes_the_pipe_of_a_message_over_the_limit_and_goes_on, world_cases_streams)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);

    cr_assert_eq(node_set_size(a, SPOKE_OPT_MAX_RECV_SIZE, 1000), 0);
    world_connect(w, a, b);
    cr_assert_eq(node_send_pattern(b, 1000, 1, 0), 0);
    cr_assert_eq(node_expect(a, 1000, 1), 0);
    cr_assert_eq(node_send_pattern(b, 1001, 2, 0), 0);
    world_wait_attached(w, a, 2);
    world_wait_attached(w, b, 2);
    cr_assert_eq(node_stats(a).oversized, 1);
    cr_assert_eq(node_send_pattern(b, 10, 3, 0), 0);
    cr_assert_eq(node_expect(a, 10, 3), 0);
    world_close(w);
}

/* One direction of a stream of messages; each knows its number. */
struct stream {
    uint32_t sent, received, count;
};

static size_t
stream_size(uint32_t number)
{
    return number % 97 == 0 ? 70000 : number % 300;
}

static int
send_what_goes(struct node *n, void *ctx)
{
    struct stream *stream = ctx;

    while (stream->sent < stream->count) {
        size_t size = stream_size(stream->sent);
        spoke_msg *m;
        if (spoke_msg_new(&m, size) != 0)
            return SPOKE_ENOMEM;
        pattern_fill(spoke_msg_body(m), size, stream->sent);
        int rc = spoke_send(n->s, m, SPOKE_DONTWAIT);
        if (rc != 0) {
            spoke_msg_free(m);
            return rc == SPOKE_EAGAIN ? 0 : rc;
        }
        stream->sent++;
    }
    return 0;
}

static bool
is_number(spoke_msg *m, uint32_t number)
{
    return spoke_msg_size(m) == stream_size(number) &&
           pattern_holds(spoke_msg_body(m), spoke_msg_size(m), number);
}

static int
receive_what_came(struct node *n, void *ctx)
{
    struct stream *stream = ctx;

    while (stream->received < stream->count) {
        spoke_msg *m;
        int rc = spoke_recv(n->s, &m, SPOKE_DONTWAIT);
        if (rc != 0)
            return rc == SPOKE_EAGAIN ? 0 : rc;
        bool right = is_number(m, stream->received);
        spoke_msg_free(m);
        if (!right)
            return SPOKE_EPROTO;
        stream->received++;
    }
    return 0;
}

/* Queues are short, so that both senders meet back-pressure all the time. */
WORLD_TEST(transfer, keeps_order_under_back_pressure_in_both_directions, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct stream there = {.count = MANY}, back = {.count = MANY};

    for (int i = 0; i < 2; i++) {
        cr_assert_eq(node_set_int(i == 0 ? a : b, SPOKE_OPT_SEND_QUEUE, 4), 0);
        cr_assert_eq(node_set_int(i == 0 ? a : b, SPOKE_OPT_RECV_QUEUE, 4), 0);
    }
    world_connect(w, a, b);
    spoke_ns end = world_now(w) + WORLD_PATIENCE; /* for the next message */
    while (there.received < MANY || back.received < MANY) {
        uint32_t before = there.received + back.received + there.sent + back.sent;
        cr_assert_eq(node_run(a, send_what_goes, &there), 0);
        cr_assert_eq(node_run(b, send_what_goes, &back), 0);
        int rc = node_run(b, receive_what_came, &there);
        cr_assert_eq(rc, 0, "there, %u: %s", there.received, spoke_error_name(rc));
        rc = node_run(a, receive_what_came, &back);
        cr_assert_eq(rc, 0, "back, %u: %s", back.received, spoke_error_name(rc));
        if (before == there.received + back.received + there.sent + back.sent)
            world_pass(w, 50 * SPOKE_US);
        else
            end = world_now(w) + WORLD_PATIENCE;
        cr_assert_lt(world_now(w), end, "there %u of %u, back %u of %u", there.received, there.sent,
                     back.received, back.sent);
    }
    cr_assert_eq(node_stats(a).messages_sent, MANY);
    cr_assert_eq(node_stats(a).messages_received, MANY);
    world_close(w);
}

static int
send_all_waiting(struct node *n, void *ctx)
{
    struct stream *stream = ctx;

    for (; stream->sent < stream->count; stream->sent++) {
        size_t size = stream_size(stream->sent);
        spoke_msg *m;
        if (spoke_msg_new(&m, size) != 0)
            return SPOKE_ENOMEM;
        pattern_fill(spoke_msg_body(m), size, stream->sent);
        int rc = spoke_send(n->s, m, 0);
        if (rc != 0) {
            spoke_msg_free(m);
            return rc;
        }
    }
    return 0;
}

static int
receive_all_waiting(struct node *n, void *ctx)
{
    struct stream *stream = ctx;

    for (; stream->received < stream->count; stream->received++) {
        spoke_msg *m;
        int rc = spoke_recv(n->s, &m, 0);
        if (rc != 0)
            return rc;
        bool right = is_number(m, stream->received);
        spoke_msg_free(m);
        if (!right)
            return SPOKE_EPROTO;
    }
    return 0;
}

WORLD_TEST(transfer, keeps_order_between_threads_that_wait_for_each_other, world_cases_threaded)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct stream stream = {.count = MANY};

    cr_assert_eq(node_set_int(a, SPOKE_OPT_SEND_QUEUE, 2), 0);
    cr_assert_eq(node_set_int(b, SPOKE_OPT_RECV_QUEUE, 2), 0);
    world_connect(w, a, b);
    struct task *receiver = node_start(b, receive_all_waiting, &stream);
    struct task *sender = node_start(a, send_all_waiting, &stream);
    int sent = task_join(sender), received = task_join(receiver);
    cr_assert_eq(sent, 0, "message %u: %s", stream.sent, spoke_error_name(sent));
    cr_assert_eq(received, 0, "message %u: %s", stream.received, spoke_error_name(received));
    world_close(w);
}

/* One of several threads on one socket.  A message is {sender, number}. */
struct worker {
    uint32_t index;
    uint32_t next[4]; /* by sender: numbers below have been seen, or went to another receiver */
    uint64_t sum;
};
enum { WORKERS = 4, EACH = 1000 };

static int
send_numbered(struct node *n, void *ctx)
{
    struct worker *worker = ctx;
    int rc = 0;

    for (uint32_t i = 0; i < EACH && rc == 0; i++) {
        uint32_t words[2] = {worker->index, i};
        rc = spoke_send_bytes(n->s, words, sizeof words, 0);
    }
    return rc;
}

static int
receive_numbered(struct node *n, void *ctx)
{
    struct worker *worker = ctx;

    for (int i = 0; i < EACH; i++) {
        uint32_t words[2];
        size_t size = sizeof words;
        int rc = spoke_recv_bytes(n->s, words, &size, 0);
        if (rc != 0)
            return rc;
        if (size != sizeof words || words[0] >= WORKERS || words[1] < worker->next[words[0]])
            return SPOKE_EPROTO;
        worker->next[words[0]] = words[1] + 1;
        worker->sum += words[0] * EACH + words[1];
    }
    return 0;
}

WORLD_TEST(transfer, many_threads_may_use_one_shared_socket, world_cases_shared)
{
    const uint64_t all = (uint64_t)WORKERS * EACH;
    struct world *w = world_open(c);
    struct node *a, *b;
    struct worker workers[2 * WORKERS] = {0};
    struct task *tasks[2 * WORKERS];
    uint64_t sum = 0;

    connected_pair(w, &a, &b);
    for (uint32_t i = 0; i < 2 * WORKERS; i++) {
        workers[i].index = i % WORKERS;
        tasks[i] = node_start(i < WORKERS ? a : b, i < WORKERS ? send_numbered : receive_numbered,
                              &workers[i]);
    }
    for (int i = 0; i < 2 * WORKERS; i++) {
        int rc = task_join(tasks[i]);
        cr_assert_eq(rc, 0, "%s %d: %s", i < WORKERS ? "sender" : "receiver", i % WORKERS,
                     spoke_error_name(rc));
        sum += workers[i].sum;
    }
    cr_assert_eq(sum, all * (all - 1) / 2);
    cr_assert_eq(node_stats(a).messages_sent, all);
    cr_assert_eq(node_stats(b).messages_received, all);
    world_close(w);
}

WORLD_TEST(transfer, sendv_and_recvv_keep_order, world_cases)
{
    enum { BATCH = 50, BATCHES = 20 };
    struct world *w = world_open(c);
    struct node *a, *b;
    spoke_msg *messages[BATCH];
    uint32_t received = 0;

    connected_pair(w, &a, &b);
    for (uint32_t i = 0; i < BATCHES; i++) {
        for (uint32_t k = 0; k < BATCH; k++)
            messages[k] = pattern_message(k * 40, i * BATCH + k);
        cr_assert_eq(node_sendv(a, messages, BATCH, 0), BATCH);
        while (received < (i + 1) * BATCH) {
            int count = node_recvv(b, messages, BATCH, 0);
            cr_assert(count > 0 && count <= BATCH, "recvv: %d", count);
            for (int k = 0; k < count; k++, received++) {
                size_t size = received % BATCH * 40;
                cr_assert_eq(spoke_msg_size(messages[k]), size);
                cr_assert(pattern_holds(spoke_msg_body(messages[k]), size, received));
                spoke_msg_free(messages[k]);
            }
        }
    }
    cr_assert_eq(node_recvv(b, messages, BATCH, SPOKE_DONTWAIT), SPOKE_EAGAIN);
    world_close(w);
}

/* Small, of all the ways a body goes out and comes in, and some that the sender keeps too. */
static const size_t mixed_sizes[] = {64, 64,   64, 0,    128,  1,  129,
                                     64, 4096, 64, 4097, 9000, 64, 70000};

static size_t
mixed_size(uint32_t i)
{
    return mixed_sizes[i % (sizeof mixed_sizes / sizeof mixed_sizes[0])];
}

/* Receive up to `most` of those that are sent so far. */
static void
receive_mixed(struct node *n, uint32_t *received, uint32_t sent, int most)
{
    spoke_msg *messages[100];
    int count = node_recvv(n, messages, most, SPOKE_DONTWAIT);

    cr_assert(count == SPOKE_EAGAIN || (count > 0 && count <= most), "recvv: %d", count);
    for (int k = 0; k < count; k++, ++*received) {
        cr_assert_lt(*received, sent);
        cr_assert_eq(spoke_msg_size(messages[k]), mixed_size(*received), "message %u", *received);
        cr_assert(pattern_holds(spoke_msg_body(messages[k]), mixed_size(*received), *received),
                  "message %u", *received);
        cr_assert_eq(spoke_msg_header_size(messages[k]), 0);
        cr_assert_neq(spoke_msg_pipe(messages[k]), 0);
        spoke_msg_free(messages[k]);
    }
}

WORLD_TEST(transfer, batches_of_all_kinds_of_messages_keep_order_and_bounds, world_cases)
{
    static const int queues[] = {0, 1, 3, 128, 5000};
    enum { BATCH = 100, ALL = 700 };

    for (unsigned q = 0; q < sizeof queues / sizeof queues[0]; q++) {
        struct world *w = world_open(c);
        struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
        uint32_t sent = 0, received = 0;
        uint64_t bytes = 0;
        spoke_ns end = world_now(w) + WORLD_PATIENCE; /* for the next message */

        cr_assert_eq(node_set_int(b, SPOKE_OPT_RECV_QUEUE, queues[q]), 0);
        cr_assert_eq(node_set_int(a, SPOKE_OPT_SEND_QUEUE, queues[q]), 0);
        world_connect(w, a, b);
        while (received < ALL) {
            spoke_msg *messages[BATCH], *kept[BATCH];
            int count = sent + BATCH <= ALL ? BATCH : (int)(ALL - sent), done = 0;

            cr_assert_eq(
                node_set_duration(a, SPOKE_OPT_SEND_EXPIRY, sent % 3 == 0 ? WORLD_PATIENCE : 0), 0);
            for (int k = 0; k < count; k++) {
                uint32_t i = sent + (uint32_t)k;
                messages[k] = pattern_message(mixed_size(i), i);
                kept[k] = i % 5 == 0 ? spoke_msg_dup(messages[k]) : NULL;
            }
            if (count > 0)
                done = node_sendv(a, messages, count, SPOKE_DONTWAIT);
            cr_assert(done >= 0 || done == SPOKE_EAGAIN, "sendv: %d", done);
            for (int k = 0; k < count; k++) {
                spoke_msg_free(kept[k]);
                if (k >= done)
                    spoke_msg_free(messages[k]);
                else
                    bytes += mixed_size(sent + (uint32_t)k);
            }
            sent += done > 0 ? (uint32_t)done : 0;
            uint32_t before = received;
            receive_mixed(b, &received, sent, 1 + (int)(sent % BATCH));
            if (received > before)
                end = world_now(w) + WORLD_PATIENCE;
            world_pass(w, SPOKE_US);
            cr_assert_lt(world_now(w), end, "%u sent, %u received", sent, received);
        }
        cr_assert_eq(node_stats(a).messages_sent, ALL);
        cr_assert_eq(node_stats(a).bytes_sent, bytes);
        cr_assert_eq(node_stats(b).messages_received, ALL);
        cr_assert_eq(node_stats(b).bytes_received, bytes);
        cr_assert_leq(node_stats(b).recv_queue_high, (uint64_t)queues[q] + 1);
        world_close(w);
    }
}

WORLD_TEST(transfer, sendv_takes_what_fits_and_leaves_the_rest, world_cases)
{
    enum { BATCH = 16, ROOM = 10 };
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);
    spoke_msg *messages[BATCH];

    cr_assert_eq(node_set_int(a, SPOKE_OPT_SEND_QUEUE, ROOM), 0);
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_LINGER, 0), 0);
    for (uint32_t k = 0; k < BATCH; k++)
        messages[k] = pattern_message(8, k);
    cr_assert_eq(node_sendv(a, messages, BATCH, SPOKE_DONTWAIT), ROOM);
    cr_assert_eq(node_sendv(a, messages + ROOM, BATCH - ROOM, SPOKE_DONTWAIT), SPOKE_EAGAIN);
    for (uint32_t k = ROOM; k < BATCH; k++) {
        cr_assert(pattern_holds(spoke_msg_body(messages[k]), 8, k));
        spoke_msg_free(messages[k]);
    }
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_SEND_TIMEOUT, 10 * SPOKE_MS), 0);
    messages[0] = pattern_message(8, 0);
    cr_assert_eq(node_sendv(a, messages, 1, 0), SPOKE_ETIMEDOUT);
    spoke_msg_free(messages[0]);
    world_close(w);
}

WORLD_TEST(transfer, messages_sent_with_more_arrive, world_cases)
{
    struct world *w = world_open(c);
    struct node *a, *b;

    connected_pair(w, &a, &b);
    for (uint32_t i = 0; i < 20; i++)
        cr_assert_eq(node_send_pattern(a, i * 10, i, i < 19 ? SPOKE_MORE : 0), 0);
    for (uint32_t i = 0; i < 20; i++)
        cr_assert_eq(node_expect(b, i * 10, i), 0);
    /* A promise that is not kept delays nothing beyond the next wait. */
    cr_assert_eq(node_send_pattern(a, 100, 99, SPOKE_MORE), 0);
    cr_assert_eq(node_expect(b, 100, 99), 0);
    world_close(w);
}

WORLD_TEST(transfer, bytes_in_and_bytes_out, world_cases)
{
    struct world *w = world_open(c);
    struct node *a, *b;
    char buffer[16] = "";
    size_t size = sizeof buffer;

    connected_pair(w, &a, &b);
    cr_assert_eq(node_send_bytes(a, "hello", 5, 0), 0);
    cr_assert_eq(node_recv_bytes(b, buffer, &size, 0), 0);
    cr_assert_eq(size, 5);
    cr_assert_arr_eq(buffer, "hello", 5);

    cr_assert_eq(node_send_bytes(a, "a longer text", 13, 0), 0);
    cr_assert_eq(node_send_bytes(a, "", 0, 0), 0);
    memset(buffer, '.', sizeof buffer);
    size = 4;
    cr_assert_eq(node_recv_bytes(b, buffer, &size, 0), 0);
    cr_assert_eq(size, 13, "the whole size, although it did not fit");
    cr_assert_arr_eq(buffer, "a lo....", 8);
    size = sizeof buffer;
    cr_assert_eq(node_recv_bytes(b, buffer, &size, 0), 0);
    cr_assert_eq(size, 0);
    size = sizeof buffer;
    cr_assert_eq(node_recv_bytes(b, buffer, &size, SPOKE_DONTWAIT), SPOKE_EAGAIN);
    world_close(w);
}

/* What the receiver does to its message is not seen by a sender that kept a reference. */
WORLD_TEST(transfer, a_kept_reference_sees_nothing_of_the_receivers_changes, world_cases)
{
    static const size_t sizes[] = {10, 200, 5000, 100000};
    struct world *w = world_open(c);
    struct node *a, *b;

    connected_pair(w, &a, &b);
    for (uint32_t i = 0; i < 4; i++) {
        spoke_msg *kept = pattern_message(sizes[i], i), *got;
        cr_assert_eq(node_send(a, spoke_msg_dup(kept), 0), 0);
        cr_assert_eq(node_send(a, spoke_msg_dup(kept), 0), 0);
        cr_assert_eq(node_recv(b, &got, 0), 0);
        cr_assert_eq(spoke_msg_make_unique(&got), 0);
        memset(spoke_msg_body(got), 0xee, sizes[i]);
        cr_assert_eq(spoke_msg_append(got, "tail", 4), 0);
        spoke_msg_free(got);
        cr_assert(pattern_holds(spoke_msg_body(kept), sizes[i], i));
        cr_assert_eq(node_expect(b, sizes[i], i), 0);
        spoke_msg_free(kept);
    }
    world_close(w);
}

static void
count_done(void *data, size_t size, void *ctx)
{
    (void)data, (void)size;
    atomic_fetch_add((atomic_int *)ctx, 1);
}

static bool
all_done(void *ctx)
{
    return atomic_load((atomic_int *)ctx) == 3;
}

WORLD_TEST(transfer, gives_wrapped_memory_back_exactly_once, world_cases)
{
    static char memory[3][100000];
    static const size_t sizes[] = {7, 3000, 100000};
    struct world *w = world_open(c);
    struct node *a, *b;
    atomic_int done = 0;

    connected_pair(w, &a, &b);
    for (uint32_t i = 0; i < 3; i++) {
        spoke_msg *m;
        pattern_fill(memory[i], sizes[i], i);
        cr_assert_eq(spoke_msg_wrap(&m, memory[i], sizes[i], count_done, &done), 0);
        cr_assert_eq(node_send(a, m, 0), 0);
        cr_assert_eq(node_expect(b, sizes[i], i), 0);
    }
    cr_assert(world_until(w, all_done, &done, WORLD_PATIENCE), "given back: %d",
              atomic_load(&done));
    world_close(w);
    cr_assert_eq(atomic_load(&done), 3);
}

WORLD_TEST(transfer, a_cooked_socket_neither_sends_nor_gives_headers, world_cases)
{
    struct world *w = world_open(c);
    struct node *a, *b;
    spoke_msg *m = pattern_message(20, 1);

    connected_pair(w, &a, &b);
    cr_assert_eq(spoke_msg_header_append(m, "head", 4), 0);
    cr_assert_eq(node_send(a, m, 0), 0);
    cr_assert_eq(node_recv(b, &m, 0), 0);
    cr_assert_eq(spoke_msg_size(m), 20);
    cr_assert(pattern_holds(spoke_msg_body(m), 20, 1));
    cr_assert_eq(spoke_msg_header_size(m), 0);
    cr_assert_neq(spoke_msg_pipe(m), 0);
    /* What was received can be sent on as it is, and prepared for it. */
    cr_assert_eq(spoke_msg_make_unique(&m), 0);
    cr_assert_eq(spoke_msg_trim_front(m, 5), 0);
    cr_assert_eq(spoke_msg_prepend(m, "12345", 5), 0);
    cr_assert_eq(node_send(b, m, 0), 0);
    cr_assert_eq(node_recv(a, &m, 0), 0);
    cr_assert_eq(spoke_msg_size(m), 20);
    cr_assert_arr_eq(spoke_msg_body(m), "12345", 5);
    spoke_msg_free(m);
    world_close(w);
}

WORLD_TEST(transfer, requests_are_answered, world_cases)
{
    static const size_t sizes[] = {0, 1, 64, 123, 124, 128, 4096, 65532, 65536, 1024 * 1024 - 4};
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *req = world_add(w, SPOKE_REQ);

    world_connect(w, rep, req);
    for (uint32_t i = 0; i < 200; i++) {
        size_t size = sizes[i % (sizeof sizes / sizeof sizes[0])];
        cr_assert_eq(node_send_pattern(req, size, i, 0), 0);
        cr_assert_eq(node_expect(rep, size, i), 0, "request of %zu bytes", size);
        cr_assert_eq(node_send_pattern(rep, size, ~i, 0), 0);
        cr_assert_eq(node_expect(req, size, ~i), 0, "reply of %zu bytes", size);
    }
    world_close(w);
}
