/* SPDX-License-Identifier: MIT */
/* A program as users of libnanomsg have one: compiled against its headers and linked with it, then
 * run with it and with the stand-in.  What it prints must be the same, to the letter.  It does what
 * is defined for both, and prints no number that either is free to choose. */
#include <nanomsg/bus.h>
#include <nanomsg/inproc.h>
#include <nanomsg/ipc.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <nanomsg/pipeline.h>
#include <nanomsg/pubsub.h>
#include <nanomsg/reqrep.h>
#include <nanomsg/survey.h>
#include <nanomsg/tcp.h>
#include <nanomsg/ws.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The patterns that the stand-in has too: HAS_PUSH, HAS_SUB, HAS_SURVEYOR, HAS_BUS are 0 or 1. */
static int failures;

/* What a call gives, and the errno of one that fails. */
#define SAY(Call)                                                                                  \
    do {                                                                                           \
        errno = 0;                                                                                 \
        int rc_ = (int)(Call);                                                                     \
        printf("%s: %d", #Call, rc_);                                                              \
        if (rc_ < 0)                                                                               \
            printf(" %d %s", nn_errno(), nn_strerror(nn_errno()));                                 \
        printf("\n");                                                                              \
    } while (0)

static int
limited(int s)
{
    int limit = 10000;

    if (s < 0 || nn_setsockopt(s, NN_SOL_SOCKET, NN_RCVTIMEO, &limit, sizeof limit) != 0 ||
        nn_setsockopt(s, NN_SOL_SOCKET, NN_SNDTIMEO, &limit, sizeof limit) != 0) {
        printf("no socket: %s\n", nn_strerror(nn_errno()));
        failures++;
    }
    return s;
}

static int
open_and_bind(int protocol, const char *url)
{
    int s = limited(nn_socket(AF_SP, protocol));

    SAY(nn_bind(s, url));
    return s;
}

static int
open_and_connect(int protocol, const char *url)
{
    int s = limited(nn_socket(AF_SP, protocol));

    SAY(nn_connect(s, url));
    return s;
}

static void
say_received(int s)
{
    char body[64] = "";
    int size = nn_recv(s, body, sizeof body - 1, 0);

    printf("received %d %s\n", size, size < 0 ? nn_strerror(nn_errno()) : body);
}

/* What these patterns send reaches those who are connected. */
static void
wait_for_each_other(int a, int b)
{
    for (int ms = 0; ms < 10000 && (nn_get_statistic(a, NN_STAT_CURRENT_CONNECTIONS) < 1 ||
                                    nn_get_statistic(b, NN_STAT_CURRENT_CONNECTIONS) < 1);
         ms++)
        usleep(1000);
}

/* ---- tables ---- */

static void
say_symbols(void)
{
    struct nn_symbol_properties p;

    for (int i = 0; nn_symbol_info(i, &p, (int)sizeof p) != 0; i++) {
        int value = 0;
        const char *name = nn_symbol(i, &value);
        printf("%d %s %d %s %d %d %d %d\n", i, name, value, p.name, p.value, p.ns, p.type, p.unit);
    }
    for (int error = 0; error < 140; error++)
        printf("%d %s\n", error, nn_strerror(error));
    printf("%s, %s, %s\n", nn_strerror(ETERM), nn_strerror(EFSM), nn_strerror(99999));
}

/* Every option of every level: its value, what it takes, what it refuses. */
static void
say_options(void)
{
    static const int values[] = {1, -1, 0, 1000, 16, 255};
    int s = nn_socket(AF_SP, NN_REQ);

    for (int level = -5; level <= NN_REQ; level++) {
        for (int option = 0; option <= 18; option++) {
            int value = -77;
            size_t size = sizeof value;

            if (option == NN_SNDFD || option == NN_RCVFD || option == NN_SOCKET_NAME)
                continue;
            errno = 0;
            int rc = nn_getsockopt(s, level, option, &value, &size);
            printf("%d %d: %d %d %d %zu", level, option, rc, rc < 0 ? nn_errno() : 0, value, size);
            for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
                rc = nn_setsockopt(s, level, option, &values[i], sizeof values[i]);
                printf(" %d", rc < 0 ? nn_errno() : 0);
            }
            rc = nn_setsockopt(s, level, option, &value, 1);
            printf(" %d", rc < 0 ? nn_errno() : 0);
            rc = nn_setsockopt(s, level, option, NULL, sizeof value);
            printf(" %d\n", rc < 0 ? nn_errno() : 0);
        }
    }
    nn_close(s);
}

