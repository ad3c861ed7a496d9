#!/bin/sh
# run_vectors.sh PYTHON SOURCE_DIR MERGE_VECTORS COUNT: makes COUNT histories of 2 to 5 sites and 50
# to 600 steps with the model, in a few processes, and runs the engine on them.
set -eu
python=$1
source=$2
program=$3
count=$4
dir=$(mktemp -d "${TMPDIR:-/tmp}/vectors-XXXXXX")
trap 'rm -rf "$dir"' EXIT INT TERM
"$python" "$source/make_vectors.py" "$dir" "$count"
# A few hundred names fit one command line; xargs splits should they not.
find "$dir" -name '*.json' | sort | xargs "$program"
