/* SPDX-License-Identifier: MIT */
/* What the backends on real descriptors share: making sockets, asking about them, and sending and
 * receiving at once.  Nothing here keeps state, so any thread may run it.
 *
 * Plain recv() is used but for receives that are told to bring descriptors (fds.h): it gives the
 * kernel no room for control messages, so descriptors that a peer attaches to its bytes are dropped
 * and never open here. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <time.h>
#include <unistd.h>

#include "runtime/engine/backend.h"
#include "runtime/engine/fds.h"

/* A call's 0 or -1 as 0 or SPOKE_E…. */
static int
outcome(int rc)
{
    return rc == 0 ? 0 : spk_error_from_errno(errno);
}

int
spk_posix_socket(struct spk_engine *e, int family, int *handle)
{
    (void)e;
    *handle = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return *handle >= 0 ? 0 : spk_error_from_errno(errno);
}

int
spk_posix_bind(struct spk_engine *e, int handle, const struct sockaddr *address, socklen_t size)
{
    (void)e;
    return outcome(bind(handle, address, size));
}

int
spk_posix_listen(struct spk_engine *e, int handle, int backlog)
{
    (void)e;
    return outcome(listen(handle, backlog));
}

void
spk_posix_close_handle(struct spk_engine *e, int handle)
{
    (void)e;
    close(handle);
}

int
spk_posix_shutdown(struct spk_engine *e, int handle, bool reading)
{
    (void)e;
    return outcome(shutdown(handle, reading ? SHUT_RD : SHUT_WR));
}

static int
family_of(int handle)
{
    int family = AF_UNSPEC;
    socklen_t size = sizeof family;

    getsockopt(handle, SOL_SOCKET, SO_DOMAIN, &family, &size);
    return family;
}

int
spk_posix_set_option(struct spk_engine *e, int handle, enum spk_socket_option option, int value)
{
    static const struct {
        int level, name;
        bool inet_only; /* other families accept some of these in silence */
    } options[] = {
        [SPK_TCP_NODELAY] = {IPPROTO_TCP, TCP_NODELAY, true},
        [SPK_TCP_KEEPALIVE] = {SOL_SOCKET, SO_KEEPALIVE, true},
        [SPK_TCP_KEEPALIVE_IDLE] = {IPPROTO_TCP, TCP_KEEPIDLE, true},
        [SPK_TCP_KEEPALIVE_INTERVAL] = {IPPROTO_TCP, TCP_KEEPINTVL, true},
        [SPK_TCP_USER_TIMEOUT] = {IPPROTO_TCP, TCP_USER_TIMEOUT, true},
        [SPK_REUSEADDR] = {SOL_SOCKET, SO_REUSEADDR, false},
        [SPK_V6ONLY] = {IPPROTO_IPV6, IPV6_V6ONLY, true},
    };

    (void)e;
    if (option == SPK_RESET_ON_CLOSE) {
        const struct linger now = {.l_onoff = value, .l_linger = 0};

        return outcome(setsockopt(handle, SOL_SOCKET, SO_LINGER, &now, sizeof now));
    }
    if (options[option].inet_only) {
        int family = family_of(handle);

        if (family != AF_INET6 && (family != AF_INET || option == SPK_V6ONLY))
            return SPOKE_ENOTSUP;
    }
    return outcome(
        setsockopt(handle, options[option].level, options[option].name, &value, sizeof value));
}

int
spk_posix_local_address(struct spk_engine *e, int handle, struct sockaddr_storage *address,
                        socklen_t *size)
{
    (void)e;
    *size = sizeof *address;
    return outcome(getsockname(handle, (struct sockaddr *)address, size));
}

int
spk_posix_peer_address(struct spk_engine *e, int handle, struct sockaddr_storage *address,
                       socklen_t *size)
{
    (void)e;
    *size = sizeof *address;
    return outcome(getpeername(handle, (struct sockaddr *)address, size));
}

int
spk_posix_credentials(struct spk_engine *e, int handle, struct spk_credentials *out)
{
    struct ucred peer = {.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
    socklen_t size = sizeof peer;
    int rc;

    (void)e;
    *out = (struct spk_credentials){.pid = 0, .uid = -1, .gid = -1};
    if (family_of(handle) != AF_UNIX)
        return SPOKE_ENOTSUP;
    if ((rc = outcome(getsockopt(handle, SOL_SOCKET, SO_PEERCRED, &peer, &size))) != 0)
        return rc;
    *out = (struct spk_credentials){peer.pid, (int)peer.uid, (int)peer.gid};
    return 0;
}

int64_t
spk_posix_recv_now(struct spk_engine *e, int handle, void *buffer, size_t size)
{
    ssize_t n = recv(handle, buffer, size, MSG_DONTWAIT);

    (void)e;
    return n >= 0 ? n : spk_error_from_errno(errno);
}

int64_t
spk_posix_receive(const struct spk_op *op, void *buffer, size_t size)
{
    if (op->u.recv.fds != NULL)
        return spk_fds_recv(op->handle, buffer, size, op->u.recv.fds);
    return spk_posix_recv_now(NULL, op->handle, buffer, size);
}

int64_t
spk_posix_send_now(struct spk_engine *e, int handle, const struct iovec *iov, int count)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count};
    ssize_t n = count == 1 ? send(handle, iov->iov_base, iov->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL)
                           : sendmsg(handle, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

    (void)e;
    return n >= 0 ? n : spk_error_from_errno(errno);
}

spoke_ns
spk_posix_now(struct spk_engine *e)
{
    struct timespec now;

    (void)e;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SPOKE_SECOND + now.tv_nsec;
}
