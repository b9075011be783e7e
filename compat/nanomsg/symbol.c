/* SPDX-License-Identifier: MIT */
/* The table of names, for languages that cannot read a header.  Its order is nanomsg's: programs
 * know some of its indices. */
#include "internal.h"

#include <nanomsg/bus.h>
#include <nanomsg/inproc.h>
#include <nanomsg/ipc.h>
#include <nanomsg/pair.h>
#include <nanomsg/pipeline.h>
#include <nanomsg/pubsub.h>
#include <nanomsg/reqrep.h>
#include <nanomsg/survey.h>
#include <nanomsg/tcp.h>
#include <nanomsg/ws.h>
#include <string.h>

/* The name is made text at once: passed on to another macro it would become its value. */
#define PLAIN(name, ns)                                                                            \
    {                                                                                              \
        name, #name, NN_NS_##ns, NN_TYPE_NONE, NN_UNIT_NONE                                        \
    }
#define OPTION(name, type, unit)                                                                   \
    {                                                                                              \
        name, #name, NN_NS_SOCKET_OPTION, NN_TYPE_##type, NN_UNIT_##unit                           \
    }
#define SPECIAL(name, type, unit)                                                                  \
    {                                                                                              \
        name, #name, NN_NS_TRANSPORT_OPTION, NN_TYPE_##type, NN_UNIT_##unit                        \
    }
#define COUNTER(name, unit)                                                                        \
    {                                                                                              \
        name, #name, NN_NS_STATISTIC, NN_TYPE_INT, NN_UNIT_##unit                                  \
    }

