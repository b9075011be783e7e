/* SPDX-License-Identifier: MIT */
/* Receivers report on a socket of their own, past the library that is measured: when all of them
 * are connected, how far all of them have come, and when all have got the last message.
 *
 * A PUB loses what its subscribers cannot take.  So that every message can be checked at every one
 * of them, and what counts is work that somebody gets, the sender is never further ahead than a
 * window, for which every library's queues have room.  A PUSH needs none: it waits by itself.
 *
 * As every receiver gets every message, one thread serves them in turn, waiting at each: no library
 * needs to be asked which of them is ready.  Surveys likewise: one at a time, answered by all. */
#include "fan.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "histogram.h"
#include "net.h"

enum {
    WINDOW_MAX = 2048, /* messages, half of the shortest queue */
    WINDOW_BYTES = 512 << 10,
    WINDOW_DELIVERIES = 200000, /* what the slowest library delivers in a few seconds */
    WINDOW_LARGE = 8,           /* of bodies that are lent */
    BURST = 64,
    REPORTS = 32, /* in a window */
    HELLO_MS = 20,
};

/* What is reported: the number of the message that all receivers expect next, or this. */
static const uint64_t all_ended = UINT64_MAX;

static int listener = -1;

bool
bench_is_fan(const struct bench_options *o)
{
    return o->work == BENCH_FANOUT || o->work == BENCH_PIPELINE || o->work == BENCH_SURVEY;
}

static int
complain(const char *call)
{
    fprintf(stderr, "bench: %s: %s\n", call, strerror(errno));
    return -1;
}

static unsigned
window_of(const struct bench_options *o)
{
    size_t window = WINDOW_BYTES / o->size, most = WINDOW_DELIVERIES / o->connections;

    if (o->size >= BENCH_LEND_MIN)
        return WINDOW_LARGE;
    most = most < WINDOW_MAX ? most : WINDOW_MAX;
    window = window < most ? window : most;
    window /= 1 + o->misses;
    return window > WINDOW_LARGE ? (unsigned)window : WINDOW_LARGE;
}

/* ---- reports ---- */

/* An abstract name: no file is left behind, whatever happens. */
static socklen_t
report_address(struct sockaddr_un *a, const char *address)
{
    int n;

    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    n = snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "bench:%s", address);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static int
open_reports(struct sockaddr_un *a, socklen_t *len, const char *address)
{
    *len = report_address(a, address);
    if (*len > sizeof *a) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

void
bench_fan_listen(const char *address)
{
    struct sockaddr_un a;
    socklen_t len;

    listener = open_reports(&a, &len, address);
    if (listener >= 0 && bind(listener, (struct sockaddr *)&a, len) == 0 &&
        listen(listener, 1) == 0)
        return;
    complain("listen for reports");
    exit(1);
}

static int
connect_reports(const char *address)
{
    struct sockaddr_un a;
    socklen_t len;
    int fd = open_reports(&a, &len, address);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, len) == 0)
        return fd;
    complain("connect for reports");
    if (fd >= 0)
        close(fd);
    return -1;
}

static int
report(int fd, uint64_t number)
{
    return send(fd, &number, sizeof number, MSG_NOSIGNAL) == sizeof number ? 0 : complain("report");
}

/* ---- the sender ---- */

struct sender {
    const struct bench_adapter *adapter;
    struct bench_link *link;
    int reports;
    uint64_t next;  /* number of the next message */
    uint64_t taken; /* all receivers have got those before this one */
    uint64_t sent;  /* measured messages */
    struct bench_meter begin, end;
};

/* Let the library work until there is a report, or for a while. */
static int
wait_somehow(const struct sender *s, unsigned *turns, int ms)
{
    struct pollfd p = {.fd = s->reports, .events = POLLIN};

    if (bench_spins(s->link)) {
        bench_spin(turns);
        ms = 0;
    }
    if (s->adapter->wait_input != NULL)
        return s->adapter->wait_input(s->link, s->reports, ms);
    if (ms > 0 && poll(&p, 1, ms) < 0 && errno != EINTR)
        return complain("poll");
    return 0;
}

/* 1: there was a report; 0: not in time; or -1. */
static int
read_report(struct sender *s, int ms)
{
    uint64_t until = bench_now_ns() + (uint64_t)ms * 1000000U;
    unsigned turns = 0;

    for (;;) {
        ssize_t n = recv(s->reports, &s->taken, sizeof s->taken, MSG_DONTWAIT);
        if (n == sizeof s->taken)
            return 1;
        if (n >= 0)
            errno = ECONNRESET;
        if (n >= 0 || (errno != EAGAIN && errno != EINTR))
            return complain("recv of a report");
        if (bench_now_ns() >= until)
            return 0;
        if (wait_somehow(s, &turns, ms) != 0)
            return -1;
    }
}

