/* SPDX-License-Identifier: MIT */
/* The floor of TLS: OpenSSL on a socket of its own (SSL_set_fd), with what both ends of ours have,
 * version 1.3 and the cipher that two OpenSSL agree on, in calls that block or are tried until they
 * succeed.  It reads ahead, as much as it writes in a call.  And one handshake after the other,
 * with the eight bytes of the Scalability Protocols behind each. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <unistd.h>

#include "../common/handshakes.h"
#include "../common/net.h"
#include "../common/stream.h"

static int
complain(const char *call)
{
    fprintf(stderr, "bench: %s: ", call);
    if (ERR_peek_error() == 0)
        perror(NULL);
    ERR_print_errors_fp(stderr);
    return -1;
}

/* ---- one end ---- */

static SSL_CTX *
new_context(const struct bench_options *o)
{
    SSL_CTX *c = SSL_CTX_new(TLS_method());
    bool resumes = o->work == BENCH_RESUMPTIONS;

    if (c == NULL || SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1)
        goto failed;
    SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(c, 1);
    SSL_CTX_set_default_read_buffer_len(c, o->chunk_size);
    SSL_CTX_set_num_tickets(c, resumes ? 1 : 0);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    if (o->role == BENCH_SERVER &&
        (SSL_CTX_use_certificate_file(c, o->identity, SSL_FILETYPE_PEM) != 1 ||
         SSL_CTX_use_PrivateKey_file(c, o->identity, SSL_FILETYPE_PEM) != 1))
        goto failed;
    if (o->role != BENCH_SERVER) {
        SSL_CTX_set_verify(c, SSL_VERIFY_PEER, NULL);
        if (SSL_CTX_load_verify_file(c, o->identity) != 1)
            goto failed;
    }
    return c;
failed:
    complain("SSL_CTX_new");
    SSL_CTX_free(c);
    return NULL;
}

/* Whether a call is to be made once more: the socket does not block, and was not ready. */
static bool
again(SSL *ssl, int result, unsigned *turns)
{
    int why = SSL_get_error(ssl, result);

    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
        return false;
    bench_spin(turns);
    return true;
}

/* Shake hands on a connected socket. */
static SSL *
shake_hands(SSL_CTX *c, int fd, bool is_server, SSL_SESSION *session)
{
    SSL *ssl = SSL_new(c);
    int rc = 0;

    if (ssl != NULL && SSL_set_fd(ssl, fd) == 1 &&
        (is_server || X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), "127.0.0.1") == 1) &&
        (session == NULL || SSL_set_session(ssl, session) == 1))
        rc = is_server ? SSL_accept(ssl) : SSL_connect(ssl);
    if (rc == 1)
        return ssl;
    complain("the handshake");
    SSL_free(ssl);
    return NULL;
}

static ssize_t
read_some(SSL *ssl, void *data, size_t size)
{
    unsigned turns = 0;
    size_t n;
    int rc;

    while ((rc = SSL_read_ex(ssl, data, size, &n)) != 1)
        if (!again(ssl, rc, &turns))
            return complain("SSL_read");
    return (ssize_t)n;
}

static int
write_all(SSL *ssl, const void *data, size_t size)
{
    const uint8_t *p = data;
    unsigned turns = 0;
    size_t n;
    int rc;

    for (; size > 0; p += n, size -= n)
        while ((rc = SSL_write_ex(ssl, p, size, &n)) != 1)
            if (!again(ssl, rc, &turns))
                return complain("SSL_write");
    return 0;
}

/* ---- messages and bytes ---- */

struct tls_stream {
    struct raw_stream raw; /* first */
    SSL_CTX *context;
    SSL *ssl;
};

static int
tls_io_open(struct raw_stream *s)
{
    struct tls_stream *t = (struct tls_stream *)s;

    if ((t->context = new_context(s->link.options)) == NULL || raw_stream_connect(s) != 0)
        return -1;
    t->ssl = shake_hands(t->context, s->fd, s->link.side == BENCH_SERVER, NULL);
    if (t->ssl == NULL)
        return -1;
    if (!bench_spins(&s->link) || fcntl(s->fd, F_SETFL, O_NONBLOCK) == 0)
        return 0;
    return raw_stream_complain("fcntl");
}

static void
tls_io_close(struct raw_stream *s)
{
    struct tls_stream *t = (struct tls_stream *)s;

    SSL_shutdown(t->ssl);
    SSL_free(t->ssl);
    SSL_CTX_free(t->context);
}

static ssize_t
tls_io_read(struct raw_stream *s, void *data, size_t size)
{
    return read_some(((struct tls_stream *)s)->ssl, data, size);
}

