/* SPDX-License-Identifier: MIT */
/* The backends on real descriptors, through the engine's operations: every test runs on io_uring
 * with all its features, on io_uring with each of them masked, and on epoll. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/engine/backend.h"
#include "runtime/engine/engine.h"
#include "runtime/memory/pool.h"
#include "tests/support/random.h"
#include "tests/support/test.h"

TestSuite(backend, .timeout = TEST_TIMEOUT_S);

#define URING_ALL                                                                                  \
    (SPOKE_FEATURE_DEFER_TASKRUN | SPOKE_FEATURE_PROVIDED_BUFFERS |                                \
     SPOKE_FEATURE_MULTISHOT_ACCEPT | SPOKE_FEATURE_REGISTERED_RING)
#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

/* ---- what the tests run on ---- */

struct setup {
    char backend[8];
    uint32_t masked;
};

static const struct setup setups[] = {
    {"poll", 0},
    {"uring", 0},
    {"uring", SPOKE_FEATURE_DEFER_TASKRUN},
    {"uring", SPOKE_FEATURE_PROVIDED_BUFFERS},
    {"uring", SPOKE_FEATURE_MULTISHOT_ACCEPT},
    {"uring", SPOKE_FEATURE_REGISTERED_RING},
    {"uring", URING_ALL},
};

static struct criterion_test_params
every_setup(void)
{
    static int numbers[sizeof setups / sizeof setups[0]];

    for (size_t i = 0; i < sizeof setups / sizeof setups[0]; i++)
        numbers[i] = (int)i;
    return cr_make_param_array(int, numbers, sizeof setups / sizeof setups[0], NULL);
}

#define ON_EVERY_BACKEND(name)                                                                     \
    ParameterizedTestParameters(backend, name)                                                     \
    {                                                                                              \
        return every_setup();                                                                      \
    }                                                                                              \
    ParameterizedTest(const int *number, backend, name)

static bool
has_uring(void)
{
    static int has = -1;
    spoke_engine_config config;
    struct spk_engine *e;

    if (has >= 0)
        return has == 1;
    spoke_engine_config_init(&config);
    config.backend = "uring";
    has = spk_engine_open_with(&e, NULL, NULL, &config) == 0;
    if (has == 1)
        spk_engine_close(e);
    return has == 1;
}

/* Change `config` before the engine opens, where a test has to. */
static struct spk_engine *
open_configured(const struct setup *setup, const spoke_engine_config *wanted)
{
    spoke_engine_config config = *wanted;
    struct spk_engine *e = NULL;

    if (strcmp(setup->backend, "uring") == 0 && !has_uring())
        cr_skip_test("io_uring is denied here");
    config.backend = setup->backend;
    config.mask_features = setup->masked;
    config.busy_poll_ns = SPOKE_WAIT_BLOCK;
    cr_assert_eq(spk_engine_open_with(&e, NULL, NULL, &config), 0);
    cr_assert_str_eq(e->info.backend, setup->backend);
    cr_assert_eq(e->info.features & setup->masked, 0);
    return e;
}

static struct spk_engine *
open_engine(int number)
{
    spoke_engine_config config;

    spoke_engine_config_init(&config);
    return open_configured(&setups[number], &config);
}

/* ---- operations under test ---- */

#define KEPT_MOST 64

struct call {
    struct spk_op op;
    int *handles;           /* accept: where to put them */
    struct spk_chunk *kept; /* with a reference, if `keep` */
    int result;             /* of the last completion */
    int answers;            /* completions in all */
    int finals;             /* of them final */
    bool keep;
    uint8_t bytes[1027];
};

static void
on_answer(struct spk_op *op, int result)
{
    struct call *call = SPK_OWNER(op, struct call, op);

    if (call->handles != NULL && result >= 0)
        call->handles[call->answers] = result;
    call->result = result;
    call->answers++;
    call->finals += op->more ? 0 : 1;
    if (op->kind == SPK_OP_RECV && result > 0 && op->u.recv.buffer == NULL) {
        memcpy(call->bytes, op->data,
               (size_t)result < sizeof call->bytes ? (size_t)result : sizeof call->bytes);
        if (call->keep)
            call->kept = spk_chunk_ref(op->chunk);
    }
}

static void
call_init(struct call *call)
{
    memset(call, 0, sizeof *call);
    spk_op_init(&call->op, on_answer);
}

/* Turn until `*number` is at least `wanted`. */
static void
run_until(struct spk_engine *e, const int *number, int wanted)
{
    spoke_ns until = spk_engine_now(e) + PATIENCE;

    while (*number < wanted) {
        cr_assert_lt(spk_engine_now(e), until, "%d of %d", *number, wanted);
        spk_engine_turn(e, until);
    }
}

static int
result_of(struct spk_engine *e, struct call *call)
{
    run_until(e, &call->finals, 1);
    cr_assert(!spk_op_busy(&call->op));
    call->finals = call->answers = 0;
    return call->result;
}

static void
run_for(struct spk_engine *e, spoke_ns duration)
{
    spoke_ns until = spk_engine_now(e) + duration;

    while (spk_engine_now(e) < until)
        spk_engine_turn(e, until);
}

/* ---- addresses ---- */

union address {
    struct sockaddr any;
    struct sockaddr_un un;
    struct sockaddr_in in;
};

struct place {
    union address address;
    socklen_t size;
    int listener;
};

/* A listener on an abstract name or on a port of the loopback interface. */
static void
listen_somewhere(struct spk_engine *e, struct place *place, int family, int backlog)
{
    static int number;
    struct sockaddr_storage real;

    memset(place, 0, sizeof *place);
    place->address.any.sa_family = (sa_family_t)family;
    if (family == AF_UNIX) {
        int n = snprintf(place->address.un.sun_path + 1, sizeof place->address.un.sun_path - 1,
                         "spoke-test-backend-%d-%d", (int)getpid(), number++);
        place->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    } else {
        place->address.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        place->size = sizeof place->address.in;
    }
    cr_assert_eq(e->backend->socket(e, family, &place->listener), 0);
    cr_assert_eq(e->backend->bind(e, place->listener, &place->address.any, place->size), 0);
    cr_assert_eq(e->backend->listen(e, place->listener, backlog), 0);
    cr_assert_eq(e->backend->local_address(e, place->listener, &real, &place->size), 0);
    memcpy(&place->address, &real, place->size);
}

static int
connect_to(struct spk_engine *e, const struct place *place, int *handle)
{
    struct call call;

    call_init(&call);
    cr_assert_eq(e->backend->socket(e, place->address.any.sa_family, handle), 0);
    spk_op_connect(e, &call.op, *handle, &place->address.any, place->size);
    return result_of(e, &call);
}

/* Two ends of a unix connection: [0] is the engine's, [1] the test's own. */
static void
make_pair(int ends[2])
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
}

static void
close_pair(struct spk_engine *e, const int ends[2])
{
    e->backend->close_handle(e, ends[0]);
    close(ends[1]);
}

static int
entries_of(const char *folder)
{
    DIR *d = opendir(folder);
    int count = 0;

    cr_assert_not_null(d);
    while (readdir(d) != NULL)
        count++;
    closedir(d);
    return count;
}

/* ---- the ordinary ---- */

