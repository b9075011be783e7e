/* SPDX-License-Identifier: MIT */
/* spoke bench: measures spoke beside the raw kernel and other libraries, each in processes of its
 * own, in turn. This file is the command line; bench_compare.c, bench_growth.c,
 * bench_subscriptions.c, bench_mux.c and bench_channel.c do the work, bench_run.c runs the
 * programs, and bench_rows.c, bench_targets.c and bench_html.c show what came out.  One thread. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench_plan.h"
#include "tool.h"

enum {
    ID_TRANSPORT = TOOL_FIRST_ID,
    ID_SIZE,
    ID_MODE,
    ID_WAIT,
    ID_BATCH,
    ID_PEERS,
    ID_PAIRS,
    ID_SECONDS,
    ID_IDLE,
    ID_SUBSCRIBERS,
    ID_QUICK,
    ID_JSON,
    ID_HTML,
};

static const struct tool_option options[] = {
    {NULL, 0, NULL, "What to measure", 0},
    {"transport", 't', "LIST", "inproc, ipc, tcp, shm, tls+tcp, ws, wss (those that suit)",
     ID_TRANSPORT},
    {"size", 's', "LIST", "bytes, also 16K, 1M (64; throughput 1M too; others: see man)", ID_SIZE},
    {"mode", 'm', "LIST", "owned, shared (both)", ID_MODE},
    {"wait", 'w', "LIST", "block, poll, adaptive (all; one-way, channel: block, adaptive)",
     ID_WAIT},
    {"batch", 0, "LIST", "one-way: messages per call (shared 1, owned 1 and 256)", ID_BATCH},
    {"connections", 0, "N", "how many idle ones (10000, in shared memory 1000; mux: streams)",
     ID_IDLE},
    {"subscribers", 0, "LIST", "fanout: how many: 1, 10, 100, 1000 (1,10,100)", ID_SUBSCRIBERS},
    {"peers", 'p', NULL, "also other libraries: ZeroMQ, NNG, nanomsg, iceoryx, where installed",
     ID_PEERS},
    {NULL, 0, NULL, "How long", 0},
    {"pairs", 'n', "N", "rounds; each runs every program once (5)", ID_PAIRS},
    {"seconds", 0, "S", "one run of one program (0.5)", ID_SECONDS},
    {"quick", 'q', NULL, "3 rounds of 0.2 seconds: to see that it works", ID_QUICK},
    {NULL, 0, NULL, "Results", 0},
    {"json", 0, "FILE", "also as JSON (-: standard output, the table goes to standard error)",
     ID_JSON},
    {"html", 0, "FILE", "also as a page with drawings", ID_HTML},
    {0},
};

static const struct tool_page page = {
    .usage = "[WHAT] [OPTION …]",
    .about = "Measures spoke beside the smallest program that does the same work with no library "
             "(raw: the\n"
             "fastest of several kernel mechanisms) and beside other libraries.  All take turns, "
             "so that\n"
             "compared figures come from the same minutes; the ratios are what counts.  Every "
             "message is\n"
             "checked.\n\n"
             "WHAT is latency, throughput, handshake, stream, mux, channel, loan, pipeline,\n"
             "fanout, survey, bus, connections, subscriptions or all; "
             "latency and throughput if not given.",
    .options = options,
    .notes =
        "Round trips: p50, p99, p99.9 in microseconds.  One-way: messages per second; fan-out: "
        "deliveries.  CPU is both "
        "sides'.\n"
        "A ratio is the median over rounds; in brackets the smallest and the largest.  Raw "
        "programs and other\n"
        "libraries have no adaptive policy: beside it raw is at its fastest, the others wait in "
        "their own way.\n"
        "Exit code 0, also when a target is missed; 3 if a program failed or a wrong byte arrived.",
};

struct arguments {
    struct bench_plan plan;
    const char *json; /* paths, or NULL */
    const char *html;
    FILE *json_file;
    FILE *html_file;
};

/* ---- values ---- */

