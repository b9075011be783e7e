/* SPDX-License-Identifier: MIT */
/* Options: looked up by name, checked by type.
 *
 * A socket holds its own options and the defaults that its dialers and listeners start with; a
 * dialer or listener can differ.  What changes later holds for the dialers and listeners, the pipes
 * or the calls that come after it.
 *
 * Each mistake has its own error, and none of them changes anything: SPOKE_EOPTION no such option
 * here (of another pattern, transport or kind of handle), SPOKE_ETYPE another type, or its size is
 * not that of the type, SPOKE_ERANGE, SPOKE_EREADONLY, SPOKE_EWRITEONLY, SPOKE_ETOOLATE.  No call
 * waits; threads as everywhere (socket.h).
 *
 * The descriptors of a socket change when its engine runs.  On the shared engine that is always; on
 * an owned one while its thread is in a call, so a loop of the owner's polls spoke_engine_fd() too.
 */
#ifndef SPOKE_OPTION_H
#define SPOKE_OPTION_H

#include <string.h>

#include <spoke/error.h>

#ifdef __cplusplus
extern "C" {
#endif

enum spoke_type {
    SPOKE_BOOL = 1, /* bool */
    SPOKE_INT,      /* int */
    SPOKE_SIZE,     /* size_t */
    SPOKE_DURATION, /* spoke_ns */
    SPOKE_STRING,   /* const char *, ends with NUL; read into a buffer */
    SPOKE_BYTES,    /* any bytes with a length; a SPOKE_STRING may be given for them */
    SPOKE_POINTER   /* void * */
};

/* clang-format off */
/* name, type, default; where: S socket, C context (and S for its own), D dialer, L listener, P pipe (read-only; what is (ws) or (tls+tcp) also a stream's, spoke_stream_get()).  "*" = also as a default for the socket's dialers and
 * listeners.  After "=": the names that mangos and nanomsg have for it. */
#define SPOKE_OPT_RAW            "raw"            /* bool false, S, before the first dial or listen. = RAW, AF_SP_RAW */
#define SPOKE_OPT_RECV_TIMEOUT   "recv-timeout"   /* duration FOREVER, SC; 0: do not wait. = RECV-DEADLINE, NN_RCVTIMEO */
#define SPOKE_OPT_SEND_TIMEOUT   "send-timeout"   /* duration FOREVER, SC; 0: do not wait. = SEND-DEADLINE, NN_SNDTIMEO */
#define SPOKE_OPT_SEND_EXPIRY    "send-expiry"    /* duration 0 = never, S: a message not written by then is dropped; not REQ's */
#define SPOKE_OPT_BEST_EFFORT    "best-effort"    /* bool false, S: a send that would wait drops the message instead */
#define SPOKE_OPT_FAIL_NO_PEERS  "fail-no-peers"  /* bool false, S: without any peer a send, and a receive that would wait, give SPOKE_ENOPEER. = FAIL-NO-PEERS */
#define SPOKE_OPT_LINGER         "linger"         /* duration 1 s, S: how long close waits for what is queued. = LINGER */
#define SPOKE_OPT_SEND_QUEUE     "send-queue"     /* int messages 128, S, before dial/listen; 0: only what a pipe takes at once; on the shared engine as many again, 512 at most, may wait for its lock. = WRITEQ-LEN */
#define SPOKE_OPT_RECV_QUEUE     "recv-queue"     /* int messages 128, S, before dial/listen; on the shared engine a receive may take a quarter as many, 32 at most, out of it for the next ones. = READQ-LEN */
#define SPOKE_OPT_SEND_QUEUE_BYTES "send-queue-bytes" /* size 8 MiB, S: the same bound in bytes; one message always fits */
#define SPOKE_OPT_RECV_QUEUE_BYTES "recv-queue-bytes" /* size 8 MiB, S */
#define SPOKE_OPT_MAX_RECV_SIZE  "max-recv-size"  /* size 1 MiB, S*DL: larger messages close the pipe (not inproc); 0: no limit but SPOKE_MSG_MAX; counts header words. = MAX-RCV-SIZE */
#define SPOKE_OPT_RETRY_TIME     "retry-time"     /* duration 60 s, SC (REQ): resend after; 0: never. = RETRY-TIME, NN_REQ_RESEND_IVL */
#define SPOKE_OPT_SURVEY_TIME    "survey-time"    /* duration 1 s, SC (SURVEYOR): how long the next survey takes answers; 0: until another begins. = SURVEY-TIME, NN_SURVEYOR_DEADLINE */
#define SPOKE_OPT_SUBSCRIBE      "subscribe"      /* bytes or string, S (SUB), write-only: receive messages whose body starts so; "" all of them. Again: no effect. = SUBSCRIBE, NN_SUB_SUBSCRIBE */
#define SPOKE_OPT_UNSUBSCRIBE    "unsubscribe"    /* bytes or string, S (SUB), write-only: no longer, also what is queued; SPOKE_ENOENT: not subscribed. = UNSUBSCRIBE, NN_SUB_UNSUBSCRIBE */
#define SPOKE_OPT_LOSS           "loss"           /* int SPOKE_LOSS_NEWEST, S*DL (PUB, SUB): what becomes of a message that a queue has no room for */
#define SPOKE_OPT_TOPIC_SIZE     "topic-size"     /* size 0, S (PUB): so many bytes of a body, from its front, are its topic … */
#define SPOKE_OPT_TOPIC_END      "topic-end"      /* int -1 = none, 0–255, S (PUB): … but only those before the first such byte. For SPOKE_LOSS_CONFLATE */
#define SPOKE_OPT_LOSS_TOPIC     "loss-topic"     /* bytes or string of at most 255 bytes, "" = none, S (PUB), before the first dial or listen: tell subscribers with messages of this topic how many they missed */
#define SPOKE_OPT_SEND_PRIORITY  "send-priority"  /* int 8, 1–16, S*DL: where a message goes to one of many, to those of the lowest number that can take it. = NN_SNDPRIO */
#define SPOKE_OPT_RECV_PRIORITY  "recv-priority"  /* int 8, 1–16, S*DL: what came through those of the lowest number is received first. = NN_RCVPRIO */
#define SPOKE_OPT_TTL            "ttl"            /* int 8, 1–255, S (REP, RESPONDENT, STAR, PAIR1; SURVEYOR: no effect): hops accepted. = TTL, NN_MAXTTL */
#define SPOKE_OPT_RECONNECT      "reconnect-time" /* duration 100 ms, S*D: first wait before dialing again; at least 1 ms. = RECONNECT-TIME */
#define SPOKE_OPT_RECONNECT_MAX  "reconnect-time-max" /* duration 0 = no growth, S*D: longest wait; no growth either if not above the first. = MAX-RECONNECT-TIME */
#define SPOKE_OPT_DIAL_ASYNC     "dial-async"     /* bool true, S*D; false: dialing waits for the first attempt, as with SPOKE_WAIT_FIRST. = DIAL-ASYNCH */
#define SPOKE_OPT_HANDSHAKE_TIME "handshake-time" /* duration 10 s, S*DL: to connect, names included, and as long again for the peer's greeting; to look a listener's name up */
#define SPOKE_OPT_IDLE_TIMEOUT   "idle-timeout"   /* duration 0 = none, S*DL (not inproc): a peer that has begun a message and sends none of its bytes for so long is cut off: SPOKE_ETIMEDOUT, counted as stalled; not who is silent between messages */
#define SPOKE_OPT_CLOSE_PIPES    "close-pipes"    /* bool false, S*L: closing the listener closes the pipes that it accepted */
#define SPOKE_OPT_LAST_ERROR     "last-error"     /* int, D, read-only: what the last attempt came to, 0 or a SPOKE_E… */
#define SPOKE_OPT_LAST_REASON    "last-reason"    /* string, D L, read-only: that in words, with what else is known of it (which certificate, …); L: why it got no pipe last; "": nothing has failed */
#define SPOKE_OPT_MAX_PIPES      "max-pipes"      /* int 0 = no limit, S: further connections are accepted and closed */
#define SPOKE_OPT_INTERRUPTIBLE  "interruptible"  /* bool false, S: a send or receive that sleeps gives SPOKE_EINTR when a signal handler ran in its thread */
#define SPOKE_OPT_BUSY_POLL      "busy-poll"      /* duration: SPOKE_WAIT_…, S; the engine's */
#define SPOKE_OPT_NAME           "name"           /* string ≤ 63 bytes, S; default: the protocol and a number. = NN_SOCKET_NAME */
#define SPOKE_OPT_PROTOCOL       "protocol"       /* int, S, read-only: the number on the wire. = NN_PROTOCOL */
#define SPOKE_OPT_PEER           "peer"           /* int, S, read-only: the only number that we talk to */
#define SPOKE_OPT_PROTOCOL_NAME  "protocol-name"  /* string, S, read-only: "req" */
#define SPOKE_OPT_RECV_FD        "recv-fd"        /* int, S, read-only: readable while a receive would not wait. = NN_RCVFD */
#define SPOKE_OPT_SEND_FD        "send-fd"        /* int, S, read-only: readable while a send would not wait. = NN_SNDFD */
#define SPOKE_OPT_TCP_NODELAY    "tcp-nodelay"    /* bool true, S*DL (tcp). = NO-DELAY, NN_TCP_NODELAY */
#define SPOKE_OPT_TCP_KEEPALIVE  "tcp-keepalive"  /* bool true, S*DL (tcp). = KEEPALIVE */
#define SPOKE_OPT_TCP_KEEPALIVE_TIME "tcp-keepalive-time" /* duration 15 s, 0: the system's, up to 32 767 s, in whole seconds, rounded up, S*DL (tcp): silence before a probe, and between probes; after nine of them (the system's tcp_keepalive_probes) without an answer the pipe ends: SPOKE_ETIMEDOUT. Says nothing of a peer that owes an acknowledgement: the next one. = KEEPALIVETIME */
#define SPOKE_OPT_TCP_USER_TIMEOUT "tcp-user-timeout" /* duration 0 = the system's (tcp_retries2: some 15 min), up to 2^31-1 ms, in whole ms, rounded up, S*DL (tcp): how long what was sent may stay without an acknowledgement, or a probe without an answer, before the pipe ends: SPOKE_ETIMEDOUT. Ends also peers that live, but read nothing for so long while more waits for them than the kernels hold. = TCP_USER_TIMEOUT */
#define SPOKE_OPT_IPC_MODE       "ipc-mode"       /* int -1 = umask decides, 0–0777, S*L (ipc, shm), before the listener starts: the socket file's mode bits. = UNIX-IPC-CHMOD */
#define SPOKE_OPT_IPC_OWNER      "ipc-owner"      /* int -1 = as it is, S*L (ipc, shm), before the listener starts: the file's user, by number. = UNIX-IPC-OWNER */
#define SPOKE_OPT_IPC_GROUP      "ipc-group"      /* int -1 = as it is, S*L (ipc, shm), before the listener starts: the file's group, by number. = UNIX-IPC-GROUP */
#define SPOKE_OPT_UPGRADE        "upgrade"        /* bool true, S*DL (ipc): messages move into shared memory, if the peer is a process of the same user that wants it too, once there have been some; SPOKE_UPGRADE in the environment changes the default: "off", or "now": without waiting for messages */
#define SPOKE_OPT_SHM_RING       "shm-ring"       /* size 2 MiB, 16 KiB–16 MiB, a power of two or rounded up to one, S*DL (ipc, shm): of the ring that this end writes, for each connection; more than 128 KiB of it have memory only where much goes through */
#define SPOKE_OPT_SHM_SEGMENT    "shm-segment"    /* size 256 MiB, 4 KiB–64 GiB, as above, S, before the first dial, listen or loan: most that large messages of the socket take in shared memory; what finds no room there is copied through the ring; 0: no segment, all are */
#define SPOKE_OPT_SHM_HUGE_PAGES "shm-huge-pages" /* bool false, S, before the first dial, listen or loan: that memory is to be huge pages; where there are none to be had it is ordinary ones, which the log says and the counters shm_huge_bytes and shm_huge_failed show */
#define SPOKE_OPT_SHM_NUMA_NODE  "shm-numa-node"  /* int -1 = where the writer runs, S, before the first dial, listen or loan: that memory is to be of this NUMA node, while it has some left; SPOKE_ERANGE: no such node, or it has no memory, or not for this process; SPOKE_EPERM: the kernel may not be asked for it (a seccomp filter); SPOKE_ENOTSUP: it knows of no nodes */
#define SPOKE_OPT_LEND_LEAST     "lend-least"     /* size 4 KiB, S*DL (ipc, shm): bodies of so many bytes are lent to the receiver where they are, smaller ones copied through the ring */
#define SPOKE_OPT_WS_FRAME_SIZE  "ws-frame-size"  /* size 1 MiB, at least 8 KiB, S*DL (ws): longer messages leave in several frames of so many bytes */
#define SPOKE_OPT_WS_SEND_TEXT   "ws-send-text"   /* bool false, S*DL (ws): messages leave as text, which has to be UTF-8, or the peer closes. = NN_WS_MSG_TYPE, ws:send-text */
#define SPOKE_OPT_WS_RECV_TEXT   "ws-recv-text"   /* bool false, S*DL (ws): text is a message, too, if it is UTF-8; else the pipe is closed (1003). = ws:recv-text */
#define SPOKE_OPT_WS_CHECK_ORIGIN "ws-check-origin" /* bool true, S*L (ws): pages of other hosts than the listener's own are refused (403): a browser says in Origin whose page it shows; who says nothing is none. = WEBSOCKET-CHECKORIGIN */
#define SPOKE_OPT_WS_ORIGINS     "ws-origins"     /* string of at most 4096 bytes, "" = none, S*L (ws): … but for these, between spaces: "https://example.org http://localhost:8000"; "*": all */
#define SPOKE_OPT_WS_BELOW       "ws-below"       /* bool false, S*L (ws): also for paths below its own that no other listener there has or is closer above: at "/a" for "/a/b", at "/" for all; SPOKE_OPT_WS_TARGET tells which one it was. = in mangos a path that ends in "/" */
#define SPOKE_OPT_WS_DIRECTORY   "ws-directory"   /* string of at most 4095 bytes, "" = none, S*L (ws): GET and HEAD without an upgrade are answered with the files of this directory, each of at most 8 MiB; "/" is index.html */
#define SPOKE_OPT_URL            "url"            /* string, D L P, read-only: as given */
#define SPOKE_OPT_SCHEME         "scheme"         /* string, D L P, read-only: of its transport: "inproc", "ipc", "shm", "tcp", "tls+tcp", "ws", "wss" */
#define SPOKE_OPT_ADDRESS        "address"        /* string, L, read-only: as bound, port 0 resolved; can be dialed */
#define SPOKE_OPT_LOCAL_ADDRESS  "local-address"  /* string, P, read-only: this end as an URL. = LOCAL-ADDR */
#define SPOKE_OPT_REMOTE_ADDRESS "remote-address" /* string, P, read-only: the other end; an ipc dialer's own end has no name: "ipc://". = REMOTE-ADDR */
#define SPOKE_OPT_WS_TARGET      "ws-target"      /* string, P (ws), read-only: what was asked for: path and query as they came. = ws:request-uri */
#define SPOKE_OPT_WS_FIELDS      "ws-fields"      /* string, P (ws), read-only: the header fields that the peer sent, as lines "Name: value". = HTTP-REQUEST */
#define SPOKE_OPT_SHARED_MEMORY  "shared-memory"  /* int, P (ipc, shm), read-only: 0: what is sent goes through shared memory; SPOKE_EAGAIN: not decided yet; else why it does not: SPOKE_ENOTSUP the peer, or the system, cannot or will not; SPOKE_EACCES it is of another user; SPOKE_ECANCELED "upgrade" is off; or what failed */
#define SPOKE_OPT_PEER_PID       "peer-pid"       /* int, P (ipc, shm), read-only */
#define SPOKE_OPT_PEER_UID       "peer-uid"       /* int, P (ipc, shm), read-only */
#define SPOKE_OPT_PEER_GID       "peer-gid"       /* int, P (ipc, shm), read-only */
#define SPOKE_OPT_TLS_CONFIG     "tls-config"     /* pointer NULL = none, S*DL (tls+tcp): a spoke_tls_config (tls.h), of which one reference more is held; what is read is a reference of the caller's. For connections that are made from then on. = TLS-CONFIG */
#define SPOKE_OPT_TLS_VERSION    "tls-version"    /* string, P (tls+tcp), read-only: "TLSv1.3" or "TLSv1.2" */
#define SPOKE_OPT_TLS_CIPHER     "tls-cipher"     /* string, P (tls+tcp), read-only: "TLS_AES_256_GCM_SHA384", … */
#define SPOKE_OPT_TLS_ALPN       "tls-alpn"       /* string, P (tls+tcp), read-only: the protocol that was agreed on; "": none */
#define SPOKE_OPT_TLS_SERVER_NAME "tls-server-name" /* string, P (tls+tcp), read-only: whom the dialer asked for; "": nobody, as with an IP address */
#define SPOKE_OPT_TLS_PEER_SUBJECT "tls-peer-subject" /* string, P (tls+tcp), read-only: of the peer's certificate, "CN=name,O=…"; "": it has none */
#define SPOKE_OPT_TLS_PEER_FINGERPRINT "tls-peer-fingerprint" /* string, P (tls+tcp), read-only: SHA-256 of that certificate, 64 hexadecimal digits */
#define SPOKE_OPT_TLS_VERIFIED   "tls-verified"   /* bool, P (tls+tcp), read-only: the peer's certificate passes all checks, also where they are not asked for */
#define SPOKE_OPT_TLS_RESUMED    "tls-resumed"    /* bool, P (tls+tcp), read-only: the session of an earlier connection goes on */

/* clang-format on */

/* Values of SPOKE_OPT_LOSS.  For a PUB: whose connection takes no more and whose send queue is full
 * loses something, or everybody waits.  For a SUB (the first three): what to do when the receive
 * queue is full. */
enum spoke_loss {
    SPOKE_LOSS_NEWEST,    /* the message that is being sent, or has just arrived */
    SPOKE_LOSS_OLDEST,    /* the one that has waited longest */
    SPOKE_LOSS_BLOCK,     /* none: a send waits, a connection is read no further */
    SPOKE_LOSS_CONFLATE,  /* of those that wait, all but the latest of each topic */
    SPOKE_LOSS_DISCONNECT /* the connection: its peer may come back */
};

/* Set an option.  `value` points to a value of that type (SPOKE_STRING: to the characters,
 * SPOKE_BYTES: to the bytes) and `size` is its size in bytes; it is copied.  The typed calls below
 * are easier.  Errors: as above, and SPOKE_EINVAL for no name or no value. */
SPOKE_API int spoke_socket_set(spoke_socket *s, const char *name, enum spoke_type type,
                               const void *value, size_t size);
SPOKE_API int spoke_dialer_set(spoke_dialer *d, const char *name, enum spoke_type type,
                               const void *value, size_t size);
SPOKE_API int spoke_listener_set(spoke_listener *l, const char *name, enum spoke_type type,
                                 const void *value, size_t size);

/* Read an option into `value`, at most *size bytes; *size becomes the option's whole size (strings:
 * with NUL; cut ones still end with NUL).  Errors as above and SPOKE_EWRITEONLY. */
SPOKE_API int spoke_socket_get(spoke_socket *s, const char *name, enum spoke_type type, void *value,
                               size_t *size);
SPOKE_API int spoke_dialer_get(spoke_dialer *d, const char *name, enum spoke_type type, void *value,
                               size_t *size);
SPOKE_API int spoke_listener_get(spoke_listener *l, const char *name, enum spoke_type type,
                                 void *value, size_t *size);
/* A context has few options, those marked C.  A new one begins with the socket's. */
SPOKE_API int spoke_context_set(spoke_context *c, const char *name, enum spoke_type type,
                                const void *value, size_t size);
SPOKE_API int spoke_context_get(spoke_context *c, const char *name, enum spoke_type type,
                                void *value, size_t *size);
/* A pipe of `s` by number; SPOKE_ENOENT when it is gone, SPOKE_EOPTION for what its transport does
 * not know (shared-memory, peer-pid, peer-uid, peer-gid: ipc and shm alone do, and the last three
 * are those of the moment when the connection was made). */
SPOKE_API int spoke_pipe_get(spoke_socket *s, spoke_pipe_id pipe, const char *name,
                             enum spoke_type type, void *value, size_t *size);

#define SPOKE_TYPED_OPTION(owner, suffix, ctype, type)                                             \
    static inline int spoke_##owner##_set_##suffix(spoke_##owner *o, const char *name,             \
                                                   ctype value)                                    \
    {                                                                                              \
        return spoke_##owner##_set(o, name, type, &value, sizeof value);                           \
    }                                                                                              \
    static inline int spoke_##owner##_get_##suffix(spoke_##owner *o, const char *name,             \
                                                   ctype *value)                                   \
    {                                                                                              \
        size_t size = sizeof *value;                                                               \
        return spoke_##owner##_get(o, name, type, value, &size);                                   \
    }
