/* SPDX-License-Identifier: MIT */
/* Looks at the kernel, the limits and the library, and turns what is wrong into advice.  One
 * thread, but for measure(). */
#include "machine.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"

#define MANY_DESCRIPTORS 4096 /* fewer than this is little for a server */
#define SLOW_WAKE_US     15.0 /* a sleeping CPU of a virtual machine needs this or more */

#define ALLOWING_PROFILE                                                                           \
    "run the container with a seccomp profile that allows io_uring_setup, io_uring_enter and "     \
    "io_uring_register"
#define MORE_LOCKED_MEMORY                                                                         \
    "ulimit -l 8192 or more (LimitMEMLOCK= of a service, --ulimit memlock= of a container)"

const struct machine_feature machine_features[] = {
    {SPOKE_FEATURE_DEFER_TASKRUN, "defer_taskrun", 6, 1, "completions only when the engine asks",
     "a plain ring"},
    {SPOKE_FEATURE_PROVIDED_BUFFERS, "provided_buffers", 5, 19, "receives without a buffer each",
     "poll, then receive"},
    {SPOKE_FEATURE_MULTISHOT_ACCEPT, "multishot_accept", 5, 19, "one request accepts them all",
     "one accept at a time"},
    {SPOKE_FEATURE_REGISTERED_RING, "registered_ring", 5, 18, "no look-up of the ring's descriptor",
     "a look-up each time"},
};
const size_t machine_feature_count = sizeof machine_features / sizeof *machine_features;

/* Copy the first line of a file, "" if there is none. */
static void
read_line(const char *path, char *line, size_t size)
{
    FILE *file = fopen(path, "re");

    line[0] = '\0';
    if (file == NULL)
        return;
    if (fgets(line, (int)size, file) == NULL)
        line[0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    fclose(file);
}

/* Copy what follows `key` in a file of "key: value" lines, up to the end of its line.  False if it
 * is not there. */
static bool
read_field(const char *path, const char *key, char *value, size_t size)
{
    FILE *file = fopen(path, "re");
    char *line = NULL, *text;
    size_t line_size = 0;
    bool found = false;

    if (file == NULL)
        return false;
    while (!found && getline(&line, &line_size, file) >= 0) {
        if (strncmp(line, key, strlen(key)) != 0 || (text = strchr(line, ':')) == NULL)
            continue;
        text += 1 + strspn(text + 1, " \t");
        text[strcspn(text, "\n")] = '\0';
        snprintf(value, size, "%s", text);
        found = true;
    }
    free(line);
    fclose(file);
    return found;
}

static int
read_number(const char *path, int otherwise)
{
    char line[32];

    read_line(path, line, sizeof line);
    return line[0] == '\0' ? otherwise : atoi(line);
}

static bool
has_word(const char *text, const char *word)
{
    size_t size = strlen(word);

    for (const char *at = text; (at = strstr(at, word)) != NULL; at += size) {
        if ((at == text || at[-1] == ' ') && (at[size] == ' ' || at[size] == '\0'))
            return true;
    }
    return false;
}

static void
examine_kernel(struct machine *m)
{
    static char flags[8192];
    struct utsname name = {0};

    uname(&name);
    snprintf(m->kernel, sizeof m->kernel, "%s %s", name.sysname, name.release);
    snprintf(m->arch, sizeof m->arch, "%s", name.machine);
    if (sscanf(name.release, "%u.%u", &m->kernel_major, &m->kernel_minor) != 2)
        m->kernel_major = m->kernel_minor = 0;
    m->is_virtual = read_field("/proc/cpuinfo", "flags", flags, sizeof flags) &&
                    has_word(flags, "hypervisor");
    read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource", m->clock_source,
              sizeof m->clock_source);
    /* These the C library reads without entering the kernel. */
    m->clock_is_fast = m->clock_source[0] == '\0' || strcmp(m->clock_source, "tsc") == 0 ||
                       strcmp(m->clock_source, "kvm-clock") == 0 ||
                       strncmp(m->clock_source, "hyperv", 6) == 0 ||
                       strcmp(m->clock_source, "arch_sys_counter") == 0;
}

