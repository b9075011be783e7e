/* SPDX-License-Identifier: MIT */
/* The backend of engines that live in a simulated world: what an engine's loop asks of a kernel,
 * asked of sim_world.c and sim_network.c.
 *
 * An operation waits on its handle until what it waits for may have come; then it is ready and the
 * next turn of its engine carries it out.  A send moves its bytes as soon as there is room, and the
 * news of it may come later than the peer's answer. */
#include <string.h>

#include "runtime/engine/sim_world.h"

#define NEWS_LATE     250 /* per 1 000: sends whose completion comes late */
#define ACCEPTS_GO_ON 750 /* per 1 000: accepts that stay armed, as a multishot does */
#define OVERFLOW_MOST 10  /* latencies that an overflow lasts */
#define NEAR          8   /* completions among which the next one is drawn */

static struct sim_node *
node_of(const struct spk_engine *e)
{
    return e->backend_state;
}

/* NULL and a mark in the book for a number that is not a handle of this engine. */
static struct sim_handle *
handle_of(const struct spk_engine *e, int number)
{
    struct sim_node *node = node_of(e);
    struct sim_handle *h = spk_sim_handle(node->world, number);

    if (h != NULL && h->node != node) {
        node->world->misuses++;
        return NULL;
    }
    return h;
}

/* ---- operations ---- */

static void
move_to(struct sim_op *o, struct spk_link *list, bool ready)
{
    spk_list_remove(&o->link);
    spk_list_append(list, &o->link);
    o->ready = ready;
}

static void
make_ready(struct sim_op *o)
{
    if (!o->ready)
        move_to(o, &o->h->node->ready, true);
}

static void
decide(struct sim_op *o, int64_t result)
{
    o->decided = true;
    o->result = (int)result;
    make_ready(o);
}

static void
on_sent(struct sim_event *event)
{
    make_ready(&SPK_OWNER(event, struct sim_handle, sent)->ops[SPK_OP_SEND]);
}

/* Move the bytes, if there is room. */
static void
try_send(struct sim_op *o)
{
    struct sim_handle *h = o->h;
    struct spoke_sim *w = h->node->world;
    const struct msghdr *msg = o->op->u.send.msg;
    int64_t n = msg != NULL                   ? spk_sim_write(h, msg->msg_iov, msg->msg_iovlen)
                : spk_sim_can(h, SPK_OP_SEND) ? 0
                                              : SPOKE_EAGAIN;

    if (n == SPOKE_EAGAIN)
        return;
    if (n > 0 && spk_sim_chance(w, NEWS_LATE)) {
        o->decided = true;
        o->result = (int)n;
        h->sent.fire = on_sent;
        spk_sim_event_set(w, &h->sent, w->now + spk_sim_latency(w));
    } else {
        decide(o, n);
    }
}

void
spk_sim_wake(struct sim_handle *h, enum spk_op_kind kind)
{
    struct sim_op *o = &h->ops[kind];

    if (o->op == NULL || o->ready || o->decided)
        return;
    if (kind == SPK_OP_SEND)
        try_send(o);
    else if (spk_sim_can(h, kind))
        make_ready(o);
}

void
spk_sim_abort_ops(struct sim_node *node)
{
    struct spk_link *link, *next;

    for (link = node->waiting.next; link != &node->waiting; link = next) {
        struct sim_op *o = SPK_OWNER(link, struct sim_op, link);

        next = link->next;
        if (o->decided)
            make_ready(o);
        else
            decide(o, SPOKE_ECONNRESET);
    }
}

static void
go_astray(struct sim_node *node, struct spk_op *op, int result)
{
    op->backend[0] = 0;
    op->backend[1] = (uint64_t)(int64_t)result;
    spk_list_append(&node->strays, &op->link);
}

