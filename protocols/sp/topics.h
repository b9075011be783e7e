/* SPDX-License-Identifier: MIT */
/* A set of byte strings that answers one question: is any of them a prefix of these bytes?
 *
 * A radix tree: each edge carries a string, no two edges of a node begin with the same byte.  A
 * question follows one way down and looks at each byte once at most, however many strings there
 * are.  One thread at a time. */
#ifndef SPK_SP_TOPICS_H
#define SPK_SP_TOPICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct spk_topic_node;
struct spk_topics {
    struct spk_topic_node *root; /* NULL: the set is empty */
    size_t count;
};

/* Errors: SPOKE_ENOMEM; then the set is as before.  Adding again is no error and has no effect. */
int spk_topics_add(struct spk_topics *t, const void *bytes, size_t size);
/* SPOKE_ENOENT: it is not there.  Never lacks memory. */
int spk_topics_remove(struct spk_topics *t, const void *data, size_t size);
bool spk_topics_match(const struct spk_topics *t, const void *bytes, size_t size);
void spk_topics_fini(struct spk_topics *t);

#endif
