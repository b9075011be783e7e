/* SPDX-License-Identifier: MIT */
/* What the files about types share: kinds by number, and walking a table. */
#ifndef SPK_CHANNEL_TYPES_H
#define SPK_CHANNEL_TYPES_H

#include <spoke/type.h>

/* By kind; TYPE has none of it. */
struct spk_kind {
    const char *text; /* in a descriptor; RECEIVER and SENDER: what stands before their type */
    size_t size;      /* of the C type */
    int64_t least;    /* of an integer; … */
    uint64_t most;    /* 0: it is none */
    uint8_t attachment, direction; /* 0: it is none */
};
extern const struct spk_kind spk_kinds[];

/* Of one item of a field: what LIST, ARRAY and OPTIONAL hold. */
static inline size_t
spk_item_size(const spoke_field *f)
{
    return f->kind == SPOKE_KIND_TYPE ? f->of->size : spk_kinds[f->kind].size;
}

/* A type that is one field, and no struct. */
static inline bool
spk_is_plain(const spoke_value_type *t)
{
    return t->fields[0].name == NULL;
}

bool spk_is_name(const char *name); /* of a field */
bool spk_type_is_checked(const spoke_value_type *t);

/* Indices of attachments, each of which is named once. */
struct spk_naming {
    const spoke_attachment *attachments;
    size_t count, named;
    uint64_t seen[SPOKE_ATTACHMENTS_MAX / 64];
};

/* The field of this kind names the attachment with this index.  False: there is none, it is of
 * another kind, or has been named before. */
bool spk_naming_add(struct spk_naming *n, enum spoke_kind kind, uint64_t index);

/* The members of a value that has a layout, and nothing between them, to zeroed memory of its size.
 * SPOKE_EINVAL: a bool that is neither 0 nor 1, a time with too many ns. */
int spk_layout_copy(const spoke_value_type *type, void *to, const void *from);

#define SPK_SECOND 1000000000u /* ns */

/* What a list in any table looks like in memory. */
struct spk_list {
    const void *items;
    size_t count;
};

#endif
