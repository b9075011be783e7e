/* SPDX-License-Identifier: MIT */
/* What each call says to wrong arguments, options, names and numbers. */
#include "tests/compat/fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- layouts and numbers of the interface, as programs were compiled ---- */

_Static_assert(sizeof(struct nn_iovec) == 16, "");
_Static_assert(offsetof(struct nn_iovec, iov_base) == 0, "");
_Static_assert(offsetof(struct nn_iovec, iov_len) == 8, "");
_Static_assert(sizeof(struct nn_msghdr) == 32, "");
_Static_assert(offsetof(struct nn_msghdr, msg_iov) == 0, "");
_Static_assert(offsetof(struct nn_msghdr, msg_iovlen) == 8, "");
_Static_assert(offsetof(struct nn_msghdr, msg_control) == 16, "");
_Static_assert(offsetof(struct nn_msghdr, msg_controllen) == 24, "");
_Static_assert(sizeof(struct nn_cmsghdr) == 16, "");
_Static_assert(offsetof(struct nn_cmsghdr, cmsg_len) == 0, "");
_Static_assert(offsetof(struct nn_cmsghdr, cmsg_level) == 8, "");
_Static_assert(offsetof(struct nn_cmsghdr, cmsg_type) == 12, "");
_Static_assert(sizeof(struct nn_pollfd) == 8, "");
_Static_assert(offsetof(struct nn_pollfd, fd) == 0, "");
_Static_assert(offsetof(struct nn_pollfd, events) == 4, "");
_Static_assert(offsetof(struct nn_pollfd, revents) == 6, "");
_Static_assert(sizeof(struct nn_symbol_properties) == 32, "");
_Static_assert(offsetof(struct nn_symbol_properties, value) == 0, "");
_Static_assert(offsetof(struct nn_symbol_properties, name) == 8, "");
_Static_assert(offsetof(struct nn_symbol_properties, ns) == 16, "");
_Static_assert(offsetof(struct nn_symbol_properties, type) == 20, "");
_Static_assert(offsetof(struct nn_symbol_properties, unit) == 24, "");
_Static_assert(NN_CMSG_SPACE(1) == 24 && NN_CMSG_LEN(1) == 17 && NN_CMSG_ALIGN_(9) == 16, "");
_Static_assert(NN_MSG == SIZE_MAX && ETERM == 156384765 && EFSM == 156384766, "");

/* ---- sockets ---- */

Test(calls, a_socket_is_of_a_known_domain_and_protocol)
{
    FAILS(EAFNOSUPPORT, nn_socket(0, NN_PAIR));
    FAILS(EAFNOSUPPORT, nn_socket(3, NN_PAIR));
    FAILS(EINVAL, nn_socket(AF_SP, 5));
    FAILS(EINVAL, nn_socket(AF_SP, 17));
    FAILS(EINVAL, nn_socket(AF_SP, 96));
    for (int domain = AF_SP; domain <= AF_SP_RAW; domain++) {
        int s = sock(domain, NN_REQ);
        cr_assert_eq(get_int(s, NN_SOL_SOCKET, NN_DOMAIN), domain);
        cr_assert_eq(get_int(s, NN_SOL_SOCKET, NN_PROTOCOL), NN_REQ);
        OK(nn_close(s));
    }
}