static void
talk_over(struct spk_engine *e, int family)
{
    char reply[16] = {0};
    struct iovec iov = {.iov_base = (char[]){"hello, you"}, .iov_len = 10};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct call accepting, sending, receiving;
    struct sockaddr_storage peer;
    struct place place;
    socklen_t size;
    int client, server;

    listen_somewhere(e, &place, family, 8);
    call_init(&accepting);
    call_init(&sending);
    call_init(&receiving);
    accepting.handles = &server;
    spk_op_accept(e, &accepting.op, place.listener);
    cr_assert_eq(connect_to(e, &place, &client), 0);
    run_until(e, &accepting.answers, 1);
    accepting.handles = NULL;
    cr_assert_eq(e->backend->peer_address(e, client, &peer, &size), 0);
    cr_assert_eq(size, place.size);
    cr_assert_arr_eq(&peer, &place.address, size);
    cr_assert_neq(fcntl(server, F_GETFL) & O_NONBLOCK, 0);
    cr_assert_neq(fcntl(server, F_GETFD) & FD_CLOEXEC, 0);

    spk_op_recv(e, &receiving.op, server, NULL, 0); /* armed before there is anything */
    run_for(e, SPOKE_MS);
    spk_op_send(e, &sending.op, client, &msg);
    cr_assert_eq(result_of(e, &sending), 10);
    cr_assert_eq(result_of(e, &receiving), 10);
    cr_assert_arr_eq(receiving.bytes, "hello, you", 10);

    spk_op_send(e, &sending.op, server, &msg);
    spk_op_recv(e, &receiving.op, client, reply, 5); /* into memory of the caller's, in two parts */
    cr_assert_eq(result_of(e, &sending), 10);
    cr_assert_eq(result_of(e, &receiving), 5);
    cr_assert_str_eq(reply, "hello");
    spk_op_recv(e, &receiving.op, client, reply, sizeof reply);
    cr_assert_eq(result_of(e, &receiving), 5);
    cr_assert_str_eq(reply, ", you");

    spk_op_recv(e, &receiving.op, server, NULL, 0);
    run_for(e, SPOKE_MS);
    e->backend->close_handle(e, client);
    cr_assert_eq(result_of(e, &receiving), 0, "the end of the stream is a result of 0");
    spk_op_recv(e, &receiving.op, server, NULL, 0); /* and stays one, tried at once */
    cr_assert_eq(result_of(e, &receiving), 0);
    cr_assert_null(receiving.op.chunk);
    e->backend->close_handle(e, server);

    spk_op_cancel(e, &accepting.op);
    run_until(e, &accepting.finals, 1);
    e->backend->close_handle(e, place.listener);
}

ON_EVERY_BACKEND(carries_bytes_both_ways_over_unix_sockets)
{
    struct spk_engine *e = open_engine(*number);

    talk_over(e, AF_UNIX);
    spk_engine_close(e);
}

ON_EVERY_BACKEND(carries_bytes_both_ways_over_tcp)
{
    struct spk_engine *e = open_engine(*number);

    talk_over(e, AF_INET);
    spk_engine_close(e);
}

Test(backend, says_which_features_of_io_uring_are_in_use)
{
    struct spk_engine *e;

    for (int i = 0; i < (int)(sizeof setups / sizeof setups[0]); i++) {
        uint32_t all = strcmp(setups[i].backend, "uring") == 0 ? URING_ALL : 0;

        e = open_engine(i);
        cr_assert_eq(e->info.features, all & ~setups[i].masked, "setup %d", i);
        spk_engine_close(e);
    }
}

ON_EVERY_BACKEND(leaves_no_descriptor_and_no_thread_behind)
{
    struct spk_engine *e;
    int before, threads = entries_of("/proc/self/task");

    spk_engine_close(open_engine(*number)); /* whatever is made once */
    before = entries_of("/proc/self/fd");
    for (int i = 0; i < 10; i++) {
        e = open_engine(*number);
        talk_over(e, AF_UNIX);
        cr_assert_geq(e->backend->fd(e), 0);
        spk_engine_close(e);
    }
    cr_assert_eq(entries_of("/proc/self/fd"), before);
    cr_assert_eq(entries_of("/proc/self/task"), threads);
}

ON_EVERY_BACKEND(tells_why_a_connection_could_not_be_made)
{
    struct spk_engine *e = open_engine(*number);
    struct place place;
    int handle;

    for (int i = 0; i < 2; i++) {
        listen_somewhere(e, &place, i == 0 ? AF_UNIX : AF_INET, 1);
        e->backend->close_handle(e, place.listener);
        cr_assert_eq(connect_to(e, &place, &handle), SPOKE_ECONNREFUSED);
        e->backend->close_handle(e, handle);
    }
    listen_somewhere(e, &place, AF_UNIX, 1);
    e->backend->close_handle(e, place.listener);
    place.size = sizeof place.address.un;
    strcpy(place.address.un.sun_path, "/nonexistent/spoke");
    cr_assert_eq(connect_to(e, &place, &handle), SPOKE_ENOENT);
    e->backend->close_handle(e, handle);
    spk_engine_close(e);
}

/* Goal: a full backlog is an answer, not a wait, and breeds no thread in the kernel. */
ON_EVERY_BACKEND(says_so_when_a_local_backlog_is_full)
{
    struct spk_engine *e = open_engine(*number);
    int threads = entries_of("/proc/self/task"), handles[4], count = 0, rc = 0;
    struct place place;

    listen_somewhere(e, &place, AF_UNIX, 1);
    while (rc == 0 && count < 4)
        rc = connect_to(e, &place, &handles[count++]);
    cr_assert_eq(rc, SPOKE_EAGAIN);
    cr_assert_eq(entries_of("/proc/self/task"), threads);
    while (count > 0)
        e->backend->close_handle(e, handles[--count]);
    e->backend->close_handle(e, place.listener);
    spk_engine_close(e);
}

ON_EVERY_BACKEND(fails_a_send_to_a_peer_that_has_gone)
{
    struct spk_engine *e = open_engine(*number);
    struct iovec iov = {.iov_base = (char[]){"x"}, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct call sending;
    int ends[2];

    make_pair(ends);
    close(ends[1]);
    call_init(&sending);
    spk_op_send(e, &sending.op, ends[0], &msg); /* no SIGPIPE either */
    cr_assert_eq(result_of(e, &sending), SPOKE_ECONNRESET);
    cr_assert_eq(e->backend->send_now(e, ends[0], &iov, 1), SPOKE_ECONNRESET);
    e->backend->close_handle(e, ends[0]);
    spk_engine_close(e);
}

/* ---- many ---- */

static void
accept_burst(struct spk_engine *e, int family)
{
    enum { BURST = 200 };
    int clients[BURST], servers[BURST];
    struct call accepting, connecting[BURST];
    struct place place;

    listen_somewhere(e, &place, family, BURST);
    for (int i = 0; i < BURST; i++) {
        call_init(&connecting[i]);
        cr_assert_eq(e->backend->socket(e, family, &clients[i]), 0);
        spk_op_connect(e, &connecting[i].op, clients[i], &place.address.any, place.size);
    }
    for (int i = 0; i < BURST; i++)
        cr_assert_eq(result_of(e, &connecting[i]), 0);
    call_init(&accepting);
    accepting.handles = servers;
    while (accepting.answers < BURST) {
        int finals = accepting.finals;

        spk_op_accept(e, &accepting.op, place.listener);
        while (accepting.answers < BURST && accepting.finals == finals)
            spk_engine_turn(e, spk_engine_now(e) + SPOKE_SECOND);
        cr_assert_geq(accepting.result, 0);
    }
    accepting.handles = NULL;
    if (spk_op_busy(&accepting.op)) {
        spk_op_cancel(e, &accepting.op);
        result_of(e, &accepting);
    }
    for (int i = 0; i < BURST; i++) {
        e->backend->close_handle(e, clients[i]);
        e->backend->close_handle(e, servers[i]);
    }
    e->backend->close_handle(e, place.listener);
}

ON_EVERY_BACKEND(accepts_a_burst_of_two_hundred)
{
    struct spk_engine *e = open_engine(*number);

    accept_burst(e, AF_UNIX);
    accept_burst(e, AF_INET);
    spk_engine_close(e);
}

static void
allow_descriptors(rlim_t count)
{
    struct rlimit limit;

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur >= count)
        return;
    limit.rlim_cur = count;
    if (limit.rlim_max < count || setrlimit(RLIMIT_NOFILE, &limit) != 0)
        cr_skip_test("not enough descriptors");
}

