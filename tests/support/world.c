/* SPDX-License-Identifier: MIT */
/* A lane is an engine together with what drives it: nobody (shared), the test's thread, or a thread
 * of its own, which runs the engine and steps out of it to make the calls that the test's thread
 * hands over. */
#include "tests/support/world.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/certs.h"
#include "tests/support/resources.h"
#include "tests/support/waiters.h"

#define NODES_MAX 64

struct task {
    node_f *fn;
    struct node *node;
    void *ctx;
    int result;
    bool done;
    bool own_thread; /* `thread` makes the call, not the lane */
    pthread_t thread;
};

struct lane {
    spoke_engine *e; /* NULL: shared */
    bool threaded;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows; `changed` says that some of it changed */
    pthread_cond_t changed;
    struct task *task;
    int opened; /* 1, or the error of opening the engine */
    bool quit;
};

struct world {
    struct world_case c;
    spoke_sim *sim;
    struct lane lanes[2];
    int lanes_count;
    struct node nodes[NODES_MAX];
    int nodes_count;
    struct resources before;
};

/* ---- cases ---- */

#define BIT(n) (1u << (n))
enum {
    EVERY_TRANSPORT = BIT(INPROC) | BIT(IPC) | BIT(TCP) | BIT(SHM) | BIT(TLS) | BIT(WS) | BIT(WSS),
    STREAMS = BIT(IPC) | BIT(TCP) | BIT(SHM) | BIT(TLS) | BIT(WS) | BIT(WSS),
    FILES = BIT(IPC) | BIT(SHM),
    EVERY_MODE = BIT(OWNED_ONE) | BIT(OWNED_TWO) | BIT(SHARED) | BIT(SIM),
    REAL = EVERY_MODE & ~BIT(SIM),
    EVERY_FEATURE = SPOKE_FEATURE_DEFER_TASKRUN | SPOKE_FEATURE_PROVIDED_BUFFERS |
                    SPOKE_FEATURE_MULTISHOT_ACCEPT | SPOKE_FEATURE_REGISTERED_RING,
};

static struct criterion_test_params
list_cases(unsigned transports, unsigned modes)
{
    static struct world_case cases[32];
    const char *backend = getenv("SPOKE_BACKEND"), *mask = getenv("SPOKE_MASK_FEATURES");
    size_t count = 0;

    if ((backend != NULL && strcmp(backend, "poll") == 0) || mask != NULL ||
        getenv("SPOKE_UPGRADE") != NULL)
        modes &= REAL;
#ifdef __SANITIZE_THREAD__
    /* One thread does not race with itself. */
    if ((modes & (BIT(OWNED_TWO) | BIT(SHARED))) != 0)
        modes &= BIT(OWNED_TWO) | BIT(SHARED);
#endif
    if (mask != NULL && strtoul(mask, NULL, 0) != EVERY_FEATURE)
        transports &= ~BIT(INPROC);
    if (mask != NULL) /* below tls and ws there is tcp, which has had it */
        transports &= ~(BIT(TLS) | BIT(WS) | BIT(WSS));
    for (int transport = INPROC; transport <= LAST_TRANSPORT; transport++) {
        for (int mode = OWNED_ONE; mode <= SIM; mode++) {
            bool spared = (transport >= TLS && mode == OWNED_TWO) ||
                          (transport == WSS && mode == OWNED_ONE);

            if ((transport >= SHM && mode == SIM) ||
                !transport_is_wanted((enum transport)transport) ||
                (spared && !transport_is_named((enum transport)transport)))
                continue;
            if (transports & BIT(transport) && modes & BIT(mode))
                cases[count++] = (struct world_case){(enum transport)transport, (enum mode)mode};
        }
    }
    return (struct criterion_test_params){
        .size = sizeof cases[0], .params = cases, .length = count};
}

struct criterion_test_params
world_cases(void)
{
    return list_cases(EVERY_TRANSPORT, EVERY_MODE);
}

struct criterion_test_params
world_cases_real(void)
{
    return list_cases(EVERY_TRANSPORT, REAL);
}

