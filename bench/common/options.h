/* SPDX-License-Identifier: MIT */
/* The command line that every benchmark program understands, whatever it measures. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum bench_role { BENCH_SERVER, BENCH_CLIENT, BENCH_BOTH };
enum bench_work {
    BENCH_LATENCY,
    BENCH_THROUGHPUT,
    BENCH_CONNECTIONS,
    BENCH_PIPES,
    BENCH_FANOUT,
    BENCH_PIPELINE,
    BENCH_SURVEY,
    BENCH_LOAN,
    BENCH_HANDSHAKES,
    BENCH_RESUMPTIONS,
    BENCH_MUX_CROWD,
    BENCH_MUX_OPEN,
    BENCH_MUX_OPENS,
    BENCH_MUX_IDLE
};
enum bench_transport {
    BENCH_INPROC,
    BENCH_IPC,
    BENCH_TCP,
    BENCH_SHM,
    BENCH_TLS,
    BENCH_WS,
    BENCH_WSS
};
enum bench_wait { BENCH_BLOCK, BENCH_POLL, BENCH_ADAPTIVE };
enum bench_mode { BENCH_OWNED, BENCH_SHARED };
enum bench_pattern {
    BENCH_PAIR,
    BENCH_REQ,
    BENCH_BUS,
    BENCH_STAR,
    BENCH_CHANNEL,
    BENCH_PORT,
    BENCH_CHANNEL_PAIR,
    BENCH_STREAM,
    BENCH_CHUNKS,
    BENCH_MUX,
    BENCH_MUX_CHUNKS
};

struct bench_options {
    enum bench_role role;
    enum bench_work work;
    enum bench_transport transport;
    enum bench_wait wait;
    enum bench_mode mode;
    enum bench_pattern pattern;
    const char *address;  /* ipc:///path, tcp://127.0.0.1:port (0 = any; so tls+tcp, ws and wss,
                             too),  shm:///path or inproc://name */
    const char *identity; /* tls+tcp and wss: a file with the server's key and certificate, which is
                             what its client trusts; of `bench-identity` */
    size_t size;          /* body of one message, at least 8 bytes: it carries its number */
    uint64_t count;       /* messages to measure; 0 = for `seconds` */
    double seconds;
    bool touches_all;  /* every byte of a body is written anew and read, not only some */
    unsigned depth;    /* BENCH_CHANNEL, …_PORT, …_CHANNEL_PAIR: messages under way */
    unsigned batch;    /* messages per call where the library has batch calls; 1 = one at a time */
    size_t chunk_size; /* bytes per system call of the raw stream programs */
    unsigned connections;   /* BENCH_CONNECTIONS: idle ones; BENCH_PIPES: busy ones;
                               BENCH_FANOUT, BENCH_SURVEY: receivers; BENCH_MUX_CROWD, BENCH_MUX_IDLE:
                               streams */
    unsigned subscriptions; /* BENCH_FANOUT: of each receiver; 0: to everything, and no topics */
    unsigned misses;        /* messages that nobody subscribed to, for each that somebody did */
    unsigned watchdog_s;    /* the program ends itself, with an error, after so many seconds */
};

/* Fill `o` from the command line.  Prints what is wrong, or the help, and exits the program in
 * either case. */
void bench_options_parse(struct bench_options *o, int argc, char **argv);

/* Whether messages go through channels, of a session, of ports or in the process. */
bool bench_is_channel(const struct bench_options *o);

/* Whether bytes are moved in place of messages. */
bool bench_is_stream(const struct bench_options *o);

/* Whether the address has a port, and whether TLS is spoken there. */
bool bench_has_port(const struct bench_options *o);
bool bench_has_tls(const struct bench_options *o);

/* The words the command line and the results use. */
const char *bench_work_name(enum bench_work work);
const char *bench_transport_name(enum bench_transport transport);
const char *bench_wait_name(enum bench_wait wait);
const char *bench_mode_name(enum bench_mode mode);
const char *bench_role_name(enum bench_role role);

#endif
