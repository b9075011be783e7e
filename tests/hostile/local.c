/* SPDX-License-Identifier: MIT */
/* What the local user can get wrong: addresses, and what lies in the file system under them.  One
 * clear error each; nothing that is not our socket is ever touched. */
#include "tests/support/test.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/process.h"
#include "tests/support/resources.h"

static spoke_socket *s;
static struct resources before;

static void
open_socket(void)
{
    scratch_dir();
    cr_assert_eq(spoke_socket_open(&s, SPOKE_REP, NULL), 0);
    resources_take(&before);
}

static void
close_socket(void)
{
    resources_settle(&before);
    spoke_socket_close(s);
}

TestSuite(local, .init = open_socket, .fini = close_socket);

struct bad_url {
    const char *url;
    int dial, listen; /* errors; 0: may succeed, is not asked */
};

static void
check_url(const struct bad_url *bad)
{
    spoke_dialer *d = (spoke_dialer *)1;
    spoke_listener *l = (spoke_listener *)1;

    if (bad->dial != 0) {
        int rc = spoke_dial(s, bad->url, NULL, 0);
        cr_expect_eq(rc, bad->dial, "dial \"%.60s\": %s", bad->url, spoke_error_name(rc));
        rc = spoke_dialer_create(&d, s, bad->url);
        cr_expect_eq(rc, bad->dial, "create dialer \"%.60s\": %s", bad->url, spoke_error_name(rc));
        cr_expect_null(d);
    }
    if (bad->listen != 0) {
        int rc = spoke_listen(s, bad->url, NULL, 0);
        cr_expect_eq(rc, bad->listen, "listen \"%.60s\": %s", bad->url, spoke_error_name(rc));
        rc = spoke_listener_create(&l, s, bad->url);
        cr_expect_eq(rc, bad->listen, "create listener \"%.60s\": %s", bad->url,
                     spoke_error_name(rc));
        cr_expect_null(l);
    }
}

Test(local, malformed_urls_are_refused_one_by_one)
{
    static const struct bad_url urls[] = {
        {"", SPOKE_EURL, SPOKE_EURL},
        {"tcp", SPOKE_EURL, SPOKE_EURL},
        {"tcp:", SPOKE_EURL, SPOKE_EURL},
        {"tcp:/127.0.0.1:80", SPOKE_EURL, SPOKE_EURL},
        {"://127.0.0.1:80", SPOKE_EURL, SPOKE_EURL},
        {"127.0.0.1:80", SPOKE_EURL, SPOKE_EURL},
        {"/tmp/some.sock", SPOKE_EURL, SPOKE_EURL},
        {"carrier-pigeon://roof", SPOKE_ESCHEME, SPOKE_ESCHEME},
        {"TCP://127.0.0.1:80", SPOKE_ESCHEME, SPOKE_ESCHEME},
        {"tcpx://127.0.0.1:80", SPOKE_ESCHEME, SPOKE_ESCHEME},
        {" tcp://127.0.0.1:80", SPOKE_ESCHEME, SPOKE_ESCHEME},
        {"tcp://", SPOKE_EURL, SPOKE_EURL},
        {"tcp://127.0.0.1", SPOKE_EURL, SPOKE_EURL},
        {"tcp://127.0.0.1:", SPOKE_EURL, 0},
        {"tcp://127.0.0.1:0", SPOKE_EURL, 0},
        {"tcp://127.0.0.1:-1", SPOKE_EURL, SPOKE_EURL},
        {"tcp://127.0.0.1:65536", SPOKE_EURL, SPOKE_EURL},
        {"tcp://127.0.0.1:99999999999", SPOKE_EURL, SPOKE_EURL},
        {"tcp://127.0.0.1:80x", SPOKE_EURL, SPOKE_EURL},
        {"tcp://127.0.0.1:http", SPOKE_EURL, SPOKE_EURL},
        {"tcp://127.0.0.1:0x50", SPOKE_EURL, SPOKE_EURL},
        {"tcp://127.0.0.1: 80", SPOKE_EURL, SPOKE_EURL},
        {"tcp://:5555", SPOKE_EURL, 0},
        {"tcp://*:5555", SPOKE_EURL, 0},
        {"tcp://-host:5555", SPOKE_EURL, SPOKE_EURL},
        {"tcp://abc.123.---.#:5555", SPOKE_EURL, SPOKE_EURL},
        {"tcp://abc...123:5555", SPOKE_EURL, SPOKE_EURL},
        {"tcp://.123:5555", SPOKE_EURL, SPOKE_EURL},
        {"tcp://[::1:5555", SPOKE_EURL, SPOKE_EURL},
        {"tcp://::1]:5555", SPOKE_EURL, SPOKE_EURL},
        {"tcp://[::1]5555", SPOKE_EURL, SPOKE_EURL},
        {"tcp://[nonsense]:5555", SPOKE_EURL, SPOKE_EURL},
        {"ipc://", SPOKE_EURL, SPOKE_EURL},
        {"inproc://", SPOKE_EURL, SPOKE_EURL},
        {"tcp://eth10000;127.0.0.1:5555", SPOKE_ENODEV, SPOKE_EURL},
        {"tcp://[fe80::1%eth10000]:5555", SPOKE_ENODEV, SPOKE_ENODEV},
        {"tcp://[fe80::1%99999999999]:5555", SPOKE_ENODEV, SPOKE_ENODEV},
        {"tcp://[fe80::1%]:5555", SPOKE_EURL, SPOKE_EURL},
        {"ipc://@", SPOKE_EURL, SPOKE_EURL},
        {"abstract://", SPOKE_EURL, SPOKE_EURL},
        {"abstract://%4", SPOKE_EURL, SPOKE_EURL},
        {"abstract://%zz", SPOKE_EURL, SPOKE_EURL},
    };

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++)
        check_url(&urls[i]);
    cr_expect_eq(spoke_dial(s, NULL, NULL, 0), SPOKE_EINVAL);
    cr_expect_eq(spoke_listen(s, NULL, NULL, 0), SPOKE_EINVAL);
}

