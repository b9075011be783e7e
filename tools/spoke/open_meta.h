/* SPDX-License-Identifier: MIT */
/* What a stream of a carrier is for, as its opener says it in the metadata (docs/wire.md): a map in
 * deterministic CBOR with whole numbers as keys.
 *
 *   0   role: 5 a connection through a gateway; 6 a stream of the application's
 *   4   role 5: what it is to be connected to, a text of 1 to 255 bytes; none: the other side knows
 *   64  role 6: a request to listen at this URL, a text of 1 to 255 bytes, and to give what comes
 *       in as streams for 4
 *
 * Other keys from 64 on are skipped.  Pure: no I/O, no state. */
#ifndef TOOLS_SPOKE_OPEN_META_H
#define TOOLS_SPOKE_OPEN_META_H

#include "tool.h"

#define OPEN_META_TEXT_MOST 255
#define OPEN_META_MOST      (2 * OPEN_META_TEXT_MOST + 16) /* bytes of one that is written here */

enum { OPEN_META_GATEWAY = 5, OPEN_META_APPLICATION = 6 };

struct open_meta {
    uint64_t role;
    const char *target, *listen; /* borrowed, no NUL behind; NULL: not there */
    size_t target_size, listen_size;
};

/* How many bytes were written; 0: a text is too long. */
size_t open_meta_write(uint8_t out[OPEN_META_MOST], const char *target, const char *listen);

/* SPOKE_MUX_NONE, or why such a stream is refused: SPOKE_MUX_PROTOCOL, SPOKE_MUX_UNSUPPORTED.  No
 * bytes at all are a gateway's connection, as a program makes them that has nothing to say. */
uint64_t open_meta_read(struct open_meta *out, const void *bytes, size_t size);

#endif
