/* SPDX-License-Identifier: MIT */
/* Processes and connections that go, and come again. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/ports/fixture.h"
#include "tests/support/certs.h"
#include "tests/support/endpoints.h"
#include "tests/support/process.h"

/* ---- an importer that is killed ---- */

enum { TAKES = 3, SIZE = 8, MESSAGES = 30 };

struct victim {
    const char *url;
    int told; /* a pipe: it has taken what it takes */
};

static int
take_some(void *ctx)
{
    const struct victim *v = ctx;
    spoke_port_config config;
    spoke_engine *e;
    spoke_importer *im;
    spoke_receiver *rx;
    spoke_msg *m;

    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_importer_dial(&im, v->url, NULL, e, SPOKE_FOREVER) == 0);
    spoke_port_config_init(&config);
    config.size = SIZE;
    CHILD_CHECK(spoke_importer_import_receiver(im, "out", NULL, &config, &rx, SPOKE_FOREVER) == 0);
    for (int i = 0; i < TAKES; i++) {
        CHILD_CHECK(spoke_receiver_recv(rx, &m, SPOKE_FOREVER) == 0);
        spoke_msg_free(m);
    }
    CHILD_CHECK(write(v->told, "x", 1) == 1);
    (void)spoke_engine_poll(e, SPOKE_FOREVER);
    for (;;)
        pause();
}

static void
kill_one(enum over over)
{
    struct market x;
    struct victim v;
    spoke_sender *tx;
    spoke_receiver *rx;
    int ends[2], repeats = 0;
    int64_t n;
    char byte;
    pid_t pid;

    market_open(&x, over, NULL, NULL);
    tx = export_sender(&x, "out", MESSAGES, 0);
    cr_assert_eq(pipe(ends), 0);
    v = (struct victim){x.url, ends[1]};
    pid = child_start(take_some, &v);
    send_numbers(&x, tx, 0, MESSAGES);
    cr_assert_eq(read(ends[0], &byte, 1), 1);
    child_kill(pid);
    close(ends[0]);
    close(ends[1]);
    market_await(&x, 0, SPOKE_PORT_UNBOUND, 1);
    rx = import_receiver(&x, x.im, "out", SIZE);
    for (int64_t next = -1; next != MESSAGES; next = n + 1) {
        bool repeated;

        n = recv_number(rx, &repeated, soon(&x));
        cr_assert(n >= 0, "%s", name_of(n));
        cr_assert(next < 0 ? n <= TAKES : n == next, "%lld after %lld", (long long)n,
                  (long long)next - 1);
        cr_assert(!repeated || n <= TAKES + SIZE);
        repeats += repeated;
    }
    cr_assert_gt(repeats, 0);
    expect_rc(spoke_exporter_drain(x.ex, soon(&x)), 0);
    expect_rc(spoke_sender_close(tx), 0);
    expect_rc(spoke_receiver_close(rx), 0);
    market_close(&x);
}

Test(lives, what_a_killed_importer_had_goes_to_another_over_ipc)
{
    kill_one(OVER_IPC);
}

Test(lives, what_a_killed_importer_had_goes_to_another_over_tcp)
{
    kill_one(OVER_TCP);
}

/* ---- connecting again ---- */

/* As test_tls(), but the caller's. */
static spoke_tls_config *
own_tls(void)
{
    struct spoke_tls_options o;
    spoke_tls_config *config;

    test_tls_options(&o);
    expect_rc(spoke_tls_config_new(&config, &o), 0);
    return config;
}

