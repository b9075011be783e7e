/* SPDX-License-Identifier: MIT */
/* spoke cat from the outside: what it prints, how it ends, what it says when something is wrong,
 * and that it gets on with nanocat, nngcat and the shell. */
#include <ctype.h>
#include <fcntl.h>
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
#include "tests/tool/program.h"

TestSuite(cat, .init = test_directory_make, .fini = test_directory_remove);

#define ASSERT_STATUS(Program, Status)                                                             \
    cr_assert_eq((Program).status, Status, "exit code %d; it said: %s", (Program).status,          \
                 (Program).err)
#define ASSERT_SAID(Program, Text)                                                                 \
    cr_assert_not_null(strstr((Program).err, Text), "it said: %s", (Program).err)

static void
write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "we");

    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    cr_assert_eq(fclose(file), 0);
}

/* ---- the tests' own ground ---- */

/* Goal: a missing line is the program's fault and never that of the file which catches it. */
Test(program, keeps_every_line_of_two_that_print_at_once)
{
    struct program p;

    shell(&p, "(for i in $(seq 20000); do echo a; done) & for i in $(seq 20000); do echo b; done; "
              "wait");
    cr_assert_eq(p.out_size, 80000, "%zu bytes", p.out_size);
    program_clear(&p);
}

/* ---- formats ---- */

static const char sample[] = "a\"b\\c\n\r\t\x01\xe9z";
#define SAMPLE_SIZE (sizeof sample - 1)

struct format_case {
    char option[12];
    char printed[64]; /* measured with nanocat 1.1.5 */
    size_t size;
};
#define FORMAT_CASE(Option, Printed)                                                               \
    {                                                                                              \
        Option, Printed, sizeof(Printed) - 1                                                       \
    }

ParameterizedTestParameters(cat, prints_as_nanocat_does)
{
    static struct format_case cases[] = {
        FORMAT_CASE("--raw", "a\"b\\c\n\r\t\x01\xe9z"),
        FORMAT_CASE("--ascii", "a\"b\\c.....z\n"),
        FORMAT_CASE("--quoted", "\"a\\\"b\\\\c\\n\\r\\x09\\x01\\xe9z\"\n"),
        FORMAT_CASE("--hex", "\"\\x61\\x22\\x62\\x5c\\x63\\x0a\\x0d\\x09\\x01\\xe9\\x7a\"\n"),
        FORMAT_CASE("--msgpack", "\xc4\x0b"
                                 "a\"b\\c\n\r\t\x01\xe9z"),
        FORMAT_CASE("--verbose", ""),
    };
    return cr_make_param_array(struct format_case, cases, sizeof cases / sizeof *cases, NULL);
}

ParameterizedTest(struct format_case *c, cat, prints_as_nanocat_does)
{
    struct program ours, theirs, sender;

    write_file(in_directory("sample"), sample, SAMPLE_SIZE);
    spoke_cat_start(&ours, "--rep", "-X", in_directory("s"), c->option, "-D", "", "-C", "1");
    spoke_cat(&sender, "--req", "-x", in_directory("s"), "-F", in_directory("sample"));
    ASSERT_STATUS(sender, 0);
    cr_assert_eq(program_wait(&ours, 30), 0);
    cr_assert_eq(ours.out_size, c->size);
    cr_assert_arr_eq(ours.out, c->printed, c->size);
    program_clear(&sender);

    if (is_installed("nanocat") && strcmp(c->option, "--verbose") != 0) {
        program_start_argv(
            &theirs, false,
            PROGRAM_ARGV("nanocat", "--rep", "-X", in_directory("n"), c->option, "-D", ""));
        spoke_cat(&sender, "--req", "-x", in_directory("n"), "-F", in_directory("sample"));
        ASSERT_STATUS(sender, 0);
        program_look(&theirs);
        cr_expect_eq(theirs.out_size, c->size);
        cr_expect_arr_eq(theirs.out, c->printed, c->size);
        program_clear(&theirs);
        program_clear(&sender);
    }
    program_clear(&ours);
}

struct msgpack_case {
    size_t size;
    char head[6];
    size_t head_size;
};

ParameterizedTestParameters(cat, msgpack_lengths_grow_with_the_message)
{
    static struct msgpack_case cases[] = {
        {0, "\xc4\x00", 2},
        {255, "\xc4\xff", 2},
        {256, "\xc5\x01\x00", 3},
        {65535, "\xc5\xff\xff", 3},
        {65536, "\xc6\x00\x01\x00\x00", 5},
    };
    return cr_make_param_array(struct msgpack_case, cases, sizeof cases / sizeof *cases, NULL);
}

ParameterizedTest(struct msgpack_case *c, cat, msgpack_lengths_grow_with_the_message)
{
    struct program receiver, sender;
    char *bytes = calloc(1, c->size + 1);

    memset(bytes, 0xaa, c->size);
    write_file(in_directory("sample"), bytes, c->size);
    spoke_cat_start(&receiver, "--rep", "-X", in_directory("s"), "--format=msgpack", "-D", "",
                    "-C1");
    spoke_cat(&sender, "--req", "-x", in_directory("s"), "--file", in_directory("sample"));
    ASSERT_STATUS(sender, 0);
    cr_assert_eq(program_wait(&receiver, 30), 0);
    cr_assert_eq(receiver.out_size, c->head_size + c->size);
    cr_assert_arr_eq(receiver.out, c->head, c->head_size);
    cr_assert_arr_eq(receiver.out + c->head_size, bytes, c->size);
    program_clear(&receiver);
    program_clear(&sender);
    free(bytes);
}

