/* SPDX-License-Identifier: MIT */
/* CBOR, one item at a time, in the core deterministic encoding of RFC 8949 (4.2.1) only.  The one
 * user of libcbor. */
#ifndef SPK_CHANNEL_CBOR_H
#define SPK_CHANNEL_CBOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPK_CBOR_DEPTH 16u /* arrays, maps and tags in each other */

enum spk_cbor_kind {
    SPK_CBOR_NOTHING,
    SPK_CBOR_UINT,   /* number */
    SPK_CBOR_NEGINT, /* -1 - number */
    SPK_CBOR_BYTES,  /* number bytes at data */
    SPK_CBOR_TEXT,   /* the same, UTF-8 */
    SPK_CBOR_ARRAY,  /* number items follow; there are at least so many bytes */
    SPK_CBOR_MAP,    /* number pairs follow; there are at least twice so many bytes */
    SPK_CBOR_TAG,    /* of the item that follows */
    SPK_CBOR_FLOAT,  /* real */
    SPK_CBOR_BOOL,   /* number */
    SPK_CBOR_NULL,
    SPK_CBOR_UNDEFINED
};

struct spk_cbor_item {
    enum spk_cbor_kind kind;
    uint64_t number;
    const uint8_t *data;
    double real;
};

struct spk_cbor_reader {
    const uint8_t *at, *end;
};

/* The next item, without what an array, map or tag holds.  SPOKE_EDECODE: there is none whole, it
 * is of indefinite length, not as short as it can be, a text that is not UTF-8, or unassigned. */
int spk_cbor_next(struct spk_cbor_reader *r, struct spk_cbor_item *out);

/* Over one whole item with all that it holds, nested at most `levels` deep, keys of maps in order
 * and different.  SPOKE_EDECODE as above. */
int spk_cbor_skip(struct spk_cbor_reader *r, unsigned levels);

/* Writes to at … end, or only counts if `at` is NULL.  What does not fit is not written, and
 * counted: who counted first knows that there is room, unless what is written has changed
 * meanwhile. */
struct spk_cbor_writer {
    uint8_t *at, *end;
    size_t size;
};

/* An integer, or the head of what has a length: UINT, NEGINT, BYTES, TEXT, ARRAY, MAP, BOOL, NULL.
 */
void spk_cbor_put(struct spk_cbor_writer *w, enum spk_cbor_kind kind, uint64_t number);
void spk_cbor_put_float(struct spk_cbor_writer *w, double value);
void spk_cbor_put_raw(struct spk_cbor_writer *w, const void *data, size_t size);

bool spk_is_utf8(const uint8_t *data, size_t size);

#endif
