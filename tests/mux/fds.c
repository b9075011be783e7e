/* SPDX-License-Identifier: MIT */
/* Descriptors that come with the bytes of a mux's streams, over everything that can carry them;
 * none is lost, taken for another, or left open.  Peers that break the rules: fds_rules.c. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/stream/mux/mux.h"
#include "tests/mux/fds.h"
#include "tests/support/process.h"

#define TEXT_MOST 256

/* ---- both ends, and how they are driven ---- */

/* Descriptors of both ends' streams that are open. */
struct two {
    enum carrier carrier;
    spoke_engine *e[2]; /* NULL: the library's */
    spoke_mux *m[2];
    spoke_stream *s[2];
    struct resources before;
};

static const char *
name_of(const struct two *t)
{
    static const char *const names[] = {
        [OVER_INPROC] = "inproc", [OVER_IPC] = "ipc", [OVER_TCP] = "tcp",
        [OVER_SHM] = "shm",       [OVER_FD] = "fd",   [OVER_PAIR] = "pair"};

    return names[t->carrier];
}

static void
connect_carriers(struct two *t, spoke_stream *end[2])
{
    spoke_stream_listener *l;
    char url[ENDPOINT_MAX];
    int fds[2];

    if (t->carrier == OVER_PAIR) {
        cr_assert_eq(spoke_stream_pair(&end[0], &end[1], NULL, t->e[0]), 0);
        return;
    }
    if (t->carrier == OVER_FD) {
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        for (int i = 0; i < 2; i++)
            cr_assert_eq(spoke_stream_from_fd(&end[i], fds[i], NULL, t->e[i]), 0);
        return;
    }
    endpoint_fresh(url, (enum transport)t->carrier);
    cr_assert_eq(spoke_stream_listen(&l, url, NULL, t->e[1]), 0);
    cr_assert_eq(spoke_stream_dial(&end[0], url, NULL, t->e[0], SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_accept(l, &end[1], SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_listener_close(l), 0);
}

static void
start(struct two *t, bool mixed, const spoke_mux_config config[2])
{
    spoke_stream *end[2];

    cr_assert_eq(spoke_engine_open(&t->e[0], NULL), 0);
    t->e[1] = mixed ? NULL : t->e[0];
    connect_carriers(t, end);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_mux_open(&t->m[i], end[i], &config[i]), 0);
    cr_assert_eq(spoke_mux_dial(t->m[0], &t->s[0], NULL, 0, NULL, SPOKE_NOW), 0);
    while (spoke_mux_accept(t->m[1], &t->s[1], NULL, SPOKE_NOW) == SPOKE_EAGAIN)
        fds_drive(t->e[0]);
    send_text(t->e[0], t->s[0], "x");
    expect_pieces(t->e[0], t->s[1], "x", (int[]){0}, 0);
}

static void
stop(struct two *t)
{
    for (int i = 0; i < 2; i++) {
        (void)spoke_stream_close(t->s[i]);
        cr_assert_eq(spoke_mux_close(t->m[i], 0), 0);
    }
    cr_assert_eq(spoke_engine_close(t->e[0]), 0);
}

/* One stream of two muxes that let descriptors pass, as far as the carrier does.  `mixed`: the ends
 * are on two engines, one driven by the test, the other by the library. */
static void
two_open_with(struct two *t, enum carrier carrier, bool mixed, const spoke_mux_config config[2])
{
    *t = (struct two){.carrier = carrier};
    scratch_dir();
    if (mixed) { /* what the library's engine has from then on */
        start(t, mixed, config);
        stop(t);
    }
    resources_take(&t->before);
    t->before.chunks += mixed; /* that engine has memory to receive into, or not */
    start(t, mixed, config);
}

static void
two_open(struct two *t, enum carrier carrier, bool mixed)
{
    spoke_mux_config config[2];

    for (int i = 0; i < 2; i++) {
        spoke_mux_config_init(&config[i]);
        config[i].even = i == 1;
        config[i].pass_fds = true;
    }
    two_open_with(t, carrier, mixed, config);
}

static void
two_close(struct two *t)
{
    stop(t);
    resources_settle(&t->before);
}

static struct spoke_mux_info
info_of(spoke_mux *m)
{
    struct spoke_mux_info info;

    cr_assert_eq(spoke_mux_get_info(m, &info), 0);
    return info;
}

#define EVERY_PAIR(T) for (int case_ = 0; two_next(&case_, &(T)); two_close(&(T)), case_++)

static const enum carrier carriers[] = {OVER_INPROC, OVER_IPC, OVER_SHM, OVER_FD, OVER_PAIR};

static bool
two_next(const int *at, struct two *t)
{
    static const int count = sizeof carriers / sizeof carriers[0];

    if (*at == 2 * count - 1) /* a pair has one engine */
        return false;
    two_open(t, carriers[*at % count], *at >= count);
    return true;
}

/* ---- what passes ---- */

Test(fds, are_used_at_the_other_end)
{
    struct two t;

    EVERY_PAIR(t)
    {
        struct taken in;
        struct lines line;
        char text[8] = "";

        lines_open(&line, 1);
        send_fds(t.e[0], t.s[0], "take it", line.ends, 1);
        in = take_piece(t.e[0], t.s[1]);
        cr_assert(in.count == 1 && in.size == 7, "%s", name_of(&t));
        cr_assert_neq(fcntl(in.fds[0], F_GETFD) & FD_CLOEXEC, 0);
        cr_assert_eq(write(in.fds[0], "hello", 5), 5);
        cr_assert_eq(read(line.listener, text, sizeof text), 5);
        cr_assert_str_eq(text, "hello");
        cr_assert(!lines_are_closed(&line));
        taken_close(&in);
        cr_assert(lines_are_closed(&line), "%s: a copy is left", name_of(&t));
        lines_close(&line);
        cr_assert_eq(info_of(t.m[0]).fds_out, 1);
        cr_assert_eq(info_of(t.m[1]).fds_in, 1);
        cr_assert_eq(info_of(t.m[1]).fds_unread, 0);
        cr_assert(info_of(t.m[0]).passes_fds && info_of(t.m[1]).passes_fds);
    }
}

Test(fds, begin_a_piece)
{
    struct two t;

    EVERY_PAIR(t)
    {
        struct lines lines;

        lines_open(&lines, 6);
        for (int round = 0; round < 2; round++) {
            struct two back = {.s = {t.s[1], t.s[0]}};
            spoke_stream **s = round == 0 ? t.s : back.s;

            send_text(t.e[0], s[0], "before ");
            send_fds(t.e[0], s[0], "one ", lines.ends + 3 * round, 1);
            send_fds(t.e[0], s[0], "two ", lines.ends + 3 * round + 1, 2);
            send_text(t.e[0], s[0], "behind");
            expect_pieces(t.e[0], s[1], "before one two behind", (int[]){7, 11, 11}, 3);
        }
        cr_assert(lines_are_closed(&lines));
        lines_close(&lines);
    }
}

/* What a stream has to say is larger than what fits beside descriptors. */
Test(fds, leave_the_rest_of_the_bytes_to_others)
{
    struct two t;

    EVERY_PAIR(t)
    {
        static uint8_t bytes[100000];
        const struct iovec whole = {bytes, sizeof bytes};
        struct lines line;
        int64_t n;

        lines_open(&line, 1);
        while ((n = try_fds(t.s[0], &whole, 1, line.ends, 1)) == SPOKE_EAGAIN)
            fds_drive(t.e[0]);
        cr_assert(n >= 1 && n <= 1024, "%s: %d", name_of(&t), (int)n);
        expect_pieces(t.e[0], t.s[1], NULL, (int[]){0}, 1);
        lines_close(&line);
    }
}

Test(fds, as_many_as_there_may_be)
{
    struct two t;

    EVERY_PAIR(t)
    {
        struct lines lines;
        struct taken in[2];
        const struct iovec byte = {(void *)(uintptr_t) "x", 1};

        lines_open(&lines, 2 * SPK_FDS_MOST + 7);
        for (int i = 0; i < 2; i++)
            send_fds(t.e[0], t.s[0], "x", lines.ends + i * SPK_FDS_MOST, SPK_FDS_MOST);
        /* 6 more may be out. */
        for (int i = 0; i < 20; i++) {
            cr_assert_eq(try_fds(t.s[0], &byte, 1, lines.ends + 2 * SPK_FDS_MOST, 7), SPOKE_EAGAIN);
            fds_drive(t.e[0]);
        }
        for (int i = 0; i < 2; i++) {
            in[i] = take_piece(t.e[0], t.s[1]);
            cr_assert_eq(in[i].count, SPK_FDS_MOST, "%s", name_of(&t));
        }
        send_fds(t.e[0], t.s[0], "y", lines.ends + 2 * SPK_FDS_MOST, 7);
        expect_pieces(t.e[0], t.s[1], "y", (int[]){0, 0, 0, 0, 0, 0, 0}, 7);
        for (int i = 0; i < 2; i++)
            taken_close(&in[i]);
        cr_assert(lines_are_closed(&lines));
        lines_close(&lines);
    }
}

/* One more stream. */
static void
open_another(struct two *t, spoke_stream *s[2])
{
    cr_assert_eq(spoke_mux_dial(t->m[0], &s[0], NULL, 0, NULL, SPOKE_NOW), 0);
    while (spoke_mux_accept(t->m[1], &s[1], NULL, SPOKE_NOW) == SPOKE_EAGAIN)
        fds_drive(t->e[0]);
    while (write_end(s[0]) == SPOKE_EAGAIN)
        fds_drive(t->e[0]);
}

static void
close_another(spoke_stream *s[2])
{
    (void)spoke_stream_close(s[0]);
    (void)spoke_stream_close(s[1]);
}

/* Whoever waits for room among descriptors is told, also when those were another stream's. */
Test(fds, give_room_to_other_streams)
{
    const struct iovec byte = {(void *)(uintptr_t) "x", 1};
    struct two t;

    EVERY_PAIR(t)
    {
        spoke_stream *other[2];
        struct lines lines;

        open_another(&t, other);
        lines_open(&lines, 3 * SPK_FDS_MOST);
        for (int i = 0; i < 2; i++)
            send_fds(t.e[0], t.s[0], "x", lines.ends + i * SPK_FDS_MOST, SPK_FDS_MOST);
        cr_assert_eq(try_fds(other[0], &byte, 1, lines.ends + 2 * SPK_FDS_MOST, SPK_FDS_MOST),
                     SPOKE_EAGAIN);
        /* The other end closes what it has not read. */
        cr_assert_eq(spoke_stream_close(t.s[1]), 0);
        send_fds(t.e[0], other[0], "y", lines.ends + 2 * SPK_FDS_MOST, SPK_FDS_MOST);
        close_another(other);
        while (!lines_are_closed(&lines))
            fds_drive(t.e[0]);
        lines_close(&lines);
    }
}

/* … which were still to leave when that stream ended. */
Test(fds, that_never_left_give_room)
{
    const struct iovec byte = {(void *)(uintptr_t) "x", 1};
    struct two t;

    EVERY_PAIR(t)
    {
        spoke_stream *other[2];
        struct spk_conn *c[2];
        struct lines lines;
        const int *ends = lines.ends;

        open_another(&t, other);
        lines_open(&lines, 3 * SPK_FDS_MOST);
        cr_assert_eq(spk_conn_enter(other[0], &c[1]), 0);
        spk_engine_leave(c[1]->e);
        cr_assert_eq(spk_conn_enter(t.s[0], &c[0]), 0);
        for (int i = 0; i < 3; i++, ends += SPK_FDS_MOST)
            cr_assert_eq(spk_conn_try_write_fds(c[i / 2], &byte, 1, ends, SPK_FDS_MOST),
                         i < 2 ? 1 : SPOKE_EAGAIN);
        cr_assert_eq(spoke_stream_abort(t.s[0], 0), 0);
        spk_engine_leave(c[0]->e);
        cr_assert_eq(info_of(t.m[0]).fds_out, 0);
        send_fds(t.e[0], other[0], "y", lines.ends + 2 * SPK_FDS_MOST, SPK_FDS_MOST);
        close_another(other);
        while (!lines_are_closed(&lines))
            fds_drive(t.e[0]);
        lines_close(&lines);
    }
}

/* A mux may carry another. */
Test(fds, pass_through_two_muxes)
{
    struct two t;

    EVERY_PAIR(t)
    {
        spoke_mux_config config;
        spoke_mux *inner[2];
        spoke_stream *s[2];
        struct lines line;

        spoke_mux_config_init(&config);
        config.pass_fds = true;
        for (int i = 0; i < 2; i++) {
            config.even = i == 0;
            cr_assert_eq(spoke_mux_open(&inner[i], t.s[i], &config), 0);
        }
        cr_assert_eq(spoke_mux_dial(inner[0], &s[0], NULL, 0, NULL, SPOKE_NOW), 0);
        while (spoke_mux_accept(inner[1], &s[1], NULL, SPOKE_NOW) == SPOKE_EAGAIN)
            fds_drive(t.e[0]);
        lines_open(&line, 1);
        send_text(t.e[0], s[0], "a ");
        send_fds(t.e[0], s[0], "way down", line.ends, 1);
        expect_pieces(t.e[0], s[1], "a way down", (int[]){2}, 1);
        cr_assert(lines_are_closed(&line));
        lines_close(&line);
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(spoke_stream_close(s[i]), 0);
            cr_assert_eq(spoke_mux_close(inner[i], 0), 0);
        }
    }
}

