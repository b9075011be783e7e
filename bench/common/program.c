/* SPDX-License-Identifier: MIT */
/* The work: round trips or a one-way stream between two links, in two processes or two threads.
 *
 * Round trips: the client sends number n, the server echoes it, the client checks it and notes the
 * time.
 *
 * One-way: the client sends for a while, the server takes the time from the first to the last
 * measured message and acknowledges the end with one message.
 *
 * Both begin with one round trip (the
 * connection works) and a warm-up that does not count. */
#include "program.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fan.h"
#include "histogram.h"

/* Seldom enough to cost nothing where each spinning thread has a CPU of its own: an answer comes
 * sooner than that.  Often enough that two which share one pass it on quickly. */
enum { TURNS_PER_YIELD = 64 };

struct side {
    const struct bench_adapter *adapter;
    struct bench_link *link;
    struct bench_check check;
    struct bench_histogram *histogram; /* latency client only */
    uint64_t sent;                     /* throughput client only: measured messages */
    struct bench_meter begin, end;     /* of the measured time */
    int rc;
};

/* The server of a process that is both tells its client to dial. */
static pthread_mutex_t ready_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ready_cond = PTHREAD_COND_INITIALIZER;
static bool is_ready;

static void
relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void
bench_spin(unsigned *turns)
{
    if (++*turns % TURNS_PER_YIELD == 0)
        sched_yield();
    else
        relax();
}

void
bench_ready(const struct bench_link *l, const char *address)
{
    if (bench_is_fan(l->options))
        bench_fan_listen(address);
    if (l->options->role == BENCH_SERVER) {
        printf("READY %s\n", address);
        fflush(stdout);
    }
    pthread_mutex_lock(&ready_lock);
    is_ready = true;
    pthread_cond_broadcast(&ready_cond);
    pthread_mutex_unlock(&ready_lock);
}

void
bench_settle(const struct bench_link *l)
{
    static const struct timespec settle = {.tv_nsec = 100000000};

    if (l->side == BENCH_SERVER)
        nanosleep(&settle, NULL);
}

void
bench_wait_ready(void)
{
    pthread_mutex_lock(&ready_lock);
    while (!is_ready)
        pthread_cond_wait(&ready_cond, &ready_lock);
    pthread_mutex_unlock(&ready_lock);
}

/* ---- latency ---- */

static int
round_trip(struct side *s, uint64_t number, enum bench_phase phase)
{
    if (s->adapter->send(s->link, number, phase, 1) != 0)
        return -1;
    if (s->adapter->flush != NULL && s->adapter->flush(s->link) != 0)
        return -1;
    return s->adapter->receive(s->link, &s->check);
}

static uint64_t
warm_up_ns(const struct bench_options *o)
{
    double seconds = o->seconds / 4 < 0.3 ? o->seconds / 4 : 0.3;

    return (uint64_t)(seconds * 1e9);
}

static int
latency_client(struct side *s)
{
    const struct bench_options *o = s->link->options;
    uint64_t number = 0, last, now, until;

    if (round_trip(s, number++, BENCH_HELLO) != 0)
        return -1;
    for (until = bench_now_ns() + warm_up_ns(o); bench_now_ns() < until;)
        if (round_trip(s, number++, BENCH_WARM) != 0)
            return -1;
    s->begin = bench_meter_read();
    until = o->count != 0 ? UINT64_MAX : s->begin.wall_ns + (uint64_t)(o->seconds * 1e9);
    last = bench_now_ns();
    do {
        if (round_trip(s, number++, BENCH_MEASURE) != 0)
            return -1;
        now = bench_now_ns();
        bench_histogram_add(s->histogram, now - last);
        last = now;
    } while (now < until && s->histogram->count != o->count);
    s->end = bench_meter_read();
    return round_trip(s, number, BENCH_LAST);
}

static int
latency_server(struct side *s)
{
    while (s->check.phase != BENCH_LAST)
        if (s->adapter->echo(s->link, &s->check) != 0)
            return -1;
    s->begin = s->check.started;
    s->end = s->check.finished;
    return 0;
}

/* ---- throughput ---- */

