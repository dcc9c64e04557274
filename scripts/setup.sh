#!/usr/bin/env bash
# Makes sure that everything is there to build Deed: Rust with rustfmt and clippy, a C++ compiler
# (RocksDB is compiled from source), libclang with its headers (its bindings are generated),
# Python for the checks, and RocksDB itself, built once for this machine.
# Installs packages only if something is missing, and only where that needs no question.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

if ! command -v cargo >/dev/null; then
    say "cargo is missing: install Rust 1.95 or newer, see https://rustup.rs"
    exit 1
fi

for component in rustfmt clippy; do
    command=cargo-${component/rustfmt/fmt}
    if ! command -v "$command" >/dev/null || ! "$command" --version >/dev/null 2>&1; then
        if ! command -v rustup >/dev/null; then
            say "$component is missing and there is no rustup to add it"
            exit 1
        fi
        say "adding Rust's $component"
        rustup component add "$component"
    fi
done

# bindgen loads libclang.so when it runs, and needs the compiler's own headers (stddef.h).
has_libclang() {
    local dir
    [[ -n ${LIBCLANG_PATH:-} ]] && return 0
    for dir in /usr/lib/llvm-*/lib /usr/lib /usr/lib64 /usr/lib/*-linux-gnu /usr/local/lib; do
        if compgen -G "$dir/libclang.so*" >/dev/null || compgen -G "$dir/libclang-*.so*" >/dev/null; then
            compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null && return 0
            compgen -G '/usr/lib*/clang/*/include/stddef.h' >/dev/null && return 0
            compgen -G '/usr/local/lib/clang/*/include/stddef.h' >/dev/null && return 0
        fi
    done
    return 1
}

packages=()
command -v c++ >/dev/null || command -v g++ >/dev/null || packages+=(g++)
has_libclang || packages+=(libclang-dev)
# scripts/layers.py reads Cargo.toml, which Python can from 3.11 on.
has_python() { python3 -c 'import tomllib' 2>/dev/null; }
has_python || packages+=(python3)
((${#packages[@]})) || exec scripts/rocksdb.sh

if ! command -v apt-get >/dev/null; then
    say "missing (named as in Debian): ${packages[*]}; install them with this system's tools"
    exit 1
fi
as_root=()
if ((EUID != 0)); then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
        say "missing packages, which need root to install. Please run:"
        say "    sudo apt-get install ${packages[*]}"
        exit 1
    fi
    as_root=(sudo -n)
fi
say "installing ${packages[*]}"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${packages[@]}"
has_libclang || {
    say "libclang-dev is installed but libclang was not found; set LIBCLANG_PATH to its directory"
    exit 1
}
has_python || say "python3 is older than 3.11: make demo works, make check and make test need a newer one"
exec scripts/rocksdb.sh
