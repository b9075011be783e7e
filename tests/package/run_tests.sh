#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run_tests.sh SOURCE-DIRECTORY: the last lines of scripts/run-tests are the sums of what the test programs say.
set -euo pipefail
source=$1
unset SPOKE_TEST_TRIES
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# program NAME EXIT-CODE LINE…: a test program that says these lines.
program() {
    local name=$1 code=$2
    shift 2
    printf '%s\n' "$@" >"$work/$name"
    echo "add_test($name sh -c \"cat $work/$name; exit $code\")" >>"$work/CTestTestfile.cmake"
}
ends_with() {
    local output
    output=$("$source/scripts/run-tests" "$work" | tail -n "$(wc -l <<<"$1")") || true
    [ "$(sed 's/,  *Total.*//' <<<"$output")" = "$1" ] || { echo "run-tests ends with: $output"; exit 1; }
}
colour=$'\x1b[0;34m' plain=$'\x1b[0m'

program one 0 '[SKIP] a::b: no such thing here' '[SKIP] a::b: no such thing here' '[====] Skipped: 2' \
    "[$colour====$plain] Synthesis: Tested: ${colour}10$plain | Passing: ${colour}10$plain | Failing: 0 | Crashing: 0 "
program two 0 'no test case' '[SKIP] a::c: nor this' '[====] Skipped: 1' \
    '[====] Synthesis: Tested: 5 | Passing: 5 | Failing: 0 | Crashing: 0 '
ends_with '[SKIP] a::b: no such thing here (2 times)
[SKIP] a::c: nor this (1 times)
15 test cases run, 15 passed, 3 skipped
100% tests passed, 0 tests failed out of 2'

# ctest shows no word of a program that is skipped as a whole.
program none 77 'none: skipped: nothing is installed'
echo 'set_tests_properties(none PROPERTIES SKIP_RETURN_CODE 77)' >>"$work/CTestTestfile.cmake"
"$source/scripts/run-tests" "$work" | grep -xF '[SKIP] none: nothing is installed (1 times)' >/dev/null ||
    { echo "run-tests: a program is skipped without a reason"; exit 1; }
sed -i '/none/d' "$work/CTestTestfile.cmake"

program three 1 '[====] Skipped: 0' '[====] Synthesis: Tested: 7 | Passing: 4 | Failing: 3 | Crashing: 1 '
ends_with '22 test cases run, 19 passed, 3 skipped
67% tests passed, 1 tests failed out of 3'
"$source/scripts/run-tests" "$work" >/dev/null && { echo "run-tests: a failure passed"; exit 1; }

# One that fails once is run again only if that is asked for; what failed is said all the same.
program fails_once 1 '[----] no luck' '[FAIL] a::d: (0.1s)' '[====] Synthesis: Tested: 9 | Passing: 8 | Failing: 1 | Crashing: 0 '
sed -i '/three/d' "$work/CTestTestfile.cmake"
sed -i "s|cat $work/fails_once; exit 1|test -e $work/ran \&\& sed -n /Synth/s/8/9/p $work/fails_once \&\& exit; touch $work/ran; &|" \
    "$work/CTestTestfile.cmake"
SPOKE_TEST_TRIES=2 ends_with '[----] no luck
[FAIL] a::d: (0.1s)
unsteady: fails_once failed, and passed when it was run again
24 test cases run, 24 passed, 3 skipped
100% tests passed, 0 tests failed out of 3'
rm "$work/ran"
ends_with '[FAIL] a::d: (0.1s)
24 test cases run, 23 passed, 3 skipped
67% tests passed, 1 tests failed out of 3'

echo "run_tests: the sums are right"
