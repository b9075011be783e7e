/* SPDX-License-Identifier: MIT */
/* Values into messages.  The table is walked twice: to check the value and count its bytes, then
 * to write them.  Recursion is as deep as types nest. */
#include "protocols/channel/cbor.h"
#include "protocols/channel/types.h"

struct encoder {
    struct spk_cbor_writer out;
    struct spk_naming naming;
    bool maps;      /* for structs: SPOKE_FORM_EVOLVING */
    unsigned depth; /* of arrays and maps around what is written now */
};

static int put_type(struct encoder *e, const spoke_value_type *type, const uint8_t *value);

/* ---- one item ---- */

static bool
load_integer(enum spoke_kind kind, const uint8_t *value, uint64_t *out)
{
    size_t size = spk_kinds[kind].size;
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;

    if (size == 8) {
        memcpy(out, value, sizeof *out);
    } else if (size == 4) {
        memcpy(&u32, value, sizeof u32);
        *out = kind == SPOKE_KIND_I32 ? (uint64_t)(int32_t)u32 : u32;
    } else if (size == 2) {
        memcpy(&u16, value, sizeof u16);
        *out = kind == SPOKE_KIND_I16 ? (uint64_t)(int16_t)u16 : u16;
    } else {
        memcpy(&u8, value, sizeof u8);
        *out = kind == SPOKE_KIND_I8 ? (uint64_t)(int8_t)u8 : u8;
    }
    return spk_kinds[kind].least < 0 && *out >> 63 != 0; /* is it negative? */
}

static void
put_integer(struct encoder *e, enum spoke_kind kind, const uint8_t *value)
{
    uint64_t number;
    bool negative = load_integer(kind, value, &number);

    spk_cbor_put(&e->out, negative ? SPK_CBOR_NEGINT : SPK_CBOR_UINT, negative ? ~number : number);
}

static int
put_text(struct encoder *e, const uint8_t *value)
{
    spoke_text text;

    memcpy(&text, value, sizeof text);
    if (text.size > 0 && (text.data == NULL || memchr(text.data, '\0', text.size) != NULL ||
                          !spk_is_utf8((const uint8_t *)text.data, text.size)))
        return SPOKE_EINVAL;
    spk_cbor_put(&e->out, SPK_CBOR_TEXT, text.size);
    spk_cbor_put_raw(&e->out, text.data, text.size);
    return 0;
}

static int
put_bytes(struct encoder *e, const uint8_t *value)
{
    spoke_bytes bytes;

    memcpy(&bytes, value, sizeof bytes);
    if (bytes.size > 0 && bytes.data == NULL)
        return SPOKE_EINVAL;
    spk_cbor_put(&e->out, SPK_CBOR_BYTES, bytes.size);
    spk_cbor_put_raw(&e->out, bytes.data, bytes.size);
    return 0;
}

static int
put_any(struct encoder *e, const uint8_t *value)
{
    spoke_bytes item;

    memcpy(&item, value, sizeof item);
    if (item.data == NULL)
        return SPOKE_EINVAL;
    struct spk_cbor_reader r = {.at = item.data, .end = (const uint8_t *)item.data + item.size};
    if (spk_cbor_skip(&r, SPK_CBOR_DEPTH - e->depth) != 0 || r.at != r.end)
        return SPOKE_EINVAL;
    spk_cbor_put_raw(&e->out, item.data, item.size);
    return 0;
}

static int
put_time(struct encoder *e, const uint8_t *value)
{
    spoke_time time;

    memcpy(&time, value, sizeof time);
    if (time.ns >= SPK_SECOND)
        return SPOKE_EINVAL;
    spk_cbor_put(&e->out, SPK_CBOR_ARRAY, 2);
    put_integer(e, SPOKE_KIND_I64, (const uint8_t *)&time.s);
    spk_cbor_put(&e->out, SPK_CBOR_UINT, time.ns);
    return 0;
}

static int
put_attachment(struct encoder *e, enum spoke_kind kind, const uint8_t *value)
{
    uint32_t index;

    memcpy(&index, value, sizeof index);
    if (!spk_naming_add(&e->naming, kind, index))
        return SPOKE_EINVAL;
    spk_cbor_put(&e->out, SPK_CBOR_UINT, index);
    return 0;
}

static void
put_float(struct encoder *e, enum spoke_kind kind, const uint8_t *value)
{
    float single;
    double real;

    if (kind == SPOKE_KIND_F32) {
        memcpy(&single, value, sizeof single);
        real = (double)single;
    } else {
        memcpy(&real, value, sizeof real);
    }
    spk_cbor_put_float(&e->out, real);
}

