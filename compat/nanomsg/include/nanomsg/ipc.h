/* SPDX-License-Identifier: MIT */
/* ipc://PATH: unix sockets. */
#ifndef IPC_H_INCLUDED
#define IPC_H_INCLUDED

#define NN_IPC -2

/* Level NN_IPC, for Windows: kept, and without effect here. */
#define NN_IPC_SEC_ATTR 1
#define NN_IPC_OUTBUFSZ 2
#define NN_IPC_INBUFSZ  3

#endif
