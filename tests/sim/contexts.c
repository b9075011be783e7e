/* SPDX-License-Identifier: MIT */
/* Many conversations on few sockets in storms (storm.h): requests and surveys, each asked in a
 * context and answered in a context.  Whatever is short, late, torn or killed, an answer comes to
 * the conversation that asked, to its present question, once from each who was asked, and, in a
 * survey, not after its deadline. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/storm.h"

enum { QUESTION = 1, ANSWER = 16 }; /* + who answers */

#define ASKERS_MOST    2
#define ANSWERERS_MOST 3
#define TALKS_MOST     4 /* conversations of a socket; the first is its own */
#define REQUESTS       4 /* that each conversation wants answered */
#define POLLS_IN_CALM  20

struct talk {
    spoke_context *c;  /* not of the first one */
    uint32_t number;   /* of its last question */
    bool waits;        /* … for answers to it */
    spoke_ns until;    /* a survey's deadline */
    uint32_t heard;    /* a bit for each who has answered it */
    int complete;      /* questions that were answered by all */
    spoke_msg *answer; /* of an answerer: could not be sent yet */
};

struct party {
    int machine, index, talk_count;
    spoke_socket *s;
    spoke_engine *e;
    bool ready; /* listens; has dialed */
    struct talk talks[TALKS_MOST];
};

static struct scene {
    struct storm storm;
    bool survey; /* else requests */
    int asker_count, answerer_count, kills_left;
    struct party askers[ASKERS_MOST], answerers[ANSWERERS_MOST];
} x;

static const char *
url_of(int asker)
{
    static char url[80];

    snprintf(url, sizeof url, "%s%s", x.storm.url, asker == 0 ? "" : "1");
    return url;
}

/* Nothing may be wrong but that something is short. */
static void
expect_shortage(int rc)
{
    storm_holds(&x.storm,
                rc == SPOKE_ENOMEM || rc == SPOKE_EMFILE || rc == SPOKE_EAGAIN ||
                    rc == SPOKE_ETIMEDOUT,
                "%s", spoke_strerror(rc));
}

static int
send_in(struct party *p, struct talk *t, spoke_msg *m)
{
    return t == p->talks ? spoke_send(p->s, m, SPOKE_DONTWAIT)
                         : spoke_context_send(t->c, m, SPOKE_DONTWAIT);
}

static int
recv_in(struct party *p, struct talk *t, spoke_msg **m)
{
    int flags = storm_chance(&x.storm, 900) ? SPOKE_DONTWAIT : 0;

    return t == p->talks ? spoke_recv(p->s, m, flags) : spoke_context_recv(t->c, m, flags);
}

/* False: it has no context now. */
static bool
is_open(struct party *p, struct talk *t)
{
    if (t == p->talks)
        return true;
    if (t->c != NULL && storm_chance(&x.storm, 5)) { /* another in its place */
        int rc = spoke_context_close(t->c);
        storm_holds(&x.storm, rc == 0, "%s", spoke_strerror(rc));
        t->c = NULL;
        t->waits = false;
        spoke_msg_free(t->answer);
        t->answer = NULL;
    }
    if (t->c == NULL) {
        int rc = spoke_context_open(&t->c, p->s);
        if (rc != 0)
            expect_shortage(rc);
    }
    return t->c != NULL;
}

/* ---- who asks ---- */

static uint32_t
name_of(const struct party *p, const struct talk *t)
{
    return (uint32_t)(p->index * TALKS_MOST + (int)(t - p->talks));
}

static spoke_ns
set_survey_time(struct party *p, struct talk *t)
{
    spoke_ns survey_ns = x.storm.calm ? 2 * SPOKE_SECOND
                                      : (spoke_ns)storm_below(&x.storm, 1000) * SPOKE_MS + 1;
    int rc = t == p->talks ? spoke_socket_set_duration(p->s, SPOKE_OPT_SURVEY_TIME, survey_ns)
                           : spoke_context_set_duration(t->c, SPOKE_OPT_SURVEY_TIME, survey_ns);

    cr_assert_eq(rc, 0);
    return survey_ns;
}

static void
ask(struct party *p, struct talk *t)
{
    struct storm_label label = {QUESTION, name_of(p, t), t->number + 1, storm_size(&x.storm)};
    spoke_ns survey_ns = x.survey ? set_survey_time(p, t) : 0;
    spoke_msg *m = storm_message(label);
    int rc;

    if (m == NULL)
        return;
    if ((rc = send_in(p, t, m)) != 0) {
        expect_shortage(rc);
        spoke_msg_free(m);
        return;
    }
    t->number++;
    t->waits = true;
    t->heard = 0;
    t->until = x.survey ? spoke_engine_now(p->e) + survey_ns : SPOKE_FOREVER;
}

