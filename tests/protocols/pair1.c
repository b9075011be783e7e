/* SPDX-License-Identifier: MIT */
/* PAIR version 1: PAIR with a word that counts who has sent a message. */
#include "tests/protocols/fixture.h"

#include "tests/support/world.h"

ON_EVERY_STREAM(pair1, speaks_the_bytes_of_the_specification)
{
    static const uint8_t hello[] = {0, 'S', 'P', 0, 0, 0x11, 0, 0};
    static const uint8_t h[] = {1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 'h'};
    spoke_socket *s = open_socket(SPOKE_PAIR1);
    char url[ENDPOINT_MAX];
    struct raw_peer p;
    size_t skip = *t == IPC ? 0 : 1; /* the type byte */

    listen_on(s, *t, url);
    cr_assert_eq(raw_connect(&p, url, RAW_LIMIT_MS), RAW_OK);
    raw_expect_bytes(&p, hello, sizeof hello);
    cr_assert_eq(raw_send_bytes(&p, hello, sizeof hello, RAW_LIMIT_MS), RAW_OK);
    send_text(s, "h");
    raw_expect_bytes(&p, h + skip, sizeof h - skip);
    cr_assert_eq(raw_send_bytes(&p, h + skip, sizeof h - skip, RAW_LIMIT_MS), RAW_OK);
    expect_text(s, "h");
    raw_close(&p);
    finish();
}

ON_EVERY_TRANSPORT(pair1, carries_messages_both_ways_in_order)
{
    static const size_t sizes[] = {0, 1, 128, 129, 5000, 100000};
    spoke_socket *a = open_socket(SPOKE_PAIR1), *b = open_socket(SPOKE_PAIR1);

    connect_sockets(a, b, *t);
    for (uint32_t i = 0; i < 600; i++) {
        size_t size = sizes[i % 6];
        spoke_socket *from = i % 2 == 0 ? a : b, *to = i % 2 == 0 ? b : a;

        cr_assert_eq(spoke_send(from, pattern_message(size, i), 0), 0);
        spoke_msg *m = recv_message(to);
        cr_assert_eq(spoke_msg_size(m), size);
        cr_assert(pattern_holds(spoke_msg_body(m), size, i));
        cr_assert_eq(spoke_msg_header_size(m), 0);
        cr_assert_eq(spoke_send(to, m, 0), 0, "the same again, as a new one");
        m = recv_message(from);
        cr_assert(pattern_holds(spoke_msg_body(m), size, i));
        spoke_msg_free(m);
    }
    finish();
}

ON_EVERY_TRANSPORT(pair1, queues_for_its_one_peer_and_keeps_what_waits_for_the_next)
{
    spoke_socket *s = open_socket(SPOKE_PAIR1), *first = open_socket(SPOKE_PAIR1),
                 *second = open_socket(SPOKE_PAIR1);
    char url[ENDPOINT_MAX];

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 3), 0);
    for (int i = 0; i < 3; i++)
        send_text(s, "early");
    spoke_msg *m = new_text("no room");
    cr_assert_eq(spoke_send(s, m, SPOKE_DONTWAIT), SPOKE_EAGAIN);
    cr_assert_eq(spoke_msg_header_size(m), 0, "a failed send changes nothing");
    spoke_msg_free(m);
    listen_on(s, *t, url);
    dial(first, url);
    for (int i = 0; i < 3; i++)
        expect_text(first, "early");
    dial(second, url);
    wait_counter(s, pipes_current, 1);
    while (stats_of(s).refused == 0)
        sleep_ms(1);
    cr_assert_eq(spoke_socket_close(first), 0);
    wait_counter(s, pipes_attached, 2);
    send_text(s, "next");
    expect_text(second, "next");
    finish();
}

