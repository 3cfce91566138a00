#!/usr/bin/env bash
# What clients notice of a rolling restart: three nodes of their own under load from 16 clients; every node is stopped in good
# order and started again, in turn, ROUNDS times. Prints the longest stall of a write for each stop, and fails if a write
# failed or was applied twice. Leaves nothing behind.
#
#   rolling-restart.sh [ROUNDS] [--nodes N]          [1, 3 nodes]
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

cargo build --release --locked --workspace --bins --example rolling_restart
exec "${CARGO_TARGET_DIR:-target}/release/examples/rolling_restart" "$@"
