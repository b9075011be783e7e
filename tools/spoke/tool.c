/* SPDX-License-Identifier: MIT */
/* What the subcommands share.  No state but the name and the quiet flag, both set before threads
 * start. */
#include "tool.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define OPTIONS_MAX 64 /* in one table, headings not counted */
#define HELP_COLUMN 30 /* where the explanations of --help begin */

enum { ID_HELP = INT_MAX, ID_VERSION = INT_MAX - 1 };

const char *tool_name = "spoke";
bool tool_quiet;

static const struct tool_option common_options[] = {
    {NULL, 0, NULL, "Help", 0},
    {"help", 'h', NULL, "this text", ID_HELP},
    {"version", 0, NULL, "the version", ID_VERSION},
    {0},
};

struct advice {
    int error;
    const char *scheme; /* of the URL that it holds for; NULL: any */
    const char *text;
};

/* The first line that fits is taken. */
static const struct advice advice_table[] = {
    {SPOKE_EURL, "tcp", "write it as tcp://HOST:PORT, with a port up to 65535"},
    {SPOKE_EURL, "ipc", "write it as ipc://PATH or ipc://@NAME"},
    {SPOKE_EURL, NULL, "write it as tcp://HOST:PORT or ipc://PATH"},
    {SPOKE_ESCHEME, NULL,
     "this version has tcp://HOST:PORT, tls+tcp://HOST:PORT, ws://HOST:PORT/PATH, "
     "wss://HOST:PORT/PATH and ipc://PATH"},
    {SPOKE_EADDRINUSE, "tcp",
     "stop the program that listens there (ss -ltnp shows it) or take another port"},
    {SPOKE_EADDRINUSE, "ipc",
     "stop the program that listens there (ss -lxp shows it) or take another path"},
    {SPOKE_EADDRINUSE, NULL, "take another name"},
    {SPOKE_EACCES, "tcp", "ports below 1024 need privileges: take a higher one"},
    {SPOKE_EACCES, "ipc", "look at the permissions of the socket file and of its directory"},
    {SPOKE_ENOENT, "ipc", "create the directory first"},
    {SPOKE_ENOTSOCK, NULL, "move that file away or take another path; it has not been touched"},
    {SPOKE_EADDRNOTAVAIL, NULL,
     "take an address of this machine (ip address shows them) or * for all"},
    {SPOKE_EHOST, NULL, "check the name, or give the address as a number"},
    {SPOKE_ENODEV, NULL, "take an interface of this machine (ip link shows them)"},
    {SPOKE_ENAMETOOLONG, NULL,
     "a socket's path has at most 107 bytes: take a shorter or a relative one"},
    {SPOKE_EMFILE, NULL, "raise the limit (ulimit -n) or close something"},
    {SPOKE_ENOMEM, NULL, "free some memory or raise the limit of this process"},
    {SPOKE_EPERM, NULL, "spoke doctor says why"},
    {SPOKE_ENOTSUP, NULL,
     "unset SPOKE_BACKEND, or set it to uring or poll; spoke doctor says what works here"},
    {SPOKE_ELIMIT, NULL,
     "raise the limits on threads, memory and the size of files (ulimit -u, -v, -f)"},
    {SPOKE_EPEER, NULL,
     "the other side must be this one's counterpart: req and rep, pair and pair (which NNG calls "
     "pair0: its pair is pair1)"},
    {SPOKE_EHANDSHAKE, NULL, "look at what listens at that address"},
    {SPOKE_ENOTLSCONFIG, NULL, "give a certificate with --cert and --key"},
    {SPOKE_ENOCERT, NULL, "give one with --cert and --key"},
    {SPOKE_EBADCERT, NULL, "look whether they are PEM, and of each other"},
    {SPOKE_ETLS, NULL, "look whether that address speaks TLS 1.2 or 1.3"},
    {SPOKE_ECERTEXPIRED, NULL, "renew it at the other side, and look at both clocks"},
    {SPOKE_ECERTEARLY, NULL, "look at both clocks"},
    {SPOKE_ECERTNAME, NULL, "use the name that is in it"},
    {SPOKE_ECERTISSUER, NULL, "give its authority with --cacert, if you trust that"},
    {SPOKE_ECERTSELF, NULL, "give it with --cacert, if you trust it"},
    {SPOKE_ECERTNONE, NULL, "the other side has to give one with --cert"},
    {SPOKE_ECERTREFUSED, NULL, "the other side can say why"},
    {SPOKE_EMSGSIZE, NULL, "allow more with --recv-maxsz where it is received, or send less"},
    {0},
};

static bool
has_scheme(const char *url, const char *scheme)
{
    size_t size = strlen(scheme);

    return url != NULL && strncmp(url, scheme, size) == 0 && strncmp(url + size, "://", 3) == 0;
}

