/* SPDX-License-Identifier: MIT */
/* What libchan's own tests show that needs no session, each under a name of its own. */
#include "tests/channel/pair_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static spoke_msg *
received(spoke_receiver *rx)
{
    spoke_msg *m;

    expect_rc(spoke_receiver_recv(rx, &m, spoke_engine_now(NULL) + PATIENCE), 0);
    return m;
}

/* TestSimpleSend, TestSendEmpty */
WAY_TEST(channel_libchan, one_message_in_memory, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, *way);
    pair(&y, 64, &tx, &rx);
    expect_rc(send_text(tx, "hello world", SPOKE_NOW), 0);
    expect_rc(send_text(tx, "", SPOKE_NOW), 0);
    expect_text(rx, "hello world");
    expect_text(rx, "");
    close_pair(tx, rx);
    yard_close(&y);
}

/* TestSendLarge */
WAY_TEST(channel_libchan, a_large_message, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m;

    yard_open(&y, *way);
    pair(&y, 64, &tx, &rx);
    expect_rc(spoke_msg_new(&m, 100000), 0);
    memset(spoke_msg_body(m), 'x', 100000);
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    m = received(rx);
    cr_assert_eq(spoke_msg_size(m), 100000);
    cr_assert_eq(((char *)spoke_msg_body(m))[99999], 'x');
    spoke_msg_free(m);
    close_pair(tx, rx);
    yard_close(&y);
}

/* TestSendClose */
WAY_TEST(channel_libchan, sending_on_what_is_closed_fails, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, *way);
    pair(&y, 64, &tx, &rx);
    expect_rc(spoke_sender_close(tx), 0);
    expect_rc(send_text(tx, "x", SPOKE_FOREVER), SPOKE_ECLOSED);
    expect_rc(recv_nothing(rx, SPOKE_FOREVER), SPOKE_EOF);
    expect_rc(spoke_receiver_close(rx), 0);
    yard_close(&y);
}

/* Serve one request: expects a text, answers on the sender that came last with it. */
static void
serve(spoke_receiver *rx, const char *question, const char *told)
{
    spoke_msg *m = received(rx);
    spoke_sender *answer;

    cr_assert(is_text(m, question));
    expect_rc(spoke_msg_take_sender(m, spoke_msg_attachments(m) - 1, &answer), 0);
    spoke_msg_free(m);
    expect_rc(send_text(answer, told, SPOKE_NOW), 0);
    expect_rc(spoke_sender_close(answer), 0);
}

/* TestInmemRetPipe, TestSendReply, TestSendRet, TestRetPipe */
WAY_TEST(channel_libchan, a_request_brings_the_way_of_its_answer, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx, *answers;

    yard_open(&y, *way);
    pair(&y, 64, &tx, &rx);
    expect_rc(spoke_request(tx, message("hello"), &answers, NULL, SPOKE_NOW), 0);
    serve(rx, "hello", "this better not crash");
    expect_text(answers, "this better not crash");
    expect_rc(recv_nothing(answers, SPOKE_FOREVER), SPOKE_EOF);
    expect_rc(spoke_receiver_close(answers), 0);
    close_pair(tx, rx);
    yard_close(&y);
}

/* The other side lets the sender go without an answer. */
WAY_TEST(channel_libchan, a_request_that_nobody_answers_ends, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx, *answers;

    yard_open(&y, *way);
    pair(&y, 64, &tx, &rx);
    expect_rc(spoke_request(tx, message("hello"), &answers, NULL, SPOKE_NOW), 0);
    spoke_msg_free(received(rx));
    expect_rc(recv_nothing(answers, SOON(&y)), SPOKE_EOF);
    expect_rc(spoke_receiver_close(answers), 0);
    close_pair(tx, rx);
    yard_close(&y);
}

/* TestSendFile, TestInmemWrappedSend: read from where it is. */
WAY_TEST(channel_libchan, an_open_file_is_read_from_where_it_is, ways)
{
    FILE *file = tmpfile();
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m;
    char text[16];
    int fd;

    cr_assert_not_null(file);
    yard_open(&y, *way);
    pair(&y, 64, &tx, &rx);
    fd = dup(fileno(file));
    cr_assert_eq(write(fd, "skip hello", 10), 10);
    cr_assert_eq(lseek(fd, 5, SEEK_SET), 5);
    m = message("path");
    expect_rc(spoke_msg_attach_fd(m, fd, SPOKE_ATTACHED_READS), 0);
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    m = received(rx);
    expect_rc(spoke_msg_take_fd(m, 0, &fd), 0);
    spoke_msg_free(m);
    cr_assert_eq(read(fd, text, sizeof text), 5);
    cr_assert_eq(memcmp(text, "hello", 5), 0);
    close(fd);
    close_pair(tx, rx);
    yard_close(&y);
    fclose(file);
}

