/* SPDX-License-Identifier: MIT */
/* spoke gateway with a carrier: client -- near gateway == many streams of one == far gateway --
 * target.  The test is the client, the target, and now and then one of the gateways. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <spoke/mux.h>

#include "tests/tool/sockets.h"

TestSuite(gateway_mux, .init = test_directory_make, .fini = test_directory_remove);

/* ---- two of them ---- */

#define mux_listen(P, Url, ...)                                                                    \
    do {                                                                                           \
        program_start_argv(                                                                        \
            P, false,                                                                              \
            PROGRAM_ARGV(SPOKE_TOOL, "gateway", "-v", "--listen", Url, "--mux", __VA_ARGS__));     \
        wait_listening(P, Url);                                                                    \
    } while (0)

#define mux_connect(P, Url, ...)                                                                   \
    do {                                                                                           \
        program_start_argv(                                                                        \
            P, false,                                                                              \
            PROGRAM_ARGV(SPOKE_TOOL, "gateway", "-v", "--listen", Url, "--connect", __VA_ARGS__)); \
        wait_listening(P, Url);                                                                    \
    } while (0)

struct chain {
    struct program near, far;
    char front[128], middle[128], target[128];
    int listener;
};

#define chain_open_with(C, Scheme, ...)                                                            \
    do {                                                                                           \
        (C)->listener = target_open(TCP, (C)->target);                                             \
        any_url(Scheme, "middle", (C)->middle);                                                    \
        any_url(TCP, "front", (C)->front);                                                         \
        mux_listen(&(C)->far, (C)->middle, "--connect", (C)->target, __VA_ARGS__);                 \
        mux_connect(&(C)->near, (C)->front, (C)->middle, "--mux", "--hold", "1000");               \
    } while (0)
#define chain_open(C, Scheme) chain_open_with(C, Scheme, "--drain", "10")

static void
chain_close(struct chain *c)
{
    terminate(&c->near);
    terminate(&c->far);
    program_clear(&c->near);
    program_clear(&c->far);
    close(c->listener);
}

/* Read until it is over. */
static void
drain(int fd)
{
    static char bytes[65536];
    ssize_t n;

    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0) {
    }
    cr_assert(n == 0 || errno == ECONNRESET || errno == EPIPE, "%s", strerror(errno));
}

static enum scheme schemes[] = {TCP, IPC, SHM};

ParameterizedTestParameters(gateway_mux, carries_both_ways_over_one)
{
    return cr_make_param_array(enum scheme, schemes, 3, NULL);
}

ParameterizedTest(enum scheme *over, gateway_mux, carries_both_ways_over_one)
{
    struct chain c;
    char line[400];

    chain_open(&c, *over);
    for (int i = 0; i < 10; i++)
        check_conversation(c.front, c.listener);
    snprintf(
        line, sizeof line,
        "0 connections, 20 ever, to %s: 90 bytes there, 160 back; refused 0, could not connect "
        "0, broken 0, idle 0, cut 0\n",
        c.middle);
    wait_counters(&c.near, line);
    wait_counters(&c.far, "0 connections, 20 ever");
    wait_counters(&c.far, "1 carriers, 1 ever: lost 0, could not connect 0, refused 0; 0 connec");
    wait_counters(&c.near, "1 carriers, 1 ever: lost 0,");
    chain_close(&c);
}

Test(gateway_mux, an_address_may_say_it_itself)
{
    struct program near, far;
    char front[128], target[128], middle[160], carrier[160];
    int listener = target_open(TCP, target);

    snprintf(middle, sizeof middle, "mux+%s", ipc_in_directory("middle"));
    program_start_argv(&far, false, PROGRAM_ARGV(SPOKE_TOOL, "gateway", "-v", middle, target));
    wait_error(&far, "listening on ");
    any_url(TCP, "", front);
    snprintf(carrier, sizeof carrier, "mux+%s", ipc_in_directory("middle"));
    gateway_start(&near, TCP, "", front, carrier);
    check_conversation(front, listener);
    terminate(&near);
    terminate(&far);
    program_clear(&near);
    program_clear(&far);
    close(listener);
}

