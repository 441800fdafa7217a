"""What users do with a result that stands on a slide: they change it, press its buttons, remove it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

from gateway.contract import Failure, Modification
from gateway.delivery.slide import SlideWriter
from gateway.intake.problems import Problem
from gateway.jobs.records import NewJob
from gateway.jobs.store import DatabaseError, Store
from gateway.jobs.store.grants import ChangedResult
from gateway.sectra.known import known_context, known_result
from gateway.sectra.messages import Delete, Modify
from gateway.sectra.results import PatchResult, StoredResult
from gateway.sectra.servers import SectraServers
from gateway.work.changes import Changes

log = structlog.get_logger(__name__)

CLICK_MAY_COST = 2.5  # seconds, beyond our own commit


class Corrections:
    """`require`: asks Sectra about whoever calls, and raises Problem if it doesn't know him. `made`: as if
    a job were made of the call."""

    def __init__(
        self,
        store: Store,
        servers: SectraServers,
        writer: SlideWriter,
        changes: Changes,
        require: Callable[[NewJob], Awaitable[None]],
    ) -> None:
        self._store = store
        self._servers = servers
        self._writer = writer
        self._changes = changes
        self._require = require

    async def modify(self, call: Modify, made: NewJob) -> object:
        """The vendor's answer; without one the result stays as the user changed it, buttons released."""
        try:
            async with asyncio.timeout(CLICK_MAY_COST):
                await self._require(made)
            if not _is_a_button(call.input):
                await self._count(call.input, made, "changed")
            answer = await self._tell(call, call.input, made)
            if answer is not None:
                return answer
            client = self._servers.client(
                made.server or "", made.callback_url or "", made.application, made.callback_token, own=False
            )
            changed = _release_buttons(call.input)
            async with asyncio.timeout(CLICK_MAY_COST):
                stored = await self._writer.change(client, made.server or "", made.application, changed)
                return stored.to_wire()
        except (Failure, TimeoutError) as trouble:
            said = "a change by the user couldn't be stored"
            log.warning(said, application=made.application, error=str(trouble))
            return _release_buttons(call.input).to_wire()

    async def delete(self, call: Delete, gone: StoredResult, made: NewJob) -> None:
        try:
            async with asyncio.timeout(CLICK_MAY_COST):
                await self._require(made)
        except (Failure, TimeoutError, Problem) as trouble:
            # The next to write there will see that it is gone.
            log.warning("a removal wasn't taken note of", application=made.application, error=str(trouble))
            return
        await self._count(gone, made, "deleted")
        await self._tell(call, gone, made)
        await self._writer.forget(made.server or "", made.application, gone.id)

    async def _tell(self, call: Modify | Delete, changed: StoredResult, made: NewJob) -> object | None:
        sectra = {"callback_url": made.callback_url or "", "callback_token": made.callback_token or ""}
        answer = await self._changes.tell(
            made.adapter,
            ChangedResult(made.server or "", made.application, call.slide_id, changed.id),
            Modification(call.action, known_result(changed.to_wire())),
            sectra,
            known_context(call.context),
        )
        if answer is None or (answer.get("id"), answer.get("slideId")) != (changed.id, call.slide_id):
            return None
        return known_result(answer)

    async def _count(self, result: StoredResult, made: NewJob, what: str) -> None:
        """What users think of a vendor's results; whoever waits for an answer has it all the same."""
        server, application = made.server or "", made.application
        try:
            await self._store.count_verdict(server, application, result.id, what, datetime.now(UTC))
        except DatabaseError as trouble:
            error = type(trouble).__name__
            log.warning("a change by a user wasn't counted", application=application, error=error)


def _is_a_button(result: StoredResult) -> bool:
    """Pressed in a gallery of patches: it asks the vendor for something, and corrects nothing."""
    made = result.data.result
    return isinstance(made, PatchResult) and any(action.state for action in made.content.actions)


def _release_buttons(result: StoredResult) -> StoredResult:
    if isinstance(result.data.result, PatchResult):
        for action in result.data.result.content.actions:
            action.state = 0
    return result
