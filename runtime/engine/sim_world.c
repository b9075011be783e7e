/* SPDX-License-Identifier: MIT */
/* A simulated world: its time, its chance, what happens next, and the public calls.  sim_world.h
 * has the picture. */
#include "runtime/engine/sim_world.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/memory/pool.h"

#define MAGIC          0x73706f6b6553696dull
#define BUFFER_DEFAULT (64u * 1024)
#define LATENCY_MOST   (3600 * SPOKE_SECOND)
#define DELAY_MOST     100 /* times latency_max_ns */

/* Two machines that cannot reach each other. */
struct sim_cut {
    struct sim_cut *next;
    const struct sim_node *a, *b;
};

/* ---- chance ---- */

static uint64_t
scramble(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static uint64_t
draw(uint64_t *state)
{
    return scramble(*state += 0x9e3779b97f4a7c15ull);
}

uint64_t
spk_sim_below(struct spoke_sim *w, uint64_t bound)
{
    return draw(&w->random) % bound;
}

/* What never happens costs no draw. */
bool
spk_sim_chance(struct spoke_sim *w, uint32_t per_1000)
{
    return per_1000 > 0 && spk_sim_below(w, 1000) < per_1000;
}

spoke_ns
spk_sim_latency(struct spoke_sim *w)
{
    uint64_t most = (uint64_t)w->config.latency_max_ns, least = (uint64_t)w->config.latency_min_ns;

    if (spk_sim_chance(w, w->config.delay)) {
        w->report.faults.delay++;
        return (spoke_ns)(most + spk_sim_below(w, most * (DELAY_MOST - 1) + 1));
    }
    return (spoke_ns)(least + spk_sim_below(w, most - least + 1));
}

/* The allocator asks.  Its answers come from a sequence of their own: they move nothing else. */
static bool
memory_fails(void *ctx)
{
    struct spoke_sim *w = ctx;

    if (w->quiet || !pthread_equal(w->owner, pthread_self()) ||
        draw(&w->memory_random) % 1000 >= w->config.enomem)
        return false;
    w->report.faults.enomem++;
    return true;
}

void
spk_sim_note(struct spoke_sim *w, enum sim_what what, int64_t who, int64_t how_much)
{
    uint64_t x = w->digest;

    x = scramble(x ^ ((uint64_t)what + 0x9e3779b97f4a7c15ull));
    x = scramble(x ^ (uint64_t)w->now);
    x = scramble(x ^ (uint64_t)who);
    w->digest = scramble(x ^ (uint64_t)how_much);
    w->report.events++;
}

/* ---- events: a heap, the earliest first ---- */

static bool
earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->when != b->when ? a->when < b->when : a->order < b->order;
}

static void
place(struct spoke_sim *w, struct sim_event *event, uint32_t index)
{
    w->heap[index] = event;
    event->index = index;
}

static void
sift_up(struct spoke_sim *w, struct sim_event *event, uint32_t index)
{
    while (index > 0 && earlier(event, w->heap[(index - 1) / 2])) {
        place(w, w->heap[(index - 1) / 2], index);
        index = (index - 1) / 2;
    }
    place(w, event, index);
}

static void
sift_down(struct spoke_sim *w, struct sim_event *event, uint32_t index)
{
    for (;;) {
        uint32_t child = 2 * index + 1;

        if (child + 1 < w->heap_count && earlier(w->heap[child + 1], w->heap[child]))
            child++;
        if (child >= w->heap_count || !earlier(w->heap[child], event))
            break;
        place(w, w->heap[child], index);
        index = child;
    }
    place(w, event, index);
}

bool
spk_sim_reserve_events(struct spoke_sim *w, int count)
{
    uint32_t wanted = w->events_wanted + (uint32_t)count;
    struct sim_event **heap;

    if (wanted > w->heap_room) {
        if ((heap = realloc(w->heap, (size_t)wanted * 2 * sizeof(struct sim_event *))) == NULL)
            return false;
        w->heap = heap;
        w->heap_room = wanted * 2;
    }
    w->events_wanted = wanted;
    return true;
}

void
spk_sim_event_clear(struct spoke_sim *w, struct sim_event *event)
{
    uint32_t index = event->index;
    struct sim_event *last;

    event->parked = false;
    if (index == SIM_NOT_SET)
        return;
    event->index = SIM_NOT_SET;
    last = w->heap[--w->heap_count];
    if (last == event)
        return;
    if (index > 0 && earlier(last, w->heap[(index - 1) / 2]))
        sift_up(w, last, index);
    else
        sift_down(w, last, index);
}

