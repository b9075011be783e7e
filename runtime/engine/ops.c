/* SPDX-License-Identifier: MIT */
/* Operations, and the receives that are hot: tried by plain calls, by whoever looks for work,
 * before they are armed in the backend. */
#include <poll.h>
#include <string.h>

#include "runtime/engine/backend.h"
#include "runtime/engine/fds.h"
#include "runtime/engine/loop.h"
#include "runtime/engine/probe.h"

#define SCRATCH_SIZE  ((size_t)256 * 1024) /* bytes that one plain receive may bring */
#define SCRATCH_LEAST ((size_t)16 * 1024)
#define POLLS_IDLE    64  /* by callers, for nothing, and another receive may take its place */
#define LOOKS         16u /* at memory, for each try of everything */
#define LOOKS_SELDOM                                                                               \
    1024u /* a descriptor that only tells that something is elsewhere, which is looked at          \
             anyway, is looked at once in so many tries */

/* ---- operations ---- */

void
spk_op_init(struct spk_op *op, spk_op_f *fn)
{
    memset(op, 0, sizeof *op);
    spk_list_init(&op->link);
    op->fn = fn;
}

static void
queue_op(struct spk_engine *e, struct spk_op *op, enum spk_op_kind kind, int handle)
{
    op->kind = (uint8_t)kind;
    op->state = SPK_OP_QUEUED;
    op->handle = handle;
    op->cancelled = false;
    op->more = false;
    spk_list_append(&e->queued, &op->link);
    SPK_PROBE(submit, kind, handle);
}

void
spk_op_accept(struct spk_engine *e, struct spk_op *op, int handle)
{
    queue_op(e, op, SPK_OP_ACCEPT, handle);
}

void
spk_op_connect(struct spk_engine *e, struct spk_op *op, int handle, const struct sockaddr *address,
               socklen_t size)
{
    op->u.connect.address = address;
    op->u.connect.size = size;
    queue_op(e, op, SPK_OP_CONNECT, handle);
}

/* Is it worth looking for work by ourselves? */
bool
spk_spinning_pays(const struct spk_engine *e)
{
    if (e->backend->is_virtual) /* its time would stand still */
        return false;
    return e->wait_ns == SPOKE_WAIT_ADAPTIVE ? e->spin_credit > 0 : e->wait_ns > 0;
}

static bool
can_be_hot(const struct spk_engine *e)
{
    return e->hot_count < HOT_MOST && e->poller == NULL && (e->spinning || spk_spinning_pays(e));
}

/* An owner looks at memory once a turn in any case, and arms before it sleeps. */
static bool
can_watch(const struct spk_engine *e)
{
    return can_be_hot(e) || (!e->shared && !e->backend->is_virtual && e->hot_count < HOT_MOST);
}

/* Callers that wait themselves for what it brings need not be woken for it. */
static bool
is_left_to_caller(const struct spk_engine *e, const struct spk_op *op)
{
    bool is_late = e->poller != NULL && !e->poller->chosen; /* it does not know of this one */

    return op->awaited && e->poller_fd >= 0 && !is_late && e->sleepers == 0 && e->poller_debt == 0;
}

static void
make_cold(struct spk_engine *e, struct spk_op *op)
{
    spk_list_remove(&op->link);
    op->hot = false;
    e->hot_count--;
    e->hot_changes++;
    e->poller_kicked = true; /* it holds the socket open */
}

static void
arm_op(struct spk_engine *e, struct spk_op *op)
{
    make_cold(e, op);
    spk_list_append(&e->queued, &op->link);
}

/* From now on hot receives are left to callers for a while. */
void
spk_lease(struct spk_engine *e, spoke_ns now)
{
    if (e->lease_until_ns < now + LEASE)
        e->lease_until_ns = now + LEASE;
}

/* The hot receives are in the order in which they last brought something. */
static void
drop_idle(struct spk_engine *e)
{
    struct spk_op *op = SPK_OWNER(e->hot.next, struct spk_op, link);

    if (op->kind != SPK_OP_WATCH && e->polls - op->hot_at >= POLLS_IDLE)
        arm_op(e, op);
}

