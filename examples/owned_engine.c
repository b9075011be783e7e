/* SPDX-License-Identifier: MIT */
/* An engine of one's own: the calling thread is the engine, so no message changes threads on its
 * way. Two processes, each with one thread, exchange requests over a unix socket. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <spoke/spoke.h>

#define REQUESTS 10000

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "owned_engine: %s\n", spoke_strerror(rc));
    _exit(1);
}

/* Open a socket on an engine that is this thread. */
static spoke_socket *
open_owned(int pattern, spoke_engine **e)
{
    spoke_engine_config config;
    spoke_socket *s;

    spoke_engine_config_init(&config);
    config.busy_poll_ns = 50 * SPOKE_US; /* how long a wait looks for work before it sleeps */
    check(spoke_engine_open(e, &config));
    check(spoke_socket_open(&s, pattern, *e));
    check(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 30 * SPOKE_SECOND));
    return s;
}

static void
serve(const char *url)
{
    spoke_engine *e;
    spoke_socket *s = open_owned(SPOKE_REP, &e);
    spoke_msg *m;

    check(spoke_listen(s, url, NULL, 0));
    for (int i = 0; i < REQUESTS; i++) {
        check(spoke_recv(s, &m, 0)); /* drives the engine from in here */
        check(spoke_send(s, m, 0));
    }
    check(spoke_socket_close(s));
    check(spoke_engine_close(e));
    _exit(0);
}

static void
ask(const char *url)
{
    struct spoke_engine_info info;
    spoke_engine *e;
    spoke_socket *s = open_owned(SPOKE_REQ, &e);
    spoke_ns start;

    check(spoke_dial(s, url, NULL, 0));
    start = spoke_engine_now(e);
    for (int i = 0; i < REQUESTS; i++) {
        int reply = -1;
        size_t size = sizeof reply;
        check(spoke_send_bytes(s, &i, sizeof i, 0));
        check(spoke_recv_bytes(s, &reply, &size, 0));
        check(reply == i ? 0 : SPOKE_EPROTO);
    }
    check(spoke_engine_get_info(e, &info));
    printf("%d requests on backend %s: %.1f us each; the engine slept %llu times\n", REQUESTS,
           info.backend, (double)(spoke_engine_now(e) - start) / 1e3 / REQUESTS,
           (unsigned long long)info.sleeps);
    fflush(stdout);
    check(spoke_engine_close(e)); /* and its sockets */
    _exit(0);
}

int
main(void)
{
    char directory[] = "/tmp/spoke-owned-XXXXXX", url[64];
    pid_t server, client;
    int status = 1;

    if (mkdtemp(directory) == NULL)
        return 1;
    snprintf(url, sizeof url, "ipc://%s/s", directory);
    if ((server = fork()) == 0)
        serve(url);
    if ((client = fork()) == 0)
        ask(url);
    if (client > 0)
        waitpid(client, &status, 0);
    if (server > 0) {
        if (status != 0)
            kill(server, SIGTERM);
        waitpid(server, NULL, 0);
    }
    unlink(url + sizeof "ipc://" - 1); /* there only if the server failed */
    rmdir(directory);
    return status == 0 ? 0 : 1;
}
