/* SPDX-License-Identifier: MIT */
/* What `spoke cat` tells about connections, and the descriptor that says that there is one. */
#ifndef TOOLS_SPOKE_WATCHER_H
#define TOOLS_SPOKE_WATCHER_H

#include <stdatomic.h>
#include <stdbool.h>

#include <spoke/spoke.h>

struct watcher {
    int attached_fd; /* an eventfd: written to when a peer was attached */
    int verbosity;
    bool impatient;                /* somebody at a terminal wants to know why nothing happens */
    atomic_uint_least64_t told[2]; /* a bit for each problem that was mentioned */
};

/* Prints the library's log too. */
void watcher_init(struct watcher *w, int attached_fd, int verbosity);
void watcher_fini(void);

/* What the socket has counted, without what is 0. */
void watcher_tell_counters(spoke_socket *s);

/* The socket's event callback; its context is the watcher, which must outlive the socket. */
spoke_event_f watcher_on_event;

#endif
