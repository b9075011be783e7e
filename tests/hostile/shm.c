/* SPDX-License-Identifier: MIT */
/* A peer that agrees on shared memory as it should, and then writes there what it likes.  It costs
 * its own connection, or nothing but its own time: the healthy client is answered after each
 * attack, and while those go on that do not end by themselves. */
#include "tests/hostile/victim.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/shm_peer.h"

#define LIMIT   ((uint32_t)300000) /* max-recv-size */
#define RING    ((size_t)64 * 1024)
#define SEGMENT ((size_t)1024 * 1024)
#define END_MS  (10000 * SPOKE_TEST_SLOWDOWN)

static char path[ENDPOINT_MAX];

static void
open_victim(struct victim *v)
{
    char url[ENDPOINT_MAX + 8];
    spoke_listener *l;

    victim_open(v, IPC);
    scratch_path(path, "memory.sock");
    snprintf(url, sizeof url, "shm://%s", path);
    cr_assert_eq(spoke_listener_create(&l, v->rep, url), 0);
    cr_assert_eq(spoke_listener_set_size(l, SPOKE_OPT_MAX_RECV_SIZE, LIMIT), 0);
    cr_assert_eq(spoke_listener_start(l, 0), 0);
}

static void
meet(struct shm_peer *p)
{
    p->idle = NULL;
    cr_assert_eq(shm_peer_dial(p, path, SPOKE_REQ, RING, SEGMENT), 0);
}

/* ---- what an honest one does ---- */

static void
put_request(struct shm_peer *p, uint32_t size)
{
    static uint8_t body[8192];

    raw_put32(body, 0x80000001u);
    shm_peer_put(p, SPK_SHM_MESSAGE, body, size);
}

static void
put_loan(struct shm_peer *p, uint32_t number, uint64_t offset, uint64_t size)
{
    struct spk_shm_loan loan = {.number = number, .offset = offset, .size = size};

    shm_peer_put(p, SPK_SHM_LOAN, &loan, sizeof loan);
}

static void
begin(struct shm_peer *p, uint64_t length)
{
    shm_peer_put(p, SPK_SHM_BEGIN, &length, sizeof length);
}

static bool
is_answered(struct shm_peer *p)
{
    struct spk_shm_record record;

    if (shm_peer_next(p, &record, END_MS) != 0)
        return false;
    atomic_store(&p->mine->head, p->head);
    shm_peer_ring(p);
    return true;
}

static void
ask(struct shm_peer *p)
{
    struct spk_shm_record record;

    put_request(p, 20);
    shm_peer_publish(p);
    cr_assert_eq(shm_peer_next(p, &record, END_MS), 0, "an honest request is not answered");
    cr_assert_eq(record.kind, SPK_SHM_MESSAGE);
    cr_assert_eq(record.size, 20);
    cr_assert_eq(raw_get32(record.data), 0x80000001u);
    atomic_store(&p->mine->head, p->head);
    shm_peer_ring(p);
}

/* An answer that is lent to us. */
static void
have_lent(struct shm_peer *p)
{
    struct spk_shm_record record;

    raw_put32(p->memory, 0x80000001u);
    put_loan(p, 0, 0, 50000);
    shm_peer_publish(p);
    cr_assert_eq(shm_peer_next(p, &record, END_MS), 0);
    cr_assert_eq(record.kind, SPK_SHM_LOAN);
    atomic_store(&p->mine->head, p->head);
}

/* ---- attacks that end a connection ---- */

static void
tail_ahead(struct shm_peer *p)
{
    p->tail += RING + 8;
}

static void
tail_behind(struct shm_peer *p)
{
    p->tail -= 8;
}

static void
tail_far(struct shm_peer *p)
{
    p->tail += (uint64_t)1 << 63;
}

static void
tail_odd(struct shm_peer *p)
{
    put_request(p, 20);
    p->tail += 4;
}

static void
kind_unknown(struct shm_peer *p)
{
    shm_peer_put(p, SPK_SHM_PIECE + 1, "abcdefgh", 8);
}

static void
kind_largest(struct shm_peer *p)
{
    shm_peer_put(p, UINT32_MAX, "abcdefgh", 8);
}

static void
size_largest(struct shm_peer *p)
{
    shm_peer_word(p, (uint64_t)SPK_SHM_MESSAGE << 32 | UINT32_MAX);
    p->tail += 64;
}

