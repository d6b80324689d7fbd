# `just` lists what there is. A fresh machine has no `just`: ./.ci/check installs it under
# target/tools and runs everything below that CI runs.

set shell := ["bash", "-euo", "pipefail", "-c"]

export PATH := justfile_directory() / "target/tools/bin" + ":" + env("PATH")

# CI builds exactly what Cargo.lock says.
locked := if env("CI", "") == "" { "" } else { "--locked" }

# Lists the recipes
default:
    @just --list --unsorted

# Does what CI does and counts the tests
check:
    ./.ci/check

# Formats the code
fmt:
    cargo fmt --all

# Fails where `just fmt` would change something
fmt-check:
    cargo fmt --all --check

# Runs clippy on everything, with and without the features
lint:
    cargo clippy {{locked}} --workspace --all-targets -- -D warnings
    cargo clippy {{locked}} --package toolmesh --test powercut -- -D warnings
    cargo clippy {{locked}} --workspace --all-targets --features bench-tools -- -D warnings
    cargo clippy {{locked}} --package toolmesh-core --all-targets --features planted-bugs -- -D warnings

# The binaries first: cargo builds those of another package only when asked to. Mistakes that are
# made on purpose last, in a build of their own: the queue's simulator must find each.
# Runs the tests, or those whose name contains FILTER
test *FILTER: fetch
    cargo build {{locked}} --workspace --bins
    cargo test {{locked}} --workspace --no-fail-fast {{FILTER}}
    cargo test {{locked}} --package toolmesh-core --features planted-bugs planted

# Builds the documentation; a broken link fails
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc {{locked}} --workspace --no-deps

# Writes docs/api.md anew from the tools of a running node
api-docs:
    UPDATE=1 cargo test {{locked}} --package toolmesh --test api_docs

# Checks licences, banned crates and sources of all dependencies; needs no internet
deny:
    . .ci/tools cargo-deny; cargo deny --locked --workspace check --hide-inclusion-graph bans licenses sources

# Checks the dependencies against the advisory database; needs the internet
advisories:
    . .ci/tools cargo-deny; cargo deny --locked --workspace check advisories

# Measures test coverage; fails below FLOOR percent of the lines
coverage FLOOR="75":
    COVERAGE_FLOOR={{FLOOR}} ./.ci/coverage

# The table goes to stderr and JSON to stdout; docs/performance.md explains both.
# Measures calls a second, latency and memory; fails when a floor does not hold
bench *ARGS:
    cargo build {{locked}} --release --package toolmesh --features bench-tools
    cargo build {{locked}} --release --package toolmesh-test-servers --package toolmesh-benches
    target/release/toolmesh-benches {{ARGS}}

# Runs the guided tour
demo:
    cargo run {{locked}} --release -- demo

# Runs the official MCP conformance suite against a node
conformance: fetch
    cargo build {{locked}} --workspace --bins
    cargo test {{locked}} --package toolmesh --test official conformance -- --nocapture

# CI kills it 100 times and cuts nodes off 20 times, twice as often kills one of those.
# `TOOLMESH_SEED=N` makes the faults and what clients do happen again.
# Kills a node KILLS times under load, and cuts one of three off PARTITIONS times, and checks that queues kept every promise
torture KILLS="1000" PARTITIONS="50": fetch
    cargo build {{locked}} --workspace --bins
    TOOLMESH_KILLS={{KILLS}} cargo test {{locked}} --package toolmesh --test queue_crash -- --nocapture
    TOOLMESH_PARTITIONS={{PARTITIONS}} cargo test {{locked}} --package toolmesh --test mesh_crash -- --nocapture

# As root, with loop devices; makes file systems in files below target and mounts them.
# Cuts the power of a node's disk CUTS times and checks that what was acknowledged is there
powercut CUTS="20":
    command -v mkfs.xfs >/dev/null || apt-get install -y -q xfsprogs
    cargo build {{locked}} --workspace --bins
    TOOLMESH_CUTS={{CUTS}} cargo test {{locked}} --package toolmesh --test powercut -- --nocapture

# Fetches the pinned test packages from npm and PyPI under target/
fetch:
    tests/fetch.sh