struct criterion_test_params
world_cases_threaded(void)
{
    return list_cases(EVERY_TRANSPORT, BIT(OWNED_TWO) | BIT(SHARED));
}

struct criterion_test_params
world_cases_direct(void)
{
    return list_cases(EVERY_TRANSPORT, EVERY_MODE & ~BIT(OWNED_TWO));
}

struct criterion_test_params
world_cases_direct_real(void)
{
    return list_cases(EVERY_TRANSPORT, REAL & ~BIT(OWNED_TWO));
}

struct criterion_test_params
world_cases_owned(void)
{
    return list_cases(EVERY_TRANSPORT, BIT(OWNED_ONE));
}

struct criterion_test_params
world_cases_shared(void)
{
    return list_cases(EVERY_TRANSPORT, BIT(SHARED));
}

struct criterion_test_params
world_cases_files(void)
{
    return list_cases(FILES, REAL);
}

struct criterion_test_params
world_cases_tcp(void)
{
    return list_cases(BIT(TCP), EVERY_MODE);
}

struct criterion_test_params
world_cases_tcp_real(void)
{
    return list_cases(BIT(TCP), REAL);
}

struct criterion_test_params
world_cases_streams(void)
{
    return list_cases(STREAMS, EVERY_MODE);
}

struct criterion_test_params
world_cases_streams_real(void)
{
    return list_cases(STREAMS, REAL);
}

struct criterion_test_params
world_cases_streams_threaded(void)
{
    return list_cases(STREAMS, BIT(OWNED_TWO) | BIT(SHARED));
}

/* ---- lanes ---- */

static void
lane_finish(struct lane *lane, struct task *task)
{
    int result = task->fn(task->node, task->ctx);

    pthread_mutex_lock(&lane->lock);
    task->result = result;
    task->done = true;
    pthread_cond_broadcast(&lane->changed);
    pthread_mutex_unlock(&lane->lock);
}

static void *
lane_main(void *argument)
{
    struct lane *lane = argument;
    bool quit = false;
    int rc = spoke_engine_open(&lane->e, NULL);

    pthread_mutex_lock(&lane->lock);
    lane->opened = rc == 0 ? 1 : rc;
    pthread_cond_broadcast(&lane->changed);
    pthread_mutex_unlock(&lane->lock);
    while (rc == 0 && !quit) {
        spoke_engine_run(lane->e);
        pthread_mutex_lock(&lane->lock);
        struct task *task = lane->task;
        lane->task = NULL;
        quit = lane->quit;
        pthread_mutex_unlock(&lane->lock);
        if (task != NULL)
            lane_finish(lane, task);
    }
    if (rc == 0)
        spoke_engine_close(lane->e);
    return NULL;
}

static void
lane_start_thread(struct lane *lane)
{
    lane->threaded = true;
    pthread_mutex_init(&lane->lock, NULL);
    pthread_cond_init(&lane->changed, NULL);
    cr_assert_eq(pthread_create(&lane->thread, NULL, lane_main, lane), 0);
    pthread_mutex_lock(&lane->lock);
    while (lane->opened == 0)
        pthread_cond_wait(&lane->changed, &lane->lock);
    pthread_mutex_unlock(&lane->lock);
    cr_assert_eq(lane->opened, 1, "engine: %s", spoke_strerror(lane->opened));
}

static void
lane_stop_thread(struct lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    lane->quit = true;
    pthread_mutex_unlock(&lane->lock);
    cr_assert_eq(spoke_engine_stop(lane->e), 0);
    pthread_join(lane->thread, NULL);
    pthread_cond_destroy(&lane->changed);
    pthread_mutex_destroy(&lane->lock);
}

static void
lane_hand_over(struct lane *lane, struct task *task)
{
    pthread_mutex_lock(&lane->lock);
    cr_assert_null(lane->task, "one task at a time");
    lane->task = task;
    pthread_mutex_unlock(&lane->lock);
    cr_assert_eq(spoke_engine_stop(lane->e), 0);
}

