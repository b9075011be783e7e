#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh JS-PEER SPOKE FILE…: tests of clients/js under Node; those of the browser need chromium, too.
set -euo pipefail
cd "$(dirname "$0")"
export JS_PEER=$1 SPOKE=$2
shift 2

skip() { echo "js: skipped: $1"; exit 77; }
[ -n "$(type -P node)" ] || skip "node is missing: scripts/install-deps test"
node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' || skip "node is older than 18"
[ -e /usr/share/nodejs/ws/wrapper.mjs ] || skip "node-ws is missing: scripts/install-deps test"
case " $* " in *" browser.test.mjs "*)
    [ -n "$(type -P chromium)" ] || skip "chromium is missing: make test-browser installs it" ;;
esac

output=$(mktemp)
trap 'rm -f "$output"' EXIT
code=0
node --test --test-reporter=tap "$@" </dev/null | tee "$output" || code=$?
count() { sed -n "s/^# $1 //p" "$output"; }
echo "[====] Synthesis: Tested: $(count tests) | Passing: $(count pass) | Failing: $(count fail) | Skipped: $(count skipped)"
# A run that found no tests has not passed.
[ "$(count tests)" -ge 10 ] || code=1
exit "$code"
