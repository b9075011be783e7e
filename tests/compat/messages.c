/* SPDX-License-Identifier: MIT */
/* Messages without a copy, in parts, and with control data. */
#include "tests/compat/fixture.h"

#include <signal.h>
#include <stdlib.h>

#include <spoke/message.h>

#include "runtime/memory/pool.h"

/* Two PAIR sockets that are connected. */
static void
pair_on(enum transport transport, int s[2])
{
    char url[ENDPOINT_MAX];

    fresh(url, transport);
    s[0] = bound(NN_PAIR, url);
    s[1] = connected(NN_PAIR, url);
}

static uint64_t
messages_in_use(void)
{
    struct spoke_memory_stats stats;

    spoke_memory_stats(&stats);
    return stats.messages;
}

/* ---- alone ---- */

Test(messages, allocation_knows_its_limits)
{
    void *m = nn_allocmsg(0, 0), *other;

    cr_assert_not_null(m);
    OK(nn_freemsg(m));
    errno = 0;
    cr_assert_null(nn_allocmsg(10, 1));
    cr_assert_eq(nn_errno(), EINVAL);
    errno = 0;
    cr_assert_null(nn_allocmsg(SIZE_MAX - 1, 0));
    cr_assert_eq(nn_errno(), ENOMEM);
    m = nn_allocmsg(10, 0);
    memcpy(m, "0123456789", 10);
    errno = 0;
    cr_assert_null(nn_reallocmsg(m, SIZE_MAX - 1));
    cr_assert_eq(nn_errno(), ENOMEM);
    cr_assert_arr_eq(m, "0123456789", 10, "it is as it was");
    cr_assert_eq(nn_reallocmsg(m, 10), m);
    cr_assert_eq(nn_reallocmsg(m, 4), m, "shorter in its place");
    other = nn_reallocmsg(m, 100000);
    cr_assert_not_null(other);
    cr_assert_neq(other, m);
    cr_assert_arr_eq(other, "0123", 4);
    OK(nn_freemsg(other));
    cr_assert_eq(messages_in_use(), 0);
}

Test(messages, what_is_no_message_ends_the_process, .signal = SIGABRT)
{
    char local[64];

    nn_freemsg(local);
}

Test(messages, a_message_that_was_freed_ends_the_process, .signal = SIGABRT)
{
    void *m = nn_allocmsg(64, 0);

    OK(nn_freemsg(m));
    nn_freemsg(m);
}

Test(messages, many_are_held_at_once)
{
    enum { MANY = 20000 };
    void **held = calloc(MANY, sizeof *held);

    for (size_t i = 0; i < MANY; i++) {
        cr_assert_not_null(held[i] = nn_allocmsg(i % 300, 0));
        memset(held[i], (int)i, i % 300);
    }
    for (size_t i = 0; i < MANY; i += 2)
        OK(nn_freemsg(held[i]));
    for (size_t i = 1; i < MANY; i += 2) {
        if (i % 300 > 0)
            cr_assert_eq(((unsigned char *)held[i])[i % 300 - 1], (unsigned char)i);
        OK(nn_freemsg(held[i]));
    }
    cr_assert_eq(messages_in_use(), 0);
    free(held);
}

/* ---- from socket to socket ---- */

Test(messages, pass_without_a_copy_in_both_forms)
{
    static const size_t sizes[] = {0, 1, 128, 129, 256, 8192, 8193, 100000, 1048575};
    int s[2];

    for (enum transport t = INPROC; t <= TCP; t++) {
        pair_on(t, s);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            void *out = nn_allocmsg(sizes[i], 0), *in = NULL;
            struct nn_iovec part = {&in, NN_MSG};
            struct nn_msghdr hdr = {.msg_iov = &part, .msg_iovlen = 1};

            memset(out, (int)i + 1, sizes[i]);
            cr_assert_eq(nn_send(s[1], &out, NN_MSG, 0), (int)sizes[i]);
            cr_assert_eq(nn_recvmsg(s[0], &hdr, 0), (int)sizes[i]);
            for (size_t k = 0; k < sizes[i]; k++)
                if (((unsigned char *)in)[k] != i + 1)
                    cr_assert_fail("%s, %zu bytes: byte %zu is wrong", transport_name(t), sizes[i],
                                   k);
            if (sizes[i] > 0)
                ((unsigned char *)in)[0] = 0xff; /* it is ours to write to */
            cr_assert_eq(nn_sendmsg(s[0], &hdr, 0), (int)sizes[i], "sent on as it is");
            in = NULL;
            cr_assert_eq(nn_recv(s[1], &in, NN_MSG, 0), (int)sizes[i]);
            if (sizes[i] > 0)
                cr_assert_eq(((unsigned char *)in)[0], 0xff);
            OK(nn_freemsg(in));
        }
        OK(nn_close(s[0]));
        OK(nn_close(s[1]));
    }
}