/* Goal: a thousand receives wait, all become ready at once, in few buffers, and each brings its own
 * bytes. */
ON_EVERY_BACKEND(serves_a_thousand_connections)
{
    enum { MANY = 1000, ROUNDS = 3 };
    struct spk_engine *e = open_engine(*number);
    struct call *calls = calloc(MANY, sizeof *calls);
    int(*ends)[2] = calloc(MANY, sizeof *ends);

    allow_descriptors(2 * MANY + 100);
    for (int i = 0; i < MANY; i++) {
        call_init(&calls[i]);
        make_pair(ends[i]);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < MANY; i++)
            spk_op_recv(e, &calls[i].op, ends[i][0], NULL, 0);
        run_for(e, SPOKE_MS);
        for (int i = 0; i < MANY; i++)
            cr_assert_eq(write(ends[i][1], &i, sizeof i), (ssize_t)sizeof i);
        for (int i = 0; i < MANY; i++) {
            cr_assert_eq(result_of(e, &calls[i]), (int)sizeof i);
            cr_assert_arr_eq(calls[i].bytes, &i, sizeof i);
        }
    }
    for (int i = 0; i < MANY; i++)
        close_pair(e, ends[i]);
    free(ends);
    free(calls);
    spk_engine_close(e);
}

/* Goal: more submissions than the queue has room for all get through. */
ON_EVERY_BACKEND(takes_more_submissions_than_the_queue_holds)
{
    enum { MANY = 100 };
    spoke_engine_config config;
    struct spk_engine *e;
    struct call calls[MANY];
    int ends[MANY][2];

    spoke_engine_config_init(&config);
    config.entries = 4;
    e = open_configured(&setups[*number], &config);
    for (int i = 0; i < MANY; i++) {
        call_init(&calls[i]);
        make_pair(ends[i]);
        spk_op_recv(e, &calls[i].op, ends[i][0], NULL, 0);
    }
    run_for(e, SPOKE_MS);
    for (int i = 0; i < MANY; i += 2)
        cr_assert_eq(write(ends[i][1], "x", 1), 1);
    for (int i = 1; i < MANY; i += 2)
        spk_op_cancel(e, &calls[i].op);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(result_of(e, &calls[i]), i % 2 == 0 ? 1 : SPOKE_ECANCELED);
    for (int i = 0; i < MANY; i++)
        close_pair(e, ends[i]);
    spk_engine_close(e);
}

/* Goal: all that one turn submits is one system call, and a turn without work is none. */
ON_EVERY_BACKEND(submits_a_turn_in_one_system_call)
{
    enum { MANY = 50 };
    struct spk_engine *e = open_engine(*number);
    struct call calls[MANY];
    int ends[MANY][2];
    uint64_t enters;

    for (int i = 0; i < MANY; i++) {
        call_init(&calls[i]);
        make_pair(ends[i]);
        spk_op_recv(e, &calls[i].op, ends[i][0], NULL, 0);
    }
    enters = e->info.enters;
    spk_engine_turn(e, 0);
    cr_assert_eq(e->info.enters - enters, 1);
    for (int i = 0; i < 10; i++)
        spk_engine_turn(e, 0);
    if (strcmp(setups[*number].backend, "uring") == 0)
        cr_assert_eq(e->info.enters - enters, 1);
    for (int i = 0; i < MANY; i++)
        spk_op_cancel(e, &calls[i].op);
    enters = e->info.enters;
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(result_of(e, &calls[i]), SPOKE_ECANCELED);
    cr_assert_leq(e->info.enters - enters, 2);
    for (int i = 0; i < MANY; i++)
        close_pair(e, ends[i]);
    spk_engine_close(e);
}

/* Goal: a completion queue that overflows loses nothing.  Method: more receives on one descriptor
 * than the queue has entries (which only io_uring allows), all ended by the same event. */
ON_EVERY_BACKEND(loses_nothing_when_completions_overflow)
{
    enum { MANY = 6000 };
    struct spk_engine *e;
    struct call *calls, accepting;
    struct place place;
    int ends[2], server = -1, client;
    spoke_ns start;

    if (strcmp(setups[*number].backend, "uring") != 0)
        return;
    e = open_engine(*number);
    calls = calloc(MANY, sizeof *calls);
    listen_somewhere(e, &place, AF_UNIX, 8);
    call_init(&accepting);
    accepting.handles = &server;
    spk_op_accept(e, &accepting.op, place.listener);
    make_pair(ends);
    for (int i = 0; i < MANY; i++) {
        call_init(&calls[i]);
        spk_op_recv(e, &calls[i].op, ends[0], calls[i].bytes, 1);
    }
    run_for(e, SPOKE_MS);
    shutdown(ends[1], SHUT_WR);
    client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(client, &place.address.any, place.size), 0);
    e->backend->poke(e);
    for (int i = 0; i < MANY; i++) {
        cr_assert_eq(result_of(e, &calls[i]), 0);
        cr_assert_eq(calls[i].answers, 0);
    }
    run_until(e, &accepting.answers, 1);
    /* The multishots ended with the overflow; pokes and accepts go on all the same. */
    e->backend->close_handle(e, server);
    e->backend->close_handle(e, client);
    run_for(e, SPOKE_MS);
    e->backend->poke(e);
    start = spk_engine_now(e);
    cr_assert_eq(e->backend->turn(e, 2 * PATIENCE), 0);
    cr_assert_lt(spk_engine_now(e) - start, PATIENCE, "the poke was lost");
    if (!spk_op_busy(&accepting.op))
        spk_op_accept(e, &accepting.op, place.listener);
    accepting.handles = NULL;
    accepting.answers = accepting.finals = 0;
    cr_assert_eq(connect_to(e, &place, &client), 0);
    run_until(e, &accepting.answers, 1);
    server = accepting.result;
    spk_op_cancel(e, &accepting.op);
    run_until(e, &accepting.finals, 1);
    e->backend->close_handle(e, client);
    e->backend->close_handle(e, server);
    e->backend->close_handle(e, place.listener);
    close_pair(e, ends);
    free(calls);
    spk_engine_close(e);
}

/* ---- memory ---- */

/* Goal: received slices stay what they are although they are kept longer than there are buffers
 * for. */
ON_EVERY_BACKEND(receives_on_when_all_buffers_are_held)
{
    spoke_engine_config config;
    struct spk_engine *e;
    struct call calls[KEPT_MOST];
    uint8_t *where[KEPT_MOST];
    int ends[KEPT_MOST][2];

    spoke_engine_config_init(&config);
    config.receive_chunks = 1;
    e = open_configured(&setups[*number], &config);
    for (int i = 0; i < KEPT_MOST; i++) {
        call_init(&calls[i]);
        calls[i].keep = true;
        make_pair(ends[i]);
        spk_op_recv(e, &calls[i].op, ends[i][0], NULL, 0);
    }
    run_for(e, SPOKE_MS);
    for (int i = 0; i < KEPT_MOST; i++)
        cr_assert_eq(write(ends[i][1], &i, sizeof i), (ssize_t)sizeof i);
    for (int i = 0; i < KEPT_MOST; i++) {
        cr_assert_eq(result_of(e, &calls[i]), (int)sizeof i);
        where[i] = calls[i].op.data;
    }
    for (int i = 0; i < KEPT_MOST; i++) {
        cr_assert_arr_eq(where[i], &i, sizeof i, "slice %d was written over", i);
        spk_chunk_unref(calls[i].kept);
        close_pair(e, ends[i]);
    }
    spk_engine_close(e);
}

