/* SPDX-License-Identifier: MIT */
/* Peers that do not speak TLS, or speak it to do harm: each costs its own connection, in bounded
 * time and memory, and others go on.  The victim is on the shared engine; its enemy is a plain
 * socket, with OpenSSL above it where it has to get that far. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "tests/tls/attack.h"

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

Test(tls_hostile, what_is_no_tls_is_told_as_that)
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

enum deed { ENDS, GARBLES, FALLS_SILENT };

/* Of the handshake say so many bytes, then do that.  False: there were not as many. */
static bool
misbehave(struct victim *v, int version, size_t at, enum deed deed, uint64_t count)
{
    static const uint8_t garbage[64] = {0xa5, 0x5a, 0xff, 1, 2, 3};
    struct enemy x = {0};
    char bytes[4096];
    size_t said = 0, n;
    bool done = false;

    enemy_open(&x, version);
    cr_assert_eq(raw_connect(&x.raw, v->url, RAW_LIMIT_MS), RAW_OK);
    while (SSL_do_handshake(x.ssl) != 1) {
        n = enemy_says(&x, bytes, sizeof bytes);
        if (said + n > at) {
            enemy_sends_bytes(&x, bytes, at - said);
            done = true;
            break;
        }
        enemy_sends_bytes(&x, bytes, n);
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
    enemy_close(&x);
    return done;
}

Test(tls_hostile, a_handshake_may_end_or_turn_bad_at_any_byte)
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
                at += SPOKE_TEST_SLOWDOWN == 1 ? 1 : 31;
            }
            cr_assert_gt(at, 200);
            await_failed(&v, ++count); /* the last one only left */
        }
    }
    victim_close(&v);
}

Test(tls_hostile, who_is_slow_has_the_time_of_one_handshake)
{
    static const size_t stages[] = {0, 3, 60, 250};
    const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    struct spoke_tls_options o;
    struct enemy x = {0};
    struct raw_peer p;
    struct victim v;
    char bytes[4096];
    uint64_t count = 0;
    size_t n;

    server_options(&o);
    victim_open(&v, &o, SPOKE_SECOND);
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

/* ---- older than it may be ---- */

/* What comes of an enemy that has only this version. */
static void
expect_too_old(struct victim *v, int version, uint64_t count)
{
    struct enemy x = {0};

    enemy_open(&x, version);
    SSL_set_security_level(x.ssl, 0);
    cr_assert_eq(SSL_set_min_proto_version(x.ssl, version), 1);
    cr_assert_eq(raw_connect(&x.raw, v->url, RAW_LIMIT_MS), RAW_OK);
    while (SSL_do_handshake(x.ssl) != 1) {
        enemy_sends(&x);
        if (!enemy_receive(&x))
            break;
    }
    cr_assert_eq(SSL_is_init_finished(x.ssl), 0);
    expect_rc(await_failed(v, count), SPOKE_ETLS);
    enemy_close(&x);
}

Test(tls_hostile, versions_of_old_are_refused)
{
    struct spoke_tls_options o;
    struct victim v;

    server_options(&o);
    victim_open(&v, &o, PATIENCE);
    expect_too_old(&v, TLS1_VERSION, 1);
    expect_too_old(&v, TLS1_1_VERSION, 2);
    victim_close(&v);
    o.min_version = SPOKE_TLS_1_3;
    victim_open(&v, &o, PATIENCE);
    expect_too_old(&v, TLS1_2_VERSION, 1);
    victim_close(&v);
}

/* Somebody in between. */
struct between {
    struct raw_peer ends[2]; /* of the client, and of the server */
    bool cuts_version;       /* from the first word of the client's */
};

/* Carry over what one has said, if anything.  False: it has ended. */
static bool
carry_over(struct between *b, int from)
{
    static const uint8_t supported_versions[] = {0, 43};
    uint8_t bytes[4096], *at;
    ssize_t n = recv(b->ends[from].fd, bytes, sizeof bytes, MSG_DONTWAIT);

    if (n < 0)
        return true;
    if (from == 0 && b->cuts_version) { /* an extension that nobody knows is not looked at */
        b->cuts_version = false;
        at = memmem(bytes + 100, (size_t)n - 100, supported_versions, 2);
        cr_assert_not_null(at);
        at[0] = at[1] = 0x6a;
    }
    return n > 0 && raw_send_bytes(&b->ends[1 - from], bytes, (size_t)n, RAW_LIMIT_MS) == RAW_OK;
}

/* Goal: who takes 1.3 out of a client's first word is noticed, although both ends still have 1.2.
 * Method: somebody in between does so. */
Test(tls_hostile, a_downgrade_is_noticed)
{
    struct spoke_tls_options server, client;
    struct spoke_dialer_stats stats;
    struct raw_listener l;
    struct between b;
    spoke_tls_config *c;
    spoke_socket *s;
    spoke_dialer *d;
    char url[ENDPOINT_MAX];
    struct victim v;

    server_options(&server);
    victim_open(&v, &server, PATIENCE);
    client_options(&client);
    c = config_of(&client);
    expect_rc(spoke_socket_open(&s, SPOKE_PUSH, NULL), 0);
    expect_rc(spoke_socket_set_tls(s, c), 0);
    expect_rc(spoke_socket_set_duration(s, SPOKE_OPT_RECONNECT, 600 * SPOKE_SECOND), 0);
    spoke_tls_config_free(c);
    for (int cuts = 0; cuts < 2; cuts++) {
        cr_assert_eq(raw_listen(&l, "tcp://127.0.0.1:0"), RAW_OK);
        snprintf(url, sizeof url, "tls+%.150s", l.url);
        expect_rc(spoke_dial(s, url, &d, 0), 0);
        cr_assert_eq(raw_accept(&l, &b.ends[0], RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_connect(&b.ends[1], v.url, RAW_LIMIT_MS), RAW_OK);
        b.cuts_version = cuts == 1;
        struct pollfd fds[2] = {{.fd = b.ends[0].fd, .events = POLLIN},
                                {.fd = b.ends[1].fd, .events = POLLIN}};
        do {
            (void)poll(fds, 2, 10);
            expect_rc(spoke_dialer_stats(d, &stats), 0);
            /* Until both have met: what the one has said last may still be on its way. */
        } while ((stats.pipes_attached == 0 || stats_of(&v).pipes_current < 2) &&
                 carry_over(&b, 0) && carry_over(&b, 1));
        raw_close(&b.ends[0]);
        raw_close(&b.ends[1]);
        raw_listener_close(&l);
        if (cuts == 0) { /* as it should be */
            cr_assert_eq(stats.pipes_attached, 1);
        } else {
            expect_rc(spoke_dialer_wait(d, PATIENCE), SPOKE_ETLS);
            expect_rc(await_failed(&v, 1), SPOKE_ETLS);
        }
        expect_rc(spoke_dialer_close(d), 0);
        await_pipes(&v, 1);
    }
    expect_rc(spoke_socket_close(s), 0);
    victim_close(&v);
}
