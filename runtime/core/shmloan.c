/* SPDX-License-Identifier: MIT */
/* Message bodies that one process has and another one reads.
 *
 * Ours lie in the socket's segment, which is its home's; each that the other end may read has a
 * number, a loan, until it gives that back.  Theirs are messages whose body is the sender's memory,
 * read-only, and which go home when they are freed, on whatever thread.
 *
 * So a connection's memory may be needed when its pipe is gone: by those who hold a message of the
 * other end's here, or by the other end, which holds some of ours; that is what graves are for. */
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/shmend.h"

#define IDLE_NS SPOKE_SECOND
#define LENT_MOST                                                                                  \
    ((size_t)4 << 20) /* bytes that the other end has of ours; what is more is copied */
#define LENT_ALWAYS 4 /* loans, however large they are: the reader need not wait for the writer */

/* What the user has of the other end's. */
struct spk_shm_loan_in {
    struct spk_shm *shm;
};

/* What the other end has of ours. */
struct spk_shm_loans_out {
    struct spk_chunk *chunks[SPK_SHM_LOANS];
    uint32_t free[SPK_SHM_LOANS], free_count;
    uint32_t seen; /* returned, so far */
    size_t sizes[SPK_SHM_LOANS], bytes;
};

static _Atomic uint32_t *
returns_of(uint8_t *half)
{
    return (_Atomic uint32_t *)(void *)(half + SPK_SHM_RETURNS);
}

/* Away with the memory, by whoever is the last to need it; nothing of the engine's here. */
static void
unref(struct spk_shm *shm)
{
    if (atomic_fetch_sub_explicit(&shm->refs, 1, memory_order_acq_rel) != 1)
        return;
    spk_region_close(&shm->half);
    spk_view_close(&shm->their_half);
    spk_view_close(&shm->their_segment);
    if (shm->bell_out >= 0)
        close(shm->bell_out);
    if (shm->their_bell >= 0)
        close(shm->their_bell);
    spk_free(shm->in);
    spk_free(shm->out);
    pthread_mutex_destroy(&shm->lock);
    spk_free(shm);
}

/* ---- theirs ---- */

/* A loan that was lent to us has no reader any more.  Any thread. */
static void
on_loan_gone(void *data, size_t size, void *ctx)
{
    struct spk_shm_loan_in *in = ctx;
    struct spk_shm *shm = in->shm;
    uint32_t at;

    (void)data;
    (void)size;
    if (shm->fork_generation !=
        atomic_load_explicit(
            &spk_fork_generation,
            memory_order_relaxed)) /* in a child of fork(): it is still its parent's */
        return;
    pthread_mutex_lock(&shm->lock);
    at = atomic_load_explicit(&shm->w.mine->returned, memory_order_relaxed);
    atomic_store_explicit(&returns_of(shm->half.base)[at % SPK_SHM_LOANS], (uint32_t)(in - shm->in),
                          memory_order_relaxed);
    SPK_STOP_POINT(RETURN);
    /* Pairs with the acquire in spk_shm_take_back(): what was read of it was read before. */
    atomic_store_explicit(&shm->w.mine->returned, at + 1, memory_order_release);
    SPK_STOP_POINT(RETURNED);
    pthread_mutex_unlock(&shm->lock);
    unref(shm);
}

static bool
make_loans_in(struct spk_shm *shm)
{
    if (shm->in != NULL)
        return true;
    if ((shm->in = spk_zalloc(SPK_SHM_LOANS * sizeof *shm->in)) == NULL)
        return false;
    for (uint32_t i = 0; i < SPK_SHM_LOANS; i++)
        shm->in[i].shm = shm;
    return true;
}

spoke_msg *
spk_shm_borrow(struct spk_shm *shm, const struct spk_shm_record *record, int *rc)
{
    struct spk_shm_loan loan;
    size_t header_size = record->size - sizeof loan;
    struct spk_chunk *c;
    spoke_msg *m = NULL;

    *rc = SPOKE_EPROTO;
    if (record->size < sizeof loan || header_size > SPOKE_HEADER_MAX)
        return NULL;
    memcpy(&loan, record->data, sizeof loan);
    spk_shm_read_once();
    if (loan.number >= SPK_SHM_LOANS || shm->their_segment.base == NULL ||
        loan.offset > shm->their_segment.size || loan.size > shm->their_segment.size - loan.offset)
        return NULL;
    *rc = SPOKE_EMSGSIZE;
    if (!spk_pipe_length_is_fine(shm->pipe, header_size + loan.size))
        return NULL;
    *rc = SPOKE_ENOMEM;
    if (!make_loans_in(shm))
        return NULL;
    c = spk_chunk_wrap((void *)(uintptr_t)(shm->their_segment.base + loan.offset),
                       (size_t)loan.size, on_loan_gone, &shm->in[loan.number]);
    if (c == NULL)
        return NULL;
    c->read_only = true;
    atomic_fetch_add_explicit(&shm->refs, 1, memory_order_relaxed);
    if (spk_msg_slice(&m, c, c->data, (size_t)loan.size) != 0) {
        spk_chunk_unref(c);
        return NULL;
    }
    if (header_size > 0 &&
        spoke_msg_header_append(m, record->data + sizeof loan, header_size) != 0) {
        spoke_msg_free(m);
        return NULL;
    }
    return m;
}

