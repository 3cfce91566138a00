#!/usr/bin/env bash
# How long writes pause when a leader dies: three nodes of their own under load from 16 clients; kill -9 of the leader's
# raft ROUNDS times, each time started again after 100 ms. Prints each pause and their distribution, and fails if an
# acknowledged command is missing or was applied twice. Leaves nothing behind.
#
#   failover.sh [ROUNDS]          [20]
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

cargo build --release --locked --workspace --bins --example failover
exec "${CARGO_TARGET_DIR:-target}/release/examples/failover" "$@"
