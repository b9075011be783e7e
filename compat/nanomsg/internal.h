/* SPDX-License-Identifier: MIT */
/* What the files of this library share.  It stands on spoke's public calls alone.
 *
 * Sockets are slots of a table that never moves.  A slot's `handle` is all that a send or receive
 * looks at: spoke itself recognises one that was closed meanwhile, so there is neither a lock nor a
 * count on that way.  Everything else of a slot is touched under its lock.
 *
 * Locks, outer before inner: a slot's, the table's, spoke's own.  nn_close() takes the handle away
 * and closes it before it takes the slot's lock, so whoever waits with that lock is released. */
#ifndef COMPAT_NANOMSG_INTERNAL_H
#define COMPAT_NANOMSG_INTERNAL_H

#include <nanomsg/nn.h>
#include <pthread.h>
#include <spoke/spoke.h>
#include <stdatomic.h>
#include <stdbool.h>

#define SOCKETS_MOST 512

/* ---- errors (error.c) ---- */

/* Set errno; return -1. */
int compat_fail(int error);
/* The same for an error of spoke. */
int compat_fail_as(int spoke_error);

/* ---- sockets (socket.c) ---- */

enum compat_value { /* the int options that are kept here: they read back as they were set */
                    VALUE_SNDBUF,
                    VALUE_RCVBUF,
                    VALUE_SNDTIMEO,
                    VALUE_RCVTIMEO,
                    VALUE_RECONNECT_IVL,
                    VALUE_RECONNECT_IVL_MAX,
                    VALUE_SNDPRIO,
                    VALUE_RCVPRIO,
                    VALUE_IPV4ONLY,
                    VALUE_RCVMAXSIZE,
                    VALUE_MAXTTL,
                    VALUE_RESEND_IVL,
                    VALUE_SURVEY_DEADLINE,
                    VALUE_TCP_NODELAY,
                    VALUE_WS_MSG_TYPE,
                    VALUE_IPC_OUTBUFSZ,
                    VALUE_IPC_INBUFSZ,
                    VALUES
};

/* Descriptors that become readable, and all are at the close. */
enum compat_fd {
    COMPAT_RECV, /* a copy of spoke's, so that it outlives its socket */
    COMPAT_SEND, /* likewise */
    COMPAT_END,  /* at the close alone */
    COMPAT_FDS
};

struct compat_endpoint {
    int id;               /* 0: not started yet */
    spoke_dialer *dialer; /* one of the two, the other is NULL */
    spoke_listener *listener;
    int send_priority;
};

struct compat_socket {
    _Alignas(64) _Atomic(spoke_socket *) handle; /* NULL: closed */
    atomic_int domain, protocol;                 /* set before the handle is */
    bool taken;                                  /* the table's lock */

    pthread_mutex_t lock; /* the rest */
    int values[VALUES];
    void *sec_attr; /* of Windows */
    char name[64];
    size_t name_size;
    int fds[COMPAT_FDS]; /* -1: not asked for */
    unsigned pollers;    /* that wait with one of them: they are not closed meanwhile */
    pthread_cond_t no_poller;
    struct compat_endpoint *endpoints;
    size_t endpoint_count, endpoint_room;
    int last_id;
    void *subscriptions; /* a tree of <search.h> */
    uint64_t bind_errors;
};

extern struct compat_socket compat_sockets[SOCKETS_MOST];

/* The handle of socket `s`, or NULL and EBADF. */
static inline spoke_socket *
compat_handle(int s)
{
    spoke_socket *handle = NULL;

    if (s >= 0 && s < SOCKETS_MOST)
        handle = atomic_load_explicit(&compat_sockets[s].handle, memory_order_acquire);
    if (handle == NULL)
        errno = EBADF;
    return handle;
}

/* The slot of socket `s`, locked, or NULL and EBADF. */
struct compat_socket *compat_lock(int s);
void compat_unlock(struct compat_socket *c);
/* Whose handle that is; it stays the same while the slot is locked, though it may be closed. */
spoke_socket *compat_locked_handle(const struct compat_socket *c);

/* ---- options (option.c) ---- */

/* Give a new socket nanomsg's defaults; an error of spoke. */
int compat_options_init(struct compat_socket *c, spoke_socket *handle, int number);
/* Free what they hold. */
void compat_options_forget(struct compat_socket *c);

/* The descriptor that is readable while a receive or send would not wait, or the one for the end;
 * or -1 and errno: EBADF, ENOPROTOOPT no such direction. */
int compat_descriptor(int s, enum compat_fd which);
/* The same, for who waits with it, or with all of them: nn_close() waits for compat_poll_end(), and
 * only then gives the numbers of the descriptors and the socket back. */
int compat_poll_begin(int s, enum compat_fd which);
void compat_poll_end(int s);

/* ---- addresses (address.c) ---- */

/* Every part as long as an address, and what spoke wants around them. */
#define COMPAT_URL_MAX (5 * NN_SOCKADDR_MAX)

/* Check an address as nanomsg does, and say it in spoke's words.  0, or an errno. */
int compat_address(char url[COMPAT_URL_MAX], const char *address, bool bind, bool ipv4_only);

/* ---- messages (message.c) ---- */

/* A message that the program knows by the address of its body. */
struct compat_chunk {
    struct compat_chunk *next;
    void *body;
    spoke_msg *m;
};

/* Register `m`, which is taken, as alone in the world as it has to be; an error of spoke: it is
 * freed. */
int compat_chunk_new(void **body, spoke_msg *m);
/* Take a message back.  One that is none ends the process. */
struct compat_chunk *compat_chunk_take(void *body);
/* … not after all. */
void compat_chunk_return(struct compat_chunk *chunk);
/* … for good: the message is not the chunk's any more. */
void compat_chunk_free(struct compat_chunk *chunk);
/* The size of a registered message. */
size_t compat_chunk_size(void *body);

/* Before and after a fork. */
void compat_chunks_lock(void);
void compat_chunks_unlock(void);

#endif
