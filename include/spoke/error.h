/* SPDX-License-Identifier: MIT */
/* Errors: every call that can fail returns 0 or one of these, negative.  The list is errors.def. */
#ifndef SPOKE_ERROR_H
#define SPOKE_ERROR_H

#include <spoke/base.h>

#ifdef __cplusplus
extern "C" {
#endif

enum spoke_error {
#define ERROR(name, number, text) SPOKE_##name = -(number),
#include <spoke/errors.def>
#undef ERROR
    SPOKE_OK = 0
};

/* The text of an error, without a full stop: "the address is in use".  Never NULL; a number that is
 * no error of ours gives "unknown error".  Any thread; the text is constant. */
SPOKE_API const char *spoke_strerror(int error);

/* The name of an error: "SPOKE_EADDRINUSE".  As spoke_strerror(). */
SPOKE_API const char *spoke_error_name(int error);

/* Logging: the library is silent unless somebody listens.  `text` is one sentence about what
 * happened, to whom, and, where there is something to do, what to change.  It is borrowed for the
 * call. */
enum spoke_log_level {
    SPOKE_LOG_ERROR = 0,
    SPOKE_LOG_WARNING = 1,
    SPOKE_LOG_INFO = 2,
    SPOKE_LOG_DEBUG = 3
};
typedef void spoke_log_f(void *ctx, enum spoke_log_level level, const char *text);

/* Send the library's log to `fn` (NULL: nowhere, the default), everything up to `level`.
 * `fn` may be called from any thread of the library at any time, possibly several at once; it must
 * not call the library, and should be quick: the engine waits for it.  When this returns, the one
 * before is not running and never called again, so its memory may go.  The change holds for all
 * sockets of the process.  Any thread, not from inside `fn`. */
SPOKE_API void spoke_set_log(spoke_log_f *fn, void *ctx, enum spoke_log_level level);

#ifdef __cplusplus
}
#endif

#endif
