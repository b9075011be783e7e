/* SPDX-License-Identifier: MIT */
/* What `spoke cat` does with its socket.  The main thread alone is here.  It never waits inside the
 * library but in wait_for(), for descriptors, so that a signal or a line of input ends a wait as a
 * message does. */
#include "cat.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "stop.h"
#include "tool.h"

/* How a wait ended: WAIT_END alone, or which descriptors are ready; 0 if the time passed. */
enum { WAIT_TIMEOUT = 0, WAIT_FIRST = 1, WAIT_SECOND = 2, WAIT_END = 4 };

/* The first error is the one to tell. */
static void
note_output_error(struct cat *c)
{
    if (c->output_errno == 0)
        c->output_errno = errno;
}

/* Make what was printed visible.  False if nobody can see it any more: then it is over. */
static bool
flush_output(struct cat *c)
{
    if (fflush(stdout) != 0)
        note_output_error(c);
    if (c->output_errno == 0)
        return true;
    if (c->output_errno == EPIPE) {
        stop_with(SIGPIPE);
    } else if (stop_signal() == 0) {
        tool_output_error(c->output_errno);
        c->status = TOOL_FILE;
    }
    return false;
}

/* Wait until one of two descriptors (-1: none) is readable, or until `deadline`. */
static int
wait_for(struct cat *c, int first, int second, spoke_ns deadline)
{
    struct pollfd fds[] = {
        {.fd = c->stop_fd, .events = POLLIN},
        {.fd = first, .events = POLLIN},
        {.fd = second, .events = POLLIN},
    };
    int ready;

    if (!flush_output(c))
        return WAIT_END;
    do {
        ready = poll(fds, 3, tool_poll_ms(deadline));
    } while (ready < 0 && errno == EINTR);
    if (stop_signal() != 0)
        return WAIT_END;
    return ready <= 0 ? WAIT_TIMEOUT
                      : (fds[1].revents ? WAIT_FIRST : 0) | (fds[2].revents ? WAIT_SECOND : 0);
}

static bool
pause_until(struct cat *c, spoke_ns deadline)
{
    return wait_for(c, -1, -1, deadline) == WAIT_TIMEOUT;
}

static spoke_ns
earlier(spoke_ns a, spoke_ns b)
{
    return a < b ? a : b;
}

static void
fail(struct cat *c, const char *what, int error)
{
    c->status = tool_api_error(what, NULL, error);
}

/* Receive one message before `deadline`.  Gives it, or SPOKE_ECANCELED when it is all over, or an
 * error.  A peer that never lets it wait can keep neither a signal nor a closed output from ending
 * it. */
static int
receive(struct cat *c, spoke_ns deadline, spoke_msg **m)
{
    int rc, wait;

    if (stop_signal() != 0 || (c->output_errno != 0 && !flush_output(c)))
        return SPOKE_ECANCELED;
    while ((rc = spoke_recv(c->socket, m, SPOKE_DONTWAIT)) == SPOKE_EAGAIN) {
        if ((wait = wait_for(c, c->recv_fd, -1, deadline)) != WAIT_FIRST)
            return wait == WAIT_END ? SPOKE_ECANCELED : SPOKE_ETIMEDOUT;
    }
    return rc;
}

static void
print_message(struct cat *c, spoke_msg *m)
{
    format_print(stdout, c->format, spoke_msg_body(m), spoke_msg_size(m));
    if (ferror(stdout))
        note_output_error(c);
    spoke_msg_free(m);
}

/* After a receive that gave no message.  True if that is an ordinary end of receiving. */
static bool
received_enough(struct cat *c, int rc)
{
    if (rc == SPOKE_ETIMEDOUT || rc == SPOKE_ESTATE)
        return true;
    if (rc != SPOKE_ECANCELED)
        fail(c, "receive", rc);
    return false;
}

/* Print up to `limit` messages (0: any number) that arrive before `until`, none later than the
 * receive timeout after the one before.  False if it is all over. */
