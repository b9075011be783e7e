/* SPDX-License-Identifier: MIT */
/* What exporters and importers have in common: ports, their bindings, events, and waiting. */
#include <stdio.h>
#include <string.h>

#include "protocols/channel/cbor.h"
#include "protocols/channel/port.h"
#include "protocols/channel/types.h"

#define SIZE       64   /* messages */
#define EVENTS_MAX 4096 /* that wait to be told */

/* ---- names and configurations ---- */

const char *
spoke_direction_name(enum spoke_direction direction)
{
    static const char *const names[] = {"receive", "send"};

    return (unsigned)direction < 2 ? names[direction] : "?";
}

void
spoke_port_config_init(spoke_port_config *config)
{
    *config = (spoke_port_config){
        .size = SIZE, .max_message = SPOKE_CHANNEL_MESSAGE_MAX, .count = -1};
}

bool
spoke_port_is_repeated(const spoke_msg *m)
{
    return m != NULL && m->repeated;
}

int
spk_port_read_config(spoke_port_config *out, const spoke_port_config *config, bool is_importer)
{
    const unsigned all = SPOKE_PORT_DROP | SPOKE_PORT_END_WITH_FIRST | SPOKE_PORT_END_WITH_LAST |
                         SPOKE_PORT_EVOLVING;

    if (config == NULL)
        spoke_port_config_init(out);
    else
        *out = *config;
    if (out->size == 0)
        out->size = 1;
    if (out->size > SPOKE_CHANNEL_DEPTH_MAX || out->max_message > SPOKE_MSG_MAX ||
        out->count < -1 || out->count == 0 || (out->flags & ~all) != 0)
        return SPOKE_ERANGE;
    if (!is_importer)
        out->count = -1;
    return 0;
}

/* Characters that show, and spaces. */
static bool
is_printable(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (data[i] < 0x20 || data[i] == 0x7f)
            return false;
        if (data[i] == 0xc2 && i + 1 < size && data[i + 1] < 0xa0)
            return false;
    }
    return spk_is_utf8(data, size);
}

int
spk_port_check_name(const char *name, size_t size)
{
    bool fits = size >= 1 && size <= SPOKE_PORT_NAME_MAX;

    return fits && is_printable((const uint8_t *)name, size) ? 0 : SPOKE_ERANGE;
}

/* ---- events ---- */

struct event {
    struct spk_link link;
    struct spoke_port_event event;
};

void
spk_ports_await_call(struct spk_ports *ps)
{
    ps->callers++;
    spk_engine_await_call(ps->e, ps);
    ps->callers--;
}

static void
on_callback(struct spk_task *task)
{
    struct spk_ports *ps = SPK_OWNER(task, struct spk_ports, callback);
    struct spk_link *link;

    ps->callers++;
    if (ps->call != NULL)
        ps->call(ps);
    while ((link = spk_list_take(&ps->events)) != NULL) {
        struct event *item = SPK_OWNER(link, struct event, link);

        ps->event_count--;
        if (!ps->closed) {
            spk_engine_call_begin(ps->e, ps);
            ps->on_event(ps->ctx, &item->event);
            spk_engine_call_end(ps->e);
        }
        spk_free(item);
    }
    ps->callers--;
    ps->free_if_done(ps);
}

static void
copy_text(char *to, size_t size, const char *text)
{
    snprintf(to, size, "%s", text != NULL ? text : "");
}

void
spk_ports_event(struct spk_ports *ps, const struct spoke_port_event *event)
{
    struct event *item;

    if (ps->note != NULL)
        ps->note(ps, event);
    if (ps->on_event == NULL || ps->closed || ps->event_count == EVENTS_MAX ||
        (item = spk_zalloc(sizeof *item)) == NULL)
        return;
    item->event = *event;
    spk_list_append(&ps->events, &item->link);
    ps->event_count++;
    spk_task_queue_callback(ps->e, &ps->callback);
}

