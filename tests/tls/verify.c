/* SPDX-License-Identifier: MIT */
/* Each way in which a certificate can be wrong has its own error, at the end that looks at it, and
 * words for it; the other end learns that it was refused. */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/tls/meeting.h"

/* One thing is wrong with the certificate of `wish`; who checks it says `error`. */
struct wrong {
    const char *name;
    struct cert_wish wish;
    enum { TRUSTED, UNKNOWN, SELF, NOBODY } issuer;
    bool revoked;
    int error;
    const char *word; /* in the reason */
};

static const struct wrong server_wrongs[] = {
    {"expired", {.from_days = -3, .to_days = -2}, TRUSTED, false, SPOKE_ECERTEXPIRED, "expired"},
    {"early", {.from_days = 2, .to_days = 3}, TRUSTED, false, SPOKE_ECERTEARLY, "not yet valid"},
    {"name", {.names = "DNS:other.test"}, TRUSTED, false, SPOKE_ECERTNAME, "ostname mismatch"},
    {"no name", {.names = "IP:127.0.0.1"}, TRUSTED, false, SPOKE_ECERTNAME, "ostname mismatch"},
    {"issuer", {0}, UNKNOWN, false, SPOKE_ECERTISSUER, "issuer"},
    {"self", {0}, SELF, false, SPOKE_ECERTSELF, "self-signed"},
    {"usage", {.usage = "clientAuth"}, TRUSTED, false, SPOKE_ECERTUSAGE, "purpose"},
    {"revoked", {0}, TRUSTED, true, SPOKE_ECERTREVOKED, "revoked"},
};

static const struct wrong client_wrongs[] = {
    {"expired", {.from_days = -3, .to_days = -2}, TRUSTED, false, SPOKE_ECERTEXPIRED, "expired"},
    {"early", {.from_days = 2, .to_days = 3}, TRUSTED, false, SPOKE_ECERTEARLY, "not yet valid"},
    {"issuer", {0}, UNKNOWN, false, SPOKE_ECERTISSUER, "issuer"},
    {"self", {0}, SELF, false, SPOKE_ECERTSELF, "self-signed"},
    {"usage", {.usage = "serverAuth"}, TRUSTED, false, SPOKE_ECERTUSAGE, "purpose"},
    {"revoked", {0}, TRUSTED, true, SPOKE_ECERTREVOKED, "revoked"},
    {"none", {0}, NOBODY, false, SPOKE_ECERTNONE, "no certificate"},
};

static const struct cert *
make_wrong(const struct wrong *w)
{
    struct cert_wish wish = w->wish;

    wish.subject = "wrong one";
    if (wish.names == NULL)
        wish.names = "DNS:spoke.test";
    if (w->issuer == TRUSTED)
        wish.issuer = test_authority();
    else if (w->issuer == UNKNOWN)
        wish.issuer = cert_make(
            &(struct cert_wish){.subject = "who is that", .is_authority = true});
    return cert_make(&wish);
}

static void
expect_reason(const char *reason, const struct wrong *w)
{
    cr_assert_not_null(strstr(reason, spoke_strerror(w->error)), "%s: %s", w->name, reason);
    cr_assert_not_null(strstr(reason, w->word), "%s: %s", w->name, reason);
    if (w->issuer != NOBODY)
        cr_assert_not_null(strstr(reason, "CN=wrong one"), "%s: %s", w->name, reason);
}

static char logged[512];

static void
note(void *ctx, enum spoke_log_level level, const char *text)
{
    (void)ctx, (void)level;
    if (logged[0] == '\0') /* the dialer's is the first */
        strncpy(logged, text, sizeof logged - 1);
}