/* TestComplexMessage: all that is attached is used in each direction that it has. */
WAY_TEST(channel_libchan, one_message_with_everything, ways)
{
    struct yard y;
    spoke_sender *tx, *back_tx, *forth_tx;
    spoke_receiver *rx, *back_rx, *forth_rx;
    spoke_stream *s[2], *theirs;
    spoke_msg *m;
    size_t done;
    char text[8];

    yard_open(&y, *way);
    pair(&y, 64, &tx, &rx);
    pair(&y, 64, &back_tx, &back_rx);
    pair(&y, 64, &forth_tx, &forth_rx);
    expect_rc(spoke_stream_pair(&s[0], &s[1], NULL, y.e), 0);
    m = message("This is a complex message ©");
    expect_rc(spoke_msg_attach_sender(m, back_tx), 0);
    expect_rc(spoke_msg_attach_receiver(m, forth_rx), 0);
    expect_rc(spoke_msg_attach_stream(m, s[1], SPOKE_ATTACHED_BOTH), 0);
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    m = received(rx);
    cr_assert(is_text(m, "This is a complex message ©"));
    expect_rc(spoke_msg_take_sender(m, 0, &back_tx), 0);
    expect_rc(spoke_msg_take_receiver(m, 1, &forth_rx), 0);
    expect_rc(spoke_msg_take_stream(m, 2, &theirs), 0);
    spoke_msg_free(m);
    expect_rc(send_text(back_tx, "This is a simple message", SPOKE_NOW), 0);
    expect_text(back_rx, "This is a simple message");
    expect_rc(send_text(forth_tx, "… and another", SPOKE_NOW), 0);
    expect_text(forth_rx, "… and another");
    expect_rc(spoke_stream_write(s[0], "forth", 5, &done), 0);
    expect_rc(spoke_stream_read_full(theirs, text, 5, &done), 0);
    cr_assert_eq(memcmp(text, "forth", 5), 0);
    expect_rc(spoke_stream_write(theirs, "back", 4, &done), 0);
    expect_rc(spoke_stream_read_full(s[0], text, 4, &done), 0);
    cr_assert_eq(memcmp(text, "back", 4), 0);
    expect_rc(spoke_stream_close(theirs), 0);
    expect_rc(spoke_stream_close(s[0]), 0);
    close_pair(back_tx, back_rx);
    close_pair(forth_tx, forth_rx);
    close_pair(tx, rx);
    yard_close(&y);
}

/* TestChannelProxy in memory: answers travel back past the one in the middle. */
WAY_TEST(channel_libchan, a_proxy_of_four_requests, ways)
{
    struct yard y;
    spoke_sender *tx, *out;
    spoke_receiver *in, *rx, *answers[4];
    uint64_t count;
    char text[16];

    yard_open(&y, *way);
    pair(&y, 64, &tx, &in);
    pair(&y, 64, &out, &rx);
    for (int i = 0; i < 4; i++) {
        snprintf(text, sizeof text, "ask %d", i);
        expect_rc(spoke_request(tx, message(text), &answers[i], NULL, SPOKE_NOW), 0);
    }
    expect_rc(spoke_sender_close(tx), 0);
    expect_rc(spoke_channel_copy(out, in, &count, SPOKE_FOREVER), 0);
    cr_assert_eq(count, 4);
    expect_rc(spoke_receiver_close(in), 0);
    expect_rc(spoke_sender_close(out), 0);
    for (int i = 0; i < 4; i++) {
        snprintf(text, sizeof text, "ask %d", i);
        serve(rx, text, text + 4);
        expect_text(answers[i], text + 4);
        expect_rc(spoke_receiver_close(answers[i]), 0);
    }
    expect_rc(recv_nothing(rx, SPOKE_FOREVER), SPOKE_EOF); /* the end comes through */
    expect_rc(spoke_receiver_close(rx), 0);
    yard_close(&y);
}

/* TestByteStreamProxy, TestByteStream: written to before the message is sent, then past a proxy in
 * both directions. */
WAY_TEST(channel_libchan, a_byte_stream_past_a_proxy, ways)
{
    struct yard y;
    spoke_sender *tx, *out;
    spoke_receiver *in, *rx;
    spoke_stream *s[2], *theirs;
    spoke_msg *m;
    uint64_t count;
    size_t done;
    char text[8];

    yard_open(&y, *way);
    pair(&y, 64, &tx, &in);
    pair(&y, 64, &out, &rx);
    expect_rc(spoke_stream_pair(&s[0], &s[1], NULL, y.e), 0);
    expect_rc(spoke_stream_write(s[0], "early", 5, &done), 0);
    m = message("stream");
    expect_rc(spoke_msg_attach_stream(m, s[1], SPOKE_ATTACHED_BOTH), 0);
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    expect_rc(spoke_sender_close(tx), 0);
    expect_rc(spoke_channel_copy(out, in, &count, SPOKE_FOREVER), 0);
    cr_assert_eq(count, 1);
    m = received(rx);
    expect_rc(spoke_msg_take_stream(m, 0, &theirs), 0);
    spoke_msg_free(m);
    expect_rc(spoke_stream_read_full(theirs, text, 5, &done), 0);
    cr_assert_eq(memcmp(text, "early", 5), 0);
    expect_rc(spoke_stream_write(theirs, "late", 4, &done), 0);
    expect_rc(spoke_stream_read_full(s[0], text, 4, &done), 0);
    cr_assert_eq(memcmp(text, "late", 4), 0);
    expect_rc(spoke_stream_close(theirs), 0);
    expect_rc(spoke_stream_close(s[0]), 0);
    expect_rc(spoke_receiver_close(in), 0);
    close_pair(out, rx);
    yard_close(&y);
}

