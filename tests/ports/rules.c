/* SPDX-License-Identifier: MIT */
/* What ports promise: names, types, limits, who gets what, and what happens at each end. */
#include <string.h>
#include <unistd.h>

#include "tests/ports/fixture.h"

static void
close_ends(spoke_sender *tx, spoke_receiver *rx)
{
    if (tx != NULL)
        expect_rc(spoke_sender_close(tx), 0);
    if (rx != NULL)
        expect_rc(spoke_receiver_close(rx), 0);
}

/* ---- names, directions, limits ---- */

Test(ports, directions_have_names)
{
    cr_assert_str_eq(spoke_direction_name(SPOKE_RECEIVE), "receive");
    cr_assert_str_eq(spoke_direction_name(SPOKE_SEND), "send");
    cr_assert_str_eq(spoke_direction_name((enum spoke_direction)2), "?");
    cr_assert_str_eq(spoke_direction_name((enum spoke_direction) - 1), "?");
}

Test(ports, what_cannot_be_offered)
{
    char long_name[SPOKE_PORT_NAME_MAX + 2];
    const char *const bad[] = {"", "a\nb", "\x7f", "\xc2\x80", "\xff", long_name};
    spoke_port_config config;
    struct market x;
    spoke_sender *tx, *again;
    spoke_receiver *rx;

    memset(long_name, 'x', sizeof long_name);
    long_name[sizeof long_name - 1] = '\0';
    market_open(&x, OVER_PAIR, NULL, NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        expect_rc(spoke_exporter_export_sender(x.ex, bad[i], NULL, NULL, &tx), SPOKE_ERANGE);
        expect_rc(spoke_importer_import_receiver(x.im, bad[i], NULL, NULL, &rx, soon(&x)),
                  SPOKE_ERANGE);
    }
    spoke_port_config_init(&config);
    config.count = 0; /* the seed sent one value then */
    expect_rc(spoke_importer_import_receiver(x.im, "a", NULL, &config, &rx, soon(&x)),
              SPOKE_ERANGE);
    config.count = -2;
    expect_rc(spoke_importer_import_receiver(x.im, "a", NULL, &config, &rx, soon(&x)),
              SPOKE_ERANGE);
    spoke_port_config_init(&config);
    config.size = SPOKE_CHANNEL_DEPTH_MAX + 1;
    expect_rc(spoke_exporter_export_sender(x.ex, "a", NULL, &config, &tx), SPOKE_ERANGE);
    spoke_port_config_init(&config);
    config.flags = 1U << 20;
    expect_rc(spoke_exporter_export_sender(x.ex, "a", NULL, &config, &tx), SPOKE_ERANGE);
    expect_rc(spoke_exporter_export_sender(x.ex, NULL, NULL, NULL, &tx), SPOKE_EINVAL);
    expect_rc(spoke_exporter_export_sender(x.ex, "\xc3\xa9t\xc3\xa9 2", NULL, NULL, &tx), 0);
    expect_rc(spoke_exporter_export_sender(x.ex, "\xc3\xa9t\xc3\xa9 2", NULL, NULL, &again),
              SPOKE_EEXIST);
    expect_rc(spoke_exporter_export_receiver(x.ex, "\xc3\xa9t\xc3\xa9 2", NULL, NULL, &rx),
              SPOKE_EEXIST);
    close_ends(tx, NULL);
    market_close(&x);
}

Test(ports, what_cannot_be_bound)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_exporter_config config;
        spoke_port_config small;
        spoke_sender *tx, *out;
        spoke_receiver *rx, *in1, *in2;

        spoke_exporter_config_init(&config);
        config.imports_per_peer = 2;
        market_open(&x, (enum over)over, &config, NULL);
        out = export_sender(&x, "out", 4, 0);
        in1 = export_receiver(&x, "in", 4, 0);
        expect_rc(spoke_importer_import_sender(x.im, "out", NULL, NULL, &tx, soon(&x)), SPOKE_EDIR);
        expect_rc(spoke_importer_import_receiver(x.im, "in", NULL, NULL, &rx, soon(&x)),
                  SPOKE_EDIR);
        spoke_port_config_init(&small);
        small.max_message = 1000;
        expect_rc(spoke_importer_import_receiver(x.im, "out", NULL, &small, &rx, soon(&x)),
                  SPOKE_ELIMIT);
        rx = import_receiver(&x, x.im, "out", 4);
        expect_rc(spoke_importer_import_receiver(x.im, "out", NULL, NULL, &in2, soon(&x)),
                  SPOKE_EEXIST);
        tx = import_sender(&x, x.im, "in", 4);
        in2 = export_receiver(&x, "third", 4, 0);
        expect_rc(spoke_importer_import_sender(x.im, "third", NULL, NULL, &(spoke_sender *){NULL},
                                               soon(&x)),
                  SPOKE_ELIMIT);
        /* What was refused has not touched what is bound. */
        send_numbers(&x, tx, 0, 3);
        expect_numbers(&x, in1, 0, 3);
        send_numbers(&x, out, 0, 3);
        expect_numbers(&x, rx, 0, 3);
        close_ends(tx, rx);
        close_ends(out, in1);
        close_ends(NULL, in2);
        market_close(&x);
    }
}

