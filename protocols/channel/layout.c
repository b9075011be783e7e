/* SPDX-License-Identifier: MIT */
/* Values as the bytes of their C type: only what the table names, so that neither holes nor other
 * members go to a peer or come from one. */
#include "protocols/channel/types.h"

static int
copy_time(uint8_t *to, const uint8_t *from)
{
    spoke_time time;

    memcpy(&time, from, sizeof time);
    memcpy(to + offsetof(spoke_time, s), &time.s, sizeof time.s);
    memcpy(to + offsetof(spoke_time, ns), &time.ns, sizeof time.ns);
    return time.ns < SPK_SECOND ? 0 : SPOKE_EINVAL;
}

static int
copy_item(const spoke_field *f, uint8_t *to, const uint8_t *from)
{
    if (f->kind == SPOKE_KIND_TYPE)
        return spk_layout_copy(f->of, to, from);
    if (f->kind == SPOKE_KIND_TIME)
        return copy_time(to, from);
    memcpy(to, from, spk_kinds[f->kind].size);
    return f->kind == SPOKE_KIND_BOOL && *from > 1 ? SPOKE_EINVAL : 0;
}

int
spk_layout_copy(const spoke_value_type *type, void *to, const void *from)
{
    int rc = 0;

    for (size_t i = 0; i < type->count && rc == 0; i++) {
        const spoke_field *f = &type->fields[i];
        size_t size = spk_item_size(f), count = f->shape == SPOKE_SHAPE_ARRAY ? f->count : 1;
        for (size_t k = 0; k < count && rc == 0; k++) {
            size_t at = f->offset + k * size;
            rc = copy_item(f, (uint8_t *)to + at, (const uint8_t *)from + at);
        }
    }
    return rc;
}
