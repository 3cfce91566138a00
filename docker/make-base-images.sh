#!/usr/bin/env bash
# Makes stand-ins for the two base images of our Dockerfile, for machines that have a Docker engine but no registry.
#
#   make-base-images.sh            make what is missing and cannot be pulled
#   make-base-images.sh --clean    remove the stand-ins, never a genuine image, and their cached archives
#
# The runtime image is a minimal Debian from the distribution's packages. The build image is the same with a C compiler,
# which the real rust:…-slim has too, and a copy of this machine's Rust toolchain. Needs root, a Debian mirror, and the
# toolchain; the archives are kept, so a second engine gets its images within seconds. By environment:
#
#   DOCKER         the docker command                                              [docker]
#   CACHE_DIR      where the archives are kept         [$XDG_CACHE_HOME/outrigger or ~/.cache/outrigger]
#   TRY_PULL       0: do not even try                                              [1]
#   RUNTIME_ONLY   1: no build image                                               [0]
#
# A stand-in trusts the certificate authorities that were added to this machine: do not push one.
set -euo pipefail
readonly root=${BASH_SOURCE[0]%/*}/..

readonly docker=${DOCKER:-docker} cache=${CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/outrigger}
readonly try_pull=${TRY_PULL:-1} runtime_only=${RUNTIME_ONLY:-0} pull_timeout_s=600
readonly label=outrigger.stand-in own_authorities=/usr/local/share/ca-certificates
readonly build_packages=(ca-certificates gcc libc6-dev)

say() {
  echo "make-base-images.sh: $*"
}

fail() {
  say "$*" >&2
  exit 1
}

usage() {
  sed -n '4,5s/^#   //p' "$0" >&2
  exit 2
}

# What the Dockerfile wants, so that it is said in one place.
wanted() { # ARGUMENT
  local image
  image=$(sed -n "s/^ARG $1=//p" "$root/Dockerfile")
  [[ $image == *:*bookworm* ]] || fail "cannot make the $1 of the Dockerfile, '$image': only Debian bookworm is known here"
  echo "$image"
}

is_there() { # IMAGE
  "$docker" image inspect "$1" >/dev/null 2>&1
}

is_stand_in() { # IMAGE
  [[ -n $("$docker" image inspect -f "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null) ]]
}

# Whether an image has to be made here.
is_missing() { # IMAGE
  if is_there "$1"; then
    say "$1 is there"
  elif [[ $try_pull != 0 ]] && timeout "$pull_timeout_s" "$docker" pull --quiet "$1" >/dev/null 2>&1; then
    say "$1 pulled"
  else
    return 0
  fi
  return 1
}

clean() {
  local image
  for image in "$runtime_image" "$build_image"; do
    # An image that was built from a stand-in has its label too; so these names, and only with the label.
    if is_stand_in "$image"; then
      "$docker" rmi "$image" >/dev/null 2>&1 || say "$image stays: a container uses it" >&2
    fi
  done
  rm -f "$cache"/runtime-*.tar "$cache"/build-*.tar
  say "cleaned"
}

# --- Root file systems ------------------------------------------------------------------------------------------------

# Sets `work`, a directory for root file systems.
begin_work() {
  [[ -z $work ]] || return 0
  [[ $(id -u) == 0 ]] || fail "no registry can be reached, and making the images here needs root"
  work=$(mktemp -d "$cache/work.XXXXXX")
}

run() { # WHAT COMMAND…
  local what=$1
  shift
  say "$what"
  "$@" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2 && fail "failed: $what"; }
}

install() { # ROOT PACKAGES…
  local tree=$1
  shift
  chroot "$tree" apt-get update -q &&
    DEBIAN_FRONTEND=noninteractive chroot "$tree" apt-get install -q -y --no-install-recommends "$@"
}

pack() { # DIRECTORY ARCHIVE
  tar -C "$1" --numeric-owner --one-file-system -cf "$2.part" . && mv "$2.part" "$2"
}

# Leaves out what the real slim images leave out, now and at any later installation.
slim() { # DIRECTORY
  local what
  mkdir -p "$1/etc/dpkg/dpkg.cfg.d" "$1/etc/apt/apt.conf.d"
  for what in doc man info locale lintian linda groff; do echo "path-exclude=/usr/share/$what/*"; done >"$1/etc/dpkg/dpkg.cfg.d/docker"
  echo 'path-include=/usr/share/doc/*/copyright' >>"$1/etc/dpkg/dpkg.cfg.d/docker"
  echo 'Acquire::Languages "none";' >"$1/etc/apt/apt.conf.d/docker-no-languages"
  rm -rf "${1:?}"/usr/share/{man,info,locale,lintian,linda,groff}/* "$1"/var/cache/apt/archives/*.deb "$1"/var/cache/apt/*.bin \
    "$1"/var/lib/apt/lists/* "$1"/var/log/{bootstrap.log,alternatives.log,dpkg.log,apt/*}
  find "$1/usr/share/doc" \( -type f -o -type l \) ! -name copyright -delete
}

make_runtime_archive() {
  begin_work
  if ! command -v debootstrap >/dev/null; then
    command -v apt-get >/dev/null || fail "no registry can be reached, and there is no debootstrap to make the images with"
    run "installing debootstrap" install / debootstrap
  fi
  run "a minimal Debian bookworm, about 40 s" debootstrap --variant=minbase bookworm "$work/runtime"
  # Behind a proxy that opens TLS, its authority is needed: an image that installs ca-certificates then trusts it.
  mkdir -p "$work/runtime$own_authorities"
  cp -L "$own_authorities"/*.crt "$work/runtime$own_authorities/" 2>/dev/null || true
  : >"$work/runtime/etc/resolv.conf"
  echo localhost >"$work/runtime/etc/hostname"
  slim "$work/runtime"
  pack "$work/runtime" "$runtime_archive"
}

# Not by this repository's toolchain file: that may name one that would have to be fetched first.
rust() {
  (cd / && "$@")
}

make_build_archive() {
  local tree toolchain sysroot host part program
  command -v rustc >/dev/null || fail "no rustc on this machine to make the build image with"
  begin_work
  tree=$work/build
  mkdir "$tree"
  tar -C "$tree" --numeric-owner -xpf "$runtime_archive"
  cp -L /etc/resolv.conf "$tree/etc/resolv.conf"
  run "packages of the build image, about 20 s" install "$tree" "${build_packages[@]}"
  : >"$tree/etc/resolv.conf"
  slim "$tree"
  # Laid out as in the real image.
  host=$(rust rustc -vV | sed -n 's/^host: //p')
  sysroot=$(rust rustc --print sysroot)
  toolchain=$tree/usr/local/rustup/toolchains/$rust_version-$host
  mkdir -p "$toolchain" "$tree/usr/local/cargo/bin"
  # Not share/, which holds 800 MB of manuals.
  for part in bin lib libexec etc; do [[ ! -e $sysroot/$part ]] || cp -a "$sysroot/$part" "$toolchain/"; done
  for program in "$toolchain"/bin/*; do
    ln -s "../../rustup/toolchains/$rust_version-$host/bin/${program##*/}" "$tree/usr/local/cargo/bin/${program##*/}"
  done
  chown -R 0:0 "$tree/usr/local/rustup" "$tree/usr/local/cargo"
  chmod -R a+rwX "$tree/usr/local/cargo"
  pack "$tree" "$build_archive"
}

