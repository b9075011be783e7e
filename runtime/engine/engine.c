/* SPDX-License-Identifier: MIT */
/* The life of engines: owned ones, the library's shared one, and what the public calls on them do.
 *
 * Memory of an engine is never given back to the allocator but kept for the next one, so that a
 * thread that holds a stale handle can still look at it safely (handle.h). */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "runtime/engine/backend.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/handle.h"
#include "runtime/engine/log.h"
#include "runtime/memory/pool.h"

/* ---- memory ---- */

static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;
SPK_FREE_AFTER_FORK(spare_lock)
static struct spk_link spare = {&spare, &spare}; /* engines' `sockets` links */

static struct spk_engine *
new_engine(void)
{
    struct spk_engine *e;
    struct spk_link *link;

    pthread_mutex_lock(&spare_lock);
    link = spk_list_take(&spare);
    pthread_mutex_unlock(&spare_lock);
    if (link == NULL) {
        if ((e = spk_zalloc(sizeof *e)) == NULL)
            return NULL;
        pthread_mutex_init(&e->post_lock, NULL);
        return e;
    }
    e = SPK_OWNER(link, struct spk_engine, sockets);
    if (!spk_engine_is_ours(e)) { /* a thread of the parent's may have had it at the fork */
        pthread_mutex_init(&e->post_lock, NULL);
        atomic_store(&e->pokers, 0);
    }
    return e;
}

static void
keep_engine(struct spk_engine *e)
{
    pthread_mutex_lock(&spare_lock);
    spk_list_append(&spare, &e->sockets);
    pthread_mutex_unlock(&spare_lock);
}

/* ---- open and close ---- */

static spoke_ns
wait_from_environment(void)
{
    const char *wait = getenv("SPOKE_WAIT");
    long long ns;
    char *end;

    if (wait == NULL || *wait == '\0' || strcmp(wait, "adaptive") == 0)
        return SPOKE_WAIT_ADAPTIVE;
    if (strcmp(wait, "block") == 0)
        return SPOKE_WAIT_BLOCK;
    if (strcmp(wait, "poll") == 0)
        return SPOKE_WAIT_POLL;
    ns = strtoll(wait, &end, 10);
    if (*end == '\0' && ns >= 0)
        return ns;
    spk_log(SPOKE_LOG_WARNING,
            "SPOKE_WAIT is \"%s\": use block, poll, adaptive or nanoseconds; taking adaptive",
            wait);
    return SPOKE_WAIT_ADAPTIVE;
}

static uint32_t
mask_from_environment(void)
{
    const char *mask = getenv("SPOKE_MASK_FEATURES");

    return mask == NULL ? 0 : (uint32_t)strtoul(mask, NULL, 0);
}

void
spoke_engine_config_init(spoke_engine_config *config)
{
    memset(config, 0, sizeof *config);
    config->busy_poll_ns = wait_from_environment();
    config->mask_features = mask_from_environment();
}

static int
usable_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 2;
}

static atomic_ullong opened; /* engines ever */

static void
init_engine(struct spk_engine *e, const spoke_engine_config *config, bool shared)
{
    pthread_mutexattr_t attributes;

    e->handle = NULL;
    e->shared = shared;
    pthread_mutex_lock(&e->post_lock);
    e->number = atomic_fetch_add(&opened, 1) + 1;
    pthread_mutex_unlock(&e->post_lock);
    e->closing = e->closed = e->poke = e->asleep = e->stuck = e->spinning = false;
    e->poller = NULL;
    e->poller_kicked = false;
    e->poller_fd = -1;
    e->polls = e->sleepers = e->poller_debt = 0;
    e->in_callback = e->turning = 0;
    e->stoppable = false;
    e->fork_generation = atomic_load(&spk_fork_generation);
    e->owner = pthread_self();
    if (shared) {
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
        pthread_mutex_init(&e->lock, &attributes);
        pthread_mutexattr_destroy(&attributes);
    }
    e->called = NULL;
    spk_list_init(&e->call_waiters);
    spk_list_init(&e->queued);
    spk_list_init(&e->hot);
    spk_list_init(&e->tasks);
    spk_list_init(&e->callbacks);
    spk_list_init(&e->flushes);
    spk_list_init(&e->afters);
    spk_list_init(&e->partings);
    spk_list_init(&e->sockets);
    spk_list_init(&e->posted);
    spk_list_init(&e->waiters);
    memset(&e->timers, 0, sizeof e->timers);
    memset(&e->afters_by_id, 0, sizeof e->afters_by_id);
    e->hot_count = e->hot_changes = 0;
    e->ops_in_flight = 0;
    e->scratch = NULL;
    e->scratch_used = 0;
    e->config = *config;
    e->busy_poll_ns = config->busy_poll_ns;
    if (e->busy_poll_ns == SPOKE_WAIT_ADAPTIVE && usable_cpus() == 1)
        e->busy_poll_ns = SPOKE_WAIT_BLOCK; /* who spins keeps the other one from running */
    e->wait_ns = e->busy_poll_ns;
    e->spin_credit = e->spin_debt = e->cork = 0;
    e->tries_per_yield = 4; /* see spk_yielded() */
    e->tries = 0;
    e->burst = 1;
    e->written = e->written_before = 0;
    e->stream_turns = 0;
    e->ticking = false;
    if (getrandom(&e->random, sizeof e->random, GRND_NONBLOCK) < 0)
        e->random = (uint64_t)spk_posix_now(NULL);
    atomic_store(&e->sleeping, false);
    atomic_store(&e->wanted, 0);
    atomic_store(&e->gives_way, 0);
    atomic_store(&e->errands, NULL);
    e->lease_until_ns = e->sleep_until_ns = 0;
    e->foreign_fd = e->timer_fd = -1;
    atomic_store(&e->stop, false);
    atomic_store(&e->has_posted, false);
    memset(&e->info, 0, sizeof e->info);
}

