/* SPDX-License-Identifier: MIT */
/* Goal: the ring of records and its doorbell are right on any machine that keeps the promises of
 * C's memory model, not only on the one that runs the tests.
 * Method: the code of runtime/core/shmring itself, compiled here with each of its accesses to
 * shared memory as a step of a model, and what runtime/core/shm.c does around it.  One writer, one
 * reader, a ring of two to four places; every order of their steps is tried, and at each load every
 * value that the memory model lets it see.  Then the same with one thing wrong at a time, which
 * must be found.
 *
 * The memory.  Each word has one writer, so its values have one order; a thread has seen a word up
 * to some value, and a load gives this one or any later one.  All that a thread has seen is its
 * view.  A release store takes the view along, and an acquire load of that value adds it to the
 * reader's.  Fences that are seq_cst add their thread's view to a common one and take that.  The
 * ring's words are no atomics: to read one without having seen its last write, or to write one
 * without having seen its last read, is a race, which is found in whatever order the two come.
 * Loads of atomics that are delayed past a later store of their thread are not tried.
 *
 * A thread is a function of what it holds (struct local) and of the values that its loads gave; so
 * a step runs its round from the start, with the values known so far, to the next access. */
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/test.h"

/* ---- the code, in steps ---- */

static uint64_t model_load(const volatile void *at, memory_order order, const char *in);
static void model_store(const volatile void *at, uint64_t value, memory_order order,
                        const char *in);
static void model_fence(const char *in);
static void model_put(const void *at, uint64_t word);

/* Under other names, as the library has these. */
#define spk_shm_look        stepped_look
#define spk_shm_fall_asleep stepped_fall_asleep
#define spk_shm_wake_up     stepped_wake_up
#define spk_shm_must_ring   stepped_must_ring
#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_thread_fence
#undef memcpy
#define atomic_load_explicit(at, order)         model_load(at, order, __func__)
#define atomic_store_explicit(at, value, order) model_store(at, value, order, __func__)
#define atomic_thread_fence(order)              model_fence(__func__)
#define memcpy(to, from, size)                  model_put(to, *(from))

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion" /* all loads give 64 bits here */
#include "runtime/core/shmring.c"
#pragma GCC diagnostic pop

#undef memcpy

/* ---- what can be wrong ---- */

enum flaw_kind {
    NOTHING,
    NO_FENCE,      /* in that function */
    RELAXED,       /* are that function's accesses */
    SAME_NUMBER,   /* at each sleep */
    NO_LOOK_AGAIN, /* after saying that one sleeps */
    LOOK_FIRST,    /* and then say it */
    RING_FIRST,    /* and then publish or release */
    NO_RING,       /* when there is room */
    RING_TWICE,    /* for one sleep */
    RELEASE_FIRST, /* and then read */
    CLOSED_LATE    /* looked at after the ring, not before */
};

struct flaw {
    enum flaw_kind kind;
    const char *in;      /* function, or NULL */
    const char *outcome; /* how it shows */
};

static const char lost[] = "a wake-up is lost";
static const char twice[] = "the bell rings twice for one sleep";
static const char early_read[] = "a word is read before it is known to be there";
static const char early_write[] = "a word is written before it is known to have been read";
static const char garbled[] = "a record is not what was written";
static const char missing[] = "records are missing at the end";

/* ---- the model ---- */

enum { WRITER, READER, ENDS };
enum { TAIL, HEAD, WRITER_ASLEEP, READER_ASLEEP, CLOSED, ATOMICS };
static const int owners[] = {WRITER, READER, WRITER, READER, WRITER};
static const int asleep_of[] = {WRITER_ASLEEP, READER_ASLEEP};

#define WORDS  8  /* the largest ring */
#define STORES 40 /* to one word */
#define STEPS  64 /* of one round */
#define PATH   1024

/* Up to which value a thread has seen each word; of the ring's words up to which write, and which
 * of the reader's reads. */
struct view {
    uint8_t atomics[ATOMICS], ring[WORDS], reads;
};

struct local {
    struct spk_shm_writer w;
    struct spk_shm_reader r;
    uint32_t rung;
    uint8_t count; /* of records, so far */
    bool full, corked, done;
};

struct thread {
    struct view now;      /* what it has seen */
    struct view relaxed;  /* … what came with relaxed loads, for the next fence */
    struct view released; /* … before the last fence, which relaxed stores take along */
    struct local local;   /* at the start of this round */
    uint64_t results[STEPS];
    uint8_t places[STEPS]; /* that they are from; ATOMICS: from elsewhere */
    unsigned steps;        /* done in this round */
};

