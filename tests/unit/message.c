/* SPDX-License-Identifier: MIT */
/* Messages: what every call of <spoke/message.h> promises, and what the protocols rely on.  Each
 * test ends with all memory given back. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/memory/message.h"
#include "runtime/memory/pool.h"
#include "tests/support/random.h"
#include "tests/support/test.h"

/* Bodies inline, in the smallest chunk, at the borders of classes, and beyond the largest class. */
static const size_t sizes[] = {0,    1,    31,   127,   128,   129,     160,     161,
                               1000, 1024, 4096, 65535, 65536, 1048576, 1310600, 3000000};
#define SIZES (sizeof sizes / sizeof sizes[0])

static void
expect_nothing_left(void)
{
    struct spoke_memory_stats stats;

    spoke_memory_stats(&stats);
    cr_expect_eq(stats.messages, 0);
    cr_expect_eq(stats.chunks, 0);
    cr_expect_eq(stats.chunk_bytes, 0);
}

TestSuite(message, .fini = expect_nothing_left);

static void
fill(uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

static bool
is_filled(const uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != (uint8_t)(seed + i * 7 + (i >> 8)))
            return false;
    return true;
}

static spoke_msg *
filled_message(size_t size, unsigned seed)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_new(&m, size), 0);
    fill(spoke_msg_body(m), size, seed);
    return m;
}

static void
expect_body(const spoke_msg *m, const char *text)
{
    cr_assert_eq(spoke_msg_size(m), strlen(text));
    cr_assert_arr_eq(spoke_msg_body(m), text, strlen(text));
}

static void
expect_header(const spoke_msg *m, const char *text)
{
    cr_assert_eq(spoke_msg_header_size(m), strlen(text));
    cr_assert_arr_eq(spoke_msg_header(m), text, strlen(text));
}

static spoke_msg *
text_message(const char *text)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_from(&m, text, strlen(text)), 0);
    return m;
}

/* ---- new, from, free ---- */

Test(message, new_gives_a_writable_body_of_the_size_and_an_empty_header)
{
    for (size_t i = 0; i < SIZES; i++) {
        spoke_msg *m = filled_message(sizes[i], (unsigned)i);
        cr_expect_eq(spoke_msg_size(m), sizes[i]);
        cr_expect_eq(spoke_msg_header_size(m), 0);
        cr_expect_eq(spoke_msg_pipe(m), 0);
        cr_expect_not(m->expires);
        cr_expect(spoke_msg_is_unique(m));
        cr_expect(is_filled(spoke_msg_body(m), sizes[i], (unsigned)i));
        spoke_msg_free(m);
    }
}

Test(message, from_copies_the_bytes)
{
    uint8_t *bytes = malloc(sizes[SIZES - 1]);

    cr_assert_not_null(bytes);
    for (size_t i = 0; i < SIZES; i++) {
        spoke_msg *m;
        fill(bytes, sizes[i], 1);
        cr_assert_eq(spoke_msg_from(&m, bytes, sizes[i]), 0);
        fill(bytes, sizes[i], 2);
        cr_expect_eq(spoke_msg_size(m), sizes[i]);
        cr_expect(is_filled(spoke_msg_body(m), sizes[i], 1));
        spoke_msg_free(m);
    }
    free(bytes);
}

Test(message, from_takes_no_bytes_from_nowhere_only)
{
    spoke_msg *m;

    cr_expect_eq(spoke_msg_from(&m, NULL, 1), SPOKE_EINVAL);
    cr_expect_null(m);
    cr_assert_eq(spoke_msg_from(&m, NULL, 0), 0);
    cr_expect_eq(spoke_msg_size(m), 0);
    spoke_msg_free(m);
}

Test(message, bodies_above_the_limit_are_refused)
{
    spoke_msg *m;

    cr_expect_eq(spoke_msg_new(&m, SPOKE_MSG_MAX + 1), SPOKE_EMSGSIZE);
    cr_expect_null(m);
    cr_expect_eq(spoke_msg_new(&m, SIZE_MAX), SPOKE_EMSGSIZE);
    cr_expect_eq(spoke_msg_from(&m, "", SPOKE_MSG_MAX + 1), SPOKE_EMSGSIZE);
    cr_expect_eq(spoke_msg_wrap(&m, "", SPOKE_MSG_MAX + 1, NULL, NULL), SPOKE_EMSGSIZE);
    cr_expect_null(m);
}