/* "--wait takes block, poll and adaptive, not …" */
static bool
refuse_word(const char *option, const char *word, const char *const *allowed)
{
    char names[128] = "";
    size_t used = 0;

    for (unsigned i = 0; allowed[i] != NULL && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                 i == 0                   ? ""
                                 : allowed[i + 1] == NULL ? " and "
                                                          : ", ",
                                 allowed[i]);
    tool_error("--%s takes %s, with commas in between, not \"%s\"", option, names, word);
    return false;
}

/* Cut `text`, which is changed, at its commas.  Each word must be in `allowed` unless that is NULL.
 */
static bool
parse_list(struct bench_list *list, const char *option, char *text, const char *const *allowed)
{
    char *rest = text, *word;

    list->count = 0;
    while ((word = strsep(&rest, ",")) != NULL) {
        bool is_known = allowed == NULL;
        for (unsigned i = 0; !is_known && allowed[i] != NULL; i++)
            is_known = strcmp(allowed[i], word) == 0;
        if (!is_known)
            return refuse_word(option, word, allowed);
        if (list->count == BENCH_LIST_MAX) {
            tool_error("--%s takes at most %d at a time", option, BENCH_LIST_MAX);
            return false;
        }
        list->words[list->count++] = word;
    }
    return true;
}

/* "64", "16K", "1M". */
static bool
parse_size(const char *word, size_t *size)
{
    char *end;
    unsigned long long n;

    errno = 0;
    n = strtoull(word, &end, 10);
    if (*word < '0' || *word > '9' || errno != 0 || n > 64U << 20)
        return false;
    if (*end == 'K' || *end == 'k')
        n <<= 10;
    else if (*end == 'M' || *end == 'm')
        n <<= 20;
    end += *end != '\0';
    if (*end != '\0' || n < 8 || n > 64U << 20)
        return false;
    *size = n;
    return true;
}

static bool
parse_sizes(struct bench_plan *p, char *text)
{
    struct bench_list words;

    if (!parse_list(&words, "size", text, NULL))
        return false;
    for (p->sizes = 0; p->sizes < words.count; p->sizes++) {
        if (!parse_size(words.words[p->sizes], &p->size[p->sizes])) {
            tool_error("--size wants bytes from 8 to 64M, such as 64, 16K or 1M, not \"%s\"",
                       words.words[p->sizes]);
            return false;
        }
    }
    return true;
}

static bool
parse_batches(struct bench_plan *p, char *text)
{
    uint64_t n;

    if (!parse_list(&p->batches, "batch", text, NULL))
        return false;
    for (unsigned i = 0; i < p->batches.count; i++) {
        if (!tool_number("batch", p->batches.words[i], 1024, &n))
            return false;
        if (n == 0) {
            tool_error("--batch wants at least 1 message per call");
            return false;
        }
    }
    return true;
}

static bool
parse_count(const char *option, const char *text, unsigned max, unsigned *out)
{
    uint64_t n;

    if (!tool_number(option, text, max, &n))
        return false;
    if (n == 0) {
        tool_error("--%s wants at least 1", option);
        return false;
    }
    *out = (unsigned)n;
    return true;
}

static bool
parse_run_time(struct bench_plan *p, const char *text)
{
    spoke_ns ns;

    if (!tool_seconds("seconds", text, &ns))
        return false;
    p->seconds = (double)ns / 1e9;
    if (p->seconds >= 0.05 && p->seconds <= 600)
        return true;
    tool_error("--seconds wants 0.05 to 600, not \"%s\"", text);
    return false;
}

static bool
apply_option(struct arguments *a, int id, char *value)
{
    static const char *const transports[] = {"inproc",  "ipc", "tcp", "shm",
                                             "tls+tcp", "ws",  "wss", NULL};
    static const char *const modes[] = {"owned", "shared", NULL};
    static const char *const waits[] = {"block", "poll", "adaptive", NULL};
    static const char *const subscribers[] = {"1", "10", "100", "1000", NULL};
    struct bench_plan *p = &a->plan;

    switch (id) {
    case ID_TRANSPORT: return parse_list(&p->transports, "transport", value, transports);
    case ID_SIZE: return parse_sizes(p, value);
    case ID_MODE: return parse_list(&p->modes, "mode", value, modes);
    case ID_WAIT: return parse_list(&p->waits, "wait", value, waits);
    case ID_BATCH: return parse_batches(p, value);
    case ID_PAIRS: return parse_count("pairs", value, BENCH_ROUNDS_MAX, &p->rounds);
    case ID_SECONDS: return parse_run_time(p, value);
    case ID_IDLE: return parse_count("connections", value, 1000000, &p->idle);
    case ID_SUBSCRIBERS: return parse_list(&p->subscribers, "subscribers", value, subscribers);
    case ID_PEERS: p->with_peers = true; return true;
    case ID_QUICK: p->rounds = 3, p->seconds = 0.2; return true;
    case ID_JSON: a->json = value; return true;
    default: a->html = value; return true;
    }
}

