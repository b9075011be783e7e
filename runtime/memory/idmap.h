/* SPDX-License-Identifier: MIT */
/* A map from 31-bit numbers to pointers: open addressing, half full at most.  One thread at a time.
 */
#ifndef SPK_MEMORY_IDMAP_H
#define SPK_MEMORY_IDMAP_H

#include <stdint.h>

struct spk_idmap {
    struct spk_idmap_slot *slots; /* a power of two of them */
    uint32_t mask, count;
};

int spk_idmap_set(struct spk_idmap *map, uint32_t id, void *value); /* SPOKE_ENOMEM */
void *spk_idmap_get(const struct spk_idmap *map, uint32_t id);      /* NULL if there is none */
void spk_idmap_remove(struct spk_idmap *map, uint32_t id);
void spk_idmap_fini(struct spk_idmap *map);

#endif
