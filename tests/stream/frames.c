/* SPDX-License-Identifier: MIT */
/* The words between the ends of a stream that goes in messages (runtime/stream/frames.c), and a
 * peer that gets them wrong: it costs its own stream. */
#include "tests/stream/fixture.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/stream/conn.h"
#include "tests/support/shm_peer.h"

enum { DATA, CREDIT, FIN, STOP, RESET, KINDS };
#define WINDOW ((size_t)1000)

/* ---- a stream over a pipe that ends in a list ---- */

static struct {
    spoke_engine *handle;
    struct spk_engine *e;
    struct spk_link conns;
    struct spk_socket socket;
    struct spk_pipe pipe;
    struct spk_conn *c;
    int sent; /* frames */
    unsigned last_kind;
    uint64_t number; /* of the last CREDIT or RESET */
    size_t bytes;    /* of DATA */
} x;

static int
take_frame(struct spk_pipe *p, spoke_msg *m)
{
    (void)p;
    x.sent++;
    cr_assert_eq(m->header_size, 1);
    x.last_kind = m->header[0];
    cr_assert_lt(x.last_kind, KINDS);
    if (x.last_kind == DATA)
        x.bytes += m->size;
    else if (m->size == 8)
        x.number = spk_get64(m->body);
    spoke_msg_free(m);
    return 0;
}

static uint64_t
nothing_pending(struct spk_pipe *p, uint64_t *bytes)
{
    (void)p;
    *bytes = 0;
    return 0;
}

static const struct spk_pipe_ops pipe_ops = {.send = take_frame, .pending = nothing_pending};

static void
open_conn(void)
{
    spoke_stream_config config;
    void *object;

    memset(&x, 0, sizeof x);
    expect_rc(spoke_engine_open(&x.handle, NULL), 0);
    expect_rc(spk_handle_enter(x.handle, SPK_HANDLE_ENGINE, &object, &x.e), 0);
    spk_list_init(&x.conns);
    spoke_stream_config_init(&config);
    config.window = WINDOW;
    x.socket.e = x.e;
    x.pipe = (struct spk_pipe){
        .socket = &x.socket, .ops = &pipe_ops, .state = SPK_PIPE_ATTACHED, .writable = true};
    x.c = spk_conn_new(x.e, &x.conns, &config, WINDOW);
    cr_assert_not_null(x.c);
    expect_rc(spk_conn_give_handle(x.c), 0);
    expect_rc(spk_frames_open(x.c, &x.pipe), 0);
    spk_frames_writable(x.c);
    cr_assert_eq(x.sent, 1);
    cr_assert_eq(x.last_kind, CREDIT);
    cr_assert_eq(x.number, WINDOW);
    spk_engine_leave(x.e);
    expect_rc(spoke_stream_set_deadline(x.c->handle, SPOKE_NOW), 0);
}

/* The pipe ends, for this reason. */
static void
end_conn(int reason)
{
    void *object;

    expect_rc(spk_handle_enter(x.handle, SPK_HANDLE_ENGINE, &object, &x.e), 0);
    spk_conn_gone(x.c, spk_frames_close(x.c, reason));
    spk_engine_leave(x.e);
}

static void
close_conn(void)
{
    if (x.c->state != NULL)
        end_conn(SPOKE_EOF);
    expect_rc(spoke_stream_close(x.c->handle), 0);
    expect_rc(spoke_engine_close(x.handle), 0);
}

static int
say_bytes(const void *bytes, size_t size)
{
    spoke_msg *m = message_of(bytes, size);
    void *object;
    int rc;

    expect_rc(spk_handle_enter(x.handle, SPK_HANDLE_ENGINE, &object, &x.e), 0);
    rc = spk_frames_received(x.c, m);
    spk_engine_leave(x.e);
    return rc;
}

