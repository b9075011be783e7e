/* SPDX-License-Identifier: MIT */
/* nn_poll(): a poll of the sockets' descriptors. */
#include "internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define FEW 16 /* entries that need no memory of their own */

/* Two descriptors an entry: to receive and to send; negative ones are passed over. */
static int
prepare(const struct nn_pollfd *fds, int count, struct pollfd *each)
{
    for (int i = 0; i < count; i++) {
        for (int direction = 0; direction < 2; direction++) {
            struct pollfd *one = &each[2 * i + direction];
            int event = direction == COMPAT_RECV ? NN_POLLIN : NN_POLLOUT;

            *one = (struct pollfd){.fd = -1, .events = POLLIN};
            if ((fds[i].events & event) == 0)
                continue;
            one->fd = compat_descriptor(fds[i].fd, (enum compat_direction)direction);
            if (one->fd < 0)
                return -1;
        }
    }
    return 0;
}

/* Count the entries with events; -1 and EBADF if one was closed meanwhile, which makes its
 * descriptors readable. */
static int
report(struct nn_pollfd *fds, int count, const struct pollfd *each)
{
    int ready = 0;

    for (int i = 0; i < count; i++)
        if (fds[i].events != 0 && compat_handle(fds[i].fd) == NULL)
            return -1;
    for (int i = 0; i < count; i++) {
        fds[i].revents = (short)((each[2 * i].revents != 0 ? NN_POLLIN : 0) |
                                 (each[2 * i + 1].revents != 0 ? NN_POLLOUT : 0));
        ready += fds[i].revents != 0;
    }
    return ready;
}

static int
poll_with(struct nn_pollfd *fds, int count, int timeout, struct pollfd *each)
{
    int rc;

    if (prepare(fds, count, each) != 0)
        return -1;
    rc = poll(each, 2 * (nfds_t)count, timeout);
    return rc <= 0 ? rc : report(fds, count, each);
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
