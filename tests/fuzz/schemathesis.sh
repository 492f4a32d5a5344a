#!/usr/bin/env bash
# Sends requests that Schemathesis makes from the OpenAPI documents to a new cluster: no answer may be a 5xx.
#
# usage: tests/fuzz/schemathesis.sh WHERRY [CASES PER OPERATION [PHASES]]     default: 40 (some 20,000 requests), and fuzzing
#
# All groups are gone through. PHASES may be fuzzing,coverage: coverage has no bound (100,000 requests for core/v1 alone).
# Proxies are left out: what they answer is a backend's answer, or 503 where there is none.
# Needs python3 with venv, and kubectl. Reports are written to target/fuzz/schemathesis.
set -euo pipefail
wherry=$(realpath "$1") cases=${2:-40} phases=${3:-fuzzing}
cd "$(dirname "$0")/../.."
out=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz/schemathesis
mkdir -p "$out"
[ -x "$out/venv/bin/st" ] || { python3 -m venv "$out/venv"; "$out/venv/bin/pip" install --quiet schemathesis==4.32.5; }

dir=$(mktemp -d)
"$wherry" up --data-dir "$dir/data" --kubeconfig "$dir/kubeconfig" --api-port 0 >"$out/server.log" 2>&1 &
server=$!
trap 'kill $server; wait $server || true; rm -rf "$dir"' EXIT
for _ in $(seq 600); do
  ! grep -q '^ready' "$out/server.log" || break
  kill -0 $server || { cat "$out/server.log"; exit 1; }
  sleep 0.1
done
export KUBECONFIG=$dir/kubeconfig
config() { kubectl config view --raw -o "jsonpath={$1}"; }
url=$(config .clusters[0].cluster.server)
config .clusters[0].cluster.certificate-authority-data | base64 -d >"$dir/ca.pem"
config .users[0].user.client-certificate-data | base64 -d >"$dir/client.pem"
config .users[0].user.client-key-data | base64 -d >"$dir/key.pem"
# A watch is answered for as long as it is asked for: what matters is how it begins.
printf '[parameters]\n"query.watch" = false\n"query.follow" = false\n' >"$dir/schemathesis.toml"

failed=0
for path in $(kubectl get --raw /openapi/v3 | python3 -c 'import json, sys; print(*json.load(sys.stdin)["paths"])'); do
  name=${path//\//_}
  kubectl get --raw "/openapi/v3/$path" >"$dir/$name.json"
  echo "== $path"
  # Where it runs it leaves a directory of what it found.
  (cd "$out" && "$out/venv/bin/st" --config-file "$dir/schemathesis.toml" run "$dir/$name.json" --url "$url" --tls-verify "$dir/ca.pem" \
    --request-cert "$dir/client.pem" --request-cert-key "$dir/key.pem" --request-timeout 20 --workers 2 \
    --phases "$phases" --exclude-path-regex '/proxy' --checks not_a_server_error --max-examples "$cases" --seed 1 --continue-on-failure \
    --suppress-health-check all --warnings off >"$out/$name.log" 2>&1) || { failed=1; echo "failed: $out/$name.log"; }
  grep -E 'generated|passed|failed' "$out/$name.log" | tail -3
done
exit $failed
