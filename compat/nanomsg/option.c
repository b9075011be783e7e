/* SPDX-License-Identifier: MIT */
/* Options.  Each is kept here as the program set it, so that it reads back the same, and said to
 * spoke in its own words: to the socket, and where nanomsg reads an option whenever it needs it,
 * also to the dialers and listeners that are there already. */
#include "internal.h"

#include <fcntl.h>
#include <nanomsg/inproc.h>
#include <nanomsg/ipc.h>
#include <nanomsg/pubsub.h>
#include <nanomsg/reqrep.h>
#include <nanomsg/survey.h>
#include <nanomsg/tcp.h>
#include <nanomsg/ws.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#define RECV_QUEUE_MESSAGES (1 << 16) /* nanomsg counts bytes only */
#define NEVER               (INT64_MAX / 4)

/* ---- milliseconds, sizes ---- */

/* Negative: for ever. */
static spoke_ns
limit_of(int ms)
{
    return ms < 0 ? SPOKE_FOREVER : ms * SPOKE_MS;
}

/* An interval that 0 or less switches off, though spoke's 0 would mean more than that: a request
 * whose connection is lost has to be sent again all the same. */
static spoke_ns
interval_of(int ms)
{
    return ms <= 0 ? NEVER : ms * SPOKE_MS;
}

/* A survey of no length ends at once; spoke's 0 is one without an end, as is a negative one here.
 */
static spoke_ns
survey_time_of(int ms)
{
    return ms < 0 ? 0 : ms == 0 ? 1 : ms * SPOKE_MS;
}

/* spoke's 0 is "no limit"; nanomsg's lets nothing but empty messages pass, which no pattern with
 * words in front can send, and 1 is as close as it gets. */
static size_t
size_limit_of(int bytes)
{
    return bytes < 0 ? 0 : bytes == 0 ? 1 : (size_t)bytes;
}

/* ---- what follows from a value ---- */

/* An option that dialers and listeners have too: theirs change with it.  One that has none of that
 * name, of another transport or kind, stays as it is. */
static int
set_everywhere(struct compat_socket *c, const char *name, enum spoke_type type, const void *value,
               size_t size)
{
    for (size_t i = 0; i < c->endpoint_count; i++) {
        struct compat_endpoint *ep = &c->endpoints[i];

        if (ep->dialer != NULL)
            (void)spoke_dialer_set(ep->dialer, name, type, value, size);
        else
            (void)spoke_listener_set(ep->listener, name, type, value, size);
    }
    return spoke_socket_set(compat_locked_handle(c), name, type, value, size);
}

static int
set_duration(struct compat_socket *c, const char *name, spoke_ns value)
{
    return set_everywhere(c, name, SPOKE_DURATION, &value, sizeof value);
}

static int
set_size(struct compat_socket *c, const char *name, size_t value)
{
    return set_everywhere(c, name, SPOKE_SIZE, &value, sizeof value);
}

