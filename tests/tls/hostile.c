/* SPDX-License-Identifier: MIT */
/* Peers that do not speak TLS, or speak it to do harm: each costs its own connection, in bounded
 * time and memory, and others go on.  The victim is on the shared engine; its enemy is a plain
 * socket, with OpenSSL above it where it has to get that far. */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/raw_peer.h"
#include "tests/support/resources.h"
#include "tests/tls/meeting.h"

/* A socket that listens, with a friend who is connected all the time. */
struct victim {
    spoke_socket *s, *friend;
    spoke_listener *l;
    char url[ENDPOINT_MAX];
};

static void
expect_well(struct victim *v)
{
    char got[8];
    size_t size = sizeof got;

    expect_rc(spoke_send_bytes(v->friend, "well", 4, 0), 0);
    expect_rc(spoke_recv_bytes(v->s, got, &size, 0), 0);
    cr_assert(size == 4 && memcmp(got, "well", 4) == 0);
}

static void
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

static void
victim_close(struct victim *v)
{
    expect_well(v);
    expect_rc(spoke_socket_close(v->friend), 0);
    expect_rc(spoke_socket_close(v->s), 0);
}

static struct spoke_listener_stats
stats_of(struct victim *v)
{
    struct spoke_listener_stats stats;

    expect_rc(spoke_listener_stats(v->l, &stats), 0);
    return stats;
}

/* Wait until so many handshakes have failed; why the last one did. */
static int
await_failed(struct victim *v, uint64_t count)
{
    const struct timespec pause = {.tv_nsec = 1000 * 1000};

    for (int i = 0; i < 10000 && stats_of(v).handshakes_failed < count; i++)
        nanosleep(&pause, NULL);
    cr_assert_eq(stats_of(v).handshakes_failed, count, "%d of %d have failed",
                 (int)stats_of(v).handshakes_failed, (int)count);
    return stats_of(v).last_error;
}

static void
send_and_lose(struct victim *v, const void *bytes, size_t size, uint64_t count, int wanted)
{
    struct raw_peer p;

    cr_assert_eq(raw_connect(&p, v->url, RAW_LIMIT_MS), RAW_OK);
    (void)raw_send_bytes(&p, bytes, size, RAW_LIMIT_MS);
    cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
    raw_close(&p);
    expect_rc(await_failed(v, count), wanted);
}

Test(tls_hostile, what_is_no_tls_is_told_as_that, .timeout = 60)
{
    static const uint8_t giant[5 + 100] = {22, 3, 1, 0xff, 0xff}, empty[5] = {22, 3, 1, 0, 0},
                                   version_9[] = {22, 9, 9, 0, 4, 1, 0, 0, 0},
                                   alert[] = {21, 3, 3, 0, 2, 2, 40},
                                   data[] = {23, 3, 3, 0, 1, 'x'},
                                   huge_hello[] = {22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff},
                                   wrong_hello[] = {22, 3, 1, 0, 4, 2, 0, 0, 0};
    static const struct {
        const void *bytes;
        size_t size;
    } strangers[] = {
        {"\0SP\0\0\x50\0\0 and more", 17}, /* the same, without TLS */
        {"GET / HTTP/1.1\r\n\r\n", 18},
        {"SSH-2.0-OpenSSH_9.2\r\n", 21},
        {giant, sizeof giant},
        {version_9, sizeof version_9},
        {alert, sizeof alert},
        {data, sizeof data},
        {huge_hello, sizeof huge_hello},
        {wrong_hello, sizeof wrong_hello},
    };
    struct spoke_tls_options o;
    struct raw_peer p;
    struct victim v;
    uint64_t count = 0;

    server_options(&o);
    victim_open(&v, &o, PATIENCE);
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++)
        send_and_lose(&v, strangers[i].bytes, strangers[i].size, ++count, SPOKE_ETLS);
    /* Records without anything in them, for ever. */
    cr_assert_eq(raw_connect(&p, v.url, RAW_LIMIT_MS), RAW_OK);
    for (int i = 0; i < 100000 && raw_send_bytes(&p, empty, sizeof empty, RAW_LIMIT_MS) == RAW_OK;
         i++) {
    }
    raw_close(&p);
    await_failed(&v, ++count);
    victim_close(&v);
}