/* uring if it works here, else poll: with the reason, once per process in the log. */
static int
open_backend(struct spk_engine *e, const char *wanted)
{
    static atomic_bool said;
    int rc;

    if (wanted == NULL || *wanted == '\0')
        wanted = getenv("SPOKE_BACKEND");
    if (wanted != NULL && *wanted != '\0') {
        if (strcmp(wanted, "uring") == 0)
            e->backend = &spk_backend_uring;
        else if (strcmp(wanted, "poll") == 0)
            e->backend = &spk_backend_poll;
        else
            return SPOKE_ENOTSUP;
        e->info.why_not_uring = e->backend == &spk_backend_poll ? "the poll backend was asked for"
                                                                : NULL;
        return e->backend->open(e);
    }
    e->backend = &spk_backend_uring;
    if ((rc = e->backend->open(e)) == 0)
        return 0;
    if (rc != SPOKE_EPERM && rc != SPOKE_ENOTSUP && rc != SPOKE_ENOMEM)
        return rc;
    e->info.why_not_uring =
        rc == SPOKE_EPERM
            ? "io_uring is denied here (seccomp profile or sysctl kernel.io_uring_disabled)"
        : rc == SPOKE_ENOMEM ? "io_uring may not lock enough memory (raise RLIMIT_MEMLOCK)"
                             : "there is no usable io_uring (an old kernel, or a seccomp profile)";
    if (!atomic_exchange(&said, true))
        spk_log(SPOKE_LOG_WARNING,
                "%s: running on epoll with the same semantics; spoke doctor tells more",
                e->info.why_not_uring);
    e->backend = &spk_backend_poll;
    return e->backend->open(e);
}

int
spk_engine_open_with(struct spk_engine **out, const struct spk_backend *backend, void *argument,
                     const spoke_engine_config *config)
{
    spoke_engine_config defaults;
    struct spk_engine *e;
    void *handle;
    int rc;

    *out = NULL;
    if (config == NULL) {
        spoke_engine_config_init(&defaults);
        config = &defaults;
    }
    if ((e = new_engine()) == NULL)
        return SPOKE_ENOMEM;
    init_engine(e, config, false);
    e->backend_state = argument;
    e->backend = backend;
    rc = backend != NULL ? backend->open(e) : open_backend(e, config->backend);
    if (rc != 0)
        goto keep;
    e->info.backend = e->backend->name;
    if ((rc = spk_handle_new(SPK_HANDLE_ENGINE, e, e, &handle)) != 0)
        goto close_backend;
    e->handle = handle;
    *out = e;
    return 0;
close_backend:
    e->backend->close(e);
keep:
    keep_engine(e);
    return rc;
}

static void
drop_posted(struct spk_engine *e)
{
    static const struct timespec moment = {.tv_nsec = 20 * SPOKE_US};

    pthread_mutex_lock(&e->post_lock);
    e->closed = true;
    pthread_mutex_unlock(&e->post_lock);
    while (atomic_load_explicit(&e->pokers, memory_order_acquire) > 0) /* one system call long */
        nanosleep(&moment, NULL);
    spk_engine_turn(e, 0); /* runs what is left */
}

void
spk_engine_close(struct spk_engine *e)
{
    e->closing = true;
    if (e->on_close != NULL)
        e->on_close(e);
    drop_posted(e);
    spk_afters_close(e);
    spk_handle_free(e->handle);
    while (e->ops_in_flight > 0) /* cancelled by their owners */
        spk_engine_turn(e, spk_engine_now(e) + 10 * SPOKE_MS);
    if (e->timer_fd >= 0)
        close(e->timer_fd);
    if (e->foreign_fd >= 0)
        close(e->foreign_fd);
    e->backend->close(e);
    if (e->scratch != NULL)
        spk_chunk_unref(e->scratch);
    spk_timers_fini(&e->timers);
    keep_engine(e);
}

