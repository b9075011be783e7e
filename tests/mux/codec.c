/* SPDX-License-Identifier: MIT */
/* The bytes of both wires, by themselves: what is written is what is read, whole or one byte at a
 * time; what is none is refused at once. */
#include <string.h>

#include "runtime/stream/mux/wire.h"
#include "tests/mux/fixture.h"

#define WORDS_MOST 64

/* Everything that a decoder gives for some bytes, which come `step` at a time. */
struct reading {
    struct spk_mux_word words[WORDS_MOST];
    int count, rc;
    uint8_t data[1024]; /* of all pieces */
    size_t data_size;
};

static struct reading
read_bytes(bool native, const uint8_t *bytes, size_t size, size_t step)
{
    struct reading r = {0};
    struct spk_mux_decoder d;
    struct spk_mux_word w;

    spk_mux_decoder_init(&d, native);
    d.has_begun = true;
    for (size_t from = 0; from < size && r.rc == 0; from += step) {
        const uint8_t *at = bytes + from, *end = bytes + (size - from < step ? size : from + step);

        while ((r.rc = spk_mux_decode(&d, &at, end, &w)) > 0) {
            if (w.kind == SPK_MUX_PIECE) {
                memcpy(r.data + r.data_size, w.data, w.size);
                r.data_size += w.size;
            } else {
                cr_assert_lt(r.count, WORDS_MOST);
                r.words[r.count++] = w;
            }
        }
        if (r.rc == 0)
            cr_assert_eq(at, end);
    }
    return r;
}

static struct reading
read_hex(bool native, const char *hex, size_t step)
{
    uint8_t bytes[1024];

    return read_bytes(native, bytes, hex_bytes(hex, bytes, sizeof bytes), step);
}

static void
expect_word(const struct spk_mux_word *w, enum spk_mux_kind kind, uint64_t id, uint64_t number,
            uint32_t length)
{
    cr_assert_eq(w->kind, kind);
    cr_assert_eq(w->id, id);
    cr_assert_eq(w->number, number);
    cr_assert_eq(w->length, length);
}

/* The whole conversation of docs/wire.md, the odd end's half of it. */
Test(codec, reads_the_golden_bytes_in_pieces_of_any_size)
{
    for (size_t step = 1; step <= 32; step++) {
        struct reading r = read_hex(
            false, "01 01 ff ff 03  03 01 00 02 68 69  04 01 03  05 01  06 01  00  00", step);

        cr_assert_eq(r.rc, 0);
        cr_assert_eq(r.count, 7);
        expect_word(&r.words[0], SPK_MUX_OPEN, 1, 65535, 0);
        expect_word(&r.words[1], SPK_MUX_DATA, 1, 0, 2);
        expect_word(&r.words[2], SPK_MUX_CREDIT, 1, 3, 0);
        expect_word(&r.words[3], SPK_MUX_CLOSE_WRITE, 1, 0, 0);
        expect_word(&r.words[4], SPK_MUX_CLOSE, 1, 0, 0);
        expect_word(&r.words[5], SPK_MUX_HEARTBEAT, 0, 0, 0);
        expect_word(&r.words[6], SPK_MUX_HEARTBEAT, 0, 0, 0);
        cr_assert_eq(r.data_size, 2);
        cr_assert_eq(memcmp(r.data, "hi", 2), 0);
    }
}

