/* SPDX-License-Identifier: MIT */
/* Addresses, and how connections come and go, on every transport. */
#include "tests/compat/fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- addresses ---- */

struct wrong {
    const char *address;
    int bind, connect; /* errno; 0: not tried */
};

Test(addresses, each_fault_has_its_error)
{
    static const struct wrong list[] = {
        {NULL, EINVAL, EINVAL},
        {"", EINVAL, EINVAL},
        {"tcp", EINVAL, EINVAL},
        {"tcp:/", EINVAL, EINVAL},
        {"://", EPROTONOSUPPORT, EPROTONOSUPPORT},
        {"foo://bar", EPROTONOSUPPORT, EPROTONOSUPPORT},
        {"abstract://bar", EPROTONOSUPPORT, EPROTONOSUPPORT},
        {"TCP://127.0.0.1:5560", EPROTONOSUPPORT, EPROTONOSUPPORT},
        {"ipc://", EINVAL, EINVAL},
        {"ipc:///no/such/directory", ENOENT, 0},
        {"tcp://9.9.9.9:5576", EADDRNOTAVAIL, 0},
    };
    int s = sock(AF_SP, NN_PAIR);

    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        FAILS(list[i].bind, nn_bind(s, list[i].address));
        if (list[i].connect != 0)
            FAILS(list[i].connect, nn_connect(s, list[i].address));
    }
    OK(nn_close(s));
}

/* The same for tcp and ws: what follows "://". */
Test(addresses, hosts_and_ports_are_looked_at_first)
{
    static const struct wrong list[] = {
        {"*:", EINVAL, EINVAL},
        {"*:1000000", EINVAL, EINVAL},
        {"*:some_port", EINVAL, EINVAL},
        {"*:5555", 0, EINVAL},
        {"127.0.0.1", EINVAL, 0},
        {"127.0.0.1:", EINVAL, EINVAL},
        {"127.0.0.1:0", EINVAL, EINVAL},
        {"127.0.0.1:+80", EINVAL, EINVAL},
        {"127.0.0.1:1000000", EINVAL, EINVAL},
        {":5555", ENODEV, EINVAL},
        {"-hostname:5555", ENODEV, EINVAL},
        {"abc.123.---.#:5555", ENODEV, EINVAL},
        {"[::1]:5555", ENODEV, EINVAL},
        {"::1:5555", ENODEV, EINVAL},
        {"abc...123:5555", ENODEV, EINVAL},
        {".123:5555", ENODEV, EINVAL},
        {"a_b:5555", ENODEV, EINVAL},
        {"1.2.3:5555", ENODEV, 0},
        {"localhost:5555", ENODEV, 0},
        {"eth10000:5555", ENODEV, 0},
        {"eth10000;127.0.0.1:5555", ENODEV, ENODEV},
        {"*;*:5555", ENODEV, EINVAL},
    };
    static const char *const schemes[] = {"tcp", "ws"};
    int s = sock(AF_SP, NN_PAIR);
    char url[NN_SOCKADDR_MAX];

    for (size_t k = 0; k < sizeof schemes / sizeof *schemes; k++) {
        for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
            snprintf(url, sizeof url, "%s://%s", schemes[k], list[i].address);
            if (list[i].bind != 0)
                FAILS(list[i].bind, nn_bind(s, url));
            if (list[i].connect != 0)
                FAILS(list[i].connect, nn_connect(s, url));
        }
    }
    FAILS(EINVAL, nn_connect(s, "tcp://127.0.0.1"));
    FAILS(EINVAL, nn_bind(s, "tcp://127.0.0.1:5555/"));
    FAILS(EINVAL, nn_bind(s, "ws://127.0.0.1:5555/path"));
    OK(nn_close(s));
}

