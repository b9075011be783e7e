/* SPDX-License-Identifier: MIT */
/* ipc: unix stream sockets.  Each message starts with a byte 0x01.  Between two processes of one
 * user that both are spoke the messages move into shared memory (docs/shared-memory.md). */
#include "runtime/core/transport.h"

const struct spoke_transport spoke_transport_ipc = {
    .abi = SPOKE_TRANSPORT_ABI,
    .scheme = "ipc",
    .addresses = {{.prefix = "ipc", .parse = spk_url_unix_path},
                  {.prefix = "unix", .parse = spk_url_unix_path},
                  {.prefix = "abstract", .parse = spk_url_unix_name}},
    .message_type_byte = true,
    .options = SPK_OPTIONS_UNIX | SPK_OPTIONS_UPGRADE,
    .shared_memory = SPK_SHM_MAYBE,
    .dial = spk_unix_dial,
    .dial_cancel = spk_fd_dial_cancel,
    .listen = spk_unix_listen,
    .listen_close = spk_unix_listen_close,
    .listen_pause = spk_fd_listen_pause,
    .listen_address = spk_unix_listen_address,
};
