#!/bin/bash
# Debian packages that building and testing need, and how to get them. Sourced by scripts/check and
# scripts/quickstart.
packages=(
    build-essential cmake ninja-build pkg-config ccache liburing-dev libuv1-dev libnghttp2-dev
    libssl-dev librocksdb-dev libisal-dev libzstd-dev libsodium-dev libmsgpack-dev libfuse3-dev
    fuse3 libcurl4-openssl-dev libmicrohttpd-dev libjansson-dev libinih-dev libcmocka-dev
    uthash-dev libjemalloc-dev python3 python3-pytest acl attr libacl1-dev libattr1-dev sqlite3
    git rsync dpkg-dev openssl e2fsprogs
)

# Only what tests of scripts/check need: tests side by side, a browser, promtool, zsh for its completion,
# man pages, how code is set, requests over HTTP/2.
test_packages=(python3-pytest-xdist chromium chromium-driver prometheus zsh groff-base clang-format curl)

# What scripts/bench compares with; it starts them itself.
bench_packages=(moosefs-master moosefs-chunkserver moosefs-client)

missing_packages() {
    local package
    for package in "${packages[@]}" "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
    done
}

# install_packages [PACKAGE]...: the list above, and these.
install_packages() {
    local missing run=()
    command -v dpkg-query >/dev/null || return 0 # not Debian: the build says what it lacks
    mapfile -t missing < <(missing_packages "$@")
    if [ ${#missing[@]} -eq 0 ]; then
        return 0
    fi
    echo "installing: ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "neither root nor sudo: as root run: apt-get install ${missing[*]}" >&2
            return 1
        fi
        run=(sudo)
    fi
    run+=(env DEBIAN_FRONTEND=noninteractive apt-get)
    "${run[@]}" update -qq &&
        "${run[@]}" install -y -qq --no-install-recommends "${missing[@]}"
}