Test(addresses, have_a_length)
{
    char address[300] = "inproc://";
    int s = sock(AF_SP, NN_PAIR);

    memset(address + 9, 'a', 127 - 9);
    OK(nn_bind(s, address));
    address[127] = 'a';
    FAILS(ENAMETOOLONG, nn_bind(s, address));
    FAILS(ENAMETOOLONG, nn_connect(s, address));
    memcpy(address, "ipc:///tm", 9); /* where nanomsg would abort: 108 to 121 bytes of path */
    for (size_t size = 108; size <= 121; size++) {
        memset(address + 9, 'a', sizeof address - 9);
        address[6 + size] = '\0';
        FAILS(ENAMETOOLONG, nn_bind(s, address));
        FAILS(ENAMETOOLONG, nn_connect(s, address));
    }
    OK(nn_close(s));
}

Test(addresses, the_other_forms_work)
{
    char url[ENDPOINT_MAX], other[ENDPOINT_MAX + 16];
    int a, b;

    endpoint_fresh(url, TCP);
    a = bound(NN_PAIR, url);
    snprintf(other, sizeof other, "tcp://*;%s", url + 6);
    b = connected(NN_PAIR, other);
    send_text(b, "from any local address");
    expect_text(a, "from any local address");
    OK(nn_close(b));
    snprintf(other, sizeof other, "tcp://127.0.0.1;%s", url + 6);
    b = connected(NN_PAIR, other);
    send_text(b, "from one");
    expect_text(a, "from one");
    OK(nn_close(a));
    OK(nn_close(b));
    a = bound(NN_PAIR, "inproc://");
    b = connected(NN_PAIR, "inproc://");
    send_text(a, "no name is a name");
    expect_text(b, "no name is a name");
    OK(nn_close(a));
    OK(nn_close(b));
}

Test(addresses, ipc_names_are_files_whatever_they_begin_with)
{
    int a, b;

    cr_assert_eq(chdir(scratch_dir()), 0);
    a = bound(NN_PAIR, "ipc://@relative.sock");
    cr_assert_eq(access("@relative.sock", F_OK), 0);
    b = connected(NN_PAIR, "ipc://@relative.sock");
    send_text(b, "A");
    expect_text(a, "A");
    OK(nn_close(a));
    cr_assert_neq(access("@relative.sock", F_OK), 0);
    OK(nn_close(b));
}

/* ---- nanomsg deletes any file that is in the way; this must not ---- */

Test(addresses, a_file_in_the_way_stays)
{
    char path[ENDPOINT_MAX], url[ENDPOINT_MAX + 8];
    int s = sock(AF_SP, NN_PAIR), fd;

    scratch_path(path, "precious");
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    cr_assert(fd >= 0);
    close(fd);
    snprintf(url, sizeof url, "ipc://%s", path);
    FAILS(EADDRINUSE, nn_bind(s, url));
    cr_assert_eq(access(path, F_OK), 0);
    OK(nn_close(s));
}

Test(addresses, ipv6_has_to_be_allowed)
{
    char url[ENDPOINT_MAX], address[ENDPOINT_MAX];
    int a = sock(AF_SP, NN_PAIR), b = sock(AF_SP, NN_PAIR);

    endpoint_fresh(url, TCP);
    snprintf(address, sizeof address, "tcp://[::1]:%s", strrchr(url, ':') + 1);
    FAILS(ENODEV, nn_bind(a, address));
    FAILS(EINVAL, nn_connect(b, address));
    set_int(a, NN_SOL_SOCKET, NN_IPV4ONLY, 0);
    set_int(b, NN_SOL_SOCKET, NN_IPV4ONLY, 0);
    if (nn_bind(a, address) < 0) {
        cr_assert(nn_errno() == EADDRNOTAVAIL || nn_errno() == EAFNOSUPPORT, "%d", nn_errno());
    } else {
        OK(nn_connect(b, address));
        send_text(a, "A");
        expect_text(b, "A");
    }
    OK(nn_close(a));
    OK(nn_close(b));
}

/* ---- connections ---- */