struct world {
    struct {
        uint64_t value;
        struct view view;
    } stores[ATOMICS][STORES];
    uint8_t count[ATOMICS];
    uint64_t ring[WORDS];
    uint8_t writes[WORDS], reads[WORDS];
    struct view fences;
    struct thread threads[ENDS];
    uint8_t bells[ENDS]; /* in the pipe of that end */
    uint32_t rung[ENDS]; /* the last value that end rang for */
};

static const struct run {
    unsigned ring;    /* bytes */
    uint64_t start;   /* of its positions */
    unsigned records; /* to pass */
    unsigned payload; /* of the first one and … */
    unsigned every;   /* … each so many behind it; the others have none */
    unsigned corked;  /* records that are announced together */
    unsigned taken;   /* records whose room is given back together */
} small = {32, 0, 4, 8, 1, 1, 1}, batched = {32, 0, 4, 8, 1, 3, 3},
  wrapping = {64, (uint64_t)-56, 6, 8, 2, 1,
              2}; /* past 2^64, and past the ring's end with a skip */

static struct {
    const struct run *run;
    struct flaw flaw;
    /* the step that is being done */
    struct world *w;
    struct thread *t;
    int me;
    struct local local;
    unsigned at, choice, choices;
    bool acted;
    jmp_buf stop;
    /* all of it */
    const char *failure;
    unsigned long states, ends;
    uint64_t *seen; /* hashes of states */
    size_t seen_size;
    unsigned depth;
    struct {
        int me;
        const char *in;
        uint64_t value;
    } path[PATH];
} m;

static struct spk_shm_half halves[ENDS];
static uint64_t ring[WORDS];

static void
join(struct view *to, const struct view *from)
{
    uint8_t *a = (uint8_t *)to;
    const uint8_t *b = (const uint8_t *)from;

    for (size_t i = 0; i < sizeof *to; i++)
        if (b[i] > a[i])
            a[i] = b[i];
}

static bool
is_flawed(enum flaw_kind kind, const char *in)
{
    return m.flaw.kind == kind && (m.flaw.in == NULL || strcmp(m.flaw.in, in) == 0);
}

static void
fail(const char *how)
{
    if (m.failure == NULL)
        m.failure = how;
}

/* ---- steps ---- */

/* Done in an earlier call? */
static bool
is_known(uint64_t *result)
{
    if (m.at == m.t->steps)
        return false;
    *result = m.t->results[m.at++];
    return true;
}

/* One step for each call of advance(): is it this one, or is it left to the next call? */
static void
begin_step(const char *in)
{
    if (m.acted)
        longjmp(m.stop, 1);
    m.acted = true;
    m.path[m.depth % PATH].in = in;
    m.path[m.depth % PATH].me = m.me;
}

static uint64_t
end_step(unsigned place, uint64_t result)
{
    if (m.t->steps == STEPS)
        abort();
    m.path[m.depth % PATH].value = result;
    m.t->places[m.t->steps] = (uint8_t)place;
    m.t->results[m.t->steps++] = result;
    m.at++;
    return result;
}

static unsigned
place_of(const volatile void *at)
{
    const volatile void *places[ATOMICS] = {&halves[WRITER].tail, &halves[READER].head,
                                            &halves[WRITER].asleep, &halves[READER].asleep,
                                            &halves[WRITER].closed};
    unsigned i = 0;

    while (i < ATOMICS && places[i] != at)
        i++;
    return i;
}

static unsigned
word_of_ring(const volatile void *at)
{
    size_t i = (size_t)((const volatile uint64_t *)at - ring);

    if (i >= WORDS)
        abort();
    return (unsigned)i;
}

/* The ring's words are no steps: where their order matters it is a race, and found as one. */
static uint64_t
read_word(unsigned i)
{
    struct view *now = &m.t->now;

    if (now->ring[i] != m.w->writes[i])
        fail(early_read);
    m.w->reads[i] = ++now->reads;
    return end_step(ATOMICS, m.w->ring[i]);
}

static void
model_put(const void *at, uint64_t word)
{
    unsigned i = word_of_ring(at);
    uint64_t known;

    if (is_known(&known))
        return;
    if (m.w->reads[i] > m.t->now.reads)
        fail(early_write);
    m.w->ring[i] = word;
    m.t->now.ring[i] = ++m.w->writes[i];
    end_step(ATOMICS, 0);
}

