#!/bin/sh
# Runs the server scenarios of the official MCP conformance suite against a running endpoint.
#
#   tests/conformance/run.sh URL                       both revisions
#   tests/conformance/run.sh URL 2026-07-28            one of them
#   EXPECTED=none tests/conformance/run.sh URL         nothing may fail (the fixture server itself)
#
# What may fail, and why, stands in expected-failures-REVISION.yaml. A scored scenario that fails
# and is not listed there fails the run, and so does a listed one that passes. The suite and its
# node are pinned by tests/fetch.sh, which this calls. The checks of each scenario are kept in
# target/conformance/REVISION; explain.mjs prints those that failed.

set -eu

here=$(cd "$(dirname "$0")" && pwd)
if [ $# -lt 1 ]; then
    echo "usage: run.sh URL [REVISION]..." >&2
    exit 2
fi
url=$1
shift
[ $# -gt 0 ] || set -- 2025-11-25 2026-07-28

packages=$("$here/../fetch.sh")
node=$packages/npm/node_modules/.bin/node
suite=$packages/npm/node_modules/@modelcontextprotocol/conformance/dist/index.js

status=0
for revision; do
    results=${packages%/*}/conformance/$revision
    rm -rf "$results"
    mkdir -p "$results"
    expected=
    [ "${EXPECTED:-}" = none ] || expected=$here/expected-failures-$revision.yaml
    echo "conformance $revision against $url"
    if "$node" "$suite" server --url "$url" --requirements "$revision" --output-dir "$results" \
        ${expected:+--expected-failures "$expected"} >"$results/output.txt" 2>&1; then
        verdict=passed
    else
        verdict=FAILED
        status=1
        "$node" "$here/explain.mjs" "$results"
    fi
    # The suite colours its verdict even in a file.
    escape=$(printf '\033')
    sed -n "/^=== SUMMARY ===/,\$p" "$results/output.txt" | sed "s/$escape\[[0-9;]*m//g"
    echo "conformance $revision: $verdict (details in $results)"
done
exit $status
