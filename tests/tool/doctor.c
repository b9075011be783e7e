/* SPDX-License-Identifier: MIT */
/* spoke, spoke doctor and spoke demo from the outside. */
#include <ctype.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/test.h"
#include "tests/tool/program.h"

TestSuite(tool, .init = test_directory_make, .fini = test_directory_remove);
TestSuite(doctor, .init = test_directory_make, .fini = test_directory_remove);
TestSuite(demo, .init = test_directory_make, .fini = test_directory_remove);

#define tool(P, ...) program_run_argv(P, PROGRAM_ARGV(SPOKE_TOOL, __VA_ARGS__))

/* ---- a strict reader of JSON: gives what follows a value, or NULL ---- */

static const char *read_value(const char *at);

static const char *
skip_space(const char *at)
{
    return at + strspn(at, " \n\r\t");
}

static const char *
read_string(const char *at)
{
    if (*at++ != '"')
        return NULL;
    while (*at != '"') {
        if ((unsigned char)*at < 0x20)
            return NULL;
        if (*at++ != '\\')
            continue;
        if (*at == 'u' && strspn(at + 1, "0123456789abcdefABCDEF") < 4)
            return NULL;
        if (strchr("\"\\/bfnrtu", *at) == NULL)
            return NULL;
        at++;
    }
    return at + 1;
}

static const char *
read_number(const char *at)
{
    size_t digits;

    at += *at == '-';
    digits = strspn(at, "0123456789");
    if (digits == 0 || (digits > 1 && *at == '0'))
        return NULL;
    at += digits;
    if (*at != '.')
        return at;
    digits = strspn(at + 1, "0123456789");
    return digits > 0 ? at + 1 + digits : NULL;
}

/* An object's members or an array's elements, after the opening bracket. */
static const char *
read_list(const char *at, char close)
{
    at = skip_space(at);
    if (*at == close)
        return at + 1;
    for (;;) {
        if (close == '}') {
            if ((at = read_string(skip_space(at))) == NULL || *(at = skip_space(at)) != ':')
                return NULL;
            at++;
        }
        if ((at = read_value(at)) == NULL)
            return NULL;
        at = skip_space(at);
        if (*at == close)
            return at + 1;
        if (*at++ != ',')
            return NULL;
    }
}

static const char *
read_value(const char *at)
{
    static const char *const words[] = {"true", "false", "null"};

    at = skip_space(at);
    for (size_t i = 0; i < 3; i++) {
        if (strncmp(at, words[i], strlen(words[i])) == 0)
            return at + strlen(words[i]);
    }
    if (*at == '{')
        return read_list(at + 1, '}');
    if (*at == '[')
        return read_list(at + 1, ']');
    return *at == '"' ? read_string(at) : read_number(at);
}

static bool
is_json(const char *text)
{
    const char *end = read_value(text);

    return end != NULL && *skip_space(end) == '\0';
}

/* The number that follows "name": , or -1. */
static double
number_of(const char *text, const char *name)
{
    char key[64];
    const char *at;

    snprintf(key, sizeof key, "\"%s\": ", name);
    at = strstr(text, key);
    return at == NULL || !isdigit((unsigned char)at[strlen(key)]) ? -1 : atof(at + strlen(key));
}

/* ---- spoke ---- */

Test(tool, lists_its_commands)
{
    static const char *const names[] = {"bench", "cat", "demo", "doctor", "help"};
    struct program p;

    tool(&p, "--help");
    cr_assert_eq(p.status, 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        cr_assert_not_null(strstr(p.out, names[i]));
    program_clear(&p);
}

Test(tool, explains_each_command)
{
    static const char *const names[] = {"bench", "cat", "demo", "doctor"};
    struct program p;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char usage[32];
        snprintf(usage, sizeof usage, "usage: spoke %s ", names[i]);
        tool(&p, names[i], "--help");
        cr_assert_eq(p.status, 0);
        cr_assert_eq(strncmp(p.out, usage, strlen(usage)), 0, "%s", p.out);
        program_clear(&p);
        tool(&p, "help", names[i]);
        cr_assert_eq(p.status, 0);
        cr_assert_eq(strncmp(p.out, usage, strlen(usage)), 0, "%s", p.out);
        program_clear(&p);
    }
}