static void
exchange(enum transport t)
{
    char url[ENDPOINT_MAX], *large = malloc(10000), *back = malloc(10001);
    int a, b;

    fresh(url, t);
    a = sock(AF_SP, NN_PAIR);
    OK(nn_connect(a, url));
    OK(nn_close(a)); /* before anybody was there */
    b = connected(NN_PAIR, url);
    sleep_ms(20);
    a = bound(NN_PAIR, url); /* the dialer tries again */
    for (int i = 0; i < 100; i++) {
        send_text(b, "0123456789012345678901234567890123456789");
        expect_text(a, "0123456789012345678901234567890123456789");
        send_text(a, "X");
        expect_text(b, "X");
    }
    for (int i = 0; i < 100; i++)
        send_text(b, "XYZ"); /* before any receive */
    for (int i = 0; i < 100; i++)
        expect_text(a, "XYZ");
    memset(large, 'L', 10000);
    cr_assert_eq(nn_send(a, large, 10000, 0), 10000);
    cr_assert_eq(nn_recv(b, back, 10001, 0), 10000);
    cr_assert_arr_eq(back, large, 10000);
    OK(nn_close(a));
    OK(nn_close(b));
    free(large);
    free(back);
}

Test(transports, messages_pass)
{
    EACH_TRANSPORT(exchange);
}

/* What it sends before it knows that it was turned away is lost, so it sends again and again. */
static void
take_its_turn(int a, int c)
{
    int64_t limit = now_ms() + PATIENCE_MS;
    char byte = 0;

    set_int(a, NN_SOL_SOCKET, NN_RCVTIMEO, 20);
    do
        (void)nn_send(c, "C", 1, NN_DONTWAIT);
    while (nn_recv(a, &byte, 1, 0) != 1 && now_ms() < limit);
    cr_assert_eq(byte, 'C');
}

static void
refuse_second(enum transport t)
{
    char url[ENDPOINT_MAX];
    int a, b, c;

    fresh(url, t);
    a = bound(NN_PAIR, url);
    b = connected(NN_PAIR, url);
    wait_statistic(b, NN_STAT_CURRENT_CONNECTIONS, 1);
    c = connected(NN_PAIR, url);
    send_text(a, "A");
    expect_text(b, "A");
    send_text(b, "B");
    expect_text(a, "B");
    expect_nothing(a);
    OK(nn_close(b));
    take_its_turn(a, c);
    OK(nn_close(a));
    OK(nn_close(c));
}

Test(transports, a_pair_has_one_peer_at_a_time)
{
    EACH_TRANSPORT(refuse_second);
}

static void
bind_twice(enum transport t)
{
    char url[ENDPOINT_MAX];
    int a, b, c = sock(AF_SP, NN_PAIR);

    fresh(url, t);
    a = bound(NN_PAIR, url);
    b = connected(NN_PAIR, url);
    FAILS(EADDRINUSE, nn_bind(c, url));
    cr_assert_eq(nn_get_statistic(c, NN_STAT_BIND_ERRORS), 1);
    send_text(a, "A");
    expect_text(b, "A");
    OK(nn_close(a));
    OK(nn_bind(c, url));
    send_text(c, "B");
    expect_text(b, "B");
    OK(nn_close(b));
    OK(nn_close(c));
}

Test(transports, an_address_is_bound_once_and_can_be_bound_again_later)
{
    EACH_TRANSPORT(bind_twice);
}

static void
never_meet(enum transport t)
{
    static const int protocols[2][2] = {{NN_PAIR, NN_REP}, {NN_REQ, NN_PAIR}};
    char url[ENDPOINT_MAX];

    for (int i = 0; i < 2; i++) {
        fresh(url, t);
        int a = bound(protocols[i][0], url), b = connected(protocols[i][1], url);
        int pair = protocols[i][0] == NN_PAIR ? a : b;
        set_int(pair, NN_SOL_SOCKET, NN_SNDTIMEO, 100);
        FAILS(ETIMEDOUT, nn_send(pair, "A", 1, 0));
        cr_assert_eq(nn_get_statistic(a, NN_STAT_CURRENT_CONNECTIONS), 0);
        OK(nn_close(a));
        OK(nn_close(b));
    }
}

