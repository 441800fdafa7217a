"""pynetdicom's socket, asked by poll whether something has come: its own way fails in a process that has more
than a thousand files open."""

from __future__ import annotations

import select
import ssl
from typing import Any

from pynetdicom import AE
from pynetdicom.transport import AssociationSocket


class Wire(AssociationSocket):
    _wait = 0.0  # seconds

    @property
    def ready(self) -> bool:
        wire = self.socket
        if wire is None or not self._is_connected:
            return False
        if isinstance(wire, ssl.SSLSocket) and wire.pending():
            return True
        try:
            asked = select.poll()
            asked.register(wire, select.POLLIN)
            return bool(asked.poll(self._wait * 1000))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False


class Caller(AE):
    """Who calls by such a socket."""

    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> AssociationSocket:
        wire = Wire(assoc, address=address)
        wire.tls_args = tls_args
        return wire
