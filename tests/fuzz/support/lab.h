/* SPDX-License-Identifier: MIT */
/* Where the fuzz targets try things: a simulated world with one engine, on which sockets of the
 * library's live, and peers that are bare handles of the world's network and say what they like.
 * Every input begins in a new world, so that it means the same whatever ran before. */
#ifndef TESTS_FUZZ_SUPPORT_LAB_H
#define TESTS_FUZZ_SUPPORT_LAB_H

#include <stdio.h>
#include <stdlib.h>

#include <spoke/socket.h>

#include "runtime/engine/sim_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(Holds) ((Holds) ? (void)0 : lab_failed(__FILE__, __LINE__, #Holds))
_Noreturn void lab_failed(const char *file, int line, const char *what);

/* ---- the input: bytes that are taken one after the other, zeros when there are no more ---- */

struct input {
    const uint8_t *at;
    size_t left;
};
uint8_t input_byte(struct input *in);
uint16_t input_word(struct input *in);
/* At most so many bytes, where they lie. */
const uint8_t *input_bytes(struct input *in, size_t most, size_t *size);

/* ---- the world ---- */

struct lab {
    spoke_sim *w;
    spoke_engine *engine;
    struct sim_node *node;
    struct spoke_memory_stats before;
};

/* No latency, no faults, transfers of at most `buffer_bytes` in flight (0: 64 KiB). */
void lab_config(spoke_sim_config *config, uint8_t seed, uint32_t buffer_bytes);
void lab_open(struct lab *lab, const spoke_sim_config *config);
/* Everything that the target made itself is closed.  Nothing may be left. */
void lab_close(struct lab *lab);

/* Let all happen that needs no time to speak of, or so much time pass. */
void lab_settle(struct lab *lab);
void lab_pass(struct lab *lab, spoke_ns time);

/* ---- peers ---- */

/* "tcp://127.0.0.1:7" or "ipc:///lab": the only address of the lab. */
const char *lab_url(bool ipc);
struct sim_handle *lab_dial(struct lab *lab, bool ipc);   /* connects to a socket that listens */
struct sim_handle *lab_listen(struct lab *lab, bool ipc); /* waits for a socket that dials */
struct sim_handle *lab_accept(struct lab *lab, struct sim_handle *listener); /* NULL: nobody came */
void lab_hang_up(struct sim_handle *h);

/* As many of these bytes as there is room for, in one piece unless the world tears them. */
size_t lab_write(struct sim_handle *h, const void *bytes, size_t size);
/* What is there: bytes, 0, or LAB_ENDED. */
#define LAB_ENDED SIZE_MAX
size_t lab_read(struct sim_handle *h, void *bytes, size_t size);

/* The eight bytes of a handshake. */
#define HELLO_SIZE 8u
void lab_hello(uint8_t hello[HELLO_SIZE], int protocol);

#endif
