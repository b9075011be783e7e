/* SPDX-License-Identifier: MIT */
#include "tests/fault/duo.h"

#include <string.h>

#include "tests/support/test.h"

#define ATTEMPTS 50
#define HASTE    (100 * SPOKE_MS) /* what may be lost is waited for so long */
#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN) /* and what may not, so long */

static bool (*has_fired)(void);

void
duo_watch(bool (*function)(void))
{
    has_fired = function;
}

static int
configure(struct duo *d)
{
    int rc = spoke_socket_set_duration(d->rep, SPOKE_OPT_RECV_TIMEOUT, HASTE);

    if (rc == 0)
        rc = spoke_socket_set_duration(d->req, SPOKE_OPT_RECV_TIMEOUT, HASTE);
    if (rc == 0)
        rc = spoke_socket_set_duration(d->req, SPOKE_OPT_SEND_TIMEOUT, PATIENCE);
    if (rc == 0)
        rc = spoke_socket_set_duration(d->req, SPOKE_OPT_RECONNECT, SPOKE_MS);
    if (rc == 0)
        rc = spoke_socket_set_duration(d->req, SPOKE_OPT_RETRY_TIME, 50 * SPOKE_MS);
    if (rc == 0)
        rc = spoke_socket_set_duration(d->req, SPOKE_OPT_HANDSHAKE_TIME, 500 * SPOKE_MS);
    return rc;
}

static bool
fired(void)
{
    return has_fired != NULL && has_fired();
}

/* A slow machine is no failure: it takes as many handshakes as it needs. */
static int
dial(spoke_socket *s, const char *url)
{
    bool fired_before = fired();
    int rc = spoke_dial(s, url, NULL, SPOKE_WAIT_FIRST);

    for (int i = 0; i < ATTEMPTS && rc == SPOKE_ETIMEDOUT && fired() == fired_before; i++)
        rc = spoke_dial(s, url, NULL, SPOKE_WAIT_FIRST);
    return rc;
}

static int
connect_on(struct duo *d, const char *url, spoke_engine *e)
{
    int rc;

    memset(d, 0, sizeof *d);
    d->url = url;
    d->e = e;
    if ((rc = spoke_socket_open(&d->rep, SPOKE_REP, d->e)) != 0)
        goto close_all;
    if ((rc = spoke_socket_open(&d->req, SPOKE_REQ, d->e)) != 0)
        goto close_all;
    if ((rc = configure(d)) != 0)
        goto close_all;
    if ((rc = spoke_listen(d->rep, url, NULL, 0)) != 0)
        goto close_all;
    if ((rc = dial(d->req, url)) != 0)
        goto close_all;
    return 0;
close_all:
    duo_close(d);
    return rc;
}

int
duo_open(struct duo *d, const char *url)
{
    spoke_engine *e;
    int rc = spoke_engine_open(&e, NULL);

    return rc != 0 ? rc : connect_on(d, url, e);
}

int
duo_open_shared(struct duo *d, const char *url)
{
    return connect_on(d, url, NULL);
}

/* Receive.  A slow machine is no loss: unless something fails in this exchange, wait on. */
static int
receive(const struct duo *d, spoke_socket *s, spoke_msg **m)
{
    int rc = spoke_recv(s, m, 0);

    for (spoke_ns waited = HASTE; rc == SPOKE_ETIMEDOUT && waited < PATIENCE; waited += HASTE) {
        if (d->in_haste || (fired() && !d->fired_before))
            break;
        rc = spoke_recv(s, m, 0);
    }
    return rc;
}

/* Receive until the message with this number comes: earlier ones belong to exchanges that failed.
 */
static int
receive_number(const struct duo *d, spoke_socket *s, spoke_msg **m, uint32_t number, size_t size)
{
    for (;;) {
        uint32_t found;
        int rc = receive(d, s, m);
        if (rc != 0)
            return rc;
        if (spoke_msg_size(*m) < sizeof found)
            break;
        memcpy(&found, spoke_msg_body(*m), sizeof found);
        if (found == number && spoke_msg_size(*m) == size)
            return 0;
        if (found >= number)
            break;
        spoke_msg_free(*m);
    }
    spoke_msg_free(*m);
    *m = NULL;
    return SPOKE_EPROTO;
}

static int
exchange(struct duo *d, size_t size, bool in_haste)
{
    static uint32_t number;
    spoke_msg *m;

    d->in_haste = in_haste;
    d->fired_before = fired();
    int rc = spoke_msg_new(&m, size);
    if (rc != 0)
        return rc;
    number++;
    memset(spoke_msg_body(m), (int)(number & 0xff), size);
    memcpy(spoke_msg_body(m), &number, sizeof number);
    if ((rc = spoke_send(d->req, m, 0)) != 0)
        goto free_message;
    if ((rc = receive_number(d, d->rep, &m, number, size)) != 0)
        return rc;
    if ((rc = spoke_send(d->rep, m, 0)) != 0)
        goto free_message;
    if ((rc = receive_number(d, d->req, &m, number, size)) != 0)
        return rc;
    if (size > sizeof number && ((const uint8_t *)spoke_msg_body(m))[size - 1] != (number & 0xff))
        rc = SPOKE_EPROTO;
free_message:
    spoke_msg_free(m);
    return rc;
}

int
duo_exchange(struct duo *d, size_t size)
{
    return exchange(d, size, false);
}

int
duo_recover(struct duo *d, size_t size)
{
    int rc = 0;

    for (int i = 0; i < ATTEMPTS; i++) {
        if ((rc = exchange(d, size, true)) == 0 || rc == SPOKE_EPROTO)
            return rc;
    }
    return rc;
}

int
duo_close(struct duo *d)
{
    int rc = 0, first = 0;

    if (d->req != NULL)
        first = spoke_socket_close(d->req);
    if (d->rep != NULL)
        rc = spoke_socket_close(d->rep);
    first = first != 0 ? first : rc;
    if (d->e != NULL)
        rc = spoke_engine_close(d->e);
    first = first != 0 ? first : rc;
    memset(d, 0, sizeof *d);
    return first;
}
