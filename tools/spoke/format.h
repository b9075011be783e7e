/* SPDX-License-Identifier: MIT */
/* How `spoke cat` prints a message: nanocat's formats, and lines. */
#ifndef TOOLS_SPOKE_FORMAT_H
#define TOOLS_SPOKE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum format {
    FORMAT_NO,      /* nothing */
    FORMAT_RAW,     /* the bytes */
    FORMAT_ASCII,   /* what is not printable ASCII becomes a dot; newline */
    FORMAT_QUOTED,  /* "a C string"; newline */
    FORMAT_MSGPACK, /* a msgpack bin object */
    FORMAT_HEX,     /* "\x61\x62"; newline */
    FORMAT_LINE     /* the bytes; newline */
};

/* Find a format by nanocat's name for it ("line" is none). */
bool format_by_name(const char *name, enum format *out);

/* Print one message.  Errors stay in the stream: ferror(). */
void format_print(FILE *to, enum format format, const void *body, size_t size);

#endif
