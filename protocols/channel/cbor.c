/* SPDX-License-Identifier: MIT */
/* What libcbor reads and writes, item by item, narrowed to the deterministic encoding.  No item of
 * a peer's makes us allocate anything. */
#include "protocols/channel/cbor.h"

#include <cbor.h>
#include <string.h>

#include <spoke/error.h>

#define HEAD_MAX 9 /* bytes */

/* ---- texts ---- */

/* How many bytes the character that begins with these has; 0: it is none. */
static size_t
utf8_character(const uint8_t *p, size_t size)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = p[0] < 0x80 ? 1 : p[0] >> 5 == 0x6 ? 2 : p[0] >> 4 == 0xe ? 3 : 4;
    uint32_t code = p[0];

    if (length == 1)
        return 1;
    if ((length == 4 && p[0] >> 3 != 0x1e) || length > size)
        return 0;
    code &= 0x7fu >> length;
    for (size_t i = 1; i < length; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        code = code << 6 | (p[i] & 0x3fu);
    }
    if (code < least[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    return length;
}

bool
spk_is_utf8(const uint8_t *data, size_t size)
{
    while (size > 0) {
        size_t length = utf8_character(data, size);
        if (length == 0)
            return false;
        data += length;
        size -= length;
    }
    return true;
}

/* ---- writing ---- */

void
spk_cbor_put_raw(struct spk_cbor_writer *w, const void *data, size_t size)
{
    if (w->at != NULL && size > 0 && size <= (size_t)(w->end - w->at)) {
        memcpy(w->at, data, size);
        w->at += size;
    }
    if (__builtin_add_overflow(w->size, size, &w->size))
        w->size = SIZE_MAX; /* too large for any message, whatever follows */
}

void
spk_cbor_put(struct spk_cbor_writer *w, enum spk_cbor_kind kind, uint64_t number)
{
    uint8_t head[HEAD_MAX];
    size_t size = 0;

    switch (kind) {
    case SPK_CBOR_UINT: size = cbor_encode_uint(number, head, sizeof head); break;
    case SPK_CBOR_NEGINT: size = cbor_encode_negint(number, head, sizeof head); break;
    case SPK_CBOR_BYTES: size = cbor_encode_bytestring_start(number, head, sizeof head); break;
    case SPK_CBOR_TEXT: size = cbor_encode_string_start(number, head, sizeof head); break;
    case SPK_CBOR_ARRAY: size = cbor_encode_array_start(number, head, sizeof head); break;
    case SPK_CBOR_MAP: size = cbor_encode_map_start(number, head, sizeof head); break;
    case SPK_CBOR_BOOL: size = cbor_encode_bool(number != 0, head, sizeof head); break;
    case SPK_CBOR_NULL: size = cbor_encode_null(head, sizeof head); break;
    default: break; /* nobody asks for others */
    }
    spk_cbor_put_raw(w, head, size);
}

/* A float of 16 bits, if it is exactly that.  (libcbor 0.8 rounds, and small ones wrongly.) */
static bool
as_half(float value, uint16_t *out)
{
    uint32_t bits, sign, fraction, shift;

    memcpy(&bits, &value, sizeof bits);
    sign = bits >> 16 & 0x8000;
    fraction = bits & 0x7fffff;
    int exponent = (int)(bits >> 23 & 0xff) - 127;
    if (bits << 1 == 0) {
        *out = (uint16_t)sign;
        return true;
    }
    if (exponent == 128 && fraction == 0) {
        *out = (uint16_t)(sign | 0x7c00);
        return true;
    }
    if (exponent < -24 || exponent > 15)
        return false;
    if (exponent >= -14) {
        *out = (uint16_t)(sign | (uint32_t)(exponent + 15) << 10 | fraction >> 13);
        return (fraction & 0x1fff) == 0;
    }
    shift = (uint32_t)(-exponent - 1); /* subnormal: in units of 2^-24 */
    fraction |= 0x800000;
    *out = (uint16_t)(sign | fraction >> shift);
    return (fraction & ((1u << shift) - 1)) == 0;
}

/* The shortest float that is this value; there is one NaN. */
static size_t
shortest_float(double value, uint8_t head[HEAD_MAX])
{
    float single = (float)value;
    uint16_t half = 0x7e00;

    if (value == value && (double)single != value)
        return cbor_encode_double(value, head, HEAD_MAX);
    if (value == value && !as_half(single, &half))
        return cbor_encode_single(single, head, HEAD_MAX);
    head[0] = 0xf9;
    head[1] = (uint8_t)(half >> 8);
    head[2] = (uint8_t)half;
    return 3;
}

void
spk_cbor_put_float(struct spk_cbor_writer *w, double value)
{
    uint8_t head[HEAD_MAX];

    spk_cbor_put_raw(w, head, shortest_float(value, head));
}

/* ---- reading one item ---- */

/* What libcbor calls back with.  Those of indefinite lengths leave the item as it is: nothing. */
#define ON_NUMBER(name, type, kind_)                                                               \
    static void on_##name(void *ctx, type number)                                                  \
    {                                                                                              \
        *(struct spk_cbor_item *)ctx = (struct spk_cbor_item){.kind = (kind_), .number = number};  \
    }
ON_NUMBER(uint8, uint8_t, SPK_CBOR_UINT)
ON_NUMBER(uint16, uint16_t, SPK_CBOR_UINT)
ON_NUMBER(uint32, uint32_t, SPK_CBOR_UINT)
ON_NUMBER(uint64, uint64_t, SPK_CBOR_UINT)
ON_NUMBER(negint8, uint8_t, SPK_CBOR_NEGINT)
ON_NUMBER(negint16, uint16_t, SPK_CBOR_NEGINT)
ON_NUMBER(negint32, uint32_t, SPK_CBOR_NEGINT)
ON_NUMBER(negint64, uint64_t, SPK_CBOR_NEGINT)
ON_NUMBER(array, size_t, SPK_CBOR_ARRAY)
ON_NUMBER(map, size_t, SPK_CBOR_MAP)
ON_NUMBER(tag, uint64_t, SPK_CBOR_TAG)
ON_NUMBER(bool, bool, SPK_CBOR_BOOL)

static void
on_bytes(void *ctx, cbor_data data, size_t size)
{
    *(struct spk_cbor_item *)ctx = (struct spk_cbor_item){
        .kind = SPK_CBOR_BYTES, .number = size, .data = data};
}

static void
on_text(void *ctx, cbor_data data, size_t size)
{
    *(struct spk_cbor_item *)ctx = (struct spk_cbor_item){
        .kind = SPK_CBOR_TEXT, .number = size, .data = data};
}

static void
on_float(void *ctx, float value)
{
    *(struct spk_cbor_item *)ctx = (struct spk_cbor_item){.kind = SPK_CBOR_FLOAT,
                                                          .real = (double)value};
}

static void
on_double(void *ctx, double value)
{
    *(struct spk_cbor_item *)ctx = (struct spk_cbor_item){.kind = SPK_CBOR_FLOAT, .real = value};
}

static void
on_null(void *ctx)
{
    *(struct spk_cbor_item *)ctx = (struct spk_cbor_item){.kind = SPK_CBOR_NULL};
}

static void
on_undefined(void *ctx)
{
    *(struct spk_cbor_item *)ctx = (struct spk_cbor_item){.kind = SPK_CBOR_UNDEFINED};
}

static void
on_indefinite(void *ctx)
{
    (void)ctx;
}

static const struct cbor_callbacks callbacks = {
    .uint8 = on_uint8,
    .uint16 = on_uint16,
    .uint32 = on_uint32,
    .uint64 = on_uint64,
    .negint8 = on_negint8,
    .negint16 = on_negint16,
    .negint32 = on_negint32,
    .negint64 = on_negint64,
    .byte_string_start = on_indefinite,
    .byte_string = on_bytes,
    .string_start = on_indefinite,
    .string = on_text,
    .indef_array_start = on_indefinite,
    .array_start = on_array,
    .indef_map_start = on_indefinite,
    .map_start = on_map,
    .tag = on_tag,
    .float2 = on_float,
    .float4 = on_float,
    .float8 = on_double,
    .undefined = on_undefined,
    .null = on_null,
    .boolean = on_bool,
    .indef_break = on_indefinite,
};

static size_t
head_size(uint64_t number)
{
    return number < 24 ? 1 : number <= 0xff ? 2 : number <= 0xffff ? 3 : number >> 32 == 0 ? 5 : 9;
}

/* Is this, of which libcbor has read `size` bytes, the only encoding that we take? */
static bool
is_deterministic(const struct spk_cbor_item *item, const uint8_t *bytes, size_t size)
{
    uint8_t head[HEAD_MAX];

    switch (item->kind) {
    case SPK_CBOR_UINT:
    case SPK_CBOR_NEGINT:
    case SPK_CBOR_ARRAY:
    case SPK_CBOR_MAP:
    case SPK_CBOR_TAG: return size == head_size(item->number);
    case SPK_CBOR_BYTES:
    case SPK_CBOR_TEXT: return size - item->number == head_size(item->number);
    case SPK_CBOR_FLOAT:
        return shortest_float(item->real, head) == size && memcmp(head, bytes, size) == 0;
    case SPK_CBOR_NOTHING: return false;
    default: return true;
    }
}

int
spk_cbor_next(struct spk_cbor_reader *r, struct spk_cbor_item *out)
{
    *out = (struct spk_cbor_item){.kind = SPK_CBOR_NOTHING};
    struct cbor_decoder_result result = cbor_stream_decode(r->at, (size_t)(r->end - r->at),
                                                           &callbacks, out);
    if (result.status != CBOR_DECODER_FINISHED || !is_deterministic(out, r->at, result.read))
        return SPOKE_EDECODE;
    r->at += result.read;
    uint64_t left = (uint64_t)(r->end - r->at);
    if ((out->kind == SPK_CBOR_ARRAY && out->number > left) ||
        (out->kind == SPK_CBOR_MAP && out->number > left / 2))
        return SPOKE_EDECODE;
    if (out->kind == SPK_CBOR_TEXT && !spk_is_utf8(out->data, out->number))
        return SPOKE_EDECODE;
    return 0;
}

/* ---- over a whole item ---- */

struct level {
    const uint8_t *start; /* of the array, map or tag */
    uint64_t left;        /* items that are still to come, keys and values of a map counted each */
    bool map;
    const uint8_t *key, *key_end; /* the last one */
};

/* An item of this level has ended.  False: it is a key that may not come here. */
static bool
on_item(struct level *level, const uint8_t *start, const uint8_t *end)
{
    level->left--;
    if (!level->map || level->left % 2 == 0)
        return true;
    size_t size = (size_t)(end - start), before = (size_t)(level->key_end - level->key);
    /* No encoding is the beginning of another: they differ within the shorter one, or nowhere. */
    bool in_order = before == 0 || memcmp(level->key, start, size < before ? size : before) < 0;
    level->key = start;
    level->key_end = end;
    return in_order;
}

int
spk_cbor_skip(struct spk_cbor_reader *r, unsigned levels)
{
    struct level stack[SPK_CBOR_DEPTH];
    unsigned depth = 0;
    int rc;

    do {
        const uint8_t *start = r->at;
        struct spk_cbor_item item;

        if ((rc = spk_cbor_next(r, &item)) != 0)
            return rc;
        bool array = item.kind == SPK_CBOR_ARRAY, map = item.kind == SPK_CBOR_MAP;
        if (array || map || item.kind == SPK_CBOR_TAG) {
            if (depth == levels || depth == SPK_CBOR_DEPTH)
                return SPOKE_EDECODE;
            stack[depth++] = (struct level){
                .start = start,
                .left = map     ? item.number * 2
                        : array ? item.number
                                : 1,
                .map = map,
            };
        } else if (depth > 0 && !on_item(&stack[depth - 1], start, r->at)) {
            return SPOKE_EDECODE;
        }
        while (depth > 0 && stack[depth - 1].left == 0) {
            start = stack[--depth].start;
            if (depth > 0 && !on_item(&stack[depth - 1], start, r->at))
                return SPOKE_EDECODE;
        }
    } while (depth > 0);
    return 0;
}
