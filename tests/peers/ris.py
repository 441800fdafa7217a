"""A RIS that listens for HL7 messages, built on the public `hl7` package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import hl7
import hl7.mllp


@dataclass
class Ris:
    """`answers`: the codes that it answers with, one after the other; AA when there are no more. An empty one
    is no answer: it hangs up. `words`: why, where it doesn't accept."""

    port: int = 0
    words: str = ""
    received: list[hl7.Message] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    async def talk(self, reader: Any, writer: Any) -> None:
        try:
            message = await reader.readmessage()
            self.received.append(message)
            code = self.answers.pop(0) if self.answers else "AA"
            if code:
                answer = message.create_ack(code)
                if code != "AA" and self.words:
                    answer.assign_field(self.words, "MSA", 1, 3)
                writer.writemessage(answer)
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # somebody who only looked
        finally:
            writer.close()


@asynccontextmanager
async def ris() -> AsyncIterator[Ris]:
    state = Ris()
    server = await hl7.mllp.start_hl7_server(state.talk, "127.0.0.1", 0, encoding="utf-8", limit=2**25)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
