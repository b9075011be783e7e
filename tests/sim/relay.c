/* SPDX-License-Identifier: MIT */
/* Requests and replies through a device in storms (storm.h): whoever dies or is cut off, nobody
 * gets a reply that is not to his last request, or a second one, and in the calm all are
 * answered. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/storm.h"

enum { REQUEST = 1, REPLY = 2 };

#define CLIENTS_MOST  3
#define REQUESTS      10 /* that each client wants answered */
#define POLLS_IN_CALM 20

struct client {
    int machine;
    spoke_socket *s;
    bool dialed, waits;
    uint32_t number; /* of its last request */
    int answered;
};

/* The device, or the server, which has one socket. */
struct post {
    int machine;
    spoke_socket *front, *back;
    bool front_started, back_started;
};

struct scene {
    struct storm storm;
    int client_count, kills_left;
    struct client clients[CLIENTS_MOST];
    struct post device, server;
};

static const char *
url_of(const struct scene *x, bool back)
{
    static char url[80];

    snprintf(url, sizeof url, "%s%s", x->storm.url, back ? "1" : "");
    return url;
}

/* Nothing may be wrong but that something is short. */
static bool
works(struct scene *x, int rc)
{
    storm_holds(&x->storm,
                rc == 0 || rc == SPOKE_ENOMEM || rc == SPOKE_EMFILE || rc == SPOKE_EAGAIN ||
                    rc == SPOKE_ETIMEDOUT,
                "%s", spoke_strerror(rc));
    return rc == 0;
}

static void
open_client(struct scene *x, struct client *c)
{
    c->machine = storm_machine(&x->storm);
    c->s = storm_socket(&x->storm, c->machine, SPOKE_REQ);
    c->dialed = c->waits = false;
    cr_assert_eq(spoke_socket_set_duration(c->s, SPOKE_OPT_RETRY_TIME, 100 * SPOKE_MS), 0);
}

static void
open_device(struct scene *x)
{
    struct post *p = &x->device;
    spoke_device *d;

    p->machine = storm_machine(&x->storm);
    p->front = storm_socket(&x->storm, p->machine, SPOKE_REP);
    p->back = storm_socket(&x->storm, p->machine, SPOKE_REQ);
    p->front_started = p->back_started = false;
    while (!works(x, spoke_device_start(&d, p->front, p->back)))
        continue;
}

static void
open_server(struct scene *x)
{
    struct post *p = &x->server;

    p->machine = storm_machine(&x->storm);
    p->front = storm_socket(&x->storm, p->machine, SPOKE_REP);
    p->front_started = false;
}

static void
poll_device(struct scene *x)
{
    struct post *p = &x->device;

    if (!p->front_started)
        p->front_started = works(x, spoke_listen(p->front, url_of(x, false), NULL, 0));
    else if (!p->back_started)
        p->back_started = works(x, spoke_listen(p->back, url_of(x, true), NULL, 0));
}

static void
poll_server(struct scene *x)
{
    struct post *p = &x->server;
    struct storm_label label;
    spoke_msg *m;

    if (!p->front_started) {
        p->front_started = works(x, spoke_dial(p->front, url_of(x, true), NULL, 0));
        return;
    }
    if (!works(x, spoke_recv(p->front, &m, SPOKE_DONTWAIT)))
        return;
    label = storm_check(&x->storm, m);
    spoke_msg_free(m);
    storm_holds(&x->storm, label.kind == REQUEST, "kind %u", label.kind);
    label.kind = REPLY;
    label.size = storm_size(&x->storm);
    if ((m = storm_message(label)) != NULL && !works(x, spoke_send(p->front, m, SPOKE_DONTWAIT)))
        spoke_msg_free(m); /* it will be asked again */
}

static void
ask(struct scene *x, struct client *c)
{
    struct storm_label label = {REQUEST, (uint32_t)(c - x->clients), c->number + 1,
                                storm_size(&x->storm)};
    spoke_msg *m = storm_message(label);

    if (m == NULL)
        return;
    if (!works(x, spoke_send(c->s, m, SPOKE_DONTWAIT))) {
        spoke_msg_free(m);
        return;
    }
    c->number++;
    c->waits = true;
}

