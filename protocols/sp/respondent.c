/* SPDX-License-Identifier: MIT */
/* RESPONDENT: a survey in, its answer back to where it came from.  All of it is answering, which it
 * shares with REP: answer.h.  It does not know when a survey ends: an answer that is late goes out
 * all the same, and the surveyor drops it. */
#include "protocols/sp/answer.h"

const struct spoke_protocol spoke_protocol_respondent = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 99,
    .peer = 98,
    .name = "respondent",
    .sends = true,
    .receives = true,
    .socket_size = sizeof(struct spk_answerer),
    .pipe_size = sizeof(struct spk_answer_pipe),
    .open = spk_answer_open,
    .options = spk_answer_options,
    .pipe_removed = spk_answer_pipe_removed,
    .received = spk_answer_received,
    .writable = spk_answer_writable,
    .send = spk_answer_send,
    .recv = spk_answer_recv,
    .ready = spk_answer_ready,
    .pending = spk_answer_pending,
    .context_size = sizeof(struct spk_answer_context),
    .shares_recv = true,
    .context_send = spk_answer_context_send,
    .context_recv = spk_answer_context_recv,
    .context_ready = spk_answer_context_ready,
};
