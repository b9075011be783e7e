/* SPDX-License-Identifier: MIT */
/* Threads that share an engine: its lock, what they do for each other when they leave it, and how
 * they wait.  docs/architecture.md, "Waiting". */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/engine/backend.h"
#include "runtime/engine/loop.h"

/* A caller that waits alone sleeps on the sockets itself: one wake-up for a message instead of two.
 * Once two callers have slept at a time that many waits go through the library's thread. */
#define POLLER_DEBT 64

/* Whoever wants the lock of the engine's thread usually has it within PAUSES; else the thread
 * sleeps until then, at most GIVE_WAY_MOST. */
#define PAUSES        100
#define GIVE_WAY_MOST (500 * SPOKE_US)

/* ---- the lock ---- */

/* The engine's thread takes the lock again as soon as it has left it; who waits says so, and it
 * gives way. */
void
spk_engine_lock(struct spk_engine *e)
{
    if (pthread_mutex_trylock(&e->lock) == 0)
        return;
    atomic_fetch_add(&e->wanted, 1);
    pthread_mutex_lock(&e->lock);
    atomic_fetch_sub(&e->wanted, 1);
}

/* ---- errands ---- */

void
spk_errand_init(struct spk_errand *errand, void (*fn)(struct spk_errand *errand))
{
    errand->fn = fn;
    errand->next = NULL;
    atomic_init(&errand->given, false);
}

void
spk_errand_give(struct spk_engine *e, struct spk_errand *errand)
{
    struct spk_errand *first;

    if (!atomic_exchange(&errand->given, true)) {
        first = atomic_load_explicit(&e->errands, memory_order_relaxed);
        do
            errand->next = first;
        while (!atomic_compare_exchange_weak(&e->errands, &first, errand));
    }
    /* Give, then try the lock; who leaves it unlocks, then looks: one of the two does it.  Or
     * somebody who still waits for the lock, and is not kept from it. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&e->wanted) == 0 && pthread_mutex_trylock(&e->lock) == 0)
        spk_engine_leave(e);
}

static void
run_errands(struct spk_engine *e)
{
    struct spk_errand *errand, *next;

    if (atomic_load_explicit(&e->errands, memory_order_relaxed) == NULL)
        return;
    for (errand = atomic_exchange(&e->errands, NULL); errand != NULL; errand = next) {
        next = errand->next;
        atomic_store(&errand->given, false); /* first: what comes now is given again */
        errand->fn(errand);
    }
    spk_run_tasks(e);
}

/* ---- entering and leaving ---- */

int
spk_engine_enter(struct spk_engine *e)
{
    if (!spk_engine_is_ours(e))
        return SPOKE_EFORKED;
    if (e->shared) {
        spk_engine_lock(e);
        run_errands(e); /* the caller's own may be among them */
    } else if (!pthread_equal(e->owner, pthread_self())) {
        return SPOKE_EWRONGTHREAD;
    }
    return 0;
}

int
spk_engine_try_enter(struct spk_engine *e)
{
    if (e->shared && spk_engine_is_ours(e)) {
        if (atomic_load_explicit(&e->wanted, memory_order_relaxed) > 0 ||
            pthread_mutex_trylock(&e->lock) != 0)
            return SPOKE_EAGAIN;
        run_errands(e);
        return 0;
    }
    return spk_engine_enter(e);
}

static void
futex_wake(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

/* True if a signal handler ended it.  The kernel goes back to sleep by itself after some handlers
 * (SA_RESTART), but never if there is a time limit: so who wants to be interrupted always has one.
 */
static bool
futex_wait(atomic_uint *word, unsigned value, spoke_ns deadline, bool interruptible)
{
    struct timespec time = {.tv_sec = deadline / SPOKE_SECOND, .tv_nsec = deadline % SPOKE_SECOND};
    bool limited = deadline != SPOKE_FOREVER || interruptible;

    return syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value,
                   limited ? &time : NULL, NULL, FUTEX_BITSET_MATCH_ANY) < 0 &&
           errno == EINTR;
}

/* The engine's thread has to know of hot receives that nobody looks after, unless it wakes by
 * itself when the lease is over. */
static bool
needs_thread(const struct spk_engine *e)
{
    return e->hot_count > 0 && e->poller == NULL && e->sleep_until_ns > e->lease_until_ns;
}

/* The waiter lives on a stack that may be gone by the time of the wake-up; a wake on such an
 * address does nothing. */
#define WAKES_MOST   16
#define ERRANDS_MOST 4 /* times that one caller looks after others' errands */

