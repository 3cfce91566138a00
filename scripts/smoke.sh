#!/usr/bin/env bash
# The first thing that a newcomer does, to the letter: three nodes up, a value in, the same value out through every node,
# and nothing left behind. Runs beside a developer's own cluster without touching it.
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

readonly value='peporoni peppr cheddar anchoves onn it'
work=$(mktemp -d)
export DATA_DIR=$work/data
export PORT_BASE=$((20000 + $$ % 1000 * 10))

clean_up() {
  scripts/cluster.sh down >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap clean_up EXIT

fail() {
  echo "smoke: $*" >&2
  tail -n 20 "$DATA_DIR"/node*/log/*.log >&2
  exit 1
}

expect() { # WANTED COMMAND…
  local wanted=$1 got
  shift
  got=$("$@") || fail "exit code $? of: $*"
  [[ $got == "$wanted" ]] || fail "$* printed '$got' instead of '$wanted'"
  echo "$* → $got"
}

# A process that ended but was not collected by its parent is no process any more.
is_left() { # PID
  if [[ -r /proc/self/stat ]]; then
    [[ -e /proc/$1/stat && $(<"/proc/$1/stat") != *') Z '* ]]
  else
    kill -0 "$1" 2>/dev/null
  fi
}

pids() {
  scripts/node.sh status "$DATA_DIR/node$1" | while read -r _ pid _; do echo "$pid"; done
}

scripts/cluster.sh up 3 || fail "the cluster did not come up"
client=$(<"$DATA_DIR/binaries")/raft-client
[[ $client == /* ]] || client=$PWD/$client
mapfile -t endpoints <"$DATA_DIR/endpoints"
mapfile -t pids < <(for node in 1 2 3; do pids "$node"; done)
((${#pids[@]} == 12)) || fail "12 processes should run, not ${#pids[@]}"

(
  # As typed by hand: the client finds data/endpoints by itself.
  cd "$work"
  # shellcheck disable=SC2086 # words, as typed
  expect "Success! Set \"pizzatoppings\" to: \"$value\"" "$client" PUT pizzatoppings $value
)
for endpoint in "${endpoints[@]}"; do
  expect "$value" "$client" --endpoints "$endpoint" GET pizzatoppings
done

if command -v curl >/dev/null; then
  expect "$value" curl -fsS "http://127.0.0.1:$((PORT_BASE + 13))/v1/kv/pizzatoppings"
fi

scripts/cluster.sh down
for pid in "${pids[@]}"; do
  ! is_left "$pid" 2>/dev/null || fail "process $pid is left"
done
echo "smoke: three nodes came up, agreed and went without a trace"
