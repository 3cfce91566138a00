#!/usr/bin/env bash
# Whole clusters in simulated worlds, each from its seed: as many as fit into the time. Prints what went wrong and what was seen; red
# when an invariant did not hold, and when too little happened to believe in.
#
#   scripts/simulate.sh --minutes 10        the floor of a release: 50 cluster-hours, 500 seeds on two cores
#   scripts/simulate.sh --seeds 300         for every commit
set -euo pipefail
cd "$(dirname "$0")/.."

floors=()
if [[ ${1:-} == --minutes && ${2:-0} -gt 0 ]]; then
  floors=(--floor-hours $((5 * $2)) --floor-seeds $((50 * $2)))
fi
exec cargo run --quiet --release --locked -p proof --bin simulate -- "${floors[@]}" "$@"
