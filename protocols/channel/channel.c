/* SPDX-License-Identifier: MIT */
/* The queue with two ends, and who is told of what. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "protocols/channel/channel.h"
#include "protocols/channel/types.h"

/* ---- life ---- */

static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;
SPK_FREE_AFTER_FORK(spare_lock)
static struct spk_link spare = {&spare, &spare};

static void
on_errand(struct spk_errand *errand)
{
    struct spk_channel *ch = SPK_OWNER(errand, struct spk_channel, errand);

    if (ch->live) /* else somebody came late */
        spk_channel_look(ch);
}

static void on_ready_task(struct spk_channel *ch, enum spk_channel_side side);

static void
on_sender_ready(struct spk_task *task)
{
    on_ready_task(SPK_OWNER(task, struct spk_channel, ends[SPK_SENDS].ready_task), SPK_SENDS);
}

static void
on_receiver_ready(struct spk_task *task)
{
    on_ready_task(SPK_OWNER(task, struct spk_channel, ends[SPK_RECEIVES].ready_task), SPK_RECEIVES);
}

static void
on_engine_closing(struct spk_layer *layer)
{
    struct spk_channel *ch = SPK_OWNER(layer, struct spk_channel, layer);

    for (int side = SPK_SENDS; side <= SPK_RECEIVES; side++)
        spk_channel_close(ch, (enum spk_channel_side)side, SPOKE_ECLOSED, true, 0, NULL);
    spk_channel_free_if_done(ch);
}

/* The memory of one: those of the shared engine are kept for others when they are over, as threads
 * without the engine may still look at them. */
static struct spk_channel *
new_memory(const struct spk_engine *e)
{
    struct spk_link *link = NULL;
    struct spk_channel *ch;

    if (e->shared) {
        pthread_mutex_lock(&spare_lock);
        link = spk_list_take(&spare);
        pthread_mutex_unlock(&spare_lock);
    }
    if (link != NULL) {
        ch = SPK_OWNER(link, struct spk_channel, link);
        if (ch->fork_generation == e->fork_generation)
            return ch; /* … of this engine, whoever still looks at it */
        /* another thread of the parent's had its locks */
    } else if ((ch = spk_zalloc(sizeof *ch)) == NULL) {
        return NULL;
    }
    pthread_mutex_init(&ch->tx_lock, NULL);
    pthread_mutex_init(&ch->rx_lock, NULL);
    spk_errand_init(&ch->errand, on_errand);
    ch->e = (struct spk_engine *)e;
    ch->fork_generation = e->fork_generation;
    return ch;
}

static void
init_end(struct spk_channel_end *end, void (*on_ready)(struct spk_task *task))
{
    *end = (struct spk_channel_end){.fd = -1};
    spk_list_init(&end->waiters);
    spk_list_init(&end->syncs);
    spk_list_init(&end->selects);
    spk_task_init(&end->ready_task, on_ready);
}

static uint32_t
slots_for(size_t depth)
{
    uint32_t slots = 1;

    while (slots < depth)
        slots *= 2;
    return slots;
}

static void
lock(const struct spk_channel *ch, pthread_mutex_t *mutex)
{
    if (ch->e->shared)
        pthread_mutex_lock(mutex);
}

static void
unlock(const struct spk_channel *ch, pthread_mutex_t *mutex)
{
    if (ch->e->shared)
        pthread_mutex_unlock(mutex);
}