import() { # ARCHIVE IMAGE MORE…
  local archive=$1 image=$2
  shift 2
  "$docker" import -c "LABEL $label=1" -c 'CMD ["bash"]' "$@" "$archive" "$image" >/dev/null
  say "$image made"
}

main() {
  local need_runtime='' need_build='' cargo=/usr/local/cargo
  case $# in
    0) ;;
    1) [[ $1 == --clean ]] || usage ;;
    *) usage ;;
  esac
  "$docker" version --format '{{.Server.Version}}' >/dev/null 2>&1 || fail "no Docker engine answers"
  mkdir -p "$cache"
  # Of two runs at once the second waits, and then finds nothing to do.
  exec {lock}>"$cache/lock"
  flock "$lock"
  if (($# == 1)); then
    clean
    return
  fi
  if is_missing "$runtime_image"; then need_runtime=1; fi
  if [[ $runtime_only == 0 ]] && is_missing "$build_image"; then need_build=1; fi
  [[ -n $need_runtime$need_build ]] || return 0

  rust_version=$(rust rustc -V 2>/dev/null | cut -d' ' -f2) || rust_version=none
  runtime_archive=$cache/runtime-bookworm-$(uname -m).tar
  build_archive=$cache/build-bookworm-$(uname -m)-$rust_version.tar
  trap 'rm -rf "$work"' EXIT
  [[ -s $runtime_archive ]] || make_runtime_archive
  [[ -z $need_runtime ]] || import "$runtime_archive" "$runtime_image"
  [[ -n $need_build ]] || return 0
  [[ -s $build_archive ]] || make_build_archive
  import "$build_archive" "$build_image" -c "ENV RUSTUP_HOME=/usr/local/rustup" -c "ENV CARGO_HOME=$cargo" \
    -c "ENV PATH=$cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

work='' rust_version='' runtime_archive='' build_archive=''
runtime_image=$(wanted RUNTIME_IMAGE)
build_image=$(wanted RUST_IMAGE)
readonly runtime_image build_image
main "$@"