struct taker {
    struct call call;
    struct spk_engine *e;
    struct call *other;
    bool cancels; /* the other, else takes its byte away */
    int taken;
};

static void
on_taker(struct spk_op *op, int result)
{
    struct taker *t = SPK_OWNER(SPK_OWNER(op, struct call, op), struct taker, call);
    uint8_t byte;

    on_answer(op, result);
    if (t->cancels)
        spk_op_cancel(t->e, &t->other->op);
    else
        t->taken += t->e->backend->recv_now(t->e, t->other->op.handle, &byte, 1) == 1;
}

/* Goal: a receive that finds neither a buffer nor bytes goes on waiting, and can be cancelled at
 * any step. Method: the first of three takes the only buffer; the last one's callback may cancel
 * the second. */
ON_EVERY_BACKEND(waits_on_without_a_buffer)
{
    spoke_engine_config config;
    struct spk_engine *e;
    struct call first, second;
    struct taker last = {.other = &second};
    int ends[3][2];

    spoke_engine_config_init(&config);
    config.receive_chunks = 1;
    e = last.e = open_configured(&setups[*number], &config);
    call_init(&first);
    call_init(&second);
    call_init(&last.call);
    last.call.op.fn = on_taker;
    for (int i = 0; i < 3; i++)
        make_pair(ends[i]);
    for (int round = 0; round < 8; round++) {
        last.cancels = round % 4 == 0;
        cr_assert_eq(write(ends[0][1], "x", 1), 1);
        cr_assert_eq(write(ends[2][1], "z", 1), 1);
        spk_op_recv(e, &first.op, ends[0][0], NULL, 0);
        spk_op_recv(e, &second.op, ends[1][0], NULL, 0);
        spk_op_recv(e, &last.call.op, ends[2][0], NULL, 0);
        cr_assert_eq(result_of(e, &first), 1);
        cr_assert_eq(result_of(e, &last.call), 1);
        if (!last.cancels) {
            run_for(e, SPOKE_MS);
            cr_assert_eq(second.answers, 0);
        }
        if (round % 4 == 1)
            spk_op_cancel(e, &second.op);
        else if (!last.cancels)
            cr_assert_eq(write(ends[1][1], "y", 1), 1);
        cr_assert_eq(result_of(e, &second), round % 4 < 2 ? SPOKE_ECANCELED : 1);
        cr_assert_eq(second.answers, 0);
    }
    for (int i = 0; i < 3; i++)
        close_pair(e, ends[i]);
    spk_engine_close(e);
}

/* Goal: bytes that somebody else took in the meantime are no reason to complete. */
ON_EVERY_BACKEND(waits_on_when_the_bytes_are_gone)
{
    struct spk_engine *e = open_engine(*number);
    struct call second;
    struct taker first = {.e = e, .other = &second};
    int ends[2][2];

    call_init(&first.call);
    call_init(&second);
    first.call.op.fn = on_taker;
    make_pair(ends[0]);
    make_pair(ends[1]);
    for (int round = 0; round < 5; round++) {
        spk_op_recv(e, &first.call.op, ends[0][0], NULL, 0);
        spk_op_recv(e, &second.op, ends[1][0], NULL, 0);
        run_for(e, SPOKE_MS);
        first.taken = 0;
        cr_assert_eq(write(ends[0][1], "x", 1), 1);
        cr_assert_eq(write(ends[1][1], "y", 1), 1);
        cr_assert_eq(result_of(e, &first.call), 1);
        run_for(e, SPOKE_MS);
        cr_assert_eq(second.answers, 1 - first.taken);
        if (first.taken == 1)
            cr_assert_eq(write(ends[1][1], "y", 1), 1);
        cr_assert_eq(result_of(e, &second), 1);
    }
    close_pair(e, ends[0]);
    close_pair(e, ends[1]);
    spk_engine_close(e);
}

/* Goal: when a buffer cannot be replaced the rest works on, and it comes back once there is memory.
 */
ON_EVERY_BACKEND(goes_on_when_there_is_no_memory_for_a_buffer)
{
    spoke_engine_config config;
    struct spk_engine *e;
    struct call call;
    int ends[2];

    spoke_engine_config_init(&config);
    config.receive_chunks = 1;
    e = open_configured(&setups[*number], &config);
    call_init(&call);
    make_pair(ends);
    for (int round = 0; round < 20; round++) {
        int rc;

        call.keep = round % 2 == 0;
        call.kept = NULL;
        spk_op_recv(e, &call.op, ends[0], NULL, 0);
        cr_assert_eq(write(ends[1], &round, sizeof round), (ssize_t)sizeof round);
        spk_memory_fail_after(1);
        while ((rc = result_of(e, &call)) == SPOKE_ENOMEM)
            spk_op_recv(e, &call.op, ends[0], NULL, 0);
        spk_memory_fail_after(0);
        cr_assert_eq(rc, (int)sizeof round);
        cr_assert_arr_eq(call.bytes, &round, sizeof round);
        if (call.kept != NULL)
            spk_chunk_unref(call.kept);
    }
    call.keep = false;
    spk_op_recv(e, &call.op, ends[0], NULL, 0);
    run_for(e, SPOKE_MS);
    cr_assert_eq(write(ends[1], "x", 1), 1);
    cr_assert_eq(result_of(e, &call), 1);
    cr_assert_eq(call.op.chunk != e->scratch,
                 (e->info.features & SPOKE_FEATURE_PROVIDED_BUFFERS) != 0);
    close_pair(e, ends);
    spk_engine_close(e);
}

/* Goal: a send that does not fit goes out in parts, and nothing is lost or doubled between them. */
ON_EVERY_BACKEND(sends_in_parts_when_the_peer_is_slow)
{
    enum { SIZE = 4 * 1024 * 1024 };
    struct spk_engine *e = open_engine(*number);
    uint8_t *out = malloc(SIZE), *in = malloc(SIZE);
    struct call sending;
    struct iovec iov;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    size_t sent = 0, received = 0;
    int parts = 0, ends[2];

    for (size_t i = 0; i < SIZE; i++)
        out[i] = (uint8_t)(i * 2654435761u >> 24);
    call_init(&sending);
    make_pair(ends);
    while (received < SIZE) {
        ssize_t n;

        if (!spk_op_busy(&sending.op) && sent < SIZE) {
            iov = (struct iovec){.iov_base = out + sent, .iov_len = SIZE - sent};
            spk_op_send(e, &sending.op, ends[0], &msg);
        }
        run_for(e, SPOKE_MS / 10);
        if (sending.finals > 0) {
            cr_assert_gt(sending.result, 0);
            sent += (size_t)sending.result;
            sending.finals = 0;
            parts++;
        }
        if ((n = read(ends[1], in + received, SIZE - received)) > 0)
            received += (size_t)n;
        else
            cr_assert(n < 0 && errno == EAGAIN);
    }
    cr_assert_gt(parts, 1);
    cr_assert_eq(memcmp(in, out, SIZE), 0);
    close_pair(e, ends);
    free(in);
    free(out);
    spk_engine_close(e);
}

/* ---- cancelling and closing ---- */

