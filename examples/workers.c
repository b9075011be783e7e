/* SPDX-License-Identifier: MIT */
/* Workers in processes of their own that are given open files, and give some back.  A job is a
 * message with a descriptor to read from and the sender for its answer, which has a descriptor too.
 *
 *     workers */
#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <spoke/spoke.h>

#define WORKERS 3
#define JOBS    12

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "workers: %s\n", spoke_strerror(rc));
    exit(1);
}

static spoke_ns
in_seconds(int n)
{
    return spoke_engine_now(NULL) + n * SPOKE_SECOND;
}

/* An open file without a name, with that in it, to be read from its beginning. */
static int
file_of(const char *text, size_t size)
{
    char name[] = "/tmp/job-XXXXXX";
    int fd = mkstemp(name);

    if (fd < 0 || unlink(name) != 0 || write(fd, text, size) != (ssize_t)size ||
        lseek(fd, 0, SEEK_SET) != 0) {
        perror("workers");
        exit(1);
    }
    return fd;
}

static size_t
read_all(int fd, char *text, size_t size)
{
    size_t have = 0;
    ssize_t n;

    while (have < size && (n = read(fd, text + have, size - have)) > 0)
        have += (size_t)n;
    close(fd);
    return have;
}

/* ---- a worker ---- */

static void
do_job(spoke_msg *job)
{
    spoke_sender *answer;
    spoke_msg *m;
    char text[512], by[32];
    size_t size;
    int fd;

    check(spoke_msg_take_fd(job, 0, &fd));
    check(spoke_msg_take_sender(job, 1, &answer));
    size = read_all(fd, text, sizeof text);
    for (size_t i = 0; i < size; i++)
        text[i] = (char)toupper((unsigned char)text[i]);
    snprintf(by, sizeof by, "worker %d", (int)getpid());
    check(spoke_msg_from(&m, by, strlen(by)));
    check(spoke_msg_attach_fd(m, file_of(text, size), SPOKE_ATTACHED_READS));
    check(spoke_sender_send(answer, m, SPOKE_FOREVER));
    check(spoke_sender_close(answer));
}

static void
work(const char *url)
{
    spoke_session *ss;
    spoke_receiver *jobs;
    spoke_msg *job;

    check(spoke_session_dial(&ss, url, NULL, NULL, in_seconds(5)));
    check(spoke_session_accept_receiver(ss, &jobs, NULL, SPOKE_FOREVER));
    while (spoke_receiver_recv(jobs, &job, SPOKE_FOREVER) == 0) {
        do_job(job);
        spoke_msg_free(job);
    }
    check(spoke_receiver_close(jobs));
    spoke_session_close(ss, 5 * SPOKE_SECOND);
}

/* ---- who has the jobs ---- */

static spoke_receiver *waiting; /* jobs; each is taken by one of the threads */

/* One thread for each worker.  A channel without depth has no job waiting behind another, so that
 * who is done first gets the next. */
static void *
employ(void *session)
{
    spoke_channel_config config;
    spoke_sender *worker;
    spoke_msg *job;

    spoke_channel_config_init(&config);
    config.depth = 0;
    check(spoke_session_open_sender(session, &worker, &config, NULL, in_seconds(5)));
    while (spoke_receiver_recv(waiting, &job, SPOKE_FOREVER) == 0)
        check(spoke_sender_send(worker, job, SPOKE_FOREVER));
    check(spoke_sender_close(worker));
    spoke_session_close(session, 5 * SPOKE_SECOND);
    return NULL;
}

static void
collect(int i, spoke_receiver *answers)
{
    char expected[64], text[64];
    spoke_msg *m;
    size_t size;
    int fd;

    check(spoke_receiver_recv(answers, &m, SPOKE_FOREVER));
    check(spoke_msg_take_fd(m, 0, &fd));
    size = read_all(fd, text, sizeof text - 1);
    text[size] = '\0';
    printf("%.*s: %s\n", (int)spoke_msg_size(m), (char *)spoke_msg_body(m), text);
    snprintf(expected, sizeof expected, "THIS IS JOB %d", i);
    if (strcmp(text, expected) != 0)
        exit(1);
    spoke_msg_free(m);
    check(spoke_receiver_close(answers));
}

int
main(void)
{
    char folder[] = "/tmp/workers-XXXXXX", url[64], text[64];
    spoke_session_listener *l;
    spoke_session *ss;
    spoke_sender *jobs;
    spoke_receiver *answers[JOBS];
    spoke_msg *m;
    pthread_t threads[WORKERS];
    int listening[2], status, failed = 0;

    if (mkdtemp(folder) == NULL || pipe(listening) != 0)
        return 1;
    snprintf(url, sizeof url, "ipc://%s/socket", folder);
    for (int i = 0; i < WORKERS; i++) { /* before this process has threads */
        if (fork() != 0)
            continue;
        close(listening[1]);
        (void)!read(listening[0], text, 1); /* its end */
        work(url);
        return 0;
    }
    check(spoke_session_listen(&l, url, NULL, NULL));
    close(listening[1]);
    check(spoke_channel_pair(&waiting, &jobs, NULL, NULL));
    for (int i = 0; i < WORKERS; i++) {
        check(spoke_session_accept(l, &ss, in_seconds(30)));
        check(pthread_create(&threads[i], NULL, employ, ss));
    }
    for (int i = 0; i < JOBS; i++) {
        snprintf(text, sizeof text, "this is job %d", i);
        check(spoke_msg_new(&m, 0));
        check(spoke_msg_attach_fd(m, file_of(text, strlen(text)), SPOKE_ATTACHED_READS));
        check(spoke_request(jobs, m, &answers[i], NULL, SPOKE_FOREVER));
    }
    for (int i = 0; i < JOBS; i++)
        collect(i, answers[i]);
    check(spoke_sender_close(jobs));
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    check(spoke_receiver_close(waiting));
    check(spoke_session_listener_close(l));
    while (wait(&status) > 0)
        failed |= status;
    rmdir(folder);
    return failed == 0 ? 0 : 1;
}
