/* SPDX-License-Identifier: MIT */
/* BUS and STAR in storms (storm.h), with and without devices: nobody gets what is not for him, and,
 * as long as no connection is lost, what he sent himself, or anything twice or out of order; and
 * when it is calm everybody hears of everybody. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/storm.h"

enum { NOTE = 1 };

#define MEMBERS_MOST  6
#define NOTES         20 /* that each sends in the storm; in the calm as many as it takes */
#define NUMBERS       8192
#define POLLS_IN_CALM 20

/* How they are connected, and who hears whom. */
enum topology {
    BUS_AROUND_ONE,     /* member 0 and each of the others hear each other */
    BUS_AROUND_HUB,     /* member 0 is a device on one raw socket: the others hear each other */
    STAR_TREE,          /* everybody hears everybody */
    STAR_AROUND_DEVICE, /* member 0 is a device on two raw sockets: all but it do */
    STAR_RING,          /* each has two ways to everybody, and to himself; hops end it */
};

struct member {
    int machine;
    spoke_socket *s, *second; /* `second`: of a device */
    bool started, listens, listens_twice;
    uint32_t sent, sent_before_calm;
    uint32_t last[MEMBERS_MOST];         /* of each sender */
    uint8_t seen[MEMBERS_MOST][NUMBERS]; /* how often */
};

struct society {
    struct storm storm;
    enum topology topology;
    int count, kills_left, ttl;
    struct member members[MEMBERS_MOST];
};

static bool
is_device(const struct society *x, int index)
{
    return index == 0 && (x->topology == BUS_AROUND_HUB || x->topology == STAR_AROUND_DEVICE);
}

static bool
hears(const struct society *x, int index, int from)
{
    if (index == from || is_device(x, index) || is_device(x, from))
        return false;
    return x->topology != BUS_AROUND_ONE || index == 0 || from == 0;
}

static int
pattern_of(const struct society *x)
{
    return x->topology == BUS_AROUND_ONE || x->topology == BUS_AROUND_HUB ? SPOKE_BUS : SPOKE_STAR;
}

/* Who passes on knows members by their connections: what came over one that is lost goes to that
 * member's next one too, which, if it is a STAR, passes it on once more. */
static bool
may_echo(const struct society *x, int index, int from)
{
    return (x->topology != BUS_AROUND_ONE && index == from && !x->storm.lossless) ||
           x->topology == STAR_RING;
}

/* How often a note may come to one member: in a ring, each way around ends after `ttl` of them. */
static int
copies_most(const struct society *x)
{
    if (pattern_of(x) == SPOKE_STAR && !x->storm.lossless)
        return UINT8_MAX;
    return x->topology == STAR_RING ? 2 * ((x->ttl + x->count - 1) / x->count) : 1;
}

/* Whom a member dials; -1: nobody. */
static int
parent_of(const struct society *x, int index)
{
    if (x->topology == STAR_RING)
        return (index + 1) % x->count;
    if (index == 0)
        return -1;
    return pattern_of(x) == SPOKE_BUS ? 0 : (index - 1) / 2;
}

/* A device listens in two places, by turns for its children. */
static const char *
url_of(const struct society *x, int index, bool second)
{
    static char url[80];

    snprintf(url, sizeof url, "%s%d", x->storm.url, second ? index + MEMBERS_MOST : index);
    return url;
}

static void
expect_shortage(struct storm *storm, int rc)
{
    storm_holds(storm,
                rc == SPOKE_ENOMEM || rc == SPOKE_EMFILE || rc == SPOKE_EAGAIN ||
                    rc == SPOKE_ETIMEDOUT,
                "%s", spoke_strerror(rc));
}

static bool
works(struct society *x, int rc)
{
    if (rc != 0)
        expect_shortage(&x->storm, rc);
    return rc == 0;
}

static void
start_device(struct society *x, struct member *m)
{
    spoke_device *d;

    m->second = x->topology == STAR_AROUND_DEVICE
                    ? storm_socket(&x->storm, m->machine, pattern_of(x))
                    : NULL;
    while (!works(x, spoke_device_start(&d, m->s, m->second)))
        continue;
}

static void
open_member(struct society *x, int index)
{
    struct member *m = &x->members[index];

    m->machine = storm_machine(&x->storm);
    m->s = storm_socket(&x->storm, m->machine, pattern_of(x));
    m->listens = m->listens_twice = m->started = false;
    if (x->topology == STAR_RING)
        cr_assert_eq(spoke_socket_set_int(m->s, SPOKE_OPT_TTL, x->ttl), 0);
    if (is_device(x, index))
        start_device(x, m);
}

/* Listen, and dial the parent, as far as it works. */
static void
start_member(struct society *x, int index)
{
    struct member *m = &x->members[index];

    if (!m->listens &&
        !(m->listens = works(x, spoke_listen(m->s, url_of(x, index, false), NULL, 0))))
        return;
    if (m->second != NULL && !m->listens_twice &&
        !(m->listens_twice = works(x, spoke_listen(m->second, url_of(x, index, true), NULL, 0))))
        return;
    int parent = parent_of(x, index);
    bool second = x->topology == STAR_AROUND_DEVICE && parent == 0 && index % 2 == 0;
    m->started = parent < 0 || works(x, spoke_dial(m->s, url_of(x, parent, second), NULL, 0));
}

