/* SPDX-License-Identifier: MIT */
/* Ports from the inside.
 *
 *   port.c      names, life, events, waiting      exporter.c  names that are offered: the calls
 *   give.c      what goes out, to whom            serve.c     … and those who come to bind them
 *   merge.c     what comes in, from whom          importer.c  names that are bound: the calls
 *                                                 bind.c      … and how, also once more
 *
 * binding.c has the places of wires.
 *
 * A port is a channel under a name: at one end is a user, the other is taken by the port.  A
 * binding is a wire (wire.h) of it.  An exporter's port has any number of bindings, an importer's
 * one at a time.
 *
 * Whoever has a message owns it until it is acknowledged: what a binding was given stays in its
 * slots until the peer's application has taken it.  When the wire ends first, the binding stays
 * with what it holds among the port's `lost`, and that goes out again before anything else. Nothing
 * is allocated for that, so nothing can be lost then. */
#ifndef SPK_CHANNEL_PORT_H
#define SPK_CHANNEL_PORT_H

#include <spoke/port.h>

#include "protocols/channel/session.h"

struct spk_ports;
struct spk_peer;

struct spk_slot {
    spoke_msg *m;    /* NULL: it has gone on, and was not kept */
    uint64_t number; /* of all messages of the port's channel, from 1 */
    uint64_t stamp;  /* … of all that this exporter or importer has given out */
    bool repeated;   /* somebody may have it already */
};

/* Messages are counted from 0, as the wire does: slots hold [first, last).
 *   sends:     first: taken by the peer;       at: handed to the wire;   last: given to it
 *   receives:  first: popped from the channel; at: pushed into it;       last: arrived */
struct spk_binding {
    struct spk_link link;    /* in the port's bindings, or lost */
    struct spk_link turn;    /* in the port's turns */
    struct spk_link telling; /* in the port's telling: waits for `tell` */
    struct spk_port *port;
    struct spk_peer *peer; /* NULL: an importer's, or it has gone */
    struct spk_wire *w;    /* NULL: it has gone */
    spoke_pipe_id id;
    int64_t left; /* messages that may be given, or arrive.  -1: any number */
    struct spk_slot *slots;
    uint32_t mask;
    uint64_t first, at, last;
    uint64_t written; /* sends: have left */
    uint64_t tell;    /* receives: the wire is to be told when so many are popped */
    uint64_t taken;   /* … of them, what was not dropped */
    bool bound;       /* both sides know */
    bool ended;       /* its wire has told */
    bool blamed;      /* it sent what is no value */
};

struct spk_port {
    struct spk_link link; /* in its owner's ports, while it has its name there */
    struct spk_ports *owner;
    char name[SPOKE_PORT_NAME_MAX + 1];
    enum spoke_direction direction; /* what its user does */
    const spoke_value_type *type;
    spoke_port_config config; /* without zeros */
    struct spk_channel *ch;   /* NULL: it has ended */
    struct spk_task task;     /* of the end that it has taken */
    struct spk_link bindings, lost, turns, telling;
    uint64_t popped; /* sends: taken from the channel */

    bool mixed;   /* some have gone out once more: slots may not be in order */
    int64_t left; /* importer: of config.count.  -1: any number */
    bool over;    /* no message goes out, or comes in, any more … */
    bool hung_up;
    int reason; /* … for this: SPOKE_EOF, … */
    uint64_t code;
    char text[SPK_CHANNEL_TEXT];
    bool has_user;
    uint32_t wires, pins; /* calls that wait for it */
    bool uses_layout;     /* SPOKE_FORM_LAYOUT, with whom it can */
    /* An importer's. */
    bool was_bound; /* the exporter has accepted it, ever */
};

/* What exporters and importers have in common. */
struct spk_ports {
    void *handle;
    struct spk_engine *e;
    struct spk_layer layer;
    struct spk_link ports;  /* that have names */
    struct spk_link ending; /* … and those that have none any more */
    struct spk_link waiters;
    uint64_t given;  /* messages */
    uint64_t lost;   /* … that nobody is known to have taken */
    int lost_reason; /* the last time */
    spoke_pipe_id ids;
    uint32_t callers;
    bool is_exporter;
    bool closing; /* some call closes it */
    bool closed;

