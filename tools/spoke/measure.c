/* SPDX-License-Identifier: MIT */
/* Ping-pong between two threads over one link: the caller's thread is side 0, the other one side 1,
 * each on a CPU of its own if there are two.  A value goes there and comes back; PLAY_STOP ends
 * side 1.  Side 0 decides when, by count and by time.  A take that fails, or a socket or futex that
 * stays silent too long, gives PLAY_STOP. */
#include "measure.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "tool.h"

#define ROUNDS_MAX   4000
#define ROUNDS_LEAST 20                 /* however long they take: others may want the CPUs */
#define WARM_UP      20                 /* rounds that do not count */
#define PLAY_NS      (300 * SPOKE_MS)   /* for one kind of link */
#define TAKE_NS      (5 * SPOKE_SECOND) /* for one take */
#define MESSAGE_SIZE 64

enum play { PLAY_GO = 1, PLAY_STOP = 2 };

struct link;
typedef void give_f(struct link *l, int side, enum play what); /* to the other side */
typedef enum play take_f(struct link *l, int side);

struct link {
    int cpu[2]; /* where side i runs; -1: anywhere */
    give_f *give;
    take_f *take;
    atomic_uint word[2]; /* what side i is to take, or 0 */
    int fd[2];           /* from which side i takes */
};

static void
futex_give(struct link *l, int side, enum play what)
{
    /* Pairs with the exchange in futex_take(). */
    atomic_store_explicit(&l->word[!side], what, memory_order_release);
    syscall(SYS_futex, &l->word[!side], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static enum play
futex_take(struct link *l, int side)
{
    const struct timespec limit = {.tv_sec = TAKE_NS / SPOKE_SECOND};
    spoke_ns deadline = tool_now() + TAKE_NS;
    unsigned what;

    while ((what = atomic_exchange_explicit(&l->word[side], 0, memory_order_acquire)) == 0) {
        if (tool_now() > deadline)
            return PLAY_STOP;
        syscall(SYS_futex, &l->word[side], FUTEX_WAIT_PRIVATE, 0, &limit, NULL, 0);
    }
    return (enum play)what;
}

static void
eventfd_give(struct link *l, int side, enum play what)
{
    uint64_t value = what;

    if (write(l->fd[!side], &value, sizeof value) != sizeof value)
        abort(); /* a counter of 2 at most cannot overflow */
}

static enum play
eventfd_take(struct link *l, int side)
{
    uint64_t value;

    return read(l->fd[side], &value, sizeof value) == sizeof value && value == PLAY_GO ? PLAY_GO
                                                                                       : PLAY_STOP;
}

static void
socket_give(struct link *l, int side, enum play what)
{
    char message[MESSAGE_SIZE] = {(char)what};

    /* One message is on its way at a time, so there is room; if not, the taker's limit ends it. */
    (void)!send(l->fd[side], message, sizeof message, MSG_NOSIGNAL);
}

static enum play
socket_take(struct link *l, int side)
{
    char message[MESSAGE_SIZE];
    ssize_t got = recv(l->fd[side], message, sizeof message, MSG_WAITALL);

    return got == MESSAGE_SIZE && message[0] == PLAY_GO ? PLAY_GO : PLAY_STOP;
}

static enum play
socket_take_spinning(struct link *l, int side)
{
    char message[MESSAGE_SIZE];
    spoke_ns deadline = tool_now() + TAKE_NS;
    ssize_t got;

    while ((got = recv(l->fd[side], message, sizeof message, MSG_DONTWAIT)) < 0) {
        if (tool_now() > deadline)
            return PLAY_STOP;
    }
    return got == MESSAGE_SIZE && message[0] == PLAY_GO ? PLAY_GO : PLAY_STOP;
}

static void
stay_on(int cpu)
{
    cpu_set_t set;

    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static void *
other_side(void *argument)
{
    struct link *l = argument;
    enum play what;

    stay_on(l->cpu[1]);
    do {
        what = l->take(l, 1);
        l->give(l, 1, what);
    } while (what == PLAY_GO);
    return NULL;
}

static int
by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Gives the median of the round trips in microseconds, or -1. */
static double
play(struct link *l)
{
    static double took_us[ROUNDS_MAX];
    spoke_ns end = tool_now() + PLAY_NS;
    pthread_t thread;
    size_t count = 0;
    bool is_whole = true;

    if (pthread_create(&thread, NULL, other_side, l) != 0)
        return -1;
    for (int round = 0; is_whole && count < ROUNDS_MAX; round++) {
        spoke_ns before = tool_now();
        if (before >= end && count >= ROUNDS_LEAST)
            break;
        l->give(l, 0, PLAY_GO);
        is_whole = l->take(l, 0) == PLAY_GO;
        if (round >= WARM_UP)
            took_us[count++] = (double)(tool_now() - before) / 1e3;
    }
    l->give(l, 0, PLAY_STOP);
    pthread_join(thread, NULL);
    if (!is_whole || count == 0)
        return -1;
    qsort(took_us, count, sizeof *took_us, by_size);
    return took_us[count / 2];
}

static double
play_futex(struct link l)
{
    l.give = futex_give;
    l.take = futex_take;
    return play(&l);
}

static double
play_eventfd(struct link l)
{
    double us = -1;

    l.give = eventfd_give;
    l.take = eventfd_take;
    l.fd[0] = eventfd(0, EFD_CLOEXEC);
    l.fd[1] = eventfd(0, EFD_CLOEXEC);
    if (l.fd[0] >= 0 && l.fd[1] >= 0)
        us = play(&l);
    for (int side = 0; side < 2; side++) {
        if (l.fd[side] >= 0)
            close(l.fd[side]);
    }
    return us;
}

static double
play_socket(struct link l, take_f *take)
{
    const struct timeval limit = {.tv_sec = TAKE_NS / SPOKE_SECOND};
    double us;

    l.give = socket_give;
    l.take = take;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, l.fd) != 0)
        return -1;
    for (int side = 0; side < 2; side++)
        setsockopt(l.fd[side], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    us = play(&l);
    close(l.fd[0]);
    close(l.fd[1]);
    return us;
}

/* Two CPUs of those that we may run on, else anywhere. */
static struct link
place(const cpu_set_t *allowed)
{
    struct link l = {.cpu = {-1, -1}};
    int found = 0;

    if (CPU_COUNT(allowed) < 2)
        return l;
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++) {
        if (CPU_ISSET((size_t)cpu, allowed))
            l.cpu[found++] = cpu;
    }
    return l;
}

void
measure(struct measured *out)
{
    double futex_us, eventfd_us, block_us, spin_us = -1;
    cpu_set_t allowed;
    struct link l;

    CPU_ZERO(&allowed);
    pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed);
    l = place(&allowed);
    stay_on(l.cpu[0]);
    futex_us = play_futex(l);
    eventfd_us = play_eventfd(l);
    block_us = play_socket(l, socket_take);
    if (l.cpu[0] >= 0) {
        spin_us = play_socket(l, socket_take_spinning);
        pthread_setaffinity_np(pthread_self(), sizeof allowed, &allowed);
    }
    *out = (struct measured){
        .done = futex_us > 0 && eventfd_us > 0 && block_us > 0,
        .futex_wake_us = futex_us / 2,
        .eventfd_wake_us = eventfd_us / 2,
        .socket_block_us = block_us,
        .can_spin = spin_us > 0,
        .socket_spin_us = spin_us,
        .break_even_us = block_us > spin_us ? (block_us - spin_us) / 2 : 0,
    };
}