Test(calls, a_number_that_is_no_socket_is_refused_everywhere)
{
    static const int numbers[] = {-1, 0, 511, 512, 100000};
    struct nn_pollfd fd = {.events = NN_POLLIN, .revents = 77};
    int value = 1;
    size_t size = sizeof value;

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int s = numbers[i];
        FAILS(EBADF, nn_close(s));
        FAILS(EBADF, nn_bind(s, "inproc://a"));
        FAILS(EBADF, nn_connect(s, "inproc://a"));
        FAILS(EBADF, nn_shutdown(s, 1));
        FAILS(EBADF, nn_send(s, "a", 1, 0));
        FAILS(EBADF, nn_recv(s, &value, sizeof value, 0));
        FAILS(EBADF, nn_sendmsg(s, NULL, 0));
        FAILS(EBADF, nn_recvmsg(s, NULL, 0));
        FAILS(EBADF, nn_setsockopt(s, NN_SOL_SOCKET, NN_SNDBUF, &value, sizeof value));
        FAILS(EBADF, nn_getsockopt(s, NN_SOL_SOCKET, NN_SNDBUF, &value, &size));
        errno = 0;
        cr_assert_eq(nn_get_statistic(s, NN_STAT_MESSAGES_SENT), UINT64_MAX);
        cr_assert_eq(nn_errno(), EBADF);
        fd.fd = s;
        FAILS(EBADF, nn_poll(&fd, 1, 0));
        cr_assert_eq(fd.revents, 77);
        FAILS(EBADF, nn_device(s, s));
    }
    FAILS(EBADF, nn_device(-1, -1));
}

Test(calls, there_are_512_sockets_and_numbers_are_used_again)
{
    int count = 0, s, sockets[1000];

    while (count < 1000 && (s = nn_socket(AF_SP, NN_PAIR)) >= 0)
        sockets[count++] = s;
    cr_assert_eq(nn_errno(), EMFILE);
    cr_assert_eq(count, 512);
    OK(nn_close(sockets[100]));
    OK(s = nn_socket(AF_SP, NN_PAIR));
    cr_assert_eq(s, sockets[100]);
    for (int i = 0; i < count; i++)
        OK(nn_close(sockets[i]));
    OK(s = nn_socket(AF_SP, NN_PAIR));
    OK(nn_close(s));
}

Test(calls, term_closes_everything_for_good)
{
    int a = sock(AF_SP, NN_PAIR), b = sock(AF_SP, NN_REP);

    nn_term();
    FAILS(EBADF, nn_close(a));
    FAILS(EBADF, nn_close(b));
    FAILS(EBADF, nn_send(a, "a", 1, 0));
    FAILS(ETERM, nn_socket(AF_SP, NN_PAIR));
    nn_term();
    FAILS(ETERM, nn_socket(AF_SP, NN_PAIR));
}

Test(calls, a_child_of_a_fork_opens_its_own_sockets)
{
    char url[ENDPOINT_MAX];
    int s = sock(AF_SP, NN_PAIR), status;
    pid_t child;

    endpoint_fresh(url, INPROC);
    child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        bool good = nn_send(s, "a", 1, NN_DONTWAIT) == -1 && errno == EBADF && nn_close(s) == 0;
        int a = nn_socket(AF_SP, NN_PAIR), b = nn_socket(AF_SP, NN_PAIR);
        char byte = 0;
        good = good && nn_bind(a, url) > 0 && nn_connect(b, url) > 0 &&
               nn_send(b, "x", 1, 0) == 1 && nn_recv(a, &byte, 1, 0) == 1 && byte == 'x';
        _exit(good ? 0 : 1);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    FAILS(EAGAIN, nn_send(s, "a", 1, NN_DONTWAIT));
    OK(nn_close(s));
}

static bool
is_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};

    return poll(&one, 1, 0) == 1;
}

Test(calls, a_child_of_a_fork_closes_nothing_of_its_parents)
{
    for (int term = 0; term < 2; term++) {
        int s = sock(AF_SP, NN_SUB), pair = sock(AF_SP, NN_PAIR), status;
        int in = get_int(pair, NN_SOL_SOCKET, NN_RCVFD),
            out = get_int(pair, NN_SOL_SOCKET, NN_SNDFD);
        struct nn_pollfd fd = {.fd = pair, .events = NN_POLLIN | NN_POLLOUT};
        pid_t child;

        OK(nn_setsockopt(s, NN_SUB, NN_SUB_SUBSCRIBE, "a", 1));
        child = fork();
        cr_assert(child >= 0);
        if (child == 0) {
            if (term)
                nn_term();
            else if (nn_close(s) != 0 || nn_close(pair) != 0)
                _exit(1);
            _exit(fcntl(in, F_GETFD) == -1 && fcntl(out, F_GETFD) == -1 ? 0 : 2);
        }
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        cr_assert(!is_readable(in) && !is_readable(out));
        cr_assert_eq(nn_poll(&fd, 1, 0), 0);
        OK(nn_close(s));
        OK(nn_close(pair));
    }
}