Test(message, growth_above_the_limit_is_refused_and_changes_nothing)
{
    spoke_msg *m = text_message("abc");

    cr_expect_eq(spoke_msg_append(m, NULL, SPOKE_MSG_MAX - 2), SPOKE_EMSGSIZE);
    cr_expect_eq(spoke_msg_append(m, NULL, SIZE_MAX), SPOKE_EMSGSIZE);
    cr_expect_eq(spoke_msg_prepend(m, NULL, SPOKE_MSG_MAX - 2), SPOKE_EMSGSIZE);
    cr_expect_eq(spoke_msg_prepend(m, NULL, SIZE_MAX), SPOKE_EMSGSIZE);
    cr_expect_eq(spk_msg_reserve(m, SPOKE_MSG_MAX + 1), SPOKE_EMSGSIZE);
    expect_body(m, "abc");
    spoke_msg_free(m);
}

Test(message, free_of_nothing_does_nothing)
{
    spoke_msg_free(NULL);
}

/* ---- wrap ---- */

struct done_record {
    int calls;
    void *data;
    size_t size;
};

static void
record_done(void *data, size_t size, void *ctx)
{
    struct done_record *record = ctx;

    record->calls++;
    record->data = data;
    record->size = size;
}

Test(message, wrap_uses_the_callers_memory_and_gives_it_back_once)
{
    char bytes[] = "wrapped";
    struct done_record record = {0};
    spoke_msg *m, *other;

    cr_assert_eq(spoke_msg_wrap(&m, bytes, 7, record_done, &record), 0);
    cr_expect_eq(spoke_msg_body(m), (void *)bytes);
    other = spoke_msg_dup(m);
    cr_assert_eq(spk_msg_clone(&m, other), 0);
    spoke_msg_free(other);
    spoke_msg_free(other);
    cr_expect_eq(record.calls, 0, "the clone still shows the bytes");
    cr_assert_eq(spoke_msg_trim_front(m, 2), 0);
    spoke_msg_free(m);
    cr_expect_eq(record.calls, 1);
    cr_expect_eq(record.data, (void *)bytes);
    cr_expect_eq(record.size, 7);
}

Test(message, wrap_of_nothing_still_says_done)
{
    struct done_record record = {.data = &record};
    spoke_msg *m;

    cr_expect_eq(spoke_msg_wrap(&m, NULL, 1, record_done, &record), SPOKE_EINVAL);
    cr_expect_null(m);
    cr_assert_eq(spoke_msg_wrap(&m, NULL, 0, record_done, &record), 0);
    cr_expect_eq(spoke_msg_trim_front(m, 0), 0);
    cr_expect_eq(spoke_msg_prepend(m, "", 0), 0);
    cr_expect_eq(spoke_msg_size(m), 0);
    spoke_msg_free(m);
    cr_expect_eq(record.calls, 1);
    cr_expect_null(record.data);
}

Test(message, wrap_needs_no_done)
{
    char bytes[] = "still mine";
    spoke_msg *m;

    cr_assert_eq(spoke_msg_wrap(&m, bytes, sizeof bytes, NULL, NULL), 0);
    spoke_msg_free(m);
    cr_expect_str_eq(bytes, "still mine");
}

Test(message, wrapped_memory_is_done_when_the_body_moves_away)
{
    char bytes[] = "body";
    struct done_record record = {0};
    spoke_msg *m;

    cr_assert_eq(spoke_msg_wrap(&m, bytes, 4, record_done, &record), 0);
    cr_assert_eq(spoke_msg_append(m, " and more", 9), 0);
    cr_expect_eq(record.calls, 1);
    expect_body(m, "body and more");
    spoke_msg_free(m);
    cr_expect_eq(record.calls, 1);
}

Test(message, a_failed_wrap_leaves_the_memory_to_the_caller)
{
    char bytes[] = "mine";
    struct done_record record = {0};
    spoke_msg *m;

    for (uint64_t n = 1; n <= 2; n++) {
        spk_memory_fail_after(n);
        cr_expect_eq(spoke_msg_wrap(&m, bytes, 4, record_done, &record), SPOKE_ENOMEM);
        cr_expect_null(m);
        expect_nothing_left();
    }
    cr_expect_eq(record.calls, 0);
}

/* ---- references ---- */

