/* SPDX-License-Identifier: MIT */
/* Types of values, and values in messages: what typed channels and ports carry.
 *
 * A type is a table that says how a C type is laid out.  From it follow a text that describes the
 * type, the same for every program that has it (its descriptor), a fingerprint of that, and the way
 * of values into messages and out of them: CBOR (RFC 8949) in the core deterministic encoding, so
 * that one value has one encoding.
 *
 *     #define LINE(FIELD, S)            \
 *         FIELD(S, TEXT, article)       \
 *         FIELD(S, U32, pieces)
 *     SPOKE_STRUCT(line, LINE);         // struct line { spoke_text article; uint32_t pieces; };
 *     SPOKE_STRUCT_TYPE(line, LINE);    // line_type: {article:s,pieces:u32}
 *
 *     #define ORDER(FIELD, S)           \
 *         FIELD(S, U64, number)         \
 *         FIELD(S, LIST(STRUCT(line)), lines)
 *     SPOKE_STRUCT(order, ORDER);
 *     SPOKE_STRUCT_TYPE(order, ORDER);  // {number:u64,lines:[{article:s,pieces:u32}]}
 *
 *     if ((rc = spoke_type_check(&order_type)) != 0) ...
 *     rc = spoke_value_encode(&order_type, SPOKE_FORM_EXACT, &order, NULL, 0, &m);
 *
 * | table            | text        | C                            | in a message |
 * |------------------|-------------|------------------------------|--------------------------------|
 * | BOOL             | b           | bool                         | false, true | | I8 … I64, U8 …
 * | i8 … u64    | int8_t … uint64_t            | integer                        | | F32, F64 | f32,
 * f64    | float, double                | the shortest float that is it  | | TEXT             | s
 * | spoke_text: UTF-8, no NUL    | text                           | | BYTES            | y |
 * spoke_bytes                  | bytes                          | | TIME             | t |
 * spoke_time                   | array of 2 integers            | | ANY              | * |
 * spoke_bytes: one CBOR item   | that item                      | | RECEIVER(type)   | c>T |
 * uint32_t: index among the    | that index                     | | SENDER(type)     | c<T |
 * message's attachments      |                                | | STREAM_READ      | r>          |
 * "                          |                                | | STREAM_WRITE     | r<          |
 * "                          |                                | | STREAM           | r=          |
 * "                          |                                | | FD               | h           |
 * "                          |                                | | STRUCT(name)     | {a:T,b:U}   |
 * struct name, with name_type  | array, or map of names         | | TYPE(name)       | its text |
 * name, with name_type         | as that                        | | LIST(kind)       | [T] | struct
 * { const T *items;     | array                          | |                  |             |
 * size_t count; }            |                                | | ARRAY(n, kind)   | [T*n]       |
 * T[n]                         | array of n                     | | OPTIONAL(kind)   | ?T | const T
 * *, NULL: not there   | null, or T                     |
 *
 * Of the ends of channels and streams the names say what the recipient of the message gets.
 *
 * LIST, ARRAY and OPTIONAL hold one of the kinds above them; for more, as lists of lists, give the
 * inner one a name by SPOKE_PLAIN_TYPE.  ?T where T is itself optional or ANY is no type, as its
 * null could mean two things.
 *
 * Names are letters, digits and "_", no digit first, at most 64.  A descriptor has at most
 * SPOKE_DESCRIPTOR_MAX bytes, and types nest at most 16 deep: each of [ { ? c and t is a level.
 *
 * Any thread may make any of these calls; none waits. */
#ifndef SPOKE_TYPE_H
#define SPOKE_TYPE_H

#include <stddef.h>
#include <string.h>

#include <spoke/message.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPOKE_DESCRIPTOR_MAX  4096 /* bytes, without the NUL */
#define SPOKE_TYPE_DEPTH_MAX  16
#define SPOKE_NAME_MAX        64   /* bytes of a field's name */
#define SPOKE_FINGERPRINT     32   /* bytes */
#define SPOKE_ATTACHMENTS_MAX 256u /* of one value */

/* ---- what values are made of ---- */

typedef struct spoke_text {
    const char *data; /* no NUL behind it is needed, none is promised */
    size_t size;
} spoke_text;

typedef struct spoke_bytes {
    const void *data;
    size_t size;
} spoke_bytes;

typedef struct spoke_time {
    int64_t s;   /* since whatever both sides count from */
    uint32_t ns; /* < 10^9 */
} spoke_time;

/* The text of a C string, borrowed; NULL is "". */
static inline spoke_text
spoke_text_of(const char *string)
{
    spoke_text text;

    text.data = string;
    text.size = string == NULL ? 0 : strlen(string);
    return text;
}

