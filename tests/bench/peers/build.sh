#!/usr/bin/env bash
# Builds programs that ours are measured beside: from their Go modules, wasmtime from its crate. Some minutes each the first time.
#
# usage: tests/bench/peers/build.sh OUT NAME...     (etcd, kube-apiserver, kube-scheduler, kube-controller-manager, kubelet, wasmtime)
#
# Needs Go 1.26 and the module proxy, or cargo.
set -euo pipefail
out=$(realpath -m "$1")
shift
cd "$(dirname "$0")"
mkdir -p "$out"
for name in "$@"; do
  [ ! -x "$out/$name" ] || continue
  echo "building $name; WITHOUT_PEERS=1 measures wherry alone" >&2
  if [ "$name" = wasmtime ]; then
    # The version of the library that we use. What `serve` does not use is left out.
    cargo install wasmtime-cli --version 48.0.8 --locked --root "$out/wasmtime-cli" --target-dir "$out/wasmtime-cli/target" --no-default-features \
      --features run,serve,cranelift,component-model,component-model-async,pooling-allocator,parallel-compilation,threads,gc,gc-drc,gc-null,wasi-http,logging
    mv "$out/wasmtime-cli/bin/wasmtime" "$out/wasmtime"
    rm -rf "$out/wasmtime-cli"
    continue
  fi
  command -v go >/dev/null || { echo "Go is missing: $name is built from its Go module (go.dev/dl)" >&2; exit 1; }
  go build -trimpath -ldflags '-s -w' -o "$out/$name" "./$name"
done