static const struct nn_symbol_properties symbols[] = {
    PLAIN(NN_NS_NAMESPACE, NAMESPACE),
    PLAIN(NN_NS_VERSION, NAMESPACE),
    PLAIN(NN_NS_DOMAIN, NAMESPACE),
    PLAIN(NN_NS_TRANSPORT, NAMESPACE),
    PLAIN(NN_NS_PROTOCOL, NAMESPACE),
    PLAIN(NN_NS_OPTION_LEVEL, NAMESPACE),
    PLAIN(NN_NS_SOCKET_OPTION, NAMESPACE),
    PLAIN(NN_NS_TRANSPORT_OPTION, NAMESPACE),
    PLAIN(NN_NS_OPTION_TYPE, NAMESPACE),
    PLAIN(NN_NS_OPTION_UNIT, NAMESPACE),
    PLAIN(NN_NS_FLAG, NAMESPACE),
    PLAIN(NN_NS_ERROR, NAMESPACE),
    PLAIN(NN_NS_LIMIT, NAMESPACE),
    PLAIN(NN_NS_EVENT, NAMESPACE),
    PLAIN(NN_NS_STATISTIC, NAMESPACE),

    PLAIN(NN_TYPE_NONE, OPTION_TYPE),
    PLAIN(NN_TYPE_INT, OPTION_TYPE),
    PLAIN(NN_TYPE_STR, OPTION_TYPE),

    PLAIN(NN_UNIT_NONE, OPTION_UNIT),
    PLAIN(NN_UNIT_BYTES, OPTION_UNIT),
    PLAIN(NN_UNIT_MILLISECONDS, OPTION_UNIT),
    PLAIN(NN_UNIT_PRIORITY, OPTION_UNIT),
    PLAIN(NN_UNIT_BOOLEAN, OPTION_UNIT),
    PLAIN(NN_UNIT_COUNTER, OPTION_UNIT),
    PLAIN(NN_UNIT_MESSAGES, OPTION_UNIT),

    PLAIN(NN_VERSION_CURRENT, VERSION),
    PLAIN(NN_VERSION_REVISION, VERSION),
    PLAIN(NN_VERSION_AGE, VERSION),

    PLAIN(AF_SP, DOMAIN),
    PLAIN(AF_SP_RAW, DOMAIN),

    PLAIN(NN_INPROC, TRANSPORT),
    PLAIN(NN_IPC, TRANSPORT),
    PLAIN(NN_TCP, TRANSPORT),
    PLAIN(NN_WS, TRANSPORT),

    PLAIN(NN_PAIR, PROTOCOL),
    PLAIN(NN_PUB, PROTOCOL),
    PLAIN(NN_SUB, PROTOCOL),
    PLAIN(NN_REP, PROTOCOL),
    PLAIN(NN_REQ, PROTOCOL),
    PLAIN(NN_PUSH, PROTOCOL),
    PLAIN(NN_PULL, PROTOCOL),
    PLAIN(NN_SURVEYOR, PROTOCOL),
    PLAIN(NN_RESPONDENT, PROTOCOL),
    PLAIN(NN_BUS, PROTOCOL),

    PLAIN(NN_SOCKADDR_MAX, LIMIT),

    PLAIN(NN_SOL_SOCKET, OPTION_LEVEL),

    OPTION(NN_LINGER, INT, MILLISECONDS),
    OPTION(NN_SNDBUF, INT, BYTES),
    OPTION(NN_RCVBUF, INT, BYTES),
    OPTION(NN_RCVMAXSIZE, INT, BYTES),
    OPTION(NN_SNDTIMEO, INT, MILLISECONDS),
    OPTION(NN_RCVTIMEO, INT, MILLISECONDS),
    OPTION(NN_RECONNECT_IVL, INT, MILLISECONDS),
    OPTION(NN_RECONNECT_IVL_MAX, INT, MILLISECONDS),
    OPTION(NN_SNDPRIO, INT, PRIORITY),
    OPTION(NN_RCVPRIO, INT, PRIORITY),
    OPTION(NN_SNDFD, INT, NONE),
    OPTION(NN_RCVFD, INT, NONE),
    OPTION(NN_DOMAIN, INT, NONE),
    OPTION(NN_PROTOCOL, INT, NONE),
    OPTION(NN_IPV4ONLY, INT, BOOLEAN),
    OPTION(NN_SOCKET_NAME, STR, NONE),
    OPTION(NN_MAXTTL, INT, NONE),

    SPECIAL(NN_SUB_SUBSCRIBE, STR, NONE),
    SPECIAL(NN_SUB_UNSUBSCRIBE, STR, NONE),
    SPECIAL(NN_REQ_RESEND_IVL, INT, MILLISECONDS),
    SPECIAL(NN_SURVEYOR_DEADLINE, INT, MILLISECONDS),
    SPECIAL(NN_TCP_NODELAY, INT, BOOLEAN),
    SPECIAL(NN_WS_MSG_TYPE, INT, NONE),

    PLAIN(NN_DONTWAIT, FLAG),
    PLAIN(NN_WS_MSG_TYPE_TEXT, FLAG),
    PLAIN(NN_WS_MSG_TYPE_BINARY, FLAG),

    PLAIN(NN_POLLIN, EVENT),
    PLAIN(NN_POLLOUT, EVENT),

    PLAIN(EADDRINUSE, ERROR),
    PLAIN(EADDRNOTAVAIL, ERROR),
    PLAIN(EAFNOSUPPORT, ERROR),
    PLAIN(EAGAIN, ERROR),
    PLAIN(EBADF, ERROR),
    PLAIN(ECONNREFUSED, ERROR),
    PLAIN(EFAULT, ERROR),
    PLAIN(EFSM, ERROR),
    PLAIN(EINPROGRESS, ERROR),
    PLAIN(EINTR, ERROR),
    PLAIN(EINVAL, ERROR),
    PLAIN(EMFILE, ERROR),
    PLAIN(ENAMETOOLONG, ERROR),
    PLAIN(ENETDOWN, ERROR),
    PLAIN(ENOBUFS, ERROR),
    PLAIN(ENODEV, ERROR),
    PLAIN(ENOMEM, ERROR),
    PLAIN(ENOPROTOOPT, ERROR),
    PLAIN(ENOTSOCK, ERROR),
    PLAIN(ENOTSUP, ERROR),
    PLAIN(EPROTO, ERROR),
    PLAIN(EPROTONOSUPPORT, ERROR),
    PLAIN(ETERM, ERROR),
    PLAIN(ETIMEDOUT, ERROR),
    PLAIN(EACCES, ERROR),
    PLAIN(ECONNABORTED, ERROR),
    PLAIN(ECONNRESET, ERROR),
    PLAIN(EHOSTUNREACH, ERROR),
    PLAIN(EMSGSIZE, ERROR),
    PLAIN(ENETRESET, ERROR),
    PLAIN(ENETUNREACH, ERROR),
    PLAIN(ENOTCONN, ERROR),

    COUNTER(NN_STAT_ESTABLISHED_CONNECTIONS, COUNTER),
    COUNTER(NN_STAT_ACCEPTED_CONNECTIONS, COUNTER),
    COUNTER(NN_STAT_DROPPED_CONNECTIONS, COUNTER),
    COUNTER(NN_STAT_BROKEN_CONNECTIONS, COUNTER),
    COUNTER(NN_STAT_CONNECT_ERRORS, COUNTER),
    COUNTER(NN_STAT_BIND_ERRORS, COUNTER),
    COUNTER(NN_STAT_ACCEPT_ERRORS, COUNTER),
    COUNTER(NN_STAT_MESSAGES_SENT, MESSAGES),
    COUNTER(NN_STAT_MESSAGES_RECEIVED, MESSAGES),
    COUNTER(NN_STAT_BYTES_SENT, BYTES),
    COUNTER(NN_STAT_BYTES_RECEIVED, BYTES),
    COUNTER(NN_STAT_CURRENT_CONNECTIONS, NONE),
    COUNTER(NN_STAT_INPROGRESS_CONNECTIONS, NONE),
    COUNTER(NN_STAT_CURRENT_SND_PRIORITY, PRIORITY),
    COUNTER(NN_STAT_CURRENT_EP_ERRORS, NONE),
};

#define SYMBOLS ((int)(sizeof symbols / sizeof *symbols))

const char *
nn_symbol(int i, int *value)
{
    if (i < 0 || i >= SYMBOLS) {
        errno = EINVAL;
        return NULL;
    }
    if (value != NULL)
        *value = symbols[i].value;
    return symbols[i].name;
}

int
nn_symbol_info(int i, struct nn_symbol_properties *buf, int buflen)
{
    if (i < 0 || i >= SYMBOLS || buf == NULL || buflen <= 0)
        return 0;
    if ((size_t)buflen > sizeof *buf)
        buflen = (int)sizeof *buf;
    memcpy(buf, &symbols[i], (size_t)buflen);
    return buflen;
}