static void
lane_await(struct lane *lane, struct task *task)
{
    pthread_mutex_lock(&lane->lock);
    while (!task->done)
        pthread_cond_wait(&lane->changed, &lane->lock);
    pthread_mutex_unlock(&lane->lock);
}

/* ---- the world ---- */

/* What the shared engine makes once and keeps is made before anything is counted. */
static void
warm_up_shared(enum transport transport)
{
    char url[ENDPOINT_MAX];
    spoke_socket *a, *b;
    struct spoke_engine_info info;

    cr_assert_eq(spoke_engine_get_info(NULL, &info), 0);
    endpoint_fresh(url, transport);
    cr_assert_eq(spoke_socket_open(&a, SPOKE_PAIR, NULL), 0);
    cr_assert_eq(spoke_socket_open(&b, SPOKE_PAIR, NULL), 0);
    if (transport_has_tls(transport)) {
        cr_assert_eq(spoke_socket_set_tls(a, test_tls()), 0);
        cr_assert_eq(spoke_socket_set_tls(b, test_tls()), 0);
    }
    cr_assert_eq(spoke_listen(a, url, NULL, 0), 0);
    cr_assert_eq(spoke_dial(b, url, NULL, SPOKE_WAIT_FIRST), 0);
    for (uint32_t i = 0; i < 20; i++) {
        spoke_msg *m;
        cr_assert_eq(spoke_send(i % 2 == 0 ? a : b, pattern_message(i * 10000, i), 0), 0);
        cr_assert_eq(spoke_recv(i % 2 == 0 ? b : a, &m, 0), 0);
        spoke_msg_free(m);
    }
    cr_assert_eq(spoke_socket_close(b), 0);
    cr_assert_eq(spoke_socket_close(a), 0);
}

static void
open_lanes(struct world *w)
{
    switch (w->c.mode) {
    case SHARED: w->lanes_count = 1; break;
    case OWNED_ONE:
        w->lanes_count = 1;
        cr_assert_eq(spoke_engine_open(&w->lanes[0].e, NULL), 0);
        break;
    case OWNED_TWO:
        w->lanes_count = 2;
        lane_start_thread(&w->lanes[0]);
        lane_start_thread(&w->lanes[1]);
        break;
    case SIM:
        w->lanes_count = 2;
        cr_assert_eq(spoke_sim_open(&w->sim, NULL), 0);
        cr_assert_eq(spoke_sim_engine(w->sim, &w->lanes[0].e), 0);
        cr_assert_eq(spoke_sim_engine(w->sim, &w->lanes[1].e), 0);
        break;
    }
}

static const char *
mode_name(enum mode mode)
{
    static const char *const names[] = {"owned", "two owned", "shared", "sim"};

    return names[mode];
}

struct world *
world_open(const struct world_case *c)
{
    struct world *w = calloc(1, sizeof *w);

    cr_assert_not_null(w);
    w->c = *c;
    cr_log_info("%s, %s", transport_name(c->transport), mode_name(c->mode));
    scratch_dir();
    if (transport_has_tls(c->transport))
        test_tls();
    if (c->mode == SHARED)
        warm_up_shared(c->transport);
    resources_take(&w->before);
    open_lanes(w);
    return w;
}

void
world_close(struct world *w)
{
    for (int i = 0; i < w->nodes_count; i++) {
        if (w->nodes[i].s != NULL)
            node_close(&w->nodes[i], NULL);
    }
    if (w->c.mode == SIM) {
        struct spoke_sim_report report;
        cr_expect_eq(spoke_sim_close(w->sim, &report), 0);
        cr_expect_eq(report.ops_left, 0);
        cr_expect_eq(report.handles_left, 0);
        cr_expect_eq(report.double_completions, 0);
    }
    for (int i = 0; i < w->lanes_count && w->c.mode != SIM; i++) {
        if (w->lanes[i].threaded)
            lane_stop_thread(&w->lanes[i]);
        else if (w->lanes[i].e != NULL)
            cr_expect_eq(spoke_engine_close(w->lanes[i].e), 0);
    }
    resources_settle(&w->before);
    free(w);
}

enum mode
world_mode(const struct world *w)
{
    return w->c.mode;
}

