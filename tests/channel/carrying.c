/* SPDX-License-Identifier: MIT */
/* What messages carry over sessions: channels in channels, streams, descriptors. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/channel/sessions.h"

/* A question, and the answer on the channel that came with it. */
Test(carrying, request_and_answer)
{
    OVER_EVERYTHING(over)
    {
        struct sessions x;
        spoke_sender *tx, *answer;
        spoke_receiver *rx, *answers;
        spoke_msg *m;

        sessions_open(&x, (enum over)over, NULL);
        open_channel(&x, x.a, x.b, &tx, &rx, NULL);
        for (int i = 0; i < 10; i++) {
            cr_assert_eq(
                spoke_request(tx, text_message("how much?"), &answers, NULL, SPOKE_FOREVER), 0);
            m = receive(rx);
            cr_assert_eq(spoke_msg_take_sender(m, 0, &answer), 0);
            spoke_msg_free(m);
            must_send(answer, "ten");
            must_send(answer, "or eleven");
            cr_assert_eq(spoke_sender_close(answer), 0);
            receive_text(answers, "ten");
            receive_text(answers, "or eleven");
            receive_end(answers, SPOKE_EOF);
            cr_assert_eq(spoke_receiver_close(answers), 0);
        }
        /* Nobody answers: the message goes, and the sender with it. */
        cr_assert_eq(spoke_request(tx, text_message("well?"), &answers, NULL, SPOKE_FOREVER), 0);
        spoke_msg_free(receive(rx));
        receive_end(answers, SPOKE_EOF);
        cr_assert_eq(spoke_receiver_close(answers), 0);
        cr_assert_eq(spoke_sender_close(tx), 0);
        receive_end(rx, SPOKE_EOF);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        sessions_close(&x);
    }
}

/* Send one end of a new pair; the other one stays. */
static void
send_end(struct sessions *x, spoke_sender *over, bool sender, spoke_sender **tx,
         spoke_receiver **rx)
{
    spoke_msg *m = text_message("take this");

    cr_assert_eq(spoke_channel_pair(rx, tx, NULL, x->e), 0);
    if (sender)
        cr_assert_eq(spoke_msg_attach_sender(m, *tx), 0);
    else
        cr_assert_eq(spoke_msg_attach_receiver(m, *rx), 0);
    cr_assert_eq(spoke_sender_send(over, m, SPOKE_FOREVER), 0);
}

/* … and what the recipient has of it, in place of it. */
static void
receive_end_of(spoke_receiver *over, bool sender, spoke_sender **tx, spoke_receiver **rx)
{
    spoke_msg *m = receive(over);

    cr_assert_eq(spoke_msg_attachments(m), 1);
    if (sender)
        cr_assert_eq(spoke_msg_take_sender(m, 0, tx), 0);
    else
        cr_assert_eq(spoke_msg_take_receiver(m, 0, rx), 0);
    spoke_msg_free(m);
}

static void
close_pair(spoke_sender *tx, spoke_receiver *rx)
{
    cr_assert_eq(spoke_sender_close(tx), 0);
    receive_end(rx, SPOKE_EOF);
    cr_assert_eq(spoke_receiver_close(rx), 0);
}

/* Three levels, in each of the eight ways in which senders and receivers can be sent.  Each level
 * goes over the one above it, whichever way that goes. */
static void
nested(enum over over, unsigned ways)
{
    struct sessions x;
    spoke_sender *tx[4];
    spoke_receiver *rx[4];

    sessions_open(&x, over, NULL);
    open_channel(&x, x.a, x.b, &tx[0], &rx[0], NULL);
    for (int level = 0; level < 3; level++) {
        bool sender = (ways >> level & 1) != 0;

        send_end(&x, tx[level], sender, &tx[level + 1], &rx[level + 1]);
        receive_end_of(rx[level], sender, &tx[level + 1], &rx[level + 1]);
        must_send(tx[level + 1], "hello");
        receive_text(rx[level + 1], "hello");
    }
    for (int level = 3; level >= 0; level--)
        must_send(tx[level], "all of them");
    for (int level = 0; level < 4; level++) {
        receive_text(rx[level], "all of them");
        close_pair(tx[level], rx[level]);
    }
    sessions_close(&x);
}

