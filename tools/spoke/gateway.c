/* SPDX-License-Identifier: MIT */
/* spoke gateway: whoever connects to one address is carried to another, byte by byte, whatever
 * their schemes. Everything happens in callbacks on one engine, which the main thread runs; a
 * second thread waits for signals. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "gateway_rules.h"
#include "tool.h"

#define LISTENERS_MOST 16
#define FIRST_PASSED   3 /* the first descriptor that systemd passes on */
#define BACKLOG        64
#define LINGER         (10 * SPOKE_SECOND)
#define LINGER_LOOK    SPOKE_MS

enum {
    OPT_LISTEN = TOOL_NEXT_ID,
    OPT_CONNECT,
    OPT_ALLOW_UID,
    OPT_ALLOW_GID,
    OPT_MAX,
    OPT_IDLE,
    OPT_RULES,
    OPT_DRAIN,
    OPT_MODE,
    OPT_VERBOSE,
    OPT_SILENT
};

static const struct tool_option options[] = {
    {NULL, 0, NULL, "Addresses, in place of LISTEN and CONNECT", 0},
    {"listen", 0, "URL", "take connections at URL; may be repeated", OPT_LISTEN},
    {"connect", 0, "URL", "carry them to URL", OPT_CONNECT},
    {"mode", 0, "OCTAL", "of the socket file that ipc:// and shm:// make", OPT_MODE},
    {NULL, 0, NULL, "Who may connect, how many, how long", 0},
    {"allow-uid", 0, "ID", "only this user, over ipc:// and shm://; may be repeated",
     OPT_ALLOW_UID},
    {"allow-gid", 0, "ID", "only this group; a peer needs one of all these", OPT_ALLOW_GID},
    {"max-connections", 0, "N", "at a time, more wait; 0, the default: no limit", OPT_MAX},
    {"idle", 0, "SEC", "end a connection after so long without a byte; 0, the default: never",
     OPT_IDLE},
    {"rules", 0, "FILE",
     "such rules from FILE, one a line, \"allow-uid 1000\"; read again at SIGHUP", OPT_RULES},
    {NULL, 0, NULL, "Other", 0},
    {"drain", 0, "SEC", "at SIGTERM wait so long for connections to end; 10", OPT_DRAIN},
    {"verbose", 'v', NULL, "say what happens to each connection", OPT_VERBOSE},
    {"silent", 'q', NULL, "print no errors and no counters at the end", OPT_SILENT},
    {0},
};

struct link {
    struct link *next, **place; /* who points to it */
    struct gateway *g;
    uint64_t number;
    spoke_stream *in, *out;
    uint64_t bytes_seen; /* at the last look */
    spoke_ns since;      /* … when there were as many */
    bool cut;            /* by us */
    bool ending;         /* both ways are over; at most until `since` what was written leaves */
};

struct gateway {
    const char *listen[LISTENERS_MOST], *connect, *rules_file;
    int listen_count, passed_count, verbosity, mode;
    spoke_ns drain_ns;
    struct gateway_rules given, rules; /* on the command line; with what the file says */

    spoke_engine *e;
    spoke_stream_config config;
    spoke_stream_listener *listeners[LISTENERS_MOST];
    int listener_count;
    struct link *links;
    uint64_t live, ever, refused, failed, broken, idle, cut;
    uint64_t there, back; /* bytes, of those that are gone */
    int told;             /* the last failure to connect that was printed, unless one succeeded */
    bool waiting;         /* there is no room for more */
    bool looking;         /* for idle ones, from time to time */
    int signal;           /* that has told us to end, or 0 */
    sigset_t signals;
};

/* ---- the command line ---- */

static bool
usage_error(const char *text)
{
    tool_error("%s: see %s --help", text, tool_name);
    return false;
}

/* The command line's rules, and those of the file.  False: they stay as they were. */
static bool
read_rules(struct gateway *g)
{
    struct gateway_rules all = g->given;

    if (g->rules_file != NULL && !gateway_rules_read(&all, g->rules_file))
        return false;
    g->rules = all;
    return true;
}

