/* SPDX-License-Identifier: MIT */
/* A process whose control group has no memory left while it fills shared memory, with a peer
 * outside.  What the kernel does is its own choice: where the group's OOM killer is off (version 1)
 * the reservation fails, and large messages go through the ring in pieces; where it is on, which it
 * always is in version 2, the process is killed like any other that asks for too much.  No other
 * process notices more than that it has gone, and SIGBUS is nobody's end. */
#include "tests/support/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/process.h"

enum {
    LIMIT = 48 << 20,
    ROOM = 128 << 10, /* what is added for a process that waits for memory */
    LARGE = 1 << 20,
    LOANS_MOST = 200,
    LENT = 3,         /* sent before the group is full, and held by the receiver */
    ORDINARY = 8,     /* sent when it is full */
    SMALL_SIZE = 512, /* enough of these fill the whole ring once, so that all of it exists */
    SMALL = 1000,
    PATIENCE_S = 60 * SPOKE_TEST_SLOWDOWN,
    TURN_MS = 50,
};

#define BASE_1 "/sys/fs/cgroup/memory"
#define BASE_2 "/sys/fs/cgroup"

/* ---- the group ---- */

static struct {
    char path[128];
    bool second; /* version 2 */
    long limit;
} group;

/* Write to one of its files; 0 or an errno. */
static int
group_set(const char *file, long value)
{
    char path[256], text[32];
    int n = snprintf(text, sizeof text, "%ld", value), fd, rc = 0;

    snprintf(path, sizeof path, "%s/%s", group.path, file);
    if ((fd = open(path, O_WRONLY | O_CLOEXEC)) < 0)
        return errno;
    if (write(fd, text, (size_t)n) != n)
        rc = errno;
    close(fd);
    return rc;
}

/* The number behind a word in one of its files; -1 if there is none. */
static long
group_number(const char *file, const char *word)
{
    char path[256], line[128];
    size_t length = strlen(word);
    long value = -1;
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", group.path, file);
    if ((f = fopen(path, "re")) == NULL)
        return -1;
    while (fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, word, length) == 0 && line[length] == ' ')
            value = strtol(line + length, NULL, 10);
    fclose(f);
    return value;
}

static long
count_of_kills(void)
{
    return group_number(group.second ? "memory.events" : "memory.oom_control", "oom_kill");
}

/* Runs in a process that is nobody's child, as the sweeper of the test's directory: it removes the
 * group when the test and its children are gone, however they end. */
static _Noreturn void
sweep(int alive)
{
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    char byte;

    setsid();
    dup2(alive, 0);
    close_range(1, ~0u, 0);
    while (read(0, &byte, 1) > 0) {
    }
    for (int i = 0; i < 1000 && rmdir(group.path) != 0 && errno == EBUSY; i++)
        nanosleep(&pause, NULL);
    _exit(0);
}

static void
start_sweeper(void)
{
    int alive[2];

    cr_assert_eq(pipe2(alive, O_CLOEXEC), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        close(alive[1]);
        if (fork() != 0)
            _exit(0);
        sweep(alive[0]);
    }
    close(alive[0]);
    waitpid(child, NULL, 0);
}

static bool
second_has_memory(void)
{
    char line[512] = "";
    FILE *f = fopen(BASE_2 "/cgroup.subtree_control", "re");

    if (f == NULL)
        return false;
    if (fgets(line, sizeof line, f) == NULL)
        line[0] = '\0';
    fclose(f);
    return strstr(line, "memory") != NULL;
}

/* Skips the test where none can be made. */
static void
make_group(void)
{
    int rc;

    if (SPOKE_TEST_SLOWDOWN > 1)
        cr_skip("what a sanitizer needs of memory has no bound");
    group.second = access(BASE_1 "/memory.limit_in_bytes", F_OK) != 0;
    if (group.second && !second_has_memory())
        cr_skip("no control groups of memory here");
    snprintf(group.path, sizeof group.path, "%s/spoke-test-%d", group.second ? BASE_2 : BASE_1,
             (int)getpid());
    if (mkdir(group.path, 0755) != 0) {
        cr_assert(errno == EACCES || errno == EPERM || errno == EROFS, "%s: %s", group.path,
                  strerror(errno));
        cr_skip("no control group can be made here: %s", strerror(errno));
    }
    start_sweeper();
    group.limit = LIMIT;
    rc = group_set(group.second ? "memory.max" : "memory.limit_in_bytes", LIMIT);
    cr_assert_eq(rc, 0, "%s", strerror(rc));
    /* Pages that are swapped out do not count; where there is no swap this may fail. */
    (void)group_set(group.second ? "memory.swap.max" : "memory.swappiness", 0);
}

