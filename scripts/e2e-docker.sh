#!/usr/bin/env bash
# The whole of it in containers, as a user runs it: build, up with four workers, then kills, pauses, stops, scaling,
# a rolling restart, down and up, while writers count; each step is checked and printed.
#
#   e2e-docker.sh             with the image of the Dockerfile
#   e2e-docker.sh --quick     with binaries built on this machine, put into the same image
#
# Has a project, an image and ports of its own, and touches no other cluster. An engine that it had to start, it stops.
# Exit code 77: skipped, as there is no engine to be had. By environment:
#
#   COMPOSE     the compose command                              [docker-compose if it is there, else docker compose]
#   BIN         directory of ready binaries, for the client on this machine and for --quick; none are built then
#   E2E_PORT    where the introducer's raft port is published; its HTTP port one below        [chosen by process id]
set -uo pipefail
cd "${BASH_SOURCE[0]%/*}/.." || exit 1

case ${1:-} in
  '') quick= ;;
  --quick) quick=1 ;;
  *) sed -n '5,6s/^#   //p' "$0" >&2 && exit 2 ;;
esac
readonly quick clients=16 wait_s=60
readonly port=${E2E_PORT:-$((20004 + $$ % 1000 * 10))}
readonly project=outrigger-e2e-$$ http=http://127.0.0.1:$((port - 1))

export OUTRIGGER_IMAGE=outrigger-e2e OUTRIGGER_LOG=info
export OUTRIGGER_PUBLISH_RAFT=127.0.0.1:$port OUTRIGGER_PUBLISH_HTTP=127.0.0.1:$((port - 1))
OUTRIGGER_GOSSIP_KEY=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export OUTRIGGER_GOSSIP_KEY
export COMPOSE_PROJECT_NAME=$project COMPOSE_FILE=docker-compose.yml

# --- What is run, and what goes wrong ---------------------------------------------------------------------------------

work=$(mktemp -d)
engine='' forwarding='' writers='' leader='' failed='' began=$SECONDS
touch "$work/answers"

compose() {
  # shellcheck disable=SC2086 # a command of one or two words
  $COMPOSE "$@"
}

fail() {
  echo "e2e-docker.sh: FAILED after $((SECONDS - began)) s: $*" >&2
  failed=1
  exit 1
}

step() {
  printf '%4d s  %s\n' $((SECONDS - began)) "$*"
}

clean_up() {
  local code=$?
  if [[ -n $failed ]]; then
    docker ps --all --filter "label=com.docker.compose.project=$project" >&2
    compose logs --no-color --tail 40 >&2
    tail -n 5 "$work/answers" "$work/writers.log" >&2
  fi
  docker rm --force --volumes "$project-writers" >/dev/null 2>&1
  compose down --volumes --timeout 1 >/dev/null 2>&1
  [[ -z $engine ]] || stop_engine
  rm -rf "$work"
  exit "$code"
}

skip() {
  echo "skipped: $*"
  rm -rf "$work"
  exit 77
}

# Waits until COMMAND succeeds.
await() { # WHAT COMMAND…
  local what=$1 deadline=$((SECONDS + wait_s))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || fail "not within $wait_s s: $what"
    sleep 0.2
  done
}

