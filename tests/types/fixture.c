/* SPDX-License-Identifier: MIT */
#include "tests/types/fixture.h"

#include <string.h>

#include "tests/support/test.h"

static int
digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static size_t
bytes_of(const char *hex, uint8_t *out, size_t room)
{
    size_t size = 0;

    for (; *hex != '\0'; hex++) {
        if (*hex == ' ')
            continue;
        cr_assert(digit(hex[0]) >= 0 && digit(hex[1]) >= 0 && size < room);
        out[size++] = (uint8_t)(digit(hex[0]) << 4 | digit(hex[1]));
        hex++;
    }
    return size;
}

/* In memory of exactly its size, so that a sanitizer sees a read past the end. */
spoke_msg *
message_of(const char *hex)
{
    static uint8_t bytes[4096];
    spoke_msg *m;

    cr_assert_eq(spoke_msg_from(&m, bytes, bytes_of(hex, bytes, sizeof bytes)), 0);
    return m;
}

bool
is_message(const spoke_msg *m, const char *hex)
{
    static uint8_t bytes[4096];
    size_t size = bytes_of(hex, bytes, sizeof bytes);

    return spoke_msg_size(m) == size && memcmp(spoke_msg_body(m), bytes, size) == 0;
}

const spoke_value_type *
checked(spoke_value_type *type)
{
    cr_assert_eq(spoke_type_check(type), 0);
    return type;
}

bool
has_descriptor(const spoke_value_type *type, const char *descriptor)
{
    char text[SPOKE_DESCRIPTOR_MAX + 1];

    return spoke_type_descriptor(type, text, sizeof text) == 0 && strcmp(text, descriptor) == 0;
}

bool
is_fingerprint(const uint8_t fingerprint[SPOKE_FINGERPRINT], const char *hex)
{
    uint8_t bytes[SPOKE_FINGERPRINT];

    return bytes_of(hex, bytes, sizeof bytes) == sizeof bytes &&
           memcmp(fingerprint, bytes, sizeof bytes) == 0;
}

void
round_trip(const spoke_value_type *type, enum spoke_form form, const void *value, const char *hex,
           void *out, spoke_backing *backing)
{
    spoke_msg *m, *again;

    cr_assert_eq(spoke_value_encode(type, form, value, NULL, 0, &m), 0);
    cr_assert(is_message(m, hex));
    cr_assert_eq(spoke_value_decode(type, form, m, NULL, 0, out, backing), 0);
    cr_assert_eq(backing->message, m);
    cr_assert_eq(spoke_value_encode(type, form, out, NULL, 0, &again), 0);
    cr_assert(is_message(again, hex));
    spoke_msg_free(again);
}

void
expect_no_messages(void)
{
    struct spoke_memory_stats stats;

    spoke_memory_stats(&stats);
    cr_expect_eq(stats.messages, 0);
    cr_expect_eq(stats.chunks, 0);
}