enum { MANY = 20 };

Test(gateway_mux, carries_much_of_many_without_a_fault)
{
    struct chain c;
    int clients[MANY], servers[MANY];

    chain_open(&c, TCP);
    for (int i = 0; i < MANY; i++) { /* in between: others stand still */
        clients[i] = connect_to(c.front), servers[i] = accept_one(c.listener);
        send_text(clients[i], "x");
        expect_text(servers[i], "x");
    }
    for (int i = 0; i < 3; i++)
        check_bulk(clients[i], servers[i], BULK / 4);
    wait_counters(&c.near, "17 connections, 20 ever");
    for (int i = 0; i < MANY; i++)
        close(clients[i]), close(servers[i]);
    wait_counters(&c.near, "0 connections, 20 ever");
    wait_counters(&c.far, "0 connections, 20 ever");
    wait_counters(&c.far, "1 carriers, 1 ever");
    chain_close(&c);
}

/* ---- errors of one side ---- */

Test(gateway_mux, passes_on_that_a_side_died)
{
    struct chain c;

    chain_open(&c, TCP);
    for (int i = 0; i < 2; i++) {
        int client = connect_to(c.front), server = accept_one(c.listener);

        send_text(client, "there");
        expect_text(server, "there");
        reset(i == 0 ? server : client);
        expect_reset(i == 0 ? client : server);
        close(i == 0 ? client : server);
    }
    wait_counters(&c.near, "0 connections, 2 ever");
    wait_counters(&c.far, "0 connections, 2 ever");
    wait_counters(&c.far, "1 carriers, 1 ever: lost 0");
    check_conversation(c.front, c.listener);
    chain_close(&c);
}

/* The opener learns the outcome: nothing was taken from the client before. */
Test(gateway_mux, passes_on_that_the_target_cannot_be_reached)
{
    struct chain c;
    int client;

    chain_open(&c, TCP);
    close(c.listener);
    for (int i = 0; i < 3; i++) {
        client = connect_to(c.front);
        expect_reset(client);
        close(client);
    }
    wait_error(&c.near, "the other side cannot reach it");
    wait_error(&c.far, "cannot connect to tcp://127.0.0.1:");
    wait_counters(&c.near, "could not connect 3, broken 0,");
    wait_counters(&c.far, "could not connect 3, broken 0,");
    wait_counters(&c.far, "1 carriers, 1 ever: lost 0"); /* it is not the carrier's fault */
    c.listener = open("/dev/null", O_RDONLY | O_CLOEXEC);
    chain_close(&c);
}

/* ---- the carrier's end ---- */

Test(gateway_mux, dials_again_when_the_carrier_is_lost)
{
    struct chain c;
    int clients[3], servers[3], waiting;

    chain_open(&c, TCP);
    for (int life = 1; life <= 2; life++) {
        for (int i = 0; i < 3; i++) {
            clients[i] = connect_to(c.front), servers[i] = accept_one(c.listener);
            send_text(clients[i], "there");
            expect_text(servers[i], "there");
        }
        program_clear(&c.far); /* SIGKILL */
        await_free(c.middle);
        for (int i = 0; i < 3; i++) {
            expect_reset(clients[i]);
            expect_broken(servers[i]);
            close(clients[i]), close(servers[i]);
        }
        wait_error(&c.near, "the carrier to tcp://127.0.0.1:");
        waiting = connect_to(c.front); /* while it is down */
        send_text(waiting, "I wait");
        wait_counters(&c.near, "; 1 connections wait for one");
        mux_listen(&c.far, c.middle, "--connect", c.target);
        servers[0] = accept_one(c.listener);
        expect_text(servers[0], "I wait");
        close(waiting), close(servers[0]);
    }
    wait_counters(&c.near, "0 connections, 8 ever");
    wait_counters(&c.near, "broken 6,");
    wait_counters(&c.near, "1 carriers, 3 ever: lost 2");
    chain_close(&c);
}