Test(transports, protocols_that_do_not_fit_never_meet)
{
    EACH_TRANSPORT(never_meet);
}

Test(transports, a_message_over_the_limit_is_not_delivered)
{
    static const enum transport framed[] = {IPC, TCP, WS};
    char url[ENDPOINT_MAX], byte;

    for (size_t i = 0; i < sizeof framed / sizeof *framed; i++) {
        fresh(url, framed[i]);
        int a = bound(NN_PAIR, url), b = connected(NN_PAIR, url);
        send_text(b, "hello");
        expect_text(a, "hello");
        set_int(a, NN_SOL_SOCKET, NN_RCVMAXSIZE, 4); /* of a connection that is there already */
        send_text(b, "TEST");
        expect_text(a, "TEST");
        send_text(b, "TEST0");
        wait_statistic(a, NN_STAT_ACCEPTED_CONNECTIONS, 2); /* the first has ended, for ever */
        FAILS(EAGAIN, nn_recv(a, &byte, 1, NN_DONTWAIT));
        OK(nn_close(a));
        OK(nn_close(b));
    }
}

/* ---- a bind that waits for its address ---- */

struct binding {
    pthread_t thread;
    int socket, result, error;
    const char *url;
    atomic_bool begun;
};

static void *
run_bind(void *argument)
{
    struct binding *b = argument;

    atomic_store(&b->begun, true);
    b->result = nn_bind(b->socket, b->url);
    b->error = nn_errno();
    return NULL;
}

static void
start_binding(struct binding *b, const char *url)
{
    *b = (struct binding){.socket = sock(AF_SP, NN_PAIR), .url = url};
    cr_assert_eq(pthread_create(&b->thread, NULL, run_bind, b), 0);
    while (!atomic_load(&b->begun))
        sleep_ms(1);
    sleep_ms(20);
}

/* What is called on the socket comes before the address is free.  That may be too late now and
 * then, but not always. */
Test(transports, a_bind_that_waits_holds_up_no_other_call)
{
    char url[ENDPOINT_MAX];
    bool bound_after_all = false;

    for (int i = 0; i < 20 && !bound_after_all; i++) {
        struct binding b;
        int first, id;

        endpoint_fresh(url, TCP);
        first = bound(NN_PAIR, url);
        start_binding(&b, url);
        set_int(b.socket, NN_SOL_SOCKET, NN_RCVMAXSIZE, 3);
        FAILS(EINVAL, nn_shutdown(b.socket, 0));
        OK(nn_close(first));
        pthread_join(b.thread, NULL);
        if ((bound_after_all = b.result >= 0)) {
            first = connected(NN_PAIR, url);
            send_text(first, "ABC");
            expect_text(b.socket, "ABC");
            send_text(first, "ABCD");
            expect_nothing(b.socket); /* the listener has the limit as well */
            OK(nn_close(first));
        } else {
            cr_assert_eq(b.error, EADDRINUSE, "%s", nn_strerror(b.error));
            OK(id = nn_bind(b.socket, url));
            cr_assert_eq(id, 1, "nothing is left of the first");
        }
        OK(nn_close(b.socket));
    }
    cr_assert(bound_after_all);
}

Test(transports, close_ends_a_bind_that_waits)
{
    char url[ENDPOINT_MAX];

    for (int i = 0; i < 3; i++) {
        struct binding b;
        int first, other;

        endpoint_fresh(url, TCP);
        first = bound(NN_PAIR, url);
        start_binding(&b, url);
        OK(nn_close(b.socket));
        other = sock(AF_SP, NN_PAIR); /* has its number */
        pthread_join(b.thread, NULL);
        cr_assert_eq(b.result, -1);
        cr_assert(b.error == EBADF || b.error == EADDRINUSE, "%s", nn_strerror(b.error));
        OK(nn_close(other));
        OK(nn_close(first));
    }
}

/* ---- shutdown ---- */

