/* SPDX-License-Identifier: MIT */
/* A source pushes numbers, each goes to one of the workers, all results come together in a sink. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <spoke/spoke.h>

enum { WORKERS = 3, TASKS = 100 };

static spoke_socket *
open_socket(int pattern)
{
    spoke_socket *s;

    if (spoke_socket_open(&s, pattern, NULL) != 0)
        exit(1);
    return s;
}

/* Until main closes the socket that it pulls from. */
static void *
work(void *tasks)
{
    spoke_socket *results = open_socket(SPOKE_PUSH);
    size_t size = sizeof(int);

    (void)spoke_dial(results, "inproc://results", NULL, 0);
    for (int n; spoke_recv_bytes(tasks, &n, &size, 0) == 0;)
        (void)spoke_send_bytes(results, &(int){n * n}, sizeof n, 0);
    spoke_socket_close(results); /* waits until the last result has left */
    return NULL;
}

int
main(void)
{
    spoke_socket *source = open_socket(SPOKE_PUSH), *sink = open_socket(SPOKE_PULL),
                 *tasks[WORKERS];
    pthread_t workers[WORKERS];
    size_t size = sizeof(int);
    int sum = 0;

    (void)spoke_listen(source, "inproc://tasks", NULL, 0);
    (void)spoke_listen(sink, "inproc://results", NULL, 0);
    for (int i = 0; i < WORKERS; i++) {
        (void)spoke_dial(tasks[i] = open_socket(SPOKE_PULL), "inproc://tasks", NULL, 0);
        sum += pthread_create(&workers[i], NULL, work, tasks[i]); /* adds nothing if all is well */
    }
    for (int i = 1; i <= TASKS; i++) /* waits while no worker has room */
        (void)spoke_send_bytes(source, &i, sizeof i, 0);
    for (int i = 1, result; i <= TASKS && spoke_recv_bytes(sink, &result, &size, 0) == 0; i++)
        sum += result;
    for (int i = 0; i < WORKERS; i++)
        if (spoke_socket_close(tasks[i]) == 0)
            pthread_join(workers[i], NULL);
    printf("the first %d squares add up to %d\n", TASKS, sum);
    return spoke_socket_close(source) | spoke_socket_close(sink) | (sum != 338350);
}
