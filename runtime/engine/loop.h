/* SPDX-License-Identifier: MIT */
/* What the files of the loop have in common: ops.c (operations), loop.c (turns), wait.c (threads).
 * On a shared engine all with its lock held, but for spk_engine_lock(), spk_yield() and
 * spk_relax(). */
#ifndef SPK_ENGINE_LOOP_H
#define SPK_ENGINE_LOOP_H

#include "runtime/engine/engine.h"

#define HOT_MOST 8u /* receives that are worth trying one by one; more are armed */

/* Adaptive waiting, nanoseconds.  A sleep and a wake-up cost about 30 us each on a virtual machine,
 * some 3 us on bare metal; a wait that ended by itself within SPIN_BUDGET would have been cheaper
 * without sleeping.  What a sleeping wait measured has the wake-up in it. */
#define SPIN_BUDGET (60 * SPOKE_US)
#define LEASE       (2 * SPOKE_MS) /* for so long hot receives are left to callers that come back */

#define TRIES_PER_LOOK 4u /* tries of a spin between two looks at the clock */
#define YIELD_LONG     (200 * SPOKE_US)

/* ops.c.  Those that try or submit return true if something completed. */
bool spk_spinning_pays(const struct spk_engine *e); /* is it worth looking for work by ourselves? */
bool spk_try_recv(struct spk_engine *e, struct spk_op *op); /* by a plain call */
void spk_look_at_memory(struct spk_engine *e); /* until something has come, for a moment */
bool spk_try_hot(struct spk_engine *e);
bool spk_try_now(struct spk_engine *e,
                 struct spk_op *op); /* poll says that its descriptor is readable */
void spk_try_queued(struct spk_engine *e);
bool spk_submit_queued(struct spk_engine *e);
void spk_arm_watches(struct spk_engine *e);
void spk_arm_hot(struct spk_engine *e);
bool spk_arm_unawaited(struct spk_engine *e); /* true: some */
void spk_lease(struct spk_engine *e, spoke_ns now);
void spk_scratch_let_go(struct spk_engine *e);

/* loop.c */
bool spk_run_tasks(struct spk_engine *e);
void spk_credit(struct spk_engine *e, spoke_ns waited, bool slept); /* a wait is over */
void spk_relax(void);
spoke_ns spk_yield(struct spk_engine *e);
void spk_yielded(struct spk_engine *e, spoke_ns took, bool adaptive);

/* wait.c */
void spk_engine_lock(struct spk_engine *e);
void spk_engine_leave_shared(struct spk_engine *e);

#endif