static uint64_t
model_load(const volatile void *at, memory_order order, const char *in)
{
    unsigned place = place_of(at), last, seen;
    uint64_t known;

    if (is_known(&known))
        return known;
    if (place == ATOMICS)
        return read_word(word_of_ring(at));
    last = m.w->count[place] - 1u;
    seen = m.t->now.atomics[place];
    if (owners[place] == m.me) /* nobody else can have changed it */
        return end_step(place, m.w->stores[place][last].value);
    begin_step(in);
    m.choices = last - seen + 1;
    m.t->now.atomics[place] = (uint8_t)(last - m.choice);
    bool acquires = order == memory_order_acquire && !is_flawed(RELAXED, in);
    join(acquires ? &m.t->now : &m.t->relaxed, &m.w->stores[place][last - m.choice].view);
    return end_step(place, m.w->stores[place][last - m.choice].value);
}

static void
model_store(const volatile void *at, uint64_t value, memory_order order, const char *in)
{
    unsigned place = place_of(at), i;
    uint64_t known;

    if (is_known(&known))
        return;
    begin_step(in);
    if (is_flawed(SAME_NUMBER, in))
        value &= SPK_SHM_WANTS;
    if ((i = m.w->count[place]++) == STORES)
        abort();
    m.t->now.atomics[place] = (uint8_t)i;
    bool releases = order == memory_order_release && !is_flawed(RELAXED, in);
    m.w->stores[place][i].view = releases ? m.t->now : m.t->released;
    m.w->stores[place][i].view.atomics[place] = (uint8_t)i;
    m.w->stores[place][i].value = value;
    end_step(place, value);
}

static void
model_fence(const char *in)
{
    uint64_t known;

    if (is_flawed(NO_FENCE, in) || is_known(&known))
        return;
    begin_step(in);
    join(&m.t->now, &m.t->relaxed);
    join(&m.t->now, &m.w->fences);
    m.w->fences = m.t->released = m.t->now;
    end_step(ATOMICS, 0);
}

/* A system call, of which nothing is expected for the order of other accesses. */
static void
ring_bell(uint32_t rung)
{
    uint64_t known;

    if (is_known(&known))
        return;
    begin_step("bell");
    if (m.w->rung[m.me] == rung)
        fail(twice);
    m.w->rung[m.me] = rung;
    m.w->bells[!m.me]++;
    end_step(ATOMICS, 0);
}

static void
wait_for_bell(void)
{
    uint64_t known;

    if (is_known(&known))
        return;
    begin_step("wait");
    m.choices = m.w->bells[m.me] > 0;
    if (m.choices == 0)
        longjmp(m.stop, 1);
    m.w->bells[m.me] = 0;
    end_step(ATOMICS, 0);
}

/* ---- the two ends, as in runtime/core/shm.c ---- */

static void
announce(struct local *l, uint32_t what)
{
    uint32_t rung = l->rung;

    if (!spk_shm_must_ring(&halves[!m.me], what, &l->rung))
        return;
    ring_bell(l->rung);
    if (is_flawed(RING_TWICE, ""))
        l->rung = rung;
}

static void
sleep_until(const struct local *l, uint32_t wants, bool (*came)(const struct local *l))
{
    const char *me = m.me == WRITER ? "writer" : "reader";
    bool late = is_flawed(NO_LOOK_AGAIN, me), early = is_flawed(LOOK_FIRST, me);

    if (early && came(l))
        return;
    spk_shm_fall_asleep(&halves[m.me], wants);
    if (late || early || !came(l))
        wait_for_bell();
    spk_shm_wake_up(&halves[m.me]);
}

static uint32_t
payload_of(unsigned record)
{
    return record % m.run->every == 0 ? m.run->payload : 0;
}

static bool
has_room(const struct local *l)
{
    uint64_t head = atomic_load_explicit(&l->w.theirs->head, memory_order_acquire);

    return l->w.size - (l->w.at - head) >= l->w.size / 2;
}

static bool
put(struct local *l)
{
    uint32_t payload = payload_of(l->count);
    uint8_t *room = spk_shm_reserve(&l->w, payload);

    if (room == NULL) {
        if (spk_shm_look(&l->w) != 0)
            fail("the writer finds fault with its reader");
        room = spk_shm_reserve(&l->w, payload);
    }
    if (room == NULL)
        return false;
    if (payload > 0)
        model_put(room, ~(uint64_t)l->count);
    spk_shm_commit(&l->w, 1 + l->count, payload);
    return true;
}

