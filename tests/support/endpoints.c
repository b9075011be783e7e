/* SPDX-License-Identifier: MIT */
/* A small process of its own, the sweeper, removes the directory: it holds the reading end of a
 * pipe whose other end the test and its children hold, and reads the end of file when the last of
 * them is gone. */
#include "tests/support/endpoints.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/test.h"

static char directory[64];

const char *
transport_name(enum transport transport)
{
    static const char *const names[] = {"inproc", "ipc", "tcp", "shm", "tls", "ws", "wss"};

    return names[transport];
}

/* Is it one of the words of a list, with commas between them? */
static bool
is_in(const char *list, const char *word)
{
    size_t size = strlen(word);

    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, size) == 0 && (at[size] == ',' || at[size] == '\0'))
            return true;
    }
    return false;
}

bool
transport_is_wanted(enum transport transport)
{
    const char *list = getenv("SPOKE_TEST_TRANSPORTS");

    if (getenv("SPOKE_UPGRADE") != NULL)
        return transport == IPC;
    return list == NULL || is_in(list, transport_name(transport));
}

bool
transport_is_named(enum transport transport)
{
    return getenv("SPOKE_TEST_TRANSPORTS") != NULL && transport_is_wanted(transport);
}

static int
remove_entry(const char *path, const struct stat *status, int type, struct FTW *position)
{
    (void)status, (void)type, (void)position;
    return remove(path);
}

/* Runs in the sweeper. */
static _Noreturn void
sweep(int alive)
{
    char byte;

    setsid();
    dup2(alive, 0);
    int nowhere = open("/dev/null", O_RDWR);
    dup2(nowhere, 1);
    dup2(nowhere, 2);
    close_range(3, ~0u, 0);
    while (read(0, &byte, 1) > 0) {
    }
    nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    _exit(0);
}

/* The sweeper is nobody's child: whoever waits for all children does not wait for it. */
static void
start_sweeper(void)
{
    int alive[2];

    cr_assert_eq(pipe2(alive, O_CLOEXEC), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        close(alive[1]);
        if (fork() != 0)
            _exit(0);
        sweep(alive[0]);
    }
    close(alive[0]);
    waitpid(child, NULL, 0);
}

const char *
scratch_dir(void)
{
    if (directory[0] == '\0') {
        strcpy(directory, "/tmp/spoke-test-XXXXXX");
        cr_assert_not_null(mkdtemp(directory));
        start_sweeper();
    }
    return directory;
}

void
scratch_path(char path[ENDPOINT_MAX], const char *name)
{
    snprintf(path, ENDPOINT_MAX, "%s/%s", scratch_dir(), name);
}

/* All of 127.0.0.0/8 is this machine, so each process gets an address, and with it all ports, for
 * itself. */
static void
tcp_fresh(char url[ENDPOINT_MAX], const char *scheme, unsigned number, const char *path)
{
    static unsigned pid;

    if (pid == 0)
        pid = (unsigned)getpid();
    snprintf(url, ENDPOINT_MAX, "%s://127.%u.%u.1:%u%s", scheme, 1 + (pid >> 8) % 254, pid & 0xff,
             20000 + number % 10000, path);
}

void
endpoint_fresh(char url[ENDPOINT_MAX], enum transport transport)
{
    static unsigned number;

    number++;
    switch (transport) {
    case INPROC: snprintf(url, ENDPOINT_MAX, "inproc://place-%d-%u", (int)getpid(), number); break;
    case IPC: snprintf(url, ENDPOINT_MAX, "ipc://%s/%u.sock", scratch_dir(), number); break;
    case TCP: tcp_fresh(url, "tcp", number, ""); break;
    case TLS: tcp_fresh(url, "tls+tcp", number, ""); break;
    case WS: tcp_fresh(url, "ws", number, "/a/path"); break;
    case WSS: tcp_fresh(url, "wss", number, "/a/path"); break;
    case SHM: snprintf(url, ENDPOINT_MAX, "shm://%s/%u.sock", scratch_dir(), number); break;
    }
}

const char *
endpoint_path(const char *url)
{
    return strchr(url, ':') + strlen("://");
}
