/* SPDX-License-Identifier: MIT */
/* Moving into shared memory, with peers that do not do their part: plain sockets that have heard of
 * the side channel, and say what they like there.  And messages that outlive where they came from.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/core/shmring.h"
#include "tests/protocols/fixture.h"
#include "tests/support/process.h"
#include "tests/support/resources.h"
#include "tests/support/shm_peer.h"
#include "tests/support/world.h"

#define MOVED    2u /* the byte in the stream */
#define RING     ((uint32_t)64 * 1024)
#define OFFER    1u
#define READY    2u
#define FDS_MOST 8

/* What goes over the side channel; docs/shared-memory.md. */
struct packet {
    uint32_t magic;
    uint16_t version, kind;
    uint32_t ring_size, has_segment;
    uint64_t segment_size;
};

static void
move_at_once(void)
{
    cr_assert_eq(setenv("SPOKE_UPGRADE", "now", 1), 0);
}

TestSuite(shared, .init = move_at_once);

/* ---- plain peers with a side channel ---- */

/* Returns the bytes, -1: none came. */
static ssize_t
recv_fds(int fd, void *data, size_t size, int *fds, int *count)
{
    struct iovec iov = {data, size};
    union {
        char bytes[CMSG_SPACE(sizeof(int) * FDS_MOST)];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    *count = 0;
    if (poll(&ready, 1, RAW_LIMIT_MS * SPOKE_TEST_SLOWDOWN) != 1)
        return -1;
    ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); n >= 0 && c != NULL; c = CMSG_NXTHDR(&msg, c)) {
        *count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(c), sizeof(int) * (size_t)*count);
    }
    return n;
}

