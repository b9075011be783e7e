/* SPDX-License-Identifier: MIT */
/* Messages as values.  The table is walked twice if the value has lists or optionals: to check
 * everything and count how much memory they need, then, with that memory, to fill them.  Otherwise
 * once. Recursion is as deep as types nest; what is not in the table is skipped without any. */
#include "protocols/channel/cbor.h"
#include "protocols/channel/types.h"

#define ALIGNMENT_MAX ((size_t)16)

struct decoder {
    struct spk_cbor_reader in;
    struct spk_naming naming;
    bool maps;       /* for structs: SPOKE_FORM_EVOLVING */
    unsigned depth;  /* of arrays and maps around what is read now */
    uint8_t *memory; /* for lists and optionals; NULL: only count */
    size_t used, most;
};

/* All of these check only, and store nothing, where `out` is NULL. */
static int get_type(struct decoder *d, const spoke_value_type *type, uint8_t *out);

static void
store(uint8_t *out, const void *value, size_t size)
{
    if (out != NULL)
        memcpy(out, value, size);
}

static int
get_kind(struct decoder *d, enum spk_cbor_kind kind, struct spk_cbor_item *item)
{
    int rc = spk_cbor_next(&d->in, item);

    return rc != 0 ? rc : item->kind == kind ? 0 : SPOKE_EDECODE;
}

/* ---- one item ---- */

static void
store_integer(uint8_t *out, size_t size, uint64_t number)
{
    uint8_t u8 = (uint8_t)number;
    uint16_t u16 = (uint16_t)number;
    uint32_t u32 = (uint32_t)number;

    if (size == 8)
        store(out, &number, size);
    else if (size == 4)
        store(out, &u32, size);
    else if (size == 2)
        store(out, &u16, size);
    else
        store(out, &u8, size);
}

static int
get_integer(struct decoder *d, enum spoke_kind kind, uint8_t *out)
{
    const struct spk_kind *k = &spk_kinds[kind];
    struct spk_cbor_item item;
    int rc = spk_cbor_next(&d->in, &item);

    if (rc != 0)
        return rc;
    /* -1 - number >= least, that is number <= -1 - least = ~least */
    bool fits = item.kind == SPK_CBOR_UINT     ? item.number <= k->most
                : item.kind == SPK_CBOR_NEGINT ? k->least < 0 && item.number <= ~(uint64_t)k->least
                                               : false;
    if (!fits)
        return SPOKE_EDECODE;
    store_integer(out, k->size, item.kind == SPK_CBOR_UINT ? item.number : ~item.number);
    return 0;
}

static int
get_bool(struct decoder *d, uint8_t *out)
{
    struct spk_cbor_item item;
    int rc = get_kind(d, SPK_CBOR_BOOL, &item);

    if (rc != 0)
        return rc;
    bool value = item.number != 0;
    store(out, &value, sizeof value);
    return 0;
}

static int
get_float(struct decoder *d, enum spoke_kind kind, uint8_t *out)
{
    struct spk_cbor_item item;
    int rc = get_kind(d, SPK_CBOR_FLOAT, &item);

    if (rc != 0)
        return rc;
    float single = (float)item.real;
    if (kind == SPOKE_KIND_F64) {
        store(out, &item.real, sizeof item.real);
        return 0;
    }
    if (item.real == item.real && (double)single != item.real)
        return SPOKE_EDECODE;
    store(out, &single, sizeof single);
    return 0;
}

static int
get_text(struct decoder *d, uint8_t *out)
{
    struct spk_cbor_item item;
    int rc = get_kind(d, SPK_CBOR_TEXT, &item);

    if (rc != 0)
        return rc;
    if (item.number > 0 && memchr(item.data, '\0', item.number) != NULL)
        return SPOKE_EDECODE;
    spoke_text text = {.data = (const char *)item.data, .size = item.number};
    store(out, &text, sizeof text);
    return 0;
}

static int
get_bytes(struct decoder *d, uint8_t *out)
{
    struct spk_cbor_item item;
    int rc = get_kind(d, SPK_CBOR_BYTES, &item);

    if (rc != 0)
        return rc;
    spoke_bytes bytes = {.data = item.data, .size = item.number};
    store(out, &bytes, sizeof bytes);
    return 0;
}

