/* SPDX-License-Identifier: MIT */
/* Some channels, chance, and a model of them that is a list of numbers: whatever is done, each call
 * gives what the model says. */
#include "tests/channel/pair_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support/random.h"

#define SEEDS    TEST_REPEATS(160)
#define STEPS    600
#define CHANNELS 5
#define MOST     8 /* of depth */

struct model {
    spoke_sender *tx; /* stale when tx_open is false */
    spoke_receiver *rx;
    bool tx_open, rx_open, aborted;
    size_t depth, count;
    uint64_t sent, taken;
    struct item {
        uint64_t number;
        int carried; /* 1 + the channel whose sender, or −1 − the one whose receiver is with it */
    } items[MOST];
};

struct run {
    struct yard y;
    uint64_t seed, random, next;
    struct model ch[CHANNELS];
};

#define holds(x, Condition)                                                                        \
    cr_assert(Condition, "seed %llu, step %d", (unsigned long long)(x)->seed, step)

static void drop(struct run *x, struct model *c);

/* What happens to a channel when an end of it is closed. */
static void
close_tx(struct model *c)
{
    c->tx_open = false;
}

static void
close_rx(struct run *x, struct model *c)
{
    c->rx_open = false;
    drop(x, c);
}

static void
let_go(struct run *x, int carried)
{
    if (carried > 0)
        close_tx(&x->ch[carried - 1]);
    else if (carried < 0)
        close_rx(x, &x->ch[-carried - 1]);
}

static void
drop(struct run *x, struct model *c)
{
    size_t count = c->count;

    c->count = 0;
    for (size_t i = 0; i < count; i++)
        let_go(x, c->items[i].carried);
}

static bool
is_carried(const struct run *x, int carried)
{
    for (int i = 0; i < CHANNELS; i++) {
        for (size_t k = 0; k < x->ch[i].count; k++) {
            if (x->ch[i].items[k].carried == carried)
                return true;
        }
    }
    return false;
}

/* Somebody outside of messages has it. */
static bool
is_mine(const struct run *x, int i, bool sender)
{
    return (sender ? x->ch[i].tx_open : x->ch[i].rx_open) &&
           !is_carried(x, sender ? 1 + i : -1 - i);
}

static void
begin_anew(struct run *x, int i)
{
    struct model *c = &x->ch[i];

    if (c->tx_open || c->rx_open)
        return;
    *c = (struct model){.tx_open = true, .rx_open = true};
    c->depth = 1 + random_below(&x->random, MOST);
    pair(&x->y, c->depth, &c->tx, &c->rx);
}

static int
sends_now(const struct run *x, int i)
{
    const struct model *c = &x->ch[i];

    if (!is_mine(x, i, true))
        return SPOKE_ECLOSED;
    if (!c->rx_open)
        return SPOKE_EPEERCLOSED;
    return c->count == c->depth ? SPOKE_EAGAIN : 0;
}

/* What is dropped is closed by the engine, one in another after the other. */
static void
settle(struct run *x)
{
    for (int k = 0; k <= CHANNELS; k++)
        yard_settle(&x->y);
}

static void
step_send(struct run *x, int i, int step)
{
    struct model *c = &x->ch[i];
    int k = (int)random_below(&x->random, CHANNELS), carried = 0, wanted = sends_now(x, i);
    bool sender = random_below(&x->random, 2) == 0;
    spoke_msg *m;

    holds(x, spoke_msg_from(&m, &x->next, sizeof x->next) == 0);
    /* Not into itself: nobody would ever find it there. */
    if (wanted == 0 && k != i && random_below(&x->random, 4) == 0 && is_mine(x, k, sender) &&
        (sender || x->ch[k].count == 0)) {
        carried = sender ? 1 + k : -1 - k;
        holds(x, (sender ? spoke_msg_attach_sender(m, x->ch[k].tx)
                         : spoke_msg_attach_receiver(m, x->ch[k].rx)) == 0);
    }
    holds(x, spoke_sender_send(c->tx, m, SPOKE_NOW) == wanted);
    if (wanted != 0) {
        spoke_msg_free(m);
        return;
    }
    c->items[c->count++] = (struct item){x->next++, carried};
    c->sent++;
}

static int
receives_now(const struct run *x, int i)
{
    const struct model *c = &x->ch[i];

    if (!is_mine(x, i, false))
        return SPOKE_ECLOSED;
    if (c->count > 0)
        return 0;
    return c->tx_open ? SPOKE_EAGAIN : c->aborted ? SPOKE_EABORTED : SPOKE_EOF;
}

