/* SPDX-License-Identifier: MIT */
/* Peers on a unix socket that send descriptors as they like: bytes one by one, descriptors where
 * none belong, too many, none.  Whatever comes is closed, and the rule that was broken ends the
 * mux.  Hex as in fixture.h. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/mux/fds.h"
#include "tests/support/shm_peer.h"

#define PREFACE_PASSES    "53504b4d 01 02 0000 00000100 00000000"
#define PREFACE_OF_OTHERS "53504b4d 01 00 0000 00000100 00000000"
#define WINDOW            4096

/* An even mux that lets descriptors pass, and stream 1 of a peer that is a bare socket. */
struct raw {
    int fd;
    spoke_engine *e;
    spoke_mux *m;
    spoke_stream *s; /* NULL: none */
    struct lines lines;
    struct resources before;
};

/* Bytes, with descriptors at the first one. */
static void
say_bytes(struct raw *x, const uint8_t *bytes, size_t size, const int *fds, int n)
{
    const struct iovec whole = {(void *)(uintptr_t)bytes, size};
    int64_t sent = n > 0 ? spk_fds_send(x->fd, &whole, 1, fds, n)
                         : send(x->fd, bytes, size, MSG_NOSIGNAL);

    cr_assert(sent == (int64_t)size || sent < 0); /* or it has ended */
}

/* … of which copies go, and none is left here. */
static void
say(struct raw *x, const char *hex, int n)
{
    uint8_t bytes[1024];
    size_t size = hex_bytes(hex, bytes, sizeof bytes);

    cr_assert_leq(n, x->lines.count);
    say_bytes(x, bytes, size, x->lines.ends + x->lines.count - n, n);
    for (; n > 0; n--)
        close(x->lines.ends[--x->lines.count]);
}

static struct spoke_mux_info
info_of(const struct raw *x)
{
    struct spoke_mux_info info;

    cr_assert_eq(spoke_mux_get_info(x->m, &info), 0);
    return info;
}

/* Until the mux has read so many bytes in all. */
static void
until_read(struct raw *x, uint64_t bytes)
{
    while (info_of(x).bytes_in < bytes && info_of(x).is_open)
        fds_drive(x->e);
}