static int asked;

static bool
allow_even(void *ctx, const char *name, enum spoke_direction direction,
           const struct spoke_session_info *peer)
{
    (void)ctx;
    cr_assert_eq(direction, SPOKE_SEND);
    cr_assert_not_null(peer);
    asked++;
    return name[0] == 'y';
}

Test(ports, the_exporter_may_ask_who_it_is)
{
    OVER_EVERYTHING(over)
    {
        spoke_exporter_config config;
        struct market x;
        spoke_sender *yes, *no;
        spoke_receiver *rx, *none;

        spoke_exporter_config_init(&config);
        config.allow = allow_even;
        asked = 0;
        market_open(&x, (enum over)over, &config, NULL);
        yes = export_sender(&x, "yes", 4, 0);
        no = export_sender(&x, "no", 4, 0);
        expect_rc(spoke_importer_import_receiver(x.im, "no", NULL, NULL, &none, soon(&x)),
                  SPOKE_EPERM);
        rx = import_receiver(&x, x.im, "yes", 4);
        cr_assert_eq(asked, 2);
        send_numbers(&x, yes, 0, 3);
        expect_numbers(&x, rx, 0, 3);
        close_ends(yes, rx);
        close_ends(no, NULL);
        market_close(&x);
    }
}

static bool
has_left(struct market *x, void *ctx)
{
    struct spoke_port_event event;

    (void)ctx;
    while (spoke_importer_next_error(x->im, &event, NULL, SPOKE_NOW) == 0) {
        if (event.type == SPOKE_PORT_DISCONNECTED)
            return true;
    }
    return false;
}

Test(ports, who_asks_for_nonsense_too_often_is_turned_away)
{
    spoke_exporter_config config;
    struct market x;
    spoke_receiver *rx;

    spoke_exporter_config_init(&config);
    config.failures_per_peer = 3;
    market_open(&x, OVER_SIM, &config, NULL);
    for (int i = 0; i < 3; i++)
        expect_rc(spoke_importer_import_receiver(x.im, "no", NULL, NULL, &rx, soon(&x)),
                  SPOKE_ENOENT);
    cr_assert_lt(spoke_importer_import_receiver(x.im, "no", NULL, NULL, &rx, soon(&x)), 0);
    cr_assert(market_until(&x, has_left, NULL));
    cr_assert_eq(market_event(&x, 0, SPOKE_PORT_DISCONNECTED).code, SPOKE_ELIMIT);
    market_close(&x);
}

/* What is one too many is closed, and the next may come when one has gone. */
Test(ports, so_many_connections_at_a_time)
{
    OVER_ADDRESSES(over)
    {
        spoke_exporter_config config;
        spoke_importer_config importer;
        struct market x;
        struct spoke_port_event event;
        spoke_importer *second, *third;
        spoke_stream *a, *b;

        spoke_exporter_config_init(&config);
        config.connections = 2;
        market_open(&x, (enum over)over, &config, NULL);
        second = market_join(&x, NULL);
        spoke_importer_config_init(&importer);
        market_secure(&x, &importer.session);
        cr_assert_neq(spoke_importer_dial(&third, x.url, &importer, x.e[1], soon(&x)), 0);
        event = market_event(&x, 0, SPOKE_PORT_REFUSED);
        cr_assert_eq(event.code, SPOKE_ELIMIT);
        cr_assert_str_eq(event.name, "");
        expect_rc(spoke_stream_pair(&a, &b, NULL, x.e[0]), 0);
        expect_rc(spoke_exporter_serve_stream(x.ex, a), SPOKE_ELIMIT);
        expect_rc(spoke_stream_close(a), 0); /* it has not been taken */
        expect_rc(spoke_stream_close(b), 0);
        expect_rc(spoke_importer_close(second, 0), 0);
        market_await(&x, 0, SPOKE_PORT_DISCONNECTED, 1);
        third = market_join(&x, NULL);
        market_await(&x, 0, SPOKE_PORT_CONNECTED, 3);
        expect_rc(spoke_importer_close(third, 0), 0);
        market_close(&x);
    }
}

