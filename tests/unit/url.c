/* SPDX-License-Identifier: MIT */
/* Addresses: every form that is understood, every form that is refused, and why. */
#include "runtime/core/transport.h"

#include <stdlib.h>
#include <string.h>

#include <spoke/error.h>

#include "runtime/memory/pool.h"
#include "tests/support/test.h"

#define L63     "a23456789012345678901234567890123456789012345678901234567890123"
#define HOST255 L63 "." L63 "." L63 "." L63
#define PATH100                                                                                    \
    "/123456789/123456789/123456789/123456789/123456789"                                           \
    "/123456789/123456789/123456789/123456789/123456789"

enum use { DIAL = 1, LISTEN = 2, BOTH = 3 };

struct good {
    enum use use;
    const char *text;
    const char *host; /* NULL: wildcard */
    int port;
    const char *local;
};

static const struct good tcp[] = {
    {BOTH, "tcp://127.0.0.1:5555", "127.0.0.1", 5555, NULL},
    {BOTH, "tcp://localhost:1", "localhost", 1, NULL},
    {BOTH, "tcp://a.b-c.example:65535", "a.b-c.example", 65535, NULL},
    {BOTH, "tcp://1.example:80", "1.example", 80, NULL},
    {BOTH, "tcp://X:0080", "X", 80, NULL},
    {BOTH, "tcp://" L63 ":80", L63, 80, NULL},
    {BOTH, "tcp://" HOST255 ":80", HOST255, 80, NULL},
    {BOTH, "tcp://[::1]:5555", "::1", 5555, NULL},
    {BOTH, "tcp://[2001:db8::ff00:42:8329]:9", "2001:db8::ff00:42:8329", 9, NULL},
    {BOTH, "tcp://[::ffff:127.0.0.1]:9", "::ffff:127.0.0.1", 9, NULL},
    {BOTH, "tcp://[fe80::1%eth0]:5555", "fe80::1%eth0", 5555, NULL},
    {BOTH, "tcp://[fe80::1%2]:5555", "fe80::1%2", 5555, NULL},
    {BOTH, "tcp://eth10000:5555", "eth10000", 5555, NULL}, /* no such host: found out later */
    {LISTEN, "tcp://*:5555", NULL, 5555, NULL},
    {LISTEN, "tcp://:5555", NULL, 5555, NULL},
    {LISTEN, "tcp://*:0", NULL, 0, NULL},
    {LISTEN, "tcp://:0", NULL, 0, NULL},
    {LISTEN, "tcp://127.0.0.1:0", "127.0.0.1", 0, NULL},
    {LISTEN, "tcp://[::]:0", "::", 0, NULL},
    {DIAL, "tcp://127.0.0.1;127.0.0.1:5555", "127.0.0.1", 5555, "127.0.0.1"},
    {DIAL, "tcp://eth0;example.com:5555", "example.com", 5555, "eth0"},
    {DIAL, "tcp://eth10000;127.0.0.1:5555", "127.0.0.1", 5555, "eth10000"},
    {DIAL, "tcp://br_0.7;host:5555", "host", 5555, "br_0.7"},
    {DIAL, "tcp://[::1];[::1]:5555", "::1", 5555, "::1"},
    {DIAL, "tcp://::1;[::1]:5555", "::1", 5555, "::1"},
    {DIAL, "tcp://[fe80::2%eth1];[fe80::1%eth1]:5555", "fe80::1%eth1", 5555, "fe80::2%eth1"},
    {DIAL, "tcp://*;127.0.0.1:5555", "127.0.0.1", 5555, NULL},
};

static void
expect_text(const char *found, const char *wanted, const char *url)
{
    if (wanted == NULL)
        cr_expect_null(found, "%s", url);
    else
        cr_expect(found != NULL && strcmp(found, wanted) == 0, "%s: not \"%s\"", url, wanted);
}

static void
expect_refused(const char *text, bool listen, int error)
{
    struct spk_url url;
    int rc = spk_url_parse(&url, text, listen);

    cr_expect_eq(rc, error, "%s \"%.100s\": %s instead of %s", listen ? "listen" : "dial", text,
                 spoke_error_name(rc), spoke_error_name(error));
    if (rc != 0)
        cr_expect_null(url.text);
    spk_url_fini(&url);
}

static void
expect_good(const struct good *good, bool listen)
{
    struct spk_url url;

    cr_assert_eq(spk_url_parse(&url, good->text, listen), 0, "%s", good->text);
    expect_text(url.text, good->text, good->text);
    expect_text(url.transport->scheme, "tcp", good->text);
    expect_text(url.host, good->host, good->text);
    expect_text(url.local, good->local, good->text);
    cr_expect_eq(url.wildcard, good->host == NULL, "%s", good->text);
    cr_expect_eq(url.port, good->port, "%s", good->text);
    cr_expect(url.has_port);
    cr_expect_null(url.path);
    spk_url_fini(&url);
    cr_expect_null(url.text);
    spk_url_fini(&url);
}

