#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# containers.sh SPOKE: two processes that share nothing but the directory of a socket, each in network, mount, pid and ipc
# namespaces of its own, talk through shared memory; over ipc:// by itself, and over shm://.  A nanomsg program outside is served by
# the same listener.
set -euo pipefail
spoke=$1
work=$(mktemp -d)
server=

cleanup() {
    if [ -n "$server" ]; then
        kill -KILL "$server" 2>"$work/ignored" || true
        wait "$server" 2>"$work/ignored" || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT

# The user namespace makes it work without root; the pid namespace needs a /proc of its own.
alone=(unshare --user --map-root-user --net --mount --pid --ipc --fork --kill-child --mount-proc)
if ! "${alone[@]}" true 2>"$work/why"; then
    echo "containers: skipped: namespaces are denied here: $(cat "$work/why")"
    exit 77
fi

mkdir "$work/shared"
for scheme in ipc shm; do
    url=$scheme://$work/shared/$scheme.sock
    "${alone[@]}" "$spoke" cat -v --rep --bind "$url" --data pong >"$work/server.$scheme" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        [ ! -S "$work/shared/$scheme.sock" ] || break
        sleep 0.1
    done
    for _ in $(seq 50); do
        echo ping
        sleep 0.01
    done | timeout 200 "${alone[@]}" "$spoke" cat -v --req --connect "$url" --line --ascii >"$work/out" 2>"$work/err" ||
        { echo "containers: $scheme: the client failed:"; cat "$work/err"; exit 1; }
    answers=$(grep -c '^pong$' "$work/out" || true)
    [ "$answers" = 50 ] || { echo "containers: $scheme: $answers answers to 50 requests:"; cat "$work/out" "$work/err"; exit 1; }
    grep -q 'goes through shared memory' "$work/err" ||
        { echo "containers: $scheme: it did not use shared memory:"; cat "$work/err"; exit 1; }
    if [ $scheme = ipc ] && [ -n "$(type -p nanocat)" ]; then
        answer=$(timeout 30 nanocat --req --connect "$url" --data ping --ascii)
        [ "$answer" = pong ] || { echo "containers: nanocat got \"$answer\""; exit 1; }
    fi
    kill -KILL "$server" # the server dies with it
    wait "$server" 2>"$work/ignored" || true
    server=
    echo "containers: $answers answers to 50 requests over $scheme://, from one set of namespaces to another, through shared memory"
done
