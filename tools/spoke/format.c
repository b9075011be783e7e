/* SPDX-License-Identifier: MIT */
/* The formats of `spoke cat`.  Whatever the locale, a byte from 0x20 to 0x7e is printable and no
 * other. */
#include "format.h"

#include <stdint.h>
#include <string.h>

static const char *const names[] = {
    [FORMAT_NO] = "no",         [FORMAT_RAW] = "raw",         [FORMAT_ASCII] = "ascii",
    [FORMAT_QUOTED] = "quoted", [FORMAT_MSGPACK] = "msgpack", [FORMAT_HEX] = "hex",
};

bool
format_by_name(const char *name, enum format *out)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (enum format)i;
            return true;
        }
    }
    return false;
}

static bool
is_printable(uint8_t byte)
{
    return byte >= 0x20 && byte <= 0x7e;
}

static void
put_ascii(FILE *to, uint8_t byte)
{
    putc_unlocked(is_printable(byte) ? byte : '.', to);
}

static void
put_hex(FILE *to, uint8_t byte)
{
    static const char digits[] = "0123456789abcdef";

    fputs_unlocked("\\x", to);
    putc_unlocked(digits[byte >> 4], to);
    putc_unlocked(digits[byte & 15], to);
}

static void
put_quoted(FILE *to, uint8_t byte)
{
    if (byte == '\n')
        fputs_unlocked("\\n", to);
    else if (byte == '\r')
        fputs_unlocked("\\r", to);
    else if (!is_printable(byte))
        put_hex(to, byte);
    else {
        if (byte == '\\' || byte == '"')
            putc_unlocked('\\', to);
        putc_unlocked(byte, to);
    }
}

static void
put_each(FILE *to, void (*put)(FILE *, uint8_t), const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        put(to, bytes[i]);
}

/* bin 8, bin 16 or bin 32: a tag, the length big-endian, the bytes.  Bodies are shorter than 4 GiB.
 */
static void
put_msgpack(FILE *to, const uint8_t *bytes, size_t size)
{
    int length_bytes = size < 0x100 ? 1 : size < 0x10000 ? 2 : 4;

    putc_unlocked(length_bytes == 1 ? 0xc4 : length_bytes == 2 ? 0xc5 : 0xc6, to);
    for (int i = length_bytes - 1; i >= 0; i--)
        putc_unlocked((int)(size >> (8 * i)) & 0xff, to);
    fwrite_unlocked(bytes, 1, size, to);
}

void
format_print(FILE *to, enum format format, const void *body, size_t size)
{
    const char *frame = format == FORMAT_QUOTED || format == FORMAT_HEX ? "\"" : "";

    if (format == FORMAT_NO)
        return;
    fputs_unlocked(frame, to);
    switch (format) {
    case FORMAT_MSGPACK: put_msgpack(to, body, size); break;
    case FORMAT_ASCII: put_each(to, put_ascii, body, size); break;
    case FORMAT_QUOTED: put_each(to, put_quoted, body, size); break;
    case FORMAT_HEX: put_each(to, put_hex, body, size); break;
    default: fwrite_unlocked(body, 1, size, to);
    }
    fputs_unlocked(frame, to);
    if (format != FORMAT_RAW && format != FORMAT_MSGPACK)
        putc_unlocked('\n', to);
}
