/* SPDX-License-Identifier: MIT */
/* PUB and SUB: each message to everybody who subscribed to how it begins. */
#ifndef PUBSUB_H_INCLUDED
#define PUBSUB_H_INCLUDED

#define NN_PROTO_PUBSUB 2

#define NN_PUB (NN_PROTO_PUBSUB * 16 + 0)
#define NN_SUB (NN_PROTO_PUBSUB * 16 + 1)

/* Level NN_SUB: bytes, write-only.  They are counted: who subscribes twice unsubscribes twice. */
#define NN_SUB_SUBSCRIBE   1
#define NN_SUB_UNSUBSCRIBE 2

#endif
