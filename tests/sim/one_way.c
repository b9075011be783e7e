/* SPDX-License-Identifier: MIT */
/* PUSH, PULL, PUB and SUB in storms (storm.h): of a pipeline's messages each comes to one puller,
 * or is counted as dropped, or was on a connection that is lost, and only one of these; a
 * subscriber hears what it subscribed to, each publisher in its order, and everything if nobody may
 * lose anything. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/storm.h"

#define POLLS_IN_CALM 20
#define SENDERS_MOST  3
#define TAKERS_MOST   3
#define TOPICS        4  /* the first word of a message: its kind, from 1 */
#define MESSAGES      40 /* that each sends in the storm; in the calm as many as it takes */
#define NUMBERS_MOST  4000
#define STREAMS_MOST  500

/* A PUSH or PUB.  It dials all takers. */
struct sender {
    int machine;
    spoke_socket *s;
    bool dialed;
    uint32_t sent[TOPICS + 1], sent_before_calm[TOPICS + 1];
    uint32_t first, arrived; /* pipeline: the first number of this life, how many of it came */
};

/* What came through one connection.  Of two to the same sender, one of which is about to end, each
 * has its own order. */
struct stream {
    spoke_pipe_id pipe;
    uint32_t from, last[TOPICS + 1];
};

/* A PULL or SUB. */
struct taker {
    int machine;
    spoke_socket *s;
    bool listens, wants[TOPICS + 1];
    bool changed[TOPICS + 1]; /* it did not want it all the time */
    struct stream streams[STREAMS_MOST];
    int stream_count;
    bool heard_in_calm[SENDERS_MOST];
};

struct scene {
    struct storm storm;
    bool pubsub;
    bool gapless; /* nobody may lose anything */
    enum spoke_loss loss_of_senders, loss_of_takers;
    spoke_ns expiry_ns; /* pipeline: of messages; 0: none */
    bool large;         /* messages are: what is to be written to a pipe is too much soon */
    int sender_count, taker_count, kills_left;
    bool quiet; /* nobody sends any more */
    struct sender senders[SENDERS_MOST];
    struct taker takers[TAKERS_MOST];
    bool seen[SENDERS_MOST][NUMBERS_MOST]; /* pipeline: has this number arrived? */
};

/* Nothing may be wrong but that something is short. */
static void
expect_shortage(struct storm *storm, int rc)
{
    storm_holds(storm,
                rc == SPOKE_ENOMEM || rc == SPOKE_EMFILE || rc == SPOKE_EAGAIN ||
                    rc == SPOKE_ETIMEDOUT,
                "%s", spoke_strerror(rc));
}

static const char *
url_of(const struct scene *x, int taker)
{
    static char url[80];

    snprintf(url, sizeof url, "%s%s", x->storm.url, taker == 0 ? "" : taker == 1 ? "1" : "2");
    return url;
}

/* ---- those who send ---- */

static void
open_sender(struct scene *x, struct sender *sender)
{
    sender->machine = storm_machine(&x->storm);
    sender->s = storm_socket(&x->storm, sender->machine, x->pubsub ? SPOKE_PUB : SPOKE_PUSH);
    sender->dialed = false;
    sender->first = sender->sent[1] + 1;
    sender->arrived = 0;
    cr_assert_eq(spoke_socket_set_int(sender->s, SPOKE_OPT_SEND_QUEUE, 4), 0);
    cr_assert_eq(spoke_socket_set_duration(sender->s, SPOKE_OPT_SEND_EXPIRY, x->expiry_ns), 0);
    if (x->pubsub) {
        cr_assert_eq(spoke_socket_set_int(sender->s, SPOKE_OPT_LOSS, (int)x->loss_of_senders), 0);
        cr_assert_eq(spoke_socket_set_size(sender->s, SPOKE_OPT_TOPIC_SIZE, sizeof(uint32_t)), 0);
    }
}

static void
dial_all(struct scene *x, struct sender *sender)
{
    int rc;

    for (int i = 0; i < x->taker_count; i++) {
        while ((rc = spoke_dial(sender->s, url_of(x, i), NULL, 0)) != 0)
            expect_shortage(&x->storm, rc);
    }
    sender->dialed = true;
}

