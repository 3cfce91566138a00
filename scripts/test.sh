#!/usr/bin/env bash
# The gate: what must hold before a change lands. CI runs the same and nothing else.
#
#   scripts/test.sh            everything
#   scripts/test.sh --quick    50 simulation seeds instead of 1,000; no worlds, mutants, documentation, dependencies, release build, real
#                                clusters, nothing outside of the workspace
set -uo pipefail
cd "${BASH_SOURCE[0]%/*}/.." || exit 1

quick=
case ${1:-} in
  '') ;;
  --quick) quick=1 ;;
  *) sed -n '4,6s/^#   //p' "$0" >&2 && exit 2 ;;
esac

work=$(mktemp -d) nemesis=
trap 'rm -rf "$work"' EXIT

# What runs in the background does not hear an interrupt from the terminal.
interrupted() {
  trap '' INT TERM HUP
  [[ -z $nemesis ]] || { kill "$nemesis" && wait "$nemesis"; } 2>/dev/null
  exit 130
}
trap interrupted INT TERM HUP

# A stage that finds out only when it runs that it cannot, says why in `skipped`.
skipped=
stage() { # NAME COMMAND…
  local name=$1 began=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  if "$@"; then
    if [[ -n $skipped ]]; then
      printf '  %-14s skipped: %s\n' "$name" "$skipped" >>"$work/times"
      skipped=
      return
    fi
    echo "-- $name: ok, $((SECONDS - began)) s"
    printf '  %-14s %5d s\n' "$name" $((SECONDS - began)) >>"$work/times"
  else
    printf '\nscripts/test.sh: FAILED in %s, after %d s: %s\n' "$name" $((SECONDS - began)) "$*"
    exit 1
  fi
}

skip() { # NAME REASON
  printf '\n== %s\nskipped: %s\n' "$1" "$2"
  printf '  %-14s skipped: %s\n' "$1" "$2" >>"$work/times"
}

# Outside the workspace, but of its libraries: they must not stay behind.
outside=(scripts/etcd-bench proof/processes raft/fuzz member/fuzz state-machine/fuzz)
# libFuzzer is C++.
command -v c++ >/dev/null || no_cxx=1

format() {
  local package
  cargo fmt --all --check || return 1
  for package in "${outside[@]}"; do cargo fmt --manifest-path "$package/Cargo.toml" --check || return 1; done
}

outside() {
  local package
  for package in "${outside[@]}"; do
    if [[ -n ${no_cxx:-} && $package == */fuzz ]]; then
      echo "$package: skipped, there is no C++ compiler"
      continue
    fi
    cargo clippy --manifest-path "$package/Cargo.toml" --all-targets --target-dir "${CARGO_TARGET_DIR:-target}" --locked -- -D warnings || return 1
  done
}

scripts() {
  local script
  for script in scripts/*.sh docker/*.sh .ci/run; do bash -n "$script" || return 1; done
  if command -v shellcheck >/dev/null; then
    shellcheck scripts/*.sh docker/*.sh .ci/run
  else
    echo "skipped: shellcheck is not installed; syntax only"
  fi
}

tests() {
  if [[ -n $quick ]]; then export SEEDS=50; fi
  cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$work/tests"
}

documentation() {
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --locked --no-deps
}

dependencies() {
  if ! cargo deny --version >/dev/null 2>&1; then
    scripts/dependencies.sh && skip advisories "cargo-deny is not installed (cargo install cargo-deny --locked)"
    return
  fi
  cargo deny --locked check --hide-inclusion-graph licenses bans sources || return 1
  if timeout 120 cargo deny --locked fetch db; then
    cargo deny --locked check --disable-fetch advisories
  else
    skip advisories "no advisory database can be reached"
  fi
}

# The optimised-for-tests builds of stage `binaries`: with debug assertions, and built already.
worlds() {
  "${CARGO_TARGET_DIR:-target}/debug/simulate" --seeds 300 --chaos 120
}

# The nemesis mostly waits; the copy of the sources with the mutants is built meanwhile.
mutants_and_nemesis() {
  local code=0
  BIN=${CARGO_TARGET_DIR:-target}/debug scripts/nemesis.sh --ci >"$work/nemesis" 2>&1 &
  nemesis=$!
  scripts/mutants.sh --ci || code=1
  wait "$nemesis" || code=1
  nemesis=
  cat "$work/nemesis"
  return "$code"
}

# With the binaries of stage `smoke`: the Dockerfile would build them once more, which takes five minutes. Where no engine is to be had
# it says so itself.
containers() {
  local code
  scripts/e2e-docker.sh --quick | tee "$work/containers"
  code=${PIPESTATUS[0]}
  skipped=$(sed -n 's/^skipped: //p' "$work/containers")
  ((code == 77)) || return "$code"
}

# Sums cargo's own "test result" lines.
count_tests() {
  local passed=0 failed=0 ignored=0 line
  while read -r line; do
    [[ $line =~ ([0-9]+)\ passed\;\ ([0-9]+)\ failed\;\ ([0-9]+)\ ignored ]] || continue
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2])) ignored=$((ignored + BASH_REMATCH[3]))
  done < <(grep '^test result:' "$work/tests")
  echo "$passed tests passed, $failed failed, $ignored ignored"
}

stage format format
stage scripts scripts
stage lints cargo clippy --workspace --all-targets --locked -- -D warnings
# Tests that start real processes find them beside themselves.
stage binaries cargo build --workspace --bins --locked
stage tests tests
if [[ -z $quick ]]; then
  stage worlds worlds
  stage faults mutants_and_nemesis
  stage documentation documentation
  stage dependencies dependencies
  stage outside outside
  stage processes scripts/processes.sh
  stage smoke scripts/smoke.sh
  stage containers containers
else
  for name in worlds faults documentation dependencies outside processes smoke containers; do skip "$name" "--quick"; done
fi

printf '\n'
cat "$work/times"
echo "scripts/test.sh: all green in $SECONDS s: $(count_tests)"
