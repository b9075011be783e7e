/* SPDX-License-Identifier: MIT */
/* Tables: what they say, what follows from them, and which of them are none. */
#include <string.h>

#include "tests/support/test.h"
#include "tests/types/fixture.h"

TestSuite(tables, .fini = expect_no_messages);

/* ---- every word of a table ---- */

#define ELEMENT(FIELD, S) FIELD(S, I64, I) FIELD(S, TEXT, Source)
SPOKE_STRUCT(element, ELEMENT);
SPOKE_STRUCT_TYPE(element, ELEMENT);

SPOKE_PLAIN_TYPE(integer, I64);
SPOKE_PLAIN_TYPE(row, LIST(F64));
SPOKE_PLAIN_TYPE(matrix, LIST(TYPE(row)));
SPOKE_PLAIN_TYPE(maybe, OPTIONAL(TEXT));
SPOKE_PLAIN_TYPE(triple, ARRAY(3, U16));

#define EVERYTHING(FIELD, S)                                                                       \
    FIELD(S, BOOL, a_bool)                                                                         \
    FIELD(S, I8, an_i8)                                                                            \
    FIELD(S, I16, an_i16)                                                                          \
    FIELD(S, I32, an_i32)                                                                          \
    FIELD(S, I64, an_i64)                                                                          \
    FIELD(S, U8, a_u8)                                                                             \
    FIELD(S, U16, a_u16)                                                                           \
    FIELD(S, U32, a_u32)                                                                           \
    FIELD(S, U64, a_u64)                                                                           \
    FIELD(S, F32, an_f32)                                                                          \
    FIELD(S, F64, an_f64)                                                                          \
    FIELD(S, TEXT, a_text)                                                                         \
    FIELD(S, BYTES, bytes)                                                                         \
    FIELD(S, TIME, a_time)                                                                         \
    FIELD(S, ANY, any)                                                                             \
    FIELD(S, RECEIVER(element), receiver)                                                          \
    FIELD(S, SENDER(integer), sender)                                                              \
    FIELD(S, STREAM_READ, r)                                                                       \
    FIELD(S, STREAM_WRITE, w)                                                                      \
    FIELD(S, STREAM, both)                                                                         \
    FIELD(S, FD, fd)                                                                               \
    FIELD(S, STRUCT(element), inner)                                                               \
    FIELD(S, TYPE(matrix), m)                                                                      \
    FIELD(S, LIST(STRUCT(element)), elements)                                                      \
    FIELD(S, LIST(TYPE(maybe)), maybes)                                                            \
    FIELD(S, ARRAY(2, STRUCT(element)), two)                                                       \
    FIELD(S, ARRAY(2, TYPE(triple)), six)                                                          \
    FIELD(S, OPTIONAL(U8), optional)                                                               \
    FIELD(S, OPTIONAL(STRUCT(element)), element)                                                   \
    FIELD(S, LIST(FD), fds)
SPOKE_STRUCT(everything, EVERYTHING);
SPOKE_STRUCT_TYPE(everything, EVERYTHING);

Test(tables, the_descriptor_says_every_kind_and_shape)
{
    checked(&everything_type);
    cr_expect(has_descriptor(
        &everything_type,
        "{a_bool:b,an_i8:i8,an_i16:i16,an_i32:i32,an_i64:i64,a_u8:u8,a_u16:u16,a_u32:u32,a_u64:u64,"
        "an_f32:f32,an_f64:f64,a_text:s,bytes:y,a_time:t,any:*,receiver:c>{I:i64,Source:s},"
        "sender:c<i64,r:r>,w:r<,both:r=,fd:h,inner:{I:i64,Source:s},m:[[f64]],"
        "elements:[{I:i64,Source:s}],maybes:[?s],two:[{I:i64,Source:s}*2],six:[[u16*3]*2],"
        "optional:?u8,element:?{I:i64,Source:s},fds:[h]}"));
    cr_expect_not(everything_type.has_layout);
    cr_expect(everything_type.needs_memory);
    cr_expect(everything_type.has_attachments);
}

Test(tables, the_fingerprints_are_those_of_the_specification)
{
    cr_expect(has_descriptor(checked(&integer_type), "i64"));
    cr_expect(is_fingerprint(integer_type.fingerprint,
                             "92ccbc2d9642e90d083ce719aea50246d59c88a42a9835821a78c5c5d374b4cd"));
    cr_expect(has_descriptor(checked(&element_type), "{I:i64,Source:s}"));
    cr_expect(is_fingerprint(element_type.fingerprint,
                             "7837826d12d7440c87c286188807964a9d6e871c7d01fef3952152c1fbaecec1"));
}

