/* SPDX-License-Identifier: MIT */
/* The echo program of echo.h: ends of connections that close as the rules say (cancel, wait,
 * close). */
#include "tests/sim/echo.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/engine/handle.h"
#include "tests/support/test.h"

static struct echo *current; /* one at a time */

/* 127.0.0.1:7000 */
static struct sockaddr_in
server_address(void)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(7000), .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

struct spk_engine *
echo_engine(spoke_engine *handle)
{
    return spk_handle_peek(handle, SPK_HANDLE_ENGINE);
}

/* The byte at a place of a client's stream. */
static uint8_t
byte_at(int client, uint32_t place)
{
    return (uint8_t)((uint32_t)client * 31 + place * 7 + place / 251);
}

static void
count_error(struct echo *x, int error)
{
    x->refused += error == SPOKE_ECONNREFUSED;
    x->resets += error == SPOKE_ECONNRESET;
    x->no_buffers += error == SPOKE_ENOBUFS;
    x->no_memory += error == SPOKE_ENOMEM;
    x->no_descriptors += error == SPOKE_EMFILE;
}

static void dial(struct echo *x, int index);

/* Closed once nothing is in flight. */
static void
advance_close(struct echo_conn *c)
{
    struct echo *x = c->echo;

    if (!c->closing || spk_op_busy(&c->connect) || spk_op_busy(&c->recv) || spk_op_busy(&c->send) ||
        c->handle < 0)
        return;
    c->e->backend->close_handle(c->e, c->handle);
    c->handle = -1;
    if (c->is_client && c->received < x->bytes && !x->stopping)
        dial(x, c->index);
}

static void
start_close(struct echo_conn *c)
{
    c->closing = true;
    spk_op_cancel(c->e, &c->connect);
    spk_op_cancel(c->e, &c->recv);
    spk_op_cancel(c->e, &c->send);
    advance_close(c);
}

/* Arm what is idle and of use. */
static void
arm(struct echo_conn *c)
{
    size_t want = sizeof c->out;

    if (c->closing || !c->connected)
        return;
    if (!spk_op_busy(&c->recv) && (c->is_client || c->out_size < sizeof c->out))
        spk_op_recv(c->e, &c->recv, c->handle, c->in,
                    c->is_client ? sizeof c->in : sizeof c->out - c->out_size);
    if (spk_op_busy(&c->send))
        return;
    if (c->is_client) {
        want = c->echo->bytes - c->sent < want ? c->echo->bytes - c->sent : want;
        for (size_t i = 0; i < want; i++)
            c->out[i] = byte_at(c->index, c->sent + (uint32_t)i);
    } else {
        want = c->out_size;
    }
    if (want == 0)
        return;
    c->iov = (struct iovec){c->out, want};
    c->msg = (struct msghdr){.msg_iov = &c->iov, .msg_iovlen = 1};
    spk_op_send(c->e, &c->send, c->handle, &c->msg);
}

static bool
is_passing(int result)
{
    return result == SPOKE_ENOBUFS || result == SPOKE_ENOMEM;
}

static void
on_recv(struct spk_op *op, int result)
{
    struct echo_conn *c = SPK_OWNER(op, struct echo_conn, recv);
    struct echo *x = c->echo;

    count_error(x, result);
    if (result <= 0 && !is_passing(result)) {
        start_close(c);
        return;
    }
    if (result > 0 && (uint32_t)result < x->least_recv)
        x->least_recv = (uint32_t)result;
    for (int i = 0; i < result; i++) {
        if (!c->is_client)
            c->out[c->out_size++] = c->in[i];
        else if (c->in[i] != byte_at(c->index, c->received++))
            x->wrong_bytes++;
    }
    if (c->is_client && c->received == x->bytes) {
        x->done++;
        start_close(c);
    } else {
        arm(c);
        advance_close(c);
    }
}

static void
on_send(struct spk_op *op, int result)
{
    struct echo_conn *c = SPK_OWNER(op, struct echo_conn, send);
    struct echo *x = c->echo;

    count_error(x, result);
    if (result < 0 && !is_passing(result)) {
        start_close(c);
        return;
    }
    if (result > 0 && (uint32_t)result < x->least_send)
        x->least_send = (uint32_t)result;
    if (result > 0 && c->is_client)
        c->sent += (uint32_t)result;
    if (result > 0 && !c->is_client) {
        c->out_size -= (size_t)result;
        memmove(c->out, c->out + result, c->out_size);
    }
    arm(c);
    advance_close(c);
}

static void
on_connect(struct spk_op *op, int result)
{
    struct echo_conn *c = SPK_OWNER(op, struct echo_conn, connect);

    count_error(c->echo, result);
    c->echo->connects += result == 0;
    c->connected = result == 0;
    if (result < 0)
        start_close(c);
    else
        arm(c);
    advance_close(c);
}

