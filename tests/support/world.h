/* SPDX-License-Identifier: MIT */
/* The same test body on every transport and in every way to drive the library.
 *
 * A world holds nodes, each a socket.  Where a node lives depends on the mode; node_…() makes the
 * call on the right thread and gives its result.  Sockets of a world wait at most WORLD_PATIENCE in
 * a call, so no test hangs.  world_close() fails the test if anything is left.  Main thread of a
 * test. */
#ifndef TESTS_SUPPORT_WORLD_H
#define TESTS_SUPPORT_WORLD_H

#include <pthread.h>
#include <stdatomic.h>

#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/test.h"

#define WORLD_PATIENCE (10 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

enum mode {
    OWNED_ONE, /* all nodes on one engine of the test's thread */
    OWNED_TWO, /* nodes by turns on two engines, each with a thread of its own */
    SHARED,    /* the library's own threads */
    SIM        /* nodes by turns on two machines of a simulated world */
};

/* A parameter of a ParameterizedTest: no pointers, it travels between processes. */
struct world_case {
    enum transport transport;
    enum mode mode;
};

/* Lists for ParameterizedTestParameters.  A test that needs a kernel, its files or its processes
 * takes one without SIM.  Simulated worlds do not depend on SPOKE_BACKEND: they are
 * left out where that is "poll", and where features are masked, so that they run once.  Where one
 * feature of io_uring is masked, inproc is left out: no ring carries its messages; it runs where
 * all are.  shm is never in SIM, which has no memory that its machines share; nor is
 * tls, ws or wss, whose handshakes no seed repeats.  These three are in OWNED_TWO only if they are
 * named (transport_is_named()), since it tells little more of them than the other two do, wss,
 * which is made of the others, then only in OWNED_ONE too, and none of them where features are
 * masked. */
struct criterion_test_params world_cases(void);      /* everything */
struct criterion_test_params world_cases_real(void); /* not SIM */
struct criterion_test_params world_cases_threaded(
    void); /* OWNED_TWO, SHARED: two nodes can wait at once */
struct criterion_test_params world_cases_direct(
    void); /* not OWNED_TWO: calls on the test's thread */
struct criterion_test_params world_cases_direct_real(void);      /* the same, not SIM */
struct criterion_test_params world_cases_owned(void);            /* OWNED_ONE */
struct criterion_test_params world_cases_shared(void);           /* SHARED */
struct criterion_test_params world_cases_files(void);            /* ipc and shm, not SIM */
struct criterion_test_params world_cases_tcp(void);              /* tcp */
struct criterion_test_params world_cases_tcp_real(void);         /* … not SIM */
struct criterion_test_params world_cases_streams(void);          /* all but inproc */
struct criterion_test_params world_cases_streams_real(void);     /* … not SIM */
struct criterion_test_params world_cases_streams_threaded(void); /* … OWNED_TWO, SHARED */

/* ParameterizedTest over a list of cases.  The body follows and finds its case in `c`. */
#define WORLD_TEST(Suite, Name, List)                                                              \
    ParameterizedTestParameters(Suite, Name)                                                       \
    {                                                                                              \
        return List();                                                                             \
    }                                                                                              \
    ParameterizedTest(struct world_case *c, Suite, Name)

struct world;
struct node {
    struct world *world;
    struct lane *lane;
    spoke_socket *s; /* call it through node_…() */
    spoke_engine *e; /* NULL if shared */
};

struct world *world_open(const struct world_case *c);
void world_close(struct world *w);
enum mode world_mode(const struct world *w);

/* Add a socket; the test fails if it does not open. */
struct node *world_add(struct world *w, int pattern);

/* Let the world go on until done(ctx) is true: true; or `limit` has passed: false.  `done` runs on
 * the test's thread. */
bool world_until(struct world *w, bool (*done)(void *ctx), void *ctx, spoke_ns limit);
/* Let it go on for some time. */
void world_pass(struct world *w, spoke_ns duration);
/* A short pause after which also engines that got no time meanwhile have done what they can: if
 * nothing has changed in some of them, nothing will. */
