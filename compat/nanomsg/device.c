/* SPDX-License-Identifier: MIT */
/* nn_device(): messages pass from one raw socket to another, by reference and with their words, on
 * the caller's thread. */
#include "internal.h"

#include <poll.h>

struct side {
    int socket, protocol, peer;
    bool raw;
    int recv_fd, send_fd; /* -1: it does not receive, or send */
    int end_fd;           /* we hold it, so the others and the number are not given back either */
};

/* One direction, and the message that could not be passed on yet. */
struct way {
    const struct side *from, *to;
    spoke_msg *held;
};

struct device {
    struct side sides[2]; /* twice the same, if there is one socket alone */
    int side_count;       /* that we hold */
    struct way ways[2];
    int way_count;
};

#define MESSAGES_A_TURN 64 /* then the other way has its turn */

/* Pass on what there is; 0, or an error of spoke but SPOKE_EAGAIN. */
static int
pass(struct way *way)
{
    spoke_socket *from = compat_handle(way->from->socket);
    spoke_socket *to = compat_handle(way->to->socket);
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

/* Wait until one of the ways can go on, or one of the sockets is closed: also one that the ways
 * have nothing to wait for. */
static int
wait_for(const struct device *d)
{
    struct pollfd fds[4];
    nfds_t count = 0;

    for (int i = 0; i < d->way_count; i++) {
        const struct way *way = &d->ways[i];
        int fd = way->held != NULL ? way->to->send_fd : way->from->recv_fd;

        fds[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    for (int i = 0; i < d->side_count; i++)
        fds[count++] = (struct pollfd){.fd = d->sides[i].end_fd, .events = POLLIN};
    return poll(fds, count, -1);
}

/* Until something goes wrong; leaves errno. */
static void
run(struct device *d)
{
    int rc;

    do {
        for (int i = 0; i < d->way_count; i++) {
            if ((rc = pass(&d->ways[i])) != 0) {
                compat_fail_as(rc);
                return;
            }
        }
    } while (wait_for(d) >= 0);
}

/* Leaves errno. */
static void
end(void *device)
{
    struct device *d = device;
    int error = errno;

    for (int i = 0; i < d->way_count; i++)
        spoke_msg_free(d->ways[i].held);
    for (int i = 0; i < d->side_count; i++)
        compat_poll_end(d->sides[i].socket);
    errno = error;
}

/* ---- which sockets ---- */

/* Hold socket `s`, and see what it is; 0, or -1 and errno. */
static int
add_side(struct device *d, int s)
{
    struct side *side = &d->sides[d->side_count];
    spoke_socket *handle;
    int rc;

    if ((side->end_fd = compat_poll_begin(s, COMPAT_END)) < 0)
        return -1;
    d->side_count++;
    side->socket = s;
    if ((handle = compat_handle(s)) == NULL)
        return -1;
    if ((rc = spoke_socket_get_int(handle, SPOKE_OPT_PROTOCOL, &side->protocol)) != 0 ||
        (rc = spoke_socket_get_int(handle, SPOKE_OPT_PEER, &side->peer)) != 0 ||
        (rc = spoke_socket_get_bool(handle, SPOKE_OPT_RAW, &side->raw)) != 0)
        return compat_fail_as(rc);
    if (((side->recv_fd = compat_descriptor(s, COMPAT_RECV)) < 0 && errno != ENOPROTOOPT) ||
        ((side->send_fd = compat_descriptor(s, COMPAT_SEND)) < 0 && errno != ENOPROTOOPT))
        return -1;
    return 0;
}

static bool
fit_together(const struct side *a, const struct side *b)
{
    return a->raw && b->raw && a->protocol == b->peer && b->protocol == a->peer;
}

static void
add_way(struct device *d, const struct side *from, const struct side *to)
{
    if (from->recv_fd >= 0 && to->send_fd >= 0)
        d->ways[d->way_count++] = (struct way){.from = from, .to = to};
}

/* Leaves errno. */
static void
run_between(struct device *d, int s1, int s2)
{
    const struct side *a = &d->sides[0], *b = &d->sides[1];

    if ((s1 < 0) != (s2 < 0))
        s1 = s2 = s1 < 0 ? s2 : s1;
    if (add_side(d, s1) != 0 || add_side(d, s2) != 0)
        return;
    if (fit_together(a, b)) {
        add_way(d, a, b);
        if (s1 != s2)
            add_way(d, b, a);
    }
    if (d->way_count > 0)
        run(d);
    else
        errno = EINVAL;
}

int
nn_device(int s1, int s2)
{
    struct device d = {.side_count = 0};

    pthread_cleanup_push(end, &d); /* also if the thread is cancelled */
    run_between(&d, s1, s2);
    pthread_cleanup_pop(1);
    return -1;
}
