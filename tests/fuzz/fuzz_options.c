/* SPDX-License-Identifier: MIT */
/* Fuzz target: options of sockets, dialers, listeners and pipes: any name, type, size and value, in
 * any order, before and after they dial and listen.  A set gives the error that the table below
 * says, one that is accepted is what a get then gives, one that is refused changes nothing.
 *
 * Input: the protocol, then commands: what to do (lowest three bits), with which object (the next
 * three), and arguments. */
/* Covers: runtime/core/option.c */
#include <string.h>

#include "tests/fuzz/support/lab.h"

enum command { SET, SET_ODD, GET, GET_ODD, CREATE, START, CLOSE, PASS, COMMANDS };

#define COMMANDS_MOST 50
#define OBJECTS       5 /* the socket, two dialers, two listeners */
#define TEXT_MOST     300
#define STEPS_MOST    50

/* ---- what include/spoke/option.h says ---- */

enum {
    S = 1,
    D = 2,
    L = 4,
    P = 8,
    EARLY = 16,
    READ_ONLY = 32,
    TCP_ONLY = 64,
    IPC_ONLY = 128,
    WRITE_ONLY = 256
};

static const struct option {
    const char *name;
    enum spoke_type type;
    int flags;
    int only;                   /* with this protocol; 0: all */
    int64_t least, most, start; /* of SPOKE_BYTES: their size */
} options[] = {
    {SPOKE_OPT_RAW, SPOKE_BOOL, S | EARLY, 0, 0, 1, 0},
    {SPOKE_OPT_RECV_TIMEOUT, SPOKE_DURATION, S, 0, 0, SPOKE_FOREVER, SPOKE_FOREVER},
    {SPOKE_OPT_SEND_TIMEOUT, SPOKE_DURATION, S, 0, 0, SPOKE_FOREVER, SPOKE_FOREVER},
    {SPOKE_OPT_SEND_EXPIRY, SPOKE_DURATION, S, 0, 0, SPOKE_FOREVER, 0},
    {SPOKE_OPT_BEST_EFFORT, SPOKE_BOOL, S, 0, 0, 1, 0},
    {SPOKE_OPT_LINGER, SPOKE_DURATION, S, 0, 0, SPOKE_FOREVER, SPOKE_SECOND},
    {SPOKE_OPT_SEND_QUEUE, SPOKE_INT, S | EARLY, 0, 0, 1 << 24, 128},
    {SPOKE_OPT_RECV_QUEUE, SPOKE_INT, S | EARLY, 0, 0, 1 << 24, 128},
    {SPOKE_OPT_SEND_QUEUE_BYTES, SPOKE_SIZE, S, 0, 1, INT64_MAX, 8 << 20},
    {SPOKE_OPT_RECV_QUEUE_BYTES, SPOKE_SIZE, S, 0, 1, INT64_MAX, 8 << 20},
    {SPOKE_OPT_MAX_RECV_SIZE, SPOKE_SIZE, S | D | L, 0, 0, INT64_MAX, 1 << 20},
    {SPOKE_OPT_RETRY_TIME, SPOKE_DURATION, S, SPOKE_REQ, 0, SPOKE_FOREVER, 60 * SPOKE_SECOND},
    {SPOKE_OPT_TTL, SPOKE_INT, S, SPOKE_REP, 1, 255, 8},
    {SPOKE_OPT_RECONNECT, SPOKE_DURATION, S | D, 0, 0, SPOKE_FOREVER / 4, 100 * SPOKE_MS},
    {SPOKE_OPT_RECONNECT_MAX, SPOKE_DURATION, S | D, 0, 0, SPOKE_FOREVER / 4, 0},
    {SPOKE_OPT_HANDSHAKE_TIME, SPOKE_DURATION, S | D | L, 0, 1, SPOKE_FOREVER / 4,
     10 * SPOKE_SECOND},
    {SPOKE_OPT_MAX_PIPES, SPOKE_INT, S, 0, 0, INT32_MAX, 0},
    {SPOKE_OPT_BUSY_POLL, SPOKE_DURATION, S, 0, SPOKE_WAIT_ADAPTIVE, SPOKE_FOREVER,
     SPOKE_WAIT_BLOCK},
    {SPOKE_OPT_TCP_NODELAY, SPOKE_BOOL, S | D | L | TCP_ONLY, 0, 0, 1, 1},
    {SPOKE_OPT_TCP_KEEPALIVE, SPOKE_BOOL, S | D | L | TCP_ONLY, 0, 0, 1, 1},
    {SPOKE_OPT_IPC_MODE, SPOKE_INT, S | L | IPC_ONLY, 0, -1, 0777, -1},
    {SPOKE_OPT_PROTOCOL, SPOKE_INT, S | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_PEER, SPOKE_INT, S | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_RECV_FD, SPOKE_INT, S | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_SEND_FD, SPOKE_INT, S | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_PROTOCOL_NAME, SPOKE_STRING, S | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_NAME, SPOKE_STRING, S, 0, 0, 0, 0},
    {SPOKE_OPT_URL, SPOKE_STRING, D | L | P | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_ADDRESS, SPOKE_STRING, L | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_LOCAL_ADDRESS, SPOKE_STRING, P | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_REMOTE_ADDRESS, SPOKE_STRING, P | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_PEER_PID, SPOKE_INT, P | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_PEER_UID, SPOKE_INT, P | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_PEER_GID, SPOKE_INT, P | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_FAIL_NO_PEERS, SPOKE_BOOL, S, 0, 0, 1, 0},
    {SPOKE_OPT_DIAL_ASYNC, SPOKE_BOOL, S | D, 0, 0, 1, 1},
    {SPOKE_OPT_TCP_KEEPALIVE_TIME, SPOKE_DURATION, S | D | L | TCP_ONLY, 0, 0, 32767 * SPOKE_SECOND,
     15 * SPOKE_SECOND},
    {SPOKE_OPT_IPC_OWNER, SPOKE_INT, S | L | IPC_ONLY, 0, -1, INT32_MAX, -1},
    {SPOKE_OPT_IPC_GROUP, SPOKE_INT, S | L | IPC_ONLY, 0, -1, INT32_MAX, -1},
    {SPOKE_OPT_SEND_PRIORITY, SPOKE_INT, S | D | L, 0, 1, 16, 8},
    {SPOKE_OPT_RECV_PRIORITY, SPOKE_INT, S | D | L, 0, 1, 16, 8},
    {SPOKE_OPT_LOSS, SPOKE_INT, S | D | L, SPOKE_PUB, 0, 4, 0},
    {SPOKE_OPT_TOPIC_SIZE, SPOKE_SIZE, S, SPOKE_PUB, 0, INT64_MAX, 0},
    {SPOKE_OPT_TOPIC_END, SPOKE_INT, S, SPOKE_PUB, -1, 255, -1},
    {SPOKE_OPT_IDLE_TIMEOUT, SPOKE_DURATION, S | D | L, 0, 0, SPOKE_FOREVER, 0},
    {SPOKE_OPT_SCHEME, SPOKE_STRING, D | L | P | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_LOSS_TOPIC, SPOKE_BYTES, S | EARLY, SPOKE_PUB, 0, 255, 0},
    {SPOKE_OPT_LOSS, SPOKE_INT, S | D | L, SPOKE_SUB, 0, 2, 0},
    {SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, S | WRITE_ONLY, SPOKE_SUB, 0, INT64_MAX, 0},
    {SPOKE_OPT_UNSUBSCRIBE, SPOKE_BYTES, S | WRITE_ONLY, SPOKE_SUB, 0, INT64_MAX, 0},
    {SPOKE_OPT_SURVEY_TIME, SPOKE_DURATION, S, SPOKE_SURVEYOR, 0, SPOKE_FOREVER, SPOKE_SECOND},
    {SPOKE_OPT_TTL, SPOKE_INT, S, SPOKE_SURVEYOR, 1, 255, 8},
    {SPOKE_OPT_TTL, SPOKE_INT, S, SPOKE_RESPONDENT, 1, 255, 8},
    {SPOKE_OPT_TTL, SPOKE_INT, S, SPOKE_STAR, 1, 255, 8},
    {SPOKE_OPT_TTL, SPOKE_INT, S, SPOKE_PAIR1, 1, 255, 8},
    {SPOKE_OPT_CLOSE_PIPES, SPOKE_BOOL, S | L, 0, 0, 1, 0},
    {SPOKE_OPT_INTERRUPTIBLE, SPOKE_BOOL, S, 0, 0, 1, 0},
    {SPOKE_OPT_LAST_ERROR, SPOKE_INT, D | READ_ONLY, 0, 0, 0, 0},
    {SPOKE_OPT_TCP_USER_TIMEOUT, SPOKE_DURATION, S | D | L | TCP_ONLY, 0, 0, INT32_MAX *SPOKE_MS,
     0},
};
enum { OPTIONS = sizeof options / sizeof options[0] };