static void
init(struct spk_channel *ch, const spoke_channel_config *config)
{
    ch->depth = config->depth;
    ch->max_message = config->max_message;
    ch->busy_poll_ns = ch->e->busy_poll_ns;
    ch->has_fingerprint = config->type != NULL;
    if (ch->has_fingerprint)
        memcpy(ch->fingerprint, config->type->fingerprint, sizeof ch->fingerprint);
    ch->has_layout = config->type != NULL && config->type->has_layout;
    if (ch->has_layout)
        memcpy(ch->layout, config->type->layout, sizeof ch->layout);
    ch->admit = NULL;
    ch->blame = NULL;
    ch->form = config->type != NULL && config->type->has_layout ? SPOKE_FORM_LAYOUT
                                                                : SPOKE_FORM_EXACT;
    ch->taken = ch->sync_to = ch->handing = ch->abort_code = 0;
    ch->dropped_at = UINT64_MAX;
    ch->text[0] = '\0';
    init_end(&ch->ends[SPK_SENDS], on_sender_ready);
    init_end(&ch->ends[SPK_RECEIVES], on_receiver_ready);
    ch->ends[SPK_SENDS].type = ch->ends[SPK_RECEIVES].type = config->type;
    /* Somebody may look at these who comes late. */
    lock(ch, &ch->tx_lock);
    ch->tx_handle = NULL;
    ch->tx_end = ch->rx_end = 0;
    ch->rx_waits = false;
    ch->limit_seen = 0;
    atomic_store_explicit(&ch->tail, 0, memory_order_relaxed);
    unlock(ch, &ch->tx_lock);
    lock(ch, &ch->rx_lock);
    ch->rx_handle = NULL;
    ch->tail_seen = 0;
    ch->limit_is_takers = ch->tx_waits = false;
    ch->tell_at = UINT64_MAX;
    atomic_store_explicit(&ch->head, 0, memory_order_relaxed);
    atomic_store_explicit(&ch->limit, ch->depth > 0 ? ch->depth : 1, memory_order_relaxed);
    unlock(ch, &ch->rx_lock);
}

int
spk_channel_check_config(const spoke_channel_config *config)
{
    if (config->depth > SPOKE_CHANNEL_DEPTH_MAX || config->max_message > SPOKE_MSG_MAX)
        return SPOKE_ERANGE;
    return config->type != NULL && !spk_type_is_checked(config->type) ? SPOKE_EINVAL : 0;
}

int
spk_channel_new(struct spk_channel **out, struct spk_engine *e, const spoke_channel_config *config)
{
    uint32_t count = slots_for(config->depth);
    struct spk_channel *ch;
    spoke_msg **slots;

    *out = NULL;
    if ((slots = spk_zalloc(count * sizeof(spoke_msg *))) == NULL)
        return SPOKE_ENOMEM;
    if ((ch = new_memory(e)) == NULL) {
        spk_free(slots);
        return SPOKE_ENOMEM;
    }
    ch->slots = slots;
    ch->mask = count - 1;
    init(ch, config);
    ch->live = true;
    ch->layer.closing = on_engine_closing;
    spk_layer_add(e, &ch->layer);
    *out = ch;
    return 0;
}

/* Nothing is pushed any more. */
static void
drop_messages(struct spk_channel *ch)
{
    uint64_t first, end;

    lock(ch, &ch->rx_lock);
    first = atomic_load_explicit(&ch->head, memory_order_relaxed);
    end = atomic_load_explicit(&ch->tail, memory_order_acquire);
    if (ch->dropped_at == UINT64_MAX)
        ch->dropped_at = first;
    atomic_store_explicit(&ch->head, end, memory_order_release);
    ch->tail_seen = end;
    unlock(ch, &ch->rx_lock);
    for (uint64_t i = first; i < end; i++)
        spoke_msg_free(ch->slots[i & ch->mask]);
}

void
spk_channel_free_if_done(struct spk_channel *ch)
{
    struct spk_channel_end *end = ch->ends;

    if (!end[0].closed || !end[1].closed || end[0].callers + end[1].callers > 0 || !ch->live)
        return;
    for (int side = 0; side < 2; side++) {
        spk_task_cancel(&end[side].ready_task);
    }
    drop_messages(ch);
    spk_list_remove(&ch->layer.link);
    spk_free(ch->slots);
    ch->slots = NULL;
    ch->live = false;
    if (!ch->e->shared) {
        pthread_mutex_destroy(&ch->tx_lock);
        pthread_mutex_destroy(&ch->rx_lock);
        spk_free(ch);
        return;
    }
    pthread_mutex_lock(&spare_lock);
    spk_list_append(&spare, &ch->link);
    pthread_mutex_unlock(&spare_lock);
}

/* ---- in and out ---- */

