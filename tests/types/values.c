/* SPDX-License-Identifier: MIT */
/* Values and their encodings, byte by byte. */
#include <math.h>
#include <string.h>

#include "protocols/channel/cbor.h"
#include "tests/support/test.h"
#include "tests/types/fixture.h"

TestSuite(values, .fini = expect_no_messages);

SPOKE_PLAIN_TYPE(a_bool, BOOL);
SPOKE_PLAIN_TYPE(an_i8, I8);
SPOKE_PLAIN_TYPE(an_i16, I16);
SPOKE_PLAIN_TYPE(an_i32, I32);
SPOKE_PLAIN_TYPE(an_i64, I64);
SPOKE_PLAIN_TYPE(a_u8, U8);
SPOKE_PLAIN_TYPE(a_u16, U16);
SPOKE_PLAIN_TYPE(a_u32, U32);
SPOKE_PLAIN_TYPE(a_u64, U64);
SPOKE_PLAIN_TYPE(an_f32, F32);
SPOKE_PLAIN_TYPE(an_f64, F64);
SPOKE_PLAIN_TYPE(a_text, TEXT);
SPOKE_PLAIN_TYPE(some_bytes, BYTES);
SPOKE_PLAIN_TYPE(a_time, TIME);
SPOKE_PLAIN_TYPE(anything, ANY);
SPOKE_PLAIN_TYPE(numbers, LIST(I32));
SPOKE_PLAIN_TYPE(three, ARRAY(3, U16));
SPOKE_PLAIN_TYPE(maybe, OPTIONAL(U32));

/* Bit by bit: -0.0 is not 0.0. */
static bool
is_same(const void *a, const void *b, size_t size)
{
    return memcmp(a, b, size) == 0;
}

