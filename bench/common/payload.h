/* SPDX-License-Identifier: MIT */
/* What messages carry, and how a receiver proves that it got them: all of them, in order, unharmed.
 *
 * Word 0 of a body is the message's number (56 bits) and its phase (8 bits).  Every other word is a
 * fixed pattern of its position; up to three of them (the second, the middle and the last whole
 * one) are also mixed with the number, so a stale, swapped or torn body shows.  The number is
 * checked in every message, the mixed words in every 16th, every byte in every 256th.  All programs
 * pay the same.
 *
 * Where memory is shared, bytes that nobody writes or reads would cost nothing: there every byte of
 * every message is written and read (`touches_all`). */
#ifndef BENCH_PAYLOAD_H
#define BENCH_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "meter.h"

enum bench_phase {
    BENCH_HELLO = 1, /* the connection works */
    BENCH_WARM,      /* not counted */
    BENCH_MEASURE,   /* counted */
    BENCH_LAST,      /* the first one after the measured ones; the measured time ends here */
    BENCH_SAMPLE,    /* connections: the server notes its memory before it answers */
};

enum {
    BENCH_PHASE_SHIFT = 56,
    BENCH_STAMP_EVERY = 16,
    BENCH_SCAN_EVERY = 256,
};

/* The receiver's side.  Numbers start at 0 with BENCH_HELLO and go up by one through all phases. */
struct bench_check {
    uint64_t expected; /* word 0 of the next message, unless a new phase begins */
    size_t size;
    const uint8_t *pattern; /* a body without number: see bench_pattern_new() */
    uint64_t measured;      /* messages of BENCH_MEASURE so far */
    uint64_t verified;      /* messages whose number was right */
    uint64_t errors;
    bool joins_late;            /* may miss greetings, the first ones and others */
    bool touches_all;           /* read every byte, so that it has to be here */
    uint64_t sum;               /* of what was read; no one looks at it */
    bool meters_cpu;            /* false for a thread that shares its process with the other side */
    enum bench_phase phase;     /* of the last message */
    struct bench_meter started; /* at the first message of BENCH_MEASURE */
    struct bench_meter finished; /* at BENCH_LAST */
};

static inline uint64_t
bench_word0(uint64_t number, enum bench_phase phase)
{
    return number | (uint64_t)phase << BENCH_PHASE_SHIFT;
}

static inline uint64_t
bench_number(uint64_t word0)
{
    return word0 & ((UINT64_C(1) << BENCH_PHASE_SHIFT) - 1);
}

static inline uint64_t
bench_pattern_word(size_t index)
{
    return (uint64_t)(index + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static inline uint64_t
bench_stamp_word(size_t index, uint64_t number)
{
    return bench_pattern_word(index) ^ number * UINT64_C(0xc2b2ae3d27d4eb4f);
}

/* The three positions that are mixed with the number; they may coincide. */
static inline void
bench_stamp_positions(size_t size, size_t at[3])
{
    size_t words = size / 8;

    at[0] = words > 1 ? 1 : 0;
    at[1] = words / 2;
    at[2] = words - 1;
}

/* A body of `size` bytes with the pattern and no number.  The caller frees it.  Exits when memory
 * is short. */
uint8_t *bench_pattern_new(size_t size);

/* Give a body that already has the pattern its number. */
static inline void
bench_stamp(void *body, size_t size, uint64_t number, enum bench_phase phase)
{
    uint8_t *p = body;
    uint64_t word = bench_word0(number, phase);
    size_t at[3];

    bench_stamp_positions(size, at);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t stamp = bench_stamp_word(at[i], number);
        memcpy(p + at[i] * 8, &stamp, 8);
    }
    memcpy(p, &word, 8);
}

/* Write a whole body into fresh memory. */
static inline void
bench_fill(void *body, const uint8_t *pattern, size_t size, uint64_t number, enum bench_phase phase)
{
    memcpy(body, pattern, size);
    bench_stamp(body, size, number, phase);
}

/* `size` and `pattern` as above; `meters_cpu` unless both sides live in one process. */
void bench_check_init(struct bench_check *c, size_t size, const uint8_t *pattern, bool meters_cpu);

/* Read `len` bytes, all of them. */
void bench_check_touch(struct bench_check *c, const uint8_t *data, size_t len);

/* The slow parts of bench_check_message: begin a phase or count an error; look at the mixed words
 * and the bytes. */
int bench_check_unexpected(struct bench_check *c, uint64_t word0);
int bench_check_piece(struct bench_check *c, uint64_t number, const uint8_t *data, size_t offset,
                      size_t len);

/* Check a piece of message `number`: `len` bytes that belong at `offset` of its body. */
static inline bool
bench_check_is_sampled(uint64_t number)
{
    return number % BENCH_STAMP_EVERY == 0;
}

/* Take word 0 of the next message.  0, or -1 for a message that is not the next one. */
static inline int
bench_check_word0(struct bench_check *c, uint64_t word0)
{
    if (__builtin_expect(word0 != c->expected, 0) && bench_check_unexpected(c, word0) != 0)
        return -1;
    c->expected++;
    c->verified++;
    c->measured += c->phase == BENCH_MEASURE;
    return 0;
}

/* Check one whole message.  0, or -1 for a wrong one, which is counted and described on stderr. */
static inline int
bench_check_message(struct bench_check *c, const void *body, size_t len)
{
    uint64_t word0 = 0;

    if (len >= 8)
        memcpy(&word0, body, 8);
    if (__builtin_expect(len != c->size, 0))
        return bench_check_unexpected(c, 0);
    if (bench_check_word0(c, word0) != 0)
        return -1;
    if (c->touches_all)
        bench_check_touch(c, body, len);
    if (bench_check_is_sampled(bench_number(word0)))
        return bench_check_piece(c, bench_number(word0), body, 0, len);
    return 0;
}

/* Where the next byte of a stream belongs, for bench_check_bytes(). */
struct bench_cursor {
    size_t at;       /* in a body */
    uint8_t head[8]; /* its first bytes, as far as they have come */
};

/* Check the next bytes of a stream of bodies, wherever they were cut.  A mixed word that is cut in
 * two is not checked.  0 or -1. */
int bench_check_bytes(struct bench_check *c, struct bench_cursor *k, const uint8_t *data,
                      size_t len);

/* Expect one more message of the phase that has just been sent. */
static inline void
bench_check_expect(struct bench_check *c, uint64_t number, enum bench_phase phase)
{
    c->phase = phase;
    c->expected = bench_word0(number, phase);
}

#endif
