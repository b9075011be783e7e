/* SPDX-License-Identifier: MIT */
/* What a listener agrees on and what not, row by row: `openssl s_client` against one of ours.  The
 * table in docs/tls.md says the same. */
#include <stdio.h>
#include <string.h>

#include "tests/tls/openssl.h"

static void
end_listen(struct end *e, const struct spoke_tls_options *o)
{
    end_open(e, o);
    expect_rc(spoke_listen(e->s, e->url, &e->l, 0), 0);
}

#define YES(Version, Cipher) "New, " Version ", Cipher is " Cipher
#define NO                   "New, (NONE), Cipher is (NONE)"

static const struct client_row {
    const char *what;
    void (*adjust)(struct spoke_tls_options *o);
    const char *arguments; /* of s_client */
    const char *command;   /* what is typed there … */
    const char *wanted[2]; /* in its output; the first one after that */
    const char *unwanted;
} client_rows[] = {
    {"1.3", NULL, "-tls1_3", "", {YES("TLSv1.3", "TLS_AES_256_GCM_SHA384"), "Verification: OK"}, 0},
    {"1.2", NULL, "-tls1_2", "", {YES("TLSv1.2", "ECDHE-ECDSA-"), "Verification: OK"}, NULL},
    {"1.2, forbidden", only_1_3, "-tls1_2", "", {NO, "alert protocol version"}, NULL},
    {"1.3 is left", only_1_3, "", "", {YES("TLSv1.3", "TLS_")}, NULL},
    {"1.1", NULL, "-tls1_1 -cipher ALL" ANY, "", {NO, "alert protocol version"}, NULL},
    {"1.0", NULL, "-tls1 -cipher ALL" ANY, "", {NO, "alert protocol version"}, NULL},
    {"AES-128, 1.3",
     NULL,
     "-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256",
     "",
     {YES("TLSv1.3", "TLS_AES_128_GCM_SHA256")},
     NULL},
    {"ChaCha20, 1.3",
     NULL,
     "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256",
     "",
     {YES("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256")},
     NULL},
    {"CCM, 1.3",
     NULL,
     "-tls1_3 -ciphersuites TLS_AES_128_CCM_SHA256",
     "",
     {NO, "alert handshake failure"},
     NULL},
    {"AES-GCM",
     NULL,
     "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256",
     "",
     {YES("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")},
     NULL},
    {"ChaCha20",
     NULL,
     "-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305",
     "",
     {YES("TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305")},
     NULL},
    {"CBC",
     NULL,
     "-tls1_2 -cipher ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA" ANY,
     "",
     {NO, "alert handshake failure"},
     NULL},
    {"CCM",
     NULL,
     "-tls1_2 -cipher ECDHE-ECDSA-AES128-CCM" ANY,
     "",
     {NO, "alert handshake failure"},
     NULL},
    {"RSA", with_rsa, "-tls1_2", "", {YES("TLSv1.2", "ECDHE-RSA-"), NULL}, NULL},
    {"no forward secrecy",
     with_rsa,
     "-tls1_2 -cipher kRSA" ANY,
     "",
     {NO, "alert handshake failure"},
     NULL},
    {"no authentication",
     NULL,
     "-tls1_2 -cipher aNULL" ANY,
     "",
     {NO, "alert handshake failure"},
     NULL},
    {"no encryption", NULL, "-tls1_2 -cipher eNULL" ANY, "", {NO, "alert handshake failure"}, NULL},
    {"SHA-1 signatures", NULL, "-tls1_2 -sigalgs ECDSA+SHA1 -cipher ALL" ANY, "", {NO, "alert"}, 0},
    {"a curve of 224 bits",
     with_rsa,
     "-tls1_2 -curves secp224r1 -cipher ECDHE" ANY,
     "",
     {NO, "alert handshake failure"},
     NULL},
    {"X25519", NULL, "-tls1_3 -curves X25519", "", {"Server Temp Key: X25519", NULL}, NULL},
    {"compression", NULL, "-tls1_2 -comp", "", {"Compression: NONE", "Expansion: NONE"}, NULL},
    {"renegotiation",
     NULL,
     "-tls1_2",
     "R\n",
     {"no renegotiation", "Secure Renegotiation IS supported"},
     NULL},
    {"an agreed protocol", with_alpn, "-alpn other,sp/0,sp/1", "", {"ALPN protocol: sp/1"}, NULL},
    {"no protocol in common",
     with_alpn,
     "-alpn other",
     "",
     {"No ALPN negotiated", YES("TLSv1.3", "TLS_")},
     NULL},
    {"its name",
     NULL,
     "-servername spoke.test -verify_hostname spoke.test",
     "",
     {"Verified peername: spoke.test"},
     NULL},
    {"another name", NULL, "-verify_hostname other.test", "", {"Verify return code: 62"}, NULL},
    {"a certificate is wanted, 1.2",
     wants_cert,
     "-tls1_2",
     "",
     {"CN = test authority", "alert handshake failure"},
     NULL},
    {"a certificate is wanted, 1.3",
     wants_cert,
     "-tls1_3 -ign_eof",
     "",
     {"CN = test authority", "alert certificate required"},
     NULL},
    {"sessions go on", NULL, "-tls1_2 -reconnect", "", {"Reused, TLSv1.2"}, NULL},
    {"sessions may not",
     no_resumption,
     "-tls1_2 -reconnect",
     "",
     {YES("TLSv1.2", "ECDHE")},
     "Reused, "},
};

