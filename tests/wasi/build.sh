#!/usr/bin/env bash
# Builds the guests into OUT: the module preview1.wasm, the components command.wasm and proxy.wasm; and the tool pack.
#
# usage: tests/wasi/build.sh OUT
set -euo pipefail
cd "$(dirname "$0")"
out=$1
guests=(preview1 command proxy)
export CARGO_TARGET_DIR=$out/cargo
unset RUSTC_WRAPPER RUSTFLAGS
cargo build --quiet --release --locked -p pack
cp "$CARGO_TARGET_DIR/release/pack" "$out/pack"
build=(build --quiet --release --locked --target wasm32-unknown-unknown "${guests[@]/#/--package=wasi-}")
if rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null | xargs -r test -d; then
  cargo "${build[@]}"
else
  # Debian's compiler brings the sources of the standard library.
  ../install.sh rustc-web cargo-web rust-web-src lld-19
  rustc=$(dpkg -L rustc-web | grep -m1 '^/usr/bin/rustc') cargo=$(dpkg -L cargo-web | grep -m1 '^/usr/bin/cargo')
  RUSTC=$rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Clinker=wasm-ld-19" "$cargo" "${build[@]}" -Zbuild-std=std,panic_abort
fi
built=$CARGO_TARGET_DIR/wasm32-unknown-unknown/release
cp "$built/wasi_preview1.wasm" "$out/preview1.wasm"
for name in command proxy; do
  "$out/pack" component "$built/wasi_$name.wasm" "$out/$name.wasm"
done
