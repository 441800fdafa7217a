"""What every exchange by DIMSE has in common: who is called, how long we wait, how a failure is classed.

pynetdicom works in threads and blocks; `exchange` keeps it off the event loop, and out of the threads that
others need. The sentences name the peer as the configuration does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import pydicom.config
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, build_context, build_role, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway.contract import Failure, NeedsHuman, NotLetIn, Retryable, Unreachable
from gateway.dicom.arrival import PacedQueue, SpoolingProvider, Take, Watch
from gateway.dicom.staging import Staging

# Process-wide, as pynetdicom has it: nothing of a dataset is logged, none is decoded that is only passed on.
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
_config.STORE_SEND_CHUNKED_DATASET = True
_config.UNRESTRICTED_STORAGE_SERVICE = True
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings quote values

LARGEST_PDU: Final = 256 * 1024
PENDING: Final = frozenset((0xFF00, 0xFF01))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. `answer` is the longest silence within an exchange, `transfer` is for a whole study."""

    connect: float = 10
    accept: float = 30
    answer: float = 60
    query: float = 120
    transfer: float = 6 * 3600


@dataclass(frozen=True, slots=True)
class DimsePeer:
    """A DIMSE peer as the configuration names it: `name` is "archive pacs". `calling` is our own AE title."""

    name: str
    host: str
    port: int
    ae_title: str
    calling: str
    limits: Limits = Limits()


async def exchange(work: Callable[[Watch], T], total: float) -> T:
    """Run it in a thread of its own. Who stops waiting stops it too."""
    watch = Watch(total)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work(watch)
        except BaseException as raised:  # noqa: BLE001 handed over to who waits
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="dimse exchange", daemon=True).start()
    try:
        return await done
    finally:
        watch.stopped = True


@contextmanager
def associated(
    peer: DimsePeer,
    contexts: Sequence[PresentationContext],
    doing: str,
    watch: Watch,
    *,
    staging: Staging | None = None,
    take: Take | None = None,
    handlers: Sequence[tuple[Any, Callable[[Any], Any]]] = (),
) -> Iterator[Any]:
    """An association that is established. With `take`, what the peer stores on it is taken."""
    entity = AE(peer.calling)
    entity.connection_timeout = peer.limits.connect
    entity.acse_timeout = peer.limits.accept
    entity.dimse_timeout = entity.network_timeout = peer.limits.answer
    connected = threading.Event()
    roles = [
        build_role(str(offered.abstract_syntax), scp_role=True) for offered in contexts if offered.scp_role
    ]
    try:
        association = entity.associate(
            peer.host,
            peer.port,
            list(contexts),
            peer.ae_title,
            LARGEST_PDU,
            ext_neg=list({role.sop_class_uid: role for role in roles}.values()),
            evt_handlers=[(evt.EVT_CONN_OPEN, _on_connected, [peer.limits.answer, connected]), *handlers],
        )
    except OSError as error:
        raise unreachable(peer, doing) from error
    if not association.is_established:
        raise _refusal(peer, doing, association, connected.is_set())
    provider = SpoolingProvider(association, staging=staging, take=take, watch=watch)
    association.dul.to_provider_queue = PacedQueue(association.dul, watch)
    association.dimse = provider
    try:
        yield association
        if association.is_established and not watch.over:
            association.release()
    finally:
        if not association.is_released:
            association.abort()
        provider.abandon()


def echo(peer: DimsePeer, watch: Watch) -> None:
    doing = "checking it"
    with associated(peer, [context(Verification)], doing, watch) as association:
        status = association.send_c_echo()
        if status.get("Status") != 0:
            raise failure_of(peer, doing, status)


def context(
    abstract_syntax: str, transfer_syntaxes: Sequence[str] | None = None, *, taken: bool = False
) -> PresentationContext:
    """`taken`: the peer stores in this context, and we take."""
    built = build_context(abstract_syntax, list(transfer_syntaxes) if transfer_syntaxes else None)
    if taken:
        built.scp_role = True
    return built


def unreachable(peer: DimsePeer, doing: str) -> Unreachable:
    return Unreachable(
        f"the {peer.name} can't be reached while {doing}",
        "Check that it runs, and its host, port and the firewall between it and this machine.",
    )


def failure_of(peer: DimsePeer, doing: str, status: Dataset) -> Failure:
    """What an unwelcome status of a query or retrieval means."""
    code = status.get("Status")
    if code is None:
        return Retryable(
            f"the {peer.name} broke off, or did not answer in time, while {doing}",
            f"Check its load, its log and the network, and that it knows our AE title {peer.calling}:"
            " some break off with strangers.",
        )
    where = f"the {peer.name} answered {code:04X} while {doing}"
    if code == 0xA801:
        return NotLetIn(
            f"{where}: it doesn't know our AE title {peer.calling} as a destination",
            f"Enter {peer.calling} there, with this machine's address and our port.",
        )
    if code in (0x0124, 0x0122, 0xA900) or code == 0x0211:
        return NotLetIn(
            f"{where}: it doesn't let us, or doesn't offer this",
            f"Have it let {peer.calling} query and retrieve; its own log says more.",
        )
    return Retryable(
        where, f"It is busy or can't do it; its own log says more. Does it know our AE title {peer.calling}?"
    )


def _on_connected(event: Any, seconds: float, connected: threading.Event) -> None:
    """pynetdicom takes the limit away once connected; a peer that stops amid a message would never end."""
    event.assoc.dul.socket.socket.settimeout(seconds)
    connected.set()


def _refusal(peer: DimsePeer, doing: str, association: Any, connected: bool) -> Failure:
    answer = association.acceptor.primitive
    if answer is None:
        if not connected:
            return unreachable(peer, doing)
        return Retryable(
            f"the {peer.name} did not answer in time while {doing}",
            "Check its load, and that a DICOM service listens on its port.",
        )
    if answer.result == 0:
        return NeedsHuman(
            f"the {peer.name} takes our association, but offers nothing of what is needed for {doing}",
            f"Have it offer the service to our AE title {peer.calling}.",
        )
    if answer.result == 1:
        titles = {3: f"our AE title {peer.calling}", 7: f"its AE title {peer.ae_title}"}
        what = (
            titles.get(answer.diagnostic, "our association")
            if answer.result_source == 1
            else "our association"
        )
        return NotLetIn(
            f"the {peer.name} refused {what} while {doing}",
            f"Enter our AE title {peer.calling} there with this machine's address, and check its own in the"
            " configuration.",
        )
    return Retryable(
        f"the {peer.name} refused our association for now while {doing}",
        "It has as many associations as it takes; if this goes on, raise its limit.",
    )
