#!/usr/bin/env bash
# How fast a cluster of three is on this machine, and beside what: all nodes and the load share its cores, fsync is on.
#
#   bench.sh [--against etcd] [--turns N] [--seconds N] [--quick]
#
# The systems take turns, each alone on the machine, on a fresh cluster: ours, etcd, ours, etcd… The load is made by the
# same harness (`raft-client bench`) at the leader of each, over one connection and over eight; the table shows, of each
# case, the number of connections with which etcd is faster, for both. Medians of all turns.
#
#   --against etcd   compare; without it only ours is measured
#   --turns N        [3]
#   --seconds N      how long each case is measured, after 2 s of warm-up [5]
#   --quick          one turn, 2 s each, fewer cases
#
# etcd is $ETCD, or the one in $PATH, or is taken from Debian's package without installing it. By environment:
#
#   PORT_BASE        first of 300 ports [22000]
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

readonly nodes=3 port_base=${PORT_BASE:-22000} warm_up_s=2
work=target/bench
data=$work/run
etcd_pids=()

fail() {
  echo "bench.sh: $*" >&2
  exit 1
}

usage() {
  sed -n '4,15s/^#   //p' "$0" >&2
  exit 2
}

check_number() { # TEXT
  [[ $1 =~ ^[1-9][0-9]{0,3}$ ]] || usage
}

against='' turns='' seconds='' quick=''
while (($# > 0)); do
  case $1 in
    --against) [[ ${2:-} == etcd ]] || usage && against=etcd && shift ;;
    --turns) turns=${2:-} && check_number "$turns" && shift ;;
    --seconds) seconds=${2:-} && check_number "$seconds" && shift ;;
    --quick) quick=1 ;;
    *) usage ;;
  esac
  shift
done
# Kind of request and number of clients.
if [[ -n $quick ]]; then
  cases=('put 1' 'put 64' 'put 256' 'get 64')
  turns=${turns:-1} seconds=${seconds:-2}
else
  cases=('put 1' 'put 16' 'put 64' 'put 256' 'put 1000' 'get 1' 'get 64' 'get 256')
  turns=${turns:-3} seconds=${seconds:-5}
fi
readonly against turns seconds cases

clean_up() {
  stop_etcd
  if [[ -e $data/ours ]] && ! DATA_DIR=$data/ours scripts/cluster.sh down >/dev/null; then
    echo "bench.sh: processes are left; see $data/ours" >&2
    return
  fi
  rm -rf "$data"
}

# --- Our cluster ------------------------------------------------------------------------------------------------------

build() {
  cargo build --release --locked -p member -p raft -p raft-client -p state-machine
  [[ -z $against ]] || cargo build --release --locked --manifest-path scripts/etcd-bench/Cargo.toml --target-dir "$target"
}

start_ours() {
  DATA_DIR=$data/ours PORT_BASE=$port_base BIN=$bin scripts/cluster.sh up $nodes >"$data/up.log" 2>&1 ||
    fail "our cluster did not start: $(<"$data/up.log")"
}

stop_ours() {
  DATA_DIR=$data/ours scripts/cluster.sh down --wipe >/dev/null
}

# The three programs of each node; not the shell that supervises them, which sleeps.
pids_of_ours() {
  local file pid
  for file in "$data"/ours/node*/run/{member,state-machine,raft}.pid; do
    read -r pid _ <"$file" && echo "$pid"
  done
}

load_ours() { # FLAGS…
  "$bin/raft-client" --output json bench --endpoints-file "$data/ours/endpoints" "$@"
}

# --- etcd -------------------------------------------------------------------------------------------------------------

# Prints the path of the program.
find_etcd() {
  local cache=$work/etcd
  if [[ -n ${ETCD:-} ]]; then
    echo "$ETCD"
  elif command -v etcd; then
    :
  else
    if [[ ! -x $cache/usr/bin/etcd ]]; then
      echo "Getting etcd from Debian's package into $cache…" >&2
      mkdir -p "$cache"
      (cd "$cache" && apt-get download etcd-server >download.log 2>&1 && dpkg -x etcd-server_*.deb .) ||
        fail "no etcd, and its package cannot be had (see $cache/download.log; perhaps apt-get update helps).
Install etcd, or set ETCD to the path of the program"
    fi
    echo "$cache/usr/bin/etcd"
  fi
}

client_address() { # NODE
  echo "127.0.0.1:$((port_base + 100 + $1))"
}

peer_url() { # NODE
  echo "http://127.0.0.1:$((port_base + 200 + $1))"
}

etcd_endpoints() {
  local node list=''
  for ((node = 1; node <= nodes; node++)); do list+=,$(client_address $node); done
  echo "${list#,}"
}

