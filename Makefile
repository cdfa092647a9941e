# Two commands on a fresh Debian 12 with git, curl, python3 and Rust: `make demo`, `make test`.
# Each installs what is missing (or says what to install), builds and shows how far it is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.ONESHELL:

# One profile for product, tests and benchmarks: RocksDB is compiled once.
CARGO := cargo
RELEASE := --release --locked
export CARGO_TARGET_DIR ?= $(CURDIR)/target
export QUORATE_STARTED ?= $(shell date +%s)
BIN := $(CARGO_TARGET_DIR)/release

step = @tests/step "$(1)" "$(2)"

.PHONY: help setup setup-build build test verify fix clean check-format check-lints unit tidy

help:
	@grep -E '^## ' $(MAKEFILE_LIST) | cut -c4-

## make setup      install what is missing (Debian 12, as root) or say what it is
setup:
	@tests/setup

setup-build:
	@tests/setup --build

## make build      target/release/quorate
build: setup-build
	$(call step,build,the first time 15 to 25 minutes on two cores: RocksDB alone takes 17 CPU minutes)
	$(CARGO) build $(RELEASE) --workspace --bins
	@mkdir -p target/release
	for name in quorate quorate-chaos; do
	    if [ -e "$(BIN)/$$name" ] && ! [ "$(BIN)/$$name" -ef "target/release/$$name" ]; then
	        ln -sfn "$(BIN)/$$name" "target/release/$$name"
	    fi
	done

## make test       everything that a change must pass: at most 15 minutes after the build
test: setup
	@echo "make test: budget 15 minutes after the build, on two cores"
	$(MAKE) build
	$(MAKE) check-format check-lints
	$(MAKE) unit
	$(MAKE) tidy
	tests/step "all green" "done"

check-format:
	$(call step,format,1 second)
	$(CARGO) fmt --all --check

check-lints:
	$(call step,clippy,1 minute)
	$(CARGO) clippy $(RELEASE) --workspace --all-targets --quiet -- -D warnings

unit:
	$(call step,unit tests / laws / storage suite,3 minutes)
	$(CARGO) test $(RELEASE) --workspace --exclude quorate-tests

tidy:
	$(call step,tidy,2 seconds)
	$(CARGO) test $(RELEASE) -p quorate-tests --test tidy

## make verify     the read-only checks alone: format, lints, unit tests, tidy, docs, licences
verify: setup-build check-format check-lints unit tidy
	$(call step,documentation,1 minute)
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(RELEASE) --workspace --no-deps --quiet
	for tool in deny machete typos; do
	    case $$tool in
	    deny) run="cargo deny check bans licenses sources" ;;
	    machete) run="cargo machete" ;;
	    typos) run="typos" ;;
	    esac
	    if command -v "cargo-$$tool" "$$tool" >/dev/null; then $$run; else echo "$$tool: not installed, left out"; fi
	done

## make fix        rewrites what a tool can rewrite
fix:
	$(CARGO) fmt --all
	$(CARGO) clippy $(RELEASE) --workspace --all-targets --fix --allow-dirty --allow-staged

## make clean      removes what was built in this clone (not the cache outside of it)
clean:
	$(CARGO) clean
	rm -rf target
