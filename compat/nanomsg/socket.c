/* SPDX-License-Identifier: MIT */
/* Sockets by number: opened, closed one by one or all at once. */
#include "internal.h"

#include <nanomsg/bus.h>
#include <nanomsg/pair.h>
#include <nanomsg/pipeline.h>
#include <nanomsg/pubsub.h>
#include <nanomsg/reqrep.h>
#include <nanomsg/survey.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct compat_socket compat_sockets[SOCKETS_MOST];

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static bool terminated; /* for good; table_lock */

/* ---- locks, also over a fork: a child finds all of them free ---- */

static void
init_locks(void)
{
    for (int i = 0; i < SOCKETS_MOST; i++) {
        pthread_mutex_init(&compat_sockets[i].lock, NULL);
        pthread_cond_init(&compat_sockets[i].no_poller, NULL);
    }
}

static void
before_fork(void)
{
    pthread_mutex_lock(&table_lock);
    compat_chunks_lock();
}

static void
after_fork_in_parent(void)
{
    compat_chunks_unlock();
    pthread_mutex_unlock(&table_lock);
}

/* Its sockets are the parent's, whose threads may have held their locks. */
static void
after_fork_in_child(void)
{
    after_fork_in_parent();
    init_locks();
}

__attribute__((constructor)) static void
init(void)
{
    init_locks();
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

spoke_socket *
compat_locked_handle(const struct compat_socket *c)
{
    return atomic_load_explicit(&c->handle, memory_order_acquire);
}

struct compat_socket *
compat_lock(int s)
{
    struct compat_socket *c;

    if (compat_handle(s) == NULL)
        return NULL;
    c = &compat_sockets[s];
    pthread_mutex_lock(&c->lock);
    if (compat_locked_handle(c) != NULL)
        return c;
    pthread_mutex_unlock(&c->lock);
    errno = EBADF;
    return NULL;
}

void
compat_unlock(struct compat_socket *c)
{
    pthread_mutex_unlock(&c->lock);
}

/* ---- slots ---- */

/* Give a slot's number, or -1 and errno. */
static int
take_slot(void)
{
    int s = 0, error = 0;

    pthread_mutex_lock(&table_lock);
    while (s < SOCKETS_MOST && compat_sockets[s].taken)
        s++;
    if (terminated)
        error = ETERM;
    else if (s == SOCKETS_MOST)
        error = EMFILE;
    else
        compat_sockets[s].taken = true;
    pthread_mutex_unlock(&table_lock);
    return error != 0 ? compat_fail(error) : s;
}

static void
give_slot(struct compat_socket *c)
{
    pthread_mutex_lock(&table_lock);
    c->taken = false;
    pthread_mutex_unlock(&table_lock);
}

/* ---- open ---- */

/* With NN_PRINT_ERRORS in the environment every connection that fails is told to stderr. */
static int
on_event(spoke_socket *handle, const struct spoke_event *event, void *ctx)
{
    const struct compat_socket *c = ctx;

    (void)handle;
    if (event->reason != 0 && event->reason != SPOKE_ECLOSED)
        fprintf(stderr, "nanomsg: socket.%d[%s]: Error: %s\n", (int)(c - compat_sockets),
                event->url, spoke_strerror(event->reason));
    return 0;
}

static int
print_errors(struct compat_socket *c, spoke_socket *handle)
{
    const char *wanted = getenv("NN_PRINT_ERRORS");

    if (wanted == NULL || *wanted == '\0')
        return 0;
    return spoke_socket_on_event(handle, on_event, c);
}

static bool
is_protocol(int protocol)
{
    switch (protocol) {
    case NN_PAIR:
    case NN_PUB:
    case NN_SUB:
    case NN_REQ:
    case NN_REP:
    case NN_PUSH:
    case NN_PULL:
    case NN_SURVEYOR:
    case NN_RESPONDENT:
    case NN_BUS: return true;
    default: return false;
    }
}

/* Let the world see it; but not after nn_term(). */
static bool
publish(struct compat_socket *c, spoke_socket *handle)
{
    bool open;

    pthread_mutex_lock(&table_lock);
    open = !terminated;
    if (open)
        atomic_store_explicit(&c->handle, handle, memory_order_release);
    pthread_mutex_unlock(&table_lock);
    return open;
}

static int
open_in_slot(int s, int domain, int protocol)
{
    struct compat_socket *c = &compat_sockets[s];
    spoke_socket *handle;
    int rc = spoke_socket_open(&handle, protocol, NULL);

    if (rc != 0)
        return compat_fail_as(rc);
    atomic_store_explicit(&c->domain, domain, memory_order_relaxed);
    atomic_store_explicit(&c->protocol, protocol, memory_order_relaxed);
    for (int i = 0; i < COMPAT_FDS; i++)
        c->fds[i] = -1;
    c->last_id = 0;
    c->bind_errors = 0;
    if ((rc = compat_options_init(c, handle, s)) != 0 || (rc = print_errors(c, handle)) != 0) {
        compat_fail_as(rc);
    } else if (!publish(c, handle)) {
        compat_fail(ETERM);
    } else {
        return s;
    }
    spoke_socket_close(handle);
    return -1;
}

int
nn_socket(int domain, int protocol)
{
    int s = take_slot(), opened;

    if (s < 0)
        return -1;
    if (domain != AF_SP && domain != AF_SP_RAW)
        opened = compat_fail(EAFNOSUPPORT);
    else if (!is_protocol(protocol))
        opened = compat_fail(EINVAL);
    else
        opened = open_in_slot(s, domain, protocol);
    if (opened < 0) {
        int error = errno;
        give_slot(&compat_sockets[s]);
        errno = error;
    }
    return opened;
}

/* ---- close ---- */

/* Whoever waits on one of these descriptors, this library or the program itself, is to look again.
 */
static void
wake_pollers(struct compat_socket *c)
{
    uint64_t one = 1;

    for (int i = 0; i < COMPAT_FDS; i++) {
        if (c->fds[i] >= 0 && write(c->fds[i], &one, sizeof one) < 0) {
            /* It is readable already. */
        }
    }
}

static void
close_descriptors(struct compat_socket *c)
{
    for (int i = 0; i < COMPAT_FDS; i++) {
        if (c->fds[i] >= 0)
            close(c->fds[i]);
        c->fds[i] = -1;
    }
}

/* The socket is the parent's of a fork.  What its descriptors refer to is shared with it, and its
 * lists are as another thread may have left them, halfway: they are only forgotten.  So are the
 * polls of its threads, which do not exist here. */
static void
abandon(struct compat_socket *c)
{
    c->pollers = 0;
    c->subscriptions = NULL;
}

/* A poll looks its descriptors up when it begins and again when it wakes: were one closed before it
 * is over, it would find whatever file has the number by then. */
static void
clear(struct compat_socket *c)
{
    wake_pollers(c);
    while (c->pollers > 0)
        pthread_cond_wait(&c->no_poller, &c->lock);
    compat_options_forget(c);
    free(c->endpoints);
}

/* False: somebody else has closed it before. */
static bool
close_slot(struct compat_socket *c)
{
    spoke_socket *handle = atomic_exchange(&c->handle, NULL);
    int rc;

    if (handle == NULL)
        return false;
    rc = spoke_socket_close(handle); /* releases all who wait, and waits for them */
    pthread_mutex_lock(&c->lock);
    if (rc == SPOKE_EFORKED)
        abandon(c);
    else
        clear(c);
    close_descriptors(c);
    c->endpoints = NULL;
    c->endpoint_count = c->endpoint_room = 0;
    pthread_mutex_unlock(&c->lock);
    give_slot(c);
    return true;
}

int
nn_close(int s)
{
    if (s < 0 || s >= SOCKETS_MOST || !close_slot(&compat_sockets[s]))
        return compat_fail(EBADF);
    return 0;
}

void
nn_term(void)
{
    pthread_mutex_lock(&table_lock);
    terminated = true;
    pthread_mutex_unlock(&table_lock);
    for (int s = 0; s < SOCKETS_MOST; s++)
        close_slot(&compat_sockets[s]);
}
