/* SPDX-License-Identifier: MIT */
/* spoke mux from the outside: client -- spoke mux == carrier == spoke mux -- target, in both
 * directions.  The test is clients and targets, and peers that are no good. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <spoke/mux.h>

#include "tests/tool/sockets.h"

TestSuite(forward, .init = test_directory_make, .fini = test_directory_remove);

#define mux_start(P, ...)                                                                          \
    program_start_argv(P, false, PROGRAM_ARGV(SPOKE_TOOL, "mux", "-v", __VA_ARGS__))

/* LISTEN=TARGET in one of a few buffers. */
static const char *
forward(const char *listen, const char *target)
{
    static char texts[4][300];
    static int next;
    char *text = texts[next++ % 4];

    snprintf(text, sizeof texts[0], "%s=%s", listen, target);
    return text;
}

#define ANY_PORT "tcp://127.0.0.1:0"
#define HOLD     "--hold", "1000"

static void
end(struct program *p)
{
    terminate(p);
    program_clear(p);
}

/* Where the other side says that it listens now. */
static void
wait_remote(struct program *p, char url[128])
{
    const char *at, *stop;

    wait_error(p, "the other side listens on ");
    at = strstr(p->err, "the other side listens on ") + strlen("the other side listens on ");
    stop = strchr(at, ' ');
    snprintf(url, 128, "%.*s", (int)(stop - at), at);
}

static enum scheme schemes[] = {TCP, IPC, SHM};

ParameterizedTestParameters(forward, both_directions_over_one_carrier)
{
    return cr_make_param_array(enum scheme, schemes, 3, NULL);
}

/* Each of the two listens for itself, and has the other one listen. */
ParameterizedTest(enum scheme *over, forward, both_directions_over_one_carrier)
{
    struct program server, client;
    char carrier[128], target[128], target2[128], front[128], front2[128] = "";
    int listener = target_open(TCP, target), listener2 = target_open(IPC, target2);

    any_url(*over, "carrier", carrier);
    mux_start(&server, HOLD, "--listen", carrier, "--allow", target, "-L",
              forward(ipc_in_directory("front3"), target2), "--allow-listen", "tcp://127.0.0.1:*");
    wait_listening(&server, carrier);
    mux_start(&client, HOLD, "--connect", carrier, "-L", forward(ANY_PORT, target), "-R",
              forward(ANY_PORT, target2));
    wait_listening(&client, front);
    wait_remote(&client, front2);
    check_conversation(front, listener);                       /* from here to there */
    check_conversation(front2, listener2);                     /* it listens for us */
    check_conversation(ipc_in_directory("front3"), listener2); /* it listens by itself */
    int fd = connect_to(front), other = accept_one(listener);
    check_bulk(fd, other, (size_t)4 << 20);
    close(fd), close(other);
    fd = connect_to(front2), other = accept_one(listener2);
    check_bulk(fd, other, (size_t)4 << 20);
    close(fd), close(other);
    wait_counters(&client, "0 connections, 8 ever");
    wait_counters(&server, "0 connections, 8 ever");
    wait_counters(&server, "1 carriers, 1 ever: lost 0,");
    end(&client);
    await_free(front2); /* that was the client's wish */
    end(&server);
    close(listener), close(listener2);
}

/* ---- nothing that is not allowed ---- */

struct allowed {
    char allow[2][64]; /* # is the target's port, @ the test's directory */
    char target[64];
    bool fine;
};

static void
fill_in(const char *pattern, const char *port, char text[300])
{
    char *at = text;

    for (; *pattern != '\0'; pattern++) {
        if (*pattern == '#')
            at += sprintf(at, "%s", port);
        else if (*pattern == '@')
            at += sprintf(at, "%s", test_directory);
        else
            *at++ = *pattern;
    }
    *at = '\0';
}

