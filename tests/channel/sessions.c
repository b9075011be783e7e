/* SPDX-License-Identifier: MIT */
#include "tests/channel/sessions.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/certs.h"

const char *const over_names[OVER_KINDS] = {"pair", "owned", "ipc", "shm",    "tcp",
                                            "tls",  "ws",    "wss", "inproc", "sim"};

#define LATE (60 * SPOKE_SECOND)

spoke_ns
soon(const struct sessions *x)
{
    return spoke_engine_now(x->e) + LATE;
}

static int
count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    cr_assert_not_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static void
url_of(enum over over, char *url, size_t size)
{
    switch (over) {
    case OVER_IPC: snprintf(url, size, "ipc:///tmp/spoke-session-%d", (int)getpid()); break;
    case OVER_SHM: snprintf(url, size, "shm:///tmp/spoke-session-%d", (int)getpid()); break;
    case OVER_TCP: snprintf(url, size, "tcp://127.0.0.1:0"); break;
    case OVER_TLS: snprintf(url, size, "tls+tcp://127.0.0.1:0"); break;
    case OVER_WS: snprintf(url, size, "ws://127.0.0.1:0/session"); break;
    case OVER_WSS: snprintf(url, size, "wss://127.0.0.1:0/session"); break;
    default: snprintf(url, size, "inproc://session"); break;
    }
}

static void
open_over_url(struct sessions *x, const spoke_session_config *config)
{
    spoke_session_listener *l;
    spoke_stream *carrier;
    char url[256];

    url_of(x->over, url, sizeof url);
    cr_assert_eq(spoke_session_listen(&l, url, config, x->e), 0);
    cr_assert_eq(spoke_session_listener_address(l, url, sizeof url), 0);
    if (x->e == NULL) {
        cr_assert_eq(spoke_session_dial(&x->a, url, config, NULL, soon(x)), 0);
    } else { /* one engine cannot wait for itself in two calls */
        spoke_session_config own;

        if (config == NULL)
            spoke_session_config_init(&own);
        else
            own = *config;
        own.mux.even = false;
        cr_assert_eq(spoke_stream_dial(&carrier, url, NULL, x->e, soon(x)), 0);
        cr_assert_eq(spoke_session_open(&x->a, carrier, &own), 0);
    }
    cr_assert_eq(spoke_session_accept(l, &x->b, soon(x)), 0);
    cr_assert_eq(spoke_session_listener_close(l), 0);
}

static void
open_over_pair(struct sessions *x, const spoke_session_config *config)
{
    spoke_session_config own;
    spoke_stream *a, *b;

    if (config == NULL)
        spoke_session_config_init(&own);
    else
        own = *config;
    cr_assert_eq(spoke_stream_pair(&a, &b, NULL, x->e), 0);
    own.mux.even = false;
    cr_assert_eq(spoke_session_open(&x->a, a, &own), 0);
    own.mux.even = true;
    cr_assert_eq(spoke_session_open(&x->b, b, &own), 0);
}

void
sessions_open(struct sessions *x, enum over over, const spoke_session_config *config)
{
    spoke_session_config secure;

    if (over_has_tls(over)) {
        if (config == NULL)
            spoke_session_config_init(&secure);
        else
            secure = *config;
        secure.stream.tls = test_tls();
        config = &secure;
    }
    *x = (struct sessions){.over = over};
    spoke_memory_stats(&x->before);
    if (over == OVER_SIM) {
        cr_assert_eq(spoke_sim_open(&x->world, NULL), 0);
        cr_assert_eq(spoke_sim_engine(x->world, &x->e), 0);
    } else if (over == OVER_OWNED) {
        cr_assert_eq(spoke_engine_open(&x->e, NULL), 0);
    }
    x->fds_before = count_fds();
    if (over == OVER_PAIR || over == OVER_OWNED)
        open_over_pair(x, config);
    else
        open_over_url(x, config);
}

/* The shared engine closes by itself what it has been told to. */
static void
wait_for_nothing(struct sessions *x)
{
    struct spoke_memory_stats after;

    for (int i = 0; i < 6000; i++) {
        spoke_memory_stats(&after);
        if (after.messages <= x->before.messages && count_fds() <= x->fds_before + 8)
            return;
        usleep(10000);
    }
    cr_assert_leq(after.messages, x->before.messages, "%s: messages", over_names[x->over]);
}

void
sessions_close(struct sessions *x)
{
    cr_assert_eq(spoke_session_close(x->a, 0), 0);
    cr_assert_eq(spoke_session_close(x->b, 0), 0);
    if (x->over == OVER_SIM)
        cr_assert_eq(spoke_sim_close(x->world, NULL), 0);
    else if (x->over == OVER_OWNED)
        cr_assert_eq(spoke_engine_close(x->e), 0);
    wait_for_nothing(x);
}

spoke_msg *
text_message(const char *text)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_from(&m, text, strlen(text)), 0);
    return m;
}

void
must_send(spoke_sender *tx, const char *text)
{
    int rc = spoke_sender_send(tx, text_message(text), SPOKE_FOREVER);

    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
}

spoke_msg *
receive(spoke_receiver *rx)
{
    spoke_msg *m;
    int rc = spoke_receiver_recv(rx, &m, SPOKE_FOREVER);

    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    return m;
}

void
receive_text(spoke_receiver *rx, const char *text)
{
    spoke_msg *m = receive(rx);

    cr_assert(spoke_msg_size(m) == strlen(text) &&
                  memcmp(spoke_msg_body(m), text, strlen(text)) == 0,
              "%.*s instead of %s", (int)spoke_msg_size(m), (char *)spoke_msg_body(m), text);
    spoke_msg_free(m);
}

void
receive_end(spoke_receiver *rx, int reason)
{
    spoke_msg *m;
    int rc = spoke_receiver_recv(rx, &m, SPOKE_FOREVER);

    cr_assert_eq(rc, reason, "%s instead of %s", spoke_error_name(rc), spoke_error_name(reason));
}

void
open_channel(struct sessions *x, spoke_session *from, spoke_session *to, spoke_sender **tx,
             spoke_receiver **rx, const spoke_channel_config *config)
{
    cr_assert_eq(spoke_session_open_sender(from, tx, config, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_session_accept_receiver(to, rx, config, soon(x)), 0);
}
