/* SPDX-License-Identifier: MIT */
/* TLS configurations: the options as they were given, and what has been made of them, which can be
 * replaced.  Any thread. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/tls.h"
#include "runtime/engine/log.h"

#define MAGIC           0x7453504bu
#define ALPN_MOST       255   /* bytes of one name, and of our list of them */
#define CHAIN_MOST      65536 /* bytes of certificates that a peer may send */
#define SESSION_SECONDS 3600

/* With 1.2: forward secrecy and authenticated encryption, no other.  Those of 1.3 all are. */
#define CIPHERS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20"

struct spoke_tls_config {
    unsigned magic;
    atomic_uint refs;
    pthread_mutex_t lock;             /* of what follows */
    struct spoke_tls_options options; /* its strings are ours */
    struct spk_tls_setup *setup;
};

/* ---- what is given: files or texts ---- */

/* Say what is wrong with `what`. */
static int
bad(const char *what, const char *file)
{
    spk_log(SPOKE_LOG_ERROR, "TLS: %s%s%s is not usable: %s", what, file != NULL ? " in " : "",
            file != NULL ? file : "", spk_tls_last_error());
    return SPOKE_EBADCERT;
}

static int
open_text(BIO **out, const char *what, const char *text, const char *file)
{
    int rc;

    errno = 0;
    *out = text != NULL ? BIO_new_mem_buf(text, -1) : BIO_new_file(file, "r");
    if (*out != NULL)
        return 0;
    rc = text != NULL || errno == 0 ? SPOKE_ENOMEM : spk_error_from_errno(errno);
    ERR_clear_error();
    if (text == NULL)
        spk_log(SPOKE_LOG_ERROR, "TLS: %s in %s cannot be read: %s", what, file,
                spoke_strerror(rc));
    return rc;
}

/* Nobody is asked on a terminal. */
static int
give_password(char *buffer, int size, int writing, void *password)
{
    int n = password == NULL ? 0 : (int)strlen(password);

    (void)writing;
    if (n == 0 || n > size)
        return -1;
    memcpy(buffer, password, (size_t)n);
    return n;
}

/* Read certificates until there are no more, and give each to add(). */
static int
read_certificates(BIO *in, int (*add)(struct spk_tls_setup *setup, X509 *x, int index),
                  struct spk_tls_setup *setup)
{
    char no_password[] = "";
    int count = 0, added = 1;
    X509 *x;

