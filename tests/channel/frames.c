/* SPDX-License-Identifier: MIT */
/* Frames and metadata by themselves: what is written is read again, however it is cut. */
#include <string.h>

#include "protocols/channel/frame.h"
#include "protocols/channel/meta.h"
#include "tests/channel/sessions.h"

/* One of each kind, with everything that it can say. */
static const struct spk_frame frames[] = {
    {.kind = SPK_FRAME_ACCEPT, .number = UINT64_MAX, .max_message = UINT32_MAX},
    {.kind = SPK_FRAME_ACCEPT, .number = 1, .has_layout = true, .layout = {1, 2, 3, [31] = 9}},
    {.kind = SPK_FRAME_REFUSE, .code = UINT32_MAX, .text = "because"},
    {.kind = SPK_FRAME_CREDIT, .number = 0x0102030405060708},
    {.kind = SPK_FRAME_ACK, .number = 7},
    {.kind = SPK_FRAME_CLOSE, .flags = SPK_FRAME_HANGUP, .number = 8},
    {.kind = SPK_FRAME_ERROR, .code = 1, .text = ""},
    {.kind = SPK_FRAME_SYNC, .number = 9},
};
#define FRAMES (sizeof frames / sizeof frames[0])

static void
check_same(const struct spk_frame *a, const struct spk_frame *b)
{
    cr_assert_eq(a->kind, b->kind);
    cr_assert_eq(a->flags, b->flags);
    cr_assert_eq(a->number, b->number);
    cr_assert_eq(a->code, b->code);
    cr_assert_eq(a->max_message, b->max_message);
    cr_assert_eq(a->has_layout, b->has_layout);
    cr_assert_arr_eq(a->layout, b->layout, sizeof a->layout);
    cr_assert_str_eq(a->text, b->text);
}

Test(frames, there_and_back_in_pieces)
{
    uint8_t bytes[FRAMES * SPK_FRAME_MOST];
    size_t size = 0;

    for (size_t i = 0; i < FRAMES; i++)
        size += spk_frame_encode(bytes + size, &frames[i]);
    for (size_t step = 1; step <= size; step++) {
        struct spk_frame_decoder d;
        size_t count = 0;

        spk_frame_decoder_init(&d, 10);
        cr_assert(spk_frame_between(&d));
        for (size_t from = 0; from < size; from += step) {
            const uint8_t *at = bytes + from;
            const uint8_t *end = bytes + (from + step < size ? from + step : size);
            int event;

            while ((event = spk_frame_decode(&d, &at, end)) == SPK_FRAME_WHOLE)
                check_same(&d.frame, &frames[count++]);
            cr_assert_eq(event, SPK_FRAME_NOTHING);
            cr_assert_eq(at, end);
        }
        cr_assert_eq(count, FRAMES);
        cr_assert(spk_frame_between(&d));
    }
}

/* The longest text there is. */
Test(frames, a_text_of_256_bytes)
{
    struct spk_frame f = {.kind = SPK_FRAME_ERROR, .code = 5};
    struct spk_frame_decoder d;
    uint8_t bytes[SPK_FRAME_MOST];
    const uint8_t *at = bytes;
    size_t size;

    memset(f.text, 'x', SPK_FRAME_TEXT);
    size = spk_frame_encode(bytes, &f);
    spk_frame_decoder_init(&d, 0);
    cr_assert_eq(spk_frame_decode(&d, &at, bytes + size), SPK_FRAME_WHOLE);
    check_same(&d.frame, &f);
}

