/* SPDX-License-Identifier: MIT */
#include "tests/interop/host.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/certs.h"
#include "tests/support/process.h"

void
host_certify(char file[96], const char *name, const struct cert *c)
{
    char text[8192];

    snprintf(text, sizeof text, "%s%s", cert_text(c), cert_key_text(c));
    snprintf(file, 96, "%s", cert_file(name, text));
}

void
host_set_tls(struct host *h, const struct spoke_tls_options *o)
{
    spoke_tls_config *c;
    int rc = spoke_tls_config_new(&c, o);

    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_eq(spoke_socket_set_tls(h->s, c), 0);
    spoke_tls_config_free(c);
}

void
host_tls_options(struct spoke_tls_options *o)
{
    test_tls_options(o);
    o->verify = SPOKE_TLS_VERIFY_REQUIRED;
}

static void
secure(struct host *h)
{
    struct spoke_tls_options o;

    host_tls_options(&o);
    host_set_tls(h, &o);
    snprintf(h->errand.ca, sizeof h->errand.ca, "%s", cert_file("ca", cert_text(test_authority())));
    host_certify(h->errand.cert, "stranger", test_cert());
    h->errand.demands = true;
}

void
host_open(struct host *h, const struct meeting *meeting, int pattern, bool raw)
{
    if (!stranger_is_here(meeting->library))
        cr_skip("%s is not installed", stranger_name(meeting->library));
    *h = (struct host){.errand = {.library = meeting->library, .listens = meeting->they_listen}};
    endpoint_fresh(h->errand.url, meeting->transport);
    if (is_over_ws(
            meeting->transport)) /* nanomsg listens without a path, and NNG dials with one only */
        strcpy(strstr(h->errand.url, "/a/path"),
               meeting->library == NANOMSG && meeting->they_listen ? "" : "/");
    if (meeting->owned)
        cr_assert_eq(spoke_engine_open(&h->e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&h->s, pattern, h->e), 0);
    cr_assert_eq(spoke_socket_set_duration(h->s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(spoke_socket_set_duration(h->s, SPOKE_OPT_SEND_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(spoke_socket_set_duration(h->s, SPOKE_OPT_RECONNECT, 5 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_set_size(h->s, SPOKE_OPT_MAX_RECV_SIZE, THEIR_LIMIT), 0);
    if (is_over_tls(meeting->transport))
        secure(h);
    if (raw)
        cr_assert_eq(spoke_socket_set_bool(h->s, SPOKE_OPT_RAW, true), 0);
}

void
host_meet(struct host *h, enum deed deed, uint32_t count, bool many)
{
    int rc;

    h->errand.deed = deed;
    h->errand.count = count;
    h->errand.many = many;
    if (!h->errand.listens) {
        rc = spoke_listen(h->s, h->errand.url, &h->l, 0);
        cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    }
    h->stranger = stranger_send_on(&h->errand);
    if (h->errand.listens) {
        rc = spoke_dial(h->s, h->errand.url, &h->d, 0);
        cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    }
}

struct spoke_stats
host_pass(struct host *h)
{
    struct spoke_stats stats;

    if (h->e != NULL)
        cr_assert_geq(spoke_engine_poll(h->e, SPOKE_MS), 0);
    else
        usleep(1000);
    cr_assert_eq(spoke_socket_stats(h->s, &stats), 0);
    return stats;
}

static siginfo_t
end_of_stranger(struct host *h)
{
    siginfo_t end = {.si_pid = 0};

    cr_assert_eq(waitid(P_PID, (id_t)h->stranger, &end, WEXITED | WNOHANG | WNOWAIT), 0);
    return end;
}

bool
host_is_alone(struct host *h)
{
    return end_of_stranger(h).si_pid != 0;
}

const char *
host_stranger_state(struct host *h)
{
    static char text[64];
    siginfo_t end = end_of_stranger(h);

    if (end.si_pid == 0)
        return "and the stranger lives";
    snprintf(text, sizeof text, "and the stranger ended: %s %d",
             end.si_code == CLD_EXITED ? "code" : "signal", end.si_status);
    return text;
}

void
host_await_pipes(struct host *h, uint64_t count, uint64_t after)
{
    for (int i = 0; i < 15000 * SPOKE_TEST_SLOWDOWN; i++) {
        struct spoke_stats stats = host_pass(h);
        if (stats.pipes_attached > after && stats.pipes_current == count)
            return;
    }
    cr_assert_fail("nobody came, %s", host_stranger_state(h));
}

void
host_await(struct host *h)
{
    for (int i = 0; i < 15000 * SPOKE_TEST_SLOWDOWN && !host_is_alone(h); i++)
        host_pass(h);
    cr_assert(host_is_alone(h), "the stranger does not come to an end");
    int code = child_wait(h->stranger, 1);
    cr_assert_eq(code, 0, "the stranger is not content: %d", code);
}

void
host_close(struct host *h)
{
    struct spoke_stats stats;

    cr_assert_eq(spoke_socket_stats(h->s, &stats), 0);
    cr_expect_eq(stats.garbled, 0);
    if (!errand_exceeds(&h->errand))
        cr_expect_eq(stats.oversized + stats.dropped_stale, 0);
    cr_expect_eq(spoke_socket_close(h->s), 0);
    if (h->e != NULL)
        cr_expect_eq(spoke_engine_close(h->e), 0);
}

void
host_send(struct host *h, uint32_t i)
{
    spoke_msg *m = pattern_message(stranger_size(h->errand.many, i), i);
    int rc = spoke_send(h->s, m, 0);

    cr_assert_eq(rc, 0, "message %u: %s", i, spoke_error_name(rc));
}

void
host_expect(struct host *h, uint32_t i)
{
    size_t size = stranger_size(h->errand.many, i);
    spoke_msg *m;
    int rc = spoke_recv(h->s, &m, 0);

    cr_assert_eq(rc, 0, "message %u: %s", i, spoke_error_name(rc));
    cr_assert_eq(spoke_msg_size(m), size, "message %u: %zu bytes of %zu", i, spoke_msg_size(m),
                 size);
    cr_assert(pattern_holds(spoke_msg_body(m), size, i), "message %u", i);
    spoke_msg_free(m);
}