/* ---- tables ---- */

enum spoke_kind {
    SPOKE_KIND_BOOL = 1,
    SPOKE_KIND_I8,
    SPOKE_KIND_I16,
    SPOKE_KIND_I32,
    SPOKE_KIND_I64,
    SPOKE_KIND_U8,
    SPOKE_KIND_U16,
    SPOKE_KIND_U32,
    SPOKE_KIND_U64,
    SPOKE_KIND_F32,
    SPOKE_KIND_F64,
    SPOKE_KIND_TEXT,
    SPOKE_KIND_BYTES,
    SPOKE_KIND_TIME,
    SPOKE_KIND_ANY,
    SPOKE_KIND_RECEIVER,
    SPOKE_KIND_SENDER,
    SPOKE_KIND_STREAM_READ,
    SPOKE_KIND_STREAM_WRITE,
    SPOKE_KIND_STREAM,
    SPOKE_KIND_FD,
    SPOKE_KIND_TYPE /* another table's */
};

enum spoke_shape { SPOKE_SHAPE_ONE, SPOKE_SHAPE_OPTIONAL, SPOKE_SHAPE_LIST, SPOKE_SHAPE_ARRAY };

struct spoke_value_type;

/* One field.  Written by SPOKE_FIELD(). */
typedef struct spoke_field {
    const char *name; /* NULL: the type is this one field, and no struct */
    enum spoke_kind kind;
    enum spoke_shape shape;
    size_t offset, size;         /* of the member */
    size_t count;                /* SPOKE_SHAPE_ARRAY: how many */
    struct spoke_value_type *of; /* SPOKE_KIND_TYPE; SENDER and RECEIVER: of what they carry */
    size_t order;                /* the library's: which field is at this place in a map */
} spoke_field;

/* A type, static as a rule: tables refer to each other. */
typedef struct spoke_value_type {
    size_t size; /* of the C type */
    spoke_field *fields;
    size_t count;
    /* Bytes for the lists and optionals of one decoded value; 0: SPOKE_MSG_MAX.  May be set at any
     * time while nobody decodes. */
    size_t memory_max;

    /* The library's, filled in by spoke_type_check(). */
    uint8_t fingerprint[SPOKE_FINGERPRINT]; /* SHA-256 of "spoke-type/1\n" and the descriptor */
    uint8_t layout[SPOKE_FINGERPRINT]; /* the same of the layout, if has_layout (docs/wire.md) */
    bool has_layout;   /* no pointers and no attachments: SPOKE_FORM_LAYOUT is possible */
    bool needs_memory; /* has lists or optionals */
    bool has_attachments;
    uint32_t checked;
} spoke_value_type;

/* A struct from a table that is written as above, and its type NAME_type. */
#define SPOKE_STRUCT(name, TABLE)                                                                  \
    struct name {                                                                                  \
        TABLE(SPOKE_MEMBER_, )                                                                     \
    }
#define SPOKE_STRUCT_TYPE(name, TABLE)                                                             \
    static spoke_field name##_fields[] = {TABLE(SPOKE_FIELD_ROW_, struct name)};                   \
    static spoke_value_type name##_type = SPOKE_TYPE_OF(struct name, name##_fields)

