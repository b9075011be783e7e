/* SPDX-License-Identifier: MIT */
/* The floor between two processes that share memory: one ring of slots each way, one producer, one
 * consumer.  A body is written into its slot and read there; an echo is copied from slot to slot.
 * Who waits spins, or sleeps on a futex that the other side touches only if somebody sleeps.
 *
 * A slot begins with the number of the message that it holds, beside the body, so that a small
 * message is one or two cache lines and no index has to travel with it.  What the consumer has
 * taken it tells every quarter of a ring.
 *
 * The memory is the server's memfd, which the client opens through /proc: there is no file. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/net.h"
#include "../common/program.h"

enum {
    LINE = 64,
    HEADER = 8, /* of a slot: its number */
    RING_BYTES = 256 << 10,
    SLOTS_MIN = 4,
};

/* The shared words of a ring, each on a line of its own, and the slots after them. */
struct ring {
    _Alignas(LINE) _Atomic uint64_t taken;         /* messages that the consumer has given back */
    _Alignas(LINE) _Atomic uint32_t waits_message; /* the consumer sleeps */
    _Alignas(LINE) _Atomic uint32_t waits_room;    /* the producer sleeps */
    _Alignas(LINE) uint8_t slots[];
};

/* One end of a ring. */
struct end {
    struct ring *ring;
    uint64_t next;  /* message to write or read; the first is 1 */
    uint64_t taken; /* as far as this end knows */
};

struct shm_link {
    struct bench_link link; /* first */
    struct end out;
    struct end in;
    size_t slot_size;
    uint32_t slots; /* a power of two */
    size_t ring_size;
    void *memory;
};

static int
complain(const char *call)
{
    fprintf(stderr, "bench: %s: %s\n", call, strerror(errno));
    return -1;
}

static uint8_t *
slot_of(const struct shm_link *s, const struct end *e)
{
    return e->ring->slots + (size_t)(e->next & (s->slots - 1)) * s->slot_size;
}

static _Atomic uint64_t *
number_of(uint8_t *slot)
{
    return (_Atomic uint64_t *)(void *)slot;
}

/* ---- sleeping ---- */

/* To be called after what the sleeper waits for has been stored: W1 orders that store before the
 * look at the flag; S1 orders them the other way round, so one of the two sees the other. */