static void
raw_start(struct raw *x, const spoke_mux_config *config)
{
    spoke_stream *carrier;
    int ends[2];

    *x = (struct raw){.fd = -1};
    scratch_dir();
    resources_take(&x->before);
    cr_assert_eq(spoke_engine_open(&x->e, NULL), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    x->fd = ends[0];
    cr_assert_eq(spoke_stream_from_fd(&carrier, ends[1], NULL, x->e), 0);
    cr_assert_eq(spoke_mux_open(&x->m, carrier, config), 0);
    lines_open(&x->lines, 600);
}

static void
raw_open_as(struct raw *x, bool we, bool peer)
{
    spoke_mux_config config;

    spoke_mux_config_init(&config);
    config.even = true;
    config.pass_fds = we;
    config.window = WINDOW;
    raw_start(x, &config);
    say(x, peer ? PREFACE_PASSES : PREFACE_OF_OTHERS, 0);
    say(x, "01 01 808004", 0);
    while (spoke_mux_accept(x->m, &x->s, NULL, SPOKE_NOW) == SPOKE_EAGAIN)
        fds_drive(x->e);
    cr_assert_eq(info_of(x).passes_fds, we && peer);
}

static void
raw_open(struct raw *x)
{
    raw_open_as(x, true, true);
}

static void
raw_close(struct raw *x)
{
    if (x->s != NULL)
        (void)spoke_stream_close(x->s);
    cr_assert_eq(spoke_mux_close(x->m, 0), 0);
    cr_assert_eq(spoke_engine_close(x->e), 0);
    while (x->lines.count > 0)
        close(x->lines.ends[--x->lines.count]);
    cr_assert(lines_are_closed(&x->lines), "a descriptor that came is still open");
    lines_close(&x->lines);
    close(x->fd);
    resources_settle(&x->before);
}

static void
expect_end(struct raw *x, int code)
{
    struct spoke_mux_end why;

    while (spoke_mux_status(x->m, &why) == SPOKE_EAGAIN)
        fds_drive(x->e);
    cr_assert_eq(why.code, code, "%s instead of %s: %s", spoke_error_name(why.code),
                 spoke_error_name(code), why.text);
    raw_close(x);
}

/* ---- bytes one by one ---- */

/* `rests`: the mux reads each byte before the next one is there. */
static void
say_slowly(struct raw *x, const char *hex, int n, bool rests)
{
    uint8_t bytes[256];
    size_t size = hex_bytes(hex, bytes, sizeof bytes);
    uint64_t before = info_of(x).bytes_in;

    for (size_t i = 0; i < size; i++) {
        char byte[3];

        snprintf(byte, sizeof byte, "%02x", bytes[i]);
        say(x, byte, i == 0 ? n : 0);
        if (rests)
            until_read(x, before + i + 1);
    }
}

Test(fds_rules, a_message_in_single_bytes)
{
    int at[4 + 253] = {2, 2, 2, 5};

    for (int i = 4; i < 4 + 253; i++)
        at[i] = 7;
    for (int rests = 0; rests < 2; rests++) {
        struct raw x;

        raw_open(&x);
        say_slowly(&x, "03 01 0002 6162", 0, rests);
        say_slowly(&x, "0d 01 03 0003 636465", 3, rests);
        say_slowly(&x, "0d 01 01 0001 66", 1, rests);
        say_slowly(&x, "03 01 0001 67 00", 0, rests);
        say_slowly(&x, "0d 8100 fd 0001 68", 253, rests); /* an id that is longer than need be */
        until_read(&x, 16 + 5 + 6 + 8 + 6 + 6 + 7);
        expect_pieces(x.e, x.s, "abcdefgh", at, 4 + 253);
        raw_close(&x);
    }
}

/* What a reader leaves of one set's bytes may be read together with the next set: the kernel says
 * which set it was, not where it begins. */
Test(fds_rules, a_set_in_the_middle_of_what_is_read)
{
    struct raw x;
    uint8_t large[70000] = {3, 1, 0x0f, 0xf0};

    raw_open(&x);
    say_bytes(&x, large, 4 + 0x0ff0, NULL, 0);
    say(&x, "0d 01 01 0001 61", 1);
    say(&x, "0d 01 02 0001 62 00 00", 2);
    say(&x, "00 00 0d 01 01 0001 63", 0);
    expect_end(&x, SPOKE_EPROTO); /* the last one has none */
}

/* ---- what ends the mux ---- */

static void
breaks(const char *first, const char *hex, int n, int code)
{
    struct raw x;

    raw_open(&x);
    say(&x, first, 0);
    say(&x, hex, n);
    expect_end(&x, code);
    /* The same, slowly. */
    raw_open(&x);
    say(&x, first, 0);
    say_slowly(&x, hex, n, true);
    expect_end(&x, code);
}

Test(fds_rules, descriptors_without_a_word)
{
    breaks("00", "00", 1, SPOKE_EPROTO);
    breaks("00", "03 01 0001 78", 1, SPOKE_EPROTO);
    breaks("0d", "01 01 0001 78", 2, SPOKE_EPROTO);
}

/* Not with the first byte, as far as the kernel says so. */
Test(fds_rules, descriptors_that_are_late)
{
    struct raw x;

    raw_open(&x);
    say(&x, "0d 01 01", 0);
    expect_end(&x, SPOKE_EPROTO);
    raw_open(&x);
    say_slowly(&x, "0d 01 01 00", 0, true);
    say(&x, "01 78", 1);
    expect_end(&x, SPOKE_EPROTO);
}

Test(fds_rules, a_word_without_descriptors)
{
    breaks("00", "0d 01 01 0001 78", 0, SPOKE_EPROTO);
    breaks("00", "0d 01 fd 0001 78", 0, SPOKE_EPROTO);
}

Test(fds_rules, other_descriptors_than_it_says)
{
    breaks("00", "0d 01 02 0001 78", 1, SPOKE_EPROTO);
    breaks("00", "0d 01 01 0001 78", 2, SPOKE_EPROTO);
    breaks("00", "0d 01 01 0001 78", 253, SPOKE_EPROTO);
}

Test(fds_rules, two_sets_for_one_message)
{
    struct raw x;

    raw_open(&x);
    say(&x, "0d", 1);
    say(&x, "01 01", 1);
    say(&x, "0001 78", 0);
    expect_end(&x, SPOKE_EPROTO);
}

Test(fds_rules, those_of_data)
{
    breaks("00", "0d 03 01 0001 78", 1, SPOKE_EPROTO);        /* a stream that never was */
    breaks("00", "0d 02 01 0001 78", 1, SPOKE_EPROTO);        /* one of the mux's */
    breaks("01 03 05", "0d 03 01 0001 78", 1, SPOKE_EPROTO);  /* that is not accepted */
    breaks("05 01", "0d 01 01 0001 78", 1, SPOKE_EPROTO);     /* after its end */
    breaks("06 01", "0d 01 01 0001 78", 1, SPOKE_EPROTO);     /* … and the other one */
    breaks("00", "0d 01 01 1001", 1, SPOKE_EPROTO);           /* beyond the window */
    breaks("00", "0d 01 00", 1, SPOKE_EPROTO);                /* none */
    breaks("00", "0d 01 fe", 1, SPOKE_EPROTO);                /* 254 */
    breaks("00", "0d 01 01 0000", 1, SPOKE_EPROTO);           /* no bytes */
    breaks("00", "0d ffffffffffffffffffff", 1, SPOKE_EPROTO); /* no number */
}

Test(fds_rules, they_were_not_agreed_on)
{
    struct raw x;

    for (int with = 0; with < 2; with++) {
        raw_open_as(&x, true, false);
        say(&x, "0d 01 01 0001 78", with);
        expect_end(&x, SPOKE_EPROTO);
        raw_open_as(&x, false, true);
        say(&x, "0d 01 01 0001 78", with);
        expect_end(&x, SPOKE_EPROTO);
    }
    raw_open_as(&x, true, false);
    say(&x, "00", 1);
    expect_end(&x, SPOKE_EPROTO);
    raw_open_as(&x, true, false);
    say(&x, "0e 01", 0);
    expect_end(&x, SPOKE_EPROTO);
    /* Who has not asked for any loses them in the kernel, and goes on. */
    raw_open_as(&x, false, false);
    say(&x, "00 03 01 0001 78", 2);
    expect_pieces(x.e, x.s, "x", (int[]){0}, 0);
    cr_assert(info_of(&x).is_open);
    raw_close(&x);
}

Test(fds_rules, more_than_may_be_out)
{
    struct raw x;

    raw_open(&x);
    for (int i = 0; i < 2; i++)
        say(&x, "0d 01 fd 0001 78", 253);
    say(&x, "0d 01 06 0001 78", 6);
    until_read(&x, 16 + 5 + 3 * 6);
    cr_assert(info_of(&x).is_open);
    cr_assert_eq(info_of(&x).fds_unread, 512);
    say(&x, "0d 01 01 0001 78", 1);
    expect_end(&x, SPOKE_ELIMIT);
    /* … also what has come for nobody. */
    raw_open(&x);
    cr_assert_eq(spoke_stream_close(x.s), 0);
    x.s = NULL;
    for (int i = 0; i < 100; i++)
        say(&x, "0d 01 05 0001 78", 5);
    fds_drive(x.e);
    cr_assert(info_of(&x).is_open);
    raw_close(&x);
}

Test(fds_rules, credit_for_what_was_not_out)
{
    breaks("00", "0e 01", 0, SPOKE_EPROTO);
    breaks("00", "0e 00", 0, SPOKE_EPROTO);
    breaks("00", "0e ffffffffffffffffff01", 0, SPOKE_EPROTO);
}

/* The process may have no more. */
Test(fds_rules, there_is_no_room_for_them)
{
    struct rlimit usual, low;
    struct raw x;

    for (int room = 0; room < 3; room++) {
        int free_ones[2];

        raw_open(&x);
        until_read(&x, 16 + 5);
        say(&x, "0d 01 03 0001 78", 3);
        for (int i = 0; i < 2; i++)
            cr_assert_geq(free_ones[i] = fcntl(0, F_DUPFD_CLOEXEC, 0), 0);
        cr_assert_eq(getrlimit(RLIMIT_NOFILE, &usual), 0);
        /* The lowest number that is free is all that there is, or two, or none. */
        low = usual;
        low.rlim_cur = (rlim_t)free_ones[0] + (rlim_t)room;
        for (int i = 0; i < 2; i++)
            close(free_ones[i]);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
        while (info_of(&x).is_open)
            fds_drive(x.e);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &usual), 0);
        expect_end(&x, SPOKE_ELIMIT);
    }
}

