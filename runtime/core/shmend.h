/* SPDX-License-Identifier: MIT */
/* One end of a connection in shared memory, for the two files that make it: shm.c moves the
 * messages, shmloan.c keeps the bodies that lie in one process and are read by the other, and all
 * memory for as long as somebody needs it. */
#ifndef SPK_CORE_SHMEND_H
#define SPK_CORE_SHMEND_H

#include "runtime/core/core.h"
#include "runtime/core/shm.h"

struct spk_shm_loans_out;
struct spk_shm_loan_in;

struct spk_shm {
    struct spk_pipe *pipe;
    struct spk_engine *e;
    struct spk_region half;
    struct spk_view their_half, their_segment;
    int bell, bell_out; /* ours: rung by the other end; the second is -1 once it has been passed */
    int their_bell;
    bool lends, sending_on, receiving;
    struct spk_task task; /* looks around */
    bool ended;           /* the other end is gone, or done: what is in its ring is all */
    uint32_t rung;

    struct spk_shm_writer w;
    spoke_ns lap_ns; /* when its lap began */
    size_t inline_most, lend_least;
    spoke_msg *sending; /* waits for room; `sent` bytes of it are out, in pieces, if it has begun */
    size_t sent;
    bool begun;
    struct spk_flush flush; /* to look at the other end after messages that were sent together */

    struct spk_shm_reader r;
    spoke_msg *body; /* comes in pieces: size = what is here */
    size_t body_size;
    struct spk_timer timer; /* for the rest of it */
    struct spk_op watch, bell_op;
    void (*closed)(struct spk_pipe *p);

    /* shmloan.c */
    struct spk_shm_home *home;
    struct spk_link link;          /* there: alive, or in its grave */
    struct spk_shm_loans_out *out; /* what the other end has of ours, NULL: there never was any */
    unsigned fork_generation;
    atomic_uint refs;           /* the pipe's, and each loan's that somebody holds here */
    pthread_mutex_t lock;       /* of what follows: any thread gives loans back */
    struct spk_shm_loan_in *in; /* what the user has of theirs, NULL: there never was any */
};

struct spk_shm_home {
    struct spk_engine *e;
    struct spk_segment *segment; /* NULL: there is none to be had */
    struct spk_link live;        /* connections … */
    struct spk_link graves; /* … and those that are over, but for what the other end still has */
    struct spk_timer timer; /* looks whether it lies idle … */
    uint64_t allocs, seen;  /* chunks ever; at the last look */
    struct spk_flush flush; /* forgets … */
    spoke_msg *copied;      /* … the last message that was copied into the segment, as others hold
                               it too */
    struct spk_chunk *copy;
};

/* At least a page. */
static inline size_t
spk_shm_power_of_two(size_t size)
{
    size_t power = SPK_PAGE;

    while (power < size)
        power *= 2;
    return power;
}

/* What has been copied is not read again where it comes from, whatever the compiler thinks of it.
 */
static inline void
spk_shm_read_once(void)
{
    atomic_signal_fence(memory_order_seq_cst);
}

/* ---- shm.c ---- */

/* The other end has broken the rules, or there is no room for what it sends. */
void spk_shm_broken(struct spk_shm *shm, int reason);

/* ---- shmloan.c ---- */

int spk_shm_take_back(struct spk_shm *shm);
/* Take back what the other end has given back.  SPOKE_EPROTO: it never had that. */
static inline int
spk_shm_collect(struct spk_shm *shm)
{
    return shm->out == NULL ? 0 : spk_shm_take_back(shm);
}

/* May the other end have one more? */
bool spk_shm_may_lend(struct spk_shm *shm);
/* Then lend it the body of `m`: false, there is no place for it. */
bool spk_shm_lend(struct spk_shm *shm, spoke_msg *m, struct spk_shm_loan *loan);
/* A message that is the sender's memory.  NULL: *rc says why. */
spoke_msg *spk_shm_borrow(struct spk_shm *shm, const struct spk_shm_record *record, int *rc);
/* The pipe is done with it.  What the other end still has of ours is kept until that is back. */
void spk_shm_bury(struct spk_shm *shm);

#endif
