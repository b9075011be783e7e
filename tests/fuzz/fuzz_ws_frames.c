/* SPDX-License-Identifier: MIT */
/* Fuzz target: what a WebSocket peer sends after the handshake, in one piece and in pieces.  The
 * first byte: bit 0 the peer masks, bit 1 text is taken, the rest how long the pieces are; then the
 * bytes.  Messages, control frames and the verdict are compared with a second reading, which knows
 * all bytes at once. */
/* Covers: transports/ws/in.c, transports/ws/frame.c */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "transports/ws/in.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool holds)
{
    if (!holds)
        abort();
}

/* What came, as one string of bytes: for each thing a letter and its payload. */
struct story {
    uint8_t *bytes;
    size_t size;
};

static void
tell(struct story *s, char what, const uint8_t *bytes, size_t size)
{
    s->bytes = realloc(s->bytes, s->size + size + 1);
    require(s->bytes != NULL);
    s->bytes[s->size] = (uint8_t)what;
    if (size > 0)
        memcpy(s->bytes + s->size + 1, bytes, size);
    s->size += size + 1;
}

static void
add(struct story *s, const uint8_t *bytes, size_t size)
{
    if (size == 0)
        return;
    s->bytes = realloc(s->bytes, s->size + size);
    require(s->bytes != NULL);
    memcpy(s->bytes + s->size, bytes, size);
    s->size += size;
}

/* ---- as the transport does it ---- */

static bool
read_piece(struct ws_in *in, uint8_t *data, size_t size, struct story *s, unsigned *code)
{
    size_t at = 0;

    while (at < size) {
        if (in->left > 0) {
            size_t n = in->left < size - at ? (size_t)in->left : size - at;
            bool fine = ws_in_take(in, data + at, data + at, n);
            add(s, data + at, n);
            at += n;
            if (!fine) {
                *code = in->code;
                return false;
            }
            continue;
        }
        switch (ws_in_next(in, data, size, &at)) {
        case WS_IN_MORE: require(at == size); break;
        case WS_IN_FRAME: tell(s, in->head.opcode == WS_CONTINUATION ? 'c' : 'm', NULL, 0); break;
        case WS_IN_PING: tell(s, 'p', in->control, in->control_size); break;
        case WS_IN_PONG: tell(s, 'q', in->control, in->control_size); break;
        case WS_IN_CLOSE: *code = 1; return false;
        case WS_IN_BAD: *code = in->code; return false;
        }
        require(at <= size);
    }
    return true;
}

static void
read_in_pieces(const uint8_t *data, size_t size, size_t piece, unsigned flags, struct story *s,
               unsigned *code)
{
    struct ws_in in = {.masked = (flags & 1) != 0, .takes_text = (flags & 2) != 0};

    *code = 0;
    for (size_t at = 0; at < size; at += piece) {
        size_t n = piece < size - at ? piece : size - at;
        uint8_t *copy = malloc(n);
        require(copy != NULL);
        memcpy(copy, data + at, n);
        bool go_on = read_piece(&in, copy, n, s, code);
        free(copy);
        if (!go_on)
            return;
    }
}

/* ---- a second reading ---- */

/* How many bytes at the front are whole characters of UTF-8; *bad: what follows can be none. */
static size_t
characters(const uint8_t *t, size_t size, bool *bad)
{
    size_t at = 0;

    *bad = false;
    while (at < size) {
        unsigned c = t[at], n = c < 0x80   ? 1
                                : c < 0xc2 ? 0
                                : c < 0xe0 ? 2
                                : c < 0xf0 ? 3
                                : c < 0xf5 ? 4
                                           : 0;
        uint32_t value = n == 1 ? c : c & (0xffu >> (n + 1));
        if (n == 0) {
            *bad = true;
            return at;
        }
        for (unsigned i = 1; i < n; i++) {
            if (at + i == size)
                return at;
            if ((t[at + i] & 0xc0) != 0x80) {
                *bad = true;
                return at;
            }
            value = value << 6 | (t[at + i] & 0x3f);
            if (i == 1 && ((n == 3 && (value < 0x20 || (value >= 0x360 && value < 0x380))) ||
                           (n == 4 && (value < 0x10 || value > 0x10f)))) {
                *bad = true;
                return at;
            }
        }
        at += n;
    }
    return at;
}

