#!/usr/bin/env bash
# Whether the tests notice bugs that real systems had, put into a copy of the sources one at a time (proof/mutants.toml).
#
#   mutants.sh [NAME…]           those, or all of them and then docs/mutants.md: the named test and random seeds
#   mutants.sh --ci              a few of them, with seeds that are known to find them
#   mutants.sh --check           only whether the list still fits the sources
#
# By environment: SEEDS_MINUTES, how long random seeds may take for one mutant [10]
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

mutants=(cargo run --quiet --locked --bin mutants --)
case ${1:-} in
  --ci) exec "${mutants[@]}" ci ;;
  --check) exec "${mutants[@]}" check ;;
  -*) sed -n '4,6s/^#   //p' "$0" >&2 && exit 2 ;;
  *) exec "${mutants[@]}" run --seeds-seconds "$((60 * ${SEEDS_MINUTES:-10}))" "$@" ;;
esac
