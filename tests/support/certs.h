/* SPDX-License-Identifier: MIT */
/* Certificates of the tests' own, good ones and bad ones.  Main thread of a test. */
#ifndef TESTS_SUPPORT_CERTS_H
#define TESTS_SUPPORT_CERTS_H

#include <spoke/tls.h>

struct cert;

/* One to be made.  What is 0 or NULL: valid from yesterday until tomorrow, for any use, and of its
 * own signature. */
struct cert_wish {
    const char *subject; /* common name */
    const char *names;   /* "DNS:spoke.test,IP:127.0.0.1" */
    const char *usage;   /* "serverAuth", "clientAuth" */
    const struct cert *issuer;
    int from_days, to_days; /* from now */
    bool is_authority;
    bool is_rsa; /* else on P-256 */
};

/* Lives until the process ends. */
const struct cert *cert_make(const struct cert_wish *wish);
const char *cert_text(const struct cert *c); /* PEM */
const char *cert_key_text(const struct cert *c);
/* What an authority has revoked; NULL: nothing. */
const char *cert_revoked_text(const struct cert *authority, const struct cert *revoked);
/* Write a text to a file of this name in the test's directory; its path. */
const char *cert_file(const char *name, const char *text);

/* Those of most tests: an authority, and one of spoke.test that it has signed. */
const struct cert *test_authority(void);
const struct cert *test_cert(void);
/* What is made of both, for either end, checks peers as the defaults do. */
void test_tls_options(struct spoke_tls_options *o);
/* Made once. */
spoke_tls_config *test_tls(void);

#endif