/* ---- options ---- */

struct row {
    int level, option, initial, good, bad; /* bad == good: every int will do */
};

Test(calls, an_int_option_reads_back_and_knows_its_range)
{
    static const struct row rows[] = {
        {NN_SOL_SOCKET, NN_SNDBUF, 131072, 1, 0},
        {NN_SOL_SOCKET, NN_RCVBUF, 131072, 1, -1},
        {NN_SOL_SOCKET, NN_SNDTIMEO, -1, -7, -7},
        {NN_SOL_SOCKET, NN_RCVTIMEO, -1, 12, 12},
        {NN_SOL_SOCKET, NN_RECONNECT_IVL, 100, 0, -1},
        {NN_SOL_SOCKET, NN_RECONNECT_IVL_MAX, 0, 2000, -1},
        {NN_SOL_SOCKET, NN_SNDPRIO, 8, 1, 0},
        {NN_SOL_SOCKET, NN_SNDPRIO, 8, 16, 17},
        {NN_SOL_SOCKET, NN_RCVPRIO, 8, 16, 17},
        {NN_SOL_SOCKET, NN_IPV4ONLY, 1, 0, 2},
        {NN_SOL_SOCKET, NN_RCVMAXSIZE, 1048576, -1, -2},
        {NN_SOL_SOCKET, NN_MAXTTL, 8, 255, 256},
        {NN_SOL_SOCKET, NN_MAXTTL, 8, 1, 0},
        {NN_REQ, NN_REQ_RESEND_IVL, 60000, -3, -3},
        {NN_TCP, NN_TCP_NODELAY, 0, 1, 2},
        {NN_WS, NN_WS_MSG_TYPE, NN_WS_MSG_TYPE_BINARY, NN_WS_MSG_TYPE_TEXT, 3},
        {NN_IPC, NN_IPC_OUTBUFSZ, 4096, 1, 1},
        {NN_IPC, NN_IPC_INBUFSZ, 4096, 1, 1},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        int s = nn_socket(AF_SP, NN_REQ), value = r->good;
        size_t size = 2;

        cr_assert_eq(get_int(s, r->level, r->option), r->initial, "%zu", i);
        set_int(s, r->level, r->option, value);
        cr_assert_eq(get_int(s, r->level, r->option), r->good);
        if (r->bad != r->good)
            FAILS(EINVAL, nn_setsockopt(s, r->level, r->option, &r->bad, sizeof r->bad));
        FAILS(EINVAL, nn_setsockopt(s, r->level, r->option, &value, 1));
        FAILS(EINVAL, nn_setsockopt(s, r->level, r->option, &value, 0));
        FAILS(EFAULT, nn_setsockopt(s, r->level, r->option, NULL, sizeof value));
        FAILS(EFAULT, nn_getsockopt(s, r->level, r->option, NULL, &size));
        FAILS(EFAULT, nn_getsockopt(s, r->level, r->option, &value, NULL));
        value = 0x77777777;
        OK(nn_getsockopt(s, r->level, r->option, &value, &size));
        cr_assert_eq(size, sizeof value, "the whole size, whatever fitted");
        cr_assert_eq(value, (int)(0x77770000 | (r->good & 0xffff)));
        OK(nn_close(s));
    }
}

