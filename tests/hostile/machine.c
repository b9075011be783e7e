/* SPDX-License-Identifier: MIT */
/* Machines that give less than usual: one CPU, no locked memory, no io_uring.  Each in a child,
 * which is restricted and then does ordinary work. */
#include "tests/support/test.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/process.h"
#include "tests/support/raw_peer.h"

#define PATIENCE (10 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

/* Requests and answers of several sizes between two sockets, on one engine or on the shared one. */
static void
work(bool owned, const char *url, uint32_t count)
{
    spoke_engine *e = NULL;
    spoke_socket *req, *rep;
    spoke_msg *m;

    CHILD_CHECK(!owned || spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&req, SPOKE_REQ, e) == 0);
    CHILD_CHECK(spoke_socket_open(&rep, SPOKE_REP, e) == 0);
    CHILD_CHECK(spoke_socket_set_duration(req, SPOKE_OPT_RECV_TIMEOUT, PATIENCE) == 0);
    CHILD_CHECK(spoke_socket_set_duration(rep, SPOKE_OPT_RECV_TIMEOUT, PATIENCE) == 0);
    CHILD_CHECK(spoke_listen(rep, url, NULL, 0) == 0);
    CHILD_CHECK(spoke_dial(req, url, NULL, SPOKE_WAIT_FIRST) == 0);
    for (uint32_t i = 0; i < count; i++) {
        size_t size = i % 7 * 20000 + 4;
        CHILD_CHECK(spoke_msg_new(&m, size) == 0);
        memcpy(spoke_msg_body(m), &i, sizeof i);
        CHILD_CHECK(spoke_send(req, m, 0) == 0);
        CHILD_CHECK(spoke_recv(rep, &m, 0) == 0);
        CHILD_CHECK(spoke_send(rep, m, 0) == 0);
        CHILD_CHECK(spoke_recv(req, &m, 0) == 0);
        CHILD_CHECK(spoke_msg_size(m) == size && memcmp(spoke_msg_body(m), &i, sizeof i) == 0);
        spoke_msg_free(m);
    }
    CHILD_CHECK(spoke_socket_close(req) == 0);
    CHILD_CHECK(spoke_socket_close(rep) == 0);
    CHILD_CHECK(e == NULL || spoke_engine_close(e) == 0);
}

/* Everything that a restricted child does: `ctx` is three addresses. */
static int
work_everywhere(void *ctx)
{
    char(*urls)[ENDPOINT_MAX] = ctx;

    for (int transport = INPROC; transport <= TCP; transport++) {
        work(true, urls[transport], 200);
        work(false, urls[transport], 200);
    }
    return 0;
}

static char urls[3][ENDPOINT_MAX];

static void
make_urls(void)
{
    for (int transport = INPROC; transport <= TCP; transport++)
        endpoint_fresh(urls[transport], (enum transport)transport);
}

TestSuite(machine, .init = make_urls);

static int
on_one_cpu(void *ctx)
{
    cpu_set_t cpus, one;

    CHILD_CHECK(sched_getaffinity(0, sizeof cpus, &cpus) == 0);
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &cpus)) {
            CPU_SET(cpu, &one);
            break;
        }
    }
    CHILD_CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    return work_everywhere(ctx);
}

Test(machine, one_cpu_is_enough)
{
    cr_assert_eq(child_run(on_one_cpu, urls, 40), 0);
}

/* … also for two processes that both would rather spin. */
static int
serve_on_one_cpu(void *ctx)
{
    spoke_socket *rep;
    spoke_engine *e;
    spoke_msg *m;

    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&rep, SPOKE_REP, e) == 0);
    CHILD_CHECK(spoke_listen(rep, ctx, NULL, 0) == 0);
    for (int i = 0; i < 500; i++) {
        CHILD_CHECK(spoke_recv(rep, &m, 0) == 0);
        CHILD_CHECK(spoke_send(rep, m, 0) == 0);
    }
    CHILD_CHECK(spoke_recv(rep, &m, 0) == 0);
    return 0;
}

