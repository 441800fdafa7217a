"""What every exchange by DIMSE has in common: who is called, how long we wait, how a failure is classed.

pynetdicom works in threads and blocks; `exchange` keeps it off the event loop, and out of the threads that
others need. The sentences name the peer as the configuration does.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, Final, TypeVar, cast

import pydicom.config
from pydicom.dataset import Dataset
from pynetdicom import _config, build_context, build_role, evt
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway import spans, traffic
from gateway.contract import Failure, NeedsHuman, NotLetIn, Retryable, Unreachable, Untrusted
from gateway.dicom.arrival import Take, Watch
from gateway.dicom.peer import DimsePeer
from gateway.dicom.provider import PacedQueue, SpoolingProvider
from gateway.dicom.staging import Staging
from gateway.dicom.wire import Caller
from gateway.http import Unanswered, distrust
from gateway.sessions import expiry_in

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

    within = contextvars.copy_context()  # its log lines belong to the same job
    threading.Thread(target=within.run, args=(run,), name="dimse exchange", daemon=True).start()
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
    with (
        spans.call("DIMSE", traffic.key_of(peer.name), doing=doing),
        _established(peer, contexts, doing, watch, staging, take, handlers) as association,
    ):
        yield association


@contextmanager
def _established(
    peer: DimsePeer,
    contexts: Sequence[PresentationContext],
    doing: str,
    watch: Watch,
    staging: Staging | None,
    take: Take | None,
    handlers: Sequence[tuple[Any, Callable[[Any], Any]]],
) -> Iterator[Any]:
    entity = Caller(peer.calling)
    entity.connection_timeout = peer.limits.connect
    entity.acse_timeout = peer.limits.accept
    entity.dimse_timeout = entity.network_timeout = peer.limits.answer
    opening = _Opening(peer)
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
            tls_args=None if peer.tls is None else (cast(ssl.SSLContext, opening), peer.host),
            evt_handlers=[(evt.EVT_CONN_OPEN, opening.finish), *_counting(peer), *handlers],
        )
    except OSError as error:
        raise unreachable(peer, doing) from error
    if not association.is_established:
        raise _refusal(peer, doing, association, opening)
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


def _counting(peer: DimsePeer) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    key = traffic.key_of(peer.name)
    yield evt.EVT_DATA_SENT, lambda event: traffic.count(traffic.sent, key, len(event.data))
    yield evt.EVT_DATA_RECV, lambda event: traffic.count(traffic.received, key, len(event.data))


def echo(peer: DimsePeer, watch: Watch) -> datetime | None:
    """Until when its certificate holds, with TLS."""
    doing = "checking it"
    with associated(peer, [context(Verification)], doing, watch) as association:
        status = association.send_c_echo()
        if status.get("Status") != 0:
            raise failure_of(peer, doing, status)
        link = association.dul.socket.socket
        return expiry_in(link.getpeercert()) if isinstance(link, ssl.SSLSocket) else None


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
        return Unanswered(
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
    failing = Retryable(
        where, f"It is busy or can't do it; its own log says more. Does it know our AE title {peer.calling}?"
    )
    failing.manner = f"answers {code:04X}"
    return failing


class _Opening:
    """The connection as it comes about. pynetdicom would keep to itself why a handshake fails, so that it is
    made here; and it takes the limit away once connected: who stops amid a message would never end."""

    def __init__(self, peer: DimsePeer) -> None:
        self._peer = peer
        self.connected = False
        self.trouble: OSError | None = None

    def wrap_socket(self, plain: socket.socket, **named: Any) -> ssl.SSLSocket:
        assert self._peer.tls is not None
        return self._peer.tls.wrap_socket(plain, do_handshake_on_connect=False, **named)

    def finish(self, event: Any) -> None:
        link = event.assoc.dul.socket.socket
        link.settimeout(self._peer.limits.answer)
        if isinstance(link, ssl.SSLSocket):
            try:
                link.do_handshake()
            except OSError as trouble:
                self.trouble = trouble
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)
        self.connected = True


def _refusal(peer: DimsePeer, doing: str, association: Any, opening: _Opening) -> Failure:
    answer = association.acceptor.primitive or _unread(association)
    if isinstance(opening.trouble, ssl.SSLError):
        why, advice = distrust(opening.trouble)
        return Untrusted(
            f"the {peer.name} can't be trusted while {doing}: {why}",
            advice or "Name the authority of its certificate as its `ca`, or have the certificate renewed.",
        )
    if opening.trouble is not None:
        return Unreachable(
            f"the {peer.name} broke off the TLS handshake while {doing}",
            "Check that it speaks TLS 1.2 or later at its port, and whether it asks for a `certificate` of"
            " ours.",
        )
    if answer is None:
        if not opening.connected:
            return unreachable(peer, doing)
        asked = ", and whether it asks for a `certificate` of ours" if peer.tls else ""
        return Unanswered(
            f"the {peer.name} did not answer in time while {doing}",
            f"Check its load, and that a DICOM service listens on its port{asked}.",
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
    full = Retryable(
        f"the {peer.name} refused our association for now while {doing}",
        "It has as many associations as it takes; if this goes on, raise its limit.",
    )
    full.manner = "refuses our associations"
    return full


def _unread(association: Any) -> Any:
    """Who refuses us hangs up. pynetdicom looks first whether we are still connected: a refusal that came
    before it had turned round it takes for no answer."""
    answer = association.dul.receive_pdu()
    return answer if isinstance(answer, A_ASSOCIATE) and answer.result else None
