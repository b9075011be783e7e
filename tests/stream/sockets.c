/* SPDX-License-Identifier: MIT */
/* Streams of tcp and ipc with programs that use plain sockets, in both roles, and streams made of
 * sockets. */
#include "tests/stream/fixture.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/raw_peer.h"

static struct criterion_test_params
with_sockets(void)
{
    static struct place list[] = {{OVER_IPC, SHARED, PLAIN}, {OVER_TCP, SHARED, PLAIN}};

    return (struct criterion_test_params){
        .size = sizeof list[0], .params = list, .length = sizeof list / sizeof list[0]};
}

/* Both say something, first we; each half ends by itself. */
static void
talk(spoke_stream *s, struct raw_peer *peer)
{
    static uint8_t bytes[100000];

    write_bytes(s, 0, 5000);
    cr_assert_eq(raw_recv_bytes(peer, bytes, 5000, RAW_LIMIT_MS), RAW_OK);
    cr_assert(bytes_hold(bytes, 5000, 0));
    bytes_fill(bytes, sizeof bytes, 3);
    cr_assert_eq(raw_send_bytes(peer, bytes, sizeof bytes, RAW_LIMIT_MS), RAW_OK);
    read_bytes(s, 3, sizeof bytes);
    expect_rc(spoke_stream_close_write(s), 0);
    cr_assert_eq(raw_recv_bytes(peer, bytes, 1, RAW_LIMIT_MS), RAW_EOF);
    cr_assert_eq(raw_send_bytes(peer, "bye", 3, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_end(peer), RAW_OK);
    expect_text(s, "bye");
    expect_rc(read_one(s), SPOKE_EOF);
}

PLACE_TEST(stream_sockets, a_plain_server, with_sockets)
{
    struct stage st;
    struct raw_listener l;
    struct raw_peer peer;
    char url[ENDPOINT_MAX];
    spoke_stream *s;

    stage_open(&st, p);
    fresh_url(&st, url);
    cr_assert_eq(raw_listen(&l, url), RAW_OK);
    expect_rc(spoke_stream_dial(&s, l.url, NULL, NULL, stage_in(&st, PATIENCE)), 0);
    cr_assert_eq(raw_accept(&l, &peer, RAW_LIMIT_MS), RAW_OK);
    cr_assert(raw_is_quiet(&peer, RAW_QUIET_MS / 5)); /* no word of ours */
    talk(s, &peer);
    raw_close(&peer);
    expect_rc(spoke_stream_close(s), 0);
    raw_listener_close(&l);
    stage_close(&st);
}

PLACE_TEST(stream_sockets, a_plain_client, with_sockets)
{
    struct stage st;
    struct raw_peer peer;
    char url[ENDPOINT_MAX];
    spoke_stream_listener *l;
    spoke_stream *s;

    stage_open(&st, p);
    fresh_url(&st, url);
    expect_rc(spoke_stream_listen(&l, url, NULL, NULL), 0);
    cr_assert_eq(raw_connect(&peer, url, RAW_LIMIT_MS), RAW_OK);
    expect_rc(spoke_stream_accept(l, &s, stage_in(&st, PATIENCE)), 0);
    cr_assert(raw_is_quiet(&peer, RAW_QUIET_MS / 5));
    talk(s, &peer);
    raw_close(&peer);
    expect_rc(spoke_stream_close(s), 0);
    expect_rc(spoke_stream_listener_close(l), 0);
    stage_close(&st);
}

/* It hangs up: at once, after bytes that we have not read, with a reset. */
PLACE_TEST(stream_sockets, a_plain_client_that_goes_away, with_sockets)
{
    struct stage st;
    struct raw_peer peer;
    char url[ENDPOINT_MAX];
    spoke_stream_listener *l;
    spoke_stream *s;

    stage_open(&st, p);
    fresh_url(&st, url);
    expect_rc(spoke_stream_listen(&l, url, NULL, NULL), 0);
    for (int how = 0; how < 3; how++) {
        int rc;

        cr_assert_eq(raw_connect(&peer, url, RAW_LIMIT_MS), RAW_OK);
        expect_rc(spoke_stream_accept(l, &s, stage_in(&st, PATIENCE)), 0);
        if (how == 1)
            cr_assert_eq(raw_send_bytes(&peer, "last", 4, RAW_LIMIT_MS), RAW_OK);
        if (how == 2)
            raw_reset(&peer);
        else
            raw_close(&peer);
        if (how == 1)
            expect_text(s, "last");
        rc = read_one(s);
        cr_assert_eq(rc, how == 2 && p->over == OVER_TCP ? SPOKE_ECONNRESET : SPOKE_EOF, "%s",
                     name_of(rc));
        for (int i = 0; i < 1000 && (rc = write_one(s)) == 0; i++)
            stage_pass(&st, SPOKE_MS);
        cr_assert(rc == SPOKE_EPEERCLOSED || rc == SPOKE_ECONNRESET, "%s", name_of(rc));
        expect_rc(spoke_stream_close(s), 0);
    }
    expect_rc(spoke_stream_listener_close(l), 0);
    stage_close(&st);
}

/* ---- of descriptors ---- */

static void
tcp_pair(int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(bind(l, (struct sockaddr *)&address, size), 0);
    cr_assert_eq(listen(l, 1), 0);
    cr_assert_eq(getsockname(l, (struct sockaddr *)&address, &size), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fds[0], (struct sockaddr *)&address, size), 0);
    fds[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
    cr_assert_geq(fds[1], 0);
    close(l);
}

Test(stream_sockets, a_stream_of_a_tcp_socket)
{
    const struct place p = {OVER_TCP, SHARED, PLAIN};
    struct stage st;
    spoke_stream *s[2];
    char url[ENDPOINT_MAX];
    int fds[2];

    stage_open(&st, &p);
    tcp_pair(fds);
    for (int i = 0; i < 2; i++)
        expect_rc(spoke_stream_from_fd(&s[i], fds[i], NULL, NULL), 0);
    write_bytes(s[0], 0, 10000);
    read_bytes(s[1], 0, 10000);
    expect_rc(spoke_stream_address(s[0], SPOKE_REMOTE, url, sizeof url), 0);
    cr_assert_eq(strncmp(url, "tcp://127.0.0.1:", 16), 0, "%s", url);
    expect_rc(spoke_stream_abort(s[0], 0), 0);
    expect_rc(spoke_stream_close(s[0]), 0);
    expect_rc(read_one(s[1]), SPOKE_ECONNRESET);
    expect_rc(spoke_stream_close(s[1]), 0);
    stage_close(&st);
}

/* What is refused stays the caller's, open and as it was. */
Test(stream_sockets, what_is_no_connected_stream_socket)
{
    static struct resources before;
    spoke_engine *e, *machine;
    spoke_sim *w;
    spoke_stream *s;
    int fds[2], fd;

    resources_take(&before);
    expect_rc(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    expect_rc(spoke_stream_from_fd(&s, fds[0], NULL, e), SPOKE_ENOTSOCK);
    cr_assert_null(s);
    cr_assert_geq(fcntl(fds[0], F_GETFD), 0);
    close(fds[0]);
    close(fds[1]);
    expect_rc(spoke_stream_from_fd(&s, fds[0], NULL, e), SPOKE_ENOTSOCK);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), 0);
    expect_rc(spoke_stream_from_fd(&s, fds[0], NULL, e), SPOKE_ENOTSUP);
    close(fds[0]);
    close(fds[1]);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    expect_rc(spoke_stream_from_fd(&s, fd, NULL, e), SPOKE_ENOTSUP);
    close(fd);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    expect_rc(spoke_stream_from_fd(&s, fds[0],
                                   &(spoke_stream_config){.linger_ns = -1, .ipc_mode = -1}, e),
              SPOKE_ERANGE);
    expect_rc(spoke_sim_open(&w, NULL), 0);
    expect_rc(spoke_sim_engine(w, &machine), 0);
    expect_rc(spoke_stream_from_fd(&s, fds[0], NULL, machine), SPOKE_ENOTSUP);
    expect_rc(spoke_sim_close(w, NULL), 0);
    cr_assert_eq(fcntl(fds[0], F_GETFL) & O_NONBLOCK, 0);
    close(fds[0]);
    close(fds[1]);
    expect_rc(spoke_engine_close(e), 0);
    resources_settle(&before);
}

