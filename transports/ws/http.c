/* SPDX-License-Identifier: MIT */
#include "transports/ws/http.h"

#include <http_parser.h>
#include <sha1.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "runtime/memory/pool.h"
#include "transports/ws/frame.h"

#define HEAD_MOST   ((size_t)16 * 1024) /* bytes */
#define FIELDS_MOST 128u

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Where a string begins in `text`. */
struct field {
    uint16_t name, value;
};

struct ws_http {
    http_parser parser;
    bool whole, full, in_value;
    bool first_is_over;         /* the first line */
    size_t first_size;          /* bytes of it so far, */
    char latest[9];             /* and the last of them: room for " HTTP/1.1" */
    uint8_t last, last_but_one; /* bytes of the head */
    size_t size;                /* of the head, so far */
    char *text;                 /* the target, then names and values; each ends with NUL */
    size_t used, room;
    struct field fields[FIELDS_MOST];
    unsigned count;
};

/* ---- taking it apart ---- */

static int
add_text(struct ws_http *h, const char *text, size_t size)
{
    if (h->used + size + 1 > h->room) {
        size_t room = h->used + size + 513;
        char *larger = spk_realloc(h->text, room);

        if (larger == NULL) {
            h->full = true;
            return 1;
        }
        h->text = larger;
        h->room = room;
    }
    memcpy(h->text + h->used, text, size);
    h->used += size;
    h->text[h->used] = '\0';
    return 0;
}

static int
on_target(http_parser *parser, const char *at, size_t size)
{
    return add_text(parser->data, at, size);
}

static int
on_name(http_parser *parser, const char *at, size_t size)
{
    struct ws_http *h = parser->data;

    if (h->count == 0 || h->in_value) { /* the next one begins */
        if (h->count == FIELDS_MOST || add_text(h, "", 1) != 0)
            return 1;
        h->fields[h->count++] = (struct field){(uint16_t)h->used, (uint16_t)h->used};
        h->in_value = false;
    }
    return add_text(h, at, size);
}

static int
on_value(http_parser *parser, const char *at, size_t size)
{
    struct ws_http *h = parser->data;

    if (!h->in_value) {
        if (add_text(h, "", 1) != 0)
            return 1;
        h->fields[h->count - 1].value = (uint16_t)h->used;
        h->in_value = true;
    }
    return add_text(h, at, size);
}

/* Whatever it says of a body: what follows is not for the parser. */
static int
on_whole(http_parser *parser)
{
    ((struct ws_http *)parser->data)->whole = true;
    return 2;
}

static const http_parser_settings settings = {
    .on_url = on_target,
    .on_header_field = on_name,
    .on_header_value = on_value,
    .on_headers_complete = on_whole,
};

struct ws_http *
ws_http_new(bool request)
{
    struct ws_http *h = spk_zalloc(sizeof *h);

    if (h == NULL)
        return NULL;
    http_parser_init(&h->parser, request ? HTTP_REQUEST : HTTP_RESPONSE);
    h->parser.data = h;
    if (add_text(h, "", 0) != 0) {
        spk_free(h);
        return NULL;
    }
    return h;
}

void
ws_http_free(struct ws_http *h)
{
    if (h == NULL)
        return;
    spk_free(h->text);
    spk_free(h);
}

/* The next byte of the first line; empty ones in front of it are none.  A request's ends with its
 * version behind a space, of which there is one between two words; a response begins with it. */
static bool
first_line_is_fine(struct ws_http *h, uint8_t byte)
{
    static const char version[] = " HTTP/";
    bool request = h->parser.type == HTTP_REQUEST;

    if (byte == '\n' || (byte == '\r' && h->first_size == 0)) {
        h->first_is_over = h->first_size > 0;
        return true;
    }
    if (byte == '\r')
        return !request || memcmp(h->latest, version, 6) == 0;
    if (request && byte == ' ' && h->last == ' ')
        return false;
    if (!request && h->first_size < 5 && (char)byte != version[h->first_size + 1])
        return false;
    memmove(h->latest, h->latest + 1, sizeof h->latest - 1);
    h->latest[sizeof h->latest - 1] = (char)byte;
    h->first_size++;
    return true;
}

/* The parser is lenient where others could read something else: lines end with CR LF and do not go
 * on in the next one, and no byte is NUL. */
static bool
lines_are_fine(struct ws_http *h, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = data[i];
        bool begins = h->last == '\n' && h->last_but_one == '\r' && h->size > 2;

        if (byte == '\0' || (byte == '\n') != (h->last == '\r') ||
            (begins && (byte == ' ' || byte == '\t')) ||
            (!h->first_is_over && !first_line_is_fine(h, byte)))
            return false;
        h->last_but_one = h->last;
        h->last = byte;
        h->size++;
    }
    return true;
}

enum ws_http_state
ws_http_feed(struct ws_http *h, const uint8_t *data, size_t size, size_t *used)
{
    size_t room = HEAD_MOST - h->size, n = size < room ? size : room;

    *used = http_parser_execute(&h->parser, &settings, (const char *)data, n);
    if (h->full)
        return WS_HTTP_MEMORY;
    if (h->count == FIELDS_MOST && !h->whole && h->parser.http_errno != HPE_OK)
        return WS_HTTP_TOO_BIG;
    if (h->parser.http_errno != HPE_OK || !lines_are_fine(h, data, *used))
        return WS_HTTP_BAD;
    if (h->whole)
        return WS_HTTP_WHOLE;
    return n < size || h->size == HEAD_MOST ? WS_HTTP_TOO_BIG : WS_HTTP_MORE;
}

