#!/usr/bin/env bash
# Says what the build before the demo is about to do, and how long that takes.
set -euo pipefail

cores=$(getconf _NPROCESSORS_ONLN)
programs=$CARGO_TARGET_DIR/release
if [[ -x $programs/deed && -x $programs/deed-server ]]; then
    printf 'demo: building deed and deed-server: seconds, if nothing has changed\n'
elif compgen -G "$programs/build/librocksdb-sys-*/out/librocksdb.a" >/dev/null; then
    printf 'demo: building deed and deed-server: some minutes; RocksDB is built already\n'
else
    # Measured on two slow cores: 83 minutes of one core for everything, tests and benches included.
    printf 'demo: building deed and deed-server, the first time about %s minutes on %s cores: most of it\n' \
        "$((80 / cores + 1))" "$cores"
    printf 'demo: is RocksDB (C++), of which cargo shows nothing meanwhile; later builds take seconds\n'
fi
