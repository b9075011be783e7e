/* SPDX-License-Identifier: MIT */
/* nn_device(): messages pass from one raw socket to another, by reference and with their words, on
 * the caller's thread. */
#include "internal.h"

#include <poll.h>

/* One direction, and the message that could not be passed on yet. */
struct way {
    int from, to; /* sockets */
    spoke_msg *held;
};

#define MESSAGES_A_TURN 64 /* then the other way has its turn */

/* Pass on what there is; 0, or an error of spoke but SPOKE_EAGAIN. */
static int
pass(struct way *way)
{
    spoke_socket *from = compat_handle(way->from), *to = compat_handle(way->to);
    int rc = 0;

    if (from == NULL || to == NULL)
        return SPOKE_ECLOSED;
    for (int i = 0; i < MESSAGES_A_TURN; i++) {
        if (way->held == NULL && (rc = spoke_recv(from, &way->held, SPOKE_DONTWAIT)) != 0)
            break;
        if ((rc = spoke_send(to, way->held, SPOKE_DONTWAIT)) != 0)
            break;
        way->held = NULL;
    }
    return rc == SPOKE_EAGAIN ? 0 : rc;
}

/* Wait until one of the ways can go on. */
static int
wait_for(const struct way *ways, int count)
{
    struct nn_pollfd fds[2] = {{0}};

    for (int i = 0; i < count; i++) {
        bool full = ways[i].held != NULL;

        fds[i] = (struct nn_pollfd){.fd = full ? ways[i].to : ways[i].from,
                                    .events = full ? NN_POLLOUT : NN_POLLIN};
    }
    return nn_poll(fds, count, -1);
}

/* Until something goes wrong; leaves errno. */
static void
run(struct way *ways, int count)
{
    int rc;

    for (;;) {
        for (int i = 0; i < count; i++) {
            if ((rc = pass(&ways[i])) != 0) {
                compat_fail_as(rc);
                return;
            }
        }
        if (wait_for(ways, count) < 0)
            return;
    }
}

/* ---- which sockets ---- */

struct side {
    int socket, protocol, peer;
    bool raw, receives, sends;
};

/* 0, or -1 and EBADF. */
static int
look_at(int s, struct side *side)
{
    spoke_socket *handle = compat_handle(s);
    int rc;

    if (handle == NULL)
        return -1;
    side->socket = s;
    if ((rc = spoke_socket_get_int(handle, SPOKE_OPT_PROTOCOL, &side->protocol)) != 0 ||
        (rc = spoke_socket_get_int(handle, SPOKE_OPT_PEER, &side->peer)) != 0 ||
        (rc = spoke_socket_get_bool(handle, SPOKE_OPT_RAW, &side->raw)) != 0)
        return compat_fail_as(rc);
    side->receives = compat_descriptor(s, COMPAT_RECV) >= 0;
    side->sends = compat_descriptor(s, COMPAT_SEND) >= 0;
    return 0;
}

static bool
fit_together(const struct side *a, const struct side *b)
{
    return a->raw && b->raw && a->protocol == b->peer && b->protocol == a->peer;
}

static int
run_device(const struct side *a, const struct side *b)
{
    struct way ways[2];
    int count = 0, error;

    if (a->receives && b->sends)
        ways[count++] = (struct way){.from = a->socket, .to = b->socket};
    if (a->socket != b->socket && b->receives && a->sends)
        ways[count++] = (struct way){.from = b->socket, .to = a->socket};
    if (count == 0)
        return compat_fail(EINVAL);
    run(ways, count);
    error = errno;
    for (int i = 0; i < count; i++)
        spoke_msg_free(ways[i].held);
    return compat_fail(error);
}

int
nn_device(int s1, int s2)
{
    struct side a, b;
    bool loopback = (s1 < 0) != (s2 < 0);

    if (loopback)
        s1 = s2 = s1 < 0 ? s2 : s1;
    if (look_at(s1, &a) != 0 || look_at(s2, &b) != 0)
        return -1;
    if (!fit_together(&a, &b))
        return compat_fail(EINVAL);
    return run_device(&a, &b);
}
