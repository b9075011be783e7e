/* SPDX-License-Identifier: MIT */
/* What the tests of the protocols share: sockets on the library's own engine, peers of plain
 * sockets, texts as messages.  Every wait is bounded; what fails, fails the test.  Main thread of a
 * test, except where it says otherwise. */
#ifndef TESTS_PROTOCOLS_FIXTURE_H
#define TESTS_PROTOCOLS_FIXTURE_H

#include <pthread.h>
#include <string.h>

#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/raw_peer.h"
#include "tests/support/test.h"
#include "tests/support/waiters.h"

#define PATIENCE (10 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

/* One test body for all transports, or for those that a plain peer speaks too; it finds its own in
 * `t`. */
struct criterion_test_params every_transport(void); /* INPROC, IPC, TCP, SHM */
struct criterion_test_params every_stream(void);    /* IPC, TCP */
#define ON_EVERY_OF(List, Suite, Name)                                                             \
    ParameterizedTestParameters(Suite, Name)                                                       \
    {                                                                                              \
        return List();                                                                             \
    }                                                                                              \
    ParameterizedTest(enum transport *t, Suite, Name)
#define ON_EVERY_TRANSPORT(Suite, Name) ON_EVERY_OF(every_transport, Suite, Name)
#define ON_EVERY_STREAM(Suite, Name)    ON_EVERY_OF(every_stream, Suite, Name)

/* A socket whose calls wait PATIENCE at most and whose dialers come back after 10 ms; finish()
 * closes it, unless the test did. */
spoke_socket *open_socket(int pattern);
/* From now on sockets live on an engine of this thread: nothing happens outside the test's calls.
 */
void own_engine(void);
spoke_socket *open_raw(int pattern);
/* The last line of each test: closes what is left without linger; no message may be left behind. */
void finish(void);

void listen_on(spoke_socket *s, enum transport t, char url[ENDPOINT_MAX]);
void dial(spoke_socket *s, const char *url);
/* Both, and wait until they are connected. */
void connect_sockets(spoke_socket *listener, spoke_socket *dialer, enum transport t);
/* Wait until the socket has exactly so many pipes. */
void wait_pipes(spoke_socket *s, uint64_t count);

/* Connect a plain peer to a listening socket, and wait until the socket has `pipes` pipes. */
void join(struct raw_peer *p, spoke_socket *s, const char *url, uint64_t pipes);

/* A SUB socket with one subscription (NULL: none). */
spoke_socket *open_sub(const char *topic);

/* Messages that are texts. */
void send_text(spoke_socket *s, const char *text);
void expect_text(spoke_socket *s, const char *text); /* and an empty header */
spoke_msg *recv_message(spoke_socket *s);            /* which comes */
/* The next receive without waiting, the next send without waiting, give this error. */
void expect_recv_error(spoke_socket *s, int error);
void expect_send_error(spoke_socket *s, int error);
spoke_msg *new_text(const char *text);
bool text_is(const spoke_msg *m, const char *text);
/* With words as a header. */
spoke_msg *new_with_words(const uint32_t *words, size_t count, const char *text);
uint32_t header_word(const spoke_msg *m, size_t index);

/* The same in contexts, which finish() closes with their sockets. */
spoke_context *open_context(spoke_socket *s);
void context_send_text(spoke_context *c, const char *text);
void context_expect_text(spoke_context *c, const char *text);
void context_expect_recv_error(spoke_context *c, int error); /* without waiting */

/* The plain peer receives exactly these bytes. */
void raw_expect_bytes(struct raw_peer *p, const uint8_t *bytes, size_t size);
/* The plain peer receives exactly these words and this text; ANY matches any word. */
#define ANY 0
void raw_expect(struct raw_peer *p, const uint32_t *words, size_t count, const char *text);
/* It receives one word with bit 31 set, which is returned, and this text. */
uint32_t raw_expect_request(struct raw_peer *p, const char *text);
void raw_send_text(struct raw_peer *p, const char *text);
void raw_send_word(struct raw_peer *p, uint32_t word, const char *text); /* an id, hops … */
/* The same text many times, at once: they arrive together. */
void raw_send_texts(struct raw_peer *p, const char *text, int count);

struct spoke_stats stats_of(spoke_socket *s);
/* Wait until a counter has reached exactly this. */
#define wait_counter(Socket, Name, Value)                                                          \
    wait_counter_at(Socket, offsetof(struct spoke_stats, Name), Value, #Name)
void wait_counter_at(spoke_socket *s, size_t offset, uint64_t value, const char *name);
/* Until so many messages are lost; what was being written is counted last. */
void wait_lost(spoke_socket *s, uint64_t least);

/* From now on pipes of `s` are numbered in the order of attachment, for the
 * calls below; one socket of a test. */
spoke_socket *watch_pipes(spoke_socket *s); /* which it returns */
spoke_pipe_id watched_pipe(size_t index);
struct spoke_pipe_stats pipe_stats_of(spoke_socket *s, size_t index);
/* The same once it is gone, which this waits for. */
struct spoke_pipe_stats last_stats_of(size_t index);
/* Wait until at least so many messages have come through it, whatever became of them. */
void wait_arrived(spoke_socket *s, size_t index, uint64_t count);

/* Whether the descriptors of SPOKE_OPT_RECV_FD and SPOKE_OPT_SEND_FD are readable; wait until they
 * are (not). */
void expect_fd(spoke_socket *s, const char *option, bool readable);

/* A call that waits in a thread of its own. */
struct waiting_call {
    spoke_socket *s;
    spoke_context *c; /* NULL: in the socket's own conversation */
    const char *text; /* to send; NULL: receive, and free what comes */
    int rc;
    pthread_t thread;
    char received[64];
};
void start_call(struct waiting_call *call, spoke_socket *s, const char *text);
void start_context_call(struct waiting_call *call, spoke_context *c); /* receive */
int end_call(struct waiting_call *call);

void sleep_ms(int duration_ms);
/* A pause after which also an engine that got no time meanwhile has done what it can: if nothing
 * has changed in some of them, nothing will. */
void settle(void);

#endif
