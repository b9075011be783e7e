/* SPDX-License-Identifier: MIT */
/* The two wires of multiplexers, as bytes: docs/wire.md.  Nothing here does I/O, allocates, or
 * knows a stream; what a message means is in.c's matter.  The compatible wire is a part of the
 * native one. */
#ifndef SPK_STREAM_MUX_WIRE_H
#define SPK_STREAM_MUX_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum spk_mux_kind {
    SPK_MUX_HEARTBEAT,
    SPK_MUX_OPEN,        /* id, window */
    SPK_MUX_ACCEPT,      /* id, window */
    SPK_MUX_DATA,        /* id, u16 length, bytes */
    SPK_MUX_CREDIT,      /* id, amount */
    SPK_MUX_CLOSE_WRITE, /* id */
    SPK_MUX_CLOSE,       /* id */
    SPK_MUX_COMPATIBLE_KINDS,
    SPK_MUX_OPEN_META = SPK_MUX_COMPATIBLE_KINDS, /* id, window, length, metadata */
    SPK_MUX_RESET,                                /* id, code */
    SPK_MUX_STOP_READING,                         /* id, code */
    SPK_MUX_GO_AWAY,                              /* last id, code, u8 length, text */
    SPK_MUX_PING,                                 /* 8 bytes */
    SPK_MUX_PONG,                                 /* the same 8 bytes */
    SPK_MUX_DATA_FD,   /* id, u8 n, u16 length, bytes with n descriptors */
    SPK_MUX_FD_CREDIT, /* amount */
    SPK_MUX_KINDS,
    /* Not on the wire: what the decoder gives besides. */
    SPK_MUX_PREFACE, /* `bytes` are checked, and read with spk_mux_read_preface() */
    SPK_MUX_PIECE    /* of the bytes that follow DATA, OPEN_META or GO_AWAY */
};

#define SPK_MUX_PREFACE_BYTES 16u
#define SPK_MUX_META_MOST     4096u
#define SPK_MUX_DATA_MOST     65535u
#define SPK_MUX_FDS_MOST      253u /* descriptors of one message */
#define SPK_MUX_HEAD_MOST     24u  /* every message but for what follows it */

struct spk_mux_word {
    enum spk_mux_kind kind;
    uint64_t id, number; /* `number`: window, amount, code, or how many descriptors */
    uint32_t length;     /* of what follows in pieces */
    uint8_t bytes[SPK_MUX_PREFACE_BYTES];
    const uint8_t *data; /* of a piece: in what was given to decode */
    size_t size;
    bool last; /* … and no piece follows it */
};

struct spk_mux_decoder {
    bool native, has_begun; /* has_begun: the preface is over, or there is none */
    const char *field;      /* where in a message's layout it is; NULL: between messages */
    uint32_t at;            /* bytes of this field so far */
    uint64_t value;
    uint32_t left; /* of what follows */
    struct spk_mux_word word;
};

/* `native`: a preface comes first. */
void spk_mux_decoder_init(struct spk_mux_decoder *d, bool native);

/* Read from *at on, not beyond `end`, and move *at.  1: *out is the next word; 0: everything is
 * read, more has to come; SPOKE_EPROTO: no message begins or goes on like that.  Bytes may come one
 * at a time. */
int spk_mux_decode(struct spk_mux_decoder *d, const uint8_t **at, const uint8_t *end,
                   struct spk_mux_word *out);
/* In the middle of a message? */
bool spk_mux_decoder_is_inside(const struct spk_mux_decoder *d);
/* … whose descriptors may be here, although it is not? */
bool spk_mux_decoder_awaits_fds(const struct spk_mux_decoder *d);

/* Write a message's head; there is room for SPK_MUX_HEAD_MOST.  `number` and `length` as far as the
 * kind has them.  Returns its size. */
size_t spk_mux_encode(uint8_t *to, enum spk_mux_kind kind, uint64_t id, uint64_t number,
                      uint32_t length);
size_t spk_mux_encode_echo(uint8_t *to, enum spk_mux_kind kind, const uint8_t bytes[8]);

struct spk_mux_preface {
    uint8_t version; /* read: the lower of both */
    bool even, has_fds;
    uint32_t data_most;   /* bytes */
    uint32_t max_streams; /* that the peer may have open */
};
void spk_mux_write_preface(uint8_t to[SPK_MUX_PREFACE_BYTES], const struct spk_mux_preface *p);
int spk_mux_read_preface(struct spk_mux_preface *p,
                         const uint8_t from[SPK_MUX_PREFACE_BYTES]); /* SPOKE_EPROTO */

#endif