Test(message, dup_shares_and_refuses_changes_until_made_unique)
{
    static const size_t both[] = {10, 1000};

    for (int i = 0; i < 2; i++) {
        spoke_msg *m = filled_message(both[i], 3), *same = spoke_msg_dup(m);
        cr_assert_eq(same, m);
        cr_expect_not(spoke_msg_is_unique(m));
        cr_expect_eq(spoke_msg_append(m, "x", 1), SPOKE_ESHARED);
        cr_expect_eq(spoke_msg_prepend(m, "x", 1), SPOKE_ESHARED);
        cr_expect_eq(spoke_msg_trim_front(m, 1), SPOKE_ESHARED);
        cr_expect_eq(spoke_msg_trim_back(m, 1), SPOKE_ESHARED);
        cr_expect_eq(spoke_msg_header_append(m, "x", 1), SPOKE_ESHARED);
        cr_expect_eq(spoke_msg_header_prepend(m, "x", 1), SPOKE_ESHARED);
        cr_expect_eq(spoke_msg_header_trim_front(m, 0), SPOKE_ESHARED);
        cr_expect_eq(spoke_msg_header_trim_back(m, 0), SPOKE_ESHARED);
        cr_expect_eq(spk_msg_reserve(m, 1), SPOKE_ESHARED);
        cr_expect_eq(spk_msg_pull(m, 4), SPOKE_ESHARED);
        cr_expect(is_filled(spoke_msg_body(same), both[i], 3));

        cr_assert_eq(spoke_msg_make_unique(&m), 0);
        cr_expect_neq(m, same);
        cr_expect(spoke_msg_is_unique(m));
        cr_expect(spoke_msg_is_unique(same));
        fill(spoke_msg_body(m), both[i], 4);
        cr_expect(is_filled(spoke_msg_body(same), both[i], 3));
        spoke_msg_free(m);
        spoke_msg_free(same);
    }
}

Test(message, make_unique_copies_header_pipe_and_expiry)
{
    spoke_msg *m = text_message("body"), *copy = m;
    uint8_t words[SPOKE_HEADER_MAX];

    fill(words, sizeof words, 9);
    cr_assert_eq(spoke_msg_header_append(m, words, sizeof words), 0);
    m->pipe = 7;
    m->expires = true;
    m->expires_ns = 8;
    spoke_msg_dup(m);
    cr_assert_eq(spoke_msg_make_unique(&copy), 0);
    cr_expect_neq(copy, m);
    cr_expect_eq(spoke_msg_pipe(copy), 7);
    cr_expect(copy->expires);
    cr_expect_eq(copy->expires_ns, 8);
    cr_expect_eq(spoke_msg_header_size(copy), sizeof words);
    cr_expect_arr_eq(spoke_msg_header(copy), words, sizeof words);
    expect_body(copy, "body");
    spoke_msg_free(copy);
    spoke_msg_free(m);
}

Test(message, make_unique_of_a_unique_message_does_nothing)
{
    spoke_msg *m = filled_message(1000, 5), *before = m;
    void *body = spoke_msg_body(m);

    cr_assert_eq(spoke_msg_make_unique(&m), 0);
    cr_expect_eq(m, before);
    cr_expect_eq(spoke_msg_body(m), body);
    spoke_msg_free(m);
}

Test(message, a_failed_make_unique_leaves_the_message)
{
    spoke_msg *m = filled_message(1000, 5), *same = spoke_msg_dup(m);
    uint8_t words[100] = {0};

    spoke_msg_free(same);
    cr_assert_eq(spoke_msg_header_append(m, words, sizeof words), 0);
    same = spoke_msg_dup(m);
    for (uint64_t n = 1; n <= 3; n++) { /* the chunk, the message, the long header */
        spk_memory_fail_after(n);
        cr_expect_eq(spoke_msg_make_unique(&m), SPOKE_ENOMEM, "allocation %d", (int)n);
        cr_expect_eq(m, same);
    }
    spk_memory_fail_after(4);
    cr_expect_eq(spoke_msg_make_unique(&m), 0);
    spk_memory_fail_after(0);
    cr_expect_neq(m, same);
    spoke_msg_free(m);
    spoke_msg_free(same);
}

/* ---- changing the body ---- */

Test(message, append_and_prepend_keep_order)
{
    spoke_msg *m = text_message("middle");

    cr_assert_eq(spoke_msg_append(m, " end", 4), 0);
    cr_assert_eq(spoke_msg_prepend(m, "start ", 6), 0);
    expect_body(m, "start middle end");
    spoke_msg_free(m);
}

Test(message, short_appends_and_prepends_leave_the_bytes_where_they_are)
{
    for (size_t i = 0; i < SIZES; i++) {
        spoke_msg *m = filled_message(sizes[i], 1);
        uint8_t *body = spoke_msg_body(m);
        cr_assert_eq(spoke_msg_append(m, NULL, 32), 0);
        cr_expect_eq((uint8_t *)spoke_msg_body(m), body, "%zu", sizes[i]);
        if (sizes[i] > SPK_BODY_INLINE) { /* a small body makes room in front once it is needed */
            cr_assert_eq(spoke_msg_prepend(m, "12345678", 8), 0);
            cr_expect_eq((uint8_t *)spoke_msg_body(m) + 8, body, "%zu", sizes[i]);
        }
        spoke_msg_free(m);
    }
}

Test(message, a_small_body_moves_once_for_a_series_of_short_prepends)
{
    spoke_msg *m = filled_message(64, 1);

    cr_assert_eq(spoke_msg_prepend(m, "12345678", 8), 0);
    uint8_t *body = spoke_msg_body(m);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(spoke_msg_prepend(m, "12345678", 8), 0);
    cr_expect_eq((uint8_t *)spoke_msg_body(m) + 24, body);
    spoke_msg_free(m);
}

