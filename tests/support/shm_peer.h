/* SPDX-License-Identifier: MIT */
/* One end of a connection in shared memory, made by hand: it agrees on the memory as
 * docs/shared-memory.md says, and then writes there what a test wants.  Of the library's it has
 * only the layout.  Nothing here asserts: results are 0, or -1. */
#ifndef TESTS_SUPPORT_SHM_PEER_H
#define TESTS_SUPPORT_SHM_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/core/shm.h"

struct shm_peer {
    int fd, side;   /* the stream and the side channel, -1: closed */
    int half, bell; /* ours: to be passed; what the other end rings */
    int bell_out;   /* … through this, which we keep as well, or -1 */
    int their_bell; /* what we ring */
    int segment;    /* -1: none */
    size_t ring_size, segment_size;
    struct spk_shm_half *mine;
    uint8_t *ring, *memory; /* of our segment */
    const struct spk_shm_half *theirs;
    const uint8_t *their_ring, *their_memory;
    size_t their_ring_size, their_memory_size;
    uint64_t tail, head;     /* how far we have written and read */
    void (*idle)(void *ctx); /* called while we wait, NULL: nobody */
    void *idle_ctx;
};

/* The packet of the side channel. */
struct shm_packet {
    uint32_t magic;
    uint16_t version, kind;
    struct spk_shm_offer offer;
};
#define SHM_PEER_MAGIC 0x53504b53u
enum { SHM_PEER_OFFER = 1, SHM_PEER_READY = 2 };

/* Send all of that on a socket, with so many descriptors, at most 16. */
int shm_peer_send(int to, const void *data, size_t size, const int *fds, int count);
/* Our memory: a half with such a ring, a bell, and a segment unless its size is 0. */
int shm_peer_make(struct shm_peer *p, size_t ring_size, size_t segment_size);
/* Connect to a path, and greet with a side channel; take the other end's offer. */
int shm_peer_meet(struct shm_peer *p, const char *path, uint16_t protocol);
/* What an honest end would offer, and its descriptors; returns how many. */
int shm_peer_offer(struct shm_peer *p, struct shm_packet *packet, int fds[SPK_SHM_FDS]);
int shm_peer_say(struct shm_peer *p, const void *packet, size_t size, const int *fds, int count);
/* Wait for the last word, and move: both ways of the stream have ended with a byte 02. */
int shm_peer_move(struct shm_peer *p);
/* All of these. */
int shm_peer_dial(struct shm_peer *p, const char *path, uint16_t protocol, size_t ring_size,
                  size_t segment_size);
void shm_peer_close(struct shm_peer *p);

void shm_peer_word(struct shm_peer *p, uint64_t word); /* where our tail is, which stays */
/* A whole record, behind a SKIP if need be; nobody sees it yet. */
void shm_peer_put(struct shm_peer *p, uint32_t kind, const void *payload, uint32_t size);
void shm_peer_publish(struct shm_peer *p); /* and ring */
void shm_peer_ring(struct shm_peer *p);
/* The next record of the other end's; it is taken.  -1: none came in time. */
int shm_peer_next(struct shm_peer *p, struct spk_shm_record *out, int limit_ms);
/* Has the other end closed the stream, or does it within the limit? */
bool shm_peer_ended(struct shm_peer *p, int limit_ms);

#endif
