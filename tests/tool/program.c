/* SPDX-License-Identifier: MIT */
/* Programs run from the outside.  Main thread of a test. */
#include "tests/tool/program.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/test.h"

char test_directory[64];

void
test_directory_make(void)
{
    strcpy(test_directory, "/tmp/spoke-tool-test-XXXXXX");
    cr_assert_not_null(mkdtemp(test_directory));
    setenv("DIR", test_directory, 1);
    setenv("SPOKE", SPOKE_TOOL, 1);
    setenv("CAT", SPOKE_TOOL " cat --linger 30", 1);
    signal(SIGPIPE, SIG_IGN);
}

void
test_directory_remove(void)
{
    char command[128];

    snprintf(command, sizeof command, "rm -rf '%s'", test_directory);
    if (test_directory[0] != '\0' && system(command) != 0)
        fprintf(stderr, "%s could not be removed\n", test_directory);
}

static char *
next_buffer(void)
{
    static char buffers[8][128];
    static unsigned next;

    return buffers[next++ % 8];
}

const char *
in_directory(const char *name)
{
    char *path = next_buffer();

    snprintf(path, 128, "%s/%s", test_directory, name);
    return path;
}

const char *
ipc_in_directory(const char *name)
{
    char *url = next_buffer();

    snprintf(url, 128, "ipc://%s/%s", test_directory, name);
    return url;
}

/* The kernel's list of unix sockets has them with the number of their inode between flags, of which
 * one says that they listen, and their path. */
static bool
is_listened_on(const char *path)
{
    char line[512], its_path[256];
    FILE *list = fopen("/proc/net/unix", "re");
    bool found = false;
    unsigned flags;

    cr_assert_not_null(list);
    while (!found && fgets(line, sizeof line, list) != NULL)
        found = sscanf(line, "%*s %*s %*s %x %*s %*s %*s %255s", &flags, its_path) == 2 &&
                (flags & 0x10000) != 0 && strcmp(its_path, path) == 0;
    fclose(list);
    return found;
}

bool
appears(const char *path)
{
    for (int i = 0; i < 30000 * SPOKE_TEST_SLOWDOWN; i++) {
        if (access(path, F_OK) == 0 && is_listened_on(path))
            return true;
        usleep(1000);
    }
    return false;
}

/* A socket that is bound and does not listen keeps the port from all who take any, and not from a
 * listener that may use an address again.  It is open as long as the test. */
const char *
free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    char *text = next_buffer();

    cr_assert(fd >= 0);
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, size), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    snprintf(text, 128, "%d", ntohs(address.sin_port));
    return text;
}

bool
is_installed(const char *program)
{
    char command[128];

    snprintf(command, sizeof command, "command -v %s >/dev/null", program);
    return system(command) == 0;
}

static void
become(struct program *p, int in, const char *const *argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL); /* a shell that runs the tests in the background has it ignored */
    setpgid(0, 0);           /* so that a shell's children go with it */
    dup2(in, STDIN_FILENO);
    dup2(p->out_fd, STDOUT_FILENO);
    dup2(p->err_fd, STDERR_FILENO);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* A file in memory.  O_APPEND, because two programs of one shell share its offset: the kernel keeps
 * writers of such a file apart no other way, and the later line would fall on the earlier one. */
static int
output_open(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    cr_assert(fd >= 0);
    cr_assert_eq(fcntl(fd, F_SETFL, O_APPEND), 0);
    return fd;
}

void
program_start_argv(struct program *p, bool with_input, const char *const *argv)
{
    int ends[2];

    *p = (struct program){.in = -1};
    p->out_fd = output_open("out");
    p->err_fd = output_open("err");
    if (with_input)
        cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    else
        ends[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    p->pid = fork();
    cr_assert(p->pid >= 0);
    if (p->pid == 0)
        become(p, ends[0], argv);
    setpgid(p->pid, p->pid);
    close(ends[0]);
    if (with_input)
        p->in = ends[1];
}

void
program_end_input(struct program *p)
{
    if (p->in >= 0)
        close(p->in);
    p->in = -1;
}

#ifdef __SANITIZE_THREAD__
/* ThreadSanitizer's runtime takes a signal that comes just before a wait for itself and gives it to
 * the program's own handler after the wait, which may be for ever: wait until `pid` is in poll().
 */
static void
await_poll(pid_t pid)
{
    char path[64];
    int number = -1;

    snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
    for (int i = 0; i < 10000 && number != SYS_poll; i++) {
        FILE *file = fopen(path, "re");

        if (file == NULL || fscanf(file, "%d", &number) != 1)
            number = -1;
        if (file != NULL)
            fclose(file);
        usleep(1000);
    }
}
#endif

void
program_signal(struct program *p, int signal)
{
#ifdef __SANITIZE_THREAD__
    await_poll(p->pid);
#endif
    cr_assert_eq(kill(p->pid, signal), 0);
}

static char *
read_whole(int fd, size_t *size)
{
    struct stat file;
    char *text;
    ssize_t got;

    cr_assert_eq(fstat(fd, &file), 0);
    text = malloc((size_t)file.st_size + 1);
    cr_assert_not_null(text);
    got = pread(fd, text, (size_t)file.st_size, 0);
    cr_assert(got >= 0);
    text[got] = '\0';
    *size = (size_t)got;
    return text;
}

void
program_look(struct program *p)
{
    size_t ignored;

    free(p->out);
    free(p->err);
    p->out = read_whole(p->out_fd, &p->out_size);
    p->err = read_whole(p->err_fd, &ignored);
}

int
program_wait(struct program *p, double limit_s)
{
    int fd = (int)syscall(SYS_pidfd_open, p->pid, 0), raw;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    bool is_late;

    cr_assert(fd >= 0);
    is_late = poll(&wait, 1, (int)(limit_s * 1e3 * SPOKE_TEST_SLOWDOWN)) != 1;
    close(fd);
    kill(-p->pid,
         SIGKILL); /* also what a shell has left in the background; too late for the dead */
    cr_assert_eq(waitpid(p->pid, &raw, 0), p->pid);
    p->pid = 0;
    program_look(p);
    p->status = is_late ? -1 : WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
    return p->status;
}

void
program_clear(struct program *p)
{
    if (p->pid > 0) {
        kill(-p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    program_end_input(p);
    close(p->out_fd);
    close(p->err_fd);
    free(p->out);
    free(p->err);
}

int
program_run_argv(struct program *p, const char *const *argv)
{
    program_start_argv(p, false, argv);
    return program_wait(p, 60);
}
