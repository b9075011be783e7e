/* SPDX-License-Identifier: MIT */
/* Peers that say what they may not: it costs the stream on which it is said, and says why; the
 * session goes on. */
#include <string.h>

#include "tests/channel/bare.h"

/* ---- a channel on which the peer sends ---- */

static spoke_stream *
accepted(struct bare *x, spoke_receiver **rx, size_t depth)
{
    spoke_channel_config config;
    spoke_stream *s = peer_opens(x, SENDS);

    spoke_channel_config_init(&config);
    config.depth = depth;
    cr_assert_eq(spoke_session_accept_receiver(x->ss, rx, &config, SPOKE_NOW), 0);
    settle(x);
    if (depth == 64)
        hears(s, ACCEPTED);
    return s;
}

static const struct {
    const char *name, *said;
    uint32_t code;
} of_senders[] = {
    {"kind 0", "00000000 00000000", SPOKE_MUX_PROTOCOL},
    {"kind 9", "09000000 00000000", SPOKE_MUX_PROTOCOL},
    {"flag 8 of a message", "03080000 00000000", SPOKE_MUX_PROTOCOL},
    {"flag 2 of a close", "06020000 00000008 0000000000000000", SPOKE_MUX_PROTOCOL},
    {"a message over 16 MiB", "03000000 01000001", SPOKE_MUX_TOO_LARGE},
    {"65 attachments", "03000041 00000000", SPOKE_MUX_LIMIT},
    {"attachments of a close", "06000001 00000008", SPOKE_MUX_PROTOCOL},
    {"a close of 7 bytes", "06000000 00000007", SPOKE_MUX_PROTOCOL},
    {"an error of 3 bytes", "07000000 00000003", SPOKE_MUX_PROTOCOL},
    {"an error with a long text", "07000000 00000105", SPOKE_MUX_PROTOCOL},
    {"an accept of its own", "01000000 0000000c 0000000000000001 00000010", SPOKE_MUX_PROTOCOL},
    {"an accept of 13 bytes", "01000000 0000000d", SPOKE_MUX_PROTOCOL},
    {"a refusal of its own", "02000000 00000004 00000001", SPOKE_MUX_PROTOCOL},
    {"credit", "04000000 00000008 0000000000000001", SPOKE_MUX_PROTOCOL},
    {"an ack", "05000000 00000008 0000000000000000", SPOKE_MUX_PROTOCOL},
    {"an end before its messages", CLOSE("01"), SPOKE_MUX_PROTOCOL},
    {"an end below them", HI CLOSE("00"), SPOKE_MUX_PROTOCOL},
    {"two ends", CLOSE("00") CLOSE("00"), SPOKE_MUX_PROTOCOL},
    {"a message after the end", HI CLOSE("01") HI, SPOKE_MUX_PROTOCOL},
    {"a sync for what was not sent", HI "08000000 00000008 0000000000000002", SPOKE_MUX_PROTOCOL},
    {"an unknown id", "03000001 00000000 01010000 00000000000000ff", SPOKE_MUX_PROTOCOL},
    {"an id of the other parity", "03000001 00000000 01010000 0000000000000002",
     SPOKE_MUX_PROTOCOL},
    {"its own id", "03000001 00000000 01010000 0000000000000001", SPOKE_MUX_PROTOCOL},
    {"kind 0 of an attachment", "03000001 00000000 00010000 0000000000000001", SPOKE_MUX_PROTOCOL},
    {"kind 5 of an attachment", "03000001 00000000 05010000 0000000000000001", SPOKE_MUX_PROTOCOL},
    {"direction 0", "03000001 00000000 01000000 0000000000000001", SPOKE_MUX_PROTOCOL},
    {"direction 3 of a channel", "03000001 00000000 01030000 0000000000000001", SPOKE_MUX_PROTOCOL},
    {"direction 4 of a stream", "03000001 00000000 02040000 0000000000000001", SPOKE_MUX_PROTOCOL},
    {"an index of a stream", "03000001 00000000 02030001 0000000000000001", SPOKE_MUX_PROTOCOL},
    {"a descriptor that is not there", "03000001 00000000 03030000 0000000000000000",
     SPOKE_MUX_PROTOCOL},
    {"a descriptor with an id", "03000001 00000000 03030000 0000000000000001", SPOKE_MUX_PROTOCOL},
};

