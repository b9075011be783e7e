/* SPDX-License-Identifier: MIT */
/* spoke cat: nanocat's and macat's command line over one socket on the shared engine.
 * The main thread does everything; what the library tells on its own threads goes to watcher.c. */
#include "cat.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "secure.h"
#include "stop.h"
#include "tool.h"
#include "watcher.h"

#define PATTERN(name, number, with_data, without_data, help)                                       \
    {                                                                                              \
        {name, help}, number, with_data, without_data                                              \
    }
static const struct cat_pattern patterns[] = {
    PATTERN("pair", SPOKE_PAIR, cat_talk, cat_print, "one peer, both ways"),
    PATTERN("pair1", SPOKE_PAIR1, cat_talk, cat_print, "the same as NNG's programs have it"),
    PATTERN("bus", SPOKE_BUS, cat_talk, cat_print, "send to all peers, print what they send"),
    PATTERN("star", SPOKE_STAR, cat_talk, cat_print,
            "the same, and pass on what one sends to the others"),
    PATTERN("req", SPOKE_REQ, cat_ask, NULL, "send requests, print the replies"),
    PATTERN("rep", SPOKE_REP, cat_answer, cat_print,
            "print requests, reply with the data if there is some"),
    PATTERN("push", SPOKE_PUSH, cat_give, NULL, "send each message to one of the peers"),
    PATTERN("pull", SPOKE_PULL, NULL, cat_print, "print what all peers send"),
    PATTERN("pub", SPOKE_PUB, cat_give, NULL, "send each message to all peers"),
    PATTERN("sub", SPOKE_SUB, NULL, cat_print, "print what all peers send and is subscribed to"),
    PATTERN("surveyor", SPOKE_SURVEYOR, cat_survey, NULL, "ask everybody, print the answers"),
    PATTERN("respondent", SPOKE_RESPONDENT, cat_answer, cat_print,
            "print surveys, answer with the data if there is some"),
};
#define PATTERN_COUNT (sizeof patterns / sizeof *patterns)

enum {
    OPT_DATA = TOOL_NEXT_ID,
    OPT_FILE,
    OPT_LINE,
    OPT_DELAY,
    OPT_INTERVAL,
    OPT_COUNT,
    OPT_FORMAT,
    OPT_ASCII,
    OPT_QUOTED,
    OPT_RAW,
    OPT_HEX,
    OPT_MSGPACK,
    OPT_RECV_TIMEOUT,
    OPT_SEND_TIMEOUT,
    OPT_LINGER,
    OPT_MAX_SIZE,
    OPT_NAME,
    OPT_SUBSCRIBE,
    OPT_VERBOSE,
    OPT_SILENT,
    OPT_LIST,
    OPT_PATTERN /* + index in `patterns` */
};

