/* SPDX-License-Identifier: MIT */
/* What a socket of the shared engine has in front of the engine's lock: an inbox of received
 * messages, which one receive has taken for the next ones, and an outbox of messages that were sent
 * while another thread had the lock, which that thread puts through.  So a thread that sends or
 * receives one message a call neither waits for the others nor makes them wait.
 *
 * Each box has a lock of its own, held for a few instructions, and taken after the engine's by who
 * needs both.  Fronts are kept when their sockets are gone, for others: whoever comes late with a
 * handle may look at one safely. */
#include <string.h>

#include "runtime/core/core.h"

#define OUTBOX      512u  /* messages */
#define OUTBOX_BODY 4096u /* bytes of one; larger ones are worth waiting for the lock */
#define INBOX       32u
#define INBOX_LEAST 4u /* that are worth it */
#define INBOX_SHARE 4u /* of the receive queue's length, as what it holds it has given room for */

struct spk_front {
    struct spk_link link; /* among the spare ones */
    unsigned fork_generation;
    struct spk_engine *e;
    struct spk_socket *s;     /* the engine's */
    struct spk_errand errand; /* to empty the outbox … */
    struct spk_task task;     /* … and to try that again */
    bool stuck;               /* the engine's: the oldest in the outbox cannot be sent now */

    _Alignas(64) pthread_mutex_t in_lock;
    spoke_socket *in_handle; /* NULL: closed to those without the engine */
    atomic_uint in_count;
    uint32_t in_at;
    size_t in_bytes;
    spoke_msg *in[INBOX];

    _Alignas(64) pthread_mutex_t out_lock;
    spoke_socket *out_handle; /* NULL: closed */
    uint32_t out_at, out_most;
    uint64_t out_most_bytes;
    atomic_uint out_count;
    uint64_t out_bytes;
    spoke_msg *out[OUTBOX];
};

/* ---- life ---- */

static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;
SPK_FREE_AFTER_FORK(spare_lock)
static struct spk_link spare = {&spare, &spare};

static void on_errand(struct spk_errand *errand);
static void on_task(struct spk_task *task);

static void
init(struct spk_front *f)
{
    f->fork_generation = atomic_load(&spk_fork_generation);
    pthread_mutex_init(&f->in_lock, NULL);
    pthread_mutex_init(&f->out_lock, NULL);
    spk_errand_init(&f->errand, on_errand);
    spk_task_init(&f->task, on_task);
}

int
spk_front_open(struct spk_socket *s)
{
    struct spk_front *f;
    struct spk_link *link;

    if (!s->e->shared)
        return 0;
    pthread_mutex_lock(&spare_lock);
    link = spk_list_take(&spare);
    pthread_mutex_unlock(&spare_lock);
    if (link != NULL) {
        f = SPK_OWNER(link, struct spk_front, link);
        if (f->fork_generation != s->e->fork_generation) /* another thread of the parent's had it */
            init(f);
    } else {
        if ((f = spk_zalloc(sizeof *f)) == NULL)
            return SPOKE_ENOMEM;
        init(f);
    }
    f->e = s->e;
    f->s = s;
    f->stuck = false;
    s->front = f;
    spk_handle_set_front(s->handle, f);
    return 0;
}

void
spk_front_close(struct spk_front *f)
{
    if (f == NULL)
        return;
    spk_front_shut_inbox(f);
    spk_front_shut_outbox(f);
    spk_task_cancel(&f->task);
    for (; f->in_count > 0; f->in_count--)
        spoke_msg_free(f->in[f->in_at++]);
    for (; f->out_count > 0; f->out_count--)
        spoke_msg_free(f->out[f->out_at++ % OUTBOX]);
    f->in_bytes = f->out_bytes = 0;
    f->s = NULL;
    pthread_mutex_lock(&spare_lock);
    spk_list_append(&spare, &f->link);
    pthread_mutex_unlock(&spare_lock);
}

static bool
is_ours(const struct spk_front *f)
{
    return f->fork_generation == atomic_load_explicit(&spk_fork_generation, memory_order_relaxed);
}

/* ---- inbox ---- */

void
spk_front_shut_inbox(struct spk_front *f)
{
    pthread_mutex_lock(&f->in_lock);
    f->in_handle = NULL;
    pthread_mutex_unlock(&f->in_lock);
}

static uint32_t
take(struct spk_front *f, spoke_msg **messages, uint32_t most)
{
    uint32_t count = atomic_load_explicit(&f->in_count, memory_order_relaxed), n = 0;

    while (n < most && n < count) {
        spoke_msg *m = f->in[f->in_at++];

        f->in_bytes -= m->size;
        messages[n++] = m;
    }
    atomic_store_explicit(&f->in_count, count - n, memory_order_relaxed);
    return n;
}

