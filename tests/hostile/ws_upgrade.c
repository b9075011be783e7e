/* SPDX-License-Identifier: MIT */
/* What asks to be a WebSocket peer: each request has its answer, and one that is refused costs its
 * connection alone. */
#include "tests/hostile/victim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/ws_peer.h"

#define REP "rep.sp.nanomsg.org"
#define UPGRADE                                                                                    \
    "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"                                    \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_SAMPLE_KEY "\r\n"
#define OURS "Sec-WebSocket-Protocol: " REP "\r\n"
#define HOST "Host: localhost\r\n"

/* Send this, and be answered with a whole answer of that status. */
static void
expect_status(struct victim *v, const void *request, size_t size, int status, const char *what)
{
    char place[160], answer[1024], wanted[64];
    struct raw_peer p;

    ws_place(place, v->url);
    cr_assert_eq(raw_connect(&p, place, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, request, size, RAW_LIMIT_MS), RAW_OK, "%s", what);
    long n = ws_read_head(&p, answer, sizeof answer, RAW_LIMIT_MS);
    cr_assert_gt(n, 0, "%s: no answer", what);
    cr_assert_eq(ws_status(answer), status, "%s: %s", what, answer);
    if (status == 101) {
        cr_assert_not_null(strstr(answer, "Sec-WebSocket-Accept: " WS_SAMPLE_ACCEPT "\r\n"));
        cr_assert_not_null(strstr(answer, OURS), "%s", what);
        cr_assert_null(strstr(answer, "Extensions"), "%s", what);
    } else {
        unsigned length = 0;
        const char *field = strstr(answer, "Content-Length: ");
        cr_assert_not_null(field);
        cr_assert_eq(sscanf(field, "Content-Length: %u", &length), 1);
        cr_assert_not_null(strstr(answer, "Connection: close\r\n"));
        cr_assert_lt(length, sizeof wanted);
        cr_assert_eq(raw_recv_bytes(&p, wanted, length, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK, "%s", what);
        if (status == 426)
            cr_assert_not_null(strstr(answer, "Sec-WebSocket-Version: 13\r\n"));
        if (status == 405)
            cr_assert_not_null(strstr(answer, "Allow: GET\r\n"));
    }
    raw_close(&p);
}

static const struct request {
    const char *what, *text;
    int status;
} requests[] = {
    {"as it should be", "GET /a/path HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 101},
    {"a query", "GET /a/path?x=1&y HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 101},
    {"escapes", "GET /%61/p%61th HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 101},
    {"a list, ours last",
     "GET /a/path HTTP/1.1\r\n" HOST UPGRADE "Sec-WebSocket-Protocol: foo, bar ,\t" REP "\r\n\r\n",
     101},
    {"two fields",
     "GET /a/path HTTP/1.1\r\n" HOST UPGRADE "Sec-WebSocket-Protocol: foo\r\n" OURS "\r\n", 101},
    {"case of names",
     "GET /a/path HTTP/1.1\r\nHOST: x\r\nUPGRADE: WebSocket\r\nconnection: UPGRADE\r\n"
     "sec-websocket-version: 13\r\nSEC-WEBSOCKET-KEY: " WS_SAMPLE_KEY "\r\n" OURS "\r\n",
     101},
    {"an extension",
     "GET /a/path HTTP/1.1\r\n" HOST UPGRADE OURS
     "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
     101},
    {"its own page",
     "GET /a/path HTTP/1.1\r\n" HOST "Origin: http://localhost\r\n" UPGRADE OURS "\r\n", 101},
    {"a page of others",
     "GET /a/path HTTP/1.1\r\n" HOST "Origin: http://evil.example\r\n" UPGRADE OURS "\r\n", 403},
    {"a page of another port",
     "GET /a/path HTTP/1.1\r\n" HOST "Origin: http://localhost:81\r\n" UPGRADE OURS "\r\n", 403},
    {"no page at all", "GET /a/path HTTP/1.1\r\n" HOST "Origin: null\r\n" UPGRADE OURS "\r\n", 403},
    {"another protocol",
     "GET /a/path HTTP/1.1\r\n" HOST UPGRADE "Sec-WebSocket-Protocol: req.sp.nanomsg.org\r\n\r\n",
     400},
    {"case of the protocol",
     "GET /a/path HTTP/1.1\r\n" HOST UPGRADE "Sec-WebSocket-Protocol: REP.sp.nanomsg.org\r\n\r\n",
     400},
    {"no protocol", "GET /a/path HTTP/1.1\r\n" HOST UPGRADE "\r\n", 400},
    {"another path", "GET /a/path/ HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 404},
    {"a path above", "GET /a HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 404},
    {"case of the path", "GET /A/path HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 404},
    {"a way up", "GET /b/../a/path HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 400},
    {"a NUL in the path", "GET /a/path%00 HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 400},
    {"half an escape", "GET /a/path%2 HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 400},
    {"a whole URL", "GET http://localhost/a/path HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 400},
    {"two spaces", "GET  /a/path HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 400},
    {"two spaces behind the path", "GET /a/path  HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 400},
    {"POST", "POST /a/path HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 405},
    {"HEAD", "HEAD /a/path HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 405},
    {"OPTIONS", "OPTIONS * HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n", 405},
    {"almost HTTP", "GET /a/path HTUP/1.1\r\n" HOST UPGRADE OURS "\r\n", 400},
    {"HTTP/1.0", "GET /a/path HTTP/1.0\r\n" HOST UPGRADE OURS "\r\n", 400},
    {"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
    {"HTTP/0.9", "GET /a/path\r\n\r\n", 400},
    {"no Host", "GET /a/path HTTP/1.1\r\n" UPGRADE OURS "\r\n", 400},
    {"two hosts", "GET /a/path HTTP/1.1\r\n" HOST HOST UPGRADE OURS "\r\n", 400},
    {"no upgrade", "GET /a/path HTTP/1.1\r\n" HOST "\r\n", 400},
    {"two upgrades", "GET /a/path HTTP/1.1\r\n" HOST "Upgrade: websocket\r\n" UPGRADE OURS "\r\n",
     400},
    {"an upgrade to something else",
     "GET /a/path HTTP/1.1\r\n" HOST "Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 400},
    {"a connection without it",
     "GET /a/path HTTP/1.1\r\n" HOST "Upgrade: websocket\r\nConnection: close\r\n"
     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_SAMPLE_KEY "\r\n" OURS "\r\n",
     400},
    {"no key",
     "GET /a/path HTTP/1.1\r\n" HOST "Upgrade: websocket\r\nConnection: Upgrade\r\n"
     "Sec-WebSocket-Version: 13\r\n" OURS "\r\n",
     400},
    {"two keys",
     "GET /a/path HTTP/1.1\r\n" HOST UPGRADE "Sec-WebSocket-Key: " WS_SAMPLE_KEY "\r\n" OURS "\r\n",
     400},
    {"a short key",
     "GET /a/path HTTP/1.1\r\n" HOST "Upgrade: websocket\r\nConnection: Upgrade\r\n"
     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hvcnQ=\r\n" OURS "\r\n",
     400},
    {"a key in no alphabet",
     "GET /a/path HTTP/1.1\r\n" HOST "Upgrade: websocket\r\nConnection: Upgrade\r\n"
     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhl_HNhbXBsZSBub25jZQ==\r\n" OURS "\r\n",
     400},
    {"an empty key",
     "GET /a/path HTTP/1.1\r\n" HOST "Upgrade: websocket\r\nConnection: Upgrade\r\n"
     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key:\r\n" OURS "\r\n",
     400},
    {"no version",
     "GET /a/path HTTP/1.1\r\n" HOST "Upgrade: websocket\r\nConnection: Upgrade\r\n"
     "Sec-WebSocket-Key: " WS_SAMPLE_KEY "\r\n" OURS "\r\n",
     400},
    {"two versions",
     "GET /a/path HTTP/1.1\r\n" HOST UPGRADE "Sec-WebSocket-Version: 13\r\n" OURS "\r\n", 400},
    {"an old version",
     "GET /a/path HTTP/1.1\r\n" HOST "Upgrade: websocket\r\nConnection: Upgrade\r\n"
     "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: " WS_SAMPLE_KEY "\r\n" OURS "\r\n",
     426},
    {"a body", "GET /a/path HTTP/1.1\r\n" HOST "Content-Length: 5\r\n" UPGRADE OURS "\r\nhello",
     400},
    {"a body in chunks",
     "GET /a/path HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n" UPGRADE OURS "\r\n0\r\n\r\n",
     400},
    {"no body", "GET /a/path HTTP/1.1\r\n" HOST "Content-Length: 0\r\n" UPGRADE OURS "\r\n", 101},
    {"a bare LF", "GET /a/path HTTP/1.1\n" HOST UPGRADE OURS "\r\n", 400},
    {"LF alone everywhere", "GET /a/path HTTP/1.1\nHost: x\n\n", 400},
    {"a bare CR", "GET /a/path HTTP/1.1\r\n" HOST "X: a\rb\r\n" UPGRADE OURS "\r\n", 400},
    {"a line that goes on", "GET /a/path HTTP/1.1\r\n" HOST "X: a\r\n b\r\n" UPGRADE OURS "\r\n",
     400},
    {"a space before the colon", "GET /a/path HTTP/1.1\r\nHost : x\r\n" UPGRADE OURS "\r\n", 400},
    {"no colon", "GET /a/path HTTP/1.1\r\nHost\r\n" UPGRADE OURS "\r\n", 400},
    {"an SP greeting", "GARBAGE!\r\n\r\n", 400},
};

Test(ws_upgrade, each_request_has_its_answer)
{
    const size_t count = sizeof requests / sizeof requests[0];
    struct victim v;

    victim_open(&v, WS);
    for (size_t i = 0; i < count; i++)
        expect_status(&v, requests[i].text, strlen(requests[i].text), requests[i].status,
                      requests[i].what);
    victim_close(&v);
}

Test(ws_upgrade, a_nul_is_refused_wherever_it_is)
{
    static const char good[] = "GET /a/path HTTP/1.1\r\n" HOST UPGRADE OURS "\r\n";
    static const size_t places[] = {0, 2, 6, 16, 30, 60};
    struct victim v;

    victim_open(&v, WS);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char text[sizeof good];
        memcpy(text, good, sizeof good);
        text[places[i]] = '\0';
        expect_status(&v, text, sizeof good - 1, 400, "NUL");
    }
    victim_close(&v);
}

/* Lines of 10 bytes, one line, and many offered protocols. */
Test(ws_upgrade, a_head_has_an_end)
{
    static const char begin[] = "GET /a/path HTTP/1.1\r\n" HOST;
    const size_t size = 65536;
    char *text = malloc(size + sizeof begin);
    struct victim v;

    victim_open(&v, WS);
    memcpy(text, begin, sizeof begin);
    for (size_t at = sizeof begin - 1; at < size; at += 10)
        memcpy(text + at, "X-a: bcd\r\n", 10);
    expect_status(&v, text, size, 431, "lines");
    memset(text + sizeof begin - 1, 'x', size - sizeof begin + 1);
    expect_status(&v, text, size, 431, "a name");
    memcpy(text + sizeof begin - 1, "X: ", 3);
    expect_status(&v, text, size, 431, "a value");
    memset(text, 'G', size);
    expect_status(&v, text, size, 400, "a method");
    memset(text, 'a', size);
    memcpy(text, "GET /", 5);
    expect_status(&v, text, size, 431, "a target");
    int n = sprintf(text, "%s%s", begin, UPGRADE "Sec-WebSocket-Protocol: ");
    for (int i = 0; i < 1000; i++)
        n += sprintf(text + n, "p%d, ", i);
    n += sprintf(text + n, "%s\r\n\r\n", REP);
    expect_status(&v, text, (size_t)n, 101, "1000 protocols and ours");
    n = sprintf(text, "%s%s%sX-Filler: ", begin, UPGRADE, OURS);
    while (n < 8192)
        text[n++] = 'f';
    n += sprintf(text + n, "\r\n\r\n");
    expect_status(&v, text, (size_t)n, 101, "8 KiB are fine");
    victim_close(&v);
    free(text);
}

Test(ws_upgrade, one_byte_at_a_time_with_the_first_request_behind_it)
{
    static const uint8_t ask[] = {0x82, 0x89, 1,    2,    3,    4,    0x81, 2,
                                  3,    5,    0x69, 0x67, 0x6f, 0x68, 0x6e};
    char text[1024], place[160], answer[1024];
    uint8_t reply[64];
    struct raw_peer p;
    struct victim v;
    unsigned first;

    victim_open(&v, WS);
    ws_place(place, v.url);
    size_t size = ws_request(text, sizeof text, "/a/path", REP, "");
    memcpy(text + size, ask, sizeof ask);
    size += sizeof ask;
    for (int way = 0; way < 2; way++) { /* in one piece, and byte by byte */
        cr_assert_eq(raw_connect(&p, place, RAW_LIMIT_MS), RAW_OK);
        for (size_t i = 0; way == 1 && i < size; i++)
            cr_assert_eq(raw_send_bytes(&p, text + i, 1, RAW_LIMIT_MS), RAW_OK);
        if (way == 0)
            cr_assert_eq(raw_send_bytes(&p, text, size, RAW_LIMIT_MS), RAW_OK);
        cr_assert_gt(ws_read_head(&p, answer, sizeof answer, RAW_LIMIT_MS), 0);
        cr_assert_eq(ws_status(answer), 101);
        cr_assert_eq(ws_recv_frame(&p, &first, reply, sizeof reply, RAW_LIMIT_MS), 9);
        cr_assert_eq(first, 0x82);
        cr_assert_arr_eq(reply, "\x80\0\0\1hello", 9);
        raw_close(&p);
    }
    victim_close(&v);
}

Test(ws_upgrade, cut_off_at_any_byte_leaves_nothing)
{
    char text[1024], place[160];
    struct raw_peer p;
    struct victim v;

    victim_open(&v, WS);
    ws_place(place, v.url);
    size_t size = ws_request(text, sizeof text, "/a/path", REP, "");
    for (size_t cut = 0; cut < size; cut++) {
        cr_assert_eq(raw_connect(&p, place, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_send_bytes(&p, text, cut, RAW_LIMIT_MS), RAW_OK);
        peer_leaves(&p, (int)(cut % WAYS_TO_LEAVE));
    }
    victim_check(&v);
    cr_assert_eq(victim_stats(&v).pipes_attached, 1);
    victim_close(&v);
}

Test(ws_upgrade, one_that_drips_has_an_end)
{
    char text[1024], place[160];
    struct raw_peer p;
    struct victim v;
    size_t sent = 0;

    victim_open(&v, WS);
    cr_assert_eq(spoke_listener_set_duration(v.l, SPOKE_OPT_HANDSHAKE_TIME, 200 * SPOKE_MS), 0);
    ws_place(place, v.url);
    size_t size = ws_request(text, sizeof text, "/a/path", REP, "");
    cr_assert_eq(raw_connect(&p, place, RAW_LIMIT_MS), RAW_OK);
    while (sent < size && raw_send_bytes(&p, text + sent, 1, RAW_LIMIT_MS) == RAW_OK &&
           raw_is_quiet(&p, 20))
        sent++;
    cr_assert_lt(sent, size);
    cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
    raw_close(&p);
    victim_await(&v, handshakes_failed, 1);
    victim_close(&v);
}

Test(ws_upgrade, pages_of_others_come_in_if_they_may)
{
    static const char text[] = "GET /a/path HTTP/1.1\r\n" HOST
                               "Origin: http://other.example\r\n" UPGRADE OURS "\r\n";
    struct victim v;

    victim_open(&v, WS);
    expect_status(&v, text, sizeof text - 1, 403, "by default not");
    cr_assert_eq(spoke_listener_set_bool(v.l, SPOKE_OPT_WS_CHECK_ORIGIN, false), 0);
    expect_status(&v, text, sizeof text - 1, 101, "allowed");
    victim_close(&v);
}

/* ---- the answers that a dialer may get ---- */

Test(ws_upgrade, a_dialer_survives_bad_listeners)
{
    static const char *const answers[] = {
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nand a body without a length",
        "HTTP/1.0 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: " WS_SAMPLE_ACCEPT "\r\n" OURS "\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\n\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\0SP\0\0\x31\0\0",
    };
    const size_t count = sizeof answers / sizeof answers[0];
    char url[ENDPOINT_MAX], place[160], asked[1024];
    struct raw_listener l;
    struct raw_peer p;
    spoke_socket *req;
    struct spoke_stats stats;
    uint8_t request[64];
    unsigned first;

    endpoint_fresh(url, WS);
    ws_place(place, url);
    cr_assert_eq(raw_listen(&l, place), RAW_OK);
    cr_assert_eq(spoke_socket_open(&req, SPOKE_REQ, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
    cr_assert_eq(spoke_dial(req, url, NULL, 0), 0);
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(raw_accept(&l, &p, RAW_LIMIT_MS), RAW_OK);
        cr_assert_gt(ws_read_head(&p, asked, sizeof asked, RAW_LIMIT_MS), 0);
        cr_assert_not_null(strstr(asked, "\r\n" OURS));
        cr_assert_null(strstr(asked, "Extensions"));
        cr_assert_eq(
            raw_send_bytes(&p, answers[i], i == count - 1 ? 8 : strlen(answers[i]), RAW_LIMIT_MS),
            RAW_OK);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK, "answer %zu", i);
        raw_close(&p);
    }
    /* Right but for the protocol; an endless head. */
    cr_assert_eq(ws_accept(&l, &p, "pub.sp.nanomsg.org"), RAW_OK);
    cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
    raw_close(&p);
    cr_assert_eq(ws_accept(&l, &p, "rep.sp.nanomsg.org\r\nSec-WebSocket-Extensions: x"), RAW_OK);
    cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
    raw_close(&p);
    cr_assert_eq(raw_accept(&l, &p, RAW_LIMIT_MS), RAW_OK);
    (void)raw_send_bytes(&p, "HTTP/1.1 101 ", 13, RAW_LIMIT_MS);
    while (raw_send_bytes(&p, "X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 41, RAW_LIMIT_MS) ==
           RAW_OK) {
    }
    raw_close(&p);
    cr_assert_eq(spoke_socket_stats(req, &stats), 0);
    cr_assert_eq(stats.pipes_attached, 0);
    cr_assert_geq(stats.dials_failed, count + 2);
    /* And a good one. */
    cr_assert_eq(ws_accept(&l, &p, NULL), RAW_OK);
    cr_assert_eq(spoke_send_bytes(req, "ask", 3, 0), 0);
    cr_assert_eq(ws_recv_frame(&p, &first, request, sizeof request, RAW_LIMIT_MS), 7);
    cr_assert_eq(first, 0x82);
    raw_close(&p);
    raw_listener_close(&l);
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_LINGER, 0), 0);
    spoke_socket_close(req);
}

/* A dialer of a listener of the test's own, which answers as it likes. */
struct caller {
    spoke_socket *s;
    spoke_dialer *d;
    struct raw_listener l;
    uint64_t failed; /* attempts */
};

static void
caller_open(struct caller *c, spoke_ns handshake_ns)
{
    char url[ENDPOINT_MAX], place[160];

    endpoint_fresh(url, WS);
    ws_place(place, url);
    cr_assert_eq(raw_listen(&c->l, place), RAW_OK);
    cr_assert_eq(spoke_socket_open(&c->s, SPOKE_REQ, NULL), 0);
    cr_assert_eq(spoke_dialer_create(&c->d, c->s, url), 0);
    cr_assert_eq(spoke_dialer_set_duration(c->d, SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
    cr_assert_eq(spoke_dialer_set_duration(c->d, SPOKE_OPT_RECONNECT_MAX, SPOKE_MS), 0);
    cr_assert_eq(spoke_dialer_set_duration(c->d, SPOKE_OPT_HANDSHAKE_TIME, handshake_ns), 0);
    cr_assert_eq(spoke_dialer_start(c->d, 0), 0);
    c->failed = 0;
}

/* One more attempt has failed: why. */
static int
await_failure(struct caller *c)
{
    const struct timespec pause = {.tv_nsec = 200 * 1000};
    struct spoke_dialer_stats stats = {0};

    c->failed++;
    for (int i = 0; i < 50000 && stats.dials_failed < c->failed; i++) {
        nanosleep(&pause, NULL);
        cr_assert_eq(spoke_dialer_stats(c->d, &stats), 0);
    }
    cr_assert_eq(stats.dials_failed, c->failed, "%d of %d", (int)stats.dials_failed,
                 (int)c->failed);
    cr_assert_eq(stats.pipes_attached, 0);
    return stats.last_error;
}

/* Take one attempt, up to its request; what would be the right answer. */
static size_t
accept_caller(struct caller *c, struct raw_peer *p, char *answer, size_t room)
{
    char asked[1024], accept[29];
    const char *key;
    int size;

    cr_assert_eq(raw_accept(&c->l, p, RAW_LIMIT_MS), RAW_OK);
    cr_assert_gt(ws_read_head(p, asked, sizeof asked, RAW_LIMIT_MS), 0);
    key = strstr(asked, "Sec-WebSocket-Key: ");
    cr_assert_not_null(key);
    ws_accept_of(key + 19, accept);
    size = snprintf(answer, room,
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n" OURS "\r\n",
                    accept);
    return (size_t)size;
}

static void
caller_close(struct caller *c)
{
    char answer[512];
    struct raw_peer p;
    size_t size;

    do { /* byte by byte the right answer is right; an attempt of before may be in its way */
        size = accept_caller(c, &p, answer, sizeof answer);
        for (size_t i = 0; i < size; i++)
            if (raw_send_bytes(&p, answer + i, 1, RAW_LIMIT_MS) != RAW_OK)
                break;
    } while (!raw_is_quiet(&p, RAW_QUIET_MS));
    raw_close(&p);
    raw_listener_close(&c->l);
    cr_assert_eq(spoke_socket_close(c->s), 0);
}

Test(ws_upgrade, an_answer_may_end_at_any_byte)
{
    char answer[512];
    struct raw_peer p;
    struct caller c;
    size_t cut = 0, size;

    caller_open(&c, 60 * SPOKE_SECOND);
    do {
        size = accept_caller(&c, &p, answer, sizeof answer);
        cr_assert_eq(raw_send_bytes(&p, answer, cut, RAW_LIMIT_MS), RAW_OK);
        raw_close(&p);
        cr_assert_eq(await_failure(&c), SPOKE_ECONNRESET, "%zu bytes", cut);
    } while (++cut < size);
    caller_close(&c);
}

/* Whatever byte is wrong: it is no answer, or the wrong one, or nobody is to be bothered with it.
 */
Test(ws_upgrade, an_answer_may_be_wrong_at_any_byte)
{
    char answer[512];
    struct raw_peer p;
    struct caller c;
    size_t at = 0, size, reason = strlen("HTTP/1.1 101 "), line = strlen("Switching Protocols");

    caller_open(&c, 60 * SPOKE_SECOND);
    do {
        size = accept_caller(&c, &p, answer, sizeof answer);
        answer[at] ^= 1;
        cr_assert_eq(raw_send_bytes(&p, answer, size, RAW_LIMIT_MS), RAW_OK);
        (void)raw_end(&p);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK, "byte %zu", at);
        raw_close(&p);
        int rc = await_failure(&c);
        cr_assert(rc == SPOKE_EHANDSHAKE || rc == SPOKE_EPEER ||
                      (rc == SPOKE_ECONNRESET && at + 4 >= size),
                  "byte %zu: %s", at, spoke_error_name(rc));
        at = at + 1 == reason ? reason + line : at + 1; /* its words say nothing */
    } while (at < size);
    caller_close(&c);
}

Test(ws_upgrade, an_answer_that_drips_has_an_end)
{
    char answer[512];
    struct raw_peer p;
    struct caller c;
    size_t sent = 0, size;

    caller_open(&c, 200 * SPOKE_MS);
    size = accept_caller(&c, &p, answer, sizeof answer);
    while (sent < size && raw_send_bytes(&p, answer + sent, 1, RAW_LIMIT_MS) == RAW_OK &&
           raw_is_quiet(&p, 20))
        sent++;
    cr_assert_lt(sent, size);
    raw_close(&p);
    cr_assert_eq(await_failure(&c), SPOKE_ETIMEDOUT);
    caller_close(&c);
}
