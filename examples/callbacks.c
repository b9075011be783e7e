/* SPDX-License-Identifier: MIT */
/* No blocking call at all: the engine's loop runs, and callbacks do the work.
 * A server answers each request by a callback, a client asks the next question from its own. */
#include <stdio.h>
#include <stdlib.h>

#include <spoke/spoke.h>

#define QUESTIONS 3

struct client {
    spoke_engine *e;
    int asked;
};

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "callbacks: %s\n", spoke_strerror(rc));
    exit(1);
}

static void
ask(spoke_socket *s, struct client *c)
{
    char text[32];
    int size = snprintf(text, sizeof text, "question %d", ++c->asked);

    check(spoke_send_bytes(s, text, (size_t)size, 0));
}

static void
on_request(spoke_socket *s, spoke_msg *m, void *ctx)
{
    (void)ctx;
    check(spoke_send(s, m, 0)); /* a callback never waits, and here it need not */
}

static void
on_reply(spoke_socket *s, spoke_msg *m, void *ctx)
{
    struct client *c = ctx;

    printf("reply: %.*s\n", (int)spoke_msg_size(m), (char *)spoke_msg_body(m));
    spoke_msg_free(m);
    if (c->asked < QUESTIONS)
        ask(s, c);
    else
        check(spoke_engine_stop(c->e));
}

static void
on_too_late(void *ctx)
{
    (void)ctx;
    fprintf(stderr, "callbacks: half a minute and no end\n");
    exit(1);
}

int
main(void)
{
    struct client client = {.asked = 0};
    spoke_socket *server, *s;
    uint64_t timer;

    check(spoke_engine_open(&client.e, NULL));
    check(spoke_socket_open(&server, SPOKE_REP, client.e));
    check(spoke_socket_on_message(server, on_request, NULL));
    check(spoke_listen(server, "inproc://callbacks", NULL, 0));

    check(spoke_socket_open(&s, SPOKE_REQ, client.e));
    check(spoke_socket_on_message(s, on_reply, &client));
    check(spoke_dial(s, "inproc://callbacks", NULL, 0));
    ask(s, &client);

    check(spoke_engine_after(client.e, 30 * SPOKE_SECOND, on_too_late, NULL, &timer));
    check(spoke_engine_run(client.e));
    check(spoke_engine_cancel(client.e, timer));
    check(spoke_engine_close(client.e));
    return 0;
}
