/* SPDX-License-Identifier: MIT */
/* Each kind of thing: when it is ready, and who is told. */
#include "tests/select/fixture.h"

static void
make_ready(void *ctx)
{
    struct thing *t = ctx;

    t->kind->make(t);
}

static void
close_it(void *ctx)
{
    struct thing *t = ctx;

    (void)t->kind->close(t);
}

#define PLAY_TEST(Name)                                                                            \
    ParameterizedTestParameters(ready, Name)                                                       \
    {                                                                                              \
        return plays();                                                                            \
    }                                                                                              \
    ParameterizedTest(struct play *p, ready, Name)

PLAY_TEST(says_at_once_that_nothing_is)
{
    struct scene sc;
    struct thing t;
    size_t which = 7;

    scene_open(&sc, p->way);
    thing_open(&t, &sc, &kinds[p->kind]);
    if (t.c.what == SPOKE_SELECT_TIME) /* which passes in any pause */
        t.c.of.when = scene_in(&sc, PATIENCE);
    for (int i = 0; i < 3; i++) {
        expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_NOW), SPOKE_EAGAIN);
        cr_assert_eq(which, 1);
    }
    expect_rc(t.kind->use(&t), SPOKE_EAGAIN);
    thing_close(&t);
    scene_close(&sc);
}

/* A single case, and among others that are not ready. */
PLAY_TEST(wakes_who_waits)
{
    struct scene sc;
    struct thing t;
    spoke_select_case cases[3] = {{.what = SPOKE_SELECT_NONE},
                                  {.what = SPOKE_SELECT_TIME, .of.when = SPOKE_FOREVER}};
    struct later *later;
    size_t which;
    int rc;

    scene_open(&sc, p->way);
    for (int alone = 0; alone < 2; alone++) {
        thing_open(&t, &sc, &kinds[p->kind]);
        cases[2] = t.c;
        later = scene_later(&sc, make_ready, &t);
        rc = alone
                 ? spoke_select(&t.c, 1, &which, t.kind->close != NULL ? NULL : sc.e, SPOKE_FOREVER)
                 : spoke_select(cases, 3, &which, sc.e, SPOKE_FOREVER);
        scene_joined(later);
        expect_rc(rc, 0);
        cr_assert_eq(which, alone ? 0 : 2);
        expect_rc(t.kind->use(&t), 0);
        thing_close(&t);
    }
    scene_close(&sc);
}

/* What was made ready before is found, if not at once then by who looks again. */
PLAY_TEST(is_found_without_waiting)
{
    struct scene sc;
    struct thing t;
    size_t which;
    spoke_ns limit;
    int rc;

    scene_open(&sc, p->way);
    thing_open(&t, &sc, &kinds[p->kind]);
    t.kind->make(&t);
    limit = scene_in(&sc, PATIENCE);
    while ((rc = spoke_select(&t.c, 1, &which, sc.e, SPOKE_NOW)) == SPOKE_EAGAIN &&
           spoke_engine_now(sc.e) < limit) {
        cr_assert_eq(which, 1);
        if (sc.way == SIM && spoke_sim_step(sc.w) == 0)
            break;
    }
    if (p->way == SIM && rc == SPOKE_EAGAIN) { /* only time is missing, which does not pass */
        expect_rc(spoke_select(&t.c, 1, &which, sc.e, limit), 0);
        rc = 0;
    }
    expect_rc(rc, 0);
    cr_assert_eq(which, 0);
    /* It stays ready until somebody uses it. */
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_NOW), 0);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, 1), 0); /* a deadline that is past */
    expect_rc(t.kind->use(&t), 0);
    thing_close(&t);
    scene_close(&sc);
}

PLAY_TEST(wakes_with_the_case_that_is_closed)
{
    struct scene sc;
    struct thing t;
    spoke_select_case cases[2] = {{.what = SPOKE_SELECT_NONE}};
    struct later *later;
    size_t which;
    int rc;

    if (kinds[p->kind].close == NULL)
        return;
    scene_open(&sc, p->way);
    thing_open(&t, &sc, &kinds[p->kind]);
    cases[1] = t.c;
    later = scene_later(&sc, close_it, &t);
    rc = spoke_select(cases, 2, &which, sc.e, SPOKE_FOREVER);
    scene_joined(later);
    expect_rc(rc, SPOKE_ECLOSED);
    cr_assert_eq(which, 1);
    /* The same for who comes later, with the engine and without. */
    for (int i = 0; i < 2; i++) {
        which = 7;
        expect_rc(spoke_select(cases, 2, &which, i ? sc.e : NULL, SPOKE_NOW), SPOKE_ECLOSED);
        cr_assert_eq(which, 1);
    }
    thing_close(&t);
    scene_close(&sc);
}

