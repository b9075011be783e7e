/* SPDX-License-Identifier: MIT */
/* A broker in one call: clients connect to one address, servers to another, a device stands in
 * between and needs no thread. */
#include <stdio.h>
#include <stdlib.h>

#include <spoke/spoke.h>

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "device: %s\n", spoke_strerror(rc));
    exit(1);
}

static spoke_socket *
open_socket(int pattern, const char *url)
{
    spoke_socket *s;

    check(spoke_socket_open(&s, pattern, NULL));
    check(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 30 * SPOKE_SECOND));
    if (url != NULL)
        check(spoke_dial(s, url, NULL, 0));
    return s;
}

int
main(void)
{
    spoke_socket *front = open_socket(SPOKE_REP, NULL), *back = open_socket(SPOKE_REQ, NULL);
    struct spoke_device_stats stats;
    spoke_device *broker;
    spoke_msg *m;

    check(spoke_device_start(&broker, front, back)); /* makes both raw */
    check(spoke_listen(front, "inproc://clients", NULL, 0));
    check(spoke_listen(back, "inproc://servers", NULL, 0));

    spoke_socket *client = open_socket(SPOKE_REQ, "inproc://clients");
    spoke_socket *server = open_socket(SPOKE_REP, "inproc://servers");
    check(spoke_send_bytes(client, "hello", 5, 0));
    check(spoke_recv(server, &m, 0));
    check(spoke_msg_append(m, ", broker", 8));
    check(spoke_send(server, m, 0));
    check(spoke_recv(client, &m, 0));
    printf("%.*s\n", (int)spoke_msg_size(m), (char *)spoke_msg_body(m));
    spoke_msg_free(m);

    check(spoke_device_stop(broker, &stats));
    printf("%d request, %d reply\n", (int)stats.there.messages, (int)stats.back.messages);
    spoke_socket *all[] = {client, server, front, back};
    for (int i = 0; i < 4; i++)
        spoke_socket_close(all[i]);
    return stats.there.messages == 1 && stats.back.messages == 1 ? 0 : 1;
}
