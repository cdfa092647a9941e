#!/bin/sh
# What `make bench` runs: finds or builds etcd, then measures. Flags are passed on.
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}/release"
etcd="$("$here/etcd/build.sh")"
exec "$target/quorate-chaos" bench --quorate "$target/quorate" --etcd "$etcd" \
    --output "$root/docs/benchmarks.md" "$@"
