/* SPDX-License-Identifier: MIT */
/* A socket on the library's own thread, in a program that waits with poll(2): one descriptor is
 * readable while there is something to receive. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include <spoke/spoke.h>

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "recv_fd: %s\n", spoke_strerror(rc));
    exit(1);
}

/* Take all that is there.  The descriptor stays readable until then. */
static int
receive_all(spoke_socket *s)
{
    spoke_msg *m;
    int count = 0, rc;

    while ((rc = spoke_recv(s, &m, SPOKE_DONTWAIT)) == 0) {
        printf("received: %.*s\n", (int)spoke_msg_size(m), (char *)spoke_msg_body(m));
        spoke_msg_free(m);
        count++;
    }
    check(rc == SPOKE_EAGAIN ? 0 : rc);
    return count;
}

int
main(void)
{
    struct pollfd fd = {.events = POLLIN};
    spoke_socket *a, *b;
    int received = 0;

    check(spoke_socket_open(&a, SPOKE_PAIR, NULL));
    check(spoke_socket_open(&b, SPOKE_PAIR, NULL));
    check(spoke_listen(b, "inproc://recv_fd", NULL, 0));
    check(spoke_dial(a, "inproc://recv_fd", NULL, 0));
    check(spoke_socket_get_int(b, SPOKE_OPT_RECV_FD, &fd.fd));

    check(spoke_send_bytes(a, "one", 3, 0));
    check(spoke_send_bytes(a, "two", 3, 0));
    while (received < 2) {
        if (poll(&fd, 1, 30000) != 1) {
            fprintf(stderr, "recv_fd: half a minute and no message\n");
            return 1;
        }
        received += receive_all(b);
    }
    spoke_socket_close(a);
    spoke_socket_close(b);
    return 0;
}