/* Method: a plain array does the same, through every border between inline, chunk and large. */
Test(message, a_long_series_of_changes_agrees_with_a_plain_array)
{
    enum { ROOM = 1 << 17 };
    static uint8_t plain[2 * ROOM], data[512];
    uint64_t random = 12345;

    for (int run = 0; run < 40; run++) {
        spoke_msg *m = filled_message(0, 0), *other = NULL;
        size_t start = ROOM, size = 0;
        for (int step = 0; step < 400; step++) {
            uint64_t seed = random_next(&random);
            size_t n = (size_t)(seed >> 33) % sizeof data;
            fill(data, n, (unsigned)step);
            switch ((seed >> 50) % 6) {
            case 0:
            case 1:
                if (n > sizeof plain - start - size)
                    break;
                cr_assert_eq(spoke_msg_append(m, data, n), 0);
                memcpy(plain + start + size, data, n);
                size += n;
                break;
            case 2:
                if (n > start)
                    break;
                cr_assert_eq(spoke_msg_prepend(m, data, n), 0);
                start -= n;
                size += n;
                memcpy(plain + start, data, n);
                break;
            case 3:
                n = size < n ? size : n;
                cr_assert_eq(spoke_msg_trim_front(m, n), 0);
                start += n;
                size -= n;
                break;
            case 4:
                n = size < n ? size : n;
                cr_assert_eq(spoke_msg_trim_back(m, n), 0);
                size -= n;
                break;
            default: /* share the bytes, so that the next change must move them */
                spoke_msg_free(other);
                cr_assert_eq(spk_msg_clone(&other, m), 0);
            }
            if (start > ROOM + ROOM / 2 || start < ROOM / 2)
                break;
            cr_assert_eq(spoke_msg_size(m), size);
            cr_assert_arr_eq(spoke_msg_body(m), plain + start, size);
        }
        spoke_msg_free(other);
        spoke_msg_free(m);
    }
}

/* Goal: no quadratic cost.  A megabyte, byte by byte, must not move the body at every step. */
Test(message, appending_byte_by_byte_moves_the_body_rarely)
{
    spoke_msg *m = filled_message(0, 0);
    uint8_t *end = spoke_msg_body(m);
    unsigned moves = 0;

    for (int i = 0; i < 1 << 20; i++) {
        uint8_t byte = (uint8_t)i;
        cr_assert_eq(spoke_msg_append(m, &byte, 1), 0);
        moves += (uint8_t *)spoke_msg_body(m) + i != end;
        end = (uint8_t *)spoke_msg_body(m) + i + 1;
    }
    cr_expect_lt(moves, 60);
    cr_expect_eq(((uint8_t *)spoke_msg_body(m))[777777], (uint8_t)777777);
    spoke_msg_free(m);
}

Test(message, prepending_byte_by_byte_moves_the_body_rarely)
{
    spoke_msg *m = filled_message(0, 0);
    uint8_t *start = spoke_msg_body(m);
    unsigned moves = 0;

    for (int i = 0; i < 1 << 20; i++) {
        cr_assert_eq(spoke_msg_prepend(m, "x", 1), 0);
        moves += (uint8_t *)spoke_msg_body(m) + 1 != start;
        start = spoke_msg_body(m);
    }
    cr_expect_lt(moves, 60);
    spoke_msg_free(m);
}

Test(message, trims_of_more_than_there_is_are_refused)
{
    spoke_msg *m = text_message("abcd");

    cr_expect_eq(spoke_msg_trim_front(m, 5), SPOKE_EINVAL);
    cr_expect_eq(spoke_msg_trim_back(m, 5), SPOKE_EINVAL);
    cr_expect_eq(spoke_msg_trim_front(m, SIZE_MAX), SPOKE_EINVAL);
    expect_body(m, "abcd");
    cr_expect_eq(spoke_msg_trim_front(m, 1), 0);
    cr_expect_eq(spoke_msg_trim_back(m, 2), 0);
    expect_body(m, "b");
    cr_expect_eq(spoke_msg_trim_front(m, 1), 0);
    expect_body(m, "");
    spoke_msg_free(m);
}

Test(message, room_without_data_is_left_to_the_caller)
{
    spoke_msg *m = text_message("b");

    cr_assert_eq(spoke_msg_append(m, NULL, 1000), 0);
    cr_assert_eq(spoke_msg_prepend(m, NULL, 1000), 0);
    cr_expect_eq(spoke_msg_size(m), 2001);
    fill(spoke_msg_body(m), 2001, 6);
    cr_expect(is_filled(spoke_msg_body(m), 2001, 6));
    spoke_msg_free(m);
}

