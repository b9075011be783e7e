/* SPDX-License-Identifier: MIT */
/* The wire of channels (docs/wire.md, "Channels"), without I/O.  A frame is a head, the
 * descriptions of what a message carries, and a payload; numbers are big-endian. */
#ifndef SPK_CHANNEL_FRAME_H
#define SPK_CHANNEL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <spoke/channel.h>

#define SPK_FRAME_HEAD       8u
#define SPK_FRAME_ATTACHMENT 12u
#define SPK_FRAME_TEXT       256u /* bytes of a sentence */
/* The longest frame, but for a message's payload. */
#define SPK_FRAME_MOST (SPK_FRAME_HEAD + SPK_FRAME_ATTACHMENT * SPOKE_ATTACHMENTS_PER_MESSAGE)

enum spk_frame_kind {
    SPK_FRAME_ACCEPT = 1,
    SPK_FRAME_REFUSE,
    SPK_FRAME_MESSAGE,
    SPK_FRAME_CREDIT,
    SPK_FRAME_ACK,
    SPK_FRAME_CLOSE,
    SPK_FRAME_ERROR,
    SPK_FRAME_SYNC,
    SPK_FRAME_KINDS
};

enum spk_frame_flag {
    SPK_FRAME_ACK_SOON = 1, /* of a message */
    SPK_FRAME_MAYBE_REPEATED = 2,
    SPK_FRAME_LAYOUT = 4,
    SPK_FRAME_HANGUP = 1 /* of a close */
};

struct spk_frame_attachment {
    uint8_t kind, direction; /* SPOKE_ATTACHED_…, for the recipient */
    uint16_t index;          /* of a descriptor; else 0 */
    uint64_t id;             /* of a stream; else 0 */
};

/* What a frame says.  MESSAGE: its head. */
struct spk_frame {
    uint8_t kind, flags;
    uint16_t attachments;
    uint32_t size;        /* MESSAGE: of its payload */
    uint64_t number;      /* ACCEPT, CREDIT: limit; ACK, SYNC: count; CLOSE: final count */
    uint32_t code;        /* REFUSE, ERROR */
    uint32_t max_message; /* ACCEPT */
    bool has_layout;      /* ACCEPT */
    uint8_t layout[SPOKE_FINGERPRINT];
    char text[SPK_FRAME_TEXT + 1]; /* REFUSE, ERROR */
};

/* Write a frame, of a message its head only, to SPK_FRAME_MOST bytes.  Gives its size. */
size_t spk_frame_encode(uint8_t *to, const struct spk_frame *f);
void spk_frame_encode_attachment(uint8_t to[SPK_FRAME_ATTACHMENT],
                                 const struct spk_frame_attachment *a);

/* ---- decoding ---- */

enum spk_frame_event {
    SPK_FRAME_NOTHING,       /* until more has come */
    SPK_FRAME_WHOLE,         /* `frame`: all of one that is no message */
    SPK_FRAME_OF_MESSAGE,    /* `frame`: what follows is attachments, then pieces */
    SPK_FRAME_AN_ATTACHMENT, /* `attachment` */
    SPK_FRAME_PIECE          /* `data`, `piece` bytes of the payload; `last`: it ends with them */
};

struct spk_frame_decoder {
    uint32_t max_message; /* a longer one is an error */
    /* what is found */
    struct spk_frame frame;
    struct spk_frame_attachment attachment;
    const uint8_t *data;
    size_t piece;
    bool last;
    const char *why; /* a sentence about an error … */
    uint32_t code;   /* … and the code for the peer */
    /* the decoder's own */
    uint8_t bytes[SPK_FRAME_HEAD + 4 + SPK_FRAME_TEXT];
    size_t have, need;
    uint32_t left; /* of the payload */
    uint16_t attachments_left;
    bool in_message, ended;
};

void spk_frame_decoder_init(struct spk_frame_decoder *d, uint32_t max_message);
/* The next event in *at … end, which moves on.  SPOKE_EPROTO: it is no frame; from then on always.
 */
int spk_frame_decode(struct spk_frame_decoder *d, const uint8_t **at, const uint8_t *end);
/* Nothing of a frame has come that is not complete. */
bool spk_frame_between(const struct spk_frame_decoder *d);

#endif