/* ---- the objects and what their options should be ---- */

struct text {
    uint8_t bytes[TEXT_MOST];
    size_t size;
};

struct object {
    int kind; /* S, D, L */
    void *handle;
    bool closed, started;
    bool ipc;
    int64_t values[OPTIONS];
    char name[64];
    struct text loss_topic;
};

static struct scene {
    struct lab lab;
    int protocol;
    bool started, sent;
    spoke_pipe_id pipe;
    struct object objects[OBJECTS];
    struct text topics[COMMANDS_MOST]; /* to which the socket is subscribed */
    int topic_count;
} x;

static size_t
size_of(enum spoke_type type)
{
    switch (type) {
    case SPOKE_BOOL: return sizeof(bool);
    case SPOKE_INT: return sizeof(int);
    case SPOKE_SIZE: return sizeof(size_t);
    case SPOKE_DURATION: return sizeof(spoke_ns);
    case SPOKE_POINTER: return sizeof(void *);
    default: return 0;
    }
}

static bool
has(const struct object *object, const struct option *o)
{
    int others = object->ipc ? TCP_ONLY : IPC_ONLY;

    return (o->flags & object->kind) != 0 && (o->only == 0 || o->only == x.protocol) &&
           (object->kind == S || (o->flags & others) == 0);
}