static int
push(struct spk_channel *ch, const void *handle, spoke_msg *m, bool asks, bool *tell)
{
    uint64_t tail;
    int rc = 0;

    *tell = false;
    lock(ch, &ch->tx_lock);
    if (handle != NULL && handle != ch->tx_handle) {
        rc = SPOKE_ECLOSED; /* perhaps late: nothing here is ours, and may be half made */
        goto unlock;
    }
    tail = atomic_load_explicit(&ch->tail, memory_order_relaxed);
    if (tail >= ch->limit_seen)
        ch->limit_seen = atomic_load_explicit(&ch->limit, memory_order_acquire);
    if (ch->rx_end != 0) {
        rc = ch->rx_end;
    } else if (m->size > ch->max_message) {
        rc = SPOKE_EMSGSIZE;
    } else if (asks && m->carries && ch->admit != NULL && (rc = ch->admit(ch, m)) != 0) {
        /* it stays where it is */
    } else if (tail >= ch->limit_seen) {
        rc = SPOKE_EAGAIN;
    } else {
        ch->slots[tail & ch->mask] = m;
        atomic_store_explicit(&ch->tail, tail + 1, memory_order_release);
        *tell = ch->rx_waits;
        ch->rx_waits = false;
    }
unlock:
    unlock(ch, &ch->tx_lock);
    return rc;
}

int
spk_channel_push(struct spk_channel *ch, const void *handle, spoke_msg *m, bool *tell)
{
    return push(ch, handle, m, true, tell);
}

int
spk_channel_forward(struct spk_channel *ch, spoke_msg *m, bool *tell)
{
    return push(ch, NULL, m, false, tell);
}

spoke_msg *
spk_channel_pop(struct spk_channel *ch, const void *handle, bool *tell)
{
    spoke_msg *m = NULL;
    uint64_t head;

    *tell = false;
    lock(ch, &ch->rx_lock);
    if (handle != NULL && handle != ch->rx_handle)
        goto unlock;
    head = atomic_load_explicit(&ch->head, memory_order_relaxed);
    if (head == ch->tail_seen)
        ch->tail_seen = atomic_load_explicit(&ch->tail, memory_order_acquire);
    if (head != ch->tail_seen) {
        m = ch->slots[head & ch->mask];
        atomic_store_explicit(&ch->head, ++head, memory_order_release);
        if (!ch->limit_is_takers) {
            atomic_store_explicit(&ch->limit, head + (ch->depth > 0 ? ch->depth : 1),
                                  memory_order_release);
            *tell = ch->tx_waits;
            ch->tx_waits = false;
        }
        if (head >= ch->tell_at) {
            *tell = true;
            ch->tell_at = UINT64_MAX;
        }
    }
unlock:
    unlock(ch, &ch->rx_lock);
    return m;
}

int
spk_channel_check_next(struct spk_channel *ch, const struct spk_channel *to)
{
    const spoke_msg *m;
    uint64_t head;
    int rc = 0;

    lock(ch, &ch->rx_lock);
    head = atomic_load_explicit(&ch->head, memory_order_relaxed);
    if (head != spk_channel_pushed(ch)) {
        m = ch->slots[head & ch->mask];
        if (m->size > to->max_message)
            rc = SPOKE_EMSGSIZE;
        else if (m->carries && to->admit != NULL)
            rc = to->admit(to, m);
    }
    unlock(ch, &ch->rx_lock);
    return rc;
}

bool
spk_channel_withdraw(struct spk_channel *ch, uint64_t number)
{
    bool back;

    lock(ch, &ch->rx_lock);
    lock(ch, &ch->tx_lock);
    back = atomic_load_explicit(&ch->head, memory_order_relaxed) < number &&
           atomic_load_explicit(&ch->tail, memory_order_relaxed) == number;
    if (back) {
        atomic_store_explicit(&ch->tail, number - 1, memory_order_relaxed);
        ch->tail_seen = atomic_load_explicit(&ch->head, memory_order_relaxed);
    }
    unlock(ch, &ch->tx_lock);
    unlock(ch, &ch->rx_lock);
    return back;
}

/* ---- waiting ---- */

uint64_t
spk_channel_received(const struct spk_channel *ch)
{
    uint64_t popped = spk_channel_popped(ch);

    if (ch->limit_is_takers)
        return ch->taken;
    return popped < ch->dropped_at ? popped : ch->dropped_at;
}

uint64_t
spk_channel_pushed(const struct spk_channel *ch)
{
    return atomic_load_explicit(&ch->tail, memory_order_acquire);
}

uint64_t
spk_channel_popped(const struct spk_channel *ch)
{
    return atomic_load_explicit(&ch->head, memory_order_acquire);
}

int
spk_channel_await_message(struct spk_channel *ch)
{
    int rc;

    lock(ch, &ch->tx_lock);
    if (spk_channel_pushed(ch) != spk_channel_popped(ch))
        rc = 1;
    else if ((rc = ch->tx_end) == 0)
        ch->rx_waits = true;
    unlock(ch, &ch->tx_lock);
    return rc;
}