Test(tables, types_that_a_type_refers_to_are_checked_with_it)
{
    static uint8_t none[SPOKE_FINGERPRINT];

    checked(&everything_type);
    cr_expect_neq(memcmp(element_type.fingerprint, none, sizeof none), 0);
    cr_expect_neq(memcmp(row_type.fingerprint, none, sizeof none), 0);
    cr_expect(has_descriptor(&matrix_type, "[[f64]]"));
    cr_expect_eq(spoke_type_check(&everything_type), 0); /* once more */
}

struct existing {
    void *private_part;
    int16_t x, y;
    char more[3];
};
static spoke_field existing_fields[] = {SPOKE_FIELD(struct existing, I16, y),
                                        SPOKE_FIELD(struct existing, I16, x)};
static spoke_value_type existing_type = SPOKE_TYPE_OF(struct existing, existing_fields);

Test(tables, a_struct_that_exists_has_a_table_of_some_of_its_members_in_any_order)
{
    cr_expect(has_descriptor(checked(&existing_type), "{y:i16,x:i16}"));
    cr_expect_eq(existing_type.size, sizeof(struct existing));
}

Test(tables, a_descriptor_needs_room)
{
    char text[8];

    checked(&integer_type);
    cr_expect_eq(spoke_type_descriptor(&integer_type, text, 3), SPOKE_ERANGE);
    cr_expect_str_eq(text, "");
    cr_expect_eq(spoke_type_descriptor(&integer_type, text, 0), SPOKE_ERANGE);
    cr_expect_eq(spoke_type_descriptor(&integer_type, text, 4), 0);
    cr_expect_str_eq(text, "i64");
}

SPOKE_PLAIN_TYPE(unchecked, U8);

Test(tables, a_type_that_is_not_checked_is_refused)
{
    char text[8];
    unchecked value = 0;
    spoke_msg *m;
    spoke_backing backing;

    cr_expect_eq(spoke_type_descriptor(&unchecked_type, text, sizeof text), SPOKE_EINVAL);
    cr_expect_eq(spoke_value_encode(&unchecked_type, SPOKE_FORM_EXACT, &value, NULL, 0, &m),
                 SPOKE_EINVAL);
    cr_expect_null(m);
    m = message_of("00");
    cr_expect_eq(
        spoke_value_decode(&unchecked_type, SPOKE_FORM_EXACT, m, NULL, 0, &value, &backing),
        SPOKE_EINVAL);
    cr_expect_null(backing.message);
    spoke_msg_free(m);
    cr_expect_eq(spoke_type_check(NULL), SPOKE_EINVAL);
}

/* ---- layouts ---- */

#define FLAT(FIELD, S)                                                                             \
    FIELD(S, BOOL, b) FIELD(S, I64, i) FIELD(S, TIME, t) FIELD(S, ARRAY(3, F32), f)
SPOKE_STRUCT(flat, FLAT);
SPOKE_STRUCT_TYPE(flat, FLAT);

struct packed {
    int64_t i;
    spoke_time t;
    float f[3];
    bool b;
};
static spoke_field packed_fields[] = {
    SPOKE_FIELD(struct packed, BOOL, b), SPOKE_FIELD(struct packed, I64, i),
    SPOKE_FIELD(struct packed, TIME, t), SPOKE_FIELD(struct packed, ARRAY(3, F32), f)};
static spoke_value_type packed_type = SPOKE_TYPE_OF(struct packed, packed_fields);

Test(tables, types_that_are_laid_out_otherwise_have_another_layout_and_the_same_fingerprint)
{
    checked(&flat_type);
    checked(&packed_type);
    cr_expect(flat_type.has_layout);
    cr_expect(packed_type.has_layout);
    cr_expect_eq(memcmp(flat_type.fingerprint, packed_type.fingerprint, SPOKE_FINGERPRINT), 0);
    cr_expect_neq(memcmp(flat_type.layout, packed_type.layout, SPOKE_FINGERPRINT), 0);
}

/* The bytes that are hashed:
 * "spoke-layout/1\n{b:b,i:i64,t:t,f:[f32*3]}\n48,0:1,8:8,16:16,32:12\nle".
 */
Test(tables, the_fingerprint_of_a_layout_is_a_fixed_number)
{
    const uint16_t one = 1;

    checked(&flat_type);
    if (*(const uint8_t *)&one == 1 && sizeof(void *) == 8)
        cr_expect(is_fingerprint(
            flat_type.layout, "1f5295e5f89340c600326a530e8d5796f2794e443e9e6ebc48829982f4bbe61a"));
    checked(&everything_type);
    for (int i = 0; i < SPOKE_FINGERPRINT; i++)
        cr_expect_eq(everything_type.layout[i], 0);
}

