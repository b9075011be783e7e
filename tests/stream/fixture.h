/* SPDX-License-Identifier: MIT */
/* The same test over everything that can carry a stream, and in every way to drive the library.
 * Main thread of a test, but for what tasks do. */
#ifndef TESTS_STREAM_FIXTURE_H
#define TESTS_STREAM_FIXTURE_H

#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/resources.h"
#include "tests/support/test.h"

/* INPROC, IPC, TCP, SHM, TLS, WS, WSS as in enum transport, and those without an address. */
enum over {
    OVER_INPROC = INPROC,
    OVER_IPC = IPC,
    OVER_TCP = TCP,
    OVER_SHM = SHM,
    OVER_TLS = TLS,
    OVER_WS = WS,
    OVER_WSS = WSS,
    OVER_PAIR,
    OVER_FD
};

enum way {
    ONE,    /* both ends on one engine of the test's thread */
    SHARED, /* on the library's engine */
    SIM,    /* on two machines of a simulated world */
    TWO     /* each on an engine and thread of its own: tasks only */
};

/* Itself, or a stream of a mux that it carries: opened by the end that dialed, on the native wire,
 * or by the one that was accepted, on the compatible one. */
enum on { PLAIN, ON_MUX, ON_MUX_BACK };

struct place {
    enum over over;
    enum way way;
    enum on on;
};

/* A peer learns of an abort as it does over tcp, and of nothing that tcp has no word for. */
static inline bool
is_over_tcp(const struct place *p)
{
    return p->over <= OVER_WSS && transport_is_on_tcp((enum transport)p->over);
}

static inline bool
is_over_ws(const struct place *p)
{
    return p->over <= OVER_WSS && transport_is_ws((enum transport)p->over);
}

static inline bool
is_over_tls(const struct place *p)
{
    return p->over <= OVER_WSS && transport_has_tls((enum transport)p->over);
}

/* Lists for ParameterizedTestParameters.  wss is in ONE only if it is named (transport_is_named()):
 * it is made of tls and ws. */
struct criterion_test_params places(void);      /* ONE, SHARED, SIM */
struct criterion_test_params places_real(void); /* ONE, SHARED */
struct criterion_test_params places_listening(
    void); /* ONE, SHARED, SIM; of those with an address */
struct criterion_test_params places_listening_real(void);
struct criterion_test_params places_shared(void);
struct criterion_test_params places_tasks(void); /* SHARED, TWO */

/* The same and, for each, on a mux. */
struct criterion_test_params conns(void);
struct criterion_test_params conns_shared(void);
struct criterion_test_params conns_tasks(void);

/* The body follows and finds its place in `p`. */
#define PLACE_TEST(Suite, Name, List)                                                              \
    ParameterizedTestParameters(Suite, Name)                                                       \
    {                                                                                              \
        return List();                                                                             \
    }                                                                                              \
    ParameterizedTest(struct place *p, Suite, Name)

/* What must happen happens within this. */
#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

/* Where streams live. */
struct stage {
    struct place p;
    spoke_sim *sim;
    spoke_engine *e[2]; /* of the dialer and the listener; NULL: shared */
    struct resources before;
    spoke_stream_config config;
};

void stage_open(struct stage *st, const struct place *p);
/* Fails the test if anything is left.  Streams that are open are closed with their engines. */
void stage_close(struct stage *st);
/* What those who listen and dial here are given for this: itself, or with what TLS needs. */
const spoke_stream_config *stage_config(struct stage *st, const spoke_stream_config *config);
spoke_ns stage_now(const struct stage *st);
/* A deadline. */
spoke_ns stage_in(const struct stage *st, spoke_ns duration);
/* Let it go on for some time, or until done(ctx): false if that takes too long. */
void stage_pass(struct stage *st, spoke_ns duration);
/* A short pause after which also an engine that got no time meanwhile has done what it can. */
void stage_settle(struct stage *st);
bool stage_until(struct stage *st, bool (*done)(void *ctx), void *ctx);
/* Call fn(ctx) after some time, while a call of the test waits: from a timer, or another thread;
 * returns what stage_joined() waits for. */
struct later;
struct later *stage_after(struct stage *st, spoke_ns duration, void (*fn)(void *ctx), void *ctx);
void stage_joined(struct later *later);

void fresh_url(const struct stage *st, char url[ENDPOINT_MAX]);
/* Two ends of a stream: end[0] has dialed, end[1] was accepted. */
struct ends {
    struct stage st;
    spoke_stream *end[2];
};
void connect_ends(struct stage *st, const spoke_stream_config *config, spoke_stream *end[2]);
void ends_open(struct ends *d, const struct place *p, const spoke_stream_config *config);
void ends_close(struct ends *d);

/* Bytes by their place in a stream. */
void bytes_fill(void *to, size_t size, uint64_t place);
bool bytes_hold(const void *bytes, size_t size, uint64_t place);

/* Calls that must succeed. */
void write_bytes(spoke_stream *s, uint64_t place, size_t size);
void read_bytes(spoke_stream *s, uint64_t place, size_t size);
void write_text(spoke_stream *s, const char *text);
void expect_text(spoke_stream *s, const char *text);
/* What a read of one byte gives. */
int read_one(spoke_stream *s);
int write_one(spoke_stream *s);
int read_now(spoke_stream *s); /* without waiting */
spoke_msg *message_of(const void *data, size_t size);
/* Write without waiting until nothing more goes for a while, what follows the first `from` bytes.
 * How much it was. */
uint64_t fill_up_from(struct stage *st, spoke_stream *s, uint64_t from);
uint64_t fill_up(struct stage *st, spoke_stream *s);

#define expect_rc(Call, Wanted)                                                                    \
    do {                                                                                           \
        int got_rc_ = (Call);                                                                      \
        cr_assert_eq(got_rc_, (Wanted), "%s gives %s, not %s", #Call, name_of(got_rc_),            \
                     name_of(Wanted));                                                             \
    } while (0)
const char *name_of(int rc);

/* Two tasks, one at each end, that wait as they like.  They return NULL, or what was wrong. */
struct task_end {
    spoke_stream *s;
    spoke_engine *e;
    void *ctx;
    int side; /* 0 has dialed */
};
typedef const char *task_f(struct task_end *t);
void run_tasks(const struct place *p, const spoke_stream_config *config, task_f *dialer,
               task_f *listener, void *ctx);
#define TASK_CHECK(Holds)                                                                          \
    do {                                                                                           \
        if (!(Holds))                                                                              \
            return __FILE__ ": " #Holds;                                                           \
    } while (0)

#endif