static int
call_open(struct node *n, void *ctx)
{
    int rc = spoke_socket_open(&n->s, *(int *)ctx, n->e);

    if (rc == 0)
        rc = spoke_socket_set_duration(n->s, SPOKE_OPT_RECV_TIMEOUT, WORLD_PATIENCE);
    if (rc == 0)
        rc = spoke_socket_set_duration(n->s, SPOKE_OPT_SEND_TIMEOUT, WORLD_PATIENCE);
    if (rc == 0) /* so that tests of reconnecting are quick */
        rc = spoke_socket_set_duration(n->s, SPOKE_OPT_RECONNECT, 5 * SPOKE_MS);
    if (rc == 0 && transport_has_tls(n->world->c.transport))
        rc = spoke_socket_set_tls(n->s, test_tls());
    return rc;
}

struct node *
world_add(struct world *w, int pattern)
{
    cr_assert_lt(w->nodes_count, NODES_MAX);
    struct node *n = &w->nodes[w->nodes_count];

    n->world = w;
    n->lane = &w->lanes[w->nodes_count % w->lanes_count];
    n->e = n->lane->e;
    w->nodes_count++;
    int rc = node_run(n, call_open, &pattern);
    cr_assert_eq(rc, 0, "open: %s", spoke_error_name(rc));
    return n;
}

static spoke_ns
clock_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (spoke_ns)time.tv_sec * SPOKE_SECOND + time.tv_nsec;
}

spoke_ns
world_now(struct world *w)
{
    return w->c.mode == SIM ? spoke_sim_now(w->sim) : clock_ns();
}

bool
world_until(struct world *w, bool (*done)(void *ctx), void *ctx, spoke_ns limit)
{
    const struct timespec pause = {.tv_nsec = 100 * 1000};
    spoke_ns end = clock_ns() + limit;

    if (w->c.mode == SIM)
        return spoke_sim_run(w->sim, done, ctx, limit) == 1;
    while (!done(ctx)) {
        if (clock_ns() >= end)
            return false;
        if (w->c.mode == OWNED_ONE)
            cr_assert_geq(spoke_engine_poll(w->lanes[0].e, SPOKE_MS), 0);
        else
            nanosleep(&pause, NULL);
    }
    return true;
}

static bool
never(void *ctx)
{
    (void)ctx;
    return false;
}

void
world_pass(struct world *w, spoke_ns duration)
{
    world_until(w, never, NULL, duration);
}

static int
do_nothing(struct node *n, void *ctx)
{
    (void)n;
    (void)ctx;
    return 0;
}

/* A lane's thread ends one run of its engine for each call that it makes, so that there is a whole
 * one between two. */
void
world_settle(struct world *w)
{
    world_pass(w, 2 * SPOKE_MS);
    if (w->c.mode == SHARED)
        await_engine();
    for (int i = 0; i < 2 * w->nodes_count; i++)
        node_run(&w->nodes[i % w->nodes_count], do_nothing, NULL);
}

void
world_url(struct world *w, char url[ENDPOINT_MAX])
{
    endpoint_fresh(url, w->c.transport);
}

struct pipes_wanted {
    struct node *node;
    uint64_t count;
};

static bool
has_pipes(void *ctx)
{
    const struct pipes_wanted *wanted = ctx;

    return node_stats(wanted->node).pipes_current == wanted->count;
}

static bool
has_attached(void *ctx)
{
    const struct pipes_wanted *wanted = ctx;

    return node_stats(wanted->node).pipes_attached >= wanted->count;
}

void
world_wait_pipes(struct world *w, struct node *n, uint64_t count)
{
    struct pipes_wanted wanted = {n, count};

    cr_assert(world_until(w, has_pipes, &wanted, WORLD_PATIENCE), "pipes: %llu, wanted %llu",
              (unsigned long long)node_stats(n).pipes_current, (unsigned long long)count);
}