static int
get_any(struct decoder *d, uint8_t *out)
{
    spoke_bytes item = {.data = d->in.at, .size = 0};
    int rc = spk_cbor_skip(&d->in, SPK_CBOR_DEPTH - d->depth);

    if (rc != 0)
        return rc;
    item.size = (size_t)(d->in.at - (const uint8_t *)item.data);
    store(out, &item, sizeof item);
    return 0;
}

static int
get_time(struct decoder *d, uint8_t *out)
{
    struct spk_cbor_item item;
    uint8_t ns[sizeof(uint32_t)];
    uint32_t number;
    int rc;

    if ((rc = get_kind(d, SPK_CBOR_ARRAY, &item)) != 0)
        return rc;
    if (item.number != 2)
        return SPOKE_EDECODE;
    if ((rc = get_integer(d, SPOKE_KIND_I64, out == NULL ? NULL : out + offsetof(spoke_time, s))) !=
            0 ||
        (rc = get_integer(d, SPOKE_KIND_U32, ns)) != 0)
        return rc;
    memcpy(&number, ns, sizeof number);
    if (number >= SPK_SECOND)
        return SPOKE_EDECODE;
    if (out != NULL)
        store(out + offsetof(spoke_time, ns), &number, sizeof number);
    return 0;
}

static int
get_attachment(struct decoder *d, enum spoke_kind kind, uint8_t *out)
{
    struct spk_cbor_item item;
    int rc = get_kind(d, SPK_CBOR_UINT, &item);

    if (rc != 0)
        return rc;
    if (!spk_naming_add(&d->naming, kind, item.number))
        return SPOKE_EDECODE;
    store_integer(out, sizeof(uint32_t), item.number);
    return 0;
}

static int
get_item(struct decoder *d, const spoke_field *f, uint8_t *out)
{
    if (spk_kinds[f->kind].most != 0)
        return get_integer(d, f->kind, out);
    switch (f->kind) {
    case SPOKE_KIND_BOOL: return get_bool(d, out);
    case SPOKE_KIND_F32:
    case SPOKE_KIND_F64: return get_float(d, f->kind, out);
    case SPOKE_KIND_TEXT: return get_text(d, out);
    case SPOKE_KIND_BYTES: return get_bytes(d, out);
    case SPOKE_KIND_TIME: return get_time(d, out);
    case SPOKE_KIND_ANY: return get_any(d, out);
    case SPOKE_KIND_TYPE: return get_type(d, f->of, out);
    default: return get_attachment(d, f->kind, out);
    }
}

/* ---- what items are in ---- */

/* Room for `count` items of `size` bytes, zeroed; *out is NULL while only counting. */
static int
reserve(struct decoder *d, size_t size, size_t count, uint8_t **out)
{
    size_t alignment = size & (~size + 1), bytes, end; /* of a C type of this size, or more */

    *out = NULL;
    if (alignment > ALIGNMENT_MAX)
        alignment = ALIGNMENT_MAX;
    size_t start = (d->used + alignment - 1) & ~(alignment - 1);
    if (__builtin_mul_overflow(size, count, &bytes) || __builtin_add_overflow(start, bytes, &end) ||
        end > d->most)
        return SPOKE_ELIMIT;
    d->used = end;
    if (d->memory != NULL)
        *out = d->memory + start;
    return 0;
}

static int
get_items(struct decoder *d, const spoke_field *f, uint8_t *out, size_t count)
{
    size_t size = spk_item_size(f);
    int rc = 0;

    d->depth++;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = get_item(d, f, out == NULL ? NULL : out + i * size);
    d->depth--;
    return rc;
}

static int
get_array(struct decoder *d, const spoke_field *f, uint8_t *out)
{
    struct spk_cbor_item item;
    int rc = get_kind(d, SPK_CBOR_ARRAY, &item);

    if (rc != 0)
        return rc;
    return item.number == f->count ? get_items(d, f, out, f->count) : SPOKE_EDECODE;
}

