/* SPDX-License-Identifier: MIT */
/* The calls of nanomsg 1.1.5 (ABI 5), served by spoke: names, numbers, layouts and meanings are
 * nanomsg's, so that a program can be compiled against either and run with either.
 * docs/moving/from-nanomsg.md says where the two differ.
 *
 * Every call may come from any thread.  Unless it says otherwise a call returns -1 after an error
 * and sets errno, which nn_errno() reads too.  Sockets are small numbers, at most 512 of
 * them; a number that is none, or whose socket is being closed, gives EBADF. */
#ifndef NN_H_INCLUDED
#define NN_H_INCLUDED

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef NN_EXPORT
#define NN_EXPORT extern
#endif

/* The interface, as libtool numbers it. */
#define NN_VERSION_CURRENT  5
#define NN_VERSION_REVISION 1
#define NN_VERSION_AGE      0

/* ---- errors: those of <errno.h>, and two more ---- */

#define NN_HAUSNUMERO 156384712 /* where nanomsg's own numbers begin */

#ifndef EACCESS
#define EACCESS (EACCES)
#endif
#ifndef ETERM
#define ETERM (NN_HAUSNUMERO + 53) /* nn_term() was called */
#endif
#ifndef EFSM
#define EFSM (NN_HAUSNUMERO + 54) /* not possible in the protocol's present state */
#endif

NN_EXPORT int nn_errno(void);
/* Constant text, never NULL. */
NN_EXPORT const char *nn_strerror(int errnum);

/* ---- what this header defines, as a table: i = 0, 1, … until NULL or 0 ---- */

#define NN_NS_NAMESPACE        0
#define NN_NS_VERSION          1
#define NN_NS_DOMAIN           2
#define NN_NS_TRANSPORT        3
#define NN_NS_PROTOCOL         4
#define NN_NS_OPTION_LEVEL     5
#define NN_NS_SOCKET_OPTION    6
#define NN_NS_TRANSPORT_OPTION 7
#define NN_NS_OPTION_TYPE      8
#define NN_NS_OPTION_UNIT      9
#define NN_NS_FLAG             10
#define NN_NS_ERROR            11
#define NN_NS_LIMIT            12
#define NN_NS_EVENT            13
#define NN_NS_STATISTIC        14

#define NN_TYPE_NONE 0
#define NN_TYPE_INT  1
#define NN_TYPE_STR  2

#define NN_UNIT_NONE         0
#define NN_UNIT_BYTES        1
#define NN_UNIT_MILLISECONDS 2
#define NN_UNIT_PRIORITY     3
#define NN_UNIT_BOOLEAN      4
#define NN_UNIT_MESSAGES     5
#define NN_UNIT_COUNTER      6

struct nn_symbol_properties {
    int value;
    const char *name;
    int ns;   /* NN_NS_… */
    int type; /* NN_TYPE_… of an option's value */
    int unit; /* NN_UNIT_… */
};

/* The name of symbol `i`; its value goes to *value (may be NULL).  NULL and EINVAL: no such one. */
NN_EXPORT const char *nn_symbol(int i, int *value);
/* Write at most `buflen` bytes of its properties; returns how many, 0 if there is no such one. */
NN_EXPORT int nn_symbol_info(int i, struct nn_symbol_properties *buf, int buflen);

/* ---- the end of everything ---- */

/* Close every socket; from then on, for good, nn_socket() gives ETERM. */
NN_EXPORT void nn_term(void);

/* ---- messages that are passed without a copy ---- */

#define NN_MSG ((size_t)-1) /* a length that says: the buffer is a pointer to such a message */

/* `type` is 0 (else EINVAL).  NULL and ENOMEM: too large. */
NN_EXPORT void *nn_allocmsg(size_t size, int type);
/* Smaller: the same pointer.  Larger: another one, and the old one is gone.  NULL and ENOMEM: `msg`
 * is as it was. */
NN_EXPORT void *nn_reallocmsg(void *msg, size_t size);
/* Returns 0.  What is no such message ends the process. */
NN_EXPORT int nn_freemsg(void *msg);

/* ---- sockets ---- */

struct nn_iovec {
    void *iov_base;
    size_t iov_len;
};

struct nn_msghdr {
    struct nn_iovec *msg_iov;
    int msg_iovlen;
    void *msg_control;
    size_t msg_controllen;
};

/* Control data: such a head, then bytes, then the next one, each at a multiple of size_t. */
struct nn_cmsghdr {
    size_t cmsg_len; /* with this head */
    int cmsg_level;
    int cmsg_type;
};

/* Behind the macros below. */
NN_EXPORT struct nn_cmsghdr *nn_cmsg_nxthdr_(const struct nn_msghdr *mhdr,
                                             const struct nn_cmsghdr *cmsg);

#define NN_CMSG_ALIGN_(len)    (((len) + sizeof(size_t) - 1) & (size_t) ~(sizeof(size_t) - 1))
#define NN_CMSG_FIRSTHDR(mhdr) nn_cmsg_nxthdr_((struct nn_msghdr *)(mhdr), NULL)
#define NN_CMSG_NXTHDR(mhdr, cmsg)                                                                 \
    nn_cmsg_nxthdr_((struct nn_msghdr *)(mhdr), (struct nn_cmsghdr *)(cmsg))
#define NN_CMSG_DATA(cmsg) ((unsigned char *)(((struct nn_cmsghdr *)(cmsg)) + 1))
#define NN_CMSG_SPACE(len) (NN_CMSG_ALIGN_(len) + NN_CMSG_ALIGN_(sizeof(struct nn_cmsghdr)))
#define NN_CMSG_LEN(len)   (NN_CMSG_ALIGN_(sizeof(struct nn_cmsghdr)) + (len))

