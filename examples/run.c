/* SPDX-License-Identifier: MIT */
/* Commands run in another process: one message holds the command, three byte streams for what goes
 * in and comes out, and a sender for how it ended.
 *
 *     run                                          both here, in two processes, over ipc://
 *     run serve ipc:///run/user/1000/run.sock      runs what is asked of it, for who may connect
 *     run ask   ipc:///run/user/1000/run.sock ls -l */
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <spoke/spoke.h>

SPOKE_PLAIN_TYPE(status, I32);
#define COMMAND(FIELD, S)                                                                          \
    FIELD(S, LIST(TEXT), words)                                                                    \
    FIELD(S, STREAM_READ, in)   /* the recipient reads … */                                      \
    FIELD(S, STREAM_WRITE, out) /* … and writes */                                               \
    FIELD(S, STREAM_WRITE, err)                                                                    \
    FIELD(S, SENDER(status), ended)
SPOKE_STRUCT(command, COMMAND);
SPOKE_STRUCT_TYPE(command, COMMAND);

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "run: %s\n", spoke_strerror(rc));
    exit(1);
}

static spoke_channel_config
of_type(spoke_value_type *type)
{
    spoke_channel_config config;

    check(spoke_type_check(type));
    spoke_channel_config_init(&config);
    config.type = type;
    return config;
}

/* ---- who runs them ---- */

extern char **environ;

static status
run(const struct command *c, const int fds[3])
{
    posix_spawn_file_actions_t actions;
    char **words = calloc(c->words.count + 1, sizeof *words);
    int ended = -1;
    pid_t pid;

    for (size_t i = 0; words != NULL && i < c->words.count; i++)
        words[i] = strndup(c->words.items[i].data, c->words.items[i].size);
    posix_spawn_file_actions_init(&actions);
    for (int i = 0; i < 3; i++)
        posix_spawn_file_actions_adddup2(&actions, fds[i], i);
    if (words != NULL && words[0] != NULL &&
        posix_spawnp(&pid, words[0], &actions, NULL, words, environ) == 0)
        waitpid(pid, &ended, 0);
    posix_spawn_file_actions_destroy(&actions);
    for (size_t i = 0; words != NULL && i < c->words.count; i++)
        free(words[i]);
    free(words);
    return WIFEXITED(ended) ? WEXITSTATUS(ended) : -1;
}

/* Streams are taken as descriptors, for programs that know nothing of them. */
static void
carry_out(const struct command *c, spoke_msg *attached)
{
    const uint32_t streams[3] = {c->in, c->out, c->err};
    spoke_sender *ended;
    int fds[3];
    status how;

    for (int i = 0; i < 3; i++)
        check(spoke_msg_take_fd(attached, streams[i], &fds[i]));
    check(spoke_msg_take_sender(attached, c->ended, &ended));
    check(spoke_sender_set_type(ended, &status_type));
    how = run(c, fds);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    spoke_sender_send_value(ended, &how, NULL, SPOKE_FOREVER); /* if the asker is still there */
    check(spoke_sender_close(ended));
}

/* One asker after the other.  `ready`: closed once somebody may connect. */
static void
serve(const char *url, int ready, bool once)
{
    const spoke_channel_config commands = of_type(&command_type);
    spoke_session_listener *l;
    spoke_session *ss;
    spoke_receiver *rx;
    struct command c;
    spoke_backing backing;

    check(spoke_type_check(&status_type));
    check(spoke_session_listen(&l, url, NULL, NULL));
    if (ready >= 0)
        close(ready);
    for (int served = 0; !once || served == 0; served++) {
        check(spoke_session_accept(l, &ss, SPOKE_FOREVER));
        if (spoke_session_accept_receiver(ss, &rx, &commands, SPOKE_FOREVER) == 0) {
            while (spoke_receiver_recv_value(rx, &c, &backing, SPOKE_FOREVER) == 0) {
                carry_out(&c, backing.message);
                spoke_backing_free(&backing);
            }
            check(spoke_receiver_close(rx));
        }
        spoke_session_close(ss, SPOKE_SECOND);
    }
    check(spoke_session_listener_close(l));
}

/* ---- who asks ---- */

struct flow {
    spoke_stream *s;
    FILE *file;
};
static pthread_t threads[3]; /* the first may wait for its file still when all is over */

static void *
feed(void *arg)
{
    struct flow *f = arg;
    char line[512];
    size_t n;

    while (fgets(line, sizeof line, f->file) != NULL &&
           spoke_stream_write(f->s, line, strlen(line), &n) == 0)
        ;
    spoke_stream_close_write(f->s);
    return NULL;
}

