/* SPDX-License-Identifier: MIT */
/* Descriptors, and channels in channels, between two processes. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/channel/sessions.h"
#include "tests/support/process.h"
#include "tests/support/resources.h"

#define LIMIT_S 60

/* Either side: one session, a channel in each direction. */
struct side {
    spoke_engine *e;
    spoke_session *ss;
    spoke_sender *tx;
    spoke_receiver *rx;
};

struct child {
    char url[64];
    int (*fn)(struct side *s);
};

static spoke_ns
late(const struct side *s)
{
    return spoke_engine_now(s->e) + LIMIT_S * SPOKE_SECOND;
}

static int
open_channels(struct side *s)
{
    int rc = spoke_session_open_sender(s->ss, &s->tx, NULL, NULL, SPOKE_NOW);

    return rc != 0 ? rc : spoke_session_accept_receiver(s->ss, &s->rx, NULL, late(s));
}

static int
run_child(void *ctx)
{
    const struct child *c = ctx;
    struct side s = {0};
    int rc;

    CHILD_CHECK(spoke_engine_open(&s.e, NULL) == 0);
    CHILD_CHECK(spoke_session_dial(&s.ss, c->url, NULL, s.e, late(&s)) == 0);
    CHILD_CHECK(open_channels(&s) == 0);
    rc = c->fn(&s);
    CHILD_CHECK(spoke_sender_close(s.tx) == 0);
    CHILD_CHECK(spoke_receiver_close(s.rx) == 0);
    CHILD_CHECK(spoke_session_close(s.ss, LIMIT_S * SPOKE_SECOND) == 0);
    CHILD_CHECK(spoke_engine_close(s.e) == 0);
    return rc;
}

/* A child that runs fn, with a session to it. */
static pid_t
parent_open(struct side *s, const char *scheme, int (*fn)(struct side *s))
{
    struct child c = {.fn = fn};
    spoke_session_listener *l;
    pid_t pid;

    snprintf(c.url, sizeof c.url, "%s:///tmp/spoke-fds-%d", scheme, (int)getpid());
    *s = (struct side){0};
    cr_assert_eq(spoke_engine_open(&s->e, NULL), 0);
    cr_assert_eq(spoke_session_listen(&l, c.url, NULL, s->e), 0);
    pid = child_start(run_child, &c);
    cr_assert_eq(spoke_session_accept(l, &s->ss, late(s)), 0);
    cr_assert_eq(spoke_session_listener_close(l), 0);
    cr_assert_eq(open_channels(s), 0);
    return pid;
}

static void
parent_close(struct side *s)
{
    cr_assert_eq(spoke_sender_close(s->tx), 0);
    cr_assert_eq(spoke_receiver_close(s->rx), 0);
    cr_assert_eq(spoke_session_close(s->ss, LIMIT_S * SPOKE_SECOND), 0);
    cr_assert_eq(spoke_engine_close(s->e), 0);
}

/* What the first one leaves stays: memory that is shared with others has descriptors. */
#define AND_NOTHING_IS_LEFT(Before, Run)                                                           \
    do {                                                                                           \
        Run;                                                                                       \
        resources_take(Before);                                                                    \
        Run;                                                                                       \
        resources_settle(Before);                                                                  \
    } while (0)

/* ---- of either side: what fails is told by the caller ---- */

static spoke_msg *
get(struct side *s, spoke_receiver *rx)
{
    spoke_msg *m;

    return spoke_receiver_recv(rx, &m, late(s)) == 0 ? m : NULL;
}

static bool
gets_text(struct side *s, spoke_receiver *rx, const char *text)
{
    spoke_msg *m = get(s, rx);
    bool same = m != NULL && spoke_msg_size(m) == strlen(text) &&
                memcmp(spoke_msg_body(m), text, strlen(text)) == 0;

    if (m != NULL)
        spoke_msg_free(m);
    return same;
}

static bool
says(struct side *s, spoke_sender *tx, const char *text)
{
    spoke_msg *m;

    return spoke_msg_from(&m, text, strlen(text)) == 0 && spoke_sender_send(tx, m, late(s)) == 0;
}

