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

/* How they want it to wait. */
spoke_ns spoke_bench_wait(const struct bench_options *o);

/* Listen at the options' address and write where it can be dialled to `actual`.  0 or -1. */
int spoke_bench_listen(spoke_socket *socket, const struct bench_options *o, char *actual,
                       size_t size);

/* Close both; `engine` may be NULL. */
void spoke_bench_close(spoke_engine *engine, spoke_socket *socket);

/* Whether bodies are written where the receiver reads them: over shm, and large enough. */
bool spoke_bench_loans(const struct bench_options *o);

/* Of streams: by the calls that copy, and by those that do not. */
extern const struct bench_adapter spoke_bench_stream, spoke_bench_chunks;

/* The works connections and pipes: exit status. */
int spoke_bench_connections(const struct bench_options *o);

/* The work loan: exit status. */
int spoke_bench_loan(const struct bench_options *o);

#endif
