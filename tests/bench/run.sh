#!/usr/bin/env bash
# Measures the release build: prints tables, and writes each figure as a line of JSON to target/bench/NAME.jsonl.
#
# usage: tests/bench/run.sh [OPTIONS] [NAME...]     (tests/bench/run.sh --help)
#        tests/bench/run.sh api [OPTIONS]           the API beside kube-apiserver + etcd (tests/bench/README.md)
#
# WHERRY=PATH measures another binary, with the development build of the client.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/install.sh protobuf-compiler gcc make libc6-dev pkg-config nftables iproute2 util-linux wrk
target=${CARGO_TARGET_DIR:-target}
profile=release
[ -z "${WHERRY:-}" ] || profile=dev
# Both at once: their dependencies are then built alike.
cargo build --profile "$profile" --locked -p wherry -p wherry-bench --bins
wherry=${WHERRY:-$target/release/wherry}
if [ "${1:-}" = api ]; then
  exec tests/bench/api/run.sh "$wherry" "$target/bench" "${@:2}"
fi
exec "$target/${profile/dev/debug}/wherry-bench" --wherry "$wherry" --out "$target/bench" "$@"
