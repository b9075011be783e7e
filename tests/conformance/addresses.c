/* SPDX-License-Identifier: MIT */
/* Addresses of each transport, what a pipe knows of its peer, and the files that a listener leaves.
 */
#include "tests/support/world.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
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

static bool
is_known(void *ctx)
{
    return atomic_load((_Atomic spoke_pipe_id *)ctx) != 0;
}

/* What is told of a pipe comes after it counts. */
static void
wait_known(struct world *w, _Atomic spoke_pipe_id *id)
{
    cr_assert(world_until(w, is_known, id, WORLD_PATIENCE), "no event");
}

struct lost {
    struct node *n;
    spoke_pipe_id pipe;
};

/* That a pipe counts no more may show a little before. */
static bool
is_gone(void *ctx)
{
    const struct lost *lost = ctx;
    char url[ENDPOINT_MAX];
    size_t size = sizeof url;
    int rc = node_pipe_get(lost->n, lost->pipe, SPOKE_OPT_URL, SPOKE_STRING, url, &size);

    cr_assert(rc == 0 || rc == SPOKE_ENOENT, "%s", spoke_error_name(rc));
    return rc == SPOKE_ENOENT;
}

WORLD_TEST(addresses, a_pipe_knows_both_ends, world_cases)
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
    wait_known(w, &here);
    wait_known(w, &there);
    cr_assert_neq(atomic_load(&here), atomic_load(&there), "numbers are the process's");

    const char *place = strstr(url, "://") + 3;
    get_text(a, here, SPOKE_OPT_LOCAL_ADDRESS, local);
    get_text(b, there, SPOKE_OPT_REMOTE_ADDRESS, remote);
    size_t size_of_place = transport_is_ws(c->transport)
                               ? strcspn(place, "/") /* connections have no path */
                               : strlen(place);
    const char *local_place = strstr(local, "://") + 3;
    cr_assert(strncmp(local_place, place, size_of_place) == 0 && local_place[size_of_place] == '\0',
              "listener, local: %s", local);
    cr_assert_str_eq(local, remote, "the same place, seen from both sides");
    get_text(a, here, SPOKE_OPT_REMOTE_ADDRESS, remote);
    get_text(b, there, SPOKE_OPT_LOCAL_ADDRESS, local);
    if (transport_is_on_tcp(c->transport))
        cr_assert_str_eq(local, remote);
    get_text(b, there, SPOKE_OPT_URL, local);
    cr_assert_str_eq(local, url);
    for (int side = 0; side < 2; side++) {
        get_text(side == 0 ? a : b, side == 0 ? here : there, SPOKE_OPT_SCHEME, local);
        cr_assert_eq(strlen(local), (size_t)(place - 3 - url));
        cr_assert_eq(memcmp(local, url, strlen(local)), 0, "%s of %s", local, url);
    }

    int rc = node_pipe_get(a, 0, SPOKE_OPT_URL, SPOKE_STRING, local, &size);
    cr_assert_eq(rc, SPOKE_ENOENT, "%s", spoke_error_name(rc));
    rc = node_pipe_get(a, here, "nothing", SPOKE_STRING, local, &size);
    cr_assert_eq(rc, SPOKE_EOPTION, "%s", spoke_error_name(rc));
    rc = node_pipe_get(a, here, SPOKE_OPT_URL, SPOKE_INT, local, &size);
    cr_assert_eq(rc, SPOKE_ETYPE, "%s", spoke_error_name(rc));
    rc = node_pipe_get(a, here, SPOKE_OPT_SCHEME, SPOKE_INT, local, &size);
    cr_assert_eq(rc, SPOKE_ETYPE, "%s", spoke_error_name(rc));
    struct lost lost = {a, here};
    cr_assert_eq(node_close(b, NULL), 0);
    b->s = NULL;
    cr_assert(world_until(w, is_gone, &lost, WORLD_PATIENCE));
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