/* That there are at least so many bytes as the list has items is known from the item. */
static int
get_list(struct decoder *d, const spoke_field *f, uint8_t *out)
{
    struct spk_cbor_item item;
    uint8_t *items;
    int rc;

    if ((rc = get_kind(d, SPK_CBOR_ARRAY, &item)) != 0 ||
        (rc = reserve(d, spk_item_size(f), item.number, &items)) != 0)
        return rc;
    struct spk_list list = {.items = item.number == 0 ? NULL : items, .count = item.number};
    store(out, &list, sizeof list);
    return get_items(d, f, items, item.number);
}

static int
get_optional(struct decoder *d, const spoke_field *f, uint8_t *out)
{
    struct spk_cbor_reader ahead = d->in;
    struct spk_cbor_item item;
    uint8_t *there;
    int rc = spk_cbor_next(&ahead, &item);

    if (rc != 0)
        return rc;
    if (item.kind == SPK_CBOR_NULL) {
        d->in = ahead;
        return 0;
    }
    if ((rc = reserve(d, spk_item_size(f), 1, &there)) != 0)
        return rc;
    store(out, &there, sizeof there);
    return get_item(d, f, there);
}

static int
get_field(struct decoder *d, const spoke_field *f, uint8_t *out)
{
    if (out != NULL)
        out += f->offset;
    switch (f->shape) {
    case SPOKE_SHAPE_OPTIONAL: return get_optional(d, f, out);
    case SPOKE_SHAPE_LIST: return get_list(d, f, out);
    case SPOKE_SHAPE_ARRAY: return get_array(d, f, out);
    default: return get_item(d, f, out);
    }
}

static int
get_struct(struct decoder *d, const spoke_value_type *type, uint8_t *out)
{
    struct spk_cbor_item item;
    int rc = get_kind(d, SPK_CBOR_ARRAY, &item);

    if (rc == 0 && item.number != type->count)
        rc = SPOKE_EDECODE;
    d->depth++;
    for (size_t i = 0; i < type->count && rc == 0; i++)
        rc = get_field(d, &type->fields[i], out);
    d->depth--;
    return rc;
}

/* ---- structs as maps ---- */

/* As keys are sorted. */
static int
compare_keys(spoke_text a, spoke_text b)
{
    if (a.size != b.size)
        return a.size < b.size ? -1 : 1;
    return a.size == 0 ? 0 : memcmp(a.data, b.data, a.size);
}

static int
get_key(struct decoder *d, spoke_text *key, bool first)
{
    struct spk_cbor_item item;
    spoke_text before = *key;
    int rc = get_kind(d, SPK_CBOR_TEXT, &item);

    if (rc != 0)
        return rc;
    *key = (spoke_text){.data = (const char *)item.data, .size = item.number};
    return first || compare_keys(before, *key) < 0 ? 0 : SPOKE_EDECODE;
}

/* By itself, or as another name of what is. */
static bool
is_optional(const spoke_field *f)
{
    while (f->shape == SPOKE_SHAPE_ONE && f->kind == SPOKE_KIND_TYPE && spk_is_plain(f->of))
        f = &f->of->fields[0];
    return f->shape == SPOKE_SHAPE_OPTIONAL;
}

/* The fields from *place on, in the order of keys, that come before `key`, or all (NULL), are not
 * in the map: that is right for those that are optional. */
static bool
pass_missing(const spoke_value_type *type, size_t *place, const spoke_text *key)
{
    for (; *place < type->count; (*place)++) {
        const spoke_field *f = &type->fields[type->fields[*place].order];
        if (key != NULL && compare_keys(spoke_text_of(f->name), *key) >= 0)
            return true;
        if (!is_optional(f))
            return false;
    }
    return true;
}

static int
get_value(struct decoder *d, const spoke_value_type *type, size_t *place, spoke_text key,
          uint8_t *out)
{
    if (!pass_missing(type, place, &key))
        return SPOKE_EDECODE;
    if (*place < type->count) {
        const spoke_field *f = &type->fields[type->fields[*place].order];
        if (compare_keys(spoke_text_of(f->name), key) == 0) {
            (*place)++;
            return get_field(d, f, out);
        }
    }
    return spk_cbor_skip(&d->in, SPK_CBOR_DEPTH - d->depth);
}

