#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# valgrind.sh PEER: two processes exchange small, large and lent messages over ipc (in shared memory at once), shm and tcp,
# each under valgrind's memcheck, and none of them makes an error or loses a block.  Exit code 77, skipped, without valgrind.
#
# On io_uring valgrind 3.19 (Debian 12's) does not see what the kernel writes into memory: it takes every byte that
# was received for one that nobody has set (the first is in the handshake, in hello_is_fine()).  So there it looks for
# wrong addresses and lost blocks only, and for such bytes on poll.  It also lets no other thread of a process run while
# one waits in io_uring_enter(), in which the shared engine would sleep forever: the peers have an engine of their own.
set -euo pipefail
peer=$1
skip() { echo "valgrind: skipped: $*"; exit 77; }

command -v valgrind >/dev/null || skip "it is not installed: scripts/install-deps test"
work=$(mktemp -d)
listener=
cleanup() {
    [ -z "$listener" ] || kill -KILL "$listener" 2>"$work/ignored" || true
    rm -rf "$work"
}
trap cleanup EXIT

memcheck=(valgrind --quiet --leak-check=full "--show-leak-kinds=definite,indirect,possible"
    "--errors-for-leak-kinds=definite,indirect,possible" --error-exitcode=99)
addresses=("${memcheck[@]}" --undef-value-errors=no)
"${memcheck[@]}" /bin/true >"$work/said" 2>&1 || skip "it cannot run a program here: $(head -n 1 "$work/said")"

# Who finds nothing in a program that is wrong says nothing about one that is right.
finds() {
    local fault=$1 code=0
    shift
    timeout 200 "$@" "$peer" "$fault" >"$work/said" 2>&1 || code=$?
    [ $code = 99 ] || { echo "valgrind: '$fault' went unseen by $* (exit code $code)"; cat "$work/said"; exit 1; }
}
for fault in leak stale blank; do finds $fault "${memcheck[@]}"; done
for fault in leak stale; do finds $fault "${addresses[@]}"; done

# meet BACKEND URL MOVED VALGRIND…: one exchange; MOVED connections go through shared memory at its end.
meet() {
    local backend=$1 url=$2 moved=$3 codes=(0 0) side
    shift 3
    export SPOKE_BACKEND=$backend SPOKE_UPGRADE=now
    timeout 400 "$@" "$peer" listen "$url" >"$work/address" 2>"$work/listen" &
    listener=$!
    for _ in $(seq 2000); do
        [ ! -s "$work/address" ] || break
        sleep 0.1
    done
    timeout 400 "$@" "$peer" dial "$(<"$work/address")" >"$work/out" 2>"$work/dial" || codes[0]=$?
    wait "$listener" || codes[1]=$?
    listener=
    if [ "${codes[*]}" = "0 0" ] && [ "$backend" = uring ] && grep -q 'peer: poll' "$work/dial"; then
        echo "valgrind: skipped: io_uring does not work here, under valgrind"
        return
    fi
    for side in listen dial; do
        if [ "${codes[*]}" != "0 0" ] || ! grep -qx "peer: $backend, $moved moved" "$work/$side"; then
            echo "valgrind: $backend, $url: exit codes ${codes[*]}; the $side side said:"
            cat "$work/$side"
            exit 1
        fi
    done
    echo "valgrind: $backend, ${url%%:*}: no error, no lost block, $moved connections in shared memory"
}
for scheme in ipc shm; do
    meet poll "$scheme://$work/$scheme.sock" 1 "${memcheck[@]}"
    meet uring "$scheme://$work/$scheme.sock" 1 "${addresses[@]}"
done
meet poll tcp://127.0.0.1:0 0 "${memcheck[@]}"
meet uring tcp://127.0.0.1:0 0 "${addresses[@]}"
