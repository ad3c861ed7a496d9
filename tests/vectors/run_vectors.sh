#!/bin/sh
# run_vectors.sh PYTHON SOURCE_DIR COUNT PROGRAM...: makes COUNT histories of 2 to 5 sites and 50 to
# 600 steps with the model, in a few processes, and runs each program on them. Then it spoils one of
# them in several ways: a program that compares nothing would call these good, too.
set -eu
python=$1
source=$2
count=$3
shift 3
dir=$(mktemp -d "${TMPDIR:-/tmp}/vectors-XXXXXX")
trap 'rm -rf "$dir"' EXIT INT TERM
"$python" "$source/make_vectors.py" "$dir" "$count"
# As the model writes one for whoever asks it.
"$python" "$source/merge_model.py" vector 7 --sites 3 --steps 80 >"$dir/model.json"
# A few hundred names fit one command line; xargs splits should they not.
for program; do
    find "$dir" -name '*.json' | sort | xargs "$program"
done

# refused WHAT FILE...: exit status 1, and the last line counts one as wrong.
refused() {
    what=$1
    shift
    rc=0
    "$program" "$@" >"$dir/said" 2>"$dir/why" || rc=$?
    if [ "$rc" -ne 1 ] || ! grep -q "^$# vectors, 1 wrong$" "$dir/said"; then
        echo "a vector with another $what: exit status $rc, expected 1" >&2
        cat "$dir/said" "$dir/why" >&2
        exit 1
    fi
}
good=$dir/model.json
program=$1
for way in mode content kind less more order cut; do
    "$python" "$source/spoil.py" $way "$good" "$dir/spoilt"
    refused "$way" "$dir/spoilt"
    refused "$way, among good ones" "$good" "$dir/spoilt" "$good"
done
refused "name: there is no such file" "$good" "$dir/missing"
echo "spoilt vectors are refused"
