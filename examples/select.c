/* SPDX-License-Identifier: MIT */
/* One thread that waits for six kinds of things at once, on an engine of its own: a message, a
 * message in a channel, bytes, a connection, a descriptor, a time.  Each comes once. */
#include <err.h>
#include <stdio.h>
#include <unistd.h>

#include <spoke/spoke.h>

static void
check(int rc)
{
    if (rc != 0)
        errx(1, "%s", spoke_strerror(rc));
}

int
main(void)
{
    static const char *const names[] = {"a message",    "a message in a channel", "bytes",
                                        "a connection", "a descriptor",           "a time"};
    spoke_engine *e;
    spoke_socket *push, *pull;
    spoke_receiver *rx;
    spoke_sender *tx;
    spoke_stream *near, *far, *dialed;
    spoke_stream_listener *l;
    spoke_msg *m;
    size_t which, done;
    int fd[2];

    check(spoke_engine_open(&e, NULL));
    check(spoke_socket_open(&pull, SPOKE_PULL, e));
    check(spoke_socket_open(&push, SPOKE_PUSH, e));
    check(spoke_listen(pull, "inproc://select", NULL, 0));
    check(spoke_dial(push, "inproc://select", NULL, SPOKE_WAIT_FIRST));
    check(spoke_channel_pair(&rx, &tx, NULL, e));
    check(spoke_stream_pair(&near, &far, NULL, e));
    check(spoke_stream_listen(&l, "inproc://streams", NULL, e));
    check(pipe(fd) == 0 ? 0 : SPOKE_EMFILE);

    spoke_select_case cases[] = {
        {.what = SPOKE_SELECT_SOCKET_RECV, .of.socket = pull},
        {.what = SPOKE_SELECT_RECEIVER, .of.receiver = rx},
        {.what = SPOKE_SELECT_STREAM_READ, .of.stream = near},
        {.what = SPOKE_SELECT_STREAM_ACCEPT, .of.listener = l},
        {.what = SPOKE_SELECT_FD_READ, .of.fd = fd[0]},
        {.what = SPOKE_SELECT_TIME, .of.when = spoke_engine_now(e) + 10 * SPOKE_MS},
    };

    if (spoke_select(cases, 5, &which, e, SPOKE_NOW) != SPOKE_EAGAIN)
        errx(1, "something is there already");
    check(spoke_send_bytes(push, "x", 1, 0));
    check(spoke_msg_from(&m, "x", 1));
    check(spoke_sender_send(tx, m, SPOKE_FOREVER));
    check(spoke_stream_write(far, "x", 1, &done));
    check(spoke_stream_dial(&dialed, "inproc://streams", NULL, e, SPOKE_NOW));
    check(write(fd[1], "x", 1) == 1 ? 0 : SPOKE_EIO);

    for (int left = 6; left > 0; left--) {
        check(spoke_select(cases, 6, &which, e, SPOKE_FOREVER));
        puts(names[which]); /* in any order; here one would receive, read, accept … */
        cases[which].what = SPOKE_SELECT_NONE;
    }
    close(fd[0]);
    close(fd[1]);
    return spoke_engine_close(e);
}