static const struct tool_option options[] = {
    {NULL, 0, NULL, "Addresses, at least one, in any number", 0},
    {"bind", 0, "URL", "listen on URL", TOOL_BIND},
    {"listen", 0, "URL", "the same", TOOL_BIND},
    {"connect", 0, "URL", "connect to URL, again and again until somebody listens there",
     TOOL_CONNECT},
    {"dial", 0, "URL", "the same", TOOL_CONNECT},
    {"bind-ipc", 'X', "PATH", "listen on ipc://PATH", TOOL_BIND_IPC},
    {"connect-ipc", 'x', "PATH", "connect to ipc://PATH", TOOL_CONNECT_IPC},
    {"bind-local", 'L', "PORT", "listen on tcp://127.0.0.1:PORT", TOOL_BIND_LOCAL},
    {"connect-local", 'l', "PORT", "connect to tcp://127.0.0.1:PORT", TOOL_CONNECT_LOCAL},
    {NULL, 0, NULL, "What to receive", 0},
    {"subscribe", 0, "PREFIX", "messages that begin so, in any number; without it all of them",
     OPT_SUBSCRIBE},
    {NULL, 0, NULL, "What to send", 0},
    {"data", 'D', "DATA", "a message: DATA", OPT_DATA},
    {"file", 'F', "PATH", "a message: what is in the file; - is standard input", OPT_FILE},
    {"line", 0, NULL, "each line of the file or of standard input is a message", OPT_LINE},
    {"delay", 'd', "SEC", "wait before the first one", OPT_DELAY},
    {"send-delay", 0, "SEC", "the same", OPT_DELAY},
    {"interval", 'i', "SEC", "send one every SEC seconds", OPT_INTERVAL},
    {"count", 'C', "N", "end after N requests, replies or messages", OPT_COUNT},
    {NULL, 0, NULL, "How to print what arrives (without one of these: not at all)", 0},
    {"ascii", 'A', NULL, "a line each; dots for what is not printable ASCII", OPT_ASCII},
    {"quoted", 'Q', NULL, "a line each, in double quotes, escaped as in C", OPT_QUOTED},
    {"hex", 0, NULL, "a line each, every byte as \\x61", OPT_HEX},
    {"msgpack", 0, NULL, "msgpack bin objects", OPT_MSGPACK},
    {"raw", 0, NULL, "the bytes, nothing in between", OPT_RAW},
    {"format", 0, "NAME", "one of the above by name, or no", OPT_FORMAT},
    {NULL, 0, NULL, "Limits", 0},
    {"recv-timeout", 0, "SEC", "stop receiving when nothing came for SEC seconds",
     OPT_RECV_TIMEOUT},
    {"send-timeout", 0, "SEC", "fail when a message cannot be sent for SEC seconds",
     OPT_SEND_TIMEOUT},
    {"linger", 0, "SEC", "at the end wait this long for what is unsent; 1", OPT_LINGER},
    {"recv-maxsz", 'Z', "BYTES", "largest message accepted; 1048576; 0: no limit", OPT_MAX_SIZE},
    SECURE_OPTIONS,
    {NULL, 0, NULL, "Other", 0},
    {"socket-name", 0, "NAME", "the socket's name in messages and statistics", OPT_NAME},
    {"verbose", 'v', NULL, "say what happens; twice: what was counted, at the end", OPT_VERBOSE},
    {"silent", 'q', NULL, "print no errors", OPT_SILENT},
    {"list-options", 0, NULL, "print the names of all options, a line each, and end", OPT_LIST},
    {0},
};
#define OPTION_COUNT (sizeof options / sizeof *options)

/* What the command line says beside struct cat. */
struct request {
    struct cat cat;
    struct tool_address *endpoints; /* in the order given */
    size_t endpoint_count;
    const char **topics; /* to subscribe to */
    size_t topic_count;
    const char *data, *file, *socket_name;
    bool has_linger, has_max_size, has_format, lists_options;
    spoke_ns linger_ns;
    uint64_t max_size;
    int verbosity;
    struct secure secure;
    spoke_tls_config *tls;
};

static bool
usage_error(const char *text)
{
    tool_error("%s: see %s --help", text, tool_name);
    return false;
}

static bool
add_endpoint(struct request *r, int id, const char *value)
{
    if (!tool_make_address(&r->endpoints[r->endpoint_count], id, value))
        return false;
    r->endpoint_count++;
    return true;
}

static bool
set_pattern(struct request *r, const struct cat_pattern *pattern)
{
    if (r->cat.pattern != NULL && r->cat.pattern != pattern)
        return usage_error("give one socket type, not two");
    r->cat.pattern = pattern;
    return true;
}

static bool
set_format(struct request *r, enum format format)
{
    r->cat.format = format;
    r->has_format = true;
    return true;
}

static bool
set_format_by_name(struct request *r, const char *name)
{
    r->has_format = true;
    if (format_by_name(name, &r->cat.format))
        return true;
    tool_error("--format can be no, raw, ascii, quoted, msgpack or hex, not \"%s\"", name);
    return false;
}

