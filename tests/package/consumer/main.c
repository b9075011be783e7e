/* SPDX-License-Identifier: MIT */
/* Somebody else's program, in the common part of C99 and C++17: a request and its reply through the
 * installed library, in one process, and a struct through a message. */
#include <spoke/spoke.h>

#include <stdio.h>
#include <string.h>

static int
check(int rc, const char *what)
{
    if (rc < 0)
        fprintf(stderr, "consumer: %s: %s\n", what, spoke_strerror(rc));
    return rc >= 0;
}

static int
open_socket(spoke_socket **out, int pattern)
{
    return check(spoke_socket_open(out, pattern, NULL), "open") &&
           check(spoke_socket_set_duration(*out, SPOKE_OPT_RECV_TIMEOUT, 20 * SPOKE_SECOND),
                 "timeout") &&
           check(spoke_socket_set_duration(*out, SPOKE_OPT_SEND_TIMEOUT, 20 * SPOKE_SECOND),
                 "timeout");
}

static int
exchange(spoke_socket *req, spoke_socket *rep)
{
    spoke_msg *message = NULL;
    char answer[16];
    size_t size = sizeof answer;

    if (!check(spoke_listen(rep, "inproc://consumer", NULL, 0), "listen") ||
        !check(spoke_dial(req, "inproc://consumer", NULL, 0), "dial") ||
        !check(spoke_send_bytes(req, "ping", 4, 0), "send the request") ||
        !check(spoke_recv(rep, &message, 0), "receive the request"))
        return 0;
    if (spoke_msg_size(message) != 4 || memcmp(spoke_msg_body(message), "ping", 4) != 0) {
        fprintf(stderr, "consumer: the request is another\n");
        spoke_msg_free(message);
        return 0;
    }
    if (!check(spoke_send(rep, message, 0), "send the reply")) {
        spoke_msg_free(message);
        return 0;
    }
    return check(spoke_recv_bytes(req, answer, &size, 0), "receive the reply") && size == 4 &&
           memcmp(answer, "ping", 4) == 0;
}

#define LINE(FIELD, S)                                                                             \
    FIELD(S, TEXT, article)                                                                        \
    FIELD(S, U32, pieces)
SPOKE_STRUCT(line, LINE);
SPOKE_STRUCT_TYPE(line, LINE);

SPOKE_PLAIN_TYPE(place, ARRAY(2, F64));

#define ORDER(FIELD, S)                                                                            \
    FIELD(S, U64, number)                                                                          \
    FIELD(S, LIST(STRUCT(line)), lines)                                                            \
    FIELD(S, OPTIONAL(TEXT), note)                                                                 \
    FIELD(S, TYPE(place), where)                                                                   \
    FIELD(S, OPTIONAL(SENDER(line)), answers)
SPOKE_STRUCT(order, ORDER);
SPOKE_STRUCT_TYPE(order, ORDER);

struct point {
    int32_t x, y;
};
static spoke_field point_fields[] = {SPOKE_FIELD(struct point, I32, x),
                                     SPOKE_FIELD(struct point, I32, y)};
static spoke_value_type point_type = SPOKE_TYPE_OF(struct point, point_fields);

static int
send_struct(void)
{
    struct line lines[2];
    struct order sent, got;
    spoke_msg *message = NULL;
    spoke_backing backing;
    int good;

    memset(&sent, 0, sizeof sent);
    lines[0].article = spoke_text_of("tea");
    lines[0].pieces = 2;
    lines[1].article = spoke_text_of("milk");
    lines[1].pieces = 1;
    sent.number = 4711;
    sent.lines.items = lines;
    sent.lines.count = 2;
    sent.where[1] = 0.5;
    if (!check(spoke_type_check(&order_type), "check the type") ||
        !check(spoke_type_check(&point_type), "check the other type") ||
        !check(spoke_value_encode(&order_type, SPOKE_FORM_EXACT, &sent, NULL, 0, &message),
               "encode"))
        return 0;
    if (!check(spoke_value_decode(&order_type, SPOKE_FORM_EXACT, message, NULL, 0, &got, &backing),
               "decode")) {
        spoke_msg_free(message);
        return 0;
    }
    good = got.number == 4711 && got.lines.count == 2 && got.lines.items[1].pieces == 1 &&
           got.lines.items[1].article.size == 4 && got.note == NULL && got.where[1] == 0.5;
    spoke_backing_free(&backing);
    return good;
}

int
main(void)
{
    spoke_socket *req = NULL, *rep = NULL;
    int good = strcmp(spoke_version(), SPOKE_VERSION) == 0 && open_socket(&req, SPOKE_REQ) &&
               open_socket(&rep, SPOKE_REP) && exchange(req, rep) && send_struct();

    if (req != NULL)
        good &= check(spoke_socket_close(req), "close");
    if (rep != NULL)
        good &= check(spoke_socket_close(rep), "close");
    return good ? 0 : 1;
}
