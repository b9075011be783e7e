/* SPDX-License-Identifier: MIT */
/* Somebody else's event loop: poll(2) waits for everything, the engine is one descriptor of it.
 * The other one here is a pipe, whose text is sent to the peer. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <spoke/spoke.h>

static int received;

static void
check(int rc)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "foreign_loop: %s\n", spoke_strerror(rc));
    exit(1);
}

static void
on_message(spoke_socket *s, spoke_msg *m, void *ctx)
{
    (void)s;
    (void)ctx;
    printf("received: %.*s\n", (int)spoke_msg_size(m), (char *)spoke_msg_body(m));
    received++;
    spoke_msg_free(m);
}

/* Let the engine do what there is to do, and only that: then its descriptor is quiet until there is
 * more. */
static void
turn(spoke_engine *e)
{
    int rc;

    while ((rc = spoke_engine_poll(e, 0)) > 0)
        continue;
    check(rc);
}

int
main(void)
{
    spoke_engine *e;
    spoke_socket *a, *b;
    int ends[2];

    if (pipe(ends) != 0)
        return 1;
    check(spoke_engine_open(&e, NULL));
    check(spoke_socket_open(&a, SPOKE_PAIR, e));
    check(spoke_socket_open(&b, SPOKE_PAIR, e));
    check(spoke_socket_on_message(b, on_message, NULL));
    check(spoke_listen(b, "inproc://foreign", NULL, 0));
    check(spoke_dial(a, "inproc://foreign", NULL, 0));

    if (write(ends[1], "one", 3) != 3)
        return 1;
    while (received < 1) {
        struct pollfd fds[] = {
            {.fd = spoke_engine_fd(e), .events = POLLIN},
            {.fd = ends[0], .events = POLLIN},
        };
        turn(e); /* before each wait: a call may have left it something to do */
        if (received == 1)
            break;
        if (poll(fds, 2, 5000) == 0) {
            fprintf(stderr, "foreign_loop: five seconds and no message\n");
            return 1;
        }
        if (fds[1].revents != 0) {
            char text[16];
            ssize_t size = read(ends[0], text, sizeof text);
            if (size > 0)
                check(spoke_send_bytes(a, text, (size_t)size, 0));
        }
    }
    check(spoke_engine_close(e));
    close(ends[0]);
    close(ends[1]);
    return 0;
}
