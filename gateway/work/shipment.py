"""A study on its way from the archive to a vendor: only what was chosen, each instance counted and hashed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from gateway.archives.archive import Archive, InstanceRef, unlisted
from gateway.contract import Header, Instance, Retryable, Unsuitable, blaming
from gateway.dicom.heading import ENDS_IDENTITY, parse_heading, take_heading
from gateway.dicom.part10 import ImageReader, read_patient
from gateway.jobs.records import InstanceRecord
from gateway.work.disguise import Disguise

if TYPE_CHECKING:  # pydicom is loaded when the first study is met
    from pydicom.dataset import Dataset


class Shipment:
    """The `Study` that an adapter gets. `check` sees the attributes of the first instance, and of each that
    is of another patient than the one before, before the adapter sees anything of it. `on_end` is told what
    was read whole before the walk ends, so that it stands in the database before the vendor hears that this
    was the last instance. `disguise`: the vendor may not know whose study it is, and knows aliases alone."""

    def __init__(
        self,
        archive: Archive,
        study_instance_uid: str,
        chosen: Mapping[str, InstanceRecord],
        listed: Sequence[InstanceRef],
        max_bytes: int | None,
        check: Callable[[Dataset], None],
        on_end: Callable[[list[InstanceRecord]], Awaitable[None]],
        on_acknowledged: Callable[[str], Awaitable[None]],
        on_anew: Callable[[], Awaitable[None]],
        spool: Path | None = None,
        disguise: Disguise | None = None,
    ) -> None:
        self.study_instance_uid = disguise.alias(study_instance_uid) if disguise else study_instance_uid
        self._asked_for = study_instance_uid
        self._disguise = disguise
        self.promised = len(chosen)
        self._archive = archive
        self._chosen = chosen
        self._listed = listed
        self._max_bytes = max_bytes
        self._check = check
        self._on_end = on_end
        self._on_acknowledged = on_acknowledged
        self._on_anew = on_anew
        self._spool = spool

    def instances(self) -> AsyncIterator[Instance]:
        return self._walk(self._on_end)

    def headings(self) -> AsyncIterator[Instance]:
        return self._walk(None)

    async def acknowledge(self, sop_instance_uid: str) -> None:
        if self._disguise is not None:
            aliases = {self._disguise.alias(uid): uid for uid in self._chosen}
            sop_instance_uid = aliases.get(sop_instance_uid, sop_instance_uid)
        await self._on_acknowledged(sop_instance_uid)

    async def begin_anew(self) -> None:
        await self._on_anew()

    async def _walk(
        self, on_end: Callable[[list[InstanceRecord]], Awaitable[None]] | None
    ) -> AsyncIterator[Instance]:
        archive = self._archive.name
        listed = {each.sop_instance_uid for each in self._listed}
        seen: dict[str, _Counted] = {}
        size = 0
        patient: tuple[bytes, ...] | None = None
        with blaming(f"archives.{archive}"):
            async for instance in self._archive.retrieve(
                self._asked_for, self._chosen, self._spool, self._listed
            ):
                uid = instance.header.sop_instance_uid
                if uid not in listed:
                    raise unlisted(archive)
                if uid not in self._chosen:
                    continue
                if uid in seen:
                    raise Retryable(
                        f"the archive {archive} sent an instance twice",
                        "If this goes on, have the archive check the study.",
                    )
                chunks = instance.chunks()
                taken = await take_heading(chunks, ENDS_IDENTITY)
                if patient != (patient := read_patient(taken)):
                    self._check(parse_heading(taken, ENDS_IDENTITY))
                chunks = _after(taken, chunks)
                seen[uid] = counted = _Counted(instance.header, chunks, f"archives.{archive}")
                yield counted if self._disguise is None else await self._disguise.instance(counted)
                size += counted.size
                if self._max_bytes is not None and size > self._max_bytes:
                    raise Unsuitable(
                        f"the study is larger than this application accepts ({self._max_bytes / 1e9:g} GB)",
                        "Raise accept.max_bytes of the application if the vendor takes more.",
                    )
            if len(seen) < self.promised:
                raise Retryable(
                    f"the archive {archive} sent {len(seen)} of the {self.promised} instances chosen",
                    "If this goes on, have the archive check the study.",
                )
        if on_end is None:
            return
        read = [
            replace(
                self._chosen[uid],
                bytes=passed.size,
                blake3=passed.digest,
                width=passed.image.width(),
                lies=passed.image.lies(),
            )
            for uid, passed in seen.items()
        ]
        whole = [record for record, passed in zip(read, seen.values(), strict=True) if passed.whole]
        await on_end(whole)


async def _after(taken: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield taken
    async for chunk in rest:
        yield chunk


class _Counted:
    def __init__(self, header: Header, chunks: AsyncIterator[bytes], peer: str) -> None:
        self.header = header
        self._chunks = chunks
        self._peer = peer
        self._hash = blake3()  # a fifth of what SHA-256 costs on the way
        self.size = 0
        self.image = ImageReader()
        self.whole = False

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    async def chunks(self) -> AsyncIterator[bytes]:
        with blaming(self._peer):
            async for chunk in self._chunks:
                self.image.feed(chunk)
                self._hash.update(chunk)
                self.size += len(chunk)
                yield chunk
        self.whole = True