static bool
set_mode(struct gateway *g, const char *text)
{
    char *end;
    unsigned long mode = strtoul(text, &end, 8);

    if (*text == '\0' || *end != '\0' || mode > 0777)
        return usage_error("--mode is up to three octal digits, such as 660");
    g->mode = (int)mode;
    return true;
}

static bool
add_listen(struct gateway *g, const char *url)
{
    if (g->listen_count == LISTENERS_MOST)
        return usage_error("these are too many addresses to listen on");
    g->listen[g->listen_count++] = url;
    return true;
}

static bool
set_option(void *request, int id, const char *value)
{
    struct gateway *g = request;

    switch (id) {
    case OPT_LISTEN: return add_listen(g, value);
    case OPT_CONNECT: g->connect = value; return true;
    case OPT_RULES: g->rules_file = value; return true;
    case OPT_DRAIN: return tool_seconds("drain", value, &g->drain_ns);
    case OPT_MODE: return set_mode(g, value);
    case OPT_VERBOSE: g->verbosity++; return true;
    case OPT_SILENT: g->verbosity--; return true;
    case OPT_ALLOW_UID: return gateway_rule_set(&g->given, "allow-uid", value);
    case OPT_ALLOW_GID: return gateway_rule_set(&g->given, "allow-gid", value);
    case OPT_MAX: return gateway_rule_set(&g->given, "max-connections", value);
    case OPT_IDLE: return gateway_rule_set(&g->given, "idle", value);
    default: return usage_error("this option is not for a gateway");
    }
}

/* How many listening sockets our parent has passed on, as sd_listen_fds(3) says. */
static bool
count_passed(struct gateway *g)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    char *end;
    long n;

    if (pid == NULL || count == NULL || strtol(pid, NULL, 10) != getpid())
        return true;
    n = strtol(count, &end, 10);
    if (*count == '\0' || *end != '\0' || n < 0)
        return usage_error("$LISTEN_FDS is no number of sockets");
    if (n > LISTENERS_MOST)
        return usage_error("these are too many sockets to listen on");
    g->passed_count = (int)n;
    return true;
}

static bool
is_inproc(const char *url)
{
    return strncmp(url, "inproc://", 9) == 0;
}

static bool
check_addresses(const struct gateway *g)
{
    if (g->connect == NULL || g->listen_count + g->passed_count == 0)
        return usage_error("give two addresses, where to listen and where to connect to");
    if (g->listen_count + g->passed_count > LISTENERS_MOST)
        return usage_error("these are too many addresses to listen on");
    for (int i = 0; i < g->listen_count; i++) {
        if (strcmp(g->listen[i], g->connect) == 0)
            return usage_error("it would connect to itself");
        if (is_inproc(g->listen[i]))
            return usage_error("inproc:// reaches nobody outside of this program");
    }
    return !is_inproc(g->connect) ||
           usage_error("inproc:// reaches nobody outside of this program");
}

static bool
parse(struct gateway *g, struct tool_args *args)
{
    if (!tool_obey_options(args, set_option, g))
        return false;
    for (int i = optind; i < args->argc; i++) {
        if (i + 1 == args->argc && g->connect == NULL)
            g->connect = args->argv[i];
        else if (!add_listen(g, args->argv[i]))
            return false;
    }
    tool_quiet = g->verbosity < 0;
    return count_passed(g) && check_addresses(g) && read_rules(g);
}

/* ---- counters ---- */

static void
print_counters(const struct gateway *g)
{
    uint64_t there = g->there, back = g->back;
    struct spoke_stream_info info;

    for (const struct link *k = g->links; k != NULL; k = k->next) {
        if (k->ending) /* they are counted */
            continue;
        if (spoke_stream_get_info(k->out, &info) == 0)
            there += info.bytes_written;
        if (spoke_stream_get_info(k->in, &info) == 0)
            back += info.bytes_written;
    }
    printf("%llu connections, %llu ever, to %s: %llu bytes there, %llu back",
           (unsigned long long)g->live, (unsigned long long)g->ever, g->connect,
           (unsigned long long)there, (unsigned long long)back);
    printf("; refused %llu, could not connect %llu, broken %llu, idle %llu, cut %llu\n",
           (unsigned long long)g->refused, (unsigned long long)g->failed,
           (unsigned long long)g->broken, (unsigned long long)g->idle, (unsigned long long)g->cut);
    fflush(stdout);
}

