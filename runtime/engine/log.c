/* SPDX-License-Identifier: MIT */
/* The log: one listener for the process.  Any thread. */
#include "runtime/engine/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#define LOG_TEXT_MAX 1024
#define LOG_SILENT   (-1)

/* Readers hold the lock while the listener runs: when spoke_set_log() returns, the old one is never
 * called again. */
static pthread_rwlock_t log_lock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_once_t log_once = PTHREAD_ONCE_INIT;
static spoke_log_f *log_fn;
static void *log_ctx;
static atomic_int log_level = LOG_SILENT;

/* Some other thread may have been in a listener at the fork; the child does not have that thread.
 */
static void
renew_lock(void)
{
    pthread_rwlock_init(&log_lock, NULL);
}

static void
watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, renew_lock);
}

void
spoke_set_log(spoke_log_f *fn, void *ctx, enum spoke_log_level level)
{
    pthread_once(&log_once, watch_forks);
    pthread_rwlock_wrlock(&log_lock);
    log_fn = fn;
    log_ctx = ctx;
    atomic_store_explicit(&log_level, fn != NULL ? (int)level : LOG_SILENT, memory_order_relaxed);
    pthread_rwlock_unlock(&log_lock);
}

void
spk_log(enum spoke_log_level level, const char *format, ...)
{
    char text[LOG_TEXT_MAX];
    va_list arguments;

    if ((int)level > atomic_load_explicit(&log_level, memory_order_relaxed))
        return;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pthread_rwlock_rdlock(&log_lock);
    if (log_fn != NULL)
        log_fn(log_ctx, level, text);
    pthread_rwlock_unlock(&log_lock);
}