static void
refuse_server(const struct wrong *w, enum spoke_tls_version version)
{
    struct spoke_tls_options server, client;
    const struct cert *c = make_wrong(w);
    char reason[512];
    struct meeting m;

    server_options(&server);
    present(&server, c);
    client_options(&client);
    client.min_version = version;
    if (w->revoked)
        client.crl = cert_revoked_text(test_authority(), c);
    meeting_open(&m, &server);
    logged[0] = '\0';
    expect_rc(meeting_dial(&m, &client), w->error);
    expect_rc(spoke_dialer_get_string(m.d, SPOKE_OPT_LAST_REASON, reason, sizeof reason), 0);
    expect_reason(reason, w);
    cr_assert_not_null(strstr(logged, w->word), "%s: %s", w->name, logged);
    cr_assert_eq(meeting_dialer_error(&m), w->error);
    expect_rc(meeting_listener_error(&m), SPOKE_ECERTREFUSED);
    /* Who does not look takes it. */
    expect_rc(spoke_dialer_close(m.d), 0);
    client.verify = SPOKE_TLS_VERIFY_NONE;
    expect_rc(meeting_dial(&m, &client), 0);
    meeting_talk(&m);
    cr_assert_not(pipe_flag(&m, 1, SPOKE_OPT_TLS_VERIFIED));
    meeting_close(&m);
}

Test(tls_verify, a_server_that_is_wrong_is_told_as_what_it_is)
{
    spoke_set_log(note, NULL, SPOKE_LOG_WARNING);
    for (size_t i = 0; i < sizeof server_wrongs / sizeof *server_wrongs; i++)
        refuse_server(&server_wrongs[i], SPOKE_TLS_1_2);
    spoke_set_log(NULL, NULL, SPOKE_LOG_WARNING);
}

static void
refuse_client(const struct wrong *w)
{
    struct spoke_tls_options server, client;
    const struct cert *c = w->issuer != NOBODY ? make_wrong(w) : NULL;
    char reason[512];
    struct meeting m;

    server_options(&server);
    server.verify = SPOKE_TLS_VERIFY_REQUIRED;
    client_options(&client);
    if (c != NULL)
        present(&client, c);
    if (w->revoked)
        server.crl = cert_revoked_text(test_authority(), c);
    meeting_open(&m, &server);
    /* With 1.3 a client may have its pipe, or not yet, when the server has seen what it sent. */
    expect_rc(meeting_dial(&m, &client), SPOKE_ECERTREFUSED);
    expect_rc(meeting_listener_error(&m), w->error);
    expect_rc(spoke_listener_get_string(m.l, SPOKE_OPT_LAST_REASON, reason, sizeof reason), 0);
    if (w->issuer != NOBODY)
        expect_reason(reason, w);
    expect_rc(spoke_dialer_get_string(m.d, SPOKE_OPT_LAST_REASON, reason, sizeof reason), 0);
    cr_assert_null(strstr(reason, "\"unknown\""), "%s", reason);
    if (w->issuer == NOBODY)
        cr_assert_not_null(strstr(reason, "certificate required"), "%s", reason);
    meeting_close(&m);
}

Test(tls_verify, a_client_that_is_wrong_is_told_as_what_it_is)
{
    for (size_t i = 0; i < sizeof client_wrongs / sizeof *client_wrongs; i++)
        refuse_client(&client_wrongs[i]);
}

Test(tls_verify, both_ends_can_be_sure)
{
    struct spoke_tls_options server, client;
    char text[512];
    struct meeting m;

    server_options(&server);
    server.verify = SPOKE_TLS_VERIFY_REQUIRED;
    server.crl = cert_revoked_text(test_authority(), NULL);
    client_options(&client);
    present(&client,
            cert_make(&(struct cert_wish){
                .subject = "a client", .usage = "clientAuth", .issuer = test_authority()}));
    meeting_open(&m, &server);
    expect_rc(meeting_dial(&m, &client), 0);
    meeting_talk(&m);
    for (int side = 0; side < 2; side++) {
        cr_assert(pipe_flag(&m, side, SPOKE_OPT_TLS_VERIFIED));
        pipe_text(&m, side, SPOKE_OPT_TLS_PEER_FINGERPRINT, text);
        cr_assert_eq(strlen(text), 64);
        pipe_text(&m, side, SPOKE_OPT_TLS_VERSION, text);
        cr_assert_str_eq(text, "TLSv1.3");
    }
    pipe_text(&m, 0, SPOKE_OPT_TLS_PEER_SUBJECT, text);
    cr_assert_str_eq(text, "CN=a client");
    pipe_text(&m, 1, SPOKE_OPT_TLS_PEER_SUBJECT, text);
    cr_assert_str_eq(text, "CN=spoke.test");
    pipe_text(&m, 0, SPOKE_OPT_TLS_SERVER_NAME, text);
    cr_assert_str_eq(text, "spoke.test");
    meeting_close(&m);
}

