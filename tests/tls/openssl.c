/* SPDX-License-Identifier: MIT */
#include "tests/tls/openssl.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/process.h"

/* ---- the program at the other end ---- */

static int
run(void *ctx)
{
    struct openssl *o = ctx;

    dup2(o->in[0], 0);
    dup2(o->out[1], 1);
    dup2(o->out[1], 2);
    close_range(3, ~0u, 0);
    execl("/bin/sh", "sh", "-c", o->command, (char *)NULL);
    return 127;
}

void
openssl_start(struct openssl *o, const char *format, ...)
{
    int used = snprintf(o->command, sizeof o->command, "exec openssl ");
    va_list args;

    va_start(args, format);
    int more = vsnprintf(o->command + used, sizeof o->command - (size_t)used, format, args);
    va_end(args);
    cr_assert_lt((size_t)(used + more), sizeof o->command);
    o->size = 0;
    o->text[0] = '\0';
    cr_assert(pipe(o->in) == 0 && pipe(o->out) == 0);
    o->pid = child_start(run, o);
    close(o->in[0]);
    close(o->out[1]);
}

/* More of its output; false: that was all.  NUL is read as '.'. */
static bool
openssl_more(struct openssl *o)
{
    struct pollfd fd = {.fd = o->out[0], .events = POLLIN};

    cr_assert_eq(poll(&fd, 1, 20000 * SPOKE_TEST_SLOWDOWN), 1, "%s says no more than\n%s",
                 o->command, o->text);
    ssize_t n = read(o->out[0], o->text + o->size, sizeof o->text - 1 - o->size);

    cr_assert_geq(n, 0);
    for (ssize_t i = 0; i < n; i++)
        if (o->text[o->size + (size_t)i] == '\0')
            o->text[o->size + (size_t)i] = '.';
    o->size += (size_t)n;
    o->text[o->size] = '\0';
    return n > 0;
}

void
openssl_await(struct openssl *o, const char *wanted)
{
    while (strstr(o->text, wanted) == NULL)
        cr_assert(openssl_more(o), "%s says no \"%s\":\n%s", o->command, wanted, o->text);
}

void
openssl_write(struct openssl *o, const char *bytes, size_t size)
{
    cr_assert_eq(write(o->in[1], bytes, size), (ssize_t)size);
}

/* It ends by itself, once it has nothing to read. */
void
openssl_finish(struct openssl *o)
{
    close(o->in[1]);
    while (openssl_more(o)) {
    }
    close(o->out[0]);
    cr_assert_neq(child_wait(o->pid, 20), -2, "%s does not end", o->command);
}

void
openssl_kill(struct openssl *o)
{
    child_kill(o->pid);
    close(o->in[1]);
    close(o->out[0]);
}

/* ---- our end ---- */

void
end_open(struct end *e, const struct spoke_tls_options *o)
{
    spoke_tls_config *c = config_of(o);

    *e = (struct end){0};
    expect_rc(spoke_socket_open(&e->s, SPOKE_PAIR, NULL), 0);
    expect_rc(spoke_socket_set_duration(e->s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    expect_rc(spoke_socket_set_duration(e->s, SPOKE_OPT_SEND_TIMEOUT, PATIENCE), 0);
    expect_rc(spoke_socket_set_duration(e->s, SPOKE_OPT_RECONNECT, 20 * SPOKE_MS), 0);
    expect_rc(spoke_socket_set_tls(e->s, c), 0);
    spoke_tls_config_free(c);
    endpoint_fresh(e->url, TLS);
    e->place = strstr(e->url, "://") + 3;
}

const char *
authority_file(void)
{
    return cert_file("ca", cert_text(test_authority()));
}

const char *
cert_files(const struct cert *c)
{
    static char arguments[400];

    snprintf(arguments, sizeof arguments, "-cert %s -key %s", cert_file("cert", cert_text(c)),
             cert_file("key", cert_key_text(c)));
    return arguments;
}

const struct cert *
client_cert(void)
{
    return cert_make(&(struct cert_wish){
        .subject = "a client", .usage = "clientAuth", .issuer = test_authority()});
}

void
only_1_3(struct spoke_tls_options *o)
{
    o->min_version = SPOKE_TLS_1_3;
}

void
with_alpn(struct spoke_tls_options *o)
{
    o->alpn = "sp/1,sp/0";
}

void
wants_cert(struct spoke_tls_options *o)
{
    o->verify = SPOKE_TLS_VERIFY_REQUIRED;
}

void
with_rsa(struct spoke_tls_options *o)
{
    static const struct cert *c;

    if (c == NULL)
        c = cert_make(
            &(struct cert_wish){.subject = "rsa", .is_rsa = true, .issuer = test_authority()});
    present(o, c);
}

void
no_resumption(struct spoke_tls_options *o)
{
    o->resumption = false;
}

void
with_cert(struct spoke_tls_options *o)
{
    present(o, client_cert());
}

/* ---- what is inside ---- */

#define SP_HELLO "\0\0\0\0\0\0\0\x05hello"

/* Let it say hello; the pipe that this comes from. */
spoke_pipe_id
hear_hello(struct end *e, struct openssl *o)
{
    spoke_pipe_id pipe;
    spoke_msg *m;

    openssl_write(o, SP_HELLO, sizeof SP_HELLO - 1);
    expect_rc(spoke_recv(e->s, &m, 0), 0);
    cr_assert(spoke_msg_size(m) == 5 && memcmp(spoke_msg_body(m), "hello", 5) == 0);
    pipe = spoke_msg_pipe(m);
    spoke_msg_free(m);
    return pipe;
}

void
expect_text(struct end *e, spoke_pipe_id pipe, const char *name, const char *wanted)
{
    char text[512];
    size_t size = sizeof text;

    expect_rc(spoke_pipe_get(e->s, pipe, name, SPOKE_STRING, text, &size), 0);
    cr_assert_str_eq(text, wanted, "%s: \"%s\", not \"%s\"", name, text, wanted);
}

bool
is_resumed(struct end *e, spoke_pipe_id pipe)
{
    size_t size = sizeof(bool);
    bool resumed;

    expect_rc(spoke_pipe_get(e->s, pipe, SPOKE_OPT_TLS_RESUMED, SPOKE_BOOL, &resumed, &size), 0);
    return resumed;
}

void
await_end(struct end *e)
{
    struct spoke_stats stats = {.pipes_current = 1};

    for (int i = 0; i < 20000 * SPOKE_TEST_SLOWDOWN && stats.pipes_current > 0; i++) {
        expect_rc(spoke_socket_stats(e->s, &stats), 0);
        usleep(1000);
    }
    cr_assert_eq(stats.pipes_current, 0);
}