/* SPOKE_EOPTION: this pattern has no such thing, and the value is kept without effect. */
static int
apply(struct compat_socket *c, enum compat_value which, int value)
{
    spoke_socket *handle = compat_locked_handle(c);
    bool on = value != 0;

    switch (which) {
    case VALUE_SNDBUF: return set_size(c, SPOKE_OPT_SEND_QUEUE_BYTES, (size_t)value);
    case VALUE_RCVBUF: return set_size(c, SPOKE_OPT_RECV_QUEUE_BYTES, (size_t)value);
    case VALUE_SNDTIMEO: return set_duration(c, SPOKE_OPT_SEND_TIMEOUT, limit_of(value));
    case VALUE_RCVTIMEO: return set_duration(c, SPOKE_OPT_RECV_TIMEOUT, limit_of(value));
    case VALUE_RECONNECT_IVL: return set_duration(c, SPOKE_OPT_RECONNECT, value * SPOKE_MS);
    case VALUE_RECONNECT_IVL_MAX: return set_duration(c, SPOKE_OPT_RECONNECT_MAX, value * SPOKE_MS);
    case VALUE_RCVMAXSIZE: return set_size(c, SPOKE_OPT_MAX_RECV_SIZE, size_limit_of(value));
    case VALUE_MAXTTL: return spoke_socket_set_int(handle, SPOKE_OPT_TTL, value);
    case VALUE_RESEND_IVL: return set_duration(c, SPOKE_OPT_RETRY_TIME, interval_of(value));
    case VALUE_SURVEY_DEADLINE:
        return set_duration(c, SPOKE_OPT_SURVEY_TIME, survey_time_of(value));
    case VALUE_SNDPRIO: return spoke_socket_set_int(handle, SPOKE_OPT_SEND_PRIORITY, value);
    case VALUE_RCVPRIO: return spoke_socket_set_int(handle, SPOKE_OPT_RECV_PRIORITY, value);
    case VALUE_WS_MSG_TYPE:
        on = value == NN_WS_MSG_TYPE_TEXT;
        return set_everywhere(c, SPOKE_OPT_WS_SEND_TEXT, SPOKE_BOOL, &on, sizeof on);
    case VALUE_TCP_NODELAY:
        return set_everywhere(c, SPOKE_OPT_TCP_NODELAY, SPOKE_BOOL, &on, sizeof on);
    default: return 0; /* looked at when an endpoint is made, or of no effect */
    }
}

/* ---- the table ---- */

enum { ANY_INT_LEAST = INT32_MIN, ANY_INT_MOST = INT32_MAX };

static const struct option {
    int level, option;
    enum compat_value value;
    int initial, least, most;
} options[] = {
    {NN_SOL_SOCKET, NN_SNDBUF, VALUE_SNDBUF, 128 * 1024, 1, ANY_INT_MOST},
    {NN_SOL_SOCKET, NN_RCVBUF, VALUE_RCVBUF, 128 * 1024, 1, ANY_INT_MOST},
    {NN_SOL_SOCKET, NN_SNDTIMEO, VALUE_SNDTIMEO, -1, ANY_INT_LEAST, ANY_INT_MOST},
    {NN_SOL_SOCKET, NN_RCVTIMEO, VALUE_RCVTIMEO, -1, ANY_INT_LEAST, ANY_INT_MOST},
    {NN_SOL_SOCKET, NN_RECONNECT_IVL, VALUE_RECONNECT_IVL, 100, 0, ANY_INT_MOST},
    {NN_SOL_SOCKET, NN_RECONNECT_IVL_MAX, VALUE_RECONNECT_IVL_MAX, 0, 0, ANY_INT_MOST},
    {NN_SOL_SOCKET, NN_SNDPRIO, VALUE_SNDPRIO, 8, 1, 16},
    {NN_SOL_SOCKET, NN_RCVPRIO, VALUE_RCVPRIO, 8, 1, 16},
    {NN_SOL_SOCKET, NN_IPV4ONLY, VALUE_IPV4ONLY, 1, 0, 1},
    {NN_SOL_SOCKET, NN_RCVMAXSIZE, VALUE_RCVMAXSIZE, 1024 * 1024, -1, ANY_INT_MOST},
    {NN_SOL_SOCKET, NN_MAXTTL, VALUE_MAXTTL, 8, 1, 255},
    {NN_REQ, NN_REQ_RESEND_IVL, VALUE_RESEND_IVL, 60000, ANY_INT_LEAST, ANY_INT_MOST},
    {NN_SURVEYOR, NN_SURVEYOR_DEADLINE, VALUE_SURVEY_DEADLINE, 1000, ANY_INT_LEAST, ANY_INT_MOST},
    {NN_TCP, NN_TCP_NODELAY, VALUE_TCP_NODELAY, 0, 0, 1},
    {NN_WS, NN_WS_MSG_TYPE, VALUE_WS_MSG_TYPE, NN_WS_MSG_TYPE_BINARY, NN_WS_MSG_TYPE_TEXT,
     NN_WS_MSG_TYPE_BINARY},
    {NN_IPC, NN_IPC_OUTBUFSZ, VALUE_IPC_OUTBUFSZ, 4096, ANY_INT_LEAST, ANY_INT_MOST},
    {NN_IPC, NN_IPC_INBUFSZ, VALUE_IPC_INBUFSZ, 4096, ANY_INT_LEAST, ANY_INT_MOST},
};