Test(codec, writes_the_golden_bytes)
{
    static const struct {
        enum spk_mux_kind kind;
        uint64_t id, number;
        uint32_t length;
        const char *hex;
    } rows[] = {
        {SPK_MUX_HEARTBEAT, 0, 0, 0, "00"},
        {SPK_MUX_OPEN, 1, 65535, 0, "01 01 ffff03"},
        {SPK_MUX_ACCEPT, 1, 65535, 0, "02 01 ffff03"},
        {SPK_MUX_DATA, 1, 0, 2, "03 01 0002"},
        {SPK_MUX_DATA, 300, 0, 65535, "03 ac02 ffff"},
        {SPK_MUX_CREDIT, 1, 3, 0, "04 01 03"},
        {SPK_MUX_CLOSE_WRITE, 1, 0, 0, "05 01"},
        {SPK_MUX_CLOSE, 3, 0, 0, "06 03"},
        {SPK_MUX_OPEN, UINT64_MAX, UINT64_MAX, 0, "01 ffffffffffffffffff01 ffffffffffffffffff01"},
        {SPK_MUX_OPEN_META, 5, 0, 4096, "07 05 00 8020"},
        {SPK_MUX_RESET, 1, 12, 0, "08 01 0c"},
        {SPK_MUX_STOP_READING, 1, 0, 0, "09 01 00"},
        {SPK_MUX_GO_AWAY, 0, 17, 255, "0a 00 11 ff"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t expected[64], bytes[SPK_MUX_HEAD_MOST];
        size_t size = hex_bytes(rows[i].hex, expected, sizeof expected);

        cr_assert_eq(
            spk_mux_encode(bytes, rows[i].kind, rows[i].id, rows[i].number, rows[i].length), size,
            "row %d", (int)i);
        cr_assert_eq(memcmp(bytes, expected, size), 0, "row %d", (int)i);
    }
}

Test(codec, reads_every_kind_in_pieces_of_any_size)
{
    for (size_t step = 1; step <= 40; step++) {
        struct reading r = read_hex(true,
                                    "07 05 8008 03 6d6574  08 01 0c  09 03 00  0a 07 11 02 6f6b"
                                    "0b 0102030405060708  0c 0807060504030201  07 09 00 00",
                                    step);

        cr_assert_eq(r.rc, 0);
        cr_assert_eq(r.count, 7);
        expect_word(&r.words[0], SPK_MUX_OPEN_META, 5, 1024, 3);
        expect_word(&r.words[1], SPK_MUX_RESET, 1, 12, 0);
        expect_word(&r.words[2], SPK_MUX_STOP_READING, 3, 0, 0);
        expect_word(&r.words[3], SPK_MUX_GO_AWAY, 7, 17, 2);
        cr_assert_eq(memcmp(r.words[4].bytes, "\1\2\3\4\5\6\7\10", 8), 0);
        cr_assert_eq(r.words[5].kind, SPK_MUX_PONG);
        expect_word(&r.words[6], SPK_MUX_OPEN_META, 9, 0, 0);
        cr_assert_eq(memcmp(r.data, "metok", 5), 0);
    }
}

/* A number may be written longer than it need be, up to ten bytes. */
Test(codec, reads_numbers_that_are_not_minimal)
{
    struct reading r = read_hex(false, "06 81808080808080808000  06 ffffffffffffffffff01", 1);

    cr_assert_eq(r.rc, 0);
    cr_assert_eq(r.count, 2);
    cr_assert_eq(r.words[0].id, 1);
    cr_assert_eq(r.words[1].id, UINT64_MAX);
}

Test(codec, refuses_what_is_no_message)
{
    static const struct {
        bool native;
        const char *hex;
    } rows[] = {
        {false, "07"}, /* V1 */
        {false, "53"}, /* a preface, to a compatible end */
        {false, "ff"},
        {true, "0f"},
        {true, "ff"},
        {false, "06 ffffffffffffffffff02"},   /* V2: 65 bits */
        {false, "06 8080808080808080808000"}, /* … 11 bytes */
        {false, "01 01 ffffffffffffffffff7f"},
        {false, "06 00"}, /* V3 */
        {false, "01 00 01"},
        {false, "06 808000"},
        {false, "03 01 0000"},   /* V11 */
        {false, "04 01 00"},     /* V15 */
        {true, "07 01 00 8120"}, /* 4097 bytes of metadata */
        {true, "08 00 01"},
        {true, "09 00 01"},
        {true, "0d 00"},
        {true, "0d 01 00"}, /* no descriptors */
        {true, "0d 01 fe"}, /* 254 */
        {true, "0d 01 01 0000"},
        {true, "0e 00"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t step = 1; step <= 16; step += 15) {
            struct reading r = read_hex(rows[i].native, rows[i].hex, step);

            cr_assert_eq(r.rc, SPOKE_EPROTO, "row %d", (int)i);
            cr_assert_eq(r.count, 0);
        }
    }
}

Test(codec, says_whether_it_is_inside_a_message)
{
    struct spk_mux_decoder d;
    struct spk_mux_word w;
    const uint8_t bytes[] = {3, 1, 0, 2, 'h', 'i'}, *at = bytes;

    spk_mux_decoder_init(&d, false);
    for (size_t i = 1; i <= sizeof bytes; i++) {
        while (spk_mux_decode(&d, &at, bytes + i, &w) > 0) {
        }
        cr_assert_eq(spk_mux_decoder_is_inside(&d), i < sizeof bytes);
    }
    cr_assert(w.kind == SPK_MUX_PIECE && w.last);
}

/* ---- the preface ---- */

Test(codec, a_preface_is_read_as_it_was_written)
{
    const struct spk_mux_preface mine = {.even = true, .data_most = 2048, .max_streams = 77};
    struct spk_mux_preface read;
    uint8_t bytes[SPK_MUX_PREFACE_BYTES];

    spk_mux_write_preface(bytes, &mine);
    cr_assert_eq(memcmp(bytes, "SPKM\1\1\10\0\0\0\0M\0\0\0\0", 16), 0);
    cr_assert_eq(spk_mux_read_preface(&read, bytes), 0);
    cr_assert(read.version == 1 && read.even && !read.has_fds && read.data_most == 2048 &&
              read.max_streams == 77);
}

Test(codec, a_preface_of_a_later_version_is_one)
{
    uint8_t bytes[SPK_MUX_PREFACE_BYTES];
    struct spk_mux_preface read;

    hex_bytes("53504b4d ff fe 0000 ffffffff 12345678", bytes, sizeof bytes);
    cr_assert_eq(spk_mux_read_preface(&read, bytes), 0);
    cr_assert(read.version == 1 && !read.even && read.has_fds);
    cr_assert_eq(read.data_most, 65535);
    cr_assert_eq(read.max_streams, UINT32_MAX);
}

Test(codec, what_is_no_preface_is_refused)
{
    static const char *const rows[] = {
        "53504b4c 01 00 0000 00000000 00000000", /* another name */
        "53504b4d 00 00 0000 00000000 00000000", /* version 0 */
        "53504b4d 01 00 03ff 00000000 00000000", /* less than 1024 bytes of data */
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t bytes[SPK_MUX_PREFACE_BYTES];
        struct spk_mux_preface read;

        hex_bytes(rows[i], bytes, sizeof bytes);
        cr_assert_eq(spk_mux_read_preface(&read, bytes), SPOKE_EPROTO);
    }
}

/* Whoever speaks something else is known by its first bytes. */
Test(codec, a_wrong_preface_is_refused_at_its_first_wrong_byte)
{
    static const char other[] = "SPKGET / HTTP/1.1";
    struct spk_mux_decoder d;
    struct spk_mux_word w;
    const uint8_t *at = (const uint8_t *)other;

    spk_mux_decoder_init(&d, true);
    cr_assert_eq(spk_mux_decode(&d, &at, (const uint8_t *)other + 3, &w), 0);
    cr_assert_eq(spk_mux_decode(&d, &at, (const uint8_t *)other + 4, &w), SPOKE_EPROTO);
}
