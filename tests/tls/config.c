/* SPDX-License-Identifier: MIT */
/* Configurations: what is refused, what is agreed on, and how they change. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/tls/meeting.h"

static void
expect_bad(const struct spoke_tls_options *o, int error)
{
    spoke_tls_config *c = (spoke_tls_config *)1;

    expect_rc(spoke_tls_config_new(&c, o), error);
    cr_assert_null(c);
}

Test(tls_config, what_is_not_usable_is_refused)
{
    struct spoke_tls_options o;
    char half[100];

    spoke_tls_options_init(&o);
    o.cert = "no certificate";
    expect_bad(&o, SPOKE_EBADCERT);
    snprintf(half, sizeof half, "%.90s", cert_text(test_cert()));
    o.cert = half;
    expect_bad(&o, SPOKE_EBADCERT);
    present(&o, test_cert());
    o.key = cert_key_text(test_authority()); /* another's */
    expect_bad(&o, SPOKE_EBADCERT);
    o.key = NULL; /* then it is to be where the certificate is */
    expect_bad(&o, SPOKE_EBADCERT);
    o.cert = NULL;
    o.key = cert_key_text(test_cert());
    expect_bad(&o, SPOKE_EINVAL);
    spoke_tls_options_init(&o);
    o.cert_file = "/nowhere/cert.pem";
    expect_bad(&o, SPOKE_ENOENT);
    spoke_tls_options_init(&o);
    o.ca = "nobody";
    expect_bad(&o, SPOKE_EBADCERT);
    o.ca = cert_text(test_authority());
    o.crl = cert_text(test_authority());
    expect_bad(&o, SPOKE_EBADCERT);
    spoke_tls_options_init(&o);
    o.min_version = (enum spoke_tls_version)11;
    expect_bad(&o, SPOKE_ERANGE);
    spoke_tls_options_init(&o);
    o.verify = (enum spoke_tls_verify)4;
    expect_bad(&o, SPOKE_ERANGE);
    spoke_tls_options_init(&o);
    o.alpn = "a,,b";
    expect_bad(&o, SPOKE_ERANGE);
    o.alpn = "";
    expect_bad(&o, SPOKE_ERANGE);
    expect_rc(spoke_tls_config_new(NULL, NULL), SPOKE_EINVAL);
    expect_rc(spoke_tls_config_replace(NULL, &o), SPOKE_EINVAL);
    expect_rc(spoke_tls_config_reload(NULL), SPOKE_EINVAL);
    spoke_tls_config_free(NULL);
}

Test(tls_config, a_listener_needs_one_with_a_certificate)
{
    spoke_stream_config config;
    spoke_stream_listener *sl;
    spoke_tls_config *bare;
    char url[ENDPOINT_MAX];
    spoke_socket *s;

    expect_rc(spoke_tls_config_new(&bare, NULL), 0);
    expect_rc(spoke_socket_open(&s, SPOKE_PAIR, NULL), 0);
    endpoint_fresh(url, TLS);
    expect_rc(spoke_listen(s, url, NULL, 0), SPOKE_ENOTLSCONFIG);
    expect_rc(spoke_socket_set_tls(s, bare), 0);
    expect_rc(spoke_listen(s, url, NULL, 0), SPOKE_ENOCERT);
    expect_rc(spoke_stream_listen(&sl, url, NULL, NULL), SPOKE_ENOTLSCONFIG);
    spoke_stream_config_init(&config);
    config.tls = bare;
    expect_rc(spoke_stream_listen(&sl, url, &config, NULL), SPOKE_ENOCERT);
    spoke_tls_config_free(bare);
    expect_rc(spoke_socket_close(s), 0);
}

Test(tls_config, is_an_option_like_others)
{
    spoke_tls_config *got = NULL, *c = test_tls();
    size_t size = sizeof got;
    char url[ENDPOINT_MAX];
    spoke_socket *s;
    spoke_dialer *d;
    int number = 0;

    expect_rc(spoke_socket_open(&s, SPOKE_PAIR, NULL), 0);
    expect_rc(spoke_socket_set(s, SPOKE_OPT_TLS_CONFIG, SPOKE_INT, &number, sizeof number),
              SPOKE_ETYPE);
    expect_rc(spoke_socket_set(s, SPOKE_OPT_TLS_CONFIG, SPOKE_POINTER, &c, 1), SPOKE_ETYPE);
    expect_rc(spoke_socket_set_tls(s, c), 0);
    endpoint_fresh(url, TLS);
    expect_rc(spoke_dialer_create(&d, s, url), 0);
    expect_rc(spoke_dialer_get(d, SPOKE_OPT_TLS_CONFIG, SPOKE_POINTER, &got, &size), 0);
    cr_assert_eq(got, c, "a dialer begins with its socket's");
    spoke_tls_config_free(got);
    expect_rc(spoke_dialer_set_tls(d, NULL), 0);
    expect_rc(spoke_dialer_get(d, SPOKE_OPT_TLS_CONFIG, SPOKE_POINTER, &got, &size), 0);
    cr_assert_null(got);
    expect_rc(spoke_socket_close(s), 0);
}