/* ---- a socket that listens already ---- */

Test(stream_sockets, a_listener_of_a_descriptor)
{
    const struct place p = {OVER_IPC, ONE, PLAIN};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stage st;
    spoke_stream_listener *l;
    spoke_stream *a, *b;
    char url[ENDPOINT_MAX], got[ENDPOINT_MAX];
    int fd, fds[2];

    stage_open(&st, &p);
    fresh_url(&st, url);
    strncpy(address.sun_path, endpoint_path(url), sizeof address.sun_path - 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    expect_rc(spoke_stream_listen_fd(&l, fd, NULL, st.e[0]), SPOKE_ENOTSUP); /* not yet */
    cr_assert_null(l);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(fd, 5), 0);
    expect_rc(spoke_stream_listen_fd(&l, fd, NULL, st.e[0]), 0);
    expect_rc(spoke_stream_listener_address(l, got, sizeof got), 0);
    cr_assert_str_eq(got, url);
    expect_rc(spoke_stream_dial(&a, url, NULL, st.e[0], stage_in(&st, PATIENCE)), 0);
    expect_rc(spoke_stream_accept(l, &b, stage_in(&st, PATIENCE)), 0);
    write_text(a, "x");
    expect_text(b, "x");
    expect_rc(spoke_stream_close(a), 0);
    expect_rc(spoke_stream_close(b), 0);
    expect_rc(spoke_stream_listener_close(l), 0);
    cr_assert_eq(access(address.sun_path, F_OK), 0, "the file is not ours");
    cr_assert_eq(unlink(address.sun_path), 0);
    expect_rc(spoke_stream_listen_fd(NULL, 0, NULL, st.e[0]), SPOKE_EINVAL);
    expect_rc(spoke_stream_listen_fd(&l, -1, NULL, st.e[0]), SPOKE_ENOTSOCK);
    cr_assert_eq(pipe(fds), 0);
    expect_rc(spoke_stream_listen_fd(&l, fds[0], NULL, st.e[0]), SPOKE_ENOTSOCK);
    close(fds[0]);
    close(fds[1]);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    expect_rc(spoke_stream_listen_fd(&l, fds[0], NULL, st.e[0]), SPOKE_ENOTSUP);
    close(fds[0]);
    close(fds[1]);
    stage_close(&st);
}
