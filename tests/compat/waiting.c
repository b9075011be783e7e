/* SPDX-License-Identifier: MIT */
/* Calls that wait, what ends them, and the descriptors for those who wait elsewhere. */
#include "tests/compat/fixture.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

/* ---- in another thread ---- */

struct call {
    pthread_t thread;
    int socket, result, error;
    const char *text; /* to send after a pause; NULL: receive */
    atomic_bool ended;
};

static void *
run_call(void *argument)
{
    struct call *call = argument;
    char buffer[64];

    if (call->text != NULL) {
        sleep_ms(50);
        call->result = nn_send(call->socket, call->text, strlen(call->text), 0);
    } else {
        call->result = nn_recv(call->socket, buffer, sizeof buffer, 0);
    }
    call->error = nn_errno();
    atomic_store(&call->ended, true);
    return NULL;
}

static void
start_call(struct call *call, int s, const char *text)
{
    *call = (struct call){.socket = s, .text = text};
    cr_assert_eq(pthread_create(&call->thread, NULL, run_call, call), 0);
}

static void
end_call(struct call *call, int result, int error)
{
    pthread_join(call->thread, NULL);
    cr_assert_eq(call->result, result);
    if (result < 0)
        cr_assert_eq(call->error, error, "%s", nn_strerror(call->error));
}

/* ---- time ---- */

Test(waiting, a_receive_waits_for_its_message)
{
    char url[ENDPOINT_MAX];
    struct call call;
    int a, b;

    endpoint_fresh(url, INPROC);
    a = bound(NN_PAIR, url);
    b = connected(NN_PAIR, url);
    for (int i = 0; i < 2; i++) {
        start_call(&call, b, "ABC");
        expect_text(a, "ABC");
        end_call(&call, 3, 0);
    }
    OK(nn_close(a));
    OK(nn_close(b));
}

Test(waiting, a_time_limit_is_kept)
{
    int s = sock(AF_SP, NN_PAIR);
    int64_t begin;
    char byte;

    set_int(s, NN_SOL_SOCKET, NN_RCVTIMEO, 100);
    set_int(s, NN_SOL_SOCKET, NN_SNDTIMEO, 100);
    begin = now_ms();
    FAILS(ETIMEDOUT, nn_recv(s, &byte, 1, 0));
    FAILS(ETIMEDOUT, nn_send(s, "a", 1, 0));
    cr_assert(now_ms() - begin >= 199);
    set_int(s, NN_SOL_SOCKET, NN_RCVTIMEO, 0);
    set_int(s, NN_SOL_SOCKET, NN_SNDTIMEO, 0);
    FAILS(ETIMEDOUT, nn_recv(s, &byte, 1, 0));
    FAILS(ETIMEDOUT, nn_send(s, "a", 1, 0));
    FAILS(EAGAIN, nn_recv(s, &byte, 1, NN_DONTWAIT));
    FAILS(EAGAIN, nn_send(s, "a", 1, NN_DONTWAIT));
    OK(nn_close(s));
}

Test(waiting, a_reply_to_the_request_that_took_its_place_ends_a_receive)
{
    char url[ENDPOINT_MAX];
    struct call call;
    int req, rep;

    endpoint_fresh(url, INPROC);
    rep = bound(NN_REP, url);
    req = connected(NN_REQ, url);
    send_text(req, "A");
    start_call(&call, req, NULL);
    expect_text(rep, "A");
    for (int i = 0; i < 5; i++) {
        sleep_ms(10);
        send_text(req, "B");
        expect_text(rep, "B");
    }
    send_text(rep, "CDE");
    end_call(&call, 3, 0);
    OK(nn_close(req));
    OK(nn_close(rep));
}

Test(waiting, a_request_that_takes_the_place_of_another_does_not_renew_its_time)
{
    int64_t limit = now_ms() + PATIENCE_MS;
    int req = sock(AF_SP, NN_REQ);
    struct call call;

    set_int(req, NN_SOL_SOCKET, NN_RCVTIMEO, 300);
    send_text(req, "A");
    start_call(&call, req, NULL);
    while (!atomic_load(&call.ended)) {
        cr_assert(now_ms() < limit, "it waits for ever");
        sleep_ms(20);
        send_text(req, "A");
    }
    end_call(&call, -1, ETIMEDOUT);
    OK(nn_close(req));
}

/* The wait goes on in another way then. */
Test(waiting, a_receive_whose_request_was_replaced_ends_at_the_close)
{
    int req = sock(AF_SP, NN_REQ);
    struct call call;

    set_int(req, NN_SOL_SOCKET, NN_RCVTIMEO, -1);
    send_text(req, "A");
    start_call(&call, req, NULL);
    sleep_ms(20);
    send_text(req, "B");
    sleep_ms(20);
    OK(nn_close(req));
    end_call(&call, -1, EBADF);
}

/* ---- close ---- */

Test(waiting, close_ends_a_receive_in_another_thread)
{
    char url[ENDPOINT_MAX];
    struct call call;

    endpoint_fresh(url, TCP);
    for (int i = 0; i < 10; i++) {
        int s = bound(NN_PAIR, url); /* the same port each time */
        start_call(&call, s, NULL);
        sleep_ms(5);
        OK(nn_close(s));
        end_call(&call, -1, EBADF);
    }
}