static void
shut_down(enum transport t)
{
    char url[ENDPOINT_MAX], other[ENDPOINT_MAX];
    int a = sock(AF_SP, NN_REP), b, first, second, id;

    fresh(url, t);
    fresh(other, t);
    OK(first = nn_bind(a, url));
    OK(second = nn_bind(a, other));
    cr_assert(first >= 1 && second > first);
    b = connected(NN_REQ, url);
    wait_statistic(a, NN_STAT_CURRENT_CONNECTIONS, 1);
    OK(nn_shutdown(a, first));
    wait_statistic(a, NN_STAT_CURRENT_CONNECTIONS, 0); /* what it accepted goes with it */
    FAILS(EINVAL, nn_shutdown(a, first));
    FAILS(EINVAL, nn_shutdown(a, 99));
    OK(id = nn_connect(b, other));
    cr_assert_eq(id, 2);
    wait_statistic(a, NN_STAT_CURRENT_CONNECTIONS, 1);
    OK(nn_shutdown(b, id));
    wait_statistic(a, NN_STAT_CURRENT_CONNECTIONS, 0);
    OK(id = nn_connect(b, other));
    OK(nn_shutdown(b, id)); /* at once, and close at once */
    OK(nn_close(b));
    OK(nn_close(a));
}

Test(transports, an_endpoint_is_shut_down_with_its_connections)
{
    EACH_TRANSPORT(shut_down);
}

/* ---- many at once ---- */

static void *
connect_and_close(void *url)
{
    int s = nn_socket(AF_SP, NN_REQ);
    bool good = s >= 0 && nn_connect(s, url) > 0 && nn_close(s) == 0;

    return good ? NULL : url;
}

static void
storm(enum transport t)
{
    enum { THREADS = 50 };
    pthread_t threads[THREADS];
    char url[ENDPOINT_MAX];
    int s, req;
    void *fault;

    fresh(url, t);
    s = bound(NN_REP, url);
    for (int round = 0; round < TEST_REPEATS(8); round++) {
        for (int i = 0; i < THREADS; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, connect_and_close, url), 0);
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], &fault);
            cr_assert_null(fault);
        }
    }
    req = connected(NN_REQ, url);
    send_text(req, "still there?");
    expect_text(s, "still there?");
    OK(nn_close(req));
    OK(nn_close(s));
}

Test(transports, a_storm_of_short_connections_does_no_harm)
{
    EACH_TRANSPORT(storm);
}

static void *
subscribe_and_close(void *url)
{
    int s = nn_socket(AF_SP, NN_SUB);
    bool good = s >= 0 && nn_setsockopt(s, NN_SUB, NN_SUB_SUBSCRIBE, "", 0) == 0 &&
                nn_connect(s, url) > 0 && nn_close(s) == 0;

    return good ? NULL : url;
}

/* The publisher speaks meanwhile. */
static void
subscribers(enum transport t)
{
    enum { THREADS = 50 };
    pthread_t threads[THREADS];
    char url[ENDPOINT_MAX];
    int pub, sub;
    void *fault;

    fresh(url, t);
    pub = bound(NN_PUB, url);
    for (int round = 0; round < TEST_REPEATS(8); round++) {
        for (int i = 0; i < THREADS; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, subscribe_and_close, url), 0);
        for (int i = 0; i < THREADS; i++) {
            send_text(pub, "news");
            pthread_join(threads[i], &fault);
            cr_assert_null(fault);
        }
    }
    wait_statistic(pub, NN_STAT_CURRENT_CONNECTIONS, 0);
    sub = sock(AF_SP, NN_SUB);
    OK(nn_setsockopt(sub, NN_SUB, NN_SUB_SUBSCRIBE, "", 0));
    OK(nn_connect(sub, url));
    wait_statistic(pub, NN_STAT_CURRENT_CONNECTIONS, 1);
    send_text(pub, "still there");
    expect_text(sub, "still there");
    OK(nn_close(sub));
    OK(nn_close(pub));
}

Test(transports, subscribers_that_come_and_go_do_no_harm)
{
    EACH_TRANSPORT(subscribers);
}

/* ---- many connections of each of many sockets, closed while messages are under way ---- */

