/* SPDX-License-Identifier: MIT */
/* Huge pages and a node for the memory of large messages, where the kernel refuses them: an error
 * when the option is set, and later ordinary pages of any node, which are told to the log. */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "runtime/memory/shared.h"
#include "tests/fault/inject.h"
#include "tests/support/process.h"
#include "tests/support/test.h"

#include <spoke/spoke.h>

enum { SIZE = 1 << 20, TRIES = 12, NO_HUGE_PAGE = 77 };

static int told_huge, told_node;

static void
on_log(void *ctx, enum spoke_log_level level, const char *text)
{
    (void)ctx;
    (void)level;
    told_huge += strstr(text, "shm-huge-pages") != NULL;
    told_node += strstr(text, "shm-numa-node") != NULL;
}

static struct spoke_stats
stats_of(spoke_socket *s)
{
    struct spoke_stats stats;

    CHILD_CHECK(spoke_socket_stats(s, &stats) == 0);
    return stats;
}

/* On an engine without a thread, which could not make a call that is caught. */
static spoke_socket *
open_socket(spoke_engine **e)
{
    spoke_socket *s;

    CHILD_CHECK(spoke_engine_open(e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&s, SPOKE_PUSH, *e) == 0);
    return s;
}

static void
use_a_loan(spoke_socket *s)
{
    spoke_msg *m;

    CHILD_CHECK(spoke_loan(s, SIZE, &m) == 0);
    memset(spoke_msg_body(m), 7, SIZE);
    CHILD_CHECK(stats_of(s).shm_bytes >= SIZE);
    spoke_msg_free(m);
}

static int
refuse_nodes(void *ctx)
{
    static const struct {
        int error, rc;
    } cases[] = {{EPERM, SPOKE_EPERM},
                 {EACCES, SPOKE_EPERM},
                 {ENOSYS, SPOKE_ENOTSUP},
                 {EINVAL, SPOKE_ERANGE},
                 {ENOMEM, SPOKE_ENOMEM}};
    const int number = SYS_mbind;
    spoke_engine *e;
    spoke_socket *s;
    int node = 7;

    (void)ctx;
    child_is_confined();
    CHILD_CHECK(inject_only(&number, 1));
    s = open_socket(&e);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        inject_arm(number, 1, cases[i].error);
        CHILD_CHECK(spoke_socket_set_int(s, SPOKE_OPT_SHM_NUMA_NODE, 0) == cases[i].rc);
        CHILD_CHECK(inject_fired());
        CHILD_CHECK(spoke_socket_get_int(s, SPOKE_OPT_SHM_NUMA_NODE, &node) == 0 && node == -1);
    }
    inject_disarm();
    use_a_loan(s); /* nobody asks for a node: the call is not made */
    CHILD_CHECK(inject_caught(NULL) == (long)(sizeof cases / sizeof cases[0]));
    CHILD_CHECK(spoke_engine_close(e) == 0);
    return 0;
}

Test(placement, a_node_that_the_kernel_refuses_is_an_error_when_it_is_asked_for)
{
    if (!inject_is_supported())
        cr_skip("not on this processor");
    cr_assert_eq(child_run(refuse_nodes, NULL, 20), 0);
}

static int
lose_the_node(void *ctx)
{
    const int number = SYS_mbind;
    spoke_engine *e;
    spoke_socket *s;

    (void)ctx;
    child_is_confined();
    spoke_set_log(on_log, NULL, SPOKE_LOG_WARNING);
    CHILD_CHECK(inject_only(&number, 1));
    s = open_socket(&e);
    CHILD_CHECK(spoke_socket_set_int(s, SPOKE_OPT_SHM_NUMA_NODE, 0) == 0);
    inject_arm(number, 1, EINVAL); /* it was there a moment ago */
    use_a_loan(s);
    CHILD_CHECK(inject_fired() && told_node == 1 && told_huge == 0);
    CHILD_CHECK(spoke_engine_close(e) == 0);
    return 0;
}

Test(placement, a_node_that_goes_away_is_done_without)
{
    if (!inject_is_supported())
        cr_skip("not on this processor");
    if (spk_node_check(0) != 0)
        cr_skip("this process may have no memory of node 0");
    cr_assert_eq(child_run(lose_the_node, NULL, 20), 0);
}

/* Huge pages that a loan could not have while the `when`-th call, somebody's, failed; 0: ordinary
 * pages stand in for none. */
static uint64_t
lost_to(int error, int when)
{
    struct spoke_stats stats;
    spoke_engine *e;
    spoke_socket *s = open_socket(&e);

    CHILD_CHECK(spoke_socket_set_bool(s, SPOKE_OPT_SHM_HUGE_PAGES, true) == 0);
    told_huge = 0;
    inject_arm(SYS_madvise, when, error);
    use_a_loan(s);
    inject_disarm();
    stats = stats_of(s);
    CHILD_CHECK(spoke_engine_close(e) == 0);
    CHILD_CHECK((uint64_t)told_huge == stats.shm_huge_failed);
    CHILD_CHECK((stats.shm_huge_failed == 0) == (stats.shm_huge_bytes > 0));
    CHILD_CHECK(stats.shm_huge_bytes == 0 || stats.shm_huge_bytes == stats.shm_bytes);
    return stats.shm_huge_failed;
}

/* The allocator makes the same call, so which one is ours is found by trying. */
static int
make_huge_pages_fail(void *ctx)
{
    static const int errors[] = {ENOMEM, EBUSY, EINVAL};
    const int number = SYS_madvise;

    (void)ctx;
    child_is_confined();
    spoke_set_log(on_log, NULL, SPOKE_LOG_WARNING);
    CHILD_CHECK(inject_only(&number, 1));
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        int when = 1;

        while (when <= TRIES && lost_to(errors[i], when) == 0)
            when++;
        CHILD_CHECK(when <= TRIES);
    }
    if (lost_to(0, 0) > 0)
        return NO_HUGE_PAGE; /* the kernel has none either */
    for (int when = 1; when <= TRIES; when++)
        CHILD_CHECK(lost_to(EAGAIN, when) == 0); /* who was busy is asked again */
    return 0;
}

Test(placement, a_huge_page_that_the_kernel_refuses_is_done_without)
{
    if (!inject_is_supported())
        cr_skip("not on this processor");
    if (spk_huge_page() == 0)
        cr_skip("the kernel makes no huge pages");
    int code = child_run(make_huge_pages_fail, NULL, 50);
    if (code == NO_HUGE_PAGE)
        cr_skip("no huge page is to be had, so that asking again is not tested");
    cr_assert_eq(code, 0);
}
