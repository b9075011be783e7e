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
#include <unistd.h>

#include "tool.h"

#define LISTENERS_MOST 16
#define IDS_MOST       32
#define FIRST_PASSED   3 /* the first descriptor that systemd passes on */

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
    {"max-connections", 0, "N", "more wait or are turned away; 0, the default: no limit", OPT_MAX},
    {"idle", 0, "SEC", "end a connection after so long without a byte; 0, the default: never",
     OPT_IDLE},
    {"rules", 0, "FILE",
     "these four from FILE, one a line, \"allow-uid 1000\"; read again at SIGHUP", OPT_RULES},
    {NULL, 0, NULL, "Other", 0},
    {"drain", 0, "SEC", "at SIGTERM wait so long for connections to end; 10", OPT_DRAIN},
    {"verbose", 'v', NULL, "say what happens to each connection", OPT_VERBOSE},
    {"silent", 'q', NULL, "print no errors and no counters at the end", OPT_SILENT},
    {0},
};

/* What may change while it runs. */
struct rules {
    int uids[IDS_MOST], gids[IDS_MOST];
    int uid_count, gid_count;
    uint64_t most;
    spoke_ns idle_ns;
};

struct link {
    struct link *next, **place; /* who points to it */
    struct gateway *g;
    uint64_t number;
    spoke_stream *in, *out;
    uint64_t bytes_seen; /* at the last look */
    spoke_ns since;      /* … when there were as many */
};

struct gateway {
    const char *listen[LISTENERS_MOST], *connect, *rules_file;
    int listen_count, passed_count, verbosity, mode;
    spoke_ns drain_ns;
    struct rules given, rules; /* on the command line; with what the file says */

    spoke_engine *e;
    spoke_stream_listener *listeners[LISTENERS_MOST];
    int listener_count;
    struct link *links;
    uint64_t live, ever, refused, failed, broken, idle;
    uint64_t there, back;   /* bytes, of those that are gone */
    bool draining, waiting; /* waiting: there is no room for more */
};

/* ---- the command line and the file of rules ---- */

static bool
usage_error(const char *text)
{
    tool_error("%s: see %s --help", text, tool_name);
    return false;
}

static bool
add_id(const char *name, const char *text, int *ids, int *count)
{
    uint64_t id;

    if (!tool_number(name, text, INT32_MAX, &id))
        return false;
    if (*count == IDS_MOST)
        return usage_error("there are too many users or groups");
    ids[(*count)++] = (int)id;
    return true;
}

/* One of those that a file may have, too. */
static bool
set_rule(struct rules *r, int id, const char *value)
{
    switch (id) {
    case OPT_ALLOW_UID: return add_id("allow-uid", value, r->uids, &r->uid_count);
    case OPT_ALLOW_GID: return add_id("allow-gid", value, r->gids, &r->gid_count);
    case OPT_MAX: return tool_number("max-connections", value, 1000000, &r->most);
    default: return tool_seconds("idle", value, &r->idle_ns);
    }
}

/* "name value", or a comment. */
static bool
obey_line(struct rules *r, const char *file, int number, char *line)
{
    static const struct {
        const char *name;
        int id;
    } known[] = {{"allow-uid", OPT_ALLOW_UID},
                 {"allow-gid", OPT_ALLOW_GID},
                 {"max-connections", OPT_MAX},
                 {"idle", OPT_IDLE}};
    char *rest = NULL, *name = strtok_r(line, " \t\r\n", &rest);
    char *value = name != NULL ? strtok_r(NULL, " \t\r\n", &rest) : NULL;

    if (name == NULL || name[0] == '#')
        return true;
    for (size_t i = 0; value != NULL && i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name) == 0)
            return set_rule(r, known[i].id, value);
    }
    tool_error("%s, line %d: \"%s\" is no rule: allow-uid, allow-gid, max-connections and idle "
               "are, each with a value",
               file, number, name);
    return false;
}

/* The command line's rules, and those of the file.  False: they stay as they were. */
static bool
read_rules(struct gateway *g)
{
    struct rules all = g->given;
    char line[256];
    bool fine = true;
    FILE *file;

    if (g->rules_file != NULL) {
        if ((file = fopen(g->rules_file, "re")) == NULL) {
            tool_error("cannot read the rules in %s: %s", g->rules_file, strerror(errno));
            return false;
        }
        for (int number = 1; fine && fgets(line, sizeof line, file) != NULL; number++)
            fine = obey_line(&all, g->rules_file, number, line);
        fclose(file);
    }
    if (fine)
        g->rules = all;
    return fine;
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
    case OPT_ALLOW_UID:
    case OPT_ALLOW_GID:
    case OPT_MAX:
    case OPT_IDLE: return set_rule(&g->given, id, value);
    default: return usage_error("this option is not for a gateway");
    }
}

