/* SPDX-License-Identifier: MIT */
/* Devices: what is received on one raw socket is sent on another.  <spoke/device.h> has the rules.
 *
 * Each of the two sockets has an `end`, touched with its engine entered only.  Whenever the socket
 * can do something that it could not do before, the end's task moves what can be moved: it is a
 * callback's task, so that it runs in the loop, in turn with everything else.  A message is taken
 * off one socket when the other has room.
 *
 * Where the engines differ, there is a queue in between, bounded, with a lock, and each engine is
 * told of the other's progress by a post.  Two engines are never entered at the same time. */
#include <string.h>

#include <spoke/device.h>

#include "runtime/core/core.h"

#define BATCH         64 /* messages that are moved before others have their turn */
#define CROSSING_MOST 64u
#define CROSSING_SIZE ((size_t)1 << 20)        /* bytes; one message always fits */
#define AGAIN_NS      ((spoke_ns)5 * SPOKE_MS) /* when there was no memory */

/* ---- which sockets go together ---- */

struct match {
    uint16_t one, other;
    bool alone;       /* also with itself */
    bool does_itself; /* … where the socket passes messages on without a device */
};

static const struct match matches[] = {
    {16, 16, true, false},    /* PAIR */
    {17, 17, true, false},    /* PAIR1 */
    {32, 33, false, false},   /* PUB, SUB */
    {48, 49, false, false},   /* REQ, REP */
    {80, 81, false, false},   /* PUSH, PULL */
    {98, 99, false, false},   /* SURVEYOR, RESPONDENT */
    {112, 112, true, false},  /* BUS */
    {1600, 1600, true, true}, /* STAR */
};

static const struct match *
find_match(int one, int other)
{
    for (size_t i = 0; i < sizeof matches / sizeof *matches; i++) {
        const struct match *m = &matches[i];

        if ((m->one == one && m->other == other) || (m->one == other && m->other == one))
            return m;
    }
    return NULL;
}

/* ---- ends ---- */

/* Messages on their way from the other end's engine.  Under the device's lock. */
struct crossing {
    spoke_msg *slots[CROSSING_MOST];
    uint32_t head, count;
    size_t bytes;
    bool wants_room; /* the other end waits for some */
};

struct counters {
    atomic_uint_fast64_t messages, bytes, dropped;
};

struct spk_device_end {
    struct spk_device *device;
    struct spk_device_end *other; /* itself, if there is one socket */
    spoke_socket *handle;
    int protocol;
    struct spk_engine *e;
    uint64_t number;        /* of that engine: it may be closed before we know */
    struct spk_socket *s;   /* NULL before and after */
    struct spk_task task;   /* move what can be moved */
    struct spk_timer again; /* the same, a little later */
    spoke_msg *held;        /* is to be sent on `s`, which had no room or no memory for it */
    struct crossing in;
    struct spk_post post; /* there is something in `in`, or room in the other end's */
    atomic_bool posted;
    struct spk_post end_post; /* the device ends */
    struct counters to;       /* what was sent on `s` */
};

struct spk_device {
    void *handle;
    struct spk_device_end ends[2]; /* the handle is on the engine of ends[home] */
    int count, home;
    bool drains;                /* the socket does the rest by itself */
    atomic_bool started, ended; /* both ends are there; the first one goes */
    atomic_uint refs;     /* its ends that have a socket, posts on their way, calls in progress */
    pthread_mutex_t lock; /* of the crossings */
};

static void
ref(struct spk_device *d)
{
    atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
}

/* What has not been sent on is lost.  Nobody adds to it any more. */
static void
drop_crossing(struct spk_device_end *end)
{
    struct crossing *in = &end->in;

    for (; in->count > 0; in->count--) {
        spoke_msg_free(in->slots[in->head]);
        in->head = (in->head + 1) % CROSSING_MOST;
        atomic_fetch_add_explicit(&end->to.dropped, 1, memory_order_relaxed);
    }
}

