/* SPDX-License-Identifier: MIT */
/* spoke doctor: prints what machine.c found, for people or as JSON. */
#include <stdio.h>
#include <string.h>

#include "machine.h"
#include "tool.h"

enum { OPT_JSON = TOOL_FIRST_ID };

static const struct tool_option options[] = {
    {NULL, 0, NULL, "Options", 0},
    {"json", 0, NULL, "one JSON object instead of text", OPT_JSON},
    {0},
};

static const struct tool_page page = {
    .usage = "[--json]",
    .about =
        "Say what this machine offers to spoke, what a wake-up costs here, and what to change.",
    .options = options,
    .notes =
        "The measurements take about two seconds and need an otherwise idle machine to mean much.",
};

/* ---- text ---- */

static void
print_limit(const char *name, rlim_t limit, const char *unit)
{
    if (limit == RLIM_INFINITY)
        printf("  %-22s no limit\n", name);
    else
        printf("  %-22s %llu%s\n", name, (unsigned long long)limit, unit);
}

static const char *
why_no_engine(const struct machine *m)
{
    return machine_lacks_wished(m) ? "there is no io_uring" : spoke_strerror(m->engine_error);
}

static const char *
seccomp_text(int mode)
{
    switch (mode) {
    case 0: return "no filter";
    case 1: return "strict";
    case 2: return "a filter";
    default: return "unknown";
    }
}

static void
print_kernel(const struct machine *m)
{
    printf("spoke %s on %s %s\n\nMachine\n", spoke_version(), m->kernel, m->arch);
    printf("  %-22s %u online, %u for this process%s%s\n", "CPUs", m->cpus_online, m->cpus_allowed,
           m->cpus_isolated[0] != '\0' ? ", isolated: " : "", m->cpus_isolated);
    if (m->cpu_quota > 0)
        printf("  %-22s %.2f CPUs\n", "CPU time granted", m->cpu_quota);
    printf("  %-22s %s\n", "hypervisor",
           m->is_virtual ? "yes: this is a virtual machine" : "none seen");
    printf("  %-22s %s%s\n", "clock source",
           m->clock_source[0] != '\0' ? m->clock_source : "unknown",
           m->clock_is_fast ? "" : " (a system call each time)");
    print_limit("descriptors", m->nofile.rlim_cur, "");
    print_limit("locked memory", m->memlock.rlim_cur, " bytes");
}

static void
print_uring(const struct machine *m)
{
    printf("\nio_uring\n  %-22s %s%s%s\n", "available",
           m->uring_works ? "yes" : "no: ", m->uring_works ? "" : strerror(m->uring_errno), "");
    if (m->uring_disabled >= 0)
        printf("  %-22s %d\n", "io_uring_disabled", m->uring_disabled);
    printf("  %-22s %s\n", "seccomp", seccomp_text(m->seccomp_mode));
    if (m->engine_error != 0) {
        printf("  %-22s none: %s\n", "backend chosen", why_no_engine(m));
        return;
    }
    printf("  %-22s %s%s%s\n", "backend chosen", m->backend,
           m->why_not_uring[0] != '\0' ? ": " : "", m->why_not_uring);
    if (m->uring_engine_error != 0)
        return;
    for (size_t i = 0; i < machine_feature_count; i++) {
        const struct machine_feature *f = &machine_features[i];
        char why[128];
        machine_why_not(m, f, why);
        if (m->features & f->bit)
            printf("  %-22s there: %s\n", f->name, f->gives);
        else
            printf("  %-22s missing: %s; instead: %s\n", f->name, why, f->otherwise);
    }
    printf("  %-22s %s\n", "all of them masked", m->works_masked ? "works too" : "DOES NOT WORK");
}

