"""What a vendor made of a study: which instances those are, and their way into files, counted and whole."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from adapters.dicomweb.wire import Listed, Results, Wire, unwritable
from gateway.contract import Instance, NeedsHuman, Retryable
from gateway.dicom import web
from gateway.dicom.part10 import DEFLATED, MAX_HEADER, read_header
from gateway.dicom.stream import instances_of

_DOING = "sending results"
# What pydicom is seen to raise on bytes that aren't DICOM.
_UNREADABLE = (
    *(InvalidDicomError, EOFError, ValueError, TypeError, LookupError),
    *(AttributeError, NotImplementedError, RecursionError),
)


def choose_results(listed: Mapping[str, Listed], inputs: Collection[str], wanted: Results) -> list[Listed]:
    """`inputs`: what was sent, and what was there before."""
    return [
        one
        for uid, one in listed.items()
        if uid not in inputs
        and (not wanted.modalities or one.modality in wanted.modalities)
        and (not wanted.sop_classes or one.sop_class_uid in wanted.sop_classes)
        and (wanted.series is None or wanted.series.search(one.description))
    ]


class Collector:
    """Into the work folder, under names of our own, within a limit on all of them together."""

    def __init__(self, wire: Wire, study: str, work: Path) -> None:
        self._wire = wire
        self._study = study
        self._work = work
        self._left = wire.options.most_result_bytes
        self.files: list[Path] = []

    async def collect(self, results: Sequence[Listed], listed: Mapping[str, Listed]) -> None:
        """A series at once where all of it is a result, else instance by instance."""
        by_series: dict[str, set[str]] = defaultdict(set)
        for result in results:
            by_series[result.series_instance_uid].add(result.sop_instance_uid)
        for series, uids in by_series.items():
            if {uid for uid, each in listed.items() if each.series_instance_uid == series} == uids:
                await self._fetch(uids, self._study, series)
                continue
            for uid in sorted(uids):
                await self._fetch({uid}, self._study, series, uid)

    async def _fetch(self, expected: set[str], *uids: str) -> None:
        peer, got = self._wire.back, set()
        async with web.get(self._wire.session, peer, peer.address(*uids), web.ACCEPT_DICOM, _DOING) as answer:
            if answer.status == 200:
                async for instance in instances_of(answer, peer.name, _DOING):
                    got.add(instance.header.sop_instance_uid)
                    await self._keep(instance)
        if got != expected:
            raise Retryable(
                f"the vendor lists {len(expected)} results of a series and sent {len(got & expected)}"
                f" of them, and {len(got - expected)} others",
                "They may still be arriving there; if this goes on, ask the vendor.",
            )

    async def _keep(self, instance: Instance) -> None:
        if instance.header.study_instance_uid != self._study:
            raise NeedsHuman(
                "the vendor returned a result for another study",
                "It isn't delivered. Tell the vendor, and resume the job once it has mended it.",
            )
        path = self._work / f"result-{len(self.files):04d}.dcm"
        self.files.append(path)
        try:
            with await asyncio.to_thread(path.open, "wb") as file:
                async for chunk in instance.chunks():
                    self._left -= len(chunk)
                    if self._left < 0:
                        raise Retryable(
                            "the vendor's results are larger than any real ones; no more of them is taken",
                            "If they are genuine, raise the adapter's `most_result_bytes`.",
                        )
                    await asyncio.to_thread(file.write, chunk)
            whole = await asyncio.to_thread(_is_whole, path)
        except OSError:
            raise unwritable() from None
        if not whole:
            raise Retryable(
                "the vendor sent a result that isn't DICOM, or is cut off",
                "If it stays so, tell the vendor.",
            )


def _is_whole(path: Path) -> bool:
    """Long values are stepped over, not read."""
    with path.open("rb") as file:
        try:
            header = read_header(file.read(MAX_HEADER))
            if header is None or header.transfer_syntax_uid == DEFLATED:
                return header is not None
            file.seek(0)
            pydicom.dcmread(file, defer_size=0)
            return file.tell() <= path.stat().st_size
        except _UNREADABLE:
            return False
