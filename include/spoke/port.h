/* SPDX-License-Identifier: MIT */
/* Ports: channels by name.  An exporter offers channels under names, importers that connect to it
 * bind theirs to them, and from then on both sides send and receive as on any channel (channel.h).
 *
 *     rc = spoke_exporter_export_sender(ex, "orders", &order_type, NULL, &tx);
 *     rc = spoke_exporter_listen(ex, "ipc:///run/shop", NULL);
 *     rc = spoke_sender_send_value(tx, &order, NULL, SPOKE_FOREVER);
 *
 *     rc = spoke_importer_dial(&im, "ipc:///run/shop", NULL, NULL, deadline);
 *     rc = spoke_importer_import_receiver(im, "orders", &order_type, NULL, &rx, deadline);
 *     rc = spoke_receiver_recv_value(rx, &order, &backing, SPOKE_FOREVER);
 *
 * Each name has one direction and one type; an import waits for the exporter's answer and fails
 * with what is wrong with it.  Each binding has a window of its own: `size` messages may be on
 * their way, so that one importer, or one name, that is slow holds up nobody else.
 *
 * What is exported to send goes to one importer of the name each, by turns among those that have
 * room.  A message that an importer has been sent and has not taken when its connection ends goes
 * to another one, in its place, marked (spoke_port_is_repeated()): it arrives at least once.  With
 * SPOKE_PORT_DROP it is counted and lost: at most once.  What is exported to receive takes what all
 * its importers send, each one's in order.
 *
 * Engines, threads, deadlines and the errors that every call may give are as in channel.h.
 * Semantics after Go's netchan; what differs is in docs/ports.md. */
#ifndef SPOKE_PORT_H
#define SPOKE_PORT_H

#include <spoke/session.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct spoke_exporter spoke_exporter;
typedef struct spoke_importer spoke_importer;

#define SPOKE_PORT_NAME_MAX 255 /* bytes of printable UTF-8, at least 1 */

enum spoke_direction { SPOKE_RECEIVE = 0, SPOKE_SEND = 1 };
/* "receive" or "send"; "?" for others. */
SPOKE_API const char *spoke_direction_name(enum spoke_direction direction);

enum {
    SPOKE_PORT_DROP =
        1, /* exported sender: what is not acknowledged when an importer goes is lost */
    SPOKE_PORT_END_WITH_FIRST = 2, /* exported receiver: ends when the first importer closes, … */
    SPOKE_PORT_END_WITH_LAST =
        4,                  /* … or when none is left; else with spoke_exporter_hangup() only */
    SPOKE_PORT_EVOLVING = 8 /* the sender's type need not be the receiver's, but readable as it */
};

typedef struct spoke_port_config {
    size_t size; /* messages of a binding that may be on their way to the receiver, and that it
                    has not taken; both ends have one, the smaller counts.  Default 64; 0 means 1 */
    size_t max_message; /* bytes.  Default SPOKE_CHANNEL_MESSAGE_MAX */
    int64_t count;      /* importer: so many messages, then both sides close.  -1: no limit */
    unsigned flags;     /* SPOKE_PORT_… */
} spoke_port_config;

/* The defaults, which a NULL config means. */
SPOKE_API void spoke_port_config_init(spoke_port_config *config);

/* Has an earlier importer perhaps taken this message already? */
SPOKE_API bool spoke_port_is_repeated(const spoke_msg *m);

/* ---- what happens ---- */

enum spoke_port_event_type {
    SPOKE_PORT_BOUND,
    SPOKE_PORT_UNBOUND,     /* `code`: why; 0: in order */
    SPOKE_PORT_REFUSED,     /* an import; exporter, without a name: a connection */
    SPOKE_PORT_CONNECTED,   /* a peer; importer: again */
    SPOKE_PORT_DISCONNECTED /* `code`: why */
};
struct spoke_port_event {
    enum spoke_port_event_type type;
    int code;                           /* SPOKE_E…, 0: in order */
    uint64_t wire_code;                 /* SPOKE_MUX_… that was said */
    uint64_t unacked;                   /* UNBOUND: messages that were sent and not acknowledged */
    spoke_pipe_id binding;              /* (UN)BOUND: as spoke_msg_pipe() of what it sends */
    char name[SPOKE_PORT_NAME_MAX + 1]; /* "": it concerns the connection */
    char text[256];                     /* one sentence */
    char peer[256];                     /* its address, as far as it has one */
};
/* On the engine's thread.  May make any call that does not wait, also close what it is about; once
 * a close has returned elsewhere it runs no more. */
typedef void spoke_port_event_f(void *ctx, const struct spoke_port_event *event);

/* ---- exporters ---- */

typedef struct spoke_exporter_config {
    spoke_session_config session; /* of its connections; `authenticate` too, and `stream`, of
                                     which strings are copied and TLS is kept */
    int connections;              /* at a time; more are closed, and SPOKE_PORT_REFUSED says so.
                                     Default 1024 */
    int imports_per_peer;         /* bindings of one connection.  Default 1024 */
    int failures_per_peer;        /* refused imports, then its connection ends.  Default 1024 */
    /* May this peer bind that name?  On the engine's thread, must not wait.  NULL: all may. */
    bool (*allow)(void *ctx, const char *name, enum spoke_direction direction,
                  const struct spoke_session_info *peer);
    spoke_port_event_f *on_event; /* may be NULL */
    void *ctx;                    /* of both */
} spoke_exporter_config;
SPOKE_API void spoke_exporter_config_init(spoke_exporter_config *config);

