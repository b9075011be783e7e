/* SPDX-License-Identifier: MIT */
/* RFC 6455, 8.1: text is UTF-8, whole or in parts that end within characters; what is none ends the
 * connection (1007), and as soon as it has come. */
#include "tests/hostile/ws_rig.h"

#include <stdio.h>
#include <string.h>

struct sample {
    const char *what, *bytes;
    size_t size;
};
#define SAMPLE(What, Bytes)                                                                        \
    {                                                                                              \
        What, Bytes, sizeof(Bytes) - 1                                                             \
    }

static const struct sample fine[] = {
    SAMPLE("nothing", ""),
    SAMPLE("a word", "Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!"),
    SAMPLE("kosme", "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"),
    SAMPLE("U+0000", "\0"),
    SAMPLE("the first of one byte, in between", "a\0b"),
    SAMPLE("the last of one byte", "\x7f"),
    SAMPLE("the first of two", "\xc2\x80"),
    SAMPLE("the last of two", "\xdf\xbf"),
    SAMPLE("the first of three", "\xe0\xa0\x80"),
    SAMPLE("the last of three, no character", "\xef\xbf\xbf"),
    SAMPLE("U+FFFE, no character", "\xef\xbf\xbe"),
    SAMPLE("U+FFFD", "\xef\xbf\xbd"),
    SAMPLE("the last before the surrogates", "\xed\x9f\xbf"),
    SAMPLE("the first behind them", "\xee\x80\x80"),
    SAMPLE("U+FEFF at the start", "\xef\xbb\xbfx"),
    SAMPLE("the first of four", "\xf0\x90\x80\x80"),
    SAMPLE("U+1FFFF, no character", "\xf0\x9f\xbf\xbf"),
    SAMPLE("U+2FFFE, no character", "\xf0\xaf\xbf\xbe"),
    SAMPLE("U+FDD0, no character", "\xef\xb7\x90"),
    SAMPLE("the last there is", "\xf4\x8f\xbf\xbf"),
    SAMPLE("each length in turn", "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80 \xf0\x9f\x98\x80\xe2\x82"
                                  "\xac\xc3\xa4z"),
};

static const struct sample wrong[] = {
    SAMPLE("beyond the last", "\xf4\x90\x80\x80"),
    SAMPLE("first byte f5", "\xf5\x80\x80\x80"),
    SAMPLE("five bytes", "\xf8\x88\x80\x80\x80"),
    SAMPLE("six bytes", "\xfc\x84\x80\x80\x80\x80"),
    SAMPLE("fe", "\xfe"),
    SAMPLE("ff", "\xff"),
    SAMPLE("fe fe ff ff", "\xfe\xfe\xff\xff"),
    SAMPLE("a continuation", "\x80"),
    SAMPLE("the last continuation", "\xbf"),
    SAMPLE("two of them", "\x80\xbf"),
    SAMPLE("one behind a character", "\xc3\xa4\x80"),
    SAMPLE("one behind ascii", "a\xbfz"),
    SAMPLE("two, and a blank", "\xc3 "),
    SAMPLE("three, and a blank", "\xe2 "),
    SAMPLE("three, one missing, and a blank", "\xe2\x82 "),
    SAMPLE("four, and a blank", "\xf0 "),
    SAMPLE("four, one missing, and a blank", "\xf0\x9f\x98 "),
    SAMPLE("two, cut", "\xc3"),
    SAMPLE("three, cut at one", "\xe2"),
    SAMPLE("three, cut at two", "\xe2\x82"),
    SAMPLE("four, cut at one", "\xf0"),
    SAMPLE("four, cut at two", "\xf0\x9f"),
    SAMPLE("four, cut at three", "\xf0\x9f\x98"),
    SAMPLE("cut behind good text", "all is well \xe2\x82"),
    SAMPLE("cut ones, one behind the other", "\xc3\xe2\x82\xf0\x9f\x98"),
    SAMPLE("a slash in two", "\xc0\xaf"),
    SAMPLE("a slash in three", "\xe0\x80\xaf"),
    SAMPLE("a slash in four", "\xf0\x80\x80\xaf"),
    SAMPLE("the longest of two that are one", "\xc1\xbf"),
    SAMPLE("the longest of three that are two", "\xe0\x9f\xbf"),
    SAMPLE("the longest of four that are three", "\xf0\x8f\xbf\xbf"),
    SAMPLE("U+0000 in two", "\xc0\x80"),
    SAMPLE("U+0000 in three", "\xe0\x80\x80"),
    SAMPLE("U+0000 in four", "\xf0\x80\x80\x80"),
    SAMPLE("the first surrogate", "\xed\xa0\x80"),
    SAMPLE("the last of the high ones", "\xed\xaf\xbf"),
    SAMPLE("the first of the low ones", "\xed\xb0\x80"),
    SAMPLE("the last surrogate", "\xed\xbf\xbf"),
    SAMPLE("a pair of them", "\xed\xa0\x80\xed\xb0\x80"),
    SAMPLE("the last pair", "\xed\xaf\xbf\xed\xbf\xbf"),
    SAMPLE("good text, wrong, good text",
           "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80 edited"),
};

