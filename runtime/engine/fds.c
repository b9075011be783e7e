/* SPDX-License-Identifier: MIT */
/* Sets of descriptors, and SCM_RIGHTS.  Nothing here keeps state, so any thread may run it.
 *
 * What the kernel does: descriptors belong to the bytes of the sendmsg() that brought them.  The
 * recvmsg() that gives the first of these bytes gives them, if it has room for them; a receive
 * gives one such set at most, and nothing behind the bytes of the set.  A receive without room for
 * them loses them. */
#include "runtime/engine/fds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <spoke/error.h>

#include "runtime/engine/engine.h"
#include "runtime/memory/pool.h"

/* Besides, a socket of the user's may have been told to say who sends (SO_PASSCRED and others). */
#define OTHERS 512

union control {
    char bytes[CMSG_SPACE(sizeof(int) * SPK_FDS_MOST) + OTHERS];
    struct cmsghdr align;
};

/* ---- sets ---- */

struct spk_fds *
spk_fds_new(const int *fds, int count)
{
    struct spk_fds *set = spk_pool_alloc_other(sizeof *set + sizeof(int) * (size_t)count);

    if (set == NULL)
        return NULL;
    *set = (struct spk_fds){.count = count};
    memcpy(set->numbers, fds, sizeof(int) * (size_t)count);
    return set;
}

void
spk_fds_free(struct spk_fds *set)
{
    spk_pool_free_other(set);
}

static void
close_all(const int *fds, int count)
{
    for (int i = 0; i < count; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

void
spk_fds_close(struct spk_fds *set)
{
    if (set == NULL)
        return;
    close_all(set->numbers, set->count);
    spk_fds_free(set);
}

void
spk_fds_close_queue(struct spk_fds **first)
{
    while (*first != NULL) {
        struct spk_fds *set = *first;

        *first = set->next;
        spk_fds_close(set);
    }
}

/* The kernel refuses them, as two that hold each other would never end. */
static bool
is_uring(int fd)
{
    static const char name[] = "anon_inode:[io_uring]";
    char path[32], target[sizeof name];

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return readlink(path, target, sizeof target) == sizeof name - 1 &&
           memcmp(target, name, sizeof name - 1) == 0;
}

int
spk_fds_check(const int *fds, int count)
{
    struct stat st;

    if (count < 1 || count > SPK_FDS_MOST)
        return SPOKE_EINVAL;
    for (int i = 0; i < count; i++) {
        if (fstat(fds[i], &st) != 0 || ((st.st_mode & S_IFMT) == 0 && is_uring(fds[i])))
            return SPOKE_EINVAL;
    }
    return 0;
}

/* ---- over a socket ---- */

int64_t
spk_fds_send(int socket, const struct iovec *iov, int count, const int *fds, int n)
{
    union control control;
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov,
                         .msg_iovlen = (size_t)count,
                         .msg_control = control.bytes,
                         .msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n)};
    struct cmsghdr *c;
    ssize_t sent;

    memset(control.bytes, 0, msg.msg_controllen);
    c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)n);
    sent = sendmsg(socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0)
        return sent;
    return errno == ETOOMANYREFS ? SPOKE_ELIMIT
           : errno == EBADF      ? SPOKE_EINVAL
                                 : spk_error_from_errno(errno);
}

static void
collect(struct msghdr *msg, struct spk_fds_in *in)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
            n > SPK_FDS_MOST) /* the kernel never gives more, nor twice */
            continue;
        memcpy(in->numbers, CMSG_DATA(c), n * sizeof(int));
        in->count = (int)n;
    }
}

/* Was it that there are no more to be had? */
static bool
is_table_full(int socket)
{
    int fd = fcntl(socket, F_DUPFD_CLOEXEC, 0);

    if (fd < 0)
        return true;
    close(fd);
    return false;
}

int64_t
spk_fds_recv(int socket, void *buffer, size_t size, struct spk_fds_in *in)
{
    union control control;
    struct iovec iov = {buffer, size};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    in->count = 0;
    if (n < 0)
        return spk_error_from_errno(errno);
    if (msg.msg_controllen > 0)
        collect(&msg, in);
    if ((msg.msg_flags & MSG_CTRUNC) != 0) {
        int rc = is_table_full(socket) ? SPOKE_ELIMIT : SPOKE_EPROTO;

        spk_fds_in_close(in);
        return rc;
    }
    return n;
}

void
spk_fds_in_close(struct spk_fds_in *in)
{
    close_all(in->numbers, in->count);
    in->count = 0;
}
