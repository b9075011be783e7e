/* SPDX-License-Identifier: MIT */
/* spoke gateway from the outside.  The test is its client and its target, on plain sockets: client
 * -- gateway -- target, or client -- gateway -- shm:// -- gateway -- target. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/test.h"
#include "tests/tool/sockets.h"

TestSuite(gateway, .init = test_directory_make, .fini = test_directory_remove);

#define ASSERT_STATUS(Program, Status)                                                             \
    cr_assert_eq((Program).status, Status, "exit code %d; it said: %s", (Program).status,          \
                 (Program).err)

/* ---- what goes through ---- */

struct pair {
    enum scheme front, back;
};

static struct pair pairs[] = {{TCP, TCP}, {TCP, IPC}, {IPC, TCP}, {IPC, IPC}};

ParameterizedTestParameters(gateway, carries_both_ways_and_each_way_has_its_end)
{
    return cr_make_param_array(struct pair, pairs, 4, NULL);
}

ParameterizedTest(struct pair *over, gateway, carries_both_ways_and_each_way_has_its_end)
{
    struct program gateway;
    char front[128], target[128], line[400];
    int listener = target_open(over->back, target);

    gateway_start(&gateway, over->front, "front", front, target);
    check_conversation(front, listener);
    snprintf(line, sizeof line,
             "0 connections, 2 ever, to %s: 9 bytes there, 16 back; refused 0, could not connect "
             "0, broken 0, idle 0, cut 0\n",
             target);
    wait_counters(&gateway, line);
    size_t seen = gateway.out_size;
    terminate(&gateway);
    cr_assert_str_eq(gateway.out + seen, line, "once more at the end");
    cr_assert_neq(access(in_directory("front"), F_OK), 0, "the socket file is removed");
    program_clear(&gateway);
    close(listener);
}

#define BULK ((size_t)32 << 20)

Test(gateway, carries_much_without_a_fault)
{
    struct program gateway;
    char front[128], target[128];
    int listener = target_open(IPC, target), client, server;

    gateway_start(&gateway, TCP, "", front, target);
    client = connect_to(front), server = accept_one(listener);
    check_bulk(client, server, BULK);
    wait_counters(&gateway, "0 connections, 1 ever");
    cr_assert_not_null(strstr(gateway.out, ": 33554432 bytes there, 33554432 back;"), "%s",
                       gateway.out);
    close(client), close(server), close(listener);
    terminate(&gateway);
    program_clear(&gateway);
}

/* Two gateways with shm:// between. */
struct chain {
    struct program near, far;
    char front[128], middle[128], target[128];
    int listener;
};

static void
chain_open(struct chain *c, enum scheme front, enum scheme back)
{
    c->listener = target_open(back, c->target);
    gateway_start(&c->far, SHM, "middle", c->middle, c->target);
    gateway_start(&c->near, front, "front", c->front, c->middle);
}

static void
chain_close(struct chain *c)
{
    terminate(&c->near);
    terminate(&c->far);
    program_clear(&c->near);
    program_clear(&c->far);
    close(c->listener);
}

ParameterizedTestParameters(gateway, carries_through_two_with_shared_memory_between)
{
    return cr_make_param_array(struct pair, pairs, 4, NULL);
}

ParameterizedTest(struct pair *over, gateway, carries_through_two_with_shared_memory_between)
{
    struct chain c;

    chain_open(&c, over->front, over->back);
    check_conversation(c.front, c.listener);
    wait_counters(&c.near, "0 connections, 2 ever");
    wait_counters(&c.far, "0 connections, 2 ever");
    chain_close(&c);
}

Test(gateway, carries_much_through_two_with_shared_memory_between)
{
    struct chain c;
    int client, server;

    chain_open(&c, TCP, TCP);
    client = connect_to(c.front), server = accept_one(c.listener);
    check_bulk(client, server, BULK);
    close(client), close(server);
    chain_close(&c);
}

/* ---- targets ---- */

