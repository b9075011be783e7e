/* SPDX-License-Identifier: MIT */
/* BUS: what one sends, all its direct peers receive; nothing stands in front of it, and nobody
 * passes it on.  Neither a send nor a peer ever waits: a copy that a peer has no room for, and a
 * message that the receive queue has no room for, is dropped and counted.
 *
 * Raw: the header of a received message is the number of its pipe.  A message to send has the same,
 * or none: it goes to all pipes but that one.  A device on one raw socket thus makes a hub. */
#include "protocols/sp/fanout.h"

static int
bus_received(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    uint8_t word[SPK_SP_WORD];
    int rc = spk_msg_flatten(m);

    spk_put32(word, spk_pipe_id(p));
    if (rc == 0 && spk_socket_raw(s))
        rc = spoke_msg_header_append(m, word, sizeof word);
    if (rc != 0)
        return spk_sp_reject(s, p, m, rc);
    spk_sp_deliver_or_drop(s, p, m);
    return 0;
}

/* ---- the user ---- */

static int
send_to_all(struct spk_socket *s, spoke_msg *m)
{
    spoke_msg *bare = m;
    int rc = m->header_size > 0 ? spk_sp_put_header(&bare, m, NULL, 0) : 0;

    if (rc != 0)
        return rc;
    spk_fanout_send(s, bare, NULL);
    if (bare != m)
        spoke_msg_free(m);
    return 0;
}

/* The word in the header says where it came from, and stays here. */
static int
send_to_others(struct spk_socket *s, spoke_msg *m)
{
    struct spk_pipe *source = spk_socket_pipe(s, spk_get32(m->header));
    spoke_msg *bare = m;

    if (spoke_msg_header_trim_front(m, SPK_SP_WORD) != 0) { /* others see it */
        int rc = spk_sp_put_header(&bare, m, NULL, 0);
        if (rc != 0)
            return rc;
    }
    spk_fanout_send(s, bare, source);
    if (bare != m)
        spoke_msg_free(m);
    return 0;
}

static int
bus_send(struct spk_socket *s, spoke_msg *m)
{
    if (!spk_socket_raw(s) || m->header_size == 0)
        return send_to_all(s, m);
    return m->header_size == SPK_SP_WORD ? send_to_others(s, m) : SPOKE_EINVAL;
}

const struct spoke_protocol spoke_protocol_bus = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 112,
    .peer = 112,
    .name = "bus",
    .sends = true,
    .copies = true,
    .receives = true,
    .drops = true,
    .socket_size = sizeof(struct spk_fanout),
    .pipe_size = sizeof(struct spk_target),
    .open = spk_fanout_open,
    .pipe_added = spk_fanout_pipe_added,
    .pipe_removed = spk_fanout_pipe_removed,
    .received = bus_received,
    .writable = spk_fanout_writable,
    .send = bus_send,
    .may_send_later = true,
    .ready = spk_fanout_ready,
    .pending = spk_fanout_pending,
};
