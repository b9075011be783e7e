/* SPDX-License-Identifier: MIT */
/* What `spoke doctor` knows about this machine, and what it advises. */
#ifndef TOOLS_SPOKE_MACHINE_H
#define TOOLS_SPOKE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include "measure.h"

#define ADVICE_MAX 16

struct advice_line {
    char problem[192];
    char change[192]; /* the one thing that lifts it */
};

struct machine {
    /* The kernel. */
    char kernel[160];
    char arch[72];
    unsigned kernel_major, kernel_minor;
    char clock_source[32];
    bool clock_is_fast; /* reading it is no system call */
    bool is_virtual;

    /* CPUs. */
    unsigned cpus_online;
    unsigned cpus_allowed;  /* by this process's affinity mask */
    char cpus_isolated[64]; /* from the scheduler, as the kernel lists them; "" if none */
    double cpu_quota;       /* CPUs' worth of time that the control group allows; 0: no limit */

    /* io_uring, asked for directly. */
    bool uring_works;
    int uring_errno;    /* of io_uring_setup() */
    int uring_disabled; /* sysctl kernel.io_uring_disabled; -1: the kernel has none */
    int seccomp_mode;   /* of this process: 0 none, 1 strict, 2 filter; -1: unknown */

    /* What the library made of it. */
    int engine_error; /* of opening an engine; 0: the rest holds */
    char backend[16];
    char why_not_uring[192];  /* "" on uring */
    int uring_engine_error;   /* of opening an engine on io_uring; 0: the next one holds */
    uint32_t features;        /* SPOKE_FEATURE_… that it uses */
    bool works_masked;        /* an engine opens with every feature masked, and uses none */
    const char *backend_wish; /* $SPOKE_BACKEND or NULL */

    /* Shared memory, tried between two sockets of this process. */
    int shm_error;            /* 0: it works */
    const char *upgrade_wish; /* $SPOKE_UPGRADE or NULL */
    uint64_t huge_page;       /* bytes of one that a socket got; 0: none … */
    char why_no_huge[256];    /* … and this is why */
    char memory_nodes[32];    /* NUMA nodes with memory, as the kernel lists them; "" unknown */

    /* TLS in the kernel, which the library does not use. */
    int kernel_tls_errno; /* of asking a socket for it; 0: the kernel has it */

    /* Limits. */
    struct rlimit memlock, nofile;

    /* Waiting. */
    const char *wait_wish; /* $SPOKE_WAIT or NULL */
    bool wait_is_unknown;  /* … and the library takes adaptive instead */
    char wait_policy[32];  /* adaptive, block, poll, or nanoseconds */
    char wait_why[192];
    struct measured measured;

    struct advice_line advice[ADVICE_MAX];
    size_t advice_count;
};

/* The features by bit, with what is done where one is missing. */
struct machine_feature {
    uint32_t bit;
    const char *name;
    unsigned since_major, since_minor; /* the first kernel that has it */
    const char *gives;
    const char *otherwise;
};
extern const struct machine_feature machine_features[];
extern const size_t machine_feature_count;

/* Why an engine on io_uring does not use a feature, in `text`. */
void machine_why_not(const struct machine *m, const struct machine_feature *f, char text[128]);

/* There is no engine because SPOKE_BACKEND asks for io_uring and there is none. */
bool machine_lacks_wished(const struct machine *m);

/* Look at everything.  Takes a second or so; never fails: what cannot be known is said to be
 * unknown. */
void machine_examine(struct machine *m);

#endif
