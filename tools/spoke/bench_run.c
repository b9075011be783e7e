/* SPDX-License-Identifier: MIT */
/* Each child has two pipes to us, for its results and its complaints, and dies with us
 * (PR_SET_PDEATHSIG).  All waits have one deadline; a signal cuts them short.  Children are ended
 * by their process id and always reaped. */
#include "bench_run.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"

enum { READY_LIMIT_S = 10, OUTPUT_MAX = 4096 };

/* A child's output, always a string.  Of stderr only the end is kept. */
struct output {
    int fd; /* -1 after its end */
    size_t len;
    char text[OUTPUT_MAX];
};

struct child {
    pid_t pid; /* 0: not running */
    int status;
    const char *argv[BENCH_ARGS_MAX];
    const char *const *env; /* or NULL */
    struct output out;
    struct output err;
};

static volatile sig_atomic_t caught;

static void
on_signal(int signal)
{
    caught = signal;
}

int
bench_runner_signal(void)
{
    return caught;
}

static int64_t
now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool
bench_transport_has_tls(const char *transport)
{
    return strcmp(transport, "tls+tcp") == 0 || strcmp(transport, "wss") == 0;
}

bool
bench_transport_is_edge(const char *transport)
{
    return bench_transport_has_tls(transport) || strcmp(transport, "ws") == 0;
}

/* ---- the runner ---- */

bool
bench_runner_has(const struct bench_runner *r, const char *program)
{
    char path[sizeof r->program_dir + 64];

    snprintf(path, sizeof path, "%s/%s", r->program_dir, program);
    return access(path, X_OK) == 0;
}

static bool
try_dir(struct bench_runner *r, const char *base, const char *relative)
{
    int n = snprintf(r->program_dir, sizeof r->program_dir, "%s%s", base, relative);

    return n > 0 && (size_t)n < sizeof r->program_dir && bench_runner_has(r, "bench-spoke");
}

/* The library that stands in for libnanomsg, as in the build tree or where it was installed. */
static void
find_stand_in(struct bench_runner *r)
{
    static const char *const from_programs[] = {"../../lib", SPOKE_LIB_FROM_LIBEXEC};

    for (size_t i = 0; i < sizeof from_programs / sizeof *from_programs; i++) {
        char path[sizeof r->stand_in_dir + 32];
        snprintf(r->stand_in_dir, sizeof r->stand_in_dir, "%s/%s/spoke/nanomsg", r->program_dir,
                 from_programs[i]);
        snprintf(path, sizeof path, "%s/libnanomsg.so.5", r->stand_in_dir);
        if (access(path, R_OK) == 0)
            return;
    }
    r->stand_in_dir[0] = '\0';
}

/* Beside the running program, as in the build tree or where it was installed; or where it should be
 * installed. */
static int
find_programs(struct bench_runner *r)
{
    static const char *const beside[] = {"../libexec/spoke", SPOKE_LIBEXEC_FROM_BIN};
    const char *env = getenv("SPOKE_BENCH_DIR");
    char self[2048], *slash;

    if (env != NULL && try_dir(r, env, ""))
        return 0;
    if (tool_own_path(self, sizeof self) && (slash = strrchr(self, '/')) != NULL) {
        slash[1] = '\0';
        for (size_t i = 0; i < sizeof beside / sizeof *beside; i++)
            if (try_dir(r, self, beside[i]))
                return 0;
    }
    if (try_dir(r, SPOKE_LIBEXECDIR, ""))
        return 0;
    tool_error(
        "the benchmark programs are not installed: build with -DSPOKE_BUILD_BENCH=ON, or set "
        "SPOKE_BENCH_DIR to the directory of bench-spoke");
    return -1;
}

static void
catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    action.sa_handler = SIG_IGN; /* A closed stdout is an error of printf, not our end: there are
                                    files to remove. */
    sigaction(SIGPIPE, &action, NULL);
}

int
bench_runner_init(struct bench_runner *r)
{
    memset(r, 0, sizeof *r);
    if (find_programs(r) != 0)
        return -1;
    find_stand_in(r);
    catch_signals();
    /* Not below $TMPDIR: the path of a socket file must stay below 108 bytes. */
    strcpy(r->socket_dir, "/tmp/spoke-bench-XXXXXX");
    if (mkdtemp(r->socket_dir) == NULL) {
        tool_error("cannot make a directory in /tmp: %s", strerror(errno));
        r->socket_dir[0] = '\0';
        return -1;
    }
    return 0;
}

