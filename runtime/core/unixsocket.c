/* SPDX-License-Identifier: MIT */
/* Unix stream sockets, by path or abstract name, for the transports that meet there (ipc, shm).
 * What is special here is the socket file: one that nobody listens on is replaced, anything else is
 * left alone, and only our own is removed.  Engine's thread. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/core/transport.h"

static void
set_address(struct spk_endpoint *ep)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&ep->address;
    size_t at = ep->url.abstract ? 1 : 0;

    memset(&ep->address, 0, sizeof ep->address);
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path + at, ep->url.path, ep->url.path_size); /* checked by the parser */
    ep->address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + at + ep->url.path_size +
                                   (at == 0 ? 1 : 0));
}

/* ---- dialing ---- */

void
spk_unix_dial(struct spk_endpoint *d)
{
    int rc;

    set_address(d);
    if ((rc = spk_fd_dial(d, NULL, 0)) != 0)
        spk_dialer_fail_later(d, rc);
}

/* ---- the socket file ---- */

static bool
is_same_file(const char *path, dev_t device, ino_t inode)
{
    struct stat st;

    return lstat(path, &st) == 0 && st.st_ino == inode && st.st_dev == device;
}

/* Is there a socket that nobody listens on?  Then away with it, unless somebody has put another one
 * there while we looked. */
static int
remove_stale(const struct spk_endpoint *l)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&l->address;
    struct stat st;
    int fd, error;

    if (lstat(un->sun_path, &st) != 0)
        return errno == ENOENT ? 0 : spk_error_from_errno(errno);
    if (!S_ISSOCK(st.st_mode))
        return SPOKE_ENOTSOCK;
    if ((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0)
        return spk_error_from_errno(errno);
    error = connect(fd, (const struct sockaddr *)&l->address, l->address_size) == 0 ? 0 : errno;
    close(fd);
    if (error != ECONNREFUSED)
        return error == EACCES ? SPOKE_EACCES : SPOKE_EADDRINUSE;
    if (!is_same_file(un->sun_path, st.st_dev, st.st_ino))
        return SPOKE_EADDRINUSE;
    return unlink(un->sun_path) == 0 || errno == ENOENT ? 0 : spk_error_from_errno(errno);
}

/* Where the file will be found again: the process may be somewhere else by then.  NULL: no memory,
 * or no such place. */
static char *
absolute_path(const char *path)
{
    char here[PATH_MAX], *text;
    size_t size;

    if (path[0] == '/')
        here[0] = '\0';
    else if (getcwd(here, sizeof here) == NULL)
        return NULL;
    size = strlen(here) + 1 + strlen(path) + 1;
    if ((text = spk_zalloc(size)) != NULL)
        snprintf(text, size, "%s%s%s", here, here[0] == '\0' ? "" : "/", path);
    return text;
}

static void
remember_file(struct spk_endpoint *l)
{
    struct stat st;

    if (l->url.abstract || lstat(l->url.path, &st) != 0)
        return;
    l->device = st.st_dev;
    l->inode = st.st_ino;
    spk_free(l->private);
    l->private = absolute_path(l->url.path);
}

static void
remove_file(struct spk_endpoint *l)
{
    const char *path = l->private != NULL ? l->private : l->url.path;

    if (l->inode == 0 || !spk_engine_is_ours(l->e))
        return;
    if (is_same_file(path, l->device, l->inode))
        unlink(path);
    l->inode = 0;
}

/* Whose it is, and who may connect: before anybody can. */
static int
set_rights(const struct spk_endpoint *l)
{
    const struct spk_endpoint_options *o = &l->options;

    if (l->inode == 0)
        return 0;
    if ((o->ipc_owner >= 0 || o->ipc_group >= 0) &&
        lchown(l->url.path, (uid_t)o->ipc_owner, (gid_t)o->ipc_group) != 0)
        return spk_error_from_errno(errno);
    if (o->ipc_mode >= 0 && chmod(l->url.path, (mode_t)o->ipc_mode) != 0)
        return spk_error_from_errno(errno);
    return 0;
}

/* ---- listening ---- */

int
spk_unix_listen(struct spk_endpoint *l)
{
    bool is_virtual = l->e->backend->is_virtual;
    int rc;

    set_address(l);
    rc = spk_fd_bind(l);
    if (rc == SPOKE_EADDRINUSE && !is_virtual && !l->url.abstract && (rc = remove_stale(l)) == 0)
        rc = spk_fd_bind(l);
    if (rc != 0)
        return rc;
    if (!is_virtual)
        remember_file(l);
    if ((rc = set_rights(l)) == 0 && (rc = spk_fd_accept(l)) == 0)
        return 0;
    remove_file(l);
    spk_fd_unbind(l);
    return rc;
}

void
spk_unix_listen_close(struct spk_endpoint *l)
{
    remove_file(l);
    spk_fd_listen_close(l);
}

int
spk_unix_listen_address(struct spk_endpoint *l, char *text, size_t size)
{
    return spk_fd_address_text(&l->address, l->address_size, l->transport->scheme, text, size);
}
