/* SPDX-License-Identifier: MIT */
#include "transports/ws/in.h"

#include <string.h>

#define EMPTY_MOST 1000u /* frames one after the other that bring nothing */

static enum ws_in_event
bad(struct ws_in *in, unsigned code)
{
    in->code = code;
    return WS_IN_BAD;
}

static enum ws_in_event
begin_frame(struct ws_in *in, const struct ws_head *head)
{
    if ((head->opcode == WS_CONTINUATION) != in->in_message)
        return bad(in, WS_PROTOCOL_ERROR);
    if (head->opcode == WS_TEXT && !in->takes_text)
        return bad(in, WS_UNWANTED_DATA);
    if (!in->in_message) {
        in->is_text = head->opcode == WS_TEXT;
        in->utf8 = (struct ws_utf8){0};
    }
    in->empty = head->length == 0 && !head->fin ? in->empty + 1 : 0;
    if (in->empty > EMPTY_MOST)
        return bad(in, WS_POLICY);
    in->head = *head;
    in->left = head->length;
    in->at = 0;
    in->in_message = !head->fin || head->length > 0;
    if (head->length == 0 && head->fin && in->is_text && !ws_utf8_is_whole(&in->utf8))
        return bad(in, WS_BAD_TEXT);
    return WS_IN_FRAME;
}

static enum ws_in_event
end_control(struct ws_in *in)
{
    in->in_control = false;
    switch (in->control_head.opcode) {
    case WS_PING: return WS_IN_PING;
    case WS_PONG: return WS_IN_PONG;
    default:
        return ws_close_is_fine(in->control, in->control_size) ? WS_IN_CLOSE
                                                               : bad(in, WS_PROTOCOL_ERROR);
    }
}

static enum ws_in_event
go_on_with_control(struct ws_in *in, const uint8_t *data, size_t size, size_t *at)
{
    size_t n = (size_t)in->control_head.length - in->control_size;

    if (n > size - *at)
        n = size - *at;
    ws_mask(in->control + in->control_size, data + *at, n, in->control_head.key, in->control_size);
    in->control_size = (uint8_t)(in->control_size + n);
    *at += n;
    return in->control_size == in->control_head.length ? end_control(in) : WS_IN_MORE;
}

enum ws_in_event
ws_in_next(struct ws_in *in, uint8_t *data, size_t size, size_t *at)
{
    struct ws_head head;
    size_t had = in->have, n = WS_HEAD_MOST - had;
    int used;

    if (in->in_control)
        return go_on_with_control(in, data, size, at);
    if (n > size - *at)
        n = size - *at;
    memcpy(in->bytes + had, data + *at, n);
    used = ws_get_head(&head, in->bytes, had + n, in->masked);
    if (used < 0)
        return bad(in, WS_PROTOCOL_ERROR);
    if (used == 0) {
        in->have = (uint8_t)(had + n);
        *at += n;
        return WS_IN_MORE;
    }
    in->have = 0;
    *at += (size_t)used - had;
    if (head.opcode < WS_CLOSE)
        return begin_frame(in, &head);
    in->control_head = head;
    in->control_size = 0;
    in->in_control = true;
    return go_on_with_control(in, data, size, at);
}

bool
ws_in_take(struct ws_in *in, uint8_t *to, const uint8_t *from, size_t size)
{
    if (in->masked)
        ws_mask(to, from, size, in->head.key, in->at);
    else if (to != from)
        memmove(to, from, size);
    in->at += size;
    in->left -= size;
    if (in->left == 0)
        in->in_message = !in->head.fin;
    if (!in->is_text ||
        (ws_utf8_goes_on(&in->utf8, to, size) && (in->in_message || ws_utf8_is_whole(&in->utf8))))
        return true;
    in->code = WS_BAD_TEXT;
    return false;
}