static long
cpu_ms(const struct rusage *usage)
{
    return (usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1000 +
           (usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1000;
}

static int
two_on_one_cpu(void *ctx)
{
    char(*places)[ENDPOINT_MAX] = ctx;
    cpu_set_t one;
    spoke_engine *e;
    spoke_socket *req;
    spoke_msg *m;
    struct rusage server_usage;
    int status;

    CPU_ZERO(&one);
    CPU_SET((unsigned)sched_getcpu(), &one);
    CHILD_CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    pid_t server = fork();
    CHILD_CHECK(server >= 0);
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(serve_on_one_cpu(places[IPC]));
    }
    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&req, SPOKE_REQ, e) == 0);
    CHILD_CHECK(spoke_socket_set_duration(req, SPOKE_OPT_RECONNECT, SPOKE_MS) == 0);
    CHILD_CHECK(spoke_dial(req, places[IPC], NULL, 0) == 0);
    for (int i = 0; i < 500; i++) {
        CHILD_CHECK(spoke_send_bytes(req, &i, sizeof i, 0) == 0);
        CHILD_CHECK(spoke_recv(req, &m, 0) == 0);
        spoke_msg_free(m);
    }
    CHILD_CHECK(spoke_send_bytes(req, "bye", 3, 0) == 0);
    while (wait4(server, &status, WNOHANG, &server_usage) == 0)
        CHILD_CHECK(spoke_engine_poll(e, SPOKE_MS) >= 0);
    CHILD_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    /* Whoever spins a time slice long for what the other cannot do meanwhile takes some seconds. */
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    CHILD_CHECK(cpu_ms(&usage) + cpu_ms(&server_usage) < 1000 * SPOKE_TEST_SLOWDOWN);
    return 0;
}

Test(machine, two_processes_share_one_cpu_without_starving)
{
    cr_assert_eq(child_run(two_on_one_cpu, urls, 40), 0);
}

static int
without_locked_memory(void *ctx)
{
    const struct rlimit none = {0, 0};

    CHILD_CHECK(unsetenv("SPOKE_BACKEND") == 0); /* who insists on uring gets SPOKE_ENOMEM */
    CHILD_CHECK(setrlimit(RLIMIT_MEMLOCK, &none) == 0);
    if (geteuid() == 0) { /* whom limits do not concern */
        CHILD_CHECK(setgid(65534) == 0);
        CHILD_CHECK(setuid(65534) == 0);
        child_is_confined();
    }
    return work_everywhere(ctx);
}

Test(machine, locked_memory_is_not_needed)
{
    cr_assert_eq(chmod(scratch_dir(), 0777), 0);
    cr_assert_eq(child_run(without_locked_memory, urls, 40), 0);
}

/* ---- io_uring denied ---- */

/* Let these system calls of this process fail with `error`. */
static void
deny_uring(unsigned error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_register, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};

    CHILD_CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHILD_CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static atomic_int sentences;
static char last_sentence[512];

static void
note_sentence(void *ctx, enum spoke_log_level level, const char *text)
{
    (void)ctx;
    if (level <= SPOKE_LOG_WARNING && strstr(text, "io_uring") != NULL) {
        strncpy(last_sentence, text, sizeof last_sentence - 1);
        atomic_fetch_add(&sentences, 1);
    }
}

struct denial {
    unsigned error;
    int asked; /* what an explicit wish for "uring" gives */
};

static int
without_uring(void *ctx)
{
    const struct denial *denial = ctx;
    spoke_engine_config config;
    struct spoke_engine_info info;
    spoke_engine *e;

    CHILD_CHECK(unsetenv("SPOKE_BACKEND") == 0);
    deny_uring(denial->error);
    spoke_set_log(note_sentence, NULL, SPOKE_LOG_WARNING);
    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(strcmp(spoke_engine_backend(e), "poll") == 0);
    CHILD_CHECK(spoke_engine_get_info(e, &info) == 0);
    CHILD_CHECK(info.why_not_uring != NULL && info.why_not_uring[0] != '\0');
    CHILD_CHECK(spoke_engine_close(e) == 0);
    CHILD_CHECK(atomic_load(&sentences) == 1);

    spoke_engine_config_init(&config);
    config.backend = "uring";
    CHILD_CHECK(spoke_engine_open(&e, &config) == denial->asked);
    CHILD_CHECK(e == NULL);
    CHILD_CHECK(work_everywhere(urls) == 0);
    CHILD_CHECK(atomic_load(&sentences) == 1); /* it is said once */
    return 0;
}

