/* SPDX-License-Identifier: MIT */
/* A peer that says what it likes: it may lose its binding, and costs nobody else anything. */
#include <string.h>

#include "tests/ports/fixture.h"

struct attack {
    struct market x;
    spoke_mux *m;
    spoke_sender *out;
    spoke_receiver *in;
};

static void
attack_open(struct attack *a)
{
    spoke_stream *ends[2];

    market_open(&a->x, OVER_SIM, NULL, NULL);
    a->out = export_sender(&a->x, "out", 4, 0);
    a->in = export_receiver(&a->x, "in", 4, 0);
    expect_rc(spoke_stream_pair(&ends[0], &ends[1], NULL, a->x.e[0]), 0);
    expect_rc(spoke_exporter_serve_stream(a->x.ex, ends[0]), 0);
    expect_rc(spoke_mux_open(&a->m, ends[1], NULL), 0);
}

/* An honest importer is served. */
static void
attack_close(struct attack *a)
{
    spoke_receiver *rx;
    spoke_sender *tx;
    int64_t n;

    expect_rc(spoke_mux_close(a->m, 0), 0);
    rx = import_receiver(&a->x, a->x.im, "out", 4);
    tx = import_sender(&a->x, a->x.im, "in", 4);
    while (send_number(a->out, 99, SPOKE_NOW) == SPOKE_EAGAIN) /* behind what is there already */
        cr_assert_geq(recv_number(rx, NULL, soon(&a->x)), 0);
    do
        n = recv_number(rx, NULL, soon(&a->x));
    while (n >= 0 && n != 99);
    expect_rc(n, 99);
    send_numbers(&a->x, tx, 99, 100);
    do
        n = recv_number(a->in, NULL, soon(&a->x));
    while (n >= 0 && n != 99);
    expect_rc(n, 99);
    expect_rc(spoke_sender_close(tx), 0);
    expect_rc(spoke_receiver_close(rx), 0);
    expect_rc(spoke_sender_close(a->out), 0);
    expect_rc(spoke_receiver_close(a->in), 0);
    market_close(&a->x);
}

#define OPEN(a, Meta, s) open_bytes(a, Meta, sizeof(Meta) - 1, s)
static int
open_bytes(struct attack *a, const char *meta, size_t size, spoke_stream **s)
{
    return spoke_mux_dial(a->m, s, meta, size, NULL, soon(&a->x));
}

#define SAY(a, s, Bytes) say_bytes(a, s, Bytes, sizeof(Bytes) - 1)
static void
say_bytes(struct attack *a, spoke_stream *s, const char *bytes, size_t size)
{
    size_t done;

    (void)spoke_stream_write(s, bytes, size, &done);
    market_pass(&a->x, 5 * SPOKE_MS);
}

/* What there is to be heard now. */
static size_t
hear(struct attack *a, spoke_stream *s, uint8_t *bytes, size_t size)
{
    size_t all = 0, done;

    market_pass(&a->x, 5 * SPOKE_MS);
    expect_rc(spoke_stream_set_read_deadline(s, SPOKE_NOW), 0);
    while (all < size && spoke_stream_read(s, bytes + all, size - all, &done) == 0)
        all += done;
    return all;
}

/* The kind of the last frame, of those that have no attachments. */
static int
last_kind(const uint8_t *bytes, size_t size, uint32_t *code)
{
    int kind = 0;

    for (size_t at = 0; at + 8 <= size;) {
        size_t length = (size_t)bytes[at + 6] << 8 | bytes[at + 7];

        kind = bytes[at];
        *code = bytes[at + 11];
        at += 8 + length;
    }
    return kind;
}

static void
expect_last(struct attack *a, spoke_stream *s, int kind, uint32_t code)
{
    uint8_t bytes[4096];
    uint32_t got_code = 0;
    size_t size = hear(a, s, bytes, sizeof bytes);
    int got = last_kind(bytes, size, &got_code);

    cr_assert(got == kind && got_code == code, "a frame of kind %d, code %d (%zu bytes)", got,
              (int)got_code, size);
    expect_rc(spoke_stream_close(s), 0);
}

#define MAX       "\x08\x1a\x01\x00\x00\x00"
#define RECEIVING "\xa6\x00\x04\x03\x02\x04"
#define SENDING   "\xa4\x00\x04\x03\x01\x04"
#define MESSAGE                                                                                    \
    "\x03\x00\x00\x00\x00\x00\x00\x08"                                                             \
    "\x01\x00\x00\x00\x00\x00\x00\x00"