Test(tool, takes_a_unique_prefix_of_a_command)
{
    struct program p;

    tool(&p, "c", "--version");
    cr_assert_eq(p.status, 0);
    program_clear(&p);
    tool(&p, "d", "--version");
    cr_assert_eq(p.status, 1);
    cr_assert_not_null(strstr(p.err, "could be any of demo device doctor"));
    program_clear(&p);
}

Test(tool, refuses_what_it_does_not_know)
{
    struct program p;

    tool(&p, "nothing");
    cr_assert_eq(p.status, 1);
    cr_assert_not_null(strstr(p.err, "no command \"nothing\""));
    program_clear(&p);
    tool(&p, "--nothing");
    cr_assert_eq(p.status, 1);
    cr_assert_not_null(strstr(p.err, "no option --nothing"));
    program_clear(&p);
    program_run_argv(&p, PROGRAM_ARGV(SPOKE_TOOL));
    cr_assert_eq(p.status, 1);
    cr_assert_eq(strncmp(p.err, "usage: spoke ", 13), 0);
    program_clear(&p);
}

/* ---- doctor ---- */

Test(doctor, tells_people_about_the_machine)
{
    struct program p;

    tool(&p, "doctor");
    cr_assert_eq(p.status, 0, "%s", p.err);
    cr_assert_not_null(strstr(p.out, "backend chosen"));
    cr_assert_not_null(strstr(p.out, "waking a thread"));
    cr_assert_not_null(strstr(p.out, "\nAdvice\n  "));
    cr_assert_not_null(strstr(p.out, "\n  huge pages "), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "\n  NUMA nodes "), "%s", p.out);
    cr_assert_null(strstr(p.out, "DOES NOT WORK"), "%s", p.out);
    program_clear(&p);
}

Test(doctor, tells_programs_about_the_machine)
{
    struct program p;
    double block_us, spin_us;

    tool(&p, "doctor", "--json");
    cr_assert_eq(p.status, 0, "%s", p.err);
    cr_assert(is_json(p.out), "%s", p.out);
    cr_assert_gt(number_of(p.out, "futex_wake_us"), 0);
    cr_assert_gt(number_of(p.out, "eventfd_wake_us"), 0);
    cr_assert_eq((long)number_of(p.out, "online"), sysconf(_SC_NPROCESSORS_ONLN));
    /* There is one, or a reason. */
    cr_assert_eq(number_of(p.out, "huge_page_bytes") > 0,
                 strstr(p.out, "\"why_no_huge_page\": null") != NULL, "%s", p.out);
    block_us = number_of(p.out, "unix_round_trip_block_us");
    spin_us = number_of(p.out, "unix_round_trip_spin_us");
    cr_assert_gt(block_us, 0);
    if (spin_us > 0 && spin_us < block_us)
        cr_assert_float_eq(number_of(p.out, "break_even_us"), (block_us - spin_us) / 2, 0.01);
    program_clear(&p);
}

Test(doctor, says_why_there_are_no_huge_pages)
{
    struct program p;

    cr_assert_eq(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0); /* as a program may inherit it */
    tool(&p, "doctor");
    cr_assert_eq(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0), 0);
    cr_assert_eq(p.status, 0, "%s", p.err);
    cr_assert_not_null(strstr(p.out, "huge pages             none: "), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "(option shm-huge-pages)\n"), "%s", p.out);
    program_clear(&p);
}

Test(doctor, says_what_the_environment_asks_for)
{
    struct program p;

    setenv("SPOKE_BACKEND", "poll", 1);
    setenv("SPOKE_WAIT", "block", 1);
    tool(&p, "doctor", "--json");
    cr_assert_eq(p.status, 0, "%s", p.err);
    cr_assert(is_json(p.out), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "\"backend\": \"poll\""));
    cr_assert_not_null(strstr(p.out, "\"policy\": \"block\""), "%s", p.out);
    program_clear(&p);
}