static int
say(unsigned kind, uint64_t number, size_t size)
{
    static uint8_t bytes[1 + 100000];

    bytes[0] = (uint8_t)kind;
    spk_put64(bytes + 1, number);
    return say_bytes(bytes, 1 + size);
}

Test(stream_frames, what_is_no_word)
{
    static const struct {
        unsigned kind;
        size_t size;
    } bad[] = {{CREDIT, 0}, {CREDIT, 7}, {CREDIT, 9}, {RESET, 0}, {RESET, 7}, {RESET, 16},
               {FIN, 1},    {FIN, 8},    {STOP, 1},   {STOP, 8},  {DATA, 0},  {5, 0},
               {5, 8},      {127, 0},    {128, 8},    {255, 0},   {255, 100}, {DATA, WINDOW + 1}};

    open_conn();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(say(bad[i].kind, 1, bad[i].size), SPOKE_EPROTO, "kind %u, %zu bytes",
                     bad[i].kind, bad[i].size);
    cr_assert_neq(say_bytes("", 0), 0, "nothing at all");
    cr_assert_eq(x.c->input_size, 0);
    cr_assert_eq(x.c->read.end, 0);
    close_conn();
}

Test(stream_frames, bytes_beyond_the_window)
{
    char bytes[WINDOW];
    size_t done;

    open_conn();
    expect_rc(say(DATA, 0, WINDOW), 0);
    cr_assert_eq(say(DATA, 0, 1), SPOKE_EPROTO);
    expect_rc(spoke_stream_read(x.c->handle, bytes, 400, &done), 0);
    cr_assert_eq(x.sent, 1, "credit in small pieces");
    cr_assert_eq(say(DATA, 0, 1), SPOKE_EPROTO);
    expect_rc(spoke_stream_read(x.c->handle, bytes, 200, &done), 0);
    cr_assert_eq(x.last_kind, CREDIT);
    cr_assert_eq(x.number, WINDOW + 600);
    cr_assert_eq(say(DATA, 0, 601), SPOKE_EPROTO);
    expect_rc(say(DATA, 0, 600), 0);
    close_conn();
}

Test(stream_frames, after_the_end)
{
    open_conn();
    expect_rc(say(DATA, 0, 3), 0);
    expect_rc(say(FIN, 0, 0), 0);
    cr_assert_eq(say(DATA, 0, 1), SPOKE_EPROTO);
    end_conn(SPOKE_EPROTO);
    char bytes[3];
    size_t done;
    expect_rc(spoke_stream_read_full(x.c->handle, bytes, 3, &done), 0);
    expect_rc(read_one(x.c->handle), SPOKE_EOF);
    expect_rc(write_one(x.c->handle), SPOKE_EPROTO); /* why it was lost */
    close_conn();
}

Test(stream_frames, credit)
{
    static const uint8_t bytes[500];
    size_t done;

    open_conn();
    expect_rc(write_one(x.c->handle), SPOKE_EAGAIN);
    expect_rc(say(CREDIT, 100, 8), 0);
    expect_rc(spoke_stream_write(x.c->handle, bytes, sizeof bytes, &done), 0);
    cr_assert_eq(done, 100);
    expect_rc(say(CREDIT, 100, 8), 0); /* nothing new */
    expect_rc(write_one(x.c->handle), SPOKE_EAGAIN);
    cr_assert_eq(say(CREDIT, 99, 8), SPOKE_EPROTO, "it went back");
    expect_rc(say(CREDIT, UINT64_MAX, 8), 0);
    expect_rc(spoke_stream_write(x.c->handle, bytes, sizeof bytes, &done), 0);
    cr_assert_eq(done, sizeof bytes);
    cr_assert_eq(say(CREDIT, 0, 8), SPOKE_EPROTO);
    cr_assert_eq(x.bytes, 600);
    close_conn();
}

