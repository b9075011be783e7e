/* SPDX-License-Identifier: MIT */
/* ws: WebSocket over TCP; wss: over TLS.  Addresses, and what the parts of this folder are put
 * together to. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "transports/ws/http.h"
#include "transports/ws/ws.h"

#define PORT        80
#define SECURE_PORT 443

/* The host as for TCP, and a path that a request can ask for. */
static int
check(const struct spk_url *url)
{
    char *path = spk_strdup(url->path == NULL || *url->path == '?' ? "/" : url->path);
    bool is_path;

    if (path == NULL)
        return SPOKE_ENOMEM;
    is_path = ws_http_path(path);
    spk_free(path);
    return is_path ? spk_tcp_check(url) : SPOKE_EURL;
}

static int
listen_address(struct spk_endpoint *l, char *text, size_t size)
{
    int rc = spk_tcp_listen_address(l, text, size);
    size_t used = rc == 0 ? strlen(text) : 0;

    if (rc == 0 && l->url.path != NULL)
        snprintf(text + used, size - used, "%s", l->url.path);
    return rc;
}

int
ws_start_pipe(struct spk_endpoint *ep, struct spk_stream *mine)
{
    return ep->owner != NULL ? spk_bytes_start(ep, mine) : ws_pipe_start(ep, mine);
}

int
ws_start(struct spk_endpoint *ep, struct spk_stream *st)
{
    struct spk_stream *mine;
    int rc = ws_stream_new(&mine, ep, st);

    return rc != 0 ? rc : ws_start_pipe(ep, mine);
}

static int
ws_listen(struct spk_endpoint *l)
{
    return ws_place_listen(l, spk_tcp_listen);
}

static int
wss_listen(struct spk_endpoint *l)
{
    int rc = spk_tls_check_listener(l);

    return rc != 0 ? rc : ws_place_listen(l, spk_tcp_listen);
}

const struct spoke_transport spoke_transport_ws = {
    .abi = SPOKE_TRANSPORT_ABI,
    .scheme = "ws",
    .addresses = {{"ws", spk_url_web, .port = PORT},
                  {"ws4", spk_url_web, AF_INET, PORT},
                  {"ws6", spk_url_web, AF_INET6, PORT}},
    .options = SPK_OPTIONS_TCP | SPK_OPTIONS_WS,
    .start_pipe = ws_start,
    .check = check,
    .dial = spk_tcp_dial,
    .dial_cancel = spk_tcp_dial_cancel,
    .dial_next = spk_tcp_dial_next,
    .listen = ws_listen,
    .listen_cancel = spk_tcp_listen_cancel,
    .listen_close = ws_place_close,
    .listen_pause = ws_place_pause,
    .listen_address = listen_address,
};

const struct spoke_transport spoke_transport_wss = {
    .abi = SPOKE_TRANSPORT_ABI,
    .scheme = "wss",
    .addresses = {{"wss", spk_url_web, .port = SECURE_PORT},
                  {"wss4", spk_url_web, AF_INET, SECURE_PORT},
                  {"wss6", spk_url_web, AF_INET6, SECURE_PORT}},
    .options = SPK_OPTIONS_TCP | SPK_OPTIONS_TLS | SPK_OPTIONS_WS,
    .wrap = spk_tls_wrap,
    .start_pipe = ws_start,
    .check = check,
    .dial = spk_tcp_dial,
    .dial_cancel = spk_tcp_dial_cancel,
    .dial_next = spk_tcp_dial_next,
    .listen = wss_listen,
    .listen_cancel = spk_tcp_listen_cancel,
    .listen_close = ws_place_close,
    .listen_pause = ws_place_pause,
    .listen_address = listen_address,
};