void
world_wait_attached(struct world *w, struct node *n, uint64_t count)
{
    struct pipes_wanted wanted = {n, count};

    cr_assert(world_until(w, has_attached, &wanted, WORLD_PATIENCE),
              "pipes ever: %llu, wanted %llu", (unsigned long long)node_stats(n).pipes_attached,
              (unsigned long long)count);
}

static bool
has_refused(void *ctx)
{
    return node_stats(ctx).refused > 0;
}

void
world_wait_refused(struct world *w, struct node *n)
{
    cr_assert(world_until(w, has_refused, n, WORLD_PATIENCE), "nobody was turned away");
}

void
world_connect(struct world *w, struct node *listener, struct node *dialer)
{
    char url[ENDPOINT_MAX];
    uint64_t there = node_stats(listener).pipes_attached, here = node_stats(dialer).pipes_attached;

    world_url(w, url);
    int rc = node_listen(listener, url, NULL, 0);
    cr_assert_eq(rc, 0, "listen %s: %s", url, spoke_error_name(rc));
    rc = node_dial(dialer, url, NULL, 0);
    cr_assert_eq(rc, 0, "dial %s: %s", url, spoke_error_name(rc));
    world_wait_attached(w, listener, there + 1);
    world_wait_attached(w, dialer, here + 1);
}

/* ---- calls ---- */

int
node_run(struct node *n, node_f *fn, void *ctx)
{
    struct task task = {.fn = fn, .node = n, .ctx = ctx};

    if (!n->lane->threaded)
        return fn(n, ctx);
    lane_hand_over(n->lane, &task);
    lane_await(n->lane, &task);
    return task.result;
}

static void *
task_main(void *argument)
{
    struct task *task = argument;

    task->result = task->fn(task->node, task->ctx);
    return NULL;
}

struct task *
node_start(struct node *n, node_f *fn, void *ctx)
{
    struct task *task = calloc(1, sizeof *task);

    cr_assert_not_null(task);
    cr_assert(n->lane->threaded || n->e == NULL, "nothing could go on beside this task");
    *task = (struct task){.fn = fn, .node = n, .ctx = ctx, .own_thread = n->e == NULL};
    if (task->own_thread)
        cr_assert_eq(pthread_create(&task->thread, NULL, task_main, task), 0);
    else
        lane_hand_over(n->lane, task);
    return task;
}

int
task_join(struct task *task)
{
    if (task->own_thread)
        pthread_join(task->thread, NULL);
    else
        lane_await(task->node->lane, task);
    int result = task->result;
    free(task);
    return result;
}

/* The arguments of one call on their way to the node's thread. */
struct call {
    spoke_msg **messages;
    const char *text;
    const void *data;
    void *value;
    size_t size, *sizep;
    int count, flags;
    enum spoke_type type;
    spoke_pipe_id pipe;
    spoke_dialer *dialer, **dialerp;
    spoke_listener *listener, **listenerp;
    struct spoke_close_report *report;
    spoke_message_f *on_message;
    spoke_writable_f *on_writable;
    spoke_event_f *on_event;
};

#define NODE_CALL(Name, Expression)                                                                \
    static int call_##Name(struct node *n, void *ctx)                                              \
    {                                                                                              \
        struct call *call = ctx;                                                                   \
        return Expression;                                                                         \
    }
NODE_CALL(send, spoke_send(n->s, call->messages[0], call->flags))
NODE_CALL(recv, spoke_recv(n->s, call->messages, call->flags))
NODE_CALL(sendv, spoke_sendv(n->s, call->messages, call->count, call->flags))
NODE_CALL(recvv, spoke_recvv(n->s, call->messages, call->count, call->flags))
NODE_CALL(send_bytes, spoke_send_bytes(n->s, call->data, call->size, call->flags))
NODE_CALL(recv_bytes, spoke_recv_bytes(n->s, call->value, call->sizep, call->flags))
NODE_CALL(dial, spoke_dial(n->s, call->text, call->dialerp, call->flags))
NODE_CALL(listen, spoke_listen(n->s, call->text, call->listenerp, call->flags))
NODE_CALL(dialer_close, ((void)n, spoke_dialer_close(call->dialer)))
NODE_CALL(listener_close, ((void)n, spoke_listener_close(call->listener)))
NODE_CALL(pipe_close, spoke_pipe_close(n->s, call->pipe))
NODE_CALL(close, spoke_socket_close_report(n->s, call->report))
NODE_CALL(set, spoke_socket_set(n->s, call->text, call->type, call->data, call->size))
NODE_CALL(get, spoke_socket_get(n->s, call->text, call->type, call->value, call->sizep))
NODE_CALL(on_message, spoke_socket_on_message(n->s, call->on_message, call->value))
NODE_CALL(on_writable, spoke_socket_on_writable(n->s, call->on_writable, call->value))
NODE_CALL(on_event, spoke_socket_on_event(n->s, call->on_event, call->value))
NODE_CALL(address, ((void)n, spoke_listener_get_string(call->listener, SPOKE_OPT_ADDRESS,
                                                       call->value, ENDPOINT_MAX)))