Test(cat, prints_one_line_for_an_empty_message)
{
    struct program receiver, sender;

    spoke_cat_start(&receiver, "--rep", "-X", in_directory("s"), "-Q", "-D", "", "-C1");
    spoke_cat(&sender, "--req", "-x", in_directory("s"), "-D", "", "-A");
    ASSERT_STATUS(sender, 0);
    cr_assert_str_eq(sender.out, "\n");
    cr_assert_eq(program_wait(&receiver, 30), 0);
    cr_assert_str_eq(receiver.out, "\"\"\n");
    program_clear(&receiver);
    program_clear(&sender);
}

/* ---- how it ends ---- */

struct end_case {
    int status;
    char words[96]; /* of the command line, by spaces; @ is the test's directory */
    char said[96];
};

ParameterizedTestParameters(cat, says_what_is_wrong)
{
    static struct end_case cases[] = {
        {1, "", "give a socket type"},
        {1, "--req", "give an address"},
        {1, "--req -x @/s", "has to send something"},
        {1, "--req --rep -x @/s", "one socket type"},
        {1, "--pair -x @/s -D a -F b", "--data or --file"},
        {1, "--pair -x @/s -D a --line", "does not go with --data"},
        {1, "--pair -x @/s --interval 1", "--interval"},
        {1, "--bogus", "no option --bogus"},
        {1, "-vy", "no option -y"},
        {1, "--re", "could be any of --req --rep --respondent --recv-timeout --recv-maxsz"},
        {1, "--pair --bind", "--bind needs a value"},
        {1, "-x", "-x needs a value"},
        {1, "--line=1", "takes no value"},
        {1, "--pair -X @/s left-over", "\"left-over\" is not understood"},
        {1, "--pair -X @/s --recv-timeout 1s", "--recv-timeout wants a number of seconds"},
        {1, "--pair -X @/s --recv-timeout=-1", "--recv-timeout wants a number of seconds"},
        {1, "--pair -X @/s --delay nan", "--delay wants"},
        {1, "--pair -X @/s -C 1.5", "--count wants a whole number"},
        {1, "--pair -L 65536", "--bind-local wants"},
        {1, "--pair -X @/s --format xml", "--format can be"},
        {2, "--pair -X @/s -E @/none", "cannot be read: no such thing"},
        {2, "--pair -X @/s -E @/file", "file is not usable"},
        {1, "--pair -X @/s --key @/file", "give --cert, too"},
        {2, "--pair -X @/s --cacert @/none", "cannot be read: no such thing"},
        {3, "--pair --bind tls+tcp://127.0.0.1:5000", "give a certificate with --cert"},
        {3, "--pair --bind tls+tcp://127.0.0.1:5000 -k", "give one with --cert"},
        {1, "--sub -x @/s -D a", "this socket type cannot send"},
        {1, "--pull -x @/s --line", "this socket type cannot send"},
        {1, "--push -x @/s", "has to send something"},
        {1, "--pub -x @/s", "has to send something"},
        {1, "--pull -x @/s --subscribe topic", "--subscribe is for --sub"},
        {1, "--pair -x @/s --subscribe topic", "--subscribe is for --sub"},
        {1, "--rep --bind inproc://here", "take an ipc:// or tcp:// address"},
        {1, "--pair -X @/s -C -1", "--count wants a whole number, 0 or more"},
        {2, "--pair -x @/s -F @/none", "No such file"},
        {2, "--pair -x @/s -F @", "Is a directory"},
        {2, "--pair -x @/s --line -F @/none", "No such file"},
        {3, "--pair --bind nonsense", "malformed URL: write it as"},
        {3, "--pair --bind tcp://127.0.0.1", "malformed URL: write it as tcp://HOST:PORT, with"},
        {3, "--pair --bind tcp://127.0.0.1:65536", "with a port up to 65535"},
        {3, "--pair --bind ipc://", "write it as ipc://PATH"},
        {3, "--pair --connect http://127.0.0.1:80",
         "unknown URL scheme: this version has tcp://HOST:PORT"},
        {3, "--pair -X @/none/s", "create the directory"},
        {3, "--pair -X @/file", "it has not been touched"},
        {3, "--pair -X @/used", "the address is in use: stop the program"},
        {3, "--pair --bind tcp://192.0.2.1:5000", "take an address of this machine"},
        {3,
         "--pair --socket-name "
         "0123456789012345678901234567890123456789012345678901234567890123 -X @/s",
         "set an option"},
        {3, "--pair -x @/s -D a --send-timeout 0.1", "nobody connected within 0.1 s"},
        {3, "--req -x @/s -D a --send-timeout 0.1", "nobody connected within 0.1 s"},
        {3, "--push -x @/s -D a --send-timeout 0.1", "nobody connected within 0.1 s"},
        {3, "--pub -X @/s -D a --send-timeout 0.1", "nobody connected within 0.1 s"},
        {3, "--req -x @/s -D a --recv-timeout 0.1 --linger 0.1", "could not be delivered"},
    };
    return cr_make_param_array(struct end_case, cases, sizeof cases / sizeof *cases, NULL);
}

/* A socket that listens where the cases expect one. */
static void
occupy(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(fd, 1), 0);
}

