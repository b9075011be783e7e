/* SPDX-License-Identifier: MIT */
#include "tests/compat/fixture.h"

#include <time.h>

int
sock(int domain, int protocol)
{
    int s = nn_socket(domain, protocol);

    cr_assert(s >= 0, "nn_socket(%d): %s", protocol, nn_strerror(nn_errno()));
    set_int(s, NN_SOL_SOCKET, NN_SNDTIMEO, PATIENCE_MS);
    set_int(s, NN_SOL_SOCKET, NN_RCVTIMEO, PATIENCE_MS);
    return s;
}

int
bound(int protocol, const char *url)
{
    int s = sock(AF_SP, protocol);

    OK(nn_bind(s, url));
    return s;
}

int
connected(int protocol, const char *url)
{
    int s = sock(AF_SP, protocol);

    OK(nn_connect(s, url));
    return s;
}

void
set_int(int s, int level, int option, int value)
{
    OK(nn_setsockopt(s, level, option, &value, sizeof value));
}

int
get_int(int s, int level, int option)
{
    int value = -12345;
    size_t size = sizeof value;

    OK(nn_getsockopt(s, level, option, &value, &size));
    cr_assert_eq(size, sizeof value);
    return value;
}

void
fresh(char url[ENDPOINT_MAX], enum transport transport)
{
    endpoint_fresh(url, transport);
    if (transport == WS)
        *strchr(url + strlen("ws://"), '/') = '\0';
}

void
send_text(int s, const char *text)
{
    int size = (int)strlen(text), rc = nn_send(s, text, (size_t)size, 0);

    cr_assert_eq(rc, size, "sending %s: %d, %s", text, rc, nn_strerror(nn_errno()));
}

void
expect_text(int s, const char *text)
{
    int size = (int)strlen(text);
    char buffer[256];
    int rc = nn_recv(s, buffer, sizeof buffer, 0);

    cr_assert_eq(rc, size, "expecting %s: %d, %s", text, rc, nn_strerror(nn_errno()));
    cr_assert_arr_eq(buffer, text, (size_t)size);
}

void
expect_nothing(int s)
{
    char buffer[16];

    set_int(s, NN_SOL_SOCKET, NN_RCVTIMEO, 100);
    FAILS(ETIMEDOUT, nn_recv(s, buffer, sizeof buffer, 0));
    set_int(s, NN_SOL_SOCKET, NN_RCVTIMEO, PATIENCE_MS);
}

void
wait_statistic(int s, int statistic, uint64_t value)
{
    int64_t limit = now_ms() + PATIENCE_MS;
    uint64_t is;

    while ((is = nn_get_statistic(s, statistic)) != value && now_ms() < limit)
        sleep_ms(2);
    cr_assert_eq(is, value, "statistic %d is %lld, not %lld", statistic, (long long)is,
                 (long long)value);
}

void
sleep_ms(int ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

    nanosleep(&time, NULL);
}

int64_t
now_ms(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}
