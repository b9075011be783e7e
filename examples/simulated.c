/* SPDX-License-Identifier: MIT */
/* A protocol of one's own in a simulated world: a courier that delivers numbered parcels over a
 * PAIR, each once and in order, although connections die on the way.  It sends a parcel again until
 * the receipt has come; the receiver throws away what it has had already.
 *
 * simulated        runs many seeds: many orders of events, each with its own faults
 * simulated SEED   runs that one again, exactly as it was */
#include <stdio.h>
#include <stdlib.h>

#include <spoke/sim.h>
#include <spoke/spoke.h>

#define SEEDS   200
#define PARCELS 50u
#define AGAIN   (5 * SPOKE_MS)

struct courier {
    spoke_engine *e;
    spoke_socket *s;
    unsigned parcel; /* on its way; PARCELS when all are delivered */
    unsigned tries;
};

struct receiver {
    spoke_socket *s;
    unsigned expected, repeated;
    int wrong;
};

/* ---- the protocol: what would run in the same way on real engines ---- */

static void
send_parcel(void *ctx)
{
    struct courier *c = ctx;

    if (c->parcel == PARCELS)
        return;
    c->tries++;
    (void)spoke_send_bytes(c->s, &c->parcel, sizeof c->parcel, SPOKE_DONTWAIT);
    if (spoke_engine_after(c->e, AGAIN, send_parcel, c, NULL) != 0)
        exit(1);
}

static void
on_receipt(spoke_socket *s, spoke_msg *m, void *ctx)
{
    struct courier *c = ctx;
    const unsigned *parcel = spoke_msg_body(m);

    if (*parcel == c->parcel && ++c->parcel < PARCELS)
        (void)spoke_send_bytes(s, &c->parcel, sizeof c->parcel, SPOKE_DONTWAIT);
    spoke_msg_free(m);
}

static void
on_parcel(spoke_socket *s, spoke_msg *m, void *ctx)
{
    struct receiver *r = ctx;
    unsigned parcel = *(const unsigned *)spoke_msg_body(m);

    if (parcel == r->expected)
        r->expected++;
    else if (parcel < r->expected)
        r->repeated++;
    else
        r->wrong++;
    if (spoke_send(s, m, SPOKE_DONTWAIT) != 0) /* the parcel is its own receipt */
        spoke_msg_free(m);
}

/* ---- the world ---- */

static bool
all_delivered(void *ctx)
{
    const struct courier *c = ctx;

    return c->parcel == PARCELS;
}

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "simulated: %s\n", spoke_strerror(rc));
    exit(1);
}

/* One run.  Returns whether all went well. */
static bool
run(uint64_t seed, unsigned *repeated, struct spoke_sim_report *report)
{
    struct courier courier = {.parcel = 0};
    struct receiver receiver = {.expected = 0};
    spoke_sim_config config;
    spoke_engine *e;
    spoke_sim *w;
    bool done;

    spoke_sim_config_init(&config);
    config.seed = seed;
    config.reset = 50;
    config.delay = 20;
    config.short_read = config.short_write = 200;
    check(spoke_sim_open(&w, &config));

    check(spoke_sim_engine(w, &e));
    check(spoke_socket_open(&receiver.s, SPOKE_PAIR, e));
    check(spoke_socket_on_message(receiver.s, on_parcel, &receiver));
    check(spoke_listen(receiver.s, "tcp://127.0.0.1:5555", NULL, 0));

    check(spoke_sim_engine(w, &courier.e));
    check(spoke_socket_open(&courier.s, SPOKE_PAIR, courier.e));
    check(spoke_socket_on_message(courier.s, on_receipt, &courier));
    check(spoke_socket_set_duration(courier.s, SPOKE_OPT_RECONNECT, SPOKE_MS));
    check(spoke_dial(courier.s, "tcp://127.0.0.1:5555", NULL, 0));
    send_parcel(&courier);

    done = spoke_sim_run(w, all_delivered, &courier, 600 * SPOKE_SECOND) == 1;
    *repeated = receiver.repeated;
    if (spoke_sim_close(w, report) != 0)
        return false;
    return done && receiver.expected == PARCELS && receiver.wrong == 0;
}

int
main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t last = argc > 1 ? first : SEEDS, resets = 0, repeats = 0;
    struct spoke_sim_report report;
    unsigned repeated;

    for (uint64_t seed = first; seed <= last; seed++) {
        if (!run(seed, &repeated, &report)) {
            fprintf(stderr, "this fails: %s %llu\n", argv[0], (unsigned long long)seed);
            return 1;
        }
        resets += report.faults.reset;
        repeats += repeated;
    }
    printf("%llu runs of %u parcels: %llu connections died, %llu parcels came more than once, "
           "none was lost or out of order\n",
           (unsigned long long)last - (unsigned long long)first + 1, PARCELS,
           (unsigned long long)resets, (unsigned long long)repeats);
    return 0;
}
