/* SPDX-License-Identifier: MIT */
/* tls+tcp: TLS over tcp, version 4 and 6.  What is said inside is what tcp says. */
#include <sys/socket.h>

#include "runtime/core/transport.h"

static int
tls_listen(struct spk_endpoint *l)
{
    int rc = spk_tls_check_listener(l);

    return rc != 0 ? rc : spk_tcp_listen(l);
}

const struct spoke_transport spoke_transport_tls = {
    .abi = SPOKE_TRANSPORT_ABI,
    .scheme = "tls+tcp",
    .addresses = {{.prefix = "tls+tcp", .parse = spk_url_host_and_port},
                  {"tls+tcp4", spk_url_host_and_port, .family = AF_INET},
                  {"tls+tcp6", spk_url_host_and_port, .family = AF_INET6}},
    .options = SPK_OPTIONS_TCP | SPK_OPTIONS_TLS,
    .wrap = spk_tls_wrap,
    .check = spk_tcp_check,
    .dial = spk_tcp_dial,
    .dial_cancel = spk_tcp_dial_cancel,
    .dial_next = spk_tcp_dial_next,
    .listen = tls_listen,
    .listen_cancel = spk_tcp_listen_cancel,
    .listen_close = spk_fd_listen_close,
    .listen_pause = spk_fd_listen_pause,
    .listen_address = spk_tcp_listen_address,
};
