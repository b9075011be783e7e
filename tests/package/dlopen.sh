#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# dlopen.sh PROGRAM LIBRARY: the library can be loaded at run time.  What it keeps for each thread must fit into the little that
# the loader holds ready for that; Debian's jemalloc needs more, and is loaded in front, as docs/tuning.md says.
set -euo pipefail
program=$1 library=$2
jemalloc=$(ldd "$library" | sed -nE 's/.*libjemalloc[^ ]* => ([^ ]+) .*/\1/p')
if [ -n "$jemalloc" ]; then
    LD_PRELOAD=$jemalloc "$program" "$library"
    GLIBC_TUNABLES=glibc.rtld.optional_static_tls=4096 "$program" "$library"
else
    "$program" "$library"
fi
echo "dlopen: the library was loaded at run time"