Test(message, a_failed_growth_leaves_the_message)
{
    spoke_msg *m = text_message("short");

    spk_memory_fail_after(1);
    cr_expect_eq(spoke_msg_append(m, NULL, 1000), SPOKE_ENOMEM);
    spk_memory_fail_after(1);
    cr_expect_eq(spoke_msg_prepend(m, NULL, 1000), SPOKE_ENOMEM);
    spk_memory_fail_after(1);
    cr_expect_eq(spk_msg_reserve(m, 1000), SPOKE_ENOMEM);
    expect_body(m, "short");
    spoke_msg_free(m);
}

Test(message, reserve_lets_the_body_grow_in_place)
{
    for (size_t i = 0; i < SIZES; i++) {
        spoke_msg *m = text_message("0123456789");
        cr_assert_eq(spk_msg_reserve(m, sizes[i]), 0);
        uint8_t *body = m->body;
        expect_body(m, "0123456789");
        if (sizes[i] > 10) {
            cr_assert_eq(spoke_msg_append(m, NULL, sizes[i] - 10), 0);
            cr_expect_eq(m->body, body, "%zu", sizes[i]);
            fill(m->body, sizes[i], 1);
        }
        spoke_msg_free(m);
    }
}

/* Goal: a body that arrives in 1 KiB pieces is not copied once a piece. */
Test(message, reserving_piece_by_piece_moves_the_body_rarely)
{
    spoke_msg *m = filled_message(0, 0);
    const uint8_t *body = m->body;
    unsigned moves = 0;

    for (size_t size = 1024; size <= 1 << 22; size += 1024) {
        cr_assert_eq(spk_msg_reserve(m, size), 0);
        moves += m->body != body;
        body = m->body;
        cr_assert_eq(spoke_msg_append(m, NULL, 1024), 0);
        cr_assert_eq(m->body, body);
    }
    cr_expect_lt(moves, 40);
    spoke_msg_free(m);
}

/* ---- slices and clones ---- */

Test(message, slices_share_a_chunk_and_changes_do_not_leak_into_the_neighbour)
{
    struct spk_chunk *chunk = spk_chunk_new(1000);
    spoke_msg *left, *right;

    cr_assert_not_null(chunk);
    memcpy(chunk->data, "leftright", 9);
    cr_assert_eq(spk_msg_slice(&left, spk_chunk_ref(chunk), chunk->data, 4), 0);
    cr_assert_eq(spk_msg_slice(&right, chunk, chunk->data + 4, 5), 0);
    cr_expect_not(spoke_msg_is_unique(left));
    cr_assert_eq(spoke_msg_trim_back(left, 1), 0);
    cr_assert_eq(spoke_msg_append(left, "TTT", 3), 0);
    cr_assert_eq(spoke_msg_append(right, "!", 1), 0);
    cr_assert_eq(spoke_msg_prepend(right, "b", 1), 0);
    expect_body(left, "lefTTT");
    expect_body(right, "bright!");
    cr_expect(spoke_msg_is_unique(left));
    cr_expect(spoke_msg_is_unique(right));
    spoke_msg_free(left);
    spoke_msg_free(right);
}

Test(message, make_unique_of_a_slice_keeps_the_message_and_moves_the_bytes)
{
    struct spk_chunk *chunk = spk_chunk_new(1000);
    spoke_msg *m, *before;

    cr_assert_not_null(chunk);
    fill(chunk->data, 1000, 1);
    cr_assert_eq(spk_msg_slice(&m, spk_chunk_ref(chunk), chunk->data, 500), 0);
    before = m;
    cr_assert_eq(spoke_msg_make_unique(&m), 0);
    cr_expect_eq(m, before);
    cr_expect(spoke_msg_is_unique(m));
    fill(chunk->data, 1000, 2);
    cr_expect(is_filled(spoke_msg_body(m), 500, 1));
    spk_chunk_unref(chunk);
    spoke_msg_free(m);
}

Test(message, a_failed_slice_leaves_the_chunk_to_the_caller)
{
    struct spk_chunk *chunk = spk_chunk_new(10);
    spoke_msg *m;

    cr_assert_not_null(chunk);
    spk_memory_fail_after(1);
    cr_expect_eq(spk_msg_slice(&m, chunk, chunk->data, 10), SPOKE_ENOMEM);
    cr_expect_null(m);
    cr_expect_eq(spk_msg_slice(&m, chunk, chunk->data, SPOKE_MSG_MAX + 1), SPOKE_EMSGSIZE);
    cr_expect(spk_chunk_alone(chunk));
    spk_chunk_unref(chunk);
}