ParameterizedTest(struct end_case *c, cat, says_what_is_wrong)
{
    struct program p;
    char command[400] = "exec $SPOKE cat ";
    size_t used = strlen(command);

    for (const char *at = c->words; *at != '\0' && used < sizeof command - 8; at++) {
        if (*at == '@')
            used += (size_t)sprintf(command + used, "$DIR");
        else
            command[used++] = *at;
    }
    write_file(in_directory("file"), "x", 1);
    occupy(in_directory("used"));
    shell(&p, command);
    ASSERT_STATUS(p, c->status);
    ASSERT_SAID(p, c->said);
    cr_assert_eq(strncmp(p.err, "spoke cat: ", 11), 0);
    cr_assert_eq(strchr(p.err, '\n'), p.err + strlen(p.err) - 1, "more than one line: %s", p.err);
    cr_assert_str_empty(p.out);
    cr_assert_eq(access(in_directory("file"), F_OK), 0);
    program_clear(&p);
}

Test(cat, a_path_longer_than_an_address_is_one_clear_error)
{
    struct program p;
    char path[256];

    snprintf(path, sizeof path, "%s/%0120d", test_directory, 7);
    spoke_cat(&p, "--pair", "--bind-ipc", path);
    ASSERT_STATUS(p, 3);
    ASSERT_SAID(p, "at most 107 bytes");
    program_clear(&p);
}

Test(cat, silent_errors_leave_the_exit_code)
{
    struct program p;

    spoke_cat(&p, "--pair", "--bind", "nonsense", "-q");
    ASSERT_STATUS(p, 3);
    cr_assert_str_empty(p.err);
    program_clear(&p);
}

Test(cat, help_and_version_end_well)
{
    struct program p;

    spoke_cat(&p, "--help");
    ASSERT_STATUS(p, 0);
    cr_assert_eq(strncmp(p.out, "usage: spoke cat ", 17), 0);
    cr_assert_not_null(strstr(p.out, "--send-timeout SEC"));
    program_clear(&p);
    spoke_cat(&p, "--version");
    ASSERT_STATUS(p, 0);
    cr_assert_eq(strncmp(p.out, "spoke 0.", 8), 0);
    program_clear(&p);
}

Test(cat, a_stale_socket_file_is_taken_over)
{
    struct program p;

    /* The kernel takes a moment to close what a killed process had in an io_uring. */
    shell(&p, "$CAT --rep -X $DIR/s & while ! test -S $DIR/s; do sleep 0.01; done;"
              "kill -9 $!; wait; test -S $DIR/s || exit 9; for i in $(seq 100); do"
              " $SPOKE cat --rep -X $DIR/s --recv-timeout 0.1 && exit; sleep 0.2; done; exit 8");
    ASSERT_STATUS(p, 0);
    cr_assert_neq(access(in_directory("s"), F_OK), 0);
    program_clear(&p);
}

static void
ends_by(int signal)
{
    struct program p;

    spoke_cat_start(&p, "--rep", "-X", in_directory("s"), "-D", "x");
    cr_assert(appears(in_directory("s")));
    program_signal(&p, signal);
    cr_assert_eq(program_wait(&p, 20), 128 + signal);
    cr_assert_str_empty(p.err);
    cr_assert_neq(access(in_directory("s"), F_OK), 0, "the socket file is left");
    program_clear(&p);
}

Test(cat, removes_its_socket_file_when_interrupted)
{
    ends_by(SIGINT);
    ends_by(SIGTERM);
    ends_by(SIGHUP);
}

/* Each of the waits that a signal must end: for a peer, for a line, for the next interval. */
Test(cat, a_signal_ends_every_wait)
{
    static const char *const waits[][6] = {
        {"--pair", "--data", "x", "--verbose"},
        {"--rep", "--line"},
        {"--req", "--line"},
        {"--pair", "--data", "x", "--delay", "100"},
    };
    struct program p;

    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        const char *argv[12] = {SPOKE_TOOL, "cat", "-X", in_directory("s")};
        for (size_t w = 0; w < 6; w++)
            argv[4 + w] = waits[i][w];
        program_start_argv(&p, true, argv);
        cr_assert(appears(in_directory("s")));
        program_signal(&p, SIGTERM);
        cr_assert_eq(program_wait(&p, 20), 128 + SIGTERM, "%s %s", waits[i][0], waits[i][1]);
        cr_assert_neq(access(in_directory("s"), F_OK), 0);
        program_clear(&p);
    }
}

Test(cat, a_closed_output_ends_it_quietly)
{
    struct program p;

    shell(&p,
          "{ $SPOKE cat --rep -X $DIR/s -D y -A 2>$DIR/err; echo $? >$DIR/status; } | head -n 2 &"
          "while ! test -s $DIR/status; do" /* head may take its time to end, and any request be
                                               lost */
          " $SPOKE cat --req -x $DIR/s -D line --recv-timeout 1; done; cat $DIR/err $DIR/status;"
          "test ! -e $DIR/s");
    cr_assert_not_null(strstr(p.out, "line\nline\n"), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "141\n"), "%s", p.out);
    cr_assert_null(strstr(p.out, "spoke cat"), "%s", p.out);
    program_clear(&p);
}

Test(cat, a_full_disk_is_an_error_of_the_file)
{
    struct program p;

    if (access("/dev/full", W_OK) != 0)
        cr_skip_test("there is no /dev/full");
    shell(&p, "$SPOKE cat --rep -X $DIR/s -A >/dev/full & server=$!; while kill -0 $server; do"
              " $SPOKE cat --req -x $DIR/s -D x --recv-timeout 0.5; done 2>$DIR/err; wait $server");
    ASSERT_STATUS(p, 2);
    ASSERT_SAID(p, "cannot write to standard output: No space left");
    program_clear(&p);
}

