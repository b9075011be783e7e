/* SPDX-License-Identifier: MIT */
/* The floor by plain calls: read and write that block, or recv and send that are tried until they
 * succeed. */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "../common/stream.h"

static void
plain_close(struct raw_stream *s)
{
    (void)s;
}

static ssize_t
plain_read_some(struct raw_stream *s, void *data, size_t size)
{
    int flags = bench_spins(&s->link) ? MSG_DONTWAIT : 0;
    unsigned turns = 0;

    for (;;) {
        ssize_t n = recv(s->fd, data, size, flags);
        if (n > 0)
            return n;
        if (n == 0)
            errno = ECONNRESET;
        else if (errno == EINTR)
            continue;
        if (n == 0 || errno != EAGAIN)
            return raw_stream_complain("recv");
        bench_spin(&turns);
    }
}

static int
plain_write_all(struct raw_stream *s, const void *data, size_t size)
{
    int flags = MSG_NOSIGNAL | (bench_spins(&s->link) ? MSG_DONTWAIT : 0);
    const uint8_t *p = data;
    unsigned turns = 0;

    while (size > 0) {
        ssize_t n = send(s->fd, p, size, flags);
        if (n > 0) {
            p += n;
            size -= (size_t)n;
            turns = 0;
        } else if (errno == EAGAIN) {
            bench_spin(&turns);
        } else if (errno != EINTR) {
            return raw_stream_complain("send");
        }
    }
    return 0;
}

static const struct raw_io plain_io = {
    .open = raw_stream_connect,
    .close = plain_close,
    .read_some = plain_read_some,
    .write_all = plain_write_all,
};

static int
sockets_open(struct bench_link *l)
{
    return raw_stream_open(l, &plain_io);
}

static const struct bench_adapter sockets_adapter = {
    .name = "raw-sockets",
    .link_size = sizeof(struct raw_stream),
    .open = sockets_open,
    .close = raw_stream_close,
    .send = raw_stream_send,
    .flush = raw_stream_flush,
    .receive = raw_stream_receive,
    .echo = raw_stream_echo,
};

int
main(int argc, char **argv)
{
    return bench_program_main(argc, argv, &sockets_adapter);
}