static int
get_map(struct decoder *d, const spoke_value_type *type, uint8_t *out)
{
    struct spk_cbor_item item;
    spoke_text key = {NULL, 0};
    size_t place = 0;
    int rc = get_kind(d, SPK_CBOR_MAP, &item);

    if (rc != 0)
        return rc;
    d->depth++;
    for (uint64_t i = 0; i < item.number && rc == 0; i++) {
        if ((rc = get_key(d, &key, i == 0)) == 0)
            rc = get_value(d, type, &place, key, out);
    }
    d->depth--;
    if (rc == 0 && !pass_missing(type, &place, NULL))
        rc = SPOKE_EDECODE;
    return rc;
}

static int
get_type(struct decoder *d, const spoke_value_type *type, uint8_t *out)
{
    if (spk_is_plain(type))
        return get_field(d, &type->fields[0], out);
    return d->maps ? get_map(d, type, out) : get_struct(d, type, out);
}

/* ---- the whole ---- */

static int
check_end(const struct decoder *d)
{
    if (d->in.at != d->in.end)
        return SPOKE_EDECODE;
    /* What a newer sender has attached may be named where we do not look. */
    return d->maps || d->naming.named == d->naming.count ? 0 : SPOKE_EDECODE;
}

/* Check, count, and allocate what is needed. */
static int
get_memory(const struct decoder *d, const spoke_value_type *type, struct decoder *filling,
           spoke_msg **memory)
{
    struct decoder counting = *d;
    int rc;

    if ((rc = get_type(&counting, type, NULL)) != 0 || (rc = check_end(&counting)) != 0 ||
        counting.used == 0)
        return rc;
    if ((rc = spoke_msg_new(memory, counting.used + ALIGNMENT_MAX)) != 0)
        return rc;
    uint8_t *body = spoke_msg_body(*memory);
    filling->memory = body + (ALIGNMENT_MAX - (uintptr_t)body % ALIGNMENT_MAX);
    memset(filling->memory, 0, counting.used);
    filling->most = counting.used; /* whatever the bytes say then, should somebody change them */
    return 0;
}

static int
decode_items(const spoke_value_type *type, struct decoder *d, uint8_t *out, spoke_msg **memory)
{
    int rc = 0;

    if (type->needs_memory && (rc = get_memory(d, type, d, memory)) != 0)
        return rc;
    if (get_type(d, type, out) == 0 && check_end(d) == 0)
        return 0;
    spoke_msg_free(*memory);
    *memory = NULL;
    return SPOKE_EDECODE; /* also when it wants more memory than it was seen to need */
}

static int
decode_layout(const spoke_value_type *type, const struct decoder *d, void *out)
{
    if (!type->has_layout)
        return SPOKE_ENOTSUP;
    if ((size_t)(d->in.end - d->in.at) != type->size || d->naming.count > 0)
        return SPOKE_EDECODE;
    return spk_layout_copy(type, out, d->in.at) == 0 ? 0 : SPOKE_EDECODE;
}

int
spoke_value_decode(const spoke_value_type *type, enum spoke_form form, spoke_msg *m,
                   const spoke_attachment *attachments, size_t attachment_count, void *value,
                   spoke_backing *backing)
{
    int rc;

    *backing = (spoke_backing){NULL, NULL};
    if (!spk_type_is_checked(type) || value == NULL || attachment_count > SPOKE_ATTACHMENTS_MAX ||
        (attachments == NULL && attachment_count > 0) || (int)form < SPOKE_FORM_EXACT ||
        form > SPOKE_FORM_LAYOUT)
        return SPOKE_EINVAL;
    const uint8_t *body = spoke_msg_body(m);
    struct decoder d = {
        .in = {.at = body, .end = body + spoke_msg_size(m)},
        .naming = {.attachments = attachments, .count = attachment_count},
        .maps = form == SPOKE_FORM_EVOLVING,
        .most = type->memory_max > 0 ? type->memory_max : SPOKE_MSG_MAX - ALIGNMENT_MAX,
    };
    memset(value, 0, type->size);
    if (form == SPOKE_FORM_LAYOUT)
        rc = decode_layout(type, &d, value);
    else
        rc = decode_items(type, &d, value, &backing->memory);
    if (rc == 0)
        backing->message = m;
    else
        memset(value, 0, type->size);
    return rc;
}

void
spoke_backing_free(spoke_backing *backing)
{
    spoke_msg_free(backing->message);
    spoke_msg_free(backing->memory);
    *backing = (spoke_backing){NULL, NULL};
}