Test(local, a_url_of_a_mebibyte_is_refused)
{
    static const char *const schemes[] = {"tcp://", "ipc:///", "inproc://", "x", ""};
    const size_t size = 1024 * 1024;
    char *url = malloc(size + 1);

    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        memset(url, 'a', size);
        memcpy(url, schemes[i], strlen(schemes[i]));
        url[size] = '\0';
        int rc = spoke_dial(s, url, NULL, 0);
        cr_expect(rc == SPOKE_ENAMETOOLONG || rc == SPOKE_EURL, "%s…: %s", schemes[i],
                  spoke_error_name(rc));
        rc = spoke_listen(s, url, NULL, 0);
        cr_expect(rc == SPOKE_ENAMETOOLONG || rc == SPOKE_EURL, "%s…: %s", schemes[i],
                  spoke_error_name(rc));
    }
    free(url);
}

/* An address of a unix socket holds 107 bytes and a NUL. */
Test(local, a_path_of_107_bytes_fits_and_one_of_108_does_not)
{
    char url[256], path[128];
    struct stat status;
    int size = snprintf(path, sizeof path, "%s/", scratch_dir());

    cr_assert_gt(size, 0);
    memset(path + size, 'p', sizeof path - (size_t)size);
    path[108] = '\0';
    snprintf(url, sizeof url, "ipc://%s", path);
    cr_expect_eq(spoke_listen(s, url, NULL, 0), SPOKE_ENAMETOOLONG);
    cr_expect_eq(spoke_dial(s, url, NULL, 0), SPOKE_ENAMETOOLONG);
    cr_expect_eq(lstat(path, &status), -1);
    path[107] = '\0';
    cr_expect_eq(lstat(path, &status), -1, "nor is a shorter one made of it");
    snprintf(url, sizeof url, "ipc://%s", path);
    spoke_listener *l;
    int rc = spoke_listen(s, url, &l, 0);
    cr_expect_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_expect_eq(lstat(path, &status), 0);
    cr_expect_eq(spoke_listener_close(l), 0);
    cr_expect_eq(lstat(path, &status), -1);
}

Test(local, an_abstract_name_of_107_bytes_fits_and_one_of_108_does_not)
{
    char url[256] = "ipc://@";
    spoke_listener *l;

    snprintf(url + 7, sizeof url - 7, "spoke-test-%d-", (int)getpid());
    size_t used = strlen(url);
    memset(url + used, 'n', sizeof url - used);
    url[7 + 108] = '\0';
    cr_expect_eq(spoke_listen(s, url, NULL, 0), SPOKE_ENAMETOOLONG);
    url[7 + 107] = '\0';
    int rc = spoke_listen(s, url, &l, 0);
    cr_expect_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_expect_eq(spoke_listener_close(l), 0);
}