# With the defaults of etcd in all that matters here.
start_etcd() {
  local node cluster='' url
  for ((node = 1; node <= nodes; node++)); do cluster+=,node$node=$(peer_url $node); done
  for ((node = 1; node <= nodes; node++)); do
    url=http://$(client_address $node)
    mkdir -p "$data/etcd"
    "$etcd" --name node$node --data-dir "$data/etcd/node$node" --initial-cluster "${cluster#,}" \
      --initial-cluster-token "bench$$" --initial-cluster-state new \
      --listen-client-urls "$url" --advertise-client-urls "$url" \
      --listen-peer-urls "$(peer_url $node)" --initial-advertise-peer-urls "$(peer_url $node)" \
      --logger zap --log-level error </dev/null >"$data/etcd/node$node.log" 2>&1 &
    etcd_pids+=($!)
  done
  # It waits for a leader.
  load_etcd --clients 1 --operations 10 --warm-up-s 0 >"$data/up.log" 2>&1 ||
    fail "etcd did not start: $(tail -n 5 "$data"/up.log "$data"/etcd/*.log)"
}

stop_etcd() {
  local pid
  for pid in "${etcd_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${etcd_pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  etcd_pids=()
  rm -rf "$data/etcd"
}

pids_of_etcd() {
  printf '%s\n' "${etcd_pids[@]}"
}

load_etcd() { # FLAGS…
  "$bin/etcd-bench" --endpoints "$(etcd_endpoints)" "$@"
}

# --- Measuring --------------------------------------------------------------------------------------------------------

# CPU time that these processes have used, in ticks.
ticks() { # PID…
  local pid stat fields sum=0
  for pid in "$@"; do
    read -r stat <"/proc/$pid/stat" || exit 1
    read -ra fields <<<"${stat##*) }"
    sum=$((sum + fields[11] + fields[12]))
  done
  echo "$sum"
}

resident_kib() { # PID…
  local pid name kib rest sum=0
  for pid in "$@"; do
    while read -r name kib rest; do
      [[ $name != VmRSS: ]] || sum=$((sum + kib))
    done <"/proc/$pid/status" || exit 1
  done
  echo "$sum"
}

# Prints the number of that name within the object of the other name, or, with one name, at the top.
pick() { # JSON NAME [OBJECT]
  local pattern="\"$2\":([0-9.]+)"
  [[ -z ${3:-} ]] || pattern="\"$3\":\\{[^}]*$pattern"
  [[ $1 =~ $pattern ]] || fail "no $2 in what the load printed: $1"
  echo "${BASH_REMATCH[1]}"
}

# Runs one case and notes it: system, kind, clients, connections, requests/s, p50, p99 (µs), server CPU and CPU of the
# load per request (µs), errors.
measure() { # SYSTEM KIND CLIENTS CONNECTIONS
  local system=$1 kind=$2 json before after cpu_us load_us total per_s p50_us p99_us errors share=0
  local -a pids
  mapfile -t pids < <("pids_of_$system")
  [[ $kind == put ]] || share=1
  before=$(ticks "${pids[@]}")
  # shellcheck disable=SC2034 # bash reads it
  local TIMEFORMAT='%U %S'
  { time "load_$system" --clients "$3" --connections "$4" --read-share "$share" --warm-up-s $warm_up_s \
    --duration-s "$seconds" >"$data/json" 2>"$data/load.log"; } 2>"$data/time" ||
    fail "the load on $system failed: $(cat "$data/load.log" "$data/json")"
  after=$(ticks "${pids[@]}")
  json=$(<"$data/json")
  total=$(pick "$json" total_operations)
  errors=$(pick "$json" error_count)
  per_s=$(pick "$json" per_s "${kind}s")
  p50_us=$(pick "$json" p50_us "${kind}s")
  p99_us=$(pick "$json" p99_us "${kind}s")
  cpu_us=$(((after - before) * 1000000 / ticks_per_s / total))
  load_us=$(awk -v n="$total" '{ printf "%d", ($1 + $2) * 1e6 / n }' "$data/time")
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$system" "$kind" "$3" "$4" "$per_s" "$p50_us" "$p99_us" \
    "$cpu_us" "$load_us" "$errors" >>"$data/results"
  tail -n 1 "$data/results" |
    awk -F'\t' '{ printf "  %-4s %s %4d clients, %d connections: %8.0f/s, p50 %7.3f ms, p99 %8.3f ms, %d errors\n",
                  $1, $2, $3, $4, $5, $6 / 1000, $7 / 1000, $10 }'
}

take_turn() { # SYSTEM
  local case kind clients connections kib
  local -a pids
  "start_$1"
  for case in "${cases[@]}"; do
    read -r kind clients <<<"$case"
    for connections in 1 8; do
      ((clients >= connections)) || continue
      measure "$1" "$kind" "$clients" "$connections"
    done
  done
  mapfile -t pids < <("pids_of_$1")
  kib=$(resident_kib "${pids[@]}")
  printf '%s\t%s\n' "$1" "$kib" >>"$data/resident"
  "stop_$1"
  # What is left to write of one system must not slow the other down.
  sync
}

