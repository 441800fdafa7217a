from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    (tmp_path / "key").write_text(Fernet.generate_key().decode() + "\n")

    def write(text: str) -> Path:
        path = tmp_path / "gateway.yaml"
        path.write_text(text.replace("KEYFILE", str(tmp_path / "key")))
        return path

    return write
