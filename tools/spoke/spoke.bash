# SPDX-License-Identifier: MIT
# bash completion for spoke(1).  The options of a command are those that its --help names.

_spoke()
{
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command="" words="" i

    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -* ]] || { command=${COMP_WORDS[i]}; break; }
    done

    case $previous in
    --file | -F | --json | --html | --rules | --bind-ipc | -X | --connect-ipc | -x)
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return ;;
    --bind | --listen | --connect | --dial)
        compopt -o nospace
        words="ipc:// tcp:// shm://"
        [[ $command != gateway ]] || words+=" mux+ipc:// mux+tcp:// mux+shm://" ;;
    --local | -L | --remote | -R | --allow | -A | --allow-listen)
        compopt -o nospace
        words="ipc:// tcp:// shm://" ;;
    --format) words="ascii quoted hex msgpack raw no" ;;
    --transport | -t) words="inproc ipc tcp shm" ;;
    --mode | -m)
        words="owned shared"
        [[ $command != gateway && $command != mux ]] || words="600 660 666" ;;
    --wait | -w) words="block poll adaptive" ;;
    *)
        if [[ -z $command ]]; then
            words="bench cat demo device doctor gateway help mux --help --version"
        elif [[ $command == help ]]; then
            words="bench cat demo device doctor gateway mux"
        else
            words=$("${COMP_WORDS[0]}" "$command" --help 2>/dev/null </dev/null |
                grep -oE -- '(^|[ ,])--[a-z][a-z-]*' | tr -d ' ,')
            [[ $command != bench ]] || words+=" latency throughput handshake stream mux channel loan pipeline fanout survey bus connections subscriptions all"
        fi ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o default -F _spoke spoke