static void
print_waiting(const struct machine *m)
{
    const struct measured *cost = &m->measured;

    printf("\nWaiting\n  %-22s %s: %s\n", "policy", m->wait_policy, m->wait_why);
    if (!cost->done) {
        printf("  %-22s failed: no thread or descriptor to be had\n", "measurements");
        return;
    }
    printf("  %-22s %.1f us by futex, %.1f us by eventfd\n", "waking a thread", cost->futex_wake_us,
           cost->eventfd_wake_us);
    printf("  %-22s %.1f us if both sides sleep\n", "unix socket round trip",
           cost->socket_block_us);
    if (!cost->can_spin)
        return;
    printf("  %-22s %.1f us if both sides spin\n", "", cost->socket_spin_us);
    printf("  %-22s spin for at most %.1f us: a sleep costs that much more on each way\n",
           "break-even", cost->break_even_us);
}

static const char *
why_no_shm(const struct machine *m)
{
    return m->engine_error != 0 ? why_no_engine(m) : spoke_strerror(m->shm_error);
}

static bool
ipc_moves(const struct machine *m)
{
    return m->shm_error == 0 && (m->upgrade_wish == NULL || strcmp(m->upgrade_wish, "off") != 0);
}

static void
print_shm(const struct machine *m)
{
    printf("\nShared memory\n  %-22s %s%s\n", "shm://",
           m->shm_error == 0 ? "works" : "does not work: ", m->shm_error == 0 ? "" : why_no_shm(m));
    printf("  %-22s %s\n", "ipc://",
           ipc_moves(m)        ? "moves there between processes of one user that are spoke"
           : m->shm_error == 0 ? "stays on its socket: SPOKE_UPGRADE is off"
                               : "stays on its socket");
    if (m->huge_page > 0)
        printf("  %-22s to be had, of %llu KiB: shm-huge-pages works\n", "huge pages",
               (unsigned long long)(m->huge_page / 1024));
    else
        printf("  %-22s none: %s\n", "huge pages", m->why_no_huge);
    printf("  %-22s %s\n", "NUMA nodes with memory",
           m->memory_nodes[0] != '\0' ? m->memory_nodes : "unknown");
}

static void
print_tls(const struct machine *m)
{
    printf("\nTLS\n  %-22s %s%s; the library encrypts by itself\n", "in the kernel",
           m->kernel_tls_errno == 0 ? "there" : "none: ",
           m->kernel_tls_errno == 0 ? "" : strerror(m->kernel_tls_errno));
}

static void
print_text(const struct machine *m)
{
    print_kernel(m);
    print_uring(m);
    print_shm(m);
    print_tls(m);
    print_waiting(m);
    printf("\nAdvice\n");
    for (size_t i = 0; i < m->advice_count; i++)
        printf("  %s: %s\n", m->advice[i].problem, m->advice[i].change);
    if (m->advice_count == 0)
        printf("  nothing to change\n");
}

/* ---- JSON ---- */

static void
put_string(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\')
            printf("\\%c", byte);
        else if (byte < 0x20 || byte > 0x7e)
            printf("\\u%04x", byte);
        else
            putchar(byte);
    }
    putchar('"');
}

static void
put_member(const char *name, const char *text)
{
    printf("\"%s\": ", name);
    if (text == NULL)
        printf("null");
    else
        put_string(text);
}

static void
put_limit(const char *name, rlim_t limit)
{
    if (limit == RLIM_INFINITY)
        printf("\"%s\": null", name);
    else
        printf("\"%s\": %llu", name, (unsigned long long)limit);
}

static const char *
boolean(bool value)
{
    return value ? "true" : "false";
}

static void
put_machine(const struct machine *m)
{
    put_member("version", spoke_version());
    printf(",\n ");
    put_member("kernel", m->kernel);
    printf(", ");
    put_member("arch", m->arch);
    printf(",\n \"cpus\": {\"online\": %u, \"allowed\": %u, ", m->cpus_online, m->cpus_allowed);
    put_member("isolated", m->cpus_isolated);
    if (m->cpu_quota > 0)
        printf(", \"quota\": %.2f},\n ", m->cpu_quota);
    else
        printf(", \"quota\": null},\n ");
    printf("\"hypervisor\": %s, \"clock\": {", boolean(m->is_virtual));
    put_member("source", m->clock_source);
    printf(", \"fast\": %s},\n \"limits\": {", boolean(m->clock_is_fast));
    put_limit("nofile", m->nofile.rlim_cur);
    printf(", ");
    put_limit("nofile_hard", m->nofile.rlim_max);
    printf(", ");
    put_limit("memlock", m->memlock.rlim_cur);
    printf("}");
}

