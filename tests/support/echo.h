/* SPDX-License-Identifier: MIT */
/* For spoke_socket_on_message(): the peer gets back what it has sent. */
#ifndef TESTS_SUPPORT_ECHO_H
#define TESTS_SUPPORT_ECHO_H

#include <spoke/spoke.h>

static inline void
echo(spoke_socket *s, spoke_msg *m, void *ctx)
{
    (void)ctx;
    if (spoke_send(s, m, SPOKE_DONTWAIT) != 0)
        spoke_msg_free(m);
}

#endif
