/* SPDX-License-Identifier: MIT */
/* TLS inside the core, for the files tls*.c, which alone know OpenSSL.  What transports see of it
 * is in transport.h. */
#ifndef SPK_CORE_TLS_H
#define SPK_CORE_TLS_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>

#include <spoke/tls.h>

#include "runtime/core/core.h"

#define SPK_TLS_SESSIONS 16 /* that a configuration remembers, of dialers */

/* A session to come back with, by the URL that was dialed. */
struct spk_tls_session {
    char *url;
    SSL_SESSION *session;
};

/* What a configuration says at some time.  Never changes, but for the sessions; lives as long as a
 * connection has it. */
struct spk_tls_setup {
    atomic_uint refs;
    SSL_CTX *context;
    enum spoke_tls_verify verify;
    char *server_name; /* NULL: the URL's */
    bool has_cert, resumption;
    uint8_t *alpn; /* as it is on the wire */
    unsigned alpn_size;
    FILE *key_log;
    pthread_mutex_t lock; /* of what follows */
    struct spk_tls_session sessions[SPK_TLS_SESSIONS];
    unsigned next_session;
};

/* tlsconfig.c.  Any thread.  The first one is to be called before anything of OpenSSL's. */
void spk_tls_start(void);
int spk_tls_setup_new(struct spk_tls_setup **out, const struct spoke_tls_options *options);
struct spk_tls_setup *spk_tls_setup_ref(struct spk_tls_setup *setup);
void spk_tls_setup_free(struct spk_tls_setup *setup);
/* What a configuration (NULL: the default one) says now; a reference. */
int spk_tls_config_setup(spoke_tls_config *config, struct spk_tls_setup **out);

/* tlssession.c.  Keep a session of this URL, which is taken; and take the last one out, NULL if
 * there is none. */
void spk_tls_keep_session(struct spk_tls_setup *setup, const char *url, SSL_SESSION *session);
SSL_SESSION *spk_tls_take_session(struct spk_tls_setup *setup, const char *url);

/* tlshandshake.c: OpenSSL has a session for a dialer.  Takes it if it returns 1. */
int spk_tls_on_session(SSL *ssl, SSL_SESSION *session);

/* tlsreason.c.  The certificate that was found wanting, and why. */
struct spk_tls_verdict {
    int error; /* X509_V_…; X509_V_OK: none */
    char subject[128];
};
/* Why a handshake or a connection failed: SPOKE_E…, and a sentence without a full stop.  Reads, and
 * empties, the thread's queue of OpenSSL's errors. */
int spk_tls_reason(const struct spk_tls_verdict *verdict, char *text, size_t size);
/* The last of those errors, as text. */
const char *spk_tls_last_error(void);
void spk_tls_name_text(const X509_NAME *name, char *text, size_t size);

#endif
