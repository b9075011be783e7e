/* SPDX-License-Identifier: MIT */
/* The program spoke: a table of subcommands.  Each has a file of its own. */
#include "tool.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
};

static int help_main(int argc, char **argv);

static const struct command commands[] = {
    {"bench", bench_main, "measure it beside the raw kernel and other libraries"},
    {"cat", cat_main, "send and receive messages from the shell"},
    {"demo", demo_main, "see it work in less than two minutes"},
    {"device", device_main, "pass messages on between two addresses"},
    {"doctor", doctor_main, "say what this machine offers, and what to change"},
    {"gateway", gateway_main, "carry byte streams from one address to another"},
    {"help", help_main, "explain one command: spoke help cat"},
    {"mux", mux_main, "forward ports over one connection"},
};
#define COMMAND_COUNT (sizeof commands / sizeof *commands)

static void
print_help(FILE *to)
{
    fprintf(to, "usage: spoke COMMAND [OPTION …]\n\n"
                "Scalability Protocols over one io_uring engine: requests, replies and messages\n"
                "between threads, processes and machines, as nanomsg and NNG speak them.\n\n"
                "Commands (each may be cut to a unique prefix):\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].about);
    fprintf(to, "\nOptions:\n  -h, --help\n  --version\n");
}

/* Give the one command that `text` means, or NULL after saying why there is none. */
static const struct command *
find_command(const char *text)
{
    const struct command *found = NULL;
    char names[128] = "";
    size_t used = 0, matches = 0;

    for (size_t i = 0; i < COMMAND_COUNT && used < sizeof names; i++) {
        if (strcmp(commands[i].name, text) == 0)
            return &commands[i];
        if (*text == '\0' || strncmp(commands[i].name, text, strlen(text)) != 0)
            continue;
        matches++;
        found = &commands[i];
        used += (size_t)snprintf(names + used, sizeof names - used, " %s", found->name);
    }
    if (matches == 0)
        tool_error("there is no command \"%s\": spoke --help lists them", text);
    else if (matches > 1)
        tool_error("\"%s\" could be any of%s: write more of it", text, names);
    return matches == 1 ? found : NULL;
}

static int
run_command(int argc, char **argv)
{
    const struct command *command = find_command(argv[0]);
    static char name[32]; /* tool_name needs it to the end */

    if (command == NULL)
        return TOOL_USAGE;
    snprintf(name, sizeof name, "spoke %s", command->name);
    tool_name = name;
    return command->run(argc, argv);
}

static int
help_main(int argc, char **argv)
{
    char *words[] = {argv[1], "--help", NULL};

    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        tool_error("help explains one command: spoke help COMMAND");
        return TOOL_USAGE;
    }
    if (argc == 2 && strcmp(argv[1], "help") != 0)
        return run_command(2, words);
    print_help(stdout);
    return tool_finish_output();
}

/* A standard descriptor that is closed would be the next one that we open: then what is meant for
 * it would go astray.  These give EBADF instead. */
static void
hold_standard_descriptors(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
            _exit(TOOL_FILE);
    }
}

int
main(int argc, char **argv)
{
    const char *called = argc > 0 ? argv[0] : "spoke";
    const char *slash = strrchr(called, '/');

    hold_standard_descriptors();
    /* As nanocat's do, a link named nn_req is `spoke cat --req`. */
    if (slash != NULL)
        called = slash + 1;
    if (strncmp(called, "nn_", 3) == 0) {
        tool_name = called;
        return cat_main(argc, argv);
    }
    if (argc < 2) {
        print_help(stderr);
        return TOOL_USAGE;
    }
    if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
        print_help(stdout);
        return tool_finish_output();
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("spoke %s\n", spoke_version());
        return tool_finish_output();
    }
    if (argv[1][0] == '-') {
        tool_error("there is no option %s: options follow the command, see spoke --help", argv[1]);
        return TOOL_USAGE;
    }
    return run_command(argc - 1, argv + 1);
}
