# Everything is built in one profile with one set of features, which features/Cargo.toml keeps the
# same for every selection of packages: each further combination would compile much again. (RocksDB
# is built once for all of them, by scripts/rocksdb.sh.)
# CARGO_TARGET_DIR of the environment is respected.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

export CARGO_TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))

ALL := --release --workspace --locked
# The two programs, without what only tests and benches need.
PROGRAMS := --bins

.PHONY: help
help:
	@echo "make demo      see Deed work: a server, two agents, receipts, a proof, a forgery"
	@echo "make test      formatting, lints, documentation and all tests"
	@echo
	@echo "make setup     install what is missing (Debian, Ubuntu); the others do it themselves"
	@echo "make build     deed and deed-server, in $(CARGO_TARGET_DIR)/release"
	@echo "make lint      formatting, lints, documentation, dependencies, shell, Go and Python"
	@echo "make bench     two minutes of deed bench on a server of its own, with tables"
	@echo "make bench-peers      Deed beside PostgreSQL, Tessera and NATS, in turns: the ratios"
	@echo "make bench-full       all of it and a ledger of 100,000,000 leaves; fills docs/performance.md"
	@echo "make bench-criterion  the Criterion benches of the parts"
	@echo "make harm      a minute of each attack on a real server, and what others feel of it"
	@echo "make interop   Tessera's fsck and x/mod against a live ledger (needs Go)"
	@echo "make release   an archive of both programs, in $(CARGO_TARGET_DIR)/dist"

.PHONY: setup
setup:
	@scripts/setup.sh

.PHONY: build
build: setup
	cargo build $(ALL) $(PROGRAMS)

.PHONY: demo
demo:
	@scripts/say-build.sh
	@scripts/setup.sh
	cargo build $(ALL) $(PROGRAMS)
	@demo/run.sh

# The programs are built first: the end-to-end tests start them from the target directory.
.PHONY: test
test: check build
	cargo test $(ALL) --no-fail-fast

# What needs nothing but Rust, and Python for the order of the layers.
.PHONY: check
check: setup
	scripts/rocksdb_test.sh
	scripts/layers.py --self-test
	scripts/layers.py
	cargo fmt --all --check
	cargo clippy $(ALL) --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc $(ALL) --no-deps
	@scripts/features.sh

.PHONY: lint
lint: check
	@scripts/lint.sh

# Measurements of the programs as they are installed (benches/run/). DEED_BIN_DIR names a directory
# with deed and deed-server that are built already; nothing is built then.
MEASURE := PYTHONPATH=benches PYTHONDONTWRITEBYTECODE=1 python3 -m run
MEASURED := $(if $(DEED_BIN_DIR),,build)

.PHONY: bench
bench: $(MEASURED)
	@$(MEASURE) bench

.PHONY: bench-peers
bench-peers: $(MEASURED)
	@$(MEASURE) peers

# On a machine that does nothing else. Writes a file to benches/results/ and the tables from it.
.PHONY: bench-full
bench-full: $(MEASURED)
	$(if $(DEED_BIN_DIR),,cargo bench --workspace --locked --bench assess -- policy/waits)
	@$(MEASURE) full

.PHONY: bench-report
bench-report:
	@$(MEASURE) report

.PHONY: bench-criterion
bench-criterion: setup
	cargo bench --workspace --locked --bench '*'

# On a machine that does nothing else: what is measured is the server.
.PHONY: harm
harm: export DEED_HARM_SECONDS := $(or $(DEED_HARM_SECONDS),60)
harm: export DEED_READERS_CONNECTIONS := $(or $(DEED_READERS_CONNECTIONS),150)
harm: build
	cargo test $(ALL) --no-fail-fast --test harm --test harm_doors --test harm_readers -- \
		--nocapture --test-threads 1

.PHONY: interop
interop: build
	@interop/run.sh

.PHONY: release
release: build
	@scripts/release.sh