Test(waiting, term_ends_a_receive_in_another_thread)
{
    struct call call;
    int s = sock(AF_SP, NN_PAIR);
    char byte;

    start_call(&call, s, NULL);
    sleep_ms(20);
    nn_term();
    end_call(&call, -1, EBADF);
    FAILS(EBADF, nn_recv(s, &byte, 1, 0));
}

struct polling {
    pthread_t thread;
    int socket, result, error;
};

static void *
run_poll(void *argument)
{
    struct polling *p = argument;
    struct nn_pollfd fd = {.fd = p->socket, .events = NN_POLLIN};

    p->result = nn_poll(&fd, 1, PATIENCE_MS);
    p->error = nn_errno();
    return NULL;
}

Test(waiting, close_ends_a_poll_in_another_thread)
{
    struct polling p = {.socket = sock(AF_SP, NN_PAIR)};

    cr_assert_eq(pthread_create(&p.thread, NULL, run_poll, &p), 0);
    sleep_ms(50);
    OK(nn_close(p.socket));
    pthread_join(p.thread, NULL);
    cr_assert_eq(p.result, -1);
    cr_assert_eq(p.error, EBADF);
}

/* poll(2) looks a number up again when it wakes. */
Test(waiting, a_file_with_a_closed_sockets_number_does_not_take_its_poll)
{
    enum { FILES = 4 };

    for (int i = 0; i < 20; i++) {
        struct polling p = {.socket = sock(AF_SP, NN_PAIR)};
        int files[FILES];

        cr_assert_eq(pthread_create(&p.thread, NULL, run_poll, &p), 0);
        sleep_ms(5);
        OK(nn_close(p.socket));
        for (int k = 0; k < FILES; k++)
            cr_assert((files[k] = eventfd(0, EFD_CLOEXEC)) >= 0);
        pthread_join(p.thread, NULL);
        cr_assert_eq(p.result, -1);
        cr_assert_eq(p.error, EBADF);
        for (int k = 0; k < FILES; k++)
            close(files[k]);
    }
}

/* The number is free again as soon as it is closed.  A poll that began too late for that finds a
 * socket that cannot receive. */
Test(waiting, a_poll_does_not_go_over_to_the_next_socket_of_its_number)
{
    for (int i = 0; i < 20; i++) {
        struct polling p = {.socket = sock(AF_SP, NN_PAIR)};
        int other;

        cr_assert_eq(pthread_create(&p.thread, NULL, run_poll, &p), 0);
        sleep_ms(5);
        OK(nn_close(p.socket));
        OK(other = nn_socket(AF_SP, NN_PUSH));
        pthread_join(p.thread, NULL);
        cr_assert_eq(p.result, -1);
        cr_assert(p.error == EBADF || p.error == ENOPROTOOPT, "%s", nn_strerror(p.error));
        OK(nn_close(other));
    }
}

Test(waiting, a_thread_that_is_cancelled_does_not_hold_up_the_close)
{
    struct polling p = {.socket = sock(AF_SP, NN_PAIR)};

    /* So there is nothing to do before the poll that could be cancelled. */
    get_int(p.socket, NN_SOL_SOCKET, NN_RCVFD);
    cr_assert_eq(pthread_create(&p.thread, NULL, run_poll, &p), 0);
    sleep_ms(20);
    cr_assert_eq(pthread_cancel(p.thread), 0);
    pthread_join(p.thread, NULL);
    OK(nn_close(p.socket));
}

/* ---- signals ---- */

static void
on_signal(int number)
{
    (void)number;
}

Test(waiting, a_signal_handler_ends_it)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    struct itimerspec every = {{0, 20000000}, {0, 20000000}};
    int s = sock(AF_SP, NN_PAIR);
    struct nn_pollfd fd = {.fd = s, .events = NN_POLLIN};
    timer_t timer;
    char byte;

    cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
    cr_assert_eq(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    cr_assert_eq(timer_settime(timer, 0, &every, NULL), 0);
    FAILS(EINTR, nn_recv(s, &byte, 1, 0));
    FAILS(EINTR, nn_send(s, "a", 1, 0));
    FAILS(EINTR, nn_poll(&fd, 1, PATIENCE_MS));
    cr_assert_eq(timer_delete(timer), 0);
    OK(nn_close(s));
}

/* ---- poll ---- */

