/* SPDX-License-Identifier: MIT */
/* Fields that name what is attached to the message. */
#include <string.h>

#include "tests/support/test.h"
#include "tests/types/fixture.h"

TestSuite(attachments, .fini = expect_no_messages);

SPOKE_PLAIN_TYPE(number, U32);
#define PARCEL(FIELD, S)                                                                           \
    FIELD(S, SENDER(number), reply)                                                                \
    FIELD(S, RECEIVER(number), feed)                                                               \
    FIELD(S, STREAM_READ, in)                                                                      \
    FIELD(S, STREAM_WRITE, out)                                                                    \
    FIELD(S, STREAM, both)                                                                         \
    FIELD(S, LIST(FD), files)
SPOKE_STRUCT(parcel, PARCEL);
SPOKE_STRUCT_TYPE(parcel, PARCEL);

static const spoke_attachment all[] = {
    {SPOKE_ATTACHED_FD, SPOKE_ATTACHED_BOTH},       {SPOKE_ATTACHED_CHANNEL, SPOKE_ATTACHED_WRITES},
    {SPOKE_ATTACHED_STREAM, SPOKE_ATTACHED_BOTH},   {SPOKE_ATTACHED_STREAM, SPOKE_ATTACHED_WRITES},
    {SPOKE_ATTACHED_STREAM, SPOKE_ATTACHED_READS},  {SPOKE_ATTACHED_CHANNEL, SPOKE_ATTACHED_READS},
    {SPOKE_ATTACHED_FD_PROXY, SPOKE_ATTACHED_READS}};
enum { ALL = sizeof all / sizeof all[0] };

static const uint32_t files[] = {6, 0};

static struct parcel
right_parcel(void)
{
    struct parcel p = {.reply = 1, .feed = 5, .in = 4, .out = 3, .both = 2, .files = {files, 2}};

    return p;
}

static int
encode(const struct parcel *p, const spoke_attachment *attachments, size_t count, spoke_msg **out)
{
    return spoke_value_encode(checked(&parcel_type), SPOKE_FORM_EXACT, p, attachments, count, out);
}

Test(attachments, each_is_named_once_by_a_field_of_its_kind)
{
    struct parcel in = right_parcel(), out;
    spoke_backing backing;
    spoke_msg *m;

    cr_assert_eq(encode(&in, all, ALL, &m), 0);
    cr_expect(is_message(m, "86 01 05 04 03 02 82 06 00"));
    cr_assert_eq(spoke_value_decode(&parcel_type, SPOKE_FORM_EXACT, m, all, ALL, &out, &backing),
                 0);
    cr_expect_eq(out.reply, 1);
    cr_expect_eq(out.feed, 5);
    cr_expect_eq(out.in, 4);
    cr_expect_eq(out.out, 3);
    cr_expect_eq(out.both, 2);
    cr_assert_eq(out.files.count, 2);
    cr_expect_eq(out.files.items[0], 6);
    spoke_backing_free(&backing);
}

/* Both ends refuse it: the sender's value, and the message as somebody else made it. */
static void
refuse(const struct parcel *p, const spoke_attachment *attachments, size_t count, const char *hex)
{
    spoke_msg *m;
    struct parcel out;
    spoke_backing backing;

    cr_expect_eq(encode(p, attachments, count, &m), SPOKE_EINVAL);
    cr_expect_null(m);
    m = message_of(hex);
    cr_expect_eq(
        spoke_value_decode(&parcel_type, SPOKE_FORM_EXACT, m, attachments, count, &out, &backing),
        SPOKE_EDECODE);
    cr_expect_null(backing.message);
    spoke_msg_free(m);
}

Test(attachments, one_that_is_not_there)
{
    struct parcel p = right_parcel();

    p.reply = ALL;
    refuse(&p, all, ALL, "86 07 05 04 03 02 82 06 00");
    p.reply = UINT32_MAX;
    refuse(&p, all, ALL, "86 1a ffffffff 05 04 03 02 82 06 00");
    p = right_parcel();
    refuse(&p, NULL, 0, "86 01 05 04 03 02 82 06 00");
}

Test(attachments, an_index_beyond_all_numbers)
{
    spoke_msg *m = message_of("86 1b 0000000100000001 05 04 03 02 82 06 00");
    struct parcel out;
    spoke_backing backing;

    cr_expect_eq(
        spoke_value_decode(checked(&parcel_type), SPOKE_FORM_EXACT, m, all, ALL, &out, &backing),
        SPOKE_EDECODE);
    spoke_msg_free(m);
}

Test(attachments, one_named_twice)
{
    static const uint32_t twice[] = {6, 6};
    struct parcel p = right_parcel();

    p.files.items = twice;
    refuse(&p, all, ALL, "86 01 05 04 03 02 82 06 06");
}

Test(attachments, one_that_nobody_names)
{
    struct parcel p = right_parcel();

    p.files.count = 1;
    refuse(&p, all, ALL, "86 01 05 04 03 02 81 06");
}

