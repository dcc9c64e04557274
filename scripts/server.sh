# shellcheck shell=bash
# For scripts that run a deed-server of their own: on a free port of 127.0.0.1, in a directory of
# its own, ended by its process id. Source this file; it sets `tmp` to a directory that is removed
# when the script ends, however it ends.

target=${CARGO_TARGET_DIR:-target}
deed=$target/release/deed
deed_server=$target/release/deed-server
for program in "$deed" "$deed_server"; do
    if [[ ! -x $program ]]; then
        printf '%s is missing: run make build\n' "$program" >&2
        exit 1
    fi
done

tmp=$(mktemp -d "${TMPDIR:-/tmp}/deed.XXXXXXXX")
server_pid=
server_address=
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The caller's own settings must have no effect.
unset DEED_SERVER DEED_LEDGER
export DEED_STATE=$tmp/state

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

clean_up() {
    local status=$?
    trap - EXIT INT TERM
    local pid
    for pid in $(jobs -rp); do # what the script has in the background
        [[ $pid != "$server_pid" ]] || continue
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    [[ -z $server_pid ]] || stop_server || status=1
    rm -rf "$tmp"
    exit "$status"
}

# wait_for SECONDS COMMAND...: repeats the command until it succeeds, for at most SECONDS.
wait_for() {
    local tries=$(($1 * 20))
    shift
    until "$@"; do
        ((tries-- > 0)) || return 1
        sleep 0.05
    done
}

# Succeeds as soon as FILE has the line `listening on ADDRESS` or process PID has ended.
has_address_or_ended() {
    grep -q '^listening on ' "$1" || ! kill -0 "$2" 2>/dev/null
}

# listening_address FILE PID: prints the address on which a process that was just started listens.
listening_address() {
    wait_for 30 has_address_or_ended "$1" "$2" || return 1
    sed -n 's/^listening on //p' "$1" | grep . | head -n 1
}

# start_server DATA_DIR: sets server_pid and server_address.
start_server() {
    NO_COLOR=1 DEED__ADMIN__LISTEN=none "$deed_server" run --data-dir "$1" --listen 127.0.0.1:0 \
        >"$tmp/server.out" 2>"$tmp/server.err" </dev/null &
    server_pid=$!
    # shellcheck disable=SC2034 # for the script that sources this
    server_address=$(listening_address "$tmp/server.out" "$server_pid") || {
        tail -n 20 "$tmp/server.err" >&2
        die "deed-server did not begin to listen"
    }
}

ended() { ! kill -0 "$1" 2>/dev/null; }

# Ends the server by SIGTERM as an operator does, and fails unless it ends cleanly and in time.
stop_server() {
    local pid=$server_pid status=0
    server_pid=
    kill -TERM "$pid" 2>/dev/null || true
    if ! wait_for 30 ended "$pid"; then
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        printf 'deed-server did not end within 30 s of SIGTERM\n' >&2
        return 1
    fi
    wait "$pid" || status=$?
    if ((status != 0)); then
        tail -n 20 "$tmp/server.err" >&2
        printf 'deed-server ended with %d\n' "$status" >&2
        return 1
    fi
}

# json_field NAME: prints a string or number of a flat JSON object on standard input.
json_field() {
    sed -n 's/.*"'"$1"'": *"\{0,1\}\([^",}]*\).*/\1/p' | head -n 1
}