static void
close_all(const int *fds, int count)
{
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

/* The socket `s` and its plain peer. */
struct mates {
    spoke_socket *s;
    struct raw_peer p;
    struct raw_listener l; /* fd -1: s listens */
    int side;
    _Atomic spoke_pipe_id pipe;
    atomic_int reason; /* why the pipe is gone; 1: it is not */
};

static int
remember(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    struct mates *x = ctx;

    (void)s;
    if (event->type == SPOKE_EVENT_ATTACHED)
        atomic_store(&x->pipe, event->pipe);
    if (event->type == SPOKE_EVENT_DETACHED)
        atomic_store(&x->reason, event->reason);
    return 0;
}

static void
open_mate(struct mates *x, int pattern)
{
    *x = (struct mates){.side = -1, .l.fd = -1};
    atomic_init(&x->reason, 1);
    x->s = open_socket(pattern);
    cr_assert_eq(spoke_socket_on_event(x->s, remember, x), 0);
}

/* The plain peer dials, and brings a side channel. */
static void
dial_with_side(struct mates *x, const char *url, uint16_t ours, uint16_t theirs, uint64_t pipes)
{
    uint8_t hello[RAW_HANDSHAKE_BYTES], expected[RAW_HANDSHAKE_BYTES];
    int ends[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(raw_connect(&x->p, url, RAW_LIMIT_MS), RAW_OK);
    raw_header(hello, ours);
    cr_assert_eq(shm_peer_send(x->p.fd, hello, sizeof hello, &ends[1], 1), 0);
    close(ends[1]);
    x->side = ends[0];
    cr_assert_eq(raw_recv_bytes(&x->p, hello, sizeof hello, RAW_LIMIT_MS), RAW_OK);
    raw_header(expected, theirs);
    cr_assert_arr_eq(hello, expected, sizeof hello);
    if (pipes > 0)
        wait_pipes(x->s, pipes);
}

/* The plain peer is dialed, and takes the side channel that is brought. */
static void
accept_with_side(struct mates *x, uint16_t ours)
{
    uint8_t hello[RAW_HANDSHAKE_BYTES];
    int count;

    cr_assert_eq(raw_accept(&x->l, &x->p, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(recv_fds(x->p.fd, hello, sizeof hello, &x->side, &count), RAW_HANDSHAKE_BYTES);
    cr_assert_eq(count, 1);
    raw_header(hello, ours);
    cr_assert_eq(raw_send_bytes(&x->p, hello, sizeof hello, RAW_LIMIT_MS), RAW_OK);
}

enum { PAIR_NUMBER = 0x10 };

/* A pair, of which one end is plain, up to where the plain one is to make its offer. */
static void
meet(struct mates *x, bool dials)
{
    char url[ENDPOINT_MAX];
    struct packet packet;
    int fds[FDS_MOST], count;

    open_mate(x, SPOKE_PAIR);
    if (dials) {
        listen_on(x->s, IPC, url);
        dial_with_side(x, url, PAIR_NUMBER, PAIR_NUMBER, 1);
        cr_assert_eq(recv_fds(x->side, &packet, sizeof packet, fds, &count), sizeof packet);
        cr_assert_eq(packet.kind, OFFER);
        cr_assert_eq(count, 3);
        close_all(fds, count);
    } else {
        endpoint_fresh(url, IPC);
        cr_assert_eq(raw_listen(&x->l, url), RAW_OK);
        dial(x->s, url);
        accept_with_side(x, PAIR_NUMBER);
        wait_pipes(x->s, 1);
    }
}

static void
part(struct mates *x)
{
    (void)spoke_socket_set_duration(x->s, SPOKE_OPT_LINGER, 0);
    cr_assert_eq(spoke_socket_close(x->s), 0);
    raw_close(&x->p);
    if (x->l.fd >= 0)
        raw_listener_close(&x->l);
    if (x->side >= 0)
        close(x->side);
}

/* Why its messages do not go through shared memory. */
static int
why_not(struct mates *x)
{
    int value = 0;
    size_t size = sizeof value;

    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN && atomic_load(&x->pipe) == 0; i++)
        sleep_ms(1);
    cr_assert_eq(spoke_pipe_get(x->s, atomic_load(&x->pipe), SPOKE_OPT_SHARED_MEMORY, SPOKE_INT,
                                &value, &size),
                 0);
    return value;
}

/* Both ways through the stream. */
static void
talk(struct mates *x)
{
    raw_send_text(&x->p, "there");
    expect_text(x->s, "there");
    send_text(x->s, "and back");
    raw_expect(&x->p, NULL, 0, "and back");
}

/* Talk on until it has been decided. */
static int
decision(struct mates *x)
{
    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN && why_not(x) == SPOKE_EAGAIN; i++) {
        talk(x);
        sleep_ms(1);
    }
    return why_not(x);
}

static void
expect_let_go(struct mates *x, const char *what)
{
    char byte;
    int fds[FDS_MOST], count;

    cr_assert_eq(recv_fds(x->side, &byte, 1, fds, &count), 0, "%s: the side channel is open", what);
    close(x->side);
    x->side = -1;
}

static void
expect_gone(struct mates *x, int reason)
{
    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN && atomic_load(&x->reason) == 1; i++)
        sleep_ms(1);
    cr_assert_eq(atomic_load(&x->reason), reason, "%s", spoke_error_name(atomic_load(&x->reason)));
}

/* What the engine and the first connection leave behind is there before anything is counted. */
static void
take_stock(struct resources *before)
{
    struct mates x;

    meet(&x, true);
    talk(&x);
    part(&x);
    sleep_ms(50);
    resources_take(before);
}

static int
count_mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    int count = 0;

    cr_assert_not_null(maps);
    while (fgets(line, sizeof line, maps) != NULL)
        count += strstr(line, "memfd:spoke-") != NULL;
    fclose(maps);
    return count;
}

static void
check_nothing_is_left(const struct resources *before)
{
    resources_settle(before);
    for (int i = 0; i < 5000 * SPOKE_TEST_SLOWDOWN && count_mappings() > 0; i++)
        sleep_ms(1);
    cr_assert_eq(count_mappings(), 0);
}

/* ---- who does not answer ---- */