/* ---- chains ---- */

/* A server whose certificate an authority in between has signed, which it sends along or not. */
static void
expect_chain(const struct cert *between, bool sends_it, int wanted)
{
    const struct cert *c = cert_make(
        &(struct cert_wish){.subject = "wrong one", .names = "DNS:spoke.test", .issuer = between});
    struct spoke_tls_options server, client;
    char chain[8192];
    struct meeting m;

    server_options(&server);
    present(&server, c);
    snprintf(chain, sizeof chain, "%s%s", cert_text(c), sends_it ? cert_text(between) : "");
    server.cert = chain;
    client_options(&client);
    meeting_open(&m, &server);
    expect_rc(meeting_dial(&m, &client), wanted);
    if (wanted == 0) {
        meeting_talk(&m);
        cr_assert(pipe_flag(&m, 1, SPOKE_OPT_TLS_VERIFIED));
    } else {
        expect_rc(meeting_dialer_error(&m), wanted);
        expect_rc(meeting_listener_error(&m), SPOKE_ECERTREFUSED);
    }
    meeting_close(&m);
}

Test(tls_verify, a_chain_is_whole_and_made_of_authorities)
{
    const struct cert *good = cert_make(&(struct cert_wish){.subject = "in between",
                                                            .is_authority = true,
                                                            .issuer = test_authority()}),
                      *no_authority = cert_make(&(struct cert_wish){.subject = "no authority",
                                                                    .issuer = test_authority()}),
                      *old = cert_make(&(struct cert_wish){.subject = "of old",
                                                           .is_authority = true,
                                                           .issuer = test_authority(),
                                                           .from_days = -3,
                                                           .to_days = -2}),
                      *others = cert_make(&(struct cert_wish){
                          .subject = "in between",
                          .is_authority = true,
                          .issuer = cert_make(&(struct cert_wish){.subject = "who is that",
                                                                  .is_authority = true})});

    expect_chain(good, true, 0);
    expect_chain(good, false, SPOKE_ECERTISSUER);
    expect_chain(no_authority, true, SPOKE_ECERTUSAGE);
    expect_chain(old, true, SPOKE_ECERTEXPIRED);
    expect_chain(others, true, SPOKE_ECERTISSUER);
}

Test(tls_verify, a_client_may_have_none_where_it_is_optional)
{
    struct spoke_tls_options server, client;
    char text[512];
    struct meeting m;

    server_options(&server);
    server.verify = SPOKE_TLS_VERIFY_OPTIONAL;
    client_options(&client);
    meeting_open(&m, &server);
    expect_rc(meeting_dial(&m, &client), 0);
    meeting_talk(&m);
    cr_assert_not(pipe_flag(&m, 0, SPOKE_OPT_TLS_VERIFIED));
    pipe_text(&m, 0, SPOKE_OPT_TLS_PEER_SUBJECT, text);
    cr_assert_str_eq(text, "");
    meeting_hang_up(&m);
    present(&client, make_wrong(&client_wrongs[0]));
    expect_rc(meeting_dial(&m, &client), SPOKE_ECERTREFUSED);
    meeting_close(&m);
}

/* What is between the certificate and the authority is what was given with it: nobody looks for it
 * elsewhere while hands are shaken, be it with those that are trusted. */
Test(tls_verify, a_server_sends_the_chain_that_it_was_given)
{
    const struct cert *between = cert_make(&(struct cert_wish){
        .subject = "between", .is_authority = true, .issuer = test_authority()});
    const struct cert *c = cert_make(
        &(struct cert_wish){.subject = "wrong one", .names = "DNS:spoke.test", .issuer = between});
    struct spoke_tls_options server, client;
    char text[8192];
    struct meeting m;

    server_options(&server);
    present(&server, c);
    server.ca = cert_text(between);
    client_options(&client);
    meeting_open(&m, &server);
    expect_rc(meeting_dial(&m, &client), SPOKE_ECERTISSUER);
    meeting_close(&m);
    snprintf(text, sizeof text, "%s%s", cert_text(c), cert_text(between));
    server.cert = text;
    server.ca = NULL;
    meeting_open(&m, &server);
    expect_rc(meeting_dial(&m, &client), 0);
    meeting_talk(&m);
    cr_assert(pipe_flag(&m, 1, SPOKE_OPT_TLS_VERIFIED));
    meeting_close(&m);
}