/* Obey one option.  False after an error. */
static bool
set_option(void *request, int id, const char *value)
{
    struct request *r = request;
    struct cat *c = &r->cat;

    if (id < TOOL_NEXT_ID)
        return add_endpoint(r, id, value);
    if (secure_option(&r->secure, id, value))
        return true;
    switch (id) {
    case OPT_DATA: r->data = value; return true;
    case OPT_FILE: r->file = value; return true;
    case OPT_LINE: c->use_lines = true; return true;
    case OPT_DELAY: return tool_seconds("delay", value, &c->delay_ns);
    case OPT_INTERVAL: return tool_seconds("interval", value, &c->interval_ns);
    case OPT_COUNT: return tool_number("count", value, UINT64_MAX, &c->count);
    case OPT_FORMAT: return set_format_by_name(r, value);
    case OPT_ASCII: return set_format(r, FORMAT_ASCII);
    case OPT_QUOTED: return set_format(r, FORMAT_QUOTED);
    case OPT_RAW: return set_format(r, FORMAT_RAW);
    case OPT_HEX: return set_format(r, FORMAT_HEX);
    case OPT_MSGPACK: return set_format(r, FORMAT_MSGPACK);
    case OPT_RECV_TIMEOUT: return tool_seconds("recv-timeout", value, &c->recv_timeout_ns);
    case OPT_SEND_TIMEOUT: return tool_seconds("send-timeout", value, &c->send_timeout_ns);
    case OPT_LINGER: r->has_linger = true; return tool_seconds("linger", value, &r->linger_ns);
    case OPT_MAX_SIZE:
        r->has_max_size = true;
        return tool_number("recv-maxsz", value, SPOKE_MSG_MAX, &r->max_size);
    case OPT_NAME: r->socket_name = value; return true;
    case OPT_VERBOSE: r->verbosity++; return true;
    case OPT_SILENT: r->verbosity--; return true;
    case OPT_LIST: r->lists_options = true; return true;
    case OPT_SUBSCRIBE: r->topics[r->topic_count++] = value; return true;
    default: return set_pattern(r, &patterns[id - OPT_PATTERN]);
    }
}

/* True if nobody else can ever be at one of the addresses. */
static bool
names_itself(const struct request *r)
{
    for (size_t i = 0; i < r->endpoint_count; i++) {
        if (strncmp(r->endpoints[i].url, "inproc://", 9) == 0)
            return true;
    }
    return false;
}

/* What the options mean together. */
static bool
check_request(const struct request *r)
{
    const struct cat *c = &r->cat;
    bool sends = r->data != NULL || r->file != NULL || c->use_lines;

    if (c->pattern == NULL)
        return usage_error("give a socket type, such as --req");
    if (r->endpoint_count == 0)
        return usage_error("give an address, with --bind or --connect");
    if (names_itself(r))
        return usage_error("inproc:// reaches the sockets of one program, and this is the only "
                           "one here: take an ipc:// or tcp:// address");
    if (r->data != NULL && r->file != NULL)
        return usage_error("give --data or --file, not both");
    if (r->data != NULL && c->use_lines)
        return usage_error(
            "--line reads lines from a file or from standard input: it does not go with --data");
    if (r->topic_count > 0 && c->pattern->number != SPOKE_SUB)
        return usage_error("--subscribe is for --sub");
    if (sends && c->pattern->with_data == NULL)
        return usage_error("this socket type cannot send: give no --data, --file or --line");
    if (!sends && c->pattern->without_data == NULL)
        return usage_error("this socket type has to send something: give --data, --file or --line");
    if (!sends && c->interval_ns != SPOKE_FOREVER)
        return usage_error("--interval repeats what is sent: give --data, --file or --line");
    return true;
}

static bool
file_error(const char *path)
{
    tool_error("cannot read %s: %s: check the path given with --file",
               strcmp(path, "-") == 0 ? "standard input" : path, strerror(errno));
    return false;
}

