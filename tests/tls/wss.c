/* SPDX-License-Identifier: MIT */
/* WebSocket inside of TLS: messages of all sizes and streams, in both directions; a stranger's
 * certificate ends it before there is any HTTP. */
#include <stdio.h>
#include <string.h>

#include "tests/support/world.h"
#include "tests/tls/meeting.h"

/* The same listener at another scheme. */
static void
open_wss(struct meeting *m)
{
    struct spoke_tls_options o;
    spoke_tls_config *c;
    char url[ENDPOINT_MAX];

    server_options(&o);
    meeting_open(m, &o);
    endpoint_fresh(url, TLS);
    snprintf(m->url, sizeof m->url, "wss%s/socket?of=ours", strstr(url, "://"));
    c = config_of(&o);
    expect_rc(spoke_listener_create(&m->l, m->a, m->url), 0);
    expect_rc(spoke_listener_set_tls(m->l, c), 0);
    spoke_tls_config_free(c);
    expect_rc(spoke_listener_start(m->l, 0), 0);
}

Test(wss, messages_of_all_sizes_pass_both_ways)
{
    static const size_t sizes[] = {0,    1,    125,   126,   500,    513,
                                   4096, 4097, 65535, 65536, 300000, 1048576};
    struct spoke_tls_options o;
    struct meeting m;
    char text[512];

    open_wss(&m);
    client_options(&o);
    expect_rc(meeting_dial(&m, &o), 0);
    meeting_talk(&m);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int way = 0; way < 2; way++) {
            spoke_msg *msg = pattern_message(sizes[i], (uint32_t)i);
            expect_rc(spoke_send(way == 0 ? m.a : m.b, msg, 0), 0);
            expect_rc(spoke_recv(way == 0 ? m.b : m.a, &msg, 0), 0);
            cr_assert_eq(spoke_msg_size(msg), sizes[i]);
            cr_assert(pattern_holds(spoke_msg_body(msg), sizes[i], (uint32_t)i));
            spoke_msg_free(msg);
        }
    }
    pipe_text(&m, 0, SPOKE_OPT_WS_TARGET, text);
    cr_assert_str_eq(text, "/socket?of=ours");
    pipe_text(&m, 1, SPOKE_OPT_SCHEME, text);
    cr_assert_str_eq(text, "wss");
    pipe_text(&m, 1, SPOKE_OPT_TLS_CIPHER, text);
    cr_assert_gt(strlen(text), 0, "what TLS knows is told as well");
    meeting_hang_up(&m);
    meeting_close(&m);
}

Test(wss, a_stranger_is_refused_before_anything_is_asked)
{
    struct spoke_tls_options o;
    struct meeting m;

    open_wss(&m);
    client_options(&o);
    o.server_name = "another.test";
    cr_assert_neq(meeting_dial(&m, &o), 0);
    cr_assert_eq(meeting_dialer_error(&m), SPOKE_ECERTNAME, "%s",
                 spoke_error_name(meeting_dialer_error(&m)));
    meeting_close(&m);
}