WORLD_TEST(addresses, an_ipc_pipe_knows_who_its_peer_is, world_cases_files)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    _Atomic spoke_pipe_id here = 0, there = 0;

    cr_assert_eq(node_on_event(a, remember_pipe, &here), 0);
    cr_assert_eq(node_on_event(b, remember_pipe, &there), 0);
    world_connect(w, a, b);
    wait_known(w, &here);
    wait_known(w, &there);
    for (int side = 0; side < 2; side++) {
        struct node *n = side == 0 ? a : b;
        spoke_pipe_id pipe = side == 0 ? here : there;
        cr_assert_eq(get_number(n, pipe, SPOKE_OPT_PEER_PID), (int)getpid());
        cr_assert_eq(get_number(n, pipe, SPOKE_OPT_PEER_UID), (int)geteuid());
        cr_assert_eq(get_number(n, pipe, SPOKE_OPT_PEER_GID), (int)getegid());
    }
    world_close(w);
}

WORLD_TEST(addresses, port_0_becomes_a_port_that_can_be_dialed, world_cases_tcp)
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

WORLD_TEST(addresses, abstract_names_leave_no_file, world_cases_files)
{
    static const char *const schemes[2][2] = {{"ipc://@", "abstract://"}, {"shm://@", "shm://@"}};
    const char *const *mine = schemes[c->transport == SHM];
    struct world *w = world_open(c);

    for (int i = 0; i < 2; i++) {
        struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
        char url[ENDPOINT_MAX], other[ENDPOINT_MAX];
        snprintf(url, sizeof url, "%sspoke-test-%d-%d", mine[i], (int)getpid(), i);
        snprintf(other, sizeof other, "%sspoke-test-%d-%d", mine[!i], (int)getpid(), i);
        int rc = node_listen(a, url, NULL, 0);
        cr_assert_eq(rc, 0, "%s: %s", url, spoke_error_name(rc));
        rc = node_dial(b, other, NULL, SPOKE_WAIT_FIRST);
        cr_assert_eq(rc, 0, "%s: %s", other, spoke_error_name(rc));
        cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
        cr_assert_eq(node_expect(a, 10, 1), 0);
    }
    world_close(w);
}

WORLD_TEST(addresses, the_mode_of_a_socket_file_can_be_chosen, world_cases_files)
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

WORLD_TEST(addresses, a_listener_removes_its_socket_file_and_no_other, world_cases_files)
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

WORLD_TEST(addresses, a_stale_socket_file_is_replaced, world_cases_files)
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

WORLD_TEST(addresses, a_relative_path_is_relative, world_cases_files)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    struct stat status;

    snprintf(url, sizeof url, "%s://near.sock", transport_name(c->transport));
    cr_assert_eq(chdir(scratch_dir()), 0);
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    cr_assert_eq(lstat("near.sock", &status), 0);
    cr_assert_eq(node_dial(b, url, NULL, SPOKE_WAIT_FIRST), 0);
    cr_assert_eq(node_close(a, NULL), 0);
    a->s = NULL;
    cr_assert_eq(lstat("near.sock", &status), -1);
    cr_assert_eq(chdir("/"), 0);
    world_close(w);
}

/* A process that has gone elsewhere in the meantime, as a daemon does. */
WORLD_TEST(addresses, a_socket_file_is_found_again_after_a_chdir, world_cases_files)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);
    char path[ENDPOINT_MAX], url[ENDPOINT_MAX];
    struct stat status;

    scratch_path(path, "left.sock");
    snprintf(url, sizeof url, "%s://left.sock", transport_name(c->transport));
    cr_assert_eq(chdir(scratch_dir()), 0);
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    cr_assert_eq(chdir("/"), 0);
    cr_assert_eq(lstat(path, &status), 0);
    cr_assert_eq(node_close(a, NULL), 0);
    a->s = NULL;
    cr_assert_eq(lstat(path, &status), -1);
    world_close(w);
}

