#!/usr/bin/env bash
# Builds RocksDB as a static library, once for this machine, and tells cargo where it is. Every
# profile, package selection and checkout then links the same library. Without this script cargo
# compiles RocksDB's 343 files one by one, in each target directory and profile anew.
#
#   scripts/rocksdb.sh             build what is missing, write .cargo/rocksdb.toml
#   scripts/rocksdb.sh --remove    remove .cargo/rocksdb.toml: cargo builds RocksDB itself
#   scripts/rocksdb.sh --is-built  exit with 0 if nothing has to be compiled, else with 1
#
# The sources are those of the crate librocksdb-sys that Cargo.lock names. They are compiled in
# groups, each as one translation unit: headers are most of the work, and a group reads them once.
# (RocksDB's own Makefile has such a build, `unity.a`.) A group that a compiler does not take
# whole is compiled file by file. -O2 is what RocksDB's Makefile uses.
#
# Environment:
#   ROCKSDB_LIB_DIR    if set, cargo uses the library there, and this script does nothing
#   DEED_ROCKSDB_DIR   where libraries are kept (default: ~/.cache/deed/rocksdb)
#   CXX                the compiler (default: c++)
set -euo pipefail
cd "$(dirname "$0")/.."

readonly config=.cargo/rocksdb.toml
readonly files_of_a_group=24
# A group takes up to 1.8 GB while it is compiled.
readonly group_kib=$((2 * 1024 * 1024))

say() { printf 'rocksdb: %s\n' "$*" >&2; }

if [[ ${1:-} == --remove ]]; then
    rm -f "$config"
    exit
fi
if [[ -n ${ROCKSDB_LIB_DIR:-} ]]; then
    # The ROCKSDB_STATIC in it would hold for the caller's library too.
    [[ ${1:-} == --is-built ]] || rm -f "$config"
    exit
fi
if [[ $(uname -sm) != 'Linux x86_64' ]]; then
    [[ ${1:-} != --is-built ]] || exit 1
    # Elsewhere the crate knows the flags: cargo compiles RocksDB.
    rm -f "$config"
    exit
fi

# Prints the directory of the crate's sources.
sources() {
    local metadata
    metadata=$(cargo metadata --locked --format-version 1) || return
    grep -o '"manifest_path":"[^"]*/librocksdb-sys-[^"/]*/Cargo.toml"' <<<"$metadata" |
        head -n 1 | sed 's/.*:"\(.*\)\/Cargo.toml"/\1/'
}

cxx=${CXX:-c++}
crate=$(sources)
[[ -n $crate ]] || {
    say 'cargo metadata does not name librocksdb-sys; is Cargo.lock complete?'
    exit 1
}

# As librocksdb-sys' build.rs has them for Linux with the target-cpu of .cargo/config.toml.
flags=(
    -O2 -fPIC -ffunction-sections -fdata-sections -w
    -march=x86-64-v2 -mpclmul
    -std=c++20 -include cstdint
    -I"$crate/rocksdb/include" -I"$crate/rocksdb" -I"$crate"
    -DNDEBUG=1 -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION -DOS_LINUX
    -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT
    -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT
)

# Another version, compiler or flag is another library.
key=$({ "$cxx" --version | head -n 1 && printf '%s\n' "${flags[@]//$crate/}"; } | sha256sum)
kept=${DEED_ROCKSDB_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/deed/rocksdb}
mkdir -p "$kept"
kept=$(cd "$kept" && pwd)
library=$kept/${crate##*/librocksdb-sys-}-${key:0:12}
if [[ ${1:-} == --is-built ]]; then
    [[ -f $library/librocksdb.a ]] && exit 0
    exit 1
fi

# Compiles the files that the file $1 names. The objects' names begin with its name.
compile_group() {
    local group=$1 source path
    sed 's|.*|#include "&"|' "$group" >"$group.cc"
    if "$cxx" "@$work/flags" -c "$group.cc" -o "$group.o" 2>"$group.log"; then
        return
    fi
    rm -f "$group.o"
    while read -r source; do
        path=$crate/rocksdb/$source
        [[ -f $path ]] || path=$crate/$source
        "$cxx" "@$work/flags" -c "$path" -o "$group.${source//\//_}.o" || return
    done <"$group"
}

build() {
    local jobs available
    printf '"%s"\n' "${flags[@]}" >"$work/flags"
    # build_version.cc stands beside the sources, with the version's numbers filled in.
    { grep -v '^util/build_version.cc$' "$crate/rocksdb_lib_sources.txt" && echo build_version.cc; } |
        split --lines "$files_of_a_group" --numeric-suffixes --suffix-length 3 - "$work/group"
    jobs=$(nproc)
    available=$(awk '/MemAvailable/ { print $2 }' /proc/meminfo)
    ((available / group_kib < jobs)) && jobs=$((available / group_kib))
    ((jobs > 0)) || jobs=1
    export -f compile_group
    export cxx crate work
    printf '%s\0' "$work"/group??? |
        xargs -0 -P "$jobs" -n 1 bash -c 'compile_group "$1"' compile_group
    ar crs "$work/librocksdb.a" "$work"/*.o
}

if [[ ! -f $library/librocksdb.a ]]; then
    say 'building RocksDB once for this machine: 5 to 15 minutes on two cores'
    # Two builds at once would be twice the wait.
    exec 9>"$kept/lock"
    flock 9
    if [[ ! -f $library/librocksdb.a ]]; then
        work=$(mktemp -d "$kept/.build.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        build
        mkdir -p "$library"
        mv "$work/librocksdb.a" "$library/.librocksdb.a"
        mv "$library/.librocksdb.a" "$library/librocksdb.a"
        say "built in $SECONDS seconds"
    fi
fi

wanted="# Written by scripts/rocksdb.sh; \`scripts/rocksdb.sh --remove\` removes it.
[env]
ROCKSDB_LIB_DIR = '$library'
ROCKSDB_STATIC = '1'"
if [[ ! -f $config || $(<"$config") != "$wanted" ]]; then
    printf '%s\n' "$wanted" >"$config"
fi
