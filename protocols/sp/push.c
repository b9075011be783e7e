/* SPDX-License-Identifier: MIT */
/* PUSH: each message goes to one of the peers, by turns among those of the best send priority that
 * can take one.  While none can, messages wait in the send queue, which is shared: whoever can take
 * one first gets the oldest.  What a pipe has been handed is lost with it.
 *
 * It never receives; what a peer says all the same is discarded.  Raw differs from cooked only in
 * that a header the user set goes out in front of the body. */
#include "protocols/sp/sp.h"

struct push {
    struct spk_queue waiting;
};

static void
push_options_changed(struct spk_socket *s)
{
    struct push *push = spk_socket_state(s);

    spk_sp_bound_queue(s, &push->waiting);
}

static int
push_open(struct spk_socket *s)
{
    push_options_changed(s);
    return 0;
}

static void
push_close(struct spk_socket *s)
{
    struct push *push = spk_socket_state(s);

    spk_sp_end_queue(s, NULL, &push->waiting);
}

/* ---- peers ---- */

static void
push_pipe_removed(struct spk_socket *s, struct spk_pipe *p)
{
    (void)p;
    spk_socket_wake(s, SPK_WRITABLE); /* it may be writable no longer */
}

static void
push_writable(struct spk_socket *s, struct spk_pipe *p)
{
    struct push *push = spk_socket_state(s);

    while (push->waiting.count > 0 && (p = spk_socket_next_writable(s)) != NULL)
        spk_sp_send_next(s, &push->waiting, p);
    spk_socket_wake(s, SPK_WRITABLE | SPK_ALL);
}

/* ---- the user ---- */

/* Takes m on success. */
static int
send_or_queue(struct spk_socket *s, spoke_msg *m)
{
    struct push *push = spk_socket_state(s);
    struct spk_pipe *p = push->waiting.count == 0 ? spk_socket_next_writable(s) : NULL;

    return p != NULL ? spk_pipe_send(p, m) : spk_sp_enqueue(s, &push->waiting, m);
}

static int
push_send(struct spk_socket *s, spoke_msg *m)
{
    spoke_msg *bare;

    if (m->header_size == 0 || spk_socket_raw(s))
        return send_or_queue(s, m);
    int rc = spk_sp_put_header(&bare, m, NULL, 0);
    return rc != 0 ? rc : spk_sp_settle(m, bare, send_or_queue(s, bare));
}

static unsigned
push_ready(struct spk_socket *s)
{
    struct push *push = spk_socket_state(s);
    bool direct = push->waiting.count == 0 && spk_socket_can_send(s);

    return direct || !spk_queue_full(&push->waiting) ? SPK_WRITABLE : 0;
}

static size_t
push_pending(struct spk_socket *s, uint64_t *bytes)
{
    struct push *push = spk_socket_state(s);

    return spk_sp_queued(&push->waiting, bytes);
}

const struct spoke_protocol spoke_protocol_push = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 80,
    .peer = 81,
    .name = "push",
    .sends = true,
    .socket_size = sizeof(struct push),
    .open = push_open,
    .close = push_close,
    .options_changed = push_options_changed,
    .pipe_removed = push_pipe_removed,
    .received = spk_sp_discard,
    .writable = push_writable,
    .send = push_send,
    .may_send_later = true,
    .ready = push_ready,
    .pending = push_pending,
};
