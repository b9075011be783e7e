/* SPDX-License-Identifier: MIT */
/* Files of a directory, for pages that talk to the listener beside which they are served: GET and
 * HEAD, one file for each connection, read as a whole.  Nothing outside of the directory is ever
 * opened, also not by symbolic links, and no directory is listed. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "transports/ws/http.h"
#include "transports/ws/ws.h"

#define FILE_MOST ((off_t)8 * 1024 * 1024) /* bytes */
#define HEAD_MOST ((size_t)512)

static const char *
type_of(const char *path)
{
    static const struct {
        const char *end, *type;
    } types[] = {
        {".html", "text/html; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"},
        {".mjs", "text/javascript; charset=utf-8"},
        {".css", "text/css; charset=utf-8"},
        {".json", "application/json"},
        {".txt", "text/plain; charset=utf-8"},
        {".svg", "image/svg+xml"},
        {".png", "image/png"},
        {".ico", "image/x-icon"},
        {".wasm", "application/wasm"},
    };
    const char *dot = strrchr(path, '.');

    for (size_t i = 0; dot != NULL && i < sizeof types / sizeof types[0]; i++)
        if (strcasecmp(dot, types[i].end) == 0)
            return types[i].type;
    return "application/octet-stream";
}

/* A regular file below the directory, or -1. */
static int
open_below(const char *directory, const char *path, off_t *size)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int below = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;
    struct stat status;

    if (below >= 0) {
        fd = (int)syscall(SYS_openat2, below, path, &how, sizeof how);
        close(below);
    }
    if (fd >= 0 &&
        (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > FILE_MOST)) {
        close(fd);
        fd = -1;
    }
    *size = fd >= 0 ? status.st_size : 0;
    return fd;
}

static bool
read_whole(int fd, uint8_t *to, size_t size)
{
    while (size > 0) {
        ssize_t n = read(fd, to, size);

        if (n <= 0 && (n == 0 || errno != EINTR))
            return false;
        to += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* The answer, with its head. */
static struct spk_chunk *
answer_of(int fd, const char *path, size_t length, bool head_only, size_t *size)
{
    struct spk_chunk *chunk = spk_chunk_new(HEAD_MOST + length);

    if (chunk == NULL)
        return NULL;
    *size = (size_t)snprintf((char *)chunk->data, HEAD_MOST,
                             "HTTP/1.1 200 OK\r\n"
                             "Content-Type: %s\r\n"
                             "Content-Length: %zu\r\n"
                             "X-Content-Type-Options: nosniff\r\n"
                             "Cache-Control: no-cache\r\n"
                             "Connection: close\r\n\r\n",
                             type_of(path), length);
    if (head_only)
        return chunk;
    if (!read_whole(fd, chunk->data + *size, length)) {
        spk_chunk_unref(chunk);
        return NULL;
    }
    *size += length;
    return chunk;
}

struct spk_chunk *
ws_file_answer(const struct ws_http *h, const char *directory, size_t *size)
{
    char path[SPK_URL_MAX];
    struct spk_chunk *chunk = NULL;
    off_t length;
    int fd;

    if (snprintf(path, sizeof path, "%s", ws_http_target(h)) >= (int)sizeof path - 16 ||
        !ws_http_path(path))
        return NULL;
    if (path[strlen(path) - 1] == '/')
        strcat(path, "index.html");
    if ((fd = open_below(directory, path + strspn(path, "/"), &length)) < 0)
        return NULL;
    chunk = answer_of(fd, path, (size_t)length, strcmp(ws_http_method(h), "HEAD") == 0, size);
    close(fd);
    return chunk;
}
