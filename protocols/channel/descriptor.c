/* SPDX-License-Identifier: MIT */
/* Descriptors as texts: those of a peer are checked and compared, never turned into tables.
 *
 *     T = b | i8 … i64 | u8 … u64 | f32 | f64 | s | y | t | * | h | r> | r< | r= | c>T | c<T | ?T
 *       | [T] | [T*n] | {name:T,…} */
#include <sha2.h>

#include "protocols/channel/types.h"

#define DIGITS_MAX 10 /* of a count: fewer than 10^10 */

/* ---- over a text that may be anything ---- */

static size_t
name_size(const char *p, const char *end)
{
    size_t size = 0;

    while (p + size < end &&
           ((p[size] >= 'a' && p[size] <= 'z') || (p[size] >= 'A' && p[size] <= 'Z') ||
            p[size] == '_' || (size > 0 && p[size] >= '0' && p[size] <= '9')))
        size++;
    return size;
}

bool
spk_is_name(const char *name)
{
    size_t size = strlen(name);

    return size > 0 && size <= SPOKE_NAME_MAX && name_size(name, name + size) == size;
}

static bool
begins(const char *p, const char *end, const char *word)
{
    size_t size = strlen(word);

    return (size_t)(end - p) >= size && memcmp(p, word, size) == 0;
}

/* All kinds that are a word of their own. */
static const char *
skip_word(const char *p, const char *end)
{
    for (int kind = SPOKE_KIND_BOOL; kind < SPOKE_KIND_TYPE; kind++)
        if (kind != SPOKE_KIND_RECEIVER && kind != SPOKE_KIND_SENDER &&
            begins(p, end, spk_kinds[kind].text))
            return p + strlen(spk_kinds[kind].text);
    return NULL;
}

/* Over one type of a text that has been checked: its brackets match. */
static const char *
skip(const char *p, const char *end)
{
    unsigned depth = 0;

    while (*p == '?' || *p == 'c')
        p += *p == '?' ? 1 : 2;
    if (*p == '*')
        return p + 1;
    do {
        depth += *p == '[' || *p == '{';
        depth -= *p == ']' || *p == '}';
        p++;
    } while (p < end && (depth > 0 || (*p != ',' && *p != ']' && *p != '}' && *p != '*')));
    return p;
}

static const char *check_one(const char *p, const char *end, unsigned depth);

/* Behind "[T": "]" or "*n]". */
static const char *
check_count(const char *p, const char *end)
{
    if (p == NULL || p == end)
        return NULL;
    if (*p == '*') {
        const char *digits = ++p;
        while (p < end && *p >= '0' && *p <= '9')
            p++;
        if (p == digits || *digits == '0' || p - digits > DIGITS_MAX)
            return NULL;
    }
    return p < end && *p == ']' ? p + 1 : NULL;
}

/* Is this name one of those from `p` to `end`, which have been checked? */
static bool
has_name(const char *p, const char *end, const char *name, size_t size)
{
    while (p < end) {
        size_t other = name_size(p, end);
        if (other == size && memcmp(p, name, size) == 0)
            return true;
        p = skip(p + other + 1, end) + 1;
    }
    return false;
}

/* Behind "{". */
static const char *
check_fields(const char *p, const char *end, unsigned depth)
{
    const char *first = p;

    for (;;) {
        const char *name = p;
        size_t size = name_size(p, end);
        if (size == 0 || size > SPOKE_NAME_MAX || has_name(first, name, name, size))
            return NULL;
        p += size;
        if (p == end || *p != ':' || (p = check_one(p + 1, end, depth)) == NULL || p == end)
            return NULL;
        if (*p == '}')
            return p + 1;
        if (*p++ != ',')
            return NULL;
    }
}

/* Over one type; NULL: it is none.  `depth` levels are around it; its recursion ends with them. */
static const char *
check_one(const char *p, const char *end, unsigned depth)
{
    bool level = p < end && (*p == '{' || *p == '[' || *p == '?' || *p == 'c' || *p == 't');

    if (p == end || (level && depth == SPOKE_TYPE_DEPTH_MAX))
        return NULL;
    if (*p == '{')
        return check_fields(p + 1, end, depth + 1);
    if (*p == '[')
        return check_count(check_one(p + 1, end, depth + 1), end);
    if (*p == '?')
        return begins(p, end, "??") || begins(p, end, "?*") ? NULL
                                                            : check_one(p + 1, end, depth + 1);
    if (begins(p, end, "c>") || begins(p, end, "c<"))
        return check_one(p + 2, end, depth + 1);
    return skip_word(p, end);
}

