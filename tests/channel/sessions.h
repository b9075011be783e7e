/* SPDX-License-Identifier: MIT */
/* Two sessions with each other, a's streams with odd numbers, over anything. */
#ifndef TESTS_CHANNEL_SESSIONS_H
#define TESTS_CHANNEL_SESSIONS_H

#include <spoke/session.h>
#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/support/test.h"

enum over {
    OVER_PAIR,
    OVER_OWNED,
    OVER_IPC,
    OVER_SHM,
    OVER_TCP,
    OVER_TLS,
    OVER_WS,
    OVER_WSS,
    OVER_INPROC,
    OVER_SIM,
    OVER_KINDS
};
extern const char *const over_names[OVER_KINDS];

#define OVER_EVERYTHING(kind) for (int kind = OVER_PAIR; (kind) < OVER_KINDS; (kind)++)

static inline bool
over_has_tls(enum over over)
{
    return over == OVER_TLS || over == OVER_WSS;
}

struct sessions {
    enum over over;
    spoke_sim *world;
    spoke_engine *e; /* NULL: the shared one */
    spoke_session *a, *b;
    struct spoke_memory_stats before;
    int fds_before;
};

/* `config` NULL: the defaults. */
void sessions_open(struct sessions *x, enum over over, const spoke_session_config *config);
/* Nothing may be left. */
void sessions_close(struct sessions *x);

/* Late enough on the slowest machine. */
spoke_ns soon(const struct sessions *x);

void must_send(spoke_sender *tx, const char *text);
void receive_text(spoke_receiver *rx, const char *text);
/* Nothing more, but this end. */
void receive_end(spoke_receiver *rx, int reason);
spoke_msg *text_message(const char *text);
spoke_msg *receive(spoke_receiver *rx);

/* A channel, both ends of it. */
void open_channel(struct sessions *x, spoke_session *from, spoke_session *to, spoke_sender **tx,
                  spoke_receiver **rx, const spoke_channel_config *config);

#endif
