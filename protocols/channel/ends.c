/* SPDX-License-Identifier: MIT */
/* The users' calls on senders and receivers.  Most sends and receives need the ring only; whoever
 * has to wait, or lives on an owned engine, goes round by the engine. */
#include <string.h>

#include "protocols/channel/channel.h"
#include "protocols/channel/types.h"

static const enum spk_handle_kind kinds[] = {SPK_HANDLE_SENDER, SPK_HANDLE_RECEIVER};

/* ---- handles ---- */

/* May its user push, or pop, without the engine?  Not while somebody is to be told of each change,
 * or is in the middle of a copy. */
static void
set_fast(struct spk_channel *ch, enum spk_channel_side side)
{
    struct spk_channel_end *end = &ch->ends[side];
    bool fast = end->fd < 0 && !end->watched && end->copiers == 0 && end->also == NULL &&
                ch->depth > 0;
    void *handle = fast ? end->handle : NULL;

    if (!ch->e->shared)
        return;
    pthread_mutex_lock(side == SPK_SENDS ? &ch->tx_lock : &ch->rx_lock);
    *(side == SPK_SENDS ? &ch->tx_handle : &ch->rx_handle) = handle;
    pthread_mutex_unlock(side == SPK_SENDS ? &ch->tx_lock : &ch->rx_lock);
}

int
spk_channel_give(struct spk_channel *ch, enum spk_channel_side side, void **handle)
{
    int rc = spk_handle_new(kinds[side], ch, ch->e, handle);

    if (rc != 0)
        return rc;
    ch->ends[side].handle = *handle;
    if (ch->e->shared)
        spk_handle_set_front(*handle, ch);
    set_fast(ch, side);
    return 0;
}

void *
spk_channel_renew(struct spk_channel *ch, enum spk_channel_side side)
{
    struct spk_channel_end *end = &ch->ends[side];

    end->handle = spk_handle_renew(end->handle);
    spk_select_wake(&end->selects);
    set_fast(ch, side);
    return end->handle;
}

int
spk_channel_enter(const void *handle, enum spk_channel_side side, struct spk_channel **ch)
{
    struct spk_engine *e;
    void *object;
    int rc = spk_handle_enter(handle, kinds[side], &object, &e);

    if (rc == 0)
        *ch = object;
    return rc;
}

void
spk_channel_leave(struct spk_channel *ch)
{
    struct spk_engine *e = ch->e;

    spk_channel_free_if_done(ch);
    spk_engine_leave(e);
}

/* What can be used without the engine; NULL: nothing. */
static struct spk_channel *
front_of(const void *handle, enum spk_channel_side side)
{
    struct spk_channel *ch = spk_handle_front(handle, kinds[side]);
    bool ours = ch != NULL && ch->fork_generation ==
                                  atomic_load_explicit(&spk_fork_generation, memory_order_relaxed);

    return ours ? ch : NULL;
}

/* ---- a channel inside the process ---- */

void
spoke_channel_config_init(spoke_channel_config *config)
{
    *config = (spoke_channel_config){.depth = 64, .max_message = SPOKE_CHANNEL_MESSAGE_MAX};
}

static int
new_pair(struct spk_engine *e, const spoke_channel_config *config, spoke_receiver **rx,
         spoke_sender **tx)
{
    struct spk_channel *ch;
    void *handles[2];
    int rc;

    if ((rc = spk_channel_new(&ch, e, config)) != 0)
        return rc;
    for (int side = SPK_SENDS; side <= SPK_RECEIVES && rc == 0; side++)
        rc = spk_channel_give(ch, (enum spk_channel_side)side, &handles[side]);
    if (rc != 0) {
        spk_channel_close(ch, SPK_SENDS, SPOKE_ECLOSED, true, 0, NULL);
        spk_channel_close(ch, SPK_RECEIVES, SPOKE_ECLOSED, true, 0, NULL);
        spk_channel_free_if_done(ch);
        return rc;
    }
    *tx = handles[SPK_SENDS];
    *rx = handles[SPK_RECEIVES];
    return 0;
}

