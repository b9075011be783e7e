/* SPDX-License-Identifier: MIT */
/* PAIR, PAIR1, REQ and REP in storms (storm.h): whatever is short, late, torn or killed, nobody
 * gets what is not his, twice, or out of order, and when it is calm everybody gets what he asked
 * for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/storm.h"

enum { REQUEST = 1, REPLY = 2, NOTE = 3 };

/* In a storm everybody is slow; in the calm all look at their sockets before time can pass. */
#define POLLS_IN_CALM 20

/* ---- requests and replies ---- */

#define CLIENTS_MOST 4
#define SERVERS_MOST 2
#define REQUESTS     12 /* that each client wants answered */

struct client {
    int machine, index;
    spoke_socket *s;
    bool dialed;
    uint32_t number; /* of its last request */
    bool waits;      /* … for the reply to it */
    int answered;
};

struct server {
    struct scene *scene;
    int machine;
    spoke_socket *s;
    bool listens, calls_back;
    spoke_msg *reply; /* could not be sent yet */
};

struct scene {
    struct storm storm;
    int client_count, server_count;
    struct client clients[CLIENTS_MOST];
    struct server servers[SERVERS_MOST];
    int kills_left;
};

static const char *
url_of(const struct scene *x, int server)
{
    static char url[80];

    snprintf(url, sizeof url, "%s%s", x->storm.url, server == 0 ? "" : "1");
    return url;
}

/* Nothing may be wrong but that something is short. */
static void
expect_shortage(struct storm *storm, int rc)
{
    storm_holds(storm,
                rc == SPOKE_ENOMEM || rc == SPOKE_EMFILE || rc == SPOKE_EAGAIN ||
                    rc == SPOKE_ETIMEDOUT,
                "%s", spoke_strerror(rc));
}

/* REP: what came in is a request of somebody's; answer it. */
static spoke_msg *
make_reply(struct storm *storm, spoke_msg *request)
{
    struct storm_label label = storm_check(storm, request);

    storm_holds(storm, label.kind == REQUEST, "kind %u", label.kind);
    spoke_msg_free(request);
    label.kind = REPLY;
    label.size = storm_size(storm);
    return storm_message(label);
}

/* One reply to one request. */
static void
expect_no_second_reply(struct server *server)
{
    struct storm_label label = {REPLY, 0, 0, 0};
    spoke_msg *m = storm_message(label);
    int rc = m == NULL ? SPOKE_ESTATE : spoke_send(server->s, m, SPOKE_DONTWAIT);

    storm_holds(&server->scene->storm, rc == SPOKE_ESTATE, "%s", spoke_strerror(rc));
    spoke_msg_free(m);
}

static void
send_reply(struct server *server)
{
    int rc;

    if (server->reply == NULL)
        return;
    if ((rc = spoke_send(server->s, server->reply, SPOKE_DONTWAIT)) != 0) {
        expect_shortage(&server->scene->storm, rc);
        return;
    }
    server->reply = NULL;
    if (storm_chance(&server->scene->storm, 100))
        expect_no_second_reply(server);
}

static void
on_request(spoke_socket *s, spoke_msg *m, void *ctx)
{
    struct server *server = ctx;
    spoke_msg *reply = make_reply(&server->scene->storm, m);

    if (reply != NULL && spoke_send(s, reply, SPOKE_DONTWAIT) != 0)
        spoke_msg_free(reply); /* it will be asked again */
}

static void
poll_server(struct scene *x, struct server *server)
{
    struct storm *storm = &x->storm;
    spoke_msg *m;
    int rc;

    if (!server->listens) {
        rc = spoke_listen(server->s, url_of(x, (int)(server - x->servers)), NULL, 0);
        server->listens = rc == 0;
        if (rc != 0)
            expect_shortage(storm, rc);
    } else if (server->reply != NULL) {
        send_reply(server);
    } else if (!server->calls_back) {
        rc = spoke_recv(server->s, &m, storm_chance(storm, 900) ? SPOKE_DONTWAIT : 0);
        if (rc != 0)
            expect_shortage(storm, rc);
        else if (storm_chance(storm, 30))
            spoke_msg_free(m); /* no answer: it will be asked again */
        else
            server->reply = make_reply(storm, m);
        send_reply(server);
    }
}

