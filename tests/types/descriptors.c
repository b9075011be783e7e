/* SPDX-License-Identifier: MIT */
/* Descriptors that come from a peer: which texts are none, and which types can be read as which. */
#include <string.h>

#include "tests/support/test.h"
#include "tests/types/fixture.h"

TestSuite(descriptors, .fini = expect_no_messages);

static int
check(const char *text)
{
    return spoke_descriptor_check(text, strlen(text));
}

Test(descriptors, every_kind_and_shape_is_one)
{
    static const char *const texts[] = {"b",
                                        "i8",
                                        "i16",
                                        "i32",
                                        "i64",
                                        "u8",
                                        "u16",
                                        "u32",
                                        "u64",
                                        "f32",
                                        "f64",
                                        "s",
                                        "y",
                                        "t",
                                        "*",
                                        "h",
                                        "r>",
                                        "r<",
                                        "r=",
                                        "c>i8",
                                        "c<[s]",
                                        "?i8",
                                        "[*]",
                                        "[**3]",
                                        "[?s*2]",
                                        "{a:b}",
                                        "{a:b,b:?{c:[h]}}",
                                        "[i8*1]",
                                        "[i8*4294967295]",
                                        "c>c<c>h",
                                        "{_:s,A1:y}",
                                        "?[?s]",
                                        "[[[[s]]]]"};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        cr_expect_eq(check(texts[i]), 0, "%s", texts[i]);
}

Test(descriptors, what_is_none_is_refused)
{
    static const char *const texts[] = {"",
                                        "x",
                                        "i",
                                        "i9",
                                        "i128",
                                        "u1",
                                        "f16",
                                        "bb",
                                        "i8 ",
                                        " i8",
                                        "r",
                                        "r?",
                                        "c",
                                        "c>",
                                        "c=i8",
                                        "?",
                                        "??s",
                                        "?*",
                                        "[",
                                        "[]",
                                        "[s",
                                        "[s*]",
                                        "[s*0]",
                                        "[s*01]",
                                        "[s*-1]",
                                        "[s*1",
                                        "[s*x]",
                                        "[s*99999999999]",
                                        "{",
                                        "{}",
                                        "{a}",
                                        "{a:}",
                                        "{:b}",
                                        "{a:b",
                                        "{a:b,}",
                                        "{,a:b}",
                                        "{a:b,a:s}",
                                        "{a:b;c:s}",
                                        "{1:b}",
                                        "{a-b:s}",
                                        "{a: b}",
                                        "]",
                                        "}",
                                        "{a:b}}",
                                        "{a:{b:s,b:s}}",
                                        "{a:b,b:[{c:s,c:s}]}"};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        cr_expect_eq(check(texts[i]), SPOKE_EINVAL, "%s", texts[i]);
    cr_expect_eq(spoke_descriptor_check(NULL, 0), SPOKE_EINVAL);
    cr_expect_eq(spoke_descriptor_check("s\0", 2), SPOKE_EINVAL);
}

Test(descriptors, it_ends_with_its_size)
{
    cr_expect_eq(spoke_descriptor_check("i8*3]", 2), 0);
    cr_expect_eq(spoke_descriptor_check("i64", 2), SPOKE_EINVAL);
    cr_expect_eq(spoke_descriptor_check("{a:b}", 4), SPOKE_EINVAL);
}

/* 4 KiB of one character each. */
Test(descriptors, a_text_of_opening_brackets_is_refused)
{
    static char text[SPOKE_DESCRIPTOR_MAX];

    for (const char *c = "[{?c*]}a,:"; *c != '\0'; c++) {
        memset(text, *c, sizeof text);
        cr_expect_eq(spoke_descriptor_check(text, sizeof text), SPOKE_EINVAL);
    }
}

Test(descriptors, they_nest_sixteen_deep)
{
    char text[64];

    for (size_t depth = 14; depth <= 18; depth++) {
        memset(text, '[', depth);
        text[depth] = 's';
        memset(text + depth + 1, ']', depth);
        cr_expect_eq(spoke_descriptor_check(text, 2 * depth + 1), depth <= 16 ? 0 : SPOKE_EINVAL);
        text[depth] = 't'; /* a level of its own */
        cr_expect_eq(spoke_descriptor_check(text, 2 * depth + 1), depth <= 15 ? 0 : SPOKE_EINVAL);
    }
}

