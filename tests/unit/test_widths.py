"""How wide an image is doesn't depend on how its bytes were cut on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.archives.archive import Archive, InstanceRef
from gateway.contract import Header, Instance
from gateway.dicom.part10 import read_header
from gateway.jobs.records import InstanceRecord
from gateway.work.shipment import Shipment
from tests.peers.dicom_samples import encode, make_instance


def _make(syntax: str, *, slide: bool) -> bytes:
    dataset = make_instance("1.2.3", "1.2.4", "1.2.5", transfer_syntax=syntax, size=64)
    nested = Dataset()
    nested.Columns = 7
    dataset.ReferencedImageSequence = [nested]
    dataset.add_new(0x00291010, "OB", b"\xfe\xff\x00\xe0" * 300)
    if slide:
        dataset.TotalPixelMatrixColumns = 40_000
    return encode(dataset)


_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
_FILES = [
    (_make(syntax, slide=slide), 40_000 if slide else 64) for syntax in _SYNTAXES for slide in (False, True)
]


class _Cut:
    def __init__(self, data: bytes, cuts: Sequence[int]) -> None:
        self._data, self._cuts = data, cuts
        header = read_header(data)
        assert header is not None
        self.header: Header = header

    async def chunks(self) -> AsyncIterator[bytes]:
        for begin, end in pairwise((0, *self._cuts, len(self._data))):
            yield self._data[begin:end]


class _Archive:
    """Gives one instance in pieces."""

    name = "vna"

    def __init__(self, instance: _Cut) -> None:
        self._instance = instance

    async def retrieve(
        self, _study: str, _chosen: Collection[str], _spool: Path | None, _listed: Sequence[InstanceRef]
    ) -> AsyncIterator[Instance]:
        yield self._instance


def _width_of(data: bytes, cuts: Sequence[int]) -> int | None:
    widths: list[int | None] = []

    async def keep(records: list[InstanceRecord]) -> None:
        widths.extend(record.width for record in records)

    async def forget(_uid: str) -> None:
        pass

    async def begin_anew() -> None:
        pass

    async def walk() -> None:
        instance = _Cut(data, cuts)
        uid = instance.header.sop_instance_uid
        chosen = {uid: InstanceRecord(uid, "1.2.4", "1.2.840.10008.5.1.4.1.1.7")}
        listed = [InstanceRef("1.2.4", uid, None, None)]
        archive = cast(Archive, _Archive(instance))
        shipment = Shipment(archive, "1.2.3", chosen, listed, None, lambda _: None, keep, forget, begin_anew)
        async for moving in shipment.instances():
            async for _ in moving.chunks():
                pass

    asyncio.run(walk())
    return widths[0]


@pytest.mark.parametrize(("data", "width"), _FILES)
def test_one_cut_anywhere_changes_nothing(data: bytes, width: int) -> None:
    assert {_width_of(data, [cut]) for cut in range(1, len(data), 7)} == {width}


@settings(max_examples=60)
@given(st.sampled_from(_FILES), st.lists(st.integers(0, 8000), max_size=40))
def test_any_cuts_change_nothing(file: tuple[bytes, int], places: list[int]) -> None:
    data, width = file
    assert _width_of(data, sorted(place % len(data) for place in places)) == width
