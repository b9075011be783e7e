/* SPDX-License-Identifier: MIT */
/* Several threads on one client and one service: each has a context, which is a conversation of its
 * own on a socket that all share. */
#include <err.h>
#include <pthread.h>
#include <stdio.h>

#include <spoke/spoke.h>

static void
check(int rc)
{
    if (rc != 0)
        errx(1, "%s", spoke_strerror(rc));
}

static void *
serve(void *context)
{
    spoke_msg *m;

    while (spoke_context_recv(context, &m, 0) == 0) /* whoever is free, until the service closes */
        check(spoke_context_send(context, m, 0));
    return NULL;
}

static void *
ask(void *context)
{
    unsigned question = (unsigned)(size_t)context, reply = 0; /* something that nobody else asks */
    size_t size = sizeof reply;

    check(spoke_context_send_bytes(context, &question, sizeof question, 0));
    check(spoke_context_recv_bytes(context, &reply, &size, 0));
    puts(reply == question ? "my own reply" : "somebody else's");
    return NULL;
}

int
main(void)
{
    spoke_socket *client, *service;
    spoke_context *c;
    pthread_t threads[8]; /* two serve, the others ask */

    check(spoke_socket_open(&service, SPOKE_REP, NULL));
    check(spoke_socket_open(&client, SPOKE_REQ, NULL));
    check(spoke_listen(service, "inproc://contexts", NULL, 0));
    check(spoke_dial(client, "inproc://contexts", NULL, 0));
    for (int i = 0; i < 8; i++) {
        check(spoke_context_open(&c, i < 2 ? service : client));
        check(pthread_create(&threads[i], NULL, i < 2 ? serve : ask, c) == 0 ? 0 : SPOKE_ENOMEM);
    }
    for (int i = 7; i >= 0; i--) {
        check(i == 1 ? spoke_socket_close(service) : 0); /* all are answered */
        pthread_join(threads[i], NULL);
    }
    return spoke_socket_close(client); /* with its contexts */
}