/* ---- ours ---- */

int
spk_shm_take_back(struct spk_shm *shm)
{
    struct spk_shm_loans_out *out = shm->out;
    uint32_t returned = atomic_load_explicit(&shm->r.theirs->returned, memory_order_acquire);

    if (returned - out->seen > SPK_SHM_LOANS)
        return SPOKE_EPROTO;
    while (out->seen != returned) {
        uint32_t number = atomic_load_explicit(
            &returns_of((uint8_t *)(uintptr_t)shm->their_half.base)[out->seen % SPK_SHM_LOANS],
            memory_order_relaxed);

        if (number >= SPK_SHM_LOANS || out->chunks[number] == NULL)
            return SPOKE_EPROTO;
        spk_chunk_unref(out->chunks[number]);
        out->chunks[number] = NULL;
        out->bytes -= out->sizes[number];
        out->free[out->free_count++] = number;
        out->seen++;
    }
    return 0;
}

bool
spk_shm_may_lend(struct spk_shm *shm)
{
    if (shm->out == NULL) {
        if ((shm->out = spk_zalloc(sizeof *shm->out)) == NULL)
            return false;
        for (uint32_t i = 0; i < SPK_SHM_LOANS; i++)
            shm->out->free[i] = SPK_SHM_LOANS - 1 - i;
        shm->out->free_count = SPK_SHM_LOANS;
    }
    return shm->out->free_count > 0 &&
           (shm->out->bytes < LENT_MOST || shm->out->free_count > SPK_SHM_LOANS - LENT_ALWAYS);
}

/* ---- connections that are over ---- */

static bool
has_loans_out(const struct spk_shm *shm)
{
    return shm->out != NULL && shm->out->free_count < SPK_SHM_LOANS;
}

static void
drop_loans(struct spk_shm *shm)
{
    for (uint32_t i = 0; shm->out != NULL && i < SPK_SHM_LOANS; i++)
        if (shm->out->chunks[i] != NULL)
            spk_chunk_unref(shm->out->chunks[i]);
    spk_free(shm->out);
    shm->out = NULL;
}

/* The engine may have waited for it, and has to forget it before there is another descriptor of its
 * number. */
static void
close_bell(struct spk_shm *shm)
{
    if (shm->bell >= 0)
        shm->e->backend->close_handle(shm->e, shm->bell);
    shm->bell = -1;
}

/* Those whose other end has given everything back, or is gone, rest in peace. */
static void
reap(struct spk_shm_home *home, bool all)
{
    struct spk_link *link = home->graves.next, *next;

    for (; link != &home->graves; link = next) {
        struct spk_shm *shm = SPK_OWNER(link, struct spk_shm, link);
        struct pollfd fd = {.fd = shm->bell, .events = 0};

        next = link->next;
        if (!all && spk_shm_collect(shm) == 0 && has_loans_out(shm) && poll(&fd, 1, 0) == 0)
            continue;
        spk_list_remove(link);
        close_bell(shm);
        drop_loans(shm);
        unref(shm);
    }
}

void
spk_shm_bury(struct spk_shm *shm)
{
    spk_list_remove(&shm->link);
    spk_list_append(&shm->home->graves, &shm->link);
    reap(shm->home, false);
}

/* ---- a socket's home ---- */

static void
forget_copy(struct spk_shm_home *home)
{
    spk_list_remove(&home->flush.link);
    spoke_msg_free(home->copied);
    if (home->copy != NULL)
        spk_chunk_unref(home->copy);
    home->copied = NULL;
    home->copy = NULL;
}

static void
on_home_flush(struct spk_flush *flush)
{
    forget_copy(SPK_OWNER(flush, struct spk_shm_home, flush));
}

static void
look_later(struct spk_shm_home *home)
{
    home->seen = home->allocs;
    /* No memory for a timer: the pages stay. */
    (void)spk_timer_set(home->e, &home->timer, spk_later(spk_engine_now(home->e), IDLE_NS));
}

/* Nothing has been put into the segment for a while: pages that are not in use are the system's
 * again. */
static void
on_home_time(struct spk_timer *timer)
{
    struct spk_shm_home *home = SPK_OWNER(timer, struct spk_shm_home, timer);

    if (home->allocs != home->seen) {
        look_later(home);
        return;
    }
    SPK_LIST_EACH(link, &home->live)
    {
        struct spk_shm *shm = SPK_OWNER(link, struct spk_shm, link);

        if (spk_shm_collect(shm) != 0)
            spk_shm_broken(shm, SPOKE_EPROTO);
    }
    reap(home, false);
    spk_segment_trim(home->segment);
}