static void
say(const struct gateway *g, uint64_t number, const char *what, const char *why)
{
    if (g->verbosity > 0)
        fprintf(stderr, "%s: connection %llu %s%s%s\n", tool_name, (unsigned long long)number, what,
                why != NULL ? ": " : "", why != NULL ? why : "");
}

/* ---- connections ---- */

static void on_waiting(spoke_stream_listener *l, void *ctx);

static void
take_waiting(struct gateway *g)
{
    g->waiting = false;
    for (int i = 0; i < g->listener_count; i++)
        (void)spoke_stream_listener_on_ready(g->listeners[i], on_waiting, g);
}

static void
remove_link(struct link *k)
{
    struct gateway *g = k->g;

    if ((*k->place = k->next) != NULL)
        k->next->place = k->place;
    (void)spoke_stream_close(k->in);
    (void)spoke_stream_close(k->out);
    free(k);
    g->live--;
    if (g->signal != 0 && g->live == 0)
        (void)spoke_engine_stop(g->e);
    else if (g->waiting)
        take_waiting(g);
}

static bool
has_unsent(spoke_stream *s)
{
    struct spoke_stream_info info;

    return spoke_stream_get_info(s, &info) == 0 && info.unsent > 0;
}

/* Once what was written has left: the engine's end would lose it. */
static void
end_link(void *ctx)
{
    struct link *k = ctx;
    struct gateway *g = k->g;

    if ((!has_unsent(k->in) && !has_unsent(k->out)) || spoke_engine_now(g->e) >= k->since ||
        spoke_engine_after(g->e, LINGER_LOOK, end_link, k, NULL) != 0)
        remove_link(k);
}

/* Both ends see an error, and the link is done soon. */
static void
cut(struct link *k)
{
    k->cut = true;
    (void)spoke_stream_abort(k->in, 0);
    (void)spoke_stream_abort(k->out, 0);
}

/* The error that there was.  Another end's wish to hear no more is a way to end. */
static int
worst_of(const struct spoke_stream_report *report)
{
    for (int i = 0; i < 2; i++) {
        if (report->result[i] != 0 && report->result[i] != SPOKE_EPEERCLOSED)
            return report->result[i];
    }
    return 0;
}

static void
on_done(void *ctx, const struct spoke_stream_report *report)
{
    struct link *k = ctx;
    struct gateway *g = k->g;
    int error = worst_of(report);

    g->there += report->bytes[0];
    g->back += report->bytes[1];
    k->ending = true;
    k->since = spoke_engine_now(g->e) + (error == 0 ? LINGER : 0);
    if (error == 0) {
        say(g, k->number, "has ended", NULL);
    } else if (!k->cut) {
        g->broken++;
        say(g, k->number, "broke", spoke_strerror(error));
    }
    end_link(k);
}

/* Once, until there is another reason, or it had been possible. */
static void
count_failed(struct gateway *g, int error)
{
    g->failed++;
    if (g->verbosity > 0 || error != g->told)
        (void)tool_api_error("connect to", g->connect, error);
    g->told = error;
}

/* These are a peer's doing, or ours, after it was there. */
static bool
is_failed_dial(int error)
{
    return error != 0 && error != SPOKE_EPEERCLOSED && error != SPOKE_EABORTED;
}

static void
on_dialed(spoke_stream *out, unsigned what, void *ctx)
{
    struct link *k = ctx;
    struct gateway *g = k->g;
    struct spoke_stream_info info;
    int rc;

    if ((what & SPOKE_STREAM_WRITABLE) == 0 || spoke_stream_get_info(out, &info) != 0)
        return;
    if (is_failed_dial(info.write_end)) {
        count_failed(g, info.write_end);
    } else {
        g->told = 0;
        if ((rc = spoke_stream_join(k->in, out, on_done, k)) == 0)
            return;
        g->broken++;
        say(g, k->number, "broke", spoke_strerror(rc));
    }
    (void)spoke_stream_abort(k->in, 0);
    remove_link(k);
}