void
spk_engine_leave_shared(struct spk_engine *e)
{
    atomic_uint *words[WAKES_MOST];
    struct spk_waiter *waiter;
    struct spk_link *link;
    bool poke, kick, more, for_callback = e->in_callback > 0;
    int rounds = 0;

    do {
        int count = 0;

        run_errands(e);
        if (e->in_callback > 0) { /* it may take long, or wait for the answer to what was sent */
            spk_engine_flush(e);
            spk_run_tasks(e);
        }
        while (count < WAKES_MOST && (link = spk_list_take(&e->waiters)) != NULL) {
            waiter = SPK_OWNER(link, struct spk_waiter, wake);
            if (waiter == e->poller)
                e->poller_kicked = true;
            else
                words[count++] = &waiter->woken;
            /* Pairs with the acquire in wait_shared(). */
            atomic_store_explicit(&waiter->woken, 1, memory_order_release);
        }
        kick = e->poller_kicked && e->poller != NULL;
        e->poller_kicked = false;
        more = !spk_list_empty(&e->waiters);
        poke = e->asleep &&
               (e->poke || needs_thread(e) || !spk_list_empty(&e->queued) ||
                !spk_list_empty(&e->callbacks) || (!spk_list_empty(&e->flushes) && !e->ticking));
        if (poke) {
            e->asleep = false; /* one poke is enough */
            e->info.pokes++;
        }
        e->poke = false;
        pthread_mutex_unlock(&e->lock);
        if (atomic_load(&e->gives_way) != 0 && atomic_exchange(&e->gives_way, 0) != 0)
            futex_wake(&e->gives_way);
        if (poke)
            e->backend->poke(e);
        if (kick)
            eventfd_write(e->poller_fd, 1);
        for (int i = 0; i < count; i++)
            futex_wake(words[i]);
        atomic_thread_fence(memory_order_seq_cst); /* unlock, then look: see spk_errand_give() */
        if (more)
            spk_engine_lock(e);
        else if (atomic_load(&e->errands) != NULL && (for_callback || ++rounds < ERRANDS_MOST))
            more = pthread_mutex_trylock(&e->lock) == 0;
        else if (rounds == ERRANDS_MOST) /* the library's thread takes over */
            e->backend->poke(e);
    } while (more);
}

void
spk_engine_leave(struct spk_engine *e)
{
    spk_run_tasks(e);
    if (e->shared)
        spk_engine_leave_shared(e);
    else if (e->foreign_fd >= 0 && e->in_callback == 0)
        spk_engine_arm_foreign(e); /* the foreign loop may sleep before it polls us again */
}

void
spk_engine_call_begin(struct spk_engine *e, const void *which)
{
    if (e->in_callback++ == 0) {
        e->called = which;
        e->calls++;
    }
    if (e->shared)
        spk_engine_leave_shared(e);
}

void
spk_engine_call_end(struct spk_engine *e)
{
    if (e->shared)
        spk_engine_lock(e);
    if (--e->in_callback == 0) {
        e->called = NULL;
        spk_engine_wake_all(e, &e->call_waiters);
    }
}

void
spk_engine_sleep_begin(struct spk_engine *e)
{
    e->info.sleeps++;
    if (e->shared) {
        e->asleep = true;
        spk_engine_leave_shared(e);
    }
}

void
spk_engine_sleep_end(struct spk_engine *e)
{
    if (e->shared) {
        spk_engine_lock(e);
        e->asleep = false;
    }
}

void
spk_engine_give_way(struct spk_engine *e)
{
    if (atomic_load_explicit(&e->wanted, memory_order_relaxed) == 0 &&
        spk_list_empty(&e->waiters) &&
        atomic_load_explicit(&e->errands, memory_order_relaxed) == NULL)
        return;
    spk_engine_leave(e);
    for (int i = 0; i < PAUSES && atomic_load_explicit(&e->wanted, memory_order_relaxed) > 0; i++)
        spk_relax();
    if (atomic_load_explicit(&e->wanted, memory_order_relaxed) > 0) {
        /* First this, then look again: who gets in is no longer counted and then looks at this. */
        atomic_store(&e->gives_way, 1);
        if (atomic_load(&e->wanted) > 0)
            futex_wait(&e->gives_way, 1, spk_engine_now(e) + GIVE_WAY_MOST, false);
        atomic_store(&e->gives_way, 0);
    }
    pthread_mutex_lock(&e->lock);
}

bool
spk_engine_look(struct spk_engine *e)
{
    bool any;

    if (!e->shared || e->poller != NULL || e->spinning || e->hot_count == 0)
        return false;
    any = spk_try_hot(e);
    spk_run_tasks(e);
    e->lease_until_ns = 0;
    return any;
}

/* ---- waiting ---- */

static void
woken(struct spk_engine *e, struct spk_waiter *waiter)
{
    e->sleepers -= waiter->asleep;
    waiter->asleep = false;
}

