/* SPDX-License-Identifier: MIT */
/* PAIR: one peer at a time (one_peer.h), messages both ways, nothing in front of them.  Raw differs
 * from cooked only in that a header the user set goes out in front of the body. */
#include "protocols/sp/one_peer.h"

static int
pair_send(struct spk_socket *s, spoke_msg *m)
{
    spoke_msg *bare;

    if (m->header_size == 0 || spk_socket_raw(s))
        return spk_one_peer_send(s, m);
    int rc = spk_sp_put_header(&bare, m, NULL, 0);
    return rc != 0 ? rc : spk_sp_settle(m, bare, spk_one_peer_send(s, bare));
}

static struct spk_pipe *
pair_send_to(struct spk_socket *s)
{
    struct spk_one_peer *peer = spk_socket_state(s);

    return peer->waiting.count == 0 ? peer->pipe : NULL;
}

const struct spoke_protocol spoke_protocol_pair = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 16,
    .peer = 16,
    .name = "pair",
    .sends = true,
    .receives = true,
    .socket_size = sizeof(struct spk_one_peer),
    .open = spk_one_peer_open,
    .close = spk_one_peer_close,
    .options_changed = spk_one_peer_options_changed,
    .pipe_added = spk_one_peer_pipe_added,
    .pipe_removed = spk_one_peer_pipe_removed,
    .writable = spk_one_peer_writable,
    .send = pair_send,
    .may_send_later = true,
    .send_to = pair_send_to,
    .ready = spk_one_peer_ready,
    .pending = spk_one_peer_pending,
};
