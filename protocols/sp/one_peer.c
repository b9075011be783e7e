/* SPDX-License-Identifier: MIT */
/* One peer at a time, for both versions of PAIR: see one_peer.h. */
#include "protocols/sp/one_peer.h"

/* ---- life ---- */

void
spk_one_peer_options_changed(struct spk_socket *s)
{
    struct spk_one_peer *peer = spk_socket_state(s);

    spk_sp_bound_queue(s, &peer->waiting);
}

int
spk_one_peer_open(struct spk_socket *s)
{
    spk_one_peer_options_changed(s);
    return 0;
}

void
spk_one_peer_close(struct spk_socket *s)
{
    struct spk_one_peer *peer = spk_socket_state(s);

    spk_sp_end_queue(s, NULL, &peer->waiting);
}

/* ---- the peer ---- */

int
spk_one_peer_pipe_added(struct spk_socket *s, struct spk_pipe *p)
{
    struct spk_one_peer *peer = spk_socket_state(s);

    if (peer->pipe != NULL)
        return SPOKE_EREFUSED;
    peer->pipe = p;
    return 0;
}

void
spk_one_peer_pipe_removed(struct spk_socket *s, struct spk_pipe *p)
{
    struct spk_one_peer *peer = spk_socket_state(s);

    if (peer->pipe == p)
        peer->pipe = NULL;
    spk_socket_wake(s, SPK_WRITABLE); /* it may be writable no longer */
}

void
spk_one_peer_writable(struct spk_socket *s, struct spk_pipe *p)
{
    struct spk_one_peer *peer = spk_socket_state(s);

    spk_sp_send_waiting(s, &peer->waiting, p);
    spk_socket_wake(s, SPK_WRITABLE | SPK_ALL);
}

/* ---- the user ---- */

unsigned
spk_one_peer_ready(struct spk_socket *s)
{
    struct spk_one_peer *peer = spk_socket_state(s);
    bool direct = peer->pipe != NULL && peer->waiting.count == 0 && spk_pipe_can_send(peer->pipe);
    unsigned ready = spk_socket_has_message(s) ? SPK_READABLE : 0;

    return direct || !spk_queue_full(&peer->waiting) ? ready | SPK_WRITABLE : ready;
}

size_t
spk_one_peer_pending(struct spk_socket *s, uint64_t *bytes)
{
    struct spk_one_peer *peer = spk_socket_state(s);

    return spk_sp_queued(&peer->waiting, bytes);
}