/* ---- exporters and importers ---- */

void
spk_ports_init(struct spk_ports *ps, struct spk_engine *e)
{
    ps->e = e;
    spk_list_init(&ps->ports);
    spk_list_init(&ps->ending);
    spk_list_init(&ps->waiters);
    spk_list_init(&ps->events);
    spk_task_init(&ps->callback, on_callback);
    spk_layer_add(e, &ps->layer);
}

int
spk_ports_enter(const void *handle, enum spk_handle_kind kind, struct spk_ports **ps)
{
    struct spk_engine *e;
    void *object;
    int rc = spk_handle_enter(handle, kind, &object, &e);

    if (rc != 0)
        return rc;
    *ps = object;
    (*ps)->callers++;
    return 0;
}

void
spk_ports_leave(struct spk_ports *ps)
{
    struct spk_engine *e = ps->e;

    ps->callers--;
    ps->free_if_done(ps);
    spk_engine_leave(e);
}

struct spk_port *
spk_ports_find(const struct spk_ports *ps, const char *name, size_t size)
{
    SPK_LIST_EACH(link, &ps->ports)
    {
        struct spk_port *p = SPK_OWNER(link, struct spk_port, link);

        if (strlen(p->name) == size && memcmp(p->name, name, size) == 0)
            return p;
    }
    return NULL;
}

int
spk_ports_wait(struct spk_ports *ps, spoke_ns deadline)
{
    int rc;

    if (deadline == SPOKE_NOW)
        return SPOKE_EAGAIN;
    if (deadline != SPOKE_FOREVER && spk_engine_now(ps->e) >= deadline)
        return SPOKE_ETIMEDOUT;
    rc = spk_engine_wait(ps->e, &ps->waiters, deadline, ps->e->busy_poll_ns);
    return rc == SPOKE_ETIMEDOUT ? 0 : rc;
}

static bool
are_taken(const struct spk_link *ports, uint64_t stamp)
{
    bool done = true;

    SPK_LIST_EACH(link, ports)
    {
        struct spk_port *p = SPK_OWNER(link, struct spk_port, link);

        if (p->direction != SPOKE_SEND || spk_port_is_taken(p, stamp))
            continue;
        spk_port_ask(p);
        done = false;
    }
    return done;
}

int
spk_ports_sync(struct spk_ports *ps, bool all, spoke_ns deadline)
{
    uint64_t stamp = all ? UINT64_MAX : ps->given, lost = ps->lost;
    int rc = 0;

    if (deadline < 0)
        return SPOKE_EINVAL;
    for (;;) {
        bool named = are_taken(&ps->ports, stamp);

        if (are_taken(&ps->ending, stamp) && named)
            return ps->lost != lost ? ps->lost_reason : 0;
        if ((rc = spk_ports_wait(ps, deadline)) != 0)
            return rc;
        if (ps->closed && !ps->closing)
            return SPOKE_ECLOSED;
    }
}

int
spk_ports_finish(struct spk_ports *ps, spoke_ns until)
{
    int rc = spk_ports_sync(ps, true, until);

    while (!spk_list_empty(&ps->ports))
        spk_port_hang_up(SPK_OWNER(ps->ports.next, struct spk_port, link));
    while (rc == 0 && !spk_list_empty(&ps->ending))
        rc = spk_ports_wait(ps, until);
    return rc == SPOKE_EDEADLK ? 0 : rc; /* a callback cannot wait */
}

bool
spk_ports_are_done(const struct spk_ports *ps)
{
    return ps->closed && ps->callers == 0 && spk_list_empty(&ps->ports) &&
           spk_list_empty(&ps->ending);
}

void
spk_ports_fini(struct spk_ports *ps)
{
    struct spk_link *link;

    while ((link = spk_list_take(&ps->events)) != NULL)
        spk_free(SPK_OWNER(link, struct event, link));
    spk_task_cancel(&ps->callback);
    spk_list_remove(&ps->layer.link);
}