Test(carrying, channels_in_channels_in_channels)
{
    OVER_EVERYTHING(over)
    {
        for (unsigned ways = 0; ways < 8; ways++)
            nested((enum over)over, ways);
    }
}

/* What was sent before the end was comes first. */
Test(carrying, what_was_sent_before)
{
    struct sessions x;
    spoke_sender *tx, *inner_tx;
    spoke_receiver *rx, *inner_rx;
    spoke_msg *m = text_message("here");

    sessions_open(&x, OVER_PAIR, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    cr_assert_eq(spoke_channel_pair(&inner_rx, &inner_tx, NULL, NULL), 0);
    for (int i = 0; i < 64; i++)
        must_send(inner_tx, "before");
    cr_assert_eq(spoke_msg_attach_receiver(m, inner_rx), 0);
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_FOREVER), 0);
    receive_end_of(rx, false, NULL, &inner_rx);
    for (int i = 0; i < 64; i++)
        receive_text(inner_rx, "before");
    for (int i = 0; i < 64; i++)
        must_send(inner_tx, "after");
    cr_assert_eq(spoke_sender_close(inner_tx), 0);
    for (int i = 0; i < 64; i++)
        receive_text(inner_rx, "after");
    receive_end(inner_rx, SPOKE_EOF);
    cr_assert_eq(spoke_receiver_close(inner_rx), 0);
    close_pair(tx, rx);
    sessions_close(&x);
}

/* The receiver says that it has room again when half of it is free.  All the same no less than
 * `depth` can be on their way at any time. */
Test(carrying, as_many_as_the_depth_are_on_their_way)
{
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;

    sessions_open(&x, OVER_PAIR, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL); /* of 64 */
    for (int i = 0; i < 64; i++)
        must_send(tx, "before");
    for (int i = 0; i < 32; i++)
        receive_text(rx, "before");
    must_send(tx, "before"); /* which waits for 32 more that it may send */
    for (int i = 0; i < 31; i++)
        receive_text(rx, "before");
    for (int i = 0; i < 62; i++) {
        spoke_msg *m = text_message("after");

        cr_assert_eq(spoke_sender_send(tx, m, soon(&x)), 0, "after %d", i);
    }
    receive_text(rx, "before");
    receive_text(rx, "before");
    for (int i = 0; i < 62; i++)
        receive_text(rx, "after");
    close_pair(tx, rx);
    sessions_close(&x);
}