ParameterizedTestParameters(forward, only_to_what_is_allowed)
{
    static struct allowed cases[] = {
        {{"tcp://127.0.0.1:#", ""}, "tcp://127.0.0.1:#", true},
        {{"tcp://127.0.0.1:*", ""}, "tcp://127.0.0.1:#", true},
        {{"tcp://127.0.0.0/8:#", ""}, "tcp://127.0.0.1:#", true},
        {{"tcp://*:#", ""}, "tcp://127.0.0.1:#", true},
        {{"tcp://*:#", ""}, "tcp://localhost:#", true},
        {{"tcp://localhost:#", ""}, "tcp://localhost:#", true},
        {{"tcp://LocalHost:#", ""}, "tcp://localhost.:#", true},
        {{"tcp://local*:#", "tcp://127.0.0.0/8:#"}, "tcp://localhost:#", true},
        {{"tcp://127.0.0.1:#", ""}, "tcp://[::ffff:127.0.0.1]:#", true}, /* the same address */
        {{"tcp://127.0.0.1:#", ""}, "tcp://127.0.0.1:0#", true},         /* the same port */
        {{"ipc://@/target", ""}, "ipc://@/target", true},
        {{"ipc://@/*", ""}, "ipc://@/target", true},
        {{"ipc://@/link", ""}, "ipc://@/link", true}, /* it is listed as it is */

        {{"tcp://127.0.0.1:1", ""}, "tcp://127.0.0.1:#", false},
        {{"tcp://127.0.0.2:#", ""}, "tcp://127.0.0.1:#", false},
        {{"tcp://127.0.0.2/31:#", ""}, "tcp://127.0.0.1:#", false},
        {{"tcp://[::1]:#", ""}, "tcp://127.0.0.1:#", false},
        {{"tcp://localhost:#", ""}, "tcp://127.0.0.1:#", false}, /* it was the name */
        /* A name that comes to an address that is not allowed, in any spelling. */
        {{"tcp://local*:#", ""}, "tcp://localhost:#", false},
        {{"tcp://local*:#", "tcp://10.0.0.0/8:#"}, "tcp://localhost:#", false},
        {{"tcp://127.*:#", ""}, "tcp://127.1:#", false},
        {{"tcp://21*:#", ""}, "tcp://2130706433:#", false},
        {{"tcp://0x7f*:#", ""}, "tcp://0x7f.1:#", false},
        {{"tcp://127.*:#", ""}, "tcp://127.0.0.1:#", false},
        /* Other ways of a dialer to say where. */
        {{"tcp://*:#", ""}, "tcp://127.0.0.1;127.0.0.1:#", false},
        {{"tcp://*:*", ""}, "tcp://[::1%lo]:#", false},
        {{"tcp://*:*", ""}, "ipc://@/target", false},
        {{"ipc://@/*", ""}, "shm://@/target", false},
        {{"ipc://@/*", ""}, "ipc://@/sub/../target", false},
        {{"ipc://@/sub/*", ""}, "ipc://@/sub/link", false}, /* leads out of there */
        {{"ipc://@/sub/*", ""}, "ipc://@/sub/../target", false},
        {{"ipc://@/target", ""}, "inproc://target", false},
        {{"ipc://@/target", ""}, "target", false},
    };
    return cr_make_param_array(struct allowed, cases, sizeof cases / sizeof *cases, NULL);
}

