#!/usr/bin/env bash
# Shows that tools of other projects accept a live Deed ledger, and reject it as soon as one byte of
# it is changed:
#
#   tessera   cmd/fsck of github.com/transparency-dev/tessera; version in tessera/go.mod
#   x/mod     sumdb/, a small program on golang.org/x/mod/sumdb/{note,tlog}; in sumdb/go.mod
#
# Exit status 0 if everything is as expected, else 1.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/server.sh
source scripts/server.sh

# More than 65,536 leaves give a third level of tiles.
readonly statements=71000
readonly ledger=interop
# Much longer than a check takes; Tessera's fsck can wait for ever when all its workers have failed.
readonly check_seconds=120

main() {
    build_tools
    printf 'A ledger of more than %d entries:\n' "$statements"
    start_server "$tmp/data"
    fill
    start_proxy
    check_everything
    stop_server
    if ((surprises > 0)); then
        die "$surprises of $checks checks went otherwise than they should"
    fi
    printf 'All %d checks went as they should.\n' "$checks"
}

build_tools() {
    command -v go >/dev/null || die "interop needs Go 1.25 or newer; there is none here"
    mkdir -p "$target/interop"
    tessera=$(cd "$target/interop" && pwd)/tessera-fsck
    sumdb=${tessera%/*}/sumdb
    {
        (cd interop/tessera && go build -o "$tessera" github.com/transparency-dev/tessera/cmd/fsck) &&
            (cd interop/sumdb && go build -o "$sumdb" .)
    } || die "interop needs Go 1.25 or newer, and the modules in go.sum; here is $(go version)"
    # The checker itself must reject invalid logs before its result counts.
    quietly go -C interop/sumdb test -count=1 .
    tessera_version=$(module_version "$tessera" github.com/transparency-dev/tessera)
    sumdb_version=$(module_version "$sumdb" golang.org/x/mod)
}

# module_version PROGRAM MODULE
module_version() {
    go version -m "$1" | awk -v module="$2" '$2 == module { print $3; exit }'
}

# Creates a ledger with enough entries, and reads the facts that a checker needs.
fill() {
    export DEED_SERVER=http://$server_address DEED_LEDGER=$ledger
    quietly "$deed" ledger create "$ledger"
    append 4 "$statements"
    "$deed" --json ledger show >"$tmp/ledger.json"
    origin=$(json_field origin <"$tmp/ledger.json")
    vkey=$(json_field vkey <"$tmp/ledger.json")
    size=$(json_field size <"$tmp/ledger.json")
    root=$(json_field root <"$tmp/ledger.json")
    log=http://$server_address/logs/$ledger
    printf '%s' "$vkey" >"$tmp/vkey"
    ((size > 65536)) || die "the ledger has only $size entries"
    printf '  origin %s\n  size   %s\n  root   %s\n' "$origin" "$size" "$root"
}

# append PRODUCERS STATEMENTS
append() {
    quietly "$deed" bench append --producers "$1" --statements "$2" --batch 256 \
        --payload-bytes 256 --warmup-seconds 0
}

# quietly COMMAND...: runs the command, and shows its output only if it fails.
quietly() {
    "$@" >"$tmp/quietly.out" 2>&1 || {
        tail -n 20 "$tmp/quietly.out" >&2
        die "failed: $*"
    }
}

start_proxy() {
    # One resource of each kind is changed; numbers of this size are one group of three digits.
    local tiles=$((size / 256)) last=$((size % 256))
    local parents=$((tiles / 256)) parent_last=$((tiles % 256))
    changed=(checkpoint tile/0/007 tile/1/000 tile/entries/123)
    ((last == 0)) || changed+=("tile/0/$(printf %03d $tiles).p/$last"
        "tile/entries/$(printf %03d $tiles).p/$last")
    ((parent_last == 0)) || changed+=("tile/1/$(printf %03d $parents).p/$parent_last")
    changed+=("tile/2/000.p/$parents")
    "$sumdb" tamper "$log" "${changed[@]}" >"$tmp/proxy.out" 2>"$tmp/proxy.err" </dev/null &
    proxy=http://$(listening_address "$tmp/proxy.out" $!) || die "the proxy did not begin to listen"
}

check_everything() {
    local i
    checks=0 surprises=0
    printf '\n  %-31s %-18s %-18s\n' '' "Tessera $tessera_version" "x/mod $sumdb_version"
    row 'the live log' accepted "$log" ''
    row 'through a proxy, unchanged' accepted "$proxy/honest" ''
    for i in "${!changed[@]}"; do
        row "a byte of ${changed[i]}" rejected "$proxy/$i" "changed $i ${changed[i]}"
    done
    while_it_grows
    printf '\n'
}

# A monitor reads while others write: the tiles of its checkpoint must stay readable.
while_it_grows() {
    until [[ -e $tmp/enough ]]; do
        append 1 1000
    done &
    local growth_pid=$! before=$size
    size='[0-9]*' root=
    row 'the live log while it grows' accepted "$log" ''
    touch "$tmp/enough"
    wait "$growth_pid"
    "$deed" --json ledger show >"$tmp/ledger.json"
    (($(json_field size <"$tmp/ledger.json") > before)) || die "the log did not grow meanwhile"
}

# row LABEL EXPECTED URL CHANGE: runs both tools on URL and prints their results. If CHANGE is
# given, each tool must have been served that change.
row() {
    local results=() check result
    for check in check_tessera check_sumdb; do
        local before after
        before=$(grep -cxF "$4" "$tmp/proxy.out" || true)
        result=$("$check" "$3")
        after=$(grep -cxF "$4" "$tmp/proxy.out" || true)
        if [[ -n $4 ]] && ((after == before)); then
            result="never read it"
        fi
        checks=$((checks + 1))
        if [[ $result != "$2" ]]; then
            surprises=$((surprises + 1))
            result="$result (!)"
            { printf '%s of %s:\n' "$check" "$1" && cut -c1-300 "$tmp/check.out"; } >>"$tmp/surprises"
        fi
        results+=("$result")
    done
    printf '  %-31s %-18s %-18s\n' "$1" "${results[@]}"
    if [[ -e $tmp/surprises ]]; then
        cat "$tmp/surprises" >&2
        rm "$tmp/surprises"
    fi
}

# check_tessera URL: prints `accepted` or `rejected`, or else how the tool ended. Tessera's fsck
# exits with 0 whatever it finds, so its output counts. Each of its workers ends at the first
# difference, and one changed entry makes a difference at every level: hence 8 workers.
check_tessera() {
    local status=0
    timeout "$check_seconds" "$tessera" -ui=false -N 8 -storage_url "$1" -public_key "$tmp/vkey" \
        -origin "$origin" \
        >"$tmp/check.out" 2>&1 || status=$?
    if grep 'fsck failed: ' "$tmp/check.out" | grep -qv 'get("http'; then
        echo rejected # and not: unreachable
    elif ((status == 0)) &&
        grep -q "Successfully fsck'd log with size $size and root .*$root" "$tmp/check.out"; then
        echo accepted
    else
        echo "ended with $status"
    fi
}

# check_sumdb URL: does the same with x/mod.
check_sumdb() {
    local status=0
    timeout "$check_seconds" "$sumdb" check "$1" "$vkey" >"$tmp/check.out" 2>&1 || status=$?
    if ((status == 1)) && grep -q '^sumdb: ' "$tmp/check.out"; then
        echo rejected
    elif ((status == 0)) && grep -q "^verified: size $size, root $root" "$tmp/check.out"; then
        echo accepted
    else
        echo "ended with $status"
    fi
}

main "$@"