bool
spk_front_recv(spoke_socket *handle, spoke_msg **m)
{
    struct spk_front *f = spk_handle_front(handle, SPK_HANDLE_SOCKET);
    bool taken;

    if (f == NULL || atomic_load_explicit(&f->in_count, memory_order_relaxed) == 0 || !is_ours(f) ||
        pthread_mutex_trylock(&f->in_lock) != 0)
        return false;
    taken = f->in_handle == handle && take(f, m, 1) == 1;
    pthread_mutex_unlock(&f->in_lock);
    return taken;
}

uint32_t
spk_front_take(struct spk_front *f, spoke_msg **messages, uint32_t most)
{
    uint32_t n;

    /* Only with the engine does it get more. */
    if (atomic_load_explicit(&f->in_count, memory_order_relaxed) == 0)
        return 0;
    pthread_mutex_lock(&f->in_lock);
    n = take(f, messages, most);
    pthread_mutex_unlock(&f->in_lock);
    return n;
}

void
spk_front_fill(struct spk_front *f)
{
    struct spk_socket *s = f->s;
    uint32_t most = s->recv_queue.max_messages / INBOX_SHARE, n;
    spoke_msg *messages[INBOX];
    size_t bytes = 0;

    if (most > INBOX)
        most = INBOX;
    if (s->recv_queue.count < INBOX_LEAST || most < INBOX_LEAST || s->protocol->recv != NULL ||
        s->ranked || s->on_message != NULL || s->recv_fd >= 0 || s->device != NULL ||
        s->recv_queue.bytes > s->recv_queue.max_bytes / INBOX_SHARE ||
        s->state_now != SPK_SOCKET_OPEN || !spk_list_empty(&s->own.recv_waiters) ||
        atomic_load_explicit(&f->in_count, memory_order_relaxed) > 0)
        return;
    n = (uint32_t)spk_socket_take_many(s, messages, (int)most);
    for (uint32_t i = 0; i < n; i++)
        bytes += messages[i]->size;
    s->stats.messages_received += n;
    s->stats.bytes_received += bytes;
    pthread_mutex_lock(&f->in_lock);
    memcpy(f->in, messages, n * sizeof *messages);
    f->in_at = 0;
    f->in_bytes = bytes;
    f->in_handle = s->handle;
    atomic_store_explicit(&f->in_count, n, memory_order_relaxed);
    pthread_mutex_unlock(&f->in_lock);
}

bool
spk_front_has_message(const struct spk_front *f)
{
    return f != NULL && atomic_load_explicit(&f->in_count, memory_order_relaxed) > 0;
}

/* What lies in the inbox has been counted, but nobody has had it yet; what lies in the outbox has
 * been sent, as far as its sender is concerned. */
void
spk_front_correct(struct spk_front *f, struct spoke_stats *stats)
{
    uint64_t bytes;

    stats->messages_sent += spk_front_pending(f, &bytes);
    stats->bytes_sent += bytes;
    pthread_mutex_lock(&f->in_lock);
    stats->messages_received -= f->in_count;
    stats->bytes_received -= f->in_bytes;
    pthread_mutex_unlock(&f->in_lock);
}

void
spk_front_filter(struct spk_front *f, bool (*keep)(void *ctx, const spoke_msg *m), void *ctx)
{
    struct spk_socket *s = f->s;
    uint32_t kept = 0, count;

    pthread_mutex_lock(&f->in_lock);
    count = f->in_count;
    for (uint32_t i = 0; i < count; i++) {
        spoke_msg *m = f->in[f->in_at + i];

        if (keep(ctx, m)) {
            f->in[f->in_at + kept++] = m;
            continue;
        }
        f->in_bytes -= m->size;
        s->stats.messages_received--;
        s->stats.bytes_received -= m->size;
        spoke_msg_free(m);
    }
    atomic_store_explicit(&f->in_count, kept, memory_order_relaxed);
    pthread_mutex_unlock(&f->in_lock);
}

/* ---- outbox ---- */

void
spk_front_shut_outbox(struct spk_front *f)
{
    pthread_mutex_lock(&f->out_lock);
    f->out_handle = NULL;
    pthread_mutex_unlock(&f->out_lock);
}

/* May those who do not get the lock leave their messages?  Only where a send changes nothing but
 * queues, and goes through for all that is known. */
