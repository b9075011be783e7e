/* SPDX-License-Identifier: MIT */
/* What is true of streams over tls alone. */
#include <string.h>

#include "tests/support/resources.h"
#include "tests/tls/meeting.h"

struct pair {
    spoke_engine *e;
    spoke_stream_listener *l;
    spoke_stream *end[2];
    char url[ENDPOINT_MAX];
};

static void
config_with(spoke_stream_config *config, spoke_tls_config *tls)
{
    spoke_stream_config_init(config);
    config->tls = tls;
}

static void
listen_on(struct pair *p, const char *url)
{
    spoke_stream_config config;

    config_with(&config, test_tls());
    expect_rc(spoke_engine_open(&p->e, NULL), 0);
    expect_rc(spoke_stream_listen(&p->l, url, &config, p->e), 0);
}

static void
pair_open(struct pair *p)
{
    spoke_stream_config config;

    endpoint_fresh(p->url, TLS);
    listen_on(p, p->url);
    config_with(&config, test_tls());
    expect_rc(
        spoke_stream_dial(&p->end[0], p->url, &config, p->e, spoke_engine_now(p->e) + PATIENCE), 0);
    expect_rc(spoke_stream_accept(p->l, &p->end[1], spoke_engine_now(p->e) + PATIENCE), 0);
}

static int
read_one(spoke_stream *s)
{
    size_t done;
    char byte;

    return spoke_stream_read(s, &byte, 1, &done);
}

/* Who only writes, and closes, has told all: no ticket comes behind its back, for which its kernel
 * would reset the connection. */
Test(tls_streams, what_was_written_before_the_close_arrives)
{
    static uint8_t bytes[100000], got[100000];
    struct pair p;
    size_t done;

    for (int i = 0; i < 20; i++) {
        pair_open(&p);
        memset(bytes, i + 1, sizeof bytes);
        expect_rc(spoke_stream_write(p.end[0], bytes, sizeof bytes, &done), 0);
        expect_rc(spoke_stream_close(p.end[0]), 0);
        expect_rc(spoke_stream_read_full(p.end[1], got, sizeof got, &done), 0);
        cr_assert_eq(memcmp(bytes, got, sizeof got), 0);
        expect_rc(read_one(p.end[1]), SPOKE_EOF);
        expect_rc(spoke_engine_close(p.e), 0);
    }
}

/* What is encrypted and has not left is waited for, and counted. */
Test(tls_streams, a_close_waits_for_what_has_not_left)
{
    static uint8_t bytes[64 * 1024];
    struct spoke_stream_info info;
    size_t done, all = 0;
    struct pair p;

    pair_open(&p);
    expect_rc(spoke_stream_set_write_deadline(p.end[0], SPOKE_NOW), 0);
    for (int full = 0; full < 20;) {
        int rc = spoke_stream_write(p.end[0], bytes, sizeof bytes, &done);

        all += done;
        full = rc == 0 ? 0 : full + 1;
        cr_assert_geq(spoke_engine_poll(p.e, SPOKE_MS), 0);
    }
    expect_rc(spoke_stream_get_info(p.end[0], &info), 0);
    cr_assert_gt(info.unsent, 0, "encrypted, and not the kernel's");
    cr_assert_lt(info.unsent, 128 * 1024);
    expect_rc(spoke_stream_close(p.end[0]), SPOKE_ETIMEDOUT); /* nobody reads */
    cr_assert_gt(all, 0);
    expect_rc(spoke_engine_close(p.e), 0);
}

Test(tls_streams, idle_ones_take_little_memory)
{
    enum { COUNT = 200 };
    static spoke_stream *streams[2][COUNT];
    spoke_stream_config config;
    struct pair p;
    long before, each;
    size_t done;
    char byte;

    pair_open(&p);
    config_with(&config, test_tls());
    before = resources_resident_kib();
    for (int i = 0; i < COUNT; i++) {
        expect_rc(spoke_stream_dial(&streams[0][i], p.url, &config, p.e,
                                    spoke_engine_now(p.e) + PATIENCE),
                  0);
        expect_rc(spoke_stream_accept(p.l, &streams[1][i], spoke_engine_now(p.e) + PATIENCE), 0);
        for (int side = 0; side < 2; side++) {
            expect_rc(spoke_stream_write(streams[side][i], "x", 1, &done), 0);
            expect_rc(spoke_stream_read(streams[!side][i], &byte, 1, &done), 0);
        }
    }
    each = (resources_resident_kib() - before) / (2 * COUNT);
    cr_log_info("%ld KiB for each end", each);
    if (SPOKE_TEST_SLOWDOWN == 1) /* else it is the sanitizer's */
        cr_assert_lt(each, 48, "%ld KiB for each end", each);
    expect_rc(spoke_engine_close(p.e), 0);
}
