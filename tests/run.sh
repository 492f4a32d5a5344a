#!/usr/bin/env bash
# Installs what the tests need and runs all of them.
#
# usage: tests/run.sh [ARGUMENTS OF cargo test]
#
# As root it installs missing Debian packages; otherwise it names them, and the tests that need root say that they are
# left out.
set -euo pipefail
cd "$(dirname "$0")/.."

build=(protobuf-compiler gcc make libc6-dev pkg-config)
cluster=(containerd runc nftables iproute2 util-linux)
clients=(docker-registry skopeo umoci busybox-static curl openssl redis-server apache2-utils wrk)
components=(rustc-web cargo-web rust-web-src lld-19)
tests/install.sh "${build[@]}" "${cluster[@]}" "${clients[@]}" "${components[@]}"
command -v cargo >/dev/null || { echo "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer (rustup.rs)" >&2; exit 1; }

tools=${CARGO_TARGET_DIR:-target}/tools
newest=$(tests/kubectl.sh 1.37.1 "$tools")
# The oldest that is tested: the machine's own, or 1.36 where it has none.
oldest=$(command -v kubectl || tests/kubectl.sh 1.36.3 "$tools")
export WHERRY_KUBECTLS="$oldest:$newest"

echo "testing with kubectl: $WHERRY_KUBECTLS"
exec cargo test --locked --workspace --lib --bins --tests --no-fail-fast "$@"