Test(cat, closed_standard_descriptors_are_errors_and_not_mixed_up)
{
    struct program p;

    shell(&p, "$CAT --pair -X $DIR/t -A >&- & server=$!;"
              "$CAT --pair -x $DIR/t --line <&-; echo $?;"
              "echo x | $CAT --pair -x $DIR/t --line; wait $server");
    ASSERT_STATUS(p, 2);
    cr_assert_str_eq(p.out, "2\n");
    ASSERT_SAID(p, "cannot read the input: Bad file descriptor");
    ASSERT_SAID(p, "cannot write to standard output: Bad file descriptor");
    program_clear(&p);
}

Test(cat, verbose_tells_of_connections)
{
    struct program server, client;

    spoke_cat_start(&server, "--rep", "-X", in_directory("s"), "-D", "r", "-v", "-C", "1");
    spoke_cat(&client, "--req", "-x", in_directory("s"), "-D", "q", "-v");
    ASSERT_STATUS(client, 0);
    ASSERT_SAID(client, "connected to ipc://");
    cr_assert_null(strstr(client.err, "lost"), "%s", client.err);
    cr_assert_eq(program_wait(&server, 30), 0);
    ASSERT_SAID(server, "accepted a connection on ipc://");
    program_clear(&client);
    program_clear(&server);
}

Test(cat, verbose_twice_tells_what_was_counted)
{
    struct program server, client;

    spoke_cat_start(&server, "--rep", "-X", in_directory("s"), "-D", "reply", "-v", "-C", "1");
    spoke_cat(&client, "--req", "-x", in_directory("s"), "-D", "q", "-v", "-v");
    ASSERT_STATUS(client, 0);
    ASSERT_SAID(client, "connected to ipc://");
    ASSERT_SAID(client, "messages_sent: 1 messages that send took\n");
    ASSERT_SAID(client, "bytes_received: 5 ");
    cr_assert_null(strstr(client.err, "garbled"), "only what happened: %s", client.err);
    cr_assert_eq(program_wait(&server, 30), 0);
    cr_assert_null(strstr(server.err, "messages_sent"), "%s", server.err);
    program_clear(&client);
    program_clear(&server);
}

/* ---- what the socket types do ---- */

Test(cat, one_request_one_reply)
{
    struct program server, client;

    spoke_cat_start(&server, "--rep", "--bind", ipc_in_directory("s"), "--data", "world",
                    "--quoted", "--count", "2");
    spoke_cat(&client, "--req", "--connect", ipc_in_directory("s"), "--data", "hello", "-A");
    ASSERT_STATUS(client, 0);
    cr_assert_str_eq(client.out, "world\n");
    program_clear(&client);
    spoke_cat(&client, "--req", "--dial", ipc_in_directory("s"), "--data=hello again");
    ASSERT_STATUS(client, 0);
    cr_assert_str_empty(client.out);
    program_clear(&client);
    cr_assert_eq(program_wait(&server, 30), 0);
    cr_assert_str_eq(server.out, "\"hello\"\n\"hello again\"\n");
    program_clear(&server);
}

/* Wait until a program has printed `text`, and nothing else; false if it does not in half a minute.
 */
static bool
prints(struct program *p, const char *text)
{
    for (int i = 0; i < 3000 * SPOKE_TEST_SLOWDOWN; i++) {
        program_look(p);
        if (strcmp(p->out, text) == 0)
            return true;
        usleep(10000);
    }
    return false;
}

Test(cat, replier_without_data_prints_and_never_answers)
{
    struct program server, client;

    spoke_cat_start(&server, "--rep", "-X", in_directory("s"), "--raw");
    spoke_cat_start(&client, "--req", "-x", in_directory("s"), "-D", "one", "-A");
    cr_assert(prints(&server, "one"), "it printed: %s%s", server.out, server.err);
    usleep(300000);
    program_look(&client);
    cr_assert_str_empty(client.out);
    program_clear(&client);
    program_clear(&server);
}

Test(cat, receive_timeout_ends_it_quietly)
{
    struct program p;

    spoke_cat(&p, "--rep", "-X", in_directory("s"), "--recv-timeout", "0.1");
    ASSERT_STATUS(p, 0);
    cr_assert_str_empty(p.err);
    program_clear(&p);
}

Test(cat, count_repeats_a_request)
{
    struct program p;

    shell(&p, "$CAT --rep -X $DIR/s -D r -C 5 >/dev/null &"
              "$CAT --req -x $DIR/s -D q -C 5 -A && wait $!");
    ASSERT_STATUS(p, 0);
    cr_assert_str_eq(p.out, "r\nr\nr\nr\nr\n");
    program_clear(&p);
}

Test(cat, interval_and_delay_take_their_time)
{
    struct program p;

    /* 0.3 before the first, then two more intervals of 0.2; the third round's interval is not
     * waited for. */
    shell(&p, "$CAT --rep -X $DIR/s -D r >/dev/null & server=$!; start=$(date +%s%N);"
              "$CAT --req -x $DIR/s -D q -d 0.3 -i 0.2 -C 3 -A; end=$(date +%s%N); kill $server;"
              "echo $(((end - start) / 1000000))");
    cr_assert_eq(strncmp(p.out, "r\nr\nr\n", 6), 0, "%s", p.out);
    cr_assert_geq(atoi(p.out + 6), 700);
    program_clear(&p);
}

