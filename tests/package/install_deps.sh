#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# install_deps.sh SOURCE-DIRECTORY: scripts/install-deps installs exactly what is missing.  dpkg-query, apt-get, id and
# sudo are stand-ins here: nothing of this machine is asked or changed.
set -euo pipefail
script=$1/scripts/install-deps
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "install_deps: $*"; exit 1; }

# program NAME TEXT: a stand-in.
program() {
    printf '#!/bin/bash\n%s\n' "$2" >"$work/bin/$1"
    chmod +x "$work/bin/$1"
}
# The tools that the script uses besides; no other is in its PATH, least of all this machine's apt-get.
mkdir "$work/bin"
for tool in bash cat env mktemp rm tail; do ln -s "$(command -v $tool)" "$work/bin/$tool"; done
# shellcheck disable=SC2016 # the stand-ins are to expand it
program dpkg-query 'packages=$(<"$DIR/installed"); case " $packages " in
*" ${*: -1} "*) echo -n installed ;;
*" ${*: -1}:removed "*) echo -n config-files ;;
*) exit 1 ;;
esac'
# shellcheck disable=SC2016
program apt-get 'echo "$*" >>"$DIR/done"; [ ! -e "$DIR/broken" ] || { echo "E: no network"; exit 100; }'
# shellcheck disable=SC2016
program id 'echo "${USER_ID-0}"'

# run EXPECTED-CODE GROUP…: its words are in $said then, and what apt-get was told in $told.
run() {
    local wanted=$1 code=0
    shift
    : >"$work/done"
    said=$(env -i PATH="$work/bin" DIR="$work" ${USER_ID:+USER_ID=$USER_ID} "$work/bin/bash" "$script" "$@" 2>&1) || code=$?
    told=$(<"$work/done")
    [ "$code" = "$wanted" ] || fail "exit code $code, not $wanted, after: $said"
}
told_is() { [ "$told" = "$1" ] || fail "apt-get was told '$told', not '$1'"; }
says() { case $said in *"$1"*) ;; *) fail "it says '$said', not '$1'" ;; esac; }
install="-q -y install --no-install-recommends"

# All of a group, from the script itself: what it asks for where nothing is there.
echo >"$work/installed"
run 0 build test
told_is "-q -y update
$install ${told##*--no-install-recommends }"
read -ra all <<<"${told##*--no-install-recommends }"
[ ${#all[@]} -gt 8 ] || fail "only ${#all[@]} packages in all: ${all[*]}"

# All there: no word, no call.
echo "${all[*]}" >"$work/installed"
run 0 build test
[ -z "$said$told" ] || fail "with everything there: '$said' '$told'"

# Each alone is missing, or was removed and has left its configuration.
for package in "${all[@]}"; do
    for state in "" "$package:removed"; do
        echo "$(printf '%s\n' "${all[@]}" | grep -vxF "$package" | tr '\n' ' ')$state" >"$work/installed"
        run 0 build test
        told_is "-q -y update
$install $package"
    done
done

# A package of two groups is installed once.
echo >"$work/installed"
run 0 test bench
[ "$(tr ' ' '\n' <<<"$told" | grep -cx libnng-dev)" = 1 ] || fail "libnng-dev twice: $told"

# Who is not root needs sudo, and is told what to do where there is none.
echo "${all[*]:1}" >"$work/installed"
USER_ID=1000 run 1 build test
told_is ""
says "run as root: apt-get install ${all[0]}"
# shellcheck disable=SC2016
program sudo 'echo sudo >>"$DIR/done"; exec "$@"'
USER_ID=1000 run 0 build test
told_is "sudo
-q -y update
sudo
$install ${all[0]}"

# What apt-get says is shown when it fails, and nothing is installed after a failed update.
touch "$work/broken"
run 1 build test
told_is "-q -y update"
says "E: no network"
says "install by hand: ${all[0]}"
rm "$work/broken"

# Mistakes, and systems that are not Debian.
run 2
run 2 build nothing
told_is ""
rm "$work/bin/apt-get"
run 0 build
says "this is not Debian"

echo "install_deps: of ${#all[@]} packages, each alone was installed when it was missing"
