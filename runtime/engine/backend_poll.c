/* SPDX-License-Identifier: MIT */
/* The backend for where io_uring is denied: epoll says when, plain calls do the work.
 *
 * A table indexed by descriptor holds who waits to read (a receive or an accept) and who to write
 * (a send or a connect), at most one each.  Interest is level-triggered and lazy: it is added when
 * somebody waits, and taken back when an event finds nobody who does, so that a receive submitted
 * again and again costs no epoll_ctl().  A handle leaves the epoll set before it is closed, because
 * a fork()ed child may keep what is behind it open.
 *
 * An operation in flight is in the table, or in the list `ready`: its result is known, or it is a
 * send that nobody has tried yet.  Everything but poke() runs on the engine's thread or under its
 * lock. */
#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "runtime/engine/backend.h"
#include "runtime/memory/pool.h"

#define EVENTS_MOST  128 /* taken from the kernel in one turn */
#define ACCEPTS_MOST 64  /* by one listener in one turn */
#define POKE         UINT64_MAX

/* Where an operation is: op->backend[0].  A ready one has its result in op->backend[1]. */
enum place { PLACE_TABLE, PLACE_UNTRIED, PLACE_READY };

struct slot {
    struct spk_op *in, *out;
    uint32_t armed; /* EPOLLIN | EPOLLOUT as the epoll set has it; 0: not in the set */
};

struct poll {
    int epoll_fd, poke_fd;
    bool no_pwait2; /* the kernel is older than 5.11: waits are whole milliseconds */
    struct slot *slots;
    uint32_t slot_count;
    struct spk_link ready;
};

/* ---- operations that need no event ---- */

static void
make_ready(struct poll *p, struct spk_op *op, int result)
{
    if (spk_list_empty(&op->link)) /* an untried send is in the list already */
        spk_list_append(&p->ready, &op->link);
    op->backend[0] = PLACE_READY;
    op->backend[1] = (uint64_t)(int64_t)result;
}

static int
complete(struct spk_engine *e, struct spk_op *op, int result)
{
    e->info.completions++;
    op->chunk = NULL;
    op->data = NULL;
    spk_op_complete(e, op, result);
    return 1;
}

/* ---- the table ---- */

static bool
grow_table(struct poll *p, uint32_t handle)
{
    uint32_t count = p->slot_count == 0 ? 64 : p->slot_count;
    struct slot *slots;

    while (count <= handle)
        count *= 2;
    if (count == p->slot_count)
        return true;
    if ((slots = spk_realloc(p->slots, count * sizeof *slots)) == NULL)
        return false;
    for (uint32_t i = p->slot_count; i < count; i++)
        slots[i] = (struct slot){.in = NULL};
    p->slots = slots;
    p->slot_count = count;
    return true;
}

static bool
waits_to_read(const struct spk_op *op)
{
    return op->kind == SPK_OP_RECV || op->kind == SPK_OP_ACCEPT || op->kind == SPK_OP_READABLE;
}

static uint32_t
wanted(const struct slot *slot)
{
    return (slot->in != NULL ? (uint32_t)EPOLLIN : 0) |
           (slot->out != NULL ? (uint32_t)EPOLLOUT : 0);
}

/* Make the epoll set say `interest` about a handle. */
static int
set_interest(struct poll *p, int handle, uint32_t interest)
{
    struct slot *slot = &p->slots[handle];
    struct epoll_event event = {.events = interest, .data.u64 = (uint64_t)handle};
    int deed = slot->armed == 0 ? EPOLL_CTL_ADD : interest == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;

    if (interest == slot->armed)
        return 0;
    if (epoll_ctl(p->epoll_fd, deed, handle, &event) != 0)
        return spk_error_from_errno(errno);
    slot->armed = interest;
    return 0;
}

static void
leave_table(struct poll *p, struct spk_op *op)
{
    if (waits_to_read(op))
        p->slots[op->handle].in = NULL;
    else
        p->slots[op->handle].out = NULL;
}

/* Let an operation wait for its handle to become readable or writable. */
static void
arm(struct poll *p, struct spk_op *op)
{
    struct slot *slot;
    int rc;

    if (!grow_table(p, (uint32_t)op->handle)) {
        make_ready(p, op, SPOKE_ENOMEM);
        return;
    }
    slot = &p->slots[op->handle];
    if (waits_to_read(op))
        slot->in = op;
    else
        slot->out = op;
    op->backend[0] = PLACE_TABLE;
    if ((rc = set_interest(p, op->handle, slot->armed | wanted(slot))) != 0) {
        leave_table(p, op);
        make_ready(p, op, rc);
    }
}

/* ---- what is done when a handle is ready; each returns the number of completions ---- */

