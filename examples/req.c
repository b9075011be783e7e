/* SPDX-License-Identifier: MIT */
/* A client: ask, wait for the answer at most two seconds, say why if there is none.
 *
 *     req [URL [TEXT]]        try it with: spoke cat --rep --bind URL -D hi
 *
 * Without a URL it answers itself. */
#include <pthread.h>
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
ask(const char *url, const char *text)
{
    spoke_socket *s;
    spoke_msg *m;
    int rc;

    check(spoke_socket_open(&s, SPOKE_REQ, NULL));
    check(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 2 * SPOKE_SECOND));
    /* Nobody needs to listen yet: the request leaves as soon as somebody does, and once more if
     * that one dies before it has answered. */
    check(spoke_dial(s, url, NULL, 0));
    check(spoke_send_bytes(s, text, strlen(text), 0));
    if ((rc = spoke_recv(s, &m, 0)) == SPOKE_ETIMEDOUT)
        printf("%s: nobody answered\n", url);
    check(rc);
    printf("%s -> %.*s\n", text, (int)spoke_msg_size(m), (char *)spoke_msg_body(m));
    spoke_msg_free(m);
    spoke_socket_close(s);
}

static void *
answer_once(void *url)
{
    spoke_socket *s;
    spoke_msg *m;

    check(spoke_socket_open(&s, SPOKE_REP, NULL));
    check(spoke_listen(s, url, NULL, 0));
    check(spoke_recv(s, &m, 0));
    check(spoke_send(s, m, 0));
    spoke_socket_close(s);
    return NULL;
}

int
main(int argc, char **argv)
{
    char url[] = "inproc://req";
    pthread_t server;

    if (argc > 1) {
        ask(argv[1], argc > 2 ? argv[2] : "hello");
        return 0;
    }
    if (pthread_create(&server, NULL, answer_once, url) != 0)
        return 1;
    ask(url, "is there an echo?");
    pthread_join(server, NULL);
    return 0;
}
