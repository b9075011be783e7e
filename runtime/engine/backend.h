/* SPDX-License-Identifier: MIT */
/* What an engine runs on.  Three of them: uring, poll, sim.  A handle is a descriptor, or a number
 * of the simulated world's.
 *
 * All calls come from the engine's thread (or under its lock), except poke().  Errors are SPOKE_E….
 * A backend completes operations with spk_op_complete() from turn() or cancel() only … and never
 * from submit(). */
#ifndef SPK_ENGINE_BACKEND_H
#define SPK_ENGINE_BACKEND_H

#include "runtime/engine/engine.h"

struct spk_credentials {
    int pid, uid, gid;
};

enum spk_socket_option {
    SPK_TCP_NODELAY,
    SPK_TCP_KEEPALIVE,
    SPK_TCP_KEEPALIVE_IDLE,     /* seconds until the first probe … */
    SPK_TCP_KEEPALIVE_INTERVAL, /* … and from one to the next */
    SPK_TCP_USER_TIMEOUT,       /* milliseconds */
    SPK_REUSEADDR,
    SPK_V6ONLY,
    SPK_RESET_ON_CLOSE /* what is on its way is lost, and the peer is told */
};

struct spk_backend {
    const char *name;
    bool is_virtual; /* addresses are not the system's: no files, no ports, no threads */

    int (*open)(struct spk_engine *e);   /* sets e->backend_state, e->info.features */
    void (*close)(struct spk_engine *e); /* nothing is in flight */

    /* Descriptors: non-blocking, closed on exec. */
    int (*socket)(struct spk_engine *e, int family, int *handle);
    int (*bind)(struct spk_engine *e, int handle, const struct sockaddr *address, socklen_t size);
    int (*listen)(struct spk_engine *e, int handle, int backlog);
    void (*close_handle)(struct spk_engine *e, int handle); /* no operation on it is busy */
    /* End one half, after what has been sent; the peer reads the end, or can write no more. */
    int (*shutdown)(struct spk_engine *e, int handle, bool reading);
    int (*set_option)(struct spk_engine *e, int handle, enum spk_socket_option option, int value);
    int (*local_address)(struct spk_engine *e, int handle, struct sockaddr_storage *address,
                         socklen_t *size);
    int (*peer_address)(struct spk_engine *e, int handle, struct sockaddr_storage *address,
                        socklen_t *size);
    int (*credentials)(struct spk_engine *e, int handle, struct spk_credentials *out);

    /* At once.  Bytes, 0 = end of stream, SPOKE_EAGAIN, … */
    int64_t (*recv_now)(struct spk_engine *e, int handle, void *buffer, size_t size);
    int64_t (*send_now)(struct spk_engine *e, int handle, const struct iovec *iov, int count);

    /* Later.  submit() takes any kind of operation; the memory it names stays valid until it
     * completes. */
    void (*submit)(struct spk_engine *e, struct spk_op *op);
    void (*cancel)(struct spk_engine *e, struct spk_op *op);

    /* Hand over what was submitted, wait until something completes, a poke comes or `timeout_ns`
     * passes (0: do not wait, SPOKE_FOREVER), complete. On a shared engine the lock is left while
     * the thread is in the kernel to wait: spk_engine_sleep_begin/end().  Returns the number of
     * completions. */
    int (*turn)(struct spk_engine *e, spoke_ns timeout_ns);

    void (*poke)(struct spk_engine *e); /* any thread: make a waiting turn() return */
    spoke_ns (*now)(struct spk_engine *e);
    int (*fd)(struct spk_engine *e);
};

extern const struct spk_backend spk_backend_uring, spk_backend_poll, spk_backend_sim;

/* Around the system call that waits. */
void spk_engine_sleep_begin(struct spk_engine *e);
void spk_engine_sleep_end(struct spk_engine *e);

/* Memory for a receive without a buffer, by plain call: room in e->scratch of at least 16 KiB, then
 * how much was used. NULL: no memory. */
uint8_t *spk_scratch_room(struct spk_engine *e, size_t *size);
/* So many bytes of the room are used: a reference to the chunk that they lie in. */
struct spk_chunk *spk_scratch_take(struct spk_engine *e, size_t size);
/* Complete such a receive: sets op->chunk and op->data, runs the callback, keeps the room if nobody
 * kept a slice. */
void spk_scratch_complete(struct spk_engine *e, struct spk_op *op, int64_t result);

/* Shared by uring and poll: calls on real descriptors.  backend_posix.c */
int spk_posix_socket(struct spk_engine *e, int family, int *handle);
int spk_posix_bind(struct spk_engine *e, int handle, const struct sockaddr *address,
                   socklen_t size);
int spk_posix_listen(struct spk_engine *e, int handle, int backlog);
void spk_posix_close_handle(struct spk_engine *e, int handle);
int spk_posix_shutdown(struct spk_engine *e, int handle, bool reading);
int spk_posix_set_option(struct spk_engine *e, int handle, enum spk_socket_option option,
                         int value);
int spk_posix_local_address(struct spk_engine *e, int handle, struct sockaddr_storage *address,
                            socklen_t *size);
int spk_posix_peer_address(struct spk_engine *e, int handle, struct sockaddr_storage *address,
                           socklen_t *size);
int spk_posix_credentials(struct spk_engine *e, int handle, struct spk_credentials *out);
int64_t spk_posix_recv_now(struct spk_engine *e, int handle, void *buffer, size_t size);
int64_t spk_posix_receive(const struct spk_op *op, void *buffer, size_t size);
int64_t spk_posix_send_now(struct spk_engine *e, int handle, const struct iovec *iov, int count);
spoke_ns spk_posix_now(struct spk_engine *e);

#endif
