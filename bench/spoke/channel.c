/* SPDX-License-Identifier: MIT */
/* Spoke's channels, one message a call: a channel there and one back, over one session, as ports of
 * an exporter and an importer, or in the process without either. */
#include <stdio.h>

#include "../common/net.h"
#include "../common/program.h"
#include "link.h"

/* There is one link of each side in a process. */
struct channel_link {
    struct bench_link link; /* first */
    struct spoke_bench_end end;
    spoke_session *session;
    spoke_exporter *exporter;
    spoke_importer *importer;
    spoke_sender *tx;
    spoke_receiver *rx;
};

/* Names of ports: who receives there. */
static const char to_server[] = "to-server", to_client[] = "to-client";

static bool
is_server(const struct channel_link *p)
{
    return p->link.side == BENCH_SERVER;
}

/* ---- opening ---- */

static int
open_session(struct channel_link *p, const spoke_channel_config *channel)
{
    spoke_session_config config;
    int rc;

    spoke_session_config_init(&config);
    config.mux.even = is_server(p);
    config.channel = *channel;
    if ((rc = spoke_session_open(&p->session, p->end.stream, &config)) != 0)
        return spoke_bench_complain("spoke_session_open", rc);
    p->end.stream = NULL;
    rc = spoke_session_open_sender(p->session, &p->tx, channel, NULL, SPOKE_NOW);
    if (rc != 0)
        return spoke_bench_complain("spoke_session_open_sender", rc);
    rc = spoke_session_accept_receiver(p->session, &p->rx, channel, SPOKE_FOREVER);
    return rc == 0 ? 0 : spoke_bench_complain("spoke_session_accept_receiver", rc);
}

static int
open_exporter(struct channel_link *p, const spoke_port_config *port)
{
    int rc = spoke_exporter_open(&p->exporter, NULL, p->end.engine);

    if (rc == 0)
        rc = spoke_exporter_export_receiver(p->exporter, to_server, NULL, port, &p->rx);
    if (rc == 0)
        rc = spoke_exporter_export_sender(p->exporter, to_client, NULL, port, &p->tx);
    if (rc == 0)
        rc = spoke_exporter_serve_stream(p->exporter, p->end.stream);
    if (rc != 0)
        return spoke_bench_complain("an exporter", rc);
    p->end.stream = NULL;
    return 0;
}

static int
open_importer(struct channel_link *p, const spoke_port_config *port)
{
    int rc = spoke_importer_open(&p->importer, p->end.stream, NULL);

    if (rc != 0)
        return spoke_bench_complain("spoke_importer_open", rc);
    p->end.stream = NULL;
    rc = spoke_importer_import_sender(p->importer, to_server, NULL, port, &p->tx, SPOKE_FOREVER);
    if (rc == 0)
        rc = spoke_importer_import_receiver(p->importer, to_client, NULL, port, &p->rx,
                                            SPOKE_FOREVER);
    return rc == 0 ? 0 : spoke_bench_complain("an import", rc);
}

static int
open_ports(struct channel_link *p)
{
    spoke_port_config port;

    spoke_port_config_init(&port);
    port.size = p->link.options->depth;
    return is_server(p) ? open_exporter(p, &port) : open_importer(p, &port);
}

/* The server makes both channels; the client, which waits for that, finds its ends here. */
static int
open_pair(struct channel_link *p, const spoke_channel_config *channel)
{
    static spoke_sender *tx_of_client;
    static spoke_receiver *rx_of_client;
    int rc;

    if (!is_server(p)) {
        p->tx = tx_of_client;
        p->rx = rx_of_client;
        return 0;
    }
    rc = spoke_channel_pair(&p->rx, &tx_of_client, channel, NULL);
    if (rc == 0)
        rc = spoke_channel_pair(&rx_of_client, &p->tx, channel, NULL);
    if (rc != 0)
        return spoke_bench_complain("spoke_channel_pair", rc);
    bench_ready(&p->link, "");
    return 0;
}

static void channel_close(struct bench_link *l);

static int
channel_open(struct bench_link *l)
{
    struct channel_link *p = (struct channel_link *)l;
    spoke_channel_config channel;
    int rc;

    spoke_channel_config_init(&channel);
    channel.depth = l->options->depth;
    if (l->options->pattern == BENCH_CHANNEL_PAIR)
        return open_pair(p, &channel);
    if (spoke_bench_open_end(&p->end, l) != 0)
        return -1;
    rc = l->options->pattern == BENCH_PORT ? open_ports(p) : open_session(p, &channel);
    if (rc != 0)
        channel_close(l);
    return rc;
}

/* Both sides have all their messages: the session ends when the peer has closed its ends too. */
static void
channel_close(struct bench_link *l)
{
    struct channel_link *p = (struct channel_link *)l;

    if (p->tx != NULL)
        spoke_sender_close(p->tx);
    if (p->rx != NULL)
        spoke_receiver_close(p->rx);
    if (p->exporter != NULL)
        spoke_exporter_close(p->exporter, SPOKE_SECOND);
    if (p->importer != NULL)
        spoke_importer_close(p->importer, SPOKE_SECOND);
    if (p->session != NULL)
        spoke_session_close(p->session, SPOKE_SECOND);
    spoke_bench_close_end(&p->end, SPOKE_SECOND);
}

/* ---- messages ---- */

static int
send_one(struct channel_link *p, spoke_msg *m)
{
    int rc = spoke_sender_send(p->tx, m, SPOKE_FOREVER);

    if (rc == 0)
        return 0;
    spoke_msg_free(m);
    return spoke_bench_complain("spoke_sender_send", rc);
}

static int
channel_send(struct bench_link *l, uint64_t first, enum bench_phase phase, unsigned count)
{
    spoke_msg *m;
    int rc;

    for (unsigned i = 0; i < count; i++) {
        if ((rc = spoke_msg_new(&m, l->size)) != 0)
            return spoke_bench_complain("spoke_msg_new", rc);
        bench_write_message(l, spoke_msg_body(m), first + i, phase);
        if (send_one((struct channel_link *)l, m) != 0)
            return -1;
    }
    return 0;
}

static int
channel_receive(struct bench_link *l, struct bench_check *c)
{
    spoke_msg *m;
    int rc = spoke_receiver_recv(((struct channel_link *)l)->rx, &m, SPOKE_FOREVER);

    if (rc != 0)
        return spoke_bench_complain("spoke_receiver_recv", rc);
    rc = bench_read_message(l, c, spoke_msg_body(m), spoke_msg_size(m));
    spoke_msg_free(m);
    return rc;
}

static int
channel_echo(struct bench_link *l, struct bench_check *c)
{
    struct channel_link *p = (struct channel_link *)l;
    spoke_msg *m;
    int rc = spoke_receiver_recv(p->rx, &m, SPOKE_FOREVER);

    if (rc != 0)
        return spoke_bench_complain("spoke_receiver_recv", rc);
    if (bench_check_message(c, spoke_msg_body(m), spoke_msg_size(m)) != 0) {
        spoke_msg_free(m);
        return -1;
    }
    return send_one(p, m);
}

const struct bench_adapter spoke_bench_channel = {
    .name = "spoke",
    .link_size = sizeof(struct channel_link),
    .open = channel_open,
    .close = channel_close,
    .send = channel_send,
    .receive = channel_receive,
    .echo = channel_echo,
};