static void
take_answer(struct party *p, struct talk *t)
{
    spoke_msg *m;
    int rc = recv_in(p, t, &m);
    spoke_ns now = spoke_engine_now(p->e);

    if (rc == SPOKE_ESTATE) {
        storm_holds(&x.storm, now >= t->until, "%lld before its time", (long long)(t->until - now));
        t->waits = false;
    }
    if (rc == SPOKE_ESTATE)
        return;
    if (rc != 0) {
        expect_shortage(rc);
        return;
    }
    struct storm_label label = storm_check(&x.storm, m);
    spoke_msg_free(m);
    storm_holds(&x.storm, label.kind >= ANSWER && label.kind < ANSWER + (uint32_t)x.answerer_count,
                "kind %u", label.kind);
    storm_holds(&x.storm, label.from == name_of(p, t), "%u gets what %u asked for", name_of(p, t),
                label.from);
    storm_holds(&x.storm, label.number == t->number, "asked %u, got %u", t->number, label.number);
    storm_holds(&x.storm, now < t->until, "%lld after its time", (long long)(now - t->until));
    uint32_t bit = 1u << (label.kind - ANSWER);
    storm_holds(&x.storm, (t->heard & bit) == 0, "%u answers twice", label.kind - ANSWER);
    t->heard |= bit;
    if (x.survey && t->heard != (1u << x.answerer_count) - 1)
        return;
    if (!x.survey) {
        rc = recv_in(p, t, &m);
        storm_holds(&x.storm, rc == SPOKE_ESTATE, "a second reply: %s", spoke_strerror(rc));
    }
    t->waits = false;
    t->complete++;
}

/* Nothing comes to who has not asked, or has got all there is: no second answer, and none to a
 * question that was asked before. */
static void
expect_nothing(struct party *p, struct talk *t)
{
    spoke_msg *m;
    int rc = recv_in(p, t, &m);

    storm_holds(&x.storm, rc == SPOKE_ESTATE || (x.survey && rc != 0), "%s", spoke_strerror(rc));
}

static void
poll_asker(struct party *p)
{
    struct talk *t = &p->talks[storm_below(&x.storm, (uint64_t)p->talk_count)];

    if (!p->ready) {
        int rc = spoke_listen(p->s, url_of(p->index), NULL, 0);
        p->ready = rc == 0;
        if (rc != 0)
            expect_shortage(rc);
    } else if (is_open(p, t)) {
        if (t->waits && !storm_chance(&x.storm, 10))
            take_answer(p, t);
        else if (!t->waits && storm_chance(&x.storm, 300))
            expect_nothing(p, t);
        else
            ask(p, t); /* also instead of one that is not answered yet */
    }
}

/* ---- who answers ---- */

/* One answer to one question. */
static void
expect_no_second_answer(struct party *p, struct talk *t)
{
    struct storm_label label = {ANSWER, 0, 0, 0};
    spoke_msg *m = storm_message(label);
    int rc = m == NULL ? SPOKE_ESTATE : send_in(p, t, m);

    storm_holds(&x.storm, rc == SPOKE_ESTATE, "%s", spoke_strerror(rc));
    spoke_msg_free(m);
}

static void
send_answer(struct party *p, struct talk *t)
{
    int rc;

    if (t->answer == NULL)
        return;
    if ((rc = send_in(p, t, t->answer)) != 0) {
        expect_shortage(rc);
        return;
    }
    t->answer = NULL;
    if (storm_chance(&x.storm, 100))
        expect_no_second_answer(p, t);
}

static void
take_question(struct party *p, struct talk *t)
{
    spoke_msg *m;
    int rc = recv_in(p, t, &m);

    if (rc != 0) {
        expect_shortage(rc);
        return;
    }
    struct storm_label label = storm_check(&x.storm, m);
    spoke_msg_free(m);
    storm_holds(&x.storm, label.kind == QUESTION, "kind %u", label.kind);
    if (!x.storm.calm && storm_chance(&x.storm, 30))
        return; /* no answer */
    label.kind = ANSWER + (uint32_t)p->index;
    label.size = storm_size(&x.storm);
    t->answer = storm_message(label);
}

static void
poll_answerer(struct party *p)
{
    struct talk *t = &p->talks[storm_below(&x.storm, (uint64_t)p->talk_count)];
    int rc = 0;

    if (!p->ready) {
        for (int i = 0; i < x.asker_count; i++)
            while ((rc = spoke_dial(p->s, url_of(i), NULL, 0)) != 0)
                expect_shortage(rc);
        p->ready = true;
    } else if (is_open(p, t)) {
        if (t->answer == NULL)
            take_question(p, t);
        send_answer(p, t);
    }
}

