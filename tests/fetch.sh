#!/bin/sh
# Installs the pinned npm and PyPI packages that the tests run, under target/test-packages:
#
#   npm/node_modules/.bin/      node (22), conformance, mcp-server-filesystem
#   python/bin/                 python (with the SDK), mcp-server-time
#   python-mesh/bin/            python (with py-libp2p)
#
# On Linux also strace, from the system's own packages, if it is not installed.
#
# What is pinned stands in tests/clients: package.json, package-lock.json, requirements.txt and
# requirements-mesh.txt. Needs python3 (3.11 or later, with venv), node (20 or later) and npm. Safe to
# repeat and to run twice at once; takes no time when everything is there. Prints the folder.

set -eu

tests=$(cd "$(dirname "$0")" && pwd)
pins=$tests/clients
packages=${CARGO_TARGET_DIR:-$tests/../target}/test-packages
mkdir -p "$packages"
packages=$(cd "$packages" && pwd)
stamp=$packages/stamp
log=$packages/fetch.log
lock=$packages/lock

fail() {
    echo "fetch.sh: $1" >&2
    exit 1
}

wanted=$(cat "$0" "$pins/package.json" "$pins/package-lock.json" "$pins"/requirements*.txt | cksum)

there() {
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]
}

# Runs a package manager; says in one line what to do when it fails, after its own last words.
fetch() {
    registry=$1
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        fail "cannot install the pinned packages from $registry: is it reachable? then run this again (log: $log)"
    fi
}

# Makes the environment $1 with what $2 pins.
install_python() {
    rm -rf "$packages/$1"
    fetch "the local python3" python3 -m venv "$packages/$1"
    fetch PyPI "$packages/$1/bin/pip" install --quiet --disable-pip-version-check --no-deps \
        --requirement "$pins/$2"
}

install_pythons() {
    command -v python3 >/dev/null || fail "python3 is not installed; version 3.11 or later is needed"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$(python3 --version) is too old; version 3.11 or later is needed"
    install_python python requirements.txt
    fetch "the pinned list itself" "$packages/python/bin/pip" check
    install_python python-mesh requirements-mesh.txt
    # Not `pip check`: one of them is newer on purpose than another asks for.
    fetch "the pinned list itself" "$packages/python-mesh/bin/python" -c "import libp2p"
}

# No package index has it, so it comes from the system; as root, or where sudo asks nothing.
install_strace() {
    [ "$(uname)" = Linux ] || return 0
    command -v strace >/dev/null && return 0
    missing="strace is not installed; install it with the system's package manager"
    command -v apt-get >/dev/null || fail "$missing"
    as_root=
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    # The lists may be missing or old.
    $as_root apt-get install -y -q strace >"$log" 2>&1 ||
        { $as_root apt-get update -q && $as_root apt-get install -y -q strace; } >"$log" 2>&1 ||
        fail "$missing (log: $log)"
}

install_npm() {
    command -v npm >/dev/null || fail "npm is not installed; node 20 or later brings it"
    rm -rf "$packages/npm"
    mkdir -p "$packages/npm"
    cp "$pins/package.json" "$pins/package-lock.json" "$packages/npm"
    fetch npm npm ci --prefix "$packages/npm" --no-audit --no-fund
    fetch "npm (the node binary)" "$packages/npm/node_modules/.bin/node" --version
}

install_strace
if ! there; then
    waited=0
    until mkdir "$lock" 2>/dev/null; do
        [ $waited -lt 600 ] || fail "another run holds $lock since ten minutes; remove it if none is running"
        sleep 1
        waited=$((waited + 1))
    done
    trap 'rmdir "$lock"' EXIT
    trap 'exit 1' INT TERM
    if ! there; then
        rm -f "$stamp"
        install_pythons
        install_npm
        echo "$wanted" >"$stamp"
    fi
fi
echo "$packages"
