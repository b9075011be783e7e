/* SPDX-License-Identifier: MIT */
/* What holds for all types and all values.  A failure says its seed. */
#include <string.h>

#include "runtime/memory/pool.h"
#include "tests/support/test.h"
#include "tests/types/fixture.h"
#include "tests/types/random.h"

#define SEEDS     TEST_REPEATS(2000)
#define DEPTH     3
#define MUTATIONS 20

TestSuite(properties, .fini = expect_no_messages);

/* A type and a value of it.  False: the type's descriptor is too long, or the value has too many
 * attachments; both are rare. */
static bool
make(struct random *r, uint64_t seed, spoke_value_type **type, void **value)
{
    random_open(r, seed);
    *type = random_type(r, DEPTH);
    if (spoke_type_check(*type) != 0)
        return false;
    *value = random_value(r, *type);
    return r->attachment_count <= SPOKE_ATTACHMENTS_MAX;
}

static bool
is_same_message(const spoke_msg *a, const spoke_msg *b)
{
    return spoke_msg_size(a) == spoke_msg_size(b) &&
           memcmp(spoke_msg_body(a), spoke_msg_body(b), spoke_msg_size(a)) == 0;
}

static void
expect_round_trip(struct random *r, const spoke_value_type *type, enum spoke_form form,
                  const void *value, unsigned seed)
{
    void *out = random_memory(r, type->size);
    spoke_backing backing;
    spoke_msg *m, *again;

    cr_assert_eq(spoke_value_encode(type, form, value, r->attachments, r->attachment_count, &m), 0,
                 "seed %u", seed);
    cr_assert_eq(
        spoke_value_decode(type, form, m, r->attachments, r->attachment_count, out, &backing), 0,
        "seed %u", seed);
    cr_assert(random_same(type, value, type, out), "seed %u", seed);
    cr_assert_eq(spoke_value_encode(type, form, out, r->attachments, r->attachment_count, &again),
                 0);
    cr_assert(is_same_message(m, again), "seed %u", seed);
    spoke_msg_free(again);
    spoke_backing_free(&backing);
}

Test(properties, every_value_comes_back_in_every_form)
{
    unsigned made = 0, layouts = 0;

    for (unsigned seed = 0; seed < SEEDS; seed++) {
        struct random r;
        spoke_value_type *type;
        void *value;

        if (make(&r, seed, &type, &value)) {
            made++;
            layouts += type->has_layout;
            expect_round_trip(&r, type, SPOKE_FORM_EXACT, value, seed);
            expect_round_trip(&r, type, SPOKE_FORM_EVOLVING, value, seed);
            if (type->has_layout)
                expect_round_trip(&r, type, SPOKE_FORM_LAYOUT, value, seed);
        }
        random_close(&r);
    }
    cr_expect_gt(made, SEEDS * 9 / 10);
    cr_expect_gt(layouts, 0);
}

Test(properties, a_tables_descriptor_is_one_and_has_its_fingerprint)
{
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        char text[SPOKE_DESCRIPTOR_MAX + 1];
        uint8_t fingerprint[SPOKE_FINGERPRINT];
        struct random r;
        spoke_value_type *type;
        void *value;

        if (make(&r, seed, &type, &value)) {
            cr_assert_eq(spoke_type_descriptor(type, text, sizeof text), 0);
            cr_assert_eq(spoke_descriptor_fingerprint(text, strlen(text), fingerprint), 0);
            cr_assert_eq(memcmp(fingerprint, type->fingerprint, sizeof fingerprint), 0);
            cr_assert_eq(spoke_descriptor_readable(text, strlen(text), text, strlen(text)), 0,
                         "seed %u: %s", seed, text);
            for (size_t size = 0; size < strlen(text); size++) { /* it may begin with another */
                int rc = spoke_descriptor_check(text, size);
                cr_assert(rc == SPOKE_EINVAL || text[0] != '{');
            }
        }
        random_close(&r);
    }
}

