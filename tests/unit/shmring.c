/* SPDX-License-Identifier: MIT */
/* The ring of records: what goes in comes out, up to the last byte of room and past 2^64; and an
 * other end that writes nonsense is found out, and never makes us touch a byte outside of the ring:
 * the pages around it cannot be read. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime/core/shmring.h"
#include "runtime/memory/shared.h"
#include "tests/support/random.h"
#include "tests/support/test.h"

#define SIZE    ((uint32_t)16 * 1024)
#define LARGEST (SIZE / 4)

static uint64_t seed = 0x2545f4914f6cdd1d;

struct ends {
    struct spk_shm_half writer, reader;
    uint8_t *ring;
    struct spk_shm_writer w;
    struct spk_shm_reader r;
};

/* Positions begin at `start`. */
static struct ends *
open_ring(uint32_t size, uint64_t start)
{
    struct ends *e = aligned_alloc(128, sizeof *e);
    uint8_t *pages = mmap(NULL, SIZE + 2 * SPK_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert_not_null(e);
    cr_assert_neq(pages, MAP_FAILED);
    cr_assert_eq(mprotect(pages + SPK_PAGE, SIZE, PROT_READ | PROT_WRITE), 0);
    memset(e, 0, sizeof *e);
    e->ring = pages + SPK_PAGE + (SIZE - size); /* its end is the page's */
    atomic_init(&e->writer.tail, start);
    atomic_init(&e->reader.head, start);
    e->w = (struct spk_shm_writer){.mine = &e->writer,
                                   .theirs = &e->reader,
                                   .ring = e->ring,
                                   .size = size,
                                   .at = start,
                                   .seen_head = start,
                                   .exists = size};
    e->r = (struct spk_shm_reader){.mine = &e->reader,
                                   .theirs = &e->writer,
                                   .ring = e->ring,
                                   .size = size,
                                   .at = start,
                                   .seen_tail = start};
    return e;
}

static void
close_ring(struct ends *e)
{
    uint8_t *ring = e->ring + e->w.size - SIZE;

    cr_assert_eq(munmap(ring - SPK_PAGE, SIZE + 2 * SPK_PAGE), 0);
    free(e);
}

static struct ends *
open_any(void)
{
    return open_ring(SIZE, 0);
}

static uint8_t
byte_of(uint64_t record, uint32_t i)
{
    return (uint8_t)(record * 31 + i);
}

static bool
write_record(struct ends *e, uint64_t number, uint32_t size)
{
    uint8_t *room = spk_shm_reserve(&e->w, size);

    if (room == NULL)
        return false;
    cr_assert_geq(room, e->ring);
    cr_assert_leq(room + size, e->ring + e->w.size);
    for (uint32_t i = 0; i < size; i++)
        room[i] = byte_of(number, i);
    spk_shm_commit(&e->w, 1 + (uint32_t)(number % 4), size);
    return true;
}

static void
expect_record(struct ends *e, uint64_t number, uint32_t size)
{
    struct spk_shm_record record;

    cr_assert_eq(spk_shm_next(&e->r, &record), 1);
    cr_assert_eq(record.kind, 1 + number % 4);
    cr_assert_eq(record.size, size);
    for (uint32_t i = 0; i < size; i++)
        if (record.data[i] != byte_of(number, i))
            cr_assert_fail("byte %u of record %lu", i, (unsigned long)number);
    spk_shm_take(&e->r, &record);
}

static void
expect_nothing(struct ends *e)
{
    struct spk_shm_record record;

    cr_assert_eq(spk_shm_next(&e->r, &record), 0);
}

static uint64_t
whole(uint32_t size)
{
    return 8 + (((uint64_t)size + 7) & ~(uint64_t)7);
}

/* ---- records ---- */

Test(shmring, an_empty_ring_gives_nothing_and_all_its_room)
{
    struct ends *e = open_any();

    expect_nothing(e);
    cr_expect_not(spk_shm_has_record(&e->r));
    cr_expect_eq(spk_shm_room(&e->w), SIZE);
    cr_expect_eq(spk_shm_look(&e->w), 0);
    close_ring(e);
}

Test(shmring, a_record_is_seen_when_it_is_published_and_not_before)
{
    struct ends *e = open_any();

    cr_assert(write_record(e, 7, 100));
    cr_expect_not(spk_shm_has_record(&e->r));
    expect_nothing(e);
    spk_shm_publish(&e->w);
    cr_expect(spk_shm_has_record(&e->r));
    expect_record(e, 7, 100);
    expect_nothing(e);
    cr_expect_not(spk_shm_has_record(&e->r));
    close_ring(e);
}

Test(shmring, a_record_stays_until_it_is_taken)
{
    struct ends *e = open_any();
    struct spk_shm_record first, again;

    cr_assert(write_record(e, 1, 5));
    spk_shm_publish(&e->w);
    cr_assert_eq(spk_shm_next(&e->r, &first), 1);
    cr_assert_eq(spk_shm_next(&e->r, &again), 1);
    cr_expect_eq(first.data, again.data);
    cr_expect_eq(first.size, again.size);
    expect_record(e, 1, 5);
    close_ring(e);
}

Test(shmring, room_comes_back_when_it_is_released_and_looked_for)
{
    struct ends *e = open_any();

    cr_assert(write_record(e, 1, 100));
    spk_shm_publish(&e->w);
    expect_record(e, 1, 100);
    cr_assert_eq(spk_shm_look(&e->w), 0);
    cr_expect_eq(spk_shm_room(&e->w), SIZE - whole(100));
    spk_shm_release(&e->r);
    cr_expect_eq(spk_shm_room(&e->w), SIZE - whole(100));
    cr_assert_eq(spk_shm_look(&e->w), 0);
    cr_expect_eq(spk_shm_room(&e->w), SIZE);
    close_ring(e);
}

Test(shmring, every_size_up_to_a_quarter_of_the_ring_fits_into_an_empty_one)
{
    struct ends *e = open_any();

    for (uint32_t size = 0; size <= LARGEST; size++) { /* wherever the ring stands just then */
        cr_assert(write_record(e, size, size), "%u bytes", size);
        spk_shm_publish(&e->w);
        expect_record(e, size, size);
        spk_shm_release(&e->r);
        cr_assert_eq(spk_shm_look(&e->w), 0);
    }
    close_ring(e);
}

Test(shmring, it_is_filled_to_the_last_byte)
{
    static const uint32_t sizes[] = {0, 8, 56, 504, LARGEST - 8};

    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        struct ends *e = open_any();
        uint64_t fit = SIZE / whole(sizes[k]), i;

        for (i = 0; i < fit; i++)
            cr_assert(write_record(e, i, sizes[k]));
        cr_expect_eq(spk_shm_room(&e->w), 0);
        cr_expect_not(write_record(e, i, 0));
        cr_expect_eq(spk_shm_look(&e->w), 0);
        cr_expect_not(write_record(e, i, 0));
        spk_shm_publish(&e->w);
        for (i = 0; i < fit; i++)
            expect_record(e, i, sizes[k]);
        expect_nothing(e);
        close_ring(e);
    }
}