static void
size_beyond_tail(struct shm_peer *p)
{
    shm_peer_word(p, (uint64_t)SPK_SHM_MESSAGE << 32 | 64);
    p->tail += 64;
}

/* Up to where so many bytes of the ring are left. */
static void
go_on_to(struct shm_peer *p, uint64_t left)
{
    uint64_t way;

    while ((way = (RING - left - p->tail) & (RING - 1)) != 0) {
        put_request(p, way > 8192 ? 8000 : (uint32_t)way - 8);
        shm_peer_publish(p);
        cr_assert(is_answered(p));
    }
}

static void
size_beyond_ring(struct shm_peer *p)
{
    go_on_to(p, 64);
    shm_peer_word(p, (uint64_t)SPK_SHM_MESSAGE << 32 | 1024);
    p->tail += 1032;
}

static void
skip_at_start(struct shm_peer *p)
{
    go_on_to(p, 0);
    shm_peer_word(p, RING - 8);
    p->tail += RING;
}

static void
skip_not_to_the_end(struct shm_peer *p)
{
    shm_peer_word(p, 8);
    p->tail += 16;
}

static void
message_too_large(struct shm_peer *p)
{
    begin(p, (uint64_t)LIMIT + 1);
}

static void
pieces_of_2_63(struct shm_peer *p)
{
    begin(p, (uint64_t)1 << 63);
}

static void
pieces_of_nothing(struct shm_peer *p)
{
    begin(p, 0);
}

static void
begin_short(struct shm_peer *p)
{
    shm_peer_put(p, SPK_SHM_BEGIN, "1234", 4);
}

static void
begin_twice(struct shm_peer *p)
{
    begin(p, 100);
    begin(p, 100);
}

static void
piece_alone(struct shm_peer *p)
{
    shm_peer_put(p, SPK_SHM_PIECE, "12345678", 8);
}

static void
piece_empty(struct shm_peer *p)
{
    begin(p, 100);
    shm_peer_put(p, SPK_SHM_PIECE, NULL, 0);
}

static void
piece_too_much(struct shm_peer *p)
{
    begin(p, 7);
    shm_peer_put(p, SPK_SHM_PIECE, "12345678", 8);
}

static void
message_between_pieces(struct shm_peer *p)
{
    begin(p, 100);
    shm_peer_put(p, SPK_SHM_PIECE, "12345678", 8);
    put_request(p, 20);
}

static void
loan_between_pieces(struct shm_peer *p)
{
    begin(p, 100);
    put_loan(p, 0, 0, 5000);
}

static void
loan_number(struct shm_peer *p)
{
    put_loan(p, SPK_SHM_LOANS, 0, 5000);
}

static void
loan_number_largest(struct shm_peer *p)
{
    put_loan(p, UINT32_MAX, 0, 5000);
}

static void
loan_offset(struct shm_peer *p)
{
    put_loan(p, 0, SEGMENT + 1, 0);
}

static void
loan_size(struct shm_peer *p)
{
    put_loan(p, 0, SEGMENT - 4096, 4097);
}

static void
loan_that_wraps(struct shm_peer *p)
{
    put_loan(p, 0, 4096, UINT64_MAX - 4000);
}

static void
loan_too_large(struct shm_peer *p)
{
    put_loan(p, 0, 0, LIMIT + 1);
}

static void
loan_short(struct shm_peer *p)
{
    shm_peer_put(p, SPK_SHM_LOAN, "12345678", 8);
}

static void
loan_header(struct shm_peer *p)
{
    static uint8_t bytes[sizeof(struct spk_shm_loan) + SPOKE_HEADER_MAX + 1];

    shm_peer_put(p, SPK_SHM_LOAN, bytes, sizeof bytes);
}

static void
returns_jump(struct shm_peer *p)
{
    have_lent(p);
    atomic_store(&p->mine->returned, 5000);
}

static void
returns_of_others(struct shm_peer *p)
{
    have_lent(p);
    ((_Atomic uint32_t *)(void *)((uint8_t *)p->mine + SPK_SHM_RETURNS))[0] = 77;
    atomic_store(&p->mine->returned, 1);
}

