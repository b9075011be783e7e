/* SPDX-License-Identifier: MIT */
/* A chat over multiplexers: each member has one connection, and on it a stream for each speaker.
 *
 *     chat                                 all of it here, over inproc://
 *     chat serve tcp://127.0.0.1:9000      a room
 *     chat join  tcp://127.0.0.1:9000 ann  says what comes on standard input */
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <spoke/spoke.h>

#define MEMBERS 16

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "chat: %s\n", spoke_strerror(rc));
    exit(1);
}

static spoke_ns
in_seconds(int n)
{
    return spoke_engine_now(NULL) + n * SPOKE_SECOND;
}

/* ---- the room ---- */

static struct member {
    pthread_t thread;
    spoke_mux *mux;
    spoke_stream *to[MEMBERS]; /* what each of the others says */
    bool is_here, is_listening;
} members[MEMBERS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Who does not listen for five seconds hears no more. */
static int
pass_on(struct member *to, int speaker, spoke_msg *name, const char *text, size_t size)
{
    spoke_stream **s = &to->to[speaker];
    size_t done;
    int rc = 0;

    if (*s == NULL)
        rc = spoke_mux_dial(to->mux, s, spoke_msg_body(name), spoke_msg_size(name), NULL,
                            in_seconds(5));
    if (rc == 0)
        rc = spoke_stream_set_write_deadline(*s, in_seconds(5));
    return rc == 0 ? spoke_stream_write(*s, text, size, &done) : rc;
}

/* The member's own stream, with its name as what it is for. */
static void *
attend(void *arg)
{
    struct member *me = arg;
    int number = (int)(me - members);
    spoke_stream *s;
    spoke_msg *name;
    char text[512];
    size_t n;

    if (spoke_mux_accept(me->mux, &s, &name, in_seconds(5)) == 0 && name != NULL) {
        pthread_mutex_lock(&lock);
        me->is_listening = spoke_stream_write(s, "\n", 1, &n) == 0; /* welcome */
        pthread_mutex_unlock(&lock);
        while (spoke_stream_read(s, text, sizeof text, &n) == 0) {
            pthread_mutex_lock(&lock);
            for (struct member *to = members; to < members + MEMBERS; to++)
                if (to != me && to->is_listening)
                    to->is_listening = pass_on(to, number, name, text, n) == 0;
            pthread_mutex_unlock(&lock);
        }
        spoke_stream_close(s);
        spoke_msg_free(name);
    }
    pthread_mutex_lock(&lock);
    me->is_listening = false;
    for (int i = 0; i < MEMBERS; i++) { /* NULL: nothing was said, or to nobody */
        spoke_stream_close(me->to[i]);
        spoke_stream_close(members[i].to[number]);
        me->to[i] = members[i].to[number] = NULL;
    }
    spoke_mux_close(me->mux, SPOKE_SECOND);
    me->is_here = false;
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void *
serve(void *listener)
{
    spoke_mux_config config;
    spoke_stream *carrier;
    struct member *m;

    spoke_mux_config_init(&config);
    config.even = true; /* of a connection's two ends, the one that accepted it */
    while (spoke_stream_accept(listener, &carrier, SPOKE_FOREVER) == 0) {
        pthread_mutex_lock(&lock);
        for (m = members; m < members + MEMBERS && m->is_here; m++)
            ;
        if (m == members + MEMBERS || spoke_mux_open(&m->mux, carrier, &config) != 0 ||
            pthread_create(&m->thread, NULL, attend, m) != 0)
            spoke_stream_close(carrier);
        else
            m->is_here = pthread_detach(m->thread) == 0;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

/* ---- members ---- */

static sem_t heard;

static void
hear(spoke_stream *s, unsigned what, void *name)
{
    char text[512];
    size_t n;
    int rc;

    (void)what;
    while ((rc = spoke_stream_read(s, text, sizeof text, &n)) == 0) {
        printf("%.*s: %.*s", (int)spoke_msg_size(name), (char *)spoke_msg_body(name), (int)n, text);
        for (size_t i = 0; i < n; i++)
            if (text[i] == '\n')
                sem_post(&heard);
    }
    if (rc == SPOKE_EAGAIN)
        return;
    spoke_msg_free(name);
    spoke_stream_close(s);
}

static void
somebody_speaks(spoke_mux *m, void *ctx)
{
    spoke_stream *s;
    spoke_msg *name;

    (void)ctx;
    while (spoke_mux_accept(m, &s, &name, SPOKE_NOW) == 0) {
        check(spoke_stream_set_read_deadline(s, SPOKE_NOW));
        check(spoke_stream_on_ready(s, hear, name));
    }
}

static spoke_mux *
join(const char *url, const char *name, spoke_stream **mouth)
{
    spoke_stream *carrier;
    spoke_mux *m;
    char welcome;
    size_t n;

    check(spoke_stream_dial(&carrier, url, NULL, NULL, in_seconds(5)));
    check(spoke_mux_open(&m, carrier, NULL));
    check(spoke_mux_on_ready(m, somebody_speaks, NULL));
    check(spoke_mux_dial(m, mouth, name, strlen(name), NULL, in_seconds(5)));
    check(spoke_stream_read(*mouth, &welcome, 1, &n));
    return m;
}

static void
leave(spoke_mux *m, spoke_stream *mouth)
{
    check(spoke_stream_close(mouth));
    check(spoke_mux_close(m, 5 * SPOKE_SECOND));
}

/* Three members: each says hello, and hears it from the two others. */
static void
rehearse(const char *url)
{
    static const char *const names[3] = {"ann", "bob", "cyd"};
    spoke_stream *mouths[3];
    spoke_mux *muxes[3];
    size_t n;

    for (int i = 0; i < 3; i++)
        muxes[i] = join(url, names[i], &mouths[i]);
    for (int i = 0; i < 3; i++)
        check(spoke_stream_write(mouths[i], "hello\n", 6, &n));
    for (int i = 0; i < 6; i++)
        sem_wait(&heard);
    for (int i = 0; i < 3; i++)
        leave(muxes[i], mouths[i]);
}

int
main(int argc, char **argv)
{
    const char *url = argc > 2 ? argv[2] : "inproc://chat";
    spoke_stream_listener *listener;
    spoke_stream *mouth;
    spoke_mux *m;
    pthread_t room;
    char line[512];
    size_t n;

    sem_init(&heard, 0, 0);
    if (argc > 3 && strcmp(argv[1], "join") == 0) {
        m = join(url, argv[3], &mouth);
        while (fgets(line, sizeof line, stdin) != NULL)
            check(spoke_stream_write(mouth, line, strlen(line), &n));
        leave(m, mouth);
        return 0;
    }
    check(spoke_stream_listen(&listener, url, NULL, NULL));
    if (argc > 2) {
        serve(listener);
    } else if (pthread_create(&room, NULL, serve, listener) == 0) {
        rehearse(url);
        check(spoke_stream_listener_close(listener)); /* ends the wait for the next */
        pthread_join(room, NULL);
    }
    return 0;
}