ON_EVERY_BACKEND(cancels_what_waits)
{
    struct spk_engine *e = open_engine(*number);
    struct call receiving, accepting, own, idle;
    struct place place;
    int ends[2], more[2];

    make_pair(ends);
    make_pair(more);
    listen_somewhere(e, &place, AF_INET, 1);
    call_init(&receiving);
    call_init(&accepting);
    call_init(&own);
    call_init(&idle);
    for (int round = 0; round < 20; round++) {
        spk_op_recv(e, &receiving.op, ends[0], NULL, 0);
        spk_op_recv(e, &own.op, more[0], own.bytes, sizeof own.bytes);
        spk_op_accept(e, &accepting.op, place.listener);
        if (round % 2 == 0)
            run_for(e, SPOKE_MS); /* else they are only queued */
        spk_op_cancel(e, &receiving.op);
        spk_op_cancel(e, &receiving.op);
        spk_op_cancel(e, &own.op);
        spk_op_cancel(e, &accepting.op);
        spk_op_cancel(e, &idle.op);
        cr_assert_eq(receiving.answers, 0, "never from inside the call");
        cr_assert_eq(result_of(e, &receiving), SPOKE_ECANCELED);
        cr_assert_eq(result_of(e, &own), SPOKE_ECANCELED);
        cr_assert_eq(result_of(e, &accepting), SPOKE_ECANCELED);
    }
    run_for(e, SPOKE_MS);
    cr_assert_eq(receiving.answers + own.answers + accepting.answers + idle.answers, 0);
    e->backend->close_handle(e, place.listener);
    close_pair(e, ends);
    close_pair(e, more);
    spk_engine_close(e);
}

ON_EVERY_BACKEND(cancels_a_send_that_waits_for_room)
{
    struct spk_engine *e = open_engine(*number);
    char block[4096] = {0};
    struct iovec iov = {.iov_base = block, .iov_len = sizeof block};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct call sending;
    int ends[2];

    make_pair(ends);
    call_init(&sending);
    for (int round = 0; round < 10; round++) {
        while (e->backend->send_now(e, ends[0], &iov, 1) > 0)
            ;
        spk_op_send(e, &sending.op, ends[0], &msg);
        if (round % 2 == 0)
            run_for(e, SPOKE_MS);
        spk_op_cancel(e, &sending.op);
        cr_assert_eq(result_of(e, &sending), SPOKE_ECANCELED);
    }
    close_pair(e, ends);
    spk_engine_close(e);
}

/* Method: a listener whose backlog is full drops what comes next, so a further connect waits. */
ON_EVERY_BACKEND(cancels_a_connect_under_way)
{
    enum { TRIES = 8 };
    struct spk_engine *e = open_engine(*number);
    struct call connecting[TRIES];
    struct place place;
    int handles[TRIES], waiting = 0;

    listen_somewhere(e, &place, AF_INET, 0);
    for (int i = 0; i < TRIES; i++) {
        call_init(&connecting[i]);
        cr_assert_eq(e->backend->socket(e, AF_INET, &handles[i]), 0);
        spk_op_connect(e, &connecting[i].op, handles[i], &place.address.any, place.size);
    }
    run_for(e, 20 * SPOKE_MS);
    for (int i = 0; i < TRIES; i++) {
        waiting += connecting[i].finals == 0;
        spk_op_cancel(e, &connecting[i].op);
    }
    cr_assert_gt(waiting, 0);
    for (int i = 0; i < TRIES; i++) {
        int rc = result_of(e, &connecting[i]);

        cr_assert(rc == 0 || rc == SPOKE_ECANCELED, "%d", rc);
        e->backend->close_handle(e, handles[i]);
    }
    e->backend->close_handle(e, place.listener);
    spk_engine_close(e);
}

/* Goal: whoever wins, there is exactly one final completion, and bytes are received or still there.
 */
ON_EVERY_BACKEND(completes_once_when_cancel_and_data_race)
{
    struct spk_engine *e = open_engine(*number);
    uint64_t state = 4711;
    struct call call;
    int ends[2], cancelled = 0, received = 0;

    call_init(&call);
    make_pair(ends);
    for (int round = 0; round < 2000; round++) {
        char byte = (char)round, got;
        uint64_t random = random_next(&state);
        int rc;

        call.op.data = NULL;
        spk_op_recv(e, &call.op, ends[0], NULL, 0);
        if ((random >> 16 & 1) != 0)
            spk_engine_turn(e, 0); /* into the kernel */
        if ((random >> 17 & 1) != 0)
            cr_assert_eq(write(ends[1], &byte, 1), 1);
        if ((random >> 18 & 1) != 0)
            spk_engine_turn(e, 0);
        spk_op_cancel(e, &call.op);
        if ((random >> 17 & 1) == 0)
            cr_assert_eq(write(ends[1], &byte, 1), 1);
        rc = result_of(e, &call);
        if (rc == 1) {
            received++;
            cr_assert_eq((char)call.bytes[0], byte);
        } else {
            cancelled++;
            cr_assert_eq(rc, SPOKE_ECANCELED);
            cr_assert_eq(read(ends[0], &got, 1), 1, "the byte is lost in round %d", round);
            cr_assert_eq(got, byte);
        }
        cr_assert_eq(call.answers, 0);
    }
    cr_assert_gt(cancelled, 0);
    cr_assert_gt(received, 0);
    close_pair(e, ends);
    spk_engine_close(e);
}

struct canceller {
    struct call call;
    struct spk_engine *e;
    struct spk_op *others[8];
};

static void
on_canceller(struct spk_op *op, int result)
{
    struct canceller *c = SPK_OWNER(SPK_OWNER(op, struct call, op), struct canceller, call);

    on_answer(op, result);
    for (int i = 0; i < 8; i++)
        spk_op_cancel(c->e, c->others[i]);
}

/* Goal: a callback may cancel operations whose completions lie in the same batch. */
ON_EVERY_BACKEND(lets_a_callback_cancel_its_neighbours)
{
    struct spk_engine *e = open_engine(*number);
    struct call others[8];
    struct canceller first;
    int ends[9][2];

    first.e = e;
    for (int round = 0; round < 50; round++) {
        call_init(&first.call);
        first.call.op.fn = on_canceller;
        make_pair(ends[8]);
        spk_op_recv(e, &first.call.op, ends[8][0], NULL, 0);
        for (int i = 0; i < 8; i++) {
            call_init(&others[i]);
            first.others[i] = &others[i].op;
            make_pair(ends[i]);
            spk_op_recv(e, &others[i].op, ends[i][0], NULL, 0);
        }
        spk_engine_turn(e, 0);
        for (int i = 0; i < 9; i++)
            cr_assert(write(ends[i][1], "x", 1) == 1);
        cr_assert_eq(result_of(e, &first.call), 1);
        for (int i = 0; i < 8; i++) {
            int rc = result_of(e, &others[i]);

            cr_assert(rc == 1 || rc == SPOKE_ECANCELED);
            cr_assert_eq(others[i].answers, 0);
        }
        for (int i = 0; i < 9; i++)
            close_pair(e, ends[i]);
    }
    spk_engine_close(e);
}

/* Goal: a result that is known already is not changed by a cancel that comes too late. */
ON_EVERY_BACKEND(cancels_nothing_that_is_decided)
{
    struct spk_engine *e = open_engine(*number);
    struct call second;
    struct taker first = {.e = e, .other = &second, .cancels = true};
    struct place place;
    int handles[2], rc;

    listen_somewhere(e, &place, AF_UNIX, 8);
    call_init(&first.call);
    call_init(&second);
    first.call.op.fn = on_taker;
    for (int i = 0; i < 2; i++)
        cr_assert_eq(e->backend->socket(e, AF_UNIX, &handles[i]), 0);
    spk_op_connect(e, &first.call.op, handles[0], &place.address.any, place.size);
    spk_op_connect(e, &second.op, handles[1], &place.address.any, place.size);
    cr_assert_eq(result_of(e, &first.call), 0);
    rc = result_of(e, &second);
    cr_assert_eq(rc, 0);
    cr_assert_eq(second.answers, 0);
    for (int i = 0; i < 2; i++)
        e->backend->close_handle(e, handles[i]);
    e->backend->close_handle(e, place.listener);
    spk_engine_close(e);
}