static void
returns_out_of_range(struct shm_peer *p)
{
    have_lent(p);
    ((_Atomic uint32_t *)(void *)((uint8_t *)p->mine + SPK_SHM_RETURNS))[0] = UINT32_MAX;
    atomic_store(&p->mine->returned, 1);
}

static void
returns_twice(struct shm_peer *p)
{
    struct spk_shm_loan loan;
    struct spk_shm_record record;
    _Atomic uint32_t *numbers = (_Atomic uint32_t *)(void *)((uint8_t *)p->mine + SPK_SHM_RETURNS);

    raw_put32(p->memory, 0x80000001u);
    put_loan(p, 0, 0, 50000);
    shm_peer_publish(p);
    cr_assert_eq(shm_peer_next(p, &record, END_MS), 0);
    memcpy(&loan, record.data, sizeof loan);
    atomic_store(&p->mine->head, p->head);
    numbers[0] = numbers[1] = loan.number;
    atomic_store(&p->mine->returned, 2);
}

/* Fill their ring, so that they look how far we are. */
static void
fill(struct shm_peer *p)
{
    for (int i = 0; i < 100; i++) {
        put_request(p, 4000);
        shm_peer_publish(p);
        if (shm_peer_ended(p, 1))
            return;
    }
}

static void
head_ahead(struct shm_peer *p)
{
    atomic_store(&p->mine->head, p->head + ((uint64_t)1 << 40));
    fill(p);
}

static void
head_behind(struct shm_peer *p)
{
    atomic_store(&p->mine->head, p->head - ((uint64_t)1 << 40));
    fill(p);
}

enum how { GARBLED, OVERSIZED };

static const struct attack {
    char name[32];
    void (*fn)(struct shm_peer *p);
    enum how how;
} attacks[] = {
#define ATTACK(Function, How)                                                                      \
    {                                                                                              \
#Function, Function, How                                                                   \
    }
    ATTACK(tail_ahead, GARBLED),
    ATTACK(tail_behind, GARBLED),
    ATTACK(tail_far, GARBLED),
    ATTACK(tail_odd, GARBLED),
    ATTACK(kind_unknown, GARBLED),
    ATTACK(kind_largest, GARBLED),
    ATTACK(size_largest, GARBLED),
    ATTACK(size_beyond_tail, GARBLED),
    ATTACK(size_beyond_ring, GARBLED),
    ATTACK(skip_at_start, GARBLED),
    ATTACK(skip_not_to_the_end, GARBLED),
    ATTACK(message_too_large, OVERSIZED),
    ATTACK(pieces_of_2_63, OVERSIZED),
    ATTACK(pieces_of_nothing, GARBLED),
    ATTACK(begin_short, GARBLED),
    ATTACK(begin_twice, GARBLED),
    ATTACK(piece_alone, GARBLED),
    ATTACK(piece_empty, GARBLED),
    ATTACK(piece_too_much, GARBLED),
    ATTACK(message_between_pieces, GARBLED),
    ATTACK(loan_between_pieces, GARBLED),
    ATTACK(loan_number, GARBLED),
    ATTACK(loan_number_largest, GARBLED),
    ATTACK(loan_offset, GARBLED),
    ATTACK(loan_size, GARBLED),
    ATTACK(loan_that_wraps, GARBLED),
    ATTACK(loan_too_large, OVERSIZED),
    ATTACK(loan_short, GARBLED),
    ATTACK(loan_header, GARBLED),
    ATTACK(returns_jump, GARBLED),
    ATTACK(returns_of_others, GARBLED),
    ATTACK(returns_out_of_range, GARBLED),
    ATTACK(returns_twice, GARBLED),
    ATTACK(head_ahead, GARBLED),
    ATTACK(head_behind, GARBLED),
};
enum { ATTACKS = sizeof attacks / sizeof attacks[0] };

Test(shm, each_attack_ends_its_own_connection_and_is_counted_once)
{
    uint64_t counts[2] = {0, 0};
    struct shm_peer p = {.fd = -1};
    struct victim v;

    open_victim(&v);
    for (int i = 0; i < ATTACKS; i++) {
        const struct attack *attack = &attacks[i];
        meet(&p);
        ask(&p);
        attack->fn(&p);
        shm_peer_publish(&p);
        cr_assert(shm_peer_ended(&p, END_MS), "%s: nobody minds", attack->name);
        shm_peer_close(&p);
        victim_check(&v);
        counts[attack->how]++;
        struct spoke_stats stats = victim_stats(&v);
        cr_assert_eq(stats.garbled, counts[GARBLED], "%s: garbled %llu", attack->name,
                     (unsigned long long)stats.garbled);
        cr_assert_eq(stats.oversized, counts[OVERSIZED], "%s: oversized %llu", attack->name,
                     (unsigned long long)stats.oversized);
    }
    victim_close(&v);
}

