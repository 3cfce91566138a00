#!/usr/bin/env bash
# A hundred members in one seeded network, ours and foca's: prints the tables of docs/gossip.md.
#
#   scripts/gossip-world.sh [HOURS]     member hours for each row of false deaths; 400 without it
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

hours=${1:-400}
if [[ ! $hours =~ ^[1-9][0-9]*$ ]]; then
  sed -n '4s/^#   //p' "$0" >&2
  exit 2
fi

output=$(mktemp)
trap 'rm -f "$output"' EXIT
echo "Building, then simulating $hours member hours a row: some minutes…" >&2
status=0
MEASURE_HOURS=$hours cargo test --release --locked --package member --test yardstick -- --nocapture \
  >"$output" 2>&1 || status=$?

# Tests run beside each other: a row may follow a test's name on its line.
table() { # HEADING
  local columns=${1//[^|]/}
  printf '\n%s\n%s\n' "$1" "${columns//|/|---}" | sed 's/---$//'
  grep -o '|.*|' "$output" | awk -F'|' -v bars="${#columns}" 'NF == bars + 1' | sort -s -t'|' -k2,2 || true
}

table '| world | system | member hours | false deaths | per member hour | false beliefs per member hour | right deaths | datagrams/s | bytes/s | mended after, s |'
table '| loss | system | deaths | first knows, s: min / median / max | all know, s: min / median / max |'
table '| cut | system | until all was buried, s | merged after, s |'
if ((status != 0)); then
  grep -A3 panicked "$output" >&2 || tail -20 "$output" >&2
fi
exit "$status"
