/* SPDX-License-Identifier: MIT */
/* Sockets, texts and plain peers for the tests of the protocols. */
#include "tests/protocols/fixture.h"

#include <poll.h>
#include <stdatomic.h>
#include <time.h>

#define SOCKETS_MAX 64

static spoke_socket *opened[SOCKETS_MAX];
static size_t opened_count;
static spoke_engine *engine; /* NULL: the library's own */

void
sleep_ms(int duration_ms)
{
    struct timespec duration = {duration_ms / 1000, duration_ms % 1000 * 1000000};

    if (engine != NULL)
        (void)spoke_engine_poll(engine, duration_ms * SPOKE_MS);
    else
        nanosleep(&duration, NULL);
}

void
settle(void)
{
    sleep_ms(2);
    if (engine == NULL)
        await_engine();
}

/* ---- transports ---- */

static struct criterion_test_params
wanted_of(const enum transport *transports, int count)
{
    static enum transport wanted[5];
    size_t n = 0;

    for (int i = 0; i < count; i++)
        if (transport_is_wanted(transports[i]))
            wanted[n++] = transports[i];
    return cr_make_param_array(enum transport, wanted, n);
}

struct criterion_test_params
every_transport(void)
{
    return wanted_of((enum transport[]){INPROC, IPC, TCP, SHM, WS}, 5);
}

struct criterion_test_params
every_stream(void)
{
    return wanted_of((enum transport[]){IPC, TCP}, 2);
}

/* ---- sockets ---- */

static void
poll_engine(void *ctx)
{
    (void)ctx;
    (void)spoke_engine_poll(engine, 0);
}

void
own_engine(void)
{
    cr_assert_eq(opened_count, 0);
    cr_assert_eq(spoke_engine_open(&engine, NULL), 0);
    raw_set_idle(poll_engine, NULL);
}

spoke_socket *
open_socket(int pattern)
{
    spoke_socket *s;

    cr_assert_lt(opened_count, SOCKETS_MAX);
    cr_assert_eq(spoke_socket_open(&s, pattern, engine), 0);
    opened[opened_count++] = s;
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_SEND_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECONNECT, 10 * SPOKE_MS), 0);
    return s;
}

spoke_socket *
open_raw(int pattern)
{
    spoke_socket *s = open_socket(pattern);

    cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_RAW, true), 0);
    return s;
}

static uint64_t
messages_in_use(void)
{
    struct spoke_memory_stats memory;

    spoke_memory_stats(&memory);
    return memory.messages;
}

void
finish(void)
{
    for (size_t i = 0; i < opened_count; i++) {
        (void)spoke_socket_set_duration(opened[i], SPOKE_OPT_LINGER, 0);
        (void)spoke_socket_close(opened[i]);
    }
    if (engine != NULL)
        cr_assert_eq(spoke_engine_close(engine), 0);
    engine = NULL;
    for (int i = 0; i < 5000 * SPOKE_TEST_SLOWDOWN && messages_in_use() != 0; i++)
        sleep_ms(1);
    cr_assert_eq(messages_in_use(), 0, "%llu messages are left",
                 (unsigned long long)messages_in_use());
}

void
listen_on(spoke_socket *s, enum transport t, char url[ENDPOINT_MAX])
{
    endpoint_fresh(url, t);
    int rc = spoke_listen(s, url, NULL, 0);
    cr_assert_eq(rc, 0, "%s: %s", url, spoke_strerror(rc));
}

void
dial(spoke_socket *s, const char *url)
{
    int rc = spoke_dial(s, url, NULL, 0);

    cr_assert_eq(rc, 0, "%s: %s", url, spoke_strerror(rc));
}

void
wait_pipes(spoke_socket *s, uint64_t count)
{
    wait_counter(s, pipes_current, count);
}

void
connect_sockets(spoke_socket *listener, spoke_socket *dialer, enum transport t)
{
    char url[ENDPOINT_MAX];
    uint64_t listeners_pipes = stats_of(listener).pipes_current;
    uint64_t dialers_pipes = stats_of(dialer).pipes_current;

    listen_on(listener, t, url);
    dial(dialer, url);
    wait_pipes(listener, listeners_pipes + 1);
    wait_pipes(dialer, dialers_pipes + 1);
}

