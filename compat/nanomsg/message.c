/* SPDX-License-Identifier: MIT */
/* Messages that the program holds by the address of their bodies (nn_allocmsg(), NN_MSG).  The
 * bytes are spoke's own message, sent and received as they lie; what leads from the address back to
 * it is a table in shards, each with its lock, which keep their heads for reuse.
 *
 * What the program holds it may write to, so a message is made unique before it is handed out. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* fork() takes the locks of all: ThreadSanitizer follows 64 at a time. */
#define SHARD_BITS 5u
#define SHARDS     (1u << SHARD_BITS)
#define BUCKETS    256u /* of a shard */

struct shard {
    _Alignas(64) pthread_mutex_t lock;
    struct compat_chunk *spare;
    struct compat_chunk *buckets[BUCKETS];
};

static struct shard shards[SHARDS];

__attribute__((constructor)) static void
init_locks(void)
{
    for (unsigned i = 0; i < SHARDS; i++)
        pthread_mutex_init(&shards[i].lock, NULL);
}

void
compat_chunks_lock(void)
{
    for (unsigned i = 0; i < SHARDS; i++)
        pthread_mutex_lock(&shards[i].lock);
}

void
compat_chunks_unlock(void)
{
    for (unsigned i = SHARDS; i > 0; i--)
        pthread_mutex_unlock(&shards[i - 1].lock);
}

/* ---- the table ---- */

/* Bodies lie at any address; blocks of one pool are a power of two apart. */
static struct compat_chunk **
find_bucket(const void *body, struct shard **shard)
{
    uint64_t hash = (uint64_t)(uintptr_t)body * UINT64_C(0x9e3779b97f4a7c15);

    *shard = &shards[hash >> (64 - SHARD_BITS)];
    return &(*shard)->buckets[(hash >> 40) % BUCKETS];
}

/* The place that points to the chunk of `body`; the shard is locked. */
static struct compat_chunk **
find_chunk(const void *body, struct shard **shard)
{
    struct compat_chunk **place = find_bucket(body, shard);

    pthread_mutex_lock(&(*shard)->lock);
    while (*place != NULL && (*place)->body != body)
        place = &(*place)->next;
    if (*place != NULL)
        return place;
    /* Going on would free or send memory that is somebody else's. */
    fprintf(stderr, "nanomsg: %p is no message of nn_allocmsg() or nn_recv(), or not any more\n",
            body);
    abort();
}

void
compat_chunk_return(struct compat_chunk *chunk)
{
    struct shard *shard;
    struct compat_chunk **bucket = find_bucket(chunk->body, &shard);

    pthread_mutex_lock(&shard->lock);
    chunk->next = *bucket;
    *bucket = chunk;
    pthread_mutex_unlock(&shard->lock);
}

int
compat_chunk_new(void **body, spoke_msg *m)
{
    struct compat_chunk **bucket, *chunk;
    struct shard *shard;
    int rc = spoke_msg_make_unique(&m);

    if (rc != 0)
        goto free_message;
    *body = spoke_msg_body(m);
    bucket = find_bucket(*body, &shard);
    pthread_mutex_lock(&shard->lock);
    if ((chunk = shard->spare) != NULL)
        shard->spare = chunk->next;
    else
        chunk = malloc(sizeof *chunk);
    if (chunk != NULL) {
        *chunk = (struct compat_chunk){.next = *bucket, .body = *body, .m = m};
        *bucket = chunk;
    }
    pthread_mutex_unlock(&shard->lock);
    if (chunk != NULL)
        return 0;
    rc = SPOKE_ENOMEM;
free_message:
    spoke_msg_free(m);
    return rc;
}

struct compat_chunk *
compat_chunk_take(void *body)
{
    struct shard *shard;
    struct compat_chunk **place = find_chunk(body, &shard), *chunk = *place;

    *place = chunk->next;
    pthread_mutex_unlock(&shard->lock);
    return chunk;
}

void
compat_chunk_free(struct compat_chunk *chunk)
{
    struct shard *shard;

    find_bucket(chunk->body, &shard);
    pthread_mutex_lock(&shard->lock);
    chunk->next = shard->spare;
    shard->spare = chunk;
    pthread_mutex_unlock(&shard->lock);
}

size_t
compat_chunk_size(void *body)
{
    struct shard *shard;
    size_t size = spoke_msg_size((*find_chunk(body, &shard))->m);

    pthread_mutex_unlock(&shard->lock);
    return size;
}

/* ---- the calls ---- */

void *
nn_allocmsg(size_t size, int type)
{
    spoke_msg *m;
    void *body;

    if (type != 0) {
        errno = EINVAL;
        return NULL;
    }
    if (spoke_msg_new(&m, size) != 0 || compat_chunk_new(&body, m) != 0) {
        errno = ENOMEM;
        return NULL;
    }
    return body;
}

int
nn_freemsg(void *msg)
{
    struct compat_chunk *chunk = compat_chunk_take(msg);

    spoke_msg_free(chunk->m);
    compat_chunk_free(chunk);
    return 0;
}

void *
nn_reallocmsg(void *msg, size_t size)
{
    struct compat_chunk *chunk = compat_chunk_take(msg);
    size_t old = spoke_msg_size(chunk->m);
    void *grown = NULL;

    if (size <= old) {
        spoke_msg_trim_back(chunk->m, old - size); /* ours alone, so it cannot fail */
        compat_chunk_return(chunk);
        return msg;
    }
    compat_chunk_return(chunk);
    if ((grown = nn_allocmsg(size, 0)) == NULL)
        return NULL;
    memcpy(grown, msg, old);
    nn_freemsg(msg);
    return grown;
}
