/* SPDX-License-Identifier: MIT */
/* Timers for users of an owned engine: spoke_engine_after() and spoke_engine_cancel().  Owner's
 * thread. */
#include "runtime/engine/engine.h"
#include "runtime/engine/handle.h"
#include "runtime/memory/idmap.h"
#include "runtime/memory/pool.h"

/* In the engine's list and map until it runs; its number is what the user holds. */
struct after {
    struct spk_timer timer;
    struct spk_task task;
    struct spk_link link;
    struct spk_engine *e;
    uint32_t id;
    spoke_post_f *fn;
    void *ctx;
};

static void
run(struct spk_task *task)
{
    struct after *a = SPK_OWNER(task, struct after, task);
    struct spk_engine *e = a->e;

    spk_list_remove(&a->link);
    spk_idmap_remove(&e->afters_by_id, a->id);
    spk_engine_call_begin(e, NULL);
    a->fn(a->ctx);
    spk_engine_call_end(e);
    spk_free(a);
}

static void
on_timer(struct spk_timer *timer)
{
    struct after *a = SPK_OWNER(timer, struct after, timer);

    spk_task_queue_callback(a->e, &a->task);
}

/* Never 0, not in use. */
static uint32_t
new_id(struct spk_engine *e)
{
    do
        e->after_ids = (e->after_ids + 1) & 0x7fffffff;
    while (e->after_ids == 0 || spk_idmap_get(&e->afters_by_id, e->after_ids) != NULL);
    return e->after_ids;
}

int
spoke_engine_after(spoke_engine *handle, spoke_ns after_ns, spoke_post_f *fn, void *ctx,
                   uint64_t *id)
{
    struct spk_engine *e;
    struct after *a;
    void *object;
    int rc;

    if (fn == NULL || after_ns < 0)
        return SPOKE_EINVAL;
    if ((rc = spk_handle_enter(handle, SPK_HANDLE_ENGINE, &object, &e)) != 0)
        return rc;
    if ((a = spk_zalloc(sizeof *a)) == NULL) {
        rc = SPOKE_ENOMEM;
        goto leave;
    }
    a->e = e;
    a->fn = fn;
    a->ctx = ctx;
    a->id = new_id(e);
    spk_timer_init(&a->timer, on_timer);
    spk_task_init(&a->task, run);
    if ((rc = spk_timer_set(e, &a->timer, spk_later(spk_engine_now(e), after_ns))) != 0) {
        spk_free(a);
        goto leave;
    }
    if ((rc = spk_idmap_set(&e->afters_by_id, a->id, a)) != 0) {
        spk_timer_cancel(e, &a->timer);
        spk_free(a);
        goto leave;
    }
    spk_list_append(&e->afters, &a->link);
    if (id != NULL)
        *id = a->id;
leave:
    spk_engine_leave(e);
    return rc;
}

static void
forget(struct after *a)
{
    spk_timer_cancel(a->e, &a->timer);
    spk_task_cancel(&a->task);
    spk_list_remove(&a->link);
    spk_idmap_remove(&a->e->afters_by_id, a->id);
    spk_free(a);
}

int
spoke_engine_cancel(spoke_engine *handle, uint64_t id)
{
    struct spk_engine *e;
    struct after *found;
    void *object;
    int rc;

    if ((rc = spk_handle_enter(handle, SPK_HANDLE_ENGINE, &object, &e)) != 0)
        return rc;
    found = id <= UINT32_MAX ? spk_idmap_get(&e->afters_by_id, (uint32_t)id) : NULL;
    if (found != NULL)
        forget(found);
    else
        rc = SPOKE_ENOENT;
    spk_engine_leave(e);
    return rc;
}

void
spk_afters_close(struct spk_engine *e)
{
    while (!spk_list_empty(&e->afters))
        forget(SPK_OWNER(e->afters.next, struct after, link));
    spk_idmap_fini(&e->afters_by_id);
}
