# SPDX-License-Identifier: MIT
# bash completion for spoke(1)                                             -*- shell-script -*-

_spoke()
{
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
    local command="" i words=""

    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        cat | bench | doctor | demo) command=${COMP_WORDS[i]}; break ;;
        esac
    done

    case $command:$previous in
    *:--file | *:--json | *:--html | *:-F)
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return ;;
    cat:--format) words="raw ascii quoted msgpack hex" ;;
    bench:--transport) words="inproc ipc tcp" ;;
    bench:--mode) words="owned shared" ;;
    bench:--wait) words="block poll adaptive" ;;
    cat:--bind | cat:--connect | cat:--dial | cat:--listen) words="ipc:// tcp:// inproc://" ;;
    cat:*)
        words="--pair --req --rep --bind --connect --dial --listen --bind-ipc --connect-ipc
            --bind-local --connect-local --data --file --format --raw --ascii --quoted --msgpack --hex
            --interval --delay --send-timeout --recv-timeout --count --verbose --silent --help" ;;
    bench:*)
        words="latency throughput connections all --transport --size --mode --wait --peers --pairs
            --json --html --help" ;;
    doctor:*) words="--json --help" ;;
    demo:*) words="--help" ;;
    :*) words="cat bench doctor demo --help --version" ;;
    esac

    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    [[ ${COMPREPLY[0]-} != *:// ]] || compopt -o nospace
}
complete -F _spoke spoke
