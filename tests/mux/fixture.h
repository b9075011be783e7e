/* SPDX-License-Identifier: MIT */
/* A mux and a peer that says any bytes: both ends of a stream in the simulated world, so that what
 * is said is heard at once and time passes only when a test lets it.  Bytes are written as hex,
 * with blanks.  Main thread of a test. */
#ifndef TESTS_MUX_FIXTURE_H
#define TESTS_MUX_FIXTURE_H

#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/support/test.h"

#define PREFACE_ODD  "53504b4d 01 00 0000 00000100 00000000" /* as a peer says it */
#define PREFACE_EVEN "53504b4d 01 01 0000 00000100 00000000"

struct bench {
    spoke_sim *w;
    spoke_engine *e;
    spoke_stream *raw; /* the peer's end */
    spoke_mux *m;
    bool native;
    struct spoke_memory_stats before;
};

/* A mux with a peer that has introduced itself, and has answered the first ping.  `config` NULL:
 * the defaults.  `even`: the mux is. */
void bench_open(struct bench *x, bool native, bool even, const spoke_mux_config *config);
/* The same without any words. */
void bench_open_silent(struct bench *x, const spoke_mux_config *config);
/* Nothing may be left. */
void bench_close(struct bench *x);

void bench_say(struct bench *x, const char *hex);
void bench_say_bytes(struct bench *x, const void *bytes, size_t size);
/* Exactly this is there to be heard now. */
void bench_hears(struct bench *x, const char *hex);
/* What is there: its size. */
size_t bench_hear(struct bench *x, uint8_t *bytes, size_t size);
void bench_pass(struct bench *x, spoke_ns time);

/* Is the mux still there?  And why not. */
bool bench_is_open(struct bench *x);
void bench_ended(struct bench *x, int code);
/* The mux has ended because of what the peer said, a native one after saying so, and the peer's
 * carrier has ended. */
void bench_broken(struct bench *x, int code, uint64_t wire_code);

/* Streams between the two: id 1 by the peer of an even mux, by an odd mux itself. */
spoke_stream *bench_accept(struct bench *x, const char *open);
spoke_stream *bench_dial(struct bench *x, const char *open, const char *accept);

size_t hex_bytes(const char *hex, uint8_t *bytes, size_t size);

/* Reads and writes that do not wait. */
int read_now(spoke_stream *s, void *bytes, size_t size, size_t *done);
int write_now(spoke_stream *s, const void *bytes, size_t size, size_t *done);
/* What a read gives after everything has been read, and what a write gives. */
int read_end(spoke_stream *s);
int write_end(spoke_stream *s);

#endif
