/* SPDX-License-Identifier: MIT */
/* inproc between two engines, here of one thread, so that what one does is over before the other
 * goes on. */
#include <spoke/spoke.h>

#include "runtime/memory/pool.h"
#include "tests/support/test.h"

enum { FLOOD = 5000, QUEUE = 128 };

/* A peer that says something more whenever the other end takes what it has said. */
static struct {
    spoke_socket *s;
    int sent;
    bool sending;
} peer;

/* At each allocation: to pass a message on takes one. */
static bool
say_more(void *ctx)
{
    (void)ctx;
    if (!peer.sending && peer.sent < FLOOD) {
        peer.sending = true;
        peer.sent += spoke_send_bytes(peer.s, "more", 4, SPOKE_DONTWAIT) == 0;
        peer.sending = false;
    }
    return false;
}

static struct spoke_stats
stats_of(spoke_socket *s)
{
    struct spoke_stats stats;

    cr_assert_eq(spoke_socket_stats(s, &stats), 0);
    return stats;
}

/* Goal: nobody can make an engine do nothing but take messages.  Method: a STAR socket, which has
 * to pass them on and to drop most of them, and a peer whose ring is never empty. */
Test(inproc, a_peer_that_sends_without_end_does_not_keep_the_engine)
{
    spoke_engine *here, *there;
    spoke_socket *s, *other;
    int turns = 0;

    cr_assert_eq(spoke_engine_open(&here, NULL), 0);
    cr_assert_eq(spoke_engine_open(&there, NULL), 0);
    cr_assert_eq(spoke_socket_open(&s, SPOKE_STAR, here), 0);
    cr_assert_eq(spoke_socket_open(&other, SPOKE_STAR, here), 0);
    cr_assert_eq(spoke_socket_open(&peer.s, SPOKE_STAR, there), 0);
    cr_assert_eq(spoke_listen(s, "inproc://without-end", NULL, 0), 0);
    cr_assert_eq(spoke_dial(other, "inproc://without-end", NULL, 0), 0);
    cr_assert_eq(spoke_dial(peer.s, "inproc://without-end", NULL, 0), 0);
    while (stats_of(s).pipes_current < 2 || stats_of(peer.s).pipes_current < 1) {
        cr_assert_geq(spoke_engine_poll(here, 0), 0);
        cr_assert_geq(spoke_engine_poll(there, 0), 0);
    }
    cr_assert_eq(spoke_send_bytes(peer.s, "first", 5, 0), 0);
    spk_memory_set_fault(say_more, NULL);
    while (peer.sent == 0)
        cr_assert_geq(spoke_engine_poll(here, 0), 0);
    cr_assert_lt(peer.sent, FLOOD, "all in one turn");
    for (; stats_of(s).dropped_recv_full < 1 + FLOOD - QUEUE; turns++) {
        cr_assert_lt(turns, FLOOD, "it does not go on: %d", peer.sent);
        cr_assert_geq(spoke_engine_poll(here, 0), 0);
    }
    spk_memory_set_fault(NULL, NULL);
    cr_assert_gt(turns, 1);
    cr_assert_eq(spoke_engine_close(there), 0);
    cr_assert_eq(spoke_engine_close(here), 0);
}
