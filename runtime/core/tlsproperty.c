/* SPDX-License-Identifier: MIT */
/* What is known of a TLS stream: the properties of SPOKE_OPT_TLS_…. */
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/tlsstream.h"

/* SHA-256 of the certificate, in hexadecimal digits. */
static void
fingerprint(const X509 *x, char *text, size_t size)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;

    *text = '\0';
    if (X509_digest(x, EVP_sha256(), digest, &length) != 1)
        return;
    for (unsigned i = 0; i < length && 2 * i + 3 <= size; i++)
        snprintf(text + (size_t)2 * i, size - (size_t)2 * i, "%02x", digest[i]);
}

/* The peer has a certificate, and it is one that we would have asked for. */
static bool
is_verified(const struct spk_tls *t)
{
    return SSL_get0_peer_certificate(t->ssl) != NULL && SSL_get_verify_result(t->ssl) == X509_V_OK;
}

static bool
text_of(const struct spk_tls *t, const char *name, char *text, size_t size)
{
    const X509 *peer = SSL_get0_peer_certificate(t->ssl);
    const unsigned char *protocol;
    const char *found = "";
    unsigned length;

    *text = '\0';
    if (strcmp(name, SPOKE_OPT_TLS_VERSION) == 0) {
        found = SSL_get_version(t->ssl);
    } else if (strcmp(name, SPOKE_OPT_TLS_CIPHER) == 0) {
        found = SSL_get_cipher_name(t->ssl);
    } else if (strcmp(name, SPOKE_OPT_TLS_SERVER_NAME) == 0) {
        found = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);
    } else if (strcmp(name, SPOKE_OPT_TLS_ALPN) == 0) {
        SSL_get0_alpn_selected(t->ssl, &protocol, &length);
        snprintf(text, size, "%.*s", (int)length, (const char *)protocol);
        return true;
    } else if (strcmp(name, SPOKE_OPT_TLS_PEER_SUBJECT) == 0) {
        if (peer != NULL)
            spk_tls_name_text(X509_get_subject_name(peer), text, size);
        return true;
    } else if (strcmp(name, SPOKE_OPT_TLS_PEER_FINGERPRINT) == 0) {
        if (peer != NULL)
            fingerprint(peer, text, size);
        return true;
    } else {
        return false;
    }
    snprintf(text, size, "%s", found != NULL ? found : "");
    return true;
}

int
spk_tls_property(struct spk_stream *st, const char *name, enum spoke_type type, void *value,
                 size_t *size)
{
    const struct spk_tls *t = spk_tls_of(st);
    char text[512];
    bool yes;

    if (strcmp(name, SPOKE_OPT_TLS_VERIFIED) == 0)
        yes = is_verified(t);
    else if (strcmp(name, SPOKE_OPT_TLS_RESUMED) == 0)
        yes = SSL_session_reused(t->ssl) == 1;
    else if (text_of(t, name, text, sizeof text))
        return type != SPOKE_STRING ? SPOKE_ETYPE : spk_give_text(value, size, text);
    else
        return SPOKE_EOPTION;
    return type != SPOKE_BOOL || *size < sizeof yes ? SPOKE_ETYPE
                                                    : spk_give(value, size, &yes, sizeof yes);
}