Test(calls, an_option_is_of_its_level_and_protocol)
{
    static const int unknown[][2] = {{NN_SOL_SOCKET, 0},
                                     {NN_SOL_SOCKET, 18},
                                     {NN_SOL_SOCKET, -1},
                                     {NN_INPROC, 1},
                                     {NN_TCP, 2},
                                     {NN_IPC, 4},
                                     {NN_WS, 2},
                                     {-5, 1},
                                     {77, 1},
                                     {NN_SURVEYOR, 1},
                                     {NN_SUB, 1},
                                     {NN_REQ, 2}};
    static const int read_only[] = {NN_SNDFD, NN_RCVFD, NN_DOMAIN, NN_PROTOCOL};
    int s = sock(AF_SP, NN_REQ), raw = sock(AF_SP_RAW, NN_REQ), value = 1;
    size_t size = sizeof value;

    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        FAILS(ENOPROTOOPT, nn_setsockopt(s, unknown[i][0], unknown[i][1], &value, sizeof value));
        FAILS(ENOPROTOOPT, nn_getsockopt(s, unknown[i][0], unknown[i][1], &value, &size));
    }
    for (size_t i = 0; i < sizeof read_only / sizeof *read_only; i++)
        FAILS(ENOPROTOOPT, nn_setsockopt(s, NN_SOL_SOCKET, read_only[i], &value, sizeof value));
    FAILS(ENOPROTOOPT, nn_getsockopt(raw, NN_REQ, NN_REQ_RESEND_IVL, &value, &size));
    set_int(s, NN_SOL_SOCKET, NN_LINGER, 1000);
    cr_assert_eq(get_int(s, NN_SOL_SOCKET, NN_LINGER), 0, "it has no effect, and says so");
    OK(nn_close(s));
    OK(nn_close(raw));
}

Test(calls, a_socket_has_a_name)
{
    static const char longest[64] =
        "123456789012345678901234567890123456789012345678901234567890123";
    int s = sock(AF_SP, NN_PAIR);
    char name[65], number[16];
    size_t size = sizeof name;

    snprintf(number, sizeof number, "%d", s);
    OK(nn_getsockopt(s, NN_SOL_SOCKET, NN_SOCKET_NAME, name, &size));
    cr_assert_str_eq(name, number);
    cr_assert_eq(size, strlen(number));
    OK(nn_setsockopt(s, NN_SOL_SOCKET, NN_SOCKET_NAME, longest, 63));
    FAILS(EINVAL, nn_setsockopt(s, NN_SOL_SOCKET, NN_SOCKET_NAME, longest, 64));
    size = sizeof name;
    OK(nn_getsockopt(s, NN_SOL_SOCKET, NN_SOCKET_NAME, name, &size));
    cr_assert_str_eq(name, longest);
    cr_assert_eq(size, 63);
    name[3] = '#';
    size = 3;
    OK(nn_getsockopt(s, NN_SOL_SOCKET, NN_SOCKET_NAME, name, &size));
    cr_assert_eq(name[3], '#');
    cr_assert_eq(size, 63);
    OK(nn_setsockopt(s, NN_SOL_SOCKET, NN_SOCKET_NAME, "", 0));
    OK(nn_close(s));
}

/* ---- symbols, texts ---- */

Test(calls, the_table_of_symbols_ends)
{
    struct nn_symbol_properties p, part = {.value = 5, .unit = 99};
    int value, count = 0;

    while (nn_symbol_info(count, &p, (int)sizeof p) == (int)sizeof p) {
        cr_assert_str_eq(nn_symbol(count, &value), p.name);
        cr_assert_eq(value, p.value);
        cr_assert(p.ns >= 0 && p.ns <= NN_NS_STATISTIC && p.type <= NN_TYPE_STR &&
                  p.unit <= NN_UNIT_COUNTER);
        count++;
    }
    cr_assert_eq(count, 121);
    cr_assert_not_null(nn_symbol(6, &value));
    cr_assert_neq(value, 0);
    cr_assert_str_eq(nn_symbol(6, NULL), "NN_NS_SOCKET_OPTION");
    cr_assert_str_eq(nn_symbol(34, NULL), "NN_PAIR");
    cr_assert_str_eq(nn_symbol(96, NULL), "ETERM");
    errno = 0;
    cr_assert_null(nn_symbol(-1, &value));
    cr_assert_eq(nn_errno(), EINVAL);
    errno = 0;
    cr_assert_null(nn_symbol(2000, &value));
    cr_assert_eq(nn_errno(), EINVAL);
    cr_assert_eq(nn_symbol_info(-1, &p, (int)sizeof p), 0);
    cr_assert_eq(nn_symbol_info(count, &p, (int)sizeof p), 0);
    cr_assert_eq(nn_symbol_info(6, &p, 1000), (int)sizeof p);
    cr_assert_eq(nn_symbol_info(6, &part, 4), 4);
    cr_assert_eq(part.value, 6);
    cr_assert_eq(part.unit, 99);
    cr_assert_eq(nn_symbol_info(6, &part, -1), 0);
}

