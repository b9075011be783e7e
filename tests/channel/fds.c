/* SPDX-License-Identifier: MIT */
/* Descriptors in messages, where the session passes them: each comes with its message, whole and
 * in order, and what nobody takes is closed.  Other processes: fds_processes.c. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/stream/conn.h"
#include "tests/channel/sessions.h"
#include "tests/support/resources.h"

static const enum over passing[] = {OVER_PAIR, OVER_IPC, OVER_SHM, OVER_INPROC};
#define PASSING (sizeof passing / sizeof passing[0])

/* Two sessions and a channel, and what there was before. */
struct place {
    struct resources before;
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;
};

static void
begin(struct place *p, enum over over, const spoke_session_config *config)
{
    sessions_open(&p->x, over, config);
    open_channel(&p->x, p->x.a, p->x.b, &p->tx, &p->rx, NULL);
    must_send(p->tx, "both are there");
    receive_text(p->rx, "both are there");
}

static void
finish(struct place *p)
{
    cr_assert_eq(spoke_sender_close(p->tx), 0);
    cr_assert_eq(spoke_receiver_close(p->rx), 0);
    sessions_close(&p->x);
}

/* What the shared engine starts with stays. */
static void
warm_up(enum over over, const spoke_session_config *config)
{
    struct place p;

    begin(&p, over, config);
    finish(&p);
}

static void
place_open(struct place *p, enum over over, const spoke_session_config *config)
{
    warm_up(over, config);
    resources_take(&p->before);
    begin(p, over, config);
}

static void
place_close(struct place *p)
{
    finish(p);
    resources_settle(&p->before);
}

static struct spoke_session_info
info_of(spoke_session *ss)
{
    struct spoke_session_info info;

    cr_assert_eq(spoke_session_get_info(ss, &info), 0);
    return info;
}

static void
attach(spoke_msg *m, int fd)
{
    int rc = spoke_msg_attach_fd(m, fd, SPOKE_ATTACHED_BOTH);

    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
}

static int
take(spoke_msg *m, size_t i)
{
    int fd, rc = spoke_msg_take_fd(m, i, &fd);

    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_neq(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    return fd;
}

static void
send_message(spoke_sender *tx, spoke_msg *m)
{
    int rc = spoke_sender_send(tx, m, SPOKE_FOREVER);

    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
}

/* Writing ends of one pipe: its reading end ends when no copy is left. */
struct line {
    int listener, end;
};

static void
line_open(struct line *l)
{
    int ends[2];

    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    *l = (struct line){ends[0], ends[1]};
}

static int
line_copy(const struct line *l)
{
    int fd = fcntl(l->end, F_DUPFD_CLOEXEC, 3);

    cr_assert_geq(fd, 0);
    return fd;
}

/* Waits until all are. */
static void
line_is_closed(struct line *l)
{
    char byte;

    close(l->end);
    cr_assert_eq(read(l->listener, &byte, 1), 0);
    close(l->listener);
}

/* ---- in order ---- */

#define MESSAGES 240

static size_t
size_of(int i)
{
    static const size_t sizes[] = {0, 5, 3000, 5000, 100000, 1};

    return sizes[i % 6];
}

static int
fds_of(int i)
{
    return i % 3 == 1 ? 1 + i % 4 : 0;
}

static spoke_msg *
numbered(int i)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_new(&m, size_of(i)), 0);
    memset(spoke_msg_body(m), i, size_of(i));
    for (int k = 0; k < fds_of(i); k++)
        attach(m, eventfd((unsigned)(i * 8 + k + 1), EFD_CLOEXEC));
    return m;
}

static void
check_numbered(spoke_msg *m, int i)
{
    const uint8_t *body = spoke_msg_body(m);

    cr_assert_eq(spoke_msg_size(m), size_of(i), "message %d", i);
    for (size_t k = 0; k < size_of(i); k++)
        cr_assert_eq(body[k], (uint8_t)i);
    cr_assert_eq(spoke_msg_attachments(m), (size_t)fds_of(i));
    for (int k = fds_of(i) - 1; k >= 0; k--) {
        int fd = take(m, (size_t)k);
        eventfd_t value;

        cr_assert_eq(eventfd_read(fd, &value), 0);
        cr_assert_eq(value, (eventfd_t)(i * 8 + k + 1), "another message's descriptor");
        close(fd);
    }
    spoke_msg_free(m);
}

