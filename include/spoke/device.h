/* SPDX-License-Identifier: MIT */
/* Devices: two sockets whose messages are passed on from one to the other, or one socket whose
 * messages go back to its peers, without any call of the user's in between.
 *
 *        clients ── REQ ─▶ REP │ REQ ── ─▶ REP servers        spoke_device_start(&d, rep, req)
 *
 * A device has no thread.  It works where its sockets' engines do: on the shared engine in the
 * library's thread, on an owned one whenever its owner drives it.  Bodies are passed by reference,
 * never copied.  It takes a message off one socket only when the other one has room for it, so a
 * side that is slow holds up its senders as it would if it received them itself; nothing is dropped
 * that the patterns do not drop.
 *
 * These pairs are possible, in either order; all others are refused with SPOKE_ENOTSUP:
 *
 *     REP and REQ, RESPONDENT and SURVEYOR          requests one way, replies back
 *     SUB and PUB, PULL and PUSH                    one way
 *     PAIR, PAIR1, BUS, STAR and another of these   both ways
 *     PAIR, PAIR1, BUS, STAR alone                  PAIR: an echo; BUS, STAR: a hub
 *
 * Rings of devices come to an end where the pattern counts hops (REP, RESPONDENT, STAR, PAIR1:
 * SPOKE_OPT_TTL), and go round for ever where it does not.  A SUB passes on what it has subscribed
 * to. A STAR alone passes messages on by itself; its device only takes off what would be received.
 */
#ifndef SPOKE_DEVICE_H
#define SPOKE_DEVICE_H

#include <spoke/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A running device: a handle, checked on every call like all others. */
typedef struct spoke_device spoke_device;

/* Pass on what arrives at `a` to `b` and what arrives at `b` to `a`.  If one of them is NULL or
 * both are the same: back to that socket.  Returns at once; the device lives until
 * spoke_device_stop() or the close of one of its sockets, which leaves the other one open.
 *
 * The sockets have to be raw.  Those that have not dialed or listened yet are made so; they can do
 * both before and after this call, but SPOKE_OPT_RAW and the lengths of queues are fixed from here
 * on.  While the device runs a receive on them gives SPOKE_ESTATE, and so does
 * spoke_socket_on_message(), and SPOKE_OPT_RECV_FD is not readable; everything else may be done,
 * also sending.
 *
 * They may be on one engine or on two.  The caller has to be somebody who may call both: any thread
 * if they are on the shared engine, else the owner of the engine or engines (SPOKE_EWRONGTHREAD).
 * Between engines of two threads stand two devices with an inproc address in between.  Where the
 * engines differ up to 64 messages and 1 MiB are on their way in each direction.
 *
 * Errors: SPOKE_ENOTSUP not a pair of the table; SPOKE_ETOOLATE a socket is not raw and has dialed
 * or listened; SPOKE_EBUSY a socket is in a device already, or has an on_message callback;
 * SPOKE_ECLOSED; SPOKE_ENOMEM; SPOKE_ELIMIT no handles left.  Nothing has changed then, but that a
 * socket may be raw; *out is NULL. */
SPOKE_API int spoke_device_start(spoke_device **out, spoke_socket *a, spoke_socket *b);

/* What a device has passed on.  Each counter only grows. */
struct spoke_device_way {
    uint64_t messages; /* sent on */
    uint64_t bytes;    /* their bodies' */
    uint64_t dropped;  /* not sent on: their words are not those that the socket must have, or they
                          were on their way when the device stopped */
};
struct spoke_device_stats {
    struct spoke_device_way there; /* from `a` to `b`; all of it, if there is one socket */
    struct spoke_device_way back;  /* from `b` to `a` */
};

/* A snapshot.  Threads: as spoke_device_start(). */
SPOKE_API int spoke_device_get_stats(spoke_device *d, struct spoke_device_stats *out);

/* Stop: when this returns the sockets are the caller's again, still raw and connected, and the
 * handle is closed.  Never waits.  `last` (may be NULL) gets the final counters.  Threads: as
 * spoke_device_start(), callbacks included.  Errors: SPOKE_ECLOSED it has ended already. */
SPOKE_API int spoke_device_stop(spoke_device *d, struct spoke_device_stats *last);

#ifdef __cplusplus
}
#endif

#endif