Test(fds_rules, an_end_in_the_middle)
{
    static const char *const cuts[] = {"0d", "0d 01", "0d 01 02 00", "0d 01 02 0003 78"};

    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        struct raw x;

        raw_open(&x);
        say(&x, cuts[i], 2);
        shutdown(x.fd, SHUT_WR);
        expect_end(&x, SPOKE_ECONNRESET);
    }
}

/* ---- what does not ---- */

/* For a stream that was closed here, which the peer does not know yet: they are closed and given
 * back. */
Test(fds_rules, for_a_stream_that_is_over)
{
    uint8_t heard[4096], credit[] = {0x0e, 0x82, 0x01}; /* 130 */
    size_t size = 0;
    struct raw x;
    ssize_t n;

    raw_open(&x);
    cr_assert_eq(spoke_stream_close(x.s), 0);
    x.s = NULL;
    for (int i = 0; i < 26; i++)
        say(&x, "0d 01 05 0001 78", 5);
    until_read(&x, 16 + 5 + 26 * 6);
    cr_assert_eq(info_of(&x).fds_in, 130);
    cr_assert_eq(info_of(&x).fds_unread, 0);
    while (memmem(heard, size, credit, sizeof credit) == NULL) {
        fds_drive(x.e);
        cr_assert_lt(size, sizeof heard);
        if ((n = recv(x.fd, heard + size, sizeof heard - size, 0)) > 0)
            size += (size_t)n;
    }
    raw_close(&x);
}