Test(hostile, names_that_are_not_there_are_refused_one_by_one)
{
    struct attack a;
    spoke_stream *s;

    attack_open(&a);
    for (int i = 0; i < 100; i++) {
        expect_rc(OPEN(&a,
                       RECEIVING "\x62no"
                                 "\x06\x20\x07\x01" MAX,
                       &s),
                  0);
        expect_last(&a, s, 2, SPOKE_MUX_NO_SUCH_NAME);
    }
    expect_rc(OPEN(&a,
                   SENDING "\x63out"
                           "\x06\x20",
                   &s),
              0);
    expect_last(&a, s, 2, SPOKE_MUX_WRONG_DIRECTION);
    expect_rc(OPEN(&a,
                   SENDING "\x62\x01z"
                           "\x06\x20",
                   &s),
              0);
    expect_last(&a, s, 2, SPOKE_MUX_PROTOCOL);
    attack_close(&a);
}

Test(hostile, huge_and_empty_windows_are_ours_to_bound)
{
    struct attack a;
    spoke_stream *s, *none;
    uint8_t bytes[4096];

    attack_open(&a);
    expect_rc(OPEN(&a,
                   RECEIVING "\x63out"
                             "\x06\x20\x07\x00" MAX,
                   &none),
              0);
    expect_rc(OPEN(&a,
                   RECEIVING "\x63out"
                             "\x06\x20\x07\x1b\xff\xff\xff\xff\xff\xff\xff\xff" MAX,
                   &s),
              0);
    for (uint64_t n = 0; n < 8; n++) /* four are out, four wait */
        expect_rc(send_number(a.out, n, soon(&a.x)), 0);
    expect_rc(send_number(a.out, 8, in(&a.x, 10 * SPOKE_MS)), SPOKE_ETIMEDOUT);
    /* Accept, and four messages; perhaps a word that it should say what it has taken. */
    cr_assert_leq(hear(&a, s, bytes, sizeof bytes), 20U + 4 * 16 + 16);
    cr_assert_leq(hear(&a, none, bytes, sizeof bytes), 20U);
    expect_rc(spoke_stream_close(s), 0);
    expect_rc(spoke_stream_close(none), 0);
    attack_close(&a);
}

Test(hostile, more_acks_than_messages)
{
    struct attack a;
    spoke_stream *s;

    attack_open(&a);
    expect_rc(OPEN(&a,
                   RECEIVING "\x63out"
                             "\x06\x20\x07\x04" MAX,
                   &s),
              0);
    SAY(&a, s,
        "\x05\x00\x00\x00\x00\x00\x00\x08"
        "\x00\x00\x00\x00\x00\x00\x00\x09");
    expect_last(&a, s, 7, SPOKE_MUX_PROTOCOL);
    attack_close(&a);
}

Test(hostile, more_messages_than_were_allowed)
{
    struct attack a;
    spoke_stream *s;

    attack_open(&a);
    expect_rc(OPEN(&a,
                   SENDING "\x62in"
                           "\x06\x20",
                   &s),
              0);
    market_pass(&a.x, 5 * SPOKE_MS);
    SAY(&a, s, MESSAGE MESSAGE MESSAGE MESSAGE MESSAGE);
    expect_last(&a, s, 7, SPOKE_MUX_PROTOCOL);
    attack_close(&a);
}

Test(hostile, more_messages_than_the_count)
{
    struct attack a;
    spoke_stream *s;

    attack_open(&a);
    expect_rc(OPEN(&a,
                   SENDING "\x62in"
                           "\x06\x01",
                   &s),
              0);
    market_pass(&a.x, 5 * SPOKE_MS);
    SAY(&a, s, MESSAGE MESSAGE);
    expect_last(&a, s, 7, SPOKE_MUX_PROTOCOL);
    attack_close(&a);
}

/* One that takes messages, and goes, again and again. */
Test(hostile, who_comes_and_goes_does_not_lose_or_pile_up_anything)
{
    struct attack a;
    spoke_stream *s;

    attack_open(&a);
    for (uint64_t n = 0; n < 8; n++)
        (void)send_number(a.out, n, SPOKE_NOW);
    for (int i = 0; i < 50; i++) {
        expect_rc(OPEN(&a,
                       RECEIVING "\x63out"
                                 "\x06\x20\x07\x04" MAX,
                       &s),
                  0);
        market_pass(&a.x, SPOKE_MS);
        expect_rc(spoke_stream_abort(s, 300), 0);
        (void)spoke_stream_close(s);
        market_pass(&a.x, SPOKE_MS);
    }
    expect_rc(spoke_mux_close(a.m, 0), 0);
    {
        spoke_receiver *rx = import_receiver(&a.x, a.x.im, "out", 4);

        expect_numbers(&a.x, rx, 0, 4);
        expect_rc(spoke_receiver_close(rx), 0);
        market_await(&a.x, 0, SPOKE_PORT_UNBOUND, 51);
    }
    attack_close(&a);
}