static void
step_receive(struct run *x, int i, int step)
{
    struct model *c = &x->ch[i];
    int wanted = receives_now(x, i), carried;
    spoke_msg *m;

    holds(x, spoke_receiver_recv(c->rx, &m, SPOKE_NOW) == wanted);
    if (wanted != 0)
        return;
    holds(x, memcmp(spoke_msg_body(m), &c->items[0].number, sizeof(uint64_t)) == 0);
    carried = c->items[0].carried;
    c->taken++;
    memmove(c->items, c->items + 1, --c->count * sizeof c->items[0]);
    holds(x, spoke_msg_attachments(m) == (carried != 0));
    if (carried != 0 && random_below(&x->random, 3) == 0) {
        let_go(x, carried);
    } else if (carried > 0) {
        holds(x, spoke_msg_take_sender(m, 0, &x->ch[carried - 1].tx) == 0);
    } else if (carried < 0) {
        holds(x, spoke_msg_take_receiver(m, 0, &x->ch[-carried - 1].rx) == 0);
    }
    spoke_msg_free(m);
    if (carried != 0)
        settle(x);
}

static void
step_close(struct run *x, int i, int step)
{
    struct model *c = &x->ch[i];
    bool mine;

    switch (random_below(&x->random, 8)) {
    case 0:
        mine = is_mine(x, i, true);
        holds(x, spoke_sender_close(c->tx) == 0);
        if (mine)
            close_tx(c);
        break;
    case 1:
        mine = is_mine(x, i, true);
        holds(x, spoke_sender_abort(c->tx, 1, NULL) == 0);
        if (mine) {
            close_tx(c);
            c->aborted = true;
            drop(x, c);
        }
        break;
    case 2:
        mine = is_mine(x, i, false);
        holds(x, spoke_receiver_close(c->rx) == 0);
        if (mine)
            close_rx(x, c);
        break;
    default: return;
    }
    settle(x);
}

static void
step_look(struct run *x, int i, int step)
{
    struct model *c = &x->ch[i];
    struct spoke_channel_info info;
    bool mine = is_mine(x, i, false);

    holds(x, spoke_receiver_get_info(c->rx, &info) == (mine ? 0 : SPOKE_ECLOSED));
    if (!mine)
        return;
    holds(x, info.sent == c->sent && info.taken == c->taken && info.waiting == c->count);
    holds(x, info.end == (c->tx_open ? 0 : c->aborted ? SPOKE_EABORTED : SPOKE_EOF));
}

static void
step_copy(struct run *x, int i, int step)
{
    int k = (int)random_below(&x->random, CHANNELS), end;
    struct model *from = &x->ch[i], *to = &x->ch[k];
    uint64_t count, moved = 0;

    if (k == i || !is_mine(x, i, false) || !is_mine(x, k, true))
        return;
    for (size_t n = 0; n < from->count; n++) { /* nor into what it carries */
        if (from->items[n].carried < 0 && !is_mine(x, k, false))
            return;
    }
    while (to->rx_open && from->count > 0 && to->count < to->depth) {
        to->items[to->count++] = from->items[0];
        memmove(from->items, from->items + 1, --from->count * sizeof from->items[0]);
        to->sent++;
        from->taken++;
        moved++;
    }
    end = from->count == 0 && !from->tx_open ? (from->aborted ? SPOKE_EABORTED : 0)
          : !to->rx_open                     ? SPOKE_EPEERCLOSED
                                             : SPOKE_EAGAIN;
    holds(x, spoke_channel_copy(to->tx, from->rx, &count, SPOKE_NOW) == end);
    holds(x, count == moved);
}

static void
run(struct run *x, enum way way, uint64_t seed)
{
    memset(x, 0, sizeof *x);
    x->seed = x->random = seed;
    yard_open(&x->y, way);
    for (int step = 0; step < STEPS; step++) {
        int i = (int)random_below(&x->random, CHANNELS);

        begin_anew(x, i);
        switch (random_below(&x->random, 8)) {
        case 0: step_close(x, i, step); break;
        case 1: step_look(x, i, step); break;
        case 2: step_copy(x, i, step); break;
        case 3:
        case 4: step_receive(x, i, step); break;
        default: step_send(x, i, step); break;
        }
    }
    for (int i = 0; i < CHANNELS; i++)
        close_pair(x->ch[i].tx, x->ch[i].rx);
    settle(x);
    yard_close(&x->y);
}

WAY_TEST(channel_model, chance_and_a_list_of_numbers, ways)
{
    static struct run x;
    const char *seed = getenv("SPOKE_CHANNEL_SEED");

    if (seed != NULL) {
        run(&x, *way, strtoull(seed, NULL, 10));
        return;
    }
    for (uint64_t i = 1; i <= (*way == SHARED ? SEEDS / 8 + 1 : SEEDS); i++)
        run(&x, *way, i);
}
