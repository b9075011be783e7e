# SPDX-License-Identifier: MIT
# bash completion for spoke(1)                                             -*- shell-script -*-
# Options come from the command's own --help, so that this file need not know them.

# The long options, or with "commands" the commands, that a page of --help lists.
_spoke_words()
{
    if [[ $2 == commands ]]; then
        "$1" --help 2>/dev/null | sed -n 's/^  \([a-z][a-z]*\)  *[a-z].*/\1/p'
    else
        "$1" "$2" --help 2>/dev/null | sed -n 's/^  .\{0,4\}\(--[a-z][a-z-]*\).*/\1/p'
    fi
}

_spoke()
{
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words
    local command=${COMP_WORDS[1]}

    if ((COMP_CWORD == 1)); then
        words="$(_spoke_words "$1" commands) --help --version"
    else
        case $command:$previous in
        cat:--file | cat:-F | cat:-[Xx] | cat:--*-ipc | bench:--json | bench:--html)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return ;;
        esac
        case $command:$previous in
        help:help) words=$(_spoke_words "$1" commands) ;;
        cat:--format) words="no raw ascii quoted msgpack hex" ;;
        cat:--bind | cat:--listen | cat:--connect | cat:--dial) words="ipc:// tcp:// inproc://" ;;
        bench:--transport | bench:-t) words="inproc ipc tcp" ;;
        bench:--mode | bench:-m) words="owned shared" ;;
        bench:--wait | bench:-w) words="block poll adaptive" ;;
        bench:bench) words="latency throughput connections all $(_spoke_words "$1" bench)" ;;
        *) words=$(_spoke_words "$1" "$command") ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    [[ ${COMPREPLY[0]-} != *:// ]] || compopt -o nospace
}
complete -F _spoke spoke
