/* SPDX-License-Identifier: MIT */
/* What messages carry: ends of channels and streams by handles that nobody else knows, and
 * descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocols/channel/channel.h"

#define FIRST_ROOM 4u

/* ---- going away ---- */

static enum spk_handle_kind
kind_of(const struct spk_attachment *item)
{
    if (item->kind != SPOKE_ATTACHED_CHANNEL)
        return SPK_HANDLE_STREAM;
    return item->direction == SPOKE_ATTACHED_READS ? SPK_HANDLE_RECEIVER : SPK_HANDLE_SENDER;
}

struct spk_channel *
spk_attachment_channel(struct spk_attachment *item)
{
    struct spk_engine *e = spk_handle_engine(item->handle);
    void *object;

    if (e == NULL || spk_handle_join(item->handle, kind_of(item), e, &object) != 0)
        return NULL;
    item->kind = 0;
    return object;
}

/* Nobody has taken it.  With its engine entered. */
static void
close_unclaimed(struct spk_engine *e, struct spk_attachment *item)
{
    enum spk_handle_kind kind = kind_of(item);
    void *object;

    if (item->kind == 0 || spk_handle_join(item->handle, kind, e, &object) != 0)
        return;
    item->kind = 0;
    if (kind == SPK_HANDLE_STREAM) {
        spk_conn_cancel(object, SPOKE_MUX_CANCELED);
        return;
    }
    if (kind == SPK_HANDLE_SENDER)
        spk_channel_close(object, SPK_SENDS, SPOKE_EOF, false, 0, NULL);
    else
        spk_channel_close(object, SPK_RECEIVES, SPOKE_EPEERCLOSED, true, 0, NULL);
    spk_channel_free_if_done(object);
}

static void
on_engine(void *ctx)
{
    struct spk_attachments *a = ctx;

    for (uint32_t i = 0; i < a->count; i++)
        close_unclaimed(a->e, &a->items[i]);
    spk_free(a);
}

/* Ends of channels, or streams, that are still there. */
static bool
has_handles(const struct spk_attachments *a)
{
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->items[i].kind != 0 && a->items[i].kind != SPOKE_ATTACHED_FD)
            return true;
    }
    return false;
}

/* The last reference of their message is gone: descriptors are closed here, the others where they
 * live. */
static void
drop(struct spk_attached *face)
{
    struct spk_attachments *a = SPK_OWNER(face, struct spk_attachments, face);
    bool ours = a->fork_generation ==
                atomic_load_explicit(&spk_fork_generation, memory_order_relaxed);

    for (uint32_t i = 0; i < a->count; i++) {
        struct spk_attachment *item = &a->items[i];

        if (item->kind == SPOKE_ATTACHED_FD) {
            close(item->fd);
            item->kind = 0;
        }
    }
    if (!has_handles(a) || !ours || /* a copy that a fork made: what it names is the parent's */
        spk_engine_post_embedded(a->e, a->engine_number, &a->post, on_engine, a) != 0)
        spk_free(a);
}

/* ---- attaching ---- */

static void
set_engine(struct spk_attachments *a, struct spk_engine *e)
{
    a->e = e;
    a->engine_number = e->number;
}

int
spk_attachments_reserve(spoke_msg *m, uint32_t count, struct spk_engine *e)
{
    struct spk_attachments *old = spk_attachments_of(m), *a;
    uint32_t have = old == NULL ? 0 : old->count, room = old == NULL ? 0 : old->room;

    if (old != NULL && e != NULL && old->e != e && has_handles(old))
        return SPOKE_EINVAL;
    if (have + count > SPK_ATTACHED_MOST)
        return SPOKE_ELIMIT;
    if (have + count <= room) {
        if (e != NULL)
            set_engine(old, e);
        return 0;
    }
    room = room > 0 ? 2 * room : FIRST_ROOM;
    if (room < have + count)
        room = have + count;
    if ((a = spk_zalloc(sizeof *a + room * sizeof a->items[0])) == NULL)
        return SPOKE_ENOMEM;
    if (old != NULL)
        memcpy(a, old, sizeof *a + have * sizeof a->items[0]);
    spk_free(old);
    a->face.drop = drop;
    a->room = room;
    a->fork_generation = atomic_load_explicit(&spk_fork_generation, memory_order_relaxed);
    if (e != NULL)
        set_engine(a, e);
    m->attached = &a->face;
    m->carries = true;
    return 0;
}