answers_engine() {
  docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

start_engine() {
  local deadline=$((SECONDS + 30))
  [[ $(id -u) == 0 ]] && command -v dockerd >/dev/null || return 1
  forwarding=$(iptables -S FORWARD 2>/dev/null | head -n 1)
  setsid dockerd >"$work/dockerd.log" 2>&1 &
  engine=$!
  until answers_engine; do
    if ! kill -0 "$engine" 2>/dev/null || ((SECONDS >= deadline)); then
      kill "$engine" 2>/dev/null
      return 1
    fi
    sleep 0.2
  done
}

stop_engine() {
  kill "$engine" && wait "$engine" 2>/dev/null
  # It leaves the machine forwarding nothing.
  [[ $forwarding != *ACCEPT ]] || iptables -P FORWARD ACCEPT
}

prepare() {
  command -v docker >/dev/null || skip "docker is not installed"
  if [[ -z ${COMPOSE:-} ]]; then
    if command -v docker-compose >/dev/null; then COMPOSE=docker-compose; else COMPOSE="docker compose"; fi
  fi
  compose version >/dev/null 2>&1 || skip "$COMPOSE is not installed"
  answers_engine || start_engine || skip "no Docker engine answers, and none can be started here"
  docker/make-base-images.sh >"$work/base.log" 2>&1 || {
    tail -n 5 "$work/base.log" >&2
    [[ -z $engine ]] || stop_engine
    skip "the base images can neither be pulled nor made"
  }
}

# --- What is there ----------------------------------------------------------------------------------------------------

build_client() {
  if [[ -z ${BIN:-} ]]; then
    cargo build --release --locked --bins -p member -p raft -p raft-client -p state-machine || fail "cargo build failed"
    BIN=${CARGO_TARGET_DIR:-target}/release
  fi
  client=$BIN/raft-client
}

# The last stage of the Dockerfile on the binaries of this machine.
build_quickly() {
  local context=docker/prebuilt name
  rm -rf "$context" && mkdir -p "$context"/{bin,scripts,docker}
  for name in member raft raft-client state-machine; do cp "$BIN/$name" "$context/bin/"; done
  cp scripts/node.sh "$context/scripts/"
  cp docker/start.sh "$context/docker/"
  {
    grep '^ARG RUNTIME_IMAGE' Dockerfile
    sed -n '/ AS runtime$/,$p' Dockerfile | sed 's|--from=build /out/|bin/|'
  } >"$context/Dockerfile"
  docker build --tag "$OUTRIGGER_IMAGE" "$context"
}

containers() { # [SERVICE]
  compose ps --quiet "$@"
}

introducer() {
  docker ps --all --quiet --filter "label=com.docker.compose.project=$project" --filter label=com.docker.compose.service=introducer
}

from_host() {
  "$client" --endpoints "127.0.0.1:$port" --timeout-ms 30000 "$@"
}

from() { # CONTAINER WORDS…
  local container=$1
  shift
  docker exec "$container" raft-client --timeout-ms 30000 "$@"
}

status_of() { # CONTAINER
  docker exec "$1" raft-client --timeout-ms 2000 --output json status 2>/dev/null
}

# Whether a container sees one lead, other than THAN; sets `leader` to the container that does.
sees_leader() { # CONTAINER [THAN]
  local status
  status=$(status_of "$1")
  [[ $status =~ \"leader\":\{[^}]*\"address\":\"([^:\"]+):6004\" ]] || return 1
  leader=${BASH_REMATCH[1]}
  [[ $leader != introducer ]] || leader=$(introducer)
  [[ $leader != "${2:-}" ]]
}

id_of() { # CONTAINER
  [[ $(status_of "$1") =~ \"id\":\"([0-9a-f]{16})\",\"last_index ]] && echo "${BASH_REMATCH[1]}"
}

# Whether a node sees a whole cluster: so many committed voters, and a leader.
sees_voters() { # CONTAINER VOTERS
  local status commas
  status=$(status_of "$1")
  [[ $status == *'"outgoing":[]'* && $status == *'"membership_committed":true'* && $status == *'"leader":{'* &&
    $status =~ \"voters\":\[([^]]+)\] ]] || return 1
  commas=${BASH_REMATCH[1]//[^,]/}
  ((${#commas} + 1 == $2))
}

# Whether a node has applied an entry, and follows or leads.
has_applied() { # CONTAINER INDEX
  local status
  status=$(status_of "$1")
  [[ $status == *'"state_machine":"attached"'* && $status == *'"leader":{'* && $status =~ \"applied_index\":([0-9]+) ]] &&
    ((BASH_REMATCH[1] >= $2))
}

# Waits until a node has applied what is committed now.
await_caught_up() { # CONTAINER
  local write
  write=$(from_host --output json PUT e2e-mark "$1") && [[ $write =~ \"index\":([0-9]+) ]] || fail "a write from the host"
  await "$1 has caught up" has_applied "$1" "${BASH_REMATCH[1]}"
}

is_healthy() { # CONTAINER
  [[ $(docker inspect -f '{{.State.Health.Status}}' "$1") == healthy ]]
}

# A worker leads from now on: `leader`.
have_worker_lead() {
  local introducer
  introducer=$(introducer)
  await "a leader" sees_leader "$introducer"
  [[ $leader == "$introducer" ]] || return 0
  docker restart --time 30 "$introducer" >/dev/null
  await "another leader than the introducer" sees_leader "$introducer" "$introducer"
}

# --- Writers ----------------------------------------------------------------------------------------------------------

now_ms() {
  local now=${EPOCHREALTIME/[.,]/}
  echo "${now%???}"
}

start_writers() {
  docker run --name "$project-writers" --init --network "${project}_default" --entrypoint bash \
    --env OUTRIGGER_ENDPOINTS=introducer:6004,worker:6004 "$OUTRIGGER_IMAGE" \
    -c "$(<docker/writers.sh)" writers.sh "$clients" counter- >>"$work/answers" 2>"$work/writers.log" &
  writers=$!
  await "the first answer to each writer" every_writer_since "$(now_ms)"
}

# Whether every writer had an answer to something that it began after a time.
every_writer_since() { # MS
  awk -v since="$1" -v clients="$clients" '$1 == "ok" && $4 >= since { seen[$2] = 1 }
    END { for (client in seen) count++; exit count < clients }' "$work/answers"
}

writes_go_on() { # WHAT
  await "$1: every writer is answered" every_writer_since "$(now_ms)"
}

# Longest time without an answer to anybody, and longest wait of one write, since a time.
stalls_since() { # MS
  awk -v since="$1" '$1 == "ok" && $5 >= since { print $5, $5 - $4 }' "$work/answers" | sort -n |
    awk -v last="$1" '{ if ($1 - last > gap) gap = $1 - last; last = $1; if ($2 > wait) wait = $2; n++ }
      END { printf "%d writes, longest stall of all %d ms, longest wait of one %d ms", n, gap, wait }'
}

failures() {
  grep -c -v '^ok ' "$work/answers"
}

stop_writers() {
  docker stop --time 60 "$project-writers" >/dev/null
  wait "$writers"
  docker rm --volumes "$project-writers" >/dev/null
}

# Every counter is what its writer was told last.
check_counters() {
  local writer count value
  ! grep '^wrong' "$work/answers" || fail "a write was lost or applied twice"
  while read -r writer count; do
    value=$(from_host GET "counter-$writer") || fail "counter-$writer cannot be read"
    [[ $value == "$count" ]] || fail "counter-$writer is $value; $count writes were acknowledged"
  done < <(awk '$1 == "ok" && $3 > count[$2] { count[$2] = $3 } END { for (c in count) print c, count[c] }' "$work/answers")
}

expect() { # WANTED COMMAND…
  local wanted=$1 got
  shift
  got=$("$@") || fail "exit code $? of: $*"
  [[ $got == "$wanted" ]] || fail "$* printed '$got' instead of '$wanted'"
}

# --- The story --------------------------------------------------------------------------------------------------------

build() {
  if [[ -n $quick ]]; then
    build_quickly >"$work/build.log" 2>&1 || { tail -n 30 "$work/build.log" >&2 && fail "the image cannot be built"; }
  else
    compose build >"$work/build.log" 2>&1 || { tail -n 30 "$work/build.log" >&2 && fail "the image cannot be built"; }
  fi
  step "the image is built"
}

up() { # WORKERS VOTERS
  compose up --detach --scale "worker=$1" >"$work/up.log" 2>&1 || { tail -n 30 "$work/up.log" >&2 && fail "up"; }
  await "$2 voters" sees_voters "$(introducer)" "$2"
}

check_from_host() { # KEY
  expect "Success! Set \"$1\" to: \"written on the host\"" from_host PUT "$1" written on the host
  expect "written on the host" from_host GET "$1"
}

check_http() {
  command -v curl >/dev/null || { step "no curl on this machine: HTTP not checked" && return; }
  curl -fsS --max-time 10 "$http/livez" >/dev/null || fail "no HTTP on the published port"
  curl -fsS --max-time 30 -X PUT --data-binary "by curl" "$http/v1/kv/curl" >/dev/null || fail "curl PUT"
  expect "by curl" curl -fsS --max-time 30 "$http/v1/kv/curl"
  expect "by curl" from_host GET curl
  step "curl writes and reads through the published port 6003"
}

kill_leading_worker() {
  have_worker_lead
  docker kill "$leader" >/dev/null
  check_from_host after-kill
  writes_go_on "docker kill of the leader"
  step "docker kill of the leader, $leader: writes go on, from the host too"
  docker start "$leader" >/dev/null
  await_caught_up "$leader"
  step "docker start: it is back, and has caught up"
}

pause_leading_worker() {
  have_worker_lead
  docker pause "$leader" >/dev/null
  check_from_host after-pause
  writes_go_on "docker pause of the leader"
  step "docker pause of the leader, $leader: writes go on, from the host too"
  docker unpause "$leader" >/dev/null
  await_caught_up "$leader"
  step "docker unpause: it has caught up"
}

kill_introducer() {
  local introducer worker
  introducer=$(introducer)
  worker=$(containers worker | head -n 1)
  docker kill "$introducer" >/dev/null
  expect 'Success! Set "no-introducer" to: "1"' from "$worker" PUT no-introducer 1
  writes_go_on "docker kill of the introducer"
  step "docker kill of the introducer: writes go on inside"
  docker start "$introducer" >/dev/null
  check_from_host after-introducer
  step "docker start: and from the host again"
}

stop_and_start() {
  local worker
  worker=$(containers worker | tail -n 1)
  docker stop --time 30 "$worker" >/dev/null
  # Five voters less one: an odd number is kept, so a fourth becomes a learner.
  await "3 voters, as one of 5 has left" sees_voters "$(introducer)" 3
  writes_go_on "docker stop of a worker"
  docker start "$worker" >/dev/null
  await_caught_up "$worker"
  await "5 voters again" sees_voters "$(introducer)" 5
  step "docker stop of a worker: it leaves, writes go on; docker start: it is a voter again"
}

replace() {
  local worker id
  worker=$(containers worker | tail -n 1)
  id=$(id_of "$worker")
  [[ -n $id ]] || fail "the worker does not say who it is"
  docker stop --time 30 "$worker" >/dev/null
  docker rm "$worker" >/dev/null
  up 4 5
  worker=$(containers worker | xargs -n 1 docker inspect -f '{{.Created}} {{.Id}}' | sort | tail -n 1)
  [[ $(id_of "${worker#* }") == "$id" ]] || fail "the new container has not taken over the node $id of the old one"
  writes_go_on "replacing a container"
  step "a worker's container is replaced by a new one: it is the same node, $id"
}

rolling_restart() {
  local container since failures_before
  since=$(now_ms)
  failures_before=$(failures)
  for container in $(containers worker) "$(introducer)"; do
    docker restart --time 30 "$container" >/dev/null
    await_caught_up "$container"
    await "5 voters again" sees_voters "$container" 5
  done
  (($(failures) == failures_before)) || fail "$(($(failures) - failures_before)) writes failed"
  step "rolling restart of all 5 under $clients clients: no failed write; $(stalls_since "$since")"
}

scale() { # WORKERS VOTERS
  up "$1" "$2"
  (($(containers worker | wc -l) == $1)) || fail "there are not $1 workers"
  writes_go_on "scaling to $1 workers"
  step "scaled to $1 workers: $2 voters, writes go on"
}

down_and_up() {
  compose down --timeout 30 >"$work/down.log" 2>&1 || { tail -n 30 "$work/down.log" >&2 && fail "down"; }
  [[ -z $(docker ps --all --quiet --filter "label=com.docker.compose.project=$project") ]] || fail "containers are left"
  step "down"
  up 4 5
  await "the introducer is healthy" is_healthy "$(introducer)"
  check_from_host after-down
  expect "written on the host" from_host GET after-kill
}

prepare
trap clean_up EXIT
trap 'exit 130' INT TERM
step "$($COMPOSE version --short 2>/dev/null), engine $(docker version --format '{{.Server.Version}}'), project $project, ports $((port - 1)) and $port"
build_client
build
up 4 5
step "up with 4 workers: 5 voters"
check_from_host pizzatoppings
step "raft-client on the host writes and reads through the published port 6004"
check_http
start_writers
kill_leading_worker
pause_leading_worker
kill_introducer
stop_and_start
replace
rolling_restart
scale 6 5
scale 2 3
stop_writers
check_counters
step "all counters are exact: $(grep -c '^ok ' "$work/answers") writes acknowledged, $(failures) calls gave up"
down_and_up
check_counters
step "down and up: everything that was acknowledged is there"
echo "e2e-docker.sh: all green in $((SECONDS - began)) s"
