/* SPDX-License-Identifier: MIT */
#include "transports/ws/http.h"

#include <http_parser.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "runtime/memory/pool.h"

#define HEAD_MOST   ((size_t)16 * 1024) /* bytes */
#define FIELDS_MOST 128u

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

bool
ws_http_is_1_1(const struct ws_http *h)
{
    return h->parser.http_major == 1 && h->parser.http_minor == 1;
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
