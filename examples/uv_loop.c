/* SPDX-License-Identifier: MIT */
/* An engine inside libuv's loop: uv_poll_t watches its descriptor, uv_prepare_t lets it do what
 * calls have left before the loop sleeps.  A timer of libuv's asks, a callback of spoke's answers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include <spoke/spoke.h>

static uv_loop_t loop;
static int asked, answered;

static void
check(int rc, const char *text)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "uv_loop: %s\n", text);
    exit(1);
}

/* Until there is nothing to do: then the descriptor is quiet until there is more. */
static void
turn(spoke_engine *e)
{
    int rc;

    while ((rc = spoke_engine_poll(e, 0)) > 0)
        continue;
    check(rc, spoke_strerror(rc));
}

static void
on_readable(uv_poll_t *poll, int status, int events)
{
    (void)events;
    check(status, "libuv cannot watch the engine");
    turn(poll->data);
}

static void
on_prepare(uv_prepare_t *prepare)
{
    turn(prepare->data);
    if (answered == 3)
        uv_stop(&loop);
}

static void
on_timer(uv_timer_t *timer)
{
    char text[16];
    int size = snprintf(text, sizeof text, "question %d", ++asked);
    int rc = spoke_send_bytes(timer->data, text, (size_t)size, SPOKE_DONTWAIT);

    check(rc, spoke_strerror(rc));
    if (asked == 3)
        uv_timer_stop(timer);
}

static void
on_question(spoke_socket *s, spoke_msg *m, void *ctx)
{
    (void)ctx;
    printf("%.*s\n", (int)spoke_msg_size(m), (char *)spoke_msg_body(m));
    if (spoke_send(s, m, SPOKE_DONTWAIT) != 0)
        spoke_msg_free(m);
}

static void
on_answer(spoke_socket *s, spoke_msg *m, void *ctx)
{
    (void)s;
    (void)ctx;
    answered++;
    spoke_msg_free(m);
}

static void
close_handle(uv_handle_t *handle, void *ctx)
{
    (void)ctx;
    uv_close(handle, NULL);
}

int
main(void)
{
    spoke_engine *e;
    spoke_socket *a, *b;
    uv_poll_t poll;
    uv_prepare_t prepare;
    uv_timer_t timer;

    if (spoke_engine_open(&e, NULL) != 0 || spoke_socket_open(&a, SPOKE_PAIR, e) != 0 ||
        spoke_socket_open(&b, SPOKE_PAIR, e) != 0 ||
        spoke_socket_on_message(a, on_answer, NULL) != 0 ||
        spoke_socket_on_message(b, on_question, NULL) != 0 ||
        spoke_listen(b, "inproc://uv", NULL, 0) != 0 || spoke_dial(a, "inproc://uv", NULL, 0) != 0)
        return 1;
    if (uv_loop_init(&loop) != 0 || uv_poll_init(&loop, &poll, spoke_engine_fd(e)) != 0 ||
        uv_prepare_init(&loop, &prepare) != 0 || uv_timer_init(&loop, &timer) != 0)
        return 1;
    poll.data = prepare.data = e;
    timer.data = a;
    if (uv_poll_start(&poll, UV_READABLE, on_readable) != 0 ||
        uv_prepare_start(&prepare, on_prepare) != 0 ||
        uv_timer_start(&timer, on_timer, 10, 10) != 0)
        return 1;
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_walk(&loop, close_handle, NULL); /* before the engine: its descriptor is watched */
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return spoke_engine_close(e) == 0 ? 0 : 1;
}