static bool
choose_work(struct bench_plan *p, const char *word)
{
    const struct {
        const char *word;
        bool *chosen;
    } works[] = {{"latency", &p->latency},
                 {"throughput", &p->throughput},
                 {"handshake", &p->handshake},
                 {"pipeline", &p->pipeline},
                 {"fanout", &p->fanout},
                 {"survey", &p->survey},
                 {"bus", &p->bus},
                 {"connections", &p->connections},
                 {"subscriptions", &p->subscriptions},
                 {"loan", &p->loan},
                 {"stream", &p->stream},
                 {"mux", &p->mux},
                 {"channel", &p->channel}};
    bool is_all = strcmp(word, "all") == 0, found = is_all;

    for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
        *works[i].chosen = is_all || strcmp(word, works[i].word) == 0;
        found |= *works[i].chosen;
    }
    if (!found)
        tool_error(
            "there is nothing called \"%s\" to measure: latency, throughput, handshake, stream, "
            "mux, channel, loan, pipeline, fanout, survey, bus, connections, subscriptions or all",
            word);
    return found;
}

/* 0, or -1 with the exit code in *status. */
static int
parse_arguments(struct arguments *a, int argc, char **argv, int *status)
{
    struct tool_args args = {.argc = argc, .argv = argv, .page = &page};
    int id;

    *a = (struct arguments){
        .plan = {.latency = true,
                 .throughput = true,
                 .rounds = 5,
                 .seconds = 0.5,
                 .subscribers = {3, {"1", "10", "100"}},
                 .modes = {2, {"owned", "shared"}}},
    };
    *status = TOOL_USAGE;
    while ((id = tool_next_option(&args)) > 0)
        if (!apply_option(a, id, (char *)(uintptr_t)args.value))
            return -1;
    if (id < 0) {
        *status = args.status;
        return -1;
    }
    for (; optind < argc && argv[optind][0] != '\0'; optind++) {
        if (!choose_work(&a->plan, argv[optind]))
            return -1;
        if (optind + 1 < argc) {
            tool_error("it measures one thing at a time, or all: not also \"%s\"",
                       argv[optind + 1]);
            return -1;
        }
    }
    return 0;
}

/* ---- results ---- */

void
bench_progress(const struct bench_plan *p, const char *text)
{
    if (!p->is_terminal)
        return;
    fprintf(stderr, "\r\033[K%.110s", text != NULL ? text : "");
    fflush(stderr);
}

/* Results go to a file that is opened before anything runs: a wrong path shows at once. */
static bool
open_file(FILE **f, const char *option, const char *path)
{
    *f = NULL;
    if (path == NULL)
        return true;
    *f = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
    if (*f == NULL)
        tool_error("cannot write %s: %s: check the path given with --%s", path, strerror(errno),
                   option);
    return *f != NULL;
}

/* TOOL_OK, also if there is no file, or TOOL_FILE. */
static int
close_file(FILE *f, const char *path)
{
    bool ok;

    if (f == NULL)
        return TOOL_OK;
    ok = fflush(f) == 0 && !ferror(f);
    if (f != stdout)
        ok &= fclose(f) == 0;
    if (!ok)
        tool_error("cannot write %s: %s", f == stdout ? "to standard output" : path,
                   strerror(errno));
    return ok ? TOOL_OK : TOOL_FILE;
}

