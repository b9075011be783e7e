#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# gateway.sh SPOKE: services that know nothing of spoke, behind two gateways: client --tcp-- gateway ==== gateway --unix or tcp--
# service, with shared memory between the two, with tls, ws or wss under an authority of our own, and with one connection that carries
# all.  redis with its own benchmark and with data that is compared, and the HTTP server of busybox with curl.
set -euo pipefail
export LC_ALL=C
spoke=$1
# Debian's redis-tools has the server too, under the name of a tool that it is when it is called so.
server=$(type -P redis-server || type -P redis-check-rdb || true)
for program in "${server:-redis-server}" redis-cli redis-benchmark busybox curl openssl; do
    [ -n "$(type -P "$program")" ] || { echo "gateway: skipped: $program is missing: scripts/install-deps test"; exit 77; }
done
grep -qx httpd <<<"$(busybox --list)" || { echo "gateway: skipped: this busybox has no httpd"; exit 77; }
work=$(mktemp -d)
gateways=()

# What runs still, of what was started here.
running() { jobs -pr; }
cleanup() {
    local pid
    for pid in $(running); do kill -TERM "$pid" 2>>"$work/ignored" || true; done
    for _ in $(seq 100); do
        [ -n "$(running)" ] || break
        sleep 0.05
    done
    for pid in $(running); do kill -KILL "$pid" 2>>"$work/ignored" || true; done
    wait
    rm -rf "$work"
}
trap cleanup EXIT
fail() {
    echo "gateway: $*"
    tail -n 20 "$work"/*.log
    exit 1
}

# start NAME COMMAND…: in the background, until the end; what it says goes to NAME.log.
start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 </dev/null &
    started=$!
}
# until_true WHAT COMMAND…: within some minutes.
until_true() {
    local what=$1
    shift
    for _ in $(seq 4000); do
        ! "$@" >"$work/tried" 2>&1 || return 0
        sleep 0.05
    done
    fail "$what: $(cat "$work/tried")"
}
listening_on() { sed -nE 's,.*listening on ([^ ]+)$,\1,p' "$work/$1.log"; }
# Who listens with TLS is far away, and has a certificate of an authority that the near ones alone know.
new_key() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/$1.key" "${@:2}" 2>>"$work/openssl.log"; }
new_key authority -x509 -out "$work/authority.pem" -subj '/CN=authority of a test' -days 2
new_key server -out "$work/server.csr" -subj /CN=server
openssl x509 -req -in "$work/server.csr" -CA "$work/authority.pem" -CAkey "$work/authority.key" -CAcreateserial -days 2 \
    -extfile <(echo 'subjectAltName=IP:127.0.0.1') -out "$work/server.pem" 2>>"$work/openssl.log"
# secured URL: sets the options of both sides.
secured() {
    near_options=() far_options=()
    case $1 in *tls+tcp://* | *wss://*)
        near_options=(--cacert "$work/authority.pem")
        far_options=(--cert "$work/server.pem" --key "$work/server.key")
        ;;
    esac
}
# two_gateways NAME TARGET MIDDLE: sets $port, where the near one listens; it has chosen that itself.
two_gateways() {
    local middle=$3
    secured "$middle"
    start "$1.far" "$spoke" gateway -v "$middle" "$2" "${far_options[@]}"
    gateways+=("$started")
    until_true "the far gateway of $1" grep -q 'listening on' "$work/$1.far.log"
    case $middle in
    mux+*) middle=mux+$(listening_on "$1.far") ;;
    *:0 | *:0/*) middle=$(listening_on "$1.far") ;;
    esac
    start "$1.near" "$spoke" gateway -v tcp://127.0.0.1:0 "$middle" "${near_options[@]}"
    near=$started
    gateways+=("$started")
    until_true "the near gateway of $1" grep -q 'listening on' "$work/$1.near.log"
    port=$(listening_on "$1.near")
    port=${port##*:}
}
# forwarders NAME TARGET CARRIER: the same with two of `spoke mux`, the far one of which has to be told what it may connect to.
forwarders() {
    secured "$3"
    start "$1.far" "$spoke" mux -v --listen "$3" --allow "$2" "${far_options[@]}"
    gateways+=("$started")
    until_true "the far side of $1" grep -q 'listening on' "$work/$1.far.log"
    start "$1.near" "$spoke" mux -v --connect "$(listening_on "$1.far")" --local "tcp://127.0.0.1:0=$2" "${near_options[@]}"
    near=$started
    gateways+=("$started")
    until_true "the near side of $1" grep -q 'listening on' "$work/$1.near.log"
    port=$(listening_on "$1.near")
    port=${port##*:}
}
# counted NAME PATTERN: the counters of the near gateway become so.
counters_are() { kill -USR1 "$near" && grep ' ever, to ' "$work/$1.near.log" | tail -n 1 | grep -E "$2"; }
counted() { until_true "the counters of $1, $2" counters_are "$1" "$2"; }

# ---- redis, on a unix socket ----
redis_server() { exec -a redis-server "$server" "$@"; }
start redis redis_server --port 0 --unixsocket "$work/redis.sock" --save '' --appendonly no --dir "$work" --daemonize no
until_true redis redis-cli -s "$work/redis.sock" ping
through() { timeout 200 redis-cli -h 127.0.0.1 -p "$port" "$@"; }
# check_redis NAME: through the gateways of that name.
check_redis() {
    local size
    redis-cli -s "$work/redis.sock" flushall >"$work/ignored"
    [ "$(through ping)" = PONG ] || fail "no answer to PING"
    # Values from nothing to 8 MiB go in through the gateways, and are compared both ways: as they lie there, and as they come back.
    for size in 0 1 1000 65536 1048577 8388608; do
        head -c "$size" /dev/urandom >"$work/value"
        [ "$(through -x set "value$size" <"$work/value")" = OK ] || fail "SET of $size bytes"
        { cat "$work/value" && echo; } >"$work/wanted" # redis-cli ends its output with a newline
        redis-cli -s "$work/redis.sock" --raw get "value$size" | cmp -s - "$work/wanted" || fail "$size bytes are not what was sent"
        through --raw get "value$size" | cmp -s - "$work/wanted" || fail "$size bytes are not what came back"
    done
    # Many requests without waiting, many clients at once.
    for i in $(seq 5000); do echo "SET key$i $i"; done | through --pipe >"$work/pipe" || fail "a pipe: $(cat "$work/pipe")"
    grep -q 'errors: 0, replies: 5000' "$work/pipe" || fail "a pipe: $(cat "$work/pipe")"
    timeout 400 redis-benchmark -h 127.0.0.1 -p "$port" -n 5000 -c 20 -d 512 -t set,get,incr,lpush,lrange_100 -q >"$work/benchmark" 2>&1 ||
        fail "redis-benchmark: $(cat "$work/benchmark")"
    [ "$(tr '\r' '\n' <"$work/benchmark" | grep -c 'requests per second')" -ge 5 ] || fail "redis-benchmark: $(cat "$work/benchmark")"
    [ "$(redis-cli -s "$work/redis.sock" get counter:__rand_int__)" = 5000 ] || fail "not 5000 increments arrived"
    counted "$1" '^0 connections, .* could not connect 0, broken 0,'
    echo "gateway: $1 through two: $(grep ' ever, to ' "$work/$1.near.log" | tail -n 1)"
}
# through_all NAME TARGET CHECK: over shared memory and over the network, each connection by itself and all of them over one.
through_all() {
    local scheme middle
    two_gateways "$1" "$2" "shm://$work/$1.shm"
    "$3" "$1"
    for scheme in tls+tcp ws wss; do
        middle=$scheme://127.0.0.1:0
        [ $scheme = tls+tcp ] || middle=$middle/$1
        two_gateways "$1-$scheme" "$2" "$middle"
        "$3" "$1-$scheme"
    done
    for scheme in tcp wss; do
        two_gateways "$1-mux-$scheme" "$2" "mux+$scheme://127.0.0.1:0"
        "$3" "$1-mux-$scheme"
        forwarders "$1-forward-$scheme" "$2" "$scheme://127.0.0.1:0"
        "$3" "$1-forward-$scheme"
    done
}
through_all redis "ipc://$work/redis.sock" check_redis

# ---- an HTTP server, on a tcp port ----
mkdir "$work/files"
head -c 0 /dev/null >"$work/files/0"
head -c 1024 /dev/urandom >"$work/files/1K"
head -c 20971520 /dev/urandom >"$work/files/20M"
# It cannot choose a port itself: take others until it has one.
for try in 1 2 3 4 5; do
    http=$((20000 + RANDOM % 10000))
    start "httpd$try" busybox httpd -f -p "127.0.0.1:$http" -h "$work/files"
    httpd_answers() { ! kill -0 "$started" || curl -sS -o "$work/got" "http://127.0.0.1:$http/1K"; }
    until_true "an HTTP server" httpd_answers
    ! kill -0 "$started" 2>>"$work/ignored" || break
    [ $try != 5 ] || fail "no HTTP server starts"
done
# check_http NAME: through the gateways of that name.
check_http() {
    local file i
    fetches=()
    for file in 0 1K 20M; do
        timeout 200 curl -sS -o "$work/got" "http://127.0.0.1:$port/$file" || fail "curl of $file"
        cmp -s "$work/got" "$work/files/$file" || fail "$file is not what came through"
    done
    # Several at once, and a range.
    for i in 1 2 3 4; do
        timeout 200 curl -sS -o "$work/got.$i" "http://127.0.0.1:$port/20M" &
        fetches+=($!)
    done
    for i in 1 2 3 4; do
        wait "${fetches[i - 1]}" || fail "curl at the same time"
        cmp -s "$work/got.$i" "$work/files/20M" || fail "file $i of four at the same time is not what came through"
    done
    [ "$(timeout 200 curl -sS -o "$work/got" -r 5000000-5000999 -w '%{http_code}' "http://127.0.0.1:$port/20M")" = 206 ] || fail "a range"
    cmp -s "$work/got" <(tail -c +5000001 "$work/files/20M" | head -c 1000) || fail "a range is not what came through"
    counted "$1" '^0 connections, .* could not connect 0, broken 0,'
    echo "gateway: $1 through two: $(grep ' ever, to ' "$work/$1.near.log" | tail -n 1)"
}
through_all http "tcp://127.0.0.1:$http" check_http

# Nothing went wrong, and as nothing is open they end well.
! grep -E ' (broke|is cut|cannot) ' "$work"/*.near.log "$work"/*.far.log || fail "a gateway complained"
for ((i = ${#gateways[@]} - 1; i >= 0; i--)); do # near ones first
    pid=${gateways[i]}
    kill -TERM "$pid"
    code=0
    wait "$pid" || code=$?
    [ $code = 0 ] || fail "a gateway ended with $code"
done
