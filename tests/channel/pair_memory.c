/* SPDX-License-Identifier: MIT */
/* Every allocation fails once: each call then gives a proper error, and nothing is left. */
#include "tests/channel/pair_fixture.h"

#include <string.h>
#include <unistd.h>

#include "runtime/memory/pool.h"

#define TOO_MANY 200

#define LINE(FIELD, S)                                                                             \
    FIELD(S, LIST(I64), numbers)                                                                   \
    FIELD(S, TEXT, text)
SPOKE_STRUCT(line, LINE);
SPOKE_STRUCT_TYPE(line, LINE);

/* Everything that may allocate, until something fails. */
static int
walk(struct yard *y, const spoke_channel_config *config)
{
    static const int64_t numbers[] = {1, 2, 3};
    spoke_sender *tx = NULL, *extra = NULL, *answer;
    spoke_receiver *rx = NULL, *extra_rx = NULL, *answers = NULL;
    struct line line = {{numbers, 3}, {"text", 4}}, out;
    spoke_backing backing;
    spoke_msg *m = NULL;
    int fd = -1, rc;

    if ((rc = spoke_channel_pair(&rx, &tx, config, y->e)) != 0)
        goto end;
    if ((rc = spoke_channel_pair(&extra_rx, &extra, NULL, y->e)) != 0)
        goto end;
    if ((rc = spoke_sender_send_value(tx, &line, NULL, SPOKE_NOW)) != 0)
        goto end;
    if ((rc = spoke_receiver_recv_value(rx, &out, &backing, SPOKE_NOW)) != 0)
        goto end;
    spoke_backing_free(&backing);
    if ((rc = spoke_msg_new(&m, 10)) != 0)
        goto end;
    for (int i = 0; i < 5 && rc == 0; i++) {
        if ((rc = spoke_msg_attach_pipe(m, SPOKE_ATTACHED_READS, &fd)) == 0)
            close(fd);
    }
    if (rc != 0)
        goto end;
    if ((rc = spoke_msg_attach_receiver(m, extra_rx)) != 0)
        goto end;
    if ((rc = spoke_request(tx, m, &answers, NULL, SPOKE_NOW)) != 0)
        goto end;
    m = NULL;
    if ((rc = spoke_receiver_recv(rx, &m, SPOKE_NOW)) != 0)
        goto end;
    if ((rc = spoke_msg_take_sender(m, 6, &answer)) != 0)
        goto end;
    (void)spoke_sender_close(answer);
end:
    if (answers != NULL)
        (void)spoke_receiver_close(answers);
    spoke_msg_free(m);
    for (int i = 0; i < 2; i++) {
        spoke_sender *s = i == 0 ? tx : extra;
        spoke_receiver *r = i == 0 ? rx : extra_rx;

        if (s != NULL)
            (void)spoke_sender_close(s);
        if (r != NULL)
            (void)spoke_receiver_close(r);
    }
    return rc;
}

WAY_TEST(channel_memory, each_allocation_fails_once, ways)
{
    spoke_channel_config config;
    struct yard y;
    int rc = SPOKE_ENOMEM, failures = 0;

    expect_rc(spoke_type_check(&line_type), 0);
    spoke_channel_config_init(&config);
    config.type = &line_type;
    for (uint64_t n = 1; rc != 0; n++) {
        cr_assert_lt(n, TOO_MANY);
        yard_open(&y, *way);
        spk_memory_fail_after(n);
        rc = walk(&y, &config);
        spk_memory_fail_after(0);
        cr_assert(rc == 0 || rc == SPOKE_ENOMEM, "allocation %d: %s", (int)n, rc_name(rc));
        failures += rc != 0;
        yard_settle(&y);
        yard_close(&y);
    }
    cr_assert_gt(failures, 5, "it was not tried");
}
