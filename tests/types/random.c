/* SPDX-License-Identifier: MIT */
/* Values are made and compared by walks of the tables of their own: nothing of the library's is
 * used for it. */
#include "tests/types/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/test.h"

#define FIELDS_MAX 5
#define ITEMS_MAX  4
#define ALIGNMENT  ((size_t)16)

void
random_open(struct random *r, uint64_t seed)
{
    *r = (struct random){.state = seed * 0x9e3779b97f4a7c15 + 1};
}

void
random_close(struct random *r)
{
    for (size_t i = 0; i < r->count; i++)
        free(r->memory[i]);
    free(r->memory);
}

static uint64_t
next(struct random *r)
{
    r->state ^= r->state << 13;
    r->state ^= r->state >> 7;
    r->state ^= r->state << 17;
    return r->state * 0x2545f4914f6cdd1d;
}

uint64_t
random_below(struct random *r, uint64_t limit)
{
    return (next(r) >> 16) % limit;
}

void *
random_memory(struct random *r, size_t size)
{
    if (r->count == r->room) {
        r->room = r->room * 2 + 64;
        r->memory = realloc(r->memory, r->room * sizeof *r->memory);
        cr_assert_not_null(r->memory);
    }
    void *memory = calloc(1, size > 0 ? size : 1);
    cr_assert_not_null(memory);
    r->memory[r->count++] = memory;
    return memory;
}

/* ---- types ---- */

static const size_t sizes[] = {
    [SPOKE_KIND_BOOL] = sizeof(bool),
    [SPOKE_KIND_I8] = 1,
    [SPOKE_KIND_I16] = 2,
    [SPOKE_KIND_I32] = 4,
    [SPOKE_KIND_I64] = 8,
    [SPOKE_KIND_U8] = 1,
    [SPOKE_KIND_U16] = 2,
    [SPOKE_KIND_U32] = 4,
    [SPOKE_KIND_U64] = 8,
    [SPOKE_KIND_F32] = 4,
    [SPOKE_KIND_F64] = 8,
    [SPOKE_KIND_TEXT] = sizeof(spoke_text),
    [SPOKE_KIND_BYTES] = sizeof(spoke_bytes),
    [SPOKE_KIND_TIME] = sizeof(spoke_time),
    [SPOKE_KIND_ANY] = sizeof(spoke_bytes),
    [SPOKE_KIND_RECEIVER] = 4,
    [SPOKE_KIND_SENDER] = 4,
    [SPOKE_KIND_STREAM_READ] = 4,
    [SPOKE_KIND_STREAM_WRITE] = 4,
    [SPOKE_KIND_STREAM] = 4,
    [SPOKE_KIND_FD] = 4,
    [SPOKE_KIND_TYPE] = 0,
};

static size_t
item_size(const spoke_field *f)
{
    return f->kind == SPOKE_KIND_TYPE ? f->of->size : sizes[f->kind];
}

static size_t
member_size(const spoke_field *f)
{
    return f->shape == SPOKE_SHAPE_OPTIONAL ? sizeof(void *)
           : f->shape == SPOKE_SHAPE_LIST   ? sizeof(spoke_bytes)
           : f->shape == SPOKE_SHAPE_ARRAY  ? f->count * item_size(f)
                                            : item_size(f);
}