/* ---- what it says ---- */

const char *
ws_http_target(const struct ws_http *h)
{
    return h->text;
}

unsigned
ws_http_status(const struct ws_http *h)
{
    return h->parser.status_code;
}

const char *
ws_http_method(const struct ws_http *h)
{
    return http_method_str((enum http_method)h->parser.method);
}

bool
ws_http_asks_for_file(const struct ws_http *h)
{
    unsigned count;

    (void)ws_http_field(h, "Upgrade", &count);
    return count == 0 && h->parser.http_major == 1 &&
           (h->parser.method == HTTP_GET || h->parser.method == HTTP_HEAD);
}

static const char *
value_of(const struct ws_http *h, unsigned i)
{
    /* A field without a value had none of the parser's calls. */
    return h->fields[i].value == h->fields[i].name ? "" : h->text + h->fields[i].value;
}

const char *
ws_http_field(const struct ws_http *h, const char *name, unsigned *count)
{
    const char *value = NULL;

    *count = 0;
    for (unsigned i = 0; i < h->count; i++) {
        if (strcasecmp(h->text + h->fields[i].name, name) == 0) {
            value = value_of(h, i);
            ++*count;
        }
    }
    return *count == 1 ? value : NULL;
}

static bool
list_has(const char *list, const char *token, bool fold)
{
    size_t size = strlen(token);

    while (*list != '\0') {
        size_t n, whole;

        list += strspn(list, ", \t");
        n = whole = strcspn(list, ",");
        while (n > 0 && (list[n - 1] == ' ' || list[n - 1] == '\t'))
            n--;
        if (n == size && (fold ? strncasecmp(list, token, n) : strncmp(list, token, n)) == 0)
            return true;
        list += whole;
    }
    return false;
}

bool
ws_http_has_token(const struct ws_http *h, const char *name, const char *token, bool fold)
{
    for (unsigned i = 0; i < h->count; i++)
        if (strcasecmp(h->text + h->fields[i].name, name) == 0 &&
            list_has(value_of(h, i), token, fold))
            return true;
    return false;
}

char *
ws_http_fields_text(const struct ws_http *h)
{
    size_t size = 1, at = 0;
    char *text;

    for (unsigned i = 0; i < h->count; i++)
        size += strlen(h->text + h->fields[i].name) + strlen(value_of(h, i)) + 3;
    if ((text = spk_zalloc(size)) == NULL)
        return NULL;
    for (unsigned i = 0; i < h->count; i++)
        at += (size_t)snprintf(text + at, size - at, "%s: %s\n", h->text + h->fields[i].name,
                               value_of(h, i));
    return text;
}

/* ---- paths ---- */

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Does one of its parts lead up? */
static bool
leads_up(const char *path)
{
    for (const char *part = path; part != NULL; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
            return true;
    }
    return false;
}

bool
ws_http_path(char *target)
{
    char *to = target, *from = target;

    if (*target != '/')
        return false;
    for (; *from != '\0' && *from != '?'; from++) {
        char c = *from;

        if (c == '#')
            return false;
        if (c == '%') {
            int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);

            if (low < 0 || (high == 0 && low == 0))
                return false;
            c = (char)(high * 16 + low);
            from += 2;
        }
        *to++ = c;
    }
    *to = '\0';
    return !leads_up(target);
}

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
ws_http_accept(const char *key, char accept[WS_ACCEPT_SIZE + 1])
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
ws_http_new_key(char key[WS_KEY_SIZE + 1])
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
    char *target = spk_strdup(h->text);
    bool is_one = target == NULL || ws_http_path(target);

    spk_free(target);
    return is_one;
}

unsigned
ws_http_check_request(const struct ws_http *h, const struct ws_wanted *wanted, bool *agreed,
                      bool *wrong_protocol)
{
    const char *key, *version;
    unsigned keys, versions;

    *agreed = *wrong_protocol = false;
    if (h->parser.http_major != 1 || h->parser.http_minor != 1)
        return 400;
    if (h->parser.method != HTTP_GET)
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
ws_http_put_refusal(char *text, size_t room, unsigned status, const char *protocol)
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
ws_http_check_response(const struct ws_http *h, const char *key, const char *protocol,
                       bool protocol_may_lack, bool *agreed, bool *wrong_protocol)
{
    char accept[WS_ACCEPT_SIZE + 1];
    const char *theirs, *chosen;
    unsigned count;

    *agreed = *wrong_protocol = false;
    chosen = ws_http_field(h, "Sec-WebSocket-Protocol", &count);
    if (h->parser.http_major != 1 || h->parser.http_minor != 1)
        return "it is not HTTP/1.1";
    if (h->parser.status_code != 101) {
        *wrong_protocol = chosen != NULL && strcmp(chosen, protocol) != 0; /* ours say it */
        return "it refuses";
    }
    if (!ws_http_has_token(h, "Upgrade", "websocket", true) ||
        !ws_http_has_token(h, "Connection", "upgrade", true))
        return "it upgrades to something else";
    ws_http_accept(key, accept);
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
