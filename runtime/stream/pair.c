/* SPDX-License-Identifier: MIT */
/* Both ends of a stream on one engine, with nothing in between: what one writes is what the other
 * has to read. */
#include <stdio.h>
#include <string.h>

#include "runtime/stream/conn.h"

/* The other end; NULL: it is gone. */
static struct spk_conn *
peer_of(const struct spk_conn *c)
{
    return c->state;
}

static size_t
room(const struct spk_conn *peer)
{
    return peer->input_size - peer->given_back < peer->window
               ? peer->window - (peer->input_size - peer->given_back)
               : 0;
}

static int64_t
pair_write(struct spk_conn *c, const struct iovec *buffers, int count)
{
    size_t size = spk_piece(buffers, count, room(peer_of(c)));
    spoke_msg *m;
    int rc;

    if (size == 0)
        return SPOKE_EAGAIN;
    if ((rc = spoke_msg_new(&m, size)) != 0)
        return rc;
    spk_gather(m->body, size, buffers);
    spk_conn_input(peer_of(c), m);
    return (int64_t)size;
}

static int
pair_write_message(struct spk_conn *c, spoke_msg *m)
{
    struct spk_conn *peer = peer_of(c);
    spoke_msg *mine;
    int rc;

    if (m->size == 0 || m->size > peer->window)
        return SPOKE_ENOTSUP;
    if (m->size > room(peer))
        return SPOKE_EAGAIN;
    if ((rc = spk_own_message(&mine, m)) != 0)
        return rc;
    spk_conn_input(peer, mine);
    spoke_msg_free(m);
    return 0;
}

static bool
pair_passes_fds(struct spk_conn *c)
{
    (void)c;
    return true;
}

/* The numbers themselves. */
static int64_t
pair_write_fds(struct spk_conn *c, const struct iovec *buffers, int count, const int *fds, int n)
{
    struct spk_conn *peer = peer_of(c);
    struct spk_fds *set;
    spoke_msg *m;
    size_t size = spk_piece(buffers, count, room(peer));

    if (size == 0)
        return SPOKE_EAGAIN;
    if (spoke_msg_new(&m, size) != 0)
        return SPOKE_ENOMEM;
    if ((set = spk_fds_new(fds, n)) == NULL) {
        spoke_msg_free(m);
        return SPOKE_ENOMEM;
    }
    spk_gather(m->body, size, buffers);
    spk_conn_input_fds(peer, set);
    spk_conn_input(peer, m);
    return (int64_t)size;
}

static void
pair_consumed(struct spk_conn *c, size_t size)
{
    (void)size;
    if (peer_of(c)->write_full && room(c) >= c->window / 2)
        spk_conn_writable(peer_of(c));
}

static int
pair_close_write(struct spk_conn *c)
{
    spk_conn_ends(peer_of(c), SPOKE_EOF);
    return 0;
}

static void
pair_close_read(struct spk_conn *c)
{
    spk_conn_stopped(peer_of(c), SPOKE_EPEERCLOSED);
}

static void
pair_abort(struct spk_conn *c, uint64_t code)
{
    peer_of(c)->info.abort_code = code;
    spk_conn_ends(peer_of(c), SPOKE_EABORTED);
    spk_conn_stopped(peer_of(c), SPOKE_EABORTED);
}

static void
pair_finish(struct spk_conn *c, spoke_ns deadline)
{
    struct spk_conn *peer = peer_of(c);

    (void)deadline;
    spk_conn_gone(peer, SPOKE_EPEERCLOSED); /* it has read, or will, all that there is */
    spk_conn_gone(c, SPOKE_ECLOSED);
}

static int
pair_address(struct spk_conn *c, bool local, char *text, size_t size)
{
    (void)c, (void)local;
    snprintf(text, size, "inproc://");
    return 0;
}

static const struct spk_carrier pair_carrier = {
    .consumed = pair_consumed,
    .write = pair_write,
    .write_message = pair_write_message,
    .close_write = pair_close_write,
    .close_read = pair_close_read,
    .abort = pair_abort,
    .finish = pair_finish,
    .address = pair_address,
    .passes_fds = pair_passes_fds,
    .write_fds = pair_write_fds,
};

void
spk_pair_open(struct spk_conn *a, struct spk_conn *b)
{
    spk_conn_opened(a, &pair_carrier, b);
    spk_conn_opened(b, &pair_carrier, a);
}