struct spk_shm_home *
spk_shm_home(struct spk_socket *s)
{
    struct spk_shm_home *home = s->shm;

    if (home != NULL || (home = spk_zalloc(sizeof *home)) == NULL)
        return home;
    home->e = s->e;
    spk_list_init(&home->live);
    spk_list_init(&home->graves);
    spk_list_init(&home->flush.link);
    home->flush.fn = on_home_flush;
    spk_timer_init(&home->timer, on_home_time);
    if (s->shm_segment > 0)
        (void)spk_segment_new(&home->segment, spk_shm_power_of_two(s->shm_segment), &s->shm_wish);
    return s->shm = home;
}

void
spk_shm_home_close(struct spk_shm_home *home)
{
    if (home == NULL)
        return;
    spk_timer_cancel(home->e, &home->timer);
    forget_copy(home);
    if (home->segment != NULL)
        spk_segment_retire(home->segment);
    reap(home, true); /* what is freed stays as it is, for those who still hold it */
    if (home->segment != NULL)
        spk_segment_unref(home->segment);
    spk_free(home);
}

/* What has been given back, and nobody has looked at it since.  One that never had what it gives
 * back is found out when it is its turn. */
static void
take_all_back(struct spk_shm_home *home)
{
    SPK_LIST_EACH(link, &home->live)
    (void)spk_shm_collect(SPK_OWNER(link, struct spk_shm, link));
    reap(home, false);
}

void
spk_shm_home_stats(struct spk_shm_home *home, struct spk_segment_stats *out)
{
    *out = (struct spk_segment_stats){0};
    if (home->segment == NULL)
        return;
    take_all_back(home);
    spk_segment_stats(home->segment, out);
}

static struct spk_chunk *
new_chunk(struct spk_shm_home *home, size_t size)
{
    struct spk_chunk *c;

    if (home->segment == NULL)
        return NULL;
    home->allocs++;
    if (!spk_timer_is_set(&home->timer))
        look_later(home);
    if ((c = spk_segment_alloc(home->segment, size)) != NULL)
        return c;
    take_all_back(home);
    return spk_segment_alloc(home->segment, size);
}

spoke_msg *
spk_shm_loan(struct spk_shm *shm, size_t size)
{
    struct spk_chunk *c;
    spoke_msg *m = NULL;

    if (!shm->lends || size == 0 || size < shm->lend_least ||
        (c = new_chunk(shm->home, size)) == NULL)
        return NULL;
    if (spk_msg_slice(&m, c, c->data, size) != 0)
        spk_chunk_unref(c);
    return m;
}

int
spoke_loan(spoke_socket *handle, size_t size, spoke_msg **out)
{
    struct spk_chunk *c = NULL;
    struct spk_shm_home *home;
    struct spk_engine *e;
    struct spk_socket *s;
    void *object;
    int rc;

    *out = NULL;
    if ((rc = spk_handle_enter(handle, SPK_HANDLE_SOCKET, &object, &e)) != 0)
        return rc;
    s = object;
    if (size > 0 && size >= s->defaults.lend_least && !e->backend->is_virtual &&
        (home = spk_shm_home(s)) != NULL)
        c = new_chunk(home, size);
    spk_engine_leave(e);
    if (c == NULL)
        return spoke_msg_new(out, size);
    if ((rc = spk_msg_slice(out, c, c->data, size)) != 0)
        spk_chunk_unref(c);
    return rc;
}

/* The body of `m` in the segment: where it lies, or a copy.  One reference; NULL: no room. */
static struct spk_chunk *
lendable(struct spk_shm_home *home, spoke_msg *m, uint64_t *offset)
{
    struct spk_chunk *c;

    if (m->chunk != NULL && spk_segment_holds(home->segment, m->body, m->size, offset))
        return spk_chunk_ref(m->chunk);
    if (m == home->copied) {
        (void)spk_segment_holds(home->segment, home->copy->data, m->size, offset);
        return spk_chunk_ref(home->copy);
    }
    if ((c = new_chunk(home, m->size)) == NULL)
        return NULL;
    memcpy(c->data, m->body, m->size);
    SPK_STOP_POINT(BODY);
    (void)spk_segment_holds(home->segment, c->data, m->size, offset);
    if (atomic_load_explicit(&m->refs, memory_order_relaxed) > 1) {
        forget_copy(home);
        home->copied = spoke_msg_dup(m);
        home->copy = spk_chunk_ref(c);
        spk_list_append(&home->e->flushes, &home->flush.link);
    }
    return c;
}

bool
spk_shm_lend(struct spk_shm *shm, spoke_msg *m, struct spk_shm_loan *loan)
{
    struct spk_shm_loans_out *out = shm->out;
    struct spk_chunk *c;

    *loan = (struct spk_shm_loan){.size = m->size};
    if ((c = lendable(shm->home, m, &loan->offset)) == NULL)
        return false;
    loan->number = out->free[--out->free_count];
    out->chunks[loan->number] = c;
    out->sizes[loan->number] = m->size;
    out->bytes += m->size;
    return true;
}
