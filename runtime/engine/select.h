/* SPDX-License-Identifier: MIT */
/* What objects do for those who select on them (<spoke/select.h>).  An object has a list of the
 * cases that wait for it, empty but while somebody does, and says when something has changed.
 * Everything runs with the engine entered. */
#ifndef SPK_ENGINE_SELECT_H
#define SPK_ENGINE_SELECT_H

#include "runtime/memory/list.h"

#include <spoke/select.h>

/* What a case is about. */
struct spk_selectable {
    /* Would its call not give SPOKE_EAGAIN?  Changes nothing that others could tell.  If that comes
     * with time alone, *until is moved up to then. */
    bool (*ready)(void *object, spoke_ns *until);
    /* The list of who is to be told. */
    struct spk_link *(*selects)(void *object);
    /* Fetch what a call would find by itself.  May be NULL. */
    void (*look)(void *object);
    /* It is not ready, and somebody is about to wait: see that spk_select_tell() is called when it
     * is.  May be NULL. */
    void (*arm)(void *object);
};

#define SELECTABLE(What, Kind, name) extern const struct spk_selectable spk_select_##name;
#include "runtime/engine/selectable.def"
#undef SELECTABLE

/* Something has changed: who waits for what is ready now goes on. */
void spk_select_tell_some(struct spk_link *selects);
static inline void
spk_select_tell(struct spk_link *selects)
{
    if (__builtin_expect(!spk_list_empty(selects), 0))
        spk_select_tell_some(selects);
}

/* A handle is closed, or a deadline has moved: all of them look at everything anew.  Leaves the
 * list empty. */
void spk_select_wake(struct spk_link *selects);

#endif