    while (added == 1 && (x = PEM_read_bio_X509(in, NULL, give_password, no_password)) != NULL) {
        added = add(setup, x, count++);
        X509_free(x);
    }
    if (added != 1 || count == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        return SPOKE_EBADCERT;
    ERR_clear_error();
    return 0;
}

static int
add_own(struct spk_tls_setup *setup, X509 *x, int index)
{
    return index == 0 ? SSL_CTX_use_certificate(setup->context, x)
                      : (int)SSL_CTX_add1_chain_cert(setup->context, x);
}

static int
add_authority(struct spk_tls_setup *setup, X509 *x, int index)
{
    (void)index;
    return X509_STORE_add_cert(SSL_CTX_get_cert_store(setup->context), x) == 1 &&
           SSL_CTX_add_client_CA(setup->context, x) == 1;
}

static int
load_own(struct spk_tls_setup *setup, const struct spoke_tls_options *o)
{
    BIO *in;
    int rc;

    if (o->cert == NULL && o->cert_file == NULL)
        return o->key == NULL && o->key_file == NULL ? 0 : SPOKE_EINVAL;
    if ((rc = open_text(&in, "the certificate", o->cert, o->cert_file)) != 0)
        return rc;
    if (read_certificates(in, add_own, setup) != 0)
        rc = bad("the certificate", o->cert != NULL ? NULL : o->cert_file);
    BIO_free(in);
    setup->has_cert = rc == 0;
    return rc;
}

static int
load_key(struct spk_tls_setup *setup, const struct spoke_tls_options *o)
{
    bool apart = o->key != NULL || o->key_file != NULL;
    const char *text = apart ? o->key : o->cert, *file = apart ? o->key_file : o->cert_file;
    EVP_PKEY *key;
    BIO *in;
    int rc;

    if (!setup->has_cert)
        return 0;
    if ((rc = open_text(&in, "the key", text, file)) != 0)
        return rc;
    key = PEM_read_bio_PrivateKey(in, NULL, give_password, (void *)(uintptr_t)o->key_password);
    if (key == NULL || SSL_CTX_use_PrivateKey(setup->context, key) != 1 ||
        SSL_CTX_check_private_key(setup->context) != 1)
        rc = bad("the key", text != NULL ? NULL : file);
    EVP_PKEY_free(key);
    BIO_free(in);
    return rc;
}

static int
load_authorities(struct spk_tls_setup *setup, const struct spoke_tls_options *o)
{
    BIO *in;
    int rc;

    if (o->ca == NULL && o->ca_file == NULL)
        return SSL_CTX_set_default_verify_paths(setup->context) == 1 ? 0 : SPOKE_ENOMEM;
    if ((rc = open_text(&in, "the authority", o->ca, o->ca_file)) != 0)
        return rc;
    if (read_certificates(in, add_authority, setup) != 0)
        rc = bad("the authority", o->ca != NULL ? NULL : o->ca_file);
    BIO_free(in);
    return rc;
}

static int
load_revoked(struct spk_tls_setup *setup, const struct spoke_tls_options *o)
{
    X509_STORE *store = SSL_CTX_get_cert_store(setup->context);
    X509_CRL *list;
    int count = 0, rc;
    BIO *in;

    if (o->crl == NULL && o->crl_file == NULL)
        return 0;
    if ((rc = open_text(&in, "the revocation list", o->crl, o->crl_file)) != 0)
        return rc;
    while ((list = PEM_read_bio_X509_CRL(in, NULL, give_password, NULL)) != NULL) {
        count += X509_STORE_add_crl(store, list) == 1;
        X509_CRL_free(list);
    }
    if (count == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        rc = bad("the revocation list", o->crl != NULL ? NULL : o->crl_file);
    ERR_clear_error();
    BIO_free(in);
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
    return rc;
}

/* ---- what is agreed on ---- */

/* "a,b" becomes 1 'a' 1 'b'. */
static int
set_alpn(struct spk_tls_setup *setup, const char *names)
{
    size_t size = names == NULL ? 0 : strlen(names);

    if (names == NULL)
        return 0;
    if (size == 0 || size > ALPN_MOST || (setup->alpn = spk_zalloc(size + 1)) == NULL)
        return size == 0 || size > ALPN_MOST ? SPOKE_ERANGE : SPOKE_ENOMEM;
    for (const char *from = names; from <= names + size;) {
        size_t length = strcspn(from, ",");

        if (length == 0)
            return SPOKE_ERANGE;
        setup->alpn[setup->alpn_size++] = (uint8_t)length;
        memcpy(setup->alpn + setup->alpn_size, from, length);
        setup->alpn_size += (unsigned)length;
        from += length + 1;
    }
    return 0;
}

/* A listener's choice: its own order counts. */
static int
choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *size,
                const unsigned char *offered, unsigned offered_size, void *arg)
{
    const struct spk_tls_setup *setup = arg;
    unsigned char *chosen;

    (void)ssl;
    if (SSL_select_next_proto(&chosen, size, setup->alpn, setup->alpn_size, offered,
                              offered_size) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static void
write_key(const SSL *ssl, const char *line)
{
    struct spk_tls_setup *setup = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

    pthread_mutex_lock(&setup->lock);
    fprintf(setup->key_log, "%s\n", line);
    fflush(setup->key_log);
    pthread_mutex_unlock(&setup->lock);
}

static int
open_key_log(struct spk_tls_setup *setup, const char *path)
{
    int fd, rc;

    if (path == NULL)
        return 0;
    if ((fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600)) < 0)
        return spk_error_from_errno(errno);
    if ((setup->key_log = fdopen(fd, "a")) == NULL) {
        rc = spk_error_from_errno(errno);
        close(fd);
        return rc;
    }
    SSL_CTX_set_keylog_callback(setup->context, write_key);
    spk_log(SPOKE_LOG_WARNING, "TLS: the keys of connections are written to %s", path);
    return 0;
}

static void
set_resumption(struct spk_tls_setup *setup, bool wanted)
{
    SSL_CTX *c = setup->context;

    setup->resumption = wanted;
    SSL_CTX_set_session_cache_mode(c, wanted ? SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL
                                             : SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(c, (const unsigned char *)"spoke", 5);
    SSL_CTX_set_timeout(c, SESSION_SECONDS);
    SSL_CTX_set_num_tickets(c, 0); /* see give_ticket() */
    SSL_CTX_sess_set_new_cb(c, spk_tls_on_session);
    if (!wanted)
        SSL_CTX_set_options(c, SSL_OP_NO_TICKET);
}

static int
set_versions(SSL_CTX *c, enum spoke_tls_version least)
{
    if (least != SPOKE_TLS_1_2 && least != SPOKE_TLS_1_3)
        return SPOKE_ERANGE;
    return SSL_CTX_set_min_proto_version(c, least == SPOKE_TLS_1_3 ? TLS1_3_VERSION
                                                                   : TLS1_2_VERSION) == 1 &&
                   SSL_CTX_set_cipher_list(c, CIPHERS_1_2) == 1
               ? 0
               : SPOKE_ENOTSUP;
}

/* ---- setups ---- */

/* The library's threads may be at work while the process exits: OpenSSL is not to go before them.
 */
static void
start_openssl(void)
{
    (void)OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL);
}

void
spk_tls_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, start_openssl);
}

