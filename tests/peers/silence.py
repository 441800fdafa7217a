"""A machine that is down: packets to it vanish, so that a connection neither comes about nor is refused."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_port() -> Iterator[int]:
    """On loopback: a listener whose queue is full; the kernel then lets every further call go unanswered."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        callers: list[socket.socket] = []
        try:
            while len(callers) < 16:
                callers.append(socket.socket())
                callers[-1].settimeout(0.2)
                try:
                    callers[-1].connect(("127.0.0.1", port))
                except TimeoutError:
                    break
            else:
                raise RuntimeError("the queue of a listener never fills here")
            yield port
        finally:
            for caller in callers:
                caller.close()