Test(lives, an_importer_connects_again_and_binds_what_was_bound)
{
    OVER_ADDRESSES(over)
    {
        spoke_importer_config config;
        spoke_exporter_config again;
        struct market x;
        spoke_sender *tx, *out;
        spoke_receiver *rx, *in1;

        spoke_importer_config_init(&config);
        config.reconnect_ns = SPOKE_MS;
        config.reconnect_max_ns = 20 * SPOKE_MS;
        market_open(&x, (enum over)over, NULL, &config);
        out = export_sender(&x, "out", 8, 0);
        in1 = export_receiver(&x, "in", 8, 0);
        rx = import_receiver(&x, x.im, "out", 8);
        tx = import_sender(&x, x.im, "in", 8);
        send_numbers(&x, out, 0, 3);
        expect_numbers(&x, rx, 0, 3);
        send_numbers(&x, tx, 0, 3);
        expect_numbers(&x, in1, 0, 3);
        expect_rc(spoke_importer_drain(x.im, soon(&x)), 0);
        expect_rc(spoke_exporter_close(x.ex, 0), 0);
        expect_rc(spoke_sender_close(out), 0);
        expect_rc(spoke_receiver_close(in1), 0);
        market_await(&x, 1, SPOKE_PORT_DISCONNECTED, 1);
        expect_rc(recv_number(rx, NULL, in(&x, 5 * SPOKE_MS)), SPOKE_ETIMEDOUT);
        send_numbers(&x, tx, 3, 5); /* waits for the next exporter */
        spoke_exporter_config_init(&again);
        market_secure(&x, &again.session);
        expect_rc(spoke_exporter_open(&x.ex, &again, x.e[0]), 0);
        out = export_sender(&x, "out", 8, 0);
        in1 = export_receiver(&x, "in", 8, 0);
        expect_rc(spoke_exporter_listen(x.ex, x.url, NULL), 0);
        send_numbers(&x, out, 3, 6);
        expect_numbers(&x, rx, 3, 6);
        expect_numbers(&x, in1, 3, 5);
        expect_rc(spoke_sender_close(out), 0);
        expect_rc(spoke_receiver_close(in1), 0);
        expect_rc(spoke_sender_close(tx), 0);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}

/* What the configurations point to is kept for as long as they may be needed. */
Test(lives, what_connections_need_is_kept)
{
    spoke_exporter_config exporter;
    spoke_importer_config importer;
    struct market x = {.over = OVER_WSS};
    char origins[] = "https://example.org";
    spoke_receiver *rx = NULL;
    spoke_sender *tx;

    endpoint_fresh(x.url, WSS);
    spoke_exporter_config_init(&exporter);
    spoke_importer_config_init(&importer);
    importer.reconnect_ns = SPOKE_MS;
    importer.reconnect_max_ns = 20 * SPOKE_MS;
    importer.on_event = events_note;
    importer.ctx = &x.heard[1];
    for (int round = 0; round < 2; round++) {
        char bound[256];

        exporter.session.stream.tls = own_tls();
        exporter.session.stream.ws_origins = origins;
        expect_rc(spoke_exporter_open(&x.ex, &exporter, NULL), 0);
        spoke_tls_config_free(exporter.session.stream.tls);
        memset(origins, 'x', sizeof origins - 1);
        tx = export_sender(&x, "out", 8, 0);
        expect_rc(spoke_exporter_listen(x.ex, x.url, bound), 0);
        strcpy(x.url, bound);
        if (round == 0) {
            importer.session.stream.tls = own_tls();
            expect_rc(spoke_importer_dial(&x.im, x.url, &importer, NULL, soon(&x)), 0);
            spoke_tls_config_free(importer.session.stream.tls);
            rx = import_receiver(&x, x.im, "out", 8);
        }
        send_numbers(&x, tx, 0, 3);
        expect_numbers(&x, rx, 0, 3);
        expect_rc(spoke_exporter_close(x.ex, 0), 0);
        expect_rc(spoke_sender_close(tx), 0);
        market_await(&x, 1, SPOKE_PORT_DISCONNECTED, round + 1);
    }
    expect_rc(spoke_importer_close(x.im, 0), 0);
    expect_rc(spoke_receiver_close(rx), 0);
}

Test(lives, what_is_refused_then_ends_with_the_reason)
{
    OVER_ADDRESSES(over)
    {
        spoke_importer_config config;
        spoke_exporter_config again;
        struct market x;
        spoke_sender *out;
        spoke_receiver *rx;
        struct spoke_port_event event;

        spoke_importer_config_init(&config);
        config.reconnect_ns = SPOKE_MS;
        market_open(&x, (enum over)over, NULL, &config);
        out = export_sender(&x, "out", 8, 0);
        rx = import_receiver(&x, x.im, "out", 8);
        expect_rc(spoke_exporter_close(x.ex, 0), 0);
        expect_rc(spoke_sender_close(out), 0);
        spoke_exporter_config_init(&again);
        market_secure(&x, &again.session);
        expect_rc(spoke_exporter_open(&x.ex, &again, x.e[0]), 0);
        expect_rc(spoke_exporter_listen(x.ex, x.url, NULL), 0);
        expect_rc(recv_number(rx, NULL, soon(&x)), SPOKE_ENOENT);
        do
            expect_rc(spoke_importer_next_error(x.im, &event, NULL, soon(&x)), 0);
        while (event.type != SPOKE_PORT_REFUSED);
        cr_assert_eq(event.wire_code, SPOKE_MUX_NO_SUCH_NAME);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}
