/* SPDX-License-Identifier: MIT */
/* Values of a type in channels inside the process. */
#include "tests/channel/pair_fixture.h"

#include <string.h>

#include "protocols/channel/channel.h"

#define LINE(FIELD, S)                                                                             \
    FIELD(S, I64, number)                                                                          \
    FIELD(S, TEXT, text)
SPOKE_STRUCT(line, LINE);
SPOKE_STRUCT_TYPE(line, LINE);

#define POINT(FIELD, S)                                                                            \
    FIELD(S, I32, x)                                                                               \
    FIELD(S, BOOL, set)
SPOKE_STRUCT(point, POINT);
SPOKE_STRUCT_TYPE(point, POINT);

/* The same type as `point`, laid out otherwise. */
struct wide_point {
    int64_t other;
    bool set;
    int32_t x;
};
static spoke_field wide_fields[] = {SPOKE_FIELD(struct wide_point, I32, x),
                                    SPOKE_FIELD(struct wide_point, BOOL, set)};
static spoke_value_type wide_type = SPOKE_TYPE_OF(struct wide_point, wide_fields);

#define NOTE(FIELD, S)                                                                             \
    FIELD(S, TEXT, text)                                                                           \
    FIELD(S, I64, number)
SPOKE_STRUCT(note, NOTE);
SPOKE_STRUCT_TYPE(note, NOTE);

#define QUESTION(FIELD, S)                                                                         \
    FIELD(S, TEXT, text)                                                                           \
    FIELD(S, SENDER(line), answer)
SPOKE_STRUCT(question, QUESTION);
SPOKE_STRUCT_TYPE(question, QUESTION);

static void
check_types(void)
{
    expect_rc(spoke_type_check(&line_type), 0);
    expect_rc(spoke_type_check(&point_type), 0);
    expect_rc(spoke_type_check(&wide_type), 0);
    expect_rc(spoke_type_check(&note_type), 0);
    expect_rc(spoke_type_check(&question_type), 0);
}

TestSuite(channel_values, .init = check_types);

static void
typed_pair(struct yard *y, const spoke_value_type *type, spoke_sender **tx, spoke_receiver **rx)
{
    spoke_channel_config config;

    spoke_channel_config_init(&config);
    config.type = type;
    expect_rc(spoke_channel_pair(rx, tx, &config, y->e), 0);
}

static spoke_text
text_of(const char *text)
{
    return (spoke_text){text, strlen(text)};
}

