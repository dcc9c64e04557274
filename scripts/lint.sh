#!/usr/bin/env bash
# The checks of `make lint` beyond Rust, each with its own tool. A tool that is not installed is
# named and skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { printf 'lint: %s is not installed: %s not checked\n' "$1" "$2" >&2; }

if command -v cargo-deny >/dev/null; then
    cargo deny --locked check
else
    skip cargo-deny "licences and advisories of the dependencies are"
fi

mapfile -t scripts < <(git ls-files --cached --others --exclude-standard -- '*.sh' .ci/run)
for script in "${scripts[@]}"; do
    bash -n "$script"
done
if command -v shellcheck >/dev/null; then
    shellcheck --external-sources "${scripts[@]}"
else
    skip shellcheck "the shell scripts are only parsed,"
fi

scripts/links.sh

if command -v go >/dev/null; then
    unformatted=$(gofmt -l interop benches/peers)
    if [[ -n $unformatted ]]; then
        printf 'lint: not formatted with gofmt: %s\n' "$unformatted" >&2
        exit 1
    fi
    (cd interop/sumdb && go vet ./...)
    (cd benches/peers/nats-driver && go vet ./...)
else
    skip go "interop and the driver of NATS are"
fi

# The measurements (make bench), and the tables that are made of their results.
export PYTHONDONTWRITEBYTECODE=1
(cd benches && python3 -m unittest discover --start-directory run/tests --top-level-directory .)
PYTHONPATH=benches python3 -m run report --check
if command -v ruff >/dev/null; then
    ruff check --no-cache benches
    ruff format --no-cache --check benches
else
    skip ruff "the form of the Python in benches is"
fi
if command -v mypy >/dev/null; then
    (cd benches && mypy --strict --no-error-summary --cache-dir /dev/null run peers)
else
    skip mypy "the types of the Python in benches are"
fi

# The files for deployment. The unit's program need not be installed where it is checked.
if command -v systemd-analyze >/dev/null; then
    units=$(mktemp -d "${TMPDIR:-/tmp}/deed.XXXXXXXX")
    trap 'rm -rf "$units"' EXIT
    sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' deploy/deed-server.service \
        >"$units/deed-server.service"
    systemd-analyze verify "$units/deed-server.service"
else
    skip systemd-analyze "the systemd unit is"
fi
if docker compose version >/dev/null 2>&1; then
    docker compose config --quiet
else
    skip "docker compose" "docker-compose.yml is"
fi
if command -v promtool >/dev/null; then
    promtool check config --syntax-only deploy/prometheus.yml
else
    skip promtool "deploy/prometheus.yml is"
fi