/* Publish, then look whether somebody has to be told. */
static void
publish(struct local *l, bool closes, bool announces)
{
    bool early = is_flawed(RING_FIRST, "publish");

    if (announces && early)
        announce(l, SPK_SHM_RECORDS);
    if (closes)
        atomic_store_explicit(&halves[WRITER].closed, 1, memory_order_release);
    else
        spk_shm_publish(&l->w);
    if (announces && !early)
        announce(l, SPK_SHM_RECORDS);
    l->corked = !announces;
}

static void
write_round(struct local *l)
{
    if (l->count == m.run->records) {
        publish(l, true, true);
        l->done = true;
    } else if ((!l->full || has_room(l)) && put(l)) {
        publish(l, false, ++l->count % m.run->corked == 0);
        l->full = false;
    } else {
        if (l->corked)
            announce(l, SPK_SHM_RECORDS);
        sleep_until(l, SPK_SHM_ROOM, has_room);
        l->corked = false;
        l->full = true;
    }
}

static bool
is_closed(void)
{
    return atomic_load_explicit(&halves[WRITER].closed, memory_order_acquire) != 0;
}

static bool
something_came(const struct local *l)
{
    return spk_shm_has_record(&l->r) || is_closed();
}

static void
take_record(struct local *l, const struct spk_shm_record *record)
{
    uint32_t payload = payload_of(l->count);

    if (is_flawed(RELEASE_FIRST, "")) {
        spk_shm_take(&l->r, record);
        spk_shm_release(&l->r);
    }
    if (record->kind != 1u + l->count || record->size != payload ||
        (payload > 0 && model_load(record->data, memory_order_relaxed, "") != ~(uint64_t)l->count))
        fail(garbled);
    if (!is_flawed(RELEASE_FIRST, ""))
        spk_shm_take(&l->r, record);
    l->count++;
}

static void
give_room_back(struct local *l)
{
    bool rings = !is_flawed(NO_RING, "") && l->r.seen_tail - l->r.at <= l->r.size / 2;

    if (rings && is_flawed(RING_FIRST, "release"))
        announce(l, SPK_SHM_ROOM);
    spk_shm_release(&l->r);
    if (rings && !is_flawed(RING_FIRST, "release"))
        announce(l, SPK_SHM_ROOM);
}

static void
read_round(struct local *l)
{
    struct spk_shm_record record;
    bool last = !is_flawed(CLOSED_LATE, "") && is_closed();
    unsigned n = 0;
    int rc = 1;

    while (n < m.run->taken && (rc = spk_shm_next(&l->r, &record)) == 1) {
        take_record(l, &record);
        n++;
    }
    if (rc < 0)
        fail("the reader finds fault with its writer");
    give_room_back(l);
    if (rc != 0)
        return;
    if (last || (is_flawed(CLOSED_LATE, "") && is_closed()))
        l->done = true;
    else
        sleep_until(l, SPK_SHM_RECORDS, something_came);
}

/* ---- all orders ---- */

/* Let one end do its next step, in one of the ways there are; returns how many there are, 0: it
 * cannot go on. */
static unsigned
advance(struct world *w, int me, unsigned choice)
{
    m.w = w;
    m.t = &w->threads[me];
    m.me = me;
    m.choice = choice;
    m.choices = 1;
    m.acted = false;
    if (setjmp(m.stop) != 0)
        return m.choices;
    while (!m.t->local.done && !m.acted) {
        m.at = 0;
        m.local = m.t->local;
        (me == WRITER ? write_round : read_round)(&m.local);
        m.t->local = m.local;
        m.t->steps = 0;
    }
    return m.acted ? m.choices : 0;
}

static uint64_t
mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15;
    return hash ^ hash >> 29;
}

/* A view for what it can still tell whoever has seen `known` of it. */
static uint64_t
mix_view(uint64_t hash, const struct world *w, const struct view *v, const struct view *known)
{
    struct view all = *known;

    join(&all, v);
    for (int i = 0; i < ATOMICS; i++)
        hash = mix(hash, (uint64_t)w->count[i] - all.atomics[i]);
    for (int i = 0; i < WORDS; i++)
        hash = mix(hash, all.ring[i]);
    return mix(hash, all.reads);
}

