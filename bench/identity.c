/* SPDX-License-Identifier: MIT */
/* bench-identity FILE: makes a key and a certificate for this machine's loopback, of its own
 * signature and valid for a day, and writes both to a new file that only its owner can read.
 * Servers of the benchmarks are that, and their clients trust nobody else. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DAY (24L * 60 * 60)

static int
add_extension(X509 *x, int which, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, which, value);
    int rc = extension != NULL && X509_add_ext(x, extension, -1) == 1 ? 0 : -1;

    X509_EXTENSION_free(extension);
    return rc;
}

static int
fill_in(X509 *x, EVP_PKEY *key)
{
    X509_NAME *name = X509_get_subject_name(x);

    if (X509_set_version(x, 2) != 1 || ASN1_INTEGER_set(X509_get_serialNumber(x), 1) != 1 ||
        X509_gmtime_adj(X509_getm_notBefore(x), -DAY) == NULL ||
        X509_gmtime_adj(X509_getm_notAfter(x), DAY) == NULL ||
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"spoke bench",
                                   -1, -1, 0) != 1 ||
        X509_set_issuer_name(x, name) != 1 || X509_set_pubkey(x, key) != 1)
        return -1;
    if (add_extension(x, NID_subject_alt_name, "IP:127.0.0.1,DNS:localhost") != 0 ||
        add_extension(x, NID_basic_constraints, "critical,CA:TRUE") != 0)
        return -1;
    return X509_sign(x, key, EVP_sha256()) > 0 ? 0 : -1;
}

static int
make(X509 **x, EVP_PKEY **key)
{
    *x = X509_new();
    *key = EVP_EC_gen("P-256");
    return *x != NULL && *key != NULL ? fill_in(*x, *key) : -1;
}

static int
write_both(const char *path, X509 *x, EVP_PKEY *key)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), ok;
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");

    if (f == NULL) {
        fprintf(stderr, "bench: %s: %s\n", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    ok = PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1 && PEM_write_X509(f, x) == 1;
    ok &= fclose(f) == 0;
    if (ok)
        return 0;
    fprintf(stderr, "bench: %s cannot be written\n", path);
    unlink(path);
    return -1;
}

int
main(int argc, char **argv)
{
    EVP_PKEY *key;
    X509 *x;
    int rc = -1;

    if (argc != 2) {
        fputs("usage: bench-identity FILE\n", stderr);
        return 2;
    }
    if (make(&x, &key) == 0)
        rc = write_both(argv[1], x, key);
    else
        ERR_print_errors_fp(stderr);
    X509_free(x);
    EVP_PKEY_free(key);
    return rc == 0 ? 0 : 1;
}
