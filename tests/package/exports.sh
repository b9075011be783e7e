#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# exports.sh LIBRARY HEADERS: the shared library shows exactly the functions that the public headers declare,
# every name begins with spoke_, and its soname is the one that programs were linked with.
set -euo pipefail
library=$1 headers=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# "A" is the version itself; the version's name behind each symbol is cut off.
nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$work/shown"
cat "$headers"/*.h | grep -oE 'SPOKE_API [^(;]*\(' | sed -nE 's/.*[ *](spoke_[a-z0-9_]+)\($/\1/p' |
    sort -u >"$work/declared"

for list in shown declared; do
    [ -s "$work/$list" ] || { echo "exports: no function $list: the test itself is broken"; exit 1; }
done
failed=0
if foreign=$(grep -v '^spoke_' "$work/shown"); then
    echo "exports: names that do not begin with spoke_: $foreign"
    failed=1
fi
if extra=$(comm -23 "$work/shown" "$work/declared" | grep .); then
    echo "exports: shown, and declared in no public header: $extra"
    failed=1
fi
if lost=$(comm -13 "$work/shown" "$work/declared" | grep .); then
    echo "exports: declared in a public header, and not in the library: $lost"
    failed=1
fi
if ! readelf -d "$library" | grep -q 'soname: \[libspoke\.so\.0\]'; then
    echo "exports: another soname: $(readelf -d "$library" | grep -i soname)"
    failed=1
fi
[ $failed = 1 ] || echo "exports: $(wc -l <"$work/shown") functions, all declared"
exit $failed