NODE_CALL(pipe_get,
          spoke_pipe_get(n->s, call->pipe, call->text, call->type, call->value, call->sizep))
NODE_CALL(stats, spoke_socket_stats(n->s, call->value))
NODE_CALL(dialer_stats, ((void)n, spoke_dialer_stats(call->dialer, call->value)))
NODE_CALL(listener_stats, ((void)n, spoke_listener_stats(call->listener, call->value)))
#undef NODE_CALL

int
node_send(struct node *n, spoke_msg *m, int flags)
{
    return node_run(n, call_send, &(struct call){.messages = &m, .flags = flags});
}

int
node_recv(struct node *n, spoke_msg **m, int flags)
{
    return node_run(n, call_recv, &(struct call){.messages = m, .flags = flags});
}

int
node_sendv(struct node *n, spoke_msg **messages, int count, int flags)
{
    struct call call = {.messages = messages, .count = count, .flags = flags};

    return node_run(n, call_sendv, &call);
}

int
node_recvv(struct node *n, spoke_msg **messages, int count, int flags)
{
    struct call call = {.messages = messages, .count = count, .flags = flags};

    return node_run(n, call_recvv, &call);
}

int
node_send_bytes(struct node *n, const void *data, size_t size, int flags)
{
    struct call call = {.data = data, .size = size, .flags = flags};

    return node_run(n, call_send_bytes, &call);
}

int
node_recv_bytes(struct node *n, void *buffer, size_t *size, int flags)
{
    struct call call = {.value = buffer, .sizep = size, .flags = flags};

    return node_run(n, call_recv_bytes, &call);
}

int
node_dial(struct node *n, const char *url, spoke_dialer **d, int flags)
{
    return node_run(n, call_dial, &(struct call){.text = url, .dialerp = d, .flags = flags});
}

int
node_listen(struct node *n, const char *url, spoke_listener **l, int flags)
{
    return node_run(n, call_listen, &(struct call){.text = url, .listenerp = l, .flags = flags});
}

int
node_dialer_close(struct node *n, spoke_dialer *d)
{
    return node_run(n, call_dialer_close, &(struct call){.dialer = d});
}

int
node_listener_close(struct node *n, spoke_listener *l)
{
    return node_run(n, call_listener_close, &(struct call){.listener = l});
}

int
node_pipe_close(struct node *n, spoke_pipe_id pipe)
{
    return node_run(n, call_pipe_close, &(struct call){.pipe = pipe});
}

int
node_close(struct node *n, struct spoke_close_report *report)
{
    return node_run(n, call_close, &(struct call){.report = report});
}

int
node_set(struct node *n, const char *name, enum spoke_type type, const void *value, size_t size)
{
    struct call call = {.text = name, .type = type, .data = value, .size = size};

    return node_run(n, call_set, &call);
}

int
node_get(struct node *n, const char *name, enum spoke_type type, void *value, size_t *size)
{
    struct call call = {.text = name, .type = type, .value = value, .sizep = size};

    return node_run(n, call_get, &call);
}

int
node_set_int(struct node *n, const char *name, int value)
{
    return node_set(n, name, SPOKE_INT, &value, sizeof value);
}