void
spk_sim_event_set(struct spoke_sim *w, struct sim_event *event, spoke_ns when)
{
    spk_sim_event_clear(w, event);
    event->when = when;
    event->order = draw(&w->random);
    sift_up(w, event, w->heap_count++);
}

/* ---- what happens next ---- */

bool
spk_sim_is_cut(const struct spoke_sim *w, const struct sim_node *a, const struct sim_node *b)
{
    for (const struct sim_cut *cut = w->cuts; cut != NULL; cut = cut->next)
        if ((cut->a == a && cut->b == b) || (cut->a == b && cut->b == a))
            return true;
    return false;
}

/* Its loop is not on the stack already. */
static bool
is_free(const struct sim_node *node)
{
    return node->engine != NULL && !node->nested && node->turning == 0 &&
           node->engine->in_callback == 0 && !node->engine->closing;
}

static bool
has_work(const struct sim_node *node)
{
    const struct spk_engine *e = node->engine;

    if (!is_free(node))
        return false;
    return (!node->held && !spk_list_empty(&node->ready)) || !spk_list_empty(&node->strays) ||
           !spk_list_empty(&e->tasks) || !spk_list_empty(&e->callbacks) ||
           !spk_list_empty(&e->queued) || !spk_list_empty(&e->flushes) || e->hot_count > 0 ||
           atomic_load(&e->has_posted) || spk_timers_next(&e->timers) <= node->world->now;
}

static bool
event_is_due(const struct spoke_sim *w)
{
    return w->heap_count > 0 && w->heap[0]->when <= w->now;
}

static void
run_node(struct spoke_sim *w, struct sim_node *node)
{
    spk_sim_note(w, SIM_DID_TURN, node->number, 0);
    node->nested = true;
    spk_engine_turn(node->engine,
                    w->now > 0 ? w->now : 1); /* 0 would mean a turn that arms nothing */
    node->nested = false;
}

/* One of the `count` things that can happen now: the earliest event, if it is due, or the turn of a
 * machine. */
static enum sim_step
happen(struct spoke_sim *w, uint64_t count)
{
    uint64_t chosen = count > 1 ? spk_sim_below(w, count) : 0;

    if (event_is_due(w) && chosen-- == 0) {
        struct sim_event *event = w->heap[0];

        spk_sim_event_clear(w, event);
        event->fire(event);
        return SIM_HAPPENED;
    }
    SPK_LIST_EACH(link, &w->nodes)
    {
        struct sim_node *node = SPK_OWNER(link, struct sim_node, link);

        if (has_work(node) && chosen-- == 0) {
            run_node(w, node);
            return SIM_RAN_OTHER;
        }
    }
    return SIM_HAPPENED;
}

static uint64_t
count_choices(const struct spoke_sim *w)
{
    uint64_t count = event_is_due(w) ? 1 : 0;

    SPK_LIST_EACH(link, &w->nodes)
    {
        struct sim_node *node = SPK_OWNER(link, struct sim_node, link);

        count += has_work(node) ? 1 : 0;
    }
    return count;
}

static spoke_ns
next_time(const struct spoke_sim *w)
{
    spoke_ns next = w->heap_count > 0 ? w->heap[0]->when : SPOKE_FOREVER;

    SPK_LIST_EACH(link, &w->nodes)
    {
        struct sim_node *node = SPK_OWNER(link, struct sim_node, link);

        if (is_free(node) && spk_timers_next(&node->engine->timers) < next)
            next = spk_timers_next(&node->engine->timers);
    }
    return next;
}

enum sim_step
spk_sim_step(struct spoke_sim *w, spoke_ns limit)
{
    enum sim_step step;
    uint64_t count;

    while ((count = count_choices(w)) == 0) {
        spoke_ns next = next_time(w);

        if (next == SPOKE_FOREVER)
            return SIM_NOTHING;
        if (next > limit) {
            w->now = limit > w->now ? limit : w->now;
            return SIM_LIMIT;
        }
        w->now = next;
        spk_sim_note(w, SIM_DID_TIME, 0, 0);
    }
    w->stepping++;
    step = happen(w, count);
    w->stepping--;
    return step;
}

/* ---- public calls ---- */

static int
check(const struct spoke_sim *w)
{
    if (w == NULL || w->magic != MAGIC)
        return SPOKE_EINVAL;
    return pthread_equal(w->owner, pthread_self()) ? 0 : SPOKE_EWRONGTHREAD;
}

