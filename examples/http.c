/* SPDX-License-Identifier: MIT */
/* An HTTP server and its client, with streams: in one process, or, with another URL, in two.
 *
 *     http                              both here, over inproc://
 *     http serve tcp://127.0.0.1:8080   try it with: curl http://127.0.0.1:8080/hello
 *     http get   ipc:///run/some.sock   from any server that speaks HTTP there */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <spoke/spoke.h>

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "http: %s\n", spoke_strerror(rc));
    exit(1);
}

static void
answer(spoke_stream *s)
{
    char request[2048], text[2048], path[1024] = "";
    size_t have = 0, n;

    check(spoke_stream_set_deadline(s, spoke_engine_now(NULL) + 30 * SPOKE_SECOND));
    while (have < sizeof request - 1 &&
           spoke_stream_read(s, request + have, sizeof request - 1 - have, &n) == 0) {
        request[have += n] = '\0';
        if (strstr(request, "\r\n\r\n") != NULL && sscanf(request, "GET %1023s", path) == 1) {
            int size = snprintf(text, sizeof text,
                                "HTTP/1.0 200 OK\r\nContent-Length: %zu\r\n\r\nYou asked for %s.\n",
                                strlen(path) + 16, path);
            check(spoke_stream_write(s, text, (size_t)size, &n));
            break;
        }
    }
    check(spoke_stream_close(s)); /* what was written still arrives */
}

static void *
serve(void *listener)
{
    spoke_stream *s;

    while (spoke_stream_accept(listener, &s, SPOKE_FOREVER) == 0)
        answer(s);
    return NULL;
}

static void
get(const char *url)
{
    static const char request[] = "GET /hello HTTP/1.0\r\n\r\n";
    char text[4096];
    spoke_stream *s;
    size_t n;

    check(spoke_stream_dial(&s, url, NULL, NULL, spoke_engine_now(NULL) + 30 * SPOKE_SECOND));
    check(spoke_stream_write(s, request, sizeof request - 1, &n));
    while (spoke_stream_read(s, text, sizeof text, &n) == 0)
        fwrite(text, 1, n, stdout);
    check(spoke_stream_close(s));
}

int
main(int argc, char **argv)
{
    const char *url = argc > 2 ? argv[2] : "inproc://http";
    spoke_stream_listener *listener;
    pthread_t server;

    if (argc > 2 && strcmp(argv[1], "get") == 0) {
        get(url);
        return 0;
    }
    check(spoke_stream_listen(&listener, url, NULL, NULL));
    if (argc > 2) {
        serve(listener);
    } else if (pthread_create(&server, NULL, serve, listener) == 0) {
        get(url);
        check(spoke_stream_listener_close(listener)); /* ends the wait for the next */
        pthread_join(server, NULL);
    }
    return 0;
}