static bool
attach(spoke_msg *m, int fd)
{
    return spoke_msg_attach_fd(m, fd, SPOKE_ATTACHED_BOTH) == 0;
}

static int
take(spoke_msg *m, size_t i)
{
    int fd = -1;

    return spoke_msg_take_fd(m, i, &fd) == 0 ? fd : -1;
}

/* ---- all kinds, used there ---- */

enum kind { A_PIPE, A_FILE, A_MEMFD, AN_EVENTFD, A_LISTENER, A_CONNECTION, KINDS };

static int
use_all(struct side *s)
{
    spoke_msg *m = get(s, s->rx);
    char text[16] = "";
    int fds[KINDS], accepted;
    char *memory;

    CHILD_CHECK(m != NULL && spoke_msg_attachments(m) == KINDS);
    for (size_t i = 0; i < KINDS; i++)
        CHILD_CHECK((fds[i] = take(m, i)) >= 0);
    spoke_msg_free(m);
    CHILD_CHECK(write(fds[A_PIPE], "pipe", 4) == 4);
    CHILD_CHECK(read(fds[A_FILE], text, sizeof text) == 4 && memcmp(text, "left", 4) == 0);
    CHILD_CHECK(write(fds[A_FILE], " more", 5) == 5);
    memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fds[A_MEMFD], 0);
    CHILD_CHECK(memory != MAP_FAILED && strcmp(memory, "memory") == 0);
    strcpy(memory, "of both");
    CHILD_CHECK(munmap(memory, 4096) == 0);
    CHILD_CHECK(eventfd_write(fds[AN_EVENTFD], 42) == 0);
    CHILD_CHECK((accepted = accept4(fds[A_LISTENER], NULL, NULL, SOCK_CLOEXEC)) >= 0);
    CHILD_CHECK(write(accepted, "accepted", 8) == 8);
    CHILD_CHECK(recv(fds[A_CONNECTION], text, 3, MSG_WAITALL) == 3 && memcmp(text, "tcp", 3) == 0);
    CHILD_CHECK(write(fds[A_CONNECTION], "TCP", 3) == 3);
    close(accepted);
    for (size_t i = 0; i < KINDS; i++)
        close(fds[i]);
    CHILD_CHECK(says(s, s->tx, "done"));
    CHILD_CHECK(gets_text(s, s->rx, "bye"));
    return 0;
}

static int
listen_somewhere(struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *address = (struct sockaddr_in){.sin_family = AF_INET,
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    cr_assert_eq(bind(fd, (struct sockaddr *)address, size), 0);
    cr_assert_eq(listen(fd, 8), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)address, &size), 0);
    return fd;
}

static int
connect_to(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(connect(fd, (const struct sockaddr *)address, sizeof *address), 0);
    return fd;
}

static void
expect_read(int fd, const char *text)
{
    char got[32];

    for (size_t n = 0; n < strlen(text);) {
        ssize_t more = read(fd, got + n, strlen(text) - n);

        cr_assert_gt(more, 0, "%s does not come", text);
        n += (size_t)more;
    }
    cr_assert_arr_eq(got, text, strlen(text));
}

static void
expect_eof(int fd)
{
    char byte;

    cr_assert_eq(read(fd, &byte, 1), 0, "a copy is left");
    close(fd);
}

