/* SPDX-License-Identifier: MIT */
/* What the files of bench-spoke share. */
#ifndef BENCH_SPOKE_LINK_H
#define BENCH_SPOKE_LINK_H

#include <spoke/spoke.h>

#include "../common/options.h"
#include "../common/program.h"

/* Say which call failed.  Always -1. */
int spoke_bench_complain(const char *call, int rc);

/* Open a socket as the options ask: on an engine of the calling thread, given in *engine, or on the
 * shared one, *engine NULL then.  Before the call *engine is NULL, or an engine to use.  0 or -1.
 */
int spoke_bench_open(spoke_engine **engine, spoke_socket **socket, int pattern,
                     const struct bench_options *o);

/* The engine that the options ask for, NULL for the shared one.  0 or -1. */
int spoke_bench_engine(spoke_engine **engine, const struct bench_options *o);

/* Who a server is and whom its client trusts, of both ends; NULL where there is no TLS.  Made once,
 * and kept.  0 or -1. */
int spoke_bench_tls(spoke_tls_config **config, const struct bench_options *o);

/* How they want it to wait. */
spoke_ns spoke_bench_wait(const struct bench_options *o);

/* Listen at the options' address and write where it can be dialled to `actual`.  0 or -1. */
int spoke_bench_listen(spoke_socket *socket, const struct bench_options *o, char *actual,
                       size_t size);

/* Close both; `engine` may be NULL. */
void spoke_bench_close(spoke_engine *engine, spoke_socket *socket);

/* Whether bodies are written where the receiver reads them: over shm, and large enough. */
bool spoke_bench_loans(const struct bench_options *o);

/* A stream and what it lives on. */
struct spoke_bench_end {
    spoke_engine *engine; /* NULL: the shared one */
    spoke_mux *mux;       /* NULL: none */
    spoke_stream *stream; /* NULL: the mux has taken it */
};

/* Listen and accept, or dial, as the link's side is.  0 or -1. */
int spoke_bench_open_end(struct spoke_bench_end *end, const struct bench_link *l);
/* Make a mux of its stream; which numbers are whose is set in the configuration.  0 or -1. */
int spoke_bench_open_mux(struct spoke_bench_end *end, const struct bench_link *l,
                         spoke_mux_config *config);
/* Close all there is of it; the mux has so long to bring everything to an end. */
void spoke_bench_close_end(struct spoke_bench_end *end, spoke_ns linger_ns);

/* Whether the stream is to be one of a mux. */
static inline bool
spoke_bench_is_mux(const struct bench_options *o)
{
    return o->pattern == BENCH_MUX || o->pattern == BENCH_MUX_CHUNKS;
}

/* Of streams: by the calls that copy, and by those that do not. */
extern const struct bench_adapter spoke_bench_stream, spoke_bench_chunks;

/* Of channels: of a session, of ports, in the process. */
extern const struct bench_adapter spoke_bench_channel;

/* The works connections and pipes: exit status. */
int spoke_bench_connections(const struct bench_options *o);

/* The works handshakes and resumptions: exit status. */
int spoke_bench_handshakes(const struct bench_options *o);

/* The work loan: exit status. */
int spoke_bench_loan(const struct bench_options *o);

/* The works of multiplexers: exit status. */
int spoke_bench_mux(const struct bench_options *o);

#endif
