/* SPDX-License-Identifier: MIT */
/* What the opening of a stream says of it: a map of CBOR (docs/wire.md, "Channels"). */
#ifndef SPK_CHANNEL_META_H
#define SPK_CHANNEL_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <spoke/channel.h>

#define SPK_META_NAME 255u /* bytes */

enum spk_role {
    SPK_ROLE_CHANNEL = 1,
    SPK_ROLE_NESTED,
    SPK_ROLE_ATTACHED_STREAM,
    SPK_ROLE_PORT,
    SPK_ROLE_GATEWAY,
    SPK_ROLE_STREAM,
    SPK_ROLES
};

enum spk_meta_direction { SPK_META_OPENER_SENDS = 1, SPK_META_OPENER_RECEIVES, SPK_META_BOTH };

struct spk_meta {
    enum spk_role role;
    uint64_t parent; /* NESTED, ATTACHED_STREAM */
    uint8_t direction;
    const char *name; /* PORT; GATEWAY: the target.  Not terminated */
    size_t name_size;
    bool has_type, has_layout;
    uint8_t type[SPOKE_FINGERPRINT], layout[SPOKE_FINGERPRINT];
    int64_t count;          /* PORT; -1: no end */
    uint64_t limit;         /* … of messages, if the opener receives */
    uint64_t max_message;   /* 0: it says nothing */
    const char *descriptor; /* PORT; NULL: none */
    size_t descriptor_size;
};

/* Into `to`; gives its size, 0: it has no room. */
size_t spk_meta_encode(uint8_t *to, size_t size, const struct spk_meta *meta);
/* Texts point into `data`.  SPOKE_MUX_NONE, or the code to refuse it with. */
uint64_t spk_meta_decode(const uint8_t *data, size_t size, struct spk_meta *meta);

#endif
