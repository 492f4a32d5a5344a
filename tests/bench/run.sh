#!/usr/bin/env bash
# Measures the release build, and beside it what others use for the same: prints tables, and writes each figure as a line of JSON to
# target/bench/NAME.jsonl. What is measured beside it is built here the first time, which takes long; WITHOUT_PEERS=1 leaves it out.
#
# usage: tests/bench/run.sh [OPTIONS] [NAME...]     (tests/bench/run.sh --help); with nothing said, all but `micro`: about two hours
#        tests/bench/run.sh api [OPTIONS]           the API beside kube-apiserver + etcd (tests/bench/README.md)
#        tests/bench/run.sh growth [--sizes N,...]  some of them at several sizes: curves in target/bench/growth.svg
#        tests/bench/run.sh micro [FILTER]          decisions, decoding and managed fields one at a time, by criterion
#
# WHERRY=PATH measures another binary, with the development build of the client.
set -euo pipefail
cd "$(dirname "$0")/../.."
# A backtrace for every error, those that nobody sees among them, would be measured as well.
export RUST_BACKTRACE=0
tests/install.sh protobuf-compiler gcc make libc6-dev pkg-config nftables iproute2 util-linux wrk openssl docker-registry containerd runc containernetworking-plugins
[ "${1:-}" != micro ] || exec cargo bench --locked -p wherry-bench --features micro --bench micro -- "${@:2}"
target=${CARGO_TARGET_DIR:-target}
profile=release
[ -z "${WHERRY:-}" ] || profile=dev
# Both at once: their dependencies are then built alike.
cargo build --profile "$profile" --locked -p wherry -p wherry-bench --bins
wherry=${WHERRY:-$target/release/wherry}
if [ "${1:-}" = api ]; then
  exec tests/bench/api/run.sh "$wherry" "$target/bench" "${@:2}"
fi
[[ " $* " != *" --help "* ]] || WITHOUT_PEERS=1
bench=$target/${profile/dev/debug}/wherry-bench
peers=()
if [ -z "${WITHOUT_PEERS:-}" ]; then
  mapfile -t needed < <("$bench" --wherry "$wherry" --out "$target/bench" --list-peers "$@")
  mkdir -p "$target/bench/bin"
  cp "$(dirname "$bench")/bare-server" "$target/bench/bin"
  tests/bench/peers/build.sh "$target/bench/bin" "${needed[@]}"
  peers=(--peers "$target/bench/bin")
fi
"$bench" --wherry "$wherry" --out "$target/bench" "${peers[@]}" "$@"
[ $# -gt 0 ] || [ -n "${WITHOUT_PEERS:-}" ] || exec tests/bench/api/run.sh "$wherry" "$target/bench"
