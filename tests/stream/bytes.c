/* SPDX-License-Identifier: MIT */
/* Bytes through windows: in pieces, by reference, given back, more than there is room for. */
#include "tests/stream/fixture.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

PLACE_TEST(stream_bytes, several_buffers, places)
{
    uint8_t out[3000], in[3000];
    struct iovec from[40],
        to[] = {{NULL, 0}, {in, 1}, {NULL, 0}, {in + 1, 999}, {in + 1000, 2000}, {NULL, 0}};
    struct ends d;
    size_t done, got = 0;
    int count = 0;

    ends_open(&d, p, NULL);
    bytes_fill(out, sizeof out, 5);
    for (size_t place = 0; place < sizeof out; place += 100) { /* more than one batch of them */
        from[count++] = (struct iovec){out + place, 100};
        if (count % 4 == 1 && count < 39)
            from[count++] = (struct iovec){NULL, 0};
    }
    cr_assert_leq(count, 40);
    expect_rc(spoke_stream_writev(d.end[0], from, count, &done), 0);
    cr_assert_eq(done, sizeof out);
    stage_pass(&d.st, 5 * SPOKE_MS);
    expect_rc(spoke_stream_readv(d.end[1], to, 6, &done), 0);
    cr_assert(done > 0 && done <= sizeof in);
    for (got = done; got < sizeof in; got += done)
        expect_rc(spoke_stream_read(d.end[1], in + got, sizeof in - got, &done), 0);
    cr_assert(bytes_hold(in, sizeof in, 5));
    ends_close(&d);
}

PLACE_TEST(stream_bytes, a_read_gives_what_is_there, places)
{
    struct ends d;
    char bytes[100];
    size_t done;

    ends_open(&d, p, NULL);
    write_text(d.end[0], "abc");
    memset(bytes, 'x', sizeof bytes);
    expect_rc(spoke_stream_read(d.end[1], bytes, 50, &done), 0);
    cr_assert_eq(done, 3);
    cr_assert_eq(memcmp(bytes, "abcx", 4), 0);
    /* Never more than was asked for. */
    write_text(d.end[0], "0123456789");
    stage_pass(&d.st, 3 * SPOKE_MS);
    memset(bytes, 'x', sizeof bytes);
    expect_rc(spoke_stream_read(d.end[1], bytes, 4, &done), 0);
    cr_assert_eq(done, 4);
    cr_assert_eq(memcmp(bytes, "0123x", 5), 0);
    expect_text(d.end[1], "456789");
    ends_close(&d);
}

PLACE_TEST(stream_bytes, chunks, places)
{
    static const size_t sizes[] = {1, 100, 1000, 10000};
    struct ends d;
    size_t done, got;
    uint8_t bytes[10000];
    spoke_msg *m;
    uint64_t place = 0;

    ends_open(&d, p, NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        bytes_fill(bytes, sizes[i], place);
        m = message_of(bytes, sizes[i]);
        expect_rc(spoke_stream_write_chunk(d.end[0], m, &done), 0);
        cr_assert_eq(done, sizes[i]);
        for (got = 0; got < sizes[i]; got += done) {
            expect_rc(spoke_stream_read_chunk(d.end[1], &m), 0);
            done = spoke_msg_size(m);
            cr_assert_gt(done, 0);
            cr_assert(bytes_hold(spoke_msg_body(m), done, place + got));
            spoke_msg_free(m);
        }
        place += sizes[i];
    }
    /* What is no good for it stays the caller's. */
    expect_rc(spoke_stream_close_write(d.end[0]), 0);
    m = message_of("mine", 4);
    expect_rc(spoke_stream_write_chunk(d.end[0], m, &done), SPOKE_EWRCLOSED);
    cr_assert_eq(done, 0);
    cr_assert_eq(memcmp(spoke_msg_body(m), "mine", 4), 0);
    spoke_msg_free(m);
    expect_rc(spoke_stream_read_chunk(d.end[1], &m), SPOKE_EOF);
    cr_assert_null(m);
    ends_close(&d);
}

/* Within the process the memory itself goes over. */
PLACE_TEST(stream_bytes, chunks_are_not_copied_within_the_process, places)
{
    struct ends d;
    spoke_msg *m;
    size_t done;

    if (p->over != OVER_PAIR && p->over != OVER_INPROC)
        return;
    ends_open(&d, p, NULL);
    for (int i = 0; i < 20; i++) {
        const void *memory;

        expect_rc(spoke_msg_new(&m, 20000), 0);
        bytes_fill(spoke_msg_body(m), 20000, 3);
        memory = spoke_msg_body(m);
        expect_rc(spoke_stream_write_chunk(d.end[0], m, &done), 0);
        expect_rc(spoke_stream_read_chunk(d.end[1], &m), 0);
        cr_assert_eq(spoke_msg_size(m), 20000);
        cr_assert_eq(spoke_msg_body(m), memory, "it was copied");
        cr_assert(bytes_hold(memory, 20000, 3));
        spoke_msg_free(m);
    }
    ends_close(&d);
}

