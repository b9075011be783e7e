/* SPDX-License-Identifier: MIT */
/* Everybody reaches everybody, also those who are not connected: STAR sockets in a row pass on what
 * they receive.  Connect them as a tree; in a ring a message would come round. */
#include <stdio.h>
#include <stdlib.h>

#include <spoke/spoke.h>

#define NODES 4

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "star: %s\n", spoke_strerror(rc));
    exit(1);
}

int
main(void)
{
    spoke_socket *node[NODES];
    char url[32], text[32];

    for (int i = 0; i < NODES; i++) {
        check(spoke_socket_open(&node[i], SPOKE_STAR, NULL));
        check(spoke_socket_set_duration(node[i], SPOKE_OPT_RECV_TIMEOUT, 30 * SPOKE_SECOND));
        check(spoke_socket_set_int(node[i], SPOKE_OPT_TTL, NODES)); /* longer ways are cut off */
        snprintf(url, sizeof url, "inproc://node-%d", i);
        check(spoke_listen(node[i], url, NULL, 0));
        snprintf(url, sizeof url, "inproc://node-%d", i - 1);
        if (i > 0)
            check(spoke_dial(node[i], url, NULL, SPOKE_WAIT_FIRST));
    }
    check(spoke_send_bytes(node[0], "pass it on", 10, 0));
    for (int i = 1; i < NODES; i++) {
        size_t size = sizeof text;
        check(spoke_recv_bytes(node[i], text, &size, 0));
        printf("node %d received: %.*s\n", i, (int)size, text);
    }
    for (int i = 0; i < NODES; i++)
        spoke_socket_close(node[i]);
    return 0;
}
