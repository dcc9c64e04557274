#!/usr/bin/env bash
# Says what the build before the demo is about to do, and how long that takes.
set -euo pipefail
cd "$(dirname "$0")/.."

cores=$(getconf _NPROCESSORS_ONLN)
programs=$CARGO_TARGET_DIR/release
# Minutes of one core, measured on two slow ones.
rocksdb=16 rust=20
if [[ -x $programs/deed && -x $programs/deed-server ]]; then
    printf 'demo: building deed and deed-server: seconds, if nothing has changed\n'
elif command -v cargo >/dev/null && scripts/rocksdb.sh --is-built 2>/dev/null; then
    printf 'demo: building deed and deed-server: about %s minutes on %s cores; RocksDB is built already\n' \
        "$((rust / cores + 1))" "$cores"
else
    printf 'demo: building RocksDB (C++), once for this machine, and then deed and deed-server:\n'
    printf 'demo: about %s and %s minutes on %s cores; later builds take seconds\n' \
        "$((rocksdb / cores + 1))" "$((rust / cores + 1))" "$cores"
fi