static void
turn_away(struct gateway *g, spoke_stream *s, const char *why)
{
    say(g, g->ever, "is turned away", why);
    (void)spoke_stream_abort(s, 0);
    (void)spoke_stream_close(s);
}

static struct link *
new_link(struct gateway *g, spoke_stream *in, spoke_stream *out)
{
    struct link *k = malloc(sizeof *k);

    if (k == NULL)
        return NULL;
    *k = (struct link){.next = g->links,
                       .place = &g->links,
                       .g = g,
                       .number = g->ever,
                       .in = in,
                       .out = out,
                       .since = spoke_engine_now(g->e)};
    if (k->next != NULL)
        k->next->place = &k->next;
    g->links = k;
    g->live++;
    return k;
}

static void
carry(struct gateway *g, spoke_stream *in)
{
    struct spoke_stream_info info;
    spoke_stream *out;
    struct link *k;
    int rc;

    g->ever++;
    if (spoke_stream_get_info(in, &info) != 0 ||
        !gateway_rules_allow(&g->rules, info.uid, info.gid)) {
        g->refused++;
        turn_away(g, in, "its user may not");
    } else if ((rc = spoke_stream_dial(&out, g->connect, &g->config, g->e, SPOKE_NOW)) != 0) {
        count_failed(g, rc);
        turn_away(g, in, spoke_strerror(rc));
    } else if ((k = new_link(g, in, out)) == NULL) {
        g->broken++;
        (void)spoke_stream_close(out);
        turn_away(g, in, "out of memory");
    } else {
        say(g, k->number, "has come", NULL);
        (void)spoke_stream_on_ready(out, on_dialed, k);
    }
}

/* Above the limit the rest waits where it is, in the listener and the kernel. */
static void
on_waiting(spoke_stream_listener *l, void *ctx)
{
    struct gateway *g = ctx;
    spoke_stream *s;

    while (g->signal == 0) {
        if (g->rules.most > 0 && g->live >= g->rules.most) {
            g->waiting = true;
            return;
        }
        if (spoke_stream_accept(l, &s, SPOKE_NOW) != 0)
            return;
        carry(g, s);
    }
}

/* ---- time ---- */

static void
cut_if_idle(struct link *k, spoke_ns now)
{
    struct spoke_stream_info in, out;

    if (k->cut || k->ending || spoke_stream_get_info(k->in, &in) != 0 ||
        spoke_stream_get_info(k->out, &out) != 0)
        return;
    if (in.bytes_read + out.bytes_read != k->bytes_seen) {
        k->bytes_seen = in.bytes_read + out.bytes_read;
        k->since = now;
    } else if (now - k->since >= k->g->rules.idle_ns) {
        k->g->idle++;
        say(k->g, k->number, "was idle", NULL);
        cut(k);
    }
}

static void look_for_idle(struct gateway *g);

static void
on_idle_time(void *ctx)
{
    struct gateway *g = ctx;
    spoke_ns now = spoke_engine_now(g->e);

    g->looking = false;
    for (struct link *k = g->links; k != NULL && g->rules.idle_ns > 0; k = k->next)
        cut_if_idle(k, now);
    look_for_idle(g);
}

/* Four times in as long as one may be. */
static void
look_for_idle(struct gateway *g)
{
    spoke_ns again = g->rules.idle_ns / 4;

    if (g->rules.idle_ns == 0 || g->looking)
        return;
    if (again > SPOKE_SECOND)
        again = SPOKE_SECOND;
    g->looking = spoke_engine_after(g->e, again > SPOKE_MS ? again : SPOKE_MS, on_idle_time, g,
                                    NULL) == 0;
}

/* ---- signals ---- */