Test(hostile_peer, who_sends)
{
    for (size_t i = 0; i < sizeof of_senders / sizeof of_senders[0]; i++) {
        struct spoke_channel_info info;
        spoke_receiver *rx;
        struct bare x;
        spoke_stream *s;
        spoke_msg *m;
        int rc;

        bare_open(&x, NULL);
        s = accepted(&x, &rx, 64);
        says(&x, s, HI);
        /* What was said before counts, too. */
        if (strstr(of_senders[i].said, HI) == of_senders[i].said ||
            strstr(of_senders[i].said, "06") == of_senders[i].said) {
            cr_assert_eq(spoke_stream_close(s), 0);
            cr_assert_eq(spoke_receiver_close(rx), 0);
            settle(&x);
            s = accepted(&x, &rx, 64);
        }
        says(&x, s, of_senders[i].said);
        hears_error(s, of_senders[i].code);
        while ((rc = spoke_receiver_recv(rx, &m, SPOKE_NOW)) == 0)
            spoke_msg_free(m);
        /* After an end in order nothing more is to be known. */
        if (rc != SPOKE_EOF)
            cr_assert_eq(rc, SPOKE_EPROTO, "%s: %s", of_senders[i].name, spoke_error_name(rc));
        cr_assert_eq(spoke_receiver_get_info(rx, &info), 0);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        cr_assert_eq(spoke_stream_close(s), 0);
        check_alive(&x);
        bare_close(&x);
    }
}

Test(hostile_peer, more_messages_than_allowed)
{
    spoke_receiver *rx;
    struct bare x;
    spoke_stream *s;

    bare_open(&x, NULL);
    s = accepted(&x, &rx, 2);
    says(&x, s, HI HI);
    says(&x, s, HI);
    hears_error(s, SPOKE_MUX_PROTOCOL);
    receive_text(rx, "hi");
    receive_text(rx, "hi");
    receive_end(rx, SPOKE_EPROTO);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_stream_close(s), 0);
    check_alive(&x);
    bare_close(&x);
}

/* The stream ends, and nobody has said so. */
Test(hostile_peer, an_end_without_a_word)
{
    static const char *const said[] = {"", HI, "0300", "03000000 00000002 68"};

    for (int i = 0; i < 4; i++) {
        spoke_receiver *rx;
        struct bare x;
        spoke_stream *s;
        spoke_msg *m;
        int rc;

        bare_open(&x, NULL);
        s = accepted(&x, &rx, 64);
        if (said[i][0] != '\0')
            says(&x, s, said[i]);
        cr_assert_eq(spoke_stream_close_write(s), 0);
        settle(&x);
        while ((rc = spoke_receiver_recv(rx, &m, SPOKE_NOW)) == 0)
            spoke_msg_free(m);
        cr_assert_eq(rc, i < 2 ? SPOKE_ECONNRESET : SPOKE_EPROTO, "%d: %s", i,
                     spoke_error_name(rc));
        cr_assert_eq(spoke_receiver_close(rx), 0);
        cr_assert_eq(spoke_stream_close(s), 0);
        check_alive(&x);
        bare_close(&x);
    }
}

/* ---- a channel on which the peer receives ---- */

static const struct {
    const char *name, *said;
} of_receivers[] = {
    {"a message", HI},
    {"an end", CLOSE("00")},
    {"a sync", "08000000 00000008 0000000000000000"},
    {"an ack of what was not sent", "05000000 00000008 0000000000000002"},
    {"an ack that falls", "05000000 00000008 0000000000000001 05000000 00000008 0000000000000000"},
    {"an accept of its own", "01000000 0000000c 0000000000000001 00000010"},
};

Test(hostile_peer, who_receives)
{
    for (size_t i = 0; i < sizeof of_receivers / sizeof of_receivers[0]; i++) {
        spoke_sender *tx;
        struct bare x;
        spoke_stream *s;
        spoke_msg *m;
        int rc;

        bare_open(&x, NULL);
        s = peer_opens(&x, RECEIVES_2);
        cr_assert_eq(spoke_session_accept_sender(x.ss, &tx, NULL, SPOKE_NOW), 0);
        must_send(tx, "hi");
        settle(&x);
        hears(s, ACCEPTED_SENDS HI);
        says(&x, s, of_receivers[i].said);
        hears_error(s, SPOKE_MUX_PROTOCOL);
        m = text_message("x");
        rc = spoke_sender_send(tx, m, SPOKE_NOW);
        cr_assert_eq(rc, SPOKE_EPROTO, "%s: %s", of_receivers[i].name, spoke_error_name(rc));
        spoke_msg_free(m);
        cr_assert_eq(spoke_sender_close(tx), 0);
        cr_assert_eq(spoke_stream_close(s), 0);
        check_alive(&x);
        bare_close(&x);
    }
}