Test(message, a_clone_has_the_bytes_but_a_header_of_its_own)
{
    for (size_t i = 0; i < SIZES; i++) {
        spoke_msg *m = filled_message(sizes[i], 1), *clone;
        cr_assert_eq(spoke_msg_header_append(m, "head", 4), 0);
        m->pipe = 3;
        cr_assert_eq(spk_msg_clone(&clone, m), 0);
        cr_assert_eq(spoke_msg_header_trim_front(m, 2), 0);
        cr_assert_eq(spoke_msg_trim_back(m, sizes[i]), 0);
        expect_header(clone, "head");
        cr_expect_eq(spoke_msg_pipe(clone), 3);
        cr_expect_eq(spoke_msg_size(clone), sizes[i]);
        cr_expect(is_filled(spoke_msg_body(clone), sizes[i], 1));
        cr_expect_eq(spoke_msg_body(clone) == spoke_msg_body(m), sizes[i] > SPK_BODY_INLINE);
        spoke_msg_free(m);
        cr_expect(spoke_msg_is_unique(clone));
        spoke_msg_free(clone);
    }
}

Test(message, a_clone_of_a_prepended_inline_body_is_whole)
{
    spoke_msg *m = filled_message(128, 1), *clone;

    cr_assert_eq(spoke_msg_prepend(m, "0123456789abcdef0123456789ABCDEF", 32), 0);
    cr_assert_eq(spk_msg_clone(&clone, m), 0);
    cr_expect_eq(spoke_msg_size(clone), 160);
    cr_expect_arr_eq(spoke_msg_body(clone), spoke_msg_body(m), 160);
    spoke_msg_free(m);
    spoke_msg_free(clone);
}

Test(message, a_failed_clone_leaves_nothing)
{
    uint8_t words[100] = {0};
    spoke_msg *m = filled_message(1000, 1), *clone;

    cr_assert_eq(spoke_msg_header_append(m, words, sizeof words), 0);
    for (uint64_t n = 1; n <= 2; n++) {
        spk_memory_fail_after(n);
        cr_expect_eq(spk_msg_clone(&clone, m), SPOKE_ENOMEM);
        cr_expect_null(clone);
    }
    cr_expect(spoke_msg_is_unique(m));
    spoke_msg_free(m);
}

/* ---- the header ---- */

Test(message, the_header_grows_and_shrinks_at_both_ends)
{
    spoke_msg *m = text_message("body");

    cr_assert_eq(spoke_msg_header_append(m, "cd", 2), 0);
    cr_assert_eq(spoke_msg_header_prepend(m, "ab", 2), 0);
    cr_assert_eq(spoke_msg_header_append(m, "ef", 2), 0);
    expect_header(m, "abcdef");
    cr_assert_eq(spoke_msg_header_trim_front(m, 1), 0);
    cr_assert_eq(spoke_msg_header_trim_back(m, 1), 0);
    expect_header(m, "bcde");
    cr_expect_eq(spoke_msg_header_trim_front(m, 5), SPOKE_EINVAL);
    cr_expect_eq(spoke_msg_header_trim_back(m, 5), SPOKE_EINVAL);
    expect_header(m, "bcde");
    expect_body(m, "body");
    spoke_msg_free(m);
}

Test(message, a_header_may_be_as_long_as_the_longest_backtrace_and_no_longer)
{
    spoke_msg *m = text_message("body");
    uint8_t words[SPOKE_HEADER_MAX], word[4];

    for (size_t at = SPOKE_HEADER_MAX; at > 0; at -= 4) {
        fill(word, 4, (unsigned)at);
        cr_assert_eq(spoke_msg_header_prepend(m, word, 4), 0);
        memcpy(words + at - 4, word, 4);
    }
    cr_expect_eq(spoke_msg_header_size(m), SPOKE_HEADER_MAX);
    cr_expect_arr_eq(spoke_msg_header(m), words, sizeof words);
    cr_expect_eq(spoke_msg_header_append(m, "x", 1), SPOKE_EMSGSIZE);
    cr_expect_eq(spoke_msg_header_prepend(m, "x", 1), SPOKE_EMSGSIZE);
    cr_expect_eq(spoke_msg_header_append(m, "x", SIZE_MAX), SPOKE_EMSGSIZE);
    cr_expect_eq(spoke_msg_header_size(m), SPOKE_HEADER_MAX);
    spk_msg_clear_header(m);
    cr_expect_eq(spoke_msg_header_size(m), 0);
    cr_assert_eq(spoke_msg_header_append(m, "again", 5), 0);
    expect_header(m, "again");
    spoke_msg_free(m);
}

