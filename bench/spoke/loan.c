/* SPDX-License-Identifier: MIT */
/* The work loan: round trips of messages that are written in place, where the receiver reads them,
 * without the time of writing.
 *
 * Each side has the next message loaned and written before it is its turn: the client before it
 * looks at the clock, the server after it has answered.  Then the client waits for a while, the
 * same for all sizes, so that the server has finished, too.  What is left is what a message costs
 * on its way; if nothing is copied its size hardly shows.  Receivers look at the stamps of every
 * 16th message and at every byte of every 256th. */
#include <stdio.h>
#include <stdlib.h>

#include "../common/histogram.h"
#include "../common/net.h"
#include "../common/program.h"
#include "link.h"

enum { PAUSE_NS = 500000 }; /* more than writing a MiB takes */

struct loan {
    const struct bench_options *o;
    spoke_engine *engine;
    spoke_socket *socket;
    uint8_t *pattern;
    spoke_msg *next; /* written, to be sent */
    struct bench_check check;
};

static int
write_next(struct loan *l, uint64_t number, enum bench_phase phase)
{
    int rc = spoke_loan(l->socket, l->o->size, &l->next);

    if (rc != 0)
        return spoke_bench_complain("spoke_loan", rc);
    bench_fill(spoke_msg_body(l->next), l->pattern, l->o->size, number, phase);
    return 0;
}

static int
send_next(struct loan *l)
{
    int rc = spoke_send(l->socket, l->next, 0);

    if (rc != 0)
        return spoke_bench_complain("spoke_send", rc);
    l->next = NULL;
    return 0;
}

static int
receive(struct loan *l)
{
    spoke_msg *m;
    int rc = spoke_recv(l->socket, &m, 0);

    if (rc != 0)
        return spoke_bench_complain("spoke_recv", rc);
    rc = bench_check_message(&l->check, spoke_msg_body(m), spoke_msg_size(m));
    spoke_msg_free(m);
    return rc;
}

/* Not asleep: the CPU must not have forgotten how to be fast. */
static void
pause_a_while(void)
{
    uint64_t until = bench_now_ns() + PAUSE_NS;
    unsigned turns = 0;

    while (bench_now_ns() < until)
        bench_spin(&turns);
}

/* One round trip of message `number`; *ns is what it took. */
static int
round_trip(struct loan *l, uint64_t number, enum bench_phase phase, uint64_t *ns)
{
    uint64_t begin;

    if (write_next(l, number, phase) != 0)
        return -1;
    pause_a_while();
    begin = bench_now_ns();
    if (send_next(l) != 0 || receive(l) != 0)
        return -1;
    *ns = bench_now_ns() - begin;
    return 0;
}

static void
print_side(const struct loan *l, const char *role, uint64_t messages, uint64_t cpu_us)
{
    const struct bench_options *o = l->o;

    printf(
        "{\"bench\":\"loan\",\"impl\":\"spoke\",\"role\":\"%s\",\"transport\":\"%s\",\"mode\":"
        "\"%s\",\"wait\":\"%s\",\"size\":%zu,\"messages\":%llu,\"cpu_us\":%llu,\"verified\":%llu,"
        "\"errors\":%llu",
        role, bench_transport_name(o->transport), bench_mode_name(o->mode),
        bench_wait_name(o->wait), o->size, (unsigned long long)messages, (unsigned long long)cpu_us,
        (unsigned long long)l->check.verified, (unsigned long long)l->check.errors);
}

static int
run_client(struct loan *l)
{
    static struct bench_histogram h;
    uint64_t number = 0, ns, until, warm = (uint64_t)(l->o->seconds * 0.25e9), cpu;
    int rc = spoke_dial(l->socket, l->o->address, NULL, 0);

    if (rc != 0)
        return spoke_bench_complain("spoke_dial", rc);
    bench_histogram_init(&h);
    if (round_trip(l, number++, BENCH_HELLO, &ns) != 0)
        return -1;
    for (until = bench_now_ns() + warm; bench_now_ns() < until;)
        if (round_trip(l, number++, BENCH_WARM, &ns) != 0)
            return -1;
    cpu = bench_cpu_us();
    until = bench_now_ns() + (uint64_t)(l->o->seconds * 1e9);
    do {
        if (round_trip(l, number++, BENCH_MEASURE, &ns) != 0)
            return -1;
        bench_histogram_add(&h, ns);
    } while (l->o->count != 0 ? h.count < l->o->count : bench_now_ns() < until);
    cpu = bench_cpu_us() - cpu;
    if (round_trip(l, number, BENCH_LAST, &ns) != 0)
        return -1;
    print_side(l, "client", h.count, cpu);
    printf(",\"p50_ns\":%llu,\"p99_ns\":%llu,\"p999_ns\":%llu}\n",
           (unsigned long long)bench_histogram_quantile(&h, 0.5),
           (unsigned long long)bench_histogram_quantile(&h, 0.99),
           (unsigned long long)bench_histogram_quantile(&h, 0.999));
    return 0;
}

/* The answer has been written before the question is there: with the number that it must have, and
 * a phase that is only known then. */
static int
answer(struct loan *l)
{
    uint64_t number = bench_number(l->check.expected);

    if (receive(l) != 0)
        return -1;
    bench_stamp(spoke_msg_body(l->next), l->o->size, number, l->check.phase);
    return send_next(l);
}

static int
run_server(struct loan *l)
{
    struct bench_link link = {.options = l->o, .side = BENCH_SERVER};
    char actual[BENCH_ADDRESS_MAX];

    if (spoke_bench_listen(l->socket, l->o, actual, sizeof actual) != 0 ||
        write_next(l, 0, BENCH_HELLO) != 0)
        return -1;
    bench_ready(&link, actual);
    while (l->check.phase != BENCH_LAST)
        if (answer(l) != 0 || (l->check.phase != BENCH_LAST &&
                               write_next(l, bench_number(l->check.expected), l->check.phase) != 0))
            return -1;
    print_side(l, "server", l->check.measured, l->check.finished.cpu_us - l->check.started.cpu_us);
    puts("}");
    return 0;
}

int
spoke_bench_loan(const struct bench_options *o)
{
    struct loan l = {.o = o, .pattern = bench_pattern_new(o->size)};
    int rc = -1;

    bench_check_init(&l.check, o->size, l.pattern, true);
    if (spoke_bench_open(&l.engine, &l.socket, SPOKE_PAIR, o) == 0) {
        rc = o->role == BENCH_SERVER ? run_server(&l) : run_client(&l);
        spoke_msg_free(l.next);
        spoke_bench_close(l.engine, l.socket);
    }
    free(l.pattern);
    return rc == 0 && l.check.errors == 0 ? 0 : 1;
}