Test(machine, without_io_uring_everything_works_on_poll_and_says_so_once)
{
    struct denial denials[] = {
        {EPERM, SPOKE_EPERM}, {ENOSYS, SPOKE_ENOTSUP}, {EACCES, SPOKE_EPERM}};

    for (int i = 0; i < 3; i++)
        cr_assert_eq(child_run(without_uring, &denials[i], 40), 0, "denied with %u",
                     denials[i].error);
}

/* ---- no thread of the kernel's ---- */

static int
count_threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int count = 0;

    cr_assert_not_null(tasks);
    while (readdir(tasks) != NULL)
        count++;
    closedir(tasks);
    return count;
}

/* A listener that never accepts and whose backlog is full at once. */
static int
listen_in_vain(int family, char url[ENDPOINT_MAX])
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    socklen_t size = sizeof in;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_geq(fd, 0);
    if (family == AF_INET) {
        cr_assert_eq(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
        cr_assert_eq(getsockname(fd, (struct sockaddr *)&in, &size), 0);
        snprintf(url, ENDPOINT_MAX, "tcp://127.0.0.1:%d", ntohs(in.sin_port));
    } else {
        endpoint_fresh(url, IPC);
        snprintf(un.sun_path, sizeof un.sun_path, "%s", endpoint_path(url));
        cr_assert_eq(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    }
    cr_assert_eq(listen(fd, 0), 0);
    return fd;
}

/* Goal: whatever has to wait, no worker thread of io_uring is started for it: connects that find a
 * full backlog, handshakes that nobody answers, sends that nobody reads, accepts without a peer. */
Test(machine, what_waits_breeds_no_thread)
{
    enum { DIALERS = 20 };
    static char body[100000];
    spoke_socket *sockets[2 * DIALERS], *full;
    char vain[2][ENDPOINT_MAX], own[ENDPOINT_MAX];
    struct raw_peer silent;
    spoke_engine *e;
    int fds[2], threads;

    scratch_dir();
    threads = count_threads();
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    fds[0] = listen_in_vain(AF_INET, vain[0]);
    fds[1] = listen_in_vain(AF_UNIX, vain[1]);
    for (int i = 0; i < 2 * DIALERS; i++) {
        cr_assert_eq(spoke_socket_open(&sockets[i], SPOKE_PAIR, e), 0);
        cr_assert_eq(spoke_socket_set_duration(sockets[i], SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
        cr_assert_eq(spoke_dial(sockets[i], vain[i % 2], NULL, 0), 0);
    }
    endpoint_fresh(own, IPC);
    cr_assert_eq(spoke_socket_open(&full, SPOKE_PAIR, e), 0);
    cr_assert_eq(spoke_socket_set_int(full, SPOKE_OPT_SEND_QUEUE, 2), 0);
    cr_assert_eq(spoke_listen(full, own, NULL, 0), 0);
    cr_assert_eq(raw_connect(&silent, own, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&silent, "\0SP\0\0\x10\0\0", 8, RAW_LIMIT_MS), RAW_OK);
    for (int round = 0; round < 60; round++) {
        cr_assert_geq(spoke_engine_poll(e, 5 * SPOKE_MS), 0);
        (void)spoke_send_bytes(full, body, sizeof body, SPOKE_DONTWAIT);
        cr_assert_eq(count_threads(), threads, "round %d", round);
    }
    cr_assert_eq(spoke_send_bytes(full, body, sizeof body, SPOKE_DONTWAIT), SPOKE_EAGAIN,
                 "there is a send that waits");
    raw_close(&silent);
    cr_assert_eq(spoke_engine_close(e), 0);
    cr_assert_eq(count_threads(), threads);
    close(fds[0]);
    close(fds[1]);
}
