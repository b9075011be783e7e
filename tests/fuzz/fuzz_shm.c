/* SPDX-License-Identifier: MIT */
/* Fuzz target: what a peer writes into its half of a connection in shared memory, on a PAIR socket
 * that reads it, answers now and then, and frees what it got at any time.  The connection is a real
 * one, on an engine of this thread; each input has its own.
 *
 * Input: a byte (1: the peer has a segment), then commands with their arguments, as the enum below
 * says; words are big-endian. */
/* Covers: runtime/core/shm.c:in runtime/core/shmloan.c:theirs runtime/core/shmring.h */
#include <string.h>
#include <unistd.h>

#include <spoke/spoke.h>

#include "tests/fuzz/support/lab.h"
#include "tests/support/shm_peer.h"

enum command {
    MESSAGE, /* n, n bytes: a record, as it should be */
    RECORD,  /* kind, n, n bytes: … of any kind */
    LOAN,    /* number, word offset, word size: … what is lent; times 64 */
    BEGIN,   /* word: … the length of pieces */
    PIECE,   /* word: … one of n % 2048 bytes */
    WORD,    /* 8 bytes: a record's word, and so many bytes on */
    PUBLISH,
    TAIL,    /* word: … somewhere else, that far */
    HEAD,    /* word: we have read that much further */
    TAKE,    /* … what there is */
    RETURN,  /* number: of a loan */
    RETURNS, /* word: and how many there were */
    SLEEP,   /* n: what we are to be woken for */
    CLOSED,
    CHANGE,  /* word, n: a byte of the ring */
    RECEIVE, /* n: the user takes n messages, and keeps the last */
    SEND,    /* word: and sends that many bytes */
    COMMANDS
};

#define RING          ((size_t)16 * 1024)
#define SEGMENT       ((size_t)64 * 1024)
#define COMMANDS_MOST 200

static struct scene {
    spoke_engine *e;
    spoke_socket *s;
    spoke_msg *kept;
    char path[64];
    struct shm_peer peer;
} x;

static void
turn(void *ctx)
{
    (void)ctx;
    MUST(spoke_engine_poll(x.e, 0) >= 0);
}

static void
clean_up(void)
{
    unlink(x.path);
}

static void
open_all(void)
{
    char url[80];

    snprintf(x.path, sizeof x.path, "/tmp/spoke-fuzz-shm.%d", (int)getpid());
    snprintf(url, sizeof url, "shm://%s", x.path);
    MUST(spoke_engine_open(&x.e, NULL) == 0);
    MUST(spoke_socket_open(&x.s, SPOKE_PAIR, x.e) == 0);
    MUST(spoke_socket_set_size(x.s, SPOKE_OPT_MAX_RECV_SIZE, 100000) == 0);
    MUST(spoke_socket_set_size(x.s, SPOKE_OPT_SHM_SEGMENT, SEGMENT) == 0);
    MUST(spoke_socket_set_size(x.s, SPOKE_OPT_SHM_RING, RING) == 0);
    MUST(spoke_socket_set_int(x.s, SPOKE_OPT_RECV_QUEUE, 8) == 0);
    MUST(spoke_socket_set_int(x.s, SPOKE_OPT_SEND_QUEUE, 0) == 0); /* nothing waits for the next */
    MUST(spoke_listen(x.s, url, NULL, 0) == 0);
    atexit(clean_up);
    x.peer.idle = turn;
}

static uint64_t
pipes(void)
{
    struct spoke_stats stats;

    MUST(spoke_socket_stats(x.s, &stats) == 0);
    return stats.pipes_current;
}

static void
receive(unsigned most)
{
    spoke_msg *m;

    while (most-- > 0 && spoke_recv(x.s, &m, SPOKE_DONTWAIT) == 0) {
        const uint8_t *body = spoke_msg_body(m);
        volatile uint8_t sum = 0;

        MUST(spoke_msg_size(m) <= 100000);
        for (size_t i = 0; i < spoke_msg_size(m); i += 512)
            sum = (uint8_t)(sum + body[i]);
        spoke_msg_free(x.kept);
        x.kept = m;
    }
}

