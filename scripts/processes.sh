#!/usr/bin/env bash
# Whole processes as libraries in a simulated network.
#
#   scripts/processes.sh                          every scenario, and 20 seeds of chaos
#   scripts/processes.sh SEEDS [FIRST [SECONDS]]  chaos alone: so many seeds, from this one, with faults for so many simulated seconds
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

# The programs must not come near the simulated network.
if cargo tree --locked -p raft -p member -p state-machine -p raft-client -e normal --prefix none | grep '^turmoil '; then
  echo 'scripts/processes.sh: the programs depend on a simulated network' >&2
  exit 1
fi

run() { # ARGUMENTS OF THE TESTS…
  cargo test --manifest-path proof/processes/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}" --locked -- "$@"
}

if (($# == 0)); then
  run
else
  SEEDS=$1 FIRST_SEED=${2:-1} SIMULATED_SECONDS=${3:-60} run chaos --nocapture
fi
