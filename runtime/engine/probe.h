/* SPDX-License-Identifier: MIT */
/* Probes for tracers (bpftrace -l 'usdt:libspoke.so:*'): submit, complete, send, deliver.  A no-op
 * instruction each while nobody traces; nothing at all where <sys/sdt.h> was not there at build
 * time. */
#ifndef SPK_ENGINE_PROBE_H
#define SPK_ENGINE_PROBE_H

#ifdef SPOKE_HAVE_SDT
#include <sys/sdt.h>
#ifdef __clang__ /* those macros of the system's */
#pragma clang diagnostic ignored "-Wgnu-zero-variadic-macro-arguments"
#endif
#define SPK_PROBE(name, a, b) DTRACE_PROBE2(spoke, name, a, b)
#else
#define SPK_PROBE(name, a, b) ((void)0)
#endif

#endif
