#!/usr/bin/env bash
# Runs in a container beside the nodes, for scripts/e2e-docker.sh: CLIENTS writers, each of which counts up a key of its
# own, one INCR after the other, until SIGTERM. Every answer is checked on the spot: a counter that is not one higher
# than before says that a write was lost, or applied twice.
#
#   writers.sh CLIENTS PREFIX       OUTRIGGER_ENDPOINTS says where the nodes are
#
# Prints a line for each answer, with the time of both ends in ms:
#
#   ok CLIENT COUNT BEGAN ENDED     the counter of this client is now COUNT
#   failed CLIENT CODE BEGAN ENDED  raft-client gave up, with this exit code
#   wrong CLIENT WANTED GOT
set -uo pipefail

now_ms() {
  local now=${EPOCHREALTIME/[.,]/}
  echo "${now%???}"
}

writer() { # CLIENT PREFIX
  local count=0 began answer code
  local -a again=()
  trap 'stop=1' TERM
  while [[ -z $stop ]]; do
    began=$(now_ms)
    answer=$(raft-client --output json --timeout-ms 30000 INCR "${again[@]}" "$2$1")
    code=$?
    if ((code == 0)); then
      again=()
      # A repeated command may be told without its result.
      [[ $answer =~ \"value\":([0-9]+|null) ]] && [[ ${BASH_REMATCH[1]} != null ]] || BASH_REMATCH=('' $((count + 1)))
      ((BASH_REMATCH[1] == ++count)) || echo "wrong $1 $count ${BASH_REMATCH[1]}"
      echo "ok $1 $count $began $(now_ms)"
    else
      # Unknown whether it was applied: sent again under its own name, it is applied once.
      if [[ $answer =~ \"sequence\":([0-9]+) ]]; then
        again=(--sequence "${BASH_REMATCH[1]}")
        [[ ! $answer =~ \"session\":\"([0-9a-f]+)\" ]] || again+=(--session "${BASH_REMATCH[1]}")
      fi
      echo "failed $1 $code $began $(now_ms)"
    fi
  done
}

stop=
trap 'stop=1' TERM INT
writers=()
for ((client = 1; client <= $1; client++)); do
  writer "$client" "$2" &
  writers+=($!)
done
while ! wait; do
  # A signal has ended the wait: the writers are told, and finish what they have begun.
  kill -TERM "${writers[@]}" 2>/dev/null
done