/* 64 attachments and a payload, in pieces of any size; none of it at the end. */
Test(frames, messages_in_pieces)
{
    const struct spk_frame f = {.kind = SPK_FRAME_MESSAGE, .attachments = 64, .size = 100};
    uint8_t bytes[SPK_FRAME_MOST + 100];
    size_t size = spk_frame_encode(bytes, &f);

    for (uint64_t i = 0; i < 64; i++) {
        const struct spk_frame_attachment a = {
            .kind = SPOKE_ATTACHED_STREAM, .direction = SPOKE_ATTACHED_BOTH, .id = i << 40};

        spk_frame_encode_attachment(bytes + size, &a);
        size += SPK_FRAME_ATTACHMENT;
    }
    for (int i = 0; i < 100; i++)
        bytes[size++] = (uint8_t)i;
    for (size_t step = 1; step <= size; step += step < 40 ? 1 : 37) {
        struct spk_frame_decoder d;
        size_t pieces = 0, attachments = 0;
        bool last = false;

        spk_frame_decoder_init(&d, 100);
        for (size_t from = 0; from < size; from += step) {
            const uint8_t *at = bytes + from;
            const uint8_t *end = bytes + (from + step < size ? from + step : size);
            int event;

            while ((event = spk_frame_decode(&d, &at, end)) > 0) {
                cr_assert(!last);
                if (event == SPK_FRAME_AN_ATTACHMENT)
                    cr_assert_eq(d.attachment.id, (uint64_t)attachments++ << 40);
                for (size_t i = 0; event == SPK_FRAME_PIECE && i < d.piece; i++)
                    cr_assert_eq(d.data[i], pieces++);
                last = event == SPK_FRAME_PIECE && d.last;
            }
            cr_assert_eq(event, SPK_FRAME_NOTHING);
        }
        cr_assert(last);
        cr_assert_eq(attachments, 64);
        cr_assert_eq(pieces, 100);
    }
}

Test(frames, metadata_there_and_back)
{
    static const struct spk_meta metas[] = {
        {.role = SPK_ROLE_CHANNEL, .direction = SPK_META_OPENER_SENDS, .count = -1},
        {.role = SPK_ROLE_CHANNEL,
         .direction = SPK_META_OPENER_RECEIVES,
         .count = -1,
         .limit = UINT64_MAX,
         .max_message = 23,
         .has_type = true,
         .type = {1},
         .has_layout = true,
         .layout = {2}},
        {.role = SPK_ROLE_NESTED, .parent = 24, .direction = SPK_META_OPENER_SENDS, .count = -1},
        {.role = SPK_ROLE_ATTACHED_STREAM, .parent = 1, .direction = SPK_META_BOTH, .count = -1},
        {.role = SPK_ROLE_PORT,
         .direction = SPK_META_OPENER_SENDS,
         .name = "numbers",
         .name_size = 7,
         .count = INT64_MAX,
         .descriptor = "i64",
         .descriptor_size = 3},
        {.role = SPK_ROLE_GATEWAY,
         .direction = SPK_META_BOTH,
         .name = "tcp://db:5432",
         .name_size = 13,
         .count = -1},
        {.role = SPK_ROLE_STREAM, .direction = SPK_META_BOTH, .count = -1},
    };

    for (size_t i = 0; i < sizeof metas / sizeof metas[0]; i++) {
        uint8_t bytes[512], again[512];
        size_t size = spk_meta_encode(bytes, sizeof bytes, &metas[i]);
        struct spk_meta m;

        cr_assert_gt(size, 0);
        cr_assert_eq(spk_meta_decode(bytes, size, &m), SPOKE_MUX_NONE, "%zu", i);
        cr_assert_eq(m.role, metas[i].role);
        cr_assert_eq(m.parent, metas[i].parent);
        cr_assert_eq(m.direction, metas[i].direction);
        cr_assert_eq(m.limit, metas[i].limit);
        cr_assert_eq(m.count, metas[i].count);
        cr_assert_eq(m.name_size, metas[i].name_size);
        cr_assert_eq(spk_meta_encode(again, sizeof again, &m), size);
        cr_assert_arr_eq(again, bytes, size);
        /* Every beginning of it is none. */
        for (size_t part = 0; part < size; part++)
            cr_assert_neq(spk_meta_decode(bytes, part, &m), SPOKE_MUX_NONE);
    }
}