ParameterizedTest(struct allowed *t, forward, only_to_what_is_allowed)
{
    struct program server;
    char target[2][128], allow[2][300], wanted[300], carrier[128] = ANY_PORT;
    int listeners[2] = {target_open(TCP, target[0]), target_open(IPC, target[1])}, fd;
    const char *port = strrchr(target[0], ':') + 1;

    cr_assert_eq(mkdir(in_directory("sub"), 0700), 0);
    cr_assert_eq(symlink("../target", in_directory("sub/link")), 0);
    cr_assert_eq(symlink("target", in_directory("link")), 0);
    for (int i = 0; i < 2; i++)
        fill_in(*t->allow[i] != '\0' ? t->allow[i] : t->allow[0], port, allow[i]);
    fill_in(t->target, port, wanted);
    mux_start(&server, "--listen", carrier, "--allow", allow[0], "--allow", allow[1]);
    wait_listening(&server, carrier);
    uint8_t open[400] = {1 + 6, 1, 100, 0};
    size_t size = strlen(wanted), at = 4;

    fd = connect_to(carrier);
    cr_assert_eq(send(fd, "SPKM\1\0\0\0\0\0\4\0\0\0\0", 16, MSG_NOSIGNAL), 16);
    memcpy(open + at, (uint8_t[]){0xa2, 0, 5, 4}, 4), at += 4;
    if (size >= 24)
        open[at++] = 0x78;
    open[at++] = (uint8_t)(size < 24 ? 0x60 | size : size);
    memcpy(open + at, wanted, size), at += size;
    open[3] = (uint8_t)(at - 4);
    cr_assert_lt(at - 4, 128);
    cr_assert_eq(send(fd, open, at, MSG_NOSIGNAL), (ssize_t)at);
    char got[25 + 3];
    cr_assert_eq(recv(fd, got, sizeof got, MSG_WAITALL), sizeof got, "%s", strerror(errno));
    if (t->fine) {
        cr_assert_eq(got[25], 2, "%s with %s: answer %d, %d; it said: %s", wanted, allow[0],
                     got[25], got[27], server.err);
        close(accept_one(listeners[strncmp(wanted, "tcp", 3) != 0]));
        wait_counters(&server, "refused 0, could not connect 0,");
    } else {
        cr_assert_eq(got[25], 8, "%s with %s: answer %d", wanted, allow[0], got[25]);
        cr_assert_eq(got[27], SPOKE_MUX_NOT_PERMITTED, "%s with %s: code %d", wanted, allow[0],
                     got[27]);
        for (int i = 0; i < 2; i++) { /* and nobody was bothered */
            cr_assert_eq(fcntl(listeners[i], F_SETFL, O_NONBLOCK), 0);
            cr_assert_eq(accept(listeners[i], NULL, NULL), -1);
        }
    }
    close(fd);
    end(&server);
    close(listeners[0]), close(listeners[1]);
}

Test(forward, says_what_the_other_side_does_not_do)
{
    struct program server, client;
    char carrier[128] = ANY_PORT, target[128], nobody[128];
    int listener = target_open(TCP, target), gone = target_open(TCP, nobody), fd;

    close(gone);
    mux_start(&server, "--listen", carrier, "--allow", nobody, "--allow-listen",
              "tcp://127.0.0.1:0");
    wait_listening(&server, carrier);
    mux_start(&client, HOLD, "--connect", carrier, "-L", forward(ipc_in_directory("a"), target),
              "-L", forward(ipc_in_directory("b"), nobody), "-R",
              forward("tcp://127.0.0.2:0", target), "-R", forward(ANY_PORT, target));
    cr_assert(appears(in_directory("b")));
    wait_error(&client, "does not listen on tcp://127.0.0.2:0: it may not");
    wait_error(&client, "the other side listens on tcp://127.0.0.1:");
    fd = connect_to(ipc_in_directory("a"));
    expect_broken(fd);
    close(fd);
    wait_error(&client, "the other side does not allow it");
    fd = connect_to(ipc_in_directory("b"));
    expect_broken(fd);
    close(fd);
    wait_error(&client, "the other side cannot reach it");
    wait_error(&server, "cannot connect to ");
    wait_counters(&client, "could not connect 2,");
    end(&client);
    end(&server);
    close(listener);
}

/* ---- the carrier's end ---- */

