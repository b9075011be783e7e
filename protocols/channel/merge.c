/* SPDX-License-Identifier: MIT */
/* What a port receives: messages of all its bindings in one channel, by turns, each one's in order.
 * What a binding's peer may send is what this end's user has taken of its messages, and `size`. */
#include <stdio.h>

#include "protocols/channel/port.h"

static struct spk_binding *
binding_of(const struct spk_wire *w)
{
    return w->owner;
}

/* ---- what has been popped ---- */

static void
update(struct spk_binding *b)
{
    const struct spk_port *p = b->port;
    uint64_t popped = p->ch != NULL ? spk_channel_popped(p->ch) : UINT64_MAX;
    uint64_t received = p->ch != NULL ? spk_channel_received(p->ch) : 0;

    for (; b->first < b->at && b->slots[b->first & b->mask].number <= popped; b->first++) {
        if (b->slots[b->first & b->mask].number <= received) /* not dropped */
            b->taken = b->first + 1;
    }
}

/* How many have been popped; when it is `tell` the wire is told. */
static uint64_t
ask(struct spk_binding *b, uint64_t tell)
{
    struct spk_port *p = b->port;

    update(b);
    if (b->first >= tell || tell == UINT64_MAX || p->ch == NULL)
        return b->first;
    if (b->tell <= b->first || tell < b->tell)
        b->tell = tell;
    if (spk_list_empty(&b->telling))
        spk_list_append(&p->telling, &b->telling);
    if (b->tell <= b->at &&
        spk_channel_await_popped(p->ch, b->slots[(b->tell - 1) & b->mask].number))
        update(b);
    return b->first;
}

/* Something has been popped: who waited for it? */
static void
tell_wires(struct spk_port *p)
{
    struct spk_link again;

    spk_list_init(&again);
    spk_list_splice(&again, &p->telling);
    for (struct spk_link *link; (link = spk_list_take(&again)) != NULL;) {
        struct spk_binding *b = SPK_OWNER(link, struct spk_binding, telling);

        if (b->w != NULL && ask(b, b->tell) >= b->tell) {
            spk_list_remove(&b->telling);
            b->tell = UINT64_MAX;
            spk_wire_kick(b->w);
        }
    }
}

/* ---- into the channel ---- */

static void
was_pushed(struct spk_binding *b)
{
    struct spk_port *p = b->port;
    struct spk_slot *slot = &b->slots[b->at++ & b->mask];

    slot->m = NULL;
    slot->number = spk_channel_pushed(p->ch);
    if (b->tell == b->at && spk_channel_await_popped(p->ch, slot->number))
        spk_wire_kick(b->w);
    spk_list_remove(&b->turn);
    if (b->at < b->last)
        spk_list_append(&p->turns, &b->turn);
    else if (b->w == NULL)
        spk_binding_free(b);
}

/* Nobody receives any more. */
static void
drop_waiting(struct spk_port *p)
{
    for (struct spk_link *link; (link = spk_list_take(&p->turns)) != NULL;) {
        struct spk_binding *b = SPK_OWNER(link, struct spk_binding, turn);

        spk_binding_drop(b);
        if (b->w == NULL)
            spk_binding_free(b);
    }
}

static void
merge(struct spk_port *p)
{
    bool tell, any = false;
    int rc = 0;

    while (!spk_list_empty(&p->turns)) {
        struct spk_binding *b = SPK_OWNER(p->turns.next, struct spk_binding, turn);

        rc = spk_channel_forward(p->ch, b->slots[b->at & b->mask].m, &tell);
        if (rc == SPOKE_EAGAIN && spk_channel_await_room(p->ch))
            continue;
        if (rc != 0)
            break;
        any |= tell;
        was_pushed(b);
    }
    if (any)
        spk_channel_look(p->ch);
    if (rc != 0 && rc != SPOKE_EAGAIN)
        drop_waiting(p);
}

/* A value of one of several senders is none: the others can do nothing for it. */
void
spk_port_blame(struct spk_channel *ch, spoke_pipe_id pipe)
{
    struct spk_task *taker = ch->ends[SPK_SENDS].taker;

    if (taker == NULL)
        return;
    SPK_LIST_EACH(link, &SPK_OWNER(taker, struct spk_port, task)->bindings)
    {
        struct spk_binding *b = SPK_OWNER(link, struct spk_binding, link);

        if (b->id != pipe || b->w == NULL)
            continue;
        b->blamed = true;
        spk_wire_kick(b->w);
    }
}