Test(stream_frames, ends)
{
    struct spoke_stream_info info;

    open_conn();
    expect_rc(say(CREDIT, 100, 8), 0);
    expect_rc(say(STOP, 0, 0), 0);
    expect_rc(say(STOP, 0, 0), 0);
    expect_rc(write_one(x.c->handle), SPOKE_EPEERCLOSED);
    expect_rc(say(RESET, 77, 8), 0);
    expect_rc(read_one(x.c->handle), SPOKE_EABORTED);
    expect_rc(spoke_stream_get_info(x.c->handle, &info), 0);
    cr_assert_eq(info.abort_code, 77);
    cr_assert_eq(say(DATA, 0, 1), SPOKE_EPROTO);
    close_conn();
}

/* Whatever comes, no more than the window is kept. */
Test(stream_frames, noise)
{
    uint64_t random = 12345;

    for (int round = 0; round < TEST_REPEATS(40); round++) {
        open_conn();
        for (int i = 0; i < 500; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            (void)say((unsigned)(random >> 33) % 6, random >> (random >> 58),
                      (random >> 40) % 3 == 0 ? 8 : (random >> 45) % 300);
            cr_assert_leq(x.c->input_size, WINDOW);
            if ((random >> 50) % 4 == 0)
                (void)read_one(x.c->handle);
            if ((random >> 50) % 4 == 1)
                (void)write_one(x.c->handle);
        }
        close_conn();
    }
}

/* ---- a peer in shared memory that does what it likes ---- */

static bool
has_ended(void *ctx)
{
    return read_now(ctx) != SPOKE_EAGAIN;
}

Test(stream_frames, a_peer_in_shared_memory)
{
    static const struct {
        const char *words; /* kind and payload; after a CREDIT of ours */
        uint32_t size;
        int end;
    } plays[] = {{"\x07", 1, SPOKE_EPROTO},
                 {"\x00", 1, SPOKE_EPROTO},
                 {"\x01\0\0\0\0\0\0", 7, SPOKE_EPROTO},
                 {"\x02\x02", 2, SPOKE_EPROTO},
                 {"\x02", 1, SPOKE_EOF},
                 {"\x04\0\0\0\0\0\0\0\x09", 9, SPOKE_EABORTED},
                 {"", 0, SPOKE_EPROTO}};
    static struct resources before;
    const struct place over_shm = {OVER_SHM, SHARED, PLAIN};
    struct stage st;
    struct spoke_stream_info info;
    struct shm_peer peer = {.fd = -1};
    spoke_stream_listener *l;
    spoke_stream *s;
    char url[ENDPOINT_MAX];

    stage_open(&st, &over_shm);
    fresh_url(&st, url);
    expect_rc(spoke_stream_listen(&l, url, NULL, NULL), 0);
    resources_take(&before);
    before.chunks++;
    for (size_t i = 0; i < sizeof plays / sizeof plays[0]; i++) {
        int rc;

        memset(&peer, 0, sizeof peer);
        cr_assert_eq(shm_peer_dial(&peer, endpoint_path(url), 0x7f01, 64 * 1024, 1024 * 1024), 0);
        expect_rc(spoke_stream_accept(l, &s, stage_in(&st, PATIENCE)), 0);
        shm_peer_put(&peer, SPK_SHM_MESSAGE, "\x00hello", 6);
        shm_peer_put(&peer, SPK_SHM_MESSAGE, plays[i].words, plays[i].size);
        shm_peer_publish(&peer);
        expect_text(s, "hello");
        cr_assert(stage_until(&st, has_ended, s));
        rc = read_one(s);
        cr_assert(rc == plays[i].end || (plays[i].size == 0 && rc != 0), "play %zu: %s", i,
                  name_of(rc));
        expect_rc(spoke_stream_get_info(s, &info), 0);
        cr_assert_eq(info.abort_code, rc == SPOKE_EABORTED ? 9 : 0);
        shm_peer_close(&peer);
        (void)spoke_stream_close(s);
        resources_settle(&before);
    }
    expect_rc(spoke_stream_listener_close(l), 0);
    stage_close(&st);
}