#define OPTIONS (sizeof options / sizeof *options)

/* A protocol's options are those of its cooked sockets alone. */
static bool
has_level(const struct compat_socket *c, int level)
{
    return level <= NN_SOL_SOCKET ||
           (level == atomic_load_explicit(&c->protocol, memory_order_relaxed) &&
            (level == NN_SUB || atomic_load_explicit(&c->domain, memory_order_relaxed) == AF_SP));
}

static const struct option *
find_option(const struct compat_socket *c, int level, int option)
{
    for (size_t i = 0; has_level(c, level) && i < OPTIONS; i++)
        if (options[i].level == level && options[i].option == option)
            return &options[i];
    return NULL;
}

static int
set_value(struct compat_socket *c, const struct option *o, int value)
{
    int rc;

    if (value < o->least || value > o->most)
        return EINVAL;
    rc = apply(c, o->value, value);
    if (rc == SPOKE_ECLOSED)
        return EBADF;
    if (rc != 0 && rc != SPOKE_EOPTION)
        return EINVAL;
    c->values[o->value] = value;
    return 0;
}

int
compat_options_init(struct compat_socket *c, spoke_socket *handle, int number)
{
    bool raw = atomic_load_explicit(&c->domain, memory_order_relaxed) == AF_SP_RAW;
    int rc = 0;

    c->sec_attr = NULL;
    c->name_size = (size_t)snprintf(c->name, sizeof c->name, "%d", number);
    for (size_t i = 0; i < OPTIONS; i++)
        c->values[options[i].value] = options[i].initial;
    /* No queue to send from: nanomsg takes a message when a connection does. */
    if ((rc = spoke_socket_set_int(handle, SPOKE_OPT_SEND_QUEUE, 0)) != 0 ||
        (rc = spoke_socket_set_int(handle, SPOKE_OPT_RECV_QUEUE, RECV_QUEUE_MESSAGES)) != 0 ||
        (rc = spoke_socket_set_size(handle, SPOKE_OPT_RECV_QUEUE_BYTES,
                                    (size_t)c->values[VALUE_RCVBUF])) != 0 ||
        (rc = spoke_socket_set_bool(handle, SPOKE_OPT_TCP_NODELAY, false)) != 0 ||
        (rc = spoke_socket_set_duration(handle, SPOKE_OPT_LINGER, 0)) != 0 ||
        (rc = spoke_socket_set_bool(handle, SPOKE_OPT_CLOSE_PIPES, true)) != 0 ||
        (rc = spoke_socket_set_bool(handle, SPOKE_OPT_INTERRUPTIBLE, true)) != 0 ||
        (rc = spoke_socket_set_bool(handle, SPOKE_OPT_WS_BELOW, true)) != 0 ||
        (rc = spoke_socket_set_bool(handle, SPOKE_OPT_WS_CHECK_ORIGIN, false)) != 0 ||
        (rc = spoke_socket_set_bool(handle, SPOKE_OPT_WS_RECV_TEXT, true)) != 0 ||
        (rc = spoke_socket_set_bool(handle, SPOKE_OPT_RAW, raw)) != 0)
        return rc;
    return 0;
}

/* ---- subscriptions: counted, as spoke's are not ---- */

struct subscription {
    size_t size, times;
    unsigned char bytes[];
};

static int
compare(const void *left, const void *right)
{
    const struct subscription *a = left, *b = right;
    size_t common = a->size < b->size ? a->size : b->size;
    int order = common > 0 ? memcmp(a->bytes, b->bytes, common) : 0;

    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}

static struct subscription *
new_subscription(const void *bytes, size_t size)
{
    struct subscription *sub = malloc(sizeof *sub + size);

    if (sub == NULL)
        return NULL;
    *sub = (struct subscription){.size = size, .times = 1};
    if (size > 0)
        memcpy(sub->bytes, bytes, size);
    return sub;
}