/* ---- all of it ---- */

static void
start(struct party *p, int pattern)
{
    for (int i = 0; i < TALKS_MOST; i++) {
        spoke_msg_free(p->talks[i].answer);
        p->talks[i].answer = NULL;
        p->talks[i].c = NULL;
        p->talks[i].waits = false;
    }
    p->machine = storm_machine(&x.storm);
    p->e = x.storm.machines[p->machine];
    p->s = storm_socket(&x.storm, p->machine, pattern);
    p->ready = false;
    if (pattern == SPOKE_REQ)
        cr_assert_eq(spoke_socket_set_duration(p->s, SPOKE_OPT_RETRY_TIME, 100 * SPOKE_MS), 0);
}

static void
start_asker(struct party *p)
{
    start(p, x.survey ? SPOKE_SURVEYOR : SPOKE_REQ);
}

static void
start_answerer(struct party *p)
{
    start(p, x.survey ? SPOKE_RESPONDENT : SPOKE_REP);
}

static void
step(void)
{
    storm_step(&x.storm);
    for (int polls = x.storm.calm ? POLLS_IN_CALM : 1; polls > 0; polls--) {
        if (storm_chance(&x.storm, 500))
            poll_asker(&x.askers[storm_below(&x.storm, (uint64_t)x.asker_count)]);
        else
            poll_answerer(&x.answerers[storm_below(&x.storm, (uint64_t)x.answerer_count)]);
    }
    if (x.kills_left == 0 || x.storm.calm || !storm_chance(&x.storm, 2))
        return;
    x.kills_left--;
    if (storm_chance(&x.storm, 500)) {
        struct party *p = &x.askers[storm_below(&x.storm, (uint64_t)x.asker_count)];
        storm_kill(&x.storm, p->machine);
        start_asker(p);
    } else {
        struct party *p = &x.answerers[storm_below(&x.storm, (uint64_t)x.answerer_count)];
        storm_kill(&x.storm, p->machine);
        start_answerer(p);
    }
}

static bool
all_complete(void)
{
    for (int i = 0; i < x.asker_count; i++)
        for (int j = 0; j < x.askers[i].talk_count; j++)
            if (x.askers[i].talks[j].complete < (x.survey ? 1 : REQUESTS))
                return false;
    return true;
}

static void
close_party(struct party *p)
{
    for (int i = 0; i < TALKS_MOST; i++)
        spoke_msg_free(p->talks[i].answer);
    if (!storm_chance(&x.storm, 500)) /* the others are closed with the world */
        return;
    int rc = spoke_socket_close(p->s);
    storm_holds(&x.storm, rc == 0 || rc == SPOKE_ETIMEDOUT, "%s", spoke_strerror(rc));
}

static uint64_t
talks_in_a_storm(const char *test, uint64_t seed, bool survey)
{
    memset(&x, 0, sizeof x);
    storm_open(&x.storm, test, seed);
    x.survey = survey;
    x.asker_count = 1 + (int)storm_below(&x.storm, ASKERS_MOST);
    x.answerer_count = 1 + (int)storm_below(&x.storm, ANSWERERS_MOST);
    x.kills_left = x.storm.kills ? 3 : 0;
    for (int i = 0; i < x.asker_count; i++) {
        x.askers[i].index = i;
        x.askers[i].talk_count = 1 + (int)storm_below(&x.storm, TALKS_MOST);
        start_asker(&x.askers[i]);
    }
    for (int i = 0; i < x.answerer_count; i++) {
        x.answerers[i].index = i;
        x.answerers[i].talk_count = 1 + (int)storm_below(&x.storm, TALKS_MOST);
        start_answerer(&x.answerers[i]);
    }
    while (!all_complete())
        step();
    storm_again(&x.storm);
    for (uint64_t steps = storm_below(&x.storm, 30); steps > 0; steps--)
        storm_step(&x.storm);
    for (int i = 0; i < x.asker_count; i++)
        close_party(&x.askers[i]);
    for (int i = 0; i < x.answerer_count; i++)
        close_party(&x.answerers[i]);
    return storm_close(&x.storm);
}

static uint64_t
requests(const char *test, uint64_t seed)
{
    return talks_in_a_storm(test, seed, false);
}

Test(sim_protocols, a_reply_comes_once_to_the_context_that_asked)
{
    storm_for_each_seed("a_reply_comes_once_to_the_context_that_asked", requests);
}

static uint64_t
surveys(const char *test, uint64_t seed)
{
    return talks_in_a_storm(test, seed, true);
}

Test(sim_protocols, an_answer_comes_in_time_and_to_its_survey)
{
    storm_for_each_seed("an_answer_comes_in_time_and_to_its_survey", surveys);
}