Test(gateway_mux, turns_clients_away_when_there_is_no_carrier)
{
    struct program near;
    char front[128] = "tcp://127.0.0.1:0";
    int client;

    mux_connect(&near, front, ipc_in_directory("nobody"), "--mux", "--hold", "0.2");
    for (int i = 0; i < 2; i++) {
        client = connect_to(front);
        expect_broken(client);
        close(client);
    }
    wait_error(&near, "/nobody, the carrier: ");
    wait_error(&near, "cannot connect to the other side: there is no carrier");
    wait_counters(&near, "could not connect 2, broken 0");
    terminate(&near);
    program_clear(&near);
}

/* The far one ends in order and is started again: nobody notices, but that a client waits. */
Test(gateway_mux, survives_that_the_other_one_is_replaced)
{
    struct chain c;
    int client, server, next;

    chain_open(&c, TCP);
    client = connect_to(c.front), server = accept_one(c.listener);
    send_text(client, "there");
    expect_text(server, "there");
    cr_assert_eq(kill(c.far.pid, SIGTERM), 0);
    wait_error(&c.far, "waiting for 1 connections to end");
    next = connect_to(c.front); /* the old one takes it no more, the new one is not there yet */
    send_text(next, "I wait");
    check_bulk(client, server, (size_t)1 << 20);
    close(client), close(server);
    cr_assert_eq(program_wait(&c.far, 30), 0, "it said: %s", c.far.err);
    program_clear(&c.far);
    mux_listen(&c.far, c.middle, "--connect", c.target);
    server = accept_one(c.listener);
    expect_text(server, "I wait");
    close(next), close(server);
    wait_counters(&c.near, "0 connections, 2 ever");
    wait_counters(&c.near, "broken 0,");
    wait_counters(&c.near, "1 carriers, 2 ever: lost 0");
    chain_close(&c);
}

Test(gateway_mux, says_that_the_other_side_is_no_carrier)
{
    struct program near;
    char front[128] = "tcp://127.0.0.1:0", target[128];
    int listener = target_open(TCP, target), fd;

    mux_connect(&near, front, target, "--mux");
    fd = accept_one(listener);
    send_text(fd, "HTTP/1.0 400 Bad Request\r\n\r\n");
    wait_error(&near, "is no carrier: ");
    close(fd);
    fd = accept_one(listener); /* it tries again */
    close(fd), close(listener);
    terminate(&near);
    program_clear(&near);
}

/* ---- limits and rules ---- */

Test(gateway_mux, no_more_streams_than_the_other_side_allows)
{
    struct chain c;
    int clients[4], servers[4];

    chain_open_with(&c, TCP, "--max-streams", "2");
    for (int i = 0; i < 2; i++) {
        clients[i] = connect_to(c.front), servers[i] = accept_one(c.listener);
        send_text(clients[i], "abc");
        expect_text(servers[i], "abc");
    }
    for (int i = 2; i < 4; i++) {
        clients[i] = connect_to(c.front);
        send_text(clients[i], "abc");
    }
    wait_counters(&c.near, "; 2 connections wait for one");
    wait_counters(&c.far, "2 connections, 2 ever");
    for (int i = 0; i < 2; i++) { /* one ends, one comes in */
        close(clients[i]), close(servers[i]);
        servers[2 + i] = accept_one(c.listener);
        expect_text(servers[2 + i], "abc");
    }
    for (int i = 2; i < 4; i++)
        close(clients[i]), close(servers[i]);
    wait_counters(&c.near, "0 connections, 4 ever");
    wait_counters(&c.near, "could not connect 0");
    chain_close(&c);
}

Test(gateway_mux, a_client_does_not_wait_for_room_for_ever)
{
    struct program near, far;
    char front[128] = "tcp://127.0.0.1:0", middle[128], target[128];
    int listener = target_open(TCP, target), clients[2], server;

    any_url(IPC, "middle", middle);
    mux_listen(&far, middle, "--connect", target, "--max-streams", "1");
    mux_connect(&near, front, middle, "--mux", "--hold", "0.3");
    wait_error(&near, "carrier 1 is connected"); /* before that clients wait no longer either */
    clients[0] = connect_to(front), server = accept_one(listener);
    send_text(clients[0], "x");
    expect_text(server, "x");
    clients[1] = connect_to(front);
    expect_broken(clients[1]);
    wait_error(&near, "there is no room on the carrier");
    close(clients[0]), close(clients[1]), close(server), close(listener);
    terminate(&near);
    terminate(&far);
    program_clear(&near);
    program_clear(&far);
}