/* Encodes `value_` of the type, which gives these bytes, and back. */
#define GIVES(type, value_, hex)                                                                   \
    do {                                                                                           \
        type in = value_, out;                                                                     \
        spoke_backing backing;                                                                     \
        round_trip(checked(&type##_type), SPOKE_FORM_EXACT, &in, hex, &out, &backing);             \
        cr_expect(is_same(&in, &out, sizeof in), "%s", hex);                                       \
        spoke_backing_free(&backing);                                                              \
    } while (0)

Test(values, bools)
{
    GIVES(a_bool, false, "f4");
    GIVES(a_bool, true, "f5");
}

Test(values, integers_are_as_short_as_they_can_be)
{
    GIVES(an_i8, 0, "00");
    GIVES(an_i8, 127, "18 7f");
    GIVES(an_i8, -1, "20");
    GIVES(an_i8, -24, "37");
    GIVES(an_i8, -25, "38 18");
    GIVES(an_i8, -128, "38 7f");
    GIVES(an_i16, 23, "17");
    GIVES(an_i16, 24, "18 18");
    GIVES(an_i16, 32767, "19 7fff");
    GIVES(an_i16, -32768, "39 7fff");
    GIVES(an_i32, 255, "18 ff");
    GIVES(an_i32, 256, "19 0100");
    GIVES(an_i32, -257, "39 0100");
    GIVES(an_i32, INT32_MAX, "1a 7fffffff");
    GIVES(an_i32, INT32_MIN, "3a 7fffffff");
    GIVES(an_i64, 4294967296, "1b 0000000100000000");
    GIVES(an_i64, INT64_MAX, "1b 7fffffffffffffff");
    GIVES(an_i64, INT64_MIN, "3b 7fffffffffffffff");
    GIVES(a_u8, 255, "18 ff");
    GIVES(a_u16, 65535, "19 ffff");
    GIVES(a_u32, 65536, "1a 00010000");
    GIVES(a_u32, UINT32_MAX, "1a ffffffff");
    GIVES(a_u64, UINT64_MAX, "1b ffffffffffffffff");
}

Test(values, floats_are_as_short_as_they_can_be)
{
    GIVES(an_f64, 0.0, "f9 0000");
    GIVES(an_f64, -0.0, "f9 8000");
    GIVES(an_f64, 1.5, "f9 3e00");
    GIVES(an_f64, 65504.0, "f9 7bff");
    GIVES(an_f64, 65505.0, "fa 477fe100");
    GIVES(an_f64, 100000.0, "fa 47c35000");
    GIVES(an_f64, 5.960464477539063e-8, "f9 0001");
    GIVES(an_f64, 3 * 5.960464477539063e-8, "f9 0003");
    GIVES(an_f64, 1023 * 5.960464477539063e-8, "f9 03ff");
    GIVES(an_f64, 0.00006103515625, "f9 0400");
    GIVES(an_f64, 2.9802322387695312e-8, "fa 33000000"); /* half of the smallest half */
    GIVES(an_f64, 1.1, "fb 3ff199999999999a");
    GIVES(an_f64, 1e300, "fb 7e37e43c8800759c");
    GIVES(an_f64, (double)INFINITY, "f9 7c00");
    GIVES(an_f64, (double)-INFINITY, "f9 fc00");
    GIVES(an_f32, 3.4028234663852886e+38f, "fa 7f7fffff");
    GIVES(an_f32, 1e-45f, "fa 00000001");
    GIVES(an_f32, 1.5f, "f9 3e00");
}

Test(values, every_nan_is_the_same)
{
    double in = (double)NAN, out;
    spoke_backing backing;
    uint64_t bits = 0xfff0000000000001;

    round_trip(checked(&an_f64_type), SPOKE_FORM_EXACT, &in, "f9 7e00", &out, &backing);
    cr_expect(isnan(out));
    spoke_backing_free(&backing);
    memcpy(&in, &bits, sizeof in);
    round_trip(&an_f64_type, SPOKE_FORM_EXACT, &in, "f9 7e00", &out, &backing);
    cr_expect(isnan(out));
    spoke_backing_free(&backing);
    float narrow = NAN, back;
    round_trip(checked(&an_f32_type), SPOKE_FORM_EXACT, &narrow, "f9 7e00", &back, &backing);
    cr_expect(isnan(back));
    spoke_backing_free(&backing);
}

/* All 65536: what is read as a half is written as that half, but for NaNs, of which there is one.
 */
Test(values, every_half_is_its_own_encoding)
{
    unsigned refused = 0;

    for (unsigned half = 0; half <= 0xffff; half++) {
        uint8_t bytes[3] = {0xf9, (uint8_t)(half >> 8), (uint8_t)half}, again[9];
        struct spk_cbor_reader r = {bytes, bytes + sizeof bytes};
        struct spk_cbor_writer w = {again, again + sizeof again, 0};
        struct spk_cbor_item item;
        bool other_nan = (half & 0x7c00) == 0x7c00 && (half & 0x3ff) != 0 && half != 0x7e00;

        if (spk_cbor_next(&r, &item) != 0) {
            cr_assert(other_nan);
            refused++;
            continue;
        }
        cr_assert_not(other_nan);
        spk_cbor_put_float(&w, item.real);
        cr_assert_eq(w.size, sizeof bytes);
        cr_assert_eq(memcmp(bytes, again, sizeof bytes), 0);
    }
    cr_expect_eq(refused, 2 * 1023 - 1);
}

Test(values, texts_and_bytes_lie_in_the_message)
{
    spoke_text text = spoke_text_of("h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"), out;
    spoke_bytes bytes = {"\0\xff", 2}, bytes_out;
    spoke_backing backing;

    round_trip(checked(&a_text_type), SPOKE_FORM_EXACT, &text, "6c 68 c3a9 20 e282ac 20 f09f9880",
               &out, &backing);
    cr_expect_eq(out.size, 12);
    cr_expect_eq((const void *)out.data, (uint8_t *)spoke_msg_body(backing.message) + 1);
    cr_expect_null(backing.memory);
    spoke_backing_free(&backing);

    round_trip(checked(&some_bytes_type), SPOKE_FORM_EXACT, &bytes, "42 00ff", &bytes_out,
               &backing);
    cr_expect_eq(bytes_out.size, 2);
    cr_expect_eq(bytes_out.data, (uint8_t *)spoke_msg_body(backing.message) + 1);
    spoke_backing_free(&backing);
    spoke_backing_free(&backing); /* once more */
}

Test(values, empty_texts_and_bytes_need_no_data)
{
    spoke_text text = spoke_text_of(NULL), out;
    spoke_bytes bytes = {NULL, 0}, bytes_out;
    spoke_backing backing;

    round_trip(checked(&a_text_type), SPOKE_FORM_EXACT, &text, "60", &out, &backing);
    cr_expect_eq(out.size, 0);
    spoke_backing_free(&backing);
    round_trip(checked(&some_bytes_type), SPOKE_FORM_EXACT, &bytes, "40", &bytes_out, &backing);
    cr_expect_eq(bytes_out.size, 0);
    spoke_backing_free(&backing);
}

Test(values, times)
{
    static const spoke_time times[] = {{0, 0}, {-1, 999999999}, {INT64_MAX, 1}};
    static const char *const hex[] = {"82 00 00", "82 20 1a 3b9ac9ff", "82 1b 7fffffffffffffff 01"};

    for (size_t i = 0; i < 3; i++) {
        spoke_time out;
        spoke_backing backing;
        round_trip(checked(&a_time_type), SPOKE_FORM_EXACT, &times[i], hex[i], &out, &backing);
        cr_expect_eq(out.s, times[i].s);
        cr_expect_eq(out.ns, times[i].ns);
        spoke_backing_free(&backing);
    }
}

Test(values, anything_passes_as_it_is)
{
    static const char *const items[] = {
        "00",
        "f6",
        "f7",
        "a2 01 02 61 61 80",
        "c1 1a 514b67b0",
        "a3 0a 01 18 64 02 20 03", /* integers in order, negative ones behind */
        "62 61 00",
        "81 81 81 81 81 81 81 81 81 81 81 81 81 81 81 80", /* sixteen */
    };

    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        spoke_msg *m = message_of(items[i]);
        spoke_bytes in = {spoke_msg_body(m), spoke_msg_size(m)}, out;
        spoke_backing backing;
        round_trip(checked(&anything_type), SPOKE_FORM_EXACT, &in, items[i], &out, &backing);
        cr_expect_eq(out.size, in.size);
        cr_expect_eq(out.data, spoke_msg_body(backing.message));
        spoke_backing_free(&backing);
        spoke_msg_free(m);
    }
}

Test(values, lists_have_memory_beside_the_message)
{
    static const int32_t items[] = {1, -2, 300};
    numbers in = {items, 3}, out;
    spoke_backing backing;

    round_trip(checked(&numbers_type), SPOKE_FORM_EXACT, &in, "83 01 21 19 012c", &out, &backing);
    cr_expect_eq(out.count, 3);
    cr_expect_eq(memcmp(out.items, items, sizeof items), 0);
    cr_expect_not_null(backing.memory);
    spoke_backing_free(&backing);
    in.count = 0;
    round_trip(&numbers_type, SPOKE_FORM_EXACT, &in, "80", &out, &backing);
    cr_expect_eq(out.count, 0);
    cr_expect_null(out.items);
    cr_expect_null(backing.memory);
    spoke_backing_free(&backing);
}

Test(values, arrays)
{
    static const three in = {1, 24, 65535};
    three out;
    spoke_backing backing;

    round_trip(checked(&three_type), SPOKE_FORM_EXACT, &in, "83 01 1818 19ffff", &out, &backing);
    cr_expect_eq(memcmp(in, out, sizeof in), 0);
    spoke_backing_free(&backing);
}

Test(values, optionals)
{
    static const uint32_t number = 7;
    maybe in = &number, out;
    spoke_backing backing;

    round_trip(checked(&maybe_type), SPOKE_FORM_EXACT, &in, "07", &out, &backing);
    cr_assert_not_null(out);
    cr_expect_eq(*out, 7);
    spoke_backing_free(&backing);
    in = NULL;
    round_trip(&maybe_type, SPOKE_FORM_EXACT, &in, "f6", &out, &backing);
    cr_expect_null(out);
    spoke_backing_free(&backing);
}

/* ---- structs ---- */

#define ELEMENT(FIELD, S) FIELD(S, I64, I) FIELD(S, TEXT, Source)
SPOKE_STRUCT(element, ELEMENT);
SPOKE_STRUCT_TYPE(element, ELEMENT);

Test(values, the_struct_of_the_specification)
{
    struct element in = {5, spoke_text_of("export")}, out;
    spoke_backing backing;

    round_trip(checked(&element_type), SPOKE_FORM_EXACT, &in, "82 05 66 6578706f7274", &out,
               &backing);
    cr_expect_eq(out.I, 5);
    cr_expect_eq(out.Source.size, 6);
    spoke_backing_free(&backing);
    round_trip(&element_type, SPOKE_FORM_EVOLVING, &in,
               "a2 61 49 05 66 536f75726365 66 6578706f7274", &out, &backing);
    cr_expect_eq(out.I, 5);
    cr_expect_eq(out.Source.size, 6);
    spoke_backing_free(&backing);
}

#define WORDS(FIELD, S)                                                                            \
    FIELD(S, U8, zz) FIELD(S, U8, b) FIELD(S, U8, abc) FIELD(S, U8, a) FIELD(S, U8, B)
SPOKE_STRUCT(words, WORDS);
SPOKE_STRUCT_TYPE(words, WORDS);

Test(values, keys_are_sorted_by_length_first)
{
    struct words in = {1, 2, 3, 4, 5}, out;
    spoke_backing backing;

    round_trip(checked(&words_type), SPOKE_FORM_EVOLVING, &in,
               "a5 61 42 05 61 61 04 61 62 02 62 7a7a 01 63 616263 03", &out, &backing);
    cr_expect_eq(memcmp(&in, &out, sizeof in), 0);
    spoke_backing_free(&backing);
}

#define ORDER(FIELD, S)                                                                            \
    FIELD(S, U32, number)                                                                          \
    FIELD(S, LIST(STRUCT(element)), lines)                                                         \
    FIELD(S, OPTIONAL(STRUCT(element)), note)
SPOKE_STRUCT(order, ORDER);
SPOKE_STRUCT_TYPE(order, ORDER);

Test(values, structs_in_lists_and_optionals)
{
    static struct element lines[2];
    lines[0] = (struct element){1, spoke_text_of("a")};
    lines[1] = (struct element){-1, spoke_text_of("")};
    struct order in = {.number = 9, .lines = {lines, 2}, .note = &lines[1]}, out;
    spoke_backing backing;

    round_trip(checked(&order_type), SPOKE_FORM_EXACT, &in,
               "83 09 82 82 01 61 61 82 20 60 82 20 60", &out, &backing);
    cr_assert_eq(out.lines.count, 2);
    cr_expect_eq(out.lines.items[0].I, 1);
    cr_expect_eq(*out.lines.items[0].Source.data, 'a');
    cr_expect_eq(out.lines.items[1].I, -1);
    cr_expect_eq(out.note->I, -1);
    cr_expect_eq((uintptr_t)out.lines.items % 8, 0);
    cr_expect_eq((uintptr_t)out.note % 8, 0);
    spoke_backing_free(&backing);
}

struct partial {
    void *ours;
    int32_t x;
    int more;
};
static spoke_field partial_fields[] = {SPOKE_FIELD(struct partial, I32, x)};
static spoke_value_type partial_type = SPOKE_TYPE_OF(struct partial, partial_fields);

Test(values, members_that_are_not_in_the_table_are_left_out_and_become_0)
{
    int thing;
    struct partial in = {&thing, 5, 6}, out = {&thing, 1, 2};
    spoke_backing backing;

    round_trip(checked(&partial_type), SPOKE_FORM_EXACT, &in, "81 05", &out, &backing);
    cr_expect_null(out.ours);
    cr_expect_eq(out.x, 5);
    cr_expect_eq(out.more, 0);
    spoke_backing_free(&backing);
}

/* ---- layouts ---- */

#define FLAT(FIELD, S) FIELD(S, BOOL, b) FIELD(S, TIME, t) FIELD(S, ARRAY(2, U16), n)
SPOKE_STRUCT(flat, FLAT);
SPOKE_STRUCT_TYPE(flat, FLAT);

Test(values, a_layout_is_the_struct_with_zeroed_holes)
{
    struct flat in, out;
    spoke_msg *m;
    spoke_backing backing;

    memset(&in, 0xaa, sizeof in);
    in.b = true;
    in.t.s = 1;
    in.t.ns = 2;
    in.n[0] = 3;
    in.n[1] = 4;
    cr_assert_eq(spoke_value_encode(checked(&flat_type), SPOKE_FORM_LAYOUT, &in, NULL, 0, &m), 0);
    cr_assert_eq(spoke_msg_size(m), sizeof in);
    const uint8_t *body = spoke_msg_body(m);
    cr_expect_eq(body[0], 1);
    for (size_t i = 1; i < offsetof(struct flat, t); i++)
        cr_expect_eq(body[i], 0);
    for (size_t i = offsetof(struct flat, t) + 12; i < offsetof(struct flat, n); i++)
        cr_expect_eq(body[i], 0);
    cr_assert_eq(spoke_value_decode(&flat_type, SPOKE_FORM_LAYOUT, m, NULL, 0, &out, &backing), 0);
    cr_expect(out.b && out.t.s == 1 && out.t.ns == 2 && out.n[0] == 3 && out.n[1] == 4);
    spoke_backing_free(&backing);
}

Test(values, a_layout_brings_only_what_the_table_names)
{
    int thing;
    struct partial in = {&thing, 5, 6}, out;
    spoke_msg *m;
    spoke_backing backing;

    cr_assert_eq(spoke_value_encode(checked(&partial_type), SPOKE_FORM_LAYOUT, &in, NULL, 0, &m),
                 0);
    for (size_t i = 0; i < sizeof in; i++)
        if (i < offsetof(struct partial, x) || i >= offsetof(struct partial, more))
            cr_expect_eq(((uint8_t *)spoke_msg_body(m))[i], 0);
    memset(spoke_msg_body(m), 0xff, sizeof in); /* what a hostile peer would send */
    cr_assert_eq(spoke_value_decode(&partial_type, SPOKE_FORM_LAYOUT, m, NULL, 0, &out, &backing),
                 0);
    cr_expect_null(out.ours);
    cr_expect_eq(out.x, -1);
    cr_expect_eq(out.more, 0);
    spoke_backing_free(&backing);
}

Test(values, a_type_with_pointers_has_no_layout)
{
    spoke_text in = spoke_text_of("a"), out;
    spoke_msg *m = NULL;
    spoke_backing backing;

    cr_expect_eq(spoke_value_encode(checked(&a_text_type), SPOKE_FORM_LAYOUT, &in, NULL, 0, &m),
                 SPOKE_ENOTSUP);
    cr_expect_null(m);
    m = message_of("00");
    cr_expect_eq(spoke_value_decode(&a_text_type, SPOKE_FORM_LAYOUT, m, NULL, 0, &out, &backing),
                 SPOKE_ENOTSUP);
    spoke_msg_free(m);
}

/* ---- values that are none of the type ---- */

#define REFUSED(type, form, value_, error)                                                         \
    do {                                                                                           \
        type in = value_;                                                                          \
        spoke_msg *m;                                                                              \
        cr_expect_eq(spoke_value_encode(checked(&type##_type), form, &in, NULL, 0, &m), error);    \
        cr_expect_null(m);                                                                         \
    } while (0)

static spoke_text
text_of(const char *data, size_t size)
{
    return (spoke_text){data, size};
}

Test(values, texts_that_are_none_are_refused)
{
    REFUSED(a_text, SPOKE_FORM_EXACT, text_of("a\0b", 3), SPOKE_EINVAL);
    REFUSED(a_text, SPOKE_FORM_EXACT, text_of("\xff", 1), SPOKE_EINVAL);
    REFUSED(a_text, SPOKE_FORM_EXACT, text_of("\xc3", 1), SPOKE_EINVAL);
    REFUSED(a_text, SPOKE_FORM_EXACT, text_of(NULL, 1), SPOKE_EINVAL);
}

Test(values, bytes_and_lists_without_their_memory_are_refused)
{
    some_bytes bytes = {NULL, 1};
    numbers list = {NULL, 1};
    spoke_msg *m;

    cr_expect_eq(
        spoke_value_encode(checked(&some_bytes_type), SPOKE_FORM_EXACT, &bytes, NULL, 0, &m),
        SPOKE_EINVAL);
    cr_expect_eq(spoke_value_encode(checked(&numbers_type), SPOKE_FORM_EXACT, &list, NULL, 0, &m),
                 SPOKE_EINVAL);
}

Test(values, times_with_too_many_nanoseconds_are_refused)
{
    spoke_time time = {0, 1000000000};
    struct flat flat = {.t = time};
    spoke_msg *m;

    cr_expect_eq(spoke_value_encode(checked(&a_time_type), SPOKE_FORM_EXACT, &time, NULL, 0, &m),
                 SPOKE_EINVAL);
    cr_expect_eq(spoke_value_encode(checked(&flat_type), SPOKE_FORM_LAYOUT, &flat, NULL, 0, &m),
                 SPOKE_EINVAL);
    cr_expect_null(m);
}

/* None, two, one cut off, not the shortest, nested too deep. */
Test(values, anything_has_to_be_one_item)
{
    static const char *const items[] = {"", "00 00", "82 00", "18 01",
                                        "81 81 81 81 81 81 81 81 81 81 81 81 81 81 81 81 80"};

    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        spoke_msg *item = message_of(items[i]), *m;
        spoke_bytes in = {spoke_msg_body(item), spoke_msg_size(item)};
        cr_expect_eq(
            spoke_value_encode(checked(&anything_type), SPOKE_FORM_EXACT, &in, NULL, 0, &m),
            SPOKE_EINVAL, "%s", items[i]);
        spoke_msg_free(item);
    }
    REFUSED(anything, SPOKE_FORM_EXACT, ((spoke_bytes){NULL, 0}), SPOKE_EINVAL);
}

/* The same 1 GiB five times. Nothing of it is looked at, or there. */
Test(values, what_is_too_large_for_a_message_is_refused)
{
    static spoke_bytes many[5];
    static spoke_field f;
    spoke_value_type type = {.size = sizeof many, .fields = &f, .count = 1};
    spoke_msg *m;

    f = (spoke_field){
        .kind = SPOKE_KIND_BYTES, .shape = SPOKE_SHAPE_ARRAY, .size = sizeof many, .count = 5};
    cr_assert_eq(spoke_type_check(&type), 0);
    for (int i = 0; i < 5; i++)
        many[i] = (spoke_bytes){&type, (size_t)1 << 30};
    cr_expect_eq(spoke_value_encode(&type, SPOKE_FORM_EXACT, many, NULL, 0, &m), SPOKE_EMSGSIZE);
    for (int i = 0; i < 5; i++)
        many[i].size = SIZE_MAX / 2;
    cr_expect_eq(spoke_value_encode(&type, SPOKE_FORM_EXACT, many, NULL, 0, &m), SPOKE_EMSGSIZE);
    cr_expect_null(m);
}

Test(values, forms_that_do_not_exist_are_refused)
{
    uint8_t in = 0, out;
    spoke_msg *m;
    spoke_backing backing;

    checked(&a_u8_type);
    cr_expect_eq(spoke_value_encode(&a_u8_type, (enum spoke_form)3, &in, NULL, 0, &m),
                 SPOKE_EINVAL);
    m = message_of("00");
    cr_expect_eq(spoke_value_decode(&a_u8_type, (enum spoke_form)3, m, NULL, 0, &out, &backing),
                 SPOKE_EINVAL);
    spoke_msg_free(m);
}

/* ---- evolution ---- */

#define OLD(FIELD, S) FIELD(S, I8, a) FIELD(S, TEXT, name) FIELD(S, ARRAY(2, U8), pair)
SPOKE_STRUCT(old, OLD);
SPOKE_STRUCT_TYPE(old, OLD);

#define LATER(FIELD, S)                                                                            \
    FIELD(S, OPTIONAL(TEXT), extra)                                                                \
    FIELD(S, LIST(U16), pair)                                                                      \
    FIELD(S, I64, a)                                                                               \
    FIELD(S, OPTIONAL(TEXT), name)                                                                 \
    FIELD(S, OPTIONAL(STRUCT(element)), z)
SPOKE_STRUCT(later, LATER);
SPOKE_STRUCT_TYPE(later, LATER);

static void
evolve(spoke_value_type *from, const void *value, spoke_value_type *to, void *out,
       spoke_backing *backing)
{
    char sender[SPOKE_DESCRIPTOR_MAX + 1], receiver[SPOKE_DESCRIPTOR_MAX + 1];
    spoke_msg *m;

    checked(from);
    checked(to);
    cr_assert_eq(spoke_type_descriptor(from, sender, sizeof sender), 0);
    cr_assert_eq(spoke_type_descriptor(to, receiver, sizeof receiver), 0);
    cr_assert_eq(spoke_descriptor_readable(sender, strlen(sender), receiver, strlen(receiver)), 0);
    cr_assert_eq(spoke_value_encode(from, SPOKE_FORM_EVOLVING, value, NULL, 0, &m), 0);
    cr_assert_eq(spoke_value_decode(to, SPOKE_FORM_EVOLVING, m, NULL, 0, out, backing), 0);
}

Test(values, an_old_value_is_read_as_the_new_type)
{
    struct old in = {-5, spoke_text_of("me"), {1, 2}};
    struct later out;
    spoke_backing backing;

    evolve(&old_type, &in, &later_type, &out, &backing);
    cr_expect_eq(out.a, -5);
    cr_expect_null(out.extra);
    cr_expect_null(out.z);
    cr_assert_not_null(out.name);
    cr_expect_eq(out.name->size, 2);
    cr_assert_eq(out.pair.count, 2);
    cr_expect_eq(out.pair.items[1], 2);
    spoke_backing_free(&backing);
}

#define NARROW(FIELD, S) FIELD(S, I64, a)
SPOKE_STRUCT(narrow, NARROW);
SPOKE_STRUCT_TYPE(narrow, NARROW);

Test(values, what_a_newer_sender_has_more_is_skipped)
{
    static const uint16_t pair[] = {1, 2, 3};
    struct element z = {1, spoke_text_of("x")};
    spoke_text text = spoke_text_of("more");
    struct later in = {.extra = &text, .pair = {pair, 3}, .a = 77, .z = &z};
    struct narrow out;
    spoke_backing backing;

    evolve(&later_type, &in, &narrow_type, &out, &backing);
    cr_expect_eq(out.a, 77);
    spoke_backing_free(&backing);
}

#define NAMED(FIELD, S) FIELD(S, I64, a) FIELD(S, TYPE(maybe), it)
SPOKE_STRUCT(named, NAMED);
SPOKE_STRUCT_TYPE(named, NAMED);

/* Its name stands for an optional: ?u32. */
Test(values, an_optional_by_another_name_may_be_missing)
{
    struct narrow in = {9};
    struct named out;
    spoke_backing backing;

    evolve(&narrow_type, &in, &named_type, &out, &backing);
    cr_expect_eq(out.a, 9);
    cr_expect_null(out.it);
    spoke_backing_free(&backing);
}

/* ---- memory ---- */

Test(values, lists_stay_within_the_types_memory)
{
    static spoke_field f = {
        .kind = SPOKE_KIND_U64, .shape = SPOKE_SHAPE_LIST, .size = sizeof(numbers)};
    spoke_value_type type = {
        .size = sizeof(numbers), .fields = &f, .count = 1, .memory_max = 4 * sizeof(uint64_t)};
    spoke_backing backing;
    numbers out;

    cr_assert_eq(spoke_type_check(&type), 0);
    spoke_msg *m = message_of("84 01 02 03 04");
    cr_assert_eq(spoke_value_decode(&type, SPOKE_FORM_EXACT, m, NULL, 0, &out, &backing), 0);
    spoke_backing_free(&backing);
    m = message_of("85 01 02 03 04 05");
    cr_expect_eq(spoke_value_decode(&type, SPOKE_FORM_EXACT, m, NULL, 0, &out, &backing),
                 SPOKE_ELIMIT);
    cr_expect_eq(out.count, 0);
    cr_expect_null(backing.message);
    spoke_msg_free(m);
}

/* A large one, of 100000 texts. */
Test(values, many_items)
{
    enum { MANY = 100000 };
    static spoke_text texts[MANY];
    static spoke_field f = {
        .kind = SPOKE_KIND_TEXT, .shape = SPOKE_SHAPE_LIST, .size = sizeof(numbers)};
    spoke_value_type type = {.size = sizeof(numbers), .fields = &f, .count = 1};
    struct {
        const spoke_text *items;
        size_t count;
    } in = {texts, MANY}, out;
    spoke_backing backing;
    spoke_msg *m;

    cr_assert_eq(spoke_type_check(&type), 0);
    for (size_t i = 0; i < MANY; i++)
        texts[i] = text_of(&"0123456789"[i % 10], 10 - i % 10);
    cr_assert_eq(spoke_value_encode(&type, SPOKE_FORM_EXACT, &in, NULL, 0, &m), 0);
    cr_assert_eq(spoke_value_decode(&type, SPOKE_FORM_EXACT, m, NULL, 0, &out, &backing), 0);
    cr_assert_eq(out.count, MANY);
    for (size_t i = 0; i < MANY; i++)
        cr_assert(out.items[i].size == texts[i].size &&
                  memcmp(out.items[i].data, texts[i].data, texts[i].size) == 0);
    spoke_backing_free(&backing);
}