Test(ports, an_exporter_takes_connections_at_all)
{
    spoke_exporter_config config;
    spoke_exporter *ex;

    spoke_exporter_config_init(&config);
    config.connections = 0;
    expect_rc(spoke_exporter_open(&ex, &config, NULL), SPOKE_ERANGE);
    cr_assert_null(ex);
}

/* ---- types ---- */

#define OLD(FIELD, S)                                                                              \
    FIELD(S, U32, id)                                                                              \
    FIELD(S, U32, size)
SPOKE_STRUCT(old, OLD);
SPOKE_STRUCT_TYPE(old, OLD);
#define NEW(FIELD, S)                                                                              \
    FIELD(S, U32, size)                                                                            \
    FIELD(S, TEXT, note)                                                                           \
    FIELD(S, U32, id)
SPOKE_STRUCT(new, NEW);
SPOKE_STRUCT_TYPE(new, NEW);

Test(ports, types_are_compared_when_a_name_is_bound)
{
    struct market x;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_backing backing;
    struct old v = {7, 9};

    expect_rc(spoke_type_check(&old_type), 0);
    expect_rc(spoke_type_check(&new_type), 0);
    OVER_EVERYTHING(over)
    {
        market_open(&x, (enum over)over, NULL, NULL);
        expect_rc(spoke_exporter_export_receiver(x.ex, "a", &old_type, NULL, &rx), 0);
        expect_rc(spoke_importer_import_sender(x.im, "a", &new_type, NULL, &tx, soon(&x)),
                  SPOKE_ETYPE);
        expect_rc(spoke_importer_import_sender(x.im, "a", &old_type, NULL, &tx, soon(&x)), 0);
        for (int i = 0; i < 20; i++) {
            v.id = (uint32_t)i;
            expect_rc(spoke_sender_send_value(tx, &v, NULL, soon(&x)), 0);
            expect_rc(spoke_receiver_recv_value(rx, &v, &backing, soon(&x)), 0);
            cr_assert_eq(v.id, (uint32_t)i);
            /* Both have the same struct: it is the message. */
            cr_assert_eq(spoke_msg_size(backing.message), sizeof v);
            spoke_backing_free(&backing);
        }
        close_ends(tx, rx);
        market_close(&x);
    }
}

Test(ports, types_may_evolve_if_both_let_them)
{
    spoke_port_config evolving;
    spoke_backing backing;
    struct new v = {.size = 5, .id = 3, .note = {"hello", 5}};
    struct old w;
    struct market x;
    spoke_sender *tx;
    spoke_receiver *rx;

    expect_rc(spoke_type_check(&old_type), 0);
    expect_rc(spoke_type_check(&new_type), 0);
    spoke_port_config_init(&evolving);
    evolving.flags = SPOKE_PORT_EVOLVING;
    OVER_EVERYTHING(over)
    {
        market_open(&x, (enum over)over, NULL, NULL);
        expect_rc(spoke_exporter_export_sender(x.ex, "new", &new_type, &evolving, &tx), 0);
        expect_rc(spoke_importer_import_receiver(x.im, "new", &old_type, NULL, &rx, soon(&x)),
                  SPOKE_ETYPE);
        expect_rc(spoke_importer_import_receiver(x.im, "new", &old_type, &evolving, &rx, soon(&x)),
                  0);
        expect_rc(spoke_sender_send_value(tx, &v, NULL, soon(&x)), 0);
        expect_rc(spoke_receiver_recv_value(rx, &w, &backing, soon(&x)), 0);
        cr_assert(w.id == 3 && w.size == 5);
        spoke_backing_free(&backing);
        close_ends(tx, rx);
        /* The other way the note is missing. */
        expect_rc(spoke_exporter_export_receiver(x.ex, "in", &new_type, &evolving, &rx), 0);
        expect_rc(spoke_importer_import_sender(x.im, "in", &old_type, &evolving, &tx, soon(&x)),
                  SPOKE_ETYPE);
        close_ends(NULL, rx);
        market_close(&x);
    }
}

/* A value that is none costs its sender the binding, and nobody else anything: the seed's importer
 * hung then, and its exporter only wrote to a log. */