/* A type that is no struct, NAME, and its table: SPOKE_PLAIN_TYPE(matrix, LIST(F64)); */
#define SPOKE_PLAIN_TYPE(name, kind)                                                               \
    typedef SPOKE_DECLARE_(name, SPOKE_K_##kind);                                                  \
    static spoke_field name##_fields[] = {SPOKE_PLAIN_(name, SPOKE_K_##kind)};                     \
    static spoke_value_type name##_type = SPOKE_TYPE_OF(name, name##_fields)

/* For a C type that exists: one row each for those of its members that belong to the value, then
 * the type of these rows.
 *     static spoke_field point_fields[] = {SPOKE_FIELD(struct point, I32, x), …};
 *     static spoke_value_type point_type = SPOKE_TYPE_OF(struct point, point_fields); */
#define SPOKE_FIELD(S, kind, member)                                                               \
    SPOKE_FIELD_(#member, offsetof(S, member), sizeof(((S *)0)->member), SPOKE_K_##kind)
#define SPOKE_TYPE_OF(ctype, fields)                                                               \
    {                                                                                              \
        sizeof(ctype), fields, sizeof(fields) / sizeof((fields)[0]), 0, {0}, {0}, false, false,    \
            false, 0                                                                               \
    }

/* What the words of a table mean: C type, what stands behind the member's name; kind, table of
 * another type, shape, count. */
#define SPOKE_K_BOOL           bool, , SPOKE_KIND_BOOL, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_I8             int8_t, , SPOKE_KIND_I8, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_I16            int16_t, , SPOKE_KIND_I16, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_I32            int32_t, , SPOKE_KIND_I32, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_I64            int64_t, , SPOKE_KIND_I64, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_U8             uint8_t, , SPOKE_KIND_U8, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_U16            uint16_t, , SPOKE_KIND_U16, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_U32            uint32_t, , SPOKE_KIND_U32, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_U64            uint64_t, , SPOKE_KIND_U64, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_F32            float, , SPOKE_KIND_F32, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_F64            double, , SPOKE_KIND_F64, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_TEXT           spoke_text, , SPOKE_KIND_TEXT, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_BYTES          spoke_bytes, , SPOKE_KIND_BYTES, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_TIME           spoke_time, , SPOKE_KIND_TIME, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_ANY            spoke_bytes, , SPOKE_KIND_ANY, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_RECEIVER(type) uint32_t, , SPOKE_KIND_RECEIVER, &type##_type, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_SENDER(type)   uint32_t, , SPOKE_KIND_SENDER, &type##_type, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_STREAM_READ    uint32_t, , SPOKE_KIND_STREAM_READ, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_STREAM_WRITE   uint32_t, , SPOKE_KIND_STREAM_WRITE, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_STREAM         uint32_t, , SPOKE_KIND_STREAM, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_FD             uint32_t, , SPOKE_KIND_FD, NULL, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_STRUCT(name)   struct name, , SPOKE_KIND_TYPE, &name##_type, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_TYPE(name)     name, , SPOKE_KIND_TYPE, &name##_type, SPOKE_SHAPE_ONE, 0
#define SPOKE_K_LIST(kind)     SPOKE_LIST_(SPOKE_K_##kind)
#define SPOKE_K_OPTIONAL(kind) SPOKE_OPTIONAL_(SPOKE_K_##kind)
#define SPOKE_K_ARRAY(n, kind) SPOKE_ARRAY_(n, SPOKE_K_##kind)

/* The steps of these macros: an argument that is such a list of words becomes several first. */
#define SPOKE_LIST_(...)     SPOKE_LIST2_(__VA_ARGS__)
#define SPOKE_OPTIONAL_(...) SPOKE_OPTIONAL2_(__VA_ARGS__)
#define SPOKE_ARRAY_(n, ...) SPOKE_ARRAY2_(n, __VA_ARGS__)
#define SPOKE_LIST2_(type, behind, kind, of, shape, n)                                             \
    struct {                                                                                       \
        const type *items;                                                                         \
        size_t count;                                                                              \
    }, , kind, of, SPOKE_SHAPE_LIST, 0
#define SPOKE_OPTIONAL2_(type, behind, kind, of, shape, n)                                         \
    const type *, , kind, of, SPOKE_SHAPE_OPTIONAL, 0
#define SPOKE_ARRAY2_(n, type, behind, kind, of, shape, none)                                      \
    type, [n], kind, of, SPOKE_SHAPE_ARRAY, n
#define SPOKE_MEMBER_(S, kind, member)                            SPOKE_DECLARE_(member, SPOKE_K_##kind);
#define SPOKE_DECLARE_(member, ...)                               SPOKE_DECLARE2_(member, __VA_ARGS__)
#define SPOKE_DECLARE2_(member, type, behind, kind, of, shape, n) type member behind
#define SPOKE_FIELD_ROW_(S, kind, member)                                                          \
    SPOKE_FIELD_(#member, offsetof(S, member), sizeof(((S *)0)->member), SPOKE_K_##kind),
#define SPOKE_PLAIN_(name, ...)               SPOKE_FIELD_(NULL, 0, sizeof(name), __VA_ARGS__)
#define SPOKE_FIELD_(name, offset, size, ...) SPOKE_FIELD2_(name, offset, size, __VA_ARGS__)
#define SPOKE_FIELD2_(name, offset, size, type, behind, kind, of, shape, n)                        \
    {                                                                                              \
        name, kind, shape, offset, size, n, of, 0                                                  \
    }

/* ---- types ---- */

/* Check a table, and those that it refers to, and fill in what follows from it.  Needed once before
 * the type is used, not by two threads at the same time; a type that is checked already is left
 * alone.  SPOKE_EINVAL: no type can be that (names, limits, a struct without fields or that
 * contains itself, ??T, ?*), or the table does not fit its C type: members of another size than
 * their kind, or outside of it. */
SPOKE_API int spoke_type_check(spoke_value_type *type);

/* The descriptor of a checked type, with a NUL, into `text` of `size` bytes: SPOKE_DESCRIPTOR_MAX +
 * 1 are always enough.  SPOKE_ERANGE: it is longer; SPOKE_EINVAL: the type is not checked. */
SPOKE_API int spoke_type_descriptor(const spoke_value_type *type, char *text, size_t size);

/* For descriptors that come from elsewhere, text of `size` bytes: SPOKE_EINVAL if it is none. */
SPOKE_API int spoke_descriptor_check(const char *text, size_t size);
SPOKE_API int spoke_descriptor_fingerprint(const char *text, size_t size,
                                           uint8_t fingerprint[SPOKE_FINGERPRINT]);

/* Can values of the sender's type be read as the receiver's, in SPOKE_FORM_EVOLVING?  Every type as
 * itself, and: integers and floats as wider ones that have all their values; T as ?T; [T*n] as [T];
 * anything without attachments as *; a struct as one each of whose fields it has, by name, readable
 * as that one, or which are optional there.  What the receiver does not know is skipped.  What a
 * channel carries, c>T and c<T, has to be the same.
 * Errors: SPOKE_ETYPE it cannot; SPOKE_EINVAL one of the texts is no descriptor. */
SPOKE_API int spoke_descriptor_readable(const char *sender, size_t sender_size,
                                        const char *receiver, size_t receiver_size);

/* ---- values ---- */

enum spoke_form {
    SPOKE_FORM_EXACT,    /* both sides have the same type; structs are arrays */
    SPOKE_FORM_EVOLVING, /* the sender's type is readable as the receiver's; structs are maps */
    SPOKE_FORM_LAYOUT /* the bytes of the C type, padding 0: both sides have the same layout too */
};

/* What is attached to a message, as its recipient sees it.  The numbers are those of the wire. */
enum spoke_attachment_kind {
    SPOKE_ATTACHED_CHANNEL = 1,
    SPOKE_ATTACHED_STREAM = 2,
    SPOKE_ATTACHED_FD = 3,
    SPOKE_ATTACHED_FD_PROXY = 4 /* a descriptor that comes as a stream: taken as either */
};
enum spoke_attachment_direction {
    SPOKE_ATTACHED_READS = 1, /* the recipient receives, or reads */
    SPOKE_ATTACHED_WRITES = 2,
    SPOKE_ATTACHED_BOTH = 3
};
typedef struct spoke_attachment {
    uint8_t kind, direction;
} spoke_attachment;

/* Make a message of a value.  `attachments` are what is, or will be, attached to it, in order: each
 * of them has to be named exactly once in the value, by a field of its kind.  Everything is
 * borrowed for the call; the message is the caller's.
 * Errors: SPOKE_EINVAL the type is not checked, or the value is none of it: a text that is not
 * UTF-8 or has a NUL, a time with ns >= 10^9, an ANY that is not one well-formed item, nested too
 * deep, an attachment missing, of the wrong kind, or named twice, data of NULL with a size;
 * SPOKE_ENOTSUP SPOKE_FORM_LAYOUT of a type that has none; SPOKE_EMSGSIZE more than SPOKE_MSG_MAX;
 * SPOKE_ENOMEM. */
SPOKE_API int spoke_value_encode(const spoke_value_type *type, enum spoke_form form,
                                 const void *value, const spoke_attachment *attachments,
                                 size_t attachment_count, spoke_msg **out);

/* What a decoded value points into: texts, bytes and ANYs lie in the message, lists and optionals
 * in memory beside it.  The value is good until this is freed. */
typedef struct spoke_backing {
    spoke_msg *message; /* the one that was decoded, with its attachments */
    spoke_msg *memory;  /* NULL: none was needed */
} spoke_backing;

/* Read a message as a value.  Takes m on success, into *backing, which the caller frees; after an
 * error m is the caller's, *backing holds nothing and *value is all 0.  Members that are not in the
 * table become 0.  `attachments` are those of the message: none is named twice, or by a field of
 * another kind, and in SPOKE_FORM_EXACT and LAYOUT all of them are named.
 *
 * The whole message is checked before anything is allocated, and then all at once.
 * Errors: SPOKE_EDECODE it is no value of the type, or not in deterministic encoding; SPOKE_ELIMIT
 * its lists and optionals need more than memory_max; SPOKE_EINVAL the type is not checked;
 * SPOKE_ENOTSUP as above; SPOKE_ENOMEM. */
SPOKE_API int spoke_value_decode(const spoke_value_type *type, enum spoke_form form, spoke_msg *m,
                                 const spoke_attachment *attachments, size_t attachment_count,
                                 void *value, spoke_backing *backing);

/* Give back what a value points into; the value must not be used any more.  Freed once more it does
 * nothing. */
SPOKE_API void spoke_backing_free(spoke_backing *backing);

#ifdef __cplusplus
}
#endif

#endif
