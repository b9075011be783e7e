/* SPDX-License-Identifier: MIT */
/* STAR: what one sends, all others receive, however many members are in between: everybody passes
 * on what comes from one peer to its other peers.  A word in front of the body counts the members
 * that it has come through; whoever has it with `ttl` or more drops it, which ends the round trips
 * in a topology that is not a tree.  Nothing else recognises a message that has come twice.
 *
 * As with BUS nobody waits: copies and messages without room are dropped and counted.  What breaks
 * the rules is dropped as well, and its pipe stays.
 *
 * Raw: the header of a received message is its word, one more than it had; it has been passed on
 * all the same.  A message to send has such a word, and goes to all pipes but the one it came from
 * (spoke_msg_pipe()). */
#include "protocols/sp/fanout.h"

#define HOPS_MOST UINT32_C(255) /* of the word: its other bytes are 0 */

struct star {
    struct spk_fanout peers; /* first: fanout.c knows no more */
    int ttl;
};

/* ---- life ---- */

static int
star_open(struct spk_socket *s)
{
    struct star *star = spk_socket_state(s);

    star->ttl = SPK_SP_TTL_DEFAULT;
    return spk_fanout_open(s);
}

static int
set_ttl(void *owner, const void *value, size_t size)
{
    struct star *star = spk_socket_state(owner);

    (void)size;
    return spk_sp_set_ttl(&star->ttl, value);
}

static int
get_ttl(void *owner, void *value, size_t *size)
{
    struct star *star = spk_socket_state(owner);

    return spk_sp_get_ttl(star->ttl, value, size);
}

/* ---- peers ---- */

/* To everybody but `source`.  They share another message, so that ours can be changed. */
static void
pass_on(struct spk_socket *s, const spoke_msg *m, const struct spk_pipe *source)
{
    const struct spk_fanout *peers = spk_socket_state(s);
    spoke_msg *copy;

    if (peers->count < 2)
        return;
    if (spk_msg_clone(&copy, m) == 0)
        spk_fanout_send(s, copy, source);
    else
        spk_fanout_miss(s, source);
}

static int
star_received(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    uint32_t ttl = (uint32_t)((struct star *)spk_socket_state(s))->ttl;
    int rc = spk_msg_pull(m, SPK_SP_WORD);

    if (rc == SPOKE_EPROTO || (rc == 0 && spk_get32(m->header) > HOPS_MOST)) {
        spk_drop(s, p, m, SPK_DROP_GARBLED);
        return 0;
    }
    if (rc == 0)
        rc = spk_sp_return_tail(m, SPK_SP_WORD);
    if (rc != 0)
        return spk_sp_reject(s, p, m, rc);
    uint32_t hops = spk_get32(m->header);
    if (hops >= ttl) {
        spk_drop(s, p, m, SPK_DROP_TTL);
        return 0;
    }
    spk_put32(m->header, hops + 1);
    pass_on(s, m, p);
    if (!spk_socket_raw(s))
        spk_msg_clear_header(m);
    spk_sp_deliver_or_drop(s, p, m);
    return 0;
}

/* ---- the user ---- */

static int
send_first(struct spk_socket *s, spoke_msg *m)
{
    static const uint8_t no_hops[SPK_SP_WORD];
    spoke_msg *out;
    int rc = spk_sp_put_header(&out, m, no_hops, sizeof no_hops);

    if (rc != 0)
        return rc;
    spk_fanout_send(s, out, NULL);
    if (out != m)
        spoke_msg_free(m);
    return 0;
}

static int
star_send(struct spk_socket *s, spoke_msg *m)
{
    if (!spk_socket_raw(s))
        return send_first(s, m);
    if (m->header_size != SPK_SP_WORD)
        return SPOKE_EINVAL;
    spk_fanout_send(s, m, spk_socket_pipe(s, m->pipe));
    return 0;
}

static const struct spk_option star_options[] = {
    {SPOKE_OPT_TTL, SPOKE_INT, false, set_ttl, get_ttl},
    {.name = NULL},
};

const struct spoke_protocol spoke_protocol_star = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 1600,
    .peer = 1600,
    .name = "star",
    .sends = true,
    .copies = true,
    .receives = true,
    .drops = true,
    .socket_size = sizeof(struct star),
    .pipe_size = sizeof(struct spk_target),
    .open = star_open,
    .options = star_options,
    .pipe_added = spk_fanout_pipe_added,
    .pipe_removed = spk_fanout_pipe_removed,
    .received = star_received,
    .writable = spk_fanout_writable,
    .send = star_send,
    .may_send_later = true,
    .passes_on = true,
    .ready = spk_fanout_ready,
    .pending = spk_fanout_pending,
};