static char *
copy(const char *text)
{
    size_t size = text == NULL ? 0 : strlen(text) + 1;
    char *own = size == 0 ? NULL : spk_zalloc(size);

    if (own != NULL)
        memcpy(own, text, size);
    return own;
}

/* All names are ours; to say so keeps the name with the session. */
static int
on_name(SSL *ssl, int *alert, void *ctx)
{
    (void)ssl, (void)alert, (void)ctx;
    return SSL_TLSEXT_ERR_OK;
}

static int
set_up(struct spk_tls_setup *setup, const struct spoke_tls_options *o)
{
    SSL_CTX *c = setup->context;
    int rc;

    setup->verify = o->verify;
    if (o->verify < SPOKE_TLS_VERIFY_DEFAULT || o->verify > SPOKE_TLS_VERIFY_REQUIRED)
        return SPOKE_ERANGE;
    if (o->server_name != NULL && (setup->server_name = copy(o->server_name)) == NULL)
        return SPOKE_ENOMEM;
    SSL_CTX_set_app_data(c, setup);
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    /* An idle connection has no buffers.  And what is sent of our own chain is what was given: else
     * each handshake would look for its rest among the system's authorities, which are files. */
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_max_cert_list(c, CHAIN_MOST);
    SSL_CTX_set_tlsext_servername_callback(c, on_name);
    set_resumption(setup, o->resumption);
    if ((rc = set_versions(c, o->min_version)) != 0 || (rc = set_alpn(setup, o->alpn)) != 0)
        return rc;
    if (setup->alpn != NULL)
        SSL_CTX_set_alpn_select_cb(c, choose_protocol, setup);
    if ((rc = load_own(setup, o)) != 0 || (rc = load_key(setup, o)) != 0 ||
        (rc = load_authorities(setup, o)) != 0 || (rc = load_revoked(setup, o)) != 0)
        return rc;
    return open_key_log(setup, o->key_log);
}

int
spk_tls_setup_new(struct spk_tls_setup **out, const struct spoke_tls_options *options)
{
    struct spk_tls_setup *setup = spk_zalloc(sizeof *setup);
    int rc;

    *out = NULL;
    if (setup == NULL)
        return SPOKE_ENOMEM;
    spk_tls_start();
    ERR_clear_error();
    atomic_init(&setup->refs, 1);
    pthread_mutex_init(&setup->lock, NULL);
    rc = (setup->context = SSL_CTX_new(TLS_method())) == NULL ? SPOKE_ENOMEM
                                                              : set_up(setup, options);
    ERR_clear_error();
    if (rc == 0)
        *out = setup;
    else
        spk_tls_setup_free(setup);
    return rc;
}

struct spk_tls_setup *
spk_tls_setup_ref(struct spk_tls_setup *setup)
{
    atomic_fetch_add_explicit(&setup->refs, 1, memory_order_relaxed);
    return setup;
}

void
spk_tls_setup_free(struct spk_tls_setup *setup)
{
    if (setup == NULL || atomic_fetch_sub_explicit(&setup->refs, 1, memory_order_acq_rel) > 1)
        return;
    for (unsigned i = 0; i < SPK_TLS_SESSIONS; i++) {
        spk_free(setup->sessions[i].url);
        SSL_SESSION_free(setup->sessions[i].session);
    }
    if (setup->key_log != NULL)
        fclose(setup->key_log);
    SSL_CTX_free(setup->context);
    pthread_mutex_destroy(&setup->lock);
    spk_free(setup->server_name);
    spk_free(setup->alpn);
    spk_free(setup);
}

/* ---- options ---- */

/* Where its strings are. */
static const size_t strings[] = {
    offsetof(struct spoke_tls_options, cert_file),
    offsetof(struct spoke_tls_options, cert),
    offsetof(struct spoke_tls_options, key_file),
    offsetof(struct spoke_tls_options, key),
    offsetof(struct spoke_tls_options, key_password),
    offsetof(struct spoke_tls_options, ca_file),
    offsetof(struct spoke_tls_options, ca),
    offsetof(struct spoke_tls_options, crl_file),
    offsetof(struct spoke_tls_options, crl),
    offsetof(struct spoke_tls_options, server_name),
    offsetof(struct spoke_tls_options, alpn),
    offsetof(struct spoke_tls_options, key_log),
};

