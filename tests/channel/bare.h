/* SPDX-License-Identifier: MIT */
/* A session, and a peer that is a mux whose streams say any bytes, in the simulated world.  Bytes
 * are written as hex, with blanks.  Main thread of a test. */
#ifndef TESTS_CHANNEL_BARE_H
#define TESTS_CHANNEL_BARE_H

#include "tests/channel/sessions.h"

struct bare {
    spoke_sim *w;
    spoke_engine *e;
    spoke_session *ss; /* its streams are even */
    spoke_mux *peer;
    struct spoke_memory_stats before;
};

/* `config` NULL: the defaults. */
void bare_open(struct bare *x, const spoke_session_config *config);
/* Nothing may be left. */
void bare_close(struct bare *x);
void settle(struct bare *x);

size_t bytes_of(const char *hex, uint8_t *bytes, size_t size);
/* What the peer opens; refused, it says why. */
spoke_stream *peer_opens(struct bare *x, const char *meta);
void says(struct bare *x, spoke_stream *s, const char *hex);
void hears(spoke_stream *s, const char *hex);
/* An Error with this code as the last that is said, and a Reset with it. */
void hears_error(spoke_stream *s, uint32_t code);
/* The session goes on. */
void check_alive(struct bare *x);

#define SENDS          "a2 0001 0301"
#define RECEIVES_2     "a4 0001 0302 0702 08190400" /* 2 messages of up to 1024 bytes */
#define ACCEPTED       "01000000 0000000c 0000000000000040 01000000"
#define ACCEPTED_SENDS "01000000 0000000c 0000000000000000 00000000"
#define HI             "03000000 00000002 6869"
#define CLOSE(Count)   "06000000 00000008 00000000000000" Count
#define NESTED(Parent) "a3 0002 02" Parent " 0301"
#define STREAM(Parent) "a3 0003 02" Parent " 0303"

#endif