Test(ports, what_is_no_value_ends_the_binding_it_came_by)
{
    expect_rc(spoke_type_check(&old_type), 0);
    OVER_EVERYTHING(over)
    {
        struct old v = {1, 2}, got;
        struct market x;
        spoke_importer *im2;
        spoke_sender *liar, *honest;
        spoke_receiver *rx;
        spoke_backing backing;

        market_open(&x, (enum over)over, NULL, NULL);
        im2 = market_join(&x, NULL);
        expect_rc(spoke_exporter_export_receiver(x.ex, "in", &old_type, NULL, &rx), 0);
        liar = import_sender(&x, x.im, "in", 4); /* without a type */
        expect_rc(spoke_importer_import_sender(im2, "in", &old_type, NULL, &honest, soon(&x)), 0);
        send_numbers(&x, liar, 0, 1);
        expect_rc(spoke_receiver_recv_value(rx, &got, &backing, soon(&x)), SPOKE_EDECODE);
        cr_assert_eq(market_event(&x, 0, SPOKE_PORT_UNBOUND).wire_code, SPOKE_MUX_DECODE);
        market_await(&x, 1, SPOKE_PORT_UNBOUND, 1);
        expect_rc(send_number(liar, 2, soon(&x)), SPOKE_EABORTED);
        expect_rc(spoke_sender_send_value(honest, &v, NULL, soon(&x)), 0);
        expect_rc(spoke_receiver_recv_value(rx, &got, &backing, soon(&x)), 0);
        spoke_backing_free(&backing);
        close_ends(liar, rx);
        close_ends(honest, NULL);
        expect_rc(spoke_importer_close(im2, 0), 0);
        market_close(&x);
    }
}

Test(ports, an_importer_that_gets_no_value_says_so)
{
    expect_rc(spoke_type_check(&old_type), 0);
    OVER_EVERYTHING(over)
    {
        struct old got;
        struct market x;
        spoke_sender *bad, *good;
        spoke_receiver *typed, *plain;
        spoke_backing backing;

        market_open(&x, (enum over)over, NULL, NULL);
        bad = export_sender(&x, "bad", 4, 0);
        good = export_sender(&x, "good", 4, 0);
        expect_rc(spoke_importer_import_receiver(x.im, "bad", &old_type, NULL, &typed, soon(&x)),
                  0);
        plain = import_receiver(&x, x.im, "good", 4);
        send_numbers(&x, bad, 0, 1);
        expect_rc(spoke_receiver_recv_value(typed, &got, &backing, soon(&x)), SPOKE_EDECODE);
        expect_rc(spoke_receiver_recv_value(typed, &got, &backing, soon(&x)), SPOKE_EDECODE);
        cr_assert_eq(market_event(&x, 0, SPOKE_PORT_UNBOUND).wire_code, SPOKE_MUX_DECODE);
        send_numbers(&x, good, 0, 3);
        expect_numbers(&x, plain, 0, 3);
        close_ends(bad, typed);
        close_ends(good, plain);
        market_close(&x);
    }
}

/* ---- counts ---- */

Test(ports, a_count_ends_a_sending_import_on_both_sides)
{
    OVER_EVERYTHING(over)
    {
        spoke_port_config config;
        struct market x;
        spoke_sender *tx;
        spoke_receiver *rx;

        market_open(&x, (enum over)over, NULL, NULL);
        rx = export_receiver(&x, "in", 10, SPOKE_PORT_END_WITH_LAST);
        spoke_port_config_init(&config);
        config.count = 3;
        expect_rc(spoke_importer_import_sender(x.im, "in", NULL, &config, &tx, soon(&x)), 0);
        send_numbers(&x, tx, 0, 3);
        expect_rc(send_number(tx, 3, in(&x, 10 * SPOKE_MS)), SPOKE_ETIMEDOUT);
        expect_rc(spoke_importer_drain(x.im, in(&x, SPOKE_MS)), SPOKE_ETIMEDOUT);
        expect_numbers(&x, rx, 0, 3);
        expect_rc(spoke_importer_drain(x.im, SPOKE_FOREVER), 0); /* the seed hung here */
        expect_rc(recv_number(rx, NULL, soon(&x)), SPOKE_EOF);
        expect_rc(send_number(tx, 3, soon(&x)), SPOKE_EPEERCLOSED);
        close_ends(tx, rx);
        market_close(&x);
    }
}

/* ---- several importers ---- */