/* Append all of `fd` to `m`. */
static bool
read_all(int fd, const char *path, spoke_msg *m)
{
    static char buffer[65536];
    ssize_t got;
    int rc = 0;

    while (rc == 0 && (got = read(fd, buffer, sizeof buffer)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return file_error(path);
        rc = spoke_msg_append(m, buffer, (size_t)got);
    }
    if (rc != 0)
        tool_api_error("read all of", path, rc);
    return rc == 0;
}

/* Make what is to be sent ready.  Gives an exit code. */
static int
open_data(struct request *r)
{
    struct cat *c = &r->cat;
    const char *path = r->file != NULL ? r->file : "-";
    int fd = STDIN_FILENO, rc;
    bool ok;

    if (r->data == NULL && r->file == NULL && !c->use_lines)
        return TOOL_OK;
    if (!c->use_lines) {
        rc = spoke_msg_from(&c->data, r->data, r->data != NULL ? strlen(r->data) : 0);
        if (rc != 0 || r->data != NULL)
            return rc == 0 ? TOOL_OK : tool_api_error("make a message", NULL, rc);
    }
    if (strcmp(path, "-") != 0 && (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
        file_error(path);
        return TOOL_FILE;
    }
    if (c->use_lines) {
        lines_init(&c->lines, fd);
        return TOOL_OK;
    }
    ok = read_all(fd, path, c->data);
    if (fd != STDIN_FILENO)
        close(fd);
    return ok ? TOOL_OK : TOOL_FILE;
}

static void
close_data(struct cat *c)
{
    if (c->use_lines && c->lines.fd > STDIN_FILENO)
        close(c->lines.fd);
    lines_fini(&c->lines);
    spoke_msg_free(c->data);
}

/* Gives an error of the library. */
static int
set_socket_options(const struct request *r, spoke_socket *s)
{
    int rc = 0;

    if (r->has_linger)
        rc = spoke_socket_set_duration(s, SPOKE_OPT_LINGER, r->linger_ns);
    if (rc == 0 && r->has_max_size)
        rc = spoke_socket_set_size(s, SPOKE_OPT_MAX_RECV_SIZE, (size_t)r->max_size);
    if (rc == 0 && r->socket_name != NULL)
        rc = spoke_socket_set_string(s, SPOKE_OPT_NAME, r->socket_name);
    if (rc == 0 && r->tls != NULL)
        rc = spoke_socket_set_tls(s, r->tls);
    if (rc == 0 && r->cat.pattern->number == SPOKE_SUB && r->topic_count == 0)
        rc = spoke_socket_set_string(s, SPOKE_OPT_SUBSCRIBE, "");
    for (size_t i = 0; rc == 0 && i < r->topic_count; i++)
        rc = spoke_socket_set_string(s, SPOKE_OPT_SUBSCRIBE, r->topics[i]);
    /* Whoever waits longer than a survey usually lasts wants one that lasts longer. */
    if (rc == 0 && r->cat.pattern->number == SPOKE_SURVEYOR &&
        r->cat.recv_timeout_ns != SPOKE_FOREVER)
        rc = spoke_socket_set_duration(s, SPOKE_OPT_SURVEY_TIME, r->cat.recv_timeout_ns);
    return rc;
}

/* Dial and listen, in the order of the command line.  Gives an exit code. */
static int
start_endpoints(const struct request *r, spoke_socket *s)
{
    int status = TOOL_OK;

    for (size_t i = 0; i < r->endpoint_count && status == TOOL_OK; i++)
        status = tool_start_address(&r->endpoints[i], s);
    return status;
}

/* -1 if the socket has no such direction.  Gives an error of the library. */
static int
get_fd(spoke_socket *s, const char *option, int *fd)
{
    int rc = spoke_socket_get_int(s, option, fd);

    if (rc != SPOKE_EOPTION)
        return rc;
    *fd = -1;
    return 0;
}

/* Everything but the command line and the data.  Gives an exit code. */
static int
run_socket(struct request *r, struct watcher *w)
{
    struct cat *c = &r->cat;
    spoke_socket *s = c->socket;
    int rc;

    if ((rc = spoke_socket_on_event(s, watcher_on_event, w)) != 0 ||
        (rc = get_fd(s, SPOKE_OPT_RECV_FD, &c->recv_fd)) != 0 ||
        (rc = get_fd(s, SPOKE_OPT_SEND_FD, &c->send_fd)) != 0)
        return tool_api_error("open a socket", NULL, rc);
    if ((rc = set_socket_options(r, s)) != 0)
        return tool_api_error("set an option of the socket", NULL, rc);
    if ((rc = start_endpoints(r, s)) != 0)
        return rc;
    if (c->use_lines || c->data != NULL)
        c->pattern->with_data(c);
    else
        c->pattern->without_data(c);
    return c->status;
}

/* Close, which waits for what is still to be sent.  Gives an exit code. */
static int
close_socket(struct cat *c, int status)
{
    struct spoke_close_report report;
    int rc = spoke_socket_close_report(c->socket, &report);

    if (rc != SPOKE_ETIMEDOUT || status != TOOL_OK || stop_signal() != 0)
        return status;
    tool_error(
        "%llu message%s (%llu bytes) could not be delivered in time: nobody took them; --linger "
        "SEC waits longer",
        (unsigned long long)report.messages, report.messages == 1 ? "" : "s",
        (unsigned long long)report.bytes);
    return TOOL_API;
}

static int
open_and_run(struct request *r)
{
    struct cat *c = &r->cat;
    struct watcher w;
    int rc, status;

    if ((c->stop_fd = stop_init()) < 0 || (c->attached_fd = eventfd(0, EFD_CLOEXEC)) < 0) {
        tool_error("cannot wait for signals: %s", strerror(errno));
        return TOOL_API;
    }
    watcher_init(&w, c->attached_fd, r->verbosity);
    stop_hold();
    rc = spoke_socket_open(&c->socket, c->pattern->number, NULL);
    stop_release();
    if (rc != 0) {
        status = tool_api_error("open a socket", NULL, rc);
    } else {
        status = run_socket(r, &w);
        if (r->verbosity > 1)
            watcher_tell_counters(c->socket);
        status = close_socket(c, status);
    }
    watcher_fini();
    close(c->attached_fd);
    return status;
}

/* A link called nn_req is `spoke cat --req`. */
static bool
set_pattern_by_name(struct request *r)
{
    if (strncmp(tool_name, "nn_", 3) != 0)
        return true;
    for (size_t i = 0; i < PATTERN_COUNT; i++) {
        if (strcmp(tool_name + 3, patterns[i].type.name) == 0)
            return set_pattern(r, &patterns[i]);
    }
    return usage_error(
        "there is no socket type of this name: call the program nn_req, nn_sub or the like");
}

/* For programs: what --help says for people.  Gives an exit code. */
static int
list_options(const struct tool_option *o)
{
    for (; o->name != NULL || o->help != NULL; o++) {
        if (o->name != NULL && o->help != NULL)
            printf("--%s\n", o->name);
    }
    printf("--help\n--version\n");
    return tool_finish_output();
}

/* Read the command line.  False: end with args->status. */
static bool
parse(struct request *r, struct tool_args *args)
{
    args->status = TOOL_USAGE;
    if (!set_pattern_by_name(r) || !tool_obey_options(args, set_option, r) ||
        !tool_no_operands(args))
        return false;
    if (r->lists_options) {
        args->status = list_options(args->page->options);
        return false;
    }
    return check_request(r);
}

static int
run_request(struct request *r)
{
    int status;

    tool_quiet = r->verbosity < 0;
    if (r->cat.use_lines && !r->has_format)
        r->cat.format = FORMAT_LINE;
    status = open_data(r);
    if (status == TOOL_OK)
        status = secure_config(&r->secure, &r->tls);
    if (status == TOOL_OK)
        status = open_and_run(r);
    spoke_tls_config_free(r->tls);
    if (fflush(stdout) != 0 && status == TOOL_OK && stop_signal() == 0)
        status = tool_output_error(errno);
    close_data(&r->cat);
    return status;
}

int
cat_main(int argc, char **argv)
{
    struct tool_option all[1 + PATTERN_COUNT + OPTION_COUNT], *after;
    struct tool_page page = {
        .usage = "TYPE ADDRESS … [OPTION …]",
        .about = "Send and receive messages of the Scalability Protocols.",
        .options = all,
        .notes = "Examples:\n"
                 "  spoke cat --rep -X /tmp/s --data world --quoted\n"
                 "  spoke cat --req -x /tmp/s --data hello --quoted\n"
                 "  seq 3 | spoke cat --req -x /tmp/s --line",
    };
    struct tool_args args = {.argc = argc, .argv = argv, .page = &page};
    struct request r = {.cat = {
                            .interval_ns = SPOKE_FOREVER,
                            .recv_timeout_ns = SPOKE_FOREVER,
                            .send_timeout_ns = SPOKE_FOREVER,
                        }};

    after = tool_list_types(all, "Socket type, one of", &patterns->type, PATTERN_COUNT,
                            sizeof *patterns, OPT_PATTERN);
    memcpy(after, options, sizeof options);
    r.endpoints = calloc((size_t)argc, sizeof *r.endpoints);
    r.topics = calloc((size_t)argc, sizeof *r.topics);
    if (r.endpoints == NULL || r.topics == NULL) {
        tool_error("out of memory");
        args.status = TOOL_API;
    } else if (parse(&r, &args))
        args.status = run_request(&r);
    for (size_t i = 0; i < r.endpoint_count; i++)
        free(r.endpoints[i].url);
    free(r.endpoints);
    free(r.topics);
    stop_finish();
    return args.status;
}
