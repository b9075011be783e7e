/* SPDX-License-Identifier: MIT */
/* What a peer does to a listener when hands have been shaken: records that are cut, changed, or of
 * TLS's own.  Each costs its own connection, and nothing of it is delivered. */
#include <string.h>

#include "tests/tls/attack.h"

Test(tls_records, a_second_handshake_ends_the_connection)
{
    uint8_t hello[RAW_HANDSHAKE_BYTES];
    struct spoke_tls_options o;
    struct enemy x = {0};
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
    enemy_close(&x);
    victim_close(&v);
}

Test(tls_records, new_keys_for_ever_end_the_connection)
{
    struct spoke_tls_options o;
    struct enemy x = {0};
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
    enemy_close(&x);
    victim_close(&v);
}

/* One that has been let in: what it sends then. */
Test(tls_records, garbage_and_truncation_cost_the_pipe)
{
    static const uint8_t records[][40] = {
        {23, 3, 3, 0, 30, 1, 2, 3}, /* cannot be decrypted */
        {23, 3, 3, 0x60, 0},        /* longer than any record */
        {99, 3, 3, 0, 30},          /* of no kind */
        {0},                        /* only the end of the connection */
    };
    struct spoke_tls_options o;
    struct enemy x = {0};
    struct victim v;

    server_options(&o);
    victim_open(&v, &o, PATIENCE);
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        enemy_attaches(&x, &v, TLS1_3_VERSION);
        await_pipes(&v, 2);
        if (records[i][0] != 0)
            cr_assert_eq(raw_send_bytes(&x.raw, records[i], sizeof records[i], RAW_LIMIT_MS),
                         RAW_OK);
        (void)raw_end(&x.raw);
        cr_assert_eq(raw_wait_eof(&x.raw, RAW_LIMIT_MS), RAW_OK);
        await_pipes(&v, 1);
        enemy_close(&x);
        expect_well(&v);
    }
    victim_close(&v);
}

/* An end without TLS's word for it is not an end: somebody else may have cut the connection. */
Test(tls_records, truncation_is_no_end_of_a_stream)
{
    spoke_stream_config config;
    spoke_stream_listener *l;
    char url[ENDPOINT_MAX], text[4];
    spoke_stream *s;
    struct enemy x = {0};
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
        enemy_close(&x);
    }
    expect_rc(spoke_stream_listener_close(l), 0);
}

/* A message as it leaves, encrypted: the enemy's next record. */
static size_t
message_record(struct enemy *x, char *record, size_t room)
{
    static const char message[] = {0, 0, 0, 0, 0, 0, 0, 5, 'f', 'a', 'l', 's', 'e'};

    cr_assert_eq(SSL_write(x->ssl, message, sizeof message), sizeof message);
    return enemy_says(x, record, room);
}

enum harm { CUT, CHANGED, CUT_AND_LEFT };

/* One message whose record is harmed at its `at`-th byte.  False: it has none there. */
static bool
harm_record(struct victim *v, int version, size_t at, enum harm harm)
{
    char record[256];
    struct enemy x = {0};
    size_t size;

    enemy_attaches(&x, v, version);
    await_pipes(v, 2);
    size = message_record(&x, record, sizeof record);
    if (at < size) {
        if (harm == CHANGED)
            record[at] ^= 0x10;
        cr_assert_eq(raw_send_bytes(&x.raw, record, harm == CHANGED ? size : at, RAW_LIMIT_MS),
                     RAW_OK);
        if (harm == CUT_AND_LEFT)
            raw_reset(&x.raw);
        else
            (void)raw_end(&x.raw);
        await_pipes(v, 1);
    }
    enemy_close(&x);
    if (at >= size)
        await_pipes(v, 1);
    return at < size;
}

Test(tls_records, each_byte_of_a_record_counts)
{
    static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};
    const size_t step = SPOKE_TEST_SLOWDOWN == 1 ? 1 : 5;
    struct spoke_tls_options o;
    struct victim v;

    server_options(&o);
    victim_open(&v, &o, PATIENCE);
    for (int k = 0; k < 2; k++) {
        for (int harm = CUT; harm <= CUT_AND_LEFT; harm++) {
            size_t at = 0;

            while (harm_record(&v, versions[k], at, (enum harm)harm))
                at += step;
            cr_assert_gt(at, 5 + 13 + 16, "a head, a message, a tag");
            expect_well(&v); /* nothing else has arrived */
        }
    }
    victim_close(&v);
}

/* Handshake and messages, each byte in a packet of its own. */
Test(tls_records, a_byte_at_a_time_is_enough)
{
    static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};
    char record[256], got[8];
    struct spoke_tls_options o;
    struct enemy x = {0};
    struct victim v;
    size_t size;

    server_options(&o);
    victim_open(&v, &o, PATIENCE);
    for (int k = 0; k < 2; k++) {
        x.drips = true;
        enemy_attaches(&x, &v, versions[k]);
        await_pipes(&v, 2);
        for (int i = 0; i < 3; i++) {
            size = message_record(&x, record, sizeof record);
            enemy_sends_bytes(&x, record, size);
            size = sizeof got;
            expect_rc(spoke_recv_bytes(v.s, got, &size, 0), 0);
            cr_assert(size == 5 && memcmp(got, "false", 5) == 0);
        }
        enemy_close(&x);
        await_pipes(&v, 1);
    }
    victim_close(&v);
}
