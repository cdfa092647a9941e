#!/bin/sh
# Builds the etcd that the benchmark names, outside the repository, and prints where it lies.
# Needs Go; where Go is missing, prints Debian's etcd instead if that is installed.
set -eu
version=3.7.3
cache="${XDG_CACHE_HOME:-$HOME/.cache}/quorate/etcd-$version"
if [ -x "$cache/etcd" ]; then
    echo "$cache/etcd"
    exit 0
fi
if ! command -v go >/dev/null 2>&1; then
    if [ -x /usr/bin/etcd ]; then
        echo "no Go here: comparing against Debian's etcd" >&2
        echo /usr/bin/etcd
        exit 0
    fi
    echo "neither Go nor etcd here: apt-get install etcd-server, or install Go" >&2
    exit 1
fi
echo "building etcd $version from its Go module (about three minutes, once)" >&2
here="$(cd "$(dirname "$0")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp "$here/go.mod" "$here/etcd.go" "$work/"
cd "$work"
go mod tidy >&2
mkdir -p "$cache"
go build -o "$cache/etcd.new" .
mv "$cache/etcd.new" "$cache/etcd"
echo "$cache/etcd"
