/* SPDX-License-Identifier: MIT */
#include "tests/support/certs.h"

#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/endpoints.h"
#include "tests/support/test.h"

#define DAY (24L * 60 * 60)

struct cert {
    X509 *x;
    EVP_PKEY *key;
    char *text, *key_text;
};

/* What lives until the process ends, and is no leak. */
static void *
keep(void *memory)
{
    static void *kept[512];
    static size_t count;

    cr_assert_not_null(memory);
    cr_assert_lt(count, sizeof kept / sizeof *kept);
    return kept[count++] = memory;
}

/* The contents of a memory BIO, with a NUL; frees it. */
static char *
take_text(BIO *bio)
{
    char *data, *text;
    long size = BIO_get_mem_data(bio, &data);

    text = keep(strndup(data, (size_t)size));
    BIO_free(bio);
    return text;
}

static void
add_extension(X509 *x, X509V3_CTX *context, int which, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, context, which, value);

    cr_assert_not_null(extension, "%s", value);
    cr_assert_eq(X509_add_ext(x, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static void
fill_in(struct cert *c, const struct cert_wish *wish)
{
    const struct cert *issuer = wish->issuer != NULL ? wish->issuer : c;
    static long serial = 1;
    X509V3_CTX context;

    X509_set_version(c->x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(c->x), serial++);
    X509_gmtime_adj(X509_getm_notBefore(c->x), (wish->from_days != 0 ? wish->from_days : -1) * DAY);
    X509_gmtime_adj(X509_getm_notAfter(c->x), (wish->to_days != 0 ? wish->to_days : 1) * DAY);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(c->x), "CN", MBSTRING_ASC,
                               (const unsigned char *)wish->subject, -1, -1, 0);
    X509_set_issuer_name(c->x, X509_get_subject_name(issuer->x));
    X509_set_pubkey(c->x, c->key);
    X509V3_set_ctx(&context, issuer->x, c->x, NULL, NULL, 0);
    if (wish->is_authority)
        add_extension(c->x, &context, NID_basic_constraints, "critical,CA:TRUE");
    if (wish->names != NULL)
        add_extension(c->x, &context, NID_subject_alt_name, wish->names);
    if (wish->usage != NULL)
        add_extension(c->x, &context, NID_ext_key_usage, wish->usage);
    cr_assert_gt(X509_sign(c->x, issuer->key, EVP_sha256()), 0);
}

const struct cert *
cert_make(const struct cert_wish *wish)
{
    struct cert *c = keep(calloc(1, sizeof *c));
    BIO *bio;

    /* As the library does, who comes too late here: its thread may still need OpenSSL when main()
     * has returned. */
    cr_assert_eq(OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL), 1);
    c->x = X509_new();
    c->key = wish->is_rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    cr_assert(c->x != NULL && c->key != NULL);
    fill_in(c, wish);
    bio = BIO_new(BIO_s_mem());
    cr_assert_eq(PEM_write_bio_X509(bio, c->x), 1);
    c->text = take_text(bio);
    bio = BIO_new(BIO_s_mem());
    cr_assert_eq(PEM_write_bio_PrivateKey(bio, c->key, NULL, NULL, 0, NULL, NULL), 1);
    c->key_text = take_text(bio);
    return c;
}

const char *
cert_text(const struct cert *c)
{
    return c->text;
}

const char *
cert_key_text(const struct cert *c)
{
    return c->key_text;
}

const char *
cert_revoked_text(const struct cert *authority, const struct cert *revoked)
{
    X509_CRL *list = X509_CRL_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, -DAY), *later = X509_gmtime_adj(NULL, DAY);
    X509_REVOKED *one;
    BIO *bio = BIO_new(BIO_s_mem());

    X509_CRL_set_version(list, 1);
    X509_CRL_set_issuer_name(list, X509_get_subject_name(authority->x));
    X509_CRL_set1_lastUpdate(list, now);
    X509_CRL_set1_nextUpdate(list, later);
    if (revoked != NULL) {
        one = X509_REVOKED_new();
        X509_REVOKED_set_serialNumber(one, X509_get_serialNumber(revoked->x));
        X509_REVOKED_set_revocationDate(one, now);
        X509_CRL_add0_revoked(list, one);
    }
    cr_assert_gt(X509_CRL_sign(list, authority->key, EVP_sha256()), 0);
    cr_assert_eq(PEM_write_bio_X509_CRL(bio, list), 1);
    X509_CRL_free(list);
    ASN1_TIME_free(now);
    ASN1_TIME_free(later);
    return take_text(bio);
}

const char *
cert_file(const char *name, const char *text)
{
    char path[ENDPOINT_MAX];
    FILE *file;

    scratch_path(path, name);
    file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_geq(fputs(text, file), 0);
    cr_assert_eq(fclose(file), 0);
    return keep(strdup(path));
}

const struct cert *
test_authority(void)
{
    static const struct cert *made;

    if (made == NULL)
        made = cert_make(&(struct cert_wish){.subject = "test authority", .is_authority = true});
    return made;
}

const struct cert *
test_cert(void)
{
    static const struct cert *made;

    if (made == NULL)
        made = cert_make(&(struct cert_wish){.subject = "spoke.test",
                                             .names = "DNS:spoke.test,IP:127.0.0.1",
                                             .issuer = test_authority()});
    return made;
}

void
test_tls_options(struct spoke_tls_options *o)
{
    spoke_tls_options_init(o);
    o->cert = cert_text(test_cert());
    o->key = cert_key_text(test_cert());
    o->ca = cert_text(test_authority());
    o->server_name = "spoke.test";
}

spoke_tls_config *
test_tls(void)
{
    static spoke_tls_config *made;
    struct spoke_tls_options o;

    if (made != NULL)
        return made;
    test_tls_options(&o);
    cr_assert_eq(spoke_tls_config_new(&made, &o), 0);
    return made;
}
