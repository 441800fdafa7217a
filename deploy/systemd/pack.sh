#!/bin/sh
# A folder from which install.sh installs without a network: pack.sh FOLDER
set -eu
cd "$(dirname "$0")"
here=$PWD root=$PWD/../..
[ $# = 1 ] || { echo "usage: pack.sh FOLDER" >&2; exit 2; }
mkdir -p "$1"
cd "$1"
out=$PWD

uv=$(python3 "$root/deploy/bootstrap.py" --tool)
# The authority of the hospital's own proxy is among the machine's, not among uv's.
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || export UV_SYSTEM_CERTS=1
"$uv" export --quiet --frozen --no-dev --all-extras --no-emit-project --project "$root" --output-file "$out/requirements.txt" >/dev/null
rm -rf wheels
"$uv" build --quiet --wheel --out-dir "$out/wheels" "$root"
rm -f wheels/.gitignore
"$uv" run --quiet --no-project --with "pip==26.0.1" --python python3 python -m pip download --quiet \
    --disable-pip-version-check --require-hashes --only-binary :all: --dest "$out/wheels" -r "$out/requirements.txt"
cp "$uv" "$out/uv"
cp -r "$here"/* "$out/"
cp "$root/README.md" "$root/CHANGELOG.md" "$root/LICENSE" "$root/uv.lock" "$out/"
echo "$out: $(du -sh . | cut -f1); copy it to the machine and run install.sh there as root"