/* Many small ones, among bytes of other streams: each comes with its own bytes. */
Test(fds, keep_their_order_in_a_crowd)
{
    enum { ROUNDS = TEST_REPEATS(200) + 20 };
    struct two t;

    EVERY_PAIR(t)
    {
        spoke_stream *other[2];
        uint64_t received = 0;

        cr_assert_eq(spoke_mux_dial(t.m[1], &other[1], NULL, 0, NULL, SPOKE_NOW), 0);
        while (spoke_mux_accept(t.m[0], &other[0], NULL, SPOKE_NOW) == SPOKE_EAGAIN)
            fds_drive(t.e[0]);
        for (uint32_t i = 0; i < ROUNDS; i++) {
            static uint8_t noise[3000];
            struct lines line;
            struct taken in;
            uint32_t heard;
            size_t done;

            lines_open(&line, 1 + (int)(i % 3));
            cr_assert_eq(write(line.ends[0], &i, sizeof i), sizeof i);
            (void)write_now(other[0], noise, 1 + i * 37 % sizeof noise, &done);
            send_fds(t.e[0], t.s[0], i % 2 == 0 ? "even" : "o", line.ends, 1 + (int)(i % 3));
            in = take_piece(t.e[0], t.s[1]);
            cr_assert_eq(in.count, 1 + (int)(i % 3), "%s", name_of(&t));
            cr_assert_eq(in.size, i % 2 == 0 ? 4 : 1);
            taken_close(&in);
            cr_assert_eq(read(line.listener, &heard, sizeof heard), sizeof heard);
            cr_assert_eq(heard, i);
            cr_assert(lines_are_closed(&line));
            lines_close(&line);
            while (read_now(other[1], noise, sizeof noise, &done) == 0)
                received += done;
        }
        cr_assert_gt(received, 0);
        (void)spoke_stream_close(other[0]);
        (void)spoke_stream_close(other[1]);
    }
}

