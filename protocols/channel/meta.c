/* SPDX-License-Identifier: MIT */
#include "protocols/channel/meta.h"

#include <string.h>

#include "protocols/channel/cbor.h"

#define IGNORED_FROM 64u /* keys */

enum key {
    KEY_ROLE,
    KEY_PARENT = 2,
    KEY_DIRECTION,
    KEY_NAME,
    KEY_TYPE,
    KEY_COUNT,
    KEY_LIMIT,
    KEY_MAX_MESSAGE,
    KEY_DESCRIPTOR,
    KEY_LAYOUT,
    KEYS
};
#define BIT(Key) (1u << (Key))

#define OF_CHANNELS                                                                                \
    (BIT(KEY_ROLE) | BIT(KEY_DIRECTION) | BIT(KEY_TYPE) | BIT(KEY_LIMIT) | BIT(KEY_MAX_MESSAGE) |  \
     BIT(KEY_LAYOUT))

/* Which keys a role may have, and which it has to. */
static const struct {
    unsigned may, must;
} roles[SPK_ROLES] = {
    [SPK_ROLE_CHANNEL] = {OF_CHANNELS, BIT(KEY_DIRECTION)},
    [SPK_ROLE_NESTED] = {OF_CHANNELS | BIT(KEY_PARENT), BIT(KEY_DIRECTION) | BIT(KEY_PARENT)},
    [SPK_ROLE_ATTACHED_STREAM] = {BIT(KEY_ROLE) | BIT(KEY_DIRECTION) | BIT(KEY_PARENT),
                                  BIT(KEY_DIRECTION) | BIT(KEY_PARENT)},
    [SPK_ROLE_PORT] = {OF_CHANNELS | BIT(KEY_NAME) | BIT(KEY_COUNT) | BIT(KEY_DESCRIPTOR),
                       BIT(KEY_DIRECTION) | BIT(KEY_NAME)},
    [SPK_ROLE_GATEWAY] = {BIT(KEY_ROLE) | BIT(KEY_DIRECTION) | BIT(KEY_NAME), BIT(KEY_NAME)},
    [SPK_ROLE_STREAM] = {BIT(KEY_ROLE) | BIT(KEY_DIRECTION), 0}};

static bool
is_of_channels(enum spk_role role)
{
    return role == SPK_ROLE_CHANNEL || role == SPK_ROLE_NESTED || role == SPK_ROLE_PORT;
}

/* ---- writing ---- */

/* What of it is said. */
static unsigned
keys_of(const struct spk_meta *m)
{
    unsigned keys = BIT(KEY_ROLE) | roles[m->role].must;

    if (m->role == SPK_ROLE_PORT)
        keys |= BIT(KEY_COUNT);
    if (is_of_channels(m->role)) {
        keys |= m->has_type ? BIT(KEY_TYPE) : 0;
        keys |= m->has_layout ? BIT(KEY_LAYOUT) : 0;
        keys |= m->descriptor != NULL ? BIT(KEY_DESCRIPTOR) : 0;
        if (m->direction == SPK_META_OPENER_RECEIVES)
            keys |= BIT(KEY_LIMIT) | BIT(KEY_MAX_MESSAGE);
    }
    return keys & roles[m->role].may;
}

static void
put_string(struct spk_cbor_writer *w, enum spk_cbor_kind kind, const void *data, size_t size)
{
    spk_cbor_put(w, kind, size);
    spk_cbor_put_raw(w, data, size);
}

static void
put_value(struct spk_cbor_writer *w, const struct spk_meta *m, enum key key)
{
    switch (key) {
    case KEY_ROLE: spk_cbor_put(w, SPK_CBOR_UINT, m->role); break;
    case KEY_PARENT: spk_cbor_put(w, SPK_CBOR_UINT, m->parent); break;
    case KEY_DIRECTION: spk_cbor_put(w, SPK_CBOR_UINT, m->direction); break;
    case KEY_NAME: put_string(w, SPK_CBOR_TEXT, m->name, m->name_size); break;
    case KEY_TYPE: put_string(w, SPK_CBOR_BYTES, m->type, sizeof m->type); break;
    case KEY_COUNT:
        if (m->count < 0)
            spk_cbor_put(w, SPK_CBOR_NEGINT, 0);
        else
            spk_cbor_put(w, SPK_CBOR_UINT, (uint64_t)m->count);
        break;
    case KEY_LIMIT: spk_cbor_put(w, SPK_CBOR_UINT, m->limit); break;
    case KEY_MAX_MESSAGE: spk_cbor_put(w, SPK_CBOR_UINT, m->max_message); break;
    case KEY_DESCRIPTOR: put_string(w, SPK_CBOR_TEXT, m->descriptor, m->descriptor_size); break;
    case KEY_LAYOUT: put_string(w, SPK_CBOR_BYTES, m->layout, sizeof m->layout); break;
    default: break;
    }
}

size_t
spk_meta_encode(uint8_t *to, size_t size, const struct spk_meta *meta)
{
    struct spk_cbor_writer w = {.at = to, .end = to + size};
    unsigned keys = keys_of(meta);

    spk_cbor_put(&w, SPK_CBOR_MAP, (uint64_t)__builtin_popcount(keys));
    for (unsigned key = 0; key < KEYS; key++) {
        if ((keys & BIT(key)) == 0)
            continue;
        spk_cbor_put(&w, SPK_CBOR_UINT, key);
        put_value(&w, meta, (enum key)key);
    }
    return w.size <= size ? w.size : 0;
}

