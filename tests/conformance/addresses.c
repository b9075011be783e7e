/* SPDX-License-Identifier: MIT */
/* Addresses of each transport, what a pipe knows of its peer, and the files that a listener leaves.
 */
#include "tests/support/world.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int
remember_pipe(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    (void)s;
    if (event->type == SPOKE_EVENT_ATTACHED)
        atomic_store((_Atomic spoke_pipe_id *)ctx, event->pipe);
    return 0;
}

static void
get_text(struct node *n, spoke_pipe_id pipe, const char *name, char text[ENDPOINT_MAX])
{
    size_t size = ENDPOINT_MAX;
    int rc = node_pipe_get(n, pipe, name, SPOKE_STRING, text, &size);

    cr_assert_eq(rc, 0, "%s: %s", name, spoke_error_name(rc));
    cr_assert_eq(size, strlen(text) + 1);
}

WORLD_TEST(addresses, a_pipe_knows_both_ends, world_cases, .timeout = 30)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    _Atomic spoke_pipe_id here = 0, there = 0;
    char url[ENDPOINT_MAX], local[ENDPOINT_MAX], remote[ENDPOINT_MAX];
    size_t size = sizeof local;

    cr_assert_eq(node_on_event(a, remember_pipe, &here), 0);
    cr_assert_eq(node_on_event(b, remember_pipe, &there), 0);
    world_url(w, url);
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    cr_assert_eq(node_dial(b, url, NULL, 0), 0);
    world_wait_pipes(w, a, 1);
    world_wait_pipes(w, b, 1);
    cr_assert_neq(atomic_load(&here), atomic_load(&there), "numbers are the process's");

    const char *place = strstr(url, "://") + 3;
    get_text(a, here, SPOKE_OPT_LOCAL_ADDRESS, local);
    get_text(b, there, SPOKE_OPT_REMOTE_ADDRESS, remote);
    cr_assert_not_null(strstr(local, place), "listener, local: %s", local);
    cr_assert_str_eq(local, remote, "the same place, seen from both sides");
    get_text(a, here, SPOKE_OPT_REMOTE_ADDRESS, remote);
    get_text(b, there, SPOKE_OPT_LOCAL_ADDRESS, local);
    if (c->transport == TCP)
        cr_assert_str_eq(local, remote);
    get_text(b, there, SPOKE_OPT_URL, local);
    cr_assert_str_eq(local, url);

    int rc = node_pipe_get(a, 0, SPOKE_OPT_URL, SPOKE_STRING, local, &size);
    cr_assert_eq(rc, SPOKE_ENOENT, "%s", spoke_error_name(rc));
    rc = node_pipe_get(a, here, "nothing", SPOKE_STRING, local, &size);
    cr_assert_eq(rc, SPOKE_EOPTION, "%s", spoke_error_name(rc));
    rc = node_pipe_get(a, here, SPOKE_OPT_URL, SPOKE_INT, local, &size);
    cr_assert_eq(rc, SPOKE_ETYPE, "%s", spoke_error_name(rc));
    spoke_pipe_id gone = here;
    cr_assert_eq(node_close(b, NULL), 0);
    b->s = NULL;
    world_wait_pipes(w, a, 0);
    rc = node_pipe_get(a, gone, SPOKE_OPT_URL, SPOKE_STRING, local, &size);
    cr_assert_eq(rc, SPOKE_ENOENT, "%s", spoke_error_name(rc));
    world_close(w);
}

static int
get_number(struct node *n, spoke_pipe_id pipe, const char *name)
{
    int value = -1;
    size_t size = sizeof value;
    int rc = node_pipe_get(n, pipe, name, SPOKE_INT, &value, &size);

    cr_assert_eq(rc, 0, "%s: %s", name, spoke_error_name(rc));
    return value;
}

WORLD_TEST(addresses, an_ipc_pipe_knows_who_its_peer_is, world_cases_files, .timeout = 30)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    _Atomic spoke_pipe_id here = 0, there = 0;

    cr_assert_eq(node_on_event(a, remember_pipe, &here), 0);
    cr_assert_eq(node_on_event(b, remember_pipe, &there), 0);
    world_connect(w, a, b);
    for (int side = 0; side < 2; side++) {
        struct node *n = side == 0 ? a : b;
        spoke_pipe_id pipe = side == 0 ? here : there;
        cr_assert_eq(get_number(n, pipe, SPOKE_OPT_PEER_PID), (int)getpid());
        cr_assert_eq(get_number(n, pipe, SPOKE_OPT_PEER_UID), (int)geteuid());
        cr_assert_eq(get_number(n, pipe, SPOKE_OPT_PEER_GID), (int)getegid());
    }
    world_close(w);
}

WORLD_TEST(addresses, port_0_becomes_a_port_that_can_be_dialed, world_cases_tcp, .timeout = 30)
{
    static const char *const urls[] = {"tcp://127.0.0.1:0", "tcp://*:0", "tcp://:0",
                                       "tcp://[::1]:0"};

    struct world *w = world_open(c);

    for (int i = 0; i < 4; i++) {
        struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
        char url[ENDPOINT_MAX], asked[ENDPOINT_MAX];
        spoke_listener *l;
        int rc = node_listen(a, urls[i], &l, 0);
        if (i == 3 && (rc == SPOKE_EADDRNOTAVAIL || rc == SPOKE_ENOTSUP))
            continue; /* no IPv6 on this machine */
        cr_assert_eq(rc, 0, "%s: %s", urls[i], spoke_error_name(rc));
        cr_assert_eq(node_address(a, l, url), 0);
        const char *port = strrchr(url, ':');
        cr_assert(port != NULL && atoi(port + 1) > 0, "%s", url);
        rc = node_dial(b, url, NULL, SPOKE_WAIT_FIRST);
        cr_assert_eq(rc, 0, "dial %s: %s", url, spoke_error_name(rc));
        cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
        cr_assert_eq(node_expect(a, 10, 1), 0);
        if (world_mode(w) != OWNED_TWO) {
            cr_assert_eq(spoke_listener_get_string(l, SPOKE_OPT_URL, asked, sizeof asked), 0);
            cr_assert_str_eq(asked, urls[i], "as given");
        }
    }
    world_close(w);
}

