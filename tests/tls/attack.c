/* SPDX-License-Identifier: MIT */
#include "tests/tls/attack.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

void
expect_well(struct victim *v)
{
    char got[8];
    size_t size = sizeof got;

    expect_rc(spoke_send_bytes(v->friend, "well", 4, 0), 0);
    expect_rc(spoke_recv_bytes(v->s, got, &size, 0), 0);
    cr_assert(size == 4 && memcmp(got, "well", 4) == 0);
}

void
victim_open(struct victim *v, const struct spoke_tls_options *o, spoke_ns handshake_ns)
{
    spoke_tls_config *c = config_of(o);

    expect_rc(spoke_socket_open(&v->s, SPOKE_PULL, NULL), 0);
    expect_rc(spoke_socket_open(&v->friend, SPOKE_PUSH, NULL), 0);
    expect_rc(spoke_socket_set_tls(v->s, c), 0);
    spoke_tls_config_free(c);
    expect_rc(spoke_socket_set_tls(v->friend, test_tls()), 0);
    expect_rc(spoke_socket_set_duration(v->s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    endpoint_fresh(v->url, TLS);
    expect_rc(spoke_listen(v->s, v->url, &v->l, 0), 0);
    expect_rc(spoke_dial(v->friend, v->url, NULL, SPOKE_WAIT_FIRST), 0);
    expect_well(v);
    expect_rc(spoke_listener_set_duration(v->l, SPOKE_OPT_HANDSHAKE_TIME, handshake_ns), 0);
}

void
victim_close(struct victim *v)
{
    expect_well(v);
    expect_rc(spoke_socket_close(v->friend), 0);
    expect_rc(spoke_socket_close(v->s), 0);
}

struct spoke_listener_stats
stats_of(struct victim *v)
{
    struct spoke_listener_stats stats;

    expect_rc(spoke_listener_stats(v->l, &stats), 0);
    return stats;
}

/* Wait until so many handshakes have failed; why the last one did. */
int
await_failed(struct victim *v, uint64_t count)
{
    const struct timespec pause = {.tv_nsec = 1000 * 1000};

    for (int i = 0; i < 10000 && stats_of(v).handshakes_failed < count; i++)
        nanosleep(&pause, NULL);
    cr_assert_eq(stats_of(v).handshakes_failed, count, "%d of %d have failed",
                 (int)stats_of(v).handshakes_failed, (int)count);
    return stats_of(v).last_error;
}

void
await_pipes(struct victim *v, uint64_t count)
{
    const struct timespec pause = {.tv_nsec = 1000 * 1000};

    for (int i = 0; i < 10000 && stats_of(v).pipes_current != count; i++)
        nanosleep(&pause, NULL);
    cr_assert_eq(stats_of(v).pipes_current, count);
}

/* ---- an enemy that knows TLS ---- */

/* A certificate and its key. */
static void
use(SSL *ssl, const struct cert *c)
{
    BIO *text = BIO_new_mem_buf(cert_text(c), -1),
        *key_text = BIO_new_mem_buf(cert_key_text(c), -1);
    X509 *x = PEM_read_bio_X509(text, NULL, NULL, NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(key_text, NULL, NULL, NULL);

    cr_assert(SSL_use_certificate(ssl, x) == 1 && SSL_use_PrivateKey(ssl, key) == 1);
    X509_free(x);
    EVP_PKEY_free(key);
    BIO_free(text);
    BIO_free(key_text);
}

void
enemy_open(struct enemy *x, int version)
{
    x->context = SSL_CTX_new(TLS_method());
    cr_assert_eq(SSL_CTX_set_max_proto_version(x->context, version), 1);
    x->ssl = SSL_new(x->context);
    x->in = BIO_new(BIO_s_mem());
    x->out = BIO_new(BIO_s_mem());
    SSL_set_bio(x->ssl, x->in, x->out);
    SSL_set_connect_state(x->ssl);
    x->raw.fd = -1;
}

void
enemy_open_server(struct enemy *x, int version)
{
    enemy_open(x, version);
    use(x->ssl, test_cert());
    SSL_set_accept_state(x->ssl);
}

void
enemy_close(struct enemy *x)
{
    raw_close(&x->raw);
    SSL_free(x->ssl);
    SSL_CTX_free(x->context);
    ERR_clear_error();
}

bool
enemy_receive(struct enemy *x)
{
    struct pollfd fd = {.fd = x->raw.fd, .events = POLLIN};
    char bytes[4096];
    ssize_t n;

    if (poll(&fd, 1, RAW_LIMIT_MS) != 1)
        return false;
    n = recv(x->raw.fd, bytes, sizeof bytes, 0);
    return n > 0 && BIO_write(x->in, bytes, (int)n) == n;
}

size_t
enemy_says(struct enemy *x, char *bytes, size_t room)
{
    int n = BIO_read(x->out, bytes, (int)room);

    return n > 0 ? (size_t)n : 0;
}

void
enemy_sends_bytes(struct enemy *x, const char *bytes, size_t size)
{
    size_t step = x->drips ? 1 : size;

    for (size_t at = 0; at < size; at += step)
        if (raw_send_bytes(&x->raw, bytes + at, step, RAW_LIMIT_MS) != RAW_OK)
            return;
}

void
enemy_sends(struct enemy *x)
{
    char bytes[4096];
    size_t n;

    while ((n = enemy_says(x, bytes, sizeof bytes)) > 0)
        enemy_sends_bytes(x, bytes, n);
}

void
enemy_shakes_hands(struct enemy *x, const char *url)
{
    if (url != NULL)
        cr_assert_eq(raw_connect(&x->raw, url, RAW_LIMIT_MS), RAW_OK);
    while (SSL_do_handshake(x->ssl) != 1) {
        enemy_sends(x);
        cr_assert(enemy_receive(x));
    }
    enemy_sends(x);
}

void
enemy_attaches(struct enemy *x, struct victim *v, int version)
{
    uint8_t hello[RAW_HANDSHAKE_BYTES];

    enemy_open(x, version);
    enemy_shakes_hands(x, v->url);
    raw_header(hello, SPOKE_PUSH);
    cr_assert_eq(SSL_write(x->ssl, hello, sizeof hello), sizeof hello);
    enemy_sends(x);
}
