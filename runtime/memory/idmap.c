/* SPDX-License-Identifier: MIT */
/* Linear probing; removal closes the gap, so there are no tombstones.  To find the end of what it
 * has to move it looks at all slots up to the next empty one.  The numbers are consecutive, so that
 * their places must not be: each is a golden ratio's turn from the last one's, which leaves empty
 * slots everywhere. */
#include "runtime/memory/idmap.h"

#include <stddef.h>

#include <spoke/error.h>

#include "runtime/memory/pool.h"

struct spk_idmap_slot {
    uint32_t id; /* 0: empty */
    void *value;
};

static uint32_t
place_of(const struct spk_idmap *map, uint32_t id)
{
    uint32_t turn = id * 2654435769u; /* 2^32 divided by the golden ratio */

    return (uint32_t)((turn * (map->mask + 1ull)) >> 32);
}

static struct spk_idmap_slot *
probe(const struct spk_idmap *map, uint32_t id)
{
    uint32_t i = place_of(map, id);

    while (map->slots[i].id != 0 && map->slots[i].id != id)
        i = (i + 1) & map->mask;
    return &map->slots[i];
}

static int
grow(struct spk_idmap *map)
{
    struct spk_idmap larger = {.count = map->count};
    uint32_t size = map->slots == NULL ? 8 : (map->mask + 1) * 2;

    if ((larger.slots = spk_zalloc(size * sizeof *larger.slots)) == NULL)
        return SPOKE_ENOMEM;
    larger.mask = size - 1;
    for (uint32_t i = 0; map->slots != NULL && i <= map->mask; i++)
        if (map->slots[i].id != 0)
            *probe(&larger, map->slots[i].id) = map->slots[i];
    spk_free(map->slots);
    *map = larger;
    return 0;
}

int
spk_idmap_set(struct spk_idmap *map, uint32_t id, void *value)
{
    struct spk_idmap_slot *slot;
    int rc;

    if (map->slots == NULL || (map->count + 1) * 2 > map->mask + 1)
        if ((rc = grow(map)) != 0)
            return rc;
    slot = probe(map, id);
    if (slot->id == 0)
        map->count++;
    slot->id = id;
    slot->value = value;
    return 0;
}

void *
spk_idmap_get(const struct spk_idmap *map, uint32_t id)
{
    return map->slots == NULL || id == 0 ? NULL : probe(map, id)->value;
}

void
spk_idmap_remove(struct spk_idmap *map, uint32_t id)
{
    struct spk_idmap_slot *slot;
    uint32_t gap, i;

    if (map->slots == NULL || (slot = probe(map, id))->id != id)
        return;
    map->count--;
    gap = i = (uint32_t)(slot - map->slots);
    for (;;) { /* move back whoever could not have its own place */
        map->slots[gap] = (struct spk_idmap_slot){0, NULL};
        do {
            i = (i + 1) & map->mask;
            if (map->slots[i].id == 0)
                return;
        } while (((i - place_of(map, map->slots[i].id)) & map->mask) < ((i - gap) & map->mask));
        map->slots[gap] = map->slots[i];
        gap = i;
    }
}

void
spk_idmap_fini(struct spk_idmap *map)
{
    spk_free(map->slots);
    map->slots = NULL;
    map->mask = map->count = 0;
}