/* Of the number of a sleep it only counts how many have followed. */
static uint64_t
mix_value(uint64_t hash, const struct world *w, int place, uint64_t value)
{
    if (place != WRITER_ASLEEP && place != READER_ASLEEP)
        return mix(hash, value);
    uint64_t last = w->stores[place][w->count[place] - 1].value;

    return mix(hash, ((last - value) & ~(uint64_t)SPK_SHM_WANTS) | (value & SPK_SHM_WANTS));
}

/* Two states are the same if nobody can find a difference any more: values that have been
 * overwritten as far as all have seen are of no account, nor is how many there were. */
static uint64_t
hash_of(const struct world *w)
{
    const struct view *now[ENDS] = {&w->threads[WRITER].now, &w->threads[READER].now};
    struct view both = *now[WRITER];
    uint64_t hash = 4711;

    for (size_t i = 0; i < sizeof both; i++)
        if (((const uint8_t *)now[READER])[i] < ((uint8_t *)&both)[i])
            ((uint8_t *)&both)[i] = ((const uint8_t *)now[READER])[i];
    for (int i = 0; i < ATOMICS; i++)
        for (unsigned k = both.atomics[i]; k < w->count[i]; k++)
            hash = mix_view(mix_value(hash, w, i, w->stores[i][k].value), w, &w->stores[i][k].view,
                            now[!owners[i]]);
    for (int i = 0; i < WORDS; i++)
        hash = mix(hash, w->ring[i] ^ (uint64_t)w->writes[i] << 48 ^ (uint64_t)w->reads[i] << 56);
    hash = mix_view(hash, w, &w->fences, &both);
    for (int i = 0; i < ENDS; i++) {
        const struct thread *t = &w->threads[i];
        const struct local *l = &t->local;

        hash = mix_view(hash, w, &t->now, &t->now);
        hash = mix_view(hash, w, &t->relaxed, &t->now);
        hash = mix_view(hash, w, &t->released, now[!i]);
        hash = mix(mix(hash, l->w.at), l->w.seen_head);
        hash = mix(mix(hash, l->r.at), l->r.seen_tail);
        hash = mix(hash, (uint64_t)l->count << 3 | (uint64_t)l->corked << 2 |
                             (uint64_t)l->full << 1 | l->done);
        hash = mix_value(mix_value(hash, w, asleep_of[!i], l->rung), w, asleep_of[!i], w->rung[i]);
        hash = mix(mix(hash, w->bells[i]), t->steps);
        for (unsigned k = 0; k < t->steps; k++)
            hash = mix_value(hash, w, t->places[k], t->results[k]);
    }
    return hash != 0 ? hash : 1;
}

static void
grow_seen(void)
{
    uint64_t *old = m.seen;
    size_t size = m.seen_size;

    m.seen_size = size > 0 ? 2 * size : 1 << 16;
    m.seen = calloc(m.seen_size, sizeof *m.seen);
    cr_assert_not_null(m.seen);
    for (size_t i = 0; i < size; i++) {
        size_t at = old[i] & (m.seen_size - 1);

        while (m.seen[at] != 0 && old[i] != 0)
            at = (at + 1) & (m.seen_size - 1);
        if (old[i] != 0)
            m.seen[at] = old[i];
    }
    free(old);
}

static bool
is_new(const struct world *w)
{
    uint64_t hash = hash_of(w);
    size_t at;

    if (m.states >= m.seen_size / 2)
        grow_seen();
    for (at = hash & (m.seen_size - 1); m.seen[at] != 0; at = (at + 1) & (m.seen_size - 1))
        if (m.seen[at] == hash)
            return false;
    m.seen[at] = hash;
    m.states++;
    return true;
}

/* Nobody can do anything any more. */
static void
check_end(const struct world *w)
{
    m.ends++;
    if (!w->threads[WRITER].local.done || !w->threads[READER].local.done)
        fail(lost);
    else if (w->threads[READER].local.count != m.run->records)
        fail(missing);
}

static void
explore(const struct world *w)
{
    bool stuck = true;

    for (int me = 0; me < ENDS; me++) {
        unsigned choices = 1;

        for (unsigned choice = 0; choice < choices; choice++) {
            struct world next = *w;

            choices = advance(&next, me, choice);
            if (choices == 0)
                break;
            stuck = false;
            if (m.failure == NULL && is_new(&next)) {
                m.depth++;
                explore(&next);
                m.depth--;
            }
            if (m.failure != NULL)
                return;
        }
    }
    if (stuck)
        check_end(w);
}