Test(ports, each_message_goes_to_one_importer_by_turns)
{
    OVER_EVERYTHING(over)
    {
        enum { PEERS = 4, MESSAGES = 400 };
        struct market x;
        spoke_importer *im[PEERS];
        spoke_receiver *rx[PEERS];
        spoke_sender *tx;
        int count[PEERS] = {0}, all = 0;
        bool seen[MESSAGES] = {false};
        uint64_t sent = 0;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "out", 8, 0);
        for (int i = 0; i < PEERS; i++) {
            im[i] = i == 0 ? x.im : market_join(&x, NULL);
            rx[i] = import_receiver(&x, im[i], "out", 8);
        }
        while (all < MESSAGES) {
            while (sent < MESSAGES && send_number(tx, sent, SPOKE_NOW) == 0)
                sent++;
            for (int i = 0; i < PEERS; i++) {
                int64_t n = recv_number(rx[i], NULL, SPOKE_NOW);

                if (n == SPOKE_EAGAIN)
                    continue;
                cr_assert(n >= 0 && n < MESSAGES && !seen[n], "%lld", (long long)n);
                seen[n] = true;
                count[i]++;
                all++;
            }
            market_pass(&x, 20 * SPOKE_US);
        }
        for (int i = 0; i < PEERS; i++)
            cr_assert(count[i] > MESSAGES / PEERS / 3, "%d got %d", i, count[i]);
        for (int i = 0; i < PEERS; i++) {
            close_ends(NULL, rx[i]);
            if (i > 0)
                expect_rc(spoke_importer_close(im[i], 0), 0);
        }
        close_ends(tx, NULL);
        market_close(&x);
    }
}

/* The seed closed the channel for all with the first, and others crashed. */
Test(ports, an_importer_that_closes_leaves_the_others)
{
    OVER_EVERYTHING(over)
    {
        for (int last = 0; last < 2; last++) {
            struct market x;
            spoke_importer *im2;
            spoke_sender *tx[2];
            spoke_receiver *rx;

            market_open(&x, (enum over)over, NULL, NULL);
            im2 = market_join(&x, NULL);
            rx = export_receiver(&x, "in", 4, last ? SPOKE_PORT_END_WITH_LAST : 0);
            tx[0] = import_sender(&x, x.im, "in", 4);
            tx[1] = import_sender(&x, im2, "in", 4);
            send_numbers(&x, tx[0], 0, 2);
            close_ends(tx[0], NULL);
            expect_numbers(&x, rx, 0, 2);
            send_numbers(&x, tx[1], 2, 4);
            expect_numbers(&x, rx, 2, 4);
            close_ends(tx[1], NULL);
            market_await(&x, 0, SPOKE_PORT_UNBOUND, 2);
            if (last) {
                expect_rc(recv_number(rx, NULL, soon(&x)), SPOKE_EOF);
            } else {
                expect_rc(recv_number(rx, NULL, SPOKE_NOW), SPOKE_EAGAIN);
                expect_rc(spoke_exporter_hangup(x.ex, "in"), 0);
                expect_rc(recv_number(rx, NULL, soon(&x)), SPOKE_EOF);
            }
            close_ends(NULL, rx);
            expect_rc(spoke_importer_close(im2, 0), 0);
            market_close(&x);
        }
    }
}

Test(ports, what_one_importer_sends_does_not_hold_up_another)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_importer *im2;
        spoke_sender *much, *little;
        spoke_receiver *rx;
        uint64_t sent = 0;
        int before = 0;

        market_open(&x, (enum over)over, NULL, NULL);
        im2 = market_join(&x, NULL);
        rx = export_receiver(&x, "in", 4, 0);
        much = import_sender(&x, x.im, "in", 4);
        little = import_sender(&x, im2, "in", 4);
        while (send_number(much, sent, in(&x, 20 * SPOKE_MS)) == 0)
            sent++;
        send_numbers(&x, little, 1000, 1001);
        market_pass(&x, 20 * SPOKE_MS);
        while (recv_number(rx, NULL, soon(&x)) != 1000) {
            before++;
            while (send_number(much, sent, SPOKE_NOW) == 0)
                sent++;
        }
        cr_assert_leq(before, 40);
        close_ends(much, rx);
        close_ends(little, NULL);
        expect_rc(spoke_importer_close(im2, 0), 0);
        market_close(&x);
    }
}

/* ---- losses ---- */

