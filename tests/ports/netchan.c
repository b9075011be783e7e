/* SPDX-License-Identifier: MIT */
/* The tests of Go's netchan, under their names, over everything. */
#include <string.h>

#include "tests/ports/fixture.h"

#define COUNT 10

Test(netchan, TestExportSendImportReceive)
{
    OVER_EVERYTHING(over)
    {
        spoke_port_config config;
        struct market x;
        spoke_sender *tx;
        spoke_receiver *rx;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "exportedSend", COUNT, 0);
        spoke_port_config_init(&config);
        config.size = 3;
        config.count = COUNT;
        expect_rc(
            spoke_importer_import_receiver(x.im, "exportedSend", NULL, &config, &rx, soon(&x)), 0);
        send_numbers(&x, tx, 0, COUNT);
        expect_numbers(&x, rx, 0, COUNT);
        expect_rc(recv_number(rx, NULL, soon(&x)), SPOKE_EOF); /* that was the count */
        expect_rc(spoke_sender_close(tx), 0);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}

Test(netchan, TestExportReceiveImportSend)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_sender *tx;
        spoke_receiver *rx;

        market_open(&x, (enum over)over, NULL, NULL);
        rx = export_receiver(&x, "exportedRecv", COUNT, 0);
        tx = import_sender(&x, x.im, "exportedRecv", COUNT);
        send_numbers(&x, tx, 0, COUNT);
        expect_numbers(&x, rx, 0, COUNT);
        expect_rc(spoke_sender_close(tx), 0);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}

Test(netchan, TestClosingExportSendImportReceive)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_sender *tx;
        spoke_receiver *rx;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "exportedSend", COUNT, 0);
        rx = import_receiver(&x, x.im, "exportedSend", 3);
        send_numbers(&x, tx, 0, COUNT / 2);
        expect_rc(spoke_sender_close(tx), 0);
        expect_numbers(&x, rx, 0, COUNT / 2);
        expect_rc(recv_number(rx, NULL, soon(&x)), SPOKE_EOF);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}

Test(netchan, TestClosingImportSendExportReceive)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_sender *tx;
        spoke_receiver *rx;

        market_open(&x, (enum over)over, NULL, NULL);
        rx = export_receiver(&x, "exportedRecv", COUNT, SPOKE_PORT_END_WITH_FIRST);
        tx = import_sender(&x, x.im, "exportedRecv", 3);
        send_numbers(&x, tx, 0, COUNT / 2);
        expect_rc(spoke_sender_close(tx), 0);
        expect_numbers(&x, rx, 0, COUNT / 2);
        expect_rc(recv_number(rx, NULL, soon(&x)), SPOKE_EOF);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}

Test(netchan, TestErrorForIllegalChannel)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_receiver *rx;
        struct spoke_port_event event;

        market_open(&x, (enum over)over, NULL, NULL);
        expect_rc(spoke_importer_import_receiver(x.im, "notAChannel", NULL, NULL, &rx, soon(&x)),
                  SPOKE_ENOENT);
        cr_assert_null(rx);
        event = market_event(&x, 0, SPOKE_PORT_REFUSED);
        cr_assert_str_eq(event.name, "notAChannel");
        event = market_event(&x, 1, SPOKE_PORT_REFUSED);
        cr_assert_not_null(strstr(event.text, "no such channel"), "%s", event.text);
        /* The call has given it: it does not wait to be asked for. */
        expect_rc(spoke_importer_next_error(x.im, &event, NULL, SPOKE_NOW), SPOKE_EAGAIN);
        market_close(&x);
    }
}

Test(netchan, TestExportDrain)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_sender *tx;
        spoke_receiver *rx;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "exportedSend", COUNT, 0);
        rx = import_receiver(&x, x.im, "exportedSend", 1);
        send_numbers(&x, tx, 0, COUNT);
        expect_rc(spoke_exporter_drain(x.ex, SPOKE_NOW), SPOKE_EAGAIN);
        expect_rc(spoke_exporter_drain(x.ex, in(&x, SPOKE_MS)), SPOKE_ETIMEDOUT);
        expect_numbers(&x, rx, 0, COUNT);
        expect_rc(spoke_exporter_drain(x.ex, SPOKE_FOREVER), 0);
        expect_rc(spoke_sender_close(tx), 0);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}