/* Messages for nobody have the numbers of those that come after them: who gets one nevertheless
 * takes it for that, and sees a number twice. */
static int
send_misses(struct sender *s, enum bench_phase phase, unsigned count)
{
    int rc;

    if (count == 0)
        return 0;
    s->link->misses = true;
    rc = s->adapter->send(s->link, s->next, phase, count);
    s->link->misses = false;
    return rc;
}

static int
send_some(struct sender *s, enum bench_phase phase, unsigned count)
{
    if (s->adapter->send(s->link, s->next, phase, count) != 0)
        return -1;
    s->next += count;
    return s->adapter->flush != NULL ? s->adapter->flush(s->link) : 0;
}

/* Who connects late misses what was sent before: greet until all have heard it. */
static int
greet(struct sender *s)
{
    int rc;

    do {
        if (send_some(s, BENCH_HELLO, 1) != 0)
            return -1;
        rc = read_report(s, HELLO_MS);
    } while (rc == 0);
    return rc < 0 ? -1 : 0;
}

static int
wait_for_room(struct sender *s, unsigned count)
{
    unsigned window = window_of(s->link->options);

    if (s->link->options->work == BENCH_PIPELINE)
        return 0;
    while (s->next + count > s->taken + window)
        if (read_report(s, 1000) < 0)
            return -1;
    return 0;
}

static unsigned
burst_size(const struct bench_options *o)
{
    unsigned burst = o->batch > BURST ? o->batch : BURST, most = window_of(o) / 2;

    return burst < most ? burst : most;
}

static int
send_phase(struct sender *s, enum bench_phase phase, double seconds, uint64_t count)
{
    unsigned burst = burst_size(s->link->options);
    uint64_t first = s->next, until = bench_now_ns() + (uint64_t)(seconds * 1e9);

    while (count != 0 ? s->next - first < count : bench_now_ns() < until) {
        if (count != 0 && first + count - s->next < burst)
            burst = (unsigned)(first + count - s->next);
        if (wait_for_room(s, burst) != 0 ||
            send_misses(s, phase, burst * s->link->options->misses) != 0 ||
            send_some(s, phase, burst) != 0)
            return -1;
    }
    return 0;
}

static double
warm_up(const struct bench_options *o)
{
    return o->seconds / 4 < 0.3 ? o->seconds / 4 : 0.3;
}

static int
run_sender(struct sender *s)
{
    const struct bench_options *o = s->link->options;
    int rc;

    if (greet(s) != 0 || send_phase(s, BENCH_WARM, warm_up(o), 0) != 0)
        return -1;
    s->begin = bench_meter_read();
    s->sent = s->next;
    if (send_phase(s, BENCH_MEASURE, o->seconds, o->count) != 0)
        return -1;
    s->sent = s->next - s->sent;
    if (wait_for_room(s, 1) != 0 || send_some(s, BENCH_LAST, 1) != 0)
        return -1;
    do
        rc = read_report(s, 1000);
    while (rc >= 0 && s->taken != all_ended);
    s->end = bench_meter_read();
    return rc < 0 ? -1 : 0;
}

/* ---- the surveyor ---- */

/* Ask, and take an answer of each respondent: it repeats the question. */
static int
survey(struct sender *s, struct bench_check *c, enum bench_phase phase)
{
    uint64_t number = s->next;

    if (send_some(s, phase, 1) != 0)
        return -1;
    for (unsigned i = 0; i < s->link->options->connections; i++) {
        bench_check_expect(c, number, phase);
        if (s->adapter->receive(s->link, c) != 0)
            return -1;
    }
    return 0;
}

