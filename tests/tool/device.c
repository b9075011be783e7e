/* SPDX-License-Identifier: MIT */
/* spoke device from the outside: what goes through it, what it counts, how it ends; and the socket
 * types of spoke cat that need more than two programs. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/test.h"
#include "tests/tool/program.h"

TestSuite(device_tool, .init = test_directory_make, .fini = test_directory_remove);

#define ASSERT_STATUS(Program, Status)                                                             \
    cr_assert_eq((Program).status, Status, "exit code %d; it said: %s", (Program).status,          \
                 (Program).err)

#define device_start(P, ...)                                                                       \
    program_start_argv(P, false, PROGRAM_ARGV(SPOKE_TOOL, "device", __VA_ARGS__))

static void
wait_output(struct program *p, const char *text)
{
    for (int i = 0; i < 30000 * SPOKE_TEST_SLOWDOWN; i++) {
        program_look(p);
        if (strstr(p->out, text) != NULL)
            return;
        usleep(1000);
    }
    cr_assert_fail("no \"%s\" in: %s%s", text, p->out, p->err);
}

/* Ask for counters until they have this line. */
static void
wait_counters(struct program *p, const char *text)
{
    for (int i = 0; i < 3000 * SPOKE_TEST_SLOWDOWN; i++) {
        program_signal(p, SIGUSR1);
        usleep(10000);
        program_look(p);
        if (strstr(p->out, text) != NULL)
            return;
    }
    cr_assert_fail("no \"%s\" in: %s%s", text, p->out, p->err);
}

static void
terminate(struct program *p)
{
    program_signal(p, SIGTERM);
    cr_assert_eq(program_wait(p, 30), 128 + SIGTERM, "it said: %s", p->err);
}

static void
ask(const char *path, const char *question, const char *answer)
{
    struct program client;
    char line[64];

    spoke_cat(&client, "--req", "-x", path, "-D", question, "-A");
    ASSERT_STATUS(client, 0);
    snprintf(line, sizeof line, "%s\n", answer);
    cr_assert_str_eq(client.out, line);
    program_clear(&client);
}

/* ---- what goes through ---- */

Test(device_tool, passes_requests_and_counts_them)
{
    struct program device, server;
    const char *front = ipc_in_directory("front"), *back = ipc_in_directory("back");
    char line[400];

    device_start(&device, "--rep", front, back);
    cr_assert(appears(in_directory("front")));
    spoke_cat_start(&server, "--rep", "--bind", back, "-D", "world!", "-A");
    for (int i = 0; i < 3; i++)
        ask(in_directory("front"), "hello", "world!");
    snprintf(line, sizeof line, "%s -> %s: 3 messages, 15 bytes\n", front, back);
    wait_counters(&device, line);
    snprintf(line, sizeof line, "%s -> %s: 3 messages, 18 bytes\n", back, front);
    wait_counters(&device, line);
    snprintf(line, sizeof line, "%s: 0 connections, 3 ever\n", front);
    wait_counters(&device, line);
    snprintf(line, sizeof line, "%s: 1 connections, 1 ever\n", back);
    wait_counters(&device, line);
    ask(in_directory("front"), "hello", "world!"); /* it goes on */
    size_t seen = device.out_size;
    terminate(&device);
    snprintf(line, sizeof line, "%s -> %s: 4 messages, 20 bytes\n", front, back);
    cr_assert_not_null(strstr(device.out + seen, line), "at the end: %s", device.out + seen);
    cr_assert_str_empty(device.err);
    cr_assert_neq(access(in_directory("front"), F_OK), 0, "the socket file is removed");
    program_clear(&server);
    program_clear(&device);
}

Test(device_tool, finds_a_server_again_that_comes_back)
{
    struct program device, server;
    char line[200];

    device_start(&device, "--rep", "-X", in_directory("front"), "-x", in_directory("back"));
    cr_assert(appears(in_directory("front")));
    for (int life = 1; life <= 3; life++) {
        spoke_cat_start(&server, "--rep", "-X", in_directory("back"), "-D", "here", "-A");
        ask(in_directory("front"), "there?", "here");
        program_clear(&server); /* what is sent before its end is known would be lost with it */
        snprintf(line, sizeof line, "back: 0 connections, %d ever\n", life);
        wait_counters(&device, line);
    }
    terminate(&device);
    cr_assert_str_empty(device.err);
    program_clear(&device);
}

Test(device_tool, is_silent_if_it_is_told_to)
{
    struct program device;

    device_start(&device, "--bus", "-X", in_directory("s"), "-q");
    cr_assert(appears(in_directory("s")));
    terminate(&device);
    cr_assert_str_empty(device.out);
    cr_assert_str_empty(device.err);
    program_clear(&device);
}

