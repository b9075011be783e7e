/* SPDX-License-Identifier: MIT */
/* The backend on io_uring: everything that one turn submits, and the wait, in one system call.
 *
 * The ring's memory is touched by the engine's thread alone, in turn(): submit() and cancel() only
 * put operations into lists, so that another thread that holds a shared engine's lock may cancel
 * while the engine's thread is in the kernel.  (The ring has a single issuer anyway.)
 *
 * Where an operation in flight is:
 *
 *   submit() ──▶ PLANNED ── turn() ──▶ KERNEL ── completion ──▶ idle
 *                 │ ▲                  │
 *                 │ └── comes back ────┘  no buffer was left, or it must be tried once more
 *                 └── known at once or cancelled ──▶ READY ── turn() ──▶ idle
 *
 * One that is in the kernel and is to be cancelled waits in the list `cancels` for the next turn.
 *
 * A receive without memory of its own takes a provided buffer, a chunk of ours.  The chunk goes
 * back to the kernel right after the callback if nobody kept a slice of it, otherwise a new one
 * takes its place.  When the buffers are used up, or there are none, and when descriptors may come
 * along, the kernel only tells when there is something to read, and a plain call receives it.
 * docs/architecture.md, "Operations". */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/engine/backend.h"
#include "runtime/engine/uring_compat.h"
#include "runtime/memory/pool.h"

#define ENTRIES        256u   /* submission queue, unless configured */
#define COMPLETIONS    4096u  /* completion queue at least */
#define CHUNKS         16u    /* provided buffers, unless configured */
#define MOST           32768u /* of entries or buffers: what the kernel takes */
#define CHUNK_SIZE     ((size_t)64 * 1024)
#define BUFFER_GROUP   0
#define RECEIVE_MOST   ((size_t)1 << 30)
#define KERNEL_WAITING (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)

/* user_data: an operation's address, or one of these.  A cancellation that found its target says
 * nothing. */
enum { TAG_CANCEL = 1, TAG_POKE = 2, TAG_MOST = 7 };

/* op->backend[0]; a READY one has its result in op->backend[1]. */
enum place { PLACE_PLANNED, PLACE_KERNEL, PLACE_READY };
/* op->backend[1] of a receive that is PLANNED or in the KERNEL. */
enum receive_by { BY_BUFFER, BY_READINESS };

struct uring {
    struct io_uring ring;
    struct spk_link todo, cancels, ready;
    unsigned enter_flags;
    int poke_fd;
    atomic_int event_fd; /* for foreign loops: written by the kernel; -1 until somebody asks */
    bool poke_armed;
    unsigned stale; /* turns for which the kernel's flag is not to be believed */

    struct io_uring_buf_ring *buffers; /* NULL: the feature is not there */
    struct spk_chunk **chunks;         /* by buffer number; NULL: there was no memory for it */
    uint32_t chunk_count;              /* a power of two */
    uint32_t missing;                  /* how many of them are NULL */
};

/* ---- provided buffers ---- */

static void
provide(struct uring *u, uint32_t number)
{
    struct spk_chunk *chunk = u->chunks[number];

    io_uring_buf_ring_add(u->buffers, chunk->data, (unsigned)CHUNK_SIZE, (unsigned short)number,
                          io_uring_buf_ring_mask(u->chunk_count), 0);
    io_uring_buf_ring_advance(u->buffers, 1);
}

/* The kernel has used a buffer and we are done with it: give it the same one or a new one. */
static void
provide_again(struct uring *u, uint32_t number)
{
    if (!spk_chunk_alone(u->chunks[number])) {
        spk_chunk_unref(u->chunks[number]);
        if ((u->chunks[number] = spk_chunk_new(CHUNK_SIZE)) == NULL) {
            u->missing++;
            return;
        }
    }
    provide(u, number);
}

static void
provide_missing(struct uring *u)
{
    for (uint32_t i = 0; i < u->chunk_count && u->missing > 0; i++) {
        if (u->chunks[i] != NULL)
            continue;
        if ((u->chunks[i] = spk_chunk_new(CHUNK_SIZE)) == NULL)
            return;
        u->missing--;
        provide(u, i);
    }
}