static void
send_all(const char *scheme)
{
    char name[] = "/tmp/spoke-fds-XXXXXX", text[16] = "";
    int fds[KINDS], ends[2], client, connected, accepting, file, memfd, event;
    struct sockaddr_in address, other;
    struct side s;
    spoke_msg *m;
    eventfd_t value;
    pid_t pid = parent_open(&s, scheme, use_all);

    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    fds[A_PIPE] = ends[1];
    cr_assert_geq(file = mkostemp(name, O_CLOEXEC), 0);
    cr_assert_eq(unlink(name), 0);
    cr_assert_eq(write(file, "read left", 9), 9);
    cr_assert_eq(lseek(file, 5, SEEK_SET), 5);
    fds[A_FILE] = fcntl(file, F_DUPFD_CLOEXEC, 3);
    cr_assert_geq(memfd = memfd_create("test", MFD_CLOEXEC), 0);
    cr_assert_eq(ftruncate(memfd, 4096), 0);
    cr_assert_eq(write(memfd, "memory", 7), 7);
    fds[A_MEMFD] = fcntl(memfd, F_DUPFD_CLOEXEC, 3);
    cr_assert_geq(event = eventfd(0, EFD_CLOEXEC), 0);
    fds[AN_EVENTFD] = fcntl(event, F_DUPFD_CLOEXEC, 3);
    fds[A_LISTENER] = listen_somewhere(&address);
    client = connect_to(&address);
    accepting = listen_somewhere(&other);
    connected = connect_to(&other);
    cr_assert_geq(fds[A_CONNECTION] = accept4(accepting, NULL, NULL, SOCK_CLOEXEC), 0);
    close(accepting);
    cr_assert_eq(write(connected, "tcp", 3), 3);

    m = text_message("all kinds");
    for (int i = 0; i < KINDS; i++)
        cr_assert(attach(m, fds[i]));
    cr_assert_eq(spoke_sender_send(s.tx, m, late(&s)), 0);
    cr_assert(gets_text(&s, s.rx, "done"));

    expect_read(ends[0], "pipe");
    expect_eof(ends[0]);
    cr_assert_eq(pread(file, text, sizeof text, 0), 14);
    cr_assert_arr_eq(text, "read left more", 14);
    cr_assert_eq(pread(memfd, text, 8, 0), 8);
    cr_assert_str_eq(text, "of both");
    cr_assert_eq(eventfd_read(event, &value), 0);
    cr_assert_eq(value, 42);
    expect_read(client, "accepted");
    expect_eof(client);
    expect_read(connected, "TCP");
    expect_eof(connected);
    close(file);
    close(memfd);
    close(event);
    cr_assert(says(&s, s.tx, "bye"));
    parent_close(&s);
    cr_assert_eq(child_wait(pid, LIMIT_S), 0);
}

Test(channel_fds_processes, all_kinds_over_ipc)
{
    static struct resources before;

    AND_NOTHING_IS_LEFT(&before, send_all("ipc"));
}

Test(channel_fds_processes, all_kinds_over_shm)
{
    static struct resources before;

    AND_NOTHING_IS_LEFT(&before, send_all("shm"));
}

/* ---- many, beside messages without ---- */

#define MESSAGES 60

static int
fds_of(int i)
{
    return i % 10 == 9 ? SPOKE_ATTACHMENTS_PER_MESSAGE : i % 3;
}

static int
use_many(struct side *s)
{
    for (int i = 0; i < MESSAGES; i++) {
        spoke_msg *m = get(s, s->rx);

        CHILD_CHECK(m != NULL && spoke_msg_attachments(m) == (size_t)fds_of(i));
        CHILD_CHECK(spoke_msg_size(m) == (size_t)i * 1000);
        for (int k = 0; k < fds_of(i); k++) {
            eventfd_t value;
            int fd = take(m, (size_t)k);

            CHILD_CHECK(fd >= 0 && eventfd_read(fd, &value) == 0);
            CHILD_CHECK(value == (eventfd_t)(i * 100 + k + 1));
            CHILD_CHECK(eventfd_write(fd, (eventfd_t)i + 7) == 0);
            close(fd);
        }
        spoke_msg_free(m);
    }
    CHILD_CHECK(says(s, s->tx, "done"));
    CHILD_CHECK(gets_text(s, s->rx, "bye"));
    return 0;
}

