/* SPDX-License-Identifier: MIT */
/* The floor between two threads: one ring of slots each way, one producer, one consumer, no copy.
 * A message is written in its slot and read there.  Who waits spins, or sleeps on a futex that the
 * other side touches only if somebody sleeps.
 *
 * Indices only grow; slot = index modulo the number of slots.  The producer publishes once per send
 * call, the consumer gives back once per receive call. */
#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/program.h"

enum { SLOTS_MAX = 4096 };

/* A word that one side advances and the other waits for. */
struct index {
    _Alignas(64) _Atomic uint32_t value;
    _Atomic uint32_t has_sleeper;
};

struct ring {
    struct index tail; /* the producer's: slots before it are filled */
    struct index head; /* the consumer's: slots before it are free again */
    uint32_t slots;
    uint8_t *memory;
};

struct inproc_link {
    struct bench_link link; /* first */
    struct ring *out;
    struct ring *in;
};

static struct ring rings[2]; /* to the server, to the client */

static void
futex(_Atomic uint32_t *word, int op, uint32_t value)
{
    syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

static void
publish(struct index *i, uint32_t value, bool spins)
{
    /* News or nothing: who is woken by the same value has no reason to stay awake, but would have
     * lost its mark in has_sleeper. */
    if (value == atomic_load_explicit(&i->value, memory_order_relaxed))
        return;
    if (spins) {
        /* P1: the slots before the index.  Pairs with C1 in await(). */
        atomic_store_explicit(&i->value, value, memory_order_release);
        return;
    }
    /* P2: the index before the look at the sleeper; await() does it the other way round, so one of
     * the two sees the other. */
    atomic_store(&i->value, value);
    if (atomic_exchange(&i->has_sleeper, 0) != 0)
        futex(&i->value, FUTEX_WAKE_PRIVATE, 1);
}

/* Wait until the index differs from `seen`; returns it. */
static uint32_t
await(struct index *i, uint32_t seen, bool spins)
{
    unsigned turns = 0;
    uint32_t now;

    /* C1 */
    while ((now = atomic_load_explicit(&i->value, memory_order_acquire)) == seen) {
        if (spins) {
            bench_spin(&turns);
            continue;
        }
        /* C2: pairs with P2. */
        atomic_store(&i->has_sleeper, 1);
        if (atomic_load(&i->value) == seen)
            futex(&i->value, FUTEX_WAIT_PRIVATE, seen);
    }
    return now;
}

static void
ring_init(struct ring *r, const struct bench_link *l)
{
    uint64_t slots = (8U << 20) / l->size;

    r->slots = 4;
    while (r->slots < SLOTS_MAX && r->slots * 2 <= slots)
        r->slots *= 2;
    r->memory = calloc(r->slots, l->size);
    if (r->memory == NULL) {
        fputs("bench: no memory\n", stderr);
        exit(1);
    }
    for (uint32_t i = 0; i < r->slots; i++)
        memcpy(r->memory + i * l->size, l->pattern, l->size);
}

static int
inproc_open(struct bench_link *l)
{
    struct inproc_link *p = (struct inproc_link *)l;
    bool is_server = l->side == BENCH_SERVER;

    if (is_server) {
        ring_init(&rings[0], l);
        ring_init(&rings[1], l);
        bench_ready(l, l->options->address);
    }
    p->in = &rings[is_server ? 0 : 1];
    p->out = &rings[is_server ? 1 : 0];
    return 0;
}

/* The rings end with the process: the other side may still be reading. */
static void
inproc_close(struct bench_link *l)
{
    (void)l;
}

static int
inproc_send(struct bench_link *l, uint64_t first, enum bench_phase phase, unsigned count)
{
    struct ring *r = ((struct inproc_link *)l)->out;
    bool spins = l->options->wait != BENCH_BLOCK;
    uint32_t tail = atomic_load_explicit(&r->tail.value, memory_order_relaxed);
    uint32_t head = atomic_load_explicit(&r->head.value, memory_order_acquire);

    for (unsigned i = 0; i < count; i++) {
        while (tail - head == r->slots) {
            publish(&r->tail, tail, spins);
            head = await(&r->head, head, spins);
        }
        bench_renew_body(l, r->memory + tail % r->slots * l->size, first + i, phase);
        tail++;
    }
    publish(&r->tail, tail, spins);
    return 0;
}

static int
inproc_receive(struct bench_link *l, struct bench_check *c)
{
    struct ring *r = ((struct inproc_link *)l)->in;
    bool spins = l->options->wait != BENCH_BLOCK;
    uint32_t head = atomic_load_explicit(&r->head.value, memory_order_relaxed);
    uint32_t tail = await(&r->tail, head, spins);

    for (unsigned n = 0; head != tail; head++) {
        if (bench_check_message(c, r->memory + head % r->slots * l->size, l->size) != 0)
            return -1;
        /* Give slots back early enough for the producer to go on without a pause. */
        if (++n % (r->slots / 4) == 0)
            publish(&r->head, head + 1, spins);
    }
    publish(&r->head, head, spins);
    return 0;
}

static int
inproc_echo(struct bench_link *l, struct bench_check *c)
{
    uint64_t number = bench_number(c->expected);

    if (inproc_receive(l, c) != 0)
        return -1;
    return inproc_send(l, number, c->phase, 1);
}

static const struct bench_adapter inproc_adapter = {
    .name = "raw-inproc",
    .link_size = sizeof(struct inproc_link),
    .open = inproc_open,
    .close = inproc_close,
    .send = inproc_send,
    .receive = inproc_receive,
    .echo = inproc_echo,
};

int
main(int argc, char **argv)
{
    return bench_program_main(argc, argv, &inproc_adapter);
}
