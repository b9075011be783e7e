/* SPDX-License-Identifier: MIT */
/* Somebody else's program, in the common part of C99 and C++17: a request and its reply through the
 * installed library, in one process. */
#include <spoke/spoke.h>

#include <stdio.h>
#include <string.h>

static int
check(int rc, const char *what)
{
    if (rc < 0)
        fprintf(stderr, "consumer: %s: %s\n", what, spoke_strerror(rc));
    return rc >= 0;
}

static int
open_socket(spoke_socket **out, int pattern)
{
    return check(spoke_socket_open(out, pattern, NULL), "open") &&
           check(spoke_socket_set_duration(*out, SPOKE_OPT_RECV_TIMEOUT, 20 * SPOKE_SECOND),
                 "timeout") &&
           check(spoke_socket_set_duration(*out, SPOKE_OPT_SEND_TIMEOUT, 20 * SPOKE_SECOND),
                 "timeout");
}

static int
exchange(spoke_socket *req, spoke_socket *rep)
{
    spoke_msg *message = NULL;
    char answer[16];
    size_t size = sizeof answer;

    if (!check(spoke_listen(rep, "inproc://consumer", NULL, 0), "listen") ||
        !check(spoke_dial(req, "inproc://consumer", NULL, 0), "dial") ||
        !check(spoke_send_bytes(req, "ping", 4, 0), "send the request") ||
        !check(spoke_recv(rep, &message, 0), "receive the request"))
        return 0;
    if (spoke_msg_size(message) != 4 || memcmp(spoke_msg_body(message), "ping", 4) != 0) {
        fprintf(stderr, "consumer: the request is another\n");
        spoke_msg_free(message);
        return 0;
    }
    if (!check(spoke_send(rep, message, 0), "send the reply")) {
        spoke_msg_free(message);
        return 0;
    }
    return check(spoke_recv_bytes(req, answer, &size, 0), "receive the reply") && size == 4 &&
           memcmp(answer, "ping", 4) == 0;
}

int
main(void)
{
    spoke_socket *req = NULL, *rep = NULL;
    int good = strcmp(spoke_version(), SPOKE_VERSION) == 0 && open_socket(&req, SPOKE_REQ) &&
               open_socket(&rep, SPOKE_REP) && exchange(req, rep);

    if (req != NULL)
        good &= check(spoke_socket_close(req), "close");
    if (rep != NULL)
        good &= check(spoke_socket_close(rep), "close");
    return good ? 0 : 1;
}
