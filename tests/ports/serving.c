/* SPDX-License-Identifier: MIT */
/* Exporters on listeners that others have made. */
#include "tests/ports/fixture.h"

static spoke_msg *
message(void)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_from(&m, "x", 1), 0);
    return m;
}

/* It takes the listener, and closes it.  What an importer sends can be waited for. */
Test(serving, on_a_listener_that_is_there)
{
    spoke_stream_listener *l;
    spoke_exporter *ex;
    spoke_importer *im;
    spoke_receiver *rx;
    spoke_sender *tx;
    spoke_stream *s;
    spoke_msg *m;
    const char *const url = "inproc://ports-serving";
    const spoke_ns late = spoke_engine_now(NULL) + 30 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN;

    cr_assert_eq(spoke_exporter_open(&ex, NULL, NULL), 0);
    cr_assert_eq(spoke_exporter_export_receiver(ex, "in", NULL, NULL, &rx), 0);
    cr_assert_eq(spoke_stream_listen(&l, url, NULL, NULL), 0);
    cr_assert_eq(spoke_exporter_serve(ex, l), 0);
    cr_assert_eq(spoke_importer_dial(&im, url, NULL, NULL, late), 0);
    cr_assert_eq(spoke_importer_import_sender(im, "in", NULL, NULL, &tx, late), 0);
    cr_assert_eq(spoke_importer_sync(im, SPOKE_NOW), 0, "nothing was sent");
    cr_assert_eq(spoke_sender_send(tx, message(), late), 0);
    cr_assert_eq(spoke_importer_sync(im, SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_eq(spoke_importer_sync(im, spoke_engine_now(NULL) + SPOKE_MS), SPOKE_ETIMEDOUT);
    cr_assert_eq(spoke_receiver_recv(rx, &m, late), 0);
    cr_assert_eq(spoke_msg_size(m), 1);
    spoke_msg_free(m);
    cr_assert_eq(spoke_importer_sync(im, late), 0);
    cr_assert_eq(spoke_sender_close(tx), 0);
    cr_assert_eq(spoke_importer_close(im, 20 * SPOKE_SECOND), 0);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_exporter_close(ex, 0), 0);
    cr_assert_eq(spoke_stream_dial(&s, url, NULL, NULL, late), SPOKE_ECONNREFUSED);
}
