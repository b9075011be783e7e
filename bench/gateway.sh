#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# gateway.sh [SPOKE] [ROUNDS] [REQUESTS]: what two gateways cost a service that knows nothing of them.  redis with redis-benchmark and
# nginx with wrk, each in four ways, in turns:
#
#   direct    client --tcp-- service
#   gateway   client --tcp-- spoke gateway --shm-- spoke gateway --tcp-- service
#   mux       client --tcp-- spoke gateway --one tcp connection for all-- spoke gateway --tcp-- service
#   socat     client --tcp-- socat --unix socket-- socat --tcp-- service
#
# Everything is on 127.0.0.1.  Prints the medians of ROUNDS (5) rounds as ratios to direct; REQUESTS (100000) is how many redis-benchmark
# makes at a time, wrk takes 5 s.  Run it on a machine that does nothing else.  It needs Debian's redis-tools, wrk, socat and nginx-light
# (which starts a server of its own when it is installed).
set -euo pipefail
export LC_ALL=C
spoke=${1:-build/bin/spoke} rounds=${2:-5} requests=${3:-100000}
seconds=${WRK_SECONDS:-5}
PATH=$PATH:/usr/sbin
redis_program=$(type -P redis-server || type -P redis-check-rdb || true) # the server, if it is called so
for program in "$spoke" "${redis_program:-redis-server}" redis-cli redis-benchmark nginx wrk socat; do
    [ -n "$(type -P "$program")" ] || { echo "bench/gateway.sh: $program is missing: see the head of this file" >&2; exit 1; }