static void
write_results(const struct arguments *a, const struct bench_rows *rows)
{
    bench_print_targets(a->plan.table, rows);
    if (a->json_file != NULL)
        bench_print_json(a->json_file, rows);
    if (a->html_file != NULL)
        bench_print_html(a->html_file, rows);
}

const struct bench_list *
bench_transports(const struct bench_plan *p, bool has_edge)
{
    static const struct bench_list local = {4, {"inproc", "ipc", "tcp", "shm"}};
    static const struct bench_list all = {7,
                                          {"inproc", "ipc", "tcp", "shm", "tls+tcp", "ws", "wss"}};

    if (p->transports.count > 0)
        return &p->transports;
    return has_edge ? &all : &local;
}

bool
bench_goes_on(const struct bench_plan *p)
{
    return bench_runner_signal() == 0 && !ferror(p->table);
}

static void
say_what_comes(const struct bench_plan *p)
{
    fprintf(p->table,
            "%u round%s, %g s each run%s; ratios are medians over rounds (smallest-largest)\n",
            p->rounds, p->rounds == 1 ? "" : "s", p->seconds,
            p->with_peers ? "" : ", without other libraries (--peers)");
    fflush(p->table);
}

/* All CPUs together since the machine started, in ticks.  False if /proc does not tell. */
static bool
read_cpu_time(double *busy, double *total)
{
    double t[8]; /* user, nice, system, idle, iowait, irq, softirq, steal */
    FILE *f = fopen("/proc/stat", "re");
    int n = 0;

    if (f == NULL)
        return false;
    n = fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5],
               &t[6], &t[7]);
    fclose(f);
    *busy = t[0] + t[1] + t[2] + t[5] + t[6] + t[7];
    *total = *busy + t[3] + t[4];
    return n == 8;
}

/* Say so if the machine has other work: ratios survive some of that, but not all. */
static void
warn_if_busy(const struct bench_plan *p)
{
    static const struct timespec look = {.tv_nsec = 300000000};
    double busy[2], total[2], share;

    if (!read_cpu_time(&busy[0], &total[0]) || nanosleep(&look, NULL) != 0 ||
        !read_cpu_time(&busy[1], &total[1]) || total[1] <= total[0])
        return;
    share = (busy[1] - busy[0]) / (total[1] - total[0]);
    if (share > 0.1)
        fprintf(p->table,
                "note: other programs use %.0f %% of this machine's CPU time: expect noise\n",
                share * 100);
}

static int
measure(struct arguments *a)
{
    static struct bench_rows rows;
    static struct bench_runner runner;
    struct bench_plan *p = &a->plan;

    if (bench_runner_init(&runner) != 0)
        return TOOL_FILE;
    say_what_comes(p);
    warn_if_busy(p);
    bench_compare(p, &runner, &rows);
    if (p->connections)
        bench_growth(p, &runner, &rows);
    if (p->subscriptions)
        bench_subscriptions(p, &runner, &rows);
    if (p->mux)
        bench_mux(p, &runner, &rows);
    if (p->channel)
        bench_channel(p, &runner, &rows);
    bench_progress(p, NULL);
    bench_runner_fini(&runner);
    if (bench_runner_signal() != 0)
        return 128 + bench_runner_signal();
    write_results(a, &rows);
    return p->failed > 0 ? TOOL_API : TOOL_OK;
}

int
bench_main(int argc, char **argv)
{
    static struct arguments a;
    int status, closed[3];

    if (parse_arguments(&a, argc, argv, &status) != 0)
        return status;
    a.plan.table = a.json != NULL && strcmp(a.json, "-") == 0 ? stderr : stdout;
    a.plan.is_terminal = isatty(STDERR_FILENO) == 1;
    status = TOOL_FILE;
    if (open_file(&a.json_file, "json", a.json) && open_file(&a.html_file, "html", a.html))
        status = measure(&a);
    closed[0] = close_file(a.json_file, a.json);
    closed[1] = close_file(a.html_file, a.html);
    closed[2] = ferror(a.plan.table) ? TOOL_FILE : TOOL_OK;
    for (int i = 0; i < 3 && status == TOOL_OK; i++)
        status = closed[i];
    return status;
}