static int
run_surveyor(struct sender *s, struct bench_histogram *h, uint64_t *verified)
{
    const struct bench_options *o = s->link->options;
    struct bench_check c;
    uint64_t until, last, now;

    bench_check_init(&c, o->size, s->link->pattern, false);
    c.touches_all = o->touches_all;
    if (greet(s) != 0)
        return -1;
    for (until = bench_now_ns() + (uint64_t)(warm_up(o) * 1e9); bench_now_ns() < until;)
        if (survey(s, &c, BENCH_WARM) != 0)
            return -1;
    s->begin = bench_meter_read();
    until = s->begin.wall_ns + (uint64_t)(o->seconds * 1e9);
    last = bench_now_ns();
    do {
        if (survey(s, &c, BENCH_MEASURE) != 0)
            return -1;
        now = bench_now_ns();
        bench_histogram_add(h, now - last);
        last = now;
    } while (o->count != 0 ? h->count < o->count : now < until);
    s->end = bench_meter_read();
    s->sent = h->count;
    *verified = c.verified;
    return survey(s, &c, BENCH_LAST);
}

static void
print_result(const struct bench_adapter *a, const struct bench_options *o, uint64_t messages,
             const struct bench_meter *begin, const struct bench_meter *end, uint64_t verified,
             const struct bench_histogram *h)
{
    double seconds = (double)(end->wall_ns - begin->wall_ns) / 1e9;

    printf("{\"bench\":\"%s\",\"impl\":\"%s\",\"role\":\"%s\",\"transport\":\"%s\",\"mode\":\"%s\","
           "\"wait\":\"%s\",\"size\":%zu,\"batch\":%u,\"connections\":%u,\"messages\":%llu,"
           "\"seconds\":%.6f,\"cpu_us\":%llu,\"verified\":%llu,\"errors\":0,\"rate\":%.1f",
           bench_work_name(o->work), a->name, bench_role_name(o->role),
           bench_transport_name(o->transport), bench_mode_name(o->mode), bench_wait_name(o->wait),
           o->size, o->batch, o->connections, (unsigned long long)messages, seconds,
           (unsigned long long)(end->cpu_us - begin->cpu_us), (unsigned long long)verified,
           seconds > 0 ? (double)messages / seconds : 0);
    if (h != NULL)
        printf(",\"p50_ns\":%llu,\"p99_ns\":%llu,\"p999_ns\":%llu",
               (unsigned long long)bench_histogram_quantile(h, 0.5),
               (unsigned long long)bench_histogram_quantile(h, 0.99),
               (unsigned long long)bench_histogram_quantile(h, 0.999));
    puts("}");
}

static struct bench_link *
new_link(const struct bench_adapter *a, const struct bench_options *o, struct bench_link *sibling)
{
    struct bench_link *l = calloc(1, a->link_size);

    if (l == NULL) {
        fputs("bench: no memory\n", stderr);
        exit(1);
    }
    l->options = o;
    l->side = o->role;
    l->size = o->size;
    l->sibling = sibling;
    l->topic_size = o->subscriptions > 0 ? BENCH_TOPIC_SIZE : 0;
    l->pattern = sibling != NULL ? sibling->pattern : bench_pattern_new(o->size);
    return l;
}

static int
serve(const struct bench_adapter *a, const struct bench_options *o)
{
    static struct bench_histogram histogram;
    struct sender s = {.adapter = a, .link = new_link(a, o, NULL)};
    bool asks = o->work == BENCH_SURVEY;
    uint64_t verified = 0;
    int rc = 1;

    bench_histogram_init(&histogram);
    if (a->open(s.link) != 0)
        goto free_link;
    s.reports = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (s.reports < 0) {
        complain("accept of reports");
        goto close_link;
    }
    rc = asks ? run_surveyor(&s, &histogram, &verified) : run_sender(&s);
    rc = rc == 0 ? 0 : 1;
    if (rc == 0)
        print_result(a, o, s.sent, &s.begin, &s.end, verified, asks ? &histogram : NULL);
    close(s.reports);
close_link:
    a->close(s.link);
free_link:
    if (listener >= 0)
        close(listener);
    bench_buffers_free(s.link->buffers);
    free(s.link->pattern);
    free(s.link);
    return rc;
}

/* ---- the receivers ---- */

struct receiver {
    struct bench_link *link;
    struct bench_check check;
};

struct receivers {
    const struct bench_adapter *adapter;
    const struct bench_options *options;
    struct receiver *all;
    unsigned open; /* of them */
};

static int
open_receivers(struct receivers *r)
{
    for (; r->open < r->options->connections; r->open++) {
        struct receiver *one = &r->all[r->open];
        one->link = new_link(r->adapter, r->options, r->open > 0 ? r->all[0].link : NULL);
        bench_check_init(&one->check, r->options->size, one->link->pattern, true);
        one->check.joins_late = true;
        one->check.touches_all = r->options->touches_all;
        if (r->adapter->open(one->link) != 0) {
            free(one->link);
            return -1;
        }
    }
    return 0;
}