/* A queued operation that is tried by the loop instead. */
static void
make_hot(struct spk_engine *e, struct spk_op *op)
{
    spk_list_remove(&op->link);
    spk_list_append(&e->hot, &op->link);
    op->hot = true;
    op->hot_at = e->polls;
    e->hot_count++;
    e->hot_changes++;
    e->poller_kicked = true;
}

static void
leave_to_caller(struct spk_engine *e, struct spk_op *op)
{
    if (!is_left_to_caller(e, op))
        return;
    if (e->hot_count == HOT_MOST)
        drop_idle(e);
    if (e->hot_count == HOT_MOST)
        return;
    spk_lease(e, spk_engine_now(e));
    make_hot(e, op);
}

void
spk_op_recv(struct spk_engine *e, struct spk_op *op, int handle, void *buffer, size_t size)
{
    op->u.recv.buffer = buffer;
    op->u.recv.size = size;
    op->u.recv.fds = NULL;
    queue_op(e, op, SPK_OP_RECV, handle);
    if (can_be_hot(e))
        make_hot(e, op);
    else
        leave_to_caller(e, op);
}

void
spk_op_readable(struct spk_engine *e, struct spk_op *op, int fd)
{
    queue_op(e, op, SPK_OP_READABLE, fd);
    leave_to_caller(e, op);
}

bool
spk_op_watch(struct spk_engine *e, struct spk_op *op, bool (*changed)(struct spk_op *op),
             bool (*arm)(struct spk_op *op))
{
    if (!can_watch(e))
        return false;
    op->u.watch.changed = changed;
    op->u.watch.arm = arm;
    queue_op(e, op, SPK_OP_WATCH, -1);
    make_hot(e, op);
    return true;
}

void
spk_op_unwatch(struct spk_engine *e, struct spk_op *op)
{
    if (op->state == SPK_OP_IDLE)
        return;
    if (op->hot)
        make_cold(e, op);
    spk_list_remove(&op->link);
    op->state = SPK_OP_IDLE;
}

void
spk_op_send(struct spk_engine *e, struct spk_op *op, int handle, struct msghdr *msg)
{
    op->u.send.msg = msg;
    queue_op(e, op, SPK_OP_SEND, handle);
}

void
spk_op_writable(struct spk_engine *e, struct spk_op *op, int handle)
{
    spk_op_send(e, op, handle, NULL);
}

void
spk_op_by_other(struct spk_op *op, void *by, void (*cancel)(struct spk_op *op))
{
    op->kind = SPK_OP_OTHER;
    op->state = SPK_OP_QUEUED;
    op->cancelled = op->more = false;
    op->u.other.buffer = NULL;
    op->u.other.size = 0;
    op->u.other.by = by;
    op->u.other.cancel = cancel;
}

void
spk_op_cancel(struct spk_engine *e, struct spk_op *op)
{
    if (op->state == SPK_OP_IDLE || op->cancelled)
        return;
    op->cancelled = true;
    if (op->kind == SPK_OP_OTHER) {
        op->u.other.cancel(op);
        return;
    }
    e->poke |= e->asleep;
    if (op->state == SPK_OP_IN_FLIGHT)
        e->backend->cancel(e, op);
    /* One that is only queued is answered by the next turn, see spk_submit_queued(). */
}

void
spk_op_complete(struct spk_engine *e, struct spk_op *op, int result)
{
    if (!op->more) {
        if (op->state == SPK_OP_IN_FLIGHT)
            e->ops_in_flight--;
        op->state = SPK_OP_IDLE;
        spk_list_remove(&op->link);
    }
    SPK_PROBE(complete, op->kind, result);
    op->fn(op, result);
}

/* ---- plain calls ---- */

/* Whoever keeps a slice of it keeps it alive. */
void
spk_scratch_let_go(struct spk_engine *e)
{
    if (e->scratch != NULL)
        spk_chunk_unref(e->scratch);
    e->scratch = NULL;
}

