#!/usr/bin/env bash
# The decoders of foreign bytes under a fuzzer that is guided by coverage. Needs a nightly toolchain and a C++ compiler.
#
#   scripts/fuzz.sh [SECONDS] [TARGET…]   each target, or those that are named, for so long (60)
#   scripts/fuzz.sh build                 only builds
#   scripts/fuzz.sh list                  the targets
#
# What was found worth keeping stays in target/fuzz/found/TARGET and is the start of the next run. The corpora that the tests
# replay (*/fuzz/corpus/TARGET) are made anew by MERGE=1: from themselves and from what was found, the smallest inputs with
# the same coverage. An input that breaks a decoder is left in target/fuzz/broken. JOBS targets (2) run at a time, and RUNS
# ends each after so many executions, if its time is not over before.
set -uo pipefail
cd "${BASH_SOURCE[0]%/*}/.." || exit 1

host=$(rustc -vV | sed -n 's/^host: //p')
work=${CARGO_TARGET_DIR:-target}/fuzz
packages=(raft member state-machine)
# Kept of each target besides its seeds (seed-*) and what once broke it (case-*), the shortest first.
MOST_INPUTS=200
# What `cargo fuzz` says to the compiler, without a sanitizer: nothing here is unsafe.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"

build() {
  local package
  for package in "${packages[@]}"; do
    cargo +nightly build --release --locked --manifest-path "$package/fuzz/Cargo.toml" --target "$host" --target-dir "$work/build" || return 1
  done
}

targets() { # PACKAGE
  sed -nE 's/^.*name: "([a-z_]+)",.*$/\1/p' "$1/tests/decoders/bodies/mod.rs"
}

package_of() { # TARGET
  local package
  for package in "${packages[@]}"; do
    if targets "$package" | grep -x "$1" >/dev/null; then
      echo "$package"
      return
    fi
  done
  echo "scripts/fuzz.sh: no target $1" >&2
  return 1
}

fuzz() { # SECONDS TARGET
  local package binary corpus found="$work/found/$2"
  package=$(package_of "$2") || return 1
  binary="$work/build/$host/release/$package-fuzz" corpus="$package/fuzz/corpus/$2"
  mkdir -p "$found" "$work/broken" "$corpus"
  if [[ -n ${MERGE:-} ]]; then
    merge "$2" "$binary" "$corpus" "$found"
    return
  fi
  TARGET=$2 "$binary" -max_total_time="$1" -runs="${RUNS:--1}" -max_len="${MAX_LEN:-8192}" -timeout=10 -rss_limit_mb=512 -print_final_stats=1 \
    -artifact_prefix="$work/broken/$2-" "$found" "$corpus" >"$work/$2.log" 2>&1 &
  local process=$! code executions corpus_inputs
  wait "$process"
  code=$?
  rm -rf "/dev/shm/decoders-$package-fuzz-$process" "${TMPDIR:-/tmp}/decoders-$package-fuzz-$process"
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$2.log")
  corpus_inputs=$(find "$found" -type f | wc -l)
  printf '%-16s %12s executions, %6d inputs found, cover %s\n' "$2" "${executions:-?}" "$corpus_inputs" \
    "$(grep -o 'cov: [0-9]*' "$work/$2.log" | tail -n 1 | tr -dc 0-9)"
  if ((code != 0)); then
    echo "scripts/fuzz.sh: $2 is BROKEN, see $work/$2.log:" >&2
    grep -aE 'panicked|SUMMARY|Test unit written' -A 3 "$work/$2.log" >&2
    return 1
  fi
}

# The smallest set of inputs that covers as much, in the place of the old one.
merge() { # TARGET BINARY CORPUS FOUND
  local small="$work/small/$1"
  rm -rf "$small" && mkdir -p "$small"
  TARGET=$1 "$2" -set_cover_merge=1 -max_len=2048 -rss_limit_mb=512 "$small" "$3" "$4" >"$work/$1.log" 2>&1 || return 1
  find "$3" -type f ! -name 'seed-*' ! -name 'case-*' -delete
  find "$small" -type f -printf '%s %p\n' | sort -n | head -n "$MOST_INPUTS" | cut -d ' ' -f 2 | xargs -r cp -t "$3"
  printf '%-16s %6d inputs kept\n' "$1" "$(find "$3" -type f | wc -l)"
}

seconds=60
case ${1:-} in
  list)
    for package in "${packages[@]}"; do targets "$package"; done
    exit
    ;;
  build)
    build
    exit
    ;;
  [0-9]*) seconds=$1 && shift ;;
esac
mapfile -t chosen < <(if (($# > 0)); then printf '%s\n' "$@"; else for package in "${packages[@]}"; do targets "$package"; done; fi)
build || exit 1
failed=0
for target in "${chosen[@]}"; do
  while (($(jobs -rp | wc -l) >= ${JOBS:-2})); do
    wait -n || failed=1
  done
  fuzz "$seconds" "$target" &
done
while (($(jobs -p | wc -l) > 0)); do
  wait -n || failed=1
done
exit "$failed"
