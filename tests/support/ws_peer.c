/* SPDX-License-Identifier: MIT */
#include "tests/support/ws_peer.h"

#include <sha1.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_MOST ((size_t)4 * 1024 * 1024)

void
ws_place(char tcp[160], const char *url)
{
    char text[160];

    snprintf(text, sizeof text, "%s", strstr(url, "://") + 3);
    text[strcspn(text, "/")] = '\0';
    snprintf(tcp, 160, "tcp://%.150s", text);
}

size_t
ws_request(char *text, size_t room, const char *path, const char *protocol, const char *more)
{
    int n = snprintf(text, room,
                     "GET %s HTTP/1.1\r\n"
                     "Host: localhost\r\n"
                     "Upgrade: websocket\r\n"
                     "Connection: Upgrade\r\n"
                     "Sec-WebSocket-Key: " WS_SAMPLE_KEY "\r\n"
                     "Sec-WebSocket-Version: 13\r\n"
                     "%s%s%s%s\r\n",
                     path, protocol != NULL ? "Sec-WebSocket-Protocol: " : "",
                     protocol != NULL ? protocol : "", protocol != NULL ? "\r\n" : "", more);

    return n > 0 && (size_t)n < room ? (size_t)n : 0;
}

long
ws_read_head(struct raw_peer *p, char *text, size_t room, int limit_ms)
{
    size_t size = 0;
    int rc = RAW_OK;

    while (size + 1 < room && (rc = raw_recv_bytes(p, text + size, 1, limit_ms)) == RAW_OK) {
        text[++size] = '\0';
        if (size >= 4 && strcmp(text + size - 4, "\r\n\r\n") == 0)
            return (long)size;
    }
    return rc == RAW_OK ? RAW_BAD : rc;
}

int
ws_status(const char *head)
{
    int status;

    return sscanf(head, "HTTP/1.1 %d ", &status) == 1 ? status : 0;
}

int
ws_open(struct raw_peer *p, const char *url, const char *protocol)
{
    char text[1024], place[160];
    const char *path = strchr(strstr(url, "://") + 3, '/');
    size_t size = ws_request(text, sizeof text, path != NULL ? path : "/", protocol, "");
    long rc;

    ws_place(place, url);
    if ((rc = raw_connect(p, place, RAW_LIMIT_MS)) != RAW_OK ||
        (rc = raw_send_bytes(p, text, size, RAW_LIMIT_MS)) != RAW_OK ||
        (rc = ws_read_head(p, text, sizeof text, RAW_LIMIT_MS)) < 0)
        return (int)rc;
    return ws_status(text) == 101 && strstr(text, WS_SAMPLE_ACCEPT "\r\n") != NULL ? RAW_OK
                                                                                   : RAW_BAD;
}

void
ws_accept_of(const char *key, char accept[29])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t digest[21] = {0};
    char text[128];
    SHA1_CTX ctx;

    snprintf(text, sizeof text, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    SHA1Init(&ctx);
    SHA1Update(&ctx, (const uint8_t *)text, strlen(text));
    SHA1Final(digest, &ctx);
    for (int bit = 0; bit < 28 * 6; bit += 6) {
        unsigned pair = (unsigned)digest[bit / 8] << 8 | (bit / 8 < 20 ? digest[bit / 8 + 1] : 0u);
        accept[bit / 6] = digits[pair >> (10 - bit % 8) & 63];
    }
    accept[27] = '=';
    accept[28] = '\0';
}

int
ws_accept(struct raw_listener *l, struct raw_peer *p, const char *protocol)
{
    char text[4096], key[64] = "", asked[128] = "", accept[29];
    const char *at;
    long rc;
    int n;

    if ((rc = raw_accept(l, p, RAW_LIMIT_MS)) != RAW_OK ||
        (rc = ws_read_head(p, text, sizeof text, RAW_LIMIT_MS)) < 0)
        return (int)rc;
    if ((at = strstr(text, "\r\nSec-WebSocket-Key: ")) == NULL || sscanf(at, "%*s %63s", key) != 1)
        return RAW_BAD;
    if ((at = strstr(text, "\r\nSec-WebSocket-Protocol: ")) == NULL ||
        sscanf(at, "%*s %127s", asked) != 1)
        return RAW_BAD;
    ws_accept_of(key, accept);
    n = snprintf(text, sizeof text,
                 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
                 accept, protocol != NULL ? protocol : asked);
    return raw_send_bytes(p, text, (size_t)n, RAW_LIMIT_MS);
}

size_t
ws_frame(uint8_t *to, unsigned first, const void *payload, size_t size, bool masked)
{
    static const uint8_t key[4] = {1, 2, 3, 4};
    size_t at = 2;

    to[0] = (uint8_t)first;
    to[1] = masked ? 0x80 : 0;
    if (size < 126) {
        to[1] = (uint8_t)(to[1] | size);
    } else if (size < 65536) {
        to[1] |= 126;
        to[at++] = (uint8_t)(size >> 8);
        to[at++] = (uint8_t)size;
    } else {
        to[1] |= 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            to[at++] = (uint8_t)((uint64_t)size >> shift);
    }
    for (int i = 0; masked && i < 4; i++)
        to[at++] = key[i];
    for (size_t i = 0; i < size; i++)
        to[at + i] = (uint8_t)(((const uint8_t *)payload)[i] ^ (masked ? key[i & 3] : 0));
    return at + size;
}

int
ws_send_frame(struct raw_peer *p, unsigned first, const void *payload, size_t size, bool masked)
{
    uint8_t *bytes = malloc(size + 14);
    int rc = RAW_FAILED;

    if (bytes != NULL)
        rc = raw_send_bytes(p, bytes, ws_frame(bytes, first, payload, size, masked), RAW_LIMIT_MS);
    free(bytes);
    return rc;
}

long
ws_recv_frame(struct raw_peer *p, unsigned *first, void *payload, size_t room, int limit_ms)
{
    uint8_t head[2], more[8], key[4] = {0}, *bytes = payload;
    uint64_t size;
    int rc, n;

    if ((rc = raw_recv_bytes(p, head, 2, limit_ms)) != RAW_OK)
        return rc;
    *first = head[0];
    size = head[1] & 0x7f;
    n = size == 126 ? 2 : size == 127 ? 8 : 0;
    if (n > 0) {
        if ((rc = raw_recv_bytes(p, more, (size_t)n, limit_ms)) != RAW_OK)
            return rc;
        size = 0;
        for (int i = 0; i < n; i++)
            size = size << 8 | more[i];
    }
    if ((head[1] & 0x80) != 0 && (rc = raw_recv_bytes(p, key, 4, limit_ms)) != RAW_OK)
        return rc;
    if (size > room || size > FRAME_MOST)
        return RAW_BAD;
    if ((rc = raw_recv_bytes(p, bytes, (size_t)size, limit_ms)) != RAW_OK)
        return rc;
    for (size_t i = 0; i < size; i++)
        bytes[i] ^= key[i & 3];
    return (long)size;
}

int
ws_wait_close(struct raw_peer *p, int limit_ms)
{
    static uint8_t payload[65536];
    unsigned first;
    long size;

    while ((size = ws_recv_frame(p, &first, payload, sizeof payload, limit_ms)) >= 0) {
        if (first == 0x88)
            return size >= 2 ? payload[0] << 8 | payload[1] : 1005;
    }
    return (int)size;
}
