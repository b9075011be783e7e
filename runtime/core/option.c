/* SPDX-License-Identifier: MIT */
/* Options: one table an owner, checked in one place.  A protocol adds a table of its own. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include <spoke/tls.h>

#include "runtime/core/core.h"

#define UPGRADE_AFTER 16 /* messages, of a connection that may move into shared memory */

static bool
env_is(const char *name, const char *text)
{
    const char *value = getenv(name);

    return value != NULL && strcmp(value, text) == 0;
}

void
spk_endpoint_options_init(struct spk_endpoint_options *o)
{
    *o = (struct spk_endpoint_options){
        .max_recv_size = (size_t)1 << 20,
        .reconnect_ns = 100 * SPOKE_MS,
        .handshake_ns = 10 * SPOKE_SECOND,
        .dial_async = true,
        .upgrade = !env_is("SPOKE_UPGRADE", "off"),
        .upgrade_after = env_is("SPOKE_UPGRADE", "now") ? 0 : UPGRADE_AFTER,
        .shm_ring = (size_t)2 * 1024 * 1024,
        .lend_least = (size_t)4 * 1024,
        .send_priority = SPK_PRIORITY_DEFAULT,
        .recv_priority = SPK_PRIORITY_DEFAULT,
        .tcp_nodelay = true,
        .tcp_keepalive = true,
        .tcp_keepalive_ns = 15 * SPOKE_SECOND,
        .ipc_mode = -1,
        .ipc_owner = -1,
        .ipc_group = -1,
        .ws_check_origin = true,
        .ws_frame_size = (size_t)1 << 20,
    };
}

/* ---- reading values out ---- */

int
spk_give(void *value, size_t *size, const void *from, size_t length)
{
    size_t n = *size < length ? *size : length;

    if (n > 0)
        memcpy(value, from, n);
    *size = length;
    return 0;
}

int
spk_give_text(void *value, size_t *size, const char *text)
{
    size_t room = *size;

    spk_give(value, size, text, strlen(text) + 1);
    if (room > 0 && room < *size)
        ((char *)value)[room - 1] = '\0';
    return 0;
}

/* ---- plain fields ---- */

enum { DIALERS = 1, LISTENERS = 2, BOTH = 3 };

/* Where a value lies in its owner, and what it may be. */
struct field {
    const char *name;
    enum spoke_type type;
    bool early;       /* before the socket, or the endpoint, is at work */
    unsigned whose;   /* endpoints' */
    unsigned options; /* SPK_OPTIONS_…: of such transports only; 0: of all */
    size_t offset;
    int64_t least, most;
};

#define SOCKET_FIELD(name, type, early, member, least, most)                                       \
    {                                                                                              \
        name, type, early, 0, 0, offsetof(struct spk_socket, member), least, most                  \
    }
#define CONTEXT_FIELD(name, member)                                                                \
    {                                                                                              \
        name, SPOKE_DURATION, false, 0, 0, offsetof(struct spk_context, member), 0, INT64_MAX      \
    }
#define ENDPOINT_FIELD(name, whose, type, member, least, most)                                     \
    {                                                                                              \
        name, type, false, whose, 0, offsetof(struct spk_endpoint_options, member), least, most    \
    }
#define TCP_FIELD(name, type, member, least, most)                                                 \
    {                                                                                              \
        name, type, false, BOTH, SPK_OPTIONS_TCP, offsetof(struct spk_endpoint_options, member),   \
            least, most                                                                            \
    }
#define TLS_FIELD(name, type, member)                                                              \
    {                                                                                              \
        name, type, false, BOTH, SPK_OPTIONS_TLS, offsetof(struct spk_endpoint_options, member),   \
            INT64_MIN, INT64_MAX                                                                   \
    }
#define IPC_FIELD(name, type, member, least, most)                                                 \
    {                                                                                              \
        name, type, true, LISTENERS, SPK_OPTIONS_UNIX,                                             \
            offsetof(struct spk_endpoint_options, member), least, most                             \
    }

#define WS_FIELD(name, whose, type, member, least, most)                                           \
    {                                                                                              \
        name, type, false, whose, SPK_OPTIONS_WS, offsetof(struct spk_endpoint_options, member),   \
            least, most                                                                            \
    }

#define UNIX_FIELD(name, options, type, member, least, most)                                       \
    {                                                                                              \
        name, type, false, BOTH, options, offsetof(struct spk_endpoint_options, member), least,    \
            most                                                                                   \
    }

