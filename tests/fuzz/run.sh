#!/usr/bin/env bash
# Runs the fuzz targets under libFuzzer, with coverage.
#
# usage: tests/fuzz/run.sh [SECONDS [TARGET...]]     default: 600 seconds for each target
#
# A finding is written to target/fuzz/TARGET/ and ends the run with an error; what to do with it: mend the code and
# commit the input as a seed. New inputs are kept in target/fuzz/TARGET/corpus.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-600}
shift || true
[ $# -gt 0 ] || set -- body patch selector quantity request
../install.sh gcc g++ libc6-dev
target=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")/fuzz
tools=$target/tools
[ -x "$tools/bin/cargo-fuzz" ] || cargo install --locked --root "$tools" cargo-fuzz
# The stable compiler has the coverage, not the sanitizers; safe Rust needs none.
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$target/build
for name in "$@"; do
  mkdir -p "$target/$name/corpus"
  echo "== $name: $seconds s"
  (cd libfuzzer && WHERRY_TARGET=$name "$tools/bin/cargo-fuzz" run --fuzz-dir . --sanitizer none any \
    "$target/$name/corpus" "../seeds/$name" -- -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 \
    -max_len=65536 -print_final_stats=1 -artifact_prefix="$target/$name/" 2>&1 | grep -v '^#[0-9]')
done
