/* SPDX-License-Identifier: MIT */
#include "handshakes.h"

#include <inttypes.h>
#include <stdio.h>

#include "payload.h"

/* What has been measured. */
struct result {
    uint64_t connections;
    struct bench_meter begin, end;
};

/* Ask on a connection of its own. */
static int
ask(const struct bench_shaker_ops *ops, struct bench_shaker *s, uint64_t number,
    enum bench_phase phase)
{
    uint64_t asked = bench_word0(number, phase), answer = 0;
    bool resumes = s->options->work == BENCH_RESUMPTIONS && phase != BENCH_HELLO;
    int rc;

    if (ops->connect(s) != 0)
        return -1;
    rc = ops->send(s, &asked, sizeof asked) == 0 && ops->receive(s, &answer, sizeof answer) == 0
             ? 0
             : -1;
    ops->hang_up(s);
    if (rc == 0 && (answer != asked || s->resumed != resumes)) {
        fprintf(stderr, "bench: connection %" PRIu64 ": %s\n", number,
                answer != asked ? "a wrong answer"
                : resumes       ? "the session did not go on"
                                : "the session goes on");
        rc = -1;
    }
    return rc;
}

static int
run_client(const struct bench_shaker_ops *ops, struct bench_shaker *s, struct result *r)
{
    uint64_t number = 0, until;

    if (ask(ops, s, number++, BENCH_HELLO) != 0)
        return -1;
    for (until = bench_now_ns() + (uint64_t)(s->options->seconds * 0.25e9); bench_now_ns() < until;)
        if (ask(ops, s, number++, BENCH_WARM) != 0)
            return -1;
    r->begin = bench_meter_read();
    until = r->begin.wall_ns + (uint64_t)(s->options->seconds * 1e9);
    do {
        if (ask(ops, s, number++, BENCH_MEASURE) != 0)
            return -1;
        r->connections++;
    } while (s->options->count != 0 ? r->connections < s->options->count : bench_now_ns() < until);
    r->end = bench_meter_read();
    return ask(ops, s, number, BENCH_LAST);
}

/* Answers with what was asked.  The time is from the first to behind the last measured one. */
static int
run_server(const struct bench_shaker_ops *ops, struct bench_shaker *s, struct result *r)
{
    enum bench_phase phase = BENCH_HELLO;

    while (phase != BENCH_LAST) {
        uint64_t asked = 0;
        int rc;

        if (ops->connect(s) != 0)
            return -1;
        rc = ops->receive(s, &asked, sizeof asked) == 0 && ops->send(s, &asked, sizeof asked) == 0
                 ? 0
                 : -1;
        ops->hang_up(s);
        if (rc != 0)
            return -1;
        if (phase != BENCH_MEASURE)
            r->begin = bench_meter_read();
        phase = (enum bench_phase)(asked >> BENCH_PHASE_SHIFT);
        if (phase == BENCH_MEASURE) {
            r->connections++;
            r->end = bench_meter_read();
        }
    }
    return 0;
}

int
bench_handshakes_run(const struct bench_shaker_ops *ops, struct bench_shaker *s,
                     const struct bench_options *o)
{
    struct result r = {0};
    int rc;

    if (o->transport != BENCH_TLS) {
        fprintf(stderr, "bench: %s are of tls+tcp\n", bench_work_name(o->work));
        return 2;
    }
    s->options = o;
    if (ops->open(s) != 0)
        return 1;
    rc = o->role == BENCH_SERVER ? run_server(ops, s, &r) : run_client(ops, s, &r);
    ops->close(s);
    if (rc != 0)
        return 1;
    printf("{\"bench\":\"%s\",\"impl\":\"%s\",\"role\":\"%s\",\"transport\":\"%s\",\"mode\":\"%s\","
           "\"wait\":\"%s\",\"size\":8,\"messages\":%" PRIu64 ",\"cpu_us\":%" PRIu64
           ",\"rate\":%.1f,\"errors\":0}\n",
           bench_work_name(o->work), ops->name, bench_role_name(o->role),
           bench_transport_name(o->transport), bench_mode_name(o->mode), bench_wait_name(o->wait),
           r.connections, r.end.cpu_us - r.begin.cpu_us,
           (double)r.connections * 1e9 / (double)(r.end.wall_ns - r.begin.wall_ns));
    return 0;
}
