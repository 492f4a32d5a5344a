#!/usr/bin/env bash
# Measures the release build: prints tables, and writes each figure as a line of JSON to target/bench/NAME.jsonl.
#
# usage: tests/bench/run.sh [OPTIONS] [NAME...]     (tests/bench/run.sh --help)
#
# WHERRY=PATH measures another binary, and builds none.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/install.sh protobuf-compiler gcc libc6-dev pkg-config nftables iproute2 util-linux wrk
target=${CARGO_TARGET_DIR:-target}
if [ -z "${WHERRY:-}" ]; then
  cargo build --release --locked -p wherry
  WHERRY=$target/release/wherry
fi
exec cargo run --quiet --locked -p wherry-bench -- --wherry "$WHERRY" --out "$target/bench" "$@"