enum { PULLERS = 10, CONNECTIONS = 10, MESSAGES = 10 };

struct puller {
    pthread_t thread;
    const char *url;
    atomic_int *active;
    bool good;
};

static bool
pull_some(int s, const char *url)
{
    int limit = PATIENCE_MS;
    char text[8];
    bool good = nn_setsockopt(s, NN_SOL_SOCKET, NN_RCVTIMEO, &limit, sizeof limit) == 0;

    for (int i = 0; i < CONNECTIONS && good; i++)
        good = nn_connect(s, url) > 0;
    for (int i = 0; i < MESSAGES && good; i++)
        good = nn_recv(s, text, sizeof text, 0) == 5 && memcmp(text, "hello", 5) == 0;
    return good;
}

static void *
run_puller(void *argument)
{
    struct puller *puller = argument;
    int s = nn_socket(AF_SP, NN_PULL);
    bool good = s >= 0 && pull_some(s, puller->url);

    puller->good = s >= 0 && nn_close(s) == 0 && good;
    atomic_fetch_sub(puller->active, 1);
    return NULL;
}

static void
pull_and_leave(enum transport t)
{
    struct puller pullers[PULLERS];
    char url[ENDPOINT_MAX];
    atomic_int active;
    int push;

    fresh(url, t);
    push = bound(NN_PUSH, url);
    for (int round = 0; round < 1 + TEST_REPEATS(4); round++) {
        atomic_init(&active, PULLERS);
        for (int i = 0; i < PULLERS; i++) {
            pullers[i] = (struct puller){.url = url, .active = &active};
            cr_assert_eq(pthread_create(&pullers[i].thread, NULL, run_puller, &pullers[i]), 0);
        }
        while (atomic_load(&active) > 0) /* what those who leave have not read is lost */
            if (nn_send(push, "hello", 5, NN_DONTWAIT) < 0)
                sleep_ms(1);
        for (int i = 0; i < PULLERS; i++) {
            pthread_join(pullers[i].thread, NULL);
            cr_assert(pullers[i].good, "puller %d", i);
        }
        wait_statistic(push, NN_STAT_CURRENT_CONNECTIONS, 0);
    }
    OK(nn_close(push));
}

Test(transports, pullers_with_many_connections_get_theirs_and_leave)
{
    EACH_TRANSPORT(pull_and_leave);
}

/* ---- one socket for each message: no order holds between connections ---- */

enum { PUSHERS = 10, SOCKETS = 10 };

struct pusher {
    pthread_t thread;
    const char *url;
    uint32_t number;
    bool good;
};

static void *
run_pusher(void *argument)
{
    struct pusher *pusher = argument;
    int limit = PATIENCE_MS;

    pusher->good = true;
    for (uint32_t i = 0; i < SOCKETS && pusher->good; i++) {
        uint32_t body[2] = {pusher->number, i};
        int s = nn_socket(AF_SP, NN_PUSH);
        pusher->good = s >= 0 &&
                       nn_setsockopt(s, NN_SOL_SOCKET, NN_SNDTIMEO, &limit, sizeof limit) == 0 &&
                       nn_connect(s, pusher->url) > 0 && nn_send(s, body, sizeof body, 0) == 8;
        pusher->good = s >= 0 && nn_close(s) == 0 && pusher->good;
    }
    return NULL;
}

static void
push_and_close(enum transport t)
{
    struct pusher pushers[PUSHERS];
    bool seen[PUSHERS][SOCKETS] = {{false}};
    uint32_t body[2];
    char url[ENDPOINT_MAX];
    int pull;

    fresh(url, t);
    pull = bound(NN_PULL, url);
    for (uint32_t i = 0; i < PUSHERS; i++) {
        pushers[i] = (struct pusher){.url = url, .number = i};
        cr_assert_eq(pthread_create(&pushers[i].thread, NULL, run_pusher, &pushers[i]), 0);
    }
    for (int i = 0; i < PUSHERS * SOCKETS; i++) {
        cr_assert_eq(nn_recv(pull, body, sizeof body, 0), 8, "after %d: %s", i,
                     nn_strerror(nn_errno()));
        cr_assert_lt(body[0], PUSHERS);
        cr_assert_lt(body[1], SOCKETS);
        cr_assert(!seen[body[0]][body[1]], "%u of %u came twice", body[1], body[0]);
        seen[body[0]][body[1]] = true;
    }
    for (int i = 0; i < PUSHERS; i++) {
        pthread_join(pushers[i].thread, NULL);
        cr_assert(pushers[i].good, "pusher %d", i);
    }
    expect_nothing(pull);
    OK(nn_close(pull));
}

