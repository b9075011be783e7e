/* SPDX-License-Identifier: MIT */
/* PUB: each message to every subscriber that is there.  A slow one loses messages, and the others
 * do not notice, unless SPOKE_OPT_LOSS of its dialer or listener says otherwise.  Who wants what is
 * the subscribers' business: everything is sent to everybody.
 *
 * It never receives; what a peer says all the same is discarded.  Raw differs from cooked only in
 * that a header the user set goes out in front of the body. */
#include "protocols/sp/fanout.h"

#include <string.h>

static struct spk_fanout *
fanout_of(struct spk_socket *s)
{
    return spk_socket_state(s);
}

/* ---- options ---- */

static int
set_topic_size(void *owner, const void *value, size_t size)
{
    (void)size;
    fanout_of(owner)->topic_size = *(const size_t *)value;
    return 0;
}

static int
get_topic_size(void *owner, void *value, size_t *size)
{
    *(size_t *)value = fanout_of(owner)->topic_size;
    *size = sizeof(size_t);
    return 0;
}

static int
set_topic_end(void *owner, const void *value, size_t size)
{
    int end = *(const int *)value;

    (void)size;
    if (end < -1 || end > UINT8_MAX)
        return SPOKE_ERANGE;
    fanout_of(owner)->topic_end = end;
    return 0;
}

static int
get_topic_end(void *owner, void *value, size_t *size)
{
    *(int *)value = fanout_of(owner)->topic_end;
    *size = sizeof(int);
    return 0;
}

static int
set_loss_topic(void *owner, const void *value, size_t size)
{
    struct spk_fanout *f = fanout_of(owner);

    if (size > SPK_LOSS_TOPIC_MOST)
        return SPOKE_ERANGE;
    if (size > 0)
        memcpy(f->loss_topic, value, size);
    f->loss_topic_size = (uint8_t)size;
    return 0;
}

static int
get_loss_topic(void *owner, void *value, size_t *size)
{
    struct spk_fanout *f = fanout_of(owner);
    size_t n = *size < f->loss_topic_size ? *size : f->loss_topic_size;

    if (n > 0)
        memcpy(value, f->loss_topic, n);
    *size = f->loss_topic_size;
    return 0;
}

/* ---- subscribers ---- */

static void
pub_pipe_removed(struct spk_socket *s, struct spk_pipe *p)
{
    spk_fanout_pipe_removed(s, p);
    spk_socket_wake(s, SPK_WRITABLE | SPK_ALL); /* it may have been the one to wait for */
}

/* ---- the user ---- */

static int
pub_send(struct spk_socket *s, spoke_msg *m)
{
    spoke_msg *bare = m;
    int rc;

    if (!spk_fanout_can_send(fanout_of(s)))
        return SPOKE_EAGAIN;
    if (m->header_size > 0 && !spk_socket_raw(s) &&
        (rc = spk_sp_put_header(&bare, m, NULL, 0)) != 0)
        return rc;
    spk_fanout_send(s, bare, NULL);
    return bare == m ? 0 : spk_sp_settle(m, bare, 0);
}

static const struct spk_option pub_options[] = {
    {SPOKE_OPT_TOPIC_SIZE, SPOKE_SIZE, false, set_topic_size, get_topic_size},
    {SPOKE_OPT_TOPIC_END, SPOKE_INT, false, set_topic_end, get_topic_end},
    {SPOKE_OPT_LOSS_TOPIC, SPOKE_BYTES, true, set_loss_topic, get_loss_topic},
    {.name = NULL},
};

const struct spoke_protocol spoke_protocol_pub = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 32,
    .peer = 33,
    .name = "pub",
    .sends = true,
    .copies = true,
    .losses = SPOKE_LOSS_DISCONNECT + 1,
    .socket_size = sizeof(struct spk_fanout),
    .pipe_size = sizeof(struct spk_target),
    .open = spk_fanout_open,
    .options = pub_options,
    .pipe_added = spk_fanout_pipe_added,
    .pipe_removed = pub_pipe_removed,
    .received = spk_sp_discard,
    .writable = spk_fanout_writable,
    .send = pub_send,
    .may_send_later = true,
    .ready = spk_fanout_ready,
    .pending = spk_fanout_pending,
};
