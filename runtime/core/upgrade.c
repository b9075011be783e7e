/* SPDX-License-Identifier: MIT */
/* The side channel on which two ends agree on shared memory: a packet with an offer and its
 * descriptors each way, listener first, then a word that it is mapped.  Everything here is a plain
 * call on a descriptor that does not wait. */
#include "runtime/core/upgrade.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/core/core.h"

#define MAGIC   0x53504b53u /* "SPKS" */
#define VERSION 1u

enum { OFFER = 1, READY = 2 };

struct packet {
    uint32_t magic;
    uint16_t version, kind;
    struct spk_shm_offer offer;
};

union control {
    char bytes[CMSG_SPACE(sizeof(int) * SPK_SHM_FDS)];
    struct cmsghdr align;
};

static void
close_fds(const int *fds, int count)
{
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

/* ---- messages with descriptors ---- */

static int64_t
send_fds(int fd, const void *data, size_t size, const int *fds, int count)
{
    const struct iovec iov = {(void *)(uintptr_t)data, size};
    ssize_t n;

    if (count > 0)
        return spk_fds_send(fd, &iov, 1, fds, count);
    n = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n >= 0 ? n : spk_error_from_errno(errno);
}

/* At most SPK_SHM_FDS descriptors; whoever sends more loses them all. */
static int64_t
recv_fds(int fd, void *data, size_t size, int fds[SPK_SHM_FDS], int *count)
{
    struct iovec iov = {data, size};
    union control control;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    bool excess = false;

    *count = 0;
    if (n < 0)
        return spk_error_from_errno(errno);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c != NULL; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        /* The room for them is rounded up: there may be one more. */
        for (size_t at = 0; at < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); at++) {
            int one;

            memcpy(&one, CMSG_DATA(c) + at * sizeof one, sizeof one);
            if (*count < SPK_SHM_FDS) {
                fds[(*count)++] = one;
            } else {
                close(one);
                excess = true;
            }
        }
    }
    if (excess || (msg.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0) {
        close_fds(fds, *count);
        *count = 0;
    }
    return (msg.msg_flags & MSG_TRUNC) != 0 ? SPOKE_EPROTO : n;
}

/* ---- the greeting ---- */

/* While a connection waits to be moved its side channel takes a descriptor; so many waiting ones
 * shall not keep anybody from connecting. */
static bool
can_spare(const struct spk_upgrade *u, int fd)
{
    struct rlimit limit;

    if (u->p->endpoint->transport->shared_memory == SPK_SHM_ALWAYS)
        return true;
    return getrlimit(RLIMIT_NOFILE, &limit) != 0 || (rlim_t)fd < limit.rlim_cur / 2;
}

