/* SPDX-License-Identifier: MIT */
/* OpenSSL as a peer without a connection: what it hears and says are bytes in memory.  All random
 * numbers of the process are drawn from a row that begins anew with each input. */
#ifndef TESTS_FUZZ_SUPPORT_TLS_PEER_H
#define TESTS_FUZZ_SUPPORT_TLS_PEER_H

#include <openssl/ssl.h>

#include <spoke/tls.h>

#include "tests/fuzz/support/words.h"

/* Before anything else of an input. */
void tls_peer_init(void);

/* For our end, which is to dial or to listen; each checks the other, if `mutual`.  The caller's.
 * `tickets`: who comes back may go on with what was. */
spoke_tls_config *tls_peer_config(bool dials, bool mutual, bool tickets);

struct tls_peer {
    SSL *ssl;
    BIO *in, *out;
    bool failed;
    struct words says; /* as far as nobody has taken it away */
};

/* The other end.  `old`: it has TLS 1.2 only. */
void tls_peer_open(struct tls_peer *p, bool is_server, bool old, bool mutual);
void tls_peer_close(struct tls_peer *p);

void tls_peer_hears(struct tls_peer *p, const uint8_t *bytes, size_t size);
/* Go on with what was heard: bytes of the user's that it gave; 0: no more. */
size_t tls_peer_read(struct tls_peer *p, void *bytes, size_t room);
/* Returns how many bytes it took. */
size_t tls_peer_write(struct tls_peer *p, const void *bytes, size_t size);
/* Both: false if it cannot, as hands have not been shaken. */
bool tls_peer_new_keys(struct tls_peer *p, bool wants_some);
bool tls_peer_finish(struct tls_peer *p);
/* Hands have been shaken, and nothing has gone wrong. */
bool tls_peer_is_open(const struct tls_peer *p);

#endif