/* Answer each of its streams, as the far side, that there is no room: how many there were. */
static int
refuse_all(int fd, int client)
{
    uint8_t bytes[4096], *at, *end;
    int count = 0;
    ssize_t n;

    for (;;) {
        struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = client, .events = POLLIN}};

        cr_assert_gt(poll(fds, 2, PATIENCE_MS), 0);
        if (fds[1].revents != 0)
            return count;
        cr_assert_gt(n = recv(fd, bytes, sizeof bytes, 0), 0);
        for (at = bytes, end = bytes + n; at < end; at++) {
            if (*at != 7) /* metadata, and words that do not matter here, have none of these */
                continue;
            uint8_t answer[4] = {8, at[1], at[2], SPOKE_MUX_LIMIT};
            bool is_long = at[1] >= 128;

            answer[is_long ? 3 : 2] = SPOKE_MUX_LIMIT;
            cr_assert_gt(send(fd, answer, is_long ? 4 : 3, MSG_NOSIGNAL), 0);
            at += is_long ? 2 : 1;
            count++;
        }
    }
}

Test(gateway_mux, a_client_is_not_refused_for_ever)
{
    struct program near;
    char front[128] = "tcp://127.0.0.1:0", target[128];
    int listener = target_open(TCP, target), fd, client, refused;
    char preface[16] = "SPKM\1\1\0\0\0\0\4";

    mux_connect(&near, front, target, "--mux", "--hold", "0.5");
    fd = accept_one(listener);
    cr_assert_eq(send(fd, preface, sizeof preface, MSG_NOSIGNAL), 16);
    do { /* one that came before the preface had been read asked for nothing */
        client = connect_to(front);
        refused = refuse_all(fd, client);
        expect_broken(client);
        close(client);
    } while (refused == 0);
    wait_error(&near, "there is no room on the carrier");
    close(fd), close(listener);
    terminate(&near);
    program_clear(&near);
}

/* More than it may have at a time wait in the mux. */
Test(gateway_mux, no_more_connections_than_it_may)
{
    struct chain c;
    int clients[3], servers[3];

    chain_open_with(&c, TCP, "--max-connections", "1");
    clients[0] = connect_to(c.front), servers[0] = accept_one(c.listener);
    for (int i = 1; i < 3; i++)
        clients[i] = connect_to(c.front);
    for (int i = 0; i < 10; i++) { /* it has had time to make a mistake */
        send_text(clients[0], "x");
        expect_text(servers[0], "x");
    }
    wait_counters(&c.near, "3 connections, 3 ever");
    wait_counters(&c.far, "1 connections, 1 ever");
    for (int i = 1; i < 3; i++) {
        close(clients[i - 1]), close(servers[i - 1]);
        servers[i] = accept_one(c.listener);
    }
    close(clients[2]), close(servers[2]);
    wait_counters(&c.far, "0 connections, 3 ever");
    chain_close(&c);
}

Test(gateway_mux, ends_what_is_idle_and_keeps_the_carrier)
{
    struct chain c;
    int client, server;

    chain_open_with(&c, TCP, "--idle", "0.2");
    client = connect_to(c.front), server = accept_one(c.listener);
    expect_broken(client);
    expect_broken(server);
    close(client), close(server);
    wait_counters(&c.far, "broken 0, idle 1, cut 0");
    wait_counters(&c.far, "1 carriers, 1 ever: lost 0");
    chain_close(&c);
}

