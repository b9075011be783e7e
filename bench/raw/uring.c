/* SPDX-License-Identifier: MIT */
/* The floor by io_uring: one ring, one thread (SINGLE_ISSUER, DEFER_TASKRUN).  A write is queued
 * and goes to the kernel together with the read that follows it, so a round trip costs one system
 * call; it sleeps in that call or, when it spins, asks for events again and again. */
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "../common/stream.h"

enum tag { TAG_READ = 1, TAG_WRITE };

struct uring_stream {
    struct raw_stream stream; /* first */
    struct io_uring ring;
    bool is_writing;  /* a write has not completed */
    int read_result;  /* of the last completed read */
    bool has_read;    /* read_result is set */
    int write_result; /* of the last completed write */
};

static int
uring_error(const char *call, int result)
{
    errno = -result;
    return raw_stream_complain(call);
}

static int
uring_io_open(struct raw_stream *s)
{
    struct uring_stream *u = (struct uring_stream *)s;
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    int rc;

    if (raw_stream_connect(s) != 0)
        return -1;
    rc = io_uring_queue_init_params(8, &u->ring, &p);
    if (rc != 0)
        return uring_error("io_uring_setup", rc);
    io_uring_register_ring_fd(&u->ring); /* Saves a little; works without. */
    return 0;
}

static void
uring_io_close(struct raw_stream *s)
{
    io_uring_queue_exit(&((struct uring_stream *)s)->ring);
}

/* Submit what is queued and take the completions that are there, waiting for at least one. */
static int
turn(struct uring_stream *u)
{
    struct io_uring_cqe *cqe;
    unsigned head, count = 0, turns = 0;
    int rc;

    if (bench_spins(&u->stream.link)) {
        rc = io_uring_submit_and_get_events(&u->ring);
        while (rc >= 0 && io_uring_cq_ready(&u->ring) == 0) {
            bench_spin(&turns);
            rc = io_uring_get_events(&u->ring);
        }
    } else {
        rc = io_uring_submit_and_wait(&u->ring, 1);
    }
    if (rc < 0 && rc != -EINTR)
        return uring_error("io_uring_enter", rc);
    io_uring_for_each_cqe(&u->ring, head, cqe)
    {
        if (io_uring_cqe_get_data64(cqe) == TAG_READ) {
            u->read_result = cqe->res;
            u->has_read = true;
        } else {
            u->write_result = cqe->res;
            u->is_writing = false;
        }
        count++;
    }
    io_uring_cq_advance(&u->ring, count);
    return 0;
}

/* Wait until the write in flight has gone out. */
static int
finish_write(struct uring_stream *u)
{
    while (u->is_writing)
        if (turn(u) != 0)
            return -1;
    return u->write_result < 0 ? uring_error("send", u->write_result) : 0;
}

static ssize_t
uring_read_some(struct raw_stream *s, void *data, size_t size)
{
    struct uring_stream *u = (struct uring_stream *)s;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

    io_uring_prep_recv(sqe, s->fd, data, size, 0);
    io_uring_sqe_set_data64(sqe, TAG_READ);
    u->has_read = false;
    do {
        if (turn(u) != 0)
            return -1;
    } while (!u->has_read);
    if (u->write_result < 0)
        return uring_error("send", u->write_result);
    if (u->read_result <= 0)
        return uring_error("recv", u->read_result == 0 ? -ECONNRESET : u->read_result);
    return u->read_result;
}

static int
uring_write_all(struct raw_stream *s, const void *data, size_t size)
{
    struct uring_stream *u = (struct uring_stream *)s;
    struct io_uring_sqe *sqe;
    int rc;

    if (finish_write(u) != 0)
        return -1;
    sqe = io_uring_get_sqe(&u->ring);
    io_uring_prep_send(sqe, s->fd, data, size, MSG_NOSIGNAL | MSG_WAITALL);
    io_uring_sqe_set_data64(sqe, TAG_WRITE);
    u->is_writing = true;
    if (s->link.options->work == BENCH_LATENCY)
        return 0; /* The read that follows takes it along. */
    rc = io_uring_submit(&u->ring);
    return rc < 0 ? uring_error("io_uring_enter", rc) : 0;
}

static const struct raw_io uring_io = {
    .open = uring_io_open,
    .close = uring_io_close,
    .read_some = uring_read_some,
    .write_all = uring_write_all,
};

static int
uring_open(struct bench_link *l)
{
    return raw_stream_open(l, &uring_io);
}

static void
uring_close(struct bench_link *l)
{
    finish_write((struct uring_stream *)l);
    raw_stream_close(l);
}

static const struct bench_adapter uring_adapter = {
    .name = "raw-uring",
    .link_size = sizeof(struct uring_stream),
    .open = uring_open,
    .close = uring_close,
    .send = raw_stream_send,
    .flush = raw_stream_flush,
    .receive = raw_stream_receive,
    .echo = raw_stream_echo,
};

int
main(int argc, char **argv)
{
    return bench_program_main(argc, argv, &uring_adapter);
}