/* How many listening sockets our parent has passed on, as sd_listen_fds(3) says. */
static int
count_passed(void)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");

    if (pid == NULL || count == NULL || strtol(pid, NULL, 10) != getpid())
        return 0;
    long n = strtol(count, NULL, 10);
    return n > 0 && n <= LISTENERS_MOST ? (int)n : 0;
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
    g->passed_count = count_passed();
    if (g->connect == NULL || g->listen_count + g->passed_count == 0)
        return usage_error("give two addresses, where to listen and where to connect to");
    if (g->listen_count + g->passed_count > LISTENERS_MOST)
        return usage_error("these are too many addresses to listen on");
    for (int i = 0; i < g->listen_count; i++) {
        if (strcmp(g->listen[i], g->connect) == 0)
            return usage_error("it would connect to itself");
        if (strncmp(g->listen[i], "inproc://", 9) == 0)
            return usage_error("inproc:// reaches nobody outside of this program");
    }
    return read_rules(g);
}

/* ---- counters ---- */

static void
print_counters(const struct gateway *g)
{
    uint64_t there = g->there, back = g->back;
    struct spoke_stream_info info;

    for (const struct link *k = g->links; k != NULL; k = k->next) {
        if (spoke_stream_get_info(k->out, &info) == 0) {
            there += info.bytes_written;
            back += info.bytes_read;
        }
    }
    printf("%llu connections, %llu ever, to %s: %llu bytes there, %llu back",
           (unsigned long long)g->live, (unsigned long long)g->ever, g->connect,
           (unsigned long long)there, (unsigned long long)back);
    printf("; refused %llu, could not connect %llu, broken %llu, idle %llu\n",
           (unsigned long long)g->refused, (unsigned long long)g->failed,
           (unsigned long long)g->broken, (unsigned long long)g->idle);
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
    if (g->draining && g->live == 0)
        (void)spoke_engine_stop(g->e);
    else if (g->waiting)
        take_waiting(g);
}

static void
on_done(void *ctx, const struct spoke_stream_report *report)
{
    struct link *k = ctx;
    struct gateway *g = k->g;
    int wrong = report->result[0] != 0 ? report->result[0] : report->result[1];

    g->there += report->bytes[0];
    g->back += report->bytes[1];
    /* The other end's wish to hear no more is a way to end, not a fault. */
    if (wrong == 0 || wrong == SPOKE_EPEERCLOSED) {
        say(g, k->number, "has ended", NULL);
    } else if (report->bytes[0] + report->bytes[1] == 0 && report->result[1] != SPOKE_ECONNRESET) {
        g->failed++;
        if (g->verbosity > 0 || g->failed == 1)
            (void)tool_api_error("connect to", g->connect, wrong);
    } else {
        g->broken++;
        say(g, k->number, "broke", spoke_strerror(wrong));
    }
    remove_link(k);
}

