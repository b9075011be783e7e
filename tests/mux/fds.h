/* SPDX-License-Identifier: MIT */
/* Sending and taking descriptors by the calls that the layers above have, and telling whether any
 * copy of one is open anywhere.  Nothing here waits for ever: what does not come in time fails the
 * test.  Main thread of a test. */
#ifndef TESTS_MUX_FDS_H
#define TESTS_MUX_FDS_H

#include "runtime/stream/conn.h"
#include "tests/mux/fixture.h"
#include "tests/support/endpoints.h"
#include "tests/support/resources.h"

enum carrier {
    OVER_INPROC = INPROC,
    OVER_IPC = IPC,
    OVER_TCP = TCP,
    OVER_SHM = SHM,
    OVER_FD,
    OVER_PAIR
};

/* Let the engine do what there is to do, or wait for a moment. */
void fds_drive(spoke_engine *e);

/* Descriptors to send: writing ends of one pipe, whose reading end ends when no copy is left. */
struct lines {
    int listener, count;
    int ends[3 * SPK_FDS_MOST];
};
void lines_open(struct lines *l, int count);
bool lines_are_closed(const struct lines *l);
void lines_close(struct lines *l); /* the listener's end; the others are passed, or closed */

/* A piece of what has arrived, and what came with it. */
struct taken {
    char text[256];
    size_t size;
    int fds[SPK_FDS_MOST], count;
};

bool passes_fds(spoke_stream *s);
int64_t try_fds(spoke_stream *s, const struct iovec *buffers, int count, const int *fds, int n);
bool try_take(spoke_stream *s, struct taken *out);
int read_end_of(spoke_stream *s); /* 0: it goes on */
void taken_close(struct taken *in);

/* The same, with patience. */
void send_fds(spoke_engine *e, spoke_stream *s, const char *text, const int *fds, int n);
void send_text(spoke_engine *e, spoke_stream *s, const char *text);
struct taken take_piece(spoke_engine *e, spoke_stream *s);

/* This text comes, NULL: any piece, and `count` descriptors, which are closed, at these of its
 * bytes. */
void expect_pieces(spoke_engine *e, spoke_stream *s, const char *text, const int *at, int count);

#endif
