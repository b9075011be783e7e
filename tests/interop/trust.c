/* SPDX-License-Identifier: MIT */
/* Whom we believe and whom NNG (on mbedTLS) believes, over tls+tcp and wss, whoever listens.
 * matrix.c has every pattern where both have certificates and want the other's; here clients have
 * none, or something is wrong with a certificate, and our end says what. */
#include <string.h>

#include "tests/interop/host.h"
#include "tests/support/process.h"

#define TRANSPORTS 2u
static const enum transport transports[TRANSPORTS] = {TLS, WSS};

static void
open_host(struct host *h, enum transport transport, bool they_listen)
{
    host_open(h, &(struct meeting){NNG, transport, they_listen, true}, SPOKE_REQ, false);
}

static void
talk(struct host *h)
{
    for (uint32_t i = 0; i < ALL_SIZES; i++) {
        host_send(h, i);
        host_expect(h, i);
    }
}

/* ---- only the listener has a certificate ---- */

ParameterizedTestParameters(trust, clients_without_certificates_are_served)
{
    static struct meeting meetings[2 * TRANSPORTS];

    for (unsigned i = 0; i < 2 * TRANSPORTS; i++)
        meetings[i] = (struct meeting){NNG, transports[i / 2], i % 2 != 0, true};
    return (struct criterion_test_params){
        .size = sizeof *meetings, .params = meetings, .length = 2 * TRANSPORTS};
}

ParameterizedTest(struct meeting *m, trust, clients_without_certificates_are_served)
{
    struct spoke_tls_options o;
    struct host h;

    open_host(&h, m->transport, m->they_listen);
    host_tls_options(&o);
    o.verify = SPOKE_TLS_VERIFY_DEFAULT;
    if (m->they_listen)
        o.cert = o.key = NULL;
    else
        h.errand.cert[0] = '\0';
    h.errand.demands = false;
    host_set_tls(&h, &o);
    host_meet(&h, ECHO_REP, 0, false);
    talk(&h);
    child_kill(h.stranger);
    host_close(&h);
}

/* ---- somebody is refused ---- */

static const struct wrong {
    bool we_listen;
    enum { OUR_TRUST, OUR_NAME, OUR_LACK, THEIR_TRUST, THEIR_NAME, THEIR_LACK } what;
    int error; /* that our end tells */
} wrongs[] = {
    {false, OUR_TRUST, SPOKE_ECERTISSUER},    {false, THEIR_NAME, SPOKE_ECERTNAME},
    {false, THEIR_TRUST, SPOKE_ECERTREFUSED}, {false, OUR_LACK, SPOKE_ECERTREFUSED},
    {true, OUR_TRUST, SPOKE_ECERTISSUER},     {true, THEIR_LACK, SPOKE_ECERTNONE},
    {true, THEIR_TRUST, SPOKE_ECERTREFUSED},  {true, OUR_NAME, SPOKE_ECERTREFUSED},
};
#define WRONGS (sizeof wrongs / sizeof *wrongs)

struct trial {
    struct wrong wrong;
    enum transport transport;
};

static void
spoil(struct host *h, const struct wrong *w)
{
    const struct cert *stranger = cert_make(
        &(struct cert_wish){.subject = "who is that", .is_authority = true});
    const struct cert *another = cert_make(&(struct cert_wish){
        .subject = "another.test", .names = "DNS:another.test", .issuer = test_authority()});
    struct spoke_tls_options o;

    host_tls_options(&o);
    switch (w->what) {
    case OUR_TRUST: o.ca = cert_text(stranger); break;
    case OUR_NAME:
        o.cert = cert_text(another);
        o.key = cert_key_text(another);
        break;
    case OUR_LACK: o.cert = o.key = NULL; break;
    case THEIR_TRUST: strcpy(h->errand.ca, cert_file("stranger-ca", cert_text(stranger))); break;
    case THEIR_NAME: host_certify(h->errand.cert, "another", another); break;
    case THEIR_LACK: h->errand.cert[0] = '\0'; break;
    }
    host_set_tls(h, &o);
}

/* A dialer may come before their listener is there.  Who refuses us may close with something of
 * ours unread: then the kernel resets the connection, and what they said is lost; they come again.
 */
static int
our_error(struct host *h, int wanted)
{
    struct spoke_listener_stats listener = {0};
    struct spoke_dialer_stats dialer = {0};

    for (int i = 0; i < 15000 * SPOKE_TEST_SLOWDOWN; i++) {
        cr_assert_eq(host_pass(h).pipes_attached, 0, "nobody is to be let in");
        if (h->l != NULL)
            cr_assert_eq(spoke_listener_stats(h->l, &listener), 0);
        else
            cr_assert_eq(spoke_dialer_stats(h->d, &dialer), 0);
        int error = h->l != NULL ? listener.last_error : dialer.last_error;
        bool is_passing = error == 0 || error == SPOKE_ECONNREFUSED ||
                          (error == SPOKE_ECONNRESET && wanted == SPOKE_ECERTREFUSED);
        if (!is_passing)
            return error;
    }
    return 0;
}

ParameterizedTestParameters(trust, who_is_wrong_is_refused)
{
    static struct trial trials[WRONGS * TRANSPORTS];

    for (unsigned i = 0; i < WRONGS * TRANSPORTS; i++)
        trials[i] = (struct trial){wrongs[i / TRANSPORTS], transports[i % TRANSPORTS]};
    return (struct criterion_test_params){
        .size = sizeof *trials, .params = trials, .length = WRONGS * TRANSPORTS};
}

ParameterizedTest(struct trial *t, trust, who_is_wrong_is_refused)
{
    const struct wrong *w = &t->wrong;
    struct host h;

    open_host(&h, t->transport, !w->we_listen);
    spoil(&h, w);
    host_meet(&h, ECHO_REP, 0, false);
    int error = our_error(&h, w->error);
    cr_assert_eq(error, w->error, "%s, %s, case %d: %s", transport_name(t->transport),
                 w->we_listen ? "we listen" : "they listen", (int)w->what, spoke_error_name(error));
    child_kill(h.stranger);
    host_close(&h);
}