uint8_t *
spk_scratch_room(struct spk_engine *e, size_t *size)
{
    if (e->scratch != NULL && spk_chunk_alone(e->scratch)) /* what was kept of it is gone */
        e->scratch_used = 0;
    if (e->scratch != NULL && e->scratch->size - e->scratch_used < SCRATCH_LEAST) {
        spk_chunk_unref(e->scratch);
        e->scratch = NULL;
    }
    if (e->scratch == NULL) {
        e->scratch = spk_chunk_new(SCRATCH_SIZE);
        e->scratch_used = 0;
        if (e->scratch == NULL)
            return NULL;
    }
    *size = e->scratch->size - e->scratch_used;
    return e->scratch->data + e->scratch_used;
}

struct spk_chunk *
spk_scratch_take(struct spk_engine *e, size_t size)
{
    e->scratch_used += (size + 15) & ~(size_t)15;
    return spk_chunk_ref(e->scratch);
}

void
spk_scratch_complete(struct spk_engine *e, struct spk_op *op, int64_t result)
{
    if (result > 0) {
        uint8_t *data = e->scratch->data + e->scratch_used;
        /* Ours while the callback runs, which may receive again. */
        struct spk_chunk *chunk = spk_scratch_take(e, (size_t)result);

        op->chunk = chunk;
        op->data = data;
        spk_op_complete(e, op, (int)result);
        spk_chunk_unref(chunk);
        return;
    }
    op->chunk = NULL; /* that of an earlier receive is gone */
    op->data = NULL;
    spk_op_complete(e, op, (int)result);
}

/* Try one receive by a plain call.  Returns true if it completed. */
bool
spk_try_recv(struct spk_engine *e, struct spk_op *op)
{
    size_t size = op->u.recv.size;
    uint8_t *room = op->u.recv.buffer;
    int64_t n;

    if (room == NULL && (room = spk_scratch_room(e, &size)) == NULL) {
        if (op->hot) /* the backend has other memory, or waits for some */
            arm_op(e, op);
        return false;
    }
    n = op->u.recv.fds != NULL ? spk_fds_recv(op->handle, room, size, op->u.recv.fds)
                               : e->backend->recv_now(e, op->handle, room, size);
    if (n == SPOKE_EAGAIN)
        return false;
    e->info.direct++;
    if (op->hot)
        make_cold(e, op);
    if (op->u.recv.buffer == NULL)
        spk_scratch_complete(e, op, n);
    else
        spk_op_complete(e, op, (int)n);
    return true;
}

static bool
try_watch(struct spk_engine *e, struct spk_op *op)
{
    if (!op->u.watch.changed(op))
        return false;
    make_cold(e, op);
    spk_op_complete(e, op, 0);
    return true;
}

/* A message in memory is seen at once by who looks at nothing else. */
void
spk_look_at_memory(struct spk_engine *e)
{
    bool any = true;

    for (unsigned looks = 0; any && looks < LOOKS; looks++) {
        any = false;
        SPK_LIST_EACH(link, &e->hot)
        {
            struct spk_op *op = SPK_OWNER(link, struct spk_op, link);

            if (op->kind != SPK_OP_WATCH)
                continue;
            if (op->u.watch.changed(op))
                return;
            any = true;
        }
    }
}

static bool
try_readable(struct spk_engine *e, struct spk_op *op)
{
    struct pollfd fd = {.fd = op->handle, .events = POLLIN};

    if (e->looks++ % LOOKS_SELDOM != 0 || poll(&fd, 1, 0) != 1)
        return false;
    make_cold(e, op);
    spk_op_complete(e, op, 0);
    return true;
}

bool
spk_try_now(struct spk_engine *e, struct spk_op *op)
{
    if (op->kind == SPK_OP_RECV)
        return spk_try_recv(e, op);
    if (op->kind != SPK_OP_READABLE)
        return false;
    make_cold(e, op);
    spk_op_complete(e, op, 0);
    return true;
}