/* What is left at the end is skipped, from the 8 bytes of a skip record on. */
Test(shmring, a_record_that_does_not_fit_before_the_end_begins_at_the_start)
{
    for (uint32_t left = 8; left <= 64; left += 8) {
        struct ends *e = open_ring(SIZE, SIZE - left);

        cr_assert(write_record(e, 1, left - 7)); /* one byte too many */
        spk_shm_publish(&e->w);
        cr_expect_eq(e->w.at, SIZE + whole(left - 7));
        expect_record(e, 1, left - 7);
        expect_nothing(e);
        spk_shm_release(&e->r);
        cr_assert_eq(spk_shm_look(&e->w), 0);
        cr_expect_eq(spk_shm_room(&e->w), SIZE);
        close_ring(e);
    }
}

Test(shmring, a_record_that_just_fits_before_the_end_is_not_moved)
{
    for (uint32_t left = 8; left <= 64; left += 8) {
        struct ends *e = open_ring(SIZE, SIZE - left);

        cr_assert(write_record(e, 1, left - 8));
        cr_expect_eq(e->w.at, SIZE);
        spk_shm_publish(&e->w);
        expect_record(e, 1, left - 8);
        close_ring(e);
    }
}

/* The skip has been written when the record finds no room behind it: there is nothing that must be
 * undone. */
Test(shmring, a_skip_without_its_record_is_harmless)
{
    struct ends *e = open_ring(SIZE, SIZE - 8);

    cr_assert_not_null(spk_shm_reserve(&e->w, 8));
    cr_expect_eq(e->w.at, SIZE);
    spk_shm_publish(&e->w);
    expect_nothing(e);
    cr_assert(write_record(e, 1, 16));
    spk_shm_publish(&e->w);
    expect_record(e, 1, 16);
    expect_nothing(e);
    close_ring(e);
}

