#!/bin/sh
# local.sh SUITE [options]: runs posix-suite in a fresh directory under /tmp and removes it again.
suite=$1
shift
dir=$(mktemp -d /tmp/posix-local.XXXXXX) || exit 2
trap 'rm -rf "$dir"' EXIT
"$suite" "$dir" "$@"