PLAY_TEST(leaves_nothing_behind_when_the_time_is_up)
{
    struct scene sc;
    struct thing t;
    size_t which;

    scene_open(&sc, p->way);
    thing_open(&t, &sc, &kinds[p->kind]);
    for (int i = 0; i < 3; i++) {
        spoke_ns deadline = scene_in(&sc, SPOKE_MS / 2);
        int rc = spoke_select(&t.c, 1, &which, sc.e, deadline);

        if (t.c.what == SPOKE_SELECT_TIME && rc == 0) /* a pause may come between any two calls */
            break;
        expect_rc(rc, SPOKE_ETIMEDOUT);
        cr_assert_eq(which, 1);
        cr_assert_geq(spoke_engine_now(sc.e), deadline);
    }
    t.kind->make(&t);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    expect_rc(t.kind->use(&t), 0);
    thing_close(&t);
    scene_close(&sc);
}

/* ---- many ---- */

#define MOST 32

#define WAY_TEST(Name)                                                                             \
    ParameterizedTestParameters(many, Name)                                                        \
    {                                                                                              \
        return ways();                                                                             \
    }                                                                                              \
    ParameterizedTest(enum way *way, many, Name)

/* All kinds, each over one transport or two. */
static size_t
open_all(struct thing things[MOST], spoke_select_case cases[MOST], struct scene *sc)
{
    size_t count = 0;

    for (size_t i = 0; i < kinds_count; i++) {
        if ((kinds[i].real && sc->way == SIM) || transport_of(&kinds[i]) >= 0)
            continue;
        cr_assert_lt(count, MOST);
        thing_open(&things[count], sc, &kinds[i]);
        cases[count] = things[count].c;
        count++;
    }
    return count;
}

/* Every kind at once, in a random order: only the one that was made ready is named. */
WAY_TEST(things_of_all_kinds_are_told_apart)
{
    struct thing things[MOST];
    spoke_select_case cases[MOST];
    struct scene sc;
    size_t count, which;

    scene_open(&sc, *way);
    count = open_all(things, cases, &sc);
    for (size_t i = 0; i < count; i++)
        if (cases[i].what == SPOKE_SELECT_TIME)
            cases[i].of.when = SPOKE_FOREVER;
    for (size_t n = 0; n < count; n++) {
        size_t i = n * 101 % count; /* each once: fewer than 101 */
        struct later *later;

        if (cases[i].what == SPOKE_SELECT_TIME)
            continue;
        later = scene_later(&sc, make_ready, &things[i]);
        expect_rc(spoke_select(cases, count, &which, sc.e, SPOKE_FOREVER), 0);
        scene_joined(later);
        cr_assert_eq(which, i, "%s instead of %s", things[which].kind->name, things[i].kind->name);
        expect_rc(things[i].kind->use(&things[i]), 0);
        cases[i].what = SPOKE_SELECT_NONE; /* some stay ready: for writing */
    }
    for (size_t i = 0; i < count; i++)
        thing_close(&things[i]);
    scene_close(&sc);
}

/* All are ready, a thousand times: nobody is favoured. */
WAY_TEST(ready_cases_have_equal_chances)
{
    struct thing things[MOST];
    spoke_select_case cases[MOST];
    int chosen[MOST] = {0};
    struct scene sc;
    size_t count, which;

    scene_open(&sc, *way);
    count = open_all(things, cases, &sc);
    for (size_t i = 0; i < count; i++) {
        things[i].kind->make(&things[i]);
        if (cases[i].what == SPOKE_SELECT_TIME)
            cases[i].of.when = 1;
    }
    for (size_t i = 0; i < count; i++)
        expect_rc(spoke_select(&cases[i], 1, &which, sc.e, SPOKE_FOREVER), 0);
    for (int i = 0; i < 1000; i++) {
        expect_rc(spoke_select(cases, count, &which, sc.e, i % 2 ? SPOKE_NOW : SPOKE_FOREVER), 0);
        chosen[which]++;
    }
    for (size_t i = 0; i < count; i++) {
        int share = 1000 / (int)count;

        cr_expect(chosen[i] > share / 3 && chosen[i] < share * 3, "%s: %d of 1000",
                  things[i].kind->name, chosen[i]);
    }
    for (size_t i = 0; i < count; i++)
        thing_close(&things[i]);
    scene_close(&sc);
}

/* Something is always ready; what comes through the kernel, which only a turn of an owned engine
 * looks at, has its turn all the same. */
WAY_TEST(what_comes_through_the_engine_has_its_turn)
{
    struct scene sc;
    struct thing pull, reader;
    spoke_select_case cases[3] = {{.what = SPOKE_SELECT_TIME, .of.when = 1}};
    bool had[3] = {false};
    spoke_ns limit;

    scene_open(&sc, *way);
    thing_open(&pull, &sc, kind_of("socket-recv-ipc"));
    thing_open(&reader, &sc, kind_of("reader-ipc"));
    cases[1] = pull.c;
    cases[2] = reader.c;
    pull.kind->make(&pull);
    reader.kind->make(&reader);
    limit = scene_in(&sc, PATIENCE);
    while (!had[0] || !had[1] || !had[2]) {
        size_t which;

        expect_rc(spoke_select(cases, 3, &which, sc.e, SPOKE_FOREVER), 0);
        had[which] = true;
        if (sc.way == SIM)
            spoke_sim_step(sc.w); /* time passes */
        cr_assert_lt(spoke_engine_now(sc.e), limit);
    }
    thing_close(&pull);
    thing_close(&reader);
    scene_close(&sc);
}