static void
unref(struct spk_device *d)
{
    if (atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (int i = 0; i < d->count; i++)
        drop_crossing(&d->ends[i]);
    pthread_mutex_destroy(&d->lock);
    spk_free(d);
}

static bool
crosses(const struct spk_device_end *end)
{
    return end->e != end->other->e;
}

/* ---- from one engine to the other ---- */

static void on_posted(void *ctx);

/* Let an end on another engine have a look. */
static void
tell(struct spk_device_end *end)
{
    if (atomic_exchange(&end->posted, true))
        return;
    ref(end->device);
    if (spk_engine_post_embedded(end->e, end->number, &end->post, on_posted, end) != 0)
        unref(end->device); /* that engine is gone, and with it the device */
}

static bool
crossing_has_room(struct spk_device_end *to)
{
    struct crossing *in = &to->in;
    bool room;

    pthread_mutex_lock(&to->device->lock);
    room = in->count < CROSSING_MOST && in->bytes < CROSSING_SIZE;
    if (!room)
        in->wants_room = true;
    pthread_mutex_unlock(&to->device->lock);
    return room;
}

static void
crossing_push(struct spk_device_end *to, spoke_msg *m)
{
    struct crossing *in = &to->in;

    pthread_mutex_lock(&to->device->lock);
    in->slots[(in->head + in->count) % CROSSING_MOST] = m;
    in->count++;
    in->bytes += m->size;
    pthread_mutex_unlock(&to->device->lock);
}

static spoke_msg *
crossing_pop(struct spk_device_end *end)
{
    struct crossing *in = &end->in;
    spoke_msg *m = NULL;
    bool tell_other = false;

    pthread_mutex_lock(&end->device->lock);
    if (in->count > 0) {
        m = in->slots[in->head];
        in->head = (in->head + 1) % CROSSING_MOST;
        in->count--;
        in->bytes -= m->size;
    }
    if (in->wants_room && in->count <= CROSSING_MOST / 2 && in->bytes <= CROSSING_SIZE / 2) {
        in->wants_room = false;
        tell_other = true;
    }
    pthread_mutex_unlock(&end->device->lock);
    if (tell_other)
        tell(end->other);
    return m;
}

/* ---- moving ---- */

static void
count(struct counters *to, size_t size)
{
    atomic_fetch_add_explicit(&to->messages, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&to->bytes, size, memory_order_relaxed);
}

static void
drop(struct spk_device_end *to, spoke_msg *m)
{
    atomic_fetch_add_explicit(&to->to.dropped, 1, memory_order_relaxed);
    spoke_msg_free(m);
}

static bool
try_again(struct spk_device_end *end)
{
    return spk_timer_set(end->e, &end->again, spk_engine_now(end->e) + AGAIN_NS) == 0;
}

/* On its engine, while nothing is held.  Takes m. */
static void
send_on(struct spk_device_end *to, spoke_msg *m)
{
    size_t size = m->size;
    int rc = spk_socket_try_send(to->s, m);

    if (rc == 0)
        count(&to->to, size);
    else if (rc == SPOKE_EAGAIN || rc == SPOKE_ENOPEER || (rc == SPOKE_ENOMEM && try_again(to)))
        to->held = m;
    else
        drop(to, m);
}

static bool
has_room(struct spk_device_end *to)
{
    if (to->s == NULL || to->held != NULL)
        return false;
    return (to->s->protocol->ready(to->s) & SPK_WRITABLE) != 0;
}

/* What was held, and what has come from the other engine. */
static void
send_what_waits(struct spk_device_end *end)
{
    spoke_msg *m = end->held;

    if (m != NULL && !spk_timer_is_set(&end->again)) {
        end->held = NULL;
        send_on(end, m);
    }
    while (crosses(end) && has_room(end) && (m = crossing_pop(end)) != NULL)
        send_on(end, m);
}

static void
pass_on(struct spk_device_end *to, spoke_msg *m)
{
    if (to->device->drains) {
        count(&to->to, m->size);
        spoke_msg_free(m);
    } else if (crosses(to)) {
        crossing_push(to, m);
    } else {
        send_on(to, m);
    }
}

/* Returns how many were moved. */
static int
move(struct spk_device_end *from)
{
    struct spk_device_end *to = from->other;
    spoke_msg *m;
    int moved = 0;

    while (moved < BATCH && (crosses(to) ? crossing_has_room(to) : has_room(to)) &&
           spk_socket_recv_some(&from->s->own, &m, 1) == 1) {
        pass_on(to, m);
        moved++;
    }
    return moved;
}

static void
on_task(struct spk_task *task)
{
    struct spk_device_end *end = SPK_OWNER(task, struct spk_device_end, task);
    struct spk_engine *e = end->e;
    bool many = end->s->recv_queue.count > 1;
    int moved;

    if (!atomic_load(&end->device->started) || atomic_load(&end->device->ended))
        return;
    e->cork += many;
    send_what_waits(end);
    moved = end->s->protocol->receives ? move(end) : 0;
    e->cork -= many;
    if (moved > 0 && crosses(end))
        tell(end->other);
    if (moved == BATCH)
        spk_task_queue_callback(e, &end->task);
}

/* One end may have let go of its socket a moment before the other does. */
static void
queue_task(struct spk_device_end *end)
{
    if (end->s != NULL)
        spk_task_queue_callback(end->e, &end->task);
}

static void
on_again(struct spk_timer *timer)
{
    struct spk_device_end *end = SPK_OWNER(timer, struct spk_device_end, again);

    spk_device_look(end);
}

static void
on_posted(void *ctx)
{
    struct spk_device_end *end = ctx;

    atomic_store(&end->posted, false); /* first: what comes now is told again */
    queue_task(end);
    unref(end->device);
}

void
spk_device_look(struct spk_device_end *end)
{
    queue_task(end);
    if (!crosses(end))
        queue_task(end->other);
}

/* ---- the end ---- */

/* On its engine. */
static void
let_go(struct spk_device_end *end)
{
    if (end->s == NULL)
        return;
    send_what_waits(end); /* once more, as far as it goes */
    if (end->held != NULL)
        drop(end, end->held);
    end->held = NULL;
    spk_task_cancel(&end->task);
    spk_timer_cancel(end->e, &end->again);
    end->s->device = NULL;
    spk_socket_check_ready(end->s); /* what is left is the user's */
    end->s = NULL;
    unref(end->device);
}

static void
close_handle(struct spk_device *d)
{
    if (!atomic_exchange(&d->ended, true))
        spk_handle_free(d->handle);
}

static void
on_end_posted(void *ctx)
{
    struct spk_device_end *end = ctx;
    struct spk_device *d = end->device;

    let_go(end);
    unref(d);
}

/* One of its sockets closes. */
void
spk_device_end(struct spk_device_end *end)
{
    struct spk_device *d = end->device;
    struct spk_device_end *other = end->other;

    ref(d);
    close_handle(d);
    if (!crosses(end)) {
        let_go(other);
    } else {
        ref(d);
        if (spk_engine_post_embedded(other->e, other->number, &other->end_post, on_end_posted,
                                     other) != 0)
            unref(d);
    }
    let_go(end);
    unref(d);
}

/* ---- the beginning ---- */

static int
enter_socket(spoke_socket *handle, struct spk_socket **s, struct spk_engine **e)
{
    void *object = NULL;
    int rc = spk_handle_enter(handle, SPK_HANDLE_SOCKET, &object, e);

    *s = object;
    return rc;
}

static int
check(const struct spk_socket *s)
{
    if (s->device != NULL || s->on_message != NULL)
        return SPOKE_EBUSY;
    return s->raw || !s->started ? 0 : SPOKE_ETOOLATE;
}

/* What there is to know of a socket before anything changes. */
static int
look_at(struct spk_device_end *end)
{
    struct spk_socket *s;
    struct spk_engine *e;
    int rc = enter_socket(end->handle, &s, &e);

    if (rc != 0)
        return rc;
    end->e = e;
    end->number = e->number;
    end->protocol = s->protocol->number;
    rc = check(s);
    spk_engine_leave(e);
    return rc;
}

static int
attach(struct spk_device_end *end)
{
    struct spk_socket *s;
    struct spk_engine *e;
    int rc = enter_socket(end->handle, &s, &e);

    if (rc != 0)
        return rc;
    if (atomic_load(&end->device->ended)) /* the first one has been closed meanwhile */
        rc = SPOKE_ECLOSED;
    else if ((rc = check(s)) == 0) {
        s->raw = true;
        if (s->protocol->options_changed != NULL)
            s->protocol->options_changed(s);
        ref(end->device);
        end->s = s;
        s->device = end;
        if (s->front != NULL)
            spk_front_shut_inbox(s->front);
        spk_context_fail_recv(&s->own, SPOKE_ESTATE);
        spk_socket_look(s);
        spk_socket_check_ready(s);
    }
    spk_engine_leave(e);
    return rc;
}

/* Have both ends look at what is there already. */
static void
start_moving(struct spk_device *d)
{
    for (int i = 0; i < d->count; i++) {
        struct spk_device_end *end = &d->ends[i];

        if (spk_engine_enter(end->e) != 0)
            continue;
        if (end->s != NULL)
            spk_device_look(end);
        spk_engine_leave(end->e);
    }
}

/* Take both ends off their sockets; whoever calls may enter both engines. */
static void
detach(struct spk_device *d)
{
    for (int i = 0; i < d->count; i++) {
        struct spk_device_end *end = &d->ends[i];

        if (spk_engine_enter(end->e) != 0) /* it is closed, and has let go */
            continue;
        let_go(end);
        spk_engine_leave(end->e);
    }
}

static void
init_end(struct spk_device *d, int index, spoke_socket *handle)
{
    struct spk_device_end *end = &d->ends[index];

    end->device = d;
    end->handle = handle;
    end->other = &d->ends[d->count - 1 - index];
    spk_task_init(&end->task, on_task);
    spk_timer_init(&end->again, on_again);
}

/* Look at the sockets, which are one or two, and refuse what does not go together. */
static int
check_sockets(struct spk_device *d)
{
    const struct match *match;
    int rc;

    for (int i = 0; i < d->count; i++)
        if ((rc = look_at(&d->ends[i])) != 0)
            return rc;
    match = find_match(d->ends[0].protocol, d->ends[d->count - 1].protocol);
    if (match == NULL || (d->count == 1 && !match->alone))
        return SPOKE_ENOTSUP;
    d->drains = d->count == 1 && match->does_itself;
    d->home = d->count == 2 && !d->ends[1].e->shared ? 1 : 0;
    return 0;
}

int
spoke_device_start(spoke_device **out, spoke_socket *a, spoke_socket *b)
{
    struct spk_device *d;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if ((d = spk_zalloc(sizeof *d)) == NULL)
        return SPOKE_ENOMEM;
    d->count = a == NULL || b == NULL || a == b ? 1 : 2;
    atomic_init(&d->refs, 1); /* this call */
    pthread_mutex_init(&d->lock, NULL);
    init_end(d, 0, a != NULL ? a : b);
    if (d->count == 2)
        init_end(d, 1, b);
    if ((rc = check_sockets(d)) != 0)
        goto unref;
    if ((rc = spk_handle_new(SPK_HANDLE_DEVICE, d, d->ends[d->home].e, &d->handle)) != 0)
        goto unref;
    for (int i = 0; i < d->count && rc == 0; i++)
        rc = attach(&d->ends[i]);
    if (rc != 0)
        goto detach;
    *out = d->handle;
    atomic_store(&d->started, true);
    start_moving(d);
    unref(d);
    return 0;
detach:
    close_handle(d);
    detach(d);
unref:
    unref(d);
    return rc;
}

/* ---- the user ---- */

static struct spoke_device_way
read_counters(struct counters *c)
{
    return (struct spoke_device_way){
        .messages = atomic_load_explicit(&c->messages, memory_order_relaxed),
        .bytes = atomic_load_explicit(&c->bytes, memory_order_relaxed),
        .dropped = atomic_load_explicit(&c->dropped, memory_order_relaxed),
    };
}

static void
read_stats(struct spk_device *d, struct spoke_device_stats *out)
{
    memset(out, 0, sizeof *out);
    out->there = read_counters(&d->ends[d->count - 1].to);
    if (d->count == 2)
        out->back = read_counters(&d->ends[0].to);
}

int
spoke_device_get_stats(spoke_device *handle, struct spoke_device_stats *out)
{
    struct spk_engine *e;
    void *object;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = spk_handle_enter(handle, SPK_HANDLE_DEVICE, &object, &e)) != 0)
        return rc;
    read_stats(object, out);
    spk_engine_leave(e);
    return 0;
}

int
spoke_device_stop(spoke_device *handle, struct spoke_device_stats *last)
{
    struct spk_device *d;
    struct spk_engine *e;
    void *object;
    int rc;

    if (last != NULL)
        memset(last, 0, sizeof *last);
    if ((rc = spk_handle_enter(handle, SPK_HANDLE_DEVICE, &object, &e)) != 0)
        return rc;
    d = object;
    ref(d);
    close_handle(d);
    spk_engine_leave(e);
    detach(d);
    for (int i = 0; i < d->count; i++)
        drop_crossing(&d->ends[i]);
    if (last != NULL)
        read_stats(d, last);
    unref(d);
    return 0;
}