static const char **
string_of(struct spoke_tls_options *o, size_t i)
{
    return (const char **)(void *)((char *)o + strings[i]);
}

static void
free_options(struct spoke_tls_options *o)
{
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        char *own = (char *)(uintptr_t)*string_of(o, i);

        if (own != NULL)
            OPENSSL_cleanse(own, strlen(own)); /* keys and passwords among them */
        spk_free(own);
    }
}

static int
copy_options(struct spoke_tls_options *to, const struct spoke_tls_options *from)
{
    bool failed = false;

    *to = *from;
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        const char *text = *string_of(to, i);

        failed |= (*string_of(to, i) = copy(text)) == NULL && text != NULL;
    }
    if (failed)
        free_options(to);
    return failed ? SPOKE_ENOMEM : 0;
}

void
spoke_tls_options_init(struct spoke_tls_options *options)
{
    *options = (struct spoke_tls_options){.min_version = SPOKE_TLS_1_2, .resumption = true};
}

/* ---- configurations ---- */

int
spoke_tls_config_new(spoke_tls_config **out, const struct spoke_tls_options *options)
{
    struct spoke_tls_options defaults;
    spoke_tls_config *c;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (options == NULL) {
        spoke_tls_options_init(&defaults);
        options = &defaults;
    }
    if ((c = spk_zalloc(sizeof *c)) == NULL)
        return SPOKE_ENOMEM;
    if ((rc = copy_options(&c->options, options)) != 0)
        goto free_config;
    if ((rc = spk_tls_setup_new(&c->setup, options)) != 0)
        goto free_own_options;
    c->magic = MAGIC;
    atomic_init(&c->refs, 1);
    pthread_mutex_init(&c->lock, NULL);
    *out = c;
    return 0;
free_own_options:
    free_options(&c->options);
free_config:
    spk_free(c);
    return rc;
}

bool
spk_tls_is_config(const spoke_tls_config *config)
{
    return config->magic == MAGIC;
}

int
spoke_tls_config_replace(spoke_tls_config *c, const struct spoke_tls_options *options)
{
    struct spoke_tls_options own, old;
    struct spk_tls_setup *setup, *before;
    int rc;

    if (c == NULL || options == NULL || !spk_tls_is_config(c))
        return SPOKE_EINVAL;
    if ((rc = copy_options(&own, options)) != 0)
        return rc;
    if ((rc = spk_tls_setup_new(&setup, &own)) != 0) {
        free_options(&own);
        return rc;
    }
    pthread_mutex_lock(&c->lock);
    old = c->options;
    before = c->setup;
    c->options = own;
    c->setup = setup;
    pthread_mutex_unlock(&c->lock);
    free_options(&old);
    spk_tls_setup_free(before);
    return 0;
}

int
spoke_tls_config_reload(spoke_tls_config *c)
{
    struct spoke_tls_options now;
    int rc;

    if (c == NULL || !spk_tls_is_config(c))
        return SPOKE_EINVAL;
    pthread_mutex_lock(&c->lock);
    rc = copy_options(&now, &c->options);
    pthread_mutex_unlock(&c->lock);
    if (rc != 0)
        return rc;
    rc = spoke_tls_config_replace(c, &now);
    free_options(&now);
    return rc;
}

spoke_tls_config *
spoke_tls_config_ref(spoke_tls_config *c)
{
    if (c != NULL)
        atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void
spoke_tls_config_free(spoke_tls_config *c)
{
    if (c == NULL || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) > 1)
        return;
    c->magic = 0;
    spk_tls_setup_free(c->setup);
    free_options(&c->options);
    pthread_mutex_destroy(&c->lock);
    spk_free(c);
}

/* Of dialers that were given none.  Made once, and kept: reading the system's store takes time. */
static pthread_mutex_t default_lock = PTHREAD_MUTEX_INITIALIZER;
SPK_FREE_AFTER_FORK(default_lock)
static struct spk_tls_setup *default_setup;

static int
get_default(struct spk_tls_setup **out)
{
    struct spoke_tls_options o;
    int rc = 0;

    spoke_tls_options_init(&o);
    pthread_mutex_lock(&default_lock);
    if (default_setup == NULL)
        rc = spk_tls_setup_new(&default_setup, &o);
    if (rc == 0)
        *out = spk_tls_setup_ref(default_setup);
    pthread_mutex_unlock(&default_lock);
    return rc;
}

int
spk_tls_config_setup(spoke_tls_config *c, struct spk_tls_setup **out)
{
    *out = NULL;
    if (c == NULL)
        return get_default(out);
    pthread_mutex_lock(&c->lock);
    *out = spk_tls_setup_ref(c->setup);
    pthread_mutex_unlock(&c->lock);
    return 0;
}
