/* SPDX-License-Identifier: MIT */
/* Two streams made one: what comes from either goes to the other.  Made of the public calls, on
 * callbacks. */
#include <string.h>

#include "runtime/stream/conn.h"

#define CHUNKS_A_TURN 16 /* then others have theirs */

struct way {
    spoke_stream *from, *to;
    spoke_msg *held; /* read, and not completely written */
    bool ended;      /* nothing follows; `to` has to be told yet */
    bool over;
};

struct spk_join {
    struct spk_engine *e;
    struct spk_conn *conns[2]; /* NULL: closed */
    struct way ways[2];
    struct spk_task closed_task;
    struct spoke_stream_report report;
    spoke_stream_done_f *done;
    void *ctx;
};

static void
end_way(struct spk_join *j, int at, int result)
{
    struct way *w = &j->ways[at];

    if (w->over)
        return;
    w->over = true;
    j->report.result[at] = result;
    spoke_msg_free(w->held);
    w->held = NULL;
}

/* An error of either is an error for both peers, never an end. */
static void
break_off(struct spk_join *j, int error)
{
    for (int i = 0; i < 2; i++) {
        end_way(j, i, error);
        (void)spoke_stream_abort(j->ways[i].to, 0);
    }
}

/* What a read gave that is no chunk.  A half that was closed before the join has ended, too. */
static void
has_ended(struct spk_join *j, int at, int rc)
{
    if (rc == SPOKE_EOF || rc == SPOKE_ERDCLOSED)
        j->ways[at].ended = true;
    else if (rc != SPOKE_EAGAIN)
        break_off(j, rc);
}

/* What a write gave: bytes, and an error. */
static void
has_written(struct spk_join *j, int at, size_t done, int rc)
{
    struct way *w = &j->ways[at];

    j->report.bytes[at] += done;
    if (rc == SPOKE_EAGAIN && done > 0 && spoke_msg_trim_front(w->held, done) != 0)
        rc = SPOKE_ENOMEM;
    if (rc == 0) {
        w->held = NULL;
    } else if (rc == SPOKE_EPEERCLOSED || rc == SPOKE_EWRCLOSED) { /* nobody wants more of this */
        end_way(j, at, SPOKE_EPEERCLOSED);
        (void)spoke_stream_close_read(w->from);
    } else if (rc != SPOKE_EAGAIN) {
        break_off(j, rc);
    }
}

/* One that is still dialing cannot be ended: once it has its outcome it is writable. */
static void
pass_end(struct spk_join *j, int at)
{
    int rc = spoke_stream_close_write(j->ways[at].to);

    if (rc == SPOKE_ECLOSED)
        break_off(j, rc);
    else if (rc != SPOKE_ESTATE)
        end_way(j, at, 0);
}

/* One chunk, or the end.  False: not now, or no more. */
static bool
carry(struct spk_join *j, int at)
{
    struct way *w = &j->ways[at];
    size_t done;
    int rc;

    if (w->held == NULL && !w->ended && (rc = spoke_stream_read_chunk(w->from, &w->held)) != 0)
        has_ended(j, at, rc);
    if (w->held != NULL) {
        rc = spoke_stream_write_chunk(w->to, w->held, &done);
        has_written(j, at, done, rc);
        return rc == 0;
    }
    if (w->ended && !w->over)
        pass_end(j, at);
    return false;
}

/* True: it may go on at once. */
static bool
carry_some(struct spk_join *j, int at)
{
    for (int i = 0; i < CHUNKS_A_TURN && !j->ways[at].over; i++) {
        if (!carry(j, at))
            return false;
    }
    return !j->ways[at].over;
}

/* The streams are nobody's. */
static void
let_go(struct spk_join *j)
{
    spk_task_cancel(&j->closed_task);
    for (int i = 0; i < 2; i++) {
        if (j->conns[i] != NULL) {
            j->conns[i]->join = NULL;
            j->conns[i]->on_ready = NULL;
        }
    }
}

/* On the engine's thread, without the lock. */
static void
finish(struct spk_join *j)
{
    (void)spk_engine_enter(j->e);
    let_go(j);
    spk_engine_leave(j->e);
    j->done(j->ctx, &j->report);
    spk_free(j);
}

static void
on_closed_task(struct spk_task *task)
{
    struct spk_join *j = SPK_OWNER(task, struct spk_join, closed_task);
    struct spk_engine *e = j->e;

    spk_engine_call_begin(e, NULL);
    break_off(j, SPOKE_ECLOSED);
    finish(j);
    spk_engine_call_end(e);
}

void
spk_join_closed(struct spk_join *j, const struct spk_conn *c)
{
    j->conns[j->conns[1] == c] = NULL;
    spk_task_queue_callback(j->e, &j->closed_task);
}

