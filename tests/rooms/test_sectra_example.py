"""The client by itself, as its page shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import gateway.sectra
from gateway.simulate import samples
from gateway.simulate import sectra as simulated
from gateway.simulate.sectra_state import SectraState
from gateway.simulate.serve import serve


async def test_the_example_does_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(gateway.sectra.__path__[0], "README.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shown: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), shown)
    state = SectraState()
    runner, _ = await serve(simulated.make_app(state))
    try:
        said = await shown["look_at"](state.url, "slide-wsi", tmp_path)
    finally:
        await runner.cleanup()
    pyramid = samples.make_samples()[-1].files
    assert said == f"{len(pyramid)} files, one of 2 slides!"
    assert [path.read_bytes() for path in sorted((tmp_path / "files").iterdir())] == list(pyramid)
    assert (tmp_path / "thumbnail.jpg").read_bytes()[:2] == (tmp_path / "label.jpg").read_bytes()[:2]
    [stored] = state.list_results("my-app", "slide-wsi")
    assert (stored["displayResult"], state.quality["slide-wsi"]["status"]) == (said, "QualityOk")
    assert "doesn't know what was asked for" in capsys.readouterr().out