/* ---- what does not pass ---- */

static void
expect_none(enum carrier carrier, const spoke_mux_config config[2])
{
    const struct iovec byte = {(void *)(uintptr_t) "x", 1};
    struct lines line;
    struct two t;

    two_open_with(&t, carrier, false, config);
    lines_open(&line, 1);
    for (int i = 0; i < 2; i++) {
        cr_assert(!info_of(t.m[i]).passes_fds);
        cr_assert(!passes_fds(t.s[i]));
        cr_assert_eq(try_fds(t.s[i], &byte, 1, line.ends, 1), SPOKE_ENOTSUP);
    }
    cr_assert(!lines_are_closed(&line), "they stay the caller's");
    close(line.ends[0]);
    lines_close(&line);
    send_text(t.e[0], t.s[1], "goes on");
    expect_pieces(t.e[0], t.s[0], "goes on", (int[]){0}, 0);
    two_close(&t);
}

Test(fds, only_if_all_of_them_let_them)
{
    spoke_mux_config config[2];

    for (int i = 0; i < 2; i++) {
        spoke_mux_config_init(&config[i]);
        config[i].even = i == 1;
        config[i].pass_fds = true;
    }
    expect_none(OVER_TCP, config);
    for (int i = 0; i < 2; i++) {
        config[i].pass_fds = false;
        expect_none(OVER_IPC, config);
        expect_none(OVER_PAIR, config);
        config[i].pass_fds = true;
    }
    for (int i = 0; i < 2; i++)
        config[i].wire = SPOKE_MUX_COMPATIBLE;
    expect_none(OVER_SHM, config);
    expect_none(OVER_IPC, config);
    config[0].wire = SPOKE_MUX_DETECT;
    expect_none(OVER_FD, config);
}

