"""A bucket of a store that speaks S3, where what was sent to us lies for all machines, under names that say
nothing. Whole or not at all: one that breaks off on its way isn't there. What goes wrong is one of our
failures, for which nothing of the store's answer is repeated."""

from __future__ import annotations

import asyncio
import io
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import UUID, uuid4

from gateway.contract import Failure, Health, NeedsHuman, NotLetIn, Unreachable
from gateway.extras import say_missing
from gateway.settings.certificates import read_authority
from gateway.settings.sections import S3Spool
from gateway.settings.tree import Misconfigured

if TYPE_CHECKING:
    from obstore.store import S3Store

PEER = "spool"

_PIECE = 8 * 2**20  # of an object: what is larger goes and comes in several calls, each with its limit
_PIECES_AT_ONCE = 4
_OBJECTS_AT_ONCE = 8
_LOOK = 64 * 2**10
_CONNECT, _CALL, _PATIENCE = timedelta(seconds=5), timedelta(seconds=60), timedelta(seconds=15)
_HELD = "arrived"
_KINDS = {NeedsHuman: "gone", NotLetIn: "refused", Unreachable: "away"}
_MARK = "installation"


@dataclass(slots=True)
class Calls:
    """How this process fares there, for those who watch. `failures`: by what was being done, and the kind."""

    succeeded_at: float | None = None
    failed_at: float | None = None
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)


calls = Calls()


class Bucket:
    """`installation`: of the one database that it is for."""

    def __init__(self, place: S3Spool, installation: Callable[[], Awaitable[UUID]]) -> None:
        self.most_bytes = place.most_bytes
        self._store = _open(place)
        self._installation = installation
        self._is_ours = False

    # -- objects ------------------------------------------------------------------------------------------

    async def put(self, name: UUID, path: Path) -> None:
        """Afterwards it is durable there."""
        await self.claim()
        with _translated("storing"):
            await self._store.put_async(_key(name), path, chunk_size=_PIECE, max_concurrency=_PIECES_AT_ONCE)

    async def put_all(self, paths: Mapping[UUID, Path]) -> None:
        """As `put`; if one fails, all that came so far is removed again, as far as that can be done."""
        places = asyncio.Semaphore(_OBJECTS_AT_ONCE)

        async def put(name: UUID, path: Path) -> None:
            async with places:
                await self.put(name, path)

        try:
            async with asyncio.TaskGroup() as group:
                for name, path in paths.items():
                    group.create_task(put(name, path))
        except ExceptionGroup as failed:
            with suppress(Failure):
                await self.remove(list(paths))
            raise failed.exceptions[0] from None

    async def chunks(self, name: UUID, size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, _PIECE):
            with _translated("reading"):
                piece = await self._store.get_range_async(
                    _key(name), start=start, end=min(size, start + _PIECE)
                )
            yield bytes(piece)

    async def fetch(self, name: UUID, size: int, path: Path) -> None:
        with await asyncio.to_thread(path.open, "wb") as file:
            async for piece in self.chunks(name, size):
                await asyncio.to_thread(file.write, piece)

    def open(self, name: UUID, size: int) -> BinaryIO:
        """For those who want its beginning; read in a thread."""
        return io.BufferedReader(_Remote(self._read, name, size), _LOOK)

    def _read(self, name: UUID, start: int, end: int) -> bytes:
        with _translated("reading"):
            return bytes(self._store.get_range(_key(name), start=start, end=end))

    async def remove(self, names: Collection[UUID]) -> None:
        """Also what isn't there any more."""
        if names:
            with _translated("removing"):
                await self._store.delete_async([_key(name) for name in names])

    async def older_than(self, seconds: float) -> AsyncIterator[list[UUID]]:
        """What has been there for longer."""
        before = datetime.now(UTC) - timedelta(seconds=seconds)
        with _translated("listing"):
            async for listed in self._store.list(_HELD):
                found = []
                for each in listed:
                    with suppress(ValueError):  # not ours
                        if each["last_modified"] < before:
                            found.append(UUID(each["path"].rpartition("/")[2]))
                yield found

    # -- the bucket ---------------------------------------------------------------------------------------

    async def claim(self) -> None:
        """What lies there is of one database; a gateway with another one would take it for nobody's."""
        if self._is_ours:
            return
        ours = str(await self._installation())
        with _translated("opening"):
            try:
                held = await (await self._store.get_async(_MARK)).bytes_async()
            except FileNotFoundError:
                await self._store.put_async(_MARK, ours.encode())
                held = await (await self._store.get_async(_MARK)).bytes_async()
        if bytes(held).decode(errors="replace") != ours:
            raise NeedsHuman(
                "the spool's bucket belongs to a gateway with another database",
                "Give this one a prefix or a bucket of its own. If that database is gone for good, see"
                f" whether anything there is still needed, then remove its object {_MARK}.",
            )
        self._is_ours = True

    async def check(self) -> Health:
        """By an object that is stored, read and removed."""
        name, said = f"check-{uuid4()}", b"gateway check"
        try:
            with _translated("storing"):
                await self._store.put_async(name, said)
            with _translated("reading"):
                read = bytes(await (await self._store.get_async(name)).bytes_async())
            with _translated("removing"):
                await self._store.delete_async(name)
        except Failure as failure:
            return Health(False, failure.sentences)
        if read != said:
            return Health(
                False, "the spool's bucket gave back another object than was stored. See its store."
            )
        return Health(True, "the bucket takes objects, gives them back and removes them")


