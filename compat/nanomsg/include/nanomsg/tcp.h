/* SPDX-License-Identifier: MIT */
/* tcp://HOST:PORT, tcp://LOCAL;HOST:PORT. */
#ifndef TCP_H_INCLUDED
#define TCP_H_INCLUDED

#define NN_TCP -3

#define NN_TCP_NODELAY 1 /* level NN_TCP: int 0 or 1, 0 */

#endif