static void *
show(void *arg)
{
    struct flow *f = arg;
    char text[512];
    size_t n;

    while (spoke_stream_read(f->s, text, sizeof text, &n) == 0)
        fwrite(text, 1, n, f->file);
    fflush(f->file);
    return NULL;
}

static int
ask(const char *url, char **words, FILE *const files[3])
{
    const spoke_channel_config commands = of_type(&command_type), statuses = of_type(&status_type);
    struct command c = {.in = 0, .out = 1, .err = 2, .ended = 3};
    static struct flow flows[3];
    spoke_text texts[64];
    spoke_session *ss;
    spoke_sender *tx, *ended;
    spoke_receiver *rx;
    spoke_stream *theirs;
    spoke_msg *attached;
    spoke_backing backing;
    status how;

    for (c.words.items = texts; words[c.words.count] != NULL && c.words.count < 64; c.words.count++)
        texts[c.words.count] = spoke_text_of(words[c.words.count]);
    check(spoke_msg_new(&attached, 0));
    for (int i = 0; i < 3; i++) {
        flows[i].file = files[i];
        check(spoke_stream_pair(&flows[i].s, &theirs, NULL, NULL));
        check(spoke_msg_attach_stream(attached, theirs,
                                      i == 0 ? SPOKE_ATTACHED_READS : SPOKE_ATTACHED_WRITES));
    }
    check(spoke_channel_pair(&rx, &ended, &statuses, NULL));
    check(spoke_msg_attach_sender(attached, ended));

    check(spoke_session_dial(&ss, url, NULL, NULL, spoke_engine_now(NULL) + 30 * SPOKE_SECOND));
    check(spoke_session_open_sender(ss, &tx, &commands, NULL, SPOKE_FOREVER));
    check(spoke_sender_send_value(tx, &c, attached, SPOKE_FOREVER));
    for (int i = 0; i < 3; i++)
        check(pthread_create(&threads[i], NULL, i == 0 ? feed : show, &flows[i]));
    check(spoke_receiver_recv_value(rx, &how, &backing, SPOKE_FOREVER));
    spoke_backing_free(&backing);
    for (int i = 1; i < 3; i++)
        pthread_join(threads[i], NULL);
    check(spoke_receiver_close(rx));
    check(spoke_sender_close(tx));
    for (int i = 0; i < 3; i++)
        check(spoke_stream_close(flows[i].s)); /* `feed` ends then */
    spoke_session_close(ss, SPOKE_SECOND);
    return how;
}

/* Both, in two processes: made before this one has threads. */
static int
demonstrate(void)
{
    char folder[] = "/tmp/run-XXXXXX", url[64], in[] = "hello\n";
    char *words[] = {"sh", "-c", "tr a-z A-Z; echo done >&2; exit 3", NULL};
    FILE *files[3];
    char *text[3] = {NULL};
    size_t sizes[3];
    int ready[2], how, good;
    pid_t server;

    if (mkdtemp(folder) == NULL || pipe(ready) != 0)
        return 1;
    snprintf(url, sizeof url, "ipc://%s/socket", folder);
    if ((server = fork()) == 0) {
        close(ready[0]);
        serve(url, ready[1], true);
        _exit(0);
    }
    close(ready[1]);
    (void)!read(ready[0], url + sizeof url - 1, 1); /* its end */
    close(ready[0]);
    files[0] = fmemopen(in, strlen(in), "r");
    for (int i = 1; i < 3; i++)
        files[i] = open_memstream(&text[i], &sizes[i]);
    how = ask(url, words, files);
    pthread_join(threads[0], NULL);
    for (int i = 0; i < 3; i++)
        fclose(files[i]);
    printf("ended with %d\nsaid: %sand: %s", how, text[1], text[2]);
    good = how == 3 && strcmp(text[1], "HELLO\n") == 0 && strcmp(text[2], "done\n") == 0;
    free(text[1]);
    free(text[2]);
    waitpid(server, &how, 0);
    rmdir(folder);
    return good && how == 0 ? 0 : 1;
}

int
main(int argc, char **argv)
{
    if (argc > 3 && strcmp(argv[1], "ask") == 0)
        return ask(argv[2], argv + 3, (FILE *[3]){stdin, stdout, stderr});
    if (argc < 3)
        return demonstrate();
    serve(argv[2], -1, false);
    return 0;
}
