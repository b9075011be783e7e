/* SPDX-License-Identifier: MIT */
/* Bytes that nobody can foresee.  Who needs many has them from OpenSSL's generator, which makes
 * them in a tenth of the time that the kernel takes, if it makes many at once.  It takes a
 * millisecond to start, so the first ones are the kernel's; and so are those of a child of fork(),
 * as another thread of its parent may have been inside of OpenSSL. */
#include <openssl/err.h>
#include <openssl/rand.h>
#include <string.h>
#include <sys/random.h>

#include "runtime/core/tls.h"

#define KERNEL_FIRST ((size_t)64 * 1024)
#define AHEAD        ((size_t)4 * 1024)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint8_t bytes[AHEAD];
    size_t left;
    size_t wanted; /* by all so far, up to KERNEL_FIRST */
} ahead;

static bool
draw_ahead(void)
{
    spk_tls_start();
    if (RAND_bytes(ahead.bytes, sizeof ahead.bytes) != 1) {
        ERR_clear_error();
        return false;
    }
    ahead.left = sizeof ahead.bytes;
    return true;
}

static bool
take_ahead(uint8_t *to, size_t size)
{
    if (ahead.wanted < KERNEL_FIRST) {
        ahead.wanted += size;
        return false;
    }
    if (size > AHEAD || (ahead.left < size && !draw_ahead()))
        return false;
    ahead.left -= size;
    memcpy(to, ahead.bytes + ahead.left, size);
    return true;
}

static void
ask_kernel(uint8_t *to, size_t size)
{
    size_t have = 0;

    while (have < size) { /* it may be interrupted, and else gives them all */
        ssize_t n = getrandom(to + have, size - have, 0);
        have += n > 0 ? (size_t)n : 0;
    }
}

void
spk_random(uint8_t *to, size_t size)
{
    bool done;

    if (atomic_load_explicit(&spk_fork_generation, memory_order_relaxed) > 0) {
        ask_kernel(to, size);
        return;
    }
    pthread_mutex_lock(&lock);
    done = take_ahead(to, size);
    pthread_mutex_unlock(&lock);
    if (!done)
        ask_kernel(to, size);
}
