# Two commands on a fresh Debian 12 with git, curl, python3 and Rust: `make demo`, `make test`.
# Each installs what is missing (or says what to install), builds and shows how far it is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := build
MAKEFLAGS += --no-print-directory

# One profile for product, tests and benchmarks: RocksDB is compiled once.
CARGO := cargo
RELEASE := --release --locked
export CARGO_TARGET_DIR ?= $(CURDIR)/target
export QUORATE_STARTED ?= $(shell date +%s)
BIN := $(CARGO_TARGET_DIR)/release
CHAOS := $(BIN)/quorate-chaos
# A retry of a commit runs the same plan of faults; another commit, another plan.
SEED ?= $(shell printf '%d' 0x$$(git rev-parse --short=12 HEAD 2>/dev/null || echo 4f11))
# The server that the fault runs of `make accept` drive: with the debug assertions of openraft.
ASSERTING := $(BIN)/quorate-asserting

step = @tests/step "$(1)" "$(2)"

.PHONY: help setup setup-build setup-clients build demo demo-etcd test check-format check-lints check-docs unit \
        tidy clients operator differential build-asserting torture power-cut hostile disk-full bit-rot snapshot-small milvus-smoke \
        planted accept bench bench-coordinator bench-pairs fuzz fuzz-short verify fix clean

help:
	@grep -E '^## ' $(MAKEFILE_LIST) | cut -c4-

## make setup      install what is missing (Debian 12, as root) or say what it is
setup:
	@tests/setup

setup-build:
	@tests/setup --build

# Clients from PyPI and crates.io, in the cache of this user and in the target directory.
setup-clients: setup
	$(call step,foreign clients,the first time 3 minutes: 100 MB from PyPI and a build of etcd-client)
	tests/venv clients tests/clients/python/requirements.txt >/dev/null
	tests/venv milvus tests/milvus/requirements.txt >/dev/null
	tests/clients/build-rust >/dev/null

## make build      target/release/quorate
build: setup-build
	$(call step,build,the first time 15 to 25 minutes on two cores; RocksDB alone takes 17 CPU minutes)
	$(CARGO) build $(RELEASE) --workspace --bins
	@mkdir -p target/release
	for name in quorate quorate-chaos; do
	    if ! [ "$(BIN)/$$name" -ef "target/release/$$name" ]; then
	        ln -sfn "$(BIN)/$$name" "target/release/$$name"
	    fi
	done

## make demo       the real Milvus with our DataCoord; the leader killed with SIGKILL while inserting
demo: setup build
	$(call step,demo,the first time 3 minutes for Milvus from PyPI; then 2 minutes)
	tests/milvus/run --kind quorate --binary $(BIN)/quorate --coordinator quorate --scenario demo

## make demo-etcd  three nodes, a workload, the leader killed with SIGKILL; prints the gap
demo-etcd: build
	$(call step,demo of the etcd side,1 minute)
	$(CHAOS) demo

## make test       everything that a change must pass: about 25 minutes after the build
test: setup
	@echo "make test: about 25 minutes after the build, on two cores"
	$(MAKE) build
	$(MAKE) check-format check-lints check-docs
	$(MAKE) setup-clients
	$(MAKE) unit tidy fuzz-short
	$(MAKE) clients operator differential
	$(MAKE) torture power-cut
	$(MAKE) hostile SECONDS_OF_ATTACKS=20
	$(MAKE) snapshot-small
	$(MAKE) disk-full
	$(MAKE) milvus-smoke
	tests/step "all green" "make test"

check-format:
	$(call step,format,1 second)
	$(CARGO) fmt --all --check

check-lints:
	$(call step,clippy,1 to 3 minutes)
	$(CARGO) clippy $(RELEASE) --workspace --all-targets --quiet -- -D warnings

# A link that leads nowhere is found by nothing else.
check-docs:
	$(call step,documentation,1 minute)
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(RELEASE) --workspace --no-deps --quiet

unit:
	$(call step,unit tests and laws and storage suite,4 minutes)
	$(CARGO) test $(RELEASE) --workspace --exclude quorate-tests --no-fail-fast

tidy:
	$(call step,tidy,2 seconds)
	chaos/planted/run --check
	$(CARGO) test $(RELEASE) -p quorate-tests --test tidy

clients:
	$(call step,real clients,2 minutes)
	$(CARGO) test $(RELEASE) -p quorate-tests --lib --test clients
	$(CARGO) test $(RELEASE) -p quorate-tests --test perf

## make fuzz-short a minute of drawn mutations for every decoder of foreign bytes
fuzz-short:
	$(call step,mutations for every decoder of foreign bytes,1 minute)
	$(CARGO) test $(RELEASE) -p quorate-tests --test fuzz -- --nocapture

operator:
	$(call step,what a person does with the binary,1 minute)
	$(CARGO) test $(RELEASE) -p quorate-tests --test operator

differential:
	$(call step,the same operations on stock etcd and on ours,1 minute)
	$(CARGO) test $(RELEASE) -p quorate-tests --test differential