Test(shared, who_never_answers_is_waited_for_as_long_as_for_a_greeting)
{
    static struct resources before;
    struct mates x;
    char url[ENDPOINT_MAX];

    take_stock(&before);
    open_mate(&x, SPOKE_PAIR);
    cr_assert_eq(spoke_socket_set_duration(x.s, SPOKE_OPT_HANDSHAKE_TIME, 2 * SPOKE_SECOND), 0);
    listen_on(x.s, IPC, url);
    dial_with_side(&x, url, PAIR_NUMBER, PAIR_NUMBER, 1);
    talk(&x);
    cr_assert_eq(decision(&x), SPOKE_ETIMEDOUT);
    struct packet packet;
    int fds[FDS_MOST], count;
    cr_assert_eq(recv_fds(x.side, &packet, sizeof packet, fds, &count), sizeof packet);
    close_all(fds, count);
    expect_let_go(&x, "late");
    talk(&x);
    part(&x);
    check_nothing_is_left(&before);
    finish();
}

/* As nanomsg and NNG do it, without knowing. */
Test(shared, who_lets_go_of_the_side_channel_stays_with_the_socket)
{
    static struct resources before;
    struct mates x;

    take_stock(&before);
    for (int dials = 0; dials < 2; dials++) {
        meet(&x, dials == 1);
        close(x.side);
        x.side = -1;
        cr_assert_eq(decision(&x), SPOKE_ENOTSUP);
        talk(&x);
        part(&x);
    }
    check_nothing_is_left(&before);
    finish();
}

/* ---- who says something else ---- */

/* An offer as it should be, and what it consists of. */
struct offer {
    struct packet packet;
    size_t size; /* of the packet */
    int fds[FDS_MOST], count;
    int bell; /* our end of it */
};

static int
new_memory(size_t size, int seals)
{
    int fd = memfd_create("test-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, (off_t)size), 0);
    if (seals != 0)
        cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void
make_offer(struct offer *o)
{
    int ends[2];

    cr_assert_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    cr_assert_eq(fchmod(ends[1], 0666), 0);
    *o = (struct offer){.packet = {.magic = 0x53504b53,
                                   .version = 1,
                                   .kind = OFFER,
                                   .ring_size = RING,
                                   .has_segment = 1,
                                   .segment_size = 1 << 20},
                        .size = sizeof o->packet,
                        .fds = {new_memory(SPK_SHM_HALF(RING), F_SEAL_SHRINK | F_SEAL_GROW),
                                ends[1], new_memory(1 << 20, F_SEAL_SHRINK | F_SEAL_GROW)},
                        .count = 3,
                        .bell = ends[0]};
}

static void
put_fd(struct offer *o, int place, int fd)
{
    cr_assert_geq(fd, 0);
    close(o->fds[place]);
    o->fds[place] = fd;
}

static int
new_file(void)
{
    char path[ENDPOINT_MAX];

    scratch_path(path, "file");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, (off_t)SPK_SHM_HALF(RING)), 0);
    return fd;
}

/* Each of these makes one thing wrong. */
static void
spoil(struct offer *o, int how)
{
    switch (how) {
    case 0: memset(&o->packet, 0xa5, sizeof o->packet); break;
    case 1: o->size = 8; break;
    case 2: o->packet.magic++; break;
    case 3: o->packet.version = 2; break;
    case 4: o->packet.kind = READY; break;
    case 5: o->packet.kind = 7; break;
    case 6: o->count = 0; break;
    case 7: o->count = 1; break;
    case 8: o->count = 2; break; /* and says that there is a segment */
    case 9: o->packet.has_segment = 0; break;
    case 10: /* more than anybody takes */
        while (o->count < FDS_MOST)
            o->fds[o->count++] = dup(o->fds[0]);
        break;
    case 24: o->fds[o->count++] = dup(o->fds[0]); break; /* one more than fits */
    case 11: put_fd(o, 0, new_file()); break;
    case 12: put_fd(o, 0, new_memory(SPK_SHM_HALF(RING), 0)); break;
    case 13: put_fd(o, 0, new_memory(SPK_SHM_HALF(RING) - 4096, F_SEAL_SHRINK)); break;
    case 14: put_fd(o, 0, eventfd(0, EFD_CLOEXEC)); break;
    case 15: put_fd(o, 1, eventfd(0, EFD_CLOEXEC)); break;
    case 16: put_fd(o, 1, new_file()); break;
    case 17: put_fd(o, 2, new_file()); break;
    case 18: put_fd(o, 2, new_memory(1 << 20, 0)); break;
    case 19: o->packet.segment_size = 4096; break;
    case 20: o->packet.ring_size = 0; break;
    case 21: o->packet.ring_size = RING - 4096; break;
    case 22: o->packet.ring_size = 1u << 31; break;
    default: o->packet.ring_size = 4096; break;
    }
}
enum { WAYS_TO_SPOIL = 25 };

