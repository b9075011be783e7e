/* SPDX-License-Identifier: MIT */
/* Random types and random values of them.  Everything is of one seed, and freed with it. */
#ifndef TESTS_TYPES_RANDOM_H
#define TESTS_TYPES_RANDOM_H

#include <spoke/type.h>

struct random {
    uint64_t state;
    void **memory;
    size_t count, room;
    spoke_attachment attachments[SPOKE_ATTACHMENTS_MAX]; /* of the value that was made last */
    size_t attachment_count;
};

void random_open(struct random *r, uint64_t seed);
void random_close(struct random *r);

/* Zeroed, until random_close(). */
void *random_memory(struct random *r, size_t size);
uint64_t random_below(struct random *r, uint64_t limit);

/* A type, not checked yet: its descriptor may be too long. */
spoke_value_type *random_type(struct random *r, unsigned depth);

/* Another one, as somebody would have it later or earlier: fields gone, new, wider, in other
 * places. Its values can often be read as the first one's, or the other way round. */
spoke_value_type *random_change(struct random *r, const spoke_value_type *type);

/* A value of a checked type. */
void *random_value(struct random *r, const spoke_value_type *type);

/* Is `b`, which was read as type `to`, what `a` of the type `from` says, as far as `to` has it? */
bool random_same(const spoke_value_type *from, const void *a, const spoke_value_type *to,
                 const void *b);

#endif