int
spoke_channel_pair(spoke_receiver **rx, spoke_sender **tx, const spoke_channel_config *config,
                   spoke_engine *engine)
{
    spoke_channel_config defaults;
    struct spk_engine *e;
    int rc;

    if (rx == NULL || tx == NULL)
        return SPOKE_EINVAL;
    *rx = NULL;
    *tx = NULL;
    if (config == NULL) {
        spoke_channel_config_init(&defaults);
        config = &defaults;
    }
    if ((rc = spk_channel_check_config(config)) != 0 || (rc = spk_streams_enter(engine, &e)) != 0)
        return rc;
    rc = new_pair(e, config, rx, tx);
    spk_engine_leave(e);
    return rc;
}

/* ---- waiting ---- */

/* 0: look again. */
static int
wait_on(struct spk_channel *ch, struct spk_link *list, spoke_ns deadline)
{
    if (deadline == SPOKE_NOW)
        return SPOKE_EAGAIN;
    return spk_engine_wait(ch->e, list, deadline, ch->busy_poll_ns);
}

/* Without depth the next send need not wait while a receive does. */
static void
count_awaiting(struct spk_channel *ch, int change)
{
    struct spk_channel_end *tx = &ch->ends[SPK_SENDS];

    ch->ends[SPK_RECEIVES].awaiting += (uint32_t)change;
    if (ch->depth > 0)
        return;
    spk_select_tell(&tx->selects);
    if (tx->fd >= 0 || tx->watched)
        spk_channel_look_at(ch, SPK_SENDS);
}

/* For a message, in this list. */
static int
wait_to_receive(struct spk_channel *ch, struct spk_link *list, spoke_ns deadline)
{
    int rc;

    count_awaiting(ch, 1);
    rc = wait_on(ch, list, deadline);
    count_awaiting(ch, -1);
    return rc;
}

/* What a call at this end may see of it. */
static int
begin(const void *handle, enum spk_channel_side side, struct spk_channel **out)
{
    int rc = spk_channel_enter(handle, side, out);

    if (rc == 0)
        (*out)->ends[side].callers++;
    return rc;
}

static void
end(struct spk_channel *ch, enum spk_channel_side side, int rc)
{
    struct spk_channel_end *at = &ch->ends[side];

    at->callers--;
    at->awaited |= rc == SPOKE_EAGAIN;
    if (at->fd >= 0 || at->watched)
        spk_channel_look(ch);
    spk_channel_leave(ch);
}

/* ---- sending ---- */

static bool
is_shared(const spoke_msg *m)
{
    return atomic_load_explicit(&m->refs, memory_order_acquire) > 1;
}

/* A channel without depth: the message is in its one slot, and has to be taken from there. */
static int
hand_over(struct spk_channel *ch, const void *handle, spoke_ns deadline)
{
    uint64_t number = spk_channel_pushed(ch);
    struct spk_channel_end *at = &ch->ends[SPK_SENDS];
    bool is_awaited = ch->ends[SPK_RECEIVES].awaiting > 0;
    int rc = 0;

    spk_channel_look(ch);
    if (deadline == SPOKE_NOW && is_awaited)
        return 0; /* whoever waits there takes it */
    ch->handing = number;
    while (rc == 0 && !spk_channel_await_popped(ch, number)) {
        if (ch->handing != number) /* it has been given back */
            return at->handle != handle ? SPOKE_ECLOSED : ch->rx_end;
        rc = wait_on(ch, &at->syncs, deadline);
    }
    if (ch->handing == number)
        ch->handing = 0;
    if (rc == 0 || !spk_channel_withdraw(ch, number))
        return 0;
    spk_channel_look(ch); /* others may wait for the slot */
    return rc;
}

static int
send_with_engine(const void *handle, spoke_msg *m, spoke_ns deadline)
{
    struct spk_channel *ch;
    bool tell;
    int rc;

    if ((rc = begin(handle, SPK_SENDS, &ch)) != 0)
        return rc;
    while ((rc = spk_channel_push(ch, NULL, m, &tell)) == SPOKE_EAGAIN) {
        if (spk_channel_await_room(ch))
            continue;
        if ((rc = wait_on(ch, &ch->ends[SPK_SENDS].waiters, deadline)) != 0)
            break;
        if (ch->ends[SPK_SENDS].handle != handle) {
            rc = SPOKE_ECLOSED;
            break;
        }
    }
    if (rc == 0 && ch->depth == 0)
        rc = hand_over(ch, handle, deadline);
    else if (rc == 0 && tell)
        spk_channel_look(ch);
    end(ch, SPK_SENDS, rc);
    return rc;
}

