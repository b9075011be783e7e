/* SPDX-License-Identifier: MIT */
/* Bodies that are lent to a library for a zero-copy send and come back when it has let go of them.
 * They hold the pattern already, so only the number is written per message.
 *
 * One thread takes; any thread gives back.  The last one back is the first one out: it is the
 * likeliest to be in a cache. */
#ifndef BENCH_BUFFERS_H
#define BENCH_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

/* From this size on lending is faster than copying, for every library here that can lend. */
enum { BENCH_LEND_MIN = 16 * 1024 };

struct bench_buffers;

/* 64 MiB worth of bodies, at least 64 and at most 4096.  Exits when memory is short. */
struct bench_buffers *bench_buffers_new(size_t size, const uint8_t *pattern);
void bench_buffers_free(struct bench_buffers *b);

unsigned bench_buffers_count(const struct bench_buffers *b);

/* A body, or NULL while all are out. */
void *bench_buffers_take(struct bench_buffers *b);

/* The shape of a free callback: `hint` is the struct bench_buffers. */
void bench_buffers_give(void *body, void *hint);

#endif