/* Both sides may connect, both may listen, and the types may be the other way round. */
Test(device_tool, connects_and_listens_as_it_is_told)
{
    struct program device[2], server, client;

    spoke_cat_start(&server, "--rep", "-X", in_directory("server"), "-D", "answer", "-A");
    device_start(&device[0], "--req", "-x", in_directory("server"), "-x", in_directory("middle"));
    device_start(&device[1], "--rep", "-X", in_directory("front"), "-X", in_directory("middle"));
    /* Where they meet, one's REP connects and the other's REQ listens. */
    spoke_cat(&client, "--req", "-x", in_directory("front"), "-D", "question", "-A");
    ASSERT_STATUS(client, 0);
    cr_assert_str_eq(client.out, "answer\n");
    program_clear(&client);
    program_clear(&device[0]);
    program_clear(&device[1]);
    program_clear(&server);
}

Test(device_tool, passes_between_ipc_and_tcp)
{
    struct program device, listener;
    const char *port = free_port();

    device_start(&device, "--pair", "-L", port, "-X", in_directory("s"));
    spoke_cat_start(&listener, "--pair", "-l", port, "-A");
    struct program talker;
    spoke_cat(&talker, "--pair", "-x", in_directory("s"), "-D", "from ipc to tcp", "--recv-timeout",
              "0");
    ASSERT_STATUS(talker, 0);
    wait_output(&listener, "from ipc to tcp\n");
    program_clear(&talker);
    program_clear(&listener);
    program_clear(&device);
}

Test(device_tool, on_one_address_is_a_hub)
{
    static const char *const types[] = {"--bus", "--star"};

    for (int i = 0; i < 2; i++) {
        struct program hub, member[2], talker;

        device_start(&hub, types[i], ipc_in_directory("hub"));
        cr_assert(appears(in_directory("hub")));
        for (int j = 0; j < 2; j++)
            spoke_cat_start(&member[j], types[i], "-x", in_directory("hub"), "-A");
        wait_counters(&hub, ": 2 connections, 2 ever\n");
        spoke_cat(&talker, types[i], "-x", in_directory("hub"), "-D", "hello, all", "-A",
                  "--recv-timeout", "0.3");
        ASSERT_STATUS(talker, 0);
        cr_assert_str_empty(talker.out, "it does not hear itself");
        for (int j = 0; j < 2; j++) {
            wait_output(&member[j], "hello, all\n");
            cr_assert_str_eq(member[j].out, "hello, all\n", "once");
            program_clear(&member[j]);
        }
        program_clear(&talker);
        terminate(&hub);
        cr_assert_not_null(strstr(hub.out, ": 1 messages, 10 bytes\n"), "%s", hub.out);
        program_clear(&hub);
    }
}

Test(device_tool, drops_by_its_ttl_and_says_so)
{
    struct program far, near, client;

    device_start(&far, "--rep", "-X", in_directory("far"), "-x", in_directory("nobody"), "--ttl",
                 "1");
    device_start(&near, "--rep", "-X", in_directory("near"), "-x", in_directory("far"));
    spoke_cat_start(&client, "--req", "-x", in_directory("near"), "-D", "too far", "-A");
    cr_assert(appears(in_directory("far"))); /* from then on it is ready for SIGUSR1 */
    wait_counters(&far, "dropped_ttl 1\n");
    program_clear(&client);
    program_clear(&near);
    program_clear(&far);
}

Test(device_tool, gets_on_with_programs_of_nanomsg_and_nng)
{
    struct program device, server, client;

    if (!is_installed("nanocat") || !is_installed("nngcat"))
        cr_skip_test("nanocat or nngcat is not installed");
    device_start(&device, "--rep", ipc_in_directory("front"), ipc_in_directory("back"));
    program_start_argv(
        &server, false,
        PROGRAM_ARGV("nanocat", "--rep", "-X", in_directory("back"), "-D", "from nanomsg"));
    cr_assert(appears(in_directory("front")));
    program_run_argv(&client, PROGRAM_ARGV("nngcat", "--req0", "--dial", ipc_in_directory("front"),
                                           "-D", "from NNG", "--quoted"));
    ASSERT_STATUS(client, 0);
    cr_assert_not_null(strstr(client.out, "\"from nanomsg\""), "%s", client.out);
    program_clear(&client);
    program_clear(&server);
    program_clear(&device);
}

/* ---- what is wrong ---- */

struct end_case {
    int status;
    char words[128]; /* of the command line, by spaces; @ is the test's directory */
    char said[96];
};