static void
play_client(const struct client_row *row)
{
    static struct openssl client;
    struct spoke_tls_options o;
    struct end e;

    server_options(&o);
    if (row->adjust != NULL)
        row->adjust(&o);
    end_listen(&e, &o);
    openssl_start(&client, "s_client -connect %s -CAfile %s %s", e.place, authority_file(),
                  row->arguments);
    if (row->command[0] != '\0') {
        openssl_await(&client, OUR_PAIR); /* or it would find that in its way */
        openssl_write(&client, row->command, strlen(row->command));
        openssl_await(&client, row->wanted[0]);
    }
    openssl_finish(&client);
    for (size_t i = 0; i < 2 && row->wanted[i] != NULL; i++)
        cr_expect_not_null(strstr(client.text, row->wanted[i]), "%s: no \"%s\":\n%s", row->what,
                           row->wanted[i], client.text);
    if (row->unwanted != NULL)
        cr_expect_null(strstr(client.text, row->unwanted), "%s: \"%s\":\n%s", row->what,
                       row->unwanted, client.text);
    expect_rc(spoke_socket_close(e.s), 0);
}

Test(openssl, a_listener_agrees_on_what_the_table_says)
{
    for (size_t i = 0; i < sizeof client_rows / sizeof *client_rows; i++)
        play_client(&client_rows[i]);
}

/* A listener's ticket comes with its first message. */
static void
converse(struct end *e, const char *version, const char *sessions, bool resumed)
{
    static struct openssl client;
    spoke_pipe_id pipe;

    openssl_start(&client, "s_client -quiet %s -servername spoke.test -CAfile %s -connect %s %s %s",
                  version, authority_file(), e->place, cert_files(client_cert()), sessions);
    openssl_write(&client, SP_PAIR, sizeof SP_PAIR - 1);
    openssl_await(&client, OUR_PAIR);
    pipe = hear_hello(e, &client);
    cr_assert_eq(is_resumed(e, pipe), resumed);
    expect_text(e, pipe, SPOKE_OPT_TLS_SERVER_NAME, "spoke.test");
    expect_text(e, pipe, SPOKE_OPT_TLS_PEER_SUBJECT, "CN=a client");
    expect_rc(spoke_send_bytes(e->s, "there", 5, 0), 0);
    openssl_await(&client, ".......\x05there");
    openssl_kill(&client);
    await_end(e); /* a PAIR has one at a time */
}

Test(openssl, clients_talk_and_come_back_with_their_sessions)
{
    static const char *const versions[] = {"-tls1_2", "-tls1_3"};
    char path[ENDPOINT_MAX], out[ENDPOINT_MAX + 16], in[ENDPOINT_MAX + 16];
    struct spoke_tls_options o;
    struct end e;

    server_options(&o);
    wants_cert(&o);
    end_listen(&e, &o);
    scratch_path(path, "session");
    snprintf(out, sizeof out, "-sess_out %s", path);
    snprintf(in, sizeof in, "-sess_in %s", path);
    for (int i = 0; i < 2; i++) {
        converse(&e, versions[i], out, false);
        converse(&e, versions[i], in, true);
    }
    expect_rc(spoke_socket_close(e.s), 0);
}