/* ---- the shared engine ---- */

/* Held while the engine starts, which may call the user's log: so a fork does not wait for it.  The
 * child starts an engine of its own, whatever the parent's has come to. */
static pthread_mutex_t default_lock = PTHREAD_MUTEX_INITIALIZER;
static struct spk_engine *default_engine;

static void
forget_default(void)
{
    pthread_mutex_init(&default_lock, NULL);
    default_engine = NULL;
}

/* Before there is a thread that could fork meanwhile: a fork that has begun misses what is
 * registered then. */
__attribute__((constructor(101))) static void
watch_default(void)
{
    (void)pthread_atfork(NULL, NULL, forget_default);
}

struct start {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct spk_engine *e;
    int rc;
    bool done;
};

static void *
run_shared(void *argument)
{
    struct start *start = argument;
    struct spk_engine *e = start->e;
    int rc;

    pthread_setname_np(pthread_self(), "spoke-engine");
    e->owner = pthread_self();
    rc = open_backend(e, e->config.backend);
    if (rc == 0) {
        e->info.backend = e->backend->name;
        e->poller_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    pthread_mutex_lock(&start->lock);
    start->rc = rc;
    start->done = true;
    pthread_cond_signal(&start->cond);
    pthread_mutex_unlock(&start->lock);
    if (rc != 0)
        return NULL;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        spk_engine_turn(e, SPOKE_FOREVER);
        spk_engine_give_way(e);
    }
    return NULL;
}

static int
start_shared(struct spk_engine *e)
{
    struct start start = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .e = e};
    int rc = spk_thread_start(run_shared, &start);

    if (rc != 0)
        return rc;
    pthread_mutex_lock(&start.lock);
    while (!start.done)
        pthread_cond_wait(&start.cond, &start.lock);
    pthread_mutex_unlock(&start.lock);
    return start.rc;
}

int
spk_engine_default(struct spk_engine **out)
{
    spoke_engine_config config;
    struct spk_engine *e;
    int rc = 0;

    *out = NULL;
    pthread_mutex_lock(&default_lock);
    if (default_engine == NULL) {
        spoke_engine_config_init(&config);
        if ((e = new_engine()) == NULL) {
            rc = SPOKE_ENOMEM;
            goto unlock;
        }
        init_engine(e, &config, true);
        if ((rc = start_shared(e)) != 0) {
            keep_engine(e);
            goto unlock;
        }
        default_engine = e;
    }
    *out = default_engine;
unlock:
    pthread_mutex_unlock(&default_lock);
    return rc;
}

/* ---- public calls ---- */

int
spoke_engine_open(spoke_engine **out, const spoke_engine_config *config)
{
    struct spk_engine *e;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (config != NULL &&
        ((config->entries & (config->entries - 1)) != 0 || config->entries > 32768 ||
         (config->receive_chunks & (config->receive_chunks - 1)) != 0 ||
         config->receive_chunks > 32768 || config->busy_poll_ns < SPOKE_WAIT_ADAPTIVE))
        return SPOKE_EINVAL;
    if ((rc = spk_engine_open_with(&e, NULL, NULL, config)) != 0)
        return rc;
    *out = e->handle;
    return 0;
}

static int
enter(spoke_engine *handle, struct spk_engine **e)
{
    void *object;
    int rc = spk_handle_enter(handle, SPK_HANDLE_ENGINE, &object, e);

    if (rc == 0 && ((*e)->in_callback > 0 || (*e)->turning > 0)) {
        spk_engine_leave(*e);
        rc = SPOKE_EDEADLK;
    }
    return rc;
}

int
spoke_engine_close(spoke_engine *handle)
{
    struct spk_engine *e;
    int rc = enter(handle, &e);

    if (rc == 0)
        spk_engine_close(e);
    return rc;
}

/* A foreign loop learns of the next timer from a descriptor of its own. */
void
spk_engine_arm_foreign(struct spk_engine *e)
{
    struct itimerspec time = {{0, 0}, {0, 0}};
    uint64_t expired;
    spoke_ns next;

    if (e->foreign_fd < 0)
        return;
    spk_engine_rest(e);
    next = spk_timers_next(&e->timers); /* what has just ended may have set one */
    if (read(e->timer_fd, &expired, sizeof expired) < 0)
        errno = 0; /* it had not expired */
    if (next != SPOKE_FOREVER) {
        time.it_value.tv_sec = next / SPOKE_SECOND;
        time.it_value.tv_nsec = next % SPOKE_SECOND;
    }
    timerfd_settime(e->timer_fd, TFD_TIMER_ABSTIME, &time, NULL);
}

