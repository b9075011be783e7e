/* SPDX-License-Identifier: MIT */
/* The tool over tls+tcp://, ws:// and wss:// from the outside, with its own kind and with others'.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/certs.h"
#include "tests/support/ws_peer.h"
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
    (void)program_wait(server, 30);
    program_clear(server);
}

/* A client says why it is not connected as soon as it knows, and goes on trying. */
static void
expect_complaint(const char *const *argv, const char *text)
{
    struct program client;

    program_start_argv(&client, false, argv);
    wait_error(&client, text);
    program_clear(&client);
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
                                    "-Q", "--recv-timeout", "30"));
    expect_reply(&client);
    program_run_argv(&client, SPOKE("cat", "--req", "--connect", url, "-k", "-D", "hello", "-Q",
                                    "--recv-timeout", "30"));
    expect_reply(&client);
    finish(&server);
}

Test(secure, cat_says_why_a_certificate_is_not_accepted)
{
    struct program server;
    char *other;

    prepare();
    program_start_argv(&server, false, SPOKE("cat", "--rep", "--bind", url, "-E", both, "-D", "a"));
    /* Of an authority that the system does not know. */
    expect_complaint(SPOKE("cat", "--req", "--connect", url, "-D", "hello"),
                     "is of an authority that is not trusted: give its authority with --cacert");
    /* For another name. */
    finish(&server);
    cr_assert_geq(asprintf(&other, "tls+tcp://127.0.0.2:%s", strrchr(url, ':') + 1), 0);
    program_start_argv(&server, false,
                       SPOKE("cat", "--rep", "--bind", other, "-E", both, "-D", "a"));
    expect_complaint(SPOKE("cat", "--req", "--connect", other, "--cacert", ca, "-D", "hello"),
                     "is for another name: use the name that is in it");
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
    expect_complaint(SPOKE("cat", "--req", "--connect", url, "--cacert", ca, "-D", "hello"),
                     "the peer does not accept our certificate");
    program_run_argv(&client, SPOKE("cat", "--req", "--connect", url, "--cacert", ca, "-E", cert,
                                    "--key", key, "-D", "hello", "-Q", "--recv-timeout", "30"));
    expect_reply(&client);
    wait_error(&server, "the peer has no certificate");
    finish(&server);
}

/* What two gateways say to each other; not all of it with TLS. */
static const char *const middles[] = {"tls+tcp", "ws", "wss", "mux+tls+tcp", "mux+ws", "mux+wss"};
#define MIDDLES (sizeof middles / sizeof middles[0])

static void
middle_url(char text[128], const char *scheme)
{
    const char *path = strstr(scheme, "ws") != NULL ? "/a/path" : "";

    snprintf(text, 128, "%s://127.0.0.1:%s%s", scheme, free_port(), path);
}

/* client -- tcp -- gateway -- middle -- gateway -- tcp -- target */
Test(secure, gateways_carry_connections_over_a_network)
{
    for (size_t i = 0; i < MIDDLES; i++) {
        char target[128], front[64], middle[128], bound[128];
        int listener = target_open(TCP, target);
        struct program near, far;

        prepare();
        snprintf(front, sizeof front, "tcp://127.0.0.1:%s", free_port());
        middle_url(middle, middles[i]);
        program_start_argv(&far, false, SPOKE("gateway", "-v", middle, target, "-E", both));
        wait_listening(&far, bound);
        program_start_argv(&near, false, SPOKE("gateway", front, middle, "--cacert", ca));
        check_conversation(front, listener);
        finish(&near);
        finish(&far);
        close(listener);
    }
}

/* The near one says why the far one is nobody for it, and who has come is turned away. */
Test(secure, a_gateway_says_why_a_certificate_is_not_accepted)
{
    for (size_t i = 0; i < MIDDLES; i++) {
        char target[128], front[64], middle[128], bound[128];
        struct program near, far;
        int listener, fd;
        char byte;

        if (strstr(middles[i], "tls") == NULL && strstr(middles[i], "wss") == NULL)
            continue;
        listener = target_open(TCP, target);
        prepare();
        snprintf(front, sizeof front, "tcp://127.0.0.1:%s", free_port());
        middle_url(middle, middles[i]);
        program_start_argv(&far, false, SPOKE("gateway", "-v", middle, target, "-E", both));
        wait_listening(&far, bound);
        program_start_argv(&near, false, SPOKE("gateway", "-v", "--hold", "0.2", front, middle));
        fd = connect_to(front);
        cr_assert_leq(read(fd, &byte, 1), 0);
        close(fd);
        wait_error(&near, "is of an authority that is not trusted"); /* a carrier may come later */
        finish(&near);
        finish(&far);
        close(listener);
    }
}

