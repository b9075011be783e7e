/* SPDX-License-Identifier: MIT */
/* Doubly linked lists whose links lie in the listed things.  A link that is in no list points to
 * itself. */
#ifndef SPK_MEMORY_LIST_H
#define SPK_MEMORY_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct spk_link {
    struct spk_link *next, *prev;
};

/* The thing of type `type` whose member `member` is at `pointer`. */
#define SPK_OWNER(pointer, type, member)                                                           \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline void
spk_list_init(struct spk_link *list)
{
    list->next = list->prev = list;
}

static inline bool
spk_list_empty(const struct spk_link *list)
{
    return list->next == list;
}

static inline void
spk_list_append(struct spk_link *list, struct spk_link *link)
{
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}

/* Take a link out of whatever list it is in; harmless if it is in none. */
static inline void
spk_list_remove(struct spk_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->next = link->prev = link;
}

/* Take the first link, NULL if there is none. */
static inline struct spk_link *
spk_list_take(struct spk_link *list)
{
    struct spk_link *first = list->next;

    if (first == list)
        return NULL;
    spk_list_remove(first);
    return first;
}

/* Move everything in `from` to the end of `to`. */
static inline void
spk_list_splice(struct spk_link *to, struct spk_link *from)
{
    if (spk_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    spk_list_init(from);
}

#define SPK_LIST_EACH(link, list)                                                                  \
    for (struct spk_link *link = (list)->next; link != (list); link = link->next)

#endif