static void
examine_cpus(struct machine *m)
{
    char line[64];
    long quota, period;
    cpu_set_t set;

    CPU_ZERO(&set);
    m->cpus_online = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    m->cpus_allowed = sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set)
                                                                  : m->cpus_online;
    read_line("/sys/devices/system/cpu/isolated", m->cpus_isolated, sizeof m->cpus_isolated);
    read_line("/sys/fs/cgroup/cpu.max", line, sizeof line);
    if (sscanf(line, "%ld %ld", &quota, &period) == 2 && period > 0)
        m->cpu_quota = (double)quota / (double)period;
}

static void
examine_uring(struct machine *m)
{
    struct io_uring_params params;
    char line[32];
    long fd;

    memset(&params, 0, sizeof params);
    fd = syscall(SYS_io_uring_setup, 1, &params);
    m->uring_works = fd >= 0;
    m->uring_errno = fd >= 0 ? 0 : errno;
    if (fd >= 0)
        close((int)fd);
    m->uring_disabled = read_number("/proc/sys/kernel/io_uring_disabled", -1);
    m->seccomp_mode = read_field("/proc/self/status", "Seccomp:", line, sizeof line) ? atoi(line)
                                                                                     : -1;
}

static bool
is_older_than(const struct machine *m, unsigned major, unsigned minor)
{
    return m->kernel_major < major || (m->kernel_major == major && m->kernel_minor < minor);
}

void
machine_why_not(const struct machine *m, const struct machine_feature *f, char text[128])
{
    if (is_older_than(m, f->since_major, f->since_minor))
        snprintf(text, 128, "Linux %u.%u has it, this kernel is older", f->since_major,
                 f->since_minor);
    else if (m->seccomp_mode == 2)
        snprintf(text, 128, "this kernel has it, so a seccomp filter or a limit denies it");
    else
        snprintf(text, 128, "this kernel has it, and a limit or a patch denies it");
}

/* Which features an engine on io_uring uses, also where another backend is asked for. */
static void
examine_features(struct machine *m)
{
    struct spoke_engine_info info;
    spoke_engine_config config;
    spoke_engine *e;

    spoke_engine_config_init(&config);
    config.backend = "uring";
    if ((m->uring_engine_error = spoke_engine_open(&e, &config)) != 0)
        return;
    if ((m->uring_engine_error = spoke_engine_get_info(e, &info)) == 0)
        m->features = info.features;
    spoke_engine_close(e);
}

/* Does the library work without any of the features? */
static bool
works_masked(void)
{
    struct spoke_engine_info info;
    spoke_engine_config config;
    spoke_engine *e;
    bool works;

    spoke_engine_config_init(&config);
    for (size_t i = 0; i < machine_feature_count; i++)
        config.mask_features |= machine_features[i].bit;
    if (spoke_engine_open(&e, &config) != 0)
        return false;
    works = spoke_engine_get_info(e, &info) == 0 && info.features == 0 &&
            spoke_engine_poll(e, 0) >= 0;
    spoke_engine_close(e);
    return works;
}

static void
examine_library(struct machine *m)
{
    struct spoke_engine_info info;
    spoke_engine *e;

    m->backend_wish = getenv("SPOKE_BACKEND");
    if (m->backend_wish != NULL && *m->backend_wish == '\0')
        m->backend_wish = NULL;
    examine_features(m);
    if ((m->engine_error = spoke_engine_open(&e, NULL)) != 0)
        return;
    if ((m->engine_error = spoke_engine_get_info(e, &info)) == 0) {
        snprintf(m->backend, sizeof m->backend, "%s", info.backend);
        snprintf(m->why_not_uring, sizeof m->why_not_uring, "%s",
                 info.why_not_uring != NULL ? info.why_not_uring : "");
    }
    spoke_engine_close(e);
    m->works_masked = works_masked();
}

/* Why a connection ended before it was in shared memory. */
static int
on_shm_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    int *error = ctx;

    (void)s;
    if (event->type == SPOKE_EVENT_DETACHED)
        *error = event->reason;
    return 0;
}

