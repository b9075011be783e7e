/* SPDX-License-Identifier: MIT */
/* Everybody tells everybody: three BUS sockets, each connected to the other two. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <spoke/spoke.h>

#define MEMBERS 3

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "bus: %s\n", spoke_strerror(rc));
    exit(1);
}

int
main(void)
{
    spoke_socket *member[MEMBERS];
    char url[32], text[32];

    for (int i = 0; i < MEMBERS; i++) {
        check(spoke_socket_open(&member[i], SPOKE_BUS, NULL));
        check(spoke_socket_set_duration(member[i], SPOKE_OPT_RECV_TIMEOUT, 30 * SPOKE_SECOND));
        snprintf(url, sizeof url, "inproc://member-%d", i);
        check(spoke_listen(member[i], url, NULL, 0));
        for (int j = 0; j < i; j++) /* a connection goes both ways: one of two dials */
            check(spoke_dial(member[j], url, NULL, SPOKE_WAIT_FIRST));
    }
    for (int i = 0; i < MEMBERS; i++) {
        snprintf(text, sizeof text, "I am %d", i);
        check(spoke_send_bytes(member[i], text, strlen(text), 0)); /* never waits, may be dropped */
    }
    for (int i = 0; i < MEMBERS; i++) {
        for (int heard = 0; heard < MEMBERS - 1; heard++) {
            size_t size = sizeof text;
            check(spoke_recv_bytes(member[i], text, &size, 0));
            printf("%d heard: %.*s\n", i, (int)size, text);
        }
    }
    for (int i = 0; i < MEMBERS; i++)
        spoke_socket_close(member[i]);
    return 0;
}
