/* SPDX-License-Identifier: MIT */
/* spoke demo: what spoke does, shown by programs that anybody can run again from the shell.
 * This process starts the others, shows what they print and checks it; it opens no socket itself.
 * It ends in bounded time, and leaves no process and no file behind. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "demo_web.h"
#include "stop.h"
#include "tool.h"

#define OUTPUT_MAX 8192
#define STEP_NS    (10 * SPOKE_SECOND)  /* for one exchange of messages */
#define BENCH_NS   (100 * SPOKE_SECOND) /* for the measurements */
#define MERCY_NS   (2 * SPOKE_SECOND)   /* between asking a process to end and ending it */
#define QUESTION   "how are you?"
#define ANSWER     "fine, thanks"

enum { OPT_NO_BENCH = TOOL_FIRST_ID, OPT_WEB, OPT_PORT };

static const struct tool_option options[] = {
    {NULL, 0, NULL, "Options", 0},
    {"no-bench", 0, NULL, "leave out the measurements", OPT_NO_BENCH},
    {"web", 0, NULL, "serve a page with live figures instead, until interrupted", OPT_WEB},
    {"port", 0, "PORT", "its port on 127.0.0.1; else one that is free", OPT_PORT},
    {0},
};

static const struct tool_page page = {
    .usage = "[--no-bench]\n--web [--port PORT]",
    .about = "Show in less than two minutes what spoke does: processes that exchange requests, "
             "also with\n"
             "programs of nanomsg, and what a round trip costs.",
    .options = options,
    .notes = "Needs nothing but this program; nanocat takes part if it is installed.",
};

struct child {
    pid_t pid;     /* 0: none */
    pid_t number;  /* what its pid was */
    int end_fd;    /* a pidfd: readable when it has ended */
    int output_fd; /* its standard output, or -1 */
    char output[OUTPUT_MAX];
    size_t used;
    int status; /* of waitpid(), once it has ended */
};

struct demo {
    char self[4096]; /* our own program */
    char directory[32];
    char path[64]; /* of the socket file of this step */
    char url[80];
    int stop_fd;
    int number; /* of the step */
    struct child replier, requester;
};

/* ---- processes ---- */

