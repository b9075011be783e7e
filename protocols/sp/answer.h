/* SPDX-License-Identifier: MIT */
/* What REP and RESPONDENT have in common, which is everything but their numbers: a question in, its
 * answer back to where it came from.
 *
 *   IDLE ── recv ──▶ HAS A QUESTION ── send ──▶ IDLE      a further recv abandons the question
 *
 * A question's backtrace, words ending in the id, is saved when the user receives it, in a context;
 * a socket has one of its own, and any number more.  The answer carries it back.  An answer that
 * its pipe cannot take waits, some per pipe; beyond that, or when the pipe is gone, it is dropped:
 * whoever asked will ask again, and one peer that does not read cannot hold up the others.
 *
 * Raw: the header of a received message is the number of its pipe and the backtrace; a message to
 * send has the same. */
#ifndef SPK_SP_ANSWER_H
#define SPK_SP_ANSWER_H

#include "protocols/sp/sp.h"

_Static_assert((SPK_SP_TTL_MOST + 1) * SPK_SP_WORD <= SPOKE_HEADER_MAX,
               "a pipe number and a backtrace");

struct spk_answer_context {
    spoke_pipe_id pipe; /* where the question came from; 0: there is none */
    size_t size;
    uint8_t backtrace[SPK_SP_TTL_MOST * SPK_SP_WORD];
};

struct spk_answerer {
    int ttl;
    size_t waiting; /* in all pipes' queues */
    uint64_t waiting_bytes;
};

struct spk_answer_pipe {
    struct spk_queue waiting;
};

/* The slots of their vtables. */
int spk_answer_open(struct spk_socket *s);
void spk_answer_pipe_removed(struct spk_socket *s, struct spk_pipe *p);
int spk_answer_received(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m);
void spk_answer_writable(struct spk_socket *s, struct spk_pipe *p);
int spk_answer_send(struct spk_socket *s, spoke_msg *m);
int spk_answer_recv(struct spk_socket *s, spoke_msg **m);
unsigned spk_answer_ready(struct spk_socket *s);
size_t spk_answer_pending(struct spk_socket *s, uint64_t *bytes);
int spk_answer_context_send(struct spk_context *c, spoke_msg *m);
int spk_answer_context_recv(struct spk_context *c, spoke_msg **m);
unsigned spk_answer_context_ready(struct spk_context *c);
extern const struct spk_option spk_answer_options[];

#endif
