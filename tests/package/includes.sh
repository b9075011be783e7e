#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# includes.sh SOURCE-DIRECTORY: no folder includes what it may not (scripts/check-includes); and that script
# refuses each kind of forbidden line when one is planted.
set -euo pipefail
source=$1
check=$source/scripts/check-includes
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$check" "$source"

mkdir -p "$work"/{include/spoke,runtime/{engine,memory,core},transports,protocols/sp,tools/spoke}
touch "$work"/transports/{ipc.h,tcp.h} "$work"/runtime/engine/engine.h
# planted FILE INCLUDE accepted|refused
planted() {
    local verdict=accepted
    echo "#include $2" >"$work/$1"
    "$check" "$work" >/dev/null || verdict=refused
    rm "$work/$1"
    [ "$verdict" = "$3" ] || { echo "check-includes: $2 in $1 was $verdict"; exit 1; }
}
planted include/spoke/a.h '<spoke/error.h>' accepted
planted include/spoke/a.h '<stdint.h>' accepted
planted include/spoke/a.h '<liburing.h>' refused
planted include/spoke/a.h '"error.h"' refused
planted runtime/engine/backend_uring.c '<liburing.h>' accepted
planted runtime/engine/loop.c '<liburing.h>' refused
planted runtime/engine/loop.c '"runtime/core/pipe.h"' refused
planted runtime/memory/pool.c '"../core/pipe.h"' refused
planted runtime/core/pipe.c '"runtime/engine/engine.h"' accepted
planted runtime/core/pipe.c '"transports/tcp.h"' refused
planted transports/tcp.c '"tcp.h"' accepted
planted transports/tcp.c '"runtime/engine/engine.h"' accepted
planted transports/tcp.c '"runtime/core/transport.h"' accepted
planted transports/tcp.c '"runtime/core/core.h"' refused
planted transports/tcp.c '"ipc.h"' refused
planted transports/tcp.c '"protocols/sp/req.h"' refused
planted protocols/sp/req.c '<spoke/protocol.h>' accepted
planted protocols/sp/req.c '"runtime/engine/engine.h"' refused
planted protocols/sp/req.c '"../../transports/tcp.h"' refused
planted protocols/sp/req.c '<cbor.h>' refused
planted tools/spoke/cat.c '<spoke/spoke.h>' accepted
planted tools/spoke/cat.c '"runtime/engine/engine.h"' refused
echo "includes: planted lines are judged right"