/* ---- what the wire says and asks ---- */

static void
deliver(struct spk_wire *w, spoke_msg *m)
{
    struct spk_binding *b = binding_of(w);
    struct spk_port *p = b->port;

    if (b->left == 0 || p->ch == NULL || p->over) {
        spoke_msg_free(m);
        if (b->left == 0)
            (void)spk_wire_violation(w, SPOKE_MUX_PROTOCOL, "more messages than the count");
        return;
    }
    b->left -= b->left > 0;
    m->pipe = b->id;
    b->slots[b->last++ & b->mask] = (struct spk_slot){.m = m};
    if (spk_list_empty(&b->turn))
        spk_list_append(&p->turns, &b->turn);
    merge(p);
}

static uint64_t
popped(struct spk_wire *w, uint64_t tell)
{
    return ask(binding_of(w), tell);
}

static uint64_t
taken(struct spk_wire *w, uint64_t tell)
{
    (void)popped(w, tell);
    return binding_of(w)->taken;
}

static uint64_t
room(struct spk_wire *w, uint64_t tell)
{
    size_t size = binding_of(w)->port->config.size;

    return ask(binding_of(w), tell > size && tell != UINT64_MAX ? tell - size : tell) + size;
}

static int
gone(struct spk_wire *w, uint64_t *code, const char **text)
{
    const struct spk_binding *b = binding_of(w);
    const struct spk_port *p = b->port;

    *code = SPOKE_MUX_CANCELED;
    *text = "nobody receives there any more";
    if (b->blamed) {
        *code = SPOKE_MUX_DECODE;
        *text = "a message is no value of the type";
        return SPOKE_EDECODE;
    }
    /* Of one whose peer has ended it, what was taken is still told. */
    if (p->over && (!b->ended || p->ch == NULL || p->ch->rx_end != 0)) {
        if (p->code != 0)
            *code = p->code;
        if (p->text[0] != '\0')
            *text = p->text;
        return SPOKE_EPEERCLOSED;
    }
    return 0;
}

static void
changed(struct spk_wire *w)
{
    struct spk_binding *b = binding_of(w);

    if (w->accepted && !b->bound)
        spk_binding_bound(b);
}

static void
ended(struct spk_wire *w, int reason, uint64_t code, const char *text)
{
    struct spk_binding *b = binding_of(w);
    struct spk_port *p = b->port;

    b->ended = true;
    if (p->left > 0)
        p->left -= (int64_t)b->last;
    if (reason == SPOKE_EOF || (p->over && p->code == 0 && reason == SPOKE_EPEERCLOSED))
        reason = 0;
    spk_binding_tell(b, b->bound ? SPOKE_PORT_UNBOUND : SPOKE_PORT_REFUSED, reason, code, 0, text);
    p->owner->unbound(p, b, reason, code, text);
    spk_task_queue(p->owner->e, &p->task);
}

static void
released(struct spk_wire *w)
{
    spk_binding_released(binding_of(w));
}

const struct spk_wire_ops spk_wires_of_receivers = {.changed = changed,
                                                    .deliver = deliver,
                                                    .room = room,
                                                    .popped = popped,
                                                    .taken = taken,
                                                    .gone = gone,
                                                    .ended = ended,
                                                    .released = released};

/* ---- the port's task ---- */

/* No more comes; what has come can still be taken, and the peers are told. */
static void
stop_if_all_in(struct spk_port *p)
{
    if (p->over && p->ch != NULL && spk_list_empty(&p->turns) && p->ch->tx_end == 0)
        spk_channel_stop(p->ch, p->reason, p->code, p->text);
}

void
spk_port_on_merge(struct spk_port *p)
{
    if (p->ch == NULL)
        return;
    if (p->ch->rx_end != 0) { /* its user has gone, or a value was none */
        bool was_broken = p->ch->rx_end == SPOKE_EABORTED;

        drop_waiting(p);
        spk_port_end(p, SPOKE_EPEERCLOSED, was_broken ? p->ch->abort_code : 0,
                     was_broken ? p->ch->text : "");
    }
    merge(p);
    tell_wires(p);
    stop_if_all_in(p);
}