static int
tls_io_write(struct raw_stream *s, const void *data, size_t size)
{
    return write_all(((struct tls_stream *)s)->ssl, data, size);
}

static const struct raw_io tls_io = {
    .open = tls_io_open,
    .close = tls_io_close,
    .read_some = tls_io_read,
    .write_all = tls_io_write,
};

static int
tls_open(struct bench_link *l)
{
    return raw_stream_open(l, &tls_io);
}

/* ---- handshakes ---- */

enum { HEADER_SIZE = 8 };

struct tls_shaker {
    struct bench_shaker shaker; /* first */
    SSL_CTX *context;
    SSL_SESSION *session; /* of the connection before */
    SSL *ssl;
    int listener, fd;
};

static int
shaker_open(struct bench_shaker *s)
{
    struct tls_shaker *t = (struct tls_shaker *)s;
    struct bench_link link = {.options = s->options, .side = s->options->role};
    char actual[BENCH_ADDRESS_MAX];

    t->listener = -1;
    if ((t->context = new_context(s->options)) == NULL)
        return -1;
    if (s->options->role == BENCH_SERVER) {
        if ((t->listener = bench_net_listen(s->options->address, actual)) < 0)
            return -1;
        bench_ready(&link, actual);
    }
    return 0;
}

static void
shaker_close(struct bench_shaker *s)
{
    struct tls_shaker *t = (struct tls_shaker *)s;

    if (t->listener >= 0)
        close(t->listener);
    SSL_SESSION_free(t->session);
    SSL_CTX_free(t->context);
}

static int
read_all(SSL *ssl, void *data, size_t size)
{
    uint8_t *p = data;

    while (size > 0) {
        ssize_t n = read_some(ssl, p, size);
        if (n < 0)
            return -1;
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

/* As two sockets greet each other. */
static int
exchange_headers(SSL *ssl)
{
    uint8_t header[HEADER_SIZE] = {0, 'S', 'P'};

    return write_all(ssl, header, sizeof header) == 0 ? read_all(ssl, header, sizeof header) : -1;
}

static int
shaker_connect(struct bench_shaker *s)
{
    struct tls_shaker *t = (struct tls_shaker *)s;
    bool is_server = s->options->role == BENCH_SERVER;

    t->fd = is_server ? bench_net_accept(t->listener) : bench_net_connect(s->options->address);
    if (t->fd < 0)
        return -1;
    t->ssl = shake_hands(t->context, t->fd, is_server, t->session);
    if (t->ssl == NULL || exchange_headers(t->ssl) != 0) {
        SSL_free(t->ssl);
        close(t->fd);
        return -1;
    }
    s->resumed = SSL_session_reused(t->ssl) == 1;
    return 0;
}

/* What a client has read by now has brought its ticket. */
static void
shaker_hang_up(struct bench_shaker *s)
{
    struct tls_shaker *t = (struct tls_shaker *)s;

    SSL_SESSION_free(t->session);
    t->session = s->options->work == BENCH_RESUMPTIONS && s->options->role == BENCH_CLIENT
                     ? SSL_get1_session(t->ssl)
                     : NULL;
    SSL_shutdown(t->ssl);
    SSL_free(t->ssl);
    close(t->fd);
}

static int
shaker_send(struct bench_shaker *s, const void *data, size_t size)
{
    return write_all(((struct tls_shaker *)s)->ssl, data, size);
}

static int
shaker_receive(struct bench_shaker *s, void *data, size_t size)
{
    return read_all(((struct tls_shaker *)s)->ssl, data, size);
}

static const struct bench_shaker_ops shaker_ops = {
    .name = "raw-tls",
    .open = shaker_open,
    .close = shaker_close,
    .connect = shaker_connect,
    .hang_up = shaker_hang_up,
    .send = shaker_send,
    .receive = shaker_receive,
};

static int
other_work(const struct bench_options *o)
{
    struct tls_shaker shaker = {0};

    if (o->work == BENCH_HANDSHAKES || o->work == BENCH_RESUMPTIONS)
        return bench_handshakes_run(&shaker_ops, &shaker.shaker, o);
    fprintf(stderr, "bench: raw-tls does not do %s\n", bench_work_name(o->work));
    return 2;
}

static const struct bench_adapter tls_adapter = {
    .name = "raw-tls",
    .link_size = sizeof(struct tls_stream),
    .open = tls_open,
    .close = raw_stream_close,
    .send = raw_stream_send,
    .flush = raw_stream_flush,
    .receive = raw_stream_receive,
    .echo = raw_stream_echo,
    .other = other_work,
};

int
main(int argc, char **argv)
{
    return bench_program_main(argc, argv, &tls_adapter);
}
