#!/usr/bin/env bash
# Installs, upgrades, rolls back, tests and uninstalls a chart with ten kinds by Helm 4.
#
# usage: run.sh KUBECONFIG HELM IMAGE      (IMAGE: one that the nodes can have, with /bin/sleep and /bin/true)
set -euo pipefail
export KUBECONFIG=$1
helm=$2 image=$3
chart=$(dirname "$0")/chart
release=ten-$RANDOM
namespace=clients-helm-$release
message() { kubectl -n "$namespace" get configmap "$release" -o jsonpath='{.data.message}'; }
expect() { [ "$2" = "$3" ] || { echo "$1: found '$2', wanted '$3'" >&2; exit 1; }; }
in=(--namespace "$namespace" --timeout 90s)

"$helm" install "$release" "$chart" "${in[@]}" --create-namespace --set "image=$image" --wait >/dev/null
expect installed "$(message)" first
expect "ready Pods" "$(kubectl -n "$namespace" get deployment "$release" -o jsonpath='{.status.readyReplicas}')" 1
"$helm" upgrade "$release" "$chart" "${in[@]}" --set "image=$image,message=second,replicas=2" --wait >/dev/null
expect upgraded "$(message)" second
expect "ready Pods" "$(kubectl -n "$namespace" get deployment "$release" -o jsonpath='{.status.readyReplicas}')" 2
"$helm" rollback "$release" 1 "${in[@]}" --wait >/dev/null
expect "rolled back" "$(message)" first
expect revisions "$("$helm" history "$release" --namespace "$namespace" -o json | grep -o '"revision":' | wc -l)" 3
"$helm" test "$release" "${in[@]}" >/dev/null
"$helm" uninstall "$release" "${in[@]}" --wait >/dev/null
left=$(kubectl -n "$namespace" get configmap,secret,serviceaccount,role,rolebinding,service,deployment,pdb,ingress,cronjob -o name | grep -c "/$release\$" || true)
expect "objects left" "$left" 0
kubectl delete namespace "$namespace" --wait=false >/dev/null
echo "ok: $("$helm" version --template '{{.Version}}'), ten kinds"