/* Each field against each attachment that is none of its. */
Test(attachments, fields_of_other_kinds)
{
    for (uint8_t kind = 0; kind <= 5; kind++)
        for (uint8_t direction = 0; direction <= 4; direction++)
            for (size_t which = 0; which < ALL; which++) {
                spoke_attachment some[ALL];
                struct parcel p = right_parcel();
                bool proxy = kind == SPOKE_ATTACHED_FD_PROXY;
                bool right = all[which].kind == SPOKE_ATTACHED_CHANNEL
                                 ? kind == SPOKE_ATTACHED_CHANNEL &&
                                       direction == all[which].direction
                             : all[which].kind == SPOKE_ATTACHED_STREAM
                                 ? (kind == SPOKE_ATTACHED_STREAM || proxy) &&
                                       direction == all[which].direction
                                 : kind == SPOKE_ATTACHED_FD || proxy;
                spoke_msg *m;

                memcpy(some, all, sizeof some);
                some[which] = (spoke_attachment){kind, direction};
                if (!right) {
                    refuse(&p, some, ALL, "86 01 05 04 03 02 82 06 00");
                    continue;
                }
                cr_expect_eq(encode(&p, some, ALL, &m), 0);
                spoke_msg_free(m);
            }
}

Test(attachments, more_than_a_value_can_have)
{
    static spoke_attachment many[SPOKE_ATTACHMENTS_MAX + 1];
    struct parcel p = right_parcel(), out;
    spoke_backing backing;
    spoke_msg *m;

    cr_expect_eq(encode(&p, many, SPOKE_ATTACHMENTS_MAX + 1, &m), SPOKE_EINVAL);
    cr_expect_eq(encode(&p, NULL, 1, &m), SPOKE_EINVAL);
    m = message_of("00");
    cr_expect_eq(spoke_value_decode(&parcel_type, SPOKE_FORM_EXACT, m, many,
                                    SPOKE_ATTACHMENTS_MAX + 1, &out, &backing),
                 SPOKE_EINVAL);
    spoke_msg_free(m);
}

SPOKE_PLAIN_TYPE(descriptors, LIST(FD));

Test(attachments, as_many_as_a_value_can_have)
{
    static spoke_attachment many[SPOKE_ATTACHMENTS_MAX];
    static uint32_t indices[SPOKE_ATTACHMENTS_MAX];
    descriptors in = {indices, SPOKE_ATTACHMENTS_MAX}, out;
    spoke_backing backing;
    spoke_msg *m;

    for (uint32_t i = 0; i < SPOKE_ATTACHMENTS_MAX; i++) {
        many[i] = (spoke_attachment){SPOKE_ATTACHED_FD, SPOKE_ATTACHED_BOTH};
        indices[i] = SPOKE_ATTACHMENTS_MAX - 1 - i;
    }
    cr_assert_eq(spoke_value_encode(checked(&descriptors_type), SPOKE_FORM_EXACT, &in, many,
                                    SPOKE_ATTACHMENTS_MAX, &m),
                 0);
    cr_assert_eq(spoke_value_decode(&descriptors_type, SPOKE_FORM_EXACT, m, many,
                                    SPOKE_ATTACHMENTS_MAX, &out, &backing),
                 0);
    cr_expect_eq(out.count, SPOKE_ATTACHMENTS_MAX);
    spoke_backing_free(&backing);
}

/* A field that this program does not know may name them. */
#define NARROW(FIELD, S) FIELD(S, STREAM_READ, in)
SPOKE_STRUCT(narrow, NARROW);
SPOKE_STRUCT_TYPE(narrow, NARROW);

Test(attachments, in_the_evolving_form_some_may_be_left)
{
    struct parcel in = right_parcel();
    struct narrow out;
    spoke_backing backing;
    spoke_msg *m;

    cr_assert_eq(spoke_value_encode(checked(&parcel_type), SPOKE_FORM_EVOLVING, &in, all, ALL, &m),
                 0);
    cr_assert_eq(
        spoke_value_decode(checked(&narrow_type), SPOKE_FORM_EVOLVING, m, all, ALL, &out, &backing),
        0);
    cr_expect_eq(out.in, 4);
    spoke_backing_free(&backing);
}

Test(attachments, a_layout_has_none)
{
    uint32_t in = 1, out;
    spoke_backing backing;
    spoke_msg *m;

    cr_expect_eq(spoke_value_encode(checked(&number_type), SPOKE_FORM_LAYOUT, &in, all, 1, &m),
                 SPOKE_EINVAL);
    m = message_of("01 00 00 00");
    cr_expect_eq(spoke_value_decode(&number_type, SPOKE_FORM_LAYOUT, m, all, 1, &out, &backing),
                 SPOKE_EDECODE);
    cr_expect_eq(out, 0);
    spoke_msg_free(m);
}
