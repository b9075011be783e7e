/* SPDX-License-Identifier: MIT */
/* Tables of types: whether they can be, their descriptors, fingerprints and layouts.  A type holds
 * no text: its descriptor is made from the table whenever somebody wants it. */
#include <assert.h>
#include <sha2.h>
#include <stdio.h>

#include "protocols/channel/types.h"

#define CHECKED  0x79744b4fu
#define HOPS_MAX (2 * SPOKE_TYPE_DEPTH_MAX) /* from table to table: a level, or another name */

const struct spk_kind spk_kinds[] = {
    [SPOKE_KIND_BOOL] = {"b", sizeof(bool), 0, 0, 0, 0},
    [SPOKE_KIND_I8] = {"i8", 1, INT8_MIN, INT8_MAX, 0, 0},
    [SPOKE_KIND_I16] = {"i16", 2, INT16_MIN, INT16_MAX, 0, 0},
    [SPOKE_KIND_I32] = {"i32", 4, INT32_MIN, INT32_MAX, 0, 0},
    [SPOKE_KIND_I64] = {"i64", 8, INT64_MIN, INT64_MAX, 0, 0},
    [SPOKE_KIND_U8] = {"u8", 1, 0, UINT8_MAX, 0, 0},
    [SPOKE_KIND_U16] = {"u16", 2, 0, UINT16_MAX, 0, 0},
    [SPOKE_KIND_U32] = {"u32", 4, 0, UINT32_MAX, 0, 0},
    [SPOKE_KIND_U64] = {"u64", 8, 0, UINT64_MAX, 0, 0},
    [SPOKE_KIND_F32] = {"f32", sizeof(float), 0, 0, 0, 0},
    [SPOKE_KIND_F64] = {"f64", sizeof(double), 0, 0, 0, 0},
    [SPOKE_KIND_TEXT] = {"s", sizeof(spoke_text), 0, 0, 0, 0},
    [SPOKE_KIND_BYTES] = {"y", sizeof(spoke_bytes), 0, 0, 0, 0},
    [SPOKE_KIND_TIME] = {"t", sizeof(spoke_time), 0, 0, 0, 0},
    [SPOKE_KIND_ANY] = {"*", sizeof(spoke_bytes), 0, 0, 0, 0},
    [SPOKE_KIND_RECEIVER] = {"c>", 4, 0, 0, SPOKE_ATTACHED_CHANNEL, SPOKE_ATTACHED_READS},
    [SPOKE_KIND_SENDER] = {"c<", 4, 0, 0, SPOKE_ATTACHED_CHANNEL, SPOKE_ATTACHED_WRITES},
    [SPOKE_KIND_STREAM_READ] = {"r>", 4, 0, 0, SPOKE_ATTACHED_STREAM, SPOKE_ATTACHED_READS},
    [SPOKE_KIND_STREAM_WRITE] = {"r<", 4, 0, 0, SPOKE_ATTACHED_STREAM, SPOKE_ATTACHED_WRITES},
    [SPOKE_KIND_STREAM] = {"r=", 4, 0, 0, SPOKE_ATTACHED_STREAM, SPOKE_ATTACHED_BOTH},
    [SPOKE_KIND_FD] = {"h", 4, 0, 0, SPOKE_ATTACHED_FD, 0},
    [SPOKE_KIND_TYPE] = {"", 0, 0, 0, 0, 0},
};

/* ---- text, as far as there is room ---- */

struct text {
    char *data;
    size_t size, room;
    bool full;
};

static void
put(struct text *t, const char *word)
{
    size_t size = strlen(word);

    if (size > t->room - t->size) {
        t->full = true;
        return;
    }
    if (size > 0)
        memcpy(t->data + t->size, word, size);
    t->size += size;
}

static void
put_number(struct text *t, const char *before, size_t number, const char *behind)
{
    char word[40];

    snprintf(word, sizeof word, "%s%zu%s", before, number, behind);
    put(t, word);
}

/* ---- the descriptor, of a table that nobody has looked at yet ---- */

/* SPOKE_EINVAL: there is something that no descriptor could say; of what it could but must not,
 * spoke_descriptor_check() knows.  As each step but the hops writes something, a text that is full
 * ends also what refers to itself. */
static int describe_type(struct text *t, const spoke_value_type *type, unsigned hops);

