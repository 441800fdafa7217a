"""Whether a configuration has changed: however its file is replaced, and once it is written to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings.load import load
from gateway.settings.sections import Settings
from gateway.settings.source import Source, find_fixed
from gateway.settings.tree import Misconfigured

OURS = "data_dir: /srv/gateway\nlog: {level: info}\n"


def load_from(folder: Path, text: str) -> Settings:
    path = folder / "gateway.yaml"
    path.write_text(text)
    return load(path, {})


def source_of(path: Path) -> Source:
    return Source(path, {}, load(path, {}))


def mount(folder: Path, number: int, text: str) -> None:
    """As Kubernetes puts a ConfigMap there: what the names lead to is replaced, the names never are."""
    of_then = folder / f"..{number}"
    of_then.mkdir()
    (of_then / "gateway.yaml").write_text(text)
    (folder / "..new").symlink_to(of_then.name)
    (folder / "..new").rename(folder / "..data")
    if not (folder / "gateway.yaml").exists():
        (folder / "gateway.yaml").symlink_to("..data/gateway.yaml")


def test_a_mounted_file_that_is_switched_is_seen_and_so_is_a_secret_that_it_names(tmp_path: Path) -> None:
    secret, folder = tmp_path / "token", tmp_path / "config"
    folder.mkdir()
    secret.write_text("a")
    text = f'{OURS}adapters: {{milvue: {{kind: milvue, token: "${{file:{secret}}}"}}}}\n'
    mount(folder, 1, text)
    source = source_of(folder / "gateway.yaml")
    assert [source.has_changed() for _ in range(2)] == [False, False]
    mount(folder, 2, text)
    assert [source.has_changed() for _ in range(3)] == [False, True, True]
    source.read()
    assert not source.has_changed()
    secret.write_text("another")
    assert [source.has_changed() for _ in range(2)] == [False, True]
    assert source.read().adapters["milvue"].options["token"] == "another"
    assert [source.has_changed() for _ in range(2)] == [False, False]


def test_what_is_still_being_written_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(OURS)
    source = source_of(path)
    with path.open("a") as file:
        for line in ("adapters:\n", "  milvue:\n", "    kind: milvue\n"):
            file.write(line)
            file.flush()
            assert not source.has_changed()
    assert source.has_changed()


def test_a_broken_file_is_read_again_once_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(OURS)
    source = source_of(path)
    path.write_text("listen: {prot: 1}\n")
    with pytest.raises(Misconfigured, match="line 1"):
        source.read()
    assert not source.has_changed(), "it has been read"
    path.write_text(OURS + "public_url: https://gateway.hospital\n")
    assert [source.has_changed() for _ in range(2)] == [False, True]
    assert source.read().public_url == "https://gateway.hospital"


def test_what_needs_a_restart_says_so_and_where(tmp_path: Path) -> None:
    before = load_from(tmp_path, OURS + "dimse: {port: 11112}\nlisten: {port: 8080}\n")
    after = load_from(tmp_path, OURS + "dimse: {port: 104, peers: []}\nlisten:\n  port: 9090\n")
    told = find_fixed(before, after)
    assert [sentence.partition("line ")[2].partition(":")[0] for sentence in told] == ["4", "3"]
    assert all("can't be changed while the gateway runs" in sentence for sentence in told)