static void
sim_submit(struct spk_engine *e, struct spk_op *op)
{
    struct sim_node *node = node_of(e);
    struct sim_handle *h = handle_of(e, op->handle);
    struct sim_op *o = h != NULL ? &h->ops[op->kind] : NULL;

    if (o == NULL || o->op != NULL) {
        node->world->misuses += o != NULL ? 1 : 0;
        go_astray(node, op, o != NULL ? SPOKE_EBUSY : SPOKE_EINVAL);
        return;
    }
    o->op = op;
    o->decided = false;
    op->backend[0] = (uint64_t)(uintptr_t)o;
    move_to(o, &node->waiting, false);
    if (node->killed)
        decide(o, SPOKE_ECONNRESET);
    else if (op->kind == SPK_OP_CONNECT)
        spk_sim_connect(h, op->u.connect.address, op->u.connect.size);
    else
        spk_sim_wake(h, (enum spk_op_kind)op->kind);
}

static void
sim_cancel(struct spk_engine *e, struct spk_op *op)
{
    struct sim_op *o = (struct sim_op *)(uintptr_t)op->backend[0];

    (void)e;
    op->cancelled = true;
    if (o != NULL && !o->decided) /* else it is over, and only the news is on its way */
        make_ready(o);
}

/* ---- completing ---- */

/* The final completion.  Its owner may have broken the rule and used the operation again before. */
static int
finish(struct sim_op *o, int64_t result, bool scratch)
{
    struct sim_node *node = o->h->node;
    struct spk_engine *e = node->engine;
    struct spk_op *op = o->op;

    spk_sim_note(node->world, SIM_DID_COMPLETE, (int64_t)o->h->number << 8 | (o - o->h->ops),
                 result);
    spk_list_remove(&o->link);
    o->op = NULL;
    o->ready = o->decided = false;
    if (op->state != SPK_OP_IN_FLIGHT || op->backend[0] != (uint64_t)(uintptr_t)o) {
        node->world->report.double_completions++;
        return 0;
    }
    op->backend[0] = 0;
    op->more = false;
    if (scratch)
        spk_scratch_complete(e, op, result);
    else
        spk_op_complete(e, op, (int)result);
    return 1;
}

/* What it was woken for has gone. */
static int
wait_again(struct sim_op *o)
{
    if (o->op->cancelled)
        return finish(o, SPOKE_ECANCELED, false);
    move_to(o, &o->h->node->waiting, false);
    return 0;
}

static int
finish_accept(struct sim_op *o)
{
    struct sim_handle *h = o->h;
    struct sim_node *node = h->node;
    struct spk_op *op = o->op;
    int result = spk_sim_accept(h);

    if (result == SPOKE_EAGAIN)
        return wait_again(o);
    if (result < 0 || !spk_sim_chance(node->world, ACCEPTS_GO_ON))
        return finish(o, result, false);
    spk_sim_note(node->world, SIM_DID_COMPLETE, (int64_t)h->number << 8 | SPK_OP_ACCEPT, result);
    move_to(o, &node->waiting, false);
    if (op->cancelled)
        make_ready(o);
    else
        spk_sim_wake(h, SPK_OP_ACCEPT);
    op->more = true;
    spk_op_complete(node->engine, op, result);
    return 1;
}

static int
finish_recv(struct sim_op *o)
{
    struct sim_handle *h = o->h;
    struct spk_op *op = o->op;
    void *buffer = op->u.recv.buffer;
    size_t size = op->u.recv.size;
    bool scratch = buffer == NULL;
    uint8_t nothing;
    int64_t n;

    if (scratch && h->in.readable == 0) { /* an end, which needs no memory */
        buffer = &nothing;
        size = sizeof nothing;
    } else if (scratch && (buffer = spk_scratch_room(h->node->engine, &size)) == NULL) {
        return finish(o, SPOKE_ENOMEM, false);
    }
    n = spk_sim_read(h, buffer, size);
    return n == SPOKE_EAGAIN ? wait_again(o) : finish(o, n, scratch);
}

