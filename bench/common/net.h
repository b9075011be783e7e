/* SPDX-License-Identifier: MIT */
/* Stream sockets by URL, without any library: for the raw programs and for clients that open
 * thousands of them. */
#ifndef BENCH_NET_H
#define BENCH_NET_H

#include <stddef.h>

/* Room for an address, also one of shm, which these calls do not know. */
enum { BENCH_ADDRESS_MAX = 160 };

/* Listen at `url` (ipc:///path or, of any other scheme, SCHEME://127.0.0.1:port) and write where it
 * can be dialled to `actual`. Returns a descriptor, or -1 after a message on stderr. */
int bench_net_listen(const char *url, char actual[BENCH_ADDRESS_MAX]);

/* Wait for one connection; TCP_NODELAY is set.  Returns a descriptor, or -1 after a message. */
int bench_net_accept(int listener);

/* Connect; TCP_NODELAY is set.  Returns a descriptor, or -1 after a message. */
int bench_net_connect(const char *url);

/* Write a URL with a free port in place of port 0 to `actual`, for libraries that cannot tell which
 * port they got. 0 or -1. */
int bench_net_choose_port(const char *url, char actual[BENCH_ADDRESS_MAX]);

#endif