/* ---- an enemy that knows TLS ---- */

struct enemy {
    struct raw_peer raw;
    SSL_CTX *context;
    SSL *ssl;
    BIO *in, *out;
};

static void
enemy_open(struct enemy *x, int version)
{
    x->context = SSL_CTX_new(TLS_client_method());
    cr_assert_eq(SSL_CTX_set_max_proto_version(x->context, version), 1);
    x->ssl = SSL_new(x->context);
    x->in = BIO_new(BIO_s_mem());
    x->out = BIO_new(BIO_s_mem());
    SSL_set_bio(x->ssl, x->in, x->out);
    SSL_set_connect_state(x->ssl);
}

static void
enemy_close(struct enemy *x)
{
    SSL_free(x->ssl);
    SSL_CTX_free(x->context);
    ERR_clear_error();
}

static bool
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

/* What it wants to send next; the victim answers as long as it is asked. */
static size_t
enemy_says(struct enemy *x, char *bytes, size_t room)
{
    int n = BIO_read(x->out, bytes, (int)room);

    return n > 0 ? (size_t)n : 0;
}

static void
enemy_shakes_hands(struct enemy *x, const char *url)
{
    char bytes[4096];
    size_t n;

    cr_assert_eq(raw_connect(&x->raw, url, RAW_LIMIT_MS), RAW_OK);
    while (SSL_do_handshake(x->ssl) != 1) {
        if ((n = enemy_says(x, bytes, sizeof bytes)) > 0)
            cr_assert_eq(raw_send_bytes(&x->raw, bytes, n, RAW_LIMIT_MS), RAW_OK);
        cr_assert(enemy_receive(x));
    }
    n = enemy_says(x, bytes, sizeof bytes);
    cr_assert_eq(raw_send_bytes(&x->raw, bytes, n, RAW_LIMIT_MS), RAW_OK);
}

enum deed { ENDS, GARBLES, FALLS_SILENT };

/* Of the handshake say so many bytes, then do that.  False: there were not as many. */
static bool
misbehave(struct victim *v, int version, size_t at, enum deed deed, uint64_t count)
{
    static const uint8_t garbage[64] = {0xa5, 0x5a, 0xff, 1, 2, 3};
    struct enemy x;
    char bytes[4096];
    size_t said = 0, n;
    bool done = false;

    enemy_open(&x, version);
    cr_assert_eq(raw_connect(&x.raw, v->url, RAW_LIMIT_MS), RAW_OK);
    while (SSL_do_handshake(x.ssl) != 1) {
        n = enemy_says(&x, bytes, sizeof bytes);
        if (said + n > at) {
            cr_assert_eq(raw_send_bytes(&x.raw, bytes, at - said, RAW_LIMIT_MS), RAW_OK);
            done = true;
            break;
        }
        if (n > 0)
            cr_assert_eq(raw_send_bytes(&x.raw, bytes, n, RAW_LIMIT_MS), RAW_OK);
        said += n;
        if (!enemy_receive(&x))
            break;
    }
    if (done && deed == GARBLES)
        for (int i = 0; i < 16; i++) /* more than any record that it may have begun */
            (void)raw_send_bytes(&x.raw, garbage, sizeof garbage, RAW_LIMIT_MS);
    if (done && deed != FALLS_SILENT)
        (void)raw_end(&x.raw);
    if (done) {
        cr_assert_eq(raw_wait_eof(&x.raw, RAW_LIMIT_MS), RAW_OK);
        int rc = await_failed(v, count);
        cr_assert(rc == (deed == FALLS_SILENT ? SPOKE_ETIMEDOUT : SPOKE_ECONNRESET) ||
                      (deed == GARBLES && rc == SPOKE_ETLS),
                  "%zu bytes: %s", at, spoke_error_name(rc));
    }
    raw_close(&x.raw);
    enemy_close(&x);
    return done;
}