static void
wake(_Atomic uint32_t *flag)
{
    atomic_thread_fence(memory_order_seq_cst); /* W1 */
    if (atomic_load_explicit(flag, memory_order_relaxed) == 0)
        return;
    atomic_store_explicit(flag, 0, memory_order_relaxed);
    syscall(SYS_futex, flag, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Sleep, unless *word has changed from `seen`.  Returns also without a reason. */
static void
sleep_on(_Atomic uint32_t *flag, const _Atomic uint64_t *word, uint64_t seen)
{
    atomic_store_explicit(flag, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* S1 */
    if (atomic_load_explicit(word, memory_order_relaxed) == seen)
        syscall(SYS_futex, flag, FUTEX_WAIT, 1, NULL, NULL, 0);
}

/* Wait until *word is no longer `seen`; what was written before it was changed can be read then. */
static uint64_t
await(const _Atomic uint64_t *word, uint64_t seen, _Atomic uint32_t *flag, bool spins)
{
    unsigned turns = 0;
    uint64_t now;

    while ((now = atomic_load_explicit(word, memory_order_acquire)) == seen) {
        if (spins)
            bench_spin(&turns);
        else
            sleep_on(flag, word, seen);
    }
    return now;
}

/* ---- opening ---- */

static void
lay_out(struct shm_link *s)
{
    const struct bench_link *l = &s->link;

    s->slot_size = (HEADER + l->size + LINE - 1) / LINE * LINE;
    s->slots = SLOTS_MIN;
    /* Of one message at a time a short ring stays in the nearest caches. */
    while (l->options->work != BENCH_LATENCY && s->slots * 2 * s->slot_size <= RING_BYTES)
        s->slots *= 2;
    s->ring_size = (sizeof(struct ring) + s->slots * s->slot_size + 4095) / 4096 * 4096;
}

static int
map(struct shm_link *s, int fd)
{
    bool is_server = s->link.side == BENCH_SERVER;
    uint8_t *p = mmap(NULL, 2 * s->ring_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
                      0);

    if (p == MAP_FAILED)
        return complain("mmap");
    s->memory = p;
    s->in.ring = (struct ring *)(void *)(p + (is_server ? 0 : s->ring_size));
    s->out.ring = (struct ring *)(void *)(p + (is_server ? s->ring_size : 0));
    s->in.next = s->out.next = 1;
    return 0;
}

static int
open_server(struct shm_link *s)
{
    char address[BENCH_ADDRESS_MAX];
    int fd = memfd_create("bench", MFD_CLOEXEC);

    if (fd < 0)
        return complain("memfd_create");
    if (ftruncate(fd, (off_t)(2 * s->ring_size)) != 0)
        return complain("ftruncate");
    if (map(s, fd) != 0)
        return -1;
    /* The descriptor stays open for the client until this process ends. */
    snprintf(address, sizeof address, "shm:///proc/%d/fd/%d", (int)getpid(), fd);
    bench_ready(&s->link, address);
    return 0;
}

static int
open_client(struct shm_link *s)
{
    const char *address = s->link.options->address, *path = address + strlen("shm://");
    int fd, rc;

    if (strncmp(address, "shm://", strlen("shm://")) != 0) {
        errno = EINVAL;
        return complain(address);
    }
    if ((fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
        return complain(path);
    rc = map(s, fd);
    close(fd);
    return rc;
}

static int
shm_open_link(struct bench_link *l)
{
    struct shm_link *s = (struct shm_link *)l;

    lay_out(s);
    return l->side == BENCH_SERVER ? open_server(s) : open_client(s);
}

static void
shm_close_link(struct bench_link *l)
{
    struct shm_link *s = (struct shm_link *)l;

    munmap(s->memory, 2 * s->ring_size);
}

/* ---- messages ---- */

/* The next slot to write, when it is free. */
static uint8_t *
begin_write(struct shm_link *s, bool spins)
{
    struct end *e = &s->out;

    while (e->next - 1 - e->taken == s->slots) {
        /* What has been written since the last call of wake(). */
        if (!spins)
            wake(&e->ring->waits_message);
        e->taken = await(&e->ring->taken, e->taken, &e->ring->waits_room, spins);
    }
    return slot_of(s, e);
}

static void
end_write(struct shm_link *s, uint8_t *slot)
{
    atomic_store_explicit(number_of(slot), s->out.next++, memory_order_release);
}

/* The next slot to read, when it has been written. */
static uint8_t *
begin_read(struct shm_link *s, bool spins)
{
    struct end *e = &s->in;
    uint8_t *slot = slot_of(s, e);
    /* What it held one turn ago; nothing in the first. */
    uint64_t before = e->next > s->slots ? e->next - s->slots : 0;

    await(number_of(slot), before, &e->ring->waits_message, spins);
    return slot;
}

static void
give_back(struct shm_link *s, bool spins)
{
    struct end *e = &s->in;

    e->taken = e->next - 1;
    atomic_store_explicit(&e->ring->taken, e->taken, memory_order_release);
    if (!spins)
        wake(&e->ring->waits_room);
}

static void
end_read(struct shm_link *s, bool spins)
{
    struct end *e = &s->in;

    if (++e->next - 1 - e->taken >= s->slots / 4)
        give_back(s, spins);
}

static bool
has_message(struct shm_link *s)
{
    return atomic_load_explicit(number_of(slot_of(s, &s->in)), memory_order_acquire) == s->in.next;
}

static int
shm_send(struct bench_link *l, uint64_t first, enum bench_phase phase, unsigned count)
{
    struct shm_link *s = (struct shm_link *)l;
    bool spins = bench_spins(l);

    for (unsigned i = 0; i < count; i++) {
        uint8_t *slot = begin_write(s, spins);
        bench_fill(slot + HEADER, l->pattern, l->size, first + i, phase);
        end_write(s, slot);
    }
    if (!spins)
        wake(&s->out.ring->waits_message);
    return 0;
}

static int
shm_receive(struct bench_link *l, struct bench_check *c)
{
    struct shm_link *s = (struct shm_link *)l;
    bool spins = bench_spins(l);

    do {
        const uint8_t *slot = begin_read(s, spins);
        if (bench_check_message(c, slot + HEADER, l->size) != 0)
            return -1;
        end_read(s, spins);
    } while (c->phase != BENCH_LAST && has_message(s));
    return 0;
}

static int
shm_echo(struct bench_link *l, struct bench_check *c)
{
    struct shm_link *s = (struct shm_link *)l;
    bool spins = bench_spins(l);
    const uint8_t *from = begin_read(s, spins);
    uint8_t *to = begin_write(s, spins);

    if (bench_check_message(c, from + HEADER, l->size) != 0)
        return -1;
    memcpy(to + HEADER, from + HEADER, l->size);
    end_write(s, to);
    if (!spins)
        wake(&s->out.ring->waits_message);
    end_read(s, spins);
    return 0;
}

static const struct bench_adapter shm_adapter = {
    .name = "raw-shm",
    .link_size = sizeof(struct shm_link),
    .open = shm_open_link,
    .close = shm_close_link,
    .send = shm_send,
    .receive = shm_receive,
    .echo = shm_echo,
};

int
main(int argc, char **argv)
{
    return bench_program_main(argc, argv, &shm_adapter);
}