/* Goal: macat's name of the same. */
Test(cat, send_delay_is_delay)
{
    struct program p;

    shell(&p, "start=$(date +%s%N); $CAT --push -x $DIR/s -D q --send-delay 0.3 &"
              "$CAT --pull -X $DIR/s -C 1 -A; end=$(date +%s%N); wait;"
              "echo $(((end - start) / 1000000))");
    cr_assert_eq(strncmp(p.out, "q\n", 2), 0, "%s%s", p.out, p.err);
    cr_assert_geq(atoi(p.out + 2), 300);
    program_clear(&p);
}

/* Goal: the list for programs has what --help has for people, each once, and nothing else. */
Test(cat, lists_its_options)
{
    struct program p;

    shell(&p, "$SPOKE cat --list-options | sort >$DIR/list; $SPOKE cat --help |"
              "sed -nE 's/^ {2,6}(-., )?(--[a-z0-9-]+).*/\\2/p' | sort >$DIR/help;"
              "wc -l <$DIR/list; diff $DIR/list $DIR/help");
    ASSERT_STATUS(p, 0);
    cr_assert_gt(atoi(p.out), 40);
    program_clear(&p);
    spoke_cat(&p, "--list-options", "nonsense");
    ASSERT_STATUS(p, 1);
    program_clear(&p);
    shell(&p, "$SPOKE cat --list-options >/dev/full");
    ASSERT_STATUS(p, 2);
    program_clear(&p);
}

/* Goal: a peer that never stops does not keep the next message from being sent. */
Test(cat, interval_passes_also_while_messages_pour_in)
{
    struct program p;

    shell(&p, "yes $(head -c 20000 /dev/zero | tr '\\0' x) |"
              "$CAT --pair -X $DIR/s --line >/dev/null & timeout 55"
              " $CAT --pair -x $DIR/s -D tick -i 0.1 -C 3 --hex >/dev/null");
    ASSERT_STATUS(p, 0);
    program_clear(&p);
}

/* Goal: who has a reply may count on the request being printed, whatever becomes of the replier. */
Test(cat, a_request_is_printed_before_it_is_answered)
{
    struct program p;

    shell(&p, "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do "
              "$CAT --rep -X $DIR/s$i -D r -A >$DIR/got & server=$!;"
              "$CAT --req -x $DIR/s$i -D q$i; kill -KILL $server; wait $server;"
              "grep -qx q$i $DIR/got || echo $i; done 2>/dev/null");
    cr_assert_str_empty(p.out, "lost: %s", p.out);
    program_clear(&p);
}

Test(cat, pair_talks_both_ways)
{
    struct program a, b;

    spoke_cat_start(&a, "--pair", "-X", in_directory("s"), "-D", "from a", "-A", "-C", "1");
    spoke_cat(&b, "--pair", "-x", in_directory("s"), "-D", "from b", "-A", "-C", "1");
    ASSERT_STATUS(b, 0);
    cr_assert_eq(program_wait(&a, 30), 0);
    cr_assert_str_eq(a.out, "from b\n");
    cr_assert_str_eq(b.out, "from a\n");
    program_clear(&a);
    program_clear(&b);
}

Test(cat, a_one_shot_message_arrives_although_its_receiver_starts_later)
{
    struct program sender, receiver;

    spoke_cat_start(&sender, "--pair", "-x", in_directory("s"), "-D", "late", "--recv-timeout",
                    "0");
    usleep(300000);
    spoke_cat(&receiver, "--pair", "-X", in_directory("s"), "-A", "-C", "1");
    ASSERT_STATUS(receiver, 0);
    cr_assert_str_eq(receiver.out, "late\n");
    cr_assert_eq(program_wait(&sender, 30), 0);
    program_clear(&sender);
    program_clear(&receiver);
}

Test(cat, several_addresses_of_one_socket)
{
    struct program server, client;
    const char *port = free_port();

    spoke_cat_start(&server, "--rep", "-X", in_directory("s"), "-L", port, "-D", "r", "-C", "2");
    spoke_cat(&client, "--req", "-l", port, "-D", "q", "-A");
    ASSERT_STATUS(client, 0);
    cr_assert_str_eq(client.out, "r\n");
    program_clear(&client);
    spoke_cat(&client, "--req", "-x", in_directory("s"), "-D", "q", "-A");
    ASSERT_STATUS(client, 0);
    cr_assert_str_eq(client.out, "r\n");
    program_clear(&client);
    cr_assert_eq(program_wait(&server, 30), 0);
    program_clear(&server);
}

Test(cat, its_name_can_be_the_socket_type)
{
    struct program p;

    shell(&p, "ln -s $SPOKE $DIR/nn_req; ln -s $SPOKE $DIR/nn_rep; ln -s $SPOKE $DIR/nn_what;"
              "$DIR/nn_rep -X $DIR/s -D world -C 1 & $DIR/nn_req -x $DIR/s -D hello -A && wait $! "
              "&& $DIR/nn_what -L 1");
    ASSERT_STATUS(p, 1);
    cr_assert_str_eq(p.out, "world\n");
    ASSERT_SAID(p, "nn_what: there is no socket type of this name");
    program_clear(&p);
}

