"""Instances that lie on this machine's disk, given on as if they came over the network."""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import BinaryIO

from gateway.archives.archive import AtHand, InstanceRef
from gateway.contract import Header
from gateway.dicom.part10 import MAX_HEADER, NotDicom, read_header
from gateway.dicom.reading import read_before, readable
from gateway.dicom.texts import texts_of

_FIRST_LOOK = 64 * 1024
_CHUNK = 1024 * 1024


class FileInstance:
    def __init__(self, path: Path, header: Header) -> None:
        self.header = header
        self._path = path

    async def chunks(self) -> AsyncIterator[bytes]:
        with await asyncio.to_thread(self._path.open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk


def read_file_header(source: Path | BinaryIO) -> Header:
    """NotDicom, if the file doesn't say which instance it is."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            return read_file_header(file)
    data = source.read(_FIRST_LOOK)
    header = read_header(data) or read_header(data + source.read(MAX_HEADER - len(data)))
    if header is None:
        raise NotDicom("an instance ends within its header")
    return header


def describe_file(source: Path | BinaryIO, header: Header, keywords: Collection[str]) -> InstanceRef:
    told: dict[str, tuple[str, ...]] = {}
    if keywords:
        said = read_before(source, keywords=keywords)
        with readable():
            told = {keyword: texts for keyword in keywords if (texts := texts_of(said, keyword))}
    return InstanceRef(
        header.series_instance_uid, header.sop_instance_uid, header.sop_class_uid, header.modality, told
    )


async def open_instance(path: Path) -> FileInstance:
    return FileInstance(path, await asyncio.to_thread(read_file_header, path))


class FilesAtHand(AtHand):
    @abstractmethod
    async def _paths_of(self, study: str) -> Mapping[str, Path]: ...

    async def _walk(self, study: str, expected: Collection[str] | None) -> AsyncGenerator[FileInstance, None]:
        paths = await self._paths_of(study)
        for uid in paths if expected is None else expected:
            if uid in paths:
                yield await open_instance(paths[uid])


def sync(path: Path) -> None:
    """A file's bytes, or a folder's names, survive a power cut from here on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