static unsigned
verdict(const uint8_t *d, size_t size, unsigned flags)
{
    uint8_t *text = malloc(size + 1);
    size_t at = 0, text_size = 0;
    bool masked = (flags & 1) != 0, within = false, is_text = false, bad;
    unsigned code = 0, empty = 0;

    require(text != NULL);
    while (code == 0 && size - at >= 2) {
        unsigned op = d[at] & 15u, fin = d[at] >> 7, n7 = d[at + 1] & 127u;
        size_t head = 2 + (n7 == 126 ? 2u : n7 == 127 ? 8u : 0u), i;
        uint64_t length = n7;
        const uint8_t *key;
        if ((d[at] & 0x70) != 0 || (d[at + 1] >> 7 != 0) != masked || (op > 2 && op < 8) ||
            op > 10 || (op >= 8 && (!fin || n7 > 125))) {
            code = 1002;
            break;
        }
        if (size - at < head)
            break;
        if (n7 > 125)
            for (length = 0, i = 2; i < head; i++)
                length = length << 8 | d[at + i];
        if ((n7 == 126 && length < 126) || (n7 == 127 && (length < 65536 || length >> 63 != 0))) {
            code = 1002;
            break;
        }
        key = d + at + head;
        head += masked ? 4 : 0;
        if (size - at < head)
            break;
        at += head;
        size_t have = length < size - at ? (size_t)length : size - at;
        if (op >= 8) {
            uint8_t payload[125];
            if (have < length)
                break;
            for (i = 0; i < have; i++)
                payload[i] = (uint8_t)(d[at + i] ^ (masked ? key[i % 4] : 0));
            at += have;
            if (op == 8) {
                unsigned why = have >= 2 ? payload[0] * 256u + payload[1] : 1000;
                bool may = (why >= 1000 && why <= 1003) || (why >= 1007 && why <= 1014) ||
                           (why >= 3000 && why <= 4999);
                code = have == 1 || !may ||
                               (have > 2 && (characters(payload + 2, have - 2, &bad) != have - 2))
                           ? 1002
                           : 1;
            }
            continue;
        }
        if ((op == 0) != within) {
            code = 1002;
            break;
        }
        if (op == 1 && !(flags & 2)) {
            code = 1003;
            break;
        }
        if (!within) {
            is_text = op == 1;
            text_size = 0;
        }
        empty = length == 0 && !fin ? empty + 1 : 0;
        if (empty > 1000)
            code = 1008;
        for (i = 0; is_text && i < have; i++)
            text[text_size++] = (uint8_t)(d[at + i] ^ (masked ? key[i % 4] : 0));
        at += have;
        within = !fin || have < length;
        if (code == 0 && is_text &&
            ((characters(text, text_size, &bad) < text_size && bad) ||
             (!within && characters(text, text_size, &bad) < text_size)))
            code = 1007;
        if (have < length)
            break;
    }
    free(text);
    return code;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct story whole = {0}, pieces = {0};
    unsigned codes[2];

    if (size < 1)
        return 0;
    unsigned flags = data[0];
    read_in_pieces(data + 1, size - 1, size, flags, &whole, &codes[0]);
    read_in_pieces(data + 1, size - 1, 1 + flags / 4, flags, &pieces, &codes[1]);
    require(codes[0] == codes[1]);
    if (codes[0] != 1007) { /* what is bad may have come with more that is told */
        require(whole.size == pieces.size);
        require(whole.size == 0 || memcmp(whole.bytes, pieces.bytes, whole.size) == 0);
    }
    require(codes[0] == verdict(data + 1, size - 1, flags));
    free(whole.bytes);
    free(pieces.bytes);
    return 0;
}
