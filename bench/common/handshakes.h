/* SPDX-License-Identifier: MIT */
/* The works handshakes and resumptions: one connection after the other, each with the handshake of
 * TLS, that of the Scalability Protocols, and eight bytes there and back.  Handshakes are full
 * ones; of resumptions all but the first go on with the session of the connection before, or the
 * run fails. */
#ifndef BENCH_HANDSHAKES_H
#define BENCH_HANDSHAKES_H

#include <stdbool.h>
#include <stddef.h>

#include "options.h"

/* One side; adapters embed it first in their own struct. */
struct bench_shaker {
    const struct bench_options *options;
    bool resumed; /* client: the connection has gone on with a session; set by connect() */
};

/* How a connection comes about and ends.  0 or -1 (described on stderr). */
struct bench_shaker_ops {
    const char *name;
    int (*open)(struct bench_shaker *s); /* a server listens and calls bench_ready() */
    void (*close)(struct bench_shaker *s);
    int (*connect)(struct bench_shaker *s); /* a server accepts; hands are shaken */
    void (*hang_up)(struct bench_shaker *s);
    int (*send)(struct bench_shaker *s, const void *data, size_t size);
    int (*receive)(struct bench_shaker *s, void *data, size_t size);
};

/* The whole work of one side; `s` is one of the adapter's, all zero.  Exit status. */
int bench_handshakes_run(const struct bench_shaker_ops *ops, struct bench_shaker *s,
                         const struct bench_options *o);

#endif
