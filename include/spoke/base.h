/* SPDX-License-Identifier: MIT */
/* What every other header needs: the export mark, the handles, time.  Nothing here does anything.
 */
#ifndef SPOKE_BASE_H
#define SPOKE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPOKE_VERSION_MAJOR 0
#define SPOKE_VERSION_MINOR 1
#define SPOKE_VERSION_PATCH 0
#define SPOKE_VERSION       "0.1.0"

#if defined(__GNUC__)
#define SPOKE_API __attribute__((visibility("default")))
#else
#define SPOKE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Handles.  All of them are opaque and checked on every call: a handle that was closed, also twice,
 * also by another thread, gives SPOKE_ECLOSED, never undefined behaviour. */
typedef struct spoke_engine spoke_engine;     /* a ring and the one thread that owns it: engine.h */
typedef struct spoke_socket spoke_socket;     /* what speaks a protocol: socket.h */
typedef struct spoke_dialer spoke_dialer;     /* reaches out to one address, again and again */
typedef struct spoke_listener spoke_listener; /* accepts on one address */
typedef struct spoke_context
    spoke_context; /* one of several conversations of a socket: context.h */

typedef struct spoke_stream spoke_stream; /* a connection that carries bytes: stream.h */
typedef struct spoke_stream_listener spoke_stream_listener; /* accepts streams on one address */
typedef struct spoke_mux spoke_mux;                         /* many streams over one: mux.h */

typedef struct spoke_sender spoke_sender; /* the two ends of a channel: channel.h */
typedef struct spoke_receiver spoke_receiver;
typedef struct spoke_session spoke_session; /* channels over a connection: session.h */
typedef struct spoke_session_listener spoke_session_listener;

/* A message is memory, not a handle: whoever owns it frees it exactly once.  message.h */
typedef struct spoke_msg spoke_msg;

/* One connection to one peer, by number: 31 bits, never 0, unique among the live ones of the
 * process. A number of a pipe that is gone gives SPOKE_ENOENT. */
typedef uint32_t spoke_pipe_id;

/* Durations are nanoseconds.  Where a duration limits a wait, SPOKE_FOREVER means no limit. */
typedef int64_t spoke_ns;
#define SPOKE_FOREVER INT64_MAX
#define SPOKE_US      ((spoke_ns)1000)
#define SPOKE_MS      ((spoke_ns)1000000)
#define SPOKE_SECOND  ((spoke_ns)1000000000)

/* The version of the library that runs, as text: "0.1.0".  Any thread, never fails. */
SPOKE_API const char *spoke_version(void);

#ifdef __cplusplus
}
#endif

#endif
