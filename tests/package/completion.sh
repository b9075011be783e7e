#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# completion.sh COMPLETION PROGRAM: what bash offers after some beginnings of a command line.
set -euo pipefail
# shellcheck source=/dev/null
source "$1"
program=$2
compopt() { :; } # works inside a completion only

# offers EXPECTED WORD…: completes the last word.
offers() {
    local expected=$1
    shift
    COMP_WORDS=("$program" "$@") COMP_CWORD=$# COMPREPLY=()
    _spoke
    case " ${COMPREPLY[*]} " in
    *" $expected "*) ;;
    *) echo "completion: after '$*' it offers '${COMPREPLY[*]}', not '$expected'"; exit 1 ;;
    esac
}
offers cat c
offers doctor ''
offers device de
offers --star device --st
offers gateway g
offers gateway help g
offers mux m
offers mux help m
offers --mux gateway --mu
offers mux+tcp:// gateway --connect mux+t
offers --allow-listen mux --allow-l
offers tcp:// mux -L t
offers 660 mux --mode 6
offers --max-connections gateway --m
offers shm:// gateway --listen s
offers 660 gateway --mode 6
offers owned bench --mode o
offers --req cat --r
offers --connect cat --req --con
offers --transport bench --t
offers --html bench latency --h
offers latency bench la
offers subscriptions bench sub
offers loan bench lo
offers shm bench --transport s
offers adaptive bench --wait a
offers ipc:// cat --rep --bind i
offers --json doctor --
offers --send-delay cat --push --send-d
offers --list-options cat --list-

echo "completion: every beginning was completed"
