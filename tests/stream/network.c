/* SPDX-License-Identifier: MIT */
/* What streams over tls+tcp, ws and wss have besides: who the peer is, what was agreed on and asked
 * for, and the options of a WebSocket listener. */
#include "tests/stream/fixture.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/certs.h"
#include "tests/support/ws_peer.h"

/* ---- what is known of a connection ---- */

static const char *
text_of(spoke_stream *s, const char *name)
{
    static char text[4096];
    size_t size = sizeof text;

    expect_rc(spoke_stream_get(s, name, SPOKE_STRING, text, &size), 0);
    cr_assert_eq(size, strlen(text) + 1);
    return text;
}

static bool
flag_of(spoke_stream *s, const char *name)
{
    bool flag;
    size_t size = sizeof flag;

    expect_rc(spoke_stream_get(s, name, SPOKE_BOOL, &flag, &size), 0);
    return flag;
}

static int
try_text(spoke_stream *s, const char *name)
{
    char text[16];
    size_t size = sizeof text;

    return spoke_stream_get(s, name, SPOKE_STRING, text, &size);
}

/* Both ends with certificates, and a protocol in common. */
static spoke_tls_config *
mutual_tls(void)
{
    struct spoke_tls_options o;
    spoke_tls_config *config;

    test_tls_options(&o);
    o.verify = SPOKE_TLS_VERIFY_REQUIRED;
    o.alpn = "spoke/1";
    expect_rc(spoke_tls_config_new(&config, &o), 0);
    return config;
}

static void
check_tls(const struct ends *d)
{
    for (int i = 0; i < 2; i++) {
        spoke_stream *s = d->end[i];

        cr_assert_str_eq(text_of(s, SPOKE_OPT_TLS_VERSION), "TLSv1.3");
        cr_assert_eq(strncmp(text_of(s, SPOKE_OPT_TLS_CIPHER), "TLS_", 4), 0);
        cr_assert_str_eq(text_of(s, SPOKE_OPT_TLS_ALPN), "spoke/1");
        cr_assert_str_eq(text_of(s, SPOKE_OPT_TLS_SERVER_NAME), "spoke.test");
        cr_assert_str_eq(text_of(s, SPOKE_OPT_TLS_PEER_SUBJECT), "CN=spoke.test");
        cr_assert_eq(strlen(text_of(s, SPOKE_OPT_TLS_PEER_FINGERPRINT)), 64);
        cr_assert(flag_of(s, SPOKE_OPT_TLS_VERIFIED));
        cr_assert_not(flag_of(s, SPOKE_OPT_TLS_RESUMED));
    }
}

static void
check_ws(const struct ends *d)
{
    for (int i = 0; i < 2; i++)
        cr_assert_str_eq(text_of(d->end[i], SPOKE_OPT_WS_TARGET), "/a/path");
    cr_assert_not_null(strstr(text_of(d->end[1], SPOKE_OPT_WS_FIELDS), "Sec-WebSocket-Key: "));
    cr_assert_not_null(strstr(text_of(d->end[0], SPOKE_OPT_WS_FIELDS), "Sec-WebSocket-Accept: "));
}

/* Each transport tells what it knows, also to a mux's streams, and of nothing else. */
PLACE_TEST(stream_network, what_is_known_of_a_connection, conns)
{
    bool tls = is_over_tls(p), ws = is_over_ws(p), flag;
    spoke_stream_config config;
    size_t size = sizeof flag;
    struct ends d;

    spoke_stream_config_init(&config);
    stage_open(&d.st, p);
    if (tls)
        config.tls = mutual_tls();
    connect_ends(&d.st, &config, d.end);
    spoke_tls_config_free(config.tls);
    if (tls)
        check_tls(&d);
    if (ws)
        check_ws(&d);
    for (int i = 0; i < 2; i++) {
        if (!tls)
            expect_rc(try_text(d.end[i], SPOKE_OPT_TLS_CIPHER), SPOKE_EOPTION);
        if (!ws)
            expect_rc(try_text(d.end[i], SPOKE_OPT_WS_TARGET), SPOKE_EOPTION);
        expect_rc(try_text(d.end[i], "no-such-thing"), SPOKE_EOPTION);
        expect_rc(spoke_stream_get(d.end[i], SPOKE_OPT_TLS_CIPHER, SPOKE_BOOL, &flag, &size),
                  tls ? SPOKE_ETYPE : SPOKE_EOPTION);
        expect_rc(spoke_stream_get(d.end[i], NULL, SPOKE_BOOL, &flag, &size), SPOKE_EINVAL);
        expect_rc(spoke_stream_get(d.end[i], SPOKE_OPT_TLS_CIPHER, SPOKE_BOOL, &flag, NULL),
                  SPOKE_EINVAL);
    }
    ends_close(&d);
    expect_rc(try_text(d.end[0], SPOKE_OPT_TLS_CIPHER), SPOKE_ECLOSED);
}