/* Without a configuration a dialer believes the system's authorities, and asks for the URL's host.
 */
Test(tls_verify, is_on_by_default)
{
    struct spoke_tls_options server, client;
    struct meeting m;

    server_options(&server);
    meeting_open(&m, &server);
    expect_rc(meeting_dial(&m, NULL), SPOKE_ECERTISSUER);
    expect_rc(spoke_dialer_close(m.d), 0);
    client_options(&client);
    client.server_name = NULL; /* an address that is none of the certificate's */
    expect_rc(meeting_dial(&m, &client), SPOKE_ECERTNAME);
    expect_rc(spoke_dialer_close(m.d), 0);
    client.server_name = "127.0.0.1";
    expect_rc(meeting_dial(&m, &client), 0);
    meeting_talk(&m);
    meeting_close(&m);
}

/* Take 127.0.0.1's port of this number, too, so that nobody listens there.  False: somebody has it.
 */
static bool
hold_port(int *fd, unsigned long port)
{
    struct sockaddr_in here = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(*fd, 0);
    if (bind(*fd, (struct sockaddr *)&here, sizeof here) == 0)
        return true;
    close(*fd);
    return false;
}

/* One version of IP, and no other. */
static void
keep_to_one_version(const char *scheme, const char *path)
{
    static const char *const wrong[] = {"4://[::1]:5000", "6://127.0.0.1:5000",
                                        "6://[::ffff:127.0.0.1]:5000"};
    char url[ENDPOINT_MAX], bound[ENDPOINT_MAX];
    spoke_listener *l;
    spoke_socket *a, *b;
    spoke_dialer *d;
    unsigned long port;
    int fd;

    expect_rc(spoke_socket_open(&a, SPOKE_PAIR, NULL), 0);
    expect_rc(spoke_socket_open(&b, SPOKE_PAIR, NULL), 0);
    expect_rc(spoke_socket_set_tls(a, test_tls()), 0);
    expect_rc(spoke_socket_set_tls(b, test_tls()), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(url, sizeof url, "%s%s%s", scheme, wrong[i], path);
        expect_rc(spoke_listen(a, url, NULL, 0), SPOKE_EURL);
        expect_rc(spoke_dial(b, url, NULL, 0), SPOKE_EURL);
    }
    for (;;) {
        snprintf(url, sizeof url, "%s6://*:0%s", scheme, path);
        expect_rc(spoke_listen(a, url, &l, 0), 0);
        expect_rc(spoke_listener_get_string(l, SPOKE_OPT_ADDRESS, bound, sizeof bound), 0);
        snprintf(url, sizeof url, "%s://[::]:", scheme);
        cr_assert_eq(strncmp(bound, url, strlen(url)), 0, "%s", bound);
        port = strtoul(strrchr(bound, ':') + 1, NULL, 10);
        if (hold_port(&fd, port))
            break;
        expect_rc(spoke_listener_close(l), 0);
    }
    snprintf(url, sizeof url, "%s4://localhost:%lu%s", scheme, port, path);
    expect_rc(spoke_dial(b, url, &d, SPOKE_WAIT_FIRST), SPOKE_ECONNREFUSED);
    close(fd);
    snprintf(url, sizeof url, "%s6://[::1]:%lu%s", scheme, port, path);
    expect_rc(spoke_dial(b, url, &d, SPOKE_WAIT_FIRST), 0);
    snprintf(url, sizeof url, "%s4://*:0%s", scheme, path);
    expect_rc(spoke_listen(a, url, &l, 0), 0);
    expect_rc(spoke_listener_get_string(l, SPOKE_OPT_ADDRESS, bound, sizeof bound), 0);
    snprintf(url, sizeof url, "%s://0.0.0.0:", scheme);
    cr_assert_eq(strncmp(bound, url, strlen(url)), 0, "%s", bound);
    expect_rc(spoke_socket_close(a), 0);
    expect_rc(spoke_socket_close(b), 0);
}

Test(tls_verify, schemes_of_one_version_keep_to_it)
{
    keep_to_one_version("tcp", "");
    keep_to_one_version("tls+tcp", "");
    keep_to_one_version("ws", "/x");
    keep_to_one_version("wss", "/x");
}
