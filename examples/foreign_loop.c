/* SPDX-License-Identifier: MIT */
/* Somebody else's event loop: epoll waits for everything, the engine is one descriptor of it.
 * The other one here is a pipe, whose text is sent to the peer. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
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

static void
watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        exit(1);
}

int
main(void)
{
    spoke_engine *e;
    spoke_socket *a, *b;
    int ends[2], epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll < 0 || pipe(ends) != 0)
        return 1;
    check(spoke_engine_open(&e, NULL));
    check(spoke_socket_open(&a, SPOKE_PAIR, e));
    check(spoke_socket_open(&b, SPOKE_PAIR, e));
    check(spoke_socket_on_message(b, on_message, NULL));
    check(spoke_listen(b, "inproc://foreign", NULL, 0));
    check(spoke_dial(a, "inproc://foreign", NULL, 0));
    watch(epoll, spoke_engine_fd(e));
    watch(epoll, ends[0]);

    if (write(ends[1], "one", 3) != 3)
        return 1;
    for (;;) {
        struct epoll_event event;

        turn(e); /* before each wait: a call may have left it something to do */
        if (received == 1)
            break;
        if (epoll_wait(epoll, &event, 1, 30000) != 1) {
            fprintf(stderr, "foreign_loop: half a minute and no message\n");
            return 1;
        }
        if (event.data.fd == ends[0]) {
            char text[16];
            ssize_t size = read(ends[0], text, sizeof text);
            if (size > 0)
                check(spoke_send_bytes(a, text, (size_t)size, 0));
        }
    }
    close(epoll);
    check(spoke_engine_close(e));
    close(ends[0]);
    close(ends[1]);
    return 0;
}