/* From the one that `readable` allows: every value is read, and says the same. */
Test(properties, what_is_readable_is_read)
{
    unsigned readable = 0, not_readable = 0;

    for (unsigned seed = 0; seed < SEEDS; seed++) {
        char from[SPOKE_DESCRIPTOR_MAX + 1], to[SPOKE_DESCRIPTOR_MAX + 1];
        struct random r;
        spoke_value_type *type, *other;
        void *value;
        spoke_backing backing;
        spoke_msg *m;

        if (make(&r, seed, &type, &value) &&
            spoke_type_check(other = random_change(&r, type)) == 0) {
            cr_assert_eq(spoke_type_descriptor(type, from, sizeof from), 0);
            cr_assert_eq(spoke_type_descriptor(other, to, sizeof to), 0);
            int rc = spoke_descriptor_readable(from, strlen(from), to, strlen(to));
            cr_assert(rc == 0 || rc == SPOKE_ETYPE);
            readable += rc == 0;
            not_readable += rc != 0;
            if (rc == 0) {
                void *out = random_memory(&r, other->size);
                cr_assert_eq(spoke_value_encode(type, SPOKE_FORM_EVOLVING, value, r.attachments,
                                                r.attachment_count, &m),
                             0);
                cr_assert_eq(spoke_value_decode(other, SPOKE_FORM_EVOLVING, m, r.attachments,
                                                r.attachment_count, out, &backing),
                             0, "seed %u: %s as %s", seed, from, to);
                cr_assert(random_same(type, value, other, out), "seed %u: %s as %s", seed, from,
                          to);
                spoke_backing_free(&backing);
            }
        }
        random_close(&r);
    }
    cr_expect_gt(readable, SEEDS / 10);
    cr_expect_gt(not_readable, SEEDS / 10);
}

/* A byte of a good message changed: it is refused, or it is another good one, which has no other
 * encoding. */
Test(properties, there_is_one_encoding_of_a_value)
{
    unsigned accepted = 0, refused = 0;

    for (unsigned seed = 0; seed < SEEDS / 2; seed++) {
        struct random r;
        spoke_value_type *type;
        void *value;
        spoke_msg *m, *again;

        if (!make(&r, seed, &type, &value) ||
            spoke_value_encode(type, SPOKE_FORM_EXACT, value, r.attachments, r.attachment_count,
                               &m) != 0) {
            random_close(&r);
            continue;
        }
        void *out = random_memory(&r, type->size);
        for (int i = 0; i < MUTATIONS && spoke_msg_size(m) > 0; i++) {
            spoke_backing backing;
            uint8_t *body = spoke_msg_body(m);
            size_t at = random_below(&r, spoke_msg_size(m));
            uint8_t before = body[at];
            body[at] = (uint8_t)random_below(&r, 256);
            spoke_msg_dup(m);
            int rc = spoke_value_decode(type, SPOKE_FORM_EXACT, m, r.attachments,
                                        r.attachment_count, out, &backing);
            cr_assert(rc == 0 || rc == SPOKE_EDECODE, "seed %u", seed);
            if (rc != 0) {
                spoke_msg_free(m);
                refused++;
            } else {
                accepted++;
                cr_assert_eq(spoke_value_encode(type, SPOKE_FORM_EXACT, out, r.attachments,
                                                r.attachment_count, &again),
                             0, "seed %u", seed);
                cr_assert(is_same_message(m, again), "seed %u", seed);
                spoke_msg_free(again);
                spoke_backing_free(&backing);
            }
            body[at] = before;
        }
        spoke_msg_free(m);
        random_close(&r);
    }
    cr_expect_gt(accepted, SEEDS / 10);
    cr_expect_gt(refused, SEEDS / 10);
}

/* Each allocation fails once: an error, nothing is left, and then it works. */
Test(properties, without_memory_nothing_is_lost)
{
    unsigned failed = 0;

    for (unsigned seed = 0; seed < SEEDS / 4; seed++) {
        struct random r;
        spoke_value_type *type;
        void *value;
        spoke_msg *m = NULL;
        spoke_backing backing;
        int rc = SPOKE_ENOMEM;

        if (!make(&r, seed, &type, &value)) {
            random_close(&r);
            continue;
        }
        void *out = random_memory(&r, type->size), *nothing = random_memory(&r, type->size);
        for (unsigned at = 1; rc != 0; at++) {
            spk_memory_fail_after(at);
            rc = spoke_value_encode(type, SPOKE_FORM_EXACT, value, r.attachments,
                                    r.attachment_count, &m);
            spk_memory_fail_after(0);
            cr_assert(rc == 0 || (rc == SPOKE_ENOMEM && m == NULL), "seed %u", seed);
            failed += rc != 0;
        }
        rc = SPOKE_ENOMEM;
        for (unsigned at = 1; rc != 0; at++) {
            spk_memory_fail_after(at);
            rc = spoke_value_decode(type, SPOKE_FORM_EXACT, m, r.attachments, r.attachment_count,
                                    out, &backing);
            spk_memory_fail_after(0);
            cr_assert(rc == 0 || rc == SPOKE_ENOMEM, "seed %u", seed);
            if (rc != 0) {
                failed++;
                cr_assert_eq(memcmp(out, nothing, type->size), 0);
                cr_assert(backing.message == NULL && backing.memory == NULL);
            }
        }
        cr_assert(random_same(type, value, type, out));
        spoke_backing_free(&backing);
        random_close(&r);
    }
    cr_expect_gt(failed, SEEDS / 4);
}
