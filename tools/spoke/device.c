/* SPDX-License-Identifier: MIT */
/* spoke device: two raw sockets on the shared engine, or one, and a device between them.
 * The main thread reads the command line, then sleeps until a signal; what the library tells on its
 * own threads goes to watcher.c. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "secure.h"
#include "stop.h"
#include "tool.h"
#include "watcher.h"

/* One line is one socket type of the front, and what then stands at the back. */
struct type {
    struct tool_type type;
    int front, back;
};

static const struct type types[] = {
    {{"rep", "requests come in at FRONT, go out at BACK, replies come back"}, 49, 48},
    {{"req", "the same with FRONT and BACK exchanged"}, 48, 49},
    {{"pull", "messages come in at FRONT and go to one of BACK"}, 81, 80},
    {{"push", "the same with FRONT and BACK exchanged"}, 80, 81},
    {{"sub", "messages come in at FRONT and go to all of BACK"}, 33, 32},
    {{"pub", "the same with FRONT and BACK exchanged"}, 32, 33},
    {{"respondent", "surveys come in at FRONT, go out at BACK, responses come back"}, 99, 98},
    {{"surveyor", "the same with FRONT and BACK exchanged"}, 98, 99},
    {{"pair", "one peer on each side, both ways"}, 16, 16},
    {{"pair1", "the same for what NNG calls a pair"}, 17, 17},
    {{"bus", "what a peer sends goes to all on the other side"}, 112, 112},
    {{"star", "what a peer sends goes to all others, on both sides"}, 1600, 1600},
};
#define TYPE_COUNT (sizeof types / sizeof *types)

enum {
    OPT_TTL = TOOL_NEXT_ID,
    OPT_MAX_SIZE,
    OPT_LINGER,
    OPT_SUBSCRIBE,
    OPT_VERBOSE,
    OPT_SILENT,
    OPT_TYPE /* + index in `types` */
};

static const struct tool_option options[] = {
    {NULL, 0, NULL, "Addresses, in place of FRONT and BACK: the first is the front", 0},
    {"bind", 0, "URL", "listen on URL", TOOL_BIND},
    {"listen", 0, "URL", "the same", TOOL_BIND},
    {"connect", 0, "URL", "connect to URL, again whenever the connection is lost", TOOL_CONNECT},
    {"dial", 0, "URL", "the same", TOOL_CONNECT},
    {"bind-ipc", 'X', "PATH", "listen on ipc://PATH", TOOL_BIND_IPC},
    {"connect-ipc", 'x', "PATH", "connect to ipc://PATH", TOOL_CONNECT_IPC},
    {"bind-local", 'L', "PORT", "listen on tcp://127.0.0.1:PORT", TOOL_BIND_LOCAL},
    {"connect-local", 'l', "PORT", "connect to tcp://127.0.0.1:PORT", TOOL_CONNECT_LOCAL},
    {NULL, 0, NULL, "Limits", 0},
    {"ttl", 0, "N", "hops accepted, 1 to 255, where the type counts them; 8", OPT_TTL},
    {"recv-maxsz", 'Z', "BYTES", "largest message accepted; 1048576; 0: no limit", OPT_MAX_SIZE},
    {"linger", 0, "SEC", "at the end wait this long for what is unsent; 1", OPT_LINGER},
    SECURE_OPTIONS,
    {NULL, 0, NULL, "Other", 0},
    {"subscribe", 0, "PREFIX", "--sub and --pub: only messages that begin so; may be repeated",
     OPT_SUBSCRIBE},
    {"verbose", 'v', NULL, "say what happens; twice: more", OPT_VERBOSE},
    {"silent", 'q', NULL, "print no errors and no counters at the end", OPT_SILENT},
    {0},
};
#define OPTION_COUNT (sizeof options / sizeof *options)

enum { FRONT, BACK, SIDES };

struct side {
    struct tool_address at;
    spoke_socket *s;
};