WAY_TEST(channel_values, go_through, ways)
{
    struct line in = {5, text_of("export")}, out;
    spoke_backing backing;
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, *way);
    typed_pair(&y, &line_type, &tx, &rx);
    expect_rc(spoke_receiver_recv_value(rx, &out, &backing, SPOKE_NOW), SPOKE_EAGAIN);
    expect_rc(spoke_sender_send_value(tx, &in, NULL, SPOKE_NOW), 0);
    expect_rc(spoke_receiver_recv_value(rx, &out, &backing, SPOKE_NOW), 0);
    cr_assert_eq(out.number, 5);
    cr_assert(out.text.size == 6 && memcmp(out.text.data, "export", 6) == 0);
    spoke_backing_free(&backing);
    in.text = (spoke_text){"\xff", 1};
    expect_rc(spoke_sender_send_value(tx, &in, NULL, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_sender_send_value(tx, NULL, NULL, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_sender_send_value(tx, &in, NULL, -1), SPOKE_EINVAL);
    expect_rc(spoke_receiver_recv_value(rx, NULL, &backing, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_receiver_recv_value(rx, &out, NULL, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_sender_close(tx), 0);
    expect_rc(spoke_receiver_recv_value(rx, &out, &backing, SPOKE_FOREVER), SPOKE_EOF);
    expect_rc(spoke_receiver_close(rx), 0);
    yard_close(&y);
}

/* As they lie in memory, padding left out of it. */
WAY_TEST(channel_values, go_as_they_lie_in_memory, ways)
{
    struct point in, out;
    spoke_backing backing;
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m;

    yard_open(&y, *way);
    typed_pair(&y, &point_type, &tx, &rx);
    memset(&in, 0xff, sizeof in);
    in.x = -7;
    in.set = true;
    expect_rc(spoke_sender_send_value(tx, &in, NULL, SPOKE_NOW), 0);
    expect_rc(spoke_sender_send_value(tx, &in, NULL, SPOKE_NOW), 0);
    expect_rc(spoke_receiver_recv(rx, &m, SPOKE_NOW), 0);
    cr_assert_eq(spoke_msg_size(m), sizeof in);
    spoke_msg_free(m);
    expect_rc(spoke_receiver_recv_value(rx, &out, &backing, SPOKE_NOW), 0);
    cr_assert(out.x == -7 && out.set);
    spoke_backing_free(&backing);
    expect_rc(spoke_receiver_set_type(rx, &point_type), 0);
    expect_rc(spoke_receiver_set_type(rx, &wide_type), SPOKE_ETYPE);
    expect_rc(spoke_sender_set_type(tx, &wide_type), SPOKE_ETYPE);
    close_pair(tx, rx);
    yard_close(&y);
}

WAY_TEST(channel_values, need_one_type, ways)
{
    static spoke_value_type unchecked;
    struct line line = {1, text_of("x")};
    spoke_backing backing;
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    expect_rc(spoke_sender_send_value(tx, &line, NULL, SPOKE_NOW), SPOKE_ETYPE);
    expect_rc(spoke_receiver_recv_value(rx, &line, &backing, SPOKE_NOW), SPOKE_ETYPE);
    expect_rc(spoke_sender_set_type(tx, NULL), SPOKE_EINVAL);
    expect_rc(spoke_sender_set_type(tx, &unchecked), SPOKE_EINVAL);
    expect_rc(spoke_sender_set_type(tx, &line_type), 0);
    /* Whoever is first says what it is. */
    expect_rc(spoke_receiver_set_type(rx, &note_type), SPOKE_ETYPE);
    expect_rc(spoke_sender_set_type(tx, &note_type), SPOKE_ETYPE);
    expect_rc(spoke_receiver_recv_value(rx, &line, &backing, SPOKE_NOW), SPOKE_ETYPE);
    expect_rc(spoke_receiver_set_type(rx, &line_type), 0);
    line = (struct line){1, text_of("x")};
    expect_rc(spoke_sender_send_value(tx, &line, NULL, SPOKE_NOW), 0);
    expect_rc(spoke_receiver_recv_value(rx, &line, &backing, SPOKE_NOW), 0);
    cr_assert_eq(line.number, 1);
    spoke_backing_free(&backing);
    close_pair(tx, rx);
    yard_close(&y);
}

/* Each side has its own C type for the same values. */
WAY_TEST(channel_values, each_end_has_its_own_table, ways)
{
    struct point in = {3, true};
    struct wide_point out;
    spoke_backing backing;
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    expect_rc(spoke_sender_set_type(tx, &point_type), 0);
    expect_rc(spoke_receiver_set_type(rx, &wide_type), 0);
    expect_rc(spoke_sender_send_value(tx, &in, NULL, SPOKE_NOW), 0);
    expect_rc(spoke_receiver_recv_value(rx, &out, &backing, SPOKE_NOW), 0);
    cr_assert(out.x == 3 && out.set && out.other == 0);
    spoke_backing_free(&backing);
    close_pair(tx, rx);
    yard_close(&y);
}

/* What is no value ends the channel on both sides, also where all of it had been sent. */
static void
malformed(enum way way, bool closes_first)
{
    struct line line = {1, text_of("x")};
    struct spoke_channel_info info;
    spoke_backing backing;
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, way);
    typed_pair(&y, &line_type, &tx, &rx);
    expect_rc(send_text(tx, "no value", SPOKE_NOW), 0);
    expect_rc(spoke_sender_send_value(tx, &line, NULL, SPOKE_NOW), 0);
    if (closes_first)
        expect_rc(spoke_sender_close(tx), 0);
    expect_rc(spoke_receiver_recv_value(rx, &line, &backing, SPOKE_NOW), SPOKE_EDECODE);
    for (int i = 0; i < 2; i++) {
        expect_rc(spoke_receiver_recv_value(rx, &line, &backing, SPOKE_FOREVER), SPOKE_EDECODE);
        expect_rc(recv_nothing(rx, SPOKE_FOREVER), SPOKE_EDECODE);
    }
    expect_rc(spoke_receiver_get_info(rx, &info), 0);
    cr_assert_eq(info.end, SPOKE_EDECODE);
    if (!closes_first) {
        expect_rc(send_text(tx, "x", SPOKE_FOREVER), SPOKE_EABORTED);
        expect_rc(spoke_sender_sync(tx, SPOKE_FOREVER), SPOKE_EABORTED);
        expect_rc(spoke_sender_get_info(tx, &info), 0);
        cr_assert_eq(info.end, SPOKE_EABORTED);
        cr_assert_eq(info.abort_code, SPOKE_MUX_DECODE);
        cr_assert_neq(info.text[0], '\0');
        cr_assert_eq(info.sent, 2);
        cr_assert_eq(info.taken, 1);
    }
    close_pair(tx, rx);
    yard_close(&y);
}

WAY_TEST(channel_values, what_is_none_ends_the_channel, ways)
{
    malformed(*way, false);
    malformed(*way, true);
}

WAY_TEST(channel_values, name_what_is_attached, ways)
{
    struct question question = {text_of("what?"), 0};
    struct line line = {42, text_of("this")};
    spoke_sender *tx, *answer;
    spoke_receiver *rx, *answers;
    spoke_backing backing;
    struct yard y;
    spoke_msg *m, *other;

    yard_open(&y, *way);
    typed_pair(&y, &question_type, &tx, &rx);
    typed_pair(&y, &line_type, &answer, &answers);
    expect_rc(spoke_sender_send_value(tx, &question, NULL, SPOKE_NOW), SPOKE_EINVAL);
    m = message("");
    expect_rc(spoke_msg_attach_sender(m, answer), 0);
    other = spoke_msg_dup(m);
    expect_rc(spoke_sender_send_value(tx, &question, m, SPOKE_NOW), SPOKE_ESHARED);
    spoke_msg_free(other);
    question.answer = 1;
    expect_rc(spoke_sender_send_value(tx, &question, m, SPOKE_NOW), SPOKE_EINVAL);
    cr_assert_eq(spoke_msg_attachments(m), 1, "it is the caller's, as it was");
    question.answer = 0;
    expect_rc(spoke_sender_send_value(tx, &question, m, SPOKE_NOW), 0);
    memset(&question, 0, sizeof question);
    expect_rc(spoke_receiver_recv_value(rx, &question, &backing, SPOKE_NOW), 0);
    expect_rc(spoke_msg_take_sender(backing.message, question.answer, &answer), 0);
    spoke_backing_free(&backing);
    expect_rc(spoke_sender_send_value(answer, &line, NULL, SPOKE_NOW), 0);
    expect_rc(spoke_receiver_recv_value(answers, &line, &backing, SPOKE_NOW), 0);
    cr_assert_eq(line.number, 42);
    spoke_backing_free(&backing);
    close_pair(answer, answers);

    /* No room: all of it is still there. */
    question = (struct question){text_of("what?"), 0};
    for (;;) {
        typed_pair(&y, &line_type, &answer, &answers);
        m = message("");
        expect_rc(spoke_msg_attach_sender(m, answer), 0);
        int rc = spoke_sender_send_value(tx, &question, m, SPOKE_NOW);
        if (rc != 0) {
            expect_rc(rc, SPOKE_EAGAIN);
            break;
        }
        expect_rc(spoke_receiver_close(answers), 0);
    }
    expect_rc(spoke_msg_take_sender(m, 0, &answer), 0);
    spoke_msg_free(m);
    close_pair(answer, answers);
    close_pair(tx, rx);
    yard_settle(&y);
    yard_close(&y);
}