/* An end that came over one session goes on over another, and a sync goes through both. */
static void
passed_on(bool sender)
{
    struct sessions x, y;
    spoke_sender *tx, *tx2, *end_tx;
    spoke_receiver *rx, *rx2, *end_rx;
    spoke_msg *m;

    sessions_open(&x, OVER_TCP, NULL);
    sessions_open(&y, OVER_IPC, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    open_channel(&y, y.a, y.b, &tx2, &rx2, NULL);
    send_end(&x, tx, sender, &end_tx, &end_rx);
    m = receive(rx);
    cr_assert_eq(spoke_sender_send(tx2, m, SPOKE_FOREVER), 0);
    receive_end_of(rx2, sender, &end_tx, &end_rx);
    for (int i = 0; i < 300; i++) {
        must_send(end_tx, "through both");
        receive_text(end_rx, "through both");
    }
    cr_assert_eq(spoke_sender_sync(end_tx, soon(&x)), 0);
    must_send(end_tx, "unread");
    cr_assert_eq(spoke_sender_sync(end_tx, spoke_engine_now(NULL) + 50 * SPOKE_MS),
                 SPOKE_ETIMEDOUT);
    receive_text(end_rx, "unread");
    cr_assert_eq(spoke_sender_sync(end_tx, soon(&x)), 0);
    close_pair(end_tx, end_rx);
    close_pair(tx, rx);
    close_pair(tx2, rx2);
    sessions_close(&y);
    sessions_close(&x);
}

Test(carrying, passed_on_to_another_session)
{
    passed_on(true);
    passed_on(false);
}

/* … and back on the same one. */
Test(carrying, sent_back)
{
    struct sessions x;
    spoke_sender *tx, *back, *end_tx;
    spoke_receiver *rx, *back_rx, *end_rx;

    sessions_open(&x, OVER_PAIR, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    open_channel(&x, x.b, x.a, &back, &back_rx, NULL);
    send_end(&x, tx, true, &end_tx, &end_rx);
    cr_assert_eq(spoke_sender_send(back, receive(rx), SPOKE_FOREVER), 0);
    receive_end_of(back_rx, true, &end_tx, NULL);
    must_send(end_tx, "round");
    receive_text(end_rx, "round");
    close_pair(end_tx, end_rx);
    close_pair(tx, rx);
    close_pair(back, back_rx);
    sessions_close(&x);
}

/* An error at one end of a chain is one at the other. */
Test(carrying, ends_go_through)
{
    struct spoke_channel_info info;
    struct sessions x;
    spoke_sender *tx, *end_tx;
    spoke_receiver *rx, *end_rx;

    for (int i = 0; i < 3; i++) {
        sessions_open(&x, OVER_PAIR, NULL);
        open_channel(&x, x.a, x.b, &tx, &rx, NULL);
        send_end(&x, tx, false, &end_tx, &end_rx);
        receive_end_of(rx, false, NULL, &end_rx);
        if (i == 0) {
            /* With nothing under way the text goes along. */
            must_send(end_tx, "whole");
            receive_text(end_rx, "whole");
            cr_assert_eq(spoke_sender_abort(end_tx, 400, "broken"), 0);
            receive_end(end_rx, SPOKE_EABORTED);
            cr_assert_eq(spoke_receiver_get_info(end_rx, &info), 0);
            cr_assert_eq(info.abort_code, 400);
            cr_assert_str_eq(info.text, "broken");
            cr_assert_eq(spoke_receiver_close(end_rx), 0);
        } else if (i == 1) {
            cr_assert_eq(spoke_receiver_close(end_rx), 0);
            int rc;
            do {
                spoke_msg *m = text_message("x");

                if ((rc = spoke_sender_send(end_tx, m, soon(&x))) != 0)
                    spoke_msg_free(m);
            } while (rc == 0);
            cr_assert_eq(rc, SPOKE_EPEERCLOSED);
            cr_assert_eq(spoke_sender_close(end_tx), 0);
        } else {
            cr_assert_eq(spoke_session_close(x.a, 0), 0);
            receive_end(end_rx, SPOKE_EMUXCLOSED);
            cr_assert_eq(spoke_receiver_close(end_rx), 0);
            cr_assert_eq(spoke_sender_close(end_tx), 0);
        }
        cr_assert_eq(spoke_sender_close(tx), 0);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        sessions_close(&x);
    }
}

/* A carrier that has to be waited for: what leaves does so while the world goes on. */
static void
open_over_narrow_tcp(struct sessions *x)
{
    static const char url[] = "tcp://127.0.0.1:4200";
    spoke_session_config config;
    spoke_stream_listener *l;
    spoke_stream *a, *b;
    spoke_sim_config narrow;

    *x = (struct sessions){.over = OVER_SIM};
    spoke_sim_config_init(&narrow);
    narrow.buffer_bytes = 256;
    cr_assert_eq(spoke_sim_open(&x->world, &narrow), 0);
    cr_assert_eq(spoke_sim_engine(x->world, &x->e), 0);
    cr_assert_eq(spoke_stream_listen(&l, url, NULL, x->e), 0);
    cr_assert_eq(spoke_stream_dial(&a, url, NULL, x->e, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_accept(l, &b, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_listener_close(l), 0);
    spoke_session_config_init(&config);
    cr_assert_eq(spoke_session_open(&x->a, a, &config), 0);
    config.mux.even = true;
    cr_assert_eq(spoke_session_open(&x->b, b, &config), 0);
}

/* The end that stayed is given up before the other one has left: the message names it all the same,
 * and the channel goes on. */
Test(carrying, what_is_given_up_before_its_message_leaves)
{
    struct sessions x;
    spoke_sender *tx, *inner_tx, *kept_tx;
    spoke_receiver *rx, *inner_rx, *kept_rx;
    spoke_msg *large, *m = text_message("here");

    open_over_narrow_tcp(&x);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    must_send(tx, "accepted");
    receive_text(rx, "accepted");
    cr_assert_eq(spoke_sender_sync(tx, soon(&x)), 0);
    cr_assert_eq(spoke_msg_new(&large, 40000), 0);
    memset(spoke_msg_body(large), 0, 40000);
    cr_assert_eq(spoke_sender_send(tx, large, SPOKE_NOW), 0);
    cr_assert_eq(spoke_channel_pair(&inner_rx, &inner_tx, NULL, x.e), 0);
    cr_assert_eq(spoke_channel_pair(&kept_rx, &kept_tx, NULL, x.e), 0);
    cr_assert_eq(spoke_msg_attach_receiver(m, inner_rx), 0);
    cr_assert_eq(spoke_msg_attach_receiver(m, kept_rx), 0);
    (void)spoke_sim_run(x.world, NULL, NULL, SPOKE_US); /* only now it may be opened */
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    cr_assert_eq(spoke_sender_abort(inner_tx, 300, NULL), 0);
    must_send(kept_tx, "alive");
    spoke_msg_free(receive(rx));
    m = receive(rx);
    cr_assert_eq(spoke_msg_take_receiver(m, 0, &inner_rx), 0);
    cr_assert_eq(spoke_msg_take_receiver(m, 1, &kept_rx), 0);
    spoke_msg_free(m);
    receive_end(inner_rx, SPOKE_EABORTED);
    receive_text(kept_rx, "alive");
    cr_assert_eq(spoke_receiver_close(inner_rx), 0);
    close_pair(kept_tx, kept_rx);
    close_pair(tx, rx);
    cr_assert_eq(spoke_session_close(x.a, 0), 0);
    cr_assert_eq(spoke_session_close(x.b, 0), 0);
    cr_assert_eq(spoke_sim_close(x.world, NULL), 0);
}

/* ---- streams ---- */

static void
write_text(spoke_stream *s, const char *text)
{
    size_t done;

    cr_assert_eq(spoke_stream_write(s, text, strlen(text), &done), 0);
}

static void
read_text(spoke_stream *s, const char *text)
{
    char got[64];
    size_t done;
    int rc = spoke_stream_read_full(s, got, strlen(text), &done);

    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_arr_eq(got, text, strlen(text));
}

static void
read_eof(spoke_stream *s)
{
    size_t done;
    char c;
    int rc = spoke_stream_read(s, &c, 1, &done);

    cr_assert_eq(rc, SPOKE_EOF, "%s", spoke_error_name(rc));
}

/* Written before the message is sent, then both ways; ends of halves go through. */
Test(carrying, a_byte_stream)
{
    for (int over = OVER_PAIR; over < OVER_SIM; over++) {
        struct sessions x;
        spoke_sender *tx;
        spoke_receiver *rx;
        spoke_stream *mine, *theirs, *there;
        spoke_msg *m;

        if (over == OVER_OWNED)
            continue;
        m = text_message("a stream");
        sessions_open(&x, (enum over)over, NULL);
        open_channel(&x, x.a, x.b, &tx, &rx, NULL);
        cr_assert_eq(spoke_stream_pair(&mine, &theirs, NULL, NULL), 0);
        write_text(mine, "before");
        cr_assert_eq(spoke_msg_attach_stream(m, theirs, SPOKE_ATTACHED_BOTH), 0);
        cr_assert_eq(spoke_sender_send(tx, m, SPOKE_FOREVER), 0);
        m = receive(rx);
        cr_assert_eq(spoke_msg_take_stream(m, 0, &there), 0);
        spoke_msg_free(m);
        read_text(there, "before");
        write_text(there, "ünïcode");
        read_text(mine, "ünïcode");
        cr_assert_eq(spoke_stream_close_write(mine), 0);
        read_eof(there);
        write_text(there, "still");
        read_text(mine, "still");
        cr_assert_eq(spoke_stream_close(there), 0);
        read_eof(mine);
        cr_assert_eq(spoke_stream_close(mine), 0);
        close_pair(tx, rx);
        sessions_close(&x);
    }
}

Test(carrying, a_stream_one_way)
{
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_stream *mine, *theirs, *there;
    spoke_msg *m = text_message("");
    size_t done;

    sessions_open(&x, OVER_PAIR, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    cr_assert_eq(spoke_stream_pair(&mine, &theirs, NULL, NULL), 0);
    cr_assert_eq(spoke_msg_attach_stream(m, theirs, SPOKE_ATTACHED_READS), 0);
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_FOREVER), 0);
    m = receive(rx);
    cr_assert_eq(spoke_msg_take_stream(m, 0, &there), 0);
    spoke_msg_free(m);
    write_text(mine, "read me");
    read_text(there, "read me");
    cr_assert_eq(spoke_stream_write(there, "x", 1, &done), SPOKE_EWRCLOSED);
    read_eof(mine);
    cr_assert_eq(spoke_stream_close(mine), 0);
    cr_assert_eq(spoke_stream_close(there), 0);
    close_pair(tx, rx);
    sessions_close(&x);
}

/* Nobody takes it: the other end hears of it. */
Test(carrying, a_stream_that_nobody_takes)
{
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_stream *mine, *theirs;
    spoke_msg *m = text_message("");
    size_t done;
    char c;

    sessions_open(&x, OVER_PAIR, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    cr_assert_eq(spoke_stream_pair(&mine, &theirs, NULL, NULL), 0);
    cr_assert_eq(spoke_msg_attach_stream(m, theirs, SPOKE_ATTACHED_BOTH), 0);
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_FOREVER), 0);
    spoke_msg_free(receive(rx));
    cr_assert_eq(spoke_stream_read(mine, &c, 1, &done), SPOKE_EABORTED);
    cr_assert_eq(spoke_stream_close(mine), 0);
    close_pair(tx, rx);
    sessions_close(&x);
}

/* ---- descriptors ---- */

static spoke_msg *
send_fd(spoke_sender *tx, spoke_receiver *rx, int fd, int direction)
{
    spoke_msg *m = text_message("a descriptor");
    int rc;

    cr_assert_eq(spoke_msg_attach_fd(m, fd, direction), 0);
    rc = spoke_sender_send(tx, m, SPOKE_FOREVER);
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    return receive(rx);
}

/* From where it is, to its end. */
Test(carrying, a_file)
{
    char name[] = "/tmp/spoke-carrying-XXXXXX";
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;
    char text[16];
    spoke_msg *m;
    ssize_t n;
    int fd = mkstemp(name), got;

    cr_assert_geq(fd, 0);
    cr_assert_eq(unlink(name), 0);
    cr_assert_eq(write(fd, "0123456789", 10), 10);
    cr_assert_eq(lseek(fd, 4, SEEK_SET), 4);
    sessions_open(&x, OVER_TCP, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    m = send_fd(tx, rx, fd, SPOKE_ATTACHED_READS);
    cr_assert_eq(spoke_msg_take_fd(m, 0, &got), 0);
    spoke_msg_free(m);
    for (size_t have = 0; have < 6; have += (size_t)n)
        cr_assert_gt(n = read(got, text + have, sizeof text - have), 0);
    cr_assert_arr_eq(text, "456789", 6);
    cr_assert_eq(read(got, text, sizeof text), 0);
    close(got);
    close_pair(tx, rx);
    sessions_close(&x);
}

Test(carrying, pipes)
{
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_stream *s;
    spoke_msg *m;
    int fd;
    char c;

    sessions_open(&x, OVER_TCP, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    m = text_message("read");
    cr_assert_eq(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_READS, &fd), 0);
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_FOREVER), 0);
    m = receive(rx);
    cr_assert_eq(spoke_msg_take_stream(m, 0, &s), 0);
    spoke_msg_free(m);
    cr_assert_eq(write(fd, "down the pipe", 13), 13);
    read_text(s, "down the pipe");
    close(fd);
    read_eof(s);
    cr_assert_eq(spoke_stream_close(s), 0);
    m = text_message("write");
    cr_assert_eq(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_WRITES, &fd), 0);
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_FOREVER), 0);
    m = receive(rx);
    cr_assert_eq(spoke_msg_take_stream(m, 0, &s), 0);
    spoke_msg_free(m);
    write_text(s, "u");
    cr_assert_eq(read(fd, &c, 1), 1);
    cr_assert_eq(c, 'u');
    cr_assert_eq(spoke_stream_close(s), 0);
    cr_assert_eq(read(fd, &c, 1), 0);
    close(fd);
    close_pair(tx, rx);
    sessions_close(&x);
}