/* A stream over a unix socket that carries no mux: whoever takes pieces of it has them, whoever
 * reads it closes them, and who does not ask never sees any. */
Test(fds_rules, on_a_stream_without_a_mux)
{
    static const uint8_t byte = 'x';
    struct resources before;
    struct lines lines;
    struct taken in;
    spoke_engine *e;
    spoke_stream *s;
    char text[4];
    size_t done;
    int ends[2];

    scratch_dir();
    resources_take(&before);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(spoke_stream_from_fd(&s, ends[1], NULL, e), 0);
    lines_open(&lines, 5);
    for (int i = 0; i < 5; i++) {
        const struct iovec whole = {(void *)(uintptr_t)&byte, 1};

        cr_assert_eq(spk_fds_send(ends[0], &whole, 1, &lines.ends[i], 1), 1);
        close(lines.ends[i]);
        if (i == 0) {
            cr_assert_eq(spoke_stream_read(s, text, 1, &done), 0);
            cr_assert(passes_fds(s));
        } else if (i == 1 || i == 4) {
            in = take_piece(e, s);
            cr_assert(in.size == 1 && in.count == 1);
            taken_close(&in);
        } else { /* what has come already, and what a plain call brings */
            if (i == 2)
                cr_assert_geq(spoke_stream_fd(s, SPOKE_STREAM_READABLE), 0);
            fds_drive(e);
            cr_assert_eq(spoke_stream_read(s, text, 1, &done), 0);
        }
    }
    cr_assert(lines_are_closed(&lines));
    lines_close(&lines);
    send_fds(e, s, "back", (int[]){dup(ends[0])}, 1);
    cr_assert_eq(recv(ends[0], text, sizeof text, 0), 4);
    cr_assert_eq(spoke_stream_close(s), 0);
    cr_assert_eq(spoke_engine_close(e), 0);
    close(ends[0]);
    resources_settle(&before);
}