int64_t
spk_upgrade_say_hello(struct spk_upgrade *u, int fd, const void *hello, size_t size)
{
    int ends[2];
    int64_t n;

    if (!can_spare(u, fd) ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
        return send_fds(fd, hello, size, NULL, 0);
    SPK_STOP_POINT(SIDE_MADE);
    n = send_fds(fd, hello, size, &ends[1], 1);
    SPK_STOP_POINT(HELLO);
    close(ends[1]);
    if (n <= 0)
        close(ends[0]);
    else
        u->side = ends[0];
    return n;
}

int64_t
spk_upgrade_hear_hello(struct spk_upgrade *u, int fd, void *hello, size_t size)
{
    int fds[SPK_SHM_FDS], count;
    int64_t n = recv_fds(fd, hello, size, fds, &count);

    SPK_STOP_POINT(HELLO_HEARD);
    if (count == 1 && u->side < 0 && can_spare(u, fds[0]))
        u->side = fds[0];
    else
        close_fds(fds, count);
    return n;
}

/* ---- the side channel ---- */

static void
finish(struct spk_upgrade *u, int result)
{
    struct spk_engine *e = u->p->socket->e;

    spk_timer_cancel(e, &u->timer);
    e->backend->close_handle(e, u->side);
    u->side = -1;
    u->done(u, result);
}

/* Send a packet and, but for the last word, wait for an answer. */
static int
say(struct spk_upgrade *u, uint16_t kind)
{
    struct spk_engine *e = u->p->socket->e;
    struct packet packet = {.magic = MAGIC, .version = VERSION, .kind = kind};
    int fds[SPK_SHM_FDS] = {-1, -1, -1}, count = 0;
    int64_t n;

    if (kind == OFFER && spk_timer_set(e, &u->timer, spk_later(spk_engine_now(e), u->time)) != 0)
        return SPOKE_ENOMEM;
    if (kind == OFFER)
        count = spk_shm_offer(*u->shm, &packet.offer, fds);
    n = send_fds(u->side, &packet, sizeof packet, fds, count);
    if (n != sizeof packet)
        return n < 0 ? (int)n : SPOKE_EIO;
    if (kind == OFFER) {
        spk_shm_offered(*u->shm);
        SPK_STOP_POINT(OFFER);
    } else {
        SPK_STOP_POINT(READY);
    }
    return 0;
}

/* 1: that was the last step; 0: another one follows. */
static int
step(struct spk_upgrade *u, const struct packet *packet, const int *fds, int count)
{
    int rc;

    if (packet->magic != MAGIC || packet->version != VERSION)
        return SPOKE_EPROTO;
    if (packet->kind == READY && !u->offers_first && *u->shm != NULL && count == 0) {
        SPK_STOP_POINT(READY_HEARD);
        return 1;
    }
    if (packet->kind != OFFER || (*u->shm != NULL) != u->offers_first)
        return SPOKE_EPROTO;
    SPK_STOP_POINT(OFFER_HEARD);
    if (!u->offers_first && (rc = spk_shm_new(u->shm, u->p, u->lends)) != 0)
        return rc;
    if ((rc = spk_shm_connect(*u->shm, &packet->offer, fds, count)) != 0)
        return rc;
    if (u->offers_first)
        return (rc = say(u, READY)) != 0 ? rc : 1;
    return say(u, OFFER);
}

static void
on_readable(struct spk_op *op, int result)
{
    struct spk_upgrade *u = SPK_OWNER(op, struct spk_upgrade, op);
    int fds[SPK_SHM_FDS], count = 0, rc;
    struct packet packet = {.magic = 0};
    int64_t n;

    if (result < 0) {
        finish(u, u->reason != 0 ? u->reason : result);
        return;
    }
    n = recv_fds(u->side, &packet, sizeof packet, fds, &count);
    if (n == SPOKE_EAGAIN)
        rc = 0;
    else if (n == sizeof packet)
        rc = step(u, &packet, fds, count);
    else
        rc = n < 0 ? (int)n : SPOKE_ENOTSUP; /* it let go: a stranger, or it does not want to */
    close_fds(fds, count);
    if (rc == 0)
        spk_op_readable(u->p->socket->e, &u->op, u->side);
    else
        finish(u, rc > 0 ? 0 : rc);
}

static void
on_time(struct spk_timer *timer)
{
    struct spk_upgrade *u = SPK_OWNER(timer, struct spk_upgrade, timer);

    u->reason = SPOKE_ETIMEDOUT;
    spk_op_cancel(u->p->socket->e, &u->op);
}

void
spk_upgrade_init(struct spk_upgrade *u, struct spk_pipe *p, struct spk_shm **shm, bool offers_first,
                 void (*done)(struct spk_upgrade *u, int result))
{
    *u = (struct spk_upgrade){
        .p = p, .shm = shm, .side = -1, .offers_first = offers_first, .done = done};
    spk_op_init(&u->op, on_readable);
    spk_timer_init(&u->timer, on_time);
}

void
spk_upgrade_start(struct spk_upgrade *u, bool lends, spoke_ns time)
{
    struct spk_engine *e = u->p->socket->e;

    u->lends = lends;
    u->time = time;
    u->reason = u->offers_first ? spk_shm_new(u->shm, u->p, lends) : 0;
    if (u->offers_first && u->reason == 0)
        u->reason = say(u, OFFER);
    spk_op_readable(e, &u->op, u->side);
    if (u->reason != 0) /* it could not even begin */
        spk_op_cancel(e, &u->op);
}

void
spk_upgrade_stop(struct spk_upgrade *u)
{
    struct spk_engine *e = u->p->socket->e;

    if (u->side < 0)
        return;
    if (spk_op_busy(&u->op)) {
        spk_op_cancel(e, &u->op);
    } else {
        spk_timer_cancel(e, &u->timer);
        close(u->side);
        u->side = -1;
    }
}