int
spoke_engine_run(spoke_engine *handle)
{
    struct spk_engine *e;
    int rc = enter(handle, &e);

    if (rc != 0)
        return rc;
    e->stoppable = true;
    while (rc == 0 && !atomic_exchange(&e->stop, false)) {
        spk_engine_turn(e, SPOKE_FOREVER);
        if (e->stuck)
            rc = SPOKE_EDEADLK;
        e->stuck = false;
    }
    e->stoppable = false;
    return rc;
}

int
spoke_engine_poll(spoke_engine *handle, spoke_ns timeout_ns)
{
    struct spk_engine *e;
    spoke_ns deadline;
    int rc;

    if (timeout_ns < 0)
        return SPOKE_EINVAL;
    if ((rc = enter(handle, &e)) != 0)
        return rc;
    deadline = spk_later(spk_engine_now(e), timeout_ns);
    e->stoppable = true;
    for (;;) {
        if (spk_engine_turn(e, timeout_ns == 0 ? 0 : deadline) || e->stuck ||
            atomic_exchange(&e->stop, false)) {
            rc = e->stuck ? SPOKE_EDEADLK : 1;
            e->stuck = false;
            break;
        }
        if (timeout_ns == 0 || spk_engine_now(e) >= deadline)
            break;
    }
    e->stoppable = false;
    spk_engine_arm_foreign(e);
    return rc;
}

/* The engine of a handle, for calls from any thread: they take no lock of its. */
static int
peek(spoke_engine *handle, struct spk_engine **e)
{
    *e = spk_handle_peek(handle, SPK_HANDLE_ENGINE);
    if (*e == NULL)
        return SPOKE_ECLOSED;
    return spk_engine_is_ours(*e) ? 0 : SPOKE_EFORKED;
}

int
spoke_engine_stop(spoke_engine *handle)
{
    struct spk_engine *e;
    int rc = peek(handle, &e);

    if (rc != 0)
        return rc;
    pthread_mutex_lock(&e->post_lock);
    atomic_store(&e->stop, true);
    if (!e->closed && atomic_exchange(&e->sleeping, false))
        e->backend->poke(e);
    pthread_mutex_unlock(&e->post_lock);
    return 0;
}

int
spoke_engine_post(spoke_engine *handle, spoke_post_f *fn, void *ctx)
{
    struct spk_engine *e;
    int rc = peek(handle, &e);

    if (rc != 0)
        return rc;
    return fn == NULL ? SPOKE_EINVAL : spk_engine_post(e, fn, ctx, true);
}

int
spoke_engine_fd(spoke_engine *handle)
{
    struct epoll_event event = {.events = EPOLLIN};
    struct spk_engine *e;
    int fd, rc = enter(handle, &e);

    if (rc != 0)
        return rc;
    if (e->foreign_fd >= 0)
        return e->foreign_fd;
    if ((fd = e->backend->fd(e)) < 0)
        return fd;
    e->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    e->foreign_fd = epoll_create1(EPOLL_CLOEXEC);
    if (e->timer_fd < 0 || e->foreign_fd < 0 ||
        epoll_ctl(e->foreign_fd, EPOLL_CTL_ADD, fd, &event) != 0 ||
        epoll_ctl(e->foreign_fd, EPOLL_CTL_ADD, e->timer_fd, &event) != 0) {
        rc = spk_error_from_errno(errno);
        if (e->timer_fd >= 0)
            close(e->timer_fd);
        if (e->foreign_fd >= 0)
            close(e->foreign_fd);
        e->timer_fd = e->foreign_fd = -1;
        return rc;
    }
    spk_engine_arm_foreign(e);
    return e->foreign_fd;
}

const char *
spoke_engine_backend(spoke_engine *handle)
{
    struct spk_engine *e = spk_handle_peek(handle, SPK_HANDLE_ENGINE);

    return e == NULL ? NULL : e->backend->name;
}

int
spoke_engine_get_info(spoke_engine *handle, struct spoke_engine_info *out)
{
    struct spk_engine *e;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if (handle != NULL) {
        if ((rc = peek(handle, &e)) != 0)
            return rc;
        *out = e->info; /* counters of one thread, read by another: a snapshot may be torn between
                           them */
        return 0;
    }
    if ((rc = spk_engine_default(&e)) != 0 || (rc = spk_engine_enter(e)) != 0)
        return rc;
    *out = e->info;
    spk_engine_leave(e);
    return 0;
}

spoke_ns
spoke_engine_now(spoke_engine *handle)
{
    struct spk_engine *e = spk_handle_peek(handle, SPK_HANDLE_ENGINE);

    return e == NULL ? spk_posix_now(NULL) : spk_engine_now(e);
}
