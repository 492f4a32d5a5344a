#!/usr/bin/env bash
# Builds the images that the suite's Pods ask for, keeps them in a registry on loopback and writes the registries.yaml that
# leads a cluster there.
#
# usage: tests/conformance/images.sh DIR     (DIR: the images' work; DIR/registries.yaml goes into the data directory)
#
# The registry keeps running in the background; its process id is in DIR/registry.pid. agnhost is built from the suite's
# own module, busybox from its authors' sources; the rest is made of Debian's packages. Needs root, Go, docker-registry, umoci,
# skopeo, a C compiler and make.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p "$1"
dir=$(realpath "$1")
port=${PORT:-5055}
e2e=registry.k8s.io/e2e-test-images

cat >"$dir/registries.yaml" <<YAML
mirrors:
  registry.k8s.io:
    endpoint: ["http://127.0.0.1:$port"]
YAML
if ! curl -fs "http://127.0.0.1:$port/v2/" >/dev/null; then
  cat >"$dir/registry.yml" <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $dir/registry}}
http: {addr: "127.0.0.1:$port"}
YAML
  docker-registry serve "$dir/registry.yml" >"$dir/registry.log" 2>&1 &
  echo $! >"$dir/registry.pid"
  until curl -fs "http://127.0.0.1:$port/v2/" >/dev/null; do sleep 0.1; done
fi

# busybox as its authors release it, from the source that Debian keeps: Debian's own has a patch by which its shell drops variables
# whose names are no identifiers, and specs are about such names.
build_busybox() {
  [ -x "$dir/busybox-build/busybox" ] && return
  mkdir -p "$dir/busybox-build" "$dir"/apt/{lists,cache/archives}/partial
  echo "deb-src http://deb.debian.org/debian bookworm main" >"$dir/apt/sources.list"
  local options=(-qq -o Dir::Etc::SourceList="$dir/apt/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$dir/apt/lists"
    -o Dir::Cache="$dir/apt/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update
  (cd "$dir/apt" && apt-get "${options[@]}" source --download-only busybox)
  tar -C "$dir/busybox-build" --strip-components=1 -xf "$dir"/apt/busybox_*.orig.tar.*
  (cd "$dir/busybox-build" && make -s defconfig && sed -i 's/^# CONFIG_STATIC is not set/CONFIG_STATIC=y/' .config && make -s -j"$(nproc)") \
    >"$dir/busybox.log" 2>&1
}

# A root with a shell and the usual commands. Upstream's images are of Alpine Linux, and a spec reads that in one of them: the file
# says the same, and what it really is.
base() {
  build_busybox
  mkdir -p "$1"/{bin,tmp,etc,uploads,root}
  chmod 1777 "$1/tmp"
  cp "$dir/busybox-build/busybox" "$1/bin/busybox"
  for command in $("$1/bin/busybox" --list); do [ "$command" = busybox ] || ln -sf busybox "$1/bin/$command"; done
  printf '%s\n' 'NAME="Alpine Linux"' ID=alpine 'VARIANT="a stand-in made of busybox alone"' >"$1/etc/os-release"
  printf 'root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/:/bin/sh\n' >"$1/etc/passwd"
  printf 'root:x:0:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n' >"$1/etc/group"
}

# Debian packages with all that they depend on, laid out without their scripts.
debian() {
  local root=$1 downloads
  shift
  mkdir -p "$root"/{etc,tmp,run,var/log}
  chmod 1777 "$root/tmp"
  downloads=$(mktemp -d)
  (cd "$downloads" && apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances "$@" | grep '^[a-z]' | sort -u | grep -v -e ':i386$' -e '^debconf-2' | xargs -n 1 sh -c 'apt-get download -qq "$1" 2>/dev/null || true' fetch)
  for package in "$downloads"/*.deb; do dpkg-deb -x "$package" "$root"; done
  rm -r "$downloads"
  cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
  cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
  [ -e "$root/bin/sh" ] || ln -s dash "$root/bin/sh"
}

# push ROOT IMAGE [CONFIGURATION FOR umoci ...]: an image of one layer.
push() {
  local root=$1 name=${2#registry.k8s.io/} layout
  shift 2
  layout=$(mktemp -d)
  umoci init --layout "$layout/oci"
  umoci new --image "$layout/oci:image"
  umoci insert --image "$layout/oci:image" "$root" / >/dev/null
  umoci config --image "$layout/oci:image" --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
  skopeo copy -q --dest-tls-verify=false "oci:$layout/oci:image" "docker://127.0.0.1:$port/$name"
  rm -r "$layout"
  echo "pushed $name"
}

has() { skopeo inspect -n --tls-verify=false "docker://127.0.0.1:$port/${1#registry.k8s.io/}" >/dev/null 2>&1; }

if ! has $e2e/busybox:1.37.0-1; then
  base "$dir/busybox"
  push "$dir/busybox" $e2e/busybox:1.37.0-1 --config.cmd sh
fi
if ! has $e2e/agnhost:2.55; then
  [ -x "$dir/agnhost" ] || CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$dir/agnhost" k8s.io/kubernetes/test/images/agnhost
  base "$dir/agnhost-root"
  cp "$dir/agnhost" "$dir/agnhost-root/agnhost"
  ln -sf agnhost "$dir/agnhost-root/agnhost-2"
  cp "$(go list -f '{{.Dir}}' k8s.io/kubernetes/test/images/agnhost)"/porter/localhost.{crt,key} "$dir/agnhost-root/"
  # The second tag is what the suite updates to and from.
  for tag in 2.63.0 2.55; do
    push "$dir/agnhost-root" $e2e/agnhost:$tag --config.entrypoint /agnhost --config.cmd pause
  done
  mkdir -p "$dir/pause-root"
  cp "$dir/agnhost" "$dir/pause-root/pause"
  push "$dir/pause-root" registry.k8s.io/pause:3.10.2 --config.entrypoint /pause --config.cmd pause
fi
for animal in kitten nautilus; do
  if ! has $e2e/$animal:1.8; then
    sources=$(go list -f '{{.Dir}}' k8s.io/kubernetes/test/images/agnhost)
    cp -r "$dir/agnhost-root" "$dir/$animal"
    cp "$sources/../$animal/html/"* "$dir/$animal/"
    push "$dir/$animal" $e2e/$animal:1.8 --config.entrypoint /agnhost --config.cmd test-webserver
  fi
done
if ! has $e2e/nginx:1.27-0; then
  debian "$dir/nginx" nginx-light dash coreutils base-passwd
  for tag in 1.15-4 1.27-0; do
    push "$dir/nginx" $e2e/nginx:$tag --config.entrypoint nginx --config.cmd -g --config.cmd 'daemon off;'
  done
fi
if ! has $e2e/nonewprivs:1.4; then
  # A program that belongs to root and says as whom it runs.
  mkdir -p "$dir/nonewprivs"
  CGO_ENABLED=0 go build -trimpath -o "$dir/nonewprivs/nnp" k8s.io/kubernetes/test/images/nonewprivs
  chmod +s "$dir/nonewprivs/nnp"
  push "$dir/nonewprivs" $e2e/nonewprivs:1.4 --config.entrypoint /nnp
fi
if ! has $e2e/nonroot:1.5; then
  base "$dir/nonroot"
  push "$dir/nonroot" $e2e/nonroot:1.5 --config.user 1234 --config.entrypoint id --config.entrypoint -u
fi
has $e2e/perl:5.26 || { debian "$dir/perl" perl dash coreutils base-passwd; push "$dir/perl" $e2e/perl:5.26 --config.cmd sh; }
echo "registry: 127.0.0.1:$port, $dir/registries.yaml"