static int
say_subscription(struct compat_socket *c, const char *name, const struct subscription *sub)
{
    return spoke_socket_set(compat_locked_handle(c), name, SPOKE_BYTES, sub->bytes, sub->size);
}

static int
subscribe(struct compat_socket *c, struct subscription *sub)
{
    struct subscription **found = tsearch(sub, &c->subscriptions, compare);
    int rc;

    if (found == NULL) {
        free(sub);
        return SPOKE_ENOMEM;
    }
    if (*found != sub) {
        (*found)->times++;
        free(sub);
        return 0;
    }
    if ((rc = say_subscription(c, SPOKE_OPT_SUBSCRIBE, sub)) != 0) {
        tdelete(sub, &c->subscriptions, compare);
        free(sub);
    }
    return rc;
}

/* Of what was not subscribed nothing happens. */
static int
unsubscribe(struct compat_socket *c, struct subscription *sub)
{
    struct subscription **found = tfind(sub, &c->subscriptions, compare), *known;
    int rc = 0;

    if (found != NULL && --(*found)->times == 0) {
        known = *found;
        rc = say_subscription(c, SPOKE_OPT_UNSUBSCRIBE, known);
        tdelete(known, &c->subscriptions, compare);
        free(known);
    }
    free(sub);
    return rc;
}

static int
set_subscription(struct compat_socket *c, int option, const void *bytes, size_t size)
{
    struct subscription *sub = new_subscription(bytes, size);
    int rc;

    if (sub == NULL)
        return compat_fail(ENOMEM);
    rc = option == NN_SUB_SUBSCRIBE ? subscribe(c, sub) : unsubscribe(c, sub);
    return rc != 0 ? compat_fail_as(rc) : 0;
}

void
compat_options_forget(struct compat_socket *c)
{
    tdestroy(c->subscriptions, free);
    c->subscriptions = NULL;
}

/* ---- descriptors ---- */

static int
copy_descriptor(struct compat_socket *c, const char *option)
{
    int original, rc = spoke_socket_get_int(compat_locked_handle(c), option, &original);

    return rc != 0 ? compat_fail_as(rc) : fcntl(original, F_DUPFD_CLOEXEC, 0);
}

static int
find_descriptor(struct compat_socket *c, enum compat_fd which)
{
    int *fd = &c->fds[which];

    if (*fd >= 0)
        return *fd;
    switch (which) {
    case COMPAT_RECV: *fd = copy_descriptor(c, SPOKE_OPT_RECV_FD); break;
    case COMPAT_SEND: *fd = copy_descriptor(c, SPOKE_OPT_SEND_FD); break;
    default: *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); break;
    }
    return *fd;
}

int
compat_descriptor(int s, enum compat_fd which)
{
    struct compat_socket *c = compat_lock(s);
    int fd;

    if (c == NULL)
        return -1;
    fd = find_descriptor(c, which);
    compat_unlock(c);
    return fd;
}

int
compat_poll_begin(int s, enum compat_fd which)
{
    struct compat_socket *c = compat_lock(s);
    int fd;

    if (c == NULL)
        return -1;
    fd = find_descriptor(c, which);
    if (fd >= 0)
        c->pollers++;
    compat_unlock(c);
    return fd;
}

void
compat_poll_end(int s)
{
    struct compat_socket *c = &compat_sockets[s]; /* it may be closed, but it is not another one */

    pthread_mutex_lock(&c->lock);
    if (--c->pollers == 0)
        pthread_cond_signal(&c->no_poller);
    compat_unlock(c);
}

/* ---- the calls ---- */

static int
set_name(struct compat_socket *c, const void *name, size_t size)
{
    if (size >= sizeof c->name)
        return compat_fail(EINVAL);
    if (size > 0)
        memcpy(c->name, name, size);
    c->name[size] = '\0';
    c->name_size = strlen(c->name);
    return 0;
}