static void
send_many(const char *scheme)
{
    static int kept[MESSAGES][SPOKE_ATTACHMENTS_PER_MESSAGE];
    struct side s;
    pid_t pid = parent_open(&s, scheme, use_many);

    for (int i = 0; i < MESSAGES; i++) {
        spoke_msg *m;

        cr_assert_eq(spoke_msg_new(&m, (size_t)i * 1000), 0);
        for (int k = 0; k < fds_of(i); k++) {
            cr_assert_geq(kept[i][k] = eventfd((unsigned)(i * 100 + k + 1), EFD_CLOEXEC), 0);
            cr_assert(attach(m, fcntl(kept[i][k], F_DUPFD_CLOEXEC, 3)));
        }
        cr_assert_eq(spoke_sender_send(s.tx, m, late(&s)), 0);
    }
    cr_assert(gets_text(&s, s.rx, "done"));
    for (int i = 0; i < MESSAGES; i++) {
        for (int k = 0; k < fds_of(i); k++) {
            eventfd_t value;

            cr_assert_eq(eventfd_read(kept[i][k], &value), 0);
            cr_assert_eq(value, (eventfd_t)i + 7);
            close(kept[i][k]);
        }
    }
    cr_assert(says(&s, s.tx, "bye"));
    parent_close(&s);
    cr_assert_eq(child_wait(pid, LIMIT_S), 0);
}

Test(channel_fds_processes, many_over_ipc)
{
    static struct resources before;

    AND_NOTHING_IS_LEFT(&before, send_many("ipc"));
}

Test(channel_fds_processes, many_over_shm)
{
    static struct resources before;

    AND_NOTHING_IS_LEFT(&before, send_many("shm"));
}

/* ---- kill -9 ---- */

#define BEFORE_THE_KILL 20

/* Some are here, some on their way, when it is killed. */
static int
take_and_keep(struct side *s)
{
    spoke_msg *kept[BEFORE_THE_KILL];

    child_is_confined();
    for (int i = 0; i < BEFORE_THE_KILL; i++)
        CHILD_CHECK((kept[i] = get(s, s->rx)) != NULL);
    CHILD_CHECK(kept[0] != NULL && says(s, s->tx, "now"));
    for (;;)
        (void)spoke_engine_poll(s->e, SPOKE_SECOND);
}

static int
send_for_ever(struct side *s)
{
    child_is_confined();
    for (;;) {
        spoke_msg *m;

        CHILD_CHECK(spoke_msg_new(&m, 1000) == 0);
        for (int k = 0; k < 7; k++)
            CHILD_CHECK(attach(m, eventfd(0, EFD_CLOEXEC)));
        if (spoke_sender_send(s->tx, m, late(s)) != 0)
            return 1;
    }
}

static void
kill_receiver(const char *scheme)
{
    struct side s;
    int ends[2], rc;
    pid_t pid = parent_open(&s, scheme, take_and_keep);

    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    for (int i = 0; i < BEFORE_THE_KILL + 40; i++) {
        spoke_msg *m = text_message("kept");

        for (int k = 0; k < 20; k++)
            cr_assert(attach(m, fcntl(ends[1], F_DUPFD_CLOEXEC, 3)));
        cr_assert_eq(spoke_sender_send(s.tx, m, late(&s)), 0);
    }
    cr_assert(gets_text(&s, s.rx, "now"));
    child_kill(pid);
    do {
        spoke_msg *m = text_message("x");

        if ((rc = spoke_sender_send(s.tx, m, late(&s))) != 0)
            spoke_msg_free(m);
    } while (rc == 0);
    cr_assert(rc == SPOKE_ECONNRESET || rc == SPOKE_EPEERDEAD, "%s", spoke_error_name(rc));
    close(ends[1]);
    expect_eof(ends[0]); /* those in the channel, in the session and on their way, too */
    parent_close(&s);
}

static void
kill_sender(const char *scheme)
{
    struct side s;
    spoke_msg *m;
    int rc, count = 0;
    pid_t pid = parent_open(&s, scheme, send_for_ever);

    while ((rc = spoke_receiver_recv(s.rx, &m, late(&s))) == 0) {
        cr_assert_eq(spoke_msg_attachments(m), 7, "a part of a message");
        for (size_t k = 0; k < 3; k++)
            close(take(m, k));
        spoke_msg_free(m);
        if (++count == BEFORE_THE_KILL)
            child_kill(pid);
    }
    cr_assert_geq(count, BEFORE_THE_KILL);
    cr_assert(rc == SPOKE_ECONNRESET || rc == SPOKE_EPEERDEAD, "%s", spoke_error_name(rc));
    parent_close(&s);
}