int
spk_port_error(uint64_t code)
{
    switch (code) {
    case SPOKE_MUX_NO_SUCH_NAME: return SPOKE_ENOENT;
    case SPOKE_MUX_WRONG_DIRECTION: return SPOKE_EDIR;
    case SPOKE_MUX_TYPE: return SPOKE_ETYPE;
    case SPOKE_MUX_NOT_PERMITTED: return SPOKE_EPERM;
    case SPOKE_MUX_LIMIT:
    case SPOKE_MUX_TOO_LARGE: return SPOKE_ELIMIT;
    case SPOKE_MUX_GOING_AWAY: return SPOKE_EMUXCLOSED;
    case SPOKE_MUX_PROTOCOL: return SPOKE_EPROTO;
    default: return SPOKE_EREJECTED;
    }
}

int
spk_ports_hang_up(struct spk_ports *ps, const char *name)
{
    struct spk_port *p = spk_ports_find(ps, name, strlen(name));

    if (p == NULL)
        return SPOKE_ENOENT;
    spk_port_hang_up(p);
    return 0;
}

/* ---- ports ---- */

enum spk_channel_side
spk_port_side(const struct spk_port *p)
{
    return p->direction == SPOKE_SEND ? SPK_RECEIVES : SPK_SENDS;
}

static void
on_task(struct spk_task *task)
{
    struct spk_port *p = SPK_OWNER(task, struct spk_port, task);
    struct spk_ports *ps = p->owner;

    ps->callers++;
    if (p->direction == SPOKE_SEND)
        spk_port_on_give(p);
    else
        spk_port_on_merge(p);
    spk_port_free_if_done(p);
    ps->callers--;
    ps->free_if_done(ps);
}

static int
take_channel(struct spk_port *p)
{
    spoke_channel_config config = {
        .depth = p->config.size, .max_message = p->config.max_message, .type = p->type};
    int rc;

    /* Of an import with a count no more is taken from its user. */
    if (p->direction == SPOKE_SEND && p->left >= 0 && (uint64_t)p->left < config.depth)
        config.depth = (size_t)p->left;

    if ((rc = spk_channel_check_config(&config)) != 0 ||
        (rc = spk_channel_new(&p->ch, p->owner->e, &config)) != 0)
        return rc;
    p->ch->form = p->type != NULL && (p->config.flags & SPOKE_PORT_EVOLVING) != 0
                      ? SPOKE_FORM_EVOLVING
                      : SPOKE_FORM_EXACT;
    if (p->owner->is_exporter && p->direction == SPOKE_RECEIVE)
        p->ch->blame = spk_port_blame;
    p->ch->ends[spk_port_side(p)].callers++; /* until it is let go */
    spk_channel_take(p->ch, spk_port_side(p), &p->task);
    return 0;
}

int
spk_port_new(struct spk_port **out, struct spk_ports *ps, const char *name,
             enum spoke_direction direction, const spoke_value_type *type,
             const spoke_port_config *config)
{
    struct spk_port *p = spk_zalloc(sizeof *p);
    int rc;

    *out = NULL;
    if (p == NULL)
        return SPOKE_ENOMEM;
    p->owner = ps;
    p->direction = direction;
    p->type = type;
    p->config = *config;
    p->left = config->count;
    copy_text(p->name, sizeof p->name, name);
    /* What is sent on an exported one may go to anybody, whatever his layout is. */
    p->uses_layout = type != NULL && type->has_layout &&
                     (config->flags & SPOKE_PORT_EVOLVING) == 0 &&
                     !(ps->is_exporter && direction == SPOKE_SEND);
    spk_list_init(&p->link);
    spk_list_init(&p->bindings);
    spk_list_init(&p->lost);
    spk_list_init(&p->turns);
    spk_list_init(&p->telling);
    spk_task_init(&p->task, on_task);
    if ((rc = take_channel(p)) != 0) {
        spk_free(p);
        return rc;
    }
    spk_list_append(&ps->ports, &p->link);
    *out = p;
    return 0;
}

