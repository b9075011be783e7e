/* SPDX-License-Identifier: MIT */
/* A survey: one question to everybody who is there, and as many answers as come in time.
 *
 *     survey [URL [TEXT]]     try it with: spoke cat --respondent --bind URL -D hi
 *
 * Without a URL it has three respondents of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <spoke/spoke.h>

static char *names[] = {"Ada", "Bertha", "Christine"};

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "survey: %s\n", spoke_strerror(rc));
    exit(1);
}

/* A callback answers, so no thread has to wait. */
static void
answer(spoke_socket *s, spoke_msg *m, void *name)
{
    spoke_msg_free(m);
    check(spoke_send_bytes(s, name, strlen(name), SPOKE_DONTWAIT));
}

int
main(int argc, char **argv)
{
    const char *text = argc > 2 ? argv[2] : "who?";
    spoke_socket *surveyor, *respondent;
    spoke_msg *m;
    int rc;

    check(spoke_socket_open(&surveyor, SPOKE_SURVEYOR, NULL));
    check(spoke_socket_set_duration(surveyor, SPOKE_OPT_SURVEY_TIME, SPOKE_SECOND / 2));
    for (int i = 0; i < (argc > 1 ? 1 : 3); i++) {
        char own[32];
        snprintf(own, sizeof own, "inproc://%s", names[i]);
        if (argc == 1) {
            check(spoke_socket_open(&respondent, SPOKE_RESPONDENT, NULL));
            check(spoke_socket_on_message(respondent, answer, names[i]));
            check(spoke_listen(respondent, own, NULL, 0));
        }
        check(spoke_dial(surveyor, argc > 1 ? argv[1] : own, NULL, SPOKE_WAIT_FIRST));
    }
    check(spoke_send_bytes(surveyor, text, strlen(text), 0)); /* to those who are there now */
    while ((rc = spoke_recv(surveyor, &m, 0)) == 0) {
        printf("%s -> %.*s\n", text, (int)spoke_msg_size(m), (char *)spoke_msg_body(m));
        spoke_msg_free(m);
    }
    return rc == SPOKE_ETIMEDOUT ? 0 : 1; /* the time is up */
}