Test(calls, errors_have_texts)
{
    cr_assert_str_eq(nn_strerror(ETERM), "Nanomsg library was terminated");
    cr_assert_str_eq(nn_strerror(EFSM), "Operation cannot be performed in this state");
    cr_assert_str_eq(nn_strerror(EAGAIN), strerror(EAGAIN));
    cr_assert_not_null(nn_strerror(123456));
}

/* ---- sends and receives without a message ---- */

Test(calls, wrong_buffers_are_refused)
{
    int s = sock(AF_SP, NN_PAIR);
    char byte = 'a';
    void *nothing = NULL, *message = nn_allocmsg(1, 0);
    struct nn_iovec parts[2] = {{&byte, 1}, {NULL, 3}};
    struct nn_msghdr hdr = {.msg_iov = parts, .msg_iovlen = 2};

    FAILS(EFAULT, nn_send(s, NULL, 1, NN_DONTWAIT));
    FAILS(EFAULT, nn_send(s, NULL, NN_MSG, NN_DONTWAIT));
    FAILS(EFAULT, nn_send(s, &nothing, NN_MSG, NN_DONTWAIT));
    FAILS(EFAULT, nn_recv(s, NULL, 1, NN_DONTWAIT));
    FAILS(EFAULT, nn_recv(s, NULL, NN_MSG, NN_DONTWAIT));
    FAILS(EAGAIN, nn_send(s, NULL, 0, NN_DONTWAIT));
    FAILS(EAGAIN, nn_recv(s, NULL, 0, NN_DONTWAIT));
    FAILS(EINVAL, nn_sendmsg(s, NULL, NN_DONTWAIT));
    FAILS(EINVAL, nn_recvmsg(s, NULL, NN_DONTWAIT));
    FAILS(EFAULT, nn_sendmsg(s, &hdr, NN_DONTWAIT));
    parts[1] = (struct nn_iovec){&message, NN_MSG};
    FAILS(EINVAL, nn_sendmsg(s, &hdr, NN_DONTWAIT));
    FAILS(EINVAL, nn_recvmsg(s, &hdr, NN_DONTWAIT));
    parts[1] = (struct nn_iovec){&byte, SIZE_MAX - 1};
    parts[0] = (struct nn_iovec){&byte, 5};
    FAILS(EINVAL, nn_sendmsg(s, &hdr, NN_DONTWAIT));
    parts[0] = (struct nn_iovec){&nothing, NN_MSG};
    hdr.msg_iovlen = 1;
    FAILS(EFAULT, nn_sendmsg(s, &hdr, NN_DONTWAIT));
    hdr.msg_iovlen = -1;
    FAILS(EMSGSIZE, nn_sendmsg(s, &hdr, NN_DONTWAIT));
    FAILS(EMSGSIZE, nn_recvmsg(s, &hdr, NN_DONTWAIT));
    hdr.msg_iovlen = 0;
    FAILS(EAGAIN, nn_sendmsg(s, &hdr, NN_DONTWAIT));
    FAILS(EAGAIN, nn_recvmsg(s, &hdr, NN_DONTWAIT));
    OK(nn_freemsg(message));
    OK(nn_close(s));
}
