/* SPDX-License-Identifier: MIT */
/* Types of channels over sessions: who has another is refused, and what has a layout goes as it is.
 */
#include <string.h>

#include "tests/channel/sessions.h"

#define POINT(FIELD, S)                                                                            \
    FIELD(S, I32, x)                                                                               \
    FIELD(S, I32, y)
SPOKE_STRUCT(point, POINT);
SPOKE_STRUCT_TYPE(point, POINT);

#define NOTE(FIELD, S)                                                                             \
    FIELD(S, TEXT, title)                                                                          \
    FIELD(S, SENDER(point), answer)
SPOKE_STRUCT(note, NOTE);
SPOKE_STRUCT_TYPE(note, NOTE);

static spoke_channel_config
of_type(spoke_value_type *type)
{
    spoke_channel_config config;

    cr_assert_eq(spoke_type_check(type), 0);
    spoke_channel_config_init(&config);
    config.type = type;
    return config;
}

/* How large they are tells how they came. */
static void
send_points(struct sessions *x, spoke_sender *tx, spoke_receiver *rx, size_t size)
{
    struct point p = {.x = 3, .y = -4};
    spoke_backing backing;
    spoke_msg *m;

    cr_assert_eq(spoke_sender_send_value(tx, &p, NULL, soon(x)), 0);
    cr_assert_eq(spoke_sender_send_value(tx, &p, NULL, soon(x)), 0);
    memset(&p, 0, sizeof p);
    cr_assert_eq(spoke_receiver_recv_value(rx, &p, &backing, soon(x)), 0);
    cr_assert(p.x == 3 && p.y == -4);
    spoke_backing_free(&backing);
    m = receive(rx);
    cr_assert_eq(spoke_msg_size(m), size);
    spoke_msg_free(m);
}