Test(message, a_failed_header_growth_leaves_the_header)
{
    spoke_msg *m = text_message("");
    uint8_t words[SPK_HEADER_INLINE];

    fill(words, sizeof words, 1);
    cr_assert_eq(spoke_msg_header_append(m, words, sizeof words), 0);
    spk_memory_fail_after(1);
    cr_expect_eq(spoke_msg_header_append(m, "x", 1), SPOKE_ENOMEM);
    spk_memory_fail_after(1);
    cr_expect_eq(spoke_msg_header_prepend(m, "x", 1), SPOKE_ENOMEM);
    cr_expect_eq(spoke_msg_header_size(m), sizeof words);
    cr_expect_arr_eq(spoke_msg_header(m), words, sizeof words);
    spoke_msg_free(m);
}

/* ---- pull and flatten ---- */

Test(message, pull_moves_words_from_the_body_and_only_as_far_as_asked)
{
    spoke_msg *m = text_message("11112222body");

    cr_assert_eq(spk_msg_pull(m, 4), 0);
    expect_header(m, "1111");
    expect_body(m, "2222body");
    cr_assert_eq(spk_msg_pull(m, 4), 0);
    expect_header(m, "1111");
    cr_assert_eq(spk_msg_pull(m, 8), 0);
    expect_header(m, "11112222");
    expect_body(m, "body");
    cr_expect_eq(spk_msg_pull(m, 13), SPOKE_EPROTO);
    cr_expect_eq(spk_msg_pull(m, SPOKE_HEADER_MAX + 4), SPOKE_EMSGSIZE);
    expect_header(m, "11112222");
    expect_body(m, "body");
    cr_assert_eq(spk_msg_pull(m, 12), 0);
    expect_body(m, "");
    spoke_msg_free(m);
}

Test(message, pull_reads_a_shared_chunk_without_copying_the_body)
{
    struct spk_chunk *chunk = spk_chunk_new(1000);
    spoke_msg *m;

    cr_assert_not_null(chunk);
    fill(chunk->data, 1000, 1);
    cr_assert_eq(spk_msg_slice(&m, spk_chunk_ref(chunk), chunk->data, 1000), 0);
    cr_assert_eq(spk_msg_pull(m, 500), 0);
    cr_expect_eq(m->body, chunk->data + 500);
    cr_expect(is_filled(spoke_msg_header(m), 500, 1));
    spoke_msg_free(m);
    spk_chunk_unref(chunk);
}

Test(message, a_pull_without_memory_changes_nothing)
{
    spoke_msg *m = filled_message(1000, 1);

    spk_memory_fail_after(1);
    cr_expect_eq(spk_msg_pull(m, 100), SPOKE_ENOMEM);
    cr_expect_eq(spoke_msg_header_size(m), 0);
    cr_expect_eq(spoke_msg_size(m), 1000);
    spoke_msg_free(m);
}

Test(message, flatten_undoes_pull_in_place)
{
    for (size_t i = 0; i < SIZES; i++) {
        size_t pulled = sizes[i] < 60 ? sizes[i] : 60;
        spoke_msg *m = filled_message(sizes[i], 1);
        const uint8_t *body = m->body;
        cr_assert_eq(spk_msg_pull(m, pulled), 0);
        cr_assert_eq(spk_msg_flatten(m), 0);
        cr_expect_eq(m->body, body);
        cr_expect_eq(spoke_msg_header_size(m), 0);
        cr_expect_eq(spoke_msg_size(m), sizes[i]);
        cr_expect(is_filled(spoke_msg_body(m), sizes[i], 1));
        spoke_msg_free(m);
    }
}

Test(message, flatten_copies_the_body_when_its_bytes_are_shared)
{
    struct spk_chunk *chunk = spk_chunk_new(1000);
    spoke_msg *m;

    cr_assert_not_null(chunk);
    fill(chunk->data, 1000, 1);
    cr_assert_eq(spk_msg_slice(&m, spk_chunk_ref(chunk), chunk->data, 1000), 0);
    cr_assert_eq(spk_msg_pull(m, 8), 0);
    cr_assert_eq(spoke_msg_header_trim_front(m, 4), 0);
    spk_memory_fail_after(1);
    cr_expect_eq(spk_msg_flatten(m), SPOKE_ENOMEM);
    cr_expect_eq(spoke_msg_header_size(m), 4);
    cr_assert_eq(spk_msg_flatten(m), 0);
    cr_expect_eq(spoke_msg_header_size(m), 0);
    cr_expect_eq(spoke_msg_size(m), 996);
    cr_expect_arr_eq(spoke_msg_body(m), chunk->data + 4, 996);
    cr_expect(is_filled(chunk->data, 1000, 1));
    spk_chunk_unref(chunk);
    spoke_msg_free(m);
}

Test(message, flatten_without_a_header_does_nothing_even_when_shared)
{
    spoke_msg *m = text_message("body");

    spoke_msg_dup(m);
    cr_expect_eq(spk_msg_flatten(m), 0);
    expect_body(m, "body");
    spoke_msg_free(m);
    spoke_msg_free(m);
}

