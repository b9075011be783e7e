/* SPDX-License-Identifier: MIT */
/* The tool over tls+tcp:// from the outside, with its own kind and with others'. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/certs.h"
#include "tests/tool/sockets.h"

TestSuite(secure, .init = test_directory_make, .fini = test_directory_remove);

#define SPOKE(...) PROGRAM_ARGV(SPOKE_TOOL, __VA_ARGS__)

static char url[64], ca[160], cert[160], key[160], both[160];

/* Files of a server at localhost, whose authority is ours. */
static void
prepare(void)
{
    const struct cert *c = cert_make(&(struct cert_wish){
        .subject = "localhost", .names = "DNS:localhost,IP:127.0.0.1", .issuer = test_authority()});
    char text[8192];

    snprintf(url, sizeof url, "tls+tcp://127.0.0.1:%s", free_port());
    snprintf(ca, sizeof ca, "%s", cert_file("ca", cert_text(test_authority())));
    snprintf(cert, sizeof cert, "%s", cert_file("cert", cert_text(c)));
    snprintf(key, sizeof key, "%s", cert_file("key", cert_key_text(c)));
    snprintf(text, sizeof text, "%s%s", cert_text(c), cert_key_text(c));
    snprintf(both, sizeof both, "%s", cert_file("both", text));
}

static void
finish(struct program *server)
{
    program_signal(server, SIGTERM);
    (void)program_wait(server, 10);
    program_clear(server);
}

static void
expect_reply(struct program *client)
{
    cr_assert_eq(client->status, 0, "exit code %d: %s", client->status, client->err);
    cr_assert_str_eq(client->out, "\"world\"\n");
    program_clear(client);
}

Test(secure, cat_speaks_tls_with_a_private_authority)
{
    struct program server, client;

    prepare();
    program_start_argv(
        &server, false,
        SPOKE("cat", "--rep", "--bind", url, "-E", cert, "--key", key, "-D", "world"));
    program_run_argv(&client, SPOKE("cat", "--req", "--connect", url, "--cacert", ca, "-D", "hello",
                                    "-Q", "--recv-timeout", "10"));
    expect_reply(&client);
    program_run_argv(&client, SPOKE("cat", "--req", "--connect", url, "-k", "-D", "hello", "-Q",
                                    "--recv-timeout", "10"));
    expect_reply(&client);
    finish(&server);
}

Test(secure, cat_says_why_a_certificate_is_not_accepted)
{
    struct program server, client;
    char *other;

    prepare();
    program_start_argv(&server, false, SPOKE("cat", "--rep", "--bind", url, "-E", both, "-D", "a"));
    /* Of an authority that the system does not know. */
    program_run_argv(&client, SPOKE("cat", "--req", "--connect", url, "-D", "hello",
                                    "--recv-timeout", "1", "--linger", "0"));
    cr_assert_not_null(strstr(client.err, "is of an authority that is not trusted: give its "
                                          "authority with --cacert"),
                       "%s", client.err);
    program_clear(&client);
    /* For another name. */
    finish(&server);
    cr_assert_geq(asprintf(&other, "tls+tcp://127.0.0.2:%s", strrchr(url, ':') + 1), 0);
    program_start_argv(&server, false,
                       SPOKE("cat", "--rep", "--bind", other, "-E", both, "-D", "a"));
    program_run_argv(&client, SPOKE("cat", "--req", "--connect", other, "--cacert", ca, "-D",
                                    "hello", "--recv-timeout", "1", "--linger", "0"));
    cr_assert_not_null(strstr(client.err, "is for another name: use the name that is in it"), "%s",
                       client.err);
    program_clear(&client);
    finish(&server);
    free(other);
}

Test(secure, with_an_authority_a_listener_wants_certificates)
{
    struct program server, client;

    prepare();
    program_start_argv(
        &server, false,
        SPOKE("cat", "--rep", "--bind", url, "-E", both, "--cacert", ca, "-D", "world"));
    program_run_argv(&client, SPOKE("cat", "--req", "--connect", url, "--cacert", ca, "-D", "hello",
                                    "--recv-timeout", "1", "--linger", "0"));
    cr_assert_not_null(strstr(client.err, "the peer does not accept our certificate"), "%s",
                       client.err);
    program_clear(&client);
    program_run_argv(&client, SPOKE("cat", "--req", "--connect", url, "--cacert", ca, "-E", cert,
                                    "--key", key, "-D", "hello", "-Q", "--recv-timeout", "10"));
    expect_reply(&client);
    program_signal(&server, SIGTERM);
    (void)program_wait(&server, 10);
    cr_assert_not_null(strstr(server.err, "the peer has no certificate"), "%s", server.err);
    program_clear(&server);
}

