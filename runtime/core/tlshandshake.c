/* SPDX-License-Identifier: MIT */
/* How a TLS stream begins: what OpenSSL is told about the connection, whom it believes, and the
 * steps of the handshake. */
#include <assert.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/tlsstream.h"
#include "runtime/engine/log.h"

/* ---- what OpenSSL is told ---- */

/* Remember which certificate it was, and what is wrong with it: the last of several says it. */
static int
on_verify(int fine, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct spk_tls *t = SSL_get_app_data(ssl);
    X509 *x = X509_STORE_CTX_get_current_cert(store);

    if (fine == 1)
        return fine;
    t->verdict.error = X509_STORE_CTX_get_error(store);
    t->verdict.subject[0] = '\0';
    if (x != NULL)
        spk_tls_name_text(X509_get_subject_name(x), t->verdict.subject, sizeof t->verdict.subject);
    return fine;
}

int
spk_tls_on_session(SSL *ssl, SSL_SESSION *session)
{
    struct spk_tls *t = SSL_get_app_data(ssl);

    if (!t->ep->is_dialer || !t->setup->resumption)
        return 0;
    spk_tls_keep_session(t->setup, t->ep->url.text, session);
    return 1;
}

static int
verify_mode(const struct spk_tls *t)
{
    switch (t->setup->verify) {
    case SPOKE_TLS_VERIFY_NONE: return SSL_VERIFY_NONE;
    case SPOKE_TLS_VERIFY_OPTIONAL: return SSL_VERIFY_PEER;
    case SPOKE_TLS_VERIFY_REQUIRED: return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    default: return t->ep->is_dialer ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
    }
}

/* Whom the dialer wants: a host by its name, which it also asks for, or by its address. */
static bool
set_name(SSL *ssl, const char *name)
{
    char address[64];

    snprintf(address, sizeof address, "%.*s", (int)strcspn(name, "%"), name);
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), address) == 1)
        return true;
    ERR_clear_error();
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

/* The server asks for our certificate. */
static int
on_cert_wanted(SSL *ssl, void *ctx)
{
    struct spk_tls *t = ctx;

    t->lacks_cert = SSL_get_certificate(ssl) == NULL;
    return 1;
}

static bool
prepare_dialer(struct spk_tls *t)
{
    const char *name = t->setup->server_name != NULL ? t->setup->server_name : t->ep->url.host;
    SSL_SESSION *session;

    SSL_set_connect_state(t->ssl);
    SSL_set_cert_cb(t->ssl, on_cert_wanted, t);
    if (name != NULL && !set_name(t->ssl, name))
        return false;
    if (t->setup->alpn != NULL &&
        SSL_set_alpn_protos(t->ssl, t->setup->alpn, t->setup->alpn_size) != 0)
        return false;
    if (t->setup->resumption &&
        (session = spk_tls_take_session(t->setup, t->ep->url.text)) != NULL) {
        (void)SSL_set_session(t->ssl, session);
        SSL_SESSION_free(session);
    }
    return true;
}

bool
spk_tls_prepare(struct spk_tls *t)
{
    BIO *bio;

    if ((t->ssl = SSL_new(t->setup->context)) == NULL || (bio = spk_tls_bio(t)) == NULL)
        return false;
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_app_data(t->ssl, t);
    SSL_set_verify(t->ssl, verify_mode(t), on_verify);
    spk_tls_watch_strange(t);
    if (t->ep->is_dialer)
        return prepare_dialer(t);
    SSL_set_accept_state(t->ssl);
    return true;
}

/* ---- its steps ---- */

/* Its owner may close the stream: nothing comes after it. */
static void
end_begin(struct spk_tls *t, int result)
{
    struct spk_op *op = t->beginner;

    t->beginner = NULL;
    spk_op_complete(t->stream.e, op, result);
}

static void
failed_to_begin(struct spk_tls *t)
{
    char text[256];
    int rc;

    if (t->in_end && t->in_size == 0) {
        rc = t->read_end != 0 ? t->read_end : SPOKE_ECONNRESET;
        snprintf(text, sizeof text, "%s in the middle of the TLS handshake", spoke_strerror(rc));
        ERR_clear_error();
    } else {
        rc = spk_tls_reason(&t->verdict, text, sizeof text);
    }
    /* Servers of 1.2 say no more than that the handshake has failed, and mbedTLS not even that. */
    if (t->lacks_cert && (rc == SPOKE_ETLS || rc == SPOKE_ECONNRESET)) {
        rc = SPOKE_ECERTREFUSED;
        snprintf(text, sizeof text, "%s: it asked for one, and we have none", spoke_strerror(rc));
    }
    spk_log(SPOKE_LOG_WARNING, "%s: %s", t->ep->url.text, text);
    spk_endpoint_explain(t->ep, rc, text);
    t->read_end = t->write_end = rc;
    end_begin(t, rc);
}

static void
has_begun(struct spk_tls *t)
{
    t->begun = true;
    t->gives_ticket = !t->ep->is_dialer && t->setup->resumption &&
                      SSL_version(t->ssl) == TLS1_3_VERSION;
}

void
spk_tls_shake_hands(struct spk_tls *t)
{
    int rc = 1, why = SSL_ERROR_NONE;

    if (t->beginner->cancelled) {
        if (!spk_op_busy(&t->recv_op) && !spk_op_busy(&t->send_op))
            end_begin(t, SPOKE_ECANCELED);
        return;
    }
    ERR_clear_error();
    if (!t->begun && (rc = SSL_do_handshake(t->ssl)) == 1)
        has_begun(t);
    else if (!t->begun)
        why = SSL_get_error(t->ssl, rc);
    spk_tls_try_flush(t);
    assert(!spk_op_busy(&t->recv_op));
    if (!t->begun && why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
        failed_to_begin(t);
    else if (spk_tls_unsent(t) > 0)
        spk_tls_arm_send(t);
    else if (!t->begun)
        spk_tls_arm_recv(t, t->beginner);
    else
        end_begin(t, 0);
}