static uint32_t
sent_of(const struct sender *sender)
{
    uint32_t sum = 0;

    for (int i = 1; i <= TOPICS; i++)
        sum += sender->sent[i];
    return sum;
}

static uint32_t
choose_size(struct scene *x)
{
    return x->large && storm_chance(&x->storm, 500)
               ? 20000 + (uint32_t)storm_below(&x->storm, 40000)
               : storm_size(&x->storm);
}

static void
send_something(struct scene *x, int index)
{
    struct sender *sender = &x->senders[index];
    uint32_t topic = x->pubsub ? 1 + (uint32_t)storm_below(&x->storm, TOPICS) : 1;
    struct storm_label label = {topic, (uint32_t)index, sender->sent[topic] + 1, choose_size(x)};
    bool wants = !x->quiet && (x->storm.calm || sent_of(sender) < MESSAGES);
    bool may = x->pubsub || label.number < NUMBERS_MOST;
    spoke_msg *m = wants && may ? storm_message(label) : NULL;
    int rc;

    if (m == NULL)
        return;
    if ((rc = spoke_send(sender->s, m, storm_chance(&x->storm, 900) ? SPOKE_DONTWAIT : 0)) == 0) {
        sender->sent[topic]++;
        sender->sent_before_calm[topic] += x->storm.calm ? 0 : 1;
    } else {
        expect_shortage(&x->storm, rc);
        spoke_msg_free(m);
    }
}

/* ---- those who receive ---- */

static void
subscribe(struct scene *x, struct taker *taker)
{
    int rc;

    for (uint32_t topic = 1; topic <= TOPICS; topic++) {
        while (taker->wants[topic] &&
               (rc = spoke_socket_set(taker->s, SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, &topic,
                                      sizeof topic)) != 0)
            expect_shortage(&x->storm, rc);
    }
}

static void
open_taker(struct scene *x, struct taker *taker)
{
    taker->machine = storm_machine(&x->storm);
    taker->s = storm_socket(&x->storm, taker->machine, x->pubsub ? SPOKE_SUB : SPOKE_PULL);
    taker->listens = false;
    taker->stream_count = 0;
    cr_assert_eq(spoke_socket_set_int(taker->s, SPOKE_OPT_RECV_QUEUE, 3), 0);
    if (x->pubsub) {
        cr_assert_eq(spoke_socket_set_int(taker->s, SPOKE_OPT_LOSS, (int)x->loss_of_takers), 0);
        subscribe(x, taker);
    }
}

/* The first topic stays. */
static void
change_a_subscription(struct scene *x, struct taker *taker)
{
    uint32_t topic = 2 + (uint32_t)storm_below(&x->storm, TOPICS - 1);
    const char *option = taker->wants[topic] ? SPOKE_OPT_UNSUBSCRIBE : SPOKE_OPT_SUBSCRIBE;
    int rc = spoke_socket_set(taker->s, option, SPOKE_BYTES, &topic, sizeof topic);

    if (rc != 0) {
        expect_shortage(&x->storm, rc);
        return;
    }
    taker->wants[topic] = !taker->wants[topic];
    taker->changed[topic] = true;
}

static void
listen_at(struct scene *x, int index)
{
    struct taker *taker = &x->takers[index];
    int rc = spoke_listen(taker->s, url_of(x, index), NULL, 0);

    taker->listens = rc == 0;
    if (rc != 0)
        storm_holds(&x->storm, rc == SPOKE_EADDRINUSE || rc == SPOKE_ENOMEM || rc == SPOKE_EMFILE,
                    "%s", spoke_strerror(rc));
}

static struct stream *
stream_of(struct scene *x, struct taker *taker, spoke_pipe_id pipe, uint32_t from)
{
    int i = taker->stream_count;

    while (i > 0 && taker->streams[i - 1].pipe != pipe)
        i--;
    if (i > 0) {
        storm_holds(&x->storm, taker->streams[i - 1].from == from, "%u through the pipe of %u",
                    from, taker->streams[i - 1].from);
        return &taker->streams[i - 1];
    }
    storm_holds(&x->storm, taker->stream_count < STREAMS_MOST, "too many connections");
    struct stream *stream = &taker->streams[taker->stream_count++];
    *stream = (struct stream){.pipe = pipe, .from = from};
    return stream;
}