Test(descriptors, they_are_no_longer_than_4_KiB)
{
    static char text[SPOKE_DESCRIPTOR_MAX + 6];
    size_t size = 0;

    text[size++] = '{';
    for (unsigned n = 0; size + 6 < SPOKE_DESCRIPTOR_MAX; n++) {
        const char field[] = {
            (char)('a' + n % 26), (char)('a' + n / 26 % 26), (char)('a' + n / 676), ':', 'b', ','};
        memcpy(text + size, field, sizeof field);
        size += sizeof field;
    }
    memcpy(text + size, "q:", 2);
    size += 2;
    while (size < SPOKE_DESCRIPTOR_MAX - 3)
        text[size++] = '?'; /* too many, if they were looked at */
    text[size] = '}';
    cr_expect_eq(spoke_descriptor_check(text, size + 1), SPOKE_EINVAL);
    size_t field = 4090;
    while (text[field - 1] != ',' && text[field - 1] != '{')
        field--;
    memset(text + field, 'z', sizeof text - field);
    memcpy(text + SPOKE_DESCRIPTOR_MAX - 3, ":b}", 3);
    cr_expect_eq(spoke_descriptor_check(text, SPOKE_DESCRIPTOR_MAX), 0);
    memcpy(text + SPOKE_DESCRIPTOR_MAX - 3, "z:b}", 4);
    cr_expect_eq(spoke_descriptor_check(text, SPOKE_DESCRIPTOR_MAX + 1), SPOKE_EINVAL);
}

Test(descriptors, the_fingerprint_of_a_text_is_that_of_its_type)
{
    uint8_t fingerprint[SPOKE_FINGERPRINT];

    cr_assert_eq(spoke_descriptor_fingerprint("i64", 3, fingerprint), 0);
    cr_expect(is_fingerprint(fingerprint,
                             "92ccbc2d9642e90d083ce719aea50246d59c88a42a9835821a78c5c5d374b4cd"));
    cr_assert_eq(spoke_descriptor_fingerprint("i65", 3, fingerprint), SPOKE_EINVAL);
    cr_expect(is_fingerprint(fingerprint,
                             "0000000000000000000000000000000000000000000000000000000000000000"));
}

/* ---- readable as ---- */

static int
readable(const char *sender, const char *receiver)
{
    return spoke_descriptor_readable(sender, strlen(sender), receiver, strlen(receiver));
}

Test(descriptors, every_type_is_readable_as_itself)
{
    static const char *const texts[] = {
        "b",  "i8", "u64", "f32",  "s",       "y",  "t",   "*",     "h",
        "r>", "r<", "r=",  "c>i8", "c<{a:s}", "?s", "[s]", "[s*3]", "{a:b,c:[{d:h}]}"};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        cr_expect_eq(readable(texts[i], texts[i]), 0, "%s", texts[i]);
}

/* The whole matrix: a number may become one that has all its values. */
Test(descriptors, numbers_widen_and_never_narrow)
{
    static const struct {
        const char *text;
        int sign, bits; /* of values: without the sign */
    } numbers[] = {{"i8", 1, 7},   {"i16", 1, 15}, {"i32", 1, 31}, {"i64", 1, 63}, {"u8", 0, 8},
                   {"u16", 0, 16}, {"u32", 0, 32}, {"u64", 0, 64}, {"f32", 2, 32}, {"f64", 2, 64}};
    size_t count = sizeof numbers / sizeof numbers[0];

    for (size_t a = 0; a < count; a++)
        for (size_t b = 0; b < count; b++) {
            bool same_sort = (numbers[a].sign == 2) == (numbers[b].sign == 2);
            bool fits = numbers[a].bits <= numbers[b].bits && numbers[a].sign <= numbers[b].sign;
            cr_expect_eq(readable(numbers[a].text, numbers[b].text),
                         same_sort && fits ? 0 : SPOKE_ETYPE, "%s as %s", numbers[a].text,
                         numbers[b].text);
        }
}

Test(descriptors, kinds_do_not_turn_into_others)
{
    static const char *const kinds[] = {"b",   "i64",   "f64",   "s",   "y",  "t",
                                        "c>s", "c<s",   "r>",    "r<",  "r=", "h",
                                        "[s]", "{a:s}", "[y*2]", "c>y", "[b]"};
    size_t count = sizeof kinds / sizeof kinds[0];

    for (size_t a = 0; a < count; a++)
        for (size_t b = 0; b < count; b++)
            cr_expect_eq(readable(kinds[a], kinds[b]), a == b ? 0 : SPOKE_ETYPE, "%s as %s",
                         kinds[a], kinds[b]);
}

#define READABLE(name, sender, receiver)                                                           \
    Test(readable, name)                                                                           \
    {                                                                                              \
        cr_expect_eq(readable(sender, receiver), 0);                                               \
    }