static int
send_plain(spoke_sender *tx, spoke_msg *m, spoke_ns deadline)
{
    struct spk_channel *ch;
    bool tell;
    int rc;

    if ((ch = front_of(tx, SPK_SENDS)) != NULL) {
        rc = spk_channel_push(ch, tx, m, &tell);
        if (tell)
            spk_channel_tell(ch);
        if (rc != SPOKE_EAGAIN && rc != SPOKE_ECLOSED)
            return rc;
    }
    return send_with_engine(tx, m, deadline);
}

int
spoke_sender_send(spoke_sender *tx, spoke_msg *m, spoke_ns deadline)
{
    uint16_t header_size;
    int rc;

    if (m == NULL || deadline < 0)
        return SPOKE_EINVAL;
    /* A header that others see too cannot be left out. */
    if ((m->carries || m->header_size > 0) && is_shared(m))
        return SPOKE_ESHARED;
    if ((header_size = m->header_size) == 0)
        return send_plain(tx, m, deadline);
    m->header_size = 0;
    if ((rc = send_plain(tx, m, deadline)) != 0)
        m->header_size = header_size;
    return rc;
}

int
spoke_sender_sync(spoke_sender *tx, spoke_ns deadline)
{
    struct spk_channel *ch;
    uint64_t count;
    int rc;

    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = begin(tx, SPK_SENDS, &ch)) != 0)
        return rc;
    count = spk_channel_pushed(ch);
    while (rc == 0) {
        if (!ch->limit_is_takers)
            (void)spk_channel_await_popped(ch, count);
        if (spk_channel_received(ch) >= count)
            break;
        if (ch->ends[SPK_SENDS].handle != tx) {
            rc = SPOKE_ECLOSED;
        } else if (ch->rx_end != 0) {
            rc = ch->rx_end;
        } else {
            if (count > ch->sync_to) {
                ch->sync_to = count;
                if (ch->ends[SPK_RECEIVES].taker != NULL)
                    spk_task_queue(ch->e, ch->ends[SPK_RECEIVES].taker);
            }
            rc = wait_on(ch, &ch->ends[SPK_SENDS].syncs, deadline);
        }
    }
    end(ch, SPK_SENDS, 0);
    return rc;
}

/* Of the user's. */
static void
await_call(struct spk_channel *ch, enum spk_channel_side side)
{
    struct spk_channel_end *end = &ch->ends[side];

    end->callers++;
    spk_engine_await_call(ch->e, end);
    end->callers--;
}

/* Close it if it is there. */
static int
close_end(const void *handle, enum spk_channel_side side, int reason, bool drops, uint64_t code,
          const char *text)
{
    struct spk_channel *ch;
    int rc = spk_channel_enter(handle, side, &ch);

    if (rc != 0)
        return rc == SPOKE_ECLOSED ? 0 : rc;
    spk_channel_close(ch, side, reason, drops, code, text);
    await_call(ch, side);
    spk_channel_leave(ch);
    return 0;
}

int
spoke_sender_close(spoke_sender *tx)
{
    return tx == NULL ? SPOKE_EINVAL : close_end(tx, SPK_SENDS, SPOKE_EOF, false, 0, NULL);
}

int
spoke_sender_abort(spoke_sender *tx, uint64_t code, const char *text)
{
    if (tx == NULL || (text != NULL && strlen(text) >= SPK_CHANNEL_TEXT))
        return SPOKE_EINVAL;
    return close_end(tx, SPK_SENDS, SPOKE_EABORTED, true, code, text);
}

int
spoke_receiver_close(spoke_receiver *rx)
{
    return rx == NULL ? SPOKE_EINVAL
                      : close_end(rx, SPK_RECEIVES, SPOKE_EPEERCLOSED, true, 0, NULL);
}

/* ---- receiving ---- */