/* It gets no more than it allows, in number and in size; credit that falls means nothing. */
Test(hostile_peer, limits_of_who_receives)
{
    spoke_sender *tx;
    struct bare x;
    spoke_stream *s;
    spoke_msg *m;

    bare_open(&x, NULL);
    s = peer_opens(&x, RECEIVES_2);
    cr_assert_eq(spoke_session_accept_sender(x.ss, &tx, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_msg_new(&m, 1025), 0);
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_NOW), SPOKE_EMSGSIZE);
    spoke_msg_free(m);
    must_send(tx, "hi");
    must_send(tx, "hi");
    m = text_message("hi");
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_NOW), SPOKE_EAGAIN);
    settle(&x);
    hears(s, ACCEPTED_SENDS HI HI);
    says(&x, s, "04000000 00000008 0000000000000001");
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_NOW), SPOKE_EAGAIN);
    says(&x, s, "04000000 00000008 0000000000000003");
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    cr_assert_eq(spoke_sender_close(tx), 0);
    settle(&x);
    hears(s, HI CLOSE("03"));
    cr_assert_eq(spoke_stream_close(s), 0);
    bare_close(&x);
}

/* ---- channels that the session opens ---- */

static spoke_stream *
peer_accepts(struct bare *x, const char *meta)
{
    uint8_t bytes[512];
    size_t size = bytes_of(meta, bytes, sizeof bytes);
    spoke_stream *s;
    spoke_msg *m;

    settle(x);
    cr_assert_eq(spoke_mux_accept(x->peer, &s, &m, SPOKE_NOW), 0);
    cr_assert_eq(spoke_msg_size(m), size);
    cr_assert_arr_eq((uint8_t *)spoke_msg_body(m), bytes, size);
    spoke_msg_free(m);
    cr_assert_eq(spoke_stream_set_deadline(s, SPOKE_NOW), 0);
    settle(x);
    return s;
}

Test(hostile_peer, answers_to_an_opening)
{
    static const struct {
        const char *said;
        int rc;
        uint32_t code;
    } answers[] = {
        {HI, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL},
        {CLOSE("00"), SPOKE_EPROTO, SPOKE_MUX_PROTOCOL},
        {ACCEPTED_SENDS ACCEPTED_SENDS, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL},
        {"02000000 00000006 00000002 6e6f", SPOKE_EREJECTED, 0},
        {"02000000 00000004 00000008", SPOKE_ETYPE, 0},
        {"07000000 00000004 00000007", SPOKE_EREJECTED, 0},
        {ACCEPTED_SENDS "07000000 00000004 00000107", SPOKE_EABORTED, 0},
        {ACCEPTED_SENDS "02000000 00000004 00000001", SPOKE_EPROTO, SPOKE_MUX_PROTOCOL},
    };

    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        spoke_receiver *rx;
        struct bare x;
        spoke_stream *s;

        bare_open(&x, NULL);
        cr_assert_eq(spoke_session_open_receiver(x.ss, &rx, NULL, NULL, SPOKE_NOW), 0);
        s = peer_accepts(&x, "a4 0001 0302 071840 081a01000000");
        says(&x, s, answers[i].said);
        receive_end(rx, answers[i].rc);
        /* Before it has accepted nothing is said, but the reset. */
        if (answers[i].code != 0 && i >= 2)
            hears_error(s, answers[i].code);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        cr_assert_eq(spoke_stream_close(s), 0);
        check_alive(&x);
        bare_close(&x);
    }
}

