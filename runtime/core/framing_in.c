/* SPDX-License-Identifier: MIT */
/* What a pipe over a byte stream reads.  Bytes arrive in the engine's chunks.  Small bodies are
 * copied out, larger ones are slices of the chunk, those that are larger than what has arrived get
 * memory of their own and the rest is received straight into it.  When the protocol has no room the
 * pipe keeps the chunk and stops. */
#include <assert.h>
#include <string.h>

#include "runtime/core/framing.h"

#define SLICE_LEAST  ((size_t)8 * 1024)    /* smaller bodies are copied out of the chunk */
#define RESERVE_STEP ((size_t)1024 * 1024) /* memory for a body that has only been announced */
#define DIRECT_LEAST ((size_t)16 * 1024)   /* a body's rest is received straight into it */
#define LATE_NS      (10 * SPOKE_MS) /* after an idle timeout: until what is there has been read */

/* From now on it is the peer who keeps a message waiting that has begun. */
static void
await_rest(struct spk_framing *f)
{
    struct spk_engine *e = spk_framing_engine(f);

    f->is_late = false;
    if ((f->body != NULL || f->head_have > 0) &&
        spk_timer_set(e, &f->timer, spk_later(spk_engine_now(e), f->idle_ns)) != 0)
        spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
}

static void
arm_recv(struct spk_framing *f)
{
    struct spk_socket *s = f->pipe.socket;

    if (f->closing || f->moved_in || spk_op_busy(&f->recv_op) || f->pipe.state == SPK_PIPE_CLOSING)
        return;
    if (f->idle_ns > 0)
        await_rest(f);
    f->recv_op.awaited = s->awaited > 0 && f->pipe.state == SPK_PIPE_ATTACHED;
    s->awaited -= f->recv_op.awaited;
    if (f->body != NULL && f->body_size - f->body->size >= DIRECT_LEAST) {
        size_t room = f->body_size - f->body->size;

        if (spk_msg_reserve(f->body, f->body->size + (room < RESERVE_STEP ? room : RESERVE_STEP)) !=
            0) {
            spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
            return;
        }
        f->st->ops->recv(f->st, &f->recv_op, f->body->body + f->body->size,
                         room < RESERVE_STEP ? room : RESERVE_STEP);
        return;
    }
    f->st->ops->recv(f->st, &f->recv_op, NULL, 0);
}

/* Begin a body of which `have` bytes of `length` are at `data`. */
bool
spk_framing_begin_body(struct spk_framing *f, uint64_t length, const uint8_t *data, size_t have)
{
    size_t room = (size_t)length < have + RESERVE_STEP ? (size_t)length : have + RESERVE_STEP;

    if (spoke_msg_new(&f->body, 0) != 0 || spk_msg_reserve(f->body, room) != 0) {
        spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
        return false;
    }
    f->body_size = (size_t)length;
    memcpy(f->body->body, data, have);
    f->body->size = have;
    return true;
}

spoke_msg *
spk_framing_whole_message(struct spk_chunk *chunk, uint8_t *data, size_t size)
{
    spoke_msg *m;

    if (size < SLICE_LEAST || chunk == NULL)
        return spoke_msg_from(&m, data, size) == 0 ? m : NULL;
    if (spk_msg_slice(&m, spk_chunk_ref(chunk), data, size) != 0) {
        spk_chunk_unref(chunk);
        return NULL;
    }
    return m;
}

/* The bytes in front of the next message: where they are, once they are complete, in `data` or put
 * together in f->head; NULL before that, or if they are bad.  *at moves behind them. */
static const uint8_t *
take_head(struct spk_framing *f, const uint8_t *data, size_t size, size_t *at)
{
    size_t whole = spk_framing_head_size(f), n = whole - f->head_have;
    const uint8_t *head = data + *at;

    if (n > size - *at)
        n = size - *at;
    *at += n;
    if (n < whole) {
        memcpy(f->head + f->head_have, head, n);
        f->head_have = (uint8_t)(f->head_have + n);
        head = f->head;
    }
    if (f->type_byte && head[0] == SPK_TYPE_MOVED && f->shm != NULL) {
        f->head_have = 0;
        spk_framing_move_in(f, n - 1 + (size - *at));
        return NULL;
    }
    if (f->type_byte && head[0] != SPK_TYPE_MESSAGE) {
        spk_count_drops(f->pipe.socket, &f->pipe, SPK_DROP_GARBLED, 1);
        spk_pipe_shut(&f->pipe, SPOKE_EPROTO);
        return NULL;
    }
    return n == whole || f->head_have == whole ? head : NULL;
}

/* Continue a body with what has come. */
size_t
spk_framing_continue_body(struct spk_framing *f, const uint8_t *data, size_t size)
{
    size_t n = f->body_size - f->body->size;

    if (n > size)
        n = size;
    if (spk_msg_reserve(f->body, f->body->size + n) != 0) {
        spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
        return 0;
    }
    if (n > 0 && data != NULL)
        memcpy(f->body->body + f->body->size, data, n);
    f->body->size += n;
    return n;
}