void
bench_runner_fini(struct bench_runner *r)
{
    if (r->identity[0] != '\0')
        unlink(r->identity);
    if (r->socket_dir[0] != '\0' && rmdir(r->socket_dir) != 0)
        tool_error("cannot remove %s: %s", r->socket_dir, strerror(errno));
    r->socket_dir[0] = '\0';
}

/* ---- one child ---- */

static _Noreturn void
become(const struct child *c, int out, int err, pid_t parent)
{
    struct sigaction action = {.sa_handler = SIG_DFL};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(125); /* The parent went away before the line above. */
    /* A keyboard interrupt goes to the whole terminal; the parent ends its children itself. */
    setpgid(0, 0);
    sigaction(SIGPIPE, &action, NULL);
    if (dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        _exit(126);
    for (int i = 0; c->env != NULL && c->env[i] != NULL; i++)
        putenv((char *)(uintptr_t)c->env[i]);
    execv(c->argv[0], (char *const *)(uintptr_t)c->argv);
    _exit(127);
}

static int
start(struct child *c)
{
    int out[2] = {-1, -1}, err[2] = {-1, -1};
    pid_t parent = getpid();

    c->out.fd = c->err.fd = -1;
    if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 || (c->pid = fork()) < 0) {
        tool_error("cannot start %s: %s", c->argv[0], strerror(errno));
        c->pid = 0;
        for (int i = 0; i < 2; i++) {
            if (out[i] >= 0)
                close(out[i]);
            if (err[i] >= 0)
                close(err[i]);
        }
        return -1;
    }
    if (c->pid == 0)
        become(c, out[1], err[1], parent);
    close(out[1]);
    close(err[1]);
    c->out.fd = out[0];
    c->err.fd = err[0];
    return 0;
}

/* Read what is there; closes at the end of file. */
static void
drain(struct output *o)
{
    ssize_t n;

    if (o->len == sizeof o->text - 1) { /* Keep the second half. */
        o->len = sizeof o->text / 2;
        memmove(o->text, o->text + sizeof o->text - 1 - o->len, o->len);
    }
    n = read(o->fd, o->text + o->len, sizeof o->text - 1 - o->len);
    if (n > 0)
        o->len += (size_t)n;
    o->text[o->len] = '\0';
    if (n == 0 || (n < 0 && errno != EINTR)) {
        close(o->fd);
        o->fd = -1;
    }
}

/* Wait for output of any child.  False when the time is up or a signal came. */
static bool
wait_output(struct child *children, int count, int64_t deadline_ms)
{
    struct pollfd p[4];
    struct output *of[4];
    int64_t left = deadline_ms - now_ms();
    nfds_t n = 0;

    for (int i = 0; i < count; i++) {
        struct output *both[2] = {&children[i].out, &children[i].err};
        for (int j = 0; j < 2; j++) {
            if (both[j]->fd < 0 || children[i].pid == 0)
                continue;
            of[n] = both[j];
            p[n++] = (struct pollfd){.fd = both[j]->fd, .events = POLLIN};
        }
    }
    if (left <= 0 || caught != 0)
        return false;
    /* In slices: a signal that comes just before poll() must not wait for the deadline. */
    if (poll(p, n, left < 200 ? (int)left : 200) < 0 && errno != EINTR)
        return false;
    for (nfds_t i = 0; i < n; i++)
        if (p[i].revents != 0)
            drain(of[i]);
    return caught == 0;
}

static bool
is_silent(const struct child *c)
{
    return c->pid == 0 || (c->out.fd < 0 && c->err.fd < 0);
}

/* End a child if it still runs, and reap it. */
static void
stop(struct child *c)
{
    if (c->pid != 0) {
        /* Its group, in case it has children; itself, in case it has not come to making the group.
         */
        kill(-c->pid, SIGKILL);
        kill(c->pid, SIGKILL);
        while (waitpid(c->pid, &c->status, 0) < 0 && errno == EINTR)
            continue;
        c->pid = 0;
    }
    if (c->out.fd >= 0)
        close(c->out.fd);
    if (c->err.fd >= 0)
        close(c->err.fd);
    c->out.fd = c->err.fd = -1;
}