Test(shmring, a_skip_needs_room_together_with_its_record)
{
    struct ends *e = open_ring(SIZE, 0);
    uint64_t filled = 0;

    while (filled < SIZE - 16) {
        cr_assert(write_record(e, filled, 8));
        filled += 16;
    }
    spk_shm_publish(&e->w);
    for (uint64_t i = 0; i < 32; i += 16)
        expect_record(e, i, 8);
    spk_shm_release(&e->r);
    cr_assert_eq(spk_shm_look(&e->w), 0);
    cr_expect_not(write_record(e, 1, 32)); /* 16 are skipped, 40 are too many for the 32 behind */
    cr_expect_eq(e->w.at, SIZE - 16);
    cr_expect(write_record(e, 1, 24));
    cr_expect_eq(e->w.at, SIZE + 32);
    close_ring(e);
}

Test(shmring, only_what_exists_of_it_is_written)
{
    struct ends *e = open_any();

    e->w.exists = 0;
    cr_expect_not(write_record(e, 1, 0));
    e->w.exists = 4096;
    cr_expect(write_record(e, 1, 2040));
    cr_expect(write_record(e, 2, 1000));
    cr_expect_not(
        write_record(e, 3, 1032)); /* 8 bytes too many: one more word may have to go there */
    cr_expect(write_record(e, 3, 1024));
    cr_expect_eq(e->w.at, 4088);
    cr_expect_not(write_record(e, 4, 0));
    e->w.exists = SIZE;
    cr_expect(write_record(e, 4, 0));
    close_ring(e);
}

Test(shmring, goes_on_at_its_start_before_its_end)
{
    struct ends *e = open_any();

    e->w.exists = 4096;
    cr_expect(write_record(e, 1, 2040));
    cr_expect(write_record(e, 2, 2024));
    cr_expect_eq(e->w.at, 4080);
    spk_shm_publish(&e->w);
    expect_record(e, 1, 2040);
    spk_shm_release(&e->r);
    cr_assert_eq(spk_shm_look(&e->w), 0);
    spk_shm_wrap(&e->w);
    cr_expect_eq(e->w.at, SIZE);
    cr_expect_not(write_record(e, 3, 2048)); /* the reader has made room for 2048 in all */
    cr_expect(write_record(e, 3, 2040));
    spk_shm_publish(&e->w);
    expect_record(e, 2, 2024);
    expect_record(e, 3, 2040);
    close_ring(e);
}

/* Against a queue of numbers and sizes; sizes are large, small and at the limits. */
static void
pass_random_records(uint32_t ring, uint64_t start, uint64_t bytes)
{
    enum { QUEUE = 4096 };
    static uint32_t sizes[QUEUE];
    struct ends *e = open_ring(ring, start);
    uint64_t written = 0, read = 0, passed = 0;

    while (passed < bytes) {
        for (uint64_t n = random_next(&seed) % 32; n > 0; n--) {
            uint64_t r = random_next(&seed);
            uint32_t size = (uint32_t)(r >> 8) % (r % 4 == 0 ? ring / 4 + 1 : 80);

            if (r % 64 == 1)
                size = ring / 4;
            if (!write_record(e, written, size) &&
                (spk_shm_look(&e->w) != 0 || !write_record(e, written, size)))
                break;
            sizes[written++ % QUEUE] = size;
            if (r % 3 == 0)
                spk_shm_publish(&e->w);
        }
        spk_shm_publish(&e->w);
        for (uint64_t n = random_next(&seed) % 32; n > 0 && read < written; n--) {
            passed += sizes[read % QUEUE];
            expect_record(e, read, sizes[read % QUEUE]);
            read++;
            if (n % 4 == 0)
                spk_shm_release(&e->r);
        }
        if (read == written)
            expect_nothing(e);
        spk_shm_release(&e->r);
    }
    cr_assert_eq(spk_shm_look(&e->w), 0);
    close_ring(e);
}

Test(shmring, random_records_come_out_as_they_went_in)
{
    pass_random_records(SIZE, 0, TEST_REPEATS((uint64_t)64 << 20));
}

Test(shmring, a_ring_of_64_bytes_works_as_well)
{
    pass_random_records(64, 0, TEST_REPEATS((uint64_t)4 << 20));
}

Test(shmring, positions_go_on_at_0_after_the_last_one)
{
    for (uint64_t before = 8; before <= 4096; before = before * 3 / 2 & ~(uint64_t)7) {
        pass_random_records(64, -before, 20000);
        pass_random_records(SIZE, -before, 200000);
        if (before == 8)
            before = 16;
    }
}