int
spoke_descriptor_check(const char *text, size_t size)
{
    if (text == NULL || size == 0 || size > SPOKE_DESCRIPTOR_MAX ||
        check_one(text, text + size, 0) != text + size)
        return SPOKE_EINVAL;
    return 0;
}

int
spoke_descriptor_fingerprint(const char *text, size_t size, uint8_t fingerprint[SPOKE_FINGERPRINT])
{
    static const char prefix[] = "spoke-type/1\n";
    SHA2_CTX hash;
    int rc = spoke_descriptor_check(text, size);

    if (rc != 0) {
        memset(fingerprint, 0, SPOKE_FINGERPRINT);
        return rc;
    }
    SHA256Init(&hash);
    SHA256Update(&hash, (const uint8_t *)prefix, sizeof prefix - 1);
    SHA256Update(&hash, (const uint8_t *)text, size);
    SHA256Final(fingerprint, &hash);
    return 0;
}

/* ---- over texts that are known to be descriptors ---- */

static bool
is_same(const char *a, const char *a_end, const char *b, const char *b_end)
{
    size_t size = (size_t)(skip(a, a_end) - a);

    return size == (size_t)(skip(b, b_end) - b) && memcmp(a, b, size) == 0;
}

static bool readable(const char *a, const char *a_end, const char *b, const char *b_end);

/* Integers and floats: every value of `a` is one of `b`. */
static bool
number_widens(const char *a, const char *b)
{
    int a_bits = a[1] == '8' ? 8 : (a[1] - '0') * 10 + (a[2] - '0');
    int b_bits = b[1] == '8' ? 8 : (b[1] - '0') * 10 + (b[2] - '0');

    if (*a == *b)
        return a_bits <= b_bits;
    return *a == 'u' && *b == 'i' && a_bits < b_bits;
}

/* The type of a field by its name, in the struct whose first name is at `p`; NULL: it has none. */
static const char *
find_field(const char *p, const char *end, const char *name, size_t size)
{
    for (;;) {
        size_t other = name_size(p, end);
        const char *type = p + other + 1;
        if (other == size && memcmp(p, name, size) == 0)
            return type;
        p = skip(type, end);
        if (*p++ == '}')
            return NULL;
    }
}

static bool
struct_readable(const char *a, const char *a_end, const char *b, const char *b_end)
{
    for (;;) {
        size_t size = name_size(b, b_end);
        const char *wanted = b + size + 1, *there = find_field(a, a_end, b, size);
        if (there == NULL ? *wanted != '?' : !readable(there, a_end, wanted, b_end))
            return false;
        b = skip(wanted, b_end);
        if (*b++ == '}')
            return true;
    }
}

static bool
list_readable(const char *a, const char *a_end, const char *b, const char *b_end)
{
    if (!readable(a, a_end, b, b_end))
        return false;
    a = skip(a, a_end);
    b = skip(b, b_end);
    if (*b == ']')
        return true;
    size_t size = (size_t)((const char *)memchr(b, ']', (size_t)(b_end - b)) - b) + 1;
    return (size_t)(a_end - a) >= size && memcmp(a, b, size) == 0;
}

static bool has_attachments(const char *p, const char *end);

static bool
struct_has_attachments(const char *p, const char *end)
{
    do {
        p += name_size(p, end) + 1;
        if (has_attachments(p, end))
            return true;
        p = skip(p, end);
    } while (*p++ == ',');
    return false;
}

static bool
has_attachments(const char *p, const char *end)
{
    while (*p == '[' || *p == '?')
        p++;
    return *p == '{' ? struct_has_attachments(p + 1, end) : *p == 'c' || *p == 'r' || *p == 'h';
}

static bool
readable(const char *a, const char *a_end, const char *b, const char *b_end)
{
    if (*b == '*')
        return !has_attachments(a, a_end);
    if (*b == '?')
        return readable(*a == '?' ? a + 1 : a, a_end, b + 1, b_end);
    if (*b == '{')
        return *a == '{' && struct_readable(a + 1, a_end, b + 1, b_end);
    if (*b == '[')
        return *a == '[' && list_readable(a + 1, a_end, b + 1, b_end);
    if ((*a == 'i' || *a == 'u' || *a == 'f') && (*b == 'i' || *b == 'u' || *b == 'f'))
        return number_widens(a, b);
    return is_same(a, a_end, b, b_end);
}

int
spoke_descriptor_readable(const char *sender, size_t sender_size, const char *receiver,
                          size_t receiver_size)
{
    int rc;

    if ((rc = spoke_descriptor_check(sender, sender_size)) != 0 ||
        (rc = spoke_descriptor_check(receiver, receiver_size)) != 0)
        return rc;
    return readable(sender, sender + sender_size, receiver, receiver + receiver_size) ? 0
                                                                                      : SPOKE_ETYPE;
}