/* Reap a child that has closed its output and so is about to end.  False if it does not. */
static bool
reap(struct child *c, int64_t deadline_ms)
{
    static const struct timespec nap = {.tv_nsec = 200000};

    for (;;) {
        pid_t pid = waitpid(c->pid, &c->status, WNOHANG);
        if (pid == c->pid) {
            c->pid = 0;
            return true;
        }
        if (now_ms() > deadline_ms || caught != 0)
            return false;
        nanosleep(&nap, NULL);
    }
}

/* ---- a pair ---- */

static void
describe_end(const struct child *c)
{
    if (c->pid != 0)
        fputs("did not end in time", stderr);
    else if (WIFSIGNALED(c->status))
        fprintf(stderr, "was killed by signal %d", WTERMSIG(c->status));
    else if (WEXITSTATUS(c->status) == 127)
        fputs("cannot be run", stderr);
    else
        fprintf(stderr, "ended with status %d", WEXITSTATUS(c->status));
}

static bool
has_failed(const struct child *c)
{
    return c->pid != 0 || !WIFEXITED(c->status) || WEXITSTATUS(c->status) != 0;
}

/* Say which command failed, with the last lines of what it said. */
static void
complain(const struct child *c)
{
    const char *tail = c->err.text;

    while (strlen(tail) > 1000)
        tail++;
    fputs("\nspoke bench: this run failed: it ", stderr);
    describe_end(c);
    fputs("\n  command:", stderr);
    for (int i = 0; c->argv[i] != NULL; i++)
        fprintf(stderr, " %s", c->argv[i]);
    fprintf(stderr, "\n  its last words: %s\n", *tail != '\0' ? tail : "(none)");
}

/* Copy line `index` of those that begin with '{'.  False if there is none. */
static bool
copy_line(char line[BENCH_LINE_MAX], const char *text, int index)
{
    for (const char *p = text; p != NULL && *p != '\0'; p = strchr(p, '\n')) {
        size_t len;
        p += *p == '\n';
        len = strcspn(p, "\n");
        if (*p != '{' || index-- > 0)
            continue;
        if (len >= BENCH_LINE_MAX)
            return false;
        memcpy(line, p, len);
        line[len] = '\0';
        return true;
    }
    return false;
}

static void
set_arguments(struct child *c, const char *path, const char *role, const char *transport,
              const char *address, const char *identity, const char *const *args)
{
    int n = 0;

    c->argv[n++] = path;
    c->argv[n++] = "--role";
    c->argv[n++] = role;
    c->argv[n++] = "--transport";
    c->argv[n++] = transport;
    c->argv[n++] = "--address";
    c->argv[n++] = address;
    if (bench_transport_has_tls(transport)) {
        c->argv[n++] = "--identity";
        c->argv[n++] = identity;
    }
    for (int i = 0; args[i] != NULL && n < BENCH_ARGS_MAX - 1; i++)
        c->argv[n++] = args[i];
    c->argv[n] = NULL;
}

/* Wait until the server has said where it listens. */
static bool
wait_ready(struct child *server, char *address, size_t size, int64_t deadline_ms)
{
    const char *ready, *end;

    for (;;) {
        ready = strstr(server->out.text, "READY ");
        end = ready != NULL ? strchr(ready, '\n') : NULL;
        if (end != NULL && (size_t)(end - ready) - 6 < size) {
            memcpy(address, ready + 6, (size_t)(end - ready) - 6);
            address[end - ready - 6] = '\0';
            return true;
        }
        if (is_silent(server)) {
            reap(server, deadline_ms);
            return false;
        }
        if (!wait_output(server, 1, deadline_ms))
            return false;
    }
}