/* libchan: TestSendSegmenting, TestSendEmpty, TestSendLarge. */
Test(channel_fds, each_comes_with_its_message)
{
    for (size_t over = 0; over < PASSING; over++) {
        struct place p;
        int fds = 0;

        place_open(&p, passing[over], NULL);
        for (int i = 0; i < MESSAGES; i += 20) {
            for (int k = i; k < i + 20; k++)
                send_message(p.tx, numbered(k));
            for (int k = i; k < i + 20; k++)
                check_numbered(receive(p.rx), k);
        }
        for (int i = 0; i < MESSAGES; i++)
            fds += fds_of(i);
        cr_assert_eq(info_of(p.x.a).fds_out, (uint64_t)fds);
        cr_assert_eq(info_of(p.x.b).fds_in, (uint64_t)fds);
        cr_assert(info_of(p.x.a).mux.passes_fds);
        place_close(&p);
    }
}

/* More than may be out at a time, on two channels, and 64 in each message. */
Test(channel_fds, more_than_may_be_out)
{
    for (size_t over = 0; over < PASSING; over++) {
        struct place p;
        struct line l;
        spoke_sender *tx;
        spoke_receiver *rx;

        place_open(&p, passing[over], NULL);
        open_channel(&p.x, p.x.b, p.x.a, &tx, &rx, NULL);
        line_open(&l);
        for (int i = 0; i < 20; i++) {
            for (int k = 0; k < 2; k++) {
                spoke_msg *m = text_message("many");

                for (int n = 0; n < SPOKE_ATTACHMENTS_PER_MESSAGE; n++)
                    attach(m, line_copy(&l));
                send_message(k == 0 ? p.tx : tx, m);
            }
        }
        for (int i = 0; i < 20; i++) {
            for (int k = 0; k < 2; k++) {
                spoke_msg *m = receive(k == 0 ? p.rx : rx);

                cr_assert_eq(spoke_msg_attachments(m), SPOKE_ATTACHMENTS_PER_MESSAGE);
                spoke_msg_free(m);
            }
        }
        line_is_closed(&l);
        cr_assert_eq(spoke_sender_close(tx), 0);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        place_close(&p);
    }
}

/* With channels and streams in one message, whose places are kept. */
Test(channel_fds, beside_channels_and_streams)
{
    for (size_t over = 0; over < PASSING; over++) {
        struct place p;
        spoke_sender *inner_tx;
        spoke_receiver *inner_rx;
        spoke_stream *mine, *theirs;
        spoke_msg *m = text_message("all");
        eventfd_t value;
        size_t done;
        char byte;
        int fd;

        place_open(&p, passing[over], NULL);
        cr_assert_eq(spoke_channel_pair(&inner_rx, &inner_tx, NULL, NULL), 0);
        cr_assert_eq(spoke_stream_pair(&mine, &theirs, NULL, NULL), 0);
        attach(m, eventfd(1, EFD_CLOEXEC));
        cr_assert_eq(spoke_msg_attach_sender(m, inner_tx), 0);
        attach(m, eventfd(2, EFD_CLOEXEC));
        cr_assert_eq(spoke_msg_attach_stream(m, theirs, SPOKE_ATTACHED_BOTH), 0);
        send_message(p.tx, m);
        m = receive(p.rx);
        for (size_t i = 0; i < 2; i++) {
            fd = take(m, 2 * i);
            cr_assert_eq(eventfd_read(fd, &value), 0);
            cr_assert_eq(value, i + 1);
            close(fd);
        }
        cr_assert_eq(spoke_msg_take_sender(m, 1, &inner_tx), 0);
        cr_assert_eq(spoke_msg_take_stream(m, 3, &theirs), 0);
        spoke_msg_free(m);
        must_send(inner_tx, "in");
        receive_text(inner_rx, "in");
        cr_assert_eq(spoke_stream_write(theirs, "s", 1, &done), 0);
        cr_assert_eq(spoke_stream_read(mine, &byte, 1, &done), 0);
        cr_assert_eq(spoke_stream_close(mine), 0);
        cr_assert_eq(spoke_stream_close(theirs), 0);
        cr_assert_eq(spoke_sender_close(inner_tx), 0);
        cr_assert_eq(spoke_receiver_close(inner_rx), 0);
        place_close(&p);
    }
}

