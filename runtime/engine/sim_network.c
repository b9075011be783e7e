/* SPDX-License-Identifier: MIT */
/* The network of a simulated world: addresses, listeners, connections, bytes on their way.
 * sim_world.h has the picture.
 *
 * Each direction of a connection is a list of segments that arrive in order, each after a latency
 * of its own; one event per direction stands for the first of them.  What the sender's buffer
 * counts is everything that is not read yet. */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "runtime/engine/sim_world.h"

static spoke_ns
soon(struct spoke_sim *w)
{
    return w->now + spk_sim_latency(w);
}

/* By chance, but not twice in a row: whoever tries again gets on. */
static bool
fails_once(struct spoke_sim *w, bool *spared, uint32_t per_1000, uint64_t *count)
{
    *spared = !*spared && spk_sim_chance(w, per_1000);
    *count += *spared ? 1 : 0;
    return *spared;
}

/* ---- handles ---- */

static size_t
find_place(const struct spoke_sim *w, int number)
{
    size_t low = 0, high = w->numbered_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (w->numbered[middle]->number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct sim_handle *
spk_sim_handle(struct spoke_sim *w, int number)
{
    size_t place = find_place(w, number);

    if (place < w->numbered_count && w->numbered[place]->number == number)
        return w->numbered[place];
    w->misuses++;
    return NULL;
}

/* Numbers only grow, so that one that was closed is recognised. */
static int
give_number(struct sim_handle *h)
{
    struct spoke_sim *w = h->node->world;
    size_t room = w->numbered_room * 2 + 16;
    struct sim_handle **numbered;

    if (w->numbered_count == w->numbered_room) {
        if ((numbered = realloc(w->numbered, room * sizeof(struct sim_handle *))) == NULL)
            return SPOKE_EMFILE;
        w->numbered = numbered;
        w->numbered_room = room;
    }
    h->number = w->next_number++;
    w->numbered[w->numbered_count++] = h;
    return h->number;
}

static void
take_number(struct sim_handle *h)
{
    struct spoke_sim *w = h->node->world;
    size_t place = find_place(w, h->number);

    if (h->number == 0)
        return;
    w->numbered_count--;
    memmove(w->numbered + place, w->numbered + place + 1,
            (w->numbered_count - place) * sizeof(struct sim_handle *));
}

static void on_arrival(struct sim_event *event);

#define EVENTS_OF_A_HANDLE 3

static struct sim_handle *
new_handle(struct sim_node *node, int family)
{
    struct sim_handle *h = calloc(1, sizeof *h);

    if (h == NULL)
        return NULL;
    if (!spk_sim_reserve_events(node->world, EVENTS_OF_A_HANDLE)) {
        free(h);
        return NULL;
    }
    h->node = node;
    h->family = family;
    h->local.ss_family = (sa_family_t)family;
    h->local_size = sizeof(sa_family_t);
    h->connect.index = h->sent.index = h->in.arrival.index = SIM_NOT_SET;
    h->in.arrival.fire = on_arrival;
    h->in.moving_tail = &h->in.moving;
    h->in.arrived_tail = &h->in.arrived;
    for (size_t kind = 0; kind < sizeof h->ops / sizeof h->ops[0]; kind++) {
        spk_list_init(&h->ops[kind].link);
        h->ops[kind].h = h;
    }
    spk_list_init(&h->accepted);
    spk_list_init(&h->knocking);
    spk_list_init(&h->queue);
    spk_list_append(&node->world->handles, &h->link);
    return h;
}

static void
free_segments(struct sim_segment *segment)
{
    while (segment != NULL) {
        struct sim_segment *next = segment->next;

        free(segment);
        segment = next;
    }
}

static void
empty_flow(struct spoke_sim *w, struct sim_flow *flow)
{
    free_segments(flow->moving);
    free_segments(flow->arrived);
    flow->moving = flow->arrived = NULL;
    flow->moving_tail = &flow->moving;
    flow->arrived_tail = &flow->arrived;
    flow->held = flow->readable = 0;
    spk_sim_event_clear(w, &flow->arrival);
}

int
spk_sim_socket(struct sim_node *node, int family, struct sim_handle **out)
{
    struct spoke_sim *w = node->world;
    int number;

    if (node->killed)
        return SPOKE_EMFILE;
    if (family != AF_UNIX && family != AF_INET && family != AF_INET6)
        return SPOKE_ENOTSUP;
    if (fails_once(w, &node->spared_socket, w->config.emfile, &w->report.faults.emfile))
        return SPOKE_EMFILE;
    if ((*out = new_handle(node, family)) == NULL)
        return SPOKE_ENOMEM;
    if ((number = give_number(*out)) < 0) {
        spk_sim_close_handle(*out);
        return number;
    }
    spk_sim_note(w, SIM_DID_SOCKET, node->number, number);
    return 0;
}

/* ---- addresses ---- */

static struct sockaddr_in *
as_in(const struct sockaddr_storage *address)
{
    return (struct sockaddr_in *)(uintptr_t)address;
}

static struct sockaddr_in6 *
as_in6(const struct sockaddr_storage *address)
{
    return (struct sockaddr_in6 *)(uintptr_t)address;
}

static in_port_t *
port_of(struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? &as_in6(address)->sin6_port : &as_in(address)->sin_port;
}

static bool
is_wildcard(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return memcmp(&as_in6(address)->sin6_addr, &in6addr_any, sizeof in6addr_any) == 0;
    return as_in(address)->sin_addr.s_addr == htonl(INADDR_ANY);
}

/* A path ends at its NUL; an abstract name counts whole. */
static socklen_t
unix_size(const struct sockaddr *address, socklen_t size)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)address;
    const size_t start = offsetof(struct sockaddr_un, sun_path);

    if (size <= start || un->sun_path[0] == '\0')
        return size;
    return (socklen_t)(start + strnlen(un->sun_path, size - start));
}

