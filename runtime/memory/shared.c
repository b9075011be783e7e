/* SPDX-License-Identifier: MIT */
/* Regions and views: sealed memfds, and read-only mappings of them. */
#include "runtime/memory/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mempolicy.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <spoke/error.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif
#define COLLAPSE_TRIES 3 /* the kernel may be busy with a page */

#define NODES_MOST 1024 /* that a kernel can be built for */
#define NODE_BITS  (8 * sizeof(unsigned long))

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

/* ---- huge pages ---- */

#define NO_HUGE_PAGE SIZE_MAX

/* 0: not to be known just now. */
static size_t
read_huge_page(void)
{
    int fd = open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", O_RDONLY | O_CLOEXEC);
    char text[32] = "";
    size_t size;
    ssize_t n;

    if (fd < 0)
        return errno == ENOENT ? NO_HUGE_PAGE : 0;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    size = strtoul(text, NULL, 10);
    return size > SPK_PAGE && (size & (size - 1)) == 0 ? size : NO_HUGE_PAGE;
}

size_t
spk_huge_page(void)
{
    static atomic_size_t known;
    size_t size = atomic_load_explicit(&known, memory_order_relaxed);

    if (size == 0) {
        size = read_huge_page();
        atomic_store_explicit(&known, size, memory_order_relaxed);
    }
    return size == NO_HUGE_PAGE ? 0 : size;
}

/* A huge page can be mapped as one only where addresses and offsets are multiples of its size. */
static void *
map(int fd, size_t size, int protection)
{
    size_t huge = spk_huge_page(), front;
    uint8_t *room, *base;

    if (huge == 0 || size < huge || size % huge != 0)
        return mmap(NULL, size, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
    room = mmap(NULL, size + huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return room;
    front = -(uintptr_t)room & (huge - 1);
    base = room + front;
    if (front > 0)
        munmap(room, front);
    munmap(base + size, huge - front);
    if (mmap(base, size, protection, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0) == MAP_FAILED) {
        int error = errno;

        munmap(base, size);
        errno = error;
        return MAP_FAILED;
    }
    return base;
}

/* The kernel rounds the range inwards, and has done what it should if nothing is left of it: that
 * must not be taken for success. */
int
spk_region_make_huge(struct spk_region *r, size_t offset, size_t size)
{
    if ((uintptr_t)(r->base + offset) % size != 0)
        return EINVAL;
    for (int i = 0; madvise(r->base + offset, size, MADV_COLLAPSE) != 0; i++)
        if (errno != EAGAIN || i == COLLAPSE_TRIES - 1)
            return errno;
    return 0;
}

/* ---- nodes ---- */

static int
place(void *base, size_t size, int node)
{
    unsigned long nodes[NODES_MOST / NODE_BITS] = {0};

    if (node < 0 || node >= NODES_MOST)
        return SPOKE_ERANGE;
    nodes[(size_t)node / NODE_BITS] = 1ul << (size_t)node % NODE_BITS;
    /* The number of bits, and one: the kernel has always taken one off. */
    if (syscall(SYS_mbind, base, size, MPOL_PREFERRED, nodes, NODES_MOST + 1, 0) == 0)
        return 0;
    switch (errno) {
    case EINVAL: return SPOKE_ERANGE;
    case EPERM:
    case EACCES: return SPOKE_EPERM;
    case ENOMEM: return SPOKE_ENOMEM;
    default: return SPOKE_ENOTSUP;
    }
}

int
spk_region_place(struct spk_region *r, int node)
{
    return place(r->base, r->size, node);
}

/* By placing a page that nobody touches. */
int
spk_node_check(int node)
{
    void *page = mmap(NULL, SPK_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rc;

    if (page == MAP_FAILED)
        return SPOKE_ENOMEM;
    rc = place(page, SPK_PAGE, node);
    munmap(page, SPK_PAGE);
    return rc;
}

/* ---- regions ---- */

/* Above the limit for files of the process ftruncate() would not fail but end it, by SIGXFSZ. */
static bool
may_be_so_large(size_t size)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || size <= limit.rlim_cur;
}

int
spk_region_open(struct spk_region *r, const char *name, size_t size)
{
    void *base;
    int rc;

    *r = (struct spk_region){.size = size, .fd = -1, .fd_out = -1};
    if (!may_be_so_large(size))
        return SPOKE_ELIMIT;
    if ((r->fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)) < 0)
        return error_of(errno);
    if (ftruncate(r->fd, (off_t)size) != 0 || fcntl(r->fd, F_ADD_SEALS, SEALS) != 0 ||
        (r->fd_out = open_read_only(r->fd)) < 0)
        goto fail;
    base = map(r->fd, size, PROT_READ | PROT_WRITE);
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

/* ---- views ---- */

/* Memory of hugetlbfs may be missing some pages when they are read, which ends the process
 * (SIGBUS).  Plain memory that has been made huge may not. */
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
    base = map(fd, (size_t)st.st_size, PROT_READ);
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