/* Nothing of what an importer was given and did not take is lost, or changes its order. */
Test(ports, what_was_not_taken_goes_to_another_in_its_order)
{
    OVER_EVERYTHING(over)
    {
        enum { MESSAGES = 20, TAKEN = 5 };
        struct market x;
        spoke_importer *im2;
        spoke_receiver *rx;
        spoke_sender *tx;
        int repeats = 0;
        struct spoke_port_event event;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "out", 8, 0);
        rx = import_receiver(&x, x.im, "out", 8);
        for (uint64_t n = 0; n < MESSAGES; n++) {
            expect_rc(send_number(tx, n, soon(&x)), 0);
            if (n < TAKEN)
                expect_numbers(&x, rx, n, n + 1);
            else if (n >= 8 + TAKEN)
                break;
        }
        await_waiting(&x, rx, 1);
        close_ends(NULL, rx); /* with some inside */
        expect_rc(spoke_importer_close(x.im, 0), 0);
        x.im = NULL;
        market_await(&x, 0, SPOKE_PORT_UNBOUND, 1);
        event = market_event(&x, 0, SPOKE_PORT_UNBOUND);
        cr_assert_gt(event.unacked, 0U);
        im2 = market_join(&x, NULL);
        rx = import_receiver(&x, im2, "out", 8);
        for (int64_t next = -1, n = 0; n != 8 + TAKEN;) {
            bool repeated;

            n = recv_number(rx, &repeated, soon(&x));
            cr_assert(n >= 0, "%s", name_of(n));
            if (next < 0)
                cr_assert(n <= TAKEN, "%lld is missing", (long long)n);
            else
                cr_assert_eq(n, next, "%lld after %lld", (long long)n, (long long)next - 1);
            cr_assert(repeated || repeats > 0);
            repeats += repeated;
            next = n + 1;
        }
        cr_assert_gt(repeats, 0);
        cr_assert(repeats <= (int)event.unacked);
        expect_rc(spoke_exporter_drain(x.ex, soon(&x)), 0);
        close_ends(tx, rx);
        expect_rc(spoke_importer_close(im2, 0), 0);
        market_close(&x);
    }
}

Test(ports, dropped_ones_are_counted)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_importer *im2;
        spoke_receiver *rx;
        spoke_sender *tx;
        struct spoke_port_event event;
        bool repeated;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "out", 8, SPOKE_PORT_DROP);
        rx = import_receiver(&x, x.im, "out", 8);
        send_numbers(&x, tx, 0, 4);
        while (recv_number(rx, NULL, soon(&x)) != 0) {
        }
        await_waiting(&x, rx, 3);
        expect_rc(spoke_importer_close(x.im, 0), 0);
        x.im = NULL;
        market_await(&x, 0, SPOKE_PORT_UNBOUND, 1);
        event = market_event(&x, 0, SPOKE_PORT_UNBOUND);
        cr_assert(event.unacked == 4 || event.unacked == 3, "%d", (int)event.unacked);
        cr_assert_str_eq(event.name, "out");
        expect_rc(spoke_exporter_drain(x.ex, soon(&x)), 0);
        send_numbers(&x, tx, 100, 101);
        im2 = market_join(&x, NULL);
        close_ends(NULL, rx);
        rx = import_receiver(&x, im2, "out", 8);
        expect_rc(recv_number(rx, &repeated, soon(&x)), 100);
        cr_assert(!repeated);
        close_ends(tx, rx);
        expect_rc(spoke_importer_close(im2, 0), 0);
        market_close(&x);
    }
}

/* The seed took one more value for an importer that had gone, and lost it. */
Test(ports, an_importer_that_comes_again_misses_nothing)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_receiver *rx;
        spoke_sender *tx;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "out", 8, 0);
        for (uint64_t round = 0; round < 5; round++) {
            rx = import_receiver(&x, x.im, "out", 8);
            send_numbers(&x, tx, 3 * round, 3 * round + 3);
            expect_numbers(&x, rx, 3 * round, 3 * round + 3);
            expect_rc(spoke_exporter_drain(x.ex, soon(&x)), 0);
            expect_rc(spoke_importer_close(x.im, 0), 0);
            expect_rc(recv_number(rx, NULL, soon(&x)), SPOKE_EMUXCLOSED);
            close_ends(NULL, rx);
            market_await(&x, 0, SPOKE_PORT_UNBOUND, (int)round + 1);
            x.im = market_join(&x, NULL);
        }
        close_ends(tx, NULL);
        market_close(&x);
    }
}

/* The seed's importers hung for ever. */
Test(ports, an_importer_is_told_when_the_connection_goes)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_receiver *rx, *in1;
        spoke_sender *tx, *out;
        struct spoke_port_event event;
        uint64_t lost;
        int64_t n;
        int rc;

        market_open(&x, (enum over)over, NULL, NULL);
        out = export_sender(&x, "out", 8, 0);
        in1 = export_receiver(&x, "in", 8, 0);
        rx = import_receiver(&x, x.im, "out", 8);
        tx = import_sender(&x, x.im, "in", 8);
        send_numbers(&x, out, 0, 1);
        expect_numbers(&x, rx, 0, 1);
        expect_rc(spoke_exporter_close(x.ex, 0), 0);
        x.ex = NULL;
        n = recv_number(rx, NULL, soon(&x));
        cr_assert(n == SPOKE_EMUXCLOSED || n == SPOKE_ECONNRESET || n == SPOKE_EABORTED, "%s",
                  name_of(n));
        while ((rc = send_number(tx, 1, soon(&x))) == 0) {
        }
        cr_assert(rc != SPOKE_ETIMEDOUT, "%s", name_of(rc));
        expect_rc(spoke_importer_next_error(x.im, &event, &lost, soon(&x)), 0);
        cr_assert(event.type == SPOKE_PORT_UNBOUND && event.code != 0);
        while (event.type != SPOKE_PORT_DISCONNECTED)
            expect_rc(spoke_importer_next_error(x.im, &event, &lost, soon(&x)), 0);
        cr_assert_eq(lost, 0U);
        rc = spoke_importer_import_receiver(x.im, "out", NULL, NULL, &(spoke_receiver *){NULL},
                                            soon(&x));
        cr_assert(rc == SPOKE_EMUXCLOSED || rc == SPOKE_ECONNRESET, "%s", name_of(rc));
        close_ends(tx, rx);
        close_ends(out, in1);
        market_close(&x);
    }
}

