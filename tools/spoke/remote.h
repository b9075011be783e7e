/* SPDX-License-Identifier: MIT */
/* Listening on the other side of a carrier: requests for it, and what is done about the other
 * side's.  A request is a stream of the carrier that lasts as long as it is wanted; accepted, it
 * brings the URL that is listened on, and a newline.  Main thread, in callbacks. */
#ifndef TOOLS_SPOKE_REMOTE_H
#define TOOLS_SPOKE_REMOTE_H

#include "open_meta.h"
#include "relay.h"

/* Ask each carrier for this.  The texts stay the caller's, for ever.  False after an error, which
 * has been printed. */
bool remote_add(struct relay *r, const char *listen, const char *target);

/* There is a new carrier; it is gone, or goes. */
void remote_ask(struct carrier *c);
void remote_forget(struct carrier *c);

/* The other side asks for it.  Takes the stream. */
void remote_listen(struct carrier *c, spoke_stream *control, const struct open_meta *meta);
/* No more of them, of this carrier. */
void remote_close(struct carrier *c);

#endif