void world_settle(struct world *w);
/* The world's clock. */
spoke_ns world_now(struct world *w);

/* A new address on the case's transport. */
void world_url(struct world *w, char url[ENDPOINT_MAX]);
/* `listener` listens on a new address, `dialer` dials it; returns when both have attached a pipe.
 */
void world_connect(struct world *w, struct node *listener, struct node *dialer);
/* Wait until the node has exactly, or at least, so many pipes; the test fails if it takes too long.
 */
void world_wait_pipes(struct world *w, struct node *n, uint64_t count);
void world_wait_attached(struct world *w, struct node *n, uint64_t count);
/* Wait until the node has turned at least one peer away. */
void world_wait_refused(struct world *w, struct node *n);

/* Run fn(n, ctx) where the node lives. */
typedef int node_f(struct node *n, void *ctx);
int node_run(struct node *n, node_f *fn, void *ctx);
/* The same without waiting for it (OWNED_TWO and SHARED); one at a time for each node. */
struct task;
struct task *node_start(struct node *n, node_f *fn, void *ctx);
int task_join(struct task *task);

int node_send(struct node *n, spoke_msg *m, int flags);
int node_recv(struct node *n, spoke_msg **m, int flags);
int node_sendv(struct node *n, spoke_msg **messages, int count, int flags);
int node_recvv(struct node *n, spoke_msg **messages, int count, int flags);
int node_send_bytes(struct node *n, const void *data, size_t size, int flags);
int node_recv_bytes(struct node *n, void *buffer, size_t *size, int flags);
int node_dial(struct node *n, const char *url, spoke_dialer **d, int flags);
int node_listen(struct node *n, const char *url, spoke_listener **l, int flags);
int node_dialer_close(struct node *n, spoke_dialer *d);
int node_listener_close(struct node *n, spoke_listener *l);
int node_pipe_close(struct node *n, spoke_pipe_id pipe);
int node_close(struct node *n, struct spoke_close_report *report);
int node_set(struct node *n, const char *name, enum spoke_type type, const void *value,
             size_t size);
int node_get(struct node *n, const char *name, enum spoke_type type, void *value, size_t *size);
int node_set_int(struct node *n, const char *name, int value);
int node_set_bool(struct node *n, const char *name, bool value);
int node_set_size(struct node *n, const char *name, size_t value);
int node_set_duration(struct node *n, const char *name, spoke_ns value);
int node_get_int(struct node *n, const char *name, int *value);
int node_on_message(struct node *n, spoke_message_f *fn, void *ctx);
int node_on_writable(struct node *n, spoke_writable_f *fn, void *ctx);
int node_on_event(struct node *n, spoke_event_f *fn, void *ctx);
/* The address that a listener is bound to. */
int node_address(struct node *n, spoke_listener *l, char url[ENDPOINT_MAX]);
int node_pipe_get(struct node *n, spoke_pipe_id pipe, const char *name, enum spoke_type type,
                  void *value, size_t *size);
struct spoke_stats node_stats(struct node *n);
struct spoke_dialer_stats node_dialer_stats(struct node *n, spoke_dialer *d);
struct spoke_listener_stats node_listener_stats(struct node *n, spoke_listener *l);

/* Bytes that can be told from others: depend on `seed` and the place. */
void pattern_fill(void *bytes, size_t size, uint32_t seed);
bool pattern_holds(const void *bytes, size_t size, uint32_t seed);
/* A message of that kind; the test fails if there is no memory. */
spoke_msg *pattern_message(size_t size, uint32_t seed);
/* Receive one, check it, free it: 0, or the error of the receive, or SPOKE_EPROTO if it is another
 * one. */
int node_expect(struct node *n, size_t size, uint32_t seed);
/* Send one. */
int node_send_pattern(struct node *n, size_t size, uint32_t seed, int flags);

#endif
