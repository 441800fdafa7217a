#!/bin/sh
# Installs or upgrades the gateway as a systemd service, as root; a second run changes nothing.
#
#   install.sh [--two-processes] [--embedded-database] [--socket]
#
# From the folder that pack.sh made (no network is needed then), or from a checkout, which packs itself first.
set -eu
umask 022

two="" embedded="" socket=""
for argument; do
    case $argument in
        --two-processes) two=yes ;;
        --embedded-database) embedded=yes ;;
        --socket) socket=yes ;;
        *) sed -n 's/^# \{0,1\}//; 2,6p' "$0" >&2; exit 2 ;;
    esac
done
say() { printf '%s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "install.sh changes /opt, /etc and systemd: run it as root."
command -v systemctl >/dev/null || fail "There is no systemd here; deploy/README.md says how to run the gateway without."
for python in /usr/bin/python3 "$(command -v python3 || true)"; do [ -x "$python" ] && break; done
[ -x "$python" ] || fail "Python 3.11 or newer is needed: apt-get install python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed; $python is older."

from=$(cd "$(dirname "$0")" && pwd)
if [ ! -d "$from/wheels" ]; then
    packed=$(mktemp -d)
    trap 'rm -rf "$packed"' EXIT
    "$from/pack.sh" "$packed" >/dev/null
    from=$packed
fi

# -- the programs: each release in a folder of its own, and `current` is the one in use
wheel=$(echo "$from"/wheels/imaging_gateway-*.whl)
version=$(basename "$wheel" | cut -d- -f2)
print=$(cat "$from/requirements.txt" "$wheel" | sha256sum | cut -c1-12)
release=/opt/gateway/releases/$version-$print
if [ ! -e "$release/complete" ]; then
    say "installing $version into $release"
    rm -rf "$release"
    mkdir -p /opt/gateway/releases
    "$from/uv" venv --quiet --no-project --no-config --python "$python" "$release"
    set -- --quiet --no-config --offline --no-cache --no-index --find-links "$from/wheels" --compile-bytecode --python "$release/bin/python"
    "$from/uv" pip install "$@" --require-hashes -r "$from/requirements.txt"
    "$from/uv" pip install "$@" --no-deps "$wheel"
    mkdir -p "$release/share"
    cp "$from/README.md" "$from/CHANGELOG.md" "$from/LICENSE" "$from/uv.lock" "$release/share/"
    touch "$release/complete"
fi
before=$(readlink /opt/gateway/current 2>/dev/null || true)
use() {
    ln -sfn "$1" /opt/gateway/current.new
    mv -T /opt/gateway/current.new /opt/gateway/current
}
use "$release"

# -- its user and folders
install -D -m 644 "$from/gateway.sysusers" /usr/lib/sysusers.d/gateway.conf
install -D -m 644 "$from/gateway.tmpfiles" /usr/lib/tmpfiles.d/gateway.conf
systemd-sysusers gateway.conf
systemd-tmpfiles --create gateway.conf

# -- its keys and configuration, which are never overwritten
make_key() {
    [ -e "/etc/gateway/credentials/$1" ] && return
    (umask 077 && /opt/gateway/current/bin/gateway key ${2:+"$2"} >"/etc/gateway/credentials/$1.new")
    mv "/etc/gateway/credentials/$1.new" "/etc/gateway/credentials/$1"
    say "made /etc/gateway/credentials/$1: keep a copy elsewhere, without it what is stored can't be read"
}
make_key key
make_key seal_key --seal
if [ ! -e /etc/gateway/gateway.yaml ]; then
    install -m 640 -g gateway "$from/gateway.yaml" /etc/gateway/gateway.yaml
    say "made /etc/gateway/gateway.yaml: a beginning; gateway config reference lists every key"
fi

# -- the service
units=/etc/systemd/system
units_before=$(mktemp -d)
trap 'rm -rf "$units_before" ${packed:+"$packed"}' EXIT
find $units -maxdepth 1 -name 'gateway*' -exec cp -a {} "$units_before" \;
install -m 755 "$from/gateway" /usr/local/bin/gateway
install -m 644 "$from/gateway.service" "$from/gateway-backup.service" "$from/gateway-backup.timer" $units/
drop_in() { # FILE UNIT: part of the service, or not any more
    if [ -n "$1" ]; then install -D -m 644 "$from/$1" "$units/$2.d/$(basename "$1")"; else rm -f "$units/$2.d/$3"; fi
}
drop_in "${two:+two-processes/gateway.service.d/two-processes.conf}" gateway.service two-processes.conf
drop_in "${two:+two-processes/gateway-workers.service.d/two-processes.conf}" gateway-workers.service two-processes.conf
drop_in "${embedded:+embedded-database/embedded-database.conf}" gateway.service embedded-database.conf
drop_in "${two:+${embedded:+embedded-database/embedded-database.conf}}" gateway-workers.service embedded-database.conf
if [ -n "$two" ]; then
    install -m 644 "$from/gateway.service" $units/gateway-workers.service
elif [ -e $units/gateway-workers.service ]; then
    systemctl disable --quiet --now gateway-workers.service || true
    rm -f $units/gateway-workers.service
fi
if [ -n "$socket" ]; then
    install -m 644 "$from/gateway.socket" $units/
elif [ -e $units/gateway.socket ]; then
    systemctl disable --quiet --now gateway.socket || true
    rm -f $units/gateway.socket
fi
systemctl daemon-reload
systemctl enable --quiet gateway.service gateway-backup.timer ${two:+gateway-workers.service} ${socket:+gateway.socket}

restart() { systemctl restart gateway.service ${two:+gateway-workers.service}; }
if systemctl is-active --quiet gateway.service; then
    if [ "$before" != "$release" ]; then
        if ! restart; then
            use "$before"
            cp -a "$units_before"/. $units/
            systemctl daemon-reload
            restart && fail "$(basename "$release") doesn't start, journalctl -u gateway says why: $(basename "$before") is in use again"
            use "$release" # which may have migrated the tables, so that the one before can't go on
            fail "neither $(basename "$release") nor $(basename "$before") starts: journalctl -u gateway says why"
        fi
        say "upgraded from $(basename "$before") to $(basename "$release"), and restarted"
    else
        say "nothing has changed"
    fi
else
    say "next: edit /etc/gateway/gateway.yaml, then: gateway check && systemctl start gateway"
fi

# -- the two releases before stay, so that one can go back: ln -sfn RELEASE /opt/gateway/current
find /opt/gateway/releases -mindepth 1 -maxdepth 1 -printf '%T@ %p\n' | sort -rn | tail -n +4 | cut -d' ' -f2- |
    while read -r old; do [ "$old" = "$(readlink -f /opt/gateway/current)" ] || rm -rf "$old"; done