static int
set_option(struct compat_socket *c, int level, int option, const void *optval, size_t optvallen)
{
    const struct option *o;
    int value, error;

    if (level == NN_SUB && has_level(c, level) &&
        (option == NN_SUB_SUBSCRIBE || option == NN_SUB_UNSUBSCRIBE))
        return set_subscription(c, option, optval, optvallen);
    if (level == NN_SOL_SOCKET && option == NN_SOCKET_NAME)
        return set_name(c, optval, optvallen);
    if (level > NN_SOL_SOCKET && find_option(c, level, option) == NULL)
        return compat_fail(ENOPROTOOPT);
    if (level < NN_WS || level == NN_INPROC)
        return compat_fail(ENOPROTOOPT);
    if (level == NN_IPC && option == NN_IPC_SEC_ATTR && optvallen == sizeof c->sec_attr) {
        memcpy(&c->sec_attr, optval, sizeof c->sec_attr);
        return 0;
    }
    if (optvallen != sizeof value)
        return compat_fail(EINVAL);
    memcpy(&value, optval, sizeof value);
    if ((level == NN_SOL_SOCKET && option == NN_LINGER) ||
        (level == NN_IPC && option == NN_IPC_SEC_ATTR))
        return 0;
    if ((o = find_option(c, level, option)) == NULL)
        return compat_fail(ENOPROTOOPT);
    return (error = set_value(c, o, value)) != 0 ? compat_fail(error) : 0;
}

int
nn_setsockopt(int s, int level, int option, const void *optval, size_t optvallen)
{
    struct compat_socket *c = compat_lock(s);
    int rc;

    if (c == NULL)
        return -1;
    if (optval == NULL && optvallen > 0)
        rc = compat_fail(EFAULT);
    else
        rc = set_option(c, level, option, optval, optvallen);
    compat_unlock(c);
    return rc;
}

/* The value of an int option, in *value; else an errno. */
static int
get_int(struct compat_socket *c, int level, int option, int *value)
{
    const struct option *o = find_option(c, level, option);

    if (o != NULL) {
        *value = c->values[o->value];
        return 0;
    }
    if (level != NN_SOL_SOCKET)
        return ENOPROTOOPT;
    switch (option) {
    case NN_LINGER: *value = 0; return 0;
    case NN_DOMAIN: *value = atomic_load_explicit(&c->domain, memory_order_relaxed); return 0;
    case NN_PROTOCOL: *value = atomic_load_explicit(&c->protocol, memory_order_relaxed); return 0;
    case NN_SNDFD: *value = find_descriptor(c, COMPAT_SEND); return *value < 0 ? errno : 0;
    case NN_RCVFD: *value = find_descriptor(c, COMPAT_RECV); return *value < 0 ? errno : 0;
    default: return ENOPROTOOPT;
    }
}

static void
give(void *to, size_t *room, const void *from, size_t size)
{
    memcpy(to, from, *room < size ? *room : size);
    *room = size;
}

static int
get_option(struct compat_socket *c, int level, int option, void *optval, size_t *optvallen)
{
    int value, error;

    if (level == NN_SOL_SOCKET && option == NN_SOCKET_NAME) {
        strncpy(optval, c->name, *optvallen); /* zeros to the end of the room, as nanomsg does */
        *optvallen = c->name_size;
        return 0;
    }
    if (level == NN_IPC && option == NN_IPC_SEC_ATTR) {
        give(optval, optvallen, &c->sec_attr, sizeof c->sec_attr);
        return 0;
    }
    if ((error = get_int(c, level, option, &value)) != 0)
        return compat_fail(error);
    give(optval, optvallen, &value, sizeof value);
    return 0;
}

int
nn_getsockopt(int s, int level, int option, void *optval, size_t *optvallen)
{
    struct compat_socket *c = compat_lock(s);
    int rc;

    if (c == NULL)
        return -1;
    if (optval == NULL || optvallen == NULL)
        rc = compat_fail(EFAULT);
    else
        rc = get_option(c, level, option, optval, optvallen);
    compat_unlock(c);
    return rc;
}
