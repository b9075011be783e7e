/* SPDX-License-Identifier: MIT */
/* One end of a connection in shared memory, and what the connections of a socket have in common:
 * the segment that its large messages lie in.  With the engine entered, but where something else is
 * said.  docs/shared-memory.md */
#ifndef SPK_CORE_SHM_H
#define SPK_CORE_SHM_H

#include "runtime/core/shmring.h"
#include "runtime/core/transport.h"
#include "runtime/memory/shared.h"

#define SPK_SHM_FDS 3 /* the half, the bell, and the segment if there is one */

struct spk_shm;
struct spk_shm_home;

/* What one end tells the other about its half. */
struct spk_shm_offer {
    uint32_t ring_size;
    uint32_t has_segment;
    uint64_t segment_size;
};

/* ---- a connection's end ---- */

/* Make our half for a pipe, which is attached.  `lends`: the other end may read our socket's
 * segment. */
int spk_shm_new(struct spk_shm **out, struct spk_pipe *p, bool lends);
/* What to tell the other end, and the descriptors to pass, which stay ours; returns how many. */
int spk_shm_offer(struct spk_shm *shm, struct spk_shm_offer *out, int fds[SPK_SHM_FDS]);
/* They have been passed: only the other end has the bell's write end now, so that its end of file
 * tells. */
void spk_shm_offered(struct spk_shm *shm);
/* The other end's half, as it was told.  Takes no descriptor.  SPOKE_EPROTO: it is none. */
int spk_shm_connect(struct spk_shm *shm, const struct spk_shm_offer *offer, const int *fds,
                    int count);

bool spk_shm_is_connected(const struct spk_shm *shm);

/* The pipe's messages go through here now: as those of struct spk_pipe_ops. */
void spk_shm_start_sending(struct spk_shm *shm);
void spk_shm_start_receiving(struct spk_shm *shm);
void spk_shm_peer_gone(struct spk_shm *shm); /* what is in its ring is all */
int spk_shm_send(struct spk_shm *shm, spoke_msg *m);
int spk_shm_send_many(struct spk_shm *shm, spoke_msg **messages, int count, uint64_t *bytes);
spoke_msg *spk_shm_loan(struct spk_shm *shm, size_t size);
uint64_t spk_shm_pending(const struct spk_shm *shm, uint64_t *bytes);
void spk_shm_give_back(struct spk_shm *shm);
/* Deliver what has come, at most so many messages, then wait for more. */
void spk_shm_read(struct spk_shm *shm, int most);

/* Nothing more is sent, received or waited for.  `done` is called when no operation is outstanding,
 * perhaps at once; then spk_shm_free(). */
void spk_shm_close(struct spk_shm *shm, void (*done)(struct spk_pipe *p));
void spk_shm_free(struct spk_shm *shm);

/* ---- a socket's home ---- */

/* The one of this socket, made at the first call; NULL: no memory. */
struct spk_shm_home *spk_shm_home(struct spk_socket *s);
void spk_shm_home_close(struct spk_shm_home *home);
/* What its segment holds, when all that has been given back is taken back. */
void spk_shm_home_stats(struct spk_shm_home *home, struct spk_segment_stats *out);

#endif