/* client -- tcp -- mux -- wss -- mux -- tcp -- target, and the other way */
Test(secure, muxes_forward_over_a_network)
{
    static const char *const schemes[] = {"tls+tcp", "ws", "wss"};

    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        for (int remote = 0; remote < 2; remote++) {
            char target[128], front[64], middle[128], *forwarding;
            int listener = target_open(TCP, target);
            struct program here, there;

            prepare();
            snprintf(front, sizeof front, "tcp://127.0.0.1:%s", free_port());
            middle_url(middle, schemes[i]);
            cr_assert_geq(asprintf(&forwarding, "%s=%s", front, target), 0);
            program_start_argv(&there, false,
                               SPOKE("mux", "--listen", middle, "-E", both, "--allow", target,
                                     "--allow-listen", front));
            program_start_argv(&here, false,
                               SPOKE("mux", "--connect", middle, "--cacert", ca,
                                     remote ? "--remote" : "--local", forwarding));
            check_conversation(front, listener);
            finish(&here);
            finish(&there);
            close(listener);
            free(forwarding);
        }
    }
}

/* A browser's pages are let in as they are listed, and one comes from the gateway itself. */
Test(secure, a_gateway_has_the_options_of_websocket)
{
    static const struct {
        const char *more;
        int status;
    } requests[] = {{"Origin: http://good.example\r\n", 101},
                    {"Origin: http://bad.example\r\n", 403},
                    {"", 101}};
    static const char get[] = "GET /page.html HTTP/1.1\r\nHost: x\r\n\r\n";
    char target[128], listen[128], place[160], text[2048];
    int listener = target_open(TCP, target);
    struct program gateway, page;
    struct raw_peer p;

    prepare();
    middle_url(listen, "ws");
    ws_place(place, listen);
    program_start_argv(&gateway, false,
                       SPOKE("gateway", listen, target, "--origins", "http://good.example",
                             "--directory", test_directory));
    close(connect_to(place));
    for (size_t i = 0; i < 3; i++) {
        size_t size = ws_request(text, sizeof text, "/a/path", NULL, requests[i].more);

        cr_assert_eq(raw_connect(&p, place, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_send_bytes(&p, text, size, RAW_LIMIT_MS), RAW_OK);
        cr_assert_gt(ws_read_head(&p, text, sizeof text, RAW_LIMIT_MS), 0);
        cr_assert_eq(ws_status(text), requests[i].status, "%s", requests[i].more);
        raw_close(&p);
    }
    shell(&page, "echo hello > $DIR/page.html");
    program_clear(&page);
    cr_assert_eq(raw_connect(&p, place, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, get, sizeof get - 1, RAW_LIMIT_MS), RAW_OK);
    cr_assert_gt(ws_read_head(&p, text, sizeof text, RAW_LIMIT_MS), 0);
    cr_assert_eq(ws_status(text), 200);
    raw_close(&p);
    finish(&gateway);
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
                                    "-Q", "--recv-timeout", "30"));
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
                                  "-D", "hello", "-Q", "--recv-timeout", "30"));
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
                                    "-Q", "--recv-timeout", "30"));
    expect_reply(&client);
    finish(&server);
}

/* What s_client and s_server of OpenSSL see. */
Test(secure, streams_get_on_with_openssl)
{
    char target[128], command[1024], place[64], bound[128];
    struct program gateway, other;
    int listener = target_open(TCP, target), fd;

    if (!is_installed("openssl"))
        cr_skip_test("openssl is not installed");
    prepare();
    snprintf(place, sizeof place, "%s", url + strlen("tls+tcp://"));
    program_start_argv(&gateway, true, SPOKE("gateway", "-v", url, target, "-E", both));
    wait_listening(&gateway, bound);
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
        program_wait(&other, 60);
        cr_assert_not_null(strstr(other.out, "answer"), "1.%d: %s", version, other.out);
        program_clear(&other);
    }
    finish(&gateway);
    close(listener);
}