static int
try_shm(spoke_engine *e, spoke_socket *a, spoke_socket *b, int *error)
{
    struct timespec begin, now;
    struct spoke_stats stats;
    int rc;
    char url[64];

    snprintf(url, sizeof url, "shm://@spoke-doctor-%d", (int)getpid());
    if ((rc = spoke_socket_on_event(a, on_shm_event, error)) != 0 ||
        (rc = spoke_listen(a, url, NULL, 0)) != 0 || (rc = spoke_dial(b, url, NULL, 0)) != 0)
        return rc;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        if ((rc = spoke_engine_poll(e, 10 * SPOKE_MS)) < 0 ||
            (rc = spoke_socket_stats(a, &stats)) != 0)
            return rc;
        if (*error != 0)
            return *error;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (stats.pipes_shared == 0 && now.tv_sec - begin.tv_sec < 2);
    return stats.pipes_shared > 0 ? 0 : SPOKE_ETIMEDOUT;
}

static void
on_huge_log(void *ctx, enum spoke_log_level level, const char *text)
{
    struct machine *m = ctx;

    (void)level;
    if (strstr(text, SPOKE_OPT_SHM_HUGE_PAGES) != NULL)
        snprintf(m->why_no_huge, sizeof m->why_no_huge, "%s", text);
}

/* A loan small enough for one: what it lies in is one, or is not. */
static void
try_huge_page(struct machine *m, spoke_engine *e)
{
    struct spoke_stats stats;
    spoke_socket *s;
    spoke_msg *loan;

    snprintf(m->why_no_huge, sizeof m->why_no_huge, "there was no memory to try it");
    if (spoke_socket_open(&s, SPOKE_PAIR, e) != 0)
        return;
    spoke_set_log(on_huge_log, m, SPOKE_LOG_WARNING);
    if (spoke_socket_set_bool(s, SPOKE_OPT_SHM_HUGE_PAGES, true) == 0 &&
        spoke_loan(s, 64 * 1024, &loan) == 0) {
        if (spoke_socket_stats(s, &stats) == 0)
            m->huge_page = stats.shm_huge_bytes;
        spoke_msg_free(loan);
    }
    spoke_set_log(NULL, NULL, SPOKE_LOG_ERROR);
    spoke_socket_close(s);
}

static void
examine_shm(struct machine *m)
{
    int ended = 0; /* until the engine is closed, which tells of an end too */
    spoke_socket *a, *b;
    spoke_engine *e;

    m->upgrade_wish = getenv("SPOKE_UPGRADE");
    snprintf(m->why_no_huge, sizeof m->why_no_huge, "shared memory does not work");
    read_line("/sys/devices/system/node/has_memory", m->memory_nodes, sizeof m->memory_nodes);
    if ((m->shm_error = spoke_engine_open(&e, NULL)) != 0)
        return;
    if ((m->shm_error = spoke_socket_open(&a, SPOKE_PAIR, e)) == 0 &&
        (m->shm_error = spoke_socket_open(&b, SPOKE_PAIR, e)) == 0)
        m->shm_error = try_shm(e, a, b, &ended);
    if (m->shm_error == 0)
        try_huge_page(m, e);
    spoke_engine_close(e);
}

/* Whoever has it wants a connection first (ENOTCONN). */
static void
examine_kernel_tls(struct machine *m)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") == 0)
        m->kernel_tls_errno = 0;
    else
        m->kernel_tls_errno = errno == ENOTCONN ? 0 : errno;
    if (fd >= 0)
        close(fd);
}

static void __attribute__((format(printf, 2, 3)))
explain_wait(struct machine *m, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(m->wait_why, sizeof m->wait_why, format, arguments);
    va_end(arguments);
}

/* As the library reads it. */
static bool
is_wait_policy(const char *text)
{
    return strcmp(text, "block") == 0 || strcmp(text, "poll") == 0 ||
           strcmp(text, "adaptive") == 0 || strspn(text, "0123456789") == strlen(text);
}

