/* SPDX-License-Identifier: MIT */
/* Our side of a meeting with a stranger.  Main thread of a test, which fails if anything does. */
#ifndef TESTS_INTEROP_HOST_H
#define TESTS_INTEROP_HOST_H

#include "tests/interop/stranger.h"
#include "tests/support/certs.h"
#include "tests/support/world.h"

#define PATIENCE (15 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

struct meeting {
    enum library library;
    enum transport transport;
    bool they_listen, owned;
};

static inline bool
is_over_tls(enum transport transport)
{
    return transport == TLS || transport == WSS;
}

static inline bool
is_over_ws(enum transport transport)
{
    return transport == WS || transport == WSS;
}

struct host {
    spoke_engine *e;
    spoke_socket *s;
    spoke_listener *l; /* once they have met, one of these */
    spoke_dialer *d;
    pid_t stranger;
    struct errand errand;
};

/* Open a socket on an engine of our own, or the shared one; the test is skipped if the library is
 * not installed.  Over TLS both sides have certificates of one authority, and each wants the
 * other's. */
void host_open(struct host *h, const struct meeting *meeting, int pattern, bool raw);
/* Those options of ours; give the socket others; a file with a certificate and its key, for the
 * errand. */
void host_tls_options(struct spoke_tls_options *o);
void host_set_tls(struct host *h, const struct spoke_tls_options *o);
void host_certify(char file[96], const char *name, const struct cert *c);
/* Start the stranger on its errand, and listen to it or dial it. */
void host_meet(struct host *h, enum deed deed, uint32_t count, bool many);
/* Let the engine go on for a moment; what the socket counts then. */
struct spoke_stats host_pass(struct host *h);
/* Wait until the socket has so many pipes, and has had more than `after`. */
void host_await_pipes(struct host *h, uint64_t count, uint64_t after);
/* Has the stranger ended? */
bool host_is_alone(struct host *h);
/* For a message: does it live, or how did it end? */
const char *host_stranger_state(struct host *h);
/* Wait until the stranger has ended by itself; it must be content. */
void host_await(struct host *h);
/* Nothing may have been wrong; but for errands that exceed limits, nothing lost either. */
void host_close(struct host *h);

/* Send the i-th message of the errand; receive it. */
void host_send(struct host *h, uint32_t i);
void host_expect(struct host *h, uint32_t i);

#endif
