/* SPDX-License-Identifier: MIT */
/* Two services at one port of WebSocket, told apart by their paths: /time publishes, /echo answers.
 * Any browser can come in, too (docs/browser.md).
 *
 *     websocket                  serves and asks itself
 *     websocket 127.0.0.1:8080   serves until it is killed */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <spoke/spoke.h>

static const char *place = "127.0.0.1:0"; /* 0: any free port, the same for both */

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "websocket: %s\n", spoke_strerror(rc));
    exit(1);
}

static spoke_socket *
serve(int pattern, const char *path)
{
    static char bound[128];
    spoke_socket *s;
    spoke_listener *l;
    char url[192];

    snprintf(url, sizeof url, "ws://%s%s", place, path);
    check(spoke_socket_open(&s, pattern, NULL));
    check(spoke_listen(s, url, &l, 0));
    check(spoke_listener_get_string(l, SPOKE_OPT_ADDRESS, url, sizeof url));
    printf("serving %s\n", url);
    snprintf(bound, sizeof bound, "%.*s", (int)strcspn(url + 5, "/"), url + 5);
    place = bound;
    return s;
}

static void
echo(spoke_socket *s, spoke_msg *request, void *ctx)
{
    (void)ctx;
    if (spoke_send(s, request, SPOKE_DONTWAIT) != 0) /* taken if it is sent */
        spoke_msg_free(request);
}

static void
ask(spoke_socket *rep)
{
    spoke_socket *req;
    char url[192], text[64];
    size_t size = sizeof text;

    snprintf(url, sizeof url, "ws://%s/echo", place);
    check(spoke_socket_open(&req, SPOKE_REQ, NULL));
    check(spoke_dial(req, url, NULL, SPOKE_WAIT_FIRST));
    check(spoke_send_bytes(req, "is anybody there?", 17, 0));
    check(spoke_recv_bytes(req, text, &size, 0));
    printf("echo: %.*s\n", (int)size, text);
    check(spoke_socket_close(req));
    check(spoke_socket_close(rep));
}

static void
publish(spoke_socket *pub)
{
    char text[32];

    for (unsigned second = 0;; second++) {
        snprintf(text, sizeof text, "second %u", second);
        check(spoke_send_bytes(pub, text, strlen(text), 0));
        sleep(1);
    }
}

int
main(int argc, char **argv)
{
    spoke_socket *pub, *rep;

    if (argc > 1)
        place = argv[1];
    pub = serve(SPOKE_PUB, "/time");
    rep = serve(SPOKE_REP, "/echo");
    check(spoke_socket_on_message(rep, echo, NULL));
    if (argc > 1)
        publish(pub);
    ask(rep);
    check(spoke_socket_close(pub));
    return 0;
}
