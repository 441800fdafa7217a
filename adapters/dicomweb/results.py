"""What a vendor made of a study: which instances those are, and their way into files, counted and whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from adapters.dicomweb.wire import Listed, Results, Wire
from gateway.contract import Retryable
from gateway.dicom import web
from gateway.dicom.stream import instances_of
from gateway.kit.shelf import Shelf

_DOING = "sending results"


def choose_results(listed: Mapping[str, Listed], inputs: Collection[str], wanted: Results) -> list[Listed]:
    """`inputs`: what was sent, and what was there before."""
    return [
        instance
        for uid, instance in listed.items()
        if uid not in inputs
        and (not wanted.modalities or instance.modality in wanted.modalities)
        and (not wanted.sop_classes or instance.sop_class_uid in wanted.sop_classes)
        and (wanted.series is None or wanted.series.search(instance.description))
    ]


async def collect(wire: Wire, shelf: Shelf, results: Sequence[Listed], listed: Mapping[str, Listed]) -> None:
    """A series at once where all of it is a result, else instance by instance."""
    by_series: dict[str, set[str]] = defaultdict(set)
    for result in results:
        by_series[result.series_instance_uid].add(result.sop_instance_uid)
    for series, uids in by_series.items():
        if {uid for uid, each in listed.items() if each.series_instance_uid == series} == uids:
            await _fetch(wire, shelf, uids, series)
            continue
        for uid in sorted(uids):
            await _fetch(wire, shelf, {uid}, series, uid)


async def _fetch(wire: Wire, shelf: Shelf, expected: set[str], *uids: str) -> None:
    peer, got = wire.back, set()
    address = peer.address(shelf.study, *uids)
    async with web.get(wire.session, peer, address, web.ACCEPT_DICOM, _DOING) as answer:
        if answer.status == 200:
            async for instance in instances_of(answer, peer.name, _DOING, peer.limits.least):
                got.add(instance.header.sop_instance_uid)
                await shelf.keep(instance.chunks())
    if got != expected:
        raise Retryable(
            f"the vendor lists {len(expected)} results of a series and sent {len(got & expected)}"
            f" of them, and {len(got - expected)} others",
            "They may still be arriving there; if this goes on, ask the vendor.",
        )
