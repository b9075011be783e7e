/* SPDX-License-Identifier: MIT */
/* PAIR: one peer at a time, messages both ways, nothing in front of them.  Whoever else connects is
 * turned away after the handshake, and its dialer tries again.
 *
 * What the peer's pipe cannot take waits in the socket's send queue; it stays there when the peer
 * leaves, for the next one.  While something waits, nothing overtakes it.  Raw differs from cooked
 * only in that a header the user set goes out in front of the body. */
#include "protocols/sp/sp.h"

struct pair {
    struct spk_pipe *peer; /* NULL: none */
    struct spk_queue waiting;
};

/* ---- life ---- */

static void
pair_options_changed(struct spk_socket *s)
{
    struct pair *pair = spk_socket_state(s);

    spk_sp_bound_queue(s, &pair->waiting);
}

static int
pair_open(struct spk_socket *s)
{
    pair_options_changed(s);
    return 0;
}

static void
pair_close(struct spk_socket *s)
{
    struct pair *pair = spk_socket_state(s);

    spk_queue_fini(&pair->waiting);
}

/* ---- the peer ---- */

static int
pair_pipe_added(struct spk_socket *s, struct spk_pipe *p)
{
    struct pair *pair = spk_socket_state(s);

    if (pair->peer != NULL)
        return SPOKE_EREFUSED;
    pair->peer = p;
    return 0;
}

static void
pair_pipe_removed(struct spk_socket *s, struct spk_pipe *p)
{
    struct pair *pair = spk_socket_state(s);

    if (pair->peer == p)
        pair->peer = NULL;
    spk_socket_wake(s, SPK_WRITABLE); /* it may be writable no longer */
}

static void
pair_writable(struct spk_socket *s, struct spk_pipe *p)
{
    struct pair *pair = spk_socket_state(s);

    spk_sp_send_waiting(s, &pair->waiting, p);
    spk_socket_wake(s, SPK_WRITABLE | SPK_ALL);
}

/* ---- the user ---- */

/* Takes m on success. */
static int
send_or_queue(struct spk_socket *s, spoke_msg *m)
{
    struct pair *pair = spk_socket_state(s);

    if (pair->peer != NULL && pair->waiting.count == 0) {
        int rc = spk_pipe_send(pair->peer, m);
        if (rc != SPOKE_EAGAIN)
            return rc;
    }
    return spk_sp_enqueue(s, &pair->waiting, m);
}

static int
pair_send(struct spk_socket *s, spoke_msg *m)
{
    spoke_msg *bare;

    if (m->header_size == 0 || spk_socket_raw(s))
        return send_or_queue(s, m);
    int rc = spk_sp_put_header(&bare, m, NULL, 0);
    return rc != 0 ? rc : spk_sp_settle(m, bare, send_or_queue(s, bare));
}

static struct spk_pipe *
pair_send_to(struct spk_socket *s)
{
    struct pair *pair = spk_socket_state(s);

    return pair->waiting.count == 0 ? pair->peer : NULL;
}

static unsigned
pair_ready(struct spk_socket *s)
{
    struct pair *pair = spk_socket_state(s);
    bool direct = pair->peer != NULL && pair->waiting.count == 0 && spk_pipe_can_send(pair->peer);
    unsigned ready = spk_socket_has_message(s) ? SPK_READABLE : 0;

    return direct || !spk_queue_full(&pair->waiting) ? ready | SPK_WRITABLE : ready;
}

static size_t
pair_pending(struct spk_socket *s, uint64_t *bytes)
{
    struct pair *pair = spk_socket_state(s);

    return spk_sp_queued(&pair->waiting, bytes);
}

const struct spoke_protocol spoke_protocol_pair = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 16,
    .peer = 16,
    .name = "pair",
    .sends = true,
    .receives = true,
    .socket_size = sizeof(struct pair),
    .open = pair_open,
    .close = pair_close,
    .options_changed = pair_options_changed,
    .pipe_added = pair_pipe_added,
    .pipe_removed = pair_pipe_removed,
    .writable = pair_writable,
    .send = pair_send,
    .send_to = pair_send_to,
    .ready = pair_ready,
    .pending = pair_pending,
};