/* What the child does between fork() and the program. */
static void
become(const char *program, char **words, int output_fd, pid_t parent)
{
    static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};

    /* Whatever becomes of the demo, this process does not outlive it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
        signal(caught[i], SIG_DFL);
    if (output_fd >= 0)
        dup2(output_fd, STDOUT_FILENO);
    execvp(program, words);
    _exit(127);
}

/* Start a program; its output is collected, or goes where ours goes.  0 or an errno. */
static int
start_child(struct child *c, const char *program, char **words, bool collect)
{
    int ends[2] = {-1, -1}, error;
    pid_t parent = getpid();

    *c = (struct child){.end_fd = -1, .output_fd = -1};
    fflush(stdout);
    if (collect && pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    c->pid = fork();
    error = errno;
    if (c->pid == 0)
        become(program, words, ends[1], parent);
    if (ends[1] >= 0)
        close(ends[1]);
    c->output_fd = ends[0];
    c->number = c->pid;
    if (c->pid < 0) {
        c->pid = 0;
        return error;
    }
    c->end_fd = (int)syscall(SYS_pidfd_open, c->pid, 0);
    return c->end_fd >= 0 ? 0 : errno;
}

/* True if the child has ended; its status is then known. */
static bool
has_ended(struct child *c)
{
    if (c->pid != 0 && waitpid(c->pid, &c->status, WNOHANG) == c->pid)
        c->pid = 0;
    return c->pid == 0;
}

static void
read_output(struct child *c)
{
    ssize_t got = read(c->output_fd, c->output + c->used, sizeof c->output - 1 - c->used);

    if (got > 0) {
        c->used += (size_t)got;
        c->output[c->used] = '\0';
    } else if (got == 0 || errno != EINTR) {
        close(c->output_fd);
        c->output_fd = -1;
    }
}

/* Collect the child's output until it has ended and all is read.  False: it is late, or a signal
 * came. */
static bool
wait_for_child(struct demo *d, struct child *c, spoke_ns deadline)
{
    struct pollfd fds[3];
    int ready;

    while (!has_ended(c) || c->output_fd >= 0) {
        fds[0] = (struct pollfd){.fd = d->stop_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = c->output_fd, .events = POLLIN};
        fds[2] = (struct pollfd){.fd = c->pid != 0 ? c->end_fd : -1, .events = POLLIN};
        ready = poll(fds, 3, tool_poll_ms(deadline));
        if (ready == 0 || stop_signal() != 0)
            return false;
        if (ready > 0 && fds[1].revents != 0)
            read_output(c);
    }
    return true;
}

static void
end_child(struct child *c)
{
    struct pollfd fd = {.fd = c->end_fd, .events = POLLIN};

    if (!has_ended(c)) {
        kill(c->pid, SIGTERM);
        poll(&fd, 1, (int)(MERCY_NS / SPOKE_MS));
    }
    if (!has_ended(c)) {
        kill(c->pid, SIGKILL);
        waitpid(c->pid, &c->status, 0);
    }
    if (c->end_fd >= 0)
        close(c->end_fd);
    if (c->output_fd >= 0)
        close(c->output_fd);
    *c = (struct child){.end_fd = -1, .output_fd = -1};
}

/* Wait until the replier listens. */
static bool
wait_for_file(struct demo *d, spoke_ns deadline)
{
    struct pollfd fd = {.fd = d->stop_fd, .events = POLLIN};
    struct stat file;

    while (stat(d->path, &file) != 0) {
        if (tool_now() > deadline || has_ended(&d->replier) || poll(&fd, 1, 5) != 0)
            return false;
    }
    return true;
}

/* ---- what is shown ---- */

static void
print_command(char **words)
{
    printf("   $");
    for (; *words != NULL; words++)
        printf(strpbrk(*words, " ?") != NULL ? " '%s'" : " %s", *words);
    putchar('\n');
}

static void
print_output(const struct child *c)
{
    for (const char *text = c->output; *text != '\0';) {
        size_t size = strcspn(text, "\n");
        printf("   process %d received %.*s\n", (int)c->number, (int)size, text);
        text += size + (text[size] == '\n');
    }
}

static void
start_step(struct demo *d, const char *text)
{
    d->number++;
    snprintf(d->path, sizeof d->path, "%s/%d", d->directory, d->number);
    snprintf(d->url, sizeof d->url, "ipc://%s", d->path);
    printf("\n%d  %s\n", d->number, text);
}

static bool
pass(const char *text)
{
    printf("   \u2713 %s\n", text);
    return true;
}

static bool
fail(const char *text)
{
    if (stop_signal() == 0)
        printf("   \u2717 %s\n", text);
    return false;
}

/* ---- the steps ---- */

/* Say which program a command line means: ours for "spoke". */
static const char *
program_of(const struct demo *d, char **words)
{
    return strcmp(words[0], "spoke") == 0 ? d->self : words[0];
}

/* True if `text` is `count` lines of `answer` in quotes. */
static bool
is_repeated(const char *text, const char *answer, int count)
{
    size_t size = strlen(answer);

    for (int i = 0; i < count; i++) {
        if (text[0] != '"' || strncmp(text + 1, answer, size) != 0 ||
            strncmp(text + 1 + size, "\"\n", 2) != 0)
            return false;
        text += size + 3;
    }
    return *text == '\0';
}

/* Run a replier, and a requester that is to print `count` answers. */
static bool
exchange(struct demo *d, char **replier, char **requester, int count)
{
    spoke_ns deadline = tool_now() + STEP_NS;
    int error;

    print_command(replier);
    if ((error = start_child(&d->replier, program_of(d, replier), replier, true)) != 0)
        return fail(strerror(error));
    if (!wait_for_file(d, deadline))
        return fail("the replier does not listen");
    print_command(requester);
    if ((error = start_child(&d->requester, program_of(d, requester), requester, true)) != 0)
        return fail(strerror(error));
    if (!wait_for_child(d, &d->requester, deadline))
        return fail("no answer within ten seconds");
    print_output(&d->requester);
    if (d->requester.status != 0)
        return fail("the requester ended with an error");
    if (!is_repeated(d->requester.output, ANSWER, count))
        return fail("that is not what was to be received");
    return true;
}

/* End what exchange() started, and remove the socket file that a foreign replier leaves. */
static void
end_exchange(struct demo *d)
{
    end_child(&d->requester);
    end_child(&d->replier);
    unlink(d->path);
}

static bool
show_two_processes(struct demo *d)
{
    char *replier[] = {"spoke", "cat",      "--rep",   "--bind", d->url, "--data",
                       ANSWER,  "--quoted", "--count", "3",      NULL};
    char *requester[] = {"spoke",  "cat",      "--req",   "--connect", d->url, "--data",
                         QUESTION, "--quoted", "--count", "3",         NULL};

    start_step(d, "Two processes exchange requests over a unix socket.");
    if (!exchange(d, replier, requester, 3))
        return false;
    if (!wait_for_child(d, &d->replier, tool_now() + STEP_NS))
        return fail("the replier did not end after three requests");
    print_output(&d->replier);
    if (!is_repeated(d->replier.output, QUESTION, 3) || d->replier.status != 0)
        return fail("that is not what was to be received");
    if (access(d->path, F_OK) == 0)
        return fail("the replier left its socket file behind");
    return pass("three requests, three replies, both processes ended, nothing left behind");
}

static bool
show_nanomsg_asks(struct demo *d)
{
    char *replier[] = {"spoke", "cat", "--rep", "--bind", d->url, "--data", ANSWER, NULL};
    char *requester[] = {"nanocat", "--req",  "--connect", d->url,
                         "--data",  QUESTION, "--quoted",  NULL};

    start_step(d, "A program of nanomsg asks, spoke answers.");
    return exchange(d, replier, requester, 1) && pass("same protocol, byte for byte");
}

static bool
show_nanomsg_answers(struct demo *d)
{
    char *replier[] = {"nanocat", "--rep", "--bind", d->url, "--data", ANSWER, NULL};
    char *requester[] = {"spoke",  "cat",    "--req",    "--connect", d->url,
                         "--data", QUESTION, "--quoted", NULL};

    start_step(d, "spoke asks, a program of nanomsg answers.");
    return exchange(d, replier, requester, 1) && pass("and the other way round");
}

static bool
is_installed(const char *program)
{
    const char *path = getenv("PATH");
    char file[4096];

    while (path != NULL && *path != '\0') {
        size_t size = strcspn(path, ":");
        snprintf(file, sizeof file, "%.*s/%s", (int)size, path, program);
        if (access(file, X_OK) == 0)
            return true;
        path += size + (path[size] == ':');
    }
    return false;
}

static bool
show_nanomsg(struct demo *d)
{
    bool ok;

    if (!is_installed("nanocat")) {
        start_step(d,
                   "A program of nanomsg asks, spoke answers: left out, nanocat is not installed "
                   "(apt install nanomsg-utils).");
        return true;
    }
    ok = show_nanomsg_asks(d);
    end_exchange(d);
    ok = ok && show_nanomsg_answers(d);
    end_exchange(d);
    return ok;
}

static bool
show_times(struct demo *d)
{
    char *words[] = {"spoke",  "bench", "latency", "--transport", "ipc,shm",
                     "--size", "64",    "--quick", "--peers",     NULL};
    int error;

    start_step(
        d, "Round trips of 64 bytes between two processes, through sockets and shared memory: the "
           "smallest programs, spoke, other libraries.");
    print_command(words);
    if ((error = start_child(&d->requester, d->self, words, false)) != 0)
        return fail(strerror(error));
    if (!wait_for_child(d, &d->requester, tool_now() + BENCH_NS))
        return fail("the measurements did not end in time");
    if (WIFEXITED(d->requester.status) && WEXITSTATUS(d->requester.status) == TOOL_FILE) {
        printf("   left out: this needs the benchmark programs, which make demo builds\n");
        return true;
    }
    return d->requester.status == 0 ? pass("measured") : fail("the measurements failed");
}

static bool
run_steps(struct demo *d, bool with_bench)
{
    bool ok = show_two_processes(d);

    end_exchange(d);
    ok = ok && show_nanomsg(d);
    ok = ok && (!with_bench || show_times(d));
    end_exchange(d);
    return ok;
}

static int
run_demo(bool with_bench)
{
    static struct demo demo = {.replier = {.end_fd = -1, .output_fd = -1},
                               .requester = {.end_fd = -1, .output_fd = -1}};
    bool ok;

    if (!tool_own_path(demo.self, sizeof demo.self)) {
        tool_error("cannot find this program through /proc/self/exe: mount /proc");
        return TOOL_FILE;
    }
    if ((demo.stop_fd = stop_init()) < 0) {
        tool_error("cannot wait for signals: %s", strerror(errno));
        return TOOL_API;
    }
    strcpy(demo.directory, "/tmp/spoke-demo-XXXXXX");
    if (mkdtemp(demo.directory) == NULL) {
        tool_error("cannot make a directory in /tmp: %s", strerror(errno));
        return TOOL_FILE;
    }
    ok = run_steps(&demo, with_bench);
    rmdir(demo.directory);
    close(demo.stop_fd);
    printf(ok ? "\nThat was all; spoke(7) and spoke help go on from here.\n"
              : "\nThe demo ends here.\n");
    return ok ? TOOL_OK : TOOL_API;
}

struct request {
    bool no_bench, web, has_port;
    uint64_t port;
};

static bool
set_option(void *request, int id, const char *value)
{
    struct request *r = request;

    switch (id) {
    case OPT_NO_BENCH: r->no_bench = true; return true;
    case OPT_WEB: r->web = true; return true;
    default: r->has_port = true; return tool_number("port", value, UINT16_MAX, &r->port);
    }
}

int
demo_main(int argc, char **argv)
{
    struct tool_args args = {.argc = argc, .argv = argv, .page = &page};
    struct request r = {.web = false};
    int status;

    if (!tool_obey_options(&args, set_option, &r))
        return args.status;
    if (!tool_no_operands(&args))
        return TOOL_USAGE;
    if (r.web && r.no_bench) {
        tool_error("--no-bench says nothing about --web: leave one of them out");
        return TOOL_USAGE;
    }
    if (r.has_port && !r.web) {
        tool_error("--port is the page's: add --web");
        return TOOL_USAGE;
    }
    if (r.web)
        return demo_web((uint16_t)r.port);
    status = run_demo(!r.no_bench);
    fflush(stdout);
    stop_finish();
    return status;
}