static bool
is_listed(int id, const int *ids, int count)
{
    for (int i = 0; i < count; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

static bool
is_allowed(const struct rules *r, spoke_stream *s)
{
    struct spoke_stream_info info;

    if (r->uid_count + r->gid_count == 0)
        return true;
    return spoke_stream_get_info(s, &info) == 0 && (is_listed(info.uid, r->uids, r->uid_count) ||
                                                    is_listed(info.gid, r->gids, r->gid_count));
}

static void
refuse(struct gateway *g, spoke_stream *s, const char *why)
{
    g->refused++;
    say(g, g->ever, "refused", why);
    (void)spoke_stream_abort(s, 0);
    (void)spoke_stream_close(s);
}

static void
carry(struct gateway *g, spoke_stream *in)
{
    struct link *k;
    int rc;

    g->ever++;
    if (!is_allowed(&g->rules, in)) {
        refuse(g, in, "its user may not");
        return;
    }
    if ((k = calloc(1, sizeof *k)) == NULL) {
        refuse(g, in, "out of memory");
        return;
    }
    *k = (struct link){.g = g, .number = g->ever, .in = in};
    if ((rc = spoke_stream_dial(&k->out, g->connect, NULL, g->e, SPOKE_NOW)) != 0 ||
        (rc = spoke_stream_join(in, k->out, on_done, k)) != 0) {
        g->failed++;
        (void)tool_api_error("connect to", g->connect, rc);
        (void)spoke_stream_abort(in, 0);
        (void)spoke_stream_close(in);
        if (k->out != NULL)
            (void)spoke_stream_close(k->out);
        free(k);
        return;
    }
    if ((k->next = g->links) != NULL)
        k->next->place = &k->next;
    k->place = &g->links;
    g->links = k;
    g->live++;
    say(g, k->number, "has come", NULL);
}

/* Above the limit the rest waits where it is, in the listener and the kernel. */
static void
on_waiting(spoke_stream_listener *l, void *ctx)
{
    struct gateway *g = ctx;
    spoke_stream *s;

    while (!g->draining) {
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

/* Both streams end, and with them the link, soon. */
static void
end_if_idle(struct link *k, spoke_ns now)
{
    struct spoke_stream_info in, out;

    if (spoke_stream_get_info(k->in, &in) != 0 || spoke_stream_get_info(k->out, &out) != 0)
        return;
    if (in.bytes_read + out.bytes_read != k->bytes_seen || k->since == 0) {
        k->bytes_seen = in.bytes_read + out.bytes_read;
        k->since = now;
    } else if (now - k->since >= k->g->rules.idle_ns) {
        k->g->idle++;
        say(k->g, k->number, "was idle", NULL);
        (void)spoke_stream_abort(k->in, 0);
        (void)spoke_stream_abort(k->out, 0);
    }
}

static void
look_for_idle(void *ctx)
{
    struct gateway *g = ctx;
    spoke_ns now = spoke_engine_now(g->e), again = g->rules.idle_ns / 4;

    for (struct link *k = g->links, *next; k != NULL && g->rules.idle_ns > 0; k = next) {
        next = k->next;
        end_if_idle(k, now);
    }
    if (again == 0 || again > SPOKE_SECOND)
        again = SPOKE_SECOND;
    (void)spoke_engine_after(g->e, again > SPOKE_MS ? again : SPOKE_MS, look_for_idle, g, NULL);
}

static void
give_up(void *ctx)
{
    struct gateway *g = ctx;

    (void)spoke_engine_stop(g->e);
}

/* ---- signals ---- */

static void
stop_listening(struct gateway *g)
{
    for (int i = 0; i < g->listener_count; i++)
        (void)spoke_stream_listener_close(g->listeners[i]);
    g->listener_count = 0;
}

/* Once: no more connections, and wait for those that there are.  Twice: at once. */
static void
drain(struct gateway *g)
{
    bool again = g->draining;

    g->draining = true;
    stop_listening(g);
    if (again || g->live == 0 || spoke_engine_after(g->e, g->drain_ns, give_up, g, NULL) != 0)
        (void)spoke_engine_stop(g->e);
    else if (g->verbosity > 0)
        fprintf(stderr, "%s: waiting for %llu connections to end\n", tool_name,
                (unsigned long long)g->live);
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
    struct gateway *g = news->g;

    switch (news->signal) {
    case SIGUSR1: print_counters(g); break;
    case SIGHUP:
        if (read_rules(g) && g->verbosity > 0)
            fprintf(stderr, "%s: the rules are read\n", tool_name);
        if (g->waiting)
            take_waiting(g);
        break;
    default: drain(g); break;
    }
    free(news);
}

static void *
wait_for_signals(void *ctx)
{
    struct gateway *g = ctx;
    sigset_t set;
    int signal;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    for (;;) {
        struct news *news = malloc(sizeof *news);

        if (news == NULL || sigwait(&set, &signal) != 0) {
            free(news);
            continue;
        }
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

static void
block_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* ---- running ---- */

static int
add_listener(struct gateway *g, spoke_stream_listener *l)
{
    char url[512];
    int rc;

    g->listeners[g->listener_count++] = l;
    if (g->verbosity > 0 && spoke_stream_listener_address(l, url, sizeof url) == 0)
        fprintf(stderr, "%s: listening on %s\n", tool_name, url);
    rc = spoke_stream_listener_on_ready(l, on_waiting, g);
    return rc == 0 ? TOOL_OK : tool_api_error("listen on", NULL, rc);
}

static int
start_listening(struct gateway *g)
{
    spoke_stream_config config;
    spoke_stream_listener *l;
    int rc, status = TOOL_OK;

    spoke_stream_config_init(&config);
    config.ipc_mode = g->mode;
    config.backlog = 256;
    for (int i = 0; i < g->listen_count && status == TOOL_OK; i++) {
        rc = spoke_stream_listen(&l, g->listen[i], &config, g->e);
        status = rc == 0 ? add_listener(g, l) : tool_api_error("listen on", g->listen[i], rc);
    }
    for (int i = 0; i < g->passed_count && status == TOOL_OK; i++) {
        rc = spoke_stream_listen_fd(&l, FIRST_PASSED + i, &config, g->e);
        status = rc == 0 ? add_listener(g, l)
                         : tool_api_error("use a socket that was passed on to", NULL, rc);
    }
    return status;
}

static int
run(struct gateway *g)
{
    int rc, status;

    tool_quiet = g->verbosity < 0;
    block_signals();
    if ((rc = spoke_engine_open(&g->e, NULL)) != 0)
        return tool_api_error("start", NULL, rc);
    if ((status = start_listening(g)) == TOOL_OK && (status = start_signal_thread(g)) == TOOL_OK) {
        look_for_idle(g);
        (void)spoke_engine_run(g->e);
        if (g->verbosity >= 0)
            print_counters(g);
    }
    g->draining = true;
    (void)spoke_engine_close(g->e);
    return status != TOOL_OK ? status : tool_finish_output();
}

int
gateway_main(int argc, char **argv)
{
    static const struct tool_page page = {
        .usage = "LISTEN CONNECT [OPTION …]",
        .about = "Take connections at LISTEN and carry them to CONNECT, byte by byte: tcp:// and "
                 "ipc:// are any "
                 "program's,\nshm:// is another gateway's, or a spoke_stream's.",
        .options = options,
        .notes = "SIGTERM ends it when its connections have, SIGHUP reads the rules again, SIGUSR1 "
                 "prints counters, "
                 "which\nare also printed at the end.  Sockets that systemd passes on are listened "
                 "on, too.\n\n"
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