const char *
tool_advice(int error, const char *url)
{
    for (const struct advice *a = advice_table; a->error != 0; a++) {
        if (a->error == error && (a->scheme == NULL || has_scheme(url, a->scheme)))
            return a->text;
    }
    return NULL;
}

void
tool_error(const char *format, ...)
{
    va_list arguments;

    if (tool_quiet)
        return;
    va_start(arguments, format);
    flockfile(stderr);
    fprintf(stderr, "%s: ", tool_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(arguments);
}

int
tool_api_error(const char *what, const char *where, int error)
{
    const char *advice = tool_advice(error, where);

    tool_error("cannot %s%s%s: %s%s%s", what, where != NULL ? " " : "", where != NULL ? where : "",
               spoke_strerror(error), advice != NULL ? ": " : "", advice != NULL ? advice : "");
    return TOOL_API;
}

int
tool_output_error(int error)
{
    tool_error("cannot write to standard output: %s: look at where it goes", strerror(error));
    return TOOL_FILE;
}

int
tool_finish_output(void)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return TOOL_OK;
    return tool_output_error(errno != 0 ? errno : EIO);
}

bool
tool_seconds(const char *option, const char *text, spoke_ns *out)
{
    char *end;
    double seconds;

    errno = 0;
    seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(seconds) || seconds < 0 || seconds > 1e9) {
        tool_error("--%s wants a number of seconds, such as 1.5, not \"%s\"", option, text);
        return false;
    }
    *out = (spoke_ns)(seconds * 1e9);
    return true;
}

bool
tool_number(const char *option, const char *text, uint64_t max, uint64_t *out)
{
    char *end;
    unsigned long long number;

    errno = 0;
    number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || number > max) {
        if (max == UINT64_MAX)
            tool_error("--%s wants a whole number, 0 or more, not \"%s\"", option, text);
        else
            tool_error("--%s wants a whole number from 0 to %llu, not \"%s\"", option,
                       (unsigned long long)max, text);
        return false;
    }
    *out = number;
    return true;
}

spoke_ns
tool_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (spoke_ns)now.tv_sec * SPOKE_SECOND + now.tv_nsec;
}

spoke_ns
tool_deadline(spoke_ns after_ns)
{
    return after_ns == SPOKE_FOREVER ? SPOKE_FOREVER : tool_now() + after_ns;
}

int
tool_poll_ms(spoke_ns deadline)
{
    spoke_ns left;

    if (deadline == SPOKE_FOREVER)
        return -1;
    left = deadline - tool_now();
    if (left <= 0)
        return 0;
    return left / SPOKE_MS >= INT_MAX ? INT_MAX : (int)((left + SPOKE_MS - 1) / SPOKE_MS);
}

bool
tool_own_path(char *path, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", path, size - 1);

    if (length <= 0 || (size_t)length >= size - 1)
        return false;
    path[length] = '\0';
    return true;
}

static bool
is_end(const struct tool_option *o)
{
    return o->name == NULL && o->help == NULL;
}

static void
print_option(const struct tool_option *o)
{
    int width;

    if (o->name == NULL) {
        printf("\n%s:\n", o->help);
        return;
    }
    if (o->help == NULL)
        return;
    width = o->letter != 0 ? printf("  -%c, --%s", o->letter, o->name)
                           : printf("      --%s", o->name);
    if (o->argument != NULL)
        width += printf(" %s", o->argument);
    if (width > HELP_COLUMN - 2) {
        putchar('\n');
        width = 0;
    }
    printf("%*s%s\n", HELP_COLUMN - width, "", o->help);
}

static void
print_usage(const char *usage)
{
    const char *lead = "usage:";

    while (*usage != '\0') {
        size_t size = strcspn(usage, "\n");
        printf("%s %s %.*s\n", lead, tool_name, (int)size, usage);
        usage += size + (usage[size] == '\n');
        lead = "      ";
    }
}

static void
print_page(const struct tool_page *page)
{
    print_usage(page->usage);
    printf("\n%s\n", page->about);
    for (const struct tool_option *o = page->options; !is_end(o); o++)
        print_option(o);
    for (const struct tool_option *o = common_options; !is_end(o); o++)
        print_option(o);
    if (page->notes != NULL)
        printf("\n%s\n", page->notes);
}

/* getopt_long()'s two tables, from one of ours and the common one. */
struct tables {
    struct option longs[OPTIONS_MAX + 1];
    char shorts[2 * OPTIONS_MAX + 2];
    size_t long_count, short_count;
};

static void
add_options(struct tables *t, const struct tool_option *o)
{
    for (; !is_end(o); o++) {
        if (o->name == NULL || t->long_count == OPTIONS_MAX)
            continue;
        t->longs[t->long_count++] = (struct option){
            .name = o->name,
            .has_arg = o->argument != NULL ? required_argument : no_argument,
            .val = o->id,
        };
        if (o->letter == 0)
            continue;
        t->shorts[t->short_count++] = o->letter;
        if (o->argument != NULL)
            t->shorts[t->short_count++] = ':';
    }
}