Test(tls_hostile, a_handshake_may_end_or_turn_bad_at_any_byte, .timeout = 120)
{
    static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};
    struct spoke_tls_options o;
    struct victim v;
    uint64_t count = 0;

    server_options(&o);
    victim_open(&v, &o, PATIENCE);
    for (int k = 0; k < 2; k++) {
        for (int deed = ENDS; deed <= GARBLES; deed++) {
            size_t at = 0;

            while (misbehave(&v, versions[k], at, (enum deed)deed, count + 1)) {
                count++;
                at += at < 12 || SPOKE_TEST_SLOWDOWN == 1 ? 7 : 31;
            }
            cr_assert_gt(at, 200);
            await_failed(&v, ++count); /* the last one only left */
        }
    }
    victim_close(&v);
}

Test(tls_hostile, who_is_slow_has_the_time_of_one_handshake, .timeout = 60)
{
    static const size_t stages[] = {0, 3, 60, 250};
    const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    struct spoke_tls_options o;
    struct enemy x;
    struct raw_peer p;
    struct victim v;
    char bytes[4096];
    uint64_t count = 0;
    size_t n;

    server_options(&o);
    victim_open(&v, &o, 300 * SPOKE_MS);
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        cr_assert(misbehave(&v, TLS1_3_VERSION, stages[i], FALLS_SILENT, ++count) || i == 3);
    count = stats_of(&v).handshakes_failed;
    /* A byte now and then is not enough. */
    enemy_open(&x, TLS1_3_VERSION);
    (void)SSL_do_handshake(x.ssl);
    n = enemy_says(&x, bytes, sizeof bytes);
    cr_assert_eq(raw_connect(&p, v.url, RAW_LIMIT_MS), RAW_OK);
    for (size_t i = 0; i < n && raw_send_bytes(&p, bytes + i, 1, RAW_LIMIT_MS) == RAW_OK; i++)
        nanosleep(&pause, NULL);
    raw_close(&p);
    expect_rc(await_failed(&v, count + 1), SPOKE_ETIMEDOUT);
    enemy_close(&x);
    victim_close(&v);
}

/* ---- after the handshake ---- */

static void
enemy_sends(struct enemy *x)
{
    char bytes[4096];
    size_t n;

    while ((n = enemy_says(x, bytes, sizeof bytes)) > 0 &&
           raw_send_bytes(&x->raw, bytes, n, RAW_LIMIT_MS) == RAW_OK) {
    }
}

Test(tls_hostile, a_second_handshake_ends_the_connection, .timeout = 60)
{
    uint8_t hello[RAW_HANDSHAKE_BYTES];
    struct spoke_tls_options o;
    struct enemy x;
    struct victim v;

    server_options(&o);
    victim_open(&v, &o, PATIENCE);
    enemy_open(&x, TLS1_2_VERSION);
    enemy_shakes_hands(&x, v.url);
    while (SSL_read(x.ssl, hello, sizeof hello) <= 0) /* or it would find that in its way */
        cr_assert(enemy_receive(&x));
    cr_assert_eq(SSL_renegotiate(x.ssl), 1);
    (void)SSL_do_handshake(x.ssl);
    enemy_sends(&x);
    cr_assert_eq(raw_wait_eof(&x.raw, RAW_LIMIT_MS), RAW_OK);
    expect_rc(await_failed(&v, 1), SPOKE_EPROTO);
    raw_close(&x.raw);
    enemy_close(&x);
    victim_close(&v);
}