Test(local, addresses_that_cannot_be_bound_have_their_own_errors)
{
    char url[ENDPOINT_MAX];

    cr_expect_eq(spoke_listen(s, "tcp://192.0.2.1:5555", NULL, 0), SPOKE_EADDRNOTAVAIL);
    cr_expect_eq(spoke_listen(s, "ipc:///no/such/directory/x.sock", NULL, 0), SPOKE_ENOENT);
    endpoint_fresh(url, TCP);
    cr_expect_eq(spoke_listen(s, url, NULL, 0), 0);
    cr_expect_eq(spoke_listen(s, url, NULL, 0), SPOKE_EADDRINUSE);
    resources_take(&before); /* which has one listener more */
}

/* In a network without an interface, so that nobody is asked. */
static int
look_for_nobody(void *ctx)
{
    spoke_engine *e;
    spoke_socket *own;

    (void)ctx;
    if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        return 77;
    resources_take(&before);
    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&own, SPOKE_REQ, e) == 0);
    for (int i = 0; i < 2; i++)
        CHILD_CHECK(spoke_dial(own, "tcp://nobody.invalid:5000", NULL, SPOKE_WAIT_FIRST) ==
                    SPOKE_EHOST);
    CHILD_CHECK(spoke_dial(own, "tcp://nobody.invalid:5000", NULL, 0) == 0);
    CHILD_CHECK(spoke_engine_poll(e, 5 * SPOKE_MS) >= 0);
    CHILD_CHECK(spoke_engine_close(e) == 0); /* while it is looked up, or waits to be again */
    resources_settle(&before);               /* the threads that looked end too */
    return 0;
}

Test(local, a_name_that_does_not_resolve_is_told_as_such)
{
    int code = child_run(look_for_nobody, NULL, 20);

    if (code == 77)
        cr_skip("this user may not make a network");
    cr_assert_eq(code, 0);
}

/* ---- what lies at the path ---- */

static void
check_untouched(const char *path, mode_t type)
{
    char url[ENDPOINT_MAX + 8];
    struct stat was, is;

    snprintf(url, sizeof url, "ipc://%s", path);
    cr_assert_eq(lstat(path, &was), 0);
    int rc = spoke_listen(s, url, NULL, 0);
    cr_expect_eq(rc, SPOKE_ENOTSOCK, "%s: %s", path, spoke_error_name(rc));
    cr_expect_eq(lstat(path, &is), 0, "%s is gone", path);
    cr_expect_eq(is.st_mode & S_IFMT, type);
    cr_expect_eq(is.st_ino, was.st_ino);
    rc = spoke_dial(s, url, NULL, SPOKE_WAIT_FIRST);
    cr_expect_lt(rc, 0);
    cr_expect_eq(lstat(path, &is), 0, "%s is gone", path);
}

static void
write_file(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, "precious", 8), 8);
    close(fd);
}

static void
check_file(const char *path)
{
    char content[16] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    cr_assert_geq(fd, 0);
    cr_expect_eq(read(fd, content, sizeof content), 8);
    cr_expect_arr_eq(content, "precious", 8);
    close(fd);
}

Test(local, files_directories_and_links_in_the_way_are_never_touched)
{
    char file[ENDPOINT_MAX], directory[ENDPOINT_MAX], link[ENDPOINT_MAX], dangling[ENDPOINT_MAX],
        fifo[ENDPOINT_MAX];

    scratch_path(file, "file");
    scratch_path(directory, "directory");
    scratch_path(link, "link");
    scratch_path(dangling, "dangling");
    scratch_path(fifo, "fifo");
    write_file(file);
    cr_assert_eq(mkdir(directory, 0700), 0);
    cr_assert_eq(symlink(file, link), 0);
    cr_assert_eq(symlink("/no/such/thing", dangling), 0);
    cr_assert_eq(mkfifo(fifo, 0600), 0);
    check_untouched(file, S_IFREG);
    check_untouched(directory, S_IFDIR);
    check_untouched(link, S_IFLNK);
    check_untouched(fifo, S_IFIFO);
    check_untouched(dangling, S_IFLNK);
    check_file(file);
}

