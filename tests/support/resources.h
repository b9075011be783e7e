/* SPDX-License-Identifier: MIT */
/* What a test holds of the machine: compare before and after.  Main thread of a test. */
#ifndef TESTS_SUPPORT_RESOURCES_H
#define TESTS_SUPPORT_RESOURCES_H

#include <stdbool.h>
#include <stdint.h>

#define RESOURCES_FDS_MAX 32768

struct resources {
    uint64_t messages, chunks, others;
    int threads;
    int fds_count;
    bool fds[RESOURCES_FDS_MAX];
};

/* What there is now. */
void resources_take(struct resources *r);

/* Wait until no more is held than in `before`; fails the test, and says what is left, if that does
 * not happen in a few seconds. */
void resources_settle(const struct resources *before);

/* Memory of this process in KiB: what it has touched, and what it has reserved. */
long resources_resident_kib(void);
long resources_virtual_kib(void);

#endif
