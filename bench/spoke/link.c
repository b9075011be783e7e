/* SPDX-License-Identifier: MIT */
/* Opening and closing a spoke socket as the command line asks. */
#include "link.h"

#include <stdio.h>

#include "../common/net.h"
#include "../common/program.h"

/* Messages that may wait on each side, as many as the peers are given. */
enum {
    QUEUE_LENGTH = 4096,
    QUEUE_LENGTH_MIN = 8,
    QUEUE_BYTES = 64 << 20, /* of bodies in shared memory: a quarter of the segment's limit */
    LOAN_MIN = 4096,        /* "lend-least": smaller bodies are copied anyway */
};

int
spoke_bench_complain(const char *call, int rc)
{
    fprintf(stderr, "bench: %s: %s\n", call, spoke_strerror(rc));
    return -1;
}

spoke_ns
spoke_bench_wait(const struct bench_options *o)
{
    if (o->wait == BENCH_BLOCK)
        return SPOKE_WAIT_BLOCK;
    return o->wait == BENCH_POLL ? SPOKE_WAIT_POLL : SPOKE_WAIT_ADAPTIVE;
}

static int
subscribe(spoke_socket *s, unsigned count)
{
    uint8_t topic[BENCH_TOPIC_SIZE];
    int rc = 0;

    if (count == 0)
        return spoke_socket_set_string(s, SPOKE_OPT_SUBSCRIBE, "");
    for (unsigned i = 0; i < count && rc == 0; i++) {
        bench_topic_write(topic, i);
        rc = spoke_socket_set(s, SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, topic, sizeof topic);
    }
    return rc;
}

bool
spoke_bench_loans(const struct bench_options *o)
{
    return o->transport == BENCH_SHM && o->size >= LOAN_MIN;
}

static int
queue_length(const struct bench_options *o)
{
    size_t length = QUEUE_BYTES / o->size;

    if (!spoke_bench_loans(o) || length > QUEUE_LENGTH)
        return QUEUE_LENGTH;
    return length > QUEUE_LENGTH_MIN ? (int)length : QUEUE_LENGTH_MIN;
}

int
spoke_bench_tls(spoke_tls_config **config, const struct bench_options *o)
{
    static spoke_tls_config *made;
    struct spoke_tls_options options;
    int rc = 0;

    spoke_tls_options_init(&options);
    options.resumption = o->work != BENCH_HANDSHAKES;
    if (o->role == BENCH_SERVER)
        options.cert_file = o->identity;
    else
        options.ca_file = o->identity;
    if (made == NULL && bench_has_tls(o))
        rc = spoke_tls_config_new(&made, &options);
    *config = made;
    return rc == 0 ? 0 : spoke_bench_complain("spoke_tls_config_new", rc);
}

static int
set_options(spoke_socket *s, const struct bench_options *o)
{
    spoke_tls_config *tls;
    int rc;

    if (spoke_bench_tls(&tls, o) != 0)
        return -1;
    rc = spoke_socket_set_tls(s, tls);
    if (rc == 0 && o->mode == BENCH_SHARED)
        rc = spoke_socket_set_duration(s, SPOKE_OPT_BUSY_POLL, spoke_bench_wait(o));
    if (rc == 0)
        rc = spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, queue_length(o));
    if (rc == 0)
        rc = spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, queue_length(o));
    if (rc == 0)
        rc = spoke_socket_set_size(s, SPOKE_OPT_MAX_RECV_SIZE, 0);
    if (rc == 0 && o->work == BENCH_FANOUT && o->pattern == BENCH_PAIR && o->role == BENCH_CLIENT)
        rc = subscribe(s, o->subscriptions);
    if (rc == 0 && o->work == BENCH_SURVEY && o->role == BENCH_SERVER)
        rc = spoke_socket_set_duration(s, SPOKE_OPT_SURVEY_TIME, BENCH_SURVEY_MS * SPOKE_MS);
    return rc == 0 ? 0 : spoke_bench_complain("spoke_socket_set", rc);
}

int
spoke_bench_engine(spoke_engine **engine, const struct bench_options *o)
{
    spoke_engine_config config;
    int rc;

    *engine = NULL;
    if (o->mode == BENCH_SHARED)
        return 0;
    spoke_engine_config_init(&config);
    config.busy_poll_ns = spoke_bench_wait(o);
    rc = spoke_engine_open(engine, &config);
    return rc == 0 ? 0 : spoke_bench_complain("spoke_engine_open", rc);
}

int
spoke_bench_open(spoke_engine **engine, spoke_socket **socket, int pattern,
                 const struct bench_options *o)
{
    bool is_shared = *engine != NULL;
    int rc;

    if (!is_shared && spoke_bench_engine(engine, o) != 0)
        return -1;
    if ((rc = spoke_socket_open(socket, pattern, *engine)) != 0) {
        if (*engine != NULL && !is_shared)
            spoke_engine_close(*engine);
        return spoke_bench_complain("spoke_socket_open", rc);
    }
    if (set_options(*socket, o) != 0) {
        spoke_bench_close(is_shared ? NULL : *engine, *socket);
        return -1;
    }
    return 0;
}

int
spoke_bench_listen(spoke_socket *socket, const struct bench_options *o, char *actual, size_t size)
{
    spoke_listener *listener;
    int rc = spoke_listen(socket, o->address, &listener, 0);

    if (rc != 0)
        return spoke_bench_complain("spoke_listen", rc);
    rc = spoke_listener_get_string(listener, SPOKE_OPT_ADDRESS, actual, size);
    return rc == 0 ? 0 : spoke_bench_complain("spoke_listener_get_string", rc);
}

void
spoke_bench_close(spoke_engine *engine, spoke_socket *socket)
{
    spoke_socket_close(socket);
    if (engine != NULL)
        spoke_engine_close(engine);
}