Test(messages, inside_the_process_the_body_is_the_same_memory)
{
    void *out = nn_allocmsg(5000, 0), *in = NULL;
    int s[2];

    pair_on(INPROC, s);
    void *sent = out;
    cr_assert_eq(nn_send(s[0], &out, NN_MSG, 0), 5000);
    cr_assert_eq(nn_recv(s[1], &in, NN_MSG, 0), 5000);
    cr_assert_eq(in, sent);
    OK(nn_freemsg(in));
    OK(nn_close(s[0]));
    OK(nn_close(s[1]));
}

Test(messages, a_send_that_fails_leaves_the_message_with_its_owner)
{
    int s = sock(AF_SP, NN_PAIR), rep = sock(AF_SP, NN_REP);
    void *m = nn_allocmsg(300, 0);
    struct nn_iovec part = {&m, NN_MSG};
    struct nn_msghdr hdr = {.msg_iov = &part, .msg_iovlen = 1};

    memset(m, 'x', 300);
    FAILS(EAGAIN, nn_send(s, &m, NN_MSG, NN_DONTWAIT));
    FAILS(EAGAIN, nn_sendmsg(s, &hdr, NN_DONTWAIT));
    FAILS(EFSM, nn_send(rep, &m, NN_MSG, 0));
    FAILS(EBADF, nn_send(500, &m, NN_MSG, 0));
    cr_assert_eq(((char *)m)[299], 'x');
    cr_assert_eq(nn_reallocmsg(m, 200), m);
    OK(nn_freemsg(m));
    cr_assert_eq(messages_in_use(), 0);
    OK(nn_close(s));
    OK(nn_close(rep));
}

Test(messages, a_receive_says_the_whole_length)
{
    char few[5] = "....";
    int s[2];

    pair_on(INPROC, s);
    send_text(s[0], "0123456789");
    cr_assert_eq(nn_recv(s[1], few, 4, 0), 10);
    cr_assert_str_eq(few, "0123");
    send_text(s[0], "0123456789");
    cr_assert_eq(nn_recv(s[1], NULL, 0, 0), 10);
    cr_assert_eq(nn_send(s[0], NULL, 0, 0), 0);
    cr_assert_eq(nn_recv(s[1], few, 4, 0), 0);
    OK(nn_close(s[0]));
    OK(nn_close(s[1]));
}

Test(messages, are_gathered_and_scattered)
{
    char two[2], four[4], rest[4] = "____";
    struct nn_iovec out[] = {{"AB", 2}, {NULL, 0}, {"CDEF", 4}},
                    in[] = {{four, sizeof four}, {two, sizeof two}, {rest, sizeof rest}};
    struct nn_msghdr send = {.msg_iov = out, .msg_iovlen = 3},
                     receive = {.msg_iov = in, .msg_iovlen = 3};
    int s[2];

    pair_on(IPC, s);
    cr_assert_eq(nn_sendmsg(s[1], &send, 0), 6);
    cr_assert_eq(nn_recvmsg(s[0], &receive, 0), 6);
    cr_assert_arr_eq(four, "ABCD", 4);
    cr_assert_arr_eq(two, "EF", 2);
    cr_assert_arr_eq(rest, "____", 4);
    cr_assert_eq(nn_sendmsg(s[1], &send, 0), 6);
    receive.msg_iovlen = 1;
    cr_assert_eq(nn_recvmsg(s[0], &receive, 0), 6, "what does not fit is lost, its length is said");
    OK(nn_close(s[0]));
    OK(nn_close(s[1]));
}

/* ---- control data ---- */

#define WORDS 8u /* of a request that came straight from its REQ: pipe, id */

/* The words of a received request, and their size. */
static const unsigned char *
words_of(const struct nn_msghdr *hdr, size_t *size)
{
    struct nn_cmsghdr *cmsg = NN_CMSG_FIRSTHDR(hdr);

    while (cmsg != NULL && (cmsg->cmsg_level != PROTO_SP || cmsg->cmsg_type != SP_HDR))
        cmsg = NN_CMSG_NXTHDR(hdr, cmsg);
    cr_assert_not_null(cmsg);
    memcpy(size, NN_CMSG_DATA(cmsg), sizeof *size);
    cr_assert_eq(cmsg->cmsg_len, NN_CMSG_SPACE(*size + sizeof *size));
    cr_assert_null(NN_CMSG_NXTHDR(hdr, cmsg));
    return NN_CMSG_DATA(cmsg) + sizeof *size;
}