/* A receive that the stream had begun before it became a carrier does not lose any. */
Test(fds_rules, a_receive_that_was_under_way)
{
    for (int waits = 0; waits < 3; waits++) {
        spoke_mux_config config;
        spoke_stream *carrier;
        char preface[16];
        struct raw x = {.fd = -1};
        int ends[2];

        scratch_dir();
        resources_take(&x.before);
        spoke_mux_config_init(&config);
        config.even = config.pass_fds = true;
        cr_assert_eq(spoke_engine_open(&x.e, NULL), 0);
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        x.fd = ends[0];
        cr_assert_eq(spoke_stream_from_fd(&carrier, ends[1], NULL, x.e), 0);
        cr_assert_geq(spoke_stream_fd(carrier, SPOKE_STREAM_READABLE), 0);
        for (int i = 0; i < waits; i++)
            cr_assert_geq(spoke_engine_poll(x.e, SPOKE_MS), 0);
        cr_assert_eq(spoke_mux_open(&x.m, carrier, &config), 0);
        lines_open(&x.lines, 1);
        /* As soon as it is said that they may come they do. */
        while (recv(x.fd, preface, sizeof preface, MSG_DONTWAIT) < 0)
            fds_drive(x.e);
        cr_assert_eq(preface[5], 3);
        say(&x, PREFACE_PASSES, 0);
        say(&x, "01 01 808004", 0);
        while (spoke_mux_accept(x.m, &x.s, NULL, SPOKE_NOW) == SPOKE_EAGAIN)
            fds_drive(x.e);
        say(&x, "0d 01 01 0001 61", 1);
        expect_pieces(x.e, x.s, "a", (int[]){0}, 1);
        raw_close(&x);
    }
}

/* ---- a peer in shared memory, whose descriptors come beside its messages ---- */

#define SHM_RING ((size_t)64 * 1024)

struct shm_raw {
    struct shm_peer peer;
    struct raw x;
};

static void
drive(void *engine)
{
    (void)spoke_engine_poll(engine, SPOKE_NOW);
}

/* One message of a stream (docs/wire.md), without telling yet. */
static void
put(struct shm_raw *y, unsigned kind, const char *hex)
{
    uint8_t bytes[256] = {(uint8_t)kind};
    size_t size = 1 + hex_bytes(hex, bytes + 1, sizeof bytes - 1);

    shm_peer_put(&y->peer, SPK_SHM_MESSAGE, bytes, (uint32_t)size);
}

static void
put_fds(struct shm_raw *y, int n)
{
    struct lines *l = &y->x.lines;

    cr_assert_eq(shm_peer_send(y->peer.fd, "", 1, &l->ends[l->count - n], n), 0);
    for (; n > 0; n--)
        close(l->ends[--l->count]);
}