static bool
print_until(struct cat *c, spoke_ns until, uint64_t limit)
{
    spoke_msg *m;
    int rc;

    for (uint64_t n = 0; limit == 0 || n < limit; n++) {
        rc = receive(c, earlier(until, tool_deadline(c->recv_timeout_ns)), &m);
        if (rc != 0)
            return received_enough(c, rc);
        print_message(c, m);
        if (until != SPOKE_FOREVER && tool_now() >= until)
            break;
    }
    return true;
}

/* Send `m`, which it takes.  False if it is all over. */
static bool
send_message(struct cat *c, spoke_msg *m)
{
    spoke_ns deadline = tool_deadline(c->send_timeout_ns);
    int rc, wait = WAIT_FIRST;

    while ((rc = spoke_send(c->socket, m, SPOKE_DONTWAIT)) == SPOKE_EAGAIN) {
        if ((wait = wait_for(c, c->send_fd, -1, deadline)) != WAIT_FIRST)
            break;
    }
    if (rc == 0)
        return true;
    spoke_msg_free(m);
    if (wait == WAIT_TIMEOUT) {
        tool_error(
            "cannot send: nobody took the message within %.4g s: look at the other side, or allow "
            "more with --send-timeout",
            (double)c->send_timeout_ns / 1e9);
        c->status = TOOL_API;
    } else if (wait == WAIT_FIRST) {
        fail(c, "send", rc);
    }
    return false;
}

/* Read on.  False if it is all over. */
static bool
fill_lines(struct cat *c)
{
    int error = lines_fill(&c->lines);

    if (error == 0 || error == EAGAIN || error == EINTR)
        return stop_signal() == 0;
    tool_error("cannot read the input: %s", strerror(error));
    c->status = TOOL_FILE;
    return false;
}

/* Make a message of a line.  NULL if it is all over. */
static spoke_msg *
line_message(struct cat *c, const char *line, size_t size)
{
    spoke_msg *m;
    int rc;

    if ((rc = spoke_msg_from(&m, line, size)) != 0)
        fail(c, "send a line", rc);
    return m;
}

/* Give the next message to send, waiting for it if it is a line.  NULL if there is none, or it is
 * all over. */
static spoke_msg *
next_message(struct cat *c)
{
    const char *line;
    size_t size;

    if (!c->use_lines)
        return spoke_msg_dup(c->data);
    while (!lines_next(&c->lines, &line, &size)) {
        if (c->lines.ended || wait_for(c, c->lines.fd, -1, SPOKE_FOREVER) == WAIT_END ||
            !fill_lines(c))
            return NULL;
    }
    return line_message(c, line, size);
}

/* Wait until somebody is there: a message sent into the void would be lost when we exit. */
static bool
wait_for_peer(struct cat *c)
{
    switch (wait_for(c, c->attached_fd, -1, tool_deadline(c->send_timeout_ns))) {
    case WAIT_FIRST: return true;
    case WAIT_END: return false;
    default: break;
    }
    tool_error(
        "cannot send: nobody connected within %.4g s: start the other side, or allow more with "
        "--send-timeout",
        (double)c->send_timeout_ns / 1e9);
    c->status = TOOL_API;
    return false;
}

static bool
start_sending(struct cat *c)
{
    return (c->delay_ns == 0 || pause_until(c, tool_deadline(c->delay_ns))) && wait_for_peer(c);
}

void
cat_print(struct cat *c)
{
    print_until(c, SPOKE_FOREVER, c->count);
}

/* Rounds of sending and printing, one each interval. */
static void
repeat(struct cat *c)
{
    bool once = c->interval_ns == SPOKE_FOREVER && !c->use_lines && c->count == 0;
    spoke_ns next;
    spoke_msg *m;

    for (uint64_t round = 1;; round++) {
        next = tool_deadline(c->interval_ns);
        if ((m = next_message(c)) == NULL || !send_message(c, m) || !print_until(c, next, 0))
            return;
        if (once || round == c->count)
            return;
        if (next != SPOKE_FOREVER && !pause_until(c, next))
            return;
    }
}

void
cat_ask(struct cat *c)
{
    /* A request waits for its replier by itself, so there is no need to wait for one first, unless
     * that is to have a limit. */
    if (c->send_timeout_ns != SPOKE_FOREVER ? start_sending(c)
                                            : pause_until(c, tool_deadline(c->delay_ns)))
        repeat(c);
}