/* What a fresh socket of each kind can do. */
static void
say_fresh(void)
{
    static const struct {
        int has, protocol;
    } list[] = {{1, NN_PAIR},
                {1, NN_REQ},
                {1, NN_REP},
                {HAS_PUSH, NN_PUSH},
                {HAS_PUSH, NN_PULL},
                {HAS_SUB, NN_PUB},
                {HAS_SUB, NN_SUB},
                {HAS_SURVEYOR, NN_SURVEYOR},
                {HAS_SURVEYOR, NN_RESPONDENT},
                {HAS_BUS, NN_BUS}};

    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        for (int domain = AF_SP; list[i].has && domain <= AF_SP_RAW; domain++) {
            int s = nn_socket(domain, list[i].protocol), value;
            struct nn_pollfd in = {s, NN_POLLIN, 99}, out = {s, NN_POLLOUT, 99};
            size_t size = sizeof value;

            printf("%d %d\n", domain, list[i].protocol);
            SAY(nn_getsockopt(s, NN_SOL_SOCKET, NN_RCVFD, &value, &size) < 0 ? -1 : 0);
            size = sizeof value;
            SAY(nn_getsockopt(s, NN_SOL_SOCKET, NN_SNDFD, &value, &size) < 0 ? -1 : 0);
            SAY(nn_poll(&in, 1, 0));
            SAY(nn_poll(&out, 1, 0));
            printf("%d %d\n", in.revents, out.revents);
            SAY(nn_recv(s, &value, sizeof value, NN_DONTWAIT));
            SAY(nn_send(s, "hello", 5, NN_DONTWAIT));
            printf("%lld %lld %lld\n", (long long)nn_get_statistic(s, NN_STAT_MESSAGES_SENT),
                   (long long)nn_get_statistic(s, NN_STAT_BYTES_SENT),
                   (long long)nn_get_statistic(s, NN_STAT_CURRENT_SND_PRIORITY));
            SAY(nn_close(s));
        }
    }
}

static void
say_errors(void)
{
    static const char *const addresses[] = {
        "",
        "tcp",
        "tcp:/",
        "://",
        "foo://bar",
        "TCP://127.0.0.1:1",
        "inproc",
        "tcp://*:",
        "tcp://*:1000000",
        "tcp://:5555",
        "tcp://-hostname:5555",
        "tcp://abc.123.---.#:5555",
        "tcp://[::1]:5555",
        "tcp://abc...123:5555",
        "tcp://.123:5555",
        "tcp://*:some_port",
        "tcp://eth10000;127.0.0.1:5555",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:1000000",
        "tcp://127.0.0.1:0",
        "tcp://*;*:5580",
        "tcp://127.0.0.1:5585/",
        "ws://*:",
        "ws://:5555",
        "ws://eth10000;127.0.0.1:5555",
        "ws://127.0.0.1:1000000",
    };
    int s = nn_socket(AF_SP, NN_PAIR), none = 400;
    char long_one[200];

    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        printf("%s\n", addresses[i]);
        SAY(nn_bind(s, addresses[i]));
        SAY(nn_connect(s, addresses[i]));
    }
    memset(long_one, 'a', sizeof long_one);
    memcpy(long_one, "inproc://", 9);
    long_one[128] = '\0';
    SAY(nn_bind(s, long_one));
    long_one[127] = '\0';
    SAY(nn_bind(s, long_one));
    SAY(nn_bind(s, NULL));
    SAY(nn_bind(s, "ipc:///no/such/directory"));
    SAY(nn_bind(s, "tcp://9.9.9.9:5576"));
    SAY(nn_shutdown(s, 55));
    SAY(nn_send(s, NULL, 5, NN_DONTWAIT));
    SAY(nn_sendmsg(s, NULL, 0));
    SAY(nn_recvmsg(s, NULL, 0));
    SAY(nn_socket(7, NN_PAIR));
    SAY(nn_socket(AF_SP, 7));
    SAY(nn_send(none, "a", 1, 0));
    SAY(nn_close(none));
    SAY(nn_device(s, -1));
    SAY(nn_device(-1, -1));
    SAY(nn_allocmsg(5, 1) == NULL ? -1 : 0);
    SAY(nn_allocmsg((size_t)-2, 0) == NULL ? -1 : 0);
    SAY(nn_close(s));
    SAY(nn_close(s));
}

/* ---- messages ---- */

static void
say_messages(const char *url)
{
    int a = open_and_bind(NN_PAIR, url), b = open_and_connect(NN_PAIR, url);
    void *m = nn_allocmsg(10, 0), *larger;
    char few[4] = "...";

    memcpy(m, "0123456789", 10);
    printf("%d\n", nn_reallocmsg(m, 5) == m);
    larger = nn_reallocmsg(m, 5000);
    printf("%d %.5s\n", larger != m, (char *)larger);
    memset(larger, 'x', 5000);
    SAY(nn_send(b, &larger, NN_MSG, 0));
    m = NULL;
    SAY(nn_recv(a, &m, NN_MSG, 0));
    printf("%c%c\n", ((char *)m)[0], ((char *)m)[4999]);
    SAY(nn_send(a, &m, NN_MSG, 0));
    SAY(nn_recv(b, few, 3, 0));
    printf("%s\n", few);
    SAY(nn_send(a, NULL, 0, 0));
    say_received(b);
    SAY(nn_recv(b, few, sizeof few, NN_DONTWAIT));
    SAY(nn_close(a));
    SAY(nn_close(b));
}