struct request {
    const struct type *type;
    struct side sides[SIDES];
    int count; /* of addresses: 1 is a device on one socket */
    int ttl;   /* 0: the default */
    bool has_linger, has_max_size;
    spoke_ns linger_ns;
    uint64_t max_size;
    const char **topics;
    size_t topic_count;
    int verbosity;
    spoke_device *device;
    struct spoke_device_stats passed; /* once it has stopped */
    struct secure secure;
    spoke_tls_config *tls;
};

/* ---- the command line ---- */

static bool
usage_error(const char *text)
{
    tool_error("%s: see %s --help", text, tool_name);
    return false;
}

static bool
add_side(struct request *r, int id, const char *value)
{
    if (r->count == SIDES)
        return usage_error("give two addresses, the front and the back, not more");
    if (!tool_make_address(&r->sides[r->count].at, id, value))
        return false;
    r->count++;
    return true;
}

static bool
set_type(struct request *r, const struct type *type)
{
    if (r->type != NULL && r->type != type)
        return usage_error("give one socket type, that of the front, not two");
    r->type = type;
    return true;
}

static bool
set_ttl(struct request *r, const char *text)
{
    uint64_t ttl;

    if (!tool_number("ttl", text, 255, &ttl))
        return false;
    if (ttl == 0)
        return usage_error("--ttl is at least 1");
    r->ttl = (int)ttl;
    return true;
}

/* Obey one option.  False after an error. */
static bool
set_option(void *request, int id, const char *value)
{
    struct request *r = request;

    if (id < TOOL_NEXT_ID)
        return add_side(r, id, value);
    if (secure_option(&r->secure, id, value))
        return true;
    switch (id) {
    case OPT_TTL: return set_ttl(r, value);
    case OPT_MAX_SIZE:
        r->has_max_size = true;
        return tool_number("recv-maxsz", value, SPOKE_MSG_MAX, &r->max_size);
    case OPT_LINGER: r->has_linger = true; return tool_seconds("linger", value, &r->linger_ns);
    case OPT_SUBSCRIBE: r->topics[r->topic_count++] = value; return true;
    case OPT_VERBOSE: r->verbosity++; return true;
    case OPT_SILENT: r->verbosity--; return true;
    default: return set_type(r, &types[id - OPT_TYPE]);
    }
}

/* Plain operands: the front listens, the back connects. */
static bool
add_operands(struct request *r, int argc, char **argv)
{
    for (int i = optind; i < argc; i++)
        if (!add_side(r, r->count == FRONT ? TOOL_BIND : TOOL_CONNECT, argv[i]))
            return false;
    return true;
}

/* What all of it means together. */
static bool
check_request(const struct request *r)
{
    if (r->type == NULL)
        return usage_error("give the socket type of the front, such as --rep");
    if (r->count == 0)
        return usage_error("give two addresses, the front and the back");
    if (r->count == 1 && r->type->front != r->type->back)
        return usage_error("give two addresses, the front and the back: with one, only --pair, "
                           "--pair1, --bus and --star make sense");
    if (r->count == 2 && strcmp(r->sides[FRONT].at.url, r->sides[BACK].at.url) == 0)
        return usage_error("the front and the back have the same address");
    for (int i = 0; i < r->count; i++)
        if (strncmp(r->sides[i].at.url, "inproc://", 9) == 0)
            return usage_error("inproc:// reaches the sockets of one program, and these are the "
                               "only ones here: take an ipc:// or tcp:// address");
    if (r->topic_count > 0 && strcmp(r->type->type.name, "sub") != 0 &&
        strcmp(r->type->type.name, "pub") != 0)
        return usage_error("--subscribe is for --sub and --pub");
    return true;
}

/* ---- counters ---- */

static void
print_way(const char *from, const char *to, const struct spoke_device_way *way)
{
    printf("%s -> %s: %llu messages, %llu bytes", from, to, (unsigned long long)way->messages,
           (unsigned long long)way->bytes);
    if (way->dropped > 0)
        printf(", %llu dropped", (unsigned long long)way->dropped);
    putchar('\n');
}

