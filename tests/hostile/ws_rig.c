/* SPDX-License-Identifier: MIT */
#include "tests/hostile/ws_rig.h"

#include <stdlib.h>
#include <string.h>

#define LIMIT_NS (10 * SPOKE_SECOND)

const char *
ws_role_name(enum ws_role role)
{
    static const char *const names[ROLES] = {"listens", "dials", "stream"};

    return names[role];
}

struct criterion_test_params
ws_roles(void)
{
    static enum ws_role list[ROLES] = {ROLE_LISTENS, ROLE_DIALS, ROLE_STREAM};

    return (struct criterion_test_params){.size = sizeof list[0], .params = list, .length = ROLES};
}

static spoke_ns
soon(void)
{
    return spoke_engine_now(NULL) + LIMIT_NS;
}

/* ---- life ---- */

static void
open_pair(struct ws_rig *r)
{
    cr_assert_eq(spoke_socket_open(&r->pair, SPOKE_PAIR, NULL), 0);
    cr_assert_eq(spoke_socket_set_bool(r->pair, SPOKE_OPT_WS_RECV_TEXT, r->text), 0);
    cr_assert_eq(spoke_socket_set_bool(r->pair, SPOKE_OPT_WS_SEND_TEXT, r->text), 0);
    cr_assert_eq(spoke_socket_set_size(r->pair, SPOKE_OPT_MAX_RECV_SIZE, 0), 0);
    cr_assert_eq(spoke_socket_set_duration(r->pair, SPOKE_OPT_RECV_TIMEOUT, LIMIT_NS), 0);
    cr_assert_eq(spoke_socket_set_duration(r->pair, SPOKE_OPT_SEND_TIMEOUT, LIMIT_NS), 0);
    cr_assert_eq(spoke_socket_set_duration(r->pair, SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
}

void
ws_rig_open(struct ws_rig *r, enum ws_role role, bool text)
{
    struct spoke_engine_info info;
    spoke_stream_config config;
    char place[160];

    *r = (struct ws_rig){.role = role, .text = text, .p.fd = -1};
    cr_log_info("%s", ws_role_name(role));
    cr_assert_eq(spoke_engine_get_info(NULL, &info), 0);
    resources_take(&r->before);
    r->before.chunks++; /* the engine has memory to receive into, or not */
    endpoint_fresh(r->url, WS);
    switch (role) {
    case ROLE_LISTENS:
        open_pair(r);
        cr_assert_eq(spoke_listen(r->pair, r->url, NULL, 0), 0);
        break;
    case ROLE_DIALS:
        open_pair(r);
        ws_place(place, r->url);
        cr_assert_eq(raw_listen(&r->raw, place), RAW_OK);
        cr_assert_eq(spoke_dial(r->pair, r->url, NULL, 0), 0);
        break;
    default:
        spoke_stream_config_init(&config);
        config.ws_recv_text = text;
        cr_assert_eq(spoke_stream_listen(&r->listener, r->url, &config, NULL), 0);
        break;
    }
}

void
ws_rig_leave(struct ws_rig *r)
{
    raw_close(&r->p);
    if (r->stream != NULL)
        cr_assert_eq(spoke_stream_close(r->stream), 0);
    r->stream = NULL;
}

void
ws_rig_close(struct ws_rig *r)
{
    if (r->p.fd >= 0)
        ws_rig_leave(r);
    if (r->pair != NULL)
        cr_assert_eq(spoke_socket_close(r->pair), 0);
    if (r->listener != NULL)
        cr_assert_eq(spoke_stream_listener_close(r->listener), 0);
    if (r->role == ROLE_DIALS)
        raw_listener_close(&r->raw);
    resources_settle(&r->before);
}

void
ws_rig_meet(struct ws_rig *r)
{
    int rc;

    if (r->role == ROLE_DIALS) {
        rc = ws_accept(&r->raw, &r->p, NULL);
        cr_assert_eq(rc, RAW_OK, "%d", rc);
        return;
    }
    rc = ws_open(&r->p, r->url, r->role == ROLE_LISTENS ? "pair.sp.nanomsg.org" : NULL);
    cr_assert_eq(rc, RAW_OK, "%d", rc);
    if (r->role == ROLE_LISTENS)
        return;
    cr_assert_eq(spoke_stream_accept(r->listener, &r->stream, soon()), 0);
    /* What comes is looked at from now on. */
    cr_assert_geq(spoke_stream_fd(r->stream, SPOKE_STREAM_READABLE), 0);
}

/* ---- what the peer says ---- */

size_t
ws_rig_frame(const struct ws_rig *r, uint8_t *to, unsigned first, const void *payload, size_t size)
{
    return ws_frame(to, first, payload, size, r->role != ROLE_DIALS);
}

void
ws_rig_say(struct ws_rig *r, unsigned first, const void *payload, size_t size)
{
    uint8_t *bytes = malloc(size + 14);

    cr_assert_not_null(bytes);
    size = ws_rig_frame(r, bytes, first, payload, size);
    ws_rig_chop(r, bytes, size, size);
    free(bytes);
}

void
ws_rig_chop(struct ws_rig *r, const uint8_t *bytes, size_t size, size_t step)
{
    for (size_t at = 0; at < size; at += step) {
        size_t n = step < size - at ? step : size - at;

        /* Who has been told that this is the end may read no more. */
        if (raw_send_bytes(&r->p, bytes + at, n, RAW_LIMIT_MS) != RAW_OK)
            return;
    }
}

/* ---- what is tried ---- */

static void
echo_message(struct ws_rig *r, const void *message, size_t size)
{
    spoke_msg *m;
    int rc = spoke_recv(r->pair, &m, 0);

    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_eq(spoke_msg_size(m), size, "%zu instead of %zu", spoke_msg_size(m), size);
    cr_assert(size == 0 || memcmp(spoke_msg_body(m), message, size) == 0, "another message");
    cr_assert_eq(spoke_send(r->pair, m, 0), 0);
}

void
ws_rig_take(struct ws_rig *r, const void *part, size_t size)
{
    uint8_t *bytes;
    size_t done;
    int rc;

    if (r->role != ROLE_STREAM)
        return;
    bytes = malloc(size + 1);
    cr_assert_not_null(bytes);
    cr_assert_eq(spoke_stream_set_read_deadline(r->stream, soon()), 0);
    rc = spoke_stream_read_full(r->stream, bytes, size, &done);
    cr_assert_eq(rc, 0, "%s after %zu of %zu", spoke_error_name(rc), done, size);
    cr_assert_eq(memcmp(bytes, part, size), 0, "other bytes");
    free(bytes);
}

static void
echo_bytes(struct ws_rig *r, const void *message, size_t size)
{
    size_t done;
    int rc;

    ws_rig_take(r, message, size);
    cr_assert_eq(spoke_stream_set_write_deadline(r->stream, soon()), 0);
    /* The peer reads later: sizes are such that they fit between the two. */
    rc = spoke_stream_write(r->stream, message, size, &done);
    cr_assert_eq(rc, 0, "%s after %zu of %zu", spoke_error_name(rc), done, size);
}

/* Frames are put together; of a stream each is one of its own. */
static void
expect_back(struct ws_rig *r, const void *message, size_t size)
{
    unsigned kind = r->role != ROLE_STREAM && r->text ? TEXT : BINARY, first = 0;
    uint8_t *bytes = malloc(size + 1);
    size_t have = 0;

    cr_assert_not_null(bytes);
    do {
        long n = ws_recv_frame(&r->p, &first, bytes + have, size + 1 - have, RAW_LIMIT_MS);

        cr_assert_geq(n, 0, "%ld after %zu of %zu", n, have, size);
        cr_assert_eq(first & 0x7f, have == 0 || r->role == ROLE_STREAM ? kind : CONT, "%02x",
                     first);
        have += (size_t)n;
    } while ((first & FIN) == 0 || (r->role == ROLE_STREAM && have < size));
    cr_assert_eq(have, size);
    cr_assert(size == 0 || memcmp(bytes, message, size) == 0, "something else came back");
    free(bytes);
}

void
ws_rig_echo(struct ws_rig *r, const void *message, size_t size)
{
    if (r->role != ROLE_STREAM)
        echo_message(r, message, size);
    else if (size > 0)
        echo_bytes(r, message, size);
    else
        return; /* no bytes */
    expect_back(r, message, size);
}

void
ws_rig_pong(struct ws_rig *r, const void *payload, size_t size)
{
    uint8_t got[126];
    unsigned first;
    long n = ws_recv_frame(&r->p, &first, got, sizeof got, RAW_LIMIT_MS);

    cr_assert_eq(n, (long)size, "%ld", n);
    cr_assert_eq(first, FIN | PONG, "%02x", first);
    cr_assert(size == 0 || memcmp(got, payload, size) == 0);
}

/* Read what the reader of a stream is told at its end. */
static void
read_to_end(struct ws_rig *r, int wanted, const char *what)
{
    uint8_t bytes[4096];
    size_t done;
    int rc;

    cr_assert_eq(spoke_stream_set_read_deadline(r->stream, soon()), 0);
    while ((rc = spoke_stream_read(r->stream, bytes, sizeof bytes, &done)) == 0) {
    }
    cr_assert_eq(rc, wanted, "%s: the reader is told %s", what, spoke_error_name(rc));
}

static void
expect_close(struct ws_rig *r, int code, int told, const char *what)
{
    uint8_t payload[126];
    unsigned first = 0;
    long n;

    if (r->role == ROLE_STREAM)
        read_to_end(r, told, what);
    n = ws_recv_frame(&r->p, &first, payload, sizeof payload, RAW_LIMIT_MS);
    cr_assert(first == (FIN | CLOSE) && (n == 0 || n >= 2), "%s: %ld bytes of %02x", what, n,
              first);
    n = n == 0 ? 1005 : payload[0] << 8 | payload[1];
    cr_assert_eq(n, code, "%s: %ld", what, n);
    if (r->stream != NULL) {
        cr_assert_eq(spoke_stream_close(r->stream), 0);
        r->stream = NULL;
    }
    n = raw_wait_eof(&r->p, RAW_LIMIT_MS);
    cr_assert_eq(n, RAW_OK, "%s: the connection stays", what);
    raw_close(&r->p);
}

void
ws_rig_ends(struct ws_rig *r, int code, const char *what)
{
    expect_close(r, code, SPOKE_EOF, what);
}

void
ws_rig_fails(struct ws_rig *r, int code, const char *what)
{
    expect_close(r, code, SPOKE_EPROTO, what);
}
