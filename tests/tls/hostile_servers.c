/* SPDX-License-Identifier: MIT */
/* What a listener does to who dials it.  The same socket listens, too, and has a friend there who
 * notices nothing. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/tls/attack.h"

/* A victim, and where it goes again and again. */
struct caller {
    struct victim v;
    struct raw_listener l;
    spoke_dialer *d;
    char url[ENDPOINT_MAX];
    uint64_t failed;    /* attempts */
    bool may_fail_more; /* by themselves, where this thread is late */
};

static void
caller_open(struct caller *c, spoke_ns handshake_ns)
{
    struct spoke_tls_options o;
    spoke_tls_config *tls;

    server_options(&o);
    victim_open(&c->v, &o, PATIENCE);
    client_options(&o);
    tls = config_of(&o);
    cr_assert_eq(raw_listen(&c->l, "tcp://127.0.0.1:0"), RAW_OK);
    snprintf(c->url, sizeof c->url, "tls+%.150s", c->l.url);
    expect_rc(spoke_dialer_create(&c->d, c->v.s, c->url), 0);
    expect_rc(spoke_dialer_set_tls(c->d, tls), 0);
    spoke_tls_config_free(tls);
    expect_rc(spoke_dialer_set_duration(c->d, SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
    expect_rc(spoke_dialer_set_duration(c->d, SPOKE_OPT_RECONNECT_MAX, SPOKE_MS), 0);
    expect_rc(spoke_dialer_set_duration(c->d, SPOKE_OPT_HANDSHAKE_TIME, handshake_ns), 0);
    expect_rc(spoke_dialer_start(c->d, 0), 0);
    c->failed = 0;
    c->may_fail_more = handshake_ns < PATIENCE;
}

static void
caller_close(struct caller *c)
{
    raw_listener_close(&c->l);
    expect_rc(spoke_dialer_close(c->d), 0);
    victim_close(&c->v);
}

/* One more attempt has failed: why. */
static int
await_failure(struct caller *c)
{
    const struct timespec pause = {.tv_nsec = 1000 * 1000};
    struct spoke_dialer_stats stats = {0};

    c->failed++;
    for (int i = 0; i < 10000 && stats.dials_failed < c->failed; i++) {
        nanosleep(&pause, NULL);
        expect_rc(spoke_dialer_stats(c->d, &stats), 0);
    }
    if (c->may_fail_more && stats.dials_failed > c->failed)
        c->failed = stats.dials_failed;
    cr_assert_eq(stats.dials_failed, c->failed, "%d of %d have failed", (int)stats.dials_failed,
                 (int)c->failed);
    return stats.last_error;
}

static void
accept_caller(struct caller *c, struct enemy *x, int version)
{
    enemy_open_server(x, version);
    cr_assert_eq(raw_accept(&c->l, &x->raw, RAW_LIMIT_MS), RAW_OK);
}

Test(tls_servers, what_is_no_tls_is_told_as_that)
{
    static const uint8_t giant[5 + 100] = {22, 3, 3, 0xff, 0xff}, alert[] = {21, 3, 3, 0, 2, 2, 40},
                                   data[] = {23, 3, 3, 0, 1, 'x'},
                                   hello[] = {22, 3, 3, 0, 4, 1, 0, 0, 0},
                                   huge_hello[] = {22, 3, 3, 0, 4, 2, 0xff, 0xff, 0xff},
                                   short_hello[] = {22, 3, 3, 0, 6, 2, 0, 0, 2, 3, 3};
    static const struct {
        const void *bytes;
        size_t size;
    } strangers[] = {
        {"\0SP\0\0\x50\0\0 and more", 17},
        {"HTTP/1.1 400 Bad Request\r\n\r\n", 28},
        {"SSH-2.0-OpenSSH_9.2\r\n", 21},
        {giant, sizeof giant},
        {alert, sizeof alert},
        {data, sizeof data},
        {hello, sizeof hello},
        {huge_hello, sizeof huge_hello},
        {short_hello, sizeof short_hello},
    };
    struct raw_peer p;
    struct caller c;

    caller_open(&c, PATIENCE);
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        cr_assert_eq(raw_accept(&c.l, &p, RAW_LIMIT_MS), RAW_OK);
        (void)raw_send_bytes(&p, strangers[i].bytes, strangers[i].size, RAW_LIMIT_MS);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
        raw_close(&p);
        expect_rc(await_failure(&c), SPOKE_ETLS);
    }
    caller_close(&c);
}

enum deed { ENDS, GARBLES, FALLS_SILENT };

/* Of the handshake say so many bytes, then do that.  False: there were not as many. */
static bool
misbehave(struct caller *c, int version, size_t at, enum deed deed)
{
    static const char garbage[1024] = {1, 2, 3, (char)0xff};
    struct enemy x = {0};
    char bytes[8192];
    size_t said = 0, n;
    bool done = false, shaken;
    int rc;

    accept_caller(c, &x, version);
    while (!done && SSL_do_handshake(x.ssl) != 1) {
        if (!enemy_receive(&x))
            break;
        (void)SSL_do_handshake(x.ssl);
        n = enemy_says(&x, bytes, sizeof bytes);
        done = said + n > at;
        enemy_sends_bytes(&x, bytes, done ? at - said : n);
        said += n;
    }
    if (done && deed == GARBLES)
        for (int i = 0; i < 4; i++)
            enemy_sends_bytes(&x, garbage, sizeof garbage);
    if (done && deed != FALLS_SILENT)
        (void)raw_end(&x.raw);
    if (done)
        cr_assert_eq(raw_wait_eof(&x.raw, RAW_LIMIT_MS), RAW_OK);
    shaken = SSL_is_init_finished(x.ssl) == 1; /* tickets are all that is missing */
    enemy_close(&x);
    if (!done)
        return false;
    rc = await_failure(c);
    cr_assert(rc == (deed == FALLS_SILENT ? SPOKE_ETIMEDOUT : SPOKE_ECONNRESET) ||
                  (deed == GARBLES && rc == SPOKE_ETLS) || (shaken && rc == SPOKE_ETRUNCATED),
              "%zu bytes: %s", at, spoke_error_name(rc));
    return true;
}

Test(tls_servers, a_handshake_may_end_or_turn_bad_at_any_byte)
{
    static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};

    for (int k = 0; k < 2; k++) {
        for (int deed = ENDS; deed <= GARBLES; deed++) {
            struct caller c;
            size_t at = 0;

            caller_open(&c, PATIENCE);
            while (misbehave(&c, versions[k], at, (enum deed)deed))
                at += SPOKE_TEST_SLOWDOWN == 1 ? 1 : 31;
            cr_assert_gt(at, 500);
            caller_close(&c);
        }
    }
}