bool
spk_channel_await_popped(struct spk_channel *ch, uint64_t count)
{
    bool done;

    lock(ch, &ch->rx_lock);
    done = spk_channel_popped(ch) >= count;
    if (!done && count < ch->tell_at)
        ch->tell_at = count;
    unlock(ch, &ch->rx_lock);
    return done;
}

bool
spk_channel_await_room(struct spk_channel *ch)
{
    bool has_room;

    lock(ch, &ch->rx_lock);
    has_room = ch->rx_end != 0 ||
               atomic_load_explicit(&ch->limit, memory_order_relaxed) > spk_channel_pushed(ch);
    ch->tx_waits |= !has_room;
    unlock(ch, &ch->rx_lock);
    return has_room;
}

void
spk_channel_await_allowed(struct spk_channel *ch, uint64_t count)
{
    lock(ch, &ch->rx_lock);
    ch->tx_waits |= atomic_load_explicit(&ch->limit, memory_order_relaxed) < count;
    unlock(ch, &ch->rx_lock);
}

void
spk_channel_allow(struct spk_channel *ch, uint64_t count)
{
    bool tell = false;
    uint64_t most;

    lock(ch, &ch->rx_lock);
    ch->limit_is_takers = true;
    most = spk_channel_popped(ch) + ch->mask + 1;
    if (count > most)
        count = most;
    if (count > atomic_load_explicit(&ch->limit, memory_order_relaxed)) {
        atomic_store_explicit(&ch->limit, count, memory_order_release);
        tell = ch->tx_waits;
        ch->tx_waits = false;
    }
    unlock(ch, &ch->rx_lock);
    if (tell)
        spk_channel_look(ch);
}

void
spk_channel_limit_size(struct spk_channel *ch, uint64_t most)
{
    lock(ch, &ch->tx_lock);
    if (most < ch->max_message)
        ch->max_message = (size_t)most;
    unlock(ch, &ch->tx_lock);
}

void
spk_channel_taken(struct spk_channel *ch, uint64_t count)
{
    if (count <= ch->taken)
        return;
    ch->taken = count;
    if (ch->ends[SPK_SENDS].taker != NULL)
        spk_task_queue(ch->e, ch->ends[SPK_SENDS].taker);
    spk_engine_wake_all(ch->e, &ch->ends[SPK_SENDS].syncs);
}

/* ---- who is told ---- */

void
spk_channel_tell(struct spk_channel *ch)
{
    spk_errand_give(ch->e, &ch->errand);
}

/* Is there something for the user at this end, or else, will he be told?  Without depth there is
 * room for what somebody waits for. */
static bool
is_ready(struct spk_channel *ch, enum spk_channel_side side)
{
    if (side == SPK_RECEIVES)
        return spk_channel_await_message(ch) != 0;
    return spk_channel_await_room(ch) &&
           (ch->depth > 0 || ch->rx_end != 0 || ch->ends[SPK_RECEIVES].awaiting > 0);
}

/* They look themselves. */
static void
wake(struct spk_channel *ch, struct spk_channel_end *end)
{
    spk_engine_wake_all(ch->e, &end->waiters);
    spk_engine_wake_all(ch->e, &end->syncs);
    spk_select_tell(&end->selects);
    if (end->also != NULL)
        spk_engine_wake_all(ch->e, end->also);
}

void
spk_channel_look_at(struct spk_channel *ch, enum spk_channel_side side)
{
    struct spk_channel_end *end = &ch->ends[side];
    bool ready;

    if (end->taker != NULL) {
        spk_task_queue(ch->e, end->taker);
        return;
    }
    if (end->closed)
        return;
    wake(ch, end);
    if (end->fd < 0 && !(end->watched && end->awaited))
        return;
    ready = is_ready(ch, side);
    spk_set_ready_fd(end->fd, &end->fd_on, ready);
    if (ready && end->watched && end->awaited)
        spk_task_queue_callback(ch->e, &end->ready_task);
}

void
spk_channel_look(struct spk_channel *ch)
{
    spk_channel_look_at(ch, SPK_SENDS);
    spk_channel_look_at(ch, SPK_RECEIVES);
}

