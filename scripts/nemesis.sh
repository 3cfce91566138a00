#!/usr/bin/env bash
# Faults on a cluster of real processes on this machine, under clients whose histories are checked.
#
#   nemesis.sh [SECONDS [SEED [FAULT…]]]     one run: 60 s, a seed by the clock, all faults that are possible here
#   nemesis.sh --ci                          three runs of 60 s with seeds 1, 2 and 3, the last one as with NO_CLOCK
#   nemesis.sh --list                        what can go wrong
#
# For root, where namespaces are allowed, each node gets a network of its own, and one a small disk; they end with the run. What cannot be
# done here is skipped, and the report says why: ip, iptables, tc for the network, strace for syncs that fail, libfaketime for clocks that
# jump. Red: a history that is wrong, a process that ended as none should, a cluster that does not come back, or a run too thin to show
# anything. A machine that is slow gets as much time again to show it. The logs of a red run stay. By environment:
#
#   BIN        directory of ready binaries; nothing is built then, except the nemesis if it is not there as well
#   NODES      how many nodes       [5]
#   CLIENTS    how many clients     [10]
#   NO_CLOCK   1: no clock jumps, and the processes run without the library that lets them
set -uo pipefail
cd "${BASH_SOURCE[0]%/*}/.." || exit 1

usage() {
  sed -n '4,6s/^#   //p' "$0" >&2
  exit 2
}

target=${CARGO_TARGET_DIR:-target}/release
work='' nemesis=$target/nemesis

build() {
  if [[ -n ${BIN:-} && -x $BIN/nemesis ]]; then
    nemesis=$BIN/nemesis
    return
  fi
  local packages=(-p proof --bin nemesis)
  [[ -n ${BIN:-} ]] || packages+=(-p member -p raft -p state-machine --bin member --bin raft --bin state-machine)
  cargo build --release --locked "${packages[@]}" || exit 1
  [[ $target == /* ]] || nemesis=$PWD/$nemesis
}

clean_up() {
  [[ -z $work ]] || rm -rf "$work"
}

run() { # SECONDS SEED FAULT…
  local seconds=$1 seed=$2 code=0
  shift 2
  local faults=$*
  # Short: a socket's path has little room.
  work=$(mktemp -d /tmp/og.XXXXXX)
  "$nemesis" --seconds "$seconds" --seed "$seed" --clients "${CLIENTS:-10}" ${faults:+--faults "${faults// /,}"} \
    --history "$work/history" processes --binaries "${BIN:-$target}" --work "$work" --nodes "${NODES:-5}" \
    ${NO_CLOCK:+--no-clock} &
  # Waited for, so that a signal is acted upon at once; the run ends with it.
  wait $! || code=$?
  # It was interrupted: that shows nothing.
  if ((code == 0 || code == 130)); then
    clean_up
  else
    echo "nemesis.sh: red; logs and history in $work, again with: ${NO_CLOCK:+NO_CLOCK=1 }scripts/nemesis.sh $seconds $seed $faults" >&2
  fi
  work=''
  return "$code"
}

interrupted() {
  trap '' INT TERM HUP
  kill "$(jobs -p)" 2>/dev/null
  wait
  clean_up
  exit 130
}

trap interrupted INT TERM HUP
case ${1:-} in
  --ci)
    build
    for seed in 1 2; do run 60 "$seed" || exit; done
    # As users run it: no library between the processes and their system.
    NO_CLOCK=1 run 60 3
    ;;
  --list)
    build
    "$nemesis" --help
    ;;
  -*) usage ;;
  *)
    seconds=${1:-60} seed=${2:-$RANDOM}
    shift $(($# < 2 ? $# : 2))
    build
    run "$seconds" "$seed" "$@"
    ;;
esac
