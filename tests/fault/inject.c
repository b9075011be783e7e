/* SPDX-License-Identifier: MIT */
/* The handler's own system calls come from one instruction, which the filter lets through by its
 * address. */
#include "tests/fault/inject.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/support/process.h"

#define CALLS_MAX 64

#if defined(__x86_64__)

static struct {
    int number, error;
    atomic_int left; /* calls until it fails; 0: disarmed */
    atomic_bool fired;
    atomic_long caught;
    atomic_int last;
} injection;

/* inject_call(number, six arguments): the call, without libc. */
long inject_call(long number, long a, long b, long c, long d, long e, long f);
extern const char inject_call_end[];
__asm__(".text\n"
        ".globl inject_call\n"
        ".type inject_call, @function\n"
        "inject_call:\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %rdi\n"
        "    mov %rdx, %rsi\n"
        "    mov %rcx, %rdx\n"
        "    mov %r8, %r10\n"
        "    mov %r9, %r8\n"
        "    mov 8(%rsp), %r9\n"
        "    syscall\n"
        ".globl inject_call_end\n"
        "inject_call_end:\n"
        "    ret\n"
        ".size inject_call, . - inject_call\n");

static bool
is_the_one(int number)
{
    if (number != injection.number || atomic_load(&injection.left) == 0)
        return false;
    if (atomic_fetch_sub(&injection.left, 1) != 1)
        return false;
    atomic_store(&injection.fired, true);
    return true;
}

static void
on_caught(int signal, siginfo_t *info, void *context)
{
    ucontext_t *state = context;
    greg_t *r = state->uc_mcontext.gregs;

    (void)signal;
    atomic_fetch_add(&injection.caught, 1);
    atomic_store(&injection.last, info->si_syscall);
    if (is_the_one(info->si_syscall))
        r[REG_RAX] = -injection.error;
    else
        r[REG_RAX] = inject_call(info->si_syscall, r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10],
                                 r[REG_R8], r[REG_R9]);
}

static bool
install(const int *numbers, unsigned count, uint32_t listed, uint32_t others)
{
    const uintptr_t end = (uintptr_t)inject_call_end;
    const unsigned where = offsetof(struct seccomp_data, instruction_pointer);
    struct sock_filter filter[CALLS_MAX + 16];
    struct sigaction action = {.sa_sigaction = on_caught, .sa_flags = SA_SIGINFO | SA_NODEFER};
    unsigned short size = 0;

    child_is_confined();
    if (count > CALLS_MAX || sigaction(SIGSYS, &action, NULL) != 0)
        return false;
    filter[size++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, where);
    filter[size++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)end, 0, 3);
    filter[size++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, where + 4);
    filter[size++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(end >> 32),
                                                  0, 1);
    filter[size++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[size++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                  offsetof(struct seccomp_data, nr));
    filter[size++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 0,
                                                  1);
    filter[size++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    for (unsigned i = 0; i < count; i++)
        filter[size++] = (struct sock_filter)BPF_JUMP(
            BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)numbers[i], (uint8_t)(count - i), 0);
    filter[size++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, others);
    filter[size++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, listed);
    const struct sock_fprog program = {.len = size, .filter = filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

bool
inject_is_supported(void)
{
    return true;
}

bool
inject_only(const int *numbers, unsigned count)
{
    return install(numbers, count, SECCOMP_RET_TRAP, SECCOMP_RET_ALLOW);
}

bool
inject_all_but(const int *numbers, unsigned count)
{
    return install(numbers, count, SECCOMP_RET_ALLOW, SECCOMP_RET_TRAP);
}

void
inject_arm(int number, int when, int error)
{
    injection.number = number;
    injection.error = error;
    atomic_store(&injection.fired, false);
    atomic_store(&injection.left, when);
}

void
inject_disarm(void)
{
    atomic_store(&injection.left, 0);
}

bool
inject_fired(void)
{
    return atomic_load(&injection.fired);
}

long
inject_caught(int *last)
{
    if (last != NULL)
        *last = atomic_load(&injection.last);
    return atomic_load(&injection.caught);
}

#else

bool
inject_is_supported(void)
{
    return false;
}

bool
inject_only(const int *numbers, unsigned count)
{
    (void)numbers, (void)count;
    return false;
}

bool
inject_all_but(const int *numbers, unsigned count)
{
    (void)numbers, (void)count;
    return false;
}

void
inject_arm(int number, int when, int error)
{
    (void)number, (void)when, (void)error;
}

void
inject_disarm(void)
{
}

bool
inject_fired(void)
{
    return false;
}

long
inject_caught(int *last)
{
    (void)last;
    return 0;
}

#endif