/* Carry out an operation that is ready.  Returns 1 if it completed, 0 if it waits again. */
static int
carry_out(struct sim_op *o)
{
    struct sim_handle *h = o->h;
    struct spoke_sim *w = h->node->world;
    enum spk_op_kind kind = (enum spk_op_kind)(o - h->ops);
    int64_t n;

    if (o->decided)
        return finish(o, o->result, false);
    if (o->op->cancelled) {
        if (!spk_sim_can(h, kind) || !spk_sim_chance(w, w->config.cancel_race))
            return finish(o, SPOKE_ECANCELED, false);
        w->report.faults.cancel_race++;
    }
    switch (kind) {
    case SPK_OP_ACCEPT: return finish_accept(o);
    case SPK_OP_CONNECT: return finish(o, h->answer, false);
    case SPK_OP_RECV: return finish_recv(o);
    case SPK_OP_SEND:
    case SPK_OP_READABLE:
    case SPK_OP_WATCH:
    case SPK_OP_OTHER: break; /* the last three do not come here */
    }
    if (o->op->u.send.msg == NULL)
        return spk_sim_can(h, kind) ? finish(o, 0, false) : wait_again(o);
    n = spk_sim_write(h, o->op->u.send.msg->msg_iov, o->op->u.send.msg->msg_iovlen);
    return n == SPOKE_EAGAIN ? wait_again(o) : finish(o, n, false);
}

static int
deliver_strays(struct sim_node *node)
{
    struct spk_link *link;
    int count = 0;

    while ((link = spk_list_take(&node->strays)) != NULL) {
        struct spk_op *op = SPK_OWNER(link, struct spk_op, link);

        op->more = false;
        spk_op_complete(node->engine, op, (int)(int64_t)op->backend[1]);
        count++;
    }
    return count;
}

/* The completion queue has overflowed: what is in it comes late, and accepts are armed no longer.
 */
static void
overflow(struct sim_node *node)
{
    struct spoke_sim *w = node->world;
    spoke_ns lasts = 1 + spk_sim_latency(w) * (spoke_ns)(1 + spk_sim_below(w, OVERFLOW_MOST));

    spk_sim_note(w, SIM_DID_OVERFLOW, node->number, lasts);
    w->report.faults.overflow++;
    node->held = true;
    node->spared = true;
    spk_sim_event_set(w, &node->release, w->now + lasts);
    SPK_LIST_EACH(link, &w->handles)
    {
        struct sim_handle *h = SPK_OWNER(link, struct sim_handle, link);

        if (h->node == node && h->ops[SPK_OP_ACCEPT].op != NULL)
            decide(&h->ops[SPK_OP_ACCEPT], SPOKE_ENOBUFS);
    }
}

static bool
is_held(struct sim_node *node)
{
    if (node->engine->closing)
        return false;
    if (!node->held && !node->spared && spk_sim_chance(node->world, node->world->config.overflow))
        overflow(node);
    else if (!node->held)
        node->spared = false;
    return node->held;
}

/* One of the first few. */
static struct sim_op *
draw_op(struct spoke_sim *w, const struct spk_link *list)
{
    struct spk_link *link = list->next;

    for (uint64_t left = spk_sim_below(w, NEAR); left > 0 && link->next != list; left--)
        link = link->next;
    return SPK_OWNER(link, struct sim_op, link);
}

static int
deliver(struct sim_node *node)
{
    struct spk_link batch;
    int count = deliver_strays(node);

    if (spk_list_empty(&node->ready) || is_held(node))
        return count;
    spk_list_init(&batch);
    spk_list_splice(&batch, &node->ready);
    while (!spk_list_empty(&batch))
        count += carry_out(draw_op(node->world, &batch));
    return count;
}

/* The engine has closed all that lived on it, and waits for operations that nobody cancelled.  Ends
 * them, returns how many. */