void
spk_engine_wake_one(struct spk_engine *e, struct spk_link *list)
{
    struct spk_link *link = spk_list_take(list);

    if (link != NULL) {
        struct spk_waiter *waiter = SPK_OWNER(link, struct spk_waiter, link);

        waiter->chosen = true;
        woken(e, waiter);
        spk_list_append(&e->waiters, &waiter->wake);
    }
}

void
spk_engine_wake_all(struct spk_engine *e, struct spk_link *list)
{
    while (!spk_list_empty(list))
        spk_engine_wake_one(e, list);
}

/* For as long as this wait the loop waits as its socket wants it. */
static int
wait_owned(struct spk_engine *e, struct spk_waiter *w, spoke_ns deadline, spoke_ns busy_poll_ns,
           bool interruptible)
{
    int rc = 0;

    e->wait_ns = busy_poll_ns;
    e->interruptible = interruptible;
    e->interrupted = false;
    while (!w->chosen) {
        if (interruptible && e->interrupted) {
            rc = SPOKE_EINTR;
            break;
        }
        if (e->stuck) {
            e->stuck = false;
            rc = SPOKE_EDEADLK;
            break;
        }
        if (deadline != SPOKE_FOREVER && spk_engine_now(e) >= deadline) {
            rc = SPOKE_ETIMEDOUT;
            break;
        }
        spk_engine_turn(e, deadline);
    }
    e->wait_ns = e->busy_poll_ns;
    e->interruptible = false;
    return w->chosen ? 0 : rc;
}

/* The caller looks for its message itself; the engine's thread sleeps meanwhile and leaves the hot
 * receives alone. */
static void
spin_shared(struct spk_engine *e, struct spk_waiter *w, spoke_ns start, spoke_ns deadline,
            spoke_ns busy_poll_ns)
{
    bool adaptive = busy_poll_ns == SPOKE_WAIT_ADAPTIVE;
    spoke_ns budget = adaptive ? SPIN_BUDGET : busy_poll_ns;
    spoke_ns until = spk_later(start, budget), now = start;

    if (until > deadline)
        until = deadline;
    e->spinning = true;
    e->info.spins++;
    for (unsigned tries = 1; !w->chosen && now < until; tries++) {
        spk_lease(e, now);
        spk_engine_flush(e);
        spk_try_hot(e);
        spk_run_tasks(e);
        if (w->chosen)
            break;
        if (++e->tries >= e->tries_per_yield) {
            spk_engine_leave(e);
            spoke_ns took = spk_yield(e);
            spk_engine_lock(e);
            spk_yielded(e, took, adaptive);
            if (took > YIELD_LONG && adaptive)
                now = until;
        } else {
            spk_engine_leave(e);
            spk_relax();
            spk_engine_lock(e);
        }
        if (tries % TRIES_PER_LOOK == 0)
            now = spk_engine_now(e);
    }
    e->spinning = false;
    spk_scratch_let_go(e);
    if (w->chosen)
        e->info.spin_hits++;
}

/* Sleep until a socket of a hot receive has something for us, or others have woken us.  True if a
 * signal handler ended it. */
static bool
sleep_on_sockets(struct spk_engine *e, struct spk_waiter *w, spoke_ns deadline)
{
    struct pollfd fds[HOT_MOST + 1] = {{.fd = e->poller_fd, .events = POLLIN}};
    struct spk_op *ops[HOT_MOST + 1];
    struct timespec left = {0};
    bool interrupted = false;
    nfds_t count = 1;
    uint32_t changes = e->hot_changes;
    eventfd_t ignored;

    SPK_LIST_EACH(link, &e->hot)
    {
        ops[count] = SPK_OWNER(link, struct spk_op, link);
        if (!ops[count]->cancelled) { /* else the library's thread has been told */
            fds[count] = (struct pollfd){.fd = ops[count]->handle, .events = POLLIN};
            count++;
        }
    }
    if (deadline != SPOKE_FOREVER) {
        spoke_ns now = spk_engine_now(e), duration = deadline > now ? deadline - now : 0;

        left = (struct timespec){.tv_sec = duration / SPOKE_SECOND,
                                 .tv_nsec = duration % SPOKE_SECOND};
    }
    spk_scratch_let_go(e);
    e->poller = w;
    e->poller_kicked = false;
    e->polls++;
    spk_engine_leave(e);
    if (atomic_load_explicit(&w->woken, memory_order_acquire) == 0)
        interrupted = ppoll(fds, count, deadline != SPOKE_FOREVER ? &left : NULL, NULL) < 0 &&
                      errno == EINTR;
    spk_engine_lock(e);
    e->poller = NULL;
    if (fds[0].revents != 0)
        eventfd_read(e->poller_fd, &ignored);
    e->lease_until_ns = e->sleepers == 0 ? spk_engine_now(e) + LEASE : 0;
    if (e->hot_changes == changes)
        for (nfds_t i = 1; i < count; i++) {
            if (fds[i].revents != 0 && ops[i]->hot && !ops[i]->cancelled)
                spk_try_now(e, ops[i]);
        }
    else if (!w->chosen)
        spk_try_hot(e);
    spk_run_tasks(e);
    return interrupted;
}

