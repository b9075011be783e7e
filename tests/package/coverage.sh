#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# coverage.sh SOURCE-DIRECTORY: the tests that docs/coverage.md names exist, so do the calls, options and errors that it and
# docs/moving/ name, and every function of nanomsg/nn.h has a row; and each kind of mistake is noticed when one is planted.
set -euo pipefail
source=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One line for each folder of tests, and one for the headers: names may be broken over lines.
for folder in "$source"/tests/*/; do
    find "$folder" -name '*.c' -exec cat {} + | tr -s ' \n' '  ' >"$work/tests.$(basename "$folder")"
done
cat "$source"/include/spoke/* >"$work/headers"

test_exists() {
    local folder suite name
    case $1 in
    example.*) [ -f "$source/examples/${1#example.}.c" ]; return ;;
    package.*) grep -q "NAME $1 " "$source/tests/package/CMakeLists.txt"; return ;;
    esac
    IFS=/ read -r folder suite name <<<"$1"
    [ -f "$work/tests.$folder" ] || return 1
    grep -qE "[A-Z][A-Za-z_]*\( ?([^(),]*, )?$suite, $name *[,)]" "$work/tests.$folder" ||
        { [ "$folder/$suite" = interop/exchange ] && grep -qE "MEETING_TEST\($name," "$work/tests.interop"; }
}

# A name of the headers; errors lack their prefix there, the typed option calls are made by a macro.
name_exists() {
    local typed='^spoke_(socket|context|dialer|listener)_(set|get)_(bool|int|size|duration|string)$'
    [[ $1 =~ $typed ]] || grep -qw -- "$1" "$work/headers" || grep -qE "ERROR\(${1#SPOKE_}," "$work/headers"
}

# check COVERAGE [MORE…]: says what is wrong.
check() {
    local wrong=0 name tests
    tests=$(grep -oE '`[a-z_]+/[a-z0-9_]+/[a-z0-9_]+`|`(example|package)\.[a-z_-]+`' "$1" | tr -d '`' | sort -u)
    for name in $tests; do
        test_exists "$name" || { echo "coverage: no such test: $name"; wrong=1; }
    done
    for name in $(grep -ohwE '(SPOKE|spoke|SPK|spk)_[A-Za-z0-9_]*[A-Za-z0-9]' "$@" | sort -u); do
        name_exists "$name" || { echo "coverage: nothing of that name in include/spoke: $name"; wrong=1; }
    done
    for name in $(grep '^NN_EXPORT' "$source/compat/nanomsg/include/nanomsg/nn.h" | grep -oE 'nn_[a-z_]+\(' | tr -d '('); do
        grep -q "\`$name\`" "$1" || { echo "coverage: no row for $name"; wrong=1; }
    done
    return $wrong
}

check "$source/docs/coverage.md" "$source"/docs/moving/*.md
echo "coverage: $(grep -oE '`[a-z_]+/[a-z0-9_]+/[a-z0-9_]+`' "$source/docs/coverage.md" | sort -u | wc -l) tests are where docs/coverage.md says"

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
echo "coverage: planted mistakes are noticed"