/* An end that takes both wires says nothing before it knows which. */
Test(fds, where_the_wire_is_detected)
{
    spoke_mux_config config[2];
    struct lines line;
    struct two t;

    for (int i = 0; i < 2; i++) {
        spoke_mux_config_init(&config[i]);
        config[i].even = i == 1;
        config[i].pass_fds = true;
    }
    config[1].wire = SPOKE_MUX_DETECT;
    two_open_with(&t, OVER_IPC, false, config);
    lines_open(&line, 1);
    send_fds(t.e[0], t.s[1], "back", line.ends, 1);
    expect_pieces(t.e[0], t.s[0], "back", (int[]){0}, 1);
    lines_close(&line);
    two_close(&t);
}

/* A simulated world has none. */
Test(fds, not_in_a_simulated_world)
{
    const struct iovec byte = {(void *)(uintptr_t) "x", 1};
    spoke_mux_config config;
    struct bench x;
    spoke_stream *s;

    spoke_mux_config_init(&config);
    config.pass_fds = true;
    bench_open(&x, true, true, &config); /* its preface does not promise any */
    s = bench_accept(&x, "01 01 05");
    cr_assert(!passes_fds(s));
    cr_assert_eq(try_fds(s, &byte, 1, (int[]){0}, 1), SPOKE_ENOTSUP);
    cr_assert_eq(spoke_stream_close(s), 0);
    bench_say(&x, "0d 01 01 0001 78");
    bench_ended(&x, SPOKE_EPROTO);
    bench_close(&x);
}