int
node_set_bool(struct node *n, const char *name, bool value)
{
    return node_set(n, name, SPOKE_BOOL, &value, sizeof value);
}

int
node_set_size(struct node *n, const char *name, size_t value)
{
    return node_set(n, name, SPOKE_SIZE, &value, sizeof value);
}

int
node_set_duration(struct node *n, const char *name, spoke_ns value)
{
    return node_set(n, name, SPOKE_DURATION, &value, sizeof value);
}

int
node_get_int(struct node *n, const char *name, int *value)
{
    size_t size = sizeof *value;

    return node_get(n, name, SPOKE_INT, value, &size);
}

int
node_on_message(struct node *n, spoke_message_f *fn, void *ctx)
{
    return node_run(n, call_on_message, &(struct call){.on_message = fn, .value = ctx});
}

int
node_on_writable(struct node *n, spoke_writable_f *fn, void *ctx)
{
    return node_run(n, call_on_writable, &(struct call){.on_writable = fn, .value = ctx});
}

int
node_on_event(struct node *n, spoke_event_f *fn, void *ctx)
{
    return node_run(n, call_on_event, &(struct call){.on_event = fn, .value = ctx});
}

int
node_address(struct node *n, spoke_listener *l, char url[ENDPOINT_MAX])
{
    return node_run(n, call_address, &(struct call){.listener = l, .value = url});
}

int
node_pipe_get(struct node *n, spoke_pipe_id pipe, const char *name, enum spoke_type type,
              void *value, size_t *size)
{
    struct call call = {.pipe = pipe, .text = name, .type = type, .value = value, .sizep = size};

    return node_run(n, call_pipe_get, &call);
}

struct spoke_stats
node_stats(struct node *n)
{
    struct spoke_stats stats = {0};
    int rc = node_run(n, call_stats, &(struct call){.value = &stats});

    cr_assert_eq(rc, 0, "stats: %s", spoke_error_name(rc));
    return stats;
}

struct spoke_dialer_stats
node_dialer_stats(struct node *n, spoke_dialer *d)
{
    struct spoke_dialer_stats stats = {0};
    int rc = node_run(n, call_dialer_stats, &(struct call){.dialer = d, .value = &stats});

    cr_assert_eq(rc, 0, "dialer stats: %s", spoke_error_name(rc));
    return stats;
}

struct spoke_listener_stats
node_listener_stats(struct node *n, spoke_listener *l)
{
    struct spoke_listener_stats stats = {0};
    int rc = node_run(n, call_listener_stats, &(struct call){.listener = l, .value = &stats});

    cr_assert_eq(rc, 0, "listener stats: %s", spoke_error_name(rc));
    return stats;
}

/* ---- messages ---- */

static uint8_t
pattern_byte(size_t place, uint32_t seed)
{
    return (uint8_t)(seed * 31 + place * 7 + (place >> 8) + (place >> 16));
}

void
pattern_fill(void *bytes, size_t size, uint32_t seed)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)bytes)[i] = pattern_byte(i, seed);
}

bool
pattern_holds(const void *bytes, size_t size, uint32_t seed)
{
    for (size_t i = 0; i < size; i++) {
        if (((const uint8_t *)bytes)[i] != pattern_byte(i, seed))
            return false;
    }
    return true;
}

spoke_msg *
pattern_message(size_t size, uint32_t seed)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_new(&m, size), 0);
    pattern_fill(spoke_msg_body(m), size, seed);
    return m;
}

int
node_expect(struct node *n, size_t size, uint32_t seed)
{
    spoke_msg *m;
    int rc = node_recv(n, &m, 0);

    if (rc != 0)
        return rc;
    if (spoke_msg_size(m) != size || !pattern_holds(spoke_msg_body(m), size, seed))
        rc = SPOKE_EPROTO;
    spoke_msg_free(m);
    return rc;
}

int
node_send_pattern(struct node *n, size_t size, uint32_t seed, int flags)
{
    spoke_msg *m = pattern_message(size, seed);
    int rc = node_send(n, m, flags);

    if (rc != 0)
        spoke_msg_free(m);
    return rc;
}