static const struct option *
find(const struct object *object, const char *name)
{
    for (int i = 0; i < OPTIONS; i++)
        if (strcmp(options[i].name, name) == 0 && has(object, &options[i]))
            return &options[i];
    return NULL;
}

static bool
is_plain(const struct option *o)
{
    return o->type != SPOKE_STRING && o->type != SPOKE_BYTES && (o->flags & READ_ONLY) == 0;
}

/* Where the set has it; topic_count: nowhere. */
static int
find_topic(const uint8_t *bytes, size_t size)
{
    int i = 0;

    while (i < x.topic_count &&
           (x.topics[i].size != size || (size > 0 && memcmp(x.topics[i].bytes, bytes, size) != 0)))
        i++;
    return i;
}

static int
set(struct object *object, const char *name, enum spoke_type type, const void *value, size_t size)
{
    switch (object->kind) {
    case D: return spoke_dialer_set(object->handle, name, type, value, size);
    case L: return spoke_listener_set(object->handle, name, type, value, size);
    default: return spoke_socket_set(object->handle, name, type, value, size);
    }
}

static int
get(struct object *object, const char *name, enum spoke_type type, void *value, size_t *size)
{
    switch (object->kind) {
    case D: return spoke_dialer_get(object->handle, name, type, value, size);
    case L: return spoke_listener_get(object->handle, name, type, value, size);
    default: return spoke_socket_get(object->handle, name, type, value, size);
    }
}

/* A number as a value of that type, at the beginning of `value`. */
static void
put_number(void *value, enum spoke_type type, int64_t number)
{
    int i = (int)number;
    size_t size = (size_t)number;

    if (type == SPOKE_BOOL)
        *(uint8_t *)value = (uint8_t)number;
    else if (type == SPOKE_INT)
        memcpy(value, &i, sizeof i);
    else if (type == SPOKE_SIZE)
        memcpy(value, &size, sizeof size);
    else
        memcpy(value, &number, sizeof number);
}

/* … and what it then says: sizes above INT64_MAX are as good as that. */
static int64_t
number_in(const void *value, enum spoke_type type)
{
    int64_t number = 0;
    int i;

    if (type == SPOKE_BOOL)
        return *(const uint8_t *)value;
    if (type == SPOKE_INT) {
        memcpy(&i, value, sizeof i);
        return i;
    }
    memcpy(&number, value, sizeof number);
    return number;
}