static void
close_buffers(struct uring *u)
{
    if (u->buffers == NULL)
        return;
    io_uring_unregister_buf_ring(&u->ring, BUFFER_GROUP);
    munmap(u->buffers, u->chunk_count * sizeof(struct io_uring_buf));
    for (uint32_t i = 0; i < u->chunk_count; i++) {
        if (u->chunks[i] != NULL)
            spk_chunk_unref(u->chunks[i]);
    }
    spk_free(u->chunks);
    u->buffers = NULL;
}

/* Returns whether there are buffers now; without them all works too. */
static bool
open_buffers(struct uring *u, uint32_t count)
{
    size_t size = count * sizeof(struct io_uring_buf);
    struct io_uring_buf_reg registration = {.ring_entries = count, .bgid = BUFFER_GROUP};
    void *memory;

    if ((u->chunks = spk_zalloc(count * sizeof(struct spk_chunk *))) == NULL)
        return false;
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        goto free_chunks;
    registration.ring_addr = (uint64_t)(uintptr_t)memory;
    /* A child must not make the kernel and us look at different copies of these pages. */
    if (madvise(memory, size, MADV_DONTFORK) != 0 ||
        io_uring_register_buf_ring(&u->ring, &registration, 0) != 0)
        goto unmap;
    u->buffers = memory;
    io_uring_buf_ring_init(u->buffers);
    u->chunk_count = count;
    u->missing = count;
    provide_missing(u);
    return true;
unmap:
    munmap(memory, size);
free_chunks:
    spk_free(u->chunks);
    u->chunks = NULL;
    return false;
}

/* ---- into the kernel ---- */

/* Has the kernel something for us that only a system call brings out? */
static bool
kernel_waits(const struct uring *u)
{
    return (IO_URING_READ_ONCE(*u->ring.sq.kflags) & KERNEL_WAITING) != 0;
}

/* The kernel sets that flag a moment after it has queued the work; if we did the work within that
 * moment, the flag stays set for nothing until the next.  So one that survives a system call is
 * looked at again only now and then. */
#define STALE_TURNS 64

static bool
worth_entering(struct uring *u)
{
    if (!kernel_waits(u))
        return false;
    if (u->stale > 0) {
        u->stale--;
        return false;
    }
    return true;
}

/* Publish what was prepared.  Returns the number of entries for the kernel to take; what it could
 * not take the last time is among them.  (The index array is the identity: liburing fills it in
 * once.) */
static unsigned
publish(struct uring *u)
{
    struct io_uring_sq *sq = &u->ring.sq;

    sq->sqe_head = sq->sqe_tail;
    io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
    return sq->sqe_tail - IO_URING_READ_ONCE(*sq->khead);
}

/* The one system call.  Submits, and waits for one completion if the timeout is not 0.  What it
 * returns does not matter: what was not taken is handed over again by the next turn, and what is
 * there is in the completion queue.  liburing's own calls wait twice when a timeout follows a
 * submission. */
static void
enter(struct spk_engine *e, spoke_ns timeout_ns)
{
    struct uring *u = e->backend_state;
    struct __kernel_timespec time = {.tv_sec = timeout_ns / SPOKE_SECOND,
                                     .tv_nsec = timeout_ns % SPOKE_SECOND};
    struct io_uring_getevents_arg argument = {
        .ts = timeout_ns == SPOKE_FOREVER ? 0 : (uint64_t)(uintptr_t)&time};
    unsigned flags = IORING_ENTER_GETEVENTS | u->enter_flags, count = publish(u);
    unsigned fd = (unsigned)u->ring.enter_ring_fd;

    e->info.enters++;
    if (timeout_ns <= 0) {
        io_uring_enter(fd, count, 0, flags, NULL);
        return;
    }
    if (e->interruptible && count > 0) { /* a call that submits does not tell of a signal */
        io_uring_enter(fd, count, 0, flags, NULL);
        count = 0;
    }
    spk_engine_sleep_begin(e);
    if (io_uring_enter2(fd, count, 1, flags | IORING_ENTER_EXT_ARG, (sigset_t *)(void *)&argument,
                        sizeof argument) == -EINTR)
        e->interrupted = true;
    spk_engine_sleep_end(e);
}

