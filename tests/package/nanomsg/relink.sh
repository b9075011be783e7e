#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# relink.sh BUILD LIBDIR CC SOCKET-HEADER: installs the build into a fresh prefix, moves that, and builds and runs a
# program of libnanomsg's from there: with pkg-config, against the shared and the static library; and, built against the
# system's libnanomsg if there is one, from the installed folder that stands in for it.
set -euo pipefail
build=$1 libdir=$2 cc=$3 header=$4
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "relink: $*"; exit 1; }

cmake --install "$build" --prefix "$work/made" >"$work/install.log" || fail "$(cat "$work/install.log")"
prefix=$work/moved
mv "$work/made" "$prefix"
has=()
for pattern in PUSH SUB SURVEYOR BUS; do
    has+=("-DHAS_$pattern=$(grep -cE "^#define SPOKE_$pattern +[0-9]" "$header" || true)")
done
system=$(pkg-config --cflags --libs nanomsg 2>/dev/null) || system=
export PKG_CONFIG_PATH=$prefix/$libdir/pkgconfig
shared=$(pkg-config --cflags --libs spoke-nanomsg)
static=$(pkg-config --static --cflags --libs spoke-nanomsg)
static=${static/-lspoke-nanomsg/-l:libspoke-nanomsg.a}
static=${static/-lspoke/-l:libspoke.a}
stand_in=$(pkg-config --variable=standin spoke-nanomsg)

# try NAME LIBRARY-PATH FLAG…: builds and runs it.
try() {
    local name=$1 path=$2
    shift 2
    "$cc" "${has[@]}" -O1 -Wall "$here/program.c" -o "$work/$name" "$@" || fail "$name does not build"
    LD_LIBRARY_PATH=$path timeout 200 "$work/$name" "inproc://relinked" "ipc://$work/socket" >"$work/$name.txt" ||
        fail "$name fails: $(tail -3 "$work/$name.txt")"
}
# shellcheck disable=SC2086 # the flags are lists
try shared "$prefix/$libdir" $shared
! LD_LIBRARY_PATH=$prefix/$libdir ldd "$work/shared" | grep -q "libnanomsg" || fail "it needs libnanomsg"
# shellcheck disable=SC2086
try static "" $static
diff "$work/shared.txt" "$work/static.txt" || fail "the static library differs"
if [ -n "$system" ]; then
    # shellcheck disable=SC2086
    try stood_in "$stand_in" $system
    diff "$work/shared.txt" "$work/stood_in.txt" || fail "the installed stand-in differs"
fi
echo "relink: $(wc -l <"$work/shared.txt") lines, the same from each"