int
spk_port_give_end(struct spk_port *p, void **handle)
{
    enum spk_channel_side side = p->direction == SPOKE_SEND ? SPK_SENDS : SPK_RECEIVES;

    int rc = spk_channel_give(p->ch, side, handle);

    p->has_user = rc == 0;
    return rc;
}

/* The channel's end here is nobody's any more. */
static void
let_channel_go(struct spk_port *p)
{
    struct spk_channel *ch = p->ch;
    enum spk_channel_side side = spk_port_side(p);
    int reason = p->reason;

    if (ch == NULL)
        return;
    p->ch = NULL;
    if (side == SPK_RECEIVES && reason == SPOKE_EOF)
        reason = SPOKE_EPEERCLOSED;
    ch->ends[side].callers--;
    if (!p->has_user)
        spk_channel_close(ch, side == SPK_SENDS ? SPK_RECEIVES : SPK_SENDS, SPOKE_ECLOSED, true, 0,
                          NULL);
    spk_channel_close(ch, side, reason, side == SPK_RECEIVES, p->code, p->text);
    spk_channel_free_if_done(ch);
}

/* What nobody gets any more. */
static void
drop_what_waits(struct spk_port *p)
{
    struct spk_link *link, *next;

    for (link = p->lost.next; link != &p->lost; link = next) {
        struct spk_binding *b = SPK_OWNER(link, struct spk_binding, link);

        next = link->next;
        spk_binding_drop(b);
        if (b->w == NULL)
            spk_binding_free(b);
        else
            spk_list_remove(&b->link);
    }
    SPK_LIST_EACH(at, &p->bindings)
    {
        spk_binding_drop(SPK_OWNER(at, struct spk_binding, link));
    }
    if (p->ch != NULL && !p->hung_up)
        spk_ports_lose(p->owner, spk_channel_pushed(p->ch) - p->popped, p->reason);
}

void
spk_port_end(struct spk_port *p, int reason, uint64_t code, const char *text)
{
    if (p->over)
        return;
    p->over = true;
    p->reason = reason;
    p->code = code;
    copy_text(p->text, sizeof p->text, text);
    spk_list_remove(&p->link);
    spk_list_append(&p->owner->ending, &p->link);
    if (p->direction == SPOKE_SEND) {
        drop_what_waits(p);
        let_channel_go(p);
    }
    SPK_LIST_EACH(link, &p->bindings)
    {
        struct spk_binding *b = SPK_OWNER(link, struct spk_binding, link);

        if (b->w != NULL)
            spk_wire_kick(b->w);
    }
    spk_engine_wake_all(p->owner->e, &p->owner->waiters);
    spk_task_queue(p->owner->e, &p->task);
}

void
spk_port_abandon(struct spk_port *p)
{
    spk_port_end(p, SPOKE_ECLOSED, SPOKE_MUX_CANCELED, "it is not wanted any more");
    spk_port_free_if_done(p);
}

void
spk_port_hang_up(struct spk_port *p)
{
    p->hung_up = true;
    spk_port_end(p, SPOKE_EOF, 0, "");
}

void
spk_port_free_if_done(struct spk_port *p)
{
    if (!p->over || !spk_list_empty(&p->bindings) || !spk_list_empty(&p->lost) ||
        p->wires + p->pins > 0)
        return;
    let_channel_go(p);
    spk_task_cancel(&p->task);
    spk_list_remove(&p->link);
    spk_engine_wake_all(p->owner->e, &p->owner->waiters);
    spk_free(p);
}

void
spk_ports_lose(struct spk_ports *ps, uint64_t count, int reason)
{
    if (count == 0)
        return;
    ps->lost += count;
    ps->lost_reason = reason == SPOKE_EOF || reason == 0 ? SPOKE_EPEERCLOSED : reason;
}