/* What was lent is the memory that the other end reads; where there is none it is a message. */
PLACE_TEST(stream_bytes, loans, places)
{
    struct ends d;
    spoke_msg *m, *kept;
    size_t done, got;
    bool lent = p->over == OVER_SHM;

    ends_open(&d, p, NULL);
    expect_rc(spoke_stream_loan(d.end[0], 20000, NULL), SPOKE_EINVAL);
    expect_rc(spoke_stream_loan(d.end[0], SIZE_MAX, &m), SPOKE_EMSGSIZE);
    cr_assert_null(m);
    expect_rc(spoke_stream_loan(d.end[0], 0, &m), 0);
    spoke_msg_free(m);
    for (int i = 0; i < 20; i++) {
        expect_rc(spoke_stream_loan(d.end[0], 20000, &m), 0);
        cr_assert_eq(spoke_msg_size(m), 20000);
        bytes_fill(spoke_msg_body(m), 20000, (uint64_t)i * 20000);
        kept = spoke_msg_dup(m);
        expect_rc(spoke_stream_write_chunk(d.end[0], m, &done), 0);
        cr_assert_eq(done, 20000);
        if (lent) /* one who breaks the rule shows whose memory it is */
            ((uint8_t *)spoke_msg_body(kept))[19999] ^= 1;
        for (got = 0; got < 20000; got += done) {
            const uint8_t *body;

            expect_rc(spoke_stream_read_chunk(d.end[1], &m), 0);
            body = spoke_msg_body(m);
            done = spoke_msg_size(m);
            if (lent) {
                cr_assert_eq(done, 20000);
                cr_assert_not(bytes_hold(body + 19999, 1, (uint64_t)i * 20000 + 19999));
                done--;
            }
            cr_assert(bytes_hold(body, done, (uint64_t)i * 20000 + got));
            done += lent;
            spoke_msg_free(m);
        }
        spoke_msg_free(kept);
    }
    ends_close(&d);
    expect_rc(spoke_stream_loan(d.end[0], 20000, &m), SPOKE_ECLOSED);
    cr_assert_null(m);
}

/* Chunks larger than the window, again and again: they go in pieces, and never wait for room that
 * there cannot be. */
static const char *
write_large_chunks(struct task_end *t)
{
    size_t size = *(size_t *)t->ctx, done;
    uint64_t place = 0;

    for (int i = 0; i < 20; i++, place += size) {
        spoke_msg *m;

        TASK_CHECK(spoke_msg_new(&m, size) == 0);
        bytes_fill(spoke_msg_body(m), size, place);
        TASK_CHECK(spoke_stream_write_chunk(t->s, m, &done) == 0);
        TASK_CHECK(done == size);
    }
    return NULL;
}

static const char *
read_large_chunks(struct task_end *t)
{
    size_t size = *(size_t *)t->ctx;
    uint64_t place = 0;
    spoke_msg *m;
    int rc;

    while ((rc = spoke_stream_read_chunk(t->s, &m)) == 0) {
        TASK_CHECK(bytes_hold(spoke_msg_body(m), spoke_msg_size(m), place));
        place += spoke_msg_size(m);
        spoke_msg_free(m);
    }
    TASK_CHECK(rc == SPOKE_EOF);
    TASK_CHECK(place == 20 * size);
    return NULL;
}

PLACE_TEST(stream_bytes, chunks_larger_than_the_window, places_tasks)
{
    static size_t sizes[] = {500, 700, 1000, 40000};
    static const spoke_stream_config config = {
        .window = 1000, .linger_ns = PATIENCE, .ipc_mode = -1};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        run_tasks(p, &config, write_large_chunks, read_large_chunks, &sizes[i]);
}