/* libchan: TestSendUnixSocket.  Both ends of a pair of sockets go over two sessions. */
Test(channel_fds, two_ends_still_talk_to_each_other)
{
    struct place p[2];
    int ends[2], got[2];
    char text[6];

    warm_up(OVER_SHM, NULL);
    place_open(&p[0], OVER_IPC, NULL);
    place_open(&p[1], OVER_SHM, NULL);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    for (int i = 0; i < 2; i++) {
        spoke_msg *m = text_message("an end");

        attach(m, ends[i]);
        send_message(p[i].tx, m);
    }
    for (int i = 0; i < 2; i++) {
        spoke_msg *m = receive(p[i].rx);

        got[i] = take(m, 0);
        spoke_msg_free(m);
    }
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(write(got[i], "hello", 5), 5);
        cr_assert_eq(recv(got[!i], text, 5, MSG_WAITALL), 5);
        cr_assert_arr_eq(text, "hello", 5);
    }
    close(got[0]);
    cr_assert_eq(read(got[1], text, 1), 0, "a copy is left");
    close(got[1]);
    place_close(&p[1]);
    place_close(&p[0]);
}

/* ---- where they cannot pass ---- */

static void
check_proxies(struct place *p)
{
    spoke_msg *m = text_message("no stream");
    spoke_attachment a;
    int ends[2];
    char byte;

    cr_assert(!info_of(p->x.a).mux.passes_fds);
    attach(m, eventfd(0, EFD_CLOEXEC));
    cr_assert_eq(spoke_sender_send(p->tx, m, SPOKE_FOREVER), SPOKE_ENOTSUP);
    cr_assert_eq(spoke_msg_attachments(m), 1);
    close(take(m, 0));
    spoke_msg_free(m);
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    m = text_message("a stream");
    cr_assert_eq(spoke_msg_attach_fd(m, ends[0], SPOKE_ATTACHED_READS), 0);
    send_message(p->tx, m);
    m = receive(p->rx);
    cr_assert_eq(spoke_msg_attachment(m, 0, &a), 0);
    cr_assert_eq(a.kind, SPOKE_ATTACHED_STREAM + 2);
    ends[0] = take(m, 0);
    spoke_msg_free(m);
    cr_assert_eq(write(ends[1], "x", 1), 1);
    cr_assert_eq(read(ends[0], &byte, 1), 1);
    close(ends[1]);
    cr_assert_eq(read(ends[0], &byte, 1), 0);
    close(ends[0]);
    cr_assert_eq(info_of(p->x.a).fds_out, 0);
    cr_assert_eq(info_of(p->x.b).fds_in, 0);
}

Test(channel_fds, over_tcp_streams_take_their_places)
{
    struct place p;

    place_open(&p, OVER_TCP, NULL);
    check_proxies(&p);
    place_close(&p);
}

Test(channel_fds, nobody_wants_any)
{
    spoke_session_config config;
    spoke_msg *m = text_message("");
    struct place p;
    int fd = eventfd(0, EFD_CLOEXEC);

    spoke_session_config_init(&config);
    config.take_fds = false;
    place_open(&p, OVER_IPC, &config);
    check_proxies(&p);
    place_close(&p);
    config.proxy_fds = false;
    place_open(&p, OVER_IPC, &config);
    attach(m, fd);
    cr_assert_eq(spoke_sender_send(p.tx, m, SPOKE_FOREVER), SPOKE_ENOTSUP);
    cr_assert_eq(take(m, 0), fd);
    spoke_msg_free(m);
    place_close(&p);
    close(fd);
}

/* A closed one is found before the message is taken. */
Test(channel_fds, a_number_that_is_none)
{
    struct place p;
    spoke_msg *m = text_message("");
    int fd = eventfd(0, EFD_CLOEXEC);

    place_open(&p, OVER_IPC, NULL);
    attach(m, fd);
    close(fd);
    cr_assert_eq(spoke_sender_send(p.tx, m, SPOKE_FOREVER), SPOKE_EINVAL);
    cr_assert_eq(spoke_msg_take_fd(m, 0, &fd), 0);
    spoke_msg_free(m);
    must_send(p.tx, "the channel lives");
    receive_text(p.rx, "the channel lives");
    place_close(&p);
}

/* ---- nobody takes them ---- */

static void
send_copies(spoke_sender *tx, const struct line *l, int messages, int each)
{
    for (int i = 0; i < messages; i++) {
        spoke_msg *m = text_message("unclaimed");

        for (int k = 0; k < each; k++)
            attach(m, line_copy(l));
        send_message(tx, m);
    }
}