/* An option of an object is what it should be. */
static void
check_option(struct object *object, const struct option *o)
{
    uint8_t value[TEXT_MOST], expected[8];
    size_t size = sizeof value;

    if (is_plain(o)) {
        MUST(get(object, o->name, o->type, value, &size) == 0);
        put_number(expected, o->type, object->values[o - options]);
        MUST(size == size_of(o->type) && memcmp(value, expected, size) == 0);
    } else if (strcmp(o->name, SPOKE_OPT_NAME) == 0) {
        MUST(get(object, o->name, o->type, value, &size) == 0);
        MUST(size == strlen(object->name) + 1 && strcmp((char *)value, object->name) == 0);
    } else if (strcmp(o->name, SPOKE_OPT_LOSS_TOPIC) == 0) {
        MUST(get(object, o->name, o->type, value, &size) == 0);
        MUST(size == object->loss_topic.size && memcmp(value, object->loss_topic.bytes, size) == 0);
    }
}

static void
check_object(struct object *object)
{
    for (int i = 0; i < OPTIONS && object->handle != NULL && !object->closed; i++)
        if (has(object, &options[i]))
            check_option(object, &options[i]);
}

/* ---- sets ---- */

/* Is that a value that the option cannot have? */
static bool
is_bad(const struct option *o, enum spoke_type type, const uint8_t *value, size_t size)
{
    int64_t number;

    if (o->type == SPOKE_STRING)
        return size > 63 || (size > 0 && memchr(value, 0, size) != NULL);
    number = o->type == SPOKE_BYTES ? (int64_t)size : number_in(value, type);
    if (type == SPOKE_SIZE && number < 0)
        number = INT64_MAX;
    return number < o->least || number > o->most;
}

/* Is this one of the errors that such a set may give? */
static bool
may_give(const struct object *object, const struct option *o, enum spoke_type type,
         const uint8_t *value, size_t size, int rc)
{
    bool late, bad;

    if (object->closed)
        return rc == SPOKE_ECLOSED;
    if (o == NULL)
        return rc == SPOKE_EOPTION;
    bad = type != o->type || (size_of(type) > 0 && size != size_of(type));
    if (o->type == SPOKE_BYTES && type == SPOKE_STRING)
        bad = false;
    if ((o->flags & READ_ONLY) != 0)
        return rc == SPOKE_EREADONLY || (bad && rc == SPOKE_ETYPE);
    if (bad)
        return rc == SPOKE_ETYPE;
    if (strcmp(o->name, SPOKE_OPT_UNSUBSCRIBE) == 0)
        return rc == (find_topic(value, size) < x.topic_count ? 0 : SPOKE_ENOENT);
    bad = is_bad(o, type, value, size);
    late = ((o->flags & EARLY) != 0 && x.started) ||
           ((o->flags & IPC_ONLY) != 0 && object->kind == L && object->started);
    return (bad && rc == SPOKE_ERANGE) || (late && rc == SPOKE_ETOOLATE) ||
           (!bad && !late && rc == 0);
}

static void
copy_text(struct text *text, const uint8_t *value, size_t size)
{
    if (size > 0)
        memcpy(text->bytes, value, size);
    text->size = size;
}

/* A set that was accepted. */
static void
remember(struct object *object, const struct option *o, enum spoke_type type, const uint8_t *value,
         size_t size)
{
    if (o->type == SPOKE_STRING) {
        if (size > 0)
            memcpy(object->name, value, size);
        object->name[size] = '\0';
    } else if (strcmp(o->name, SPOKE_OPT_LOSS_TOPIC) == 0) {
        copy_text(&object->loss_topic, value, size);
    } else if (strcmp(o->name, SPOKE_OPT_UNSUBSCRIBE) == 0) {
        x.topics[find_topic(value, size)] = x.topics[x.topic_count - 1];
        x.topic_count--;
    } else if (strcmp(o->name, SPOKE_OPT_SUBSCRIBE) == 0) {
        if (find_topic(value, size) == x.topic_count)
            copy_text(&x.topics[x.topic_count++], value, size);
    } else {
        object->values[o - options] = number_in(value, type);
    }
}

static void
try_set(struct object *object, const char *name, enum spoke_type type, const uint8_t *value,
        size_t size)
{
    const struct option *o = find(object, name);
    uint8_t *exact = size > 0 ? malloc(size) : NULL;
    int rc;

    if (size > 0 && exact != NULL)
        memcpy(exact, value, size);
    rc = set(object, name, type, exact, size);
    free(exact);
    MUST(may_give(object, o, type, value, size, rc));
    if (rc == 0)
        remember(object, o, type, value, size);
    if (o != NULL && !object->closed)
        check_option(object, o);
}

