/* SPDX-License-Identifier: MIT */
#include "tests/tls/meeting.h"

#include <string.h>

void
server_options(struct spoke_tls_options *o)
{
    spoke_tls_options_init(o);
    present(o, test_cert());
    o->ca = cert_text(test_authority());
}

void
client_options(struct spoke_tls_options *o)
{
    spoke_tls_options_init(o);
    o->ca = cert_text(test_authority());
    o->server_name = "spoke.test";
}

void
present(struct spoke_tls_options *o, const struct cert *c)
{
    o->cert = cert_text(c);
    o->key = cert_key_text(c);
}

spoke_tls_config *
config_of(const struct spoke_tls_options *o)
{
    spoke_tls_config *c;

    expect_rc(spoke_tls_config_new(&c, o), 0);
    return c;
}

void
meeting_open(struct meeting *m, const struct spoke_tls_options *server)
{
    spoke_tls_config *c = config_of(server);

    memset(m, 0, sizeof *m);
    expect_rc(spoke_engine_open(&m->e, NULL), 0);
    expect_rc(spoke_socket_open(&m->a, SPOKE_PAIR, m->e), 0);
    expect_rc(spoke_socket_open(&m->b, SPOKE_PAIR, m->e), 0);
    for (int i = 0; i < 2; i++) {
        spoke_socket *s = i == 0 ? m->a : m->b;

        expect_rc(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
        expect_rc(spoke_socket_set_duration(s, SPOKE_OPT_SEND_TIMEOUT, PATIENCE), 0);
        expect_rc(spoke_socket_set_duration(s, SPOKE_OPT_RECONNECT, 600 * SPOKE_SECOND), 0);
    }
    endpoint_fresh(m->url, TLS);
    expect_rc(spoke_listener_create(&m->l, m->a, m->url), 0);
    expect_rc(spoke_listener_set_tls(m->l, c), 0);
    spoke_tls_config_free(c);
    expect_rc(spoke_listener_start(m->l, 0), 0);
}

int
meeting_dial(struct meeting *m, const struct spoke_tls_options *client)
{
    spoke_tls_config *c = client != NULL ? config_of(client) : NULL;

    expect_rc(spoke_dialer_create(&m->d, m->b, m->url), 0);
    if (c != NULL)
        expect_rc(spoke_dialer_set_tls(m->d, c), 0);
    spoke_tls_config_free(c);
    expect_rc(spoke_dialer_start(m->d, 0), 0);
    return spoke_dialer_wait(m->d, PATIENCE);
}

static uint64_t
pipes_of(spoke_socket *s)
{
    struct spoke_stats stats;

    expect_rc(spoke_socket_stats(s, &stats), 0);
    return stats.pipes_current;
}

void
meeting_hang_up(struct meeting *m)
{
    expect_rc(spoke_dialer_close(m->d), 0);
    for (int i = 0; i < 10000 && (pipes_of(m->a) > 0 || pipes_of(m->b) > 0); i++)
        cr_assert_geq(spoke_engine_poll(m->e, SPOKE_MS), 0);
    cr_assert_eq(pipes_of(m->a), 0);
}

static spoke_pipe_id
carry(spoke_socket *from, spoke_socket *to, const char *text)
{
    spoke_pipe_id pipe;
    spoke_msg *m;

    expect_rc(spoke_send_bytes(from, text, strlen(text), 0), 0);
    expect_rc(spoke_recv(to, &m, 0), 0);
    cr_assert_eq(spoke_msg_size(m), strlen(text));
    cr_assert_eq(memcmp(spoke_msg_body(m), text, strlen(text)), 0);
    pipe = spoke_msg_pipe(m);
    spoke_msg_free(m);
    return pipe;
}

void
meeting_talk(struct meeting *m)
{
    m->pipes[0] = carry(m->b, m->a, "there");
    m->pipes[1] = carry(m->a, m->b, "back");
}

int
meeting_dialer_error(struct meeting *m)
{
    struct spoke_dialer_stats stats = {0};

    for (int i = 0; i < 10000 && stats.last_error == 0; i++) {
        cr_assert_geq(spoke_engine_poll(m->e, SPOKE_MS), 0);
        expect_rc(spoke_dialer_stats(m->d, &stats), 0);
    }
    return stats.last_error;
}

int
meeting_listener_error(struct meeting *m)
{
    struct spoke_listener_stats stats = {0};

    for (int i = 0; i < 10000 && stats.last_error == 0; i++) {
        cr_assert_geq(spoke_engine_poll(m->e, SPOKE_MS), 0);
        expect_rc(spoke_listener_stats(m->l, &stats), 0);
    }
    return stats.last_error;
}

void
meeting_close(struct meeting *m)
{
    expect_rc(spoke_engine_close(m->e), 0);
}

void
pipe_text(const struct meeting *m, int side, const char *name, char text[512])
{
    size_t size = 512;

    expect_rc(
        spoke_pipe_get(side == 0 ? m->a : m->b, m->pipes[side], name, SPOKE_STRING, text, &size),
        0);
}

bool
pipe_flag(const struct meeting *m, int side, const char *name)
{
    size_t size = sizeof(bool);
    bool flag;

    expect_rc(
        spoke_pipe_get(side == 0 ? m->a : m->b, m->pipes[side], name, SPOKE_BOOL, &flag, &size), 0);
    return flag;
}
