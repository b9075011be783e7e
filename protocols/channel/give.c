/* SPDX-License-Identifier: MIT */
/* What a port sends: each message goes to one of those who have room, by turns, and stays here
 * until it is acknowledged. */
#include "protocols/channel/port.h"

static struct spk_binding *
binding_of(const struct spk_wire *w)
{
    return w->owner;
}

/* ---- to whom ---- */

static uint64_t
limit_of(const struct spk_binding *b)
{
    uint64_t own = b->first + b->port->config.size;

    return b->w->limit < own ? b->w->limit : own;
}

static bool
has_room(const struct spk_binding *b)
{
    return b->w != NULL && b->w->accepted && !b->ended && b->left != 0 && b->last < limit_of(b);
}

/* Its next turn comes when it has room. */
static void
queue_for_turn(struct spk_binding *b)
{
    if (has_room(b) && spk_list_empty(&b->turn))
        spk_list_append(&b->port->turns, &b->turn);
}

/* If this end's own limit holds it up, the peer has to say what it takes: it may allow much more,
 * and would tell late. */
static void
ask_if_short(struct spk_binding *b)
{
    size_t size = b->port->config.size;

    if (b->w != NULL && !b->ended && b->last >= b->first + size && b->last < b->w->limit)
        spk_wire_sync(b->w, b->first + (size + 1) / 2);
}

/* ---- what ---- */

static struct spk_binding *
oldest_lost(const struct spk_port *p)
{
    struct spk_binding *oldest = NULL;

    SPK_LIST_EACH(link, &p->lost)
    {
        struct spk_binding *b = SPK_OWNER(link, struct spk_binding, link);

        if (oldest == NULL || b->slots[b->first & b->mask].number <
                                  oldest->slots[oldest->first & oldest->mask].number)
            oldest = b;
    }
    return oldest;
}

/* So many more may be sent as have gone on, and an importer's no more than its count. */
static void
allow(struct spk_port *p)
{
    uint64_t most = p->popped + p->ch->depth;

    if (p->config.count >= 0 && (uint64_t)p->config.count < most)
        most = (uint64_t)p->config.count;
    spk_channel_allow(p->ch, most);
}

static bool
take_new(struct spk_port *p, struct spk_slot *slot)
{
    bool tell;

    while (p->ch != NULL && (slot->m = spk_channel_pop(p->ch, NULL, &tell)) == NULL) {
        if (spk_channel_await_message(p->ch) != 1)
            return false;
    }
    if (p->ch == NULL)
        return false;
    slot->number = ++p->popped;
    slot->repeated = false;
    if (tell)
        spk_channel_look(p->ch);
    allow(p);
    return true;
}

static bool
take_next(struct spk_port *p, struct spk_slot *slot)
{
    struct spk_binding *b = oldest_lost(p);

    if (b == NULL)
        return take_new(p, slot);
    *slot = b->slots[b->first++ & b->mask];
    p->mixed = true;
    if (b->first == b->last && b->w == NULL)
        spk_binding_free(b);
    else if (b->first == b->last)
        spk_list_remove(&b->link); /* until its wire has gone */
    return true;
}

void
spk_port_give(struct spk_port *p)
{
    struct spk_slot slot = {0};

    while (!p->over && !spk_list_empty(&p->turns)) {
        struct spk_binding *b = SPK_OWNER(p->turns.next, struct spk_binding, turn);

        if (!has_room(b)) {
            spk_list_remove(&b->turn);
            ask_if_short(b);
            continue;
        }
        if (!take_next(p, &slot))
            break;
        spk_list_remove(&b->turn);
        spk_list_append(&p->turns, &b->turn);
        slot.stamp = ++p->owner->given;
        b->slots[b->last++ & b->mask] = slot;
        b->left -= b->left > 0;
        spk_wire_kick(b->w);
    }
}

/* ---- the wire's questions ---- */

