/* SPDX-License-Identifier: MIT */
/* The pure parts of WebSocket. */
#include <string.h>

#include "tests/support/test.h"
#include "transports/ws/handshake.h"
#include "transports/ws/in.h"

static void
mask_by_byte(uint8_t *bytes, size_t size, const uint8_t key[4], uint64_t at)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(bytes[i] ^ key[(at + i) % 4]);
}

/* All lengths up to 100, at each place in memory, from each byte of the key on, in place, to a
 * place in front, and apart; nothing beside is touched. */
Test(ws, masks_as_byte_by_byte)
{
    static const uint8_t key[4] = {0xde, 0xad, 0xbe, 0xef};
    uint8_t from[200], to[200], want[200];

    for (size_t size = 0; size <= 100; size++) {
        for (size_t align = 0; align < 32; align++) {
            for (size_t shift = 0; shift <= align && shift < 9; shift++) {
                for (uint64_t at = 0; at < 4; at++) {
                    for (size_t i = 0; i < sizeof from; i++)
                        from[i] = to[i] = want[i] = (uint8_t)(i * 31 + size);
                    memmove(want + align - shift, want + align, size);
                    mask_by_byte(want + align - shift, size, key, at);
                    ws_mask(to + align - shift, from + align, size, key, at);
                    cr_assert(memcmp(to, want, sizeof to) == 0, "apart: %zu %zu", size, align);
                    ws_mask(from + align - shift, from + align, size, key, at);
                    cr_assert(memcmp(from, want, sizeof from) == 0, "in place: %zu %zu %zu", size,
                              align, shift);
                }
            }
        }
    }
}

Test(ws, keys_differ)
{
    uint8_t keys[1000][4];
    int same = 0;

    for (int i = 0; i < 1000; i++)
        ws_new_key(keys[i]);
    for (int i = 0; i < 1000; i++)
        for (int k = 0; k < i; k++)
            same += memcmp(keys[i], keys[k], 4) == 0;
    cr_assert_leq(same, 2, "a million pairs of four thousand millions");
}

Test(ws, heads_come_back)
{
    static const uint64_t lengths[] = {0, 1, 125, 126, 127, 65535, 65536, 1ull << 32, INT64_MAX};
    static const uint8_t key[4] = {9, 8, 7, 6};
    uint8_t bytes[WS_HEAD_MOST];

    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (int masked = 0; masked < 2; masked++) {
            struct ws_head head;
            size_t size = ws_put_head(bytes, WS_BINARY, i % 2 == 0, lengths[i],
                                      masked ? key : NULL);
            cr_assert_eq(size, ws_head_size(lengths[i], masked));
            for (size_t cut = 0; cut < size; cut++)
                cr_assert_eq(ws_get_head(&head, bytes, cut, masked), 0);
            cr_assert_eq(ws_get_head(&head, bytes, size, masked), (int)size);
            cr_assert_eq(head.length, lengths[i]);
            cr_assert_eq(head.fin, i % 2 == 0);
            cr_assert_eq(ws_get_head(&head, bytes, size, !masked), -1);
        }
    }
}

Test(ws, answers_the_key_of_the_rfc)
{
    char accept[WS_ACCEPT_SIZE + 1], key[WS_KEY_SIZE + 1];

    ws_accept_key("dGhlIHNhbXBsZSBub25jZQ==", accept);
    cr_assert_str_eq(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    ws_handshake_key(key);
    cr_assert_eq(strlen(key), WS_KEY_SIZE);
    cr_assert_str_eq(key + 22, "==");
}

Test(ws, paths)
{
    static const struct {
        const char *target, *path;
    } paths[] = {
        {"/", "/"},       {"/a", "/a"},         {"/a?b=c", "/a"},     {"/?", "/"},
        {"/%61", "/a"},   {"/a%2fb", "/a/b"},   {"/a/..b", "/a/..b"}, {"/a/b..", "/a/b.."},
        {"/...", "/..."}, {"/%2E%2e/x", NULL},  {"/..", NULL},        {"/a/../b", NULL},
        {"/a/..", NULL},  {"a", NULL},          {"", NULL},           {"*", NULL},
        {"/%", NULL},     {"/%1", NULL},        {"/%zz", NULL},       {"/%00", NULL},
        {"/a#b", NULL},   {"http://h/a", NULL}, {"//x", "//x"},       {"/a%3fb", "/a?b"},
    };

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char text[32];
        strcpy(text, paths[i].target);
        cr_assert_eq(ws_http_path(text), paths[i].path != NULL, "%s", paths[i].target);
        if (paths[i].path != NULL)
            cr_assert_str_eq(text, paths[i].path);
    }
}

/* RFC 6455, 7.4: which codes a peer may say. */
Test(ws, each_code_of_a_close)
{
    for (unsigned code = 0; code < 65536; code++) {
        const uint8_t payload[] = {(uint8_t)(code >> 8), (uint8_t)code, 'b', 'y', 'e'};
        bool of_the_rfc = code >= 1000 && code <= 1011 && (code < 1004 || code > 1006);
        bool registered = code >= 1012 && code <= 1014, of_others = code >= 3000 && code <= 4999;
        bool fine = of_the_rfc || registered || of_others;

        cr_expect_eq(ws_close_is_fine(payload, 2), fine, "%u", code);
        cr_expect_eq(ws_close_is_fine(payload, sizeof payload), fine, "%u and a reason", code);
    }
}
