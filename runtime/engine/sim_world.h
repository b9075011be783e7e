/* SPDX-License-Identifier: MIT */
/* The inside of a simulated world (<spoke/sim.h>): its events, its network, its machines.  Three
 * files: sim_world.c (time, chance, scheduling, the public calls), sim_network.c (handles,
 * addresses, connections), backend_sim.c (operations).
 *
 * One thread runs a world.  Nothing in it looks at a clock, an address in memory or another source
 * of chance than `random`, so that the seed decides everything.  The world stands for the kernel:
 * its own memory comes from the C library, past the injected faults. */
#ifndef SPK_ENGINE_SIM_WORLD_H
#define SPK_ENGINE_SIM_WORLD_H

#include <spoke/sim.h>

#include "runtime/engine/backend.h"

/* Something that will happen at a time.  Embedded in its owner. */
struct sim_event {
    spoke_ns when;
    uint64_t order; /* among equals, drawn by chance */
    uint32_t index; /* in the heap; SIM_NOT_SET */
    bool parked;    /* it was due, and the network between the two machines is cut */
    void (*fire)(struct sim_event *event);
};
#define SIM_NOT_SET UINT32_MAX

/* A machine, or process, with its one engine.  Lives as long as the world. */
struct sim_node {
    struct spk_link link; /* in the world's nodes, in order of opening */
    struct spoke_sim *world;
    struct spk_engine *engine; /* NULL: closed */
    uint32_t number;           /* from 1 */
    bool killed;
    bool held;          /* the completion queue overflowed: nothing is delivered until `release` */
    bool spared;        /* … and what comes next is delivered */
    bool spared_socket; /* the last socket() failed by chance, the next one will not */
    bool nested;        /* runs inside somebody else's turn */
    int turning;        /* calls of its turn() on the stack */
    atomic_bool poked;  /* from any thread */
    struct spk_link waiting; /* operations in flight, by sim_op.link: their time has not come, */
    struct spk_link ready;   /* … or it has */
    struct spk_link strays; /* by spk_op.link: on no (open) handle; their result is in backend[1] */
    struct sim_event release;
};

/* Bytes on their way, or arrived and unread. */
struct sim_segment {
    struct sim_segment *next;
    uint64_t number; /* of all segments ever sent */
    spoke_ns when;   /* of arrival */
    size_t size, read;
    uint8_t bytes[];
};

enum sim_end { SIM_OPEN, SIM_EOF, SIM_RESET };

/* One direction of a connection; belongs to the end that reads. */
struct sim_flow {
    struct sim_segment *moving, **moving_tail;
    struct sim_segment *arrived, **arrived_tail;
    size_t held;      /* bytes in both lists: what the sender's buffer counts */
    size_t readable;  /* bytes in `arrived` */
    spoke_ns last;    /* when the latest segment arrives: the next one does not overtake it */
    enum sim_end end; /* what comes after the last segment … */
    spoke_ns end_when;
    enum sim_end ended; /* … and what has come */
    struct sim_event arrival;
};

/* An operation in flight on a handle, one of each kind. */
struct sim_op {
    struct spk_link link; /* in the node's lists */
    struct sim_handle *h;
    struct spk_op *op; /* NULL: none */
    bool ready, decided;
    int result; /* once it is decided */
};

/* NEW ─ listen ─▶ LISTENING;  NEW ─ connect ─▶ CONNECTING ─▶ CONNECTED;  accept gives CONNECTED;
 * any ─ reset, kill ─▶ DEAD */
enum sim_state { SIM_NEW, SIM_LISTENING, SIM_CONNECTING, SIM_CONNECTED, SIM_DEAD };

struct sim_handle {
    struct spk_link link; /* in the world's handles, in order of creation */
    int number;           /* 0: nobody has accepted it yet */
    enum sim_state state;
    struct sim_node *node;
    int family;
    bool bound, v6only, resets, deaf;
    bool spared[4]; /* by kind of operation: the last one failed by chance, the next one will not */
    struct sockaddr_storage local, remote;
    socklen_t local_size, remote_size;
    struct sim_op ops[4]; /* by kind */

    /* A listener. */
    int backlog, backlog_used;
    struct spk_link accepted; /* handles, by `queue` */
    struct spk_link knocking; /* handles that connect and find the backlog full, by `queue` */

    /* A connection. */
    struct spk_link queue;
    struct sim_node *remote_node;
    struct sim_handle *peer;  /* NULL: not yet, or closed */
    struct sim_event connect; /* the dialer's knock arrives, or the answer */
    int answer;               /* to the connect: 0 or SPOKE_E…; valid once it has `answered` */
    bool answered;
    struct sim_event sent; /* the news of a send's completion */
    struct sim_flow in;
};