static void
examine_waiting(struct machine *m)
{
    const struct measured *cost = &m->measured;

    m->wait_wish = getenv("SPOKE_WAIT");
    if (m->wait_wish != NULL && *m->wait_wish == '\0')
        m->wait_wish = NULL;
    m->wait_is_unknown = m->wait_wish != NULL && !is_wait_policy(m->wait_wish);
    snprintf(m->wait_policy, sizeof m->wait_policy, "%s",
             m->wait_wish != NULL && !m->wait_is_unknown ? m->wait_wish : "adaptive");
    if (m->wait_is_unknown)
        explain_wait(m, "SPOKE_WAIT asks for something unknown");
    else if (m->wait_wish != NULL && strcmp(m->wait_wish, "adaptive") != 0)
        explain_wait(m, "SPOKE_WAIT asks for it");
    else if (m->cpus_allowed < 2)
        explain_wait(m, "with one CPU it never spins: who spins keeps the other side from running");
    else if (cost->done && cost->can_spin)
        explain_wait(m,
                     "it spins while messages come close together, since a sleep costs %.1f us "
                     "more on each way",
                     cost->break_even_us);
    else
        explain_wait(m, "it is the default: it spins while messages come close together");
}

/* Add a problem, a printf format, and the change that lifts it. */
static void __attribute__((format(printf, 3, 4)))
advise(struct machine *m, const char *change, const char *problem, ...)
{
    struct advice_line *line;
    va_list arguments;

    if (m->advice_count == ADVICE_MAX)
        return;
    line = &m->advice[m->advice_count++];
    snprintf(line->change, sizeof line->change, "%s", change);
    va_start(arguments, problem);
    vsnprintf(line->problem, sizeof line->problem, problem, arguments);
    va_end(arguments);
}

static const char *
why_denied(const struct machine *m)
{
    if (m->uring_disabled == 2)
        return "io_uring is switched off: sysctl kernel.io_uring_disabled is 2";
    if (m->uring_disabled == 1)
        return "io_uring is for privileged processes only: sysctl kernel.io_uring_disabled is 1";
    if (m->seccomp_mode == 2)
        return "a seccomp filter denies io_uring, as the default profiles of containers do";
    return "a security module of the kernel denies io_uring";
}

static const char *
how_to_allow(const struct machine *m)
{
    if (m->uring_disabled == 2)
        return "sysctl -w kernel.io_uring_disabled=0 (to keep it: a file in /etc/sysctl.d)";
    if (m->uring_disabled == 1)
        return "put the process into the group of sysctl kernel.io_uring_group, or set "
               "kernel.io_uring_disabled=0";
    if (m->seccomp_mode == 2)
        return ALLOWING_PROFILE;
    return "allow io_uring in the policy (SELinux, AppArmor or BPF) that holds for this process";
}

static void
advise_on_uring(struct machine *m)
{
    if (m->backend_wish != NULL && strcmp(m->backend_wish, "uring") != 0 &&
        strcmp(m->backend_wish, "poll") != 0)
        advise(m, "unset SPOKE_BACKEND, or set it to uring or poll",
               "SPOKE_BACKEND is \"%s\", and there is no such backend", m->backend_wish);
    else if (m->uring_works && m->backend_wish != NULL && strcmp(m->backend_wish, "uring") != 0)
        advise(m, "unset SPOKE_BACKEND",
               "io_uring works here but SPOKE_BACKEND asks for another backend");
    else if (m->uring_works && m->uring_engine_error == SPOKE_ENOMEM)
        advise(m, MORE_LOCKED_MEMORY,
               "io_uring works, but its buffers need more memory than this process may lock");
    else if (m->uring_works && m->engine_error == 0 && strcmp(m->backend, "uring") != 0)
        advise(m, m->seccomp_mode == 2 ? how_to_allow(m) : "run Linux 6.1 or newer", "%s",
               m->why_not_uring);
    else if (m->uring_works)
        return;
    else if (m->uring_errno == EPERM || m->uring_errno == EACCES)
        advise(m, how_to_allow(m), "%s", why_denied(m));
    else if (m->uring_errno == ENOSYS && m->seccomp_mode == 2)
        advise(m, ALLOWING_PROFILE, "a seccomp filter hides io_uring");
    else if (m->uring_errno == ENOSYS)
        advise(m, "run Linux 6.1 or newer, built with CONFIG_IO_URING",
               "this kernel has no io_uring");
    else if (m->uring_errno == ENOMEM)
        advise(m, MORE_LOCKED_MEMORY, "io_uring needs more memory than this process may lock");
    else
        advise(m, "look at the limits above", "io_uring cannot be opened: %s",
               strerror(m->uring_errno));
}

