/* SPDX-License-Identifier: MIT */
/* An exporter and an importer that is connected to it, over anything.  Main thread of a test, but
 * for what tasks do. */
#ifndef TESTS_PORTS_FIXTURE_H
#define TESTS_PORTS_FIXTURE_H

#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/support/resources.h"
#include "tests/support/test.h"

enum over {
    OVER_PAIR,
    OVER_OWNED,
    OVER_IPC,
    OVER_SHM,
    OVER_TCP,
    OVER_TLS,
    OVER_WS,
    OVER_WSS,
    OVER_INPROC,
    OVER_SIM,
    OVER_KINDS
};
#define OVER_EVERYTHING(kind) for (int kind = OVER_PAIR; (kind) < OVER_KINDS; (kind)++)
/* … that has an address. */
#define OVER_ADDRESSES(kind) for (int kind = OVER_IPC; (kind) < OVER_KINDS; (kind)++)

#define EVENTS_MAX 256
struct events {
    struct spoke_port_event all[EVENTS_MAX];
    int count;
};
/* As `on_event`, with a struct events; read it with events_count(). */
void events_note(void *ctx, const struct spoke_port_event *event);

struct market {
    enum over over;
    spoke_sim *world;
    spoke_engine *e[2]; /* the exporter's, the importer's; NULL: the shared one */
    spoke_exporter *ex;
    spoke_importer *im;
    char url[256];
    struct events heard[2]; /* by the exporter, by the importer */
    struct resources before;
};

/* Configurations NULL: the defaults.  Both get events. */
void market_open(struct market *x, enum over over, const spoke_exporter_config *ex,
                 const spoke_importer_config *im);
/* What it takes to meet there, for those who do so by themselves. */
void market_secure(const struct market *x, spoke_session_config *config);
/* Another importer on the same address, or stream. */
spoke_importer *market_join(struct market *x, const spoke_importer_config *config);
/* Nothing may be left. */
void market_close(struct market *x);
/* A deadline that is late enough on the slowest machine; and one that will pass. */
spoke_ns soon(struct market *x);
spoke_ns in(struct market *x, spoke_ns duration);
/* Let it go on until done(x): false, it takes too long. */
bool market_until(struct market *x, bool (*done)(struct market *x, void *ctx), void *ctx);
void market_pass(struct market *x, spoke_ns duration);
/* Wait until so many such events were heard; side 0: the exporter. */
void market_await(struct market *x, int side, enum spoke_port_event_type type, int count);
/* The last of them. */
struct spoke_port_event market_event(struct market *x, int side, enum spoke_port_event_type type);

spoke_sender *export_sender(struct market *x, const char *name, size_t size, unsigned flags);
spoke_receiver *export_receiver(struct market *x, const char *name, size_t size, unsigned flags);
spoke_sender *import_sender(struct market *x, spoke_importer *im, const char *name, size_t size);
spoke_receiver *import_receiver(struct market *x, spoke_importer *im, const char *name,
                                size_t size);

/* Wait until so many wait to be received. */
void await_waiting(struct market *x, spoke_receiver *rx, uint64_t count);

/* Numbers as messages. */
spoke_msg *number(uint64_t n);
int send_number(spoke_sender *tx, uint64_t n, spoke_ns deadline);
/* … or an error; *repeated may be NULL. */
int64_t recv_number(spoke_receiver *rx, bool *repeated, spoke_ns deadline);
void send_numbers(struct market *x, spoke_sender *tx, uint64_t from, uint64_t to);
/* from … to - 1, in order */
void expect_numbers(struct market *x, spoke_receiver *rx, uint64_t from, uint64_t to);

#define expect_rc(Call, Wanted)                                                                    \
    do {                                                                                           \
        int64_t got_rc_ = (Call);                                                                  \
        cr_assert_eq(got_rc_, (Wanted), "%s:%d: %s gives %s (%lld), not %s", __FILE__, __LINE__,   \
                     #Call, name_of(got_rc_), (long long)got_rc_, name_of(Wanted));                \
    } while (0)
const char *name_of(int64_t rc);

#endif