struct spoke_sim {
    uint64_t magic;
    pthread_t owner;
    spoke_sim_config config;
    spoke_ns now;
    uint64_t random, memory_random, digest;
    bool quiet;   /* no allocation fails just now */
    int stepping; /* calls on the stack that let the world go on */

    struct spk_link nodes;
    uint32_t node_count;

    struct spk_link handles;
    struct sim_handle **numbered; /* sorted by number */
    size_t numbered_count, numbered_room;
    int next_number;
    uint16_t next_port;

    struct sim_event **heap;
    uint32_t heap_count, heap_room, events_wanted;

    struct sim_cut *cuts;

    struct spoke_sim_report report;
    uint64_t segments_sent, latest_arrived; /* the highest number of a segment that has arrived */
    uint64_t misuses; /* calls on handles that are closed or not what the call wants */
};

/* ---- sim_world.c ---- */

/* A number by chance, less than `bound` (> 0). */
uint64_t spk_sim_below(struct spoke_sim *w, uint64_t bound);
bool spk_sim_chance(struct spoke_sim *w, uint32_t per_1000);
spoke_ns spk_sim_latency(struct spoke_sim *w);

/* Something has happened: into the digest. */
enum sim_what {
    SIM_DID_TURN = 1,
    SIM_DID_TIME,
    SIM_DID_SOCKET,
    SIM_DID_CLOSE,
    SIM_DID_LISTEN,
    SIM_DID_KNOCK,
    SIM_DID_ANSWER,
    SIM_DID_WRITE,
    SIM_DID_ARRIVE,
    SIM_DID_END,
    SIM_DID_READ,
    SIM_DID_RESET,
    SIM_DID_COMPLETE,
    SIM_DID_OVERFLOW,
    SIM_DID_KILL,
    SIM_DID_CUT
};
void spk_sim_note(struct spoke_sim *w, enum sim_what what, int64_t who, int64_t how_much);

/* Room for `count` (negative: fewer) more events: after it, setting them cannot fail.  False: no
 * memory. */
bool spk_sim_reserve_events(struct spoke_sim *w, int count);
void spk_sim_event_set(struct spoke_sim *w, struct sim_event *event, spoke_ns when);
void spk_sim_event_clear(struct spoke_sim *w, struct sim_event *event);
bool spk_sim_is_cut(const struct spoke_sim *w, const struct sim_node *a, const struct sim_node *b);

/* Nothing is cut any more between this machine and others. */
void spk_sim_mend_all(struct sim_node *node);

/* Let one thing happen, not after `limit`. */
enum sim_step { SIM_HAPPENED, SIM_RAN_OTHER, SIM_LIMIT, SIM_NOTHING };
enum sim_step spk_sim_step(struct spoke_sim *w, spoke_ns limit);

/* ---- sim_network.c ---- */

struct sim_handle *spk_sim_handle(struct spoke_sim *w, int number); /* NULL: none of that number */
int spk_sim_socket(struct sim_node *node, int family, struct sim_handle **out);
int spk_sim_bind(struct sim_handle *h, const struct sockaddr *address, socklen_t size);
int spk_sim_listen(struct sim_handle *h, int backlog);
void spk_sim_close_handle(struct sim_handle *h);
int spk_sim_shutdown(struct sim_handle *h, bool reading);
/* Start to connect; the operation is woken when there is an answer. */
void spk_sim_connect(struct sim_handle *h, const struct sockaddr *address, socklen_t size);
/* At once: a number or bytes, or SPOKE_EAGAIN and the other errors. */
int spk_sim_accept(struct sim_handle *h);
int64_t spk_sim_read(struct sim_handle *h, void *buffer, size_t size);
int64_t spk_sim_write(struct sim_handle *h, const struct iovec *iov, size_t count);
/* Would an operation of this kind complete now? */
bool spk_sim_can(const struct sim_handle *h, enum spk_op_kind kind);
void spk_sim_die(struct sim_handle *h);   /* its process is gone */
void spk_sim_unpark(struct spoke_sim *w); /* a network was mended */

/* ---- backend_sim.c ---- */

/* What operation `kind` of `h` waited for may have come. */
void spk_sim_wake(struct sim_handle *h, enum spk_op_kind kind);
/* All operations of the node end with SPOKE_ECONNRESET. */
void spk_sim_abort_ops(struct sim_node *node);

#endif