    /* What differs. */
    void (*bound)(struct spk_port *p, struct spk_binding *b); /* may be NULL */
    void (*unbound)(struct spk_port *p, struct spk_binding *b, int reason, uint64_t code,
                    const char *text);
    void (*released)(struct spk_binding *b); /* may be NULL */
    void (*name_peer)(struct spk_ports *ps, const struct spk_binding *b, char *text, size_t size);
    void (*note)(struct spk_ports *ps, const struct spoke_port_event *event); /* may be NULL */
    void (*call)(struct spk_ports *ps); /* where users may be called; may be NULL */
    void (*free_if_done)(struct spk_ports *ps);

    struct spk_link events;
    uint32_t event_count;
    struct spk_task callback;
    spoke_port_event_f *on_event;
    void *ctx;
};

/* ---- port.c ---- */
int spk_port_read_config(spoke_port_config *out, const spoke_port_config *config, bool is_importer);
int spk_port_check_name(const char *name, size_t size);
void spk_ports_init(struct spk_ports *ps, struct spk_engine *e);
int spk_ports_enter(const void *handle, enum spk_handle_kind kind, struct spk_ports **ps);
void spk_ports_leave(struct spk_ports *ps);
struct spk_port *spk_ports_find(const struct spk_ports *ps, const char *name, size_t size);
/* 0: look again. */
int spk_ports_wait(struct spk_ports *ps, spoke_ns deadline);
/* Until a function of the user's that runs has returned, but not in one. */
void spk_ports_await_call(struct spk_ports *ps);
/* Tell the user; what has no room is not told. */
void spk_ports_event(struct spk_ports *ps, const struct spoke_port_event *event);
/* Wait for what has been given out, or (`all`) everything, to be taken. */
int spk_ports_sync(struct spk_ports *ps, bool all, spoke_ns deadline);
/* Nothing is left of it: no wires, no events. */
bool spk_ports_are_done(const struct spk_ports *ps);
void spk_ports_fini(struct spk_ports *ps);
/* Messages that nobody is known to have taken, and never will. */
void spk_ports_lose(struct spk_ports *ps, uint64_t count, int reason);
/* Drain it, hang all up, and wait until that has been said. */
int spk_ports_finish(struct spk_ports *ps, spoke_ns until);
/* What the code of a refusal means. */
int spk_port_error(uint64_t code);
int spk_ports_hang_up(struct spk_ports *ps, const char *name);

/* With a channel, whose other end is to be given to a user. */
int spk_port_new(struct spk_port **out, struct spk_ports *ps, const char *name,
                 enum spoke_direction direction, const spoke_value_type *type,
                 const spoke_port_config *config);
/* The handle of its user's end. */
int spk_port_give_end(struct spk_port *p, void **handle);
enum spk_channel_side spk_port_side(const struct spk_port *p);
/* Its name is free.  What has not been given to anybody is dropped; who has a wire is told. */
void spk_port_end(struct spk_port *p, int reason, uint64_t code, const char *text);
void spk_port_hang_up(struct spk_port *p);
/* The same for one that nobody has got yet. */
void spk_port_abandon(struct spk_port *p);
void spk_port_free_if_done(struct spk_port *p);

/* ---- binding.c ---- */
/* A wire's place, without a wire. */
int spk_binding_new(struct spk_binding **out, struct spk_port *p, int64_t count);
/* What the wire of one is made with; without `is_ours` and `meta`. */
struct spk_wire_config spk_binding_wire_config(struct spk_binding *b);
void spk_binding_set_wire(struct spk_binding *b, struct spk_wire *w);
void spk_binding_bound(struct spk_binding *b);
void spk_binding_released(struct spk_binding *b);
/* What it has for the wire, or for the channel, goes to nobody. */
void spk_binding_drop(struct spk_binding *b);
void spk_binding_free(struct spk_binding *b);
void spk_binding_tell(struct spk_binding *b, enum spoke_port_event_type type, int code,
                      uint64_t wire_code, uint64_t unacked, const char *text);

/* ---- give.c ---- */
extern const struct spk_wire_ops spk_wires_of_senders;
void spk_port_give(struct spk_port *p);
void spk_port_on_give(struct spk_port *p);
/* Ask the peers to tell of all that they have been given. */
void spk_port_ask(struct spk_port *p);
/* Has all been taken that was given out up to `stamp`?  UINT64_MAX: and is nothing waiting. */
bool spk_port_is_taken(const struct spk_port *p, uint64_t stamp);

/* ---- merge.c ---- */
extern const struct spk_wire_ops spk_wires_of_receivers;
void spk_port_on_merge(struct spk_port *p);
void spk_port_blame(struct spk_channel *ch, spoke_pipe_id pipe);

#endif
