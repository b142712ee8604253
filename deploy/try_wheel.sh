#!/bin/bash
# try_wheel.sh PYTHON WHEEL: install a wheel into a clean environment outside the repository, and use it there.
set -euo pipefail
python=$1
wheel=$(realpath "$2")
constraints=$(realpath constraints.txt)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check -c "$constraints" "$wheel"
cd "$folder"
for engine in inline ray; do
    venv/bin/ksmcluster simulate --nodes 2 --quiet --engine "$engine" --output "$engine" >/dev/null
done
venv/bin/ksmcluster compare inline ray --tolerance 0
