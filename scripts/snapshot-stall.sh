#!/usr/bin/env bash
# What clients notice of snapshots: a fresh cluster of three that holds MIB of data, under load from 16 clients. In turns: without
# anything else, while the leader takes a snapshot, while a new node is sent one, and while that node's machine loads it (on this
# machine, so it takes from all). Prints the latencies of each, medians of the turns, and fails when a slow write (p99.9) is
# more than twice as slow as without, or when a write failed. Leaves nothing behind.
#
#   snapshot-stall.sh [MIB] [TURNS]          [512, 3]
#
# By environment: SECONDS_EACH, length of a measurement [6]; PORT_BASE, first of 80 ports [22500]
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

fail() {
  echo "snapshot-stall.sh: $*" >&2
  exit 1
}

mib=${1:-512} turns=${2:-3} each=${SECONDS_EACH:-6}
if (($# > 2)) || [[ ! $mib =~ ^[1-9][0-9]{0,4}$ || ! $turns =~ ^[1-4]$ || ! $each =~ ^[1-9][0-9]?$ ]]; then
  sed -n '8s/^#   //p' "$0" >&2
  exit 2
fi
readonly mib turns each
command -v curl >/dev/null || fail "this needs curl"
cargo build --release --locked -p member -p raft -p raft-client -p state-machine
bin=${CARGO_TARGET_DIR:-target}/release
export BIN=$bin DATA_DIR=target/snapshot-stall PORT_BASE=${PORT_BASE:-22500}
# Only those that are ordered.
export OUTRIGGER_SNAPSHOT_FLOOR_MIB=65536
[[ ! -e $DATA_DIR ]] || fail "$DATA_DIR exists: another run is at it, or one was killed"

other=
clean_up() {
  [[ -z $other ]] || kill "$other" 2>/dev/null || true
  if ! scripts/cluster.sh down --wipe >/dev/null; then
    echo "snapshot-stall.sh: processes are left; see $DATA_DIR" >&2
    return
  fi
  rm -rf "$DATA_DIR"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

client() {
  "$bin/raft-client" --output json --endpoints-file "$DATA_DIR/endpoints" "$@"
}

# Prints a number of a JSON text.
pick() { # JSON NAME
  [[ $1 =~ \"$2\":\"?([0-9a-f.]+) ]] || fail "no $2 in $1"
  echo "${BASH_REMATCH[1]}"
}

leader_id() {
  local json
  json=$(client status)
  [[ $json =~ \"leader\":\{[^\}]*\"id\":\"([0-9a-f]+)\" ]] || fail "no leader in $json"
  echo "${BASH_REMATCH[1]}"
}

# Measures writes while OTHER, a job, runs or not; notes p50, p99, p99.9 and the slowest in results.
measure() { # NAME
  local json
  json=$(client bench --clients 16 --connections 4 --value-bytes 16 --key-count 1000 --warm-up-s 1 --duration-s "$each")
  [[ $(pick "$json" error_count) == 0 ]] || fail "writes failed: $json"
  [[ $json =~ \"puts\":\{([^\}]*)\} ]] || fail "no puts in $json"
  local puts=${BASH_REMATCH[1]}
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$(pick "$puts" per_s)" "$(pick "$puts" p50_us)" "$(pick "$puts" p99_us)" \
    "$(pick "$puts" p99_9_us)" "$(pick "$puts" max_us)" | tee -a "$DATA_DIR/results"
}

wait_other() { # WHAT
  wait "$other" || fail "$1 failed: $(<"$DATA_DIR/other.log")"
  other=
}

# Waits until a new node is being sent a snapshot.
await_receiving() { # NODE
  local deadline=$((SECONDS + 60))
  until [[ -s $DATA_DIR/node$1/raft/snapshots/incoming.part ]]; do
    ((SECONDS < deadline)) || fail "node $1 is sent no snapshot"
    sleep 0.02
  done
}

await_installed() { # NODE
  local deadline=$((SECONDS + 240))
  until compgen -G "$DATA_DIR/node$1/raft/snapshots/*.snapshot" >/dev/null; do
    ((SECONDS < deadline)) || fail "node $1 has no snapshot"
    sleep 0.02
  done
}

# Says so if what was to be measured beside the load was over before the load.
note_over() { # WHAT COMMAND…
  local what=$1
  shift
  if "$@"; then echo "  note: $what was over before the measurement was"; fi
}

has_snapshot() { compgen -G "$DATA_DIR/node$1/raft/snapshots/*.snapshot" >/dev/null; }
has_ended() { ! kill -0 "$1" 2>/dev/null; }

is_restored() { # NODE
  [[ $(client --endpoints "127.0.0.1:$((PORT_BASE + 10 * ($1 - 1) + 4))" status 2>/dev/null) =~ \"state_machine\":\"attached ]]
}

# Clock ticks that the processes of all nodes have used.
used_ticks() {
  local file pid stat sum=0
  for file in "$DATA_DIR"/node*/run/*.pid; do
    read -r pid _ <"$file" && read -r stat 2>/dev/null <"/proc/$pid/stat" || continue
    # shellcheck disable=SC2086 # fields
    set -- ${stat##*) }
    sum=$((sum + ${12} + ${13}))
  done
  echo "$sum"
}

# What the fill or the turn before left to do behind the scenes is not to be measured: waits until the cluster uses less than a
# tenth of a processor for a second.
settle() {
  local deadline=$((SECONDS + 120)) before now
  before=$(used_ticks)
  while sleep 1 && now=$(used_ticks) && ((now - before > 10)); do
    ((SECONDS < deadline)) || fail "the cluster does not come to rest"
    before=$now
  done
}

scripts/cluster.sh up 3 >/dev/null
echo "Filling $mib MiB…"
head -c 1000000 /dev/urandom >"$DATA_DIR/value"
for ((key = 1; key <= mib * 1048576 / 1000000; key++)); do
  echo "url = http://127.0.0.1:$((PORT_BASE + 3))/v1/kv/data/$key"
  echo "upload-file = $DATA_DIR/value"
  echo 'output = /dev/null'
done >"$DATA_DIR/fill"
curl --silent --show-error --fail --config "$DATA_DIR/fill" || fail "the cluster cannot be filled"
client snapshot "$(leader_id)" >/dev/null
printf 'what\tputs/s\tp50 µs\tp99 µs\tp99.9 µs\tslowest µs\n'
for ((turn = 1; turn <= turns; turn++)); do
  settle
  measure 'nothing else'
  settle
  client snapshot "$(leader_id)" >"$DATA_DIR/other.log" 2>&1 &
  other=$!
  measure 'a snapshot of the leader'
  note_over 'the snapshot' has_ended "$other"
  wait_other "the snapshot"
  settle
  node=$((3 + turn))
  scripts/cluster.sh start $node >"$DATA_DIR/other.log" 2>&1 &
  other=$!
  await_receiving $node
  measure 'an install'
  note_over 'the transfer' has_snapshot $node
  await_installed $node
  measure 'a restore'
  note_over 'the restore' is_restored $node
  wait_other "the start of node $node"
  scripts/cluster.sh stop $node >/dev/null
done
awk -F'\t' -v turns="$turns" '
  function median(name, field, list, n, i, j, t) {
    n = 0
    for (i = 1; i <= rows; i++) if (row[i, 1] == name) list[++n] = row[i, field]
    for (i = 2; i <= n; i++) for (j = i; j > 1 && list[j - 1] + 0 > list[j] + 0; j--) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t }
    return (list[int((n + 1) / 2)] + list[int(n / 2) + 1]) / 2
  }
  function most(name, i, m) { m = 0; for (i = 1; i <= rows; i++) if (row[i, 1] == name && row[i, 6] > m) m = row[i, 6]; return m }
  { rows++; for (i = 1; i <= 6; i++) row[rows, i] = $i }
  END {
    print "\n| beside the load | puts/s | p50 ms | p99 ms | p99.9 ms | ratio | slowest ms |"
    print "|---|---:|---:|---:|---:|---:|---:|"
    calm = median("nothing else", 5)
    n = split("nothing else,a snapshot of the leader,an install,a restore", names, ",")
    for (k = 1; k <= n; k++) {
      ratio = median(names[k], 5) / calm
      printf "| %s | %.0f | %.2f | %.2f | %.2f | %.2f | %.1f |\n", names[k], median(names[k], 2), median(names[k], 3) / 1000,
        median(names[k], 4) / 1000, median(names[k], 5) / 1000, ratio, most(names[k]) / 1000
      if (ratio > 2) slow = slow " " names[k] ";"
    }
    if (slow) { print "p99.9 is more than doubled by:" slow; exit 1 }
  }' "$DATA_DIR/results"