void
cat_survey(struct cat *c)
{
    if (start_sending(c))
        repeat(c);
}

/* Print one message if there is one.  Gives 1, 0, or -1 if it is all over. */
static int
print_waiting(struct cat *c)
{
    spoke_msg *m;
    int rc = spoke_recv(c->socket, &m, SPOKE_DONTWAIT);

    if (rc == 0)
        print_message(c, m);
    else if (rc != SPOKE_EAGAIN)
        fail(c, "receive", rc);
    return rc == 0 ? 1 : rc == SPOKE_EAGAIN ? 0 : -1;
}

/* Send *pending, or the next line, if that is possible at once; what is not stays in *pending.  As
 * above. */
static int
send_waiting(struct cat *c, spoke_msg **pending)
{
    const char *line;
    size_t size;
    int rc;

    if (*pending == NULL) {
        if (!lines_next(&c->lines, &line, &size))
            return 0;
        if ((*pending = line_message(c, line, size)) == NULL)
            return -1;
    }
    rc = spoke_send(c->socket, *pending, SPOKE_DONTWAIT);
    if (rc == 0)
        *pending = NULL;
    else if (rc != SPOKE_EAGAIN)
        fail(c, "send", rc);
    return rc == 0 ? 1 : rc == SPOKE_EAGAIN ? 0 : -1;
}

/* Send the lines and print the messages, as they come: neither side must wait for the other's
 * silence. Goes on after the last line only if there is a receive timeout to end it. */
static void
talk_lines(struct cat *c)
{
    spoke_msg *pending = NULL;
    uint64_t printed = 0;
    int got, sent, wait;

    while ((got = print_waiting(c)) >= 0 && (sent = send_waiting(c, &pending)) >= 0) {
        printed += (uint64_t)got;
        if (got > 0 && printed == c->count)
            break;
        if (got == 0 && pending == NULL && sent == 0 && c->lines.ended) {
            if (c->recv_timeout_ns != SPOKE_FOREVER)
                print_until(c, SPOKE_FOREVER, c->count == 0 ? 0 : c->count - printed);
            break;
        }
        wait = wait_for(c, c->recv_fd,
                        pending != NULL  ? c->send_fd
                        : c->lines.ended ? -1
                                         : c->lines.fd,
                        got + sent > 0 ? 0 : SPOKE_FOREVER);
        if (wait == WAIT_END || ((wait & WAIT_SECOND) && pending == NULL && !fill_lines(c)))
            break;
    }
    spoke_msg_free(pending);
}

void
cat_talk(struct cat *c)
{
    spoke_msg *m;

    if (!start_sending(c))
        return;
    if (c->use_lines)
        talk_lines(c);
    else if (c->interval_ns != SPOKE_FOREVER)
        repeat(c);
    else if ((m = next_message(c)) != NULL && send_message(c, m))
        print_until(c, SPOKE_FOREVER, c->count);
}

/* Nothing comes back, so when all is sent it is over, and the close waits until it has left. */
void
cat_give(struct cat *c)
{
    bool once = c->interval_ns == SPOKE_FOREVER && !c->use_lines && c->count == 0;
    spoke_ns next;
    spoke_msg *m;

    if (!start_sending(c))
        return;
    for (uint64_t round = 1;; round++) {
        next = c->interval_ns == SPOKE_FOREVER ? 0 : tool_deadline(c->interval_ns);
        if ((m = next_message(c)) == NULL || !send_message(c, m) || once || round == c->count)
            return;
        if (next == 0 ? stop_signal() != 0 : !pause_until(c, next))
            return;
    }
}

void
cat_answer(struct cat *c)
{
    spoke_msg *m;
    int rc;

    for (uint64_t n = 0; c->count == 0 || n < c->count; n++) {
        if ((rc = receive(c, tool_deadline(c->recv_timeout_ns), &m)) != 0) {
            received_enough(c, rc);
            return;
        }
        print_message(c, m);
        /* Whoever has the answer may count on the request being printed. */
        if (!flush_output(c) || (m = next_message(c)) == NULL || !send_message(c, m))
            return;
    }
}
