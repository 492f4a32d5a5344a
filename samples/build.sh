#!/usr/bin/env bash
# Builds the samples' components into samples/*/NAME.wasm, and the native binaries of echo and worker into $OUT.
#
# usage: samples/build.sh [wasm|native|all]      OUT: where other files go (default: samples/target)
#
# A Rust with the target wasm32-wasip2 (rustup target add wasm32-wasip2) is used where there is one; otherwise Debian's
# rustc-web, which brings the sources of the standard library, and samples/componentize.
set -euo pipefail
cd "$(dirname "$0")"
what=${1:-all}
out=${OUT:-$PWD/target}
samples=(hello echo ticker guestbook worker)
native=(echo worker)
mkdir -p "$out"

# The samples are small: one directory for all targets, outside a workspace's own.
export CARGO_TARGET_DIR="$out/cargo"
unset RUSTC_WRAPPER RUSTFLAGS

wasm_by_rustup() {
  rustc --print target-libdir --target wasm32-wasip2 2>/dev/null | xargs -r test -d
}

build_wasm() {
  if wasm_by_rustup; then
    cargo build --release --locked --target wasm32-wasip2 --lib "${samples[@]/#/--package=}"
    for name in "${samples[@]}"; do cp "$out/cargo/wasm32-wasip2/release/$name.wasm" "$name/$name.wasm"; done
    return
  fi
  ../tests/install.sh rustc-web cargo-web rust-web-src lld-19
  local debian_rustc debian_cargo
  debian_rustc=$(dpkg -L rustc-web | grep -m1 '^/usr/bin/rustc')
  debian_cargo=$(dpkg -L cargo-web | grep -m1 '^/usr/bin/cargo')
  cargo build --release --locked --package componentize
  RUSTC=$debian_rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Clinker=wasm-ld-19" "$debian_cargo" build --release --locked \
    -Zbuild-std=std,panic_abort --target wasm32-unknown-unknown --lib "${samples[@]/#/--package=}"
  for name in "${samples[@]}"; do
    "$out/cargo/release/componentize" "$out/cargo/wasm32-unknown-unknown/release/$name.wasm" "$name/$name.wasm"
  done
}

build_native() {
  local host
  host=$(rustc -vV | sed -n 's/^host: //p')
  RUSTFLAGS="-Ctarget-feature=+crt-static" cargo build --release --locked --target "$host" "${native[@]/#/--bin=}"
  for name in "${native[@]}"; do cp "$out/cargo/$host/release/$name" "$out/$name"; done
}

case $what in
  wasm) build_wasm ;;
  native) build_native ;;
  all) build_wasm; build_native ;;
  *) echo "usage: $0 [wasm|native|all]" >&2; exit 2 ;;
esac
