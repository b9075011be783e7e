/* SPDX-License-Identifier: MIT */
/* What messages carry: attaching, looking, taking. */
#include "tests/channel/pair_fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocols/channel/channel.h"

static void
expect_attachment(const spoke_msg *m, size_t i, int kind, int direction)
{
    spoke_attachment a;

    expect_rc(spoke_msg_attachment(m, i, &a), 0);
    cr_assert_eq(a.kind, kind);
    cr_assert_eq(a.direction, direction);
}

static bool
is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* ---- each kind ---- */

WAY_TEST(channel_attach, every_kind_arrives, ways_real)
{
    struct yard y;
    spoke_sender *tx, *a_tx, *b_tx;
    spoke_receiver *rx, *a_rx, *b_rx;
    spoke_stream *s[2], *taken;
    spoke_msg *m;
    size_t done;
    int pipe_end, both, fd;
    char text[4];

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    pair(&y, 8, &a_tx, &a_rx);
    pair(&y, 8, &b_tx, &b_rx);
    expect_rc(spoke_stream_pair(&s[0], &s[1], NULL, y.e), 0);
    m = message("all");
    cr_assert_eq(spoke_msg_attachments(m), 0);
    expect_rc(spoke_msg_attach_sender(m, a_tx), 0);
    expect_rc(spoke_msg_attach_receiver(m, b_rx), 0);
    expect_rc(spoke_msg_attach_stream(m, s[1], SPOKE_ATTACHED_BOTH), 0);
    expect_rc(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_READS, &pipe_end), 0);
    expect_rc(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_BOTH, &both), 0);
    cr_assert_eq(spoke_msg_attachments(m), 5);
    /* What is attached is closed for who attached it. */
    expect_rc(send_text(a_tx, "x", SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(recv_nothing(b_rx, SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(spoke_stream_write(s[1], "x", 1, &done), SPOKE_ECLOSED);
    expect_rc(spoke_sender_close(a_tx), 0);
    expect_rc(spoke_receiver_close(b_rx), 0);
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);

    expect_rc(spoke_receiver_recv(rx, &m, SPOKE_NOW), 0);
    cr_assert(is_text(m, "all"));
    cr_assert_eq(spoke_msg_attachments(m), 5);
    expect_attachment(m, 0, SPOKE_ATTACHED_CHANNEL, SPOKE_ATTACHED_WRITES);
    expect_attachment(m, 1, SPOKE_ATTACHED_CHANNEL, SPOKE_ATTACHED_READS);
    expect_attachment(m, 2, SPOKE_ATTACHED_STREAM, SPOKE_ATTACHED_BOTH);
    expect_attachment(m, 3, SPOKE_ATTACHED_FD, SPOKE_ATTACHED_READS);
    expect_attachment(m, 4, SPOKE_ATTACHED_FD, SPOKE_ATTACHED_BOTH);
    expect_rc(spoke_msg_take_sender(m, 0, &a_tx), 0);
    expect_rc(spoke_msg_take_receiver(m, 1, &b_rx), 0);
    expect_rc(spoke_msg_take_stream(m, 2, &taken), 0);
    expect_attachment(m, 1, 0, SPOKE_ATTACHED_READS);
    expect_rc(send_text(a_tx, "by a", SPOKE_NOW), 0);
    expect_text(a_rx, "by a");
    expect_rc(send_text(b_tx, "by b", SPOKE_NOW), 0);
    expect_text(b_rx, "by b");
    expect_rc(spoke_stream_write(s[0], "in", 2, &done), 0);
    expect_rc(spoke_stream_read_full(taken, text, 2, &done), 0);
    expect_rc(spoke_msg_take_fd(m, 3, &fd), 0);
    cr_assert_eq(write(pipe_end, "pipe", 4), 4);
    cr_assert_eq(read(fd, text, 4), 4);
    cr_assert_eq(memcmp(text, "pipe", 4), 0);
    close(fd);
    close(pipe_end);
    expect_rc(spoke_msg_take_fd(m, 4, &fd), 0);
    cr_assert_eq(write(fd, "back", 4), 4);
    cr_assert_eq(read(both, text, 4), 4);
    close(fd);
    close(both);
    spoke_msg_free(m);
    expect_rc(send_text(a_tx, "still", SPOKE_NOW), 0); /* what was taken stays */
    expect_text(a_rx, "still");
    expect_rc(spoke_stream_close(taken), 0);
    expect_rc(spoke_stream_close(s[0]), 0);
    close_pair(a_tx, a_rx);
    close_pair(b_tx, b_rx);
    close_pair(tx, rx);
    yard_close(&y);
}

/* A pipe of which the recipient writes. */
Test(channel_attach, a_pipe_to_write_to)
{
    spoke_msg *m = message("write");
    int mine, theirs;
    char c;

    expect_rc(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_WRITES, &mine), 0);
    cr_assert_eq(fcntl(mine, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    expect_rc(spoke_msg_take_fd(m, 0, &theirs), 0);
    cr_assert_eq(write(theirs, "!", 1), 1);
    cr_assert_eq(read(mine, &c, 1), 1);
    close(theirs);
    cr_assert_eq(read(mine, &c, 1), 0);
    close(mine);
    spoke_msg_free(m);
}

static bool
is_readable(void *fd)
{
    struct pollfd p = {.fd = *(int *)fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

/* A stream taken as a descriptor: a pair of sockets, with the stream behind it. */
WAY_TEST(channel_attach, a_stream_taken_as_a_descriptor, ways_real)
{
    struct yard y;
    spoke_stream *s[2];
    spoke_msg *m;
    size_t done;
    int fd, twice;
    char text[4];

    yard_open(&y, *way);
    expect_rc(spoke_stream_pair(&s[0], &s[1], NULL, y.e), 0);
    m = message("");
    expect_rc(spoke_msg_attach_stream(m, s[1], SPOKE_ATTACHED_BOTH), 0);
    expect_rc(spoke_msg_take_fd(m, 0, &fd), 0);
    expect_rc(spoke_msg_take_fd(m, 0, &twice), SPOKE_ESTATE);
    cr_assert_eq(twice, -1);
    spoke_msg_free(m);
    expect_rc(spoke_stream_write(s[0], "ping", 4, &done), 0);
    yard_until(&y, is_readable, &fd);
    cr_assert_eq(read(fd, text, 4), 4);
    cr_assert_eq(memcmp(text, "ping", 4), 0);
    cr_assert_eq(write(fd, "pong", 4), 4);
    expect_rc(spoke_stream_read_full(s[0], text, 4, &done), 0);
    cr_assert_eq(memcmp(text, "pong", 4), 0);
    expect_rc(spoke_stream_close_write(s[0]), 0);
    yard_until(&y, is_readable, &fd);
    cr_assert_eq(read(fd, text, 4), 0);
    close(fd);
    expect_rc(spoke_stream_read_full(s[0], text, 1, &done), SPOKE_EOF);
    expect_rc(spoke_stream_close(s[0]), 0);
    yard_close(&y);
}

/* ---- what cannot be ---- */

WAY_TEST(channel_attach, taking_what_is_not_there, ways_real)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_stream *s;
    spoke_attachment a;
    spoke_msg *m, *other;
    int fd, end;

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    m = message("");
    expect_rc(spoke_msg_take_sender(m, 0, &tx), SPOKE_ENOENT);
    cr_assert_null(tx);
    expect_rc(spoke_receiver_close(rx), 0);
    spoke_msg_free(m);

    yard_settle(&y);
    m = message("");
    pair(&y, 8, &tx, &rx);
    expect_rc(spoke_msg_attach_sender(m, tx), 0);
    expect_rc(spoke_msg_attach_receiver(m, rx), 0);
    expect_rc(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_READS, &end), 0);
    expect_rc(spoke_msg_take_sender(m, 1, &tx), SPOKE_EDIR);
    expect_rc(spoke_msg_take_sender(m, 2, &tx), SPOKE_EDIR);
    expect_rc(spoke_msg_take_receiver(m, 0, &rx), SPOKE_EDIR);
    expect_rc(spoke_msg_take_stream(m, 0, &s), SPOKE_EDIR);
    expect_rc(spoke_msg_take_stream(m, 2, &s), SPOKE_EDIR);
    expect_rc(spoke_msg_take_fd(m, 1, &fd), SPOKE_EDIR);
    expect_rc(spoke_msg_take_sender(m, 3, &tx), SPOKE_ENOENT);
    expect_rc(spoke_msg_take_fd(m, SIZE_MAX, &fd), SPOKE_ENOENT);
    expect_rc(spoke_msg_attachment(m, 3, &a), SPOKE_ENOENT);
    expect_rc(spoke_msg_attachment(m, 0, NULL), SPOKE_EINVAL);
    expect_rc(spoke_msg_take_sender(m, 0, NULL), SPOKE_EINVAL);
    expect_rc(spoke_msg_take_receiver(m, 1, NULL), SPOKE_EINVAL);
    expect_rc(spoke_msg_take_stream(m, 0, NULL), SPOKE_EINVAL);
    expect_rc(spoke_msg_take_fd(m, 2, NULL), SPOKE_EINVAL);
    other = spoke_msg_dup(m);
    expect_rc(spoke_msg_take_sender(m, 0, &tx), SPOKE_ESHARED);
    cr_assert_null(tx);
    expect_rc(spoke_msg_take_fd(m, 2, &fd), SPOKE_ESHARED);
    spoke_msg_free(other);
    expect_rc(spoke_msg_take_sender(m, 0, &tx), 0);
    expect_rc(spoke_msg_take_receiver(m, 1, &rx), 0);
    expect_rc(spoke_msg_take_fd(m, 2, &fd), 0);
    close_pair(tx, rx);
    close(fd);
    close(end);
    expect_rc(spoke_msg_take_sender(m, 0, &tx), SPOKE_ESTATE);
    expect_rc(spoke_msg_take_receiver(m, 1, &rx), SPOKE_ESTATE);
    expect_rc(spoke_msg_take_stream(m, 0, &s), SPOKE_ESTATE);
    expect_rc(spoke_msg_take_fd(m, 2, &fd), SPOKE_ESTATE);
    cr_assert_eq(spoke_msg_attachments(m), 3, "taken ones count");
    spoke_msg_free(m);
    yard_close(&y);
}

WAY_TEST(channel_attach, attaching_what_cannot_be, ways_real)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_stream *s[2];
    spoke_msg *m, *other;
    int end, fds[2], before;

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    expect_rc(spoke_stream_pair(&s[0], &s[1], NULL, y.e), 0);
    m = message("");
    expect_rc(spoke_msg_attach_sender(NULL, tx), SPOKE_EINVAL);
    expect_rc(spoke_msg_attach_sender(m, NULL), SPOKE_EINVAL);
    expect_rc(spoke_msg_attach_receiver(m, NULL), SPOKE_EINVAL);
    expect_rc(spoke_msg_attach_stream(m, NULL, SPOKE_ATTACHED_BOTH), SPOKE_EINVAL);
    expect_rc(spoke_msg_attach_stream(m, s[0], 0), SPOKE_EINVAL);
    expect_rc(spoke_msg_attach_stream(m, s[0], 4), SPOKE_EINVAL);
    expect_rc(spoke_msg_attach_fd(m, -1, SPOKE_ATTACHED_READS), SPOKE_EBADF);
    expect_rc(spoke_msg_attach_fd(m, 999999, SPOKE_ATTACHED_READS), SPOKE_EBADF);
    expect_rc(spoke_msg_attach_fd(m, 0, 0), SPOKE_EINVAL);
    expect_rc(spoke_msg_attach_pipe(m, 0, &end), SPOKE_EINVAL);
    cr_assert_eq(end, -1);
    expect_rc(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_READS, NULL), SPOKE_EINVAL);
    cr_assert_eq(pipe(fds), 0);
    before = open_descriptors();
    other = spoke_msg_dup(m);
    expect_rc(spoke_msg_attach_sender(m, tx), SPOKE_ESHARED);
    expect_rc(spoke_msg_attach_stream(m, s[0], SPOKE_ATTACHED_BOTH), SPOKE_ESHARED);
    expect_rc(spoke_msg_attach_fd(m, fds[0], SPOKE_ATTACHED_READS), SPOKE_ESHARED);
    expect_rc(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_READS, &end), SPOKE_ESHARED);
    spoke_msg_free(other);
    cr_assert_eq(open_descriptors(), before);

    for (int i = 0; i < SPOKE_ATTACHMENTS_PER_MESSAGE; i++)
        expect_rc(spoke_msg_attach_fd(m, dup(fds[0]), SPOKE_ATTACHED_READS), 0);
    expect_rc(spoke_msg_attach_fd(m, fds[0], SPOKE_ATTACHED_READS), SPOKE_ELIMIT);
    expect_rc(spoke_msg_attach_sender(m, tx), SPOKE_ELIMIT);
    expect_rc(spoke_msg_attach_stream(m, s[0], SPOKE_ATTACHED_BOTH), SPOKE_ELIMIT);
    expect_rc(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_READS, &end), SPOKE_ELIMIT);
    cr_assert(is_open(fds[0]), "it is the caller's");
    expect_rc(send_text(tx, "so is this", SPOKE_NOW), 0);
    expect_text(rx, "so is this");
    spoke_msg_free(m);
    cr_assert_eq(open_descriptors(), before);
    close(fds[0]);
    close(fds[1]);
    expect_rc(spoke_stream_close(s[0]), 0);
    expect_rc(spoke_stream_close(s[1]), 0);
    close_pair(tx, rx);
    yard_close(&y);
}