static void
on_ready_task(struct spk_channel *ch, enum spk_channel_side side)
{
    struct spk_channel_end *end = &ch->ends[side];
    /* Others may be set once the lock is left. */
    spoke_sender_ready_f *on_sender = ch->on_sender_ready;
    spoke_receiver_ready_f *on_receiver = ch->on_receiver_ready;
    void *handle = end->handle, *ctx = end->on_ready_ctx;

    if (end->closed || !end->watched || !end->awaited || !is_ready(ch, side))
        return;
    end->awaited = false;
    end->callers++;
    struct spk_engine *e = ch->e;
    spk_engine_call_begin(e, end);
    if (side == SPK_SENDS)
        on_sender(handle, ctx);
    else
        on_receiver(handle, ctx);
    spk_engine_call_end(e);
    end->callers--;
    spk_channel_free_if_done(ch);
}

/* ---- the ends of ends ---- */

/* No user any more, and what he wanted to be told. */
static void
clear_user(struct spk_channel *ch, enum spk_channel_side side)
{
    struct spk_channel_end *end = &ch->ends[side];
    pthread_mutex_t *mutex = side == SPK_SENDS ? &ch->tx_lock : &ch->rx_lock;

    lock(ch, mutex);
    *(side == SPK_SENDS ? &ch->tx_handle : &ch->rx_handle) = NULL;
    unlock(ch, mutex);
    if (end->handle != NULL)
        spk_handle_free(end->handle);
    end->handle = NULL;
    spk_select_wake(&end->selects);
    end->watched = false;
    spk_task_cancel(&end->ready_task);
    if (end->fd >= 0)
        close(end->fd);
    end->fd = -1;
    end->fd_on = false;
}

void
spk_channel_take(struct spk_channel *ch, enum spk_channel_side side, struct spk_task *taker)
{
    clear_user(ch, side);
    ch->ends[side].taker = taker;
    if (side == SPK_RECEIVES && ch->depth == 0)
        ch->depth = 1;
    spk_task_queue(ch->e, taker);
}

static void
note(struct spk_channel *ch, uint64_t code, const char *text)
{
    ch->abort_code = code;
    snprintf(ch->text, sizeof ch->text, "%s", text != NULL ? text : "");
}

/* What receives give when all is taken, and sends: the first reasons stay. */
static void
set_ends(struct spk_channel *ch, int tx_end, int rx_end, uint64_t code, const char *text)
{
    bool told = ch->tx_end == SPOKE_EABORTED || ch->rx_end == SPOKE_EABORTED;

    if (!told && (tx_end == SPOKE_EABORTED || rx_end == SPOKE_EABORTED))
        note(ch, code, text);
    lock(ch, &ch->tx_lock);
    if (ch->tx_end == 0)
        ch->tx_end = tx_end;
    if (ch->rx_end == 0)
        ch->rx_end = rx_end;
    unlock(ch, &ch->tx_lock);
}

/* What a send waits with in the one slot of a channel without depth is its own again. */
static void
give_back(struct spk_channel *ch)
{
    if (ch->handing != 0 && spk_channel_withdraw(ch, ch->handing))
        ch->handing = 0;
}

void
spk_channel_close(struct spk_channel *ch, enum spk_channel_side side, int reason, bool drops,
                  uint64_t code, const char *text)
{
    struct spk_channel_end *end = &ch->ends[side];

    if (end->closed)
        return;
    clear_user(ch, side);
    end->taker = NULL;
    end->closed = true;
    if (side == SPK_SENDS)
        set_ends(ch, reason, 0, code, text);
    else
        set_ends(ch, 0, reason, code, text);
    give_back(ch);
    if (drops)
        drop_messages(ch);
    wake(ch, end);
    spk_channel_look(ch);
}

void
spk_channel_stop(struct spk_channel *ch, int reason, uint64_t code, const char *text)
{
    set_ends(ch, reason, 0, code, text);
    spk_channel_look(ch);
}

void
spk_channel_break(struct spk_channel *ch, int reason, uint64_t code, const char *text)
{
    set_ends(ch, reason, SPOKE_EABORTED, code, text);
    lock(ch, &ch->tx_lock);
    ch->tx_end = reason; /* also where its sender had closed it: this is not all that was sent */
    unlock(ch, &ch->tx_lock);
    give_back(ch);
    drop_messages(ch);
    spk_channel_look(ch);
}
