/* SPDX-License-Identifier: MIT */
/* Memory that another process may read: regions, which one process writes, and the views of them
 * that others have.
 *
 * A region is a sealed memfd without a name.  Its size never changes, and the descriptor that is
 * handed out is read-only for good: whoever gets it can neither write nor shrink, so the owner's
 * memory is the owner's, and no reader meets a page that is gone.  (A process of the same user can
 * open it anew through /proc; within one user there is nothing to defend.)  The kernel frees it
 * with the last mapping, however the processes end. */
#ifndef SPK_MEMORY_SHARED_H
#define SPK_MEMORY_SHARED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/memory/chunk.h"

#define SPK_PAGE ((size_t)4096)

struct spk_region {
    uint8_t *base; /* writable here */
    size_t size;   /* whole pages */
    int fd;        /* -1: none any more, or never */
    int fd_out;    /* read-only, to hand out; ours to close */
};

/* Make one of `size` bytes, a multiple of SPK_PAGE.  No page of it exists yet.  Errors:
 * SPOKE_ENOMEM, SPOKE_EMFILE, SPOKE_ENOTSUP without memfd or /proc. */
int spk_region_open(struct spk_region *r, const char *name, size_t size);
/* Have the pages of a range exist, so that writing there cannot fail.  SPOKE_ENOMEM: there are none
 * left, or a limit says so. */
int spk_region_reserve(struct spk_region *r, size_t offset, size_t size);
void spk_region_give_back(struct spk_region *r, size_t offset, size_t size); /* the pages */
/* Have a range be one huge page: at a multiple of its size, and of that size.  What is there keeps
 * its bytes, and all of it exists then.  0, or an errno: all is as it was. */
int spk_region_make_huge(struct spk_region *r, size_t offset, size_t size);
/* Have the pages that come to exist lie in that node's memory while there is some left, else
 * elsewhere.  Errors as spk_node_check(). */
int spk_region_place(struct spk_region *r, int node);
void spk_region_close(struct spk_region *r);

/* The size of a huge page; 0: the kernel makes none.  Any thread. */
size_t spk_huge_page(void);

/* May this process have memory of that NUMA node?  0; SPOKE_ERANGE: there is none, it has no
 * memory, or the process is kept from it; SPOKE_EPERM: the kernel may not be asked (a seccomp
 * filter); SPOKE_ENOTSUP: it knows of no nodes; SPOKE_ENOMEM. */
int spk_node_check(int node);

/* Somebody else's region. */
struct spk_view {
    const uint8_t *base;
    size_t size;
};

/* Map what `fd` is; the descriptor stays the caller's.  It must be a memfd of plain pages that
 * cannot shrink, of `least` to `most` bytes: SPOKE_EPROTO, and SPOKE_ENOMEM if it cannot be mapped.
 */
int spk_view_open(struct spk_view *v, int fd, size_t least, size_t most);
void spk_view_close(struct spk_view *v);

/* ---- segments: a region as memory for message bodies ---- */

struct spk_segment;

/* What its pages should be like.  What cannot be had is told to the log, once, and done without. */
struct spk_segment_wish {
    bool huge_pages;
    int node; /* SPK_ANY_NODE: as the process's policy says, mostly where the writer runs */
};
#define SPK_ANY_NODE (-1)

/* Make one with room for `most` bytes, a power of two of at least a page; one reference. */
int spk_segment_new(struct spk_segment **out, size_t most, const struct spk_segment_wish *wish);
struct spk_segment *spk_segment_ref(struct spk_segment *s);
void spk_segment_unref(struct spk_segment *s);

/* A chunk whose memory lies there, NULL: it is full, or the system has no pages left.  Any thread;
 * it keeps the segment. */
struct spk_chunk *spk_segment_alloc(struct spk_segment *s, size_t size);
/* Does that lie in it, and where? */
bool spk_segment_holds(const struct spk_segment *s, const void *data, size_t size,
                       uint64_t *offset);
/* From now on nothing is allocated there; what is freed keeps its bytes, for those who have a view.
 */
void spk_segment_retire(struct spk_segment *s);
int spk_segment_fd(const struct spk_segment *s); /* read-only, stays the segment's */
size_t spk_segment_size(const struct spk_segment *s);

/* Give the pages of all that is free back to the system; they exist again when they are needed. */
void spk_segment_trim(struct spk_segment *s);

struct spk_segment_stats {
    size_t used;  /* bytes in chunks, rounded up to blocks */
    size_t pages; /* bytes of pages that exist … */
    size_t huge;  /* … and those of them in huge pages */
    uint64_t failed;
    uint64_t huge_failed; /* ordinary pages stand in for so many huge ones, ever */
};
void spk_segment_stats(struct spk_segment *s, struct spk_segment_stats *out);

#endif