static void
shm_raw_open(struct shm_raw *y)
{
    spoke_stream_listener *l;
    spoke_mux_config config;
    spoke_stream *carrier;
    char url[ENDPOINT_MAX];
    struct raw *x = &y->x;

    memset(y, 0, sizeof *y);
    endpoint_fresh(url, SHM);
    resources_take(&x->before);
    spoke_mux_config_init(&config);
    config.even = config.pass_fds = true;
    cr_assert_eq(spoke_engine_open(&x->e, NULL), 0);
    cr_assert_eq(spoke_stream_listen(&l, url, NULL, x->e), 0);
    y->peer.idle = drive;
    y->peer.idle_ctx = x->e;
    cr_assert_eq(shm_peer_dial(&y->peer, endpoint_path(url), 0x7f01, SHM_RING, 0), 0);
    cr_assert_eq(spoke_stream_accept(l, &carrier, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_listener_close(l), 0);
    cr_assert_eq(spoke_mux_open(&x->m, carrier, &config), 0);
    lines_open(&x->lines, 600);
    put(y, 1, "0000000000010000");
    put(y, 0, PREFACE_PASSES);
    put(y, 0, "01 01 808004");
    shm_peer_publish(&y->peer);
    while (spoke_mux_accept(x->m, &x->s, NULL, SPOKE_NOW) == SPOKE_EAGAIN)
        fds_drive(x->e);
    cr_assert(info_of(x).passes_fds);
    x->fd = dup(y->peer.fd);
}

static void
shm_expect_end(struct shm_raw *y, int code)
{
    shm_peer_publish(&y->peer);
    while (info_of(&y->x).is_open)
        fds_drive(y->x.e);
    shm_peer_close(&y->peer);
    expect_end(&y->x, code);
}

Test(fds_rules, in_shared_memory)
{
    struct shm_raw y;

    /* As it should be, also if the descriptors come much sooner. */
    shm_raw_open(&y);
    put_fds(&y, 2);
    put_fds(&y, 1);
    for (int i = 0; i < 3; i++)
        fds_drive(y.x.e);
    put(&y, 5, "02 0d 01 02 0001 61");
    put(&y, 5, "01 0d 01 01 0002 62");
    put(&y, 0, "63");
    shm_peer_publish(&y.peer);
    expect_pieces(y.x.e, y.x.s, "abc", (int[]){0, 0, 1}, 3);
    put(&y, 5, "01 0d 01 01 0001 64"); /* there are none */
    shm_expect_end(&y, SPOKE_EPROTO);

    shm_raw_open(&y); /* others than the message says */
    put_fds(&y, 2);
    put(&y, 5, "01 0d 01 01 0001 61");
    shm_expect_end(&y, SPOKE_EPROTO);

    shm_raw_open(&y); /* … or the mux's word */
    put_fds(&y, 2);
    put(&y, 5, "02 0d 01 01 0001 61");
    shm_expect_end(&y, SPOKE_EPROTO);

    shm_raw_open(&y); /* not at the word's first byte */
    put_fds(&y, 1);
    put(&y, 0, "0d");
    put(&y, 5, "01 01 01 0001 61");
    shm_expect_end(&y, SPOKE_EPROTO);

    shm_raw_open(&y); /* no bytes */
    put_fds(&y, 1);
    put(&y, 5, "01");
    shm_expect_end(&y, SPOKE_EPROTO);

    shm_raw_open(&y); /* a byte of the socket that brings none */
    cr_assert_eq(send(y.peer.fd, "", 1, MSG_NOSIGNAL), 1);
    shm_expect_end(&y, SPOKE_EPROTO);

    shm_raw_open(&y); /* descriptors without end */
    for (int i = 0; i < 103; i++)
        put_fds(&y, 5);
    shm_expect_end(&y, SPOKE_EPROTO);

    shm_raw_open(&y); /* it goes, and some of them are still on their way */
    for (int i = 0; i < 10; i++)
        put_fds(&y, 3);
    put(&y, 5, "03 0d 01 03 0001 61");
    shm_peer_publish(&y.peer);
    close(y.x.fd);
    shm_peer_close(&y.peer);
    y.x.fd = dup(0);
    expect_end(&y.x, SPOKE_ECONNRESET);
}

/* A good conversation, one byte of which is another: it ends or goes on, and nothing is left. */
Test(fds_rules, every_byte_changed)
{
    static const char *const words[] = {"03 01 0001 61", "0d 01 02 0002 6263",
                                        "0b 0102030405060708", "0d 01 01 0001 64", "06 01"};
    static const int sets[] = {0, 2, 0, 1, 0};

    for (int word = 0; word < 5; word++) {
        uint8_t right[64];
        size_t size = hex_bytes(words[word], right, sizeof right);

        for (size_t at = 0; at < size; at++) {
            for (int value = (int)at; value < 256; value += 37 * SPOKE_TEST_SLOWDOWN) {
                struct raw x;

                raw_open(&x);
                for (int i = 0; i < 5; i++) {
                    uint8_t bytes[64];
                    size_t n = hex_bytes(words[i], bytes, sizeof bytes);

                    if (i == word)
                        bytes[at] = (uint8_t)value;
                    say_bytes(&x, bytes, n, x.lines.ends, sets[i]);
                }
                for (int i = 0; i < 3; i++) {
                    struct taken in;

                    cr_assert_geq(spoke_engine_poll(x.e, SPOKE_NOW), 0);
                    if (try_take(x.s, &in))
                        taken_close(&in);
                }
                raw_close(&x);
            }
        }
    }
}
