#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# exports.sh LIBRARY HEADER: libspoke-nanomsg shows exactly the functions that <nanomsg/nn.h> declares, those of
# nanomsg 1.1.5, without versions and under the soname that programs expect of it.
set -euo pipefail
library=$1 header=$2
expected="nn_allocmsg nn_bind nn_close nn_cmsg_nxthdr_ nn_connect nn_device nn_errno nn_freemsg nn_get_statistic
nn_getsockopt nn_poll nn_reallocmsg nn_recv nn_recvmsg nn_send nn_sendmsg nn_setsockopt nn_shutdown nn_socket
nn_strerror nn_symbol nn_symbol_info nn_term"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tr -s ' \n' '\n' <<<"$expected" | sort >"$work/expected"
nm -D --defined-only "$library" | awk '{ print $3 }' | sort >"$work/shown"
cpp -E -P "$header" | tr '\n' ' ' | grep -oE 'nn_[a-z_]+ ?\(' | tr -d '( ' | sort -u >"$work/declared"
diff "$work/expected" "$work/shown" || { echo "exports: the library shows other functions"; exit 1; }
diff "$work/expected" "$work/declared" || { echo "exports: the header declares other functions"; exit 1; }
readelf -d "$library" | grep -q 'soname: \[libspoke-nanomsg.so.5\]' || { echo "exports: another soname"; exit 1; }
echo "exports: $(wc -l <"$work/shown") functions"