static void
stop_listening(struct gateway *g)
{
    for (int i = 0; i < g->listener_count; i++)
        (void)spoke_stream_listener_close(g->listeners[i]);
    g->listener_count = 0;
}

/* The time to drain is over. */
static void
give_up(void *ctx)
{
    struct gateway *g = ctx;

    for (struct link *k = g->links; k != NULL; k = k->next) {
        if (k->ending) {
            k->since = 0;
        } else if (!k->cut) {
            g->cut++;
            say(g, k->number, "is cut", NULL);
            cut(k);
        }
    }
}

/* Once: no more connections, and wait for those that there are.  Twice: at once. */
static void
drain(struct gateway *g, int signal)
{
    bool again = g->signal != 0;

    g->signal = signal;
    stop_listening(g);
    if (g->live == 0)
        (void)spoke_engine_stop(g->e);
    else if (again || spoke_engine_after(g->e, g->drain_ns, give_up, g, NULL) != 0)
        give_up(g);
    else if (g->verbosity > 0)
        fprintf(stderr, "%s: waiting for %llu connections to end\n", tool_name,
                (unsigned long long)g->live);
}

static void
reload(struct gateway *g)
{
    if (g->rules_file == NULL || !read_rules(g))
        return;
    if (g->verbosity > 0)
        fprintf(stderr, "%s: the rules are read\n", tool_name);
    look_for_idle(g);
    if (g->waiting)
        take_waiting(g);
}

/* What the signal thread hands over. */
struct news {
    struct gateway *g;
    int signal;
};

static void
on_signal(void *ctx)
{
    struct news *news = ctx;

    switch (news->signal) {
    case SIGUSR1: print_counters(news->g); break;
    case SIGHUP: reload(news->g); break;
    default: drain(news->g, news->signal); break;
    }
    free(news);
}

static void *
wait_for_signals(void *ctx)
{
    struct gateway *g = ctx;
    int signal;

    for (;;) {
        struct news *news;

        if (sigwait(&g->signals, &signal) != 0 || (news = malloc(sizeof *news)) == NULL)
            continue;
        *news = (struct news){.g = g, .signal = signal};
        if (spoke_engine_post(g->e, on_signal, news) != 0) {
            free(news);
            return NULL; /* the engine is closed */
        }
    }
}

/* All threads have them blocked; one waits for them. */
static int
start_signal_thread(struct gateway *g)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, wait_for_signals, g);

    if (error == 0)
        error = pthread_detach(thread);
    if (error != 0)
        tool_error("cannot wait for signals: %s", strerror(error));
    return error == 0 ? TOOL_OK : TOOL_API;
}

/* Before there are threads.  An interrupt that whoever started us ignores (a shell's background)
 * stays ignored. */
