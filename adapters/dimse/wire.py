"""Associations with a vendor: a study on its way there instance by instance, and what it lists of one.

pynetdicom blocks and wants files, studies come as streams: each instance lies in the work folder for as long
as it takes to send it, and only the next one or two are fetched meanwhile.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import aiohttp
from pydantic import Field
from pydicom.dataset import Dataset
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from gateway.contract import Failure, Header, NeedsHuman, Permanent, Retryable, Sender, Study
from gateway.dicom.arrival import Watch
from gateway.dicom.association import (
    PENDING,
    associated,
    context,
    echo,
    exchange,
    failure_of,
)
from gateway.dicom.certificate import trust_of
from gateway.dicom.peer import DimsePeer, Limits
from gateway.dicom.storing import DUPLICATE, describe
from gateway.kit.folder import put_down
from gateway.kit.options import AwaitedOptions
from gateway.kit.quantities import PositiveDuration
from gateway.kit.walk import walking

_SENDING, _LISTING = "taking the study", "listing the study"
_AHEAD = 2
_MOST_ANSWERS = 100_000
_MOST_CONTEXTS = 128
_TICK = 0.2


AeTitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[!-\[\]-~ ]+$")]


class Options(AwaitedOptions):
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    ae_title: AeTitle
    calling: AeTitle = "GATEWAY"  # our own AE title, as the vendor knows it
    tls: bool = False  # as the machine trusts; `ca` or `certificate` says so too
    results_from: list[Sender] = Field(
        default_factory=list
    )  # who stores the results with us, if it isn't the same

    slowest_poll: PositiveDuration = 15.0
    upload_timeout: PositiveDuration = 6 * 3600.0


class _Abandoned(Exception):
    """The study won't be whole."""


class Wire:
    def __init__(self, options: Options, session: aiohttp.ClientSession) -> None:
        limits = Limits(
            options.connect_timeout,
            options.read_timeout,
            options.read_timeout,
            options.call_timeout,
            options.upload_timeout,
        )
        self._peer = DimsePeer(
            "vendor",
            options.host,
            options.port,
            options.ae_title,
            options.calling,
            limits,
            trust_of(session, always=options.tls),
        )

    async def greet(self) -> datetime | None:
        """Until when its certificate holds, if it has one."""
        return await exchange(lambda watch: echo(self._peer, watch), self._peer.limits.query)

    async def list_study(self, study: str) -> set[str]:
        """The SOP instance UIDs that it has; none if it has nothing, or answers no questions."""
        return await exchange(lambda watch: self._list(study, watch), self._peer.limits.query)

    async def send(self, study: Study, work: Path) -> tuple[str, ...]:
        """The SOP instance UIDs that the vendor has taken, which are all."""
        crate = _Crate(asyncio.get_running_loop())
        sending = asyncio.create_task(
            exchange(lambda watch: self._store(crate, watch), self._peer.limits.transfer)
        )
        try:
            await _fill(crate, study, work, sending)
            return tuple(await sending)
        except Failure:
            crate.close(whole=False)
            with suppress(Failure, _Abandoned):  # what came of it there isn't known, and no news
                await sending
            raise
        finally:
            sending.cancel()
            crate.close(whole=False)
            _tidy(work)

    def _list(self, study: str, watch: Watch) -> set[str]:
        model = StudyRootQueryRetrieveInformationModelFind
        uids: set[str] = set()
        with associated(self._peer, [context(Verification), context(model)], _LISTING, watch) as association:
            if not any(accepted.abstract_syntax == model for accepted in association.accepted_contexts):
                return uids
            for series in self._ask(association, study, "SERIES", SeriesInstanceUID=""):
                within = {"SeriesInstanceUID": series.SeriesInstanceUID, "SOPInstanceUID": ""}
                uids |= {
                    str(image.SOPInstanceUID) for image in self._ask(association, study, "IMAGE", **within)
                }
        return uids

    def _ask(self, association: Any, study: str, level: str, **keys: str) -> list[Dataset]:
        asked = Dataset()
        asked.QueryRetrieveLevel = level
        asked.StudyInstanceUID = study
        for keyword, value in keys.items():
            setattr(asked, keyword, value)
        found: list[Dataset] = []
        for status, item in association.send_c_find(asked, StudyRootQueryRetrieveInformationModelFind):
            code = status.get("Status")
            if len(found) >= _MOST_ANSWERS:
                raise Retryable(f"the vendor answered without end while {_LISTING}", "Tell its makers.")
            if code in PENDING and item is not None:
                if all(item.get(keyword) for keyword in keys):
                    found.append(item)
            elif code != 0x0000:
                failure = failure_of(self._peer, _LISTING, status)
                if isinstance(failure, NeedsHuman):  # it answers no questions
                    return []
                raise failure
        return found

    def _store(self, crate: _Crate, watch: Watch) -> list[str]:
        taken: list[str] = []
        offered: set[tuple[str, str]] = set()
        association: Any = None
        with ExitStack() as stack:
            for header, path in crate.unpack(watch):
                kind = header.sop_class_uid, header.transfer_syntax_uid
                # One that either side has ended while the archive was slow is begun anew.
                if association is None or kind not in offered or not association.is_established:
                    stack.close()
                    offered = {kind} if len(offered) >= _MOST_CONTEXTS else offered | {kind}
                    contexts = [context(sop_class, [syntax]) for sop_class, syntax in sorted(offered)]
                    association = stack.enter_context(associated(self._peer, contexts, _SENDING, watch))
                self._store_one(association, header, path, len(taken))
                taken.append(header.sop_instance_uid)
                crate.drop(path)
        return taken

    def _store_one(self, association: Any, header: Header, path: Path, before: int) -> None:
        kind = header.sop_class_uid, header.transfer_syntax_uid
        accepted = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in association.accepted_contexts
        }
        if kind not in accepted:
            raise Permanent(
                f"the vendor doesn't take instances of this kind (SOP class {kind[0]}, transfer syntax"
                f" {kind[1]})",
                "Have the vendor accept it, or choose what the application sends (`choose`).",
            )
        code = association.send_c_store(path, msg_id=before % 65535 + 1).get("Status")
        if code is None:
            raise Retryable(
                "the vendor broke off, or did not answer in time, while taking the study"
                f" (it took {before} instances)",
                "Check its load and its log, and the network between it and this machine.",
                uncertain=True,
            )
        if code not in (0x0000, DUPLICATE) and code & 0xF000 != 0xB000:
            raise _refusal_of(code, before)