/* Give an empty submission entry; NULL if the kernel takes none at present. */
static struct io_uring_sqe *
next_entry(struct spk_engine *e)
{
    struct uring *u = e->backend_state;
    struct io_uring_sqe *entry = io_uring_get_sqe(&u->ring);

    if (entry == NULL) {
        enter(e, 0);
        entry = io_uring_get_sqe(&u->ring);
    }
    return entry;
}

static void
fill_receive(struct spk_engine *e, struct io_uring_sqe *entry, struct spk_op *op)
{
    const struct uring *u = e->backend_state;
    size_t size = op->u.recv.size < RECEIVE_MOST ? op->u.recv.size : RECEIVE_MOST;

    if (op->u.recv.buffer != NULL) {
        io_uring_prep_recv(entry, op->handle, op->u.recv.buffer, size, 0);
    } else if (op->backend[1] == BY_BUFFER && u->missing < u->chunk_count &&
               op->u.recv.fds == NULL) {
        io_uring_prep_recv(entry, op->handle, NULL, CHUNK_SIZE, 0);
        entry->flags |= IOSQE_BUFFER_SELECT;
        entry->buf_group = BUFFER_GROUP;
        /* What is there at once has mostly been received by plain calls, so the kernel's first try
         * would find nothing. */
        entry->ioprio |= IORING_RECVSEND_POLL_FIRST;
    } else {
        op->backend[1] = BY_READINESS;
        io_uring_prep_poll_add(entry, op->handle, POLLIN);
    }
}

