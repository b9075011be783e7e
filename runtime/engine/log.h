/* SPDX-License-Identifier: MIT */
/* The library's log, as its own files write it.  The listener is set with spoke_set_log(). */
#ifndef SPK_ENGINE_LOG_H
#define SPK_ENGINE_LOG_H

#include <spoke/error.h>

/* Say one sentence: what happened, to whom, what to change.  Nearly free while nobody listens to
 * `level`; longer than a kilobyte it is cut.  Any thread. */
void spk_log(enum spoke_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
