/* SPDX-License-Identifier: MIT */
/* The loop: what an engine does in one turn, and how long it looks for work itself before it
 * sleeps. The order within a turn: posted work, tasks, timers, callbacks, held-back writes, hot
 * receives, then the backend (which submits everything and waits, in one system call).
 * docs/architecture.md, "Waiting". */
#include <sched.h>

#include "runtime/engine/backend.h"
#include "runtime/engine/loop.h"
#include "runtime/memory/pool.h"

/* Callers that send on and on, so that STREAM_LEAST bytes were written in each of some
 * STREAM_TURNS turns, need no wake-up for each few of their messages: the shared engine's thread
 * looks after them every TICK, unless they have written themselves what has become enough. */
#define STREAM_LEAST      1024
#define STREAM_TURNS      3u
#define STREAM_TURNS_MOST 8u
#define TICK              (50 * SPOKE_US)

#define SLEPT_SHORT (150 * SPOKE_US) /* see SPIN_BUDGET */
#define CREDIT_MOST 16
#define DEBT_LEAST  64
#define DEBT_MOST   16384

/* Tries between two yields, which begin often and become seldom while they show that nobody else
 * wants the CPU. */
#define TRIES_PER_YIELD 4u
#define YIELD_SELDOM    64u
#define YIELD_SHORT     (2 * SPOKE_US)

/* ---- tasks, timers, posts ---- */

void
spk_task_init(struct spk_task *task, void (*fn)(struct spk_task *task))
{
    spk_list_init(&task->link);
    task->fn = fn;
}

void
spk_task_queue(struct spk_engine *e, struct spk_task *task)
{
    if (spk_list_empty(&task->link))
        spk_list_append(&e->tasks, &task->link);
}

void
spk_task_cancel(struct spk_task *task)
{
    spk_list_remove(&task->link);
}

void
spk_task_queue_callback(struct spk_engine *e, struct spk_task *task)
{
    if (spk_list_empty(&task->link))
        spk_list_append(&e->callbacks, &task->link);
}

void
spk_timer_init(struct spk_timer *timer, void (*fn)(struct spk_timer *timer))
{
    timer->fn = fn;
    timer->when = 0;
    timer->index = UINT32_MAX;
}

int
spk_timer_set(struct spk_engine *e, struct spk_timer *timer, spoke_ns when)
{
    int rc = spk_timers_set(&e->timers, timer, when);

    if (rc == 0 && e->asleep && when < e->sleep_until_ns)
        e->poke = true;
    return rc;
}

void
spk_timer_cancel(struct spk_engine *e, struct spk_timer *timer)
{
    spk_timers_cancel(&e->timers, timer);
}

spoke_ns
spk_engine_now(struct spk_engine *e)
{
    return e->backend->now(e);
}

/* `number` 0: whichever engine it is. */
static int
post_it(struct spk_engine *e, uint64_t number, struct spk_post *post)
{
    bool wakes;

    pthread_mutex_lock(&e->post_lock);
    if (e->closed || (number != 0 && e->number != number)) {
        pthread_mutex_unlock(&e->post_lock);
        return SPOKE_ECLOSED;
    }
    spk_list_append(&e->posted, &post->link);
    /* Both sides are sequentially consistent: either we see the sleeper, or it sees the post
     * (about_to_sleep()). */
    atomic_store(&e->has_posted, true);
    if ((wakes = atomic_exchange(&e->sleeping, false)))
        atomic_fetch_add_explicit(&e->pokers, 1, memory_order_relaxed);
    pthread_mutex_unlock(&e->post_lock);
    if (wakes) { /* only now: on this CPU who is woken runs at once, and needs the lock */
        e->backend->poke(e);
        atomic_fetch_sub_explicit(&e->pokers, 1, memory_order_release);
    }
    return 0;
}