Test(netchan, TestImportDrain)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_sender *tx;
        spoke_receiver *rx;

        market_open(&x, (enum over)over, NULL, NULL);
        rx = export_receiver(&x, "exportedRecv", 1, 0);
        tx = import_sender(&x, x.im, "exportedRecv", COUNT);
        send_numbers(&x, tx, 0, COUNT);
        expect_rc(spoke_importer_drain(x.im, in(&x, SPOKE_MS)), SPOKE_ETIMEDOUT);
        expect_numbers(&x, rx, 0, COUNT);
        expect_rc(spoke_importer_drain(x.im, SPOKE_FOREVER), 0);
        expect_rc(spoke_sender_close(tx), 0);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}

/* Some have come to the importer, and nobody has taken them. */
static bool
some_are_given(struct market *x, void *rx)
{
    struct spoke_channel_info info;

    (void)x;
    return spoke_receiver_get_info(rx, &info) == 0 && info.waiting > 0;
}

Test(netchan, TestExportSync)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_sender *tx;
        spoke_receiver *rx;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "exportedSend", COUNT, 0);
        expect_rc(spoke_exporter_sync(x.ex, SPOKE_FOREVER), 0); /* nobody was given anything */
        send_numbers(&x, tx, 0, COUNT);
        expect_rc(spoke_exporter_sync(x.ex, SPOKE_FOREVER), 0);
        rx = import_receiver(&x, x.im, "exportedSend", 3);
        expect_numbers(&x, rx, 0, COUNT / 2);
        cr_assert(market_until(&x, some_are_given, rx));
        expect_rc(spoke_exporter_sync(x.ex, in(&x, SPOKE_MS)), SPOKE_ETIMEDOUT);
        expect_numbers(&x, rx, COUNT / 2, COUNT);
        expect_rc(spoke_exporter_sync(x.ex, SPOKE_FOREVER), 0);
        expect_rc(spoke_sender_close(tx), 0);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}

Test(netchan, TestExportHangup)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_sender *tx;
        spoke_receiver *rx;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "exportedSend", COUNT, 0);
        rx = import_receiver(&x, x.im, "exportedSend", COUNT);
        send_numbers(&x, tx, 0, 1);
        expect_numbers(&x, rx, 0, 1);
        expect_rc(spoke_exporter_hangup(x.ex, "nobody"), SPOKE_ENOENT);
        expect_rc(spoke_exporter_hangup(x.ex, "exportedSend"), 0);
        expect_rc(send_number(tx, 1, soon(&x)), SPOKE_EPEERCLOSED);
        expect_rc(recv_number(rx, NULL, soon(&x)), SPOKE_EOF);
        expect_rc(spoke_exporter_hangup(x.ex, "exportedSend"), SPOKE_ENOENT);
        expect_rc(spoke_sender_close(tx), 0);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}

Test(netchan, TestImportHangup)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_sender *tx;
        spoke_receiver *rx;

        market_open(&x, (enum over)over, NULL, NULL);
        rx = export_receiver(&x, "exportedRecv", COUNT, SPOKE_PORT_END_WITH_FIRST);
        tx = import_sender(&x, x.im, "exportedRecv", COUNT);
        send_numbers(&x, tx, 0, 1);
        expect_numbers(&x, rx, 0, 1);
        expect_rc(spoke_importer_hangup(x.im, "nobody"), SPOKE_ENOENT);
        expect_rc(spoke_importer_hangup(x.im, "exportedRecv"), 0);
        expect_rc(send_number(tx, 1, soon(&x)), SPOKE_EPEERCLOSED);
        expect_rc(recv_number(rx, NULL, soon(&x)), SPOKE_EOF);
        expect_rc(spoke_sender_close(tx), 0);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}

Test(netchan, TestIndependentSends)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_sender *piled, *other;
        spoke_receiver *unread, *rx;

        market_open(&x, (enum over)over, NULL, NULL);
        piled = export_sender(&x, "exportedSend", 1, 0);
        other = export_sender(&x, "unblocker", 1, 0);
        unread = import_receiver(&x, x.im, "exportedSend", 1);
        rx = import_receiver(&x, x.im, "unblocker", 1);
        send_numbers(&x, piled, 0, 2);
        for (uint64_t n = 2; send_number(piled, n, in(&x, 50 * SPOKE_MS)) == 0; n++) {
        }
        send_numbers(&x, other, 0, 1);
        expect_numbers(&x, rx, 0, 1);
        expect_numbers(&x, unread, 0, 2);
        expect_rc(spoke_sender_close(piled), 0);
        expect_rc(spoke_sender_close(other), 0);
        expect_rc(spoke_receiver_close(unread), 0);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}