static int
recv_with_engine(const void *handle, spoke_msg **m, spoke_ns deadline)
{
    struct spk_channel *ch;
    bool tell = false;
    int rc;

    if ((rc = begin(handle, SPK_RECEIVES, &ch)) != 0)
        return rc;
    while ((*m = spk_channel_pop(ch, NULL, &tell)) == NULL) {
        if (ch->ends[SPK_RECEIVES].handle != handle)
            rc = SPOKE_ECLOSED;
        else if ((rc = spk_channel_await_message(ch)) == 0)
            rc = wait_to_receive(ch, &ch->ends[SPK_RECEIVES].waiters, deadline);
        if (rc < 0)
            break;
        rc = 0;
    }
    if (tell)
        spk_channel_look(ch);
    end(ch, SPK_RECEIVES, rc);
    return rc;
}

int
spoke_receiver_recv(spoke_receiver *rx, spoke_msg **m, spoke_ns deadline)
{
    struct spk_channel *ch;
    bool tell;

    if (m == NULL)
        return SPOKE_EINVAL;
    *m = NULL;
    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((ch = front_of(rx, SPK_RECEIVES)) != NULL) {
        *m = spk_channel_pop(ch, rx, &tell);
        if (tell)
            spk_channel_tell(ch);
        if (*m != NULL)
            return 0;
    }
    return recv_with_engine(rx, m, deadline);
}

/* ---- values ---- */

/* Do its values lie in memory as those of the channel's type do? */
static bool
has_same_layout(const struct spk_channel *ch, const spoke_value_type *type)
{
    return type->has_layout && ch->has_layout &&
           memcmp(type->layout, ch->layout, sizeof ch->layout) == 0;
}

/* Values that go as they lie in memory have to lie there as those of the other end do. */
static bool
fits(const struct spk_channel *ch, const spoke_value_type *type)
{
    return ch->form != SPOKE_FORM_LAYOUT || has_same_layout(ch, type);
}

static int
set_type(const void *handle, enum spk_channel_side side, const spoke_value_type *type)
{
    struct spk_channel *ch;
    int rc;

    if (type == NULL || !spk_type_is_checked(type))
        return SPOKE_EINVAL;
    if ((rc = spk_channel_enter(handle, side, &ch)) != 0)
        return rc;
    if (ch->has_fingerprint &&
        (memcmp(ch->fingerprint, type->fingerprint, SPOKE_FINGERPRINT) != 0 || !fits(ch, type))) {
        rc = SPOKE_ETYPE;
    } else {
        ch->ends[side].type = type;
        ch->has_fingerprint = true;
        memcpy(ch->fingerprint, type->fingerprint, SPOKE_FINGERPRINT);
    }
    spk_channel_leave(ch);
    return rc;
}

int
spoke_sender_set_type(spoke_sender *tx, const spoke_value_type *type)
{
    return set_type(tx, SPK_SENDS, type);
}

int
spoke_receiver_set_type(spoke_receiver *rx, const spoke_value_type *type)
{
    return set_type(rx, SPK_RECEIVES, type);
}

/* *form: what sends use; LAYOUT for receives: they can read that, too. */
static int
type_of(const void *handle, enum spk_channel_side side, const spoke_value_type **type,
        enum spoke_form *form)
{
    struct spk_channel *ch;
    int rc;

    if ((rc = spk_channel_enter(handle, side, &ch)) != 0)
        return rc;
    *type = ch->ends[side].type;
    if (side == SPK_SENDS || *type == NULL)
        *form = ch->form;
    else
        *form = ch->form == SPOKE_FORM_EVOLVING ? ch->form
                : has_same_layout(ch, *type)    ? SPOKE_FORM_LAYOUT
                                                : SPOKE_FORM_EXACT;
    spk_channel_leave(ch);
    return *type == NULL ? SPOKE_ETYPE : 0;
}

static size_t
list_attachments(const spoke_msg *m, spoke_attachment list[SPK_ATTACHED_MOST])
{
    struct spk_attachments *a = m == NULL ? NULL : spk_attachments_of(m);

    for (uint32_t i = 0; a != NULL && i < a->count; i++)
        list[i] = (spoke_attachment){a->items[i].kind, a->items[i].direction};
    return a == NULL ? 0 : a->count;
}

