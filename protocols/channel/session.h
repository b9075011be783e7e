/* SPDX-License-Identifier: MIT */
/* Sessions from the inside.
 *
 *   session.c   life, memory, the end        roles.c   what the peer opens
 *   calls.c     the users' calls, and        listen.c  connections that become sessions
 *   open.c      those that open and accept
 *
 * Everything runs with the engine entered. */
#ifndef SPK_CHANNEL_SESSION_H
#define SPK_CHANNEL_SESSION_H

#include <spoke/session.h>

#include "protocols/channel/wire.h"
#include "runtime/engine/select.h"
#include "runtime/stream/mux/mux.h"

/* A stream that the peer has opened and nobody has taken yet. */
struct spk_arrival {
    struct spk_link link; /* in the session's `waiting` or `unclaimed`, or a wire's `claimed` */
    struct spk_conn *conn;
    uint64_t id;
    spoke_msg *text; /* what `meta` points into */
    struct spk_meta meta;
    spoke_ns until; /* unclaimed ones */
};

/* What is made of the peer's openings in a role: SPOKE_MUX_NONE, and the stream is the function's,
 * or why it is refused. */
typedef uint64_t spk_session_opened_f(struct spk_session *ss, struct spk_mux_stream *st,
                                      const struct spk_meta *meta, void *ctx);
struct spk_role_hook {
    spk_session_opened_f *fn;
    void *ctx;
};

struct spk_session_listener;

struct spk_session {
    void *handle; /* NULL: it has none yet, or any more */
    struct spk_engine *e;
    struct spk_layer layer;
    struct spk_mux *mux;
    struct spk_mux_user user;
    spoke_session_config config; /* without zeros */
    struct spk_link of_listener; /* while it begins, or waits to be accepted */
    struct spk_session_listener *listener;
    struct spk_timer timer;   /* of unclaimed ones */
    struct spk_task *watcher; /* of who has it instead of a user: told that it is heard, or ended */
    struct spk_task ready_task, end_task;
    uint32_t callers;
    bool closed; /* nobody has it */
    bool heard;  /* the peer speaks this */
    bool ended;

    struct spk_link wires, stalled;
    struct spk_link waiting[2]; /* by enum spk_channel_side: what this end would be */
    struct spk_link unclaimed;
    struct spk_link carried; /* streams that are attached, and what they are joined to */
    uint32_t waiting_count, unclaimed_count, wire_count, carried_count;
    struct spk_role_hook hooks[SPK_ROLES];
    size_t memory; /* bytes of messages that have come, or are coming, and have not been taken */

    struct spk_link accept_waiters, end_waiters;
    struct spk_link selects; /* of any of the accepts */
    spoke_session_ready_f *on_ready;
    void *on_ready_ctx;
    bool ready_awaited;
    int fd;
    bool fd_on;
    uint64_t refused, messages_in, messages_out, fds_in, fds_out;
    int pid, uid, gid; /* of the peer's process, or -1 */
};

/* ---- session.c ---- */
/* Of a stream that can be taken.  Without a handle. */
int spk_session_new(struct spk_session **out, struct spk_conn *carrier,
                    const spoke_session_config *config);
int spk_session_read_config(spoke_session_config *out, const spoke_session_config *config);
int spk_session_enter(const void *handle, struct spk_session **ss);
void spk_session_leave(struct spk_session *ss); /* and the engine */
void spk_session_free_if_done(struct spk_session *ss);
/* Its user has it no more: of the handle only … */
void spk_session_free_handle(struct spk_session *ss);
/* … and of all of it, at once. */
void spk_session_let_go(struct spk_session *ss);
/* Something waits to be accepted, or it has ended. */
void spk_session_tell(struct spk_session *ss);
/* What the end of a stream means, for a channel on it. */
int spk_session_reason(const struct spk_session *ss, int reason);
/* Room for a message: false, it has to wait. */
bool spk_session_reserve(struct spk_session *ss, struct spk_wire *w, size_t size);
void spk_session_give_back(struct spk_session *ss, size_t size);
/* Wait for something on `list`: 0, look again. */
int spk_session_wait_on(struct spk_session *ss, struct spk_link *list, spoke_ns deadline);
/* What ends channels that would be opened now; 0: nothing. */
int spk_session_check(const struct spk_session *ss);

/* ---- calls.c ---- */
void spk_session_info(const struct spk_session *ss, struct spoke_session_info *out);

/* ---- roles.c ---- */
uint64_t spk_session_opened(struct spk_mux_user *u, struct spk_mux_stream *st);
/* Ports and gateways: who is asked in a role.  NULL: nobody any more. */
void spk_session_on_role(struct spk_session *ss, enum spk_role role, spk_session_opened_f *fn,
                         void *ctx);
/* Accept the stream. */
int spk_arrival_new(struct spk_arrival **out, struct spk_session *ss, struct spk_mux_stream *st,
                    const struct spk_meta *meta);
/* Of all of them: without its conn if that was taken (NULL), which is reset else. */
void spk_arrival_free(struct spk_arrival *a, uint64_t code);
/* Say why it is not wanted, in the words of channels.  Takes it. */
void spk_arrival_refuse(struct spk_session *ss, struct spk_arrival *a, uint64_t code,
                        const char *text);
/* That with this number that waits to be named on this channel. */
struct spk_arrival *spk_session_claim(struct spk_session *ss, uint64_t id, uint64_t parent);
/* The channel has ended. */
void spk_session_drop_unclaimed(struct spk_session *ss, uint64_t parent);
void spk_session_drop_waiting(struct spk_session *ss, uint64_t code);
bool spk_session_has_waiting(const struct spk_session *ss, enum spk_channel_side side);
/* The channel that has waited longest, NULL: none does. */
struct spk_arrival *spk_session_next_waiting(struct spk_session *ss, enum spk_channel_side side);
struct spk_mux_stream *spk_session_next_stream(const struct spk_session *ss);
void spk_session_on_time(struct spk_timer *timer);

/* ---- listen.c ---- */
/* The peer has introduced itself, or it has ended before. */
void spk_listener_heard(struct spk_session *ss);

/* ---- carry.c ---- */
void spk_carry_end(struct spk_session *ss);

#endif
