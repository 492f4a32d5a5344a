#!/usr/bin/env bash
# Runs specs of the official Kubernetes suite and prints how many passed, by area.
#
# usage: tests/conformance/run.sh [NAMES FILE] [ARGUMENTS OF THE SUITE]
#
# NAMES FILE has the full name of a spec on each line; without it all conformance specs are run. The cluster is the one of
# $KUBECONFIG, else one of two nodes that is started for it (by $WHERRY, else target/debug/wherry) and stopped afterwards.
# Results, a line a spec, are left in $OUT/results.tsv (OUT: target/conformance). Needs Go 1.26 and the module proxy; the
# first build takes some ten minutes.
set -euo pipefail
names=
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then names=$(realpath -e "$1"); shift; fi
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
out=$(realpath -m "${OUT:-$root/target/conformance}")
mkdir -p "$out"
command -v go >/dev/null || { echo "Go is missing: the suite is built from its Go modules (go.dev/dl)" >&2; exit 1; }
suite=${SUITE:-$out/conformance.test}
[ -n "${SUITE:-}" ] || go test -c -o "$suite" .

if [ -z "${KUBECONFIG:-}" ]; then
  wherry=${WHERRY:-$root/target/debug/wherry}
  KUBECONFIG=$out/kubeconfig
  "$wherry" up --data-dir "$out/data" --kubeconfig "$KUBECONFIG" --api-port 0 --nodes 2 >"$out/wherry.log" 2>&1 &
  server=$!
  trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null' EXIT
  until grep -q '^ready' "$out/wherry.log"; do
    kill -0 "$server" 2>/dev/null || { cat "$out/wherry.log" >&2; exit 1; }
    sleep 0.2
  done
fi

"$suite" -test.timeout 0 -kubeconfig "$KUBECONFIG" -provider local -report-dir "$out" -disable-log-dump \
  -dump-logs-on-failure=false -e2e-verify-service-account=true \
  ${names:+-names "$names"} -table "$out/results.tsv" -kubectl-path "${KUBECTL:-$(command -v kubectl)}" \
  -ginkgo.no-color -ginkgo.silence-skips "$@" 2>&1 | tee "$out/suite.log" | sed -n '/^area /,$p'
