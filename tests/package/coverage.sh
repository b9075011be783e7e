#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# coverage.sh SOURCE-DIRECTORY: the tests that docs/coverage*.md name exist, so do the calls, options and errors that they and
# docs/moving/ name, and every function of nanomsg/nn.h has a row; and each kind of mistake is noticed when one is planted.
set -euo pipefail
export LC_ALL=C
source=$1
channels=$source/docs/coverage-channels.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Every name that a test may have.  A test is a macro with its suite and its name, perhaps behind a parameter; all may be broken
# over lines.
{
    for folder in "$source"/tests/*/; do
        find "$folder" -name '*.c' -exec cat {} + | tr -s ' \n' '  ' >"$work/text"
        for parameter in '' '[^(),]*, '; do
            grep -oE "[A-Z][A-Za-z_]*\( ?${parameter}[a-z0-9_]+, [A-Za-z0-9_]+ *[,)]" "$work/text" || true
        done | sed -E "s,.*[( ]([a-z0-9_]+)\, ([A-Za-z0-9_]+) *.\$,$(basename "$folder")/\1/\2,"
    done
    find "$source/tests/interop" -name '*.c' -exec sed -nE 's,^MEETING_TEST\((\w+)\,.*,interop/exchange/\1,p' {} +
    sed -nE 's,^(EXACT|EVOLVING|LAYOUT)\((\w+)\,.*,types/malformed/\2,p' "$source/tests/types/malformed.c"
    find "$source/examples" -name '*.c' | sed -E 's,.*/(.*)\.c$,example.\1,'
    grep -oE 'NAME package\.[a-z_-]+' "$source/tests/package/CMakeLists.txt" | cut -d' ' -f2
} | sort -u >"$work/tests"

# Every name of the headers.  Errors lack their prefix there; the typed calls of options are made by a macro.
{
    grep -ohE '\w+' "$source"/include/spoke/*
    sed -nE 's/^ERROR\((\w+).*/SPOKE_\1/p' "$source/include/spoke/errors.def"
    for owner in socket context dialer listener; do
        printf "spoke_${owner}_%s\n" {set,get}_{bool,int,size,duration,string}
    done
} | sort -u >"$work/names"

sed -nE 's/^NN_EXPORT.*\W(nn_\w+)\(.*/\1/p' "$source/compat/nanomsg/include/nanomsg/nn.h" | sort -u >"$work/functions"

# missing WANTED THERE WHAT: says what is in the first list and not in the second; fails if there is anything.
missing() {
    ! comm -23 "$1" "$2" | sed "s/^/coverage: $3: /" | grep .
}

# check COVERAGE [MORE…]: says what is wrong in these and in $channels.
check() {
    local wrong=0
    grep -ohE '`[a-z_]+/[a-z0-9_]+/[A-Za-z0-9_]+`|`(example|package)\.[a-z_-]+`' "$1" "$channels" |
        tr -d '`' | sort -u >"$work/named"
    missing "$work/named" "$work/tests" "no such test" || wrong=1
    grep -ohwE '(SPOKE|spoke|SPK|spk)_[A-Za-z0-9_]*[A-Za-z0-9]' "$@" "$channels" | sort -u >"$work/named"
    missing "$work/named" "$work/names" "nothing of that name in include\/spoke" || wrong=1
    grep -oE '`nn_\w+`' "$1" | tr -d '`' | sort -u >"$work/named"
    missing "$work/functions" "$work/named" "no row for" || wrong=1
    return $wrong
}

check "$source/docs/coverage.md" "$source"/docs/moving/*.md
echo "coverage: $(grep -ohE '`[a-z_]+/[a-z0-9_]+/[A-Za-z0-9_]+`' "$source"/docs/coverage*.md | sort -u | wc -l) tests are where docs/coverage*.md say"

# planted SED-COMMAND: a copy that was changed so is refused.
planted() {
    sed "$1" "$source/docs/coverage.md" >"$work/coverage.md"
    ! cmp -s "$source/docs/coverage.md" "$work/coverage.md" || { echo "coverage: '$1' changes nothing"; exit 1; }
    ! check "$work/coverage.md" >"$work/said" || { echo "coverage: '$1' was accepted"; exit 1; }
}
planted 's,transfer/bytes_in_and_bytes_out,transfer/bytes_in_and_bytes_ou,'
planted 's,conformance/transfer/bytes_in,protocols/transfer/bytes_in,'
planted 's,`example.pair`,`example.pears`,'
planted 's,`package.nanomsg-relink`,`package.nanomsg-relin`,'
planted 's,spoke_msg_free(),spoke_msg_fre(),'
planted 's,SPOKE_EAGAIN,SPOKE_EAGAINST,'
planted 's,`nn_poll`,`nn_pol`,'
sed 's,netchan/TestExportDrain,netchan/TestExportDrai,' "$channels" >"$work/channels.md"
channels=$work/channels.md
planted 's/$/ /'
channels=$source/docs/coverage-channels.md
sed 's,hostile_bounds/channels_nested,hostile_peer/channels_nested,' "$channels" >"$work/channels.md"
channels=$work/channels.md
planted 's/$/ /'
echo "coverage: planted mistakes are noticed"
