/* SPDX-License-Identifier: MIT */
/* A second reading of the bytes of docs/wire.md, for the fuzz targets to compare with: slow, of
 * bytes that lie in one piece, and without a line of the library's. */
#ifndef TESTS_FUZZ_SUPPORT_REFERENCE_H
#define TESTS_FUZZ_SUPPORT_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a peer has sent after its handshake, and how much of it has been understood. */
struct stream {
    const uint8_t *bytes;
    size_t size, at;
    bool ipc;     /* messages begin with 01 */
    size_t limit; /* SPOKE_OPT_MAX_RECV_SIZE */
};

/* The next message: 1 and where it lies; 0: there is no whole one yet; or the error that the
 * connection ends with (SPOKE_EPROTO, SPOKE_EMSGSIZE). */
int stream_next(struct stream *s, const uint8_t **message, size_t *size);

/* Put the bytes of such a message's beginning at `to`, which has room for 9; returns how many. */
size_t stream_head(uint8_t *to, bool ipc, uint64_t length);

/* Bytes of the words in front of a body, up to and including the first one with the highest bit;
 * SPOKE_EPROTO: there is none, SPOKE_ELIMIT: not among the first `most` words. */
long words_end(const uint8_t *bytes, size_t size, size_t most);

/* The first bytes of a peer: 0 (all is well so far), or how the connection ends. */
int hello_verdict(const uint8_t *bytes, size_t size, int protocol);

uint32_t reference_get32(const uint8_t *bytes);
void reference_put32(uint8_t *bytes, uint32_t word);

#endif
