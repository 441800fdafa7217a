"""The folder that a security officer and a physicist are handed: what is in it, and who writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.evidence import conformance, data, hazards, pages, sbom
from gateway.settings.sections import Settings

# The same in every hospital: copies lie in deploy/evidence.
KEPT: Mapping[str, Callable[[], str]] = {
    "architecture.md": pages.write_architecture,
    "conformance.md": conformance.write,
    "hazards.md": hazards.write,
    "ihe.md": pages.write_ihe,
    "mds2.md": pages.write_mds2,
    "security.md": pages.write_security,
}
OF_THE_PROGRAMS: Mapping[str, Callable[[], str]] = {
    "sbom.cdx.json": sbom.write,
}
OF_A_CONFIGURATION: Mapping[str, Callable[[Settings], str]] = {
    "data.md": data.write,
}


def fill(folder: Path, settings: Settings | None) -> list[Path]:
    """Without settings, what is the same everywhere."""
    texts = {name: write() for name, write in KEPT.items()}
    if settings is not None:
        texts |= {name: write() for name, write in OF_THE_PROGRAMS.items()}
        texts |= {name: write(settings) for name, write in OF_A_CONFIGURATION.items()}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in texts.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