void
spoke_sim_config_init(spoke_sim_config *config)
{
    memset(config, 0, sizeof *config);
    config->seed = 1;
    config->latency_min_ns = 1 * SPOKE_US;
    config->latency_max_ns = 50 * SPOKE_US;
}

static bool
is_sound(const spoke_sim_config *c)
{
    const uint32_t chances[] = {c->short_read, c->short_write, c->reset,  c->refuse,
                                c->delay,      c->enobufs,     c->emfile, c->enomem,
                                c->overflow,   c->cancel_race};

    for (size_t i = 0; i < sizeof chances / sizeof chances[0]; i++)
        if (chances[i] > 1000)
            return false;
    return c->latency_min_ns >= 0 && c->latency_min_ns <= c->latency_max_ns &&
           c->latency_max_ns <= LATENCY_MOST;
}

/* The allocator knows one world at a time: the last one that lets memory fail. */
static void
use_config(struct spoke_sim *w, const spoke_sim_config *config)
{
    bool before = w->config.enomem > 0;

    w->config = *config;
    if (w->config.buffer_bytes == 0)
        w->config.buffer_bytes = BUFFER_DEFAULT;
    if (w->config.enomem > 0)
        spk_memory_set_fault(memory_fails, w);
    else if (before)
        spk_memory_set_fault(NULL, NULL);
}

int
spoke_sim_open(spoke_sim **out, const spoke_sim_config *config)
{
    spoke_sim_config defaults;
    struct spoke_sim *w;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (config == NULL) {
        spoke_sim_config_init(&defaults);
        config = &defaults;
    }
    if (!is_sound(config))
        return SPOKE_EINVAL;
    if ((w = calloc(1, sizeof *w)) == NULL)
        return SPOKE_ENOMEM;
    w->magic = MAGIC;
    w->owner = pthread_self();
    w->random = scramble(config->seed);
    w->memory_random = scramble(config->seed + 1);
    w->next_number = 1000;
    w->next_port = 32768;
    spk_list_init(&w->nodes);
    spk_list_init(&w->handles);
    use_config(w, config);
    *out = w;
    return 0;
}

static void
release_node(struct sim_event *event)
{
    SPK_OWNER(event, struct sim_node, release)->held = false;
}

static struct sim_node *
new_node(struct spoke_sim *w)
{
    struct sim_node *node = calloc(1, sizeof *node);

    if (node == NULL)
        return NULL;
    if (!spk_sim_reserve_events(w, 1)) {
        free(node);
        return NULL;
    }
    node->world = w;
    node->number = ++w->node_count;
    node->release.index = SIM_NOT_SET;
    node->release.fire = release_node;
    spk_list_init(&node->waiting);
    spk_list_init(&node->ready);
    spk_list_init(&node->strays);
    spk_list_append(&w->nodes, &node->link);
    return node;
}

/* An engine is built with what memory there is: whether it is a new one or a used one must not
 * show. */
int
spoke_sim_engine(spoke_sim *w, spoke_engine **out)
{
    spoke_engine_config config = {.busy_poll_ns = SPOKE_WAIT_BLOCK};
    struct spk_engine *e;
    struct sim_node *node;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if ((rc = check(w)) != 0)
        return rc;
    if ((node = new_node(w)) == NULL)
        return SPOKE_ENOMEM;
    w->quiet = true;
    rc = spk_engine_open_with(&e, &spk_backend_sim, node, &config);
    w->quiet = false;
    if (rc == 0)
        *out = e->handle;
    return rc;
}

int
spoke_sim_step(spoke_sim *w)
{
    int rc = check(w);

    return rc != 0 ? rc : spk_sim_step(w, SPOKE_FOREVER) != SIM_NOTHING;
}

int
spoke_sim_run(spoke_sim *w, spoke_sim_done_f *done, void *ctx, spoke_ns limit_ns)
{
    int rc = check(w);
    spoke_ns limit;

    if (rc != 0)
        return rc;
    if (limit_ns < 0)
        return SPOKE_EINVAL;
    limit = spk_later(w->now, limit_ns);
    while (done == NULL || !done(ctx)) {
        enum sim_step step = spk_sim_step(w, limit);

        if (step == SIM_NOTHING && limit != SPOKE_FOREVER)
            w->now = limit; /* it passes all the same */
        if (step == SIM_LIMIT || step == SIM_NOTHING)
            return 0;
    }
    return 1;
}

spoke_ns
spoke_sim_now(const spoke_sim *w)
{
    return w->now;
}

