/* SPDX-License-Identifier: MIT */
/* What the running kernel must have, and how that is found out.  The floor is Linux 6.1 and
 * liburing 2.3; a constant that is newer than that liburing belongs here.
 *
 * Features are probed on a ring that exists, because seccomp profiles and back-ports make version
 * numbers lie.  Used by backend_uring.c alone. */
#ifndef SPK_ENGINE_URING_COMPAT_H
#define SPK_ENGINE_URING_COMPAT_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>

/* Without these there is no backend: completions are never dropped, a wait has a timeout of its
 * own, a failed cancel is the only one that says so. */
#define SPK_URING_NEEDS (IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP)

static inline bool
spk_uring_has(struct io_uring *ring, const int *opcodes, size_t count)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool has = true;

    if (probe == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        has = has && io_uring_opcode_supported(probe, opcodes[i]);
    io_uring_free_probe(probe);
    return has;
}

/* Does the kernel behind the ring do all that the backend cannot do without? */
static inline bool
spk_uring_is_usable(struct io_uring *ring)
{
    static const int opcodes[] = {IORING_OP_ACCEPT,  IORING_OP_CONNECT,  IORING_OP_RECV,
                                  IORING_OP_SENDMSG, IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL};

    return (ring->features & SPK_URING_NEEDS) == SPK_URING_NEEDS &&
           spk_uring_has(ring, opcodes, sizeof opcodes / sizeof opcodes[0]);
}

/* Multishot accept has no flag to ask for; this operation came with the same kernel. */
static inline bool
spk_uring_has_multishot_accept(struct io_uring *ring)
{
    static const int opcode = IORING_OP_SOCKET;

    return spk_uring_has(ring, &opcode, 1);
}

#endif