static int
number_of(spoke_socket *s, const char *option)
{
    int number;

    cr_assert_eq(spoke_socket_get_int(s, option, &number), 0);
    return number;
}

void
join(struct raw_peer *p, spoke_socket *s, const char *url, uint64_t pipes)
{
    uint16_t ours = (uint16_t)number_of(s, SPOKE_OPT_PEER);
    uint16_t theirs = (uint16_t)number_of(s, SPOKE_OPT_PROTOCOL);

    cr_assert_eq(raw_dial_sp(p, url, ours, theirs), RAW_OK, "%s", url);
    wait_pipes(s, pipes);
}

spoke_socket *
open_sub(const char *topic)
{
    spoke_socket *s = open_socket(SPOKE_SUB);

    if (topic != NULL)
        cr_assert_eq(spoke_socket_set_string(s, SPOKE_OPT_SUBSCRIBE, topic), 0);
    return s;
}

/* ---- texts ---- */

spoke_msg *
new_text(const char *text)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_from(&m, text, strlen(text)), 0);
    return m;
}

spoke_msg *
new_with_words(const uint32_t *words, size_t count, const char *text)
{
    spoke_msg *m = new_text(text);

    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[4];
        raw_put32(bytes, words[i]);
        cr_assert_eq(spoke_msg_header_append(m, bytes, sizeof bytes), 0);
    }
    return m;
}

uint32_t
header_word(const spoke_msg *m, size_t index)
{
    cr_assert_geq(spoke_msg_header_size(m), 4 * (index + 1));
    return raw_get32((const uint8_t *)spoke_msg_header(m) + 4 * index);
}

bool
text_is(const spoke_msg *m, const char *text)
{
    return spoke_msg_size(m) == strlen(text) && memcmp(spoke_msg_body(m), text, strlen(text)) == 0;
}

void
send_text(spoke_socket *s, const char *text)
{
    int rc = spoke_send_bytes(s, text, strlen(text), 0);

    cr_assert_eq(rc, 0, "\"%s\": %s", text, spoke_strerror(rc));
}

void
expect_text(spoke_socket *s, const char *text)
{
    spoke_msg *m;
    int rc = spoke_recv(s, &m, 0);

    cr_assert_eq(rc, 0, "\"%s\": %s", text, spoke_strerror(rc));
    cr_assert(text_is(m, text), "\"%.*s\" instead of \"%s\"", (int)spoke_msg_size(m),
              (const char *)spoke_msg_body(m), text);
    cr_assert_eq(spoke_msg_header_size(m), 0);
    spoke_msg_free(m);
}

spoke_msg *
recv_message(spoke_socket *s)
{
    spoke_msg *m;
    int rc = spoke_recv(s, &m, 0);

    cr_assert_eq(rc, 0, "%s", spoke_strerror(rc));
    return m;
}

spoke_context *
open_context(spoke_socket *s)
{
    spoke_context *c;
    int rc = spoke_context_open(&c, s);

    cr_assert_eq(rc, 0, "%s", spoke_strerror(rc));
    return c;
}

void
context_send_text(spoke_context *c, const char *text)
{
    int rc = spoke_context_send_bytes(c, text, strlen(text), 0);

    cr_assert_eq(rc, 0, "\"%s\": %s", text, spoke_strerror(rc));
}

void
context_expect_text(spoke_context *c, const char *text)
{
    spoke_msg *m;
    int rc = spoke_context_recv(c, &m, 0);

    cr_assert_eq(rc, 0, "\"%s\": %s", text, spoke_strerror(rc));
    cr_assert(text_is(m, text), "\"%.*s\" instead of \"%s\"", (int)spoke_msg_size(m),
              (const char *)spoke_msg_body(m), text);
    cr_assert_eq(spoke_msg_header_size(m), 0);
    spoke_msg_free(m);
}