/* Near the ends of what is allowed, or any number. */
static int64_t
a_number(struct input *in, const struct option *o)
{
    uint8_t which = input_byte(in);
    int64_t number = 0;

    switch (which) {
    case 0: return o->least;
    case 1: return o->most;
    case 2: return o->least > INT64_MIN ? o->least - 1 : o->least;
    case 3: return o->most < INT64_MAX ? o->most + 1 : o->most;
    case 4: return INT64_MIN;
    case 5: return -1;
    case 6: return 0;
    case 7: return 1;
    case 8:
        for (int i = 0; i < 8; i++)
            number = (int64_t)((uint64_t)number << 8 | input_byte(in));
        return number;
    default: return which;
    }
}

/* The right name and type. */
static void
run_set(struct object *object, struct input *in)
{
    const struct option *o = &options[input_byte(in) % OPTIONS];
    uint8_t value[8];

    if (o->type == SPOKE_STRING) {
        size_t size;
        const uint8_t *text = input_bytes(in, input_byte(in), &size);
        try_set(object, o->name, o->type, text, size);
    } else if (o->type == SPOKE_BYTES) {
        size_t size;
        const uint8_t *bytes = input_bytes(in, input_word(in) % TEXT_MOST, &size);
        try_set(object, o->name, o->type, bytes, size);
    } else {
        put_number(value, o->type, a_number(in, o));
        try_set(object, o->name, o->type, value, size_of(o->type));
    }
}

/* A name: of an option, or any text. */
static const char *
a_name(struct input *in, char text[TEXT_MOST])
{
    uint8_t which = input_byte(in);
    size_t size;
    const uint8_t *bytes;

    if (which < 128)
        return options[which % OPTIONS].name;
    bytes = input_bytes(in, which - 128, &size);
    if (size > 0)
        memcpy(text, bytes, size);
    text[size] = '\0';
    return text;
}

/* Any name, any type, any size. */
static void
run_set_odd(struct object *object, struct input *in)
{
    char text[TEXT_MOST];
    const char *name = a_name(in, text);
    enum spoke_type type = (enum spoke_type)(input_byte(in) % 9);
    size_t size;
    const uint8_t *value = input_bytes(in, input_byte(in), &size);

    try_set(object, name, type, value, size);
    MUST(set(object, NULL, type, value, size) == SPOKE_EINVAL);
    MUST(set(object, name, type, NULL, size + 1) == SPOKE_EINVAL);
}

/* ---- gets ---- */

static bool
receives(void)
{
    return x.protocol != SPOKE_PUB && x.protocol != SPOKE_PUSH;
}

static bool
sends(void)
{
    return x.protocol != SPOKE_SUB && x.protocol != SPOKE_PULL;
}

static bool
may_get(const struct object *object, const struct option *o, enum spoke_type type, size_t room,
        int rc)
{
    if (object->closed)
        return rc == SPOKE_ECLOSED;
    if (o == NULL)
        return rc == SPOKE_EOPTION;
    if (type != o->type || room < size_of(type))
        return rc == SPOKE_ETYPE;
    if ((o->flags & WRITE_ONLY) != 0)
        return rc == SPOKE_EWRITEONLY;
    if (strcmp(o->name, SPOKE_OPT_RECV_FD) == 0 && !receives())
        return rc == SPOKE_EOPTION;
    if (strcmp(o->name, SPOKE_OPT_SEND_FD) == 0 && !sends())
        return rc == SPOKE_EOPTION;
    if (strcmp(o->name, SPOKE_OPT_RECV_FD) == 0 || strcmp(o->name, SPOKE_OPT_SEND_FD) == 0)
        return rc == SPOKE_ENOTSUP; /* a simulated world has no descriptors */
    if (strcmp(o->name, SPOKE_OPT_ADDRESS) == 0 && !object->started)
        return rc == SPOKE_ESTATE;
    return rc == 0;
}