static void
send_note(struct society *x, int index)
{
    struct member *m = &x->members[index];
    struct storm_label label = {NOTE, (uint32_t)index, m->sent + 1, storm_size(&x->storm)};
    spoke_msg *note = x->storm.calm || m->sent < NOTES ? storm_message(label) : NULL;
    int rc;

    if (note == NULL)
        return;
    if ((rc = spoke_send(m->s, note, 0)) != 0) {
        storm_holds(&x->storm, rc == SPOKE_ENOMEM, "%s", spoke_strerror(rc));
        spoke_msg_free(note);
        return;
    }
    m->sent++;
    m->sent_before_calm += x->storm.calm ? 0 : 1;
}

static void
take_note(struct society *x, int index)
{
    struct storm *storm = &x->storm;
    struct member *m = &x->members[index];
    spoke_msg *note;
    int rc = spoke_recv(m->s, &note, storm_chance(storm, 900) ? SPOKE_DONTWAIT : 0);

    if (!works(x, rc))
        return;
    storm_holds(storm, spoke_msg_header_size(note) == 0, "a header");
    struct storm_label label = storm_check(storm, note);
    spoke_msg_free(note);
    storm_holds(storm, label.kind == NOTE && label.from < (uint32_t)x->count, "kind %u from %u",
                label.kind, label.from);
    storm_holds(storm, hears(x, index, (int)label.from) || may_echo(x, index, (int)label.from),
                "member %d gets a note of member %u", index, label.from);
    storm_holds(storm, label.number < NUMBERS, "%u", label.number);
    uint8_t *seen = &m->seen[label.from][label.number % NUMBERS];
    storm_holds(storm, *seen < copies_most(x), "member %d gets note %u of %u %u times", index,
                label.number, label.from, *seen + 1);
    *seen = *seen < UINT8_MAX ? (uint8_t)(*seen + 1) : *seen;
    /* Where connections are lost, what an old one still had comes after what a new one has. */
    storm_holds(storm,
                !storm->lossless || x->topology == STAR_RING || label.number > m->last[label.from],
                "note %u of member %u after its %u", label.number, label.from, m->last[label.from]);
    if (label.number > m->last[label.from])
        m->last[label.from] = label.number;
}

static void
poll_member(struct society *x, int index)
{
    if (!x->members[index].started)
        start_member(x, index);
    else if (is_device(x, index))
        return;
    else if (storm_chance(&x->storm, 200))
        send_note(x, index);
    else
        take_note(x, index);
}

static bool
all_have_heard(const struct society *x)
{
    for (int i = 0; i < x->count; i++)
        for (int j = 0; j < x->count; j++)
            if (hears(x, i, j) && x->members[i].last[j] <= x->members[j].sent_before_calm)
                return false;
    return x->storm.calm;
}

static void
step(struct society *x)
{
    int victim = (int)storm_below(&x->storm, (uint64_t)x->count);

    storm_step(&x->storm);
    for (int polls = x->storm.calm ? POLLS_IN_CALM : 1; polls > 0; polls--)
        poll_member(x, (int)storm_below(&x->storm, (uint64_t)x->count));
    if (x->kills_left > 0 && !x->storm.calm && storm_chance(&x->storm, 2)) {
        x->kills_left--;
        storm_kill(&x->storm, x->members[victim].machine);
        open_member(x, victim);
    }
}

/* Some close their sockets themselves, the others are closed with the world. */
static void
close_some(struct storm *storm, spoke_socket *s)
{
    int rc;

    if (s == NULL || !storm_chance(storm, 500))
        return;
    rc = spoke_socket_close(s);
    storm_holds(storm, rc == 0 || rc == SPOKE_ETIMEDOUT, "%s", spoke_strerror(rc));
}

static uint64_t
society_in_a_storm(const char *test, uint64_t seed, enum topology topology)
{
    static struct society x;

    memset(&x, 0, sizeof x);
    storm_open(&x.storm, test, seed);
    x.topology = topology;
    x.count = 3 + (int)storm_below(&x.storm, MEMBERS_MOST - 2);
    x.kills_left = x.storm.kills ? 3 : 0;
    x.ttl = x.count / 2 + (int)storm_below(&x.storm, 8);
    for (int i = 0; i < x.count; i++)
        open_member(&x, i);
    while (!all_have_heard(&x))
        step(&x);
    storm_again(&x.storm);
    for (uint64_t steps = storm_below(&x.storm, 30); steps > 0; steps--)
        storm_step(&x.storm);
    for (int i = 0; i < x.count; i++) {
        close_some(&x.storm, x.members[i].s);
        close_some(&x.storm, x.members[i].second);
    }
    return storm_close(&x.storm);
}

#define SOCIETY_TEST(Name, Topology)                                                               \
    static uint64_t Name##_run(const char *test, uint64_t seed)                                    \
    {                                                                                              \
        return society_in_a_storm(test, seed, Topology);                                           \
    }                                                                                              \
    Test(sim_society, Name)                                                                        \
    {                                                                                              \
        storm_for_each_seed(#Name, Name##_run);                                                    \
    }

SOCIETY_TEST(a_bus_reaches_its_direct_peers_once, BUS_AROUND_ONE)
SOCIETY_TEST(a_hub_of_buses_echoes_and_repeats_nothing, BUS_AROUND_HUB)
SOCIETY_TEST(a_star_reaches_everybody_once, STAR_TREE)
SOCIETY_TEST(a_device_between_stars_echoes_and_repeats_nothing, STAR_AROUND_DEVICE)
SOCIETY_TEST(a_ring_of_stars_comes_to_an_end, STAR_RING)