/* ---- who may connect ---- */

static char watched_path[ENDPOINT_MAX];
static int refusals, others;

static void
try_to_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strcmp(path, watched_path) != 0)
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0 && errno == ECONNREFUSED)
        refusals++;
    else
        others++;
    close(fd);
}

/* This program's own: the library sets a file's mode with it. */
int
chmod(const char *path, mode_t mode)
{
    try_to_connect(path);
    return fchmodat(AT_FDCWD, path, mode, 0);
}

WORLD_TEST(addresses, nobody_can_connect_before_the_mode_is_set, world_cases_files)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];

    refusals = others = 0;
    world_url(w, url);
    snprintf(watched_path, sizeof watched_path, "%s", endpoint_path(url));
    cr_assert_eq(node_set_int(a, SPOKE_OPT_IPC_MODE, 0600), 0);
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    cr_assert_eq(refusals, 1);
    cr_assert_eq(others, 0);
    world_close(w);
}

WORLD_TEST(addresses, the_owner_of_a_socket_file_can_be_chosen, world_cases_files)
{
    if (geteuid() != 0)
        cr_skip("only root can give files away");
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX], other[ENDPOINT_MAX];
    struct stat status;

    world_url(w, url);
    world_url(w, other);
    cr_assert_eq(node_set_int(a, SPOKE_OPT_IPC_OWNER, 4321), 0);
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    cr_assert_eq(lstat(endpoint_path(url), &status), 0);
    cr_assert_eq(status.st_uid, 4321);
    cr_assert_eq(status.st_gid, getegid());
    cr_assert_eq(node_set_int(b, SPOKE_OPT_IPC_GROUP, 4322), 0);
    cr_assert_eq(node_listen(b, other, NULL, 0), 0);
    cr_assert_eq(lstat(endpoint_path(other), &status), 0);
    cr_assert_eq(status.st_uid, geteuid());
    cr_assert_eq(status.st_gid, 4322);
    world_close(w);
}

/* ---- addresses as text ---- */

/* One that is longer than ENDPOINT_MAX. */
struct long_address {
    spoke_listener *l;
    char *text;
    size_t size;
};

static int
ask_address(struct node *n, void *ctx)
{
    struct long_address *asked = ctx;

    (void)n;
    return spoke_listener_get_string(asked->l, SPOKE_OPT_ADDRESS, asked->text, asked->size);
}

WORLD_TEST(addresses, an_abstract_name_of_any_bytes_can_be_dialed_as_it_is_told, world_cases_files)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[512], address[512];
    spoke_listener *l;

    /* 107 bytes, the first one and the last one a NUL. */
    int size = snprintf(url, sizeof url, "abstract://%%00%%25-%%ff-%010d-", (int)getpid());
    memset(url + size, 'n', 90);
    strcpy(url + size + 90, "%00");
    cr_assert_eq(node_listen(a, url, &l, 0), 0);
    int rc = node_run(a, ask_address, &(struct long_address){l, address, sizeof address});
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    rc = node_dial(b, address, NULL, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, 0, "%s: %s", address, spoke_error_name(rc));
    cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
    cr_assert_eq(node_expect(a, 10, 1), 0);
    world_close(w);
}

/* The longest one that there is. */
Test(addresses, a_long_inproc_name_is_told_whole)
{
    enum { LONGEST = 4096 };
    char url[LONGEST + 1] = "inproc://", text[LONGEST + 2];
    spoke_socket *s;
    spoke_listener *l;
    size_t size = sizeof text;

    memset(url + 9, 'n', LONGEST - 9);
    url[LONGEST] = '\0';
    cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, NULL), 0);
    cr_assert_eq(spoke_listen(s, url, &l, 0), 0);
    cr_assert_eq(spoke_listener_get(l, SPOKE_OPT_ADDRESS, SPOKE_STRING, text, &size), 0);
    cr_assert_eq(size, LONGEST + 1);
    cr_assert_str_eq(text, url);
    cr_assert_eq(spoke_socket_close(s), 0);
}