/* Only one at a time, and nobody who sleeps otherwise is to wait for what it would find. */
static bool
may_sleep_on_sockets(struct spk_engine *e)
{
    if (e->hot_count == 0 || e->poller_fd < 0 || e->poller != NULL || e->spinning)
        return false;
    if (e->sleepers > 0)
        e->poller_debt = POLLER_DEBT;
    SPK_LIST_EACH(link, &e->hot)
    {
        if (SPK_OWNER(link, struct spk_op, link)->kind == SPK_OP_WATCH)
            return false;
    }
    return e->poller_debt == 0;
}

static int
wait_shared(struct spk_engine *e, struct spk_waiter *w, spoke_ns deadline, spoke_ns busy_poll_ns,
            bool interruptible)
{
    spoke_ns start = spk_engine_now(e);
    bool spins = busy_poll_ns == SPOKE_WAIT_ADAPTIVE ? e->spin_credit > 0 : busy_poll_ns > 0;
    bool slept = false, interrupted = false;
    int rc = 0;

    if (e->poller_debt > 0)
        e->poller_debt--;
    if (spins && !e->spinning && e->poller == NULL)
        spin_shared(e, w, start, deadline, busy_poll_ns);
    if (!w->chosen)
        spk_try_queued(e);
    while (!w->chosen) {
        if (deadline != SPOKE_FOREVER && spk_engine_now(e) >= deadline) {
            rc = SPOKE_ETIMEDOUT;
            break;
        }
        if (interruptible && interrupted) {
            rc = SPOKE_EINTR;
            break;
        }
        slept = true;
        spk_engine_flush(e); /* what we wait for may be the answer */
        spk_arm_watches(e);
        if (w->chosen)
            break;
        if (may_sleep_on_sockets(e)) {
            interrupted = sleep_on_sockets(e, w, deadline);
            continue;
        }
        if (e->poller != NULL)
            e->poller_debt = POLLER_DEBT;
        e->lease_until_ns = 0; /* the engine's thread arms them */
        w->asleep = true;
        e->sleepers++;
        spk_engine_leave(e);
        if (atomic_load_explicit(&w->woken, memory_order_acquire) == 0)
            interrupted = futex_wait(&w->woken, 0, deadline, interruptible);
        spk_engine_lock(e);
        woken(e, w);
    }
    if (w->chosen)
        spk_credit(e, spk_engine_now(e) - start, slept);
    return w->chosen ? 0 : rc;
}

bool
spk_engine_may_wait(const struct spk_engine *e)
{
    return (!e->shared && e->in_callback == 0) || !pthread_equal(e->owner, pthread_self());
}

static int
wait_in(struct spk_engine *e, struct spk_link *list, spoke_ns deadline, spoke_ns busy_poll_ns,
        bool interruptible)
{
    struct spk_waiter w = {.chosen = false, .asleep = false};
    int rc;

    if (!spk_engine_may_wait(e))
        return SPOKE_EDEADLK;
    e->burst++;
    spk_list_init(&w.wake);
    spk_list_append(list, &w.link);
    atomic_init(&w.woken, 0);
    rc = e->shared ? wait_shared(e, &w, deadline, busy_poll_ns, interruptible)
                   : wait_owned(e, &w, deadline, busy_poll_ns, interruptible);
    spk_list_remove(&w.link);
    spk_list_remove(&w.wake);
    return rc;
}

int
spk_engine_wait(struct spk_engine *e, struct spk_link *list, spoke_ns deadline,
                spoke_ns busy_poll_ns)
{
    return wait_in(e, list, deadline, busy_poll_ns, false);
}

int
spk_engine_wait_interruptibly(struct spk_engine *e, struct spk_link *list, spoke_ns deadline,
                              spoke_ns busy_poll_ns)
{
    return wait_in(e, list, deadline, busy_poll_ns, true);
}

void
spk_engine_await_call(struct spk_engine *e, const void *which)
{
    const uint64_t call = e->calls;

    while (e->called == which && e->calls == call &&
           spk_engine_wait(e, &e->call_waiters, SPOKE_FOREVER, SPOKE_WAIT_BLOCK) == 0) {
    }
}