static void
check_words(const struct nn_msghdr *hdr)
{
    size_t size;
    const unsigned char *words = words_of(hdr, &size);

    cr_assert_eq(size, WORDS);
    cr_assert_eq(words[0] & 0x80, 0, "a pipe");
    cr_assert_eq(words[4] & 0x80, 0x80, "an id");
}

static void
raw_exchange(enum transport transport, bool allocated)
{
    char url[ENDPOINT_MAX], body[8], room[256] = {0};
    void *control = NULL;
    struct nn_iovec part = {body, sizeof body};
    struct nn_msghdr hdr = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = allocated ? (void *)&control : room,
                            .msg_controllen = allocated ? NN_MSG : sizeof room};
    int rep = sock(AF_SP_RAW, NN_REP), req;

    fresh(url, transport);
    OK(nn_bind(rep, url));
    req = connected(NN_REQ, url);
    send_text(req, "ABC");
    cr_assert_eq(nn_recvmsg(rep, &hdr, 0), 3);
    check_words(&hdr);
    part.iov_len = 3;
    cr_assert_eq(nn_sendmsg(rep, &hdr, 0), 3);
    expect_text(req, "ABC");
    OK(nn_close(req));
    OK(nn_close(rep));
}

Test(messages, control_data_carries_the_words_there_and_back)
{
    for (enum transport t = INPROC; t <= TCP; t++) {
        raw_exchange(t, false);
        raw_exchange(t, true);
    }
    cr_assert_eq(messages_in_use(), 0);
}

/* The other subscriber shares the body, so the one that is given away has to be copied. */
Test(messages, a_receive_that_finds_no_memory_keeps_none)
{
    char url[ENDPOINT_MAX], text[5000] = "A";
    void *body = NULL, *control = NULL;
    struct nn_iovec part = {&body, NN_MSG};
    struct nn_msghdr hdr = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = NN_MSG};
    int pub, sub[2], failures = 0;
    bool received = false;

    endpoint_fresh(url, INPROC);
    pub = bound(NN_PUB, url);
    for (int i = 0; i < 2; i++) {
        sub[i] = connected(NN_SUB, url);
        OK(nn_setsockopt(sub[i], NN_SUB, NN_SUB_SUBSCRIBE, "", 0));
    }
    wait_statistic(pub, NN_STAT_CURRENT_CONNECTIONS, 2);
    while (!received) {
        OK(nn_send(pub, text, sizeof text, 0));
        for (int i = 0; i < 2; i++) /* nobody else is to need memory meanwhile */
            cr_assert_eq(
                nn_poll(&(struct nn_pollfd){.fd = sub[i], .events = NN_POLLIN}, 1, PATIENCE_MS), 1);
        spk_memory_fail_after((uint64_t)failures + 1);
        received = nn_recvmsg(sub[0], &hdr, NN_DONTWAIT) >= 0;
        spk_memory_fail_after(0);
        if (!received) {
            cr_assert_eq(nn_errno(), ENOMEM);
            cr_assert_null(control);
            failures++;
        }
        cr_assert_eq(nn_recv(sub[1], text, sizeof text, 0), (int)sizeof text);
        cr_assert_eq(messages_in_use(), received ? 2 : 0);
    }
    cr_assert(failures > 1, "for want of control data, and of a body");
    OK(nn_freemsg(control));
    OK(nn_freemsg(body));
    OK(nn_close(pub));
    OK(nn_close(sub[0]));
    OK(nn_close(sub[1]));
}

Test(messages, a_receive_without_a_place_for_the_body_leaves_the_message)
{
    struct nn_iovec part = {NULL, NN_MSG};
    struct nn_msghdr hdr = {.msg_iov = &part, .msg_iovlen = 1};
    int s[2];

    pair_on(INPROC, s);
    send_text(s[0], "ABC");
    FAILS(EFAULT, nn_recvmsg(s[1], &hdr, 0));
    FAILS(EFAULT, nn_recv(s[1], NULL, NN_MSG, 0));
    expect_text(s[1], "ABC");
    OK(nn_close(s[0]));
    OK(nn_close(s[1]));
}