/* ---- tcp: both versions ---- */

static bool
has_ipv6(void)
{
    struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool can = fd >= 0 && bind(fd, (struct sockaddr *)&here, sizeof here) == 0;

    if (!can) /* and nothing else is in the way */
        cr_assert(errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL, "%s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return can;
}

/* b dials `url`; gives what a knows of the other end. */
static void
check_dial(struct node *a, struct node *b, const char *url, _Atomic spoke_pipe_id *here,
           char remote[ENDPOINT_MAX])
{
    spoke_dialer *d;
    uint64_t attached = node_stats(a).pipes_attached;

    int rc = node_dial(b, url, &d, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, 0, "%s: %s", url, spoke_error_name(rc));
    cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
    cr_assert_eq(node_expect(a, 10, 1), 0);
    cr_assert_eq(node_stats(a).pipes_attached, attached + 1);
    wait_known(a->world, here);
    get_text(a, atomic_load(here), SPOKE_OPT_REMOTE_ADDRESS, remote);
    cr_assert_eq(node_dialer_close(b, d), 0);
    world_wait_pipes(a->world, a, 0);
    atomic_store(here, 0);
}

static void
check_wildcard(const struct world_case *c, const char *dialed, const char *seen)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX], address[ENDPOINT_MAX], remote[ENDPOINT_MAX];
    _Atomic spoke_pipe_id here = 0;
    spoke_listener *l;

    cr_assert_eq(node_on_event(a, remember_pipe, &here), 0);
    cr_assert_eq(node_listen(a, "tcp://*:0", &l, 0), 0);
    cr_assert_eq(node_address(a, l, address), 0);
    snprintf(url, sizeof url, "tcp://%s%s", dialed, strrchr(address, ':'));
    check_dial(a, b, url, &here, remote);
    cr_assert_eq(strncmp(remote, seen, strlen(seen)), 0, "%s sees %s", url, remote);
    world_close(w);
}

WORLD_TEST(addresses, a_wildcard_listens_to_version_4, world_cases_tcp)
{
    check_wildcard(c, "127.0.0.1", "tcp://127.0.0.1:");
}

WORLD_TEST(addresses, a_wildcard_listens_to_version_6, world_cases_tcp)
{
    if (c->mode != SIM && !has_ipv6())
        cr_skip("there is no IPv6 here");
    check_wildcard(c, "[::1]", "tcp://[::1]:");
}

WORLD_TEST(addresses, a_wildcard_knows_version_4_in_version_6, world_cases_tcp)
{
    check_wildcard(c, "[::ffff:127.0.0.1]", "tcp://127.0.0.1:");
}

WORLD_TEST(addresses, a_wildcard_whose_port_is_taken_in_one_version_is_in_use, world_cases_tcp_real)
{
    if (!has_ipv6())
        cr_skip("there is no IPv6 here");
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);
    struct sockaddr_in6 there = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t size = sizeof there;
    char url[ENDPOINT_MAX];
    int on = 1;

    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&there, sizeof there), 0);
    cr_assert_eq(listen(fd, 1), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&there, &size), 0);
    snprintf(url, sizeof url, "tcp://*:%d", ntohs(there.sin6_port));
    int rc = node_listen(a, url, NULL, 0);
    cr_assert_eq(rc, SPOKE_EADDRINUSE, "%s", spoke_error_name(rc));
    close(fd);
    world_close(w);
}

/* ---- tcp: where a dialer comes from ---- */