done
work=$(mktemp -d)
cleanup() {
    local pid
    for pid in $(jobs -pr); do kill -TERM "$pid" 2>>"$work/ignored" || true; done
    sleep 0.5
    for pid in $(jobs -pr); do kill -KILL "$pid" 2>>"$work/ignored" || true; done
    wait
    rm -rf "$work"
}
trap cleanup EXIT
fail() { echo "bench/gateway.sh: $*" >&2; tail -n 5 "$work"/*.log >&2; exit 1; }

# start NAME COMMAND…: in the background, until the end.
start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 </dev/null &
    started=$!
}
# answers COMMAND…: within ten seconds; false if that takes longer, or what was started last has ended.
answers() {
    for _ in $(seq 200); do
        kill -0 "$started" 2>>"$work/ignored" || return 1
        ! "$@" >"$work/answer" 2>&1 || return 0
        sleep 0.05
    done
    return 1
}
# on_a_port CHECK START…: calls START with ports until CHECK, called with it, is content.  Sets $port.
on_a_port() {
    local check=$1 try
    shift
    for try in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 10000))
        "$@" "$try"
        ! answers "$check" || return 0
    done
    fail "nothing starts: $*"
}

# ---- the services, and the ways to them ----
redis_answers() { [ "$(redis-cli -p "$port" ping 2>&1)" = PONG ]; }
http_answers() { exec 9<>"/dev/tcp/127.0.0.1/$port" && exec 9>&-; }
redis() {
    # shellcheck disable=SC2317 # start() calls it
    run_redis() { exec -a redis-server "$redis_program" "$@"; }
    start "redis$1" run_redis --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work"
}
nginx_files() {
    mkdir "$work/files"
    head -c 1024 /dev/urandom >"$work/files/1K"
    head -c 1048576 /dev/urandom >"$work/files/1M"
    chmod 755 "$work"
}
http() {
    cat >"$work/nginx.conf" <<END
daemon off;
pid $work/nginx.pid;
worker_processes 1;
events { worker_connections 512; }
http {
    access_log off;
    sendfile on;
    keepalive_requests 100000000;
    client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3; uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
    server { listen 127.0.0.1:$port; root $work/files; }
}
END
    start "nginx$1" nginx -c "$work/nginx.conf" -e "$work/nginx.error.log"
}
listening() { sed -nE 's,.*listening on ([^ ]+)$,\1,p' "$work/$1.log"; }
listens() { [ -n "$(listening "$1")" ]; }
# two_gateways NAME PORT PREFIX BETWEEN: sets $port.
two_gateways() {
    start "$1.far" "$spoke" gateway -v "$3$4" "tcp://127.0.0.1:$2"
    answers listens "$1.far" || fail "no gateway"
    start "$1.near" "$spoke" gateway -v tcp://127.0.0.1:0 "$3$(listening "$1.far")"
    answers listens "$1.near" || fail "no gateway"
    port=$(listening "$1.near")
    port=${port##*:}
}
# Two as quick as they can be told to be.
near_socat() {
    start "$1.near$2" socat -b 65536 "TCP-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork,nodelay,backlog=512" "UNIX-CONNECT:$work/$1.sock"
}
two_socats() {
    start "$1.socat" socat -b 65536 "UNIX-LISTEN:$work/$1.sock,fork,backlog=512" "TCP:127.0.0.1:$2,nodelay"
    answers test -S "$work/$1.sock" || fail "no socat"
    on_a_port "$3" near_socat "$1"
}

declare -A at
on_a_port redis_answers redis
at[redis.direct]=$port
nginx_files
on_a_port http_answers http
at[http.direct]=$port
for service in redis http; do
    two_gateways $service "${at[$service.direct]}" '' "shm://$work/$service.shm"
    at[$service.gateway]=$port
    two_gateways $service.mux "${at[$service.direct]}" mux+ tcp://127.0.0.1:0
    at[$service.mux]=$port
    two_socats $service "${at[$service.direct]}" "${service}_answers"
    at[$service.socat]=$port
done

# ---- measuring ----
# say WAY METRIC VALUE, VALUE as it is, in a line of its own.
say() {
    [ -n "$3" ] || fail "no figure for $2, $1"
    echo "$1 $2 $3" >>"$work/figures"
}
# redis_run WAY METRIC OPTION…: median latency in ms and requests a second of GET.
redis_run() {
    local way=$1 metric=$2 line
    shift 2
    line=$(redis-benchmark -p "${at[redis.$way]}" -t get -d 64 --precision 3 --csv "$@" 2>>"$work/redis.log" | grep '^"GET"' | tr -d '"')
    say "$way" "$metric-p50-ms" "$(cut -d, -f5 <<<"$line")"
    say "$way" "$metric-per-s" "$(cut -d, -f2 <<<"$line")"
}
# wrk_run WAY METRIC FILE CONNECTIONS
wrk_run() {
    local way=$1 metric=$2
    wrk --latency -t 1 -c "$4" -d "${seconds}s" "http://127.0.0.1:${at[http.$way]}/$3" >"$work/wrk.log" 2>&1 || fail "wrk"
    ! grep -E 'Socket errors|Non-2xx' "$work/wrk.log" || fail "wrk met errors over $way"
    say "$way" "$metric-p50-ms" "$(awk '$1 == "50%" { v = $2; f = v ~ /us$/ ? 0.001 : v ~ /ms$/ ? 1 : 1000; print v * f }' "$work/wrk.log")"
    say "$way" "$metric-per-s" "$(awk '/^Requests\/sec/ { print $2 }' "$work/wrk.log")"
}
one_round() {
    local way
    for way in $order; do redis_run "$way" redis-1-client -c 1 -n $((requests / 5)); done
    for way in $order; do redis_run "$way" redis-50-clients -c 50 -n "$requests"; done
    for way in $order; do redis_run "$way" redis-50-clients-16-at-once -c 50 -P 16 -n $((requests * 4)); done
    for way in $order; do wrk_run "$way" http-1K-16-connections 1K 16; done
    for way in $order; do wrk_run "$way" http-1M-4-connections 1M 4; done
}
order="direct gateway mux socat"
for round in $(seq "$rounds"); do
    echo "round $round of $rounds: $order" >&2
    one_round
    order="${order#* } ${order%% *}" # nobody is always the first
done

# ---- the table ----
echo "medians of $rounds rounds; latencies: less is better, per second: more is better"
awk '
function median(list,   values, n, i, j, t) {
    n = split(list, values, " ")
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && values[j - 1] + 0 > values[j] + 0; j--) { t = values[j]; values[j] = values[j - 1]; values[j - 1] = t }
    return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
}
function ratio(a, b) { return b > 0 ? sprintf("%.2f", a / b) : "-" }
{ if (!($2 in seen)) { seen[$2] = 1; order[++count] = $2 } all[$1, $2] = all[$1, $2] " " $3 }
END {
    printf "%-40s %10s %10s %10s %10s %15s %11s %13s %14s %10s\n", "", "direct", "gateway", "mux", "socat", "gateway/direct", "mux/direct", "socat/direct", "gateway/socat", "mux/socat"
    for (i = 1; i <= count; i++) {
        d = median(all["direct", order[i]]); g = median(all["gateway", order[i]]); m = median(all["mux", order[i]]); s = median(all["socat", order[i]])
        printf "%-40s %10g %10g %10g %10g %15s %11s %13s %14s %10s\n", order[i], d, g, m, s, ratio(g, d), ratio(m, d), ratio(s, d), ratio(g, s), ratio(m, s)
    }
}' "$work/figures"
