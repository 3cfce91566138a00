#!/usr/bin/env bash
# Supervises one node: its member, its state machine and its raft process.
#
#   node.sh run DIR               start the three and keep them running, in the foreground, until SIGTERM or SIGINT
#   node.sh stop DIR              end a node that runs: raft first, then its state machine, then its member
#   node.sh kill DIR [PROCESS]    kill -9 one process (its supervisor starts it again), or all four at once
#   node.sh hold DIR PROCESS      end one process and keep it down
#   node.sh release DIR PROCESS   start one process that was held or has given up
#   node.sh status DIR            one line for the supervisor ("node") and each process: name, pid or "-", state
#
# DIR holds everything of the node: data, log/PROCESS.log and run/ (process ids). Settings of `run`, by environment:
#
#   NODE           number; the node is called node$NODE (without it: the host's name)
#   NODE_NAME      another name for people
#   PORT_BASE      first of the node's six ports                                          [6000]
#   BIND           address that member and raft listen on; the machine stays on loopback  [127.0.0.1]
#   ADVERTISE      host that others reach the node under                                  [$BIND]
#   SEEDS          HOST:PORT of introducers, separated by spaces or commas
#   INTRODUCER     1: listen for joins, and make the cluster if there is none yet
#   BOOTSTRAP      now: make the cluster at once; only for who has just made all data directories himself
#   BIN            directory of the binaries                                 [target/release beside scripts/, or $PATH]
#   MEMBER_FLAGS, STATE_MACHINE_FLAGS, RAFT_FLAGS       more flags, separated by spaces
#   LOG            stderr: the processes write to the supervisor's standard error, and log/ is not used
#   GRACE_S        time that a process has to stop after SIGTERM; then SIGKILL                 [10]
#   RAFT_GRACE_S   the same for raft; with --leave-on-terminate its --leave-timeout-ms and a few s more  [$GRACE_S]
#
# A dead process is started again after 100 ms, doubling to 5 s, and from 100 ms again once it has lived for 10 s. Exit
# codes that a restart cannot mend (2, 11, 12, 13) end that process for good; the others run on without it. A raft that has
# left its cluster (`raft-client leave`; the file raft/left in DIR says so) stays down until `release` or the next `run`.
#
# HUP ends the node as TERM does. To have one process read its log filter again: kill -HUP "$(cut -d' ' -f1 DIR/run/PROCESS.pid)"
set -uo pipefail

readonly PROCESSES=(member state-machine raft)
readonly FIRST_DELAY_MS=100 LONGEST_DELAY_MS=5000 STABLE_S=10
# Raft hands over what it holds and syncs, the machine flushes.
readonly GRACE_S=${GRACE_S:-10}
readonly RAFT_GRACE_S=${RAFT_GRACE_S:-$GRACE_S}
# Time for what SIGKILL ends.
readonly KILL_S=10

fail() {
  echo "node.sh: $*" >&2
  exit 1
}

usage() {
  sed -n '4,9s/^#   //p' "$0" >&2
  exit 2
}

meaning() { # CODE
  case $1 in
    0) echo "clean stop" ;;
    2) echo "bad flag or configuration" ;;
    3) echo "cannot bind, the address is in use" ;;
    4) echo "data directory unwritable or locked by another process" ;;
    11) echo "damaged files" ;;
    12) echo "foreign directory or cluster" ;;
    13) echo "a write or sync of the log failed" ;;
    129 | 13? | 14? | 15?) echo "killed by SIG$(kill -l "$1" 2>/dev/null)" ;;
    *) echo "unexpected failure" ;;
  esac
}

restart_is_vain() { # CODE
  case $1 in 2 | 11 | 12 | 13) return 0 ;; *) return 1 ;; esac
}

# --- Which process is meant -----------------------------------------------------------------------------------------

# A pid alone names many processes over time; with the start time, and the boot that it is counted from, only one.
# Fails when there is no such process, or only its remains that nobody has collected.
birth() { # PID
  local stat fields boot
  if [[ -r /proc/self/stat ]]; then
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    read -r boot </proc/sys/kernel/random/boot_id
    read -ra fields <<<"${stat##*) }"
    [[ ${fields[0]} != [ZX] ]] && echo "$boot:${fields[19]}"
  else
    stat=$(ps -o stat=,lstart= -p "$1") && [[ $stat != Z* ]] && echo "${stat#* }"
  fi
}