Test(url, tcp_forms_are_understood_where_they_make_sense)
{
    for (size_t i = 0; i < sizeof tcp / sizeof tcp[0]; i++) {
        for (int listen = 0; listen < 2; listen++) {
            if (tcp[i].use & (listen ? LISTEN : DIAL))
                expect_good(&tcp[i], listen);
            else
                expect_refused(tcp[i].text, listen, SPOKE_EURL);
        }
    }
}

Test(url, malformed_tcp_addresses_are_refused)
{
    static const char *const texts[] = {
        /* ports */
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://*:",
        "tcp://:",
        "tcp://localhost:-1",
        "tcp://localhost:+1",
        "tcp://localhost:65536",
        "tcp://localhost:1000000",
        "tcp://*:1000000",
        "tcp://127.0.0.1:1000000",
        "tcp://localhost:99999999999",
        "tcp://localhost:18446744073709551617",
        "tcp://localhost:http",
        "tcp://localhost:80 ",
        "tcp://localhost: 80",
        "tcp://localhost:0x50",
        "tcp://localhost:80/",
        "tcp://localhost:80:81",
        /* hosts */
        "tcp://-hostname:5555",
        "tcp://abc.123.---.#:5555",
        "tcp://abc...123:5555",
        "tcp://.123:5555",
        "tcp://abc.:5555",
        "tcp://.:5555",
        "tcp://under_score:5555",
        "tcp://spa ce:5555",
        "tcp://user@host:5555",
        "tcp://%31:5555",
        "tcp://**:5555",
        "tcp://b\xc3\xbc-cher:5555",
        /* NOLINTNEXTLINE(bugprone-suspicious-missing-comma) */
        "tcp://" L63 "4:80",
        "tcp://" HOST255 "x:80",
        "tcp://a." HOST255 ":80",
        /* v6 */
        "tcp://::1:5555",
        "tcp://[::1]",
        "tcp://[::1]:",
        "tcp://[::1:5555",
        "tcp://::1]:5555",
        "tcp://[]:5555",
        "tcp://[:::1]:5555",
        "tcp://[12345::]:5555",
        "tcp://[localhost]:5555",
        "tcp://[127.0.0.1]:5555",
        "tcp://[::1]x:5555",
        "tcp://[fe80::1%]:5555",
        "tcp://[%eth0]:5555",
        "tcp://[fe80::1%an-interface-name-too-long]:5555",
        "tcp://[fe80::1%a/b]:5555",
        "tcp://[0000000:00000000000000000000000000000000000000000000000000::1]:5555",
        /* local addresses */
        "tcp://;127.0.0.1:5555",
        "tcp://eth0;:5555",
        "tcp://eth0;*:5555",
        "tcp://eth0;",
        "tcp://eth0;127.0.0.1",
        "tcp://eth0:1;127.0.0.1:5555",
        "tcp://eth0;eth1;127.0.0.1:5555",
        "tcp://sixteen-letters-;127.0.0.1:5555",
        "tcp://e th0;127.0.0.1:5555",
        "tcp://..;127.0.0.1:5555",
        "tcp://[eth0];127.0.0.1:5555",
        "tcp://[127.0.0.1];127.0.0.1:5555",
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        expect_refused(texts[i], false, SPOKE_EURL);
        expect_refused(texts[i], true, SPOKE_EURL);
    }
}

Test(url, a_missing_scheme_and_an_unknown_one_differ)
{
    static const char *const malformed[] = {
        "", "://", "://x", "tcp", "tcp:", "tcp:/x:1", "inproc:x", "127.0.0.1:80", "ipc:/a/b"};
    static const char *const unknown[] = {"TCP://localhost:1",
                                          "Tcp://localhost:1",
                                          " tcp://localhost:1",
                                          "tcp ://localhost:1",
                                          "http://localhost:1",
                                          "tcp5://localhost:1",
                                          "a-scheme-of-more-than-sixteen-letters://x",
                                          "x://",
                                          "x://tcp://localhost:1"};

    for (int listen = 0; listen < 2; listen++) {
        for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
            expect_refused(malformed[i], listen, SPOKE_EURL);
        for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
            expect_refused(unknown[i], listen, SPOKE_ESCHEME);
    }
}

Test(url, no_text_at_all_is_an_invalid_argument)
{
    expect_refused(NULL, false, SPOKE_EINVAL);
    expect_refused(NULL, true, SPOKE_EINVAL);
}

struct path {
    const char *text;
    const char *scheme;
    const char *path;
    size_t size;
    bool abstract;
};

