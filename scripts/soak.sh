#!/usr/bin/env bash
# Every fault there is, on the containers of the compose file, for as long as wanted, under clients whose histories are checked.
#
#   soak.sh [MINUTES [SEED]]      10 minutes, a seed by the clock
#
# Needs root, a Docker engine and compose; an engine that it had to start, it stops. Has a project and an image of its own, and
# touches no other cluster. What a machine lacks is left out, and the report says so: strace for syncs that fail, iptables and tc for the
# network, libfaketime for clocks. Exit code 77: skipped. By environment:
#
#   COMPOSE    the compose command                [docker-compose if it is there, else docker compose]
#   BIN        directory of ready binaries, for the image; none are built then, except the nemesis if it is not there as well
#   WORKERS    how many, beside the introducer    [4]
#   CLIENTS    how many clients                   [10]
#   FAULTS     only these, separated by commas    [all; scripts/nemesis.sh --list]
set -uo pipefail
cd "${BASH_SOURCE[0]%/*}/.." || exit 1

[[ ${1:-10} =~ ^[0-9]+$ ]] || { sed -n '4s/^#   //p' "$0" >&2 && exit 2; }
readonly minutes=${1:-10} seed=${2:-$RANDOM} workers=${WORKERS:-4}
readonly project=outrigger-soak-$$ small_disk_mib=200
readonly target=${CARGO_TARGET_DIR:-target}/release

export OUTRIGGER_IMAGE=$project OUTRIGGER_LOG=info
export OUTRIGGER_PUBLISH_RAFT=127.0.0.1:0 OUTRIGGER_PUBLISH_HTTP=127.0.0.1:0
OUTRIGGER_GOSSIP_KEY=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export OUTRIGGER_GOSSIP_KEY COMPOSE_PROJECT_NAME=$project

work=$(mktemp -d)
engine='' forwarding='' nemesis='' clock='' program=$target/nemesis

compose() {
  # shellcheck disable=SC2086 # a command of one or two words
  $COMPOSE "$@"
}

fail() {
  echo "soak.sh: FAILED: $*" >&2
  exit 1
}

skip() {
  echo "skipped: $*"
  exit 77
}

clean_up() {
  local code=$?
  trap '' INT TERM HUP
  [[ -z $nemesis ]] || { kill "$nemesis" && wait "$nemesis"; } 2>/dev/null
  if [[ -n ${COMPOSE_FILE:-} ]]; then
    ((code == 0 || code == 130)) || compose logs --no-color >"/tmp/$project.log" 2>&1
    # A frozen container cannot be stopped.
    docker ps --quiet --filter "label=com.docker.compose.project=$project" --filter status=paused | xargs -r docker unpause >/dev/null
    compose down --volumes --timeout 1 >"$work/down.log" 2>&1 || {
      tail -n 20 "$work/down.log" >&2
      echo "soak.sh: containers, volumes or the network of $project are still there" >&2
    }
  fi
  # Its layers stay where another image has them too.
  docker rmi "$OUTRIGGER_IMAGE" >/dev/null 2>&1
  ! mountpoint -q "$work/small" || umount "$work/small" || umount -l "$work/small"
  [[ -z $engine ]] || stop_engine
  ((code == 0 || code == 77)) || [[ ! -e $work/history ]] || mv "$work/history" "/tmp/$project.history"
  rm -rf "$work"
  exit "$code"
}