#define NOT_READABLE(name, sender, receiver)                                                       \
    Test(readable, name)                                                                           \
    {                                                                                              \
        cr_expect_eq(readable(sender, receiver), SPOKE_ETYPE);                                     \
    }
READABLE(a_field_more_is_skipped, "{a:s,b:i8}", "{a:s}")
READABLE(fields_may_change_places, "{a:s,b:i8}", "{b:i8,a:s}")
READABLE(a_new_optional_field_is_missing, "{a:s}", "{a:s,b:?i8}")
READABLE(no_field_in_common_but_all_optional, "{a:s}", "{b:?i8}")
READABLE(fields_widen, "{a:i8,b:u8}", "{a:i64,b:i16}")
READABLE(what_is_always_there_is_readable_as_optional, "{a:s}", "{a:?s}")
READABLE(an_optional_widens, "?i8", "?i64")
READABLE(a_value_as_a_wider_optional, "i8", "?i64")
READABLE(an_array_as_a_list, "[i8*3]", "[i16]")
READABLE(structs_in_lists_evolve, "[{a:s,x:y}]", "[{a:s,n:?i8}]")
READABLE(structs_in_arrays_evolve, "[{a:s,x:y}*2]", "[{a:s}*2]")
READABLE(structs_in_structs_evolve, "{o:{a:i8,x:h}}", "{o:{a:i16}}")
READABLE(anything_takes_everything_without_attachments, "{a:[{b:?s}]}", "*")
READABLE(anything_as_a_field, "{a:?t,b:s}", "{a:*}")
READABLE(a_name_that_begins_as_another, "{ab:s,a:i8}", "{a:i8}")
NOT_READABLE(a_field_less, "{a:s}", "{a:s,b:i8}")
NOT_READABLE(an_optional_where_a_value_is_needed, "{a:?s}", "{a:s}")
NOT_READABLE(an_optional_field_of_another_type, "{a:s}", "{a:?i8}")
NOT_READABLE(a_list_as_an_array, "[s]", "[s*3]")
NOT_READABLE(arrays_of_other_lengths, "[s*3]", "[s*30]")
NOT_READABLE(arrays_of_fewer, "[s*30]", "[s*3]")
NOT_READABLE(lists_of_other_things, "[s]", "[y]")
NOT_READABLE(anything_as_something, "*", "s")
NOT_READABLE(anything_as_an_optional, "*", "?s")
NOT_READABLE(a_descriptor_as_anything, "h", "*")
NOT_READABLE(a_channel_deep_in_anything, "{a:[{b:?{c:s,d:c>s}}]}", "*")
NOT_READABLE(a_channel_of_what_would_widen, "c>i8", "c>i16")
NOT_READABLE(a_channel_the_other_way, "c>i8", "c<i8")
NOT_READABLE(a_stream_the_other_way, "r>", "r<")
NOT_READABLE(a_stream_both_ways_as_one, "r=", "r>")
NOT_READABLE(a_struct_as_its_field, "{a:s}", "s")
NOT_READABLE(a_name_in_other_letters, "{a:s}", "{A:s}")

Test(readable, what_is_no_descriptor_is_an_error_of_its_own)
{
    cr_expect_eq(readable("{a:s", "{a:s}"), SPOKE_EINVAL);
    cr_expect_eq(readable("{a:s}", "{a:s"), SPOKE_EINVAL);
    cr_expect_eq(readable("", ""), SPOKE_EINVAL);
}

/* As many fields as there is room for, in opposite orders: the most work that two texts can be. */
Test(readable, the_longest_texts_take_no_time)
{
    static char a[SPOKE_DESCRIPTOR_MAX], b[SPOKE_DESCRIPTOR_MAX];
    enum { FIELDS = 680 };

    for (unsigned n = 0; n < FIELDS; n++) {
        const char field[] = {
            (char)('a' + n % 26), (char)('a' + n / 26 % 26), (char)('a' + n / 676), ':', 'b', ','};
        memcpy(a + 1 + 6 * (size_t)n, field, sizeof field);
        memcpy(b + 1 + 6 * (size_t)(FIELDS - 1 - n), field, sizeof field);
    }
    a[0] = b[0] = '{';
    a[6 * FIELDS] = b[6 * FIELDS] = '}';
    for (int i = 0; i < 20; i++)
        cr_assert_eq(spoke_descriptor_readable(a, 6 * FIELDS + 1, b, 6 * FIELDS + 1), 0);
}