/* ---- a writer that lies ---- */

static void
put_word(struct ends *e, uint64_t at, uint32_t kind, uint32_t size)
{
    uint64_t word = (uint64_t)kind << 32 | size;

    memcpy(e->ring + (at & (e->w.size - 1)), &word, sizeof word);
}

static int
read_after_tail(struct ends *e, uint64_t tail)
{
    struct spk_shm_record record;

    atomic_store(&e->writer.tail, tail);
    return spk_shm_next(&e->r, &record);
}

Test(shmring, a_tail_ahead_by_more_than_the_ring_is_refused)
{
    static const uint64_t starts[] = {0, SIZE - 8, -(uint64_t)SIZE, -(uint64_t)8};

    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        struct ends *e = open_ring(SIZE, starts[i]);

        cr_expect_eq(read_after_tail(e, starts[i] + SIZE + 8), SPOKE_EPROTO);
        cr_expect_eq(read_after_tail(e, starts[i] + UINT64_MAX / 2 + 1), SPOKE_EPROTO);
        put_word(e, starts[i], SPK_SHM_MESSAGE, 0);
        cr_expect_eq(read_after_tail(e, starts[i] + SIZE), 1); /* as far as it may be */
        close_ring(e);
    }
}

Test(shmring, a_tail_that_goes_back_is_refused)
{
    struct ends *e = open_ring(SIZE, 64);

    cr_expect_eq(read_after_tail(e, 56), SPOKE_EPROTO);
    cr_expect_eq(read_after_tail(e, 0), SPOKE_EPROTO);
    close_ring(e);
}

/* Not while something is left that was seen: that was checked, and the new tail will be. */
Test(shmring, a_tail_that_goes_back_behind_what_was_seen_is_refused_when_that_is_read)
{
    struct ends *e = open_any();
    struct spk_shm_record record = {0};

    put_word(e, 0, SPK_SHM_MESSAGE, 0);
    put_word(e, 8, SPK_SHM_MESSAGE, 0);
    atomic_store(&e->writer.tail, 16);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(spk_shm_next(&e->r, &record), 1);
        spk_shm_take(&e->r, &record);
        atomic_store(&e->writer.tail, 8);
    }
    cr_expect_eq(spk_shm_next(&e->r, &record), SPOKE_EPROTO);
    close_ring(e);
}

Test(shmring, a_tail_that_is_no_multiple_of_8_is_refused)
{
    for (uint64_t tail = 9; tail < 16; tail++) {
        struct ends *e = open_any();

        put_word(e, 0, SPK_SHM_MESSAGE, 0);
        cr_expect_eq(read_after_tail(e, tail), SPOKE_EPROTO);
        close_ring(e);
    }
}

Test(shmring, a_record_longer_than_what_is_there_is_refused)
{
    static const uint32_t sizes[] = {
        9, 16, 17, SIZE, INT32_MAX, UINT32_MAX - 15, UINT32_MAX - 7, UINT32_MAX};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (uint32_t kind = SPK_SHM_SKIP; kind <= SPK_SHM_PIECE; kind++) {
            struct ends *e = open_any();

            put_word(e, 0, kind, sizes[i]);
            cr_expect_eq(read_after_tail(e, 16), SPOKE_EPROTO, "%u", sizes[i]);
            close_ring(e);
        }
}

Test(shmring, a_record_that_goes_past_the_end_of_the_ring_is_refused)
{
    for (uint32_t kind = SPK_SHM_SKIP; kind <= SPK_SHM_PIECE; kind++) {
        struct ends *e = open_ring(SIZE, SIZE - 16);

        put_word(e, SIZE - 16, kind, 9);
        cr_expect_eq(read_after_tail(e, SIZE + 64), SPOKE_EPROTO);
        put_word(e, SIZE - 16, kind, 8); /* just not; nor is what follows the skip */
        put_word(e, SIZE, SPK_SHM_MESSAGE, SIZE);
        cr_expect_eq(read_after_tail(e, SIZE + 64), kind == SPK_SHM_SKIP ? SPOKE_EPROTO : 1);
        close_ring(e);
    }
}