static void
check_allowed(enum scheme over, const char *option, int id, bool allowed)
{
    struct program near, far;
    char front[128] = "tcp://127.0.0.1:0", middle[128], target[128], text[16];
    int listener = target_open(TCP, target), client, server;

    snprintf(text, sizeof text, "%d", id);
    any_url(over, "middle", middle);
    mux_listen(&far, middle, "--connect", target, option, text);
    mux_connect(&near, front, middle, "--mux", "--hold", allowed ? "1000" : "0.2");
    client = connect_to(front);
    if (allowed) {
        server = accept_one(listener);
        close(server);
    } else {
        expect_broken(client);
        wait_counters(&far, "0 carriers, 0 ever: lost 0, could not connect 0, refused ");
    }
    close(client), close(listener);
    terminate(&near);
    terminate(&far);
    program_clear(&near);
    program_clear(&far);
}

Test(gateway_mux, only_those_who_may_are_carriers)
{
    check_allowed(IPC, "--allow-uid", (int)getuid(), true);
    check_allowed(IPC, "--allow-uid", (int)getuid() + 1, false);
    check_allowed(SHM, "--allow-gid", (int)getgid(), true);
    check_allowed(SHM, "--allow-gid", (int)getgid() + 1, false);
    check_allowed(TCP, "--allow-uid", (int)getuid(), false); /* nobody knows who that is */
}

Test(gateway_mux, reads_its_rules_again)
{
    struct chain c;
    int clients[2], servers[2];

    write_rules("max-connections 1\nmax-carriers 2\nmax-streams 10\n");
    chain_open_with(&c, TCP, "--rules", in_directory("rules"));
    clients[0] = connect_to(c.front), servers[0] = accept_one(c.listener);
    clients[1] = connect_to(c.front);
    wait_counters(&c.far, "1 connections, 1 ever");
    write_rules("max-connections 2\nmax-streams 0\n"); /* a mistake changes nothing */
    reload(&c.far, "rules, line 2: ", 1);
    write_rules("max-connections 2\n");
    reload(&c.far, "the rules are read", 1);
    servers[1] = accept_one(c.listener);
    for (int i = 0; i < 2; i++)
        close(clients[i]), close(servers[i]);
    wait_counters(&c.far, "0 connections, 2 ever");
    chain_close(&c);
}

/* ---- its end ---- */

Test(gateway_mux, loses_nothing_when_both_end)
{
    struct chain c;
    int client, server;

    chain_open(&c, TCP);
    client = connect_to(c.front), server = accept_one(c.listener);
    send_text(client, "there");
    expect_text(server, "there");
    cr_assert_eq(kill(c.near.pid, SIGTERM), 0);
    wait_error(&c.near, "waiting for 1");
    await_free(c.front); /* it takes no more */
    cr_assert_eq(kill(c.far.pid, SIGTERM), 0);
    wait_error(&c.far, "waiting for 1");
    check_bulk(client, server, (size_t)4 << 20);
    close(client), close(server);
    cr_assert_eq(program_wait(&c.near, 30), 0, "it said: %s", c.near.err);
    cr_assert_eq(program_wait(&c.far, 30), 0, "it said: %s", c.far.err);
    program_clear(&c.near);
    program_clear(&c.far);
    close(c.listener);
}

Test(gateway_mux, cuts_what_does_not_end_in_time)
{
    struct chain c;
    int client, server;

    chain_open_with(&c, TCP, "--drain", "0.1");
    client = connect_to(c.front), server = accept_one(c.listener);
    send_text(client, "there");
    expect_text(server, "there");
    cr_assert_eq(kill(c.far.pid, SIGTERM), 0);
    expect_reset(client);
    expect_reset(server);
    close(client), close(server);
    cr_assert_eq(program_wait(&c.far, 30), 128 + SIGTERM, "it said: %s", c.far.err);
    cr_assert_not_null(strstr(c.far.out, "broken 0, idle 0, cut 1\n"), "%s", c.far.out);
    program_clear(&c.far);
    terminate(&c.near);
    program_clear(&c.near);
    close(c.listener);
}