#define SPOKE_TYPED_OPTIONS(owner)                                                                 \
    SPOKE_TYPED_OPTION(owner, bool, bool, SPOKE_BOOL)                                              \
    SPOKE_TYPED_OPTION(owner, int, int, SPOKE_INT)                                                 \
    SPOKE_TYPED_OPTION(owner, size, size_t, SPOKE_SIZE)                                            \
    SPOKE_TYPED_OPTION(owner, duration, spoke_ns, SPOKE_DURATION)                                  \
    static inline int spoke_##owner##_set_string(spoke_##owner *o, const char *name,               \
                                                 const char *value)                                \
    {                                                                                              \
        return spoke_##owner##_set(o, name, SPOKE_STRING, value, value ? strlen(value) : 0);       \
    }                                                                                              \
    static inline int spoke_##owner##_get_string(spoke_##owner *o, const char *name, char *value,  \
                                                 size_t size)                                      \
    {                                                                                              \
        return spoke_##owner##_get(o, name, SPOKE_STRING, value, &size);                           \
    }

/* spoke_socket_set_int(s, SPOKE_OPT_TTL, 4), spoke_listener_get_string(l, SPOKE_OPT_ADDRESS,
 * buffer, sizeof buffer), … */
SPOKE_TYPED_OPTIONS(socket)
SPOKE_TYPED_OPTIONS(context)
SPOKE_TYPED_OPTIONS(dialer)
SPOKE_TYPED_OPTIONS(listener)
#undef SPOKE_TYPED_OPTIONS
#undef SPOKE_TYPED_OPTION

#ifdef __cplusplus
}
#endif

#endif