WORLD_TEST(addresses, a_dialer_comes_from_the_address_or_interface_that_it_was_told,
           world_cases_tcp_real)
{
    static const struct {
        const char *from, *to, *seen;
    } rows[] = {
        {"127.0.0.2", "127.0.0.1", "tcp://127.0.0.2:"},
        {"::ffff:127.0.0.3", "127.0.0.1", "tcp://127.0.0.3:"},
        {"lo", "127.0.0.1", "tcp://127.0.0.1:"},
        {"*", "127.0.0.1", "tcp://127.0.0.1:"},
        {"[::1]", "[::1]", "tcp://[::1]:"},
        {"lo", "[::1]", "tcp://[::1]:"},
    };
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX], address[ENDPOINT_MAX], remote[ENDPOINT_MAX];
    _Atomic spoke_pipe_id here = 0;
    spoke_listener *l;

    cr_assert_eq(node_on_event(a, remember_pipe, &here), 0);
    cr_assert_eq(node_listen(a, "tcp://*:0", &l, 0), 0);
    cr_assert_eq(node_address(a, l, address), 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].to[0] == '[' && !has_ipv6())
            continue;
        snprintf(url, sizeof url, "tcp://%s;%s%s", rows[i].from, rows[i].to, strrchr(address, ':'));
        check_dial(a, b, url, &here, remote);
        cr_assert_eq(strncmp(remote, rows[i].seen, strlen(rows[i].seen)), 0, "%s: from %s", url,
                     remote);
    }
    world_close(w);
}

WORLD_TEST(addresses, a_dialer_cannot_come_from_elsewhere, world_cases_tcp_real)
{
    static const struct {
        const char *url;
        int error;
    } rows[] = {
        {"tcp://192.0.2.1;127.0.0.1:5555", SPOKE_EADDRNOTAVAIL}, /* not ours */
        {"tcp://[::1];127.0.0.1:5555", SPOKE_EADDRNOTAVAIL},     /* the other version */
        {"tcp://127.0.0.1;[::1]:5555", SPOKE_EADDRNOTAVAIL},
        {"tcp://eth10000;127.0.0.1:5555", SPOKE_ENODEV},
        {"tcp://localhost;127.0.0.1:5555", SPOKE_ENODEV}, /* a host, not an interface */
        {"tcp://[fe80::1%eth10000];[fe80::1%lo]:5555", SPOKE_ENODEV},
        {"tcp://[fe80::1%eth10000]:5555", SPOKE_ENODEV},
        {"tcp://[fe80::1%1000000]:5555", SPOKE_ENODEV},
    };
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int rc = node_dial(a, rows[i].url, NULL, SPOKE_WAIT_FIRST);
        cr_expect_eq(rc, rows[i].error, "%s: %s", rows[i].url, spoke_error_name(rc));
    }
    world_close(w);
}

/* An address with a scope, which may be a name or a number, means one of that interface. */
WORLD_TEST(addresses, a_scope_is_kept, world_cases_tcp_real)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    static const char *const urls[] = {"tcp://[fe80::1%lo]:0", "tcp://[fe80::1%1]:0"};

    for (int i = 0; i < 2; i++) {
        int rc = node_listen(i == 0 ? a : b, urls[i], NULL, 0);
        cr_expect_eq(rc, SPOKE_EADDRNOTAVAIL, "lo has no such address: %s", spoke_error_name(rc));
    }
    world_close(w);
}

/* ---- tcp: what is asked of the kernel ---- */

struct tcp_values {
    int nodelay, keepalive, idle, interval, user_timeout;
};

static int
socket_value(int fd, int level, int name)
{
    int value = -1;
    socklen_t size = sizeof value;

    cr_assert_eq(getsockopt(fd, level, name, &value, &size), 0);
    return value;
}