static void
put_uring(const struct machine *m)
{
    printf("\"io_uring\": {\"available\": %s, ", boolean(m->uring_works));
    put_member("error", m->uring_works ? NULL : strerror(m->uring_errno));
    if (m->uring_disabled >= 0)
        printf(", \"disabled_sysctl\": %d", m->uring_disabled);
    else
        printf(", \"disabled_sysctl\": null");
    printf(", \"seccomp_mode\": %d,\n  \"features\": {", m->seccomp_mode);
    for (size_t i = 0; i < machine_feature_count; i++)
        printf("%s\"%s\": %s", i > 0 ? ", " : "", machine_features[i].name,
               boolean(m->features & machine_features[i].bit));
    printf("}, \"works_masked\": %s},\n ", boolean(m->works_masked));
    put_member("backend", m->engine_error == 0 ? m->backend : NULL);
    printf(", ");
    put_member("backend_error", m->engine_error == 0 ? NULL : why_no_engine(m));
    printf(", ");
    put_member("why_not_uring", m->why_not_uring[0] != '\0' ? m->why_not_uring : NULL);
}

static void
put_waiting(const struct machine *m)
{
    const struct measured *cost = &m->measured;

    printf("\"waiting\": {");
    put_member("policy", m->wait_policy);
    printf(", ");
    put_member("why", m->wait_why);
    printf("},\n \"measured\": ");
    if (!cost->done) {
        printf("null");
        return;
    }
    printf(
        "{\"futex_wake_us\": %.3f, \"eventfd_wake_us\": %.3f, \"unix_round_trip_block_us\": %.3f",
        cost->futex_wake_us, cost->eventfd_wake_us, cost->socket_block_us);
    if (cost->can_spin)
        printf(", \"unix_round_trip_spin_us\": %.3f, \"break_even_us\": %.3f", cost->socket_spin_us,
               cost->break_even_us);
    else
        printf(", \"unix_round_trip_spin_us\": null, \"break_even_us\": null");
    printf("}");
}

static void
print_json(const struct machine *m)
{
    printf("{");
    put_machine(m);
    printf(",\n ");
    put_uring(m);
    printf(",\n \"shared_memory\": {\"works\": %s, ", boolean(m->shm_error == 0));
    put_member("error", m->shm_error == 0 ? NULL : why_no_shm(m));
    printf(", \"ipc_moves\": %s, \"huge_page_bytes\": %llu,\n  ", boolean(ipc_moves(m)),
           (unsigned long long)m->huge_page);
    put_member("why_no_huge_page", m->huge_page > 0 ? NULL : m->why_no_huge);
    printf(", ");
    put_member("memory_nodes", m->memory_nodes[0] != '\0' ? m->memory_nodes : NULL);
    printf("},\n \"kernel_tls\": {\"available\": %s, ", boolean(m->kernel_tls_errno == 0));
    put_member("error", m->kernel_tls_errno == 0 ? NULL : strerror(m->kernel_tls_errno));
    printf("},\n ");
    put_waiting(m);
    printf(",\n \"advice\": [");
    for (size_t i = 0; i < m->advice_count; i++) {
        printf("%s{", i > 0 ? ",\n  " : "");
        put_member("problem", m->advice[i].problem);
        printf(", ");
        put_member("change", m->advice[i].change);
        printf("}");
    }
    printf("]}\n");
}

int
doctor_main(int argc, char **argv)
{
    struct tool_args args = {.argc = argc, .argv = argv, .page = &page};
    static struct machine machine;
    bool json = false;
    int id;

    while ((id = tool_next_option(&args)) > 0)
        json = json || id == OPT_JSON;
    if (id < 0)
        return args.status;
    if (!tool_no_operands(&args))
        return TOOL_USAGE;
    machine_examine(&machine);
    if (json)
        print_json(&machine);
    else
        print_text(&machine);
    if (tool_finish_output() != TOOL_OK)
        return TOOL_FILE;
    return machine.engine_error == 0 ? TOOL_OK : TOOL_API;
}
