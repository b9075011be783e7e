/* SPDX-License-Identifier: MIT */
/* Adapter for iceoryx: a publisher and a subscriber on each side, messages loaned, written in place
 * and read in place; a queue that is full holds up its publisher, so that nothing is lost.  To wait
 * it sleeps in a wait set, or asks again and again.
 *
 * iceoryx needs a daemon, of which a machine has one: iox-roudi.  The server has it started, with
 * memory for messages of the size that is measured, by a process that lives as long as the server
 * whatever ends that: it then ends the daemon, which takes away the names that it has made, and
 * removes what the two sides may have left. */
#include <errno.h>
#include <fcntl.h>
#include <iceoryx_binding_c/publisher.h>
#include <iceoryx_binding_c/runtime.h>
#include <iceoryx_binding_c/subscriber.h>
#include <iceoryx_binding_c/wait_set.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../common/fan.h"
#include "../common/program.h"

enum {
    QUEUE_MAX = 256, /* the most that iceoryx has */
    QUEUE_MIN = 4,
    QUEUE_BYTES = 16 << 20, /* /dev/shm may be small */
    CHUNK_EXTRA = 256,      /* for iceoryx's header */
    CHUNK_STEP = 32,
    START_MS = 8000, /* until the daemon is ready */
    END_MS = 5000,   /* until it has ended */
    CLIENT_MS = 3000,
    WORDS_MAX = 2048,
    SIDE_NAME_MAX = 100,
};

struct iceoryx_link {
    struct bench_link link; /* first */
    iox_pub_storage_t pub_storage;
    iox_sub_storage_t sub_storage;
    iox_ws_storage_t ws_storage;
    iox_pub_t pub;
    iox_sub_t sub;
    iox_ws_t ws;
};

static pid_t keeper; /* of the daemon */
static int life;     /* the keeper reads its end of file when we end */

static const struct timespec nap = {.tv_nsec = 1000000}; /* 1 ms */

static int
complain(const char *what)
{
    fprintf(stderr, "bench: iceoryx: %s\n", what);
    return -1;
}

static uint64_t
queue_length(const struct bench_link *l)
{
    uint64_t length = QUEUE_BYTES / l->size;

    length = length > QUEUE_MAX ? QUEUE_MAX : length;
    return length < QUEUE_MIN ? QUEUE_MIN : length;
}

/* Under which iceoryx knows a side, and keeps files in /tmp while it lives. */
static void
name_side(char name[SIDE_NAME_MAX], const char *address, enum bench_role side)
{
    size_t n = 0;

    for (const char *p = address; *p != '\0' && n < SIDE_NAME_MAX - 10; p++)
        name[n++] = strchr("/:", *p) != NULL ? '-' : *p;
    strcpy(name + n, side == BENCH_SERVER ? "-server" : "-client");
}

/* ---- the daemon ---- */

/* Its configuration, as a file without a name that it inherits. */
static int
write_config(const struct bench_link *l)
{
    size_t chunk = (l->size + CHUNK_EXTRA + CHUNK_STEP - 1) / CHUNK_STEP * CHUNK_STEP;
    int fd = memfd_create("roudi", 0);

    if (fd < 0 || dprintf(fd,
                          "[general]\nversion = 1\n[[segment]]\n[[segment.mempool]]\n"
                          "size = %zu\ncount = %zu\n",
                          chunk, (size_t)2 * queue_length(l) + 16) < 0)
        return complain("cannot write the daemon's configuration");
    return fd;
}

static _Noreturn void
become_daemon(int config, int output, pid_t parent)
{
    char path[64];

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(125);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    snprintf(path, sizeof path, "/proc/self/fd/%d", config);
    execlp("iox-roudi", "iox-roudi", "-m", "off", "-k", "1", "-c", path, (char *)NULL);
    dprintf(STDERR_FILENO, "cannot be run: %s", strerror(errno));
    _exit(127);
}

/* What the daemon says, kept until it is ready: if it never is, that is why. */
struct words {
    int fd;
    size_t len;
    char text[WORDS_MAX];
};

/* False at the end of file. */
static bool
read_words(struct words *w)
{
    ssize_t n;

    if (w->len == sizeof w->text - 1)
        w->len = 0;
    n = read(w->fd, w->text + w->len, sizeof w->text - 1 - w->len);
    if (n > 0)
        w->len += (size_t)n;
    w->text[w->len] = '\0';
    return n > 0 || (n < 0 && errno == EINTR);
}

static bool
await_daemon(struct words *w, uint64_t until)
{
    struct pollfd p = {.fd = w->fd, .events = POLLIN};

    while (bench_now_ns() < until) {
        if (poll(&p, 1, 100) > 0 && !read_words(w))
            return false;
        if (strstr(w->text, "ready for clients") != NULL)
            return true;
    }
    return false;
}

