/* SPDX-License-Identifier: MIT */
/* PAIR version 1, what NNG calls a pair: one peer at a time (one_peer.h) as with PAIR, but each
 * message has a word in front that counts how many sockets have sent it, 1 from the first.  Devices
 * that are connected in a ring thus come to an end.  The two versions do not talk to each other.
 *
 * Raw: the header of a received message is its word; a message to send has one, and goes out with
 * one more. */
#include "protocols/sp/one_peer.h"

#define HOPS_MOST UINT32_C(255)

struct pair1 {
    struct spk_one_peer peer; /* first: one_peer.c knows no more */
    int ttl;
};

static int
pair1_open(struct spk_socket *s)
{
    struct pair1 *pair = spk_socket_state(s);

    pair->ttl = SPK_SP_TTL_DEFAULT;
    return spk_one_peer_open(s);
}

static int
set_ttl(void *owner, const void *value, size_t size)
{
    struct pair1 *pair = spk_socket_state(owner);

    (void)size;
    return spk_sp_set_ttl(&pair->ttl, value);
}

static int
get_ttl(void *owner, void *value, size_t *size)
{
    struct pair1 *pair = spk_socket_state(owner);

    return spk_sp_get_ttl(pair->ttl, value, size);
}

static int
pair1_received(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    struct pair1 *pair = spk_socket_state(s);
    int rc = spk_msg_pull(m, SPK_SP_WORD);

    if (rc == 0 && spk_get32(m->header) > HOPS_MOST)
        rc = SPOKE_EPROTO;
    if (rc == 0)
        rc = spk_sp_return_tail(m, SPK_SP_WORD);
    if (rc != 0)
        return spk_sp_reject(s, p, m, rc);
    if (spk_get32(m->header) > (uint32_t)pair->ttl) {
        spk_drop(s, p, m, SPK_DROP_TTL);
        return 0;
    }
    if (!spk_socket_raw(s))
        spk_msg_clear_header(m);
    spk_socket_deliver(s, p, m);
    return 0;
}

static int
pair1_send(struct spk_socket *s, spoke_msg *m)
{
    uint8_t word[SPK_SP_WORD];
    uint32_t hops = 0;
    spoke_msg *out;

    if (spk_socket_raw(s)) {
        if (m->header_size != SPK_SP_WORD || (hops = spk_get32(m->header)) >= HOPS_MOST)
            return SPOKE_EINVAL;
    }
    spk_put32(word, hops + 1);
    int rc = spk_sp_put_header(&out, m, word, sizeof word);
    return rc != 0 ? rc : spk_sp_settle(m, out, spk_one_peer_send(s, out));
}

static const struct spk_option pair1_options[] = {
    {SPOKE_OPT_TTL, SPOKE_INT, false, set_ttl, get_ttl},
    {.name = NULL},
};

const struct spoke_protocol spoke_protocol_pair1 = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 17,
    .peer = 17,
    .name = "pair1",
    .sends = true,
    .receives = true,
    .socket_size = sizeof(struct pair1),
    .open = pair1_open,
    .close = spk_one_peer_close,
    .options = pair1_options,
    .options_changed = spk_one_peer_options_changed,
    .pipe_added = spk_one_peer_pipe_added,
    .pipe_removed = spk_one_peer_pipe_removed,
    .received = pair1_received,
    .writable = spk_one_peer_writable,
    .send = pair1_send,
    .may_send_later = true,
    .ready = spk_one_peer_ready,
    .pending = spk_one_peer_pending,
};
