#!/usr/bin/env bash
# Checks that scripts/rocksdb.sh leaves a library of the caller's own alone.
set -euo pipefail
cd "$(dirname "$0")/.."

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
mkdir "$made/scripts" "$made/.cargo"
cp scripts/rocksdb.sh "$made/scripts"
written=$made/.cargo/rocksdb.toml
fail() {
    printf 'rocksdb_test: %s\n' "$*" >&2
    exit 1
}

echo "[env]" >"$written"
ROCKSDB_LIB_DIR=$made "$made/scripts/rocksdb.sh" --is-built || fail 'a library that is given is not built'
[[ -f $written ]] || fail '--is-built removed what cargo reads'
ROCKSDB_LIB_DIR=$made "$made/scripts/rocksdb.sh"
[[ ! -f $written ]] || fail 'cargo would link a static library where ROCKSDB_LIB_DIR has a shared one'