ON_EVERY_TRANSPORT(pair1, does_not_talk_to_version_0)
{
    spoke_socket *one = open_socket(SPOKE_PAIR1), *zero = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];

    listen_on(one, *t, url);
    int rc = spoke_dial(zero, url, NULL, SPOKE_WAIT_FIRST);
    cr_assert(rc == SPOKE_EPEER || rc == SPOKE_EOF || rc == SPOKE_ECONNRESET, "%s",
              spoke_error_name(rc));
    cr_assert_eq(stats_of(one).pipes_attached, 0);
    finish();
}

ON_EVERY_STREAM(pair1, closes_what_is_malformed)
{
    static const uint32_t bad[] = {256, 0x01000001, 0x80000001, 0xffffffff};
    spoke_socket *s = watch_pipes(open_socket(SPOKE_PAIR1));
    char url[ENDPOINT_MAX];
    uint64_t garbled = 0;
    struct raw_peer p;

    listen_on(s, *t, url);
    for (size_t i = 0; i < 4 + sizeof bad / sizeof *bad; i++) {
        join(&p, s, url, 1);
        if (i < 4)
            cr_assert_eq(raw_send(&p, "\0\0\0", i), RAW_OK);
        else
            raw_send_word(&p, bad[i - 4], "bad");
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
        garbled++;
        wait_counter(s, garbled, garbled);
        wait_pipes(s, 0);
        raw_close(&p);
        cr_assert_eq(last_stats_of(i).garbled, 1);
    }
    join(&p, s, url, 1);
    raw_send_word(&p, 1, "good");
    expect_text(s, "good");
    raw_close(&p);
    finish();
}

ON_EVERY_STREAM(pair1, drops_what_has_come_too_far)
{
    spoke_socket *s = watch_pipes(open_socket(SPOKE_PAIR1));
    char url[ENDPOINT_MAX];
    struct raw_peer p;
    int ttl;

    listen_on(s, *t, url);
    join(&p, s, url, 1);
    raw_send_word(&p, 9, "too far");
    raw_send_word(&p, 255, "too far");
    raw_send_word(&p, 8, "just");
    expect_text(s, "just");
    cr_assert_eq(stats_of(s).dropped_ttl, 2);
    cr_assert_eq(pipe_stats_of(s, 0).dropped_ttl, 2);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, 0), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, 256), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, 255), 0);
    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_TTL, &ttl), 0);
    cr_assert_eq(ttl, 255);
    raw_send_word(&p, 255, "far");
    expect_text(s, "far");
    raw_close(&p);
    finish();
}

ON_EVERY_STREAM(pair1, raw_shows_the_word_and_sends_one_more)
{
    static const size_t sizes[] = {0, 1, 3, 5, 8, 1024};
    spoke_socket *s = open_raw(SPOKE_PAIR1);
    char url[ENDPOINT_MAX];
    struct raw_peer p;
    uint32_t word = 4, most = 255;
    spoke_msg *m;

    listen_on(s, *t, url);
    join(&p, s, url, 1);
    raw_send_word(&p, 3, "three");
    m = recv_message(s);
    cr_assert_eq(spoke_msg_header_size(m), 4);
    cr_assert_eq(header_word(m, 0), 3);
    cr_assert_eq(spoke_send(s, m, 0), 0);
    raw_expect(&p, &word, 1, "three");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        m = new_text("no");
        for (size_t j = 0; j < sizes[i]; j++)
            cr_assert_eq(spoke_msg_header_append(m, "\0", 1), 0);
        cr_assert_eq(spoke_send(s, m, 0), SPOKE_EINVAL);
        cr_assert_eq(spoke_msg_header_size(m), sizes[i]);
        spoke_msg_free(m);
    }
    m = new_with_words(&most, 1, "no");
    cr_assert_eq(spoke_send(s, m, 0), SPOKE_EINVAL, "it does not wrap");
    spoke_msg_free(m);
    cr_assert(raw_is_quiet(&p, RAW_QUIET_MS));
    raw_close(&p);
    finish();
}