static bool
shape_fits(const spoke_field *f, size_t item_size)
{
    size_t size;

    switch (f->shape) {
    case SPOKE_SHAPE_ONE: return f->size == item_size && f->count == 0;
    case SPOKE_SHAPE_OPTIONAL: return f->size == sizeof(void *) && f->count == 0;
    case SPOKE_SHAPE_LIST: return f->size == sizeof(struct spk_list) && f->count == 0;
    case SPOKE_SHAPE_ARRAY:
        return f->count > 0 && !__builtin_mul_overflow(f->count, item_size, &size) &&
               size == f->size;
    default: return false;
    }
}

static bool
field_fits(const spoke_value_type *type, const spoke_field *f)
{
    if ((int)f->kind < SPOKE_KIND_BOOL || f->kind > SPOKE_KIND_TYPE)
        return false;
    bool has_type = f->kind == SPOKE_KIND_TYPE || f->kind == SPOKE_KIND_RECEIVER ||
                    f->kind == SPOKE_KIND_SENDER;
    if ((f->of != NULL) != has_type || f->offset > type->size || f->size > type->size - f->offset)
        return false;
    return shape_fits(f, spk_item_size(f));
}

static int
describe_field(struct text *t, const spoke_value_type *type, const spoke_field *f, unsigned hops)
{
    int rc = 0;

    if (!field_fits(type, f) || (f->name != NULL && !spk_is_name(f->name)))
        return SPOKE_EINVAL;
    if (f->name != NULL) {
        put(t, f->name);
        put(t, ":");
    }
    if (f->shape != SPOKE_SHAPE_ONE)
        put(t, f->shape == SPOKE_SHAPE_OPTIONAL ? "?" : "[");
    put(t, spk_kinds[f->kind].text);
    if (f->of != NULL)
        rc = describe_type(t, f->of, hops + 1);
    if (f->shape == SPOKE_SHAPE_LIST)
        put(t, "]");
    else if (f->shape == SPOKE_SHAPE_ARRAY)
        put_number(t, "*", f->count, "]");
    return rc;
}

static int
describe_type(struct text *t, const spoke_value_type *type, unsigned hops)
{
    if (hops > HOPS_MAX || type->fields == NULL || type->count == 0)
        return SPOKE_EINVAL;
    bool plain = spk_is_plain(type);
    if (plain && type->count != 1)
        return SPOKE_EINVAL;
    for (size_t i = 0; i < type->count && !t->full; i++) {
        if (!plain && type->fields[i].name == NULL)
            return SPOKE_EINVAL;
        if (!plain)
            put(t, i == 0 ? "{" : ",");
        int rc = describe_field(t, type, &type->fields[i], hops);
        if (rc != 0)
            return rc;
    }
    if (!plain)
        put(t, "}");
    return t->full ? SPOKE_EINVAL : 0;
}

/* ---- what follows from it ---- */

/* In a map keys are sorted as they are encoded: short ones first. */
static int
compare_names(const char *a, const char *b)
{
    size_t a_size = strlen(a), b_size = strlen(b);

    return a_size != b_size ? (a_size < b_size ? -1 : 1) : memcmp(a, b, a_size);
}

/* fields[fields[i].order] is the i-th in order. */
static void
sort_fields(spoke_value_type *type)
{
    for (size_t i = 0; i < type->count; i++) {
        size_t place = i;
        for (; place > 0 && compare_names(type->fields[type->fields[place - 1].order].name,
                                          type->fields[i].name) > 0;
             place--)
            type->fields[place].order = type->fields[place - 1].order;
        type->fields[place].order = i;
    }
}

static void
sum_up(spoke_value_type *type)
{
    type->has_layout = true;
    type->needs_memory = type->has_attachments = false;
    for (size_t i = 0; i < type->count; i++) {
        const spoke_field *f = &type->fields[i];
        bool points = f->shape == SPOKE_SHAPE_LIST || f->shape == SPOKE_SHAPE_OPTIONAL;
        bool attached = spk_kinds[f->kind].attachment != 0;
        bool borrows = f->kind == SPOKE_KIND_TEXT || f->kind == SPOKE_KIND_BYTES ||
                       f->kind == SPOKE_KIND_ANY;
        const spoke_value_type *inner = f->kind == SPOKE_KIND_TYPE ? f->of : NULL;
        if (inner != NULL) {
            type->has_layout &= inner->has_layout;
            type->needs_memory |= inner->needs_memory;
            type->has_attachments |= inner->has_attachments;
        }
        type->needs_memory |= points;
        type->has_attachments |= attached;
        type->has_layout &= !points && !attached && !borrows;
    }
}

static void
hash_word(SHA2_CTX *hash, const char *before, size_t number)
{
    char word[40];
    int size = snprintf(word, sizeof word, "%s%zu", before, number);

    SHA256Update(hash, (const uint8_t *)word, (size_t)size);
}