Test(carrying, sockets)
{
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m;
    char text[4];
    int fd, got;

    sessions_open(&x, OVER_TCP, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    m = text_message("both");
    cr_assert_eq(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_BOTH, &fd), 0);
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_FOREVER), 0);
    m = receive(rx);
    cr_assert_eq(spoke_msg_take_fd(m, 0, &got), 0);
    spoke_msg_free(m);
    cr_assert_eq(write(fd, "abc", 3), 3);
    cr_assert_eq(recv(got, text, 3, MSG_WAITALL), 3);
    cr_assert_arr_eq(text, "abc", 3);
    cr_assert_eq(write(got, "xyz", 3), 3);
    cr_assert_eq(recv(fd, text, 3, MSG_WAITALL), 3);
    cr_assert_arr_eq(text, "xyz", 3);
    close(got);
    cr_assert_eq(read(fd, text, 1), 0);
    close(fd);
    close_pair(tx, rx);
    sessions_close(&x);
}

/* A directory is no stream, and stays with the message. */
Test(carrying, a_descriptor_that_cannot_go)
{
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m = text_message("");
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    sessions_open(&x, OVER_TCP, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    cr_assert_eq(spoke_msg_attach_fd(m, fd, SPOKE_ATTACHED_READS), 0);
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_FOREVER), SPOKE_ENOTSUP);
    spoke_msg_free(m);
    must_send(tx, "the channel lives");
    receive_text(rx, "the channel lives");
    close_pair(tx, rx);
    sessions_close(&x);
}

