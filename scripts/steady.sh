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
if (($# > 1)) || [[ ! $minutes =~ ^[1-9][0-9]{0,3}$ ]]; then
  sed -n '5s/^#   //p' "$0" >&2
  exit 2
fi
cargo build --release --locked -p member -p raft -p raft-client -p state-machine
bin=${CARGO_TARGET_DIR:-target}/release
export BIN=$bin DATA_DIR=target/steady PORT_BASE=${PORT_BASE:-22300}
[[ ! -e $DATA_DIR ]] || { echo "steady.sh: $DATA_DIR exists: another run is at it, or one was killed" >&2 && exit 1; }

clean_up() {
  scripts/cluster.sh down --wipe >/dev/null 2>&1 || true
  rm -rf "$DATA_DIR"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

scripts/cluster.sh up 3 >/dev/null
free=$(df --output=avail "$DATA_DIR" | tail -n 1)
"$bin/raft-client" bench --endpoints-file "$DATA_DIR/endpoints" --clients 256 --connections 8 --duration-s $((minutes * 60)) \
  --watch-term | tee "$DATA_DIR/text" || exit 1
echo "Disk used by the three nodes: $(((free - $(df --output=avail "$DATA_DIR" | tail -n 1)) / 1024)) MiB."
grep -q '^errors: none$' "$DATA_DIR/text" || { echo "steady.sh: requests failed" >&2 && exit 1; }