PLACE_TEST(stream_bytes, unread, places)
{
    struct spoke_stream_info info;
    struct ends d;
    spoke_msg *m, *kept;

    ends_open(&d, p, NULL);
    write_text(d.end[0], "world");
    /* What never came from there, too, and in front of everything. */
    expect_rc(spoke_stream_unread(d.end[1], message_of("lo ", 3)), 0);
    m = message_of("hel", 3);
    kept = spoke_msg_dup(m); /* somebody else looks at it as well */
    cr_assert_not_null(kept);
    expect_rc(spoke_stream_unread(d.end[1], m), 0);
    expect_rc(spoke_stream_unread(d.end[1], message_of("", 0)), 0);
    expect_text(d.end[1], "hello world");
    cr_assert_eq(memcmp(spoke_msg_body(kept), "hel", 3), 0);
    cr_assert_eq(spoke_msg_size(kept), 3);
    spoke_msg_free(kept);
    expect_rc(read_now(d.end[1]), SPOKE_EAGAIN);
    expect_rc(spoke_stream_get_info(d.end[1], &info), 0);
    cr_assert_eq(info.bytes_read, 5, "%llu", (unsigned long long)info.bytes_read);
    /* After the end, too; then the end comes again. */
    expect_rc(spoke_stream_close_write(d.end[0]), 0);
    expect_rc(read_one(d.end[1]), SPOKE_EOF);
    expect_rc(spoke_stream_unread(d.end[1], message_of("encore", 6)), 0);
    expect_text(d.end[1], "encore");
    expect_rc(read_one(d.end[1]), SPOKE_EOF);
    expect_rc(spoke_stream_close_read(d.end[1]), 0);
    m = message_of("m", 1);
    expect_rc(spoke_stream_unread(d.end[1], m), SPOKE_ERDCLOSED);
    spoke_msg_free(m);
    ends_close(&d);
}

/* More than the window is given back, and it still works (S2: windows are bytes). */
PLACE_TEST(stream_bytes, unread_takes_no_room_of_the_peers, places)
{
    struct ends d;
    void *bytes = malloc(50000);

    cr_assert_not_null(bytes);
    bytes_fill(bytes, 50000, 0);
    ends_open(&d, p, &(spoke_stream_config){.window = 2000, .linger_ns = PATIENCE, .ipc_mode = -1});
    expect_rc(spoke_stream_unread(d.end[1], message_of(bytes, 50000)), 0);
    write_bytes(d.end[0], 50000, 2000);
    read_bytes(d.end[1], 0, 52000);
    write_bytes(d.end[0], 9, 2000);
    read_bytes(d.end[1], 9, 2000);
    free(bytes);
    ends_close(&d);
}

/* ---- windows ---- */

#define WINDOW 10000

struct filling {
    spoke_stream *s;
    size_t done;
};

/* Write more than ever fits, without waiting: is the window full? */
static bool
has_filled_the_window(void *ctx)
{
    static const uint8_t bytes[5 * WINDOW];
    struct filling *x = ctx;
    size_t done;
    int rc = spoke_stream_write(x->s, bytes, sizeof bytes, &done);

    cr_assert(rc == 0 || rc == SPOKE_EAGAIN, "%s", name_of(rc));
    x->done += done;
    return x->done >= WINDOW;
}

PLACE_TEST(stream_bytes, a_window_is_bytes_and_holds, places)
{
    static const uint8_t bytes[5 * WINDOW];
    uint8_t in[WINDOW];
    struct ends d;
    size_t done;

    if (p->over == OVER_IPC || is_over_tcp(p) || p->over == OVER_FD)
        return; /* the kernel has buffers besides */
    ends_open(&d, p,
              &(spoke_stream_config){.window = WINDOW, .linger_ns = SPOKE_MS, .ipc_mode = -1});
    for (int round = 0; round < 3; round++) { /* and when it was read, again */
        struct filling x = {.s = d.end[0]};

        expect_rc(spoke_stream_set_write_deadline(d.end[0], SPOKE_NOW), 0);
        cr_assert(stage_until(&d.st, has_filled_the_window, &x), "%zu", x.done);
        cr_assert_eq(x.done, WINDOW, "%zu", x.done);
        stage_settle(&d.st);
        expect_rc(spoke_stream_write(d.end[0], bytes, 1, &done), SPOKE_EAGAIN);
        expect_rc(spoke_stream_set_write_deadline(d.end[0], stage_in(&d.st, 10 * SPOKE_MS)), 0);
        expect_rc(spoke_stream_write(d.end[0], bytes, sizeof bytes, &done), SPOKE_ETIMEDOUT);
        cr_assert_eq(done, 0, "%zu", done);
        expect_rc(spoke_stream_read_full(d.end[1], in, sizeof in, &done), 0);
    }
    (void)spoke_stream_close(d.end[0]);
    ends_close(&d);
}