Test(channel_fds, unclaimed_ones_are_closed)
{
    for (size_t over = 0; over < PASSING; over++) {
        struct place p;
        struct line l;

        place_open(&p, passing[over], NULL);
        line_open(&l);
        send_copies(p.tx, &l, 10, 3);
        for (int i = 0; i < 10; i++) {
            spoke_msg *m = receive(p.rx);

            close(take(m, 1));
            spoke_msg_free(m);
        }
        line_is_closed(&l);
        place_close(&p);
    }
}

/* The receiver, and then either session, goes with some on their way. */
Test(channel_fds, nobody_is_there_any_more)
{
    for (size_t over = 0; over < PASSING; over++) {
        for (int how = 0; how < 4; how++) {
            struct place p;
            struct line l;

            place_open(&p, passing[over], NULL);
            line_open(&l);
            send_copies(p.tx, &l, 40, 20); /* some wait at each place */
            if (how == 0)
                cr_assert_eq(spoke_receiver_close(p.rx), 0);
            else if (how == 1)
                cr_assert_eq(spoke_session_close(p.x.a, 0), 0);
            else if (how == 2)
                cr_assert_eq(spoke_session_close(p.x.b, 0), 0);
            else
                cr_assert_eq(spoke_sender_abort(p.tx, 99, "enough"), 0);
            if (how != 0) /* what had come is the receiver's */
                cr_assert_eq(spoke_receiver_close(p.rx), 0);
            line_is_closed(&l);
            place_close(&p);
        }
    }
}

/* ---- two sessions ---- */

/* From p's sender over both sessions: the receiver of p is given away over q. */
static spoke_receiver *
behind_both(struct place *p, struct place *q)
{
    spoke_msg *m = text_message("go on here");
    spoke_receiver *rx;

    cr_assert_eq(spoke_msg_attach_receiver(m, p->rx), 0);
    send_message(q->tx, m);
    m = receive(q->rx);
    cr_assert_eq(spoke_msg_take_receiver(m, 0, &rx), 0);
    spoke_msg_free(m);
    return rx;
}

Test(channel_fds, over_two_sessions)
{
    struct place p, q;
    spoke_receiver *rx;

    warm_up(OVER_SHM, NULL);
    place_open(&p, OVER_IPC, NULL);
    place_open(&q, OVER_SHM, NULL);
    rx = behind_both(&p, &q);
    for (int i = 0; i < MESSAGES; i += 20) {
        for (int k = i; k < i + 20; k++)
            send_message(p.tx, numbered(k));
        for (int k = i; k < i + 20; k++)
            check_numbered(receive(rx), k);
    }
    cr_assert_eq(info_of(q.x.b).fds_in, info_of(p.x.a).fds_out);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    place_close(&q);
    place_close(&p);
}

/* The second one passes none: a pipe becomes a stream there, what cannot be one ends the channel,
 * and both ends hear of it. */
Test(channel_fds, over_one_that_passes_and_one_that_does_not)
{
    struct spoke_channel_info info;
    struct place p, q;
    spoke_receiver *rx;
    spoke_msg *m = text_message("a pipe");
    struct line l;
    int fd, rc;

    place_open(&p, OVER_IPC, NULL);
    place_open(&q, OVER_TCP, NULL);
    rx = behind_both(&p, &q);
    line_open(&l);
    cr_assert_eq(spoke_msg_attach_fd(m, line_copy(&l), SPOKE_ATTACHED_WRITES), 0);
    send_message(p.tx, m);
    m = receive(rx);
    fd = take(m, 0);
    spoke_msg_free(m);
    close(fd);
    line_is_closed(&l);
    m = text_message("an eventfd");
    attach(m, eventfd(0, EFD_CLOEXEC));
    send_message(p.tx, m);
    receive_end(rx, SPOKE_EABORTED);
    cr_assert_eq(spoke_receiver_get_info(rx, &info), 0);
    cr_assert_eq(info.abort_code, SPOKE_MUX_UNSUPPORTED);
    do {
        m = text_message("x");
        if ((rc = spoke_sender_send(p.tx, m, SPOKE_FOREVER)) != 0)
            spoke_msg_free(m);
    } while (rc == 0);
    cr_assert_eq(rc, SPOKE_EABORTED, "%s", spoke_error_name(rc));
    cr_assert_eq(spoke_sender_get_info(p.tx, &info), 0);
    cr_assert_eq(info.abort_code, SPOKE_MUX_UNSUPPORTED);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    place_close(&q);
    place_close(&p);
}

