/* SPDX-License-Identifier: MIT */
/* Bytes that somebody changes while the library looks at them, as a peer can that shares the
 * memory: between the first walk and the second, where memory is asked for. */
#include <string.h>

#include "runtime/memory/pool.h"
#include "tests/support/test.h"
#include "tests/types/fixture.h"

TestSuite(changing, .fini = expect_no_messages);

static struct {
    void *at;
    const void *bytes;
    size_t size;
    int times;
} change;

static bool
change_now(void *ctx)
{
    (void)ctx;
    change.times++;
    memcpy(change.at, change.bytes, change.size);
    return false;
}

static void
arm(void *at, const void *bytes, size_t size)
{
    change.at = at;
    change.bytes = bytes;
    change.size = size;
    change.times = 0;
    spk_memory_set_fault(change_now, NULL);
}

static void
disarm(void)
{
    spk_memory_set_fault(NULL, NULL);
    cr_assert_gt(change.times, 0);
}

#define PAIR(FIELD, S) FIELD(S, LIST(U64), numbers) FIELD(S, BYTES, rest)
SPOKE_STRUCT(pair, PAIR);
SPOKE_STRUCT_TYPE(pair, PAIR);

enum { SIZE = 37 };

/* One number and 32 bytes; the same as 32 numbers and one byte. */
static void
write_messages(uint8_t few[SIZE], uint8_t many[SIZE])
{
    memset(few, 1, SIZE);
    memset(many, 1, SIZE);
    memcpy(few, "\x82\x81\x01\x58\x20", 5);
    memcpy(many, "\x82\x98\x20", 3);
    many[35] = 0x41;
}

static int
decode(uint8_t *bytes, struct pair *out)
{
    spoke_backing backing;
    spoke_msg *m;

    cr_assert_eq(spoke_msg_wrap(&m, bytes, SIZE, NULL, NULL), 0);
    int rc = spoke_value_decode(checked(&pair_type), SPOKE_FORM_EXACT, m, NULL, 0, out, &backing);
    if (rc != 0)
        spoke_msg_free(m);
    spoke_backing_free(&backing);
    return rc;
}

Test(changing, a_list_that_grows_stays_within_its_memory)
{
    uint8_t few[SIZE], many[SIZE], bytes[SIZE];
    struct pair out;
    spoke_backing backing;
    spoke_msg *m;

    write_messages(few, many);
    cr_assert_eq(decode(few, &out), 0); /* both are values */
    cr_assert_eq(decode(many, &out), 0);
    memcpy(bytes, few, SIZE);
    cr_assert_eq(spoke_msg_wrap(&m, bytes, SIZE, NULL, NULL), 0);
    arm(bytes, many, SIZE);
    cr_expect_eq(spoke_value_decode(&pair_type, SPOKE_FORM_EXACT, m, NULL, 0, &out, &backing),
                 SPOKE_EDECODE);
    disarm();
    cr_expect_eq(out.numbers.count, 0);
    cr_expect_null(backing.memory);
    spoke_msg_free(m);
}

Test(changing, a_list_that_shrinks_is_what_it_is_then)
{
    uint8_t few[SIZE], many[SIZE], bytes[SIZE];
    struct pair out;
    spoke_backing backing;
    spoke_msg *m;

    write_messages(few, many);
    memcpy(bytes, many, SIZE);
    cr_assert_eq(spoke_msg_wrap(&m, bytes, SIZE, NULL, NULL), 0);
    arm(bytes, few, SIZE);
    cr_expect_eq(
        spoke_value_decode(checked(&pair_type), SPOKE_FORM_EXACT, m, NULL, 0, &out, &backing), 0);
    disarm();
    cr_expect_eq(out.numbers.count, 1);
    cr_expect_eq(out.rest.size, 32);
    spoke_backing_free(&backing);
}

Test(changing, a_value_that_changes_while_it_is_encoded_is_refused)
{
    static const uint8_t bytes[300];
    struct pair small = {.rest = {bytes, 1}}, large = {.rest = {bytes, sizeof bytes}}, value;
    spoke_msg *m;

    value = small;
    arm(&value, &large, sizeof value);
    cr_expect_eq(spoke_value_encode(checked(&pair_type), SPOKE_FORM_EXACT, &value, NULL, 0, &m),
                 SPOKE_EINVAL);
    disarm();
    cr_expect_null(m);
    value = large;
    arm(&value, &small, sizeof value);
    cr_expect_eq(spoke_value_encode(&pair_type, SPOKE_FORM_EXACT, &value, NULL, 0, &m),
                 SPOKE_EINVAL);
    disarm();
    cr_expect_null(m);
}
