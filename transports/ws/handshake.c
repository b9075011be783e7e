/* SPDX-License-Identifier: MIT */
#include "transports/ws/handshake.h"

#include <sha1.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "runtime/memory/pool.h"
#include "transports/ws/frame.h"

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* ---- keys ---- */

static void
encode(char *to, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i += 3) {
        size_t n = size - i < 3 ? size - i : 3;
        uint32_t v = (uint32_t)bytes[i] << 16 | (n > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                     (n > 2 ? bytes[i + 2] : 0);

        *to++ = base64[v >> 18];
        *to++ = base64[v >> 12 & 63];
        *to++ = n > 1 ? base64[v >> 6 & 63] : '=';
        *to++ = n > 2 ? base64[v & 63] : '=';
    }
    *to = '\0';
}

void
ws_accept_key(const char *key, char accept[WS_ACCEPT_SIZE + 1])
{
    static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t digest[SHA1_DIGEST_LENGTH];
    SHA1_CTX sha1;

    SHA1Init(&sha1);
    SHA1Update(&sha1, (const uint8_t *)key, strlen(key));
    SHA1Update(&sha1, (const uint8_t *)magic, sizeof magic - 1);
    SHA1Final(digest, &sha1);
    encode(accept, digest, sizeof digest);
}

void
ws_handshake_key(char key[WS_KEY_SIZE + 1])
{
    uint8_t bytes[16];

    for (size_t i = 0; i < sizeof bytes; i += 4)
        ws_new_key(bytes + i);
    encode(key, bytes, sizeof bytes);
}

/* Sixteen bytes in base 64. */
static bool
key_is_fine(const char *key)
{
    return strspn(key, base64) == WS_KEY_SIZE - 2 && strcmp(key + WS_KEY_SIZE - 2, "==") == 0;
}

/* ---- requests ---- */

static bool
has_one(const struct ws_http *h, const char *name)
{
    unsigned count;

    return ws_http_field(h, name, &count) != NULL;
}

/* Pages of this host itself, or of those that were named. */
static bool
origin_is_fine(const struct ws_http *h, const struct ws_wanted *wanted)
{
    unsigned count, hosts;
    const char *origin = ws_http_field(h, "Origin", &count),
               *host = ws_http_field(h, "Host", &hosts), *place;

    if (count == 0 || !wanted->check_origin)
        return true;
    if (origin == NULL || host == NULL)
        return false;
    if ((place = strstr(origin, "://")) != NULL && strcasecmp(place + 3, host) == 0)
        return true;
    for (const char *at = wanted->origins; at != NULL && *at != '\0';) {
        size_t n;

        at += strspn(at, " ");
        n = strcspn(at, " ");
        if ((n == 1 && *at == '*') || (n == strlen(origin) && strncasecmp(at, origin, n) == 0))
            return true;
        at += n;
    }
    return false;
}

static bool
protocol_is_fine(const struct ws_http *h, const struct ws_wanted *wanted, bool *agreed)
{
    static const char name[] = "Sec-WebSocket-Protocol";
    unsigned count;

    *agreed = ws_http_has_token(h, name, wanted->protocol, false);
    (void)ws_http_field(h, name, &count);
    return *agreed || (count == 0 && wanted->protocol_may_lack);
}

static bool
announces_body(const struct ws_http *h)
{
    unsigned count;
    const char *length = ws_http_field(h, "Content-Length", &count);

    if (count > 0 && (length == NULL || strcmp(length, "0") != 0))
        return true;
    (void)ws_http_field(h, "Transfer-Encoding", &count);
    return count > 0;
}

static bool
target_is_path(const struct ws_http *h)
{
    char *target = spk_strdup(ws_http_target(h));
    bool is_one = target == NULL || ws_http_path(target);

    spk_free(target);
    return is_one;
}

unsigned
ws_check_request(const struct ws_http *h, const struct ws_wanted *wanted, bool *agreed,
                 bool *wrong_protocol)
{
    const char *key, *version;
    unsigned keys, versions;

    *agreed = *wrong_protocol = false;
    if (!ws_http_is_1_1(h))
        return 400;
    if (strcmp(ws_http_method(h), "GET") != 0)
        return 405;
    if (!target_is_path(h) || announces_body(h) || !has_one(h, "Host"))
        return 400;
    if (!wanted->is_there)
        return 404;
    if (!has_one(h, "Upgrade") || !ws_http_has_token(h, "Upgrade", "websocket", true) ||
        !ws_http_has_token(h, "Connection", "upgrade", true))
        return 400;
    version = ws_http_field(h, "Sec-WebSocket-Version", &versions);
    key = ws_http_field(h, "Sec-WebSocket-Key", &keys);
    if (versions != 1 || key == NULL || !key_is_fine(key))
        return 400;
    if (strcmp(version, "13") != 0)
        return 426;
    if (!origin_is_fine(h, wanted))
        return 403;
    *wrong_protocol = !protocol_is_fine(h, wanted, agreed);
    return *wrong_protocol ? 400 : 101;
}

static const char *
status_text(unsigned status)
{
    switch (status) {
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 426: return "Upgrade Required";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    default: return "Bad Request";
    }
}

static const char *
status_fields(unsigned status)
{
    switch (status) {
    case 405: return "Allow: GET\r\n";
    case 426: return "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    default: return "";
    }
}

size_t
ws_put_refusal(char *text, size_t room, unsigned status, const char *protocol)
{
    const char *why = status_text(status);
    int n = snprintf(text, room,
                     "HTTP/1.1 %u %s\r\n"
                     "Content-Type: text/plain; charset=utf-8\r\n"
                     "Content-Length: %zu\r\n"
                     "Connection: close\r\n"
                     "%s%s%s%s\r\n"
                     "%s\n",
                     status, why, strlen(why) + 1, status_fields(status),
                     protocol != NULL ? "Sec-WebSocket-Protocol: " : "",
                     protocol != NULL ? protocol : "", protocol != NULL ? "\r\n" : "", why);

    return n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

/* ---- responses ---- */

const char *
ws_check_response(const struct ws_http *h, const char *key, const char *protocol,
                  bool protocol_may_lack, bool *agreed, bool *wrong_protocol)
{
    char accept[WS_ACCEPT_SIZE + 1];
    const char *theirs, *chosen;
    unsigned count;

    *agreed = *wrong_protocol = false;
    chosen = ws_http_field(h, "Sec-WebSocket-Protocol", &count);
    if (!ws_http_is_1_1(h))
        return "it is not HTTP/1.1";
    if (ws_http_status(h) != 101) {
        *wrong_protocol = chosen != NULL && strcmp(chosen, protocol) != 0; /* ours say it */
        return "it refuses";
    }
    if (!ws_http_has_token(h, "Upgrade", "websocket", true) ||
        !ws_http_has_token(h, "Connection", "upgrade", true))
        return "it upgrades to something else";
    ws_accept_key(key, accept);
    theirs = ws_http_field(h, "Sec-WebSocket-Accept", &count);
    if (theirs == NULL || strcmp(theirs, accept) != 0)
        return "its Sec-WebSocket-Accept is wrong";
    (void)ws_http_field(h, "Sec-WebSocket-Extensions", &count);
    if (count > 0)
        return "it has an extension that nobody asked for";
    chosen = ws_http_field(h, "Sec-WebSocket-Protocol", &count);
    if (count == 0 && protocol_may_lack)
        return NULL;
    *agreed = chosen != NULL && strcmp(chosen, protocol) == 0;
    *wrong_protocol = !*agreed;
    return *agreed ? NULL : "its subprotocol is another one";
}
