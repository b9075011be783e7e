/* SPDX-License-Identifier: MIT */
/* Who is attacked over TLS, on the shared engine, and by whom: a plain socket, with OpenSSL above
 * it where it has to get that far.  Main thread of a test. */
#ifndef TESTS_TLS_ATTACK_H
#define TESTS_TLS_ATTACK_H

#include <openssl/ssl.h>

#include "tests/support/raw_peer.h"
#include "tests/tls/meeting.h"

/* A socket that listens, with a friend who is connected all the time. */
struct victim {
    spoke_socket *s, *friend;
    spoke_listener *l;
    char url[ENDPOINT_MAX];
};

/* `handshake_ns`: what those have who come after the friend. */
void victim_open(struct victim *v, const struct spoke_tls_options *o, spoke_ns handshake_ns);
void victim_close(struct victim *v);
/* A message of the friend's arrives, and is the next one. */
void expect_well(struct victim *v);
struct spoke_listener_stats stats_of(struct victim *v);
/* Wait until so many handshakes have failed, and no more: why the last one did. */
int await_failed(struct victim *v, uint64_t count);
/* Wait until there are so many pipes. */
void await_pipes(struct victim *v, uint64_t count);

struct enemy {
    struct raw_peer raw;
    SSL_CTX *context;
    SSL *ssl;
    BIO *in, *out;
    bool drips; /* sends each byte by itself */
};

/* All zero at first.  Without a connection yet; up to this version of TLS.  The second has the
 * tests' certificate. */
void enemy_open(struct enemy *x, int version);
void enemy_open_server(struct enemy *x, int version);
void enemy_close(struct enemy *x);
/* Take what has come.  False: the connection has ended. */
bool enemy_receive(struct enemy *x);
/* What it wants to send next; the victim answers as long as it is asked. */
size_t enemy_says(struct enemy *x, char *bytes, size_t room);
/* Send all of that, or other bytes, as far as the victim lets it. */
void enemy_sends(struct enemy *x);
void enemy_sends_bytes(struct enemy *x, const char *bytes, size_t size);
/* Connect (NULL: it is connected), and do so. */
void enemy_shakes_hands(struct enemy *x, const char *url);
/* Open it, shake hands, and say what a PUSH says first. */
void enemy_attaches(struct enemy *x, struct victim *v, int version);

#endif
