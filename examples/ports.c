/* SPDX-License-Identifier: MIT */
/* Channels by name: one process offers them, another binds its own to them.
 *
 *     ports                                both here, in two processes, over ipc://
 *     ports serve tcp://127.0.0.1:9000     a number of squares for who asks, and an ear for words
 *     ports ask   tcp://127.0.0.1:9000 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <spoke/spoke.h>

#define SQUARE(FIELD, S)                                                                           \
    FIELD(S, U32, root)                                                                            \
    FIELD(S, U64, square)
SPOKE_STRUCT(square, SQUARE);
SPOKE_STRUCT_TYPE(square, SQUARE);
SPOKE_PLAIN_TYPE(word, TEXT);

static void
check(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "ports: %s\n", spoke_strerror(rc));
    exit(1);
}

static void
check_types(void)
{
    check(spoke_type_check(&square_type));
    check(spoke_type_check(&word_type));
}

/* ---- who offers ---- */

/* As many as somebody takes: a send waits for an importer with room. */
static void *
count(void *tx)
{
    struct square s = {.root = 0};

    do {
        s.root++;
        s.square = (uint64_t)s.root * s.root;
    } while (spoke_sender_send_value(tx, &s, NULL, SPOKE_FOREVER) == 0);
    return NULL;
}

/* `ready`: closed once somebody may connect. */
static void
serve(const char *url, int ready, bool once)
{
    spoke_port_config config;
    spoke_exporter *ex;
    spoke_sender *squares;
    spoke_receiver *words;
    spoke_backing backing;
    pthread_t counter;
    word w;

    check_types();
    spoke_port_config_init(&config);
    config.flags = once ? SPOKE_PORT_END_WITH_FIRST : 0;
    check(spoke_exporter_open(&ex, NULL, NULL));
    check(spoke_exporter_export_sender(ex, "squares", &square_type, NULL, &squares));
    check(spoke_exporter_export_receiver(ex, "words", &word_type, &config, &words));
    check(spoke_exporter_listen(ex, url, NULL));
    if (ready >= 0)
        close(ready);
    check(pthread_create(&counter, NULL, count, squares));
    while (spoke_receiver_recv_value(words, &w, &backing, SPOKE_FOREVER) == 0) {
        printf("heard: %.*s\n", (int)w.size, w.data);
        spoke_backing_free(&backing);
    }
    check(spoke_receiver_close(words));
    check(spoke_exporter_hangup(ex, "squares")); /* ends `count` */
    pthread_join(counter, NULL);
    check(spoke_sender_close(squares));
    check(spoke_exporter_close(ex, SPOKE_SECOND));
}

/* ---- who asks ---- */

static int
ask(const char *url)
{
    spoke_port_config ten;
    spoke_importer *im;
    spoke_sender *words;
    spoke_receiver *squares;
    spoke_backing backing;
    struct square s;
    word w = spoke_text_of("thank you");
    uint64_t sum = 0;
    const spoke_ns soon = spoke_engine_now(NULL) + 10 * SPOKE_SECOND;

    check_types();
    check(spoke_importer_dial(&im, url, NULL, NULL, soon));
    if (spoke_importer_import_receiver(im, "squares", &word_type, NULL, &squares, soon) !=
        SPOKE_ETYPE) /* they are no words */
        return 1;
    spoke_port_config_init(&ten);
    ten.count = 10; /* then both sides close */
    check(spoke_importer_import_receiver(im, "squares", &square_type, &ten, &squares, soon));
    while (spoke_receiver_recv_value(squares, &s, &backing, SPOKE_FOREVER) == 0) {
        printf("%u * %u = %llu\n", s.root, s.root, (unsigned long long)s.square);
        sum += s.square - (uint64_t)s.root * s.root + 1;
        spoke_backing_free(&backing);
    }
    check(spoke_receiver_close(squares));

    check(spoke_importer_import_sender(im, "words", &word_type, NULL, &words, soon));
    check(spoke_sender_send_value(words, &w, NULL, SPOKE_FOREVER));
    check(spoke_sender_close(words));
    check(spoke_importer_drain(im, soon)); /* it has been taken */
    check(spoke_importer_close(im, SPOKE_SECOND));
    return sum == 10 ? 0 : 1;
}

/* Both, in two processes: made before this one has threads. */
static int
demonstrate(void)
{
    char folder[] = "/tmp/ports-XXXXXX", url[64], end;
    int ready[2], result, status;
    pid_t server;

    if (mkdtemp(folder) == NULL || pipe(ready) != 0)
        return 1;
    snprintf(url, sizeof url, "ipc://%s/socket", folder);
    if ((server = fork()) == 0) {
        close(ready[0]);
        serve(url, ready[1], true);
        exit(0);
    }
    close(ready[1]);
    (void)!read(ready[0], &end, 1);
    close(ready[0]);
    result = ask(url);
    waitpid(server, &status, 0);
    rmdir(folder);
    return result == 0 && status == 0 ? 0 : 1;
}

int
main(int argc, char **argv)
{
    if (argc < 3)
        return demonstrate();
    if (strcmp(argv[1], "ask") == 0)
        return ask(argv[2]);
    serve(argv[2], -1, false);
    return 0;
}