static void
end_daemon(pid_t daemon)
{
    kill(daemon, SIGTERM);
    for (int i = 0; i < END_MS; i++) {
        if (waitpid(daemon, NULL, WNOHANG) != 0)
            return;
        nanosleep(&nap, NULL);
    }
    kill(daemon, SIGKILL);
    waitpid(daemon, NULL, 0);
}

static void
remove_files(const char *address, enum bench_role side)
{
    char name[SIDE_NAME_MAX], path[SIDE_NAME_MAX + 16];

    name_side(name, address, side);
    snprintf(path, sizeof path, "/tmp/%s", name);
    unlink(path);
    snprintf(path, sizeof path, "/tmp/%s.lock", name);
    unlink(path);
}

/* Start a daemon.  Its pid when it is ready; 0 if it is not, or there already is one. */
static pid_t
try_daemon(struct words *w, int config, uint64_t until)
{
    pid_t self = getpid(), daemon;
    int output[2];

    w->len = 0;
    if (pipe2(output, O_CLOEXEC) != 0)
        return 0;
    if ((daemon = fork()) == 0)
        become_daemon(config, output[1], self);
    close(output[1]);
    w->fd = output[0];
    if (daemon > 0 && await_daemon(w, until))
        return daemon;
    if (daemon > 0)
        end_daemon(daemon);
    close(w->fd);
    return 0;
}

/* Take what the daemon says, until the end of file of `end`. */
static void
await_end(struct words *w, int end)
{
    struct pollfd p[2] = {{.fd = end, .events = POLLIN}, {.fd = w->fd, .events = POLLIN}};

    while (p[0].revents == 0)
        if (poll(p, 2, -1) > 0 && p[1].revents != 0 && !read_words(w))
            p[1].fd = -1;
}

/* Keep a daemon until the end of file of `end`; say on `ready` that there is none, or close it.
 * Another run's may be about to end. */
static _Noreturn void
keep_daemon(const char *address, int config, int end, int ready)
{
    uint64_t until = bench_now_ns() + (uint64_t)START_MS * 1000000;
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct words w = {.fd = -1};
    pid_t daemon;

    /* Not in the group of the server, which may be killed as one; nor may it look as if the server
     * still wrote. */
    setpgid(0, 0);
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        dup2(nothing, fd);
    while ((daemon = try_daemon(&w, config, until)) == 0 && bench_now_ns() < until)
        nanosleep(&nap, NULL);
    if (daemon == 0) {
        dprintf(ready, "iox-roudi did not get ready: %s", w.text);
        _exit(1);
    }
    close(ready);
    await_end(&w, end);
    end_daemon(daemon);
    remove_files(address, BENCH_SERVER);
    remove_files(address, BENCH_CLIENT);
    _exit(0);
}

static void
stop_daemon(void)
{
    close(life);
    while (waitpid(keeper, NULL, 0) < 0 && errno == EINTR)
        continue;
}

static int
start_daemon(const struct bench_link *l)
{
    int ends[2], ready[2], config = write_config(l);
    char words[WORDS_MAX + 64];
    size_t len = 0;
    ssize_t n;

    if (config < 0)
        return -1;
    if (pipe2(ends, O_CLOEXEC) != 0 || pipe2(ready, O_CLOEXEC) != 0 || (keeper = fork()) < 0)
        return complain("cannot start iox-roudi");
    if (keeper == 0) {
        close(ends[1]);
        close(ready[0]);
        keep_daemon(l->options->address, config, ends[0], ready[1]);
    }
    life = ends[1];
    /* After the library's own end, which comes with that of the process: the daemon kills whom it
     * still knows. */
    atexit(stop_daemon);
    close(ends[0]);
    close(ready[1]);
    close(config);
    while ((n = read(ready[0], words + len, sizeof words - 1 - len)) > 0)
        len += (size_t)n;
    words[len] = '\0';
    close(ready[0]);
    return len == 0 ? 0 : complain(words);
}

/* ---- a link ---- */

static void
open_ends(struct iceoryx_link *x)
{
    const struct bench_link *l = &x->link;
    const char *address = l->options->address;
    bool is_server = l->side == BENCH_SERVER;
    iox_pub_options_t pub;
    iox_sub_options_t sub;
    char name[SIDE_NAME_MAX];

    name_side(name, address, l->side);
    iox_runtime_init(name);
    iox_pub_options_init(&pub);
    pub.historyCapacity = 0;
    pub.subscriberTooSlowPolicy = ConsumerTooSlowPolicy_WAIT_FOR_CONSUMER;
    iox_sub_options_init(&sub);
    sub.queueCapacity = queue_length(l);
    sub.historyRequest = 0;
    sub.queueFullPolicy = QueueFullPolicy_BLOCK_PRODUCER;
    x->pub = iox_pub_init(&x->pub_storage, "bench", address, is_server ? "back" : "there", &pub);
    x->sub = iox_sub_init(&x->sub_storage, "bench", address, is_server ? "there" : "back", &sub);
    x->ws = iox_ws_init(&x->ws_storage);
}

