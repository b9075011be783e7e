/* SPDX-License-Identifier: MIT */
/* nn_poll(): a poll of the sockets' descriptors. */
#include "internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define FEW 16 /* entries that need no memory of their own */

struct polling {
    struct nn_pollfd *fds;
    int count;
    struct pollfd *each; /* two an entry: to receive and to send; negative: not asked for */
};

/* Leaves errno. */
static void
release(void *polling)
{
    const struct polling *p = polling;
    int error = errno;

    for (int i = 0; i < 2 * p->count; i++)
        if (p->each[i].fd >= 0)
            compat_poll_end(p->fds[i / 2].fd);
    errno = error;
}

static bool
prepare(struct polling *p)
{
    for (int i = 0; i < 2 * p->count; i++)
        p->each[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    for (int i = 0; i < 2 * p->count; i++) {
        enum compat_fd which = i % 2 == 0 ? COMPAT_RECV : COMPAT_SEND;
        int event = which == COMPAT_RECV ? NN_POLLIN : NN_POLLOUT;

        if ((p->fds[i / 2].events & event) != 0 &&
            (p->each[i].fd = compat_poll_begin(p->fds[i / 2].fd, which)) < 0)
            return false;
    }
    return true;
}

/* Count the entries with events; -1 and EBADF if one was closed meanwhile, which makes its
 * descriptors readable. */
static int
report(const struct polling *p)
{
    int ready = 0;

    for (int i = 0; i < p->count; i++)
        if (p->fds[i].events != 0 && compat_handle(p->fds[i].fd) == NULL)
            return -1;
    for (int i = 0; i < p->count; i++) {
        p->fds[i].revents = (short)((p->each[2 * i].revents != 0 ? NN_POLLIN : 0) |
                                    (p->each[2 * i + 1].revents != 0 ? NN_POLLOUT : 0));
        ready += p->fds[i].revents != 0;
    }
    return ready;
}

/* Also a thread that is cancelled while it polls releases what it holds. */
static int
poll_with(struct nn_pollfd *fds, int count, int timeout, struct pollfd *each)
{
    struct polling p = {.fds = fds, .count = count, .each = each};
    int rc = -1;

    if (!prepare(&p)) {
        release(&p);
        return -1;
    }
    pthread_cleanup_push(release, &p);
    rc = poll(each, 2 * (nfds_t)count, timeout);
    if (rc > 0)
        rc = report(&p);
    pthread_cleanup_pop(1);
    return rc;
}

int
nn_poll(struct nn_pollfd *fds, int nfds, int timeout)
{
    struct pollfd few[2 * FEW], *many;
    int rc, error;

    if (nfds < 0)
        return compat_fail(EINVAL);
    if (fds == NULL && nfds > 0)
        return compat_fail(EFAULT);
    if (nfds <= FEW)
        return poll_with(fds, nfds, timeout, few);
    if ((many = malloc(2 * (size_t)nfds * sizeof *many)) == NULL)
        return compat_fail(ENOMEM);
    rc = poll_with(fds, nfds, timeout, many);
    error = errno;
    free(many);
    errno = error;
    return rc;
}
