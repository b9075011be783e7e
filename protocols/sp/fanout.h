/* SPDX-License-Identifier: MIT */
/* One message to many pipes: each shares the body by reference, has a queue of its own for what it
 * cannot take at once, and loses messages in its own way (SPOKE_OPT_LOSS) when that is full.  Each
 * loss is counted, by socket and by pipe. */
#ifndef SPK_SP_FANOUT_H
#define SPK_SP_FANOUT_H

#include "protocols/sp/latest.h"
#include "protocols/sp/sp.h"

#define SPK_LOSS_TOPIC_MOST 255u /* bytes */

/* The state of the socket, or the beginning of it. */
struct spk_fanout {
    struct spk_link targets;  /* in the order of attachment */
    uint32_t count, blocking; /* targets, and those for which a send waits */
    size_t topic_size;        /* what a topic is: SPOKE_OPT_TOPIC_SIZE, SPOKE_OPT_TOPIC_END */
    int topic_end;
    uint8_t loss_topic[SPK_LOSS_TOPIC_MOST]; /* SPOKE_OPT_LOSS_TOPIC */
    uint8_t loss_topic_size;                 /* 0: nobody is told */
};

/* The state of a pipe. */
struct spk_target {
    struct spk_link link;
    struct spk_pipe *pipe;
    enum spoke_loss loss;
    struct spk_queue waiting; /* … or, with SPOKE_LOSS_CONFLATE, … */
    struct spk_latest latest;
    uint64_t told; /* losses that it has been told of */
};

/* The slots of their vtables. */
int spk_fanout_open(struct spk_socket *s);
int spk_fanout_pipe_added(struct spk_socket *s, struct spk_pipe *p);
void spk_fanout_pipe_removed(struct spk_socket *s, struct spk_pipe *p);
void spk_fanout_writable(struct spk_socket *s, struct spk_pipe *p);
unsigned spk_fanout_ready(struct spk_socket *s);
size_t spk_fanout_pending(struct spk_socket *s, uint64_t *bytes);

/* False while a target without room does not want to lose anything. */
bool spk_fanout_can_send(const struct spk_fanout *f);
/* Takes m, always; spk_fanout_can_send() was true. */
void spk_fanout_send(struct spk_socket *s, spoke_msg *m,
                     const struct spk_pipe *except); /* may be NULL */
/* The same without a message, because there was no memory for it: all of them miss one. */
void spk_fanout_miss(struct spk_socket *s, const struct spk_pipe *except);

#endif
