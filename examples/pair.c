/* SPDX-License-Identifier: MIT */
/* Two processes, one connection, messages both ways in any order: PAIR over a unix socket. */
#include <stdio.h>
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
hear(spoke_socket *s, const char *who)
{
    char text[64];
    size_t size = sizeof text;

    check(spoke_recv_bytes(s, text, &size, 0));
    printf("%s heard: %.*s\n", who, (int)size, text);
    fflush(stdout);
}

int
main(void)
{
    spoke_socket *s;
    char url[64];
    int status = 0;

    /* @: a name without a file.  Fork first: what one process has opened, its children cannot use.
     */
    snprintf(url, sizeof url, "ipc://@spoke-pair-%d", (int)getpid());
    pid_t pid = fork();
    if (pid < 0)
        return 1;
    check(spoke_socket_open(&s, SPOKE_PAIR, NULL));
    check(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 30 * SPOKE_SECOND));
    if (pid == 0) {
        check(spoke_dial(s, url, NULL, 0)); /* nobody needs to listen yet */
        check(spoke_send_bytes(s, "I am your child", 15, 0));
        check(spoke_send_bytes(s, "is anybody there?", 17, 0)); /* without an answer in between */
        hear(s, "child");
    } else {
        check(spoke_listen(s, url, NULL, 0));
        hear(s, "parent");
        hear(s, "parent");
        check(spoke_send_bytes(s, "yes", 3, 0));
        waitpid(pid, &status, 0);
    }
    check(spoke_socket_close(s));
    return status == 0 ? 0 : 1;
}