int
spk_engine_post(struct spk_engine *e, spoke_post_f *fn, void *ctx, bool user)
{
    struct spk_post *post = spk_zalloc(sizeof *post);
    int rc;

    if (post == NULL)
        return SPOKE_ENOMEM;
    post->fn = fn;
    post->ctx = ctx;
    post->user = user;
    if ((rc = post_it(e, 0, post)) != 0)
        spk_free(post);
    return rc;
}

int
spk_engine_post_embedded(struct spk_engine *e, uint64_t number, struct spk_post *post,
                         spoke_post_f *fn, void *ctx)
{
    *post = (struct spk_post){.fn = fn, .ctx = ctx, .embedded = true};
    return post_it(e, number, post);
}

static bool
run_posted(struct spk_engine *e)
{
    struct spk_link mine, *link;
    bool any = false;

    if (!atomic_load_explicit(&e->has_posted, memory_order_acquire))
        return false;
    spk_list_init(&mine);
    pthread_mutex_lock(&e->post_lock);
    atomic_store_explicit(&e->has_posted, false, memory_order_relaxed);
    spk_list_splice(&mine, &e->posted);
    pthread_mutex_unlock(&e->post_lock);
    while ((link = spk_list_take(&mine)) != NULL) {
        struct spk_post *memory = SPK_OWNER(link, struct spk_post, link);
        struct spk_post post = *memory; /* its owner may use it again from here on */

        if (!post.embedded)
            spk_free(memory);
        if (post.user)
            spk_engine_call_begin(e, NULL);
        post.fn(post.ctx);
        if (post.user)
            spk_engine_call_end(e);
        any = true;
    }
    return any;
}