/* A write that waits takes what there is room for, and tells how much that was. */
PLACE_TEST(stream_bytes, a_write_that_times_out_tells_what_it_took, places)
{
    static const uint8_t bytes[5 * WINDOW];
    size_t done, all = 0;
    struct ends d;

    if (p->over == OVER_IPC || is_over_tcp(p) || p->over == OVER_FD)
        return; /* the kernel has buffers besides */
    ends_open(&d, p,
              &(spoke_stream_config){.window = WINDOW, .linger_ns = SPOKE_MS, .ipc_mode = -1});
    for (spoke_ns end = stage_in(&d.st, PATIENCE); all < WINDOW && stage_now(&d.st) < end;) {
        expect_rc(spoke_stream_set_write_deadline(d.end[0], stage_in(&d.st, 30 * SPOKE_MS)), 0);
        expect_rc(spoke_stream_write(d.end[0], bytes, sizeof bytes, &done), SPOKE_ETIMEDOUT);
        all += done; /* where the window was not known in time it was nothing */
    }
    cr_assert_eq(all, WINDOW, "%zu", all);
    (void)spoke_stream_close(d.end[0]);
    ends_close(&d);
}

/* Nor does a window of single bytes take much more memory than their number (S2). */
struct growth {
    struct spoke_memory_stats before;
    uint64_t most;
};

static bool
has_grown_little(void *ctx)
{
    const struct growth *x = ctx;
    struct spoke_memory_stats after;

    spoke_memory_stats(&after);
    return after.messages < x->before.messages + x->most;
}

PLACE_TEST(stream_bytes, small_pieces_take_little, places)
{
    struct growth x;
    struct ends d;
    uint64_t count = 20000 / SPOKE_TEST_SLOWDOWN;
    uint8_t byte;
    size_t done;

    if (p->over != OVER_PAIR && p->over != OVER_INPROC && p->over != OVER_SHM)
        return;
    ends_open(&d, p, NULL);
    x.most = count / 10;
    spoke_memory_stats(&x.before);
    for (uint64_t i = 0; i < count; i++) {
        bytes_fill(&byte, 1, i);
        expect_rc(spoke_stream_write(d.end[0], &byte, 1, &done), 0);
        if (i % 50 == 49)
            stage_pass(&d.st, 0);
    }
    cr_assert(stage_until(&d.st, has_grown_little, &x), "once they have arrived");
    read_bytes(d.end[1], 0, count);
    ends_close(&d);
}

#define LARGE ((size_t)16 << 20)

static const char *
write_large(struct task_end *t)
{
    uint8_t bytes[64 * 1024];
    size_t done, left = *(size_t *)t->ctx;

    for (uint64_t place = 0; left > 0; place += sizeof bytes, left -= done) {
        bytes_fill(bytes, sizeof bytes, place);
        TASK_CHECK(
            spoke_stream_write(t->s, bytes, left < sizeof bytes ? left : sizeof bytes, &done) == 0);
    }
    return NULL;
}

static const char *
read_large(struct task_end *t)
{
    uint8_t bytes[5000];
    uint64_t place = 0;
    size_t done;
    int rc;

    while ((rc = spoke_stream_read(t->s, bytes, sizeof bytes, &done)) == 0) {
        TASK_CHECK(bytes_hold(bytes, done, place));
        place += done;
    }
    TASK_CHECK(rc == SPOKE_EOF);
    TASK_CHECK(place == *(size_t *)t->ctx);
    return NULL;
}

PLACE_TEST(stream_bytes, much_through_a_small_window, places_tasks)
{
    static const spoke_stream_config config = {
        .window = 1024, .linger_ns = PATIENCE, .ipc_mode = -1};
    size_t size = LARGE / (SPOKE_TEST_SLOWDOWN > 1 ? 8 : 1);

    run_tasks(p, &config, write_large, read_large, &size);
}

/* Both ways at once, each more than fits: reads never wait for writes. */
static void *
write_aside(void *ctx)
{
    return (void *)(uintptr_t)write_large(ctx);
}

static const char *
both_ways(struct task_end *t)
{
    pthread_t writer;
    const char *wrong;
    void *other;
    uint8_t *bytes = malloc(*(size_t *)t->ctx);
    size_t done;

    TASK_CHECK(bytes != NULL);
    if (pthread_create(&writer, NULL, write_aside, t) != 0) {
        free(bytes);
        return "no thread";
    }
    int rc = spoke_stream_read_full(t->s, bytes, *(size_t *)t->ctx, &done);
    wrong = rc == 0 && bytes_hold(bytes, done, 0) ? NULL : "other bytes";
    pthread_join(writer, &other);
    free(bytes);
    return wrong != NULL ? wrong : other;
}

PLACE_TEST(stream_bytes, both_ways_at_once, places_shared)
{
    static const spoke_stream_config config = {
        .window = 4096, .linger_ns = PATIENCE, .ipc_mode = -1};
    size_t size = 1 << 20;

    run_tasks(p, &config, both_ways, both_ways, &size);
}