/* Until both directions are connected: what is published before is lost. */
static int
await_server(const struct iceoryx_link *x)
{
    for (int i = 0; i < START_MS; i++) {
        if (iox_pub_has_subscribers(x->pub) &&
            iox_sub_get_subscription_state(x->sub) == SubscribeState_SUBSCRIBED)
            return 0;
        nanosleep(&nap, NULL);
    }
    return complain("the server cannot be found");
}

static int
iceoryx_open(struct bench_link *l)
{
    struct iceoryx_link *x = (struct iceoryx_link *)l;

    if (bench_is_fan(l->options))
        return complain("only does round trips and streams");
    if (l->side == BENCH_SERVER && start_daemon(l) != 0)
        return -1;
    open_ends(x);
    if (iox_ws_attach_subscriber_state(x->ws, x->sub, SubscriberState_HAS_DATA, 1, NULL) !=
        WaitSetResult_SUCCESS)
        return complain("iox_ws_attach_subscriber_state failed");
    if (l->side == BENCH_CLIENT)
        return await_server(x);
    bench_ready(l, l->options->address);
    return 0;
}

/* The server, and so the daemon, outlives the client. */
static void
iceoryx_close(struct bench_link *l)
{
    struct iceoryx_link *x = (struct iceoryx_link *)l;

    for (int i = 0; l->side == BENCH_SERVER && i < CLIENT_MS && iox_pub_has_subscribers(x->pub);
         i++)
        nanosleep(&nap, NULL);
    iox_ws_detach_subscriber_state(x->ws, x->sub, SubscriberState_HAS_DATA);
    iox_ws_deinit(x->ws);
    iox_sub_deinit(x->sub);
    iox_pub_deinit(x->pub);
    bench_settle(l);
    iox_runtime_shutdown();
}

/* Waits while all chunks are on their way. */
static void *
loan(struct iceoryx_link *x)
{
    enum iox_AllocationResult rc;
    unsigned turns = 0;
    void *body;

    while ((rc = iox_pub_loan_chunk(x->pub, &body, (uint32_t)x->link.size)) !=
           AllocationResult_SUCCESS) {
        if (rc != AllocationResult_RUNNING_OUT_OF_CHUNKS) {
            fprintf(stderr, "bench: iceoryx: iox_pub_loan_chunk: error %d\n", (int)rc);
            return NULL;
        }
        bench_spin(&turns);
    }
    return body;
}

static const void *
take(struct iceoryx_link *x)
{
    iox_notification_info_t info;
    enum iox_ChunkReceiveResult rc;
    unsigned turns = 0;
    const void *body;
    uint64_t missed;

    while ((rc = iox_sub_take_chunk(x->sub, &body)) != ChunkReceiveResult_SUCCESS) {
        if (rc != ChunkReceiveResult_NO_CHUNK_AVAILABLE) {
            fprintf(stderr, "bench: iceoryx: iox_sub_take_chunk: error %d\n", (int)rc);
            return NULL;
        }
        if (bench_spins(&x->link))
            bench_spin(&turns);
        else
            iox_ws_wait(x->ws, &info, 1, &missed);
    }
    return body;
}

static int
iceoryx_send(struct bench_link *l, uint64_t first, enum bench_phase phase, unsigned count)
{
    struct iceoryx_link *x = (struct iceoryx_link *)l;

    for (unsigned i = 0; i < count; i++) {
        void *body = loan(x);
        if (body == NULL)
            return -1;
        bench_fill(body, l->pattern, l->size, first + i, phase);
        iox_pub_publish_chunk(x->pub, body);
    }
    return 0;
}

/* A chunk has the size that all have: iceoryx gives none to those who read. */
static int
iceoryx_receive(struct bench_link *l, struct bench_check *c)
{
    struct iceoryx_link *x = (struct iceoryx_link *)l;
    const void *body = take(x);
    int rc;

    if (body == NULL)
        return -1;
    rc = bench_check_message(c, body, l->size);
    iox_sub_release_chunk(x->sub, body);
    return rc;
}

static int
iceoryx_echo(struct bench_link *l, struct bench_check *c)
{
    struct iceoryx_link *x = (struct iceoryx_link *)l;
    const void *from = take(x);
    void *to = from != NULL ? loan(x) : NULL;

    if (to == NULL || bench_check_message(c, from, l->size) != 0)
        return -1;
    memcpy(to, from, l->size);
    iox_sub_release_chunk(x->sub, from);
    iox_pub_publish_chunk(x->pub, to);
    return 0;
}

static const struct bench_adapter iceoryx_adapter = {
    .name = "iceoryx",
    .link_size = sizeof(struct iceoryx_link),
    .open = iceoryx_open,
    .close = iceoryx_close,
    .send = iceoryx_send,
    .receive = iceoryx_receive,
    .echo = iceoryx_echo,
};

int
main(int argc, char **argv)
{
    return bench_program_main(argc, argv, &iceoryx_adapter);
}
