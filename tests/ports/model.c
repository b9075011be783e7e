/* SPDX-License-Identifier: MIT */
/* Many seeds: importers come, take, and are killed, and whatever happens every message arrives:
 * once if nobody is killed, else at least once, and only those come again that are marked. */
#include <string.h>

#include "tests/ports/fixture.h"

enum { IMPORTERS = 3, MESSAGES = 120, SEEDS = 60 };

struct one {
    spoke_engine *e;
    spoke_importer *im;
    spoke_receiver *rx;
    int64_t last; /* of those that were not marked */
};

static uint64_t
next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return *state >> 33;
}

static void
come(spoke_sim *w, const char *url, struct one *o)
{
    spoke_port_config config;

    memset(o, 0, sizeof *o);
    o->last = -1;
    spoke_port_config_init(&config);
    config.size = 5;
    expect_rc(spoke_sim_engine(w, &o->e), 0);
    expect_rc(spoke_importer_dial(&o->im, url, NULL, o->e, SPOKE_FOREVER), 0);
    expect_rc(spoke_importer_import_receiver(o->im, "out", NULL, &config, &o->rx, SPOKE_FOREVER),
              0);
}

static void
run(uint64_t seed, bool kills)
{
    static const char url[] = "tcp://127.0.0.1:4100";
    struct one all[IMPORTERS];
    int seen[MESSAGES] = {0}, missing = MESSAGES, killed = 0;
    uint64_t state = seed, sent = 0;
    spoke_sim_config faults;
    spoke_port_config config;
    spoke_exporter *ex;
    spoke_engine *e;
    spoke_sender *tx;
    spoke_sim *w;

    spoke_sim_config_init(&faults);
    faults.seed = seed;
    faults.short_read = faults.short_write = 100;
    expect_rc(spoke_sim_open(&w, &faults), 0);
    expect_rc(spoke_sim_engine(w, &e), 0);
    expect_rc(spoke_exporter_open(&ex, NULL, e), 0);
    spoke_port_config_init(&config);
    config.size = 5;
    expect_rc(spoke_exporter_export_sender(ex, "out", NULL, &config, &tx), 0);
    expect_rc(spoke_exporter_listen(ex, url, NULL), 0);
    for (int i = 0; i < IMPORTERS; i++)
        come(w, url, &all[i]);
    for (int turn = 0; missing > 0; turn++) {
        struct one *o = &all[next_random(&state) % IMPORTERS];
        bool repeated;
        int64_t n;

        cr_assert_lt(turn, 200000, "seed %d: %d are missing", (int)seed, missing);
        if (sent < MESSAGES && send_number(tx, sent, SPOKE_NOW) == 0)
            sent++;
        if (kills && killed < 8 && next_random(&state) % 40 == 0) {
            expect_rc(spoke_sim_kill(w, o->e), 0);
            killed++;
            come(w, url, o);
        }
        (void)spoke_sim_run(w, NULL, NULL, (spoke_ns)(next_random(&state) % 200) * SPOKE_US);
        if ((n = recv_number(o->rx, &repeated, SPOKE_NOW)) == SPOKE_EAGAIN)
            continue;
        cr_assert(n >= 0 && n < MESSAGES, "seed %d: %s", (int)seed, name_of(n));
        cr_assert(seen[n] == 0 || repeated, "seed %d: %d again", (int)seed, (int)n);
        cr_assert(kills || !repeated);
        if (!repeated) {
            cr_assert_gt(n, o->last, "seed %d: order", (int)seed);
            o->last = n;
        }
        missing -= seen[n]++ == 0;
    }
    expect_rc(spoke_sim_close(w, NULL), 0);
}

Test(model, every_message_arrives_once)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        run(seed, false);
}

Test(model, every_message_arrives_although_importers_are_killed)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        run(seed, true);
}
