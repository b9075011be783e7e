/* SPDX-License-Identifier: MIT */
/* What the tests of types share: messages written in hexadecimal digits, and checked types. */
#ifndef TESTS_TYPES_FIXTURE_H
#define TESTS_TYPES_FIXTURE_H

#include <spoke/type.h>

/* A message of these bytes, "82 05 66"; blanks are for the eye. */
spoke_msg *message_of(const char *hex);

/* Is the body of m these bytes? */
bool is_message(const spoke_msg *m, const char *hex);

/* Checks the type, which has to be right, and returns it. */
const spoke_value_type *checked(spoke_value_type *type);

bool has_descriptor(const spoke_value_type *type, const char *descriptor);
bool is_fingerprint(const uint8_t fingerprint[SPOKE_FINGERPRINT], const char *hex);

/* Encodes, compares, decodes what was encoded into `out`, and encodes that: the same again. */
void round_trip(const spoke_value_type *type, enum spoke_form form, const void *value,
                const char *hex, void *out, spoke_backing *backing);

/* For each suite: nothing is left. */
void expect_no_messages(void);

#endif
