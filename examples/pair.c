/* SPDX-License-Identifier: MIT */
/* Two processes, one connection, messages both ways in any order: PAIR over a unix socket. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <spoke/spoke.h>

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "pair: %s\n", spoke_strerror(rc));
    _exit(1);
}

static void
say(spoke_socket *s, const char *text)
{
    check(spoke_send_bytes(s, text, strlen(text), 0));
}

static void
hear(spoke_socket *s, const char *who)
{
    char text[64];
    size_t size = sizeof text;

    check(spoke_recv_bytes(s, text, &size, 0));
    printf("%s heard: %.*s\n", who, (int)size, text);
    fflush(stdout);
}

static spoke_socket *
open_pair(void)
{
    spoke_socket *s;

    check(spoke_socket_open(&s, SPOKE_PAIR, NULL));
    check(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 5 * SPOKE_SECOND));
    return s;
}

static void
child(const char *url)
{
    spoke_socket *s = open_pair();

    check(spoke_dial(s, url, NULL, 0));
    say(s, "I am your child");
    say(s, "is anybody there?"); /* no answer is needed in between */
    hear(s, "child");
    check(spoke_socket_close(s));
    _exit(0);
}

static int
parent(const char *url, pid_t pid)
{
    spoke_socket *s = open_pair();
    int status;

    check(spoke_listen(s, url, NULL, 0));
    hear(s, "parent");
    hear(s, "parent");
    say(s, "yes");
    waitpid(pid, &status, 0);
    check(spoke_socket_close(s)); /* removes the socket file */
    return status == 0 ? 0 : 1;
}

int
main(void)
{
    char directory[] = "/tmp/spoke-pair-XXXXXX", url[64];
    pid_t pid;
    int status;

    if (mkdtemp(directory) == NULL)
        return 1;
    snprintf(url, sizeof url, "ipc://%s/s", directory);
    /* Fork first: what one process has opened, its children cannot use. */
    if ((pid = fork()) == 0)
        child(url);
    status = pid < 0 ? 1 : parent(url, pid);
    rmdir(directory);
    return status;
}
