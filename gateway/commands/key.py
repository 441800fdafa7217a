"""gateway key."""

from __future__ import annotations

from pathlib import Path

from gateway.commands.opening import FAILED, complain, read_settings
from gateway.jobs.backups import fingerprint
from gateway.jobs.signing import SealKey
from gateway.settings.keys import (
    encryption_keys,
    has_encryption_key,
    known_seal_key,
    make_encryption_key,
    make_seal_key,
)
from gateway.settings.tree import Misconfigured


def make(seal: bool) -> int:
    print((make_seal_key() if seal else make_encryption_key()).strip())
    return 0


def show_public(config: Path | None) -> int:
    settings = read_settings(config)
    try:
        pem = known_seal_key(settings)
    except Misconfigured as problem:
        complain(*problem.problems)
        return FAILED
    if pem is None:
        complain(f"there is no seal.key in {settings.data_dir} yet: the gateway's first run makes it")
        return FAILED
    print(SealKey(pem).public.strip())
    return 0


def show_fingerprints(config: Path | None) -> int:
    settings = read_settings(config)
    if not has_encryption_key(settings):
        complain(f"there is no key in {settings.data_dir} yet: the gateway's first run makes it")
        return FAILED
    for key in encryption_keys(settings):
        print(fingerprint(key))
    return 0