/* What `from` carries, `to` carries. */
static void
move_attachments(spoke_msg *to, spoke_msg *from)
{
    to->attached = from->attached;
    to->carries = from->carries;
    from->carries = false;
}

int
spoke_sender_send_value(spoke_sender *tx, const void *value, spoke_msg *attachments,
                        spoke_ns deadline)
{
    spoke_attachment list[SPK_ATTACHED_MOST];
    size_t count = list_attachments(attachments, list);
    const spoke_value_type *type;
    enum spoke_form form;
    spoke_msg *m;
    int rc;

    if (value == NULL || deadline < 0)
        return SPOKE_EINVAL;
    if (count > 0 && is_shared(attachments))
        return SPOKE_ESHARED;
    if ((rc = type_of(tx, SPK_SENDS, &type, &form)) != 0 ||
        (rc = spoke_value_encode(type, form, value, list, count, &m)) != 0)
        return rc;
    m->as_layout = form == SPOKE_FORM_LAYOUT;
    if (attachments != NULL)
        move_attachments(m, attachments);
    if ((rc = spoke_sender_send(tx, m, deadline)) == 0) {
        spoke_msg_free(attachments);
        return 0;
    }
    if (attachments != NULL)
        move_attachments(attachments, m);
    spoke_msg_free(m);
    return rc;
}

/* A message that is no value of its type: nothing that follows can be trusted. */
static void
break_off(const void *handle, spoke_pipe_id pipe)
{
    struct spk_channel *ch;

    if (spk_channel_enter(handle, SPK_RECEIVES, &ch) != 0)
        return;
    if (ch->blame != NULL)
        ch->blame(ch, pipe);
    else
        spk_channel_break(ch, SPOKE_EDECODE, SPOKE_MUX_DECODE, "a message is no value of the type");
    spk_channel_leave(ch);
}

int
spoke_receiver_recv_value(spoke_receiver *rx, void *value, spoke_backing *backing,
                          spoke_ns deadline)
{
    spoke_attachment list[SPK_ATTACHED_MOST];
    const spoke_value_type *type;
    enum spoke_form form;
    spoke_pipe_id pipe;
    spoke_msg *m;
    int rc;

    if (value == NULL || backing == NULL)
        return SPOKE_EINVAL;
    *backing = (spoke_backing){0};
    if ((rc = type_of(rx, SPK_RECEIVES, &type, &form)) != 0)
        return rc;
    if ((rc = spoke_receiver_recv(rx, &m, deadline)) != 0)
        return rc;
    if (!m->as_layout && form == SPOKE_FORM_LAYOUT)
        form = SPOKE_FORM_EXACT;
    rc = SPOKE_EDECODE;
    if (!m->as_layout || form == SPOKE_FORM_LAYOUT)
        rc = spoke_value_decode(type, form, m, list, list_attachments(m, list), value, backing);
    if (rc == 0)
        return 0;
    pipe = m->pipe;
    spoke_msg_free(m);
    if (rc == SPOKE_EDECODE)
        break_off(rx, pipe);
    return rc;
}

/* ---- requests ---- */

int
spoke_request(spoke_sender *tx, spoke_msg *m, spoke_receiver **answers,
              const spoke_channel_config *config, spoke_ns deadline)
{
    spoke_channel_config defaults;
    struct spk_channel *ch;
    spoke_sender *answer;
    int rc;

    if (answers == NULL)
        return SPOKE_EINVAL;
    *answers = NULL;
    if (m == NULL || deadline < 0)
        return SPOKE_EINVAL;
    if (config == NULL) {
        spoke_channel_config_init(&defaults);
        config = &defaults;
    }
    if ((rc = spk_channel_check_config(config)) != 0 ||
        (rc = spk_channel_enter(tx, SPK_SENDS, &ch)) != 0)
        return rc;
    rc = new_pair(ch->e, config, answers, &answer);
    spk_channel_leave(ch);
    if (rc != 0)
        return rc;
    if ((rc = spoke_msg_attach_sender(m, answer)) == 0) {
        if ((rc = spoke_sender_send(tx, m, deadline)) == 0)
            return 0;
        spk_attachments_drop_last(m);
    } else {
        (void)spoke_sender_close(answer);
    }
    (void)spoke_receiver_close(*answers);
    *answers = NULL;
    return rc;
}

