/* SPDX-License-Identifier: MIT */
/* Sockets of nanomsg's calls, as libspoke-nanomsg serves them.  Those that are made here wait 10
 * seconds at most, so that no test hangs.  Main thread of a test, unless it says otherwise. */
#ifndef TESTS_COMPAT_FIXTURE_H
#define TESTS_COMPAT_FIXTURE_H

#include <nanomsg/bus.h>
#include <nanomsg/inproc.h>
#include <nanomsg/ipc.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <nanomsg/pipeline.h>
#include <nanomsg/pubsub.h>
#include <nanomsg/reqrep.h>
#include <nanomsg/survey.h>
#include <nanomsg/tcp.h>
#include <nanomsg/ws.h>
#include <string.h>

#include <spoke/base.h>

#include "tests/support/endpoints.h"
#include "tests/support/test.h"

#define PATIENCE_MS (10000 * SPOKE_TEST_SLOWDOWN)

#define EACH_TRANSPORT(Body)                                                                       \
    for (enum transport t = INPROC; t <= WS; t++)                                                  \
        if (t <= TCP || t == WS)                                                                   \
    Body(t)

/* A call that succeeds, or that fails with an errno. */
#define OK(Call)                                                                                   \
    do {                                                                                           \
        int rc_ = (Call);                                                                          \
        cr_assert(rc_ >= 0, "%s: %s", #Call, nn_strerror(nn_errno()));                             \
    } while (0)
#define FAILS(Error, Call)                                                                         \
    do {                                                                                           \
        errno = 0;                                                                                 \
        int rc_ = (int)(Call);                                                                     \
        int error_ = nn_errno();                                                                   \
        cr_assert_eq(rc_, -1, "%s gives %d", #Call, rc_);                                          \
        cr_assert_eq(error_, (Error), "%s: %s", #Call, nn_strerror(error_));                       \
    } while (0)

int sock(int domain, int protocol);
int bound(int protocol, const char *url);
int connected(int protocol, const char *url);
void set_int(int s, int level, int option, int value);
int get_int(int s, int level, int option);

/* An address that nanomsg takes, to bind and to connect: over ws without a path. */
void fresh(char url[ENDPOINT_MAX], enum transport transport);

void send_text(int s, const char *text);
/* The next message is this text. */
void expect_text(int s, const char *text);
/* None comes. */
void expect_nothing(int s);

/* Wait until a counter of the socket has this value; the test fails if that takes too long. */
void wait_statistic(int s, int statistic, uint64_t value);

void sleep_ms(int ms);
/* Milliseconds on a clock that never goes back. */
int64_t now_ms(void);

#endif