Test(doctor, says_when_the_environment_asks_for_nonsense)
{
    struct program p;

    setenv("SPOKE_WAIT", "block\"\xff", 1);
    tool(&p, "doctor", "--json");
    cr_assert_eq(p.status, 0, "%s", p.err);
    cr_assert(is_json(p.out), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "\"policy\": \"adaptive\""), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "SPOKE_WAIT is \\\"block\\\"\\u00ff\\\", which is no"), "%s",
                       p.out);
    program_clear(&p);
    unsetenv("SPOKE_WAIT");
    setenv("SPOKE_BACKEND", "epoll", 1);
    tool(&p, "doctor");
    cr_assert_eq(p.status, 3);
    cr_assert_not_null(strstr(p.out, "SPOKE_BACKEND is \"epoll\", and there is no such backend: "
                                     "unset SPOKE_BACKEND, or set it to uring or poll\n"),
                       "%s", p.out);
    cr_assert_null(strstr(p.out, "look at the limits"), "%s", p.out);
    program_clear(&p);
    tool(&p, "cat", "--pair", "-X", in_directory("s"));
    cr_assert_eq(p.status, 3);
    cr_assert_not_null(strstr(p.err, "unset SPOKE_BACKEND, or set it to uring or poll"), "%s",
                       p.err);
    program_clear(&p);
}

Test(doctor, one_cpu_means_no_spinning)
{
    struct program p;

    if (!is_installed("taskset"))
        cr_skip_test("taskset is not installed");
    shell(&p, "taskset -c $(taskset -cp $$ | sed 's/.*: //; s/[-,].*//') $SPOKE doctor");
    cr_assert_eq(p.status, 0, "%s", p.err);
    cr_assert_not_null(strstr(p.out, "with one CPU it never spins"), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "there is one CPU"), "%s", p.out);
    cr_assert_null(strstr(p.out, "both sides spin"), "%s", p.out);
    program_clear(&p);
}

#define ANY 0

/* From here on this process, and what it starts, gets `error` from this system call, if its second
 * argument is `second`. */
static void
deny(unsigned call, unsigned second, unsigned error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | (second == ANY ? BPF_JGE : BPF_JEQ) | BPF_K, second, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};

    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        cr_skip_test("seccomp filters cannot be set here");
}

#define ALLOWING_PROFILE                                                                           \
    "run the container with a seccomp profile that allows io_uring_setup, io_uring_enter and "     \
    "io_uring_register"

static int
count_of(const char *text, const char *part)
{
    int count = 0;

    while ((text = strstr(text, part)) != NULL) {
        text += strlen(part);
        count++;
    }
    return count;
}

/* What doctor says where a filter answers io_uring_setup() with `error`: to people and to programs
 * the same reason and the one change that lifts it, and that the library works all the same. */
static void
expect_the_filter_named(unsigned error, const char *reason)
{
    char advice[512];
    struct program p;

    deny(SYS_io_uring_setup, ANY, error);
    unsetenv("SPOKE_BACKEND");
    tool(&p, "doctor");
    cr_assert_eq(p.status, 0, "%s", p.err);
    snprintf(advice, sizeof advice, "available              no: %s\n", strerror((int)error));
    cr_assert_not_null(strstr(p.out, advice), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "seccomp                a filter\n"), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "chosen         poll: "), "%s", p.out);
    snprintf(advice, sizeof advice, "\n  %s: " ALLOWING_PROFILE "\n", reason);
    cr_assert_not_null(strstr(p.out, advice), "%s", p.out);
    cr_assert_eq(count_of(strstr(p.out, "\nAdvice\n"), "io_uring_setup"), 1, "%s", p.out);
    program_clear(&p);

    tool(&p, "doctor", "--json");
    cr_assert_eq(p.status, 0, "%s", p.err);
    cr_assert(is_json(p.out), "%s", p.out);
    snprintf(advice, sizeof advice, "\"io_uring\": {\"available\": false, \"error\": \"%s\"",
             strerror((int)error));
    cr_assert_not_null(strstr(p.out, advice), "%s", p.out);
    cr_assert_eq(number_of(p.out, "seccomp_mode"), 2, "%s", p.out);
    cr_assert_not_null(strstr(p.out, "\"provided_buffers\": false"), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "\"backend\": \"poll\", \"backend_error\": null"), "%s",
                       p.out);
    cr_assert_null(strstr(p.out, "\"why_not_uring\": null"), "%s", p.out);
    snprintf(advice, sizeof advice, "{\"problem\": \"%s\", \"change\": \"" ALLOWING_PROFILE "\"}",
             reason);
    cr_assert_not_null(strstr(p.out, advice), "%s", p.out);
    cr_assert_eq(count_of(p.out, "io_uring_setup"), 1, "%s", p.out);
    program_clear(&p);

    setenv("SPOKE_BACKEND", "uring", 1);
    tool(&p, "doctor");
    cr_assert_eq(p.status, 3);
    cr_assert_not_null(strstr(p.out, "unset SPOKE_BACKEND"), "%s", p.out);
    cr_assert_null(strstr(p.out, "socket or transport"), "%s", p.out);
    program_clear(&p);
    tool(&p, "doctor", "--json");
    cr_assert_eq(p.status, 3);
    cr_assert(is_json(p.out), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "\"backend\": null, \"backend_error\": \""), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "unset SPOKE_BACKEND"), "%s", p.out);
    program_clear(&p);
}

