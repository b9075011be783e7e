#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# headers.sh INCLUDE-DIRECTORY CC CXX [FOLDER]: each public header compiles alone, and twice in one file, as C99, C11
# and C17 and as C++17.
set -euo pipefail
include=$1 cc=$2 cxx=$3 folder=${4:-spoke}
warnings=(-Wall -Wextra -Wpedantic -Wconversion -Werror)
count=0

for header in "$include/$folder"/*.h; do
    name=$folder/${header##*/}
    source="#include <$name>"$'\n'"#include <$name>"$'\n'"int main(void) { return 0; }"
    for std in c99 c11 c17; do
        "$cc" -std=$std "${warnings[@]}" -Wshadow -I "$include" -fsyntax-only -x c - <<<"$source" ||
            { echo "headers: <$name> does not stand alone as $std"; exit 1; }
    done
    "$cxx" -std=c++17 "${warnings[@]}" -I "$include" -fsyntax-only -x c++ - <<<"$source" ||
        { echo "headers: <$name> does not stand alone as C++17"; exit 1; }
    count=$((count + 1))
done
echo "headers: $count headers stand alone"
