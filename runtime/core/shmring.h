/* SPDX-License-Identifier: MIT */
/* One end's half of a connection in shared memory: what it writes and the other end reads.
 *
 *     page 0           positions and flags, each writer's and reader's on lines of their own
 *     page 1 …         numbers of loans that go back to the other end
 *     then             the ring: records for the other end, one behind the other
 *
 * Each end writes its own half only, and maps the other's read-only.  So one half has the position
 * up to which its owner has written its own ring (`tail`), and the one up to which it has read the
 * other's (`head`).  Positions count bytes and only grow; a record begins at a multiple of 8 and is
 * whole: where it would not fit before the end of the ring a SPK_SHM_SKIP fills that up.
 *
 * The other end is not trusted.  What it writes may change at any time: each word is read once,
 * then checked, and never read again.  docs/shared-memory.md has the order of all accesses. */
#ifndef SPK_CORE_SHMRING_H
#define SPK_CORE_SHMRING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <spoke/error.h>

#include "runtime/core/stop.h"

#define SPK_SHM_LOANS      1024u                 /* outstanding at a time, in one direction */
#define SPK_SHM_RING_LEAST ((uint32_t)16 * 1024) /* bytes; a power of two */
#define SPK_SHM_RING_MOST  ((uint32_t)1 << 24)

/* What a record is. */
enum {
    SPK_SHM_SKIP,    /* nothing: the ring goes on at its start */
    SPK_SHM_MESSAGE, /* a whole message: header, then body */
    SPK_SHM_LOAN,    /* struct spk_shm_loan, then the message's header; its body lies in the
                        sender's segment */
    SPK_SHM_BEGIN,   /* 8 bytes: the length of a message that comes in pieces … */
    SPK_SHM_PIECE    /* … each of which is one of these */
};

struct spk_shm_loan {
    uint32_t number; /* to be given back, below SPK_SHM_LOANS */
    uint32_t reserved;
    uint64_t offset, size; /* in the segment */
};

/* What one end wants to be woken for. */
enum { SPK_SHM_RECORDS = 1, SPK_SHM_ROOM = 2, SPK_SHM_WANTS = 3 };

struct spk_shm_half {
    _Atomic uint64_t tail;               /* of the own ring */
    _Alignas(128) _Atomic uint64_t head; /* of the other's ring */
    _Atomic uint32_t returned;           /* loans that were given back, ever */
    _Alignas(
        128) _Atomic uint32_t asleep; /* SPK_SHM_…: for what to ring the bell, once for each
                                         value; 0: for nothing.  Above, a number that changes */
    _Atomic uint32_t closed;          /* nothing more comes */
};

#define SPK_SHM_RETURNS         ((size_t)4096) /* where the numbers are */
#define SPK_SHM_RING            (SPK_SHM_RETURNS + SPK_SHM_LOANS * sizeof(uint32_t)) /* … and the ring */
#define SPK_SHM_HALF(ring_size) (SPK_SHM_RING + (size_t)(ring_size))

/* A record's first word: its payload's size, and its kind above. */
static inline uint64_t
spk_shm_word(uint32_t kind, uint32_t size)
{
    return (uint64_t)kind << 32 | size;
}

static inline uint64_t
spk_shm_whole(uint32_t payload)
{
    return 8 + (((uint64_t)payload + 7) & ~(uint64_t)7);
}

/* ---- writing ---- */

struct spk_shm_writer {
    struct spk_shm_half *mine;
    const struct spk_shm_half *theirs;
    uint8_t *ring;
    uint64_t size;      /* of the ring */
    uint64_t at;        /* behind what is written; the reader sees less until the next publish */
    uint64_t seen_head; /* of the reader, some time ago */
    uint64_t exists;    /* bytes of the ring, from its start, that have memory */
};

/* Look how far the reader is.  SPOKE_EPROTO: where it cannot be. */
int spk_shm_look(struct spk_shm_writer *w);

/* Bytes that may be written, by what was seen of the reader. */
static inline uint64_t
spk_shm_room(const struct spk_shm_writer *w)
{
    return w->size - (w->at - w->seen_head);
}

/* Go on at the ring's start: what is left of it must be in the room that there is. */
static inline void
spk_shm_wrap(struct spk_shm_writer *w)
{
    uint64_t offset = w->at & (w->size - 1), skip = w->size - offset,
             word = spk_shm_word(SPK_SHM_SKIP, (uint32_t)skip - 8);

    memcpy(w->ring + offset, &word, sizeof word);
    SPK_STOP_POINT(SKIP);
    w->at += skip;
}

/* Up to here there must be memory for a record of so many bytes at the writer's position, which is
 * not the end of the ring: for one that says where the ring goes on, too. */
