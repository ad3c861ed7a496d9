#!/bin/sh
# run_vectors.sh PYTHON SOURCE_DIR COUNT PROGRAM...: makes COUNT histories of 2 to 5 sites and 50 to
# 600 steps with the model, in a few processes, and runs each program on them.
set -eu
python=$1
source=$2
count=$3
shift 3
dir=$(mktemp -d "${TMPDIR:-/tmp}/vectors-XXXXXX")
trap 'rm -rf "$dir"' EXIT INT TERM
"$python" "$source/make_vectors.py" "$dir" "$count"
# A few hundred names fit one command line; xargs splits should they not.
for program; do
    find "$dir" -name '*.json' | sort | xargs "$program"
done