uint64_t
spk_engine_random(struct spk_engine *e)
{
    uint64_t z = e->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* ---- looking for work ---- */

void
spk_credit(struct spk_engine *e, spoke_ns waited, bool slept)
{
    if (waited < (slept ? SLEPT_SHORT : SPIN_BUDGET))
        e->spin_credit += e->spin_credit < CREDIT_MOST ? 1 : 0;
    else if (e->spin_credit > 0)
        e->spin_credit = e->spin_credit > 4 ? e->spin_credit - 4 : 0;
    if (e->spin_credit == CREDIT_MOST)
        e->spin_debt = 0;
}

void
spk_relax(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

/* Whoever has our message may wait for this very CPU.  Returns how long that took; others may be
 * inside meanwhile. */
spoke_ns
spk_yield(struct spk_engine *e)
{
    spoke_ns start = spk_engine_now(e);

    sched_yield();
    return spk_engine_now(e) - start;
}

/* What a yield has shown: how many tries to make before the next, and whether to spin at all.  On
 * CPUs that others want too whoever yields waits for all of them, and whoever sleeps is let in
 * front: so waits sleep, for longer each time that trying again has shown the same. */
void
spk_yielded(struct spk_engine *e, spoke_ns took, bool adaptive)
{
    e->tries = 0;
    if (took <= YIELD_SHORT) {
        if (e->tries_per_yield < YIELD_SELDOM)
            e->tries_per_yield *= 2;
        return;
    }
    e->tries_per_yield = TRIES_PER_YIELD;
    if (took > YIELD_LONG && adaptive) {
        e->spin_debt = e->spin_debt == 0          ? DEBT_LEAST
                       : e->spin_debt < DEBT_MOST ? e->spin_debt * 4
                                                  : DEBT_MOST;
        e->spin_credit = -e->spin_debt;
    }
}

/* ---- one turn ---- */

bool
spk_run_tasks(struct spk_engine *e)
{
    struct spk_link *link;
    bool any = false;

    while ((link = spk_list_take(&e->tasks)) != NULL) {
        struct spk_task *task = SPK_OWNER(link, struct spk_task, link);

        task->fn(task);
        any = true;
    }
    return any;
}

static bool
run_timers(struct spk_engine *e)
{
    struct spk_timer *timer;
    spoke_ns now;
    bool any = false;

    if (e->timers.count == 0)
        return false;
    now = spk_engine_now(e);
    while ((timer = spk_timers_due(&e->timers, now)) != NULL) {
        timer->fn(timer);
        any = true;
    }
    return any;
}

/* Each that is there now, once: a callback may bring itself back. */
static bool
run_callbacks(struct spk_engine *e)
{
    struct spk_link mine, *link;
    bool any = false;

    if (spk_list_empty(&e->callbacks))
        return false;
    spk_list_init(&mine);
    spk_list_splice(&mine, &e->callbacks);
    while ((link = spk_list_take(&mine)) != NULL) {
        struct spk_task *task = SPK_OWNER(link, struct spk_task, link);

        task->fn(task);
        any = true;
    }
    return any;
}

void
spk_engine_flush(struct spk_engine *e)
{
    struct spk_link mine, *link;

    if (spk_list_empty(&e->flushes))
        return;
    spk_list_init(&mine);
    spk_list_splice(&mine, &e->flushes);
    while ((link = spk_list_take(&mine)) != NULL) {
        struct spk_flush *flush = SPK_OWNER(link, struct spk_flush, link);

        flush->fn(flush);
    }
}

static bool
work_waits(struct spk_engine *e)
{
    return !spk_list_empty(&e->tasks) || !spk_list_empty(&e->callbacks) ||
           !spk_list_empty(&e->queued) || !spk_list_empty(&e->flushes) ||
           (e->stoppable && atomic_load_explicit(&e->stop, memory_order_relaxed)) ||
           atomic_load_explicit(&e->has_posted, memory_order_relaxed);
}

/* Everything but the backend.  Returns true if anything was done. */
static bool
run_ready(struct spk_engine *e)
{
    bool any = run_posted(e);

    any |= spk_run_tasks(e);
    any |= run_timers(e);
    any |= spk_run_tasks(e);
    any |= run_callbacks(e);
    any |= spk_run_tasks(e);
    spk_engine_flush(e);
    return any;
}

static bool
poll_backend(struct spk_engine *e)
{
    bool any = spk_submit_queued(e);

    return e->backend->turn(e, 0) > 0 || any;
}

static spoke_ns
spin_budget(const struct spk_engine *e)
{
    return e->wait_ns == SPOKE_WAIT_ADAPTIVE ? SPIN_BUDGET : e->wait_ns;
}

/* Look for work for a while without sleeping.  Returns true if some was found. */
static bool
spin(struct spk_engine *e, spoke_ns start, spoke_ns limit)
{
    spoke_ns until = spk_later(start, spin_budget(e));

    e->info.spins++;
    if (until > limit)
        until = limit;
    for (unsigned tries = 1;; tries++) {
        /* First, so that it has its turn however often there is something below; and what is below
         * has its, however much there is here. */
        bool any = poll_backend(e);

        if (!any && !work_waits(e))
            spk_look_at_memory(e);
        any |= spk_try_hot(e);
        any |= spk_run_tasks(e);
        if (any || work_waits(e)) {
            e->info.spin_hits++;
            return true;
        }
        if (e->shared)
            spk_engine_give_way(e);
        if (e->spinning || e->poller != NULL) /* a caller looks for itself */
            return false;
        if (++e->tries >= e->tries_per_yield) {
            spk_yielded(e, spk_yield(e), e->wait_ns == SPOKE_WAIT_ADAPTIVE);
            if (!spk_spinning_pays(e))
                return false;
        }
        if (tries % TRIES_PER_LOOK == 0 && (until != SPOKE_FOREVER || e->timers.count > 0)) {
            spoke_ns now = spk_engine_now(e);

            if (now >= until || now >= spk_timers_next(&e->timers)) /* set by others meanwhile */
                return false;
        }
    }
}

/* Gives back what is not needed asleep, says so to those who post, then looks once more. */
static bool
about_to_sleep(struct spk_engine *e)
{
    spk_scratch_let_go(e);
    spk_pool_flush();
    atomic_store(&e->sleeping, true);
    return !atomic_load(&e->has_posted) && !(e->stoppable && atomic_load(&e->stop));
}

/* Is the engine to look after senders in a moment, instead of being woken by them? */
static bool
ticks(struct spk_engine *e)
{
    bool streaming = e->written - e->written_before >= STREAM_LEAST;

    e->written_before = e->written;
    if (!streaming)
        e->stream_turns /= 2;
    else if (e->stream_turns < STREAM_TURNS_MOST)
        e->stream_turns++;
    return e->shared && e->wait_ns <= 0 && e->stream_turns >= STREAM_TURNS;
}

/* Do callers look after the hot receives? */
static bool
is_leased(const struct spk_engine *e, spoke_ns now)
{
    return e->shared && (e->poller != NULL || e->lease_until_ns > now);
}

static bool
turn(struct spk_engine *e, spoke_ns deadline)
{
    spoke_ns start, limit, end;
    bool any, slept = false;
    int n = 0;

    e->info.turns++;
    e->burst++;
    any = run_ready(e);
    any |= spk_try_hot(e);
    any |= spk_run_tasks(e);
    any |= spk_submit_queued(e);
    if (any || work_waits(e) || deadline == 0) {
        any |= e->backend->turn(e, 0) > 0;
        any |= spk_run_tasks(e);
        spk_engine_flush(e);
        return any;
    }
    limit = spk_timers_next(&e->timers);
    if (deadline < limit)
        limit = deadline;
    start = spk_engine_now(e);
    e->ticking = ticks(e);
    if (e->ticking && start + TICK < limit)
        limit = start + TICK;
    if (start < limit && !e->ticking && spk_spinning_pays(e) && !e->spinning &&
        !is_leased(e, start)) {
        if (spin(e, start, limit)) {
            if (e->wait_ns == SPOKE_WAIT_ADAPTIVE) /* it has an end: the wait was short */
                spk_credit(e, 0, false);
            return true;
        }
        if (work_waits(e) || is_leased(e, start)) /* others were inside meanwhile */
            return true;
        limit = spk_timers_next(&e->timers);
        if (deadline < limit)
            limit = deadline;
    }
    if (e->hot_count > 0) {
        if (is_leased(e, start)) { /* callers have them; look again when they may have gone */
            if (e->poller == NULL && !e->spinning && spk_arm_unawaited(e) && spk_submit_queued(e))
                return true;
            if (e->poller == NULL && e->lease_until_ns < limit)
                limit = e->lease_until_ns;
        } else {
            spk_arm_hot(e);
            if (spk_submit_queued(
                    e)) /* answered what was cancelled: that may bring work or a timer */
                return true;
        }
    }
    start = spk_engine_now(e);
    e->sleep_until_ns = limit;
    if (!about_to_sleep(e))
        limit = start;
    n = e->backend->turn(e, limit == SPOKE_FOREVER ? SPOKE_FOREVER
                            : limit > start        ? limit - start
                                                   : 0);
    atomic_store_explicit(&e->sleeping, false, memory_order_relaxed);
    e->ticking = false;
    slept = limit > start;
    any = spk_run_tasks(e);
    spk_engine_flush(e);
    end = spk_engine_now(e);
    if (slept && (n > 0 || work_waits(e))) /* another thread's post counts as an arrival too */
        spk_credit(e, end - start, true);
    if (n == SPOKE_EDEADLK)
        e->stuck = true;
    return any || n > 0;
}

bool
spk_engine_turn(struct spk_engine *e, spoke_ns deadline)
{
    bool any;

    e->turning++;
    any = turn(e, deadline);
    e->turning--;
    return any;
}

void
spk_engine_rest(struct spk_engine *e)
{
    spk_engine_flush(e);
    spk_arm_hot(e);
    poll_backend(e);
    atomic_store(&e->sleeping, true); /* somebody sleeps for us: who posts must poke */
    if (atomic_load(&e->has_posted) || atomic_load(&e->stop) || work_waits(e) ||
        e->hot_count > 0) /* what came of that, or meanwhile */
        e->backend->poke(e);
}