/* ---- tables that are none ---- */

static spoke_value_type
type_with(spoke_field *field)
{
    spoke_value_type type = {.size = 64, .fields = field, .count = 1};

    return type;
}

static spoke_field
number_field(const char *name)
{
    spoke_field f = {.name = name, .kind = SPOKE_KIND_U32, .size = 4};

    return f;
}

static void
refuse(spoke_field f)
{
    spoke_value_type type = type_with(&f);

    cr_expect_eq(spoke_type_check(&type), SPOKE_EINVAL);
    cr_expect_eq(type.checked, 0);
}

Test(tables, a_field_that_would_do_is_accepted)
{
    spoke_field f = number_field("a");
    spoke_value_type type = type_with(&f);

    cr_expect_eq(spoke_type_check(&type), 0);
}

Test(tables, names_that_are_none_are_refused)
{
    static const char *const names[] = {"", "1a", "a-b", "a b", "a:i8,b", "\xc3\xa4", "a}"};
    char longest[SPOKE_NAME_MAX + 2];

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        refuse(number_field(names[i]));
    memset(longest, 'n', sizeof longest);
    longest[SPOKE_NAME_MAX + 1] = '\0';
    refuse(number_field(longest));
    longest[SPOKE_NAME_MAX] = '\0';
    spoke_field f = number_field(longest);
    spoke_value_type type = type_with(&f);
    cr_expect_eq(spoke_type_check(&type), 0);
}

Test(tables, a_name_twice_is_refused)
{
    spoke_field fields[] = {number_field("a"), number_field("b"), number_field("a")};
    spoke_value_type type = {.size = 64, .fields = fields, .count = 3};

    cr_expect_eq(spoke_type_check(&type), SPOKE_EINVAL);
    fields[2].name = "aa";
    cr_expect_eq(spoke_type_check(&type), 0);
}

Test(tables, a_member_of_another_size_than_its_kind_is_refused)
{
    spoke_field f = number_field("a");

    f.size = 8;
    refuse(f);
    f.size = 4;
    f.shape = SPOKE_SHAPE_LIST;
    refuse(f);
    f.shape = SPOKE_SHAPE_OPTIONAL;
    refuse(f);
    f.shape = SPOKE_SHAPE_ARRAY;
    f.count = 2;
    refuse(f);
    f.count = 0;
    f.size = 0;
    refuse(f);
    f.count = SIZE_MAX / 4 + 2; /* times 4 that is 4 */
    f.size = 4;
    refuse(f);
}

Test(tables, a_member_outside_of_its_struct_is_refused)
{
    spoke_field f = number_field("a");

    f.offset = 61;
    refuse(f);
    f.offset = SIZE_MAX;
    refuse(f);
    f.offset = 60;
    spoke_value_type type = type_with(&f);
    cr_expect_eq(spoke_type_check(&type), 0);
}

Test(tables, kinds_and_shapes_that_do_not_exist_are_refused)
{
    spoke_field f = number_field("a");

    f.kind = (enum spoke_kind)0;
    refuse(f);
    f.kind = (enum spoke_kind)(SPOKE_KIND_TYPE + 1);
    refuse(f);
    f.kind = SPOKE_KIND_U32;
    f.shape = (enum spoke_shape)(SPOKE_SHAPE_ARRAY + 1);
    refuse(f);
}

Test(tables, another_table_is_named_where_one_is_needed_and_nowhere_else)
{
    spoke_field f = number_field("a");

    f.of = &integer_type;
    refuse(f);
    f.of = NULL;
    f.kind = SPOKE_KIND_SENDER;
    refuse(f);
    f.kind = SPOKE_KIND_TYPE;
    f.size = 0;
    refuse(f);
}

Test(tables, a_type_without_fields_is_refused)
{
    spoke_field f = number_field("a");
    spoke_value_type type = type_with(&f);

    type.count = 0;
    cr_expect_eq(spoke_type_check(&type), SPOKE_EINVAL);
    type.count = 1;
    type.fields = NULL;
    cr_expect_eq(spoke_type_check(&type), SPOKE_EINVAL);
}

Test(tables, only_a_type_of_one_field_can_do_without_a_name)
{
    spoke_field fields[] = {number_field(NULL), number_field("b")};
    spoke_value_type type = {.size = 64, .fields = fields, .count = 2};

    cr_expect_eq(spoke_type_check(&type), SPOKE_EINVAL);
    fields[0].name = "a";
    fields[1].name = NULL;
    cr_expect_eq(spoke_type_check(&type), SPOKE_EINVAL);
}

