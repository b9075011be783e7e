/* SPDX-License-Identifier: MIT */
/* Fuzz target: the head of a request or a response of WebSocket, in one piece and in pieces, which
 * must come to the same.  The first byte: bit 0 a response, the rest how long the pieces are; then
 * the bytes.  What is let in is compared with a second reading: lines that end with CR LF, a
 * request line that says GET and HTTP/1.1, and the fields that must be there. */
/* Covers: transports/ws/http.c transports/ws/handshake.c */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "runtime/memory/pool.h"
#include "transports/ws/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(bool holds)
{
    if (!holds)
        abort();
}

static enum ws_http_state
feed(struct ws_http *h, const uint8_t *data, size_t size, size_t piece, size_t *used)
{
    enum ws_http_state state = WS_HTTP_MORE;
    size_t n;

    for (*used = 0; *used < size && state == WS_HTTP_MORE; *used += n) {
        size_t most = piece < size - *used ? piece : size - *used;
        state = ws_http_feed(h, data + *used, most, &n);
        require(n <= most && (n == most || state != WS_HTTP_MORE));
    }
    return state;
}

/* The value of a field, found by looking for its line. */
static bool
second_reading_has(const char *head, const char *name)
{
    size_t length = strlen(name);

    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, length) == 0 && line[2 + length] == ':')
            return true;
    return false;
}

static void
check_let_in(const uint8_t *data, size_t used)
{
    static const char *const names[] = {"Host",
                                        "Upgrade",
                                        "Connection",
                                        "Sec-WebSocket-Key",
                                        "Sec-WebSocket-Version",
                                        "Sec-WebSocket-Protocol"};
    char *head = calloc(1, used + 1);

    if (head == NULL)
        return;
    memcpy(head, data, used);
    require(strlen(head) == used);
    while (*head == '\r' || *head == '\n') /* empty lines in front are nothing */
        memmove(head, head + 1, strlen(head));
    require(strncmp(head, "GET /", 5) == 0);
    require(strncmp(strchr(head + 5, ' '), " HTTP/1.1\r\n", 11) == 0);
    require(strcmp(head + strlen(head) - 4, "\r\n\r\n") == 0);
    for (size_t i = 0; head[i] != '\0'; i++)
        require((head[i] == '\n') == (i > 0 && head[i - 1] == '\r'));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        require(second_reading_has(head, names[i]));
    free(head);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct ws_wanted wanted = {
        .is_there = true, .protocol = "rep.sp.nanomsg.org", .check_origin = true};
    bool request = size == 0 || (data[0] & 1) == 0, agreed[2], wrong[2];
    size_t piece = size == 0 ? 1 : 1 + data[0] / 2u, used[2];
    enum ws_http_state state[2];
    struct ws_http *h[2];

    if (size == 0)
        return 0;
    data++;
    size--;
    for (int i = 0; i < 2; i++) {
        require((h[i] = ws_http_new(request)) != NULL);
        state[i] = feed(h[i], data, size, i == 0 ? size + 1 : piece, &used[i]);
    }
    if (state[0] != state[1]) { /* of two faults either may be found first */
        require(state[0] == WS_HTTP_BAD || state[0] == WS_HTTP_TOO_BIG);
        require(state[1] == WS_HTTP_BAD || state[1] == WS_HTTP_TOO_BIG);
    }
    if (state[0] == WS_HTTP_WHOLE) {
        char *fields = ws_http_fields_text(h[0]), *target = spk_strdup(ws_http_target(h[0]));
        require(used[0] == used[1] && fields != NULL && target != NULL);
        require(strcmp(ws_http_target(h[0]), ws_http_target(h[1])) == 0);
        if (request) {
            unsigned status = ws_check_request(h[0], &wanted, &agreed[0], &wrong[0]);
            require(status == ws_check_request(h[1], &wanted, &agreed[1], &wrong[1]));
            require(status == 101 || (status >= 400 && status <= 426));
            if (status == 101) {
                require(agreed[0] && ws_http_path(target));
                check_let_in(data, used[0]);
            }
        } else if (ws_check_response(h[0], "dGhlIHNhbXBsZSBub25jZQ==", wanted.protocol, false,
                                     &agreed[0], &wrong[0]) == NULL) {
            require(agreed[0] && ws_http_status(h[0]) == 101);
            require(memmem(data, used[0], "HTTP/1.1 101", 12) != NULL);
        }
        spk_free(fields);
        spk_free(target);
    }
    ws_http_free(h[0]);
    ws_http_free(h[1]);
    return 0;
}
