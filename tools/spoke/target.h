/* SPDX-License-Identifier: MIT */
/* What the other side of a carrier may have itself connected to.  Nothing, but for what is listed,
 * and by that both what it asks for and the address that this comes to are judged: what is dialled
 * is that address, not the name once more.  Names are looked up on threads of their own; everything
 * else, callbacks too, is the main thread's. */
#ifndef TOOLS_SPOKE_TARGET_H
#define TOOLS_SPOKE_TARGET_H

#include "tool.h"

struct target_lookup;
struct target_rule;

/* Zero is an empty one. */
struct target_list {
    struct target_rule *rules;
};

/* Lists are made of patterns:
 *   tcp://HOST:PORT   HOST: a name, an address, an address and a length (10.0.0.0/8, [fd00::]/8),
 * or with * in it, which stands for any characters; PORT: a number or *. A name without * also
 * allows the addresses that it has when it is listed. ipc://PATH, shm://PATH, ipc://@NAME   *
 * stands for any characters but / and no leading dot False after an error, which has been printed.
 */
bool target_allow(struct target_list *list, const char *pattern);

/* Could it be allowed, as far as it is written? */
bool target_is_listed(const struct target_list *list, const char *url);

/* May somebody listen there?  `out` gets that, an address being written as usual: a name is none.
 */
bool target_may_listen(const struct target_list *list, const char *url, char *out, size_t size);

/* Find out whether and as what `url` may be dialled.  `fn` is called later: with an error, with why
 * it may not (SPOKE_MUX_NOT_PERMITTED), or with 0 and SPOKE_MUX_NONE: then there is an address.
 * NULL: no memory. */
typedef void target_found_f(void *ctx, int error, uint64_t code);
struct target_lookup *target_look_up(const struct target_list *list, const char *url,
                                     spoke_engine *e, target_found_f *fn, void *ctx);
/* The address, and whether there is another one: then it is that. */
const char *target_lookup_url(const struct target_lookup *l);
bool target_lookup_next(struct target_lookup *l);
/* Not any more. */
void target_lookup_drop(struct target_lookup *l);

#endif