record() { # PROCESS PID
  local born
  born=$(birth "$2") || return 0 # dead already: the loop learns it
  echo "$2 $born" >"$run/$1.pid.new" && mv "$run/$1.pid.new" "$run/$1.pid"
}

# The pid of a recorded process, if that very process still runs.
pid_of() { # PROCESS
  local pid born
  { read -r pid born <"$run/$1.pid"; } 2>/dev/null || return 1
  [[ $(birth "$pid") == "$born" ]] && echo "$pid"
}

# Sleeps on a pipe that stays silent: unlike `sleep` it is no process, so killing the sleeper leaves nothing behind.
pause() { # SECONDS
  if [[ -z ${silence:-} ]]; then
    rm -f "$run/silence.$$" # of an earlier process of that id
    mkfifo "$run/silence.$$" || fail "cannot write to $run"
    exec {silence}<>"$run/silence.$$"
    rm "$run/silence.$$"
  fi
  read -rt "$1" -u "$silence"
  return 0
}

await_end() { # PROCESS SECONDS
  local deadline=$((SECONDS + $2 + 1))
  while pid_of "$1" >/dev/null; do
    ((SECONDS < deadline)) || return 1
    pause 0.05
  done
}

# TERM, time to finish, KILL.
end() { # PROCESS
  local pid grace_s=$GRACE_S
  [[ $1 != raft ]] || grace_s=$RAFT_GRACE_S
  pid=$(pid_of "$1") || return 0
  kill -TERM "$pid" 2>/dev/null
  await_end "$1" "$grace_s" && return
  echo "node.sh: $1 (pid $pid) did not stop within $grace_s s: killed"
  kill -KILL "$pid" 2>/dev/null
  await_end "$1" "$KILL_S"
}

end_processes() {
  end raft
  end state-machine
  end member
}

# --- run --------------------------------------------------------------------------------------------------------------

say() {
  printf '%(%FT%T%z)T %s\n' -1 "$*"
}

see_log() { # PROCESS
  [[ ${LOG:-} == stderr ]] || echo "; see $dir/log/$1.log"
}

# What a process is started with, in `command`.
command_of() { # PROCESS
  local bind=${BIND:-127.0.0.1} seeds=${SEEDS:-} more seed
  local -a place named
  place=(--data-dir "$dir" --port-base "${PORT_BASE:-6000}" --ready-file "$run/$1.json")
  named=(--name "$name" --advertise "${ADVERTISE:-$bind}")
  case $1 in
    member)
      command=("${BIN}member" "${place[@]}" --bind "$bind" "${named[@]}")
      [[ ${INTRODUCER:-} == 1 ]] && command+=(--introducer)
      for seed in ${seeds//,/ }; do command+=(--seed "$seed"); done
      more=${MEMBER_FLAGS:-}
      ;;
    state-machine)
      # Only the raft beside it has business there.
      command=("${BIN}state-machine" "${place[@]}" --bind 127.0.0.1)
      more=${STATE_MACHINE_FLAGS:-}
      ;;
    raft)
      command=("${BIN}raft" "${place[@]}" --bind "$bind" "${named[@]}")
      if [[ $bootstrap == now ]]; then
        command+=(--bootstrap=now)
      elif [[ ${INTRODUCER:-} == 1 ]]; then
        command+=(--bootstrap)
      fi
      more=${RAFT_FLAGS:-}
      ;;
  esac
  # shellcheck disable=SC2206 # a list of flags is meant to be split
  command+=($more)
}

# Waits, then turns into the process: a delay needs no timer, and there are never more than three children to wait for.
become() { # PROCESS DELAY_MS
  (($2 == 0)) || pause "$(($2 / 1000)).$(printf %03d $(($2 % 1000)))"
  if [[ -n ${silence:-} ]]; then exec {silence}<&-; fi
  rm -f "$run/$1.waits"
  exec "${command[@]}"
}

