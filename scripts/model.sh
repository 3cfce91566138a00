#!/usr/bin/env bash
# Follows every course of larger worlds than the tests do: minutes to hours, and gigabytes of memory. Prints for each how many
# states there were, how deep they lie, and whether those were all; fails with the shortest course that violates a property.
#
#   scripts/model.sh                      the worlds below, ten minutes each at most
#   scripts/model.sh SECONDS [WORLD…]     for so long each, and perhaps these instead, each in quotes
#
# A world is words: `cold` (nobody leads yet) or `led`, and what may happen at most, such as
#   "led terms=4 campaigns=2 proposals=2 reads=1 crashes=1 copies=1 ticks=1 changes=1"
#
# Built as tests are: the core checks its own state after each step.
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

readonly seconds=${1:-600}
shift || true
worlds=("$@")
if ((${#worlds[@]} == 0)); then
  worlds=(
    "cold terms=3 campaigns=2 crashes=1"
    "cold terms=3 campaigns=3"
    "led terms=3 campaigns=2 proposals=2"
    "led terms=3 campaigns=2 proposals=1 crashes=1"
    "led terms=3 campaigns=2 proposals=1 copies=1"
    "led terms=3 campaigns=2 proposals=1 reads=1 ticks=1"
    "led terms=3 campaigns=2 changes=1"
  )
fi

MODEL_WORLDS=$(printf '%s;' "${worlds[@]}") MODEL_SECONDS=$seconds \
  cargo test --locked -p proof --test model -- --exact --nocapture worlds_of_ones_own
