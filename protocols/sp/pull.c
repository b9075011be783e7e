/* SPDX-License-Identifier: MIT */
/* PULL: the messages of all peers, one of each in turn, best receive priority first.  A peer whose
 * messages nobody receives is read no further, so nothing is dropped.  Raw is no different. */
#include "protocols/sp/sp.h"

static unsigned
pull_ready(struct spk_socket *s)
{
    return spk_socket_has_message(s) ? SPK_READABLE : 0;
}

const struct spoke_protocol spoke_protocol_pull = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 81,
    .peer = 80,
    .name = "pull",
    .receives = true,
    .ready = pull_ready,
};