/* How did it go?  NULL: well. */
static const char *
try_all(const struct run *run, struct flaw flaw)
{
    static struct world w;

    memset(&w, 0, sizeof w);
    memset(&m, 0, sizeof m);
    m.run = run;
    m.flaw = flaw;
    for (int i = 0; i < ATOMICS; i++)
        w.count[i] = 1;
    w.stores[TAIL][0].value = w.stores[HEAD][0].value = run->start;
    w.threads[WRITER].local.w = (struct spk_shm_writer){.mine = &halves[WRITER],
                                                        .theirs = &halves[READER],
                                                        .ring = (uint8_t *)ring,
                                                        .size = run->ring,
                                                        .exists = run->ring,
                                                        .at = run->start,
                                                        .seen_head = run->start};
    w.threads[READER].local.r = (struct spk_shm_reader){.mine = &halves[READER],
                                                        .theirs = &halves[WRITER],
                                                        .ring = (const uint8_t *)ring,
                                                        .size = run->ring,
                                                        .at = run->start,
                                                        .seen_tail = run->start};
    explore(&w);
    free(m.seen);
    return m.failure;
}

static void
print_path(void)
{
    for (unsigned i = 0; i <= m.depth && i < PATH; i++)
        fprintf(stderr, "%s %s: %llx\n", m.path[i].me == WRITER ? "writer" : "       reader",
                m.path[i].in, (unsigned long long)m.path[i].value);
}

static void
check_is_right(const struct run *whole, struct flaw flaw)
{
    struct run run = *whole;
    run.records -= SPOKE_TEST_SLOWDOWN > 1; /* one thread: a sanitizer learns little from more */
    const char *failure = try_all(&run, flaw);

    if (failure != NULL)
        print_path();
    cr_expect_null(failure, "%s", failure);
    cr_expect_gt(m.states, 1000);
    cr_expect_gt(m.ends, 0);
    cr_log_info("%u records through a ring of %u bytes: %lu states, %lu of them ends\n",
                run.records, run.ring, m.states, m.ends);
}

Test(shmmodel, wakes_whoever_sleeps_in_every_order)
{
    check_is_right(&small, (struct flaw){.kind = NOTHING});
}

Test(shmmodel, wakes_whoever_sleeps_when_room_comes_back_in_batches)
{
    check_is_right(&batched, (struct flaw){.kind = NOTHING});
}

Test(shmmodel, keeps_records_whole_where_the_ring_wraps)
{
    check_is_right(&wrapping, (struct flaw){.kind = NOTHING});
}

Test(shmmodel, finds_each_flaw)
{
    static const struct flaw flaws[] = {
        {NO_FENCE, "stepped_fall_asleep", lost},
        {NO_FENCE, "stepped_must_ring", lost},
        {NO_LOOK_AGAIN, "writer", lost},
        {NO_LOOK_AGAIN, "reader", lost},
        {LOOK_FIRST, "writer", lost},
        {LOOK_FIRST, "reader", lost},
        {RING_FIRST, "publish", lost},
        {RING_FIRST, "release", lost},
        {SAME_NUMBER, "stepped_fall_asleep", lost},
        {NO_RING, NULL, lost},
        {RING_TWICE, NULL, twice},
        {RELAXED, "spk_shm_publish", early_read},
        {RELAXED, "spk_shm_next", early_read},
        {RELAXED, "spk_shm_release", early_write},
        {RELAXED, "stepped_look", early_write},
        {RELEASE_FIRST, NULL, early_write},
        {RELAXED, "publish", missing},
        {RELAXED, "is_closed", missing},
        {CLOSED_LATE, NULL, missing},
    };

    for (size_t i = 0; i < sizeof flaws / sizeof flaws[0]; i++) {
        const char *failure = try_all(&batched, flaws[i]);

        cr_expect(failure == flaws[i].outcome, "flaw %zu (%s): %s", i,
                  flaws[i].in != NULL ? flaws[i].in : "-", failure != NULL ? failure : "nothing");
    }
}

/* docs/shared-memory.md says that these two may be weaker; then it is to be right. */
Test(shmmodel, who_only_asks_needs_no_acquire)
{
    check_is_right(&batched, (struct flaw){RELAXED, "spk_shm_has_record", NULL});
    check_is_right(&batched, (struct flaw){RELAXED, "has_room", NULL});
}