/* Else a writer could keep its reader busy with skips alone. */
Test(shmring, a_skip_that_does_not_end_with_the_ring_or_is_all_of_it_is_refused)
{
    struct ends *e = open_any();

    put_word(e, 0, SPK_SHM_SKIP, SIZE - 8);
    cr_expect_eq(read_after_tail(e, SIZE), SPOKE_EPROTO);
    close_ring(e);
    for (uint32_t left = 16; left <= 64; left += 8) {
        e = open_ring(SIZE, SIZE - left);
        put_word(e, SIZE - left, SPK_SHM_SKIP, left - 16);
        put_word(e, SIZE - 8, SPK_SHM_SKIP, 0);
        cr_expect_eq(read_after_tail(e, SIZE), SPOKE_EPROTO);
        close_ring(e);
    }
}

/* Whatever is there, in the words and as the tail: each record that is given lies in the ring, and
 * is read here to its last byte. */
static uint64_t
read_nonsense(struct ends *e)
{
    struct spk_shm_record record;
    uint64_t sum = 0;
    int n = 0;

    while (n++ < 4096 && spk_shm_next(&e->r, &record) == 1) {
        cr_assert_geq(record.data, e->ring + 8);
        cr_assert_leq(record.data, e->ring + e->r.size);
        cr_assert_leq(record.size, (size_t)(e->ring + e->r.size - record.data));
        for (uint32_t i = 0; i < record.size; i++)
            sum += record.data[i];
        spk_shm_take(&e->r, &record);
        cr_assert_leq(e->r.seen_tail - e->r.at, e->r.size);
        spk_shm_release(&e->r);
    }
    return sum;
}

static uint64_t
random_word(uint32_t size)
{
    uint64_t r = random_next(&seed);

    switch (r % 4) {
    case 0: return random_next(&seed);
    case 1: return (r >> 8 & 7) << 32 | (r >> 16) % 64;
    case 2: return (r >> 8 & 7) << 32 | (r >> 16) % size;
    default: return (r >> 8 & 7) << 32 | (uint32_t) - (r >> 16) % 64;
    }
}

Test(shmring, random_words_never_lead_outside_of_the_ring)
{
    static const uint32_t sizes[] = {64, 256, SIZE};
    uint64_t sum = 0;

    for (int round = 0; round < TEST_REPEATS(200000); round++) {
        uint32_t size = sizes[round % 64 == 0 ? 2 : round % 2];
        static struct ends *rings[3];
        struct ends **e = &rings[round % 64 == 0 ? 2 : round % 2];
        uint64_t start = random_next(&seed) & ~(uint64_t)7;

        if (*e == NULL)
            *e = open_ring(size, 0);
        if (round % 2 != 0)
            start = -(random_next(&seed) % size & ~(uint64_t)7);
        (*e)->r.at = (*e)->r.seen_tail = start;
        for (uint32_t i = 0; i < size; i += 8) {
            uint64_t word = random_word(size);

            memcpy((*e)->ring + i, &word, sizeof word);
        }
        for (int tails = 0; tails < 4; tails++) {
            uint64_t tail = (*e)->r.at + random_next(&seed) % (size + 16);

            atomic_store(&(*e)->writer.tail, tails == 3 ? random_next(&seed) : tail & ~(uint64_t)7);
            sum += read_nonsense(*e);
        }
    }
    cr_expect_gt(sum, 0);
}

/* ---- a reader that lies ---- */

static int
look_at(struct ends *e, uint64_t head)
{
    atomic_store(&e->reader.head, head);
    return spk_shm_look(&e->w);
}

Test(shmring, a_head_behind_what_was_read_or_ahead_of_what_was_written_is_refused)
{
    static const uint64_t starts[] = {64, -(uint64_t)8, -(uint64_t)64};

    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        struct ends *e = open_ring(SIZE, starts[i]);
        uint64_t middle = starts[i] + 16;

        cr_assert(write_record(e, 1, 8));
        cr_assert(write_record(e, 2, 8));
        cr_expect_eq(look_at(e, e->w.at + 1), SPOKE_EPROTO);
        cr_expect_eq(look_at(e, e->w.at + 8), SPOKE_EPROTO);
        cr_expect_eq(look_at(e, starts[i] - 8), SPOKE_EPROTO);
        cr_expect_eq(look_at(e, starts[i] + UINT64_MAX / 2), SPOKE_EPROTO);
        cr_expect_eq(look_at(e, starts[i]), 0);
        cr_expect_eq(look_at(e, middle), 0);
        cr_expect_eq(look_at(e, middle), 0);
        cr_expect_eq(look_at(e, middle - 8), SPOKE_EPROTO);
        cr_expect_eq(e->w.seen_head, middle); /* what was refused is not believed */
        cr_expect_eq(look_at(e, e->w.at), 0);
        cr_expect_eq(look_at(e, e->w.at + 8), SPOKE_EPROTO);
        cr_expect_eq(spk_shm_room(&e->w), SIZE);
        close_ring(e);
    }
}

