#!/usr/bin/env bash
# A cluster of real processes on this machine, to try things on: every node is a member, a raft and a state machine.
#
#   cluster.sh up [N]                 build, start N nodes (3; or those that are there) and wait until they agree
#   cluster.sh status                 processes, and what the nodes say of themselves
#   cluster.sh kill NODE [PROCESS]    kill -9 one process (its supervisor starts it again) or a whole node at once
#   cluster.sh stop NODE [PROCESS]    end a node or one of its processes in good order, and keep it down
#   cluster.sh start NODE [PROCESS]   bring it back; the number after the last node's adds a node
#   cluster.sh logs NODE [PROCESS]    the last lines of its logs
#   cluster.sh down [--wipe]          end everything; data stays unless it is to be wiped
#
# PROCESS is member, state-machine or raft. Node I listens on 127.0.0.1 from port 6000 + 10 (I - 1). By environment:
#
#   DATA_DIR     where the nodes live, each in nodeI/        [data, at the top of the repository]
#   PORT_BASE    first port of node 1, for a new DATA_DIR    [6000]
#   BIN          directory of ready binaries; nothing is built then
#   WAIT_S       longest time to wait for the nodes          [60]
set -euo pipefail

fail() {
  echo "cluster.sh: $*" >&2
  exit 1
}

usage() {
  sed -n '4,10s/^#   //p' "$0" >&2
  exit 2
}