void
spk_attachments_add(spoke_msg *m, struct spk_attachment item)
{
    struct spk_attachments *a = spk_attachments_of(m);

    a->items[a->count++] = item;
}

void
spk_attachments_drop_last(spoke_msg *m)
{
    struct spk_attachments *a = spk_attachments_of(m);
    struct spk_attachment last = a->items[--a->count];

    if (last.kind == SPOKE_ATTACHED_FD)
        close(last.fd);
    else if (kind_of(&last) == SPK_HANDLE_SENDER)
        (void)spoke_sender_close(last.handle);
    else if (kind_of(&last) == SPK_HANDLE_RECEIVER)
        (void)spoke_receiver_close(last.handle);
    else
        (void)spoke_stream_close(last.handle);
    if (a->count > 0)
        return;
    spk_free(a);
    m->carries = false;
}

static int
check_unique(const spoke_msg *m)
{
    return atomic_load_explicit(&m->refs, memory_order_acquire) == 1 ? 0 : SPOKE_ESHARED;
}

static int
attach_end(spoke_msg *m, void *handle, enum spk_channel_side side)
{
    struct spk_channel *ch;
    int rc;

    if (m == NULL || handle == NULL)
        return SPOKE_EINVAL;
    if ((rc = check_unique(m)) != 0 || (rc = spk_channel_enter(handle, side, &ch)) != 0)
        return rc;
    if (ch->ends[side].callers > 0 || ch->ends[side].watched || ch->ends[side].fd >= 0)
        rc = SPOKE_EBUSY;
    else if ((rc = spk_attachments_reserve(m, 1, ch->e)) == 0)
        spk_attachments_add(m, (struct spk_attachment){.kind = SPOKE_ATTACHED_CHANNEL,
                                                       .direction = side == SPK_SENDS
                                                                        ? SPOKE_ATTACHED_WRITES
                                                                        : SPOKE_ATTACHED_READS,
                                                       .handle = spk_channel_renew(ch, side)});
    spk_channel_leave(ch);
    return rc;
}

int
spoke_msg_attach_sender(spoke_msg *m, spoke_sender *tx)
{
    return attach_end(m, tx, SPK_SENDS);
}

int
spoke_msg_attach_receiver(spoke_msg *m, spoke_receiver *rx)
{
    return attach_end(m, rx, SPK_RECEIVES);
}

static bool
is_direction(int direction)
{
    return direction >= SPOKE_ATTACHED_READS && direction <= SPOKE_ATTACHED_BOTH;
}

int
spoke_msg_attach_stream(spoke_msg *m, spoke_stream *s, int direction)
{
    struct spk_conn *c;
    int rc;

    if (m == NULL || s == NULL || !is_direction(direction))
        return SPOKE_EINVAL;
    if ((rc = check_unique(m)) != 0 || (rc = spk_conn_enter(s, &c)) != 0)
        return rc;
    if (!spk_conn_is_idle(c))
        rc = SPOKE_EBUSY;
    else if ((rc = spk_attachments_reserve(m, 1, c->e)) == 0)
        spk_attachments_add(m, (struct spk_attachment){.kind = SPOKE_ATTACHED_STREAM,
                                                       .direction = (uint8_t)direction,
                                                       .handle = spk_conn_renew(c)});
    spk_engine_leave(c->e);
    return rc;
}

int
spoke_msg_attach_fd(spoke_msg *m, int fd, int direction)
{
    int rc;

    if (m == NULL || !is_direction(direction))
        return SPOKE_EINVAL;
    if (fd < 0 || fcntl(fd, F_GETFD) < 0)
        return SPOKE_EBADF;
    if ((rc = check_unique(m)) != 0 || (rc = spk_attachments_reserve(m, 1, NULL)) != 0)
        return rc;
    spk_attachments_add(m, (struct spk_attachment){.kind = SPOKE_ATTACHED_FD,
                                                   .direction = (uint8_t)direction,
                                                   .fd = fd});
    return 0;
}

int
spoke_msg_attach_pipe(spoke_msg *m, int direction, int *fd)
{
    int ends[2], rc, theirs;

    if (fd == NULL)
        return SPOKE_EINVAL;
    *fd = -1;
    if (m == NULL || !is_direction(direction))
        return SPOKE_EINVAL;
    rc = direction == SPOKE_ATTACHED_BOTH ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)
                                          : pipe2(ends, O_CLOEXEC);
    if (rc != 0)
        return spk_error_from_errno(errno);
    theirs = direction == SPOKE_ATTACHED_WRITES;
    if ((rc = spoke_msg_attach_fd(m, ends[theirs], direction)) == 0) {
        *fd = ends[!theirs];
        return 0;
    }
    close(ends[0]);
    close(ends[1]);
    return rc;
}

