/* SPDX-License-Identifier: MIT */
/* The same for a dialer: one of ours against `openssl s_server`. */
#include <string.h>

#include "tests/tls/openssl.h"

static const struct server_row {
    const char *what;
    void (*adjust)(struct spoke_tls_options *o);
    const char *arguments; /* of s_server */
    int error;             /* that our dialer tells; 0: they agree */
    const char *wanted;    /* in its output */
    const char *name, *value;
} server_rows[] = {
    {"1.3", NULL, "", 0, "CIPHER is TLS_AES_256_GCM_SHA384", SPOKE_OPT_TLS_VERSION, "TLSv1.3"},
    {"1.2", NULL, "-tls1_2", 0, "CIPHER is ECDHE-ECDSA-AES256-GCM-SHA384", SPOKE_OPT_TLS_VERSION,
     "TLSv1.2"},
    {"1.2, forbidden", only_1_3, "-tls1_2", SPOKE_ETLS, "unsupported protocol", NULL, NULL},
    {"1.1", NULL, "-tls1_1 -cipher ALL" ANY, SPOKE_ETLS, "unsupported protocol", NULL, NULL},
    {"1.0", NULL, "-tls1 -cipher ALL" ANY, SPOKE_ETLS, "unsupported protocol", NULL, NULL},
    {"CBC", NULL, "-tls1_2 -cipher ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA" ANY,
     SPOKE_ETLS, "no shared cipher", NULL, NULL},
    {"CCM", NULL, "-tls1_2 -cipher ECDHE-ECDSA-AES128-CCM" ANY, SPOKE_ETLS, "no shared cipher",
     NULL, NULL},
    {"no authentication", NULL, "-tls1_2 -cipher aNULL" ANY, SPOKE_ETLS, "no shared cipher", NULL,
     NULL},
    {"no encryption", NULL, "-tls1_2 -cipher eNULL" ANY, SPOKE_ETLS, "no shared cipher", NULL,
     NULL},
    {"an agreed protocol", with_alpn, "-alpn sp/0", 0,
     "ALPN protocols advertised by the client: sp/1, sp/0", SPOKE_OPT_TLS_ALPN, "sp/0"},
    {"whom it asks for", NULL, "-servername spoke.test", 0,
     "Hostname in TLS extension: \"spoke.test\"", SPOKE_OPT_TLS_PEER_SUBJECT, "CN=spoke.test"},
    {"a certificate is wanted, 1.2", NULL, "-tls1_2 -Verify 1", SPOKE_ECERTREFUSED,
     "peer did not return a certificate", NULL, NULL},
    {"a certificate is wanted, 1.3", NULL, "-tls1_3 -Verify 1", SPOKE_ECERTREFUSED,
     "peer did not return a certificate", NULL, NULL},
    {"it is there", with_cert, "-Verify 1 -verify_return_error", 0, "CN = a client",
     SPOKE_OPT_TLS_VERSION, "TLSv1.3"},
};

static void
start_server(struct openssl *server, const struct end *e, const char *arguments)
{
    const struct cert *c = test_cert();

    /* Where it knows a name it has a second certificate for it. */
    openssl_start(server, "s_server -accept %s -CAfile %s %s -cert2 %s -key2 %s %s", e->place,
                  authority_file(), cert_files(c), cert_file("cert2", cert_text(c)),
                  cert_file("key2", cert_key_text(c)), arguments);
    openssl_await(server, "ACCEPT");
}

/* Its answer to our greetings, and hello. */
static spoke_pipe_id
greet(struct end *e, struct openssl *server)
{
    openssl_await(server, OUR_PAIR);
    openssl_write(server, SP_PAIR, sizeof SP_PAIR - 1);
    return hear_hello(e, server);
}

/* Much of what it says it says at its end. */
static void
quit_server(struct openssl *server)
{
    openssl_write(server, "Q\n", 2);
    openssl_finish(server);
}

static void
play_server(const struct server_row *row)
{
    static struct openssl server;
    struct spoke_tls_options o;
    struct end e;

    client_options(&o);
    if (row->adjust != NULL)
        row->adjust(&o);
    end_open(&e, &o);
    start_server(&server, &e, row->arguments);
    if (row->error == 0) {
        expect_rc(spoke_dial(e.s, e.url, &e.d, 0), 0);
        expect_text(&e, greet(&e, &server), row->name, row->value);
        quit_server(&server);
    } else {
        int rc = spoke_dial(e.s, e.url, &e.d, SPOKE_WAIT_FIRST);
        cr_expect_eq(rc, row->error, "%s: %s, not %s", row->what, spoke_error_name(rc),
                     spoke_error_name(row->error));
        openssl_await(&server, row->wanted);
        openssl_kill(&server);
    }
    cr_expect_not_null(strstr(server.text, row->wanted), "%s: no \"%s\":\n%s", row->what,
                       row->wanted, server.text);
    expect_rc(spoke_socket_close(e.s), 0);
}

Test(openssl, a_dialer_agrees_on_what_the_table_says)
{
    for (size_t i = 0; i < sizeof server_rows / sizeof *server_rows; i++)
        play_server(&server_rows[i]);
}

Test(openssl, a_dialer_comes_back_with_its_session)
{
    static const char *const versions[] = {"-tls1_2", "-tls1_3"};
    static struct openssl server;
    struct spoke_tls_options o;
    struct end e;

    for (int i = 0; i < 2; i++) {
        client_options(&o);
        end_open(&e, &o);
        start_server(&server, &e, versions[i]);
        for (int again = 0; again < 2; again++) {
            expect_rc(spoke_dial(e.s, e.url, &e.d, 0), 0);
            cr_assert_eq(is_resumed(&e, greet(&e, &server)), again == 1, "%s", versions[i]);
            if (again == 1)
                break;
            expect_rc(spoke_dialer_close(e.d), 0);
            server.text[server.size = 0] = '\0';
        }
        quit_server(&server);
        cr_assert_not_null(strstr(server.text, "Reused session-id"));
        expect_rc(spoke_socket_close(e.s), 0);
    }
}

/* A server that wants new keys of 1.2 loses its connection. */
Test(openssl, a_dialer_does_not_shake_hands_again)
{
    static struct openssl server;
    struct spoke_tls_options o;
    struct end e;

    client_options(&o);
    end_open(&e, &o);
    start_server(&server, &e, "-tls1_2");
    expect_rc(spoke_dial(e.s, e.url, &e.d, 0), 0);
    greet(&e, &server);
    openssl_write(&server, "R\n", 2);
    await_end(&e);
    openssl_kill(&server);
    expect_rc(spoke_socket_close(e.s), 0);
}