void
context_expect_recv_error(spoke_context *c, int error)
{
    spoke_msg *m;
    int rc = spoke_context_recv(c, &m, SPOKE_DONTWAIT);

    cr_assert_eq(rc, error, "%s instead of %s", spoke_error_name(rc), spoke_error_name(error));
    cr_assert_null(m);
}

void
expect_recv_error(spoke_socket *s, int error)
{
    spoke_msg *m;
    int rc = spoke_recv(s, &m, SPOKE_DONTWAIT);

    cr_assert_eq(rc, error, "%s instead of %s", spoke_error_name(rc), spoke_error_name(error));
    cr_assert_null(m);
}

void
expect_send_error(spoke_socket *s, int error)
{
    int rc = spoke_send_bytes(s, "not sent", 8, SPOKE_DONTWAIT);

    cr_assert_eq(rc, error, "%s instead of %s", spoke_error_name(rc), spoke_error_name(error));
}

/* ---- plain peers ---- */

void
raw_expect_bytes(struct raw_peer *p, const uint8_t *bytes, size_t size)
{
    uint8_t got[64];

    cr_assert_leq(size, sizeof got);
    cr_assert_eq(raw_recv_bytes(p, got, size, RAW_LIMIT_MS), RAW_OK);
    cr_assert_arr_eq(got, bytes, size);
}

void
raw_expect(struct raw_peer *p, const uint32_t *words, size_t count, const char *text)
{
    uint8_t bytes[4096];
    long size = raw_recv(p, bytes, sizeof bytes, RAW_LIMIT_MS);

    cr_assert_eq(size, (long)(4 * count + strlen(text)), "\"%s\": %ld", text, size);
    for (size_t i = 0; i < count; i++)
        if (words[i] != ANY)
            cr_assert_eq(raw_get32(bytes + 4 * i), words[i], "word %zu", i);
    cr_assert_arr_eq(bytes + 4 * count, text, strlen(text));
}

uint32_t
raw_expect_request(struct raw_peer *p, const char *text)
{
    uint8_t bytes[4096];
    long size = raw_recv(p, bytes, sizeof bytes, RAW_LIMIT_MS);

    cr_assert_eq(size, (long)(4 + strlen(text)), "\"%s\": %ld", text, size);
    cr_assert_arr_eq(bytes + 4, text, strlen(text));
    uint32_t id = raw_get32(bytes);
    cr_assert((id & 0x80000000) != 0);
    return id;
}

void
raw_send_text(struct raw_peer *p, const char *text)
{
    cr_assert_eq(raw_send(p, text, strlen(text)), RAW_OK);
}

void
raw_send_texts(struct raw_peer *p, const char *text, int count)
{
    static uint8_t bytes[32768];
    size_t size = 0, length = strlen(text);

    for (int i = 0; i < count; i++) {
        cr_assert_lt(size + RAW_IPC_PREFIX_BYTES + length, sizeof bytes);
        size += raw_prefix(p, bytes + size, length);
        memcpy(bytes + size, text, length);
        size += length;
    }
    cr_assert_eq(raw_send_bytes(p, bytes, size, RAW_LIMIT_MS), RAW_OK);
}

void
raw_send_word(struct raw_peer *p, uint32_t word, const char *text)
{
    cr_assert_eq(raw_send_words(p, &word, 1, text), RAW_OK);
}

/* ---- what can be seen from outside ---- */

struct spoke_stats
stats_of(spoke_socket *s)
{
    struct spoke_stats stats;

    cr_assert_eq(spoke_socket_stats(s, &stats), 0);
    return stats;
}

void
wait_counter_at(spoke_socket *s, size_t offset, uint64_t value, const char *name)
{
    uint64_t now = 0;

    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN; i++) {
        struct spoke_stats stats = stats_of(s);
        memcpy(&now, (const char *)&stats + offset, sizeof now);
        if (now == value)
            return;
        sleep_ms(1);
    }
    cr_assert_fail("%s is %llu, not %llu", name, (unsigned long long)now,
                   (unsigned long long)value);
}

