/* SPDX-License-Identifier: MIT */
/* The users' calls on senders and receivers.  Most sends and receives need the ring only; whoever
 * has to wait, or lives on an owned engine, goes round by the engine. */
#include <string.h>

#include "protocols/channel/channel.h"
#include "protocols/channel/types.h"

static const enum spk_handle_kind kinds[] = {SPK_HANDLE_SENDER, SPK_HANDLE_RECEIVER};

/* ---- handles ---- */

/* May its user push, or pop, without the engine?  Not while somebody is to be told of each change.
 */
static void
set_fast(struct spk_channel *ch, enum spk_channel_side side)
{
    struct spk_channel_end *end = &ch->ends[side];
    void *handle = ch->e->shared && end->fd < 0 && !end->watched && ch->depth > 0 ? end->handle
                                                                                  : NULL;

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
    return spk_engine_wait(ch->e, list, deadline, ch->e->busy_poll_ns);
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

/* A header that others see too cannot be left out. */
static int
check_message(spoke_msg *m)
{
    if (!m->carries && m->header_size == 0)
        return 0;
    if (atomic_load_explicit(&m->refs, memory_order_acquire) > 1)
        return SPOKE_ESHARED;
    spk_msg_clear_header(m);
    return 0;
}

/* A channel without depth: the message is in its one slot, and has to be taken from there. */
static int
hand_over(struct spk_channel *ch, const void *handle, spoke_ns deadline)
{
    uint64_t number = spk_channel_pushed(ch);
    struct spk_channel_end *at = &ch->ends[SPK_SENDS], *other = &ch->ends[SPK_RECEIVES];
    bool is_awaited = !spk_list_empty(&other->waiters);
    int rc = 0;

    spk_channel_look(ch);
    if (deadline == SPOKE_NOW && is_awaited)
        return 0; /* whoever waited there takes it */
    while (rc == 0 && !spk_channel_await_popped(ch, number)) {
        if (at->handle != handle)
            rc = SPOKE_ECLOSED;
        else if (ch->rx_end != 0)
            rc = ch->rx_end;
        else
            rc = wait_on(ch, &at->syncs, deadline);
    }
    return rc != 0 && spk_channel_withdraw(ch, number) ? rc : 0;
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

int
spoke_sender_send(spoke_sender *tx, spoke_msg *m, spoke_ns deadline)
{
    struct spk_channel *ch;
    bool tell;
    int rc;

    if (m == NULL || deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = check_message(m)) != 0)
        return rc;
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
        if (ch->limit_is_takers ? ch->taken >= count : spk_channel_await_popped(ch, count))
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
            rc = wait_on(ch, &ch->ends[SPK_RECEIVES].waiters, deadline);
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

static int
set_type(const void *handle, enum spk_channel_side side, const spoke_value_type *type)
{
    struct spk_channel *ch;
    int rc;

    if (type == NULL || !spk_type_is_checked(type))
        return SPOKE_EINVAL;
    if ((rc = spk_channel_enter(handle, side, &ch)) != 0)
        return rc;
    if (ch->has_fingerprint && memcmp(ch->fingerprint, type->fingerprint, SPOKE_FINGERPRINT) != 0)
        rc = SPOKE_ETYPE;
    else
        ch->type = type;
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

/* Would it read what comes with the bytes of a C type as they are? */
static bool
fits_layout(const struct spk_channel *ch)
{
    return ch->type != NULL && ch->type->has_layout && ch->has_layout &&
           memcmp(ch->type->layout, ch->layout, sizeof ch->layout) == 0;
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
    *type = ch->type;
    if (side == SPK_SENDS)
        *form = ch->form;
    else
        *form = ch->form == SPOKE_FORM_EVOLVING ? ch->form
                : fits_layout(ch)               ? SPOKE_FORM_LAYOUT
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
    if (attachments != NULL && (rc = check_message(attachments)) != 0)
        return rc;
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

/* ---- from one to the other ---- */

/* Until there is room behind, and a message in front: 0, or why not. */
static int
await_both(struct spk_channel *to, struct spk_channel *from, spoke_ns deadline)
{
    int rc = 0;

    for (;;) {
        if (!spk_channel_await_room(to))
            rc = wait_on(to, &to->ends[SPK_SENDS].waiters, deadline);
        else if ((rc = spk_channel_await_message(from)) == 0 && to->rx_end != 0)
            rc = to->rx_end;
        else if (rc == 0)
            rc = wait_on(from, &from->ends[SPK_RECEIVES].waiters, deadline);
        else
            return rc == 1 ? 0 : rc;
        if (rc != 0)
            return rc;
    }
}

int
spoke_channel_copy(spoke_sender *tx, spoke_receiver *rx, uint64_t *count, spoke_ns deadline)
{
    struct spk_channel *to, *from;
    void *object;
    spoke_msg *m;
    bool tell;
    int rc;

    if (count == NULL)
        return SPOKE_EINVAL;
    *count = 0;
    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = begin(tx, SPK_SENDS, &to)) != 0)
        return rc;
    if ((rc = spk_handle_join(rx, SPK_HANDLE_RECEIVER, to->e, &object)) != 0)
        goto end;
    from = object;
    from->ends[SPK_RECEIVES].callers++;
    while ((rc = await_both(to, from, deadline)) == 0) {
        if (to->ends[SPK_SENDS].handle != tx || from->ends[SPK_RECEIVES].handle != rx) {
            rc = SPOKE_ECLOSED;
            break;
        }
        if ((m = spk_channel_pop(from, NULL, &tell)) == NULL)
            continue;
        if (tell)
            spk_channel_look(from);
        if ((rc = spk_channel_push(to, NULL, m, &tell)) != 0) {
            spoke_msg_free(m);
            break;
        }
        if (tell)
            spk_channel_look(to);
        ++*count;
    }
    rc = rc == SPOKE_EOF ? 0 : rc;
    from->ends[SPK_RECEIVES].callers--;
    spk_channel_free_if_done(from);
end:
    end(to, SPK_SENDS, 0);
    return rc;
}

/* ---- what is known ---- */

static int
get_info(const void *handle, enum spk_channel_side side, struct spoke_channel_info *out)
{
    struct spk_channel *ch;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = spk_channel_enter(handle, side, &ch)) != 0)
        return rc;
    out->sent = spk_channel_pushed(ch);
    out->taken = ch->limit_is_takers ? ch->taken : spk_channel_popped(ch);
    out->waiting = out->sent - spk_channel_popped(ch);
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
