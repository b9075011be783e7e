#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# gdb.sh PRINTERS EXAMPLES: what scripts/gdb/spoke.py says about programs that stand still in the middle of a
# message, and about a core of such a one.  Exit code 77, skipped, where there is no gdb or it may not run a program.
set -euo pipefail
printers=$1 examples=$2
skip() { echo "gdb: skipped: $*"; exit 77; }

command -v gdb >/dev/null || skip "gdb is not installed"
gdb -batch -nx -ex 'python print(1)' 2>/dev/null | grep -qx 1 || skip "this gdb has no Python"
gdb -batch -nx -ex run --args /bin/true 2>/dev/null | grep -q 'exited normally' ||
    skip "gdb may not run programs here"

export SPOKE_UPGRADE=off # the first receive is then one of bytes
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# at FUNCTION PROGRAM COMMAND…: runs the program to the first call of a function, then the commands, then to its end.
at() {
    local function=$1 program=$2 arguments=() word
    shift 2
    for word in "$@" delete continue; do arguments+=(-ex "$word"); done
    output=$(timeout 300 gdb -batch -nx -iex 'set debuginfod enabled off' -ex "source $printers" \
        -ex 'set breakpoint pending on' -ex 'set print inferior-events off' -ex "break $function" \
        -ex run "${arguments[@]}" "$program" 2>&1) || { echo "$output"; exit 1; }
}
shows() {
    grep -qE -- "$1" <<<"$output" || { echo "gdb: nothing matches '$1' in:"; echo "$output"; exit 1; }
}

at spk_pipe_received "$examples/callbacks" 'print *m' 'print *p' 'print *p->endpoint' 'print *p->socket' \
    'print *p->socket->e' spoke "gcore $work/core"
shows '= message\{refs 1, .*header 4 \[.*\], body 10 inline \[71 75 .*\] "question 1"\}$'
shows '= pipe\{[0-9]+, SPK_PIPE_ATTACHED, inproc://callbacks, writable\}$'
shows '= listener\{inproc://callbacks, SPK_LISTENING\}$'
shows '= socket\{rep "rep-[0-9]+", SPK_SOCKET_OPEN, 1 pipes, '
shows '= engine\{(uring|poll), owned, awake, '
shows '^0x[0-9a-f]+ engine\{(uring|poll), owned, '
shows '^0x[0-9a-f]+ socket\{req "req-[0-9]+", '
shows '^    dialer\{inproc://callbacks, SPK_CONNECTED\}$'
shows '^reply: question 3'

# The same is in the core, where nothing runs any more.
output=$(timeout 300 gdb -batch -nx -iex 'set debuginfod enabled off' -ex "source $printers" -ex 'print *m' \
    -ex 'print *p' -ex spoke "$examples/callbacks" "$work/core" 2>&1) || { echo "$output"; exit 1; }
shows '= message\{refs 1, .*"question 1"\}$'
shows '= pipe\{[0-9]+, SPK_PIPE_ATTACHED, inproc://callbacks, writable\}$'
shows '^0x[0-9a-f]+ socket\{req "req-[0-9]+", '
shows '^    dialer\{inproc://callbacks, SPK_CONNECTED\}$'

at on_received "$examples/pair" 'print *op'
shows '= op\{SPK_OP_RECV SPK_OP_IDLE, handle [0-9]+, answers on_received\}$'

echo "gdb: messages, pipes, operations, endpoints, sockets and engines are readable, alive and in a core"