Test(cat, the_size_limit_is_told_and_can_be_lifted)
{
    struct program p;

    /* 1 MiB and four bytes of request id: one message too large, then the same without a limit. */
    shell(&p, "head -c 1048576 /dev/zero >$DIR/big; $CAT --rep -X $DIR/s -D r 2>$DIR/err & "
              "server=$!; until grep -q large $DIR/err; do"
              " $SPOKE cat --req -x $DIR/s -F $DIR/big -A --recv-timeout 0.5; done;"
              "kill $server; wait; cat $DIR/err;"
              "$CAT --rep -X $DIR/t -D r -Z 0 -C 1 & $CAT --req -x $DIR/t -F $DIR/big "
              "-A; wait $!");
    ASSERT_STATUS(p, 0);
    cr_assert_not_null(strstr(p.out, "the message is too large: allow more with --recv-maxsz"),
                       "%s", p.out);
    cr_assert_str_eq(p.out + strlen(p.out) - 3, "\nr\n");
    program_clear(&p);
}

Test(cat, a_peer_of_another_kind_is_named)
{
    struct program server, client;

    spoke_cat_start(&server, "--pair", "-X", in_directory("s"));
    cr_assert(appears(in_directory("s")));
    spoke_cat(&client, "--req", "-x", in_directory("s"), "-D", "x", "--send-timeout", "15");
    ASSERT_STATUS(client, 3);
    ASSERT_SAID(client, "the peer speaks another protocol");
    program_clear(&server);
    program_clear(&client);
}

/* ---- pipelines ---- */

Test(cat, each_line_is_a_request)
{
    struct program p;

    shell(&p, "$CAT --rep -X $DIR/s -D ok --line -F /dev/null & kill $!; wait;" /* no line: no
                                                                                         reply */
              "$CAT --rep -X $DIR/s -D ok >/dev/null & server=$!;"
              "printf 'one\\n\\nthree' | $CAT --req -x $DIR/s --line; kill $server");
    cr_assert_str_eq(p.out, "ok\nok\nok\n");
    program_clear(&p);
    shell(&p, "yes | head -n 2000 >$DIR/lines; $CAT --rep -X $DIR/s -D ok -A >$DIR/got & server=$!;"
              "$CAT --req -x $DIR/s --line --file $DIR/lines | wc -l; kill $server; wait; wc -l "
              "<$DIR/got;"
              "cmp $DIR/lines $DIR/got");
    cr_assert_str_eq(p.out, "2000\n2000\n", "%s", p.out);
    program_clear(&p);
}

Test(cat, a_filter_of_the_shell_can_be_the_replier)
{
    struct program p;

    shell(&p, "mkfifo $DIR/f; $CAT --rep -X $DIR/s --line <$DIR/f | sed -u 's/.*/<&>/' >$DIR/f & "
              "printf 'one\\ntwo\\n' | $CAT --req -x $DIR/s --line --recv-timeout 15; kill $!");
    cr_assert_str_eq(p.out, "<one>\n<two>\n", "%s %s", p.out, p.err);
    program_clear(&p);
}

Test(cat, pair_carries_a_pipeline)
{
    struct program p;

    shell(&p, "seq 20000 >$DIR/in; $CAT --pair -X $DIR/s --ascii -C 20000 >$DIR/out &"
              "$CAT --pair -x $DIR/s --line <$DIR/in && wait $! && cmp $DIR/in $DIR/out && "
              "test ! -e $DIR/s");
    ASSERT_STATUS(p, 0);
    cr_assert_str_empty(p.err);
    program_clear(&p);
}

/* Goal: two sides that both send more than all queues hold do not wait for each other for ever. */
Test(cat, pair_sends_lines_both_ways_at_once)
{
    struct program p;

    shell(&p, "yes 0123456789abcdef0123456789abcdef | head -n 200000 >$DIR/in;"
              "$CAT --pair -X $DIR/s --line --recv-timeout 8 <$DIR/in >$DIR/a &"
              "$CAT --pair -x $DIR/s --line --recv-timeout 8 <$DIR/in >$DIR/b && wait $! &&"
              "cmp $DIR/in $DIR/a && cmp $DIR/in $DIR/b");
    ASSERT_STATUS(p, 0);
    program_clear(&p);
}

/* ---- one way ---- */

/* What one sends once, the other prints, whoever listens; and it ends by itself. */
static void
gives(const char *giver, const char *taker, bool giver_binds)
{
    struct program give, take;
    const char *bind = "-X", *connect = "-x";

    spoke_cat_start(&take, taker, giver_binds ? connect : bind, in_directory("s"), "-A", "-C1");
    spoke_cat(&give, giver, giver_binds ? bind : connect, in_directory("s"), "-D", "hello");
    ASSERT_STATUS(give, 0);
    cr_assert_eq(program_wait(&take, 30), 0);
    cr_assert_str_eq(take.out, "hello\n");
    program_clear(&give);
    program_clear(&take);
}

Test(cat, one_message_goes_one_way)
{
    for (int binds = 0; binds < 2; binds++) {
        gives("--push", "--pull", binds);
        gives("--pub", "--sub", binds);
    }
}

Test(cat, lines_are_pushed_to_the_last)
{
    struct program p;

    shell(&p, "seq 20000 >$DIR/in; $CAT --pull -X $DIR/s -A -C 20000 >$DIR/out &"
              "$CAT --push -x $DIR/s --line <$DIR/in || exit 9; wait; cmp $DIR/in $DIR/out");
    ASSERT_STATUS(p, 0);
    program_clear(&p);
}

Test(cat, a_count_and_an_interval_repeat_what_is_pushed)
{
    struct program p;

    shell(&p, "$CAT --pull -X $DIR/s -A -C 3 & $CAT --push -x $DIR/s -D x -C 3 -i 0.01;"
              "wait $!");
    ASSERT_STATUS(p, 0);
    cr_assert_str_eq(p.out, "x\nx\nx\n");
    program_clear(&p);
}