Test(messages, control_data_that_does_not_fit_is_not_written)
{
    char url[ENDPOINT_MAX], body[8], room[NN_CMSG_SPACE(WORDS + sizeof(size_t)) + 1];
    struct nn_iovec part = {body, sizeof body};
    struct nn_msghdr hdr = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room};
    int rep = sock(AF_SP_RAW, NN_REP), req;

    endpoint_fresh(url, INPROC);
    OK(nn_bind(rep, url));
    req = connected(NN_REQ, url);
    memset(room, '#', sizeof room);
    send_text(req, "A");
    hdr.msg_controllen = sizeof room - 2;
    cr_assert_eq(nn_recvmsg(rep, &hdr, 0), 1);
    cr_assert_eq(room[0], '#');
    cr_assert_null(NN_CMSG_FIRSTHDR(&hdr), "nor is it taken for any");
    send_text(req, "B");
    hdr.msg_controllen = sizeof room - 1;
    cr_assert_eq(nn_recvmsg(rep, &hdr, 0), 1);
    check_words(&hdr);
    cr_assert_eq(room[sizeof room - 1], '#');
    OK(nn_close(req));
    OK(nn_close(rep));
}

Test(messages, cooked_sockets_give_control_data_without_words)
{
    char body[8], room[64] = {0};
    struct nn_iovec part = {body, sizeof body};
    struct nn_msghdr hdr = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    size_t size = 77;
    int s[2];

    pair_on(INPROC, s);
    send_text(s[0], "A");
    cr_assert_eq(nn_recvmsg(s[1], &hdr, 0), 1);
    words_of(&hdr, &size);
    cr_assert_eq(size, 0);
    OK(nn_close(s[0]));
    OK(nn_close(s[1]));
}

Test(messages, control_data_is_walked_within_its_bounds)
{
    _Alignas(size_t) unsigned char room[2 * NN_CMSG_SPACE(5)] = {0};
    struct nn_msghdr hdr = {.msg_control = room, .msg_controllen = sizeof room};
    struct nn_cmsghdr *first = (struct nn_cmsghdr *)(void *)room, *second;

    cr_assert_null(NN_CMSG_FIRSTHDR(&hdr), "a length of 0 is none");
    first->cmsg_len = NN_CMSG_LEN(5);
    cr_assert_eq(NN_CMSG_FIRSTHDR(&hdr), first);
    cr_assert_null(NN_CMSG_NXTHDR(&hdr, first));
    second = (struct nn_cmsghdr *)(void *)(room + NN_CMSG_SPACE(5));
    second->cmsg_len = NN_CMSG_LEN(5);
    cr_assert_eq(NN_CMSG_NXTHDR(&hdr, first), second);
    cr_assert_null(NN_CMSG_NXTHDR(&hdr, second));
    second->cmsg_len = SIZE_MAX;
    cr_assert_null(NN_CMSG_NXTHDR(&hdr, first), "a length that leads out of it");
    first->cmsg_len = SIZE_MAX - 3;
    cr_assert_null(NN_CMSG_FIRSTHDR(&hdr));
    cr_assert_null(NN_CMSG_NXTHDR(&hdr, first));
    hdr.msg_controllen = sizeof *first - 1;
    cr_assert_null(NN_CMSG_FIRSTHDR(&hdr));
    hdr.msg_control = NULL;
    cr_assert_null(NN_CMSG_FIRSTHDR(&hdr));
}

/* The words of a raw socket belong to that message alone: sent again, its body is all there is. */
Test(messages, a_raw_message_received_without_control_data_is_its_body)
{
    char url[ENDPOINT_MAX], other[ENDPOINT_MAX];
    void *m = NULL;
    int rep = sock(AF_SP_RAW, NN_REP), req, s[2];

    endpoint_fresh(url, INPROC);
    endpoint_fresh(other, INPROC);
    OK(nn_bind(rep, url));
    req = connected(NN_REQ, url);
    s[0] = sock(AF_SP_RAW, NN_PAIR);
    OK(nn_bind(s[0], other));
    s[1] = connected(NN_PAIR, other);
    send_text(req, "body");
    cr_assert_eq(nn_recv(rep, &m, NN_MSG, 0), 4);
    cr_assert_eq(nn_send(s[0], &m, NN_MSG, 0), 4);
    expect_text(s[1], "body");
    OK(nn_close(req));
    OK(nn_close(rep));
    OK(nn_close(s[0]));
    OK(nn_close(s[1]));
}