/* Clients that wait, and carriers that say nothing, hold up no end. */
Test(gateway_mux, ends_although_somebody_waits)
{
    struct program near, far;
    char front[128] = "tcp://127.0.0.1:0", middle[128] = "tcp://127.0.0.1:0", target[128];
    int listener = target_open(TCP, target), client, silent;

    mux_connect(&near, front, ipc_in_directory("nobody"), "--mux", "--hold", "1000", "--drain",
                "1000");
    client = connect_to(front);
    wait_counters(&near, "; 1 connections wait for one");
    terminate(&near);
    expect_broken(client);
    close(client);
    mux_listen(&far, middle, "--connect", target, "--drain", "1000");
    silent = connect_to(middle);
    wait_counters(&far, "1 carriers, 1 ever");
    terminate(&far);
    drain(silent);
    close(silent), close(listener);
    program_clear(&near);
    program_clear(&far);
}

/* ---- peers that are no good ---- */

#define PREFACE      "SPKM\1\0\0\0\0\0\4\0\0\0\0" /* and a NUL: odd, 1024 streams */
#define PREFACE_SIZE 16

static void
send_bytes(int fd, const void *bytes, size_t size)
{
    cr_assert_eq(send(fd, bytes, size, MSG_NOSIGNAL), (ssize_t)size, "%s", strerror(errno));
}

Test(gateway_mux, hostile_peers_lose_their_carrier_only)
{
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27},
        {"SPKM\1\1\0\0\0\0\4\0\0\0\0\0", 16},                             /* the same numbers */
        {PREFACE "\0\x0f", 17},                                           /* an unknown kind */
        {PREFACE "\0\3\1\0\1x", 21},                                      /* data for nobody */
        {PREFACE "\0\1\2\5", 19},                                         /* one of ours */
        {PREFACE "\0\1\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 27}, /* no number */
    };
    struct chain c;

    chain_open(&c, TCP);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = connect_to(c.middle);

        send_bytes(fd, cases[i].bytes, cases[i].size);
        drain(fd);
        close(fd);
    }
    wait_counters(&c.far, "1 carriers, 7 ever: lost 6");
    check_conversation(c.front, c.listener);
    wait_counters(&c.near, "1 carriers, 1 ever: lost 0");
    chain_close(&c);
}

/* Half-open ones hold a place until the handshake's time is over, no more than there are. */
Test(gateway_mux, peers_that_say_nothing_are_not_many)
{
    struct program far, near;
    char front[128] = "tcp://127.0.0.1:0", middle[128] = "tcp://127.0.0.1:0", target[128];
    int listener = target_open(TCP, target), silent[10], client, server;

    mux_listen(&far, middle, "--connect", target, "--max-carriers", "3");
    for (int i = 0; i < 10; i++)
        silent[i] = connect_to(middle);
    wait_counters(&far, "3 carriers, 3 ever");
    mux_connect(&near, front, middle, "--mux", "--hold", "1000");
    client = connect_to(front);
    for (int i = 0; i < 10; i++)
        close(silent[i]);
    server = accept_one(listener); /* when they have gone it comes in */
    close(client), close(server), close(listener);
    terminate(&near);
    terminate(&far);
    program_clear(&near);
    program_clear(&far);
}