#define EACH(i, samples) for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++)

/* In two parts, the first one of so many bytes. */
static void
say_in_two(struct ws_rig *r, const struct sample *s, size_t cut, size_t step)
{
    uint8_t bytes[256];
    size_t used = ws_rig_frame(r, bytes, TEXT, s->bytes, cut);

    used += ws_rig_frame(r, bytes + used, FIN | CONT, s->bytes + cut, s->size - cut);
    ws_rig_chop(r, bytes, used, step);
}

static void
say_octets(struct ws_rig *r, const struct sample *s)
{
    uint8_t bytes[512];
    size_t used = 0;

    for (size_t i = 0; i < s->size; i++)
        used += ws_rig_frame(r, bytes + used, i == 0 ? TEXT : CONT, s->bytes + i, 1);
    used += ws_rig_frame(r, bytes + used, FIN | (s->size == 0 ? TEXT : CONT), "", 0);
    ws_rig_chop(r, bytes, used, sizeof bytes);
}

ROLE_TEST(ws_text, what_is_text_whole_and_cut_at_every_octet)
{
    struct ws_rig r;

    ws_rig_open(&r, *role, true);
    ws_rig_meet(&r);
    EACH(i, fine)
    {
        ws_rig_say(&r, FIN | TEXT, fine[i].bytes, fine[i].size);
        ws_rig_echo(&r, fine[i].bytes, fine[i].size);
        for (size_t cut = 0; cut <= fine[i].size; cut++) {
            say_in_two(&r, &fine[i], cut, cut % 2 == 0 ? 1 : 512);
            ws_rig_echo(&r, fine[i].bytes, fine[i].size);
        }
        say_octets(&r, &fine[i]);
        ws_rig_echo(&r, fine[i].bytes, fine[i].size);
    }
    ws_rig_leave(&r);
    ws_rig_close(&r);
}

ROLE_TEST(ws_text, what_is_none_whole_and_cut_at_every_octet)
{
    struct ws_rig r;

    ws_rig_open(&r, *role, true);
    EACH(i, wrong)
    {
        ws_rig_meet(&r);
        ws_rig_say(&r, FIN | TEXT, wrong[i].bytes, wrong[i].size);
        ws_rig_fails(&r, 1007, wrong[i].what);
        for (size_t cut = 0; cut <= wrong[i].size; cut++) {
            ws_rig_meet(&r);
            say_in_two(&r, &wrong[i], cut, cut % 2 == 0 ? 1 : 512);
            ws_rig_fails(&r, 1007, wrong[i].what);
        }
        ws_rig_meet(&r);
        say_octets(&r, &wrong[i]);
        ws_rig_fails(&r, 1007, wrong[i].what);
    }
    ws_rig_close(&r);
}

/* The first byte that cannot be is enough, in the middle of a frame and of a message. */
ROLE_TEST(ws_text, nobody_waits_for_the_rest_of_what_is_none)
{
    static const char good[] = "\xce\xba\xe1\xbd\xb9", bad[] = "\xf4\x90";
    uint8_t bytes[64];
    struct ws_rig r;

    ws_rig_open(&r, *role, true);
    ws_rig_meet(&r); /* a fragment that is none; no other follows */
    ws_rig_say(&r, TEXT, good, 5);
    ws_rig_say(&r, CONT, bad, 2);
    ws_rig_fails(&r, 1007, "a fragment");
    ws_rig_meet(&r); /* a frame of which the rest does not come */
    memcpy(bytes + 32, "\xce\xba\xe1\xbd\xb9\xf4\x90 and more", 16);
    size_t n = ws_rig_frame(&r, bytes, FIN | TEXT, bytes + 32, 16);

    ws_rig_chop(&r, bytes, n - 9, 1); /* up to the byte that is wrong */
    ws_rig_fails(&r, 1007, "a frame");
    ws_rig_close(&r);
}

/* The same bytes are fine where nobody says that they are text. */
ROLE_TEST(ws_text, binary_may_be_anything)
{
    struct ws_rig r;

    ws_rig_open(&r, *role, false);
    ws_rig_meet(&r);
    EACH(i, wrong)
    {
        ws_rig_say(&r, FIN | BINARY, wrong[i].bytes, wrong[i].size);
        ws_rig_echo(&r, wrong[i].bytes, wrong[i].size);
    }
    ws_rig_leave(&r);
    ws_rig_close(&r);
}

/* Nor is text taken by who has not asked for it. */
ROLE_TEST(ws_text, text_is_refused_by_default)
{
    struct ws_rig r;

    ws_rig_open(&r, *role, false);
    EACH(i, fine)
    {
        ws_rig_meet(&r);
        ws_rig_say(&r, i % 2 == 0 ? FIN | TEXT : TEXT, fine[i].bytes, fine[i].size);
        ws_rig_fails(&r, 1003, fine[i].what);
    }
    ws_rig_close(&r);
}
