/* SPDX-License-Identifier: MIT */
/* Lines from a descriptor, read so that one can poll() it between them. */
#ifndef TOOLS_SPOKE_LINES_H
#define TOOLS_SPOKE_LINES_H

#include <stdbool.h>
#include <stddef.h>

struct lines {
    int fd;
    char *buffer;
    size_t size;  /* of the buffer */
    size_t start; /* of what has not been taken */
    size_t end;
    size_t looked; /* up to here there is no newline */
    bool ended;    /* the descriptor has no more */
};

void lines_init(struct lines *l, int fd);
void lines_fini(struct lines *l); /* leaves the descriptor open */

/* Give the next line, without its newline: borrowed until the next call.  The last one needs no
 * newline. False: there is none yet (lines_fill() and ask again) or, if `ended`, none ever. */
bool lines_next(struct lines *l, const char **line, size_t *size);

/* Read once.  Waits if the descriptor does.  Returns 0 or an errno; EAGAIN and EINTR mean ask
 * again. */
int lines_fill(struct lines *l);

#endif