/* Messages between two looks at the clock: whole batches, up to 64 messages or 256 KiB if that is
 * more than one. */
static unsigned
burst_size(const struct bench_options *o)
{
    uint64_t limit = (256U << 10) / o->size;
    unsigned burst = o->batch;

    limit = limit < 64 ? limit : 64;
    while (burst + o->batch <= limit)
        burst += o->batch;
    return burst;
}

/* Send messages of one phase until the time or the count is reached.  Returns how many, or
 * UINT64_MAX. */
static uint64_t
stream_phase(struct side *s, uint64_t first, enum bench_phase phase, uint64_t ns, uint64_t count)
{
    unsigned burst = burst_size(s->link->options);
    uint64_t sent = 0, until = bench_now_ns() + ns;

    while (count != 0 ? sent < count : bench_now_ns() < until) {
        if (count != 0 && count - sent < burst)
            burst = (unsigned)(count - sent);
        if (s->adapter->send(s->link, first + sent, phase, burst) != 0)
            return UINT64_MAX;
        sent += burst;
    }
    return sent;
}

static int
throughput_client(struct side *s)
{
    const struct bench_options *o = s->link->options;
    uint64_t warm;

    if (round_trip(s, 0, BENCH_HELLO) != 0)
        return -1;
    warm = stream_phase(s, 1, BENCH_WARM, warm_up_ns(o), 0);
    if (warm == UINT64_MAX)
        return -1;
    s->begin = bench_meter_read();
    s->sent = stream_phase(s, 1 + warm, BENCH_MEASURE, (uint64_t)(o->seconds * 1e9), o->count);
    if (s->sent == UINT64_MAX)
        return -1;
    /* The acknowledgement repeats the last message. */
    bench_check_expect(&s->check, 1 + warm + s->sent, BENCH_LAST);
    if (round_trip(s, 1 + warm + s->sent, BENCH_LAST) != 0)
        return -1;
    s->end = bench_meter_read();
    return 0;
}

static int
throughput_server(struct side *s)
{
    if (s->adapter->echo(s->link, &s->check) != 0)
        return -1;
    while (s->check.phase != BENCH_LAST)
        if (s->adapter->receive(s->link, &s->check) != 0)
            return -1;
    s->begin = s->check.started;
    s->end = s->check.finished;
    if (s->adapter->send(s->link, bench_number(s->check.expected) - 1, BENCH_LAST, 1) != 0)
        return -1;
    return s->adapter->flush != NULL ? s->adapter->flush(s->link) : 0;
}

/* ---- one side ---- */

static int
run_work(struct side *s)
{
    bool is_client = s->link->side == BENCH_CLIENT;

    if (s->link->options->work == BENCH_LATENCY)
        return is_client ? latency_client(s) : latency_server(s);
    return is_client ? throughput_client(s) : throughput_server(s);
}

static void *
run_side(void *arg)
{
    struct side *s = arg;

    if (s->link->side == BENCH_CLIENT && s->link->options->role == BENCH_BOTH)
        bench_wait_ready();
    s->rc = s->adapter->open(s->link);
    if (s->rc != 0)
        return NULL;
    s->rc = run_work(s);
    s->adapter->close(s->link);
    return NULL;
}

