/* SPDX-License-Identifier: MIT */
/* PAIR version 1, what NNG calls a pair: one peer at a time as with PAIR (pair.c), but each message
 * has a word in front that counts how many sockets have sent it, 1 from the first.  Devices that
 * are connected in a ring thus come to an end.  The two versions do not talk to each other.
 *
 * Raw: the header of a received message is its word; a message to send has one, and goes out with
 * one more. */
#include "protocols/sp/sp.h"

#define HOPS_MOST UINT32_C(255)

struct pair1 {
    struct spk_pipe *peer; /* NULL: none */
    struct spk_queue waiting;
    int ttl;
};

/* ---- life ---- */

static void
pair1_options_changed(struct spk_socket *s)
{
    struct pair1 *pair = spk_socket_state(s);

    spk_sp_bound_queue(s, &pair->waiting);
}

static int
pair1_open(struct spk_socket *s)
{
    struct pair1 *pair = spk_socket_state(s);

    pair->ttl = SPK_SP_TTL_DEFAULT;
    pair1_options_changed(s);
    return 0;
}

static void
pair1_close(struct spk_socket *s)
{
    struct pair1 *pair = spk_socket_state(s);

    spk_queue_fini(&pair->waiting);
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

/* ---- the peer ---- */

static int
pair1_pipe_added(struct spk_socket *s, struct spk_pipe *p)
{
    struct pair1 *pair = spk_socket_state(s);

    if (pair->peer != NULL)
        return SPOKE_EREFUSED;
    pair->peer = p;
    return 0;
}

static void
pair1_pipe_removed(struct spk_socket *s, struct spk_pipe *p)
{
    struct pair1 *pair = spk_socket_state(s);

    if (pair->peer == p)
        pair->peer = NULL;
    spk_socket_wake(s, SPK_WRITABLE); /* it may be writable no longer */
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
        return spk_sp_reject(s, m, rc);
    if (spk_get32(m->header) > (uint32_t)pair->ttl) {
        spk_socket_counters(s)->dropped_ttl++;
        spoke_msg_free(m);
        return 0;
    }
    if (!spk_socket_raw(s))
        spk_msg_clear_header(m);
    spk_socket_deliver(s, p, m);
    return 0;
}

static void
pair1_writable(struct spk_socket *s, struct spk_pipe *p)
{
    struct pair1 *pair = spk_socket_state(s);

    while (pair->waiting.count > 0 && spk_pipe_can_send(p))
        spk_sp_send_next(s, &pair->waiting, p);
    spk_socket_wake(s, SPK_WRITABLE | SPK_ALL);
}

/* ---- the user ---- */

/* Takes m on success. */
static int
send_or_queue(struct spk_socket *s, spoke_msg *m)
{
    struct pair1 *pair = spk_socket_state(s);

    if (pair->peer != NULL && pair->waiting.count == 0) {
        int rc = spk_pipe_send(pair->peer, m);
        if (rc != SPOKE_EAGAIN)
            return rc;
    }
    return spk_sp_enqueue(s, &pair->waiting, m);
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
    return rc != 0 ? rc : spk_sp_settle(m, out, send_or_queue(s, out));
}

static int
pair1_recv(struct spk_socket *s, spoke_msg **m)
{
    return spk_socket_take(s, m);
}

static unsigned
pair1_ready(struct spk_socket *s)
{
    struct pair1 *pair = spk_socket_state(s);
    bool direct = pair->peer != NULL && pair->waiting.count == 0 && spk_pipe_can_send(pair->peer);
    unsigned ready = spk_socket_has_message(s) ? SPK_READABLE : 0;

    return direct || !spk_queue_full(&pair->waiting) ? ready | SPK_WRITABLE : ready;
}

static size_t
pair1_pending(struct spk_socket *s, uint64_t *bytes)
{
    struct pair1 *pair = spk_socket_state(s);

    return spk_sp_queued(&pair->waiting, bytes);
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
    .close = pair1_close,
    .options = pair1_options,
    .options_changed = pair1_options_changed,
    .pipe_added = pair1_pipe_added,
    .pipe_removed = pair1_pipe_removed,
    .received = pair1_received,
    .writable = pair1_writable,
    .send = pair1_send,
    .recv = pair1_recv,
    .ready = pair1_ready,
    .pending = pair1_pending,
};