WORLD_TEST(addresses, a_name_is_resolved, world_cases_tcp, .timeout = 30)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX], named[ENDPOINT_MAX];
    spoke_listener *l;

    cr_assert_eq(node_listen(a, "tcp://*:0", &l, 0), 0);
    cr_assert_eq(node_address(a, l, url), 0);
    snprintf(named, sizeof named, "tcp://localhost%s", strrchr(url, ':'));
    int rc = node_dial(b, named, NULL, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, 0, "%s: %s", named, spoke_error_name(rc));
    cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
    cr_assert_eq(node_expect(a, 10, 1), 0);
    world_close(w);
}

WORLD_TEST(addresses, abstract_names_leave_no_file, world_cases_files, .timeout = 30)
{
    static const char *const schemes[] = {"ipc://@", "abstract://"};
    struct world *w = world_open(c);

    for (int i = 0; i < 2; i++) {
        struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
        char url[ENDPOINT_MAX], other[ENDPOINT_MAX];
        snprintf(url, sizeof url, "%sspoke-test-%d-%d", schemes[i], (int)getpid(), i);
        snprintf(other, sizeof other, "%sspoke-test-%d-%d", schemes[!i], (int)getpid(), i);
        int rc = node_listen(a, url, NULL, 0);
        cr_assert_eq(rc, 0, "%s: %s", url, spoke_error_name(rc));
        rc = node_dial(b, other, NULL, SPOKE_WAIT_FIRST);
        cr_assert_eq(rc, 0, "%s: %s", other, spoke_error_name(rc));
        cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
        cr_assert_eq(node_expect(a, 10, 1), 0);
    }
    world_close(w);
}

WORLD_TEST(addresses, the_mode_of_a_socket_file_can_be_chosen, world_cases_files, .timeout = 30)
{
    static const int modes[] = {0600, 0666, 0777, 0};
    struct world *w = world_open(c);
    mode_t mask = umask(022);

    for (int i = 0; i < 5; i++) {
        struct node *a = world_add(w, SPOKE_PAIR);
        char url[ENDPOINT_MAX];
        struct stat status;
        if (i < 4)
            cr_assert_eq(node_set_int(a, SPOKE_OPT_IPC_MODE, modes[i]), 0);
        world_url(w, url);
        cr_assert_eq(node_listen(a, url, NULL, 0), 0);
        cr_assert_eq(lstat(endpoint_path(url), &status), 0);
        cr_assert(S_ISSOCK(status.st_mode));
        int wanted = i < 4 ? modes[i] : 0755;
        cr_assert_eq((int)(status.st_mode & 0777), wanted, "%o, wanted %o",
                     (unsigned)status.st_mode & 0777, (unsigned)wanted);
    }
    umask(mask);
    world_close(w);
}

WORLD_TEST(addresses, a_listener_removes_its_socket_file_and_no_other, world_cases_files,
           .timeout = 30)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_listener *l;
    struct stat status;

    world_url(w, url);
    const char *path = endpoint_path(url);
    cr_assert_eq(node_listen(a, url, &l, 0), 0);
    cr_assert_eq(lstat(path, &status), 0);
    cr_assert_eq(node_listener_close(a, l), 0);
    cr_assert_eq(lstat(path, &status), -1);

    /* Somebody took the file away, and somebody else's is there now. */
    cr_assert_eq(node_listen(a, url, &l, 0), 0);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(node_listen(b, url, NULL, 0), 0);
    cr_assert_eq(node_listener_close(a, l), 0);
    cr_assert_eq(lstat(path, &status), 0, "the other's file is left alone");
    cr_assert_eq(node_close(b, NULL), 0);
    b->s = NULL;
    cr_assert_eq(lstat(path, &status), -1);
    world_close(w);
}

WORLD_TEST(addresses, a_stale_socket_file_is_replaced, world_cases_files, .timeout = 30)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char url[ENDPOINT_MAX];

    world_url(w, url);
    strncpy(address.sun_path, endpoint_path(url), sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(fd, 1), 0);
    int rc = node_listen(a, url, NULL, 0);
    cr_assert_eq(rc, SPOKE_EADDRINUSE, "while its owner lives: %s", spoke_error_name(rc));
    close(fd);
    rc = node_listen(a, url, NULL, 0);
    cr_assert_eq(rc, 0, "when it is gone: %s", spoke_error_name(rc));
    world_close(w);
}

WORLD_TEST(addresses, a_relative_path_is_relative, world_cases_files, .timeout = 30)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct stat status;

    cr_assert_eq(chdir(scratch_dir()), 0);
    cr_assert_eq(node_listen(a, "ipc://near.sock", NULL, 0), 0);
    cr_assert_eq(lstat("near.sock", &status), 0);
    cr_assert_eq(node_dial(b, "ipc://near.sock", NULL, SPOKE_WAIT_FIRST), 0);
    cr_assert_eq(node_close(a, NULL), 0);
    a->s = NULL;
    cr_assert_eq(lstat("near.sock", &status), -1);
    cr_assert_eq(chdir("/"), 0);
    world_close(w);
}