static const struct field socket_fields[] = {
    SOCKET_FIELD(SPOKE_OPT_RAW, SPOKE_BOOL, true, raw, 0, 1),
    SOCKET_FIELD(SPOKE_OPT_BEST_EFFORT, SPOKE_BOOL, false, best_effort, 0, 1),
    SOCKET_FIELD(SPOKE_OPT_FAIL_NO_PEERS, SPOKE_BOOL, false, fail_no_peers, 0, 1),
    SOCKET_FIELD(SPOKE_OPT_INTERRUPTIBLE, SPOKE_BOOL, false, interruptible, 0, 1),
    SOCKET_FIELD(SPOKE_OPT_SEND_EXPIRY, SPOKE_DURATION, false, send_expiry_ns, 0, INT64_MAX),
    SOCKET_FIELD(SPOKE_OPT_LINGER, SPOKE_DURATION, false, linger_ns, 0, INT64_MAX),
    SOCKET_FIELD(SPOKE_OPT_BUSY_POLL, SPOKE_DURATION, false, busy_poll_ns, SPOKE_WAIT_ADAPTIVE,
                 INT64_MAX),
    SOCKET_FIELD(SPOKE_OPT_SEND_QUEUE, SPOKE_INT, true, send_queue, 0, 1 << 24),
    SOCKET_FIELD(SPOKE_OPT_RECV_QUEUE, SPOKE_INT, true, recv_queue_most, 0, 1 << 24),
    SOCKET_FIELD(SPOKE_OPT_SEND_QUEUE_BYTES, SPOKE_SIZE, false, send_queue_bytes, 1, INT64_MAX),
    SOCKET_FIELD(SPOKE_OPT_RECV_QUEUE_BYTES, SPOKE_SIZE, false, recv_queue_bytes, 1, INT64_MAX),
    SOCKET_FIELD(SPOKE_OPT_SHM_SEGMENT, SPOKE_SIZE, true, shm_segment, 0, (int64_t)1 << 36),
    SOCKET_FIELD(SPOKE_OPT_SHM_HUGE_PAGES, SPOKE_BOOL, true, shm_wish.huge_pages, 0, 1),
    SOCKET_FIELD(SPOKE_OPT_MAX_PIPES, SPOKE_INT, false, max_pipes, 0, INT32_MAX),
};

/* The socket's own context has them as the socket's options. */
static const struct field context_fields[] = {
    CONTEXT_FIELD(SPOKE_OPT_RECV_TIMEOUT, recv_timeout_ns),
    CONTEXT_FIELD(SPOKE_OPT_SEND_TIMEOUT, send_timeout_ns),
};

