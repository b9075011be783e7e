/* SPDX-License-Identifier: MIT */
/* Handles: what users hold instead of pointers.  A handle names a slot and the slot's generation,
 * so that one that was closed is recognised for ever.  Slots and engines are never given back to
 * the allocator; looking at a stale one is safe.  Any thread. */
#ifndef SPK_ENGINE_HANDLE_H
#define SPK_ENGINE_HANDLE_H

#include "runtime/engine/engine.h"

enum spk_handle_kind {
    SPK_HANDLE_ENGINE = 1,
    SPK_HANDLE_SOCKET,
    SPK_HANDLE_DIALER,
    SPK_HANDLE_LISTENER,
    SPK_HANDLE_DEVICE,
    SPK_HANDLE_CONTEXT,
    SPK_HANDLE_STREAM,
    SPK_HANDLE_STREAM_LISTENER,
    SPK_HANDLE_MUX,
    SPK_HANDLE_SENDER,
    SPK_HANDLE_RECEIVER,
    SPK_HANDLE_SESSION,
    SPK_HANDLE_SESSION_LISTENER,
    SPK_HANDLE_EXPORTER,
    SPK_HANDLE_IMPORTER
};

/* Give a handle for `object`, which lives on `e`.  SPOKE_ELIMIT when all 65 535 are in use. */
int spk_handle_new(enum spk_handle_kind kind, void *object, struct spk_engine *e, void **handle);

/* From now on the handle is closed for everybody. */
void spk_handle_free(void *handle);

/* The same, and give another for the same object. */
void *spk_handle_renew(void *handle);

/* Find the object and enter its engine: on success the caller leaves it again with
 * spk_engine_leave(). Errors: SPOKE_ECLOSED (also for NULL and nonsense), SPOKE_EFORKED,
 * SPOKE_EWRONGTHREAD. */
int spk_handle_enter(const void *handle, enum spk_handle_kind kind, void **object,
                     struct spk_engine **e);

/* The same without waiting for the lock: SPOKE_EAGAIN if another thread has it. */
int spk_handle_try_enter(const void *handle, enum spk_handle_kind kind, void **object,
                         struct spk_engine **e);

/* A second object for a call that has entered `e`.  SPOKE_EINVAL: it lives on another engine, whose
 * lock the caller does not have. */
int spk_handle_join(const void *handle, enum spk_handle_kind kind, const struct spk_engine *e,
                    void **object);

/* What calls without the engine may use, in memory that is never given back: NULL until it is set,
 * and for handles that are closed. */
void spk_handle_set_front(void *handle, void *front);
void *spk_handle_front(const void *handle, enum spk_handle_kind kind);

/* The engine that a handle's object lives on.  NULL: it is closed. */
struct spk_engine *spk_handle_engine(const void *handle);

/* The object without entering, for the few calls that any thread may make on an engine.  NULL if
 * closed. */
void *spk_handle_peek(const void *handle, enum spk_handle_kind kind);

#endif