/* A copy tells, and leaves it where it was. */
Test(channel_fds, a_copy_to_where_it_cannot_go)
{
    struct place p, q;
    spoke_msg *m = text_message("before");
    uint64_t count;
    int fd;

    place_open(&p, OVER_IPC, NULL);
    place_open(&q, OVER_TCP, NULL);
    send_message(p.tx, m);
    m = text_message("an eventfd");
    attach(m, eventfd(0, EFD_CLOEXEC));
    send_message(p.tx, m);
    cr_assert_eq(spoke_channel_copy(q.tx, p.rx, &count, SPOKE_FOREVER), SPOKE_ENOTSUP);
    cr_assert_eq(count, 1);
    receive_text(q.rx, "before");
    m = receive(p.rx);
    fd = take(m, 0);
    spoke_msg_free(m);
    close(fd);
    place_close(&q);
    place_close(&p);
}

/* ---- peers that break the rules ---- */

#define SENDS  "\xa2\x00\x01\x03\x01"
#define ACCEPT 20 /* bytes */

struct hostile {
    struct resources before;
    spoke_session *ss;
    spoke_mux *peer;
    struct line l;
};

static void
hostile_open(struct hostile *h)
{
    spoke_session_config config;
    spoke_mux_config bare;
    spoke_stream *a, *b;

    warm_up(OVER_PAIR, NULL);
    resources_take(&h->before);
    spoke_session_config_init(&config);
    config.mux.even = true;
    spoke_mux_config_init(&bare);
    bare.pass_fds = true;
    cr_assert_eq(spoke_stream_pair(&a, &b, NULL, NULL), 0);
    cr_assert_eq(spoke_session_open(&h->ss, a, &config), 0);
    cr_assert_eq(spoke_mux_open(&h->peer, b, &bare), 0);
    line_open(&h->l);
}

static void
hostile_close(struct hostile *h)
{
    line_is_closed(&h->l);
    cr_assert_eq(spoke_session_close(h->ss, 0), 0);
    cr_assert_eq(spoke_mux_close(h->peer, 0), 0);
    resources_settle(&h->before);
}