Test(fds, that_cannot_be_passed)
{
    static uint8_t zeros[120]; /* struct io_uring_params */
    const struct iovec byte = {(void *)(uintptr_t) "x", 1};
    int ring = (int)syscall(SYS_io_uring_setup, 1, zeros);
    struct two t;

    EVERY_PAIR(t)
    {
        struct lines line;

        lines_open(&line, 1);
        cr_assert_eq(try_fds(t.s[0], &byte, 1, (int[]){-1}, 1), SPOKE_EINVAL);
        cr_assert_eq(try_fds(t.s[0], &byte, 1, (int[]){line.ends[0], 1 << 20}, 2), SPOKE_EINVAL);
        cr_assert_eq(try_fds(t.s[0], &byte, 1, line.ends, 0), SPOKE_EINVAL);
        cr_assert_eq(try_fds(t.s[0], &byte, 1, line.ends, SPK_FDS_MOST + 1), SPOKE_EINVAL);
        if (ring >= 0)
            cr_assert_eq(try_fds(t.s[0], &byte, 1, (int[]){line.ends[0], ring}, 2), SPOKE_EINVAL);
        send_fds(t.e[0], t.s[0], "goes on", line.ends, 1);
        expect_pieces(t.e[0], t.s[1], "goes on", (int[]){0}, 1);
        lines_close(&line);
    }
    if (ring >= 0)
        close(ring);
}

/* ---- the end ---- */

