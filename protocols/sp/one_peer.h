/* SPDX-License-Identifier: MIT */
/* What the two versions of PAIR have in common: one peer at a time.  Whoever else connects is
 * turned away after the handshake, and its dialer tries again.
 *
 * What the peer's pipe cannot take waits in the socket's send queue; it stays there when the peer
 * leaves, for the next one.  While something waits, nothing overtakes it. */
#ifndef SPK_SP_ONE_PEER_H
#define SPK_SP_ONE_PEER_H

#include "protocols/sp/sp.h"

/* The state of the socket, or the beginning of it. */
struct spk_one_peer {
    struct spk_pipe *pipe; /* NULL: none */
    struct spk_queue waiting;
};

/* Takes m on success. */
static inline int
spk_one_peer_send(struct spk_socket *s, spoke_msg *m)
{
    struct spk_one_peer *peer = spk_socket_state(s);

    if (peer->pipe != NULL && peer->waiting.count == 0) {
        int rc = spk_pipe_send(peer->pipe, m);
        if (rc != SPOKE_EAGAIN)
            return rc;
    }
    return spk_sp_enqueue(s, &peer->waiting, m);
}

/* The slots of their vtables. */
int spk_one_peer_open(struct spk_socket *s);
void spk_one_peer_close(struct spk_socket *s);
void spk_one_peer_options_changed(struct spk_socket *s);
int spk_one_peer_pipe_added(struct spk_socket *s, struct spk_pipe *p);
void spk_one_peer_pipe_removed(struct spk_socket *s, struct spk_pipe *p);
void spk_one_peer_writable(struct spk_socket *s, struct spk_pipe *p);
unsigned spk_one_peer_ready(struct spk_socket *s);
size_t spk_one_peer_pending(struct spk_socket *s, uint64_t *bytes);

#endif