# An override for the one package: a profile of its own would compile RocksDB again. The plain build
# follows, so that `quorate` is the product again; nothing is compiled for that.
build-asserting: build
	$(call step,a server with the debug assertions of openraft,the first time 4 minutes)
	$(CARGO) build $(RELEASE) --workspace --bin quorate \
	    --config 'profile.release.package.openraft.debug-assertions=true'
	cp --force $(BIN)/quorate $(ASSERTING)
	if ! [ $(ASSERTING) -ef target/release/quorate-asserting ]; then
	    ln -sfn $(ASSERTING) target/release/quorate-asserting
	fi
	$(CARGO) build $(RELEASE) --workspace --bins --quiet

# Which server the faults meet: the product, or one with openraft's assertions on
# (`make torture FAULTED="--quorate .../quorate-asserting --require-assertions"` after `make build-asserting`).
FAULTED ?= --quorate $(BIN)/quorate
SECONDS_OF_FAULTS ?= 60
torture:
	$(call step,torture with seed $(SEED),$(SECONDS_OF_FAULTS) seconds of faults and half a minute of checks)
	$(CHAOS) torture $(FAULTED) --network --seconds $(SECONDS_OF_FAULTS) \
	    --seed $(SEED)

CUTS ?= 3
power-cut:
	$(call step,$(CUTS) cuts of power with seed $(SEED),1 minute)
	$(CHAOS) power-cut $(FAULTED) --cuts $(CUTS) --seed $(SEED)

## make hostile    hostile clients beside normal ones, SECONDS_OF_ATTACKS of them
SECONDS_OF_ATTACKS ?= 60
hostile:
	$(call step,hostile clients with seed $(SEED),$(SECONDS_OF_ATTACKS) seconds of attacks and as much before and after)
	$(CHAOS) hostile --seconds $(SECONDS_OF_ATTACKS) --seed $(SEED)

## make disk-full  a leader's disk and all disks filled to the last byte, under load (root)
disk-full:
	$(call step,full disks,2 minutes)
	$(CHAOS) disk-full --whose leader,all --fill last-byte --seconds 3

## make bit-rot    bits flipped in the table files of a follower, then of the leader, under load (root)
bit-rot:
	$(call step,flipped bits with seed $(SEED),1 minute)
	$(CHAOS) bit-rot --seed $(SEED)

snapshot-small:
	$(call step,small snapshot,1 minute)
	$(CHAOS) snapshot --gib 0.05 --kills 1

milvus-smoke:
	$(call step,the real Milvus 2.3.5 with our DataCoord and the leader killed,5 minutes)
	$(CARGO) test $(RELEASE) -p quorate-tests --test milvus -- --test-threads 1

## make planted    plants one bug after the other and notes what catches it (hours; goes on where it was); writes docs/planted.md
planted: build
	$(call step,planted bugs,about 20 minutes each; it can be interrupted)
	chaos/planted/run --chaos $(CHAOS) $(PLANTED_FLAGS)

## make accept     every point that must be shown, at full size (about 5 hours, and a night for 12-5); make accept-N for one
accept: build-asserting
	tests/accept 1 2 3 4 5 6 7 4-1 4-2 4-3 4-4 4-5 4-6 4-8 12-3 12-4 12-5 12-6

accept-%: build-asserting
	tests/accept $*

## make bench      everything against its peers; writes docs/benchmarks.md and docs/benchmarks-coordinator.md
bench: setup build
	$(call step,bench,45 minutes)
	chaos/bench/run.sh $(BENCH_FLAGS)
	$(MAKE) bench-coordinator BENCH_FLAGS=

## make bench-coordinator  against Milvus's own DataCoord, and with a million segments; writes docs/benchmarks-coordinator.md
bench-coordinator: setup setup-clients build
	$(call step,bench of the coordinator,1 hour)
	chaos/bench/coordinator.py --quorate $(BIN)/quorate --chaos $(CHAOS) --etcd "$$(chaos/bench/etcd/build.sh)" \
	    $(BENCH_FLAGS)

## make bench-pairs OLD=FILE  whether this build is slower than the binary FILE, with both load generators
bench-pairs: setup-clients build
	$(call step,old and new in turn,45 minutes)
	$(CHAOS) pairs --old $(OLD) --standard-client "$$(dirname "$$(tests/clients/build-rust)")/etcd-client-load" \
	    $(BENCH_FLAGS)

FUZZ_SECONDS ?= 1600
## make fuzz       the decoders of foreign bytes guided by coverage; FUZZ_SECONDS for each (4 CPU hours in all)
fuzz:
	@tests/setup --fuzz
	$(call step,fuzz,$(FUZZ_SECONDS) seconds for each decoder; the first time a build of 20 minutes)
	tests/fuzz/guided/run $(FUZZ_SECONDS)

## make verify     the read-only checks alone: format, lints, unit tests, tidy, docs, licences
verify: setup-build check-format check-lints check-docs unit tidy
	tests/step "licences, unused crates, spelling" "where the tools are installed"
	if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check bans licenses sources; fi
	if $(CARGO) machete --version >/dev/null 2>&1; then $(CARGO) machete; fi
	if command -v typos >/dev/null; then typos; fi

## make fix        rewrites what a tool can rewrite
fix:
	$(CARGO) fmt --all
	$(CARGO) clippy $(RELEASE) --workspace --all-targets --fix --allow-dirty --allow-staged

## make clean      removes what was built in this clone (not the cache outside of it)
clean:
	$(CARGO) clean
	rm -rf target