void
spoke_sim_set_faults(spoke_sim *w, const spoke_sim_config *config)
{
    spoke_sim_config faults;

    if (check(w) != 0 || config == NULL || !is_sound(config))
        return;
    faults = *config;
    faults.seed = w->config.seed;
    use_config(w, &faults);
}

static struct sim_node *
find_node(struct spoke_sim *w, const spoke_engine *e)
{
    SPK_LIST_EACH(link, &w->nodes)
    {
        struct sim_node *node = SPK_OWNER(link, struct sim_node, link);

        if (node->engine != NULL && node->engine->handle == e)
            return node;
    }
    return NULL;
}

int
spoke_sim_kill(spoke_sim *w, spoke_engine *e)
{
    struct sim_node *node;
    int rc = check(w);

    if (rc != 0)
        return rc;
    if ((node = find_node(w, e)) == NULL)
        return SPOKE_ECLOSED;
    if (!is_free(node))
        return SPOKE_EDEADLK;
    spk_sim_note(w, SIM_DID_KILL, node->number, 0);
    w->report.faults.killed++;
    node->killed = true;
    SPK_LIST_EACH(link, &w->handles)
    {
        struct sim_handle *h = SPK_OWNER(link, struct sim_handle, link);

        if (h->node == node)
            spk_sim_die(h);
    }
    spk_sim_abort_ops(node);
    return spoke_engine_close(e);
}

/* Mend what is cut between `a` and `b`; NULL stands for anybody. */
static void
mend(struct spoke_sim *w, const struct sim_node *a, const struct sim_node *b)
{
    struct sim_cut **at = &w->cuts;

    while (*at != NULL) {
        struct sim_cut *cut = *at;

        if ((cut->a == a && (b == NULL || cut->b == b)) ||
            (cut->b == a && (b == NULL || cut->a == b))) {
            *at = cut->next;
            free(cut);
        } else {
            at = &cut->next;
        }
    }
    spk_sim_unpark(w);
}

void
spk_sim_mend_all(struct sim_node *node)
{
    mend(node->world, node, NULL);
}

int
spoke_sim_cut(spoke_sim *w, spoke_engine *a, spoke_engine *b, bool cut)
{
    struct sim_node *one, *other;
    struct sim_cut *new_cut;
    int rc = check(w);

    if (rc != 0)
        return rc;
    if ((one = find_node(w, a)) == NULL || (other = find_node(w, b)) == NULL)
        return SPOKE_ECLOSED;
    if (one == other)
        return SPOKE_EINVAL;
    spk_sim_note(w, SIM_DID_CUT, (int64_t)one->number << 32 | other->number, cut);
    if (!cut) {
        mend(w, one, other);
        return 0;
    }
    if (spk_sim_is_cut(w, one, other))
        return 0;
    if ((new_cut = malloc(sizeof *new_cut)) == NULL)
        return SPOKE_ENOMEM;
    w->report.faults.cut++;
    *new_cut = (struct sim_cut){w->cuts, one, other};
    w->cuts = new_cut;
    return 0;
}

uint64_t
spoke_sim_digest(const spoke_sim *w)
{
    return w->digest;
}

static void
free_world(struct spoke_sim *w)
{
    for (struct spk_link *link = w->nodes.next, *next; link != &w->nodes; link = next) {
        next = link->next;
        free(SPK_OWNER(link, struct sim_node, link));
    }
    while (w->cuts != NULL) {
        struct sim_cut *cut = w->cuts;

        w->cuts = cut->next;
        free(cut);
    }
    free(w->numbered);
    free(w->heap);
    w->magic = 0;
    free(w);
}

int
spoke_sim_close(spoke_sim *w, struct spoke_sim_report *report)
{
    struct spoke_sim_report found;
    int rc = check(w);

    if (rc != 0)
        return rc;
    if (w->stepping > 0)
        return SPOKE_EDEADLK;
    SPK_LIST_EACH(link, &w->nodes)
    {
        struct sim_node *node = SPK_OWNER(link, struct sim_node, link);

        if (node->engine != NULL && !is_free(node))
            return SPOKE_EDEADLK;
    }
    SPK_LIST_EACH(link, &w->nodes)
    {
        struct sim_node *node = SPK_OWNER(link, struct sim_node, link);

        if (node->engine != NULL)
            spoke_engine_close(node->engine->handle);
    }
    if (w->config.enomem > 0)
        spk_memory_set_fault(NULL, NULL);
    found = w->report;
    free_world(w);
    if (report != NULL)
        *report = found;
    return found.ops_left + found.handles_left + found.double_completions > 0 ? SPOKE_EBUSY : 0;
}