Test(cat, prints_what_it_subscribed_to)
{
    struct program p;

    shell(&p, "$CAT --sub -X $DIR/s -A -C 2 --subscribe b --subscribe=news &"
              "printf 'a\\nb one\\nc\\nnewspaper\\n' | $CAT --pub -x $DIR/s --line; wait $!");
    ASSERT_STATUS(p, 0);
    cr_assert_str_eq(p.out, "b one\nnewspaper\n");
    program_clear(&p);
}

/* ---- surveys ---- */

Test(cat, surveyor_asks_everybody_and_respondents_answer)
{
    struct program surveyor, first, second;

    bool both = false;

    /* A survey is for those who are there: who starts too late for this one, or answers too late,
     * is asked again, and then has more time. */
    for (int tries = 0; tries < 5 && !both; tries++) {
        static const char *const times[] = {"1", "2", "4", "8", "16"};

        spoke_cat_start(&surveyor, "--surveyor", "-X", in_directory("s"), "-D", "who", "-A", "-d",
                        times[tries], "--recv-timeout", times[tries]);
        cr_assert(appears(in_directory("s")));
        spoke_cat_start(&first, "--respondent", "-x", in_directory("s"), "-D", "one", "-A", "-C1");
        spoke_cat_start(&second, "--respondent", "-x", in_directory("s"), "-D", "one", "-A", "-C1");
        cr_assert_eq(program_wait(&surveyor, 60), 0, "it said: %s", surveyor.err);
        both = strcmp(surveyor.out, "one\none\n") == 0;
        if (both) {
            cr_assert_eq(program_wait(&first, 20), 0);
            cr_assert_eq(program_wait(&second, 20), 0);
            cr_assert_str_eq(first.out, "who\n");
            cr_assert_str_eq(second.out, "who\n");
        }
        program_clear(&surveyor);
        program_clear(&first);
        program_clear(&second);
    }
    cr_assert(both);
}

/* The end of a survey is an ordinary end. */
Test(cat, surveyor_ends_with_its_survey)
{
    struct program surveyor, respondent;

    spoke_cat_start(&respondent, "--respondent", "-X", in_directory("s"), "-A");
    spoke_cat(&surveyor, "--surveyor", "-x", in_directory("s"), "-D", "anybody", "-A");
    ASSERT_STATUS(surveyor, 0);
    cr_assert_str_empty(surveyor.out);
    cr_assert_str_empty(surveyor.err);
    program_clear(&surveyor);
    spoke_cat(&surveyor, "--surveyor", "-x", in_directory("s"), "-D", "anybody", "-i", "0.1", "-C",
              "3");
    ASSERT_STATUS(surveyor, 0);
    cr_assert(prints(&respondent, "anybody\nanybody\nanybody\nanybody\n"), "%s", respondent.out);
    program_clear(&surveyor);
    program_clear(&respondent);
}

Test(cat, surveyor_sends_a_line_each_survey)
{
    struct program p;

    shell(&p, "$CAT --respondent -X $DIR/s -D ok >/dev/null & server=$!;"
              "printf 'one\ntwo' | $CAT --surveyor -x $DIR/s --line --recv-timeout 5; "
              "echo $?; kill $server");
    cr_assert_str_eq(p.out, "ok\nok\n0\n", "%s", p.out);
    program_clear(&p);
}

Test(cat, surveyor_has_to_have_something_to_ask_and_somebody_to_ask)
{
    struct program p;

    spoke_cat(&p, "--surveyor", "-x", in_directory("s"));
    ASSERT_STATUS(p, 1);
    ASSERT_SAID(p, "has to send something");
    program_clear(&p);
    spoke_cat(&p, "--surveyor", "-x", in_directory("s"), "-D", "who", "--send-timeout", "0.1");
    ASSERT_STATUS(p, 3);
    ASSERT_SAID(p, "nobody connected within 0.1 s");
    program_clear(&p);
}

/* ---- strangers ---- */

struct one_way_case {
    char program[8], transport[4], ours[8], theirs[8];
    bool we_bind;
};

ParameterizedTestParameters(cat, goes_one_way_with_strangers)
{
    static const char *const types[4][2] = {
        {"--push", "--pull"}, {"--pull", "--push"}, {"--pub", "--sub"}, {"--sub", "--pub"}};
    static struct one_way_case cases[32];
    size_t count = 0;

    for (unsigned i = 0; i < 32; i++) {
        struct one_way_case *c = &cases[count++];
        strcpy(c->program, i & 1 ? "nngcat" : "nanocat");
        strcpy(c->transport, i & 2 ? "tcp" : "ipc");
        c->we_bind = (i & 4) != 0;
        strcpy(c->ours, types[i / 8][0]);
        strcpy(c->theirs, types[i / 8][1]);
    }
    return cr_make_param_array(struct one_way_case, cases, count, NULL);
}

struct interop_case {
    char program[8];
    char transport[4];
    char pattern[4]; /* "rep", "res": the stranger answers; "req", "sur": it asks; "par": a pair */
    bool we_bind;
};