/* Into memory of exactly this size. */
static void
try_get(struct object *object, const char *name, enum spoke_type type, size_t room)
{
    const struct option *o = find(object, name);
    char *value = room > 0 ? malloc(room) : NULL;
    size_t size = room;
    int rc;

    if (room > 0)
        memset(value, 'x', room);
    rc = get(object, name, type, value, &size);
    MUST(may_get(object, o, type, room, rc));
    if (rc == 0 && type == SPOKE_STRING) {
        MUST(size > 0 && (value == NULL || memchr(value, '\0', room) != NULL));
        MUST(value == NULL || room < size || strlen(value) + 1 == size);
    } else if (rc != 0) {
        MUST(size == room);
        for (size_t i = 0; i < room; i++)
            MUST(value[i] == 'x');
    }
    free(value);
}

static void
run_get_odd(struct object *object, struct input *in)
{
    char text[TEXT_MOST];
    const char *name = a_name(in, text);
    enum spoke_type type = (enum spoke_type)(input_byte(in) % 9);
    size_t room = input_byte(in);

    try_get(object, name, type, room);
    MUST(get(object, name, type, text, NULL) == SPOKE_EINVAL);
}

/* Of a connection, if there is one. */
static void
get_of_pipe(struct input *in)
{
    char text[TEXT_MOST], *value;
    const char *name = a_name(in, text);
    enum spoke_type type = (enum spoke_type)(input_byte(in) % 9);
    size_t room = input_byte(in), size = room;
    const struct option *o = find(&(const struct object){.kind = P}, name);
    int rc;

    value = room > 0 ? malloc(room) : NULL;
    rc = spoke_pipe_get(x.objects[0].handle, x.pipe, name, type, value, &size);
    free(value);
    MUST(rc != 0 || (o != NULL && type == o->type && room >= size_of(type)));
    MUST(rc == 0 || rc == SPOKE_ECLOSED || rc == SPOKE_ENOENT || rc == SPOKE_EOPTION ||
         (o != NULL && (rc == SPOKE_ETYPE || rc == SPOKE_EINVAL)));
}

/* ---- life ---- */

static int
on_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    (void)s, (void)ctx;
    if (event->type == SPOKE_EVENT_ATTACHED)
        x.pipe = event->pipe;
    return 0;
}

static void
start_values(struct object *object)
{
    for (int i = 0; i < OPTIONS; i++)
        object->values[i] = options[i].start;
}

static void
open_socket(struct input *in)
{
    static const int protocols[] = {SPOKE_PAIR,       SPOKE_REQ,  SPOKE_REP,   SPOKE_PUB,
                                    SPOKE_SUB,        SPOKE_PUSH, SPOKE_PULL,  SPOKE_SURVEYOR,
                                    SPOKE_RESPONDENT, SPOKE_STAR, SPOKE_PAIR1, SPOKE_BUS};
    struct object *object = &x.objects[0];
    spoke_sim_config config;
    size_t size = sizeof object->name;
    spoke_socket *s;

    lab_config(&config, 1, 0);
    config.latency_min_ns = config.latency_max_ns = 20 * SPOKE_US; /* an attempt takes its time */
    lab_open(&x.lab, &config);
    x.protocol = protocols[input_byte(in) % (sizeof protocols / sizeof protocols[0])];
    MUST(spoke_socket_open(&s, x.protocol, x.lab.engine) == 0);
    MUST(spoke_socket_on_event(s, on_event, NULL) == 0);
    object->kind = S;
    object->handle = s;
    start_values(object);
    MUST(get(object, SPOKE_OPT_NAME, SPOKE_STRING, object->name, &size) == 0);
    check_object(object);
}

/* Objects 1 and 2 are dialers, 3 and 4 listeners; what they start with is the socket's. */
static void
create(struct object *object)
{
    struct object *socket = &x.objects[0];
    int rc;

    if (object == socket || object->handle != NULL)
        return;
    object->kind = object - x.objects < 3 ? D : L;
    object->ipc = (object - x.objects) % 2 == 0;
    if (object->kind == D)
        rc = spoke_dialer_create((spoke_dialer **)&object->handle, socket->handle,
                                 lab_url(object->ipc));
    else
        rc = spoke_listener_create((spoke_listener **)&object->handle, socket->handle,
                                   lab_url(object->ipc));
    MUST(rc == (socket->closed ? SPOKE_ECLOSED : 0));
    memcpy(object->values, socket->values, sizeof object->values);
    check_object(object);
}