/* A process whose page fault finds no memory sleeps until there is some, if nobody is killed.  It
 * gets a little: too little for what it could not reserve. */
static void
nurse(void)
{
    if (group.second || group_number("memory.oom_control", "under_oom") != 1)
        return;
    group.limit += ROOM;
    cr_assert_eq(group_set("memory.limit_in_bytes", group.limit), 0);
}

/* ---- mappings ---- */

/* Of whose segment a body is a part: "rw-s" this process's, "r--s" a peer's. */
static bool
lies_in_segment(const spoke_msg *m, const char *mode)
{
    unsigned long from, to, at = (unsigned long)spoke_msg_body(m);
    FILE *maps = fopen("/proc/self/maps", "re");
    bool lies = false;
    char line[512], its_mode[8];

    while (maps != NULL && !lies && fgets(line, sizeof line, maps) != NULL)
        lies = strstr(line, "memfd:spoke-messages") != NULL &&
               sscanf(line, "%lx-%lx %7s", &from, &to, its_mode) == 3 && at >= from && at < to &&
               strcmp(its_mode, mode) == 0;
    if (maps != NULL)
        fclose(maps);
    return lies;
}

/* ---- in the group ---- */

static void
fill(spoke_msg *m, unsigned number)
{
    memset(spoke_msg_body(m), (int)(number % 251), spoke_msg_size(m));
}

static void
send_filled(spoke_socket *s, spoke_msg *m, unsigned number)
{
    fill(m, number);
    CHILD_CHECK(spoke_send(s, m, 0) == 0);
}

static spoke_msg *
new_message(size_t size)
{
    spoke_msg *m;

    CHILD_CHECK(spoke_msg_new(&m, size) == 0);
    return m;
}

static spoke_msg *
new_loan(spoke_socket *s)
{
    spoke_msg *m;

    CHILD_CHECK(spoke_loan(s, LARGE, &m) == 0);
    return m;
}

/* Loans until there is no more memory for them; how many. */
static unsigned
fill_the_group(spoke_socket *s, spoke_msg *loans[LOANS_MOST])
{
    unsigned count = 0;

    while (lies_in_segment(loans[count] = new_loan(s), "rw-s"))
        CHILD_CHECK(++count < LOANS_MOST);
    spoke_msg_free(loans[count]); /* an ordinary message; nothing has been written there */
    CHILD_CHECK(count > LIMIT / LARGE / 2);
    return count;
}

static int
send_in_want(void *ctx)
{
    spoke_msg *ordinary[ORDINARY], *loans[LOANS_MOST];
    unsigned count, number = 0;
    spoke_socket *s;

    CHILD_CHECK(group_set("cgroup.procs", 0) == 0);
    CHILD_CHECK(spoke_socket_open(&s, SPOKE_PUSH, NULL) == 0);
    CHILD_CHECK(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, PATIENCE_S * SPOKE_SECOND) == 0);
    CHILD_CHECK(spoke_dial(s, ctx, NULL, 0) == 0);
    for (; number < SMALL; number++)
        send_filled(s, new_message(SMALL_SIZE), number);
    for (unsigned i = 0; i < LENT; i++, number++)
        send_filled(s, new_loan(s), number);
    for (unsigned i = 0; i < ORDINARY; i++)
        fill(ordinary[i] = new_message(LARGE), number + i);
    count = fill_the_group(s, loans);
    for (unsigned i = 0; i < ORDINARY; i++, number++)
        send_filled(s, ordinary[i], number);
    for (unsigned i = 0; i < count; i++)
        spoke_msg_free(loans[i]);
    send_filled(s, new_loan(s), number);
    CHILD_CHECK(spoke_socket_close(s) == 0);
    return 0;
}

/* ---- outside ---- */

static void
nap(void)
{
    const struct timespec pause = {.tv_nsec = TURN_MS * 1000 * 1000};

    nanosleep(&pause, NULL);
}

/* Its wait status, when it has ended; the group is nursed meanwhile. */
static int
status_of(pid_t child)
{
    int status = 0;

    for (int i = 0; waitpid(child, &status, WNOHANG) == 0; i++) {
        cr_assert_lt(i, PATIENCE_S * 1000 / TURN_MS, "the child does not end");
        nurse();
        nap();
    }
    return status;
}

static spoke_socket *
open_pull(const char *url)
{
    spoke_socket *s;

    cr_assert_eq(spoke_socket_open(&s, SPOKE_PULL, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, TURN_MS * SPOKE_MS), 0);
    cr_assert_eq(spoke_listen(s, url, NULL, 0), 0);
    return s;
}