/* Whoever reads bytes only has no use for them. */
Test(fds, are_closed_by_plain_reads)
{
    struct two t;

    EVERY_PAIR(t)
    {
        char text[16];
        spoke_msg *m = NULL;
        struct lines lines;
        size_t done;

        lines_open(&lines, 2);
        send_fds(t.e[0], t.s[0], "one ", lines.ends, 1);
        send_fds(t.e[0], t.s[0], "two ", lines.ends + 1, 1);
        while (read_now(t.s[1], text, 5, &done) == SPOKE_EAGAIN)
            fds_drive(t.e[0]);
        while (spoke_stream_read_chunk(t.s[1], &m) == SPOKE_EAGAIN)
            fds_drive(t.e[0]);
        spoke_msg_free(m);
        while (!lines_are_closed(&lines)) {
            (void)read_now(t.s[1], text, sizeof text, &done);
            fds_drive(t.e[0]);
        }
        cr_assert_eq(info_of(t.m[1]).fds_unread, 0);
        lines_close(&lines);
    }
}

static void
abort_it(spoke_stream *s)
{
    cr_assert_eq(spoke_stream_abort(s, 5), 0);
}

static void
close_it(spoke_stream *s)
{
    (void)spoke_stream_close(s);
}

static void
close_its_half(spoke_stream *s)
{
    cr_assert_eq(spoke_stream_close_read(s), 0);
}

/* In whatever way a stream ends, at whichever end, before or after they have come. */
Test(fds, are_closed_with_their_stream)
{
    static void (*const ways[])(spoke_stream * s) = {abort_it, close_it, close_its_half};

    for (int way = 0; way < 3; way++) {
        for (int end = way == 2; end < 2; end++) {
            for (int late = 0; late < 2; late++) {
                struct two t;

                EVERY_PAIR(t)
                {
                    struct lines lines;

                    lines_open(&lines, 3);
                    for (int i = 0; i < 3; i++)
                        send_fds(t.e[0], t.s[0], "x", lines.ends + i, 1);
                    for (int i = 0; late != 0 && i < 3; i++)
                        fds_drive(t.e[0]);
                    ways[way](t.s[end]);
                    if (end == 0) /* what came is the reader's */
                        (void)spoke_stream_close(t.s[1]);
                    while (!lines_are_closed(&lines))
                        fds_drive(t.e[0]);
                    lines_close(&lines);
                }
            }
        }
    }
}

/* The muxes end with descriptors everywhere between them. */
Test(fds, are_closed_with_their_mux)
{
    for (int end = 0; end < 2; end++) {
        struct two t;

        EVERY_PAIR(t)
        {
            struct lines lines;

            lines_open(&lines, 3);
            for (int i = 0; i < 3; i++) {
                send_fds(t.e[0], t.s[0], "x", lines.ends + i, 1);
                if (i == 0)
                    fds_drive(t.e[0]);
            }
            cr_assert_eq(spoke_mux_close(t.m[end], 0), 0);
            fds_drive(t.e[0]);
            (void)spoke_stream_close(t.s[1]);
            (void)spoke_mux_close(t.m[!end], 0);
            while (!lines_are_closed(&lines))
                fds_drive(t.e[0]);
            lines_close(&lines);
        }
    }
}

/* ---- other processes ---- */

struct child {
    const char *url;
    bool sends;
};

/* Send or take descriptors for ever. */
static int
live(void *ctx)
{
    const struct child *child = ctx;
    spoke_stream *carrier, *s;
    spoke_mux_config config;
    spoke_engine *e;
    spoke_mux *m;

    child_is_confined(); /* it is killed, or its parent has gone */
    spoke_mux_config_init(&config);
    config.pass_fds = true;
    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_stream_dial(&carrier, child->url, NULL, e, SPOKE_FOREVER) == 0);
    CHILD_CHECK(spoke_mux_open(&m, carrier, &config) == 0);
    CHILD_CHECK(spoke_mux_dial(m, &s, NULL, 0, NULL, SPOKE_FOREVER) == 0);
    for (uint32_t i = 0;; i++) {
        if (child->sends) {
            char text[2] = {(char)('a' + i % 26), 0};
            const struct iovec byte = {text, 1};
            int ends[2];
            int64_t n;

            CHILD_CHECK(pipe2(ends, O_CLOEXEC) == 0);
            CHILD_CHECK(write(ends[1], text, 1) == 1);
            while ((n = try_fds(s, &byte, 1, ends, 2)) == SPOKE_EAGAIN)
                fds_drive(e);
            if (n < 0)
                return 0;
        } else {
            struct taken in;

            while (!try_take(s, &in)) {
                fds_drive(e);
                if (read_end_of(s) != 0)
                    return 0;
            }
            for (int k = 0; k < in.count; k++) {
                (void)!write(in.fds[k], in.text, 1);
                close(in.fds[k]);
            }
        }
    }
}