scripts=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
root=${scripts%/*}
called_from=$PWD
data=${DATA_DIR:-$root/data}
[[ $data == /* ]] || data=$PWD/$data
# Short paths from the top of the repository: they are read by people, and a socket's path has little room.
cd "$root"
data=${data#"$root"/}
readonly scripts root called_from data
readonly wait_s=${WAIT_S:-60} most_nodes=20 most_voters=5
# `seed` and the addresses below count from here: gossip, introducer, MemberService, HTTP, raft, StateMachineService.
readonly ports_per_node=10 introducer_port=1 tcp_ports=(2 3 4 5) http_port=3 raft_port=4

# --- What is there ----------------------------------------------------------------------------------------------------

dir_of() { # NODE
  echo "$data/node$1"
}

count_nodes() {
  local n=0
  while [[ -d $(dir_of $((n + 1))) ]]; do n=$((n + 1)); done
  echo "$n"
}

port_base() {
  if [[ -e $data/port-base ]]; then cat "$data/port-base"; else echo "${PORT_BASE:-6000}"; fi
}

first_port() { # NODE
  echo $(($(port_base) + ports_per_node * ($1 - 1)))
}

raft_address() { # NODE
  echo "127.0.0.1:$(($(first_port "$1") + raft_port))"
}

# Pids of all processes of a node, its supervisor first.
pids() { # NODE
  local name pid state
  while read -r name pid state; do
    [[ $pid == - ]] || echo "$pid"
  done < <("$scripts/node.sh" status "$(dir_of "$1")")
}

all_pids() {
  local node
  for ((node = 1; node <= $(count_nodes); node++)); do pids "$node"; done
}

check_node() { # NODE
  local nodes
  nodes=$(count_nodes)
  [[ $1 =~ ^[1-9][0-9]?$ ]] || fail "no node '$1': a number is meant"
  (($1 <= nodes)) || fail "no node $1: there are $nodes in $data"
}

# Whether somebody listens there already. Connecting needs no tool; for UDP the kernel's table is read where it has one.
port_is_taken() { # tcp|udp PORT
  if [[ $1 == tcp ]]; then
    (: <>"/dev/tcp/127.0.0.1/$2") 2>/dev/null
  else
    [[ -r /proc/net/udp ]] && [[ $(</proc/net/udp) == *":$(printf %04X "$2") 00000000:0000 "* ]]
  fi
}

check_ports() { # NODE
  local first offset
  first=$(first_port "$1")
  for offset in "${tcp_ports[@]}"; do
    ! port_is_taken tcp $((first + offset)) || refuse_port $((first + offset))/tcp "$1"
  done
  for offset in 0 1; do
    ! port_is_taken udp $((first + offset)) || refuse_port $((first + offset))/udp "$1"
  done
}

refuse_port() { # PORT NODE
  fail "port $1, meant for node $2, is in use by another program.
End that program, or put the cluster elsewhere: PORT_BASE=7000 DATA_DIR=data-7000 scripts/cluster.sh up"
}

# --- Building and starting --------------------------------------------------------------------------------------------

# Prints the directory of the binaries.
build() {
  local metadata directory
  if [[ -n ${BIN:-} ]]; then
    echo "$BIN"
    return
  fi
  command -v cargo >/dev/null || fail "no cargo: install a Rust toolchain (rust-toolchain.toml names the version)"
  cargo build --release --locked -p member -p raft -p raft-client -p state-machine >&2 || fail "the build failed"
  metadata=$(cargo metadata --format-version 1 --no-deps --locked) || fail "cargo metadata failed"
  [[ $metadata =~ \"target_directory\":\"([^\"]+)\" ]] || fail "cargo metadata names no target directory"
  directory=${BASH_REMATCH[1]}/release
  echo "${directory#"$root"/}"
}

# The binaries that the last `up` used.
binaries() {
  [[ -e $data/binaries ]] || fail "no cluster in $data: scripts/cluster.sh up 3"
  cat "$data/binaries"
}

write_endpoints() {
  local node
  for ((node = 1; node <= $(count_nodes); node++)); do raft_address "$node"; done >"$data/endpoints.new"
  mv "$data/endpoints.new" "$data/endpoints"
}

make_node() { # NODE
  mkdir -p "$(dir_of "$1")/log" || fail "cannot write to $data"
  [[ -e $data/port-base ]] || echo "${PORT_BASE:-6000}" >"$data/port-base"
  write_endpoints
}

# Starts a node with the binaries in `bin`. The supervisor gets a process group of its own, so that Ctrl-C here does not reach it.
launch() { # NODE [now]
  local dir first introducer=''
  dir=$(dir_of "$1")
  first=$(first_port "$1")
  [[ $1 != 1 ]] || introducer=1
  set -m
  NODE=$1 PORT_BASE=$first BIN=$bin INTRODUCER=$introducer BOOTSTRAP=${2:-} \
    SEEDS=127.0.0.1:$(($(first_port 1) + introducer_port)) \
    nohup "$scripts/node.sh" run "$dir" </dev/null >>"$dir/log/node.log" 2>&1 &
  set +m
}

# --- Waiting ----------------------------------------------------------------------------------------------------------

# What a node says of itself: one JSON object on one line, or nothing.
ask() { # NODE
  "$bin/raft-client" --endpoints "$(raft_address "$1")" --timeout-ms 1000 --output json status 2>/dev/null | tr -d ' \n'
}

expected_voters() { # NODES
  local n=$(($1 < most_voters ? $1 : most_voters))
  echo $((n - (n + 1) % 2))
}

# What keeps a node from serving; nothing when nothing does.
silence_of() { # NODE
  [[ $(ask "$1") == *'"commit_index":'* ]] || echo "node $1 does not serve"
}

# What keeps a node from being part of a whole cluster: it must know its leader and as many committed voters as there
# will be.
lack_of() { # NODE NODES
  local status voters='' commas want
  want=$(expected_voters "$2")
  status=$(ask "$1")
  if [[ $status == *'"outgoing":[]'* && $status == *'"membership_committed":true'* &&
    $status =~ \"voters\":\[([^]]+)\] ]]; then
    commas=${BASH_REMATCH[1]//[^,]/}
    voters=$((${#commas} + 1))
  fi
  if [[ -z $status ]]; then
    echo "node $1 does not serve"
  elif [[ $voters != "$want" ]]; then
    echo "node $1 knows ${voters:-no} committed voters; $want are meant to vote"
  elif [[ $status != *'"leader":{'* ]]; then
    echo "node $1 knows no leader"
  fi
}

# Finds a process that failed in a way that waiting does not mend.
check_failures() { # NODE
  local name pid state
  while read -r name pid state; do
    [[ $state =~ exit\ code\ (2|3|4|11|12|13), ]] || continue
    echo "node $1: $name ${state%%; see *}. Its log ends:" >&2
    tail -n 5 "$(dir_of "$1")/log/$name.log" >&2
    return 1
  done < <("$scripts/node.sh" status "$(dir_of "$1")")
}

# Waits until COMMAND prints nothing for any of these nodes; after WAIT_S seconds fails and says what it printed.
await() { # COMMAND FIRST_NODE LAST_NODE
  local node left deadline=$((SECONDS + wait_s))
  for ((node = $2; node <= $3; node++)); do
    while left=$("$1" "$node" "$3") && [[ -n $left ]]; do
      check_failures "$node" || return 1
      if ((SECONDS >= deadline)); then
        echo "after $wait_s s: $left" >&2
        return 1
      fi
      sleep 0.2
    done
  done
}

# --- Commands ---------------------------------------------------------------------------------------------------------

up() { # [NODES]
  local had nodes node bin fresh=''
  had=$(count_nodes)
  nodes=${1:-$((had > 0 ? had : 3))}
  [[ $nodes =~ ^([1-9]|1[0-9]|20)$ ]] || fail "how many nodes? 1 to $most_nodes, not '$nodes'"
  ((nodes >= had)) || fail "$data holds a cluster of $had nodes: 'up' starts it; 'down --wipe' removes it"
  [[ -z ${PORT_BASE:-} || $PORT_BASE == "$(port_base)" ]] ||
    fail "the nodes in $data listen from port $(port_base), not $PORT_BASE: leave PORT_BASE out or set another DATA_DIR"
  [[ -z $(all_pids) ]] || fail "the cluster in $data already runs: 'status' shows it, 'down' ends it"
  for ((node = 1; node <= nodes; node++)); do check_ports "$node"; done
  bin=$(build)
  ((had > 0)) || fresh=now
  for ((node = had + 1; node <= nodes; node++)); do make_node "$node"; done
  echo "$bin" >"$data/binaries"
  echo "Starting $nodes nodes in $data…"
  launch 1 "$fresh"
  for ((node = 2; node <= nodes; node++)); do launch "$node"; done
  if ! await lack_of 1 "$nodes"; then
    echo "cluster.sh: the cluster did not come up; ending it (its logs stay in $data/nodeN/log)" >&2
    down
    exit 1
  fi
  say_how "$nodes"
}

say_how() { # NODES
  local where='' client=$bin/raft-client cluster=scripts/cluster.sh
  [[ $called_from == "$root" ]] || where=" (in $root)"
  if [[ $data != data ]]; then
    client="$client --endpoints-file $data/endpoints"
    cluster="DATA_DIR=$data $cluster"
  fi
  cat <<END
The cluster is up: $1 nodes, $(expected_voters "$1") of them vote. To try$where:

  $client PUT pizzatoppings peporoni peppr cheddar anchoves onn it
  $client GET pizzatoppings
  curl http://127.0.0.1:$(($(first_port 1) + http_port))/v1/kv/pizzatoppings
  $client status --all
  $cluster kill 1          # kill -9 a whole node, then GET again
  $cluster start 1         # bring it back
  $cluster kill 2 raft     # kill -9 one process: it comes back by itself
  $cluster down
END
}

down() { # [--wipe]
  local node nodes
  local -a before left
  nodes=$(count_nodes)
  mapfile -t before < <(all_pids)
  for ((node = 1; node <= nodes; node++)); do "$scripts/node.sh" stop "$(dir_of "$node")" & done
  wait
  mapfile -t left < <(all_pids)
  ((${#left[@]} == 0)) || fail "these processes did not end: ${left[*]}"
  if ((${#before[@]} == 0)); then
    echo "Nothing ran in $data."
  else
    echo "Ended all ${#before[@]} processes of $nodes nodes; none is left."
  fi
  if [[ ${1:-} == --wipe ]]; then
    wipe "$nodes"
  elif ((nodes > 0)); then
    echo "Data stays in $data: 'up' starts the same cluster again, 'down --wipe' removes it."
  fi
}

wipe() { # NODES
  local node
  for ((node = 1; node <= $1; node++)); do rm -rf "$(dir_of "$node")"; done
  rm -f "$data/endpoints" "$data/port-base" "$data/binaries"
  rmdir "$data" 2>/dev/null || true
  echo "Removed the data of $1 nodes from $data."
}

start() { # NODE [PROCESS]
  local nodes bin
  nodes=$(count_nodes)
  bin=$(binaries)
  if [[ -n ${2:-} ]]; then
    check_node "$1"
    "$scripts/node.sh" release "$(dir_of "$1")" "$2"
  else
    if [[ $1 == $((nodes + 1)) ]] && ((nodes > 0 && nodes < most_nodes)); then make_node "$1"; fi
    check_node "$1"
    [[ -z $(pids "$1") ]] || fail "node $1 already runs"
    check_ports "$1"
    launch "$1"
  fi
  await silence_of "$1" "$1" || fail "node $1 does not serve; 'logs $1' shows more"
  echo "Node $1 serves."
}

stop() { # NODE [PROCESS]
  check_node "$1"
  if [[ -n ${2:-} ]]; then
    "$scripts/node.sh" hold "$(dir_of "$1")" "$2"
  else
    "$scripts/node.sh" stop "$(dir_of "$1")"
  fi
}

kill_hard() { # NODE [PROCESS]
  check_node "$1"
  "$scripts/node.sh" kill "$(dir_of "$1")" "${@:2}"
}

status() {
  local node nodes name pid state bin
  nodes=$(count_nodes)
  ((nodes > 0)) || fail "no cluster in $data: scripts/cluster.sh up 3"
  for ((node = 1; node <= nodes; node++)); do
    while read -r name pid state; do
      printf 'node%-3s %-14s %8s  %s\n' "$node" "$name" "$pid" "$state"
    done < <("$scripts/node.sh" status "$(dir_of "$node")")
  done
  [[ -n $(all_pids) ]] || return 0
  bin=$(binaries)
  echo
  "$bin/raft-client" --endpoints-file "$data/endpoints" --timeout-ms 2000 status --all
}

logs() { # NODE [PROCESS]
  local dir
  check_node "$1"
  dir=$(dir_of "$1")/log
  if [[ -n ${2:-} ]]; then tail -n 100 "$dir/$2.log"; else tail -n 30 "$dir"/*.log; fi
}

main() {
  (($# > 0)) || usage
  local verb=$1
  shift
  case $verb,$# in
    up,[01]) up "$@" ;;
    down,0) down ;;
    down,1) if [[ $1 == --wipe ]]; then down --wipe; else usage; fi ;;
    status,0) status ;;
    start,[12]) start "$@" ;;
    stop,[12]) stop "$@" ;;
    kill,[12]) kill_hard "$@" ;;
    logs,[12]) logs "$@" ;;
    *) usage ;;
  esac
}

main "$@"