/* TestSubChannel, TestSenderSubChannel: a channel in a message on a channel that came in one. */
WAY_TEST(channel_libchan, channels_two_levels_down, ways)
{
    struct yard y;
    spoke_sender *tx, *first, *second;
    spoke_receiver *rx, *first_rx, *second_rx;
    spoke_msg *m;

    yard_open(&y, *way);
    pair(&y, 64, &tx, &rx);
    pair(&y, 64, &first, &first_rx);
    m = message("level 1");
    expect_rc(spoke_msg_attach_receiver(m, first_rx), 0);
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    pair(&y, 64, &second, &second_rx);
    m = message("level 2");
    expect_rc(spoke_msg_attach_sender(m, second), 0);
    expect_rc(spoke_sender_send(first, m, SPOKE_NOW), 0);
    m = received(rx);
    expect_rc(spoke_msg_take_receiver(m, 0, &first_rx), 0);
    spoke_msg_free(m);
    m = received(first_rx);
    cr_assert(is_text(m, "level 2"));
    expect_rc(spoke_msg_take_sender(m, 0, &second), 0);
    spoke_msg_free(m);
    expect_rc(send_text(second, "from below", SPOKE_NOW), 0);
    expect_text(second_rx, "from below");
    close_pair(second, second_rx);
    close_pair(first, first_rx);
    close_pair(tx, rx);
    yard_close(&y);
}

/* TestSendConn, TestPair, TestSocketPair: a connection is sent, and used by who gets it. */
WAY_TEST(channel_libchan, a_connection_is_sent_and_used, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m;
    char text[8];
    int mine, theirs;

    yard_open(&y, *way);
    pair(&y, 64, &tx, &rx);
    m = message("connection");
    expect_rc(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_BOTH, &mine), 0);
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    m = received(rx);
    expect_rc(spoke_msg_take_fd(m, 0, &theirs), 0);
    spoke_msg_free(m);
    cr_assert_eq(write(theirs, "hello", 5), 5);
    cr_assert_eq(read(mine, text, sizeof text), 5);
    cr_assert_eq(write(mine, "bye", 3), 3);
    cr_assert_eq(read(theirs, text, sizeof text), 3);
    close(mine);
    cr_assert_eq(read(theirs, text, sizeof text), 0);
    close(theirs);
    close_pair(tx, rx);
    yard_close(&y);
}

/* TestSendUnixSocket: two descriptors, swapped over two channels, still talk to each other. */
WAY_TEST(channel_libchan, swapped_sockets_still_talk, ways)
{
    struct yard y;
    spoke_sender *tx[2];
    spoke_receiver *rx[2];
    spoke_msg *m;
    char c;
    int fds[2], got[2];

    yard_open(&y, *way);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    for (int i = 0; i < 2; i++) {
        pair(&y, 64, &tx[i], &rx[i]);
        m = message("end");
        expect_rc(spoke_msg_attach_fd(m, fds[i], SPOKE_ATTACHED_BOTH), 0);
        expect_rc(spoke_sender_send(tx[i], m, SPOKE_NOW), 0);
    }
    for (int i = 0; i < 2; i++) {
        m = received(rx[!i]);
        expect_rc(spoke_msg_take_fd(m, 0, &got[i]), 0);
        spoke_msg_free(m);
    }
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(write(got[i], "x", 1), 1);
        cr_assert_eq(read(got[!i], &c, 1), 1);
    }
    for (int i = 0; i < 2; i++) {
        close(got[i]);
        close_pair(tx[i], rx[i]);
    }
    yard_close(&y);
}

/* TestSendSegmenting: three at once, a descriptor with the second only. */
WAY_TEST(channel_libchan, a_descriptor_stays_with_its_message, ways)
{
    static const char *const texts[] = {"one", "two", "three"};
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m;
    int mine;

    yard_open(&y, *way);
    pair(&y, 64, &tx, &rx);
    for (int i = 0; i < 3; i++) {
        m = message(texts[i]);
        if (i == 1)
            expect_rc(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_READS, &mine), 0);
        expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    }
    for (int i = 0; i < 3; i++) {
        m = received(rx);
        cr_assert(is_text(m, texts[i]));
        cr_assert_eq(spoke_msg_attachments(m), i == 1);
        spoke_msg_free(m);
    }
    close(mine);
    close_pair(tx, rx);
    yard_close(&y);
}
