/* SPDX-License-Identifier: MIT */
/* The HTTP in front of WebSocket: heads of requests and responses, which http-parser takes apart.
 * No I/O. */
#ifndef SPK_WS_HTTP_H
#define SPK_WS_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ws_http;

enum ws_http_state {
    WS_HTTP_MORE,    /* the head goes on */
    WS_HTTP_WHOLE,   /* it has ended */
    WS_HTTP_BAD,     /* it is none */
    WS_HTTP_TOO_BIG, /* it is longer than 16 KiB */
    WS_HTTP_MEMORY
};

/* NULL: no memory. */
struct ws_http *ws_http_new(bool request);
void ws_http_free(struct ws_http *h);
/* What has come; *used of it belong to the head. */
enum ws_http_state ws_http_feed(struct ws_http *h, const uint8_t *data, size_t size, size_t *used);

/* Of a whole head.  The value of the only field of this name; NULL: there is none, or (*count > 1)
 * there are several. */
const char *ws_http_field(const struct ws_http *h, const char *name, unsigned *count);
/* Is `token` among those of all fields of this name?  Case does not matter to `fold`. */
bool ws_http_has_token(const struct ws_http *h, const char *name, const char *token, bool fold);
const char *ws_http_target(const struct ws_http *h); /* "/path?query" as it came */
unsigned ws_http_status(const struct ws_http *h);    /* of a response */
const char *ws_http_method(const struct ws_http *h);
bool ws_http_is_1_1(const struct ws_http *h); /* its version */
/* GET or HEAD, and no upgrade. */
bool ws_http_asks_for_file(const struct ws_http *h);
/* All fields as lines "name: value\n".  The caller's, with spk_free(); NULL: no memory. */
char *ws_http_fields_text(const struct ws_http *h);

/* "/a%20b?c" is the path "/a b", in place.  False: it is none that anybody may ask for. */
bool ws_http_path(char *target);

#endif