static const struct tool_option *
find_letter(const struct tool_option *o, int letter)
{
    for (; !is_end(o); o++) {
        if (o->name != NULL && o->letter == letter)
            return o;
    }
    return NULL;
}

/* Give how many long names begin as `text` does, and print them into `names`. */
static int
matching(const struct tables *t, const char *text, size_t size, char *names, size_t names_size)
{
    int count = 0;
    size_t used = 0;

    for (size_t i = 0; i < t->long_count; i++) {
        if (strncmp(t->longs[i].name, text, size) != 0)
            continue;
        count++;
        if (used < names_size)
            used += (size_t)snprintf(names + used, names_size - used, " --%s", t->longs[i].name);
    }
    return count;
}

/* Say what getopt_long() did not like.  It leaves the letter in optopt, or, for a long name, the id
 * of one that was used wrongly and 0 for one that does not exist; `word` is that name as it was
 * written. */
static void
complain(const struct tables *t, const char *word, int result)
{
    char names[512] = "";
    size_t size = strcspn(word, "=");

    if (optopt != 0 && optopt < TOOL_FIRST_ID) {
        if (result == ':')
            tool_error("-%c needs a value: see %s --help", optopt, tool_name);
        else
            tool_error("there is no option -%c: see %s --help", optopt, tool_name);
    } else if (optopt != 0) {
        if (result == ':')
            tool_error("%s needs a value: see %s --help", word, tool_name);
        else
            tool_error("%.*s takes no value: see %s --help", (int)size, word, tool_name);
    } else if (matching(t, word + 2, size - 2, names, sizeof names) != 0) {
        tool_error("%.*s could be any of%s: write more of it", (int)size, word, names);
    } else {
        tool_error("there is no option %.*s: see %s --help", (int)size, word, tool_name);
    }
}

int
tool_next_option(struct tool_args *args)
{
    struct tables t = {.shorts = ":", .short_count = 1};
    const struct tool_option *option;
    int result;

    add_options(&t, args->page->options);
    add_options(&t, common_options);
    opterr = 0;
    result = getopt_long(args->argc, args->argv, t.shorts, t.longs, NULL);
    args->value = optarg;
    if (result == -1)
        return 0;
    if (result == '?' || result == ':') {
        complain(&t, args->argv[optind - 1], result);
        args->status = TOOL_USAGE;
        return -1;
    }
    if (result < TOOL_FIRST_ID) {
        if ((option = find_letter(args->page->options, result)) == NULL)
            option = find_letter(common_options, result);
        result = option->id;
    }
    if (result != ID_HELP && result != ID_VERSION)
        return result;
    if (result == ID_HELP)
        print_page(args->page);
    else
        printf("spoke %s\n", spoke_version());
    args->status = tool_finish_output();
    return -1;
}

bool
tool_obey_options(struct tool_args *args, tool_option_f *obey, void *request)
{
    int id;

    args->status = TOOL_USAGE;
    while ((id = tool_next_option(args)) > 0)
        if (!obey(request, id, args->value))
            return false;
    return id == 0;
}

struct tool_option *
tool_list_types(struct tool_option *all, const char *heading, const struct tool_type *type,
                size_t count, size_t stride, int first_id)
{
    *all++ = (struct tool_option){.help = heading};
    for (size_t i = 0; i < count; i++) {
        *all++ = (struct tool_option){
            .name = type->name,
            .help = type->help,
            .id = first_id + (int)i,
        };
        type = (const void *)((const char *)type + stride);
    }
    return all;
}

bool
tool_make_address(struct tool_address *address, int id, const char *value)
{
    bool is_path = id == TOOL_BIND_IPC || id == TOOL_CONNECT_IPC;
    bool is_port = id == TOOL_BIND_LOCAL || id == TOOL_CONNECT_LOCAL;
    const char *prefix = is_path ? "ipc://" : is_port ? "tcp://127.0.0.1:" : "";
    uint64_t port;

    address->bind = id == TOOL_BIND || id == TOOL_BIND_IPC || id == TOOL_BIND_LOCAL;
    if (is_port &&
        !tool_number(address->bind ? "bind-local" : "connect-local", value, 65535, &port))
        return false;
    if (asprintf(&address->url, "%s%s", prefix, value) < 0) {
        tool_error("out of memory");
        return false;
    }
    return true;
}

int
tool_start_address(const struct tool_address *address, spoke_socket *s)
{
    int rc = address->bind ? spoke_listen(s, address->url, NULL, 0)
                           : spoke_dial(s, address->url, NULL, 0);

    return rc == 0 ? TOOL_OK
                   : tool_api_error(address->bind ? "listen on" : "connect to", address->url, rc);
}

bool
tool_no_operands(const struct tool_args *args)
{
    if (optind >= args->argc)
        return true;
    tool_error("\"%s\" is not understood here: see %s --help", args->argv[optind], tool_name);
    return false;
}
