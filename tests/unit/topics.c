/* SPDX-License-Identifier: MIT */
/* The set of subscriptions: against a list that is searched from end to end, with and without
 * memory; and what it costs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocols/sp/topics.h"
#include "runtime/memory/pool.h"
#include "tests/support/random.h"
#include "tests/support/test.h"

#include <spoke/error.h>

static int
add_text(struct spk_topics *t, const char *text)
{
    return spk_topics_add(t, text, strlen(text));
}

static int
remove_text(struct spk_topics *t, const char *text)
{
    return spk_topics_remove(t, text, strlen(text));
}

static bool
matches(const struct spk_topics *t, const char *text)
{
    return spk_topics_match(t, text, strlen(text));
}

Test(topics, nothing_matches_an_empty_set)
{
    struct spk_topics t = {.root = NULL};

    cr_expect_not(matches(&t, ""));
    cr_expect_not(matches(&t, "a"));
    cr_expect_eq(remove_text(&t, ""), SPOKE_ENOENT);
    cr_expect_eq(remove_text(&t, "a"), SPOKE_ENOENT);
}

Test(topics, the_empty_string_matches_everything)
{
    struct spk_topics t = {.root = NULL};

    cr_assert_eq(spk_topics_add(&t, NULL, 0), 0);
    cr_expect(matches(&t, ""));
    cr_expect(matches(&t, "anything"));
    cr_assert_eq(remove_text(&t, ""), 0);
    cr_expect_not(matches(&t, ""));
    cr_expect_null(t.root);
}

Test(topics, a_string_matches_what_begins_with_it)
{
    struct spk_topics t = {.root = NULL};

    cr_assert_eq(add_text(&t, "weather.london"), 0);
    cr_assert_eq(add_text(&t, "weather.lima"), 0);
    cr_assert_eq(add_text(&t, "we"), 0);
    cr_assert_eq(remove_text(&t, "we"), 0);
    cr_expect(matches(&t, "weather.london"));
    cr_expect(matches(&t, "weather.lima: dry"));
    cr_expect_not(matches(&t, "weather.l"));
    cr_expect_not(matches(&t, "weather.lisbon"));
    cr_expect_not(matches(&t, ""));
    cr_expect_eq(remove_text(&t, "weather.l"), SPOKE_ENOENT, "a fork is no string");
    cr_expect_eq(remove_text(&t, "weather.london."), SPOKE_ENOENT);
    spk_topics_fini(&t);
}

Test(topics, adding_again_has_no_effect)
{
    struct spk_topics t = {.root = NULL};

    cr_assert_eq(add_text(&t, "a"), 0);
    cr_assert_eq(add_text(&t, "a"), 0);
    cr_expect_eq(t.count, 1);
    cr_assert_eq(remove_text(&t, "a"), 0);
    cr_expect_not(matches(&t, "a"));
    cr_expect_eq(remove_text(&t, "a"), SPOKE_ENOENT);
}

/* ---- against a list ---- */

#define STRINGS 400
#define LONGEST 12

struct text {
    uint8_t bytes[LONGEST];
    size_t size;
    bool in;
};

/* Few letters, so that they have much in common. */
static void
draw(struct text *text, uint64_t *random, unsigned letters)
{
    text->size = random_below(random, LONGEST + 1);
    for (size_t i = 0; i < text->size; i++)
        text->bytes[i] = (uint8_t)(random_below(random, letters) * (256 / letters));
}

static bool
listed(const struct text *texts, const struct text *m)
{
    for (int i = 0; i < STRINGS; i++) {
        if (texts[i].in && texts[i].size <= m->size &&
            memcmp(texts[i].bytes, m->bytes, texts[i].size) == 0)
            return true;
    }
    return false;
}

/* The entry with the same bytes, which is the one that counts. */
static struct text *
same_as(struct text *texts, const struct text *text)
{
    for (int i = 0; i < STRINGS; i++) {
        if (texts[i].size == text->size && memcmp(texts[i].bytes, text->bytes, text->size) == 0)
            return &texts[i];
    }
    return NULL;
}