/* A sender, a receiver and a stream in one message. */
Test(carrying, all_of_them)
{
    OVER_EVERYTHING(over)
    {
        struct sessions x;
        spoke_sender *tx, *out_tx, *in_tx;
        spoke_receiver *rx, *out_rx, *in_rx;
        spoke_stream *mine, *theirs, *there;
        spoke_msg *m;

        if (over == OVER_OWNED || over == OVER_SIM) /* reads of streams wait for the one thread */
            continue;
        m = text_message("Grüße");
        sessions_open(&x, (enum over)over, NULL);
        open_channel(&x, x.a, x.b, &tx, &rx, NULL);
        cr_assert_eq(spoke_channel_pair(&in_rx, &in_tx, NULL, x.e), 0);
        cr_assert_eq(spoke_channel_pair(&out_rx, &out_tx, NULL, x.e), 0);
        cr_assert_eq(spoke_stream_pair(&mine, &theirs, NULL, x.e), 0);
        cr_assert_eq(spoke_msg_attach_sender(m, in_tx), 0);
        cr_assert_eq(spoke_msg_attach_receiver(m, out_rx), 0);
        cr_assert_eq(spoke_msg_attach_stream(m, theirs, SPOKE_ATTACHED_BOTH), 0);
        cr_assert_eq(spoke_sender_send(tx, m, SPOKE_FOREVER), 0);
        m = receive(rx);
        cr_assert_eq(spoke_msg_attachments(m), 3);
        cr_assert_eq(spoke_msg_take_stream(m, 2, &there), 0);
        cr_assert_eq(spoke_msg_take_receiver(m, 1, &out_rx), 0);
        cr_assert_eq(spoke_msg_take_sender(m, 0, &in_tx), 0);
        spoke_msg_free(m);
        must_send(out_tx, "out");
        receive_text(out_rx, "out");
        must_send(in_tx, "in");
        receive_text(in_rx, "in");
        write_text(there, "bytes");
        read_text(mine, "bytes");
        close_pair(out_tx, out_rx);
        close_pair(in_tx, in_rx);
        cr_assert_eq(spoke_stream_close(mine), 0);
        read_eof(there);
        cr_assert_eq(spoke_stream_close(there), 0);
        close_pair(tx, rx);
        sessions_close(&x);
    }
}
