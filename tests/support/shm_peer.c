/* SPDX-License-Identifier: MIT */
#include "tests/support/shm_peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_MS 20000

/* Wait until it is readable, or the other end has hung up. */
static int
await(struct shm_peer *p, int fd, int limit_ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    for (int waited = 0;; waited++) {
        if (poll(&wait, 1, p->idle == NULL && waited < limit_ms ? 1 : 0) > 0)
            return 0;
        if (waited >= limit_ms)
            return -1;
        if (p->idle != NULL)
            p->idle(p->idle_ctx);
    }
}

int
shm_peer_send(int to, const void *data, size_t size, const int *fds, int count)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * 16)];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec iov = {(void *)(uintptr_t)data, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (count > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)count);
    }
    return sendmsg(to, &msg, MSG_NOSIGNAL) == (ssize_t)size ? 0 : -1;
}

static void *
map(int fd, size_t size, int prot)
{
    void *base = mmap(NULL, size, prot, MAP_SHARED | MAP_NORESERVE, fd, 0);

    return base == MAP_FAILED ? NULL : base;
}

static int
make_memory(const char *name, size_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, (off_t)size) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) != 0)
        return -1;
    return fd;
}

int
shm_peer_make(struct shm_peer *p, size_t ring_size, size_t segment_size)
{
    void (*idle)(void *) = p->idle;
    void *ctx = p->idle_ctx;
    int ends[2];

    *p = (struct shm_peer){.fd = -1,
                           .side = -1,
                           .half = -1,
                           .bell = -1,
                           .bell_out = -1,
                           .their_bell = -1,
                           .segment = -1,
                           .ring_size = ring_size,
                           .segment_size = segment_size,
                           .idle = idle,
                           .idle_ctx = ctx};
    if ((p->half = make_memory("hand-made", SPK_SHM_HALF(ring_size))) < 0 ||
        (p->mine = map(p->half, SPK_SHM_HALF(ring_size), PROT_READ | PROT_WRITE)) == NULL ||
        pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return -1;
    p->ring = (uint8_t *)p->mine + SPK_SHM_RING;
    p->bell = ends[0];
    p->bell_out = ends[1];
    if (segment_size == 0)
        return 0;
    if ((p->segment = make_memory("hand-made", segment_size)) < 0 ||
        (p->memory = map(p->segment, segment_size, PROT_READ | PROT_WRITE)) == NULL)
        return -1;
    return 0;
}

/* Their offer. */
static int
hear_offer(struct shm_peer *p)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * SPK_SHM_FDS)];
        struct cmsghdr align;
    } control;
    struct shm_packet packet;
    struct iovec iov = {&packet, sizeof packet};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    int fds[SPK_SHM_FDS], count;
    char path[64];

    if (await(p, p->side, LIMIT_MS) != 0 ||
        recvmsg(p->side, &msg, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof packet)
        return -1;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c == NULL || packet.magic != SHM_PEER_MAGIC || packet.kind != SHM_PEER_OFFER)
        return -1;
    count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds, CMSG_DATA(c), sizeof(int) * (size_t)count);
    p->their_ring_size = packet.offer.ring_size;
    p->theirs = map(fds[0], SPK_SHM_HALF(p->their_ring_size), PROT_READ);
    /* For reading too: otherwise SIGPIPE when they have gone. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", fds[1]);
    p->their_bell = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    close(fds[1]);
    if (count == 3) {
        p->their_memory_size = packet.offer.segment_size;
        p->their_memory = map(fds[2], p->their_memory_size, PROT_READ);
        close(fds[2]);
    }
    close(fds[0]);
    if (p->theirs == NULL || p->their_bell < 0)
        return -1;
    p->their_ring = (const uint8_t *)p->theirs + SPK_SHM_RING;
    return 0;
}

int
shm_peer_meet(struct shm_peer *p, const char *path, uint16_t protocol)
{
    const uint8_t hello[8] = {0, 'S', 'P', 0, (uint8_t)(protocol >> 8), (uint8_t)protocol};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint8_t theirs[8];
    int ends[2], rc;

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if ((p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0 ||
        connect(p->fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return -1;
    p->side = ends[0];
    rc = shm_peer_send(p->fd, hello, sizeof hello, &ends[1], 1);
    close(ends[1]);
    if (rc != 0 || await(p, p->fd, LIMIT_MS) != 0 ||
        recv(p->fd, theirs, sizeof theirs, MSG_WAITALL) != sizeof theirs)
        return -1;
    return hear_offer(p);
}

int
shm_peer_offer(struct shm_peer *p, struct shm_packet *packet, int fds[SPK_SHM_FDS])
{
    *packet = (struct shm_packet){
        .magic = SHM_PEER_MAGIC,
        .version = 1,
        .kind = SHM_PEER_OFFER,
        .offer = {.ring_size = (uint32_t)p->ring_size,
                  .has_segment = p->segment >= 0,
                  .segment_size = p->segment_size},
    };
    fds[0] = p->half;
    fds[1] = p->bell_out;
    fds[2] = p->segment;
    return p->segment >= 0 ? 3 : 2;
}

int
shm_peer_say(struct shm_peer *p, const void *packet, size_t size, const int *fds, int count)
{
    return shm_peer_send(p->side, packet, size, fds, count);
}

int
shm_peer_move(struct shm_peer *p)
{
    struct shm_packet packet;
    uint8_t moved = 0;

    if (await(p, p->side, LIMIT_MS) != 0 ||
        recv(p->side, &packet, sizeof packet, 0) != (ssize_t)sizeof packet ||
        packet.kind != SHM_PEER_READY)
        return -1;
    if (await(p, p->fd, LIMIT_MS) != 0 || recv(p->fd, &moved, 1, 0) != 1 || moved != 2)
        return -1;
    close(p->bell_out); /* they have it */
    p->bell_out = -1;
    return send(p->fd, &moved, 1, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

int
shm_peer_dial(struct shm_peer *p, const char *path, uint16_t protocol, size_t ring_size,
              size_t segment_size)
{
    struct shm_packet packet;
    int fds[SPK_SHM_FDS], count;

    if (shm_peer_make(p, ring_size, segment_size) != 0 || shm_peer_meet(p, path, protocol) != 0)
        return -1;
    count = shm_peer_offer(p, &packet, fds);
    if (shm_peer_say(p, &packet, sizeof packet, fds, count) != 0)
        return -1;
    return shm_peer_move(p);
}

static void
close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void
shm_peer_close(struct shm_peer *p)
{
    if (p->mine != NULL)
        munmap(p->mine, SPK_SHM_HALF(p->ring_size));
    if (p->memory != NULL)
        munmap(p->memory, p->segment_size);
    if (p->theirs != NULL)
        munmap((void *)(uintptr_t)p->theirs, SPK_SHM_HALF(p->their_ring_size));
    if (p->their_memory != NULL)
        munmap((void *)(uintptr_t)p->their_memory, p->their_memory_size);
    close_fd(&p->fd);
    close_fd(&p->side);
    close_fd(&p->half);
    close_fd(&p->bell);
    close_fd(&p->bell_out);
    close_fd(&p->their_bell);
    close_fd(&p->segment);
}

/* ---- records ---- */

void
shm_peer_word(struct shm_peer *p, uint64_t word)
{
    memcpy(p->ring + (p->tail & (p->ring_size - 1)), &word, sizeof word);
}

void
shm_peer_put(struct shm_peer *p, uint32_t kind, const void *payload, uint32_t size)
{
    uint64_t whole = 8 + (((uint64_t)size + 7) & ~(uint64_t)7);
    uint64_t left = p->ring_size - (p->tail & (p->ring_size - 1));

    if (left < whole) {
        shm_peer_word(p, (uint64_t)SPK_SHM_SKIP << 32 | (left - 8));
        p->tail += left;
    }
    shm_peer_word(p, (uint64_t)kind << 32 | size);
    if (size > 0)
        memcpy(p->ring + (p->tail & (p->ring_size - 1)) + 8, payload, size);
    p->tail += whole;
}

void
shm_peer_ring(struct shm_peer *p)
{
    if (write(p->their_bell, "", 1) < 0)
        return; /* full, or nobody is there */
}

void
shm_peer_publish(struct shm_peer *p)
{
    atomic_store(&p->mine->tail, p->tail);
    shm_peer_ring(p);
}

int
shm_peer_next(struct shm_peer *p, struct spk_shm_record *out, int limit_ms)
{
    for (int waited = 0;; waited++) {
        if (atomic_load(&p->theirs->tail) != p->head) {
            const uint8_t *at = p->their_ring + (p->head & (p->their_ring_size - 1));
            uint64_t word;

            memcpy(&word, at, sizeof word);
            *out = (struct spk_shm_record){(uint32_t)(word >> 32), (uint32_t)word, at + 8};
            p->head += 8 + (((uint64_t)out->size + 7) & ~(uint64_t)7);
            if (out->kind != SPK_SHM_SKIP)
                return 0;
            continue;
        }
        if (waited >= limit_ms)
            return -1;
        if (p->idle != NULL)
            p->idle(p->idle_ctx);
        else
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

bool
shm_peer_ended(struct shm_peer *p, int limit_ms)
{
    uint8_t bytes[64];
    ssize_t n;

    while (await(p, p->fd, limit_ms) == 0)
        if ((n = recv(p->fd, bytes, sizeof bytes, MSG_DONTWAIT)) == 0 ||
            (n < 0 && errno != EAGAIN && errno != EINTR))
            return true;
    return false;
}
