/* SPDX-License-Identifier: MIT */
/* A requester and a replier on one engine, for tests that let things fail under them. Nothing
 * here asserts: everything returns the library's errors. */
#ifndef TESTS_FAULT_DUO_H
#define TESTS_FAULT_DUO_H

#include <stdbool.h>

#include <spoke/spoke.h>

struct duo {
    const char *url;
    spoke_engine *e;
    spoke_socket *req, *rep;
    bool in_haste, fired_before; /* about the exchange that goes on */
};

/* How to learn whether the failure that a test has planned has happened.  What comes after it may
 * be lost and is not waited for long; everything else has the time that a slow machine takes. */
void duo_watch(bool (*function)(void));

/* Open and connect; on failure nothing is left. */
int duo_open(struct duo *d, const char *url);
/* The same on the library's shared engine. */
int duo_open_shared(struct duo *d, const char *url);
/* One request and its answer of `size` bytes, checked.  SPOKE_EPROTO: something else came. */
int duo_exchange(struct duo *d, size_t size);
/* After a failure: try again until it works, a bounded number of times. */
int duo_recover(struct duo *d, size_t size);
/* Close everything: 0, or what a close returned. */
int duo_close(struct duo *d);

#endif