static void
never_called(spoke_receiver *rx, void *ctx)
{
    (void)rx;
    (void)ctx;
}

static void
attach_while_it_waits(void *ctx)
{
    void **at = ctx;

    *(int *)at[2] = spoke_msg_attach_receiver(at[1], at[0]);
    (void)spoke_receiver_close(at[0]);
}

WAY_TEST(channel_attach, what_is_in_use_is_busy, ways_real)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m;
    struct later *later;
    int rc = 0;

    yard_open(&y, *way);
    m = message("");
    pair(&y, 8, &tx, &rx);
    expect_rc(spoke_receiver_on_ready(rx, never_called, NULL), 0);
    expect_rc(spoke_msg_attach_receiver(m, rx), SPOKE_EBUSY);
    expect_rc(spoke_receiver_on_ready(rx, NULL, NULL), 0);
    cr_assert_geq(spoke_sender_fd(tx), 0);
    expect_rc(spoke_msg_attach_sender(m, tx), SPOKE_EBUSY);
    void *at[] = {rx, m, &rc};
    later = yard_later(&y, rx, attach_while_it_waits, at);
    expect_rc(recv_nothing(rx, SOON(&y)), SPOKE_ECLOSED);
    yard_joined(later);
    expect_rc(rc, SPOKE_EBUSY);
    cr_assert_eq(spoke_msg_attachments(m), 0);
    spoke_msg_free(m);
    expect_rc(spoke_sender_close(tx), 0);
    yard_close(&y);
}