start() { # PROCESS DELAY_MS
  local process=$1 delay_ms=$2
  local -a command
  command_of "$process"
  rm -f "$run/$process.json"
  : >"$run/$process.waits"
  if [[ ${LOG:-} == stderr ]]; then
    become "$process" "$delay_ms" </dev/null >&2 &
  else
    become "$process" "$delay_ms" </dev/null >>"$dir/log/$process.log" 2>&1 &
  fi
  pids[$process]=$!
  since[$process]=$((SECONDS + delay_ms / 1000))
  record "$process" $!
  # The directories are new at its first start only.
  [[ $process == raft ]] && bootstrap=
  say "$process: started, pid ${pids[$process]}$( ((delay_ms == 0)) || echo ", in $delay_ms ms")"
}

ended() { # PROCESS CODE
  local process=$1 code=$2
  unset "pids[$process]"
  rm -f "$run/$process.pid"
  echo "$code" >"$run/$process.exit"
  if [[ -e $run/$process.down ]]; then
    say "$process: down until it is released"
  elif [[ $process == raft && $code == 0 && -e $dir/raft/left ]]; then
    : >"$run/raft.down"
    say "raft: has left its cluster: down until it is released"
  elif restart_is_vain "$code"; then
    say "$process: exit code $code, $(meaning "$code"): not started again$(see_log "$process")"
    failure=$code
  else
    ((SECONDS - since[$process] < STABLE_S)) || delays[$process]=$FIRST_DELAY_MS
    say "$process: exit code $code, $(meaning "$code")$(see_log "$process")"
    start "$process" "${delays[$process]}"
    delays[$process]=$((delays[$process] * 2 < LONGEST_DELAY_MS ? delays[$process] * 2 : LONGEST_DELAY_MS))
  fi
}

# Brings what runs in line with the marks that `hold` and `release` left.
follow_marks() {
  local process
  for process in "${PROCESSES[@]}"; do
    if [[ -e $run/$process.down && -n ${pids[$process]:-} ]]; then
      kill -TERM "${pids[$process]}"
    elif [[ -e $run/$process.now ]]; then
      rm -f "$run/$process.now"
      delays[$process]=$FIRST_DELAY_MS
      [[ -n ${pids[$process]:-} ]] || start "$process" 0
    fi
  done
}

