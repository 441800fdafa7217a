"""Where the configuration in force came from: whether that has changed, and whether what stands there now can
take its place while the gateway runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from gateway.settings.load import load
from gateway.settings.sections import Settings

# Of these a process makes something once, when it starts.
_FIXED = (
    *("listen", "vendors.listen", "monitor", "dimse", "database_url", "data_dir", "least_free"),
    *("migrate_on_start", "secret_keys", "seal_key", "spool"),
)
Signature = tuple[int, int, int] | None


class Source:
    def __init__(self, path: Path | None, environment: Mapping[str, str], settings: Settings) -> None:
        self._path = path
        self._environment = environment
        self._seen = self._looked = _look(settings.files)

    def has_changed(self) -> bool:
        """Since it was read the last time: the file, or one that it names for a value. And it is as it was at
        the look before, so that it has been written to its end, as far as anybody can tell."""
        before, self._looked = self._looked, _look(self._seen)
        return self._looked == before != self._seen

    def read(self) -> Settings:
        """Raises Misconfigured."""
        before = self._seen = _look(self._seen)  # what changes while it is read is seen the next time
        settings = load(self._path, self._environment)
        self._seen = self._looked = _look(settings.files) | {
            file: seen for file, seen in before.items() if file in settings.files
        }
        return settings


def find_fixed(before: Settings, after: Settings) -> list[str]:
    """What differs, and can't be changed while the gateway runs."""
    return [
        after.told(
            tuple(key.split(".")), f"can't be changed while the gateway runs: restart it, or put {key} back"
        )
        for key in _FIXED
        if _value(before, key) != _value(after, key)
    ]


def _value(settings: Settings, key: str) -> object:
    value: object = settings
    for step in key.split("."):
        value = getattr(value, step, None)
    if key == "dimse" and settings.dimse is not None:
        return settings.dimse.model_copy(update={"peers": []})  # whoever calls may change
    return value


def _look(files: Iterable[Path]) -> dict[Path, Signature]:
    return {file: _signature_of(file) for file in files}


def _signature_of(file: Path) -> Signature:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
