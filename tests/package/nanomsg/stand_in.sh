#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# stand_in.sh LIBRARY STAND-IN-DIRECTORY CC SOCKET-HEADER: programs that were built against libnanomsg run with our library in its
# place, by LD_LIBRARY_PATH and by LD_PRELOAD: one that prints what every call gives, and nanocat.
set -euo pipefail
library=$1 stand_in=$2 cc=$3 header=$4
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "stand_in: $*"; exit 1; }

# ---- a program of our own, against the headers and the library of the system ----
flags=$(pkg-config --cflags --libs nanomsg 2>/dev/null) || { echo "skipped: libnanomsg is not installed"; exit 77; }
has=()
for pattern in PUSH SUB SURVEYOR BUS; do
    has+=("-DHAS_$pattern=$(grep -cE "^#define SPOKE_$pattern +[0-9]" "$header" || true)")
done
# shellcheck disable=SC2086 # a list
"$cc" "${has[@]}" -O1 -Wall "$here/program.c" -o "$work/program" $flags || fail "the program does not build"
# run OUTPUT [VARIABLE=VALUE…]
run() {
    local output=$1
    shift
    env "$@" timeout 200 "$work/program" "inproc://stand-in" "ipc://$work/socket" "tcp://$host:20000" >"$output" 2>&1 ||
        fail "the program fails with $*: $(tail -5 "$output")"
}
# All of 127.0.0.0/8 is this machine: this script has a host for itself, and with it every port.
host=127.$((1 + ($$ >> 8) % 254)).$(($$ & 255)).1
run "$work/theirs"
run "$work/ours" LD_LIBRARY_PATH="$stand_in"
run "$work/preloaded" LD_PRELOAD="$library"
[ "$(wc -l <"$work/theirs")" -gt 400 ] || fail "the program printed too little: the test itself is broken"
diff "$work/theirs" "$work/ours" || fail "the results differ (LD_LIBRARY_PATH)"
diff "$work/theirs" "$work/preloaded" || fail "the results differ (LD_PRELOAD)"
# It was ours that ran: it can be told by its file.
LD_LIBRARY_PATH=$stand_in LD_TRACE_LOADED_OBJECTS=1 "$work/program" | grep "$stand_in/libnanomsg.so.5" >"$work/loaded" ||
    fail "it was not our library that ran"

# ---- nanocat ----
command -v nanocat >/dev/null || {
    echo "stand_in: skipped: nanocat, which is not installed"
    echo "stand_in: $(wc -l <"$work/theirs") lines the same"
    exit 0
}
# talk NAME THEIR-VARIABLE OUR-VARIABLE: a replier and a requester, each with its library.
talk() {
    local url=ipc://$work/$1.socket replier answer
    env "$2" timeout 30 nanocat --rep --bind "$url" --data "$1" --ascii >"$work/asked" &
    replier=$!
    answer=$(env "$3" timeout 30 nanocat --req --connect "$url" --data question --ascii --recv-timeout 10) || true
    kill "$replier" 2>/dev/null || true
    wait "$replier" 2>/dev/null || true
    [ "$answer" = "$1" ] || fail "nanocat: $1: got \"$answer\""
}
ours=LD_LIBRARY_PATH=$stand_in theirs=NONE=1
talk both-ours "$ours" "$ours"
talk ours-asks "$theirs" "$ours"
talk theirs-asks "$ours" "$theirs"
talk preloaded "LD_PRELOAD=$library" "LD_PRELOAD=$library"
echo "stand_in: $(wc -l <"$work/theirs") lines the same, 4 talks of nanocat"