/* Of the end in this process that is at `port`, and is connected. */
static struct tcp_values
values_at(int port, bool at_listener)
{
    for (int fd = 3; fd < 1024; fd++) {
        struct sockaddr_in local = {0}, peer = {0};
        socklen_t local_size = sizeof local, peer_size = sizeof peer;
        if (getsockname(fd, (struct sockaddr *)&local, &local_size) != 0 ||
            getpeername(fd, (struct sockaddr *)&peer, &peer_size) != 0 ||
            local.sin_family != AF_INET ||
            ntohs(at_listener ? local.sin_port : peer.sin_port) != port)
            continue;
        return (struct tcp_values){
            .nodelay = socket_value(fd, IPPROTO_TCP, TCP_NODELAY),
            .keepalive = socket_value(fd, SOL_SOCKET, SO_KEEPALIVE),
            .idle = socket_value(fd, IPPROTO_TCP, TCP_KEEPIDLE),
            .interval = socket_value(fd, IPPROTO_TCP, TCP_KEEPINTVL),
            .user_timeout = socket_value(fd, IPPROTO_TCP, TCP_USER_TIMEOUT),
        };
    }
    cr_assert(false, "no connection at port %d", port);
    return (struct tcp_values){0};
}

WORLD_TEST(addresses, the_options_of_tcp_reach_the_kernel, world_cases_tcp_real)
{
    struct world *w = world_open(c);
    char url[ENDPOINT_MAX];

    for (int i = 0; i < 2; i++) {
        struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
        if (i == 1) {
            cr_assert_eq(node_set_bool(a, SPOKE_OPT_TCP_NODELAY, false), 0);
            cr_assert_eq(node_set_bool(b, SPOKE_OPT_TCP_KEEPALIVE, false), 0);
            cr_assert_eq(node_set_duration(a, SPOKE_OPT_TCP_KEEPALIVE_TIME, 6 * SPOKE_SECOND + 1),
                         0);
            cr_assert_eq(node_set_duration(a, SPOKE_OPT_TCP_USER_TIMEOUT, 300 * SPOKE_MS + 1), 0);
            cr_assert_eq(node_set_duration(b, SPOKE_OPT_TCP_USER_TIMEOUT, 40 * SPOKE_SECOND), 0);
        }
        world_url(w, url);
        cr_assert_eq(node_listen(a, url, NULL, 0), 0);
        cr_assert_eq(node_dial(b, url, NULL, SPOKE_WAIT_FIRST), 0);
        world_wait_pipes(w, a, 1);
        int port = atoi(strrchr(url, ':') + 1);
        struct tcp_values here = values_at(port, true), there = values_at(port, false);
        cr_assert_eq(here.nodelay, i == 0);
        cr_assert_eq(here.keepalive, 1);
        cr_assert_eq(there.nodelay, 1);
        cr_assert_eq(there.keepalive, i == 0);
        cr_assert_eq(here.idle, i == 1 ? 7 : 15);
        cr_assert_eq(here.interval, i == 1 ? 7 : 15);
        cr_assert_eq(there.idle == 15, i == 0, "%d", there.idle);
        cr_assert_eq(here.user_timeout, i == 1 ? 301 : 0);
        cr_assert_eq(there.user_timeout, i == 1 ? 40000 : 0);
    }
    world_close(w);
}

/* ---- credentials ---- */

WORLD_TEST(addresses, only_local_sockets_know_their_peers_process, world_cases_direct_real)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    _Atomic spoke_pipe_id here = 0;
    static const char *const names[] = {SPOKE_OPT_PEER_PID, SPOKE_OPT_PEER_UID, SPOKE_OPT_PEER_GID};
    int value;

    cr_assert_eq(node_on_event(a, remember_pipe, &here), 0);
    world_connect(w, a, b);
    wait_known(w, &here);
    for (int i = 0; i < 3; i++) {
        size_t size = sizeof value;
        int rc = node_pipe_get(a, here, names[i], SPOKE_INT, &value, &size);
        cr_assert_eq(rc, c->transport == IPC || c->transport == SHM ? 0 : SPOKE_EOPTION, "%s: %s",
                     names[i], spoke_error_name(rc));
        rc = node_pipe_get(a, here, names[i], SPOKE_SIZE, &value, &size);
        cr_assert_eq(rc, SPOKE_ETYPE, "%s: %s", names[i], spoke_error_name(rc));
    }
    world_close(w);
}
