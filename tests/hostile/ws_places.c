/* SPDX-License-Identifier: MIT */
/* Several listeners at one address, and the files beside them. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/hostile/victim.h"
#include "tests/support/ws_peer.h"

#define PATIENCE (10 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

static spoke_socket *
open_socket(int pattern)
{
    spoke_socket *s;

    cr_assert_eq(spoke_socket_open(&s, pattern, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_SEND_TIMEOUT, PATIENCE), 0);
    return s;
}

/* "ws://HOST:PORT" and this path. */
static void
at(char url[ENDPOINT_MAX], const char *base, const char *path)
{
    char place[ENDPOINT_MAX];

    snprintf(place, sizeof place, "%s", base);
    *strstr(place, "/a/path") = '\0';
    snprintf(url, ENDPOINT_MAX, "%.100s%.50s", place, path);
}

static void
carry(spoke_socket *from, spoke_socket *to, const char *text)
{
    char got[64];
    size_t size = sizeof got;
    int rc = spoke_send_bytes(from, text, strlen(text), 0);

    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    rc = spoke_recv_bytes(to, got, &size, 0);
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_eq(size, strlen(text));
    cr_assert_arr_eq(got, text, size);
}

Test(ws_places, listeners_share_an_address_until_the_last_has_closed)
{
    char base[ENDPOINT_MAX], url[ENDPOINT_MAX], text[32];
    spoke_socket *listening[3], *dialing, *late;
    spoke_listener *l[3], *again;
    spoke_stream_listener *streams;
    spoke_stream *a, *b;
    size_t done;

    endpoint_fresh(base, WS);
    for (int i = 0; i < 3; i++) {
        listening[i] = open_socket(i == 1 ? SPOKE_PULL : SPOKE_PAIR);
        snprintf(text, sizeof text, "/place/%d", i);
        at(url, base, text);
        int rc = spoke_listen(listening[i], url, &l[i], 0);
        cr_assert_eq(rc, 0, "%s: %s", url, spoke_error_name(rc));
        cr_assert_eq(spoke_listen(listening[i], url, NULL, 0), SPOKE_EADDRINUSE, "the same path");
    }
    at(url, base, "/stream");
    cr_assert_eq(spoke_stream_listen(&streams, url, NULL, NULL), 0);
    cr_assert_eq(spoke_stream_dial(&a, url, NULL, NULL, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_accept(streams, &b, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_write(a, "bytes", 5, &done), 0);
    cr_assert_eq(spoke_stream_read_full(b, text, 5, &done), 0);
    cr_assert_eq(spoke_stream_close(a), 0);
    cr_assert_eq(spoke_stream_close(b), 0);
    cr_assert_eq(spoke_stream_listener_close(streams), 0);
    for (int round = 0; round < 3; round++) { /* the first one that is open has the socket */
        for (int i = round; i < 3; i++) {
            snprintf(text, sizeof text, "/place/%d?x", i);
            at(url, base, text);
            dialing = open_socket(i == 1 ? SPOKE_PUSH : SPOKE_PAIR);
            int rc = spoke_dial(dialing, url, NULL, SPOKE_WAIT_FIRST);
            cr_assert_eq(rc, 0, "%s in round %d: %s", url, round, spoke_error_name(rc));
            carry(dialing, listening[i], "hello");
            cr_assert_eq(spoke_socket_close(dialing), 0);
        }
        cr_assert_eq(spoke_listener_close(l[round]), 0);
        snprintf(text, sizeof text, "/place/%d", round);
        at(url, base, text);
        late = open_socket(round == 1 ? SPOKE_PUSH : SPOKE_PAIR);
        cr_assert_neq(spoke_dial(late, url, NULL, SPOKE_WAIT_FIRST), 0, "nobody is there");
        cr_assert_eq(spoke_socket_close(late), 0);
    }
    at(url, base, "");
    cr_assert_eq(spoke_listen(listening[0], url, &again, 0), 0, "the address is free");
    for (int i = 0; i < 3; i++)
        cr_assert_eq(spoke_socket_close(listening[i]), 0);
}

/* The closest listener above, if it takes what is below. */
Test(ws_places, a_listener_may_take_what_is_below)
{
    static const struct {
        const char *asked;
        int who;
    } rows[] = {{"/", 0},   {"/x", 0},   {"/a", 1},    {"/a/", 1}, {"/a/b/c?d", 1},
                {"/ab", 0}, {"/a/b", 2}, {"/a/b/", 1}, {"/c/", 3}, {"/c/d", 3},
                {"/c", 0},  {"/e", 4},   {"/e/f", 0}};
    static const char *const paths[] = {"/", "/a", "/a/b", "/c/", "/e"};
    spoke_socket *listening[5], *dialing;
    char base[ENDPOINT_MAX], url[ENDPOINT_MAX], target[64];
    spoke_listener *l[5];
    spoke_msg *m;

    endpoint_fresh(base, WS);
    for (int i = 0; i < 5; i++) {
        listening[i] = open_socket(SPOKE_PAIR);
        at(url, base, paths[i]);
        cr_assert_eq(spoke_listener_create(&l[i], listening[i], url), 0);
        cr_assert_eq(spoke_listener_set_bool(l[i], SPOKE_OPT_WS_BELOW, i % 2 == 1 || i == 0), 0);
        cr_assert_eq(spoke_listener_start(l[i], 0), 0);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        at(url, base, rows[i].asked);
        dialing = open_socket(SPOKE_PAIR);
        int rc = spoke_dial(dialing, url, NULL, SPOKE_WAIT_FIRST);
        cr_assert_eq(rc, 0, "%s: %s", url, spoke_error_name(rc));
        cr_assert_eq(spoke_send_bytes(dialing, "x", 1, 0), 0);
        rc = spoke_recv(listening[rows[i].who], &m, 0);
        cr_assert_eq(rc, 0, "%s is not for %s: %s", rows[i].asked, paths[rows[i].who],
                     spoke_error_name(rc));
        size_t size = sizeof target;
        cr_assert_eq(spoke_pipe_get(listening[rows[i].who], spoke_msg_pipe(m), SPOKE_OPT_WS_TARGET,
                                    SPOKE_STRING, target, &size),
                     0);
        cr_assert_str_eq(target, rows[i].asked);
        spoke_msg_free(m);
        cr_assert_eq(spoke_socket_close(dialing), 0);
    }
    cr_assert_eq(spoke_listener_close(l[0]), 0);
    at(url, base, "/ab");
    dialing = open_socket(SPOKE_PAIR);
    cr_assert_neq(spoke_dial(dialing, url, NULL, SPOKE_WAIT_FIRST), 0, "nobody is above");
    cr_assert_eq(spoke_socket_close(dialing), 0);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(spoke_socket_close(listening[i]), 0);
}

static void
put_file(const char *name, const char *content)
{
    char path[ENDPOINT_MAX];
    FILE *f;

    scratch_path(path, name);
    cr_assert_not_null(f = fopen(path, "w"));
    cr_assert_geq(fputs(content, f), 0);
    cr_assert_eq(fclose(f), 0);
}

static void
expect_file(const char *place, const char *line, int status, const char *type, const char *content)
{
    char head[1024], body[256], text[128];
    struct raw_peer p;
    unsigned length = 0;

    snprintf(text, sizeof text, "%.80s HTTP/1.1\r\nHost: x\r\n\r\n", line);
    cr_assert_eq(raw_connect(&p, place, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, text, strlen(text), RAW_LIMIT_MS), RAW_OK);
    cr_assert_gt(ws_read_head(&p, head, sizeof head, RAW_LIMIT_MS), 0, "%s", line);
    cr_assert_eq(ws_status(head), status, "%s: %s", line, head);
    cr_assert_not_null(strstr(head, "Connection: close\r\n"));
    cr_assert_eq(sscanf(strstr(head, "Content-Length: "), "Content-Length: %u", &length), 1);
    if (status == 200) {
        snprintf(text, sizeof text, "Content-Type: %.60s\r\n", type);
        cr_assert_not_null(strstr(head, text), "%s: %s", line, head);
        cr_assert_eq(length, strlen(content));
    }
    if (strncmp(line, "HEAD", 4) != 0) {
        cr_assert_lt(length, sizeof body);
        cr_assert_eq(raw_recv_bytes(&p, body, length, RAW_LIMIT_MS), RAW_OK);
        if (status == 200)
            cr_assert_arr_eq(body, content, length);
    }
    cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
    raw_close(&p);
}

Test(ws_places, files_are_served_beside_the_socket)
{
    char place[160], directory[ENDPOINT_MAX], path[ENDPOINT_MAX], got[ENDPOINT_MAX];
    struct victim v;

    victim_open(&v, WS);
    ws_place(place, v.url);
    scratch_path(directory, "site");
    cr_assert_eq(mkdir(directory, 0700), 0);
    scratch_path(path, "site/sub");
    cr_assert_eq(mkdir(path, 0700), 0);
    put_file("secret.txt", "secret");
    put_file("site/index.html", "<p>index");
    put_file("site/a.js", "export {}");
    put_file("site/b.css", "p {}");
    put_file("site/c.json", "{}");
    put_file("site/d.svg", "<svg/>");
    put_file("site/e", "anything");
    put_file("site/a b.txt", "a space");
    put_file("site/sub/index.html", "<p>sub");
    put_file("site/empty.html", "");
    scratch_path(path, "site/out");
    cr_assert_eq(symlink("../secret.txt", path), 0);
    scratch_path(path, "site/etc");
    cr_assert_eq(symlink("/etc", path), 0);
    scratch_path(path, "site/in");
    cr_assert_eq(symlink("a.js", path), 0);
    scratch_path(path, "site/fifo");
    cr_assert_eq(mkfifo(path, 0600), 0);
    scratch_path(path, "site/large");
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_eq(ftruncate(fd, 9 << 20), 0);
    close(fd);
    expect_file(place, "GET /", 404, NULL, NULL); /* nothing is served yet */
    cr_assert_eq(spoke_listener_set_string(v.l, SPOKE_OPT_WS_DIRECTORY, directory), 0);
    cr_assert_eq(spoke_listener_get_string(v.l, SPOKE_OPT_WS_DIRECTORY, got, sizeof got), 0);
    cr_assert_str_eq(got, directory);
    expect_file(place, "GET /", 200, "text/html; charset=utf-8", "<p>index");
    expect_file(place, "GET /index.html?query", 200, "text/html; charset=utf-8", "<p>index");
    expect_file(place, "HEAD /a.js", 200, "text/javascript; charset=utf-8", "export {}");
    expect_file(place, "GET /a.js", 200, "text/javascript; charset=utf-8", "export {}");
    expect_file(place, "GET /b.css", 200, "text/css; charset=utf-8", "p {}");
    expect_file(place, "GET /c.json", 200, "application/json", "{}");
    expect_file(place, "GET /d.svg", 200, "image/svg+xml", "<svg/>");
    expect_file(place, "GET /e", 200, "application/octet-stream", "anything");
    expect_file(place, "GET /a%20b.txt", 200, "text/plain; charset=utf-8", "a space");
    expect_file(place, "GET /sub/", 200, "text/html; charset=utf-8", "<p>sub");
    expect_file(place, "GET /empty.html", 200, "text/html; charset=utf-8", "");
    expect_file(place, "GET /in", 200, "application/octet-stream", "export {}");
    expect_file(place, "GET //e", 200, "application/octet-stream", "anything");
    static const char *const nothing[] = {"/sub",
                                          "/nothing",
                                          "/out",
                                          "/etc/passwd",
                                          "/fifo",
                                          "/large",
                                          "/../secret.txt",
                                          "/%2e%2e/secret.txt",
                                          "/sub/../../secret.txt",
                                          "/e%00"};
    for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "GET %s", nothing[i]);
        expect_file(place, line, 404, NULL, NULL);
    }
    expect_file(place, "POST /e", 405, NULL, NULL);
    victim_check(&v); /* and messages pass */
    cr_assert_eq(victim_stats(&v).handshakes_failed, 2, "GET before it was served, and POST");
    victim_close(&v);
}

Test(ws_places, who_may_come_can_be_named)
{
    static const char *const more[] = {"Origin: https://good.example\r\n",
                                       "Origin: http://b:81\r\n",
                                       "Origin: https://good.example.evil\r\n"};
    static const int status[] = {101, 101, 403};
    char text[1024], place[160];
    struct raw_peer p;
    struct victim v;

    victim_open(&v, WS);
    ws_place(place, v.url);
    cr_assert_eq(
        spoke_listener_set_string(v.l, SPOKE_OPT_WS_ORIGINS, "https://good.example http://b:81"),
        0);
    for (int i = 0; i < 3; i++) {
        size_t size = ws_request(text, sizeof text, "/a/path", "rep.sp.nanomsg.org", more[i]);
        cr_assert_eq(raw_connect(&p, place, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_send_bytes(&p, text, size, RAW_LIMIT_MS), RAW_OK);
        cr_assert_gt(ws_read_head(&p, text, sizeof text, RAW_LIMIT_MS), 0);
        cr_assert_eq(ws_status(text), status[i], "%s", more[i]);
        raw_close(&p);
    }
    victim_close(&v);
}
