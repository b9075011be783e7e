/* SPDX-License-Identifier: MIT */
/* Waiting for the first of several things.  A caller looks at its cases, one after the other from a
 * random one on; if none is ready it puts each into the list of what it is about, and sleeps as any
 * call does.  Who changes something looks whether that makes a case ready (spk_select_tell()) and
 * wakes only then.  Whoever is woken starts anew with the handles, as anything may have happened
 * meanwhile.
 *
 * Descriptors of the user's are looked at by poll().  While a caller waits, an epoll set of its own
 * holds them all, so that the backends, which know each descriptor by its number, never meet them:
 * the same one may be selected on several times, and be closed by its owner at any time. */
#include "runtime/engine/select.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "runtime/engine/backend.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/handle.h"
#include "runtime/memory/pool.h"

#define CASES_INLINE 16
#define TURN_EVERY   64 /* on an owned engine, calls that find something ready between two turns */

/* One case of a call that waits. */
struct waiting {
    struct spk_link link; /* in the object's list */
    const struct spk_selectable *kind;
    void *object;
    struct selector *selector;
};

struct selector {
    struct spk_engine *e;
    const spoke_select_case *cases;
    struct waiting *waiting; /* one for each case */
    size_t count, which;
    bool has_fds;
    bool told;               /* something has changed since it has looked */
    spoke_ns until;          /* what it has looked at becomes ready by itself then */
    struct spk_link waiters; /* itself */
    struct spk_op fds_op;    /* the set of descriptors is readable */
    int fds;
};

