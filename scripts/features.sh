#!/usr/bin/env bash
# Checks that a package alone gives outside crates the features that the whole workspace gives them:
# otherwise `cargo test -p PACKAGE` compiles them a second time. And that RocksDB is where it belongs.
set -euo pipefail
cd "$(dirname "$0")/.."

# crates SELECTION..: each outside crate of the selection's graph, with its features.
crates() {
    cargo tree --locked --edges normal,build,dev --prefix none --format '{p} [{f}]' "$@" |
        sed -E -e '/\(\/.*\)/d' -e 's/ \(\*\)$//' -e 's/ \(proc-macro\)//' | sort -u
}

status=0
whole=$(crates --workspace)
mapfile -t packages < <(cargo tree --locked --workspace --depth 0 --prefix none --format '{p}' |
    sed -n 's/^\(deed-[a-z]*\) .*/\1/p' | sort -u)
for package in "${packages[@]}"; do
    # It has tests of nothing, and the union of what the others need.
    [[ $package != deed-features ]] || continue
    missing=$(comm -23 <(crates --package "$package") - <<<"$whole")
    if [[ -n $missing ]]; then
        # shellcheck disable=SC2016 # the backticks are for the reader
        printf 'features: `cargo test -p %s` compiles these again; say in features/Cargo.toml what the workspace has:\n' \
            "$package" >&2
        while read -r crate version features; do
            printf '    %s %s %s\n        the workspace has %s\n' "$crate" "$version" "$features" \
                "$(sed -n "s/^$crate $version //p" <<<"$whole" | paste -sd' ')" >&2
        done <<<"$missing"
        status=1
    fi
done
for package in deed-proto deed-tlog deed-evidence deed-client; do
    if cargo tree --locked --package "$package" --edges all --prefix none | grep -q rocksdb; then
        printf 'features: RocksDB is in the graph of %s\n' "$package" >&2
        status=1
    fi
done
exit $status