void
spk_front_open_outbox(struct spk_front *f)
{
    struct spk_socket *s = f->s;

    if (f->out_handle != NULL || f->stuck || !s->protocol->may_send_later || s->raw ||
        s->send_queue <= 0 || s->send_expiry_ns > 0 || s->best_effort || s->fail_no_peers ||
        s->on_undelivered != NULL || s->device != NULL || s->state_now != SPK_SOCKET_OPEN ||
        !spk_socket_can_send(s))
        return;
    pthread_mutex_lock(&f->out_lock);
    f->out_handle = s->handle;
    f->out_most = s->send_queue < (int)OUTBOX ? (uint32_t)s->send_queue : OUTBOX;
    f->out_most_bytes = s->send_queue_bytes;
    pthread_mutex_unlock(&f->out_lock);
}

bool
spk_front_send(spoke_socket *handle, spoke_msg *m)
{
    struct spk_front *f = spk_handle_front(handle, SPK_HANDLE_SOCKET);
    uint32_t count;
    bool left = false;

    if (f == NULL || !is_ours(f) || m->size > OUTBOX_BODY || m->header_size > 0 || m->expires ||
        m->returns || m->carries)
        return false;
    pthread_mutex_lock(&f->out_lock);
    count = atomic_load_explicit(&f->out_count, memory_order_relaxed);
    if (f->out_handle == handle && count < f->out_most &&
        f->out_bytes + m->size <= f->out_most_bytes) {
        f->out[(f->out_at + count) % OUTBOX] = m;
        atomic_store_explicit(&f->out_count, count + 1, memory_order_relaxed);
        f->out_bytes += m->size;
        left = true;
    }
    pthread_mutex_unlock(&f->out_lock);
    if (left)
        spk_errand_give(f->e, &f->errand);
    return left;
}

/* The oldest ones, where they lie: they stay until drop_sent(). */
static uint32_t
oldest(struct spk_front *f, spoke_msg **messages)
{
    uint32_t n;

    pthread_mutex_lock(&f->out_lock);
    n = f->out_count;
    for (uint32_t i = 0; i < n; i++)
        messages[i] = f->out[(f->out_at + i) % OUTBOX];
    pthread_mutex_unlock(&f->out_lock);
    return n;
}

/* Those that went; and if they are not all, nobody leaves any more until they are. */
static void
drop_sent(struct spk_front *f, uint32_t sent, uint64_t bytes, bool all)
{
    pthread_mutex_lock(&f->out_lock);
    f->out_at += sent;
    atomic_store_explicit(&f->out_count, f->out_count - sent, memory_order_relaxed);
    f->out_bytes -= bytes;
    if (!all)
        f->out_handle = NULL;
    f->stuck = !all;
    pthread_mutex_unlock(&f->out_lock);
}

bool
spk_front_empty_outbox(struct spk_front *f)
{
    struct spk_socket *s = f->s;
    spoke_msg *messages[OUTBOX];
    uint32_t n = oldest(f, messages), done = 0;
    uint64_t bytes = 0;
    int sent;

    if (n == 0)
        return true;
    while (done < n &&
           (sent = spk_socket_send_some(s, messages + done, (int)(n - done), &bytes)) > 0)
        done += (uint32_t)sent;
    drop_sent(f, done, bytes, done == n);
    spk_socket_check_ready(s);
    return done == n;
}

/* Whoever left a message before sees the count of it; who has emptied the box since had the engine
 * before us. */
bool
spk_front_lets_pass(struct spk_front *f)
{
    return f == NULL || atomic_load_explicit(&f->out_count, memory_order_relaxed) == 0 ||
           spk_front_empty_outbox(f);
}

static void
on_errand(struct spk_errand *errand)
{
    struct spk_front *f = SPK_OWNER(errand, struct spk_front, errand);

    if (f->s == NULL)
        return;
    spk_front_empty_outbox(f);
    spk_socket_advance_close(f->s);
}

static void
on_task(struct spk_task *task)
{
    struct spk_front *f = SPK_OWNER(task, struct spk_front, task);

    spk_front_empty_outbox(f);
    spk_socket_advance_close(f->s);
}

void
spk_front_try_again(struct spk_front *f)
{
    if (f != NULL && f->stuck)
        spk_task_queue(f->e, &f->task);
}

bool
spk_front_is_stuck(const struct spk_front *f)
{
    return f != NULL && f->stuck;
}

uint64_t
spk_front_pending(struct spk_front *f, uint64_t *bytes)
{
    uint64_t count;

    pthread_mutex_lock(&f->out_lock);
    count = f->out_count;
    *bytes = f->out_bytes;
    pthread_mutex_unlock(&f->out_lock);
    return count;
}
