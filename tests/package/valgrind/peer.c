/* SPDX-License-Identifier: MIT */
/* One of the two programs that valgrind.sh watches.  Each is one thread with an engine of its own.
 *
 *     peer listen URL    answers REQUESTS requests; prints the address first
 *     peer dial URL      asks them: small ones and large ones, copied and lent
 *
 * and three faults that must be found:
 *
 *     peer leak          forgets a message
 *     peer stale         reads one that it has given back
 *     peer blank         decides by one that nobody has written */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <spoke/spoke.h>

enum { REQUESTS = 60, LARGE = 100 * 1000 };

static void
check(const char *what, int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "peer: %s: %s\n", what, spoke_strerror(rc));
    exit(1);
}

/* ---- what is sent ---- */

/* Of three messages one is small, one a large copy, one is written where the receiver reads it. */
static spoke_msg *
make(spoke_socket *s, unsigned number)
{
    size_t size = number % 3 == 0 ? 1 + number : LARGE;
    spoke_msg *m;

    if (number % 3 == 2)
        check("spoke_loan", spoke_loan(s, size, &m));
    else
        check("spoke_msg_new", spoke_msg_new(&m, size));
    memset(spoke_msg_body(m), (int)('a' + number % 26), size);
    return m;
}

static void
check_bytes(const spoke_msg *m, unsigned number)
{
    const char *body = spoke_msg_body(m);
    size_t size = spoke_msg_size(m);
    bool right = size == (number % 3 == 0 ? 1 + number : LARGE);

    for (size_t i = 0; i < size; i++)
        right &= body[i] == (char)('a' + number % 26);
    check("what arrived", right ? 0 : SPOKE_EPROTO);
}

/* ---- the two sides ---- */

static spoke_socket *
open_owned(int protocol, spoke_engine **e)
{
    spoke_engine_config config;
    spoke_socket *s;

    spoke_engine_config_init(&config);
    check("spoke_engine_open", spoke_engine_open(e, &config));
    check("spoke_socket_open", spoke_socket_open(&s, protocol, *e));
    check("timeout", spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 60 * SPOKE_SECOND));
    check("timeout", spoke_socket_set_duration(s, SPOKE_OPT_SEND_TIMEOUT, 60 * SPOKE_SECOND));
    return s;
}

static void
listen_at(spoke_socket *s, const char *url)
{
    char address[256];
    spoke_listener *l;

    check("spoke_listen", spoke_listen(s, url, &l, 0));
    check("address", spoke_listener_get_string(l, SPOKE_OPT_ADDRESS, address, sizeof address));
    printf("%s\n", address);
    fflush(stdout);
}

/* The answers are made as the requests are, so both ways carry everything. */
static void
answer(spoke_socket *s)
{
    for (unsigned i = 0; i < REQUESTS; i++) {
        spoke_msg *m;
        check("spoke_recv", spoke_recv(s, &m, 0));
        check_bytes(m, i);
        spoke_msg_free(m);
        check("spoke_send", spoke_send(s, make(s, i), 0));
    }
}

static void
ask(spoke_socket *s)
{
    for (unsigned i = 0; i < REQUESTS; i++) {
        spoke_msg *m;
        check("spoke_send", spoke_send(s, make(s, i), 0));
        check("spoke_recv", spoke_recv(s, &m, 0));
        check_bytes(m, i);
        spoke_msg_free(m);
    }
}

static int
run(bool listens, const char *url)
{
    struct spoke_stats stats;
    struct spoke_engine_info info;
    spoke_engine *e;
    spoke_socket *s = open_owned(listens ? SPOKE_REP : SPOKE_REQ, &e);

    if (listens) {
        listen_at(s, url);
        answer(s);
    } else {
        check("spoke_dial", spoke_dial(s, url, NULL, 0));
        ask(s);
    }
    check("spoke_socket_stats", spoke_socket_stats(s, &stats));
    check("spoke_engine_get_info", spoke_engine_get_info(e, &info));
    fprintf(stderr, "peer: %s, %llu moved\n", info.backend, (unsigned long long)stats.pipes_shared);
    check("spoke_socket_close", spoke_socket_close(s));
    check("spoke_engine_close", spoke_engine_close(e));
    return 0;
}

/* ---- faults on purpose ---- */

static spoke_msg *volatile hidden; /* so that the compiler knows nothing about it */

static int
go_wrong(const char *how)
{
    const volatile char *body;
    spoke_msg *m;

    check("spoke_msg_new", spoke_msg_new(&m, LARGE));
    body = spoke_msg_body(m);
    hidden = m;
    if (strcmp(how, "blank") != 0)
        memset(spoke_msg_body(m), 0, LARGE);
    if (strcmp(how, "stale") == 0)
        spoke_msg_free(m);
    if (body[1] == 'x')
        puts("an x");
    if (strcmp(how, "blank") == 0)
        spoke_msg_free(m);
    hidden = NULL;
    return 0;
}

int
main(int argc, char **argv)
{
    if (argc == 2)
        return go_wrong(argv[1]);
    return argc == 3 ? run(strcmp(argv[1], "listen") == 0, argv[2]) : 2;
}
