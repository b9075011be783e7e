/* SPDX-License-Identifier: MIT */
/* Parses the common command line.  Used once, at the start of a program, by its only thread. */
#include "options.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffers.h"

/* The order of the words is the order of the enums. */
static const char *const role_names[] = {"server", "client", "both", NULL};
static const char *const work_names[] = {"latency",    "throughput",  "connections", "pipes",
                                         "fanout",     "pipeline",    "survey",      "loan",
                                         "handshakes", "resumptions", "mux-crowd",   "mux-open",
                                         "mux-opens",  "mux-idle",    NULL};
static const char *const transport_names[] = {"inproc",  "ipc", "tcp", "shm",
                                              "tls+tcp", "ws",  "wss", NULL};
static const char *const wait_names[] = {"block", "poll", "adaptive", NULL};
static const char *const mode_names[] = {"owned", "shared", NULL};
static const char *const touch_names[] = {"some", "all", NULL};
static const char *const pattern_names[] = {"pair",    "req",  "bus",          "star",
                                            "channel", "port", "channel-pair", "stream",
                                            "chunks",  "mux",  "mux-chunks",   NULL};

static const char help[] =
    "usage: bench-X --role server|client|both --transport "
    "inproc|ipc|tcp|shm|tls+tcp|ws|wss\n"
    "               --address URL [options]\n"
    "Measures one thing in one process; `spoke bench` starts the pairs and compares them.\n\n"
    "  --bench latency|throughput|connections|pipes|fanout|pipeline|survey|loan|\n"
    "          handshakes|resumptions|mux-crowd|mux-open|mux-opens|mux-idle   what to measure "
    "(latency)\n"
    "  --size BYTES        body of a message, 8 to 64 MiB (64)\n"
    "  --count N           messages to measure, or\n"
    "  --seconds S         how long to measure (1)\n"
    "  --wait block|poll|adaptive    how to wait (block)\n"
    "  --mode owned|shared           spoke only: whose thread is the engine (owned)\n"
    "  --identity FILE     tls+tcp and wss: the server's key and certificate, which its client "
    "trusts\n"
    "  --touch some|all    bytes of a body that are written and read: a few in most of them, or "
    "all "
    "in each (some)\n"
    "  --pattern pair|req            latency only (pair)\n"
    "  --pattern bus|star            fanout, spoke only: in place of PUB and SUB\n"
    "  --pattern channel|port        latency and throughput, spoke only: on channels of a session, "
    "or ports\n"
    "  --pattern channel-pair        the same in the process: --mode shared, --transport inproc\n"
    "  --pattern stream    latency and throughput, raw and spoke only: bytes in place of "
    "messages,\n"
    "                      as many as a body has in one call\n"
    "  --pattern chunks    the same, spoke only, without copies\n"
    "  --pattern mux|mux-chunks      the same on a stream of a multiplexer\n"
    "  --depth N           channels and ports: messages under way, 1 to 65536 (64)\n"
    "  --batch N           spoke only: messages per call, 1 to 1024 (1)\n"
    "  --chunk BYTES       raw streams only: bytes per system call (65536)\n"
    "  --connections N     for connections and pipes; fanout and survey: receivers; mux-crowd\n"
    "                      and mux-idle: streams (1)\n"
    "  --subscriptions N   fanout only: of each receiver (0: one, to everything)\n"
    "  --misses N          with subscriptions: messages for nobody, for each message (0)\n"
    "  --watchdog S        give up after S seconds (3 x seconds + 120)\n"
    "A server prints `READY address`; each side ends with one line of JSON.\n";

const char *
bench_work_name(enum bench_work work)
{
    return work_names[work];
}

const char *
bench_transport_name(enum bench_transport transport)
{
    return transport_names[transport];
}

const char *
bench_wait_name(enum bench_wait wait)
{
    return wait_names[wait];
}

const char *
bench_mode_name(enum bench_mode mode)
{
    return mode_names[mode];
}

const char *
bench_role_name(enum bench_role role)
{
    return role_names[role];
}

bool
bench_has_port(const struct bench_options *o)
{
    return o->transport == BENCH_TCP || o->transport >= BENCH_TLS;
}

bool
bench_has_tls(const struct bench_options *o)
{
    return o->transport == BENCH_TLS || o->transport == BENCH_WSS;
}

bool
bench_is_channel(const struct bench_options *o)
{
    return o->pattern >= BENCH_CHANNEL && o->pattern <= BENCH_CHANNEL_PAIR;
}

bool
bench_is_stream(const struct bench_options *o)
{
    return o->pattern >= BENCH_STREAM;
}

static _Noreturn void
refuse(const char *option, const char *value)
{
    fprintf(stderr, "bench: --%s does not take '%s'; see --help\n", option, value);
    exit(2);
}

static unsigned
parse_word(const char *option, const char *value, const char *const *names)
{
    for (unsigned i = 0; names[i] != NULL; i++)
        if (strcmp(value, names[i]) == 0)
            return i;
    refuse(option, value);
}

static uint64_t
parse_number(const char *option, const char *value, uint64_t min, uint64_t max)
{
    char *end;
    unsigned long long n = strtoull(value, &end, 10);

    if (end == value || *end != '\0' || *value == '-' || n < min || n > max)
        refuse(option, value);
    return n;
}

static double
parse_seconds(const char *option, const char *value)
{
    char *end;
    double s = strtod(value, &end);

    if (end == value || *end != '\0' || !isfinite(s) || s < 0.01 || s > 3600)
        refuse(option, value);
    return s;
}

