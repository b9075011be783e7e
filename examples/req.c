/* SPDX-License-Identifier: MIT */
/* A client: ask, wait for the answer at most two seconds, say why if there is none.
 *
 *     req [URL [TEXT]]        try it with: spoke cat --rep --bind URL -D hi
 *
 * Without a URL it answers itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <spoke/spoke.h>

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "req: %s\n", spoke_strerror(rc));
    exit(1);
}

static void
echo(spoke_socket *s, spoke_msg *m, void *ctx)
{
    (void)ctx;
    check(spoke_send(s, m, 0));
}

int
main(int argc, char **argv)
{
    const char *url = argc > 1 ? argv[1] : "inproc://req";
    const char *text = argc > 2 ? argv[2] : "is there an echo?";
    spoke_socket *s, *server = NULL;
    spoke_msg *m;

    if (argc == 1) {
        check(spoke_socket_open(&server, SPOKE_REP, NULL));
        check(spoke_socket_on_message(server, echo, NULL));
        check(spoke_listen(server, url, NULL, 0));
    }
    check(spoke_socket_open(&s, SPOKE_REQ, NULL));
    check(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 10 * SPOKE_SECOND));
    /* Nobody needs to listen yet: the request leaves as soon as somebody does, and once more if
     * that one dies before it has answered. */
    check(spoke_dial(s, url, NULL, 0));
    check(spoke_send_bytes(s, text, strlen(text), 0));
    check(spoke_recv(s, &m, 0)); /* "timed out" if nobody has answered */
    printf("%s -> %.*s\n", text, (int)spoke_msg_size(m), (char *)spoke_msg_body(m));
    spoke_msg_free(m);
    spoke_socket_close(s);
    if (server != NULL)
        spoke_socket_close(server);
    return 0;
}
