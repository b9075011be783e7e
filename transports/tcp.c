/* SPDX-License-Identifier: MIT */
/* tcp: version 4 and 6. */
#include <sys/socket.h>

#include "runtime/core/transport.h"

const struct spoke_transport spoke_transport_tcp = {
    .abi = SPOKE_TRANSPORT_ABI,
    .scheme = "tcp",
    .addresses = {{.prefix = "tcp", .parse = spk_url_host_and_port},
                  {"tcp4", spk_url_host_and_port, .family = AF_INET},
                  {"tcp6", spk_url_host_and_port, .family = AF_INET6}},
    .options = SPK_OPTIONS_TCP,
    .check = spk_tcp_check,
    .dial = spk_tcp_dial,
    .dial_cancel = spk_tcp_dial_cancel,
    .dial_next = spk_tcp_dial_next,
    .listen = spk_tcp_listen,
    .listen_cancel = spk_tcp_listen_cancel,
    .listen_close = spk_fd_listen_close,
    .listen_pause = spk_fd_listen_pause,
    .listen_address = spk_tcp_listen_address,
};