/* ---- reading ---- */

static bool
read_bytes(const struct spk_cbor_item *item, uint8_t to[SPOKE_FINGERPRINT], bool *has)
{
    if (item->kind != SPK_CBOR_BYTES || item->number != SPOKE_FINGERPRINT)
        return false;
    memcpy(to, item->data, SPOKE_FINGERPRINT);
    return *has = true;
}

static bool
read_number(const struct spk_cbor_item *item, uint64_t *to)
{
    *to = item->number;
    return item->kind == SPK_CBOR_UINT;
}

static bool
read_text(const struct spk_cbor_item *item, size_t most, const char **text, size_t *size)
{
    *text = (const char *)item->data;
    *size = (size_t)item->number;
    return item->kind == SPK_CBOR_TEXT && item->number >= 1 && item->number <= most &&
           memchr(item->data, 0, (size_t)item->number) == NULL;
}

/* -1, or at least 1. */
static bool
read_count(const struct spk_cbor_item *item, int64_t *to)
{
    if (item->kind == SPK_CBOR_NEGINT) {
        *to = -1;
        return item->number == 0;
    }
    *to = (int64_t)item->number;
    return item->kind == SPK_CBOR_UINT && item->number >= 1 && item->number <= INT64_MAX;
}

static bool
read_value(const struct spk_cbor_item *item, enum key key, struct spk_meta *m)
{
    uint64_t number = 0;

    switch (key) {
    case KEY_ROLE:
        m->role = item->number < SPK_ROLES ? (enum spk_role)item->number : SPK_ROLES;
        return item->kind == SPK_CBOR_UINT;
    case KEY_PARENT: return read_number(item, &m->parent) && m->parent > 0;
    case KEY_DIRECTION:
        if (!read_number(item, &number) || number < 1 || number > SPK_META_BOTH)
            return false;
        m->direction = (uint8_t)number;
        return true;
    case KEY_NAME: return read_text(item, SPK_META_NAME, &m->name, &m->name_size);
    case KEY_TYPE: return read_bytes(item, m->type, &m->has_type);
    case KEY_COUNT: return read_count(item, &m->count);
    case KEY_LIMIT: return read_number(item, &m->limit);
    case KEY_MAX_MESSAGE: return read_number(item, &m->max_message);
    case KEY_DESCRIPTOR:
        return read_text(item, SPOKE_DESCRIPTOR_MAX, &m->descriptor, &m->descriptor_size);
    case KEY_LAYOUT: return read_bytes(item, m->layout, &m->has_layout);
    default: return false;
    }
}

/* One pair; *keys are those that were found.  Their order tells that none comes twice. */
static uint64_t
read_pair(struct spk_cbor_reader *r, struct spk_meta *m, unsigned *keys, uint64_t *least)
{
    struct spk_cbor_item key, item;

    if (spk_cbor_next(r, &key) != 0 || key.kind != SPK_CBOR_UINT || key.number < *least)
        return SPOKE_MUX_PROTOCOL;
    if (key.number == UINT64_MAX)
        return SPOKE_MUX_PROTOCOL;
    *least = key.number + 1;
    if (key.number >= IGNORED_FROM)
        return spk_cbor_skip(r, SPK_CBOR_DEPTH) == 0 ? SPOKE_MUX_NONE : SPOKE_MUX_PROTOCOL;
    if (key.number >= KEYS || key.number == 1)
        return SPOKE_MUX_UNSUPPORTED;
    if (spk_cbor_next(r, &item) != 0 || !read_value(&item, (enum key)key.number, m))
        return SPOKE_MUX_PROTOCOL;
    *keys |= BIT(key.number);
    return SPOKE_MUX_NONE;
}

/* Do the parts fit together? */
static uint64_t
check(const struct spk_meta *m, unsigned keys)
{
    if ((keys & BIT(KEY_ROLE)) == 0)
        return SPOKE_MUX_PROTOCOL;
    if (m->role == 0 || m->role >= SPK_ROLES)
        return SPOKE_MUX_UNSUPPORTED;
    if ((keys & ~roles[m->role].may) != 0 || (roles[m->role].must & ~keys) != 0)
        return SPOKE_MUX_PROTOCOL;
    if (!is_of_channels(m->role))
        return SPOKE_MUX_NONE;
    return m->direction == SPK_META_BOTH ? SPOKE_MUX_PROTOCOL : SPOKE_MUX_NONE;
}

uint64_t
spk_meta_decode(const uint8_t *data, size_t size, struct spk_meta *meta)
{
    struct spk_cbor_reader r = {.at = data, .end = data + size};
    struct spk_cbor_item map;
    uint64_t code, least = 0;
    unsigned keys = 0;

    *meta = (struct spk_meta){.direction = SPK_META_BOTH, .count = -1};
    if (spk_cbor_next(&r, &map) != 0 || map.kind != SPK_CBOR_MAP)
        return SPOKE_MUX_PROTOCOL;
    for (uint64_t i = 0; i < map.number; i++) {
        if ((code = read_pair(&r, meta, &keys, &least)) != SPOKE_MUX_NONE)
            return code;
    }
    return r.at == r.end ? check(meta, keys) : SPOKE_MUX_PROTOCOL;
}