static void
expect_filled(spoke_msg *m, unsigned number, size_t size)
{
    const unsigned char *body = spoke_msg_body(m);

    cr_assert_eq(spoke_msg_size(m), size, "message %u: %zu bytes", number, spoke_msg_size(m));
    for (size_t i = 0; i < size; i++)
        cr_assert_eq(body[i], number % 251, "message %u: byte %zu", number, i);
}

static spoke_msg *
receive(spoke_socket *s, unsigned number, size_t size)
{
    spoke_msg *m;
    int rc;

    for (int i = 0; (rc = spoke_recv(s, &m, 0)) == SPOKE_ETIMEDOUT; i++) {
        cr_assert_lt(i, PATIENCE_S * 1000 / TURN_MS, "message %u does not come", number);
        nurse();
    }
    cr_assert_eq(rc, 0);
    expect_filled(m, number, size);
    return m;
}

static void
receive_and_free(spoke_socket *s, unsigned number, size_t size)
{
    spoke_msg_free(receive(s, number, size));
}

/* What comes before the group is full; the lent messages are kept. */
static void
receive_first(spoke_socket *s, spoke_msg *held[LENT])
{
    for (unsigned i = 0; i < SMALL; i++)
        receive_and_free(s, i, SMALL_SIZE);
    for (unsigned i = 0; i < LENT; i++) {
        held[i] = receive(s, SMALL + i, LARGE);
        cr_assert(lies_in_segment(held[i], "r--s"), "message %u was copied", i);
    }
}

/* What was lent is as it was. */
static void
free_held(spoke_msg *held[LENT])
{
    for (unsigned i = 0; i < LENT; i++) {
        expect_filled(held[i], SMALL + i, LARGE);
        spoke_msg_free(held[i]);
    }
}

static int turn[2]; /* a byte here: it is the other one's turn */

static int
send_one(void *ctx)
{
    spoke_socket *s;
    char byte;

    CHILD_CHECK(read(turn[0], &byte, 1) == 1);
    CHILD_CHECK(spoke_socket_open(&s, SPOKE_PUSH, NULL) == 0);
    CHILD_CHECK(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, PATIENCE_S * SPOKE_SECOND) == 0);
    CHILD_CHECK(spoke_dial(s, ctx, NULL, 0) == 0);
    send_filled(s, new_loan(s), 7);
    CHILD_CHECK(spoke_socket_close(s) == 0);
    return 0;
}

Test(cgroup, what_finds_no_memory_in_the_group_is_sent_in_pieces, .timeout = 200)
{
    char url[ENDPOINT_MAX];
    spoke_msg *held[LENT];
    unsigned copied = 0;

    make_group();
    int rc = group.second ? ENOENT : group_set("memory.oom_control", 1);
    if (rc != 0) {
        cr_assert(rc == ENOENT || rc == EACCES || rc == EPERM, "%s", strerror(rc));
        cr_skip("the OOM killer of a group cannot be switched off here");
    }
    endpoint_fresh(url, SHM);
    pid_t child = child_start(send_in_want, url);
    spoke_socket *s = open_pull(url);

    receive_first(s, held);
    for (unsigned i = 0; i < ORDINARY; i++) {
        spoke_msg *m = receive(s, SMALL + LENT + i, LARGE);
        copied += !lies_in_segment(m, "r--s");
        spoke_msg_free(m);
    }
    cr_assert_gt(copied, 0, "the group was not full");
    receive_and_free(s, SMALL + LENT + ORDINARY, LARGE);
    free_held(held);
    int status = status_of(child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status %#x", status);
    cr_assert_eq(spoke_socket_close(s), 0);
}

Test(cgroup, who_is_killed_for_want_of_memory_harms_nobody_else, .timeout = 200)
{
    char url[ENDPOINT_MAX];
    spoke_msg *held[LENT];

    make_group();
    cr_assert_eq(pipe2(turn, O_CLOEXEC), 0);
    endpoint_fresh(url, SHM);
    pid_t child = child_start(send_in_want, url), other = child_start(send_one, url);
    spoke_socket *s = open_pull(url);

    receive_first(s, held);
    int status = status_of(child);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "wait status %#x", status);
    cr_assert_geq(count_of_kills(), 1);
    cr_assert_eq(write(turn[1], "", 1), 1);
    receive_and_free(s, 7, LARGE);
    cr_assert_eq(child_wait(other, PATIENCE_S), 0);
    free_held(held);
    cr_assert_eq(spoke_socket_close(s), 0);
}