static void
check_message(struct scene *x, int index, struct storm_label label, spoke_pipe_id pipe)
{
    struct storm *storm = &x->storm;
    struct taker *taker = &x->takers[index];

    storm_holds(storm, label.kind >= 1 && label.kind <= TOPICS, "kind %u", label.kind);
    storm_holds(storm, label.from < (uint32_t)x->sender_count, "from %u", label.from);
    uint32_t *last = &stream_of(x, taker, pipe, label.from)->last[label.kind];
    storm_holds(storm, label.number > *last, "%u of %u after its %u", label.number, label.from,
                *last);
    if (x->pubsub) {
        storm_holds(storm, taker->wants[label.kind], "topic %u at taker %d", label.kind, index);
        storm_holds(storm,
                    !x->gapless || taker->changed[label.kind] || *last == 0 ||
                        label.number == *last + 1,
                    "%u of %u right after its %u", label.number, label.from, *last);
    } else {
        if (label.number >= NUMBERS_MOST) {
            storm_holds(storm, false, "number %u", label.number);
            return;
        }
        storm_holds(storm, !x->seen[label.from][label.number], "%u of %u again", label.number,
                    label.from);
        x->seen[label.from][label.number] = true;
        x->senders[label.from].arrived += label.number >= x->senders[label.from].first;
    }
    *last = label.number;
    if (storm->calm && label.number > x->senders[label.from].sent_before_calm[label.kind])
        taker->heard_in_calm[label.from] = true;
}

static void
take_something(struct scene *x, int index)
{
    struct taker *taker = &x->takers[index];
    spoke_msg *m;
    if (x->pubsub && storm_chance(&x->storm, 10))
        change_a_subscription(x, taker);
    int rc = spoke_recv(taker->s, &m, storm_chance(&x->storm, 900) ? SPOKE_DONTWAIT : 0);

    if (rc != 0) {
        expect_shortage(&x->storm, rc);
        return;
    }
    check_message(x, index, storm_check(&x->storm, m), spoke_msg_pipe(m));
    spoke_msg_free(m);
}

/* ---- all together ---- */

static void
poll_someone(struct scene *x)
{
    int who = (int)storm_below(&x->storm, (uint64_t)x->sender_count + (uint64_t)x->taker_count);

    if (who < x->sender_count) {
        if (x->senders[who].dialed)
            send_something(x, who);
        else
            dial_all(x, &x->senders[who]);
    } else if (x->takers[who - x->sender_count].listens) {
        take_something(x, who - x->sender_count);
    } else {
        listen_at(x, who - x->sender_count);
    }
}

/* Pipeline: has everything that this sender took come to somebody, or been counted?  What was
 * written to a connection that is lost since is in nobody's hands. */
static bool
is_accounted_for(struct scene *x, const struct sender *sender)
{
    uint32_t taken = sender->sent[1] + 1 - sender->first;
    struct spoke_stats stats;

    cr_assert_eq(spoke_socket_stats(sender->s, &stats), 0);
    uint64_t known = sender->arrived + stats.dropped_lost + stats.dropped_expired;
    storm_holds(&x->storm, stats.messages_sent == taken, "%d of %u were taken",
                (int)stats.messages_sent, taken);
    storm_holds(&x->storm, known <= taken, "of %u %u came, %d were lost and %d expired", taken,
                sender->arrived, (int)stats.dropped_lost, (int)stats.dropped_expired);
    return known == taken || stats.pipes_attached > stats.pipes_current;
}

static void
kill_one(struct scene *x)
{
    int who = (int)storm_below(&x->storm, (uint64_t)x->sender_count + (uint64_t)x->taker_count);

    x->kills_left--;
    if (who < x->sender_count) {
        if (!x->pubsub)
            (void)is_accounted_for(x, &x->senders[who]);
        storm_kill(&x->storm, x->senders[who].machine);
        open_sender(x, &x->senders[who]);
    } else {
        storm_kill(&x->storm, x->takers[who - x->sender_count].machine);
        open_taker(x, &x->takers[who - x->sender_count]);
    }
}