static void
block_signals(struct gateway *g)
{
    struct sigaction inherited;

    sigemptyset(&g->signals);
    sigaddset(&g->signals, SIGUSR1);
    sigaddset(&g->signals, SIGHUP);
    sigaddset(&g->signals, SIGTERM);
    if (sigaction(SIGINT, NULL, &inherited) == 0 && inherited.sa_handler != SIG_IGN)
        sigaddset(&g->signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &g->signals, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* Connections were cut: whoever started us sees it. */
static void
die_of(const struct gateway *g)
{
    signal(g->signal, SIG_DFL);
    raise(g->signal);
    pthread_sigmask(SIG_UNBLOCK, &g->signals, NULL);
}

/* ---- running ---- */

/* Each connection has two descriptors. */
static void
raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void
on_log(void *ctx, enum spoke_log_level level, const char *text)
{
    (void)ctx;
    (void)level;
    tool_error("%s", text);
}

/* An address that can never work is an error now, not at the first connection: a dialer knows. */
static int
check_target(struct gateway *g)
{
    spoke_socket *s;
    spoke_dialer *d;
    int rc = spoke_socket_open(&s, SPOKE_PAIR, g->e);

    if (rc != 0)
        return tool_api_error("start", NULL, rc);
    if ((rc = spoke_dialer_create(&d, s, g->connect)) != 0)
        (void)tool_api_error("connect to", g->connect, rc);
    (void)spoke_socket_close(s);
    return rc == 0 ? TOOL_OK : TOOL_API;
}

static int
add_listener(struct gateway *g, spoke_stream_listener *l)
{
    char url[512];
    int rc;

    g->listeners[g->listener_count++] = l;
    if (g->verbosity > 0 && spoke_stream_listener_address(l, url, sizeof url) == 0)
        fprintf(stderr, "%s: listening on %s\n", tool_name, url);
    rc = spoke_stream_listener_on_ready(l, on_waiting, g);
    return rc == 0 ? TOOL_OK : tool_api_error("listen", NULL, rc);
}

static int
listen_on_passed(struct gateway *g, int fd)
{
    spoke_stream_listener *l;
    int rc = spoke_stream_listen_fd(&l, fd, &g->config, g->e);

    if (rc == 0)
        return add_listener(g, l);
    tool_error("cannot listen on descriptor %d, which $LISTEN_FDS counts: %s: pass on a stream "
               "socket that listens",
               fd, spoke_strerror(rc));
    return TOOL_API;
}

static int
start_listening(struct gateway *g)
{
    spoke_stream_listener *l;
    int rc, status = TOOL_OK;

    for (int i = 0; i < g->passed_count && status == TOOL_OK; i++)
        status = listen_on_passed(g, FIRST_PASSED + i);
    for (int i = 0; i < g->listen_count && status == TOOL_OK; i++) {
        rc = spoke_stream_listen(&l, g->listen[i], &g->config, g->e);
        status = rc == 0 ? add_listener(g, l) : tool_api_error("listen on", g->listen[i], rc);
    }
    return status;
}

static int
run_engine(struct gateway *g)
{
    int status;

    if ((status = check_target(g)) != TOOL_OK || (status = start_listening(g)) != TOOL_OK ||
        (status = start_signal_thread(g)) != TOOL_OK)
        return status;
    look_for_idle(g);
    (void)spoke_engine_run(g->e);
    if (g->verbosity >= 0)
        print_counters(g);
    return tool_finish_output();
}

static int
run(struct gateway *g)
{
    int rc, status;

    spoke_stream_config_init(&g->config);
    g->config.ipc_mode = g->mode;
    g->config.backlog = BACKLOG;
    g->config.linger_ns = LINGER;
    raise_limit();
    block_signals(g);
    if (g->verbosity > 0)
        spoke_set_log(on_log, NULL, SPOKE_LOG_WARNING);
    if ((rc = spoke_engine_open(&g->e, NULL)) != 0)
        return tool_api_error("start", NULL, rc);
    status = run_engine(g);
    (void)spoke_engine_close(g->e);
    if (g->cut > 0)
        die_of(g);
    return status;
}

int
gateway_main(int argc, char **argv)
{
    static const struct tool_page page = {
        .usage = "LISTEN CONNECT [OPTION …]",
        .about = "Take connections at LISTEN and carry them to CONNECT, byte by byte: tcp:// and "
                 "ipc:// are any\nprogram's, shm:// is another gateway's, or a spoke_stream's.",
        .options = options,
        .notes = "SIGTERM ends it when its connections have, a second one at once; SIGHUP reads "
                 "the rules again;\nSIGUSR1 prints counters, which are also printed at the end.  "
                 "Sockets that systemd passes on\nare listened on, too; then CONNECT is "
                 "enough.\n\n"
                 "Examples:\n"
                 "  spoke gateway tcp://127.0.0.1:6379 ipc:///run/redis/redis.sock\n"
                 "  spoke gateway shm:///run/redis.shm tcp://127.0.0.1:6379\n"
                 "  spoke gateway tcp://127.0.0.1:6380 shm:///run/redis.shm",
    };
    struct tool_args args = {.argc = argc, .argv = argv, .page = &page};
    static struct gateway g; /* the signal thread may still look at it at the very end */

    g = (struct gateway){.mode = -1, .drain_ns = 10 * SPOKE_SECOND};
    if (parse(&g, &args))
        args.status = run(&g);
    return args.status;
}