/* ---- attacks that go on ---- */

struct siege {
    struct shm_peer p;
    void (*fn)(struct shm_peer *p, uint32_t round);
    atomic_bool over;
};

static void *
besiege(void *ctx)
{
    struct siege *siege = ctx;

    for (uint32_t round = 0; !atomic_load(&siege->over); round++)
        siege->fn(&siege->p, round);
    return NULL;
}

static void
ring_for_ever(struct shm_peer *p, uint32_t round)
{
    (void)round;
    shm_peer_ring(p);
}

static void
tail_jumps(struct shm_peer *p, uint32_t round)
{
    atomic_store(&p->mine->tail, p->tail + round * (uint64_t)2654435761u);
    if (round % 64 == 0)
        shm_peer_ring(p);
}

static void
claims_to_sleep(struct shm_peer *p, uint32_t round)
{
    atomic_store(&p->mine->asleep, round * 4 + SPK_SHM_WANTS);
    if (atomic_load(&p->theirs->head) == p->tail) {
        put_request(p, 20);
        shm_peer_publish(p);
    }
    atomic_store(&p->mine->head, atomic_load(&p->theirs->tail));
}

static void
claims_to_be_awake(struct shm_peer *p, uint32_t round)
{
    (void)round;
    atomic_store(&p->mine->asleep, 0);
    if (atomic_load(&p->theirs->head) == p->tail) {
        put_request(p, 20);
        shm_peer_publish(p);
    }
    atomic_store(&p->mine->head, atomic_load(&p->theirs->tail));
}

static void
never_reads(struct shm_peer *p, uint32_t round)
{
    (void)round;
    if (atomic_load(&p->theirs->head) != p->tail)
        return;
    put_request(p, 8000);
    shm_peer_publish(p);
}

static void
skips(struct shm_peer *p, uint32_t round)
{
    (void)round;
    if (atomic_load(&p->theirs->head) != p->tail)
        return;
    for (int i = 0; i < 6; i++) { /* one that leaves much to be skipped */
        put_request(p, 8192);
    }
    shm_peer_publish(p);
    atomic_store(&p->mine->head, atomic_load(&p->theirs->tail));
}

/* All the same loan, over and over, while its words change. */
static void
changes_what_it_lent(struct shm_peer *p, uint32_t round)
{
    raw_put32(p->memory, round % 3 == 0 ? 0 : 0x80000001u);
    memset(p->memory + 4, (int)round, 5000);
    if (atomic_load(&p->theirs->head) == p->tail) {
        for (uint32_t i = 0; i < 8; i++)
            put_loan(p, i % 2, i % 3 * 4, 40000);
        shm_peer_publish(p);
    }
    raw_put32(p->memory + 4, 0x80000001u);
    atomic_store(&p->mine->head, atomic_load(&p->theirs->tail));
}

/* What is in the ring while it is read. */
static void
changes_records(struct shm_peer *p, uint32_t round)
{
    if (atomic_load(&p->theirs->head) == p->tail) {
        for (int i = 0; i < 100; i++)
            put_request(p, 100);
        shm_peer_publish(p);
    }
    for (uint64_t at = 0; at < RING; at += 8)
        p->ring[(at + round) & (RING - 1)] = (uint8_t)(round >> 2);
    atomic_store(&p->mine->head, atomic_load(&p->theirs->tail));
}

static void
tiny_pieces(struct shm_peer *p, uint32_t round)
{
    if (round == 0)
        begin(p, LIMIT);
    while (p->tail - atomic_load(&p->theirs->head) < RING - 64)
        shm_peer_put(p, SPK_SHM_PIECE, "x", 1);
    shm_peer_publish(p);
}