/* ---- types ---- */

#define POINT(FIELD, S)                                                                            \
    FIELD(S, U32, x)                                                                               \
    FIELD(S, U32, y)
SPOKE_STRUCT(point, POINT);
SPOKE_STRUCT_TYPE(point, POINT);

#define HASH "\x58\x20"
#define ROOM "\x06\x20\x07\x04" MAX

/* Role 4, receiving, "typed"; then a fingerprint, a descriptor, or both. */
static size_t
typed_meta(char *to, const uint8_t *fingerprint, const char *descriptor, size_t size)
{
    static const char head[] = "\x00\x04\x03\x02\x04\x65typed";
    char *at = to;

    *at++ = (char)(0xa6 + (fingerprint != NULL) + (descriptor != NULL));
    at = (char *)memcpy(at, head, sizeof head - 1) + sizeof head - 1;
    if (fingerprint != NULL) {
        at = (char *)memcpy(at, "\x05" HASH, 3) + 3;
        at = (char *)memcpy(at, fingerprint, SPOKE_FINGERPRINT) + SPOKE_FINGERPRINT;
    }
    at = (char *)memcpy(at, ROOM, sizeof ROOM - 1) + sizeof ROOM - 1;
    if (descriptor != NULL) {
        *at++ = 0x09;
        if (size < 24) {
            *at++ = (char)(0x60 + size);
        } else if (size < 256) {
            *at++ = 0x78;
            *at++ = (char)size;
        } else {
            *at++ = 0x79;
            *at++ = (char)(size >> 8);
            *at++ = (char)size;
        }
        at = (char *)memcpy(at, descriptor, size) + size;
    }
    return (size_t)(at - to);
}

static void
refused(struct attack *a, const uint8_t *fingerprint, const char *descriptor, size_t size,
        uint32_t code)
{
    char meta[2 * SPOKE_MUX_META_MAX];
    spoke_stream *s;
    size_t all = typed_meta(meta, fingerprint, descriptor, size);

    cr_assert_leq(all, (size_t)SPOKE_MUX_META_MAX);
    expect_rc(open_bytes(a, meta, all, &s), 0);
    expect_last(a, s, 2, code);
}

Test(hostile, types_that_are_none_or_others)
{
    char brackets[SPOKE_MUX_META_MAX - 30], own[SPOKE_DESCRIPTOR_MAX + 1],
        longer[SPOKE_DESCRIPTOR_MAX + 1];
    uint8_t right[SPOKE_FINGERPRINT], wrong[SPOKE_FINGERPRINT];
    spoke_port_config config;
    struct attack a;
    spoke_sender *typed;
    spoke_receiver *rx;

    expect_rc(spoke_type_check(&point_type), 0);
    expect_rc(spoke_type_descriptor(&point_type, own, sizeof own), 0);
    memcpy(right, point_type.fingerprint, sizeof right);
    memcpy(wrong, right, sizeof wrong);
    wrong[31] ^= 1;
    memset(brackets, '[', sizeof brackets);
    memset(longer, ' ', sizeof longer); /* "{x:…}" with blanks behind it */
    memcpy(longer, own, strlen(own));
    for (int evolving = 0; evolving < 2; evolving++) {
        attack_open(&a);
        spoke_port_config_init(&config);
        config.flags = evolving ? SPOKE_PORT_EVOLVING : 0;
        expect_rc(spoke_exporter_export_sender(a.x.ex, "typed", &point_type, &config, &typed), 0);
        refused(&a, wrong, NULL, 0, SPOKE_MUX_TYPE);
        if (evolving) {
            refused(&a, NULL, brackets, sizeof brackets, SPOKE_MUX_PROTOCOL);
            refused(&a, NULL, brackets, 1000, SPOKE_MUX_PROTOCOL);
            refused(&a, right, brackets, sizeof brackets - 35, SPOKE_MUX_PROTOCOL);
            refused(&a, NULL, longer, 1000, SPOKE_MUX_PROTOCOL);
            refused(&a, NULL, longer, 30, SPOKE_MUX_PROTOCOL);
            refused(&a, right, "u64", 3, SPOKE_MUX_PROTOCOL);
            refused(&a, wrong, own, strlen(own), SPOKE_MUX_PROTOCOL);
        } else {
            refused(&a, right, own, strlen(own), SPOKE_MUX_TYPE);
        }
        expect_rc(
            spoke_importer_import_receiver(a.x.im, "typed", &point_type, &config, &rx, soon(&a.x)),
            0);
        expect_rc(spoke_receiver_close(rx), 0);
        expect_rc(spoke_sender_close(typed), 0);
        attack_close(&a);
    }
}
