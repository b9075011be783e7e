/* SPDX-License-Identifier: MIT */
/* OpenSSL as a peer: tls_peer.h. */
#define OPENSSL_SUPPRESS_DEPRECATED /* RAND_set_rand_method() */
#include "tests/fuzz/support/tls_peer.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>

#define NAME "lab.test"

/* ---- chance ---- */

static uint64_t row;

static int
draw(unsigned char *to, int size)
{
    for (int i = 0; i < size; i++) {
        row = row * 6364136223846793005u + 1442695040888963407u;
        to[i] = (unsigned char)(row >> 56);
    }
    return 1;
}

static int
is_seeded(void)
{
    return 1;
}

/* ---- certificates ---- */

struct identity {
    X509 *x;
    EVP_PKEY *key;
    char *text, *key_text;
};

static struct identity authority, one;

static char *
text_of(BIO *bio)
{
    char *data, *text;
    long size = BIO_get_mem_data(bio, &data);

    MUST((text = strndup(data, (size_t)size)) != NULL);
    BIO_free(bio);
    return text;
}

static void
extend(X509 *x, int which, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, which, value);

    MUST(extension != NULL && X509_add_ext(x, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

static void
identify(struct identity *i, const char *name, const struct identity *by)
{
    BIO *text = BIO_new(BIO_s_mem()), *key_text = BIO_new(BIO_s_mem());

    MUST((i->x = X509_new()) != NULL && (i->key = EVP_EC_gen("P-256")) != NULL);
    MUST(X509_set_version(i->x, 2) == 1);
    MUST(ASN1_INTEGER_set(X509_get_serialNumber(i->x), 1) == 1);
    MUST(ASN1_TIME_set_string(X509_getm_notBefore(i->x), "20000101000000Z") == 1);
    MUST(ASN1_TIME_set_string(X509_getm_notAfter(i->x), "99991231235959Z") == 1);
    MUST(X509_NAME_add_entry_by_txt(X509_get_subject_name(i->x), "CN", MBSTRING_ASC,
                                    (const unsigned char *)name, -1, -1, 0) == 1);
    MUST(X509_set_issuer_name(i->x, X509_get_subject_name(by->x)) == 1);
    MUST(X509_set_pubkey(i->x, i->key) == 1);
    if (i == by)
        extend(i->x, NID_basic_constraints, "critical,CA:TRUE");
    else
        extend(i->x, NID_subject_alt_name, "DNS:" NAME);
    MUST(X509_sign(i->x, by->key, EVP_sha256()) > 0);
    MUST(PEM_write_bio_X509(text, i->x) == 1);
    MUST(PEM_write_bio_PrivateKey(key_text, i->key, NULL, NULL, 0, NULL, NULL) == 1);
    i->text = text_of(text);
    i->key_text = text_of(key_text);
}

void
tls_peer_init(void)
{
    static const RAND_METHOD method = {.bytes = draw, .pseudorand = draw, .status = is_seeded};

    row = 1;
    if (authority.x == NULL) {
        MUST(RAND_set_rand_method(&method) == 1);
        identify(&authority, "an authority", &authority);
        identify(&one, NAME, &authority);
    }
    row = 2;
}

static spoke_tls_config *
make_config(bool dials, bool mutual, bool tickets)
{
    struct spoke_tls_options o;
    spoke_tls_config *c;

    spoke_tls_options_init(&o);
    o.cert = one.text;
    o.key = one.key_text;
    o.ca = authority.text;
    o.verify = mutual ? SPOKE_TLS_VERIFY_REQUIRED : SPOKE_TLS_VERIFY_DEFAULT;
    o.server_name = dials ? NAME : NULL;
    o.resumption = tickets;
    MUST(spoke_tls_config_new(&c, &o) == 0);
    return c;
}

spoke_tls_config *
tls_peer_config(bool dials, bool mutual, bool tickets)
{
    static spoke_tls_config *made[2][2][2];
    spoke_tls_config **place = &made[dials][mutual][tickets];

    if (dials && tickets) /* it would remember the input before */
        return make_config(dials, mutual, tickets);
    if (*place == NULL)
        *place = make_config(dials, mutual, tickets);
    return spoke_tls_config_ref(*place);
}

/* ---- a peer ---- */

static void
collect(struct tls_peer *p)
{
    uint8_t bytes[4096];
    int n;

    while ((n = BIO_read(p->out, bytes, sizeof bytes)) > 0)
        words_add(&p->says, bytes, (size_t)n);
}

/* An outcome of OpenSSL's.  True: it is a success. */
static bool
went_well(struct tls_peer *p, int rc)
{
    int why = SSL_get_error(p->ssl, rc);

    ERR_clear_error();
    if (rc <= 0 && (why == SSL_ERROR_SSL || why == SSL_ERROR_SYSCALL))
        p->failed = true;
    collect(p);
    return rc > 0;
}

void
tls_peer_open(struct tls_peer *p, bool is_server, bool old, bool mutual)
{
    static SSL_CTX *contexts[2];
    SSL_CTX *context = contexts[is_server];

    if (context == NULL) {
        MUST((context = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method())) !=
             NULL);
        MUST(SSL_CTX_use_certificate(context, one.x) == 1);
        MUST(SSL_CTX_use_PrivateKey(context, one.key) == 1);
        MUST(X509_STORE_add_cert(SSL_CTX_get_cert_store(context), authority.x) == 1);
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
        contexts[is_server] = context;
    }
    row = 3; /* the same, whether they had to be made or not */
    *p = (struct tls_peer){
        .ssl = SSL_new(context), .in = BIO_new(BIO_s_mem()), .out = BIO_new(BIO_s_mem())};
    MUST(p->ssl != NULL && p->in != NULL && p->out != NULL);
    SSL_set_bio(p->ssl, p->in, p->out);
    if (is_server)
        SSL_set_accept_state(p->ssl);
    else
        SSL_set_connect_state(p->ssl);
    SSL_set_verify(p->ssl, mutual || !is_server ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (old)
        MUST(SSL_set_max_proto_version(p->ssl, TLS1_2_VERSION) == 1);
}

void
tls_peer_close(struct tls_peer *p)
{
    SSL_free(p->ssl);
    words_free(&p->says);
    ERR_clear_error();
}

void
tls_peer_hears(struct tls_peer *p, const uint8_t *bytes, size_t size)
{
    MUST(BIO_write(p->in, bytes, (int)size) == (int)size);
}

size_t
tls_peer_read(struct tls_peer *p, void *bytes, size_t room)
{
    size_t n = 0;

    if (p->failed || (SSL_in_init(p->ssl) && !went_well(p, SSL_do_handshake(p->ssl))))
        return 0;
    return went_well(p, SSL_read_ex(p->ssl, bytes, room, &n)) ? n : 0;
}

size_t
tls_peer_write(struct tls_peer *p, const void *bytes, size_t size)
{
    size_t n = 0;

    if (size == 0 || !tls_peer_is_open(p) || SSL_get_shutdown(p->ssl) & SSL_SENT_SHUTDOWN)
        return 0;
    return went_well(p, SSL_write_ex(p->ssl, bytes, size, &n)) ? n : 0;
}

bool
tls_peer_new_keys(struct tls_peer *p, bool wants_some)
{
    int rc;

    if (!tls_peer_is_open(p) || SSL_get_shutdown(p->ssl) & SSL_SENT_SHUTDOWN)
        return false;
    if (SSL_version(p->ssl) == TLS1_3_VERSION)
        rc = SSL_key_update(p->ssl,
                            wants_some ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED);
    else
        rc = SSL_renegotiate(p->ssl);
    if (went_well(p, rc))
        (void)went_well(p, SSL_do_handshake(p->ssl));
    return true;
}

bool
tls_peer_finish(struct tls_peer *p)
{
    if (!tls_peer_is_open(p))
        return false;
    (void)SSL_shutdown(p->ssl);
    ERR_clear_error();
    collect(p);
    return true;
}

bool
tls_peer_is_open(const struct tls_peer *p)
{
    return !p->failed && SSL_is_init_finished(p->ssl) == 1;
}