static void
send_offer(struct mates *x, struct offer *o)
{
    cr_assert_eq(shm_peer_send(x->side, &o->packet, o->size, o->fds, o->count), 0);
}

static void
drop_offer(struct offer *o)
{
    close_all(o->fds, o->count > 3 ? o->count : 3);
    close(o->bell);
}

static void
check_spoilt_offers(bool dials)
{
    static struct resources before;
    struct mates x;
    struct offer o;

    take_stock(&before);
    for (int how = 0; how < WAYS_TO_SPOIL; how++) {
        char what[16];

        snprintf(what, sizeof what, "offer %d", how);
        meet(&x, dials);
        make_offer(&o);
        spoil(&o, how);
        send_offer(&x, &o);
        drop_offer(&o);
        expect_let_go(&x, what);
        int why = decision(&x);
        cr_assert(why == SPOKE_EPROTO || (how == 1 && why == SPOKE_ENOTSUP), "%s: %s", what,
                  spoke_error_name(why));
        talk(&x);
        part(&x);
    }
    check_nothing_is_left(&before);
    finish();
}

Test(shared, a_listener_takes_no_offer_that_is_not_as_it_should_be)
{
    check_spoilt_offers(true);
}

Test(shared, a_dialer_takes_no_offer_that_is_not_as_it_should_be)
{
    check_spoilt_offers(false);
}

/* ---- the byte in the stream ---- */

