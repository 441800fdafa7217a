"""Where callers wait until they have said whom they call: one thread for all of them, however many.

A caller has some seconds for his whole A-ASSOCIATE-RQ, and no thread of his own before that. Where too many
wait, the one goes who has waited longest, of the address with the most: an honest caller says at once what he
wants.
"""

from __future__ import annotations

import errno
import selectors
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import structlog

from gateway.loops import Loop
from gateway.settings.certificates import RenewedContext

log = structlog.get_logger(__name__)

_HEAD: Final = 6
_REQUEST: Final = 1  # the type of an A-ASSOCIATE-RQ
_LONGEST_REQUEST: Final = 256 * 1024  # 128 contexts with 40 transfer syntaxes each take 150 kB
_CALLED, _CALLING = slice(10, 26), slice(26, 42)
_TICK = 0.2
_AT_ONCE = 64
_FAREWELL = 2.0  # seconds for who isn't let in to read why
_REST = 0.5  # when no more connections can be opened
_TELL_EVERY = 30.0
_BUSY: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller asks for: his A-ASSOCIATE-RQ, as it came. `vouchers`: who vouched for his certificate."""

    calling: str
    called: str
    address: str
    pdu: bytes
    vouchers: int = 0


Receive = Callable[[socket.socket, Any, Request], bytes | None]  # why not, as a PDU; None: he is taken over


@dataclass(frozen=True, slots=True)
class Room:
    """How many may wait, in all and of one address, and for how many seconds."""

    most: int = 256
    of_one: int = 32
    patience: float = 10.0


@dataclass(frozen=True, slots=True)
class Security:
    """TLS with those who connect. `accepts`: whether a certificate (DER) may, if they are asked for one."""

    context: ssl.SSLContext
    accepts: Callable[[bytes], bool]

    def vouchers(self) -> int:
        return self.context.vouchers() if isinstance(self.context, RenewedContext) else 0


@dataclass(eq=False, slots=True)
class _Caller:
    wire: socket.socket
    peer: Any
    until: float
    vouchers: int = 0
    data: bytearray = field(default_factory=bytearray)
    secured: bool = False
    leaving: bool = False

    @property
    def address(self) -> str:
        return str(self.peer[0])

    @property
    def missing(self) -> int:
        if len(self.data) < _HEAD:
            return _HEAD - len(self.data)
        return _HEAD + int.from_bytes(self.data[2:6], "big") - len(self.data)


class Lobby:
    """`knows` is asked for an address."""

    def __init__(
        self,
        listener: socket.socket,
        knows: Callable[[str], bool],
        receive: Receive,
        room: Room,
        security: Security | None = None,
    ) -> None:
        self._listener = listener
        self._knows = knows
        self._receive = receive
        self._room = room
        self._security = security
        self._selector = selectors.DefaultSelector()
        self._callers: dict[_Caller, None] = {}  # in the order they came
        self._closed = threading.Event()
        self._listening = False
        self._rests_until = 0.0
        self._sent_away: Counter[tuple[str, str]] = Counter()
        self._told_at = 0.0

    def run(self, tick: Callable[[], None]) -> None:
        """Until it is closed; `tick` is called several times a second."""
        self._listener.setblocking(False)
        try:
            Loop("dimse lobby", most=_REST).keep(partial(self._look_round, tick), self._closed)
        finally:
            for caller in list(self._callers):
                self._drop(caller)
            self._selector.close()

    def close(self) -> None:
        self._closed.set()

    def _look_round(self, tick: Callable[[], None]) -> None:
        self._listen()
        for key, _ in self._selector.select(_TICK):
            if key.data is None:
                self._accept()
            elif key.data in self._callers:
                self._attend_to(key.data)
        self._dismiss_late()
        self._tell()
        tick()

    def _attend_to(self, caller: _Caller) -> None:
        try:
            self._hear(caller)
        except Exception:  # a bug of ours, over what he says: the others needn't wait for it
            log.exception("a caller could not be heard", address=caller.address)
            self._drop(caller)

    def _listen(self) -> None:
        if not self._listening and time.monotonic() >= self._rests_until:
            self._selector.register(self._listener, selectors.EVENT_READ, None)
            self._listening = True

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                wire, peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _BUSY:
                    self._rest(error)
                return  # or the caller has gone before he was let in
            if not self._knows(str(peer[0])):
                self._sent_away[str(peer[0]), "no known peer has its address"] += 1
                wire.close()
                continue
            self._make_room(str(peer[0]))
            self._seat(wire, peer)

    def _seat(self, wire: socket.socket, peer: Any) -> None:
        wire.setblocking(False)
        vouchers = 0
        if self._security is not None:
            vouchers = self._security.vouchers()
            try:
                context = self._security.context
                wire = context.wrap_socket(wire, server_side=True, do_handshake_on_connect=False)
            except OSError:  # gone already
                wire.close()
                return
        caller = _Caller(wire, peer, time.monotonic() + self._room.patience, vouchers)
        self._callers[caller] = None
        self._selector.register(wire, selectors.EVENT_READ, caller)

    def _make_room(self, address: str) -> None:
        waiting = Counter(caller.address for caller in self._callers)
        if waiting[address] < self._room.of_one:
            if waiting.total() < self._room.most:
                return
            address = waiting.most_common(1)[0][0]
        first = next(caller for caller in self._callers if caller.address == address)
        self._drop(first, "others of its address came after it")

    def _hear(self, caller: _Caller) -> None:
        try:
            if isinstance(caller.wire, ssl.SSLSocket) and not caller.secured:
                self._shake_hands(caller.wire)
                caller.secured = True
            if caller.leaving:
                if not caller.wire.recv(_HEAD):
                    self._drop(caller)
                return
            while caller.missing:
                data = caller.wire.recv(caller.missing)
                if not data:
                    self._drop(caller)
                    return
                caller.data += data
                if caller.data[0] != _REQUEST or caller.missing > _LONGEST_REQUEST:
                    self._drop(caller, "it didn't begin with a request for an association")
                    return
        except (BlockingIOError, ssl.SSLWantReadError):
            self._await(caller, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._await(caller, selectors.EVENT_WRITE)
        except OSError as error:
            why = f"no TLS came about ({getattr(error, 'reason', None) or error})"
            self._drop(caller, why if isinstance(error, ssl.SSLError | PermissionError) else "")
        else:
            self._hand_over(caller)

    def _shake_hands(self, link: ssl.SSLSocket) -> None:
        assert self._security is not None
        link.do_handshake()
        shown = link.getpeercert(binary_form=True)
        if shown and not self._security.accepts(shown):
            raise PermissionError("its certificate's subject isn't allowed")

    def _await(self, caller: _Caller, event: int) -> None:
        self._selector.modify(caller.wire, event, caller)

    def _hand_over(self, caller: _Caller) -> None:
        pdu = bytes(caller.data)
        titles = _title(pdu[_CALLING]), _title(pdu[_CALLED])
        request = Request(*titles, caller.address, pdu, caller.vouchers)
        self._selector.unregister(caller.wire)
        del self._callers[caller]
        try:
            refusal = self._receive(caller.wire, caller.peer, request)
        except Exception:  # a bug of ours, or no more threads; the others needn't wait for it
            log.exception("an association could not be begun", address=caller.address)
            caller.wire.close()
            return
        if refusal is not None:
            self._send_away(caller, refusal)

    def _send_away(self, caller: _Caller, refusal: bytes) -> None:
        """Who is cut off at once may never read why."""
        try:
            caller.wire.setblocking(False)
            caller.wire.send(refusal)
            caller.wire.shutdown(socket.SHUT_WR)
        except OSError:
            caller.wire.close()
            return
        caller.leaving, caller.until = True, time.monotonic() + _FAREWELL
        self._callers[caller] = None
        self._selector.register(caller.wire, selectors.EVENT_READ, caller)

    def _dismiss_late(self) -> None:
        now = time.monotonic()
        for caller in [caller for caller in self._callers if caller.until < now]:
            self._drop(caller, "" if caller.leaving else "it didn't ask for an association in time")

    def _drop(self, caller: _Caller, why: str = "") -> None:
        self._callers.pop(caller, None)
        with suppress(KeyError, ValueError):
            self._selector.unregister(caller.wire)
        caller.wire.close()
        if why:
            self._sent_away[caller.address, why] += 1

    def _rest(self, error: OSError) -> None:
        log.error("no more connections can be opened for DICOM", error=error.strerror)
        self._selector.unregister(self._listener)
        self._listening = False
        self._rests_until = time.monotonic() + _REST

    def _tell(self) -> None:
        """Not for each of them: they may be thousands."""
        if not self._sent_away or time.monotonic() < self._told_at + _TELL_EVERY:
            return
        for (address, why), count in self._sent_away.most_common(10):
            log.warning(f"dropped a connection: {why}", address=address, count=count)
        self._sent_away.clear()
        self._told_at = time.monotonic()


def _title(field: bytes) -> str:
    return field.decode("ascii", "replace").strip(" \0")