static inline uint64_t
spk_shm_end(const struct spk_shm_writer *w, uint64_t whole)
{
    uint64_t end = (w->at & (w->size - 1)) + whole + 8;

    return end < w->size ? end : w->size;
}

/* Room for a record with so many bytes of payload (at most an eighth of the ring), NULL: not now.
 */
static inline uint8_t *
spk_shm_reserve(struct spk_shm_writer *w, uint32_t payload)
{
    uint64_t whole = spk_shm_whole(payload), offset = w->at & (w->size - 1),
             left = w->size - offset;
    uint64_t skip = left < whole ? left : 0;

    if (skip + whole > spk_shm_room(w) || spk_shm_end(w, whole) > w->exists)
        return NULL;
    if (skip > 0) {
        spk_shm_wrap(w);
        offset = 0;
    }
    return w->ring + offset + 8;
}

/* That is a record now. */
static inline void
spk_shm_commit(struct spk_shm_writer *w, uint32_t kind, uint32_t payload)
{
    uint64_t word = spk_shm_word(kind, payload);

    memcpy(w->ring + (w->at & (w->size - 1)), &word, sizeof word);
    SPK_STOP_POINT(RECORD);
    w->at += spk_shm_whole(payload);
}

/* The reader may see all that was committed. */
static inline void
spk_shm_publish(struct spk_shm_writer *w)
{
    /* Pairs with the acquire in spk_shm_next(): the records before their position. */
    atomic_store_explicit(&w->mine->tail, w->at, memory_order_release);
    SPK_STOP_POINT(TAIL);
}

/* ---- reading ---- */

struct spk_shm_reader {
    struct spk_shm_half *mine;
    const struct spk_shm_half *theirs;
    const uint8_t *ring; /* theirs */
    uint64_t size;
    uint64_t at;        /* behind what was taken; the writer sees less until the next release */
    uint64_t seen_tail; /* of the writer, checked */
};

struct spk_shm_record {
    uint32_t kind, size;
    const uint8_t *data; /* may change while we look */
};

/* The record at the reader's position: 1, or 0 if there is none, or SPOKE_EPROTO.  It stays there
 * until spk_shm_take(). */
static inline int
spk_shm_next(struct spk_shm_reader *r, struct spk_shm_record *out)
{
    for (;;) {
        uint64_t offset = r->at & (r->size - 1), word, whole;

        if (r->at == r->seen_tail) {
            uint64_t tail = atomic_load_explicit(&r->theirs->tail, memory_order_acquire);

            if (tail == r->at)
                return 0;
            if (tail - r->at > r->size || (tail & 7) != 0)
                return SPOKE_EPROTO;
            r->seen_tail = tail;
        }
        /* Once, whatever becomes of it. */
        word = atomic_load_explicit((const _Atomic uint64_t *)(const void *)(r->ring + offset),
                                    memory_order_relaxed);
        out->kind = (uint32_t)(word >> 32);
        out->size = (uint32_t)word;
        out->data = r->ring + offset + 8;
        whole = spk_shm_whole(out->size);
        if (whole > r->seen_tail - r->at || whole > r->size - offset)
            return SPOKE_EPROTO;
        if (out->kind != SPK_SHM_SKIP)
            return 1;
        if (offset == 0 || whole != r->size - offset) /* so there is one of them a lap */
            return SPOKE_EPROTO;
        r->at += whole;
    }
}

static inline void
spk_shm_take(struct spk_shm_reader *r, const struct spk_shm_record *record)
{
    r->at += spk_shm_whole(record->size);
}

/* The writer may have the room of all that was taken. */
static inline void
spk_shm_release(struct spk_shm_reader *r)
{
    /* Pairs with the acquire in spk_shm_look(): the bytes are read before. */
    atomic_store_explicit(&r->mine->head, r->at, memory_order_release);
    SPK_STOP_POINT(HEAD);
}

/* Is there anything that spk_shm_next() would see? */
static inline bool
spk_shm_has_record(const struct spk_shm_reader *r)
{
    return atomic_load_explicit(&r->theirs->tail, memory_order_acquire) != r->at;
}

/* ---- sleeping ---- */

/* Say that we do not look any more: the other end rings the bell when there is something of
 * `wants`.  Then look once more. */
void spk_shm_fall_asleep(struct spk_shm_half *mine, uint32_t wants);
void spk_shm_wake_up(struct spk_shm_half *mine);

/* After a publish (SPK_SHM_RECORDS) or a release (SPK_SHM_ROOM): does the other end sleep, wait for
 * this, and has not been woken?  Then the bell is to be rung, which *rung remembers. */
bool spk_shm_must_ring(const struct spk_shm_half *theirs, uint32_t what, uint32_t *rung);

#endif
