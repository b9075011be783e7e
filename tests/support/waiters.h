/* SPDX-License-Identifier: MIT */
/* What other threads are at, seen from inside the library: for tests that go on when somebody
 * waits, and not after some time.  For sockets on the library's own engine.  Every wait is bounded;
 * what takes too long, fails the test.  Main thread of a test. */
#ifndef TESTS_SUPPORT_WAITERS_H
#define TESTS_SUPPORT_WAITERS_H

#include <stdbool.h>
#include <sys/types.h>

#include <spoke/spoke.h>

/* Wait until at least so many calls wait: to receive in the socket's own conversation, to receive
 * in that of the context (some protocols have one for all), to send on the socket. */
void await_receivers(spoke_socket *s, int count);
void await_context_receivers(spoke_context *c, int count);
void await_senders(spoke_socket *s, int count);

/* Wait until the library's engine has looked at everything once more. */
void await_engine(void);

/* Wait until this thread of ours sleeps in the kernel.  False if it does not.  Any thread. */
bool await_sleep(pid_t tid);

#endif