/* Over ipc and shm: a child, the mux and the stream to it. */
static void
begin_with_child(struct two *t, enum carrier carrier, bool sends, pid_t *pid)
{
    struct child child = {.sends = sends};
    spoke_stream_listener *l;
    char url[ENDPOINT_MAX];
    spoke_stream *accepted;
    spoke_mux_config config;

    *t = (struct two){.carrier = carrier};
    endpoint_fresh(url, (enum transport)carrier);
    resources_take(&t->before);
    spoke_mux_config_init(&config);
    config.pass_fds = config.even = true;
    cr_assert_eq(spoke_engine_open(&t->e[0], NULL), 0);
    cr_assert_eq(spoke_stream_listen(&l, url, NULL, t->e[0]), 0);
    child.url = url;
    *pid = child_start(live, &child);
    cr_assert_eq(spoke_stream_accept(l, &accepted, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_listener_close(l), 0);
    cr_assert_eq(spoke_mux_open(&t->m[1], accepted, &config), 0);
    cr_assert_eq(spoke_mux_accept(t->m[1], &t->s[1], NULL, SPOKE_FOREVER), 0);
}

static void
end_with_child(struct two *t)
{
    struct spoke_mux_end why;

    while (spoke_mux_status(t->m[1], &why) == SPOKE_EAGAIN)
        fds_drive(t->e[0]);
    cr_assert(why.code == SPOKE_ECONNRESET || why.code == SPOKE_EPEERCLOSED, "%s: %s",
              spoke_error_name(why.code), why.text);
    cr_assert_eq(spoke_stream_close(t->s[1]), 0);
    cr_assert_eq(spoke_mux_close(t->m[1], 0), 0);
    cr_assert_eq(spoke_engine_close(t->e[0]), 0);
}

Test(fds, of_a_process_that_is_killed)
{
    static const enum carrier between[] = {OVER_IPC, OVER_SHM};

    for (int round = 0; round < TEST_REPEATS(6) + 4; round++) {
        int takes = round * 9;
        struct two t;
        pid_t pid;

        begin_with_child(&t, between[round % 2], true, &pid);
        for (int i = 0; i < takes; i++) {
            struct taken in = take_piece(t.e[0], t.s[1]);
            char heard;

            cr_assert(in.count == 2 && in.size == 1);
            cr_assert_eq(read(in.fds[0], &heard, 1), 1);
            cr_assert(heard == in.text[0] && heard == 'a' + i % 26);
            taken_close(&in);
        }
        child_kill(pid);
        end_with_child(&t);
        resources_settle(&t.before);
    }
}

/* Ours come back to nobody. */
Test(fds, that_were_sent_to_a_process_that_is_killed)
{
    static const enum carrier between[] = {OVER_IPC, OVER_SHM};

    for (int round = 0; round < TEST_REPEATS(6) + 4; round++) {
        struct lines lines;
        char heard = 0;
        struct two t;
        pid_t pid;

        begin_with_child(&t, between[round % 2], false, &pid);
        lines_open(&lines, 1);
        send_fds(t.e[0], t.s[1], "k", lines.ends, 1);
        while (read(lines.listener, &heard, 1) < 1) /* it is used there */
            fds_drive(t.e[0]);
        cr_assert_eq(heard, 'k');
        lines_close(&lines);
        lines_open(&lines, 10 * round);
        for (int i = 0; i < 10 * round; i++)
            send_fds(t.e[0], t.s[1], "x", lines.ends + i, 1);
        for (int i = 0; i < round; i++)
            fds_drive(t.e[0]);
        child_kill(pid);
        end_with_child(&t);
        while (round > 0 && !lines_are_closed(&lines)) {
            char rest[64];

            (void)!read(lines.listener, rest, sizeof rest);
        }
        lines_close(&lines);
        resources_settle(&t.before);
    }
}

/* ---- too many in the whole system ---- */

#define USERS_MOST 64 /* descriptors of a user's that may be on their way; see unix(7) */

#define PATIENT (100 * SPOKE_SECOND) /* who waits for room for so long is not to give up here */

/* So many are that there can be no more.  They are until the socket is closed. */
static void
use_up(int socket)
{
    const struct iovec byte = {(void *)(uintptr_t) "x", 1};
    const int some[] = {0, 0, 0, 0, 0, 0, 0, 0};
    int64_t rc;

    while ((rc = spk_fds_send(socket, &byte, 1, some, 8)) == 1) {
    }
    CHILD_CHECK(rc == SPOKE_ELIMIT);
}

static int
without_room(void *patience)
{
    spoke_ns limit = *(const spoke_ns *)patience, begin;
    struct rlimit few = {USERS_MOST, USERS_MOST};
    struct spoke_mux_end why;
    spoke_mux_config config;
    spoke_stream *carrier, *s[2];
    spoke_mux *m[2];
    spoke_engine *e;
    int ends[2], pipes[2], full[2];
    const struct iovec byte = {(void *)(uintptr_t) "x", 1};
    struct taken in;

    child_is_confined();
    CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    if (geteuid() == 0) { /* it has no limits; and another user than any other test's */
        CHILD_CHECK(setgid(65534) == 0);
        CHILD_CHECK(setuid(50000 + (uid_t)getpid() % 10000) == 0);
    }
    spoke_mux_config_init(&config);
    config.pass_fds = true;
    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    for (int i = 0; i < 2; i++) {
        config.even = i == 1;
        config.peer_timeout_ns = i == 0 ? limit : 0;
        config.heartbeat_ns = limit / 10;
        CHILD_CHECK(spoke_stream_from_fd(&carrier, ends[i], NULL, e) == 0);
        CHILD_CHECK(spoke_mux_open(&m[i], carrier, &config) == 0);
    }
    CHILD_CHECK(spoke_mux_dial(m[0], &s[0], NULL, 0, NULL, SPOKE_NOW) == 0);
    CHILD_CHECK(spoke_mux_accept(m[1], &s[1], NULL, SPOKE_FOREVER) == 0);
    while (!passes_fds(s[0]))
        fds_drive(e);
    CHILD_CHECK(pipe2(pipes, O_CLOEXEC) == 0);
    CHILD_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, full) == 0);
    use_up(full[0]);
    CHILD_CHECK(try_fds(s[0], &byte, 1, pipes, 2) == 1);
    begin = spoke_engine_now(e);
    while (spoke_engine_now(e) < begin + 20 * SPOKE_MS) {
        use_up(full[0]); /* if others of this user's have given up some */
        fds_drive(e);
        CHILD_CHECK(!try_take(s[1], &in));
    }
    if (limit < PATIENT) {
        while (spoke_mux_status(m[0], &why) == SPOKE_EAGAIN)
            fds_drive(e);
        CHILD_CHECK(why.code == SPOKE_ELIMIT && why.origin == SPOKE_MUX_LOCAL);
        return 0;
    }
    close(full[0]);
    close(full[1]);
    while (!try_take(s[1], &in))
        fds_drive(e);
    CHILD_CHECK(in.count == 2 && spoke_mux_status(m[0], &why) == SPOKE_EAGAIN);
    return 0;
}

/* They wait until there is room again, and not for ever. */
Test(fds, while_the_system_has_no_room)
{
    spoke_ns patience = PATIENT;

    cr_assert_eq(child_run(without_room, &patience, 60), 0);
    patience = 2 * SPOKE_SECOND; /* and no peer seems dead before */
    cr_assert_eq(child_run(without_room, &patience, 60), 0);
}