/* ---- without memory, and over threads ---- */

Test(message, new_reports_every_failed_allocation_and_leaves_nothing)
{
    spoke_msg *m;

    for (size_t i = 0; i < SIZES; i++) {
        uint64_t n = 1;
        for (;; n++) {
            spk_memory_fail_after(n);
            int rc = spoke_msg_new(&m, sizes[i]);
            if (rc == 0)
                break;
            cr_assert_eq(rc, SPOKE_ENOMEM);
            cr_assert_null(m);
            expect_nothing_left();
        }
        spk_memory_fail_after(0);
        cr_expect_eq(n, sizes[i] > SPK_BODY_INLINE ? 3 : 2);
        spoke_msg_free(m);
    }
}

#define HOLDERS 4
#define SHARED  2000

static void *
let_go(void *messages)
{
    spoke_msg **m = messages;

    for (int i = 0; i < SHARED; i++) {
        spoke_msg *mine = m[i];
        if (spoke_msg_size(mine) != 200 || !is_filled(spoke_msg_body(mine), 200, (unsigned)i))
            return messages;
        if (i % 3 == 0 && spoke_msg_make_unique(&mine) != 0)
            return messages;
        if (i % 3 == 0)
            fill(spoke_msg_body(mine), 200, 99);
        spoke_msg_free(mine);
    }
    return NULL;
}

Test(message, many_are_made_and_freed_as_one_by_one)
{
    enum { MANY = 300 };
    uint8_t bytes[SPK_BODY_INLINE];
    struct iovec bodies[MANY];
    spoke_msg *messages[MANY], *kept;

    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7);
    for (unsigned i = 0; i < MANY; i++)
        bodies[i] = (struct iovec){bytes + i % 3, i % (sizeof bytes - 2)};
    cr_assert_eq(spk_msg_from_many(messages, bodies, MANY), MANY);
    for (unsigned i = 0; i < MANY; i++) {
        cr_assert_eq(spoke_msg_size(messages[i]), bodies[i].iov_len);
        cr_assert_eq(memcmp(spoke_msg_body(messages[i]), bodies[i].iov_base, bodies[i].iov_len), 0);
        cr_assert_eq(spoke_msg_header_size(messages[i]), 0);
    }
    spk_msg_free_many(messages, MANY);
    cr_assert_eq(spk_msg_new_many(messages, bodies, MANY), MANY);
    for (unsigned i = 0; i < MANY; i++) {
        cr_assert_eq(spoke_msg_size(messages[i]), bodies[i].iov_len);
        memset(spoke_msg_body(messages[i]), 'x', bodies[i].iov_len);
        cr_assert_eq(spoke_msg_header_size(messages[i]), 0);
    }
    kept = spoke_msg_dup(messages[5]);
    spoke_msg_free(messages[7]);
    cr_assert_eq(spoke_msg_new(&messages[7], 5000), 0);
    spk_msg_free_many(messages, MANY);
    cr_assert_eq(spoke_msg_size(kept), bodies[5].iov_len);
    spoke_msg_free(kept);
}

Test(message, of_many_those_are_made_that_there_is_memory_for)
{
    struct iovec bodies[400];
    spoke_msg *messages[400];
    int made;

    for (int i = 0; i < 400; i++)
        bodies[i] = (struct iovec){"x", 1};
    for (uint64_t n = 1; n < 4; n++) {
        spk_memory_fail_after(n);
        made = spk_msg_from_many(messages, bodies, 400);
        spk_memory_fail_after(0);
        cr_assert_eq(made, (int)n - 1);
        spk_msg_free_many(messages, made);
    }
}

Test(message, the_last_of_many_threads_frees)
{
    static spoke_msg *messages[SHARED];
    pthread_t threads[HOLDERS];

    for (int i = 0; i < SHARED; i++) {
        messages[i] = filled_message(200, (unsigned)i);
        for (int holder = 1; holder < HOLDERS; holder++)
            spoke_msg_dup(messages[i]);
    }
    for (int i = 0; i < HOLDERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, let_go, messages), 0);
    for (int i = 0; i < HOLDERS; i++) {
        void *failed;
        cr_assert_eq(pthread_join(threads[i], &failed), 0);
        cr_expect_null(failed);
    }
}

#ifdef SPOKE_DEBUG_CHECKS
/* Goal: a second free is caught where it happens.  Under a sanitizer that is the sanitizer's
 * report. */
#if !defined(SPOKE_SYSTEM_POOLS)
Test(message, a_double_free_aborts_where_checks_are_on, .signal = SIGABRT)
{
    spoke_msg *m = text_message("once"), *other = text_message("another");

    spoke_msg_free(m);
    spoke_msg_free(m);
    spoke_msg_free(other);
}
#endif
#endif
