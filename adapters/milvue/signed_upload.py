"""A study's instances on their way to their signed urls: several at once, each tried again on its own.

Signed urls are written down in the work folder, readable by us alone, so that an upload that broke goes on
with the instances that are missing. They are never told to anyone: whoever has one may write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adapters.milvue.upload import announce
from adapters.milvue.wire import Options, Wire, check_signed
from gateway.contract import Busy, Instance, Retryable, Study, Unreachable
from gateway.kit.folder import note, put_down, read, recall
from gateway.kit.walk import walking

_NOTES = "upload.json"
_WHAT = "an instance by signed url"
_TRIES = 3  # of one instance, at once: a store of that size drops a connection now and then
_MOST_FAILED = 3  # instances; with more of them it isn't about one
_LEAST_SHARE = 20  # one in so many of what is left has to arrive before new urls are asked for at once


class _Expired(Retryable):
    """New urls are asked for, at once if that can be expected to help."""


async def send_by_signed_urls(wire: Wire, study: Study, work: Path) -> tuple[str, ...]:
    """The SOP instance UIDs that were acknowledged. The urls are noted in the work folder: only who doesn't
    find them there announces what is missing anew."""
    done: dict[str, None] = {}
    urls = _recall_urls(work, study.study_instance_uid)
    old = bool(urls)
    while True:
        if not urls:
            urls = await _ask_urls(wire, study, work, done)
        before = len(done)
        try:
            await _put_all(wire, study, work, urls, done)
        except _Expired:
            _forget_urls(work)
            urls = {}
            if not old and len(done) - before < max(1, (study.promised - before) // _LEAST_SHARE):
                raise
            old = False
        else:
            _forget_urls(work)
            return tuple(done)


async def _ask_urls(wire: Wire, study: Study, work: Path, done: Mapping[str, None]) -> dict[str, str]:
    said, announced = await announce(wire, study, done)
    urls = _read_urls(said, wire.options)
    if urls.keys() - announced:
        await study.begin_anew()
        raise Retryable("Milvue asks for more than it was told of now; the whole study is sent anew")
    note(work / _NOTES, {"study": study.study_instance_uid, "urls": urls})
    return urls


async def _put_all(
    wire: Wire, study: Study, work: Path, urls: Mapping[str, str], done: dict[str, None]
) -> None:
    left = study.promised - len(done)
    async with walking(study) as instances, _Uploads(wire, study, work, urls, done) as uploads:
        async for instance in instances:
            if instance.header.sop_instance_uid in done:
                continue
            await uploads.begin(instance)
            left -= 1
            if left <= 0:  # before the walk ends, which says that all has been sent
                await uploads.finish()
        await uploads.finish()


class _Uploads:
    """Those under way. The first trouble that isn't one instance's alone ends all."""

    def __init__(
        self, wire: Wire, study: Study, work: Path, urls: Mapping[str, str], done: dict[str, None]
    ) -> None:
        self._wire = wire
        self._study = study
        self._work = work
        self._urls = urls
        self._done = done
        self._places = asyncio.Semaphore(wire.options.uploads_at_once)
        self._acknowledging = asyncio.Lock()  # they would wait for one another in the database
        self._under_way: set[asyncio.Task[None]] = set()
        self._begun = 0
        self._failed: list[Exception] = []
        self._all_end = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            for task in self._under_way:
                task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def begin(self, instance: Instance) -> None:
        """Its bytes lie here when this returns, and are on their way."""
        await self._places.acquire()
        try:
            self._check()
            uid = instance.header.sop_instance_uid
            url = self._urls.get(uid)
            if url is None:
                raise _Expired("Milvue gave no signed url for one of the study's instances")
            self._begun += 1
            path = self._work / f"instance-{self._begun}.part"
            await put_down(instance, path)
        except BaseException:
            self._places.release()
            raise
        task = asyncio.create_task(self._carry(uid, url, path))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def finish(self) -> None:
        while self._under_way:
            await asyncio.wait(self._under_way)
        if self._failed:
            raise self._failed[0]

    def _check(self) -> None:
        if self._all_end or len(self._failed) >= _MOST_FAILED:
            raise self._failed[0]

    async def _carry(self, uid: str, url: str, path: Path) -> None:
        try:
            await self._put(url, path)
            async with self._acknowledging:
                await self._study.acknowledge(uid)
            self._done[uid] = None
        except Exception as trouble:  # noqa: BLE001 - whoever waits for all of them raises it
            passing = type(trouble) is not _Expired and _is_of_one(trouble)
            self._all_end = self._all_end or not passing
            self._failed.insert(len(self._failed) if passing else 0, trouble)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)
            self._places.release()

    async def _put(self, url: str, path: Path) -> None:
        for left in reversed(range(_TRIES)):
            try:
                await self._put_once(url, path)
            except Retryable as failure:
                if not left or not _is_of_one(failure):
                    raise
            else:
                return

    async def _put_once(self, url: str, path: Path) -> None:
        size = (await asyncio.to_thread(path.stat)).st_size
        headers = {
            "Content-Type": "application/dicom",
            "Content-Length": str(size),  # a blob store takes no body of unknown length
            "x-ms-blob-type": "BlockBlob",
        }
        body = self._wire.outgoing(read(path, size), _WHAT)
        async with self._wire.call_signed(_WHAT, "PUT", url, headers, body=body) as response:
            if response.status in (401, 403, 404, 410):
                raise _Expired(f"a signed url of Milvue is no longer valid ({response.status})")
            if response.status not in (200, 201, 204):
                raise await self._wire.refuse(response, _WHAT)


def _is_of_one(trouble: Exception) -> bool:
    """Whether others, and the same another time, may fare better: no store that is away, or wants a pause."""
    away = isinstance(trouble, Unreachable | Busy | _Expired)
    return isinstance(trouble, Retryable) and not away and trouble.after is None


def _recall_urls(work: Path, study: str) -> dict[str, str]:
    noted = recall(work / _NOTES)
    urls = noted.get("urls") if isinstance(noted, dict) and noted.get("study") == study else None
    return urls if isinstance(urls, dict) else {}


def _forget_urls(work: Path) -> None:
    (work / _NOTES).unlink(missing_ok=True)


def _read_urls(said: dict[str, Any], options: Options) -> dict[str, str]:
    urls = said.get("signed_urls")
    if not isinstance(urls, dict) or not urls:
        raise Retryable("Milvue took the study's headers but gave no signed urls")
    return {str(uid): check_signed(url, options) for uid, url in urls.items()}