static int
abandon(struct sim_node *node)
{
    int count = 0;

    for (;; count++) {
        struct spk_link *link = node->waiting.next;

        while (link != &node->waiting && SPK_OWNER(link, struct sim_op, link)->decided)
            link = link->next;
        if (link == &node->waiting)
            break;
        decide(SPK_OWNER(link, struct sim_op, link), SPOKE_ECANCELED);
    }
    node->world->report.ops_left += (uint64_t)count;
    return count;
}

/* Let the world go on until something may have changed for this engine. */
static int
wait_for_world(struct sim_node *node, spoke_ns limit)
{
    struct spoke_sim *w = node->world;

    for (;;) {
        spoke_ns timer = spk_timers_next(&node->engine->timers),
                 until = timer < limit ? timer : limit;
        enum sim_step step = spk_sim_step(w, until);
        int count = deliver(node);

        if (count > 0 ||
            step == SIM_RAN_OTHER) /* the other one may have done what our caller waits for */
            return count;
        if (step == SIM_HAPPENED)
            continue;
        if (step == SIM_NOTHING && until == SPOKE_FOREVER)
            return SPOKE_EDEADLK;
        if (until > w->now)
            w->now = until;
        return node->engine->closed && abandon(node) > 0 ? deliver(node) : 0;
    }
}

static int
sim_turn(struct spk_engine *e, spoke_ns timeout_ns)
{
    struct sim_node *node = node_of(e);
    spoke_ns now = node->world->now;
    int count;

    node->turning++;
    count = deliver(node);
    if (count == 0 && timeout_ns > 0 && !node->nested && !atomic_exchange(&node->poked, false))
        count = wait_for_world(node, spk_later(now, timeout_ns));
    node->turning--;
    return count;
}

static void
sim_poke(struct spk_engine *e)
{
    atomic_store(&node_of(e)->poked, true);
}

static spoke_ns
sim_now(struct spk_engine *e)
{
    return node_of(e)->world->now;
}

/* ---- handles ---- */

static int
sim_socket(struct spk_engine *e, int family, int *handle)
{
    struct sim_handle *h;
    int rc = spk_sim_socket(node_of(e), family, &h);

    *handle = rc == 0 ? h->number : -1;
    return rc;
}

static int
sim_bind(struct spk_engine *e, int handle, const struct sockaddr *address, socklen_t size)
{
    struct sim_handle *h = handle_of(e, handle);

    return h == NULL ? SPOKE_EINVAL : spk_sim_bind(h, address, size);
}

static int
sim_listen(struct spk_engine *e, int handle, int backlog)
{
    struct sim_handle *h = handle_of(e, handle);

    return h == NULL ? SPOKE_EINVAL : spk_sim_listen(h, backlog);
}

/* An operation that is still busy is its owner's fault; it ends all the same. */
static void
sim_close_handle(struct spk_engine *e, int handle)
{
    struct sim_handle *h = handle_of(e, handle);

    if (h == NULL)
        return;
    for (size_t kind = 0; kind < sizeof h->ops / sizeof h->ops[0]; kind++) {
        struct sim_op *o = &h->ops[kind];

        if (o->op == NULL)
            continue;
        h->node->world->misuses++;
        spk_list_remove(&o->link);
        go_astray(h->node, o->op, SPOKE_ECANCELED);
    }
    spk_sim_close_handle(h);
}

static int
sim_set_option(struct spk_engine *e, int handle, enum spk_socket_option option, int value)
{
    struct sim_handle *h = handle_of(e, handle);

    if (h == NULL)
        return SPOKE_EINVAL;
    if (option == SPK_V6ONLY)
        h->v6only = value != 0;
    else if (option == SPK_RESET_ON_CLOSE)
        h->resets = value != 0 && h->family != AF_UNIX; /* which cannot */
    return 0;
}

static int
sim_shutdown(struct spk_engine *e, int handle, bool reading)
{
    struct sim_handle *h = handle_of(e, handle);

    return h != NULL ? spk_sim_shutdown(h, reading) : SPOKE_EINVAL;
}