Test(ports, errors_that_find_no_room_are_counted)
{
    enum { NAMES = 12 };
    struct spoke_port_event event;
    spoke_receiver *rx[NAMES];
    spoke_sender *tx[NAMES];
    struct market x;
    uint64_t lost;

    market_open(&x, OVER_SIM, NULL, NULL);
    for (int i = 0; i < NAMES; i++) {
        char name[2] = {(char)('a' + i), '\0'};

        tx[i] = export_sender(&x, name, 4, 0);
        rx[i] = import_receiver(&x, x.im, name, 4);
    }
    expect_rc(spoke_importer_next_error(x.im, &event, &lost, SPOKE_NOW), SPOKE_EAGAIN);
    expect_rc(spoke_importer_next_error(x.im, &event, &lost, in(&x, SPOKE_MS)), SPOKE_ETIMEDOUT);
    expect_rc(spoke_exporter_close(x.ex, 0), 0);
    x.ex = NULL;
    market_await(&x, 1, SPOKE_PORT_DISCONNECTED, 1);
    for (int i = 0; i < 10; i++)
        expect_rc(spoke_importer_next_error(x.im, &event, &lost, SPOKE_NOW), 0);
    cr_assert_eq(lost, NAMES + 1 - 10U);
    expect_rc(spoke_importer_next_error(x.im, &event, &lost, SPOKE_NOW), SPOKE_EAGAIN);
    for (int i = 0; i < NAMES; i++)
        close_ends(tx[i], rx[i]);
    market_close(&x);
}

/* In the seed this could take the connection down. */
Test(ports, hanging_up_with_messages_on_their_way_touches_no_other_name)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_receiver *rx, *other_rx;
        spoke_sender *tx, *other;
        int64_t n;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "out", 8, SPOKE_PORT_DROP);
        other = export_sender(&x, "other", 8, 0);
        rx = import_receiver(&x, x.im, "out", 8);
        other_rx = import_receiver(&x, x.im, "other", 8);
        send_numbers(&x, tx, 0, 8);
        expect_rc(spoke_importer_hangup(x.im, "out"), 0);
        while ((n = recv_number(rx, NULL, soon(&x))) >= 0) {
        }
        expect_rc(n, SPOKE_EOF);
        send_numbers(&x, tx, 8, 10);
        send_numbers(&x, other, 0, 5);
        expect_numbers(&x, other_rx, 0, 5);
        close_ends(tx, rx);
        close_ends(other, other_rx);
        market_close(&x);
    }
}

/* ---- the end ---- */

Test(ports, closing_lets_what_was_sent_arrive)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_receiver *rx;
        spoke_sender *tx;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "out", 8, 0);
        send_numbers(&x, tx, 0, 4);
        expect_rc(spoke_exporter_close(x.ex, SPOKE_MS), SPOKE_ETIMEDOUT);
        expect_rc(send_number(tx, 1, soon(&x)), SPOKE_EPEERCLOSED);
        expect_rc(spoke_exporter_close(x.ex, 0), 0);
        close_ends(tx, NULL);
        x.ex = NULL;
        market_close(&x);

        market_open(&x, (enum over)over, NULL, NULL);
        rx = export_receiver(&x, "in", 8, SPOKE_PORT_END_WITH_FIRST);
        tx = import_sender(&x, x.im, "in", 8);
        send_numbers(&x, tx, 0, 4);
        expect_numbers(&x, rx, 0, 4);
        expect_rc(spoke_importer_close(x.im, 20 * SPOKE_SECOND), 0);
        x.im = NULL;
        expect_rc(recv_number(rx, NULL, soon(&x)), SPOKE_EOF);
        expect_rc(send_number(tx, 1, soon(&x)), SPOKE_EPEERCLOSED);
        close_ends(tx, rx);
        market_close(&x);
    }
}

