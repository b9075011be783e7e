/* SPDX-License-Identifier: MIT */
/* Messages that hold no value of the type, one fault each: SPOKE_EDECODE, the message stays the
 * caller's, the value is all 0, nothing else was taken. */
#include <string.h>

#include "tests/support/test.h"
#include "tests/types/fixture.h"

TestSuite(malformed, .fini = expect_no_messages);

SPOKE_PLAIN_TYPE(a_bool, BOOL);
SPOKE_PLAIN_TYPE(an_i8, I8);
SPOKE_PLAIN_TYPE(an_i32, I32);
SPOKE_PLAIN_TYPE(an_i64, I64);
SPOKE_PLAIN_TYPE(a_u8, U8);
SPOKE_PLAIN_TYPE(a_u64, U64);
SPOKE_PLAIN_TYPE(an_f32, F32);
SPOKE_PLAIN_TYPE(an_f64, F64);
SPOKE_PLAIN_TYPE(a_text, TEXT);
SPOKE_PLAIN_TYPE(some_bytes, BYTES);
SPOKE_PLAIN_TYPE(a_time, TIME);
SPOKE_PLAIN_TYPE(any, ANY);
SPOKE_PLAIN_TYPE(list, LIST(I32));
SPOKE_PLAIN_TYPE(lists, LIST(TYPE(list)));
SPOKE_PLAIN_TYPE(anys, LIST(ANY));
SPOKE_PLAIN_TYPE(three, ARRAY(3, U8));
SPOKE_PLAIN_TYPE(maybe, OPTIONAL(U8));

#define PAIR(FIELD, S) FIELD(S, I64, number) FIELD(S, TEXT, text)
SPOKE_STRUCT(pair, PAIR);
SPOKE_STRUCT_TYPE(pair, PAIR);

#define FLAT(FIELD, S) FIELD(S, BOOL, b) FIELD(S, U8, n) FIELD(S, TIME, t)
SPOKE_STRUCT(flat, FLAT);
SPOKE_STRUCT_TYPE(flat, FLAT);

static void
refuse(spoke_value_type *type, enum spoke_form form, spoke_msg *m)
{
    uint8_t out[64], nothing[64] = {0};
    spoke_backing backing;

    memset(out, 0xaa, sizeof out);
    cr_assert_leq(type->size, sizeof out);
    cr_expect_eq(spoke_value_decode(checked(type), form, m, NULL, 0, out, &backing), SPOKE_EDECODE);
    cr_expect_eq(memcmp(out, nothing, type->size), 0);
    cr_expect_null(backing.message);
    cr_expect_null(backing.memory);
    spoke_msg_free(m);
}