static int
sim_local_address(struct spk_engine *e, int handle, struct sockaddr_storage *address,
                  socklen_t *size)
{
    struct sim_handle *h = handle_of(e, handle);

    if (h == NULL)
        return SPOKE_EINVAL;
    *address = h->local;
    *size = h->local_size;
    return 0;
}

static int
sim_peer_address(struct spk_engine *e, int handle, struct sockaddr_storage *address,
                 socklen_t *size)
{
    struct sim_handle *h = handle_of(e, handle);

    if (h == NULL || h->remote_size == 0)
        return SPOKE_EINVAL;
    *address = h->remote;
    *size = h->remote_size;
    return 0;
}

static int
sim_credentials(struct spk_engine *e, int handle, struct spk_credentials *out)
{
    struct sim_handle *h = handle_of(e, handle);

    if (h == NULL || h->remote_node == NULL)
        return SPOKE_EINVAL;
    *out = (struct spk_credentials){.pid = (int)h->remote_node->number, .uid = 0, .gid = 0};
    return 0;
}

/* A plain call beside an operation of the same kind would mix up the bytes' order. */
static struct sim_handle *
handle_for(const struct spk_engine *e, int handle, enum spk_op_kind kind)
{
    struct sim_handle *h = handle_of(e, handle);

    if (h == NULL || h->ops[kind].op == NULL)
        return h;
    h->node->world->misuses++;
    return NULL;
}

static int64_t
sim_recv_now(struct spk_engine *e, int handle, void *buffer, size_t size)
{
    struct sim_handle *h = handle_for(e, handle, SPK_OP_RECV);

    return h == NULL ? SPOKE_EINVAL : spk_sim_read(h, buffer, size);
}

static int64_t
sim_send_now(struct spk_engine *e, int handle, const struct iovec *iov, int count)
{
    struct sim_handle *h = handle_for(e, handle, SPK_OP_SEND);

    return h == NULL || count < 0 ? SPOKE_EINVAL : spk_sim_write(h, iov, (size_t)count);
}

/* ---- the life of the thing ---- */

static int
sim_open(struct spk_engine *e)
{
    if (e->backend_state == NULL) /* engines of a world are opened by spoke_sim_engine() */
        return SPOKE_ENOTSUP;
    node_of(e)->engine = e;
    e->random = spk_sim_below(node_of(e)->world, UINT64_MAX);
    return 0;
}

static struct sim_handle *
first_handle(const struct sim_node *node)
{
    SPK_LIST_EACH(link, &node->world->handles)
    {
        struct sim_handle *h = SPK_OWNER(link, struct sim_handle, link);

        if (h->node == node)
            return h;
    }
    return NULL;
}

static void
sim_close(struct spk_engine *e)
{
    struct sim_node *node = node_of(e);
    struct sim_handle *h;

    while ((h = first_handle(node)) != NULL) {
        node->world->report.handles_left += h->number != 0 ? 1 : 0;
        spk_sim_close_handle(h);
    }
    spk_sim_event_clear(node->world, &node->release);
    spk_sim_mend_all(
        node); /* nobody could do it later, and its last bytes are still on their way */
    node->engine = NULL;
}

static int
sim_fd(struct spk_engine *e)
{
    (void)e;
    return SPOKE_ENOTSUP;
}

const struct spk_backend spk_backend_sim = {
    .name = "sim",
    .is_virtual = true,
    .open = sim_open,
    .close = sim_close,
    .socket = sim_socket,
    .bind = sim_bind,
    .listen = sim_listen,
    .close_handle = sim_close_handle,
    .shutdown = sim_shutdown,
    .set_option = sim_set_option,
    .local_address = sim_local_address,
    .peer_address = sim_peer_address,
    .credentials = sim_credentials,
    .recv_now = sim_recv_now,
    .send_now = sim_send_now,
    .submit = sim_submit,
    .cancel = sim_cancel,
    .turn = sim_turn,
    .poke = sim_poke,
    .now = sim_now,
    .fd = sim_fd,
};
