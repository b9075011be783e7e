/* SPDX-License-Identifier: MIT */
/* REP: a request in, its reply back to where it came from.  All of it is answering, which it shares
 * with RESPONDENT: answer.h. */
#include "protocols/sp/answer.h"

const struct spoke_protocol spoke_protocol_rep = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 49,
    .peer = 48,
    .name = "rep",
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