/* Those that have been taken do not count. */
Test(channel_attach, one_engine_for_all_that_is_attached)
{
    struct yard y;
    spoke_engine *second;
    spoke_sender *tx, *other_tx;
    spoke_receiver *rx, *other_rx;
    spoke_msg *m;

    yard_open(&y, OWNED);
    expect_rc(spoke_engine_open(&second, NULL), 0);
    pair(&y, 8, &tx, &rx);
    expect_rc(spoke_channel_pair(&other_rx, &other_tx, NULL, second), 0);
    m = message("");
    expect_rc(spoke_msg_attach_sender(m, tx), 0);
    expect_rc(spoke_msg_attach_sender(m, other_tx), SPOKE_EINVAL);
    expect_rc(spoke_msg_take_sender(m, 0, &tx), 0);
    expect_rc(spoke_msg_attach_sender(m, other_tx), 0);
    expect_rc(spoke_msg_attach_receiver(m, rx), SPOKE_EINVAL);
    spoke_msg_free(m);
    spoke_ns deadline = spoke_engine_now(second) + PATIENCE;
    expect_rc(recv_nothing(other_rx, deadline), SPOKE_EOF);
    expect_rc(spoke_engine_close(second), 0);
    close_pair(tx, rx);
    yard_close(&y);
}