static int
set_address(struct sockaddr_storage *out, socklen_t *out_size, int family,
            const struct sockaddr *address, socklen_t size)
{
    if (size > sizeof *out || size < sizeof(sa_family_t) || address->sa_family != family)
        return SPOKE_EINVAL;
    if (family == AF_UNIX)
        size = unix_size(address, size);
    else if (size < (family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)))
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    memcpy(out, address, size);
    *out_size = size;
    return 0;
}

/* Would a dial of `b` reach one that is bound to `a`, or a bind of `b` collide with it? */
static bool
meets(const struct sim_handle *a, const struct sockaddr_storage *b, socklen_t b_size)
{
    const struct sockaddr_storage *mine = &a->local;

    if (a->family == AF_UNIX || b->ss_family == AF_UNIX)
        return a->family == b->ss_family && a->local_size == b_size && memcmp(mine, b, b_size) == 0;
    if (*port_of((struct sockaddr_storage *)(uintptr_t)mine) !=
        *port_of((struct sockaddr_storage *)(uintptr_t)b))
        return false;
    if (a->family != b->ss_family)
        return a->family == AF_INET6 && !a->v6only && is_wildcard(mine);
    if (is_wildcard(mine) || is_wildcard(b))
        return true;
    if (a->family == AF_INET)
        return as_in(mine)->sin_addr.s_addr == as_in(b)->sin_addr.s_addr;
    return memcmp(&as_in6(mine)->sin6_addr, &as_in6(b)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

static struct sim_handle *
find_bound(struct spoke_sim *w, const struct sockaddr_storage *address, socklen_t size,
           bool listening)
{
    SPK_LIST_EACH(link, &w->handles)
    {
        struct sim_handle *h = SPK_OWNER(link, struct sim_handle, link);

        if (h->bound && (h->state == SIM_LISTENING || (!listening && h->state == SIM_NEW)) &&
            meets(h, address, size))
            return h;
    }
    return NULL;
}

/* The next number that nobody uses. */
static in_port_t
free_port(struct spoke_sim *w)
{
    for (;;) {
        bool used = false;

        w->next_port = w->next_port == UINT16_MAX ? 32768 : (uint16_t)(w->next_port + 1);
        SPK_LIST_EACH(link, &w->handles)
        {
            struct sim_handle *h = SPK_OWNER(link, struct sim_handle, link);

            used |= h->family != AF_UNIX && h->bound && *port_of(&h->local) == htons(w->next_port);
        }
        if (!used)
            return htons(w->next_port);
    }
}

int
spk_sim_bind(struct sim_handle *h, const struct sockaddr *address, socklen_t size)
{
    struct sockaddr_storage local;
    socklen_t local_size;
    int rc;

    if (h->state != SIM_NEW || h->bound)
        return SPOKE_EINVAL;
    if ((rc = set_address(&local, &local_size, h->family, address, size)) != 0)
        return rc;
    if (h->family != AF_UNIX && *port_of(&local) == 0)
        *port_of(&local) = free_port(h->node->world);
    if (find_bound(h->node->world, &local, local_size, false) != NULL)
        return SPOKE_EADDRINUSE;
    h->local = local;
    h->local_size = local_size;
    h->bound = true;
    return 0;
}

/* A dialer on the internet gets an address of its own on the loopback interface. */
static void
name_dialer(struct sim_handle *h)
{
    if (h->bound || h->family == AF_UNIX)
        return;
    h->local_size = h->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    if (h->family == AF_INET)
        as_in(&h->local)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        as_in6(&h->local)->sin6_addr = in6addr_loopback;
    *port_of(&h->local) = free_port(h->node->world);
}

int
spk_sim_listen(struct sim_handle *h, int backlog)
{
    if (h->state != SIM_NEW || !h->bound)
        return SPOKE_EINVAL;
    h->state = SIM_LISTENING;
    h->backlog = backlog < 1 ? 1 : backlog;
    spk_sim_note(h->node->world, SIM_DID_LISTEN, h->number, backlog);
    return 0;
}

/* ---- connecting ---- */

static bool
park_if_cut(struct sim_handle *h, struct sim_event *event)
{
    event->parked = h->remote_node != NULL &&
                    spk_sim_is_cut(h->node->world, h->node, h->remote_node);
    return event->parked;
}

static void
on_answer(struct sim_event *event)
{
    struct sim_handle *h = SPK_OWNER(event, struct sim_handle, connect);

    if (park_if_cut(h, event))
        return;
    spk_sim_note(h->node->world, SIM_DID_ANSWER, h->number, h->answer);
    h->answered = true;
    h->state = h->answer == 0 ? SIM_CONNECTED : SIM_NEW;
    spk_sim_wake(h, SPK_OP_CONNECT);
}

static void
answer(struct sim_handle *h, int rc)
{
    struct spoke_sim *w = h->node->world;

    h->answer = rc;
    h->connect.fire = on_answer;
    h->in.last = soon(w); /* no byte overtakes it */
    spk_sim_event_set(w, &h->connect, h->in.last);
}

/* The dialer gets its other end, which waits to be accepted. */
static void
admit(struct sim_handle *listener, struct sim_handle *h)
{
    struct sim_handle *other = new_handle(listener->node, h->family);

    if (other == NULL) {
        answer(h, SPOKE_ECONNREFUSED);
        return;
    }
    other->state = SIM_CONNECTED;
    other->local = h->remote;
    other->local_size = h->remote_size;
    other->remote = h->local;
    other->remote_size = h->local_size;
    other->remote_node = h->node;
    other->peer = h;
    h->peer = other;
    h->remote_node = listener->node;
    spk_list_append(&listener->accepted, &other->queue);
    listener->backlog_used++;
    spk_sim_wake(listener, SPK_OP_ACCEPT);
    answer(h, 0);
}

static void
on_knock(struct sim_event *event)
{
    struct sim_handle *h = SPK_OWNER(event, struct sim_handle, connect);
    struct spoke_sim *w = h->node->world;
    struct sim_handle *listener = find_bound(w, &h->remote, h->remote_size, true);

    h->remote_node = listener != NULL ? listener->node : NULL;
    if (park_if_cut(h, event))
        return;
    spk_sim_note(w, SIM_DID_KNOCK, h->number, listener != NULL ? listener->number : 0);
    if (listener == NULL) {
        answer(h, SPOKE_ECONNREFUSED);
    } else if (spk_sim_chance(w, w->config.refuse)) {
        w->report.faults.refuse++;
        answer(h, SPOKE_ECONNREFUSED);
    } else if (listener->backlog_used >= listener->backlog) {
        spk_list_append(&listener->knocking, &h->queue);
    } else {
        admit(listener, h);
    }
}

void
spk_sim_connect(struct sim_handle *h, const struct sockaddr *address, socklen_t size)
{
    struct spoke_sim *w = h->node->world;
    int rc = SPOKE_EINVAL;

    h->answered = false;
    if (h->state == SIM_NEW)
        rc = set_address(&h->remote, &h->remote_size, h->family, address, size);
    if (rc != 0) {
        h->answer = rc;
        h->answered = true;
        spk_sim_wake(h, SPK_OP_CONNECT);
        return;
    }
    name_dialer(h);
    h->state = SIM_CONNECTING;
    h->connect.fire = on_knock;
    spk_sim_event_set(w, &h->connect, soon(w));
}

int
spk_sim_accept(struct sim_handle *h)
{
    struct spoke_sim *w = h->node->world;
    struct sim_handle *other;
    struct spk_link *next;
    int number;

    if (h->state != SIM_LISTENING)
        return h->state == SIM_DEAD ? SPOKE_ECONNRESET : SPOKE_EINVAL;
    if (spk_list_empty(&h->accepted))
        return SPOKE_EAGAIN;
    if (fails_once(w, &h->spared[SPK_OP_ACCEPT], w->config.emfile, &w->report.faults.emfile))
        return SPOKE_EMFILE;
    other = SPK_OWNER(h->accepted.next, struct sim_handle, queue);
    if ((number = give_number(other)) < 0)
        return number;
    spk_list_remove(&other->queue);
    h->backlog_used--;
    if ((next = spk_list_take(&h->knocking)) != NULL)
        admit(h, SPK_OWNER(next, struct sim_handle, queue));
    return number;
}

/* ---- bytes ---- */

static void
expect_next(struct sim_handle *h)
{
    struct sim_flow *flow = &h->in;

    if (flow->arrival.index != SIM_NOT_SET || flow->arrival.parked)
        return;
    if (flow->moving != NULL)
        spk_sim_event_set(h->node->world, &flow->arrival, flow->moving->when);
    else if (flow->end != SIM_OPEN && flow->ended == SIM_OPEN)
        spk_sim_event_set(h->node->world, &flow->arrival, flow->end_when);
}

/* One end of a connection that has died. */
static void
reset_end(struct sim_handle *h)
{
    empty_flow(h->node->world, &h->in);
    h->peer = NULL;
    h->in.end = h->in.ended = SIM_RESET;
    spk_sim_wake(h, SPK_OP_RECV);
    spk_sim_wake(h, SPK_OP_SEND);
}

static void
reset_connection(struct sim_handle *h)
{
    struct sim_handle *peer = h->peer;

    spk_sim_note(h->node->world, SIM_DID_RESET, h->number, peer != NULL ? peer->number : 0);
    reset_end(h);
    if (peer != NULL)
        reset_end(peer);
}

static void
on_arrival(struct sim_event *event)
{
    struct sim_handle *h = SPK_OWNER(event, struct sim_handle, in.arrival);
    struct spoke_sim *w = h->node->world;
    struct sim_flow *flow = &h->in;
    struct sim_segment *segment = flow->moving;

    if (park_if_cut(h, event))
        return;
    if (segment == NULL) {
        spk_sim_note(w, SIM_DID_END, h->number, flow->end);
        flow->ended = flow->end;
        spk_sim_wake(h, SPK_OP_RECV);
        spk_sim_wake(h, SPK_OP_SEND);
        return;
    }
    if (spk_sim_chance(w, w->config.reset)) {
        w->report.faults.reset++;
        reset_connection(h);
        return;
    }
    spk_sim_note(w, SIM_DID_ARRIVE, h->number, (int64_t)segment->size);
    if (segment->number < w->latest_arrived)
        w->report.faults.reordered++;
    else
        w->latest_arrived = segment->number;
    if ((flow->moving = segment->next) == NULL)
        flow->moving_tail = &flow->moving;
    segment->next = NULL;
    *flow->arrived_tail = segment;
    flow->arrived_tail = &segment->next;
    flow->readable += segment->size;
    expect_next(h);
    spk_sim_wake(h, SPK_OP_RECV);
}

/* What the reader sees after the last byte. */
static void
end_flow(struct sim_handle *reader, enum sim_end end)
{
    struct spoke_sim *w = reader->node->world;
    struct sim_flow *flow = &reader->in;
    spoke_ns when = soon(w);

    reader->peer = NULL;
    flow->end = end;
    flow->end_when = when > flow->last ? when : flow->last;
    expect_next(reader);
    spk_sim_wake(reader, SPK_OP_SEND); /* what nobody reads any more goes out at once */
}

static size_t
some_of(struct spoke_sim *w, size_t size, uint32_t per_1000, uint64_t *count)
{
    if (size <= 1 || !spk_sim_chance(w, per_1000))
        return size;
    ++*count;
    return 1 + (size_t)spk_sim_below(w, size - 1);
}

static void
take_bytes(struct sim_flow *flow, uint8_t *to, size_t size)
{
    struct sim_segment *segment;

    flow->held -= size;
    flow->readable -= size;
    while (size > 0 && (segment = flow->arrived) != NULL) {
        size_t n = segment->size - segment->read;

        if (n > size)
            n = size;
        memcpy(to, segment->bytes + segment->read, n);
        segment->read += n;
        to += n;
        size -= n;
        if (segment->read < segment->size)
            break;
        if ((flow->arrived = segment->next) == NULL)
            flow->arrived_tail = &flow->arrived;
        free(segment);
    }
}

int64_t
spk_sim_read(struct sim_handle *h, void *buffer, size_t size)
{
    struct spoke_sim *w = h->node->world;

    if (h->state == SIM_DEAD)
        return SPOKE_ECONNRESET;
    if (h->state != SIM_CONNECTED) {
        w->misuses++;
        return SPOKE_EINVAL;
    }
    if (h->in.readable == 0)
        return h->in.ended == SIM_OPEN  ? SPOKE_EAGAIN
               : h->in.ended == SIM_EOF ? 0
                                        : SPOKE_ECONNRESET;
    if (fails_once(w, &h->spared[SPK_OP_RECV], w->config.enobufs, &w->report.faults.enobufs))
        return SPOKE_ENOBUFS;
    if (size > h->in.readable)
        size = h->in.readable;
    size = some_of(w, size, w->config.short_read, &w->report.faults.short_read);
    take_bytes(&h->in, buffer, size);
    spk_sim_note(w, SIM_DID_READ, h->number, (int64_t)size);
    if (h->peer != NULL)
        spk_sim_wake(h->peer, SPK_OP_SEND);
    return (int64_t)size;
}

/* Nobody reads any more, and word of that has come. */
static bool
is_cut_off(const struct sim_handle *h)
{
    return h->in.ended == SIM_RESET || (h->in.ended == SIM_EOF && h->peer == NULL) ||
           (h->peer != NULL && h->peer->deaf);
}

static size_t
room_for(const struct sim_handle *h)
{
    size_t most = h->node->world->config.buffer_bytes;

    if (h->peer == NULL)
        return SIZE_MAX;
    return h->peer->in.held < most ? most - h->peer->in.held : 0;
}

static int
send_segment(struct sim_handle *reader, const struct iovec *iov, size_t size)
{
    struct spoke_sim *w = reader->node->world;
    struct sim_flow *flow = &reader->in;
    struct sim_segment *segment = malloc(sizeof *segment + size);
    spoke_ns when = soon(w);

    if (segment == NULL)
        return SPOKE_ENOBUFS;
    flow->last = segment->when = when > flow->last ? when : flow->last;
    segment->next = NULL;
    segment->number = ++w->segments_sent;
    segment->size = size;
    segment->read = 0;
    for (size_t done = 0; done < size; iov++) {
        size_t n = iov->iov_len < size - done ? iov->iov_len : size - done;

        if (n > 0)
            memcpy(segment->bytes + done, iov->iov_base, n);
        done += n;
    }
    *flow->moving_tail = segment;
    flow->moving_tail = &segment->next;
    flow->held += size;
    expect_next(reader);
    return 0;
}

int64_t
spk_sim_write(struct sim_handle *h, const struct iovec *iov, size_t count)
{
    struct spoke_sim *w = h->node->world;
    size_t size = 0;
    int rc;

    if (h->state == SIM_DEAD || is_cut_off(h))
        return SPOKE_ECONNRESET;
    if (h->state != SIM_CONNECTED) {
        w->misuses++;
        return SPOKE_EINVAL;
    }
    for (size_t i = 0; i < count; i++)
        size += iov[i].iov_len;
    if (size == 0)
        return 0;
    if (size > room_for(h))
        size = room_for(h);
    if (size == 0)
        return SPOKE_EAGAIN;
    if (fails_once(w, &h->spared[SPK_OP_SEND], w->config.enobufs, &w->report.faults.enobufs))
        return SPOKE_ENOBUFS;
    size = some_of(w, size, w->config.short_write, &w->report.faults.short_write);
    if (h->peer != NULL && (rc = send_segment(h->peer, iov, size)) != 0)
        return rc;
    spk_sim_note(w, SIM_DID_WRITE, h->number, (int64_t)size);
    return (int64_t)size;
}

bool
spk_sim_can(const struct sim_handle *h, enum spk_op_kind kind)
{
    if (h->state == SIM_DEAD)
        return true;
    switch (kind) {
    case SPK_OP_ACCEPT: return h->state != SIM_LISTENING || !spk_list_empty(&h->accepted);
    case SPK_OP_CONNECT: return h->answered;
    case SPK_OP_RECV:
        return h->state != SIM_CONNECTED || h->in.readable > 0 || h->in.ended != SIM_OPEN;
    case SPK_OP_SEND: return h->state != SIM_CONNECTED || is_cut_off(h) || room_for(h) > 0;
    case SPK_OP_READABLE:
    case SPK_OP_WATCH:
    case SPK_OP_OTHER: break; /* these do not come here */
    }
    return true;
}

/* ---- the end ---- */

/* Those who wait at a listener that goes away. */
static void
turn_away(struct sim_handle *listener)
{
    struct spk_link *link;

    for (struct spk_link *next, *at = listener->accepted.next; at != &listener->accepted;
         at = next) {
        struct sim_handle *h = SPK_OWNER(at, struct sim_handle, queue);

        next = at->next;
        if (h->peer != NULL)
            end_flow(h->peer, SIM_RESET);
        h->peer = NULL;
        spk_sim_close_handle(h);
    }
    spk_list_init(&listener->accepted);
    while ((link = spk_list_take(&listener->knocking)) != NULL)
        answer(SPK_OWNER(link, struct sim_handle, queue), SPOKE_ECONNREFUSED);
}

static void
let_go(struct sim_handle *h, enum sim_end end)
{
    struct spoke_sim *w = h->node->world;

    turn_away(h);
    if (h->state == SIM_CONNECTING)
        spk_list_remove(&h->queue);
    if (h->peer != NULL)
        end_flow(h->peer, end);
    h->peer = NULL;
    spk_sim_event_clear(w, &h->connect);
    spk_sim_event_clear(w, &h->sent);
    empty_flow(w, &h->in);
}

int
spk_sim_shutdown(struct sim_handle *h, bool reading)
{
    struct sim_flow *flow;
    spoke_ns when;

    if (h->state != SIM_CONNECTED || h->peer == NULL)
        return 0;
    if (reading && h->family == AF_UNIX) { /* others tell nobody */
        h->deaf = true;
        spk_sim_wake(h->peer, SPK_OP_SEND);
    }
    if (reading || h->peer->in.end != SIM_OPEN)
        return 0;
    flow = &h->peer->in;
    when = soon(h->node->world);
    flow->end = SIM_EOF;
    flow->end_when = when > flow->last ? when : flow->last;
    expect_next(h->peer);
    return 0;
}

/* As a kernel does it: who leaves bytes unread resets the connection. */
void
spk_sim_close_handle(struct sim_handle *h)
{
    struct spoke_sim *w = h->node->world;

    if (h->number != 0)
        spk_sim_note(w, SIM_DID_CLOSE, h->number, 0);
    let_go(h, h->in.readable > 0 || h->resets ? SIM_RESET : SIM_EOF);
    take_number(h);
    spk_list_remove(&h->link);
    spk_sim_reserve_events(w, -EVENTS_OF_A_HANDLE);
    free(h);
}

void
spk_sim_die(struct sim_handle *h)
{
    if (h->state == SIM_DEAD)
        return;
    let_go(h, SIM_RESET);
    h->state = SIM_DEAD;
}

static void
unpark(struct sim_handle *h, struct sim_event *event)
{
    struct spoke_sim *w = h->node->world;

    if (event->parked && !spk_sim_is_cut(w, h->node, h->remote_node))
        spk_sim_event_set(w, event, w->now);
}

void
spk_sim_unpark(struct spoke_sim *w)
{
    SPK_LIST_EACH(link, &w->handles)
    {
        struct sim_handle *h = SPK_OWNER(link, struct sim_handle, link);

        unpark(h, &h->connect);
        unpark(h, &h->in.arrival);
    }
}
