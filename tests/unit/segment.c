/* SPDX-License-Identifier: MIT */
/* Memory that other processes may read: regions and views, which must hold whatever the other end
 * does with its descriptor; segments, whose blocks must never overlap and all come back; and
 * messages around memory that is read-only, which no call may write to. */
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/memory/message.h"
#include "runtime/memory/pool.h"
#include "runtime/memory/shared.h"
#include "tests/support/random.h"
#include "tests/support/resources.h"
#include "tests/support/test.h"

#define MIB ((size_t)1 << 20)

static uint64_t seed = 0x2545f4914f6cdd1d;

static size_t
bytes_on(int fd)
{
    struct stat st;

    cr_assert_eq(fstat(fd, &st), 0);
    return (size_t)st.st_blocks * 512;
}

/* ---- regions ---- */

static struct spk_region
new_region(size_t size)
{
    struct spk_region r;

    cr_assert_eq(spk_region_open(&r, "test", size), 0);
    return r;
}

Test(region, has_its_size_and_no_pages_until_they_are_reserved)
{
    struct spk_region r = new_region(MIB);
    struct stat st;

    cr_assert_eq(fstat(r.fd_out, &st), 0);
    cr_expect_eq((size_t)st.st_size, MIB);
    cr_expect_eq(bytes_on(r.fd_out), 0);
    cr_assert_eq(spk_region_reserve(&r, 8 * SPK_PAGE, 4 * SPK_PAGE), 0);
    cr_expect_eq(bytes_on(r.fd_out), 4 * SPK_PAGE);
    cr_assert_eq(spk_region_reserve(&r, 8 * SPK_PAGE, 4 * SPK_PAGE), 0);
    cr_expect_eq(bytes_on(r.fd_out), 4 * SPK_PAGE);
    memset(r.base + 8 * SPK_PAGE, 7, SPK_PAGE);
    spk_region_give_back(&r, 8 * SPK_PAGE, 2 * SPK_PAGE);
    cr_expect_eq(bytes_on(r.fd_out), 2 * SPK_PAGE);
    cr_expect_eq(r.base[8 * SPK_PAGE], 0);
    spk_region_close(&r);
}

/* ftruncate() would end the process by a signal. */
Test(region, larger_than_the_limit_for_files_is_an_error)
{
    struct rlimit limit;
    struct spk_region r;

    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = MIB;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(spk_region_open(&r, "test", 2 * MIB), SPOKE_ELIMIT);
    cr_assert_eq(spk_region_open(&r, "test", MIB), 0);
    spk_region_close(&r);
}

Test(region, what_is_handed_out_cannot_be_mapped_to_write_nor_written_nor_cut)
{
    struct spk_region r = new_region(MIB);

    memset(r.base, 7, SPK_PAGE);
    cr_expect_eq(mmap(NULL, SPK_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r.fd_out, 0), MAP_FAILED);
    cr_expect_eq(errno, EACCES);
    uint8_t *seen = mmap(NULL, SPK_PAGE, PROT_READ, MAP_SHARED, r.fd_out, 0);
    cr_assert_neq(seen, MAP_FAILED);
    cr_expect_eq(mprotect(seen, SPK_PAGE, PROT_READ | PROT_WRITE), -1);
    cr_expect_eq(errno, EACCES);
    cr_expect_eq(write(r.fd_out, "x", 1), -1);
    cr_expect_eq(errno, EBADF);
    cr_expect_eq(ftruncate(r.fd_out, 0), -1);
    cr_expect_eq(fallocate(r.fd_out, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SPK_PAGE), -1);
    cr_expect_eq(errno, EBADF);
    cr_expect_eq(madvise(seen, SPK_PAGE, MADV_REMOVE), -1);
    cr_expect_eq(seen[0], 7);
    munmap(seen, SPK_PAGE);
    spk_region_close(&r);
}