ParameterizedTestParameters(cat, gets_on_with_strangers)
{
    static const char *const patterns[] = {"rep", "req", "par", "res", "sur"};
    static struct interop_case cases[40];
    size_t count = 0;

    for (int program = 0; program < 2; program++) {
        for (int transport = 0; transport < 2; transport++) {
            for (int pattern = 0; pattern < 5; pattern++) {
                for (int we_bind = 0; we_bind < 2; we_bind++) {
                    struct interop_case *c = &cases[count++];
                    strcpy(c->program, program == 0 ? "nanocat" : "nngcat");
                    strcpy(c->transport, transport == 0 ? "ipc" : "tcp");
                    strcpy(c->pattern, patterns[pattern]);
                    c->we_bind = we_bind == 1;
                }
            }
        }
    }
    return cr_make_param_array(struct interop_case, cases, count, NULL);
}

/* Wait until a program has printed this line, once or again and again, and no other. */
static bool
prints_often(struct program *p, const char *line)
{
    size_t size = strlen(line);
    const char *at;

    for (int i = 0; i < 3000 * SPOKE_TEST_SLOWDOWN; i++) {
        program_look(p);
        for (at = p->out; strncmp(at, line, size) == 0; at += size)
            continue;
        if (at > p->out && *at == '\0')
            return true;
        usleep(10000);
    }
    return false;
}

static void
talk_to_stranger(const char *program, const char *type, const char *url, bool we_bind,
                 const char *our_type)
{
    const char *compat = program[1] == 'n' ? "--compat" : NULL;
    /* A survey is for those who are there, and for who answers in time: it is repeated. */
    const char *again = strcmp(type, "--surveyor") == 0 ? "--interval=2" : NULL;
    const char *our_again = strcmp(our_type, "--surveyor") == 0 ? "--interval=2" : NULL;
    struct program stranger, ours;

    /* Neither ends before both have printed: nanomsg forgets what it has not read when its peer
     * goes. */
    const char *theirs[12] = {program,     type, we_bind ? "--connect" : "--bind", url, "--data",
                              "from them", "-Q"};
    theirs[7] = again != NULL ? again : compat;
    theirs[8] = again != NULL ? compat : NULL;
    program_start_argv(&stranger, false, theirs);
    spoke_cat_start(&ours, our_type, we_bind ? "--bind" : "--connect", url, "--data", "from us",
                    "-Q", our_again);
    cr_assert(prints_often(&ours, "\"from them\"\n"), "we printed: %s%s", ours.out, ours.err);
    cr_assert(prints_often(&stranger, "\"from us\"\n"), "the stranger printed: %s%s", stranger.out,
              stranger.err);
    program_clear(&stranger);
    program_clear(&ours);
}

ParameterizedTest(struct interop_case *c, cat, gets_on_with_strangers)
{
    char url[128];
    bool is_nng = strcmp(c->program, "nngcat") == 0;

    if (!is_installed(c->program))
        cr_skip_test("%s is not installed", c->program);
    if (strcmp(c->transport, "ipc") == 0)
        snprintf(url, sizeof url, "%s", ipc_in_directory("s"));
    else
        snprintf(url, sizeof url, "tcp://127.0.0.1:%s", free_port());
    if (strcmp(c->pattern, "rep") == 0)
        talk_to_stranger(c->program, "--rep", url, c->we_bind, "--req");
    else if (strcmp(c->pattern, "req") == 0)
        talk_to_stranger(c->program, "--req", url, c->we_bind, "--rep");
    else if (strcmp(c->pattern, "res") == 0)
        talk_to_stranger(c->program, "--respondent", url, c->we_bind, "--surveyor");
    else if (strcmp(c->pattern, "sur") == 0)
        talk_to_stranger(c->program, "--surveyor", url, c->we_bind, "--respondent");
    else
        talk_to_stranger(c->program, is_nng ? "--pair0" : "--pair", url, c->we_bind, "--pair");
}

/* Who sends repeats it: whether its first message finds us connected is theirs to know. */
ParameterizedTest(struct one_way_case *c, cat, goes_one_way_with_strangers)
{
    const char *sends[] = {"--data", "hello", "--interval", "1"}, *prints_it[] = {"-Q"};
    bool we_send = strcmp(c->ours, "--push") == 0 || strcmp(c->ours, "--pub") == 0;
    const char *compat = strcmp(c->program, "nngcat") == 0 ? "--compat" : NULL;
    struct program ours, stranger;
    char url[128];

    if (!is_installed(c->program))
        cr_skip_test("%s is not installed", c->program);
    if (strcmp(c->transport, "ipc") == 0)
        snprintf(url, sizeof url, "%s", ipc_in_directory("s"));
    else
        snprintf(url, sizeof url, "tcp://127.0.0.1:%s", free_port());
    const char *ours_argv[12] = {SPOKE_TOOL, "cat", c->ours, c->we_bind ? "--bind" : "--connect",
                                 url};
    const char *theirs_argv[12] = {c->program, c->theirs, c->we_bind ? "--connect" : "--bind", url};
    memcpy(we_send ? ours_argv + 5 : theirs_argv + 4, sends, sizeof sends);
    memcpy(we_send ? theirs_argv + 4 : ours_argv + 5, prints_it, sizeof prints_it);
    theirs_argv[we_send ? 5 : 8] = compat;
    program_start_argv(&stranger, false, theirs_argv);
    program_start_argv(&ours, true, ours_argv);
    struct program *printer = we_send ? &stranger : &ours;
    bool heard = false;
    for (int i = 0; i < 3000 * SPOKE_TEST_SLOWDOWN && !heard; i++) {
        usleep(10000);
        program_look(printer);
        heard = strstr(printer->out, "\"hello\"\n") == printer->out;
    }
    cr_assert(heard, "printed: %s%s%s", printer->out, ours.err, stranger.err);
    program_clear(&stranger);
    program_clear(&ours);
}
