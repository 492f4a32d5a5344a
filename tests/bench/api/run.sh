#!/usr/bin/env bash
# Measures the API beside kube-apiserver + etcd, which it builds from their Go modules: some minutes the first time.
#
# usage: tests/bench/api/run.sh WHERRY OUT [OPTIONS]     (options: the client's own, see its -help)
#
# Needs Go 1.26 and the module proxy; everything it starts listens on loopback.
set -euo pipefail
wherry=$(realpath "$1") out=$(realpath -m "$2")
shift 2
cd "$(dirname "$0")"
bin=$out/bin
../peers/build.sh "$bin" etcd kube-apiserver
go build -o "$bin/api" .
exec "$bin/api" -wherry "$wherry" -kube-apiserver "$bin/kube-apiserver" -etcd "$bin/etcd" -out "$out/api.jsonl" "$@"