/* Where members are, with room between them. */
static void
lay_out(struct random *r, spoke_value_type *type)
{
    type->size = 0;
    for (size_t i = 0; i < type->count; i++) {
        spoke_field *f = &type->fields[i];
        f->size = member_size(f);
        f->offset = type->size + random_below(r, 2) * ALIGNMENT;
        type->size = (f->offset + f->size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
}

/* ?*, ??T and the like are no types: what is optional has a plain kind or is a struct. */
static bool
can_be_optional(const spoke_field *f)
{
    return f->kind != SPOKE_KIND_ANY &&
           (f->kind != SPOKE_KIND_TYPE || f->of->fields[0].name != NULL);
}

static void
random_field(struct random *r, spoke_field *f, unsigned depth)
{
    f->kind = (enum spoke_kind)(1 + random_below(r, depth == 0 ? SPOKE_KIND_ANY : SPOKE_KIND_TYPE));
    if (f->kind == SPOKE_KIND_TYPE || f->kind == SPOKE_KIND_SENDER ||
        f->kind == SPOKE_KIND_RECEIVER)
        f->of = random_type(r, depth - 1);
    f->shape = (enum spoke_shape)random_below(r, 4);
    if (f->shape == SPOKE_SHAPE_OPTIONAL && !can_be_optional(f))
        f->shape = SPOKE_SHAPE_ONE;
    if (f->shape == SPOKE_SHAPE_ARRAY)
        f->count = 1 + random_below(r, ITEMS_MAX);
}

/* Names of several lengths, each another one. */
static const char *
random_name(struct random *r, size_t number)
{
    char *name = random_memory(r, SPOKE_NAME_MAX + 1);
    size_t size = 1 + random_below(r, random_below(r, 8) == 0 ? 30 : 3);

    for (size_t i = 0; i < size; i++)
        name[i] = "abXY_"[random_below(r, 5)];
    snprintf(name + size, 8, "%zu", number);
    return name;
}

static spoke_value_type *
new_type(struct random *r, size_t fields)
{
    spoke_value_type *type = random_memory(r, sizeof *type);

    type->fields = random_memory(r, fields * sizeof *type->fields);
    type->count = fields;
    return type;
}

spoke_value_type *
random_type(struct random *r, unsigned depth)
{
    bool plain = random_below(r, 4) == 0;
    spoke_value_type *type = new_type(r, plain ? 1 : 1 + random_below(r, FIELDS_MAX));

    for (size_t i = 0; i < type->count; i++) {
        random_field(r, &type->fields[i], depth);
        if (!plain)
            type->fields[i].name = random_name(r, i);
    }
    lay_out(r, type);
    return type;
}

static void
change_field(struct random *r, spoke_field *f)
{
    bool narrow_integer = (f->kind >= SPOKE_KIND_I8 && f->kind < SPOKE_KIND_I64) ||
                          (f->kind >= SPOKE_KIND_U8 && f->kind < SPOKE_KIND_U64) ||
                          f->kind == SPOKE_KIND_F32;

    if (narrow_integer && random_below(r, 3) == 0)
        f->kind++;
    else if (f->kind >= SPOKE_KIND_U8 && f->kind < SPOKE_KIND_U64 && random_below(r, 3) == 0)
        f->kind -= SPOKE_KIND_U8 - SPOKE_KIND_I16; /* u8 to i16 … */
    else if (f->kind == SPOKE_KIND_TYPE && random_below(r, 2) == 0)
        f->of = random_change(r, f->of);
    if (f->shape == SPOKE_SHAPE_ONE && can_be_optional(f) && random_below(r, 5) == 0)
        f->shape = SPOKE_SHAPE_OPTIONAL;
    if (f->shape == SPOKE_SHAPE_ARRAY && random_below(r, 3) == 0) {
        f->shape = SPOKE_SHAPE_LIST;
        f->count = 0;
    }
}

spoke_value_type *
random_change(struct random *r, const spoke_value_type *type)
{
    bool plain = type->fields[0].name == NULL;
    spoke_value_type *other = new_type(r, type->count + 1);

    other->count = 0;
    for (size_t i = 0; i < type->count; i++)
        if (plain || random_below(r, 5) > 0)
            other->fields[other->count++] = type->fields[i];
    if (!plain && (other->count == 0 || random_below(r, 3) == 0)) {
        spoke_field *f = &other->fields[other->count++];
        random_field(r, f, 1);
        f->name = random_name(r, 90);
        if (can_be_optional(f) && f->shape == SPOKE_SHAPE_ONE)
            f->shape = SPOKE_SHAPE_OPTIONAL;
    }
    for (size_t i = 0; i < other->count; i++) {
        size_t k = i + random_below(r, other->count - i);
        spoke_field f = other->fields[i];
        other->fields[i] = other->fields[k];
        other->fields[k] = f;
        change_field(r, &other->fields[i]);
    }
    lay_out(r, other);
    return other;
}

/* ---- values ---- */

static void fill(struct random *r, const spoke_value_type *type, uint8_t *out);

static uint64_t
random_number(struct random *r)
{
    uint64_t number = next(r) >> random_below(r, 64);

    return random_below(r, 2) == 0 ? number : ~number;
}

static void
fill_float(struct random *r, enum spoke_kind kind, uint8_t *out)
{
    uint64_t bits = next(r);
    double real;
    float single;

    memcpy(&real, &bits, sizeof real);
    if (random_below(r, 2) == 0)
        real = (double)(int64_t)random_number(r) / 1024;
    single = (float)real;
    if (kind == SPOKE_KIND_F32)
        memcpy(out, &single, sizeof single);
    else
        memcpy(out, &real, sizeof real);
}

static void
fill_text(struct random *r, uint8_t *out)
{
    static const char *const characters[] = {"a",
                                             "\x7f",
                                             "\xc2\x80",
                                             "\xe0\xa0\x80",
                                             "\xef\xbf\xbf",
                                             "\xf0\x90\x80\x80",
                                             "\xf4\x8f\xbf\xbf",
                                             "\xed\x9f\xbf"};
    size_t count = random_below(r, random_below(r, 10) == 0 ? 300 : 8);
    char *data = random_memory(r, 4 * count + 1);
    spoke_text text = {data, 0};

    for (size_t i = 0; i < count; i++)
        text.size += (size_t)sprintf(data + text.size, "%s", characters[random_below(r, 8)]);
    memcpy(out, &text, sizeof text);
}

static void
fill_bytes(struct random *r, uint8_t *out)
{
    size_t size = random_below(r, random_below(r, 10) == 0 ? 70000 : 8);
    uint8_t *data = random_memory(r, size);
    spoke_bytes bytes = {data, size};

    for (size_t i = 0; i < size && i < 100; i++)
        data[i] = (uint8_t)next(r);
    memcpy(out, &bytes, sizeof bytes);
}

static void
fill_any(struct random *r, uint8_t *out)
{
    static const spoke_bytes items[] = {{"\x00", 1},
                                        {"\xf6", 1},
                                        {"\x82\x01\x61z", 4},
                                        {"\xa2\x01\xf5\x20\x40", 5},
                                        {"\xc1\x1a\x51\x4b\x67\xb0", 6}};

    memcpy(out, &items[random_below(r, 5)], sizeof(spoke_bytes));
}

static void
fill_attachment(struct random *r, enum spoke_kind kind, uint8_t *out)
{
    static const spoke_attachment right[] = {
        [SPOKE_KIND_RECEIVER] = {SPOKE_ATTACHED_CHANNEL, SPOKE_ATTACHED_READS},
        [SPOKE_KIND_SENDER] = {SPOKE_ATTACHED_CHANNEL, SPOKE_ATTACHED_WRITES},
        [SPOKE_KIND_STREAM_READ] = {SPOKE_ATTACHED_STREAM, SPOKE_ATTACHED_READS},
        [SPOKE_KIND_STREAM_WRITE] = {SPOKE_ATTACHED_STREAM, SPOKE_ATTACHED_WRITES},
        [SPOKE_KIND_STREAM] = {SPOKE_ATTACHED_STREAM, SPOKE_ATTACHED_BOTH},
        [SPOKE_KIND_FD] = {SPOKE_ATTACHED_FD, SPOKE_ATTACHED_BOTH}};
    uint32_t index = (uint32_t)r->attachment_count++;

    if (index < SPOKE_ATTACHMENTS_MAX)
        r->attachments[index] = right[kind];
    memcpy(out, &index, sizeof index);
}

static void
fill_item(struct random *r, const spoke_field *f, uint8_t *out)
{
    spoke_time time = {(int64_t)random_number(r), (uint32_t)random_below(r, 1000000000)};
    uint64_t number = random_number(r);

    switch (f->kind) {
    case SPOKE_KIND_BOOL: *out = (uint8_t)(number % 2); break;
    case SPOKE_KIND_F32:
    case SPOKE_KIND_F64: fill_float(r, f->kind, out); break;
    case SPOKE_KIND_TEXT: fill_text(r, out); break;
    case SPOKE_KIND_BYTES: fill_bytes(r, out); break;
    case SPOKE_KIND_TIME: memcpy(out, &time, sizeof time); break;
    case SPOKE_KIND_ANY: fill_any(r, out); break;
    case SPOKE_KIND_TYPE: fill(r, f->of, out); break;
    default:
        if (f->kind > SPOKE_KIND_ANY)
            fill_attachment(r, f->kind, out);
        else
            memcpy(out, &number, sizes[f->kind]); /* little-endian: some of its bytes */
    }
}

static void
fill(struct random *r, const spoke_value_type *type, uint8_t *out)
{
    for (size_t i = 0; i < type->count; i++) {
        const spoke_field *f = &type->fields[i];
        uint8_t *member = out + f->offset;
        bool list = f->shape == SPOKE_SHAPE_LIST, optional = f->shape == SPOKE_SHAPE_OPTIONAL;
        size_t count = list                            ? random_below(r, ITEMS_MAX)
                       : optional                      ? random_below(r, 2)
                       : f->shape == SPOKE_SHAPE_ARRAY ? f->count
                                                       : 1;
        uint8_t *items = list || optional ? random_memory(r, count * item_size(f)) : member;

        for (size_t k = 0; k < count; k++)
            fill_item(r, f, items + k * item_size(f));
        if (list)
            memcpy(member, &(spoke_bytes){items, count}, sizeof(spoke_bytes));
        else if (optional && count > 0)
            memcpy(member, &items, sizeof items);
    }
}

void *
random_value(struct random *r, const spoke_value_type *type)
{
    void *value = random_memory(r, type->size);

    r->attachment_count = 0;
    fill(r, type, value);
    return value;
}

/* ---- comparing ---- */

static bool
is_number(enum spoke_kind kind)
{
    return kind >= SPOKE_KIND_I8 && kind <= SPOKE_KIND_U64;
}

static int64_t
number_of(enum spoke_kind kind, const uint8_t *value)
{
    uint64_t number = 0;
    size_t size = sizes[kind];

    cr_assert(size > 0 && size <= sizeof number);
    memcpy(&number, value, size); /* little-endian */
    unsigned unused = 64 - 8 * (unsigned)size;
    number <<= unused;
    return kind <= SPOKE_KIND_I64 ? (int64_t)number >> unused : (int64_t)(number >> unused);
}

static double
real_of(enum spoke_kind kind, const uint8_t *value)
{
    double real;
    float single;

    memcpy(&single, value, sizeof single);
    if (kind == SPOKE_KIND_F32)
        return (double)single;
    memcpy(&real, value, sizeof real);
    return real;
}

static bool
same_bytes(const uint8_t *a, const uint8_t *b)
{
    spoke_bytes x, y;

    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x.size == y.size && (x.size == 0 || memcmp(x.data, y.data, x.size) == 0);
}

static bool
same_item(const spoke_field *from, const uint8_t *a, const spoke_field *to, const uint8_t *b)
{
    if (to->kind == SPOKE_KIND_ANY && from->kind != SPOKE_KIND_ANY)
        return true; /* only well-formed */
    if (from->kind == SPOKE_KIND_TYPE)
        return random_same(from->of, a, to->of, b);
    if (is_number(from->kind))
        return number_of(from->kind, a) == number_of(to->kind, b);
    if (from->kind == SPOKE_KIND_F32 || from->kind == SPOKE_KIND_F64) {
        double x = real_of(from->kind, a), y = real_of(to->kind, b);
        return x == y || (x != x && y != y);
    }
    if (from->kind == SPOKE_KIND_TEXT || from->kind == SPOKE_KIND_BYTES ||
        from->kind == SPOKE_KIND_ANY)
        return same_bytes(a, b);
    if (from->kind == SPOKE_KIND_TIME)
        return memcmp(a, b, 12) == 0;
    return memcmp(a, b, sizes[from->kind]) == 0;
}

/* The items of a member, however many. */
static size_t
items_of(const spoke_field *f, const uint8_t *member, const uint8_t **items)
{
    spoke_bytes list;

    *items = member;
    if (f->shape == SPOKE_SHAPE_LIST) {
        memcpy(&list, member, sizeof list);
        *items = list.data;
        return list.size;
    }
    if (f->shape == SPOKE_SHAPE_OPTIONAL) {
        memcpy(items, member, sizeof *items);
        return *items == NULL ? 0 : 1;
    }
    return f->shape == SPOKE_SHAPE_ARRAY ? f->count : 1;
}

static bool
same_field(const spoke_field *from, const uint8_t *a, const spoke_field *to, const uint8_t *b)
{
    const uint8_t *x, *y;
    size_t count = items_of(from, a + from->offset, &x);

    if (to->kind == SPOKE_KIND_ANY && to->shape == SPOKE_SHAPE_ONE)
        return from->kind != SPOKE_KIND_ANY || from->shape != SPOKE_SHAPE_ONE ||
               same_bytes(x, b + to->offset);
    if (count != items_of(to, b + to->offset, &y))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!same_item(from, x + i * item_size(from), to, y + i * item_size(to)))
            return false;
    return true;
}

/* An optional, also by another name, that is not there. */
static bool
is_absent(const spoke_field *f, const uint8_t *value)
{
    const uint8_t *item;

    if (f->shape == SPOKE_SHAPE_ONE && f->kind == SPOKE_KIND_TYPE && f->of->fields[0].name == NULL)
        return is_absent(&f->of->fields[0], value + f->offset);
    return f->shape == SPOKE_SHAPE_OPTIONAL && items_of(f, value + f->offset, &item) == 0;
}

bool
random_same(const spoke_value_type *from, const void *a, const spoke_value_type *to, const void *b)
{
    if (from->fields[0].name == NULL)
        return same_field(&from->fields[0], a, &to->fields[0], b);
    for (size_t i = 0; i < to->count; i++) {
        const spoke_field *f = &to->fields[i], *there = NULL;
        for (size_t k = 0; k < from->count; k++)
            if (strcmp(from->fields[k].name, f->name) == 0)
                there = &from->fields[k];
        if (there != NULL ? !same_field(there, a, f, b) : !is_absent(f, b))
            return false;
    }
    return true;
}