static int
receive(struct spk_engine *e, struct spk_op *op)
{
    uint8_t *room = op->u.recv.buffer;
    size_t size = op->u.recv.size;
    int64_t n;

    if (room == NULL && (room = spk_scratch_room(e, &size)) == NULL)
        n = SPOKE_ENOMEM;
    else
        n = spk_posix_receive(op, room, size);
    if (n == SPOKE_EAGAIN)
        return 0;
    leave_table(e->backend_state, op);
    if (n <= 0 || op->u.recv.buffer != NULL)
        return complete(e, op, (int)n);
    e->info.completions++;
    spk_scratch_complete(e, op, n);
    return 1;
}

static bool
passes_by(int error)
{
    return error == EAGAIN || error == ECONNABORTED || error == EINTR;
}

/* The operation stays in the table while it brings connections, as long as its owner does not
 * cancel it. */
static int
accept_some(struct spk_engine *e, struct spk_op *op)
{
    struct poll *p = e->backend_state;
    int handle = op->handle, done = 0;

    while (done < ACCEPTS_MOST && p->slots[handle].in == op) {
        int peer = accept4(handle, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (peer < 0 && passes_by(errno))
            break;
        op->more = peer >= 0;
        if (peer < 0)
            leave_table(p, op);
        done += complete(e, op, peer >= 0 ? peer : spk_error_from_errno(errno));
    }
    return done;
}

static int
try_send(const struct spk_op *op)
{
    ssize_t n = sendmsg(op->handle, op->u.send.msg, MSG_DONTWAIT | MSG_NOSIGNAL);

    return n >= 0 ? (int)n : spk_error_from_errno(errno);
}

static int
resume_send(struct spk_engine *e, struct spk_op *op)
{
    int rc = op->u.send.msg != NULL ? try_send(op) : 0;

    if (rc == SPOKE_EAGAIN)
        return 0;
    leave_table(e->backend_state, op);
    return complete(e, op, rc);
}

static int
finish_connect(struct spk_engine *e, struct spk_op *op)
{
    int error = 0;
    socklen_t size = sizeof error;

    if (getsockopt(op->handle, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        error = errno;
    leave_table(e->backend_state, op);
    return complete(e, op, error == 0 ? 0 : spk_error_from_errno(error));
}

static int
read_on(struct spk_engine *e, struct spk_op *op)
{
    switch (op->kind) {
    case SPK_OP_ACCEPT: return accept_some(e, op);
    case SPK_OP_READABLE: leave_table(e->backend_state, op); return complete(e, op, 0);
    default: return receive(e, op);
    }
}

static int
on_event(struct spk_engine *e, int handle, uint32_t events)
{
    struct poll *p = e->backend_state;
    struct slot *slot = &p->slots[handle]; /* callbacks do not move the table */
    bool gone = (events & (EPOLLHUP | EPOLLERR)) != 0;
    int done = 0;

    if (((events & EPOLLIN) != 0 && slot->in == NULL) ||
        ((events & EPOLLOUT) != 0 && slot->out == NULL) || wanted(slot) == 0)
        set_interest(p, handle, wanted(slot));
    if (slot->in != NULL && (gone || (events & EPOLLIN) != 0))
        done += read_on(e, slot->in);
    if (slot->out != NULL && (gone || (events & EPOLLOUT) != 0))
        done += slot->out->kind == SPK_OP_CONNECT ? finish_connect(e, slot->out)
                                                  : resume_send(e, slot->out);
    return done;
}

/* ---- the backend ---- */

static int
poll_open(struct spk_engine *e)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = POKE};
    struct poll *p = spk_zalloc(sizeof *p);
    int rc;

    if (p == NULL)
        return SPOKE_ENOMEM;
    spk_list_init(&p->ready);
    if ((p->epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0) {
        rc = spk_error_from_errno(errno);
        goto free_state;
    }
    if ((p->poke_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) {
        rc = spk_error_from_errno(errno);
        goto close_epoll;
    }
    /* Edge-triggered: every poke is an event, and nobody has to read it. */
    if (epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->poke_fd, &event) != 0) {
        rc = spk_error_from_errno(errno);
        goto close_poke;
    }
    e->backend_state = p;
    e->info.features = 0;
    return 0;
close_poke:
    close(p->poke_fd);
close_epoll:
    close(p->epoll_fd);
free_state:
    spk_free(p);
    return rc;
}

static void
poll_close(struct spk_engine *e)
{
    struct poll *p = e->backend_state;

    close(p->poke_fd);
    close(p->epoll_fd);
    spk_free(p->slots);
    spk_free(p);
    e->backend_state = NULL;
}

static void
poll_close_handle(struct spk_engine *e, int handle)
{
    struct poll *p = e->backend_state;

    if ((uint32_t)handle < p->slot_count)
        set_interest(p, handle, 0);
    spk_posix_close_handle(e, handle);
}

static void
start_connect(struct poll *p, struct spk_op *op)
{
    if (connect(op->handle, op->u.connect.address, op->u.connect.size) == 0)
        make_ready(p, op, 0);
    else if (errno == EINPROGRESS)
        arm(p, op);
    else
        make_ready(p, op, spk_error_from_errno(errno));
}

static void
poll_submit(struct spk_engine *e, struct spk_op *op)
{
    struct poll *p = e->backend_state;

    op->backend[0] = PLACE_TABLE;
    if (op->kind == SPK_OP_SEND && op->u.send.msg != NULL) {
        op->backend[0] = PLACE_UNTRIED;
        spk_list_append(&p->ready, &op->link);
    } else if (op->kind == SPK_OP_CONNECT) {
        start_connect(p, op);
    } else {
        arm(p, op);
    }
}

static void
poll_cancel(struct spk_engine *e, struct spk_op *op)
{
    struct poll *p = e->backend_state;

    if (op->backend[0] == PLACE_READY)
        return;
    if (op->backend[0] == PLACE_TABLE)
        leave_table(p, op);
    make_ready(p, op, SPOKE_ECANCELED);
    e->poke |= e->asleep;
}

static int
run_ready(struct spk_engine *e)
{
    struct poll *p = e->backend_state;
    struct spk_link *link;
    int done = 0;

    while ((link = spk_list_take(&p->ready)) != NULL) {
        struct spk_op *op = SPK_OWNER(link, struct spk_op, link);
        int rc = (int)(int64_t)op->backend[1];

        op->more = false;
        if (op->backend[0] == PLACE_UNTRIED && (rc = try_send(op)) == SPOKE_EAGAIN)
            arm(p, op);
        else
            done += complete(e, op, rc);
    }
    return done;
}

static int
wait_events(struct poll *p, struct epoll_event *events, spoke_ns timeout_ns)
{
    struct timespec time = {.tv_sec = timeout_ns / SPOKE_SECOND,
                            .tv_nsec = timeout_ns % SPOKE_SECOND};
    spoke_ns ms = timeout_ns / SPOKE_MS + (timeout_ns % SPOKE_MS != 0);
    int n;

    if (!p->no_pwait2) {
        n = epoll_pwait2(p->epoll_fd, events, EVENTS_MOST,
                         timeout_ns == SPOKE_FOREVER ? NULL : &time, NULL);
        if (n >= 0 || (errno != ENOSYS && errno != EPERM)) /* old seccomp profiles say EPERM */
            return n;
        p->no_pwait2 = true;
    }
    if (timeout_ns == SPOKE_FOREVER)
        ms = -1;
    return epoll_wait(p->epoll_fd, events, EVENTS_MOST, ms > INT_MAX ? INT_MAX : (int)ms);
}

static int
poll_turn(struct spk_engine *e, spoke_ns timeout_ns)
{
    struct poll *p = e->backend_state;
    struct epoll_event events[EVENTS_MOST];
    int n, done = run_ready(e);

    e->info.enters++;
    if (done > 0 || timeout_ns <= 0) {
        n = wait_events(p, events, 0);
    } else {
        spk_engine_sleep_begin(e);
        n = wait_events(p, events, timeout_ns);
        if (n < 0 && errno == EINTR)
            e->interrupted = true;
        spk_engine_sleep_end(e);
    }
    for (int i = 0; i < n; i++) {
        if (events[i].data.u64 != POKE)
            done += on_event(e, (int)events[i].data.u64, events[i].events);
    }
    return done + run_ready(e);
}

static void
poll_poke(struct spk_engine *e)
{
    const struct poll *p = e->backend_state;

    eventfd_write(p->poke_fd, 1);
}

static int
poll_fd(struct spk_engine *e)
{
    const struct poll *p = e->backend_state;

    return p->epoll_fd;
}

const struct spk_backend spk_backend_poll = {
    .name = "poll",
    .open = poll_open,
    .close = poll_close,
    .socket = spk_posix_socket,
    .bind = spk_posix_bind,
    .listen = spk_posix_listen,
    .close_handle = poll_close_handle,
    .shutdown = spk_posix_shutdown,
    .set_option = spk_posix_set_option,
    .local_address = spk_posix_local_address,
    .peer_address = spk_posix_peer_address,
    .credentials = spk_posix_credentials,
    .recv_now = spk_posix_recv_now,
    .send_now = spk_posix_send_now,
    .submit = poll_submit,
    .cancel = poll_cancel,
    .turn = poll_turn,
    .poke = poll_poke,
    .now = spk_posix_now,
    .fd = poll_fd,
};