# --- The table --------------------------------------------------------------------------------------------------------

machine() {
  local model
  model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
  echo "$(nproc) cores (${model:-$(uname -m)}), Linux $(uname -r), $(df --output=fstype target | tail -n 1)"
}

table() {
  awk -F'\t' -v against="$against" -v cases="$(printf '%s,' "${cases[@]}")" '
    function median(list, n, parts, i, j, t) {
      n = split(list, parts, " ")
      for (i = 2; i <= n; i++)
        for (j = i; j > 1 && parts[j - 1] + 0 > parts[j] + 0; j--) { t = parts[j]; parts[j] = parts[j - 1]; parts[j - 1] = t }
      return n % 2 ? parts[(n + 1) / 2] + 0 : (parts[n / 2] + parts[n / 2 + 1]) / 2
    }
    function of(who, kind, clients, connections, what) { return median(seen[who, kind, clients, connections, what]) }
    FILENAME ~ /resident$/ { resident[$1] = resident[$1] " " $2; next }
    {
      for (i = 5; i <= 9; i++) seen[$1, $2, $3, $4, i] = seen[$1, $2, $3, $4, i] " " $i
      errors[$1] += $10
    }
    END {
      if (against) {
        print "| | clients | connections | etcd /s | ours /s | ratio | etcd p50, p99 ms | ours p50, p99 ms | p50 ratio | etcd CPU µs | ours | ratio |"
        print "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
      } else {
        print "| | clients | connections | ours /s | p50, p99 ms | CPU µs |"
        print "|---|---:|---:|---:|---:|---:|"
      }
      n = split(cases, list, ",")
      for (c = 1; c < n; c++) {
        split(list[c], it, " ")
        kind = it[1]; clients = it[2]
        suited = against ? "etcd" : "ours"
        at = 1
        if (clients >= 8 && of(suited, kind, clients, 8, 5) > of(suited, kind, clients, 1, 5)) at = 8
        for (i = 5; i <= 9; i++) { o[i] = of("ours", kind, clients, at, i); e[i] = of("etcd", kind, clients, at, i) }
        if (kind == "put") last = sprintf("%d clients: %.0f µs", clients, o[9]) (against ? sprintf(" (etcd: %.0f µs)", e[9]) : "")
        if (!against) {
          cpu = kind == "put" ? sprintf("%.0f", o[8]) : ""
          printf "| %s | %d | %d | %.0f | %.2f, %.2f | %s |\n", kind, clients, at, o[5], o[6] / 1000, o[7] / 1000, cpu
          continue
        }
        cpu = kind == "put" ? sprintf("%.0f | %.0f | %.2f", e[8], o[8], o[8] / e[8]) : " | | "
        printf "| %s | %d | %d | %.0f | %.0f | **%.2f** | %.2f, %.2f | %.2f, %.2f | %.2f | %s |\n", kind, clients, at,
          e[5], o[5], o[5] / e[5], e[6] / 1000, e[7] / 1000, o[6] / 1000, o[7] / 1000, o[6] / e[6], cpu
      }
      print ""
      print "CPU is of all server processes, per put; the load itself used per put, at " last "."
      printf "Resident memory of all processes at the end of a turn: ours %.0f MiB", median(resident["ours"]) / 1024
      if (against) printf ", etcd %.0f MiB, ratio %.2f", median(resident["etcd"]) / 1024, median(resident["ours"]) / median(resident["etcd"])
      print "."
      printf "Failed requests: ours %d", errors["ours"]
      if (against) printf ", etcd %d", errors["etcd"]
      print "."
    }' "$data/resident" "$data/results"
}

main() {
  local turn load
  read -r load _ </proc/loadavg
  build
  for ((turn = 1; turn <= turns; turn++)); do
    echo "Turn $turn of $turns: ours"
    take_turn ours
    [[ -n $against ]] || continue
    echo "Turn $turn of $turns: etcd"
    take_turn etcd
  done
  echo
  echo "Values of 16 bytes; $nodes nodes and the load on $(machine); load average before: $load."
  echo "Ours: $("$bin/raft-client" --version)${against:+; etcd: $("$etcd" --version | head -n 1)}. Medians of the turns: $turns, $seconds s each."
  echo
  table
}

[[ -e /proc/self/stat ]] || fail "this needs Linux: it reads /proc"
target=${CARGO_TARGET_DIR:-target}
bin=$target/release
ticks_per_s=$(getconf CLK_TCK)
etcd=''
[[ ! -e $data ]] || fail "$data exists: another run is at it, or one was killed and left its processes; end them and remove it"
mkdir -p "$data"
trap clean_up EXIT
trap 'exit 130' INT TERM
[[ -z $against ]] || etcd=$(find_etcd)
main