static const struct path paths[] = {
    {"ipc://a.sock", "ipc", "a.sock", 6, false},
    {"ipc:///run/a.sock", "ipc", "/run/a.sock", 11, false},
    {"ipc://dir/a b;c:d%41?x", "ipc", "dir/a b;c:d%41?x", 16, false},
    {"ipc://a://b", "ipc", "a://b", 5, false},
    {"ipc://" PATH100 "1234567", "ipc", PATH100 "1234567", 107, false},
    {"unix:///run/a.sock", "ipc", "/run/a.sock", 11, false},
    {"unix://@name", "ipc", "name", 4, true},
    {"ipc://@name", "ipc", "name", 4, true},
    {"ipc://@@name%00", "ipc", "@name%00", 8, true},
    {"ipc://@" PATH100 "1234567", "ipc", PATH100 "1234567", 107, true},
    {"abstract://name", "ipc", "name", 4, true},
    {"abstract://@name", "ipc", "@name", 5, true},
    {"abstract://a%20b%2Fc%2fd", "ipc", "a b/c/d", 7, true},
    {"abstract://%00", "ipc", "\0", 1, true},
    {"abstract://a%00b%FF%ff", "ipc", "a\0b\xff\xff", 5, true},
    {"abstract://%25%34%31", "ipc", "%41", 3, true},
    {"abstract://" PATH100 "123456%37", "ipc", PATH100 "1234567", 107, true},
    {"inproc://name", "inproc", "name", 4, false},
    {"inproc://@name", "inproc", "@name", 5, false},
    {"inproc:// a/b:c;d%41 \x01\xff", "inproc", " a/b:c;d%41 \x01\xff", 14, false},
    {"inproc://" PATH100 PATH100, "inproc", PATH100 PATH100, 200, false},
};

Test(url, paths_and_names_are_understood)
{
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        for (int listen = 0; listen < 2; listen++) {
            const struct path *p = &paths[i];
            struct spk_url url;
            cr_assert_eq(spk_url_parse(&url, p->text, listen), 0, "%s", p->text);
            expect_text(url.text, p->text, p->text);
            expect_text(url.transport->scheme, p->scheme, p->text);
            cr_expect_eq(url.path_size, p->size, "%s: %zu", p->text, url.path_size);
            cr_expect_arr_eq(url.path, p->path, p->size + 1, "%s", p->text);
            cr_expect_eq(url.abstract, p->abstract, "%s", p->text);
            cr_expect_null(url.host);
            cr_expect_null(url.local);
            cr_expect_not(url.wildcard);
            cr_expect_not(url.has_port);
            spk_url_fini(&url);
        }
    }
}

Test(url, empty_and_overlong_paths_are_refused)
{
    static const struct {
        const char *text;
        int error;
    } refused[] = {
        {"ipc://", SPOKE_EURL},
        {"ipc://@", SPOKE_EURL},
        {"unix://", SPOKE_EURL},
        {"abstract://", SPOKE_EURL},
        {"inproc://", SPOKE_EURL},
        {"ipc://" PATH100 "12345678", SPOKE_ENAMETOOLONG},
        {"ipc://@" PATH100 "12345678", SPOKE_ENAMETOOLONG},
        {"unix://" PATH100 PATH100, SPOKE_ENAMETOOLONG},
        {"abstract://" PATH100 "1234567%38", SPOKE_ENAMETOOLONG},
        {"abstract://%", SPOKE_EURL},
        {"abstract://%4", SPOKE_EURL},
        {"abstract://a%4", SPOKE_EURL},
        {"abstract://%g1", SPOKE_EURL},
        {"abstract://%1g", SPOKE_EURL},
        {"abstract://%%41", SPOKE_EURL},
        {"abstract://% 41", SPOKE_EURL},
    };

    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        expect_refused(refused[i].text, false, refused[i].error);
        expect_refused(refused[i].text, true, refused[i].error);
    }
}

/* Method: inproc takes anything, so that the length alone decides. */
Test(url, texts_are_limited)
{
    const size_t sizes[] = {SPK_URL_MAX, SPK_URL_MAX + 1, (size_t)1 << 20};
    char *text = malloc(sizes[2] + 1);

    cr_assert_not_null(text);
    for (int i = 0; i < 3; i++) {
        memset(text, 'x', sizes[i]);
        memcpy(text, "inproc://", strlen("inproc://"));
        text[sizes[i]] = '\0';
        expect_refused(text, false, i == 0 ? 0 : SPOKE_ENAMETOOLONG);
        expect_refused(text, true, i == 0 ? 0 : SPOKE_ENAMETOOLONG);
        memset(text, 'x', sizes[i]); /* no scheme either: too long all the same */
        expect_refused(text, true, i == 0 ? SPOKE_EURL : SPOKE_ENAMETOOLONG);
    }
    free(text);
}

Test(url, without_memory_there_is_no_url)
{
    struct spk_url url;

    spk_memory_fail_after(1);
    cr_expect_eq(spk_url_parse(&url, "inproc://x", true), SPOKE_ENOMEM);
    cr_expect_null(url.text);
    spk_url_fini(&url);
}