static const struct {
    char name[32];
    void (*fn)(struct shm_peer *p, uint32_t round);
} sieges[] = {
#define SIEGE(Function)                                                                            \
    {                                                                                              \
#Function, Function                                                                        \
    }
    SIEGE(ring_for_ever),      SIEGE(tail_jumps),           SIEGE(claims_to_sleep),
    SIEGE(claims_to_be_awake), SIEGE(never_reads),          SIEGE(skips),
    SIEGE(changes_records),    SIEGE(changes_what_it_lent), SIEGE(tiny_pieces),
};

Test(shm, others_are_served_while_an_attack_goes_on)
{
    static struct siege siege;
    struct victim v;
    pthread_t thread;

    open_victim(&v);
    long resident = resources_resident_kib();
    for (size_t i = 0; i < sizeof sieges / sizeof sieges[0]; i++) {
        siege.fn = sieges[i].fn;
        atomic_store(&siege.over, false);
        meet(&siege.p);
        ask(&siege.p);
        cr_assert_eq(pthread_create(&thread, NULL, besiege, &siege), 0);
        for (int k = 0; k < 100; k++)
            victim_check(&v);
        atomic_store(&siege.over, true);
        pthread_join(thread, NULL);
        shm_peer_close(&siege.p);
        victim_check(&v);
    }
    cr_assert_lt(resources_resident_kib() - resident, 64 * 1024 * SPOKE_TEST_SLOWDOWN);
    cr_assert_leq(victim_stats(&v).garbled, sizeof sieges / sizeof sieges[0], "once for each");
    victim_close(&v);
}

/* ---- loans that never come back ---- */

Test(shm, who_never_returns_what_it_was_lent_gets_copies)
{
    struct spk_shm_record record;
    struct shm_peer p = {.fd = -1};
    struct victim v;
    int lent = 0, copied = 0;

    open_victim(&v);
    meet(&p);
    raw_put32(p.memory, 0x80000001u);
    for (int i = 0; i < 40; i++) { /* of 200 kB: twice of what may be lent */
        put_loan(&p, 0, 0, 200000);
        shm_peer_publish(&p);
        cr_assert_eq(shm_peer_next(&p, &record, END_MS), 0);
        lent += record.kind == SPK_SHM_LOAN;
        if (record.kind == SPK_SHM_BEGIN) {
            uint64_t left;
            memcpy(&left, record.data, sizeof left);
            for (copied++; left > 0; left -= record.size) {
                atomic_store(&p.mine->head, p.head);
                shm_peer_ring(&p);
                cr_assert_eq(shm_peer_next(&p, &record, END_MS), 0);
                cr_assert_eq(record.kind, SPK_SHM_PIECE);
            }
        }
        atomic_store(&p.mine->head, p.head);
        victim_check(&v);
    }
    cr_assert_geq(lent, 20);
    cr_assert_leq(lent, 22, "%d", lent);
    cr_assert_eq(lent + copied, 40);
    shm_peer_close(&p);
    victim_close(&v);
}

/* ---- ends ---- */

static int
note_reason(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    (void)s;
    if (event->type == SPOKE_EVENT_DETACHED)
        atomic_store((atomic_int *)ctx, event->reason);
    return 0;
}

/* The end of its bell tells of a death, or, where somebody else was given that too, the end of its
 * stream. */
Test(shm, a_peer_that_goes_is_missed)
{
    static atomic_int reason;
    struct shm_peer p = {.fd = -1};
    struct victim v;

    open_victim(&v);
    cr_assert_eq(spoke_socket_on_event(v.rep, note_reason, &reason), 0);
    for (int i = 0; i < 3;
         i++) { /* between messages; in the middle of one; with the bell elsewhere */
        int kept = -1;

        meet(&p);
        ask(&p);
        if (i == 2)
            cr_assert_geq(kept = dup(p.their_bell), 0);
        if (i == 1)
            begin(&p, 1000);
        shm_peer_publish(&p);
        for (int ms = 0; ms < END_MS && atomic_load(&p.theirs->head) != p.tail; ms++)
            usleep(1000);
        atomic_store(&reason, 0);
        shm_peer_close(&p);
        for (int ms = 0; ms < END_MS && atomic_load(&reason) == 0; ms++)
            usleep(1000);
        cr_assert_eq(atomic_load(&reason), i != 1 ? SPOKE_EOF : SPOKE_ECONNRESET, "%s",
                     spoke_error_name(atomic_load(&reason)));
        if (kept >= 0)
            close(kept);
        victim_check(&v);
    }
    victim_close(&v);
}