/* Offset and size of each member, in the order of the descriptor, inner structs after their own
 * place. */
static void
hash_members(SHA2_CTX *hash, const spoke_value_type *type)
{
    for (size_t i = 0; i < type->count; i++) {
        const spoke_field *f = &type->fields[i];
        hash_word(hash, ",", f->offset);
        hash_word(hash, ":", f->size);
        if (f->kind == SPOKE_KIND_TYPE)
            hash_members(hash, f->of);
    }
}

static void
hash_layout(spoke_value_type *type, const struct text *descriptor)
{
    static const char prefix[] = "spoke-layout/1\n";
    const uint16_t one = 1;
    SHA2_CTX hash;

    SHA256Init(&hash);
    SHA256Update(&hash, (const uint8_t *)prefix, sizeof prefix - 1);
    SHA256Update(&hash, (const uint8_t *)descriptor->data, descriptor->size);
    hash_word(&hash, "\n", type->size);
    hash_members(&hash, type);
    SHA256Update(&hash, (const uint8_t *)(*(const uint8_t *)&one == 1 ? "\nle" : "\nbe"), 3);
    SHA256Final(type->layout, &hash);
}

/* Not inline: the text must not lie on the stack once for each level of finish(). */
static __attribute__((noinline)) void
hash_all(spoke_value_type *type)
{
    char data[SPOKE_DESCRIPTOR_MAX];
    struct text text = {.data = data, .room = sizeof data};
    int rc = describe_type(&text, type, 0);

    assert(rc == 0); /* it is part of one that is a type */
    (void)rc;
    spoke_descriptor_fingerprint(text.data, text.size, type->fingerprint);
    memset(type->layout, 0, sizeof type->layout);
    if (type->has_layout)
        hash_layout(type, &text);
}

/* Those that it refers to first.  The recursion ends, as the descriptor did. */
static void
finish(spoke_value_type *type)
{
    if (type->checked == CHECKED)
        return;
    for (size_t i = 0; i < type->count; i++)
        if (type->fields[i].of != NULL)
            finish(type->fields[i].of);
    if (!spk_is_plain(type))
        sort_fields(type);
    else
        type->fields[0].order = 0;
    sum_up(type);
    hash_all(type);
    type->checked = CHECKED;
}

bool
spk_type_is_checked(const spoke_value_type *t)
{
    return t != NULL && t->checked == CHECKED;
}

int
spoke_type_check(spoke_value_type *type)
{
    char data[SPOKE_DESCRIPTOR_MAX];
    struct text text = {.data = data, .room = sizeof data};
    int rc;

    if (type == NULL)
        return SPOKE_EINVAL;
    if (type->checked == CHECKED)
        return 0;
    if ((rc = describe_type(&text, type, 0)) != 0 ||
        (rc = spoke_descriptor_check(text.data, text.size)) != 0)
        return rc;
    finish(type);
    return 0;
}

int
spoke_type_descriptor(const spoke_value_type *type, char *text, size_t size)
{
    struct text all = {.data = text, .room = size};

    if (!spk_type_is_checked(type) || (text == NULL && size > 0))
        return SPOKE_EINVAL;
    int rc = describe_type(&all, type, 0);
    if (rc != 0 || all.size == size) {
        if (size > 0)
            text[0] = '\0';
        return SPOKE_ERANGE;
    }
    text[all.size] = '\0';
    return 0;
}

/* ---- attachments ---- */

static bool
is_of_kind(const spoke_attachment *a, const struct spk_kind *kind)
{
    if (kind->attachment == SPOKE_ATTACHED_CHANNEL)
        return a->kind == SPOKE_ATTACHED_CHANNEL && a->direction == kind->direction;
    if (kind->attachment == SPOKE_ATTACHED_FD)
        return a->kind == SPOKE_ATTACHED_FD || a->kind == SPOKE_ATTACHED_FD_PROXY;
    return (a->kind == SPOKE_ATTACHED_STREAM || a->kind == SPOKE_ATTACHED_FD_PROXY) &&
           a->direction == kind->direction;
}

bool
spk_naming_add(struct spk_naming *n, enum spoke_kind kind, uint64_t index)
{
    if (index >= n->count || !is_of_kind(&n->attachments[index], &spk_kinds[kind]))
        return false;
    uint64_t *seen = &n->seen[index / 64], bit = (uint64_t)1 << index % 64;
    if ((*seen & bit) != 0)
        return false;
    *seen |= bit;
    n->named++;
    return true;
}