static spoke_msg *
next(struct spk_wire *w, uint8_t *flags)
{
    struct spk_binding *b = binding_of(w);
    struct spk_slot *slot;
    spoke_msg *m;

    if (b->at == b->last)
        spk_port_give(b->port);
    if (b->at == b->last)
        return NULL;
    slot = &b->slots[b->at++ & b->mask];
    if (slot->repeated)
        *flags |= SPK_FRAME_MAYBE_REPEATED;
    m = slot->m;
    if (!m->carries)
        return spoke_msg_dup(m);
    slot->m = NULL; /* what it carries goes once */
    return m;
}

static int
end(struct spk_wire *w, uint64_t *code, const char **text)
{
    struct spk_binding *b = binding_of(w);
    struct spk_port *p = b->port;

    if (b->at != b->last && !p->over)
        return 0;
    *text = "";
    if (b->left == 0 && b->at == b->last)
        return SPOKE_EOF;
    if (!p->over)
        return 0;
    *code = p->hung_up ? SPOKE_MUX_HANGUP : p->code;
    *text = p->text;
    return p->reason;
}

static void
sent(struct spk_wire *w, spoke_msg *m)
{
    binding_of(w)->written++;
    spoke_msg_free(m);
}

/* ---- what is taken ---- */

static bool
holds_something(const struct spk_binding *b)
{
    return b->first < b->last;
}

/* All messages up to this number have been taken, or lost. */
static uint64_t
taken_up_to(const struct spk_port *p)
{
    uint64_t number = p->popped;

    for (int i = 0; i < 2; i++) {
        SPK_LIST_EACH(link, i == 0 ? &p->bindings : &p->lost)
        {
            const struct spk_binding *b = SPK_OWNER(link, struct spk_binding, link);

            for (uint64_t at = b->first; at < b->last; at++) {
                uint64_t own = b->slots[at & b->mask].number;

                if (own <= number)
                    number = own - 1;
                if (!p->mixed)
                    break; /* those behind are younger */
            }
        }
    }
    return number;
}

static void
tell_taken(struct spk_port *p)
{
    if (p->ch != NULL)
        spk_channel_taken(p->ch, taken_up_to(p));
    spk_engine_wake_all(p->owner->e, &p->owner->waiters);
}

static void
changed(struct spk_wire *w)
{
    struct spk_binding *b = binding_of(w);
    struct spk_port *p = b->port;
    bool took = b->first < w->acked;

    if (w->accepted && !b->bound)
        spk_binding_bound(b);
    for (; b->first < w->acked && b->first < b->last; b->first++) {
        struct spk_slot *slot = &b->slots[b->first & b->mask];

        if (slot->m != NULL)
            spoke_msg_free(slot->m);
        slot->m = NULL;
    }
    if (took)
        tell_taken(p);
    queue_for_turn(b);
    spk_task_queue(p->owner->e, &p->task);
}

bool
spk_port_is_taken(const struct spk_port *p, uint64_t stamp)
{
    if (p->hung_up)
        return true;
    if (stamp == UINT64_MAX &&
        (!spk_list_empty(&p->lost) || (p->ch != NULL && spk_channel_pushed(p->ch) != p->popped)))
        return false;
    SPK_LIST_EACH(link, &p->bindings)
    {
        const struct spk_binding *b = SPK_OWNER(link, struct spk_binding, link);

        if (holds_something(b) && b->slots[b->first & b->mask].stamp <= stamp)
            return false;
    }
    return true;
}

void
spk_port_ask(struct spk_port *p)
{
    SPK_LIST_EACH(link, &p->bindings)
    {
        struct spk_binding *b = SPK_OWNER(link, struct spk_binding, link);

        if (b->w != NULL && !b->ended)
            spk_wire_sync(b->w, b->last);
    }
}

/* ---- the end of a binding ---- */