static int
put_item(struct encoder *e, const spoke_field *f, const uint8_t *value)
{
    if (spk_kinds[f->kind].most != 0) {
        put_integer(e, f->kind, value);
        return 0;
    }
    switch (f->kind) {
    case SPOKE_KIND_BOOL: spk_cbor_put(&e->out, SPK_CBOR_BOOL, *value); return 0;
    case SPOKE_KIND_F32:
    case SPOKE_KIND_F64: put_float(e, f->kind, value); return 0;
    case SPOKE_KIND_TEXT: return put_text(e, value);
    case SPOKE_KIND_BYTES: return put_bytes(e, value);
    case SPOKE_KIND_TIME: return put_time(e, value);
    case SPOKE_KIND_ANY: return put_any(e, value);
    case SPOKE_KIND_TYPE: return put_type(e, f->of, value);
    default: return put_attachment(e, f->kind, value);
    }
}

/* ---- what items are in ---- */

static int
put_items(struct encoder *e, const spoke_field *f, const uint8_t *items, size_t count)
{
    size_t size = spk_item_size(f);
    int rc = 0;

    if (count > 0 && items == NULL)
        return SPOKE_EINVAL;
    spk_cbor_put(&e->out, SPK_CBOR_ARRAY, count);
    e->depth++;
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = put_item(e, f, items + i * size);
        if (e->out.size > SPOKE_MSG_MAX)
            rc = SPOKE_EMSGSIZE; /* now, not after the rest of what may be endless */
    }
    e->depth--;
    return rc;
}

static int
put_field(struct encoder *e, const spoke_field *f, const uint8_t *value)
{
    struct spk_list list;
    const uint8_t *item;

    value += f->offset;
    switch (f->shape) {
    case SPOKE_SHAPE_OPTIONAL:
        memcpy(&item, value, sizeof item);
        if (item != NULL)
            return put_item(e, f, item);
        spk_cbor_put(&e->out, SPK_CBOR_NULL, 0);
        return 0;
    case SPOKE_SHAPE_LIST:
        memcpy(&list, value, sizeof list);
        return put_items(e, f, list.items, list.count);
    case SPOKE_SHAPE_ARRAY: return put_items(e, f, value, f->count);
    default: return put_item(e, f, value);
    }
}

static int
put_struct(struct encoder *e, const spoke_value_type *type, const uint8_t *value)
{
    int rc = 0;

    spk_cbor_put(&e->out, e->maps ? SPK_CBOR_MAP : SPK_CBOR_ARRAY, type->count);
    e->depth++;
    for (size_t i = 0; i < type->count && rc == 0; i++) {
        const spoke_field *f = &type->fields[e->maps ? type->fields[i].order : i];
        if (e->maps) {
            spk_cbor_put(&e->out, SPK_CBOR_TEXT, strlen(f->name));
            spk_cbor_put_raw(&e->out, f->name, strlen(f->name));
        }
        rc = put_field(e, f, value);
    }
    e->depth--;
    return rc;
}

static int
put_type(struct encoder *e, const spoke_value_type *type, const uint8_t *value)
{
    return spk_is_plain(type) ? put_field(e, &type->fields[0], value) : put_struct(e, type, value);
}

/* ---- the layout of the C type ---- */

static int
encode_layout(const spoke_value_type *type, const void *value, spoke_msg **out)
{
    int rc;

    if (!type->has_layout)
        return SPOKE_ENOTSUP;
    if ((rc = spoke_msg_new(out, type->size)) != 0)
        return rc;
    memset(spoke_msg_body(*out), 0, type->size);
    if ((rc = spk_layout_copy(type, spoke_msg_body(*out), value)) != 0) {
        spoke_msg_free(*out);
        *out = NULL;
    }
    return rc;
}

/* ---- the whole ---- */

static int
encode_items(const spoke_value_type *type, struct encoder *e, const void *value, spoke_msg **out)
{
    struct encoder counting = *e;
    int rc = put_type(&counting, type, value);

    if (rc == 0 && counting.naming.named < counting.naming.count)
        rc = SPOKE_EINVAL;
    if (rc != 0 || (rc = spoke_msg_new(out, counting.out.size)) != 0)
        return rc;
    e->out.at = spoke_msg_body(*out);
    e->out.end = e->out.at + counting.out.size;
    rc = put_type(e, type, value);
    if (rc == 0 && e->out.size == counting.out.size)
        return 0;
    spoke_msg_free(*out); /* somebody changes the value meanwhile */
    *out = NULL;
    return SPOKE_EINVAL;
}

int
spoke_value_encode(const spoke_value_type *type, enum spoke_form form, const void *value,
                   const spoke_attachment *attachments, size_t attachment_count, spoke_msg **out)
{
    struct encoder e = {
        .naming = {.attachments = attachments, .count = attachment_count},
        .maps = form == SPOKE_FORM_EVOLVING,
    };

    *out = NULL;
    if (!spk_type_is_checked(type) || value == NULL || attachment_count > SPOKE_ATTACHMENTS_MAX ||
        (attachments == NULL && attachment_count > 0))
        return SPOKE_EINVAL;
    if (form == SPOKE_FORM_EXACT || form == SPOKE_FORM_EVOLVING)
        return encode_items(type, &e, value, out);
    if (form != SPOKE_FORM_LAYOUT || attachment_count > 0)
        return SPOKE_EINVAL;
    return encode_layout(type, value, out);
}