Test(doctor, names_the_seccomp_filter_that_denies_io_uring)
{
    expect_the_filter_named(
        EPERM, "a seccomp filter denies io_uring, as the default profiles of containers do");
}

Test(doctor, names_the_seccomp_filter_that_hides_io_uring)
{
    expect_the_filter_named(ENOSYS, "a seccomp filter hides io_uring");
}

/* Whether this kernel lists it, after somebody has asked for it. */
static bool
kernel_lists_tls(void)
{
    char line[256] = "";
    FILE *file = fopen("/proc/sys/net/ipv4/tcp_available_ulp", "re");

    if (file == NULL)
        cr_skip_test("the kernel does not list its upper layer protocols");
    if (fgets(line, sizeof line, file) == NULL)
        line[0] = '\0';
    fclose(file);
    for (const char *word = strtok(line, " \n"); word != NULL; word = strtok(NULL, " \n"))
        if (strcmp(word, "tls") == 0)
            return true;
    return false;
}

Test(doctor, says_whether_the_kernel_has_tls)
{
    bool there;
    struct program p;

    tool(&p, "doctor", "--json");
    cr_assert_eq(p.status, 0, "%s", p.err);
    there = kernel_lists_tls();
    cr_assert_not_null(strstr(p.out, there
                                         ? "\"kernel_tls\": {\"available\": true, \"error\": null}"
                                         : "\"kernel_tls\": {\"available\": false, \"error\": \""),
                       "%s", p.out);
    program_clear(&p);
}

/* A kernel that has it says that the socket is not connected; everything else means no. */
Test(doctor, tells_a_kernel_with_tls_from_one_that_refuses_it)
{
    struct program p;

    deny(SYS_setsockopt, IPPROTO_TCP, ENOTCONN);
    tool(&p, "doctor");
    cr_assert_eq(p.status, 0, "%s", p.err);
    cr_assert_not_null(strstr(p.out, "\nTLS\n  in the kernel          there; "), "%s", p.out);
    program_clear(&p);
    deny(SYS_setsockopt, IPPROTO_TCP, EACCES); /* of two filters the last one's answer counts */
    tool(&p, "doctor");
    cr_assert_eq(p.status, 0, "%s", p.err);
    cr_assert_not_null(strstr(p.out, "\nTLS\n  in the kernel          none: Permission denied; "),
                       "%s", p.out);
    program_clear(&p);
}

/* The backend that somebody chose does not hide what the machine has; what is missing has a reason.
 */
Test(doctor, tells_of_features_also_when_another_backend_runs)
{
    struct program p;

    tool(&p, "doctor");
    if (strstr(p.out, "available              yes") == NULL)
        cr_skip_test("there is no io_uring here");
    cr_assert_not_null(strstr(p.out, "provided_buffers       there: "), "%s", p.out);
    program_clear(&p);
    setenv("SPOKE_BACKEND", "poll", 1);
    tool(&p, "doctor");
    cr_assert_not_null(strstr(p.out, "provided_buffers       there: "), "%s", p.out);
    program_clear(&p);
    unsetenv("SPOKE_BACKEND");
    deny(SYS_io_uring_register, 22, EPERM); /* provided buffers */
    tool(&p, "doctor");
    cr_assert_eq(p.status, 0, "%s", p.err);
    cr_assert_not_null(strstr(p.out, "missing: this kernel has it, so a seccomp filter"), "%s",
                       p.out);
    cr_assert_not_null(strstr(p.out, "seccomp profile that allows io_uring_setup"), "%s", p.out);
    program_clear(&p);
}

