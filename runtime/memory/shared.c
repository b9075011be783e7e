/* SPDX-License-Identifier: MIT */
/* Regions and views: sealed memfds, and read-only mappings of them. */
#include "runtime/memory/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <spoke/error.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int
error_of(int error)
{
    switch (error) {
    case EMFILE:
    case ENFILE: return SPOKE_EMFILE;
    case ENOMEM:
    case ENOSPC:
    case EDQUOT: return SPOKE_ENOMEM;
    default: return SPOKE_ENOTSUP;
    }
}

/* A descriptor of its own, with which nothing can be written: the mode of the file keeps other
 * users from opening it again for that. */
static int
open_read_only(int fd)
{
    char path[64];

    if (fchmod(fd, 0400) != 0)
        return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC);
}

int
spk_region_open(struct spk_region *r, const char *name, size_t size)
{
    void *base;
    int rc;

    *r = (struct spk_region){.size = size, .fd = -1, .fd_out = -1};
    if ((r->fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)) < 0)
        return error_of(errno);
    if (ftruncate(r->fd, (off_t)size) != 0 || fcntl(r->fd, F_ADD_SEALS, SEALS) != 0 ||
        (r->fd_out = open_read_only(r->fd)) < 0)
        goto fail;
    base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, r->fd, 0);
    if (base == MAP_FAILED)
        goto fail;
    r->base = base;
    return 0;
fail:
    rc = error_of(errno);
    spk_region_close(r);
    return rc;
}

int
spk_region_reserve(struct spk_region *r, size_t offset, size_t size)
{
    int rc;

    do
        rc = fallocate(r->fd, 0, (off_t)offset, (off_t)size);
    while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : error_of(errno);
}

void
spk_region_give_back(struct spk_region *r, size_t offset, size_t size)
{
    (void)fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
}

void
spk_region_close(struct spk_region *r)
{
    if (r->base != NULL)
        munmap(r->base, r->size);
    if (r->fd >= 0)
        close(r->fd);
    if (r->fd_out >= 0)
        close(r->fd_out);
    r->base = NULL;
    r->fd = r->fd_out = -1;
}

/* Memory of huge pages may be missing some when they are read, which ends the process (SIGBUS). */
static bool
has_plain_pages(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

int
spk_view_open(struct spk_view *v, int fd, size_t least, size_t most)
{
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;
    void *base;

    v->base = NULL;
    v->size = 0;
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || !has_plain_pages(fd) || fstat(fd, &st) != 0 ||
        st.st_size < 0 || (uint64_t)st.st_size < least || (uint64_t)st.st_size > most)
        return SPOKE_EPROTO;
    base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED)
        return errno == ENOMEM ? SPOKE_ENOMEM : SPOKE_EPROTO;
    v->base = base;
    v->size = (size_t)st.st_size;
    return 0;
}

void
spk_view_close(struct spk_view *v)
{
    if (v->base != NULL)
        munmap((void *)(uintptr_t)v->base, v->size);
    v->base = NULL;
    v->size = 0;
}
