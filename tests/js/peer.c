/* SPDX-License-Identifier: MIT */
/* js-peer PATTERN URL [dial|listen [CA [CERT]]]: what clients/js is tested against, and meets
 * strangers.  Listens, also for pages of other hosts, and prints the address as it is bound, as its
 * first line; or dials.  For wss files may be named: of authorities, "-": none, and of a
 * certificate with its key.  Then it echoes                 rep, respondent, pair, pair1, bus
 *   prints what it gets    pull, sub (everything)
 *   sends each input line  push, pub, req, surveyor; the last two print the answers.
 * It ends with its input, or is killed. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <spoke/spoke.h>

#define LINE_MAX 4096

static const struct kind {
    const char *name;
    int pattern;
    enum { ECHOES, PRINTS, SENDS, ASKS } what;
} kinds[] = {
    {"rep", SPOKE_REP, ECHOES},         {"respondent", SPOKE_RESPONDENT, ECHOES},
    {"pair", SPOKE_PAIR, ECHOES},       {"pair1", SPOKE_PAIR1, ECHOES},
    {"bus", SPOKE_BUS, ECHOES},         {"pull", SPOKE_PULL, PRINTS},
    {"sub", SPOKE_SUB, PRINTS},         {"push", SPOKE_PUSH, SENDS},
    {"pub", SPOKE_PUB, SENDS},          {"req", SPOKE_REQ, ASKS},
    {"surveyor", SPOKE_SURVEYOR, ASKS},
};

static void
check(int rc)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "js-peer: %s\n", spoke_strerror(rc));
    exit(1);
}

static const struct kind *
find_kind(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    fprintf(stderr, "js-peer: no such pattern: %s\n", name);
    exit(2);
}

static void
print(spoke_msg *m)
{
    printf("%.*s\n", (int)spoke_msg_size(m), (const char *)spoke_msg_body(m));
    fflush(stdout);
    spoke_msg_free(m);
}

static void
on_message(spoke_socket *s, spoke_msg *m, void *ctx)
{
    const struct kind *kind = ctx;

    (void)s;
    if (kind->what == PRINTS)
        print(m);
    else if (spoke_send(s, m, SPOKE_DONTWAIT) != 0)
        spoke_msg_free(m);
}

static void
print_answers(spoke_socket *s, const struct kind *kind)
{
    spoke_msg *m;

    while (spoke_recv(s, &m, 0) == 0) {
        print(m);
        if (kind->pattern == SPOKE_REQ)
            return;
    }
}

static void
use_tls(spoke_socket *s, const char *ca, const char *cert)
{
    struct spoke_tls_options o;
    spoke_tls_config *c;

    spoke_tls_options_init(&o);
    o.ca_file = strcmp(ca, "-") != 0 ? ca : NULL;
    o.cert_file = cert;
    check(spoke_tls_config_new(&c, &o));
    check(spoke_socket_set_tls(s, c));
    spoke_tls_config_free(c);
}

static void
listen_on(spoke_socket *s, const char *url)
{
    char address[LINE_MAX];
    spoke_listener *l;

    check(spoke_socket_set_bool(s, SPOKE_OPT_WS_CHECK_ORIGIN, false));
    check(spoke_listen(s, url, &l, 0));
    check(spoke_listener_get_string(l, SPOKE_OPT_ADDRESS, address, sizeof address));
    puts(address);
    fflush(stdout);
}

int
main(int argc, char **argv)
{
    const struct kind *kind = find_kind(
        argc >= 3 && argc <= 6 ? argv[1] : "(usage: js-peer PATTERN URL [WAY [CA [CERT]]])");
    bool dials = argc > 3 && strcmp(argv[3], "dial") == 0;
    char line[LINE_MAX];
    spoke_socket *s;

    check(spoke_socket_open(&s, kind->pattern, NULL));
    if (kind->pattern == SPOKE_SUB)
        check(spoke_socket_set_string(s, SPOKE_OPT_SUBSCRIBE, ""));
    if (kind->what == ECHOES || kind->what == PRINTS)
        check(spoke_socket_on_message(s, on_message, (void *)(uintptr_t)kind));
    if (argc > 4)
        use_tls(s, argv[4], argc > 5 ? argv[5] : NULL);
    check(spoke_socket_set_duration(s, SPOKE_OPT_RECONNECT, 20 * SPOKE_MS));
    if (dials)
        check(spoke_dial(s, argv[2], NULL, 0));
    else
        listen_on(s, argv[2]);
    while (fgets(line, sizeof line, stdin) != NULL) {
        check(spoke_send_bytes(s, line, strcspn(line, "\n"), 0));
        if (kind->what == ASKS)
            print_answers(s, kind);
    }
    return spoke_socket_close(s) == 0 ? 0 : 1;
}
