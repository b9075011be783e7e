/* SPDX-License-Identifier: MIT */
#include "tests/protocols/scene.h"

void
set_scene(struct scene *scene, spoke_socket *s, enum transport t, int peers)
{
    scene->s = s;
    listen_on(s, t, scene->url);
    for (int i = 0; i < peers; i++)
        join(&scene->peers[i], s, scene->url, (uint64_t)i + 1);
}

void
clear_scene(struct scene *scene, int peers)
{
    for (int i = 0; i < peers; i++)
        raw_close(&scene->peers[i]);
    finish();
}

spoke_socket *
open_asker(int pattern)
{
    spoke_socket *s = open_socket(pattern);

    if (pattern == SPOKE_SURVEYOR)
        cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_SURVEY_TIME, 0), 0);
    return s;
}

void
set_ttl(spoke_socket *s, int ttl)
{
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, ttl), 0);
}

void
raw_ask_from_afar(struct raw_peer *p, size_t hops, const char *text)
{
    static uint32_t words[10000];

    cr_assert_leq(hops, sizeof words / sizeof *words);
    for (size_t i = 0; i < hops; i++)
        words[i] = (uint32_t)(i + 1 < hops ? i + 1 : ID);
    cr_assert_eq(raw_send_words(p, words, hops, text), RAW_OK);
}

void
expect_service(struct scene *scene, struct raw_peer *p)
{
    const uint32_t id = ID;

    raw_send_word(p, id, "service?");
    expect_text(scene->s, "service?");
    send_text(scene->s, "always");
    raw_expect(p, &id, 1, "always");
}

void
pass(spoke_socket *from, spoke_socket *to)
{
    cr_assert_eq(spoke_send(to, recv_message(from), 0), 0);
}