Test(gateway, goes_on_where_nobody_listens)
{
    struct program gateway;
    char target[128];
    int listener = target_open(IPC, target), client, server;

    close(listener);
    cr_assert_eq(unlink(target + 6), 0);
    program_start_argv(&gateway, false,
                       PROGRAM_ARGV(SPOKE_TOOL, "gateway", ipc_in_directory("front"), target));
    cr_assert(appears(in_directory("front")));
    for (int life = 1; life <= 2; life++) {
        for (int i = 0; i < 3; i++) {
            client = connect_to(ipc_in_directory("front"));
            expect_broken(client);
            close(client);
        }
        program_look(&gateway);
        cr_assert_eq(count_of(gateway.err, "cannot connect to"), life, "%s", gateway.err);
        listener = target_open(IPC, target);
        client = connect_to(ipc_in_directory("front")), server = accept_one(listener);
        send_text(server, "here");
        expect_text(client, "here");
        close(client), close(server), close(listener);
        cr_assert_eq(unlink(target + 6), 0);
    }
    wait_counters(&gateway, "0 connections, 8 ever");
    cr_assert_not_null(strstr(gateway.out, "could not connect 6, broken 0"), "%s", gateway.out);
    terminate(&gateway);
    program_clear(&gateway);
}

Test(gateway, passes_on_that_a_target_died)
{
    struct program gateway;
    char front[128], target[128];
    int listener = target_open(TCP, target), client, server;

    gateway_start(&gateway, TCP, "", front, target);
    client = connect_to(front), server = accept_one(listener);
    send_text(client, "there");
    expect_text(server, "there");
    reset(server);
    char byte;
    cr_assert_eq(recv(client, &byte, 1, 0), -1);
    cr_assert_eq(errno, ECONNRESET, "%s: no silent end", strerror(errno));
    close(client);
    client = connect_to(front), server = accept_one(listener); /* and a client */
    send_text(client, "there");
    expect_text(server, "there");
    reset(client);
    cr_assert_eq(recv(server, &byte, 1, 0), -1);
    cr_assert_eq(errno, ECONNRESET, "%s: no silent end", strerror(errno));
    close(server);
    wait_counters(&gateway, "0 connections, 2 ever");
    cr_assert_not_null(strstr(gateway.out, "could not connect 0, broken 2"), "%s", gateway.out);
    terminate(&gateway);
    program_clear(&gateway);
    close(listener);
}

Test(gateway, passes_on_that_the_other_gateway_died)
{
    struct chain c;
    int client, server;

    chain_open(&c, TCP, TCP);
    client = connect_to(c.front), server = accept_one(c.listener);
    send_text(client, "there");
    expect_text(server, "there");
    program_clear(&c.far); /* SIGKILL */
    char byte;
    cr_assert_eq(recv(client, &byte, 1, 0), -1);
    cr_assert_eq(errno, ECONNRESET, "%s: no silent end", strerror(errno));
    expect_broken(server);
    close(client), close(server);
    wait_counters(&c.near, "0 connections, 1 ever");
    cr_assert_not_null(strstr(c.near.out, "broken 1"), "%s", c.near.out);
    await_free(c.middle);
    gateway_start(&c.far, SHM, "middle", c.middle, c.target); /* it comes back */
    check_conversation(c.front, c.listener);
    chain_close(&c);
}

/* ---- clients that are a burden ---- */

enum { CROWD = 40 };

/* `most` KiB for each; a sanitizer keeps what was freed. */
static void
check_growth(const struct program *p, const char *name, long before, long most)
{
    long grown = memory_kib(p, name) - before;

    if (SPOKE_TEST_SLOWDOWN == 1)
        cr_assert_leq(grown, CROWD * most, "%s %ld KiB for %d", name, grown, CROWD);
}

Test(gateway, serves_others_beside_clients_that_say_nothing)
{
    struct program gateway;
    char front[128], target[128];
    int listener = target_open(IPC, target), silent[CROWD], servers[CROWD];
    long before;

    gateway_start(&gateway, TCP, "", front, target);
    before = memory_kib(&gateway, "VmRSS:");
    for (int i = 0; i < CROWD; i++) {
        silent[i] = connect_to(front), servers[i] = accept_one(listener);
        if (i % 2 == 0) /* half-open: one way has ended */
            cr_assert_eq(shutdown(silent[i], SHUT_WR), 0);
    }
    check_conversation(front, listener);
    wait_counters(&gateway, "40 connections, 42 ever");
    check_growth(&gateway, "VmRSS:", before, 256);
    for (int i = 0; i < CROWD; i++)
        close(silent[i]), close(servers[i]);
    wait_counters(&gateway, "0 connections, 42 ever");
    terminate(&gateway);
    program_clear(&gateway);
    close(listener);
}