/* A set and a list go through the same; `shortage`: one allocation in so many fails, 0: none. */
static void
compare(uint64_t random, unsigned letters, unsigned shortage)
{
    static struct text texts[STRINGS];
    struct spk_topics t = {.root = NULL};
    int failures = 0;

    memset(texts, 0, sizeof texts);
    for (int i = 0; i < STRINGS; i++)
        draw(&texts[i], &random, letters);
    for (int step = 0; step < 20000; step++) {
        struct text *text = same_as(texts, &texts[random_below(&random, STRINGS)]), m;
        bool add = random_below(&random, 100) < (step / 2000 % 2 == 0 ? 80u : 20u);

        if (shortage > 0)
            spk_memory_fail_after(1 + random_below(&random, shortage));
        int rc = (add ? spk_topics_add : spk_topics_remove)(&t, text->bytes, text->size);
        spk_memory_fail_after(0);
        if (rc == SPOKE_ENOMEM) {
            cr_assert(add && shortage > 0);
            failures++;
        } else {
            cr_assert_eq(rc, add || text->in ? 0 : SPOKE_ENOENT, "%d", rc);
            text->in = add;
        }
        draw(&m, &random, letters);
        cr_assert_eq(spk_topics_match(&t, m.bytes, m.size), listed(texts, &m), "step %d", step);
    }
    cr_assert_eq(failures > 0, shortage > 0);
    for (int i = 0; i < STRINGS; i++) {
        if (texts[i].in && same_as(texts, &texts[i]) == &texts[i])
            cr_assert_eq(spk_topics_remove(&t, texts[i].bytes, texts[i].size), 0);
    }
    cr_expect_eq(t.count, 0);
    cr_expect_null(t.root);
}

Test(topics, agree_with_a_list_of_strings)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        compare(seed, 2, 0);
        compare(seed, 4, 0);
        compare(seed, 256, 0);
    }
}

Test(topics, agree_with_a_list_although_memory_is_short)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        compare(seed, 2, 4);
        compare(seed, 4, 8);
        compare(seed, 256, 4);
    }
}

/* ---- extremes ---- */

/* Each is a prefix of the next one: as deep as a tree can be. */
Test(topics, a_tree_may_be_as_deep_as_it_likes)
{
    enum { DEPTH = 100000 };
    struct spk_topics t = {.root = NULL};
    uint8_t *bytes = calloc(1, DEPTH);

    /* From the longest on, so that each goes into an edge at the top. */
    for (size_t size = DEPTH; size > 0; size--)
        if (size % 100 == 0 || size > DEPTH - 50 || size < 50)
            cr_assert_eq(spk_topics_add(&t, bytes, size), 0);
    cr_assert(spk_topics_match(&t, bytes, 1));
    cr_assert_eq(spk_topics_remove(&t, bytes, 1), 0);
    cr_assert_not(spk_topics_match(&t, bytes, 1));
    cr_assert(spk_topics_match(&t, bytes, 2));
    spk_topics_fini(&t);
    free(bytes);
}

/* ---- what it costs ---- */

static int
topic_text(char text[64], uint32_t i)
{
    return snprintf(text, 64, "%08x/temperature/%u", i * 2654435761u, i % 7);
}

Test(topics, a_hundred_thousand_are_told_apart)
{
    enum { MANY = 100000 };
    struct spk_topics t = {.root = NULL};
    char text[64];

    for (uint32_t i = 0; i < MANY; i++)
        cr_assert_eq(spk_topics_add(&t, text, (size_t)topic_text(text, i)), 0);
    cr_assert_eq(t.count, MANY);
    for (uint32_t i = 0; i < 2 * MANY; i++)
        cr_assert_eq(spk_topics_match(&t, text, (size_t)topic_text(text, i)), i < MANY);
    for (uint32_t i = 0; i < MANY; i++)
        cr_assert_eq(spk_topics_remove(&t, text, (size_t)topic_text(text, i)), 0);
    cr_assert_null(t.root);
}

/* Goal: the size of the tree is that of the strings in it.  Method: blocks, counted by letting the
 * allocator say how often it was asked. */
static uint64_t asked;

static bool
count_asked(void *ctx)
{
    (void)ctx;
    asked++;
    return false;
}

Test(topics, its_memory_is_bounded_by_its_strings)
{
    struct spk_topics t = {.root = NULL};
    char text[64];

    spk_memory_set_fault(count_asked, NULL);
    for (uint32_t i = 0; i < 10000; i++)
        cr_assert_eq(spk_topics_add(&t, text, (size_t)topic_text(text, i)), 0);
    cr_expect_lt(asked, 10000 * 4);
    asked = 0;
    for (int again = 0; again < 10; again++)
        for (uint32_t i = 0; i < 10000; i++)
            cr_assert_eq(spk_topics_add(&t, text, (size_t)topic_text(text, i)), 0);
    cr_expect_eq(asked, 0, "a storm of the same subscriptions needs no memory");
    spk_memory_set_fault(NULL, NULL);
    spk_topics_fini(&t);
}