Test(tool, a_full_disk_is_told_by_every_page)
{
    static const char *const commands[] = {"--help",     "--version",       "help",  "help cat",
                                           "cat --help", "bench --version", "doctor"};
    char command[64];
    struct program p;

    if (access("/dev/full", W_OK) != 0)
        cr_skip_test("there is no /dev/full");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        snprintf(command, sizeof command, "$SPOKE %s >/dev/full", commands[i]);
        shell(&p, command);
        cr_expect_eq(p.status, 2, "%s: %d", commands[i], p.status);
        cr_expect_not_null(strstr(p.err, "cannot write to standard output: No space left"),
                           "%s: %s", commands[i], p.err);
        program_clear(&p);
    }
}

Test(doctor, few_descriptors_are_a_problem_with_one_remedy)
{
    struct program p;

    shell(&p, "ulimit -Sn 256; $SPOKE doctor");
    cr_assert_eq(p.status, 0, "%s", p.err);
    cr_assert_not_null(strstr(p.out, "only 256 descriptors"), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "ulimit -n"), "%s", p.out);
    program_clear(&p);
}

/* The limit holds for who may not lock memory at will, so root steps down. */
Test(doctor, little_locked_memory_is_a_problem_with_one_remedy)
{
    struct program p;

    unsetenv("SPOKE_BACKEND"); /* its own choice is what the limit changes */
    shell(&p, "as=; test $(id -u) != 0 || as='setpriv --reuid 65534 --clear-groups';"
              "$as test -x $SPOKE || exit 77; ulimit -l 8; $as $SPOKE doctor");
    if (p.status == 77)
        cr_skip_test("nobody but root can run the program here");
    cr_assert_eq(p.status, 0, "%s", p.err);
    if (strstr(p.out, "chosen         uring") != NULL || strstr(p.out, "a filter") != NULL)
        cr_skip_test("io_uring does not count as locked memory here, or is denied");
    cr_assert_not_null(strstr(p.out, "chosen         poll: "), "%s", p.out);
    cr_assert_not_null(strstr(p.out, "may lock: ulimit -l 8192 or more"), "%s", p.out);
    cr_assert_null(strstr(p.out, "run Linux"), "%s", p.out);
    program_clear(&p);
}

/* ---- demo ---- */

Test(demo, shows_processes_that_talk_and_leaves_nothing)
{
    char directory[] = "/tmp/spoke-demo-XXXXXX";
    struct program p;
    const char *at;

    tool(&p, "demo", "--no-bench");
    cr_assert_eq(p.status, 0, "%s%s", p.out, p.err);
    cr_assert_not_null(strstr(p.out, "three requests, three replies"));
    cr_assert_not_null(strstr(p.out, "nanocat"));
    cr_assert_not_null(at = strstr(p.out, "/tmp/spoke-demo-"));
    memcpy(directory, at, strlen(directory));
    cr_assert_neq(access(directory, F_OK), 0, "%s is left", directory);
    program_clear(&p);
}

Test(demo, goes_without_nanocat)
{
    struct program p;

    setenv("PATH", test_directory, 1);
    program_run_argv(&p, PROGRAM_ARGV(SPOKE_TOOL, "demo", "--no-bench"));
    cr_assert_eq(p.status, 0, "%s%s", p.out, p.err);
    cr_assert_not_null(strstr(p.out, "nanocat is not installed"));
    program_clear(&p);
    setenv("PATH", "/usr/bin:/bin", 1); /* for .fini */
}

/* Goal: a peer that hangs ends the demo with a failure, in bounded time, and is ended itself. */
Test(demo, fails_when_the_other_program_does, .timeout = 150)
{
    struct program p;

    shell(&p, "printf '#!/bin/sh\\necho \"broken\"\\n' >$DIR/nanocat; chmod +x $DIR/nanocat; "
              "PATH=$DIR:$PATH $SPOKE demo --no-bench");
    cr_assert_eq(p.status, 3, "%s%s", p.out, p.err);
    cr_assert_not_null(strstr(p.out, "that is not what was to be received"), "%s", p.out);
    program_clear(&p);
    shell(&p, "printf '#!/bin/sh\\nexec sleep 1000\\n' >$DIR/nanocat; PATH=$DIR:$PATH timeout 55 "
              "$SPOKE demo --no-bench");
    cr_assert_eq(p.status, 3, "%s%s", p.out, p.err);
    cr_assert_not_null(strstr(p.out, "no answer within ten seconds"), "%s", p.out);
    program_clear(&p);
}
