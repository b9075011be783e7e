/* SPDX-License-Identifier: MIT */
/* Fuzzes values and descriptors.  The first byte says what the rest is: a message that is read as
 * one of several types in one of the forms, or two descriptors with a line feed between them.  What
 * is accepted must keep its promises: there is one encoding of a value, and a descriptor is
 * readable as itself. */
/* clang-format off */
/* Covers: protocols/channel/cbor.c protocols/channel/decode.c protocols/channel/encode.c protocols/channel/descriptor.c */
/* clang-format on */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <spoke/type.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool holds)
{
    if (!holds)
        abort();
}

/* ---- the types ---- */

SPOKE_PLAIN_TYPE(number, I32);
SPOKE_PLAIN_TYPE(any, ANY);
SPOKE_PLAIN_TYPE(row, LIST(F64));
SPOKE_PLAIN_TYPE(matrix, LIST(TYPE(row)));

#define FLAT(FIELD, S) FIELD(S, BOOL, b) FIELD(S, ARRAY(2, F32), f) FIELD(S, TIME, t)
SPOKE_STRUCT(flat, FLAT);
SPOKE_STRUCT_TYPE(flat, FLAT);

#define LINE(FIELD, S) FIELD(S, TEXT, name) FIELD(S, U16, n) FIELD(S, OPTIONAL(I8), more)
SPOKE_STRUCT(line, LINE);
SPOKE_STRUCT_TYPE(line, LINE);

#define ORDER(FIELD, S)                                                                            \
    FIELD(S, U64, id)                                                                              \
    FIELD(S, LIST(STRUCT(line)), lines)                                                            \
    FIELD(S, OPTIONAL(STRUCT(line)), note)                                                         \
    FIELD(S, BYTES, raw)                                                                           \
    FIELD(S, ANY, any)                                                                             \
    FIELD(S, OPTIONAL(STRUCT(flat)), flat)                                                         \
    FIELD(S, LIST(FD), files)                                                                      \
    FIELD(S, OPTIONAL(SENDER(number)), reply)
SPOKE_STRUCT(order, ORDER);
SPOKE_STRUCT_TYPE(order, ORDER);

static spoke_value_type *const types[] = {&number_type, &any_type,  &matrix_type,
                                          &flat_type,   &line_type, &order_type};
enum { TYPES = sizeof types / sizeof types[0] };

static const spoke_attachment attachments[] = {{SPOKE_ATTACHED_FD, SPOKE_ATTACHED_BOTH},
                                               {SPOKE_ATTACHED_CHANNEL, SPOKE_ATTACHED_WRITES}};

/* ---- values ---- */

static void
run_value(const spoke_value_type *type, enum spoke_form form, const uint8_t *data, size_t size)
{
    union {
        number number;
        any any;
        matrix matrix;
        struct flat flat;
        struct line line;
        struct order order;
    } value;
    size_t count = type == &order_type ? 2 : 0;
    spoke_backing backing;
    spoke_msg *m, *again;

    if (spoke_msg_from(&m, data, size) != 0)
        return;
    int rc = spoke_value_decode(type, form, m, attachments, count, &value, &backing);
    require(rc == 0 || rc == SPOKE_EDECODE || (rc == SPOKE_ENOTSUP && form == SPOKE_FORM_LAYOUT));
    if (rc != 0) {
        require(backing.message == NULL && backing.memory == NULL);
        spoke_msg_free(m);
        return;
    }
    rc = spoke_value_encode(type, form, &value, attachments, count, &again);
    if (form == SPOKE_FORM_EVOLVING) /* it may have left attachments out, and unknown fields */
        require(rc == 0 || (rc == SPOKE_EINVAL && count > 0));
    else
        require(rc == 0);
    if (form == SPOKE_FORM_EXACT)
        require(spoke_msg_size(again) == size &&
                memcmp(spoke_msg_body(again), spoke_msg_body(m), size) == 0);
    spoke_msg_free(again);
    spoke_backing_free(&backing);
}

/* ---- descriptors ---- */

static void
run_descriptors(const char *text, size_t size)
{
    const char *line = size == 0 ? NULL : memchr(text, '\n', size);
    uint8_t fingerprint[SPOKE_FINGERPRINT];

    if (line == NULL)
        return;
    size_t first = (size_t)(line - text), second = size - first - 1;
    int a = spoke_descriptor_check(text, first), b = spoke_descriptor_check(line + 1, second);
    int rc = spoke_descriptor_readable(text, first, line + 1, second);
    require(a == 0 || a == SPOKE_EINVAL);
    require(b == 0 || b == SPOKE_EINVAL);
    if (a == 0) {
        require(first <= SPOKE_DESCRIPTOR_MAX);
        require(spoke_descriptor_readable(text, first, text, first) == 0);
        require(spoke_descriptor_fingerprint(text, first, fingerprint) == 0);
    }
    if (a == 0 && b == 0)
        require(rc == 0 || rc == SPOKE_ETYPE);
    else
        require(rc == SPOKE_EINVAL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    for (size_t i = 0; i < TYPES; i++)
        require(spoke_type_check(types[i]) == 0);
    unsigned choice = data[0] % (3 * TYPES + 1);
    if (choice == 3 * TYPES)
        run_descriptors((const char *)data + 1, size - 1);
    else
        run_value(types[choice / 3], (enum spoke_form)(choice % 3), data + 1, size - 1);
    return 0;
}