bool
spk_framing_deliver_body(struct spk_framing *f)
{
    spoke_msg *m = f->body;

    f->body = NULL;
    return spk_pipe_received(&f->pipe, m);
}

/* Small messages that are there as a whole, at most `most` of them, delivered together.  Returns
 * how many; *at moves behind them.  Whatever is not as simple stops it and is for parse() to see.
 */
static int
parse_run(struct spk_framing *f, const uint8_t *data, size_t size, size_t *at, int most,
          size_t cost)
{
    size_t limit = f->pipe.endpoint->options.max_recv_size, head_size = spk_framing_head_size(f),
           next = *at;
    struct iovec bodies[SPK_RUN_MOST];
    spoke_msg *messages[SPK_RUN_MOST];
    int count = 0, made;

    if (limit == 0 || limit > SPK_BODY_INLINE)
        limit = SPK_BODY_INLINE;
    if (most > SPK_RUN_MOST)
        most = SPK_RUN_MOST;
    while (count < most && size - next >= head_size) {
        const uint8_t *head = data + next;
        uint64_t length = spk_get64(head + (head_size - 8));
        if ((f->type_byte && head[0] != SPK_TYPE_MESSAGE) || length > limit ||
            length > size - next - head_size)
            break;
        bodies[count++] = (struct iovec){(void *)(uintptr_t)(data + next + head_size),
                                         (size_t)length};
        next += head_size + (size_t)length;
        if (length + sizeof(spoke_msg) >= cost)
            break;
        cost -= length + sizeof(spoke_msg);
    }
    if ((made = spk_msg_from_many(messages, bodies, count)) == 0)
        return 0;
    *at = (size_t)((uint8_t *)bodies[made - 1].iov_base + bodies[made - 1].iov_len - data);
    spk_pipe_received_many(&f->pipe, messages, made);
    return made;
}

/* Turn bytes into messages, at most `most`.  Returns how many bytes were used; less than all when
 * the pipe is held back or closing. */
static size_t
parse(struct spk_framing *f, struct spk_chunk *chunk, uint8_t *data, size_t size, int most)
{
    size_t at = 0;
    bool go_on = f->pipe.state == SPK_PIPE_ATTACHED;

    assert(data != NULL);
    if (f->wire != NULL)
        return f->wire->parse(f, chunk, data, size, most);
    while (at < size && go_on && most > 0) {
        const uint8_t *head;
        uint64_t length;
        size_t cost;
        int room = spk_pipe_room(&f->pipe, SPK_READ_AHEAD, &cost), n;

        if (room == 0)
            break;
        if (room != SPK_ONE_BY_ONE && f->body == NULL && f->head_have == 0 &&
            (n = parse_run(f, data, size, &at, room < most ? room : most, cost)) > 0) {
            most -= n;
            continue;
        }
        if (f->body != NULL) {
            at += spk_framing_continue_body(f, data + at, size - at);
            if (f->body->size < f->body_size) {
                go_on = f->pipe.state == SPK_PIPE_ATTACHED;
                continue;
            }
            go_on = spk_framing_deliver_body(f);
            most--;
            continue;
        }
        if ((head = take_head(f, data, size, &at)) == NULL ||
            !spk_pipe_length_is_fine(&f->pipe, length = spk_get64(head + (f->type_byte ? 1 : 0)))) {
            go_on = f->pipe.state == SPK_PIPE_ATTACHED;
            continue;
        }
        f->head_have = 0;
        if (length <= size - at) {
            spoke_msg *m = spk_framing_whole_message(chunk, data + at, (size_t)length);

            at += (size_t)length;
            if (m == NULL) {
                spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
                break;
            }
            go_on = spk_pipe_received(&f->pipe, m);
            most--;
        } else {
            go_on = spk_framing_begin_body(f, length, data + at, size - at);
            at = size;
        }
    }
    return at;
}

/* Keep what could not be delivered now. */
void
spk_framing_keep_left(struct spk_framing *f, struct spk_chunk *chunk, uint8_t *data, size_t size)
{
    f->left = spk_chunk_ref(chunk);
    f->left_data = data;
    f->left_size = size;
}

static void
forget_left(struct spk_framing *f)
{
    if (f->left != NULL)
        spk_chunk_unref(f->left);
    f->left = NULL;
    f->left_size = 0;
}

/* Parse what is left over, then receive more if all of it is gone. */
void
spk_framing_resume(struct spk_pipe *p, int most)
{
    struct spk_framing *f = spk_framing_of(p);

    if (f->moved_in && f->left == NULL) {
        spk_shm_read(f->shm, most);
        return;
    }
    if (f->left != NULL) {
        bool attached = f->pipe.state == SPK_PIPE_ATTACHED;
        size_t n = parse(f, f->left, f->left_data, f->left_size, most);

        f->left_data += n;
        f->left_size -= n;
        if (f->left_size == 0 || (attached && f->pipe.state != SPK_PIPE_ATTACHED))
            forget_left(f); /* behind what ended the connection there are no messages */
    }
    if (f->pipe.state != SPK_PIPE_ATTACHED || f->moved_in)
        return;
    if (f->left != NULL || f->pipe.held != NULL)
        spk_pipe_stall(&f->pipe); /* the rest when it is our turn again */
    else
        arm_recv(f);
}

