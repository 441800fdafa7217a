"""Who may call our storage service: under which AE title, from which host, and for what.

    send      studies, for an application
    return    results, as a vendor
    deliver   what we asked an archive for: instances by C-MOVE, reports on storage commitment

Names are looked up beside, again and again: whoever calls waits for no name service, and while that is down
the addresses known before hold.
"""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Final, Literal

import structlog

from gateway.contract import Sender
from gateway.loops import Loop
from gateway.settings.sections import DimseArchive, Settings

log = structlog.get_logger(__name__)

Right = Literal["send", "return", "deliver"]

_NAMES_HOLD = 60.0
_FIRST_LOOK_UP = 5.0
_NOTHING: Final[frozenset[Right]] = frozenset()


class Neighbours:
    def __init__(self, settings: Settings, vendors: Iterable[Sender]) -> None:
        self._may: dict[str, dict[str, frozenset[Right]]] = defaultdict(dict)  # by AE title, then host
        for archive in settings.archives.values():
            if isinstance(archive, DimseArchive):
                self._add(archive.ae_title, archive.host, ["deliver"])
        for peer in settings.dimse.peers if settings.dimse else ():
            self._add(peer.ae_title, peer.host, peer.may)
        for vendor in vendors:
            self._add(vendor.ae_title, vendor.host, ["return"])
        self._addresses: dict[str, frozenset[str]] = {}
        self._looked_up = threading.Event()
        self._stopped = threading.Event()

    def _add(self, ae_title: str, host: str, may: Collection[Right]) -> None:
        hosts = self._may[ae_title.strip()]
        hosts[host] = hosts.get(host, _NOTHING) | frozenset(may)

    def start(self) -> None:
        self._stopped.clear()
        threading.Thread(target=self._look_up_again_and_again, name="dimse names", daemon=True).start()
        self._looked_up.wait(_FIRST_LOOK_UP)

    def stop(self) -> None:
        self._stopped.set()

    def live_at(self, address: str) -> bool:
        return any(address in known for known in self._addresses.values())

    def know(self, ae_title: str, address: str) -> bool:
        """Whether one of them calls so from there."""
        return any(address in self._addresses.get(host, ()) for host in self._may.get(ae_title.strip(), ()))

    def rights_of(self, ae_title: str, address: str) -> frozenset[Right]:
        hosts = self._may.get(ae_title.strip(), {})
        return _NOTHING.union(
            *(may for host, may in hosts.items() if address in self._addresses.get(host, ()))
        )

    def _look_up_again_and_again(self) -> None:
        Loop("dimse names", most=_NAMES_HOLD).keep(self._look_up, self._stopped, pause=_NAMES_HOLD)

    def _look_up(self) -> None:
        for host in {host for hosts in self._may.values() for host in hosts}:
            try:
                found = frozenset(str(address[0]) for *_, address in socket.getaddrinfo(host, None))
            except (OSError, UnicodeError):
                log.warning("a peer's host has no address", host=host)
            else:
                self._addresses = {**self._addresses, host: found}
        self._looked_up.set()
