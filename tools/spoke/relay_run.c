/* SPDX-License-Identifier: MIT */
/* Where connections come from, signals, and the end. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "relay.h"

#define FIRST_PASSED 3 /* the first descriptor that systemd passes on */
#define BACKLOG      64
#define FAREWELL     SPOKE_SECOND /* for goodbyes of carriers that nothing is left on */

/* ---- the command line ---- */

bool
relay_usage_error(const char *text)
{
    tool_error("%s: see %s --help", text, tool_name);
    return false;
}

/* The command line's rules, and those of the file.  False: they stay as they were. */
bool
relay_read_rules(struct relay *r)
{
    struct gateway_rules all = r->given;

    if (r->rules_file != NULL && !gateway_rules_read(&all, r->rules_file))
        return false;
    r->rules = all;
    return true;
}

static bool
set_mode(struct relay *r, const char *text)
{
    char *end;
    unsigned long mode = strtoul(text, &end, 8);

    if (*text == '\0' || *end != '\0' || mode > 0777)
        return relay_usage_error("--mode is up to three octal digits, such as 660");
    r->mode = (int)mode;
    return true;
}

bool
relay_set_option(struct relay *r, int id, const char *value)
{
    switch (id) {
    case RELAY_MODE: return set_mode(r, value);
    case RELAY_ALLOW_UID: return gateway_rule_set(&r->given, "allow-uid", value);
    case RELAY_ALLOW_GID: return gateway_rule_set(&r->given, "allow-gid", value);
    case RELAY_MAX_CONNECTIONS: return gateway_rule_set(&r->given, "max-connections", value);
    case RELAY_MAX_CARRIERS: return gateway_rule_set(&r->given, "max-carriers", value);
    case RELAY_MAX_STREAMS: return gateway_rule_set(&r->given, "max-streams", value);
    case RELAY_IDLE: return gateway_rule_set(&r->given, "idle", value);
    case RELAY_RULES: r->rules_file = value; return true;
    case RELAY_ORIGINS: r->origins = value; return true;
    case RELAY_DIRECTORY: r->directory = value; return true;
    case RELAY_HOLD: return tool_seconds("hold", value, &r->hold_ns);
    case RELAY_DRAIN: return tool_seconds("drain", value, &r->drain_ns);
    case RELAY_VERBOSE: r->verbosity++; return true;
    case RELAY_SILENT: r->verbosity--; return true;
    default:
        return secure_option(&r->secure, id, value) ||
               relay_usage_error("this option is not for this command");
    }
}

struct front *
relay_last_front(const struct relay *r)
{
    struct front *f = LIST_FIRST(&r->fronts);

    while (f != NULL && LIST_NEXT(f, of_all) != NULL)
        f = LIST_NEXT(f, of_all);
    return f;
}

static bool
add_front(struct relay *r, struct front front)
{
    struct front *f, *last = relay_last_front(r);

    if (r->front_count == RELAY_FRONTS_MOST)
        return relay_usage_error("these are too many addresses to listen on");
    if ((f = malloc(sizeof *f)) == NULL) {
        (void)tool_api_error("start", NULL, SPOKE_ENOMEM);
        return false;
    }
    *f = front;
    f->r = r;
    r->front_count++;
    if (last == NULL)
        LIST_INSERT_HEAD(&r->fronts, f, of_all);
    else
        LIST_INSERT_AFTER(last, f, of_all);
    return true;
}

bool
relay_add_front(struct relay *r, enum front_kind kind, const char *url, const char *target)
{
    return add_front(r, (struct front){.url = url, .kind = kind, .target = target, .fd = -1});
}

/* How many listening sockets our parent has passed on, as sd_listen_fds(3) says. */
bool
relay_count_passed(struct relay *r)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    char *end;
    long n;

    if (pid == NULL || count == NULL || strtol(pid, NULL, 10) != getpid())
        return true;
    n = strtol(count, &end, 10);
    if (*count == '\0' || *end != '\0' || n < 0)
        return relay_usage_error("$LISTEN_FDS is no number of sockets");
    if (n > RELAY_FRONTS_MOST)
        return relay_usage_error("these are too many sockets to listen on");
    r->passed_count = (int)n;
    for (int i = 0; i < r->passed_count; i++) {
        if (!add_front(r, (struct front){.kind = r->passed_kind, .fd = FIRST_PASSED + i}))
            return false;
    }
    return true;
}

/* ---- who comes ---- */

static bool
is_full(const struct front *f)
{
    const struct relay *r = f->r;

    if (f->kind == FRONT_CARRIER)
        return r->rules.carriers > 0 && r->carriers_live >= r->rules.carriers;
    return relay_is_full(r);
}

