#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# consumers.sh SOURCE BUILD LIBDIR CC CXX: installs the build as a packager does (make install DESTDIR=…), moves the
# prefix (nothing in it may remember where it was made), and builds and runs consumer/main.c from there as C99, C11,
# C17 and C++17: with pkg-config and with find_package, against the shared and the static library.  The manual is
# there too, and the installed program finds its benchmark programs.
set -euo pipefail
source=$1 build=$2 libdir=$3 cc=$4 cxx=$5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "consumers: $*"; exit 1; }

made=/nowhere/made
env -u MAKEFLAGS make -C "$source" install BUILD="$build" DESTDIR="$work/root" PREFIX="$made" >"$work/install.log" 2>&1 ||
    fail "$(cat "$work/install.log")"
[ ! -e "$made" ] || fail "DESTDIR was not heeded"
prefix=$work/moved
mv "$work/root$made" "$prefix"
[ -z "$(find "$work/root" ! -type d)" ] || fail "not below PREFIX: $(find "$work/root" ! -type d)"

diff <(cd "$source/include/spoke" && ls) <(cd "$prefix/include/spoke" && ls) || fail "headers are missing"
for page in "$source"/docs/man/*.[1-9]; do
    cmp -s "$page" "$prefix/share/man/man${page##*.}/${page##*/}" || fail "no manual page ${page##*/} is installed"
done
for file in "$prefix/$libdir/pkgconfig/spoke.pc" "$prefix/$libdir"/cmake/spoke/*.cmake; do
    ! grep -nF -e "$work/root" -e "$made" -e "$build" -e "$source" "$file" || fail "$file remembers where it was built"
done

# ---- pkg-config ----
main=$source/tests/package/consumer/main.c
warnings="-Wall -Wextra -Wpedantic -Werror"
export PKG_CONFIG_PATH=$prefix/$libdir/pkgconfig
shared=$(pkg-config --cflags --libs spoke)
static=$(pkg-config --static --cflags --libs spoke)
static=${static/-lspoke/-l:libspoke.a}
# try NAME COMPILER…: builds and runs one consumer.
try() {
    local name=$1
    shift
    "$@" -o "$work/$name" || fail "$name does not build: $*"
    LD_LIBRARY_PATH=$prefix/$libdir timeout 200 "$work/$name" || fail "$name fails"
    runs=$((${runs:-0} + 1))
}
for kind in shared static; do
    for std in c99 c11 c17; do
        # shellcheck disable=SC2086 # the flags are lists
        try pkg-config-$kind-$std "$cc" -std=$std $warnings "$main" ${!kind}
    done
    # shellcheck disable=SC2086
    try pkg-config-$kind-c++17 "$cxx" -std=c++17 $warnings -x c++ "$main" -x none ${!kind}
done

# ---- find_package ----
cmake -S "$source/tests/package/consumer" -B "$work/consumer" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" >"$work/consumer.log" 2>&1 &&
    cmake --build "$work/consumer" >>"$work/consumer.log" 2>&1 || fail "$(cat "$work/consumer.log")"
for program in "$work"/consumer/consumer-*; do
    timeout 200 "$program" || fail "$program fails"
    runs=$((runs + 1))
done

# ---- the program ----
if [ -x "$build/bin/spoke" ]; then
    timeout 200 "$prefix/bin/spoke" --help >/dev/null || fail "the installed spoke --help fails"
    bash -n "$prefix/share/bash-completion/completions/spoke" || fail "the completion is no bash"
fi
if [ -x "$build/bin/spoke" ] && [ -d "$build/libexec/spoke" ]; then
    programs=$prefix/libexec/spoke
    diff <(cd "$build/libexec/spoke" && ls) <(cd "$programs" && ls) || fail "benchmark programs are missing"
    # It is these that run, not others that this machine may have: one leaves a note.
    mv "$programs/bench-spoke" "$programs/bench-spoke.real"
    # shellcheck disable=SC2016 # the note's script is to expand them
    printf '#!/bin/sh\n: >"$0.ran"\nexec "$0.real" "$@"\n' >"$programs/bench-spoke"
    chmod +x "$programs/bench-spoke"
    env -u SPOKE_BENCH_DIR timeout 200 "$prefix/bin/spoke" bench latency --transport ipc --mode owned --wait block \
        --pairs 1 --seconds 0.05 >"$work/bench.log" 2>&1 || fail "the installed spoke bench fails: $(cat "$work/bench.log")"
    [ -e "$programs/bench-spoke.ran" ] || fail "spoke bench has run programs from elsewhere"
fi
[ "$runs" = 16 ] || fail "$runs consumers ran, not 16"
echo "consumers: $runs programs built and run"