Test(transports, who_opens_a_socket_for_each_message_loses_none)
{
    EACH_TRANSPORT(push_and_close);
}

/* ---- NN_RCVBUF ---- */

Test(transports, a_receive_buffer_bounds_what_waits_inside_the_process)
{
    char url[ENDPOINT_MAX], large[256] = {0};
    int a = sock(AF_SP, NN_PAIR), b, count = 0;

    endpoint_fresh(url, INPROC);
    set_int(a, NN_SOL_SOCKET, NN_RCVBUF, 200);
    OK(nn_bind(a, url));
    b = connected(NN_PAIR, url);
    while (count < 1000 && nn_send(b, "0123456789", 10, NN_DONTWAIT) == 10)
        count++;
    cr_assert_eq(nn_errno(), EAGAIN);
    cr_assert(count >= 1 && count <= 20, "%d", count); /* 20 is what nanomsg takes */
    set_int(b, NN_SOL_SOCKET, NN_SNDTIMEO, 100);
    FAILS(ETIMEDOUT, nn_send(b, "0123456789", 10, 0));
    for (int i = 0; i < count; i++)
        expect_text(a, "0123456789");
    cr_assert_eq(nn_send(b, large, sizeof large, 0), (int)sizeof large, "one always fits");
    cr_assert_eq(nn_recv(a, large, sizeof large, 0), (int)sizeof large);
    OK(nn_close(a));
    OK(nn_close(b));
}

/* ---- ws ---- */

/* nanomsg binds to no path and asks for any. */
Test(ws, who_connects_may_name_a_path)
{
    char url[ENDPOINT_MAX], path[ENDPOINT_MAX + 16];
    int a, b;

    fresh(url, WS);
    a = bound(NN_PULL, url);
    snprintf(path, sizeof path, "%s/some/path?query", url);
    b = connected(NN_PUSH, path);
    send_text(b, "by a path");
    expect_text(a, "by a path");
    OK(nn_close(b));
    b = connected(NN_PUSH, url);
    send_text(b, "by none");
    expect_text(a, "by none");
    OK(nn_close(b));
    OK(nn_close(a));
}

/* Text is a message as bytes are; what is none ends the connection, and the next one is made. */
Test(ws, messages_may_be_text)
{
    char url[ENDPOINT_MAX];
    int a, b;

    fresh(url, WS);
    a = bound(NN_PAIR, url);
    b = sock(AF_SP, NN_PAIR);
    cr_assert_eq(get_int(b, NN_WS, NN_WS_MSG_TYPE), NN_WS_MSG_TYPE_BINARY);
    set_int(b, NN_WS, NN_WS_MSG_TYPE, NN_WS_MSG_TYPE_TEXT);
    OK(nn_connect(b, url));
    send_text(b, "gr\xc3\xbc\xc3\x9f dich");
    expect_text(a, "gr\xc3\xbc\xc3\x9f dich");
    send_text(a, "bytes \xff come back");
    expect_text(b, "bytes \xff come back");
    send_text(b, "no text: \xff");
    wait_statistic(a, NN_STAT_BROKEN_CONNECTIONS, 1);
    wait_statistic(b, NN_STAT_ESTABLISHED_CONNECTIONS, 2);
    expect_nothing(a);
    send_text(b, "text");
    expect_text(a, "text");
    OK(nn_close(a));
    OK(nn_close(b));
}