static void
on_ready(spoke_stream *s, unsigned what, void *ctx)
{
    struct spk_join *j = ctx;
    bool more = false;

    for (int i = 0; i < 2; i++) {
        if ((j->ways[i].from == s && (what & SPOKE_STREAM_READABLE) != 0) ||
            (j->ways[i].to == s && (what & SPOKE_STREAM_WRITABLE) != 0))
            more |= carry_some(j, i);
    }
    if (j->ways[0].over && j->ways[1].over)
        finish(j);
    else if (more) /* after the others */
        (void)spoke_stream_on_ready(s, on_ready, j);
}

/* Both are free. */
static int
check(struct spk_conn *const *conns)
{
    if (conns[0] == conns[1])
        return SPOKE_EINVAL;
    return conns[0]->join != NULL || conns[1]->join != NULL ? SPOKE_EBUSY : 0;
}

static int
enter_both(spoke_stream *a, spoke_stream *b, struct spk_conn **conns)
{
    struct spk_engine *e;
    void *objects[2];
    int rc;

    if ((rc = spk_handle_enter(a, SPK_HANDLE_STREAM, &objects[0], &e)) != 0)
        return rc;
    if ((rc = spk_handle_join(b, SPK_HANDLE_STREAM, e, &objects[1])) == 0) {
        conns[0] = objects[0];
        conns[1] = objects[1];
        rc = check(conns);
    }
    if (rc != 0)
        spk_engine_leave(e);
    return rc;
}

int
spk_join_start(struct spk_conn *const *conns, spoke_stream_done_f *done, void *ctx)
{
    struct spk_join *j = spk_zalloc(sizeof *j);

    if (j == NULL)
        return SPOKE_ENOMEM;
    *j = (struct spk_join){.e = conns[0]->e,
                           .conns = {conns[0], conns[1]},
                           .ways = {{.from = conns[0]->handle, .to = conns[1]->handle},
                                    {.from = conns[1]->handle, .to = conns[0]->handle}},
                           .done = done,
                           .ctx = ctx};
    spk_task_init(&j->closed_task, on_closed_task);
    for (int i = 0; i < 2; i++) {
        conns[i]->join = j;
        conns[i]->read.deadline = conns[i]->write.deadline = SPOKE_NOW;
        spk_conn_watch(conns[i], on_ready, j);
    }
    return 0;
}

int
spoke_stream_join(spoke_stream *a, spoke_stream *b, spoke_stream_done_f *done, void *ctx)
{
    struct spk_conn *conns[2];
    int rc;

    if (done == NULL)
        return SPOKE_EINVAL;
    if ((rc = enter_both(a, b, conns)) != 0)
        return rc;
    struct spk_engine *e = conns[0]->e;
    if ((rc = spk_join_start(conns, done, ctx)) == 0)
        (void)spk_conn_await_calls(conns, 2); /* theirs is taken away */
    spk_engine_leave(e);
    return rc;
}

/* ---- and wait ---- */

struct wait {
    struct spk_engine *e;
    struct spk_link waiters;
    struct spoke_stream_report report;
    bool done;
};

static void
on_copied(void *ctx, const struct spoke_stream_report *report)
{
    struct wait *w = ctx;

    (void)spk_engine_enter(w->e);
    w->report = *report;
    w->done = true;
    spk_engine_wake_all(w->e, &w->waiters);
    spk_engine_leave(w->e);
}

/* SPOKE_EDEADLK: nothing is left that could ever happen (sim). */
static int
wait_done(struct wait *w, struct spk_join *j)
{
    int rc = 0;

    while (rc == 0 && !w->done)
        rc = spk_engine_wait(w->e, &w->waiters, SPOKE_FOREVER, SPOKE_WAIT_BLOCK);
    if (w->done)
        return 0;
    w->report = j->report;
    let_go(j);
    spoke_msg_free(j->ways[0].held);
    spoke_msg_free(j->ways[1].held);
    spk_free(j);
    return rc;
}

int
spoke_stream_copy(spoke_stream *a, spoke_stream *b, struct spoke_stream_report *report)
{
    struct wait w = {.done = false};
    struct spk_conn *conns[2];
    int rc;

    if (report == NULL)
        return SPOKE_EINVAL;
    memset(report, 0, sizeof *report);
    spk_list_init(&w.waiters);
    if ((rc = enter_both(a, b, conns)) != 0)
        return rc;
    w.e = conns[0]->e;
    if (w.e->in_callback > 0 && pthread_equal(w.e->owner, pthread_self()))
        rc = SPOKE_EDEADLK;
    else if ((rc = spk_join_start(conns, on_copied, &w)) == 0)
        rc = wait_done(&w, conns[0]->join);
    spk_engine_leave(w.e);
    *report = w.report;
    return rc;
}