/* Send to all who never read until none takes any more, a few times. */
static void
fill(const int *fds, int count)
{
    static uint8_t block[65536];

    for (int quiet = 0; quiet < 20;) {
        bool any = false;

        for (int i = 0; i < count; i++) {
            ssize_t n = send(fds[i], block, sizeof block, MSG_NOSIGNAL | MSG_DONTWAIT);

            cr_assert(n > 0 || errno == EAGAIN, "%s", strerror(errno));
            any |= n > 0;
        }
        quiet = any ? 0 : quiet + 1;
        usleep(any ? 0 : 5000);
    }
}

Test(gateway, holds_little_for_clients_that_never_read)
{
    struct program gateway;
    char front[128], target[128];
    int listener = target_open(IPC, target), clients[CROWD], servers[CROWD];
    long before;

    gateway_start(&gateway, TCP, "", front, target);
    before = memory_kib(&gateway, "VmRSS:");
    for (int i = 0; i < CROWD; i++)
        clients[i] = connect_to(front), servers[i] = accept_one(listener);
    fill(servers, CROWD);
    check_growth(&gateway, "VmRSS:", before, 1024); /* a few chunks of 64 KiB */
    check_conversation(front, listener);
    for (int i = 0; i < CROWD; i++)
        close(clients[i]), close(servers[i]);
    wait_counters(&gateway, "0 connections, 42 ever");
    terminate(&gateway);
    program_clear(&gateway);
    close(listener);
}

/* What is in shared memory is the far one's; the near one maps it, once for each connection. */
Test(gateway, holds_no_more_than_windows_in_shared_memory)
{
    struct chain c;
    int clients[CROWD], servers[CROWD];
    long near, far;

    chain_open(&c, TCP, IPC);
    near = memory_kib(&c.near, "RssAnon:"), far = memory_kib(&c.far, "VmRSS:");
    for (int i = 0; i < CROWD; i++)
        clients[i] = connect_to(c.front), servers[i] = accept_one(c.listener);
    fill(servers, CROWD);
    check_growth(&c.near, "RssAnon:", near, 1024);
    check_growth(&c.far, "VmRSS:", far, 2048); /* with a window of 1 MiB */
    check_conversation(c.front, c.listener);
    for (int i = 0; i < CROWD; i++)
        close(clients[i]), close(servers[i]);
    wait_counters(&c.near, "0 connections, 42 ever");
    wait_counters(&c.far, "0 connections, 42 ever");
    chain_close(&c);
}

static void
drop_accepted(int listener)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close(fd);
}