/* Text that does not fit is cut, and its whole size told. */
PLACE_TEST(stream_network, a_property_that_does_not_fit, places_real)
{
    char text[5];
    size_t size = sizeof text;
    struct ends d;

    if (!is_over_tls(p))
        return;
    ends_open(&d, p, NULL);
    expect_rc(spoke_stream_get(d.end[0], SPOKE_OPT_TLS_VERSION, SPOKE_STRING, text, &size), 0);
    cr_assert_str_eq(text, "TLSv");
    cr_assert_eq(size, sizeof "TLSv1.3");
    ends_close(&d);
}

/* Before there is a connection, nothing is known; when it could not be made, that is. */
PLACE_TEST(stream_network, a_dial_that_goes_on_knows_nothing, places_listening_real)
{
    char url[ENDPOINT_MAX];
    struct stage st;
    spoke_stream *a;

    stage_open(&st, p);
    if (is_over_tls(p) || is_over_ws(p)) {
        fresh_url(&st, url);
        expect_rc(spoke_stream_dial(&a, url, stage_config(&st, NULL), st.e[0], SPOKE_NOW), 0);
        if (p->way == ONE) /* whose engine has not run yet */
            expect_rc(try_text(a, SPOKE_OPT_WS_TARGET), SPOKE_EAGAIN);
        expect_rc(read_one(a), SPOKE_ECONNREFUSED);
        expect_rc(try_text(a, SPOKE_OPT_WS_TARGET), SPOKE_ECONNREFUSED);
        expect_rc(spoke_stream_close(a), 0);
    }
    stage_close(&st);
}

/* ---- the options of ws ---- */

struct server {
    spoke_stream_listener *l;
    char url[ENDPOINT_MAX], place[160];
};

static void
serve(struct server *v, const spoke_stream_config *config)
{
    endpoint_fresh(v->url, WS);
    ws_place(v->place, v->url);
    expect_rc(spoke_stream_listen(&v->l, v->url, config, NULL), 0);
}

/* The status of the answer to a request for a path of this origin; NULL: it names none. */
static int
ask_for(const struct server *v, const char *path, const char *origin)
{
    char text[1024], more[256] = "";
    struct raw_peer p;
    size_t size;

    if (origin != NULL)
        snprintf(more, sizeof more, "Origin: %s\r\n", origin);
    size = ws_request(text, sizeof text, path, NULL, more);
    cr_assert_eq(raw_connect(&p, v->place, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, text, size, RAW_LIMIT_MS), RAW_OK);
    cr_assert_gt(ws_read_head(&p, text, sizeof text, RAW_LIMIT_MS), 0);
    raw_close(&p);
    return ws_status(text);
}

static int
ask(const struct server *v, const char *origin)
{
    return ask_for(v, "/a/path", origin);
}

Test(stream_network, pages_that_may_come_in)
{
    char origins[] = "https://good.example http://b:81";
    spoke_stream_config config;
    struct server v;

    serve(&v, NULL);
    cr_assert_eq(ask(&v, NULL), 101);
    cr_assert_eq(ask(&v, "http://localhost"), 101, "the host that was asked");
    cr_assert_eq(ask(&v, "https://good.example"), 403);
    expect_rc(spoke_stream_listener_close(v.l), 0);
    spoke_stream_config_init(&config);
    config.ws_origins = origins;
    serve(&v, &config);
    memset(origins, 'x', sizeof origins - 1); /* it has been copied */
    cr_assert_eq(ask(&v, "https://good.example"), 101);
    cr_assert_eq(ask(&v, "http://b:81"), 101);
    cr_assert_eq(ask(&v, "https://bad.example"), 403);
    expect_rc(spoke_stream_listener_close(v.l), 0);
    config.ws_origins = NULL;
    config.ws_check_origin = false;
    serve(&v, &config);
    cr_assert_eq(ask(&v, "https://bad.example"), 101);
    expect_rc(spoke_stream_listener_close(v.l), 0);
}

Test(stream_network, paths_below_its_own)
{
    spoke_stream_config config;
    struct server v;

    spoke_stream_config_init(&config);
    for (int below = 0; below < 2; below++) {
        config.ws_below = below;
        serve(&v, &config);
        cr_assert_eq(ask_for(&v, "/a/path", NULL), 101);
        cr_assert_eq(ask_for(&v, "/a/path/and/more", NULL), below ? 101 : 404);
        cr_assert_eq(ask_for(&v, "/a/pathological", NULL), 404);
        expect_rc(spoke_stream_listener_close(v.l), 0);
    }
}

