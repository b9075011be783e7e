/* SPDX-License-Identifier: MIT */
/* The rare paths of checking a payload.  Each checker belongs to one thread. */
#include "payload.h"

#include <stdio.h>
#include <stdlib.h>

uint8_t *
bench_pattern_new(size_t size)
{
    uint8_t *body = malloc(size);

    if (body == NULL) {
        fprintf(stderr, "bench: no memory for a message of %zu bytes\n", size);
        exit(1);
    }
    for (size_t i = 0; i < size / 8; i++) {
        uint64_t word = bench_pattern_word(i);
        memcpy(body + i * 8, &word, 8);
    }
    memset(body + size / 8 * 8, 0xa5, size % 8);
    return body;
}

void
bench_check_init(struct bench_check *c, size_t size, const uint8_t *pattern, bool meters_cpu)
{
    *c = (struct bench_check){.size = size, .pattern = pattern, .meters_cpu = meters_cpu};
    bench_check_expect(c, 0, BENCH_HELLO);
}

static struct bench_meter
read_meter(const struct bench_check *c)
{
    if (c->meters_cpu)
        return bench_meter_read();
    return (struct bench_meter){.wall_ns = bench_now_ns()};
}

int
bench_check_unexpected(struct bench_check *c, uint64_t word0)
{
    uint64_t number = bench_number(word0), phase = word0 >> BENCH_PHASE_SHIFT;

    if (c->joins_late && phase == BENCH_HELLO && c->phase <= BENCH_HELLO &&
        number >= bench_number(c->expected)) {
        bench_check_expect(c, number, BENCH_HELLO);
        return 0;
    }
    if (number != bench_number(c->expected) || phase <= c->phase || phase > BENCH_SAMPLE) {
        if (c->errors++ == 0)
            fprintf(stderr, "bench: got message %llu of phase %llu instead of %llu of phase %d\n",
                    (unsigned long long)number, (unsigned long long)phase,
                    (unsigned long long)bench_number(c->expected), (int)c->phase);
        return -1;
    }
    bench_check_expect(c, number, (enum bench_phase)phase);
    if (phase == BENCH_MEASURE)
        c->started = read_meter(c);
    else if (phase == BENCH_LAST)
        c->finished = read_meter(c);
    return 0;
}

void
bench_check_touch(struct bench_check *c, const uint8_t *data, size_t len)
{
    uint64_t sums[4] = {0}, words[4];
    size_t at = 0;

    for (; at + sizeof words <= len; at += sizeof words) {
        memcpy(words, data + at, sizeof words);
        for (unsigned i = 0; i < 4; i++)
            sums[i] += words[i];
    }
    for (; at < len; at++)
        sums[0] += data[at];
    c->sum += sums[0] + sums[1] + sums[2] + sums[3];
}

static int
report_damage(struct bench_check *c, uint64_t number, size_t at)
{
    if (c->errors++ == 0)
        fprintf(stderr, "bench: message %llu is damaged near byte %zu\n",
                (unsigned long long)number, at);
    return -1;
}

/* Bytes `from` to `to` of the body, none of which is mixed with the number; `data` is at `offset`.
 */
static bool
is_pattern(const struct bench_check *c, const uint8_t *data, size_t offset, size_t len, size_t from,
           size_t to)
{
    if (from < offset)
        from = offset;
    if (to > offset + len)
        to = offset + len;
    return from >= to || memcmp(data + (from - offset), c->pattern + from, to - from) == 0;
}

static int
scan(struct bench_check *c, uint64_t number, const uint8_t *data, size_t offset, size_t len)
{
    size_t at[3], from = 8;

    bench_stamp_positions(c->size, at);
    for (unsigned i = 0; i < 3; i++) {
        if (!is_pattern(c, data, offset, len, from, at[i] * 8))
            return report_damage(c, number, from);
        if (from < at[i] * 8 + 8)
            from = at[i] * 8 + 8;
    }
    return is_pattern(c, data, offset, len, from, c->size) ? 0 : report_damage(c, number, from);
}

int
bench_check_piece(struct bench_check *c, uint64_t number, const uint8_t *data, size_t offset,
                  size_t len)
{
    size_t at[3];

    bench_stamp_positions(c->size, at);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t word;
        if (at[i] == 0 || at[i] * 8 < offset || at[i] * 8 + 8 > offset + len)
            continue;
        memcpy(&word, data + (at[i] * 8 - offset), 8);
        if (word != bench_stamp_word(at[i], number))
            return report_damage(c, number, at[i] * 8);
    }
    return number % BENCH_SCAN_EVERY == 0 ? scan(c, number, data, offset, len) : 0;
}

/* The part of a body that is here; returns its size, or 0 after an error. */
static size_t
check_part(struct bench_check *c, struct bench_cursor *k, const uint8_t *data, size_t len)
{
    size_t offset = k->at, n = len < c->size - offset ? len : c->size - offset;
    uint64_t word0;

    if (offset < sizeof k->head)
        memcpy(k->head + offset, data, n < sizeof k->head - offset ? n : sizeof k->head - offset);
    k->at += n;
    if (c->touches_all)
        bench_check_touch(c, data, n);
    if (k->at < sizeof k->head)
        return n;
    memcpy(&word0, k->head, sizeof word0);
    if (offset < sizeof k->head && bench_check_word0(c, word0) != 0)
        return 0;
    if (bench_check_is_sampled(bench_number(word0)) &&
        bench_check_piece(c, bench_number(word0), data, offset, n) != 0)
        return 0;
    if (k->at == c->size)
        k->at = 0;
    return n;
}

int
bench_check_bytes(struct bench_check *c, struct bench_cursor *k, const uint8_t *data, size_t len)
{
    size_t n = 0;

    for (size_t done = 0; done < len; done += n) {
        if (k->at == 0 && len - done >= c->size) {
            n = c->size;
            if (bench_check_message(c, data + done, n) != 0)
                return -1;
        } else if ((n = check_part(c, k, data + done, len - done)) == 0) {
            return -1;
        }
    }
    return 0;
}