SPOKE_PLAIN_TYPE(maybe_maybe, OPTIONAL(TYPE(maybe)));
SPOKE_PLAIN_TYPE(anything, ANY);
SPOKE_PLAIN_TYPE(maybe_anything, OPTIONAL(TYPE(anything)));

Test(tables, optionals_whose_null_could_mean_two_things_are_refused)
{
    cr_expect_eq(spoke_type_check(&maybe_maybe_type), SPOKE_EINVAL);
    cr_expect_eq(spoke_type_check(&maybe_anything_type), SPOKE_EINVAL);
}

/* A list of itself, a struct in itself, and a name for itself. */
Test(tables, a_type_that_contains_itself_is_refused)
{
    static spoke_value_type loop;
    static spoke_field f;

    loop = (spoke_value_type){.size = 16, .fields = &f, .count = 1};
    f = (spoke_field){.name = "next",
                      .kind = SPOKE_KIND_TYPE,
                      .shape = SPOKE_SHAPE_LIST,
                      .size = 16,
                      .of = &loop};
    cr_expect_eq(spoke_type_check(&loop), SPOKE_EINVAL);
    f.name = NULL;
    cr_expect_eq(spoke_type_check(&loop), SPOKE_EINVAL);
    f.shape = SPOKE_SHAPE_ONE;
    cr_expect_eq(spoke_type_check(&loop), SPOKE_EINVAL);
    f.name = "same";
    cr_expect_eq(spoke_type_check(&loop), SPOKE_EINVAL);
}

/* Lists in lists, by names. */
static int
check_nested(int levels)
{
    static spoke_value_type types[SPOKE_TYPE_DEPTH_MAX + 2];
    static spoke_field fields[SPOKE_TYPE_DEPTH_MAX + 2];

    fields[0] = (spoke_field){.kind = SPOKE_KIND_U8, .size = 1};
    types[0] = (spoke_value_type){.size = 1, .fields = &fields[0], .count = 1};
    for (int i = 1; i <= levels; i++) {
        fields[i] = (spoke_field){
            .kind = SPOKE_KIND_TYPE, .shape = SPOKE_SHAPE_LIST, .size = 16, .of = &types[i - 1]};
        types[i] = (spoke_value_type){.size = 16, .fields = &fields[i], .count = 1};
    }
    return spoke_type_check(&types[levels]);
}

Test(tables, types_nest_sixteen_deep)
{
    cr_expect_eq(check_nested(SPOKE_TYPE_DEPTH_MAX), 0);
    cr_expect_eq(check_nested(SPOKE_TYPE_DEPTH_MAX + 1), SPOKE_EINVAL);
}

/* Sixteen structs, each of which holds the one before twice: 2^16 fields, if anybody went through
 * them. */
Test(tables, a_descriptor_longer_than_its_limit_is_refused_at_once)
{
    static spoke_value_type types[SPOKE_TYPE_DEPTH_MAX];
    static spoke_field fields[SPOKE_TYPE_DEPTH_MAX][2];

    for (int i = 0; i < SPOKE_TYPE_DEPTH_MAX; i++) {
        for (int k = 0; k < 2; k++) {
            fields[i][k] = number_field(k == 0 ? "a" : "b");
            if (i > 0) {
                fields[i][k].kind = SPOKE_KIND_TYPE;
                fields[i][k].of = &types[i - 1];
                fields[i][k].size = types[i - 1].size;
            }
        }
        types[i] = (spoke_value_type){.size = (size_t)4 << i, .fields = fields[i], .count = 2};
    }
    cr_expect_eq(spoke_type_check(&types[SPOKE_TYPE_DEPTH_MAX - 1]), SPOKE_EINVAL);
    cr_expect_eq(spoke_type_check(&types[5]), 0);
}

Test(tables, a_descriptor_may_be_as_long_as_its_limit)
{
    static char names[1024][4];
    static spoke_field fields[1024];
    spoke_value_type type = {.size = 1, .fields = fields};
    size_t size = 1;

    for (; size < SPOKE_DESCRIPTOR_MAX - 7; size += 6) { /* "aaa:b," */
        char *name = names[type.count];
        size_t n = type.count;
        name[0] = (char)('a' + n % 26);
        name[1] = (char)('a' + n / 26 % 26);
        name[2] = (char)('a' + n / 676);
        fields[type.count++] = (spoke_field){.name = name, .kind = SPOKE_KIND_BOOL, .size = 1};
    }
    cr_assert_lt(size, SPOKE_DESCRIPTOR_MAX);
    cr_assert_eq(spoke_type_check(&type), 0);
    char text[SPOKE_DESCRIPTOR_MAX + 1];
    cr_assert_eq(spoke_type_descriptor(&type, text, sizeof text), 0);
    cr_expect_eq(strlen(text), size);
}
