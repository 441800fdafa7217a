"""A mail server that keeps what it is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller

from tests.peers.ports import free_port


@dataclass
class Letters:
    port: int = 0
    refuses: bool = False
    taken: list[EmailMessage] = field(default_factory=list)
    recipients: set[str] = field(default_factory=set)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.refuses:
            return "451 not now"
        letter = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(letter, EmailMessage)
        self.taken.append(letter)
        self.recipients |= set(envelope.rcpt_tos)
        return "250 kept"

    @property
    def texts(self) -> list[str]:
        return [f"{each['Subject']}\n{each.get_content()}".replace("\r\n", "\n") for each in self.taken]

    def about(self, cause: str) -> list[str]:
        """The kinds of those that name the cause."""
        found = []
        for text in self.texts:
            kind = re.match(r"\[gateway\] ([a-z-]+): ", text)
            if kind is not None and f"Cause: {cause}\n" in text:
                found.append(kind[1])
        return found


@contextmanager
def letters(**settings: Any) -> Iterator[Letters]:
    """`settings`: of the SMTP server, such as its TLS and who may sign in."""
    kept = Letters(free_port())
    controller = Controller(kept, hostname="127.0.0.1", port=kept.port, **settings)
    controller.start()
    try:
        yield kept
    finally:
        controller.stop()
