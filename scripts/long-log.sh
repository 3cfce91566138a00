#!/usr/bin/env bash
# Whether the log stays small: a fresh cluster of three under load until ENTRIES commands are in its log. Prints what every
# process takes of disk and memory as it goes, how long a raft takes to come back after a tenth and at the end, and how long a
# new node takes to come in at the end, which it must do by a snapshot. Fails when a bound is passed. Leaves nothing behind.
#
#   long-log.sh [ENTRIES]          [2000000]
#
# By environment:
#
#   CLIENTS              clients of the load [64]
#   MOST_RAFT_DISK_MIB   bound for the files of one raft: log, snapshots and what is in the making [250]
#   MOST_RAFT_MIB        bound for the memory of one raft [150]
#   MOST_MACHINE_MIB     bound for the memory of one state machine [200]
#   PORT_BASE            first of 40 ports [22400]
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

fail() {
  echo "long-log.sh: $*" >&2
  exit 1
}

entries=${1:-2000000} clients=${CLIENTS:-64}
if (($# > 1)) || [[ ! $entries =~ ^[1-9][0-9]{3,9}$ ]]; then
  sed -n '6s/^#   //p' "$0" >&2
  exit 2
fi
readonly most_disk=${MOST_RAFT_DISK_MIB:-250} most_raft=${MOST_RAFT_MIB:-150} most_machine=${MOST_MACHINE_MIB:-200}
cargo build --release --locked -p member -p raft -p raft-client -p state-machine
bin=${CARGO_TARGET_DIR:-target}/release
export BIN=$bin DATA_DIR=target/long-log PORT_BASE=${PORT_BASE:-22400}
# Small, so that there are many snapshots.
export OUTRIGGER_SNAPSHOT_FLOOR_MIB=32 OUTRIGGER_KEEP_TRAILING_MIB=8 OUTRIGGER_SEGMENT_MIB=16 OUTRIGGER_LOG_CACHE_MIB=16
[[ ! -e $DATA_DIR ]] || fail "$DATA_DIR exists: another run is at it, or one was killed"

load=
clean_up() {
  [[ -z $load ]] || kill "$load" 2>/dev/null || true
  if ! scripts/cluster.sh down --wipe >/dev/null; then
    echo "long-log.sh: processes are left; see $DATA_DIR" >&2
    return
  fi
  rm -rf "$DATA_DIR"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# --- Looking at nodes -------------------------------------------------------------------------------------------------

address() { # NODE
  echo "127.0.0.1:$((PORT_BASE + 10 * ($1 - 1) + 4))"
}

# Prints a field of a node's status, or nothing.
status_of() { # NODE FIELD
  local json
  json=$("$bin/raft-client" --output json --endpoints "$(address "$1")" --no-forward --timeout-ms 500 status 2>/dev/null) || return 0
  [[ $json =~ \"$2\":\"?([^,\"\}]*) ]] && echo "${BASH_REMATCH[1]}"
}

mib_on_disk() { # DIR
  local kib rest
  read -r kib rest < <(du -sk "$1")
  echo $((kib / 1024))
}

mib_in_memory() { # NODE PROCESS
  local pid rest name kib
  read -r pid rest <"$DATA_DIR/node$1/run/$2.pid" || return 0
  while read -r name kib rest; do
    [[ $name != VmRSS: ]] || echo $((kib / 1024))
  done <"/proc/$pid/status"
}

# Prints one line of the series; fails when a bound is passed.
look() {
  local node disk machine_disk raft machine line
  printf -v line '%5d s' "$SECONDS"
  for node in 1 2 3; do
    disk=$(mib_on_disk "$DATA_DIR/node$node/raft")
    machine_disk=$(mib_on_disk "$DATA_DIR/node$node/machine")
    raft=$(mib_in_memory $node raft) machine=$(mib_in_memory $node state-machine)
    line+=$(printf ' | node %d: entries %s-%s, raft %d MiB on disk, %d in memory; machine %d, %d' $node \
      "$(status_of $node first_index)" "$(status_of $node last_index)" "$disk" "$raft" "$machine_disk" "$machine")
    ((disk <= most_disk)) || fail "the raft of node $node takes $disk MiB on disk, more than $most_disk"
    ((raft <= most_raft)) || fail "the raft of node $node takes $raft MiB of memory, more than $most_raft"
    ((machine <= most_machine)) || fail "the machine of node $node takes $machine MiB of memory, more than $most_machine"
  done
  echo "$line"
}

# --- Steps ------------------------------------------------------------------------------------------------------------

load() { # OPERATIONS
  "$bin/raft-client" bench --endpoints-file "$DATA_DIR/endpoints" --clients "$clients" --connections 4 --warm-up-s 0 \
    --key-count 100000 --operations "$1" >"$DATA_DIR/load.log" 2>&1 &
  load=$!
  while kill -0 "$load" 2>/dev/null; do
    look
    sleep 2
  done
  wait "$load" || fail "the load failed: $(<"$DATA_DIR/load.log")"
  load=
}

now_ms() {
  echo "$((${EPOCHREALTIME/./} / 1000))"
}

# Sets took_ms: how long until NODE has applied everything up to INDEX, from BEGUN_MS on.
await_applied() { # NODE INDEX BEGUN_MS
  local applied
  until applied=$(status_of "$1" applied_index) && ((${applied:-0} >= $2)); do
    (($(now_ms) - $3 < 120000)) || fail "node $1 has applied ${applied:-nothing} of $2 after two minutes"
    sleep 0.02
  done
  took_ms=$(($(now_ms) - $3))
}

# How long the raft of node 2 takes from its start until it has applied everything again; the best of three.
restart() {
  local turn last begun
  restart_ms=
  for turn in 1 2 3; do
    last=$(status_of 2 commit_index)
    scripts/cluster.sh stop 2 raft >/dev/null
    begun=$(now_ms)
    WAIT_S=120 scripts/cluster.sh start 2 raft >/dev/null
    await_applied 2 "$last" "$begun"
    [[ -n $restart_ms ]] && ((restart_ms <= took_ms)) || restart_ms=$took_ms
  done
}

scripts/cluster.sh up 3 >/dev/null
load $((entries / 10))
restart
early_ms=$restart_ms
echo "Restart after a tenth: $early_ms ms, node 2 holds entries $(status_of 2 first_index)-$(status_of 2 last_index)."
load $((entries - entries / 10))
restart
echo "Restart at the end: $restart_ms ms, node 2 holds entries $(status_of 2 first_index)-$(status_of 2 last_index)."

last=$(status_of 1 commit_index)
begun=$(now_ms)
scripts/cluster.sh start 4 >/dev/null
await_applied 4 "$last" "$begun"
snapshot=$(status_of 4 snapshot_index)
((snapshot > 0)) || fail "node 4 came in without a snapshot"
echo "A fourth node has everything after $took_ms ms: a snapshot up to entry $snapshot and the log from entry $(status_of 4 first_index)."
# Twice and half a second: this machine's clocks are noisy; a log that grows makes it ten times.
((restart_ms <= 2 * early_ms + 500)) || fail "restarts have become slower: $early_ms ms, then $restart_ms ms"