Test(region, its_size_and_its_seals_are_final_for_its_owner_too)
{
    struct spk_region r = new_region(MIB);

    cr_expect_eq(ftruncate(r.fd, 0), -1);
    cr_expect_eq(errno, EPERM);
    cr_expect_eq(ftruncate(r.fd, 2 * (off_t)MIB), -1);
    cr_expect_eq(errno, EPERM);
    cr_expect_eq(fcntl(r.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    cr_expect_eq(errno, EPERM);
    cr_expect_eq(fcntl(r.fd_out, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    spk_region_close(&r);
}

/* The descriptor is somebody else's now, who has another user. */
Test(region, another_user_cannot_open_what_it_was_handed_to_write)
{
    struct spk_region r = new_region(SPK_PAGE);
    int status;
    pid_t child;

    if (geteuid() != 0)
        cr_skip("needs root to be somebody else");
    cr_assert_geq(child = fork(), 0);
    if (child == 0) {
        char path[64];

        snprintf(path, sizeof path, "/proc/self/fd/%d", r.fd_out);
        if (setgid(65534) != 0 || setuid(65534) != 0)
            _exit(2);
        _exit(open(path, O_RDWR) >= 0 ? 1 : 0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect_eq(status, 0);
    spk_region_close(&r);
}

Test(region, closing_leaves_no_descriptor_and_closing_again_does_nothing)
{
    struct resources before;
    struct spk_region r;

    resources_take(&before);
    r = new_region(MIB);
    spk_region_close(&r);
    spk_region_close(&r);
    resources_settle(&before);
}

/* ---- views ---- */

Test(region, a_view_sees_what_the_owner_writes_and_outlives_it)
{
    struct spk_region r = new_region(MIB);
    struct spk_view v;

    cr_assert_eq(spk_view_open(&v, r.fd_out, MIB, MIB), 0);
    cr_expect_eq(v.size, MIB);
    memset(r.base + SPK_PAGE, 7, SPK_PAGE);
    cr_expect_eq(v.base[SPK_PAGE], 7);
    cr_expect_eq(v.base[MIB - 1], 0); /* no page is there: still no fault */
    spk_region_give_back(&r, 0, MIB);
    cr_expect_eq(v.base[SPK_PAGE], 0);
    memset(r.base, 8, SPK_PAGE);
    spk_region_close(&r);
    cr_expect_eq(v.base[0], 8);
    spk_view_close(&v);
    spk_view_close(&v);
}

/* Also where the owner was careless, and handed out what can be written. */
Test(region, a_view_is_never_writable)
{
    struct spk_region r = new_region(SPK_PAGE);
    struct spk_view v;
    int status;
    pid_t child;

    cr_assert_eq(spk_view_open(&v, r.fd, 1, MIB), 0);
    cr_assert_geq(child = fork(), 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        *(volatile uint8_t *)(uintptr_t)v.base = 1;
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFSIGNALED(status));
    cr_expect_eq(WTERMSIG(status), SIGSEGV);
    spk_view_close(&v);
    spk_region_close(&r);
}

static void
expect_refused(int fd, size_t least, size_t most, const char *what)
{
    struct spk_view v;

    cr_expect_eq(spk_view_open(&v, fd, least, most), SPOKE_EPROTO, "%s", what);
    cr_expect_null(v.base);
    if (fd >= 0)
        close(fd);
}

static int
sealed(size_t size, int seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, (off_t)size), 0);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

Test(region, no_view_opens_on_what_is_no_memory_that_stays)
{
    char path[] = "/tmp/spoke-test-XXXXXX";
    int ends[2], file = mkstemp(path);

    cr_assert_geq(file, 0);
    unlink(path);
    cr_assert_eq(ftruncate(file, (off_t)MIB), 0);
    cr_assert_eq(pipe(ends), 0);
    expect_refused(file, 1, MIB, "a file");
    expect_refused(ends[0], 1, MIB, "a pipe's end");
    expect_refused(ends[1], 1, MIB, "a pipe's end");
    expect_refused(open("/dev/zero", O_RDONLY), 1, MIB, "a device");
    expect_refused(open("/tmp", O_RDONLY), 1, MIB, "a directory");
    expect_refused(-1, 1, MIB, "nothing");
    int plain = memfd_create("test", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(plain, (off_t)MIB), 0);
    expect_refused(plain, 1, MIB, "memory that cannot be sealed");
    expect_refused(sealed(MIB, 0), 1, MIB, "memory that is not sealed");
    expect_refused(sealed(MIB, F_SEAL_GROW), 1, MIB, "memory that may shrink");
}

Test(region, no_view_opens_on_what_is_too_small_or_too_large)
{
    expect_refused(sealed(MIB - 1, F_SEAL_SHRINK), MIB, 2 * MIB, "too small");
    expect_refused(sealed(2 * MIB + 1, F_SEAL_SHRINK), MIB, 2 * MIB, "too large");
    expect_refused(sealed(0, F_SEAL_SHRINK), 0, MIB, "empty");
    expect_refused(sealed((size_t)1 << 46, F_SEAL_SHRINK), MIB, 2 * MIB, "far too large");

    struct spk_view v;
    int fd = sealed(MIB, F_SEAL_SHRINK);
    cr_expect_eq(spk_view_open(&v, fd, MIB, MIB), 0);
    spk_view_close(&v);
    close(fd);
}

/* ---- huge pages ---- */

/* The kernel makes none for this process, whatever it does for others. */
static void
forbid_huge_pages(bool forbid)
{
    cr_assert_eq(prctl(PR_SET_THP_DISABLE, forbid ? 1 : 0, 0, 0, 0), 0);
}

/* Does the kernel make one, for plain memory that is nothing of the library's?  0, or an errno. */
static int
kernel_makes_one(size_t huge)
{
    int fd = memfd_create("test", MFD_CLOEXEC), error = 0;
    uint8_t *room = mmap(NULL, 2 * huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *at;

    cr_assert_geq(fd, 0);
    cr_assert_neq(room, MAP_FAILED);
    cr_assert_eq(ftruncate(fd, (off_t)huge), 0);
    at = room + (huge - (uintptr_t)room % huge) % huge;
    at = mmap(at, huge, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    cr_assert_neq(at, MAP_FAILED);
    at[0] = 1;
    if (madvise(at, huge, 25 /* MADV_COLLAPSE */) != 0)
        error = errno;
    munmap(room, 2 * huge);
    close(fd);
    return error;
}

/* Their size; the test is skipped where there is none to be had. */
static size_t
huge_page_or_skip(void)
{
    size_t huge = spk_huge_page();
    int error;

    if (huge == 0)
        cr_skip("the kernel makes no huge pages");
    if (huge > 2 * MIB)
        cr_skip("huge pages of %zu MiB are too large for this test", huge / MIB);
    if ((error = kernel_makes_one(huge)) != 0)
        cr_skip("no huge page is to be had: %s", strerror(error));
    return huge;
}

/* A page at the end of where the next mapping of this size would be, and, as kernels choose, by
 * chance well aligned. */
static uint8_t *
take_a_good_place(size_t size)
{
    uint8_t *place = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert_neq(place, MAP_FAILED);
    munmap(place, size - SPK_PAGE);
    return place + size - SPK_PAGE;
}

/* Bytes that are mapped by huge pages, of the mapping that begins at `base`. */
static size_t
mapped_huge(const void *base)
{
    FILE *maps = fopen("/proc/self/smaps", "re");
    unsigned long from, to, kib = 0;
    bool here = false;
    char line[512];

    cr_assert_not_null(maps);
    while (fgets(line, sizeof line, maps) != NULL)
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            here = from == (uintptr_t)base;
        else if (here && sscanf(line, "ShmemPmdMapped: %lu", &kib) == 1)
            break;
    fclose(maps);
    return kib * 1024;
}

Test(region, a_huge_page_has_what_was_there_and_is_one_for_the_reader_too)
{
    size_t huge = huge_page_or_skip();
    uint8_t *odd[2];
    struct spk_region r;
    struct spk_view v;

    odd[0] = take_a_good_place(4 * huge);
    r = new_region(4 * huge);
    odd[1] = take_a_good_place(4 * huge);
    cr_assert_eq(spk_view_open(&v, r.fd_out, 4 * huge, 4 * huge), 0);
    cr_assert_eq((uintptr_t)r.base % huge, 0);
    cr_assert_eq((uintptr_t)v.base % huge, 0);
    cr_assert_eq(spk_region_reserve(&r, huge, 3 * SPK_PAGE), 0);
    memset(r.base + huge, 7, 3 * SPK_PAGE);
    cr_expect_eq(v.base[huge + SPK_PAGE], 7);
    int error = spk_region_make_huge(&r, huge, huge);
    if (error == ENOMEM || error == EBUSY)
        cr_skip("no second huge page is to be had: %s", strerror(error));
    cr_assert_eq(error, 0, "%s", strerror(error));
    cr_expect_eq(bytes_on(r.fd_out), huge);
    cr_expect_eq(mapped_huge(r.base), huge);
    cr_expect_eq(r.base[huge + 3 * SPK_PAGE - 1], 7);
    cr_expect_eq(r.base[huge + 3 * SPK_PAGE], 0);
    cr_expect_eq(v.base[huge + 2 * SPK_PAGE], 7);
    r.base[2 * huge - 1] = 8;
    cr_expect_eq(v.base[2 * huge - 1], 8);
    spk_region_give_back(&r, huge, huge);
    cr_expect_eq(bytes_on(r.fd_out), 0);
    cr_assert_eq(spk_region_reserve(&r, huge, SPK_PAGE), 0);
    if (spk_region_make_huge(&r, huge, huge) == 0) { /* none of it has been looked at before */
        cr_expect_eq(v.base[huge], 0);
        cr_expect_eq(mapped_huge(v.base), huge);
    }
    spk_view_close(&v);
    spk_region_close(&r);
    munmap(odd[0], SPK_PAGE);
    munmap(odd[1], SPK_PAGE);
}

Test(region, what_cannot_be_a_huge_page_stays_as_it_is)
{
    size_t huge = spk_huge_page();
    struct spk_region r;

    if (huge == 0)
        cr_skip("the kernel makes no huge pages");
    r = new_region(2 * huge);
    cr_assert_eq(spk_region_reserve(&r, 0, 3 * SPK_PAGE), 0);
    memset(r.base, 7, 3 * SPK_PAGE);
    forbid_huge_pages(true);
    cr_expect_eq(spk_region_make_huge(&r, 0, huge), EINVAL);
    forbid_huge_pages(false);
    cr_expect_eq(bytes_on(r.fd_out), 3 * SPK_PAGE);
    cr_expect_eq(mapped_huge(r.base), 0);
    cr_expect_eq(r.base[3 * SPK_PAGE - 1], 7);
    spk_region_close(&r);
}

/* ---- nodes ---- */

/* SPOKE_ERANGE is not what a process gets that may not ask at all. */
static void
skip_without_nodes(void)
{
    int rc = spk_node_check(0);

    if (rc == SPOKE_EPERM || rc == SPOKE_ENOTSUP)
        cr_skip("nodes: %s", spoke_error_name(rc));
}

Test(region, a_node_that_is_not_there_is_refused)
{
    static const int none[] = {-2, -1, 1024, INT32_MAX, INT32_MIN};

    skip_without_nodes();
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        cr_expect_eq(spk_node_check(none[i]), SPOKE_ERANGE, "%d", none[i]);
    int first = 0;
    for (int node = 0; node < 1024; node++) {
        char path[64];

        snprintf(path, sizeof path, "/sys/devices/system/node/node%d", node);
        if (access(path, F_OK) != 0 && first++ < 3)
            cr_expect_eq(spk_node_check(node), SPOKE_ERANGE, "%d", node);
    }
}

/* Whoever has it mapped sees the kernel's own account of it. */
Test(region, pages_come_to_lie_on_the_node_that_was_asked_for)
{
    int tried = 0;

    skip_without_nodes();
    for (int node = 0; node < 1024; node++) {
        unsigned long nodes[16] = {0};
        int mode = -1, there = -1;
        struct spk_region r;
        struct spk_view v;

        if (spk_node_check(node) != 0)
            continue;
        tried++;
        r = new_region(MIB);
        cr_assert_eq(spk_view_open(&v, r.fd_out, MIB, MIB), 0);
        cr_assert_eq(spk_region_place(&r, node), 0);
        cr_assert_eq(spk_region_reserve(&r, 0, SPK_PAGE), 0);
        cr_assert_eq(
            syscall(SYS_get_mempolicy, &mode, nodes, 8 * sizeof nodes, v.base, MPOL_F_ADDR), 0);
        cr_expect_eq(mode, MPOL_PREFERRED);
        for (int i = 0; i < 1024; i++)
            cr_expect_eq((nodes[i / 64] >> (i % 64)) & 1, i == node, "%d", i);
        cr_expect_eq(v.base[0], 0);
        cr_assert_eq(syscall(SYS_get_mempolicy, &there, NULL, 0, v.base, MPOL_F_ADDR | MPOL_F_NODE),
                     0);
        cr_expect_eq(there, node);
        spk_view_close(&v);
        spk_region_close(&r);
    }
    cr_expect_gt(tried, 0);
}

/* ---- segments: blocks ---- */

static struct spk_segment *
new_segment_as(size_t size, struct spk_segment_wish wish)
{
    struct spk_segment *s;

    cr_assert_eq(spk_segment_new(&s, size, &wish), 0);
    return s;
}

static const struct spk_segment_wish plain = {.node = SPK_ANY_NODE},
                                     huge_pages = {.huge_pages = true, .node = SPK_ANY_NODE};

static struct spk_segment *
new_segment(size_t size)
{
    return new_segment_as(size, plain);
}

static struct spk_segment_stats
stats_of(struct spk_segment *s)
{
    struct spk_segment_stats stats;

    spk_segment_stats(s, &stats);
    return stats;
}

static size_t
block_for(size_t size)
{
    size_t block = SPK_PAGE;

    while (block < size)
        block *= 2;
    return block;
}

static void
expect_whole(struct spk_segment *s)
{
    cr_expect_eq(stats_of(s).used, 0);
    struct spk_chunk *c = spk_segment_alloc(s, spk_segment_size(s));
    cr_assert_not_null(c);
    spk_chunk_unref(c);
}

Test(segment, sizes_that_it_cannot_have_are_refused)
{
    static const size_t sizes[] = {
        0, 1, SPK_PAGE - 1, SPK_PAGE + 1, 3 * SPK_PAGE, SIZE_MAX, (size_t)1 << 62};
    struct spk_segment *s;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        cr_expect_eq(spk_segment_new(&s, sizes[i], &plain), SPOKE_EINVAL);
        cr_expect_null(s);
    }
}

Test(segment, chunks_are_aligned_to_pages_and_as_large_as_asked)
{
    struct spk_segment *s = new_segment(4 * MIB);
    uint64_t offset;

    for (size_t size = 0; size <= 4 * MIB; size = size * 9 / 8 + 1) {
        struct spk_chunk *c = spk_segment_alloc(s, size);
        cr_assert_not_null(c);
        cr_expect_geq(c->size, size);
        cr_expect_not(c->read_only);
        cr_assert(spk_segment_holds(s, c->data, c->size, &offset));
        cr_expect_eq(offset % block_for(size), 0);
        cr_expect_eq(stats_of(s).used, block_for(size));
        memset(c->data, 1, c->size);
        spk_chunk_unref(c);
    }
    expect_whole(s);
    spk_segment_unref(s);
}

Test(segment, holds_tells_what_lies_in_it)
{
    struct spk_segment *s = new_segment(MIB);
    struct spk_chunk *c = spk_segment_alloc(s, MIB);
    uint64_t offset;
    uint8_t here;

    cr_assert_not_null(c);
    cr_expect(spk_segment_holds(s, c->data, MIB, &offset));
    cr_expect_eq(offset, 0);
    cr_expect(spk_segment_holds(s, c->data + 5, MIB - 5, &offset));
    cr_expect_eq(offset, 5);
    cr_expect(spk_segment_holds(s, c->data + MIB, 0, &offset));
    cr_expect_not(spk_segment_holds(s, c->data + 5, MIB - 4, &offset));
    cr_expect_not(spk_segment_holds(s, c->data - 1, 1, &offset));
    cr_expect_not(spk_segment_holds(s, c->data, SIZE_MAX, &offset));
    cr_expect_not(spk_segment_holds(s, &here, 1, &offset));
    spk_chunk_unref(c);
    spk_segment_unref(s);
}

Test(segment, a_full_one_gives_nothing_counts_it_and_goes_on_when_there_is_room)
{
    struct spk_segment *s = new_segment(MIB);
    struct spk_chunk *chunks[MIB / SPK_PAGE];

    cr_expect_null(spk_segment_alloc(s, MIB + 1));
    uint64_t failed = stats_of(s).failed;
    for (size_t i = 0; i < MIB / SPK_PAGE; i++)
        cr_assert_not_null(chunks[i] = spk_segment_alloc(s, 1));
    cr_expect_eq(stats_of(s).used, MIB);
    cr_expect_null(spk_segment_alloc(s, 1));
    cr_expect_null(spk_segment_alloc(s, MIB));
    cr_expect_eq(stats_of(s).failed, failed + 2);
    spk_chunk_unref(chunks[7]);
    cr_assert_not_null(chunks[7] = spk_segment_alloc(s, SPK_PAGE));
    cr_expect_null(spk_segment_alloc(s, 1));
    /* Every second page is free: half of it, and yet not two pages together. */
    for (size_t i = 0; i < MIB / SPK_PAGE; i += 2)
        spk_chunk_unref(chunks[i]);
    cr_expect_null(spk_segment_alloc(s, SPK_PAGE + 1));
    for (size_t i = 1; i < MIB / SPK_PAGE; i += 2)
        spk_chunk_unref(chunks[i]);
    expect_whole(s);
    spk_segment_unref(s);
}

enum { PAGES = 4096, MOST = 600 };

/* Against a table of who has which page; sometimes the kernel makes no huge pages for a while. */
static void
play_with(struct spk_segment *s, bool forbid)
{
    static uint16_t owner[PAGES]; /* 0: nobody */
    static struct {
        struct spk_chunk *c;
        size_t size, at;
    } live[MOST + 1];
    size_t used = 0;
    uint64_t failed = 0;

    for (int step = 0; step < TEST_REPEATS(100000); step++) {
        uint64_t r = random_next(&seed), offset;
        uint16_t id = (uint16_t)(1 + r % MOST);
        size_t size = (size_t)(r >> 16) % (r >> 60 == 0 ? 4 * MIB : r >> 62 == 1 ? 200000 : 9000);

        if (live[id].c != NULL) {
            for (size_t i = 0; i < live[id].size; i += SPK_PAGE)
                cr_assert_eq(live[id].c->data[i], id & 0xff);
            for (size_t i = 0; i < block_for(live[id].size) / SPK_PAGE; i++)
                owner[live[id].at + i] = 0;
            used -= block_for(live[id].size);
            spk_chunk_unref(live[id].c);
            live[id].c = NULL;
        } else if ((live[id].c = spk_segment_alloc(s, size)) == NULL) {
            failed++;
        } else {
            cr_assert(spk_segment_holds(s, live[id].c->data, size, &offset));
            cr_assert_eq(offset % block_for(size), 0);
            live[id].size = size;
            live[id].at = offset / SPK_PAGE;
            for (size_t i = 0; i < block_for(size) / SPK_PAGE; i++) {
                cr_assert_eq(owner[live[id].at + i], 0);
                owner[live[id].at + i] = id;
            }
            for (size_t i = 0; i < size; i += SPK_PAGE)
                live[id].c->data[i] = (uint8_t)id;
            used += block_for(size);
        }
        if (step % 64 == 0) {
            cr_assert_eq(stats_of(s).used, used);
            cr_assert_eq(stats_of(s).pages, bytes_on(spk_segment_fd(s)));
        }
        if (forbid && step % 1024 == 0) {
            forbid_huge_pages(step % 2048 == 0);
            spk_segment_trim(s);
            cr_assert_eq(stats_of(s).pages, bytes_on(spk_segment_fd(s)));
        }
    }
    if (forbid)
        forbid_huge_pages(false);
    cr_expect_eq(stats_of(s).failed, failed);
    cr_expect_gt(failed, 0); /* it has been full */
    for (int id = 1; id <= MOST; id++)
        if (live[id].c != NULL)
            spk_chunk_unref(live[id].c);
    expect_whole(s);
    spk_segment_trim(s);
    cr_expect_eq(stats_of(s).pages, 0);
    cr_expect_eq(stats_of(s).huge, 0);
    cr_expect_eq(bytes_on(spk_segment_fd(s)), 0);
    spk_segment_unref(s);
}

Test(segment, random_chunks_never_overlap_and_their_blocks_join_again)
{
    play_with(new_segment(PAGES * SPK_PAGE), false);
}

Test(segment, random_chunks_never_overlap_in_huge_pages_and_between_them)
{
    play_with(new_segment_as(PAGES * SPK_PAGE, huge_pages), true);
}

/* ---- segments: pages ---- */

static void
expect_pages(struct spk_segment *s, size_t least, size_t most)
{
    size_t pages = stats_of(s).pages;

    cr_expect_eq(bytes_on(spk_segment_fd(s)), pages);
    cr_expect_geq(pages, least);
    cr_expect_leq(pages, most);
}

Test(segment, pages_exist_only_where_chunks_are_or_were)
{
    struct spk_segment *s = new_segment(64 * MIB);

    expect_pages(s, 0, 0);
    struct spk_chunk *a = spk_segment_alloc(s, 5 * SPK_PAGE - 10); /* of a block of eight */
    expect_pages(s, 5 * SPK_PAGE, 5 * SPK_PAGE);
    struct spk_chunk *b = spk_segment_alloc(s, MIB);
    expect_pages(s, MIB + 5 * SPK_PAGE, MIB + 5 * SPK_PAGE);
    spk_chunk_unref(b);
    expect_pages(s, MIB + 5 * SPK_PAGE, MIB + 5 * SPK_PAGE); /* for the next one, which is there */
    b = spk_segment_alloc(s, MIB);
    expect_pages(s, MIB + 5 * SPK_PAGE, MIB + 5 * SPK_PAGE);
    spk_chunk_unref(a);
    spk_chunk_unref(b);
    expect_pages(s, MIB + 5 * SPK_PAGE, MIB + 5 * SPK_PAGE);
    spk_segment_unref(s);
}

Test(segment, pages_are_kept_up_to_32_mib_and_no_more)
{
    enum { COUNT = 48 };
    struct spk_segment *s = new_segment(64 * MIB);
    struct spk_chunk *chunks[COUNT];

    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) {
            cr_assert_not_null(chunks[i] = spk_segment_alloc(s, MIB));
            memset(chunks[i]->data, 7, MIB);
        }
        expect_pages(s, COUNT * MIB, COUNT * MIB);
        for (int i = 0; i < COUNT; i++)
            spk_chunk_unref(chunks[round == 1 ? COUNT - 1 - i : i]);
        expect_pages(s, 31 * MIB, 32 * MIB); /* and most of them are kept */
    }
    expect_whole(s);
    expect_pages(s, 31 * MIB, 32 * MIB);
    spk_segment_unref(s);
}

Test(segment, small_chunks_give_their_pages_back_too)
{
    enum { COUNT = 40 * 16 }; /* of 64 KiB */
    static struct spk_chunk *chunks[COUNT];
    struct spk_segment *s = new_segment(64 * MIB);

    for (int i = 0; i < COUNT; i++)
        cr_assert_not_null(chunks[i] = spk_segment_alloc(s, MIB / 16));
    expect_pages(s, 40 * MIB, 40 * MIB);
    for (int i = 0; i < COUNT; i += 2)
        spk_chunk_unref(chunks[i]);
    for (int i = 1; i < COUNT; i += 2)
        spk_chunk_unref(chunks[i]);
    expect_pages(s, 31 * MIB, 32 * MIB);
    spk_segment_unref(s);
}

Test(segment, trim_gives_all_pages_back_that_are_not_used)
{
    struct spk_segment *s = new_segment(8 * MIB);
    struct spk_chunk *chunks[16];

    for (int i = 0; i < 16; i++)
        cr_assert_not_null(chunks[i] = spk_segment_alloc(s, 3 * SPK_PAGE));
    for (int i = 0; i < 16; i += 2)
        spk_chunk_unref(chunks[i]);
    memset(chunks[1]->data, 7, 3 * SPK_PAGE);
    expect_pages(s, 48 * SPK_PAGE, 48 * SPK_PAGE);
    spk_segment_trim(s);
    expect_pages(s, 24 * SPK_PAGE, 24 * SPK_PAGE);
    cr_expect_eq(chunks[1]->data[3 * SPK_PAGE - 1], 7);
    cr_assert_not_null(chunks[0] = spk_segment_alloc(s, MIB));
    memset(chunks[0]->data, 7, MIB);
    for (int i = 0; i<16; i += i> 0 ? 2 : 1)
        spk_chunk_unref(chunks[i]);
    spk_segment_trim(s);
    expect_pages(s, 0, 0);
    expect_whole(s);
    spk_segment_unref(s);
}

/* Has it all in huge pages?  A machine may run out of them in the middle of a test. */
static void
expect_huge(struct spk_segment *s, size_t bytes)
{
    if (stats_of(s).huge_failed > 0)
        cr_skip("a huge page could not be had");
    cr_expect_eq(stats_of(s).huge, bytes);
    expect_pages(s, bytes, bytes);
}

Test(segment, huge_pages_come_and_go_as_a_whole)
{
    size_t huge = huge_page_or_skip();
    struct spk_segment *s = new_segment_as(32 * huge, huge_pages);
    struct spk_chunk *small[2], *large;

    expect_huge(s, 0);
    for (int i = 0; i < 2; i++)
        cr_assert_not_null(small[i] = spk_segment_alloc(s, 5 * SPK_PAGE));
    expect_huge(s, huge);
    cr_assert_not_null(large = spk_segment_alloc(s, 2 * huge + 1));
    expect_huge(s, 4 * huge); /* the fourth place of its block has none */
    memset(large->data, 7, large->size);
    memset(small[1]->data, 8, small[1]->size);
    spk_chunk_unref(small[0]);
    spk_segment_trim(s);
    expect_huge(s, 4 * huge); /* a part of the first one is free, and stays */
    spk_chunk_unref(large);
    expect_huge(s, 4 * huge);
    spk_segment_trim(s);
    expect_huge(s, huge);
    cr_expect_eq(small[1]->data[5 * SPK_PAGE - 1], 8);
    spk_chunk_unref(small[1]);
    spk_segment_trim(s);
    expect_huge(s, 0);
    cr_assert_not_null(large = spk_segment_alloc(s, 32 * huge));
    expect_huge(s, 32 * huge);
    spk_chunk_unref(large);
    expect_whole(s);
    spk_segment_unref(s);
}

Test(segment, huge_pages_are_kept_up_to_32_mib_and_no_more)
{
    enum { COUNT = 48 };
    size_t huge = huge_page_or_skip();
    struct spk_segment *s = new_segment_as(64 * MIB, huge_pages);
    struct spk_chunk *chunks[COUNT];

    for (int i = 0; i < COUNT; i++)
        cr_assert_not_null(chunks[i] = spk_segment_alloc(s, MIB));
    expect_huge(s, COUNT * MIB);
    for (int i = 0; i < COUNT; i++)
        spk_chunk_unref(chunks[i]);
    expect_pages(s, 32 * MIB - huge, 32 * MIB);
    cr_expect_eq(stats_of(s).huge, stats_of(s).pages);
    spk_segment_unref(s);
}

static int sentences;

static void
on_log(void *ctx, enum spoke_log_level level, const char *text)
{
    (void)ctx;
    sentences += level == SPOKE_LOG_WARNING && strstr(text, "shm-huge-pages") != NULL;
}

Test(segment, where_no_huge_page_is_to_be_had_ordinary_ones_stand_in_and_it_is_told_once)
{
    struct spk_segment *s;
    struct spk_chunk *a, *b;

    forbid_huge_pages(true);
    spoke_set_log(on_log, NULL, SPOKE_LOG_WARNING);
    s = new_segment_as(16 * MIB, huge_pages);
    cr_assert_not_null(a = spk_segment_alloc(s, 5 * SPK_PAGE));
    cr_assert_not_null(b = spk_segment_alloc(s, 4 * MIB));
    memset(a->data, 7, a->size);
    memset(b->data, 7, b->size);
    expect_pages(s, 4 * MIB + 5 * SPK_PAGE, 4 * MIB + 5 * SPK_PAGE);
    cr_expect_eq(stats_of(s).huge, 0);
    cr_expect_gt(stats_of(s).huge_failed, 0);
    cr_expect_eq(stats_of(s).failed, 0);
    cr_expect_eq(sentences, 1);
    spk_chunk_unref(a);
    spk_chunk_unref(b);
    expect_whole(s);
    spk_segment_unref(s);
    spoke_set_log(NULL, NULL, SPOKE_LOG_ERROR);
    forbid_huge_pages(false);
}

Test(segment, one_that_is_smaller_than_a_huge_page_has_ordinary_ones)
{
    struct spk_segment *s;
    struct spk_chunk *c;

    spoke_set_log(on_log, NULL, SPOKE_LOG_WARNING);
    s = new_segment_as(16 * SPK_PAGE, huge_pages);
    cr_expect_eq(sentences, 1);
    cr_assert_not_null(c = spk_segment_alloc(s, SPK_PAGE));
    expect_pages(s, SPK_PAGE, SPK_PAGE);
    cr_expect_eq(stats_of(s).huge_failed, 1);
    spk_chunk_unref(c);
    spk_segment_unref(s);
    spoke_set_log(NULL, NULL, SPOKE_LOG_ERROR);
}

/* Have its owner's descriptor be something that gives no pages. */
static void
take_pages_away(struct spk_segment *s)
{
    struct stat wanted, st;

    cr_assert_eq(fstat(spk_segment_fd(s), &wanted), 0);
    for (int fd = 0; fd < 1024; fd++)
        if (fstat(fd, &st) == 0 && st.st_ino == wanted.st_ino && st.st_dev == wanted.st_dev &&
            (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR) {
            int null = open("/dev/null", O_RDWR | O_CLOEXEC);
            cr_assert_eq(dup2(null, fd), fd);
            close(null);
            return;
        }
    cr_assert_fail("it has no descriptor");
}

Test(segment, without_pages_it_gives_nothing_and_loses_nothing)
{
    struct spk_segment *s = new_segment(MIB);
    struct spk_chunk *first = spk_segment_alloc(s, 4 * SPK_PAGE);

    cr_assert_not_null(first);
    take_pages_away(s);
    cr_expect_null(spk_segment_alloc(s, SPK_PAGE));
    cr_expect_null(spk_segment_alloc(s, MIB / 2));
    cr_expect_eq(stats_of(s).failed, 2);
    cr_expect_eq(stats_of(s).used, 4 * SPK_PAGE);
    spk_chunk_unref(first);
    cr_expect_eq(stats_of(s).used, 0);
    first = spk_segment_alloc(s, 4 * SPK_PAGE); /* its pages are still there */
    cr_expect_not_null(first);
    spk_chunk_unref(first);
    spk_segment_unref(s);
}

/* ---- segments: lives ---- */

Test(segment, it_lives_as_long_as_a_chunk_of_it)
{
    struct resources before;

    resources_take(&before);
    struct spk_segment *s = new_segment(MIB);
    struct spk_chunk *c = spk_segment_alloc(s, 100), *d = spk_segment_alloc(s, MIB / 2);
    cr_assert_not_null(c);
    cr_assert_not_null(d);
    spk_segment_unref(spk_segment_ref(s));
    spk_segment_unref(s);
    memset(c->data, 1, c->size);
    memset(d->data, 2, d->size);
    spk_chunk_unref(spk_chunk_ref(c));
    spk_chunk_unref(c);
    cr_expect_eq(d->data[MIB / 2 - 1], 2);
    spk_chunk_unref(d);
    resources_settle(&before);
}

Test(segment, without_memory_nothing_is_made_and_nothing_lost)
{
    struct resources before;
    struct spk_segment *s;
    uint64_t n;
    int rc;

    resources_take(&before);
    for (n = 1;; n++) {
        spk_memory_fail_after(n);
        rc = spk_segment_new(&s, MIB, &plain);
        spk_memory_fail_after(0);
        if (rc == 0)
            break;
        cr_assert_eq(rc, SPOKE_ENOMEM);
        cr_assert_null(s);
    }
    cr_expect_gt(n, 1);
    spk_memory_fail_after(1);
    cr_expect_null(spk_segment_alloc(s, MIB));
    spk_memory_fail_after(0);
    expect_whole(s);
    spk_segment_unref(s);
    resources_settle(&before);
}

/* Chunks change hands between threads all the time, and each is freed by whoever has it then. */
enum { THREADS = 4, HANDS = 64 };
static struct {
    struct spk_segment *s;
    _Atomic(struct spk_chunk *) hands[HANDS];
    atomic_ulong wrong, passed;
} storm;

static void *
pass_chunks(void *ctx)
{
    uint64_t state = 4711 + (uint64_t)(uintptr_t)ctx;

    for (int i = 0; i < TEST_REPEATS(40000); i++) {
        uint64_t r = random_next(&state);
        struct spk_chunk *c = spk_segment_alloc(storm.s, 1 + (size_t)(r >> 8) % 40000);
        if (c != NULL)
            memset(c->data, (uint8_t)r, c->size);
        c = atomic_exchange(&storm.hands[r % HANDS], c);
        if (c == NULL)
            continue;
        atomic_fetch_add(&storm.wrong, c->data[0] != c->data[c->size - 1]);
        atomic_fetch_add(&storm.passed, 1);
        spk_chunk_unref(c);
    }
    return NULL;
}

Test(segment, chunks_may_be_made_and_freed_by_any_thread)
{
    pthread_t threads[THREADS];

    storm.s = new_segment(MIB); /* often full */
    for (uintptr_t i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, pass_chunks, (void *)i), 0);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < HANDS; i++)
        if (storm.hands[i] != NULL)
            spk_chunk_unref(storm.hands[i]);
    cr_expect_eq(storm.wrong, 0);
    cr_expect_gt(storm.passed, 0);
    expect_whole(storm.s);
    spk_segment_unref(storm.s);
}

/* ---- messages around memory that cannot be written ---- */

#define BODY_AT   512 /* so that there would be room on both sides */
#define BODY_SIZE 2048

static const uint8_t *page;
static int given_back;

static void
on_given_back(void *data, size_t size, void *ctx)
{
    (void)data;
    (void)size;
    (void)ctx;
    given_back++;
}

/* Writing there is the end of the test. */
static spoke_msg *
new_read_only(void)
{
    uint8_t *p = mmap(NULL, SPK_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    spoke_msg *m;

    cr_assert_neq(p, MAP_FAILED);
    for (size_t i = 0; i < SPK_PAGE; i++)
        p[i] = (uint8_t)(i * 7);
    cr_assert_eq(mprotect(p, SPK_PAGE, PROT_READ), 0);
    page = p;
    given_back = 0;
    struct spk_chunk *c = spk_chunk_wrap(p, SPK_PAGE, on_given_back, NULL);
    cr_assert_not_null(c);
    c->read_only = true;
    cr_assert_eq(spk_msg_slice(&m, c, c->data + BODY_AT, BODY_SIZE), 0);
    return m;
}

static void
expect_body(const spoke_msg *m, const void *front, size_t front_size, size_t from, size_t size,
            const void *back, size_t back_size)
{
    const uint8_t *body = spoke_msg_body(m);

    cr_assert_eq(spoke_msg_size(m), front_size + size + back_size);
    if (front_size > 0)
        cr_expect_arr_eq(body, front, front_size);
    if (size > 0)
        cr_expect_arr_eq(body + front_size, page + BODY_AT + from, size);
    if (back_size > 0)
        cr_expect_arr_eq(body + front_size + size, back, back_size);
}

Test(read_only, a_message_is_not_unique_until_it_is_made_so)
{
    spoke_msg *m = new_read_only();

    cr_expect_not(spoke_msg_is_unique(m));
    cr_assert_eq(spoke_msg_make_unique(&m), 0);
    cr_expect(spoke_msg_is_unique(m));
    cr_expect_eq(given_back, 1);
    expect_body(m, NULL, 0, 0, BODY_SIZE, NULL, 0);
    memset(spoke_msg_body(m), 1, BODY_SIZE);
    spoke_msg_free(m);
    cr_expect_eq(given_back, 1);
}

Test(read_only, make_unique_copies_also_for_the_second_holder)
{
    spoke_msg *m = new_read_only(), *second = spoke_msg_dup(m);

    cr_assert_eq(spoke_msg_make_unique(&second), 0);
    cr_expect_neq(second, m);
    memset(spoke_msg_body(second), 1, BODY_SIZE);
    expect_body(m, NULL, 0, 0, BODY_SIZE, NULL, 0);
    cr_expect_eq(spoke_msg_body(m), page + BODY_AT);
    spoke_msg_free(second);
    cr_expect_eq(given_back, 0);
    spoke_msg_free(m);
    cr_expect_eq(given_back, 1);
}

/* Up to what is copied into the message itself, and what is not. */
Test(read_only, append_and_prepend_copy_the_body_first)
{
    static const uint8_t more[300] = {1, 2, 3};
    static const size_t sizes[] = {1, 8, 64, 300}, trims[] = {0, BODY_SIZE - 100, BODY_SIZE};

    for (size_t k = 0; k < 4; k++)
        for (size_t t = 0; t < 3; t++)
            for (int front = 0; front < 2; front++) {
                spoke_msg *m = new_read_only();
                size_t left = BODY_SIZE - trims[t], n = sizes[k];

                cr_assert_eq(spoke_msg_trim_back(m, trims[t]), 0);
                if (front)
                    cr_assert_eq(spoke_msg_prepend(m, more, n), 0);
                else
                    cr_assert_eq(spoke_msg_append(m, more, n), 0);
                cr_expect_eq(given_back, 1);
                cr_expect(spoke_msg_is_unique(m));
                expect_body(m, more, front ? n : 0, 0, left, more, front ? 0 : n);
                spoke_msg_free(m);
                cr_expect_eq(given_back, 1);
            }
}

Test(read_only, room_without_data_is_room_elsewhere)
{
    spoke_msg *m = new_read_only();

    cr_assert_eq(spoke_msg_append(m, NULL, 16), 0);
    memset((uint8_t *)spoke_msg_body(m) + BODY_SIZE, 1, 16);
    cr_expect_eq(given_back, 1);
    spoke_msg_free(m);
    m = new_read_only();
    cr_assert_eq(spoke_msg_append(m, NULL, 0), 0); /* nothing is to be written */
    cr_expect_eq(spoke_msg_body(m), page + BODY_AT);
    spoke_msg_free(m);
    cr_expect_eq(given_back, 1);
}

Test(read_only, trims_copy_nothing)
{
    spoke_msg *m = new_read_only();

    cr_assert_eq(spoke_msg_trim_front(m, 100), 0);
    cr_assert_eq(spoke_msg_trim_back(m, 50), 0);
    cr_expect_eq(spoke_msg_body(m), page + BODY_AT + 100);
    expect_body(m, NULL, 0, 100, BODY_SIZE - 150, NULL, 0);
    cr_assert_eq(spoke_msg_trim_front(m, BODY_SIZE - 150), 0);
    cr_expect_eq(given_back, 0);
    spoke_msg_free(m);
    cr_expect_eq(given_back, 1);
}

Test(read_only, reserve_moves_the_body)
{
    spoke_msg *m = new_read_only();

    cr_assert_eq(spk_msg_reserve(m, BODY_SIZE + 1), 0);
    cr_expect_eq(given_back, 1);
    m->body[m->size++] = 9;
    expect_body(m, NULL, 0, 0, BODY_SIZE, "\t", 1);
    spoke_msg_free(m);
}

Test(read_only, the_header_is_a_matter_of_its_own)
{
    spoke_msg *m = new_read_only();

    cr_assert_eq(spoke_msg_header_append(m, "abcd", 4), 0);
    cr_assert_eq(spoke_msg_header_prepend(m, "0123", 4), 0);
    cr_assert_eq(spoke_msg_header_trim_front(m, 2), 0);
    cr_assert_eq(spoke_msg_header_trim_back(m, 2), 0);
    cr_expect_arr_eq(spoke_msg_header(m), "23ab", 4);
    cr_assert_eq(spk_msg_pull(m, 8), 0); /* four bytes of the body */
    cr_expect_arr_eq((uint8_t *)spoke_msg_header(m) + 4, page + BODY_AT, 4);
    cr_expect_eq(given_back, 0);
    cr_assert_eq(spk_msg_flatten(m), 0);
    cr_expect_eq(given_back, 1);
    expect_body(m, "23ab", 4, 0, BODY_SIZE, NULL, 0);
    spoke_msg_free(m);
}

Test(read_only, a_clone_shares_it_and_is_as_little_unique)
{
    spoke_msg *m = new_read_only(), *clone;

    cr_assert_eq(spk_msg_clone(&clone, m), 0);
    spoke_msg_free(m);
    cr_expect_eq(given_back, 0);
    cr_expect_eq(spoke_msg_body(clone), page + BODY_AT);
    cr_expect_not(spoke_msg_is_unique(clone)); /* though it is alone now */
    cr_assert_eq(spoke_msg_append(clone, "x", 1), 0);
    expect_body(clone, NULL, 0, 0, BODY_SIZE, "x", 1);
    cr_expect_eq(given_back, 1);
    spoke_msg_free(clone);
}

Test(read_only, without_memory_for_the_copy_the_message_stays_as_it_is)
{
    spoke_msg *m = new_read_only();

    for (int i = 0; i < 4; i++) {
        spk_memory_fail_after(1);
        int rc = i == 0   ? spoke_msg_make_unique(&m)
                 : i == 1 ? spoke_msg_append(m, "x", 1)
                 : i == 2 ? spoke_msg_prepend(m, "x", 1)
                          : spk_msg_reserve(m, BODY_SIZE + 1);
        spk_memory_fail_after(0);
        cr_expect_eq(rc, SPOKE_ENOMEM);
        cr_expect_eq(given_back, 0);
        expect_body(m, NULL, 0, 0, BODY_SIZE, NULL, 0);
    }
    spoke_msg_free(m);
    cr_expect_eq(given_back, 1);
}
