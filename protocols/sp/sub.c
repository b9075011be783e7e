/* SPDX-License-Identifier: MIT */
/* SUB: of the messages of all publishers, those whose body begins with a subscription.  Filtering
 * is done here, on arrival, raw or not; nothing of it is on the wire.  Unsubscribing also takes
 * what waits in the receive queue and is wanted no longer.
 *
 * What has no room in the receive queue is dropped (the newest or the oldest), or the connection is
 * read no further, as SPOKE_OPT_LOSS says for its dialer or listener. */
#include "protocols/sp/sp.h"
#include "protocols/sp/topics.h"

struct sub {
    struct spk_topics topics;
};

struct sub_pipe {
    enum spoke_loss loss;
};

static void
sub_close(struct spk_socket *s)
{
    struct sub *sub = spk_socket_state(s);

    spk_topics_fini(&sub->topics);
}

/* ---- subscriptions ---- */

static bool
is_wanted(void *s, const spoke_msg *m)
{
    struct sub *sub = spk_socket_state(s);

    return spk_topics_match(&sub->topics, m->body, m->size);
}

/* What has arrived already, and goes if it is not. */
static bool
is_kept(void *s, const spoke_msg *m)
{
    bool wanted = is_wanted(s, m);

    if (!wanted)
        spk_count_drops(s, spk_socket_pipe(s, m->pipe), SPK_DROP_UNWANTED, 1);
    return wanted;
}

static int
subscribe(void *s, const void *bytes, size_t size)
{
    struct sub *sub = spk_socket_state(s);

    return spk_topics_add(&sub->topics, bytes, size);
}

static int
unsubscribe(void *s, const void *bytes, size_t size)
{
    struct sub *sub = spk_socket_state(s);
    int rc = spk_topics_remove(&sub->topics, bytes, size);

    if (rc != 0)
        return rc;
    spk_socket_filter(s, is_kept);
    spk_socket_wake(s, SPK_READABLE); /* it may be readable no longer */
    return 0;
}

/* ---- publishers ---- */

static int
sub_pipe_added(struct spk_socket *s, struct spk_pipe *p)
{
    struct sub_pipe *state = spk_pipe_state(p);

    (void)s;
    state->loss = spk_pipe_loss(p);
    if (state->loss != SPOKE_LOSS_BLOCK)
        spk_pipe_keep_reading(p);
    return 0;
}

static void
deliver(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    enum spoke_loss loss = ((struct sub_pipe *)spk_pipe_state(p))->loss;

    /* A queue of no length is full always, and has room for one when it is empty. */
    while (loss != SPOKE_LOSS_BLOCK && spk_socket_recv_full(s) && spk_socket_has_message(s)) {
        if (loss == SPOKE_LOSS_NEWEST || !spk_socket_drop_oldest(s)) {
            spk_drop(s, p, m, SPK_DROP_RECV_FULL);
            return;
        }
    }
    spk_socket_deliver(s, p, m);
}

static int
sub_received(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    int rc = spk_sp_no_words(m);

    if (rc != 0)
        return spk_sp_reject(s, p, m, rc);
    if (!is_wanted(s, m))
        return spk_sp_discard(s, p, m);
    deliver(s, p, m);
    return 0;
}

static unsigned
sub_ready(struct spk_socket *s)
{
    return spk_socket_has_message(s) ? SPK_READABLE : 0;
}

static const struct spk_option sub_options[] = {
    {SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, false, subscribe, NULL},
    {SPOKE_OPT_UNSUBSCRIBE, SPOKE_BYTES, false, unsubscribe, NULL},
    {.name = NULL},
};

const struct spoke_protocol spoke_protocol_sub = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 33,
    .peer = 32,
    .name = "sub",
    .receives = true,
    .losses = SPOKE_LOSS_BLOCK + 1,
    .socket_size = sizeof(struct sub),
    .pipe_size = sizeof(struct sub_pipe),
    .close = sub_close,
    .options = sub_options,
    .pipe_added = sub_pipe_added,
    .received = sub_received,
    .ready = sub_ready,
};