/* A channel on which the peer sends. */
static spoke_stream *
hostile_channel(struct hostile *h, spoke_receiver **rx)
{
    spoke_stream *s;
    uint8_t accept[ACCEPT];
    size_t done;

    cr_assert_eq(spoke_mux_dial(h->peer, &s, SENDS, sizeof SENDS - 1, NULL, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_session_accept_receiver(h->ss, rx, NULL, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_read_full(s, accept, sizeof accept, &done), 0);
    return s;
}

/* Bytes, with so many descriptors at the first of them. */
static void
say_with(struct hostile *h, spoke_stream *s, const char *bytes, size_t size, int n)
{
    const struct iovec whole = {(void *)(uintptr_t)bytes, size};
    int fds[SPK_FDS_MOST];
    struct spk_conn *c;
    int64_t rc = 0;

    for (int i = 0; i < n; i++)
        fds[i] = line_copy(&h->l);
    cr_assert_eq(spk_conn_enter(s, &c), 0);
    rc = n > 0 ? spk_conn_try_write_fds(c, &whole, 1, fds, n) : spk_conn_try_write(c, &whole, 1);
    spk_engine_leave(c->e);
    cr_assert_eq(rc, (int64_t)size, "%s", spoke_error_name((int)rc));
}

#define HEAD(Attached, Size) "\x03\x00\x00" Attached "\x00\x00\x00" Size
#define FD(Index)            "\x03\x03\x00" Index "\x00\x00\x00\x00\x00\x00\x00\x00"
#define CLOSE                "\x06\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00"
#define SAID(Text)           Text, sizeof Text - 1

static const struct {
    const char *name;
    struct {
        const char *bytes;
        size_t size;
        int fds;
    } said[2];
} broken[] = {
    {"too few", {{SAID(HEAD("\x02", "\x00") FD("\x00") FD("\x01")), 1}}},
    {"too many", {{SAID(HEAD("\x01", "\x00") FD("\x00")), 2}}},
    {"with a message that has none", {{SAID(HEAD("\x00", "\x02") "hi"), 1}}},
    {"with a close", {{SAID(CLOSE), 1}}},
    {"inside a message", {{SAID(HEAD("\x00", "\x02") "h"), 0}, {SAID("i"), 1}}},
    {"inside a head", {{SAID("\x03\x00"), 0}, {SAID("\x00\x01\x00\x00\x00\x00" FD("\x00")), 1}}},
    {"a second set inside", {{SAID(HEAD("\x01", "\x00")), 1}, {SAID(FD("\x00")), 1}}},
    {"one twice", {{SAID(HEAD("\x02", "\x00") FD("\x00") FD("\x00")), 2}}},
    {"one twice, and not the other", {{SAID(HEAD("\x02", "\x00") FD("\x01") FD("\x01")), 2}}},
    {"an index behind the last", {{SAID(HEAD("\x01", "\x00") FD("\x01")), 1}}},
    {"an index of two bytes",
     {{SAID(HEAD("\x01", "\x00") "\x03\x03\x01\x00"
                                 "\x00\x00\x00\x00\x00\x00\x00\x00"),
       1}}},
    {"with the message before", {{SAID(HEAD("\x00", "\x00") HEAD("\x01", "\x00") FD("\x00")), 1}}},
    {"none", {{SAID(HEAD("\x01", "\x00") FD("\x00")), 0}}},
    {"none for the second",
     {{SAID(HEAD("\x01", "\x00") FD("\x00") HEAD("\x01", "\x00") FD("\x00")), 1}}},
    {"253", {{SAID(HEAD("\x40", "\x00")), SPK_FDS_MOST}}},
};

/* The last that is said is an Error with this code, and then comes a Reset. */
static void
hear_error(spoke_stream *s, const char *name)
{
    struct spoke_stream_info info;
    uint8_t heard[1024];
    size_t n = 0, done;
    int rc;

    while ((rc = spoke_stream_read(s, heard + n, sizeof heard - n, &done)) == 0)
        n += done;
    cr_assert_eq(rc, SPOKE_EABORTED, "%s: %s", name, spoke_error_name(rc));
    cr_assert_eq(spoke_stream_get_info(s, &info), 0);
    cr_assert_eq(info.abort_code, SPOKE_MUX_PROTOCOL, "%s", name);
    for (size_t at = 0; at + 12 <= n; at += 8 + (size_t)(heard[at + 6] << 8) + heard[at + 7]) {
        if (heard[at] == 7)
            return;
    }
    cr_assert_fail("%s: no error is said", name);
}

Test(channel_fds, of_peers_that_break_the_rules)
{
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        struct hostile h;
        spoke_receiver *rx, *other_rx;
        spoke_stream *s, *other;
        spoke_msg *m;
        int rc;

        hostile_open(&h);
        s = hostile_channel(&h, &rx);
        other = hostile_channel(&h, &other_rx);
        for (int k = 0; k < 2 && broken[i].said[k].bytes != NULL; k++)
            say_with(&h, s, broken[i].said[k].bytes, broken[i].said[k].size, broken[i].said[k].fds);
        hear_error(s, broken[i].name);
        while ((rc = spoke_receiver_recv(rx, &m, SPOKE_FOREVER)) == 0)
            spoke_msg_free(m);
        cr_assert_eq(rc, SPOKE_EPROTO, "%s: %s", broken[i].name, spoke_error_name(rc));
        /* The session goes on, with descriptors. */
        say_with(&h, other, SAID(HEAD("\x01", "\x02") FD("\x00") "hi"), 1);
        m = receive(other_rx);
        close(take(m, 0));
        spoke_msg_free(m);
        cr_assert_eq(info_of(h.ss).mux.fds_unread, 0);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        cr_assert_eq(spoke_receiver_close(other_rx), 0);
        cr_assert_eq(spoke_stream_close(s), 0);
        cr_assert_eq(spoke_stream_close(other), 0);
        hostile_close(&h);
    }
}

/* In pieces of one byte, with the first of which they come. */
Test(channel_fds, a_head_in_pieces)
{
    static const char said[] = HEAD("\x02", "\x02") FD("\x01") FD("\x00") "hi";
    struct hostile h;
    spoke_receiver *rx;
    spoke_stream *s;
    spoke_msg *m;

    hostile_open(&h);
    s = hostile_channel(&h, &rx);
    for (size_t i = 0; i < sizeof said - 1; i++)
        say_with(&h, s, said + i, 1, i == 0 ? 2 : 0);
    m = receive(rx);
    cr_assert_eq(spoke_msg_size(m), 2);
    close(take(m, 0));
    close(take(m, 1));
    spoke_msg_free(m);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_stream_close(s), 0);
    hostile_close(&h);
}
