/* SPDX-License-Identifier: MIT */
/* TLS, for the schemes that have it (tls+tcp://): who we are, whom we believe, what is agreed on.
 *
 * A configuration is made of struct spoke_tls_options, and given to sockets, dialers and listeners
 * as SPOKE_OPT_TLS_CONFIG and to streams in struct spoke_stream_config.  Each of these holds a
 * reference, so the caller may free its own at once.  One configuration may serve any number of
 * dialers and listeners, on any threads.  It can be replaced while they work: connections that are
 * made from then on have the new one, those that are there keep theirs.
 *
 * A dialer without a configuration has the defaults: the server must have a certificate for the
 * host in the URL, signed by an authority that the system trusts.  A listener needs a configuration
 * with a certificate: SPOKE_ENOTLSCONFIG, SPOKE_ENOCERT.
 *
 * Versions are 1.2 and 1.3.  The highest that both ends have is spoken, so two of ours speak 1.3;
 * the lowest is 1.2, since the TLS of other SP libraries has no other (NNG with mbedTLS), and with
 * 1.2 only suites with forward secrecy and authenticated encryption are offered and taken.  Set
 * min_version where every peer has 1.3.  There is no renegotiation and no compression.
 *
 * All calls: any thread, no waiting but for files (which are read here, not when connections are
 * made; only the system's store looks an authority's file up when it is first needed).
 * Errors: SPOKE_EINVAL, SPOKE_ENOMEM, and as each says; the log has the details.
 *
 * OpenSSL takes itself apart when the process exits, unless whoever starts it first says that it
 * shall not.  The library says so, as its threads may still be at work then.  A program that uses
 * OpenSSL before has to say it, too: OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL). */
#ifndef SPOKE_TLS_H
#define SPOKE_TLS_H

#include <stdbool.h>

#include <spoke/error.h>
#include <spoke/option.h>
#include <spoke/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct spoke_tls_config spoke_tls_config;

/* What is asked of the peer's certificate.  One that is checked must be valid now, for this use, of
 * an authority that we trust; a dialer's server must also have the right name. */
enum spoke_tls_verify {
    SPOKE_TLS_VERIFY_DEFAULT,  /* dialers: REQUIRED, listeners: NONE */
    SPOKE_TLS_VERIFY_NONE,     /* nothing: anybody can be at the other end */
    SPOKE_TLS_VERIFY_OPTIONAL, /* listeners: clients may have none, but what they have is checked;
                                  dialers: as REQUIRED */
    SPOKE_TLS_VERIFY_REQUIRED
};
enum spoke_tls_version { SPOKE_TLS_1_2 = 12, SPOKE_TLS_1_3 = 13 };

/* Files and texts are PEM; where both are given the text counts.  Strings are copied. */
struct spoke_tls_options {
    const char *cert_file, *cert; /* our certificate, then those between it and the authority's */
    const char *key_file, *key;   /* its private key; NULL, both: it is where the certificate is */
    const char *key_password;     /* NULL: the key is not encrypted */
    const char *ca_file, *ca;     /* authorities to trust; NULL, both: those of the system */
    const char *crl_file, *crl;   /* what they have revoked; NULL, both: that is not checked.  Each
                                     authority that signs peers needs a list then */
    enum spoke_tls_verify verify;
    const char *server_name; /* dialers: to ask for (SNI) and to find in the certificate; NULL: the
                                host in the URL.  May be an IP address */
    enum spoke_tls_version min_version; /* default SPOKE_TLS_1_2 */
    const char *alpn;    /* protocols to agree on, the best one first, with commas between; NULL:
                            none.  Where nothing is in common the connection goes on without */
    bool resumption;     /* default true: who comes back needs no new handshake with certificates */
    const char *key_log; /* a file that the keys of all connections are appended to, for those who
                            look into the traffic; NULL: none.  Whoever reads it reads everything */
};

/* The defaults. */
SPOKE_API void spoke_tls_options_init(struct spoke_tls_options *options);

/* Make a configuration, with one reference; NULL options: the defaults.
 * Errors: SPOKE_EBADCERT a certificate, key or list is none, or key and certificate are not of each
 * other; for files as open(2): SPOKE_ENOENT, SPOKE_EACCES, …; SPOKE_ERANGE. */
SPOKE_API int spoke_tls_config_new(spoke_tls_config **out, const struct spoke_tls_options *options);

/* Replace all of it, or read its files again.  After an error everything is as it was. */
SPOKE_API int spoke_tls_config_replace(spoke_tls_config *config,
                                       const struct spoke_tls_options *options);
SPOKE_API int spoke_tls_config_reload(spoke_tls_config *config);

/* One reference more, which is returned; one less, of which the last frees it (NULL: nothing). */
SPOKE_API spoke_tls_config *spoke_tls_config_ref(spoke_tls_config *config);
SPOKE_API void spoke_tls_config_free(spoke_tls_config *config);

/* Let a socket's dialers and listeners have it, or one of these; NULL: none any more. */
static inline int
spoke_socket_set_tls(spoke_socket *s, spoke_tls_config *config)
{
    return spoke_socket_set(s, SPOKE_OPT_TLS_CONFIG, SPOKE_POINTER, &config, sizeof config);
}

static inline int
spoke_dialer_set_tls(spoke_dialer *d, spoke_tls_config *config)
{
    return spoke_dialer_set(d, SPOKE_OPT_TLS_CONFIG, SPOKE_POINTER, &config, sizeof config);
}

static inline int
spoke_listener_set_tls(spoke_listener *l, spoke_tls_config *config)
{
    return spoke_listener_set(l, SPOKE_OPT_TLS_CONFIG, SPOKE_POINTER, &config, sizeof config);
}

#ifdef __cplusplus
}
#endif

#endif
