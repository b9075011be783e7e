/* SPDX-License-Identifier: MIT */
/* nn_get_statistic(). */
#include "tests/compat/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/process.h"

static void
check(int s, int statistic, uint64_t value)
{
    uint64_t is = nn_get_statistic(s, statistic);

    cr_assert_eq(is, value, "statistic %d is %lld, not %lld", statistic, (long long)is,
                 (long long)value);
}

Test(statistics, count_connections_and_messages)
{
    char url[ENDPOINT_MAX];
    int rep, req;

    endpoint_fresh(url, TCP);
    rep = bound(NN_REP, url);
    req = connected(NN_REQ, url);
    send_text(req, "0123456789");
    expect_text(rep, "0123456789");
    send_text(rep, "abc");
    expect_text(req, "abc");
    check(rep, NN_STAT_ACCEPTED_CONNECTIONS, 1);
    check(rep, NN_STAT_ESTABLISHED_CONNECTIONS, 0);
    check(req, NN_STAT_ACCEPTED_CONNECTIONS, 0);
    check(req, NN_STAT_ESTABLISHED_CONNECTIONS, 1);
    check(rep, NN_STAT_CURRENT_CONNECTIONS, 1);
    check(req, NN_STAT_CURRENT_CONNECTIONS, 1);
    check(req, NN_STAT_INPROGRESS_CONNECTIONS, 0);
    check(req, NN_STAT_MESSAGES_SENT, 1);
    check(req, NN_STAT_BYTES_SENT, 10);
    check(req, NN_STAT_MESSAGES_RECEIVED, 1);
    check(req, NN_STAT_BYTES_RECEIVED, 3);
    check(rep, NN_STAT_MESSAGES_SENT, 1);
    check(rep, NN_STAT_BYTES_SENT, 3);
    check(rep, NN_STAT_MESSAGES_RECEIVED, 1);
    check(rep, NN_STAT_BYTES_RECEIVED, 10);
    check(req, NN_STAT_CURRENT_SND_PRIORITY, 8);
    check(rep, NN_STAT_CURRENT_SND_PRIORITY, 0);
    OK(nn_shutdown(req, 1));
    wait_statistic(req, NN_STAT_DROPPED_CONNECTIONS, 1);
    wait_statistic(rep, NN_STAT_BROKEN_CONNECTIONS, 1);
    check(req, NN_STAT_BROKEN_CONNECTIONS, 0);
    check(rep, NN_STAT_DROPPED_CONNECTIONS, 0);
    check(req, NN_STAT_CURRENT_SND_PRIORITY, UINT64_MAX);
    OK(nn_close(req));
    OK(nn_close(rep));
}

Test(statistics, a_connection_that_is_lost_is_current_no_longer)
{
    char url[ENDPOINT_MAX];
    int a, b;

    endpoint_fresh(url, TCP);
    a = bound(NN_PAIR, url);
    b = connected(NN_PAIR, url);
    wait_statistic(b, NN_STAT_CURRENT_CONNECTIONS, 1);
    check(b, NN_STAT_CURRENT_EP_ERRORS, 0);
    OK(nn_close(a));
    wait_statistic(b, NN_STAT_CURRENT_CONNECTIONS, 0); /* although it tries again and again */
    wait_statistic(b, NN_STAT_CURRENT_EP_ERRORS, 1);
    cr_assert_gt(nn_get_statistic(b, NN_STAT_CONNECT_ERRORS), 0);
    a = bound(NN_PAIR, url);
    wait_statistic(b, NN_STAT_CURRENT_CONNECTIONS, 1);
    check(b, NN_STAT_CURRENT_EP_ERRORS, 0);
    check(b, NN_STAT_ESTABLISHED_CONNECTIONS, 2);
    OK(nn_close(a));
    OK(nn_close(b));
}

Test(statistics, of_an_unknown_kind_are_refused)
{
    static const int unknown[] = {-1, 0, 100, 108, 204, 305, 402};
    int s = sock(AF_SP, NN_PAIR);

    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        errno = 0;
        check(s, unknown[i], UINT64_MAX);
        cr_assert_eq(nn_errno(), EINVAL);
    }
    OK(nn_close(s));
}

/* ---- NN_PRINT_ERRORS ---- */

static int
refused(void *url)
{
    char text[ENDPOINT_MAX + 64] = "", want[ENDPOINT_MAX + 64];
    int pipe_[2], s;

    CHILD_CHECK(pipe(pipe_) == 0 && dup2(pipe_[1], STDERR_FILENO) == STDERR_FILENO);
    CHILD_CHECK(setenv("NN_PRINT_ERRORS", "1", 1) == 0);
    s = nn_socket(AF_SP, NN_PAIR);
    CHILD_CHECK(s >= 0 && nn_connect(s, url) == 1);
    CHILD_CHECK(read(pipe_[0], text, sizeof text - 1) > 0);
    snprintf(want, sizeof want, "nanomsg: socket.%d[%s]: Error: ", s, (const char *)url);
    return strncmp(text, want, strlen(want)) == 0 ? 0 : 1;
}

Test(statistics, errors_are_printed_where_the_environment_says_so)
{
    char url[ENDPOINT_MAX];

    endpoint_fresh(url, TCP);
    cr_assert_eq(child_run(refused, url, 60), 0);
}
