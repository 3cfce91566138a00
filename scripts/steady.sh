#!/usr/bin/env bash
# Whether the default timings hold under full load: a fresh cluster of three under 256 clients for MINUTES, on one
# machine with the load. Fails if there was an election, or if a request failed. Leaves nothing behind.
#
#   steady.sh [MINUTES]          [10]
#
# By environment: PORT_BASE, first of 30 ports [22300]
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

minutes=${1:-10}
if (($# > 1)) || [[ ! $minutes =~ ^[1-9][0-9]{0,3}$ ]] || ((minutes > 1440)); then
  sed -n '5s/^#   //p' "$0" >&2
  exit 2
fi
cargo build --release --locked -p member -p raft -p raft-client -p state-machine
bin=${CARGO_TARGET_DIR:-target}/release
export BIN=$bin DATA_DIR=target/steady PORT_BASE=${PORT_BASE:-22300}
[[ ! -e $DATA_DIR ]] || { echo "steady.sh: $DATA_DIR exists: another run is at it, or one was killed" >&2 && exit 1; }

clean_up() {
  if [[ -n $load ]]; then kill "$load" 2>/dev/null || true; fi
  if ! scripts/cluster.sh down --wipe >/dev/null; then
    echo "steady.sh: processes are left; see $DATA_DIR" >&2
    return
  fi
  rm -rf "$DATA_DIR"
}
load=
trap clean_up EXIT
trap 'exit 130' INT TERM

scripts/cluster.sh up 3 >/dev/null
free=$(df --output=avail "$DATA_DIR" | tail -n 1)
# In the background: a signal to this script is acted upon at once then.
"$bin/raft-client" bench --endpoints-file "$DATA_DIR/endpoints" --clients 256 --connections 8 --duration-s $((minutes * 60)) \
  --watch-term >"$DATA_DIR/text" &
load=$!
held=0
wait "$load" || held=$?
load=
cat "$DATA_DIR/text"
((held == 0)) || exit 1
echo "Disk used by the three nodes: $(((free - $(df --output=avail "$DATA_DIR" | tail -n 1)) / 1024)) MiB."
grep -q '^errors: none$' "$DATA_DIR/text" || { echo "steady.sh: requests failed" >&2 && exit 1; }
