/* SPDX-License-Identifier: MIT */
/* ws://HOST:PORT/PATH: WebSocket. */
#ifndef WS_H_INCLUDED
#define WS_H_INCLUDED

#include <nanomsg/nn.h>

#define NN_WS -4

#define NN_WS_MSG_TYPE 1 /* level NN_WS: int, one of these, the latter */

#define NN_WS_MSG_TYPE_TEXT   0x01
#define NN_WS_MSG_TYPE_BINARY 0x02

#endif
