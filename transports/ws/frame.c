/* SPDX-License-Identifier: MIT */
#include "transports/ws/frame.h"

#include <stdatomic.h>
#include <string.h>

#include "runtime/core/transport.h"
#include "runtime/memory/message.h"
#include "runtime/memory/pool.h"

#define RSV 0x70u

/* ---- heads ---- */

static bool
is_control(unsigned opcode)
{
    return opcode >= WS_CLOSE;
}

static bool
is_known(unsigned opcode)
{
    return opcode <= WS_BINARY || (opcode >= WS_CLOSE && opcode <= WS_PONG);
}

/* What the first two bytes say already. */
static bool
begins_well(const uint8_t *data, bool masked)
{
    unsigned opcode = data[0] & 0xfu, length = data[1] & ~WS_MASKED;

    if ((data[0] & RSV) != 0 || !is_known(opcode) || ((data[1] & WS_MASKED) != 0) != masked)
        return false;
    return !is_control(opcode) || ((data[0] & WS_FIN) != 0 && length <= WS_CONTROL_MOST);
}

int
ws_get_head(struct ws_head *head, const uint8_t *data, size_t size, bool masked)
{
    size_t at = 2;

    if (size < 2)
        return 0;
    if (!begins_well(data, masked))
        return -1;
    head->opcode = data[0] & 0xfu;
    head->fin = (data[0] & WS_FIN) != 0;
    head->length = data[1] & ~WS_MASKED;
    if (head->length == 126) {
        if (size < 4)
            return 0;
        head->length = (uint64_t)data[2] << 8 | data[3];
        if (head->length < 126)
            return -1;
        at = 4;
    } else if (head->length == 127) {
        if (size < 10)
            return 0;
        head->length = spk_get64(data + 2);
        if (head->length <= UINT16_MAX || head->length > INT64_MAX)
            return -1;
        at = 10;
    }
    memset(head->key, 0, sizeof head->key);
    if (!masked)
        return (int)at;
    if (size < at + sizeof head->key)
        return 0;
    memcpy(head->key, data + at, sizeof head->key);
    return (int)(at + sizeof head->key);
}

size_t
ws_head_size(uint64_t length, bool masked)
{
    return (length < 126 ? 2u : length <= UINT16_MAX ? 4u : 10u) + (masked ? 4u : 0u);
}

size_t
ws_put_head(uint8_t *to, unsigned opcode, bool fin, uint64_t length, const uint8_t key[4])
{
    size_t at = 2;

    to[0] = (uint8_t)(opcode | (fin ? WS_FIN : 0));
    if (length < 126) {
        to[1] = (uint8_t)length;
    } else if (length <= UINT16_MAX) {
        to[1] = 126;
        to[2] = (uint8_t)(length >> 8);
        to[3] = (uint8_t)length;
        at = 4;
    } else {
        to[1] = 127;
        spk_put64(to + 2, length);
        at = 10;
    }
    if (key == NULL)
        return at;
    to[1] |= WS_MASKED;
    memcpy(to + at, key, 4);
    return at + 4;
}

/* ---- masks ---- */

/* As wide as every x86-64 has it, and not wider, which gcc would put together in memory; anywhere.
 */
typedef uint64_t wide __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint64_t word __attribute__((aligned(1), may_alias));

void
ws_mask(uint8_t *to, const uint8_t *from, size_t size, const uint8_t key[4], uint64_t at)
{
    unsigned turn = 8 * (unsigned)(at & 3);
    uint32_t turned;
    uint64_t one;
    wide two;

    memcpy(&turned, key, sizeof turned);
    turned = turned >> turn | turned << (-turn & 31); /* its first byte is the lowest */
    one = (uint64_t)turned << 32 | turned;
    two = (wide){one, one};
    for (; size >= sizeof two; size -= sizeof two, from += sizeof two, to += sizeof two)
        *(wide *)(void *)to = *(const wide *)(const void *)from ^ two;
    if (size >= sizeof one) {
        *(word *)(void *)to = *(const word *)(const void *)from ^ one;
        size -= sizeof one, from += sizeof one, to += sizeof one;
    }
    for (; size > 0; size--, one >>= 8)
        *to++ = *from++ ^ (uint8_t)one;
}

/* Many are drawn at once: as many as a library that is loaded late (dlopen()) may keep for each
 * thread. */
static _Thread_local __attribute__((tls_model("initial-exec"))) struct {
    uint8_t bytes[256];
    size_t left;
    unsigned generation; /* a child of fork() draws its own */
} drawn;

static __attribute__((noinline)) void
draw(unsigned generation)
{
    spk_random(drawn.bytes, sizeof drawn.bytes);
    drawn.left = sizeof drawn.bytes;
    drawn.generation = generation;
}

void
ws_new_key(uint8_t key[4])
{
    unsigned generation = atomic_load_explicit(&spk_fork_generation, memory_order_relaxed);

    if (drawn.left == 0 || drawn.generation != generation)
        draw(generation);
    drawn.left -= 4;
    memcpy(key, drawn.bytes + drawn.left, 4);
}

/* ---- control frames ---- */

size_t
ws_put_control(uint8_t *to, unsigned opcode, const uint8_t *payload, size_t size, bool masked)
{
    uint8_t key[4];
    size_t at;

    if (masked)
        ws_new_key(key);
    at = ws_put_head(to, opcode, true, size, masked ? key : NULL);
    if (masked)
        ws_mask(to + at, payload, size, key, 0);
    else if (size > 0)
        memcpy(to + at, payload, size);
    return at + size;
}

size_t
ws_put_close(uint8_t *to, unsigned code, bool masked)
{
    uint8_t payload[2] = {(uint8_t)(code >> 8), (uint8_t)code};

    return ws_put_control(to, WS_CLOSE, payload, sizeof payload, masked);
}

static bool
code_is_fine(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

bool
ws_close_is_fine(const uint8_t *payload, size_t size)
{
    struct ws_utf8 reason = {0};

    if (size == 0)
        return true;
    return size >= 2 && code_is_fine((unsigned)payload[0] << 8 | payload[1]) &&
           ws_utf8_goes_on(&reason, payload + 2, size - 2) && ws_utf8_is_whole(&reason);
}

/* ---- UTF-8 ---- */

/* The first byte of a character that has more than one. */
static bool
begin_character(struct ws_utf8 *u, uint8_t byte)
{
    u->least = 0x80;
    u->most = 0xbf;
    if (byte >= 0xc2 && byte <= 0xdf) {
        u->missing = 1;
    } else if ((byte & 0xf0) == 0xe0) {
        u->missing = 2;
        if (byte == 0xe0) /* shorter ones say the same */
            u->least = 0xa0;
        else if (byte == 0xed) /* halves of pairs */
            u->most = 0x9f;
    } else if (byte >= 0xf0 && byte <= 0xf4) {
        u->missing = 3;
        if (byte == 0xf0)
            u->least = 0x90;
        else if (byte == 0xf4) /* beyond the last one */
            u->most = 0x8f;
    } else {
        return false;
    }
    return true;
}

bool
ws_utf8_goes_on(struct ws_utf8 *u, const uint8_t *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (u->missing > 0) {
            if (text[i] < u->least || text[i] > u->most)
                return false;
            u->missing--;
            u->least = 0x80;
            u->most = 0xbf;
        } else if (text[i] >= 0x80 && !begin_character(u, text[i])) {
            return false;
        }
    }
    return true;
}