SPOKE_API int spoke_exporter_open(spoke_exporter **out, const spoke_exporter_config *config,
                                  spoke_engine *engine);

/* Offer a channel under a name.  The end is the caller's: to send to importers, or to receive from
 * them.  Closing it ends the export as spoke_exporter_hangup() does, but for a sender after what
 * was sent.  `type` may be NULL: bytes. Errors: SPOKE_EEXIST; SPOKE_ERANGE the name or the
 * configuration. */
SPOKE_API int spoke_exporter_export_sender(spoke_exporter *ex, const char *name,
                                           const spoke_value_type *type,
                                           const spoke_port_config *config, spoke_sender **tx);
SPOKE_API int spoke_exporter_export_receiver(spoke_exporter *ex, const char *name,
                                             const spoke_value_type *type,
                                             const spoke_port_config *config, spoke_receiver **rx);

/* Serve importers at an address, on what a listener accepts, or on a stream: in the background.
 * `address`, if not NULL, gets the URL with the port that the system chose (at least 256 bytes).
 * The listener, and the stream, are taken on success.  SPOKE_ELIMIT: there are as many connections
 * as may be. */
SPOKE_API int spoke_exporter_listen(spoke_exporter *ex, const char *url, char *address);
SPOKE_API int spoke_exporter_serve(spoke_exporter *ex, spoke_stream_listener *l);
SPOKE_API int spoke_exporter_serve_stream(spoke_exporter *ex, spoke_stream *s);

/* Wait until what has been given to importers, up to now, has been taken by them.  One that goes
 * meanwhile is not waited for. */
SPOKE_API int spoke_exporter_sync(spoke_exporter *ex, spoke_ns deadline);
/* Wait until all that was sent on exported senders has been taken, also what no importer has been
 * given yet and what is sent meanwhile. */
SPOKE_API int spoke_exporter_drain(spoke_exporter *ex, spoke_ns deadline);
/* Take the name back: its bindings end, receivers get SPOKE_EOF after what has arrived, and what
 * was not given to anybody is dropped; the exporter's own end gives SPOKE_EPEERCLOSED or SPOKE_EOF.
 * SPOKE_ENOENT. */
SPOKE_API int spoke_exporter_hangup(spoke_exporter *ex, const char *name);
/* Stop, and give the handle back: exported senders get up to `linger_ns` to be drained, then
 * everything ends.  SPOKE_ETIMEDOUT: that was not enough. */
SPOKE_API int spoke_exporter_close(spoke_exporter *ex, spoke_ns linger_ns);

/* ---- importers ---- */

typedef struct spoke_importer_config {
    spoke_session_config session;
    /* When the connection is lost, dial again after so long, doubled up to the second, and bind
     * again what was bound: ends stay as they are meanwhile.  0: ends give why it was lost.  Needs
     * spoke_importer_dial().  Default 0 */
    spoke_ns reconnect_ns, reconnect_max_ns;
    int errors; /* that wait for spoke_importer_next_error(); more are counted.  Default 10 */
    spoke_port_event_f *on_event;
    void *ctx;
} spoke_importer_config;
SPOKE_API void spoke_importer_config_init(spoke_importer_config *config);

SPOKE_API int spoke_importer_dial(spoke_importer **out, const char *url,
                                  const spoke_importer_config *config, spoke_engine *engine,
                                  spoke_ns deadline);
/* The same on a stream, which is taken on success. */
SPOKE_API int spoke_importer_open(spoke_importer **out, spoke_stream *s,
                                  const spoke_importer_config *config);

/* Bind a name, and wait for the answer.  Errors: SPOKE_ENOENT no such name; SPOKE_EDIR it has the
 * other direction; SPOKE_ETYPE; SPOKE_EPERM; SPOKE_ELIMIT; SPOKE_EEXIST it is imported here
 * already; SPOKE_ERANGE; SPOKE_ETIMEDOUT. */
SPOKE_API int spoke_importer_import_receiver(spoke_importer *im, const char *name,
                                             const spoke_value_type *type,
                                             const spoke_port_config *config, spoke_receiver **rx,
                                             spoke_ns deadline);
SPOKE_API int spoke_importer_import_sender(spoke_importer *im, const char *name,
                                           const spoke_value_type *type,
                                           const spoke_port_config *config, spoke_sender **tx,
                                           spoke_ns deadline);

/* What went wrong and was no call's answer: the oldest.  `lost`, if not NULL: how many did not find
 * room.  Errors: SPOKE_EAGAIN, SPOKE_ETIMEDOUT. */
SPOKE_API int spoke_importer_next_error(spoke_importer *im, struct spoke_port_event *out,
                                        uint64_t *lost, spoke_ns deadline);

/* As the exporter's, for imported senders. */
SPOKE_API int spoke_importer_sync(spoke_importer *im, spoke_ns deadline);
SPOKE_API int spoke_importer_drain(spoke_importer *im, spoke_ns deadline);
/* Unbind a name: the end here gives SPOKE_EOF after what has arrived, or SPOKE_EPEERCLOSED. */
SPOKE_API int spoke_importer_hangup(spoke_importer *im, const char *name);
SPOKE_API int spoke_importer_close(spoke_importer *im, spoke_ns linger_ns);

#ifdef __cplusplus
}
#endif

#endif