ON_EVERY_BACKEND(fails_an_operation_on_what_is_no_handle)
{
    struct spk_engine *e = open_engine(*number);
    struct call call;

    call_init(&call);
    spk_op_recv(e, &call.op, 900, NULL, 0);
    cr_assert_eq(result_of(e, &call), SPOKE_EIO);
    spk_op_accept(e, &call.op, 900);
    cr_assert_eq(result_of(e, &call), SPOKE_EIO);
    spk_engine_close(e);
}

/* Goal: cancel, reap, close; the peer sees the end at once, although a child may hold the
 * descriptor, and the next connection with the same number has nothing of the old one. */
ON_EVERY_BACKEND(reuses_the_number_of_a_closed_handle)
{
    struct spk_engine *e = open_engine(*number);
    struct call call;
    int first[2], second[2], child, until_closed[2];
    char byte;

    cr_assert_eq(pipe(until_closed), 0);
    call_init(&call);
    make_pair(first);
    spk_op_recv(e, &call.op, first[0], NULL, 0);
    run_for(e, SPOKE_MS);
    if ((child = fork()) == 0) {
        close(until_closed[1]);
        _exit(read(until_closed[0], &byte, 1) == 0 ? 0 : 1);
    }
    spk_op_cancel(e, &call.op);
    cr_assert_eq(result_of(e, &call), SPOKE_ECANCELED);
    e->backend->close_handle(e, first[0]);
    make_pair(second);
    if (second[0] != first[0])
        cr_assert_eq(dup2(second[0], first[0]), first[0]);
    spk_op_recv(e, &call.op, first[0], NULL, 0);
    cr_assert_eq(write(first[1], "old", 3), 3); /* the child holds the other end open */
    run_for(e, 5 * SPOKE_MS);
    cr_assert_eq(call.answers, 0, "heard what was meant for the closed handle");
    cr_assert_eq(write(second[1], "new", 3), 3);
    cr_assert_eq(result_of(e, &call), 3);
    cr_assert_arr_eq(call.bytes, "new", 3);
    close(until_closed[1]);
    close(until_closed[0]);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    e->backend->close_handle(e, first[0]);
    if (second[0] != first[0])
        close(second[0]);
    close(first[1]);
    close(second[1]);
    spk_engine_close(e);
}

/* Goal: a receive and a send on one handle do not disturb each other. */
ON_EVERY_BACKEND(waits_to_read_and_to_write_on_one_handle)
{
    struct spk_engine *e = open_engine(*number);
    char block[65536] = {0};
    struct iovec iov = {.iov_base = block, .iov_len = sizeof block};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct call sending, receiving;
    int ends[2];

    make_pair(ends);
    call_init(&sending);
    call_init(&receiving);
    for (int round = 0; round < 20; round++) {
        while (e->backend->send_now(e, ends[0], &iov, 1) > 0)
            ;
        spk_op_recv(e, &receiving.op, ends[0], NULL, 0);
        spk_op_send(e, &sending.op, ends[0], &msg);
        run_for(e, SPOKE_MS);
        cr_assert_eq(sending.finals + receiving.finals, 0);
        if (round % 2 == 0) {
            cr_assert_eq(write(ends[1], "x", 1), 1);
            cr_assert_eq(result_of(e, &receiving), 1);
            cr_assert_eq(sending.finals, 0);
        }
        while (read(ends[1], block, sizeof block) > 0)
            ;
        cr_assert_gt(result_of(e, &sending), 0);
        if (round % 2 != 0) {
            cr_assert_eq(receiving.finals, 0);
            cr_assert_eq(write(ends[1], "x", 1), 1);
            cr_assert_eq(result_of(e, &receiving), 1);
        }
    }
    close_pair(e, ends);
    spk_engine_close(e);
}

/* Goal: a handle that nobody waits on costs no wake-ups, whatever its peer does. */
ON_EVERY_BACKEND(is_quiet_about_handles_that_nobody_waits_on)
{
    struct spk_engine *e = open_engine(*number);
    struct call call;
    uint64_t turns;
    int ends[2];

    make_pair(ends);
    call_init(&call);
    spk_op_recv(e, &call.op, ends[0], NULL, 0);
    cr_assert_eq(write(ends[1], "x", 1), 1);
    cr_assert_eq(result_of(e, &call), 1);
    cr_assert_eq(write(ends[1], "y", 1), 1);
    close(ends[1]);
    turns = e->info.turns;
    run_for(e, 50 * SPOKE_MS);
    cr_assert_leq(e->info.turns - turns, 5);
    spk_op_recv(e, &call.op, ends[0], NULL, 0);
    cr_assert_eq(result_of(e, &call), 1);
    spk_op_recv(e, &call.op, ends[0], NULL, 0);
    cr_assert_eq(result_of(e, &call), 0);
    turns = e->info.turns;
    run_for(e, 50 * SPOKE_MS);
    cr_assert_leq(e->info.turns - turns, 5);
    e->backend->close_handle(e, ends[0]);
    spk_engine_close(e);
}

ON_EVERY_BACKEND(answers_an_accept_without_descriptors_once)
{
    struct spk_engine *e = open_engine(*number);
    struct rlimit limit, low;
    struct call accepting;
    struct place place;
    int client, server, spare;
    uint64_t turns;

    listen_somewhere(e, &place, AF_UNIX, 8);
    cr_assert_eq(connect_to(e, &place, &client), 0);
    call_init(&accepting);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    cr_assert_geq(spare = dup(0), 0); /* the first number that the limit forbids */
    low.rlim_cur = (rlim_t)spare;
    close(spare);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    turns = e->info.turns;
    spk_op_accept(e, &accepting.op, place.listener);
    cr_assert_eq(result_of(e, &accepting), SPOKE_EMFILE);
    run_for(e, 20 * SPOKE_MS);
    cr_assert_leq(e->info.turns - turns, 8);
    cr_assert_eq(accepting.answers, 0);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    accepting.handles = &server;
    spk_op_accept(e, &accepting.op, place.listener);
    run_until(e, &accepting.answers, 1);
    cr_assert_geq(accepting.result, 0);
    accepting.handles = NULL;
    spk_op_cancel(e, &accepting.op);
    run_until(e, &accepting.finals, 1);
    e->backend->close_handle(e, server);
    e->backend->close_handle(e, client);
    e->backend->close_handle(e, place.listener);
    spk_engine_close(e);
}

/* ---- waiting and waking ---- */

/* Goal: a wait ends at its time: not before, and not twice as late because something was submitted
 * with it.  Method: on a busy machine many waits are late, but not all of them. */
ON_EVERY_BACKEND(waits_as_long_as_it_is_told)
{
    struct spk_engine *e = open_engine(*number);
    spoke_ns best = SPOKE_FOREVER;
    struct call call;
    int ends[2];

    make_pair(ends);
    call_init(&call);
    for (int round = 0; round < 100 && best >= 45 * SPOKE_MS; round++) {
        spoke_ns start = spk_engine_now(e), waited;

        spk_op_recv(e, &call.op, ends[0], NULL, 0);
        cr_assert(!spk_engine_turn(e, start + 30 * SPOKE_MS));
        waited = spk_engine_now(e) - start;
        cr_assert_geq(waited, 30 * SPOKE_MS);
        best = waited < best ? waited : best;
        spk_op_cancel(e, &call.op);
        cr_assert_eq(result_of(e, &call), SPOKE_ECANCELED);
    }
    cr_assert_lt(best, 45 * SPOKE_MS);
    close_pair(e, ends);
    spk_engine_close(e);
}

struct poker {
    struct spk_engine *e;
    atomic_int asked, answered;
};

enum { POKES = 10000 };

