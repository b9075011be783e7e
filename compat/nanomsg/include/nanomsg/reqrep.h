/* SPDX-License-Identifier: MIT */
/* REQ and REP: a request, its reply. */
#ifndef REQREP_H_INCLUDED
#define REQREP_H_INCLUDED

#include <nanomsg/nn.h>

#define NN_PROTO_REQREP 3

#define NN_REQ (NN_PROTO_REQREP * 16 + 0)
#define NN_REP (NN_PROTO_REQREP * 16 + 1)

#define NN_REQ_RESEND_IVL 1 /* level NN_REQ: int ms, 60000; 0 or less: not by time */

#endif