#define EXACT(name, type, hex)                                                                     \
    Test(malformed, name)                                                                          \
    {                                                                                              \
        refuse(&type##_type, SPOKE_FORM_EXACT, message_of(hex));                                   \
    }
#define EVOLVING(name, type, hex)                                                                  \
    Test(malformed, name)                                                                          \
    {                                                                                              \
        refuse(&type##_type, SPOKE_FORM_EVOLVING, message_of(hex));                                \
    }
#define LAYOUT(name, type, hex)                                                                    \
    Test(malformed, name)                                                                          \
    {                                                                                              \
        refuse(&type##_type, SPOKE_FORM_LAYOUT, message_of(hex));                                  \
    }

/* ---- the one item ---- */
EXACT(nothing_at_all, an_i8, "")
EXACT(a_second_item, an_i8, "00 00")
EXACT(a_byte_behind_a_struct, pair, "82 01 61 61 00")
EXACT(an_integer_cut_off, an_i64, "1b 00 00 00 01 00 00 00")
EXACT(a_head_cut_off, an_i64, "18")
EXACT(a_reserved_length_28, an_i64, "1c")
EXACT(a_reserved_length_30, an_i64, "1e 00 00 00 00 00 00 00 00")
EXACT(a_break_alone, any, "ff")

/* ---- not the shortest ---- */
EXACT(an_integer_of_1_byte_too_many, an_i64, "18 17")
EXACT(an_integer_of_2_bytes_that_fits_1, an_i64, "19 00ff")
EXACT(an_integer_of_4_bytes_that_fits_2, an_i64, "1a 0000ffff")
EXACT(an_integer_of_8_bytes_that_fits_4, an_i64, "1b 00000000ffffffff")
EXACT(a_negative_integer_too_long, an_i64, "38 17")
EXACT(a_negative_integer_of_8_bytes_that_fits_1, an_i64, "3b 0000000000000018")
EXACT(the_length_of_a_text_too_long, a_text, "78 01 61")
EXACT(the_length_of_bytes_too_long, some_bytes, "59 0001 61")
EXACT(the_count_of_an_array_too_long, list, "98 01 00")
EXACT(the_count_of_a_map_too_long, any, "b8 01 00 00")
EXACT(the_number_of_a_tag_too_long, any, "d8 01 00")
EXACT(a_double_that_fits_a_single, an_f64, "fb 47c3500000000000")
EXACT(a_double_that_fits_a_half, an_f64, "fb 3ff8000000000000")
EXACT(a_single_that_fits_a_half, an_f64, "fa 3fc00000")
EXACT(a_single_that_is_a_small_half, an_f64, "fa 34400000")
EXACT(a_nan_of_8_bytes, an_f64, "fb 7ff8000000000000")
EXACT(a_nan_of_4_bytes, an_f64, "fa 7fc00000")
EXACT(another_nan, an_f64, "f9 7e01")
EXACT(a_negative_nan, an_f64, "f9 fe00")

/* ---- indefinite lengths ---- */
EXACT(indefinite_text, a_text, "7f 61 61 ff")
EXACT(indefinite_bytes, some_bytes, "5f 41 61 ff")
EXACT(an_indefinite_list, list, "9f 01 ff")
EXACT(an_indefinite_struct, pair, "9f 01 61 61 ff")
EVOLVING(an_indefinite_map, pair, "bf 64 74657874 60 66 6e756d626572 01 ff")
EXACT(indefinite_text_in_anything, any, "81 7f 61 61 ff")
EXACT(an_indefinite_list_in_anything, any, "81 9f ff")
EXACT(an_indefinite_map_in_anything, any, "81 bf ff")

/* ---- lengths beyond the end ---- */
EXACT(a_text_longer_than_the_message, a_text, "65 61 61 61 61")
EXACT(a_text_of_2_to_63_bytes, a_text, "7b 8000000000000000 61")
EXACT(a_text_of_2_to_64_less_1_bytes, a_text, "7b ffffffffffffffff 61")
EXACT(bytes_of_2_to_63, some_bytes, "5b 8000000000000000 61")
EXACT(bytes_whose_end_comes_round_to_0, some_bytes, "5b fffffffffffffff7 61")
EXACT(a_list_of_2_to_32_items, list, "9b 0000000100000000 00")
EXACT(a_list_of_2_to_63_items, list, "9b 8000000000000000 00")
EXACT(a_list_of_more_items_than_bytes, list, "83 00 00")
EXACT(a_list_cut_off, list, "82 01 19 01")
EVOLVING(a_map_of_2_to_32_pairs, pair, "bb 0000000100000000 61 61 00")
EVOLVING(a_map_of_2_to_63_pairs, pair, "bb 8000000000000000 61 61 00")
EXACT(a_map_of_2_to_63_pairs_in_anything, any, "bb 8000000000000000 61 61 00")
EXACT(a_list_in_anything_of_2_to_64_less_1_items, any, "9b ffffffffffffffff 00")

/* ---- other kinds ---- */
EXACT(a_float_for_an_integer, an_i64, "f9 3c00")
EXACT(a_text_for_an_integer, an_i64, "61 31")
EXACT(a_bool_for_an_integer, an_i64, "f5")
EXACT(a_tag_for_an_integer, an_i64, "c1 01")
EXACT(a_bignum_for_an_integer, an_i64, "c2 41 01")
EXACT(null_for_an_integer, an_i64, "f6")
EXACT(undefined_for_an_integer, an_i64, "f7")
EXACT(an_integer_for_a_float, an_f64, "01")
EXACT(a_double_for_a_float, an_f32, "fb 3ff199999999999a")
EXACT(an_integer_for_a_bool, a_bool, "01")
EXACT(null_for_a_bool, a_bool, "f6")
EXACT(bytes_for_a_text, a_text, "41 61")
EXACT(a_text_for_bytes, some_bytes, "61 61")
EXACT(a_tagged_text, a_text, "d8 20 61 61")
EXACT(an_integer_for_a_list, list, "01")
EXACT(a_map_for_a_list, list, "a1 01 01")
EXACT(a_map_in_the_exact_form, pair, "a2 64 74657874 60 66 6e756d626572 01")
EVOLVING(an_array_in_the_evolving_form, pair, "82 01 60")
EXACT(undefined_for_an_optional, maybe, "f7")
EXACT(false_for_an_optional, maybe, "f4")

/* ---- simple values ---- */
EXACT(simple_0, any, "e0")
EXACT(simple_19, any, "f3")
EXACT(simple_24, any, "f8 18")
EXACT(simple_32, any, "f8 20")
EXACT(simple_255, any, "f8 ff")
EXACT(true_in_two_bytes, any, "f8 15")

/* ---- out of range ---- */
EXACT(i8_of_128, an_i8, "18 80")
EXACT(i8_of_minus_129, an_i8, "38 80")
EXACT(i32_of_2_to_31, an_i32, "1a 80000000")
EXACT(i32_of_minus_2_to_31_less_1, an_i32, "3a 80000000")
EXACT(i32_of_2_to_64_less_1, an_i32, "1b ffffffffffffffff")
EXACT(i64_of_2_to_63, an_i64, "1b 8000000000000000")
EXACT(i64_of_minus_2_to_63_less_1, an_i64, "3b 8000000000000000")
EXACT(i64_of_minus_2_to_64, an_i64, "3b ffffffffffffffff")
EXACT(u8_of_256, a_u8, "19 0100")
EXACT(u8_of_minus_1, a_u8, "20")
EXACT(u64_of_minus_1, a_u64, "20")

/* ---- texts ---- */
EXACT(a_text_with_a_nul, a_text, "63 61 00 61")
EXACT(a_text_of_16_bytes_that_is_not_utf8, a_text, "70 6162636465666768 696a6b6c6d6e6fff")
EXACT(a_lone_continuation, a_text, "61 80")
EXACT(a_character_cut_off, a_text, "62 e282")
EXACT(a_character_cut_off_in_the_middle, a_text, "63 e28261")
EXACT(an_overlong_character_of_2, a_text, "62 c080")
EXACT(an_overlong_character_of_3, a_text, "63 e09fbf")
EXACT(an_overlong_character_of_4, a_text, "64 f08fbfbf")
EXACT(a_surrogate, a_text, "63 eda080")
EXACT(a_character_above_the_last, a_text, "64 f4908080")
EXACT(a_character_of_5_bytes, a_text, "65 f888808080")
EXACT(a_text_in_anything_that_is_not_utf8, any, "81 61 ff")

/* ---- times ---- */
EXACT(a_time_of_a_second_in_ns, a_time, "82 00 1a 3b9aca00")
EXACT(a_time_of_one_number, a_time, "81 00")
EXACT(a_time_of_three_numbers, a_time, "83 00 00 00")
EXACT(a_time_with_negative_ns, a_time, "82 00 20")
EXACT(a_time_as_a_number, a_time, "00")

/* ---- counts ---- */
EXACT(a_field_too_few, pair, "81 01")
EXACT(a_field_too_many, pair, "83 01 60 00")
EXACT(fields_in_another_order, pair, "82 60 01")
EXACT(an_array_of_two, three, "82 01 02")
EXACT(an_array_of_four, three, "84 01 02 03 04")

/* ---- maps ---- */
EVOLVING(a_key_that_is_missing, pair, "a1 66 6e756d626572 01")
EVOLVING(another_key_that_is_missing, pair, "a1 64 74657874 60")
EVOLVING(no_key_at_all, pair, "a0")
EVOLVING(keys_out_of_order, pair, "a2 66 6e756d626572 01 64 74657874 60")
EVOLVING(a_key_twice, pair, "a3 64 74657874 60 64 74657874 60 66 6e756d626572 01")
EVOLVING(an_unknown_key_twice, pair, "a4 61 61 01 61 61 01 64 74657874 60 66 6e756d626572 01")
EVOLVING(an_unknown_key_out_of_order, pair,
         "a4 61 62 01 61 61 01 64 74657874 60 66 6e756d626572 01")
EVOLVING(a_key_that_is_a_number, pair, "a3 01 01 64 74657874 60 66 6e756d626572 01")
EVOLVING(a_key_that_is_bytes, pair, "a2 44 74657874 60 66 6e756d626572 01")
EVOLVING(a_key_that_is_not_utf8, pair, "a3 61 ff 01 64 74657874 60 66 6e756d626572 01")
EVOLVING(an_unknown_value_that_is_malformed, pair,
         "a3 61 61 1817 64 74657874 60 66 6e756d626572 01")
EVOLVING(a_key_without_its_value, pair, "a2 64 74657874 60 66 6e756d626572")
EXACT(keys_in_anything_out_of_order, any, "a2 02 00 01 00")
EXACT(a_key_in_anything_twice, any, "a2 01 00 01 00")
EXACT(keys_in_anything_by_text_and_not_by_length, any, "a2 62 6161 00 61 62 00")
EXACT(keys_in_anything_that_are_lists_twice, any, "a2 81 01 00 81 01 00")

/* ---- layouts ---- */
LAYOUT(a_layout_that_is_too_short, flat, "01 01 0000 00000000 0000000000000000 00000000 000000")
LAYOUT(a_layout_that_is_too_long, flat, "01 01 0000 00000000 0000000000000000 00000000 00000000 00")
LAYOUT(a_layout_with_a_bool_of_2, flat, "02 01 0000 00000000 0000000000000000 00000000 00000000")
LAYOUT(a_layout_with_too_many_ns, flat, "01 01 0000 00000000 0000000000000000 00ca9a3b 00000000")
LAYOUT(an_empty_layout, flat, "")

/* ---- nesting ---- */

static spoke_msg *
nested(size_t depth, uint8_t opening, uint8_t last)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_new(&m, depth + 1), 0);
    memset(spoke_msg_body(m), opening, depth);
    ((uint8_t *)spoke_msg_body(m))[depth] = last;
    return m;
}

Test(malformed, seventeen_lists_in_each_other)
{
    refuse(&any_type, SPOKE_FORM_EXACT, nested(16, 0x81, 0x80));
    refuse(&anys_type, SPOKE_FORM_EXACT, nested(16, 0x81, 0x80));
    refuse(&any_type, SPOKE_FORM_EXACT, nested(17, 0x81, 0x00));
}

Test(malformed, a_million_lists_in_each_other)
{
    refuse(&any_type, SPOKE_FORM_EXACT, nested(1000000, 0x81, 0x00));
    refuse(&lists_type, SPOKE_FORM_EXACT, nested(1000000, 0x81, 0x00));
}

Test(malformed, a_million_tags_in_each_other)
{
    refuse(&any_type, SPOKE_FORM_EXACT, nested(1000000, 0xc1, 0x00));
}

Test(malformed, sixteen_lists_in_a_field_that_is_skipped)
{
    spoke_msg *m = message_of("a3 61 61"), *rest = message_of("64 74657874 60 66 6e756d626572 01");
    spoke_msg *deep = nested(16, 0x81, 0x00);

    cr_assert_eq(spoke_msg_append(m, spoke_msg_body(deep), spoke_msg_size(deep)), 0);
    cr_assert_eq(spoke_msg_append(m, spoke_msg_body(rest), spoke_msg_size(rest)), 0);
    spoke_msg_free(deep);
    spoke_msg_free(rest);
    refuse(&pair_type, SPOKE_FORM_EVOLVING, m);
}

Test(malformed, a_bomb_of_maps)
{
    refuse(&any_type, SPOKE_FORM_EXACT, nested(100000, 0xa1, 0x00));
}

/* A list that says truly that it has a million items, the last of which is none: nothing is
 * allocated for it. */
Test(malformed, the_last_item_of_a_million)
{
    enum { ITEMS = 1000000 };
    static const uint8_t head[] = {0x9a, ITEMS >> 24, (ITEMS >> 16) & 0xff, (ITEMS >> 8) & 0xff,
                                   ITEMS & 0xff};
    struct spoke_memory_stats before, after;
    spoke_msg *m;

    cr_assert_eq(spoke_msg_new(&m, sizeof head + ITEMS), 0);
    uint8_t *body = spoke_msg_body(m);
    memcpy(body, head, sizeof head);
    memset(body + sizeof head, 0x01, ITEMS);
    body[sizeof head + ITEMS - 1] = 0xf5;
    spoke_memory_stats(&before);
    refuse(&list_type, SPOKE_FORM_EXACT, spoke_msg_dup(m));
    spoke_memory_stats(&after);
    cr_expect_eq(before.system_allocs, after.system_allocs);
    spoke_msg_free(m);
}