Test(hostile_peer, nothing_is_sent_before_it_accepts)
{
    spoke_sender *tx;
    struct bare x;
    spoke_stream *s;
    spoke_msg *m;

    bare_open(&x, NULL);
    cr_assert_eq(spoke_session_open_sender(x.ss, &tx, NULL, NULL, SPOKE_NOW), 0);
    s = peer_accepts(&x, "a2 0001 0301");
    m = text_message("hi");
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_NOW), SPOKE_EAGAIN);
    says(&x, s, "01000000 0000000c 0000000000000001 00000002");
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    m = text_message("too");
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_NOW), SPOKE_EMSGSIZE);
    spoke_msg_free(m);
    cr_assert_eq(spoke_sender_close(tx), 0);
    settle(&x);
    hears(s, HI CLOSE("01"));
    cr_assert_eq(spoke_stream_close(s), 0);
    bare_close(&x);
}

/* ---- openings ---- */

static const struct {
    const char *name, *meta;
    uint64_t code;
} openings[] = {
    {"no metadata", "", SPOKE_MUX_PROTOCOL},
    {"no map", "01", SPOKE_MUX_PROTOCOL},
    {"a map that ends", "a2 0001 03", SPOKE_MUX_PROTOCOL},
    {"something behind it", "a2 0001 0301 00", SPOKE_MUX_PROTOCOL},
    {"a long integer", "a2 00 1801 0301", SPOKE_MUX_PROTOCOL},
    {"an indefinite map", "bf 0001 0301 ff", SPOKE_MUX_PROTOCOL},
    {"a key twice", "a3 0001 0301 0301", SPOKE_MUX_PROTOCOL},
    {"keys out of order", "a2 0301 0001", SPOKE_MUX_PROTOCOL},
    {"no role", "a1 0301", SPOKE_MUX_PROTOCOL},
    {"role 0", "a2 0000 0301", SPOKE_MUX_UNSUPPORTED},
    {"role 99", "a2 00 1863 0301", SPOKE_MUX_UNSUPPORTED},
    {"a role of text", "a2 00 6131 0301", SPOKE_MUX_PROTOCOL},
    {"key 1", "a3 0001 0101 0301", SPOKE_MUX_UNSUPPORTED},
    {"key 20", "a3 0001 0301 14 01", SPOKE_MUX_UNSUPPORTED},
    {"no direction", "a1 0001", SPOKE_MUX_PROTOCOL},
    {"direction 3 of a channel", "a2 0001 0303", SPOKE_MUX_PROTOCOL},
    {"direction 4", "a2 0001 0304", SPOKE_MUX_PROTOCOL},
    {"a parent of a top-level channel", "a3 0001 0201 0301", SPOKE_MUX_PROTOCOL},
    {"a fingerprint of 31 bytes",
     "a3 0001 0301 05 581f 00000000000000000000000000000000 "
     "000000000000000000000000000000",
     SPOKE_MUX_PROTOCOL},
    {"no parent", "a2 0002 0301", SPOKE_MUX_PROTOCOL},
    {"a parent that never was", "a3 0002 02 1863 0301", SPOKE_MUX_PROTOCOL},
    {"parent 0", "a3 0002 0200 0301", SPOKE_MUX_PROTOCOL},
    {"itself as parent", "a3 0003 0201 0303", SPOKE_MUX_CANCELED},
    {"a port", "a3 0004 0301 0461 78", SPOKE_MUX_NO_SUCH_NAME},
    {"a port without a name", "a2 0004 0301", SPOKE_MUX_PROTOCOL},
    {"a name with a NUL", "a3 0004 0301 04 6100", SPOKE_MUX_PROTOCOL},
    {"an empty name", "a3 0004 0301 04 60", SPOKE_MUX_PROTOCOL},
    {"a name that is no UTF-8", "a3 0004 0301 04 61ff", SPOKE_MUX_PROTOCOL},
    {"count 0", "a4 0004 0301 0461 78 0600", SPOKE_MUX_PROTOCOL},
    {"count -2", "a4 0004 0301 0461 78 0621", SPOKE_MUX_PROTOCOL},
    {"a gateway", "a2 0005 0461 78", SPOKE_MUX_UNSUPPORTED},
};

