/* SPDX-License-Identifier: MIT */
/* A service in ten lines: receive a request, answer it.
 *
 *     rep [URL]        serves until it is killed
 *
 * Try it with: spoke cat --req --connect URL -D hi -A.  Without a URL it is its own client, once.
 */
#include <stdio.h>
#include <stdlib.h>

#include <spoke/spoke.h>

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "rep: %s\n", spoke_strerror(rc));
    exit(1);
}

/* The ten lines. */
static void
serve(const char *url, int requests)
{
    spoke_socket *s;
    spoke_msg *m;

    check(spoke_socket_open(&s, SPOKE_REP, NULL));
    check(spoke_listen(s, url, NULL, 0));
    for (int i = 0; requests == 0 || i < requests; i++) {
        check(spoke_recv(s, &m, 0)); /* the request is ours now … */
        check(spoke_msg_append(m, ", yourself", 10));
        check(spoke_send(s, m, 0)); /* … and the library's again, as the reply */
    }
    spoke_socket_close(s); /* waits, within limits, until the last reply is out */
}

int
main(int argc, char **argv)
{
    char reply[64];
    size_t size = sizeof reply;
    spoke_socket *client;

    if (argc > 1)
        serve(argv[1], 0);
    check(spoke_socket_open(&client, SPOKE_REQ, NULL));
    check(spoke_dial(client, "inproc://rep", NULL, 0));
    check(spoke_send_bytes(client, "hello", 5, 0)); /* leaves as soon as somebody listens */
    serve("inproc://rep", 1);
    check(spoke_recv_bytes(client, reply, &size, 0));
    printf("hello -> %.*s\n", (int)size, reply);
    spoke_socket_close(client);
    return 0;
}
