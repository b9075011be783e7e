/* SPDX-License-Identifier: MIT */
/* Fuzz target: what the openings of streams say of them, as sessions read it and as the program
 * does.  Both are compared with a third reading of the same map, and with each other where their
 * roles meet; what is understood is written again and means the same.
 *
 * Input: the bytes of the map. */
/* Covers: protocols/channel/meta.c tools/spoke/open_meta.c */
#include <string.h>

#include "protocols/channel/meta.h"
#include "tests/fuzz/support/lab.h"
#include "tools/spoke/open_meta.h"

/* ---- a reading of it that shares no line with the others ---- */

struct item {
    unsigned major;
    uint64_t number;
    const uint8_t *text; /* of strings */
};

struct map {
    bool fine; /* a map of canonical items, its keys whole numbers that rise, and nothing behind it
                */
    bool texts_fine;    /* … and all texts in it are UTF-8 */
    unsigned depth;     /* of the deepest value; 0: none holds others */
    uint64_t keys[128]; /* more are not fine here; no valid one has so many */
    struct item values[128];
    size_t count;
};

static size_t
character(const uint8_t *at, size_t left)
{
    size_t more = at[0] < 0x80 ? 0 : at[0] < 0xe0 ? 1 : at[0] < 0xf0 ? 2 : 3;
    uint32_t least = (uint32_t[]){0, 0x80, 0x800, 0x10000}[more], point = at[0];

    if (more > 0) {
        if (at[0] < 0xc0 || at[0] > 0xf7 || more >= left)
            return 0;
        point = at[0] & (0x3fu >> more);
        for (size_t i = 1; i <= more; i++) {
            if (at[i] >> 6 != 2)
                return 0;
            point = point * 64 + at[i] % 64;
        }
    }
    return point >= least && point < 0x110000 && point / 0x800 != 27 ? more + 1 : 0;
}

static bool
is_utf8(const uint8_t *at, size_t size)
{
    for (size_t n; size > 0; at += n, size -= n) {
        if ((n = character(at, size)) == 0)
            return false;
    }
    return true;
}

/* One item with all that is in it; the end of it, NULL: it is none. */
static const uint8_t *
read_item(const uint8_t *at, const uint8_t *end, struct item *item, struct map *m, unsigned depth)
{
    uint64_t inside = 0;
    unsigned info;

    if (at >= end || depth > 200)
        return NULL;
    m->depth = depth > m->depth ? depth : m->depth;
    *item = (struct item){.major = *at >> 5};
    info = *at++ & 31;
    if (info > 27)
        return NULL;
    item->number = info;
    if (info >= 24) {
        size_t bytes = (size_t)1 << (info % 8), had = bytes;

        if ((size_t)(end - at) < bytes)
            return NULL;
        for (item->number = 0; bytes > 0; bytes--)
            item->number = item->number * 256 + *at++;
        if (item->major == 7) {
            if (had == 1 && item->number < 32)
                return NULL;
        } else if (item->number < (had == 1 ? 24 : (uint64_t)1 << (had * 4))) {
            return NULL;
        }
    }
    if (item->major == 2 || item->major == 3) {
        if (item->number > (uint64_t)(end - at))
            return NULL;
        item->text = at;
        if (item->major == 3)
            m->texts_fine &= is_utf8(at, (size_t)item->number);
        return at + item->number;
    }
    if (item->major == 4 || item->major == 6)
        inside = item->major == 4 ? item->number : 1;
    if (item->major == 5)
        inside = item->number > UINT64_MAX / 2 ? UINT64_MAX : 2 * item->number;
    for (; inside > 0; inside--) {
        struct item part;

        if ((at = read_item(at, end, &part, m, depth + 1)) == NULL)
            return NULL;
    }
    return at;
}

static void
read_map(struct map *m, const uint8_t *at, size_t size)
{
    const uint8_t *end = at + size;
    struct map unused = {.count = 0};
    struct item head;
    uint64_t pairs;

    *m = (struct map){.texts_fine = true};
    /* The head of it, as an array's of nothing would be read. */
    if (size == 0 || at[0] >> 5 != 5)
        return;
    pairs = at[0] & 31;
    at++;
    if (pairs > 27)
        return;
    if (pairs >= 24) { /* nobody needs so many: only one byte of them is looked at */
        if (pairs > 24 || at == end || *at < 24)
            return;
        pairs = *at++;
    }
    if (pairs > 128)
        return;
    for (; m->count < pairs; m->count++) {
        if ((at = read_item(at, end, &head, &unused, 0)) == NULL || head.major != 0 ||
            (m->count > 0 && head.number <= m->keys[m->count - 1]))
            return;
        m->keys[m->count] = head.number;
        if ((at = read_item(at, end, &m->values[m->count], m, 0)) == NULL)
            return;
    }
    m->fine = at == end;
}

static const struct item *
value_of(const struct map *m, uint64_t key)
{
    for (size_t i = 0; i < m->count; i++) {
        if (m->keys[i] == key)
            return &m->values[i];
    }
    return NULL;
}

/* ---- as the program reads it ---- */