Test(hostile_peer, what_openings_say)
{
    struct spoke_session_info info;
    struct bare x;

    bare_open(&x, NULL);
    for (size_t i = 0; i < sizeof openings / sizeof openings[0]; i++) {
        struct spoke_stream_info why;
        spoke_stream *s = peer_opens(&x, openings[i].meta);
        char c;
        size_t done;
        int rc = spoke_stream_read(s, &c, 1, &done);

        cr_assert_eq(rc, SPOKE_EREJECTED, "%s: %s", openings[i].name, spoke_error_name(rc));
        cr_assert_eq(spoke_stream_get_info(s, &why), 0);
        cr_assert_eq(why.abort_code, openings[i].code, "%s: %d", openings[i].name,
                     (int)why.abort_code);
        cr_assert_eq(spoke_stream_close(s), 0);
    }
    cr_assert_eq(spoke_session_get_info(x.ss, &info), 0);
    cr_assert_eq(info.refused, sizeof openings / sizeof openings[0]);
    check_alive(&x);
    bare_close(&x);
}

/* Keys from 64 on are others' matter, and limits are what we hold at most. */
Test(hostile_peer, openings_that_are_right)
{
    spoke_receiver *rx;
    spoke_sender *tx;
    struct bare x;
    spoke_stream *s[2];

    bare_open(&x, NULL);
    s[0] = peer_opens(&x, "a3 0001 0301 1840 82f6a10102");
    s[1] = peer_opens(&x, "a4 0001 0302 071bffffffffffffffff 081bffffffffffffffff");
    cr_assert_eq(spoke_session_accept_receiver(x.ss, &rx, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_session_accept_sender(x.ss, &tx, NULL, SPOKE_NOW), 0);
    must_send(tx, "hi");
    settle(&x);
    hears(s[1], ACCEPTED_SENDS HI);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_sender_close(tx), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_stream_close(s[i]), 0);
    bare_close(&x);
}

/* ---- what was opened for a message ---- */

static void
check_rejected(spoke_stream *s, uint64_t code)
{
    struct spoke_stream_info why;
    size_t done;
    char c;
    int rc = spoke_stream_read(s, &c, 1, &done);

    cr_assert(rc == SPOKE_EREJECTED || rc == SPOKE_EABORTED, "%s", spoke_error_name(rc));
    cr_assert_eq(spoke_stream_get_info(s, &why), 0);
    cr_assert_eq(why.abort_code, code, "%d", (int)why.abort_code);
}

Test(hostile_peer, streams_that_no_message_names)
{
    spoke_session_config config;
    struct spoke_session_info info;
    spoke_stream *s, *waiting[3];
    spoke_receiver *rx;
    struct bare x;

    spoke_session_config_init(&config);
    config.unclaimed_max = 2;
    bare_open(&x, &config);
    s = accepted(&x, &rx, 64);
    for (int i = 0; i < 3; i++)
        waiting[i] = peer_opens(&x, i == 0 ? NESTED("01") : STREAM("01"));
    cr_assert_eq(spoke_session_get_info(x.ss, &info), 0);
    cr_assert_eq(info.unclaimed, 2);
    check_rejected(waiting[2], SPOKE_MUX_LIMIT);
    for (int i = 0; i < 4; i++)
        (void)spoke_sim_run(x.w, NULL, NULL, 10 * SPOKE_SECOND);
    check_rejected(waiting[0], SPOKE_MUX_CANCELED);
    check_rejected(waiting[1], SPOKE_MUX_CANCELED);
    cr_assert_eq(spoke_session_get_info(x.ss, &info), 0);
    cr_assert_eq(info.unclaimed, 0);
    /* To name one now is no breach of the protocol. */
    says(&x, s, "03000001 00000000 01010000 0000000000000003");
    hears_error(s, SPOKE_MUX_LIMIT);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(spoke_stream_close(waiting[i]), 0);
    cr_assert_eq(spoke_stream_close(s), 0);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    check_alive(&x);
    bare_close(&x);
}

Test(hostile_peer, what_waits_ends_with_its_channel)
{
    struct spoke_session_info info;
    spoke_stream *s, *waiting;
    spoke_receiver *rx;
    struct bare x;

    bare_open(&x, NULL);
    s = accepted(&x, &rx, 64);
    waiting = peer_opens(&x, NESTED("01"));
    cr_assert_eq(spoke_receiver_close(rx), 0);
    settle(&x);
    check_rejected(waiting, SPOKE_MUX_CANCELED);
    cr_assert_eq(spoke_session_get_info(x.ss, &info), 0);
    cr_assert_eq(info.unclaimed, 0);
    cr_assert_eq(spoke_stream_close(waiting), 0);
    cr_assert_eq(spoke_stream_close(s), 0);
    check_alive(&x);
    bare_close(&x);
}