/* The last one first: they may live on what the first one opened. */
static void
close_receivers(struct receivers *r)
{
    uint8_t *pattern = r->open > 0 ? r->all[0].link->pattern : NULL;

    while (r->open > 0) {
        struct bench_link *l = r->all[--r->open].link;
        r->adapter->close(l);
        bench_buffers_free(l->buffers);
        free(l);
    }
    free(pattern);
}

/* Take what has come; a respondent one survey, which it answers. */
static int
take(const struct receivers *r, struct receiver *one)
{
    if (r->options->work == BENCH_SURVEY)
        return r->adapter->echo(one->link, &one->check);
    return r->adapter->receive(one->link, &one->check);
}

/* Take messages until all receivers expect number `target`, or have got the last one. */
static int
receive_all(struct receivers *r, uint64_t target)
{
    for (unsigned i = 0; i < r->open; i++) {
        struct receiver *one = &r->all[i];
        while (one->check.phase != BENCH_LAST && bench_number(one->check.expected) < target)
            if (take(r, one) != 0)
                return -1;
    }
    return 0;
}

static bool
have_ended(const struct receivers *r)
{
    for (unsigned i = 0; i < r->open; i++)
        if (r->all[i].check.phase != BENCH_LAST)
            return false;
    return true;
}

/* One greeting each.  Returns the highest number that any of them expects then, or 0. */
static uint64_t
join(struct receivers *r)
{
    uint64_t highest = 0;

    for (unsigned i = 0; i < r->open; i++) {
        struct receiver *one = &r->all[i];
        if (take(r, one) != 0)
            return 0;
        if (bench_number(one->check.expected) > highest)
            highest = bench_number(one->check.expected);
    }
    return highest;
}

/* The last answers must have arrived before anybody closes: the surveyor goes first. */
static int
wait_for_end(const struct receivers *r, int reports)
{
    char byte;

    while (recv(reports, &byte, 1, MSG_DONTWAIT) != 0) {
        struct pollfd p = {.fd = reports, .events = POLLIN};
        int rc = r->adapter->wait_input != NULL
                     ? r->adapter->wait_input(r->all[0].link, reports, 100)
                     : poll(&p, 1, 100);
        if (rc < 0)
            return -1;
    }
    return 0;
}

static int
run_receivers(struct receivers *r, int reports)
{
    bool answers = r->options->work == BENCH_SURVEY;
    unsigned step = answers ? 1 : (window_of(r->options) + REPORTS - 1) / REPORTS;
    uint64_t target = join(r);

    /* Greetings go on until the report.  Who was not read from meanwhile, and so may have missed
     * some, has its connection empty again then. */
    if (target == 0 || receive_all(r, target) != 0 || report(reports, target) != 0)
        return -1;
    while (!have_ended(r)) {
        target += step;
        if (receive_all(r, target) != 0)
            return -1;
        if (r->options->work == BENCH_FANOUT && report(reports, target) != 0)
            return -1;
    }
    return answers ? wait_for_end(r, reports) : report(reports, all_ended);
}

static void
print_receivers(const struct receivers *r)
{
    uint64_t messages = 0, verified = 0;

    for (unsigned i = 0; i < r->open; i++) {
        messages += r->all[i].check.measured;
        verified += r->all[i].check.verified;
    }
    /* They are served in turn: the first one begins, the last one ends. */
    print_result(r->adapter, r->options, messages, &r->all[0].check.started,
                 &r->all[r->open - 1].check.finished, verified, NULL);
}

static int
receive(const struct bench_adapter *a, const struct bench_options *o)
{
    struct receivers r = {.adapter = a, .options = o};
    int reports = connect_reports(o->address), rc = 1;

    if (reports < 0)
        return 1;
    r.all = calloc(o->connections, sizeof *r.all);
    if (r.all != NULL && open_receivers(&r) == 0 && run_receivers(&r, reports) == 0) {
        rc = 0;
        print_receivers(&r);
    }
    close_receivers(&r);
    free(r.all);
    close(reports);
    return rc;
}

int
bench_fan_run(const struct bench_adapter *a, const struct bench_options *o)
{
    if (o->role == BENCH_BOTH) {
        fprintf(stderr, "bench: %s needs two processes: ipc or tcp\n", bench_work_name(o->work));
        return 2;
    }
    return o->role == BENCH_SERVER ? serve(a, o) : receive(a, o);
}