/* A head that is no multiple of 8 is allowed, and harms its reader only. */
Test(shmring, random_heads_never_lead_outside_of_the_ring)
{
    static const uint32_t sizes[] = {64, SIZE};

    for (int k = 0; k < 2; k++) {
        struct ends *e = open_ring(sizes[k], -(uint64_t)4096);
        unsigned long refused = 0, filled = 0;

        for (int round = 0; round < TEST_REPEATS(1000000); round++) {
            uint64_t r = random_next(&seed), head = e->w.seen_head + r % (2 * sizes[k]);

            filled += !write_record(e, r, (uint32_t)(r >> 32) % (r % 64 == 0 ? sizes[k] / 4 : 24));
            cr_assert_leq(spk_shm_room(&e->w), sizes[k]);
            if (r % 4 == 0)
                refused += look_at(e, r % 8 == 0 ? r : head) != 0;
        }
        cr_expect_gt(refused, 0);
        cr_expect_gt(filled, 0);
        close_ring(e);
    }
}

/* ---- who is asleep ---- */

Test(shmring, a_bell_rings_once_for_a_sleep_and_only_for_what_is_wanted)
{
    struct ends *e = open_any();
    uint32_t rung = 0;

    cr_expect_not(spk_shm_must_ring(&e->reader, SPK_SHM_RECORDS, &rung));
    spk_shm_fall_asleep(&e->reader, SPK_SHM_RECORDS);
    cr_expect_not(spk_shm_must_ring(&e->reader, SPK_SHM_ROOM, &rung));
    cr_expect(spk_shm_must_ring(&e->reader, SPK_SHM_RECORDS, &rung));
    cr_expect_not(spk_shm_must_ring(&e->reader, SPK_SHM_RECORDS, &rung));
    spk_shm_fall_asleep(&e->reader, SPK_SHM_WANTS); /* without a wake-up in between */
    cr_expect(spk_shm_must_ring(&e->reader, SPK_SHM_ROOM, &rung));
    cr_expect_not(spk_shm_must_ring(&e->reader, SPK_SHM_RECORDS, &rung)); /* it wakes for both */
    spk_shm_fall_asleep(&e->reader, SPK_SHM_WANTS);
    spk_shm_wake_up(&e->reader); /* by itself */
    cr_expect_not(spk_shm_must_ring(&e->reader, SPK_SHM_WANTS, &rung));
    spk_shm_wake_up(&e->reader);
    spk_shm_fall_asleep(&e->reader, 0); /* for nothing: nothing wakes it */
    cr_expect_not(spk_shm_must_ring(&e->reader, SPK_SHM_WANTS, &rung));
    close_ring(e);
}

Test(shmring, sleeps_have_different_numbers_also_when_these_start_again)
{
    struct ends *e = open_any();
    uint32_t rung = 0, last = 0;

    atomic_store(&e->reader.asleep, UINT32_MAX - 40);
    for (int i = 0; i < 40; i++) {
        spk_shm_fall_asleep(&e->reader, 1 + (uint32_t)i % 3);
        uint32_t asleep = atomic_load(&e->reader.asleep);
        cr_expect_eq(asleep & SPK_SHM_WANTS, 1 + (uint32_t)i % 3);
        cr_expect_neq(asleep, last);
        cr_expect(spk_shm_must_ring(&e->reader, SPK_SHM_WANTS, &rung));
        last = asleep;
        if (i % 2 == 0)
            spk_shm_wake_up(&e->reader);
    }
    close_ring(e);
}

Test(shmring, whatever_the_other_end_says_of_its_sleep_it_is_rung_at_most_once_for_a_value)
{
    struct ends *e = open_any();
    uint32_t rung = 0;

    for (int i = 0; i < 10000; i++) {
        uint32_t asleep = (uint32_t)random_next(&seed);
        bool wants = (asleep & SPK_SHM_RECORDS) != 0 && asleep != rung;

        atomic_store(&e->reader.asleep, asleep);
        cr_expect_eq(spk_shm_must_ring(&e->reader, SPK_SHM_RECORDS, &rung), wants);
        cr_expect_not(spk_shm_must_ring(&e->reader, SPK_SHM_RECORDS, &rung));
    }
    close_ring(e);
}