static void
set_option(struct bench_options *o, const char *name, const char *value)
{
    if (strcmp(name, "role") == 0)
        o->role = (enum bench_role)parse_word(name, value, role_names);
    else if (strcmp(name, "bench") == 0)
        o->work = (enum bench_work)parse_word(name, value, work_names);
    else if (strcmp(name, "transport") == 0)
        o->transport = (enum bench_transport)parse_word(name, value, transport_names);
    else if (strcmp(name, "wait") == 0)
        o->wait = (enum bench_wait)parse_word(name, value, wait_names);
    else if (strcmp(name, "mode") == 0)
        o->mode = (enum bench_mode)parse_word(name, value, mode_names);
    else if (strcmp(name, "pattern") == 0)
        o->pattern = (enum bench_pattern)parse_word(name, value, pattern_names);
    else if (strcmp(name, "touch") == 0)
        o->touches_all = parse_word(name, value, touch_names) == 1;
    else if (strcmp(name, "address") == 0)
        o->address = value;
    else if (strcmp(name, "identity") == 0)
        o->identity = value;
    else if (strcmp(name, "size") == 0)
        o->size = parse_number(name, value, 8, 64U << 20);
    else if (strcmp(name, "count") == 0)
        o->count = parse_number(name, value, 1, UINT64_C(1) << 40);
    else if (strcmp(name, "seconds") == 0)
        o->seconds = parse_seconds(name, value);
    else if (strcmp(name, "depth") == 0)
        o->depth = (unsigned)parse_number(name, value, 1, 65536);
    else if (strcmp(name, "batch") == 0)
        o->batch = (unsigned)parse_number(name, value, 1, 1024);
    else if (strcmp(name, "chunk") == 0)
        o->chunk_size = parse_number(name, value, 512, 16U << 20);
    else if (strcmp(name, "connections") == 0)
        o->connections = (unsigned)parse_number(name, value, 1, 1000000);
    else if (strcmp(name, "subscriptions") == 0)
        o->subscriptions = (unsigned)parse_number(name, value, 0, 1U << 24);
    else if (strcmp(name, "misses") == 0)
        o->misses = (unsigned)parse_number(name, value, 0, 64);
    else
        o->watchdog_s = (unsigned)parse_number(name, value, 1, 7200);
}

void
bench_options_parse(struct bench_options *o, int argc, char **argv)
{
    static const struct option names[] = {
        {"role", required_argument, NULL, 0},
        {"bench", required_argument, NULL, 0},
        {"transport", required_argument, NULL, 0},
        {"wait", required_argument, NULL, 0},
        {"mode", required_argument, NULL, 0},
        {"pattern", required_argument, NULL, 0},
        {"touch", required_argument, NULL, 0},
        {"address", required_argument, NULL, 0},
        {"identity", required_argument, NULL, 0},
        {"size", required_argument, NULL, 0},
        {"count", required_argument, NULL, 0},
        {"seconds", required_argument, NULL, 0},
        {"depth", required_argument, NULL, 0},
        {"batch", required_argument, NULL, 0},
        {"chunk", required_argument, NULL, 0},
        {"connections", required_argument, NULL, 0},
        {"subscriptions", required_argument, NULL, 0},
        {"misses", required_argument, NULL, 0},
        {"watchdog", required_argument, NULL, 0},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int c, index = 0;

    *o = (struct bench_options){.role = BENCH_SERVER,
                                .transport = BENCH_IPC,
                                .size = 64,
                                .seconds = 1,
                                .depth = 64,
                                .batch = 1,
                                .chunk_size = 65536,
                                .connections = 1};
    while ((c = getopt_long(argc, argv, "h", names, &index)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            exit(0);
        }
        if (c != 0)
            exit(2); /* getopt has said why. */
        set_option(o, names[index].name, optarg);
    }
    if (optind != argc)
        refuse("", argv[optind]);
    if (o->address == NULL)
        refuse("address", "nothing");
    if ((o->role == BENCH_BOTH) != (o->transport == BENCH_INPROC))
        refuse("role", "this: inproc needs role both, the others server or client");
    if (bench_has_tls(o) && o->identity == NULL)
        refuse("identity", "nothing: tls+tcp and wss need a file of bench-identity");
    if (o->subscriptions > 0 && (o->work != BENCH_FANOUT || o->size >= BENCH_LEND_MIN))
        refuse("subscriptions", "this: it is for fanout, with bodies that are not lent");
    if ((o->pattern == BENCH_BUS || o->pattern == BENCH_STAR) && o->work != BENCH_FANOUT)
        refuse("pattern", "this: bus and star are for fanout");
    if ((bench_is_stream(o) || bench_is_channel(o)) && o->work != BENCH_LATENCY &&
        o->work != BENCH_THROUGHPUT)
        refuse("pattern", "this: streams, chunks and channels are for latency and throughput");
    if (o->pattern == BENCH_CHANNEL_PAIR && (o->role != BENCH_BOTH || o->mode != BENCH_SHARED))
        refuse("pattern", "this: a pair of channel ends is in one process, on the shared engine");
    if (o->subscriptions > 0 && o->pattern != BENCH_PAIR)
        refuse("subscriptions", "this: only SUB has them");
    if (o->misses > 0 && o->subscriptions == 0)
        refuse("misses", "this: without subscriptions nothing is for nobody");
    if (o->watchdog_s == 0)
        o->watchdog_s = (unsigned)(o->seconds * 3) + 120;
}
