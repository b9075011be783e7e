/* SPDX-License-Identifier: MIT */
/* The bytes of both wires: see wire.h. */
#include "runtime/stream/mux/wire.h"

#include <string.h>

#include <spoke/error.h>

#include "runtime/memory/message.h"

#define VERSION      1u
#define DATA_LEAST   1024u /* a preface may not ask for smaller ones */
#define VARINT_BYTES 10u

enum { FLAG_EVEN = 1, FLAG_FDS = 2 };

static const uint8_t magic[] = {'S', 'P', 'K', 'M'};

/* What follows the kind: i an id, n a number (both of 7 bits a byte, the lowest first), c a u8
 * count of descriptors, l a u16 length, m a length of metadata, b a u8 length, e eight bytes; p is
 * the preface. */
static const char *const layouts[SPK_MUX_KINDS] = {
    [SPK_MUX_HEARTBEAT] = "",      [SPK_MUX_OPEN] = "in",       [SPK_MUX_ACCEPT] = "in",
    [SPK_MUX_DATA] = "il",         [SPK_MUX_CREDIT] = "in",     [SPK_MUX_CLOSE_WRITE] = "i",
    [SPK_MUX_CLOSE] = "i",         [SPK_MUX_OPEN_META] = "inm", [SPK_MUX_RESET] = "in",
    [SPK_MUX_STOP_READING] = "in", [SPK_MUX_GO_AWAY] = "gnb",   [SPK_MUX_PING] = "e",
    [SPK_MUX_PONG] = "e",          [SPK_MUX_DATA_FD] = "icl",   [SPK_MUX_FD_CREDIT] = "n",
};

/* ---- reading ---- */

void
spk_mux_decoder_init(struct spk_mux_decoder *d, bool native)
{
    *d = (struct spk_mux_decoder){.native = native, .has_begun = !native};
}

bool
spk_mux_decoder_is_inside(const struct spk_mux_decoder *d)
{
    return d->field != NULL || d->left > 0;
}

bool
spk_mux_decoder_awaits_fds(const struct spk_mux_decoder *d)
{
    return d->field != NULL && d->word.kind == SPK_MUX_DATA_FD;
}

static int
begin(struct spk_mux_decoder *d, uint8_t kind)
{
    if (kind >= (d->native ? SPK_MUX_KINDS : SPK_MUX_COMPATIBLE_KINDS) || layouts[kind] == NULL)
        return SPOKE_EPROTO;
    d->word = (struct spk_mux_word){.kind = kind};
    d->field = layouts[kind];
    return 0;
}

/* A field is complete: keep it.  Ids are 1 and more, as are counts, the length of data and a
 * credit. */
static int
keep(struct spk_mux_decoder *d)
{
    struct spk_mux_word *w = &d->word;

    switch (*d->field) {
    case 'i':
        if (d->value == 0)
            return SPOKE_EPROTO;
        w->id = d->value;
        break;
    case 'g': w->id = d->value; break;
    case 'n':
        if (d->value == 0 && (w->kind == SPK_MUX_CREDIT || w->kind == SPK_MUX_FD_CREDIT))
            return SPOKE_EPROTO;
        w->number = d->value;
        break;
    case 'c':
        if (d->value == 0 || d->value > SPK_MUX_FDS_MOST)
            return SPOKE_EPROTO;
        w->number = d->value;
        break;
    case 'l':
        if (d->value == 0)
            return SPOKE_EPROTO;
        w->length = (uint32_t)d->value;
        break;
    case 'm':
        if (d->value > SPK_MUX_META_MOST)
            return SPOKE_EPROTO;
        w->length = (uint32_t)d->value;
        break;
    case 'b': w->length = (uint32_t)d->value; break;
    default: break; /* e and p are in word.bytes */
    }
    d->field++;
    d->at = 0;
    d->value = 0;
    return 0;
}

/* One byte of a number of up to 64 bits.  1: it was the last. */
static int
add_to_varint(struct spk_mux_decoder *d, uint8_t byte)
{
    if (d->at == VARINT_BYTES - 1 && byte > 1)
        return SPOKE_EPROTO;
    d->value |= (uint64_t)(byte & 0x7f) << 7 * d->at++;
    return (byte & 0x80) == 0;
}

static int
add_to_bytes(struct spk_mux_decoder *d, uint8_t byte, uint32_t size)
{
    d->word.bytes[d->at++] = byte;
    return d->at == size;
}

static int
add_to_preface(struct spk_mux_decoder *d, uint8_t byte)
{
    if (d->at < sizeof magic && byte != magic[d->at])
        return SPOKE_EPROTO;
    return add_to_bytes(d, byte, SPK_MUX_PREFACE_BYTES);
}