static void *
poke_often(void *argument)
{
    struct poker *p = argument;

    for (int i = 1; i <= POKES; i++) {
        atomic_store(&p->asked, i);
        p->e->backend->poke(p->e);
        while (atomic_load(&p->answered) < i)
            sched_yield();
    }
    return NULL;
}

/* Goal: no poke of a sleeper is lost.  Method: each poke comes after the answer to the one before,
 * so a lost one is a wait that runs out. */
ON_EVERY_BACKEND(wakes_at_every_poke)
{
    struct spk_engine *e = open_engine(*number);
    struct poker p = {.e = e};
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, poke_often, &p), 0);
    while (atomic_load(&p.answered) < POKES) {
        spoke_ns start = spk_engine_now(e);

        if (atomic_load(&p.asked) == atomic_load(&p.answered)) {
            cr_assert_eq(e->backend->turn(e, 30 * SPOKE_SECOND), 0);
            if (spk_engine_now(e) - start > 20 * SPOKE_SECOND) {
                atomic_store(&p.answered, POKES); /* lets the thread go */
                pthread_join(thread, NULL);
                cr_assert_fail("poke %d was lost", atomic_load(&p.asked));
            }
        }
        atomic_store(&p.answered, atomic_load(&p.asked));
    }
    pthread_join(thread, NULL);
    spk_engine_close(e);
}

static bool
is_readable(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, timeout_ms) == 1;
}

static void *
write_later(void *argument)
{
    const int *fd = argument;

    usleep(20000);
    cr_expect_eq(write(*fd, "x", 1), 1);
    return NULL;
}

/* Goal: the descriptor for foreign loops wakes who polls it, also one that sleeps already, and is
 * quiet once there is no work. */
ON_EVERY_BACKEND(tells_a_foreign_loop_when_there_is_work)
{
    struct spk_engine *e = open_engine(*number);
    int fd = e->backend->fd(e), ends[2];
    pthread_t thread;
    struct call call;

    cr_assert_geq(fd, 0);
    cr_assert_eq(e->backend->fd(e), fd);
    make_pair(ends);
    call_init(&call);
    for (int round = 0; round < 20; round++) {
        spk_op_recv(e, &call.op, ends[0], NULL, 0);
        while (spk_engine_turn(e, 0))
            ;
        cr_assert(!is_readable(fd, 0), "not quiet in round %d", round);
        cr_assert_eq(pthread_create(&thread, NULL, write_later, &ends[1]), 0);
        cr_assert(is_readable(fd, 10000), "slept through it in round %d", round);
        pthread_join(thread, NULL);
        while (spk_engine_turn(e, 0))
            ;
        cr_assert_eq(result_of(e, &call), 1);
        cr_assert(!is_readable(fd, 0));
        e->backend->poke(e);
        cr_assert(is_readable(fd, 10000));
        spk_engine_turn(e, 0);
        spk_engine_turn(e, 0);
        cr_assert(!is_readable(fd, 0));
    }
    close_pair(e, ends);
    spk_engine_close(e);
}

/* Goal: on a shared engine another thread cancels while the engine's own thread sleeps in the
 * kernel. */
static void
cancel_on_shared(const char *backend)
{
    struct spk_engine *e;
    struct call call;
    int ends[2];

    cr_assert_eq(setenv("SPOKE_BACKEND", backend, 1), 0);
    cr_assert_eq(spk_engine_default(&e), 0);
    cr_assert_str_eq(e->backend->name, backend);
    make_pair(ends);
    call_init(&call);
    for (int round = 0; round < 200; round++) {
        bool done = false;

        cr_assert_eq(spk_engine_enter(e), 0);
        spk_op_recv(e, &call.op, ends[0], NULL, 0);
        spk_engine_leave(e);
        usleep((unsigned)(round % 4) * 100);
        cr_assert_eq(spk_engine_enter(e), 0);
        spk_op_cancel(e, &call.op);
        spk_engine_leave(e);
        for (int tries = 0; !done && tries < 20000; tries++) {
            usleep(500);
            cr_assert_eq(spk_engine_enter(e), 0);
            done = call.finals == round + 1;
            spk_engine_leave(e);
        }
        cr_assert(done, "round %d", round);
        cr_assert_eq(call.result, SPOKE_ECANCELED);
    }
    close(ends[0]);
    close(ends[1]);
}

Test(backend, cancels_for_another_thread_on_a_shared_engine_uring)
{
    if (!has_uring())
        cr_skip_test("io_uring is denied here");
    cancel_on_shared("uring");
}

Test(backend, cancels_for_another_thread_on_a_shared_engine_poll)
{
    cancel_on_shared("poll");
}

/* ---- descriptors ---- */

/* Goal: descriptors that a peer attaches to its bytes never open here. */
ON_EVERY_BACKEND(drops_descriptors_that_a_peer_sends)
{
    struct spk_engine *e = open_engine(*number);
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = (char[]){"x"}, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control};
    struct call call;
    int ends[2], before, zero = 0;

    make_pair(ends);
    call_init(&call);
    control.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof zero), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &zero, sizeof zero);
    before = entries_of("/proc/self/fd");
    for (int round = 0; round < 30; round++) {
        void *buffer = round % 3 == 0 ? call.bytes : NULL;

        cr_assert_eq(sendmsg(ends[1], &msg, 0), 1);
        if (round % 3 == 1) {
            cr_assert_eq(e->backend->recv_now(e, ends[0], call.bytes, sizeof call.bytes), 1);
            continue;
        }
        spk_op_recv(e, &call.op, ends[0], buffer, buffer != NULL ? sizeof call.bytes : 0);
        cr_assert_eq(result_of(e, &call), 1);
    }
    cr_assert_eq(entries_of("/proc/self/fd"), before);
    close_pair(e, ends);
    spk_engine_close(e);
}

Test(backend, knows_who_is_at_the_other_end_of_a_unix_socket)
{
    struct spk_engine *e = open_engine(0);
    struct spk_credentials peer;
    int ends[2], handle;

    make_pair(ends);
    cr_assert_eq(e->backend->credentials(e, ends[0], &peer), 0);
    cr_assert_eq(peer.pid, (int)getpid());
    cr_assert_eq(peer.uid, (int)getuid());
    cr_assert_eq(peer.gid, (int)getgid());
    cr_assert_eq(e->backend->socket(e, AF_INET, &handle), 0);
    cr_assert_eq(e->backend->credentials(e, handle, &peer), SPOKE_ENOTSUP);
    e->backend->close_handle(e, handle);
    close_pair(e, ends);
    spk_engine_close(e);
}

static int
option_of(int handle, int level, int name)
{
    socklen_t size = sizeof(int);
    int value = -1;

    cr_assert_eq(getsockopt(handle, level, name, &value, &size), 0);
    return value;
}

Test(backend, sets_options_where_they_mean_something)
{
    struct spk_engine *e = open_engine(0);
    const struct spk_backend *b = e->backend;
    int un, in, in6;

    cr_assert_eq(b->socket(e, AF_UNIX, &un), 0);
    cr_assert_eq(b->socket(e, AF_INET, &in), 0);
    for (int value = 1; value >= 0; value--) {
        cr_assert_eq(b->set_option(e, in, SPK_TCP_NODELAY, value), 0);
        cr_assert_eq(b->set_option(e, in, SPK_TCP_KEEPALIVE, value), 0);
        cr_assert_eq(b->set_option(e, in, SPK_REUSEADDR, value), 0);
        cr_assert_eq(option_of(in, IPPROTO_TCP, TCP_NODELAY), value);
        cr_assert_eq(option_of(in, SOL_SOCKET, SO_KEEPALIVE), value);
        cr_assert_eq(option_of(in, SOL_SOCKET, SO_REUSEADDR), value);
    }
    cr_assert_eq(b->set_option(e, un, SPK_TCP_NODELAY, 1), SPOKE_ENOTSUP);
    cr_assert_eq(b->set_option(e, un, SPK_TCP_KEEPALIVE, 1), SPOKE_ENOTSUP);
    cr_assert_eq(b->set_option(e, in, SPK_V6ONLY, 1), SPOKE_ENOTSUP);
    if (b->socket(e, AF_INET6, &in6) == 0) {
        cr_assert_eq(b->set_option(e, in6, SPK_V6ONLY, 1), 0);
        cr_assert_eq(option_of(in6, IPPROTO_IPV6, IPV6_V6ONLY), 1);
        b->close_handle(e, in6);
    }
    b->close_handle(e, un);
    b->close_handle(e, in);
    spk_engine_close(e);
}