Test(tls_config, files_are_as_good_as_texts_and_are_read_again)
{
    struct spoke_tls_options server, client;
    const struct cert *second = cert_make(&(struct cert_wish){
        .subject = "the second", .names = "DNS:spoke.test", .issuer = test_authority()});
    spoke_tls_config *c;
    char text[512];
    struct meeting m;

    spoke_tls_options_init(&server);
    server.cert_file = cert_file("cert", cert_text(test_cert()));
    server.key_file = cert_file("key", cert_key_text(test_cert()));
    client_options(&client);
    client.ca = NULL;
    client.ca_file = cert_file("ca", cert_text(test_authority()));
    meeting_open(&m, &server);
    c = config_of(&server);
    expect_rc(spoke_listener_set_tls(m.l, c), 0);
    expect_rc(meeting_dial(&m, &client), 0);
    meeting_talk(&m);
    cert_file("cert", cert_text(second));
    expect_rc(spoke_tls_config_reload(c), SPOKE_EBADCERT); /* the key is the first one's still */
    cert_file("key", cert_key_text(second));
    expect_rc(spoke_tls_config_reload(c), 0);
    meeting_talk(&m); /* who is there stays */
    pipe_text(&m, 1, SPOKE_OPT_TLS_PEER_SUBJECT, text);
    cr_assert_str_eq(text, "CN=spoke.test");
    meeting_hang_up(&m);
    expect_rc(meeting_dial(&m, &client), 0);
    meeting_talk(&m);
    pipe_text(&m, 1, SPOKE_OPT_TLS_PEER_SUBJECT, text);
    cr_assert_str_eq(text, "CN=the second");
    spoke_tls_config_free(c);
    meeting_close(&m);
}

Test(tls_config, the_lowest_version_and_protocols_are_agreed_on)
{
    struct spoke_tls_options server, client;
    char text[512], path[ENDPOINT_MAX];
    struct stat status;
    struct meeting m;

    server_options(&server);
    server.min_version = SPOKE_TLS_1_3;
    server.alpn = "two,one";
    client_options(&client);
    client.alpn = "one,two,three";
    scratch_path(path, "keys");
    client.key_log = path;
    meeting_open(&m, &server);
    expect_rc(meeting_dial(&m, &client), 0);
    meeting_talk(&m);
    for (int side = 0; side < 2; side++) {
        pipe_text(&m, side, SPOKE_OPT_TLS_ALPN, text);
        cr_assert_str_eq(text, "two");
        pipe_text(&m, side, SPOKE_OPT_TLS_CIPHER, text);
        cr_assert_eq(strncmp(text, "TLS_", 4), 0, "%s", text);
    }
    cr_assert_eq(stat(path, &status), 0);
    cr_assert(status.st_size > 0 && (status.st_mode & 0777) == 0600);
    meeting_hang_up(&m);
    client.alpn = "four";
    client.key_log = NULL;
    expect_rc(meeting_dial(&m, &client), 0);
    meeting_talk(&m);
    pipe_text(&m, 0, SPOKE_OPT_TLS_ALPN, text);
    cr_assert_str_eq(text, "");
    meeting_close(&m);
}

/* Dial, talk, hang up: was it the session of before? */
static bool
comes_back(struct meeting *m, spoke_tls_config *c)
{
    bool resumed;

    expect_rc(spoke_dialer_create(&m->d, m->b, m->url), 0);
    expect_rc(spoke_dialer_set_tls(m->d, c), 0);
    expect_rc(spoke_dialer_start(m->d, SPOKE_WAIT_FIRST), 0);
    meeting_talk(m);
    resumed = pipe_flag(m, 1, SPOKE_OPT_TLS_RESUMED);
    cr_assert_eq(pipe_flag(m, 0, SPOKE_OPT_TLS_RESUMED), resumed);
    cr_assert(pipe_flag(m, 1, SPOKE_OPT_TLS_VERIFIED), "also if it was verified then");
    meeting_hang_up(m);
    return resumed;
}

Test(tls_config, who_comes_back_goes_on_with_the_session)
{
    struct spoke_tls_options server, client;
    spoke_tls_config *c;
    struct meeting m;

    server_options(&server);
    client_options(&client);
    meeting_open(&m, &server);
    c = config_of(&client);
    cr_assert_not(comes_back(&m, c));
    cr_assert(comes_back(&m, c));
    cr_assert(comes_back(&m, c));
    expect_rc(spoke_tls_config_reload(c), 0); /* others may be trusted now */
    cr_assert_not(comes_back(&m, c));
    client.resumption = false;
    expect_rc(spoke_tls_config_replace(c, &client), 0);
    cr_assert_not(comes_back(&m, c));
    cr_assert_not(comes_back(&m, c));
    spoke_tls_config_free(c);
    meeting_close(&m);
}
