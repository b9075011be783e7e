/* SPDX-License-Identifier: MIT */
/* Memory that runs out at some allocation of the library's, whatever thread asks for it. */
#ifndef TESTS_FAULT_SHORTAGE_H
#define TESTS_FAULT_SHORTAGE_H

#include <stdatomic.h>
#include <stdbool.h>

void shortage_at(long n);   /* the n-th allocation from now on fails, from 1 */
void shortage_from(long n); /* … and all that come after it */
void shortage_end(void);

extern atomic_bool shortage_fired; /* one has failed since the last of the first two */

#endif
