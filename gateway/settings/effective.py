"""The configuration in force as one may show and keep it: in the words it was written in, secrets masked; and
the short hash by which jobs name it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import yaml

from gateway.settings.tree import ConfigurationTree

MASK = "***"
_SECRET = re.compile(r"token|passw|secret|credential|(api|access)_?key|seal_key$|^auth", re.IGNORECASE)
_OF_A_SERVER = re.compile(r"(?<=://)[^/?#\s@]*@")  # user and password
_HOOK = ("alerts", "webhook", "url")  # its path is what lets in
_SHOWN = 8  # characters of a digest: enough to tell it from another


def describe(tree: ConfigurationTree) -> str:
    """As YAML. What a variable or a file was filled in for counts as secret, whatever it is called."""
    shown = _mask(tree.values, (), tree, secret=False)
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True) if shown else ""


def revision_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _mask(value: Any, path: tuple[str, ...], tree: ConfigurationTree, *, secret: bool) -> Any:
    if isinstance(value, dict):
        return {key: _mask(inner, (*path, key), tree, secret=_is_secret(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_mask(each, (*path, str(place)), tree, secret=secret) for place, each in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if path and path[-1] == "sha256":
        return f"{str(value)[:_SHOWN]}…"
    if secret or path in tree.filled or path == _HOOK:
        return MASK
    return _OF_A_SERVER.sub(f"{MASK}@", value) if isinstance(value, str) else value


def _is_secret(key: str) -> bool:
    return _SECRET.search(key) is not None