Test(channel_fds_processes, a_receiver_is_killed)
{
    static struct resources before;

    AND_NOTHING_IS_LEFT(&before, kill_receiver("ipc"));
    AND_NOTHING_IS_LEFT(&before, kill_receiver("shm"));
}

Test(channel_fds_processes, a_sender_is_killed)
{
    static struct resources before;

    AND_NOTHING_IS_LEFT(&before, kill_sender("ipc"));
    AND_NOTHING_IS_LEFT(&before, kill_sender("shm"));
}

/* ---- channels in channels ---- */

#define LEVELS 3

/* Down to the last one, where there are a descriptor and the way back. */
static int
go_down(struct side *s)
{
    spoke_receiver *level[LEVELS];
    spoke_receiver *at = s->rx;
    spoke_sender *answer;
    spoke_msg *m;
    int fd;

    for (int i = 0; i < LEVELS; i++) {
        CHILD_CHECK((m = get(s, at)) != NULL);
        CHILD_CHECK(spoke_msg_take_receiver(m, 0, &level[i]) == 0);
        spoke_msg_free(m);
        at = level[i];
    }
    CHILD_CHECK((m = get(s, at)) != NULL);
    CHILD_CHECK((fd = take(m, 0)) >= 0);
    CHILD_CHECK(spoke_msg_take_sender(m, 1, &answer) == 0);
    spoke_msg_free(m);
    CHILD_CHECK(eventfd_write(fd, 3) == 0);
    close(fd);
    CHILD_CHECK(says(s, answer, "from the bottom"));
    CHILD_CHECK(spoke_sender_close(answer) == 0);
    for (int i = 0; i < LEVELS; i++) {
        spoke_msg *none;

        CHILD_CHECK(spoke_receiver_recv(level[i], &none, late(s)) == SPOKE_EOF);
        CHILD_CHECK(spoke_receiver_close(level[i]) == 0);
    }
    CHILD_CHECK(gets_text(s, s->rx, "bye"));
    return 0;
}

static void
nest(const char *scheme)
{
    spoke_sender *tx[LEVELS], *answer;
    spoke_receiver *rx[LEVELS], *answers;
    int event = eventfd(0, EFD_CLOEXEC);
    eventfd_t value;
    struct side s;
    spoke_msg *m;
    pid_t pid = parent_open(&s, scheme, go_down);

    for (int i = 0; i < LEVELS; i++)
        cr_assert_eq(spoke_channel_pair(&rx[i], &tx[i], NULL, s.e), 0);
    cr_assert_eq(spoke_channel_pair(&answers, &answer, NULL, s.e), 0);
    m = text_message("the bottom");
    cr_assert(attach(m, fcntl(event, F_DUPFD_CLOEXEC, 3)));
    cr_assert_eq(spoke_msg_attach_sender(m, answer), 0);
    cr_assert_eq(spoke_sender_send(tx[LEVELS - 1], m, late(&s)), 0);
    for (int i = LEVELS - 1; i >= 0; i--) { /* what was sent already goes along */
        m = text_message("a level");
        cr_assert_eq(spoke_msg_attach_receiver(m, rx[i]), 0);
        cr_assert_eq(spoke_sender_send(i == 0 ? s.tx : tx[i - 1], m, late(&s)), 0);
    }
    cr_assert(gets_text(&s, answers, "from the bottom"));
    cr_assert_eq(eventfd_read(event, &value), 0);
    cr_assert_eq(value, 3);
    close(event);
    cr_assert_eq(spoke_receiver_recv(answers, &m, late(&s)), SPOKE_EOF);
    cr_assert_eq(spoke_receiver_close(answers), 0);
    for (int i = 0; i < LEVELS; i++)
        cr_assert_eq(spoke_sender_close(tx[i]), 0);
    cr_assert(says(&s, s.tx, "bye"));
    parent_close(&s);
    cr_assert_eq(child_wait(pid, LIMIT_S), 0);
}

Test(channel_fds_processes, channels_in_channels)
{
    static struct resources before;

    AND_NOTHING_IS_LEFT(&before, nest("ipc"));
    AND_NOTHING_IS_LEFT(&before, nest("shm"));
}