static void
take_reply(struct scene *x, struct client *c)
{
    struct storm_label label;
    spoke_msg *m;

    if (!works(x, spoke_recv(c->s, &m, storm_chance(&x->storm, 900) ? SPOKE_DONTWAIT : 0)))
        return;
    label = storm_check(&x->storm, m);
    spoke_msg_free(m);
    storm_holds(&x->storm,
                label.kind == REPLY && label.from == (uint32_t)(c - x->clients) &&
                    label.number == c->number,
                "kind %u of client %u, number %u, not %u", label.kind, label.from, label.number,
                c->number);
    int rc = spoke_recv(c->s, &m, SPOKE_DONTWAIT);
    storm_holds(&x->storm, rc == SPOKE_ESTATE, "a second reply: %s", spoke_strerror(rc));
    c->waits = false;
    c->answered++;
}

/* Nothing comes to who has not asked, also not the second reply to a request that was sent again.
 */
static void
expect_nothing(struct scene *x, struct client *c)
{
    spoke_msg *m;
    int rc = spoke_recv(c->s, &m, SPOKE_DONTWAIT);

    storm_holds(&x->storm, rc == SPOKE_ESTATE, "one more reply: %s", spoke_strerror(rc));
}

static void
poll_client(struct scene *x, struct client *c)
{
    if (!c->dialed)
        c->dialed = works(x, spoke_dial(c->s, url_of(x, false), NULL, 0));
    else if (c->waits && !storm_chance(&x->storm, 10))
        take_reply(x, c);
    else if (!c->waits && storm_chance(&x->storm, 300))
        expect_nothing(x, c);
    else if (c->answered < REQUESTS)
        ask(x, c); /* also instead of one that is not answered yet */
}

static void
poll_someone(struct scene *x)
{
    uint64_t who = storm_below(&x->storm, (uint64_t)x->client_count + 2);

    if (who == 0)
        poll_device(x);
    else if (who == 1)
        poll_server(x);
    else
        poll_client(x, &x->clients[who - 2]);
}

static void
kill_one(struct scene *x)
{
    uint64_t victim = storm_below(&x->storm, (uint64_t)x->client_count + 2);

    x->kills_left--;
    if (victim == 0) {
        storm_kill(&x->storm, x->device.machine);
        open_device(x);
    } else if (victim == 1) {
        storm_kill(&x->storm, x->server.machine);
        open_server(x);
    } else {
        storm_kill(&x->storm, x->clients[victim - 2].machine);
        open_client(x, &x->clients[victim - 2]);
    }
}

static bool
all_answered(const struct scene *x)
{
    for (int i = 0; i < x->client_count; i++)
        if (x->clients[i].answered < REQUESTS || x->clients[i].waits)
            return false;
    return true;
}

static uint64_t
relay_in_a_storm(const char *test, uint64_t seed)
{
    static struct scene x;

    memset(&x, 0, sizeof x);
    storm_open(&x.storm, test, seed);
    x.client_count = 1 + (int)storm_below(&x.storm, CLIENTS_MOST);
    x.kills_left = x.storm.kills ? 3 : 0;
    open_device(&x);
    open_server(&x);
    for (int i = 0; i < x.client_count; i++)
        open_client(&x, &x.clients[i]);
    while (!all_answered(&x)) {
        storm_step(&x.storm);
        for (int polls = x.storm.calm ? POLLS_IN_CALM : 1; polls > 0; polls--)
            poll_someone(&x);
        if (x.kills_left > 0 && !x.storm.calm && storm_chance(&x.storm, 2))
            kill_one(&x);
    }
    storm_again(&x.storm);
    for (uint64_t steps = storm_below(&x.storm, 30); steps > 0; steps--)
        storm_step(&x.storm);
    return storm_close(&x.storm);
}

Test(sim_relay, a_reply_comes_back_through_a_device_once)
{
    storm_for_each_seed("a_reply_comes_back_through_a_device_once", relay_in_a_storm);
}
