/* SPDX-License-Identifier: MIT */
/* Everything for users of the library.  Start with socket.h.  Module authors: protocol.h,
 * runtime/core/transport.h; tests: sim.h. */
#ifndef SPOKE_SPOKE_H
#define SPOKE_SPOKE_H

#include <spoke/base.h>
#include <spoke/channel.h>
#include <spoke/context.h>
#include <spoke/device.h>
#include <spoke/engine.h>
#include <spoke/error.h>
#include <spoke/message.h>
#include <spoke/mux.h>
#include <spoke/option.h>
#include <spoke/port.h>
#include <spoke/select.h>
#include <spoke/session.h>
#include <spoke/socket.h>
#include <spoke/stats.h>
#include <spoke/stream.h>
#include <spoke/tls.h>
#include <spoke/type.h>

#endif
