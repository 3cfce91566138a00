#!/usr/bin/env bash
# Starts the node of a container: finds its directory under /data and runs the supervisor there.
#
#   start.sh introducer     the node that others join by, and that makes the cluster; its directory is /data itself
#   start.sh worker         a node that joins; its directory is a free one of /data/1, /data/2, …
#
# All workers share one volume, because only a named volume outlives `docker-compose down`, and a service has the same
# volumes in all its containers. So each container claims a directory, a *slot*, by a lock that the kernel keeps for as
# long as the container's processes live, and no longer, however they end. The node lives in the slot, with its id, its
# log and its vote; the container is only where it runs.
#
# Which slot: of those that are free, first the ones whose node did not leave the cluster, since it may have a vote that
# is missed; among equals the one that this container had before, as its address is known; then the lowest. A new slot
# is made only when no old one is free.
set -uo pipefail

readonly volume=${DATA_VOLUME:-/data} most_slots=${MOST_SLOTS:-100}
readonly here=${BASH_SOURCE[0]%/*}
# The name by which the other containers of the network find this one.
readonly host=${HOSTNAME:-$(cat /proc/sys/kernel/hostname)}

fail() {
  echo "start.sh: $*" >&2
  exit 2
}

# Takes the lock of a slot, if nobody has it. The lock is on the directory's `slot` file, which also says who had it last.
claim() { # DIRECTORY
  local lock
  { exec {lock}<>"$1/slot"; } 2>/dev/null || return 1
  if flock --exclusive --nonblock "$lock"; then
    echo "$host" >"$1/slot"
    return 0
  fi
  exec {lock}>&-
  return 1
}

# The slots that are there, the ones to prefer first: "left", "another's" and number, each sorted upwards.
by_preference() {
  local directory number left another owner
  for directory in "$volume"/*/; do
    number=${directory%/} number=${number##*/}
    [[ $number =~ ^[1-9][0-9]*$ ]] || continue
    left=0 another=1 owner=
    # Raft's mark of having left; it removes it when it is started again.
    [[ ! -e $directory/raft/left ]] || left=1
    { read -r owner <"$directory/slot"; } 2>/dev/null
    [[ $owner != "$host" ]] || another=0
    echo "$left $another $number"
  done | sort -n -k1,1 -k2,2 -k3,3 | cut -d' ' -f3
}

# Sets `directory`. Two that start at once may both see a slot free; the lock has one winner, and the other goes on.
find_slot() {
  local number
  for number in $(by_preference); do
    directory=$volume/$number
    if claim "$directory"; then return; fi
  done
  for ((number = 1; number <= most_slots; number++)); do
    directory=$volume/$number
    [[ ! -e $directory ]] || continue
    mkdir "$directory" 2>/dev/null || [[ -d $directory ]] ||
      fail "cannot make $directory: is the volume writable for user $(id -u)?"
    if claim "$directory"; then return; fi
  done
  fail "all $most_slots slots in $volume are taken"
}

role=${1:-}
case $role in
  introducer)
    directory=$volume
    claim "$directory" || fail "$directory is used by another container, or not writable for user $(id -u)"
    export INTRODUCER=1 NODE_NAME=introducer
    ;;
  worker)
    find_slot
    export INTRODUCER='' NODE_NAME=worker-${directory##*/}
    ;;
  *) fail "which role? introducer or worker, not '$role'" ;;
esac

echo "start.sh: $role $host in $directory"
export BIND=${BIND:-0.0.0.0} ADVERTISE=${ADVERTISE:-$host} LOG=${LOG:-stderr} BIN=${BIN:-/usr/local/bin}
exec "$here/node.sh" run "$directory"
