/* SPDX-License-Identifier: MIT */
/* A small program for the simulated world, on bare operations: clients on one machine send bytes to
 * a server on another, which echoes them; every client checks that it gets back what it sent, in
 * order.  Who loses its connection dials again and starts from the beginning.  Main thread of a
 * test. */
#ifndef TESTS_SIM_ECHO_H
#define TESTS_SIM_ECHO_H

#include <netinet/in.h>

#include <spoke/sim.h>

#include "runtime/engine/backend.h"

#define ECHO_CLIENTS 8
#define ECHO_CONNS   4096

struct echo;

/* One end of a connection. */
struct echo_conn {
    struct echo *echo;
    struct spk_engine *e;
    bool is_client, closing, connected;
    int index;  /* of the client */
    int handle; /* -1: none */
    struct spk_op connect, recv, send;
    struct iovec iov;
    struct msghdr msg;
    uint8_t in[512], out[512];
    size_t out_size;         /* server: bytes to echo */
    uint32_t sent, received; /* client: bytes so far */
};

struct echo {
    spoke_sim *w;
    spoke_engine *client_engine, *server_engine;
    struct spk_engine *client, *server;
    uint32_t bytes; /* that each client sends */
    int clients, done;
    struct sockaddr_in address; /* of the server */
    int listener;
    struct spk_op accept;
    bool stopping;
    struct echo_conn *conns[ECHO_CONNS]; /* all ever made */
    int conn_count;
    /* what happened */
    int connects, refused, resets, no_buffers, no_memory, accepts_ended, no_descriptors,
        wrong_bytes;
    uint32_t least_recv,
        least_send; /* fewest bytes that a receive or send moved where more could have */
};

/* Open a world with two machines and start `clients` clients.  Fails the test if that fails. */
void echo_open(struct echo *x, const spoke_sim_config *config, int clients, uint32_t bytes);

/* Run until every client has all its bytes back.  False: not within `limit_ns` of virtual time. */
bool echo_run(struct echo *x, spoke_ns limit_ns);

/* Cancel and close everything as a good program does, then the world.  Gives the world's result and
 * digest. */
int echo_close(struct echo *x, struct spoke_sim_report *report, uint64_t *digest);

/* All of it: gives the digest.  Fails the test unless all bytes came back and nothing was left. */
uint64_t echo_whole_run(const spoke_sim_config *config, int clients, uint32_t bytes);

/* The inside of an engine. */
struct spk_engine *echo_engine(spoke_engine *handle);

#endif