static const struct field endpoint_fields[] = {
    ENDPOINT_FIELD(SPOKE_OPT_MAX_RECV_SIZE, BOTH, SPOKE_SIZE, max_recv_size, 0, INT64_MAX),
    ENDPOINT_FIELD(SPOKE_OPT_RECONNECT, DIALERS, SPOKE_DURATION, reconnect_ns, 0, INT64_MAX / 4),
    ENDPOINT_FIELD(SPOKE_OPT_RECONNECT_MAX, DIALERS, SPOKE_DURATION, reconnect_max_ns, 0,
                   INT64_MAX / 4),
    ENDPOINT_FIELD(SPOKE_OPT_HANDSHAKE_TIME, BOTH, SPOKE_DURATION, handshake_ns, 1, INT64_MAX / 4),
    ENDPOINT_FIELD(SPOKE_OPT_IDLE_TIMEOUT, BOTH, SPOKE_DURATION, idle_ns, 0, INT64_MAX),
    ENDPOINT_FIELD(SPOKE_OPT_SEND_PRIORITY, BOTH, SPOKE_INT, send_priority, 1, SPK_PRIORITIES),
    ENDPOINT_FIELD(SPOKE_OPT_RECV_PRIORITY, BOTH, SPOKE_INT, recv_priority, 1, SPK_PRIORITIES),
    ENDPOINT_FIELD(SPOKE_OPT_LOSS, BOTH, SPOKE_INT, loss, 0, SPOKE_LOSS_DISCONNECT),
    ENDPOINT_FIELD(SPOKE_OPT_DIAL_ASYNC, DIALERS, SPOKE_BOOL, dial_async, 0, 1),
    ENDPOINT_FIELD(SPOKE_OPT_CLOSE_PIPES, LISTENERS, SPOKE_BOOL, close_pipes, 0, 1),
    TCP_FIELD(SPOKE_OPT_TCP_NODELAY, SPOKE_BOOL, tcp_nodelay, 0, 1),
    TCP_FIELD(SPOKE_OPT_TCP_KEEPALIVE, SPOKE_BOOL, tcp_keepalive, 0, 1),
    TCP_FIELD(SPOKE_OPT_TCP_KEEPALIVE_TIME, SPOKE_DURATION, tcp_keepalive_ns, 0,
              32767 * SPOKE_SECOND), /* the kernel's limit */
    TCP_FIELD(SPOKE_OPT_TCP_USER_TIMEOUT, SPOKE_DURATION, tcp_user_timeout_ns, 0,
              INT32_MAX *SPOKE_MS), /* the same */
    UNIX_FIELD(SPOKE_OPT_UPGRADE, SPK_OPTIONS_UPGRADE, SPOKE_BOOL, upgrade, 0, 1),
    UNIX_FIELD(SPOKE_OPT_SHM_RING, SPK_OPTIONS_UNIX, SPOKE_SIZE, shm_ring, 16 * 1024, 1 << 24),
    UNIX_FIELD(SPOKE_OPT_LEND_LEAST, SPK_OPTIONS_UNIX, SPOKE_SIZE, lend_least, 0, INT64_MAX),
    IPC_FIELD(SPOKE_OPT_IPC_MODE, SPOKE_INT, ipc_mode, -1, 0777),
    IPC_FIELD(SPOKE_OPT_IPC_OWNER, SPOKE_INT, ipc_owner, -1, INT32_MAX),
    IPC_FIELD(SPOKE_OPT_IPC_GROUP, SPOKE_INT, ipc_group, -1, INT32_MAX),
    WS_FIELD(SPOKE_OPT_WS_FRAME_SIZE, BOTH, SPOKE_SIZE, ws_frame_size, 8 * 1024, INT64_MAX),
    WS_FIELD(SPOKE_OPT_WS_SEND_TEXT, BOTH, SPOKE_BOOL, ws_send_text, 0, 1),
    WS_FIELD(SPOKE_OPT_WS_RECV_TEXT, BOTH, SPOKE_BOOL, ws_recv_text, 0, 1),
    WS_FIELD(SPOKE_OPT_WS_CHECK_ORIGIN, LISTENERS, SPOKE_BOOL, ws_check_origin, 0, 1),
    WS_FIELD(SPOKE_OPT_WS_BELOW, LISTENERS, SPOKE_BOOL, ws_below, 0, 1),
    WS_FIELD(SPOKE_OPT_WS_ORIGINS, LISTENERS, SPOKE_STRING, ws_origins, 0, 4096),
    WS_FIELD(SPOKE_OPT_WS_DIRECTORY, LISTENERS, SPOKE_STRING, ws_directory, 0, 4095),
    TLS_FIELD(SPOKE_OPT_TLS_CONFIG, SPOKE_POINTER, tls),
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct field *
find_field(const struct field *fields, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

static size_t
size_of(enum spoke_type type)
{
    switch (type) {
    case SPOKE_BOOL: return sizeof(bool);
    case SPOKE_INT: return sizeof(int);
    case SPOKE_SIZE: return sizeof(size_t);
    case SPOKE_DURATION: return sizeof(spoke_ns);
    case SPOKE_POINTER: return sizeof(void *);
    default: return 0; /* any */
    }
}

static int64_t
as_number(enum spoke_type type, const void *value)
{
    size_t size;

    switch (type) {
    case SPOKE_BOOL: return *(const unsigned char *)value;
    case SPOKE_INT: return *(const int *)value;
    case SPOKE_SIZE:
        size = *(const size_t *)value;
        return size > INT64_MAX ? INT64_MAX : (int64_t)size;
    default: return *(const spoke_ns *)value;
    }
}

static int
check_type(enum spoke_type is, enum spoke_type given, size_t size)
{
    if (is == SPOKE_BYTES && given == SPOKE_STRING) /* its characters are bytes too */
        return 0;
    return is != given || (size_of(is) != 0 && size != size_of(is)) ? SPOKE_ETYPE : 0;
}

static int
set_field(void *owner, const struct field *field, enum spoke_type type, const void *value,
          size_t size, bool started)
{
    int64_t number;
    int rc;

    if ((rc = check_type(field->type, type, size)) != 0)
        return rc;
    number = as_number(type, value);
    if (number < field->least || number > field->most)
        return SPOKE_ERANGE;
    if (field->early && started)
        return SPOKE_ETOOLATE;
    memcpy((char *)owner + field->offset, value, size);
    return 0;
}

static struct spk_text *
ref_text(struct spk_text *t)
{
    if (t != NULL)
        t->refs++;
    return t;
}

static void
unref_text(struct spk_text *t)
{
    if (t != NULL && --t->refs == 0)
        spk_free(t);
}

static int
replace_text(struct spk_text **at, const char *text, size_t size)
{
    struct spk_text *t = NULL;

    if (size > 0 && memchr(text, '\0', size) != NULL)
        return SPOKE_ERANGE;
    if (size > 0) {
        if ((t = spk_zalloc(sizeof *t + size + 1)) == NULL)
            return SPOKE_ENOMEM;
        t->refs = 1;
        memcpy(t->text, text, size);
    }
    unref_text(*at);
    *at = t;
    return 0;
}

static struct spk_text **
text_at(void *owner, const struct field *field)
{
    return (struct spk_text **)(void *)((char *)owner + field->offset);
}

static int
get_field(const void *owner, const struct field *field, enum spoke_type type, void *value,
          size_t *size)
{
    if (field->type != type || *size < size_of(type))
        return SPOKE_ETYPE;
    if (type == SPOKE_STRING)
        return spk_give_text(value, size, spk_text_of(*text_at((void *)(uintptr_t)owner, field)));
    return spk_give(value, size, (const char *)owner + field->offset, size_of(type));
}

/* Not every protocol loses messages, and not all of those in every way. */
static const struct field *
find_field_of_endpoints(const struct spk_socket *s, const char *name)
{
    if (strcmp(name, SPOKE_OPT_LOSS) == 0 && s->protocol->losses == 0)
        return NULL;
    return find_field(endpoint_fields, COUNT(endpoint_fields), name);
}

/* It is counted by who has it. */
static int
set_tls(struct spk_endpoint_options *o, enum spoke_type type, const void *value, size_t size)
{
    spoke_tls_config *config, *old = o->tls;

    if (check_type(SPOKE_POINTER, type, size) != 0)
        return SPOKE_ETYPE;
    memcpy(&config, value, sizeof config);
    if (config != NULL && !spk_tls_is_config(config))
        return SPOKE_EINVAL;
    o->tls = spoke_tls_config_ref(config);
    spoke_tls_config_free(old);
    return 0;
}

static int
get_field_of_endpoints(const struct spk_endpoint_options *options, const struct field *field,
                       enum spoke_type type, void *value, size_t *size)
{
    int rc = get_field(options, field, type, value, size);

    if (rc == 0 && field->offset == offsetof(struct spk_endpoint_options, tls))
        (void)spoke_tls_config_ref(options->tls);
    return rc;
}

void
spk_endpoint_options_copy(struct spk_endpoint_options *to, const struct spk_endpoint_options *from)
{
    *to = *from;
    (void)spoke_tls_config_ref(to->tls);
    (void)ref_text(to->ws_origins);
    (void)ref_text(to->ws_directory);
}

void
spk_endpoint_options_fini(struct spk_endpoint_options *o)
{
    spoke_tls_config_free(o->tls);
    o->tls = NULL;
    unref_text(o->ws_origins);
    unref_text(o->ws_directory);
    o->ws_origins = o->ws_directory = NULL;
}

static int
set_text(struct spk_endpoint_options *options, const struct field *field, enum spoke_type type,
         const void *value, size_t size)
{
    if (type != SPOKE_STRING)
        return SPOKE_ETYPE;
    return size > (size_t)field->most ? SPOKE_ERANGE
                                      : replace_text(text_at(options, field), value, size);
}

static int
set_field_of_endpoints(const struct spk_socket *s, struct spk_endpoint_options *options,
                       const struct field *field, enum spoke_type type, const void *value,
                       size_t size, bool started)
{
    struct field bounded = *field;

    if (field->offset == offsetof(struct spk_endpoint_options, tls))
        return set_tls(options, type, value, size);
    if (field->type == SPOKE_STRING)
        return set_text(options, field, type, value, size);
    if (field->offset == offsetof(struct spk_endpoint_options, loss))
        bounded.most = s->protocol->losses - 1;
    return set_field(options, &bounded, type, value, size, started);
}

/* ---- what is not a plain field of a socket ---- */

static int
set_name(void *owner, const void *value, size_t size)
{
    struct spk_socket *s = owner;

    if (size >= sizeof s->name || (size > 0 && memchr(value, '\0', size) != NULL))
        return SPOKE_ERANGE;
    if (size > 0)
        memcpy(s->name, value, size);
    s->name[size] = '\0';
    return 0;
}

static int
get_name(void *owner, void *value, size_t *size)
{
    return spk_give_text(value, size, ((struct spk_socket *)owner)->name);
}

static int
set_numa_node(void *owner, const void *value, size_t size)
{
    int node = *(const int *)value, rc;

    (void)size;
    if (node != SPK_ANY_NODE && (rc = spk_node_check(node)) != 0)
        return rc;
    ((struct spk_socket *)owner)->shm_wish.node = node;
    return 0;
}

static int
get_numa_node(void *owner, void *value, size_t *size)
{
    int node = ((struct spk_socket *)owner)->shm_wish.node;

    return spk_give(value, size, &node, sizeof node);
}

static int
get_protocol(void *owner, void *value, size_t *size)
{
    int number = ((struct spk_socket *)owner)->protocol->number;

    return spk_give(value, size, &number, sizeof number);
}

static int
get_peer(void *owner, void *value, size_t *size)
{
    int number = ((struct spk_socket *)owner)->protocol->peer;

    return spk_give(value, size, &number, sizeof number);
}

static int
get_protocol_name(void *owner, void *value, size_t *size)
{
    return spk_give_text(value, size, ((struct spk_socket *)owner)->protocol->name);
}

static int
get_event_fd(struct spk_socket *s, int *fd, void *value, size_t *size)
{
    if (*fd < 0) {
        if (s->e->backend->is_virtual)
            return SPOKE_ENOTSUP;
        if ((*fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0)
            return spk_error_from_errno(errno);
        if (s->front != NULL) /* it tells what is there at any time */
            spk_front_shut_inbox(s->front);
        spk_socket_check_ready(s);
    }
    return spk_give(value, size, fd, sizeof *fd);
}

static int
get_recv_fd(void *owner, void *value, size_t *size)
{
    struct spk_socket *s = owner;

    spk_socket_look(s);
    return s->protocol->receives ? get_event_fd(s, &s->recv_fd, value, size) : SPOKE_EOPTION;
}

static int
get_send_fd(void *owner, void *value, size_t *size)
{
    struct spk_socket *s = owner;

    return s->protocol->sends ? get_event_fd(s, &s->send_fd, value, size) : SPOKE_EOPTION;
}

static const struct spk_option socket_options[] = {
    {SPOKE_OPT_NAME, SPOKE_STRING, false, set_name, get_name},
    {SPOKE_OPT_SHM_NUMA_NODE, SPOKE_INT, true, set_numa_node, get_numa_node},
    {SPOKE_OPT_PROTOCOL, SPOKE_INT, false, NULL, get_protocol},
    {SPOKE_OPT_PEER, SPOKE_INT, false, NULL, get_peer},
    {SPOKE_OPT_PROTOCOL_NAME, SPOKE_STRING, false, NULL, get_protocol_name},
    {SPOKE_OPT_RECV_FD, SPOKE_INT, false, NULL, get_recv_fd},
    {SPOKE_OPT_SEND_FD, SPOKE_INT, false, NULL, get_send_fd},
    {NULL, SPOKE_BOOL, false, NULL, NULL},
};

static const struct spk_option *
find_option(const struct spk_option *options, const char *name)
{
    for (; options != NULL && options->name != NULL; options++)
        if (strcmp(options->name, name) == 0)
            return options;
    return NULL;
}

static int
set_option(void *owner, const struct spk_option *option, enum spoke_type type, const void *value,
           size_t size, bool started)
{
    int rc;

    if ((rc = check_type(option->type, type, size)) != 0)
        return rc;
    if (option->set == NULL)
        return SPOKE_EREADONLY;
    if (option->early && started)
        return SPOKE_ETOOLATE;
    return option->set(owner, value, size);
}

static int
get_option(void *owner, const struct spk_option *option, enum spoke_type type, void *value,
           size_t *size)
{
    if (option->type != type || *size < size_of(type))
        return SPOKE_ETYPE;
    return option->get == NULL ? SPOKE_EWRITEONLY : option->get(owner, value, size);
}

/* ---- by handle ---- */

typedef int set_f(void *owner, const char *name, enum spoke_type type, const void *value,
                  size_t size);
typedef int get_f(void *owner, const char *name, enum spoke_type type, void *value, size_t *size);

static bool
arguments_are_fine(const char *name, const void *value, size_t size)
{
    return name != NULL && (value != NULL || size == 0);
}

static int
enter_and_set(void *handle, enum spk_handle_kind kind, set_f *set, const char *name,
              enum spoke_type type, const void *value, size_t size)
{
    struct spk_engine *e;
    void *owner;
    int rc;

    if (!arguments_are_fine(name, value, size))
        return SPOKE_EINVAL;
    if ((rc = spk_handle_enter(handle, kind, &owner, &e)) != 0)
        return rc;
    rc = set(owner, name, type, value, size);
    spk_engine_leave(e);
    return rc;
}

static int
enter_and_get(void *handle, enum spk_handle_kind kind, get_f *get, const char *name,
              enum spoke_type type, void *value, size_t *size)
{
    struct spk_engine *e;
    void *owner;
    int rc;

    if (size == NULL || !arguments_are_fine(name, value, *size))
        return SPOKE_EINVAL;
    if ((rc = spk_handle_enter(handle, kind, &owner, &e)) != 0)
        return rc;
    rc = get(owner, name, type, value, size);
    spk_engine_leave(e);
    return rc;
}

/* ---- contexts ---- */

static int
set_context(void *owner, const char *name, enum spoke_type type, const void *value, size_t size)
{
    struct spk_context *c = owner;
    const struct field *field;
    const struct spk_option *option;

    if ((field = find_field(context_fields, COUNT(context_fields), name)) != NULL)
        return set_field(c, field, type, value, size, false);
    option = find_option(c->socket->protocol->context_options, name);
    return option == NULL ? SPOKE_EOPTION : set_option(c, option, type, value, size, false);
}

static int
get_context(void *owner, const char *name, enum spoke_type type, void *value, size_t *size)
{
    struct spk_context *c = owner;
    const struct field *field;
    const struct spk_option *option;

    if ((field = find_field(context_fields, COUNT(context_fields), name)) != NULL)
        return get_field(c, field, type, value, size);
    option = find_option(c->socket->protocol->context_options, name);
    return option == NULL ? SPOKE_EOPTION : get_option(c, option, type, value, size);
}

/* ---- sockets ---- */

/* What an option is about is at work: the socket, or its segment, which a loan makes. */
static bool
is_at_work(const struct spk_socket *s, const char *name)
{
    return s->started || s->device != NULL || (s->shm != NULL && strncmp(name, "shm-", 4) == 0);
}

static int
set_socket(void *owner, const char *name, enum spoke_type type, const void *value, size_t size)
{
    struct spk_socket *s = owner;
    const struct field *field;
    const struct spk_option *option;
    int rc;

    if ((rc = set_context(&s->own, name, type, value, size)) != SPOKE_EOPTION)
        return rc;
    if ((field = find_field(socket_fields, COUNT(socket_fields), name)) != NULL) {
        if ((rc = set_field(s, field, type, value, size, is_at_work(s, name))) != 0)
            return rc;
        if (s->front != NULL)
            spk_front_shut_outbox(s->front);
        s->recv_queue.max_messages = (uint32_t)s->recv_queue_most;
        s->recv_queue.max_bytes = s->recv_queue_bytes;
        if (s->protocol->options_changed != NULL)
            s->protocol->options_changed(s);
        return 0;
    }
    if ((field = find_field_of_endpoints(s, name)) != NULL)
        return set_field_of_endpoints(s, &s->defaults, field, type, value, size, false);
    if ((option = find_option(s->protocol->options, name)) == NULL &&
        (option = find_option(socket_options, name)) == NULL)
        return SPOKE_EOPTION;
    return set_option(s, option, type, value, size, is_at_work(s, name));
}

static int
get_socket(void *owner, const char *name, enum spoke_type type, void *value, size_t *size)
{
    struct spk_socket *s = owner;
    const struct field *field;
    const struct spk_option *option;
    int rc;

    if ((rc = get_context(&s->own, name, type, value, size)) != SPOKE_EOPTION)
        return rc;
    if ((field = find_field(socket_fields, COUNT(socket_fields), name)) != NULL)
        return get_field(s, field, type, value, size);
    if ((field = find_field_of_endpoints(s, name)) != NULL)
        return get_field_of_endpoints(&s->defaults, field, type, value, size);
    if ((option = find_option(s->protocol->options, name)) == NULL &&
        (option = find_option(socket_options, name)) == NULL)
        return SPOKE_EOPTION;
    return get_option(s, option, type, value, size);
}

int
spoke_socket_set(spoke_socket *handle, const char *name, enum spoke_type type, const void *value,
                 size_t size)
{
    return enter_and_set(handle, SPK_HANDLE_SOCKET, set_socket, name, type, value, size);
}

int
spoke_socket_get(spoke_socket *handle, const char *name, enum spoke_type type, void *value,
                 size_t *size)
{
    return enter_and_get(handle, SPK_HANDLE_SOCKET, get_socket, name, type, value, size);
}

int
spoke_context_set(spoke_context *handle, const char *name, enum spoke_type type, const void *value,
                  size_t size)
{
    return enter_and_set(handle, SPK_HANDLE_CONTEXT, set_context, name, type, value, size);
}

int
spoke_context_get(spoke_context *handle, const char *name, enum spoke_type type, void *value,
                  size_t *size)
{
    return enter_and_get(handle, SPK_HANDLE_CONTEXT, get_context, name, type, value, size);
}

/* ---- endpoints ---- */

static const struct field *
find_endpoint_field(const struct spk_endpoint *ep, const char *name)
{
    const struct field *field = find_field_of_endpoints(ep->socket, name);

    if (field == NULL || (field->whose & (ep->is_dialer ? DIALERS : LISTENERS)) == 0)
        return NULL;
    return field->options == 0 || (field->options & ep->transport->options) != 0 ? field : NULL;
}

static bool
is_property(const struct spk_endpoint *ep, const char *name)
{
    return strcmp(name, SPOKE_OPT_URL) == 0 || strcmp(name, SPOKE_OPT_SCHEME) == 0 ||
           strcmp(name, SPOKE_OPT_LAST_REASON) == 0 ||
           strcmp(name, ep->is_dialer ? SPOKE_OPT_LAST_ERROR : SPOKE_OPT_ADDRESS) == 0;
}

static const char *
reason_of(const struct spk_endpoint *ep)
{
    if (ep->last_error == 0)
        return "";
    return ep->explanation != NULL && ep->explained == ep->last_error
               ? ep->explanation
               : spoke_strerror(ep->last_error);
}

int
spk_endpoint_set(struct spk_endpoint *ep, const char *name, enum spoke_type type, const void *value,
                 size_t size)
{
    const struct field *field = find_endpoint_field(ep, name);

    if (field != NULL)
        return set_field_of_endpoints(ep->socket, &ep->options, field, type, value, size,
                                      ep->state != SPK_CREATED);
    return is_property(ep, name) ? SPOKE_EREADONLY : SPOKE_EOPTION;
}

static int
set_endpoint(void *owner, const char *name, enum spoke_type type, const void *value, size_t size)
{
    return spk_endpoint_set(owner, name, type, value, size);
}

static int
get_endpoint(void *owner, const char *name, enum spoke_type type, void *value, size_t *size)
{
    struct spk_endpoint *ep = owner;
    const struct field *field = find_endpoint_field(ep, name);
    char text[SPK_URL_MAX + 1];
    int rc;

    if (field != NULL)
        return get_field_of_endpoints(&ep->options, field, type, value, size);
    if (!is_property(ep, name))
        return SPOKE_EOPTION;
    if (strcmp(name, SPOKE_OPT_LAST_ERROR) == 0)
        return type != SPOKE_INT || *size < sizeof ep->last_error
                   ? SPOKE_ETYPE
                   : spk_give(value, size, &ep->last_error, sizeof ep->last_error);
    if (type != SPOKE_STRING)
        return SPOKE_ETYPE;
    if (strcmp(name, SPOKE_OPT_URL) == 0)
        return spk_give_text(value, size, ep->url.text);
    if (strcmp(name, SPOKE_OPT_SCHEME) == 0)
        return spk_give_text(value, size, ep->transport->scheme);
    if (strcmp(name, SPOKE_OPT_LAST_REASON) == 0)
        return spk_give_text(value, size, reason_of(ep));
    if (ep->state != SPK_LISTENING)
        return SPOKE_ESTATE;
    rc = ep->transport->listen_address(ep, text, sizeof text);
    return rc != 0 ? rc : spk_give_text(value, size, text);
}

int
spoke_dialer_set(spoke_dialer *d, const char *name, enum spoke_type type, const void *value,
                 size_t size)
{
    return enter_and_set(d, SPK_HANDLE_DIALER, set_endpoint, name, type, value, size);
}

int
spoke_dialer_get(spoke_dialer *d, const char *name, enum spoke_type type, void *value, size_t *size)
{
    return enter_and_get(d, SPK_HANDLE_DIALER, get_endpoint, name, type, value, size);
}

int
spoke_listener_set(spoke_listener *l, const char *name, enum spoke_type type, const void *value,
                   size_t size)
{
    return enter_and_set(l, SPK_HANDLE_LISTENER, set_endpoint, name, type, value, size);
}

int
spoke_listener_get(spoke_listener *l, const char *name, enum spoke_type type, void *value,
                   size_t *size)
{
    return enter_and_get(l, SPK_HANDLE_LISTENER, get_endpoint, name, type, value, size);
}

/* ---- pipes: properties, all of them read-only ---- */

static int
get_credential(struct spk_pipe *p, const char *name, void *value, size_t *size)
{
    struct spk_credentials who;
    int rc;

    if (p->ops->credentials == NULL)
        return SPOKE_EOPTION;
    if ((rc = p->ops->credentials(p, &who)) != 0)
        return rc == SPOKE_ENOTSUP ? SPOKE_EOPTION : rc;
    if (strcmp(name, SPOKE_OPT_PEER_PID) == 0)
        return spk_give(value, size, &who.pid, sizeof who.pid);
    if (strcmp(name, SPOKE_OPT_PEER_UID) == 0)
        return spk_give(value, size, &who.uid, sizeof who.uid);
    return spk_give(value, size, &who.gid, sizeof who.gid);
}

static int
get_shared_memory(struct spk_pipe *p, enum spoke_type type, void *value, size_t *size)
{
    int answer;

    if (p->ops->shared_memory == NULL || (answer = p->ops->shared_memory(p)) == SPOKE_EOPTION)
        return SPOKE_EOPTION;
    return type != SPOKE_INT || *size < sizeof answer
               ? SPOKE_ETYPE
               : spk_give(value, size, &answer, sizeof answer);
}

static int
get_pipe(struct spk_pipe *p, const char *name, enum spoke_type type, void *value, size_t *size)
{
    bool local = strcmp(name, SPOKE_OPT_LOCAL_ADDRESS) == 0,
         remote = strcmp(name, SPOKE_OPT_REMOTE_ADDRESS) == 0,
         scheme = strcmp(name, SPOKE_OPT_SCHEME) == 0;
    char text[SPK_URL_MAX + 1];
    int rc;

    if (strcmp(name, SPOKE_OPT_PEER_PID) == 0 || strcmp(name, SPOKE_OPT_PEER_UID) == 0 ||
        strcmp(name, SPOKE_OPT_PEER_GID) == 0)
        return type != SPOKE_INT || *size < sizeof(int) ? SPOKE_ETYPE
                                                        : get_credential(p, name, value, size);
    if (strcmp(name, SPOKE_OPT_SHARED_MEMORY) == 0)
        return get_shared_memory(p, type, value, size);
    if (strcmp(name, SPOKE_OPT_URL) != 0 && !local && !remote && !scheme)
        return p->ops->property != NULL ? p->ops->property(p, name, type, value, size)
                                        : SPOKE_EOPTION;
    if (type != SPOKE_STRING)
        return SPOKE_ETYPE;
    if (scheme)
        return spk_give_text(value, size, p->endpoint->transport->scheme);
    if (!local && !remote)
        return spk_give_text(value, size, p->endpoint->url.text);
    rc = p->ops->address(p, local, text, sizeof text);
    return rc != 0 ? rc : spk_give_text(value, size, text);
}

int
spoke_pipe_get(spoke_socket *handle, spoke_pipe_id id, const char *name, enum spoke_type type,
               void *value, size_t *size)
{
    struct spk_engine *e;
    struct spk_pipe *p;
    void *object;
    int rc;

    if (size == NULL || !arguments_are_fine(name, value, *size))
        return SPOKE_EINVAL;
    if ((rc = spk_handle_enter(handle, SPK_HANDLE_SOCKET, &object, &e)) != 0)
        return rc;
    p = spk_idmap_get(&((struct spk_socket *)object)->by_id, id);
    rc = p == NULL ? SPOKE_ENOENT : get_pipe(p, name, type, value, size);
    spk_engine_leave(e);
    return rc;
}
