/* SPDX-License-Identifier: MIT */
/* Lines from a descriptor.  start <= looked <= end <= size; a line lies in the buffer as a whole,
 * so the buffer grows to the longest one. */
#include "lines.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES ((size_t)65536)

void
lines_init(struct lines *l, int fd)
{
    *l = (struct lines){.fd = fd};
}

void
lines_fini(struct lines *l)
{
    free(l->buffer);
    l->buffer = NULL;
}

bool
lines_next(struct lines *l, const char **line, size_t *size)
{
    char *newline = NULL;

    if (l->looked < l->end)
        newline = memchr(l->buffer + l->looked, '\n', l->end - l->looked);
    if (newline == NULL && !(l->ended && l->start < l->end)) {
        l->looked = l->end;
        return false;
    }
    *line = l->buffer + l->start;
    *size = newline != NULL ? (size_t)(newline - *line) : l->end - l->start;
    l->start += *size + (newline != NULL);
    l->looked = l->start;
    return true;
}

/* Make room for READ_BYTES behind what is there. */
static int
make_room(struct lines *l)
{
    char *grown;

    if (l->start > 0) {
        memmove(l->buffer, l->buffer + l->start, l->end - l->start);
        l->end -= l->start;
        l->looked -= l->start;
        l->start = 0;
    }
    if (l->size - l->end >= READ_BYTES)
        return 0;
    if ((grown = realloc(l->buffer, 2 * l->size + READ_BYTES)) == NULL)
        return ENOMEM;
    l->buffer = grown;
    l->size = 2 * l->size + READ_BYTES;
    return 0;
}

int
lines_fill(struct lines *l)
{
    ssize_t got;
    int error;

    if ((error = make_room(l)) != 0)
        return error;
    if ((got = read(l->fd, l->buffer + l->end, l->size - l->end)) < 0)
        return errno;
    l->end += (size_t)got;
    l->ended = got == 0;
    return 0;
}