static const struct {
    enum spk_handle_kind handle;
    const struct spk_selectable *kind;
} table[] = {
#define SELECTABLE(What, Kind, name)                                                               \
    [SPOKE_SELECT_##What] = {SPK_HANDLE_##Kind, &spk_select_##name},
#include "runtime/engine/selectable.def"
#undef SELECTABLE
};
#define TABLE_SIZE (sizeof table / sizeof *table)

static bool
has_handle(const spoke_select_case *c)
{
    return (size_t)c->what < TABLE_SIZE && table[c->what].kind != NULL;
}

static bool
is_fd(const spoke_select_case *c)
{
    return c->what == SPOKE_SELECT_FD_READ || c->what == SPOKE_SELECT_FD_WRITE;
}

/* ---- being told ---- */

static void
wake(struct selector *s)
{
    s->told = true;
    spk_engine_wake_all(s->e, &s->waiters);
}

void
spk_select_tell_some(struct spk_link *selects)
{
    SPK_LIST_EACH(link, selects)
    {
        struct waiting *w = SPK_OWNER(link, struct waiting, link);
        spoke_ns until = SPOKE_FOREVER;

        if (!w->selector->told && w->kind->ready(w->object, &until))
            wake(w->selector);
    }
}

void
spk_select_wake(struct spk_link *selects)
{
    struct spk_link *link;

    while ((link = spk_list_take(selects)) != NULL)
        wake(SPK_OWNER(link, struct waiting, link)->selector);
}

/* ---- looking ---- */

/* From handles to objects.  They are good until the engine is left. */
static int
find_objects(struct selector *s)
{
    for (size_t i = 0; i < s->count; i++) {
        const spoke_select_case *c = &s->cases[i];
        int rc;

        if (!has_handle(c))
            continue;
        rc = spk_handle_join(c->of.handle, table[c->what].handle, s->e, &s->waiting[i].object);
        if (rc != 0) {
            s->which = i;
            return rc;
        }
    }
    return 0;
}

static int
look_at_fd(const spoke_select_case *c)
{
    struct pollfd fd = {.fd = c->of.fd,
                        .events = c->what == SPOKE_SELECT_FD_READ ? POLLIN : POLLOUT};

    if (fd.fd < 0)
        return SPOKE_EBADF;
    if (poll(&fd, 1, 0) <= 0)
        return SPOKE_EAGAIN;
    return (fd.revents & POLLNVAL) != 0 ? SPOKE_EBADF : 0;
}

static int
look_at_time(struct selector *s, spoke_ns when)
{
    if (when == SPOKE_FOREVER)
        return SPOKE_EAGAIN;
    if (when < s->until)
        s->until = when;
    return spk_engine_now(s->e) >= when ? 0 : SPOKE_EAGAIN;
}

/* 0: it is ready; SPOKE_EAGAIN; or what is wrong with it. */
static int
look_at(struct selector *s, size_t i)
{
    const spoke_select_case *c = &s->cases[i];
    struct waiting *w = &s->waiting[i];

    if (c->what == SPOKE_SELECT_NONE)
        return SPOKE_EAGAIN;
    if (c->what == SPOKE_SELECT_TIME)
        return look_at_time(s, c->of.when);
    if (is_fd(c))
        return look_at_fd(c);
    if (w->kind->ready(w->object, &s->until))
        return 0;
    if (w->kind->look == NULL)
        return SPOKE_EAGAIN;
    w->kind->look(w->object);
    return w->kind->ready(w->object, &s->until) ? 0 : SPOKE_EAGAIN;
}

/* A random start, and not one that moves on: of two calls in turn each could get the same one
 * again and again. */
static int
look(struct selector *s)
{
    size_t start;
    int rc = find_objects(s);

    s->until = SPOKE_FOREVER;
    if (rc != 0 || s->count == 0)
        return rc != 0 ? rc : SPOKE_EAGAIN;
    start = (size_t)(spk_engine_random(s->e) >> 16) % s->count;
    for (size_t n = 0; n < s->count; n++) {
        size_t i = (start + n) % s->count;

        if ((rc = look_at(s, i)) != SPOKE_EAGAIN) {
            s->which = i;
            return rc;
        }
    }
    return SPOKE_EAGAIN;
}

/* ---- waiting ---- */

static void
on_fds(struct spk_op *op, int result)
{
    (void)result; /* the next look will say what it was */
    wake(SPK_OWNER(op, struct selector, fds_op));
}

/* All that is asked of one descriptor. */
static uint32_t
events_of(const struct selector *s, int fd)
{
    uint32_t events = 0;

    for (size_t i = 0; i < s->count; i++) {
        if (is_fd(&s->cases[i]) && s->cases[i].of.fd == fd)
            events |= s->cases[i].what == SPOKE_SELECT_FD_READ ? EPOLLIN : EPOLLOUT;
    }
    return events;
}

static int
add_fds(struct selector *s)
{
    for (size_t i = 0; i < s->count; i++) {
        struct epoll_event event = {0};

        if (!is_fd(&s->cases[i]))
            continue;
        event.events = events_of(s, s->cases[i].of.fd);
        if (epoll_ctl(s->fds, EPOLL_CTL_ADD, s->cases[i].of.fd, &event) != 0 && errno != EEXIST) {
            s->which = i;
            return errno == EBADF ? SPOKE_EBADF : spk_error_from_errno(errno);
        }
    }
    return 0;
}

static int
watch_fds(struct selector *s)
{
    int rc;

    if ((s->fds = epoll_create1(EPOLL_CLOEXEC)) < 0)
        return spk_error_from_errno(errno);
    if ((rc = add_fds(s)) != 0) {
        close(s->fds);
        return rc;
    }
    spk_op_readable(s->e, &s->fds_op, s->fds);
    return 0;
}

static void
unwatch_fds(struct selector *s)
{
    spk_op_cancel(s->e, &s->fds_op);
    while (spk_op_busy(&s->fds_op))
        (void)spk_engine_wait(s->e, &s->waiters, SPOKE_FOREVER, SPOKE_WAIT_BLOCK);
    s->e->backend->close_handle(s->e, s->fds);
}

/* Until something has changed, or it is time to look.  0: look. */
static int
wait_for_any(struct selector *s, spoke_ns deadline)
{
    int rc = 0;

    if (!spk_engine_may_wait(s->e))
        return SPOKE_EDEADLK;
    if (s->has_fds && (rc = watch_fds(s)) != 0)
        return rc;
    s->told = false;
    for (size_t i = 0; i < s->count; i++) {
        struct waiting *w = &s->waiting[i];

        if (w->kind == NULL)
            continue;
        spk_list_append(w->kind->selects(w->object), &w->link);
        if (w->kind->arm != NULL)
            w->kind->arm(w->object);
    }
    if (!s->told)
        rc = spk_engine_wait(s->e, &s->waiters, deadline < s->until ? deadline : s->until,
                             s->e->busy_poll_ns);
    for (size_t i = 0; i < s->count; i++)
        spk_list_remove(&s->waiting[i].link);
    if (s->has_fds)
        unwatch_fds(s);
    return rc == SPOKE_ETIMEDOUT ? 0 : rc;
}

/* May this call turn an owned engine?  Else somebody does who called us. */
static bool
may_turn(const struct spk_engine *e)
{
    return !e->shared && e->in_callback == 0 && e->turning == 0;
}

/* Who always finds something would never drive the engine, and keep all that goes through it from
 * becoming ready. */
static void
turn_sometimes(struct spk_engine *e)
{
    if (may_turn(e) && ++e->selects >= TURN_EVERY) {
        e->selects = 0;
        spk_engine_turn(e, 0);
    }
}

static int
look_once_more(struct selector *s)
{
    if (may_turn(s->e))
        spk_engine_turn(s->e, 0);
    else if (!spk_engine_look(s->e))
        return SPOKE_EAGAIN;
    return look(s);
}

static int
select_any(struct selector *s, spoke_ns deadline)
{
    int rc;

    turn_sometimes(s->e);
    while ((rc = look(s)) == SPOKE_EAGAIN) {
        if (deadline == SPOKE_NOW)
            return look_once_more(s);
        if (deadline != SPOKE_FOREVER && spk_engine_now(s->e) >= deadline)
            return SPOKE_ETIMEDOUT;
        if ((rc = wait_for_any(s, deadline)) != 0)
            return rc;
    }
    return rc;
}

/* ---- the call ---- */

static int
check_case(const spoke_select_case *c)
{
    if (c->what == SPOKE_SELECT_TIME)
        return c->of.when >= 0 ? 0 : SPOKE_EINVAL;
    return has_handle(c) || is_fd(c) || c->what == SPOKE_SELECT_NONE ? 0 : SPOKE_EINVAL;
}

static int
check_cases(struct selector *s)
{
    for (size_t i = 0; i < s->count; i++) {
        int rc = check_case(&s->cases[i]);

        if (rc != 0) {
            s->which = i;
            return rc;
        }
        s->has_fds |= is_fd(&s->cases[i]);
    }
    return 0;
}

/* Enter the engine that is named, or that of the first handle, or the shared one. */
static int
enter(struct selector *s, spoke_engine *engine)
{
    void *object;
    int rc;

    if (engine != NULL)
        return spk_handle_enter(engine, SPK_HANDLE_ENGINE, &object, &s->e);
    for (size_t i = 0; i < s->count; i++) {
        const spoke_select_case *c = &s->cases[i];

        if (!has_handle(c))
            continue;
        rc = spk_handle_enter(c->of.handle, table[c->what].handle, &object, &s->e);
        if (rc != 0)
            s->which = i;
        return rc;
    }
    rc = spk_engine_default(&s->e);
    return rc != 0 ? rc : spk_engine_enter(s->e);
}

static int
check_fds(struct selector *s)
{
    if (!s->has_fds || !s->e->backend->is_virtual)
        return 0;
    for (s->which = 0; !is_fd(&s->cases[s->which]); s->which++) {
    }
    return SPOKE_ENOTSUP;
}

static void
init_waiting(struct selector *s)
{
    for (size_t i = 0; i < s->count; i++) {
        s->waiting[i] = (struct waiting){.selector = s};
        if (has_handle(&s->cases[i]))
            s->waiting[i].kind = table[s->cases[i].what].kind;
        spk_list_init(&s->waiting[i].link);
    }
}

int
spoke_select(const spoke_select_case *cases, size_t count, size_t *which, spoke_engine *engine,
             spoke_ns deadline)
{
    struct waiting few[CASES_INLINE];
    struct selector s = {.cases = cases, .count = count, .which = count, .waiting = few};
    int rc;

    if (which == NULL)
        return SPOKE_EINVAL;
    *which = count;
    if (deadline < 0 || (cases == NULL && count > 0))
        return SPOKE_EINVAL;
    if (count > SPOKE_SELECT_MAX)
        return SPOKE_ERANGE;
    if (count > CASES_INLINE && (s.waiting = spk_zalloc(count * sizeof *s.waiting)) == NULL)
        return SPOKE_ENOMEM;
    init_waiting(&s);
    spk_list_init(&s.waiters);
    spk_op_init(&s.fds_op, on_fds);
    if ((rc = check_cases(&s)) == 0 && (rc = enter(&s, engine)) == 0) {
        if ((rc = check_fds(&s)) == 0)
            rc = select_any(&s, deadline);
        spk_engine_leave(s.e);
    }
    *which = s.which;
    if (s.waiting != few)
        spk_free(s.waiting);
    return rc;
}