Test(tls_hostile, new_keys_for_ever_end_the_connection, .timeout = 60)
{
    struct spoke_tls_options o;
    struct enemy x;
    struct victim v;

    server_options(&o);
    victim_open(&v, &o, PATIENCE);
    enemy_open(&x, TLS1_3_VERSION);
    enemy_shakes_hands(&x, v.url);
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(SSL_key_update(x.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        if (SSL_do_handshake(x.ssl) != 1)
            break;
        enemy_sends(&x);
    }
    cr_assert_eq(raw_wait_eof(&x.raw, RAW_LIMIT_MS), RAW_OK);
    expect_rc(await_failed(&v, 1), SPOKE_EPROTO);
    raw_close(&x.raw);
    enemy_close(&x);
    victim_close(&v);
}

/* One that has been let in: what it sends then. */
static void
enemy_attaches(struct enemy *x, struct victim *v)
{
    uint8_t hello[RAW_HANDSHAKE_BYTES];

    enemy_open(x, TLS1_3_VERSION);
    enemy_shakes_hands(x, v->url);
    raw_header(hello, SPOKE_PUSH);
    cr_assert_eq(SSL_write(x->ssl, hello, sizeof hello), sizeof hello);
    enemy_sends(x);
}

static void
await_pipes(struct victim *v, uint64_t count)
{
    const struct timespec pause = {.tv_nsec = 1000 * 1000};

    for (int i = 0; i < 10000 && stats_of(v).pipes_current != count; i++)
        nanosleep(&pause, NULL);
    cr_assert_eq(stats_of(v).pipes_current, count);
}

Test(tls_hostile, garbage_and_truncation_cost_the_pipe, .timeout = 60)
{
    static const uint8_t records[][40] = {
        {23, 3, 3, 0, 30, 1, 2, 3}, /* cannot be decrypted */
        {23, 3, 3, 0x60, 0},        /* longer than any record */
        {99, 3, 3, 0, 30},          /* of no kind */
        {0},                        /* only the end of the connection */
    };
    struct spoke_tls_options o;
    struct enemy x;
    struct victim v;

    server_options(&o);
    victim_open(&v, &o, PATIENCE);
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        enemy_attaches(&x, &v);
        await_pipes(&v, 2);
        if (records[i][0] != 0)
            cr_assert_eq(raw_send_bytes(&x.raw, records[i], sizeof records[i], RAW_LIMIT_MS),
                         RAW_OK);
        (void)raw_end(&x.raw);
        cr_assert_eq(raw_wait_eof(&x.raw, RAW_LIMIT_MS), RAW_OK);
        await_pipes(&v, 1);
        raw_close(&x.raw);
        enemy_close(&x);
        expect_well(&v);
    }
    victim_close(&v);
}

/* An end without TLS's word for it is not an end: somebody else may have cut the connection. */
Test(tls_hostile, truncation_is_no_end_of_a_stream, .timeout = 60)
{
    spoke_stream_config config;
    spoke_stream_listener *l;
    char url[ENDPOINT_MAX], text[4];
    spoke_stream *s;
    struct enemy x;
    size_t done;

    spoke_stream_config_init(&config);
    config.tls = test_tls();
    endpoint_fresh(url, TLS);
    expect_rc(spoke_stream_listen(&l, url, &config, NULL), 0);
    for (int polite = 0; polite < 2; polite++) {
        enemy_open(&x, TLS1_3_VERSION);
        enemy_shakes_hands(&x, url);
        expect_rc(spoke_stream_accept(l, &s, SPOKE_FOREVER), 0);
        cr_assert_eq(SSL_write(x.ssl, "half", 4), 4);
        if (polite)
            (void)SSL_shutdown(x.ssl);
        enemy_sends(&x);
        (void)raw_end(&x.raw);
        expect_rc(spoke_stream_read_full(s, text, 4, &done), 0);
        cr_assert_eq(memcmp(text, "half", 4), 0);
        for (int i = 0; i < 2; i++)
            expect_rc(spoke_stream_read(s, text, 1, &done), polite ? SPOKE_EOF : SPOKE_ETRUNCATED);
        expect_rc(spoke_stream_close(s), 0);
        raw_close(&x.raw);
        enemy_close(&x);
    }
    expect_rc(spoke_stream_listener_close(l), 0);
}
