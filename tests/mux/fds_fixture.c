/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/mux/fds.h"

void
fds_drive(spoke_engine *e)
{
    const struct timespec moment = {.tv_nsec = 100 * 1000};

    if (spoke_engine_poll(e, 200 * SPOKE_US) <= 0)
        nanosleep(&moment, NULL); /* it may be another engine's turn */
}

/* ---- pipes ---- */

void
lines_open(struct lines *l, int count)
{
    int ends[2];

    cr_assert_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    *l = (struct lines){.listener = ends[0], .count = count};
    for (int i = 0; i < count; i++)
        cr_assert_geq(l->ends[i] = fcntl(ends[1], F_DUPFD_CLOEXEC, 3), 0);
    close(ends[1]);
}

bool
lines_are_closed(const struct lines *l)
{
    char byte;

    return read(l->listener, &byte, 1) == 0;
}

void
lines_close(struct lines *l)
{
    close(l->listener);
}

/* ---- the calls ---- */

static struct spk_conn *
enter(spoke_stream *s)
{
    struct spk_conn *c;

    return spk_conn_enter(s, &c) == 0 ? c : NULL;
}

bool
passes_fds(spoke_stream *s)
{
    struct spk_conn *c = enter(s);
    bool passes = spk_conn_passes_fds(c);

    spk_engine_leave(c->e);
    return passes;
}

int64_t
try_fds(spoke_stream *s, const struct iovec *buffers, int count, const int *fds, int n)
{
    struct spk_conn *c = enter(s);
    int64_t rc;

    if (c == NULL)
        return SPOKE_ECLOSED;
    rc = spk_conn_try_write_fds(c, buffers, count, fds, n);
    spk_engine_leave(c->e);
    return rc;
}

bool
try_take(spoke_stream *s, struct taken *out)
{
    struct spk_conn *c = enter(s);
    spoke_msg *m = c != NULL ? spk_conn_take_input(c, true) : NULL;
    struct spk_fds *set = m != NULL ? spk_conn_take_fds(c) : NULL;

    *out = (struct taken){.size = 0};
    if (set != NULL) {
        out->count = set->count;
        memcpy(out->fds, set->numbers, sizeof(int) * (size_t)set->count);
        spk_fds_free(set);
    }
    if (c != NULL)
        spk_engine_leave(c->e);
    if (m == NULL)
        return false;
    out->size = spoke_msg_size(m);
    memcpy(out->text, spoke_msg_body(m), out->size < sizeof out->text ? out->size : 256);
    spoke_msg_free(m);
    return true;
}

int
read_end_of(spoke_stream *s)
{
    struct spk_conn *c = enter(s);
    int rc = c == NULL ? SPOKE_ECLOSED : c->input != NULL ? 0 : c->read.end;

    if (c != NULL)
        spk_engine_leave(c->e);
    return rc;
}

void
taken_close(struct taken *in)
{
    for (int i = 0; i < in->count; i++)
        cr_assert_eq(close(in->fds[i]), 0);
    in->count = 0;
}

/* ---- with patience ---- */

void
send_fds(spoke_engine *e, spoke_stream *s, const char *text, const int *fds, int n)
{
    const struct iovec whole = {(void *)(uintptr_t)text, strlen(text)};
    int64_t rc;

    while ((rc = try_fds(s, &whole, 1, fds, n)) == SPOKE_EAGAIN)
        fds_drive(e);
    cr_assert_eq(rc, (int64_t)whole.iov_len, "%s", spoke_error_name((int)rc));
}

void
send_text(spoke_engine *e, spoke_stream *s, const char *text)
{
    size_t done;

    while (write_now(s, text, strlen(text), &done) == SPOKE_EAGAIN)
        fds_drive(e);
    cr_assert_eq(done, strlen(text));
}

struct taken
take_piece(spoke_engine *e, spoke_stream *s)
{
    struct taken in;

    while (!try_take(s, &in)) {
        cr_assert_eq(read_end_of(s), 0, "it has ended: %s", spoke_error_name(read_end_of(s)));
        fds_drive(e);
    }
    return in;
}

void
expect_pieces(spoke_engine *e, spoke_stream *s, const char *text, const int *at, int count)
{
    char all[1024] = "";
    size_t size = 0;
    int seen = 0;

    do {
        struct taken in = take_piece(e, s);

        for (int i = 0; i < in.count; i++) {
            cr_assert_lt(seen, count);
            cr_assert_eq(at[seen++], (int)size, "it came with byte %zu", size);
        }
        taken_close(&in);
        if (text == NULL)
            break;
        cr_assert_lt(size + in.size, sizeof all);
        memcpy(all + size, in.text, in.size);
        size += in.size;
    } while (size < strlen(text));
    cr_assert_eq(seen, count);
    if (text != NULL)
        cr_assert_str_eq(all, text);
}