Test(ports, closed_handles_are_recognised)
{
    struct market x;
    spoke_exporter *ex;
    spoke_importer *im;
    spoke_sender *tx;
    spoke_receiver *rx;
    struct spoke_port_event event;

    market_open(&x, OVER_PAIR, NULL, NULL);
    ex = x.ex;
    im = x.im;
    expect_rc(spoke_importer_close(im, 0), 0);
    expect_rc(spoke_importer_close(im, 0), 0);
    expect_rc(spoke_exporter_close(ex, 0), 0);
    expect_rc(spoke_exporter_close(ex, 0), 0);
    expect_rc(spoke_exporter_export_sender(ex, "a", NULL, NULL, &tx), SPOKE_ECLOSED);
    expect_rc(spoke_importer_import_receiver(im, "a", NULL, NULL, &rx, SPOKE_FOREVER),
              SPOKE_ECLOSED);
    expect_rc(spoke_exporter_sync(ex, SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(spoke_exporter_drain(ex, SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(spoke_importer_sync(im, SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(spoke_importer_drain(im, SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(spoke_exporter_hangup(ex, "a"), SPOKE_ECLOSED);
    expect_rc(spoke_importer_hangup(im, "a"), SPOKE_ECLOSED);
    expect_rc(spoke_exporter_listen(ex, "inproc://x", NULL), SPOKE_ECLOSED);
    expect_rc(spoke_importer_next_error(im, &event, NULL, SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(spoke_exporter_close(NULL, 0), SPOKE_EINVAL);
    x.ex = NULL;
    x.im = NULL;
    market_close(&x);
}

Test(ports, an_engine_closes_what_is_left)
{
    struct market x;

    market_open(&x, OVER_OWNED, NULL, NULL);
    (void)export_sender(&x, "out", 8, 0);
    (void)export_receiver(&x, "in", 8, 0);
    (void)import_receiver(&x, x.im, "out", 8);
    send_numbers(&x, import_sender(&x, x.im, "in", 8), 0, 3);
    x.ex = NULL;
    x.im = NULL;
    market_close(&x);
}

/* ---- sync of one sender ---- */

Test(ports, a_sender_can_wait_until_an_importer_has_taken_all)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_receiver *rx;
        spoke_sender *tx;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "out", 64, 0);
        send_numbers(&x, tx, 0, 3);
        expect_rc(spoke_sender_sync(tx, in(&x, SPOKE_MS)), SPOKE_ETIMEDOUT);
        rx = import_receiver(&x, x.im, "out", 64);
        expect_numbers(&x, rx, 0, 2);
        expect_rc(spoke_sender_sync(tx, in(&x, 5 * SPOKE_MS)), SPOKE_ETIMEDOUT);
        expect_numbers(&x, rx, 2, 3);
        expect_rc(spoke_sender_sync(tx, soon(&x)), 0);
        close_ends(tx, rx);
        market_close(&x);
    }
}

/* ---- attachments: they go once ---- */

Test(ports, what_a_message_carries_goes_along_and_is_not_repeated)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_importer *im2;
        spoke_receiver *rx, *answers;
        spoke_sender *tx, *answer;
        spoke_msg *m;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "out", 8, 0);
        rx = import_receiver(&x, x.im, "out", 8);
        expect_rc(spoke_request(tx, number(1), &answers, NULL, soon(&x)), 0);
        expect_rc(spoke_receiver_recv(rx, &m, soon(&x)), 0);
        expect_rc(spoke_msg_take_sender(m, 0, &answer), 0);
        spoke_msg_free(m);
        send_numbers(&x, answer, 5, 6);
        expect_numbers(&x, answers, 5, 6);
        close_ends(answer, answers);
        /* This one goes with its importer, what comes behind it does not. */
        expect_rc(spoke_request(tx, number(2), &answers, NULL, soon(&x)), 0);
        send_numbers(&x, tx, 3, 4);
        await_waiting(&x, rx, 2);
        expect_rc(spoke_importer_close(x.im, 0), 0);
        x.im = NULL;
        cr_assert_lt(recv_number(answers, NULL, soon(&x)), 0);
        market_await(&x, 0, SPOKE_PORT_UNBOUND, 1);
        close_ends(NULL, rx);
        im2 = market_join(&x, NULL);
        rx = import_receiver(&x, im2, "out", 8);
        expect_numbers(&x, rx, 3, 4);
        close_ends(tx, rx);
        close_ends(NULL, answers);
        expect_rc(spoke_importer_close(im2, 0), 0);
        market_close(&x);
    }
}
