/* SPDX-License-Identifier: MIT */
/* latest.h: a list in the order of arrival, and a hash table of chains by topic. */
#include "protocols/sp/latest.h"

#include <string.h>

#include "runtime/memory/message.h"
#include "runtime/memory/pool.h"
#include "runtime/memory/queue.h"

#define CHAINS_FIRST 16u

struct spk_latest_note {
    struct spk_link order;
    struct spk_latest_note *next; /* in its chain */
    spoke_msg *m;
    size_t topic;
    uint32_t hash;
};

void
spk_latest_init(struct spk_latest *l, uint32_t max_messages, size_t max_bytes)
{
    *l = (struct spk_latest){.max_messages = max_messages, .max_bytes = max_bytes};
    spk_list_init(&l->order);
}

void
spk_latest_fini(struct spk_latest *l)
{
    for (spoke_msg *m; (m = spk_latest_pop(l)) != NULL;)
        spoke_msg_free(m);
    spk_free(l->map);
    l->map = NULL;
}

bool
spk_latest_full(const struct spk_latest *l)
{
    return l->count >= l->max_messages || l->bytes >= l->max_bytes;
}

/* FNV-1a */
static uint32_t
hash_of(const uint8_t *bytes, size_t size)
{
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return hash ^ hash >> 15;
}

/* Where the pointer to the note of this topic is, or would be. */
static struct spk_latest_note **
find(struct spk_latest *l, const uint8_t *bytes, size_t topic, uint32_t hash)
{
    struct spk_latest_note **at = &l->map[hash & l->mask];

    while (*at != NULL && ((*at)->hash != hash || (*at)->topic != topic ||
                           memcmp((*at)->m->body, bytes, topic) != 0))
        at = &(*at)->next;
    return at;
}

/* Take a note out, and give its message. */
static spoke_msg *
take_out(struct spk_latest *l, struct spk_latest_note **at)
{
    struct spk_latest_note *note = *at;
    spoke_msg *m = note->m;

    *at = note->next;
    spk_list_remove(&note->order);
    l->count--;
    l->bytes -= spk_queue_cost(m);
    spk_pool_free_other(note);
    return m;
}

spoke_msg *
spk_latest_replace(struct spk_latest *l, const spoke_msg *m, size_t topic)
{
    if (l->count == 0)
        return NULL;
    struct spk_latest_note **at = find(l, m->body, topic, hash_of(m->body, topic));
    return *at == NULL ? NULL : take_out(l, at);
}

/* Twice as many chains.  Without memory for them the old ones become longer. */
static int
grow(struct spk_latest *l)
{
    uint32_t chains = l->map == NULL ? CHAINS_FIRST : (l->mask + 1) * 2;
    struct spk_latest_note **map = spk_zalloc(chains * sizeof *map);

    if (map == NULL)
        return l->map == NULL ? SPOKE_ENOMEM : 0;
    SPK_LIST_EACH(link, &l->order)
    {
        struct spk_latest_note *note = SPK_OWNER(link, struct spk_latest_note, order);

        note->next = map[note->hash & (chains - 1)];
        map[note->hash & (chains - 1)] = note;
    }
    spk_free(l->map);
    l->map = map;
    l->mask = chains - 1;
    return 0;
}

int
spk_latest_push(struct spk_latest *l, spoke_msg *m, size_t topic)
{
    struct spk_latest_note *note;
    int rc;

    if ((l->map == NULL || l->count > l->mask) && (rc = grow(l)) != 0)
        return rc;
    if ((note = spk_pool_alloc_other(sizeof *note)) == NULL)
        return SPOKE_ENOMEM;
    *note = (struct spk_latest_note){
        .m = m,
        .topic = topic,
        .hash = hash_of(m->body, topic),
    };
    struct spk_latest_note **chain = &l->map[note->hash & l->mask];
    note->next = *chain;
    *chain = note;
    spk_list_append(&l->order, &note->order);
    l->count++;
    l->bytes += spk_queue_cost(m);
    return 0;
}

spoke_msg *
spk_latest_pop(struct spk_latest *l)
{
    if (l->count == 0)
        return NULL;
    struct spk_latest_note *note = SPK_OWNER(l->order.next, struct spk_latest_note, order);
    struct spk_latest_note **at = &l->map[note->hash & l->mask];

    while (*at != note)
        at = &(*at)->next;
    return take_out(l, at);
}