/* ---- without waiting ---- */

static int
fd_of(const void *handle, enum spk_channel_side side)
{
    struct spk_channel *ch;
    int rc;

    if ((rc = spk_channel_enter(handle, side, &ch)) != 0)
        return rc;
    if ((rc = spk_new_ready_fd(ch->e, &ch->ends[side].fd)) == 0) {
        set_fast(ch, side);
        spk_channel_look(ch);
        rc = ch->ends[side].fd;
    }
    spk_channel_leave(ch);
    return rc;
}

int
spoke_receiver_fd(spoke_receiver *rx)
{
    return fd_of(rx, SPK_RECEIVES);
}

int
spoke_sender_fd(spoke_sender *tx)
{
    return fd_of(tx, SPK_SENDS);
}

static void
watch(struct spk_channel *ch, enum spk_channel_side side, bool watched, void *ctx)
{
    struct spk_channel_end *end = &ch->ends[side];

    end->watched = end->awaited = watched;
    end->on_ready_ctx = ctx;
    set_fast(ch, side);
    spk_channel_look(ch);
    await_call(ch, side);
    spk_channel_leave(ch);
}

int
spoke_receiver_on_ready(spoke_receiver *rx, spoke_receiver_ready_f *fn, void *ctx)
{
    struct spk_channel *ch;
    int rc;

    if ((rc = spk_channel_enter(rx, SPK_RECEIVES, &ch)) != 0)
        return rc;
    ch->on_receiver_ready = fn;
    watch(ch, SPK_RECEIVES, fn != NULL, ctx);
    return 0;
}

int
spoke_sender_on_ready(spoke_sender *tx, spoke_sender_ready_f *fn, void *ctx)
{
    struct spk_channel *ch;
    int rc;

    if ((rc = spk_channel_enter(tx, SPK_SENDS, &ch)) != 0)
        return rc;
    ch->on_sender_ready = fn;
    watch(ch, SPK_SENDS, fn != NULL, ctx);
    return 0;
}

/* ---- select ---- */

static bool
can_recv(void *object, spoke_ns *until)
{
    (void)until;
    return spk_channel_await_message(object) != 0;
}

/* A message for the one slot of a channel without depth is sent when somebody is there to take it.
 */
static bool
can_send(void *object, spoke_ns *until)
{
    struct spk_channel *ch = object;

    (void)until;
    return spk_channel_await_room(ch) &&
           (ch->depth > 0 || ch->rx_end != 0 || ch->ends[SPK_RECEIVES].awaiting > 0);
}

static struct spk_link *
recvs_of(void *object)
{
    return &((struct spk_channel *)object)->ends[SPK_RECEIVES].selects;
}

static struct spk_link *
sends_of(void *object)
{
    return &((struct spk_channel *)object)->ends[SPK_SENDS].selects;
}

const struct spk_selectable spk_select_receiver = {
    .ready = can_recv,
    .selects = recvs_of,
};
const struct spk_selectable spk_select_sender = {
    .ready = can_send,
    .selects = sends_of,
};

/* ---- from one to the other ---- */

#define COPIES_MOST 64 /* messages, then others get at the engine */

struct copy {
    struct spk_channel *to, *from;
    const void *tx, *rx;
    spoke_ns deadline;
    bool lacks_room; /* and not a message */
};

/* Until there is a message in front, and room for it behind: 0, or why not.  Both ends are told in
 * the list of who waits for room. */
static int
await_both(struct copy *c)
{
    struct spk_link *list = &c->to->ends[SPK_SENDS].waiters;
    int rc;

    for (;;) {
        if (c->to->ends[SPK_SENDS].handle != c->tx || c->from->ends[SPK_RECEIVES].handle != c->rx)
            return SPOKE_ECLOSED;
        if ((rc = spk_channel_await_message(c->from)) < 0)
            return rc;
        if (c->to->rx_end != 0)
            return c->to->rx_end;
        c->lacks_room = rc != 0;
        if (rc == 0)
            rc = wait_to_receive(c->from, list, c->deadline);
        else if ((rc = spk_channel_check_next(c->from, c->to)) != 0)
            return rc;
        else if (spk_channel_await_room(c->to))
            return 0;
        else
            rc = wait_on(c->to, list, c->deadline);
        if (rc != 0)
            return rc;
    }
}