/* Take all output until both are silent, then reap them.  False if something went wrong. */
static bool
finish(struct child *children, int count, int64_t deadline_ms)
{
    bool ok = true;

    while (!is_silent(&children[0]) || (count > 1 && !is_silent(&children[1]))) {
        if (!wait_output(children, count, deadline_ms))
            return false;
        /* When one side has failed, the other would wait in vain. */
        for (int i = 0; i < count; i++)
            if (children[i].pid != 0 && is_silent(&children[i]))
                ok &= reap(&children[i], deadline_ms) && !has_failed(&children[i]);
        if (!ok)
            return false;
    }
    for (int i = 0; i < count; i++)
        if (children[i].pid != 0)
            ok &= reap(&children[i], deadline_ms);
    return ok && !has_failed(&children[0]) && (count == 1 || !has_failed(&children[1]));
}

/* Whether addresses of `transport` are paths. */
static bool
has_socket_file(const char *transport)
{
    return strcmp(transport, "ipc") == 0 || strcmp(transport, "shm") == 0;
}

static void
choose_address(struct bench_runner *r, const char *transport, char *address, size_t size)
{
    if (has_socket_file(transport))
        snprintf(address, size, "%s://%s/%u", transport, r->socket_dir, r->next_socket++);
    else if (strcmp(transport, "inproc") == 0)
        snprintf(address, size, "inproc://bench");
    else
        snprintf(address, size, "%s://127.0.0.1:0", transport);
}

/* Make the key and certificate that all servers have, in a file that goes with the directory. */
static int
make_identity(struct bench_runner *r)
{
    struct child child = {0};
    char path[sizeof r->program_dir + 64];
    int rc = -1;

    if (r->identity[0] != '\0')
        return 0;
    snprintf(path, sizeof path, "%s/bench-identity", r->program_dir);
    snprintf(r->identity, sizeof r->identity, "%s/identity.pem", r->socket_dir);
    child.argv[0] = path;
    child.argv[1] = r->identity;
    if (start(&child) != 0)
        return -1;
    if (finish(&child, 1, now_ms() + READY_LIMIT_S * 1000))
        rc = 0;
    else if (caught == 0)
        complain(&child);
    stop(&child);
    if (rc != 0)
        r->identity[0] = '\0';
    return rc;
}

int
bench_runner_run(struct bench_runner *r, const char *program, const char *transport,
                 const char *const *args, const char *const *env, unsigned limit_s,
                 struct bench_lines *lines)
{
    static struct child children[2];
    char path[sizeof r->program_dir + 64], address[160], dial[160];
    bool is_both = strcmp(transport, "inproc") == 0, ok = false;
    int count = is_both ? 1 : 2, rc = -1;
    int64_t deadline;

    if (bench_transport_has_tls(transport) && make_identity(r) != 0)
        return -1;
    deadline = now_ms() + (int64_t)limit_s * 1000;
    memset(children, 0, sizeof children);
    children[0].env = children[1].env = env;
    children[0].out.fd = children[0].err.fd = children[1].out.fd = children[1].err.fd = -1;
    snprintf(path, sizeof path, "%s/%s", r->program_dir, program);
    choose_address(r, transport, address, sizeof address);
    set_arguments(&children[0], path, is_both ? "both" : "server", transport, address, r->identity,
                  args);
    if (start(&children[0]) != 0)
        goto stop_children;
    if (!is_both) {
        if (!wait_ready(&children[0], dial, sizeof dial, now_ms() + READY_LIMIT_S * 1000))
            goto report;
        set_arguments(&children[1], path, "client", transport, dial, r->identity, args);
        if (start(&children[1]) != 0)
            goto stop_children;
    }
    ok = finish(children, count, deadline) && copy_line(lines->server, children[0].out.text, 0) &&
         copy_line(lines->client, children[count - 1].out.text, is_both ? 1 : 0);
    rc = ok ? 0 : -1;
report:
    if (!ok && caught == 0)
        complain(children[1].argv[0] != NULL && has_failed(&children[1]) && children[1].err.len > 0
                     ? &children[1]
                     : &children[0]);
stop_children:
    stop(&children[0]);
    stop(&children[1]);
    if (has_socket_file(transport))
        unlink(address + strlen("ipc://")); /* "shm://" is as long */
    return rc;
}

double
bench_line_number(const char *line, const char *key)
{
    char quoted[64];
    const char *p;

    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    p = strstr(line, quoted);
    return p != NULL ? strtod(p + strlen(quoted), NULL) : NAN;
}