/* Domains: the protocol keeps its state, or the program does (a device). */
#define AF_SP     1
#define AF_SP_RAW 2

#define NN_SOCKADDR_MAX 128 /* bytes of an address, with its NUL */

/* Option levels: this, a protocol's number, or a transport's (negative). */
#define NN_SOL_SOCKET 0

#define NN_LINGER            1  /* int ms; has no effect, reads 0 */
#define NN_SNDBUF            2  /* int bytes, 131072 */
#define NN_RCVBUF            3  /* int bytes, 131072 */
#define NN_SNDTIMEO          4  /* int ms, -1: for ever */
#define NN_RCVTIMEO          5  /* int ms, -1: for ever */
#define NN_RECONNECT_IVL     6  /* int ms, 100 */
#define NN_RECONNECT_IVL_MAX 7  /* int ms, 0: does not grow */
#define NN_SNDPRIO           8  /* int 1-16, 8; of endpoints that are made from then on */
#define NN_RCVPRIO           9  /* the same */
#define NN_SNDFD             10 /* a descriptor, readable while a send would not wait; read-only */
#define NN_RCVFD             11 /* … a receive; never read from either */
#define NN_DOMAIN            12 /* int, read-only */
#define NN_PROTOCOL          13 /* int, read-only */
#define NN_IPV4ONLY          14 /* int 0 or 1, 1 */
#define NN_SOCKET_NAME       15 /* text of up to 63 bytes; at first the socket's number */
#define NN_RCVMAXSIZE        16 /* int bytes, 1048576; -1: no limit */
#define NN_MAXTTL            17 /* int 1-255, 8 */

#define NN_DONTWAIT 1 /* flag of sends and receives: EAGAIN instead of waiting */

/* The control data of a raw socket's message: its protocol's words, behind their size (size_t). */
#define PROTO_SP 1
#define SP_HDR   1

/* EAFNOSUPPORT the domain, EINVAL the protocol, EMFILE, ENOMEM, ETERM. */
NN_EXPORT int nn_socket(int domain, int protocol);
/* Everybody who waits on the socket gets EBADF.  What the kernel has not taken yet is lost. */
NN_EXPORT int nn_close(int s);

NN_EXPORT int nn_setsockopt(int s, int level, int option, const void *optval, size_t optvallen);
/* Writes at most *optvallen bytes, which becomes the value's whole length. */
NN_EXPORT int nn_getsockopt(int s, int level, int option, void *optval, size_t *optvallen);

/* Both return the endpoint's number, 1 or more, for nn_shutdown().  nn_connect() only looks at the
 * address; the connection is made, and made again, meanwhile.  nn_shutdown() closes the endpoint
 * and its connections. */
NN_EXPORT int nn_bind(int s, const char *addr);
NN_EXPORT int nn_connect(int s, const char *addr);
NN_EXPORT int nn_shutdown(int s, int how);

/* Bytes, or with NN_MSG messages without a copy: a send takes them on success only, a receive gives
 * one that the caller frees.  Sends return the body's size; receives return the whole message's
 * size, whatever fitted. */
NN_EXPORT int nn_send(int s, const void *buf, size_t len, int flags);
NN_EXPORT int nn_recv(int s, void *buf, size_t len, int flags);
NN_EXPORT int nn_sendmsg(int s, const struct nn_msghdr *msghdr, int flags);
NN_EXPORT int nn_recvmsg(int s, struct nn_msghdr *msghdr, int flags);

/* ---- several sockets at once ---- */

#define NN_POLLIN  1
#define NN_POLLOUT 2

struct nn_pollfd {
    int fd; /* a socket */
    short events;
    short revents;
};

/* Wait at most `timeout` ms (negative: for ever).  Returns how many have events; after 0 every
 * `revents` is as it was.  EBADF; ENOPROTOOPT: a socket that cannot do what is asked for. */
NN_EXPORT int nn_poll(struct nn_pollfd *fds, int nfds, int timeout);

/* Pass messages between two raw sockets, or back and forth on one (the other is -1), until one of
 * them is closed: -1 and EBADF.  EINVAL: not raw, or not each other's counterpart. */
NN_EXPORT int nn_device(int s1, int s2);

/* ---- counters ---- */

#define NN_STAT_ESTABLISHED_CONNECTIONS 101
#define NN_STAT_ACCEPTED_CONNECTIONS    102
#define NN_STAT_DROPPED_CONNECTIONS     103
#define NN_STAT_BROKEN_CONNECTIONS      104
#define NN_STAT_CONNECT_ERRORS          105
#define NN_STAT_BIND_ERRORS             106
#define NN_STAT_ACCEPT_ERRORS           107
#define NN_STAT_CURRENT_CONNECTIONS     201
#define NN_STAT_INPROGRESS_CONNECTIONS  202
#define NN_STAT_CURRENT_EP_ERRORS       203
#define NN_STAT_MESSAGES_SENT           301
#define NN_STAT_MESSAGES_RECEIVED       302
#define NN_STAT_BYTES_SENT              303
#define NN_STAT_BYTES_RECEIVED          304
#define NN_STAT_CURRENT_SND_PRIORITY    401

/* All ones and errno: EBADF, EINVAL no such counter. */
NN_EXPORT uint64_t nn_get_statistic(int s, int stat);

#ifdef __cplusplus
}
#endif

#endif