void
wait_lost(spoke_socket *s, uint64_t least)
{
    uint64_t lost = 0;

    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN; i++) {
        if ((lost = stats_of(s).dropped_lost) >= least)
            return;
        sleep_ms(1);
    }
    cr_assert_fail("%llu are lost, not %llu", (unsigned long long)lost, (unsigned long long)least);
}

#define WATCHED_MAX 16

static struct {
    atomic_size_t count;
    spoke_pipe_id pipes[WATCHED_MAX];
    struct spoke_pipe_stats last[WATCHED_MAX];
    atomic_bool gone[WATCHED_MAX];
} watched; /* written by the engine's thread */

static int
on_watched(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    size_t index = watched.count;

    (void)s;
    (void)ctx;
    if (event->type == SPOKE_EVENT_ATTACHED && index < WATCHED_MAX) {
        watched.pipes[index] = event->pipe;
        watched.count = index + 1;
    }
    cr_assert_eq(event->stats != NULL, event->type == SPOKE_EVENT_DETACHED);
    for (size_t i = 0; event->stats != NULL && i < index; i++) {
        if (event->pipe == watched.pipes[i]) {
            watched.last[i] = *event->stats;
            watched.gone[i] = true;
        }
    }
    return 0;
}

spoke_socket *
watch_pipes(spoke_socket *s)
{
    cr_assert_eq(spoke_socket_on_event(s, on_watched, NULL), 0);
    return s;
}

spoke_pipe_id
watched_pipe(size_t index)
{
    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN && watched.count <= index; i++)
        sleep_ms(1);
    cr_assert_lt(index, watched.count);
    return watched.pipes[index];
}

struct spoke_pipe_stats
pipe_stats_of(spoke_socket *s, size_t index)
{
    struct spoke_pipe_stats stats;

    cr_assert_eq(spoke_pipe_stats(s, watched_pipe(index), &stats), 0);
    return stats;
}

struct spoke_pipe_stats
last_stats_of(size_t index)
{
    (void)watched_pipe(index);
    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN && !watched.gone[index]; i++)
        sleep_ms(1);
    cr_assert(watched.gone[index]);
    return watched.last[index];
}

void
wait_arrived(spoke_socket *s, size_t index, uint64_t count)
{
    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN; i++) {
        if (pipe_stats_of(s, index).messages_received >= count)
            return;
        sleep_ms(1);
    }
    cr_assert_fail("fewer than %llu messages have come", (unsigned long long)count);
}

void
expect_fd(spoke_socket *s, const char *option, bool readable)
{
    struct pollfd pollfd = {.fd = number_of(s, option), .events = POLLIN};

    for (int i = 0; i < 2000 * SPOKE_TEST_SLOWDOWN; i++) {
        if ((poll(&pollfd, 1, 0) == 1) == readable)
            return;
        sleep_ms(1);
    }
    cr_assert_fail("%s is %s", option, readable ? "not readable" : "readable");
}

/* ---- calls that wait ---- */

static void *
run_call(void *ctx)
{
    struct waiting_call *call = ctx;
    spoke_msg *m;

    if (call->text != NULL) {
        call->rc = spoke_send_bytes(call->s, call->text, strlen(call->text), 0);
    } else if ((call->rc = call->c != NULL ? spoke_context_recv(call->c, &m, 0)
                                           : spoke_recv(call->s, &m, 0)) == 0) {
        size_t size = spoke_msg_size(m);
        if (size < sizeof call->received)
            memcpy(call->received, spoke_msg_body(m), size);
        spoke_msg_free(m);
    }
    return NULL;
}

void
start_call(struct waiting_call *call, spoke_socket *s, const char *text)
{
    *call = (struct waiting_call){.s = s, .text = text};
    cr_assert_eq(pthread_create(&call->thread, NULL, run_call, call), 0);
}

void
start_context_call(struct waiting_call *call, spoke_context *c)
{
    *call = (struct waiting_call){.c = c};
    cr_assert_eq(pthread_create(&call->thread, NULL, run_call, call), 0);
}

int
end_call(struct waiting_call *call)
{
    pthread_join(call->thread, NULL);
    return call->rc;
}