Test(gateway, outlives_a_flood)
{
    struct program gateway;
    char front[128], target[128];
    int listener = target_open(IPC, target), client;
    long before;

    cr_assert_eq(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    gateway_start(&gateway, TCP, "", front, target);
    before = memory_kib(&gateway, "VmRSS:");
    for (int i = 0; i < 1000; i++) {
        client = connect_to(front);
        if (i % 3 == 0)
            reset(client);
        else
            close(client);
        drop_accepted(listener);
    }
    for (int i = 0; i < PATIENCE_MS / 10; i++) {
        drop_accepted(listener);
        cr_assert_eq(kill(gateway.pid, SIGUSR1), 0);
        usleep(10000);
        program_look(&gateway);
        if (has_line(gateway.out, "0 connections, 1000 ever"))
            break;
    }
    cr_assert(has_line(gateway.out, "0 connections, 1000 ever"), "%s", gateway.out);
    check_growth(&gateway, "VmRSS:", before, 200); /* 8 MiB in all */
    cr_assert_eq(fcntl(listener, F_SETFL, 0), 0);
    check_conversation(front, listener);
    terminate(&gateway);
    program_clear(&gateway);
    close(listener);
}

/* Connect, say "ping", and be served: the server's end; -1: turned away. */
static int
try_ping(const char *url, int listener, int *client)
{
    char got[4] = "";
    int server;

    *client = connect_to(url);
    send_text(*client, "ping");
    for (;;) {
        struct pollfd fds[2] = {{.fd = listener, .events = POLLIN},
                                {.fd = *client, .events = POLLIN}};

        cr_assert_gt(poll(fds, 2, PATIENCE_MS), 0);
        if (fds[0].revents == 0) {
            expect_broken(*client);
            close(*client);
            return -1;
        }
        server = accept_one(listener);
        if (recv(server, got, 4, MSG_WAITALL) == 4)
            return server;
        close(server); /* it was there before, and has ended */
    }
}

/* Few descriptors: who finds none is turned away, or waits; then all is as before. */
Test(gateway, goes_on_after_descriptors_ran_out)
{
    struct program gateway;
    char target[128], command[512];
    int listener = target_open(IPC, target), clients[20], client, server;

    snprintf(command, sizeof command, "ulimit -n 20; exec \"$SPOKE\" gateway -v %s %s",
             ipc_in_directory("front"), target);
    program_start_argv(&gateway, false, PROGRAM_ARGV("/bin/sh", "-c", command));
    cr_assert(appears(in_directory("front")));
    for (int i = 0; i < 20; i++)
        clients[i] = connect_to(ipc_in_directory("front"));
    wait_error(&gateway, "no file descriptors left");
    for (int i = 0; i < 20; i++)
        close(clients[i]);
    while ((server = try_ping(ipc_in_directory("front"), listener, &client)) < 0)
        usleep(10000);
    send_text(server, "pong");
    expect_text(client, "pong");
    close(client), close(server);
    wait_counters(&gateway, "0 connections, ");
    terminate(&gateway);
    program_clear(&gateway);
    close(listener);
}

/* ---- limits and rules ---- */

Test(gateway, lets_no_more_in_than_it_may)
{
    static struct pair fronts[] = {{TCP, IPC}, {IPC, TCP}};

    for (int i = 0; i < 2; i++) {
        struct program gateway;
        char front[128], target[128];
        int listener = target_open(fronts[i].back, target), clients[4], servers[4];

        gateway_start(&gateway, fronts[i].front, "front", front, target, "--max-connections", "2");
        for (int j = 0; j < 4; j++) {
            clients[j] = connect_to(front);
            send_text(clients[j], "abc");
        }
        for (int j = 0; j < 2; j++) {
            servers[j] = accept_one(listener);
            expect_text(servers[j], "abc");
        }
        for (int j = 0; j < 10; j++) { /* it has had time to make a mistake */
            send_text(clients[0], "x");
            expect_text(servers[0], "x");
        }
        wait_counters(&gateway, "2 connections, 2 ever");
        for (int j = 0; j < 2; j++) { /* one ends, one comes in */
            close(clients[j]), close(servers[j]);
            servers[2 + j] = accept_one(listener);
            expect_text(servers[2 + j], "abc");
        }
        wait_counters(&gateway, "2 connections, 4 ever");
        for (int j = 2; j < 4; j++)
            close(clients[j]), close(servers[j]);
        terminate(&gateway);
        program_clear(&gateway);
        close(listener);
        unlink(in_directory("target"));
    }
}

Test(gateway, ends_what_is_idle)
{
    struct program gateway;
    char front[128], target[128];
    int listener = target_open(TCP, target), client, server;

    gateway_start(&gateway, TCP, "", front, target, "--idle", "0.2");
    client = connect_to(front), server = accept_one(listener);
    expect_broken(client);
    expect_broken(server);
    close(client), close(server);
    wait_counters(&gateway, "0 connections, 1 ever");
    cr_assert_not_null(strstr(gateway.out, "broken 0, idle 1, cut 0"), "%s", gateway.out);
    terminate(&gateway);
    program_clear(&gateway);
    close(listener);
}

/* Does this list let us in?  The second gateway is our client over shm://. */
static void
check_allowed(enum scheme front, const char *option, int id, bool allowed)
{
    struct program gateway, near = {.pid = 0};
    char url[128], target[128], mine[128], text[16];
    int listener = target_open(TCP, target), client, server;

    snprintf(text, sizeof text, "%d", id);
    gateway_start(&gateway, front, "front", url, target, option, "77777777", option, text);
    if (front == SHM)
        gateway_start(&near, IPC, "near", mine, url);
    client = connect_to(front == SHM ? mine : url);
    if (allowed) {
        server = accept_one(listener);
        send_text(client, "hello");
        expect_text(server, "hello");
        close(server);
    } else {
        expect_broken(client);
        wait_counters(&gateway, "refused 1, could not connect 0");
    }
    close(client);
    if (front == SHM) {
        terminate(&near);
        program_clear(&near);
    }
    terminate(&gateway);
    program_clear(&gateway);
    close(listener);
}

Test(gateway, lets_only_those_in_who_may)
{
    check_allowed(IPC, "--allow-uid", (int)getuid(), true);
    check_allowed(IPC, "--allow-uid", (int)getuid() + 1, false);
    check_allowed(IPC, "--allow-gid", (int)getgid(), true);
    check_allowed(IPC, "--allow-gid", (int)getgid() + 1, false);
    check_allowed(SHM, "--allow-uid", (int)getuid(), true);
    check_allowed(SHM, "--allow-uid", (int)getuid() + 1, false);
    check_allowed(TCP, "--allow-uid", (int)getuid(), false); /* nobody knows who that is */
}

static void
check_come_in(const char *url, int listener, bool allowed)
{
    int client = connect_to(url), server;

    if (allowed) {
        server = accept_one(listener);
        close(server);
        expect_end(client);
    } else {
        expect_broken(client);
    }
    close(client);
}

Test(gateway, reads_its_rules_again)
{
    struct program gateway;
    char front[128], target[128], text[200];
    int listener = target_open(TCP, target);

    write_rules("# nobody\n\n  allow-uid 77777777 # who is that?\n");
    gateway_start(&gateway, IPC, "front", front, target, "--rules", in_directory("rules"));
    check_come_in(front, listener, false);
    snprintf(text, sizeof text, "allow-uid 77777777\nallow-gid %d\nmax-connections 9\nidle 1000",
             (int)getgid());
    write_rules(text);
    reload(&gateway, "the rules are read", 1);
    check_come_in(front, listener, true);
    write_rules("allow-uid 77777777\nallow everybody\n"); /* a mistake changes nothing */
    reload(&gateway, "rules, line 2: ", 1);
    check_come_in(front, listener, true);
    cr_assert_eq(unlink(in_directory("rules")), 0);
    reload(&gateway, "cannot read the rules in ", 1);
    check_come_in(front, listener, true);
    write_rules("allow-uid 77777777\n");
    reload(&gateway, "the rules are read", 2);
    check_come_in(front, listener, false);
    wait_counters(&gateway, "refused 2,");
    terminate(&gateway);
    program_clear(&gateway);
    close(listener);
}

/* Those that wait come in when there may be more, and idle ones are looked for. */
Test(gateway, new_rules_hold_for_those_that_are_there)
{
    struct program gateway;
    char front[128], target[128];
    int listener = target_open(TCP, target), clients[2], servers[2];

    write_rules("max-connections 1\n");
    gateway_start(&gateway, IPC, "front", front, target, "--rules", in_directory("rules"));
    clients[0] = connect_to(front), servers[0] = accept_one(listener);
    clients[1] = connect_to(front);
    wait_counters(&gateway, "1 connections, 1 ever");
    write_rules("max-connections 2\n");
    reload(&gateway, "the rules are read", 1);
    servers[1] = accept_one(listener);
    write_rules("idle 0.1\n");
    reload(&gateway, "the rules are read", 2);
    for (int i = 0; i < 2; i++) {
        expect_broken(clients[i]);
        expect_broken(servers[i]);
        close(clients[i]), close(servers[i]);
    }
    wait_counters(&gateway, "idle 2, cut 0");
    terminate(&gateway);
    program_clear(&gateway);
    close(listener);
}

/* ---- its end ---- */

/* One connection, and a SIGTERM that has been understood. */
static void
start_draining(struct program *p, const char *drain, char front[128], char target[128], int *fds)
{
    int listener = target_open(TCP, target);

    gateway_start(p, TCP, "", front, target, "--drain", drain);
    fds[0] = connect_to(front), fds[1] = accept_one(listener);
    send_text(fds[0], "there");
    expect_text(fds[1], "there");
    close(listener);
    cr_assert_eq(kill(p->pid, SIGTERM), 0);
}

Test(gateway, ends_when_its_connections_have)
{
    struct program gateway;
    char front[128], target[128];
    int fds[2];

    start_draining(&gateway, "1000", front, target, fds);
    wait_error(&gateway, "waiting for 1 connections to end");
    await_free(front); /* it takes no more */
    send_text(fds[1], "and back");
    expect_text(fds[0], "and back");
    send_text(fds[0], "the last");
    close(fds[0]);
    expect_text(fds[1], "the last");
    expect_end(fds[1]);
    close(fds[1]);
    cr_assert_eq(program_wait(&gateway, 30), 0, "it said: %s", gateway.err);
    cr_assert_not_null(strstr(gateway.out, "13 bytes there, 8 back"), "%s", gateway.out);
    program_clear(&gateway);
}

/* The last bytes are in shared memory when it ends. */
Test(gateway, loses_nothing_when_it_ends)
{
    struct chain c;
    int client, server;

    chain_open(&c, TCP, TCP);
    client = connect_to(c.front), server = accept_one(c.listener);
    send_text(client, "there");
    expect_text(server, "there");
    cr_assert_eq(kill(c.near.pid, SIGTERM), 0);
    cr_assert_eq(kill(c.far.pid, SIGTERM), 0);
    wait_error(&c.near, "waiting for 1");
    wait_error(&c.far, "waiting for 1");
    check_bulk(client, server, (size_t)4 << 20);
    close(client), close(server);
    cr_assert_eq(program_wait(&c.near, 30), 0, "it said: %s", c.near.err);
    cr_assert_eq(program_wait(&c.far, 30), 0, "it said: %s", c.far.err);
    program_clear(&c.near);
    program_clear(&c.far);
    close(c.listener);
}

Test(gateway, cuts_what_does_not_end_in_time)
{
    struct program gateway;
    char front[128], target[128];
    int fds[2];

    start_draining(&gateway, "0.1", front, target, fds);
    for (int i = 0; i < 2; i++) {
        char byte;

        cr_assert_eq(recv(fds[i], &byte, 1, 0), -1);
        cr_assert_eq(errno, ECONNRESET, "%s: no silent end", strerror(errno));
        close(fds[i]);
    }
    cr_assert_eq(program_wait(&gateway, 30), 128 + SIGTERM, "it said: %s", gateway.err);
    cr_assert_not_null(strstr(gateway.out, "broken 0, idle 0, cut 1\n"), "%s", gateway.out);
    program_clear(&gateway);
}

Test(gateway, ends_at_once_at_the_second_signal)
{
    static const int seconds[] = {SIGTERM, SIGINT};

    for (int i = 0; i < 2; i++) {
        struct program gateway;
        char front[128], target[128];
        int fds[2];

        start_draining(&gateway, "1000", front, target, fds);
        wait_error(&gateway, "waiting for 1 connections to end");
        cr_assert_eq(kill(gateway.pid, seconds[i]), 0);
        cr_assert_eq(program_wait(&gateway, 30), 128 + seconds[i], "it said: %s", gateway.err);
        cr_assert_not_null(strstr(gateway.out, "cut 1\n"), "%s", gateway.out);
        program_clear(&gateway);
        close(fds[0]), close(fds[1]);
    }
}

Test(gateway, is_silent_if_it_is_told_to)
{
    struct program gateway;
    int client;

    program_start_argv(&gateway, false,
                       PROGRAM_ARGV(SPOKE_TOOL, "gateway", ipc_in_directory("front"),
                                    ipc_in_directory("nobody"), "-q"));
    cr_assert(appears(in_directory("front")));
    client = connect_to(ipc_in_directory("front"));
    expect_broken(client);
    close(client);
    terminate(&gateway);
    cr_assert_str_empty(gateway.out);
    cr_assert_str_empty(gateway.err);
    program_clear(&gateway);
}

/* ---- sockets that are passed on ---- */

/* Start it as systemd does, with two sockets and these variables. */
static void
start_with(struct program *p, const int fds[2], const char *pid, const char *count,
           const char *words)
{
    char command[512];

    snprintf(command, sizeof command,
             "exec 3<&%d 4<&%d; LISTEN_PID=%s LISTEN_FDS=%s exec \"$SPOKE\" gateway -v %s", fds[0],
             fds[1], pid, count, words);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(fcntl(fds[i], F_SETFD, 0), 0);
    program_start_argv(p, false, PROGRAM_ARGV("bash", "-c", command));
}

/* Two that listen, at `urls`. */
static void
open_passed(int fds[2], char urls[2][128])
{
    fds[0] = target_open(TCP, urls[0]);
    fds[1] = target_open(IPC, urls[1]);
    cr_assert_eq(rename(in_directory("target"), in_directory("passed")), 0);
    snprintf(urls[1], 128, "%s", ipc_in_directory("passed"));
}

Test(gateway, listens_on_sockets_that_are_passed_on)
{
    struct program gateway;
    char urls[2][128], target[128];
    int fds[2], listener;

    open_passed(fds, urls);
    listener = target_open(TCP, target);
    start_with(&gateway, fds, "$$", "2", target);
    close(fds[0]), close(fds[1]); /* it has them */
    for (int i = 0; i < 2; i++)
        check_conversation(urls[i], listener);
    wait_counters(&gateway, "0 connections, 4 ever");
    terminate(&gateway);
    cr_assert_eq(access(in_directory("passed"), F_OK), 0, "that file is not ours");
    program_clear(&gateway);
    close(listener);
}

Test(gateway, looks_at_what_is_passed_on)
{
    static const struct {
        const char *pid, *count;
        int status;
        const char *said;
    } cases[] = {
        {"1", "2", 1, "give two addresses"}, /* meant for somebody else */
        {"$$", "0", 1, "give two addresses"},
        {"$$", "two", 1, "$LISTEN_FDS is no number"},
        {"$$", "-1", 1, "$LISTEN_FDS is no number"},
        {"$$", "17", 1, "too many"},
        {"$$", "3", 3, "cannot listen on descriptor 5"},
    };
    char urls[2][128];
    int fds[2];

    open_passed(fds, urls);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct program p;

        start_with(&p, fds, cases[i].pid, cases[i].count, "ipc://@nobody 5</dev/null");
        program_wait(&p, 30);
        ASSERT_STATUS(p, cases[i].status);
        cr_assert_not_null(strstr(p.err, cases[i].said), "it said: %s", p.err);
        program_clear(&p);
    }
    close(fds[0]), close(fds[1]);
}