/* client -- tcp -- gateway -- tls, a mux -- gateway -- tcp -- target */
Test(secure, gateways_carry_connections_over_tls)
{
    char target[128], front[64], carrier[80];
    int listener = target_open(TCP, target);
    struct program near, far;

    prepare();
    snprintf(front, sizeof front, "tcp://127.0.0.1:%s", free_port());
    snprintf(carrier, sizeof carrier, "mux+%s", url);
    program_start_argv(&far, false, SPOKE("gateway", carrier, target, "-E", both));
    program_start_argv(&near, false, SPOKE("gateway", front, carrier, "--cacert", ca));
    check_conversation(front, listener);
    finish(&near);
    finish(&far);
    close(listener);
}

Test(secure, devices_speak_tls)
{
    struct program device, server, client;
    char back[80];

    prepare();
    snprintf(back, sizeof back, "%s", ipc_in_directory("back"));
    program_start_argv(&device, false, SPOKE("device", "--rep", url, back, "-E", both));
    program_start_argv(&server, false, SPOKE("cat", "--rep", "--bind", back, "-D", "world"));
    program_run_argv(&client, SPOKE("cat", "--req", "--connect", url, "--cacert", ca, "-D", "hello",
                                    "-Q", "--recv-timeout", "10"));
    expect_reply(&client);
    finish(&server);
    finish(&device);
}

/* NNG's program has TLS 1.2 only, and takes no address for a name. */
Test(secure, cat_gets_on_with_nngcat)
{
    struct program server, client;
    char name[80];

    if (!is_installed("nngcat"))
        cr_skip_test("nngcat is not installed");
    prepare();
    snprintf(name, sizeof name, "tls+tcp://localhost:%s", strrchr(url, ':') + 1);
    program_start_argv(&server, false,
                       SPOKE("cat", "--rep", "--bind", url, "-E", both, "-D", "world"));
    program_run_argv(&client,
                     PROGRAM_ARGV("nngcat", "--req0", "--async", "--dial", name, "--cacert", ca,
                                  "-D", "hello", "-Q", "--recv-timeout", "10"));
    if (strstr(client.err, "Not supported") != NULL) {
        finish(&server);
        cr_skip_test("nngcat has no TLS");
    }
    expect_reply(&client);
    finish(&server);
    prepare();
    program_start_argv(&server, false,
                       PROGRAM_ARGV("nngcat", "--rep0", "--listen", url, "--cert", cert, "--key",
                                    key, "-k", "-D", "world"));
    program_run_argv(&client, SPOKE("cat", "--req", "--connect", url, "--cacert", ca, "-D", "hello",
                                    "-Q", "--recv-timeout", "10"));
    expect_reply(&client);
    finish(&server);
}

/* What s_client and s_server of OpenSSL see. */
Test(secure, streams_get_on_with_openssl)
{
    char target[128], command[1024], place[64];
    struct program gateway, other;
    int listener = target_open(TCP, target), fd;

    if (!is_installed("openssl"))
        cr_skip_test("openssl is not installed");
    prepare();
    snprintf(place, sizeof place, "%s", url + strlen("tls+tcp://"));
    program_start_argv(&gateway, true, SPOKE("gateway", url, target, "-E", both));
    for (int version = 2; version <= 3; version++) {
        snprintf(command, sizeof command,
                 "for i in 1 2 3 4 5 6 7 8 9; do (echo question; sleep 0.3) | openssl s_client "
                 "-connect %s -tls1_%d "
                 "-CAfile %s -verify_return_error -quiet -ign_eof 2>&1 && break; sleep 0.3; done",
                 place, version, ca);
        program_start_argv(&other, false, PROGRAM_ARGV("/bin/sh", "-c", command));
        fd = accept_one(listener);
        expect_text(fd, "question\n");
        send_text(fd, "answer\n");
        close(fd);
        program_wait(&other, 20);
        cr_assert_not_null(strstr(other.out, "answer"), "1.%d: %s", version, other.out);
        program_clear(&other);
    }
    finish(&gateway);
    close(listener);
}