/* ---- copies ---- */

WAY_TEST(channel_attach, a_copy_has_none, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m, *copy;

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    m = message("text");
    expect_rc(spoke_msg_attach_sender(m, tx), 0);
    copy = spoke_msg_dup(m);
    cr_assert_eq(spoke_msg_attachments(copy), 1, "it is the same message");
    expect_rc(spoke_msg_make_unique(&copy), 0);
    cr_assert_neq(copy, m);
    cr_assert_eq(spoke_msg_attachments(copy), 0);
    spoke_msg_free(copy);
    cr_assert_eq(spoke_msg_attachments(m), 1);
    expect_rc(spoke_msg_make_unique(&m), 0);
    expect_rc(spoke_msg_take_sender(m, 0, &tx), 0);
    spoke_msg_free(m);
    expect_rc(send_text(tx, "x", SPOKE_NOW), 0);
    expect_text(rx, "x");
    close_pair(tx, rx);
    yard_close(&y);
}

/* ---- sockets and streams have no way for them ---- */

WAY_TEST(channel_attach, sockets_and_streams_refuse, ways)
{
    static const int patterns[] = {SPOKE_PAIR, SPOKE_PUB, SPOKE_PUSH, SPOKE_REQ};
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_stream *stream[2];
    spoke_msg *m, *plain[3];
    size_t done;

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    m = message("text");
    expect_rc(spoke_msg_attach_sender(m, tx), 0);
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        spoke_context *context;
        spoke_socket *s;

        expect_rc(spoke_socket_open(&s, patterns[i], y.e), 0);
        expect_rc(spoke_send(s, m, SPOKE_DONTWAIT), SPOKE_ENOTSUP);
        expect_rc(spoke_sendv(s, &m, 1, SPOKE_DONTWAIT), SPOKE_ENOTSUP);
        if (patterns[i] == SPOKE_REQ) {
            expect_rc(spoke_context_open(&context, s), 0);
            expect_rc(spoke_context_send(context, m, SPOKE_DONTWAIT), SPOKE_ENOTSUP);
            expect_rc(spoke_context_close(context), 0);
        }
        expect_rc(spoke_socket_close(s), 0);
    }
    expect_rc(spoke_stream_pair(&stream[0], &stream[1], NULL, y.e), 0);
    expect_rc(spoke_stream_write_chunk(stream[0], m, &done), SPOKE_ENOTSUP);
    expect_rc(spoke_stream_unread(stream[0], m), SPOKE_ENOTSUP);
    expect_rc(spoke_stream_close(stream[0]), 0);
    expect_rc(spoke_stream_close(stream[1]), 0);
    cr_assert_eq(spoke_msg_attachments(m), 1);

    /* Connected, in the middle of others: those before it go. */
    spoke_socket *end[2];
    for (int i = 0; i < 2; i++)
        expect_rc(spoke_socket_open(&end[i], SPOKE_PAIR, y.e), 0);
    expect_rc(spoke_listen(end[0], "inproc://attach", NULL, 0), 0);
    expect_rc(spoke_dial(end[1], "inproc://attach", NULL, 0), 0);
    expect_rc(spoke_send(end[1], m, 0), SPOKE_ENOTSUP);
    plain[0] = message("before");
    plain[1] = m;
    plain[2] = message("behind");
    expect_rc(spoke_sendv(end[1], plain, 3, 0), 1);
    expect_rc(spoke_sendv(end[1], plain + 1, 2, 0), SPOKE_ENOTSUP);
    expect_rc(spoke_send(end[1], plain[2], 0), 0);
    spoke_msg_free(m);
    for (int i = 0; i < 2; i++) {
        expect_rc(spoke_recv(end[0], &m, 0), 0);
        cr_assert(is_text(m, i == 0 ? "before" : "behind"));
        spoke_msg_free(m);
    }
    for (int i = 0; i < 2; i++)
        expect_rc(spoke_socket_close(end[i]), 0);
    expect_rc(recv_nothing(rx, SOON(&y)), SPOKE_EOF);
    expect_rc(spoke_receiver_close(rx), 0);
    yard_settle(&y);
    yard_close(&y);
}