/* Above the limit the rest waits where it is, in the listener and the kernel. */
static void
on_waiting(spoke_stream_listener *l, void *ctx)
{
    struct front *f = ctx;
    spoke_stream *s;

    while (f->r->signal == 0) {
        if (is_full(f)) {
            f->r->full = true;
            return;
        }
        if (spoke_stream_accept(l, &s, SPOKE_NOW) != 0)
            return;
        if (f->kind == FRONT_CARRIER)
            carrier_accept(f->r, s);
        else
            relay_carry(f, s);
    }
}

void
relay_take_waiting(struct relay *r)
{
    struct front *f;

    r->full = false;
    for (f = LIST_FIRST(&r->fronts); f != NULL; f = LIST_NEXT(f, of_all)) {
        if (f->listener != NULL)
            (void)spoke_stream_listener_on_ready(f->listener, on_waiting, f);
    }
    carrier_take_streams(r);
}

int
front_open(struct front *f)
{
    struct relay *r = f->r;
    char url[512];
    int rc = f->url != NULL ? spoke_stream_listen(&f->listener, f->url, &r->config, r->e)
                            : spoke_stream_listen_fd(&f->listener, f->fd, &r->config, r->e);

    if (rc != 0) {
        f->listener = NULL;
        return rc;
    }
    if (r->verbosity > 0 && spoke_stream_listener_address(f->listener, url, sizeof url) == 0)
        fprintf(stderr, "%s: listening on %s\n", tool_name, url);
    return spoke_stream_listener_on_ready(f->listener, on_waiting, f);
}

static void
stop_listening(struct front *f)
{
    if (f->listener != NULL)
        (void)spoke_stream_listener_close(f->listener);
    f->listener = NULL;
}

/* Who came through it and has no other side yet is turned away; what goes through goes on. */
void
front_close(struct front *f)
{
    struct relay *r = f->r;
    struct link *next;

    stop_listening(f);
    LIST_REMOVE(f, of_all);
    r->front_count--;
    for (struct link *k = LIST_FIRST(&r->links); k != NULL; k = next) {
        next = LIST_NEXT(k, of_all);
        if (k->front != f)
            continue;
        k->front = NULL;
        if (k->state < LINK_JOINED)
            link_cut(k);
    }
    if (f->control != NULL)
        (void)spoke_stream_close(f->control);
    free(f->texts);
    free(f);
}

static int
start_listening(struct relay *r)
{
    struct front *f;
    int rc;

    for (f = LIST_FIRST(&r->fronts); f != NULL; f = LIST_NEXT(f, of_all)) {
        if ((rc = front_open(f)) == 0)
            continue;
        if (f->url != NULL)
            return tool_api_error("listen on", f->url, rc);
        tool_error("cannot listen on descriptor %d, which $LISTEN_FDS counts: %s: pass on a stream "
                   "socket that listens",
                   f->fd, spoke_strerror(rc));
        return TOOL_API;
    }
    return TOOL_OK;
}

/* ---- the end ---- */

static void
stop_now(void *ctx)
{
    struct relay *r = ctx;

    carriers_close(r);
    (void)spoke_engine_stop(r->e);
}

/* Once all connections are over carriers only have to say goodbye. */
void
relay_check_end(struct relay *r)
{
    if (r->signal == 0 || r->live > 0)
        return;
    if (r->carriers_live == 0) {
        (void)spoke_engine_stop(r->e);
    } else if (!r->farewell) {
        r->farewell = true;
        if (spoke_engine_after(r->e, FAREWELL, stop_now, r, NULL) != 0)
            stop_now(r);
    }
}

/* The time to drain is over. */
static void
give_up(void *ctx)
{
    struct relay *r = ctx;
    struct link *next;

    for (struct link *k = LIST_FIRST(&r->links); k != NULL; k = next) {
        next = LIST_NEXT(k, of_all);
        if (k->state == LINK_ENDING) {
            k->since = 0;
        } else if (!k->cut) {
            r->cut++;
            link_say(k, "is cut", NULL);
            link_cut(k);
        }
    }
}

/* Who waits for a carrier would wait for one that takes nobody any more. */
static void
turn_waiting_away(struct relay *r)
{
    struct link *k;

    while ((k = TAILQ_FIRST(&r->waiting)) != NULL)
        link_fails(k, SPOKE_MUX_GOING_AWAY, NULL, NULL, NULL);
}

/* Once: no more connections, and wait for those that there are.  Twice: at once. */
static void
drain(struct relay *r, int signal)
{
    bool again = r->signal != 0;
    struct front *f;

    r->signal = signal;
    for (f = LIST_FIRST(&r->fronts); f != NULL; f = LIST_NEXT(f, of_all))
        stop_listening(f);
    turn_waiting_away(r);
    carriers_go_away(r);
    if (r->live == 0)
        relay_check_end(r);
    else if (again || spoke_engine_after(r->e, r->drain_ns, give_up, r, NULL) != 0)
        give_up(r);
    else if (r->verbosity > 0)
        fprintf(stderr, "%s: waiting for %llu connections to end\n", tool_name,
                (unsigned long long)r->live);
}

