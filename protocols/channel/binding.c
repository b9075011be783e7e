/* SPDX-License-Identifier: MIT */
/* The places of wires at a port, and what is in them. */
#include <stdio.h>
#include <string.h>

#include "protocols/channel/port.h"

int
spk_binding_new(struct spk_binding **out, struct spk_port *p, int64_t count)
{
    struct spk_binding *b = spk_zalloc(sizeof *b);
    uint32_t slots = 1;

    *out = NULL;
    if (b == NULL)
        return SPOKE_ENOMEM;
    while (slots < p->config.size)
        slots *= 2;
    if ((b->slots = spk_zalloc(slots * sizeof *b->slots)) == NULL) {
        spk_free(b);
        return SPOKE_ENOMEM;
    }
    b->mask = slots - 1;
    b->port = p;
    b->left = count;
    b->tell = UINT64_MAX;
    b->id = ++p->owner->ids;
    spk_list_init(&b->turn);
    spk_list_init(&b->telling);
    spk_list_append(&p->bindings, &b->link);
    *out = b;
    return 0;
}

struct spk_wire_config
spk_binding_wire_config(struct spk_binding *b)
{
    const struct spk_port *p = b->port;
    bool sends = p->direction == SPOKE_SEND;

    return (struct spk_wire_config){.ops = sends ? &spk_wires_of_senders : &spk_wires_of_receivers,
                                    .owner = b,
                                    .sends = sends,
                                    .depth = p->config.size,
                                    .max_message = p->config.max_message,
                                    .granted = p->config.size,
                                    .type = p->uses_layout ? p->type : NULL};
}

void
spk_binding_set_wire(struct spk_binding *b, struct spk_wire *w)
{
    b->w = w;
    b->port->wires++;
}

void
spk_binding_bound(struct spk_binding *b)
{
    struct spk_channel *ch = b->port->ch;

    b->bound = true;
    if (ch != NULL && b->w->conn != NULL) /* with several bindings: the latest's */
        ch->busy_poll_ns = b->w->conn->busy_poll_ns;
    spk_binding_tell(b, SPOKE_PORT_BOUND, 0, 0, 0, "");
    if (b->port->owner->bound != NULL)
        b->port->owner->bound(b->port, b);
}

static uint64_t
held_from(const struct spk_binding *b)
{
    return b->port->direction == SPOKE_SEND ? b->first : b->at;
}

static void
drop_from(struct spk_binding *b, uint64_t from)
{
    for (uint64_t at = from; at < b->last; at++) {
        struct spk_slot *slot = &b->slots[at & b->mask];

        if (slot->m != NULL)
            spoke_msg_free(slot->m);
        slot->m = NULL;
    }
    b->last = from;
}

void
spk_binding_drop(struct spk_binding *b)
{
    struct spk_port *p = b->port;
    uint64_t from = held_from(b);

    if (p->direction == SPOKE_SEND) {
        if (!b->ended)
            from = b->at;
        if (!p->hung_up)
            spk_ports_lose(p->owner, b->last - from, p->reason);
    }
    drop_from(b, from);
}

void
spk_binding_free(struct spk_binding *b)
{
    drop_from(b, held_from(b));
    spk_list_remove(&b->link);
    spk_list_remove(&b->turn);
    spk_list_remove(&b->telling);
    spk_free(b->slots);
    spk_free(b);
}

/* Its wire has gone; what it holds stays. */
void
spk_binding_released(struct spk_binding *b)
{
    struct spk_port *p = b->port;
    struct spk_ports *ps = p->owner;
    bool holds = held_from(b) < b->last;

    b->w = NULL;
    p->wires--;
    if (ps->released != NULL)
        ps->released(b);
    spk_list_remove(&b->telling);
    if (!holds) {
        spk_binding_free(b);
    } else if (p->direction == SPOKE_RECEIVE) { /* goes on into the channel all the same */
        spk_list_remove(&b->link);
        spk_list_append(&p->lost, &b->link);
    }
    spk_port_free_if_done(p);
    ps->free_if_done(ps);
}

void
spk_binding_tell(struct spk_binding *b, enum spoke_port_event_type type, int code,
                 uint64_t wire_code, uint64_t unacked, const char *text)
{
    struct spk_ports *ps = b->port->owner;
    struct spoke_port_event event = {
        .type = type, .code = code, .wire_code = wire_code, .unacked = unacked, .binding = b->id};

    memcpy(event.name, b->port->name, sizeof event.name);
    snprintf(event.text, sizeof event.text, "%s", text != NULL ? text : "");
    ps->name_peer(ps, b, event.peer, sizeof event.peer);
    spk_ports_event(ps, &event);
}