static void
print_result(const struct side *s)
{
    const struct bench_options *o = s->link->options;
    double seconds = (double)(s->end.wall_ns - s->begin.wall_ns) / 1e9;
    uint64_t messages = s->check.measured;

    if (s->link->side == BENCH_CLIENT && o->work == BENCH_THROUGHPUT)
        messages = s->sent;
    printf("{\"bench\":\"%s\",\"impl\":\"%s\",\"role\":\"%s\",\"transport\":\"%s\",\"mode\":\"%s\","
           "\"wait\":\"%s\","
           "\"size\":%zu,\"batch\":%u,\"messages\":%llu,\"seconds\":%.6f,\"cpu_us\":%llu,"
           "\"verified\":%llu,"
           "\"errors\":%llu",
           bench_work_name(o->work), s->adapter->name, bench_role_name(s->link->side),
           bench_transport_name(o->transport), bench_mode_name(o->mode), bench_wait_name(o->wait),
           o->size, o->batch, (unsigned long long)messages, seconds,
           (unsigned long long)(s->end.cpu_us - s->begin.cpu_us),
           (unsigned long long)s->check.verified, (unsigned long long)s->check.errors);
    if (s->histogram != NULL)
        printf(",\"p50_ns\":%llu,\"p99_ns\":%llu,\"p999_ns\":%llu,\"min_ns\":%llu,\"max_ns\":%llu,"
               "\"mean_ns\":%.1f",
               (unsigned long long)bench_histogram_quantile(s->histogram, 0.5),
               (unsigned long long)bench_histogram_quantile(s->histogram, 0.99),
               (unsigned long long)bench_histogram_quantile(s->histogram, 0.999),
               (unsigned long long)s->histogram->min, (unsigned long long)s->histogram->max,
               bench_histogram_mean(s->histogram));
    else if (o->work == BENCH_THROUGHPUT && seconds > 0)
        printf(",\"rate\":%.1f,\"bytes_per_s\":%.1f", (double)messages / seconds,
               (double)messages * (double)o->size / seconds);
    puts("}");
}

static void
init_side(struct side *s, const struct bench_adapter *a, const struct bench_options *o,
          enum bench_role side)
{
    *s = (struct side){.adapter = a};
    s->link = calloc(1, a->link_size);
    if (side == BENCH_CLIENT && o->work == BENCH_LATENCY)
        s->histogram = malloc(sizeof *s->histogram);
    if (s->link == NULL ||
        (side == BENCH_CLIENT && o->work == BENCH_LATENCY && s->histogram == NULL)) {
        fputs("bench: no memory\n", stderr);
        exit(1);
    }
    if (s->histogram != NULL)
        bench_histogram_init(s->histogram);
    s->link->options = o;
    s->link->side = side;
    s->link->size = o->size;
    s->link->pattern = bench_pattern_new(o->size);
    /* In a process that is both, the client's thread meters the CPU time of all. */
    bench_check_init(&s->check, o->size, s->link->pattern, o->role != BENCH_BOTH);
    s->check.touches_all = o->touches_all;
}

static void
fini_side(struct side *s)
{
    free(s->histogram);
    bench_buffers_free(s->link->buffers);
    free(s->link->pattern);
    free(s->link);
}

static int
run_alone(const struct bench_adapter *a, const struct bench_options *o)
{
    struct side s;
    int status;

    init_side(&s, a, o, o->role);
    run_side(&s);
    status = s.rc == 0 && s.check.errors == 0 ? 0 : 1;
    if (status == 0)
        print_result(&s);
    fini_side(&s);
    return status;
}

static int
run_both(const struct bench_adapter *a, const struct bench_options *o)
{
    struct side server, client;
    pthread_t thread;
    int status = 1;

    init_side(&server, a, o, BENCH_SERVER);
    init_side(&client, a, o, BENCH_CLIENT);
    if (pthread_create(&thread, NULL, run_side, &server) != 0) {
        fputs("bench: no thread\n", stderr);
        goto fini_sides;
    }
    run_side(&client);
    if (client.rc != 0)
        exit(1); /* The server would wait for ever. */
    pthread_join(thread, NULL);
    if (server.rc == 0 && server.check.errors == 0 && client.check.errors == 0) {
        status = 0;
        print_result(&server);
        print_result(&client);
    }
fini_sides:
    fini_side(&client);
    fini_side(&server);
    return status;
}

int
bench_program_main(int argc, char **argv, const struct bench_adapter *a)
{
    struct bench_options o;

    bench_options_parse(&o, argc, argv);
    bench_watchdog_start(o.watchdog_s);
    if (a->choose != NULL)
        a = a->choose(&o);
    if (o.work == BENCH_CONNECTIONS || o.work == BENCH_PIPES || o.work >= BENCH_LOAN) {
        if (a->other != NULL)
            return a->other(&o);
        fprintf(stderr, "bench: %s does not do %s\n", a->name, bench_work_name(o.work));
        return 2;
    }
    if (bench_is_fan(&o))
        return bench_fan_run(a, &o);
    return o.role == BENCH_BOTH ? run_both(a, &o) : run_alone(a, &o);
}