static struct echo_conn *
new_conn(struct echo *x, struct spk_engine *e, int handle)
{
    struct echo_conn *c = calloc(1, sizeof *c);

    cr_assert(c != NULL && x->conn_count < ECHO_CONNS, "more than %d connections", ECHO_CONNS);
    x->conns[x->conn_count++] = c;
    c->echo = x;
    c->e = e;
    c->handle = handle;
    spk_op_init(&c->connect, on_connect);
    spk_op_init(&c->recv, on_recv);
    spk_op_init(&c->send, on_send);
    return c;
}

static void
dial(struct echo *x, int index)
{
    struct echo_conn *c;
    int handle = -1, tries = 0;

    while (x->client->backend->socket(x->client, AF_INET, &handle) == SPOKE_EMFILE) {
        x->no_descriptors++;
        cr_assert_lt(++tries, 10);
    }
    c = new_conn(x, x->client, handle);
    c->is_client = true;
    c->index = index;
    spk_op_connect(x->client, &c->connect, handle, (const struct sockaddr *)&x->address,
                   sizeof x->address);
}

static void
on_accept(struct spk_op *op, int result)
{
    struct echo *x = SPK_OWNER(op, struct echo, accept);
    struct echo_conn *c;

    count_error(x, result);
    if (result >= 0) {
        c = new_conn(x, x->server, result);
        c->connected = true;
        if (x->stopping)
            start_close(c);
        else
            arm(c);
    }
    if (op->more)
        return;
    x->accepts_ended++;
    if (!x->stopping) {
        spk_op_accept(x->server, op, x->listener);
    } else {
        x->server->backend->close_handle(x->server, x->listener);
        x->listener = -1;
    }
}

static void
listen_on(struct echo *x)
{
    const struct spk_backend *b = x->server->backend;

    while (b->socket(x->server, AF_INET, &x->listener) == SPOKE_EMFILE)
        x->no_descriptors++;
    cr_assert_eq(
        b->bind(x->server, x->listener, (const struct sockaddr *)&x->address, sizeof x->address),
        0);
    cr_assert_eq(b->listen(x->server, x->listener, 16), 0);
    spk_op_init(&x->accept, on_accept);
    spk_op_accept(x->server, &x->accept, x->listener);
}

/* What is on this engine ends: by our own wish, or because its machine is killed. */
static void
on_engine_close(struct spk_engine *e)
{
    if (e == current->server)
        spk_op_cancel(e, &current->accept);
    for (int i = 0; i < current->conn_count; i++)
        if (current->conns[i]->e == e)
            start_close(current->conns[i]);
}

void
echo_open(struct echo *x, const spoke_sim_config *config, int clients, uint32_t bytes)
{
    memset(x, 0, sizeof *x);
    x->address = server_address();
    x->clients = clients;
    x->bytes = bytes;
    x->least_recv = x->least_send = UINT32_MAX;
    cr_assert_eq(spoke_sim_open(&x->w, config), 0);
    cr_assert_eq(spoke_sim_engine(x->w, &x->server_engine), 0);
    cr_assert_eq(spoke_sim_engine(x->w, &x->client_engine), 0);
    x->server = echo_engine(x->server_engine);
    x->client = echo_engine(x->client_engine);
    x->server->on_close = x->client->on_close = on_engine_close;
    current = x;
    listen_on(x);
    for (int i = 0; i < clients; i++)
        dial(x, i);
}

static bool
all_done(void *ctx)
{
    struct echo *x = ctx;

    return x->done == x->clients;
}

bool
echo_run(struct echo *x, spoke_ns limit_ns)
{
    return spoke_sim_run(x->w, all_done, x, limit_ns) == 1;
}

static bool
all_idle(void *ctx)
{
    struct echo *x = ctx;

    for (int i = 0; i < x->conn_count; i++)
        if (x->conns[i]->handle >= 0)
            return false;
    return x->listener < 0;
}

int
echo_close(struct echo *x, struct spoke_sim_report *report, uint64_t *digest)
{
    int rc;

    x->stopping = true;
    on_engine_close(x->server);
    on_engine_close(x->client);
    cr_assert_eq(spoke_sim_run(x->w, all_idle, x, SPOKE_FOREVER), 1);
    if (digest != NULL)
        *digest = spoke_sim_digest(x->w);
    rc = spoke_sim_close(x->w, report);
    for (int i = 0; i < x->conn_count; i++)
        free(x->conns[i]);
    return rc;
}

uint64_t
echo_whole_run(const spoke_sim_config *config, int clients, uint32_t bytes)
{
    static struct echo x;
    struct spoke_sim_report report;
    uint64_t digest;

    echo_open(&x, config, clients, bytes);
    cr_assert(echo_run(&x, SPOKE_FOREVER), "seed %llu: %d of %d clients have their bytes",
              (unsigned long long)config->seed, x.done, x.clients);
    cr_assert_eq(x.wrong_bytes, 0, "seed %llu", (unsigned long long)config->seed);
    cr_assert_eq(echo_close(&x, &report, &digest), 0, "seed %llu",
                 (unsigned long long)config->seed);
    return digest;
}
