/* SPDX-License-Identifier: MIT */
/* What a spinning engine looks at in one turn, on io_uring and on epoll. */
#include <limits.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/engine/backend.h"
#include "runtime/engine/engine.h"
#include "tests/support/test.h"

#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

struct scene {
    struct spk_engine *e;
    struct spk_op memory, bell, bytes;
    struct spk_flush flush; /* to a peer that takes nothing */
    int bell_fd, ends[2];
    bool may_ring, rung, read;
    uint8_t byte;
};

static bool
rings_once(struct spk_op *op)
{
    struct scene *s = SPK_OWNER(op, struct scene, memory);
    uint64_t one = 1;

    if (s->may_ring)
        cr_assert_eq(write(s->bell_fd, &one, sizeof one), (ssize_t)sizeof one);
    s->may_ring = false;
    return false;
}

static bool
arms(struct spk_op *op)
{
    (void)op;
    return true;
}

static void
flush_again(struct spk_flush *flush)
{
    struct scene *s = SPK_OWNER(flush, struct scene, flush);

    if (!s->read)
        spk_list_append(&s->e->flushes, &flush->link);
}

/* From here on something waits to be written, and there is something to be read. */
static void
on_bell(struct spk_op *op, int result)
{
    struct scene *s = SPK_OWNER(op, struct scene, bell);

    if (result < 0) /* cancelled */
        return;
    s->rung = true;
    cr_assert_eq(write(s->ends[1], "x", 1), 1);
    spk_list_append(&s->e->flushes, &s->flush.link);
}

static void
on_bytes(struct spk_op *op, int result)
{
    struct scene *s = SPK_OWNER(op, struct scene, bytes);

    s->read = result == 1 && s->byte == 'x';
}

static void
open_scene(struct scene *s, const char *backend)
{
    spoke_engine_config config;

    memset(s, 0, sizeof *s);
    spoke_engine_config_init(&config);
    config.backend = backend;
    config.busy_poll_ns = PATIENCE; /* it never sleeps here */
    if (spk_engine_open_with(&s->e, NULL, NULL, &config) != 0)
        cr_skip_test("io_uring is denied here");
    s->bell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    cr_assert_geq(s->bell_fd, 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s->ends), 0);
    spk_op_init(&s->memory, on_bytes);
    spk_op_init(&s->bell, on_bell);
    spk_op_init(&s->bytes, on_bytes);
    spk_list_init(&s->flush.link);
    s->flush.fn = flush_again;
    cr_assert(spk_op_watch(s->e, &s->memory, rings_once, arms));
    spk_op_readable(s->e, &s->bell, s->bell_fd);
    spk_op_recv(s->e, &s->bytes, s->ends[0], &s->byte, 1);
    for (int i = 0; i < 3; i++) /* all is armed, or tried by the spin */
        spk_engine_turn(s->e, 0);
}

static void
close_scene(struct scene *s)
{
    spk_op_unwatch(s->e, &s->memory);
    spk_list_remove(&s->flush.link);
    s->e->backend->close_handle(s->e, s->ends[0]);
    spk_engine_close(s->e);
    close(s->ends[1]);
    close(s->bell_fd);
}

/* Goal: a spin that looks at memory reads its sockets however much else there is to do.  Method:
 * the kernel's queue brings something in the middle of a spin, which makes a write wait and a byte
 * arrive; that is read in the same turn, since the next one may find as much to do. */
static void
reads(const char *backend)
{
    struct scene s;
    spoke_ns until;

    open_scene(&s, backend);
    until = spk_engine_now(s.e) + PATIENCE;
    s.may_ring = true;
    while (!s.rung) {
        cr_assert_lt(spk_engine_now(s.e), until);
        spk_engine_turn(s.e, until);
    }
    cr_assert(s.read, "what waits to be written has kept it from being read");
    close_scene(&s);
}

Test(spin, reads_sockets_while_something_waits_to_be_written_on_io_uring)
{
    reads("uring");
}

Test(spin, reads_sockets_while_something_waits_to_be_written_on_epoll)
{
    reads("poll");
}

static int ended;

static void
on_end(struct spk_op *op, int result)
{
    (void)op;
    ended = result;
}

static void
receive(struct spk_engine *e, struct spk_op *op, int fd, int expected)
{
    spoke_ns until = spk_engine_now(e) + PATIENCE;

    ended = INT_MAX;
    spk_op_recv(e, op, fd, NULL, 0);
    while (ended == INT_MAX) {
        cr_assert_lt(spk_engine_now(e), until);
        spk_engine_turn(e, until);
    }
    cr_assert_eq(ended, expected);
}

/* Goal: what one receive came in is not left in the operation for the next, which brings nothing.
 * Method: the spin finds at once what there is, bytes first and then the end. */
static void
forgets(const char *backend)
{
    spoke_engine_config config;
    struct spk_engine *e;
    struct spk_op op;
    int ends[2];

    spoke_engine_config_init(&config);
    config.backend = backend;
    config.busy_poll_ns = PATIENCE;
    if (spk_engine_open_with(&e, NULL, NULL, &config) != 0)
        cr_skip_test("io_uring is denied here");
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    spk_op_init(&op, on_end);
    cr_assert_eq(write(ends[1], "last", 4), 4);
    receive(e, &op, ends[0], 4);
    cr_assert_eq(op.chunk, e->scratch, "by a plain call");
    close(ends[1]);
    receive(e, &op, ends[0], 0);
    cr_assert_null(op.chunk);
    cr_assert_null(op.data);
    e->backend->close_handle(e, ends[0]);
    spk_engine_close(e);
}

Test(spin, has_no_memory_for_the_end_of_a_stream_on_io_uring)
{
    forgets("uring");
}

Test(spin, has_no_memory_for_the_end_of_a_stream_on_epoll)
{
    forgets("poll");
}
