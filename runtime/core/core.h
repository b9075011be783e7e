/* SPDX-License-Identifier: MIT */
/* The core's nouns: here the socket; pipe, endpoint and stream are in transport.h, what protocols
 * see in <spoke/protocol.h>.
 *
 * Everything here lives on one engine and is touched with that engine entered only.  Calls down
 * (send, dial, close) submit or queue and return; what comes back up starts in the loop or in a
 * task.  Nothing is freed while an operation of its own is outstanding. */
#ifndef SPK_CORE_CORE_H
#define SPK_CORE_CORE_H

#include <spoke/protocol.h>
#include <spoke/socket.h>
#include <spoke/stats.h>

#include "runtime/core/transport.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/handle.h"
#include "runtime/engine/log.h"
#include "runtime/engine/select.h"
#include "runtime/memory/idmap.h"
#include "runtime/memory/message.h"
#include "runtime/memory/pool.h"
#include "runtime/memory/queue.h"
#include "runtime/memory/shared.h"

/* ---- sockets ---- */

#define SPK_PRIORITIES       16 /* 1 is the best; index = priority - 1 */
#define SPK_PRIORITY_DEFAULT 8

/* OPEN ─▶ LINGERING (no new work; what is queued goes out) ─▶ CLOSING (endpoints and pipes end) ─▶
 * freed */
enum spk_socket_state { SPK_SOCKET_OPEN, SPK_SOCKET_LINGERING, SPK_SOCKET_CLOSING };

/* One conversation of a socket, and those who receive in it. */
struct spk_context {
    struct spk_link link; /* in socket->contexts; the socket's own is in no list */
    spoke_context *handle;
    struct spk_socket *socket;
    void *state; /* the protocol's */
    bool closed;
    uint32_t callers; /* as the socket's: the last one frees a closed context */
    struct spk_link recv_waiters;
    struct spk_link selects; /* who selects on it; on the socket, in its own */
    uint64_t recv_epoch; /* + 1 at each spk_context_fail_recv(): who began to wait before returns
                            recv_error */
    int recv_error;
    spoke_ns recv_timeout_ns, send_timeout_ns;
};

struct spk_socket {
    struct spk_link link; /* in engine->sockets */
    spoke_socket *handle;
    struct spk_engine *e;
    const struct spoke_protocol *protocol;
    void *state;
    enum spk_socket_state state_now;
    bool started;     /* it has dialed or listened */
    uint32_t callers; /* inside a call that waits: the last one frees a closing socket */
    struct spk_link endpoints, pipes;
    struct spk_link ready[SPK_PRIORITIES]; /* pipes that can send, by priority … */
    unsigned ready_priorities;             /* … and a bit for each list that is not empty */
    struct spk_link stalled;               /* pipes that are held back, best priority first */
    struct spk_idmap by_id;
    uint32_t pipe_count; /* not yet freed */
    struct spk_queue recv_queue;
    bool ranked;         /* some pipe has had another receive priority than the default */
    uint32_t full_pipes; /* attached, and cannot take a message */
    uint32_t low;        /* so many in it, or fewer, and the stalled pipes go on */
    uint32_t
        unlooked; /* messages sent while no pipe could take any, since the last look for room */
    bool look;    /* a pipe has given all that was read of it, and more may be there */
    unsigned
        awaited; /* so many further reads of its pipes may be left to callers, who wait for them */
    struct spk_front *front;  /* NULL: the engine is owned */
    struct spk_shm_home *shm; /* NULL: no connection has been in shared memory */
    struct spk_link send_waiters;
    struct spk_context own;   /* what the socket's own calls are about */
    struct spk_link contexts; /* further ones */
    struct spoke_stats stats;

    /* options */
    bool raw, best_effort, fail_no_peers, interruptible;
    spoke_ns send_expiry_ns, linger_ns, busy_poll_ns;
    int send_queue, recv_queue_most, max_pipes;
    size_t send_queue_bytes, recv_queue_bytes, shm_segment;
    struct spk_segment_wish shm_wish;
    char name[64];
    struct spk_endpoint_options defaults;