static void
ask(struct scene *x, struct client *c)
{
    struct storm_label label = {REQUEST, (uint32_t)c->index, c->number + 1, storm_size(&x->storm)};
    spoke_msg *m = storm_message(label);
    int rc;

    if (m == NULL)
        return;
    if ((rc = spoke_send(c->s, m, storm_chance(&x->storm, 900) ? SPOKE_DONTWAIT : 0)) != 0) {
        expect_shortage(&x->storm, rc);
        spoke_msg_free(m);
        return;
    }
    c->number++;
    c->waits = true;
}

static void
take_reply(struct scene *x, struct client *c)
{
    struct storm *storm = &x->storm;
    struct storm_label label;
    spoke_msg *m;
    int rc = spoke_recv(c->s, &m, storm_chance(storm, 900) ? SPOKE_DONTWAIT : 0);

    if (rc != 0) {
        expect_shortage(storm, rc);
        return;
    }
    label = storm_check(storm, m);
    spoke_msg_free(m);
    storm_holds(storm, label.kind == REPLY, "kind %u", label.kind);
    storm_holds(storm, label.from == (uint32_t)c->index, "client %d gets what client %u asked for",
                c->index, label.from);
    storm_holds(storm, label.number == c->number, "asked for %u, got %u", c->number, label.number);
    rc = spoke_recv(c->s, &m, SPOKE_DONTWAIT);
    storm_holds(storm, rc == SPOKE_ESTATE, "a second reply: %s", spoke_strerror(rc));
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
dial_all(struct scene *x, struct client *c)
{
    int rc;

    for (int i = 0; i < x->server_count; i++) {
        while ((rc = spoke_dial(c->s, url_of(x, i), NULL, 0)) != 0)
            expect_shortage(&x->storm, rc);
    }
    c->dialed = true;
}

static void
poll_client(struct scene *x, struct client *c)
{
    if (!c->dialed)
        dial_all(x, c);
    else if (c->waits && !storm_chance(&x->storm, 10))
        take_reply(x, c);
    else if (!c->waits && (c->answered == REQUESTS || storm_chance(&x->storm, 300)))
        expect_nothing(x, c);
    else if (c->answered < REQUESTS)
        ask(x, c); /* also instead of one that is not answered yet */
}

static void
start_client(struct scene *x, struct client *c)
{
    c->machine = storm_machine(&x->storm);
    c->s = storm_socket(&x->storm, c->machine, SPOKE_REQ);
    c->dialed = c->waits = false;
    cr_assert_eq(spoke_socket_set_duration(c->s, SPOKE_OPT_RETRY_TIME, 100 * SPOKE_MS), 0);
}

static void
start_server(struct scene *x, struct server *server)
{
    server->scene = x;
    server->machine = storm_machine(&x->storm);
    server->s = storm_socket(&x->storm, server->machine, SPOKE_REP);
    server->listens = false;
    server->calls_back = storm_chance(&x->storm, 300);
    if (server->calls_back)
        cr_assert_eq(spoke_socket_on_message(server->s, on_request, server), 0);
}

/* Somebody dies; somebody new takes the place. */
static void
kill_one(struct scene *x)
{
    uint64_t victim = storm_below(&x->storm, (uint64_t)x->client_count + (uint64_t)x->server_count);

    x->kills_left--;
    if (victim < (uint64_t)x->client_count) {
        storm_kill(&x->storm, x->clients[victim].machine);
        start_client(x, &x->clients[victim]);
    } else {
        struct server *server = &x->servers[victim - (uint64_t)x->client_count];

        storm_kill(&x->storm, server->machine);
        spoke_msg_free(server->reply);
        server->reply = NULL;
        start_server(x, server);
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

static void
poll_someone(struct scene *x)
{
    uint64_t who = storm_below(&x->storm, (uint64_t)x->client_count + (uint64_t)x->server_count);

    if (who < (uint64_t)x->client_count)
        poll_client(x, &x->clients[who]);
    else
        poll_server(x, &x->servers[who - (uint64_t)x->client_count]);
}

/* Some close their sockets themselves, the others are closed with the world. */
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
requests_in_a_storm(const char *test, uint64_t seed)
{
    static struct scene x;

    memset(&x, 0, sizeof x);
    storm_open(&x.storm, test, seed);
    x.client_count = 1 + (int)storm_below(&x.storm, CLIENTS_MOST);
    x.server_count = 1 + (int)storm_below(&x.storm, SERVERS_MOST);
    x.kills_left = x.storm.kills ? 3 : 0;
    for (int i = 0; i < x.server_count; i++)
        start_server(&x, &x.servers[i]);
    for (int i = 0; i < x.client_count; i++) {
        x.clients[i].index = i;
        start_client(&x, &x.clients[i]);
    }
    while (!all_answered(&x)) {
        storm_step(&x.storm);
        for (int polls = x.storm.calm ? POLLS_IN_CALM : 1; polls > 0; polls--)
            poll_someone(&x);
        if (x.kills_left > 0 && !x.storm.calm && storm_chance(&x.storm, 2))
            kill_one(&x);
    }
    storm_again(&x.storm);
    for (int i = 0; i < x.client_count; i++) /* some are on their way while everybody closes */
        (void)spoke_dial(x.clients[i].s, url_of(&x, 0), NULL, 0);
    for (uint64_t steps = storm_below(&x.storm, 30); steps > 0; steps--)
        storm_step(&x.storm);
    for (int i = 0; i < x.client_count; i++)
        close_some(&x.storm, x.clients[i].s);
    for (int i = 0; i < x.server_count; i++) {
        spoke_msg_free(x.servers[i].reply);
        close_some(&x.storm, x.servers[i].s);
    }
    return storm_close(&x.storm);
}

Test(sim_protocols, a_reply_is_to_its_request_and_comes_once)
{
    storm_for_each_seed("a_reply_is_to_its_request_and_comes_once", requests_in_a_storm);
}

/* ---- pairs ---- */

#define MATES_MOST 3
#define NOTES      60 /* that each sends in the storm; in the calm as many as it takes */

/* Mate 0 listens, the others dial; only one of them can be its peer at a time. */
struct mate {
    int machine;
    spoke_socket *s;
    bool started;
    uint32_t sent, sent_before_calm;
    uint32_t last[MATES_MOST], received[MATES_MOST]; /* of each sender */
};

struct couple {
    struct storm storm;
    int pattern; /* SPOKE_PAIR or SPOKE_PAIR1 */
    int count, kills_left;
    bool quiet; /* nobody sends any more */
    struct mate mates[MATES_MOST];
};

static void
open_mate(struct couple *x, int index)
{
    struct mate *mate = &x->mates[index];

    mate->machine = storm_machine(&x->storm);
    mate->s = storm_socket(&x->storm, mate->machine, x->pattern);
    mate->started = false;
}

static void
start_mate(struct couple *x, int index)
{
    struct mate *mate = &x->mates[index];
    int rc = index == 0 ? spoke_listen(mate->s, x->storm.url, NULL, 0)
                        : spoke_dial(mate->s, x->storm.url, NULL, 0);

    mate->started = rc == 0;
    if (rc != 0)
        expect_shortage(&x->storm, rc);
}

static void
send_note(struct couple *x, int index)
{
    struct mate *mate = &x->mates[index];
    struct storm_label label = {NOTE, (uint32_t)index, mate->sent + 1, storm_size(&x->storm)};
    bool wants = !x->quiet && (x->storm.calm || mate->sent < NOTES);
    spoke_msg *m = wants ? storm_message(label) : NULL;
    int rc;

    if (m == NULL)
        return;
    if ((rc = spoke_send(mate->s, m, storm_chance(&x->storm, 900) ? SPOKE_DONTWAIT : 0)) == 0) {
        mate->sent++;
        mate->sent_before_calm += x->storm.calm ? 0 : 1;
    } else {
        expect_shortage(&x->storm, rc);
        spoke_msg_free(m);
    }
}

static void
take_note(struct couple *x, int index)
{
    struct storm *storm = &x->storm;
    struct mate *mate = &x->mates[index];
    struct storm_label label;
    spoke_msg *m;
    int rc = spoke_recv(mate->s, &m, storm_chance(storm, 900) ? SPOKE_DONTWAIT : 0);

    if (rc != 0) {
        expect_shortage(storm, rc);
        return;
    }
    label = storm_check(storm, m);
    spoke_msg_free(m);
    storm_holds(storm, label.kind == NOTE && label.from < (uint32_t)x->count, "kind %u from %u",
                label.kind, label.from);
    storm_holds(storm, (label.from == 0) != (index == 0), "mate %d gets a note of mate %u", index,
                label.from);
    storm_holds(storm, label.number > mate->last[label.from], "note %u of mate %u after its %u",
                label.number, label.from, mate->last[label.from]);
    mate->last[label.from] = label.number;
    mate->received[label.from]++;
}

static void
poll_mate(struct couple *x, int index)
{
    if (!x->mates[index].started)
        start_mate(x, index);
    else if (storm_chance(&x->storm, 500))
        send_note(x, index);
    else
        take_note(x, index);
}

static void
run_pairs(struct couple *x)
{
    int victim = (int)storm_below(&x->storm, (uint64_t)x->count);

    storm_step(&x->storm);
    for (int polls = x->storm.calm ? POLLS_IN_CALM : 1; polls > 0; polls--)
        poll_mate(x, (int)storm_below(&x->storm, (uint64_t)x->count));
    if (x->kills_left > 0 && !x->storm.calm && storm_chance(&x->storm, 2)) {
        x->kills_left--;
        storm_kill(&x->storm, x->mates[victim].machine);
        open_mate(x, victim);
    }
}

/* Has mate 0 exchanged notes with another one, both ways, since it is calm? */
static bool
calm_notes_arrived(const struct couple *x)
{
    for (int i = 1; i < x->count && x->storm.calm; i++)
        if (x->mates[0].last[i] > x->mates[i].sent_before_calm &&
            x->mates[i].last[0] > x->mates[0].sent_before_calm)
            return true;
    return false;
}

static bool
all_arrived(const struct couple *x)
{
    return x->mates[0].received[1] == x->mates[1].sent &&
           x->mates[1].received[0] == x->mates[0].sent;
}

static uint64_t
couple_in_a_storm(const char *test, uint64_t seed, int pattern)
{
    static struct couple x;

    memset(&x, 0, sizeof x);
    storm_open(&x.storm, test, seed);
    x.pattern = pattern;
    x.count = storm_chance(&x.storm, 250) ? 3 : 2;
    x.kills_left = x.storm.kills ? 3 : 0;
    for (int i = 0; i < x.count; i++)
        open_mate(&x, i);
    while (!calm_notes_arrived(&x))
        run_pairs(&x);
    x.quiet = true;
    while (x.storm.lossless && x.count == 2 && !all_arrived(&x))
        run_pairs(&x);
    storm_again(&x.storm);
    for (uint64_t steps = storm_below(&x.storm, 30); steps > 0; steps--)
        run_pairs(&x);
    for (int i = 0; i < x.count; i++)
        close_some(&x.storm, x.mates[i].s);
    return storm_close(&x.storm);
}

static uint64_t
pairs_in_a_storm(const char *test, uint64_t seed)
{
    return couple_in_a_storm(test, seed, SPOKE_PAIR);
}

static uint64_t
pairs1_in_a_storm(const char *test, uint64_t seed)
{
    return couple_in_a_storm(test, seed, SPOKE_PAIR1);
}

Test(sim_protocols, notes_arrive_in_order_and_once_and_all_if_nothing_is_lost)
{
    storm_for_each_seed("notes_arrive_in_order_and_once_and_all_if_nothing_is_lost",
                        pairs_in_a_storm);
}

Test(sim_protocols, notes_of_pair1_arrive_in_order_and_once_and_all_if_nothing_is_lost)
{
    storm_for_each_seed("notes_of_pair1_arrive_in_order_and_once_and_all_if_nothing_is_lost",
                        pairs1_in_a_storm);
}

/* ---- a failure ---- */

#define PLANT "SPOKE_SIM_PLANT" /* "fail" or "crash": what a_planted_failure does */

/* A run that goes wrong in one seed of about thirty, for no reason but its history. */
static uint64_t
planted(const char *test, uint64_t seed)
{
    static struct couple x;

    memset(&x, 0, sizeof x);
    storm_open(&x.storm, test, seed);
    x.pattern = SPOKE_PAIR;
    x.count = 2;
    for (int i = 0; i < x.count; i++)
        open_mate(&x, i);
    for (int steps = 0; steps < 300; steps++)
        run_pairs(&x);
    if (spoke_sim_digest(x.storm.w) % 30 == 0) {
        if (strcmp(getenv(PLANT), "crash") == 0)
            abort();
        storm_failed(&x.storm, "planted", 0, "digest", "%llx",
                     (unsigned long long)spoke_sim_digest(x.storm.w));
    }
    return storm_close(&x.storm);
}

/* Runs for the test below only. */
ParameterizedTestParameters(sim_protocols, a_planted_failure)
{
    static int once;

    return cr_make_param_array(int, &once, getenv(PLANT) != NULL ? 1 : 0);
}

ParameterizedTest(int *once, sim_protocols, a_planted_failure)
{
    (void)once;
    storm_for_each_seed("a_planted_failure", planted);
}

/* Run a command; its output.  Its exit code must not be 0. */
static void
run_failing(const char *command, char *output, size_t size)
{
    FILE *stream = popen(command, "r");
    size_t used;

    cr_assert_not_null(stream);
    used = fread(output, 1, size - 1, stream);
    output[used] = '\0';
    while (fgetc(stream) != EOF) {
    }
    cr_assert_neq(pclose(stream), 0, "%s", output);
}

/* What is printed from a word on, up to the end of that line. */
static void
find_line(const char *output, const char *word, char line[1024])
{
    const char *found = strstr(output, word);

    cr_assert_not_null(found, "no \"%s\" in: %s", word, output);
    snprintf(line, 1024, "%.*s", (int)strcspn(found, "\n"), found);
}

/* Goal: of a failing seed the output has a command that, run as it stands, fails in the same way.
 */
static void
replays(const char *how, const char *trace)
{
    static char output[65536], first[1024], again[1024], command[1100];
    char program[512];
    ssize_t size = readlink("/proc/self/exe", program, sizeof program - 1);

    cr_assert_gt(size, 0);
    program[size] = '\0';
    cr_assert_eq(setenv(PLANT, how, 1), 0);
    unsetenv("SPOKE_SIM_SEED");
    unsetenv("BXFI_MAP"); /* Criterion's: would make the program one of its workers */
    snprintf(command, sizeof command, "%s --filter sim_protocols/a_planted_failure 2>&1", program);
    run_failing(command, output, sizeof output);
    find_line(output, trace, first);
    find_line(output, "replay: ", again);
    snprintf(command, sizeof command, "cd / && %s 2>&1", again + strlen("replay: "));
    run_failing(command, output, sizeof output);
    find_line(output, trace, again);
    cr_assert_str_eq(first, again);
    unsetenv(PLANT);
}

Test(sim_protocols, a_failing_seed_says_how_to_run_it_again)
{
    replays("fail", "planted:0: digest");
    replays("crash", "replay: ");
}

/* ---- the same again ---- */

/* Goal: a seed that fails as the thousandth of a run fails alone as well.  Method: run seeds one
 * after the other here, and each in a process of its own. */
static uint64_t
digest_elsewhere(uint64_t (*body)(const char *test, uint64_t seed), uint64_t seed)
{
    uint64_t digest = 0;
    int ends[2], status;
    pid_t child;

    cr_assert_eq(pipe(ends), 0);
    if ((child = fork()) == 0) {
        digest = body("-", seed);
        _exit(write(ends[1], &digest, sizeof digest) == sizeof digest ? 0 : 1);
    }
    close(ends[1]);
    cr_assert_eq(read(ends[0], &digest, sizeof digest), (ssize_t)sizeof digest);
    close(ends[0]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    return digest;
}

Test(sim_protocols, a_seed_runs_alone_as_it_does_among_others)
{
    uint64_t requests[20], pairs[20];

    for (uint64_t i = 0; i < 20; i++) {
        requests[i] = digest_elsewhere(requests_in_a_storm, i + 1);
        pairs[i] = digest_elsewhere(pairs_in_a_storm, i + 1);
    }
    for (uint64_t i = 0; i < 20; i++) {
        cr_assert_eq(requests_in_a_storm("-", i + 1), requests[i], "seed %d", (int)i + 1);
        cr_assert_eq(pairs_in_a_storm("-", i + 1), pairs[i], "seed %d", (int)i + 1);
    }
}
