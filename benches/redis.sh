#!/bin/sh
# Finds redis-server for the benches, or unpacks Debian's package under target/redis, and prints the
# path of the program.
#
# One that is on PATH is used. Else the package and what it needs that is not installed are fetched
# with apt-get and unpacked there: no root is needed, nothing is installed, and no service starts.
# Safe to repeat; takes no time when it is there.

set -eu

# Debian keeps servers where not every PATH looks.
PATH=$PATH:/usr/sbin:/sbin
if command -v redis-server; then
    exit 0
fi

benches=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$benches/../target}
home=$target/redis
log=$target/redis.log
mkdir -p "$target"

fail() {
    echo "redis.sh: $1" >&2
    exit 1
}

# Fetches and unpacks into $home.new; false if anything of it fails.
unpack() {
    rm -rf "$home.new"
    mkdir -p "$home.new/packages"
    packages=$(apt-get install --simulate --no-install-recommends redis-server |
        sed -n 's/^Inst \([^ ]*\) .*/\1/p')
    [ -n "$packages" ] || return 1
    # Where root fetches, the download is by another user, who need not reach this folder.
    # shellcheck disable=SC2086
    (cd "$home.new/packages" && apt-get download -o APT::Sandbox::User=root $packages) || return 1
    for package in "$home.new/packages"/*.deb; do
        dpkg-deb --extract "$package" "$home.new" || return 1
    done
    rm -r "$home.new/packages"
}

if [ ! -x "$home/redis-server" ]; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        fail "redis-server is not installed, and there is no apt-get to fetch it; install redis 6 or later"
    # Root may find out where packages are today; others need lists that are not too old.
    unpack >"$log" 2>&1 || { [ "$(id -u)" = 0 ] && apt-get update >>"$log" 2>&1 && unpack >>"$log" 2>&1; } || {
        tail -n 15 "$log" >&2
        fail "cannot fetch redis-server: does 'apt-get update' work? then run this again (log: $log)"
    }
    libraries=$(find "$home.new" -name '*.so.*' -exec dirname {} \; | sort -u | sed "s|^$home.new/||")
    {
        echo '#!/bin/sh'
        echo 'home=$(cd "$(dirname "$0")" && pwd)'
        for library in $libraries; do
            echo "LD_LIBRARY_PATH=\$home/$library\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
        done
        echo 'export LD_LIBRARY_PATH'
        echo 'exec "$home/usr/bin/redis-server" "$@"'
    } >"$home.new/redis-server"
    chmod +x "$home.new/redis-server"
    rm -rf "$home"
    mv "$home.new" "$home"
fi
"$home/redis-server" --version >/dev/null || fail "$home/redis-server does not run; remove $home and run this again"
echo "$home/redis-server"