static void
advise_on_features(struct machine *m)
{
    char names[96] = "";
    size_t used = 0;

    for (size_t i = 0; m->uring_engine_error == 0 && i < machine_feature_count; i++) {
        if (!(m->features & machine_features[i].bit) && used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                     used > 0 ? ", " : "", machine_features[i].name);
    }
    if (used > 0)
        advise(m,
               is_older_than(m, 6, 1) ? "run Linux 6.1 or newer"
               : m->seccomp_mode == 2 ? how_to_allow(m)
                                      : MORE_LOCKED_MEMORY,
               "io_uring works here, but without %s", names);
}

bool
machine_lacks_wished(const struct machine *m)
{
    return m->engine_error == SPOKE_ENOTSUP && m->backend_wish != NULL &&
           strcmp(m->backend_wish, "uring") == 0;
}

static void
advise_on_limits(struct machine *m)
{
    const char *advice = tool_advice(m->engine_error, NULL);
    char change[96];

    if (m->engine_error == SPOKE_EPERM || machine_lacks_wished(m))
        advise(m, "unset SPOKE_BACKEND: the library then runs on epoll",
               "SPOKE_BACKEND asks for io_uring, which is %s",
               m->engine_error == SPOKE_EPERM ? "denied" : "not there");
    else if (m->engine_error != 0 && m->engine_error != SPOKE_ENOTSUP)
        advise(m, advice != NULL ? advice : "look at the limits above",
               "no engine can be opened: %s", spoke_strerror(m->engine_error));
    if (m->nofile.rlim_cur >= MANY_DESCRIPTORS)
        return;
    if (m->nofile.rlim_max >= MANY_DESCRIPTORS)
        snprintf(change, sizeof change, "ulimit -n %llu", (unsigned long long)m->nofile.rlim_max);
    else
        snprintf(change, sizeof change,
                 "raise the hard limit (LimitNOFILE= of a service), then ulimit -n");
    advise(m, change, "a process may have only %llu descriptors, and each connection is one",
           (unsigned long long)m->nofile.rlim_cur);
}

static void
advise_on_waiting(struct machine *m)
{
    const struct measured *cost = &m->measured;

    if (m->wait_is_unknown)
        advise(m, "set it to block, poll, adaptive or nanoseconds, or unset it",
               "SPOKE_WAIT is \"%s\", which is no waiting policy", m->wait_wish);
    if (!m->clock_is_fast)
        advise(m, "boot with clocksource=tsc if the machine's TSC is stable",
               "reading the clock source %s is a system call", m->clock_source);
    if (m->cpus_allowed < 2)
        advise(m, "give the process two CPUs (taskset, cpuset, size of the virtual machine)",
               "there is one CPU: both sides of a connection share it and nobody can spin");
    if (m->cpu_quota > 0 && m->cpu_quota < 2)
        advise(m, "raise the group's cpu.max, or set SPOKE_WAIT=block",
               "the control group grants %.2f CPUs of time, and spinning uses it up", m->cpu_quota);
    if (cost->done && cost->can_spin && cost->futex_wake_us > SLOW_WAKE_US &&
        m->wait_wish != NULL && strcmp(m->wait_wish, "block") == 0)
        advise(m, "unset SPOKE_WAIT, so that live traffic is met awake",
               "SPOKE_WAIT=block, and a wake-up costs %.1f us here", cost->futex_wake_us);
}

void
machine_examine(struct machine *m)
{
    memset(m, 0, sizeof *m);
    examine_kernel(m);
    examine_cpus(m);
    getrlimit(RLIMIT_MEMLOCK, &m->memlock);
    getrlimit(RLIMIT_NOFILE, &m->nofile);
    examine_uring(m);
    examine_library(m);
    examine_shm(m);
    examine_kernel_tls(m);
    measure(&m->measured);
    examine_waiting(m);
    advise_on_uring(m);
    advise_on_features(m);
    advise_on_limits(m);
    advise_on_waiting(m);
}