/* The connections of one side, and what its socket had to drop, by reason. */
static void
print_side(const struct side *side)
{
    struct spoke_stats stats;

    if (spoke_socket_stats(side->s, &stats) != 0)
        return;
    printf("%s: %llu connections, %llu ever", side->at.url, (unsigned long long)stats.pipes_current,
           (unsigned long long)stats.pipes_attached);
#define STAT(name, help)                                                                           \
    if (stats.name > 0 && (strncmp(#name, "dropped", 7) == 0 || strcmp(#name, "garbled") == 0))    \
        printf(", %s %llu", #name, (unsigned long long)stats.name);
#include <spoke/stats.def>
#undef STAT
    putchar('\n');
}

static void
print_counters(struct request *r)
{
    const char *front = r->sides[FRONT].at.url, *back = r->sides[r->count - 1].at.url;

    if (r->device != NULL)
        (void)spoke_device_get_stats(r->device, &r->passed);
    print_way(front, back, &r->passed.there);
    if (r->count == SIDES)
        print_way(back, front, &r->passed.back);
    for (int i = 0; i < r->count; i++)
        print_side(&r->sides[i]);
    fflush(stdout);
}

/* ---- running ---- */

static int usr1_fd = -1;

/* In any thread. */
static void
on_usr1(int signal)
{
    uint64_t one = 1;
    int saved = errno;
    ssize_t ignored = write(usr1_fd, &one, sizeof one);

    (void)signal;
    (void)ignored;
    errno = saved;
}

static void
watch_usr1(void)
{
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
}

/* Print the counters each time that SIGUSR1 asks for them, until another signal ends it. */
static void
sleep_until_stopped(struct request *r, int stop_fd)
{
    struct pollfd fds[] = {{.fd = stop_fd, .events = POLLIN}, {.fd = usr1_fd, .events = POLLIN}};
    uint64_t count;

    while (stop_signal() == 0) {
        if (poll(fds, 2, -1) <= 0 || (fds[1].revents & POLLIN) == 0)
            continue;
        if (read(usr1_fd, &count, sizeof count) == sizeof count)
            print_counters(r);
    }
}

/* Gives an error of the library. */
static int
subscribe(const struct request *r, spoke_socket *s)
{
    int rc = 0;

#ifdef SPOKE_OPT_SUBSCRIBE
    if (r->topic_count == 0)
        rc = spoke_socket_set_string(s, SPOKE_OPT_SUBSCRIBE, "");
    for (size_t i = 0; rc == 0 && i < r->topic_count; i++)
        rc = spoke_socket_set_string(s, SPOKE_OPT_SUBSCRIBE, r->topics[i]);
#else
    (void)r;
    (void)s;
#endif
    return rc;
}

/* Gives an error of the library. */
static int
set_socket_options(const struct request *r, spoke_socket *s, int number)
{
    int rc = 0;

    if (r->has_linger)
        rc = spoke_socket_set_duration(s, SPOKE_OPT_LINGER, r->linger_ns);
    if (rc == 0 && r->has_max_size)
        rc = spoke_socket_set_size(s, SPOKE_OPT_MAX_RECV_SIZE, (size_t)r->max_size);
    if (rc == 0 && r->tls != NULL)
        rc = spoke_socket_set_tls(s, r->tls);
    if (rc == 0 && r->ttl > 0 &&
        (rc = spoke_socket_set_int(s, SPOKE_OPT_TTL, r->ttl)) == SPOKE_EOPTION)
        rc = 0; /* this side does not count hops */
    if (rc == 0 && number == 33)
        rc = subscribe(r, s);
    return rc;
}

static int
open_side(struct request *r, int index, struct watcher *w)
{
    struct side *side = &r->sides[index];
    int number = index == FRONT ? r->type->front : r->type->back, rc;

    stop_hold();
    rc = spoke_socket_open(&side->s, number, NULL);
    stop_release();
    if (rc == SPOKE_ENOTSUP) {
        tool_error("this version does not have the sockets of --%s", r->type->type.name);
        return TOOL_API;
    }
    if (rc == 0 && (rc = set_socket_options(r, side->s, number)) == 0)
        rc = spoke_socket_on_event(side->s, watcher_on_event, w);
    return rc == 0 ? TOOL_OK : tool_api_error("open a socket for", side->at.url, rc);
}

/* Gives an exit code. */
static int
start(struct request *r, struct watcher *w)
{
    int status = TOOL_OK, rc;

    for (int i = 0; i < r->count && status == TOOL_OK; i++)
        status = open_side(r, i, w);
    if (status != TOOL_OK)
        return status;
    if ((rc = spoke_device_start(&r->device, r->sides[FRONT].s, r->sides[BACK].s)) != 0)
        return tool_api_error("start", NULL, rc);
    for (int i = 0; i < r->count && status == TOOL_OK; i++)
        status = tool_start_address(&r->sides[i].at, r->sides[i].s);
    return status;
}

/* Stop, print, and close, which waits for what is still to be sent. */
static void
finish(struct request *r, bool ran)
{
    spoke_device *device = r->device;

    r->device = NULL;
    if (device != NULL)
        (void)spoke_device_stop(device, &r->passed);
    if (ran && r->verbosity >= 0)
        print_counters(r);
    for (int i = 0; i < r->count; i++)
        if (r->sides[i].s != NULL)
            (void)spoke_socket_close(r->sides[i].s);
}

/* Everything but the command line.  Gives an exit code. */
static int
run(struct request *r)
{
    int stop_fd, attached_fd, status;
    struct watcher w;

    tool_quiet = r->verbosity < 0;
    if ((stop_fd = stop_init()) < 0 || (attached_fd = eventfd(0, EFD_CLOEXEC)) < 0 ||
        (usr1_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) {
        tool_error("cannot wait for signals: %s", strerror(errno));
        return TOOL_API;
    }
    watch_usr1();
    status = secure_config(&r->secure, &r->tls);
    watcher_init(&w, attached_fd, r->verbosity);
    if (status == TOOL_OK)
        status = start(r, &w);
    spoke_tls_config_free(r->tls);
    if (status == TOOL_OK)
        sleep_until_stopped(r, stop_fd);
    finish(r, status == TOOL_OK);
    watcher_fini();
    close(attached_fd);
    return status != TOOL_OK ? status : tool_finish_output();
}

/* Read the command line.  False: end with args->status. */
static bool
parse(struct request *r, struct tool_args *args)
{
    return tool_obey_options(args, set_option, r) && add_operands(r, args->argc, args->argv) &&
           check_request(r);
}

int
device_main(int argc, char **argv)
{
    struct tool_option all[1 + TYPE_COUNT + OPTION_COUNT], *after;
    struct tool_page page = {
        .usage = "TYPE FRONT BACK [OPTION …]\nTYPE FRONT [OPTION …]",
        .about = "Pass messages on between two addresses: listen on FRONT, connect to BACK.\n"
                 "With one address, between those who connect to it.",
        .options = all,
        .notes = "SIGUSR1 prints counters, which are also printed at the end.\n\n"
                 "Examples:\n"
                 "  spoke device --rep 'tcp://*:5555' ipc:///run/service\n"
                 "  spoke device --pull -L 5555 -L 5556\n"
                 "  spoke device --bus -X /tmp/hub",
    };
    struct tool_args args = {.argc = argc, .argv = argv, .page = &page};
    struct request r = {.type = NULL};

    after = tool_list_types(all, "Socket type at FRONT, one of", &types->type, TYPE_COUNT,
                            sizeof *types, OPT_TYPE);
    memcpy(after, options, sizeof options);
    if ((r.topics = calloc((size_t)argc, sizeof *r.topics)) == NULL) {
        tool_error("out of memory");
        return TOOL_API;
    }
    if (parse(&r, &args))
        args.status = run(&r);
    for (int i = 0; i < r.count; i++)
        free(r.sides[i].at.url);
    free(r.topics);
    stop_finish();
    return args.status;
}
