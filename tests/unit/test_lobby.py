"""Whatever breaks over one caller for DICOM, those after it are heard."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from struct import pack
from typing import Any

from gateway.dicom.lobby import Lobby, Request, Room

ASKING = pack(">BBL", 1, 0, 68) + b"\0\1\0\0" + b"GATEWAY".ljust(16) + b"MODALITY".ljust(16) + bytes(32)


class Broken(Lobby):
    """Over whoever begins with a wrong word, as a bug in what hears them would."""

    def _hear(self, caller: Any) -> None:
        if caller.wire.recv(1, socket.MSG_PEEK) == b"x":
            raise ValueError
        super()._hear(caller)


@contextmanager
def open_lobby(came: list[str], broken: list[str]) -> Iterator[socket.socket]:
    def knows(address: str) -> bool:
        if not broken:
            broken.append(address)
            raise RuntimeError
        return True

    def receive(wire: socket.socket, _: Any, asked: Request) -> None:
        came.append(asked.calling)
        wire.sendall(b"heard")
        wire.close()

    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        lobby = Lobby(listener, knows, receive, Room())
        thread = threading.Thread(target=lobby.run, args=(lambda: None,))
        thread.start()
        try:
            yield listener
        finally:
            lobby.close()
            thread.join(60)


def test_those_after_one_who_breaks_it_are_heard() -> None:
    came: list[str] = []
    broken: list[str] = []
    heard = b""
    with open_lobby(came, broken) as listener:
        for words in (b"", b"x", ASKING):
            with (
                socket.create_connection(listener.getsockname(), timeout=60) as caller,
                suppress(ConnectionResetError),
            ):
                caller.sendall(words)
                heard = caller.recv(5)
        assert (came, heard, len(broken)) == (["MODALITY"], b"heard", 1)