/* An offer that is right is taken, and the byte comes. */
static void
agree(struct mates *x, struct offer *o)
{
    struct packet packet;
    int fds[FDS_MOST], count;
    uint8_t byte;

    meet(x, true);
    make_offer(o);
    send_offer(x, o);
    cr_assert_eq(recv_fds(x->side, &packet, sizeof packet, fds, &count), sizeof packet);
    cr_assert_eq(packet.kind, READY);
    cr_assert_eq(raw_recv_bytes(&x->p, &byte, 1, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(byte, MOVED);
    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN && why_not(x) != 0; i++)
        sleep_ms(1);
    cr_assert_eq(why_not(x), 0);
}

Test(shared, more_bytes_after_the_last_one_end_the_connection)
{
    static struct resources before;
    static const uint8_t bytes[] = {MOVED, MOVED};
    struct mates x;
    struct offer o;

    take_stock(&before);
    agree(&x, &o);
    cr_assert_eq(raw_send_bytes(&x.p, bytes, sizeof bytes, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_wait_eof(&x.p, RAW_LIMIT_MS), RAW_OK);
    expect_gone(&x, SPOKE_EPROTO);
    drop_offer(&o);
    part(&x);
    check_nothing_is_left(&before);
    finish();
}

/* … and who ends its bell instead has ended the connection. */
Test(shared, a_peer_that_vanishes_after_the_move_is_missed)
{
    static struct resources before;
    static const uint8_t moved = MOVED;
    struct mates x;
    struct offer o;

    take_stock(&before);
    agree(&x, &o);
    cr_assert_eq(raw_send_bytes(&x.p, &moved, 1, RAW_LIMIT_MS), RAW_OK);
    sleep_ms(20);
    drop_offer(&o);
    raw_close(&x.p);
    part(&x);
    check_nothing_is_left(&before);
    finish();
}

/* Two peers of one socket; only the first has something to be sorry for. */
static void
check_byte(bool with_side)
{
    static struct resources before;
    static const uint8_t moved = MOVED;
    struct mates x;
    struct raw_peer good;
    char url[ENDPOINT_MAX];

    take_stock(&before);
    open_mate(&x, SPOKE_PULL);
    listen_on(x.s, IPC, url);
    join(&good, x.s, url, 1);
    if (with_side)
        dial_with_side(&x, url, 0x50, 0x51, 2);
    else
        join(&x.p, x.s, url, 2);
    raw_send_text(&good, "before");
    expect_text(x.s, "before");
    raw_send_text(&x.p, "still welcome");
    expect_text(x.s, "still welcome");
    cr_assert_eq(raw_send_bytes(&x.p, &moved, 1, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_wait_eof(&x.p, RAW_LIMIT_MS), RAW_OK);
    expect_gone(&x, SPOKE_EPROTO);
    raw_send_text(&good, "after");
    expect_text(x.s, "after");
    cr_assert_eq(stats_of(x.s).pipes_current, 1);
    raw_close(&good);
    part(&x);
    check_nothing_is_left(&before);
    finish();
}

Test(shared, the_byte_without_a_side_channel_ends_its_connection_alone)
{
    check_byte(false);
}

Test(shared, the_byte_before_anything_is_agreed_on_ends_its_connection_alone)
{
    check_byte(true);
}

/* ---- shm:// has to have it ---- */

Test(shared, a_dialer_of_shm_is_told_why_there_is_none)
{
    static struct resources before;
    struct mates x;
    char url[ENDPOINT_MAX];

    take_stock(&before);
    for (int how = 0; how < 2; how++) { /* a stranger, and one who spoils its offer */
        open_mate(&x, SPOKE_PAIR);
        cr_assert_eq(spoke_socket_set_duration(x.s, SPOKE_OPT_RECONNECT, 10 * SPOKE_SECOND), 0);
        endpoint_fresh(url, SHM);
        cr_assert_eq(raw_listen(&x.l, url), RAW_OK);
        dial(x.s, url);
        accept_with_side(&x, PAIR_NUMBER);
        if (how == 1) {
            struct offer o;

            make_offer(&o);
            o.packet.version = 2;
            send_offer(&x, &o);
            drop_offer(&o);
            expect_let_go(&x, "a wrong version");
        } else {
            close(x.side);
            x.side = -1;
        }
        cr_assert_eq(raw_wait_eof(&x.p, RAW_LIMIT_MS), RAW_OK);
        expect_gone(&x, how == 1 ? SPOKE_EPROTO : SPOKE_ENOTSUP);
        cr_assert_eq(stats_of(x.s).pipes_attached, 0);
        part(&x);
    }
    check_nothing_is_left(&before);
    finish();
}

Test(shared, a_listener_of_shm_turns_strangers_away)
{
    static struct resources before;
    spoke_socket *mate;
    struct mates x;
    char url[ENDPOINT_MAX];
    uint8_t hello[RAW_HANDSHAKE_BYTES];

    take_stock(&before);
    open_mate(&x, SPOKE_PAIR);
    listen_on(x.s, SHM, url);
    cr_assert_eq(raw_connect(&x.p, url, RAW_LIMIT_MS), RAW_OK);
    raw_header(hello, PAIR_NUMBER);
    cr_assert_eq(raw_send_bytes(&x.p, hello, sizeof hello, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_wait_eof(&x.p, RAW_LIMIT_MS), RAW_OK);
    expect_gone(&x, SPOKE_ENOTSUP);
    cr_assert_eq(stats_of(x.s).pipes_attached, 0);
    mate = open_socket(SPOKE_PAIR);
    dial(mate, url);
    send_text(mate, "one of us");
    expect_text(x.s, "one of us");
    cr_assert_eq(spoke_socket_close(mate), 0);
    part(&x);
    check_nothing_is_left(&before);
    finish();
}

/* shm and ipc meet at one socket file. */
Test(shared, shm_and_ipc_are_one_place)
{
    for (int i = 0; i < 2; i++) {
        spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);
        char url[ENDPOINT_MAX], other[ENDPOINT_MAX];

        listen_on(a, i == 0 ? SHM : IPC, url);
        snprintf(other, sizeof other, "%s://%s", i == 0 ? "ipc" : "shm", endpoint_path(url));
        dial(b, other);
        send_text(a, "there");
        expect_text(b, "there");
        send_text(b, "back");
        expect_text(a, "back");
        wait_counter(a, pipes_shared, 1);
        wait_counter(b, pipes_shared, 1);
    }
    finish();
}

/* ---- messages that are held ---- */

enum { HELD = 8, HELD_SIZE = 256 * 1024, OTHERS = 300 };

static bool
is_lent(const void *body)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    unsigned long from, to;
    char mode[8];
    bool lent = false;
    char line[512];

    cr_assert_not_null(maps);
    while (!lent && fgets(line, sizeof line, maps) != NULL)
        lent = strstr(line, "memfd:spoke-messages") != NULL &&
               sscanf(line, "%lx-%lx %7s", &from, &to, mode) == 3 && strcmp(mode, "r--s") == 0 &&
               (unsigned long)body >= from && (unsigned long)body < to;
    fclose(maps);
    return lent;
}

struct order {
    char url[ENDPOINT_MAX];
    int orders[2], done[2]; /* a byte for each step */
};

static void
await_order(const struct order *order)
{
    char byte;

    CHILD_CHECK(write(order->done[1], "", 1) == 1);
    CHILD_CHECK(read(order->orders[0], &byte, 1) == 1);
}

static void
send_large(spoke_socket *s, uint32_t seed)
{
    spoke_msg *m;

    CHILD_CHECK(spoke_msg_new(&m, HELD_SIZE) == 0);
    pattern_fill(spoke_msg_body(m), HELD_SIZE, seed);
    CHILD_CHECK(spoke_send(s, m, 0) == 0);
}

/* So that much of the segment has been used, and lies idle. */
static void
use_the_segment(spoke_socket *s)
{
    static spoke_msg *loans[48];

    for (int i = 0; i < 48; i++) {
        CHILD_CHECK(spoke_loan(s, 1 << 20, &loans[i]) == 0);
        memset(spoke_msg_body(loans[i]), i, 1 << 20);
    }
    for (int i = 0; i < 48; i++)
        spoke_msg_free(loans[i]);
}

static int
send_and_send(void *ctx)
{
    const struct order *order = ctx;
    struct spoke_stats stats;
    spoke_socket *s;

    CHILD_CHECK(spoke_socket_open(&s, SPOKE_PUSH, NULL) == 0);
    CHILD_CHECK(spoke_listen(s, order->url, NULL, 0) == 0);
    for (uint32_t i = 0; i < HELD; i++)
        send_large(s, i);
    await_order(order); /* they are held; their receiver is gone, or its pipe */
    use_the_segment(s);
    for (uint32_t i = 0; i < OTHERS; i++)
        send_large(s, 1000 + i);
    await_order(order);
    do
        CHILD_CHECK(spoke_socket_stats(s, &stats) == 0);
    while (stats.messages_sent < HELD + OTHERS);
    use_the_segment(s);
    CHILD_CHECK(spoke_socket_close(s) == 0);
    await_order(order);
    return 0;
}

static void
give_order(const struct order *order)
{
    char byte;

    cr_assert_eq(read(order->done[0], &byte, 1), 1);
    cr_assert_eq(write(order->orders[1], "", 1), 1);
}

static void
expect_held(spoke_msg *const held[HELD], const char *when)
{
    for (uint32_t i = 0; i < HELD; i++)
        cr_assert(pattern_holds(spoke_msg_body(held[i]), HELD_SIZE, i), "%s: message %u", when, i);
}

static void
check_held(bool close_socket)
{
    struct order order;
    spoke_msg *held[HELD], *m;

    endpoint_fresh(order.url, SHM);
    cr_assert_eq(pipe2(order.orders, O_CLOEXEC), 0);
    cr_assert_eq(pipe2(order.done, O_CLOEXEC), 0);
    pid_t child = child_start(send_and_send, &order);

    spoke_socket *first = watch_pipes(open_socket(SPOKE_PULL)), *second;
    dial(first, order.url);
    for (uint32_t i = 0; i < HELD; i++) {
        held[i] = recv_message(first);
        cr_assert(is_lent(spoke_msg_body(held[i])), "message %u was copied", i);
    }
    expect_held(held, "at first");
    if (close_socket)
        cr_assert_eq(spoke_socket_close(first), 0);
    else
        cr_assert_eq(spoke_pipe_close(first, watched_pipe(0)), 0);
    expect_held(held, "its pipe is closed");
    second = close_socket ? open_socket(SPOKE_PULL) : first;
    if (close_socket)
        dial(second, order.url);
    give_order(&order);
    for (uint32_t i = 0; i < OTHERS; i++) {
        m = recv_message(second);
        cr_assert(pattern_holds(spoke_msg_body(m), HELD_SIZE, 1000 + i), "other message %u", i);
        spoke_msg_free(m);
    }
    expect_held(held, "others have come");
    give_order(&order);
    give_order(&order);
    expect_held(held, "the sender's socket is closed");
    cr_assert_eq(child_wait(child, 30 * SPOKE_TEST_SLOWDOWN), 0);
    expect_held(held, "the sender is dead");
    cr_assert_eq(spoke_socket_close(second), 0);
    expect_held(held, "no socket is left");
    for (int i = 0; i < HELD; i++)
        spoke_msg_free(held[i]);
    for (int i = 0; i < 5000 * SPOKE_TEST_SLOWDOWN && count_mappings() > 0; i++)
        sleep_ms(1);
    cr_assert_eq(count_mappings(), 0);
    finish();
}

Test(shared, a_message_outlives_its_pipe_and_its_sender)
{
    check_held(false);
}

Test(shared, a_message_outlives_its_socket_and_its_sender)
{
    check_held(true);
}

/* ---- what the segment's pages are ---- */

enum { FRAME = 1 << 20 };

static void
expect_frame(spoke_socket *s, size_t size, uint32_t seed)
{
    spoke_msg *m = recv_message(s);

    cr_assert_eq(spoke_msg_size(m), size);
    cr_assert(is_lent(spoke_msg_body(m)));
    cr_assert(pattern_holds(spoke_msg_body(m), size, seed));
    spoke_msg_free(m);
}

/* Messages written in place and copied ones arrive lent, and what they lay in is given back;
 * returns what the sender had counted before that. */
static struct spoke_stats
exchange_frames(void)
{
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);
    struct spoke_stats stats;

    cr_assert_eq(spoke_socket_set_bool(a, SPOKE_OPT_SHM_HUGE_PAGES, true), 0);
    connect_sockets(a, b, SHM);
    for (uint32_t i = 0; i < 8; i++) {
        spoke_msg *m;

        cr_assert_eq(spoke_loan(a, FRAME, &m), 0);
        pattern_fill(spoke_msg_body(m), FRAME, i);
        cr_assert_eq(spoke_send(a, m, 0), 0);
        cr_assert_eq(spoke_send(a, pattern_message(FRAME / 3, 100 + i), 0), 0);
        stats = stats_of(a); /* while both lie there: what is idle may be given back */
        expect_frame(b, FRAME, i);
        expect_frame(b, FRAME / 3, 100 + i);
    }
    cr_expect_leq(stats.shm_huge_bytes, stats.shm_bytes);
    cr_expect_eq(stats_of(b).shm_bytes, 0);
    wait_counter(a, shm_bytes, 0);
    cr_expect_eq(stats_of(a).shm_huge_bytes, 0);
    finish();
    return stats;
}

Test(shared, large_messages_may_lie_in_huge_pages)
{
    struct spoke_stats stats = exchange_frames();

    cr_expect_geq(stats.shm_bytes, FRAME);
    if (stats.shm_huge_failed > 0)
        cr_skip("%llu huge pages could not be had", (unsigned long long)stats.shm_huge_failed);
    cr_expect_eq(stats.shm_huge_bytes, stats.shm_bytes);
}

Test(shared, without_huge_pages_they_lie_in_ordinary_ones)
{
    struct spoke_stats stats;

    cr_assert_eq(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
    stats = exchange_frames();
    cr_expect_geq(stats.shm_bytes, FRAME);
    cr_expect_eq(stats.shm_huge_bytes, 0);
    cr_expect_gt(stats.shm_huge_failed, 0);
    cr_assert_eq(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0), 0);
}