class _Crate:
    """Between the event loop, which fills it, and the thread that sends."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: queue.Queue[tuple[Header, Path] | bool] = queue.Queue()
        self._room = asyncio.Semaphore(_AHEAD)

    async def has_room(self, sending: asyncio.Task[Any]) -> bool:
        """False once nobody sends any more."""
        waiting = asyncio.create_task(self._room.acquire())
        try:
            await asyncio.wait({waiting, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        return not sending.done()

    def put(self, header: Header, path: Path) -> None:
        self._items.put((header, path))

    def close(self, *, whole: bool) -> None:
        self._items.put(whole)

    def unpack(self, watch: Watch) -> Iterator[tuple[Header, Path]]:
        while not watch.over:
            try:
                item = self._items.get(timeout=_TICK)
            except queue.Empty:
                continue
            if item is True:
                return
            if item is False:
                raise _Abandoned
            yield item
        raise Retryable(
            "the study took longer to send than it may",
            "Raise the adapter's `upload_timeout`, or look why the archive or the vendor is so slow.",
            uncertain=True,
        )

    def drop(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._room.release)


async def _fill(crate: _Crate, study: Study, work: Path, sending: asyncio.Task[Any]) -> None:
    async with walking(study) as instances:
        count = 0
        async for instance in instances:
            if not await crate.has_room(sending):
                return
            path = work / f"outgoing-{count}.dcm"
            await put_down(instance, path)
            crate.put(instance.header, path)
            count += 1
    crate.close(whole=True)


def _tidy(work: Path) -> None:
    for left in work.glob("outgoing-*.dcm"):
        left.unlink(missing_ok=True)


def _refusal_of(code: int, before: int) -> Failure:
    said = f"the vendor refused an instance, after it took {before}: {describe(code)}"
    if code == 0x0124:
        return NeedsHuman(said, "Have it let our AE title store, then resume the job.")
    if code in (0x0117, 0x0122) or code & 0xFF00 == 0xA900 or code & 0xF000 == 0xC000:
        return Permanent(said, "The study doesn't suit this vendor; its own log says more.")
    return Retryable(said, "It is busy, or its disk is full; if this goes on, ask the vendor.")
