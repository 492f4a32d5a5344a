#!/usr/bin/env bash
# Makes an OCI image of programs of this machine, as a tar of an OCI layout.
#
# usage: samples/image.sh OUT.tar ENTRYPOINT PATH=FILE...
#
# Each FILE is put at PATH, with the shared libraries that it needs.
set -euo pipefail
"$(dirname "$0")/../tests/install.sh" umoci
out=$(realpath -m "$1")
entrypoint=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

umoci init --layout "$work/layout"
umoci new --image "$work/layout:latest"
umoci unpack --image "$work/layout:latest" "$work/bundle"
root=$work/bundle/rootfs
mkdir -p "$root"/{dev,etc,proc,sys,tmp,data}
chmod 1777 "$root/tmp"
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
for pair in "$@"; do
  path=${pair%%=*} file=${pair#*=}
  install -D -m 755 "$(realpath "$file")" "$root$path"
  # The loader prints each library with its path; a static program has none.
  { ldd "$file" 2>/dev/null || true; } | sed -n 's#^[^/]*\(/[^ ]*\) .*#\1#p' | sort -u | while read -r library; do
    install -D -m 755 "$(realpath "$library")" "$root$library"
  done
done
umoci repack --image "$work/layout:latest" "$work/bundle"
umoci config --image "$work/layout:latest" --config.entrypoint "$entrypoint" --config.env PATH=/bin:/usr/bin --config.workingdir /
umoci gc --layout "$work/layout"
tar -C "$work/layout" -cf "$out" .