/* ---- taking ---- */

size_t
spoke_msg_attachments(const spoke_msg *m)
{
    return m == NULL || !m->carries ? 0 : spk_attachments_of(m)->count;
}

int
spoke_msg_attachment(const spoke_msg *m, size_t i, spoke_attachment *out)
{
    const struct spk_attachment *item;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = (spoke_attachment){0};
    if (i >= spoke_msg_attachments(m))
        return SPOKE_ENOENT;
    item = &spk_attachments_of(m)->items[i];
    *out = (spoke_attachment){item->kind, item->direction};
    return 0;
}

/* The one that may be taken. */
static int
find(const spoke_msg *m, size_t i, struct spk_attachment **item)
{
    if (i >= spoke_msg_attachments(m))
        return SPOKE_ENOENT;
    *item = &spk_attachments_of(m)->items[i];
    if ((*item)->kind == 0)
        return SPOKE_ESTATE;
    return check_unique(m);
}

static int
take(spoke_msg *m, size_t i, enum spk_handle_kind kind, void **handle)
{
    struct spk_attachment *item;
    int rc = find(m, i, &item);

    if (rc != 0)
        return rc;
    if (item->kind == SPOKE_ATTACHED_FD || kind_of(item) != kind)
        return SPOKE_EDIR;
    *handle = item->handle;
    item->kind = 0;
    return 0;
}

int
spoke_msg_take_sender(spoke_msg *m, size_t i, spoke_sender **tx)
{
    void *handle = NULL;
    int rc = tx == NULL ? SPOKE_EINVAL : take(m, i, SPK_HANDLE_SENDER, &handle);

    if (tx != NULL)
        *tx = handle;
    return rc;
}

int
spoke_msg_take_receiver(spoke_msg *m, size_t i, spoke_receiver **rx)
{
    void *handle = NULL;
    int rc = rx == NULL ? SPOKE_EINVAL : take(m, i, SPK_HANDLE_RECEIVER, &handle);

    if (rx != NULL)
        *rx = handle;
    return rc;
}

int
spoke_msg_take_stream(spoke_msg *m, size_t i, spoke_stream **s)
{
    void *handle = NULL;
    int rc = s == NULL ? SPOKE_EINVAL : take(m, i, SPK_HANDLE_STREAM, &handle);

    if (s != NULL)
        *s = handle;
    return rc;
}

/* The two streams behind a descriptor that stands for one. */
struct behind {
    spoke_stream *streams[2];
};

static void
on_joined(void *ctx, const struct spoke_stream_report *report)
{
    struct behind *b = ctx;

    (void)report;
    for (int i = 0; i < 2; i++)
        (void)spoke_stream_close(b->streams[i]);
    spk_free(b);
}

/* One end of a pair of sockets, of which the other is joined to the stream. */
static int
fd_for_stream(spoke_stream *s, int *fd)
{
    struct spk_engine *e = spk_handle_engine(s);
    struct behind *b;
    int ends[2], rc;

    if (e == NULL)
        return SPOKE_ECLOSED;
    if ((b = spk_zalloc(sizeof *b)) == NULL)
        return SPOKE_ENOMEM;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        rc = spk_error_from_errno(errno);
        goto failed;
    }
    b->streams[0] = s;
    if ((rc = spoke_stream_from_fd(&b->streams[1], ends[1], NULL, e->shared ? NULL : e->handle)) !=
        0) {
        close(ends[1]);
    } else if ((rc = spoke_stream_join(s, b->streams[1], on_joined, b)) == 0) {
        *fd = ends[0];
        return 0;
    } else {
        (void)spoke_stream_close(b->streams[1]);
    }
    close(ends[0]);
failed:
    spk_free(b);
    return rc;
}

int
spoke_msg_take_fd(spoke_msg *m, size_t i, int *fd)
{
    struct spk_attachment *item;
    int rc;

    if (fd == NULL)
        return SPOKE_EINVAL;
    *fd = -1;
    if ((rc = find(m, i, &item)) != 0)
        return rc;
    if (item->kind == SPOKE_ATTACHED_CHANNEL)
        return SPOKE_EDIR;
    if (item->kind == SPOKE_ATTACHED_FD)
        *fd = item->fd;
    else if ((rc = fd_for_stream(item->handle, fd)) != 0)
        return rc;
    item->kind = 0;
    return 0;
}