/* ---- what is wrong ---- */

struct end_case {
    int status;
    char words[160]; /* of the command line, by spaces; @ is the test's directory */
    char said[96];
};

ParameterizedTestParameters(gateway, says_what_is_wrong)
{
    static struct end_case cases[] = {
        {1, "", "give two addresses"},
        {1, "ipc://@/a", "give two addresses"},
        {1, "--listen ipc://@/a", "give two addresses"},
        {1, "--connect ipc://@/a", "give two addresses"},
        {1, "ipc://@/a ipc://@/a", "it would connect to itself"},
        {1, "inproc://a ipc://@/b", "inproc:// reaches nobody"},
        {1, "ipc://@/a inproc://b", "inproc:// reaches nobody"},
        {1, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18", "too many addresses"},
        {1, "ipc://@/a ipc://@/b --max-connections -1", "--max-connections wants a whole number"},
        {1, "ipc://@/a ipc://@/b --idle x", "--idle wants a number of seconds"},
        {1, "ipc://@/a ipc://@/b --drain -1", "--drain wants a number of seconds"},
        {1, "ipc://@/a ipc://@/b --allow-uid root", "--allow-uid wants a whole number"},
        {1, "ipc://@/a ipc://@/b --allow-gid 4294967296", "--allow-gid wants a whole number"},
        {1, "ipc://@/a ipc://@/b --mode 888", "--mode is up to three octal digits"},
        {1, "ipc://@/a ipc://@/b --mode 1777", "--mode is up to three octal digits"},
        {1, "ipc://@/a ipc://@/b --rules @/none", "cannot read the rules in"},
        {1, "ipc://@/a ipc://@/b --rules @/", "cannot read the rules in"},
        {1, "ipc://@/a ipc://@/b --bogus", "no option --bogus"},
        {1, "ipc://@/a ipc://@/b --listen", "--listen needs a value"},
        {3, "nonsense ipc://@/b", "malformed URL: write it as"},
        {3, "ipc://@/a nonsense", "malformed URL: write it as"},
        {3, "ipc://@/a tcp://127.0.0.1", "malformed URL: write it as"},
        {3, "ipc://@/a http://127.0.0.1:80", "unknown URL scheme"},
        {3, "ipc://@/none/s ipc://@/b", "create the directory"},
        {3, "ipc://@/file ipc://@/b", "it has not been touched"},
        {3, "ipc://@/a ipc://@/taken ipc://@/b", "the address is in use"},
    };
    return cr_make_param_array(struct end_case, cases, sizeof cases / sizeof *cases, NULL);
}

ParameterizedTest(struct end_case *c, gateway, says_what_is_wrong)
{
    const char *argv[24] = {SPOKE_TOOL, "gateway"};
    char words[2048], *out = words, target[128];
    int count = 2, taken = target_open(IPC, target);
    FILE *file = fopen(in_directory("file"), "we");
    struct program p;

    cr_assert_not_null(file);
    fclose(file);
    cr_assert_eq(rename(in_directory("target"), in_directory("taken")), 0);
    for (const char *in = c->words; *in != '\0'; in++) {
        if (*in == '@')
            out += sprintf(out, "%s", test_directory);
        else
            *out++ = *in;
    }
    *out = '\0';
    for (char *word = strtok(words, " "); word != NULL; word = strtok(NULL, " "))
        argv[count++] = word;
    program_run_argv(&p, argv);
    ASSERT_STATUS(p, c->status);
    cr_assert_not_null(strstr(p.err, c->said), "it said: %s", p.err);
    cr_assert_eq(strncmp(p.err, "spoke gateway: ", 15), 0, "it said: %s", p.err);
    cr_assert_str_empty(p.out);
    cr_assert_neq(access(in_directory("a"), F_OK), 0, "nothing is left");
    cr_assert_eq(access(in_directory("taken"), F_OK), 0);
    program_clear(&p);
    close(taken);
}

Test(gateway, says_which_rule_is_wrong)
{
    static const char *const lines[] = {
        "allow-uid",         "allow-uid 1 2", "allow-uid root", "allow everyone", "idle -1",
        "max-connections x", "\x01"};

    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct program p;
        char text[400];

        snprintf(text, sizeof text, "# first\n%s\n", lines[i]);
        write_rules(text);
        program_run_argv(&p, PROGRAM_ARGV(SPOKE_TOOL, "gateway", ipc_in_directory("a"),
                                          ipc_in_directory("b"), "--rules", in_directory("rules")));
        ASSERT_STATUS(p, 1);
        cr_assert_not_null(strstr(p.err, "rules, line 2: "), "%s: %s", lines[i], p.err);
        program_clear(&p);
    }
    char longest[400];
    struct program p;
    memset(longest, ' ', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    write_rules(longest);
    program_run_argv(&p, PROGRAM_ARGV(SPOKE_TOOL, "gateway", ipc_in_directory("a"),
                                      ipc_in_directory("b"), "--rules", in_directory("rules")));
    ASSERT_STATUS(p, 1);
    cr_assert_not_null(strstr(p.err, "it is too long"), "%s", p.err);
    program_clear(&p);
}

Test(gateway, makes_its_socket_file_with_the_mode_it_is_told)
{
    struct program gateway;
    struct stat file;

    program_start_argv(&gateway, false,
                       PROGRAM_ARGV(SPOKE_TOOL, "gateway", ipc_in_directory("front"),
                                    ipc_in_directory("b"), "--mode", "606"));
    cr_assert(appears(in_directory("front")));
    for (int i = 0; i < PATIENCE_MS; i++) { /* it is bound first */
        cr_assert_eq(stat(in_directory("front"), &file), 0);
        if ((file.st_mode & 0777) == 0606)
            break;
        usleep(1000);
    }
    cr_assert_eq(file.st_mode & 0777, 0606);
    terminate(&gateway);
    program_clear(&gateway);
}
