"""Names for the shell to complete: those of the configuration that GATEWAY_CONFIG names."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.settings.load import config_path, load, process_environment
from gateway.settings.tree import Misconfigured


def names(kind: str) -> Iterable[str]:
    environment = process_environment()
    try:
        settings = load(config_path(environment), environment)
    except Misconfigured:
        return []
    return sorted(getattr(settings, kind))