/* ---- signals ---- */

static void
reload(struct relay *r)
{
    if (r->rules_file == NULL || !relay_read_rules(r))
        return;
    if (r->verbosity > 0)
        fprintf(stderr, "%s: the rules are read\n", tool_name);
    relay_look_for_idle(r);
    if (r->full)
        relay_take_waiting(r);
}

/* What the signal thread hands over. */
struct news {
    struct relay *r;
    int signal;
};

static void
on_signal(void *ctx)
{
    struct news *news = ctx;

    switch (news->signal) {
    case SIGUSR1: relay_print_counters(news->r); break;
    case SIGHUP: reload(news->r); break;
    default: drain(news->r, news->signal); break;
    }
    free(news);
}

static void *
wait_for_signals(void *ctx)
{
    struct relay *r = ctx;
    int signal;

    for (;;) {
        struct news *news;

        if (sigwait(&r->signals, &signal) != 0 || (news = malloc(sizeof *news)) == NULL)
            continue;
        *news = (struct news){.r = r, .signal = signal};
        if (spoke_engine_post(r->e, on_signal, news) != 0) {
            free(news);
            return NULL; /* the engine is closed */
        }
    }
}

/* All threads have them blocked; one waits for them. */
static int
start_signal_thread(struct relay *r)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, wait_for_signals, r);

    if (error == 0)
        error = pthread_detach(thread);
    if (error != 0)
        tool_error("cannot wait for signals: %s", strerror(error));
    return error == 0 ? TOOL_OK : TOOL_API;
}

/* Before there are threads.  An interrupt that whoever started us ignores (a shell's background)
 * stays ignored. */
static void
block_signals(struct relay *r)
{
    struct sigaction inherited;

    sigemptyset(&r->signals);
    sigaddset(&r->signals, SIGUSR1);
    sigaddset(&r->signals, SIGHUP);
    sigaddset(&r->signals, SIGTERM);
    if (sigaction(SIGINT, NULL, &inherited) == 0 && inherited.sa_handler != SIG_IGN)
        sigaddset(&r->signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &r->signals, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* Connections were cut: whoever started us sees it. */
static void
die_of(const struct relay *r)
{
    signal(r->signal, SIG_DFL);
    raise(r->signal);
    pthread_sigmask(SIG_UNBLOCK, &r->signals, NULL);
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
check_address(const struct relay *r, const char *url)
{
    spoke_socket *s;
    spoke_dialer *d;
    int rc;

    if (url == NULL)
        return TOOL_OK;
    if ((rc = spoke_socket_open(&s, SPOKE_PAIR, r->e)) != 0)
        return tool_api_error("start", NULL, rc);
    if ((rc = spoke_dialer_create(&d, s, url)) != 0)
        (void)tool_api_error("connect to", url, rc);
    (void)spoke_socket_close(s);
    return rc == 0 ? TOOL_OK : TOOL_API;
}

static int
run_engine(struct relay *r)
{
    int status;

    if ((status = check_address(r, r->target)) != TOOL_OK ||
        (status = check_address(r, r->carrier_url)) != TOOL_OK ||
        (status = start_listening(r)) != TOOL_OK || (status = start_signal_thread(r)) != TOOL_OK)
        return status;
    relay_look_for_idle(r);
    if (r->carrier_url != NULL)
        carrier_keep(r);
    (void)spoke_engine_run(r->e);
    if (r->verbosity >= 0)
        relay_print_counters(r);
    return tool_finish_output();
}

int
relay_run(struct relay *r)
{
    int rc, status;

    spoke_stream_config_init(&r->config);
    if ((status = secure_config(&r->secure, &r->config.tls)) != TOOL_OK)
        return status;
    r->config.ipc_mode = r->mode;
    r->config.backlog = BACKLOG;
    r->config.linger_ns = RELAY_LINGER;
    r->config.ws_origins = r->origins;
    r->config.ws_directory = r->directory;
    raise_limit();
    block_signals(r);
    if (r->verbosity > 0)
        spoke_set_log(on_log, NULL, SPOKE_LOG_WARNING);
    if ((rc = spoke_engine_open(&r->e, NULL)) != 0)
        return tool_api_error("start", NULL, rc);
    status = run_engine(r);
    (void)spoke_engine_close(r->e);
    spoke_tls_config_free(r->config.tls);
    if (r->cut > 0)
        die_of(r);
    return status;
}
