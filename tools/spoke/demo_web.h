/* SPDX-License-Identifier: MIT */
/* spoke demo --web: a page with live figures. */
#ifndef TOOLS_SPOKE_DEMO_WEB_H
#define TOOLS_SPOKE_DEMO_WEB_H

#include <stdint.h>

/* Serve the page on 127.0.0.1, on `port` (0: one that is free), until a signal comes.  Gives the
 * exit code. */
int demo_web(uint16_t port);

#endif