static void
fill(struct spk_engine *e, struct io_uring_sqe *entry, struct spk_op *op)
{
    switch (op->kind) {
    case SPK_OP_ACCEPT:
        io_uring_prep_accept(entry, op->handle, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if ((e->info.features & SPOKE_FEATURE_MULTISHOT_ACCEPT) != 0)
            entry->ioprio |= IORING_ACCEPT_MULTISHOT;
        break;
    case SPK_OP_CONNECT:
        io_uring_prep_connect(entry, op->handle, op->u.connect.address, op->u.connect.size);
        break;
    case SPK_OP_RECV: fill_receive(e, entry, op); break;
    case SPK_OP_READABLE: io_uring_prep_poll_add(entry, op->handle, POLLIN); break;
    default:
        if (op->u.send.msg == NULL)
            io_uring_prep_poll_add(entry, op->handle, POLLOUT);
        else
            io_uring_prep_sendmsg(entry, op->handle, op->u.send.msg, MSG_NOSIGNAL);
        break;
    }
    io_uring_sqe_set_data(entry, op);
}

static void
prepare_poke(struct spk_engine *e)
{
    struct uring *u = e->backend_state;
    struct io_uring_sqe *entry;

    if (u->poke_armed || (entry = next_entry(e)) == NULL)
        return;
    /* Every poke is a completion, and nobody has to read the eventfd. */
    io_uring_prep_poll_multishot(entry, u->poke_fd, POLLIN);
    io_uring_sqe_set_data64(entry, TAG_POKE);
    u->poke_armed = true;
}

/* Turn the lists into submissions.  A cancellation always follows the submission it means. */
static void
prepare(struct spk_engine *e)
{
    struct uring *u = e->backend_state;
    struct io_uring_sqe *entry;

    prepare_poke(e);
    while (!spk_list_empty(&u->todo) && (entry = next_entry(e)) != NULL) {
        struct spk_op *op = SPK_OWNER(spk_list_take(&u->todo), struct spk_op, link);

        fill(e, entry, op);
        op->backend[0] = PLACE_KERNEL;
    }
    while (!spk_list_empty(&u->cancels) && (entry = next_entry(e)) != NULL) {
        struct spk_op *op = SPK_OWNER(spk_list_take(&u->cancels), struct spk_op, link);

        io_uring_prep_cancel(entry, op, 0);
        entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
        io_uring_sqe_set_data64(entry, TAG_CANCEL);
    }
}

/* ---- out of the kernel; each returns the number of operations that completed ---- */

static int
complete(struct spk_engine *e, struct spk_op *op, int result)
{
    e->info.completions++;
    op->chunk = NULL;
    op->data = NULL;
    spk_op_complete(e, op, result);
    return 1;
}

/* Once more, unless its owner wants it to end. */
static int
try_again(struct spk_engine *e, struct spk_op *op, enum receive_by by)
{
    struct uring *u = e->backend_state;

    op->more = false;
    if (op->cancelled)
        return complete(e, op, SPOKE_ECANCELED);
    op->backend[0] = PLACE_PLANNED;
    op->backend[1] = by;
    spk_list_append(&u->todo, &op->link);
    return 0;
}

static int
error_of(const struct spk_op *op, int result)
{
    if (op->cancelled && result == -EINTR)
        return SPOKE_ECANCELED;
    return spk_error_from_errno(-result);
}

static int
on_accept(struct spk_engine *e, struct spk_op *op, int result, bool more)
{
    bool passes_by = result == -EAGAIN || result == -ECONNABORTED || result == -EINTR;

    if (passes_by)
        return more ? 0 : try_again(e, op, BY_BUFFER);
    op->more = more;
    return complete(e, op, result >= 0 ? result : error_of(op, result));
}

static int
receive_now(struct spk_engine *e, struct spk_op *op)
{
    size_t size;
    uint8_t *room = spk_scratch_room(e, &size);
    int64_t n = SPOKE_ENOMEM;

    if (room != NULL)
        n = spk_posix_receive(op, room, size);
    if (n == SPOKE_EAGAIN)
        return try_again(e, op, BY_READINESS);
    if (n <= 0)
        return complete(e, op, (int)n);
    e->info.completions++;
    spk_scratch_complete(e, op, n);
    return 1;
}

static int
on_buffer(struct spk_engine *e, struct spk_op *op, int result, uint32_t number)
{
    struct uring *u = e->backend_state;

    e->info.completions++;
    op->chunk = u->chunks[number];
    op->data = op->chunk->data;
    spk_op_complete(e, op, result);
    provide_again(u, number);
    return 1;
}

static int
on_receive(struct spk_engine *e, struct spk_op *op, int result, unsigned flags)
{
    bool ours = op->u.recv.buffer == NULL;

    if ((flags & IORING_CQE_F_BUFFER) != 0) {
        if (result > 0)
            return on_buffer(e, op, result, flags >> IORING_CQE_BUFFER_SHIFT);
        provide_again(e->backend_state, flags >> IORING_CQE_BUFFER_SHIFT);
    }
    if (ours && (result == -ENOBUFS || (result > 0 && op->backend[1] == BY_READINESS)))
        return receive_now(e, op);
    return complete(e, op, result >= 0 ? result : error_of(op, result));
}

static int
on_completion(struct spk_engine *e, const struct io_uring_cqe *c)
{
    struct uring *u = e->backend_state;
    struct spk_op *op;

    if (c->user_data <= TAG_MOST) {
        if (c->user_data == TAG_POKE && (c->flags & IORING_CQE_F_MORE) == 0)
            u->poke_armed = false;
        return 0;
    }
    op = (struct spk_op *)(uintptr_t)c->user_data;
    if (op->kind == SPK_OP_ACCEPT)
        return on_accept(e, op, c->res, (c->flags & IORING_CQE_F_MORE) != 0);
    if (op->kind == SPK_OP_RECV)
        return on_receive(e, op, c->res, c->flags);
    return complete(e, op, c->res >= 0 ? c->res : error_of(op, c->res));
}

/* Take what is there now; what callbacks cause comes in later turns. */
static int
reap(struct spk_engine *e)
{
    struct uring *u = e->backend_state;
    struct io_uring_cqe *next, completion;
    int done = 0;

    for (unsigned left = io_uring_cq_ready(&u->ring);
         left > 0 && io_uring_peek_cqe(&u->ring, &next) == 0; left--) {
        completion = *next;
        io_uring_cqe_seen(&u->ring, next);
        done += on_completion(e, &completion);
    }
    return done;
}

/* What needed no kernel. */
static int
run_ready(struct spk_engine *e)
{
    struct uring *u = e->backend_state;
    struct spk_link *link;
    int done = 0;

    while ((link = spk_list_take(&u->ready)) != NULL) {
        struct spk_op *op = SPK_OWNER(link, struct spk_op, link);

        done += complete(e, op, (int)(int64_t)op->backend[1]);
    }
    return done;
}

/* ---- the backend ---- */

/* One thread issues, and completions are made when it asks for them; else they are made at its next
 * system call.  Returns 0 or -errno. */
static int
open_ring(struct spk_engine *e, struct uring *u)
{
    unsigned entries = e->config.entries != 0 ? e->config.entries : ENTRIES;
    struct io_uring_params base = {.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |
                                            IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG,
                                   .cq_entries = entries < COMPLETIONS / 4 ? COMPLETIONS
                                                                           : entries * 4};
    struct io_uring_params params = base;
    int rc;

    if ((e->config.mask_features & SPOKE_FEATURE_DEFER_TASKRUN) == 0) {
        params.flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
        if ((rc = io_uring_queue_init_params(entries, &u->ring, &params)) == 0)
            e->info.features |= SPOKE_FEATURE_DEFER_TASKRUN;
        if (rc != -EINVAL)
            return rc;
    }
    base.flags |= IORING_SETUP_COOP_TASKRUN;
    return io_uring_queue_init_params(entries, &u->ring, &base);
}

static void
open_features(struct spk_engine *e, struct uring *u)
{
    uint32_t allowed = ~e->config.mask_features;
    uint32_t chunks = e->config.receive_chunks != 0 ? e->config.receive_chunks : CHUNKS;

    if ((allowed & SPOKE_FEATURE_REGISTERED_RING) != 0 &&
        io_uring_register_ring_fd(&u->ring) == 1) {
        u->enter_flags = IORING_ENTER_REGISTERED_RING;
        e->info.features |= SPOKE_FEATURE_REGISTERED_RING;
    }
    if ((allowed & SPOKE_FEATURE_PROVIDED_BUFFERS) != 0 && open_buffers(u, chunks))
        e->info.features |= SPOKE_FEATURE_PROVIDED_BUFFERS;
    if (spk_uring_has_multishot_accept(&u->ring))
        e->info.features |= allowed & SPOKE_FEATURE_MULTISHOT_ACCEPT;
}

static int
uring_open(struct spk_engine *e)
{
    struct uring *u;
    int rc;

    if (e->config.entries > MOST || e->config.receive_chunks > MOST ||
        (e->config.receive_chunks & (e->config.receive_chunks - 1)) != 0)
        return SPOKE_EINVAL;
    if ((u = spk_zalloc(sizeof *u)) == NULL)
        return SPOKE_ENOMEM;
    spk_list_init(&u->todo);
    spk_list_init(&u->cancels);
    spk_list_init(&u->ready);
    atomic_init(&u->event_fd, -1);
    e->info.features = 0;
    if ((rc = open_ring(e, u)) != 0) {
        rc = rc == -ENOSYS || rc == -EINVAL  ? SPOKE_ENOTSUP
             : rc == -EPERM || rc == -EACCES ? SPOKE_EPERM
                                             : spk_error_from_errno(-rc);
        goto free_state;
    }
    rc = SPOKE_ENOTSUP;
    if (!spk_uring_is_usable(&u->ring))
        goto close_ring;
    if ((u->poke_fd = eventfd(0, EFD_CLOEXEC)) < 0) {
        rc = spk_error_from_errno(errno);
        goto close_ring;
    }
    open_features(e, u);
    e->backend_state = u;
    return 0;
close_ring:
    io_uring_queue_exit(&u->ring);
free_state:
    spk_free(u);
    return rc;
}

static void
uring_close(struct spk_engine *e)
{
    struct uring *u = e->backend_state;

    close_buffers(u);
    io_uring_queue_exit(&u->ring);
    close(u->poke_fd);
    if (atomic_load_explicit(&u->event_fd, memory_order_relaxed) >= 0)
        close(atomic_load_explicit(&u->event_fd, memory_order_relaxed));
    spk_free(u);
    e->backend_state = NULL;
}

static void
make_ready(struct uring *u, struct spk_op *op, int result)
{
    op->backend[0] = PLACE_READY;
    op->backend[1] = (uint64_t)(int64_t)result;
    spk_list_append(&u->ready, &op->link);
}

/* Connecting within the machine never waits, except for a place in a full backlog, and for that
 * io_uring starts a thread.  The plain call says SPOKE_EAGAIN instead. */
static void
connect_now(struct uring *u, struct spk_op *op)
{
    if (connect(op->handle, op->u.connect.address, op->u.connect.size) == 0)
        make_ready(u, op, 0);
    else
        make_ready(u, op, spk_error_from_errno(errno));
}

static void
uring_submit(struct spk_engine *e, struct spk_op *op)
{
    struct uring *u = e->backend_state;

    if (op->kind == SPK_OP_CONNECT && op->u.connect.address->sa_family == AF_UNIX) {
        connect_now(u, op);
        return;
    }
    op->backend[0] = PLACE_PLANNED;
    op->backend[1] = BY_BUFFER;
    spk_list_append(&u->todo, &op->link);
}

static void
uring_cancel(struct spk_engine *e, struct spk_op *op)
{
    struct uring *u = e->backend_state;

    if (op->backend[0] == PLACE_READY)
        return;
    spk_list_remove(&op->link);
    if (op->backend[0] == PLACE_PLANNED)
        make_ready(u, op, SPOKE_ECANCELED);
    else
        spk_list_append(&u->cancels, &op->link);
    e->poke |= e->asleep;
}

/* Everything is reaped: make the descriptor for foreign loops quiet.  What has come since is
 * brought out and announced, and what comes from now on is announced by the kernel. */
static void
quieten(struct spk_engine *e)
{
    struct uring *u = e->backend_state;
    int event_fd = atomic_load_explicit(&u->event_fd, memory_order_relaxed);
    eventfd_t count;

    if (event_fd < 0)
        return;
    eventfd_read(event_fd, &count);
    if (kernel_waits(u))
        enter(e, 0);
    if (io_uring_cq_ready(&u->ring) > 0)
        eventfd_write(event_fd, 1);
}

static int
uring_turn(struct spk_engine *e, spoke_ns timeout_ns)
{
    struct uring *u = e->backend_state;
    int done = run_ready(e);

    if (u->missing > 0)
        provide_missing(u);
    prepare(e);
    if (done > 0 || !spk_list_empty(&u->todo) || !spk_list_empty(&u->cancels) || !u->poke_armed ||
        io_uring_cq_ready(&u->ring) > 0)
        timeout_ns = 0;
    if (timeout_ns > 0 || io_uring_sq_ready(&u->ring) > 0 || worth_entering(u)) {
        enter(e, timeout_ns);
        u->stale = kernel_waits(u) ? STALE_TURNS : 0;
    }
    done += reap(e) + run_ready(e);
    quieten(e);
    return done;
}

/* Some kernels (6.18) do not write the eventfd of a ring when it is another eventfd that completes,
 * hence the second one. */
static void
uring_poke(struct spk_engine *e)
{
    struct uring *u = e->backend_state;
    int event_fd = atomic_load_explicit(&u->event_fd, memory_order_relaxed);

    eventfd_write(u->poke_fd, 1);
    if (event_fd >= 0)
        eventfd_write(event_fd, 1);
}

/* The ring's own descriptor will not do: with deferred task work it does not wake who polls it. */
static int
uring_fd(struct spk_engine *e)
{
    struct uring *u = e->backend_state;
    int rc, event_fd = atomic_load_explicit(&u->event_fd, memory_order_relaxed);

    if (event_fd >= 0)
        return event_fd;
    if ((event_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) /* there may be work already */
        return spk_error_from_errno(errno);
    if ((rc = io_uring_register_eventfd(&u->ring, event_fd)) != 0) {
        close(event_fd);
        return spk_error_from_errno(-rc);
    }
    atomic_store_explicit(&u->event_fd, event_fd, memory_order_relaxed);
    return event_fd;
}

const struct spk_backend spk_backend_uring = {
    .name = "uring",
    .open = uring_open,
    .close = uring_close,
    .socket = spk_posix_socket,
    .bind = spk_posix_bind,
    .listen = spk_posix_listen,
    .close_handle = spk_posix_close_handle,
    .shutdown = spk_posix_shutdown,
    .set_option = spk_posix_set_option,
    .local_address = spk_posix_local_address,
    .peer_address = spk_posix_peer_address,
    .credentials = spk_posix_credentials,
    .recv_now = spk_posix_recv_now,
    .send_now = spk_posix_send_now,
    .submit = uring_submit,
    .cancel = uring_cancel,
    .turn = uring_turn,
    .poke = uring_poke,
    .now = spk_posix_now,
    .fd = uring_fd,
};
