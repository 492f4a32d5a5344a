#!/usr/bin/env bash
# From a fresh Debian 12 (with Rust) to WebAssembly and a container answering side by side.
#
# usage: samples/quickstart.sh [--once]      --once: stop the cluster after the answers
#
# Installs what is missing as root; without root it names the packages, and the cluster runs WebAssembly only.
# WHERRY names a binary to use instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."
once=false
[ "${1:-}" = --once ] && once=true
say() { printf '\n== %s\n' "$*"; }

root=false
[ "$(id -u)" = 0 ] && root=true
say "Packages"
tests/install.sh gcc make libc6-dev protobuf-compiler nftables iproute2 util-linux
if $root; then tests/install.sh containerd runc umoci; fi
command -v cargo >/dev/null || { echo "cargo is missing: install Rust (rustup.rs)" >&2; exit 1; }
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
kubectl=$(command -v kubectl || tests/kubectl.sh 1.37.1 "$target/tools")

wherry=${WHERRY:-}
if [ -z "$wherry" ]; then
  say "Building wherry (ten to twenty minutes, the first time)"
  cargo build --release --locked
  wherry=$target/release/wherry
fi

dir=$(mktemp -d -t wherry.XXXXXX)
export KUBECONFIG=$dir/kubeconfig
say "Starting a cluster in $dir"
: >"$dir/up.log"
"$wherry" up --data-dir "$dir/data" --kubeconfig "$KUBECONFIG" --api-port 0 >"$dir/up.log" 2>&1 &
up=$!
stop() {
  trap - EXIT
  kill "$up" 2>/dev/null || true
  wait "$up" || true
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM
# The log's reader ends with the line that says so, or with the process.
if ! grep -m 1 '^ready' < <(tail --pid="$up" -n +1 -f "$dir/up.log"); then
  cat "$dir/up.log" >&2
  exit 1
fi

kinds=(wasm)
say "Loading the sample \`echo\`: one source, built as a WebAssembly component and as a native program"
"$wherry" image load --data-dir "$dir/data" samples/echo/echo.wasm samples.wherry.dev/echo:wasm
if $root; then
  OUT=$target/samples samples/build.sh native
  samples/image.sh "$target/samples/echo.tar" /bin/echo "/bin/echo=$target/samples/echo"
  "$wherry" image load --data-dir "$dir/data" "$target/samples/echo.tar" samples.wherry.dev/echo:container
  kinds+=(container)
fi

say "Deploying it"
for kind in "${kinds[@]}"; do "$kubectl" apply -f "samples/echo/$kind.yaml"; done
for kind in "${kinds[@]}"; do "$kubectl" rollout status "deployment/echo-$kind" --timeout=60s; done
"$kubectl" get pods -o wide

say "Asking each through its Service"
for kind in "${kinds[@]}"; do
  port=$("$kubectl" get service "echo-$kind" -o 'jsonpath={.spec.ports[0].nodePort}')
  printf 'http://127.0.0.1:%s -> ' "$port"
  # bash speaks TCP: no curl needed.
  exec 3<>"/dev/tcp/127.0.0.1/$port"
  printf 'GET / HTTP/1.1\r\nhost: echo\r\nconnection: close\r\n\r\n' >&3
  answer=$(tail -n 1 <&3)
  exec 3>&-
  echo "$answer"
  [[ $answer == *" $kind" ]] || { echo "that is not the answer of a $kind" >&2; exit 1; }
done
$once && exit 0

say "The cluster runs until you press Ctrl-C. In another terminal:"
echo "  export KUBECONFIG=$KUBECONFIG"
echo "  kubectl get pods --watch"
wait "$up"