static void
say_request(const char *url)
{
    int rep = open_and_bind(NN_REP, url), req = open_and_connect(NN_REQ, url);
    char byte;

    SAY(nn_recv(req, &byte, 1, 0));
    SAY(nn_send(rep, "a", 1, 0));
    SAY(nn_send(req, "question", 8, 0));
    say_received(rep);
    SAY(nn_send(rep, "answer", 6, 0));
    say_received(req);
    SAY(nn_recv(req, &byte, 1, 0));
    for (int statistic = 301; statistic <= 304; statistic++)
        printf("%d %d %d\n", statistic, (int)nn_get_statistic(req, statistic),
               (int)nn_get_statistic(rep, statistic));
    SAY(nn_close(req));
    SAY(nn_close(rep));
}

static void
say_raw(const char *url)
{
    int rep = limited(nn_socket(AF_SP_RAW, NN_REP)), req;
    char body[16] = "";
    void *control = NULL;
    struct nn_iovec part = {body, sizeof body};
    struct nn_msghdr hdr = {&part, 1, &control, NN_MSG};
    struct nn_cmsghdr *cmsg;
    size_t words;

    SAY(nn_bind(rep, url));
    req = open_and_connect(NN_REQ, url);
    SAY(nn_send(req, "raw", 3, 0));
    SAY(nn_recvmsg(rep, &hdr, 0));
    cmsg = NN_CMSG_FIRSTHDR(&hdr);
    memcpy(&words, NN_CMSG_DATA(cmsg), sizeof words);
    printf("%zu %d %d %zu %d %d\n", cmsg->cmsg_len, cmsg->cmsg_level, cmsg->cmsg_type, words,
           NN_CMSG_DATA(cmsg)[8] >> 7, NN_CMSG_DATA(cmsg)[12] >> 7);
    printf("%d\n", NN_CMSG_NXTHDR(&hdr, cmsg) == NULL);
    part.iov_len = 3;
    SAY(nn_sendmsg(rep, &hdr, 0));
    say_received(req);
    SAY(nn_close(req));
    SAY(nn_close(rep));
}

/* ---- the other patterns: where both have them ---- */

static void
say_pipeline(const char *url)
{
    int push = open_and_bind(NN_PUSH, url), pull = open_and_connect(NN_PULL, url);

    SAY(nn_send(push, "work", 4, 0));
    say_received(pull);
    SAY(nn_close(push));
    SAY(nn_close(pull));
}

static void
say_topics(const char *url)
{
    int pub = open_and_bind(NN_PUB, url), sub = limited(nn_socket(AF_SP, NN_SUB));

    SAY(nn_setsockopt(sub, NN_SUB, NN_SUB_SUBSCRIBE, "a", 1));
    SAY(nn_setsockopt(sub, NN_SUB, NN_SUB_SUBSCRIBE, "a", 1));
    SAY(nn_setsockopt(sub, NN_SUB, NN_SUB_UNSUBSCRIBE, "a", 1));
    SAY(nn_connect(sub, url));
    wait_for_each_other(pub, sub);
    SAY(nn_send(pub, "b no", 4, 0));
    SAY(nn_send(pub, "a yes", 5, 0));
    say_received(sub);
    SAY(nn_close(pub));
    SAY(nn_close(sub));
}

static void
say_survey(const char *url)
{
    int asks = open_and_bind(NN_SURVEYOR, url), answers = open_and_connect(NN_RESPONDENT, url);
    int deadline = 2000;
    char byte;

    SAY(nn_setsockopt(asks, NN_SURVEYOR, NN_SURVEYOR_DEADLINE, &deadline, sizeof deadline));
    SAY(nn_recv(asks, &byte, 1, 0));
    wait_for_each_other(asks, answers);
    SAY(nn_send(asks, "who", 3, 0));
    say_received(answers);
    SAY(nn_send(answers, "me", 2, 0));
    SAY(nn_send(answers, "me", 2, 0));
    say_received(asks);
    SAY(nn_recv(asks, &byte, 1, 0));
    SAY(nn_recv(asks, &byte, 1, 0));
    SAY(nn_close(asks));
    SAY(nn_close(answers));
}

static void
say_bus(const char *url)
{
    int a = open_and_bind(NN_BUS, url), b = open_and_connect(NN_BUS, url);

    wait_for_each_other(a, b);
    SAY(nn_send(a, "from a", 6, 0));
    SAY(nn_send(b, "from b", 6, 0));
    say_received(a);
    say_received(b);
    SAY(nn_close(a));
    SAY(nn_close(b));
}

int
main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    say_symbols();
    say_options();
    say_fresh();
    say_errors();
    for (int i = 1; i < argc; i++) {
        say_messages(argv[i]);
        say_request(argv[i]);
        say_raw(argv[i]);
        if (HAS_PUSH)
            say_pipeline(argv[i]);
        if (HAS_SUB)
            say_topics(argv[i]);
        if (HAS_SURVEYOR)
            say_survey(argv[i]);
        if (HAS_BUS)
            say_bus(argv[i]);
    }
    nn_term();
    SAY(nn_socket(AF_SP, NN_PAIR));
    return failures != 0;
}