ParameterizedTestParameters(device_tool, says_what_is_wrong)
{
    static struct end_case cases[] = {
        {1, "", "give the socket type of the front"},
        {1, "ipc://@/a ipc://@/b", "give the socket type of the front"},
        {1, "--rep", "give two addresses"},
        {1, "--rep ipc://@/a", "with one, only --pair, --pair1, --bus and --star"},
        {1, "--rep --pair ipc://@/a ipc://@/b", "not two"},
        {1, "--rep ipc://@/a ipc://@/b ipc://@/c", "not more"},
        {1, "--rep -X @/a -X @/b -X @/c", "not more"},
        {1, "--pair ipc://@/a ipc://@/a", "the same address"},
        {1, "--rep inproc://a ipc://@/b", "take an ipc:// or tcp:// address"},
        {1, "--bus -X @/a --ttl 0", "at least 1"},
        {1, "--bus -X @/a --ttl 256", "--ttl wants a whole number from 0 to 255"},
        {1, "--bus -X @/a --linger x", "--linger wants a number of seconds"},
        {1, "--bus -X @/a --subscribe x", "--subscribe is for --sub and --pub"},
        {1, "--bus -L 65536", "--bind-local wants"},
        {1, "--bus -X @/a --bogus", "no option --bogus"},
        {3, "--bus nonsense", "malformed URL: write it as"},
        {3, "--bus -X @/none/s", "create the directory"},
        {3, "--bus -X @/file", "it has not been touched"},
        {3, "--rep -X @/a --connect http://127.0.0.1:80", "unknown URL scheme"},
    };
    return cr_make_param_array(struct end_case, cases, sizeof cases / sizeof *cases, NULL);
}

ParameterizedTest(struct end_case *c, device_tool, says_what_is_wrong)
{
    const char *argv[20] = {SPOKE_TOOL, "device"};
    char words[2048], *out = words;
    struct program p;
    int count = 2;
    FILE *file = fopen(in_directory("file"), "we");

    cr_assert_not_null(file);
    fclose(file);
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
    cr_assert_eq(strncmp(p.err, "spoke device: ", 14), 0, "it said: %s", p.err);
    cr_assert_str_empty(p.out);
    cr_assert_neq(access(in_directory("a"), F_OK), 0, "nothing is left");
    program_clear(&p);
}

/* ---- spoke cat ---- */

static void
check_exchange(const char *type)
{
    struct program listener, talker;

    spoke_cat_start(&listener, type, "-X", in_directory("s"), "-D", "pong", "-A", "-C", "1");
    spoke_cat(&talker, type, "-x", in_directory("s"), "-D", "ping", "-A", "-C", "1");
    ASSERT_STATUS(talker, 0);
    cr_assert_str_eq(talker.out, "pong\n");
    cr_assert_eq(program_wait(&listener, 30), 0);
    cr_assert_str_eq(listener.out, "ping\n");
    program_clear(&talker);
    program_clear(&listener);
}

Test(device_tool, cat_has_bus_star_and_pair1)
{
    check_exchange("--bus");
    check_exchange("--star");
    check_exchange("--pair1");
}

Test(device_tool, cat_of_a_star_passes_on)
{
    struct program middle, member, talker;

    spoke_cat_start(&middle, "--star", "-X", in_directory("s"), "-A", "-v");
    spoke_cat_start(&member, "--star", "-x", in_directory("s"), "-A");
    for (int i = 0; strstr(middle.err != NULL ? middle.err : "", "accepted a connection") == NULL;
         i++) {
        cr_assert_lt(i, 30000 * SPOKE_TEST_SLOWDOWN, "nobody came: %s", middle.err);
        usleep(1000);
        program_look(&middle);
    }
    spoke_cat(&talker, "--star", "-x", in_directory("s"), "-D", "to all", "--recv-timeout", "0");
    ASSERT_STATUS(talker, 0);
    wait_output(&middle, "to all\n");
    wait_output(&member, "to all\n");
    program_clear(&talker);
    program_clear(&member);
    program_clear(&middle);
}

Test(device_tool, cat_talks_to_the_pair_of_nngcat)
{
    struct program listener, talker;

    if (!is_installed("nngcat"))
        cr_skip_test("nngcat is not installed");
    spoke_cat_start(&listener, "--pair1", "-X", in_directory("s"), "-A", "-C", "1");
    cr_assert(appears(in_directory("s")));
    program_run_argv(&talker, PROGRAM_ARGV("nngcat", "--pair1", "--dial", ipc_in_directory("s"),
                                           "-D", "from NNG", "--recv-timeout", "1"));
    cr_assert_eq(program_wait(&listener, 30), 0);
    cr_assert_str_eq(listener.out, "from NNG\n");
    program_clear(&talker);
    program_clear(&listener);
}