static bool
try_op(struct spk_engine *e, struct spk_op *op)
{
    switch (op->kind) {
    case SPK_OP_WATCH: return try_watch(e, op);
    case SPK_OP_READABLE: return try_readable(e, op);
    default: return spk_try_recv(e, op);
    }
}

bool
spk_try_hot(struct spk_engine *e)
{
    bool any = false;

    for (uint32_t left = e->hot_count; left > 0 && e->hot_count > 0; left--) {
        struct spk_op *op = SPK_OWNER(e->hot.next, struct spk_op, link);

        spk_list_remove(&op->link);
        spk_list_append(&e->hot, &op->link);
        if (op->cancelled) {
            make_cold(e, op);
            spk_op_complete(e, op, SPOKE_ECANCELED);
            any = true;
        } else {
            any |= try_op(e, op);
        }
    }
    return any;
}

/* Receives that are not armed yet may be able to complete already: who streams to us has written
 * more meanwhile, and then nobody needs to be woken. */
void
spk_try_queued(struct spk_engine *e)
{
    struct spk_link *link = e->queued.next, *next;

    for (unsigned tries = 0; link != &e->queued && tries < HOT_MOST; link = next, tries++) {
        struct spk_op *op = SPK_OWNER(link, struct spk_op, link);

        next = link->next;
        if (op->kind == SPK_OP_RECV && !op->cancelled && spk_try_recv(e, op))
            break; /* what it brought may have changed the list */
    }
    spk_run_tasks(e);
}

/* From here on somebody else wakes the engine for a watch, unless there is a change already. */
static bool
arm_watch(struct spk_engine *e, struct spk_op *op)
{
    op->state = SPK_OP_IDLE;
    if (op->u.watch.arm(op))
        return true;
    spk_op_complete(e, op, 0);
    return false;
}

bool
spk_submit_queued(struct spk_engine *e)
{
    struct spk_link *link;
    bool any = false;

    while ((link = spk_list_take(&e->queued)) != NULL) {
        struct spk_op *op = SPK_OWNER(link, struct spk_op, link);

        if (op->cancelled) {
            spk_op_complete(e, op, SPOKE_ECANCELED);
            any = true;
            continue;
        }
        if (op->kind == SPK_OP_WATCH) {
            any |= !arm_watch(e, op);
            continue;
        }
        op->state = SPK_OP_IN_FLIGHT;
        e->ops_in_flight++;
        e->backend->submit(e, op);
    }
    return any;
}

/* A caller that looked for its message by itself stops; it may have looked for others' too. */
void
spk_arm_watches(struct spk_engine *e)
{
    for (uint32_t left = e->hot_count; left > 0 && e->hot_count > 0; left--) {
        struct spk_op *op = SPK_OWNER(e->hot.next, struct spk_op, link);

        spk_list_remove(&op->link);
        spk_list_append(&e->hot, &op->link);
        if (op->kind == SPK_OP_WATCH) {
            make_cold(e, op);
            arm_watch(e, op);
        }
    }
    spk_run_tasks(e);
}

void
spk_arm_hot(struct spk_engine *e)
{
    while (e->hot_count > 0)
        arm_op(e, SPK_OWNER(e->hot.next, struct spk_op, link));
}

/* What callers wait for is theirs; the rest is so only while one of them looks. */
bool
spk_arm_unawaited(struct spk_engine *e)
{
    struct spk_link *link = e->hot.next, *next;
    bool any = false;

    for (uint32_t left = e->hot_count; left > 0; left--, link = next) {
        struct spk_op *op = SPK_OWNER(link, struct spk_op, link);

        next = link->next;
        if (!op->awaited) {
            arm_op(e, op);
            any = true;
        }
    }
    return any;
}

int64_t
spk_send_now(struct spk_engine *e, int handle, struct iovec *iov, int count)
{
    e->info.direct++;
    return e->backend->send_now(e, handle, iov, count);
}
