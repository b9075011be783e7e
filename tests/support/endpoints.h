/* SPDX-License-Identifier: MIT */
/* Places where tests meet: a directory of the test's own, and addresses that no other test uses at
 * the same time.  Main thread of a test. */
#ifndef TESTS_SUPPORT_ENDPOINTS_H
#define TESTS_SUPPORT_ENDPOINTS_H

#include <stdbool.h>
#include <stddef.h>

enum transport { INPROC, IPC, TCP, SHM, TLS, WS, WSS };
#define LAST_TRANSPORT WSS

const char *transport_name(enum transport transport);

/* Tests that meet over it give both ends test_tls() (certs.h). */
static inline bool
transport_has_tls(enum transport transport)
{
    return transport == TLS || transport == WSS;
}

static inline bool
transport_is_ws(enum transport transport)
{
    return transport == WS || transport == WSS;
}

/* A TCP connection is at the bottom of it. */
static inline bool
transport_is_on_tcp(enum transport transport)
{
    return transport == TCP || transport == TLS || transport_is_ws(transport);
}

/* Shall tests that run over every transport run over this one?  Where SPOKE_UPGRADE says how ipc
 * moves into shared memory, which is nothing to the others, over ipc alone; else
 * SPOKE_TEST_TRANSPORTS may name those, by transport_name(), with commas between. */
bool transport_is_wanted(enum transport transport);
/* Was it named there?  Then also what tells little more than other runs do. */
bool transport_is_named(enum transport transport);

/* Long enough for every address that the calls below give. */
#define ENDPOINT_MAX 160

/* A directory of this process, made at the first call.  It goes away with everything in it when the
 * process and all children that it has then ended, however they end. */
const char *scratch_dir(void);

/* "SCRATCH/name" in `path`. */
void scratch_path(char path[ENDPOINT_MAX], const char *name);

/* A new address that can be listened on and dialed.  tcp, tls, ws, wss: a loopback address that
 * belongs to this process, and a port of it that is free. */
void endpoint_fresh(char url[ENDPOINT_MAX], enum transport transport);

/* The path of "ipc://path" or "shm://path". */
const char *endpoint_path(const char *url);

#endif