Test(stream_network, a_page_beside_the_stream)
{
    static const char page[] = "<p>hello", request[] = "GET /p.html HTTP/1.1\r\nHost: x\r\n\r\n";
    spoke_stream_config config;
    char path[ENDPOINT_MAX], text[1024];
    struct raw_peer p;
    struct server v;
    FILE *file;

    scratch_path(path, "p.html");
    file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_geq(fputs(page, file), 0);
    cr_assert_eq(fclose(file), 0);
    spoke_stream_config_init(&config);
    config.ws_directory = scratch_dir();
    serve(&v, &config);
    cr_assert_eq(raw_connect(&p, v.place, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, request, sizeof request - 1, RAW_LIMIT_MS), RAW_OK);
    cr_assert_gt(ws_read_head(&p, text, sizeof text, RAW_LIMIT_MS), 0);
    cr_assert_eq(ws_status(text), 200);
    cr_assert_eq(raw_recv_bytes(&p, text, sizeof page - 1, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(memcmp(text, page, sizeof page - 1), 0);
    raw_close(&p);
    expect_rc(spoke_stream_listener_close(v.l), 0);
}

/* What is written leaves in frames of at most so many bytes, also masked ones. */
Test(stream_network, frames_have_the_size_that_is_set)
{
    enum { ALL = 100000, SMALL = 8192, DEFAULT = 65536 };
    static uint8_t bytes[ALL], got[ALL];
    spoke_stream_config config;
    spoke_stream *s;

    bytes_fill(bytes, ALL, 0);
    spoke_stream_config_init(&config);
    for (int i = 0; i < 4; i++) {
        size_t most = i % 2 == 0 ? SMALL : DEFAULT, have = 0, largest = 0, done;
        struct raw_listener raw;
        struct raw_peer p;
        struct server v;
        unsigned first;

        config.ws_frame_size = i % 2 == 0 ? SMALL : (size_t)1 << 20; /* more is not sent together */
        if (i < 2) {
            serve(&v, &config);
            cr_assert_eq(ws_open(&p, v.url, NULL), RAW_OK);
            expect_rc(spoke_stream_accept(v.l, &s, SPOKE_FOREVER), 0);
            expect_rc(spoke_stream_listener_close(v.l), 0);
        } else {
            endpoint_fresh(v.url, WS);
            ws_place(v.place, v.url);
            cr_assert_eq(raw_listen(&raw, v.place), RAW_OK);
            expect_rc(spoke_stream_dial(&s, v.url, &config, NULL, SPOKE_NOW), 0);
            cr_assert_eq(ws_accept(&raw, &p, "spoke-stream.1"), RAW_OK);
            raw_listener_close(&raw);
        }
        expect_rc(spoke_stream_write(s, bytes, ALL, &done), 0);
        while (have < ALL) {
            long n = ws_recv_frame(&p, &first, got + have, ALL - have, RAW_LIMIT_MS);

            cr_assert(n > 0 && (size_t)n <= most, "%ld", n);
            largest = (size_t)n > largest ? (size_t)n : largest;
            have += (size_t)n;
        }
        cr_assert_eq(largest, most);
        cr_assert(bytes_hold(got, ALL, 0));
        expect_rc(spoke_stream_close(s), 0);
        raw_close(&p);
    }
}

Test(stream_network, options_of_ws_that_cannot_be)
{
    static char endless[5000];
    spoke_stream_listener *l;
    spoke_stream_config config;
    char url[ENDPOINT_MAX];
    spoke_stream *s;

    memset(endless, 'x', sizeof endless - 1);
    endpoint_fresh(url, WS);
    spoke_stream_config_init(&config);
    config.ws_frame_size = 8191;
    expect_rc(spoke_stream_listen(&l, url, &config, NULL), SPOKE_ERANGE);
    cr_assert_null(l);
    expect_rc(spoke_stream_dial(&s, url, &config, NULL, SPOKE_NOW), SPOKE_ERANGE);
    cr_assert_null(s);
    config.ws_frame_size = 0;
    config.ws_origins = endless;
    expect_rc(spoke_stream_listen(&l, url, &config, NULL), SPOKE_ERANGE);
    config.ws_origins = NULL;
    config.ws_directory = endless;
    expect_rc(spoke_stream_listen(&l, url, &config, NULL), SPOKE_ERANGE);
    /* Where there is no WebSocket nobody looks at them. */
    config.ws_frame_size = 1;
    endpoint_fresh(url, TCP);
    expect_rc(spoke_stream_listen(&l, url, &config, NULL), 0);
    expect_rc(spoke_stream_listener_close(l), 0);
}