answers_engine() {
  docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

start_engine() {
  local deadline=$((SECONDS + 30))
  command -v dockerd >/dev/null || return 1
  forwarding=$(iptables -S FORWARD 2>/dev/null | head -n 1)
  setsid dockerd >"$work/dockerd.log" 2>&1 &
  engine=$!
  until answers_engine; do
    kill -0 "$engine" 2>/dev/null && ((SECONDS < deadline)) || return 1
    sleep 0.2
  done
}

stop_engine() {
  kill "$engine" && wait "$engine" 2>/dev/null
  # It leaves the machine forwarding nothing.
  [[ $forwarding != *ACCEPT ]] || iptables -P FORWARD ACCEPT
}

prepare() {
  [[ $(id -u) == 0 ]] || skip "faults on containers' networks and processes need root"
  command -v docker >/dev/null || skip "docker is not installed"
  if [[ -z ${COMPOSE:-} ]]; then
    if command -v docker-compose >/dev/null; then COMPOSE=docker-compose; else COMPOSE="docker compose"; fi
  fi
  compose version >/dev/null 2>&1 || skip "$COMPOSE is not installed"
  answers_engine || start_engine || skip "no Docker engine answers, and none can be started here"
  RUNTIME_ONLY=1 docker/make-base-images.sh >"$work/base.log" 2>&1 || skip "the base images can neither be pulled nor made"
}

# A library that gives a process a clock of its own, for clocks that jump, if this machine has it; the nemesis says if not. Not for the
# supervisor: it would share a lock with its children, and one that is killed while it holds it would be the end of all.
give_clocks() { # DIRECTORY
  local library name
  library=$(find /usr/lib /usr/lib64 /usr/local/lib -name libfaketimeMT.so.1 2>/dev/null | head -n 1)
  [[ -n $library ]] || return 0
  clock=/usr/local/bin/clocked
  mkdir "$1/clocked"
  cp -L "$library" "$1/clocked/"
  for name in member raft state-machine; do
    cat >"$1/clocked/$name" <<END
#!/bin/sh
exec env LD_PRELOAD=$clock/${library##*/} FAKETIME_TIMESTAMP_FILE=/tmp/clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \\
  NO_FAKE_STAT=1 /usr/local/bin/$name "\$@"
END
    chmod +x "$1/clocked/$name"
  done
}

build() {
  local packages=(-p proof --bin nemesis) context=$work/image name
  [[ -n ${BIN:-} ]] || packages+=(-p member -p raft -p state-machine -p raft-client --bin member --bin raft --bin state-machine --bin raft-client)
  if [[ -n ${BIN:-} && -x $BIN/nemesis ]]; then
    program=$BIN/nemesis
  else
    cargo build --release --locked "${packages[@]}" || fail "cargo build"
  fi
  # The last stage of the Dockerfile on the binaries of this machine.
  mkdir -p "$context"/{bin,scripts,docker}
  for name in member raft raft-client state-machine; do cp "${BIN:-$target}/$name" "$context/bin/"; done
  give_clocks "$context/bin"
  cp scripts/node.sh "$context/scripts/"
  cp docker/start.sh "$context/docker/"
  {
    grep '^ARG RUNTIME_IMAGE' Dockerfile
    sed -n '/ AS runtime$/,$p' Dockerfile | sed 's|--from=build /out/|bin/|'
  } >"$context/Dockerfile"
  docker build --tag "$OUTRIGGER_IMAGE" "$context" >"$work/build.log" 2>&1 || { tail -n 20 "$work/build.log" >&2 && fail "docker build"; }
  [[ -z $clock ]] || docker run --rm --entrypoint "$clock/raft" "$OUTRIGGER_IMAGE" --version >/dev/null 2>&1 || clock=
}

# The introducer's volume is a small disk, so that it can be full; snapshots come often, and who is away is given up soon.
write_override() {
  local owner
  owner=$(sed -n 's/.*useradd --uid \([0-9]*\).*/\1/p' Dockerfile)
  mkdir "$work/small" && mount -t tmpfs -o "size=${small_disk_mib}m,uid=$owner" tmpfs "$work/small" || fail "no small disk can be mounted"
  cat >"$work/soak.yml" <<END
x-settings: &settings
  OUTRIGGER_SNAPSHOT_FLOOR_MIB: "1"
  OUTRIGGER_SNAPSHOT_RATIO_PERCENT: "0"
  OUTRIGGER_KEEP_TRAILING_MIB: "0"
  OUTRIGGER_SEGMENT_MIB: "16"
  OUTRIGGER_DEAD_AFTER_MS: "5000"
  OUTRIGGER_PROMOTE_AFTER_MS: "300"
  OUTRIGGER_REJOIN_INTERVAL_MS: "1000"
${clock:+  BIN: $clock}
services:
  introducer: {environment: *settings}
  worker: {environment: *settings}
volumes:
  introducer-data:
    driver_opts: {type: none, o: bind, device: "$work/small"}
END
  grep -q '^version' docker-compose.yml && sed -i "1i $(grep '^version' docker-compose.yml)" "$work/soak.yml"
  export COMPOSE_FILE=$PWD/docker-compose.yml:$work/soak.yml
}

trap clean_up EXIT
trap 'exit 130' INT TERM HUP
prepare
build
write_override
compose up --detach --scale "worker=$workers" >"$work/up.log" 2>&1 || { tail -n 20 "$work/up.log" >&2 && fail "up"; }
"$program" --seconds $((minutes * 60)) --seed "$seed" --clients "${CLIENTS:-10}" ${FAULTS:+--faults "$FAULTS"} --history "$work/history" \
  containers --project "$project" --compose "$COMPOSE" --small-disk "$work/small" &
nemesis=$!
wait "$nemesis"
code=$?
nemesis=''
((code == 0 || code == 130)) || echo "soak.sh: red; the history and the logs are in /tmp/$project.*" >&2
exit "$code"
