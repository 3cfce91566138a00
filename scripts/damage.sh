#!/usr/bin/env bash
# Power cuts and flipped bits over a node's directory, more of them than the gate tries.
#
#   scripts/damage.sh [IMAGES [FLIPS]]   1,000,000 crash images and 500,000 flipped bits
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

images=${1:-1000000} flips=${2:-500000}
if (($# > 2)) || [[ ! $images$flips =~ ^[0-9]+$ ]]; then
  sed -n '4s/^#   //p' "$0" >&2
  exit 2
fi
export DAMAGE_IMAGES=$images DAMAGE_FLIPS=$flips
cargo test --release --locked -p raft --test damage -- --nocapture