/* A link to somebody's socket is no socket of ours, dead or alive. */
Test(local, a_link_to_a_stale_socket_is_not_followed)
{
    char path[ENDPOINT_MAX], link[ENDPOINT_MAX];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;

    scratch_path(path, "stale.sock");
    scratch_path(link, "link.sock");
    memcpy(address.sun_path, path, sizeof address.sun_path); /* it is short enough */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    cr_assert_eq(symlink(path, link), 0);
    check_untouched(link, S_IFLNK);
    cr_expect_eq(lstat(path, &status), 0, "what it points to is there");
}

/* A datagram socket at the path refuses a stream; it is somebody's all the same. */
Test(local, a_living_socket_of_another_kind_is_left_alone)
{
    char path[ENDPOINT_MAX], url[ENDPOINT_MAX + 8];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;

    scratch_path(path, "datagram.sock");
    snprintf(url, sizeof url, "ipc://%s", path);
    memcpy(address.sun_path, path, sizeof address.sun_path); /* it is short enough */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    int rc = spoke_listen(s, url, NULL, 0);
    cr_expect_eq(rc, SPOKE_EADDRINUSE, "%s", spoke_error_name(rc));
    cr_expect_eq(lstat(path, &status), 0);
    close(fd);
}

/* ---- permissions: in a child that is nobody, or a user who has shut himself out ---- */

static int
be_nobody(void *ctx)
{
    char **paths = ctx;
    char url[256];
    spoke_engine *e;
    spoke_socket *own;

    if (geteuid() == 0) {
        CHILD_CHECK(setgroups(0, NULL) == 0);
        CHILD_CHECK(setgid(65534) == 0);
        CHILD_CHECK(setuid(65534) == 0);
        child_is_confined();
    }
    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&own, SPOKE_PAIR, e) == 0);
    snprintf(url, sizeof url, "ipc://%s/new.sock", paths[0]);
    CHILD_CHECK(spoke_listen(own, url, NULL, 0) == SPOKE_EACCES);
    CHILD_CHECK(spoke_dial(own, url, NULL, SPOKE_WAIT_FIRST) == SPOKE_EACCES);
    snprintf(url, sizeof url, "ipc://%s", paths[1]);
    CHILD_CHECK(spoke_dial(own, url, NULL, SPOKE_WAIT_FIRST) == SPOKE_EACCES);
    int rc = spoke_listen(own, url, NULL, 0);
    CHILD_CHECK(rc == SPOKE_EADDRINUSE || rc == SPOKE_EACCES);
    if (access("/proc/sys/net/ipv4/ip_unprivileged_port_start", R_OK) == 0) {
        FILE *start = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "re");
        int port = 0;
        CHILD_CHECK(start != NULL && fscanf(start, "%d", &port) == 1);
        fclose(start);
        if (port > 81)
            CHILD_CHECK(spoke_listen(own, "tcp://127.0.0.1:81", NULL, 0) == SPOKE_EACCES);
    }
    CHILD_CHECK(spoke_engine_close(e) == 0);
    return 0;
}

Test(local, no_permission_is_told_as_such)
{
    char directory[ENDPOINT_MAX], path[ENDPOINT_MAX], url[ENDPOINT_MAX + 8];
    char *paths[] = {directory, path};
    struct stat status;

    const mode_t shut = geteuid() == 0 ? 0 : 0700; /* for oneself */

    cr_assert_eq(chmod(scratch_dir(), 0755), 0);
    scratch_path(directory, "private");
    cr_assert_eq(mkdir(directory, 0700), 0);
    scratch_path(path, "mine.sock");
    snprintf(url, sizeof url, "ipc://%s", path);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_IPC_MODE, 0600), 0);
    cr_assert_eq(spoke_listen(s, url, NULL, 0), 0);
    cr_assert_eq(chmod(directory, 0700 & ~shut), 0);
    cr_assert_eq(chmod(path, 0600 & ~shut), 0);
    resources_take(&before);
    cr_assert_eq(child_run(be_nobody, paths, 15), 0);
    cr_assert_eq(chmod(directory, 0700), 0);
    cr_assert_eq(lstat(path, &status), 0);
}