/* Body bytes that were received straight into place. */
static void
on_body(struct spk_framing *f, size_t n)
{
    bool whole;

    if (f->wire != NULL) {
        whole = f->wire->arrived(f, n);
    } else {
        f->body->size += n;
        whole = f->body->size == f->body_size;
    }
    if (whole && !spk_framing_deliver_body(f) && f->pipe.held != NULL)
        return; /* held back: resume() goes on */
    arm_recv(f);
}

static void
on_received(struct spk_op *op, int result)
{
    struct spk_framing *f = SPK_OWNER(op, struct spk_framing, recv_op);
    size_t used;

    if (f->closing) {
        spk_framing_maybe_closed(f);
        return;
    }
    if (f->pipe.state == SPK_PIPE_CLOSING)
        return;
    if (f->moved_in) {
        spk_framing_on_end(f);
        return;
    }
    if (f->pipe.state == SPK_PIPE_STARTING) {
        spk_framing_on_hello(f, result);
        return;
    }
    if (result == SPOKE_ENOBUFS || result == SPOKE_EAGAIN) {
        arm_recv(f);
        return;
    }
    /* Messages have lengths: an end between two of them loses none, whatever else is said. */
    if (result == SPOKE_ETRUNCATED && f->head_have == 0 && f->body == NULL)
        result = 0;
    if (result <= 0) {
        spk_pipe_shut(&f->pipe, result == 0 ? SPOKE_EOF : result);
        return;
    }
    if (f->idle_ns > 0)
        spk_timer_cancel(spk_framing_engine(f), &f->timer);
    if (op->u.recv.buffer != NULL) {
        on_body(f, (size_t)result);
        return;
    }
    used = parse(f, op->chunk, op->data, (size_t)result, INT32_MAX);
    if (used < (size_t)result && f->pipe.state == SPK_PIPE_ATTACHED)
        spk_framing_keep_left(f, op->chunk, op->data + used, (size_t)result - used);
    if (f->moved_in)
        return;
    if (f->may_move)
        spk_framing_consider_moving(f);
    if (f->left == NULL && f->pipe.held == NULL)
        arm_recv(f);
    else
        spk_pipe_stall(&f->pipe);
}

static void
on_time(struct spk_timer *timer)
{
    struct spk_framing *f = SPK_OWNER(timer, struct spk_framing, timer);
    struct spk_engine *e = spk_framing_engine(f);

    if (f->pipe.state == SPK_PIPE_STARTING) {
        spk_pipe_shut(&f->pipe, SPOKE_ETIMEDOUT);
        return;
    }
    /* Timers come before reads: if the engine was not driven for a while the rest may be there. */
    if (!f->is_late && spk_timer_set(e, timer, spk_engine_now(e) + LATE_NS) == 0) {
        f->is_late = true;
        return;
    }
    spk_pipe_fell_silent(&f->pipe);
}

/* What arrived whole is the user's, also if nobody has asked for it yet: as much as the queue
 * takes.  Where messages are taken one by one nothing is given any more: the pattern has parted
 * from this pipe.  That is no loss where the peer ended the connection, since its end is read
 * behind all that it sent; it is where we did, or a write failed. */
void
spk_framing_deliver_left(struct spk_framing *f)
{
    size_t at = 0, cost, head_size = spk_framing_head_size(f);
    int room;

    if (f->left != NULL && f->wire != NULL)
        f->wire->deliver_left(f);
    while (f->left != NULL && f->wire == NULL && f->body == NULL && f->head_have == 0 &&
           f->left_size - at >= head_size &&
           (room = spk_pipe_room(&f->pipe, UINT32_MAX, &cost)) > 0) {
        const uint8_t *head = f->left_data + at;
        uint64_t length;
        spoke_msg *m;

        if (parse_run(f, f->left_data, f->left_size, &at, room, cost) > 0)
            continue;
        length = spk_get64(head + (head_size - 8));
        if ((f->type_byte && head[0] != SPK_TYPE_MESSAGE) ||
            length > f->left_size - at - head_size || !spk_pipe_length_is_fine(&f->pipe, length) ||
            (m = spk_framing_whole_message(f->left, f->left_data + at + head_size,
                                           (size_t)length)) == NULL)
            break;
        spk_pipe_received(&f->pipe, m);
        at += head_size + (size_t)length;
    }
    forget_left(f);
}

void
spk_framing_drop_in(struct spk_framing *f)
{
    forget_left(f);
    spoke_msg_free(f->body);
    f->body = NULL;
}

void
spk_framing_in_init(struct spk_framing *f)
{
    spk_op_init(&f->recv_op, on_received);
    spk_timer_init(&f->timer, on_time);
    f->idle_ns = f->pipe.endpoint->options.idle_ns;
}