/* ---- where the kernel says no ---- */

/* Let one system call fail with `error` in this process, from now on: always, or when the low half
 * of its second argument is `argument`. */
static void
forbid_argument(long call, bool always, unsigned argument, unsigned error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, argument, 0, always ? 0 : 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};

    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void
forbid(long call, unsigned error)
{
    forbid_argument(call, true, 0, error);
}

static void
open_when_setup_fails(unsigned error, int wanted, int fallback)
{
    spoke_engine_config config;
    struct spk_engine *e;
    int before;

    spoke_engine_config_init(&config);
    unsetenv("SPOKE_BACKEND");
    forbid(SYS_io_uring_setup, error);
    before = entries_of("/proc/self/fd");
    config.backend = "uring";
    cr_assert_eq(spk_engine_open_with(&e, NULL, NULL, &config), wanted);
    cr_assert_eq(entries_of("/proc/self/fd"), before);
    config.backend = NULL;
    cr_assert_eq(spk_engine_open_with(&e, NULL, NULL, &config), fallback);
    if (fallback != 0)
        return;
    cr_assert_str_eq(e->backend->name, "poll");
    cr_assert_not_null(e->info.why_not_uring);
    spk_engine_close(e);
}

Test(backend, falls_back_where_io_uring_is_denied)
{
    open_when_setup_fails(EPERM, SPOKE_EPERM, 0);
}

Test(backend, falls_back_where_there_is_no_io_uring)
{
    open_when_setup_fails(ENOSYS, SPOKE_ENOTSUP, 0);
}

Test(backend, falls_back_where_io_uring_may_not_lock_memory)
{
    open_when_setup_fails(ENOMEM, SPOKE_ENOMEM, 0);
}

Test(backend, does_not_hide_that_descriptors_ran_out)
{
    open_when_setup_fails(EMFILE, SPOKE_EMFILE, SPOKE_EMFILE);
}

static void
open_without_registration(unsigned opcode, uint32_t feature)
{
    struct spk_engine *e;

    if (!has_uring())
        cr_skip_test("io_uring is denied here");
    forbid_argument(SYS_io_uring_register, false, opcode, EINVAL);
    e = open_engine(1);
    cr_assert_eq(e->info.features & URING_ALL, URING_ALL & ~feature);
    talk_over(e, AF_UNIX);
    spk_engine_close(e);
}

Test(backend, does_without_buffer_rings)
{
    open_without_registration(IORING_REGISTER_PBUF_RING, SPOKE_FEATURE_PROVIDED_BUFFERS);
}

Test(backend, does_without_a_registered_ring)
{
    open_without_registration(IORING_REGISTER_RING_FDS, SPOKE_FEATURE_REGISTERED_RING);
}

Test(backend, does_not_use_an_io_uring_that_cannot_be_probed)
{
    spoke_engine_config config;
    struct spk_engine *e;

    if (!has_uring())
        cr_skip_test("io_uring is denied here");
    forbid_argument(SYS_io_uring_register, false, IORING_REGISTER_PROBE, EPERM);
    spoke_engine_config_init(&config);
    config.backend = "uring";
    cr_assert_eq(spk_engine_open_with(&e, NULL, NULL, &config), SPOKE_ENOTSUP);
}

Test(backend, refuses_a_configuration_that_means_nothing)
{
    spoke_engine_config config;
    struct spk_engine *e;

    if (!has_uring())
        cr_skip_test("io_uring is denied here");
    spoke_engine_config_init(&config);
    config.backend = "uring";
    config.receive_chunks = 3;
    cr_assert_eq(spk_engine_open_with(&e, NULL, NULL, &config), SPOKE_EINVAL);
    config.receive_chunks = 1u << 16;
    cr_assert_eq(spk_engine_open_with(&e, NULL, NULL, &config), SPOKE_EINVAL);
    config.receive_chunks = 0;
    config.entries = 1u << 31;
    cr_assert_eq(spk_engine_open_with(&e, NULL, NULL, &config), SPOKE_EINVAL);
}

/* Goal: an open that fails half-way leaves nothing behind and says why. */
ON_EVERY_BACKEND(cannot_open_without_descriptors)
{
    struct rlimit limit, low;
    spoke_engine_config config;
    struct spk_engine *e;
    int before, spare, failures = 0, rc = SPOKE_EMFILE;

    spk_engine_close(open_engine(*number));
    spoke_engine_config_init(&config);
    config.backend = setups[*number].backend;
    config.mask_features = setups[*number].masked;
    before = entries_of("/proc/self/fd");
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert_geq(spare = dup(0), 0);
    close(spare);
    for (rlim_t more = 0; rc != 0 && more < 8; more++) {
        low = limit;
        low.rlim_cur = (rlim_t)spare + more;
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
        rc = spk_engine_open_with(&e, NULL, NULL, &config);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        if (rc == 0)
            spk_engine_close(e);
        else
            cr_assert_eq(rc, SPOKE_EMFILE);
        failures += rc != 0;
        cr_assert_eq(entries_of("/proc/self/fd"), before);
    }
    cr_assert_eq(rc, 0);
    cr_assert_geq(failures, 2);
}

ON_EVERY_BACKEND(opens_or_says_that_memory_ran_out)
{
    spoke_engine_config config;
    struct spk_engine *e;
    int before, failures = 0;

    spk_engine_close(open_engine(*number));
    spoke_engine_config_init(&config);
    config.backend = setups[*number].backend;
    config.mask_features = setups[*number].masked;
    before = entries_of("/proc/self/fd");
    for (uint64_t count = 1; count < 24; count++) {
        int rc;

        spk_memory_fail_after(count);
        spk_free(spk_zalloc(1)); /* so that the very next one can fail */
        rc = spk_engine_open_with(&e, NULL, NULL, &config);
        spk_memory_fail_after(0);
        if (rc == 0) {
            talk_over(e, AF_UNIX);
            spk_engine_close(e);
        } else {
            cr_assert_eq(rc, SPOKE_ENOMEM);
            failures++;
        }
        cr_assert_eq(entries_of("/proc/self/fd"), before);
    }
    cr_assert_gt(failures, 0);
}

static void
wait_without_pwait2(unsigned error)
{
    struct spk_engine *e = open_engine(0);
    spoke_ns start;

    forbid(SYS_epoll_pwait2, error);
    for (int round = 0; round < 2; round++) {
        start = spk_engine_now(e);
        cr_assert(!spk_engine_turn(e, start + 5 * SPOKE_MS / 2));
        cr_assert_geq(spk_engine_now(e) - start, 5 * SPOKE_MS / 2);
    }
    e->backend->poke(e);
    cr_assert_eq(e->backend->turn(e, SPOKE_FOREVER), 0);
    talk_over(e, AF_UNIX);
    spk_engine_close(e);
}

Test(backend, waits_in_whole_milliseconds_on_older_kernels)
{
    wait_without_pwait2(ENOSYS);
}

Test(backend, waits_in_whole_milliseconds_under_older_seccomp_profiles)
{
    wait_without_pwait2(EPERM);
}
