/* SPDX-License-Identifier: MIT */
/* The table of handles.  Opening and closing take a lock; looking up takes none. */
#include "runtime/engine/handle.h"

#define SLOTS 65536u

/* A handle is  generation << 20 | kind << 16 | slot;  a slot's tag is the same without the slot, 0
 * when it is free. */
struct slot {
    _Atomic uint64_t tag;
    _Atomic(void *) object;
    _Atomic(void *) front;
    _Atomic(struct spk_engine *) engine;
    uint32_t next_free;
};

static struct slot slots[SLOTS]; /* untouched pages cost nothing */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
SPK_FREE_AFTER_FORK(lock)
static uint32_t first_free, used = 1; /* slot 0 stays empty: it ends the free list */
static uint64_t generation;

int
spk_handle_new(enum spk_handle_kind kind, void *object, struct spk_engine *e, void **handle)
{
    uint32_t index;
    uint64_t tag;

    *handle = NULL;
    pthread_mutex_lock(&lock);
    if (first_free != 0) {
        index = first_free;
        first_free = slots[index].next_free;
    } else if (used < SLOTS) {
        index = used++;
    } else {
        pthread_mutex_unlock(&lock);
        return SPOKE_ELIMIT;
    }
    tag = ++generation << 20 | (uint64_t)kind << 16;
    atomic_store_explicit(&slots[index].object, object, memory_order_relaxed);
    atomic_store_explicit(&slots[index].engine, e, memory_order_relaxed);
    atomic_store_explicit(&slots[index].front, NULL, memory_order_relaxed);
    /* After what it names.  Pairs with the load in find(). */
    atomic_store_explicit(&slots[index].tag, tag, memory_order_release);
    pthread_mutex_unlock(&lock);
    *handle = (void *)(uintptr_t)(tag | index);
    return 0;
}

static struct slot *
find(const void *handle, enum spk_handle_kind kind)
{
    uint64_t bits = (uint64_t)(uintptr_t)handle;
    struct slot *slot = &slots[bits & 0xffff];

    if ((bits >> 16 & 0xf) != (uint64_t)kind)
        return NULL;
    if (atomic_load_explicit(&slot->tag, memory_order_acquire) != (bits & ~(uint64_t)0xffff))
        return NULL;
    return slot;
}

void
spk_handle_free(void *handle)
{
    uint32_t index = (uint32_t)((uintptr_t)handle & 0xffff);

    pthread_mutex_lock(&lock);
    atomic_store_explicit(&slots[index].tag, 0, memory_order_release);
    slots[index].next_free = first_free;
    first_free = index;
    pthread_mutex_unlock(&lock);
}

void *
spk_handle_renew(void *handle)
{
    uint32_t index = (uint32_t)((uintptr_t)handle & 0xffff);
    uint64_t tag;

    pthread_mutex_lock(&lock);
    tag = ++generation << 20 | ((uint64_t)(uintptr_t)handle & 0xf0000);
    atomic_store_explicit(&slots[index].tag, tag, memory_order_release);
    pthread_mutex_unlock(&lock);
    return (void *)(uintptr_t)(tag | index);
}

static int
enter_by(int (*enter)(struct spk_engine *e), const void *handle, enum spk_handle_kind kind,
         void **object, struct spk_engine **e)
{
    struct slot *slot = find(handle, kind);
    int rc;

    if (slot == NULL)
        return SPOKE_ECLOSED;
    *e = atomic_load_explicit(&slot->engine, memory_order_relaxed);
    if ((rc = enter(*e)) != 0)
        return rc;
    if (find(handle, kind) == NULL) { /* closed while we waited for the lock */
        spk_engine_leave(*e);
        return SPOKE_ECLOSED;
    }
    *object = atomic_load_explicit(&slot->object, memory_order_relaxed);
    return 0;
}

int
spk_handle_enter(const void *handle, enum spk_handle_kind kind, void **object,
                 struct spk_engine **e)
{
    return enter_by(spk_engine_enter, handle, kind, object, e);
}

int
spk_handle_try_enter(const void *handle, enum spk_handle_kind kind, void **object,
                     struct spk_engine **e)
{
    return enter_by(spk_engine_try_enter, handle, kind, object, e);
}

int
spk_handle_join(const void *handle, enum spk_handle_kind kind, const struct spk_engine *e,
                void **object)
{
    struct slot *slot = find(handle, kind);

    if (slot == NULL)
        return SPOKE_ECLOSED;
    if (atomic_load_explicit(&slot->engine, memory_order_relaxed) != e)
        return SPOKE_EINVAL;
    if (find(handle, kind) == NULL) /* it was the slot of another by then */
        return SPOKE_ECLOSED;
    *object = atomic_load_explicit(&slot->object, memory_order_relaxed);
    return 0;
}

void
spk_handle_set_front(void *handle, void *front)
{
    struct slot *slot = &slots[(uintptr_t)handle & 0xffff];

    atomic_store_explicit(&slot->front, front, memory_order_release);
}

void *
spk_handle_front(const void *handle, enum spk_handle_kind kind)
{
    struct slot *slot = find(handle, kind);
    void *front = slot == NULL ? NULL : atomic_load_explicit(&slot->front, memory_order_acquire);

    /* By then it may have been the slot of another, and the front of something else. */
    return front != NULL && find(handle, kind) != NULL ? front : NULL;
}

struct spk_engine *
spk_handle_engine(const void *handle)
{
    const struct slot *slot = find(handle, (enum spk_handle_kind)((uintptr_t)handle >> 16 & 0xf));

    return slot == NULL ? NULL : atomic_load_explicit(&slot->engine, memory_order_relaxed);
}

void *
spk_handle_peek(const void *handle, enum spk_handle_kind kind)
{
    struct slot *slot = find(handle, kind);

    return slot == NULL ? NULL : atomic_load_explicit(&slot->object, memory_order_relaxed);
}