class _Remote(io.RawIOBase):
    name = ""  # pydicom asks for it

    def __init__(self, read: Callable[[UUID, int, int], bytes], name: UUID, size: int) -> None:
        self._get, self._name, self._size = read, name, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._size, self._at + len(buffer))
        if end <= self._at:
            return 0
        piece = self._get(self._name, self._at, end)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _key(name: UUID) -> str:
    return f"{_HELD}/{name}"


def _open(place: S3Spool) -> S3Store:
    try:
        from obstore.store import S3Store
    except ImportError:
        raise Misconfigured([f"spool: {say_missing('s3')}, which speaks S3"]) from None
    client: dict[str, Any] = {
        "allow_http": place.url.startswith("http://"),
        "connect_timeout": _CONNECT,
        "timeout": _CALL,
    }
    if place.ca is not None:
        client["root_certificate"] = read_authority("spool.ca", place.ca)
    if place.proxy is not None:
        client["proxy_url"] = place.proxy.get_secret_value()
    return S3Store(
        place.bucket,
        prefix=place.prefix.strip("/") or None,
        endpoint=place.url,
        region=place.region,
        access_key_id=place.access_key.get_secret_value(),
        secret_access_key=place.secret_key.get_secret_value(),
        virtual_hosted_style_request=False,
        client_options=client,  # type: ignore[arg-type]
        retry_config={
            "max_retries": 3,
            "retry_timeout": _PATIENCE,
            "backoff": {
                "init_backoff": timedelta(milliseconds=200),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        },
    )


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except FileNotFoundError:
        failure: Failure = NeedsHuman(
            "what was sent to us isn't in the spool's bucket any more"
            if doing == "reading"
            else f"the spool's bucket isn't there while {doing}",
            "Check `spool.bucket` and `prefix`, and that nobody else removes anything there; then have the"
            " study sent again.",
        )
    except (PermissionDeniedError, UnauthenticatedError):
        failure = NotLetIn(
            f"the spool's store refuses our credentials while {doing}",
            "Check `spool.access_key` and `secret_key`, and that they may put, get, list and delete there.",
        )
    except BaseError:
        failure = Unreachable(
            f"the spool's store can't be reached, or is in trouble, while {doing}",
            "Check that it runs, `spool.url`, its certificate (`ca`), and the network between it and us.",
        )
    else:
        calls.succeeded_at = time.time()
        return
    calls.failed_at = time.time()
    calls.failures[doing, _KINDS[type(failure)]] += 1
    failure.blame(PEER)
    raise failure from None
