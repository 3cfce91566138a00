#!/usr/bin/env bash
# Checks every dependency's licence, name and source against deny.toml, with nothing but cargo. `cargo deny check` does
# the same and more, but takes minutes to install; scripts/test.sh prefers it where it is there.
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

# The quoted entries of a list in deny.toml, one per line.
list() { # KEY
  sed -n "/^$1 = \[/,/^\]/s/^  //p" deny.toml
}

declare -A allowed=() excepted=()
while IFS='"' read -r _ licence _; do allowed[$licence]=1; done < <(list allow)
while IFS='"' read -r _ crate _ licence _; do excepted["$crate $licence"]=1; done < <(list exceptions)

# Evaluates an SPDX expression: every licence becomes 1 or 0, and AND binds closer than OR there as here.
acceptable() { # CRATE EXPRESSION
  local word sum='' expression=${2//\// OR }
  expression=${expression// WITH /+WITH+}
  expression=${expression//\(/ ( }
  for word in ${expression//)/ ) }; do
    case $word in
      AND) sum+='&&' ;;
      OR) sum+='||' ;;
      '(' | ')') sum+=$word ;;
      *) word=${word//+/ } && sum+=${allowed[$word]:-${excepted["$1 $word"]:-0}} ;;
    esac
  done
  [[ -n $sum ]] && ((sum))
}

licences() {
  local licence crate
  while IFS='|' read -r licence crate; do
    crate=${crate%% *}
    acceptable "$crate" "$licence" || echo "licence of $crate: '$licence' is not allowed"
  done <<<"$packages"
}

bans() {
  local crate reason
  while IFS='"' read -r _ crate _ reason _; do
    ! grep -qx "name = \"$crate\"" Cargo.lock || echo "crate $crate is banned: $reason"
  done < <(list deny)
}

# Nothing from git, and all from one registry: the first crate ever locked came from the default one.
sources() {
  local found
  found=$(sed -n 's/^source = "\(.*\)"$/\1/p' Cargo.lock | sort -u)
  [[ $found == registry+* && $found != *$'\n'* ]] || printf 'sources are more than one registry: %s\n' "$found"
}

packages=$(cargo tree --workspace --locked --all-features --target all --edges normal,build,dev --prefix none \
  --format '{l}|{p}' | sed -e '/^$/d' -e 's/ (\*)$//' | sort -u)
complaints=$(licences && bans && sources)
if [[ -n $complaints ]]; then
  printf 'dependencies are not as deny.toml demands:\n%s\n' "$complaints" >&2
  exit 1
fi
echo "licences, bans and sources of $(wc -l <<<"$packages") crates are as deny.toml demands"
