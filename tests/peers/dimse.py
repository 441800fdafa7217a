"""Our side of DIMSE for as long as a test needs it: the storage service, and archives that use it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from gateway.archives.awaited import Awaited
from gateway.archives.dimse import DimseArchive
from gateway.contract import Instance
from gateway.delivery.commitment import Commitments
from gateway.dicom.lobby import Room
from gateway.dicom.peer import DimsePeer, Limits
from gateway.dicom.staging import Staging
from gateway.intake.dimse import DimseDoor
from gateway.intake.incoming import Incoming
from gateway.jobs.store import Store
from gateway.settings.sections import Settings

AET = "GATEWAY"
# Nobody who means it well is let down, however busy the machine is.
PATIENT = Limits(connect=60, accept=60, answer=60, query=120, transfer=120)


@dataclass
class Service:
    port: int
    awaited: Awaited
    staging: Staging
    incoming: Incoming
    commitments: Commitments
    settings: Settings

    def archive(
        self,
        port: int,
        aet: str,
        *,
        retrieve: Any = None,
        calling: str = AET,
        limits: Limits = PATIENT,
        tls: ssl.SSLContext | None = None,
    ) -> DimseArchive:
        return DimseArchive(
            "pacs", self.peer(port, aet, calling, limits, tls), self.staging, self.awaited, retrieve
        )

    def peer(
        self,
        port: int,
        aet: str,
        calling: str = AET,
        limits: Limits = PATIENT,
        tls: ssl.SSLContext | None = None,
    ) -> DimsePeer:
        return DimsePeer("archive pacs", "127.0.0.1", port, aet, calling, limits, tls)

    @property
    def unplaced(self) -> list[Path]:
        return list(self.staging.path.iterdir())


@contextmanager
def service(
    folder: Path,
    store: Store | None,
    peers: Mapping[str, str],
    *,
    applications: Mapping[str, Any] | None = None,
    limits: Limits = PATIENT,
    most_associations: int = 50,
    least_free: int = 0,
    clean_every: float = 30.0,
    tls: Mapping[str, Any] | None = None,
    may: Sequence[str] = ("send", "deliver"),
    archives: Mapping[str, Any] | None = None,
    room: Room = Room(),  # noqa: B008
    commitments: Commitments | None = None,
) -> Iterator[Service]:
    """`peers`: AE title → host; all may do the same. Without a store, nothing sent to us becomes a job."""
    settings = Settings(
        data_dir=folder,
        adapters={"vendor": {"kind": "vendor"}},
        archives=dict(archives or {}),
        dimse={
            "ae_title": AET,
            "peers": [{"ae_title": aet, "host": host, "may": may} for aet, host in peers.items()],
            "tls": tls,
        },
        departments={"radiology": {"applications": dict(applications or {})}},
    )
    staging = Staging(folder / "incoming" / ".arriving", least_free)
    awaited = Awaited(AET, staging)
    incoming = Incoming(settings, store, clean_every=clean_every)  # type: ignore[arg-type]
    commitments = commitments or Commitments()
    door = DimseDoor(
        settings,
        awaited,
        incoming,
        commitments,
        limits=limits,
        most_associations=most_associations,
        room=room,
    )
    port = door.start("127.0.0.1", 0)
    try:
        yield Service(port, awaited, staging, incoming, commitments, settings)
    finally:
        door.stop()


async def bytes_of(instance: Instance) -> bytes:
    return b"".join([chunk async for chunk in instance.chunks()])


def content(data: bytes) -> tuple[str, Dataset]:
    """Transfer syntax and elements: dcmtk and Orthanc write the lengths of sequences anew."""
    read = pydicom.dcmread(BytesIO(data))
    return str(read.file_meta.TransferSyntaxUID), read


def by_uid(paths: list[Path]) -> dict[str, tuple[str, Dataset]]:
    return {str(head(path).SOPInstanceUID): content(path.read_bytes()) for path in paths}


def head(path: Path) -> Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True)