    /* callbacks */
    spoke_message_f *on_message;
    void *on_message_ctx;
    spoke_writable_f *on_writable;
    void *on_writable_ctx;
    spoke_event_f *on_event;
    void *on_event_ctx;
    spoke_undelivered_f *on_undelivered;
    void *on_undelivered_ctx;
    spoke_msg *returned, **returned_end; /* for that, oldest first */
    uint32_t returned_count;
    struct spk_device_end *device; /* NULL: in none */
    bool writable_wanted;          /* a send gave SPOKE_EAGAIN since the last on_writable */
    struct spk_task message_task, writable_task, event_task, undelivered_task, free_task;
    struct spk_link events;

    /* closing */
    bool ended; /* the protocol is closed */
    struct spk_timer linger_timer;
    struct spoke_close_report report;
    int close_result;
    struct spk_close_wait *close_wait; /* who waits for the end of the close */

    int recv_fd, send_fd; /* eventfds, -1: nobody asked */
    bool recv_fd_on, send_fd_on;
};

/* ---- socket.c ---- */
int spk_socket_new(struct spk_socket **out, const struct spoke_protocol *protocol,
                   struct spk_engine *e);
void spk_socket_check_ready(
    struct spk_socket *s); /* callbacks and descriptors follow what the protocol can do now */
int spk_socket_recv_some(struct spk_context *c, spoke_msg **messages,
                         int count);        /* without waiting:
                                 how many, or why none */
bool spk_socket_look(struct spk_socket *s); /* nobody waits any more: leave nothing to callers */
void spk_socket_advance_close(struct spk_socket *s);
void spk_socket_refill(struct spk_socket *s);
void spk_socket_start_close(struct spk_socket *s);
void spk_socket_lost(struct spk_socket *s,
                     struct spk_pipe *p); /* while it lingers: what `p` still has will not arrive */

int spk_socket_try_send(struct spk_socket *s, spoke_msg *m); /* as the user's, without waiting */

/* spoke_send() and spoke_recv() in one of the socket's conversations, with the engine entered. */
int spk_socket_send(struct spk_context *c, spoke_msg *m, int flags);
int spk_socket_recv(struct spk_context *c, spoke_msg **m, int flags);

/* As many of the first as a send without waiting takes, 0: none now.  What fails is lost. */
int spk_socket_send_some(struct spk_socket *s, spoke_msg **messages, int count, uint64_t *bytes);

/* ---- front.c ---- */
int spk_front_open(struct spk_socket *s);
void spk_front_close(struct spk_front *f); /* frees what is in it */
/* Any thread, without the engine.  True: done. */
bool spk_front_recv(spoke_socket *handle, spoke_msg **m);
bool spk_front_send(spoke_socket *handle, spoke_msg *m);
/* With the engine. */
void spk_front_shut_inbox(struct spk_front *f); /* what it has is still to be taken */
void spk_front_fill(struct spk_front *f);       /* if that pays, and nobody else waits */
uint32_t spk_front_take(struct spk_front *f, spoke_msg **messages, uint32_t most);
bool spk_front_has_message(const struct spk_front *f); /* f may be NULL, here and below: no */
void spk_front_correct(struct spk_front *f, struct spoke_stats *stats); /* by what is in it */
void spk_front_filter(struct spk_front *f, bool (*keep)(void *ctx, const spoke_msg *m), void *ctx);
void spk_front_open_outbox(struct spk_front *f); /* if it may be open */
void spk_front_shut_outbox(struct spk_front *f);
bool spk_front_empty_outbox(struct spk_front *f); /* false: it is stuck, nothing may overtake it */
bool spk_front_lets_pass(struct spk_front *f);    /* that first, if there is anything in it */
bool spk_front_is_stuck(const struct spk_front *f);
void spk_front_try_again(struct spk_front *f); /* soon, if it is stuck */
uint64_t spk_front_pending(struct spk_front *f, uint64_t *bytes);