Test(forward, goes_on_after_the_carrier_was_lost)
{
    struct program server, client;
    char carrier[128] = ANY_PORT, target[128], front[128], front2[128] = "";
    int listener = target_open(TCP, target), fd, other;

    mux_start(&server, "--listen", carrier, "--allow", target, "--allow-listen", "ipc://*");
    wait_listening(&server, carrier);
    snprintf(front2, sizeof front2, "%s", ipc_in_directory("remote"));
    program_clear(&server);
    await_free(carrier);
    mux_start(&server, "--listen", carrier, "--allow", target, "--allow-listen", front2);
    mux_start(&client, HOLD, "--connect", carrier, "-L", forward(ANY_PORT, target), "-R",
              forward(front2, target));
    wait_listening(&client, front);
    wait_error(&client, "the other side listens on ");
    for (int life = 1; life <= 2; life++) {
        fd = connect_to(front), other = accept_one(listener);
        send_text(fd, "there");
        expect_text(other, "there");
        program_clear(&server); /* SIGKILL */
        await_free(carrier);
        expect_reset(fd);
        expect_broken(other);
        close(fd), close(other);
        wait_error(&client, "is lost");
        mux_start(&server, "--listen", carrier, "--allow", target, "--allow-listen", front2);
        check_conversation(front, listener);
        for (int i = 0; i < PATIENCE_MS && count_of(client.err, "side listens on") != life + 1; i++)
            usleep(1000), program_look(&client);
        check_conversation(front2, listener); /* it was asked again */
    }
    /* The client dies: what the server listened on for it is free. */
    program_clear(&client);
    wait_counters(&server, "0 carriers, 1 ever: lost 1");
    for (int i = 0; i < PATIENCE_MS && access(in_directory("remote"), F_OK) == 0; i++)
        usleep(1000);
    cr_assert_eq(access(in_directory("remote"), F_OK), -1);
    end(&server);
    close(listener);
}

Test(forward, ends_in_order_with_connections_and_requests)
{
    struct program server, client;
    char carrier[128] = ANY_PORT, target[128], front[128];
    int listener = target_open(TCP, target), fd, other;

    for (int first = 0; first < 2; first++) { /* who ends first */
        strcpy(carrier, ANY_PORT);
        mux_start(&server, "--drain", "1000", "--listen", carrier, "--allow", target,
                  "--allow-listen", "tcp://127.0.0.1:*");
        wait_listening(&server, carrier);
        mux_start(&client, "--drain", "1000", HOLD, "--connect", carrier, "-L",
                  forward(ANY_PORT, target), "-R", forward(ANY_PORT, target));
        wait_listening(&client, front);
        wait_error(&client, "the other side listens on ");
        fd = connect_to(front), other = accept_one(listener);
        send_text(fd, "there");
        expect_text(other, "there");
        cr_assert_eq(kill(first == 0 ? server.pid : client.pid, SIGTERM), 0);
        wait_error(first == 0 ? &server : &client, "waiting for 1 connections to end");
        check_bulk(fd, other, (size_t)1 << 20);
        close(fd), close(other);
        if (first == 0) {
            cr_assert_eq(program_wait(&server, 30), 0, "it said: %s", server.err);
            terminate(&client);
        } else {
            cr_assert_eq(program_wait(&client, 30), 0, "it said: %s", client.err);
            terminate(&server);
        }
        program_clear(&server), program_clear(&client);
    }
    close(listener);
}