/* ---- requests ---- */

WAY_TEST(channel_attach, a_request_that_fails_leaves_the_message_as_it_was, ways)
{
    struct yard y;
    spoke_sender *tx, *one;
    spoke_receiver *rx, *answers, *others;
    spoke_socket *s;
    spoke_msg *m;

    yard_open(&y, *way);
    pair(&y, 1, &tx, &rx);
    pair(&y, 1, &one, &others);
    expect_rc(send_text(tx, "full", SPOKE_NOW), 0);
    m = message("ask");
    expect_rc(spoke_request(tx, m, NULL, NULL, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_request(tx, NULL, &answers, NULL, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_request(tx, m, &answers, NULL, -1), SPOKE_EINVAL);
    expect_rc(spoke_request(tx, m, &answers, NULL, SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_null(answers);
    cr_assert_eq(spoke_msg_attachments(m), 0);
    expect_rc(spoke_socket_open(&s, SPOKE_PUB, y.e), 0);
    expect_rc(spoke_send(s, spoke_msg_dup(m), 0), 0); /* it carries nothing */
    expect_rc(spoke_socket_close(s), 0);
    yard_settle(&y);
    expect_rc(spoke_msg_make_unique(&m), 0);
    expect_rc(spoke_msg_attach_sender(m, one), 0);
    expect_rc(spoke_request(tx, m, &answers, NULL, SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_eq(spoke_msg_attachments(m), 1);
    expect_rc(spoke_msg_take_sender(m, 0, &one), 0);
    close_pair(one, others);
    expect_text(rx, "full");
    expect_rc(spoke_request(tx, m, &answers, NULL, SPOKE_NOW), 0);
    expect_rc(spoke_receiver_recv(rx, &m, SPOKE_NOW), 0);
    cr_assert_eq(spoke_msg_attachments(m), 2, "the answer's is the last");
    expect_rc(spoke_msg_take_sender(m, 1, &one), 0);
    spoke_msg_free(m);
    expect_rc(send_text(one, "first", SPOKE_NOW), 0);
    expect_rc(send_text(one, "second", SPOKE_NOW), 0);
    expect_rc(spoke_sender_close(one), 0);
    expect_text(answers, "first");
    expect_text(answers, "second");
    expect_rc(recv_nothing(answers, SPOKE_NOW), SPOKE_EOF);
    expect_rc(spoke_receiver_close(answers), 0);
    close_pair(tx, rx);
    yard_close(&y);
}