/* What a stream may ask for here: nothing but what all get. */
Test(gateway_mux, streams_that_ask_for_something_else_are_refused)
{
    static const struct {
        const char *meta;
        size_t size;
        char code;
    } cases[] = {
        {"\xa2\0\5\4\x67tcp://x", 12, SPOKE_MUX_NOT_PERMITTED}, /* another target */
        {"\xa1\0\1", 3, SPOKE_MUX_UNSUPPORTED},                 /* another role */
        {"\xa1\0\6", 3, SPOKE_MUX_UNSUPPORTED},
        {"\xa2\0\5\2\1", 5, SPOKE_MUX_UNSUPPORTED},        /* a key of another role */
        {"\xa2\0\5\0\5", 5, SPOKE_MUX_PROTOCOL},           /* a key twice */
        {"\xa1\0\x18\5", 4, SPOKE_MUX_PROTOCOL},           /* not the shortest */
        {"\xa1\0\5x", 4, SPOKE_MUX_PROTOCOL},              /* more than it is */
        {"\xa2\0\5\4\x61\n", 6, SPOKE_MUX_PROTOCOL},       /* no text for people */
        {"\xa2\0\5\4\x62\xc0\x80", 7, SPOKE_MUX_PROTOCOL}, /* nor UTF-8 */
        {"x", 1, SPOKE_MUX_PROTOCOL},
    };
    struct program far;
    char middle[128] = "tcp://127.0.0.1:0", target[128], got[32];
    int listener = target_open(TCP, target), fd;

    mux_listen(&far, middle, "--connect", target);
    fd = connect_to(middle);
    send_bytes(fd, PREFACE, PREFACE_SIZE);
    cr_assert_eq(recv(fd, got, 16 + 9, MSG_WAITALL), 25, "its preface, and a ping");
    cr_assert_eq(got[16], 0x0b);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char open[64] = {7, (char)(2 * i + 1), 100, (char)cases[i].size};

        memcpy(open + 4, cases[i].meta, cases[i].size);
        send_bytes(fd, open, 4 + cases[i].size);
        cr_assert_eq(recv(fd, got, 3, MSG_WAITALL), 3, "%s", strerror(errno));
        cr_assert_eq(got[0], 8, "case %zu: kind %d", i, got[0]);
        cr_assert_eq(got[2], cases[i].code, "case %zu: code %d", i, got[2]);
    }
    /* … and these are served: with nothing to say, with the role, and with what is beyond it. */
    send_bytes(fd, "\7\x31\x64\3\xa1\0\5", 7);
    close(accept_one(listener));
    send_bytes(fd, "\7\x33\x64\xa\xa2\0\5\x18\x50\x83\x01\x61x\xf6", 14);
    close(accept_one(listener));
    send_bytes(fd, "\1\x35\x64", 3);
    close(accept_one(listener));
    wait_counters(&far, "3 connections, 13 ever");
    wait_counters(&far, "refused 10,");
    close(fd), close(listener);
    wait_counters(&far, "0 connections, 13 ever");
    terminate(&far);
    program_clear(&far);
}

/* Streams opened and reset without end: the carrier goes, what they wanted is given up, others are
 * served, and memory stays. */
Test(gateway_mux, outlives_a_flood_of_streams)
{
    struct chain c;
    long before;

    chain_open(&c, TCP);
    check_conversation(c.front, c.listener);
    before = memory_kib(&c.far, "VmRSS:");
    for (int round = 0; round < 3; round++) {
        int fd = connect_to(c.middle);
        uint8_t words[8192 * 10], *at = words;

        send_bytes(fd, PREFACE, PREFACE_SIZE);
        for (unsigned id = 1; id < 16384; id += 2) { /* open, reset */
            uint8_t number[2] = {(uint8_t)(0x80 | (id & 0x7f)), (uint8_t)(id >> 7)};

            memcpy(at, (uint8_t[]){1, number[0], number[1], 5}, 4), at += 4;
            memcpy(at, (uint8_t[]){8, number[0], number[1], 0}, 4), at += 4;
        }
        (void)!send(fd, words, (size_t)(at - words), MSG_NOSIGNAL);
        drain(fd);
        close(fd);
    }
    wait_counters(&c.far, "1 carriers, 4 ever: lost 3");
    cr_assert_eq(fcntl(c.listener, F_SETFL, O_NONBLOCK), 0);
    for (int fd; (fd = accept(c.listener, NULL, NULL)) >= 0;)
        close(fd);
    wait_counters(&c.far, "0 connections, ");
    if (SPOKE_TEST_SLOWDOWN == 1)
        cr_assert_leq(memory_kib(&c.far, "VmRSS:") - before, 32768);
    for (int fd; (fd = accept(c.listener, NULL, NULL)) >= 0;)
        close(fd);
    cr_assert_eq(fcntl(c.listener, F_SETFL, 0), 0);
    check_conversation(c.front, c.listener);
    chain_close(&c);
}

