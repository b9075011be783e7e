/* SPDX-License-Identifier: MIT */
/* shm: shared memory, agreed on over a unix socket as ipc does it, but always: no message goes
 * through the socket, and a peer that cannot is turned away.  docs/shared-memory.md */
#include "runtime/core/transport.h"

const struct spoke_transport spoke_transport_shm = {
    .abi = SPOKE_TRANSPORT_ABI,
    .scheme = "shm",
    .addresses = {{.prefix = "shm", .parse = spk_url_unix_path}},
    .message_type_byte = true,
    .options = SPK_OPTIONS_UNIX,
    .shared_memory = SPK_SHM_ALWAYS,
    .dial = spk_unix_dial,
    .dial_cancel = spk_fd_dial_cancel,
    .listen = spk_unix_listen,
    .listen_close = spk_unix_listen_close,
    .listen_pause = spk_fd_listen_pause,
    .listen_address = spk_unix_listen_address,
};