/* A dialer that is not `dial-async` waits for its first attempt, and is closed if that fails. */
static bool
waits(const struct object *object)
{
    for (int i = 0; i < OPTIONS; i++)
        if (strcmp(options[i].name, SPOKE_OPT_DIAL_ASYNC) == 0)
            return object->kind == D && object->values[i] == 0;
    return false;
}

static void
start(struct object *object)
{
    bool may_fail = waits(object) && !object->closed && !object->started;
    int rc;

    if (object->kind == S || object->handle == NULL)
        return;
    if (object->kind == D)
        rc = spoke_dialer_start(object->handle, 0);
    else
        rc = spoke_listener_start(object->handle, 0);
    if (!may_fail)
        MUST(rc == (object->closed ? SPOKE_ECLOSED : object->started ? SPOKE_ESTATE : 0));
    x.started |= !object->closed;
    object->closed |= may_fail && rc != 0;
    object->started |= !object->closed;
}

static void
close_object(struct object *object)
{
    int rc;

    if (object->handle == NULL)
        return;
    check_object(object);
    switch (object->kind) {
    case D: rc = spoke_dialer_close(object->handle); break;
    case L: rc = spoke_listener_close(object->handle); break;
    default: /* without the linger time, which a dialer that tries again at once would fill */
        rc = spoke_socket_set_duration(object->handle, SPOKE_OPT_LINGER, 0);
        MUST(rc == (object->closed ? SPOKE_ECLOSED : 0));
        rc = spoke_socket_close(object->handle);
        rc = rc == SPOKE_ETIMEDOUT && x.sent ? 0 : rc;
        for (int i = 1; i < OBJECTS && !object->closed; i++)
            x.objects[i].closed = true;
        break;
    }
    MUST(rc == (object->closed ? SPOKE_ECLOSED : 0));
    object->closed = true;
}

/* The user sends something, and time passes, but not much: a dialer that may try again at once
 * would fill any. */
static void
pass(void)
{
    spoke_socket *s = x.objects[0].handle;
    int rc = spoke_send_bytes(s, "hello", 5, SPOKE_DONTWAIT);

    x.sent |= rc == 0;
    MUST((rc == SPOKE_ECLOSED) == x.objects[0].closed);
    if (rc != SPOKE_ECLOSED && !sends())
        MUST(rc == SPOKE_ENOTSUP);
    else if (rc == SPOKE_EINVAL) /* without the word that a raw one wants */
        MUST(x.protocol == SPOKE_STAR || x.protocol == SPOKE_PAIR1);
    else
        MUST(rc == 0 || rc == SPOKE_EAGAIN || rc == SPOKE_ESTATE || rc == SPOKE_ECLOSED ||
             rc == SPOKE_ENOPEER);
    for (int i = 0; i < STEPS_MOST && spoke_sim_step(x.lab.w) == 1; i++)
        ;
}

static void
run(uint8_t byte, struct input *in)
{
    struct object *object = &x.objects[(byte >> 3) % (OBJECTS + 1) % OBJECTS];
    bool pipe = (byte >> 3) % (OBJECTS + 1) == OBJECTS;

    if (object->handle == NULL && byte % COMMANDS != CREATE)
        return;
    switch ((enum command)(byte % COMMANDS)) {
    case SET: run_set(object, in); break;
    case SET_ODD: run_set_odd(object, in); break;
    case GET: {
        const struct option *o = &options[input_byte(in) % OPTIONS];
        try_get(object, o->name, o->type, TEXT_MOST);
        break;
    }
    case GET_ODD:
        if (pipe)
            get_of_pipe(in);
        else
            run_get_odd(object, in);
        break;
    case CREATE: create(object); break;
    case START: start(object); break;
    case CLOSE: close_object(object); break;
    case PASS: pass(); break;
    case COMMANDS: break;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    memset(&x, 0, sizeof x);
    open_socket(&in);
    for (int i = 0; i < COMMANDS_MOST && in.left > 0; i++)
        run(input_byte(&in), &in);
    for (int i = 0; i < OBJECTS; i++)
        check_object(&x.objects[i]);
    if (!x.objects[0].closed)
        close_object(&x.objects[0]);
    lab_close(&x.lab);
    return 0;
}