static int
let_others(struct copy *c)
{
    struct spk_engine *e = c->to->e;

    spk_engine_leave(e);
    (void)spk_engine_enter(e); /* a call in the middle of things: it is ours */
    return c->deadline != SPOKE_NOW && c->deadline != SPOKE_FOREVER &&
                   spk_engine_now(e) >= c->deadline
               ? SPOKE_ETIMEDOUT
               : 0;
}

/* Nobody pushes or pops without the engine meanwhile. */
static int
copy(struct copy *c, uint64_t *count)
{
    spoke_msg *m;
    bool tell;
    int rc;

    while ((rc = await_both(c)) == 0) {
        m = spk_channel_pop(c->from, NULL, &tell);
        if (tell)
            spk_channel_look(c->from);
        (void)spk_channel_forward(c->to, m, &tell);
        if (tell)
            spk_channel_look(c->to);
        if (++*count % COPIES_MOST == 0 && (rc = let_others(c)) != 0)
            break;
    }
    return rc == SPOKE_EOF ? 0 : rc;
}

int
spoke_channel_copy(spoke_sender *tx, spoke_receiver *rx, uint64_t *count, spoke_ns deadline)
{
    struct copy c = {.tx = tx, .rx = rx, .deadline = deadline};
    struct spk_channel_end *from, *to;
    void *object;
    int rc;

    if (count == NULL)
        return SPOKE_EINVAL;
    *count = 0;
    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = begin(tx, SPK_SENDS, &c.to)) != 0)
        return rc;
    if ((rc = spk_handle_join(rx, SPK_HANDLE_RECEIVER, c.to->e, &object)) != 0)
        goto end;
    c.from = object;
    from = &c.from->ends[SPK_RECEIVES];
    to = &c.to->ends[SPK_SENDS];
    if (c.from == c.to || from->also != NULL) {
        rc = c.from == c.to ? SPOKE_EINVAL : SPOKE_EBUSY;
        goto end;
    }
    from->callers++;
    from->also = &to->waiters;
    to->copiers++;
    set_fast(c.from, SPK_RECEIVES);
    set_fast(c.to, SPK_SENDS);
    rc = copy(&c, count);
    from->callers--;
    from->also = NULL;
    to->copiers--;
    set_fast(c.from, SPK_RECEIVES);
    set_fast(c.to, SPK_SENDS);
    from->awaited |= rc == SPOKE_EAGAIN && !c.lacks_room;
    if (from->fd >= 0 || from->watched)
        spk_channel_look(c.from);
    spk_channel_free_if_done(c.from);
end:
    end(c.to, SPK_SENDS, c.lacks_room ? rc : 0);
    return rc;
}

/* ---- what is known ---- */

static int
get_info(const void *handle, enum spk_channel_side side, struct spoke_channel_info *out)
{
    struct spk_channel *ch;
    uint64_t popped;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = spk_channel_enter(handle, side, &ch)) != 0)
        return rc;
    out->taken = spk_channel_received(ch);
    popped = spk_channel_popped(ch); /* before the others, which may go on meanwhile */
    out->sent = spk_channel_pushed(ch);
    out->waiting = out->sent - popped;
    out->depth = ch->depth;
    out->max_message = ch->max_message;
    out->end = side == SPK_SENDS ? ch->rx_end : ch->tx_end;
    out->abort_code = ch->abort_code;
    memcpy(out->text, ch->text, sizeof out->text);
    spk_channel_leave(ch);
    return 0;
}

int
spoke_sender_get_info(spoke_sender *tx, struct spoke_channel_info *out)
{
    return get_info(tx, SPK_SENDS, out);
}

int
spoke_receiver_get_info(spoke_receiver *rx, struct spoke_channel_info *out)
{
    return get_info(rx, SPK_RECEIVES, out);
}