/* Named twice, as something else, or by another channel. */
Test(hostile_peer, what_messages_name)
{
    static const struct {
        const char *opened, *said;
    } wrong[] = {
        {NESTED("01"), "03000002 00000000 01010000 0000000000000003 01010000 0000000000000003"},
        {NESTED("01"), "03000001 00000000 01020000 0000000000000003"},
        {NESTED("01"), "03000001 00000000 02010000 0000000000000003"},
        {STREAM("01"), "03000001 00000000 01010000 0000000000000003"},
        {STREAM("01"), "03000001 00000000 02010000 0000000000000003"},
    };

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        spoke_stream *s, *named;
        spoke_receiver *rx;
        struct bare x;

        bare_open(&x, NULL);
        s = accepted(&x, &rx, 64);
        named = peer_opens(&x, wrong[i].opened);
        says(&x, s, wrong[i].said);
        hears_error(s, SPOKE_MUX_PROTOCOL);
        settle(&x);
        check_rejected(named, SPOKE_MUX_CANCELED);
        cr_assert_eq(spoke_stream_close(named), 0);
        cr_assert_eq(spoke_stream_close(s), 0);
        receive_end(rx, SPOKE_EPROTO);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        check_alive(&x);
        bare_close(&x);
    }
}

/* It was opened, named, and is over before the message has come: the message arrives all the same.
 */
Test(hostile_peer, what_is_named_may_be_over)
{
    spoke_stream *s, *named;
    spoke_receiver *rx, *inner;
    struct bare x;
    spoke_msg *m;

    bare_open(&x, NULL);
    s = accepted(&x, &rx, 64);
    named = peer_opens(&x, NESTED("01"));
    cr_assert_eq(spoke_stream_abort(named, 300), 0);
    settle(&x);
    says(&x, s, "03000001 00000001 01010000 0000000000000003 78");
    m = receive(rx);
    cr_assert_eq(spoke_msg_take_receiver(m, 0, &inner), 0);
    spoke_msg_free(m);
    receive_end(inner, SPOKE_EABORTED);
    cr_assert_eq(spoke_receiver_close(inner), 0);
    cr_assert_eq(spoke_stream_close(named), 0);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_stream_close(s), 0);
    bare_close(&x);
}

/* ---- bytes ---- */

/* Every byte by itself is heard as all of them at once. */
Test(hostile_peer, byte_by_byte)
{
    static const char said[] = HI "03000001 00000003 01010000 0000000000000003 616263" HI
                                  "08000000 00000008 0000000000000003" CLOSE("03");
    uint8_t bytes[256];
    size_t size = bytes_of(said, bytes, sizeof bytes), done;
    spoke_stream *s, *named;
    spoke_receiver *rx;
    struct bare x;

    bare_open(&x, NULL);
    s = accepted(&x, &rx, 64);
    named = peer_opens(&x, NESTED("01"));
    for (size_t i = 0; i < size; i++) {
        cr_assert_eq(spoke_stream_write(s, bytes + i, 1, &done), 0);
        settle(&x);
    }
    receive_text(rx, "hi");
    receive_text(rx, "abc");
    receive_text(rx, "hi");
    receive_end(rx, SPOKE_EOF);
    settle(&x);
    hears(s, "05000000 00000008 0000000000000003"); /* taken, all of them */
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_stream_close(named), 0);
    cr_assert_eq(spoke_stream_close(s), 0);
    bare_close(&x);
}

/* Messages are announced that never come: what is kept for them has a limit. */
Test(hostile_peer, promises)
{
    spoke_session_config config;
    struct spoke_session_info info;
    spoke_receiver *rx[20];
    spoke_stream *s[20];
    struct bare x;

    spoke_session_config_init(&config);
    config.memory = 2 * config.channel.max_message;
    bare_open(&x, &config);
    for (int i = 0; i < 20; i++) {
        s[i] = accepted(&x, &rx[i], 64);
        says(&x, s[i], "03000000 00f00000 01");
    }
    cr_assert_eq(spoke_session_get_info(x.ss, &info), 0);
    cr_assert_eq(info.memory, 2 * 0xf00000, "two fit");
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(spoke_receiver_close(rx[i]), 0);
        settle(&x);
        cr_assert_eq(spoke_stream_close(s[i]), 0);
    }
    settle(&x);
    bare_close(&x);
}