Test(typed_session, values)
{
    const spoke_channel_config config = of_type(&point_type);

    OVER_EVERYTHING(over)
    {
        struct sessions x;
        spoke_sender *tx;
        spoke_receiver *rx;

        /* Both have the type: the bytes of the struct. */
        sessions_open(&x, (enum over)over, NULL);
        cr_assert_eq(spoke_session_open_receiver(x.a, &rx, &config, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_session_accept_sender(x.b, &tx, &config, soon(&x)), 0);
        send_points(&x, tx, rx, sizeof(struct point));
        cr_assert_eq(spoke_sender_close(tx), 0);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        /* One says none, and learns it later: encoded. */
        cr_assert_eq(spoke_session_open_receiver(x.a, &rx, &config, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_session_accept_sender(x.b, &tx, NULL, soon(&x)), 0);
        cr_assert_eq(spoke_sender_set_type(tx, &point_type), 0);
        send_points(&x, tx, rx, 3);
        cr_assert_eq(spoke_sender_close(tx), 0);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        sessions_close(&x);
    }
}

Test(typed_session, another_type)
{
    const spoke_channel_config points = of_type(&point_type), notes = of_type(&note_type);
    struct sessions x;
    spoke_sender *tx, *right;
    spoke_receiver *rx;
    spoke_msg *m;
    int rc;

    sessions_open(&x, OVER_TCP, NULL);
    cr_assert_eq(spoke_session_open_sender(x.a, &tx, &points, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_session_open_sender(x.a, &right, &notes, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_session_accept_receiver(x.b, &rx, &notes, soon(&x)), 0);
    m = text_message("x");
    rc = spoke_sender_send(tx, m, soon(&x));
    cr_assert_eq(rc, SPOKE_ETYPE, "%s", spoke_error_name(rc));
    spoke_msg_free(m);
    cr_assert_eq(spoke_sender_close(tx), 0);
    cr_assert_eq(spoke_sender_close(right), 0);
    receive_end(rx, SPOKE_EOF);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    sessions_close(&x);
}

/* A value that names a channel, which has the type that the value says. */
Test(typed_session, a_channel_in_a_value)
{
    const spoke_channel_config notes = of_type(&note_type), points = of_type(&point_type);
    struct note n = {.title = spoke_text_of("where?"), .answer = 0};
    struct point p = {.x = 1, .y = 2};
    struct sessions x;
    spoke_sender *tx, *answer;
    spoke_receiver *rx, *answers;
    spoke_backing backing;
    spoke_msg *m;

    sessions_open(&x, OVER_IPC, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, &notes);
    cr_assert_eq(spoke_receiver_set_type(rx, &note_type), 0);
    cr_assert_eq(spoke_channel_pair(&answers, &answer, &points, NULL), 0);
    /* What was sent before the end went over goes as it was. */
    cr_assert_eq(spoke_sender_send_value(answer, &p, NULL, SPOKE_NOW), 0);
    m = text_message("");
    cr_assert_eq(spoke_msg_attach_sender(m, answer), 0);
    cr_assert_eq(spoke_sender_send_value(tx, &n, m, soon(&x)), 0);
    memset(&n, 0, sizeof n);
    cr_assert_eq(spoke_receiver_recv_value(rx, &n, &backing, soon(&x)), 0);
    cr_assert_eq(n.title.size, 6);
    cr_assert_eq(spoke_msg_take_sender(backing.message, n.answer, &answer), 0);
    spoke_backing_free(&backing);
    cr_assert_eq(spoke_sender_set_type(answer, &note_type), SPOKE_ETYPE);
    cr_assert_eq(spoke_sender_set_type(answer, &point_type), 0);
    cr_assert_eq(spoke_sender_send_value(answer, &p, NULL, soon(&x)), 0);
    for (int i = 0; i < 2; i++) {
        memset(&p, 0, sizeof p);
        cr_assert_eq(spoke_receiver_recv_value(answers, &p, &backing, soon(&x)), 0);
        cr_assert(p.x == 1 && p.y == 2);
        spoke_backing_free(&backing);
    }
    cr_assert_eq(spoke_sender_close(answer), 0);
    receive_end(answers, SPOKE_EOF);
    cr_assert_eq(spoke_receiver_close(answers), 0);
    cr_assert_eq(spoke_sender_close(tx), 0);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    sessions_close(&x);
}

/* What was queued in layout form before its receiver went over a session. */
Test(typed_session, a_receiver_with_values_in_it)
{
    const spoke_channel_config points = of_type(&point_type);
    struct point p = {.x = 1, .y = 2};
    struct sessions x;
    spoke_sender *tx, *inner_tx;
    spoke_receiver *rx, *inner_rx;
    spoke_backing backing;
    spoke_msg *m = text_message("");

    sessions_open(&x, OVER_TCP, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    cr_assert_eq(spoke_channel_pair(&inner_rx, &inner_tx, &points, NULL), 0);
    cr_assert_eq(spoke_sender_send_value(inner_tx, &p, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_msg_attach_receiver(m, inner_rx), 0);
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_FOREVER), 0);
    m = receive(rx);
    cr_assert_eq(spoke_msg_take_receiver(m, 0, &inner_rx), 0);
    spoke_msg_free(m);
    cr_assert_eq(spoke_receiver_set_type(inner_rx, &point_type), 0);
    cr_assert_eq(spoke_sender_send_value(inner_tx, &p, NULL, soon(&x)), 0);
    for (int i = 0; i < 2; i++) {
        memset(&p, 0, sizeof p);
        cr_assert_eq(spoke_receiver_recv_value(inner_rx, &p, &backing, soon(&x)), 0);
        cr_assert(p.x == 1 && p.y == 2);
        spoke_backing_free(&backing);
    }
    cr_assert_eq(spoke_sender_close(inner_tx), 0);
    cr_assert_eq(spoke_receiver_close(inner_rx), 0);
    cr_assert_eq(spoke_sender_close(tx), 0);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    sessions_close(&x);
}

/* A message that is no value costs the channel, at both ends. */
Test(typed_session, no_value)
{
    const spoke_channel_config points = of_type(&point_type);
    struct spoke_channel_info info;
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_backing backing;
    struct point p;
    int rc;

    sessions_open(&x, OVER_TCP, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    cr_assert_eq(spoke_receiver_set_type(rx, points.type), 0);
    must_send(tx, "no point");
    cr_assert_eq(spoke_receiver_recv_value(rx, &p, &backing, soon(&x)), SPOKE_EDECODE);
    do {
        spoke_msg *m = text_message("x");

        if ((rc = spoke_sender_send(tx, m, soon(&x))) != 0)
            spoke_msg_free(m);
    } while (rc == 0);
    cr_assert_eq(rc, SPOKE_EABORTED);
    cr_assert_eq(spoke_sender_get_info(tx, &info), 0);
    cr_assert_eq(info.abort_code, SPOKE_MUX_DECODE);
    cr_assert_eq(spoke_sender_close(tx), 0);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    sessions_close(&x);
}