/* By number: what others had lost came late. */
static void
sort_by_number(struct spk_binding *b)
{
    uint64_t count = b->last - b->first;

    for (uint64_t gap = count / 2; gap > 0; gap /= 2) {
        for (uint64_t i = gap; i < count; i++) {
            struct spk_slot slot = b->slots[(b->first + i) & b->mask];
            uint64_t j = i;

            for (; j >= gap && b->slots[(b->first + j - gap) & b->mask].number > slot.number;
                 j -= gap)
                b->slots[(b->first + j) & b->mask] = b->slots[(b->first + j - gap) & b->mask];
            b->slots[(b->first + j) & b->mask] = slot;
        }
    }
}

/* What it holds that cannot be repeated, or must not be, is counted.  Gives how many had left
 * and were not acknowledged. */
static uint64_t
sort_out(struct spk_binding *b, int reason)
{
    struct spk_port *p = b->port;
    uint64_t to = b->first, unacked = b->written - b->first;

    for (uint64_t at = b->first; at < b->last; at++) {
        struct spk_slot slot = b->slots[at & b->mask];
        bool has_left = at < b->written;

        if (slot.m == NULL || p->over || (has_left && (p->config.flags & SPOKE_PORT_DROP) != 0)) {
            if (!p->hung_up)
                spk_ports_lose(p->owner, 1, reason);
            if (slot.m != NULL)
                spoke_msg_free(slot.m);
            continue;
        }
        slot.repeated |= has_left;
        b->slots[to++ & b->mask] = slot;
    }
    b->last = b->at = to;
    if (p->mixed)
        sort_by_number(b);
    return unacked;
}

static void
ended(struct spk_wire *w, int reason, uint64_t code, const char *text)
{
    struct spk_binding *b = binding_of(w);
    struct spk_port *p = b->port;
    uint64_t unacked;

    b->ended = true;
    spk_list_remove(&b->turn);
    if (w->closing && reason == SPOKE_EPEERCLOSED && b->first == b->last)
        reason = 0; /* that was all */
    unacked = sort_out(b, reason);
    if (b->first < b->last) {
        spk_list_remove(&b->link);
        spk_list_append(&p->lost, &b->link);
    }
    if (p->left > 0)
        p->left -= (int64_t)w->acked;
    spk_binding_tell(b, b->bound ? SPOKE_PORT_UNBOUND : SPOKE_PORT_REFUSED, reason, code, unacked,
                     text);
    p->owner->unbound(p, b, reason, code, text);
    tell_taken(p);
    spk_task_queue(p->owner->e, &p->task);
}

static void
released(struct spk_wire *w)
{
    spk_binding_released(binding_of(w));
}

const struct spk_wire_ops spk_wires_of_senders = {.next = next,
                                                  .end = end,
                                                  .sent = sent,
                                                  .changed = changed,
                                                  .ended = ended,
                                                  .released = released};

/* ---- the port's task ---- */

static bool
all_acknowledged(const struct spk_port *p)
{
    if (!spk_list_empty(&p->lost))
        return false;
    SPK_LIST_EACH(link, &p->bindings)
    {
        const struct spk_binding *b = SPK_OWNER(link, struct spk_binding, link);

        if (holds_something(b) && ((p->config.flags & SPOKE_PORT_DROP) == 0 || b->at < b->last))
            return false;
    }
    return true;
}

/* Its user has closed it, and everything has been taken: until then somebody may go, and another
 * get what that one had. */
static void
end_if_all_taken(struct spk_port *p)
{
    struct spk_channel *ch = p->ch;
    int rc = spk_channel_await_message(ch);

    if (rc == 0 || rc == 1)
        return;
    if (rc != SPOKE_EOF) {
        spk_port_end(p, rc, ch->abort_code, ch->text);
    } else if (all_acknowledged(p)) {
        spk_port_end(p, SPOKE_EOF, 0, "");
    } else {
        spk_port_ask(p);
    }
}

void
spk_port_on_give(struct spk_port *p)
{
    if (p->over || p->ch == NULL)
        return;
    if (!p->ch->limit_is_takers)
        allow(p);
    spk_port_give(p);
    if (p->ch->sync_to > p->ch->taken)
        spk_port_ask(p);
    end_if_all_taken(p);
}
