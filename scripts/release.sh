#!/usr/bin/env bash
# Packs both programs, the licence and the documentation into one archive. The same commit and
# programs give the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
host=$(rustc -vV | sed -n 's/^host: //p')
name=deed-$version-$host
dist=$target/dist

rm -rf "${dist:?}/$name"
mkdir -p "$dist/$name"
cp "$target/release/deed" "$target/release/deed-server" LICENSE "$dist/$name"
# The pages link to each other, and to files of the repository where they speak of the code.
cp -R README.md CHANGELOG.md ARCHITECTURE.md CONTRIBUTING.md docs deploy "$dist/$name"
strip --strip-debug "$dist/$name/deed" "$dist/$name/deed-server"
epoch=$(git log -1 --format=%ct 2>/dev/null || echo 0)
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" \
    --directory "$dist" "$name" | gzip -n >"$dist/$name.tar.gz"
rm -rf "${dist:?}/$name"
(cd "$dist" && sha256sum "$name.tar.gz" | tee "$name.tar.gz.sha256")
