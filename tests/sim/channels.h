/* SPDX-License-Identifier: MIT */
/* Channels in a storm: what there is of them, and what is done with one (channels_ends.c), for who
 * does it by chance (channels.c).  Main thread of a test. */
#ifndef TESTS_SIM_CHANNELS_H
#define TESTS_SIM_CHANNELS_H

#include <spoke/session.h>

#include "tests/sim/storm.h"

#define CHANNELS 40
#define MESSAGES 64 /* of a channel */
#define STREAMS  12
#define SESSIONS 2
#define UNKNOWN  16
#define LARGEST  50000 /* bytes of a message; a channel tells its number by what is above that */

enum { AWAY = -1, GONE = -2 }; /* … or the machine that has it: in a message, or not accepted yet */

enum carried { A_SENDER = 1, A_RECEIVER, A_STREAM };
struct thing {
    enum carried kind; /* 0: none */
    int number;
};

struct channel {
    spoke_sender *tx;
    spoke_receiver *rx;
    int tx_at, rx_at;
    uint32_t sent, received, sent_here; /* by the end that there is now */
    size_t depth;
    bool opened, accepted; /* over a session, and there */
    bool carried;          /* an end of it was */
    bool aborted, tx_lost; /* the sender has not ended it in order */
    bool dropped;          /* the receiver was closed before the end */
    bool ended;            /* … or has got it */
    struct thing with[MESSAGES][2];
};

/* One end stays where it was made. */
struct stream {
    spoke_stream *ends[2];
    int at[2];
    uint64_t written[2], read[2];
    bool ended[2]; /* has ended its half in order */
};

struct model {
    struct storm storm;
    int machines[SESSIONS + 1], count; /* of machines */
    bool dead[SESSIONS + 1];
    spoke_session *sessions[SESSIONS][2]; /* NULL: closed, or dead */
    spoke_session_config config;
    struct channel channels[CHANNELS];
    int channel_count;
    struct stream streams[STREAMS];
    int stream_count;
    struct {
        spoke_receiver *rx; /* accepted, and nothing has come yet that tells which it is */
        int at;
        size_t depth;
    } unknown[UNKNOWN];
    bool breaks; /* sessions may end */
    bool closing;
};

extern struct model x;

/* What has been seen, in all runs. */
extern struct seen {
    uint64_t channels, messages, carried, taken, dropped, whole, broken, bytes;
} seen;

#define holds(Condition, ...) storm_holds(&x.storm, Condition, __VA_ARGS__)

/* Calls may fail for what the storm does, and for nothing else. */
#define expect(Rc) expect_at(__LINE__, Rc)
void expect_at(int line, int rc);

uint32_t chance(uint32_t below);
spoke_engine *engine_of(int machine);

/* Who had it is dead. */
void lose_sender(struct channel *c);
void lose_receiver(struct channel *c);
void lose_end(struct stream *s, int end);

/* Each does nothing if it cannot, and checks what comes of it. */
void open_pair(int machine);
void open_over(spoke_session *ss, int machine);
void accept_sender(spoke_session *ss, int machine);
void accept_receiver(spoke_session *ss, int machine);
void open_stream(int machine);
void send_one(int number);
void receive_one(int number);
void receive_unknown(int i);
void sync_one(const struct channel *c);
void close_sender(struct channel *c);
void abort_sender(struct channel *c);
void close_receiver(struct channel *c);
void write_some(struct stream *s, int end);
int read_some(struct stream *s, int end);
void end_half(struct stream *s, int end);

#endif