/* ---- device.c ---- */
void spk_device_look(struct spk_device_end *end); /* its socket can do something */
void spk_device_end(struct spk_device_end *end);  /* its socket closes */

/* ---- context.c ---- */
int spk_context_init(struct spk_context *c, struct spk_socket *s);
void spk_context_fini(struct spk_context *c); /* ends the conversation, whoever still waits in it */
/* SPK_READABLE, SPK_WRITABLE: whether protocol->context_recv() and context_send(), or on a raw
 * socket recv() and send(), would not give SPOKE_EAGAIN. */
unsigned spk_context_ready(struct spk_context *c);
/* Where a receive in `c` waits: beside those of all contexts, if any of them can have the message.
 */
struct spk_link *spk_context_recv_waiters(struct spk_context *c);
void spk_context_wake_all(struct spk_socket *s); /* all receives in all contexts try again */
/* The user's calls about bytes; the handle is a socket's or a context's. */
int spk_send_bytes(void *handle, enum spk_handle_kind kind, const void *data, size_t size,
                   int flags);
int spk_recv_bytes(void *handle, enum spk_handle_kind kind, void *buffer, size_t *size, int flags);

/* ---- event.c ---- */
void spk_event(struct spk_socket *s, enum spoke_event_type type, int reason, struct spk_pipe *p,
               struct spk_endpoint *endpoint);
/* So much has come back, and on_undelivered has not had it yet, that nobody may send. */
bool spk_returned_full(const struct spk_socket *s);
void spk_events_init(struct spk_socket *s);
void spk_events_fini(struct spk_socket *s);

/* ---- pipe.c ---- */
void spk_pipe_attach(struct spk_pipe *p, int verdict); /* what the user said */
/* As many as there are without waiting, except those of spk_socket_take(). */
int spk_socket_take_many(struct spk_socket *s, spoke_msg **messages, int count);

/* ---- framing.c ---- */
/* Make a pipe of a stream, which is taken: handshake, then frames. */
int spk_framing_start(struct spk_endpoint *endpoint, struct spk_stream *st);

/* ---- parting.c ---- */
void spk_partings_close(struct spk_engine *e); /* now, whatever has been written */

/* ---- endpoint.c ---- */
void spk_endpoint_pipe_gone(struct spk_endpoint *ep, int reason, bool was_attached);
void spk_endpoint_close(struct spk_endpoint *ep);
int spk_endpoint_new(struct spk_endpoint **out, struct spk_socket *s, const char *url,
                     bool is_dialer);
int spk_dialer_start(struct spk_endpoint *d);
int spk_listener_start(struct spk_endpoint *l);
void spk_listener_started(struct spk_endpoint *l); /* it listens, however that came about */
int spk_listen_patiently(struct spk_engine *e,
                         struct spk_endpoint *l); /* … and wait for a name, or for who is leaving */

/* ---- registry.c ---- */
const struct spoke_protocol *spk_find_protocol(int number);
/* Whose addresses have this prefix, and what follows it. */
const struct spoke_transport *spk_find_transport(const char *prefix,
                                                 const struct spk_url_form **form);

/* ---- option.c ---- */
void spk_endpoint_options_init(struct spk_endpoint_options *o);
/* With references of their own. */
void spk_endpoint_options_copy(struct spk_endpoint_options *to,
                               const struct spk_endpoint_options *from);
void spk_endpoint_options_fini(struct spk_endpoint_options *o);
/* As spoke_dialer_set() and spoke_listener_set(), with the engine entered. */
int spk_endpoint_set(struct spk_endpoint *ep, const char *name, enum spoke_type type,
                     const void *value, size_t size);
bool spk_tls_is_config(const struct spoke_tls_config *config);

#endif
