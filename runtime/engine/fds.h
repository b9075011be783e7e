/* SPDX-License-Identifier: MIT */
/* Descriptors that go along with bytes: sets of them in memory, and over unix sockets of the
 * kernel's. */
#ifndef SPK_ENGINE_FDS_H
#define SPK_ENGINE_FDS_H

#include <stdint.h>
#include <sys/uio.h>

#define SPK_FDS_MOST    253 /* in one set: what the kernel passes at a time */
#define SPK_FDS_WAITING 512 /* that came through one connection and were not taken */

/* Some that go together, and whoever has the set has them: what is still in it is closed with it.
 * Who takes one out puts -1 there. */
struct spk_fds {
    struct spk_fds *next; /* in a queue */
    uint64_t at;          /* position in its stream of the byte that they came with */
    int count;            /* 1 … SPK_FDS_MOST */
    int numbers[];
};

/* Takes the descriptors; NULL: there is no memory, and they stay the caller's. */
struct spk_fds *spk_fds_new(const int *fds, int count);
void spk_fds_close(struct spk_fds *set); /* what is in it, and the set; NULL: nothing */
void spk_fds_free(struct spk_fds *set);  /* the set alone: its descriptors are somebody else's */
void spk_fds_close_queue(struct spk_fds **first);
/* Can they be passed?  SPOKE_EINVAL: one is not open, or is an io_uring. */
int spk_fds_check(const int *fds, int count);

/* On a unix socket, at once. */

/* Send bytes, the first of which has copies of some descriptors with it: bytes or SPOKE_E….
 * SPOKE_ELIMIT: too many of this user's are on their way; SPOKE_EINVAL: some cannot be passed. */
int64_t spk_fds_send(int socket, const struct iovec *iov, int count, const int *fds, int n);

/* Receive bytes, and the descriptors that came with one of them, if there are any: bytes, 0 = the
 * end, or SPOKE_E….  SPOKE_ELIMIT: this process may not have all that came, SPOKE_EPROTO: or
 * something else did not let them in; none is left then. */
struct spk_fds_in {
    int count;
    int numbers[SPK_FDS_MOST];
};
int64_t spk_fds_recv(int socket, void *buffer, size_t size, struct spk_fds_in *in);
void spk_fds_in_close(struct spk_fds_in *in);

#endif