static bool
is_printable(const struct item *text)
{
    if (text->major != 3 || text->number < 1 || text->number > OPEN_META_TEXT_MOST ||
        !is_utf8(text->text, (size_t)text->number))
        return false;
    for (uint64_t i = 0; i < text->number; i++) {
        if (text->text[i] < 0x20 || text->text[i] == 0x7f)
            return false;
        if (text->text[i] == 0xc2 && text->text[i + 1] < 0xa0)
            return false;
    }
    return true;
}

static bool
is_for_program(const struct map *m)
{
    const struct item *role = value_of(m, 0), *target = value_of(m, 4), *listen = value_of(m, 64);

    if (!m->fine || role == NULL || role->major != 0)
        return false;
    for (size_t i = 0; i < m->count; i++) {
        if (m->keys[i] < 64 && m->keys[i] != 0 && m->keys[i] != 4)
            return false;
    }
    if (target != NULL && !is_printable(target))
        return false;
    if (role->number == OPEN_META_GATEWAY)
        return true;
    return role->number == OPEN_META_APPLICATION && target != NULL && listen != NULL &&
           is_printable(listen);
}

static bool
is_text(const struct item *item, const char *text, size_t size)
{
    return item != NULL ? item->number == size && text == (const char *)item->text : text == NULL;
}

static void
check_program(const uint8_t *data, size_t size, const struct map *m)
{
    uint8_t again[OPEN_META_MOST];
    char target[OPEN_META_TEXT_MOST + 1], listen[OPEN_META_TEXT_MOST + 1];
    struct open_meta meta, same;
    bool fine = open_meta_read(&meta, data, size) == SPOKE_MUX_NONE;
    size_t n;

    if (size == 0) {
        MUST(fine && meta.role == OPEN_META_GATEWAY && meta.target == NULL);
        return;
    }
    if (m->depth > 6) /* how deep is its own matter, near its limit */
        return;
    MUST(fine == is_for_program(m));
    if (!fine)
        return;
    MUST(is_text(value_of(m, 4), meta.target, meta.target_size));
    if (meta.role == OPEN_META_APPLICATION)
        MUST(is_text(value_of(m, 64), meta.listen, meta.listen_size));
    snprintf(target, sizeof target, "%.*s", (int)meta.target_size, meta.target ? meta.target : "");
    snprintf(listen, sizeof listen, "%.*s", (int)meta.listen_size, meta.listen ? meta.listen : "");
    n = open_meta_write(again, meta.target ? target : NULL, meta.listen ? listen : NULL);
    MUST(n > 0 && open_meta_read(&same, again, n) == SPOKE_MUX_NONE);
    MUST(same.role == meta.role && same.target_size == meta.target_size &&
         same.listen_size == meta.listen_size);
    MUST(same.target_size == 0 || memcmp(same.target, meta.target, same.target_size) == 0);
}

/* ---- as sessions do ---- */

static void
check_session(const uint8_t *data, size_t size, const struct map *m)
{
    uint8_t again[5000], twice[5000];
    struct spk_meta meta, same;
    const struct item *item;
    size_t n;

    if (spk_meta_decode(data, size, &meta) != SPOKE_MUX_NONE)
        return;
    MUST(m->fine && m->texts_fine);
    MUST((item = value_of(m, 0)) != NULL && item->major == 0 && item->number == meta.role);
    if ((item = value_of(m, 2)) != NULL)
        MUST(item->major == 0 && item->number == meta.parent && meta.parent > 0);
    if ((item = value_of(m, 3)) != NULL)
        MUST(item->major == 0 && item->number == meta.direction);
    if ((item = value_of(m, 4)) != NULL)
        MUST(item->major == 3 && is_text(item, meta.name, meta.name_size));
    if ((item = value_of(m, 6)) != NULL)
        MUST(item->major == 0 ? item->number == (uint64_t)meta.count && meta.count > 0
                              : item->major == 1 && item->number == 0 && meta.count == -1);
    if ((item = value_of(m, 7)) != NULL)
        MUST(item->major == 0 && item->number == meta.limit);
    if ((item = value_of(m, 8)) != NULL)
        MUST(item->major == 0 && item->number == meta.max_message);
    MUST(meta.has_type == (value_of(m, 5) != NULL) && meta.has_layout == (value_of(m, 10) != NULL));
    n = spk_meta_encode(again, sizeof again, &meta);
    MUST(n > 0 && spk_meta_decode(again, n, &same) == SPOKE_MUX_NONE);
    MUST(spk_meta_encode(twice, sizeof twice, &same) == n && memcmp(again, twice, n) == 0);
}

/* ---- where they meet ---- */

/* What the program says for a gateway is that for sessions, too. */
static void
check_both(const uint8_t *data, size_t size, const struct map *m)
{
    struct open_meta meta;
    struct spk_meta other;

    if (size == 0 || !m->texts_fine || open_meta_read(&meta, data, size) != SPOKE_MUX_NONE ||
        meta.role != OPEN_META_GATEWAY || meta.target == NULL)
        return;
    MUST(spk_meta_decode(data, size, &other) == SPOKE_MUX_NONE);
    MUST(other.role == SPK_ROLE_GATEWAY && other.name == meta.target &&
         other.name_size == meta.target_size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct map m;

    if (size > SPOKE_MUX_META_MAX)
        return 0;
    read_map(&m, data, size);
    check_program(data, size, &m);
    check_session(data, size, &m);
    check_both(data, size, &m);
    return 0;
}