/* A limit of the peer's listeners, and of everything that it may ask for. */
Test(forward, a_peer_may_not_have_everything)
{
    struct program server;
    char carrier[128] = ANY_PORT, got[64];
    int fd, refused = 0;

    mux_start(&server, "--listen", carrier, "--allow-listen", "tcp://127.0.0.1:0");
    wait_listening(&server, carrier);
    fd = connect_to(carrier);
    cr_assert_eq(send(fd, "SPKM\1\0\0\0\0\0\4\0\0\0\0", 16, MSG_NOSIGNAL), 16);
    cr_assert_eq(recv(fd, got, 25, MSG_WAITALL), 25);
    for (int i = 0; i < 80; i++) { /* no window: it cannot say which port it is */
        static const char ask[] = "\xa3\0\6\4\x67tcp://x\x18\x40\x71tcp://127.0.0.1:0";
        uint8_t open[64] = {7, (uint8_t)(2 * i + 1), 0, sizeof ask - 1};
        size_t at = 4, number = 2 * (size_t)i + 1;

        if (number > 127) {
            memcpy(open + 1, (uint8_t[]){(uint8_t)(0x80 | (number & 0x7f)), 1, 0, sizeof ask - 1},
                   4);
            at = 5;
        }
        memcpy(open + at, ask, sizeof ask - 1);
        cr_assert_eq(send(fd, open, at + sizeof ask - 1, MSG_NOSIGNAL),
                     (ssize_t)(at + sizeof ask - 1));
        cr_assert_eq(recv(fd, got, 1, MSG_WAITALL), 1, "%s", strerror(errno));
        if (got[0] == 2) { /* accepted: its number, and a window of 65536 */
            cr_assert_eq(recv(fd, got, at - 3 + 3, MSG_WAITALL), (ssize_t)at);
            cr_assert_eq(refused, 0);
        } else {
            cr_assert_eq(got[0], 8);
            cr_assert_eq(recv(fd, got, at - 3 + 1, MSG_WAITALL), (ssize_t)at - 2);
            cr_assert_eq(got[at - 3], SPOKE_MUX_LIMIT);
            refused++;
        }
    }
    cr_assert_eq(refused, 17, "%d", refused); /* 64, of which the carrier's is one */
    close(fd);
    wait_counters(&server, "0 carriers, 1 ever");
    end(&server);
}

/* ---- what is wrong ---- */

struct wrong {
    int status;
    char words[160], said[96];
};

ParameterizedTestParameters(forward, says_what_is_wrong)
{
    static struct wrong cases[] = {
        {1, "", "give one of --connect URL and --listen URL"},
        {1, "--connect ipc://@/a --listen ipc://@/b", "give one of --connect URL and --listen URL"},
        {1, "-L ipc://@/a=ipc://@/b", "give one of --connect URL and --listen URL"},
        {1, "--connect inproc://a", "inproc:// reaches nobody"},
        {1, "--listen inproc://a", "inproc:// reaches nobody"},
        {1, "--connect ipc://@/a ipc://@/b", "ipc://"},
        {1, "--connect ipc://@/a -L ipc://@/b", "is no forwarding: write it as LISTEN=TARGET"},
        {1, "--connect ipc://@/a -L =ipc://@/b", "is no forwarding: write it as LISTEN=TARGET"},
        {1, "--connect ipc://@/a -R ipc://@/b=x", "is no forwarding: write it as LISTEN=TARGET"},
        {1, "--connect ipc://@/a -R ipc://@/b='ipc://@/*'", "it has a * in it"},
        {1, "--listen ipc://@/a --allow x", "is nothing that can be allowed"},
        {1, "--listen ipc://@/a --allow tcp://x", "is nothing that can be allowed"},
        {1, "--listen ipc://@/a --allow tcp://127.0.0.1/33:1", "is nothing that can be allowed"},
        {1, "--listen ipc://@/a --allow tcp://x/8:1", "is nothing that can be allowed"},
        {1, "--listen ipc://@/a --allow tcp://[x]:1", "is nothing that can be allowed"},
        {1, "--listen ipc://@/a --allow tcp://1.2.3.4:65536", "is nothing that can be allowed"},
        {1, "--listen ipc://@/a --allow 'tcp://a b:1'", "is nothing that can be allowed"},
        {1, "--listen ipc://@/a --allow tcp://nobody.invalid:1", "no address of that name"},
        {3, "--connect nonsense", "malformed URL: write it as"},
        {3, "--listen nonsense", "malformed URL: write it as"},
        {3, "--connect ipc://@/a -L nonsense=ipc://@/b", "malformed URL: write it as"},
    };
    return cr_make_param_array(struct wrong, cases, sizeof cases / sizeof *cases, NULL);
}

ParameterizedTest(struct wrong *t, forward, says_what_is_wrong)
{
    struct program p;
    char text[512] = "\"$SPOKE\" mux ", words[300];

    fill_in(t->words, "", words);
    strcat(text, words);
    cr_assert_eq(shell(&p, text), t->status, "it said: %s", p.err);
    cr_assert_not_null(strstr(p.err, t->said), "it said: %s", p.err);
    program_clear(&p);
}