/* Two pairs, each the exporter of one name and the importer of the other's, with values. */
#define VALUE(FIELD, S)                                                                            \
    FIELD(S, I64, I)                                                                               \
    FIELD(S, TEXT, Source)
SPOKE_STRUCT(value, VALUE);
SPOKE_STRUCT_TYPE(value, VALUE);

static void
send_value(struct market *x, spoke_sender *tx, int64_t i, const char *source)
{
    struct value v = {.I = i, .Source = {source, strlen(source)}};

    expect_rc(spoke_sender_send_value(tx, &v, NULL, soon(x)), 0);
}

static void
expect_value(struct market *x, spoke_receiver *rx, int64_t i, const char *source)
{
    spoke_backing backing;
    struct value v;

    expect_rc(spoke_receiver_recv_value(rx, &v, &backing, soon(x)), 0);
    cr_assert_eq(v.I, i);
    cr_assert(v.Source.size == strlen(source) && memcmp(v.Source.data, source, v.Source.size) == 0);
    spoke_backing_free(&backing);
}

Test(netchan, TestCrossConnect)
{
    expect_rc(spoke_type_check(&value_type), 0);
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_exporter *ex2;
        spoke_importer *im2;
        spoke_stream *a, *b;
        spoke_sender *tx1, *tx2;
        spoke_receiver *rx1, *rx2;

        market_open(&x, (enum over)over, NULL, NULL);
        expect_rc(spoke_exporter_open(&ex2, NULL, x.e[1]), 0);
        expect_rc(spoke_stream_pair(&a, &b, NULL, x.e[1]), 0);
        expect_rc(spoke_exporter_serve_stream(ex2, a), 0);
        expect_rc(spoke_importer_open(&im2, b, NULL), 0);
        expect_rc(spoke_exporter_export_sender(x.ex, "exportedSend", &value_type, NULL, &tx1), 0);
        expect_rc(spoke_exporter_export_receiver(ex2, "exportedRecv", &value_type, NULL, &rx2), 0);
        expect_rc(
            spoke_importer_import_receiver(x.im, "exportedSend", &value_type, NULL, &rx1, soon(&x)),
            0);
        expect_rc(
            spoke_importer_import_sender(im2, "exportedRecv", &value_type, NULL, &tx2, soon(&x)),
            0);
        for (int i = 0; i < COUNT; i++) {
            send_value(&x, tx1, i, "export");
            send_value(&x, tx2, i, "import");
        }
        for (int i = 0; i < COUNT; i++) {
            expect_value(&x, rx2, i, "import");
            expect_value(&x, rx1, i, "export");
        }
        expect_rc(spoke_sender_close(tx1), 0);
        expect_rc(spoke_sender_close(tx2), 0);
        expect_rc(spoke_receiver_close(rx1), 0);
        expect_rc(spoke_receiver_close(rx2), 0);
        expect_rc(spoke_importer_close(im2, 0), 0);
        expect_rc(spoke_exporter_close(ex2, 0), 0);
        market_close(&x);
    }
}

/* A sender is held up after what both ends have room for; then all arrive in order. */
static void
flow(struct market *x, spoke_sender *tx, spoke_receiver *rx, uint64_t most)
{
    const uint64_t count = 100;
    uint64_t sent = 0, received = 0;

    while (sent < count && send_number(tx, sent, in(x, 100 * SPOKE_MS)) == 0)
        sent++;
    cr_assert(sent < count && sent <= most, "%d: sent %d", x->over, (int)sent);
    while (received < count) {
        expect_numbers(x, rx, received, received + 1);
        received++;
        while (sent < count && send_number(tx, sent, SPOKE_NOW) == 0)
            sent++;
    }
    expect_rc(spoke_sender_close(tx), 0);
    expect_rc(spoke_receiver_close(rx), 0);
}

Test(netchan, TestExportFlowControl)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_sender *tx;

        market_open(&x, (enum over)over, NULL, NULL);
        tx = export_sender(&x, "exportedSend", 20, 0);
        flow(&x, tx, import_receiver(&x, x.im, "exportedSend", 20), 40);
        market_close(&x);
    }
}

Test(netchan, TestImportFlowControl)
{
    OVER_EVERYTHING(over)
    {
        struct market x;
        spoke_receiver *rx;

        market_open(&x, (enum over)over, NULL, NULL);
        rx = export_receiver(&x, "exportedRecv", 3, 0);
        flow(&x, import_sender(&x, x.im, "exportedRecv", 3), rx, 9);
        market_close(&x);
    }
}