/* One byte of the field.  1: it is complete. */
static int
add(struct spk_mux_decoder *d, uint8_t byte)
{
    switch (*d->field) {
    case 'l': d->value = d->value << 8 | byte; return ++d->at == 2;
    case 'b':
    case 'c': d->value = byte; return 1;
    case 'e': return add_to_bytes(d, byte, 8);
    case 'p': return add_to_preface(d, byte);
    default: return add_to_varint(d, byte);
    }
}

static int
take_piece(struct spk_mux_decoder *d, const uint8_t **at, const uint8_t *end,
           struct spk_mux_word *out)
{
    size_t size = (size_t)(end - *at);

    if (size > d->left)
        size = d->left;
    d->left -= (uint32_t)size;
    *out = d->word;
    out->kind = SPK_MUX_PIECE;
    out->data = *at;
    out->size = size;
    out->last = d->left == 0;
    *at += size;
    return 1;
}

int
spk_mux_decode(struct spk_mux_decoder *d, const uint8_t **at, const uint8_t *end,
               struct spk_mux_word *out)
{
    int rc;

    while (*at < end) {
        if (d->left > 0)
            return take_piece(d, at, end, out);
        if (d->field != NULL) {
            if ((rc = add(d, *(*at)++)) < 0 || (rc > 0 && (rc = keep(d)) != 0))
                return rc;
        } else if (d->has_begun) {
            if ((rc = begin(d, *(*at)++)) != 0)
                return rc;
        } else {
            d->word = (struct spk_mux_word){.kind = SPK_MUX_PREFACE};
            d->field = "p";
            continue;
        }
        if (*d->field == '\0') {
            d->field = NULL;
            d->has_begun = true;
            d->left = d->word.length;
            *out = d->word;
            return 1;
        }
    }
    return 0;
}

/* ---- writing ---- */

static size_t
put_varint(uint8_t *to, uint64_t value)
{
    size_t n = 0;

    for (; value > 0x7f; value >>= 7)
        to[n++] = (uint8_t)(value | 0x80);
    to[n++] = (uint8_t)value;
    return n;
}

size_t
spk_mux_encode(uint8_t *to, enum spk_mux_kind kind, uint64_t id, uint64_t number, uint32_t length)
{
    size_t n = 0;

    to[n++] = (uint8_t)kind;
    for (const char *field = layouts[kind]; *field != '\0'; field++) {
        switch (*field) {
        case 'i':
        case 'g': n += put_varint(to + n, id); break;
        case 'n': n += put_varint(to + n, number); break;
        case 'm': n += put_varint(to + n, length); break;
        case 'c': to[n++] = (uint8_t)number; break;
        case 'l': to[n++] = (uint8_t)(length >> 8); /* fall through */
        default: to[n++] = (uint8_t)length; break;
        }
    }
    return n;
}

size_t
spk_mux_encode_echo(uint8_t *to, enum spk_mux_kind kind, const uint8_t bytes[8])
{
    to[0] = (uint8_t)kind;
    memcpy(to + 1, bytes, 8);
    return 9;
}

/* ---- the preface ---- */

/* "SPKM", version, flags, u16 largest data (0: 65 535), u32 streams, u32 0 */
void
spk_mux_write_preface(uint8_t to[SPK_MUX_PREFACE_BYTES], const struct spk_mux_preface *p)
{
    memset(to, 0, SPK_MUX_PREFACE_BYTES);
    memcpy(to, magic, sizeof magic);
    to[4] = VERSION;
    to[5] = (uint8_t)((p->even ? FLAG_EVEN : 0) | (p->has_fds ? FLAG_FDS : 0));
    if (p->data_most < SPK_MUX_DATA_MOST) {
        to[6] = (uint8_t)(p->data_most >> 8);
        to[7] = (uint8_t)p->data_most;
    }
    spk_put32(to + 8, p->max_streams);
}

int
spk_mux_read_preface(struct spk_mux_preface *p, const uint8_t from[SPK_MUX_PREFACE_BYTES])
{
    uint32_t most = (uint32_t)from[6] << 8 | from[7];

    if (memcmp(from, magic, sizeof magic) != 0 || from[4] == 0 || (most != 0 && most < DATA_LEAST))
        return SPOKE_EPROTO;
    p->version = from[4] < VERSION ? from[4] : VERSION;
    p->even = (from[5] & FLAG_EVEN) != 0;
    p->has_fds = (from[5] & FLAG_FDS) != 0;
    p->data_most = most != 0 ? most : SPK_MUX_DATA_MOST;
    p->max_streams = spk_get32(from + 8);
    return 0;
}
