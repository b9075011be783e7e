/* SPDX-License-Identifier: MIT */
/* Sessions whose listener asks who is there, by the certificate of the one who has dialed, before
 * it says a word. */
#include "tests/channel/sessions.h"

#include <stdatomic.h>
#include <string.h>

#include "tests/support/certs.h"

static atomic_int asked;

/* Only one of the authority's people may come in. */
static int
is_ann(void *ctx, spoke_stream *carrier)
{
    char subject[256];
    size_t size = sizeof subject;
    bool verified = false;

    (void)ctx;
    atomic_fetch_add(&asked, 1);
    if (spoke_stream_get(carrier, SPOKE_OPT_TLS_PEER_SUBJECT, SPOKE_STRING, subject, &size) != 0 ||
        strcmp(subject, "CN=ann") != 0)
        return SPOKE_EPERM;
    size = sizeof verified;
    if (spoke_stream_get(carrier, SPOKE_OPT_TLS_VERIFIED, SPOKE_BOOL, &verified, &size) != 0)
        return SPOKE_EPERM;
    return verified ? 0 : SPOKE_EPERM;
}

static spoke_tls_config *
config_of(const struct cert *c, enum spoke_tls_verify verify)
{
    struct spoke_tls_options o;
    spoke_tls_config *config;

    test_tls_options(&o);
    o.cert = cert_text(c);
    o.key = cert_key_text(c);
    o.verify = verify;
    cr_assert_eq(spoke_tls_config_new(&config, &o), 0);
    return config;
}

/* The client's end of a session; the listener has let in as many as there were. */
static int
dial_as(const char *name, const char *url, spoke_session **ss)
{
    const struct cert *c = cert_make(
        &(struct cert_wish){.subject = name, .issuer = test_authority()});
    spoke_session_config config;
    int rc;

    spoke_session_config_init(&config);
    config.stream.tls = config_of(c, SPOKE_TLS_VERIFY_DEFAULT);
    rc = spoke_session_dial(ss, url, &config, NULL, spoke_engine_now(NULL) + 20 * SPOKE_SECOND);
    spoke_tls_config_free(config.stream.tls); /* it has its own reference */
    return rc;
}

Test(secure_session, the_peers_certificate_decides)
{
    static const char *const places[] = {"tls+tcp://127.0.0.1:0", "wss://127.0.0.1:0/session"};

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        spoke_session_listener *l;
        spoke_session_config config;
        spoke_session *a, *b;
        spoke_sender *tx;
        spoke_receiver *rx;
        char url[256];

        atomic_store(&asked, 0);
        spoke_session_config_init(&config);
        config.authenticate = is_ann;
        config.stream.tls = config_of(test_cert(), SPOKE_TLS_VERIFY_REQUIRED);
        cr_assert_eq(spoke_session_listen(&l, places[i], &config, NULL), 0);
        spoke_tls_config_free(config.stream.tls);
        cr_assert_eq(spoke_session_listener_address(l, url, sizeof url), 0);
        cr_assert_neq(dial_as("bob", url, &a), 0);
        cr_assert_eq(spoke_session_accept(l, &b, SPOKE_NOW), SPOKE_EAGAIN);
        cr_assert_eq(dial_as("ann", url, &a), 0);
        cr_assert_eq(spoke_session_accept(l, &b, spoke_engine_now(NULL) + 20 * SPOKE_SECOND), 0);
        cr_assert_eq(atomic_load(&asked), 2);
        cr_assert_eq(spoke_session_open_sender(a, &tx, NULL, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_session_accept_receiver(b, &rx, NULL, SPOKE_FOREVER), 0);
        must_send(tx, "it is ann");
        receive_text(rx, "it is ann");
        cr_assert_eq(spoke_sender_close(tx), 0);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        cr_assert_eq(spoke_session_close(a, 0), 0);
        cr_assert_eq(spoke_session_close(b, 0), 0);
        cr_assert_eq(spoke_session_listener_close(l), 0);
    }
}

/* Who has nothing to show does not come as far as that. */
Test(secure_session, without_a_configuration_there_is_no_session)
{
    spoke_session_listener *l;
    spoke_session_config config;
    spoke_session *a;
    char url[256];
    int rc;

    atomic_store(&asked, 0);
    cr_assert_eq(spoke_session_listen(&l, "wss://127.0.0.1:0/session", NULL, NULL),
                 SPOKE_ENOTLSCONFIG);
    spoke_session_config_init(&config);
    config.authenticate = is_ann;
    config.stream.tls = test_tls();
    cr_assert_eq(spoke_session_listen(&l, "wss://127.0.0.1:0/session", &config, NULL), 0);
    cr_assert_eq(spoke_session_listener_address(l, url, sizeof url), 0);
    rc = spoke_session_dial(&a, url, NULL, NULL, spoke_engine_now(NULL) + 20 * SPOKE_SECOND);
    cr_assert_eq(rc, SPOKE_ECERTISSUER, "%s", spoke_error_name(rc));
    cr_assert_eq(atomic_load(&asked), 0);
    cr_assert_eq(spoke_session_listener_close(l), 0);
}