shut_down() {
  trap '' TERM INT HUP USR1
  say "node: stopping"
  end_processes 2>/dev/null # the shell's own remarks on killed children
  rm -f "$run"/*.pid
  say "node: stopped"
  exit 0
}

# A signal is acted upon when the loop comes round, within 100 ms: it can fall in no gap.
on_signal() { # ACTION
  requested=$1
  ((busy)) || act
}

act() {
  local action=$requested
  requested=
  busy=1
  [[ -z $action ]] || "$action"
  busy=0
}

# It looks itself who is gone: `wait -n` forgets a child that a signal ended while the shell was at something else.
supervise() {
  local process
  while :; do
    busy=0
    [[ -z $requested ]] || act
    busy=1 # a signal waits for the line above: no handler runs inside a read
    if ((${#pids[@]} == 0)); then
      compgen -G "$run/*.down" >/dev/null || return "$failure"
      pause 1
      continue
    fi
    for process in "${!pids[@]}"; do
      kill -0 "${pids[$process]}" 2>/dev/null && continue
      wait "${pids[$process]}" 2>/dev/null
      ended "$process" $?
    done
    [[ -n $requested ]] || pause 0.1
  done
}

claim() {
  local process pid
  for process in node "${PROCESSES[@]}"; do
    if pid=$(pid_of "$process"); then
      fail "$dir: $process already runs (pid $pid); end it first: $0 stop $dir"
    fi
  done
  rm -f "$run"/*.pid "$run"/*.exit "$run"/*.down "$run"/*.now "$run"/*.waits
  record node $$
}

find_binaries() {
  local beside
  beside=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)/target/release
  if [[ -z ${BIN:-} && -x $beside/raft ]]; then BIN=$beside; fi
  BIN=${BIN:+$BIN/}
  for process in "${PROCESSES[@]}"; do
    command -v "$BIN$process" >/dev/null || fail "no program $BIN$process: build it (cargo build --release) or set BIN"
  done
}

run() {
  ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) || fail "needs bash 5.1 or newer, this is $BASH_VERSION"
  find_binaries
  mkdir -p "$dir/log" "$run" || fail "cannot make $dir/log and $run"
  claim
  pause 0 # makes the pipe, before there are children that would make it each for itself
  local -A pids=() since=() delays=()
  local name=node${NODE:-} bootstrap=${BOOTSTRAP:-} requested='' busy=1 failure=1 process
  [[ -n ${NODE:-} ]] || name=${HOSTNAME:-node}
  name=${NODE_NAME:-$name}
  trap 'on_signal shut_down' TERM INT HUP
  trap 'on_signal follow_marks' USR1
  export NO_COLOR=1 # their logs are files
  say "node: $name, ports from ${PORT_BASE:-6000}, data in $dir"
  for process in "${PROCESSES[@]}"; do
    delays[$process]=$FIRST_DELAY_MS
    start "$process" 0
  done
  supervise
  say "node: no process left to supervise"
  rm -f "$run/node.pid"
  return "$failure"
}

# --- The other commands -----------------------------------------------------------------------------------------------

stop() {
  local pid
  if pid=$(pid_of node); then
    kill -TERM "$pid" 2>/dev/null
    await_end node $((RAFT_GRACE_S + GRACE_S * 2 + KILL_S * 3 + 5)) || kill -KILL "$pid" 2>/dev/null
  fi
  end_processes # what a killed supervisor left
  rm -f "$run"/*.pid
}

kill_process() { # PROCESS
  local pid
  pid=$(pid_of "$1") || fail "$dir: $1 does not run"
  kill -KILL "$pid"
}

kill_node() {
  local process pid
  local -a targets=()
  for process in node "${PROCESSES[@]}"; do
    if pid=$(pid_of "$process"); then targets+=("$pid"); fi
  done
  ((${#targets[@]} > 0)) || fail "$dir: nothing runs"
  kill -KILL "${targets[@]}"
  for process in node "${PROCESSES[@]}"; do await_end "$process" "$KILL_S"; done
}

mark() { # PROCESS MARK
  local pid
  pid=$(pid_of node) || fail "$dir: the node does not run"
  rm -f "$run/$1.down" "$run/$1.now"
  : >"$run/$1.$2" && kill -USR1 "$pid"
}

state_of() { # PROCESS
  local code='' last=''
  if [[ -e $run/$1.exit ]]; then
    read -r code <"$run/$1.exit"
    last="last exit code $code, $(meaning "$code")"
  fi
  if pid_of "$1" >/dev/null; then
    if ! pid_of node >/dev/null; then
      echo "runs without its supervisor"
    elif [[ -e $run/$1.waits ]]; then
      echo "waits to be started again ($last)"
    else
      echo "runs${last:+ ($last)}"
    fi
  elif ! pid_of node >/dev/null; then
    echo "does not run"
  elif [[ -e $run/$1.down ]]; then
    echo "held down"
  else
    echo "gave up ($last); see $dir/log/$1.log"
  fi
}

status() {
  local process
  printf 'node %s %s\n' "$(pid_of node || echo -)" "$(if pid_of node >/dev/null; then echo "supervises"; else echo "does not run"; fi)"
  for process in "${PROCESSES[@]}"; do
    printf '%s %s %s\n' "$process" "$(pid_of "$process" || echo -)" "$(state_of "$process")"
  done
}

check_process() { # PROCESS
  case $1 in
    member | state-machine | raft) ;;
    *) fail "no process '$1': member, state-machine or raft" ;;
  esac
}

main() {
  (($# >= 2)) || usage
  local verb=$1
  readonly dir=${2%/} run=${2%/}/run
  shift 2
  (($# == 0)) || check_process "$1"
  case $verb,$# in
    run,0) run ;;
    stop,0) stop ;;
    kill,0) kill_node ;;
    kill,1) kill_process "$1" ;;
    hold,1) mark "$1" down ;;
    release,1) mark "$1" now ;;
    status,0) status ;;
    *) usage ;;
  esac
}

main "$@"
