/* SPDX-License-Identifier: MIT */
/* What a stream of a carrier is for, in bytes. */
#include "open_meta.h"

#include <string.h>

#define DEPTH_MOST 8
#define OWN_KEYS   64 /* unknown ones from here on are skipped */

enum { KEY_ROLE = 0, KEY_TARGET = 4, KEY_LISTEN = 64 };
enum { CBOR_UINT = 0, CBOR_TEXT = 3, CBOR_MAP = 5, CBOR_SIMPLE = 7 };

/* ---- writing ---- */

/* One byte for what is below 24, else one more. */
static uint8_t *
put_head(uint8_t *to, unsigned major, size_t number)
{
    if (number < 24) {
        *to++ = (uint8_t)(major << 5 | number);
    } else {
        *to++ = (uint8_t)(major << 5 | 24);
        *to++ = (uint8_t)number;
    }
    return to;
}

static uint8_t *
put_text(uint8_t *to, unsigned key, const char *text, size_t size)
{
    to = put_head(put_head(to, CBOR_UINT, key), CBOR_TEXT, size);
    memcpy(to, text, size);
    return to + size;
}

size_t
open_meta_write(uint8_t out[OPEN_META_MOST], const char *target, const char *listen)
{
    size_t target_size = target != NULL ? strlen(target) : 0;
    size_t listen_size = listen != NULL ? strlen(listen) : 0;
    unsigned role = listen != NULL ? OPEN_META_APPLICATION : OPEN_META_GATEWAY;
    uint8_t *at = out;

    if (target_size > OPEN_META_TEXT_MOST || listen_size > OPEN_META_TEXT_MOST)
        return 0;
    at = put_head(at, CBOR_MAP, 1 + (size_t)(target != NULL) + (size_t)(listen != NULL));
    at = put_head(put_head(at, CBOR_UINT, KEY_ROLE), CBOR_UINT, role);
    if (target != NULL)
        at = put_text(at, KEY_TARGET, target, target_size);
    if (listen != NULL)
        at = put_text(at, KEY_LISTEN, listen, listen_size);
    return (size_t)(at - out);
}

/* ---- reading ---- */

struct reader {
    const uint8_t *at, *end;
};

struct head {
    unsigned major;
    unsigned info;   /* as it is written */
    uint64_t number; /* value, length or count */
};

/* The shortest form only. */
static bool
read_head(struct reader *r, struct head *h)
{
    static const uint64_t least[] = {24, 0x100, 0x10000, 0x100000000u};
    size_t more;

    if (r->at == r->end)
        return false;
    h->major = *r->at >> 5;
    h->info = *r->at++ & 31u;
    h->number = h->info;
    if (h->info < 24)
        return true;
    if (h->info > 27)
        return false;
    more = (size_t)1 << (h->info - 24);
    if ((size_t)(r->end - r->at) < more)
        return false;
    h->number = 0;
    for (size_t i = 0; i < more; i++)
        h->number = h->number << 8 | *r->at++;
    if (h->major == CBOR_SIMPLE)
        return h->info != 24 || h->number >= 32;
    return h->number >= least[h->info - 24];
}

static bool
skip_bytes(struct reader *r, uint64_t size)
{
    if (size > (uint64_t)(r->end - r->at))
        return false;
    r->at += size;
    return true;
}

/* Any item, as deep as DEPTH_MOST. */
static bool
skip_item(struct reader *r, int depth)
{
    struct head h;
    uint64_t items;

    if (depth > DEPTH_MOST || !read_head(r, &h))
        return false;
    switch (h.major) {
    case 2:
    case CBOR_TEXT: return skip_bytes(r, h.number);
    case 4: items = h.number; break;
    case CBOR_MAP:
        if (h.number > UINT64_MAX / 2)
            return false;
        items = 2 * h.number;
        break;
    case 6: items = 1; break;
    default: return true;
    }
    for (; items > 0; items--) {
        if (!skip_item(r, depth + 1))
            return false;
    }
    return true;
}

/* How long the character at `at` is; 0: it is none, or a control character. */
static size_t
character_size(const uint8_t *at, size_t left)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t point = at[0];
    size_t size = point < 0x80 ? 1 : point < 0xc0 ? 0 : point < 0xe0 ? 2 : point < 0xf0 ? 3 : 4;

    if (size == 0 || size > left || point >= 0xf8)
        return 0;
    if (size == 1)
        return point >= 0x20 && point != 0x7f ? 1 : 0;
    point &= 0xffu >> (size + 1);
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (at[i] & 0x3fu);
    }
    if (point < least[size] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000) ||
        point < 0xa0)
        return 0;
    return size;
}

static bool
read_text(struct reader *r, const char **text, size_t *size)
{
    struct head h;
    size_t n;

    if (!read_head(r, &h) || h.major != CBOR_TEXT || h.number == 0 ||
        h.number > OPEN_META_TEXT_MOST || h.number > (uint64_t)(r->end - r->at))
        return false;
    *text = (const char *)r->at;
    *size = (size_t)h.number;
    for (const uint8_t *end = r->at + *size; r->at < end; r->at += n) {
        if ((n = character_size(r->at, (size_t)(end - r->at))) == 0)
            return false;
    }
    return true;
}

static bool
read_role(struct reader *r, struct open_meta *out)
{
    struct head h;

    if (!read_head(r, &h) || h.major != CBOR_UINT)
        return false;
    out->role = h.number;
    return true;
}

/* One key and its value. */
static uint64_t
read_pair(struct reader *r, struct open_meta *out, uint64_t key)
{
    bool fine;

    if (key == KEY_ROLE)
        fine = read_role(r, out);
    else if (key == KEY_TARGET)
        fine = read_text(r, &out->target, &out->target_size);
    else if (key == KEY_LISTEN && out->role == OPEN_META_APPLICATION)
        fine = read_text(r, &out->listen, &out->listen_size);
    else if (key < OWN_KEYS)
        return SPOKE_MUX_UNSUPPORTED;
    else
        fine = skip_item(r, 1);
    return fine ? SPOKE_MUX_NONE : SPOKE_MUX_PROTOCOL;
}

/* Roles, and what each has to have. */
static uint64_t
check(const struct open_meta *m)
{
    if (m->role == OPEN_META_GATEWAY)
        return SPOKE_MUX_NONE;
    if (m->role == OPEN_META_APPLICATION && m->listen != NULL && m->target != NULL)
        return SPOKE_MUX_NONE;
    return SPOKE_MUX_UNSUPPORTED;
}

uint64_t
open_meta_read(struct open_meta *out, const void *bytes, size_t size)
{
    struct reader r = {.at = bytes};
    struct head map, key;
    uint64_t code, least = 0;

    *out = (struct open_meta){.role = OPEN_META_GATEWAY};
    if (size == 0)
        return SPOKE_MUX_NONE;
    r.end = r.at + size;
    out->role = UINT64_MAX;
    if (!read_head(&r, &map) || map.major != CBOR_MAP)
        return SPOKE_MUX_PROTOCOL;
    for (uint64_t i = 0; i < map.number; i++) {
        if (!read_head(&r, &key) || key.major != CBOR_UINT || key.number < least)
            return SPOKE_MUX_PROTOCOL;
        if ((code = read_pair(&r, out, key.number)) != SPOKE_MUX_NONE)
            return code;
        if ((least = key.number + 1) == 0) /* the largest: none follows */
            return i + 1 == map.number && r.at == r.end ? check(out) : SPOKE_MUX_PROTOCOL;
    }
    return r.at == r.end ? check(out) : SPOKE_MUX_PROTOCOL;
}