Test(tls_servers, who_is_slow_has_the_time_of_one_handshake)
{
    static const size_t stages[] = {0, 3, 60, 250};
    const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    struct enemy x = {0};
    struct caller c;
    char bytes[8192];
    size_t n;

    caller_open(&c, SPOKE_SECOND);
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        cr_assert(misbehave(&c, TLS1_3_VERSION, stages[i], FALLS_SILENT));
    accept_caller(&c, &x, TLS1_3_VERSION); /* a byte now and then is not enough */
    cr_assert(enemy_receive(&x));
    (void)SSL_do_handshake(x.ssl);
    n = enemy_says(&x, bytes, sizeof bytes);
    for (size_t i = 0; i < n && raw_send_bytes(&x.raw, bytes + i, 1, RAW_LIMIT_MS) == RAW_OK; i++)
        nanosleep(&pause, NULL);
    expect_rc(await_failure(&c), SPOKE_ETIMEDOUT);
    enemy_close(&x);
    caller_close(&c);
}

Test(tls_servers, more_certificates_than_anybody_needs)
{
    struct enemy x = {0};
    struct caller c;

    caller_open(&c, PATIENCE);
    accept_caller(&c, &x, TLS1_3_VERSION);
    for (int i = 0; i < 300; i++) /* of some 400 bytes */
        cr_assert_eq(SSL_add1_chain_cert(x.ssl, SSL_get_certificate(x.ssl)), 1);
    do {
        (void)SSL_do_handshake(x.ssl);
        enemy_sends(&x);
    } while (enemy_receive(&x));
    expect_rc(await_failure(&c), SPOKE_ETLS);
    enemy_close(&x);
    caller_close(&c);
}

/* ---- after the handshake ---- */

/* A stream to such a server; the server has shaken hands. */
static spoke_stream *
dial_enemy(struct enemy *x, int version)
{
    struct spoke_tls_options o;
    spoke_stream_config config;
    struct raw_listener l;
    char url[ENDPOINT_MAX];
    spoke_stream *s;

    client_options(&o);
    spoke_stream_config_init(&config);
    config.tls = config_of(&o);
    cr_assert_eq(raw_listen(&l, "tcp://127.0.0.1:0"), RAW_OK);
    snprintf(url, sizeof url, "tls+%.150s", l.url);
    expect_rc(spoke_stream_dial(&s, url, &config, NULL, SPOKE_NOW), 0);
    spoke_tls_config_free(config.tls);
    enemy_open_server(x, version);
    cr_assert_eq(raw_accept(&l, &x->raw, RAW_LIMIT_MS), RAW_OK);
    raw_listener_close(&l);
    enemy_shakes_hands(x, NULL);
    return s;
}

static void
expect_broken_off(struct enemy *x, spoke_stream *s)
{
    struct spoke_stream_info info = {0};
    char byte;
    size_t done;
    int rc;

    expect_rc(spoke_stream_set_deadline(s, spoke_engine_now(NULL) + PATIENCE), 0);
    while ((rc = spoke_stream_read(s, &byte, 1, &done)) == 0) {
    }
    expect_rc(rc, SPOKE_EPROTO);
    expect_rc(spoke_stream_get_info(s, &info), 0);
    expect_rc(info.read_end, SPOKE_EPROTO);
    expect_rc(spoke_stream_close(s), 0);
    cr_assert_eq(raw_wait_eof(&x->raw, RAW_LIMIT_MS), RAW_OK);
    enemy_close(x);
}

/* Also if there are data behind it, in one piece, which a user would rather have. */
Test(tls_servers, a_second_handshake_ends_the_connection)
{
    for (int with_data = 0; with_data < 2; with_data++) {
        struct enemy x = {0};
        spoke_stream *s = dial_enemy(&x, TLS1_2_VERSION);

        cr_assert_eq(SSL_renegotiate(x.ssl), 1);
        cr_assert_eq(SSL_do_handshake(x.ssl), 1); /* that has only asked for it */
        if (with_data)
            cr_assert_eq(SSL_write(x.ssl, "data", 4), 4);
        enemy_sends(&x);
        expect_broken_off(&x, s);
    }
}

Test(tls_servers, new_keys_for_ever_end_the_connection)
{
    struct enemy x = {0};
    spoke_stream *s = dial_enemy(&x, TLS1_3_VERSION);

    for (int i = 0; i < 100; i++) {
        cr_assert_eq(SSL_key_update(x.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        cr_assert_eq(SSL_do_handshake(x.ssl), 1);
    }
    enemy_sends(&x);
    expect_broken_off(&x, s);
}
