/* SPDX-License-Identifier: MIT */
/* How a connection over a unix socket moves into shared memory.  The dialer attaches one end of a
 * socket pair, the side channel, to its greeting; a stranger lets go of it, another spoke answers
 * there.  docs/shared-memory.md has the packets. */
#ifndef SPK_CORE_UPGRADE_H
#define SPK_CORE_UPGRADE_H

#include "runtime/core/shm.h"

struct spk_upgrade {
    struct spk_pipe *p;
    struct spk_shm **shm; /* where the owner has it, from the offer on */
    int side;             /* our end of the side channel, -1: none (any more) */
    struct spk_op op;     /* until it is readable */
    struct spk_timer timer;
    bool offers_first; /* the listener */
    bool lends;
    int reason;    /* why it is being given up; 0: it is not */
    spoke_ns time; /* for the peer's next packet, once there was an offer */
    void (*done)(struct spk_upgrade *u, int result); /* 0, or why it came to nothing */
};

void spk_upgrade_init(struct spk_upgrade *u, struct spk_pipe *p, struct spk_shm **shm,
                      bool offers_first, void (*done)(struct spk_upgrade *u, int result));

/* Send a greeting with a side channel attached; bytes or SPOKE_E….  Without one if none can be
 * had. */
int64_t spk_upgrade_say_hello(struct spk_upgrade *u, int fd, const void *hello, size_t size);
/* Receive (part of) a greeting, and the side channel if it brings one. */
int64_t spk_upgrade_hear_hello(struct spk_upgrade *u, int fd, void *hello, size_t size);

/* There is a side channel, and the peer is welcome.  A listener makes its offer now and waits
 * `time` for each answer; a dialer waits for the offer as long as it takes.  Then done() is called;
 * not from inside. */
void spk_upgrade_start(struct spk_upgrade *u, bool lends, spoke_ns time);
/* No more of it.  If u->op is still busy, done() tells when it is not. */
void spk_upgrade_stop(struct spk_upgrade *u);

#endif