static void
send_bytes(size_t size)
{
    spoke_msg *m;

    MUST(spoke_msg_new(&m, size) == 0);
    if (size > 0)
        memset(spoke_msg_body(m), 's', size);
    if (spoke_send(x.s, m, SPOKE_DONTWAIT) != 0)
        spoke_msg_free(m);
}

static void
run(enum command command, struct input *in)
{
    _Atomic uint32_t *returns = (_Atomic uint32_t *)(void *)((uint8_t *)x.peer.mine +
                                                             SPK_SHM_RETURNS);
    static const uint8_t zeros[2048];
    struct spk_shm_loan loan;
    const uint8_t *bytes;
    uint64_t word = 0;
    uint32_t kind;
    size_t size;

    switch (command) {
    case MESSAGE:
        bytes = input_bytes(in, input_byte(in), &size);
        shm_peer_put(&x.peer, SPK_SHM_MESSAGE, bytes, (uint32_t)size);
        break;
    case RECORD:
        kind = input_byte(in);
        bytes = input_bytes(in, input_byte(in), &size);
        shm_peer_put(&x.peer, kind, bytes, (uint32_t)size);
        break;
    case LOAN:
        loan = (struct spk_shm_loan){.number = input_byte(in) * 5u};
        loan.offset = input_word(in) * (uint64_t)64;
        loan.size = input_word(in) * (uint64_t)64;
        shm_peer_put(&x.peer, SPK_SHM_LOAN, &loan, sizeof loan);
        break;
    case BEGIN:
        word = input_word(in) * (uint64_t)2;
        shm_peer_put(&x.peer, SPK_SHM_BEGIN, &word, sizeof word);
        break;
    case PIECE: shm_peer_put(&x.peer, SPK_SHM_PIECE, zeros, input_word(in) % 2048); break;
    case WORD:
        for (int i = 0; i < 8; i++)
            word = word << 8 | input_byte(in);
        shm_peer_word(&x.peer, word);
        x.peer.tail += 8 + (word & 0x3ff8);
        break;
    case PUBLISH:
        shm_peer_publish(&x.peer);
        turn(NULL);
        break;
    case TAIL: x.peer.tail += input_word(in); break;
    case HEAD: atomic_store(&x.peer.mine->head, x.peer.head += input_word(in)); break;
    case TAKE:
        atomic_store(&x.peer.mine->head, x.peer.head = atomic_load(&x.peer.theirs->tail));
        break;
    case RETURN:
        kind = atomic_load(&x.peer.mine->returned);
        atomic_store(&returns[kind % SPK_SHM_LOANS], input_byte(in) * 5u);
        atomic_store(&x.peer.mine->returned, kind + 1);
        break;
    case RETURNS: atomic_store(&x.peer.mine->returned, input_word(in)); break;
    case SLEEP: atomic_fetch_add(&x.peer.mine->asleep, input_byte(in)); break;
    case CLOSED: atomic_store(&x.peer.mine->closed, input_byte(in)); break;
    case CHANGE:
        size = input_word(in) % RING;
        x.peer.ring[size] = input_byte(in);
        break;
    case RECEIVE: receive(input_byte(in)); break;
    case SEND: send_bytes(input_word(in)); break;
    case COMMANDS: break;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct spoke_memory_stats before, after;

    if (x.e == NULL)
        open_all();
    spoke_memory_stats(&before);
    MUST(shm_peer_dial(&x.peer, x.path, SPOKE_PAIR, RING, input_byte(&in) % 2 == 1 ? SEGMENT : 0) ==
         0);
    for (int i = 0; i < COMMANDS_MOST && in.left > 0; i++)
        run((enum command)(input_byte(&in) % COMMANDS), &in);
    shm_peer_publish(&x.peer);
    turn(NULL);
    receive(UINT32_MAX);
    shm_peer_close(&x.peer);
    /* What came is there for the user, while that is wanted; then the pipe goes. */
    for (int i = 0; pipes() > 0; i++) {
        MUST(i < 1000000);
        turn(NULL);
        receive(UINT32_MAX);
    }
    receive(UINT32_MAX);
    spoke_msg_free(x.kept);
    x.kept = NULL;
    turn(NULL);
    spoke_memory_stats(&after);
    MUST(after.messages <= before.messages);
    return 0;
}
