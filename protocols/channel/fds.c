/* SPDX-License-Identifier: MIT */
/* Streams in place of descriptors.  A stream socket becomes one itself.  Of pipes, terminals and
 * files, whose flags are shared with others and must stay, a thread moves the bytes to and from a
 * pair of sockets: what blocks there blocks nothing else, and it ends when that pair does. */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocols/channel/wire.h"

#define PIECE ((size_t)64 * 1024)

/* ---- what can be one ---- */

static int
check_socket(int fd)
{
    struct sockaddr_storage peer;
    int type = 0;
    socklen_t size = sizeof type;

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM)
        return SPOKE_ENOTSUP;
    size = sizeof peer;
    return getpeername(fd, (struct sockaddr *)&peer, &size) == 0 ? 0 : SPOKE_ENOTSUP;
}

int
spk_stand_in_check(int fd)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return spk_error_from_errno(errno);
    if (S_ISSOCK(st.st_mode))
        return check_socket(fd);
    return S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode) || isatty(fd) ? 0 : SPOKE_ENOTSUP;
}

/* ---- the thread ---- */

struct pump {
    int fd, pair;       /* its end of it */
    bool reads, writes; /* from fd; to it */
    uint8_t bytes[PIECE];
};

static bool
write_all(int fd, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, bytes, size);

        if (n < 0 && errno == EAGAIN) { /* another holder has made it so */
            struct pollfd p = {.fd = fd, .events = POLLOUT};

            (void)poll(&p, 1, -1);
        } else if (n < 0 && errno != EINTR) {
            return false;
        } else if (n > 0) {
            bytes += n;
            size -= (size_t)n;
        }
    }
    return true;
}

/* Some of what has come: false at the end, or if it cannot go on. */
static bool
move(struct pump *p, int from, int to)
{
    ssize_t n = read(from, p->bytes, sizeof p->bytes);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    return n > 0 && write_all(to, p->bytes, (size_t)n);
}

static void
one_round(struct pump *p)
{
    struct pollfd polled[2] = {{.fd = p->reads ? p->fd : -1, .events = POLLIN},
                               {.fd = p->pair, .events = p->writes ? POLLIN : 0}};

    if (poll(polled, 2, -1) < 0)
        return;
    if (polled[0].revents != 0 && !move(p, p->fd, p->pair)) {
        p->reads = false;
        (void)shutdown(p->pair, SHUT_WR);
    }
    if ((polled[1].revents & POLLIN) != 0) {
        if (p->writes && !move(p, p->pair, p->fd))
            p->writes = false;
    } else if ((polled[1].revents & (POLLHUP | POLLERR)) != 0) { /* the stream is gone */
        p->reads = p->writes = false;
    }
}

static void *
run(void *argument)
{
    struct pump *p = argument;

    while (p->reads || p->writes)
        one_round(p);
    close(p->fd);
    close(p->pair);
    spk_free(p);
    return NULL;
}

/* Takes fd on success. */
static int
start(struct spk_conn **out, struct spk_engine *e, int fd, int direction)
{
    struct pump *p = spk_zalloc(sizeof *p);
    int ends[2], rc;

    if (p == NULL)
        return SPOKE_ENOMEM;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        rc = spk_error_from_errno(errno);
        goto free_pump;
    }
    p->fd = fd;
    p->pair = ends[0];
    p->reads = (direction & SPOKE_ATTACHED_READS) != 0;
    p->writes = (direction & SPOKE_ATTACHED_WRITES) != 0;
    if ((rc = spk_conn_from_fd(out, ends[1], NULL, e)) != 0) {
        close(ends[1]);
        goto close_pair;
    }
    if ((rc = spk_thread_start(run, p)) == 0)
        return 0;
    spk_conn_cancel(*out, SPOKE_MUX_CANCELED);
close_pair:
    close(ends[0]);
free_pump:
    spk_free(p);
    return rc;
}

int
spk_stand_in(struct spk_conn **out, struct spk_engine *e, int fd, int direction)
{
    struct stat st;
    int rc;

    if ((rc = spk_stand_in_check(fd)) != 0)
        return rc;
    if (e->backend->is_virtual)
        return SPOKE_ENOTSUP;
    if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode))
        return spk_conn_from_fd(out, fd, NULL, e);
    return start(out, e, fd, direction);
}