/* ---- offers ---- */

static int
memory(unsigned flags, size_t size, int seals)
{
    int fd = memfd_create("wrong", MFD_CLOEXEC | flags);

    if (fd < 0)
        return -1;
    cr_assert_eq(ftruncate(fd, (off_t)size), 0);
    if (seals != 0)
        cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

struct offer {
    struct shm_packet packet;
    size_t size;
    int fds[8], count, made;
};

static void
wrong_magic(struct offer *o)
{
    o->packet.magic++;
}

static void
wrong_version(struct offer *o)
{
    o->packet.version = 99;
}

static void
wrong_kind(struct offer *o)
{
    o->packet.kind = 3;
}

static void
ready_first(struct offer *o)
{
    o->packet.kind = SHM_PEER_READY;
}

static void
packet_short(struct offer *o)
{
    o->size--;
}

static void
no_descriptors(struct offer *o)
{
    o->count = 0;
}

static void
too_few_descriptors(struct offer *o)
{
    o->count = 1;
}

static void
too_many_descriptors(struct offer *o)
{
    for (; o->count < 8; o->count++)
        o->fds[o->count] = o->fds[0];
}

static void
segment_not_there(struct offer *o)
{
    o->count = 2;
}

static void
ring_no_power_of_two(struct offer *o)
{
    o->packet.offer.ring_size += 8;
}

static void
ring_of_nothing(struct offer *o)
{
    o->packet.offer.ring_size = 0;
}

static void
ring_larger_than_it_is(struct offer *o)
{
    o->packet.offer.ring_size *= 2;
}

static void
ring_huge(struct offer *o)
{
    o->packet.offer.ring_size = (uint32_t)1 << 31;
}

static void
half_unsealed(struct offer *o)
{
    o->fds[0] = o->made = memory(MFD_ALLOW_SEALING, SPK_SHM_HALF(RING), 0);
}

static void
half_is_a_bell(struct offer *o)
{
    o->fds[0] = o->fds[1];
}

static void
bell_is_a_file(struct offer *o)
{
    o->fds[1] = o->fds[0];
}

static void
bell_is_an_event(struct offer *o)
{
    o->fds[1] = o->made = eventfd(0, EFD_CLOEXEC);
}

static void
segment_unsealed(struct offer *o)
{
    o->fds[2] = o->made = memory(MFD_ALLOW_SEALING, SEGMENT, 0);
}

static void
segment_larger_than_said(struct offer *o)
{
    o->packet.offer.segment_size = SEGMENT / 2;
}

/* Its pages may not be there when they are read: SIGBUS. */
static void
segment_of_huge_pages(struct offer *o)
{
    int fd = memory(MFD_HUGETLB | MFD_ALLOW_SEALING, (size_t)64 << 20, F_SEAL_SHRINK);

    if (fd < 0)
        fd = memory(MFD_ALLOW_SEALING, SEGMENT, 0); /* no such pages here: another wrong one */
    o->fds[2] = o->made = fd;
    o->packet.offer.segment_size = (size_t)64 << 20;
}

static const struct {
    char name[32];
    void (*fn)(struct offer *o);
} offers[] = {
#define OFFER_OF(Function)                                                                         \
    {                                                                                              \
#Function, Function                                                                        \
    }
    OFFER_OF(wrong_magic),
    OFFER_OF(wrong_version),
    OFFER_OF(wrong_kind),
    OFFER_OF(ready_first),
    OFFER_OF(packet_short),
    OFFER_OF(no_descriptors),
    OFFER_OF(too_few_descriptors),
    OFFER_OF(too_many_descriptors),
    OFFER_OF(segment_not_there),
    OFFER_OF(ring_no_power_of_two),
    OFFER_OF(ring_of_nothing),
    OFFER_OF(ring_larger_than_it_is),
    OFFER_OF(ring_huge),
    OFFER_OF(half_unsealed),
    OFFER_OF(half_is_a_bell),
    OFFER_OF(bell_is_a_file),
    OFFER_OF(bell_is_an_event),
    OFFER_OF(segment_unsealed),
    OFFER_OF(segment_larger_than_said),
    OFFER_OF(segment_of_huge_pages),
};

Test(shm, an_offer_that_is_wrong_is_refused)
{
    struct shm_peer p = {.fd = -1};
    struct victim v;

    open_victim(&v);
    for (size_t i = 0; i < sizeof offers / sizeof offers[0]; i++) {
        struct offer o = {.size = sizeof o.packet, .made = -1};

        p.idle = NULL;
        cr_assert_eq(shm_peer_make(&p, RING, SEGMENT), 0);
        cr_assert_eq(shm_peer_meet(&p, path, SPOKE_REQ), 0);
        o.count = shm_peer_offer(&p, &o.packet, o.fds);
        offers[i].fn(&o);
        cr_assert_eq(shm_peer_say(&p, &o.packet, o.size, o.fds, o.count), 0);
        cr_assert(shm_peer_ended(&p, END_MS), "%s: it is taken", offers[i].name);
        if (o.made >= 0)
            close(o.made);
        shm_peer_close(&p);
        victim_check(&v);
    }
    victim_close(&v);
}

static void
drive(void *engine)
{
    (void)spoke_engine_poll(engine, 0);
}

/* A half that could only be mapped in part, of a connection that is being closed for another reason
 * already: both are there when the engine looks, in either order. */
Test(shm, a_wrong_offer_and_a_broken_stream_come_together)
{
    char url[ENDPOINT_MAX];
    spoke_engine *e;
    spoke_socket *rep;

    setenv("SPOKE_UPGRADE", "now", 1);
    endpoint_fresh(url, IPC);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&rep, SPOKE_REP, e), 0);
    cr_assert_eq(spoke_listen(rep, url, NULL, 0), 0);
    for (int i = 0; i < 20; i++) {
        struct shm_peer p = {.idle = NULL};
        struct shm_packet packet;
        int fds[SPK_SHM_FDS];

        cr_assert_eq(shm_peer_make(&p, RING, SEGMENT), 0);
        p.idle = drive;
        p.idle_ctx = e;
        cr_assert_eq(shm_peer_meet(&p, endpoint_path(url), SPOKE_REQ), 0);
        cr_assert_eq(shm_peer_offer(&p, &packet, fds), 3);
        fds[2] = p.bell;
        if (i % 2 == 0)
            cr_assert_eq(shm_peer_say(&p, &packet, sizeof packet, fds, 3), 0);
        cr_assert_eq(send(p.fd, "\xff", 1, MSG_NOSIGNAL), 1);
        if (i % 2 == 1)
            cr_assert_eq(shm_peer_say(&p, &packet, sizeof packet, fds, 3), 0);
        cr_assert(shm_peer_ended(&p, END_MS));
        shm_peer_close(&p);
    }
    cr_assert_eq(spoke_engine_close(e), 0);
}