static void
run(struct scene *x)
{
    storm_step(&x->storm);
    for (int polls = x->storm.calm ? POLLS_IN_CALM : 1; polls > 0; polls--)
        poll_someone(x);
    if (x->kills_left > 0 && !x->storm.calm && storm_chance(&x->storm, 2))
        kill_one(x);
}

/* Since it is calm: has every sender been heard, of publishers by every subscriber? */
static bool
all_heard(const struct scene *x)
{
    for (int s = 0; s < x->sender_count && x->storm.calm; s++) {
        int heard = 0;
        for (int t = 0; t < x->taker_count; t++)
            heard += x->takers[t].heard_in_calm[s];
        if (x->pubsub ? heard < x->taker_count : heard == 0)
            return false;
    }
    return x->storm.calm;
}

static bool
all_accounted_for(struct scene *x)
{
    for (int i = 0; i < x->sender_count; i++)
        if (!is_accounted_for(x, &x->senders[i]))
            return false;
    return true;
}

static void
open_all(struct scene *x)
{
    x->sender_count = 1 + (int)storm_below(&x->storm, SENDERS_MOST);
    x->taker_count = 1 + (int)storm_below(&x->storm, TAKERS_MOST);
    x->kills_left = x->storm.kills ? 3 : 0;
    x->loss_of_senders = (enum spoke_loss)storm_below(&x->storm, SPOKE_LOSS_DISCONNECT + 1);
    x->loss_of_takers = (enum spoke_loss)storm_below(&x->storm, SPOKE_LOSS_BLOCK + 1);
    x->gapless = x->storm.lossless && x->loss_of_senders == SPOKE_LOSS_BLOCK &&
                 x->loss_of_takers == SPOKE_LOSS_BLOCK;
    x->large = storm_chance(&x->storm, 200);
    x->expiry_ns = !x->pubsub && storm_chance(&x->storm, 300) ? SPOKE_MS : 0;
    for (int i = 0; i < x->taker_count; i++) {
        for (int topic = 1; topic <= TOPICS; topic++)
            x->takers[i].wants[topic] = topic == 1 || storm_chance(&x->storm, 400);
        open_taker(x, &x->takers[i]);
    }
    for (int i = 0; i < x->sender_count; i++)
        open_sender(x, &x->senders[i]);
}

static void
close_some(struct storm *storm, spoke_socket *s)
{
    int rc;

    if (!storm_chance(storm, 500))
        return;
    rc = spoke_socket_close(s);
    storm_holds(storm, rc == 0 || rc == SPOKE_ETIMEDOUT, "%s", spoke_strerror(rc));
}

static uint64_t
one_way_in_a_storm(const char *test, uint64_t seed, bool pubsub)
{
    static struct scene x;

    memset(&x, 0, sizeof x);
    x.pubsub = pubsub;
    storm_open(&x.storm, test, seed);
    open_all(&x);
    while (!all_heard(&x))
        run(&x);
    x.quiet = true;
    while (!pubsub && !all_accounted_for(&x))
        run(&x);
    storm_again(&x.storm);
    for (uint64_t steps = storm_below(&x.storm, 30); steps > 0; steps--)
        run(&x);
    for (int i = 0; i < x.sender_count; i++)
        close_some(&x.storm, x.senders[i].s);
    for (int i = 0; i < x.taker_count; i++)
        close_some(&x.storm, x.takers[i].s);
    return storm_close(&x.storm);
}

static uint64_t
pipelines_in_a_storm(const char *test, uint64_t seed)
{
    return one_way_in_a_storm(test, seed, false);
}

static uint64_t
publishers_in_a_storm(const char *test, uint64_t seed)
{
    return one_way_in_a_storm(test, seed, true);
}

Test(sim_protocols, a_pushed_message_comes_to_one_puller_or_is_counted)
{
    storm_for_each_seed("a_pushed_message_comes_to_one_puller_or_is_counted", pipelines_in_a_storm);
}

Test(sim_protocols, a_subscriber_hears_its_topics_and_each_publisher_in_order)
{
    storm_for_each_seed("a_subscriber_hears_its_topics_and_each_publisher_in_order",
                        publishers_in_a_storm);
}