/* Many streams that nobody reads from: no more than the windows are held. */
Test(gateway_mux, holds_no_more_than_windows_for_clients_that_never_read)
{
    static uint8_t block[65536];
    enum { CROWD = 40 };
    struct chain c;
    int clients[CROWD], servers[CROWD];
    long near, far;

    chain_open(&c, TCP);
    near = memory_kib(&c.near, "VmRSS:"), far = memory_kib(&c.far, "VmRSS:");
    for (int i = 0; i < CROWD; i++)
        clients[i] = connect_to(c.front), servers[i] = accept_one(c.listener);
    for (int quiet = 0; quiet < 20;) {
        bool any = false;

        for (int i = 0; i < CROWD; i++)
            any |= send(servers[i], block, sizeof block, MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
        quiet = any ? 0 : quiet + 1;
        usleep(any ? 0 : 5000);
    }
    if (SPOKE_TEST_SLOWDOWN == 1) { /* a sanitizer keeps what was freed */
        cr_assert_leq(memory_kib(&c.near, "VmRSS:") - near, 65536 + 16384);
        cr_assert_leq(memory_kib(&c.far, "VmRSS:") - far, CROWD * 1024);
    }
    check_conversation(c.front, c.listener); /* others get through */
    for (int i = 0; i < CROWD; i++)
        close(clients[i]), close(servers[i]);
    wait_counters(&c.near, "0 connections, 42 ever");
    wait_counters(&c.far, "0 connections, 42 ever");
    chain_close(&c);
}

/* ---- sockets that are passed on, and what is wrong ---- */

Test(gateway_mux, a_socket_that_is_passed_on_may_take_carriers)
{
    struct program near, far;
    char front[128] = "tcp://127.0.0.1:0", middle[128], target[128], command[512];
    int passed = target_open(IPC, middle), listener = target_open(TCP, target);

    cr_assert_eq(fcntl(passed, F_SETFD, 0), 0);
    snprintf(command, sizeof command,
             "exec 3<&%d; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$SPOKE\" gateway -v --mux --connect %s",
             passed, target);
    program_start_argv(&far, false, PROGRAM_ARGV("bash", "-c", command));
    close(passed);
    mux_connect(&near, front, middle, "--mux");
    check_conversation(front, listener);
    terminate(&near);
    terminate(&far);
    program_clear(&near);
    program_clear(&far);
    close(listener);
}

struct wrong {
    int status;
    char words[160], said[96];
};

ParameterizedTestParameters(gateway_mux, says_what_is_wrong)
{
    static struct wrong cases[] = {
        {1, "ipc://@/a ipc://@/b --mux", "write --mux behind --listen URL or --connect URL"},
        {1, "mux+ipc://@/a mux+ipc://@/b", "only one of the two sides can be a carrier"},
        {1, "--listen ipc://@/a --mux --connect ipc://@/b --mux", "only one of the two sides"},
        {1, "mux+inproc://a ipc://@/b", "inproc:// reaches nobody"},
        {1, "mux+ipc://@/a ipc://@/a", "it would connect to itself"},
        {1, "mux+ipc://@/a ipc://@/b --max-streams 0", "--max-streams is at least 1"},
        {1, "mux+ipc://@/a ipc://@/b --max-streams 65537", "--max-streams wants a whole number"},
        {1, "mux+ipc://@/a ipc://@/b --max-carriers x", "--max-carriers wants a whole number"},
        {1, "ipc://@/a mux+ipc://@/b --hold x", "--hold wants a number of seconds"},
        {3, "ipc://@/a mux+nonsense", "malformed URL: write it as"},
        {3, "mux+nonsense ipc://@/a", "malformed URL: write it as"},
    };
    return cr_make_param_array(struct wrong, cases, sizeof cases / sizeof *cases, NULL);
}

ParameterizedTest(struct wrong *t, gateway_mux, says_what_is_wrong)
{
    struct program p;
    char text[512] = "\"$SPOKE\" gateway ", *at = text + strlen(text);

    for (const char *word = t->words; *word != '\0'; word++) {
        if (*word == '@')
            at += snprintf(at, sizeof text - (size_t)(at - text), "%s", test_directory);
        else
            *at++ = *word;
    }
    *at = '\0';
    cr_assert_eq(shell(&p, text), t->status, "it said: %s", p.err);
    cr_assert_not_null(strstr(p.err, t->said), "it said: %s", p.err);
    program_clear(&p);
}