/* What comes with the greeting may be anything. */
Test(shm, a_side_channel_that_is_none_is_let_go_of)
{
    const uint8_t hello[8] = {0, 'S', 'P', 0, 0, SPOKE_REQ, 0, 0};
    struct victim v;
    int ends[2];

    open_victim(&v);
    cr_assert_eq(pipe(ends), 0);
    const int odd[] = {open("/dev/null", O_RDWR | O_CLOEXEC),
                       open(path, O_PATH | O_CLOEXEC),
                       open("/proc/self/exe", O_RDONLY | O_CLOEXEC),
                       eventfd(1, EFD_CLOEXEC),
                       ends[0],
                       ends[1],
                       socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
                       socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};

    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        struct shm_peer p = {.fd = -1};
        uint8_t theirs[8];
        p.idle = NULL;
        cr_assert_geq(odd[i], 0);
        cr_assert_eq(shm_peer_make(&p, RING, 0), 0);
        p.side = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); /* shm_peer_say() writes there */
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        memcpy(address.sun_path, path, strlen(path));
        cr_assert_eq(connect(p.side, (struct sockaddr *)&address, sizeof address), 0);
        cr_assert_eq(shm_peer_say(&p, hello, sizeof hello, &odd[i], 1), 0);
        cr_assert_eq(recv(p.side, theirs, sizeof theirs, MSG_WAITALL), 8);
        p.fd = p.side;
        p.side = -1;
        cr_assert(shm_peer_ended(&p, END_MS), "%zu", i);
        shm_peer_close(&p);
        victim_check(&v);
    }
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++)
        close(odd[i]);
    victim_close(&v);
}