Test(waiting, poll_tells_what_can_be_done)
{
    char url[ENDPOINT_MAX];
    struct nn_pollfd fds[2];
    int a, b;

    endpoint_fresh(url, INPROC);
    a = bound(NN_PAIR, url);
    b = connected(NN_PAIR, url);
    send_text(a, "ABC");
    fds[0] = (struct nn_pollfd){.fd = a, .events = NN_POLLIN | NN_POLLOUT};
    fds[1] = (struct nn_pollfd){.fd = b, .events = NN_POLLIN};
    cr_assert_eq(nn_poll(&fds[1], 1, PATIENCE_MS), 1); /* the other is ready before that */
    cr_assert_eq(nn_poll(fds, 2, PATIENCE_MS), 2);
    cr_assert_eq(fds[0].revents, NN_POLLOUT);
    cr_assert_eq(fds[1].revents, NN_POLLIN);
    expect_text(b, "ABC");
    cr_assert_eq(nn_poll(fds, 2, PATIENCE_MS), 1);
    cr_assert_eq(fds[1].revents, 0);
    fds[1].revents = 77;
    cr_assert_eq(nn_poll(&fds[1], 1, 10), 0);
    cr_assert_eq(fds[1].revents, 77, "left as it was");
    fds[1].events = 0;
    cr_assert_eq(nn_poll(&fds[1], 1, 0), 0);
    cr_assert_eq(nn_poll(NULL, 0, 0), 0);
    FAILS(EFAULT, nn_poll(NULL, 1, 0));
    FAILS(EINVAL, nn_poll(fds, -1, 0));
    OK(nn_close(a));
    OK(nn_close(b));
}

Test(waiting, poll_takes_many)
{
    enum { MANY = 100 };
    struct nn_pollfd fds[MANY];
    char url[ENDPOINT_MAX];
    int a, b;

    endpoint_fresh(url, INPROC);
    a = bound(NN_PAIR, url);
    b = connected(NN_PAIR, url);
    for (int i = 0; i < MANY; i++)
        fds[i] = (struct nn_pollfd){.fd = i == 70 ? b : sock(AF_SP, NN_PAIR), .events = NN_POLLIN};
    cr_assert_eq(nn_poll(fds, MANY, 0), 0);
    send_text(a, "A");
    cr_assert_eq(nn_poll(fds, MANY, PATIENCE_MS), 1);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(fds[i].revents, i == 70 ? NN_POLLIN : 0);
    for (int i = 0; i < MANY; i++)
        OK(nn_close(fds[i].fd));
    OK(nn_close(a));
}

static bool
is_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};

    return poll(&one, 1, 0) == 1;
}

Test(waiting, the_descriptors_tell_the_truth_for_as_long_as_it_lasts)
{
    char url[ENDPOINT_MAX];
    int a, b, a_in, b_in, b_out;
    fd_set set;

    endpoint_fresh(url, IPC);
    b = sock(AF_SP, NN_PAIR);
    b_in = get_int(b, NN_SOL_SOCKET, NN_RCVFD);
    b_out = get_int(b, NN_SOL_SOCKET, NN_SNDFD);
    cr_assert_neq(b_in, b_out);
    cr_assert_eq(get_int(b, NN_SOL_SOCKET, NN_RCVFD), b_in, "one for its whole life");
    cr_assert(!is_readable(b_in) && !is_readable(b_out));
    a = bound(NN_PAIR, url);
    a_in = get_int(a, NN_SOL_SOCKET, NN_RCVFD);
    OK(nn_connect(b, url));
    wait_statistic(b, NN_STAT_CURRENT_CONNECTIONS, 1);
    cr_assert(is_readable(b_out) && is_readable(b_out), "it is level-triggered");
    send_text(b, "1");
    send_text(b, "2");
    FD_ZERO(&set);
    FD_SET(a_in, &set);
    cr_assert_eq(select(a_in + 1, &set, NULL, NULL, NULL), 1);
    expect_text(a, "1");
    cr_assert_eq(poll(&(struct pollfd){.fd = a_in, .events = POLLIN}, 1, PATIENCE_MS), 1);
    expect_text(a, "2");
    cr_assert(!is_readable(a_in));
    OK(nn_close(a));
    wait_statistic(b, NN_STAT_CURRENT_CONNECTIONS, 0);
    cr_assert(!is_readable(b_out), "nobody is there any more");
    OK(nn_close(b));
}

Test(waiting, the_descriptors_follow_the_protocol)
{
    char url[ENDPOINT_MAX], byte;
    int req, rep, req_in, rep_in, rep_out;

    endpoint_fresh(url, INPROC);
    rep = bound(NN_REP, url);
    req = connected(NN_REQ, url);
    req_in = get_int(req, NN_SOL_SOCKET, NN_RCVFD);
    rep_in = get_int(rep, NN_SOL_SOCKET, NN_RCVFD);
    rep_out = get_int(rep, NN_SOL_SOCKET, NN_SNDFD);
    cr_assert(is_readable(get_int(req, NN_SOL_SOCKET, NN_SNDFD)));
    cr_assert(!is_readable(req_in) && !is_readable(rep_in) && !is_readable(rep_out));
    send_text(req, "A");
    cr_assert(is_readable(rep_in) && !is_readable(rep_out));
    cr_assert_eq(nn_recv(rep, &byte, 1, 0), 1);
    cr_assert(!is_readable(rep_in) && is_readable(rep_out) && !is_readable(req_in));
    send_text(rep, "B");
    cr_assert(!is_readable(rep_out) && is_readable(req_in));
    expect_text(req, "B");
    cr_assert(!is_readable(req_in));
    OK(nn_close(req));
    OK(nn_close(rep));
}
