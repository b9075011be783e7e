/* SPDX-License-Identifier: MIT */
/* Bytes that go to a stream before anything else does. */
#include <string.h>

#include "runtime/core/transport.h"

void
spk_unsent_drop(struct spk_unsent *u)
{
    if (u->chunk != NULL)
        spk_chunk_unref(u->chunk);
    u->chunk = NULL;
    u->from = u->to = 0;
}

uint8_t *
spk_unsent_room(struct spk_unsent *u, size_t size)
{
    struct spk_chunk *chunk;
    size_t waits = spk_unsent_size(u);

    if (u->chunk == NULL || u->chunk->size - u->to < size) {
        if ((chunk = spk_chunk_new(waits + size)) == NULL)
            return NULL;
        if (u->chunk != NULL)
            memcpy(chunk->data, u->chunk->data + u->from, waits);
        spk_unsent_drop(u);
        u->chunk = chunk;
        u->to = waits;
    }
    return u->chunk->data + u->to;
}

void
spk_unsent_wrote(struct spk_unsent *u, size_t n)
{
    u->from += n;
    if (u->from >= u->to)
        spk_unsent_drop(u);
}

int
spk_unsent_write(struct spk_unsent *u, struct spk_stream *st)
{
    while (spk_unsent_size(u) > 0) {
        struct iovec iov = {u->chunk->data + u->from, spk_unsent_size(u)};
        int64_t n = st->ops->send_now(st, &iov, 1);

        if (n == SPOKE_EAGAIN || n == SPOKE_ENOBUFS)
            return SPOKE_EAGAIN;
        if (n <= 0) {
            spk_unsent_drop(u);
            return n == 0 ? SPOKE_ECONNRESET : (int)n;
        }
        spk_unsent_wrote(u, (size_t)n);
    }
    spk_unsent_drop(u);
    return 0;
}

void
spk_unsent_send(struct spk_unsent *u, struct spk_stream *st, struct spk_op *op)
{
    u->iov = (struct iovec){u->chunk->data + u->from, spk_unsent_size(u)};
    u->msg = (struct msghdr){.msg_iov = &u->iov, .msg_iovlen = 1};
    st->ops->send(st, op, &u->msg);
}
